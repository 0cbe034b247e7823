use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tokenizer::{Tokenizer, tests::byte_fallback};

const EOS: [u32; 2] = [1, 2];

fn tokenizer(name: &str) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)).unwrap())
}

fn compiler() -> GrammarCompiler {
    GrammarCompiler::new(tokenizer("qwen3"), 1024, &EOS)
}

/// Walks through the grammar by chance, ending where it may once `enough` tokens have come.
fn walk(compiler: &GrammarCompiler, tokenizer: &Tokenizer, constraint: &Constraint, seed: u64, enough: usize) -> Option<String> {
    let mut matcher = compiler.compile(constraint).unwrap().matcher();
    let mut state = seed;
    let mut ids = Vec::new();
    for _ in 0..4000 {
        let mask = matcher.mask().unwrap();
        let allowed: Vec<u32> = (0..1024).filter(|&id| mask.allows(id)).collect();
        assert_eq!(allowed.iter().any(|id| EOS.contains(id)), matcher.may_end());
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ends = allowed.iter().copied().find(|id| EOS.contains(id)).filter(|_| ids.len() >= enough);
        // Closing brackets and quotes now and then, or random text would hardly ever end.
        let closing = || allowed.iter().copied().find(|&id| matches!(tokenizer.token_text(id).as_str(), "\"" | "}" | "]"));
        let token = ends.or_else(|| if ids.len() >= enough { closing() } else { None });
        let token = token.unwrap_or(allowed[(state >> 33) as usize % allowed.len()]);
        matcher.commit(token).unwrap();
        if EOS.contains(&token) {
            return Some(tokenizer.decode(&ids, false).unwrap());
        }
        ids.push(token);
    }
    None
}

fn outputs(constraint: &Constraint, seeds: u64) -> Vec<String> {
    let (compiler, tokenizer) = (compiler(), tokenizer("qwen3"));
    (0..seeds).filter_map(|seed| walk(&compiler, &tokenizer, constraint, seed, 6)).collect()
}

/// Feeds a text token by token; whether it is accepted as a whole.
fn accepts(constraint: &Constraint, text: &str) -> bool {
    let mut matcher = compiler().compile(constraint).unwrap().matcher();
    for id in tokenizer("qwen3").encode(text, false).unwrap() {
        if !matcher.mask().unwrap().allows(id) {
            return false;
        }
        matcher.commit(id).unwrap();
    }
    matcher.may_end()
}

#[test]
fn json_objects_parse() {
    let outputs = outputs(&Constraint::JsonObject, 20);
    assert!(outputs.len() > 10);
    for text in outputs {
        assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
    }
}

#[test]
fn a_regex_is_matched_from_end_to_end() {
    for regex in [r"[0-9]{3}-(foo|bar)/x", r"^[0-9]{3}-(foo|bar)/x$"] {
        let constraint = Constraint::Regex(regex.to_owned());
        assert!(accepts(&constraint, "123-foo/x"));
        assert!(!accepts(&constraint, "123-foo/"));
        assert!(!accepts(&constraint, " 123-foo/x"));
        assert!(!accepts(&constraint, "123-foo/xx"));
    }
    assert!(accepts(&Constraint::Regex(r"a\$".to_owned()), "a$"));
    assert!(accepts(&Constraint::Regex(String::new()), ""));
}

#[test]
fn a_choice_is_one_of_its_texts() {
    let constraint = Constraint::Choice(vec!["yes".into(), "yes, \"really\"".into(), "nö\n".into()]);
    for text in ["yes", "yes, \"really\"", "nö\n"] {
        assert!(accepts(&constraint, text), "{text}");
    }
    assert!(!accepts(&constraint, "ye"));
    for text in outputs(&constraint, 10) {
        assert!(["yes", "yes, \"really\"", "nö\n"].contains(&text.as_str()), "{text}");
    }
}

