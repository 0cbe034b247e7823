use half::bf16;
use proptest::prelude::*;

use super::{
    formats::{ALL, Encoded, Format, e4m3},
    reference::dot,
    *,
};

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    rows: usize,
    /// In units of what the format allows.
    width: usize,
    heights: Vec<usize>,
    format: Format,
    bias: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let format = (0..ALL.len()).prop_map(|i| ALL[i]);
    (any::<u64>(), 1usize..40, 0.0f64..1.0, prop::collection::vec(1usize..70, 1..3), format, any::<bool>()).prop_map(
        |(seed, rows, width, heights, format, bias)| {
            let most = 1100 / format.column_multiple();
            Case { seed, rows, width: 1 + (width * width * most as f64) as usize, heights, format, bias }
        },
    )
}

struct Data {
    x: Vec<f32>,
    parts: Vec<Encoded>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn cols(&self) -> usize {
        self.width * self.format.column_multiple()
    }

    fn data(&self) -> Data {
        let mut random = Random(self.seed);
        let parts = self.heights.iter().map(|&n| Encoded::random(&mut random, self.format, [n, self.cols()])).collect();
        let bias = self.bias.then(|| random.values(self.heights.iter().sum()));
        Data { x: random.values(self.rows * self.cols()), parts, bias }
    }
}

