//! Anthropic's messages to the body of a chat.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::types::{Content, InputBlock, InputMessage, MessagesFields, OutputConfig, OutputFormat, Role, Thinking, Tool, ToolChoice};
use crate::api::ApiError;

/// The same request to `/v1/chat/completions`.
pub(super) fn chat(fields: MessagesFields) -> Result<Map<String, Value>, ApiError> {
    let mut messages = Vec::new();
    if let Some(system) = fields.system {
        messages.push(json!({"role": "system", "content": text("system", system)?}));
    }
    for (i, message) in fields.messages.unwrap_or_default().into_iter().enumerate() {
        convert_message(&format!("messages[{i}].content"), message, &mut messages)?;
    }
    let mut template_kwargs = Map::new();
    if let Some(thinking) = fields.thinking {
        template_kwargs.insert("enable_thinking".to_owned(), json!(!matches!(thinking, Thinking::Disabled {})));
    }
    template_kwargs.extend(fields.chat_template_kwargs.unwrap_or_default());

    let mut body = json!({
        "model": fields.model,
        "messages": messages,
        "max_tokens": fields.max_tokens,
        "stop": fields.stop_sequences,
        "stream": fields.stream,
        "temperature": fields.temperature,
        "top_p": fields.top_p,
        "top_k": fields.top_k,
        "user": fields.metadata.and_then(|metadata| metadata.user_id),
        "chat_template_kwargs": template_kwargs,
    });
    // Anthropic's clients send an empty list for no tools.
    if let Some(tools) = fields.tools.filter(|tools| !tools.is_empty()) {
        body["tools"] = tools.into_iter().enumerate().map(|(i, tool)| convert_tool(i, tool)).collect::<Result<_, _>>()?;
    }
    let (choice, single_call) = match fields.tool_choice {
        None => (Value::Null, None),
        Some(ToolChoice::None {}) => (json!("none"), None),
        Some(ToolChoice::Auto { disable_parallel_tool_use }) => (json!("auto"), disable_parallel_tool_use),
        Some(ToolChoice::Any { disable_parallel_tool_use }) => (json!("required"), disable_parallel_tool_use),
        Some(ToolChoice::Tool { name, disable_parallel_tool_use }) => {
            (json!({"type": "function", "function": {"name": name}}), disable_parallel_tool_use)
        }
    };
    body["tool_choice"] = choice;
    body["parallel_tool_calls"] = json!(single_call.map(|single| !single));
    if let Some(OutputConfig { format: Some(OutputFormat::JsonSchema { schema }) }) = fields.output_config {
        body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "output", "schema": schema}});
    }
    match body {
        Value::Object(body) => Ok(body),
        _ => unreachable!("json! of fields is an object"),
    }
}

/// One message, or several where it holds results of tools.
fn convert_message(path: &str, message: InputMessage, out: &mut Vec<Value>) -> Result<(), ApiError> {
    let blocks = match message.content {
        Content::Text(text) => {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::System => "system",
            };
            out.push(json!({"role": role, "content": text}));
            return Ok(());
        }
        Content::Blocks(blocks) => blocks,
    };
    match message.role {
        Role::Assistant => out.push(assistant(path, blocks)?),
        Role::User => user(path, blocks, out)?,
        Role::System => out.push(json!({"role": "system", "content": text(path, Content::Blocks(blocks))?})),
    }
    Ok(())
}

fn user(path: &str, blocks: Vec<Value>, out: &mut Vec<Value>) -> Result<(), ApiError> {
    let mut texts: Vec<Value> = Vec::new();
    let is_empty = blocks.is_empty();
    for (i, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        match parse(&path, block)? {
            InputBlock::Text { text } => texts.push(json!({"type": "text", "text": text})),
            InputBlock::ToolResult { tool_use_id, content } => {
                if !texts.is_empty() {
                    out.push(json!({"role": "user", "content": std::mem::take(&mut texts)}));
                }
                let content = content.map_or(Ok(String::new()), |content| text(&format!("{path}.content"), content))?;
                out.push(json!({"role": "tool", "tool_call_id": tool_use_id, "content": content}));
            }
            _ => return Err(misplaced(&path, "user")),
        }
    }
    if is_empty || !texts.is_empty() {
        out.push(json!({"role": "user", "content": texts}));
    }
    Ok(())
}

