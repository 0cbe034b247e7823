//! The functions that a chat may call, and which of them it must.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ChatConfig, parse::Calls, tool_schema};
use crate::api::ApiError;

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct ToolFields {
    tools: Option<Vec<Tool>>,
    /// `auto` where there are tools, `none` where there are none.
    tool_choice: Option<ToolChoice>,
    /// On unless turned off: an answer may hold several calls.
    parallel_tool_calls: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Tool {
    #[serde(rename = "type")]
    _kind: ToolKind,
    function: Function,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ToolKind {
    #[default]
    Function,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Function {
    pub(super) name: String,
    /// A JSON schema of an object; without one, the function takes no arguments.
    pub(super) parameters: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ...}} was expected")]
enum ToolChoice {
    Mode(ToolMode),
    Named {
        #[serde(default, rename = "type")]
        _kind: ToolKind,
        function: FunctionName,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ToolMode {
    None,
    Auto,
    Required,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct FunctionName {
    name: String,
}

/// What the fields come to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ToolUse {
    pub(super) calls: Calls,
    pub(super) single_call: bool,
    /// What all of the answer must satisfy.
    pub(super) schema: Option<Value>,
}

impl ToolFields {
    pub(super) fn validate(self, config: &ChatConfig) -> Result<ToolUse, ApiError> {
        let single_call = self.parallel_tool_calls == Some(false);
        let Some(tools) = self.tools else {
            return match self.tool_choice {
                None | Some(ToolChoice::Mode(ToolMode::None)) => Ok(ToolUse::default()),
                Some(_) => Err(ApiError::field("tool_choice", "When using `tool_choice`, `tools` must be set.")),
            };
        };
        if tools.is_empty() {
            let message = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.";
            return Err(ApiError::field("tools", message));
        }
        let functions: Vec<Function> = tools.into_iter().map(|tool| tool.function).collect();
        if let Some(i) = functions.iter().position(|function| function.name.is_empty()) {
            let path = format!("tools[{i}].function.name");
            return Err(ApiError::field(path.clone(), format!("`{path}` must not be empty.")));
        }
        let schemas = functions.iter().enumerate().map(|(i, function)| tool_schema::arguments(i, function));
        let schemas = schemas.collect::<Result<Vec<_>, _>>()?;
        match self.tool_choice.unwrap_or(ToolChoice::Mode(ToolMode::Auto)) {
            ToolChoice::Mode(ToolMode::None) => Ok(ToolUse::default()),
            ToolChoice::Mode(ToolMode::Auto) => match config.tool_call_parser {
                Some(parser) => Ok(ToolUse { calls: Calls::Auto(parser), single_call, schema: None }),
                None => Err(ApiError::field(
                    "tool_choice",
                    "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set.",
                )),
            },
            ToolChoice::Mode(ToolMode::Required) => {
                let named = functions.iter().map(|function| function.name.as_str()).zip(schemas);
                Ok(ToolUse { calls: Calls::Required, single_call, schema: Some(tool_schema::list_of_calls(named, single_call)) })
            }
            ToolChoice::Named { function: FunctionName { name }, .. } => {
                match functions.iter().position(|function| function.name == name) {
                    Some(i) => Ok(ToolUse { calls: Calls::Named(name), single_call, schema: schemas.into_iter().nth(i) }),
                    None => Err(ApiError::field(
                        "tool_choice",
                        format!("The tool `{name}` specified in `tool_choice` does not match any of the specified `tools`."),
                    )),
                }
            }
        }
    }
}
