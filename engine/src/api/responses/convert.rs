//! A response's input to the body of a chat.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::types::{Content, Input, InputItem, Part, ResponsesFields, TextConfig, TextFormat, Tool, ToolChoice};
use crate::api::{ApiError, generation::refuse_unsupported, json_body::JsonBody};

/// Fields that mean the same in both.
pub(super) const SHARED: &[&str] = &[
    "model",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "min_tokens",
    "seed",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "skip_special_tokens",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_whitespace_pattern",
    "parallel_tool_calls",
    "include_reasoning",
    "truncate_prompt_tokens",
    "truncation_side",
    "add_generation_prompt",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "priority",
    "cache_salt",
    "health_factor",
    "vllm_xargs",
    "user",
];

/// Fields that would change the answer and that this server does not honour; false and null ask for nothing.
const REFUSED: &[(&str, &str)] = &[
    ("background", "Responses are made while the client waits: leave `background` out."),
    ("previous_response_id", "Responses are not stored: send the earlier items again instead of `previous_response_id`."),
    ("conversation", "Conversations are not stored: send the earlier items again instead of `conversation`."),
    ("prompt", "Prompt templates are not stored: send `input` and `instructions` instead of `prompt`."),
    ("include", "`include` asks for what this server does not return."),
    ("max_tool_calls", "`max_tool_calls` is for tools that a server runs itself, which are not offered here."),
];

/// The same request to `/v1/chat/completions`.
pub(super) fn chat(fields: &ResponsesFields, body: &JsonBody) -> Result<Map<String, Value>, ApiError> {
    for &(name, reason) in REFUSED {
        let is_neutral = |value: &Value| *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty);
        if body.get(name).is_some_and(|value| !is_neutral(value)) {
            return Err(ApiError::field(name, reason));
        }
    }
    refuse_unsupported(body)?;
    let mut chat: Map<String, Value> = SHARED.iter().filter_map(|&name| Some((name.to_owned(), body.get(name)?.clone()))).collect();
    chat.insert("messages".to_owned(), Value::Array(messages(fields)?));
    chat.insert("max_completion_tokens".to_owned(), json!(fields.max_output_tokens));
    if let Some(reasoning) = &fields.reasoning {
        chat.insert("reasoning_effort".to_owned(), json!(reasoning.effort));
    }
    let tools: Vec<Value> = fields.tools.iter().flatten().map(convert_tool).collect();
    // Empty where there are none, as the answer's own field has it.
    if !tools.is_empty() {
        chat.insert("tools".to_owned(), Value::Array(tools));
        let choice = match &fields.tool_choice {
            None => Value::Null,
            Some(ToolChoice::Mode(mode)) => json!(mode),
            Some(ToolChoice::Named { kind, name }) => json!({"type": kind, "function": {"name": name}}),
        };
        chat.insert("tool_choice".to_owned(), choice);
    } else if matches!(fields.tool_choice, Some(ToolChoice::Named { .. } | ToolChoice::Mode(super::types::ToolMode::Required))) {
        return Err(ApiError::field("tool_choice", "When `tool_choice` demands a tool, `tools` must be set."));
    }
    if let Some(TextConfig { format: Some(format) }) = &fields.text {
        let format = match format {
            TextFormat::Text {} => json!({"type": "text"}),
            TextFormat::JsonObject {} => json!({"type": "json_object"}),
            TextFormat::JsonSchema { name, schema, strict, .. } => {
                json!({"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": strict}})
            }
        };
        chat.insert("response_format".to_owned(), format);
    }
    Ok(chat)
}

/// Errors name the fields that the client sent.
pub(super) fn renamed(error: ApiError) -> ApiError {
    error.renamed("messages", "input").renamed("max_completion_tokens", "max_output_tokens").renamed("response_format", "text.format")
}

