//! The beginning of a cycle: whether one begins, and its records in one piece.

use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::cycle::{CycleRun, gates_denied};
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::gate::AgentReading;
use orchestrator_kernel::trading::ids::{CorrelationId, CycleId, PipelineName, ScheduleName, StrategyName};
use orchestrator_kernel::trading::journal::{
    CycleCause, CycleStarted, FireDisposition, JournalAuthor, JournalEntry, JournalFact, ScheduleFired,
};
use orchestrator_kernel::trading::pipeline::Pipeline;
use orchestrator_kernel::trading::schedule::FireSkipReason;
use orchestrator_kernel::trading::strategy::{StrategyStatus, check_cycle_symbols};
use orchestrator_runtime::address::send_reply;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::CyclesState;
use super::messages::{BeginRefused, CommandOrder, CyclesMsg, FireOrder};
use crate::journal::messages::{JournalRefused, JournalWriter};

impl CyclesState {
    pub(super) async fn begin_fire(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        order: FireOrder,
        writer: &JournalWriter,
        reply: RpcReplyPort<Result<CycleId, BeginRefused>>,
    ) -> Result<(), ActorProcessingErr> {
        let begun = self.try_begin_fire(me, &order, writer).await;
        self.answer_begun(me, begun, reply).await
    }

    pub(super) async fn begin_command(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        order: CommandOrder,
        writer: &JournalWriter,
        reply: RpcReplyPort<Result<CycleId, BeginRefused>>,
    ) -> Result<(), ActorProcessingErr> {
        let begun = self.try_begin_command(me, &order, writer).await;
        self.answer_begun(me, begun, reply).await
    }

    async fn answer_begun(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        begun: Result<CycleId, BeginRefused>,
        reply: RpcReplyPort<Result<CycleId, BeginRefused>>,
    ) -> Result<(), ActorProcessingErr> {
        let is_lost =
            matches!(begun, Err(BeginRefused::Journal(JournalRefused::Lost | JournalRefused::Full(_))));
        send_reply(reply, begun);
        // What the order continues may be lost while the cycles here go on.
        if is_lost && self.writer.check_term().is_err() {
            self.running.clear();
            self.resume_open_cycles(me).await?;
        }
        Ok(())
    }

    async fn try_begin_fire(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        order: &FireOrder,
        writer: &JournalWriter,
    ) -> Result<CycleId, BeginRefused> {
        let FireOrder { schedule, fire, planned, trigger, .. } = order;
        let pipeline = self.find_pipeline(&order.pipeline)?;
        let strategies = self.choose_strategies(&pipeline, &order.strategies)?;
        let cycle_id = order.cycle_id();
        let fired = JournalFact::ScheduleFired(ScheduleFired {
            schedule: schedule.clone(),
            fire: *fire,
            planned_ts_ms: *planned,
            trigger: trigger.clone(),
            cycle_id,
            disposition: FireDisposition::Start,
        });
        let started = CycleStarted {
            begin_at: first_stage(&pipeline, &order.decisions)?,
            decisions: order.decisions.clone(),
            ..self
                .start_record(
                    cycle_id,
                    CycleCause::Fire { schedule: schedule.clone(), fire: *fire },
                    pipeline,
                    strategies,
                    *planned,
                )
                .await
        };
        let facts = (!order.is_recorded).then_some(fired);
        let by = JournalAuthor::Schedule(schedule.clone());
        let correlation = cycle_id.correlation_id();
        self.begin_recorded(
            me,
            writer,
            facts,
            started,
            by,
            correlation,
            Some(*planned),
            Some(schedule.clone()),
        )
        .await
    }

    async fn try_begin_command(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        order: &CommandOrder,
        writer: &JournalWriter,
    ) -> Result<CycleId, BeginRefused> {
        let pipeline = self.find_pipeline(&order.pipeline)?;
        let strategies = self.choose_strategies(&pipeline, &order.strategies)?;
        let now = self.wall_now();
        let cycle_id = CycleId::of_command(order.command);
        if self.args.view.cycle(&cycle_id).is_some() {
            // The command came again after its answer was forgotten.
            return Err(BeginRefused::Skip(FireSkipReason::AlreadyFired));
        }
        let cause = CycleCause::Command(order.command);
        let started = CycleStarted {
            symbols: order.symbols.clone(),
            begin_at: first_stage(&pipeline, &order.decisions)?,
            decisions: order.decisions.clone(),
            ..self.start_record(cycle_id, cause, pipeline, strategies, now).await
        };
        let by = JournalAuthor::Actor("cycles".to_owned());
        self.begin_recorded(me, writer, None, started, by, order.correlation.clone(), None, None).await
    }

