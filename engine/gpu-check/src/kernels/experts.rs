//! A mixture of experts from logits to the weighted sum.

use anyhow::{bail, ensure};
use half::bf16;
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::backend::{
    Activation, Backend, Experts, Routing,
    cpu::{CpuBuffer, KvType},
};
use tokenflow_gpu::DevicePtr;

use super::{
    Check, Random,
    elements::Element,
    reference,
    weights::{Checkpoint, Format, upload},
};
use crate::card::{Card, Device};

/// Visits in tiles of eight, or of 64 on tensor cores.
pub fn experts<T: Element>(card: &Card, format: Format, on_tensor_cores: bool, seed: u64) -> anyhow::Result<()> {
    let (cpu, mut random) = (reference(KvType::F32), Random(seed));
    let (rows, num_experts) = (random.within(1..=24), random.within(1..=40));
    let top_k = random.within(1..=num_experts.min(8));
    let routing = Routing { top_k, renormalize: seed.is_multiple_of(2) };
    let hidden = format.column_multiple().max(96);
    let inner = hidden;
    let mut stack = |shape| -> Vec<Checkpoint> { (0..num_experts).map(|_| Checkpoint::random(&mut random, format, shape)).collect() };
    let (gate_up, down) = (stack([2 * inner, hidden]), stack([hidden, inner]));
    let x: Vec<f32> = T::rounded(&random.values(rows * hidden).iter().map(|v| v * 0.2).collect::<Vec<_>>());
    // Some are equal: the first comes before the others.
    let logits: Vec<f32> = (0..rows * num_experts).map(|_| random.below(12) as f32 * 0.5).collect();

    let device = Device::new(card)?;
    // Some rows are padding: they visit no expert, and zeros come of them.
    let num_real = if seed.is_multiple_of(3) { rows } else { random.within(1..=rows) };
    let visits = rows * top_k;
    let (chosen, weights) = (device.allocate::<u32>(visits)?, device.allocate::<f32>(visits)?);
    let args = args::Route {
        logits: device.upload(&T::all(&logits))?,
        experts: chosen,
        weights,
        num_real: if num_real < rows { device.upload(&[num_real as u32])? } else { DevicePtr::NULL },
        rows: rows as u32,
        num_experts: num_experts as u32,
        top_k: top_k as u32,
        renormalize: u32::from(routing.renormalize),
    };
    device.launch(&format!("moe_route_{}", T::NAME), [(rows as u32).div_ceil(128 / device.warp()), 1, 1], 128, 0, &args)?;
    let (sorted, place) = (device.allocate::<u32>(visits)?, device.allocate::<u32>(visits)?);
    let expert_start = device.allocate::<u32>(num_experts + 1)?;
    let args = args::Group { experts: chosen, sorted, place, expert_start, visits: visits as u32, num_experts: num_experts as u32 };
    device.launch("moe_group", [num_experts as u32, 1, 1], 64, 0, &args)?;
    grouped(&device, &args, num_real * top_k)?;
    let (tile_rows, block_features, suffix) = if on_tensor_cores { (64, 64, "_tile") } else { (8, 2 * 128 / device.warp(), "") };
    let num_tiles = visits.div_ceil(tile_rows) + num_experts;
    let tiles = device.allocate::<u32>(3 * num_tiles)?;
    let args = args::Tiles {
        expert_start,
        tiles,
        num_experts: num_experts as u32,
        num_tiles: num_tiles as u32,
        tile_rows: tile_rows as u32,
        unused: 0,
    };
    device.launch("moe_tiles", [1, 1, 1], 128, 0, &args)?;

    let name = format!("moe_product_{}_{}{suffix}", T::NAME, format.name());
    let (wide, narrow, each) =
        (device.allocate::<T>(visits * 2 * inner)?, device.allocate::<T>(visits * inner)?, device.allocate::<T>(visits * hidden)?);
    let grid = |features: usize| [(features as u32).div_ceil(block_features), num_tiles as u32, 1];
    let matrices = |stack: &[Checkpoint]| device.upload(&stack.iter().map(|one| upload(&device, one)).collect::<anyhow::Result<Vec<_>>>()?);
    let args = args::Experts {
        weights: matrices(&gate_up)?,
        x: device.upload(&T::all(&x))?,
        sorted,
        tiles,
        out: wide,
        top_k: top_k as u32,
        out_cols: 2 * inner as u32,
    };
    device.launch(&name, grid(2 * inner), 128, 0, &args)?;
    let activation = args::Activation { x: wide, out: narrow, rows: visits as u32, cols: inner as u32, cap: 0.0, unused: 0 };
    device.launch(&format!("gated_silu_{}", T::NAME), [2, 1, 1], 128, 0, &activation)?;
    let args = args::Experts { weights: matrices(&down)?, x: narrow, sorted: DevicePtr::NULL, out: each, out_cols: hidden as u32, ..args };
    device.launch(&name, grid(hidden), 128, 0, &args)?;
    let out = device.allocate::<T>(rows * hidden)?;
    let args = args::ExpertSum { x: each, experts: chosen, weights, place, out, cols: hidden as u32, top_k: top_k as u32 };
    device.launch(&format!("moe_sum_{}", T::NAME), [rows as u32, 1, 1], 64, 0, &args)?;

    let matrices = |stack: &[Checkpoint]| stack.iter().map(|c| cpu.matrix(&[c.view()]).expect("valid")).collect();
    let experts = Experts { routing, activation: Activation::Silu, gate_up: matrices(&gate_up), down: matrices(&down) };
    let mut expected = cpu.buffer();
    let logits = CpuBuffer::from_vec(rows, num_experts, logits);
    cpu.experts(&CpuBuffer::from_vec(rows, hidden, x), &logits, &experts, &mut expected);
    let found = T::values(&device.download(out, rows * hidden)?);
    let (found, padding) = found.split_at(num_real * hidden);
    ensure!(padding.iter().all(|&v| v == 0.0), "padding went to experts");
    card.compare_scaled(&format!("experts {format:?}"), found, &expected.as_slice()[..found.len()], 1e-4 + 3.0 * T::ROUNDING)
}

