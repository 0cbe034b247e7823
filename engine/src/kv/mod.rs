//! Paged KV cache bookkeeping: which block belongs to whom. Pure; the memory itself is the backend's.
//!
//! Blocks are handed out and counted by [`BlockPool`]; a sequence holds its blocks, in order of position, in a [`BlockTable`].

mod block_pool;
mod block_table;

use serde::{Deserialize, Serialize};

pub use block_pool::BlockPool;
pub use block_table::BlockTable;

/// Index of a block in the pool; a block holds `block_size` tokens' keys and values in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockId(pub u32);
