//! Messages as clients write them to messages as templates read them.

use serde_json::Value;

use crate::api::ApiError;

/// Checks the list and turns every `content` into a string; other fields pass through to the template.
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
        return Err(ApiError::field(path, format!("`{path}` must be an object with role and content.")));
    };
    if fields.get("role").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(ApiError::field(format!("{path}.role"), format!("`{path}.role` must be a string such as \"user\".")));
    }
    let content = match fields.get("content") {
        // What an assistant's message with nothing but tool calls holds.
        None | Some(Value::Null) if fields.contains_key("tool_calls") => String::new(),
        Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(parts)) => joined_parts(&format!("{path}.content"), parts)?,
        _ => {
            let path = format!("{path}.content");
            return Err(ApiError::field(path.clone(), format!("`{path}` must be a string or a list of text parts.")));
        }
    };
    fields.insert("content".to_owned(), Value::String(content));
    Ok(())
}

/// Text parts joined by line ends, as vLLM gives them to templates that take strings.
fn joined_parts(path: &str, parts: &[Value]) -> Result<String, ApiError> {
    let texts = parts.iter().enumerate().map(|(i, part)| {
        let path = format!("{path}[{i}]");
        match (part, part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Value::String(text), _, _) => Ok(text.as_str()),
            (_, Some("text") | None, Some(text)) => Ok(text),
            (_, Some(kind), _) if kind != "text" => {
                Err(ApiError::field(path.clone(), format!("`{path}` has type `{kind}`: this model takes text parts only.")))
            }
            _ => Err(ApiError::field(path.clone(), format!("`{path}` must be a text part with a `text` string."))),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}