/// Visits are sorted by expert and otherwise in their order; those behind the first `real` are padding.
fn grouped(device: &Device, args: &args::Group, real: usize) -> anyhow::Result<()> {
    let chosen = device.download::<u32>(args.experts, args.visits as usize)?;
    ensure!(chosen[real..].iter().all(|&c| c == u32::MAX), "padding chose experts");
    let chosen = &chosen[..real];
    let mut expected: Vec<u32> = (0..real as u32).collect();
    expected.sort_by_key(|&visit| chosen[visit as usize]);
    let (sorted, place) = (device.download::<u32>(args.sorted, real)?, device.download::<u32>(args.place, real)?);
    let start = device.download::<u32>(args.expert_start, args.num_experts as usize + 1)?;
    let counted = (0..=args.num_experts).map(|e| chosen.iter().filter(|&&c| c < e).count() as u32);
    let found = sorted == expected
        && sorted.iter().enumerate().all(|(i, &visit)| place[visit as usize] == i as u32)
        && start.iter().copied().eq(counted);
    if found { Ok(()) } else { bail!("visits are grouped as {sorted:?} from {start:?}, not as {expected:?}") }
}

pub const CHECKS: &[Check] = &[
    Check { name: "experts f32 bf16", run: |card| experts::<f32>(card, Format::Bf16, false, 0) },
    Check { name: "experts f32 q8_0", run: |card| experts::<f32>(card, Format::Q8_0, false, 1) },
    Check { name: "experts f32 int4", run: |card| experts::<f32>(card, Format::Int4, false, 2) },
    Check { name: "experts f32 fp8", run: |card| experts::<f32>(card, Format::Fp8, false, 3) },
    Check { name: "experts bf16 bf16", run: |card| experts::<bf16>(card, Format::Bf16, false, 10) },
    Check { name: "experts bf16 q8_0", run: |card| experts::<bf16>(card, Format::Q8_0, false, 11) },
    Check { name: "experts bf16 int4", run: |card| experts::<bf16>(card, Format::Int4, false, 12) },
    Check { name: "experts bf16 fp8", run: |card| experts::<bf16>(card, Format::Fp8, false, 13) },
    Check { name: "experts bf16 bf16 on tensor cores", run: |card| experts::<bf16>(card, Format::Bf16, true, 20) },
    Check { name: "experts bf16 q8_0 on tensor cores", run: |card| experts::<bf16>(card, Format::Q8_0, true, 21) },
    Check { name: "experts bf16 int4 on tensor cores", run: |card| experts::<bf16>(card, Format::Int4, true, 22) },
    Check { name: "experts bf16 fp8 on tensor cores", run: |card| experts::<bf16>(card, Format::Fp8, true, 23) },
    Check { name: "experts bf16 q4_k", run: |card| experts::<bf16>(card, Format::Q4K, false, 30) },
    Check { name: "experts bf16 q6_k on tensor cores", run: |card| experts::<bf16>(card, Format::Q6K, true, 31) },
];
