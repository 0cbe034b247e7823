//! A link from one host to the next: rate and queue by `tbf` where packets leave for the client, loss by a classic BPF filter where they
//! arrive (they have used the link by then, as on a bad radio link), delay by a relay between two TUN devices.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{
    Host, LinkShape, QueueState,
    delay::{self, Relay},
    network::Network,
    queue::QueueReader,
    shape::FRAME_BYTES,
};

/// What the queue of a link is replaced by when its limit is lifted: so it drains and loses nothing.
const UNLIMITED: &str = "rate 10gbit burst 1m limit 10m";

/// A shaped link; `upstream` is the server's side.
pub struct Link {
    upstream: Arc<Host>,
    downstream: Arc<Host>,
    /// The upstream end's device.
    device: String,
    /// Where the link has delay.
    relay: Option<Relay>,
    state: Mutex<State>,
    queue: QueueReader,
    first: LinkShape,
}

struct State {
    shape: LinkShape,
    /// A rate has been set once: the device has a `tbf`.
    limited: bool,
    /// Likewise the filter.
    lossy: bool,
}

/// The downstream end's device.
pub(super) const DOWNSTREAM: &str = "uplink";

impl Link {
    /// Joins two hosts by a network.
    pub(super) fn new(
        upstream: &Arc<Host>,
        device: &str,
        downstream: &Arc<Host>,
        network: &Network,
        shape: &LinkShape,
    ) -> anyhow::Result<Self> {
        shape.validate()?;
        let relay = if shape.delay.is_zero() {
            let (peer, near, far) = (downstream.name(), network.near_mac(), network.far_mac());
            upstream.ip(&format!(
                "link add {device} address {near} gso_max_segs 1 type veth peer name {DOWNSTREAM} address {far} netns {peer}"
            ))?;
            None
        } else {
            let near = upstream.within(|| delay::open_tun(device))?;
            let far = downstream.within(|| delay::open_tun(DOWNSTREAM))?;
            Some(Relay::start(near, far, shape.delay)?)
        };
        let queue = upstream.within(|| QueueReader::open(device))?;
        let state = State { shape: LinkShape { delay: shape.delay, ..LinkShape::free() }, limited: false, lossy: false };
        let link = Self {
            upstream: upstream.clone(),
            downstream: downstream.clone(),
            device: device.to_owned(),
            relay,
            state: Mutex::new(state),
            queue,
            first: shape.clone(),
        };
        link.shape(shape)?;
        link.up(network)?;
        Ok(link)
    }

    fn up(&self, network: &Network) -> anyhow::Result<()> {
        let (near, far) = (network.near(), network.far());
        let mut ends = [
            format!("addr add {near}/30 dev {0}\nlink set {0} up\n", self.device),
            format!("addr add {far}/30 dev {DOWNSTREAM}\nlink set {DOWNSTREAM} up\n"),
        ];
        if self.relay.is_none() {
            // Answers of ARP would wait in the queue, until who asked gives up.
            ends[0] += &format!("neigh add {far} lladdr {} dev {} nud permanent\n", network.far_mac(), self.device);
            ends[1] += &format!("neigh add {near} lladdr {} dev {DOWNSTREAM} nud permanent\n", network.near_mac());
        }
        self.upstream.ip(&ends[0])?;
        self.downstream.ip(&ends[1])
    }

    /// Changes the link. Packets in its queue stay there.
    ///
    /// # Errors
    /// When the shape cannot be (the message names the field), or asks delay of a link that was made without, or `tc` refuses.
    pub fn shape(&self, shape: &LinkShape) -> anyhow::Result<()> {
        shape.validate()?;
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &self.relay {
            Some(relay) => relay.set_delay(shape.delay),
            None => ensure!(shape.delay.is_zero(), "delay: a link that began without delay cannot get one"),
        }
        if shape.rate.is_some() || state.limited {
            self.limit(shape).context("cannot limit the rate")?;
            state.limited = true;
        }
        if shape.loss > 0.0 || state.lossy {
            self.lose(shape.loss, state.lossy).context("cannot set the loss")?;
            state.lossy = true;
        }
        state.shape = shape.clone();
        Ok(())
    }

    /// Changes the link back to what it began as.
    pub(super) fn restore(&self) -> anyhow::Result<()> {
        self.shape(&self.first)
    }

    /// What the link does now.
    pub fn current(&self) -> LinkShape {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).shape.clone()
    }

    /// What waits at the bottleneck now, and how long it will take; empty where the link has never had a rate.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn queue(&self) -> anyhow::Result<QueueState> {
        let rate = self.current().rate;
        if !self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).limited {
            return Ok(QueueState::default());
        }
        let mut state = self.queue.read()?;
        state.delay = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(state.bytes as f64 * 8.0 / rate as f64));
        Ok(state)
    }

    fn limit(&self, shape: &LinkShape) -> anyhow::Result<()> {
        let limits = shape.rate.map_or(UNLIMITED.to_owned(), |rate| {
            // A millisecond's worth, as timers go, and a full packet at least: some more, since `tc` rounds it down to whole clock ticks.
            let burst = (rate / 8_000).max(FRAME_BYTES + 86);
            format!("rate {rate}bit burst {burst} limit {}", shape.queue_bytes)
        });
        // Packets on a TUN device have no Ethernet header; links with and without delay shall be equally fast.
        let overhead = if self.relay.is_some() { "overhead 14" } else { "" };
        self.upstream.tc(&format!("qdisc replace dev {} root handle 1: tbf {limits} {overhead}", self.device))
    }

    fn lose(&self, fraction: f64, again: bool) -> anyhow::Result<()> {
        let threshold = (fraction * 4_294_967_296.0) as u32;
        // Load a random word (an ancillary load); pass (0) from the threshold on, below it drop (2). See linux/filter.h and linux/pkt_cls.h.
        let program = format!("4,32 0 0 4294963256,53 1 0 {threshold},6 0 0 2,6 0 0 0");
        let hook = if again { String::new() } else { format!("qdisc add dev {DOWNSTREAM} clsact\n") };
        self.downstream
            .tc(&format!("{hook}filter replace dev {DOWNSTREAM} ingress protocol ip pref 1 handle 1 bpf da bytecode \"{program}\""))
    }
}
