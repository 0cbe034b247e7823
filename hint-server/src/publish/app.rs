//! What the routes answer from.

use std::sync::Arc;

use super::{Access, AllowedHosts, Feed};
use crate::{engine::EngineWatch, peers::Share};

/// Everything that readers can ask for; only the feed must be there.
#[derive(Clone)]
pub struct App {
    pub feed: Arc<Feed>,
    pub access: Access,
    /// Names by which this host may be asked.
    pub hosts: AllowedHosts,
    /// Other hosts.
    pub share: Option<Arc<Share>>,
    /// The engine whose budget the page shows.
    pub engine: Option<Arc<EngineWatch>>,
    /// Experiments' `summary.json`s as one JSON array, for the page to compare their modes.
    pub experiments: Arc<str>,
}

impl App {
    pub fn new(feed: Arc<Feed>) -> Self {
        Self { feed, access: Access::default(), hosts: AllowedHosts::default(), share: None, engine: None, experiments: "[]".into() }
    }
}
