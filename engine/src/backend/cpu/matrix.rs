//! Weight matrices, packed once for the product kernel.
//!
//! A panel holds 32 output features. Within it, input features follow each other in pairs: 16-bit types as
//! `[pair][feature][2]`, f32 as `[input][feature]`. A row (an embedding) is therefore spread over its panel.

use half::f16;

use super::{isa::LANES, memory::Region, pool::Pool};
use crate::backend::{BackendError, DType, MatrixView, TensorView};

/// Output features in a panel: two vectors.
pub(super) const PANEL: usize = 2 * LANES;

/// A panel is a sequence of units: four bytes of each feature, that is a pair of a 16-bit type or one f32.
const UNIT_BYTES: usize = PANEL * 4;
/// Units that are packed at a time, so that what is written stays in the first-level cache.
const PIECE: usize = 64;

/// A weight matrix `[out_features, in_features]` in its checkpoint's type; parts of different types are kept as f32.
pub struct CpuMatrix {
    panels: Region,
    dtype: DType,
    in_features: usize,
    out_features: usize,
}

impl CpuMatrix {
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn num_panels(&self) -> usize {
        self.out_features.div_ceil(PANEL)
    }

    pub(super) fn num_pairs(&self) -> usize {
        self.in_features.div_ceil(2)
    }

    /// Bytes from one pair to the next.
    pub(super) fn pair_bytes(&self) -> usize {
        2 * PANEL * self.dtype.size()
    }

    fn panel_bytes(&self) -> usize {
        self.num_pairs() * self.pair_bytes()
    }

    pub(super) fn panel(&self, index: usize) -> &[u8] {
        // SAFETY: the region holds `num_panels` panels and is never written after packing.
        let all = unsafe { std::slice::from_raw_parts(self.panels.as_ptr(), self.panels.len()) };
        &all[index * self.panel_bytes()..][..self.panel_bytes()]
    }

    pub(super) fn pack(parts: &[MatrixView<'_>], pool: &Pool) -> Result<Self, BackendError> {
        let parts = &parts.iter().map(plain).collect::<Result<Vec<_>, _>>()?[..];
        let first = parts.first().ok_or_else(|| BackendError::Device("a matrix of no parts was asked for".into()))?;
        let in_features = first.shape[1];
        if let Some(part) = parts.iter().find(|p| p.shape[1] != in_features) {
            return Err(BackendError::Columns { expected: in_features, found: part.shape[1] });
        }
        let dtype = if parts.iter().all(|p| p.dtype == first.dtype) { first.dtype } else { DType::F32 };
        let out_features = parts.iter().map(|p| p.shape[0]).sum::<usize>();
        let mut matrix = Self { panels: Region::default(), dtype, in_features, out_features };
        matrix.panels = Region::zeroed("a weight matrix", matrix.num_panels() * matrix.panel_bytes())?;
        let rows: Vec<Row<'_>> = parts.iter().flat_map(rows_of).collect();
        let (bytes, base) = (matrix.panel_bytes(), matrix.panels.as_shared_mut_ptr() as usize);
        pool.split(matrix.num_panels(), true, |_, range| {
            for index in range {
                // SAFETY: panels are disjoint parts of a region that nobody else sees yet.
                let panel = unsafe { std::slice::from_raw_parts_mut((base + index * bytes) as *mut u8, bytes) };
                for (i, piece) in panel.chunks_mut(PIECE * UNIT_BYTES).enumerate() {
                    for (lane, row) in rows[index * PANEL..].iter().take(PANEL).enumerate() {
                        row.scatter(dtype, i * PIECE, lane, piece);
                    }
                }
            }
        });
        if dtype == DType::F16 && rows.iter().any(Row::has_non_finite_f16) {
            return Err(BackendError::Device("an f16 weight is infinite or not a number".into()));
        }
        Ok(matrix)
    }

    /// Copies output feature `index`, that is an embedding's row, to `out`.
    pub(super) fn copy_row(&self, index: usize, out: &mut [f32]) {
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

fn plain<'a>(part: &MatrixView<'a>) -> Result<TensorView<'a>, BackendError> {
    part.check().map_err(BackendError::Device)?;
    match *part {
        MatrixView::Plain(view) => Ok(view),
        other => Err(BackendError::Device(format!("weights of {} cannot be used on the CPU", other.encoding()))),
    }
}

fn widen(dtype: DType, bytes: [u8; 2]) -> f32 {
    match dtype {
        DType::F16 => f16::from_le_bytes(bytes).to_f32(),
        _ => f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16),
    }
}

/// All elements of a tensor as f32.
pub(super) fn to_f32(view: &TensorView<'_>) -> Vec<f32> {
    Row { dtype: view.dtype, bytes: view.bytes }.values().collect()
}

/// A row as it lies in the checkpoint.
struct Row<'a> {
    dtype: DType,
    bytes: &'a [u8],
}

fn rows_of<'a>(view: &TensorView<'a>) -> impl Iterator<Item = Row<'a>> + use<'a> {
    let (dtype, bytes) = (view.dtype, view.bytes);
    let row_bytes = view.shape[1] * dtype.size();
    (0..view.shape[0]).map(move |i| Row { dtype, bytes: &bytes[i * row_bytes..][..row_bytes] })
}

impl Row<'_> {
    fn values(&self) -> impl Iterator<Item = f32> + '_ {
        let size = self.dtype.size();
        self.bytes.chunks_exact(size).map(move |b| match self.dtype {
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
        } else {
            for (to, from) in all.iter_mut().zip(self.values().skip(first)) {
                to[place.clone()].copy_from_slice(&from.to_le_bytes());
            }
        }
    }

    fn has_non_finite_f16(&self) -> bool {
        self.dtype == DType::F16 && self.bytes.chunks_exact(2).any(|b| b[1] & 0x7c == 0x7c)
    }
}
