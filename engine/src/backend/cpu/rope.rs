//! Rotary embedding of queries and keys, their norms, and the write into the KV cache, in one pass over the rows.

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;

use super::{
    Cpu,
    buffer::{CpuBuffer, CpuVector},
    isa::{Kernel, Simd},
    kv::CpuKvCache,
    norm::normalise_in_place,
    scratch::Shared,
};
use crate::backend::{AttentionConfig, QkNorm, RaggedBatch, RopeTable};

/// Rows from which on the work is shared among the threads.
const PARALLEL_ROWS: usize = 4;

/// A batch, and the angles that its layers have in common.
pub struct CpuBatch {
    pub(super) ragged: RaggedBatch,
    /// One entry for each rotary table that the model's layers use; most models have one.
    angles: Mutex<Vec<Arc<Angles>>>,
}

/// Cosines and sines of all rows: `[row][cos | sin]`, each of `rotary_dim / 2` values.
struct Angles {
    inv_freq: Vec<f32>,
    scale: f32,
    values: Vec<f32>,
}

impl CpuBatch {
    pub(super) fn new(ragged: RaggedBatch) -> Self {
        Self { ragged, angles: Mutex::default() }
    }

    fn angles(&self, rope: &RopeTable<CpuVector>) -> Arc<Angles> {
        let inv_freq = rope.inv_freq.as_slice();
        let mut all = self.angles.lock();
        if let Some(found) = all.iter().find(|a| a.inv_freq == inv_freq && a.scale == rope.scale) {
            return Arc::clone(found);
        }
        let mut values = Vec::with_capacity(self.ragged.num_tokens() * 2 * inv_freq.len());
        for &position in &self.ragged.positions {
            // The product in f32, as transformers has it; its cosine is then exact to the last bit but one.
            let angle = |f: &f32| position as f32 * f;
            values.extend(inv_freq.iter().map(|f| angle(f).cos() * rope.scale));
            values.extend(inv_freq.iter().map(|f| angle(f).sin() * rope.scale));
        }
        let angles = Arc::new(Angles { inv_freq: inv_freq.to_vec(), scale: rope.scale, values });
        all.push(Arc::clone(&angles));
        angles
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn rope_and_write_kv(
    cpu: &Cpu,
    batch: &CpuBatch,
    qkv: &mut CpuBuffer,
    attention: &AttentionConfig,
    norms: Option<QkNorm<'_, CpuVector>>,
    rope: &RopeTable<CpuVector>,
    kv: &mut CpuKvCache,
    layer: usize,
) {
    let (rows, cols) = (qkv.rows(), qkv.cols());
    assert_eq!(rows, batch.ragged.num_tokens(), "rows of qkv");
    assert_eq!(cols, (attention.num_heads + 2 * attention.num_kv_heads) * attention.head_dim, "columns of qkv");
    assert_eq!(rope.inv_freq.as_slice().len() * 2, rope.rotary_dim, "rotary frequencies");
    let angles = &batch.angles(rope).values;
    let qkv = Shared::new(qkv.as_mut_slice());
    let (norms, kv) = (norms.as_ref(), &*kv);
    cpu.pool.split(rows, rows >= PARALLEL_ROWS, |_, rows| {
        cpu.level.run(Rope { slots: &batch.ragged.slots, rows, qkv, cols, attention, norms, angles, half: rope.rotary_dim / 2, kv, layer });
    });
}

struct Rope<'a> {
    slots: &'a [u32],
    rows: Range<usize>,
    qkv: Shared<f32>,
    cols: usize,
    attention: &'a AttentionConfig,
    norms: Option<&'a QkNorm<'a, CpuVector>>,
    angles: &'a [f32],
    half: usize,
    kv: &'a CpuKvCache,
    layer: usize,
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = *self.attention;
        for row in self.rows {
            // SAFETY: this row is no other thread's.
            let qkv = unsafe { self.qkv.part(row * self.cols, self.cols) };
            let (cos, sin) = self.angles[row * 2 * self.half..][..2 * self.half].split_at(self.half);
            let (rotated, values) = qkv.split_at_mut((num_heads + num_kv_heads) * head_dim);
            for (h, head) in rotated.chunks_exact_mut(head_dim).enumerate() {
                if let Some(norms) = self.norms {
                    let weight = if h < num_heads { norms.q } else { norms.k };
                    normalise_in_place(s, head, weight.as_slice(), norms.eps);
                }
                let (first, second) = head[..2 * self.half].split_at_mut(self.half);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
            let keys = &rotated[num_heads * head_dim..];
            for (h, (key, value)) in keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)).enumerate() {
                // SAFETY: every row has a slot of its own.
                unsafe { self.kv.write(self.layer, self.slots[row] as usize, h, key, value) };
            }
        }
    }
}
