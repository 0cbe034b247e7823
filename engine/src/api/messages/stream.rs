//! The answer as Anthropic's events: each block of the message is opened, filled and closed.

use serde_json::{Value, json};

use super::{
    MessagesError,
    response::{Head, Usage, stop},
};
use crate::api::{
    ApiError,
    chat::{Chat, MessageParser, Piece, finish_reason},
    generation::{self, Delta, EventFormat, write_named_event},
};

pub(super) struct MessageEvents {
    head: Head,
    parser: MessageParser,
    output_tokens: usize,
    /// The block that is open, and how many were before it.
    open: Option<Block>,
    index: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

fn event(value: &Value, out: &mut Vec<u8>) {
    write_named_event(value["type"].as_str().unwrap_or_default(), value, out);
}

impl MessageEvents {
    pub(super) fn new(head: Head, chat: &Chat) -> Self {
        Self { head, parser: chat.parser(), output_tokens: 0, open: None, index: 0 }
    }

    fn open_block(&mut self, block: Block, content: Value, out: &mut Vec<u8>) {
        if self.open == Some(block) && block != Block::ToolUse {
            return;
        }
        self.close_block(out);
        self.open = Some(block);
        event(&json!({"type": "content_block_start", "index": self.index, "content_block": content}), out);
    }

    fn close_block(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            event(&json!({"type": "content_block_stop", "index": self.index}), out);
            self.index += 1;
        }
    }

    fn block_delta(&self, delta: Value, out: &mut Vec<u8>) {
        event(&json!({"type": "content_block_delta", "index": self.index, "delta": delta}), out);
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Reasoning(text) => {
                self.open_block(Block::Thinking, json!({"type": "thinking", "thinking": "", "signature": ""}), out);
                self.block_delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Piece::Content(text) => {
                self.open_block(Block::Text, json!({"type": "text", "text": ""}), out);
                self.block_delta(json!({"type": "text_delta", "text": text}), out);
            }
            Piece::CallStart { id, name, .. } => {
                self.open_block(Block::ToolUse, json!({"type": "tool_use", "id": id, "name": name, "input": {}}), out);
            }
            Piece::CallArguments { text, .. } => self.block_delta(json!({"type": "input_json_delta", "partial_json": text}), out),
            Piece::CallAbandoned { .. } => {}
        }
    }
}

impl EventFormat for MessageEvents {
    fn open(&mut self, _: usize, _: &Delta, _: Option<generation::Usage>, out: &mut Vec<u8>) {
        event(&json!({"type": "message_start", "message": self.head.empty()}), out);
    }

    fn delta(&mut self, _: usize, delta: &Delta, _: Option<generation::Usage>, out: &mut Vec<u8>) {
        self.output_tokens += delta.num_tokens;
        for piece in self.parser.push(&delta.text) {
            self.piece(piece, out);
        }
        let Some(finish) = delta.finish else { return };
        for piece in self.parser.finish() {
            self.piece(piece, out);
        }
        self.close_block(out);
        let (reason, sequence) = stop(finish_reason(finish, self.parser.has_calls()), delta.stop_reason.clone());
        let usage = Usage { input_tokens: self.head.input_tokens, output_tokens: self.output_tokens };
        let end = json!({"stop_reason": reason, "stop_sequence": sequence});
        event(&json!({"type": "message_delta", "delta": end, "usage": usage}), out);
    }

    fn usage(&mut self, _: generation::Usage, _: &Delta, _: &mut Vec<u8>) {}

    fn done(&mut self, out: &mut Vec<u8>) {
        event(&json!({"type": "message_stop"}), out);
    }

    fn error(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        event(&MessagesError::body(error), out);
    }
}
