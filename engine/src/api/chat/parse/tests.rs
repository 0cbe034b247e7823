use proptest::prelude::*;

use super::*;

fn parser(calls: Calls, reasoning: bool) -> MessageParser {
    let reasoning = reasoning.then_some(ReasoningParser::Qwen3);
    let options = ParseOptions { reasoning, include_reasoning: true, calls, single_call: false, short_ids: false };
    MessageParser::new(&options, ReasoningStart::Undecided)
}

fn auto(parser_name: ToolCallParser, text: &str) -> WholeMessage {
    parser(Calls::Auto(parser_name), false).whole(text)
}

/// Name and arguments of every call.
fn calls(message: &WholeMessage) -> Vec<(&str, &str)> {
    message.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect()
}

/// What a stream shows: the kinds of its parts in order, with equal neighbours joined.
fn shown(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Reasoning(last)), Piece::Reasoning(text)) | (Some(Piece::Content(last)), Piece::Content(text)) => *last += &text,
            (Some(Piece::CallArguments { text: last, .. }), Piece::CallArguments { text, .. }) => *last += &text,
            (_, Piece::CallStart { index, name, .. }) => joined.push(Piece::CallStart { index, id: String::new(), name }),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

fn streamed(mut parser: MessageParser, chunks: &[&str]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = chunks.iter().flat_map(|chunk| parser.push(chunk)).collect();
    pieces.extend(parser.finish());
    shown(pieces)
}

const CALL: &str = r#"{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}"#;
const ARGUMENTS: &str = r#"{"city": "Zürich", "days": [1, 2]}"#;

#[test]
fn hermes_calls_stand_between_tags() {
    let text = format!("Let me see.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>");
    let message = auto(ToolCallParser::Hermes, &text);
    assert_eq!(message.content, "Let me see.\n");
    assert_eq!(calls(&message), [("weather", ARGUMENTS), ("weather", ARGUMENTS)]);
    assert_ne!(message.calls[0].id, message.calls[1].id);
    assert!(message.calls[0].id.starts_with("call_"));
}

