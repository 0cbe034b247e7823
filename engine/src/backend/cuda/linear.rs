//! Products of activations and weights. Which kernel does one depends on the number of rows: a few are bound by reading the weights, many go
//! through the vendor's library, to which encoded weights go widened, or through tensor cores here where it is not there or not wanted.

use tokenflow_gpu::{DevicePtr, Element, GpuError, Product};

use super::{
    CudaBackend, CudaMatrix, CudaVector, args,
    buffer::Buffer,
    config::{size_of_element, tag},
    weights::Segment,
};

/// Rows that the kernel for few takes at a time.
pub(super) const FEW_ROWS: usize = 8;
/// Features of a warp there, and threads of a block of any product.
const WARP_FEATURES: usize = 2;
pub(super) const THREADS: usize = 128;
/// Rows and features of a block on tensor cores.
pub(super) const TILE: usize = 64;
/// Rows above which products with plain weights are the library's; in f32 more, since our own kernel adds in one order there.
const LIBRARY_ROWS: usize = FEW_ROWS;
const LIBRARY_ROWS_F32: usize = 64;
/// The same with encoded weights, which are widened for it each time: that takes as long as some dozens of rows.
const WIDENED_ROWS: usize = 128;
/// The part of the card's memory that a widened matrix may take.
const WIDENED_PART: usize = 64;

/// Features of a block of the kernel for few rows.
pub(super) fn few_features(warp: usize) -> usize {
    THREADS / warp * WARP_FEATURES
}

