//! What models keep on the emulated device: weights, vectors, activations, the cache, a step's indices.

use std::{ffi::c_void, marker::PhantomData, sync::Mutex};

use tokenflow_engine::backend::{KvLayout, RaggedBatch};

use crate::{
    args,
    checks::elements::Element,
    emulator::{Device, Pointer},
};

/// A plain matrix of the type that activations have.
pub struct Matrix<T> {
    pub weight: args::Weight,
    element: PhantomData<T>,
}

impl<T: Element> Matrix<T> {
    pub fn new(device: &Device, values: &[f32], columns: usize) -> Self {
        let weight = args::Weight {
            codes: device.upload(&T::all(values)).any(),
            scales: Pointer::NULL,
            offsets: Pointer::NULL,
            features: (values.len() / columns) as u32,
            columns: columns as u32,
            group: 0,
            scale_features: 0,
        };
        Self { weight, element: PhantomData }
    }
}

pub struct Vector {
    pub values: Pointer<f32>,
    pub len: usize,
}

/// Activations: the residual stream is f32, everything else what products are of.
pub struct Buffer {
    pub data: Pointer<c_void>,
    pub rows: usize,
    pub cols: usize,
    pub is_stream: bool,
    capacity_bytes: usize,
}

impl Buffer {
    pub fn new() -> Self {
        Self { data: Pointer::NULL, rows: 0, cols: 0, is_stream: false, capacity_bytes: 0 }
    }

    fn reshape<E: Copy>(&mut self, device: &Device, rows: usize, cols: usize, is_stream: bool) -> Pointer<E> {
        let bytes = rows * cols * size_of::<E>();
        if bytes > self.capacity_bytes {
            (self.data, self.capacity_bytes) = (device.allocate::<u8>(bytes).any(), bytes);
        }
        (self.rows, self.cols, self.is_stream) = (rows, cols, is_stream);
        self.data.cast()
    }

    pub fn stream(&mut self, device: &Device, rows: usize, cols: usize) -> Pointer<f32> {
        self.reshape(device, rows, cols, true)
    }

    pub fn activations<T: Element>(&mut self, device: &Device, rows: usize, cols: usize) -> Pointer<T> {
        self.reshape(device, rows, cols, false)
    }

    pub fn len(&self) -> usize {
        self.rows * self.cols
    }
}

pub struct KvCache {
    pub layout: KvLayout,
    pub data: Pointer<half::bf16>,
    /// Elements of a layer.
    pub layer_len: usize,
}

impl KvCache {
    pub fn new(device: &Device, layout: KvLayout) -> Self {
        let layer_len = 2 * layout.num_blocks * layout.num_kv_heads * layout.block_size * layout.head_dim;
        Self { layout, data: device.allocate(layout.num_layers * layer_len), layer_len }
    }

    pub fn layer(&self, layer: usize) -> Pointer<half::bf16> {
        self.data.add(layer * self.layer_len)
    }

    pub fn shape(&self) -> args::KvShape {
        let KvLayout { num_kv_heads, block_size, head_dim, .. } = self.layout;
        args::KvShape { num_kv_heads: num_kv_heads as u32, block_size: block_size as u32, head_dim: head_dim as u32 }
    }
}

pub struct Batch {
    pub ragged: RaggedBatch,
    pub tokens: Pointer<u32>,
    pub positions: Pointer<u32>,
    pub slots: Pointer<u32>,
    pub query_start: Pointer<u32>,
    pub block_tables: Pointer<u32>,
    pub table_start: Pointer<u32>,
    pub logits_rows: Pointer<u32>,
    /// (token, sequence) of sequences of one token.
    pub decode: Vec<[u32; 2]>,
    /// Sequences of more.
    pub prefill: Vec<u32>,
    /// Angles by the frequencies they were made of.
    pub angles: Mutex<Vec<(usize, Pointer<f32>)>>,
}

impl Batch {
    pub fn new(device: &Device, ragged: RaggedBatch) -> Self {
        let sequences = || ragged.query_start.windows(2).enumerate();
        Self {
            tokens: device.upload(&ragged.tokens),
            positions: device.upload(&ragged.positions),
            slots: device.upload(&ragged.slots),
            query_start: device.upload(&ragged.query_start),
            block_tables: device.upload(&ragged.block_tables),
            table_start: device.upload(&ragged.table_start),
            logits_rows: device.upload(&ragged.logits_rows),
            decode: sequences().filter(|(_, rows)| rows[1] - rows[0] == 1).map(|(i, rows)| [rows[0], i as u32]).collect(),
            prefill: sequences().filter(|(_, rows)| rows[1] - rows[0] > 1).map(|(i, _)| i as u32).collect(),
            angles: Mutex::default(),
            ragged,
        }
    }
}
