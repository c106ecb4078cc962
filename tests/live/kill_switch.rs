//! The kill switch on a real server, asked in a hot loop while a plain client and the fates do what they do to its key.
//!
//! The oracle needs no model: the moment a flip was acknowledged is known, and every permit says how old the reading is
//! that it rests on. A permit whose reading was sent after the acknowledgement is a violation of KILL-1, and so is one
//! that is given a lease after it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrator::adapters::redis::kill_switch::{KillRedis, KillRedisOptions};
use orchestrator_kernel::ports::kill_switch::KillGate;
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_kernel::random::Rng;
use orchestrator_runtime::kill_switch::{Gate, KillSwitch, KillSwitchArgs, KillSwitchSettings};
use orchestrator_runtime::status::StatusBoard;
use ractor::Actor;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::support::proxy::{Fault, FaultProxy, Reach};
use crate::support::redis_cli::RedisCli;
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

const KEY: &str = "kill_switch:state";
const POLL: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_millis(500);
/// Poll, timeout of a read, and what a busy machine adds.
const WORST: Duration = Duration::from_millis(600);
/// Nothing that heals takes longer.
const HEALED: Duration = Duration::from_secs(10);

/// A question to the gate and its answer.
#[derive(Clone, Copy)]
struct Sample {
    asked: Instant,
    /// The age of the reading that the permit rests on; nothing when it was refused.
    age: Option<Duration>,
}

/// A running kill switch and somebody who never stops asking.
struct Rig {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    asking: Option<thread::JoinHandle<()>>,
    gate: Gate,
    _runtime: Runtime,
}

/// The actor on Redis, as the tree starts it.
fn start_gate(url: String) -> (Runtime, Gate) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let gate = runtime.block_on(async {
        let store = KillRedis::start(KillRedisOptions {
            url,
            key: KEY.to_owned(),
            history_key: "kill_switch:history".to_owned(),
            read_timeout: POLL,
            command_timeout: Duration::from_secs(2),
        });
        let settings = KillSwitchSettings { poll: POLL, read_timeout: POLL, lease: LEASE };
        let board = StatusBoard::default();
        let gate = Gate::new(Arc::new(store.unwrap()), settings, Arc::new(Unobserved), board);
        let args = KillSwitchArgs { gate: gate.clone(), poll: POLL };
        Actor::spawn(None, KillSwitch, args).await.unwrap();
        gate
    });
    (runtime, gate)
}

impl Rig {
    fn start(url: String) -> Self {
        let (runtime, gate) = start_gate(url);
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let asking = thread::spawn({
            let (samples, stop, gate) = (Arc::clone(&samples), Arc::clone(&stop), gate.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let age = gate.try_permit().ok().map(|permit| permit.reading_age());
                    samples.lock().unwrap().push(Sample { asked, age });
                    thread::sleep(Duration::from_micros(20));
                }
            }
        });
        Self { samples, stop, asking: Some(asking), gate, _runtime: runtime }
    }

    /// Waits until a question asked after now is answered so.
    fn wait(&self, granted: bool, within: Duration) {
        let began = Instant::now();
        loop {
            let last = self.samples.lock().unwrap().last().copied();
            if last.is_some_and(|last| began < last.asked && last.age.is_some() == granted) {
                return;
            }
            let state = self.gate.current_view().state;
            assert!(began.elapsed() < within, "not granted={granted} within {within:?}: {state:?}");
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Does what blocks, waits until it does, and says how long after `act` returned the last permit was given.
    fn blocks(&self, act: impl FnOnce()) -> Duration {
        self.wait(true, HEALED);
        self.samples.lock().unwrap().clear();
        act();
        let acknowledged = Instant::now();
        self.wait(false, HEALED);
        self.blocked_since(acknowledged)
    }

    /// Checks every permit given since the switch was flipped, at the latest at `acknowledged`.
    fn blocked_since(&self, acknowledged: Instant) -> Duration {
        let samples = self.samples.lock().unwrap();
        let late = samples.iter().filter(|sample| acknowledged < sample.asked);
        let mut last = Duration::ZERO;
        for (sample, age) in late.filter_map(|sample| Some((sample, sample.age?))) {
            let after = sample.asked - acknowledged;
            assert!(
                after <= age,
                "{after:?} after the flip on a reading {age:?} old: it was sent afterwards"
            );
            assert!(age < LEASE && after < LEASE, "{after:?} after the flip, outside the lease");
            last = last.max(after);
        }
        last
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            drop(asking.join());
        }
    }
}

fn set(redis: &RedisServer, value: &str) {
    assert!(redis.command(&["SET", KEY, value]).unwrap().starts_with("+OK"));
}

/// Prints how long it took and returns the 95th percentile.
fn report(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!("{what}: {} flips, p50 {:?} p95 {:?} max {:?}", took.len(), at(50), at(95), at(100));
    at(95)
}

