//! How a GPU's memory is shared out, and what to say where it is short. Pure arithmetic over what was measured: every number in a message
//! about a flag is about the value at which the start would succeed, everything else being equal. What a step takes counts as proportional to
//! its tokens and rows there, which a part of it is not.

use std::fmt;

use super::cache::Demand;
use crate::config::{DEFAULT_MEMORY_UTILIZATION, EngineConfig, MemoryPlan};

/// Steps of --max-num-batched-tokens in advice.
const TOKENS_STEP: usize = 16;

/// What is in use before there is a KV cache, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) total: usize,
    /// By other processes, the driver and kernels.
    pub(super) others: usize,
    pub(super) weights: usize,
    pub(super) activations: Activations,
    pub(super) graphs: usize,
}

/// What the largest step needs: a part that grows with its tokens, and one with the rows whose logits are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activations {
    pub(super) tokens: usize,
    pub(super) rows: usize,
}

/// Too little memory, and which flags help.
#[derive(Debug, thiserror::Error)]
pub struct Shortage {
    what: String,
    /// Each is enough by itself.
    advice: Vec<String>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.advice.as_slice() {
            [] => write!(f, "{}; a smaller or more quantised model is needed, or a larger card", self.what),
            advice => write!(f, "{}; {}", self.what, advice.join(", or ")),
        }
    }
}

impl Measured {
    fn taken(&self) -> usize {
        self.others + self.weights + self.activations.tokens + self.activations.rows + self.graphs
    }

    /// Bytes for the KV cache, and how the memory is shared out before it has any. `element_bytes` is the width of what the cache stores.
    pub(super) fn plan(&self, config: &EngineConfig, demand: &Demand, element_bytes: usize) -> Result<(usize, MemoryPlan), Shortage> {
        let utilization = config.gpu_memory_utilization.unwrap_or(DEFAULT_MEMORY_UTILIZATION);
        let bytes_of = |blocks: usize| blocks.saturating_mul(demand.block_bytes);
        // A size that was asked for is bounded by the card alone.
        let asked = config.num_blocks.map(bytes_of).or(config.kv_cache_memory_bytes);
        let allowed = if asked.is_some() { self.total } else { (self.total as f64 * utilization) as usize };
        let least = bytes_of(config.max_model_len.map_or(1, |len| len.div_ceil(config.block_size)));
        let needed = asked.unwrap_or(least);
        let left = allowed.saturating_sub(self.taken());
        if needed > left {
            let share = if asked.is_some() { String::new() } else { format!("{utilization} of ") };
            let what = format!(
                "the KV cache needs {} ({}), and of {share}{} only {} are left beside {} of weights, {} of activations, {} for graphs and {} that \
                 were in use before",
                Bytes(needed),
                self.reason(config),
                Bytes(self.total),
                Bytes(left),
                Bytes(self.weights),
                Bytes(self.activations.tokens + self.activations.rows),
                Bytes(self.graphs),
                Bytes(self.others),
            );
            return Err(Shortage { what, advice: self.advice(config, demand, element_bytes, needed, allowed, asked.is_some()) });
        }
        let plan = MemoryPlan {
            total: self.total,
            utilization,
            others: self.others,
            weights: self.weights,
            activations: self.activations.tokens + self.activations.rows,
            graphs: self.graphs,
            kv_cache: 0,
        };
        Ok((asked.unwrap_or(left), plan))
    }

    /// Why the cache must be as large as it must.
    fn reason(&self, config: &EngineConfig) -> String {
        match (config.num_blocks, config.kv_cache_memory_bytes, config.max_model_len) {
            (Some(blocks), ..) => format!("--num-gpu-blocks-override {blocks}"),
            (_, Some(bytes), _) => format!("--kv-cache-memory-bytes {bytes}"),
            (.., Some(len)) => format!("one request of --max-model-len {len}"),
            _ => "one block".to_owned(),
        }
    }

