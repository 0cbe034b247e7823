use half::bf16;
use proptest::prelude::*;

use super::{reference::dot, *};

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    rows: usize,
    inputs: usize,
    parts: Vec<usize>,
    dtype: DType,
    bias: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let dtype = prop_oneof![Just(DType::BF16), Just(DType::F16), Just(DType::F32)];
    // Odd widths, widths around the blocks of the inner dimension, heights around panels and tiles.
    let inputs = prop_oneof![1usize..80, 500usize..530, 1020usize..1040];
    (any::<u64>(), 1usize..70, inputs, prop::collection::vec(1usize..70, 1..4), dtype, any::<bool>())
        .prop_map(|(seed, rows, inputs, parts, dtype, bias)| Case { seed, rows, inputs, parts, dtype, bias })
}

struct Data {
    x: Vec<f32>,
    parts: Vec<Tensor>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn data(&self) -> Data {
        let mut random = Random(self.seed);
        let x = random.values(self.rows * self.inputs);
        let parts: Vec<Tensor> = self.parts.iter().map(|&n| Tensor::random(&mut random, self.dtype, [n, self.inputs])).collect();
        let bias = self.bias.then(|| random.values(self.parts.iter().sum()));
        Data { x, parts, bias }
    }
}

fn run(backend: &CpuBackend, case: &Case, data: &Data, rows: std::ops::Range<usize>) -> CpuBuffer {
    let views: Vec<_> = data.parts.iter().map(|p| p.view().into()).collect();
    let weight = backend.matrix(&views).expect("valid");
    let bias = data.bias.as_ref().map(|b| backend.vector_f32(b));
    let x = CpuBuffer::from_vec(rows.len(), case.inputs, data.x[rows.start * case.inputs..rows.end * case.inputs].to_vec());
    let mut out = backend.buffer();
    backend.linear(&x, &weight, bias.as_ref(), &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_is_right(case in case()) {
        let data = case.data();
        let weight: Vec<f64> = data.parts.iter().flat_map(Tensor::values).collect();
        for (isa, compute, backend) in all_backends(2) {
            let out = run(&backend, &case, &data, 0..case.rows);
            // With bf16 products the activations are rounded first; beyond that the error is that of f32 sums.
            let rounded = backend.cpu.dot_bf16 && case.dtype == DType::BF16;
            for row in 0..case.rows {
                let x = data.x[row * case.inputs..][..case.inputs].iter();
                let x: Vec<f64> = x.map(|&v| if rounded { bf16::from_f32(v).to_f64() } else { f64::from(v) }).collect();
                for (n, w) in weight.chunks_exact(case.inputs).enumerate() {
                    let bias = data.bias.as_ref().map_or(0.0, |b| f64::from(b[n]));
                    let size: f64 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum::<f64>() + bias.abs();
                    let (found, expected) = (f64::from(out.row(row)[n]), dot(&x, w) + bias);
                    prop_assert!((found - expected).abs() <= 1e-6 * size, "{isa:?} {compute:?} [{row}, {n}]: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others_or_on_threads(case in case(), from in 0usize..70, len in 1usize..70) {
        let data = case.data();
        check_rows_are_independent(case.rows, from, len, |backend, rows| run(backend, &case, &data, rows))?;
    }
}

#[test]
fn parts_of_different_types_are_one_matrix() {
    let mut random = Random(3);
    let parts = [Tensor::random(&mut random, DType::BF16, [5, 9]), Tensor::random(&mut random, DType::F32, [40, 9])];
    let backend = backend(Isa::Portable, 1, ComputeType::F32, KvType::F32);
    let matrix = backend.matrix(&[parts[0].view().into(), parts[1].view().into()]).expect("valid");
    assert_eq!((matrix.out_features(), matrix.in_features()), (45, 9));
    let x = CpuBuffer::from_vec(1, 9, vec![1.0; 9]);
    let mut out = backend.buffer();
    backend.linear(&x, &matrix, None, &mut out);
    let values: Vec<f64> = parts.iter().flat_map(Tensor::values).collect();
    for (found, row) in out.as_slice().iter().zip(values.chunks_exact(9)) {
        assert!((f64::from(*found) - row.iter().sum::<f64>()).abs() < 1e-5);
    }
}

#[test]
fn no_rows_give_no_rows() {
    let backend = backend(Isa::Portable, 2, ComputeType::F32, KvType::F32);
    let matrix = backend.matrix(&[Tensor::random(&mut Random(4), DType::BF16, [8, 8]).view().into()]).expect("valid");
    let mut out = CpuBuffer::from_vec(1, 1, vec![0.0]);
    backend.linear(&CpuBuffer::from_vec(0, 8, vec![]), &matrix, None, &mut out);
    assert_eq!((out.rows(), out.cols()), (0, 8));
}