#[test]
fn the_last_tag_may_be_missing_and_arguments_may_come_first() {
    let text = r#"<tool_call>{"arguments": {"a": 1}, "id": 7, "name": "f"}"#;
    assert_eq!(calls(&auto(ToolCallParser::Hermes, text)), [("f", r#"{"a": 1}"#)]);
}

#[test]
fn llama_calls_are_the_whole_answer() {
    for text in [r#"{"name": "f", "parameters": {"a": {"b": 1}}}"#, r#"<|python_tag|>{"name": "f", "parameters": {"a": {"b": 1}}}"#] {
        assert_eq!(calls(&auto(ToolCallParser::Llama3Json, text)), [("f", r#"{"a": {"b": 1}}"#)]);
    }
    let two = r#"{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}"#;
    assert_eq!(calls(&auto(ToolCallParser::Llama3Json, two)), [("f", "{}"), ("g", "{}")]);
    let text = r#"So: {"name": "f", "parameters": {}}"#;
    assert_eq!(auto(ToolCallParser::Llama3Json, text).content, text);
}

#[test]
fn mistral_calls_are_a_list_or_follow_their_names() {
    let list = format!("[TOOL_CALLS] [{CALL}, {CALL}]");
    assert_eq!(calls(&auto(ToolCallParser::Mistral, &list)), [("weather", ARGUMENTS), ("weather", ARGUMENTS)]);
    let named = format!("[TOOL_CALLS]weather{ARGUMENTS}[TOOL_CALLS]weather[ARGS]{ARGUMENTS}");
    assert_eq!(calls(&auto(ToolCallParser::Mistral, &named)), [("weather", ARGUMENTS), ("weather", ARGUMENTS)]);
}

#[test]
fn malformed_calls_come_back_as_the_content_that_they_are() {
    let hermes = [
        "<tool_call>",
        "<tool_call>{",
        "<tool_call>oops</tool_call>",
        r#"<tool_call>{"name": "f"}</tool_call>"#,
        r#"<tool_call>{"name": "f", "arguments": 1}</tool_call>"#,
        r#"<tool_call>{"name": 7, "arguments": {}}</tool_call>"#,
        r#"<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>"#,
        r#"<tool_call>{"name": "f", "arguments": {"a": 1"#,
        "a < b <tool_cal",
    ];
    for text in hermes {
        let message = auto(ToolCallParser::Hermes, text);
        assert_eq!((message.content.as_str(), message.calls.len()), (text, 0));
    }
    for text in [r#"{"name": "f"}"#, r#"{"a": 1}"#, r#"{"name": "f", "parameters": {"#, "<|python_tag|>print(1)", "<|pyth"] {
        let message = auto(ToolCallParser::Llama3Json, text);
        assert_eq!((message.content.as_str(), message.calls.len()), (text, 0));
    }
    for text in
        ["[TOOL_CALLS]", "[TOOL_CALLS][]x", "[TOOL_CALLS]two words{}", "[TOOL_CALLS]f{\"a\": }", "[TOOL_CALLS][{\"name\": 1}]", "[TOOL"]
    {
        let message = auto(ToolCallParser::Mistral, text);
        assert_eq!((message.content.as_str(), message.calls.len()), (text, 0));
    }
}

#[test]
fn a_good_call_stands_beside_a_malformed_one() {
    let text = format!("<tool_call>{CALL}</tool_call><tool_call>{{\"name\": \"f\", \"arguments\": {{\"a\" 1}}}}</tool_call>");
    let message = auto(ToolCallParser::Hermes, &text);
    assert_eq!(calls(&message), [("weather", ARGUMENTS)]);
    assert_eq!(message.content, r#"<tool_call>{"name": "f", "arguments": {"a" 1}}</tool_call>"#);
}

#[test]
fn a_call_that_breaks_off_in_a_stream_keeps_its_place() {
    let text = format!("<tool_call>{{\"name\": \"f\", \"arguments\": {{\"a\" 1}}}}</tool_call><tool_call>{CALL}</tool_call>");
    let pieces = streamed(parser(Calls::Auto(ToolCallParser::Hermes), false), &[&text]);
    let starts = pieces.iter().filter_map(|piece| match piece {
        Piece::CallStart { index, name, .. } => Some((*index, name.as_str())),
        _ => None,
    });
    let starts: Vec<_> = starts.collect();
    assert_eq!(starts, [(0, "f"), (1, "weather")]);
    assert_eq!(calls(&auto(ToolCallParser::Hermes, &text)), [("weather", ARGUMENTS)]);
}

#[test]
fn forced_calls_need_no_marks() {
    let named = parser(Calls::Named("f".to_owned()), false).whole(r#" {"a": 1}"#);
    assert_eq!(calls(&named), [("f", r#"{"a": 1}"#)]);
    let required = parser(Calls::Required, false).whole(&format!("[{CALL}, {CALL}]"));
    assert_eq!(calls(&required), [("weather", ARGUMENTS), ("weather", ARGUMENTS)]);
    let cut_short = parser(Calls::Required, false).whole(&format!("[{}", &CALL[..CALL.len() - 4]));
    assert_eq!(cut_short.calls.len(), 1);
    assert!(ARGUMENTS.starts_with(&cut_short.calls[0].arguments));
}

#[test]
fn reasoning_ends_before_content_and_calls() {
    let text = format!("<think>\nHm, <tool_call> maybe.\n</think>\n\n<tool_call>{CALL}</tool_call>");
    let message = parser(Calls::Auto(ToolCallParser::Hermes), true).whole(&text);
    assert_eq!(message.reasoning.as_deref(), Some("\nHm, <tool_call> maybe.\n"));
    assert_eq!((message.content.as_str(), message.calls.len()), ("", 1));

    let plain = parser(Calls::None, true).whole("<think>Hm.</think>\n\nHi <think>");
    assert_eq!((plain.reasoning.as_deref(), plain.content.as_str()), (Some("Hm."), "\n\nHi <think>"));
    let none = parser(Calls::None, true).whole("Hi");
    assert_eq!((none.reasoning, none.content.as_str()), (None, "Hi"));
    let unfinished = parser(Calls::None, true).whole("<think>Hm.</thi");
    assert_eq!((unfinished.reasoning.as_deref(), unfinished.content.as_str()), (Some("Hm.</thi"), ""));
}

#[test]
fn the_prompts_end_tells_where_the_answer_begins() {
    let parse = |prompt: &str, text: &str| {
        let options = ParseOptions { reasoning: Some(ReasoningParser::Qwen3), include_reasoning: true, ..Default::default() };
        MessageParser::new(&options, ReasoningStart::of(prompt)).whole(text)
    };
    let inside = parse("<|im_start|>assistant\n<think>\n", "Hm.\n</think>\n\nHi");
    assert_eq!((inside.reasoning.as_deref(), inside.content.as_str()), (Some("Hm.\n"), "\n\nHi"));
    let over = parse("<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>Hi");
    assert_eq!((over.reasoning, over.content.as_str()), (None, "<think>Hi"));
}

#[test]
fn one_call_is_kept_where_only_one_is_wanted() {
    let options = ParseOptions { calls: Calls::Auto(ToolCallParser::Hermes), single_call: true, short_ids: true, ..Default::default() };
    let text = format!("<tool_call>{CALL}</tool_call>").repeat(3);
    let message = MessageParser::new(&options, ReasoningStart::Undecided).whole(&text);
    assert_eq!(calls(&message), [("weather", ARGUMENTS)]);
    assert_eq!(message.calls[0].id.len(), 9);
}

/// Text that parsers have to look at twice.
fn text() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("<tool_call>".to_owned()),
        Just("</tool_call>".to_owned()),
        Just("[TOOL_CALLS]".to_owned()),
        Just("<|python_tag|>".to_owned()),
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just(CALL.to_owned()),
        Just(CALL.replace("arguments", "parameters")),
        Just(r#"{"name": "f", "arguments": {"a": }"#.to_owned()),
        Just("f[ARGS]{\"a\": 1}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("; ".to_owned()),
        "[<{}\\[\\]\", \n:aé]{0,5}",
    ];
    prop::collection::vec(fragment, 0..7).prop_map(|fragments| fragments.concat())
}

fn any_calls() -> impl Strategy<Value = Calls> {
    prop_oneof![
        Just(Calls::None),
        Just(Calls::Auto(ToolCallParser::Hermes)),
        Just(Calls::Auto(ToolCallParser::Llama3Json)),
        Just(Calls::Auto(ToolCallParser::Mistral)),
        Just(Calls::Named("f".to_owned())),
        Just(Calls::Required),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn how_text_arrives_changes_nothing(
        text in text(), cuts in prop::collection::vec(0usize..200, 0..6), calls in any_calls(), reasoning in any::<bool>()
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| text.is_char_boundary(cut.min(text.len()))).map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let by_character: Vec<&str> = text.split("").collect();
        let whole = streamed(parser(calls.clone(), reasoning), &[&text]);
        prop_assert_eq!(&streamed(parser(calls.clone(), reasoning), &chunks), &whole);
        prop_assert_eq!(&streamed(parser(calls, reasoning), &by_character), &whole);
    }

    /// Clients put a call together by its index, so that each has one of its own, also where an earlier one was taken back.
    #[test]
    fn every_call_of_a_stream_has_its_own_place(text in text(), calls in any_calls(), single_call in any::<bool>()) {
        let options = ParseOptions { calls, single_call, ..Default::default() };
        let mut started = None;
        for piece in streamed(MessageParser::new(&options, ReasoningStart::Undecided), &[&text]) {
            match piece {
                Piece::CallStart { index, .. } => {
                    prop_assert!(started.is_none_or(|last| index > last), "{} after {:?}", index, started);
                    started = Some(index);
                }
                Piece::CallArguments { index, .. } => prop_assert_eq!(Some(index), started),
                _ => {}
            }
        }
    }

    #[test]
    fn calls_that_the_model_decides_on_are_whole_or_content(text in text(), calls in any_calls()) {
        if let Calls::Auto(_) = calls {
            let message = parser(calls, false).whole(&text);
            for call in &message.calls {
                let arguments: Result<serde_json::Value, _> = serde_json::from_str(&call.arguments);
                prop_assert!(arguments.is_ok_and(|a| a.is_object()), "{:?}", call);
            }
        }
    }
}
