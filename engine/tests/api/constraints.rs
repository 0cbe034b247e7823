//! Constrained answers match their constraint, whatever the model would rather say.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::{ModelServer, texts};

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
    })
}

fn is_person(text: &str) -> bool {
    satisfies(&serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}")), &person())
}

/// Hot, so that the random model says anything.
fn hot(fields: Value) -> Value {
    let mut body = json!({"temperature": 2, "max_tokens": 300, "seed": 5});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn json_schemas_are_kept_by_every_name_of_theirs() {
    let server = ModelServer::start();
    let format = json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": person()}});
    for fields in [
        json!({"response_format": format, "n": 3}),
        json!({"structured_outputs": {"json": person()}}),
        json!({"structured_outputs": {"json": person().to_string(), "disable_any_whitespace": true}}),
        json!({"guided_json": person()}),
        json!({"guided_json": person(), "ignore_eos": true}),
        json!({"guided_json": person(), "min_tokens": 200, "frequency_penalty": 2.0, "bad_words": ["{"]}),
    ] {
        let answer = server.complete(hot(fields.clone())).await;
        for (choice, text) in answer["choices"].as_array().unwrap().iter().zip(texts(&answer)) {
            assert_eq!(choice["finish_reason"], "stop", "{text}");
            assert!(is_person(text), "{text}");
        }
        let chat = server.chat(hot(fields)).await;
        assert!(is_person(chat["choices"][0]["message"]["content"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_stream_is_constrained_too() {
    let server = ModelServer::start();
    let chunks = server.stream(hot(json!({"structured_outputs": {"json": person()}, "n": 2}))).await;
    for index in 0..2 {
        let mine = chunks.iter().filter(|c| c["choices"][0]["index"] == index);
        let text: String = mine.map(|c| c["choices"][0]["text"].as_str().unwrap()).collect();
        assert!(is_person(&text), "{text}");
    }
}

#[tokio::test]
async fn other_constraints_are_kept() {
    let server = ModelServer::start();
    let one = |fields: Value| async { texts(&server.complete(hot(fields)).await)[0].to_owned() };
    for seed in 0..4 {
        assert!(["yes", "no"].contains(&one(json!({"seed": seed, "structured_outputs": {"choice": ["yes", "no"]}})).await.as_str()));
        assert!(["yes", "no"].contains(&one(json!({"seed": seed, "guided_choice": ["yes", "no"]})).await.as_str()));
    }
    for text in
        [one(json!({"structured_outputs": {"regex": "[a-f]{2}-[0-9]{3}"}})).await, one(json!({"guided_regex": "[a-f]{2}-[0-9]{3}"})).await]
    {
        let (letters, digits) = text.split_once('-').unwrap();
        assert!(letters.len() == 2 && digits.len() == 3 && digits.chars().all(|c| c.is_ascii_digit()), "{text}");
    }
    for grammar in ["start: \"<\" (\"a\" | \"b\"){2} \">\"", "root ::= \"<\" letter letter \">\"\nletter ::= [ab]"] {
        for text in [one(json!({"structured_outputs": {"grammar": grammar}})).await, one(json!({"guided_grammar": grammar})).await] {
            assert!(["<aa>", "<ab>", "<ba>", "<bb>"].contains(&text.as_str()), "{text}");
        }
    }
    // Nothing bounds an object's size, so that its end comes by chance; its beginning is JSON in any case.
    assert!(one(json!({"response_format": {"type": "json_object"}})).await.starts_with('{'));
}

#[test]
fn constrained_and_free_requests_share_steps() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = ModelServer::start();
        let alone = server.complete(json!({"seed": 3, "max_tokens": 40, "ignore_eos": true})).await;
        let constrained = || server.complete(hot(json!({"structured_outputs": {"json": person()}})));
        let free = server.complete(json!({"seed": 3, "max_tokens": 40, "ignore_eos": true}));
        let (a, free, b) = tokio::join!(constrained(), free, constrained());
        assert_eq!(texts(&free), texts(&alone));
        assert_eq!(texts(&a), texts(&b));
        assert!(is_person(texts(&a)[0]));
    });
}

/// Schemas whose every value is short.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (0u32..3, 3u32..6).prop_map(|(min, max)| json!({"type": "string", "minLength": min, "maxLength": max})),
        (-99i32..0, 0i32..99).prop_map(|(min, max)| json!({"type": "integer", "minimum": min, "maximum": max})),
        Just(json!({"type": "boolean"})),
        prop::collection::vec("[a-z \"\\\\é]{0,4}", 1..4).prop_map(|values| json!({"enum": values})),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0usize..2).prop_map(|(items, min)| json!({"type": "array", "items": items, "minItems": min, "maxItems": 2})),
            prop::collection::vec(inner, 1..3).prop_map(|values| {
                let properties: serde_json::Map<String, Value> =
                    values.into_iter().enumerate().map(|(i, v)| (format!("p{i}"), v)).collect();
                let required: Vec<&String> = properties.keys().collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
        ]
    })
}

