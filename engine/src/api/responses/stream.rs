//! The answer as events of a response.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    items::Items,
    object::{Status, Template, item_status},
};
use crate::{
    api::{
        ApiError,
        chat::{Chat, MessageParser, finish_reason},
        generation::{Delta, EventFormat, Usage, write_named_event},
    },
    tokenizer::Tokenizer,
};

pub(super) struct ResponseEvents {
    template: Template,
    tokenizer: Arc<Tokenizer>,
    parser: MessageParser,
    items: Items,
    output_tokens: usize,
    sequence: Sequence,
}

/// Numbers events.
#[derive(Default)]
struct Sequence(u64);

impl Sequence {
    fn write(&mut self, kind: &'static str, fields: Value, out: &mut Vec<u8>) {
        let mut event = json!({"type": kind, "sequence_number": self.0});
        self.0 += 1;
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        write_named_event(kind, &event, out);
    }
}

impl ResponseEvents {
    pub(super) fn new(template: Template, tokenizer: Arc<Tokenizer>, chat: &Chat) -> Self {
        let items = Items::new(&template.request_id);
        Self { template, tokenizer, parser: chat.parser(), items, output_tokens: 0, sequence: Sequence::default() }
    }
}

impl EventFormat for ResponseEvents {
    fn open(&mut self, _: usize, _: &Delta, _: Option<Usage>, out: &mut Vec<u8>) {
        for kind in ["response.created", "response.in_progress"] {
            self.sequence.write(kind, json!({"response": self.template}), out);
        }
    }

    fn delta(&mut self, _: usize, delta: &Delta, _: Option<Usage>, out: &mut Vec<u8>) {
        self.output_tokens += delta.num_tokens;
        self.template.cached_tokens = self.template.cached_tokens.max(delta.cached_tokens.unwrap_or(0));
        let sequence = &mut self.sequence;
        let mut emit = |kind, fields| sequence.write(kind, fields, out);
        let mut pieces = self.parser.push(&delta.text);
        if delta.finish.is_some() {
            pieces.extend(self.parser.finish());
        }
        pieces.into_iter().for_each(|piece| self.items.push(piece, &mut emit));
        let Some(finish) = delta.finish else { return };
        let reason = finish_reason(finish, self.parser.has_calls());
        self.items.close(item_status(reason), &mut emit);
        self.template.finish(reason, self.items.list().to_vec(), self.output_tokens, &self.tokenizer);
        let kind = match self.template.status {
            Status::Completed => "response.completed",
            _ => "response.incomplete",
        };
        sequence.write(kind, json!({"response": self.template}), out);
    }

    fn usage(&mut self, _: Usage, _: &Delta, _: &mut Vec<u8>) {}

    fn done(&mut self, _: &mut Vec<u8>) {}

    fn error(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        self.template.status = Status::Failed;
        self.template.error = Some(json!({"code": "server_error", "message": error.message()}));
        self.sequence.write("response.failed", json!({"response": self.template}), out);
    }
}
