//! T4: an hour of absence, under each misfire policy.

use super::{passes, schedule, witness};
use crate::support::eventually;
use crate::support::stage_server::{OnAsked, StageServer};
use crate::support::trading::{STRATEGY, TradingPlace, moment};

const MINUTE_MS: i64 = 60_000;
/// Fires of an hour.
const MISSED: i64 = 60;
/// Cycles that a schedule of these tests may run at a time.
const CONCURRENT_MAX: usize = 2;

/// A schedule of every minute, with a pipeline of its own name whose signals come from the server.
fn minutely(name: &str, misfire: &str, lateness_max: &str) -> String {
    let trigger = format!(
        "trigger = \"cron\"\ncron = \"* * * * *\"\nzone = \"UTC\"\nhours = \"any\"\n\
         concurrent_max = {CONCURRENT_MAX}"
    );
    let pipeline = format!(
        "[trading.pipelines.{name}]\nstages = [\"ING\", \"SIG\", \"RISK\", \"EXEC\", \"GOV\"]\n\
         stale_after = \"0s\"\n[trading.pipelines.{name}.stage.SIG]\nprovider = \"mine\"\n"
    );
    pipeline
        + &schedule(name, name, &trigger)
            .replace("misfire = \"skip\"", &format!("misfire = \"{misfire}\""))
            .replace("\"2h\"", &format!("\"{lateness_max}\""))
}

/// T4. Method: a cycle of each, kill −9, and the clock an hour later. Signals are held, so that as many cycles run at
/// a time as may.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_absence_is_made_up_for_as_each_policy_says_and_never_in_a_burst() {
    let server = StageServer::start().await;
    let trading = server.section("mine")
        + &minutely("skip", "skip", "2h")
        + &minutely("latest", "latest", "2h")
        + &minutely("all", "all", "2h")
        + &minutely("not_too_late", "all", "10m")
        + &witness()
        + STRATEGY
        + "schedules = [\"skip\", \"latest\", \"all\", \"not_too_late\"]\n";
    let (place, clock) = TradingPlace::at(moment("2026-06-10T12:00:10Z"), &trading);
    let names = ["skip", "latest", "all", "not_too_late"];
    let service = place.start_trading().await;
    clock.jump_to(moment("2026-06-10T12:00:59Z"));
    for name in names {
        service.ended_cycles(name, 1).await;
    }
    service.kill();
    clock.jump_to(moment("2026-06-10T13:01:08Z"));
    names.iter().for_each(|name| server.always(&format!("{name}/SIG"), OnAsked::Hold));

    let service = place.start().await;
    passes(&service, "2026-06-10T13:01:08Z").await;
    server.was_asked("all/SIG", 1 + CONCURRENT_MAX).await;
    server.was_asked("latest/SIG", 2).await;
    eventually("everything is made up for", async || {
        server.release();
        let ended = service.cycles("all").await.iter().filter(|it| !it["completedAt"].is_null()).count();
        (usize::try_from(1 + MISSED).unwrap() <= ended).then_some(())
    })
    .await;
    eventually("the others have come to their end", async || {
        server.release();
        (service.agent().await["currentCycle"].is_null()).then_some(())
    })
    .await;
    let skipped = service.metric("orch_cadence_fires_skipped_total{reason=\"misfire\"}").await;
    service.stop().await;

    let first = moment("2026-06-10T12:01:00Z");
    let missed: Vec<i64> = (1..=MISSED).map(|minute| first + minute * MINUTE_MS).collect();
    let journal = place.journal();
    let made_up = |name: &str| -> Vec<i64> {
        let of_absence = |planned: &i64| missed.contains(planned);
        journal.fired(name).into_iter().filter(of_absence).collect()
    };
    assert_eq!((made_up("skip"), journal.skipped("skip", "misfire")), (vec![], 60));
    assert_eq!((made_up("latest"), journal.skipped("latest", "misfire")), (missed[59..].to_vec(), 59));
    assert_eq!((made_up("all"), journal.skipped("all", "misfire")), (missed.clone(), 0));
    let not_too_late = made_up("not_too_late");
    let too_late = usize::try_from(journal.skipped("not_too_late", "too_late")).unwrap();
    assert_eq!(not_too_late, missed[too_late..], "the last ones");
    assert!(50 <= too_late, "{too_late} of 60 were more than ten minutes late");
    // The witness was away too.
    assert!(60.0 + 59.0 <= skipped, "each skip is counted: {skipped}");
    for name in ["latest", "all", "not_too_late"] {
        assert!(server.in_flight_max(name) <= CONCURRENT_MAX, "{name}: a burst");
    }
    assert_eq!(server.in_flight_max("all"), CONCURRENT_MAX);
    journal.check_accounts();
}
