//! Memory on the card with an owner that waits for the stream before it lets go, and scratch that operations find by name.

use std::sync::{Arc, atomic::Ordering};

use tokenflow_gpu::{DeviceMemory, DevicePtr, GpuError, PinnedMemory};

use super::device::Device;

pub(super) struct Memory {
    memory: Option<DeviceMemory>,
    device: Arc<Device>,
}

impl Memory {
    pub(super) fn new(device: &Arc<Device>, memory: DeviceMemory) -> Self {
        Self { memory: Some(memory), device: device.clone() }
    }

    /// Of no bytes.
    pub(super) fn none(device: &Arc<Device>) -> Self {
        Self { memory: None, device: device.clone() }
    }

    pub(super) fn start(&self) -> DevicePtr {
        self.memory.as_ref().map_or(DevicePtr::NULL, DeviceMemory::start)
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, DeviceMemory::bytes)
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// At least `bytes`; what was there is lost where they are more than before.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<DevicePtr, GpuError> {
        if bytes > self.bytes() {
            // The old memory goes first: there may be no room for both. It must not while a graph is recorded, which a wait would spoil.
            let device = self.device.clone();
            device.check_not_recording()?;
            drop(std::mem::replace(self, Self::none(&device)));
            *self = device.allocate(bytes)?;
        }
        Ok(self.start())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.memory.is_some() {
            self.device.moves.fetch_add(1, Ordering::Relaxed);
            // A stream that has failed works no more.
            let _ = self.device.finish();
        }
    }
}

/// Host memory that copies work with.
pub(super) struct Pinned {
    pub(super) memory: PinnedMemory,
    pub(super) device: Arc<Device>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.memory.bytes() > 0 {
            let _ = self.device.finish();
        }
    }
}

/// What operations need between launches, kept from call to call.
pub(super) struct Scratch {
    device: Arc<Device>,
    parts: Vec<(&'static str, Memory)>,
    /// Cosines and sines of a step by the frequencies that they are made of.
    angles: Vec<(DevicePtr, Memory)>,
}

impl Scratch {
    pub(super) fn new(device: &Arc<Device>) -> Self {
        Self { device: device.clone(), parts: Vec::new(), angles: Vec::new() }
    }

    /// At least `bytes`, the same each time.
    pub(super) fn part(&mut self, name: &'static str, bytes: usize) -> Result<DevicePtr, GpuError> {
        if !self.parts.iter().any(|(known, _)| *known == name) {
            self.parts.push((name, Memory::none(&self.device)));
        }
        let part = self.parts.iter_mut().find(|(known, _)| *known == name);
        part.map_or(Ok(DevicePtr::NULL), |(_, memory)| memory.reserve(bytes))
    }

    pub(super) fn angles(&mut self, inv_freq: DevicePtr, bytes: usize) -> Result<DevicePtr, GpuError> {
        if !self.angles.iter().any(|(known, _)| *known == inv_freq) {
            self.angles.push((inv_freq, Memory::none(&self.device)));
        }
        let angles = self.angles.iter_mut().find(|(known, _)| *known == inv_freq);
        angles.map_or(Ok(DevicePtr::NULL), |(_, memory)| memory.reserve(bytes))
    }
}
