//! An executor that answers every prompt with the same tokens, when it is allowed to.

use std::sync::{Arc, Condvar, Mutex};

use tokenflow_engine::{
    executor::{Executor, ExecutorError},
    sampling::SampledToken,
    scheduler::{StepOutput, StepPlan},
};

pub const EOS: u32 = 1;

/// What the executor may do: one step per permit.
pub struct Gate {
    permits: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    pub fn open() -> Arc<Self> {
        Self::with(usize::MAX)
    }

    pub fn closed() -> Arc<Self> {
        Self::with(0)
    }

    fn with(permits: usize) -> Arc<Self> {
        Arc::new(Self { permits: Mutex::new(permits), changed: Condvar::new() })
    }

    pub fn allow(&self, steps: usize) {
        let mut permits = self.permits.lock().unwrap();
        *permits = permits.saturating_add(steps);
        self.changed.notify_all();
    }

    /// From now on as if made closed, or open.
    pub fn set_open(&self, open: bool) {
        *self.permits.lock().unwrap() = if open { usize::MAX } else { 0 };
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut permits = self.changed.wait_while(self.permits.lock().unwrap(), |permits| *permits == 0).unwrap();
        *permits -= 1;
    }
}

pub struct Script {
    /// Then comes the end-of-sequence token, for ever.
    pub reply: Vec<u32>,
    /// The step, counted from 0, that fails.
    pub failing_step: Option<u64>,
    pub gate: Arc<Gate>,
    /// The seed of every sequence, as its first token is asked for.
    pub seeds: Arc<Mutex<Vec<u64>>>,
    /// Submitted, and not collected.
    pub submitted: Option<StepPlan>,
}

impl Executor for Script {
    fn submit(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        self.submitted = Some(plan.clone());
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, ExecutorError> {
        let plan = self.submitted.take().unwrap();
        self.gate.pass();
        if self.failing_step == Some(plan.step) {
            return Err(ExecutorError::Device { device: "scripted", reason: "it was told to".to_owned() });
        }
        let sampled = plan.sequences.iter().filter_map(|sequence| {
            let request = sequence.sample.as_ref()?;
            if request.output_position == 0 {
                self.seeds.lock().unwrap().push(request.params.seed);
            }
            let token = self.reply.get(request.output_position).copied().unwrap_or(EOS);
            // A grammar's mask is kept by every executor.
            let token = request.mask.as_ref().filter(|mask| !mask.allows(token)).and_then(|mask| mask.first()).unwrap_or(token);
            Some((sequence.id, sampled(token, request.params.logprobs)))
        });
        Ok(StepOutput { step: plan.step, sampled: sampled.collect(), ..StepOutput::default() })
    }
}

/// The chosen token is the likeliest; the next ids up follow, each half as likely.
fn sampled(token: u32, logprobs: Option<u32>) -> SampledToken {
    let nth = |i: u32| ((token + i) % 1024, -0.5 * (i + 1) as f32);
    SampledToken { token, logprob: logprobs.map(|_| -0.5), top: (0..logprobs.unwrap_or(0)).map(nth).collect() }
}
