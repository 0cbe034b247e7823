//! Activations on the card. The residual stream and logits are f32, everything else is of the type that the backend computes in.

use std::sync::Arc;

use parking_lot::Mutex;
use tokenflow_gpu::{DevicePtr, Element, GpuError};

use super::{config::size_of_element, device::Device, memory::Memory, weights::Resident};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) element: Element,
    /// Whether this is the residual stream, or logits: f32 by its nature.
    pub(super) is_stream: bool,
    /// Rows that there is room for, so that the storage stays where it is from step to step.
    pub(super) room: usize,
}

impl Shape {
    pub(super) fn len(&self) -> usize {
        self.rows * self.cols
    }
}

/// A buffer's shape, and what a recorded pass has made of it.
pub(super) type Resized = (Arc<Mutex<Shape>>, Shape);

/// Activations `[rows, cols]`.
pub struct Buffer {
    memory: Memory,
    /// Shared with graphs, whose replays leave buffers as the recorded pass did.
    shape: Arc<Mutex<Shape>>,
}

impl Buffer {
    pub(super) fn new(device: &Arc<Device>) -> Self {
        let shape = Shape { rows: 0, cols: 0, element: Element::F32, is_stream: false, room: 0 };
        Self { memory: Memory::none(device), shape: Arc::new(Mutex::new(shape)) }
    }

    pub(super) fn shape(&self) -> Shape {
        *self.shape.lock()
    }

    pub(super) fn data(&self) -> DevicePtr {
        self.memory.start()
    }

    /// Values of the residual stream or logits.
    pub(super) fn stream(&mut self, rows: usize, cols: usize, room: usize) -> Result<DevicePtr, GpuError> {
        self.reshape(Shape { rows, cols, element: Element::F32, is_stream: true, room })
    }

    /// Values of the type that is computed in.
    pub(super) fn activations(&mut self, rows: usize, cols: usize, room: usize) -> Result<DevicePtr, GpuError> {
        let element = self.memory.device().config.compute;
        self.reshape(Shape { rows, cols, element, is_stream: false, room })
    }

    fn reshape(&mut self, shape: Shape) -> Result<DevicePtr, GpuError> {
        let bytes = shape.rows.max(shape.room) * shape.cols * size_of_element(shape.element);
        let start = self.memory.reserve(bytes)?;
        *self.shape.lock() = shape;
        if let Some(recorded) = &mut *self.memory.device().recorded.lock() {
            recorded.push((self.shape.clone(), shape));
        }
        Ok(start)
    }
}

/// f32 values: a norm's scale or a bias.
pub struct CudaVector {
    pub(super) values: Resident,
    pub(super) len: usize,
}

impl CudaVector {
    pub(super) fn start(&self) -> DevicePtr {
        self.values.start()
    }
}
