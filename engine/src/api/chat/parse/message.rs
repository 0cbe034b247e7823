use uuid::Uuid;

use super::{
    ParseOptions, Pieces, ReasoningStart, ToolParser,
    pieces::ToolPiece,
    reasoning::{Part, Reasoning},
    tool_parser,
};

/// A part of a message; parts of one kind that follow one another are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) enum Piece {
    Reasoning(String),
    Content(String),
    CallStart {
        index: usize,
        id: String,
        name: String,
    },
    /// The next part of the arguments of the call that began last.
    CallArguments {
        index: usize,
        text: String,
    },
    /// The call that began last is none; all of its text. A stream cannot take back what it showed.
    CallAbandoned {
        raw: String,
    },
}

/// One tool call of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct ToolCall {
    pub(in crate::api) id: String,
    pub(in crate::api) name: String,
    /// JSON, cut short where the answer was.
    pub(in crate::api) arguments: String,
}

/// A message with all of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct WholeMessage {
    pub(in crate::api) reasoning: Option<String>,
    pub(in crate::api) content: String,
    pub(in crate::api) calls: Vec<ToolCall>,
}

impl WholeMessage {
    fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Reasoning(text) => *self.reasoning.get_or_insert_default() += &text,
            Piece::Content(text) => self.content += &text,
            Piece::CallStart { id, name, .. } => self.calls.push(ToolCall { id, name, arguments: String::new() }),
            Piece::CallArguments { text, .. } => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments += &text;
                }
            }
            Piece::CallAbandoned { raw } => {
                self.calls.pop();
                self.content += &raw;
            }
        }
    }
}

/// Takes one answer's text as it comes and gives the parts of the message.
pub(in crate::api) struct MessageParser {
    reasoning: Option<Reasoning>,
    include_reasoning: bool,
    tools: Option<Box<dyn ToolParser>>,
    /// White space since the answer's begin or the last call: content if text follows, nothing if a call does.
    space: Option<String>,
    /// Calls that have begun and were not taken back.
    num_calls: usize,
    /// Those that were: a stream has shown their places, which no other call may take.
    num_abandoned: usize,
    single_call: bool,
    short_ids: bool,
}

impl MessageParser {
    pub(in crate::api) fn new(options: &ParseOptions, start: ReasoningStart) -> Self {
        let tools = tool_parser(&options.calls);
        Self {
            reasoning: options.reasoning.map(|_| Reasoning::new(start)),
            include_reasoning: options.include_reasoning,
            space: tools.is_some().then(String::new),
            tools,
            num_calls: 0,
            num_abandoned: 0,
            single_call: options.single_call,
            short_ids: options.short_ids,
        }
    }

    /// Whether all text is content, which then passes through untouched.
    pub(in crate::api) fn is_plain(&self) -> bool {
        self.reasoning.is_none() && self.tools.is_none()
    }

    /// Whether the message has a call.
    pub(in crate::api) fn has_calls(&self) -> bool {
        self.num_calls > 0
    }

    /// The parts that `text` makes certain.
    pub(in crate::api) fn push(&mut self, text: &str) -> Vec<Piece> {
        if self.is_plain() {
            return if text.is_empty() { Vec::new() } else { vec![Piece::Content(text.to_owned())] };
        }
        let mut parts = Parts::default();
        match &mut self.reasoning {
            Some(reasoning) => text.chars().for_each(|c| reasoning.push(c, &mut |part, c| parts.add(part, c))),
            None => parts.answer.push_str(text),
        }
        self.pieces(parts, false)
    }

    /// What is left when nothing follows.
    pub(in crate::api) fn finish(&mut self) -> Vec<Piece> {
        let mut parts = Parts::default();
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.finish(&mut |part, c| parts.add(part, c));
        }
        self.pieces(parts, true)
    }

    /// The message that `text` is.
    pub(in crate::api) fn whole(mut self, text: &str) -> WholeMessage {
        let mut message = WholeMessage::default();
        self.push(text).into_iter().for_each(|piece| message.add(piece));
        self.finish().into_iter().for_each(|piece| message.add(piece));
        message
    }

    fn pieces(&mut self, parts: Parts, finish: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.include_reasoning && !parts.reasoning.is_empty() {
            pieces.push(Piece::Reasoning(parts.reasoning));
        }
        let Some(tools) = &mut self.tools else {
            if !parts.answer.is_empty() {
                pieces.push(Piece::Content(parts.answer));
            }
            return pieces;
        };
        let mut found = Pieces::default();
        parts.answer.chars().for_each(|c| tools.push(c, &mut found));
        if finish {
            tools.finish(&mut found);
        }
        found.take().into_iter().for_each(|piece| self.add(piece, &mut pieces));
        if finish && self.num_calls == 0 {
            let space = self.space.take().unwrap_or_default();
            self.content(space, &mut pieces);
        }
        pieces
    }

    fn add(&mut self, piece: ToolPiece, out: &mut Vec<Piece>) {
        // A call that is not kept is counted, so that no later one takes its place.
        let is_dropped = self.single_call && self.num_calls > 1;
        match piece {
            ToolPiece::Content(text) => match &mut self.space {
                Some(space) if text.trim().is_empty() => space.push_str(&text),
                space => {
                    let text = space.take().unwrap_or_default() + &text;
                    self.content(text, out);
                }
            },
            ToolPiece::Start(name) => {
                self.space = Some(String::new());
                self.num_calls += 1;
                if !self.single_call || self.num_calls == 1 {
                    out.push(Piece::CallStart { index: self.place(), id: call_id(self.short_ids), name });
                }
            }
            ToolPiece::Arguments(text) if !is_dropped => out.push(Piece::CallArguments { index: self.place(), text }),
            ToolPiece::Abandon(raw) if !is_dropped => {
                self.num_calls -= 1;
                self.num_abandoned += 1;
                self.space = None;
                out.push(Piece::CallAbandoned { raw });
            }
            ToolPiece::Arguments(_) | ToolPiece::Abandon(_) | ToolPiece::End => {}
        }
    }

    /// Of the call that began last, among all that a stream has shown.
    fn place(&self) -> usize {
        self.num_calls + self.num_abandoned - 1
    }

    fn content(&self, text: String, out: &mut Vec<Piece>) {
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Content(last)) => *last += &text,
            _ => out.push(Piece::Content(text)),
        }
    }
}

/// A text's reasoning and the rest, which always comes after it.
#[derive(Default)]
struct Parts {
    reasoning: String,
    answer: String,
}

impl Parts {
    fn add(&mut self, part: Part, c: char) {
        match part {
            Part::Reasoning => self.reasoning.push(c),
            Part::Answer => self.answer.push(c),
        }
    }
}

fn call_id(short: bool) -> String {
    let id = Uuid::new_v4().simple().to_string();
    if short { id[..9].to_owned() } else { format!("call_{}", &id[..24]) }
}
