//! `tokenflow-hint-server replay`: a table for people, JSON for scripts, every score to a file.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
};

use anyhow::Context;

use super::{Replay, TraceError, TraceReader, replay};
use crate::cli::ReplayArgs;

/// # Errors
/// One sentence: a file that cannot be read or written, a line that is not understood.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let shown = args.file.display().to_string();
    let file = File::open(&args.file).with_context(|| format!("cannot open {shown}"))?;
    let trace = TraceReader::new(BufReader::new(file)).with_context(|| format!("cannot read {shown}"))?;
    let note = trace.header().note.clone();
    let mut out = match &args.out {
        None => None,
        Some(path) => Some(BufWriter::new(File::create(path).with_context(|| format!("--out {}: cannot be written", path.display()))?)),
    };
    let result = replay(trace, args.bytes_per_token.into(), |score| -> Result<(), Failure> {
        let Some(out) = &mut out else { return Ok(()) };
        serde_json::to_writer(&mut *out, score).map_err(io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    });
    let result = match result {
        Ok(result) => result,
        Err(Failure::Trace(error)) => return Err(error).with_context(|| format!("cannot read {shown}")),
        Err(Failure::Out(error)) => return Err(error).context("--out cannot be written"),
    };
    if let Some(mut out) = out {
        out.flush().context("--out cannot be written")?;
    }
    let text = if args.json { serde_json::to_string(&result)? + "\n" } else { table(&result, note.as_deref()) };
    // Nobody reading it is no reason to fail.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

enum Failure {
    Trace(TraceError),
    Out(io::Error),
}

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Self {
        Self::Trace(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Out(error)
    }
}

fn table(result: &Replay, note: Option<&str>) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    if let Some(note) = note {
        let _ = writeln!(text, "{}", note.replace(|c: char| c.is_control(), " "));
    }
    let _ = writeln!(
        text,
        "{} connections, {} rounds ({} failed), {:.1} s; the aggregate's least health {:.3}\n",
        result.connections.len(),
        result.rounds,
        result.failed,
        result.duration_ms as f64 / 1e3,
        result.least_aggregate,
    );
    let _ = writeln!(text, "{:>20} {:>6} {:>15} {:>23} {:>23} {:>8}", "", "", "time (s)", "health", "least", "looks");
    let _ = writeln!(
        text,
        "{:>20} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "cookie", "looks", "first", "last", "least", "mean", "last", "delay", "loss", "queue", "limited"
    );
    for c in &result.connections {
        let seconds = |ms: u64| ms as f64 / 1e3;
        let _ = writeln!(
            text,
            "{:>20} {:>6} {:>7.1} {:>7.1} {:>7.3} {:>7.3} {:>7.3} {:>7.3} {:>7.3} {:>7.3} {:>8}",
            c.cookie,
            c.looks,
            seconds(c.first_ms),
            seconds(c.last_ms),
            c.least_health,
            c.mean_health,
            c.last_health,
            c.least_terms.delay,
            c.least_terms.loss,
            c.least_terms.queue,
            c.network_limited,
        );
    }
    text
}