#[test]
fn grammars_come_in_lark_and_gbnf() {
    let lark = Constraint::Grammar("start: \"SELECT \" column (\", \" column)*\ncolumn: /[a-z]+/".to_owned());
    let gbnf = Constraint::Grammar(
        "# a comment\nroot ::= \"SELECT \" column-name (\", \" column-name)*\ncolumn-name ::=\n  [a-z]+ | \"\\x5b\" [^\\]]{1,3} \"]\""
            .to_owned(),
    );
    for constraint in [lark, gbnf.clone()] {
        assert!(accepts(&constraint, "SELECT a, bcd"));
        assert!(!accepts(&constraint, "SELECT a, "));
        assert!(!accepts(&constraint, "SELECT A"));
    }
    assert!(accepts(&gbnf, "SELECT [X Y]"));
    assert!(!accepts(&gbnf, "SELECT [four]"));
}

#[test]
fn a_prefix_and_a_schema_make_a_tool_call() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let lark = format!("start: {} {} {}", lark::literal("<tool_call>\n"), lark::json(&schema), lark::literal("\n</tool_call>"));
    let constraint = Constraint::Grammar(lark);
    assert!(accepts(&constraint, "<tool_call>\n{\"city\": \"Ulm\"}\n</tool_call>"));
    assert!(!accepts(&constraint, "<tool_call>\n{\"city\": 3}\n</tool_call>"));
    assert!(!accepts(&constraint, "{\"city\": \"Ulm\"}"));
}

#[test]
fn schemas_are_enforced_in_the_wanted_style() {
    let schema = json!({"properties": {"a": {"type": "integer"}}, "required": ["a"], "type": "object"});
    let style = |style| Constraint::JsonSchema { schema: schema.clone(), style };
    let free = style(JsonStyle::default());
    assert!(accepts(&free, "{\n  \"a\": 3\n}"));
    assert!(accepts(&free, "{\"a\":3,\"b\":[]}"));
    assert!(!accepts(&free, "{\"a\":\"3\"}"));
    let compact = style(JsonStyle { compact: true, ..JsonStyle::default() });
    assert!(accepts(&compact, "{\"a\":3}"));
    assert!(!accepts(&compact, "{\"a\": 3}"));
    let closed = style(JsonStyle { no_additional_properties: true, ..JsonStyle::default() });
    assert!(accepts(&closed, "{\"a\":3}"));
    assert!(!accepts(&closed, "{\"a\":3,\"b\":[]}"));
}

#[test]
fn special_tokens_are_named_and_never_text() {
    let anything = Constraint::Regex("(.|\n)*".to_owned());
    let mut matcher = compiler().compile(&anything).unwrap().matcher();
    let mask = matcher.mask().unwrap();
    let special = tokenizer("qwen3").encode("<|im_start|>", false).unwrap();
    assert_eq!(special.len(), 1);
    assert!(!mask.allows(special[0]));
    let named = Constraint::Grammar(format!("start: {} \"x\"", lark::token(special[0])));
    assert!(accepts(&named, "<|im_start|>x"));
}

#[test]
fn sentence_pieces_stand_for_spaces_and_bytes() {
    let tokenizer = byte_fallback();
    let compiler = GrammarCompiler::new(Arc::clone(&tokenizer), tokenizer.vocab_size(), &[2]);
    let mut matcher = compiler.compile(&Constraint::Regex(" hello( |\n|\\{[éab]+\\})+".to_owned())).unwrap().matcher();
    for id in tokenizer.encode("hello {éa}\n ", false).unwrap() {
        let mask = matcher.mask().unwrap();
        assert!(mask.allows(id), "{:?}", tokenizer.id_to_token(id));
        assert!(!mask.allows(1));
        matcher.commit(id).unwrap();
    }
    assert!(matcher.may_end());
}

