//! The reader's copy of what the server knows, built from one snapshot and the changes after it.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{Connection, Hint, HintEvent};

/// The hint server's word at one moment.
#[derive(Clone, Debug)]
pub struct HintState {
    /// The aggregate.
    pub hint: Hint,
    /// Every tracked connection by its socket cookie.
    pub connections: Arc<HashMap<u64, Connection>>,
    /// When the server last said anything, a keep-alive included: until then nothing here had changed.
    pub received_at: Instant,
}

impl HintState {
    /// The state that a snapshot describes.
    pub fn from_snapshot(event: HintEvent, received_at: Instant) -> Self {
        let connections = event.changed.into_iter().map(|connection| (connection.cookie, connection)).collect();
        Self { hint: event.hint, connections: Arc::new(connections), received_at }
    }

    /// This state after a change.
    pub fn changed(&self, event: HintEvent, received_at: Instant) -> Self {
        let mut connections = (*self.connections).clone();
        for cookie in &event.removed {
            connections.remove(cookie);
        }
        connections.extend(event.changed.into_iter().map(|connection| (connection.cookie, connection)));
        Self { hint: event.hint, connections: Arc::new(connections), received_at }
    }

    /// This state, known to be still true.
    pub fn confirmed(&self, received_at: Instant) -> Self {
        Self { received_at, ..self.clone() }
    }
}
