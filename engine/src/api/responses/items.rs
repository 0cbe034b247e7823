//! The items of an answer, built from the parts of the message as they come, with the events that tell of each step.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::chat::Piece;

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputItem {
    Reasoning { id: String, summary: Vec<Value>, content: Vec<OutputPart>, status: ItemStatus },
    Message { id: String, role: &'static str, content: Vec<OutputPart>, status: ItemStatus },
    FunctionCall { id: String, call_id: String, name: String, arguments: String, status: ItemStatus },
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputPart {
    ReasoningText { text: String },
    OutputText { text: String, annotations: Vec<Value>, logprobs: Vec<Value> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ItemStatus {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    FunctionCall,
}

/// Receives an event: its type and its fields.
pub(super) type Emit<'a> = &'a mut dyn FnMut(&'static str, Value);

pub(super) struct Items {
    request_id: String,
    list: Vec<OutputItem>,
    /// What the last of them is, while it is being filled.
    open: Option<Kind>,
}

impl Items {
    pub(super) fn new(request_id: &str) -> Self {
        Self { request_id: request_id.to_owned(), list: Vec::new(), open: None }
    }

    pub(super) fn list(&self) -> &[OutputItem] {
        &self.list
    }

    pub(super) fn into_list(self) -> Vec<OutputItem> {
        self.list
    }

    pub(super) fn push(&mut self, piece: Piece, emit: Emit<'_>) {
        match piece {
            Piece::Reasoning(text) => {
                self.open(Kind::Reasoning, || OutputPart::ReasoningText { text: String::new() }, emit);
                self.add_text(&text, "response.reasoning_text.delta", emit);
            }
            Piece::Content(text) => {
                let part = || OutputPart::OutputText { text: String::new(), annotations: Vec::new(), logprobs: Vec::new() };
                self.open(Kind::Message, part, emit);
                self.add_text(&text, "response.output_text.delta", emit);
            }
            Piece::CallStart { id: call_id, name, .. } => {
                self.close(ItemStatus::Completed, emit);
                let id = self.id("fc");
                self.list.push(OutputItem::FunctionCall { id, call_id, name, arguments: String::new(), status: ItemStatus::InProgress });
                self.open = Some(Kind::FunctionCall);
                emit("response.output_item.added", json!({"output_index": self.index(), "item": self.list.last()}));
            }
            Piece::CallArguments { text, .. } => {
                let index = self.index();
                if let Some(OutputItem::FunctionCall { id, arguments, .. }) = self.list.last_mut() {
                    *arguments += &text;
                    emit("response.function_call_arguments.delta", json!({"item_id": id, "output_index": index, "delta": text}));
                }
            }
            Piece::CallAbandoned { .. } => {}
        }
    }

    /// Closes the last item.
    pub(super) fn close(&mut self, status: ItemStatus, emit: Emit<'_>) {
        let index = self.index();
        let (Some(kind), Some(item)) = (self.open.take(), self.list.last_mut()) else { return };
        match item {
            OutputItem::Reasoning { id, content, status: s, .. } | OutputItem::Message { id, content, status: s, .. } => {
                *s = status;
                if let Some(part @ (OutputPart::ReasoningText { text } | OutputPart::OutputText { text, .. })) = content.first() {
                    let place = |fields: Value| merged(json!({"item_id": id, "output_index": index, "content_index": 0}), fields);
                    match kind {
                        Kind::Reasoning => emit("response.reasoning_text.done", place(json!({"text": text}))),
                        _ => emit("response.output_text.done", place(json!({"text": text, "logprobs": []}))),
                    }
                    emit("response.content_part.done", place(json!({"part": part})));
                }
            }
            OutputItem::FunctionCall { id, name, arguments, status: s, .. } => {
                *s = status;
                let fields = json!({"item_id": id, "output_index": index, "name": name, "arguments": arguments});
                emit("response.function_call_arguments.done", fields);
            }
        }
        emit("response.output_item.done", json!({"output_index": index, "item": item}));
    }

    fn open(&mut self, kind: Kind, part: impl Fn() -> OutputPart, emit: Emit<'_>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(ItemStatus::Completed, emit);
        let status = ItemStatus::InProgress;
        self.list.push(match kind {
            Kind::Reasoning => OutputItem::Reasoning { id: self.id("rs"), summary: Vec::new(), content: Vec::new(), status },
            _ => OutputItem::Message { id: self.id("msg"), role: "assistant", content: Vec::new(), status },
        });
        self.open = Some(kind);
        let index = self.index();
        emit("response.output_item.added", json!({"output_index": index, "item": self.list.last()}));
        if let Some(OutputItem::Reasoning { id, content, .. } | OutputItem::Message { id, content, .. }) = self.list.last_mut() {
            content.push(part());
            emit("response.content_part.added", json!({"item_id": id, "output_index": index, "content_index": 0, "part": part()}));
        }
    }

    fn add_text(&mut self, delta: &str, event: &'static str, emit: Emit<'_>) {
        let index = self.index();
        let Some(OutputItem::Reasoning { id, content, .. } | OutputItem::Message { id, content, .. }) = self.list.last_mut() else {
            return;
        };
        let place = json!({"item_id": id, "output_index": index, "content_index": 0, "delta": delta});
        match content.last_mut() {
            Some(OutputPart::ReasoningText { text }) => {
                *text += delta;
                emit(event, place);
            }
            Some(OutputPart::OutputText { text, .. }) => {
                *text += delta;
                emit(event, merged(place, json!({"logprobs": []})));
            }
            None => {}
        }
    }

    /// Of the last item.
    fn index(&self) -> usize {
        self.list.len().saturating_sub(1)
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.request_id, self.list.len())
    }
}

fn merged(mut value: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
        fields.extend(more);
    }
    value
}

impl OutputItem {
    /// The tokens that its text comes to.
    pub(super) fn reasoning_tokens(&self, tokenizer: &crate::tokenizer::Tokenizer) -> usize {
        let Self::Reasoning { content, .. } = self else { return 0 };
        let count = |part: &OutputPart| match part {
            OutputPart::ReasoningText { text } => tokenizer.encode(text, false).map_or(0, |tokens| tokens.len()),
            OutputPart::OutputText { .. } => 0,
        };
        content.iter().map(count).sum()
    }
}
