//! The spans of cycles and their stages, as exporters of traces see them.
//!
//! A process of its own: whether anybody listens to a span is remembered for the whole process, as the thread sees it
//! that is the first to reach it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken test must stop loudly")]

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use orchestrator_trading_plane::testkit::{
    PlaneRig, origin, pipeline_name, start_agent, strategy_name, trading_settings,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A span as it began: its name, its fields, and the span that it began in.
#[derive(Clone, Debug, Default)]
struct SeenSpan {
    name: String,
    fields: Vec<(String, String)>,
    parent: Option<usize>,
}

impl SeenSpan {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Visit for SeenSpan {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned()));
    }
}

thread_local! {
    /// Spans that this thread is in, the innermost last.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Keeps every span that begins, in order; its number is its place, from 1 on.
#[derive(Clone, Default)]
struct SpansSeen {
    spans: Arc<Mutex<Vec<SeenSpan>>>,
    began: Arc<AtomicU64>,
}

impl SpansSeen {
    fn all(&self) -> Vec<SeenSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subscriber for SpansSeen {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let around = ENTERED.with_borrow(|entered| entered.last().copied());
        let parent = attributes.parent().map(Id::into_u64).or(around.filter(|_| attributes.is_contextual()));
        let parent = parent.and_then(|id| usize::try_from(id).ok()).map(|id| id - 1);
        let mut seen =
            SeenSpan { name: attributes.metadata().name().to_owned(), parent, ..SeenSpan::default() };
        attributes.record(&mut seen);
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.push(seen);
        Id::from_u64(self.began.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.retain(|known| *known != span.into_u64()));
    }
}

/// Specification 001 §10: the root span `orch.cycle`, and `orch.stage.<name>` below it.
#[tokio::test]
async fn a_cycle_is_a_span_and_each_stage_that_is_called_one_below_it() {
    let seen = SpansSeen::default();
    let _listening = tracing::subscriber::set_default(seen.clone());
    let mut settings = trading_settings();
    settings.schedules.clear();
    let rig = PlaneRig::new(settings);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();

    let command = TradingCommand::RunCycle {
        pipeline: pipeline_name("canonical"),
        strategies: vec![strategy_name("a"), strategy_name("b")],
        trigger_event: None,
    };
    let answer = plane.handle().execute_command(command, origin("go")).await;
    let Ok(CommandAnswer::CycleBegun { cycle_id: cycle }) = answer else { panic!("{answer:?}") };
    plane.handle().wait_for_cycle(cycle).await.expect("it ends");
    plane.kill().await;

    let spans = seen.all();
    let roots: Vec<usize> = (0..spans.len()).filter(|at| spans[*at].name == "orch.cycle").collect();
    let [root] = roots[..] else { panic!("{roots:?} {spans:?}") };
    assert_eq!(spans[root].field("cycle"), Some(cycle.to_string().as_str()));
    assert_eq!(spans[root].field("pipeline"), Some("canonical"));
    let stages: Vec<&SeenSpan> = spans.iter().filter(|span| span.name == "orch.stage").collect();
    let names: Vec<&str> = stages.iter().filter_map(|span| span.field("otel.name")).collect();
    // EXEC is the cycle's own: nobody is called for it.
    let called =
        ["ING", "FEAT", "SIG", "RISK", "PORT", "ANA", "GOV"].map(|stage| format!("orch.stage.{stage}"));
    assert_eq!(names, called);
    assert!(stages.iter().all(|span| span.parent == Some(root)), "{stages:?}");
}
