//! The exchange with Redis: every half second our word goes in and the others' come out, every wait bounded, reconnecting with backoff.
//!
//! One key per host (`tokenflow:hints:v1:HOST`, gone by itself after three seconds) and a sorted set of the hosts' names by when they last
//! wrote (`tokenflow:hints:v1`), so that nobody has to search the key space.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tokenflow_hint_api::Backoff;
use tokio::time::{sleep, timeout};

use super::{
    EXPIRES, HostReport, MAX_CONNECTIONS, MAX_HOSTS, MAX_REMOTE_CONNECTIONS, PeerTable,
    report::{MAX_BYTES, is_host_name},
};
use crate::publish::Feed;

const EVERY: Duration = Duration::from_millis(500);
/// A connection attempt, or one exchange.
const PATIENCE: Duration = Duration::from_secs(1);
const HOSTS: &str = "tokenflow:hints:v1";
/// Names that nobody wrote under for this long are dropped from the set; long enough for hosts whose clocks differ.
const NAMES_EXPIRE: Duration = Duration::from_secs(60);
/// Others' reports per exchange: what one answer may hold is bounded by it.
const READ_AT_ONCE: usize = 8;

/// How the exchange goes.
#[derive(Debug, Default)]
pub struct ShareStatus {
    pub connected: AtomicBool,
    pub exchanges: AtomicU64,
    pub errors: AtomicU64,
    /// Others' reports that were not understood.
    pub refused: AtomicU64,
}

/// Our part in the exchange and what came of it.
pub struct Share {
    client: Client,
    pub host: String,
    run: u64,
    table: ArcSwap<PeerTable>,
    pub status: ShareStatus,
}

impl Share {
    /// Reads the flags; connects to nothing yet.
    ///
    /// # Errors
    /// When the URL or the name will not do.
    pub fn new(url: &str, host: Option<&str>) -> anyhow::Result<Arc<Self>> {
        // The crate's own message may hold the URL, and the URL a password.
        let client = Client::open(url).ok().context("--redis: not a URL such as redis://HOST:6379 or redis+unix:///PATH")?;
        let host = host.map_or_else(own_host_name, |host| Ok(host.to_owned()))?;
        anyhow::ensure!(is_host_name(&host), "--host-name '{host}': may hold letters, digits, dots, hyphens and underscores alone");
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Ok(Arc::new(Self { client, host, run, table: ArcSwap::default(), status: ShareStatus::default() }))
    }

    /// What is known of the others. Does not wait.
    pub fn table(&self) -> Arc<PeerTable> {
        self.table.load_full()
    }

    /// Exchanges until dropped, and tells readers of this host of the others' connections.
    pub async fn run(self: Arc<Self>, feed: Arc<Feed>) {
        tokio::join!(self.exchange_for_ever(&feed), self.tell(&feed));
    }

    /// On its own clock: what was once heard is taken back also when Redis is gone.
    async fn tell(&self, feed: &Feed) {
        loop {
            feed.tell_others(self.table().troubled(feed.now()));
            sleep(EVERY).await;
        }
    }

    async fn exchange_for_ever(&self, feed: &Arc<Feed>) {
        let (mut backoff, mut said, mut seq) = (Backoff::default(), false, 0);
        tracing::info!("sharing connections with other hosts as {}", self.host);
        loop {
            let error = match self.connect().await {
                Ok(connection) => self.exchange_until_error(connection, feed, &mut backoff, &mut seq).await,
                Err(error) => error,
            };
            let was_connected = self.status.connected.swap(false, Relaxed);
            self.status.errors.fetch_add(1, Relaxed);
            if was_connected || !said {
                tracing::warn!("--redis: {error:#}; going on without the other hosts");
                said = true;
            }
            sleep(backoff.next_wait()).await;
        }
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        in_time(self.client.get_multiplexed_async_connection_with_config(&config)).await.context("cannot connect")
    }

    async fn exchange_until_error(
        &self,
        mut connection: MultiplexedConnection,
        feed: &Arc<Feed>,
        backoff: &mut Backoff,
        seq: &mut u64,
    ) -> anyhow::Error {
        loop {
            *seq += 1;
            if let Err(error) = self.exchange(&mut connection, feed, *seq).await {
                return error;
            }
            backoff.reset();
            self.status.exchanges.fetch_add(1, Relaxed);
            if !self.status.connected.swap(true, Relaxed) {
                tracing::info!("--redis: connected");
            }
            sleep(EVERY).await;
        }
    }

