//! The operations of the trait, each issued where nothing has failed before.

use super::{
    Buffer, CudaBackend, CudaBatch, CudaHostKvCache, CudaKvCache, CudaMatrix, CudaSampled, CudaVector, experts::CudaMatrices,
    weights::Resident,
};
use crate::{
    backend::{
        Activation, AttentionConfig, Backend, BackendError, Experts, KvLayout, MatrixView, Norm, QkNorm, RaggedBatch, RopeTable, TensorView,
    },
    sampling::{SampledToken, ScoredToken},
    scheduler::{BlockCopy, BlockTransfer, SampleRequest},
};

impl Backend for CudaBackend {
    type Matrix = CudaMatrix;
    type Matrices = CudaMatrices;
    type Vector = CudaVector;
    type Buffer = Buffer;
    type KvCache = CudaKvCache;
    type HostKvCache = CudaHostKvCache;
    /// `None` where it could not be brought to the card.
    type Batch = Option<CudaBatch>;
    type Sampled = CudaSampled;

    fn name(&self) -> &'static str {
        match self.device.gpu.info().vendor {
            tokenflow_gpu::Vendor::Nvidia => "cuda",
            tokenflow_gpu::Vendor::Amd => "rocm",
        }
    }

    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<CudaMatrix, BackendError> {
        self.pack(parts)
    }

    fn matrices(&self, experts: Vec<CudaMatrix>) -> Result<CudaMatrices, BackendError> {
        self.collect_matrices(experts)
    }

    fn vector(&self, parts: &[TensorView<'_>]) -> Result<CudaVector, BackendError> {
        let values: Vec<f32> = parts.iter().flat_map(TensorView::to_f32).collect();
        Ok(CudaVector { values: self.upload(bytemuck::cast_slice(&values))?, len: values.len() })
    }

    fn vector_f32(&self, values: &[f32]) -> CudaVector {
        let mut uploaded = Resident::none();
        self.device.issue(|| {
            uploaded = self.upload(bytemuck::cast_slice(values))?;
            Ok(())
        });
        CudaVector { values: uploaded, len: values.len() }
    }

    fn buffer(&self) -> Buffer {
        Buffer::new(&self.device)
    }

    fn kv_cache(&self, layout: KvLayout) -> Result<CudaKvCache, BackendError> {
        CudaKvCache::new(&self.device, layout)
    }

    fn kv_block_bytes(&self, layout: KvLayout) -> usize {
        self.block_bytes(layout)
    }

    fn copy_blocks(&self, kv: &mut CudaKvCache, copies: &[BlockCopy]) {
        self.device.issue(|| self.run_copies(kv, copies));
    }

    fn host_kv_cache(&self, layout: KvLayout) -> Result<CudaHostKvCache, BackendError> {
        CudaHostKvCache::new(&self.device, layout)
    }

    fn offload(&self, kv: &CudaKvCache, host: &mut CudaHostKvCache, blocks: &[BlockTransfer]) {
        self.device.issue(|| self.run_transfers(kv, host, blocks, true));
    }

    fn onload(&self, kv: &mut CudaKvCache, host: &CudaHostKvCache, blocks: &[BlockTransfer]) {
        self.device.issue(|| self.run_transfers(kv, host, blocks, false));
    }

    fn batch(&self, batch: RaggedBatch) -> Option<CudaBatch> {
        let mut uploaded = None;
        self.device.issue(|| {
            uploaded = Some(self.upload_batch(batch)?);
            Ok(())
        });
        uploaded
    }

    fn pass(&self, batch: &Option<CudaBatch>, run: &mut dyn FnMut()) {
        match batch {
            Some(batch) => self.run_pass(batch, run),
            None => run(),
        }
    }

    fn embed(&self, batch: &Option<CudaBatch>, table: &CudaMatrix, scale: f32, out: &mut Buffer) {
        self.with(batch, |batch| self.run_embed(batch, table, scale, out));
    }

    fn norm(&self, x: &Buffer, norm: &Norm<CudaVector>, out: &mut Buffer) {
        self.device.issue(|| self.run_norm(x, None, norm, out));
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<CudaVector>, out: &mut Buffer) {
        self.device.issue(|| self.run_norm(x, Some(delta), norm, out));
    }

    fn add(&self, x: &mut Buffer, delta: &Buffer) {
        self.device.issue(|| self.run_add(x, delta));
    }

    fn linear(&self, x: &Buffer, weight: &CudaMatrix, bias: Option<&CudaVector>, out: &mut Buffer) {
        self.device.issue(|| self.run_linear(x, weight, bias, out));
    }

    fn logits(&self, x: &Buffer, weight: &CudaMatrix, out: &mut Buffer) {
        self.device.issue(|| self.run_logits(x, weight, out));
    }

    fn activate(&self, f: Activation, x: &mut Buffer) {
        self.device.issue(|| self.run_activation(f, x));
    }

    fn gated_activate(&self, f: Activation, x: &Buffer, out: &mut Buffer) {
        self.device.issue(|| self.run_gated_activation(f, x, out));
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) {
        self.device.issue(|| self.run_soft_cap(x, cap));
    }

    fn experts(&self, x: &Buffer, logits: &Buffer, experts: &Experts<CudaMatrices>, out: &mut Buffer) {
        self.device.issue(|| self.run_experts(x, logits, experts, out));
    }

    fn rope_and_write_kv(
        &self,
        batch: &Option<CudaBatch>,
        qkv: &mut Buffer,
        attention: &AttentionConfig,
        norms: Option<QkNorm<'_, CudaVector>>,
        rope: &RopeTable<CudaVector>,
        kv: &mut CudaKvCache,
        layer: usize,
    ) {
        self.with(batch, |batch| self.run_rope(batch, qkv, attention, norms.as_ref(), rope, kv, layer));
    }

    fn paged_attention(
        &self,
        batch: &Option<CudaBatch>,
        qkv: &Buffer,
        attention: &AttentionConfig,
        kv: &CudaKvCache,
        layer: usize,
        out: &mut Buffer,
    ) {
        self.with(batch, |batch| self.run_attention(batch, qkv, attention, kv, layer, out));
    }

    fn gather_logits_rows(&self, batch: &Option<CudaBatch>, x: &Buffer, delta: Option<&Buffer>, out: &mut Buffer) {
        self.with(batch, |batch| self.run_gather(batch, x, delta, out));
    }

    fn read_rows(&self, x: &Buffer, normalize: bool) -> Result<Vec<Vec<f32>>, BackendError> {
        let mut rows = self.read_values(x)?;
        for row in rows.iter_mut().filter(|_| normalize) {
            let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
        Ok(rows)
    }

    fn sample(&self, logits: &Buffer, requests: &[&SampleRequest]) -> Result<CudaSampled, BackendError> {
        Ok(self.choose(logits, requests)?)
    }

    fn read_sampled(&self, sampled: CudaSampled) -> Result<Vec<SampledToken>, BackendError> {
        Ok(self.read_chosen(sampled)?)
    }

    fn check(&self) -> Result<(), BackendError> {
        Ok(self.device.outcome()?)
    }

    fn finish(&self) -> Result<(), BackendError> {
        self.device.outcome()?;
        Ok(self.device.finish()?)
    }

    fn max_steps_in_flight(&self) -> usize {
        2
    }

    fn score(&self, logits: &Buffer, targets: &[(u32, u32)]) -> Result<Vec<ScoredToken>, BackendError> {
        Ok(self.rate(logits, targets)?)
    }
}

impl CudaBackend {
    /// Issues what works on a batch, where there is one.
    fn with(&self, batch: &Option<CudaBatch>, work: impl FnOnce(&CudaBatch) -> Result<(), tokenflow_gpu::GpuError>) {
        if let Some(batch) = batch {
            self.device.issue(|| work(batch));
        }
    }
}
