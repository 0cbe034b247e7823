//! Health for servers that do not send it: the hint server's aggregate, followed in the background once it is needed.
//! Nothing waits for it; while it cannot be had, or is stale, there is none.

use tokenflow_hint_api::{HintUrl, Subscriber};

pub struct HintHealth {
    url: HintUrl,
    subscriber: Option<Subscriber>,
}

impl HintHealth {
    pub fn new(url: HintUrl) -> Self {
        Self { url, subscriber: None }
    }

    /// Starts to follow the hint server, if that has not been started.
    pub fn start(&mut self) {
        self.subscriber.get_or_insert_with(|| Subscriber::spawn(self.url.clone()));
    }

    /// 0..=1.
    pub fn latest(&self) -> Option<f64> {
        let state = self.subscriber.as_ref()?.snapshot()?;
        Some(state.hint.health_factor).filter(|health| health.is_finite())
    }
}
