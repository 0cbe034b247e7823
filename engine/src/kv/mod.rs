//! Paged KV cache bookkeeping: which block belongs to whom, and which content is known. Pure; the memory itself is the backend's.
//!
//! Blocks are handed out and counted by [`BlockPool`]; a sequence holds its blocks, in order of position, in a [`BlockTable`]. Full
//! blocks are made known by what they hold and what stands before, so that later sequences with the same prefix share them. [`HostPool`]
//! counts blocks of host memory, where those wait that had to give way.

mod block_pool;
mod block_table;
mod free_list;
mod host_pool;
mod prefix_cache;

use serde::{Deserialize, Serialize};

pub use block_pool::BlockPool;
pub use block_table::BlockTable;
pub use host_pool::{HostBlockId, HostPool};
pub use prefix_cache::CacheScope;

/// Index of a block in the pool; a block holds `block_size` tokens' keys and values in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockId(pub u32);
