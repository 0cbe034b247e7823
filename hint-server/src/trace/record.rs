//! Writes what a probe sees, round by round, until told to stop. Addresses are left out unless asked for: a capture may leave the host.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Write},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokenflow_hint_api::Source;
use tokio::signal::unix::{SignalKind, signal};

use super::{Header, Round, TraceLook};
use crate::{
    cli::RecordArgs,
    privileges,
    probe::{Look, Probe, choose},
    publish::source_name,
};

/// Writes rounds to `output`.
pub struct Recorder<W> {
    output: W,
    with_addresses: bool,
    /// Whose addresses were written.
    introduced: HashSet<u64>,
}

impl<W: Write> Recorder<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When the output does not take it.
    pub fn new(mut output: W, note: Option<String>, with_addresses: bool) -> io::Result<Self> {
        write_line(&mut output, &Header::new(note))?;
        Ok(Self { output, with_addresses, introduced: HashSet::new() })
    }

    /// One round of looks taken at `at`; `None` where the probe failed.
    ///
    /// # Errors
    /// When the output does not take it.
    pub fn round(&mut self, at: Duration, source: Source, looks: Option<&[Look]>) -> io::Result<()> {
        let mut round = Round { at_us: at.as_micros() as u64, source, failed: looks.is_none(), looks: Vec::new() };
        for look in looks.unwrap_or_default() {
            let mut line = TraceLook::new(look, source);
            if self.with_addresses && self.introduced.insert(line.cookie) {
                (line.local, line.peer) = (Some(look.identity.local), Some(look.identity.peer));
            }
            round.looks.push(line);
        }
        write_line(&mut self.output, &round)
    }

    /// # Errors
    /// When the output does not take what was held back.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

fn write_line(output: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value)?;
    output.write_all(b"\n")
}

/// `tokenflow-hint-server record`: until `--for` is over or a signal comes.
///
/// # Errors
/// One sentence: a file that cannot be written, a probe that does not work.
pub fn record(args: &RecordArgs) -> anyhow::Result<()> {
    args.probe.validate()?;
    let shown = args.out.display();
    let file = File::create(&args.out).with_context(|| format!("--out {shown}: cannot be written"))?;
    let opened = choose::open(&args.probe)?;
    privileges::drop_all().context("cannot drop privileges")?;
    let mut probe = opened.choose()?.probe;
    let recorder = Recorder::new(BufWriter::new(file), args.note.clone(), args.with_addresses)?;
    // The line that scripts wait for.
    let _ = writeln!(io::stdout(), "recording to {shown} (probe: {})", source_name(probe.source()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = runtime.block_on(look(args, probe.as_mut(), recorder)).with_context(|| format!("--out {shown}"))?;
    let _ = writeln!(io::stdout(), "recorded {rounds} rounds");
    Ok(())
}

async fn look(args: &RecordArgs, probe: &mut dyn Probe, mut recorder: Recorder<impl Write>) -> io::Result<u64> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ticks = tokio::time::interval(Duration::from_millis(args.interval_ms.into()));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (begun, mut looks, mut rounds) = (Instant::now(), Vec::new(), 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        let at = begun.elapsed();
        if args.seconds.is_some_and(|seconds| at.as_secs_f64() >= seconds) {
            break;
        }
        looks.clear();
        match probe.looks(at, &mut looks) {
            Ok(()) => recorder.round(at, probe.source(), Some(&looks))?,
            Err(error) => {
                tracing::warn!("cannot measure: {error}");
                recorder.round(at, probe.source(), None)?;
            }
        }
        rounds += 1;
    }
    recorder.finish()?;
    Ok(rounds)
}
