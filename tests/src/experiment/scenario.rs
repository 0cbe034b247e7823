//! A scenario as data: groups of clients behind links, a timeline, and what is aimed at.
//!
//! Times count from the beginning of the measured window. All streams of [`Load::Continuous`] decode by then.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::netns::LinkShape;

/// What the engine's `--pacing` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Off,
    Global,
    PerConnection,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Off, Self::Global, Self::PerConnection];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Global => "global",
            Self::PerConnection => "per-connection",
        }
    }
}

/// What this machine can do, measured before the scenario is made: links are sized by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Streams on free links and the tokens per second that all of them got together, in order of streams.
    pub throughput: Vec<(usize, f64)>,
    /// Bytes of one token's chunk in the TCP payload: event, chunk framing.
    pub payload_bytes_per_token: f64,
}

impl Calibration {
    /// Tokens per second that each of `streams` gets on free links.
    pub fn fair_share(&self, streams: usize) -> f64 {
        self.total(streams) / streams.max(1) as f64
    }

    /// Tokens per second of `streams` together on free links.
    pub fn total(&self, streams: usize) -> f64 {
        streams as f64 / self.step_seconds(streams as f64)
    }

    /// Bits per second of a link that carries so many tokens per second.
    pub fn bits_per_second(&self, tokens_per_s: f64) -> u64 {
        (self.wire_bytes_per_token() * 8.0 * tokens_per_s).round() as u64
    }

    /// Tokens per second that a link of so many bits per second carries.
    pub fn tokens_per_second(&self, bits_per_s: u64) -> f64 {
        bits_per_s as f64 / 8.0 / self.wire_bytes_per_token()
    }

    /// Bytes of a token's chunk on the wire, with its share of the headers of full packets.
    pub fn wire_bytes_per_token(&self) -> f64 {
        self.payload_bytes_per_token * (1.0 + PACKET_HEADER_BYTES / SEGMENT_BYTES)
    }

    /// Seconds of a step in which `batch` streams get a token each: linear between the measured points and beyond the last two, and never
    /// less for more.
    pub fn step_seconds(&self, batch: f64) -> f64 {
        let mut least = 0.0;
        let points: Vec<(f64, f64)> = self
            .throughput
            .iter()
            .map(|&(streams, rate)| {
                least = f64::max(least, streams as f64 / rate);
                (streams as f64, least)
            })
            .collect();
        let Some(pair) = points.windows(2).find(|pair| batch <= pair[1].0).or(points.windows(2).last()) else {
            // One point tells the cost of its own batch only: a larger one costs as much a token.
            return points.first().map_or(f64::INFINITY, |(streams, seconds)| seconds * (batch / streams).max(1.0));
        };
        let ((n0, s0), (n1, s1)) = (pair[0], pair[1]);
        s0 + (s1 - s0) * (batch.max(n0) - n0) / (n1 - n0)
    }
}

/// What a step takes: so much for itself and so much for each of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    pub fixed_ms: f64,
    pub per_token_ms: f64,
}

impl Calibration {
    /// The straight line nearest to the measured steps.
    pub fn step_cost(&self) -> StepCost {
        let points: Vec<(f64, f64)> = self.throughput.iter().map(|&(n, rate)| (n as f64, n as f64 / rate * 1000.0)).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len().max(1) as f64;
        let (n, ms) = (mean(|point| point.0), mean(|point| point.1));
        let (covariance, variance) =
            points.iter().fold((0.0, 0.0), |(c, v), point| (c + (point.0 - n) * (point.1 - ms), v + (point.0 - n).powi(2)));
        let per_token_ms = if variance > 0.0 { covariance / variance } else { 0.0 };
        StepCost { fixed_ms: ms - per_token_ms * n, per_token_ms }
    }
}

/// Ethernet, IPv4 and TCP with timestamps.
pub const PACKET_HEADER_BYTES: f64 = 14.0 + 20.0 + 32.0;

/// Payload of a full packet.
pub const SEGMENT_BYTES: f64 = 1448.0;

/// One experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// As on the command line.
    pub name: String,
    /// What it asks, in a sentence or two.
    pub about: String,
    /// How long it is measured: what was asked for, or more where the timeline needs it.
    pub window: Duration,
    pub groups: Vec<GroupSpec>,
    /// A bottleneck that all groups share, behind which their own links lie.
    pub shared: Option<LinkShape>,
    /// In order of time.
    pub events: Vec<Event>,
    pub aims: Vec<Aim>,
}

impl Scenario {
    /// Without clients yet.
    pub fn new(name: &str, about: &str, window: Duration) -> Self {
        let (name, about) = (name.to_owned(), about.to_owned());
        Self { name, about, window, groups: Vec::new(), shared: None, events: Vec::new(), aims: Vec::new() }
    }
}

/// Clients that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSpec {
    pub name: String,
    /// Separate links, each with a client host of its own.
    pub links: usize,
    /// Streams at a time on each link.
    pub streams_per_link: usize,
    pub link: LinkShape,
    pub load: Load,
    /// Nothing is wrong with their links: `healthy_*` and `jain` are of these, or of everybody where no group is.
    pub healthy: bool,
    /// A reverse proxy stands between engine and clients; the links are behind it.
    pub proxied: bool,
}

impl GroupSpec {
    pub fn new(name: &str, links: usize, streams_per_link: usize, link: LinkShape) -> Self {
        Self { name: name.to_owned(), links, streams_per_link, link, load: Load::Continuous, healthy: false, proxied: false }
    }

    /// The same, healthy.
    pub fn healthy(self) -> Self {
        Self { healthy: true, ..self }
    }

    /// The same with another load.
    pub fn load(self, load: Load) -> Self {
        Self { load, ..self }
    }
}

/// What the streams of a group do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Long answers; who has one asks for the next.
    Continuous,
    /// The same, but the client reads only so many bytes per second, with a small receive buffer.
    SlowReader { bytes_per_s: u64 },
    /// On each link a new request, on a new connection, every so often, whatever became of the last: their time to first token is measured.
    Arrivals { every: Duration, max_tokens: usize },
}

/// Something that happens to the testbed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the beginning of the measured window.
    pub at: Duration,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Every link of a group becomes this.
    Shape { group: usize, link: LinkShape },
    /// The shared bottleneck becomes this.
    ShapeShared { link: LinkShape },
    /// The hint server is killed.
    KillHints,
    /// It comes back at the same address.
    StartHints,
}

/// What a run is measured by; the names of `summary.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    AchievedOverBound,
    EffectiveTokensPerS,
    HealthyTokensPerS,
    HealthyItlP50Ms,
    HealthyItlP99Ms,
    TtftP99Ms,
    /// Of one stream, unsent or unacknowledged in its socket.
    QueuedBytesP99,
    /// Of all streams together, in the engine and in sockets.
    HeldBytesP99,
    BottleneckRttP99Ms,
    Jain,
    /// Least health that the hint server or the stream's own chunks gave a healthy stream, or anybody where no group is healthy.
    HealthMin,
    /// After each opening of a link, the most by which a smoothed rate exceeds where it settles, as a fraction.
    Overshoot,
    /// After each change of a link, the longest time until the rate stays within a quarter of where it settles, seconds.
    ConvergenceS,
}

/// What a scenario aims at; met or missed by the median over rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aim {
    pub text: String,
    pub measure: Measure,
    pub mode: Mode,
    /// The value is the quotient by this mode's in the same round; where `None`, the measure itself.
    pub relative_to: Option<Mode>,
    pub wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}
