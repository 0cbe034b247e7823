//! Runs the sections one after the other and keeps the report.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokenflow_tests::daemon::end_with_parent;

use super::SectionName;
use crate::{
    report::{Finding, JSON, MARKDOWN, Report, Status},
    scratch,
};

/// What is to be run, and where the report goes.
pub struct Run {
    pub device: String,
    pub out: PathBuf,
    pub sections: Vec<SectionName>,
    pub time: Duration,
    pub tiny: bool,
    /// Only checks with this in their names.
    pub check: Option<String>,
    /// A folder of kernels to check instead of those inside.
    pub sources: Option<PathBuf>,
}

/// Runs all sections; true where nothing failed.
///
/// # Errors
/// When the report cannot be written.
pub fn run(run: &Run) -> anyhow::Result<bool> {
    std::fs::create_dir_all(&run.out).with_context(|| format!("{} cannot be made", run.out.display()))?;
    let names: Vec<&str> = run.sections.iter().map(|section| section.name()).collect();
    let mut report = Report::new(&names, run.tiny);
    report.write(&run.out)?;
    let scratch = scratch::folder()?;
    let began = Instant::now();
    let all_shares: f64 = run.sections.iter().map(|section| section.share()).sum();
    let mut shares = 0.0;
    for (i, section) in run.sections.iter().enumerate() {
        shares += section.share();
        let deadline = began + run.time.mul_f64(shares / all_shares);
        report.sections[i].status = Status::Running;
        section_process(run, *section, scratch.path(), deadline, &mut report, i)?;
        report.seconds = began.elapsed().as_secs_f64();
        report.write(&run.out)?;
        // Without a card there is nothing to check.
        if *section == SectionName::Device && report.sections[i].status != Status::Passed {
            break;
        }
    }
    report.complete = report.sections.iter().all(|section| section.status != Status::Waiting);
    report.write(&run.out)?;
    println!("{}", run.out.join(MARKDOWN).display());
    println!("{}", run.out.join(JSON).display());
    Ok(report.passed() && report.complete)
}

/// Runs one section and puts what it finds into the report.
fn section_process(
    run: &Run,
    section: SectionName,
    scratch: &Path,
    deadline: Instant,
    report: &mut Report,
    index: usize,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let limit = deadline.saturating_duration_since(began);
    eprintln!("== {} (at most {:.0} s)", section.name(), limit.as_secs_f64());
    let ended = match start(run, section, scratch, limit) {
        Ok((mut child, lines)) => {
            let mut last_written = Instant::now();
            let ended = loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => {
                        take(&line, &mut report.sections[index].findings);
                        if last_written.elapsed() > Duration::from_secs(1) {
                            report.sections[index].seconds = began.elapsed().as_secs_f64();
                            report.write(&run.out)?;
                            last_written = Instant::now();
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break None,
                    Err(RecvTimeoutError::Disconnected) => break wait_until(&mut child.process, deadline),
                }
            };
            if ended.is_none() {
                end(&mut child.process);
            }
            Ok((ended, child.last_words()))
        }
        Err(error) => Err(error),
    };
    let section = &mut report.sections[index];
    section.seconds = began.elapsed().as_secs_f64();
    (section.status, section.reason) = verdict(ended, &section.findings, limit);
    if let Some(reason) = &section.reason {
        eprintln!("   {}: {reason}", section.name);
    }
    Ok(())
}

/// `ended` is how the process ended, if in time, and what it said last.
fn verdict(ended: anyhow::Result<(Option<ExitStatus>, String)>, findings: &[Finding], limit: Duration) -> (Status, Option<String>) {
    let failures = findings.iter().filter(|finding| finding.failed()).count();
    let (ended, last_words) = match ended {
        Ok(ended) => ended,
        Err(error) => return (Status::Failed, Some(format!("{error:#}"))),
    };
    match ended {
        None => (Status::TimedOut, Some(format!("it was ended after {:.0} s; it had said: {last_words}", limit.as_secs_f64()))),
        Some(status) if status.success() && failures == 0 => match findings {
            [] => (Status::Skipped, Some("there was nothing to do".to_owned())),
            _ => (Status::Passed, None),
        },
        Some(status) if status.code().is_some() && failures > 0 => (Status::Failed, Some(format!("{failures} failed"))),
        Some(status) => {
            let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
            (Status::Failed, Some(format!("its process ended with {how}; it had said: {last_words}")))
        }
    }
}

/// A section's process.
struct SectionProcess {
    process: Child,
    stderr: JoinHandle<String>,
}

impl SectionProcess {
    /// What it said last, once it has ended.
    fn last_words(self) -> String {
        self.stderr.join().unwrap_or_default()
    }
}

fn start(run: &Run, section: SectionName, scratch: &Path, limit: Duration) -> anyhow::Result<(SectionProcess, mpsc::Receiver<String>)> {
    ensure!(!limit.is_zero(), "no time is left");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("section").arg(section.name()).args(["--device", &run.device]);
    command.args(["--seconds", &limit.as_secs_f64().to_string()]).arg("--scratch").arg(scratch);
    if run.tiny {
        command.arg("--tiny");
    }
    if let Some(check) = &run.check {
        command.args(["--check", check]);
    }
    if let Some(sources) = &run.sources {
        command.arg("--sources").arg(sources);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    end_with_parent(&mut command);
    let mut process = command.spawn().context("the section's process cannot be started")?;
    let stdout = process.stdout.take().context("stdout is piped")?;
    let stderr = process.stderr.take().context("stderr is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let stderr = thread::spawn(move || {
        BufReader::new(stderr).lines().map_while(Result::ok).fold(String::new(), |last, line| {
            eprintln!("{line}");
            if line.trim().is_empty() { last } else { line.trim().to_owned() }
        })
    });
    Ok((SectionProcess { process, stderr }, lines))
}

fn take(line: &str, findings: &mut Vec<Finding>) {
    match serde_json::from_str(line) {
        Ok(finding) => findings.push(finding),
        // A library's chatter.
        Err(_) => eprintln!("   {line}"),
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

/// Ends the process and what it has started in its group.
fn end(child: &mut Child) {
    // SAFETY: kill(2) on the group of our own child, which has not been waited for.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
    let _ = child.wait();
}

/// Where a report goes when nobody says.
pub fn default_folder() -> PathBuf {
    std::env::var_os("OUT").filter(|out| !out.is_empty()).map_or_else(|| Path::new("gpu-check-report").into(), PathBuf::from)
}
