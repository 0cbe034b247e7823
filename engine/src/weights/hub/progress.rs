//! How far a download is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between lines of the log.
const INTERVAL: Duration = Duration::from_secs(10);

pub(super) enum Progress {
    Bar(ProgressBar),
    Lines { file: String, size: u64, next: Instant },
}

impl Progress {
    pub(super) fn new(file: &str, size: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            tracing::info!(file, mib = size >> 20, "downloading");
            return Self::Lines { file: file.into(), size, next: Instant::now() + INTERVAL };
        }
        let bar = ProgressBar::new(size);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(file.to_owned());
        Self::Bar(bar)
    }

    pub(super) fn at(&mut self, bytes: u64) {
        match self {
            Self::Bar(bar) => bar.set_position(bytes),
            Self::Lines { file, size, next } if Instant::now() >= *next => {
                *next = Instant::now() + INTERVAL;
                tracing::info!(file, mib = bytes >> 20, of_mib = *size >> 20, "downloading");
            }
            Self::Lines { .. } => {}
        }
    }

    pub(super) fn finish(self) {
        match self {
            Self::Bar(bar) => bar.finish(),
            Self::Lines { file, .. } => tracing::info!(file, "downloaded"),
        }
    }
}
