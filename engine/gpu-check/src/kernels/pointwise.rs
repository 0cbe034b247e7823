//! Embedding, norms, activations and gathering: rows and elements by themselves.

use anyhow::bail;
use half::{bf16, f16};
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::backend::{
    Activation, Backend, Norm, RaggedBatch,
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

/// Some tokens are those that the step before has sampled.
fn embed(card: &Card, formats: &[Format]) -> anyhow::Result<()> {
    let cpu = reference(KvType::F32);
    for (seed, &format) in (0u64..).zip(formats) {
        let mut random = Random(seed);
        let (vocabulary, tokens) = (random.within(1..=90), random.within(2..=7));
        let multiple = format.column_multiple();
        let cols = if multiple == 8 && seed % 2 == 0 { random.within(1..=600) } else { random.within(1..=3) * multiple };
        let table = Checkpoint::random(&mut random, format, [vocabulary, cols]);
        let tokens: Vec<u32> = (0..tokens).map(|_| random.below(vocabulary) as u32).collect();
        let previous: Vec<u32> = tokens.iter().rev().copied().collect();
        let given: Vec<u32> =
            tokens.iter().zip((0..previous.len() as u32).rev()).map(|(&t, row)| if t % 2 == 0 { t } else { 0x8000_0000 | row }).collect();
        let scale = random.one_of(&[1.0, 3.5]);

        let device = Device::new(card)?;
        let out = device.allocate::<f32>(tokens.len() * cols)?;
        let (given, previous) = (device.upload(&given)?, device.upload(&previous)?);
        let args = args::Embed { tokens: given, previous, table: upload(&device, &table)?, out, scale, unused: 0 };
        device.launch(&format!("embed_{}", format.name()), [tokens.len() as u32, 1, 1], 64, 0, &args)?;

        let mut expected = cpu.buffer();
        let batch = cpu.batch(RaggedBatch { tokens: tokens.clone(), ..RaggedBatch::default() });
        cpu.embed(&batch, &cpu.matrix(&[table.view()]).expect("valid"), scale, &mut expected);
        let found = device.download(out, tokens.len() * cols)?;
        card.compare(&format!("embedding of {format:?}"), &found, expected.as_slice(), if multiple == 8 { 0.0 } else { 1e-6 })?;
    }
    Ok(())
}

pub fn norm<T: Element>(card: &Card) -> anyhow::Result<()> {
    let cpu = reference(KvType::F32);
    for seed in 0..8 {
        let mut random = Random(seed);
        let (rows, cols, layer, add) = (random.within(1..=5), random.within(1..=700), seed % 2 == 0, seed % 4 < 2);
        let cols = if seed < 4 { cols * 4 } else { cols };
        let (x, delta) = (random.values(rows * cols), T::all(&random.values(rows * cols)));
        let (weight, bias) = (random.values(cols), random.values(cols));

        let device = Device::new(card)?;
        let (stream, out) = (device.upload(&x)?, device.allocate::<T>(rows * cols)?);
        let args = args::Norm {
            x: stream,
            delta: if add { device.upload(&delta)? } else { DevicePtr::NULL },
            weight: device.upload(&weight)?,
            bias: if layer { device.upload(&bias)? } else { DevicePtr::NULL },
            out,
            cols: cols as u32,
            eps: 1e-5,
        };
        let name = format!("{}_norm_{}", if layer { "layer" } else { "rms" }, T::NAME);
        device.launch(&name, [rows as u32, 1, 1], random.one_of(&[64, 256, 1024]), 0, &args)?;

        let weight = cpu.vector_f32(&weight);
        let norm = if layer { Norm::Layer { weight, bias: cpu.vector_f32(&bias), eps: 1e-5 } } else { Norm::Rms { weight, eps: 1e-5 } };
        let mut expected = cpu.buffer();
        let mut x = CpuBuffer::from_vec(rows, cols, x);
        if add {
            let delta = CpuBuffer::from_vec(rows, cols, T::values(&delta));
            cpu.add_norm(&mut x, &delta, &norm, &mut expected);
        } else {
            cpu.norm(&x, &norm, &mut expected);
        }
        card.compare(&name, &T::values(&device.download(out, rows * cols)?), expected.as_slice(), 1e-5 + T::ROUNDING)?;
        if !add && T::NAME != "f32" {
            let own = args::Norm { x: device.upload(&T::all(x.as_slice()))?, ..args };
            device.launch(&name.replace("norm", "norm_own"), [rows as u32, 1, 1], 64, 0, &own)?;
            cpu.norm(&CpuBuffer::from_vec(rows, cols, T::rounded(x.as_slice())), &norm, &mut expected);
            card.compare("norm of its own type", &T::values(&device.download(out, rows * cols)?), expected.as_slice(), 1e-5 + T::ROUNDING)?;
        }
        card.compare("residual stream", &device.download(stream, rows * cols)?, x.as_slice(), 0.0)?;
    }
    Ok(())
}

pub fn activation<T: Element>(card: &Card) -> anyhow::Result<()> {
    let cpu = reference(KvType::F32);
    for (name, f) in [("silu", Activation::Silu), ("gelu", Activation::Gelu), ("gelu_tanh", Activation::GeluTanh)] {
        let mut random = Random(f as u64);
        // Both with columns that 16 bytes divide and with others; more rows than the grid has.
        let (rows, cols) = (random.within(4..=6), if f == Activation::Gelu { random.within(1..=300) } else { random.within(1..=60) * 8 });
        let x: Vec<f32> = T::rounded(&random.values(rows * 2 * cols).iter().map(|v| v * 9.0).collect::<Vec<_>>());
        let device = Device::new(card)?;
        let (input, out) = (device.upload(&T::all(&x))?, device.allocate::<T>(rows * cols)?);
        let mut args = args::Activation { x: input, out, rows: rows as u32, cols: cols as u32, cap: 0.0, unused: 0 };
        device.launch(&format!("gated_{name}_{}", T::NAME), [2, 3, 1], 64, 0, &args)?;
        let mut expected = cpu.buffer();
        let mut x = CpuBuffer::from_vec(rows, 2 * cols, x);
        cpu.gated_activate(f, &x, &mut expected);
        card.compare(name, &T::values(&device.download(out, rows * cols)?), expected.as_slice(), 1e-5 + T::ROUNDING)?;

        (args.out, args.cols) = (args.x, 2 * cols as u32);
        device.launch(&format!("{name}_{}", T::NAME), [2, 3, 1], 64, 0, &args)?;
        cpu.activate(f, &mut x);
        card.compare(name, &T::values(&device.download(input, rows * 2 * cols)?), x.as_slice(), 1e-5 + T::ROUNDING)?;
    }
    Ok(())
}

fn soft_cap(card: &Card) -> anyhow::Result<()> {
    let (cpu, device) = (reference(KvType::F32), Device::new(card)?);
    let values: Vec<f32> = Random(1).values(1000).iter().map(|v| v * 90.0).collect();
    let x = device.upload(&values)?;
    device.launch("soft_cap", [2, 3, 1], 128, 0, &args::Activation { x, out: x, rows: 4, cols: 250, cap: 30.0, unused: 0 })?;
    let mut expected = CpuBuffer::from_vec(4, 250, values);
    cpu.soft_cap(&mut expected, 30.0);
    card.compare("soft cap", &device.download(x, 1000)?, expected.as_slice(), 2e-6)
}

fn gather<T: Element>(card: &Card) -> anyhow::Result<()> {
    let (cpu, device) = (reference(KvType::F32), Device::new(card)?);
    let mut random = Random(5);
    let (tokens, cols) = (9, 70);
    let (x, delta) = (random.values(tokens * cols), T::all(&random.values(tokens * cols)));
    let rows: Vec<u32> = (0..6).map(|_| random.below(tokens) as u32).collect();
    for add in [false, true] {
        let out = device.allocate::<f32>(rows.len() * cols)?;
        let delta_args = if add { device.upload(&delta)? } else { DevicePtr::NULL };
        let args =
            args::Gather { x: device.upload(&x)?, delta: delta_args, rows: device.upload(&rows)?, out, cols: cols as u32, unused: 0 };
        device.launch(&format!("gather_rows_{}", T::NAME), [rows.len() as u32, 1, 1], 64, 0, &args)?;
        let batch = cpu.batch(RaggedBatch { logits_rows: rows.clone(), ..RaggedBatch::default() });
        let delta = add.then(|| CpuBuffer::from_vec(tokens, cols, T::values(&delta)));
        let mut expected = cpu.buffer();
        cpu.gather_logits_rows(&batch, &CpuBuffer::from_vec(tokens, cols, x.clone()), delta.as_ref(), &mut expected);
        card.compare("gathered rows", &device.download(out, rows.len() * cols)?, expected.as_slice(), 0.0)?;
    }
    Ok(())
}

fn stream<T: Element>(card: &Card) -> anyhow::Result<()> {
    let (device, mut random) = (Device::new(card)?, Random(9));
    let (x, delta) = (random.values(700), T::all(&random.values(700)));
    let stream = device.upload(&x)?;
    let args = args::Stream { x: stream, from: device.upload(&delta)?, total: 700 };
    device.launch(&format!("add_{}", T::NAME), [2, 1, 1], 128, 0, &args)?;
    let sum: Vec<f32> = x.iter().zip(T::values(&delta)).map(|(x, delta)| x + delta).collect();
    card.compare("sum", &device.download(stream, 700)?, &sum, 0.0)?;
    device.launch(&format!("to_f32_{}", T::NAME), [2, 1, 1], 128, 0, &args)?;
    card.compare("as f32", &device.download(stream, 700)?, &T::values(&delta), 0.0)
}

fn columns<T: Element>(card: &Card) -> anyhow::Result<()> {
    let (device, mut random) = (Device::new(card)?, Random(4));
    let (rows, cols) = (5, 40);
    let x = T::all(&random.values(rows * cols));
    // Some have no column.
    let order: Vec<u32> = (0..64).map(|_| random.below(cols + 9) as u32).map(|c| if c < cols as u32 { c } else { u32::MAX }).collect();
    let out = device.allocate::<T>(rows * order.len())?;
    let args = args::Columns {
        x: device.upload(&x)?,
        order: device.upload(&order)?,
        out,
        rows: rows as u32,
        cols: cols as u32,
        out_cols: order.len() as u32,
        unused: 0,
    };
    device.launch(&format!("pick_columns_{}", T::NAME), [1, 3, 1], 64, 0, &args)?;
    let picked = |row: &[T]| order.iter().map(|&c| row.get(c as usize).map_or(0.0, |x| x.to_f32())).collect::<Vec<f32>>();
    let expected: Vec<f32> = x.chunks_exact(cols).flat_map(picked).collect();
    card.compare("picked columns", &T::values(&device.download(out, rows * order.len())?), &expected, 0.0)
}

fn bias<T: Element>(card: &Card) -> anyhow::Result<()> {
    let (device, mut random) = (Device::new(card)?, Random(6));
    for cols in [104, 37] {
        let rows = 5;
        let (x, bias) = (T::all(&random.values(rows * cols)), random.values(cols));
        let out = device.upload(&x)?;
        let args = args::Bias { x: out, bias: device.upload(&bias)?, rows: rows as u32, cols: cols as u32 };
        device.launch(&format!("add_bias_{}", T::NAME), [1, 3, 1], 64, 0, &args)?;
        let expected: Vec<f32> = T::values(&x).iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
        card.compare("biased", &T::values(&device.download(out, rows * cols)?), &T::rounded(&expected), 0.0)?;
    }
    Ok(())
}

/// Each copy sees what those before it wrote.
fn copy_blocks(card: &Card) -> anyhow::Result<()> {
    let device = Device::new(card)?;
    let (blocks, words, layers) = (5, 300, 2);
    let mut cache: Vec<u32> = (0..layers * blocks * words).map(|i| i as u32).collect();
    let copies = [[1u32, 2], [2, 0], [3, 1], [0, 4]];
    let memory = device.upload(&cache)?;
    let args = args::CopyBlocks {
        cache: memory,
        copies: device.upload(copies.as_flattened())?,
        num_copies: copies.len() as u32,
        block_bytes: 4 * words as u32,
        layer_bytes: 4 * (blocks * words) as u64,
    };
    device.launch("copy_blocks", [2, layers as u32, 1], 64, 0, &args)?;
    for layer in cache.chunks_exact_mut(blocks * words) {
        for [from, to] in copies.map(|pair| pair.map(|block| block as usize * words)) {
            layer.copy_within(from..from + words, to);
        }
    }
    if device.download::<u32>(memory, cache.len())? == cache { Ok(()) } else { bail!("copied blocks differ") }
}

pub const CHECKS: &[Check] = &[
    Check { name: "embedding", run: |card| embed(card, &[Format::F32, Format::Bf16, Format::F16, Format::F32, Format::Bf16, Format::F16]) },
    Check { name: "embedding of encoded weights", run: |card| embed(card, &Format::ENCODED) },
    Check { name: "norms f32", run: norm::<f32> },
    Check { name: "norms bf16", run: norm::<bf16> },
    Check { name: "norms f16", run: norm::<f16> },
    Check { name: "activations f32", run: activation::<f32> },
    Check { name: "activations bf16", run: activation::<bf16> },
    Check { name: "activations f16", run: activation::<f16> },
    Check { name: "soft cap", run: soft_cap },
    Check { name: "gathered rows f32", run: gather::<f32> },
    Check { name: "gathered rows bf16", run: gather::<bf16> },
    Check { name: "stream f32", run: stream::<f32> },
    Check { name: "stream bf16", run: stream::<bf16> },
    Check { name: "stream f16", run: stream::<f16> },
    Check { name: "bias f32", run: bias::<f32> },
    Check { name: "bias bf16", run: bias::<bf16> },
    Check { name: "bias f16", run: bias::<f16> },
    Check { name: "picked columns f32", run: columns::<f32> },
    Check { name: "picked columns bf16", run: columns::<bf16> },
    Check { name: "picked columns f16", run: columns::<f16> },
    Check { name: "copied blocks", run: copy_blocks },
];
