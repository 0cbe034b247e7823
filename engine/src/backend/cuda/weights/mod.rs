//! Weights on the card: matrices in the checkpoint's own encoding, split into planes, wherever a kernel reads it; others in the type that is
//! computed in. They stream from the mapped file through pinned memory, and the copy of one piece overlaps the packing of the next.

mod decode;
mod format;
mod pack;
#[cfg(test)]
mod pack_tests;
mod resident;
mod upload;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokenflow_gpu::{DevicePtr, GpuError};

use self::{
    format::PLANES,
    pack::{Packing, are_alike},
    resident::{Places, place_planes},
    upload::{Rows, Uploader},
};
use super::{CudaBackend, args, device::Device};
use crate::backend::{BackendError, MatrixView};

pub use format::Format;
pub use resident::Resident;

/// A matrix `[features, columns]` on the card: segments by rows, each in one encoding.
pub struct CudaMatrix {
    segments: Vec<Segment>,
    columns: usize,
}

/// Some rows of a matrix.
pub(super) struct Segment {
    pub(super) weight: args::Weight,
    pub(super) format: Format,
    /// The column of `x` for each of the planes, u32, where they are not the same; beyond the last where there is none.
    pub(super) order: Option<DevicePtr>,
    /// The first of its features among the matrix's.
    pub(super) first: usize,
    _planes: Resident,
}

impl CudaMatrix {
    pub(super) fn features(&self) -> usize {
        self.segments.last().map_or(0, |last| last.first + last.features())
    }

    /// Those of `x` that it is multiplied with.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Its only segment, with columns where `x` has them: what embeddings and experts are.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn whole(&self) -> Result<&Segment, GpuError> {
        let fail = |reason: &str| GpuError::Call { call: "weights", reason: reason.into() };
        match self.segments.as_slice() {
            [Segment { order: Some(_), .. }] => {
                Err(fail("embeddings and experts whose 4-bit groups are scattered (desc_act) are not supported"))
            }
            [segment] => Ok(segment),
            _ => Err(fail("experts whose gates and ups differ in encoding are not supported")),
        }
    }
}

impl Segment {
    pub(super) fn features(&self) -> usize {
        self.weight.features as usize
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.format, Format::Plain(_) | Format::Odd(_))
    }
}

/// What brings weights to the card.
pub(super) struct Loading {
    uploader: Arc<Mutex<Uploader>>,
    places: Mutex<Places>,
    /// Why matrices became wider than they were: how many, and the bytes that they take now.
    widened: Mutex<BTreeMap<String, (usize, usize)>>,
}

impl Loading {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        let uploader = Arc::new(Mutex::new(Uploader::new(&device.gpu)?));
        let places = Mutex::new(Places::new(device, &uploader));
        Ok(Self { uploader, places, widened: Mutex::default() })
    }
}

impl CudaBackend {
    /// Shows how far of a checkpoint of so many bytes loading is, by `workers` threads, until [`CudaBackend::finish_loading`].
    pub fn begin_loading(&self, what: &str, bytes: usize, workers: usize) {
        self.loading.uploader.lock().begin(what, bytes, workers);
    }

    /// Waits until all weights are on the card, gives back what loading took of the host's memory, and says which matrices take more memory
    /// than they might.
    ///
    /// # Errors
    /// When a copy failed.
    pub fn finish_loading(&self) -> Result<(), BackendError> {
        self.loading.uploader.lock().finish()?;
        for (reason, (count, bytes)) in std::mem::take(&mut *self.loading.widened.lock()) {
            let (compute, mib) = (self.device.tag(), bytes >> 20);
            tracing::info!(matrices = count, mib, "kept in {compute} on the card: {reason}");
        }
        Ok(())
    }

    pub(super) fn pack(&self, parts: &[MatrixView<'_>]) -> Result<CudaMatrix, BackendError> {
        let first = parts.first().ok_or_else(|| BackendError::Device("a matrix of no parts was asked for".into()))?;
        let [_, columns] = first.shape();
        let (mut segments, mut part, mut first) = (Vec::new(), 0, 0);
        for alike in parts.chunk_by(are_alike) {
            if alike[0].shape()[1] != columns {
                return Err(BackendError::Columns { expected: columns, found: alike[0].shape()[1] });
            }
            let packing = Packing::new(alike, self.device.config.compute);
            let segment = packing.and_then(|packing| self.bring(&packing.in_own_encoding(), first)).map_err(|error| match error {
                BackendError::Weight { part: own, reason } => BackendError::Weight { part: part + own, reason },
                other => other,
            })?;
            part += alike.len();
            first += segment.features();
            segments.push(segment);
        }
        Ok(CudaMatrix { segments, columns })
    }

    /// Places some rows of a matrix and issues their copies; what is issued on the device's stream from now on finds them there.
    fn bring(&self, packing: &Packing<'_>, first: usize) -> Result<Segment, BackendError> {
        let layout = packing.layout;
        let (each, order) = (layout.row_bytes(), packing.order.as_deref().unwrap_or_default());
        let [codes, scales, offsets, high] = each.map(|each| each * layout.features);
        let (starts, end) = place_planes([codes, scales + layout.scale_bytes(), offsets, high, size_of_val(order)]);
        let planes = self.loading.places.lock().place(end)?;
        let [codes_at, scales_at, offsets_at, high_at, order_at] = starts.map(|start| planes.start().add(start));
        let to: [DevicePtr; PLANES] = [codes_at, scales_at, offsets_at, high_at];

        let mut uploader = self.loading.uploader.lock();
        uploader.upload(&Rows { count: layout.features, each, to, write: &|rows, planes| packing.write(rows, planes) })?;
        uploader.upload_bytes(scales_at.add(scales), bytemuck::cast_slice(&packing.scales))?;
        uploader.upload_bytes(order_at, bytemuck::cast_slice(order))?;
        uploader.order_before(&self.device.stream)?;
        uploader.advance(packing.stored_bytes());
        drop(uploader);

        if let Some(reason) = &packing.widened {
            let mut widened = self.loading.widened.lock();
            let (count, bytes) = widened.entry(reason.clone()).or_default();
            (*count, *bytes) = (*count + 1, *bytes + end);
        }
        let order = (!order.is_empty()).then_some(order_at);
        Ok(Segment { weight: layout.args(to), format: layout.format, order, first, _planes: planes })
    }

    /// Memory on the card with these bytes, for what is issued from now on.
    pub(super) fn upload(&self, bytes: &[u8]) -> Result<Resident, GpuError> {
        if bytes.is_empty() {
            return Ok(Resident::none());
        }
        let resident = self.loading.places.lock().place(bytes.len())?;
        let mut uploader = self.loading.uploader.lock();
        uploader.upload_bytes(resident.start(), bytes)?;
        uploader.order_before(&self.device.stream)?;
        Ok(resident)
    }
}
