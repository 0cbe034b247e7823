//! What is known of an answer while it arrives, and its summary at the end. Plain state: time is passed in as the time
//! since the request was sent.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::rate::{RateMeter, SHORTEST};
use super::stream::Chunk;
use super::wire::Usage;

/// One point of the rate's history.
const SAMPLE: Duration = Duration::from_millis(250);
/// A minute: long enough that a rate that fell still looks low beside what it was.
const SAMPLES: usize = 240;

#[derive(Debug, Default)]
pub struct Progress {
    meter: RateMeter,
    tokens: u64,
    usage: Option<Usage>,
    /// Arrival and size of the first chunk with text: the mean rate is counted from there.
    first: Option<(Duration, u64)>,
    last: Duration,
    server_rate: Option<f64>,
    /// The server sends health.
    linked: bool,
    health: Option<f64>,
    min_health: Option<f64>,
    paced: Option<bool>,
    finish_reason: Option<String>,
    history: VecDeque<f64>,
    sampled: Duration,
}

impl Progress {
    /// Counts a chunk that arrived at `at`.
    pub fn record(&mut self, at: Duration, chunk: &Chunk) {
        let tokens = match chunk.usage {
            Some(usage) => usage.completion_tokens.saturating_sub(self.tokens),
            None => u64::from(chunk.says_something()),
        };
        self.tokens += tokens;
        self.usage = chunk.usage.or(self.usage);
        // The usage at the very end corrects the count; it is no arrival.
        if chunk.says_something() {
            self.meter.record(at, tokens);
            self.first.get_or_insert((at, tokens));
            self.last = at;
        }
        let link = chunk.link.unwrap_or_default();
        self.server_rate = link.rate.filter(|rate| *rate > 0.0).or(self.server_rate);
        self.paced = link.paced.or(self.paced);
        if let Some(health) = link.health {
            self.linked = true;
            self.set_health(Some(health));
        }
        if chunk.finish_reason.is_some() {
            self.finish_reason.clone_from(&chunk.finish_reason);
        }
    }

    /// The hint server's word, which counts until the server itself has said something.
    pub fn hint(&mut self, health: Option<f64>) {
        if !self.linked {
            self.set_health(health);
        }
    }

    fn set_health(&mut self, health: Option<f64>) {
        self.health = health.map(|health| health.clamp(0.0, 1.0));
        self.min_health = self.min_health.into_iter().chain(self.health).reduce(f64::min);
    }

    /// Whether the server says how its connection does.
    pub fn linked(&self) -> bool {
        self.linked
    }

    /// Adds to the history of the rate when it is time.
    pub fn sample(&mut self, now: Duration) {
        if self.first.is_none() || now < self.sampled + SAMPLE {
            return;
        }
        self.sampled = now;
        if let Some(rate) = self.meter.rate(now) {
            if self.history.len() == SAMPLES {
                self.history.pop_front();
            }
            self.history.push_back(rate);
        }
    }

    /// As measured here; the server's own number only where that cannot be told yet.
    pub fn rate(&self, now: Duration) -> Option<f64> {
        self.meter.rate(now).or(self.server_rate)
    }

    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    pub fn started(&self) -> bool {
        self.first.is_some()
    }

    pub fn health(&self) -> Option<f64> {
        self.health
    }

    pub fn paced(&self) -> Option<bool> {
        self.paced
    }

    /// Rates of the last minute, a quarter of a second apart, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator {
        self.history.iter().copied()
    }

    pub fn summary(&self, now: Duration) -> Summary {
        let mean_rate = self.first.and_then(|(at, tokens)| {
            let streamed = self.last - at;
            let (tokens, time) = if streamed < SHORTEST { (self.tokens, now) } else { (self.tokens - tokens, streamed) };
            (self.tokens > 1 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
        });
        Summary {
            tokens: self.tokens,
            seconds: now.as_secs_f64(),
            ttft: self.first.map(|(at, _)| at.as_secs_f64()),
            mean_rate,
            min_health: self.min_health,
            finish_reason: self.finish_reason.clone(),
            usage: self.usage,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub tokens: u64,
    /// From the request to the end.
    pub seconds: f64,
    /// Seconds from the request to the first token.
    pub ttft: Option<f64>,
    /// Tokens/s from the first token to the last; from the request on where all of them came at once.
    pub mean_rate: Option<f64>,
    pub min_health: Option<f64>,
    pub finish_reason: Option<String>,
    /// The server's own count, where it sent one.
    pub usage: Option<Usage>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} in {:.1} s", counted(self.tokens), self.seconds)?;
        if let Some(rate) = self.mean_rate {
            write!(f, ", mean rate {rate:.1} tok/s")?;
        }
        if let Some(health) = self.min_health {
            write!(f, ", lowest health {health:.2}")?;
        }
        match self.finish_reason.as_deref() {
            None | Some("stop") => Ok(()),
            Some("length") => write!(f, ", cut at the token limit"),
            Some(reason) => write!(f, ", ended with `{reason}`"),
        }
    }
}

