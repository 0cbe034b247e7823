//! One line in the log for each request, when the last of its answer has gone or its client has.

use std::{sync::Arc, time::Instant};

use axum::http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::{
    logging::REQUESTS,
    scheduler::FinishReason,
    text::{Observer, Outcome},
};

/// What nginx logs for a request whose client went away before it was answered.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Routes that are asked all the time by machines: worth a line only when they fail.
const PROBED: &[&str] = &["/health", "/ping", "/metrics", "/load", "/version"];

/// Longest part of a path that is logged.
const MAX_ROUTE_BYTES: usize = 80;

/// Collects what is known of a request; writes its line when the last clone is dropped.
pub(super) struct RequestLog {
    id: String,
    method: Method,
    route: String,
    arrival: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    status: Option<StatusCode>,
    model: Option<String>,
    outcomes: Outcomes,
}

/// Of all choices of one answer.
#[derive(Default)]
struct Outcomes {
    /// Number of choices that have ended.
    ended: usize,
    /// Some choice had not come to its end when nobody read on.
    cut_short: bool,
    /// Sums, and for what is not a sum the first that came.
    all: Outcome,
}

impl RequestLog {
    pub(super) fn new(id: String, method: Method, path: &str) -> Arc<Self> {
        let mut end = path.len().min(MAX_ROUTE_BYTES);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        Arc::new(Self { id, method, route: path[..end].to_owned(), arrival: Instant::now(), seen: Mutex::default() })
    }

    pub(super) fn answered(&self, status: StatusCode) {
        self.seen.lock().status = Some(status);
    }

    /// A prompt is handed to the engine.
    pub(super) fn starts(&self, model: &str, prompt_tokens: usize, max_tokens: usize, streamed: bool) {
        self.seen.lock().model.get_or_insert_with(|| model.to_owned());
        let (id, route) = (&self.id, &self.route);
        tracing::debug!(target: REQUESTS, id, route, model, prompt_tokens, max_tokens, streamed, "request arrived");
    }
}

impl Observer for RequestLog {
    fn ended(&self, outcome: &Outcome) {
        self.seen.lock().outcomes.add(outcome);
    }
}

impl Outcomes {
    fn add(&mut self, one: &Outcome) {
        let all = &mut self.all;
        all.prompt_tokens += one.prompt_tokens;
        all.cached_tokens += one.cached_tokens;
        all.output_tokens += one.output_tokens;
        all.paced_tokens += one.paced_tokens;
        all.health = if self.ended == 0 { one.health } else { all.health.min(one.health) };
        all.error = all.error.take().or_else(|| one.error.clone());
        all.queued = all.queued.max(one.queued);
        all.time_to_first_token = [all.time_to_first_token, one.time_to_first_token].into_iter().flatten().min();
        all.finish = if self.ended == 0 { one.finish } else { all.finish.filter(|_| all.finish == one.finish) };
        self.cut_short |= one.finish.is_none_or(|finish| finish == FinishReason::Abort);
        self.ended += 1;
    }

    /// How all of it ended, in a word: what broke one choice off weighs more than how others had ended before.
    fn finish(&self) -> &'static str {
        match self.all.finish {
            _ if self.all.error.is_some() => "error",
            _ if self.cut_short => FinishReason::Abort.as_str(),
            Some(finish) => finish.as_str(),
            None => "mixed",
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let Seen { status, model, outcomes } = self.seen.get_mut();
        let status = status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        let (id, route, method) = (&*self.id, &*self.route, self.method.as_str());
        let e2e_ms = millis(self.arrival.elapsed());
        let all = &outcomes.all;
        if outcomes.ended == 0 {
            return match status {
                500.. => tracing::warn!(target: REQUESTS, id, method, route, status, e2e_ms, "request"),
                ..400 if PROBED.contains(&route) => tracing::debug!(target: REQUESTS, id, method, route, status, e2e_ms, "request"),
                _ => tracing::info!(target: REQUESTS, id, method, route, status, e2e_ms, "request"),
            };
        }
        let finish = outcomes.finish();
        // Of a link that was never in trouble there is nothing to say.
        let share = |part: usize| part as f64 / all.output_tokens.max(1) as f64;
        let paced = (all.paced_tokens > 0).then(|| rounded(share(all.paced_tokens)));
        let health = (all.health < 1.0 || paced.is_some()).then(|| rounded(all.health));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: REQUESTS,
                    id,
                    route,
                    model = model.as_deref(),
                    status,
                    finish,
                    prompt_tokens = all.prompt_tokens,
                    cached_tokens = all.cached_tokens,
                    output_tokens = all.output_tokens,
                    choices = (outcomes.ended > 1).then_some(outcomes.ended),
                    queue_ms = all.queued.map(millis),
                    ttft_ms = all.time_to_first_token.map(millis),
                    e2e_ms,
                    health,
                    paced,
                    error = all.error.as_deref(),
                    "request"
                )
            };
        }
        if all.error.is_some() { line!(warn) } else { line!(info) }
    }
}

fn millis(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_says_how_several_choices_ended() {
        const STOP: Option<FinishReason> = Some(FinishReason::Stop);
        const LENGTH: Option<FinishReason> = Some(FinishReason::Length);
        let word = |ends: &[Option<FinishReason>], error: Option<&str>| {
            let mut outcomes = Outcomes::default();
            for &finish in ends {
                let error = error.filter(|_| finish.is_none()).map(str::to_owned);
                outcomes.add(&Outcome { finish, error, ..Outcome::default() });
            }
            outcomes.finish()
        };
        assert_eq!(word(&[STOP], None), "stop");
        assert_eq!(word(&[LENGTH, LENGTH], None), "length");
        assert_eq!(word(&[STOP, LENGTH], None), "mixed");
        for gone in [&[None][..], &[None, None], &[STOP, None], &[None, STOP], &[STOP, LENGTH, None], &[STOP, Some(FinishReason::Abort)]] {
            assert_eq!(word(gone, None), "abort", "{gone:?}");
        }
        assert_eq!(word(&[STOP, None], Some("out of luck")), "error");
    }
}
