use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a request may hold. `None` stands for absent and for null.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct MessagesFields {
    pub(super) model: Option<String>,
    #[schemars(with = "Vec<InputMessage>", length(min = 1))]
    pub(super) messages: Option<Vec<InputMessage>>,
    /// Required by `/v1/messages`.
    pub(super) max_tokens: Option<i64>,
    pub(super) system: Option<Content>,
    pub(super) stop_sequences: Option<Vec<String>>,
    pub(super) stream: Option<bool>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<i64>,
    pub(super) tools: Option<Vec<Tool>>,
    pub(super) tool_choice: Option<ToolChoice>,
    pub(super) thinking: Option<Thinking>,
    pub(super) output_config: Option<OutputConfig>,
    /// Whose the request is, for caps on tenants.
    pub(super) metadata: Option<Metadata>,
    /// Further variables of the model's chat template.
    pub(super) chat_template_kwargs: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Metadata {
    pub(super) user_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct InputMessage {
    pub(super) role: Role,
    pub(super) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
    System,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string or a list of content blocks was expected")]
pub(super) enum Content {
    Text(String),
    Blocks(#[schemars(with = "Vec<InputBlock>")] Vec<Value>),
}

/// One block of a message that comes in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum InputBlock {
    Text {
        text: String,
    },
    /// A call that the assistant made earlier.
    ToolUse {
        id: String,
        name: String,
        input: Map<String, Value>,
    },
    /// What it came to.
    ToolResult {
        tool_use_id: String,
        #[schemars(with = "Option<Result>")]
        content: Option<Content>,
    },
    Thinking {
        thinking: String,
    },
    /// Reasoning that only its author can read.
    RedactedThinking {},
}

/// What a tool may give: text.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema, so that blocks do not hold themselves")]
enum Result {
    Text(String),
    Blocks(Vec<TextBlock>),
}

#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(dead_code, reason = "a schema")]
enum TextBlock {
    Text { text: String },
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) description: Option<String>,
    /// A JSON schema of an object.
    pub(super) input_schema: Option<Map<String, Value>>,
    /// `custom`, which is also meant where it is absent.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ToolChoice {
    None {},
    Auto { disable_parallel_tool_use: Option<bool> },
    Any { disable_parallel_tool_use: Option<bool> },
    Tool { name: String, disable_parallel_tool_use: Option<bool> },
}

/// Whether the model is to think before it answers. Its budget is the model's own affair here.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Thinking {
    Enabled {},
    Disabled {},
    Adaptive {},
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct OutputConfig {
    pub(super) format: Option<OutputFormat>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputFormat {
    JsonSchema { schema: Map<String, Value> },
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct InputTokens {
    pub(super) input_tokens: usize,
}
