//! Two clients in network namespaces of their own; the link of one is throttled and freed while both stream.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokenflow_tests::{
    http,
    netns::Namespace,
    stream::{StreamOptions, TokenStream},
};

use super::{
    DemoArgs, Servers,
    table::{Observation, Row, Table},
};
use crate::interrupt;

/// The throttled link, and the bytes that may wait in its queue before packets are dropped.
const RATE: &str = "64kbit";
const QUEUE: &str = "60k";

const FREE_BEFORE: Duration = Duration::from_secs(4);
const THROTTLED: Duration = Duration::from_secs(7);
const FREE_AFTER: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_millis(500);

pub(super) fn run(servers: &Servers, args: &DemoArgs) -> anyhow::Result<()> {
    let (slow, healthy) = (Client::start(servers, args)?, Client::start(servers, args)?);
    println!(
        "Two clients stream, each in a network namespace of its own. The link of the first is throttled to {RATE}/s for {} s.\n",
        THROTTLED.as_secs()
    );
    let mut table = Table::begin();
    let observe = |link: &'static str, time: Duration, table: &mut Table| -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            interrupt::sleep(TICK)?;
            let connections = http::get_json(&servers.hint_server.url, "/connections")?;
            table.add(Row { link, slow: slow.observe(&connections), healthy: healthy.observe(&connections) });
        }
        Ok(())
    };
    observe("free", FREE_BEFORE, &mut table)?;
    slow.namespace.throttle(RATE, QUEUE)?;
    observe(RATE, THROTTLED, &mut table)?;
    slow.namespace.free()?;
    observe("free", FREE_AFTER, &mut table)?;
    table.summarise(THROTTLED)
}

/// One streaming client host.
struct Client {
    stream: TokenStream,
    // Dropped after the stream that lives in it.
    namespace: Arc<Namespace>,
}

impl Client {
    fn start(servers: &Servers, args: &DemoArgs) -> anyhow::Result<Self> {
        let namespace = Arc::new(Namespace::new()?);
        let port = http::address(&servers.engine.url)?.port();
        let server = (namespace.host, port).into();
        let total = FREE_BEFORE + THROTTLED + FREE_AFTER + Duration::from_secs(5);
        let tokens = (args.speed * total.as_secs_f64()) as usize;
        let info = http::get_json(&servers.engine.url, "/v1/models")?;
        let context = info["data"][0]["max_model_len"].as_u64().context("the engine names no max_model_len")? as usize;
        let stream = TokenStream::start(server, Some(namespace.clone()), StreamOptions::new(&args.prompt, tokens.min(context - 64)));
        Ok(Self { stream, namespace })
    }

    fn observe(&self, connections: &serde_json::Value) -> Observation {
        let mine = connections.as_array().into_iter().flatten().find(|c| {
            let peer = c["peer"].as_str().unwrap_or_default();
            self.stream.local().is_some_and(|local| peer == local.to_string())
        });
        Observation {
            rate: self.stream.recent_rate(Duration::from_secs(1)),
            health: mine.and_then(|c| c["health"].as_f64()),
            queued_bytes: mine.and_then(|c| c["undelivered_bytes"].as_u64()).unwrap_or(0),
        }
    }
}
