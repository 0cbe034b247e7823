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

    /// Bits per second of a link that carries so many tokens per second, one token in a packet.
    pub fn bits_per_second(&self, tokens_per_s: f64) -> u64 {
        ((self.payload_bytes_per_token + PACKET_HEADER_BYTES) * 8.0 * tokens_per_s).round() as u64
    }

    /// Tokens per second of `streams` together: between measured points by the time of a step, which grows linearly.
    pub fn total(&self, streams: usize) -> f64 {
        streams as f64 / self.step_seconds(streams as f64)
    }

    /// Seconds of a step in which `batch` streams get a token each; linear between the measured points and beyond the last two.
    pub fn step_seconds(&self, batch: f64) -> f64 {
        let points: Vec<(f64, f64)> = self.throughput.iter().map(|&(n, rate)| (n as f64, n as f64 / rate)).collect();
        match points.as_slice() {
            [] => f64::INFINITY,
            [(n, seconds)] => seconds * (batch / n).max(1.0),
            [first, ..] if batch <= first.0 => first.1,
            [.., last_but_one, last] => {
                let pair = points.windows(2).find(|pair| batch <= pair[1].0).map_or((last_but_one, last), |pair| (&pair[0], &pair[1]));
                let ((n0, s0), (n1, s1)) = pair;
                s0 + (s1 - s0).max(0.0) * (batch - n0) / (n1 - n0)
            }
        }
    }
}

/// Ethernet, IPv4 and TCP with timestamps.
pub const PACKET_HEADER_BYTES: f64 = 14.0 + 20.0 + 32.0;

/// One experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// As on the command line.
    pub name: String,
    /// What it asks, in a sentence or two.
    pub about: String,
    pub groups: Vec<GroupSpec>,
    /// A bottleneck that all groups share, behind which their own links lie.
    pub shared: Option<LinkShape>,
    /// In order of time.
    pub events: Vec<Event>,
    pub aims: Vec<Aim>,
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
    QueuedBytesP99,
    BottleneckRttP99Ms,
    Jain,
    /// Least health that the hint server (where it is down: the stream's chunks) gave a healthy stream, or anybody where no group is healthy.
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
