//! The CPU backend: vector kernels over packed weights, shared among a pool of threads.
//!
//! Every element of every result is computed in an order that depends on neither the batch nor the threads, so that
//! scheduling cannot change a model's output by a single bit.

mod activation;
mod attention;
mod buffer;
mod config;
mod experts;
mod isa;
mod kv;
mod linear;
mod matrix;
mod memory;
mod norm;
mod pool;
mod product;
mod rope;
mod rows;
mod scratch;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;

pub use buffer::{CpuBuffer, CpuVector};
pub use config::{ComputeType, CpuConfig, Isa, KvType};
pub use kv::CpuKvCache;
pub use matrix::CpuMatrix;
pub use rope::CpuBatch;

use self::{
    isa::Level,
    kv::{KvShape, MAX_HEAD_DIM},
    pool::Pool,
    scratch::{PerThread, Scratch, Shared},
};
use super::{
    Activation, AttentionConfig, Backend, BackendError, Experts, KvLayout, MatrixView, Norm, QkNorm, RaggedBatch, RopeTable, TensorView,
};
use crate::{
    sampling::{self, SampledToken, ScoredToken},
    scheduler::{BlockCopy, BlockTransfer, SampleRequest},
};

pub struct CpuBackend {
    cpu: Cpu,
    config: CpuConfig,
}

/// What every operation needs.
struct Cpu {
    level: Level,
    compute: ComputeType,
    /// Products of bf16 weights are in bf16, as one instruction.
    dot_bf16: bool,
    pool: Pool,
    shared: Mutex<Scratch>,
    own: PerThread,
    experts: Mutex<experts::Buffers>,
}

impl CpuBackend {
    /// # Errors
    /// When the processor lacks the instruction set that `config` asks for, or threads cannot be started.
    pub fn new(config: CpuConfig) -> Result<Self, BackendError> {
        let level = Level::detect(config.isa)?;
        let pool = Pool::new(config.threads).map_err(|e| BackendError::Device(format!("kernel threads could not be started: {e}")))?;
        let dot_bf16 = config.compute == ComputeType::BF16 && level.has_dot_bf16();
        let own = PerThread::new(pool.threads());
        let (compute, shared, experts) = (config.compute, Mutex::default(), Mutex::default());
        Ok(Self { cpu: Cpu { level, compute, dot_bf16, pool, shared, own, experts }, config })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.cpu.level.isa()
    }

    /// Threads that share each operation, the caller included.
    pub fn threads(&self) -> usize {
        self.cpu.pool.threads()
    }
}

impl Backend for CpuBackend {
    type Matrix = CpuMatrix;
    type Matrices = Vec<CpuMatrix>;
    type Vector = CpuVector;
    type Buffer = CpuBuffer;
    type KvCache = CpuKvCache;
    type HostKvCache = CpuKvCache;
    type Batch = CpuBatch;
    type Sampled = Vec<SampledToken>;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<CpuMatrix, BackendError> {
        CpuMatrix::pack(parts, self.config.weights, &self.cpu.pool)
    }

    fn matrices(&self, experts: Vec<CpuMatrix>) -> Result<Vec<CpuMatrix>, BackendError> {
        Ok(experts)
    }

