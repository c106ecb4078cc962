//! The tables as data, and how the two databases bind and read the values of their columns.

use std::fmt;

use ColumnKind::{Amount, Date, Flag, Integer, Json, Text, TextList, Time, Uuid};

/// Kind of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    /// An identifier, as text.
    Uuid,
    Text,
    /// A moment, as RFC 3339 text of UTC.
    Time,
    /// A day, as text of ISO 8601.
    Date,
    /// A decimal number, as text.
    Amount,
    /// JSON, as text.
    Json,
    /// A list of texts, as text of JSON.
    TextList,
    Integer,
    /// 0 or 1.
    Flag,
}

impl ColumnKind {
    /// Whether its values are whole numbers; the others are texts.
    pub(super) const fn is_integer(self) -> bool {
        match self {
            Self::Integer | Self::Flag => true,
            Self::Uuid
            | Self::Text
            | Self::Time
            | Self::Date
            | Self::Amount
            | Self::Json
            | Self::TextList => false,
        }
    }
}

/// Columns with their kinds, in their order.
pub(super) type SqlColumns = &'static [(&'static str, ColumnKind)];

/// A table.
pub(super) struct SqlTable {
    pub(super) name: &'static str,
    /// Whether it is one of specification 002, in its schema or with its prefix.
    pub(super) is_of_schema: bool,
    /// How many of the first columns are the key.
    pub(super) key_width: usize,
    pub(super) columns: SqlColumns,
}

impl SqlTable {
    /// The columns of its key, in quotes.
    pub(super) fn key_list(&self) -> String {
        let key = self.columns.iter().take(self.key_width).map(|(column, _)| format!("\"{column}\""));
        key.collect::<Vec<_>>().join(", ")
    }
}

pub(super) static RUNS: SqlTable = SqlTable {
    name: "runs",
    is_of_schema: false,
    key_width: 1,
    columns: &[
        ("run_id", Uuid),
        ("correlation_id", Text),
        ("mode", Text),
        ("status", Text),
        ("started_at", Time),
        ("finished_at", Time),
    ],
};

pub(super) static ARTIFACTS: SqlTable = SqlTable {
    name: "artifacts",
    is_of_schema: false,
    key_width: 1,
    columns: &[
        ("artifact_id", Uuid),
        ("run_id", Uuid),
        ("kind", Text),
        ("schema_version", Text),
        ("code", Text),
        ("content", Json),
        ("created_at", Time),
    ],
};

pub(super) static AGENT_STATUS: SqlTable = SqlTable {
    name: "agent_status",
    is_of_schema: true,
    key_width: 1,
    columns: &[
        ("id", Uuid),
        ("status", Text),
        ("started_at", Time),
        ("stopped_at", Time),
        ("paused_at", Time),
        ("resume_at", Time),
        ("mode", Text),
        ("cycles_completed", Integer),
        ("decisions_generated", Integer),
        ("orders_executed", Integer),
        ("errors_count", Integer),
        ("last_error", Text),
        ("last_error_at", Time),
        ("updated_at", Time),
    ],
};

pub(super) static CYCLES: SqlTable = SqlTable {
    name: "cycles",
    is_of_schema: true,
    key_width: 1,
    columns: &[
        ("id", Uuid),
        ("type", Text),
        ("status", Text),
        ("started_at", Time),
        ("completed_at", Time),
        ("duration_ms", Integer),
        ("strategies_processed", Integer),
        ("decisions_generated", Integer),
        ("orders_submitted", Integer),
        ("orders_filled", Integer),
        ("errors", Json),
        ("metadata", Json),
        ("created_at", Time),
    ],
};

pub(super) static CYCLE_LOGS: SqlTable = SqlTable {
    name: "cycle_logs",
    is_of_schema: true,
    key_width: 1,
    columns: &[
        ("id", Integer),
        ("cycle_id", Uuid),
        ("level", Text),
        ("message", Text),
        ("context", Json),
        ("timestamp", Time),
    ],
};

pub(super) static STRATEGY_SCHEDULES: SqlTable = SqlTable {
    name: "strategy_schedules",
    is_of_schema: true,
    key_width: 1,
    columns: &[
        ("id", Uuid),
        ("strategy_id", Uuid),
        ("schedule_type", Text),
        ("schedule_value", Text),
        ("enabled", Flag),
        ("last_run_at", Time),
        ("next_run_at", Time),
        ("created_at", Time),
        ("updated_at", Time),
    ],
};

pub(super) static ORCHESTRATION_RUNS: SqlTable = SqlTable {
    name: "orchestration_runs",
    is_of_schema: false,
    key_width: 1,
    columns: &[
        ("run_id", Uuid),
        ("strategy_id", Text),
        ("as_of_date", Date),
        ("status", Text),
        ("symbols", TextList),
        ("capital", Amount),
        ("max_position_size", Amount),
        ("num_signals", Integer),
        ("num_orders_submitted", Integer),
        ("num_orders_accepted", Integer),
        ("num_orders_rejected", Integer),
        ("num_orders_filled", Integer),
        ("started_at", Time),
        ("completed_at", Time),
        ("duration_seconds", Amount),
        ("error_message", Text),
        ("model_version", Text),
        ("signal_service_response", Json),
        ("execution_gateway_responses", Json),
        ("created_at", Time),
        ("updated_at", Time),
    ],
};

pub(super) static SIGNAL_ORDER_MAPPINGS: SqlTable = SqlTable {
    name: "signal_order_mappings",
    is_of_schema: false,
    key_width: 2,
    columns: &[
        ("run_id", Uuid),
        ("position", Integer),
        ("symbol", Text),
        ("predicted_return", Amount),
        ("rank", Integer),
        ("target_weight", Amount),
        ("client_order_id", Text),
        ("order_qty", Integer),
        ("order_side", Text),
        ("broker_order_id", Text),
        ("order_status", Text),
        ("filled_qty", Amount),
        ("filled_avg_price", Amount),
        ("skip_reason", Text),
        ("created_at", Time),
        ("updated_at", Time),
    ],
};

