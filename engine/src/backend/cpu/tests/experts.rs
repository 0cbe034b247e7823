use proptest::prelude::*;

use super::*;
use crate::backend::{Activation, Experts, Routing};

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    rows: usize,
    hidden: usize,
    inner: usize,
    num_experts: usize,
    routing: Routing,
    dtype: DType,
}

fn case() -> impl Strategy<Value = Case> {
    let dtype = prop_oneof![Just(DType::F32), Just(DType::BF16)];
    (any::<u64>(), 1usize..40, 1usize..80, 1usize..50, 1usize..9, 1usize..9, any::<bool>(), dtype).prop_map(
        |(seed, rows, hidden, inner, num_experts, top_k, renormalize, dtype)| Case {
            seed,
            rows,
            hidden,
            inner,
            num_experts,
            routing: Routing { top_k: top_k.min(num_experts), renormalize },
            dtype,
        },
    )
}

impl Case {
    /// Weights of gate and up, and of down, per expert.
    fn tensors(&self) -> Vec<[Tensor; 2]> {
        let mut random = Random(self.seed);
        let mut tensor = |shape| Tensor::random(&mut random, self.dtype, shape);
        (0..self.num_experts).map(|_| [tensor([2 * self.inner, self.hidden]), tensor([self.hidden, self.inner])]).collect()
    }

    /// Rows of the input and of the router's logits.
    fn rows(&self) -> [Vec<f32>; 2] {
        let mut random = Random(!self.seed);
        [random.values(self.rows * self.hidden), random.values(self.rows * self.num_experts)]
    }

    fn run(&self, backend: &CpuBackend, rows: std::ops::Range<usize>) -> Vec<f32> {
        let [x, logits] = self.rows();
        let part = |values: &[f32], cols: usize| CpuBuffer::from_vec(rows.len(), cols, values[rows.start * cols..rows.end * cols].to_vec());
        let matrix = |tensor: &Tensor| backend.matrix(&[tensor.view().into()]).expect("valid");
        let (gate_up, down) = self.tensors().iter().map(|[gate_up, down]| (matrix(gate_up), matrix(down))).unzip();
        let experts = Experts { routing: self.routing, activation: Activation::Silu, gate_up, down };
        let mut out = backend.buffer();
        backend.experts(&part(&x, self.hidden), &part(&logits, self.num_experts), &experts, &mut out);
        out.as_slice().to_vec()
    }

    /// One row in f64.
    fn expected(&self, tensors: &[[Vec<f64>; 2]], x: &[f32], logits: &[f32]) -> Vec<f64> {
        let product = |weight: &[f64], x: &[f64]| -> Vec<f64> {
            weight.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let mut chosen: Vec<(usize, f64)> = logits.iter().map(|l| f64::from(*l).exp() / total).enumerate().collect();
        chosen.sort_by(|a, b| b.1.total_cmp(&a.1));
        chosen.truncate(self.routing.top_k);
        let share: f64 = if self.routing.renormalize { chosen.iter().map(|c| c.1).sum() } else { 1.0 };
        let mut sum = vec![0.0; self.hidden];
        for (expert, probability) in chosen {
            let wide = product(&tensors[expert][0], &x);
            let (gate, up) = wide.split_at(self.inner);
            let narrow: Vec<f64> = gate.iter().zip(up).map(|(g, u)| reference::activate(Activation::Silu, *g) * u).collect();
            sum.iter_mut().zip(product(&tensors[expert][1], &narrow)).for_each(|(sum, y)| *sum += y * probability / share);
        }
        sum
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn experts_are_right(case in case()) {
        let tensors: Vec<[Vec<f64>; 2]> = case.tensors().iter().map(|pair| [pair[0].values(), pair[1].values()]).collect();
        let [x, logits] = case.rows();
        let rows = x.chunks_exact(case.hidden).zip(logits.chunks_exact(case.num_experts));
        let expected: Vec<f64> = rows.flat_map(|(x, logits)| case.expected(&tensors, x, logits)).collect();
        for isa in isa::available() {
            let found = case.run(&backend(isa, 2, ComputeType::F32, KvType::F32), 0..case.rows);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Sums of up to 80 terms of size 1, then of 50 of their products.
                prop_assert!((f64::from(*found) - expected).abs() <= 1e-3, "{isa:?}: [{i}]: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others(case in case(), compute in prop_oneof![Just(ComputeType::F32), Just(ComputeType::BF16)]) {
        for isa in isa::available() {
            let whole = case.run(&backend(isa, 2, compute, KvType::F32), 0..case.rows);
            let alone = backend(isa, 1, compute, KvType::F32);
            let rows: Vec<f32> = (0..case.rows).flat_map(|row| case.run(&alone, row..row + 1)).collect();
            prop_assert_eq!(bits(&whole), bits(&rows), "{:?}", isa);
        }
    }
}
