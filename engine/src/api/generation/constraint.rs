//! What a request says of its answer's form: `response_format`, `structured_outputs` and the older `guided_*` fields.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{ApiError, ApiState, json_body::JsonBody},
    grammar::{CompiledGrammar, Constraint, JsonStyle},
};

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ConstraintFields {
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,
    guided_json: Option<Value>,
    guided_regex: Option<String>,
    guided_choice: Option<Vec<String>>,
    guided_grammar: Option<String>,
    guided_whitespace_pattern: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchemaFormat>,
}

/// Its name, its description and whether it is strict change nothing: the schema is always kept.
#[derive(Debug, Deserialize, JsonSchema)]
struct JsonSchemaFormat {
    schema: Option<Value>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct StructuredOutputs {
    /// A schema, or JSON text of one.
    json: Option<Value>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
    json_object: Option<bool>,
    structural_tag: Option<Value>,
    whitespace_pattern: Option<String>,
    disable_any_whitespace: Option<bool>,
    disable_additional_properties: Option<bool>,
}

/// A constraint and the field that it comes from.
pub(in crate::api) type NamedConstraint = (&'static str, Constraint);

/// The constraint that the request names, if one.
pub(in crate::api) fn constraint(body: &JsonBody) -> Result<Option<NamedConstraint>, ApiError> {
    let fields: ConstraintFields = body.fields()?;
    let mut found = Vec::new();
    if let Some(format) = fields.response_format {
        found.extend(format.constraint()?.map(|constraint| ("response_format", constraint)));
    }
    if let Some(structured) = fields.structured_outputs {
        found.push(("structured_outputs", structured.constraint()?));
    }
    let style = JsonStyle { whitespace_pattern: fields.guided_whitespace_pattern, ..JsonStyle::default() };
    if let Some(schema) = fields.guided_json {
        found.push(("guided_json", json_schema("guided_json", schema, style)?));
    }
    found.extend(fields.guided_regex.map(|regex| ("guided_regex", Constraint::Regex(regex))));
    found.extend(fields.guided_choice.map(|choices| ("guided_choice", Constraint::Choice(choices))));
    found.extend(fields.guided_grammar.map(|grammar| ("guided_grammar", Constraint::Grammar(grammar))));
    match &found[..] {
        [] | [_] => Ok(found.pop()),
        [(first, _), (second, _), ..] => {
            Err(ApiError::field(*second, format!("Only one of `{first}` and `{second}` can say what the answer must match.")))
        }
    }
}

/// Makes a constraint ready without holding up other connections.
pub(in crate::api) async fn compile(state: &ApiState, (param, constraint): NamedConstraint) -> Result<Arc<CompiledGrammar>, ApiError> {
    let engine = state.engine.clone();
    let compiled = state.blocking(move || engine.compile(&constraint)).await?;
    compiled.map_err(|error| ApiError::field(param, format!("`{param}` cannot be followed: {error}.")))
}

impl ResponseFormat {
    fn constraint(self) -> Result<Option<Constraint>, ApiError> {
        match self.kind.as_str() {
            "text" => Ok(None),
            "json_object" => Ok(Some(Constraint::JsonObject)),
            "json_schema" => match self.json_schema.and_then(|format| format.schema) {
                Some(schema) => json_schema("response_format.json_schema.schema", schema, JsonStyle::default()).map(Some),
                None => Err(ApiError::field(
                    "response_format",
                    "When response_format type is 'json_schema', the 'json_schema' field must be provided, with a 'schema'.",
                )),
            },
            other => Err(ApiError::field(
                "response_format",
                format!("response_format type `{other}` is not supported: text, json_object and json_schema are."),
            )),
        }
    }
}

impl StructuredOutputs {
    fn constraint(self) -> Result<Constraint, ApiError> {
        const PARAM: &str = "structured_outputs";
        if self.structural_tag.is_some() {
            return Err(ApiError::field(PARAM, "structural_tag is not supported: json, json_object, regex, choice and grammar are."));
        }
        let style = JsonStyle {
            compact: self.disable_any_whitespace.unwrap_or(false),
            whitespace_pattern: self.whitespace_pattern,
            no_additional_properties: self.disable_additional_properties.unwrap_or(false),
        };
        let mut kinds = Vec::new();
        if let Some(schema) = self.json {
            kinds.push(json_schema(PARAM, schema, style)?);
        }
        kinds.extend(self.regex.map(Constraint::Regex));
        kinds.extend(self.choice.map(Constraint::Choice));
        kinds.extend(self.grammar.map(Constraint::Grammar));
        kinds.extend(self.json_object.filter(|&wanted| wanted).map(|_| Constraint::JsonObject));
        match (kinds.pop(), kinds.pop()) {
            (Some(constraint), None) => Ok(constraint),
            (None, _) => {
                Err(ApiError::field(PARAM, "structured_outputs must name one constraint: json, json_object, regex, choice or grammar."))
            }
            (Some(_), Some(_)) => Err(ApiError::field(PARAM, "structured_outputs can name only one kind of constraint.")),
        }
    }
}

/// A schema as an object or as its JSON text.
fn json_schema(param: &str, schema: Value, style: JsonStyle) -> Result<Constraint, ApiError> {
    let schema = match schema {
        Value::String(text) => serde_json::from_str(&text).map_err(|e| ApiError::field(param, format!("`{param}` is not JSON: {e}.")))?,
        schema => schema,
    };
    Ok(Constraint::JsonSchema { schema, style })
}
