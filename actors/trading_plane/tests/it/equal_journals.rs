//! REP-2: two runs of one seeded world on a recorded clock write equal journals, byte for byte, on one thread or four.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::kill_switch::KillGate;
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::random::Rng;
use orchestrator_kernel::trading::agent::{AgentCommand, AgentStatus};
use orchestrator_kernel::trading::ids::StageName;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::schedule::{MisfirePolicy, OverlapPolicy, ScheduleTrigger};
use orchestrator_kernel::trading::stage::{HookMode, HookMoment, HookSpec, StageProvider};
use orchestrator_kernel::trading::strategy::StrategyCommand;
use orchestrator_runtime::kill_switch::{Gate, KillSwitchSettings};
use orchestrator_trading_plane::cadence::messages::ScheduleEvent;
use orchestrator_trading_plane::command::TradingCommand;
use orchestrator_trading_plane::plane::{TradingHandle, TradingStop, start_trading_plane};
use orchestrator_trading_plane::settings::TradingSettings;
use orchestrator_trading_plane::testkit::{
    PlaneRig, WALL, every_minute, good_output, origin, pipeline_name, strategy_name, trading_settings,
};

/// Stages that fail and dawdle as what they are asked says, whoever asks first.
struct SeededStages {
    seed: u64,
}

#[async_trait]
impl StageBackend for SeededStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let asked = format!(
            "{}/{}/{:?}/{}",
            request.started.cycle_id, request.stage.name, request.strategy, request.attempt
        );
        let mut dice = Rng::new(
            asked.bytes().fold(self.seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))),
        );
        match dice.next_below(24) {
            0 => Err(StageError::new(StageErrorKind::Provider, "as told")),
            1..=3 => {
                tokio::time::sleep(Duration::from_millis(dice.next_below(4))).await;
                Ok(good_output(&request))
            }
            _ => Ok(good_output(&request)),
        }
    }
}

/// A driven clock that the test moves. Nobody of the plane may sleep on it.
struct SteppedClock(AtomicI64);

#[async_trait]
impl Clock for SteppedClock {
    fn now(&self) -> Option<TsMs> {
        Some(TsMs(self.0.load(Ordering::Acquire)))
    }

    async fn wait_started(&self) -> TsMs {
        TsMs(self.0.load(Ordering::Acquire))
    }

    async fn sleep_until(&self, deadline: TsMs) {
        panic!("somebody sleeps until {deadline}, and nobody moves the clock for him");
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        true
    }

    async fn advance(&self, at: TsMs) {
        self.0.store(at.0, Ordering::Release);
    }
}

/// Lets time go to `at`, with everything that is due before it.
async fn go_to(handle: &TradingHandle, clock: &SteppedClock, at: TsMs) {
    let mut now = clock.now().unwrap();
    while let Some(next) = handle.work_off_due(now).await.unwrap().filter(|next| *next < at) {
        clock.advance(next).await;
        now = next;
    }
    clock.advance(at).await;
}

/// Three schedules of which two fire at one moment, one of outputs, one of events; hooks; ten cycles may run.
fn busy_settings() -> TradingSettings {
    let mut settings = trading_settings();
    settings.schedules.clear();
    for (name, pipeline, every_ms) in [
        ("two", "canonical", 2000),
        ("three", "analysis", 3000),
        ("five", "heartbeat", 5000),
        ("news", "canonical", 0),
    ] {
        let mut schedule = every_minute(name, pipeline);
        schedule.schedule.trigger = ScheduleTrigger::Interval { every_ms };
        schedule.schedule.overlap = OverlapPolicy::QueueOne;
        schedule.schedule.misfire = MisfirePolicy::All;
        schedule.schedule.concurrent_max = 3;
        if every_ms == 0 {
            schedule.schedule.trigger = ScheduleTrigger::OnDemand;
            schedule.topics = vec!["news".to_owned()];
            schedule.on_outputs = true;
        }
        settings.schedules.push(schedule);
    }
    let name = |name: &str| StageName::new(name).unwrap();
    settings.pipelines.get_mut(&pipeline_name("canonical")).unwrap().hooks.push(HookSpec {
        name: name("watch"),
        stage: name("RISK"),
        moment: HookMoment::After,
        mode: HookMode::Hard,
        provider: StageProvider::Fixed,
        budget: Duration::from_secs(60),
    });
    settings
}

