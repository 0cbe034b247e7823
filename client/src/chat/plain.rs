//! An answer for pipes and files: the text on one writer, the status as a line a second on another, a summary at the end.

use std::io::{self, Write};
use std::time::Duration;

use super::answer::{Display, Ending};
use super::flow::harmless_text;
use super::progress::{Progress, counted};
use super::stream::Chunk;

pub struct Plain<O, E> {
    out: O,
    status: E,
    /// Where text and status meet on one screen, lines of status would tear the text.
    running_status: bool,
    /// A terminal must be spared control characters; a file gets the text as it is.
    out_is_terminal: bool,
    ends_in_newline: bool,
}

impl<O: Write, E: Write> Plain<O, E> {
    pub fn new(out: O, out_is_terminal: bool, status: E, running_status: bool) -> Self {
        Self { out, status, running_status, out_is_terminal, ends_in_newline: true }
    }
}

impl<O: Write, E: Write> Display for Plain<O, E> {
    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn chunk(&mut self, _: Duration, chunk: &Chunk, _: &Progress) -> io::Result<()> {
        if chunk.text.is_empty() {
            return Ok(());
        }
        self.ends_in_newline = chunk.text.ends_with('\n');
        match self.out_is_terminal {
            true => self.out.write_all(harmless_text(&chunk.text).as_bytes())?,
            false => self.out.write_all(chunk.text.as_bytes())?,
        }
        self.out.flush()
    }

    fn tick(&mut self, now: Duration, progress: &Progress) -> io::Result<()> {
        // The first tick comes at once and has nothing to say.
        if !self.running_status || now < self.period() {
            return Ok(());
        }
        writeln!(self.status, "{}", status(now, progress))
    }

    fn end(&mut self, now: Duration, progress: &Progress, ending: &Ending) -> io::Result<()> {
        if !self.ends_in_newline {
            self.out.write_all(b"\n")?;
            self.out.flush()?;
        }
        if progress.started() {
            let stopped = if matches!(ending, Ending::Stopped(_)) { ", stopped" } else { "" };
            writeln!(self.status, "{}{stopped}", progress.summary(now))?;
        }
        Ok(())
    }
}

fn status(now: Duration, progress: &Progress) -> String {
    if !progress.started() {
        return format!("waiting for the first token, {:.1} s", now.as_secs_f64());
    }
    let number = |value: Option<f64>, decimals: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"));
    format!(
        "rate {} tok/s, health {}, {}{}, {:.1} s",
        number(progress.rate(now), 1),
        number(progress.health(), 2),
        if progress.paced() == Some(true) { "paced, " } else { "" },
        counted(progress.tokens()),
        now.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Signal;

    fn show(chunks: &[(u64, &str)], running_status: bool, ending: &Ending) -> (String, String) {
        let (mut out, mut status) = (Vec::new(), Vec::new());
        let mut plain = Plain::new(&mut out, false, &mut status, running_status);
        let mut progress = Progress::default();
        let mut now = Duration::ZERO;
        plain.tick(now, &progress).unwrap();
        for (at, text) in chunks {
            let chunk = Chunk { text: (*text).to_owned(), ..Chunk::default() };
            now = Duration::from_millis(*at);
            progress.record(now, &chunk);
            plain.chunk(now, &chunk, &progress).unwrap();
            plain.tick(now, &progress).unwrap();
        }
        plain.end(now, &progress, ending).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(status).unwrap())
    }

    #[test]
    fn text_and_status_go_their_own_ways() {
        let (out, status) = show(&[(1000, "Ein"), (1500, " Tag"), (2000, "")], true, &Ending::Complete);
        assert_eq!(out, "Ein Tag\n");
        assert_eq!(
            status,
            "rate - tok/s, health -, 1 token, 1.0 s\nrate 2.0 tok/s, health -, 2 tokens, 1.5 s\n\
             rate 2.0 tok/s, health -, 2 tokens, 2.0 s\n2 tokens in 2.0 s, mean rate 2.0 tok/s\n"
        );
    }

    #[test]
    fn a_last_newline_is_not_doubled_and_the_status_can_be_left_out() {
        let (out, status) = show(&[(100, "a\n")], false, &Ending::Stopped(Signal::Interrupt));
        assert_eq!((out.as_str(), status.as_str()), ("a\n", "1 token in 0.1 s, stopped\n"));
    }
}
