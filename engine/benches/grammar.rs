//! What constrained decoding costs: making a grammar ready, and the mask of each step.
//!
//! Over the fixture's small vocabulary; `TOKENFLOW_TOKENIZER=FOLDER` takes that of a real model.

use std::{hint::black_box, path::PathBuf, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::json;
use tokenflow_engine::{
    grammar::{Constraint, GrammarCompiler},
    tokenizer::Tokenizer,
};

fn grammar(c: &mut Criterion) {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3");
    let folder = std::env::var_os("TOKENFLOW_TOKENIZER").map_or(fixture, PathBuf::from);
    let tokenizer = Arc::new(Tokenizer::from_dir(&folder).expect("a tokenizer"));
    let vocab_size = tokenizer.vocab_size();
    let compiler = || GrammarCompiler::new(Arc::clone(&tokenizer), vocab_size, &[vocab_size as u32 - 1]);
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0},
            "address": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "age", "address", "tags"],
    });
    let constraint = Constraint::json_schema(person);
    let text =
        r#"{"name": "Ada Lovelace", "age": 36, "address": {"city": "London", "zip": "12345"}, "tags": ["poetry", "engines", "notes"]}"#;
    let ids = tokenizer.encode(text, false).expect("ids");

    c.bench_function("grammar/first", |b| b.iter(|| compiler().compile(black_box(&constraint))));
    let ready = compiler();
    ready.compile(&Constraint::JsonObject).expect("a grammar");
    // A title of its own for each round, or the cache would answer.
    let mut round = 0;
    let mut another = || {
        round += 1;
        Constraint::json_schema(json!({"title": round.to_string(), "type": "object", "properties": {"a": {"type": "string"}}}))
    };
    c.bench_function("grammar/compile", |b| b.iter_batched_ref(&mut another, |c| ready.compile(c), BatchSize::SmallInput));
    let compiled = ready.compile(&constraint).expect("a grammar");
    c.bench_function("grammar/matcher", |b| b.iter(|| compiled.matcher()));
    c.bench_function(&format!("grammar/masks_of_{}_tokens", ids.len()), |b| {
        b.iter_batched_ref(
            || compiled.matcher(),
            |matcher| {
                for &id in &ids {
                    let mask = matcher.mask().expect("a mask");
                    assert!(mask.allows(id));
                    matcher.commit(id).expect("an allowed token");
                }
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, grammar);
criterion_main!(benches);