/// What happens to the plane next, at a moment of the recorded clock.
async fn happen(handle: &TradingHandle, dice: &mut Rng, number: u64, at: TsMs) {
    let strategy = strategy_name(["a", "b"][dice.next_index(2)]);
    let command = match dice.next_below(9) {
        0 | 1 => {
            let event_id = format!("event-{}", number / 2);
            let event = ScheduleEvent { topic: "news".to_owned(), event_id, at: TsMs(WALL) };
            return handle.take_event(event).await.unwrap();
        }
        2 | 3 => return handle.take_output(RunSeq(number), at).await.unwrap(),
        4 => TradingCommand::AnalyzeStrategy { strategy, symbols: Vec::new() },
        5 => TradingCommand::Strategy(strategy, StrategyCommand::Pause),
        6 => TradingCommand::Strategy(strategy, StrategyCommand::Activate),
        _ => TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None }),
    };
    // A refusal is on record too.
    handle.execute_command(command, origin(&format!("key-{number}"))).await.ok();
}

/// A gate whose reading lasts: how busy the machine is decides nothing here.
async fn gate_of(rig: &PlaneRig) -> Gate {
    let (poll, read_timeout, lease) =
        (Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3600));
    let settings = KillSwitchSettings { poll, read_timeout, lease };
    let gate = Gate::new(rig.kill_switch.clone(), settings, Arc::new(Unobserved), rig.board.clone());
    assert!(gate.fresh_permit().await.is_ok());
    gate
}

/// The journal that one run of this world writes.
async fn write_journal(seed: u64) -> Vec<Vec<u8>> {
    let rig = PlaneRig::new(busy_settings());
    let clock = Arc::new(SteppedClock(AtomicI64::new(WALL)));
    let mut ports = rig.ports().await;
    ports.clock = clock.clone();
    ports.stages = Arc::new(SeededStages { seed });
    rig.log.set_yields(seed, 3);
    ports.kill_gate = Arc::new(gate_of(&rig).await);
    let plane = start_trading_plane(ports, rig.settings.clone()).await.unwrap();
    let handle = plane.handle().clone();
    // Its first look has come before anything else.
    handle.wait_settled().await.unwrap();
    let (mut dice, mut at) = (Rng::new(seed), WALL);
    for number in 1..=40 {
        happen(&handle, &mut dice, number, TsMs(at)).await;
        at += 1 + i64::try_from(dice.next_below(2500)).unwrap();
        go_to(&handle, &clock, TsMs(at)).await;
    }
    // A pause ends by itself, at a moment of its own.
    let start = TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None });
    handle.execute_command(start, origin("start")).await.ok();
    let pause = TradingCommand::Agent(AgentCommand::Pause { minutes: Some(1) });
    handle.execute_command(pause, origin("pause")).await.unwrap();
    go_to(&handle, &clock, TsMs(at + 60_001)).await;
    assert_ne!(handle.view.agent_reading().status, AgentStatus::Paused);
    assert_eq!(plane.stop(Duration::from_secs(30)).await, TradingStop::Clean);
    rig.audited().await;
    rig.log.records().await
}

fn on_threads(threads: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(write_journal(seed))
}

/// REP-2. Method: each world once on one thread and twice on four, over stages and a log that give way by chance.
#[test]
fn equal_worlds_on_a_recorded_clock_write_equal_journals_on_one_thread_or_four() {
    for seed in 0..6 {
        let first = on_threads(1, seed);
        assert!(100 < first.len(), "{} records prove nothing", first.len());
        for threads in [4, 4] {
            let other = on_threads(threads, seed);
            let differs = (0..first.len().max(other.len())).find(|at| first.get(*at) != other.get(*at));
            if let Some(at) = differs {
                let text = |records: &[Vec<u8>]| {
                    let bytes = records.get(at).map(Vec::as_slice).unwrap_or_default();
                    format!("{:?}", orchestrator_kernel::trading::journal::SealedEntry::decode(bytes))
                };
                panic!("seed {seed}: record {} is\n{}\nand\n{}", at + 1, text(&first), text(&other));
            }
        }
    }
}
