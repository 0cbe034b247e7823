//! Unencoded weights: 16-bit types in pairs `[pair][feature][2]`, f32 as `[input][feature]`.
//! A row (an embedding) is therefore spread over its panel.

use half::{bf16, f16};

use super::{
    super::{
        Cpu,
        isa::Level,
        linear::{self, Linear, Panels, Product},
        memory::Region,
        pool::Pool,
        product::{BLOCK_PAIRS, Bf16Dot, Bf16Wide, F16Wide, F32Wide, Kind, Out},
        scratch::Shared,
    },
    PANEL, Segment,
};
use crate::backend::{BackendError, DType, MatrixView, TensorView};

/// A panel is a sequence of units: four bytes of each feature, that is a pair of a 16-bit type or one f32.
const UNIT_BYTES: usize = PANEL * 4;
/// Units that are packed at a time, so that what is written stays in the first-level cache.
const PIECE: usize = 64;
/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4096;

/// Some rows of a matrix in a plain type.
pub(super) struct Plain {
    panels: Region,
    dtype: DType,
    in_features: usize,
    features: usize,
}

impl Plain {
    fn num_pairs(&self) -> usize {
        self.in_features.div_ceil(2)
    }

    /// Bytes from one pair to the next.
    fn pair_bytes(&self) -> usize {
        2 * PANEL * self.dtype.size()
    }

    fn panel_bytes(&self) -> usize {
        self.num_pairs() * self.pair_bytes()
    }

    fn panel(&self, index: usize) -> &[u8] {
        // SAFETY: the region holds all panels and is never written after packing.
        let all = unsafe { std::slice::from_raw_parts(self.panels.as_ptr(), self.panels.len()) };
        &all[index * self.panel_bytes()..][..self.panel_bytes()]
    }

    /// `parts` as `dtype`.
    pub(super) fn pack(parts: &[MatrixView<'_>], dtype: DType, pool: &Pool) -> Result<Self, BackendError> {
        let rows: Vec<(usize, Row<'_>)> =
            parts.iter().enumerate().flat_map(|(part, view)| rows_of(view).map(move |row| (part, row))).collect();
        let mut plain = Self { panels: Region::default(), dtype, in_features: parts[0].shape()[1], features: rows.len() };
        let (bytes, num_panels) = (plain.panel_bytes(), plain.features.div_ceil(PANEL));
        plain.panels = Region::zeroed("a weight matrix", num_panels * bytes)?;
        let base = Shared::from_ptr(plain.panels.as_shared_mut_ptr());
        let failed = parking_lot::Mutex::new(None);
        pool.split(num_panels, true, |_, range| {
            for index in range {
                // SAFETY: panels are disjoint parts of a region that nobody else sees yet.
                let panel = unsafe { base.part(index * bytes, bytes) };
                let rows = &rows[index * PANEL..rows.len().min((index + 1) * PANEL)];
                for (i, piece) in panel.chunks_mut(PIECE * UNIT_BYTES).enumerate() {
                    for (lane, (_, row)) in rows.iter().enumerate() {
                        row.scatter(dtype, i * PIECE, lane, piece);
                    }
                }
                if let Some((part, reason)) = rows.iter().find_map(|(part, row)| Some((*part, row.misfit(dtype)?))) {
                    *failed.lock() = Some(BackendError::Weight { part, reason });
                }
            }
        });
        failed.into_inner().map_or(Ok(plain), Err)
    }
}

impl<K: Kind> Panels<K> for Plain {
    const SCRATCH: usize = 0;

    fn features(&self) -> usize {
        self.features
    }

    fn pairs(&self) -> usize {
        self.num_pairs()
    }

    unsafe fn product(&self, level: Level, panel: usize, block: usize, a: *const K::A, rows: usize, out: Out, _scratch: &mut [u8]) {
        let stride = self.pair_bytes();
        let pairs = BLOCK_PAIRS.min(self.num_pairs() - block * BLOCK_PAIRS);
        let start = self.panel(panel)[block * BLOCK_PAIRS * stride..].as_ptr();
        // SAFETY: promised by the caller; the panel holds `pairs` more pairs from here.
        unsafe { Product::<K> { a, rows, start, pairs, stride, ahead: AHEAD, out }.run(level) }
    }
}

impl Segment for Plain {
    fn features(&self) -> usize {
        self.features
    }

    fn bytes(&self) -> usize {
        self.panels.len()
    }

    fn multiply(&self, cpu: &Cpu, call: Linear<'_>) {
        match self.dtype {
            DType::BF16 if cpu.dot_bf16 => linear::multiply::<Bf16Dot, Self>(cpu, self, call),
            DType::BF16 => linear::multiply::<Bf16Wide, Self>(cpu, self, call),
            DType::F16 => linear::multiply::<F16Wide, Self>(cpu, self, call),
            DType::F32 => linear::multiply::<F32Wide, Self>(cpu, self, call),
        }
    }

    fn copy_row(&self, _cpu: &Cpu, index: usize, out: &mut [f32]) {
        let (panel, lane) = (self.panel(index / PANEL), index % PANEL);
        match self.dtype {
            DType::F32 => {
                for (out, all) in out.iter_mut().zip(panel.chunks_exact(UNIT_BYTES)) {
                    *out = f32::from_le_bytes([all[lane * 4], all[lane * 4 + 1], all[lane * 4 + 2], all[lane * 4 + 3]]);
                }
            }
            dtype => {
                for (out, all) in out.chunks_mut(2).zip(panel.chunks_exact(UNIT_BYTES)) {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = widen(dtype, [all[lane * 4 + 2 * i], all[lane * 4 + 2 * i + 1]]);
                    }
                }
            }
        }
    }
}

fn widen(dtype: DType, bytes: [u8; 2]) -> f32 {
    match dtype {
        DType::F16 => f16::from_le_bytes(bytes).to_f32(),
        _ => f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16),
    }
}