fn flips(rig: &Rig, redis: &RedisServer, random: &mut Rng, count: usize) -> Vec<Duration> {
    let engaged = r#"{"state":"ENGAGED","engaged_by":"ops","engagement_reason":"a test"}"#;
    let active = r#"{"state":"ACTIVE"}"#;
    let mut operator = RedisCli::to(redis.port());
    let flip = |number: usize| {
        let (halt, allow) = if number.is_multiple_of(2) { (engaged, active) } else { ("on", "off") };
        operator.set(KEY, allow);
        rig.wait(true, HEALED);
        thread::sleep(Duration::from_micros(random.next_below(20_000)));
        rig.blocks(|| operator.set(KEY, halt))
    };
    (0..count).map(flip).collect()
}

/// KILL-1, KILL-3. Method: 200 flips by redis-cli at random moments.
#[test]
fn no_permit_is_given_after_a_flip_and_refusal_comes_within_ten_milliseconds() {
    let redis = RedisServer::start();
    let rig = Rig::start(Secrets::shared().as_service(&redis.url()));

    let took = flips(&rig, &redis, &mut Rng::new(1), 200);

    assert!(took.iter().all(|took| *took <= WORST));
    let p95 = report("announced", took);
    assert!(p95 < Duration::from_millis(10), "p95 {p95:?}");
}

/// What happens, how, and how it is undone.
type Fate = (&'static str, Box<dyn Fn(&mut RedisServer)>, fn(&mut RedisServer));

/// KILL-1. Method: each thing that can happen to the key, the server and the rights; afterwards permits come back by
/// themselves once the value does.
#[test]
fn whatever_happens_to_the_key_blocks_within_the_lease_and_heals() {
    let mut redis = RedisServer::start();
    let rig = Rig::start(Secrets::shared().as_service(&redis.url()));
    let huge = "x".repeat(10 << 20);
    let nothing = |_: &mut RedisServer| {};
    let faults: [Fate; 7] = [
        ("DEL", Box::new(|redis| drop(redis.command(&["DEL", KEY]).unwrap())), nothing),
        ("FLUSHALL", Box::new(|redis| drop(redis.command(&["FLUSHALL"]).unwrap())), nothing),
        (
            "a list",
            Box::new(|redis| {
                redis.command(&["DEL", KEY]).unwrap();
                redis.command(&["LPUSH", KEY, "off"]).unwrap();
            }),
            nothing,
        ),
        ("garbage", Box::new(|redis| set(redis, "ACTIVE")), nothing),
        ("10 MiB", Box::new(move |redis| set(redis, &huge)), nothing),
        (
            "expiry",
            Box::new(|redis| {
                redis.command(&["PEXPIRE", KEY, "1"]).unwrap();
                while redis.command(&["EXISTS", KEY]).unwrap().starts_with(":1") {}
            }),
            nothing,
        ),
        (
            "no right to read",
            Box::new(|redis| drop(redis.command(&["ACL", "SETUSER", "orchestrator", "-getrange"]).unwrap())),
            |redis| drop(redis.command(&["ACL", "SETUSER", "orchestrator", "+getrange"]).unwrap()),
        ),
    ];
    for (what, fault, heal) in faults {
        set(&redis, "off");
        let took = rig.blocks(|| fault(&mut redis));
        println!("{what}: blocked after {took:?}");
        assert!(took <= WORST, "{what}: {took:?}");
        heal(&mut redis);
        redis.command(&["DEL", KEY]).unwrap();
        set(&redis, "off");
        rig.wait(true, HEALED);
    }

    let took = rig.blocks(|| {
        redis.kill();
        std::fs::remove_dir_all(redis.aof_dir()).unwrap();
        redis.start_again();
    });
    println!("restart with nothing: blocked after {took:?}");
    thread::sleep(LEASE);
    rig.wait(false, HEALED);
    assert!(
        redis.command(&["EXISTS", KEY]).unwrap().starts_with(":0"),
        "nothing is created by itself (KILL-2)"
    );
    set(&redis, "off");
    rig.wait(true, HEALED);
}

/// Method: the server is frozen; what it would say is not known, so nothing is permitted once the lease has ended.
#[test]
fn a_frozen_server_blocks_when_the_lease_ends_and_no_sooner() {
    let redis = RedisServer::start();
    set(&redis, "off");
    let rig = Rig::start(Secrets::shared().as_service(&redis.url()));

    let took = rig.blocks(|| redis.pause());
    println!("frozen: blocked after {took:?}");
    assert!(LEASE - POLL * 2 <= took && took <= LEASE, "{took:?}");
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(2) {
        assert!(rig.gate.try_permit().is_err());
        thread::sleep(Duration::from_millis(1));
    }

    redis.resume();
    let resumed = Instant::now();
    rig.wait(true, HEALED);
    println!("frozen: permits again after {:?}", resumed.elapsed());
}

/// KILL-3. Method: the server announces nothing any more; only the poll finds out.
#[test]
fn without_notifications_the_poll_finds_out_in_time() {
    let redis = RedisServer::start();
    let rig = Rig::start(Secrets::shared().as_service(&redis.url()));
    redis.command(&["CONFIG", "SET", "notify-keyspace-events", ""]).unwrap();

    let took = flips(&rig, &redis, &mut Rng::new(2), 20);

    assert!(took.iter().all(|took| *took <= WORST), "{took:?}");
    assert!(report("polled", took) <= POLL * 2);
}

/// Method: connections that stay open and carry nothing any more, as behind a router that lost its table; new ones
/// work.
#[test]
fn silent_connections_are_given_up_and_notifications_come_back() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::to(redis.port());
    set(&redis, "off");
    let rig = Rig::start(Secrets::shared().as_service(&format!("redis://127.0.0.1:{}/0", proxy.port())));
    rig.wait(true, HEALED);

    let took = rig.blocks(|| proxy.put(Fault::BlackHole, Reach::Existing));
    assert!(took <= LEASE, "{took:?}");
    let cut = Instant::now();
    rig.wait(true, HEALED);
    println!("silent connection: permits again after {:?}", cut.elapsed());

    // The subscription is found silent by its next check; from then on flips are announced again.
    let deadline = Instant::now() + Duration::from_secs(20);
    while flips(&rig, &redis, &mut Rng::new(3), 3).iter().any(|took| Duration::from_millis(20) < *took) {
        assert!(Instant::now() < deadline, "flips are still found by the poll only");
    }
}

