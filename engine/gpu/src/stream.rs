//! Streams, events, graphs and kernels with an owner.

use std::sync::Arc;

use crate::{DevicePtr, Driver, GpuError, Grid, Product, RawEvent, RawFunction, RawGraph, RawStream};

/// Operations in order. Functions that take addresses are unsafe as the [`Driver`]'s are.
pub struct Stream {
    driver: Arc<dyn Driver>,
    raw: RawStream,
}

/// A kernel that can be launched, and the name it goes by.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub raw: RawFunction,
    pub name: &'static str,
}

#[allow(clippy::missing_safety_doc)]
impl Stream {
    pub(crate) fn new(driver: &Arc<dyn Driver>) -> Result<Self, GpuError> {
        Ok(Self { driver: driver.clone(), raw: driver.create_stream()? })
    }

    pub fn raw(&self) -> RawStream {
        self.raw
    }

    /// Waits for all that was issued.
    ///
    /// # Errors
    /// When any of it failed.
    pub fn wait(&self) -> Result<(), GpuError> {
        // SAFETY: the stream is alive.
        unsafe { self.driver.wait_for_stream(self.raw) }
    }

    pub unsafe fn copy_to_device(&self, to: DevicePtr, from: *const u8, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.copy_to_device(to, from, bytes, self.raw) }
    }

    pub unsafe fn copy_to_host(&self, to: *mut u8, from: DevicePtr, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.copy_to_host(to, from, bytes, self.raw) }
    }

    pub unsafe fn copy_on_device(&self, to: DevicePtr, from: DevicePtr, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.copy_on_device(to, from, bytes, self.raw) }
    }

    pub unsafe fn fill(&self, to: DevicePtr, byte: u8, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.fill(to, byte, bytes, self.raw) }
    }

    /// One struct is all that a kernel takes.
    pub unsafe fn launch<A: bytemuck::NoUninit>(&self, function: Function, grid: Grid, args: &A) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.launch(function.raw, grid, bytemuck::bytes_of(args), self.raw) }.map_err(|error| match error {
            GpuError::Call { call, reason } => GpuError::Call { call, reason: format!("{reason} ({} of {grid:?})", function.name) },
            error => error,
        })
    }

    pub unsafe fn product(&self, product: &Product, x: DevicePtr, weight: DevicePtr, out: DevicePtr) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.product(product, x, weight, out, self.raw) }
    }

    /// # Errors
    /// When the driver fails.
    pub fn record(&self, event: &Event) -> Result<(), GpuError> {
        // SAFETY: both are alive.
        unsafe { self.driver.record(event.raw, self.raw) }
    }

    /// What is issued from now on comes after the event.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn wait_for(&self, event: &Event) -> Result<(), GpuError> {
        // SAFETY: both are alive.
        unsafe { self.driver.wait_on_stream(self.raw, event.raw) }
    }

    /// Records what `issue` issues, for [`Stream::replay`], instead of running it.
    ///
    /// # Errors
    /// What `issue` failed with, or that something in it cannot be recorded.
    pub fn capture(&self, issue: impl FnOnce() -> Result<(), GpuError>) -> Result<Graph, GpuError> {
        // SAFETY: the stream is alive.
        unsafe { self.driver.begin_capture(self.raw)? };
        let issued = issue();
        // SAFETY: as above; the capture was begun.
        let graph = unsafe { self.driver.end_capture(self.raw) };
        let graph = graph.map(|raw| Graph { driver: self.driver.clone(), raw });
        issued?;
        graph
    }

    /// # Safety
    /// Everything that the graph works with is alive, as when it was recorded.
    ///
    /// # Errors
    /// When the driver fails.
    pub unsafe fn replay(&self, graph: &Graph) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { self.driver.launch_graph(graph.raw, self.raw) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by this driver, and used no more.
        unsafe { self.driver.destroy_stream(self.raw) };
    }
}

/// A point in a stream.
pub struct Event {
    driver: Arc<dyn Driver>,
    raw: RawEvent,
}

impl Event {
    pub(crate) fn new(driver: &Arc<dyn Driver>, timed: bool) -> Result<Self, GpuError> {
        Ok(Self { driver: driver.clone(), raw: driver.create_event(timed)? })
    }

    /// Waits until the stream has come to it.
    ///
    /// # Errors
    /// When what was issued before it failed.
    pub fn wait(&self) -> Result<(), GpuError> {
        // SAFETY: the event is alive.
        unsafe { self.driver.wait_for_event(self.raw) }
    }

    /// # Errors
    /// When what was issued before it failed.
    pub fn is_reached(&self) -> Result<bool, GpuError> {
        // SAFETY: the event is alive.
        unsafe { self.driver.is_reached(self.raw) }
    }

    /// Seconds from `first` to this; both are timed, and were reached.
    ///
    /// # Errors
    /// When one was not.
    pub fn seconds_since(&self, first: &Self) -> Result<f64, GpuError> {
        // SAFETY: both are alive.
        unsafe { self.driver.seconds_between(first.raw, self.raw) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by this driver, and used no more.
        unsafe { self.driver.destroy_event(self.raw) };
    }
}

/// Operations that were recorded.
pub struct Graph {
    driver: Arc<dyn Driver>,
    raw: RawGraph,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by this driver, and used no more.
        unsafe { self.driver.destroy_graph(self.raw) };
    }
}