    /// Our word in, the names of the others out, then their words, a few at a time.
    async fn exchange(&self, connection: &mut MultiplexedConnection, feed: &Arc<Feed>, seq: u64) -> anyhow::Result<()> {
        let (host, run, ours) = (self.host.clone(), self.run, Arc::clone(feed));
        let report = blocking(move || {
            let now = ours.now();
            let (tracked, connections) = {
                let tracker = ours.tracker();
                (tracker.len() as u64, tracker.worst(now, MAX_CONNECTIONS))
            };
            HostReport::new(&host, run, seq, ours.hint(), tracked, connections).json()
        })
        .await?;
        let wrote_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut write = redis::pipe();
        write.cmd("SET").arg(key(&self.host)).arg(report).arg("PX").arg(EXPIRES.as_millis() as u64).ignore();
        write.cmd("ZADD").arg(HOSTS).arg(wrote_at.as_secs_f64()).arg(&self.host).ignore();
        write.cmd("ZREMRANGEBYSCORE").arg(HOSTS).arg("-inf").arg(wrote_at.saturating_sub(NAMES_EXPIRE).as_secs_f64()).ignore();
        write.cmd("PEXPIRE").arg(HOSTS).arg(NAMES_EXPIRE.as_millis() as u64).ignore();
        write.cmd("ZREVRANGE").arg(HOSTS).arg(0).arg(MAX_HOSTS);
        let (names,): (Vec<Vec<u8>>,) = in_time(write.query_async(connection)).await.context("cannot exchange")?;

        let names: Vec<String> = names
            .into_iter()
            .filter_map(|name| String::from_utf8(name).ok())
            .filter(|name| is_host_name(name) && *name != self.host)
            .take(MAX_HOSTS)
            .collect();
        let mut reports = Vec::new();
        let most_each = MAX_REMOTE_CONNECTIONS / names.len().max(1);
        for names in names.chunks(READ_AT_ONCE) {
            let mut read = redis::pipe();
            for name in names {
                // One byte more than may be is enough to refuse it.
                read.cmd("GETRANGE").arg(key(name)).arg(0).arg(MAX_BYTES);
            }
            let values: Vec<Vec<u8>> = in_time(read.query_async(connection)).await.context("cannot read the other hosts' reports")?;
            let names = names.to_vec();
            let parsed =
                blocking(move || names.iter().zip(values).map(|(name, value)| parse(name, &value, most_each)).collect::<Vec<_>>()).await?;
            let found = parsed.iter().flatten().count();
            let refused = parsed.iter().filter(|outcome| matches!(outcome, Some(Err(())))).count();
            self.status.refused.fetch_add(refused as u64, Relaxed);
            reports.reserve(found);
            reports.extend(parsed.into_iter().flatten().flatten());
        }
        self.table.store(Arc::new(self.table().after(feed.now(), reports)));
        Ok(())
    }
}

/// The report with at most so many connections; `None` where the host's key is gone, which reads as empty.
fn parse(host: &str, value: &[u8], most: usize) -> Option<Result<HostReport, ()>> {
    if value.is_empty() {
        return None;
    }
    let mut read = HostReport::parse(host, value).map_err(|error| tracing::debug!("--redis: the report of {host} is refused: {error}"));
    if let Ok(report) = &mut read {
        report.shorten(most);
    }
    Some(read)
}

fn key(host: &str) -> String {
    format!("{HOSTS}:{host}")
}

async fn in_time<T>(call: impl Future<Output = redis::RedisResult<T>>) -> anyhow::Result<T> {
    // Its sources say the same once more.
    timeout(PATIENCE, call).await.context("no answer in time")?.map_err(|error| anyhow::anyhow!("{error}"))
}

/// A report may be megabytes: neither made nor read on the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn own_host_name() -> anyhow::Result<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("--host-name is not given, and the host has no name to read")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::tests::{connection, hint},
        *,
    };

    #[test]
    fn a_report_keeps_no_more_than_its_share() {
        let connections = (0..40).map(|cookie| connection(cookie, 0.5)).collect();
        let value = HostReport::new("a", 1, 1, hint(), 40, connections).json();
        let report = parse("a", &value, 16).unwrap().unwrap();
        assert_eq!((report.connections.len(), report.tracked, report.connections[0].cookie), (16, 40, 0));
        assert!(report.connections.capacity() < 40);
        assert!(parse("a", b"", 16).is_none() && parse("a", b"x", 16).unwrap().is_err());
    }
}
