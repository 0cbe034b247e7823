//! Products of few rows with weights in every encoding, and encoded weights made bf16.

use anyhow::{bail, ensure};
use half::{bf16, f16};
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::backend::{
    Backend,
    cpu::{CpuBuffer, KvType},
};

use super::{
    Check, Random,
    elements::Element,
    reference,
    weights::{Checkpoint, Format, upload},
};
use crate::card::{Card, Device};

/// How many rows a kernel takes at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    Few(u32),
    Tile,
}

/// A product to be computed.
struct Case<T: Element> {
    format: Format,
    /// Columns are no multiple of anything.
    odd: bool,
    features: usize,
    columns: usize,
    rows: usize,
    x: Vec<T>,
    checkpoint: Checkpoint,
    bias: Option<Vec<f32>>,
}

impl<T: Element> Case<T> {
    fn new(format: Format, rows: usize, odd: bool, seed: u64) -> Self {
        let mut random = Random(seed);
        // Plain ones make more stages than a tile has, and a last one that is not full.
        let multiple = if format.column_multiple() == 8 { 104 } else { format.column_multiple() };
        let columns = if odd { random.within(1..=99) } else { random.within(1..=5) * multiple.max(32) };
        let features = random.within(1..=90);
        let checkpoint = Checkpoint::random(&mut random, format, [features, columns]);
        let bias = seed.is_multiple_of(2).then(|| random.values(features));
        Self { format, odd, features, columns, rows, x: T::all(&random.values(rows * columns)), checkpoint, bias }
    }

    /// Of the rows from `from` on. As a part of a stacked matrix, others' columns stand before and behind.
    fn run<Out: Element>(&self, card: &Card, kernel: Kernel, from: usize) -> anyhow::Result<Vec<Out>> {
        let (device, rows) = (Device::new(card)?, self.rows - from);
        let (before, out_cols) = (8, self.features + 11);
        let out = device.allocate::<Out>(rows * out_cols)?;
        let args = args::Linear {
            weight: upload(&device, &self.checkpoint)?,
            x: device.upload(&self.x[from * self.columns..])?,
            bias: device.upload_some(self.bias.as_deref())?,
            out: out.add(before * size_of::<Out>()),
            rows: rows as u32,
            out_cols: out_cols as u32,
        };
        let (suffix, tile_rows, tile_features) = match kernel {
            Kernel::Few(rows) => (rows.to_string(), rows, 2 * 128 / device.warp()),
            Kernel::Tile => ("tile".into(), 64, 64),
        };
        let name = format!("linear_{}_{}{}_{}_{suffix}", T::NAME, self.format.name(), if self.odd { "_odd" } else { "" }, Out::NAME);
        device.launch(&name, [(self.features as u32).div_ceil(tile_features), (rows as u32).div_ceil(tile_rows), 1], 128, 0, &args)?;
        let wide = device.download::<Out>(out, rows * out_cols)?;
        let own = before..before + self.features;
        let is_untouched =
            |(i, value): (usize, &Out)| own.contains(&(i % out_cols)) || bytemuck::bytes_of(value).iter().all(|&b| b == 0xff);
        ensure!(wide.iter().enumerate().all(is_untouched), "{name}: columns of other parts were written");
        Ok(wide.chunks_exact(out_cols).flat_map(|row| row[own.clone()].to_vec()).collect())
    }

    fn expected(&self) -> Vec<f32> {
        let cpu = reference(KvType::F32);
        let matrix = cpu.matrix(&[self.checkpoint.view()]).expect("valid");
        let bias = self.bias.as_ref().map(|bias| cpu.vector_f32(bias));
        let mut out = cpu.buffer();
        cpu.linear(&CpuBuffer::from_vec(self.rows, self.columns, T::values(&self.x)), &matrix, bias.as_ref(), &mut out);
        out.as_slice().to_vec()
    }
}

fn same_bits<T: Element>(a: &[T], b: &[T]) -> bool {
    bytemuck::cast_slice::<T, u8>(a) == bytemuck::cast_slice::<T, u8>(b)
}

fn few<T: Element, Out: Element>(card: &Card, format: Format, rows: usize, odd: bool, seed: u64) -> anyhow::Result<()> {
    let case = Case::<T>::new(format, rows, odd, seed);
    let found = case.run::<Out>(card, if rows == 1 { Kernel::Few(1) } else { Kernel::Few(8) }, 0)?;
    card.compare_scaled(&format!("{format:?}"), &Out::values(&found), &case.expected(), 1e-5 + Out::ROUNDING)?;
    let alone = case.run::<Out>(card, Kernel::Few(1), rows - 1)?;
    let same = same_bits(&alone, &found[(rows - 1) * case.features..]);
    if same { Ok(()) } else { bail!("{format:?}: a row alone differs from the same row among {rows}") }
}

