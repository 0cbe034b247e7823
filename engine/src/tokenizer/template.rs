//! Chats to prompts: the model's Jinja template, rendered as transformers renders it.

use minijinja::{Environment, Error, ErrorKind, syntax::SyntaxConfig, value::Serde};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value};

use super::{TokenizerError, json::tojson};

const NAME: &str = "chat_template";

/// A compiled template with the special tokens that it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Variables beside the messages: `bos_token` and `eos_token` where the model has them.
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Compiles `source`; `file` is where it came from, for messages.
    ///
    /// # Errors
    /// When it is not a template.
    pub fn new(source: &str, bos_token: Option<String>, eos_token: Option<String>, file: &str) -> Result<Self, TokenizerError> {
        let mut environment = Environment::new();
        let unusable = |e: Error| TokenizerError::Template { file: file.to_owned(), reason: one_line(&e) };
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(unusable)?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(unusable)?;
        let named = [("bos_token", bos_token), ("eos_token", eos_token)];
        let special_tokens = named.into_iter().filter_map(|(name, token)| Some((name.to_owned(), Value::String(token?)))).collect();
        Ok(Self { environment, special_tokens })
    }

    /// The prompt for `messages`, a JSON list of objects with `role` and `content`. `extra` are further variables
    /// (`chat_template_kwargs`); with `add_generation_prompt` the prompt ends where the assistant is to speak.
    ///
    /// # Errors
    /// When the template refuses the messages or uses what they do not have.
    pub fn render(&self, messages: Vec<Value>, add_generation_prompt: bool, extra: Map<String, Value>) -> Result<String, TokenizerError> {
        let mut variables = self.special_tokens.clone();
        variables.extend(extra);
        variables.insert("messages".to_owned(), Value::Array(messages));
        variables.insert("add_generation_prompt".to_owned(), Value::Bool(add_generation_prompt));
        for absent in ["tools", "documents"] {
            variables.entry(absent).or_insert(Value::Null);
        }
        let refused = |e: Error| TokenizerError::Render(one_line(&e));
        self.environment.get_template(NAME).map_err(refused)?.render(Serde(&variables)).map_err(refused)
    }
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Local time by C's `strftime` directives.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(&format, &jiff::Zoned::now())
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

/// What the error says and where, without the source excerpt.
fn one_line(error: &Error) -> String {
    let text = match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match error.line() {
        Some(line) => format!("{text} (line {line} of the template)"),
        None => text,
    }
}

/// `{% generation %}` marks the assistant's words for training and means nothing here; a block that is always taken stands in for it,
/// so that the white space around it stays what it was.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (text, tag) = rest.split_at(start + 2);
        let Some(end) = tag.find("%}") else { break };
        let (inner, after) = tag.split_at(end);
        out.push_str(text);
        match inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&inner.replace("generation", "if true")),
            "endgeneration" => out.push_str(&inner.replace("endgeneration", "endif")),
            _ => out.push_str(inner),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
