//! The command line as a person meets it.

use crate::support::orchestrator;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_demo_shows_runs_and_says_what_to_try_next() {
    let shown = orchestrator(&["demo", "--for", "5s"]);
    let text = text(&shown.stdout);

    assert!(shown.status.success(), "{text}{}", self::text(&shown.stderr));
    for word in
        ["BTCUSDT", "runs completed", "outputs published", "orchestrator demo --data", "/api/v1/events"]
    {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    assert!(!text.contains(" 0 runs completed"), "{text}");
}

#[test]
fn a_demo_with_data_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let receipts = || {
        let stat = orchestrator(&["log", "stat", "--data", data]);
        assert!(stat.status.success(), "{}", text(&stat.stderr));
        let stat: serde_json::Value = serde_json::from_slice(&stat.stdout).unwrap();
        assert_eq!(
            stat["runs"]["started"].as_u64(),
            Some(stat["runs"]["completed"].as_u64().unwrap() + stat["runs"]["failed"].as_u64().unwrap())
        );
        stat["receipts"]["log"]["last"].as_u64().unwrap()
    };

    assert!(orchestrator(&["demo", "--for", "3s", "--data", data]).status.success());
    let first = receipts();
    assert!(orchestrator(&["demo", "--for", "3s", "--data", data]).status.success());

    assert!(first > 0);
    assert!(receipts() > first);
}

#[test]
fn a_bad_configuration_is_refused_with_all_its_faults_and_code_78() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    std::fs::write(
        &path,
        "[schedule]\nintervall = \"3m\"\n[engine]\ndeadline = \"soon\"\n[http]\nlisten = \"0.0.0.0:1\"\n",
    )
    .unwrap();

    for command in [["config", "check"].as_slice(), &["run"]] {
        let mut args = command.to_vec();
        args.extend(["--config", path.to_str().unwrap()]);
        let refused = orchestrator(&args);
        let said = text(&refused.stderr);

        assert_eq!(refused.status.code(), Some(78), "{said}");
        for part in ["schedule.intervall", "did you mean `interval`", "engine.deadline", "http.listen"] {
            assert!(said.contains(part), "{part} is missing in:\n{said}");
        }
    }
}

#[test]
fn logs_of_a_missing_directory_are_not_invented() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");

    let stat = orchestrator(&["log", "stat", "--data", nowhere.to_str().unwrap()]);

    assert_eq!(stat.status.code(), Some(69));
    assert!(!nowhere.exists());
}

#[test]
fn a_recording_that_cannot_be_read_ends_a_single_run_with_code_69() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let settings = format!(
        "[service]\ndata_dir = \"{0}/data\"\n[clock]\nmode = \"recorded\"\n[sources.day]\nkind = \"file\"\npath = \"{0}/missing.jsonl\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        dir.path().display()
    );
    std::fs::write(&config, settings).unwrap();

    let run = orchestrator(&["run", "--once", "--config", config.to_str().unwrap()]);

    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(69), "{said}");
    assert!(said.contains("missing.jsonl"), "{said}");
}

/// Method: a recording is begun, and gone on with under another interval.
#[test]
fn a_recording_is_not_continued_with_other_settings_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let receipt = r#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":1577836800000,"raw_payload":"","normalized":{}}"#;
    std::fs::write(dir.path().join("day.jsonl"), receipt).unwrap();
    let settings = format!(
        "[service]\ndata_dir = \"{0}/data\"\n[clock]\nmode = \"recorded\"\n[sources.day]\nkind = \"file\"\npath = \"{0}/day.jsonl\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        dir.path().display()
    );
    std::fs::write(&config, settings).unwrap();
    let run = |flags: &[&str], code: i32| {
        let args = [&["run", "--once", "--config", config.to_str().unwrap()], flags].concat();
        let output = orchestrator(&args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    };
    let other = ["--set", "schedule.interval=1m"];

    run(&[], 0);
    let refused = run(&other, 78);
    let accepted = run(&[other[0], other[1], "--accept-changes"], 0);
    let again = run(&other, 0);

    for said in [&refused, &accepted] {
        // The log's JSON escapes the quotes.
        let said = said.replace('\\', "");
        assert!(said.contains(r#"schedule.interval was "180000ms", is "60000ms""#), "{said}");
    }
    assert!(refused.contains("--accept-changes"), "{refused}");
    assert!(!again.contains("schedule.interval was"), "it is recorded by now: {again}");
}

/// Method: the story of a stop, on the file and without a service; each command by its exit code and what is shown.
#[test]
fn the_kill_switch_is_set_up_engaged_and_lifted_by_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/kill.json").to_str().unwrap().to_owned();
    let run = |words: &[&str], code: i32| {
        let args: Vec<&str> = ["kill-switch"].iter().chain(words).copied().chain(["--file", &file]).collect();
        let output = orchestrator(&args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {out}{err}");
        (out, err)
    };

    assert!(run(&["status"], 2).0.starts_with("unknown\n"));
    assert!(run(&["disengage", "--operator", "me"], 1).1.contains("state unknown"));
    run(&["init", "--operator", "me"], 0);
    assert!(run(&["status"], 0).0.starts_with("trading\n"));
    assert!(run(&["disengage", "--operator", "me"], 1).1.contains("Kill-switch not engaged"));
    let engage =
        ["engage", "--operator", "me", "--reason", "odd prices", "--details", "{\"symbol\":\"AAPL\"}"];
    assert!(run(&engage, 0).0.contains("\"engaged_by\":\"me\""));
    assert!(run(&engage, 1).1.contains("Kill-switch already engaged"));
    assert!(run(&["init", "--operator", "me"], 1).1.contains("set up already"));
    let status: serde_json::Value = serde_json::from_str(&run(&["status", "--json"], 1).0).unwrap();
    assert_eq!((&status["state"], &status["engaged_by"]), (&"halted".into(), &"me".into()));
    assert_eq!(status["history"][1]["details"]["symbol"], "AAPL");
    run(&["disengage", "--operator", "me", "--notes", "looked"], 0);
    run(&["status"], 0);

    run(&["engage", "--operator", " ", "--reason", "x"], 2);
    let args = ["kill-switch", "status", "--url", "redis://:canary@127.0.0.1:1"];
    let unreachable = orchestrator(&args);
    assert_eq!(unreachable.status.code(), Some(2));
    assert!(!format!("{}{}", text(&unreachable.stdout), text(&unreachable.stderr)).contains("canary"));
}
