//! Clients that others wrote, from PyPI, run unchanged against the real server; and a fuzzer that reads the API's own description.

use std::{
    path::Path,
    process::{Command, Output},
};

use tokenflow_tests::{
    daemon::{self, Daemon},
    python,
};

/// With everything on that clients may ask for.
fn engine(flags: &[&str]) -> Daemon {
    daemon::engine(&[&["--hint-url", "none", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"], flags].concat()).unwrap()
}

/// The environment's folder; `None`, said aloud, where there is none.
fn environment() -> Option<std::path::PathBuf> {
    match python::interpreter() {
        Ok(interpreter) => interpreter.parent().map(Path::to_owned),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "in CI the clients must be there: {reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn succeeded(output: &Output, engine: &Daemon) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}\n{}", engine.log());
    eprintln!("{stdout}");
}

fn run(script: &str) {
    run_against(script, || engine(&[]));
}

fn run_against(script: &str, engine: impl FnOnce() -> Daemon) {
    let Some(environment) = environment() else { return };
    let engine = engine();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance").join(script);
    let output = Command::new(environment.join("python")).arg(script).arg(&engine.url).output().unwrap();
    succeeded(&output, &engine);
}

#[test]
fn openais_client_works_unchanged() {
    run("openai_client.py");
}

#[test]
fn openais_client_calls_tools_and_parses_answers() {
    run("openai_tools.py");
}

#[test]
fn anthropics_client_works_unchanged() {
    run("anthropic_client.py");
}

#[test]
fn langchains_client_works_unchanged() {
    run("langchain_client.py");
}

#[test]
fn vectors_come_to_openais_and_langchains_clients() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/fixtures/qwen3");
    for entry in std::fs::read_dir(fixture).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let modules = r#"[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                      {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    std::fs::write(folder.path().join("modules.json"), modules).unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    std::fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode_lasttoken": true}"#).unwrap();
    run_against("embeddings_client.py", || daemon::engine(&["--hint-url", "none", "--model", folder.path().to_str().unwrap()]).unwrap());
}

/// That whatever is sent, what comes back is declared. Whether a value is good is not all in a schema, so refusals are not judged.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method,allow_header_conformance";

#[test]
fn schemathesis_finds_no_fault() {
    let Some(environment) = environment() else { return };
    // Answers without a bound are as long as the context.
    let engine = engine(&["--max-model-len", "256"]);
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(environment.join("schemathesis"))
        .args(["run", &format!("{}/openapi.json", engine.url), "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--no-color"])
        .args(["--generation-deterministic", "--seed", "1", "--max-examples", "20", "--request-timeout", "120", "--continue-on-failure"])
        // Notes of earlier runs would change what is tried.
        .current_dir(folder.path())
        .output()
        .unwrap();
    succeeded(&output, &engine);
}
