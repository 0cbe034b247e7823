use half::f16;
use proptest::prelude::*;
use tokenflow_gpu::Element;

use super::{
    decode,
    format::{Format, Layout, PLANES},
    pack::{NO_COLUMN, Packing},
};
use crate::backend::{
    Backend, BlockFormat, DType, MatrixView, RaggedBatch, TensorView,
    cpu::{ComputeType, CpuBackend, CpuConfig, KvType},
};

const BLOCKS: [BlockFormat; 5] = [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4K, BlockFormat::Q5K, BlockFormat::Q6K];

/// Bytes that repeat themselves after long.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn small_halves(seed: u64, count: usize) -> Vec<u8> {
    bytes(seed, count).iter().flat_map(|b| f16::from_f32((f32::from(*b) - 127.5) / 512.0).to_le_bytes()).collect()
}

/// Blocks whose f16 numbers are small.
fn blocks(seed: u64, format: BlockFormat, shape: [usize; 2]) -> Vec<u8> {
    let count = shape[0] * shape[1] / format.elements_per_block();
    let mut all = bytes(seed, count * format.bytes_per_block());
    let at: &[usize] = match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 => &[0],
        BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q6K => &[208],
    };
    for (i, block) in all.chunks_exact_mut(format.bytes_per_block()).enumerate() {
        for at in at {
            block[*at..at + 2].copy_from_slice(&small_halves(seed + i as u64, 1));
        }
    }
    all
}

