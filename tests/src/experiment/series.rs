//! A run as a time series: a file of JSON lines, and the curves of the plots.
//!
//! The first line says what the columns are: `{"streams": [{"group", "link"}, ...], "window_s"}`. Each further line is a tenth of a second:
//! `{"t", "tokens": [...], "health": [...], "undelivered_bytes": [...]}`, an element for each stream, `null` where it had no connection.

use serde_json::json;

use super::{Record, Scenario, plot::Curve};

/// Seconds of a line.
const STEP: f64 = 0.1;

/// Seconds over which a plotted rate is averaged.
const PLOT_STEP: f64 = 0.25;

/// The file's text.
pub fn json_lines(scenario: &Scenario, record: &Record) -> String {
    let window = scenario.window.as_secs_f64();
    let streams: Vec<_> = record.seats.iter().map(|seat| json!({"group": scenario.groups[seat.group].name, "link": seat.link})).collect();
    let mut text = json!({"streams": streams, "window_s": window}).to_string() + "\n";
    let lines = (window / STEP).round() as usize;
    let mut tokens = vec![vec![0u64; record.seats.len()]; lines];
    for (seat, chunks) in record.seats.iter().enumerate() {
        for chunk in chunks.chunks().filter(|chunk| chunk.at >= 0.0) {
            if let Some(line) = tokens.get_mut((chunk.at / STEP) as usize) {
                line[seat] += u64::from(chunk.tokens);
            }
        }
    }
    for (line, tokens) in tokens.iter().enumerate() {
        let (from, to) = (line as f64 * STEP, (line + 1) as f64 * STEP);
        let sample = record.samples.iter().rfind(|sample| sample.at >= from && sample.at < to);
        let row = json!({
            "t": (from * 1000.0).round() / 1000.0,
            "tokens": tokens,
            "health": sample.map(|sample| &sample.health),
            "undelivered_bytes": sample.map(|sample| &sample.undelivered_bytes),
        });
        text += &(row.to_string() + "\n");
    }
    text
}

/// Each group's mean rate of a stream, and mean health, over the window.
pub fn curves(scenario: &Scenario, record: &Record) -> Vec<Curve> {
    let window = scenario.window.as_secs_f64();
    let group = |(number, spec): (usize, &super::GroupSpec)| {
        let seats: Vec<usize> = (0..record.seats.len()).filter(|seat| record.seats[*seat].group == number).collect();
        let bins = (window / PLOT_STEP).ceil() as usize;
        let mut rate = vec![0.0; bins];
        for chunk in seats.iter().flat_map(|seat| record.seats[*seat].chunks()).filter(|chunk| (0.0..window).contains(&chunk.at)) {
            if let Some(bin) = rate.get_mut((chunk.at / PLOT_STEP) as usize) {
                *bin += f64::from(chunk.tokens) / PLOT_STEP / seats.len() as f64;
            }
        }
        let health = record.samples.iter().filter_map(|sample| {
            let known: Vec<f64> = seats.iter().filter_map(|seat| sample.health.get(*seat).copied().flatten()).collect();
            (!known.is_empty()).then(|| (sample.at, known.iter().sum::<f64>() / known.len() as f64))
        });
        let streams = if seats.len() == 1 { "1 stream".to_owned() } else { format!("{} streams", seats.len()) };
        Curve {
            label: format!("{}: {streams}", spec.name),
            rate: rate.iter().enumerate().map(|(bin, rate)| ((bin as f64 + 0.5) * PLOT_STEP, *rate)).collect(),
            health: health.collect(),
        }
    };
    scenario.groups.iter().enumerate().map(group).collect()
}