    fn vector(&self, parts: &[TensorView<'_>]) -> Result<CpuVector, BackendError> {
        Ok(CpuVector(parts.iter().flat_map(matrix::to_f32).collect()))
    }

    fn vector_f32(&self, values: &[f32]) -> CpuVector {
        CpuVector(values.to_vec())
    }

    fn buffer(&self) -> CpuBuffer {
        CpuBuffer::default()
    }

    fn kv_cache(&self, layout: KvLayout) -> Result<CpuKvCache, BackendError> {
        if layout.head_dim > MAX_HEAD_DIM {
            return Err(BackendError::Device(format!(
                "heads of {} dimensions are not supported, only up to {MAX_HEAD_DIM}",
                layout.head_dim
            )));
        }
        CpuKvCache::new(KvShape { layout, dtype: self.config.kv_dtype }, self.config.populated_kv_bytes, &self.cpu.pool)
    }

    fn kv_block_bytes(&self, layout: KvLayout) -> usize {
        KvShape { layout, dtype: self.config.kv_dtype }.block_bytes()
    }

    fn copy_blocks(&self, kv: &mut CpuKvCache, copies: &[BlockCopy]) {
        copies.iter().for_each(|copy| kv.copy_block(copy.from.0 as usize, copy.to.0 as usize));
    }

    fn host_kv_cache(&self, layout: KvLayout) -> Result<CpuKvCache, BackendError> {
        // Its pages come when they are first written.
        CpuKvCache::new(KvShape { layout, dtype: self.config.kv_dtype }, 0, &self.cpu.pool)
    }

    fn offload(&self, kv: &CpuKvCache, host: &mut CpuKvCache, blocks: &[BlockTransfer]) {
        host.copy_from(kv, blocks.iter().map(|block| (block.device.0 as usize, block.host.0 as usize)), &self.cpu.pool);
    }

    fn onload(&self, kv: &mut CpuKvCache, host: &CpuKvCache, blocks: &[BlockTransfer]) {
        kv.copy_from(host, blocks.iter().map(|block| (block.host.0 as usize, block.device.0 as usize)), &self.cpu.pool);
    }

    fn batch(&self, batch: RaggedBatch) -> CpuBatch {
        CpuBatch::new(batch)
    }

    fn embed(&self, batch: &CpuBatch, table: &CpuMatrix, scale: f32, out: &mut CpuBuffer) {
        rows::embed(&self.cpu, &batch.ragged, table, scale, out);
    }

    fn norm(&self, x: &CpuBuffer, norm: &Norm<CpuVector>, out: &mut CpuBuffer) {
        norm::norm(&self.cpu, x, norm, out);
    }

    fn add_norm(&self, x: &mut CpuBuffer, delta: &CpuBuffer, norm: &Norm<CpuVector>, out: &mut CpuBuffer) {
        norm::add_norm(&self.cpu, x, delta, norm, out);
    }

    fn add(&self, x: &mut CpuBuffer, delta: &CpuBuffer) {
        rows::add(&self.cpu, x, delta);
    }

    fn linear(&self, x: &CpuBuffer, weight: &CpuMatrix, bias: Option<&CpuVector>, out: &mut CpuBuffer) {
        linear::linear(&self.cpu, x, weight, bias, out);
    }

    fn activate(&self, f: Activation, x: &mut CpuBuffer) {
        activation::activate(&self.cpu, f, x);
    }

    fn gated_activate(&self, f: Activation, x: &CpuBuffer, out: &mut CpuBuffer) {
        activation::gated_activate(&self.cpu, f, x, out);
    }

    fn soft_cap(&self, x: &mut CpuBuffer, cap: f32) {
        activation::soft_cap(&self.cpu, x, cap);
    }

    fn experts(&self, x: &CpuBuffer, logits: &CpuBuffer, experts: &Experts<Vec<CpuMatrix>>, out: &mut CpuBuffer) {
        experts::experts(&self.cpu, x, logits, experts, out);
    }

    fn rope_and_write_kv(
        &self,
        batch: &CpuBatch,
        qkv: &mut CpuBuffer,
        attention: &AttentionConfig,
        norms: Option<QkNorm<'_, CpuVector>>,
        rope: &RopeTable<CpuVector>,
        kv: &mut CpuKvCache,
        layer: usize,
    ) {
        rope::rope_and_write_kv(&self.cpu, batch, qkv, attention, norms, rope, kv, layer);
    }

    fn paged_attention(
        &self,
        batch: &CpuBatch,
        qkv: &CpuBuffer,
        attention: &AttentionConfig,
        kv: &CpuKvCache,
        layer: usize,
        out: &mut CpuBuffer,
    ) {
        attention::paged_attention(&self.cpu, &batch.ragged, qkv, attention, kv, layer, out);
    }

    fn gather_logits_rows(&self, batch: &CpuBatch, x: &CpuBuffer, delta: Option<&CpuBuffer>, out: &mut CpuBuffer) {
        rows::gather_logits_rows(&batch.ragged, x, delta, out);
    }

    fn read_rows(&self, x: &CpuBuffer, normalize: bool) -> Result<Vec<Vec<f32>>, BackendError> {
        Ok(rows::read_rows(x, normalize))
    }

    fn sample(&self, logits: &CpuBuffer, requests: &[&SampleRequest]) -> Result<Vec<SampledToken>, BackendError> {
        assert_eq!(logits.rows(), requests.len(), "rows of logits");
        let mut sampled = vec![SampledToken { token: 0, logprob: None, top: Vec::new() }; requests.len()];
        let to = Shared::new(&mut sampled);
        self.cpu.pool.split(requests.len(), true, |_, rows| {
            for row in rows {
                // SAFETY: this element is no other thread's.
                let to = unsafe { to.part(row, 1) };
                to[0] = sampling::sample(logits.row(row), requests[row]);
            }
        });
        Ok(sampled)
    }

    fn read_sampled(&self, sampled: Vec<SampledToken>) -> Result<Vec<SampledToken>, BackendError> {
        Ok(sampled)
    }

    fn score(&self, logits: &CpuBuffer, targets: &[(u32, u32)]) -> Result<Vec<ScoredToken>, BackendError> {
        assert_eq!(logits.rows(), targets.len(), "rows of logits");
        let nothing = SampledToken { token: 0, logprob: None, top: Vec::new() };
        let mut scored = vec![ScoredToken { token: nothing, rank: 0 }; targets.len()];
        let to = Shared::new(&mut scored);
        self.cpu.pool.split(targets.len(), true, |_, rows| {
            for row in rows {
                // SAFETY: this element is no other thread's.
                let to = unsafe { to.part(row, 1) };
                let (token, count) = targets[row];
                to[0] = sampling::score(logits.row(row), token, count as usize);
            }
        });
        Ok(scored)
    }
}
