//! A RISK of others: the rules of the built-in one hold behind it, so that it may lower or deny and nothing else.
//!
//! ```text
//! decisions ─▶ RISK over HTTP, in a worker, fixed ─▶ verdicts ─▶ own rules ─▶ the fewer shares, a denial of either
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::trading::journal::{StageError, StageOutput};
use orchestrator_kernel::trading::stage::{StageProvider, StageRole};

use super::BuiltInStages;

/// Stages of which each that judges risk keeps the own rules, whoever does its work.
pub struct GuardedRisk {
    stages: Arc<dyn StageBackend>,
    built_in: Arc<BuiltInStages>,
}

impl GuardedRisk {
    /// These stages, behind whose verdicts `built_in` judges.
    #[must_use]
    pub fn new(stages: Arc<dyn StageBackend>, built_in: Arc<BuiltInStages>) -> Self {
        Self { stages, built_in }
    }
}

#[async_trait]
impl StageBackend for GuardedRisk {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let is_foreign =
            request.stage.role() == StageRole::Risk && request.stage.provider != StageProvider::BuiltIn;
        if !is_foreign {
            return self.stages.call_stage(request).await;
        }
        let answer = self.stages.call_stage(request.clone()).await?;
        Ok(self.built_in.narrow_verdicts(&request, answer))
    }
}
