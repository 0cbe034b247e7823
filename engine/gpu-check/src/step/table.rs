//! Tables of operations, with the least time that a card takes for each beside what was measured.

use super::{Load, Operation, Rates, Shape, operations};

/// Steps that the page shows.
fn loads() -> [Load; 3] {
    [Load::decode(1, 1024), Load::decode(256, 1024), Load::prefill(2048)]
}

/// The tables of `STEP.md`: an H200's floors for Llama-3.1-8B. `measured` seconds of one operation go into the last column.
pub fn page_tables() -> String {
    let shape = Shape::LLAMA_8B;
    loads().map(|load| floors(&shape, &load, Rates::H200, |_| None)).join("\n")
}

/// One step's operations as a Markdown table. `measured` gives seconds of one of an operation, where they are known.
pub fn floors(shape: &Shape, load: &Load, rates: Rates, measured: impl Fn(&Operation) -> Option<f64>) -> String {
    let all = operations(shape, load);
    let mut text = format!("**{}, {}**\n\n", shape.name, load.name());
    text += "| operation | kernels | times | MB | MFLOP | floor, µs | all of a step, µs | measured, µs | of the floor |\n";
    text += "|---|---|--:|--:|--:|--:|--:|--:|--:|\n";
    let (mut floor_total, mut measured_total) = (0.0, Some(0.0));
    let (mut bytes, mut flops) = (0, 0);
    for operation in &all {
        let floor = rates.seconds(operation.bytes, operation.flops);
        let seconds = measured(operation);
        let times = operation.times as f64;
        floor_total += times * floor;
        measured_total = measured_total.zip(seconds).map(|(total, seconds)| total + times * seconds);
        bytes += operation.times as u64 * operation.bytes;
        flops += operation.times as u64 * operation.flops;
        text += &format!(
            "| {} | `{}` | {} | {} | {} | {} | {} | {} |\n",
            operation.kind.name(),
            operation.kind.kernels(load).replace(" or ", "` or `"),
            operation.times,
            rounded(operation.bytes as f64 / 1e6),
            rounded(operation.flops as f64 / 1e6),
            rounded(floor * 1e6),
            rounded(times * floor * 1e6),
            beside(seconds, floor),
        );
    }
    text += &format!(
        "| **all** | | | {} | {} | | {} | {} |\n",
        rounded(bytes as f64 / 1e6),
        rounded(flops as f64 / 1e6),
        rounded(floor_total * 1e6),
        beside(measured_total, floor_total),
    );
    let rows = load.rows() as f64;
    text += &format!("\nAt the floor that is a step in {} ms, {} tokens/s.\n", rounded(floor_total * 1e3), rounded(rows / floor_total));
    text
}

/// What was measured, and how much of it the floor is.
fn beside(seconds: Option<f64>, floor: f64) -> String {
    match seconds {
        Some(seconds) => format!("{} | {:.0} %", rounded(seconds * 1e6), 100.0 * floor / seconds),
        None => "not yet run on a card | ".to_owned(),
    }
}

/// Three digits, or all before the point.
fn rounded(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch-1 token at the floor is what CUDA's bandwidth allows: about 300 tokens/s of an 8B model.
    #[test]
    fn floors_are_what_bandwidth_and_arithmetic_allow() {
        let seconds = |load| -> f64 {
            let all = operations(&Shape::LLAMA_8B, &load);
            all.iter().map(|o| o.times as f64 * Rates::H200.seconds(o.bytes, o.flops)).sum()
        };
        let decode = 1.0 / seconds(Load::decode(1, 1024));
        assert!((280.0..320.0).contains(&decode), "{decode} tokens/s");
        let prefill = 2048.0 / seconds(Load::prefill(2048));
        assert!((45_000.0..66_000.0).contains(&prefill), "{prefill} tokens/s");
    }

    #[test]
    fn a_table_has_every_operation_and_what_was_measured() {
        let load = Load::decode(1, 64);
        let table = floors(&Shape::TINY, &load, Rates::H200, |_| Some(1e-5));
        let rows = table.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(rows, 1 + operations(&Shape::TINY, &load).len() + 1);
        assert!(table.contains("| 10.0 |"), "{table}");
        assert!(!table.contains("not yet run"));
    }
}