fn refused(constraint: &Constraint) -> String {
    compiler().compile(constraint).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_compiled_is_refused_in_one_line() {
    let schema = |schema| Constraint::json_schema(schema);
    let grammar = |text: &str| Constraint::Grammar(text.to_owned());
    let mut deep = json!({});
    for _ in 0..70 {
        deep = json!({"properties": {"a": deep}});
    }
    let cases = [
        ("no object", schema(json!([1]))),
        ("type", schema(json!({"type": "strange"}))),
        ("unsatisfiable", schema(json!({"type": "integer", "minimum": 5, "maximum": 3}))),
        ("deep", schema(deep)),
        ("missing definition", schema(json!({"$ref": "#/$defs/x"}))),
        ("regex", Constraint::Regex("(a".to_owned())),
        ("look-ahead", Constraint::Regex("(?=a)b".to_owned())),
        ("choice", Constraint::Choice(Vec::new())),
        ("empty", grammar(" ")),
        ("lark", grammar("start: foo")),
        ("gbnf", grammar("root ::= foo")),
        ("gbnf without root", grammar("a ::= \"b\"")),
        ("gbnf bracket", grammar("root ::= [a")),
        ("large", Constraint::Regex("a".repeat(300 << 10))),
    ];
    let table: String = cases.iter().map(|(name, constraint)| format!("{name}: {}\n", refused(constraint))).collect();
    insta::assert_snapshot!(table);
}

#[test]
fn a_model_without_an_end_cannot_be_constrained() {
    let compiler = GrammarCompiler::new(tokenizer("qwen3"), 1024, &[]);
    assert_eq!(compiler.compile(&Constraint::JsonObject).map(|_| ()), Err(GrammarError::NoEndOfSequence));
}

/// Schemas of every kind that the grammar knows, some levels deep.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        (0u32..4, 4u32..9).prop_map(|(min, max)| json!({"type": "string", "minLength": min, "maxLength": max})),
        Just(json!({"type": "string", "pattern": "^[a-c]{1,3}[0-9]?$"})),
        (-50i32..0, 0i32..90).prop_map(|(min, max)| json!({"type": "integer", "minimum": min, "maximum": max})),
        Just(json!({"type": "number"})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        prop::collection::vec("[a-zä\"]{0,4}", 1..4).prop_map(|values| json!({"enum": values})),
        (0i32..100).prop_map(|value| json!({"const": value})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0usize..2, 2usize..4)
                .prop_map(|(items, min, max)| json!({"type": "array", "items": items, "minItems": min, "maxItems": max})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|any| json!({"anyOf": any})),
            (prop::collection::vec(inner, 1..4), 0usize..4).prop_map(|(values, required)| {
                let names: Vec<String> = (0..values.len()).map(|i| format!("p{i}")).collect();
                let required = &names[..required.min(names.len())];
                let properties: serde_json::Map<String, Value> = names.iter().cloned().zip(values).collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
        ]
    })
}

/// Whether a value is one of a schema's, for the schemas that are made here.
fn conforms(value: &Value, schema: &Value) -> bool {
    let bound = |name: &str| schema[name].as_u64().map(|n| n as usize);
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| conforms(value, schema));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    if !schema["const"].is_null() {
        return *value == schema["const"];
    }
    match schema["type"].as_str().unwrap() {
        "string" => value.as_str().is_some_and(|text| {
            let length = text.chars().count();
            let fits = length >= bound("minLength").unwrap_or(0) && length <= bound("maxLength").unwrap_or(usize::MAX);
            fits && (schema["pattern"].is_null() || text.starts_with(['a', 'b', 'c']))
        }),
        "integer" => value.as_i64().is_some_and(|n| n >= schema["minimum"].as_i64().unwrap() && n <= schema["maximum"].as_i64().unwrap()),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.as_array().is_some_and(|items| {
            let fits = items.len() >= bound("minItems").unwrap() && items.len() <= bound("maxItems").unwrap();
            fits && items.iter().all(|item| conforms(item, &schema["items"]))
        }),
        "object" => value.as_object().is_some_and(|fields| {
            let required = schema["required"].as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap()));
            required && fields.iter().all(|(name, value)| conforms(value, &schema["properties"][name]))
        }),
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn outputs_always_parse_and_conform(schema in schemas(), seed: u64) {
        let (compiler, tokenizer) = (compiler(), tokenizer("qwen3"));
        let constraint = Constraint::json_schema(schema.clone());
        for seed in [seed, seed ^ 0x5555] {
            if let Some(text) = walk(&compiler, &tokenizer, &constraint, seed, 3) {
                let value: Value = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
                prop_assert!(conforms(&value, &schema), "{} of {}", text, schema);
            }
        }
    }

    #[test]
    fn gbnf_of_any_text_is_lark_or_an_error(text in "[a-z:=\"\\[\\](){}|*+?. \\\\#\n-]{0,60}") {
        let _ = super::gbnf::to_lark(&text);
        let _ = super::gbnf::to_lark(&format!("root ::= {text}"));
    }
}
