//! One run: fresh servers and connections, a warm-up, the measured window with its timeline, and what was seen.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{
    Action, Record, Sample, Scenario, Variant,
    clients::Clients,
    servers::Servers,
    testbed::{self, Testbed},
};
use crate::{http, proxy::Proxy};

/// From the first request to the measured window: prompts are computed, connections have left slow start, pacing has settled.
pub const WARM_UP: Duration = Duration::from_secs(2);

/// Longest wait for every stream's first token.
const FIRST_TOKENS: Duration = Duration::from_secs(30);

/// Between looks at the hint server's connections.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// Between looks at who has ended.
const TICK: Duration = Duration::from_millis(2);

/// What all runs of an experiment have in common.
pub(super) struct Setup<'a> {
    /// The model's folder.
    pub model: &'a Path,
    pub engine_flags: &'a [String],
    /// Asked some hundred times a second.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Runs it.
///
/// # Errors
/// When a server does not start, a stream breaks off, or it is cancelled.
pub(super) fn run(scenario: &Scenario, testbed: &Testbed, variant: &Variant, setup: &Setup) -> anyhow::Result<Record> {
    testbed.reset()?;
    let mut servers = Servers::start(setup.model, variant, setup.engine_flags)?;
    ensure!(servers.probe()? == "ebpf", "the kernel program is not attached, see the hint server's log");
    let proxied = scenario.groups.iter().any(|group| group.proxied);
    let proxy = proxied.then(|| Proxy::start((std::net::Ipv4Addr::LOCALHOST, servers.port).into())).transpose()?;
    let clients = Clients::start(scenario, testbed.seats(scenario), |place, group| {
        let through = proxy.as_ref().filter(|_| group.proxied);
        testbed::server(place, through.map_or(servers.port, |proxy| proxy.address.port()))
    });
    let probes = testbed.probes()?;

    let until = |end: Instant, condition: &dyn Fn() -> bool| -> anyhow::Result<()> {
        while Instant::now() < end && !condition() {
            if (setup.cancelled)() {
                bail!("interrupted");
            }
            clients.tick().context("a stream broke off")?;
            std::thread::sleep(TICK);
        }
        Ok(())
    };
    let asked = Instant::now();
    until(asked + FIRST_TOKENS, &|| clients.all_stream())?;
    ensure!(clients.all_stream(), "not every stream has a token after {FIRST_TOKENS:?}:\n{}", servers.engine.log());
    until(asked.max(Instant::now() - WARM_UP / 2) + WARM_UP, &|| false)?;

    let began = Instant::now();
    let before = servers.processor_seconds();
    let (mut samples, mut queues) = (Vec::new(), Vec::new());
    let mut events = scenario.events.iter().filter(|event| event.at < scenario.window).peekable();
    let mut next_sample = began;
    while began.elapsed() < scenario.window {
        // Also where samples take longer than the time between them.
        if (setup.cancelled)() {
            bail!("interrupted");
        }
        clients.tick().context("a stream broke off")?;
        if let Some(event) = events.next_if(|event| event.at <= began.elapsed()) {
            match &event.action {
                Action::Shape { group, link } => testbed.shape(*group, link)?,
                Action::ShapeShared { link } => testbed.shape_shared(link)?,
                Action::KillHints => servers.kill_hints(),
                Action::StartHints => servers.start_hints()?,
            }
        } else if Instant::now() >= next_sample {
            let at = began.elapsed().as_secs_f64();
            queues.extend(testbed.queues(at)?);
            samples.extend(servers.hint_url().and_then(|url| sample(url, &servers.engine.url, &clients, at)));
            next_sample = (next_sample + SAMPLE_INTERVAL).max(Instant::now());
        }
        let next_event = events.peek().map(|event| began + event.at);
        until(next_event.map_or(next_sample, |at| at.min(next_sample)), &|| false)?;
    }
    let after = servers.processor_seconds();
    let seconds = began.elapsed().as_secs_f64();
    let spent = |(name, then): &(String, f64)| {
        let now = after.iter().find(|(other, _)| other == name).map_or(*then, |(_, now)| *now);
        (name.clone(), ((now - then) / seconds).max(0.0))
    };
    let cores = before.iter().map(spent).collect();
    let since = |at: Instant| if at >= began { (at - began).as_secs_f64() } else { -(began - at).as_secs_f64() };
    let mut round_trips = testbed::round_trips(&probes, since, scenario.window.as_secs_f64());
    round_trips.extend(queues);
    Ok(Record { seats: clients.finish(began), samples, round_trips, cores })
}

/// What the hint server says of each seat's connection, and the engine of all; `None` when the hint server does not answer.
fn sample(hint_url: &str, engine_url: &str, clients: &Clients, at: f64) -> Option<Sample> {
    let connections = http::get_json(hint_url, "/connections").ok()?;
    let rows: HashMap<&str, &Value> = connections.as_array()?.iter().filter_map(|row| Some((row["peer"].as_str()?, row))).collect();
    let mut sample = Sample { at, held_bytes: held_bytes(engine_url), ..Sample::default() };
    for address in clients.addresses() {
        let row = address.and_then(|address| rows.get(address.to_string().as_str()).copied());
        sample.undelivered_bytes.push(row.and_then(|row| row["undelivered_bytes"].as_u64()));
        sample.health.push(row.and_then(|row| row["health"].as_f64()));
    }
    Some(sample)
}

fn held_bytes(engine_url: &str) -> Option<u64> {
    let metrics = http::get_text(engine_url, "/metrics").ok()?;
    let line = metrics.lines().find(|line| line.starts_with("tokenflow:undelivered_bytes{"))?;
    line.rsplit(' ').next()?.parse::<f64>().ok().map(|bytes| bytes as u64)
}
