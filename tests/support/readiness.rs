//! Readiness as a load balancer sees it: asked every ten milliseconds while a test makes its fault, and judged
//! afterwards.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(10);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How soon a fault that the service can see must be said (RELIABILITY §6).
pub(crate) const SAID_MAX: Duration = Duration::from_secs(2);

/// One answer of `/readyz`.
struct Sample {
    /// When it was asked for.
    asked: Instant,
    /// When it came.
    came: Instant,
    is_ready: bool,
    body: String,
}

/// A prober in a thread of its own, so that nothing that a test waits for holds it up.
pub(crate) struct ReadinessWatch {
    is_over: Arc<AtomicBool>,
    prober: JoinHandle<ReadinessRecord>,
}

impl ReadinessWatch {
    /// Begins to ask the service at `url`.
    pub(crate) fn begin(url: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, url) = (Arc::clone(&is_over), format!("{url}/readyz"));
        let prober = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(probe(&url, &over))
        });
        Self { is_over, prober }
    }

    /// Ends it and hands over what was seen.
    pub(crate) fn end(self) -> ReadinessRecord {
        self.is_over.store(true, Ordering::Relaxed);
        self.prober.join().expect("the prober ends")
    }
}

async fn probe(url: &str, is_over: &AtomicBool) -> ReadinessRecord {
    let client = reqwest::Client::builder().timeout(ANSWER_MAX).build().unwrap();
    let mut samples = Vec::new();
    loop {
        // Read before the question: the last answer is younger than the end of the watch, so what a test has seen before it
        // is in the record too.
        let is_last = is_over.load(Ordering::Relaxed);
        let asked = Instant::now();
        let (is_ready, body) = match ask(&client, url).await {
            Ok(answer) => answer,
            Err(error) => return ReadinessRecord { samples, unanswered: Some(error.to_string()) },
        };
        samples.push(Sample { asked, came: Instant::now(), is_ready, body });
        if is_last {
            return ReadinessRecord { samples, unanswered: None };
        }
        tokio::time::sleep(EVERY.saturating_sub(asked.elapsed())).await;
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> reqwest::Result<(bool, String)> {
    let answer = client.get(url).send().await?;
    let is_ready = answer.status().as_u16() == 200;
    Ok((is_ready, answer.text().await?))
}

/// What a prober saw.
pub(crate) struct ReadinessRecord {
    samples: Vec<Sample>,
    /// Why the last probe had no answer; no further one was made.
    unanswered: Option<String>,
}

impl ReadinessRecord {
    /// Checks that the service was ready all the time: the fault is none of those that a load balancer must know.
    pub(crate) fn never_lost(&self) {
        self.check_answered();
        if let Some(lost) = self.samples.iter().find(|sample| !sample.is_ready) {
            panic!("it was not ready: {}", lost.body);
        }
    }

    fn check_answered(&self) {
        assert!(!self.samples.is_empty(), "nothing was asked");
        assert!(self.unanswered.is_none(), "a probe was not answered: {:?}", self.unanswered);
    }

    /// Checks that readiness was lost, said with `word` at most `said_max` after `fault`, and never came back. The
    /// service may have ended meanwhile.
    pub(crate) fn lost_for_good(&self, word: &str, fault: Instant, said_max: Duration) {
        let first =
            self.samples.iter().position(|sample| !sample.is_ready).expect("the fault was never said");
        let (before, outage) = self.samples.split_at(first);
        assert!(
            before.iter().all(|sample| sample.asked <= fault + said_max),
            "ready {said_max:?} after the fault"
        );
        check_outage(outage, word, fault);
    }

    /// Checks that readiness was lost once: said with `word` at most `said_max` after `fault`, and then with every
    /// answer until it came back for good, which is not before `healed`. Returns how soon it was said.
    pub(crate) fn lost_once(
        &self,
        word: &str,
        fault: Instant,
        said_max: Duration,
        healed: Instant,
    ) -> Duration {
        self.check_answered();
        let first =
            self.samples.iter().position(|sample| !sample.is_ready).expect("the fault was never said");
        let last = self.samples.iter().rposition(|sample| !sample.is_ready).unwrap_or(first);
        let (before, outage) = (&self.samples[..first], &self.samples[first..=last]);
        check_outage(outage, word, fault);
        // A probe that was on its way when the fault came may say either.
        let early = before.iter().find(|sample| fault + said_max < sample.asked);
        assert!(early.is_none(), "it was ready {said_max:?} after the fault");
        let back = self.samples.get(last + 1).expect("it was never ready again");
        assert!(healed <= back.came, "it was ready {:.3?} before it could be", healed - back.came);
        outage[0].came.saturating_duration_since(fault)
    }
}

/// Checks that every answer of an outage says so, and why. `|` parts the word that is said first from those that may
/// take over from it.
fn check_outage(outage: &[Sample], word: &str, fault: Instant) {
    for sample in outage {
        let at = sample.came.saturating_duration_since(fault);
        assert!(
            !sample.is_ready,
            "it said to be ready {at:.3?} after the fault, and then again not to be: {:?}",
            outage
                .iter()
                .find(|later| sample.asked < later.asked && !later.is_ready)
                .map(|later| &later.body)
        );
        let is_first = std::ptr::eq(sample, &outage[0]);
        let words_max = if is_first { 1 } else { usize::MAX };
        let is_said = word.split('|').take(words_max).any(|word| sample.body.contains(word));
        assert!(is_said, "{word} is not said {at:.3?} after the fault: {}", sample.body);
    }
}
