//! Whether a control law rests when its link does: how far rates and queues swing once they have settled.

use crate::experiment::Record;

/// Rates are means over so many seconds.
const BIN: f64 = 0.5;

/// How much a group's streams swing between two times, the most of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Swing {
    /// Half the difference between the greatest and the least rate of half a second, as a fraction of the mean.
    pub rate: f64,
    /// What a token more or less in half a second is of that: the grain below which nothing is to be seen.
    pub grain: f64,
    /// Half the difference between the greatest and the least number of bytes undelivered, in seconds of the mean rate.
    pub queue_s: f64,
}

/// `bytes_per_token` turns queues into times.
pub fn swing(record: &Record, group: usize, from: f64, to: f64, bytes_per_token: f64) -> Swing {
    let mut most = Swing::default();
    for (index, _) in record.seats.iter().enumerate().filter(|(_, seat)| seat.group == group) {
        let bins = ((to - from) / BIN).floor() as usize;
        let rates: Vec<f64> = (0..bins)
            .map(|bin| {
                let begin = from + bin as f64 * BIN;
                record.tokens(index, begin, begin + BIN) as f64 / BIN
            })
            .collect();
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        let samples = record.samples.iter().filter(|sample| (from..to).contains(&sample.at));
        let queued: Vec<f64> = samples.filter_map(|sample| sample.undelivered_bytes[index]).map(|bytes| bytes as f64).collect();
        let bytes_per_s = mean * bytes_per_token;
        most.rate = most.rate.max(half_range(&rates) / mean.max(f64::MIN_POSITIVE));
        most.grain = most.grain.max(1.0 / (mean * BIN).max(f64::MIN_POSITIVE));
        most.queue_s = most.queue_s.max(half_range(&queued) / bytes_per_s.max(f64::MIN_POSITIVE));
    }
    most
}

fn half_range(values: &[f64]) -> f64 {
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    if values.is_empty() { 0.0 } else { (greatest - least) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Chunk, Request, Sample, Seat};

    /// A stream whose rate and queue are given at each moment of 10 s.
    fn stream(rate: impl Fn(f64) -> f64, queued: impl Fn(f64) -> u64) -> Record {
        let (mut chunks, mut owed) = (Vec::new(), 0.0);
        let mut samples = Vec::new();
        for ms in 0..10_000 {
            let at = f64::from(ms) / 1000.0;
            owed += rate(at) / 1000.0;
            if owed >= 1.0 {
                owed -= 1.0;
                chunks.push(Chunk { at, tokens: 1, bytes: 200, health: 1.0 });
            }
            if ms % 50 == 0 {
                samples.push(Sample { at, undelivered_bytes: vec![Some(queued(at))], health: vec![None], held_bytes: None });
            }
        }
        let seat = Seat { requests: vec![Request { asked: 0.0, chunks }], ..Seat::default() };
        Record { seats: vec![seat], samples, ..Record::default() }
    }

    #[test]
    fn rest_is_rest_and_a_limit_cycle_is_not() {
        let resting = swing(&stream(|_| 50.0, |_| 2_000), 0, 2.0, 10.0, 200.0);
        assert!(resting.rate < 0.05 && resting.queue_s == 0.0, "{resting:?}");
        let wave = |at: f64| (at * std::f64::consts::TAU / 3.0).sin();
        let cycling = swing(&stream(|at| 50.0 + 25.0 * wave(at), |at| (2_000.0 + 1_500.0 * wave(at)) as u64), 0, 2.0, 10.0, 200.0);
        assert!((0.4..0.6).contains(&cycling.rate) && (0.12..0.18).contains(&cycling.queue_s), "{cycling:?}");
    }
}