/// What the CPU backend reads in the matrix.
fn by_the_cpu(views: &[MatrixView<'_>]) -> Vec<f32> {
    let config =
        CpuConfig { threads: 1, compute: ComputeType::F32, kv_dtype: KvType::F32, weights: Some(DType::F32), ..CpuConfig::default() };
    let backend = CpuBackend::new(config).unwrap();
    let matrix = backend.matrix(views).unwrap();
    let rows = views.iter().map(|view| view.shape()[0]).sum::<usize>() as u32;
    let batch = backend.batch(RaggedBatch { tokens: (0..rows).collect(), ..RaggedBatch::default() });
    let mut out = backend.buffer();
    backend.embed(&batch, &matrix, 1.0, &mut out);
    out.as_slice().to_vec()
}

fn stored<'a>(views: &'a [MatrixView<'a>], plain: Element) -> Packing<'a> {
    Packing::new(views, plain).unwrap().in_own_encoding()
}

fn by_decoding(views: &[MatrixView<'_>]) -> Vec<f32> {
    let mut values = Vec::new();
    for view in views {
        for row in 0..view.shape()[0] {
            let mut out = vec![0.0; view.shape()[1]];
            decode::row(view, row, &mut out);
            values.extend(out);
        }
    }
    values
}

/// What kernels read in the planes, as `weights.cuh` says, with columns where they were.
fn by_planes(packing: &Packing<'_>, columns: usize) -> Vec<f32> {
    let layout = packing.layout;
    let each = layout.row_bytes();
    let mut planes = each.map(|each| vec![0xffu8; each * layout.features]);
    // In two pieces, as workers do.
    let half = layout.features / 2;
    let mut plane = 0;
    let pieces = planes.each_mut().map(|bytes| {
        plane += 1;
        bytes.split_at_mut(half * each[plane - 1])
    });
    let [(a, b), (c, d), (e, f), (g, h)] = pieces;
    packing.write(0..half, [a, c, e, g]).unwrap();
    packing.write(half..layout.features, [b, d, f, h]).unwrap();
    let mut values = vec![0.0; layout.features * columns];
    for feature in 0..layout.features {
        for column in 0..layout.columns {
            let to = packing.order.as_ref().map_or(column as u32, |order| order[column]);
            if to != NO_COLUMN {
                values[feature * columns + to as usize] = value(&layout, &planes, &packing.scales, feature, column);
            }
        }
    }
    values
}

fn value(layout: &Layout, [codes, scales, offsets, high]: &[Vec<u8>; PLANES], table: &[f32], feature: usize, column: usize) -> f32 {
    let columns = layout.columns;
    let index = feature * columns + column;
    let half = |i: usize| f16::from_le_bytes([scales[2 * i], scales[2 * i + 1]]).to_f32();
    let nibble = || f32::from(codes[index / 2] >> (4 * (index % 2)) & 15);
    match layout.format {
        Format::Plain(element) | Format::Odd(element) => {
            let dtype = match element {
                Element::F32 => DType::F32,
                Element::F16 => DType::F16,
                Element::BF16 => DType::BF16,
            };
            let bytes = &codes[index * dtype.size()..][..dtype.size()];
            TensorView { dtype, shape: [1, 1], bytes }.to_f32()[0]
        }
        Format::Q8_0 => f32::from(codes[index] as i8) * half(feature * (columns / 32) + column / 32),
        Format::Q4K | Format::Q5K => {
            let fifth = if layout.format == Format::Q5K { f32::from(high[index / 8] >> (index % 8) & 1) * 16.0 } else { 0.0 };
            let factors = (feature * (columns / 256) + column / 256) * 2;
            let six = (feature * (columns / 32) + column / 32) * 2;
            (nibble() + fifth) * (half(factors) * f32::from(offsets[six])) - half(factors + 1) * f32::from(offsets[six + 1])
        }
        Format::Q6K => {
            let code = nibble() + f32::from(high[index / 4] >> (index % 4 * 2) & 3) * 16.0;
            (code - 32.0) * (half(feature * (columns / 256) + column / 256) * f32::from(offsets[index / 16] as i8))
        }
        Format::Int4 => {
            let group = feature * columns.div_ceil(layout.group) + column / layout.group;
            (nibble() - if layout.has_zeros { f32::from(offsets[group]) } else { 8.0 }) * half(group)
        }
        Format::Fp8 => {
            let mut one = [0.0];
            let view = MatrixView::Fp8 { shape: [1, 1], bytes: &codes[index..=index], scales: &[1.0], scale_block: [1, 1] };
            decode::row(&view, 0, &mut one);
            one[0] * table[feature / layout.scale_features * columns.div_ceil(layout.group) + column / layout.group]
        }
    }
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let worst = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-6 * worst, "value {i}: {a} and {b}");
    }
}

#[test]
fn every_blocks_values_are_the_cpus() {
    for (i, format) in BLOCKS.into_iter().enumerate() {
        let shape = [5, 512];
        let (a, b) = (blocks(i as u64 + 1, format, shape), blocks(i as u64 + 99, format, [3, 512]));
        let views = [MatrixView::Blocks { format, shape, bytes: &a }, MatrixView::Blocks { format, shape: [3, 512], bytes: &b }];
        let expected = by_the_cpu(&views);
        assert_close(&by_decoding(&views), &expected);
        let packing = stored(&views, Element::F32);
        assert_eq!(packing.widened, None, "{format:?}");
        assert_close(&by_planes(&packing, 512), &expected);
    }
}

#[test]
fn what_kernels_cannot_read_becomes_plain_and_says_why() {
    let (codes, scales) = (bytes(1, 4 * 40).iter().map(|b| b & 0x77).collect::<Vec<_>>(), [0.5; 4]);
    let views = [MatrixView::Fp8 { shape: [4, 40], bytes: &codes, scales: &scales, scale_block: [1, 40] }];
    let packing = stored(&views, Element::F32);
    assert_eq!(packing.layout.format, Format::Plain(Element::F32));
    assert_eq!(packing.widened.as_deref(), Some("kernels read e4m3 with scales of 1 x 40 of a multiple of 16 columns, not 40"));
    assert_close(&by_planes(&packing, 40), &by_decoding(&views));
    assert_eq!(packing.stored_bytes(), 4 * 40 + 4 * 4);
}

#[test]
fn plain_values_become_the_type_that_is_computed_in() {
    let f32s: Vec<u8> = [1.5f32, -2.0, 3.25, 0.1].iter().flat_map(|v| v.to_le_bytes()).collect();
    let f16s: Vec<u8> = [0.5f32, 65504.0, -1.0, 2.0].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let views = [
        MatrixView::Plain(TensorView { dtype: DType::F32, shape: [2, 2], bytes: &f32s }),
        MatrixView::Plain(TensorView { dtype: DType::F16, shape: [2, 2], bytes: &f16s }),
    ];
    let read = |element| by_planes(&stored(&views, element), 2);
    assert_eq!(read(Element::F32), [1.5, -2.0, 3.25, 0.1, 0.5, 65504.0, -1.0, 2.0]);
    assert_eq!(read(Element::BF16)[..3], [1.5, -2.0, 3.25]);
    assert_eq!(read(Element::BF16)[5], 65536.0);
    let large: Vec<u8> = [1.0f32, 1e6].iter().flat_map(|v| v.to_le_bytes()).collect();
    let views = [views[0], MatrixView::Plain(TensorView { dtype: DType::F32, shape: [1, 2], bytes: &large })];
    let error = stored(&views, Element::F16).write(0..3, [&mut [0; 12], &mut [], &mut [], &mut []]).unwrap_err();
    assert_eq!(error.to_string(), "the F32 weight 1000000 is not finite as F16");
}

#[test]
fn scales_that_are_no_numbers_are_refused() {
    for format in BLOCKS {
        let mut block = blocks(3, format, [1, format.elements_per_block()]);
        let at = if format == BlockFormat::Q6K { 208 } else { 0 };
        block[at..at + 2].copy_from_slice(&f16::INFINITY.to_le_bytes());
        let views = [MatrixView::Blocks { format, shape: [1, format.elements_per_block()], bytes: &block }];
        let packing = stored(&views, Element::BF16);
        let mut planes = packing.layout.row_bytes().map(|each| vec![0; each]);
        let [codes, scales, offsets, high] = &mut planes;
        let error = packing.write(0..1, [codes, scales, offsets, high]).unwrap_err().to_string();
        assert!(error.contains("infinite") || error.contains("not finite"), "{format:?}: {error}");
    }
}

proptest! {
    #[test]
    fn four_bit_groups_keep_their_values_wherever_their_columns_are(
        rows in 1usize..5, groups in 1usize..5, size in prop::sample::select(vec![32usize, 64, 20]), scattered: bool, seed in 1u64..1000,
    ) {
        let cols = groups * size;
        let (codes, zeros) = (bytes(seed, rows * cols / 2), bytes(seed + 1, rows * groups).iter().map(|b| b % 17).collect::<Vec<_>>());
        let scales = small_halves(seed + 2, rows * groups);
        let mut of: Vec<u32> = (0..cols).map(|c| (c / size) as u32).collect();
        if scattered {
            let keys = bytes(seed + 3, cols);
            let mut sorted: Vec<usize> = (0..cols).collect();
            sorted.sort_by_key(|c| keys[*c]);
            of = sorted.iter().map(|c| (*c / size) as u32).collect();
        }
        let groups = scattered.then_some(&of[..]);
        let view = MatrixView::Int4 { shape: [rows, cols], group_size: size, codes: &codes, scales: &scales, zeros: &zeros, groups };
        let views = [view];
        let packing = stored(&views, Element::F32);
        prop_assert_eq!(packing.layout.format, Format::Int4);
        prop_assert!(packing.layout.columns.is_multiple_of(32) && packing.layout.group.is_multiple_of(32));
        let expected = by_the_cpu(&views);
        assert_close(&by_decoding(&views), &expected);
        assert_close(&by_planes(&packing, cols), &expected);
    }

    #[test]
    fn scales_of_fp8_fit_the_rows_of_all_parts(
        parts in prop::collection::vec((1usize..6, 1usize..7), 1..4), group in prop::sample::select(vec![16usize, 32, 24, 100]), seed in 1u64..1000,
    ) {
        let cols = 64;
        let made: Vec<_> = parts.iter().enumerate().map(|(i, &(rows, block_rows))| {
            let codes: Vec<u8> = bytes(seed + i as u64, rows * cols).into_iter().map(|b| if b & 0x7f == 0x7f { 0 } else { b }).collect();
            let scales: Vec<f32> = bytes(seed + 50, rows.div_ceil(block_rows) * cols.div_ceil(group)).iter().map(|b| f32::from(*b) / 64.0).collect();
            (codes, scales, rows, block_rows)
        }).collect();
        let views: Vec<_> = made.iter().map(|(codes, scales, rows, block_rows)| {
            MatrixView::Fp8 { shape: [*rows, cols], bytes: codes, scales, scale_block: [*block_rows, group] }
        }).collect();
        let packing = stored(&views, Element::F32);
        prop_assert_eq!(packing.widened.is_some(), group == 24, "{:?}", &packing.widened);
        prop_assert_eq!(packing.scales.len() * 4, packing.layout.scale_bytes());
        assert_close(&by_planes(&packing, cols), &by_decoding(&views));
    }
}
