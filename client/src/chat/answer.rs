//! One answer, from the question to its end: a single loop over what arrives, the clock and the signals. How it looks is
//! the business of a `Display`.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::progress::Progress;
use super::stream::{ChatStream, Chunk, Server};
use super::wire::ChatRequest;
use crate::signals::{Signal, Signals};
use crate::{ClientError, HintHealth};

/// Where an answer is shown. Times are since the request; nothing is called after `end`.
pub trait Display {
    /// How often `tick` is wanted.
    fn period(&self) -> Duration;
    fn chunk(&mut self, now: Duration, chunk: &Chunk, progress: &Progress) -> io::Result<()>;
    fn tick(&mut self, now: Duration, progress: &Progress) -> io::Result<()>;
    fn end(&mut self, now: Duration, progress: &Progress, ending: &Ending) -> io::Result<()>;
}

/// How an answer ended.
#[derive(Debug)]
pub enum Ending {
    Complete,
    /// By Ctrl-C, or a request to terminate this process.
    Stopped(Signal),
    Failed(ClientError),
    /// Nobody reads our output any more.
    OutputClosed,
}

pub struct Answer {
    /// What arrived, complete or not.
    pub text: String,
    pub ending: Ending,
}

/// What answers are made with; it outlives each of them.
pub struct Session {
    pub server: Server,
    pub health: HintHealth,
    pub signals: Signals,
}

impl Session {
    /// Asks, shows the answer as it arrives, and returns it.
    ///
    /// # Errors
    /// Only where the display cannot be written to; a reader that went away is an ending.
    pub async fn answer(&mut self, request: &ChatRequest<'_>, display: &mut dyn Display) -> io::Result<Answer> {
        let mut live = Live { started: Instant::now(), progress: Progress::default(), text: String::new() };
        let mut ended = self.show(request, display, &mut live).await;
        if let Ok(ending) = &ended
            && let Err(error) = display.end(live.started.elapsed(), &live.progress, ending)
        {
            ended = Err(error);
        }
        match ended {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Answer { text: live.text, ending: Ending::OutputClosed }),
            ended => ended.map(|ending| Answer { text: live.text, ending }),
        }
    }

    async fn show(&mut self, request: &ChatRequest<'_>, display: &mut dyn Display, live: &mut Live) -> io::Result<Ending> {
        let Self { server, health, signals } = self;
        let mut ticks = tokio::time::interval(display.period());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let opening = server.ask(request);
        tokio::pin!(opening);
        let mut stream = None;
        loop {
            tokio::select! {
                opened = &mut opening, if stream.is_none() => match opened {
                    Ok(opened) => stream = Some(opened),
                    Err(error) => return Ok(Ending::Failed(error)),
                },
                next = next_of(&mut stream) => match next {
                    Ok(Some(chunk)) => {
                        let now = live.take(&chunk);
                        if !live.progress.linked() {
                            health.start();
                        }
                        live.progress.hint(health.latest());
                        display.chunk(now, &chunk, &live.progress)?;
                    }
                    Ok(None) => return Ok(Ending::Complete),
                    Err(error) => return Ok(Ending::Failed(error)),
                },
                _ = ticks.tick() => {
                    let now = live.started.elapsed();
                    live.progress.sample(now);
                    live.progress.hint(health.latest());
                    display.tick(now, &live.progress)?;
                }
                signal = signals.next() => return Ok(Ending::Stopped(signal)),
            }
        }
    }
}

async fn next_of(stream: &mut Option<ChatStream>) -> Result<Option<Chunk>, ClientError> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// An answer while it arrives.
struct Live {
    started: Instant,
    progress: Progress,
    text: String,
}

impl Live {
    fn take(&mut self, chunk: &Chunk) -> Duration {
        let now = chunk.arrived.map_or_else(|| self.started.elapsed(), |arrived| arrived - self.started);
        self.text.push_str(&chunk.text);
        self.progress.record(now, chunk);
        now
    }
}
