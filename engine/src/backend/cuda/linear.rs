//! Products of activations and weights. Which kernel does one depends on the number of rows: a few are bound by reading the weights, many go
//! through tensor cores, very many through the vendor's library.

use tokenflow_gpu::{DevicePtr, Element, GpuError, Product};

use super::{CudaBackend, CudaMatrix, CudaVector, args, buffer::Buffer, config::tag};

/// Rows that the kernel for few takes at a time.
const FEW_ROWS: usize = 8;
/// Features of a warp there, and threads of a block of any product.
const WARP_FEATURES: usize = 2;
pub(super) const THREADS: usize = 128;
/// Rows and features of a block on tensor cores.
pub(super) const TILE: usize = 64;
/// Rows above which plain products are the library's.
const LIBRARY_ROWS: usize = 64;

/// Features of a block of the kernel for few rows.
pub(super) fn few_features(warp: usize) -> usize {
    THREADS / warp * WARP_FEATURES
}

impl CudaBackend {
    pub(super) fn run_linear(&self, x: &Buffer, weight: &CudaMatrix, bias: Option<&CudaVector>, out: &mut Buffer) -> Result<(), GpuError> {
        let shape = x.shape();
        let to = out.activations(shape.rows, weight.features(), shape.room)?;
        self.multiply(x, weight, bias, to, self.device.config.compute)
    }

    pub(super) fn run_logits(&self, x: &Buffer, weight: &CudaMatrix, out: &mut Buffer) -> Result<(), GpuError> {
        let shape = x.shape();
        let to = out.stream(shape.rows, weight.features(), shape.room)?;
        self.multiply(x, weight, None, to, Element::F32)
    }

    fn multiply(&self, x: &Buffer, weight: &CudaMatrix, bias: Option<&CudaVector>, out: DevicePtr, to: Element) -> Result<(), GpuError> {
        let (shape, config) = (x.shape(), &self.device.config);
        assert!(!shape.is_stream || config.compute == Element::F32, "products are of activations");
        assert_eq!(shape.cols, weight.columns(), "columns of x and the weights");
        assert!(bias.is_none_or(|bias| bias.len == weight.features()), "features of the weights and the bias");
        let (rows, features) = (shape.rows, weight.features());
        if rows > LIBRARY_ROWS && bias.is_none() && weight.is_plain() && !config.batch_invariant && self.device.gpu.driver().has_products()
        {
            let product = Product { rows, features, inner: shape.cols, element: config.compute, out: to };
            // SAFETY: shapes were compared, and memory lives until the stream has been waited for.
            return unsafe { self.device.stream.product(&product, x.data(), weight.weight.codes, out) };
        }
        let bias = bias.map_or(DevicePtr::NULL, CudaVector::start);
        let args = args::Linear { weight: weight.weight, x: x.data(), bias, out, rows: rows as u32, unused: 0 };
        let few = few_features(self.device.warp());
        let has_tiles = config.has_tiles();
        let (suffix, tile_rows, tile_features) = match rows {
            _ if has_tiles && config.batch_invariant => ("tile", TILE, TILE),
            1 => ("1", 1, few),
            _ if rows <= FEW_ROWS || !has_tiles => ("8", FEW_ROWS, few),
            _ => ("tile", TILE, TILE),
        };
        let kernel = ["linear", tag(config.compute), weight.format.name(), tag(to), suffix];
        self.device.launch(&kernel, [features.div_ceil(tile_features), rows.div_ceil(tile_rows), 1], THREADS as u32, 0, &args)
    }
}
