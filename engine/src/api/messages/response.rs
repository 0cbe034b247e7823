//! The answer in one piece.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{
    chat::{Chat, ToolCall, WholeChoice},
    generation::StopReason,
};

/// What answers repeat.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) input_tokens: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Message {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    stop_reason: Option<&'static str>,
    /// Which of `stop_sequences` ended it.
    stop_sequence: Option<String>,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block {
    Thinking {
        thinking: String,
        /// Always empty: nothing is signed here.
        signature: &'static str,
    },
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        input: Map<String, Value>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) struct Usage {
    pub(super) input_tokens: usize,
    pub(super) output_tokens: usize,
}

impl Head {
    pub(super) fn new(request_id: &str, chat: &Chat) -> Self {
        Self { id: format!("msg_{request_id}"), model: chat.model.clone(), input_tokens: chat.prompt_tokens() }
    }

    /// A message without content, as streams begin.
    pub(super) fn empty(&self) -> Message {
        Message {
            id: self.id.clone(),
            kind: "message",
            role: "assistant",
            model: self.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Usage { input_tokens: self.input_tokens, output_tokens: 0 },
        }
    }

    pub(super) fn message(&self, choices: Vec<WholeChoice>) -> Message {
        let mut message = self.empty();
        for WholeChoice { message: parts, finish_reason, output } in choices {
            let reasoning = parts.reasoning.map(|thinking| Block::Thinking { thinking, signature: "" });
            let text = Some(parts.content).filter(|text| !text.is_empty()).map(|text| Block::Text { text });
            let calls = parts.calls.into_iter().map(|ToolCall { id, name, arguments }| {
                // Arguments that the length cut short are no JSON.
                Block::ToolUse { id, name, input: serde_json::from_str(&arguments).unwrap_or_default() }
            });
            message.content = reasoning.into_iter().chain(text).chain(calls).collect();
            (message.stop_reason, message.stop_sequence) = stop(finish_reason, output.stop_reason);
            message.usage.output_tokens = output.num_tokens;
        }
        message
    }
}

/// Anthropic's words for the end of a message.
pub(super) fn stop(finish_reason: &str, stop_reason: Option<StopReason>) -> (Option<&'static str>, Option<String>) {
    match (finish_reason, stop_reason) {
        ("tool_calls", _) => (Some("tool_use"), None),
        ("length", _) => (Some("max_tokens"), None),
        (_, Some(StopReason::Text(text))) => (Some("stop_sequence"), Some(text)),
        _ => (Some("end_turn"), None),
    }
}