fn messages(fields: &ResponsesFields) -> Result<Vec<Value>, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = &fields.instructions {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match &fields.input {
        None => return Err(ApiError::field("input", "`input` is required: a string or a list of items.")),
        Some(Input::Text(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Input::Items(items)) if items.is_empty() => return Err(ApiError::field("input", "`input` must hold at least one item.")),
        Some(Input::Items(items)) => {
            for (i, item) in items.iter().enumerate() {
                convert_item(&format!("input[{i}]"), item, &mut messages)?;
            }
        }
    }
    Ok(messages)
}

fn convert_item(path: &str, item: &Value, out: &mut Vec<Value>) -> Result<(), ApiError> {
    match parse(path, item)? {
        InputItem::Message { role, content } => {
            let mut message = json!({"role": role, "content": text(&format!("{path}.content"), content)?});
            // Reasoning precedes the message that it led to.
            if message["role"] == "assistant"
                && let Some(reasoning) = out.pop_if(|last| is_only_reasoning(last))
            {
                message["reasoning"] = reasoning["reasoning"].clone();
            }
            out.push(message);
        }
        InputItem::FunctionCall { call_id, name, arguments } => {
            let call = json!({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}});
            match out.last_mut() {
                Some(last) if last["role"] == "assistant" => match last["tool_calls"].as_array_mut() {
                    Some(calls) => calls.push(call),
                    None => last["tool_calls"] = json!([call]),
                },
                _ => out.push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
            }
        }
        InputItem::FunctionCallOutput { call_id, output } => {
            out.push(json!({"role": "tool", "tool_call_id": call_id, "content": text(&format!("{path}.output"), output)?}));
        }
        InputItem::Reasoning { content } => {
            let reasoning = text(&format!("{path}.content"), Content::Parts(content.unwrap_or_default()))?;
            if !reasoning.is_empty() {
                out.push(json!({"role": "assistant", "content": null, "reasoning": reasoning}));
            }
        }
    }
    Ok(())
}

fn is_only_reasoning(message: &Value) -> bool {
    message.get("reasoning").is_some() && message["content"].is_null() && message.get("tool_calls").is_none()
}

fn parse(path: &str, item: &Value) -> Result<InputItem, ApiError> {
    let invalid = |error: &dyn std::fmt::Display| ApiError::field(path, format!("`{path}` is not valid: {error}."));
    match item.get("type") {
        Some(_) => InputItem::deserialize(item),
        None => {
            let mut item = item.clone();
            let fields = item.as_object_mut().ok_or_else(|| invalid(&"an object was expected"))?;
            fields.insert("type".to_owned(), json!("message"));
            InputItem::deserialize(item)
        }
    }
    .map_err(|error| invalid(&error))
}

fn text(path: &str, content: Content) -> Result<String, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let texts = parts.into_iter().enumerate().map(|(i, Part { kind, text })| match (kind.as_str(), text) {
        ("input_text" | "output_text" | "text" | "reasoning_text", Some(text)) => Ok(text),
        _ => {
            let path = format!("{path}[{i}]");
            Err(ApiError::field(path.clone(), format!("`{path}` has type `{kind}`: this model takes text parts only.")))
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn convert_tool(Tool::Function { name, description, parameters, strict }: &Tool) -> Value {
    let mut function = Map::from_iter([("name".to_owned(), json!(name))]);
    let optional = [("description", json!(description)), ("parameters", json!(parameters)), ("strict", json!(strict))];
    function.extend(optional.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)));
    json!({"type": "function", "function": function})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_messages_of_a_chat() {
        let body = json!({
            "instructions": "s",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{\"x\": 1}"},
                {"type": "function_call_output", "call_id": "1", "output": "c"},
                {"type": "function_call_output", "call_id": "2", "output": [{"type": "output_text", "text": "d"}]},
                {"type": "function_call", "call_id": "3", "name": "h", "arguments": "{}"},
                {"role": "developer", "content": "e"},
            ],
        });
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let chat = json!([
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning": "t", "tool_calls": [call("1", "f", "{}"), call("2", "g", "{\"x\": 1}")]},
            {"role": "tool", "tool_call_id": "1", "content": "c"},
            {"role": "tool", "tool_call_id": "2", "content": "d"},
            {"role": "assistant", "content": null, "tool_calls": [call("3", "h", "{}")]},
            {"role": "developer", "content": "e"},
        ]);
        let fields = ResponsesFields::deserialize(body).unwrap();
        assert_eq!(Value::Array(messages(&fields).unwrap()), chat);
    }

    #[test]
    fn reasoning_stands_in_the_message_that_it_led_to() {
        let of = |input: Value| Value::Array(messages(&ResponsesFields::deserialize(json!({"input": input})).unwrap()).unwrap());
        let thought = json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}]});
        let call = json!({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"});
        let called = of(json!([thought, call]));
        assert_eq!((&called[0]["reasoning"], &called[0]["tool_calls"][0]["id"], called.get(1)), (&json!("t"), &json!("1"), None));
        // Asked anew before it spoke: the thought stays a message of its own.
        let left = of(json!([thought, {"role": "user", "content": "a"}]));
        assert_eq!(left, json!([{"role": "assistant", "content": null, "reasoning": "t"}, {"role": "user", "content": "a"}]));
        assert_eq!(of(json!("a")), json!([{"role": "user", "content": "a"}]));
    }
}
