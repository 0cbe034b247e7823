use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    Options,
    client::Event,
    watch::{MAX_GROWTH_BYTES, MAX_SLOPE_BYTES_PER_MINUTE, MINUTES_FOR_SLOPE, Watch},
};

/// Sentences that are kept: the first tell what is wrong, the rest only how often.
const MAX_VIOLATIONS: usize = 20;

/// What clients saw.
#[derive(Default)]
pub(super) struct Tally {
    visits: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<u16, u64>,
    finish_reasons: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    violations: Vec<String>,
    num_violations: u64,
}

impl Tally {
    pub(super) fn add(&mut self, event: Event) {
        *self.visits.entry(event.kind).or_default() += 1;
        if event.status > 0 {
            *self.statuses.entry(event.status).or_default() += 1;
        }
        for reason in event.finish_reasons {
            *self.finish_reasons.entry(reason).or_default() += 1;
        }
        if let Some(field) = event.refused {
            *self.refused.entry(field).or_default() += 1;
        }
        if let Some(violation) = event.violation {
            self.num_violations += 1;
            if self.violations.len() < MAX_VIOLATIONS {
                self.violations.push(shortened(&violation));
            }
        }
    }
}

/// Its beginning, which names the visit, and its end, which says what happened: between them stands what was asked.
fn shortened(sentence: &str) -> String {
    const PART: usize = 350;
    let length = sentence.chars().count();
    if length <= 2 * PART {
        return sentence.to_owned();
    }
    let (start, end): (String, String) = (sentence.chars().take(PART).collect(), sentence.chars().skip(length - PART).collect());
    format!("{start} [...] {end}")
}

/// What came of a soak.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Sentences on what the engine did wrong; empty when it did well.
    pub violations: Vec<String>,
    /// All of it.
    pub report: Value,
}

impl Summary {
    pub(super) fn new(options: &Options, tally: Tally, watch: Watch, took: Duration) -> Self {
        let (growth, slope, minutes) = watch.growth();
        let mut violations = tally.violations;
        if tally.num_violations > violations.len() as u64 {
            violations.push(format!("and {} more visits went wrong", tally.num_violations - violations.len() as u64));
        }
        violations.extend(watch.violations);
        let mib = |bytes: f64| bytes / (1 << 20) as f64;
        if growth > MAX_GROWTH_BYTES {
            let bound = mib(MAX_GROWTH_BYTES as f64);
            violations.push(format!("memory grew by {:.1} MiB after warming up, more than {bound} MiB", mib(growth as f64)));
        }
        if minutes >= MINUTES_FOR_SLOPE && slope > MAX_SLOPE_BYTES_PER_MINUTE {
            let bound = mib(MAX_SLOPE_BYTES_PER_MINUTE);
            violations.push(format!("memory climbs by {:.2} MiB a minute, more than {bound}", mib(slope)));
        }
        let report = json!({
            "seed": options.seed,
            "seconds": took.as_secs_f64(),
            "clients": options.clients,
            "visits": tally.visits,
            "statuses": tally.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect::<BTreeMap<_, _>>(),
            "finish_reasons": tally.finish_reasons,
            "refused_fields": tally.refused,
            "preemptions": watch.preemptions,
            "prefix_cache_hit_tokens": watch.prefix_cache_hits,
            "rests": watch.rests.iter().map(|rest| json!({
                "seconds": rest.at.as_secs_f64(), "resident_mib": mib(rest.resident_bytes as f64), "descriptors": rest.descriptors,
            })).collect::<Vec<_>>(),
            "growth_mib": mib(growth as f64),
            "slope_mib_per_minute": mib(slope),
        });
        Self { violations, report }
    }

    /// Writes the report with its verdict; a reader never sees half of it.
    ///
    /// # Errors
    /// When the file cannot be written; the message names it.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut report = self.report.clone();
        report["passed"] = self.violations.is_empty().into();
        report["violations"] = self.violations.clone().into();
        let name = || format!("cannot write {}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(name)?;
        let file = tempfile::NamedTempFile::new_in(folder).with_context(name)?;
        serde_json::to_writer_pretty(&file, &report).with_context(name)?;
        file.persist(path).with_context(name)?;
        Ok(())
    }
}
