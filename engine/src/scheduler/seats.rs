//! How much of a seat each running sequence takes: as much of the time as it runs.
//!
//! `max_num_seqs` bounds the sequences of a step. A stream that sits most steps out, because its link is behind or its rate is capped,
//! leaves its place to others, so more may be admitted than there are seats: as long as what those that are here take adds up to half a
//! seat less. Where more than `max_num_seqs` want to run after all, they go by rank, so that no one gets less than without the others:
//! who is beyond the places stands still until enough of those before it have ended or sit out. That is no longer than it would have
//! waited for a seat, since those that come later stand behind it.

use std::time::Duration;

use super::{Scheduler, queued::Sequence};

/// How far back a sequence's share of steps is remembered.
const MEMORY: Duration = Duration::from_secs(1);

impl Sequence {
    /// Remembers whether it ran, for as long as `weight` says: a share of what is remembered.
    pub(super) fn remember(&mut self, weight: f64) {
        if self.sits_out() {
            self.presence -= self.presence * weight;
        } else if self.presence < 1.0 {
            self.presence += (1.0 - self.presence) * weight;
        }
    }
}

impl Scheduler {
    /// Brings every share up to date, before it is said who sits the next step out.
    pub(super) fn count_seats(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.looked_at);
        self.looked_at = now;
        let weight = (elapsed.as_secs_f64() / MEMORY.as_secs_f64()).min(1.0);
        self.seats = 0.0;
        for sequence in &mut self.running {
            sequence.remember(weight);
            self.seats += sequence.presence;
        }
    }

    /// Seats that the running sequences take.
    pub(super) fn seats_taken(&self) -> f64 {
        self.running.iter().map(|sequence| sequence.presence).sum()
    }

    /// Whether one more may start, once `yielded` seats are given back.
    pub(super) fn has_seat(&self, yielded: f64) -> bool {
        self.seats - yielded + 0.5 <= self.config.max_num_seqs as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampling::SamplingParams,
        scheduler::{NewSequence, SchedulerConfig, SequenceId},
    };

    #[test]
    fn a_share_is_that_of_the_time_whatever_the_steps_take() {
        let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 1, ..SchedulerConfig::default() });
        let new = NewSequence::new(SequenceId(0), vec![1], 9, SamplingParams::greedy());
        scheduler.add(new).unwrap();
        scheduler.running.extend(scheduler.waiting.pop_front());
        assert_eq!((scheduler.seats_taken(), scheduler.has_seat(0.0)), (1.0, true), "not counted yet");
        for ms in (0..10_000).step_by(10) {
            scheduler.count_seats(Duration::from_millis(ms));
            // It runs for 10 of 100 ms, in the middle of which steps are planned ten times as often.
            scheduler.running[0].is_capped = ms % 100 != 0;
        }
        assert!((0.03..0.2).contains(&scheduler.seats), "{}", scheduler.seats);
        assert!(scheduler.has_seat(0.0));
        scheduler.running[0].is_capped = false;
        scheduler.count_seats(Duration::from_secs(12));
        assert_eq!((scheduler.seats, scheduler.has_seat(0.0), scheduler.has_seat(1.0)), (1.0, false, true));
    }
}
