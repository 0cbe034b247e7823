//! How far something long is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between lines of the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// Bytes that were done of some number.
pub(crate) struct Progress {
    shown: Shown,
    began: Instant,
}

enum Shown {
    Bar(ProgressBar),
    Lines { doing: &'static str, what: String, size: u64, done: u64, line: (Instant, u64) },
}

impl Progress {
    /// `doing` is one word, such as "downloading", and `what` a name.
    pub(crate) fn new(doing: &'static str, what: &str, size: u64) -> Self {
        let began = Instant::now();
        if !std::io::stderr().is_terminal() {
            tracing::info!(what, mib = size >> 20, "{doing}");
            return Self { shown: Shown::Lines { doing, what: what.into(), size, done: 0, line: (began, 0) }, began };
        }
        let bar = ProgressBar::new(size);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { shown: Shown::Bar(bar), began }
    }

    /// So many bytes are done.
    pub(crate) fn at(&mut self, bytes: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(bytes),
            Shown::Lines { doing, what, size, done, line: (last, then) } => {
                *done = bytes;
                let elapsed = last.elapsed();
                if elapsed >= INTERVAL {
                    let rate = bytes.saturating_sub(*then) as f64 / f64::from(1 << 20) / elapsed.as_secs_f64();
                    tracing::info!(what, mib = bytes >> 20, of_mib = *size >> 20, mib_per_s = rate as u64, "{doing}");
                    (*last, *then) = (Instant::now(), bytes);
                }
            }
        }
    }

    pub(crate) fn finish(self) {
        match &self.shown {
            Shown::Bar(bar) => bar.finish(),
            Shown::Lines { doing, what, done, .. } => {
                tracing::info!(what, mib = done >> 20, seconds = self.began.elapsed().as_secs_f64(), "done {doing}");
            }
        }
    }
}
