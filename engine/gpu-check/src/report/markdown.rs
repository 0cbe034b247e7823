//! The report for people.

use super::{Finding, Outcome, Report, Section, Status};

pub(super) fn page(report: &Report) -> String {
    let mut text = String::from("# GPU check\n\n");
    if report.rehearsal {
        text += "**A rehearsal with tiny sizes: its numbers say nothing of any card's speed.**\n\n";
    }
    let verdict = match (report.complete, report.passed()) {
        (true, true) => "everything passed",
        (true, false) => "something failed",
        (false, true) => "cut short; nothing failed so far",
        (false, false) => "cut short, and something failed",
    };
    text += &format!("Version {}, {:.0} s: {verdict}.\n\n| section | | s | |\n|---|---|--:|---|\n", report.version, report.seconds);
    for section in &report.sections {
        let reason = section.reason.as_deref().unwrap_or_default();
        text += &format!("| {} | {} | {:.1} | {} |\n", section.name, named(&section.status), section.seconds, cell(reason));
    }
    report.sections.iter().filter(|section| !section.findings.is_empty()).for_each(|section| text += &details(section));
    text
}

fn named(status: &Status) -> &'static str {
    match status {
        Status::Waiting => "not run",
        Status::Running => "cut short",
        Status::Passed => "passed",
        Status::Failed => "**failed**",
        Status::TimedOut => "**out of time**",
        Status::Skipped => "skipped",
    }
}

fn details(section: &Section) -> String {
    let mut text = format!("\n## {}\n", section.name);
    let mut heading = "";
    for finding in &section.findings {
        let (title, row) = match finding {
            Finding::Fact { name, value } => ("| | |\n|---|---|\n", format!("| {} | {} |\n", cell(name), cell(value))),
            Finding::Measurement { name, value, unit, bound, detail } => {
                let share = bound.map_or(String::new(), |bound| format!("{} | {:.0} %", number(bound), 100.0 * value / bound));
                let share = if share.is_empty() { " | ".to_owned() } else { share };
                let row =
                    format!("| {} | {} | {unit} | {share} | {} |\n", cell(name), number(*value), cell(detail.as_deref().unwrap_or("")));
                ("| measured | | | bound | of it | |\n|---|--:|---|--:|--:|---|\n", row)
            }
            Finding::Check { name, outcome, error, tolerance, detail, seconds } => {
                let outcome = match outcome {
                    Outcome::Passed => "passed",
                    Outcome::Failed => "**failed**",
                    Outcome::Skipped => "skipped",
                };
                let shown = |value: &Option<f32>| value.map_or(String::new(), |v| format!("{v:.1e}"));
                let detail = cell(detail.as_deref().unwrap_or(""));
                let row = format!("| {} | {outcome} | {} | {} | {seconds:.2} | {detail} |\n", cell(name), shown(error), shown(tolerance));
                ("| check | | greatest error | tolerance | s | |\n|---|---|--:|--:|--:|---|\n", row)
            }
            Finding::Table { markdown } => ("", format!("\n{}\n", markdown.trim_end())),
            Finding::Object { .. } => continue,
        };
        if title != heading {
            text += &format!("\n{title}");
            heading = title;
        }
        text += &row;
    }
    text
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Deviation;

    #[test]
    fn a_page_tells_what_failed_and_what_was_measured() {
        let mut report = Report::new(&["kernels", "speed"], false);
        report.sections[0].status = Status::Failed;
        report.sections[0].findings = vec![
            Finding::check("norms", &Ok(()), Some(Deviation { error: 1e-6, tolerance: 1e-5 }), 0.1),
            Finding::check("sample", &Err(anyhow::anyhow!("token 3,\nnot 4 | 5")), None, 0.2),
        ];
        report.sections[1].findings = vec![Finding::bounded("copies", 4.0, "TB/s", 4.8)];
        report.complete = true;
        let page = page(&report);
        assert!(page.contains("something failed"), "{page}");
        assert!(page.contains("| norms | passed | 1.0e-6 | 1.0e-5 | 0.10 |  |"), "{page}");
        assert!(page.contains("| sample | **failed** |  |  | 0.20 | token 3, not 4 \\| 5 |"), "{page}");
        assert!(page.contains("| copies | 4.000 | TB/s | 4.800 | 83 % |  |"), "{page}");
        assert!(page.contains("| speed | not run |"), "{page}");
    }
}
