//! The congested demo as a person sees it: a line per half second, and a sentence on what happened at the end.

use std::time::{Duration, Instant};

/// What one client sees at a tick.
#[derive(Clone, Copy)]
pub(super) struct Observation {
    /// Tokens/s that arrived over the last second.
    pub rate: f64,
    /// The hint server's opinion of its connection; `None` while it does not know it.
    pub health: Option<f64>,
    pub queued_bytes: u64,
}

pub(super) struct Row {
    pub link: &'static str,
    pub slow: Observation,
    pub healthy: Observation,
}

pub(super) struct Table {
    began: Instant,
    rows: Vec<(Duration, Row)>,
}

impl Table {
    pub fn begin() -> Self {
        println!("  time  link     first client                                   second client");
        println!("                 Rate (tok/s)  Health              queued       Rate (tok/s)  Health");
        Self { began: Instant::now(), rows: Vec::new() }
    }

    pub fn add(&mut self, row: Row) {
        let at = self.began.elapsed();
        println!(
            "{:>5.1}s  {:<7}  {:>9.1}     {}  {:>7} B   {:>9.1}     {}",
            at.as_secs_f64(),
            row.link,
            row.slow.rate,
            bar(row.slow.health),
            row.slow.queued_bytes,
            row.healthy.rate,
            bar(row.healthy.health),
        );
        self.rows.push((at, row));
    }

    /// Says in figures what the rows show.
    ///
    /// # Errors
    /// When the table has no row of each phase.
    pub fn summarise(&self, throttled: Duration) -> anyhow::Result<()> {
        let begin = self.rows.iter().find(|(_, r)| r.link != "free").map(|(at, _)| *at);
        let begin = begin.ok_or_else(|| anyhow::anyhow!("the link was never throttled"))?;
        let end = begin + throttled;
        let settle = Duration::from_secs(2);
        // The rate of a row looks back over a second: the first two seconds of a phase belong to the one before.
        let before = self.between(Duration::from_secs(1), begin);
        let during = self.between(begin + settle, end);
        let after = self.between(end + settle, Duration::MAX);
        let health = self.between(begin, end).iter().filter_map(|r| r.slow.health).fold(1.0, f64::min);
        println!();
        println!(
            "first client:   {:.0} tok/s, then {:.0} on the throttled link with Health down to {health:.2}, then {:.0} again",
            mean(&before, |r| r.slow.rate),
            mean(&during, |r| r.slow.rate),
            mean(&after, |r| r.slow.rate)
        );
        println!(
            "second client:  {:.0} tok/s, {:.0} meanwhile, {:.0} at the end",
            mean(&before, |r| r.healthy.rate),
            mean(&during, |r| r.healthy.rate),
            mean(&after, |r| r.healthy.rate)
        );
        match self.rows.iter().find(|(at, r)| *at > end && r.slow.health.is_some_and(|health| health > 0.9)) {
            Some((at, _)) => {
                println!("Health of the first client was above 0.9 again {:.1} s after its link was freed.", (*at - end).as_secs_f64())
            }
            None => println!("Health of the first client did not come back above 0.9 in time."),
        }
        Ok(())
    }

    fn between(&self, from: Duration, to: Duration) -> Vec<&Row> {
        self.rows.iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, row)| row).collect()
    }
}

fn mean(rows: &[&Row], value: impl Fn(&Row) -> f64) -> f64 {
    rows.iter().map(|row| value(row)).sum::<f64>() / rows.len().max(1) as f64
}

fn bar(health: Option<f64>) -> String {
    let Some(health) = health else { return format!("{:15}", "unknown") };
    let filled = (health * 10.0).round() as usize;
    format!("{health:.2} {}{}", "█".repeat(filled), "░".repeat(10 - filled.min(10)))
}
