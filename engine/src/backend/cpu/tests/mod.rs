//! Every operation against plain f64 arithmetic, and bit for bit against itself under other batches, threads and blocks.

mod attention;
mod elementwise;
mod encoded;
mod experts;
pub(super) mod formats;
mod linear;
mod model;
pub(super) mod reference;

use half::{bf16, f16};
use proptest::{prop_assert, test_runner::TestCaseError};

use super::{isa, *};
use crate::backend::{BlockFormat, DType};

/// Repeatable values in -1..1.
pub(super) struct Random(u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

fn backend(isa: Isa, threads: usize, compute: ComputeType, kv_dtype: KvType) -> CpuBackend {
    CpuBackend::new(CpuConfig { threads, compute, kv_dtype, isa: Some(isa), populated_kv_bytes: 1 << 16, ..CpuConfig::default() })
        .expect("available")
}

/// Every instruction set of this machine with every compute type.
fn all_backends(threads: usize) -> Vec<(Isa, ComputeType, CpuBackend)> {
    let both = [ComputeType::F32, ComputeType::BF16];
    isa::available().into_iter().flat_map(|isa| both.map(|c| (isa, c, backend(isa, threads, c, KvType::F32)))).collect()
}

/// A checkpoint tensor with the bytes it owns.
struct Tensor {
    dtype: DType,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl Tensor {
    fn random(random: &mut Random, dtype: DType, shape: [usize; 2]) -> Self {
        let values = random.values(shape[0] * shape[1]);
        let bytes = match dtype {
            DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        };
        Self { dtype, shape, bytes }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: self.shape, bytes: &self.bytes }
    }

    fn values(&self) -> Vec<f64> {
        match self.dtype {
            DType::F32 => self.bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4")))).collect(),
            DType::F16 => self.bytes.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().expect("2")).to_f64()).collect(),
            DType::BF16 => self.bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().expect("2")).to_f64()).collect(),
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Runs rows of a case, which has `rows` of them: some, one alone, and all; on one thread and on two. Every row must be the same bits.
fn check_rows_are_independent(
    rows: usize,
    from: usize,
    len: usize,
    run: impl Fn(&CpuBackend, std::ops::Range<usize>) -> CpuBuffer,
) -> Result<(), TestCaseError> {
    let from = from % rows;
    let range = from..(from + len).min(rows);
    for ((isa, compute, two), (.., one)) in all_backends(2).into_iter().zip(all_backends(1)) {
        let all = run(&two, 0..rows);
        let some = run(&one, range.clone());
        let alone = run(&two, from..from + 1);
        let expected = &all.as_slice()[range.start * all.cols()..range.end * all.cols()];
        prop_assert!(bits(some.as_slice()) == bits(expected), "{isa:?} {compute:?}: {range:?} of {rows} rows differ");
        prop_assert!(bits(alone.as_slice()) == bits(all.row(from)), "{isa:?} {compute:?}: row {from} alone differs");
    }
    Ok(())
}

#[test]
fn what_the_processor_lacks_is_refused_by_name() {
    let missing = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
    let error = CpuBackend::new(CpuConfig { isa: Some(missing), ..CpuConfig::default() }).err().expect("refused").to_string();
    assert!(error.contains(&format!("{missing:?}")), "{error}");
}

#[test]
fn bad_tensors_are_refused() {
    let backend = CpuBackend::new(CpuConfig { threads: 1, ..CpuConfig::default() }).expect("portable at least");
    let mut random = Random(1);
    let (a, b) = (Tensor::random(&mut random, DType::F32, [2, 3]), Tensor::random(&mut random, DType::F32, [2, 4]));
    let refused =
        |parts: &[TensorView<'_>]| backend.matrix(&parts.iter().map(|&p| p.into()).collect::<Vec<_>>()).err().expect("refused").to_string();
    assert_eq!(refused(&[a.view(), b.view()]), "tensor parts have 4 columns where 3 were expected");
    assert!(refused(&[TensorView { shape: [2, 4], ..a.view() }]).contains("24 bytes"));
    assert!(refused(&[]).contains("no parts"));
    let infinite = f16::INFINITY.to_le_bytes();
    assert!(refused(&[TensorView { dtype: DType::F16, shape: [1, 1], bytes: &infinite }]).contains("infinite"));
    let layout = KvLayout { num_layers: 1, num_blocks: 1, block_size: 16, num_kv_heads: 1, head_dim: 1024 };
    assert!(backend.kv_cache(layout).err().expect("refused").to_string().contains("1024"));
    let huge = KvLayout { num_layers: 1 << 10, num_blocks: 1 << 30, block_size: 16, num_kv_heads: 8, head_dim: 128 };
    assert!(backend.kv_cache(huge).err().expect("refused").to_string().contains("KV cache"));
}
