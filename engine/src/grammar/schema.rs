//! JSON schemas on their way to the grammar: bounded in depth, with the whitespace that is wanted.

use serde_json::{Map, Value, json};

use super::error::GrammarError;

/// vLLM's bound on objects and arrays within each other in a schema.
pub const MAX_NESTING: usize = 64;

/// Whitespace between the parts of JSON: enough for indented text, and an end to it, or a model that likes it never comes to the point.
const WHITESPACE: &str = r"[ \t\n\r]{1,64}";

/// How JSON is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonStyle {
    /// No whitespace between its parts.
    pub compact: bool,
    /// A regular expression for the whitespace between its parts.
    pub whitespace_pattern: Option<String>,
    /// Objects whose schema lists properties have no others unless it says so.
    pub no_additional_properties: bool,
}

/// The schema with the style written into it in the way that the grammar library reads. A schema's own `x-guidance` wins.
pub(super) fn styled(mut schema: Value, style: &JsonStyle) -> Result<Value, GrammarError> {
    check_depth(&schema)?;
    if schema == Value::Bool(true) {
        schema = Value::Object(Map::new());
    }
    if style.no_additional_properties {
        close_objects(&mut schema);
    }
    let Value::Object(fields) = &mut schema else {
        return Err(GrammarError::Invalid("a JSON schema is an object".to_owned()));
    };
    if !fields.contains_key("x-guidance") {
        let options = if style.compact {
            json!({"whitespace_flexible": false})
        } else {
            json!({"whitespace_pattern": style.whitespace_pattern.as_deref().unwrap_or(WHITESPACE)})
        };
        fields.insert("x-guidance".to_owned(), options);
    }
    Ok(schema)
}

/// Level by level: a value from a request may be nested as deep as the JSON parser allows.
fn check_depth(schema: &Value) -> Result<(), GrammarError> {
    let mut level = vec![schema];
    for _ in 0..=MAX_NESTING {
        level = level.into_iter().flat_map(children).collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(GrammarError::TooDeep { max: MAX_NESTING })
}

fn children(value: &Value) -> Vec<&Value> {
    let is_container = |value: &&Value| value.is_object() || value.is_array();
    match value {
        Value::Object(fields) => fields.values().filter(is_container).collect(),
        Value::Array(items) => items.iter().filter(is_container).collect(),
        _ => Vec::new(),
    }
}

fn close_objects(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close_objects);
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close_objects),
        _ => {}
    }
}
