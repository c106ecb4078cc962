//! The log on Redis against the reference log in memory: the same answer to every call.

use orchestrator::adapters::redis::RedisLogOptions;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{Log, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::random::Rng;

use crate::support::redis_store::Rig;

const SEEDS: u64 = 20;
const STEPS: u64 = 120;

/// Draws of calls that may matter.
struct Random(Rng);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_below(bound)
    }

    /// A position a little before or after `tail`.
    fn near(&mut self, tail: Seq) -> Seq {
        Seq((tail.0 + self.below(4)).saturating_sub(self.below(12)))
    }

    /// Records that mostly equal those of another call at the same positions.
    fn batch(&mut self, tail: Seq) -> RecordBatch {
        let first = if self.below(2) == 0 { tail.next() } else { self.near(tail) };
        let mut batch = RecordBatch::starting_at(first);
        for seq in first.0..first.0 + self.below(6) {
            let variant = u8::from(self.below(20) == 0);
            batch.push(&vec![variant; usize::try_from(seq % 7).unwrap()]);
        }
        batch
    }
}

/// One random call, on both logs; what each answered.
async fn step(random: &mut Random, logs: [&dyn Log; 2], epochs: &mut Vec<Epoch>) -> (String, [String; 2]) {
    let tail = logs[0].stat().tail;
    let [model, redis] = logs;
    match random.below(20) {
        0 => {
            let taken = model.acquire().await.unwrap();
            epochs.push(taken.epoch);
            ("acquire".to_owned(), [format!("{taken:?}"), format!("{:?}", redis.acquire().await.unwrap())])
        }
        1 => {
            let below = random.near(tail);
            let late = usize::try_from(random.below(10)).unwrap().saturating_sub(8);
            let epoch = epochs[epochs.len().saturating_sub(1 + late)];
            let trimmed = [model.trim(epoch, below).await, redis.trim(epoch, below).await];
            (format!("trim {epoch} {below}"), trimmed.map(|it| format!("{it:?}")))
        }
        2..6 => {
            let (from, records, bytes) = (random.near(tail), random.below(8), random.below(20));
            let limit = ReadLimit {
                records: usize::try_from(records).unwrap(),
                bytes: usize::try_from(bytes).unwrap(),
            };
            let read = [model.read(from, limit).await, redis.read(from, limit).await];
            (format!("read {from} {limit:?}"), read.map(|it| format!("{it:?}")))
        }
        _ => {
            let late = usize::try_from(random.below(10)).unwrap().saturating_sub(8);
            let epoch = epochs[epochs.len().saturating_sub(1 + late)];
            let batch = random.batch(tail);
            let appended = [model.append(epoch, &batch).await, redis.append(epoch, &batch).await];
            (format!("append {epoch} {batch:?}"), appended.map(|it| format!("{it:?}")))
        }
    }
}

#[tokio::test]
async fn random_calls_get_the_answers_of_the_reference_log() {
    let rig = Rig::start();
    let store = rig.store().await;

    for seed in 0..SEEDS {
        let mut random = Random(Rng::new(seed));
        let model = MemoryLog::default();
        let redis = store.open_log(&format!("log-{seed}"), RedisLogOptions::default()).await.unwrap();
        let mut epochs = vec![model.acquire().await.unwrap().epoch];
        assert_eq!(redis.acquire().await.unwrap().epoch, epochs[0]);
        for number in 0..STEPS {
            let (call, [expected, found]) = step(&mut random, [&model, &redis], &mut epochs).await;
            assert_eq!(found, expected, "SEED={seed} step {number}: {call}");
            let (expected, found) = (model.stat(), redis.stat());
            assert_eq!(
                (found.start, found.tail),
                (expected.start, expected.tail),
                "SEED={seed} step {number}"
            );
        }
    }
}
