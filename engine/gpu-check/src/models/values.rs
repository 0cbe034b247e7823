//! What each weight is: the same to the last bit as `engine/fixtures/architectures/make.py` makes it.

/// Weights of one model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    /// What a norm's weights are around: 0 where a model adds 1 to them.
    pub norm_center: f32,
}

/// One tensor's: splitmix64 over FNV-1a of the name and the index, as a number in -1..1, scaled by kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tensor {
    start: u64,
    center: f32,
    scale: f32,
}

impl Values {
    pub(super) fn tensor(self, name: &str, shape: &[usize]) -> Tensor {
        let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let (center, scale) = match shape {
            [_] if name.ends_with("norm.weight") => (self.norm_center, 0.25),
            [_] => (0.0, 0.25),
            _ if name.contains("embed_tokens") && self.norm_center == 0.0 => (0.0, 0.125),
            _ if name.contains("embed") || name.starts_with("lm_head") => (0.0, 0.5),
            _ => (0.0, (2.5 / (shape[shape.len() - 1] as f64).sqrt()) as f32),
        };
        Tensor { start, center, scale }
    }
}

impl Tensor {
    pub(super) fn at(self, index: u64) -> f32 {
        let x = self.start.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        if self.center == 0.0 { uniform * self.scale } else { self.center + uniform * self.scale }
    }
}
