//! Operations that take a row or an element at a time: embedding, norms, sums, activations, rows of logits.

use tokenflow_gpu::{DevicePtr, Element, GpuError};

use super::{CudaBackend, CudaBatch, CudaMatrix, CudaVector, args, buffer::Buffer};
use crate::backend::{Activation, Norm};

impl CudaBackend {
    pub(super) fn run_embed(&self, batch: &CudaBatch, table: &CudaMatrix, scale: f32, out: &mut Buffer) -> Result<(), GpuError> {
        let cols = table.columns();
        let to = out.stream(batch.rows, cols, self.device.config.max_tokens)?;
        let args = args::Embed {
            tokens: batch.tokens,
            previous: self.sampler.lock().tokens(),
            table: table.whole()?.weight,
            out: to,
            scale: rounded(scale, self.device.config.compute),
            unused: 0,
        };
        self.device.launch(&["embed", table.whole()?.format.embed_name()], [batch.rows, 1, 1], self.device.threads(cols, 256), 0, &args)
    }

    /// `x += delta` where given, then `out = norm(x)`.
    pub(super) fn run_norm(&self, x: &Buffer, delta: Option<&Buffer>, norm: &Norm<CudaVector>, out: &mut Buffer) -> Result<(), GpuError> {
        let shape = x.shape();
        if let Some(delta) = delta.map(Buffer::shape) {
            assert!(shape.is_stream && !delta.is_stream, "activations are added to the residual stream");
            assert_eq!((shape.rows, shape.cols), (delta.rows, delta.cols), "shapes of x and delta");
        }
        let is_own = !shape.is_stream && shape.element != Element::F32;
        let (kernel, weight, bias, eps) = match norm {
            Norm::Rms { weight, eps } => (if is_own { "rms_norm_own" } else { "rms_norm" }, weight, DevicePtr::NULL, *eps),
            Norm::Layer { weight, bias, eps } => (if is_own { "layer_norm_own" } else { "layer_norm" }, weight, bias.start(), *eps),
        };
        assert_eq!(weight.len, shape.cols, "columns of x and the norm");
        let args = args::Norm {
            x: x.data(),
            delta: delta.map_or(DevicePtr::NULL, Buffer::data),
            weight: weight.start(),
            bias,
            out: out.activations(shape.rows, shape.cols, shape.room)?,
            cols: shape.cols as u32,
            eps,
        };
        let threads = self.device.threads(shape.cols.div_ceil(4), 1024);
        self.device.launch(&[kernel, self.device.tag()], [shape.rows, 1, 1], threads, 0, &args)
    }

    pub(super) fn run_add(&self, x: &Buffer, delta: &Buffer) -> Result<(), GpuError> {
        let (shape, other) = (x.shape(), delta.shape());
        assert!(shape.is_stream && !other.is_stream, "activations are added to the residual stream");
        assert_eq!((shape.rows, shape.cols), (other.rows, other.cols), "shapes of x and delta");
        let args = args::Stream { x: x.data(), from: delta.data(), total: shape.len() as u64 };
        let blocks = self.device.stride_blocks(shape.len());
        self.device.launch(&["add", self.device.tag()], [blocks, 1, 1], self.device.threads(shape.len(), 256), 0, &args)
    }

    pub(super) fn run_activation(&self, f: Activation, x: &Buffer) -> Result<(), GpuError> {
        let shape = x.shape();
        let kernel = match f {
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
        };
        self.launch_activation(&[kernel, self.device.tag()], x.data(), x.data(), [shape.rows, shape.cols], 0.0)
    }

    pub(super) fn run_gated_activation(&self, f: Activation, x: &Buffer, out: &mut Buffer) -> Result<(), GpuError> {
        let shape = x.shape();
        let cols = shape.cols / 2;
        let to = out.activations(shape.rows, cols, shape.room)?;
        self.launch_activation(&[gated(f), self.device.tag()], x.data(), to, [shape.rows, cols], 0.0)
    }

    pub(super) fn run_soft_cap(&self, x: &Buffer, cap: f32) -> Result<(), GpuError> {
        let shape = x.shape();
        assert_eq!(shape.element, Element::F32, "logits are f32");
        self.launch_activation(&["soft_cap"], x.data(), x.data(), [shape.rows, shape.cols], cap)
    }

    /// `rows` and `cols` are the result's.
    pub(super) fn launch_activation(
        &self,
        kernel: &[&'static str],
        x: DevicePtr,
        out: DevicePtr,
        [rows, cols]: [usize; 2],
        cap: f32,
    ) -> Result<(), GpuError> {
        let args = args::Activation { x, out, rows: rows as u32, cols: cols as u32, cap, unused: 0 };
        // The grid fits any type: where logits, which are f32, are capped, threads stride.
        let (grid, threads) = self.device.rows_grid(rows, cols, self.device.config.compute);
        self.device.launch(kernel, grid, threads, 0, &args)
    }

    pub(super) fn run_gather(&self, batch: &CudaBatch, x: &Buffer, delta: Option<&Buffer>, out: &mut Buffer) -> Result<(), GpuError> {
        let shape = x.shape();
        assert!(shape.is_stream, "rows are of the residual stream");
        let args = args::Gather {
            x: x.data(),
            delta: delta.map_or(DevicePtr::NULL, Buffer::data),
            rows: batch.logits_rows,
            out: out.stream(batch.num_logits, shape.cols, self.device.config.logits_rows())?,
            cols: shape.cols as u32,
            unused: 0,
        };
        let threads = self.device.threads(shape.cols, 256);
        self.device.launch(&["gather_rows", self.device.tag()], [batch.num_logits, 1, 1], threads, 0, &args)
    }
}

/// The kernel of a gated activation.
pub(super) fn gated(f: Activation) -> &'static str {
    match f {
        Activation::Silu => "gated_silu",
        Activation::Gelu => "gated_gelu",
        Activation::GeluTanh => "gated_gelu_tanh",
    }
}

fn rounded(value: f32, element: Element) -> f32 {
    match element {
        Element::F32 => value,
        Element::F16 => half::f16::from_f32(value).to_f32(),
        Element::BF16 => half::bf16::from_f32(value).to_f32(),
    }
}
