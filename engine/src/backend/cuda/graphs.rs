//! Passes that were recorded once and are issued as one from then on: those of batches of one token a sequence, by their form.

use std::{collections::HashMap, sync::atomic::Ordering};

use tokenflow_gpu::{GpuError, Graph};

use super::{CudaBackend, CudaBatch, batch::Form, buffer::Resized};

/// Recordings of one form that may fail before it is left alone.
const MAX_TRIES: usize = 3;

#[derive(Default)]
pub(super) struct Graphs {
    known: HashMap<Form, Known>,
    /// `Device::moves` when they were recorded.
    moves: u64,
}

enum Known {
    /// Has run; the next time it is recorded. All kernels are loaded then, and buffers have their sizes. How often recording has failed.
    Seen(usize),
    Recorded(Recorded),
}

struct Recorded {
    graph: Graph,
    /// Shapes that the pass leaves buffers with.
    shapes: Vec<Resized>,
}

impl CudaBackend {
    pub(super) fn run_pass(&self, batch: &CudaBatch, run: &mut dyn FnMut()) {
        let Some(form) = batch.form else { return run() };
        let graphs = &mut *self.graphs.lock();
        let moves = self.device.moves.load(Ordering::Relaxed);
        if graphs.moves != moves {
            if !graphs.known.is_empty() {
                // One may still run.
                let _ = self.device.finish();
            }
            graphs.known.clear();
            graphs.moves = moves;
        }
        let tries = match graphs.known.get(&form) {
            Some(Known::Recorded(recorded)) => return self.replay(recorded),
            Some(Known::Seen(tries)) if *tries < MAX_TRIES => *tries,
            Some(Known::Seen(_)) => return run(),
            None => {
                graphs.known.insert(form, Known::Seen(0));
                return run();
            }
        };
        match self.record(run) {
            Ok(recorded) => {
                self.replay(&recorded);
                graphs.known.insert(form, Known::Recorded(recorded));
            }
            Err(error) => {
                tracing::warn!(rows = form.rows, %error, "a step could not be recorded as a graph and is issued launch by launch");
                graphs.known.insert(form, Known::Seen(tries + 1));
                batch.angles.lock().clear();
                *batch.items.lock() = None;
                run();
            }
        }
    }

    fn record(&self, run: &mut dyn FnMut()) -> Result<Recorded, GpuError> {
        // What failed before is not the recording's.
        self.device.outcome()?;
        self.device.set_recording(true);
        *self.device.recorded.lock() = Some(Vec::new());
        let graph = self.device.stream.capture(|| {
            run();
            self.device.outcome()
        });
        self.device.set_recording(false);
        let shapes = self.device.recorded.lock().take().unwrap_or_default();
        Ok(Recorded { graph: graph?, shapes })
    }

    fn replay(&self, recorded: &Recorded) {
        // SAFETY: graphs are dropped once any memory has moved, so that all that this one works with is alive.
        self.device.issue(|| unsafe { self.device.stream.replay(&recorded.graph) });
        for (buffer, shape) in &recorded.shapes {
            *buffer.lock() = *shape;
        }
    }
}
