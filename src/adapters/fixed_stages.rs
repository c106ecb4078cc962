//! Stages whose answer is always the same text, from the configuration.

use async_trait::async_trait;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::trading::journal::{StageError, StageOutput};
use orchestrator_kernel::trading::stage_protocol::read_fixed_answer;

/// Stages that answer this text. A strategy that is asked for gets its own decisions of it.
#[derive(Clone, Debug)]
pub struct FixedStages {
    answer: String,
}

impl FixedStages {
    /// Stages that answer `answer`, in the protocol's form; `ok` may be left out.
    #[must_use]
    pub const fn new(answer: String) -> Self {
        Self { answer }
    }
}

#[async_trait]
impl StageBackend for FixedStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        read_fixed_answer(&self.answer, request.strategy.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use orchestrator_kernel::ports::stage::unavailable_stage;
    use orchestrator_kernel::ports::stage_conformance::{StageBackendProvider, run};

    use super::*;

    /// One fixed answer a stage: each is a backend of its own.
    struct ByStage(BTreeMap<&'static str, FixedStages>);

    #[async_trait]
    impl StageBackend for ByStage {
        async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
            match self.0.get(request.stage.name.as_str()) {
                Some(stages) => stages.call_stage(request).await,
                None => Err(unavailable_stage(&request.stage.name)),
            }
        }
    }

    struct OfTexts;

    #[async_trait]
    impl StageBackendProvider for OfTexts {
        async fn fresh(&self) -> Arc<dyn StageBackend> {
            let of = |text: &str| FixedStages::new(text.to_owned());
            let failed = of(r#"{"ok":false,"error_detail":"no features"}"#);
            Arc::new(ByStage([("ING", of(r#"{ "data": {"echo": 1} }"#)), ("FEAT", failed)].into()))
        }
    }

    #[tokio::test]
    async fn fixed_stages_keep_the_promises() {
        run(&OfTexts).await;
    }
}
