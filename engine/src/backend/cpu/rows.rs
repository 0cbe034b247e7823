//! What copies or adds rows: embedding, gathering, sums.

use super::{Cpu, buffer::CpuBuffer, config::ComputeType, matrix::CpuMatrix, norm::PARALLEL, product::bf16_bits, scratch::Shared};
use crate::backend::RaggedBatch;

pub(super) fn embed(cpu: &Cpu, batch: &RaggedBatch, table: &CpuMatrix, scale: f32, out: &mut CpuBuffer) {
    let scale = match cpu.compute {
        ComputeType::F32 => scale,
        ComputeType::BF16 => f32::from_bits(u32::from(bf16_bits(scale)) << 16),
    };
    let cols = table.in_features();
    out.reshape(batch.num_tokens(), cols);
    let to = Shared::new(out.as_mut_slice());
    cpu.pool.split(batch.num_tokens(), batch.num_tokens() > 1, |_, rows| {
        for row in rows {
            // SAFETY: this row is no other thread's.
            let to = unsafe { to.part(row * cols, cols) };
            table.copy_row(cpu, batch.tokens[row] as usize, to);
            if scale != 1.0 {
                to.iter_mut().for_each(|value| *value *= scale);
            }
        }
    });
}

pub(super) fn gather_logits_rows(batch: &RaggedBatch, x: &CpuBuffer, delta: Option<&CpuBuffer>, out: &mut CpuBuffer) {
    out.reshape(batch.logits_rows.len(), x.cols());
    for (out, &row) in out.as_mut_slice().chunks_exact_mut(x.cols()).zip(&batch.logits_rows) {
        out.copy_from_slice(x.row(row as usize));
        if let Some(delta) = delta {
            out.iter_mut().zip(delta.row(row as usize)).for_each(|(out, delta)| *out += delta);
        }
    }
}

pub(super) fn add(cpu: &Cpu, x: &mut CpuBuffer, delta: &CpuBuffer) {
    assert_eq!((x.rows(), x.cols()), (delta.rows(), delta.cols()), "shapes of x and delta");
    let (rows, cols, parallel) = (x.rows(), x.cols(), x.as_slice().len() >= PARALLEL);
    let x = Shared::new(x.as_mut_slice());
    cpu.pool.split(rows, parallel, |_, rows| {
        for row in rows {
            // SAFETY: this row is no other thread's.
            let x = unsafe { x.part(row * cols, cols) };
            x.iter_mut().zip(delta.row(row)).for_each(|(x, delta)| *x += delta);
        }
    });
}

pub(super) fn read_rows(x: &CpuBuffer, normalize: bool) -> Vec<Vec<f32>> {
    let row = |row| {
        let mut row = x.row(row).to_vec();
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if normalize && length > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        row
    };
    (0..x.rows()).map(row).collect()
}
