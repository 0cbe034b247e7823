//! The hosts and links of a scenario: a client host for each link of each group.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Load, RoundTrip, Scenario};
use crate::netns::{ClientSpec, CongestionControl, Group, RttProbe, Topology, TopologySpec};

pub(super) struct Testbed {
    topology: Topology,
    /// For each client host, the scenario's group and which of its links.
    places: Vec<(usize, usize)>,
}

/// A stream at a time, or a link's arrivals.
pub(super) struct Place {
    pub group: usize,
    pub link: usize,
    pub host: Arc<Group>,
}

impl Testbed {
    /// # Errors
    /// When a link cannot be made.
    pub fn new(scenario: &Scenario, congestion_control: CongestionControl) -> anyhow::Result<Self> {
        let places: Vec<_> =
            scenario.groups.iter().enumerate().flat_map(|(group, spec)| (0..spec.links).map(move |link| (group, link))).collect();
        let client = |&(group, link): &(usize, usize)| {
            let spec = &scenario.groups[group];
            ClientSpec { name: format!("{}-{link}", spec.name), link: spec.link.clone(), congestion_control }
        };
        let spec = TopologySpec { clients: places.iter().map(client).collect(), shared: scenario.shared.clone() };
        Ok(Self { topology: Topology::new(&spec)?, places })
    }

    /// Puts every link back to the scenario's beginning.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn reset(&self) -> anyhow::Result<()> {
        self.topology.reset()
    }

    /// # Errors
    /// When `tc` refuses.
    pub fn shape(&self, group: usize, shape: &crate::netns::LinkShape) -> anyhow::Result<()> {
        let clients = self.places.iter().enumerate().filter(|(_, place)| place.0 == group);
        clients.map(|(client, _)| client).try_for_each(|client| self.topology.group(client).shape(shape))
    }

    /// # Errors
    /// When nothing is shared, or `tc` refuses.
    pub fn shape_shared(&self, shape: &crate::netns::LinkShape) -> anyhow::Result<()> {
        self.topology.shared().ok_or_else(|| anyhow::anyhow!("the scenario has no shared bottleneck"))?.shape(shape)
    }

    /// A seat for each stream at a time, or for each link of arrivals, in the order of [`super::Record::seats`].
    pub fn seats(&self, scenario: &Scenario) -> Vec<Place> {
        let mut seats = Vec::new();
        for (client, &(group, link)) in self.places.iter().enumerate() {
            let spec = &scenario.groups[group];
            let streams = if matches!(spec.load, Load::Arrivals { .. }) { 1 } else { spec.streams_per_link };
            seats.extend((0..streams).map(|_| Place { group, link, host: self.topology.group(client) }));
        }
        seats
    }

    /// Round trips through the first link of each group: its links are alike.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn probes(&self) -> anyhow::Result<Vec<(usize, RttProbe)>> {
        let first = self.places.iter().enumerate().filter(|(_, place)| place.1 == 0);
        first.map(|(client, place)| Ok((place.0, self.topology.group(client).rtt_probe()?))).collect()
    }
}

impl Testbed {
    /// The round trip that a packet sent now would have through the first link of each group whose way has a rate: what the queues need at
    /// that rate, and the fixed delays. Where a queue is full, the probes are among what it drops, and tell nothing.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn queues(&self, at: f64) -> anyhow::Result<Vec<RoundTrip>> {
        let mut trips = Vec::new();
        for (client, (group, _)) in self.places.iter().enumerate().filter(|(_, place)| place.1 == 0) {
            let host = self.topology.group(client);
            let way: Vec<_> = self.topology.shared().into_iter().chain([host.link()]).collect();
            if way.iter().all(|link| link.current().rate.is_none()) {
                continue;
            }
            let mut trip = Duration::ZERO;
            for link in way {
                trip += link.queue()?.delay + 2 * link.current().delay;
            }
            trips.push(RoundTrip { group: *group, at, ms: trip.as_secs_f64() * 1000.0 });
        }
        Ok(trips)
    }
}

/// What the probes saw of those sent before `end`, seconds. Those that never came back are left out: the link may have lost them.
pub(super) fn round_trips(probes: &[(usize, RttProbe)], seconds: impl Fn(std::time::Instant) -> f64, end: f64) -> Vec<RoundTrip> {
    let mut trips = Vec::new();
    for (group, probe) in probes {
        let back = probe.samples().into_iter().map(|sample| (seconds(sample.sent_at), sample.rtt.as_secs_f64() * 1000.0));
        trips.extend(back.map(|(at, ms)| RoundTrip { group: *group, at, ms }));
    }
    trips.retain(|trip| trip.at < end);
    trips
}

/// Where clients of a place connect to.
pub(super) fn server(place: &Place, port: u16) -> SocketAddr {
    (place.host.server_address(), port).into()
}
