//! What is shipped for production fits together: compose file, image, configuration, servers, alerts. What can really
//! be started of it is started by `tests/live/shipped.rs`; there is no container engine here.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orchestrator::config::{Config, ConfigBase, Layers, SourceConfig, StorageKind};
use orchestrator_kernel::metric_names::{self, MetricName};
use serde_json::Value;

use crate::support::root;

fn text(path: &str) -> String {
    read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A YAML file as JSON.
fn yaml(path: &str) -> Value {
    let read = Command::new("/usr/bin/python3")
        .args(["-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"])
        .stdin(std::fs::File::open(root().join(path)).unwrap())
        .output()
        .unwrap();
    assert!(read.status.success(), "{path} (ops/test installs python3-yaml): {read:?}");
    serde_json::from_slice(&read.stdout).unwrap()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

/// `2g`, `64m`, `2gb`, in bytes.
fn bytes(size: &str) -> u64 {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match size[digits.len()..].trim_end_matches('b') {
        "g" => 1 << 30,
        "m" => 1 << 20,
        unit => panic!("unknown unit {unit:?} of {size}"),
    };
    digits.parse::<u64>().unwrap() * unit
}

/// The value of a setting in a file of `name value` or `name = value` lines.
fn setting<'a>(text: &'a str, name: &str) -> &'a str {
    let of_line = |line: &'a str| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        Some(value.trim_start_matches(['=', ' ']))
    };
    text.lines().find_map(of_line).unwrap_or_else(|| panic!("{name} is not set"))
}

/// The shipped configuration with the environment that the compose file gives the service.
fn production(directory: &Path) -> Config {
    let compose = yaml("docker-compose.yml");
    let environment = compose["services"]["orchestrator"]["environment"].as_object().unwrap();
    let given = environment.iter().map(|(name, path)| {
        let url = if path.as_str().unwrap().contains("redis") {
            "redis://u:p@redis:1/0"
        } else {
            "amqp://u:p@rabbitmq/%2f"
        };
        let file = directory.join(name);
        std::fs::write(&file, url).unwrap();
        (name.into(), file.into_os_string())
    });
    let layers = Layers {
        base: ConfigBase::File(root().join("config/production.toml")),
        environment: given.collect(),
        ..Layers::default()
    };
    let loaded = Config::load(&layers).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config.redis.url.expose_url(), "redis://u:p@redis:1/0", "secrets win over the file");
    loaded.config
}

fn promtool(arguments: &[&str]) {
    let checked = Command::new("promtool").args(arguments).current_dir(root()).output();
    let checked = checked.expect("promtool must be installed: ops/test does that");
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
fn prometheus_accepts_its_files_and_every_alert_fires_on_its_case() {
    promtool(&["check", "config", "ops/prometheus/prometheus.yml"]);
    promtool(&["test", "rules", "ops/prometheus/alerts_test.yml"]);

    let tests = text("ops/prometheus/alerts_test.yml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let is_tested =
            tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("alertname: {name}\n"));
        assert!(is_tested, "{name} has no test");
    }
}

fn alerts() -> Vec<Value> {
    let file = yaml("ops/prometheus/alerts.yml");
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn alerts_name_metrics_labels_and_runbooks_that_exist() {
    let metrics: Vec<&MetricName> = metric_names::ALL.iter().chain(metric_names::trading::ALL).collect();
    let known: BTreeSet<&str> = metrics.iter().map(|metric| metric.name).collect();
    for alert in alerts() {
        let name = &alert["alert"];
        let expression = alert["expr"].as_str().unwrap();
        let named = expression
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("orch_"));
        for metric in named {
            let base = metric.trim_end_matches("_bucket");
            assert!(known.contains(base), "{name} names {metric}");
        }
        let by = expression.split(" by (").skip(1).map(|rest| rest.split(')').next().unwrap());
        for label in by.filter(|label| !["le", "instance"].contains(label)) {
            let has_it = metrics
                .iter()
                .any(|metric| expression.contains(metric.name) && metric.labels.contains(&label));
            assert!(has_it, "{name} groups by {label}");
        }
        let runbook = alert["annotations"]["runbook"].as_str().unwrap();
        assert!(root().join(runbook).is_file(), "{name} names {runbook}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
    }
}

#[test]
fn every_container_has_no_more_rights_than_it_needs() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_u64(), "{name} is not limited");
        assert!(service["privileged"].is_null() && service["cap_add"].is_null(), "{name}");
        // Our image sets its own user.
        let is_ours = service["build"].is_object();
        let is_root =
            service["user"].as_str().is_none_or(|user| user.starts_with('0') || user.starts_with("root"));
        assert!(is_ours || !is_root, "{name} runs as root");
        for port in words(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        for mounted in words(&service["volumes"]).iter().filter(|mounted| mounted.starts_with("./")) {
            let (from, to) = mounted.split_once(':').unwrap();
            assert!(to.ends_with(":ro"), "{name} may write {from}");
            assert!(from.starts_with("./secrets/") || root().join(from).is_file(), "{name} mounts {from}");
        }
        if service["profiles"].is_null() {
            assert_eq!(service["restart"], "unless-stopped", "{name}");
            assert!(
                service["stop_grace_period"].is_string() && service["healthcheck"]["test"].is_array(),
                "{name}"
            );
        }
    }
    for server in ["redis", "rabbitmq"] {
        assert!(compose["services"][server]["ports"].is_null(), "{server} is published");
        assert_eq!(words(&compose["services"][server]["networks"]), ["servers"]);
        assert_eq!(compose["services"]["orchestrator"]["depends_on"][server]["condition"], "service_healthy");
    }
    assert_eq!(compose["networks"]["servers"]["internal"], true);
}

