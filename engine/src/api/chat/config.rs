use super::parse::{ReasoningParser, ToolCallParser};

/// What the operator said about the model's way to write chats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChatConfig {
    /// How the model writes calls that it decides on itself; without it, `tool_choice: "auto"` is refused.
    pub tool_call_parser: Option<ToolCallParser>,
    /// How the model marks reasoning, which then comes apart from the content.
    pub reasoning_parser: Option<ReasoningParser>,
    /// Requests may bring their own chat template.
    pub trust_request_chat_template: bool,
}
