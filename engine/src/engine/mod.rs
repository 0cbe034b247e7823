//! The handle that accepts requests and the loop that drives the steps.
//!
//! [`Engine`] is cheap to clone and never blocks its caller; one thread of its own plans, executes and hands tokens out.

mod request;

pub use request::{EngineError, EngineInfo, GenerateRequest, Generation, LinkState, StepToken};

use std::sync::{Arc, mpsc};

use crate::scheduler::SequenceId;

enum Command {
    Cancel(SequenceId),
}

#[derive(Clone)]
struct CommandSender(mpsc::Sender<Command>);

impl CommandSender {
    fn cancel(&self, id: SequenceId) {
        // A loop that has ended has nothing left to cancel.
        let _ = self.0.send(Command::Cancel(id));
    }
}

/// Accepts requests. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    info: Arc<EngineInfo>,
}

impl Engine {
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Queues a request.
    ///
    /// # Errors
    /// When the engine drains or has stopped, or the request can never fit.
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, EngineError> {
        let _ = request;
        Err(EngineError::Draining)
    }
}
