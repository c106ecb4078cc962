//! One planted defect a line: which records it makes, and which rule names it.

use super::*;
use crate::trading::agent::AgentStatus;
use crate::trading::cycle::CycleStatus;
use crate::trading::gate::{GatePlace, GateVerdict, KillReading};
use crate::trading::journal::{ConfigHash, CycleEnded, FireDisposition, IntentEnd, StageEnded, StageOutcome};
use crate::trading::risk::{RiskOutcome, RiskRule};
use crate::trading::testkit::dec;

type Facts = Vec<JournalFact>;

fn find(facts: &Facts, is_it: impl Fn(&JournalFact) -> bool) -> usize {
    facts.iter().position(is_it).unwrap()
}

fn gate_before(facts: &Facts, stage: u16) -> usize {
    find(
        facts,
        |fact| matches!(fact, JournalFact::GateDecided(decided) if decided.place == GatePlace::Before(stage)),
    )
}

fn gate_of_intent(facts: &Facts) -> usize {
    find(
        facts,
        |fact| matches!(fact, JournalFact::GateDecided(decided) if matches!(decided.place, GatePlace::BeforeIntent(_))),
    )
}

fn intent(facts: &Facts) -> usize {
    find(facts, |fact| matches!(fact, JournalFact::OrderIntended(_)))
}

fn end(facts: &Facts) -> usize {
    find(facts, |fact| matches!(fact, JournalFact::CycleEnded(_)))
}

fn start(facts: &Facts) -> usize {
    find(facts, |fact| matches!(fact, JournalFact::CycleStarted(_)))
}

fn kind(facts: &Facts, kind: &str) -> usize {
    find(facts, |fact| fact.kind_word() == kind)
}

fn repeat(facts: &mut Facts, at: usize) {
    let fact = facts[at].clone();
    facts.insert(at + 1, fact);
}

fn change_stage(facts: &mut Facts, name: &str, change: impl Fn(&mut StageEnded)) {
    let at =
        find(facts, |fact| matches!(fact, JournalFact::StageEnded(ended) if ended.name.as_str() == name));
    if let JournalFact::StageEnded(ended) = &mut facts[at] {
        change(ended);
    }
}

fn change_end(facts: &mut Facts, change: impl Fn(&mut CycleEnded)) {
    let at = end(facts);
    if let JournalFact::CycleEnded(ended) = &mut facts[at] {
        change(ended);
    }
}

fn change_gate(facts: &mut Facts, at: usize, change: impl Fn(&mut crate::trading::gate::GateDecided)) {
    if let JournalFact::GateDecided(decided) = &mut facts[at] {
        change(decided);
    }
}

/// Applies the defect to a good journal: the rule that names it.
fn named(defect: impl Fn(&mut Facts)) -> JournalRule {
    let mut facts = World::two_fires_and_a_command().facts;
    assert!(audited(&facts).is_ok());
    defect(&mut facts);
    audited(&facts).unwrap_err().rule
}