fn shape_of(weight: &CudaMatrix) -> [usize; 2] {
    [weight.features(), weight.columns()]
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
        if self.is_the_librarys(shape.rows, weight) {
            match self.multiply_by_library(x, weight, bias, out, to) {
                Err(GpuError::Call { call, reason }) => self.refuse(weight, call, &reason),
                done => return done,
            }
        }
        for segment in weight.segments() {
            let bias = bias.map_or(DevicePtr::NULL, |bias| bias.start().add(segment.first * size_of::<f32>()));
            let own = out.add(segment.first * size_of_element(to));
            self.multiply_segment(x, segment, bias, own, weight.features(), to)?;
        }
        Ok(())
    }

    /// Writes the segment's own of `out_cols` columns.
    fn multiply_segment(
        &self,
        x: &Buffer,
        segment: &Segment,
        bias: DevicePtr,
        out: DevicePtr,
        out_cols: usize,
        to: Element,
    ) -> Result<(), GpuError> {
        let (config, rows, features) = (&self.device.config, x.shape().rows, segment.features());
        let x = match segment.order {
            Some(order) => self.pick_columns(x, order, segment.weight.columns as usize)?,
            None => x.data(),
        };
        let args = args::Linear { weight: segment.weight, x, bias, out, rows: rows as u32, out_cols: out_cols as u32 };
        let few = few_features(self.device.warp());
        let has_tiles = config.has_tiles();
        let (suffix, tile_rows, tile_features) = match rows {
            _ if has_tiles && config.batch_invariant => ("tile", TILE, TILE),
            1 => ("1", 1, few),
            _ if rows <= FEW_ROWS || !has_tiles => ("8", FEW_ROWS, few),
            _ => ("tile", TILE, TILE),
        };
        let kernel = ["linear", tag(config.compute), segment.format.name(), tag(to), suffix];
        self.device.launch(&kernel, [features.div_ceil(tile_features), rows.div_ceil(tile_rows), 1], THREADS as u32, 0, &args)
    }

    fn is_the_librarys(&self, rows: usize, weight: &CudaMatrix) -> bool {
        let is_plain = matches!(weight.segments(), [segment] if segment.is_plain());
        let least = match self.device.config.compute {
            _ if !is_plain => WIDENED_ROWS,
            Element::F32 => LIBRARY_ROWS_F32,
            Element::F16 | Element::BF16 => LIBRARY_ROWS,
        };
        let is_wanted = rows > least && !self.device.config.batch_invariant && (is_plain || self.can_widen(weight));
        is_wanted && self.device.gpu.driver().has_products() && !self.refused.lock().contains(&shape_of(weight))
    }

    /// Whether the matrix is encoded, in one order of columns, and no more than the card has room for as 16 bits.
    fn can_widen(&self, weight: &CudaMatrix) -> bool {
        let segments = weight.segments();
        let columns = segments.first().map_or(0, |segment| segment.weight.columns);
        let is_fit = |segment: &Segment| {
            !segment.is_plain() && segment.weight.columns == columns && (segment.order.is_none() || segments.len() == 1)
        };
        let bytes = weight.features() * columns as usize * size_of_element(self.device.config.compute);
        self.device.config.has_tiles() && segments.iter().all(is_fit) && bytes <= self.device.gpu.info().total_bytes / WIDENED_PART
    }

    /// The segments' values in the type that is computed in, rows upon rows.
    fn widen(&self, weight: &CudaMatrix, columns: usize) -> Result<DevicePtr, GpuError> {
        let row_bytes = columns * size_of_element(self.device.config.compute);
        let out = self.scratch.lock().part("widened weights", weight.features() * row_bytes)?;
        for segment in weight.segments() {
            let args = args::Widen { weight: segment.weight, out: out.add(segment.first * row_bytes) };
            let kernel = ["widen", segment.format.name(), self.device.tag()];
            self.device.launch(&kernel, [segment.features(), 1, 1], THREADS as u32, 0, &args)?;
        }
        Ok(out)
    }

    /// Leaves products with matrices of this shape to our own kernels from now on.
    fn refuse(&self, weight: &CudaMatrix, call: &str, reason: &str) {
        let shape = shape_of(weight);
        tracing::warn!(?shape, call, reason, "the library of products does not take this shape of weights");
        self.refused.lock().insert(shape);
    }

    fn multiply_by_library(
        &self,
        x: &Buffer,
        weight: &CudaMatrix,
        bias: Option<&CudaVector>,
        out: DevicePtr,
        to: Element,
    ) -> Result<(), GpuError> {
        let rows = x.shape().rows;
        let (x, values, inner) = match weight.segments() {
            [segment] if segment.is_plain() => (x.data(), segment.weight.codes, weight.columns()),
            segments => {
                let inner = segments.first().map_or(0, |segment| segment.weight.columns as usize);
                let picked = match segments {
                    [Segment { order: Some(order), .. }] => self.pick_columns(x, *order, inner)?,
                    _ => x.data(),
                };
                (picked, self.widen(weight, inner)?, inner)
            }
        };
        let product = Product { rows, features: weight.features(), inner, element: self.device.config.compute, out: to };
        // SAFETY: shapes were compared, memory lives until the stream has been waited for, and products are on no other stream.
        unsafe { self.device.stream.product(&product, x, values, out)? };
        let Some(bias) = bias else { return Ok(()) };
        let args = args::Bias { x: out, bias: bias.start(), rows: rows as u32, cols: weight.features() as u32 };
        let (grid, threads) = self.device.rows_grid(rows, weight.features(), to);
        self.device.launch(&["add_bias", tag(to)], grid, threads, 0, &args)
    }

    /// `x` with its columns in the order of a weight's.
    fn pick_columns(&self, x: &Buffer, order: DevicePtr, out_cols: usize) -> Result<DevicePtr, GpuError> {
        let (shape, device) = (x.shape(), &self.device);
        let room = shape.rows.max(shape.room) * out_cols * size_of_element(device.config.compute);
        let out = self.scratch.lock().part("picked columns", room)?;
        let (rows, cols) = (shape.rows as u32, shape.cols as u32);
        let args = args::Columns { x: x.data(), order, out, rows, cols, out_cols: out_cols as u32, unused: 0 };
        let (grid, threads) = device.rows_grid(shape.rows, out_cols, device.config.compute);
        device.launch(&["pick_columns", device.tag()], grid, threads, 0, &args)?;
        Ok(out)
    }
}
