-- Orchestration runs, of specification 003, "Database Schema", with what the known implementation of 004 has beside it.
-- Symbols, identifiers and statuses are of any length, amounts of any number of digits: nothing is cut or rounded.
-- The service writes every column, `updated_at` too; a run is a cycle of `runs`, and goes with it.

CREATE TABLE orchestration_runs (
  id BIGSERIAL PRIMARY KEY,
  run_id UUID UNIQUE NOT NULL,
  strategy_id TEXT NOT NULL,
  as_of_date DATE NOT NULL,
  status VARCHAR(20) NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'partial')),
  symbols TEXT[] NOT NULL,
  capital NUMERIC NOT NULL CHECK (capital >= 0),
  max_position_size NUMERIC NOT NULL CHECK (max_position_size >= 0),
  num_signals INTEGER NOT NULL DEFAULT 0 CHECK (num_signals >= 0),
  num_orders_submitted INTEGER NOT NULL DEFAULT 0 CHECK (num_orders_submitted >= 0),
  num_orders_accepted INTEGER NOT NULL DEFAULT 0 CHECK (num_orders_accepted >= 0),
  num_orders_rejected INTEGER NOT NULL DEFAULT 0 CHECK (num_orders_rejected >= 0),
  num_orders_filled INTEGER DEFAULT 0 CHECK (num_orders_filled >= 0),
  started_at TIMESTAMP WITH TIME ZONE NOT NULL,
  completed_at TIMESTAMP WITH TIME ZONE,
  duration_seconds NUMERIC CHECK (duration_seconds >= 0),
  error_message TEXT,
  model_version TEXT,
  signal_service_response JSONB,
  execution_gateway_responses JSONB,
  created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW()
);

CREATE TABLE signal_order_mappings (
  id BIGSERIAL PRIMARY KEY,
  run_id UUID NOT NULL REFERENCES orchestration_runs(run_id) ON DELETE CASCADE,
  position INTEGER NOT NULL CHECK (position >= 0),
  symbol TEXT NOT NULL,
  predicted_return NUMERIC,
  rank INTEGER,
  target_weight NUMERIC,
  client_order_id TEXT,
  order_qty INTEGER CHECK (order_qty > 0),
  order_side VARCHAR(10) CHECK (order_side IN ('buy', 'sell')),
  broker_order_id TEXT,
  order_status TEXT,
  filled_qty NUMERIC CHECK (filled_qty >= 0),
  filled_avg_price NUMERIC CHECK (filled_avg_price >= 0),
  skip_reason TEXT,
  created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW()
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
