//! Runs a trace through the tracker in the trace's own time: the same rounds give the same health, to the last bit.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokenflow_hint_api::{Connection, Source, Terms};

use super::{Round, TraceError};
use crate::tracker::Tracker;

/// One connection's score after one look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    pub at_ms: u64,
    pub cookie: u64,
    pub health: f64,
    pub terms: Terms,
    /// Null where the network is not the limit.
    pub token_rate: Option<f64>,
}

/// What became of one connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub cookie: u64,
    pub looks: u64,
    pub first_ms: u64,
    pub last_ms: u64,
    pub least_health: f64,
    /// Over its looks.
    pub mean_health: f64,
    pub last_health: f64,
    /// The least that each term came to.
    pub least_terms: Terms,
    /// Looks at which the network was the limit.
    pub network_limited: u64,
}

/// What a trace comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replay {
    pub rounds: u64,
    pub failed: u64,
    pub duration_ms: u64,
    /// The least aggregate health.
    pub least_aggregate: f64,
    /// In the order of cookies.
    pub connections: Vec<Summary>,
}

/// Scores every look; `each` sees every score as it comes.
///
/// # Errors
/// The trace's own first error, or that of `each`.
pub fn replay<E: From<TraceError>>(
    rounds: impl IntoIterator<Item = Result<Round, TraceError>>,
    bytes_per_token: f64,
    mut each: impl FnMut(&Score) -> Result<(), E>,
) -> Result<Replay, E> {
    let mut tracker = Tracker::new(Source::None, bytes_per_token);
    let mut all = Replay { least_aggregate: 1.0, ..Replay::default() };
    let mut summaries: BTreeMap<u64, Summary> = BTreeMap::new();
    for round in rounds {
        let round = round?;
        let at = Duration::from_micros(round.at_us);
        all.rounds += 1;
        all.duration_ms = at.as_millis() as u64;
        if round.failed {
            all.failed += 1;
            tracker.expire(at);
            continue;
        }
        let looks: Vec<_> = round.looks.iter().map(|look| look.look(at, round.source)).collect();
        tracker.observe(at, round.source, &looks);
        all.least_aggregate = all.least_aggregate.min(tracker.hint(at).health_factor);
        for look in &looks {
            let Some(connection) = tracker.by_cookie(look.identity.cookie, at) else { continue };
            let score = Score {
                at_ms: all.duration_ms,
                cookie: connection.cookie,
                health: connection.health,
                terms: connection.terms,
                token_rate: connection.token_rate,
            };
            each(&score)?;
            summaries.entry(connection.cookie).or_insert_with(|| Summary::new(&connection, all.duration_ms)).add(&score);
        }
    }
    all.connections = summaries.into_values().collect();
    for summary in &mut all.connections {
        summary.mean_health /= summary.looks as f64;
    }
    Ok(all)
}

impl Summary {
    fn new(connection: &Connection, at_ms: u64) -> Self {
        Self {
            cookie: connection.cookie,
            looks: 0,
            first_ms: at_ms,
            last_ms: at_ms,
            least_health: 1.0,
            mean_health: 0.0,
            last_health: 1.0,
            least_terms: Terms { delay: 1.0, loss: 1.0, queue: 1.0 },
            network_limited: 0,
        }
    }

    /// [`Self::mean_health`] is a sum until the end.
    fn add(&mut self, score: &Score) {
        self.looks += 1;
        self.last_ms = score.at_ms;
        self.least_health = self.least_health.min(score.health);
        self.mean_health += score.health;
        self.last_health = score.health;
        let (least, terms) = (&mut self.least_terms, score.terms);
        (least.delay, least.loss, least.queue) = (least.delay.min(terms.delay), least.loss.min(terms.loss), least.queue.min(terms.queue));
        self.network_limited += u64::from(score.token_rate.is_some());
    }
}
