//! The answer in chunks.

use std::sync::Arc;

use serde::Serialize;

use super::{Chat, MessageParser, Piece, logprobs::ChatLogprobs, response::Head, run::finish_reason};
use crate::{
    api::generation::{Delta, EventFormat, LinkReport, StopReason, StreamOptions, TokenNames, Usage, write_event},
    sampling::SampledToken,
    tokenizer::Tokenizer,
};

pub(super) struct ChatEvents {
    head: Head,
    tokenizer: Arc<Tokenizer>,
    with_logprobs: bool,
    with_health: bool,
    token_names: TokenNames,
    return_token_ids: bool,
    /// For the first chunk, where ids are wanted.
    prompt_token_ids: Option<Vec<u32>>,
    choices: Vec<ChoiceState>,
}

struct ChoiceState {
    parser: MessageParser,
    /// Those that no chunk has shown yet, because their text is held back.
    tokens: Vec<SampledToken>,
    token_ids: Vec<u32>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenflow: Option<LinkReport>,
}

#[derive(Default, Serialize)]
struct Choice<'a> {
    index: usize,
    delta: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    /// Of the last chunk: null where nothing that the request named ended the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<&'a StopReason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    /// The same by its older name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCallDelta<'a>; 1]>,
}

/// The first of a call has its id, type and name; the others add to its arguments.
#[derive(Serialize)]
struct ToolCallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> Message<'a> {
    fn content(text: &'a str) -> Self {
        Self { content: Some(text), ..Self::default() }
    }

    /// Nothing for a call that is taken back: what was shown of it cannot be.
    fn of(piece: &'a Piece) -> Option<Self> {
        Some(match piece {
            Piece::Content(text) => Self::content(text),
            Piece::Reasoning(text) => Self { reasoning: Some(text), reasoning_content: Some(text), ..Self::default() },
            Piece::CallStart { index, id, name } => {
                let function = FunctionDelta { name: Some(name), arguments: "" };
                let call = ToolCallDelta { index: *index, id: Some(id), kind: Some("function"), function };
                Self { tool_calls: Some([call]), ..Self::default() }
            }
            Piece::CallArguments { index, text } => {
                let function = FunctionDelta { name: None, arguments: text };
                Self { tool_calls: Some([ToolCallDelta { index: *index, id: None, kind: None, function }]), ..Self::default() }
            }
            Piece::CallAbandoned { .. } => return None,
        })
    }
}

impl ChatEvents {
    pub(super) fn new(head: Head, tokenizer: Arc<Tokenizer>, chat: &mut Chat, stream: StreamOptions) -> Self {
        let choices = chat.outputs.iter().map(|_| ChoiceState { parser: chat.parser(), tokens: Vec::new(), token_ids: Vec::new() });
        let choices = choices.collect();
        Self {
            head,
            tokenizer,
            with_logprobs: chat.options.params.sampling.logprobs.is_some(),
            with_health: stream.include_health,
            token_names: chat.options.token_names,
            return_token_ids: chat.options.return_token_ids,
            prompt_token_ids: chat.prompt_token_ids.take(),
            choices,
        }
    }

    fn write(&mut self, choices: &[Choice<'_>], usage: Option<Usage>, delta: &Delta, out: &mut Vec<u8>) {
        let prompt_token_ids = self.prompt_token_ids.take();
        let Head { id, created, model } = &self.head;
        let tokenflow = delta.link.filter(|_| self.with_health).map(LinkReport::from);
        let object = "chat.completion.chunk";
        write_event(&Chunk { id, object, created: *created, model, choices, prompt_token_ids, usage, tokenflow }, out);
    }
}

impl EventFormat for ChatEvents {
    fn open(&mut self, choice: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let message = Message { role: Some("assistant"), ..Message::content("") };
        self.write(&[Choice { index: choice, delta: message, ..Choice::default() }], usage, delta, out);
    }

    /// A chunk for each part of the message; none while text is held back.
    fn delta(&mut self, index: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let choice = &mut self.choices[index];
        let mut pieces = choice.parser.push(&delta.text);
        if delta.finish.is_some() {
            pieces.extend(choice.parser.finish());
        }
        if self.with_logprobs {
            choice.tokens.extend_from_slice(&delta.tokens);
        }
        if self.return_token_ids {
            choice.token_ids.extend_from_slice(&delta.token_ids);
        }
        let (is_plain, has_calls) = (choice.parser.is_plain(), choice.parser.has_calls());
        let mut messages: Vec<Message<'_>> = pieces.iter().filter_map(Message::of).collect();
        if messages.is_empty() {
            match delta.finish {
                _ if is_plain => messages.push(Message::content("")),
                Some(_) => messages.push(Message::default()),
                None => return,
            }
        }
        let tokens = std::mem::take(&mut choice.tokens);
        let mut token_ids = self.return_token_ids.then(|| std::mem::take(&mut choice.token_ids));
        let mut logprobs = self.with_logprobs.then(|| ChatLogprobs::new(&tokens, &self.tokenizer, self.token_names));
        let last = messages.len() - 1;
        for (i, message) in messages.into_iter().enumerate() {
            let finish = delta.finish.filter(|_| i == last);
            let choice = Choice {
                index,
                delta: message,
                logprobs: logprobs.take(),
                finish_reason: finish.map(|finish| finish_reason(finish, has_calls)),
                stop_reason: finish.map(|_| delta.stop_reason.as_ref()),
                token_ids: token_ids.take(),
            };
            self.write(&[choice], usage, delta, out);
        }
    }

    fn usage(&mut self, usage: Usage, last: &Delta, out: &mut Vec<u8>) {
        self.write(&[], Some(usage), last, out);
    }
}