/// Weights are rounded to the type that products are in.
fn tile<T: Element, Out: Element>(card: &Card, format: Format, rows: usize, odd: bool, seed: u64) -> anyhow::Result<()> {
    let case = Case::<T>::new(format, rows, odd, seed);
    let found = case.run::<Out>(card, Kernel::Tile, 0)?;
    card.compare_scaled(&format!("{format:?}"), &Out::values(&found), &case.expected(), 1e-4 + 2.0 * T::ROUNDING)?;
    let some = case.run::<Out>(card, Kernel::Tile, rows / 2)?;
    let same = same_bits(&some, &found[rows / 2 * case.features..]);
    if same { Ok(()) } else { bail!("{format:?}: rows differ where others are multiplied with them") }
}

pub fn linear<T: Element, Out: Element>(card: &Card, formats: &[Format]) -> anyhow::Result<()> {
    for (i, &format) in formats.iter().enumerate() {
        for rows in [1, 3, 13] {
            few::<T, Out>(card, format, rows, false, (i * 100 + rows) as u64)?;
        }
    }
    Ok(())
}

pub fn tiles<T: Element, Out: Element>(card: &Card, formats: &[Format]) -> anyhow::Result<()> {
    for (i, &format) in formats.iter().enumerate() {
        for rows in [1, 64, 79] {
            tile::<T, Out>(card, format, rows, false, (i * 100 + rows) as u64)?;
        }
    }
    Ok(())
}

fn widen<Out: Element>(card: &Card) -> anyhow::Result<()> {
    let cpu = reference(KvType::F32);
    for (seed, format) in Format::ENCODED.into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let [features, columns] = [random.within(1..=40), 512];
        let checkpoint = Checkpoint::random(&mut random, format, [features, columns]);
        let device = Device::new(card)?;
        let out = device.allocate::<Out>(features * columns)?;
        let args = args::Widen { weight: upload(&device, &checkpoint)?, out };
        let name = format!("widen_{}_{}", format.name(), Out::NAME);
        device.launch(&name, [features as u32, 1, 1], 128, 0, &args)?;
        // One product with each unit vector would do; rows of an embedding are the same.
        let matrix = cpu.matrix(&[checkpoint.view()]).expect("valid");
        let mut expected = cpu.buffer();
        let batch = cpu.batch(tokenflow_engine::backend::RaggedBatch { tokens: (0..features as u32).collect(), ..Default::default() });
        cpu.embed(&batch, &matrix, 1.0, &mut expected);
        card.compare(&name, &Out::values(&device.download(out, features * columns)?), expected.as_slice(), 1e-6 + Out::ROUNDING)?;
    }
    Ok(())
}

/// Plain weights of the activations' type, then all encodings.
fn formats(plain: Format) -> Vec<Format> {
    [plain].into_iter().chain(Format::ENCODED).collect()
}

pub const CHECKS: &[Check] = &[
    Check { name: "products f32", run: |card| linear::<f32, f32>(card, &formats(Format::F32)) },
    Check { name: "products f32 of narrow weights", run: |card| linear::<f32, f32>(card, &[Format::Bf16, Format::F16]) },
    Check { name: "products bf16", run: |card| linear::<bf16, bf16>(card, &formats(Format::Bf16)) },
    Check { name: "products f16", run: |card| linear::<f16, f16>(card, &formats(Format::F16)) },
    Check { name: "products bf16 to f32", run: |card| linear::<bf16, f32>(card, &[Format::Bf16, Format::Q6K]) },
    Check { name: "products f32 of odd widths", run: |card| (0..4).try_for_each(|seed| few::<f32, f32>(card, Format::F32, 5, true, seed)) },
    Check {
        name: "products bf16 of odd widths",
        run: |card| (0..4).try_for_each(|seed| few::<bf16, bf16>(card, Format::Bf16, 1, true, seed)),
    },
    Check { name: "products bf16 in tiles", run: |card| tiles::<bf16, bf16>(card, &formats(Format::Bf16)) },
    Check { name: "products f16 in tiles", run: |card| tiles::<f16, f16>(card, &formats(Format::F16)) },
    Check { name: "products bf16 to f32 in tiles", run: |card| tiles::<bf16, f32>(card, &[Format::Bf16, Format::Q6K]) },
    Check { name: "products bf16 of odd widths in tiles", run: |card| tile::<bf16, bf16>(card, Format::Bf16, 20, true, 1) },
    Check { name: "widened weights bf16", run: widen::<bf16> },
    Check { name: "widened weights f16", run: widen::<f16> },
];