/// Whether it is what the schema asks for. Knows the keywords that [`schemas`] uses, and refuses others.
fn satisfies(value: &Value, schema: &Value) -> bool {
    let schema = schema.as_object().unwrap();
    schema.iter().all(|(keyword, wanted)| match (keyword.as_str(), value) {
        ("type", _) => match wanted.as_str().unwrap() {
            "string" => value.is_string(),
            // As JSON Schema has it: -0 is one too.
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("type {other}"),
        },
        ("enum", _) => wanted.as_array().unwrap().contains(value),
        ("minLength", Value::String(text)) => text.chars().count() as u64 >= wanted.as_u64().unwrap(),
        ("maxLength", Value::String(text)) => text.chars().count() as u64 <= wanted.as_u64().unwrap(),
        ("minimum", Value::Number(number)) => number.as_f64() >= wanted.as_f64(),
        ("maximum", Value::Number(number)) => number.as_f64() <= wanted.as_f64(),
        ("minItems", Value::Array(items)) => items.len() as u64 >= wanted.as_u64().unwrap(),
        ("maxItems", Value::Array(items)) => items.len() as u64 <= wanted.as_u64().unwrap(),
        ("items", Value::Array(items)) => items.iter().all(|item| satisfies(item, wanted)),
        ("required", Value::Object(fields)) => wanted.as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap())),
        ("properties", Value::Object(fields)) => {
            wanted.as_object().unwrap().iter().all(|(name, schema)| fields.get(name).is_none_or(|value| satisfies(value, schema)))
        }
        ("additionalProperties", Value::Object(fields)) => {
            assert_eq!(wanted, false);
            fields.keys().all(|name| schema["properties"].get(name).is_some())
        }
        ("minLength" | "maxLength" | "minimum" | "maximum" | "minItems" | "maxItems" | "items", _) => true,
        ("required" | "properties" | "additionalProperties", _) => true,
        (other, _) => panic!("keyword {other}"),
    })
}

#[test]
fn what_does_not_satisfy_a_schema_is_told() {
    let schema = person();
    let good = json!({"name": "Zoë", "age": 7, "tags": ["a"]});
    assert!(satisfies(&good, &schema));
    let wrong = [
        ("name", json!("too long")),
        ("name", json!(1)),
        ("age", json!(-1)),
        ("age", json!(151)),
        ("age", json!(1.5)),
        ("tags", json!(["c"])),
        ("tags", json!(["a", "b", "a"])),
        ("more", json!(null)),
    ];
    for (field, value) in wrong {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(!satisfies(&bad, &schema), "{bad}");
    }
    assert!(!satisfies(&json!({"name": "", "age": 1}), &schema));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn answers_always_satisfy_their_schema(schema in schemas(), seed in 0u32..1000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = ModelServer::start();
            let style = json!({"json": schema, "disable_any_whitespace": seed % 2 == 0});
            let answer = server.complete(json!({"structured_outputs": style, "temperature": 2, "n": 2, "max_tokens": 400, "seed": seed})).await;
            for (choice, text) in answer["choices"].as_array().unwrap().iter().zip(texts(&answer)) {
                if choice["finish_reason"] == "stop" {
                    let value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text} of {schema}: {e}"));
                    assert!(satisfies(&value, &schema), "{text} of {schema}");
                }
            }
        });
    }
}

/// A sequence that loses its KV keeps its place in the grammar.
#[tokio::test]
async fn preemption_changes_no_constrained_answer() {
    let fields = || hot(json!({"guided_regex": "[0-9]{150}", "n": 4, "max_tokens": 160}));
    let roomy = ModelServer::start().complete(fields()).await;
    let narrow = ModelServer::with(|config| {
        config.num_blocks = Some(12);
        config.model_name = "q".to_owned();
    });
    let answer = narrow.complete(fields()).await;
    assert_eq!(texts(&answer), texts(&roomy));
    assert!(texts(&answer).iter().all(|text| text.len() == 150));
    let metrics = narrow.engine.metrics().render();
    let preemptions = metrics.lines().find_map(|line| line.strip_prefix("vllm:num_preemptions_total{engine=\"0\",model_name=\"q\"} "));
    assert!(preemptions.unwrap().parse::<u32>().unwrap() > 0);
}
