//! How many blocks the KV cache has, on the device and in the host's memory, and which context length they hold. Pure arithmetic.

use super::LoadError;
use crate::{config::EngineConfig, executor::CacheSize};

/// What is asked of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// Of one block over all layers.
    pub(super) block_bytes: usize,
    /// The context length that is asked for, or else the model's.
    pub(super) longest: usize,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sized {
    pub(super) cache: CacheSize,
    /// The context length that the cache holds at least once.
    pub(super) max_model_len: usize,
}

impl Demand {
    /// A cache within `bytes`. Of the host's memory `available` bytes can be had, of which the cache takes its share where it `is_on_host`.
    pub(super) fn within(&self, config: &EngineConfig, bytes: usize, available: usize, is_on_host: bool) -> Result<Sized, LoadError> {
        let num_blocks = self.num_blocks(config, bytes)?;
        let max_model_len = self.fitting_len(config, num_blocks * config.block_size)?;
        let taken = if is_on_host { num_blocks.saturating_mul(self.block_bytes) } else { 0 };
        let num_host_blocks = self.num_host_blocks(config, available.saturating_sub(taken))?;
        Ok(Sized { cache: CacheSize { num_blocks, num_host_blocks, block_size: config.block_size }, max_model_len })
    }

    /// As many blocks as sequences of the greatest length in all seats use, within the memory that the cache may take. Streams that sit most
    /// steps out share seats, so that more would find use, but such long ones are rare.
    fn num_blocks(&self, config: &EngineConfig, bytes: usize) -> Result<usize, LoadError> {
        let block_bytes = self.block_bytes;
        let usable = config.max_num_seqs.saturating_mul(self.longest.div_ceil(config.block_size));
        // Slots are numbered in 32 bits.
        let most = u32::MAX as usize / config.block_size;
        match config.num_blocks.unwrap_or_else(|| usable.min(bytes / block_bytes).min(most)) {
            0 => Err(LoadError::NoKvCache { bytes, block_bytes }),
            asked if asked > most => Err(LoadError::TooManyBlocks { asked, most, block_size: config.block_size }),
            num_blocks => Ok(num_blocks),
        }
    }

    /// As many as the memory for offloaded blocks holds.
    fn num_host_blocks(&self, config: &EngineConfig, available: usize) -> Result<usize, LoadError> {
        let bytes = config.kv_offloading_bytes;
        if bytes > available {
            return Err(LoadError::OffloadingMemory { bytes, available });
        }
        match bytes / self.block_bytes {
            0 if bytes > 0 => Err(LoadError::NoOffloading { bytes, block_bytes: self.block_bytes }),
            // Block numbers are 32 bits wide.
            num_blocks => Ok(num_blocks.min(u32::MAX as usize)),
        }
    }

    /// The context length that the cache holds at least once. One that was asked for is never cut in silence.
    fn fitting_len(&self, config: &EngineConfig, capacity: usize) -> Result<usize, LoadError> {
        if self.longest <= capacity {
            return Ok(self.longest);
        }
        if config.max_model_len.is_some() {
            return Err(LoadError::KvCacheTooSmall { asked: self.longest, capacity });
        }
        let model = self.longest;
        tracing::warn!(model, capacity, "the KV cache holds less than the model's context: requests are limited to what it holds");
        Ok(capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { block_bytes: 1024, longest: 64 };

    fn host_blocks(kv_offloading_bytes: usize, is_on_host: bool) -> Result<usize, String> {
        let config = EngineConfig { kv_offloading_bytes, num_blocks: Some(100), ..EngineConfig::demo() };
        DEMAND.within(&config, 0, 200 * 1024, is_on_host).map(|sized| sized.cache.num_host_blocks).map_err(|e| e.to_string())
    }

    #[test]
    fn more_memory_for_offloading_than_there_is_is_refused() {
        assert_eq!(
            host_blocks(usize::MAX / 2, false).unwrap_err(),
            format!("--kv-offloading-size of {} bytes is more than the memory that is available, 204800 bytes", usize::MAX / 2)
        );
        assert!(host_blocks(1000, false).unwrap_err().contains("holds no block"));
        assert_eq!(host_blocks(4096, false), Ok(4));
    }

    #[test]
    fn a_cache_in_the_hosts_own_memory_leaves_less_of_it_for_offloading() {
        assert_eq!(host_blocks(200 * 1024, false), Ok(200));
        assert_eq!(host_blocks(100 * 1024, true), Ok(100));
        assert!(host_blocks(101 * 1024, true).unwrap_err().ends_with("available, 102400 bytes"));
    }

    #[test]
    fn a_cache_is_never_larger_than_what_can_be_used_or_numbered() {
        let size = |config: &EngineConfig, bytes| DEMAND.within(config, bytes, 0, false).map(|s| (s.cache.num_blocks, s.max_model_len));
        let config = EngineConfig { max_num_seqs: 3, ..EngineConfig::demo() };
        assert_eq!(size(&config, usize::MAX).unwrap(), (12, 64));
        assert_eq!(size(&config, 7 * 1024 + 1).unwrap(), (7, 64));
        assert_eq!(size(&config, 2048).unwrap(), (2, 32), "a context that nobody asked for is cut");
        assert!(matches!(size(&config, 1023), Err(LoadError::NoKvCache { bytes: 1023, block_bytes: 1024 })));
        let asked = EngineConfig { max_model_len: Some(64), ..config.clone() };
        assert!(matches!(size(&asked, 2048), Err(LoadError::KvCacheTooSmall { asked: 64, capacity: 32 })));
        let many = EngineConfig { num_blocks: Some(usize::MAX / 2), ..config };
        assert!(matches!(size(&many, 0), Err(LoadError::TooManyBlocks { most, .. }) if most == u32::MAX as usize / 16));
    }
}
