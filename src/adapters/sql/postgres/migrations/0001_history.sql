-- The history of the trading plane. {{schema}} stands for the configured name of specification 002's schema.
-- A migration that a release had is never changed: a later one follows it.

DO $$
BEGIN
  -- Not IF NOT EXISTS: that asks for the right to create schemas also where the schema is there.
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{{schema}}') THEN
    CREATE SCHEMA "{{schema}}";
  END IF;
END
$$;

-- Specification 001, section 6.
CREATE TABLE runs (
  run_id UUID PRIMARY KEY,
  correlation_id TEXT NOT NULL,
  mode VARCHAR(20) NOT NULL,
  status VARCHAR(20) NOT NULL,
  started_at TIMESTAMP WITH TIME ZONE NOT NULL,
  finished_at TIMESTAMP WITH TIME ZONE
);

CREATE TABLE artifacts (
  artifact_id UUID PRIMARY KEY,
  run_id UUID NOT NULL REFERENCES runs(run_id),
  kind TEXT NOT NULL,
  schema_version TEXT NOT NULL,
  code TEXT NOT NULL,
  content JSONB NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE NOT NULL
);

-- Specification 002, "Database Schema".
CREATE TABLE "{{schema}}".agent_status (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  status VARCHAR(20) NOT NULL DEFAULT 'stopped',
  started_at TIMESTAMP WITH TIME ZONE,
  stopped_at TIMESTAMP WITH TIME ZONE,
  paused_at TIMESTAMP WITH TIME ZONE,
  resume_at TIMESTAMP WITH TIME ZONE,
  mode VARCHAR(20) DEFAULT 'normal',
  cycles_completed INTEGER DEFAULT 0,
  decisions_generated INTEGER DEFAULT 0,
  orders_executed INTEGER DEFAULT 0,
  errors_count INTEGER DEFAULT 0,
  last_error TEXT,
  last_error_at TIMESTAMP WITH TIME ZONE,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE TABLE "{{schema}}".cycles (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  type VARCHAR(20) NOT NULL,
  status VARCHAR(20) NOT NULL DEFAULT 'started',
  started_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
  completed_at TIMESTAMP WITH TIME ZONE,
  duration_ms INTEGER,
  strategies_processed INTEGER DEFAULT 0,
  decisions_generated INTEGER DEFAULT 0,
  orders_submitted INTEGER DEFAULT 0,
  orders_filled INTEGER DEFAULT 0,
  errors JSONB DEFAULT '[]',
  metadata JSONB,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE TABLE "{{schema}}".cycle_logs (
  id BIGSERIAL PRIMARY KEY,
  cycle_id UUID REFERENCES "{{schema}}".cycles(id),
  level VARCHAR(10) NOT NULL,
  message TEXT NOT NULL,
  context JSONB,
  timestamp TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE TABLE "{{schema}}".strategy_schedules (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  strategy_id UUID NOT NULL,
  schedule_type VARCHAR(20) NOT NULL,
  schedule_value VARCHAR(100) NOT NULL,
  enabled BOOLEAN DEFAULT TRUE,
  last_run_at TIMESTAMP WITH TIME ZONE,
  next_run_at TIMESTAMP WITH TIME ZONE,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE INDEX idx_cycles_started ON "{{schema}}".cycles(started_at);
CREATE INDEX idx_cycles_status ON "{{schema}}".cycles(status);
CREATE INDEX idx_logs_cycle ON "{{schema}}".cycle_logs(cycle_id);
CREATE INDEX idx_schedules_next ON "{{schema}}".strategy_schedules(next_run_at) WHERE enabled = TRUE;
CREATE INDEX idx_artifacts_run ON artifacts(run_id);

-- How far the journal has been taken in. One row, changed in one transaction with the others.
CREATE TABLE history_mark (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  position BIGINT NOT NULL,
  chain_hash TEXT NOT NULL,
  open_from BIGINT NOT NULL,
  code TEXT NOT NULL,
  schedules TEXT NOT NULL
);
