//! Element types of the device, as tests make them from f32 and read them back.

use bytemuck::Pod;
use half::{bf16, f16};

pub trait Element: Pod {
    /// In kernels' names.
    const NAME: &'static str;
    /// Greatest relative error of rounding to it.
    const ROUNDING: f32;
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;

    fn all(values: &[f32]) -> Vec<Self> {
        values.iter().map(|&v| Self::from_f32(v)).collect()
    }

    fn values(all: &[Self]) -> Vec<f32> {
        all.iter().map(|v| v.to_f32()).collect()
    }

    /// The nearest values that the type has.
    fn rounded(values: &[f32]) -> Vec<f32> {
        Self::values(&Self::all(values))
    }
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const ROUNDING: f32 = 0.0;
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const ROUNDING: f32 = 1.0 / 256.0;
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const ROUNDING: f32 = 1.0 / 2048.0;
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}
