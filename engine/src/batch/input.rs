//! Lines of the input: OpenAI's batch form, or just what a route takes.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::{Map, Value};

use super::{BatchError, open};

/// Routes that answer in one piece, each with the field that tells it from the others where a line names none.
const ROUTES: &[(&str, &str)] = &[("/v1/chat/completions", "messages"), ("/v1/completions", "prompt"), ("/v1/embeddings", "input")];

/// One line.
#[derive(Debug)]
pub(super) struct Question {
    /// Its `custom_id`, or `line-N`.
    pub(super) id: String,
    /// Route and body, or what is wrong with the line.
    pub(super) ask: Result<(&'static str, Value), String>,
}

impl Question {
    /// `None` for an empty line. `number` counts from 1.
    pub(super) fn read(number: usize, line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        let object = match serde_json::from_str(line) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Some(Self { id: default_id(number), ask: Err(format!("line {number} is JSON but not an object")) }),
            Err(error) => return Some(Self { id: default_id(number), ask: Err(format!("line {number} is not JSON: {error}")) }),
        };
        Some(Self { id: id(number, &object), ask: ask(object).map_err(|reason| format!("line {number}: {reason}")) })
    }
}

fn default_id(number: usize) -> String {
    format!("line-{number}")
}

fn id(number: usize, object: &Map<String, Value>) -> String {
    object.get("custom_id").and_then(Value::as_str).map_or_else(|| default_id(number), str::to_owned)
}

fn ask(mut object: Map<String, Value>) -> Result<(&'static str, Value), String> {
    if object.get("custom_id").is_some_and(|id| !id.is_string()) {
        return Err("custom_id must be a string".to_owned());
    }
    let (url, mut body) = match object.remove("body") {
        Some(Value::Object(body)) => (object.remove("url"), body),
        Some(_) => return Err("body must be an object".to_owned()),
        None => {
            object.remove("custom_id");
            (None, object)
        }
    };
    let route = match url {
        Some(Value::String(url)) => {
            ROUTES.iter().find(|(route, _)| *route == url).ok_or_else(|| format!("url '{url}' is not answered here"))
        }
        Some(_) => Err("url must be a string".to_owned()),
        None => {
            ROUTES.iter().find(|(_, field)| body.contains_key(*field)).ok_or_else(|| "there is no prompt, messages or input".to_owned())
        }
    };
    // Answers are written whole.
    body.remove("stream");
    body.remove("stream_options");
    Ok((route?.0, Value::Object(body)))
}

/// The ids of all lines that are not empty.
///
/// # Errors
/// When the file cannot be read, or an id stands twice.
pub(super) fn ids(path: &Path) -> Result<Vec<String>, BatchError> {
    let shown = || path.display().to_string();
    let mut ids = Vec::new();
    let mut seen = HashMap::new();
    for (i, line) in BufReader::new(open(path)?).lines().enumerate() {
        let line = line.map_err(|source| BatchError::Io { path: shown(), source })?;
        let Some(question) = Question::read(i + 1, &line) else { continue };
        if let Some(first) = seen.insert(question.id.clone(), i + 1) {
            return Err(BatchError::DuplicateId { path: shown(), id: question.id, first, second: i + 1 });
        }
        ids.push(question.id);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn ask_of(line: Value) -> Result<(&'static str, Value), String> {
        Question::read(3, &line.to_string()).unwrap().ask
    }

    #[test]
    fn both_forms_lead_to_their_route() {
        let body = json!({"messages": [], "max_tokens": 3, "stream": true});
        let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body});
        assert_eq!(Question::read(1, &line.to_string()).unwrap().id, "a");
        assert_eq!(ask_of(line), Ok(("/v1/chat/completions", json!({"messages": [], "max_tokens": 3}))));
        assert_eq!(ask_of(json!({"prompt": "x", "n": 2})), Ok(("/v1/completions", json!({"prompt": "x", "n": 2}))));
        assert_eq!(ask_of(json!({"custom_id": "b", "input": "x"})), Ok(("/v1/embeddings", json!({"input": "x"}))));
        assert_eq!(Question::read(7, "{\"prompt\": \"x\"}").unwrap().id, "line-7");
        assert!(Question::read(1, "  ").is_none());
    }

    #[test]
    fn a_line_that_cannot_be_asked_says_why() {
        assert_eq!(ask_of(json!({"max_tokens": 3})).unwrap_err(), "line 3: there is no prompt, messages or input");
        assert_eq!(ask_of(json!({"url": "/v1/files", "body": {}})).unwrap_err(), "line 3: url '/v1/files' is not answered here");
        assert_eq!(ask_of(json!({"custom_id": 7, "prompt": "x"})).unwrap_err(), "line 3: custom_id must be a string");
        assert_eq!(Question::read(3, "[]").unwrap().ask.unwrap_err(), "line 3 is JSON but not an object");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "[{}\\[\\]\":, a-z0-9]{0,40}") {
            Question::read(1, &line);
        }
    }
}