    fn advice(
        &self,
        config: &EngineConfig,
        demand: &Demand,
        element_bytes: usize,
        needed: usize,
        allowed: usize,
        is_asked: bool,
    ) -> Vec<String> {
        let (taken, left) = (self.taken(), allowed.saturating_sub(self.taken()));
        let mut advice = Vec::new();
        // Rounded up, so that it is enough.
        let percent = ((taken + needed) as f64 * 100.0 / self.total.max(1) as f64).ceil();
        if !is_asked && percent <= 100.0 {
            advice.push(format!("raise --gpu-memory-utilization to {}", percent / 100.0));
        }
        let blocks = left / demand.block_bytes;
        match (config.num_blocks, config.kv_cache_memory_bytes, config.max_model_len) {
            _ if blocks == 0 => {}
            (Some(_), ..) => advice.push(format!("lower --num-gpu-blocks-override to {blocks}")),
            (_, Some(_), _) => advice.push(format!("lower --kv-cache-memory-bytes to {left}")),
            (.., Some(_)) => advice.push(format!("lower --max-model-len to {}", blocks * config.block_size)),
            _ => {}
        }
        let is_by_bytes = config.num_blocks.is_none() && config.kv_cache_memory_bytes.is_some();
        if element_bytes > 1 && !is_by_bytes && needed.div_ceil(element_bytes) <= left {
            advice.push("store it with --kv-cache-dtype fp8".to_owned());
        }
        let deficit = (taken + needed).saturating_sub(allowed);
        let tokens = shrunk(config.max_num_batched_tokens, self.activations.tokens, deficit) / TOKENS_STEP * TOKENS_STEP;
        if tokens > 0 {
            advice.push(format!("lower --max-num-batched-tokens to {tokens}"));
        }
        let rows = shrunk(config.max_num_seqs, self.activations.rows, deficit);
        if rows > 0 {
            advice.push(format!("lower --max-num-seqs to {rows}"));
        }
        if deficit <= self.graphs {
            advice.push("do without graphs by --enforce-eager".to_owned());
        }
        advice
    }
}

/// The most of `count`, which take `bytes`, that take `deficit` bytes less; 0 where that is none.
fn shrunk(count: usize, bytes: usize, deficit: usize) -> usize {
    let left = bytes.saturating_sub(deficit);
    (count as u128 * left as u128 / bytes.max(1) as u128) as usize
}

impl Shortage {
    /// The card was full before all weights were there.
    pub(super) fn of_weights(stored: usize, free: usize, total: usize) -> Self {
        let what = format!(
            "the weights, {} as they are stored, do not fit into the card's memory, of which {} of {} were free",
            Bytes(stored),
            Bytes(free),
            Bytes(total)
        );
        Self { what, advice: Vec::new() }
    }

    /// The card was full before the largest step had all that it works with, which is more than `each` for every token and row of logits.
    pub(super) fn of_activations(config: &EngineConfig, free: usize, each: Activations) -> Self {
        let what = format!(
            "a step of --max-num-batched-tokens {} and --max-num-seqs {} does not fit into the {} that the weights leave",
            config.max_num_batched_tokens,
            config.max_num_seqs,
            Bytes(free)
        );
        let mut advice = Vec::new();
        let tokens = free.saturating_sub(config.max_num_seqs.saturating_mul(each.rows)) / each.tokens.max(1);
        if tokens > TOKENS_STEP {
            advice.push(format!("lower --max-num-batched-tokens to less than {}", tokens.min(config.max_num_batched_tokens)));
        }
        let rows = free.saturating_sub(config.max_num_batched_tokens.saturating_mul(each.tokens)) / each.rows.max(1);
        if rows > 1 && rows < config.max_num_seqs {
            advice.push(format!("lower --max-num-seqs to less than {rows}"));
        }
        Self { what, advice }
    }

    /// Memory that was free is gone.
    pub(super) fn of_cache(bytes: usize, free: usize) -> Self {
        let what = format!("the KV cache of {} does not fit into the {} that are now free", Bytes(bytes), Bytes(free));
        Self { what, advice: vec!["lower --gpu-memory-utilization, or end what else uses the card".to_owned()] }
    }
}

