//! What lies in `deploy/`: units that systemd finds hardened, alerts and a board that name metrics which exist.

#[path = "common/server.rs"]
mod server;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use server::Server;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn board() -> Value {
    serde_json::from_str(&fs::read_to_string(deploy("grafana/tokenflow.json")).unwrap()).unwrap()
}

/// What Prometheus' own tool says in this folder; `None`, with the reason printed, where it is missing.
fn promtool(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let promtool = std::env::var_os("TOKENFLOW_PROMTOOL").map_or_else(|| PathBuf::from("promtool"), PathBuf::from);
    let output = Command::new(promtool).args(arguments).current_dir(folder).output().ok();
    if output.is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: `promtool` is missing");
        eprintln!("skipped: `promtool` is not installed (package prometheus)");
    }
    output
}

/// Names of metrics in a text of queries, without what histograms add to theirs.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours = words.filter(|word| ["tokenflow_hint_", "tokenflow:", "vllm:", "process_"].iter().any(|prefix| word.starts_with(prefix)));
    ours.map(|name| name.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn alerts_and_board_name_metrics_that_exist() {
    let board = board();
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
    let folder = deploy("prometheus");
    let Some(checked) = promtool(&folder, &["check", "rules", "alerts.yml"]) else { return };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let tested = promtool(&folder, &["test", "rules", "alerts.test.yml"]).unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

/// Names of the variables in a query: `$name` and `${name}`.
fn variables(query: &str) -> impl Iterator<Item = &str> {
    query.split('$').skip(1).map(|rest| {
        let rest = rest.trim_start_matches('{');
        &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())]
    })
}

#[test]
fn the_board_is_one_that_grafana_can_draw() {
    let board = board();
    let mut known = BTreeSet::from(["__rate_interval", "__interval", "__range"]);
    known.extend(board["templating"]["list"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()));
    assert!(board["title"].is_string() && board["uid"].is_string() && board["schemaVersion"].is_u64());

    let (mut ids, mut cells, mut rules) = (BTreeSet::new(), BTreeSet::new(), String::from("groups:\n- name: board\n  rules:\n"));
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().filter(|title| !title.is_empty()).expect("a title");
        assert!(panel["type"].is_string() && ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is wider than the page");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} covers another panel at {cell:?}");
        }
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(references.insert(target["refId"].as_str().unwrap()), "{title}");
            let unknown: Vec<&str> = variables(query).filter(|name| !known.contains(name)).collect();
            assert!(unknown.is_empty(), "{title}: nothing sets {unknown:?}");
            // A string of JSON is one of YAML.
            let filled = known.iter().fold(query.to_owned(), |query, name| {
                let value = if name.starts_with("__") { "1m" } else { "x" };
                query.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
            });
            rules += &format!("  - record: \"board:q{}\"\n    expr: {}\n", rules.lines().count(), Value::String(filled));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("board.yml"), rules).unwrap();
    let Some(checked) = promtool(folder.path(), &["check", "rules", "board.yml"]) else { return };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
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