/// The only column of a count.
pub(super) const COUNT: SqlColumns = &[("count", Integer)];

pub(super) static HISTORY_MARK: SqlTable = SqlTable {
    name: "history_mark",
    is_of_schema: false,
    key_width: 1,
    columns: &[
        ("id", Integer),
        ("position", Integer),
        ("chain_hash", Text),
        ("open_from", Integer),
        ("code", Text),
        ("schedules", Text),
    ],
};

/// Every table, such that a row's references stand in a table before its own.
pub(super) static TABLES: [&SqlTable; 9] = [
    &RUNS,
    &CYCLES,
    &CYCLE_LOGS,
    &ARTIFACTS,
    &AGENT_STATUS,
    &STRATEGY_SCHEDULES,
    &ORCHESTRATION_RUNS,
    &SIGNAL_ORDER_MAPPINGS,
    &HISTORY_MARK,
];

/// Bytes of a schema's name.
pub const SCHEMA_NAME_BYTES_MAX: usize = 40;

/// Name of specification 002's schema: a letter or `_`, then letters, digits and `_`, all lower-case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// Takes a name that needs no quoting and hides no statement.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        let fits = begins && name.len() <= SCHEMA_NAME_BYTES_MAX && name.bytes().all(is_part);
        fits.then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Flavour of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqlDialect {
    Sqlite,
    Postgres,
}

impl SqlDialect {
    /// The table's name in a statement.
    pub(super) fn table_name(self, table: &SqlTable, schema: &SchemaName) -> String {
        match (table.is_of_schema, self) {
            (false, _) => format!("\"{}\"", table.name),
            (true, Self::Sqlite) => format!("\"{schema}_{}\"", table.name),
            (true, Self::Postgres) => format!("\"{schema}\".\"{}\"", table.name),
        }
    }

    /// The place of value `number`, counted from 1, of a column of this kind.
    pub(super) fn bound(self, kind: ColumnKind, number: usize) -> String {
        match (self, kind) {
            (Self::Sqlite, _) => format!("?{number}"),
            (Self::Postgres, Uuid) => format!("${number}::uuid"),
            (Self::Postgres, Time) => format!("${number}::timestamptz"),
            (Self::Postgres, Date) => format!("${number}::date"),
            (Self::Postgres, Amount) => format!("${number}::numeric"),
            (Self::Postgres, Json) => format!("${number}::jsonb"),
            (Self::Postgres, TextList) => {
                format!("ARRAY(SELECT jsonb_array_elements_text(${number}::jsonb))")
            }
            (Self::Postgres, Flag) => format!("(${number} <> 0)"),
            (Self::Postgres, Text | Integer) => format!("${number}"),
        }
    }

    /// The expression that reads the column as a text or a whole number of 64 bits.
    pub(super) fn read(self, column: &str, kind: ColumnKind) -> String {
        match (self, kind) {
            (Self::Sqlite, _) => format!("\"{column}\""),
            (Self::Postgres, Uuid | Json | Text | Amount) => format!("\"{column}\"::text"),
            (Self::Postgres, TextList) => format!("array_to_json(\"{column}\")::text"),
            (Self::Postgres, Date) => format!("to_char(\"{column}\", 'YYYY-MM-DD')"),
            (Self::Postgres, Time) => {
                format!("to_char(\"{column}\" AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"+00:00\"')")
            }
            (Self::Postgres, Integer) => format!("\"{column}\"::bigint"),
            (Self::Postgres, Flag) => format!("\"{column}\"::integer::bigint"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schemas_name_hides_no_statement() {
        for bad in ["", "1a", "A", "a b", "a\"", "a;b", "a.b", "é", &"a".repeat(41)] {
            assert_eq!(SchemaName::new(bad), None, "{bad:?}");
        }
        for good in ["orchestration", "_x1"] {
            assert_eq!(SchemaName::new(good).unwrap().to_string(), good);
        }
    }

    /// The tables as data are those that the migrations make, column by column, in both flavours.
    #[test]
    fn the_tables_are_those_of_the_migrations() {
        let made = [
            (SqlDialect::Sqlite, super::super::sqlite::MIGRATIONS),
            (SqlDialect::Postgres, super::super::postgres::MIGRATIONS),
        ];
        for (dialect, files) in made {
            let sql = files.map(|(_, sql)| sql).concat();
            let sql = sql.replace("{{schema}}", "orchestration");
            let schema = SchemaName::new("orchestration").unwrap();
            for table in TABLES {
                let quoted = dialect.table_name(table, &schema);
                let plain = quoted.replace(&format!("\"{}\"", table.name), table.name);
                let starts = [&quoted, &plain].map(|name| format!("CREATE TABLE {name} (\n"));
                let body = starts.iter().find_map(|start| sql.split_once(start.as_str()));
                let (_, body) = body.unwrap_or_else(|| panic!("{dialect:?} does not make {}", table.name));
                let (body, _) = body.split_once("\n);").unwrap();
                let names: Vec<&str> =
                    body.lines().filter_map(|line| line.split_whitespace().next()).collect();
                let known: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
                // The database's own numbers of rows, which nothing here reads.
                let names = if known.contains(&"id") {
                    &names[..]
                } else {
                    names.strip_prefix(&["id"]).unwrap_or(&names)
                };
                assert_eq!(names, known, "{dialect:?} {}", table.name);
            }
        }
    }
}
