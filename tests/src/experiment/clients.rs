//! The clients of one run: a seat asks one request after the other, or, where requests arrive, a new one every so often.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Chunk, GroupSpec, Load, Request, Scenario, Seat, answers, testbed::Place};
use crate::{
    netns::Group,
    stream::{StreamOptions, TokenStream},
};

/// All seats, driven by [`Clients::tick`].
pub(super) struct Clients {
    seats: Mutex<Vec<Taken>>,
}

/// A seat with its client.
struct Taken {
    group: usize,
    link: usize,
    host: Arc<Group>,
    server: SocketAddr,
    load: Load,
    number: usize,
    /// Tokens of the first answer.
    first_answer: usize,
    asked: usize,
    next_arrival: Instant,
    running: Vec<TokenStream>,
    done: Vec<(Instant, Vec<crate::stream::Arrival>)>,
}

impl Clients {
    /// Has all seats of continuous load ask; arrivals begin with the first tick. `server` gives the address for a seat.
    pub fn start(scenario: &Scenario, places: Vec<Place>, server: impl Fn(&Place, &GroupSpec) -> SocketAddr) -> Self {
        let now = Instant::now();
        let healthy = places.iter().filter(|place| scenario.groups[place.group].healthy).count();
        let mut healthy_seen = 0;
        let seats = places.into_iter().enumerate().map(|(number, place)| {
            let spec = &scenario.groups[place.group];
            // Those behind bad links must not end within the window, since then nothing would be left to pace.
            let first_answer = if spec.healthy {
                healthy_seen += 1;
                answers::first(healthy_seen, healthy)
            } else {
                answers::LONG
            };
            // Arrivals of several links take turns.
            let offset = match spec.load {
                Load::Arrivals { every, .. } => every.mul_f64(place.link as f64 / spec.links as f64),
                _ => Duration::ZERO,
            };
            let server = server(&place, spec);
            Taken {
                group: place.group,
                link: place.link,
                host: place.host,
                server,
                load: spec.load.clone(),
                number,
                first_answer,
                asked: 0,
                next_arrival: now + offset,
                running: Vec::new(),
                done: Vec::new(),
            }
        });
        Self { seats: Mutex::new(seats.collect()) }
    }

    /// Starts what is due and notes what has ended.
    ///
    /// # Errors
    /// When a stream broke off.
    pub fn tick(&self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.lock().iter_mut().try_for_each(|seat| seat.tick(now))
    }

    /// Whether every seat of continuous load has a first token.
    pub fn all_stream(&self) -> bool {
        self.lock().iter().all(|seat| matches!(seat.load, Load::Arrivals { .. }) || seat.running.iter().any(|s| s.count() > 0))
    }

    /// Each seat's own address on its newest connection, as the server sees its peer.
    pub fn addresses(&self) -> Vec<Option<SocketAddr>> {
        self.lock().iter().map(|seat| seat.running.last().and_then(TokenStream::local)).collect()
    }

    /// Hangs up and tells what came, in seconds since `began`.
    pub fn finish(self, began: Instant) -> Vec<Seat> {
        let seats = self.seats.into_inner().unwrap_or_else(PoisonError::into_inner);
        let seconds = |at: Instant| if at >= began { (at - began).as_secs_f64() } else { -(began - at).as_secs_f64() };
        let request = |(asked, arrivals): (Instant, Vec<crate::stream::Arrival>)| Request {
            asked: seconds(asked),
            chunks: arrivals
                .iter()
                .map(|a| Chunk { at: seconds(a.at), tokens: a.tokens as u32, bytes: a.bytes as u32, health: a.health as f32 })
                .collect(),
        };
        let finish = |seat: Taken| {
            let running = seat.running.iter().map(|stream| (stream.started_at, stream.arrivals()));
            let requests = seat.done.into_iter().chain(running).map(request).collect();
            Seat { group: seat.group, link: seat.link, requests }
        };
        seats.into_iter().map(finish).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Taken>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(ended) = self.running.iter().position(|stream| !stream.is_running()) {
            let stream = self.running.remove(ended);
            self.done.push((stream.started_at, stream.arrivals()));
            stream.finish()?;
        }
        match self.load {
            Load::Continuous | Load::SlowReader { .. } if self.running.is_empty() => {
                self.ask(if self.asked == 0 { self.first_answer } else { answers::USUAL });
            }
            Load::Arrivals { every, max_tokens } if now >= self.next_arrival => {
                self.next_arrival += every;
                self.ask(max_tokens);
            }
            _ => {}
        }
        Ok(())
    }

    fn ask(&mut self, max_tokens: usize) {
        let prompt = format!("// {}.{}\nfn main", self.number, self.asked);
        let mut options = StreamOptions::new(&prompt, max_tokens);
        if let Load::SlowReader { bytes_per_s } = self.load {
            options = options.slowly(bytes_per_s);
        }
        self.asked += 1;
        self.running.push(TokenStream::start(self.server, Some(self.host.clone()), options));
    }
}
