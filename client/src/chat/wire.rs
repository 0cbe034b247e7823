//! The OpenAI chat wire format, as much of it as this client writes and reads. Fields that it does not know are ignored,
//! fields that a server leaves out have their neutral value.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: &'static str,
    pub content: String,
}

impl Message {
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system", content: content.into() }
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user", content: content.into() }
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant", content: content.into() }
    }
}

/// Body of `POST /v1/chat/completions`.
#[derive(Debug, Serialize)]
pub struct ChatRequest<'a> {
    pub model: &'a str,
    pub messages: &'a [Message],
    pub stream: bool,
    pub stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct StreamOptions {
    pub include_usage: bool,
    /// vLLM's: usage in every chunk, since a chunk may hold several tokens.
    pub continuous_usage_stats: bool,
    /// TokenFlow's; other servers ignore it.
    pub include_health: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { include_usage: true, continuous_usage_stats: true, include_health: true }
    }
}

/// One `data:` of the streamed answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WireChunk {
    pub choices: Vec<Choice>,
    pub usage: Option<Usage>,
    pub tokenflow: Option<Link>,
    pub error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Choice {
    pub delta: Delta,
    pub finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Delta {
    pub content: Option<String>,
    pub reasoning: Option<String>,
    /// The same by its older name.
    pub reasoning_content: Option<String>,
}

/// What the request has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
}

/// What TokenFlow says of the connection in every chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Link {
    /// 0..=1.
    pub health: Option<f64>,
    /// Tokens/s, as the server sees them leave.
    pub rate: Option<f64>,
    /// Whether the scheduler holds this stream back to what its link carries.
    pub paced: Option<bool>,
}

/// `GET /v1/models`.
#[derive(Debug, Deserialize)]
pub struct ModelList {
    pub data: Vec<Model>,
}

#[derive(Debug, Deserialize)]
pub struct Model {
    pub id: String,
}

/// The sentence in an error body: OpenAI's shape, or the ones that proxies and other servers use, or the text itself.
pub fn error_message(body: &str) -> String {
    let from_json = serde_json::from_str::<serde_json::Value>(body).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        sentence(error)
    });
    from_json.unwrap_or_else(|| {
        let line = body.trim().lines().next().unwrap_or_default();
        if line.is_empty() { "(no reason given)".to_owned() } else { line.chars().take(300).collect() }
    })
}

/// The sentence in the `error` of an error body or of a chunk.
pub fn sentence(error: &serde_json::Value) -> Option<String> {
    let text = error.as_str().or_else(|| ["message", "detail"].iter().find_map(|name| error.get(name)?.as_str()))?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_openai_expects() {
        let messages = [Message::user("hi")];
        let request = ChatRequest {
            model: "m",
            messages: &messages,
            stream: true,
            stream_options: StreamOptions::default(),
            max_tokens: None,
            temperature: Some(0.0),
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true,"include_health":true},"temperature":0.0}"#
        );
    }

    #[test]
    fn the_sentence_is_found_in_every_shape_of_error() {
        for (body, expected) in [
            (r#"{"error":{"message":"The model `x` does not exist.","code":404}}"#, "The model `x` does not exist."),
            (r#"{"error":"overloaded"}"#, "overloaded"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            ("Bad Gateway\nmore", "Bad Gateway"),
            ("", "(no reason given)"),
        ] {
            assert_eq!(error_message(body), expected);
        }
    }
}
