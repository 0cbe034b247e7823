//! Each operation of a step by itself, many times over, as the backend does it. Layers take turns, so that weights come from memory and not
//! from a cache; launches are one by one, so that an operation of a few microseconds may cost what its launch does.

use std::time::{Duration, Instant};

use half::bf16;
use tokenflow_engine::{
    SamplingParams,
    backend::{Activation, AttentionConfig, Backend, DType, KvLayout, MatrixView, Norm, RaggedBatch, RopeTable, TensorView},
    kv::BlockId,
    scheduler::{SampleRequest, ScheduledSequence, SequenceId, StepPlan},
};

use crate::{
    kernels::Random,
    step::{Kind, Load, Shape},
};

const BLOCK_SIZE: usize = 16;
/// Layers whose weights are there.
const MAX_LAYERS: usize = 4;
/// Long enough that waiting at its end does not count.
const MIN_TIME: Duration = Duration::from_millis(20);
const MAX_TIMES: usize = 4096;

/// Weights of one layer.
struct Layer<B: Backend> {
    qkv: B::Matrix,
    output: B::Matrix,
    gate_up: B::Matrix,
    down: B::Matrix,
}

/// Seconds of one of each operation.
///
/// # Errors
/// When memory is short or the device fails.
pub(super) fn measure<B: Backend>(backend: &B, shape: &Shape, load: &Load) -> anyhow::Result<Vec<(Kind, f64)>> {
    let num_layers = shape.layers.min(MAX_LAYERS);
    // The same random numbers over and over: what is multiplied does not matter, that it is not zero does.
    let some: Vec<u8> = Random(1).values(1 << 20).iter().flat_map(|v| bf16::from_f32(v * 0.02).to_le_bytes()).collect();
    let widest = shape.vocabulary.max(2 * shape.intermediate).max(shape.qkv_features()).max(shape.attention_features()) * shape.hidden;
    let bytes = some.repeat((2 * widest).div_ceil(some.len()));
    let matrix = |rows: usize, cols: usize| {
        backend.matrix(&[MatrixView::Plain(TensorView { dtype: DType::BF16, shape: [rows, cols], bytes: &bytes[..2 * rows * cols] })])
    };
    let mut layers: Vec<Layer<B>> = Vec::new();
    for _ in 0..num_layers {
        layers.push(Layer {
            qkv: matrix(shape.qkv_features(), shape.hidden)?,
            output: matrix(shape.hidden, shape.attention_features())?,
            gate_up: matrix(2 * shape.intermediate, shape.hidden)?,
            down: matrix(shape.hidden, shape.intermediate)?,
        });
    }
    let (table, head) = (matrix(shape.vocabulary, shape.hidden)?, matrix(shape.vocabulary, shape.hidden)?);
    let norm = Norm::Rms { weight: backend.vector_f32(&vec![1.0; shape.hidden]), eps: 1e-5 };
    let inv_freq: Vec<f32> = (0..shape.head_dim / 2).map(|i| 500_000f32.powf(-2.0 * i as f32 / shape.head_dim as f32)).collect();
    let rope = RopeTable { inv_freq: backend.vector_f32(&inv_freq), rotary_dim: shape.head_dim, scale: 1.0 };
    let attention = AttentionConfig {
        num_heads: shape.heads,
        num_kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        scale: (shape.head_dim as f32).powf(-0.5),
        sliding_window: None,
        soft_cap: None,
    };
    let blocks_each = load.context.div_ceil(BLOCK_SIZE);
    let layout = KvLayout {
        num_layers,
        num_blocks: load.sequences * blocks_each,
        block_size: BLOCK_SIZE,
        num_kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
    };
    let mut kv = backend.kv_cache(layout)?;
    let plan = plan(shape, load);
    let batch = backend.batch(RaggedBatch::new(&plan, BLOCK_SIZE));
    let requests: Vec<&SampleRequest> = plan.sequences.iter().filter_map(|sequence| sequence.sample.as_ref()).collect();

    let mut buffers: [B::Buffer; 10] = std::array::from_fn(|_| backend.buffer());
    let [residual, delta, normed, qkv, attended, wide, narrow, rows, last, logits] = &mut buffers;
    // A few bytes to read back: the wait for all before.
    let mut little = backend.buffer();
    let one = backend.batch(RaggedBatch { tokens: vec![0], ..RaggedBatch::default() });
    let small = backend.matrix(&[MatrixView::Plain(TensorView { dtype: DType::BF16, shape: [1, 32], bytes: &bytes[..64] })])?;
    backend.embed(&one, &small, 1.0, &mut little);
    let wait = || backend.read_rows(&little, false).map(drop);
    let mut clock = Clock { wait: &wait, seconds: Vec::new() };

    clock.time(Kind::Embed, |_| backend.embed(&batch, &table, 1.0, residual))?;
    backend.norm(residual, &norm, normed);
    clock.time(Kind::Qkv, |i| backend.linear(normed, &layers[i % num_layers].qkv, None, qkv))?;
    clock.time(Kind::RopeKv, |i| backend.rope_and_write_kv(&batch, qkv, &attention, None, &rope, &mut kv, i % num_layers))?;
    clock.time(Kind::Attention, |i| backend.paged_attention(&batch, qkv, &attention, &kv, i % num_layers, attended))?;
    clock.time(Kind::Output, |i| backend.linear(attended, &layers[i % num_layers].output, None, delta))?;
    clock.time(Kind::Norm, |_| backend.add_norm(residual, delta, &norm, normed))?;
    clock.time(Kind::GateUp, |i| backend.linear(normed, &layers[i % num_layers].gate_up, None, wide))?;
    clock.time(Kind::Activate, |_| backend.gated_activate(Activation::Silu, wide, narrow))?;
    clock.time(Kind::Down, |i| backend.linear(narrow, &layers[i % num_layers].down, None, delta))?;
    clock.time(Kind::Gather, |_| backend.gather_logits_rows(&batch, residual, Some(delta), rows))?;
    clock.time(Kind::FinalNorm, |_| backend.norm(rows, &norm, last))?;
    clock.time(Kind::Logits, |_| backend.logits(last, &head, logits))?;
    let mut failure = Ok(());
    clock.time(Kind::Sample, |_| {
        let chosen = backend.sample(logits, &requests).and_then(|sampled| backend.read_sampled(sampled));
        if let Err(error) = chosen {
            failure = Err(error);
        }
    })?;
    failure?;
    Ok(clock.seconds)
}

