//! What one step of a Llama-shaped model does on the device, as numbers: each operation's launches, bytes and arithmetic, and the least
//! time that a card could take for it. The page `STEP.md` beside the backend shows them; the measurements stand beside them.

mod operation;
mod shape;
mod table;

pub use operation::{Kind, Operation, operations};
pub use shape::{Load, Shape};
pub use table::{floors, page_tables};

/// What a card can do at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of its memory.
    pub bytes_per_second: f64,
    /// Multiplications and additions of 16-bit numbers on tensor cores.
    pub flops_per_second: f64,
}

impl Rates {
    /// On paper.
    pub const H200: Self = Self { bytes_per_second: 4.8e12, flops_per_second: 989e12 };

    /// The least seconds for so much.
    pub fn seconds(&self, bytes: u64, flops: u64) -> f64 {
        (bytes as f64 / self.bytes_per_second).max(flops as f64 / self.flops_per_second)
    }
}
