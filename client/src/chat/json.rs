//! An answer for scripts: one JSON object per token, then `{"summary": {...}}`, one a line. Times are seconds since the request. A chunk that holds
//! several tokens, which an engine sends where a link is slow, is one object: `tokens` tells how many there are so far.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::answer::{Display, Ending};
use super::progress::{Progress, Summary};
use super::stream::Chunk;
use crate::signals::Signal;

pub struct JsonLines<O> {
    out: O,
}

#[derive(Serialize)]
struct ChunkLine<'a> {
    /// When it arrived.
    t: f64,
    text: &'a str,
    /// Only where the model thinks.
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    /// So far.
    tokens: u64,
    /// Tokens/s as received; null until that can be told.
    rate: Option<f64>,
    /// Of the connection, 0 to 1; null where nobody says.
    health: Option<f64>,
    /// Whether the scheduler holds the stream back to what its link carries; null where the server does not say.
    paced: Option<bool>,
}

#[derive(Serialize)]
struct SummaryLine {
    summary: SummaryObject,
}

#[derive(Serialize)]
struct SummaryObject {
    #[serde(flatten)]
    summary: Summary,
    /// The sentence that also goes to standard error.
    error: Option<String>,
}

impl<O: Write> JsonLines<O> {
    pub fn new(out: O) -> Self {
        Self { out }
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

impl<O: Write> Display for JsonLines<O> {
    fn period(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn chunk(&mut self, now: Duration, chunk: &Chunk, progress: &Progress) -> io::Result<()> {
        if !chunk.says_something() {
            return Ok(());
        }
        self.line(&ChunkLine {
            t: now.as_secs_f64(),
            text: &chunk.text,
            reasoning: &chunk.reasoning,
            tokens: progress.tokens(),
            rate: progress.rate(now),
            health: progress.health(),
            paced: progress.paced(),
        })
    }

    fn tick(&mut self, _: Duration, _: &Progress) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, now: Duration, progress: &Progress, ending: &Ending) -> io::Result<()> {
        let error = match ending {
            Ending::Complete | Ending::OutputClosed => None,
            Ending::Stopped(Signal::Interrupt) => Some("interrupted".to_owned()),
            Ending::Stopped(Signal::Terminate) => Some("terminated".to_owned()),
            Ending::Failed(error) => Some(error.to_string()),
        };
        self.line(&SummaryLine { summary: SummaryObject { summary: progress.summary(now), error } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_per_chunk_and_a_summary() {
        let mut out = Vec::new();
        let mut lines = JsonLines::new(&mut out);
        let mut progress = Progress::default();
        for (at, text) in [(500, ""), (1000, "a"), (1500, "b")] {
            let chunk = Chunk { text: text.to_owned(), ..Chunk::default() };
            let now = Duration::from_millis(at);
            progress.record(now, &chunk);
            progress.hint(Some(0.5));
            lines.chunk(now, &chunk, &progress).unwrap();
        }
        lines.end(Duration::from_secs(2), &progress, &Ending::Complete).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"t":1.0,"text":"a","tokens":1,"rate":null,"health":0.5,"paced":null}"#,
                "\n",
                r#"{"t":1.5,"text":"b","tokens":2,"rate":2.0,"health":0.5,"paced":null}"#,
                "\n",
                r#"{"summary":{"tokens":2,"seconds":2.0,"ttft":1.0,"mean_rate":2.0,"min_health":0.5,"finish_reason":null,"usage":null,"error":null}}"#,
                "\n"
            )
        );
    }
}
