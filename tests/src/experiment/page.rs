//! The Markdown page of an experiment: what was asked, the table, the plots, the aims and how to repeat it.

use std::fmt::Write;

use super::{
    Measure, Mode, Wanted,
    summary::{AimResult, Summary, Value},
};

/// Rows of the table and panels of the plot: measure and title.
pub const ROWS: &[(Measure, &str)] = &[
    (Measure::AchievedOverBound, "Effective throughput / bound"),
    (Measure::EffectiveTokensPerS, "Effective throughput, tokens/s"),
    (Measure::HealthyTokensPerS, "A healthy stream, tokens/s"),
    (Measure::HealthyItlP50Ms, "Healthy streams, ITL p50 (ms)"),
    (Measure::HealthyItlP99Ms, "Healthy streams, ITL p99 (ms)"),
    (Measure::TtftP99Ms, "TTFT p99 (ms)"),
    (Measure::QueuedBytesP99, "Queued bytes p99, of one stream's socket"),
    (Measure::HeldBytesP99, "Held bytes p99, of all streams"),
    (Measure::BottleneckRttP99Ms, "Bottleneck RTT p99 (ms)"),
    (Measure::Jain, "Jain's fairness among equals"),
    (Measure::HealthMin, "Least health of a healthy stream"),
    (Measure::Overshoot, "Overshoot after a link opens"),
    (Measure::ConvergenceS, "Re-convergence (s)"),
];

/// The page beside `summary.json`.
pub fn page(summary: &Summary, modes: &[String]) -> String {
    let mut page = format!("# Experiment `{}`\n\n{}\n", summary.scenario, summary.about);
    let machine = &summary.machine;
    let commit = summary.commit.as_deref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    line(
        &mut page,
        format_args!(
            "{}, {} ({} cores, Linux {}){commit}. Medians of the runs; the runs themselves and all figures are in [summary.json](summary.json), \
         each run over time in `series/`. One run is measured for {} s.",
            summary.date, machine.cpu, machine.cores, machine.kernel, summary.window_s
        ),
    );
    aims(&mut page, &summary.aims);
    for (congestion_control, series) in &summary.congestion_control {
        line(&mut page, format_args!("\n## {congestion_control}\n"));
        if let Some(bound) = series.bound_tokens_per_s {
            line(&mut page, format_args!("Bound: {bound:.0} tokens/s.\n"));
        }
        line(&mut page, format_args!("| | {} |", modes.iter().map(|mode| format!("`{mode}`")).collect::<Vec<_>>().join(" | ")));
        line(&mut page, format_args!("|---|{}", "---|".repeat(modes.len())));
        for (measure, title) in ROWS {
            let value = |mode: &String| series.modes.get(mode).and_then(|result| result.measures.get(measure));
            if modes.iter().any(|mode| value(mode).is_some()) {
                let cells: Vec<String> = modes.iter().map(|mode| value(mode).map_or("–".to_owned(), cell)).collect();
                line(&mut page, format_args!("| {title} | {} |", cells.join(" | ")));
            }
        }
        line(&mut page, format_args!("\n![Rate and health over time, {congestion_control}](plots/time-{congestion_control}.svg)"));
    }
    line(&mut page, format_args!("\n## All runs\n\n![Each measure, each mode](plots/modes.svg)"));
    repeat(&mut page, summary);
    page
}

/// A page for several experiments: the aims of all.
pub fn index(summaries: &[Summary]) -> String {
    let mut page = "# Experiments\n\n".to_owned();
    for summary in summaries {
        line(&mut page, format_args!("- [{0}]({0}/README.md): {1}", summary.scenario, summary.about));
    }
    line(&mut page, format_args!("\n| experiment | aim | congestion control | value | wanted | |\n|---|---|---|---|---|---|"));
    for summary in summaries {
        for aim in &summary.aims {
            let (value, wanted, met) = aim_cells(aim);
            line(
                &mut page,
                format_args!("| {} | {} | {} | {value} | {wanted} | {met} |", summary.scenario, aim.text, aim.congestion_control),
            );
        }
    }
    page
}

fn aims(page: &mut String, aims: &[AimResult]) {
    if aims.is_empty() {
        return;
    }
    line(page, format_args!("\n## Aims\n\n| aim | congestion control | value | wanted | |\n|---|---|---|---|---|"));
    for aim in aims {
        let (value, wanted, met) = aim_cells(aim);
        line(page, format_args!("| {} | {} | {value} | {wanted} | {met} |", aim.text, aim.congestion_control));
    }
}

fn aim_cells(aim: &AimResult) -> (String, String, &'static str) {
    let against = |mode: Option<Mode>| mode.map(|mode| format!(" x `{}`", mode.name())).unwrap_or_default();
    let wanted = match aim.wanted {
        Wanted::AtLeast(least) => format!("at least {least}"),
        Wanted::AtMost(most) => format!("at most {most}"),
    };
    (
        aim.value.map_or("–".to_owned(), |value| format!("{}{}", number(value), against(aim.relative_to))),
        wanted,
        if aim.met { "met" } else { "**missed**" },
    )
}

fn repeat(page: &mut String, summary: &Summary) {
    let throughput: Vec<String> = summary.calibration.throughput.iter().map(|(streams, rate)| format!("{streams}: {rate:.0}")).collect();
    line(
        page,
        format_args!(
            "\n## How to repeat it\n\n```sh\n{}\n```\n\nNeeds root and Linux 5.8 or newer. Engine: the demo model on one thread with feed-forward layers eight times as wide, tokens in events of their own \
         unless `--coalesce` is given, the hint server with its kernel program beside it; fresh servers and connections for each run, modes in turn. \
         Streams on free links got, together, in tokens/s: {}. A token takes {:.0} bytes of TCP payload. How the bound follows from that is said in \
         `tests/src/experiment/bound.rs`.",
            summary.command,
            throughput.join(", "),
            summary.calibration.payload_bytes_per_token
        ),
    );
}

fn cell(value: &Value) -> String {
    let (least, most) = value.runs.iter().fold((f64::INFINITY, 0.0), |(least, most), run| (f64::min(least, *run), f64::max(most, *run)));
    if value.runs.len() < 2 { number(value.median) } else { format!("{} ({} to {})", number(value.median), number(least), number(most)) }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn line(page: &mut String, text: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}
