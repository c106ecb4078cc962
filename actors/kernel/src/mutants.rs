//! Planted defects: they prove that the simulation sees what it has to see. A checker that never failed is not one.
//!
//! With the feature `mutants` the guarded lines ask whether their defect is planted on this thread; without it they
//! compile to nothing. A release cannot have the feature.
//!
//! ```text
//! if !mutant!(SealNotApplied) { … one line of the product … }
//! ```
//!
//! A defect that is more than one expression has no place in the product: it is a port that breaks its contract, which
//! the actors' testkit puts around one that keeps it.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` plants defects for tests: build without it");

/// Whether the named defect is planted on this thread; `false` at compile time without the feature `mutants`.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_planted($crate::mutants::Mutant::$name)
    };
}

/// Whether the named defect is planted on this thread; `false` at compile time without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "mutants")]
pub use self::planted::{Mutant, Planted, current, is_planted, suspended};

#[cfg(feature = "mutants")]
mod planted {
    use std::cell::Cell;

    macro_rules! mutants {
        ($($(#[$about:meta])* $plane:ident { $($(#[$doc:meta])* $name:ident),+ $(,)? })+) => {
            /// A defect.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Mutant {
                $($($(#[$doc])* $name,)+)+
            }

            impl Mutant {
                $($(#[$about])* pub const $plane: &'static [Self] = &[$(Self::$name),+];)+
            }
        };
    }

    mutants! {
        /// Every defect of the engine plane.
        ENGINE_PLANE {
            /// LOG-1: what was not answered is sent again behind the tail instead of at its positions.
            NewPositionsAfterUnknown,
            /// LOG-1: "no room" is believed of a batch of which an earlier attempt may have been done.
            NoRoomIsBelievedInDoubt,
            /// LOG-2: the buffer answers before the append.
            AcknowledgesBeforeAppend,
            /// LOG-3: the log does not look at the writer's epoch.
            NoEpochCheck,
            /// LOG-3: a writer that was fenced goes on asking.
            FencedGoesOn,
            /// LOG-5: receipts are stamped by the clock alone.
            StampsWithoutFloor,
            /// LOG-1: durable positions of an origin are forgotten, so a repeated item is stored again.
            PositionsForgotten,
            /// CUT-1: the next cut begins with the last receipt of the one before.
            CutOverlapsByOne,
            /// CUT-2: a seal does not bind later receipts.
            SealNotApplied,
            /// CUT-2: a cut takes the first receipt after its end too.
            CutTakesOneTooMany,
            /// CUT-1: a run gets a snapshot that came in an earlier cut.
            SnapshotOfThePreviousCut,
            /// RUN-1: the runner goes on before `started` is durable.
            CallsBeforeStarted,
            /// RUN-1: a terminal record is published before it is durable.
            PublishesBeforeDurable,
            /// RUN-2: a starting runner is told of its symbol while a record of it is under way.
            EndsARunTwice,
            /// RUN-3: the index forgets that a run has ended.
            EndIsForgotten,
            /// RUN-4: a starting runner does not finish the open run.
            OpenRunIsForgotten,
            /// RUN-4: a starting runner begins without the hysteresis state.
            StateNotRestored,
            /// OUT-1: after a failure the first unconfirmed message is left out.
            SkipsAnOutputOnError,
            /// OUT-2: the cursor moves although the batch was not confirmed.
            CursorOverAHole,
            /// MEM-1: receipts are in flight without credits.
            CreditsNeverTaken,
            /// OUT-1: outputs behind one that is refused for good are offered before it.
            HeldIsOvertaken,
            /// OUT-1: what is held is forgotten when the cursor is saved.
            CursorForgetsHolds,
            /// OUT-1: a held symbol flows again before everything that waited was offered.
            ReleasesTooEarly,
            /// OUT-1: retention lets runs go whose outputs are held.
            TrimsWhatIsHeld,
            /// OUT-1: an operator's skip takes effect before its record is durable.
            SkipsWithoutRecord,
            /// ISO-1: an actor that ended is not started again.
            DeadActorStaysDead,
            /// KILL-1: a permit needs no reading that is fresh.
            PermitForEver,
            /// OUT-1: retention lets runs go whose outputs are not published.
            TrimsBeforePublished,
            /// REP-1: retention lets records go before the base that continues them is saved.
            TrimsBeforeBase,
            /// REP-1: retention lets records go before they are in the archive.
            TrimsBeforeArchived,
            /// CUT-1: retention lets receipts go that the next cut of a symbol needs.
            TrimsWhatACutNeeds,
            /// LOG-1: the base forgets how far the producers of its receipts had come.
            BaseWithoutPositions,
            /// OUT-1: retention goes by the saved cursor alone, which a process that was overtaken may have saved.
            TrimsBeforeItPublished,
            /// The step by which the base is advanced holds runs too: behind one of them retention never goes on.
            StepHoldsRuns,
            /// A base that holds runs which came during the check: the retention looks for them where they are gone.
            RetentionLosesItsPlace,
            /// A seal that reads where its cut ends takes receipts that are let go meanwhile for a broken log.
            SealMeetsATrim,
            /// LOG-1: retention lets quarantined items go whose append was not answered: sent again, they leave a gap.
            TrimsWhatIsInDoubt,
        }
        /// Every defect of the trading plane.
        TRADING_PLANE {
            /// CYC-1: a stage begins without its gates.
            GateSkipped,
            /// CYC-1: an order is intended without a permit of its own.
            IntentBeforePermit,
            /// CYC-1: an intent is forgotten, so that its decision becomes another one.
            IntentNotSettled,
            /// CYC-1: a cycle that has ended ends again.
            EndsTwice,
            /// CYC-1: a hook that gives no answer allows.
            SilentHookAllows,
            /// CYC-1: the patch of a hook may widen.
            HookMayWiden,
            /// CYC-2: a fire that is decided is not taken as decided.
            FiresTwice,
            /// CYC-2: fires that lead to nothing are not put on record.
            SkipNotRecorded,
            /// CYC-2: an event that comes again fires again.
            EventFiresTwice,
            /// CYC-2: an output that comes again fires again.
            OutputFiresTwice,
            /// CYC-2: a fire that the misfire policy lets go begins.
            MisfireIgnored,
            /// CYC-2: a fire that finds a cycle running begins beside it.
            OverlapIgnored,
            /// CYC-3: a cycle that a crash interrupted does not go on.
            OpenCyclesForgotten,
            /// CYC-3: a stage that is not idempotent is called again after a crash.
            StageCalledAgain,
            /// CYC-4: a stage may take as long as it likes.
            BudgetNotRead,
            /// CYC-4: an answer counts although it came too late.
            LateAnswerCounts,
            /// JRN-1: the hash of a record does not cover the one before.
            ChainNotLinked,
            /// JRN-1: records are taken that continue what was refused for want of room.
            LostTermAccepted,
            /// JRN-2: a command is answered before its result is durable.
            AnswersEarly,
            /// JRN-3: the read model does not show that the agent changed.
            ViewForgetsTheAgent,
            /// AGT-1: gates allow although the agent does not run.
            AgentNotAsked,
            /// AGT-1: cycles go on trading although an audit failed.
            AuditNotAwaited,
            /// AGT-1: a pause that ended while the service was down goes on.
            PauseOutlivesItsEnd,
            /// AGT-1, KILL-1: gates are taken that looked before trading was stopped by a record.
            FlipNotSeen,
            /// CMD-1: a command that comes again is carried out again.
            KeyNotLookedAt,
        }
    }

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// A defect stays planted on its thread as long as this lives.
    #[derive(Debug)]
    pub struct Planted(Option<Mutant>);

    impl Mutant {
        /// Plants it on this thread.
        #[must_use]
        pub fn plant(self) -> Planted {
            Planted(PLANTED.replace(Some(self)))
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(self.0);
        }
    }

    /// The defect that is planted on this thread.
    #[must_use]
    pub fn current() -> Option<Mutant> {
        PLANTED.get()
    }

    /// Whether it is planted on this thread.
    #[must_use]
    pub fn is_planted(mutant: Mutant) -> bool {
        current() == Some(mutant)
    }

    /// Runs a check without any defect on this thread: a checker must not be broken together with what it checks.
    pub fn suspended<T>(check: impl FnOnce() -> T) -> T {
        let _none = Planted(PLANTED.replace(None));
        check()
    }
}
