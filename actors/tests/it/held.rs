//! Outputs that a fan-out refuses for good: their symbol waits alone, in order and for as long as it takes, and only an
//! operator's recorded act lets any of them go.

use std::time::Duration;

use orchestrator_actors::testkit::{Act, ManualClock, OnAppend, TestTree, eventually, settings};
use orchestrator_actors::tree::{StopOutcome, Tree};
use orchestrator_engine_plane::publisher::messages::{HeldError, HeldRequest, PublisherMsg};
use orchestrator_kernel::engine::contracts::manifest::{ManifestEntry, OutputsAct};
use orchestrator_kernel::engine::outbox::HeldChoice;
use orchestrator_kernel::ids::TsMs;
use orchestrator_runtime::status::{Condition, Lifecycle};

use crate::common::{manual, outputs, second_and_tick, stop_and_check, two_symbols};

/// Numbers of the symbol's outputs that arrived, each at its first arrival.
fn arrived(rig: &TestTree, symbol: &str) -> Vec<u64> {
    let outputs = rig.outputs.deduplicated();
    outputs
        .iter()
        .filter(|message| message.symbol.as_str() == symbol)
        .map(|message| message.symbol_seq)
        .collect()
}

fn held(tree: &Tree, symbol: &str) -> Option<String> {
    tree.board.current_status().conditions.get(&Condition::OutputHeld(symbol.to_owned())).cloned()
}

async fn decide(tree: &Tree, symbol: &str, choice: HeldChoice) -> Result<Vec<OutputsAct>, HeldError> {
    let (operator, reason) = ("eva".to_owned(), "as agreed".to_owned());
    let request = HeldRequest { symbol: symbol.into(), choice, operator, reason, at_ms: TsMs(7) };
    tree.actor_addresses()
        .publisher
        .call(|reply| PublisherMsg::Decide(request, reply))
        .await
        .expect("it is up")
}

/// Acts that are recorded.
async fn recorded(rig: &TestTree) -> Vec<OutputsAct> {
    let entries = rig.manifests.records().await;
    let act = |bytes: &Vec<u8>| match ManifestEntry::decode(bytes).unwrap() {
        ManifestEntry::Operator(record) => Some(record.act),
        ManifestEntry::Start(_) => None,
    };
    entries.iter().filter_map(act).collect()
}

/// `seconds` seconds of A and B while A is refused for good: B flows, A waits.
async fn with_a_refused(
    rig: &TestTree,
    clock: &ManualClock,
    tree: &Tree,
    seconds: std::ops::RangeInclusive<i64>,
) {
    rig.outputs.refuse("A", true);
    for n in seconds {
        second_and_tick(rig, clock, n, &["A", "B"]).await;
        let wanted = 2 * n as usize;
        eventually("B flows", || arrived(rig, "B").len() == wanted).await;
    }
    eventually("A is shown", || held(tree, "A").is_some()).await;
    eventually("nothing else waits", || tree.flow.waiting_outputs() == 0).await;
}

