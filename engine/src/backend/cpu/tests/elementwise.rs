use proptest::prelude::*;

use super::*;

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Within `tolerance` of the value, or of 1 where it is smaller.
fn assert_near(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() <= tolerance * expected.abs().max(1.0), "[{i}]: {found}, not {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn norms_are_right(seed: u64, rows in 1usize..40, cols in 1usize..600) {
        let mut random = Random(seed);
        let (x, delta, weight, bias) = (random.values(rows * cols), random.values(rows * cols), random.values(cols), random.values(cols));
        let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + d).collect();
        for (.., backend) in all_backends(2) {
            let weight_vector = || backend.vector_f32(&weight);
            let rms = Norm::Rms { weight: weight_vector(), eps: 1e-6 };
            let layer = Norm::Layer { weight: weight_vector(), bias: backend.vector_f32(&bias), eps: 1e-2 };
            let expected = |norm: &Norm<_>, x: &[f32]| x.chunks_exact(cols).flat_map(|x| match norm {
                Norm::Rms { .. } => reference::rms_norm(&f64s(x), &f64s(&weight), 1e-6),
                Norm::Layer { .. } => reference::layer_norm(&f64s(x), &f64s(&weight), &f64s(&bias), 1e-2),
            }).collect::<Vec<_>>();
            for norm in [rms, layer] {
                let (mut out, mut x_buffer) = (backend.buffer(), CpuBuffer::from_vec(rows, cols, x.clone()));
                backend.norm(&x_buffer, &norm, &mut out);
                assert_near(out.as_slice(), &expected(&norm, &x), 1e-5);
                backend.add_norm(&mut x_buffer, &CpuBuffer::from_vec(rows, cols, delta.clone()), &norm, &mut out);
                assert_near(out.as_slice(), &expected(&norm, &sum), 1e-5);
                prop_assert_eq!(x_buffer.as_slice(), &sum[..]);
            }
            let mut x_buffer = CpuBuffer::from_vec(rows, cols, x.clone());
            backend.add(&mut x_buffer, &CpuBuffer::from_vec(rows, cols, delta.clone()));
            prop_assert_eq!(x_buffer.as_slice(), &sum[..]);
        }
    }

    #[test]
    fn activations_and_caps_are_right(seed: u64, rows in 1usize..40, cols in 1usize..300) {
        let x: Vec<f32> = Random(seed).values(rows * 2 * cols).iter().map(|v| v * 20.0).collect();
        for (.., backend) in all_backends(2) {
            for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
                let mut in_place = CpuBuffer::from_vec(rows, 2 * cols, x.clone());
                backend.activate(f, &mut in_place);
                let activated: Vec<f64> = f64s(&x).into_iter().map(|x| reference::activate(f, x)).collect();
                assert_near(in_place.as_slice(), &activated, 3e-6);
                let gated = |row: &[f32]| {
                    let (gate, up) = row.split_at(cols);
                    f64s(gate).into_iter().zip(f64s(up)).map(|(g, u)| reference::activate(f, g) * u).collect::<Vec<_>>()
                };
                let mut out = backend.buffer();
                backend.gated_activate(f, &CpuBuffer::from_vec(rows, 2 * cols, x.clone()), &mut out);
                assert_near(out.as_slice(), &x.chunks_exact(2 * cols).flat_map(gated).collect::<Vec<_>>(), 3e-6);
            }
            let mut capped = CpuBuffer::from_vec(rows, 2 * cols, x.clone());
            backend.soft_cap(&mut capped, 7.0);
            assert_near(capped.as_slice(), &f64s(&x).into_iter().map(|x| (x / 7.0).tanh() * 7.0).collect::<Vec<_>>(), 1e-6);
        }
    }

    #[test]
    fn embeddings_are_rows_of_the_table(seed: u64, vocabulary in 1usize..100, cols in 1usize..100, dtype in 0usize..3) {
        let dtype = [DType::F32, DType::F16, DType::BF16][dtype];
        let table = Tensor::random(&mut Random(seed), dtype, [vocabulary, cols]);
        let tokens: Vec<u32> = (0..20).map(|i| (i * 7 % vocabulary) as u32).collect();
        let backend = backend(Isa::Portable, 2, ComputeType::F32, KvType::F32);
        let mut out = backend.buffer();
        let batch = backend.batch(RaggedBatch { tokens: tokens.clone(), ..RaggedBatch::default() });
        let matrix = backend.matrix(&[table.view().into()]).expect("valid");
        backend.embed(&batch, &matrix, 1.0, &mut out);
        let values = table.values();
        let expected: Vec<f64> = tokens.iter().flat_map(|&t| values[t as usize * cols..][..cols].to_vec()).collect();
        prop_assert_eq!(f64s(out.as_slice()), expected.clone());
        backend.embed(&batch, &matrix, 4.0, &mut out);
        prop_assert_eq!(f64s(out.as_slice()), expected.into_iter().map(|x| 4.0 * x).collect::<Vec<_>>());
    }
}

#[test]
fn silu_of_large_values_is_finite() {
    for (.., backend) in all_backends(1) {
        let mut out = backend.buffer();
        backend.gated_activate(Activation::Silu, &CpuBuffer::from_vec(1, 4, vec![-200.0, 200.0, 1.0, 1.0]), &mut out);
        assert!(out.as_slice()[0].abs() < 1e-30, "{:?}", out.as_slice());
        assert_eq!(out.as_slice()[1], 200.0);
    }
}

#[test]
fn logits_rows_are_gathered_and_summed() {
    let backend = backend(Isa::Portable, 1, ComputeType::F32, KvType::F32);
    let batch = backend.batch(RaggedBatch { logits_rows: vec![2, 0], ..RaggedBatch::default() });
    let x = CpuBuffer::from_vec(3, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let delta = CpuBuffer::from_vec(3, 2, vec![10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
    let mut out = backend.buffer();
    backend.gather_logits_rows(&batch, &x, None, &mut out);
    assert_eq!(out.as_slice(), [5.0, 6.0, 1.0, 2.0]);
    backend.gather_logits_rows(&batch, &x, Some(&delta), &mut out);
    assert_eq!(out.as_slice(), [55.0, 66.0, 11.0, 22.0]);
}

#[test]
fn the_scale_of_embeddings_is_rounded_to_the_compute_type() {
    let table = Tensor { dtype: DType::F32, shape: [1, 1], bytes: 1f32.to_le_bytes().to_vec() };
    for (compute, expected) in [(ComputeType::F32, 3072f32.sqrt()), (ComputeType::BF16, 55.5)] {
        let backend = backend(Isa::Portable, 1, compute, KvType::F32);
        let batch = backend.batch(RaggedBatch { tokens: vec![0], ..RaggedBatch::default() });
        let mut out = backend.buffer();
        backend.embed(&batch, &backend.matrix(&[table.view().into()]).expect("valid"), 3072f32.sqrt(), &mut out);
        assert_eq!(out.as_slice(), [expected]);
    }
}
