//! Messages as clients write them to messages as templates read them.

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::api::ApiError;

/// What [`normalise`] takes; templates read further fields.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "a schema: messages pass through as JSON")]
pub(super) struct MessageShape {
    role: String,
    /// Required but for messages of the assistant.
    content: Option<ContentShape>,
    /// Calls that the assistant made earlier.
    tool_calls: Option<Vec<CallShape>>,
    /// With role `tool`: the call whose result this is.
    tool_call_id: Option<String>,
    /// What the assistant thought earlier; `reasoning_content` is the same.
    reasoning: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema")]
enum ContentShape {
    Text(String),
    Parts(Vec<PartShape>),
}

#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(dead_code, reason = "a schema")]
enum PartShape {
    Text { text: String },
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "a schema")]
struct CallShape {
    id: Option<String>,
    r#type: Option<String>,
    function: FunctionShape,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "a schema")]
struct FunctionShape {
    name: String,
    /// A JSON object, as a string.
    arguments: Option<String>,
}

/// Checks the list; makes every `content` a string and the arguments of tool calls objects. Other fields pass through to the template.
pub(super) fn normalise(mut messages: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages is required and must hold at least one message."));
    }
    for (i, message) in messages.iter_mut().enumerate() {
        normalise_one(&format!("messages[{i}]"), message)?;
    }
    Ok(messages)
}

fn normalise_one(path: &str, message: &mut Value) -> Result<(), ApiError> {
    let Value::Object(fields) = message else {
        return Err(refused(path, "must be an object with role and content"));
    };
    let is_assistant = match fields.get_mut("role") {
        Some(Value::String(role)) if !role.is_empty() => {
            // Templates leave out messages of roles that they do not know.
            if role == "developer" {
                *role = "system".to_owned();
            }
            role == "assistant"
        }
        _ => return Err(refused(&format!("{path}.role"), "must be a string such as \"user\"")),
    };
    if fields.get("tool_calls").is_some_and(|calls| calls.is_null() || calls.as_array().is_some_and(Vec::is_empty)) {
        fields.remove("tool_calls");
    }
    if let Some(calls) = fields.get_mut("tool_calls") {
        normalise_calls(&format!("{path}.tool_calls"), calls)?;
    }
    copy_reasoning(fields);
    let content = match fields.get("content") {
        // An assistant's message may hold nothing but tool calls or reasoning.
        None | Some(Value::Null) if is_assistant => String::new(),
        Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(parts)) => joined_parts(&format!("{path}.content"), parts)?,
        _ => return Err(refused(&format!("{path}.content"), "must be a string or a list of text parts")),
    };
    fields.insert("content".to_owned(), Value::String(content));
    Ok(())
}

/// Arguments come as JSON in a string, and templates write objects.
fn normalise_calls(path: &str, calls: &mut Value) -> Result<(), ApiError> {
    let Value::Array(calls) = calls else { return Err(refused(path, "must be a list")) };
    for (i, call) in calls.iter_mut().enumerate() {
        let path = format!("{path}[{i}].function");
        let Some(Value::Object(function)) = call.get_mut("function") else {
            return Err(refused(&path, "must be an object with name and arguments"));
        };
        if function.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(refused(&format!("{path}.name"), "must be a string"));
        }
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(arguments) => arguments.clone(),
        };
        if !arguments.is_object() {
            return Err(refused(&format!("{path}.arguments"), "must be a JSON object, as a string"));
        }
        function.insert("arguments".to_owned(), arguments);
    }
    Ok(())
}

/// Templates know reasoning by one of two names.
fn copy_reasoning(fields: &mut Map<String, Value>) {
    const NAMES: [&str; 2] = ["reasoning", "reasoning_content"];
    if let Some(reasoning) = NAMES.iter().find_map(|&name| fields.get(name).filter(|text| text.is_string())).cloned() {
        NAMES.iter().for_each(|&name| _ = fields.insert(name.to_owned(), reasoning.clone()));
    }
}

/// Text parts joined by line ends, as vLLM gives them to templates that take strings.
fn joined_parts(path: &str, parts: &[Value]) -> Result<String, ApiError> {
    let texts = parts.iter().enumerate().map(|(i, part)| {
        let path = format!("{path}[{i}]");
        match (part, part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Value::String(text), _, _) => Ok(text.as_str()),
            (_, Some("text") | None, Some(text)) => Ok(text),
            (_, Some(kind), _) if kind != "text" => Err(refused(&path, &format!("has type `{kind}`: this model takes text parts only"))),
            _ => Err(refused(&path, "must be a text part with a `text` string")),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn refused(path: &str, reason: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` {reason}."))
}