/// Times operations of one backend.
struct Clock<'a, E> {
    wait: &'a dyn Fn() -> Result<(), E>,
    seconds: Vec<(Kind, f64)>,
}

impl<E> Clock<'_, E> {
    /// Seconds of one of what `issue` issues; it is told how many came before.
    fn time(&mut self, kind: Kind, mut issue: impl FnMut(usize)) -> Result<(), E> {
        issue(0);
        (self.wait)()?;
        let mut times = 1;
        loop {
            let began = Instant::now();
            (0..times).for_each(&mut issue);
            (self.wait)()?;
            let took = began.elapsed();
            if took >= MIN_TIME || times >= MAX_TIMES {
                self.seconds.push((kind, took.as_secs_f64() / times as f64));
                return Ok(());
            }
            times *= 4;
        }
    }
}

/// Sequences whose earlier positions are in the cache, whatever they hold.
fn plan(shape: &Shape, load: &Load) -> StepPlan {
    let blocks_each = load.context.div_ceil(BLOCK_SIZE) as u32;
    let sequence = |i: usize| ScheduledSequence {
        id: SequenceId(i as u64),
        tokens: (0..load.tokens).map(|t| ((i * 131 + t * 7) % shape.vocabulary) as u32).collect(),
        start: load.context - load.tokens,
        block_table: (0..blocks_each).map(|b| BlockId(i as u32 * blocks_each + b)).collect(),
        sample: Some(SampleRequest::after(&SamplingParams::greedy(), &[], 0)),
        num_draft_tokens: 0,
        pending: None,
    };
    StepPlan { sequences: (0..load.sequences).map(sequence).collect(), ..StepPlan::default() }
}

#[cfg(test)]
mod tests {
    use tokenflow_engine::backend::cpu::KvType;

    use super::*;
    use crate::{kernels::reference, step::operations};

    /// The clock runs on any backend: here the CPU's.
    #[test]
    fn every_operation_of_a_step_is_timed() {
        for load in [Load::decode(2, 20), Load::prefill(24)] {
            let seconds = measure(&reference(KvType::BF16), &Shape::TINY, &load).unwrap();
            for operation in operations(&Shape::TINY, &load) {
                assert!(seconds.iter().any(|(kind, s)| *kind == operation.kind && *s > 0.0), "{:?}", operation.kind);
            }
        }
    }
}
