//! The status line: Rate, its recent history, Health, whether the stream is paced, tokens, seconds. What does not fit is
//! left out, the least important first; what stays keeps its place while the numbers change.

use std::time::Duration;

use super::progress::Progress;
use crate::palette::{Colour, health_bar, health_colour, spark};

/// What a layout shows beside Rate and Health.
#[derive(Clone, Copy)]
struct Layout {
    sparks: usize,
    bar: usize,
    paced: bool,
    tokens: bool,
    seconds: bool,
    labels: bool,
}

/// From the widest down.
const LAYOUTS: [Layout; 8] = [
    Layout { sparks: 24, bar: 10, paced: true, tokens: true, seconds: true, labels: true },
    Layout { sparks: 8, bar: 10, paced: true, tokens: true, seconds: true, labels: true },
    Layout { sparks: 0, bar: 10, paced: true, tokens: true, seconds: true, labels: true },
    Layout { sparks: 0, bar: 10, paced: true, tokens: false, seconds: true, labels: true },
    Layout { sparks: 0, bar: 5, paced: true, tokens: false, seconds: false, labels: true },
    Layout { sparks: 0, bar: 0, paced: true, tokens: false, seconds: false, labels: true },
    Layout { sparks: 0, bar: 0, paced: true, tokens: false, seconds: false, labels: false },
    Layout { sparks: 0, bar: 0, paced: false, tokens: false, seconds: false, labels: false },
];

type Segment = (Option<Colour>, String);

/// The line for a terminal of `width` columns, never wider than that; with SGR colours if `coloured`.
pub fn status_line(now: Duration, progress: &Progress, width: usize, coloured: bool) -> String {
    let segments = if progress.started() {
        let fitting = LAYOUTS.iter().map(|layout| streaming(now, progress, *layout)).find(|segments| columns(segments) <= width);
        fitting.unwrap_or_else(|| vec![(None, format!("{:.0}/s", progress.rate(now).unwrap_or(0.0)))])
    } else {
        vec![(Some(Colour::Dim), format!("waiting for the first token  {:.1} s", now.as_secs_f64()))]
    };
    paint(&segments, width, coloured)
}

fn streaming(now: Duration, progress: &Progress, layout: Layout) -> Vec<Segment> {
    let health = progress.health();
    let colour = health.map(health_colour);
    let mut segments = Vec::new();
    let label = |name: &str| if layout.labels { format!("{name} ") } else { String::new() };
    segments.push((None, format!("{}{} tok/s", label("Rate"), rate(progress.rate(now)))));
    if layout.sparks > 0 {
        segments.push((None, sparkline(progress, layout.sparks)));
    }
    let mut shown = format!("{}{}", label("Health"), health.map_or("-   ".to_owned(), |health| format!("{health:.2}")));
    if let Some(health) = health
        && layout.bar > 0
    {
        shown.push(' ');
        shown.push_str(&health_bar(health, layout.bar));
    }
    segments.push((colour, shown));
    if let Some(paced) = progress.paced()
        && layout.paced
    {
        segments.push((Some(Colour::Yellow), if paced { "paced" } else { "     " }.to_owned()));
    }
    if layout.tokens {
        segments.push((None, format!("tokens {}", progress.tokens())));
    }
    if layout.seconds {
        segments.push((None, format!("{:.1} s", now.as_secs_f64())));
    }
    segments
}

/// Five columns up to 99,999 tokens/s.
fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "    -".to_owned(),
        Some(rate) if rate < 999.95 => format!("{rate:>5.1}"),
        Some(rate) => format!("{rate:>5.0}"),
    }
}

/// The newest `width` samples, as shares of the largest in the whole history; left-padded while there are fewer.
fn sparkline(progress: &Progress, width: usize) -> String {
    let top = progress.history().fold(f64::MIN_POSITIVE, f64::max);
    let newest = progress.history().skip(progress.history().len().saturating_sub(width));
    let sparks: String = newest.map(|rate| spark(rate / top)).collect();
    format!("{sparks:>width$}")
}

// Every character of a status line is one column wide.
fn columns(segments: &[Segment]) -> usize {
    let text: usize = segments.iter().map(|(_, text)| text.chars().count()).sum();
    text + 2 * segments.len().saturating_sub(1)
}

