//! Clients behind routers: `host -- router == link == client` for each group, or, where all share a bottleneck,
//! `host -- router A == shared link == router B == link == client`.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context;

use super::{
    ClientHost, CongestionControl, Host, Link, LinkShape, RttProbe,
    commands::{batch, run},
    host::device_name,
    link::DOWNSTREAM,
    network::{self, Network},
};

/// For queues to run empty at full speed.
const DRAIN: Duration = Duration::from_millis(200);

/// Which hosts and links there are.
#[derive(Clone, Debug, Default)]
pub struct TopologySpec {
    /// One client host each, behind a link of its own.
    pub clients: Vec<ClientSpec>,
    /// Before these links, one through which all go.
    pub shared: Option<LinkShape>,
}

#[derive(Clone, Debug)]
pub struct ClientSpec {
    pub name: String,
    pub link: LinkShape,
    /// The server's, towards these clients.
    pub congestion_control: CongestionControl,
}

/// Hosts and links; all go when it and the last [`Group`] are dropped.
pub struct Topology {
    groups: Vec<Arc<Group>>,
    shared: Option<Arc<Link>>,
}

/// One client host and the link before it.
pub struct Group {
    name: String,
    // Dropped in this order: the links, then the hosts that they join.
    link: Link,
    client: Arc<Host>,
    network: Network,
    uplink: Arc<Uplink>,
    shared: Option<Arc<SharedPath>>,
}

impl Topology {
    /// # Errors
    /// When a shape cannot be, or `ip` or `tc` refuses; the message is its own.
    pub fn new(spec: &TopologySpec) -> anyhow::Result<Self> {
        let shared = spec.shared.as_ref().map(SharedPath::new).transpose().context("shared bottleneck")?.map(Arc::new);
        let groups: anyhow::Result<Vec<_>> = spec
            .clients
            .iter()
            .enumerate()
            .map(|(n, client)| Ok(Arc::new(Group::new(client, n, shared.clone()).with_context(|| format!("group {}", client.name))?)))
            .collect();
        network::forget_connections();
        Ok(Self { groups: groups?, shared: shared.map(|path| path.link.clone()) })
    }

    /// The group of the spec's n-th entry.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn group(&self, n: usize) -> Arc<Group> {
        self.groups[n].clone()
    }

    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// Makes it as new for the next run: queues run empty (which may take a slow link long), every link has its first shape again,
    /// and the kernel forgets what earlier connections were like.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn reset(&self) -> anyhow::Result<()> {
        let links = || self.groups.iter().map(|group| &group.link).chain(self.shared());
        let mut longest = Duration::ZERO;
        for link in links() {
            let delay = link.current().delay;
            longest = longest.max(delay);
            link.shape(&LinkShape::free().delay(delay))?;
        }
        // Peers that are gone answer what was queued for them, which ends the last of the server's sockets.
        std::thread::sleep(DRAIN + 4 * longest);
        links().try_for_each(Link::restore)?;
        network::forget_connections();
        Ok(())
    }

    /// The link that all groups share, where the spec has one.
    pub fn shared(&self) -> Option<&Link> {
        self.shared.as_deref()
    }
}

impl Group {
    fn new(spec: &ClientSpec, n: usize, shared: Option<Arc<SharedPath>>) -> anyhow::Result<Self> {
        let (network, client) = (Network::take()?, Arc::new(Host::new()?));
        let uplink = match &shared {
            Some(path) => path.uplink.clone(),
            None => Arc::new(Uplink::new()?),
        };
        let router = shared.as_ref().map_or(&uplink.router, |path| &path.router);
        let device = format!("d{n}");
        let link = Link::new(router, &device, &client, &network, &spec.link)?;
        client.ip(&format!("route add default via {}", network.near()))?;
        if let Some(path) = &shared {
            path.uplink.router.ip(&format!("route add {} via {}", network.prefix(), path.network.far()))?;
        }
        let group = Self { name: spec.name.clone(), link, client, network, uplink, shared };
        group.route(spec.congestion_control)?;
        Ok(group)
    }

    /// Our route to the client: sockets accepted from it take over its congestion control.
    fn route(&self, congestion_control: CongestionControl) -> anyhow::Result<()> {
        let (prefix, router, device) = (self.network.prefix(), self.uplink.network.far(), &self.uplink.device);
        batch("ip", None, &format!("route add {prefix} via {router} dev {device} congctl {}", congestion_control.name()))?;
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Our address, to which the clients connect.
    pub fn server_address(&self) -> Ipv4Addr {
        self.uplink.network.near()
    }

    /// The client host's address.
    pub fn client_address(&self) -> Ipv4Addr {
        self.network.far()
    }

    /// The client host.
    pub fn client(&self) -> &Arc<Host> {
        &self.client
    }

    /// The group's own link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Changes the group's own link while it runs.
    ///
    /// # Errors
    /// As [`Link::shape`].
    pub fn shape(&self, shape: &LinkShape) -> anyhow::Result<()> {
        self.link.shape(shape).with_context(|| format!("group {}", self.name))
    }

    /// Measures the round trip between us and the client host, at 20 Hz, or less often where that would take more than a fiftieth of a link's
    /// present rate (read [`Link::queue`] there).
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn rtt_probe(&self) -> anyhow::Result<RttProbe> {
        let rates = [Some(self.link.current().rate), self.shared.as_ref().map(|path| path.link.current().rate)];
        let slowest = rates.into_iter().flatten().flatten().min();
        RttProbe::start(self.server_address(), &self.client, self.client_address(), slowest)
    }
}

impl ClientHost for Group {
    fn enter(&self) -> anyhow::Result<()> {
        self.client.enter()
    }
}

/// An unshaped link from us to a router.
struct Uplink {
    /// Our end.
    device: String,
    router: Arc<Host>,
    network: Network,
}

impl Uplink {
    fn new() -> anyhow::Result<Self> {
        let uplink = Self { device: device_name(), router: Arc::new(Host::router()?), network: Network::take()? };
        let (device, near, far) = (&uplink.device, uplink.network.near(), uplink.network.far());
        // Segments of 64 KB would pass a router as one packet.
        batch(
            "ip",
            None,
            &format!(
                "link add {device} gso_max_segs 1 type veth peer name {DOWNSTREAM} netns {}\naddr add {near}/30 dev {device}\nlink set {device} up",
                uplink.router.name()
            ),
        )?;
        uplink.router.ip(&format!("addr add {far}/30 dev {DOWNSTREAM}\nlink set {DOWNSTREAM} up"))?;
        Ok(uplink)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        // The routes through it go with it.
        let _ = run("ip", &["link", "del", &self.device]);
    }
}

/// Router A, the shared link, router B.
struct SharedPath {
    link: Arc<Link>,
    uplink: Arc<Uplink>,
    router: Arc<Host>,
    network: Network,
}

impl SharedPath {
    fn new(shape: &LinkShape) -> anyhow::Result<Self> {
        let uplink = Arc::new(Uplink::new()?);
        let (router, network) = (Arc::new(Host::router()?), Network::take()?);
        let link = Arc::new(Link::new(&uplink.router, "shared", &router, &network, shape)?);
        router.ip(&format!("route add default via {}", network.near()))?;
        Ok(Self { link, uplink, router, network })
    }
}