#[test]
fn defects_of_cycles_are_named() {
    type Defect = fn(&mut Facts);
    let defects: [(JournalRule, Defect); 25] = [
        (JournalRule::GateSkipped, |facts| drop(facts.remove(gate_before(facts, 2)))),
        (JournalRule::GateSkipped, |facts| drop(facts.remove(gate_before(facts, 0)))),
        (JournalRule::GateIgnored, |facts| {
            let at = gate_before(facts, 3);
            change_gate(facts, at, |gate| gate.checks[0].verdict = GateVerdict::Deny("halted".to_owned()));
        }),
        (JournalRule::GateContradicts, |facts| {
            let at = gate_before(facts, 2);
            change_gate(facts, at, |gate| {
                gate.readings.as_mut().unwrap().kill = KillReading::Refused("halted".to_owned());
            });
        }),
        (JournalRule::GateContradicts, |facts| {
            let at = gate_of_intent(facts);
            change_gate(facts, at, |gate| {
                gate.readings.as_mut().unwrap().kill = KillReading::Permit { age_ms: 500, left_ms: 0 };
            });
        }),
        (JournalRule::GateContradicts, |facts| {
            let at = gate_of_intent(facts);
            change_gate(facts, at, |gate| gate.readings = None);
        }),
        (JournalRule::GateContradicts, |facts| {
            let at = gate_before(facts, 2);
            change_gate(facts, at, |gate| gate.readings.as_mut().unwrap().agent.status = AgentStatus::Error);
        }),
        (JournalRule::IntentWithoutPermit, |facts| drop(facts.remove(gate_of_intent(facts)))),
        (JournalRule::IntentWithoutPermit, |facts| {
            // The permit of the first decision, for the second one.
            let first = gate_of_intent(facts);
            facts.swap(first + 1, first + 3);
        }),
        (JournalRule::IntentWithoutPermit, |facts| drop(facts.remove(gate_before(facts, 4)))),
        (JournalRule::IntentWithoutRisk, |facts| {
            change_stage(facts, "RISK", |ended| {
                if let StageOutcome::Done(output) = &mut ended.outcome {
                    output.verdicts[0].outcome = RiskOutcome::Denied(RiskRule::Capital);
                }
            });
        }),
        (JournalRule::IntentRaised, |facts| {
            let at = intent(facts);
            if let JournalFact::OrderIntended(intent) = &mut facts[at] {
                intent.quantity = dec("11");
            }
        }),
        (JournalRule::IntentTwice, |facts| {
            let at = gate_of_intent(facts);
            let again = facts[at..at + 2].to_vec();
            facts.splice(at + 2..at + 2, again);
        }),
        (JournalRule::CycleEndsTwice, |facts| {
            let at = end(facts);
            repeat(facts, at);
        }),
        (JournalRule::RecordAfterEnd, |facts| {
            let at = end(facts);
            let stage = facts[at - 1].clone();
            facts.insert(at + 1, stage);
        }),
        (JournalRule::CycleTwice, |facts| {
            let at = start(facts);
            repeat(facts, at);
        }),
        (JournalRule::CycleTwice, |facts| {
            let (start, end) = (start(facts), end(facts));
            let again = facts[start].clone();
            facts.insert(end + 1, again);
        }),
        (JournalRule::CycleUnknown, |facts| drop(facts.remove(start(facts)))),
        (JournalRule::Configuration, |facts| {
            let at = start(facts);
            if let JournalFact::CycleStarted(started) = &mut facts[at] {
                started.config = ConfigHash([1; 32]);
            }
        }),
        (JournalRule::StageOrder, |facts| {
            let at = gate_before(facts, 2);
            facts.drain(at..at + 2);
        }),
        (JournalRule::StageOrder, |facts| {
            change_stage(facts, "SIG", |ended| ended.name = crate::trading::testkit::stage_name("RISK"));
        }),
        (JournalRule::StatusContradicts, |facts| change_end(facts, |ended| ended.counts.intents = 1)),
        (JournalRule::StatusContradicts, |facts| {
            change_end(facts, |ended| ended.status = CycleStatus::Failed)
        }),
        (JournalRule::StatusContradicts, |facts| {
            let at = find(
                facts,
                |fact| matches!(fact, JournalFact::StageEnded(ended) if ended.name.as_str() == "GOV"),
            );
            facts.remove(at);
        }),
        (JournalRule::StatusContradicts, |facts| {
            let at = intent(facts);
            if let JournalFact::OrderIntended(intent) = &mut facts[at] {
                intent.end = IntentEnd::HandedOn;
            }
        }),
    ];
    for (at, (rule, defect)) in defects.into_iter().enumerate() {
        assert_eq!(named(defect), rule, "defect {at}");
    }
}

