//! JSON schemas that an answer must satisfy where calls are demanded.

use serde_json::{Map, Value, json};

use super::tools::Function;
use crate::api::ApiError;

/// The schema of the arguments of `tools[i]`: always an object's.
pub(super) fn arguments(i: usize, function: &Function) -> Result<Value, ApiError> {
    let Some(parameters) = &function.parameters else {
        return Ok(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    };
    let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
    schema.extend(parameters.clone());
    if schema["type"] != "object" {
        let path = format!("tools[{i}].function.parameters");
        return Err(ApiError::field(path.clone(), format!("`{path}` must be the schema of an object, not of type {}.", schema["type"])));
    }
    Ok(Value::Object(schema))
}

/// The schema of `[{"name": ..., "arguments": {...}}, ...]`, at least one call.
pub(super) fn list_of_calls<'a>(functions: impl Iterator<Item = (&'a str, Value)>, single_call: bool) -> Value {
    let mut definitions = Map::new();
    let mut calls = Vec::new();
    for (i, (name, mut arguments)) in functions.enumerate() {
        // Each schema keeps its own definitions: what it refers to lies below its new place.
        let place = format!("#/$defs/{i}");
        move_references(&mut arguments, &place);
        definitions.insert(i.to_string(), arguments);
        calls.push(json!({
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": {"$ref": place}},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        }));
    }
    let mut list = json!({"type": "array", "minItems": 1, "items": {"anyOf": calls}, "$defs": definitions});
    if single_call {
        list["maxItems"] = json!(1);
    }
    list
}

/// Keywords that hold schemas by name.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

fn move_references(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(reference) if name == "$ref" && reference.starts_with('#') => reference.replace_range(..1, place),
                    // Schemas by name, and a name may be any word.
                    Value::Object(schemas) if NAMED.contains(&name.as_str()) => {
                        schemas.values_mut().for_each(|schema| move_references(schema, place));
                    }
                    // Data, not schemas.
                    _ if matches!(name.as_str(), "const" | "enum" | "default" | "examples") => {}
                    value => move_references(value, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(parameters: Value) -> Function {
        serde_json::from_value(json!({"name": "f", "parameters": parameters})).unwrap()
    }

    #[test]
    fn arguments_are_objects() {
        let empty = arguments(0, &serde_json::from_value(json!({"name": "f"})).unwrap()).unwrap();
        assert_eq!(empty["additionalProperties"], false);
        assert_eq!(arguments(0, &function(json!({}))).unwrap(), json!({"type": "object"}));
        let error = arguments(3, &function(json!({"type": "number"}))).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "tools[3].function.parameters");
    }

    #[test]
    fn definitions_stay_with_the_function_that_has_them() {
        let schema = json!({
            "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}, "default": {"$ref": "#"}}, "$defs": {"A": {"enum": ["$ref"]}}
        });
        let list = list_of_calls([("f", schema.clone()), ("g", schema)].into_iter(), true);
        assert_eq!(list["items"]["anyOf"][1]["properties"]["arguments"]["$ref"], "#/$defs/1");
        assert_eq!(list["$defs"]["1"]["properties"]["a"]["$ref"], "#/$defs/1/$defs/A");
        assert_eq!(list["$defs"]["0"]["properties"]["default"]["$ref"], "#/$defs/0");
        assert_eq!(list["maxItems"], 1);
    }
}