#[test]
fn compose_file_image_and_configuration_agree() {
    let directory = tempfile::tempdir().unwrap();
    let config = production(directory.path());
    let compose = yaml("docker-compose.yml");
    let service = &compose["services"]["orchestrator"];
    let image = text("ops/Dockerfile");

    assert_eq!(config.storage.kind, StorageKind::Redis);
    let port = config.http.listen.port();
    assert_eq!(words(&service["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    assert!(image.contains(&format!("EXPOSE {port}\n")));
    let data = config.service.data_dir.to_str().unwrap();
    assert!(words(&service["volumes"]).contains(&format!("orchestrator-data:{data}").as_str()));
    assert!(image.contains(&format!("/out/data {data}\n")));
    let path = "/etc/orchestrator/production.toml";
    assert!(words(&service["volumes"]).contains(&format!("./config/production.toml:{path}:ro").as_str()));
    assert_eq!(words(&service["command"]), ["run", "--config", path]);
    assert!(image.contains(&format!("CMD [\"run\", \"--config\", \"{path}\"]\n")));
    // The default of the command is the port of the configuration.
    assert_eq!(words(&service["healthcheck"]["test"]), ["CMD", "orchestrator", "healthcheck"]);
    assert!(image.contains("CMD [\"orchestrator\", \"healthcheck\"]\n"));
    assert_eq!(port, 8003);
    let grace = service["stop_grace_period"].as_str().unwrap();
    assert!(config.service.grace + Duration::from_secs(5) <= humantime::parse_duration(grace).unwrap());
    let scraped = yaml("ops/prometheus/prometheus.yml");
    assert_eq!(
        scraped["scrape_configs"][0]["static_configs"][0]["targets"][0],
        format!("orchestrator:{port}")
    );
}

#[test]
fn the_image_runs_as_nobody_and_is_built_with_the_pinned_compiler() {
    let image = text("ops/Dockerfile");
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let package = &manifest["workspace"]["package"];

    assert!(
        image.contains(&format!(
            "ARG RUST_IMAGE=rust:{}-bookworm\n",
            package["rust-version"].as_str().unwrap()
        ))
    );
    assert!(image.contains(&format!("ARG VERSION={}\n", package["version"].as_str().unwrap())));
    assert!(image.contains(&format!("licenses=\"{}\"", package["license"].as_str().unwrap())));
    let compiles = image.split(" AS base").next().unwrap_or_default();
    assert!(
        compiles.contains("\nARG REVISION=")
            && compiles.contains("ORCHESTRATOR_REVISION=\"${REVISION}\" cargo build"),
        "the binary names its commit"
    );
    assert!(image.contains("\nSTOPSIGNAL SIGTERM\n") && image.contains("\nENTRYPOINT [\"orchestrator\"]\n"));
    let users: Vec<&str> = image.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
    assert_eq!(users, ["10001:10001", "0:0", "10001:10001"], "root installs and never runs");
    let ignored = text(".dockerignore");
    assert!(
        ignored.lines().any(|line| line == "*") && !ignored.contains("!secrets"),
        "secrets stay out of the image"
    );
}

#[test]
fn the_servers_have_room_for_what_the_configuration_keeps_in_them() {
    let directory = tempfile::tempdir().unwrap();
    let config = production(directory.path());
    let compose = yaml("docker-compose.yml");
    let (redis, rabbit) = (text("ops/redis/redis.conf"), text("ops/rabbitmq/rabbitmq.conf"));

    // Three logs, each some 4 % larger in memory than its entries; above 90 % the service takes nothing more.
    let maxmemory = bytes(setting(&redis, "maxmemory"));
    assert!(config.redis.archive_above * 3 / 100 * 104 <= maxmemory / 100 * 90);
    assert!(maxmemory * 2 <= bytes(compose["services"]["redis"]["mem_limit"].as_str().unwrap()));
    let largest = setting(&rabbit, "max_message_size").parse::<u64>().unwrap();
    assert!(config.ingest.receipt_bytes_max <= largest);
    let SourceConfig::Rabbit(market) = &config.sources["market"] else { panic!("the source is a queue") };
    let memory = bytes(compose["services"]["orchestrator"]["mem_limit"].as_str().unwrap());
    assert!(u64::from(market.prefetch) * largest <= memory / 2, "MEM-1: what the broker may hand over fits");
    assert_eq!(setting(&rabbit, "prometheus.tcp.port"), "15692");
    assert!(text("ops/prometheus/prometheus.yml").contains("rabbitmq:15692"));
}

#[test]
fn secrets_are_made_once_and_are_those_that_the_compose_file_names() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("secrets");
    let make =
        || Command::new("python3").arg(root().join("ops/make_secrets.py")).arg(&made).output().unwrap();
    assert!(make().status.success());
    let url = read_to_string(made.join("redis_url")).unwrap();

    let again = make();

    assert!(!again.status.success());
    assert_eq!(read_to_string(made.join("redis_url")).unwrap(), url);
    let compose = text("docker-compose.yml");
    let named =
        compose.split("./secrets/").skip(1).map(|rest| rest.split(['}', ':', ' ', '\n']).next().unwrap());
    for name in named {
        assert!(made.join(name).is_file(), "ops/make_secrets.py does not make {name}");
    }
    let password = url.split(':').nth(2).unwrap().split('@').next().unwrap();
    assert!(password.len() >= 32);
    for name in ["redis_users.acl", "rabbitmq_users.json"] {
        assert!(!read_to_string(made.join(name)).unwrap().contains(password), "servers get hashes");
    }
    let ignored = text(".gitignore");
    assert!(ignored.lines().any(|line| line == "/secrets"));
}
