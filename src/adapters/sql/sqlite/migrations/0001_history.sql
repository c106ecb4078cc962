-- The history of the trading plane. {{schema}} stands for the configured name of specification 002's schema, which is a
-- prefix here. Moments are texts as 2026-01-09T23:51:00.123+00:00, which sort by time; JSON is text; a flag is 0 or 1.
-- A migration that a release had is never changed: a later one follows it.

-- Specification 001, section 6.
CREATE TABLE runs (
  run_id TEXT NOT NULL PRIMARY KEY,
  correlation_id TEXT NOT NULL,
  mode TEXT NOT NULL,
  status TEXT NOT NULL,
  started_at TEXT NOT NULL,
  finished_at TEXT
);

CREATE TABLE artifacts (
  artifact_id TEXT NOT NULL PRIMARY KEY,
  run_id TEXT NOT NULL REFERENCES runs(run_id),
  kind TEXT NOT NULL,
  schema_version TEXT NOT NULL,
  code TEXT NOT NULL,
  content TEXT NOT NULL,
  created_at TEXT NOT NULL
);

-- Specification 002, "Database Schema".
CREATE TABLE "{{schema}}_agent_status" (
  id TEXT NOT NULL PRIMARY KEY,
  status TEXT NOT NULL DEFAULT 'stopped',
  started_at TEXT,
  stopped_at TEXT,
  paused_at TEXT,
  resume_at TEXT,
  mode TEXT DEFAULT 'normal',
  cycles_completed INTEGER DEFAULT 0,
  decisions_generated INTEGER DEFAULT 0,
  orders_executed INTEGER DEFAULT 0,
  errors_count INTEGER DEFAULT 0,
  last_error TEXT,
  last_error_at TEXT,
  updated_at TEXT
);

CREATE TABLE "{{schema}}_cycles" (
  id TEXT NOT NULL PRIMARY KEY,
  type TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'started',
  started_at TEXT,
  completed_at TEXT,
  duration_ms INTEGER,
  strategies_processed INTEGER DEFAULT 0,
  decisions_generated INTEGER DEFAULT 0,
  orders_submitted INTEGER DEFAULT 0,
  orders_filled INTEGER DEFAULT 0,
  errors TEXT DEFAULT '[]',
  metadata TEXT,
  created_at TEXT
);

CREATE TABLE "{{schema}}_cycle_logs" (
  id INTEGER PRIMARY KEY,
  cycle_id TEXT REFERENCES "{{schema}}_cycles"(id),
  level TEXT NOT NULL,
  message TEXT NOT NULL,
  context TEXT,
  timestamp TEXT
);

CREATE TABLE "{{schema}}_strategy_schedules" (
  id TEXT NOT NULL PRIMARY KEY,
  strategy_id TEXT NOT NULL,
  schedule_type TEXT NOT NULL,
  schedule_value TEXT NOT NULL,
  enabled INTEGER DEFAULT 1,
  last_run_at TEXT,
  next_run_at TEXT,
  created_at TEXT,
  updated_at TEXT
);

CREATE INDEX idx_cycles_started ON "{{schema}}_cycles"(started_at);
CREATE INDEX idx_cycles_status ON "{{schema}}_cycles"(status);
CREATE INDEX idx_logs_cycle ON "{{schema}}_cycle_logs"(cycle_id);
CREATE INDEX idx_schedules_next ON "{{schema}}_strategy_schedules"(next_run_at) WHERE enabled = 1;
CREATE INDEX idx_artifacts_run ON artifacts(run_id);

-- How far the journal has been taken in. One row, changed in one transaction with the others.
CREATE TABLE history_mark (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  position INTEGER NOT NULL,
  chain_hash TEXT NOT NULL,
  open_from INTEGER NOT NULL,
  code TEXT NOT NULL,
  schedules TEXT NOT NULL
);
