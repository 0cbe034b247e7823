//! What the log says of requests.

use std::{cell::RefCell, io::Write, sync::Once};

use serde_json::{Value, json};

use crate::{
    script::Gate,
    server::{post, says, start},
};

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of this thread, on which a test's handlers run.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// One subscriber for all threads: with one for each, a thread that has none may switch a line off for everybody.
    fn capture() -> Self {
        static SUBSCRIBED: Once = Once::new();
        SUBSCRIBED.call_once(|| {
            tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(|| Self).init();
        });
        tracing::callsite::rebuild_interest_cache();
        LINES.take();
        Self
    }

    /// The fields of every line about a request.
    fn requests(&self) -> Vec<Value> {
        let text = String::from_utf8(LINES.with_borrow(Clone::clone)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].take());
        lines.filter(|fields| fields["message"] == "request").collect()
    }
}

#[tokio::test]
async fn an_answered_request_has_one_line_that_says_what_it_cost() {
    let log = Log::capture();
    let server = says("one two three");
    let answer = server.post("/v1/completions", json!({"prompt": "p", "n": 1})).await;
    let [line] = &log.requests()[..] else { panic!("{:?}", log.requests()) };
    assert_eq!(line["route"], "/v1/completions");
    assert_eq!(line["model"], "q");
    assert_eq!(line["status"], 200);
    assert_eq!(line["finish"], answer["choices"][0]["finish_reason"]);
    assert_eq!(line["prompt_tokens"], answer["usage"]["prompt_tokens"]);
    assert_eq!(line["output_tokens"], answer["usage"]["completion_tokens"]);
    assert_eq!(answer["id"], format!("cmpl-{}", line["id"].as_str().unwrap()));
    let millis = ["queue_ms", "ttft_ms", "e2e_ms"].map(|field| line[field].as_f64().unwrap());
    assert!(millis.is_sorted(), "{millis:?}");
    assert_eq!((line.get("health"), line.get("paced"), line.get("error")), (None, None, None), "a healthy link is not worth a word");
}

#[tokio::test]
async fn a_stream_whose_client_goes_is_logged_as_aborted() {
    for n in [1, 2] {
        let log = Log::capture();
        let server = start("one two three", Gate::closed(), None);
        let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true, "n": n});
        let response = server.send(post("/v1/chat/completions", body.to_string())).await;
        assert_eq!(log.requests(), Vec::<Value>::new(), "it has not ended");
        drop(response);
        let [line] = &log.requests()[..] else { panic!("{:?}", log.requests()) };
        assert_eq!((&line["finish"], &line["status"], &line["output_tokens"]), (&json!("abort"), &json!(200), &json!(0)));
    }
}

#[tokio::test]
async fn refusals_have_a_line_and_probes_have_none() {
    let log = Log::capture();
    let server = says("x");
    server.get("/health").await;
    server.get("/metrics").await;
    assert_eq!(log.requests(), Vec::<Value>::new());
    server.post_raw("/v1/completions", "{").await;
    let [line] = &log.requests()[..] else { panic!("{:?}", log.requests()) };
    assert_eq!((&line["status"], line.get("finish")), (&json!(400), None));
}

#[tokio::test]
async fn a_request_that_the_engine_failed_says_why() {
    let log = Log::capture();
    let server = start("one two three", Gate::open(), Some(1));
    server.post_raw("/v1/completions", json!({"prompt": "p"}).to_string()).await;
    let [line] = &log.requests()[..] else { panic!("{:?}", log.requests()) };
    assert_eq!((&line["finish"], &line["status"]), (&json!("error"), &json!(500)));
    assert!(line["error"].as_str().unwrap().contains("failed"), "{line}");
}
