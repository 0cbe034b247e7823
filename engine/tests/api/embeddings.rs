//! `/v1/embeddings` over a real engine whose executor makes vectors that tell which tokens they are of.

use std::{collections::HashMap, path::Path, sync::Arc};

use axum::{Router, http::StatusCode};
use insta::assert_snapshot;
use serde_json::{Value, json};
use tokenflow_engine::{
    api::{self, ApiState},
    config::EngineInfo,
    engine::{EngineCore, Served},
    executor::{Executor, ExecutorError},
    health::Links,
    metrics::EngineMetrics,
    model::GenerationDefaults,
    sampling::SampledToken,
    scheduler::{Scheduler, SchedulerConfig, SequenceId, StepOutput, StepPlan},
    text::Engine,
    tokenizer::Tokenizer,
};
use tokenflow_hint_api::{HintUrl, Subscriber};
use tower::ServiceExt;

use crate::server::{post, read, says, wait_for_metric};

const MAX_MODEL_LEN: usize = 40;

/// Makes `[number of tokens, first token, last token]` of every prompt.
#[derive(Default)]
struct Pooler {
    first_tokens: HashMap<SequenceId, u32>,
    submitted: Option<StepPlan>,
}

impl Executor for Pooler {
    fn submit(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        self.submitted = Some(plan.clone());
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, ExecutorError> {
        let plan = self.submitted.take().unwrap();
        let mut output = StepOutput { step: plan.step, ..StepOutput::default() };
        for sequence in &plan.sequences {
            let first = *self.first_tokens.entry(sequence.id).or_insert(sequence.tokens[0]);
            if sequence.sample.is_some() {
                let (length, last) = (sequence.start + sequence.tokens.len(), sequence.tokens[sequence.tokens.len() - 1]);
                output.sampled.push((sequence.id, SampledToken { token: 0, logprob: None, top: Vec::new() }));
                output.pooled.push((sequence.id, vec![length as f32, first as f32, last as f32]));
            }
        }
        Ok(output)
    }
}

struct Server {
    router: Router,
    engine: Engine,
}

fn embeds() -> Server {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3");
    let tokenizer = Arc::new(Tokenizer::from_dir(&folder).unwrap());
    let info = EngineInfo {
        max_model_len: MAX_MODEL_LEN,
        vocab_size: 1024,
        block_size: 16,
        num_blocks: 64,
        max_num_batched_tokens: 16,
        max_num_seqs: 4,
        eos_token_ids: vec![1],
        max_logprobs: 20,
        embedding_size: Some(3),
        ..EngineInfo::default()
    };
    let scheduler = Scheduler::new(SchedulerConfig {
        max_num_batched_tokens: info.max_num_batched_tokens,
        max_num_seqs: info.max_num_seqs,
        num_blocks: info.num_blocks,
        max_model_len: MAX_MODEL_LEN + 1,
        ..SchedulerConfig::default()
    });
    let metrics = Arc::new(EngineMetrics::new("q", &info));
    let links = Links::new(Subscriber::spawn(HintUrl::None));
    let core = EngineCore::start(info, scheduler, Box::new(Pooler::default()), links, metrics.clone()).unwrap();
    let engine = Engine::from(Served { core, metrics, tokenizer, generation: GenerationDefaults::default(), seed: 0 });
    let state = ApiState::new(engine.clone(), vec!["q".to_owned()], "models/q".to_owned());
    Server { router: api::router(Arc::new(state)), engine }
}

impl Server {
    async fn post_raw(&self, path: &str, body: Value) -> (StatusCode, String) {
        read(self.router.clone().oneshot(post(path, body.to_string())).await.unwrap()).await
    }

