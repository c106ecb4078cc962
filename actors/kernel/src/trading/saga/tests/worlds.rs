//! Worlds that sagas act on in tests: one that counts, and one with an order, its fills and the ledger.

use std::collections::BTreeSet;

use rust_decimal::Decimal;

use super::super::definition::{SagaAction, SagaCompensation, SagaKind};
use super::super::progress::SagaStatus;
use super::super::records::SagaFailure;
use super::super::suite::SagaWorld;
use crate::ids::Symbol;
use crate::trading::ledger::{BuyingPower, LedgerEntry, LedgerEvent, LedgerRules};
use crate::trading::order::fills::{FillBook, FillMoment, FillReport};
use crate::trading::order::id::{ClientOrderId, UtcDate};
use crate::trading::order::{OrderContent, OrderSide};

/// World that counts the steps that stand.
pub(super) struct CountingWorld {
    kind: SagaKind,
    pub(super) standing: BTreeSet<u16>,
}

impl CountingWorld {
    pub(super) fn new(kind: SagaKind) -> Self {
        Self { kind, standing: BTreeSet::new() }
    }
}

impl SagaWorld for CountingWorld {
    fn do_step(&mut self, step: u16, action: SagaAction) -> Result<(), SagaFailure> {
        assert_eq!(self.kind.steps()[usize::from(step)].action, action);
        let before: BTreeSet<u16> = (0..step).collect();
        assert!(before.is_subset(&self.standing), "step {step} before the ones in front of it");
        self.standing.insert(step);
        Ok(())
    }

    fn undo_step(&mut self, step: u16, compensation: SagaCompensation) {
        assert_eq!(self.kind.steps()[usize::from(step)].compensation, compensation);
        assert!(
            self.standing.iter().all(|standing| *standing <= step),
            "step {step} before the ones behind it"
        );
        self.standing.remove(&step);
    }

    fn check_status(&self, status: SagaStatus) -> Result<(), String> {
        let expected = match status {
            SagaStatus::Completed => self.kind.steps().len(),
            SagaStatus::Failed => 0,
            SagaStatus::ManualRequired => return Ok(()),
            other => return Err(format!("{other:?} is no end")),
        };
        let standing = self.standing.len();
        (standing == expected).then_some(()).ok_or(format!("{standing} steps stand, not {expected}"))
    }
}

/// An order of 10 shares at a gateway, its fills, and the ledger: what the steps of one trade act on.
pub(super) struct TradeWorld {
    order: LedgerEntry,
    ledger: BuyingPower,
    book: FillBook,
    /// Shares that the gateway fills while somebody waits, and one more share when the cancel comes.
    fills: (u32, u32),
    placed: u32,
    filled_at_gateway: u32,
    is_canceled: bool,
    trades: BTreeSet<ClientOrderId>,
}

impl TradeWorld {
    pub(super) fn new(while_waiting: u32, at_cancel: u32) -> Self {
        let content = OrderContent::market_order(Symbol::from("A"), OrderSide::Buy, 10);
        let order = LedgerEntry {
            order: ClientOrderId::derive(&content, "s", UtcDate(0)),
            symbol: content.symbol.clone(),
            side: content.side,
            qty: content.qty.into(),
            price: 100.into(),
        };
        Self {
            order,
            ledger: BuyingPower::new(&LedgerRules::for_capital(10_000.into())).unwrap(),
            book: FillBook::new(10),
            fills: (while_waiting, at_cancel),
            placed: 0,
            filled_at_gateway: 0,
            is_canceled: false,
            trades: BTreeSet::new(),
        }
    }

    fn ledger(&mut self, event: &LedgerEvent) {
        self.ledger.apply_event(event).unwrap();
        assert!(self.ledger.is_balanced());
    }

    fn fill(&mut self, shares: u32) {
        if self.placed == 1 && !self.is_canceled {
            self.filled_at_gateway = (self.filled_at_gateway + shares).min(10);
        }
    }

    /// Reads the order: what is new of its fills is booked.
    fn book(&mut self) {
        let filled = Decimal::from(self.filled_at_gateway);
        if filled.is_zero() {
            return;
        }
        let report = FillReport { cumulative: filled, qty: filled, price: 101.into() };
        let taken = self.book.take_report(&report, FillMoment::Open);
        if !taken.qty.is_zero() {
            let entry = LedgerEntry { qty: taken.qty, price: taken.price, ..self.order.clone() };
            self.ledger(&LedgerEvent::Filled(entry));
        }
    }
}

impl SagaWorld for TradeWorld {
    fn do_step(&mut self, _step: u16, action: SagaAction) -> Result<(), SagaFailure> {
        match action {
            SagaAction::ReserveBuyingPower => self.ledger(&LedgerEvent::Reserved(self.order.clone())),
            SagaAction::SubmitOrder => self.placed = 1,
            SagaAction::WaitForFill => {
                self.fill(self.fills.0);
                if self.filled_at_gateway < 10 {
                    return Err(SagaFailure::Partial);
                }
            }
            SagaAction::UpdatePosition => self.book(),
            SagaAction::RecordTrade => {
                self.trades.insert(self.order.order);
            }
            SagaAction::CancelOpenOrders
            | SagaAction::ReducePositions
            | SagaAction::OpenPositions
            | SagaAction::RecordRebalance => {}
        }
        Ok(())
    }

    fn undo_step(&mut self, _step: u16, compensation: SagaCompensation) {
        match compensation {
            SagaCompensation::ReleaseBuyingPower => {
                self.ledger(&LedgerEvent::Released { order: self.order.order });
            }
            SagaCompensation::CancelOrder => {
                self.fill(self.fills.1);
                self.is_canceled = true;
                self.book();
            }
            SagaCompensation::HandlePartialFill | SagaCompensation::RollbackPosition => self.book(),
            SagaCompensation::VoidTrade => {
                self.trades.remove(&self.order.order);
            }
            SagaCompensation::KeepCanceled | SagaCompensation::StopLegs | SagaCompensation::VoidRebalance => {
            }
        }
    }

    fn check_status(&self, status: SagaStatus) -> Result<(), String> {
        let position = self.ledger.position_of(&self.order.symbol);
        let reserved = self.ledger.reserved_amount();
        let is_over = matches!(status, SagaStatus::Completed | SagaStatus::Failed);
        let checks = [
            (self.ledger.is_balanced(), "the ledger is not balanced".to_owned()),
            (!is_over || reserved.is_zero(), format!("{reserved} are still reserved")),
            (
                !is_over || position == self.filled_at_gateway.into(),
                format!("the position is {position}, {} were filled", self.filled_at_gateway),
            ),
            (
                status != SagaStatus::Completed || self.trades.len() == 1,
                "the trade is not recorded".to_owned(),
            ),
            (status != SagaStatus::Failed || self.trades.is_empty(), "a void trade is recorded".to_owned()),
            (
                status != SagaStatus::Failed || self.placed == 0 || self.is_canceled,
                "the order is still open".to_owned(),
            ),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, wrong)| Err(wrong))
    }
}