/// For people.
pub(super) struct Bytes(pub(super) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        if mib < 1024.0 { write!(f, "{mib:.1} MiB") } else { write!(f, "{:.2} GiB", mib / 1024.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const MEASURED: Measured = Measured {
        total: 1000 * MIB,
        others: 50 * MIB,
        weights: 600 * MIB,
        activations: Activations { tokens: 100 * MIB, rows: 40 * MIB },
        graphs: 10 * MIB,
    };
    /// A MiB for 16 tokens.
    const DEMAND: Demand = Demand { block_bytes: MIB, longest: 1 << 20 };

    fn config() -> EngineConfig {
        EngineConfig { max_num_batched_tokens: 2048, max_num_seqs: 256, ..EngineConfig::demo() }
    }

    fn budget(config: &EngineConfig) -> Result<usize, String> {
        MEASURED.plan(config, &DEMAND, 2).map(|(bytes, _)| bytes).map_err(|e| e.to_string())
    }

    #[test]
    fn the_cache_gets_what_the_share_leaves() {
        assert_eq!(budget(&config()), Ok(100 * MIB));
        assert_eq!(budget(&EngineConfig { gpu_memory_utilization: Some(1.0), ..config() }), Ok(200 * MIB));
        assert_eq!(budget(&EngineConfig { kv_cache_memory_bytes: Some(150 * MIB), ..config() }), Ok(150 * MIB), "whatever the share");
        let (_, plan) = MEASURED.plan(&config(), &DEMAND, 2).unwrap();
        assert_eq!((plan.total, plan.activations, plan.weights), (1000 * MIB, 140 * MIB, 600 * MIB));
    }

    #[test]
    fn every_flag_that_is_named_is_enough_by_itself() {
        // 110 blocks; 10 MiB too many.
        let asked = EngineConfig { max_model_len: Some(16 * 110), ..config() };
        assert_eq!(
            budget(&asked).unwrap_err(),
            "the KV cache needs 110.0 MiB (one request of --max-model-len 1760), and of 0.9 of 1000.0 MiB only 100.0 MiB are left beside 600.0 MiB \
             of weights, 140.0 MiB of activations, 10.0 MiB for graphs and 50.0 MiB that were in use before; raise --gpu-memory-utilization to \
             0.91, or lower --max-model-len to 1600, or store it with --kv-cache-dtype fp8, or lower --max-num-batched-tokens to 1840, or lower \
             --max-num-seqs to 192, or do without graphs by --enforce-eager"
        );
        assert!(budget(&EngineConfig { gpu_memory_utilization: Some(0.91), ..asked.clone() }).is_ok());
        assert!(budget(&EngineConfig { max_model_len: Some(1600), ..asked.clone() }).is_ok());
        let with = |change: &dyn Fn(&mut Measured)| {
            let mut measured = MEASURED;
            change(&mut measured);
            measured.plan(&asked, &DEMAND, 2).is_ok()
        };
        assert!(with(&|m| m.activations.tokens = m.activations.tokens * 1840 / 2048));
        assert!(!with(&|m| m.activations.tokens = m.activations.tokens * 1860 / 2048));
        assert!(with(&|m| m.activations.rows = m.activations.rows * 192 / 256));
        assert!(!with(&|m| m.activations.rows = m.activations.rows * 193 / 256));
        assert!(with(&|m| m.graphs = 0));
    }

    #[test]
    fn a_step_that_does_not_fit_is_told_what_could() {
        let message = |free, tokens, rows| Shortage::of_activations(&config(), free, Activations { tokens, rows }).to_string();
        let start = "a step of --max-num-batched-tokens 2048 and --max-num-seqs 256 does not fit into the";
        assert_eq!(
            message(100 * MIB, 100 << 10, 10 << 10),
            format!("{start} 100.0 MiB that the weights leave; lower --max-num-batched-tokens to less than 998")
        );
        assert_eq!(
            message(100 * MIB, 1 << 10, MIB),
            format!("{start} 100.0 MiB that the weights leave; lower --max-num-seqs to less than 98")
        );
        assert!(message(MIB, MIB, MIB).ends_with("leave; a smaller or more quantised model is needed, or a larger card"));
    }

    #[test]
    fn flags_that_would_not_be_enough_are_not_named() {
        let crowded = Measured { weights: 849 * MIB, ..MEASURED };
        let message = crowded.plan(&config(), &DEMAND, 1).unwrap_err().to_string();
        assert!(message.contains("needs 1.0 MiB (one block)") && message.contains("only 0.0 MiB are left"), "{message}");
        assert!(message.ends_with("before; a smaller or more quantised model is needed, or a larger card"), "{message}");
        let blocks = EngineConfig { num_blocks: Some(201), ..config() };
        let message = budget(&blocks).unwrap_err();
        assert!(message.contains("(--num-gpu-blocks-override 201), and of 1000.0 MiB only 200.0 MiB"), "{message}");
        assert!(message.contains("lower --num-gpu-blocks-override to 200, or store it with"), "{message}");
        assert!(!message.contains("utilization"), "{message}");
    }
}
