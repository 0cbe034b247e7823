//! `tokenflow-engine generate`: every line of a JSONL file answered as the server would answer it, without a server.
//!
//! The output grows by whole lines, one for each answer in the order in which they end, and a run that was cut short goes on where it
//! stood: what the output has is not asked again.

mod input;
mod output;
mod progress;

use std::{
    collections::HashSet,
    fs::File,
    future::Future,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    api::{self, ApiState},
    config::EngineConfig,
    engine::LoadError,
    text::Engine,
};
use input::Question;
pub use output::Summary;
use output::{Output, write_atomically};
use progress::Progress;

/// What to read and where to write.
#[derive(Clone, Debug)]
pub struct BatchConfig {
    pub input: PathBuf,
    pub output: PathBuf,
    /// Requests in the engine at a time.
    pub concurrency: usize,
}

/// Why a batch did not begin or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path}: custom_id '{id}' stands on lines {first} and {second}: answers could not be told apart")]
    DuplicateId { path: String, id: String, first: usize, second: usize },
    #[error("{path}: another process writes to it")]
    InUse { path: String },
    #[error("{path}: line {line} is not an answer of this command: {reason}; give another --output")]
    ForeignOutput { path: String, line: usize, reason: String },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Answers what the output does not have yet. When `stop` resolves, running requests are dropped, and a later run asks them again.
///
/// # Errors
/// When a file cannot be read or written, or the model cannot be loaded. What is wrong with one line is in the output.
pub async fn run(config: EngineConfig, batch: &BatchConfig, stop: impl Future<Output = ()>) -> Result<Summary, BatchError> {
    let ids = input::ids(&batch.input)?;
    let (mut output, done) = Output::open(&batch.output)?;
    let name = config.model_name.clone();
    let engine = Engine::load(config)?;
    let router = api::router(Arc::new(ApiState::new(engine.clone(), vec![name.clone()], name.clone())));

    let began = Instant::now();
    let mut summary = Summary::new(&name, batch, ids.len(), ids.iter().filter(|id| done.contains(*id)).count());
    let mut progress = Progress::new(ids.len() - summary.answered_before);
    let mut questions = questions(&batch.input, done)?;
    let mut running = FuturesUnordered::new();
    tokio::pin!(stop);
    loop {
        while running.len() < batch.concurrency
            && let Some(question) = questions.next()
        {
            running.push(answer(router.clone(), question?));
        }
        let answer = tokio::select! {
            biased;
            () = &mut stop => {
                summary.interrupted = true;
                break;
            }
            next = running.next() => match next {
                Some(answer) => answer,
                None => break,
            },
        };
        output.append(&answer)?;
        summary.add(&answer);
        progress.show(&summary, began.elapsed());
    }
    // Cancels what still runs.
    drop(running);
    progress.end();
    output.sync()?;
    summary.seconds = began.elapsed().as_secs_f64();
    Ok(summary)
}

/// Writes the summary so that a reader never sees half of it.
///
/// # Errors
/// When the file cannot be written.
pub fn write_summary(summary: &Summary, path: &Path) -> Result<(), BatchError> {
    write_atomically(path, &serde_json::to_vec_pretty(summary).unwrap_or_default())
}

/// Those of the input that `done` does not name, in order.
fn questions(path: &Path, done: HashSet<String>) -> Result<impl Iterator<Item = Result<Question, BatchError>>, BatchError> {
    let shown = path.display().to_string();
    let lines = BufReader::new(open(path)?).lines().enumerate();
    Ok(lines.filter_map(move |(i, line)| match line {
        Ok(line) => Question::read(i + 1, &line).filter(|question| !done.contains(&question.id)).map(Ok),
        Err(source) => Some(Err(BatchError::Io { path: shown.clone(), source })),
    }))
}

/// One line of the output.
async fn answer(router: Router, question: Question) -> Value {
    let (route, body) = match question.ask {
        Ok(ask) => ask,
        Err(reason) => return output::refusal(&question.id, &reason),
    };
    let request = Request::post(route)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .expect("the route is one of a list");
    let Ok(response) = router.oneshot(request).await;
    let status = response.status().as_u16();
    let request_id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    match to_bytes(response.into_body(), usize::MAX).await {
        Ok(bytes) => output::answer(&question.id, status, &request_id, serde_json::from_slice(&bytes).unwrap_or(Value::Null)),
        Err(error) => output::refusal(&question.id, &error.to_string()),
    }
}

fn open(path: &Path) -> Result<File, BatchError> {
    File::open(path).map_err(|source| BatchError::Io { path: path.display().to_string(), source })
}