fn paint(segments: &[Segment], width: usize, coloured: bool) -> String {
    let mut line = String::new();
    let mut left = width;
    for (index, (colour, text)) in segments.iter().enumerate() {
        let text: String = if index > 0 { format!("  {text}") } else { text.clone() }.chars().take(left).collect();
        left -= text.chars().count();
        match colour.filter(|_| coloured) {
            Some(colour) => line.push_str(&colour.paint(&text)),
            None => line.push_str(&text),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::stream::Chunk;
    use super::super::wire::Link;
    use super::*;

    fn progress(health: Option<f64>, paced: Option<bool>) -> (Progress, Duration) {
        let mut progress = Progress::default();
        let mut now = Duration::ZERO;
        for i in 0..123u32 {
            // Speeds up, then settles.
            now += Duration::from_millis(u64::from(100u32.saturating_sub(2 * i).max(20)));
            let link = Some(Link { health, rate: None, paced });
            progress.record(now, &Chunk { text: "x".into(), link, ..Chunk::default() });
            progress.sample(now);
        }
        (progress, now)
    }

    #[test]
    fn lines_for_every_width() {
        let (progress, now) = progress(Some(0.83), Some(true));
        let lines: Vec<String> = [120, 100, 80, 79, 60, 50, 40, 39, 30, 20, 10, 4, 0]
            .map(|width| format!("{width:>3} |{}|", status_line(now, &progress, width, false)))
            .to_vec();
        insta::assert_snapshot!(lines.join("\n"), @r"
    120 |Rate  50.0 tok/s           ▂▂▃▃▃▃▃▄▄▅▇████  Health 0.83 ████████░░  paced  tokens 123  4.1 s|
    100 |Rate  50.0 tok/s           ▂▂▃▃▃▃▃▄▄▅▇████  Health 0.83 ████████░░  paced  tokens 123  4.1 s|
     80 |Rate  50.0 tok/s  ▄▄▅▇████  Health 0.83 ████████░░  paced  tokens 123  4.1 s|
     79 |Rate  50.0 tok/s  ▄▄▅▇████  Health 0.83 ████████░░  paced  tokens 123  4.1 s|
     60 |Rate  50.0 tok/s  Health 0.83 ████████░░  paced  4.1 s|
     50 |Rate  50.0 tok/s  Health 0.83 ████░  paced|
     40 |Rate  50.0 tok/s  Health 0.83  paced|
     39 |Rate  50.0 tok/s  Health 0.83  paced|
     30 | 50.0 tok/s  0.83  paced|
     20 | 50.0 tok/s  0.83|
     10 |50/s|
      4 |50/s|
      0 ||
    ");
    }

    #[test]
    fn no_line_is_wider_than_its_terminal_and_forty_columns_still_show_both_numbers() {
        for health in [None, Some(0.0), Some(0.333), Some(1.0)] {
            for paced in [None, Some(false), Some(true)] {
                let (progress, now) = progress(health, paced);
                for width in 0..140 {
                    let line = status_line(now, &progress, width, false);
                    assert!(line.chars().count() <= width, "{width}: {line}");
                    if width >= 40 {
                        assert!(line.contains("Rate  50.0 tok/s") && line.contains("Health"), "{width}: {line}");
                    }
                }
            }
        }
    }

    #[test]
    fn colour_follows_health_and_only_when_wanted() {
        for (health, code) in [(0.9, "\x1b[32m"), (0.6, "\x1b[33m"), (0.2, "\x1b[31m")] {
            let (progress, now) = progress(Some(health), None);
            assert!(status_line(now, &progress, 80, true).contains(code));
            assert!(!status_line(now, &progress, 80, false).contains('\x1b'));
        }
    }

    #[test]
    fn a_rate_that_fell_looks_low_for_longer_than_the_line_reaches_back() {
        let (mut progress, mut now) = progress(Some(0.2), Some(true));
        for _ in 0..40 {
            now += Duration::from_millis(250);
            progress.record(now, &Chunk { text: "x".into(), ..Chunk::default() });
            progress.sample(now);
        }
        let line = status_line(now, &progress, 80, false);
        assert!(line.contains("▂▂▂▂▂▂▂▂"), "{line}");
    }

    #[test]
    fn waiting_is_said() {
        let line = status_line(Duration::from_millis(1234), &Progress::default(), 80, false);
        assert_eq!(line, "waiting for the first token  1.2 s");
        assert_eq!(status_line(Duration::ZERO, &Progress::default(), 7, false), "waiting");
    }
}