#[test]
fn defects_of_fires_are_named() {
    type Defect = fn(&mut Facts);
    let defects: [(JournalRule, Defect); 8] = [
        // The record of a skip was not written.
        (JournalRule::FireLost, |facts| drop(facts.remove(kind(facts, "schedule_skipped")))),
        // A fire whose cycle never began.
        (JournalRule::FireUnaccounted, |facts| {
            let (start, end) = (start(facts), end(facts));
            facts.drain(start..=end);
        }),
        (JournalRule::FireUnaccounted, |facts| {
            let at = kind(facts, "schedule_fired");
            repeat(facts, at);
            if let JournalFact::ScheduleFired(second) = &mut facts[at + 1] {
                second.fire = 2;
                second.planned_ts_ms = second.planned_ts_ms.plus_ms(1);
                second.cycle_id = cycle_id(9);
            }
        }),
        // The same fire, once more after its cycle.
        (JournalRule::FiredTwice, |facts| {
            let (fired, end) = (kind(facts, "schedule_fired"), end(facts));
            let again = facts[fired].clone();
            facts.insert(end + 1, again);
        }),
        // The same planned time under another number and another id.
        (JournalRule::FiredTwice, |facts| {
            let (fired, end) = (kind(facts, "schedule_fired"), end(facts));
            let mut again = facts[fired].clone();
            if let JournalFact::ScheduleFired(again) = &mut again {
                again.fire = 2;
                again.cycle_id = cycle_id(9);
            }
            facts.insert(end + 1, again);
        }),
        (JournalRule::CycleWithoutCause, |facts| drop(facts.remove(kind(facts, "schedule_fired")))),
        (JournalRule::CycleWithoutCause, |facts| {
            let at = start(facts);
            if let JournalFact::CycleStarted(started) = &mut facts[at] {
                started.cycle_id = cycle_id(9);
            }
        }),
        (JournalRule::FireLost, |facts| {
            let at = kind(facts, "schedule_skipped");
            if let JournalFact::ScheduleSkipped(skipped) = &mut facts[at] {
                skipped.fires = 0;
            }
        }),
    ];
    for (at, (rule, defect)) in defects.into_iter().enumerate() {
        assert_eq!(named(defect), rule, "defect {at}");
    }
}

#[test]
fn defects_of_commands_agent_strategies_and_alerts_are_named() {
    type Defect = fn(&mut Facts);
    let defects: [(JournalRule, Defect); 9] = [
        (JournalRule::CommandOrder, |facts| {
            let at = kind(facts, "command_received");
            repeat(facts, at);
        }),
        (JournalRule::CommandOrder, |facts| {
            let at = kind(facts, "command_ended");
            repeat(facts, at);
        }),
        (JournalRule::CommandOrder, |facts| drop(facts.remove(kind(facts, "command_received")))),
        (JournalRule::AgentOrder, |facts| {
            let at = kind(facts, "agent_changed");
            repeat(facts, at);
        }),
        (JournalRule::AgentOrder, |facts| {
            let at = kind(facts, "agent_changed");
            if let JournalFact::AgentChanged(changed) = &mut facts[at] {
                changed.state.status = AgentStatus::Paused;
            }
        }),
        (JournalRule::StrategyOrder, |facts| {
            let at = facts.iter().rposition(|fact| fact.kind_word() == "strategy_changed").unwrap();
            repeat(facts, at);
        }),
        (JournalRule::StrategyOrder, |facts| drop(facts.remove(kind(facts, "strategy_changed")))),
        (JournalRule::AlertOrder, |facts| drop(facts.remove(kind(facts, "alert_raised")))),
        (JournalRule::AlertOrder, |facts| drop(facts.remove(kind(facts, "alert_cleared")))),
    ];
    for (at, (rule, defect)) in defects.into_iter().enumerate() {
        let mut facts = World::two_fires_and_a_command().facts;
        defect(&mut facts);
        // A missing end shows with the next beginning.
        let raised = facts.iter().rposition(|fact| fact.kind_word() == "alert_raised");
        if let (8, Some(raised)) = (at, raised) {
            repeat(&mut facts, raised);
        }
        assert_eq!(audited(&facts).unwrap_err().rule, rule, "defect {at}");
    }
}

