//! Weight matrices on the card.

use tokenflow_gpu::{DevicePtr, Element, GpuError};

use super::{CudaBackend, args, memory::Memory};
use crate::backend::{BackendError, MatrixView};

/// Bytes that are copied to the card at a time.
const PIECE: usize = 4 << 20;

/// How a matrix's values are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Of the type that the backend computes in.
    Plain(Element),
    /// The same, of rows whose length is no multiple of 8.
    Odd(Element),
}

impl Format {
    /// What it is called in kernels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain(Element::F32) => "f32",
            Self::Plain(Element::F16) => "f16",
            Self::Plain(Element::BF16) => "bf16",
            Self::Odd(Element::F32) => "f32_odd",
            Self::Odd(Element::F16) => "f16_odd",
            Self::Odd(Element::BF16) => "bf16_odd",
        }
    }
}

/// A matrix `[features, columns]` on the card.
pub struct CudaMatrix {
    pub(super) weight: args::Weight,
    pub(super) format: Format,
    _planes: Vec<Memory>,
}

impl CudaMatrix {
    pub(super) fn features(&self) -> usize {
        self.weight.features as usize
    }

    pub(super) fn columns(&self) -> usize {
        self.weight.columns as usize
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.format, Format::Plain(_) | Format::Odd(_))
    }

    /// Its values, where they are not encoded.
    pub(super) fn plain_codes(&self) -> Result<DevicePtr, GpuError> {
        if self.is_plain() {
            return Ok(self.weight.codes);
        }
        Err(GpuError::Call { call: "embedding", reason: format!("a table in {:?} cannot be looked up", self.format) })
    }
}

impl CudaBackend {
    pub(super) fn pack(&self, parts: &[MatrixView<'_>]) -> Result<CudaMatrix, BackendError> {
        let compute = self.device.config.compute;
        let columns = parts.first().map_or(0, |part| part.shape()[1]);
        let mut bytes = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            if part.shape()[1] != columns {
                return Err(BackendError::Columns { expected: columns, found: part.shape()[1] });
            }
            part.check().map_err(|reason| BackendError::Weight { part: index, reason })?;
            let MatrixView::Plain(view) = part else {
                return Err(BackendError::Weight { part: index, reason: format!("is in {}, which GPUs do not take yet", part.encoding()) });
            };
            let values = view.to_f32();
            match compute {
                Element::F32 => bytes.extend_from_slice(bytemuck::cast_slice(&values)),
                Element::F16 => values.iter().for_each(|v| bytes.extend(half::f16::from_f32(*v).to_le_bytes())),
                Element::BF16 => values.iter().for_each(|v| bytes.extend(half::bf16::from_f32(*v).to_le_bytes())),
            }
        }
        let codes = self.upload_now(&bytes)?;
        let features: usize = parts.iter().map(|part| part.shape()[0]).sum();
        let weight = args::Weight {
            codes: codes.start(),
            scales: DevicePtr::NULL,
            offsets: DevicePtr::NULL,
            features: features as u32,
            columns: columns as u32,
            group: 0,
            scale_features: 0,
        };
        let format = if columns.is_multiple_of(8) { Format::Plain(compute) } else { Format::Odd(compute) };
        Ok(CudaMatrix { weight, format, _planes: vec![codes] })
    }

    /// Memory on the card with these bytes, which are there when this returns.
    pub(super) fn upload_now(&self, bytes: &[u8]) -> Result<Memory, GpuError> {
        let memory = self.device.allocate(bytes.len())?;
        let mut pinned = self.device.gpu.allocate_pinned(bytes.len().min(PIECE))?;
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            // SAFETY: the copy before was waited for.
            unsafe { pinned.write(0..piece.len()) }.copy_from_slice(piece);
            // SAFETY: both are as long and alive; the copy is waited for.
            unsafe { self.device.stream.copy_to_device(memory.start().add(i * PIECE), pinned.as_ptr(), piece.len())? };
            self.device.finish()?;
        }
        Ok(memory)
    }
}
