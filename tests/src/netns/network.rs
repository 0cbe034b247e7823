//! Networks of two addresses out of 10.83.0.0/16: a block of them for each process, each handed out once at a time.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Mutex};

use anyhow::Context;

use super::commands::run;

/// A block is a /22: 256 networks of two addresses.
const BLOCKS: u32 = 64;
const PER_BLOCK: u32 = 256;

struct Pool {
    block: u32,
    used: BTreeSet<u32>,
    /// Where the search for a free one goes on: a network that was given back rests a while.
    next: u32,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// A /30 network; given back when dropped.
pub(super) struct Network {
    index: u32,
    base: Ipv4Addr,
}

impl Network {
    /// # Errors
    /// When all are in use.
    pub(super) fn take() -> anyhow::Result<Self> {
        let mut slot = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if slot.is_none() {
            *slot = Some(Pool { block: free_block()?, used: BTreeSet::new(), next: 0 });
        }
        let pool = slot.as_mut().context("the pool has been made")?;
        let free = (0..PER_BLOCK).map(|n| (pool.next + n) % PER_BLOCK).find(|n| !pool.used.contains(n));
        let index = free.context("all networks of the testbed are in use")?;
        pool.used.insert(index);
        pool.next = index + 1;
        Ok(Self { index, base: Ipv4Addr::from_bits(block_base(pool.block).to_bits() + index * 4) })
    }

    /// The address nearer to the server.
    pub(super) fn near(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + 1)
    }

    /// The address nearer to the client.
    pub(super) fn far(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + 2)
    }

    pub(super) fn near_mac(&self) -> String {
        mac(self.near())
    }

    pub(super) fn far_mac(&self) -> String {
        mac(self.far())
    }

    /// As a route's destination.
    pub(super) fn prefix(&self) -> String {
        format!("{}/30", self.base)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(pool) = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_mut() {
            pool.used.remove(&self.index);
        }
    }
}

/// A locally administered address that a network's other end can know.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Has the kernel forget round trips and windows of earlier connections into our block: they would be the first ones of new connections.
pub(super) fn forget_connections() {
    let block = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_ref().map(|pool| format!("{}/22", block_base(pool.block)));
    if let Some(block) = block {
        // A kernel that keeps no such memory has none to flush.
        let _ = run("ip", &["tcp_metrics", "flush", &block]);
    }
}

/// A block to which this host has no routes: another process may be using its own.
fn free_block() -> anyhow::Result<u32> {
    let first = std::process::id() % BLOCKS;
    for block in (0..BLOCKS).map(|n| (first + n) % BLOCKS) {
        if run("ip", &["-4", "route", "show", "root", &format!("{}/22", block_base(block))])?.trim().is_empty() {
            return Ok(block);
        }
    }
    anyhow::bail!("this host has routes to all of 10.83.0.0/16")
}

fn block_base(block: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 83, 0, 0).to_bits() + block * PER_BLOCK * 4)
}
