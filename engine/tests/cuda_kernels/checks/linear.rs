//! Products of few rows with weights in every encoding, and encoded weights made bf16.

use half::{bf16, f16};
use tokenflow_engine::backend::{
    Backend,
    cpu::{CpuBuffer, KvType},
};

use super::{
    Outcome, Random, compare, compare_scaled,
    elements::Element,
    on_all_warps, reference,
    weights::{Checkpoint, Format, upload},
};
use crate::{
    args,
    emulator::{Device, Library, Pointer},
};

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
        let columns = if odd { random.within(1..=99) } else { random.within(1..=5) * format.column_multiple().max(32) };
        let features = random.within(1..=90);
        let checkpoint = Checkpoint::random(&mut random, format, [features, columns]);
        let bias = seed.is_multiple_of(2).then(|| random.values(features));
        Self { format, odd, features, columns, rows, x: T::all(&random.values(rows * columns)), checkpoint, bias }
    }

    /// Of the rows from `from` on.
    fn run<Out: Element>(&self, library: &Library, kernel: Kernel, from: usize) -> Result<Vec<Out>, String> {
        let (device, rows) = (Device::new(library, self.rows as u64), self.rows - from);
        let out = device.allocate::<Out>(rows * self.features);
        let args = args::Linear {
            weight: upload(&device, &self.checkpoint),
            x: device.upload(&self.x[from * self.columns..]).any(),
            bias: self.bias.as_ref().map_or(Pointer::NULL, |bias| device.upload(bias)),
            out: out.any(),
            rows: rows as u32,
        };
        let (suffix, tile_rows, tile_features) = match kernel {
            Kernel::Few(rows) => (rows.to_string(), rows, 2 * 128 / device.warp()),
            Kernel::Tile => ("tile".into(), 64, 64),
        };
        let name = format!("linear_{}_{}{}_{}_{suffix}", T::NAME, self.format.name(), if self.odd { "_odd" } else { "" }, Out::NAME);
        device.launch(&name, [(self.features as u32).div_ceil(tile_features), (rows as u32).div_ceil(tile_rows), 1], 128, 0, &args)?;
        Ok(device.download(out, rows * self.features))
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

fn few<T: Element, Out: Element>(library: &Library, format: Format, rows: usize, odd: bool, seed: u64) -> Outcome {
    let case = Case::<T>::new(format, rows, odd, seed);
    let found = case.run::<Out>(library, if rows == 1 { Kernel::Few(1) } else { Kernel::Few(8) }, 0)?;
    compare_scaled(&format!("{format:?}"), &Out::values(&found), &case.expected(), 1e-5 + Out::ROUNDING)?;
    let alone = case.run::<Out>(library, Kernel::Few(1), rows - 1)?;
    let same = same_bits(&alone, &found[(rows - 1) * case.features..]);
    if same { Ok(()) } else { Err(format!("{format:?}: a row alone differs from the same row among {rows}")) }
}

/// Weights are rounded to the type that products are in.
fn tile<T: Element, Out: Element>(library: &Library, format: Format, rows: usize, odd: bool, seed: u64) -> Outcome {
    let case = Case::<T>::new(format, rows, odd, seed);
    let found = case.run::<Out>(library, Kernel::Tile, 0)?;
    compare_scaled(&format!("{format:?}"), &Out::values(&found), &case.expected(), 1e-4 + 2.0 * T::ROUNDING)?;
    let some = case.run::<Out>(library, Kernel::Tile, rows / 2)?;
    let same = same_bits(&some, &found[rows / 2 * case.features..]);
    if same { Ok(()) } else { Err(format!("{format:?}: rows differ where others are multiplied with them")) }
}

pub fn linear<T: Element, Out: Element>(library: &Library, formats: &[Format]) -> Outcome {
    for (i, &format) in formats.iter().enumerate() {
        for rows in [1, 3, 13] {
            few::<T, Out>(library, format, rows, false, (i * 100 + rows) as u64)?;
        }
    }
    Ok(())
}

pub fn tiles<T: Element, Out: Element>(library: &Library, formats: &[Format]) -> Outcome {
    for (i, &format) in formats.iter().enumerate() {
        for rows in [1, 64, 79] {
            tile::<T, Out>(library, format, rows, false, (i * 100 + rows) as u64)?;
        }
    }
    Ok(())
}

fn widen<Out: Element>(library: &Library) -> Outcome {
    let cpu = reference(KvType::F32);
    for (seed, format) in Format::ENCODED.into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let [features, columns] = [random.within(1..=40), 512];
        let checkpoint = Checkpoint::random(&mut random, format, [features, columns]);
        let device = Device::new(library, seed as u64);
        let out = device.allocate::<Out>(features * columns);
        let args = args::Widen { weight: upload(&device, &checkpoint), out: out.any() };
        let name = format!("widen_{}_{}", format.name(), Out::NAME);
        device.launch(&name, [features as u32, 1, 1], 128, 0, &args)?;
        // One product with each unit vector would do; rows of an embedding are the same.
        let matrix = cpu.matrix(&[checkpoint.view()]).expect("valid");
        let mut expected = cpu.buffer();
        let batch = cpu.batch(tokenflow_engine::backend::RaggedBatch { tokens: (0..features as u32).collect(), ..Default::default() });
        cpu.embed(&batch, &matrix, 1.0, &mut expected);
        compare(&name, &Out::values(&device.download(out, features * columns)), expected.as_slice(), 1e-6 + Out::ROUNDING)?;
    }
    Ok(())
}

#[test]
fn products_agree() {
    on_all_warps(|library| linear::<f32, f32>(library, &Format::ALL));
    let formats: Vec<Format> = Format::ALL.into_iter().filter(|&f| f != Format::F32).collect();
    on_all_warps(|library| linear::<bf16, bf16>(library, &formats));
    on_all_warps(|library| linear::<f16, f16>(library, &formats));
    on_all_warps(|library| linear::<bf16, f32>(library, &[Format::Bf16, Format::Q4K]));
}

#[test]
fn products_of_odd_widths_agree() {
    for seed in 0..4 {
        on_all_warps(|library| few::<f32, f32>(library, Format::F32, 5, true, seed));
        on_all_warps(|library| few::<bf16, bf16>(library, Format::Bf16, 1, true, seed));
    }
}

#[test]
fn products_in_tiles_agree() {
    on_all_warps(|library| tiles::<bf16, bf16>(library, &[Format::Bf16, Format::Q8_0, Format::Q4K, Format::Int4, Format::Fp8]));
    on_all_warps(|library| tiles::<f16, f16>(library, &[Format::F16, Format::Q8_0, Format::Q4K, Format::Int4, Format::Fp8]));
    on_all_warps(|library| tiles::<bf16, f32>(library, &[Format::Bf16]));
    on_all_warps(|library| tile::<bf16, bf16>(library, Format::Bf16, 20, true, 1));
}

#[test]
fn widened_weights_agree() {
    on_all_warps(widen::<bf16>);
    on_all_warps(widen::<f16>);
}
