//! Arguments of the kernels, as their sources declare them. The emulator compares their sizes.

use std::ffi::c_void;

use crate::emulator::Pointer;

type Any = Pointer<c_void>;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Embed {
    pub tokens: Pointer<u32>,
    pub table: Any,
    pub out: Pointer<f32>,
    pub cols: u32,
    pub scale: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Norm {
    pub x: Any,
    pub delta: Any,
    pub weight: Pointer<f32>,
    pub bias: Pointer<f32>,
    pub out: Any,
    pub cols: u32,
    pub eps: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Activation {
    pub x: Any,
    pub out: Any,
    pub rows: u32,
    pub cols: u32,
    pub cap: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stream {
    pub x: Pointer<f32>,
    pub from: Any,
    pub total: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Columns {
    pub x: Any,
    pub order: Pointer<u32>,
    pub out: Any,
    pub rows: u32,
    pub cols: u32,
    pub out_cols: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gather {
    pub x: Pointer<f32>,
    pub delta: Any,
    pub rows: Pointer<u32>,
    pub out: Pointer<f32>,
    pub cols: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct KvShape {
    pub num_kv_heads: u32,
    pub block_size: u32,
    pub head_dim: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct RopeAngles {
    pub positions: Pointer<u32>,
    pub inv_freq: Pointer<f32>,
    pub out: Pointer<f32>,
    pub tokens: u32,
    pub half: u32,
    pub scale: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct RopeKv {
    pub qkv: Any,
    pub angles: Pointer<f32>,
    pub slots: Pointer<u32>,
    pub q_norm: Pointer<f32>,
    pub k_norm: Pointer<f32>,
    pub cache: Any,
    pub kv: KvShape,
    pub num_heads: u32,
    pub half: u32,
    pub eps: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct CopyBlocks {
    pub cache: Any,
    pub copies: Pointer<u32>,
    pub num_copies: u32,
    pub block_bytes: u32,
    pub layer_bytes: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Attention {
    pub qkv: Any,
    pub cache: Any,
    pub out: Any,
    pub positions: Pointer<u32>,
    pub query_start: Pointer<u32>,
    pub block_tables: Pointer<u32>,
    pub table_start: Pointer<u32>,
    pub work: Pointer<u32>,
    pub partial: Pointer<f32>,
    pub partial_state: Pointer<f32>,
    pub kv: KvShape,
    pub num_heads: u32,
    pub split_positions: u32,
    pub num_splits: u32,
    pub scale: f32,
    pub soft_cap: f32,
    pub window: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Weight {
    pub codes: Any,
    pub scales: Any,
    pub offsets: Any,
    pub features: u32,
    pub columns: u32,
    pub group: u32,
    pub scale_features: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Linear {
    pub weight: Weight,
    pub x: Any,
    pub bias: Pointer<f32>,
    pub out: Any,
    pub rows: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Widen {
    pub weight: Weight,
    pub out: Any,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Route {
    pub logits: Any,
    pub experts: Pointer<u32>,
    pub weights: Pointer<f32>,
    pub rows: u32,
    pub num_experts: u32,
    pub top_k: u32,
    pub renormalize: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Group {
    pub experts: Pointer<u32>,
    pub sorted: Pointer<u32>,
    pub place: Pointer<u32>,
    pub expert_start: Pointer<u32>,
    pub visits: u32,
    pub num_experts: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tiles {
    pub expert_start: Pointer<u32>,
    pub tiles: Pointer<u32>,
    pub num_experts: u32,
    pub num_tiles: u32,
    pub tile_rows: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Experts {
    pub weights: Pointer<Weight>,
    pub x: Any,
    pub sorted: Pointer<u32>,
    pub tiles: Pointer<u32>,
    pub out: Any,
    pub top_k: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct ExpertSum {
    pub x: Any,
    pub experts: Pointer<u32>,
    pub weights: Pointer<f32>,
    pub place: Pointer<u32>,
    pub out: Any,
    pub cols: u32,
    pub top_k: u32,
}

#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SampleParams {
    pub seed: u64,
    pub position: u64,
    pub temperature: f32,
    pub top_p: f32,
    pub min_p_offset: f32,
    pub has_min_p: u32,
    pub top_k: u32,
    pub unused: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sample {
    pub logits: Pointer<f32>,
    pub params: Pointer<SampleParams>,
    pub values: Pointer<f32>,
    pub ids: Pointer<u32>,
    pub out: Pointer<u32>,
    pub vocabulary: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Logprobs {
    pub logits: Pointer<f32>,
    pub tokens: Pointer<u32>,
    pub num_top: Pointer<u32>,
    pub logprobs: Pointer<f32>,
    pub ranks: Pointer<u32>,
    pub top_ids: Pointer<u32>,
    pub top_logprobs: Pointer<f32>,
    pub vocabulary: u32,
    pub max_top: u32,
}

#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AdjustParams {
    pub mask: [u32; 2],
    pub has_mask: u32,
    pub allowed: [u32; 2],
    pub has_allowed: u32,
    pub forbidden: [u32; 2],
    pub bad_words: [u32; 2],
    pub biases: [u32; 2],
    pub prompt: [u32; 2],
    pub output: [u32; 2],
    pub repetition_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Adjust {
    pub logits: Pointer<f32>,
    pub out: Pointer<f32>,
    pub params: Pointer<AdjustParams>,
    pub lists: Pointer<u32>,
    pub counts: Pointer<u32>,
    pub vocabulary: u32,
}