/// All elements of a tensor as f32.
pub(in super::super) fn to_f32(view: &TensorView<'_>) -> Vec<f32> {
    Row { dtype: view.dtype, bytes: view.bytes }.values(0).collect()
}

/// A row as it lies in the checkpoint.
struct Row<'a> {
    dtype: DType,
    bytes: &'a [u8],
}

fn rows_of<'a>(view: &MatrixView<'a>) -> impl Iterator<Item = Row<'a>> + use<'a> {
    let (dtype, bytes, [rows, cols]) = match *view {
        MatrixView::Plain(view) => (view.dtype, view.bytes, view.shape),
        other => unreachable!("{} in a plain segment", other.encoding()),
    };
    let row_bytes = cols * dtype.size();
    (0..rows).map(move |i| Row { dtype, bytes: &bytes[i * row_bytes..][..row_bytes] })
}

impl Row<'_> {
    /// Values from `first` on.
    fn values(&self, first: usize) -> impl Iterator<Item = f32> + '_ {
        let size = self.dtype.size();
        self.bytes[self.bytes.len().min(first * size)..].chunks_exact(size).map(move |b| match self.dtype {
            DType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            dtype => widen(dtype, [b[0], b[1]]),
        })
    }

    /// Writes the row from unit `first` on as feature `lane` of a piece of a panel of type `dtype`.
    fn scatter(&self, dtype: DType, first: usize, lane: usize, piece: &mut [u8]) {
        let (all, _) = piece.as_chunks_mut::<UNIT_BYTES>();
        let place = lane * 4..lane * 4 + 4;
        if dtype == self.dtype {
            let (units, half) = self.bytes.as_chunks::<4>();
            for (to, from) in all.iter_mut().zip(&units[first..]) {
                to[place.clone()].copy_from_slice(from);
            }
            if let (&[a, b], Some(last)) = (half, all.get_mut(units.len() - first)) {
                last[place].copy_from_slice(&[a, b, 0, 0]);
            }
        } else if dtype == DType::F32 {
            for (to, from) in all.iter_mut().zip(self.values(first)) {
                to[place.clone()].copy_from_slice(&from.to_le_bytes());
            }
        } else {
            for (i, value) in self.values(2 * first).take(2 * all.len()).enumerate() {
                all[i / 2][lane * 4 + i % 2 * 2..][..2].copy_from_slice(&narrow(dtype, value));
            }
        }
    }

    /// Why the row cannot be kept as `dtype`. The kernels take f16 weights for finite.
    fn misfit(&self, dtype: DType) -> Option<String> {
        let is_finite = |value: f32| widen(dtype, narrow(dtype, value)).is_finite();
        match (self.dtype, dtype) {
            (DType::F16, DType::F16) => {
                self.bytes.chunks_exact(2).any(|b| b[1] & 0x7c == 0x7c).then(|| "an f16 weight is infinite or not a number".into())
            }
            (from, to) if from == to || to == DType::F32 => None,
            (from, to) => {
                let worst = self.values(0).find(|&v| !is_finite(v))?;
                Some(format!("the {from:?} weight {worst} is not finite as {to:?}"))
            }
        }
    }
}

/// Rounds to the nearest, ties to even.
fn narrow(dtype: DType, value: f32) -> [u8; 2] {
    match dtype {
        DType::F16 => f16::from_f32(value).to_le_bytes(),
        _ => bf16::from_f32(value).to_le_bytes(),
    }
}
