//! The hint server's events, with the server coming and going: each loss is told with its reason, and followed by attempts
//! to come back.

use serde::Serialize;
use tokenflow_hint_api::sse::SseItem;
use tokenflow_hint_api::{Backoff, EventStream, HintEvent, HintUrl};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::reason;

#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Event(Event),
    /// Nothing new, from a server that is there.
    Alive,
    Lost {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    #[serde(rename = "event")]
    pub kind: Kind,
    #[serde(flatten)]
    pub event: HintEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Snapshot,
    Change,
}

pub struct Feed {
    receiver: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Feed {
    pub fn spawn(url: HintUrl) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        Self { receiver, task: tokio::spawn(follow(url, sender)) }
    }

    /// Safe to cancel.
    pub async fn next(&mut self) -> News {
        // The task sends as long as somebody listens.
        self.receiver.recv().await.unwrap_or_else(|| News::Lost { why: "the reader stopped".to_owned() })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(url: HintUrl, sender: mpsc::Sender<News>) {
    let mut backoff = Backoff::default();
    loop {
        let Err(why) = follow_once(&url, &sender, &mut backoff).await;
        if sender.send(News::Lost { why }).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn follow_once(url: &HintUrl, sender: &mpsc::Sender<News>, backoff: &mut Backoff) -> Result<std::convert::Infallible, String> {
    let mut stream = EventStream::open(url).await.map_err(|error| reason(&error))?;
    loop {
        for item in stream.next().await.map_err(|error| reason(&error))? {
            let news = news(item)?;
            backoff.reset();
            sender.send(news).await.map_err(|_| "nobody listens".to_owned())?;
        }
    }
}

fn news(item: SseItem) -> Result<News, String> {
    let SseItem::Event { event, data } = item else { return Ok(News::Alive) };
    let kind = match event.as_str() {
        "snapshot" => Kind::Snapshot,
        "change" => Kind::Change,
        // A newer server may have more to say.
        _ => return Ok(News::Alive),
    };
    let event = serde_json::from_str(&data).map_err(|error| format!("its {event} event is not understood: {error}"))?;
    Ok(News::Event(Event { kind, event }))
}
