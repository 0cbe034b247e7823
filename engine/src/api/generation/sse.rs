//! Server-sent events, written as the reader pulls: nothing is produced ahead of the socket, so a slow reader costs no memory here.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{
    FutureExt, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use serde::Serialize;

use super::{Delta, Output, StreamOptions, Usage};
use crate::{
    api::ApiError,
    engine::EngineError,
    health::{Coalescer, StreamMeter},
};

/// How a route writes its events. `usage` is there where the event is to carry it.
pub(in crate::api) trait EventFormat: Send + 'static {
    /// Events that open a choice, before its first piece.
    fn open(&mut self, choice: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>);
    fn delta(&mut self, choice: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>);
    /// The event after the last choice's end, where usage was asked for.
    fn usage(&mut self, usage: Usage, last: &Delta, out: &mut Vec<u8>);

    /// After everything else.
    fn done(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(DONE);
    }

    /// In place of what is missing; nothing follows.
    fn error(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        write_event(&error.body(), out);
        out.extend_from_slice(DONE);
    }
}

/// Ends OpenAI's streams, also those that failed.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends `data: {json}` and the blank line that ends an event.
pub(in crate::api) fn write_event(event: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // Events are structs of strings and numbers, and a Vec takes every write.
    serde_json::to_writer(&mut *out, event).expect("an event is JSON");
    out.extend_from_slice(b"\n\n");
}

/// The same with the event's name in front.
pub(in crate::api) fn write_named_event(name: &str, event: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    write_event(event, out);
}

/// The response that streams `outputs`, each as the choice of its index. Its extensions hold the `Vec<Arc<StreamMeter>>` that count it.
pub(in crate::api) fn respond(outputs: Vec<Output>, options: StreamOptions, format: impl EventFormat) -> Response {
    let meters: Vec<_> = outputs.iter().filter_map(Output::meter).collect();
    let events = Events::new(outputs, options, format);
    let frames = stream::unfold(events, |mut events| async move {
        let frame = events.next_frame().await?;
        Some((Ok::<_, Infallible>(frame), events))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (Extension(meters), headers, [("x-accel-buffering", "no")], Body::from_stream(frames)).into_response()
}

/// What one choice has next.
type Pieces = (usize, Result<Vec<Delta>, EngineError>);

struct Events<F> {
    pieces: SelectAll<BoxStream<'static, Pieces>>,
    choices: Vec<Choice>,
    format: F,
    include_usage: bool,
    continuous_usage: bool,
    ended: bool,
    /// Holds events back where the link is behind; `None` where nothing is known of it, or tokens are never to share one.
    coalescer: Option<Coalescer>,
}

struct Choice {
    meter: Option<Arc<StreamMeter>>,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    /// Tokens whose text is held back.
    unsent_tokens: u64,
    /// Whether its prompt is counted, which others may share.
    leads: bool,
    opened: bool,
    finished: bool,
}

impl Choice {
    fn new(output: &Output) -> Self {
        Self {
            meter: output.meter(),
            prompt_tokens: output.prompt_tokens(),
            cached_tokens: 0,
            completion_tokens: 0,
            leads: output.leads(),
            unsent_tokens: 0,
            opened: false,
            finished: false,
        }
    }

    fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens, self.completion_tokens)
    }
}

impl<F: EventFormat> Events<F> {
    fn new(outputs: Vec<Output>, options: StreamOptions, format: F) -> Self {
        Self {
            coalescer: outputs.iter().find(|output| output.coalesces()).and_then(Output::meter).map(Coalescer::new),
            choices: outputs.iter().map(Choice::new).collect(),
            pieces: stream::select_all(outputs.into_iter().enumerate().map(|(choice, output)| {
                stream::unfold(output, move |mut output| async move { Some(((choice, output.next().await?), output)) }).boxed()
            })),
            format,
            include_usage: options.include_usage,
            continuous_usage: options.include_usage && options.continuous_usage_stats,
            ended: false,
        }
    }

    /// The next pieces of one choice with what belongs before and after them, and where the link is behind what others have too;
    /// `None` after the end.
    async fn next_frame(&mut self) -> Option<Bytes> {
        if let Some(coalescer) = &mut self.coalescer
            && !self.ended
        {
            coalescer.room().await;
        }
        let mut frame = Vec::with_capacity(512);
        let mut first = 0;
        // A format may hold text back.
        while frame.is_empty() {
            if self.ended {
                return None;
            }
            let (index, pieces) = self.pieces.next().await?;
            self.write_pieces(index, pieces, &mut frame);
            first = index;
        }
        let shared_bytes = self.coalescer.as_ref().map_or(0, Coalescer::shared_bytes) as usize;
        while frame.len() < shared_bytes && !self.ended {
            let Some(Some((index, pieces))) = self.pieces.next().now_or_never() else { break };
            self.write_pieces(index, pieces, &mut frame);
        }
        if let Some(meter) = &self.choices[first].meter {
            meter.framing_sent(framing_bytes(frame.len()));
        }
        Some(frame.into())
    }

    fn write_pieces(&mut self, index: usize, pieces: Result<Vec<Delta>, EngineError>, out: &mut Vec<u8>) {
        let before = out.len();
        let tokens: usize = match pieces {
            Ok(pieces) => {
                pieces.iter().for_each(|delta| self.write_delta(index, delta, out));
                pieces.iter().map(|delta| delta.num_tokens).sum()
            }
            Err(error) => {
                self.ended = true;
                self.format.error(&ApiError::from(error), out);
                0
            }
        };
        let choice = &mut self.choices[index];
        choice.unsent_tokens += tokens as u64;
        let bytes = out.len() - before;
        if bytes > 0
            && let Some(meter) = &choice.meter
        {
            meter.chunk_sent(std::mem::take(&mut choice.unsent_tokens), bytes as u64);
        }
    }

    /// Of all choices.
    fn total_usage(&self) -> Usage {
        let leaders = || self.choices.iter().filter(|choice| choice.leads);
        let prompt_tokens = leaders().map(|choice| choice.prompt_tokens).sum();
        let completion_tokens = self.choices.iter().map(|choice| choice.completion_tokens).sum();
        Usage::new(prompt_tokens, completion_tokens).with_cached(leaders().map(|choice| choice.cached_tokens).sum())
    }

    fn write_delta(&mut self, index: usize, delta: &Delta, out: &mut Vec<u8>) {
        let choice = &mut self.choices[index];
        choice.cached_tokens += delta.cached_tokens.unwrap_or(0);
        if !choice.opened {
            choice.opened = true;
            self.format.open(index, delta, self.continuous_usage.then(|| choice.usage()), out);
        }
        choice.completion_tokens += delta.num_tokens;
        self.format.delta(index, delta, self.continuous_usage.then(|| choice.usage()), out);
        choice.finished = delta.finish.is_some();
        if self.choices.iter().all(|choice| choice.finished) {
            self.ended = true;
            if self.include_usage {
                self.format.usage(self.total_usage(), delta, out);
            }
            self.format.done(out);
        }
    }
}

/// Chunked transfer coding adds the size in hexadecimal and two line ends (RFC 9112, 7.1).
fn framing_bytes(length: usize) -> u64 {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    u64::from(digits) + 4
}

#[cfg(test)]
mod tests {
    use super::framing_bytes;

    #[test]
    fn framing_is_what_hyper_adds() {
        for length in [1, 15, 16, 255, 256, 4095, 4096] {
            assert_eq!(framing_bytes(length), format!("{length:X}\r\n\r\n").len() as u64, "{length}");
        }
    }
}
