//! Weight matrices, kept as their checkpoint encodes them and rearranged once for the product kernel.
//!
//! A matrix is a list of segments by rows, each with an encoding of its own. A segment is cut into panels of 32 output features,
//! so that a vector holds the same column of sixteen features. A new encoding is one file that implements [`encoded::Encoding`].

mod encoded;
mod fp8;
mod int4;
mod k_quants;
mod plain;
mod q4_0;
mod q6_k;
mod q8_0;

use self::{encoded::Encoded, plain::Plain};
use super::{Cpu, isa::LANES, linear::Linear, pool::Pool};
use crate::backend::{BackendError, BlockFormat, DType, MatrixView};

pub(super) use plain::to_f32;

/// Output features in a panel: two vectors.
pub(super) const PANEL: usize = 2 * LANES;

/// A weight matrix `[out_features, in_features]`.
pub struct CpuMatrix {
    segments: Vec<Box<dyn Segment>>,
    in_features: usize,
    out_features: usize,
}

/// Some rows of a matrix in one encoding.
pub(super) trait Segment: Send + Sync {
    fn features(&self) -> usize;

    /// Bytes in memory.
    fn bytes(&self) -> usize;

    fn multiply(&self, cpu: &Cpu, call: Linear<'_>);

    /// Copies output feature `index` of the segment, that is an embedding's row, to `out`.
    fn copy_row(&self, cpu: &Cpu, index: usize, out: &mut [f32]);
}

impl CpuMatrix {
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes that the weights take in memory.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|s| s.bytes()).sum()
    }

    /// The segments, each with the number of the output feature that it begins with.
    pub(super) fn segments(&self) -> impl Iterator<Item = (usize, &dyn Segment)> {
        let mut next = 0;
        self.segments.iter().map(move |segment| {
            let first = next;
            next += segment.features();
            (first, &**segment)
        })
    }

    /// Unencoded parts are converted to `dtype` where one is given.
    pub(super) fn pack(parts: &[MatrixView<'_>], dtype: Option<DType>, pool: &Pool) -> Result<Self, BackendError> {
        let first = parts.first().ok_or_else(|| BackendError::Device("a matrix of no parts was asked for".into()))?;
        let in_features = first.shape()[1];
        for (part, view) in parts.iter().enumerate() {
            if view.shape()[1] != in_features {
                return Err(BackendError::Columns { expected: in_features, found: view.shape()[1] });
            }
            view.check().map_err(|reason| BackendError::Weight { part, reason })?;
        }
        let mut segments = Vec::new();
        let mut begin = 0;
        for end in 1..=parts.len() {
            if parts.get(end).is_none_or(|next| !are_alike(&parts[begin], next, dtype)) {
                let segment = segment(&parts[begin..end], dtype, pool);
                segments.push(segment.map_err(|error| match error {
                    BackendError::Weight { part, reason } => BackendError::Weight { part: begin + part, reason },
                    other => other,
                })?);
                begin = end;
            }
        }
        Ok(Self { segments, in_features, out_features: parts.iter().map(|p| p.shape()[0]).sum() })
    }

    pub(super) fn copy_row(&self, cpu: &Cpu, index: usize, out: &mut [f32]) {
        let owner = self.segments().find(|(first, segment)| (*first..first + segment.features()).contains(&index));
        let (first, segment) = owner.unwrap_or_else(|| panic!("row {index} of a matrix of {} rows", self.out_features));
        segment.copy_row(cpu, index - first, out);
    }
}

/// Whether both can be parts of one segment.
fn are_alike(a: &MatrixView<'_>, b: &MatrixView<'_>, dtype: Option<DType>) -> bool {
    match (a, b) {
        (MatrixView::Plain(a), MatrixView::Plain(b)) => dtype.is_some() || a.dtype == b.dtype,
        (MatrixView::Blocks { format: a, .. }, MatrixView::Blocks { format: b, .. }) => a == b,
        (MatrixView::Int4 { group_size: a, groups: g, .. }, MatrixView::Int4 { group_size: b, groups: h, .. }) => a == b && g == h,
        (MatrixView::Fp8 { scale_block: [_, a], .. }, MatrixView::Fp8 { scale_block: [_, b], .. }) => a == b,
        _ => false,
    }
}

/// One segment of parts that are alike.
fn segment(parts: &[MatrixView<'_>], dtype: Option<DType>, pool: &Pool) -> Result<Box<dyn Segment>, BackendError> {
    let cols = parts[0].shape()[1];
    Ok(match parts[0] {
        MatrixView::Plain(view) => Box::new(Plain::pack(parts, dtype.unwrap_or(view.dtype), pool)?),
        MatrixView::Blocks { format, .. } => match format {
            BlockFormat::Q8_0 => Box::new(Encoded::pack(q8_0::Q8_0::new(cols), parts, pool)?),
            BlockFormat::Q4_0 => Box::new(Encoded::pack(q4_0::Q4_0::new(cols), parts, pool)?),
            BlockFormat::Q4K => Box::new(Encoded::pack(k_quants::KQuant::<4>::new(cols), parts, pool)?),
            BlockFormat::Q5K => Box::new(Encoded::pack(k_quants::KQuant::<5>::new(cols), parts, pool)?),
            BlockFormat::Q6K => Box::new(Encoded::pack(q6_k::Q6K::new(cols), parts, pool)?),
        },
        MatrixView::Int4 { group_size, groups, .. } => {
            let (encoding, order) = int4::Int4::new(cols, group_size, groups);
            Box::new(Encoded::pack_ordered(encoding, order, parts, pool)?)
        }
        MatrixView::Fp8 { scale_block: [_, group_cols], .. } => {
            let encoding = fp8::Fp8::new(cols, group_cols).map_err(|reason| BackendError::Weight { part: 0, reason })?;
            Box::new(Encoded::pack(encoding, parts, pool)?)
        }
    })
}
