//! Arguments of the kernels, as their sources declare them: one struct for each. Pointers are addresses in the card's memory.

use bytemuck::NoUninit;
use tokenflow_gpu::DevicePtr;

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Embed {
    pub tokens: DevicePtr,
    pub previous: DevicePtr,
    pub table: Weight,
    pub out: DevicePtr,
    pub scale: f32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Norm {
    pub x: DevicePtr,
    pub delta: DevicePtr,
    pub weight: DevicePtr,
    pub bias: DevicePtr,
    pub out: DevicePtr,
    pub cols: u32,
    pub eps: f32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Activation {
    pub x: DevicePtr,
    pub out: DevicePtr,
    pub rows: u32,
    pub cols: u32,
    pub cap: f32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Stream {
    pub x: DevicePtr,
    pub from: DevicePtr,
    pub total: u64,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Columns {
    pub x: DevicePtr,
    pub order: DevicePtr,
    pub out: DevicePtr,
    pub rows: u32,
    pub cols: u32,
    pub out_cols: u32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Gather {
    pub x: DevicePtr,
    pub delta: DevicePtr,
    pub rows: DevicePtr,
    pub out: DevicePtr,
    pub cols: u32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct KvShape {
    pub num_kv_heads: u32,
    pub block_size: u32,
    pub head_dim: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct RopeAngles {
    pub positions: DevicePtr,
    pub inv_freq: DevicePtr,
    pub out: DevicePtr,
    pub tokens: u32,
    pub half: u32,
    pub scale: f32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct RopeKv {
    pub qkv: DevicePtr,
    pub angles: DevicePtr,
    pub slots: DevicePtr,
    pub q_norm: DevicePtr,
    pub k_norm: DevicePtr,
    pub cache: DevicePtr,
    pub kv: KvShape,
    pub num_heads: u32,
    pub half: u32,
    pub eps: f32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct CopyBlocks {
    pub cache: DevicePtr,
    pub copies: DevicePtr,
    pub num_copies: u32,
    pub block_bytes: u32,
    pub layer_bytes: u64,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Attention {
    pub qkv: DevicePtr,
    pub cache: DevicePtr,
    pub out: DevicePtr,
    pub positions: DevicePtr,
    pub query_start: DevicePtr,
    pub block_tables: DevicePtr,
    pub table_start: DevicePtr,
    pub work: DevicePtr,
    pub items: DevicePtr,
    pub item_start: DevicePtr,
    pub partial: DevicePtr,
    pub partial_state: DevicePtr,
    pub kv: KvShape,
    pub num_heads: u32,
    pub num_rows: u32,
    pub split_positions: u32,
    pub scale: f32,
    pub soft_cap: f32,
    pub window: u32,
    pub unused: u32,
}

impl Attention {
    /// Head sizes that kernels are made for, as in their names.
    pub const DIMS: [usize; 3] = [64, 128, 256];

    /// Dynamic shared memory of `attention_decode_*` for heads of up to `dim` over a cache of `kv_bytes` an element.
    pub const fn decode_shared_bytes(dim: usize, kv_bytes: usize) -> usize {
        // Queries, or what teams tell each other: weights of 64 positions, 4 maxima and 16 parts of each row.
        let (queries, exchange) = (16 * (dim + 8) * 2, 16 * (64 + 8) * 2 + 16 * 4 * (4 + 16));
        Self::tiles_bytes(dim, kv_bytes) + if queries > exchange { queries } else { exchange }
    }

    /// Dynamic shared memory of `attention_prefill_*`.
    pub const fn prefill_shared_bytes(dim: usize, kv_bytes: usize) -> usize {
        Self::tiles_bytes(dim, kv_bytes) + 64 * (dim + 8) * 2
    }

    /// Two tiles of 64 keys and values; of bytes, and a third one widened.
    const fn tiles_bytes(dim: usize, kv_bytes: usize) -> usize {
        if kv_bytes == 1 { 4 * 64 * dim + 2 * 64 * (dim + 8) * 2 } else { 4 * 64 * (dim + 8) * 2 }
    }
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct AttentionItems {
    pub positions: DevicePtr,
    pub work: DevicePtr,
    pub items: DevicePtr,
    pub item_start: DevicePtr,
    pub rows: u32,
    pub split_positions: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Weight {
    pub codes: DevicePtr,
    pub scales: DevicePtr,
    pub offsets: DevicePtr,
    pub high: DevicePtr,
    pub features: u32,
    pub columns: u32,
    pub group: u32,
    pub scale_features: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Linear {
    pub weight: Weight,
    pub x: DevicePtr,
    pub bias: DevicePtr,
    pub out: DevicePtr,
    pub rows: u32,
    pub out_cols: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Bias {
    pub x: DevicePtr,
    pub bias: DevicePtr,
    pub rows: u32,
    pub cols: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Widen {
    pub weight: Weight,
    pub out: DevicePtr,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Route {
    pub logits: DevicePtr,
    pub experts: DevicePtr,
    pub weights: DevicePtr,
    pub num_real: DevicePtr,
    pub rows: u32,
    pub num_experts: u32,
    pub top_k: u32,
    pub renormalize: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Group {
    pub experts: DevicePtr,
    pub sorted: DevicePtr,
    pub place: DevicePtr,
    pub expert_start: DevicePtr,
    pub visits: u32,
    pub num_experts: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Tiles {
    pub expert_start: DevicePtr,
    pub tiles: DevicePtr,
    pub num_experts: u32,
    pub num_tiles: u32,
    pub tile_rows: u32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Experts {
    pub weights: DevicePtr,
    pub x: DevicePtr,
    pub sorted: DevicePtr,
    pub tiles: DevicePtr,
    pub out: DevicePtr,
    pub top_k: u32,
    pub out_cols: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct ExpertSum {
    pub x: DevicePtr,
    pub experts: DevicePtr,
    pub weights: DevicePtr,
    pub place: DevicePtr,
    pub out: DevicePtr,
    pub cols: u32,
    pub top_k: u32,
}

#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
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

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Sample {
    pub logits: DevicePtr,
    pub params: DevicePtr,
    pub values: DevicePtr,
    pub ids: DevicePtr,
    pub out: DevicePtr,
    pub vocabulary: u32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Logprobs {
    pub logits: DevicePtr,
    pub tokens: DevicePtr,
    pub num_top: DevicePtr,
    pub logprobs: DevicePtr,
    pub ranks: DevicePtr,
    pub top_ids: DevicePtr,
    pub top_logprobs: DevicePtr,
    pub vocabulary: u32,
    pub max_top: u32,
}

#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
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

#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub struct Adjust {
    pub logits: DevicePtr,
    pub out: DevicePtr,
    pub params: DevicePtr,
    pub lists: DevicePtr,
    pub counts: DevicePtr,
    pub vocabulary: u32,
    pub unused: u32,
}