#[test]
fn a_hook_that_was_not_asked_and_an_order_above_its_patch_are_named() {
    let good = World::hooked_cycle().facts;
    assert!(audited(&good).is_ok());
    assert_eq!(good.iter().filter(|fact| matches!(fact, JournalFact::OrderIntended(_))).count(), 1);

    let mut not_asked = good.clone();
    not_asked.remove(find(
        &good,
        |fact| matches!(fact, JournalFact::GateDecided(decided) if decided.place == GatePlace::After(2)),
    ));
    assert_eq!(audited(&not_asked).unwrap_err().rule, JournalRule::GateSkipped);

    let mut above = good.clone();
    if let JournalFact::OrderIntended(intent) = &mut above[intent(&good)] {
        intent.quantity = dec("5");
    }
    assert_eq!(audited(&above).unwrap_err().rule, JournalRule::IntentRaised);
}

fn change_verdict(facts: &mut Facts, at: usize, quantity: &str, price: &str) {
    change_stage(facts, "RISK", |ended| {
        if let StageOutcome::Done(output) = &mut ended.outcome {
            output.verdicts[at].outcome =
                RiskOutcome::Allowed { quantity: dec(quantity), price: dec(price), lowered_by: vec![] };
        }
    });
}

/// Whoever gave the verdicts. On record: 1500 for one order, 2300 for the buys of a cycle, a confidence of 0.5.
#[test]
fn a_verdict_beyond_the_limits_on_record_is_named() {
    type Defect = fn(&mut Facts);
    let defects: [Defect; 6] = [
        |facts| change_verdict(facts, 0, "11", "150"),
        // 1500 and 900 for the two of them.
        |facts| change_verdict(facts, 1, "6", "150"),
        |facts| change_verdict(facts, 0, "10", "0"),
        |facts| change_verdict(facts, 0, "10", "-1"),
        |facts| {
            change_stage(facts, "SIG", |ended| {
                if let StageOutcome::Done(output) = &mut ended.outcome {
                    output.decisions[0].confidence = crate::trading::decision::Confidence::new(0.4).unwrap();
                }
            });
        },
        |facts| {
            let at = kind(facts, "strategy_changed");
            if let JournalFact::StrategyChanged(StrategyChanged::Defined { definition, .. }) = &mut facts[at]
            {
                definition.symbols = vec![crate::ids::Symbol::from("MSFT")];
            }
        },
    ];
    for (at, defect) in defects.into_iter().enumerate() {
        assert_eq!(named(defect), JournalRule::RiskLimit, "defect {at}");
    }
}

#[test]
fn a_permit_while_trading_is_latched_is_named() {
    let mut world = World::two_fires_and_a_command();
    world.latch(true);
    world.begin_cycle();
    assert_eq!(audited(&world.facts).unwrap_err().rule, JournalRule::GateContradicts);

    let mut world = World::two_fires_and_a_command();
    world.latch(true);
    world.latch(false);
    world.begin_cycle();
    assert!(audited(&world.facts).is_ok());
}

#[test]
fn a_cycle_that_takes_the_place_of_one_that_waits_is_named() {
    let mut facts = World::two_fires_and_a_command().facts;
    let at = kind(&facts, "schedule_fired");
    if let JournalFact::ScheduleFired(fired) = &mut facts[at] {
        fired.disposition = FireDisposition::Queue;
    }
    assert!(audited(&facts).is_ok(), "it waited, and began");
    let JournalFact::ScheduleFired(mut second) = facts[at].clone() else { panic!("a fire") };
    second.fire = 2;
    second.planned_ts_ms = second.planned_ts_ms.plus_ms(1);
    second.cycle_id = cycle_id(9);
    facts.insert(at + 1, JournalFact::ScheduleFired(second));
    assert_eq!(audited(&facts).unwrap_err().rule, JournalRule::FireUnaccounted);
}

/// Method: bytes that are no record, with the hash that continues the chain.
#[test]
fn a_record_that_cannot_be_read_is_named_although_the_chain_is_whole() {
    let body = [9, 9, 9];
    let stored = [&body[..], ChainHash::START.hash_of_next(&body).as_bytes()].concat();

    let broken = audit_stored([(1, &stored)]).unwrap_err();
    assert_eq!((broken.seq, broken.rule), (JournalSeq(1), JournalRule::Decodable));
    let broken = audit_stored([(1, &vec![0; 31])]).unwrap_err();
    assert_eq!(broken.rule, JournalRule::Decodable);
}
