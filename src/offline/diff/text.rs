//! The findings for people.

use std::fmt::Write;

use orchestrator_kernel::rfc3339::to_rfc3339;

use super::{DiffVerdict, Differences, Missing, RunName, SideSummary};

/// Digits of a run's id, and of a code hash.
const ID_DIGITS: usize = 12;
/// Lines of each table.
const LINES_MAX: usize = 20;

/// Renders `differences`.
#[must_use]
pub fn render_differences(differences: &Differences) -> String {
    let mut page = String::new();
    let total = differences.equal + differences.different;
    let verdict = match differences.verdict {
        DiffVerdict::Equal => format!("equal: all {total} runs"),
        DiffVerdict::Different => {
            format!("different: {} of {total} runs that both have", differences.different)
        }
        DiffVerdict::CannotTell if 0 < differences.doubts_count => {
            format!(
                "cannot tell: the logs contradict themselves in {} places; verify them",
                differences.doubts_count
            )
        }
        DiffVerdict::CannotTell => "cannot tell: there is no run that both have".to_owned(),
    };
    push_line(&mut page, &verdict);
    for (letter, side) in [("A", &differences.a), ("B", &differences.b)] {
        push_line(
            &mut page,
            &format!("  {letter}  {}: {} runs, {}", side.name, side.runs, engines_text(side)),
        );
    }
    for (letter, missing) in [("A", &differences.only_in_a), ("B", &differences.only_in_b)] {
        only_in(&mut page, letter, missing);
    }
    differences.doubts.iter().for_each(|doubt| push_line(&mut page, &format!("  {doubt}")));
    let regimes = differences.regime_changes.iter().map(|change| {
        [change.count.to_string(), change.from.clone(), change.to.clone(), run_text(&change.first)]
    });
    push_table(&mut page, "regime changes", ["runs", "from", "to", "first run"], regimes.collect());
    let drift = differences.drift.iter().map(|drift| {
        [
            drift.count.to_string(),
            drift.path.clone(),
            number_text(drift.max_abs),
            number_text(drift.max_rel),
            number_text(drift.mean),
            run_text(&drift.first),
        ]
    });
    push_table(
        &mut page,
        "numbers",
        ["runs", "where", "max abs", "max rel", "mean", "first run"],
        drift.collect(),
    );
    let changed = differences.changed.iter().map(|changed| {
        [
            changed.count.to_string(),
            changed.path.clone(),
            format!("{} → {}", changed.a, changed.b),
            run_text(&changed.first),
        ]
    });
    push_table(&mut page, "other changes", ["runs", "where", "the first", "first run"], changed.collect());
    page
}

fn push_line(page: &mut String, text: &str) {
    // Writing to a string has no way to fail.
    writeln!(page, "{}", text.trim_end()).unwrap_or_default();
}

fn engines_text(side: &SideSummary) -> String {
    if side.engines.is_empty() {
        return "no engine answered".to_owned();
    }
    let names = side.engines.iter().map(|engine| {
        let hash = engine.code_hash.get(..ID_DIGITS).unwrap_or(&engine.code_hash);
        format!("{} {} ({hash})", engine.name, engine.version)
    });
    format!("engine {}", names.collect::<Vec<_>>().join(", "))
}

fn only_in(page: &mut String, letter: &str, missing: &Missing) {
    if let Some(first) = &missing.first {
        push_line(
            page,
            &format!("  only in {letter}: {} runs, the first {}", missing.count, run_text(first)),
        );
    }
}

fn run_text(name: &RunName) -> String {
    let id = name.run_id.get(..ID_DIGITS).unwrap_or(&name.run_id);
    format!("{} {} {id}", name.symbol, to_rfc3339(name.engine_timestamp_ms))
}

fn number_text(value: f64) -> String {
    format!("{value:.3e}")
}

fn push_table<const COLUMNS: usize>(
    page: &mut String,
    title: &str,
    head: [&str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
) {
    if rows.is_empty() {
        return;
    }
    push_line(page, "");
    push_line(page, title);
    let width = |column: usize| {
        let cells =
            rows.iter().take(LINES_MAX).filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut put = |cells: [&str; COLUMNS]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        push_line(page, &format!("  {}", padded.collect::<Vec<_>>().join("  ")));
    };
    put(head);
    for row in rows.iter().take(LINES_MAX) {
        put(row.each_ref().map(String::as_str));
    }
    if LINES_MAX < rows.len() {
        push_line(page, &format!("  … and {} more; --json lists all", rows.len() - LINES_MAX));
    }
}