/// Stops without a replay of what was published: something was let go, or still waits.
async fn stop(rig: &TestTree, tree: Tree) {
    assert_eq!(tree.stop(Duration::from_secs(10)).await, StopOutcome::Clean);
    let counts = rig.ledger().counts();
    let (gone, waiting) = (counts.published + counts.outputs_skipped, counts.outputs_held + counts.backlog);
    assert!(counts.outputs_made <= gone + waiting, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_symbol_that_is_refused_for_good_waits_alone_and_in_order_until_it_is_retried() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;

    with_a_refused(&rig, &clock, &tree, 1..=12).await;

    assert_eq!(arrived(&rig, "A"), Vec::<u64>::new());
    assert_eq!(
        (tree.board.current_status().lifecycle, tree.board.current_status().ready),
        (Lifecycle::Degraded, true)
    );
    let detail = held(&tree, "A").unwrap();
    assert!(
        detail.contains("recording refuses output 1 for good") && detail.contains("not this symbol"),
        "{detail}"
    );
    eventually("all of it is counted", || held(&tree, "A").unwrap().contains("24 wait")).await;
    assert_eq!(rig.ledger().counts().outputs_held, 24, "more than may wait for the fan-outs together");
    assert!(rig.ledger().counts().skipped.is_empty(), "no run is left out");
    let attempts = rig.outputs.attempts();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.outputs.attempts(), attempts, "what is refused for good is not tried for ever");

    // Not mended yet: it is refused again, and said so.
    decide(&tree, "A", HeldChoice::Retry).await.unwrap();
    eventually("it was tried", || attempts < rig.outputs.attempts()).await;
    eventually("it is held again", || !held(&tree, "A").unwrap().contains("offered again")).await;
    rig.outputs.refuse("A", false);
    decide(&tree, "A", HeldChoice::Retry).await.unwrap();
    eventually("it is over", || held(&tree, "A").is_none()).await;

    assert_eq!(arrived(&rig, "A"), (1..=24).collect::<Vec<_>>());
    second_and_tick(&rig, &clock, 13, &["A", "B"]).await;
    outputs(&rig, 52).await;
    assert_eq!(recorded(&rig).await.len(), 2);
    assert_eq!(tree.board.current_status().lifecycle, Lifecycle::Running);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_survives_the_process_and_the_next_start_tries_it_once() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    with_a_refused(&rig, &clock, &tree, 1..=3).await;
    stop(&rig, tree).await;

    // Still refused: shown from the start on, nothing overtakes.
    let tree = rig.start().await;
    eventually("it was tried", || held(&tree, "A").is_some_and(|detail| !detail.contains("offered again")))
        .await;
    with_a_refused(&rig, &clock, &tree, 4..=5).await;
    assert_eq!(arrived(&rig, "A"), Vec::<u64>::new());
    stop(&rig, tree).await;

    rig.outputs.refuse("A", false);
    let tree = rig.start().await;
    eventually("it is over", || held(&tree, "A").is_none()).await;
    assert_eq!(arrived(&rig, "A"), (1..=10).collect::<Vec<_>>());
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn outputs_are_let_go_by_a_recorded_act_only_and_stay_so() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    with_a_refused(&rig, &clock, &tree, 1..=3).await;
    let range = |first, last| {
        let (symbol, fan_out) = ("A".into(), "recording".to_owned());
        vec![OutputsAct::Skip { symbol, fan_out, first, last }]
    };

    rig.manifests.next([OnAppend::Full]);
    let refused = decide(&tree, "A", HeldChoice::SkipFirst).await.unwrap_err();
    assert!(matches!(refused, HeldError::NotRecorded(_)), "{refused}");
    assert_eq!((recorded(&rig).await, rig.ledger().counts().outputs_skipped), (Vec::new(), 0));
    rig.manifests.next([OnAppend::Unknown { done: true }]);
    let in_doubt = decide(&tree, "A", HeldChoice::SkipFirst).await.unwrap_err();
    assert!(matches!(in_doubt, HeldError::InDoubt(_)), "{in_doubt}");
    assert_eq!(decide(&tree, "A", HeldChoice::SkipFirst).await.unwrap(), range(1, 1));
    let refused_at = |number: u64| {
        held(&tree, "A").is_some_and(|detail| detail.contains(&format!("refuses output {number} for good")))
    };
    eventually("the next one is refused", || refused_at(2)).await;
    assert_eq!(rig.ledger().counts().outputs_skipped, 1);
    assert_eq!(decide(&tree, "A", HeldChoice::SkipAll).await.unwrap(), range(2, 6));
    eventually("nothing waits", || held(&tree, "A").is_none()).await;
    let error = decide(&tree, "A", HeldChoice::SkipAll).await.unwrap_err();
    assert!(matches!(error, HeldError::NotHeld { .. }), "{error}");
    rig.outputs.refuse("A", false);
    second_and_tick(&rig, &clock, 4, &["A", "B"]).await;
    eventually("it flows", || arrived(&rig, "A") == [7, 8]).await;
    assert_eq!(rig.ledger().counts().outputs_skipped, 6);
    stop(&rig, tree).await;

    // Without the cursor all outputs are published again, and those that were let go are not.
    rig.checkpoints.damage_value("published");
    let before = rig.outputs.taken().len();
    let tree = rig.start().await;
    eventually("all are published again", || rig.outputs.taken().len() == before + 10).await;
    assert_eq!(arrived(&rig, "A"), [7, 8]);
    assert_eq!(tree.stop(Duration::from_secs(10)).await, StopOutcome::Clean);
}

