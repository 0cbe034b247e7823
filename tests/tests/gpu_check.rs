//! The kit that checks a GPU on a machine without Rust or network, rehearsed: its own script, in a folder of its own, on the emulated card with
//! tiny sizes.

use std::{path::Path, process::Command};

use serde_json::Value;
use tokenflow_gpu_emulator::{Options, library_folder};
use tokenflow_tests::{daemon, kit};

fn run(script: &Path, libraries: Option<&Path>, out: &Path, arguments: &[&str]) -> (bool, Value, String) {
    let mut command = Command::new(script);
    command.args(arguments).env("OUT", out).env("TOKENFLOW_CUDA_PATH", "");
    match libraries {
        Some(folder) => command.env("LD_LIBRARY_PATH", folder),
        None => command.env_remove("LD_LIBRARY_PATH"),
    };
    let output = command.output().unwrap();
    let log = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(out.join("gpu-check.json")).unwrap_or_else(|error| panic!("{error}: {log}"));
    (output.status.success(), serde_json::from_slice(&report).unwrap(), log)
}

fn section<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["sections"].as_array().unwrap().iter().find(|section| section["name"] == name).unwrap()
}

/// Names of what a section measured.
fn measured(report: &Value, name: &str) -> Vec<String> {
    let findings = section(report, name)["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["kind"] == "measurement").map(|finding| finding["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_kits_script_makes_a_complete_report() {
    let folder = tempfile::tempdir().unwrap();
    let binary = daemon::binary("tokenflow-gpu-check").unwrap();
    let kit = kit::assemble(binary.parent().unwrap(), folder.path()).unwrap();
    println!("{:.1} MB, glibc {}", kit.bytes as f64 / 1e6, kit.glibc);

    // Without a card it says what was looked for, in a report too. A machine that has one is left alone.
    let none = folder.path().join("none");
    let (passed, report, _) = run(&kit.script, None, &none, &["--device", "cuda:99", "--minutes", "1"]);
    assert!(!passed && report["complete"] == false, "{report}");
    assert_eq!(section(&report, "device")["status"], "failed");

    let out = folder.path().join("out");
    let libraries = library_folder(&Options::nvidia());
    // One check of kernels: the others have been run on the emulated card elsewhere.
    let (passed, report, log) = run(&kit.script, Some(&libraries), &out, &["--tiny", "--minutes", "10", "--check", "norms f32"]);
    assert!(passed, "{log}");
    assert!(report["complete"] == true && report["rehearsal"] == true, "{report}");
    for name in ["device", "kernels", "speed", "serve"] {
        assert_eq!(section(&report, name)["status"], "passed", "{name}: {report}");
    }
    let speed = measured(&report, "speed");
    for name in ["memory, read and written", "bf16 cache: one stream", "bf16 cache: prompts of 24 tokens"] {
        assert!(speed.iter().any(|n| n == name), "{name} is not among {speed:?}");
    }
    let serve = measured(&report, "serve");
    assert!(serve.iter().any(|name| name == "output over HTTP") && serve.iter().any(|name| name.starts_with("second start")), "{serve:?}");
    let page = std::fs::read_to_string(out.join("gpu-check.md")).unwrap();
    assert!(page.contains("everything passed") && page.contains("tiny Llama, prefill of 24 tokens"), "{page}");

    // Whole models, one of an ordinary kind.
    let parity = folder.path().join("parity");
    let arguments = ["--tiny", "--minutes", "10", "--only", "parity", "--check", "yarn"];
    let (passed, report, log) = run(&kit.script, Some(&libraries), &parity, &arguments);
    assert!(passed, "{log}");
    assert_eq!(section(&report, "parity")["findings"].as_array().unwrap().len(), 2, "{report}");
}
