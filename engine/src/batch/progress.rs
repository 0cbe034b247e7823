use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use super::Summary;

/// Between two looks of the line.
const INTERVAL: Duration = Duration::from_millis(100);
const BAR_WIDTH: usize = 30;

/// A line on a terminal's stderr; nothing elsewhere.
pub(super) struct Progress {
    lines: usize,
    shown: Option<Duration>,
    on_terminal: bool,
}

impl Progress {
    pub(super) fn new(lines: usize) -> Self {
        Self { lines, shown: None, on_terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, summary: &Summary, elapsed: Duration) {
        let is_last = summary.answered == self.lines;
        if !self.on_terminal || !is_last && self.shown.is_some_and(|shown| elapsed < shown + INTERVAL) {
            return;
        }
        self.shown = Some(elapsed);
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(summary, self.lines, elapsed));
    }

    /// Leaves the last line where it is.
    pub(super) fn end(&self) {
        if self.shown.is_some() {
            eprintln!();
        }
    }
}

fn line(summary: &Summary, lines: usize, elapsed: Duration) -> String {
    let share = summary.answered as f64 / lines.max(1) as f64;
    let full = (share * BAR_WIDTH as f64) as usize;
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let left = Duration::from_secs_f64(seconds * (1.0 - share) / share.max(1e-6));
    format!(
        "{}{} {}/{lines}  {:.0} tok/s  {} s left{}",
        "█".repeat(full),
        "░".repeat(BAR_WIDTH - full),
        summary.answered,
        summary.completion_tokens as f64 / seconds,
        left.as_secs(),
        if summary.failed > 0 { format!("  {} failed", summary.failed) } else { String::new() }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchConfig;

    #[test]
    fn the_line_says_how_far_it_is() {
        let batch = BatchConfig { input: "in".into(), output: "out".into(), concurrency: 1 };
        let mut summary = Summary::new("m", &batch, 10, 0);
        (summary.answered, summary.failed, summary.completion_tokens) = (5, 1, 100);
        let line = line(&summary, 10, Duration::from_secs(2));
        assert!(line.ends_with(" 5/10  50 tok/s  2 s left  1 failed"), "{line}");
        assert_eq!(line.matches('█').count(), BAR_WIDTH / 2);
    }
}