fn run(backend: &CpuBackend, case: &Case, data: &Data, rows: std::ops::Range<usize>) -> CpuBuffer {
    let views: Vec<_> = data.parts.iter().map(Encoded::view).collect();
    let weight = backend.matrix(&views).expect("valid");
    let bias = data.bias.as_ref().map(|b| backend.vector_f32(b));
    let x = CpuBuffer::from_vec(rows.len(), case.cols(), data.x[rows.start * case.cols()..rows.end * case.cols()].to_vec());
    let mut out = backend.buffer();
    backend.linear(&x, &weight, bias.as_ref(), &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_those_of_the_formats_values(case in case()) {
        let data = case.data();
        let weight: Vec<f64> = data.parts.iter().flat_map(Encoded::values).collect();
        for (isa, compute, backend) in all_backends(2) {
            let out = run(&backend, &case, &data, 0..case.rows);
            // In bf16 every value and every activation is rounded to eight bits; beyond that the error is that of f32 sums.
            let round = |v: f64| if backend.cpu.dot_bf16 { bf16::from_f32(v as f32).to_f64() } else { v };
            for row in 0..case.rows {
                let x: Vec<f64> = data.x[row * case.cols()..][..case.cols()].iter().map(|&v| round(f64::from(v))).collect();
                for (n, w) in weight.chunks_exact(case.cols()).enumerate() {
                    let w: Vec<f64> = w.iter().map(|&w| round(w)).collect();
                    let bias = data.bias.as_ref().map_or(0.0, |b| f64::from(b[n]));
                    let size: f64 = x.iter().zip(&w).map(|(x, w)| (x * w).abs()).sum::<f64>() + bias.abs();
                    let (found, expected) = (f64::from(out.row(row)[n]), dot(&x, &w) + bias);
                    // A value on the edge of rounding may fall to the other side.
                    let largest = x.iter().zip(&w).map(|(x, w)| (x * w).abs()).fold(0.0, f64::max);
                    let tolerance = 1e-6 * size + if backend.cpu.dot_bf16 { largest / 64.0 } else { 0.0 };
                    prop_assert!((found - expected).abs() <= tolerance + 1e-9, "{isa:?} {compute:?} [{row}, {n}]: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others_or_on_threads(case in case(), from in 0usize..40, len in 1usize..40) {
        let data = case.data();
        check_rows_are_independent(case.rows, from, len, |backend, rows| run(backend, &case, &data, rows))?;
    }

    #[test]
    fn embeddings_are_the_formats_values(case in case()) {
        let table = Encoded::random(&mut Random(case.seed), case.format, [case.heights[0], case.cols()]);
        let tokens: Vec<u32> = (0..5).map(|i| (i * 7 % case.heights[0]) as u32).collect();
        for (isa, _, backend) in all_backends(2) {
            let matrix = backend.matrix(&[table.view()]).expect("valid");
            let mut out = backend.buffer();
            backend.embed(&backend.batch(RaggedBatch { tokens: tokens.clone(), ..RaggedBatch::default() }), &matrix, 1.0, &mut out);
            let values = table.values();
            for (row, &token) in tokens.iter().enumerate() {
                for (found, expected) in out.row(row).iter().zip(&values[token as usize * case.cols()..]) {
                    let close = (f64::from(*found) - expected).abs() <= expected.abs() * 1e-6 + 1e-9;
                    prop_assert!(close, "{isa:?} row {token}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn parts_of_different_encodings_stay_packed_in_one_matrix() {
    let mut random = Random(8);
    let formats = [BlockFormat::Q4K, BlockFormat::Q4K, BlockFormat::Q6K].map(Format::Blocks);
    let encoded: Vec<_> = formats.iter().zip([40, 8, 33]).map(|(&f, rows)| Encoded::random(&mut random, f, [rows, 512])).collect();
    let plain = Tensor::random(&mut random, DType::BF16, [5, 512]);
    let views: Vec<_> = encoded.iter().map(Encoded::view).chain([plain.view().into()]).collect();
    let values: Vec<f64> = encoded.iter().flat_map(Encoded::values).chain(plain.values()).collect();
    let x = random.values(2 * 512);
    for (isa, compute, backend) in all_backends(2) {
        let matrix = backend.matrix(&views).expect("valid");
        assert_eq!((matrix.out_features(), matrix.in_features()), (86, 512));
        let panels = (2 * 2 * 32 * 148 + 2 * 2 * 32 * 210) + 32 * 512 * 2;
        assert_eq!(matrix.bytes(), panels, "two panels of blocks for each encoding, and one of bf16");
        let mut out = backend.buffer();
        backend.linear(&CpuBuffer::from_vec(2, 512, x.clone()), &matrix, Some(&backend.vector_f32(&vec![0.5; 86])), &mut out);
        for (row, x) in x.chunks_exact(512).enumerate() {
            let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
            for (n, w) in values.chunks_exact(512).enumerate() {
                let size: f64 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
                let (found, expected) = (f64::from(out.row(row)[n]), dot(&x, w) + 0.5);
                assert!((found - expected).abs() <= 2e-3 * size + 1e-6, "{isa:?} {compute:?} [{row}, {n}]: {found}, not {expected}");
            }
        }
        backend.embed(&backend.batch(RaggedBatch { tokens: vec![85, 47, 40], ..RaggedBatch::default() }), &matrix, 1.0, &mut out);
        for (row, token) in [85, 47, 40].into_iter().enumerate() {
            let close = |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs() <= 1e-6;
            assert!(out.row(row).iter().zip(&values[token * 512..]).all(close), "{isa:?} row {token}");
        }
    }
}

#[test]
fn packed_weights_take_about_what_the_checkpoint_takes() {
    let backend = CpuBackend::new(CpuConfig { threads: 1, ..CpuConfig::default() }).expect("portable at least");
    for (format, bytes_of_a_row) in [
        (Format::Blocks(BlockFormat::Q8_0), 4 * 8 * 34),
        (Format::Blocks(BlockFormat::Q4_0), 4 * 8 * 18),
        (Format::Blocks(BlockFormat::Q4K), 4 * (144 + 4)),
        (Format::Blocks(BlockFormat::Q5K), 4 * (176 + 4)),
        (Format::Blocks(BlockFormat::Q6K), 4 * 210),
        (Format::Int4(128, false), 512 + 8 * 3),
        (Format::Int4(64, true), 512 + 16 * 3),
        (Format::Fp8(16, 128), 1024 + 8 * 4),
        (Format::Fp8(1, usize::MAX), 1024 + 4),
    ] {
        let matrix = Encoded::random(&mut Random(1), format, [64, 1024]);
        assert_eq!(backend.matrix(&[matrix.view()]).expect("valid").bytes(), 64 * bytes_of_a_row, "{format:?}");
    }
}

#[test]
fn broken_encodings_are_refused() {
    let backend = CpuBackend::new(CpuConfig { threads: 2, ..CpuConfig::default() }).expect("portable at least");
    let refused = |view: MatrixView<'_>| backend.matrix(&[view]).err().expect("refused").to_string();
    let blocks = |bytes, cols| MatrixView::Blocks { format: BlockFormat::Q8_0, shape: [2, cols], bytes };
    assert_eq!(refused(blocks(&[0; 68], 33)), "68 bytes are not a matrix of 2 x 33 Q8_0");
    assert_eq!(refused(blocks(&[0; 67], 32)), "67 bytes are not a matrix of 2 x 32 Q8_0");
    let mut infinite = [0; 68];
    infinite[34..36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    assert_eq!(refused(blocks(&infinite, 32)), "a scale is infinite or not a number");

    let fp8 =
        |bytes: &'static [u8; 96], scales: &[f32], scale_block| refused(MatrixView::Fp8 { shape: [2, 48], bytes, scales, scale_block });
    assert_eq!(fp8(&[0; 96], &[1.0; 3], [2, 24]), "3 scales were given for 2 blocks");
    assert!(fp8(&[0; 96], &[1.0; 2], [2, 24]).contains("blocks of 24 columns"));
    assert!(fp8(&[0xff; 96], &[1.0], [2, 48]).contains("e4m3 weight is not a number"));
    for bad in [f32::NAN, f32::INFINITY, 1e4] {
        assert!(fp8(&[0; 96], &[bad], [2, 48]).contains("scale is not a number up to 255"), "{bad}");
    }

    let int4 =
        |group_size, groups| MatrixView::Int4 { shape: [2, 64], group_size, codes: &[0; 64], scales: &[0; 8], zeros: &[0; 4], groups };
    assert!(backend.matrix(&[int4(32, None)]).is_ok());
    assert!(refused(int4(0, None)).contains("groups of 0"));
    assert!(refused(int4(64, None)).contains("8 bytes of scales"));
    assert!(refused(int4(32, Some(&[0; 63]))).contains("63 group indices"));
    assert!(refused(int4(32, Some(&[2; 64]))).contains("not below 2"));
    let [good, bad] = [&[0; 68][..], &infinite[..]].map(|bytes| blocks(bytes, 32));
    let error = backend.matrix(&[good, good, bad]).err().expect("refused");
    assert!(matches!(error, BackendError::Weight { part: 2, .. }), "{error:?}");
}

#[test]
fn every_e4m3_value_is_decoded_exactly() {
    let codes: Vec<u8> = (0..=255).filter(|c| c & 0x7f != 0x7f).collect();
    let view = MatrixView::Fp8 { shape: [1, codes.len()], bytes: &codes, scales: &[1.0], scale_block: [1, codes.len()] };
    for (isa, _, backend) in all_backends(1) {
        let mut out = backend.buffer();
        let batch = backend.batch(RaggedBatch { tokens: vec![0], ..RaggedBatch::default() });
        backend.embed(&batch, &backend.matrix(&[view]).expect("valid"), 1.0, &mut out);
        for (code, found) in codes.iter().zip(out.as_slice()) {
            assert_eq!(f64::from(*found), e4m3(*code), "{isa:?} {code:#x}");
        }
    }
}

#[test]
fn plain_weights_are_converted_as_asked() {
    let mut random = Random(11);
    let tensors = [DType::F32, DType::BF16, DType::F16].map(|dtype| Tensor::random(&mut random, dtype, [37, 101]));
    for to in [DType::F16, DType::BF16] {
        let config = CpuConfig { threads: 2, weights: Some(to), ..CpuConfig::default() };
        let backend = CpuBackend::new(config).expect("portable at least");
        let parts: Vec<_> = tensors.iter().map(|t| t.view().into()).collect();
        let matrix = backend.matrix(&parts).expect("valid");
        assert_eq!(matrix.bytes(), 4 * 32 * 51 * 4, "one segment of 111 rows and 51 pairs");
        let mut out = backend.buffer();
        backend.embed(&backend.batch(RaggedBatch { tokens: (0..111).collect(), ..RaggedBatch::default() }), &matrix, 1.0, &mut out);
        let values = tensors.iter().flat_map(Tensor::values);
        for (i, (found, value)) in out.as_slice().iter().zip(values).enumerate() {
            let expected = if to == DType::F16 { f16::from_f64(value).to_f32() } else { bf16::from_f64(value).to_f32() };
            assert_eq!(*found, expected, "{to:?} {i}");
        }
    }
    let backend = CpuBackend::new(CpuConfig { threads: 1, weights: Some(DType::F16), ..CpuConfig::default() }).expect("portable");
    let bytes = 7e4f32.to_le_bytes();
    let error = backend.matrix(&[TensorView { dtype: DType::F32, shape: [1, 1], bytes: &bytes }.into()]).err().expect("refused");
    assert_eq!(error.to_string(), "the F32 weight 70000 is not finite as F16");
}