/// "1 token", "2 tokens".
pub fn counted(tokens: u64) -> String {
    format!("{tokens} token{}", if tokens == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::wire::Link;
    use super::*;

    fn text(text: &str) -> Chunk {
        Chunk { text: text.to_owned(), ..Chunk::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_mean_rate_starts_at_the_first_token() {
        let mut progress = Progress::default();
        progress.record(ms(100), &text(""));
        for i in 0..11 {
            progress.record(ms(2000 + i * 100), &text("x"));
            progress.hint(Some(0.9));
        }
        let finish = Chunk { finish_reason: Some("stop".into()), ..Chunk::default() };
        progress.record(ms(3000), &finish);
        progress.hint(Some(0.4));
        let summary = progress.summary(ms(3100));
        assert_eq!((summary.tokens, summary.ttft), (11, Some(2.0)));
        assert!((summary.mean_rate.unwrap() - 10.0).abs() < 1e-9);
        assert_eq!(summary.to_string(), "11 tokens in 3.1 s, mean rate 10.0 tok/s, lowest health 0.40");
    }

    #[test]
    fn an_answer_that_comes_at_once_has_the_rate_of_its_whole_time() {
        let mut progress = Progress::default();
        for _ in 0..129 {
            progress.record(ms(40), &text("x"));
        }
        assert_eq!(progress.summary(ms(43)).mean_rate.map(f64::round), Some(3000.0));
    }

    #[test]
    fn usage_corrects_the_count_of_chunks() {
        let mut progress = Progress::default();
        for i in 0..4 {
            progress.record(ms(i * 250), &text("two tokens"));
        }
        progress.record(ms(750), &Chunk { usage: Some(Usage { completion_tokens: 8, ..Usage::default() }), ..Chunk::default() });
        assert_eq!(progress.tokens(), 8);
        assert_eq!(progress.summary(ms(750)).seconds, 0.75);
    }

    #[test]
    fn a_chunk_of_several_tokens_counts_all_of_them_and_reasoning_counts_too() {
        let mut progress = Progress::default();
        for (at, tokens) in [(0, 1), (500, 4), (1000, 7)] {
            let usage = Some(Usage { prompt_tokens: 5, completion_tokens: tokens, total_tokens: 5 + tokens });
            progress.record(ms(at), &Chunk { reasoning: "hm".to_owned(), usage, ..Chunk::default() });
        }
        assert_eq!((progress.tokens(), progress.rate(ms(1000))), (7, Some(6.0)));
        let summary = progress.summary(ms(1000));
        assert_eq!((summary.ttft, summary.usage.map(|usage| usage.total_tokens)), (Some(0.0), Some(12)));
    }

    #[test]
    fn the_servers_word_on_the_link_goes_before_the_hint_servers() {
        let mut progress = Progress::default();
        let link = Link { health: Some(0.7), rate: Some(12.0), paced: Some(true) };
        progress.record(ms(0), &Chunk { link: Some(link), ..text("a") });
        progress.hint(Some(0.1));
        assert_eq!((progress.health(), progress.paced(), progress.rate(ms(1))), (Some(0.7), Some(true), Some(12.0)));
        for i in 1..=10 {
            progress.record(ms(i * 100), &Chunk { link: Some(link), ..text("a") });
        }
        assert!((progress.rate(ms(1000)).unwrap() - 10.0).abs() < 1e-9, "arrivals win over the server's number");
    }
}