    /// Puts the beginning on record in one piece, and the cycle on its way.
    #[expect(clippy::too_many_arguments, reason = "the parts of two records, each once")]
    async fn begin_recorded(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        writer: &JournalWriter,
        fired: Option<JournalFact>,
        started: CycleStarted,
        who: JournalAuthor,
        correlation: CorrelationId,
        planned: Option<TsMs>,
        schedule: Option<ScheduleName>,
    ) -> Result<CycleId, BeginRefused> {
        let cycle_id = started.cycle_id;
        let start = JournalFact::CycleStarted(Box::new(started.clone()));
        let entry = |fact| JournalEntry {
            who: who.clone(),
            planned_ts_ms: planned,
            at_ms: started.started_at,
            correlation: correlation.clone(),
            fact,
        };
        // By whoever ordered it: an order that was made from records which the journal has lost since is void.
        writer.push_entries(fired.into_iter().chain([start]).map(entry).collect()).await?;
        let origin = Instant::now();
        let run = CycleRun::begin_cycle(started, Duration::ZERO);
        self.spawn_cycle(me, cycle_id, schedule, run, planned, origin);
        Ok(cycle_id)
    }

    fn find_pipeline(&self, name: &PipelineName) -> Result<Pipeline, BeginRefused> {
        let found = self.args.settings.pipelines.get(name);
        found.cloned().ok_or_else(|| BeginRefused::UnknownPipeline(name.clone()))
    }

    /// The strategies that a cycle works for, or the reason why none begins.
    fn choose_strategies(
        &self,
        pipeline: &Pipeline,
        asked: &[StrategyName],
    ) -> Result<Vec<StrategyName>, BeginRefused> {
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        if self.is_drained {
            return Err(BeginRefused::Skip(FireSkipReason::Shutdown));
        }
        if self.args.settings.cycles_running_max <= running {
            return Err(BeginRefused::Skip(FireSkipReason::MaxConcurrent));
        }
        if self.writer.is_failing() {
            return Err(BeginRefused::Journal(JournalRefused::Failing));
        }
        if self.writer.holds_cycles() {
            // The journal takes records, so the refusal is one: only the history that cycles need is behind.
            return Err(BeginRefused::Skip(FireSkipReason::HistoryBehind));
        }
        let agent = self.args.view.agent().state;
        let active = asked.iter().filter(|name| {
            let known = self.args.view.strategy(name);
            agent.covers_strategy(name) && known.is_some_and(|known| known.status == StrategyStatus::Active)
        });
        let active: Vec<StrategyName> = active.cloned().collect();
        if pipeline.works_on_symbols() {
            let known: Vec<_> = active.iter().filter_map(|name| self.args.view.strategy(name)).collect();
            check_cycle_symbols(known.iter().map(|known| &known.definition))?;
        }
        if pipeline.first_gated().is_none() {
            return Ok(active);
        }
        let AgentReading { status, catching_up } = self.args.view.agent_reading();
        if status != AgentStatus::Running || catching_up {
            return Err(BeginRefused::Skip(FireSkipReason::AgentNotRunning));
        }
        if active.is_empty() {
            return Err(BeginRefused::Skip(FireSkipReason::StrategyNotActive));
        }
        Ok(active)
    }

    async fn start_record(
        &self,
        cycle_id: CycleId,
        cause: CycleCause,
        pipeline: Pipeline,
        strategies: Vec<StrategyName>,
        planned: TsMs,
    ) -> CycleStarted {
        let now = self.wall_now();
        let settings = &self.args.settings;
        let kill = self.args.read_kill_switch(false).await;
        let readings = self.args.read_gates(&strategies, kill, now);
        CycleStarted {
            cycle_id,
            cause,
            started_at: now,
            begin_at: 0,
            symbols: Vec::new(),
            decisions: Vec::new(),
            mode: settings.mode,
            dry_run: settings.dry_run,
            as_of_date: self.args.as_of_date(&strategies, planned),
            config: settings.configuration.config_hash(),
            denied_at_start: gates_denied(&pipeline, &readings),
            pipeline,
            strategies,
        }
    }

    fn wall_now(&self) -> TsMs {
        self.args.ports.clock.now().unwrap_or_default()
    }
}

/// The stage that a cycle begins with: RISK, when it has its decisions already.
fn first_stage(pipeline: &Pipeline, decisions: &[TradeDecision]) -> Result<u16, BeginRefused> {
    let first = match decisions.is_empty() {
        true => 0,
        false => pipeline.first_risk().ok_or(BeginRefused::Skip(FireSkipReason::Disabled))?,
    };
    Ok(u16::try_from(first).unwrap_or(u16::MAX))
}
