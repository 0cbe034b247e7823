use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::tokenizer::{ChatTemplate, TokenizerError};

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    messages: Vec<Value>,
    extra: Map<String, Value>,
    add_generation_prompt: bool,
    expected: String,
}

fn template(source: &str) -> Result<ChatTemplate, TokenizerError> {
    ChatTemplate::new(source, Some("<s>".to_owned()), Some("</s>".to_owned()), "chat_template.jinja")
}

#[test]
fn renders_what_transformers_renders() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../testdata/templates.json")).unwrap();
    for case in cases {
        let rendered = template(&case.template).unwrap().render(case.messages, case.add_generation_prompt, case.extra).unwrap();
        assert_eq!(rendered, case.expected, "{}", case.name);
    }
}

#[test]
fn a_template_that_is_none_names_its_file_and_line() {
    let error = template("one\n{% if %}").unwrap_err().to_string();
    assert!(error.starts_with("the chat template in chat_template.jinja is not valid: "), "{error}");
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn a_refusal_by_the_template_is_its_own_sentence() {
    let template = template("{{ raise_exception('Conversation roles must alternate') }}").unwrap();
    let error = template.render(Vec::new(), true, Map::new()).unwrap_err().to_string();
    assert_eq!(error, "the chat template refused the messages: Conversation roles must alternate (line 1 of the template)");
}

#[test]
fn what_a_message_lacks_is_an_error_not_an_empty_prompt() {
    let template = template("{{ messages[0].content.text }}{{ messages[3].role.name }}").unwrap();
    let error = template.render(vec![json!({"role": "user", "content": "hi"})], true, Map::new()).unwrap_err();
    assert!(matches!(error, TokenizerError::Render(_)), "{error}");
}

#[test]
fn the_date_is_formatted_as_asked() {
    let template = template("{{ strftime_now('%d %b %Y') }}").unwrap();
    let date = template.render(Vec::new(), true, Map::new()).unwrap();
    assert_eq!(date.len(), "20 Nov 2026".len());
    assert_eq!(jiff::Zoned::now().strftime("%d %b %Y").to_string()[2..], date[2..]);
}
