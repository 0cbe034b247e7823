//! The README says what is true: every flag that it gives a program is one that the program has, and every file that it names is there.

use std::{path::Path, process::Command};

use tokenflow_tests::daemon;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn help(program: &str, subcommand: &str) -> String {
    let mut command = Command::new(daemon::binary(program).unwrap());
    let output = command.args(subcommand.split_whitespace()).arg("--help").output().unwrap();
    assert!(output.status.success(), "{program} {subcommand} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of a Markdown line that look like long flags.
fn flags(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| word.starts_with("--") && word.len() > 2)
}

#[test]
fn programs_have_the_flags_that_the_readme_gives_them() {
    let programs: [(&str, &[&str]); 3] =
        [("tokenflow-engine", &["serve"]), ("tokenflow-hint-server", &[""]), ("tokenflow-client", &["chat", "watch"])];
    let text = readme();
    for (program, subcommands) in programs {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{program}"))).unwrap_or_else(|| panic!("no row for {program}"));
        let known: String = subcommands.iter().map(|subcommand| help(program, subcommand)).collect();
        let named: Vec<_> = flags(row).collect();
        assert!(!named.is_empty(), "{row}");
        for flag in named {
            assert!(known.contains(flag), "{program} has no {flag}");
        }
    }
}

#[test]
fn links_lead_to_files() {
    let text = readme();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|target| !target.starts_with("http"));
    let targets: Vec<_> = targets.collect();
    assert!(targets.len() >= 3, "{targets:?}");
    for target in targets {
        assert!(root().join(target).exists(), "{target}");
    }
}
