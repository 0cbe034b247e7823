use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a request may hold, beside the sampling fields that chats have too. `None` stands for absent and for null.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ResponsesFields {
    #[serde(rename = "model")]
    _model: Option<String>,
    #[schemars(with = "Input")]
    pub(super) input: Option<Input>,
    /// The system's message, in front of the input.
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<i64>,
    pub(super) text: Option<TextConfig>,
    pub(super) tools: Option<Vec<Tool>>,
    pub(super) tool_choice: Option<ToolChoice>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) reasoning: Option<Reasoning>,
    /// Given back with the answer.
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) user: Option<String>,
    #[serde(rename = "truncation")]
    _truncation: Option<Truncation>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string or a list of items was expected")]
pub(super) enum Input {
    Text(String),
    Items(#[schemars(with = "Vec<InputItem>")] Vec<Value>),
}

/// One item of the input. Those without a type are messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum InputItem {
    Message {
        role: Role,
        content: Content,
    },
    /// A call that the model made earlier.
    FunctionCall {
        call_id: String,
        name: String,
        /// JSON.
        arguments: String,
    },
    /// What it came to.
    FunctionCallOutput {
        call_id: String,
        output: Content,
    },
    Reasoning {
        content: Option<Vec<Part>>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
    System,
    Developer,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string or a list of text parts was expected")]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// `input_text`, `output_text` or another kind of text.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Part {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) text: Option<String>,
}

#[derive(Clone, Debug, Deserialize, serde::Serialize, JsonSchema)]
pub(super) struct TextConfig {
    pub(super) format: Option<TextFormat>,
}

#[derive(Clone, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum TextFormat {
    Text {},
    JsonObject {},
    JsonSchema {
        name: String,
        schema: Map<String, Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        #[serde(default)]
        strict: Option<bool>,
    },
}

#[derive(Clone, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Tool {
    Function {
        name: String,
        #[serde(default)]
        description: Option<String>,
        /// A JSON schema of an object.
        #[serde(default)]
        parameters: Option<Map<String, Value>>,
        #[serde(default)]
        strict: Option<bool>,
    },
}

#[derive(Clone, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(untagged, expecting = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"name\": ...} was expected")]
pub(super) enum ToolChoice {
    Mode(ToolMode),
    Named {
        #[serde(rename = "type")]
        kind: FunctionKind,
        name: String,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToolMode {
    None,
    Auto,
    Required,
}

#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FunctionKind {
    Function,
}

#[derive(Clone, Debug, Deserialize, serde::Serialize, JsonSchema)]
pub(super) struct Reasoning {
    pub(super) effort: Option<String>,
    pub(super) summary: Option<String>,
}

/// Input that does not fit is refused; nothing is cut.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Truncation {
    Disabled,
}
