//! The backend trait over emulated kernels: one operation, one launch or a few. What it does is what a backend on a real device will do,
//! without streams, graphs or speed.

use std::{
    ffi::c_void,
    sync::{Mutex, MutexGuard},
};

use tokenflow_engine::{
    backend::{
        Activation, AttentionConfig, Backend, BackendError, Experts, KvLayout, MatrixView, Norm, QkNorm, RaggedBatch, RopeTable, TensorView,
    },
    kv::BlockId,
    sampling::{SampledToken, ScoredToken},
    scheduler::SampleRequest,
};

use super::memory::{Batch, Buffer, KvCache, Matrix, Vector};
use crate::{
    args,
    checks::elements::Element,
    emulator::{Device, Library, Pointer},
};

pub struct Emulated<T> {
    device: Mutex<Device<'static>>,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Emulated<T> {
    pub fn new(library: &'static Library, seed: u64) -> Self {
        Self { device: Mutex::new(Device::new(library, seed)), element: std::marker::PhantomData }
    }

    pub(super) fn device(&self) -> MutexGuard<'_, Device<'static>> {
        self.device.lock().expect("no launch has panicked")
    }
}

/// A test fails where the emulator objects.
pub(super) fn launch<A: Copy>(device: &Device, kernel: &str, grid: [usize; 3], block: u32, shared: usize, args: &A) {
    if grid.contains(&0) {
        return;
    }
    device.launch(kernel, grid.map(|n| n as u32), block, shared, args).unwrap_or_else(|error| panic!("{error}"));
}

fn name_of(f: Activation) -> &'static str {
    match f {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
    }
}

fn run_norm<T: Element>(device: &Device, x: &Buffer, delta: Pointer<c_void>, norm: &Norm<Vector>, out: &mut Buffer) {
    let (name, weight, bias, eps) = match norm {
        Norm::Rms { weight, eps } => ("rms", weight.values, Pointer::NULL, *eps),
        Norm::Layer { weight, bias, eps } => ("layer", weight.values, bias.values, *eps),
    };
    let own = if x.is_stream || T::NAME == "f32" { "" } else { "own_" };
    let out = out.activations::<T>(device, x.rows, x.cols).any();
    let args = args::Norm { x: x.data, delta, weight, bias, out, cols: x.cols as u32, eps };
    launch(device, &format!("{name}_norm_{own}{}", T::NAME), [x.rows, 1, 1], 128, 0, &args);
}

/// Into `out`, of elements called `to`.
fn multiply<T: Element>(device: &Device, x: &Buffer, weight: &Matrix<T>, bias: Option<&Vector>, out: Pointer<c_void>, to: &str) {
    assert!(!x.is_stream, "products are of activations");
    let (rows, features) = (x.rows, weight.weight.features as usize);
    let bias = bias.map_or(Pointer::NULL, |bias| bias.values);
    let args = args::Linear { weight: weight.weight, x: x.data, bias, out, rows: rows as u32 };
    let few = 2 * 128 / device.warp() as usize;
    let (suffix, tile_rows, tile_features) = match rows {
        1 => ("1", 1, few),
        _ if rows <= 8 || T::NAME == "f32" => ("8", 8, few),
        _ => ("tile", 64, 64),
    };
    let name = format!("linear_{0}_{0}_{to}_{suffix}", T::NAME);
    launch(device, &name, [features.div_ceil(tile_features), rows.div_ceil(tile_rows), 1], 128, 0, &args);
}

impl<T: Element + Send + Sync> Backend for Emulated<T> {
    type Matrix = Matrix<T>;
    type Vector = Vector;
    type Buffer = Buffer;
    type KvCache = KvCache;
    type Batch = Batch;

