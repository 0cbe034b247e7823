//! Where the KV of sequences goes that lose their blocks: to host memory where that has room and copying back costs less than computing
//! again; otherwise it is computed again.
//!
//! A stream that has been stalled for [`PARK_AFTER`] is parked: it keeps its KV and, since it does not run, no seat ([`super::seats`]).
//! Its blocks go to the host as soon as others need them, or after [`OFFLOAD_AFTER`] more. Only what it alone holds is copied: blocks that
//! others use stay where they are, and are found again as any prefix is; where they are gone by then, the copy is worth nothing.
//!
//! Copies are part of the plan, in the order that keeps them right: to the host first, so that the blocks may be used for something else
//! in the same step; back last, so that nothing of the step reads what they overwrite. Host blocks that are read are free after the plan.

use std::time::Duration;

use super::{BlockTransfer, Scheduler, pacing::PARK_AFTER, queued::Sequence};
use crate::kv::{HostBlockId, HostPool};

/// How long a parked stream's blocks stay on the device although nobody needs them.
pub const OFFLOAD_AFTER: Duration = Duration::from_secs(8);

/// The KV of a sequence in host memory.
#[derive(Clone, Debug)]
pub(super) struct HostTable {
    /// The place in the sequence's block table of what the first block holds.
    first: usize,
    blocks: Vec<HostBlockId>,
    /// Tokens whose KV is stored, those before the first block included.
    num_tokens: usize,
    /// The step that copies it there.
    written_in: u64,
}

impl HostTable {
    pub(super) fn blocks(&self) -> &[HostBlockId] {
        &self.blocks
    }

    pub(super) fn release(self, host: &mut HostPool) {
        host.release(self.blocks);
    }

    /// Whether the first `found_blocks`, which are on the device, do not reach the first of its own.
    pub(super) fn starts_after(&self, found_blocks: usize) -> bool {
        self.first > found_blocks
    }

    /// Tokens that need not be computed where the first `found_tokens` are on the device.
    pub(super) fn num_stored(&self, found_tokens: usize, block_size: usize) -> usize {
        if self.first * block_size <= found_tokens { self.num_tokens.max(found_tokens) } else { found_tokens }
    }
}

impl Scheduler {
    /// Copies the blocks of streams to the host that have been parked for long. Returns how many lost their place.
    pub(super) fn offload_parked(&mut self, now: Duration) -> usize {
        if self.host.num_free() == 0 {
            return 0;
        }
        let before = self.preempted.len();
        for i in (0..self.running.len()).rev() {
            if self.running[i].is_stalled(now, PARK_AFTER + OFFLOAD_AFTER)
                && let Some(table) = self.offload(i)
            {
                self.running[i].host = Some(table);
                self.evict(i);
            }
        }
        self.preempted.len() - before
    }

    /// Takes a running sequence's blocks away, to the host where that pays.
    pub(super) fn preempt(&mut self, i: usize) {
        if self.running[i].host.is_none() {
            self.running[i].host = self.offload(i);
        }
        self.running[i].preemptions += 1;
        self.last.preemptions += 1;
        self.evict(i);
    }

    pub(super) fn evict(&mut self, i: usize) {
        let mut sequence = self.running.remove(i);
        // One that this plan was to bring back stays where it is.
        if let Some(table) = sequence.host.as_ref().filter(|_| sequence.started_in == Some(self.next_step)) {
            self.onload.retain(|transfer| !table.blocks.contains(&transfer.host));
        }
        self.seats -= sequence.presence;
        sequence.leave_device(&mut self.pool, &mut self.accounts);
        self.preempted.push(sequence);
    }

    /// Plans the copies of what a running sequence alone holds; `None` where they do not pay or find no room.
    fn offload(&mut self, i: usize) -> Option<HostTable> {
        let sequence = &self.running[i];
        // What this plan has started is not on the device yet.
        if self.host.num_blocks() == 0 || sequence.started_in == Some(self.next_step) || !sequence.looks_up_prefix() {
            return None;
        }
        let num_tokens = sequence.num_computed_tokens;
        let blocks = &sequence.block_table.blocks()[..self.pool.blocks_for(num_tokens)];
        let first = blocks.iter().take_while(|&&block| self.pool.ref_count(block) > 1).count();
        let own = &blocks[first..];
        let copying = 2.0 * own.len() as f64 * self.config.block_copy_time.as_secs_f64();
        let computing = (num_tokens - (first * self.config.block_size).min(num_tokens)) as f64 * self.prefill_token_s.unwrap_or(f64::MAX);
        if own.is_empty() || copying > computing {
            return None;
        }
        let host = self.host.allocate(own.len())?;
        self.offload.extend(own.iter().zip(&host).map(|(&device, &host)| BlockTransfer { device, host }));
        self.last.offloaded_blocks += own.len() as u64;
        Some(HostTable { first, blocks: host, num_tokens, written_in: self.next_step })
    }

    /// Plans the copies back to a sequence that starts again, whose table begins with what was found and covers all its tokens.
    pub(super) fn onload(&mut self, sequence: &mut Sequence) {
        let Some(table) = &sequence.host else { return };
        let (found, size) = (sequence.num_computed_tokens, self.config.block_size);
        let stored = table.num_stored(found, size);
        if stored == found {
            sequence.host.take().into_iter().for_each(|table| table.release(&mut self.host));
            return;
        }
        let places = sequence.block_table.blocks()[table.first..].iter().zip(&table.blocks).skip(found / size - table.first);
        self.onload.extend(places.map(|(&device, &host)| BlockTransfer { device, host }));
        sequence.num_computed_tokens = stored;
    }

    /// The plan is made: nobody else will write the host blocks that it reads before it does.
    pub(super) fn release_onloaded(&mut self) {
        if self.onload.is_empty() {
            return;
        }
        self.last.onloaded_blocks += self.onload.len() as u64;
        for sequence in &mut self.running {
            sequence.host.take().into_iter().for_each(|table| table.release(&mut self.host));
        }
    }

    /// The copies of a step that failed, and of those after it, cannot be relied on.
    pub(super) fn forget_offloaded_since(&mut self, step: u64) {
        for sequence in &mut self.waiting {
            if let Some(table) = sequence.host.take_if(|table| table.written_in >= step) {
                table.release(&mut self.host);
            }
        }
    }
}