    async fn embed(&self, body: Value) -> Value {
        let (status, text) = self.post_raw("/v1/embeddings", body).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn vectors(&self, body: Value) -> Vec<Value> {
        let answer = self.embed(body).await;
        answer["data"].as_array().unwrap().iter().map(|data| data["embedding"].clone()).collect()
    }
}

#[tokio::test]
async fn every_form_of_a_prompt_is_embedded() {
    let server = embeds();
    let ids = server.engine.tokenizer().encode("def main():", true).unwrap();
    let expected = json!([ids.len() as f32, ids[0] as f32, *ids.last().unwrap() as f32]);
    assert_eq!(server.vectors(json!({"input": "def main():"})).await, vec![expected.clone()]);
    assert_eq!(server.vectors(json!({"input": ids.clone()})).await, vec![expected.clone()]);
    assert_eq!(server.vectors(json!({"input": ["def main():", "def main():"]})).await, [expected.clone(), expected.clone()]);
    assert_eq!(server.vectors(json!({"input": [ids, [7, 8]]})).await, [expected, json!([2.0, 7.0, 8.0])]);
}

#[tokio::test]
async fn the_answer_has_openais_shape() {
    let mut answer = embeds().embed(json!({"model": "q", "input": [[5, 6, 7], [8]], "encoding_format": "float"})).await;
    assert!(answer["id"].as_str().unwrap().starts_with("embd-"));
    (answer["id"], answer["created"]) = (json!("ID"), json!(0));
    assert_eq!(
        answer,
        json!({
            "id": "ID", "object": "list", "created": 0, "model": "q",
            "data": [
                {"index": 0, "object": "embedding", "embedding": [3.0, 5.0, 7.0]},
                {"index": 1, "object": "embedding", "embedding": [1.0, 8.0, 8.0]},
            ],
            "usage": {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0},
        })
    );
}

#[tokio::test]
async fn vectors_are_shortened_and_encoded() {
    let server = embeds();
    assert_eq!(server.vectors(json!({"input": [[4, 1, 1]], "dimensions": 2})).await, [json!([0.6, 0.8])]);
    // 3, 4 and 1 as little-endian f32.
    assert_eq!(server.vectors(json!({"input": [[4, 1, 1]], "encoding_format": "base64"})).await, [json!("AABAQAAAgEAAAIA/")]);
}

#[tokio::test]
async fn prompts_fill_the_context_and_many_go_through_one_queue() {
    let server = embeds();
    let prompts: Vec<Vec<usize>> = (0..50).map(|i| vec![i; 1 + i * 39 / 49]).collect();
    let vectors = server.vectors(json!({"input": prompts})).await;
    for (i, vector) in vectors.iter().enumerate() {
        assert_eq!(*vector, json!([(1 + i * 39 / 49) as f32, i as f32, i as f32]));
    }
    assert_eq!(vectors.last().unwrap()[0], json!(MAX_MODEL_LEN as f32));
    let metrics = server.engine.metrics();
    wait_for_metric(metrics, "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"q\"}", "50").await;
    wait_for_metric(metrics, "vllm:generation_tokens_total{engine=\"0\",model_name=\"q\"}", "0").await;
}

#[tokio::test]
async fn refusals_name_the_field() {
    let (server, mut table) = (embeds(), String::new());
    for body in [
        json!({}),
        json!({"input": ""}),
        json!({"input": []}),
        json!({"input": [[]]}),
        json!({"input": {"text": "a"}}),
        json!({"input": [["a"]]}),
        json!({"input": [1024]}),
        json!({"input": [-1]}),
        json!({"input": vec![5; MAX_MODEL_LEN + 1]}),
        json!({"input": "a", "model": "nope"}),
        json!({"input": "a", "dimensions": 0}),
        json!({"input": "a", "dimensions": 4}),
        json!({"input": "a", "encoding_format": "hex"}),
        json!({"input": "a", "truncate_prompt_tokens": 3}),
    ] {
        let (status, answer) = server.post_raw("/v1/embeddings", body.clone()).await;
        assert!(status.is_client_error(), "{body}: {status} {answer}");
        let shown: String = body.to_string().chars().take(60).collect();
        table += &format!("{shown}\n  {} {answer}\n", status.as_u16());
    }
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a"})),
        ("/v1/completions", json!({"prompt": "a", "stream": true})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}]})),
    ] {
        let (status, answer) = server.post_raw(path, body).await;
        table += &format!("{path}\n  {} {answer}\n", status.as_u16());
    }
    let (status, answer) = says("x").post_raw("/v1/embeddings", json!({"input": "a"}).to_string()).await;
    table += &format!("by a model that generates\n  {} {answer}\n", status.as_u16());
    assert_snapshot!(table);
}

#[tokio::test]
async fn the_library_embeds_too() {
    let engine = embeds().engine;
    assert_eq!(engine.embed(vec![5, 6]).await.unwrap(), [2.0, 5.0, 6.0]);
    assert!(engine.embed(vec![5; MAX_MODEL_LEN]).await.is_ok());
    assert!(engine.embed(vec![5; MAX_MODEL_LEN + 1]).await.is_err());
    assert_eq!(
        says("x").engine.embed("a").await.unwrap_err().to_string(),
        "This model generates text and makes no embeddings; --runner pooling would make it embed instead"
    );
}