    fn name(&self) -> &'static str {
        "emulated"
    }

    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<Matrix<T>, BackendError> {
        let values: Vec<f32> = parts
            .iter()
            .flat_map(|part| match part {
                MatrixView::Plain(view) => view.to_f32(),
                other => panic!("{} in a test of plain models", other.encoding()),
            })
            .collect();
        Ok(Matrix::new(&self.device(), &values, parts[0].shape()[1]))
    }

    fn vector(&self, parts: &[TensorView<'_>]) -> Result<Vector, BackendError> {
        Ok(self.vector_f32(&parts.iter().flat_map(TensorView::to_f32).collect::<Vec<_>>()))
    }

    fn vector_f32(&self, values: &[f32]) -> Vector {
        Vector { values: self.device().upload(values), len: values.len() }
    }

    fn buffer(&self) -> Buffer {
        Buffer::new()
    }

    fn kv_cache(&self, layout: KvLayout) -> Result<KvCache, BackendError> {
        Ok(KvCache::new(&self.device(), layout))
    }

    fn kv_block_bytes(&self, layout: KvLayout) -> usize {
        4 * layout.num_layers * layout.num_kv_heads * layout.block_size * layout.head_dim
    }

    fn copy_block(&self, kv: &mut KvCache, from: BlockId, to: BlockId) {
        let device = self.device();
        let block_bytes = 2 * kv.layer_len / kv.layout.num_blocks;
        let args = args::CopyBlocks {
            cache: kv.data.any(),
            copies: device.upload(&[from.0, to.0]),
            num_copies: 1,
            block_bytes: block_bytes as u32,
            layer_bytes: 2 * kv.layer_len as u64,
        };
        launch(&device, "copy_blocks", [(block_bytes / 16).div_ceil(64), kv.layout.num_layers, 1], 64, 0, &args);
    }

    fn batch(&self, batch: RaggedBatch) -> Batch {
        Batch::new(&self.device(), batch)
    }

    fn embed(&self, batch: &Batch, table: &Matrix<T>, scale: f32, out: &mut Buffer) {
        let (device, cols) = (self.device(), table.weight.columns as usize);
        let rows = batch.ragged.num_tokens();
        let scale = T::rounded(&[scale])[0];
        let out = out.stream(&device, rows, cols);
        let args = args::Embed { tokens: batch.tokens, table: table.weight.codes, out, cols: cols as u32, scale };
        launch(&device, &format!("embed_{}", T::NAME), [rows, 1, 1], 64, 0, &args);
    }

    fn norm(&self, x: &Buffer, norm: &Norm<Vector>, out: &mut Buffer) {
        run_norm::<T>(&self.device(), x, Pointer::NULL, norm, out);
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<Vector>, out: &mut Buffer) {
        assert!(x.is_stream && !delta.is_stream, "activations are added to the residual stream");
        run_norm::<T>(&self.device(), x, delta.data, norm, out);
    }

    fn add(&self, x: &mut Buffer, delta: &Buffer) {
        assert!(x.is_stream && !delta.is_stream, "activations are added to the residual stream");
        let args = args::Stream { x: x.data.cast(), from: delta.data, total: x.len() as u64 };
        launch(&self.device(), &format!("add_{}", T::NAME), [2, 1, 1], 128, 0, &args);
    }

    fn linear(&self, x: &Buffer, weight: &Matrix<T>, bias: Option<&Vector>, out: &mut Buffer) {
        let device = self.device();
        let out = out.activations::<T>(&device, x.rows, weight.weight.features as usize).any();
        multiply::<T>(&device, x, weight, bias, out, T::NAME);
    }

    fn logits(&self, x: &Buffer, weight: &Matrix<T>, out: &mut Buffer) {
        let device = self.device();
        let out = out.stream(&device, x.rows, weight.weight.features as usize).any();
        multiply::<T>(&device, x, weight, None, out, "f32");
    }

    fn activate(&self, f: Activation, x: &mut Buffer) {
        let args = args::Activation { x: x.data, out: x.data, rows: x.rows as u32, cols: x.cols as u32, cap: 0.0 };
        launch(&self.device(), &format!("{}_{}", name_of(f), T::NAME), [2, 1, 1], 128, 0, &args);
    }

    fn gated_activate(&self, f: Activation, x: &Buffer, out: &mut Buffer) {
        let device = self.device();
        let (rows, cols) = (x.rows, x.cols / 2);
        let out = out.activations::<T>(&device, rows, cols).any();
        let args = args::Activation { x: x.data, out, rows: rows as u32, cols: cols as u32, cap: 0.0 };
        launch(&device, &format!("gated_{}_{}", name_of(f), T::NAME), [2, 1, 1], 128, 0, &args);
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) {
        assert!(x.is_stream, "logits are f32");
        let args = args::Activation { x: x.data, out: x.data, rows: x.rows as u32, cols: x.cols as u32, cap };
        launch(&self.device(), "soft_cap", [2, 1, 1], 128, 0, &args);
    }

    fn experts(&self, x: &Buffer, logits: &Buffer, experts: &Experts<Matrix<T>>, out: &mut Buffer) {
        self.run_experts(x, logits, experts, out);
    }

    fn rope_and_write_kv(
        &self,
        batch: &Batch,
        qkv: &mut Buffer,
        attention: &AttentionConfig,
        norms: Option<QkNorm<'_, Vector>>,
        rope: &RopeTable<Vector>,
        kv: &mut KvCache,
        layer: usize,
    ) {
        self.rope(batch, qkv, attention, norms, rope, kv, layer);
    }

    fn paged_attention(&self, batch: &Batch, qkv: &Buffer, attention: &AttentionConfig, kv: &KvCache, layer: usize, out: &mut Buffer) {
        self.attend(batch, qkv, attention, kv, layer, out);
    }

    fn gather_logits_rows(&self, batch: &Batch, x: &Buffer, delta: Option<&Buffer>, out: &mut Buffer) {
        let device = self.device();
        let rows = batch.ragged.logits_rows.len();
        let out = out.stream(&device, rows, x.cols);
        let delta = delta.map_or(Pointer::NULL, |delta| delta.data);
        let args = args::Gather { x: x.data.cast(), delta, rows: batch.logits_rows, out, cols: x.cols as u32 };
        launch(&device, &format!("gather_rows_{}", T::NAME), [rows, 1, 1], 64, 0, &args);
    }

    fn read_rows(&self, x: &Buffer, normalize: bool) -> Result<Vec<Vec<f32>>, BackendError> {
        assert!(!normalize, "no embedding model is tested");
        let device = self.device();
        let values = device.download(self.as_f32(&device, x), x.len());
        Ok(values.chunks_exact(x.cols).map(<[f32]>::to_vec).collect())
    }

    fn sample(&self, logits: &Buffer, requests: &[&SampleRequest]) -> Result<Vec<SampledToken>, BackendError> {
        Ok(self.choose(logits, requests))
    }

    fn score(&self, logits: &Buffer, targets: &[(u32, u32)]) -> Result<Vec<ScoredToken>, BackendError> {
        Ok(self.rate(logits, targets))
    }
}
