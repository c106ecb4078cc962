//! Symbols that a fan-out refuses for good: holding them, showing them, and offering what waits again.
//!
//! Nothing of what waits is kept in memory. What is offered again is read from the run log, page by page between the
//! batches of everything else, until the cursor is reached; only then the symbol flows with the others again.

use std::sync::Arc;

use orchestrator_kernel::engine::outbox::{Hold, OutputRefusal};
use orchestrator_kernel::ids::{RunSeq, Symbol};
use orchestrator_kernel::ports::fan_out::{OutputMessage, PublishError, Remedy};
use orchestrator_kernel::ports::log::RecordBatch;
use orchestrator_kernel::ports::observer::Observation;
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_runtime::status::Condition;
use ractor::ActorProcessingErr;

use super::PublisherState;

impl PublisherState {
    /// Holds the symbol of an output that a fan-out refuses for good.
    ///
    /// # Errors
    ///
    /// The refusal, to be waited out with everything else: as many symbols are held as may be.
    pub(super) fn hold_symbol(
        &mut self,
        fan_out: &str,
        refused: &OutputMessage,
        error: PublishError,
    ) -> Result<(), PublishError> {
        let (now, max) = (self.args.clock.now(), self.args.settings.held_symbols_max);
        let refusal = OutputRefusal { fan_out, refused, reason: &error.detail, since: now };
        if let Err(full) = self.progress.holds.hold_symbol(refusal, max) {
            self.wants_room = true;
            let detail = format!("{}; {full}, so everything waits", error.detail);
            return Err(PublishError { detail, remedy: Remedy::Operator, ..error });
        }
        let (symbol, message) = (&refused.symbol, refused.message_id());
        tracing::error!(
            domain = "publish", error_kind = "output_held", fan_out, %symbol, symbol_seq = refused.symbol_seq, message,
            error_detail = error.detail,
            "an output is refused for good: the outputs of its symbol wait there, the others go on"
        );
        self.note_progress();
        self.show_held();
        Ok(())
    }

    /// Puts what is held on the board, and takes off what is no longer.
    pub(super) fn show_held(&mut self) {
        let board = &self.args.board;
        for (symbol, fan_out, hold) in self.progress.holds.iter() {
            let is_known = self.offers.has_fan_out(fan_out);
            board.raise_condition(
                Condition::OutputHeld(symbol.to_string()),
                describe_hold(fan_out, hold, is_known),
            );
        }
        for condition in board.current_status().conditions.keys() {
            if let Condition::OutputHeld(symbol) = condition
                && !self.progress.holds.holds_symbol(symbol)
                && board.clear_condition(condition)
            {
                tracing::info!(domain = "publish", symbol, "the symbol's outputs flow again");
            }
        }
    }

    /// Ends holds at a fan-out that is not configured any more once an operator has skipped what waits there: nothing
    /// is offered there, which would end them otherwise.
    pub(super) fn forget_skipped(&mut self) {
        let (before, skips, offers) = (self.progress.holds.waiting_outputs(), &self.skips, &self.offers);
        self.progress.holds.retain(|symbol, fan_out, hold| {
            offers.has_fan_out(fan_out)
                || !skips.covers_all(symbol, fan_out, hold.first..=hold.last_waiting())
        });
        let count = before - self.progress.holds.waiting_outputs();
        if count > 0 {
            super::observe_held(self.args.observer.as_ref(), &self.progress.holds);
            self.args.observer.observe(&Observation::OutputsSkipped { count });
        }
    }

    /// Offers one page of what waits of a symbol that is to be offered again. Nothing when there is none.
    pub(super) async fn offer_held_page(
        &mut self,
    ) -> Result<Option<Result<(), PublishError>>, ActorProcessingErr> {
        let next = self.progress.holds.next_retry(|fan_out| self.offers.place_at_cursor(fan_out).is_some());
        let Some((symbol, name, hold)) = next else { return Ok(None) };
        let cursor = self.progress.cursor.run_seq;
        let page = match hold.from <= cursor {
            true => self.read_runs(hold.from, cursor).await?,
            false => RecordBatch::starting_at(hold.from.into()),
        };
        let through = if page.is_empty() { cursor } else { RunSeq::from(page.last_seq()).min(cursor) };
        let (mut waiting, _) = self.messages_of_batch(&page, |record| record.facts.symbol == symbol)?;
        waiting.retain(|message| hold.first <= message.symbol_seq);
        let offered = self.offer_waiting(&symbol, &name, &waiting).await;
        if matches!(offered, Ok(true)) {
            self.progress.holds.note_read(&symbol, &name, through, cursor);
        }
        self.note_progress();
        self.show_held();
        Ok(Some(offered.map(drop)))
    }

    /// Offers waiting outputs in order; says whether all of them are dealt with. If not, one is refused for good again.
    async fn offer_waiting(
        &mut self,
        symbol: &Symbol,
        name: &str,
        waiting: &[OutputMessage],
    ) -> Result<bool, PublishError> {
        let fan_outs = Arc::clone(&self.args.fan_outs);
        let mut fan_outs = fan_outs.lock().await;
        let at = self.offers.place_at_cursor(name);
        let Some(fan_out) = at.and_then(|at| fan_outs.get_mut(at)) else { return Ok(false) };
        let mut rest = waiting;
        while !rest.is_empty() {
            let (let_go, behind) = rest.split_at(self.count_skipped(name, rest));
            self.note_taken(symbol, name, let_go);
            let end = behind.iter().position(|message| self.is_skipped(name, message));
            let part = behind.get(..end.unwrap_or(behind.len()).min(self.part_max())).unwrap_or(behind);
            let result = self.attempt_publish(fan_out.as_mut(), part).await;
            let confirmed = result.as_ref().map_or_else(|error| error.confirmed, |()| part.len());
            let (taken, left) = behind.split_at(confirmed.min(part.len()));
            self.note_taken(symbol, name, taken);
            rest = left;
            match (result, left.first()) {
                (Ok(()), _) => {}
                (Err(error), Some(refused)) if error.remedy == Remedy::NoneForThisOutput => {
                    self.hold_symbol(name, refused, error)?;
                    return Ok(false);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(true)
    }

    /// How many of these, from the first, an operator skipped.
    fn count_skipped(&self, fan_out: &str, messages: &[OutputMessage]) -> usize {
        messages.iter().take_while(|message| self.is_skipped(fan_out, message)).count()
    }

    fn is_skipped(&self, fan_out: &str, message: &OutputMessage) -> bool {
        self.skips.covers_output(&message.symbol, fan_out, message.symbol_seq)
    }

    /// Waiting outputs were confirmed or skipped.
    fn note_taken(&mut self, symbol: &Symbol, fan_out: &str, taken: &[OutputMessage]) {
        if let Some(last) = taken.last() {
            self.progress.holds.note_taken(symbol, fan_out, last.symbol_seq);
            // At once: a publisher that dies at the next part has counted these, and its successor must not again.
            self.note_progress();
            self.count_outputs(taken);
        }
    }
}

/// What waits and why, for people.
fn describe_hold(fan_out: &str, hold: &Hold, is_known: bool) -> String {
    let Hold { first, since, reason, is_retried, .. } = hold;
    let since = since.map(|since| format!(" since {}", to_rfc3339(since))).unwrap_or_default();
    let now = match (is_known, is_retried) {
        (false, _) => ", and it is not configured any more",
        (true, true) => ", being offered again",
        (true, false) => "",
    };
    format!(
        "{fan_out} refuses output {first} for good{since}; {} wait{now}: {reason}",
        hold.waiting_outputs()
    )
}
