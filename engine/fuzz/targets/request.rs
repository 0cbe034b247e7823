//! Bodies of requests: the first byte chooses the route. Whatever comes, the answer is no server error, unless the queue is full (503).
#![no_main]

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use libfuzzer_sys::fuzz_target;
use tokenflow_engine::{
    Engine, EngineConfig,
    api::{self, ApiState},
};
use tokio::runtime::Runtime;
use tower::ServiceExt;

const ROUTES: [&str; 6] = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/v1/responses", "/v1/messages"];

struct Server {
    runtime: Runtime,
    router: Router,
}

/// The demo model with a context so short that an accepted request costs little.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let config = EngineConfig {
        threads: 1,
        max_model_len: Some(24),
        num_blocks: Some(64),
        max_num_seqs: 8,
        max_num_batched_tokens: 64,
        ..EngineConfig::demo()
    };
    let engine = runtime.block_on(async { Engine::load(config) }).expect("the demo model loads");
    let router = api::router(Arc::new(ApiState::new(engine, vec!["m".into()], "m".into())));
    Server { runtime, router }
});

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let Some((&route, body)) = bytes.split_first() else { return };
    let server = &*SERVER;
    server.runtime.block_on(async {
        let request = Request::post(ROUTES[usize::from(route) % ROUTES.len()]).header("content-type", "application/json");
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        let Ok(response) = server.router.clone().oneshot(request).await;
        let status = response.status();
        assert!(!status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
        // The stream ends: to its end it is read.
        let _ = to_bytes(response.into_body(), 1 << 20).await;
    });
});
