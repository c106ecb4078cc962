-- Orchestration runs, of specification 003, "Database Schema", with what the known implementation of 004 has beside it.
-- Symbols, identifiers and statuses are of any length, amounts of any number of digits: nothing is cut or rounded.
-- The service writes every column, `updated_at` too; a run is a cycle of `runs`, and goes with it.
-- Amounts and days are texts, lists of symbols are texts of JSON.

CREATE TABLE orchestration_runs (
  id INTEGER PRIMARY KEY,
  run_id TEXT UNIQUE NOT NULL,
  strategy_id TEXT NOT NULL,
  as_of_date TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'partial')),
  symbols TEXT NOT NULL,
  capital TEXT NOT NULL CHECK (CAST(capital AS REAL) >= 0),
  max_position_size TEXT NOT NULL CHECK (CAST(max_position_size AS REAL) >= 0),
  num_signals INTEGER NOT NULL DEFAULT 0 CHECK (num_signals >= 0),
  num_orders_submitted INTEGER NOT NULL DEFAULT 0 CHECK (num_orders_submitted >= 0),
  num_orders_accepted INTEGER NOT NULL DEFAULT 0 CHECK (num_orders_accepted >= 0),
  num_orders_rejected INTEGER NOT NULL DEFAULT 0 CHECK (num_orders_rejected >= 0),
  num_orders_filled INTEGER DEFAULT 0 CHECK (num_orders_filled >= 0),
  started_at TEXT NOT NULL,
  completed_at TEXT,
  duration_seconds TEXT CHECK (CAST(duration_seconds AS REAL) >= 0),
  error_message TEXT,
  model_version TEXT,
  signal_service_response TEXT,
  execution_gateway_responses TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))
);

CREATE TABLE signal_order_mappings (
  id INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL REFERENCES orchestration_runs(run_id) ON DELETE CASCADE,
  position INTEGER NOT NULL CHECK (position >= 0),
  symbol TEXT NOT NULL,
  predicted_return TEXT,
  rank INTEGER,
  target_weight TEXT,
  client_order_id TEXT,
  order_qty INTEGER CHECK (order_qty > 0),
  order_side TEXT CHECK (order_side IN ('buy', 'sell')),
  broker_order_id TEXT,
  order_status TEXT,
  filled_qty TEXT CHECK (CAST(filled_qty AS REAL) >= 0),
  filled_avg_price TEXT CHECK (CAST(filled_avg_price AS REAL) >= 0),
  skip_reason TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))
);

CREATE INDEX idx_orchestration_runs_status ON orchestration_runs(status);
CREATE INDEX idx_orchestration_runs_as_of_date ON orchestration_runs(as_of_date DESC);
CREATE INDEX idx_orchestration_runs_run_id ON orchestration_runs(run_id);
CREATE INDEX idx_orchestration_runs_strategy_id ON orchestration_runs(strategy_id);
CREATE INDEX idx_orchestration_runs_started_at ON orchestration_runs(started_at DESC);
-- A symbol may come twice in one run: what is unique is its place there.
CREATE UNIQUE INDEX idx_signal_order_mappings_run_id ON signal_order_mappings(run_id, position);
CREATE INDEX idx_signal_order_mappings_symbol ON signal_order_mappings(symbol);
CREATE INDEX idx_signal_order_mappings_client_order_id ON signal_order_mappings(client_order_id);