fn assistant(path: &str, blocks: Vec<Value>) -> Result<Value, ApiError> {
    let (mut texts, mut calls, mut reasoning) = (Vec::new(), Vec::new(), String::new());
    for (i, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        match parse(&path, block)? {
            InputBlock::Text { text } => texts.push(json!({"type": "text", "text": text})),
            InputBlock::ToolUse { id, name, input } => {
                calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": input}}));
            }
            InputBlock::Thinking { thinking } => reasoning += &thinking,
            InputBlock::RedactedThinking {} => {}
            InputBlock::ToolResult { .. } => return Err(misplaced(&path, "assistant")),
        }
    }
    let mut message = json!({"role": "assistant", "content": texts});
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    if !reasoning.is_empty() {
        message["reasoning"] = Value::String(reasoning);
    }
    Ok(message)
}

fn text(path: &str, content: Content) -> Result<String, ApiError> {
    let blocks = match content {
        Content::Text(text) => return Ok(text),
        Content::Blocks(blocks) => blocks,
    };
    let texts = blocks.into_iter().enumerate().map(|(i, block)| {
        let path = format!("{path}[{i}]");
        match parse(&path, block)? {
            InputBlock::Text { text } => Ok(text),
            _ => Err(ApiError::field(path.clone(), format!("`{path}` must be a text block: this model takes text only."))),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, ApiError>>()?.join("\n"))
}

fn parse(path: &str, block: Value) -> Result<InputBlock, ApiError> {
    InputBlock::deserialize(&block).map_err(|error| match block.get("type").and_then(Value::as_str) {
        Some(kind @ ("image" | "document" | "audio" | "video")) => {
            ApiError::field(path, format!("`{path}` has type `{kind}`: this model takes text only."))
        }
        _ => ApiError::field(path, format!("`{path}` is not valid: {error}.")),
    })
}

fn misplaced(path: &str, role: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` is of a type that a message with role {role} cannot hold."))
}

fn convert_tool(i: usize, tool: Tool) -> Result<Value, ApiError> {
    if let Some(kind) = tool.kind.filter(|kind| kind != "custom") {
        let path = format!("tools[{i}].type");
        return Err(ApiError::field(
            path.clone(),
            format!("`{path}` is `{kind}`: tools that the server would run itself are not offered."),
        ));
    }
    let Some(parameters) = tool.input_schema else {
        let path = format!("tools[{i}].input_schema");
        return Err(ApiError::field(path.clone(), format!("`{path}` is required.")));
    };
    let mut function = json!({"name": tool.name, "parameters": parameters});
    if let Some(description) = tool.description {
        function["description"] = Value::String(description);
    }
    Ok(json!({"type": "function", "function": function}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_messages_of_a_chat() {
        let body = json!({
            "model": "q", "max_tokens": 5, "system": [{"type": "text", "text": "s"}, {"type": "text", "text": "t"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "r", "signature": ""}, {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "b"}, {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                ]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "c"}, {"type": "text", "text": "d"}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "e"}, {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "g"}]},
                    {"type": "tool_result", "tool_use_id": "3"},
                ]},
                {"role": "assistant", "content": "h"},
            ],
        });
        let text = |text: &str| json!([{"type": "text", "text": text}]);
        let messages = json!([
            {"role": "system", "content": "s\nt"},
            {"role": "user", "content": text("a")},
            {"role": "assistant", "content": text("b"), "reasoning": "r", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "c"},
            {"role": "user", "content": text("d")},
            {"role": "user", "content": text("e")},
            {"role": "tool", "tool_call_id": "2", "content": "g"},
            {"role": "tool", "tool_call_id": "3", "content": ""},
            {"role": "assistant", "content": "h"},
        ]);
        assert_eq!(chat(MessagesFields::deserialize(body).unwrap()).unwrap()["messages"], messages);
    }
}