/// The environment variable that makes the next test the process to be frozen.
const CHILD: &str = "ORCH_TEST_KILL_SWITCH_CHILD";

/// Not a test by itself: the process that the next one freezes. It asks in a hot loop and prints each change of the
/// answer, and the first answer after any pause: microseconds since the epoch, and the age of the reading if it was
/// granted.
#[test]
fn process_that_asks_and_prints() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let (_runtime, gate) = start_gate(url);
    let mut last: Option<(Instant, bool)> = None;
    let began = Instant::now();
    // The other test ends it sooner; should that be killed, it ends by itself.
    while began.elapsed() < Duration::from_secs(120) {
        let asked = Instant::now();
        let age = gate.try_permit().ok().map(|permit| permit.reading_age());
        let paused = last.is_none_or(|(before, _)| Duration::from_millis(300) < asked - before);
        if paused || last.is_some_and(|(_, granted)| granted != age.is_some()) {
            let age = age.map_or(-1, |age| i64::try_from(age.as_micros()).unwrap());
            println!("\nanswer {} {age}", now_us());
        }
        last = Some((asked, age.is_some()));
    }
}

fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

struct Asking(Child);

impl Asking {
    fn start(redis: &RedisServer) -> (Self, std::sync::mpsc::Receiver<(i64, i64)>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_switch::process_that_asks_and_prints", "--nocapture"])
            .env(CHILD, Secrets::shared().as_service(&redis.url()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, answers) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut words = line.split(' ').skip_while(|word| *word != "answer").skip(1);
                let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
                if let (Some(at), Some(age)) = (number(words.next()), number(words.next()))
                    && sender.send((at, age)).is_err()
                {
                    return;
                }
            }
        });
        (Self(child), answers)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

/// KILL-1. Method: a process that asks all the time is frozen; the switch is flipped meanwhile, or not. When it goes
/// on, its lease has ended: the first answer is a refusal, unless a reading sent after the freeze came first.
#[test]
fn a_process_that_was_frozen_has_no_lease_left() {
    let redis = RedisServer::start();
    set(&redis, "off");
    let (process, answers) = Asking::start(&redis);
    let next = || answers.recv_timeout(HEALED).expect("the process prints an answer");
    while next().1 < 0 {}

    for (number, freeze_ms) in [2000, 700, 700, 700, 700, 700].into_iter().enumerate() {
        let flipped = number.is_multiple_of(2);
        process.signal(Signal::STOP);
        if flipped {
            set(&redis, "on");
        }
        thread::sleep(Duration::from_millis(freeze_ms));
        let resumed_us = now_us();
        process.signal(Signal::CONT);

        let mut first = next();
        while first.0 < resumed_us {
            first = next();
        }
        println!("frozen {freeze_ms} ms, flipped {flipped}: first answer {first:?}, resumed at {resumed_us}");
        if flipped {
            assert_eq!(first.1, -1, "a permit after the flip");
            thread::sleep(LEASE);
            assert!(answers.try_iter().all(|(_, age)| age < 0), "a permit after the flip");
            set(&redis, "off");
            while next().1 < 0 {}
        } else if first.1 < 0 {
            while next().1 < 0 {}
        } else {
            assert!(first.1 <= first.0 - resumed_us, "the reading is from before the freeze: {first:?}");
        }
    }
}
