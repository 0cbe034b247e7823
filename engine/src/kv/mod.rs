//! Paged KV cache bookkeeping: which block belongs to whom. Pure; the memory itself is the backend's.

use serde::{Deserialize, Serialize};

/// Index of a block in the pool; a block holds `block_size` tokens' keys and values in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockId(pub u32);
