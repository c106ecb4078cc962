//! Symbols that the broker refuses for good, and what operators decide about them, in some of the seeds.

use std::time::Duration;

use orchestrator_actors::tree::Tree;
use orchestrator_engine_plane::publisher::messages::{HeldError, HeldRequest, PublisherMsg};
use orchestrator_kernel::engine::outbox::HeldChoice;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::random::Rng;
use tokio::time::timeout;

use super::Sim;

/// Dice of their own, and a salt with which the seeds that were recorded before do what they did.
const SALT: u64 = 0x0020_0026;
/// Time for a publisher that is just being started again.
const DECIDE_MAX: Duration = Duration::from_millis(200);

/// The dice of a seed whose broker refuses symbols; every fifth has them.
pub(super) fn dice(seed: u64) -> Option<Rng> {
    let mut dice = Rng::new(seed ^ SALT);
    (dice.next_below(5) == 0).then_some(dice)
}

impl Sim {
    /// The broker begins or ends to refuse a symbol, or an operator decides about what is held; mostly nothing.
    pub(super) async fn refuse_or_decide(&mut self, tree: &mut Option<Tree>) {
        let Some(dice) = &mut self.refusals else { return };
        let (what, symbol) = (dice.next_below(12), dice.next_below(self.symbols.len() as u64) as usize);
        let symbol = self.symbols[symbol];
        let choice = match what {
            0..=2 => return self.broker.refuse(symbol, true),
            3 => return self.broker.refuse(symbol, false),
            4 | 5 => HeldChoice::Retry,
            6 => HeldChoice::SkipFirst,
            7 => HeldChoice::SkipAll,
            _ => return,
        };
        let Some(tree) = tree else { return };
        let decided = self.decide(tree, symbol, choice).await;
        self.world.saw(match (decided, choice) {
            (Some(true), HeldChoice::Retry) => "operator retries",
            (Some(true), HeldChoice::SkipFirst | HeldChoice::SkipAll) => "operator lets outputs go",
            (Some(false), _) => "operator's act comes too late",
            (None, _) => "publisher does not answer an operator",
        });
    }

    /// Whether it was carried out; nothing when the publisher does not say.
    async fn decide(&self, tree: &Tree, symbol: &str, choice: HeldChoice) -> Option<bool> {
        let (operator, reason) = ("sim".to_owned(), "as told".to_owned());
        let request = HeldRequest { symbol: symbol.into(), choice, operator, reason, at_ms: TsMs(0) };
        self.world.note(format_args!("an operator decides: {choice:?} of {symbol}"));
        let asked = tree.actor_addresses().publisher.call(|reply| PublisherMsg::Decide(request, reply));
        match timeout(DECIDE_MAX, asked).await {
            Ok(Ok(Ok(_))) => Some(true),
            Ok(Ok(Err(HeldError::NotHeld { .. }))) => Some(false),
            // An overtaken tree cannot record it any more.
            Ok(Ok(Err(HeldError::NotRecorded(_) | HeldError::InDoubt(_))) | Err(_)) | Err(_) => None,
        }
    }

    /// From here on the broker refuses nothing.
    pub(super) fn take_everything(&self) {
        self.symbols.iter().for_each(|symbol| self.broker.refuse(symbol, false));
    }

    /// Whoever mended the broker has what waits offered again.
    pub(super) async fn retry_what_is_held(&mut self, tree: &mut Option<Tree>) {
        let Some(tree) = tree.as_ref().filter(|_| self.refusals.is_some()) else { return };
        let held: Vec<String> =
            tree.reached.current_holds().iter().map(|(symbol, ..)| symbol.to_string()).collect();
        for symbol in held {
            self.decide(tree, &symbol, HeldChoice::Retry).await;
        }
    }
}
