//! A mixture of experts: rows are routed and grouped by expert on the card, in tiles whose number the host bounds from above.

use tokenflow_gpu::{DevicePtr, GpuError};

use super::{
    CudaBackend, CudaMatrix, args,
    buffer::Buffer,
    config::size_of_element,
    linear,
    pointwise::gated,
    weights::{Format, Resident},
};
use crate::backend::{BackendError, Experts};

/// What the routing kernel can hold.
const MAX_EXPERTS: usize = 512;
const MAX_TOP_K: usize = 32;

/// The matrices of all experts of a layer, of one shape and encoding, and their descriptions in one array on the card.
pub struct CudaMatrices {
    pub(super) all: Vec<CudaMatrix>,
    /// Of each.
    format: Format,
    descriptions: Resident,
}

impl CudaBackend {
    pub(super) fn collect_matrices(&self, all: Vec<CudaMatrix>) -> Result<CudaMatrices, BackendError> {
        let Some(first) = all.first() else { return Err(BackendError::Device("a mixture has no experts".into())) };
        let segments = all.iter().map(CudaMatrix::whole).collect::<Result<Vec<_>, _>>()?;
        let form = |matrix: &CudaMatrix| (matrix.segments()[0].format, matrix.features(), matrix.columns());
        if let Some(other) = all.iter().find(|other| form(other) != form(first)) {
            let (one, two) = (form(first), form(other));
            return Err(BackendError::Device(format!("experts of one layer differ: {one:?} and {two:?}")));
        }
        if all.len() > MAX_EXPERTS {
            return Err(BackendError::Device(format!("{} experts are more than the {MAX_EXPERTS} that are supported", all.len())));
        }
        let weights: Vec<_> = segments.iter().map(|segment| segment.weight).collect();
        let format = segments[0].format;
        let descriptions = self.upload(bytemuck::cast_slice::<args::Weight, u8>(&weights))?;
        Ok(CudaMatrices { all, format, descriptions })
    }

    pub(super) fn run_experts(
        &self,
        x: &Buffer,
        logits: &Buffer,
        experts: &Experts<CudaMatrices>,
        out: &mut Buffer,
    ) -> Result<(), GpuError> {
        let (device, config) = (&self.device, &self.device.config);
        let (shape, num_experts) = (x.shape(), logits.shape().cols);
        assert_eq!((shape.rows, num_experts), (logits.shape().rows, experts.gate_up.all.len()), "rows of x and logits, number of experts");
        let top_k = experts.routing.top_k.min(num_experts);
        assert!(top_k <= MAX_TOP_K, "{top_k} experts a row");
        let (visits, room) = (shape.rows * top_k, shape.room.max(shape.rows) * top_k);
        let (wide, inner) = (experts.gate_up.all[0].features(), experts.down.all[0].columns());
        let element = size_of_element(config.compute);
        // As other products: a few rows are bound by reading weights, and f32 has no tensor cores.
        let is_few = !config.has_tiles() || (shape.rows <= linear::FEW_ROWS && !config.batch_invariant);
        let (suffix, tile_rows, tile_features) =
            if is_few { ("", 8, linear::few_features(device.warp())) } else { ("tile", linear::TILE, linear::TILE) };
        let num_tiles = visits.div_ceil(tile_rows) + num_experts;

        let mut scratch = self.scratch.lock();
        let mut part = |name, bytes| scratch.part(name, bytes);
        let (chosen, weights) = (part("chosen experts", 4 * room)?, part("expert weights", 4 * room)?);
        let (sorted, place, expert_start) =
            (part("visits", 4 * room)?, part("places", 4 * room)?, part("expert starts", 4 * (num_experts + 1))?);
        let tiles = part("expert tiles", 12 * (room.div_ceil(linear::FEW_ROWS) + num_experts))?;
        let gate_up = part("gate and up of visits", element * room * wide)?;
        let narrow = part("activated visits", element * room * inner)?;
        let each = part("visits' results", element * room * shape.cols)?;
        drop(scratch);

        let route = args::Route {
            logits: logits.data(),
            experts: chosen,
            weights,
            num_real: self.num_real(),
            rows: shape.rows as u32,
            num_experts: num_experts as u32,
            top_k: top_k as u32,
            renormalize: u32::from(experts.routing.renormalize),
        };
        device.launch(&["moe_route", device.tag()], [shape.rows.div_ceil(128 / device.warp()), 1, 1], 128, 0, &route)?;
        let group = args::Group { experts: chosen, sorted, place, expert_start, visits: visits as u32, num_experts: num_experts as u32 };
        device.launch(&["moe_group"], [num_experts, 1, 1], device.threads(visits, 256), 0, &group)?;
        let cut = args::Tiles {
            expert_start,
            tiles,
            num_experts: num_experts as u32,
            num_tiles: num_tiles as u32,
            tile_rows: tile_rows as u32,
            unused: 0,
        };
        device.launch(&["moe_tiles"], [1, 1, 1], device.threads(num_experts, 1024), 0, &cut)?;

        let product = |matrices: &CudaMatrices, args: args::Experts| {
            let kernel = ["moe_product", device.tag(), matrices.format.name(), suffix];
            let kernel = if suffix.is_empty() { &kernel[..3] } else { &kernel };
            let features = matrices.all[0].features();
            device.launch(kernel, [features.div_ceil(tile_features), num_tiles, 1], linear::THREADS as u32, 0, &args)
        };
        let weights_of = |matrices: &CudaMatrices| matrices.descriptions.start();
        let args = args::Experts {
            weights: weights_of(&experts.gate_up),
            x: x.data(),
            sorted,
            tiles,
            out: gate_up,
            top_k: top_k as u32,
            out_cols: wide as u32,
        };
        product(&experts.gate_up, args)?;
        self.launch_activation(&[gated(experts.activation), device.tag()], gate_up, narrow, [visits, inner], 0.0)?;
        let args = args::Experts {
            weights: weights_of(&experts.down),
            x: narrow,
            sorted: DevicePtr::NULL,
            out: each,
            out_cols: shape.cols as u32,
            ..args
        };
        product(&experts.down, args)?;

        let to = out.activations(shape.rows, shape.cols, shape.room)?;
        let sum = args::ExpertSum { x: each, experts: chosen, weights, place, out: to, cols: shape.cols as u32, top_k: top_k as u32 };
        device.launch(&["moe_sum", device.tag()], [shape.rows, 1, 1], device.threads(shape.cols.max(top_k), 256), 0, &sum)
    }
}
