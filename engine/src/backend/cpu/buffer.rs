//! Activations and small vectors on the CPU: plain f32 in memory.
//! A buffer grows to the largest size it has held and keeps the memory.

/// Activations `[rows, cols]`, row-major.
#[derive(Clone, Debug, Default)]
pub struct CpuBuffer {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl CpuBuffer {
    /// # Panics
    /// When `data` is not `rows * cols` long.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * cols, "{rows} x {cols} values");
        Self { data, rows, cols }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.data[..self.rows * self.cols]
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.as_slice()[row * self.cols..][..self.cols]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data[..self.rows * self.cols]
    }

    /// Takes a new shape; the values are unspecified.
    pub(super) fn reshape(&mut self, rows: usize, cols: usize) {
        if self.data.len() < rows * cols {
            self.data.resize(rows * cols, 0.0);
        }
        (self.rows, self.cols) = (rows, cols);
    }
}

/// A norm's scale, a bias or the engine's own constants.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuVector(pub(super) Vec<f32>);

impl CpuVector {
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}
