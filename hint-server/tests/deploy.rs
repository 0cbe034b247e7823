//! What lies in `deploy/`: units that systemd finds hardened, alerts and a board that name metrics which exist.

#[path = "common/server.rs"]
mod server;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use server::Server;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// Names of metrics in a text of queries, without what histograms add to theirs.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours = words.filter(|word| ["tokenflow_hint_", "tokenflow:", "vllm:", "process_"].iter().any(|prefix| word.starts_with(prefix)));
    ours.map(|name| name.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn alerts_and_board_name_metrics_that_exist() {
    let board: serde_json::Value = serde_json::from_str(&fs::read_to_string(deploy("grafana/tokenflow.json")).unwrap()).unwrap();
    let mut named = metrics_in(&fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap());
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            named.extend(metrics_in(target["expr"].as_str().unwrap()));
        }
    }
    assert!(named.len() > 15, "{named:?}");

    let flags = ["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--redis", "redis+unix:///nonexistent", "--host-name", "a"];
    let server = Server::start(&flags);
    let page = server.get("/metrics").1;
    let engine = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/metrics/mod.rs")).unwrap();
    for name in named {
        let exists = match name.starts_with("tokenflow_hint_") || name.starts_with("process_") {
            true => page.contains(&format!("# TYPE {name} ")),
            false => engine.contains(&format!("\"{name}\"")),
        };
        assert!(exists, "no daemon has {name}");
    }
}

#[test]
fn alerts_fire_when_they_should() {
    let promtool = std::env::var_os("TOKENFLOW_PROMTOOL").map_or_else(|| PathBuf::from("promtool"), PathBuf::from);
    let run = |arguments: &[&str]| Command::new(&promtool).args(arguments).current_dir(deploy("prometheus")).output();
    let Ok(checked) = run(&["check", "rules", "alerts.yml"]) else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: `promtool` is missing");
        eprintln!("skipped: `promtool` is not installed (package prometheus)");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let tested = run(&["test", "rules", "alerts.test.yml"]).unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[test]
fn systemd_finds_the_units_hardened() {
    for unit in ["tokenflow-hint-server.service", "tokenflow-engine.service"] {
        let file = deploy("systemd").join(unit);
        // Versions before 250 cannot judge a file.
        let judged =
            Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&file).output();
        let Some(judged) = judged.ok().filter(|output| !String::from_utf8_lossy(&output.stderr).contains("unrecognized option")) else {
            eprintln!("skipped: `systemd-analyze` is missing or cannot judge files (package systemd)");
            return;
        };
        let said = String::from_utf8_lossy(&judged.stdout);
        assert!(said.contains("Overall exposure level"), "{said}{}", String::from_utf8_lossy(&judged.stderr));
        assert!(judged.status.success(), "{unit} is more exposed than 2.0: {}", said.lines().last().unwrap_or_default());
    }
}