#[tokio::test(start_paused = true)]
async fn more_symbols_than_may_be_held_hold_up_everything_and_it_is_said() {
    let (rig, clock) = manual(settings(&["A", "B", "C", "D"]));
    let tree = rig.start().await;
    ["A", "B", "C"].iter().for_each(|symbol| rig.outputs.refuse(symbol, true));

    second_and_tick(&rig, &clock, 1, &["A", "B", "C", "D"]).await;
    let degraded = || tree.board.current_status().conditions.get(&Condition::PublishDegraded).cloned();
    eventually("it is said", || degraded().is_some()).await;

    let detail = degraded().unwrap();
    assert!(
        detail.contains("2 symbols are held already, as many as publish.held_symbols_max allows"),
        "{detail}"
    );
    rig.outputs.refuse("C", false);
    eventually("the others flow", || arrived(&rig, "D").len() == 2 && arrived(&rig, "C").len() == 2).await;
    eventually("it is over", || degraded().is_none()).await;
    stop(&rig, tree).await;
}

/// Method: as above, but nobody mends the broker: an operator lets a held symbol's outputs go, so the one too many is
/// held.
#[tokio::test(start_paused = true)]
async fn letting_a_held_symbol_go_makes_room_for_the_one_too_many() {
    let (rig, clock) = manual(settings(&["A", "B", "C", "D"]));
    let tree = rig.start().await;
    ["A", "B", "C"].iter().for_each(|symbol| rig.outputs.refuse(symbol, true));
    second_and_tick(&rig, &clock, 1, &["A", "B", "C", "D"]).await;
    let is_degraded = || tree.board.current_status().conditions.contains_key(&Condition::PublishDegraded);
    eventually("it is said", is_degraded).await;

    let first =
        ["A", "B", "C"].into_iter().find(|symbol| held(&tree, symbol).is_some()).expect("two are held");
    for number in [1, 2] {
        let refused = format!("refuses output {number} for good");
        eventually(&refused, || held(&tree, first).is_some_and(|detail| detail.contains(&refused))).await;
        decide(&tree, first, HeldChoice::SkipAll).await.unwrap();
    }

    eventually("the other flows", || arrived(&rig, "D").len() == 2).await;
    eventually("it is over", || !is_degraded()).await;
    eventually("nothing else waits", || tree.flow.waiting_outputs() == 0).await;
    assert_eq!(rig.ledger().counts().skipped.len(), 0, "no run is left out");
    stop(&rig, tree).await;
}

/// Method: the fan-out has another name after a restart, as one that was taken out of the configuration.
#[tokio::test(start_paused = true)]
async fn what_is_held_at_a_fan_out_that_is_gone_stays_until_an_operator_lets_it_go() {
    let (mut rig, clock) = two_symbols();
    let tree = rig.start().await;
    with_a_refused(&rig, &clock, &tree, 1..=3).await;
    stop(&rig, tree).await;

    rig.outputs.refuse("A", false);
    rig.fan_out = "another";
    let tree = rig.start().await;
    let detail = held(&tree, "A").expect("it waits from the start on");
    assert!(
        detail.contains("recording refuses output 1") && detail.contains("not configured any more"),
        "{detail}"
    );
    second_and_tick(&rig, &clock, 4, &["A", "B"]).await;
    eventually("later ones go to the other", || arrived(&rig, "A") == [7, 8]).await;
    decide(&tree, "A", HeldChoice::Retry).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(held(&tree, "A").is_some(), "nobody can take it");

    decide(&tree, "A", HeldChoice::SkipAll).await.unwrap();
    assert_eq!(held(&tree, "A"), None);
    assert_eq!((rig.ledger().counts().outputs_skipped, rig.ledger().counts().outputs_held), (8, 0));
    assert_eq!(tree.board.current_status().lifecycle, Lifecycle::Running);
    stop(&rig, tree).await;
}

/// Method: the fan-out cannot be made ready. A run that begins is a record without an output: it goes over the cursor,
/// and proves nothing.
#[tokio::test(start_paused = true)]
async fn what_an_operator_has_to_mend_is_said_from_the_start_until_the_fan_out_takes_something() {
    let (rig, clock) = manual(settings(&["A"]));
    rig.outputs.unprepare(Some("declared otherwise"));
    let tree = rig.start().await;
    let degraded = || tree.board.current_status().conditions.get(&Condition::PublishDegraded).cloned();
    assert!(degraded().expect("it is said when the tree is up").contains("declared otherwise"));

    rig.engine.next("A", [Act::Hang, Act::Hang]);
    second_and_tick(&rig, &clock, 1, &["A"]).await;
    eventually("a run has begun", || 0 < rig.ledger().counts().started).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(degraded().is_some(), "nothing was proven");
    }
    rig.outputs.unprepare(None);
    eventually("it is over", || degraded().is_none()).await;
    outputs(&rig, 2).await;
    stop_and_check(&rig, tree).await;
}
