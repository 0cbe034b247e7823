//! The answer in one piece, which events of a stream show too.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    items::{ItemStatus, Items, OutputItem},
    types::{Reasoning, ResponsesFields, TextConfig, TextFormat, Tool, ToolChoice, ToolMode},
};
use crate::{
    api::{
        chat::{Chat, Piece, ToolCall, WholeChoice},
        state::unix_seconds,
    },
    tokenizer::Tokenizer,
};

/// A response before it has output: what the request said, and what was made of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Template {
    pub(super) id: String,
    object: &'static str,
    created_at: u64,
    pub(super) status: Status,
    pub(super) error: Option<Value>,
    pub(super) incomplete_details: Option<Value>,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    model: String,
    pub(super) output: Vec<OutputItem>,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    reasoning: Option<Reasoning>,
    background: bool,
    store: bool,
    service_tier: &'static str,
    temperature: f64,
    text: TextConfig,
    tool_choice: ToolChoice,
    tools: Vec<Tool>,
    top_p: f64,
    truncation: &'static str,
    pub(super) usage: Option<ResponseUsage>,
    user: Option<String>,
    metadata: Map<String, Value>,
    #[serde(skip)]
    pub(super) request_id: String,
    #[serde(skip)]
    pub(super) input_tokens: usize,
    /// Those of them that were found in the prefix cache.
    #[serde(skip)]
    pub(super) cached_tokens: usize,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputTokensDetails,
    output_tokens: usize,
    output_tokens_details: OutputTokensDetails,
    total_tokens: usize,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct InputTokensDetails {
    cached_tokens: usize,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct OutputTokensDetails {
    reasoning_tokens: usize,
}

impl Template {
    pub(super) fn new(request_id: &str, fields: ResponsesFields, chat: &Chat) -> Self {
        let sampling = &chat.options.params.sampling;
        let tools = fields.tools.unwrap_or_default();
        let default_choice = if tools.is_empty() { ToolMode::None } else { ToolMode::Auto };
        Self {
            id: format!("resp_{request_id}"),
            object: "response",
            created_at: unix_seconds(),
            status: Status::InProgress,
            error: None,
            incomplete_details: None,
            instructions: fields.instructions,
            max_output_tokens: fields.max_output_tokens,
            model: chat.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: fields.parallel_tool_calls.unwrap_or(true),
            previous_response_id: None,
            reasoning: fields.reasoning,
            background: false,
            store: false,
            service_tier: "default",
            temperature: as_written(sampling.temperature),
            text: fields.text.unwrap_or(TextConfig { format: Some(TextFormat::Text {}) }),
            tool_choice: fields.tool_choice.unwrap_or(ToolChoice::Mode(default_choice)),
            tools,
            top_p: as_written(sampling.top_p),
            truncation: "disabled",
            usage: None,
            user: fields.user,
            metadata: fields.metadata.unwrap_or_default(),
            request_id: request_id.to_owned(),
            input_tokens: chat.prompt_tokens(),
            cached_tokens: 0,
        }
    }

    /// Ends it; `finish_reason` is a chat's.
    pub(super) fn finish(&mut self, finish_reason: &str, output: Vec<OutputItem>, output_tokens: usize, tokenizer: &Tokenizer) {
        (self.status, self.incomplete_details) = match finish_reason {
            "length" => (Status::Incomplete, Some(json!({"reason": "max_output_tokens"}))),
            "abort" => (Status::Incomplete, None),
            _ => (Status::Completed, None),
        };
        let reasoning_tokens = output.iter().map(|item| item.reasoning_tokens(tokenizer)).sum();
        self.usage = Some(ResponseUsage {
            input_tokens: self.input_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens: self.cached_tokens },
            output_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens },
            total_tokens: self.input_tokens + output_tokens,
        });
        self.output = output;
    }
}

/// The number that was meant, without the digits that a wider type would show.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

pub(super) fn response(mut template: Template, tokenizer: &Tokenizer, choices: Vec<WholeChoice>) -> Template {
    for WholeChoice { message, finish_reason, output } in choices {
        let mut items = Items::new(&template.request_id);
        let mut push = |piece| items.push(piece, &mut |_, _| ());
        message.reasoning.map(Piece::Reasoning).into_iter().for_each(&mut push);
        if !message.content.is_empty() || message.calls.is_empty() {
            push(Piece::Content(message.content));
        }
        for (index, ToolCall { id, name, arguments }) in message.calls.into_iter().enumerate() {
            push(Piece::CallStart { index, id, name });
            push(Piece::CallArguments { index, text: arguments });
        }
        items.close(item_status(finish_reason), &mut |_, _| ());
        template.cached_tokens = output.cached_tokens.unwrap_or(0);
        template.finish(finish_reason, items.into_list(), output.num_tokens, tokenizer);
    }
    template
}

/// Of the last item, when the output ended so.
pub(super) fn item_status(finish_reason: &str) -> ItemStatus {
    if matches!(finish_reason, "length" | "abort") { ItemStatus::Incomplete } else { ItemStatus::Completed }
}
