//! Files made here: what they hold is found, and no mutation of them does harm.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Gguf, header};
use crate::weights::{Cut, Loader, WeightsError};

/// A value of the metadata, as it is written.
#[derive(Clone)]
enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

/// A GGUF file in the making.
#[derive(Clone, Default)]
struct Builder {
    metadata: BTreeMap<String, Meta>,
    /// Name, ggml's code of the type, dimensions (fastest first) and bytes.
    tensors: Vec<(String, u32, Vec<u64>, Vec<u8>)>,
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Builder {
    fn set(mut self, key: &str, value: Meta) -> Self {
        self.metadata.insert(key.into(), value);
        self
    }

    fn tensor(mut self, name: &str, code: u32, dims: &[u64], bytes: Vec<u8>) -> Self {
        self.tensors.push((name.into(), code, dims.to_vec(), bytes));
        self
    }

    fn f32s(self, name: &str, dims: &[u64], values: impl Fn(usize) -> f32) -> Self {
        let count = dims.iter().product::<u64>() as usize;
        self.tensor(name, 0, dims, (0..count).flat_map(|i| values(i).to_le_bytes()).collect())
    }

    fn build(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for (name, code, dims, bytes) in &self.tensors {
            string(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            out.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(code.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (bytes.len() as u64).next_multiple_of(32);
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        let mut array = |kind: u32, len: usize| {
            out.extend(9u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::Texts(texts) => {
                array(8, texts.len());
                texts.iter().for_each(|text| string(out, text));
            }
            Self::I32s(values) => {
                array(5, values.len());
                out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
            Self::F32s(values) => {
                array(6, values.len());
                out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
            Self::U32(n) => {
                out.extend(4u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Self::F32(x) => {
                out.extend(6u32.to_le_bytes());
                out.extend(x.to_le_bytes());
            }
            Self::Bool(b) => {
                out.extend(7u32.to_le_bytes());
                out.push(u8::from(*b));
            }
            Self::Text(text) => {
                out.extend(8u32.to_le_bytes());
                string(out, text);
            }
        }
    }
}

/// A model of one layer: 4 heads of 8 dimensions, 32 columns, so that a row is one block of Q8_0.
fn model(architecture: &str) -> Builder {
    let own = |key: &str| format!("{architecture}.{key}");
    let texts = |texts: &[&str]| Meta::Texts(texts.iter().map(|t| (*t).to_owned()).collect());
    let mut builder = Builder::default()
        .set("general.architecture", Meta::Text(architecture.into()))
        .set(&own("embedding_length"), Meta::U32(32))
        .set(&own("block_count"), Meta::U32(1))
        .set(&own("context_length"), Meta::U32(64))
        .set(&own("feed_forward_length"), Meta::U32(32))
        .set(&own("attention.head_count"), Meta::U32(4))
        .set(&own("attention.head_count_kv"), Meta::U32(2))
        .set(&own("attention.layer_norm_rms_epsilon"), Meta::F32(1e-5))
        .set(&own("rope.freq_base"), Meta::F32(1e4))
        .set("tokenizer.ggml.model", Meta::Text("gpt2".into()))
        .set("tokenizer.ggml.pre", Meta::Text("qwen2".into()))
        .set("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "<|end|>"]))
        .set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 1, 3]))
        .set("tokenizer.ggml.merges", texts(&["a b"]))
        .set("tokenizer.ggml.bos_token_id", Meta::U32(3))
        .set("tokenizer.ggml.eos_token_id", Meta::U32(3))
        .set("tokenizer.ggml.add_bos_token", Meta::Bool(true))
        .set("tokenizer.chat_template", Meta::Text("{{ messages }}".into()))
        .f32s("token_embd.weight", &[32, 4], |i| i as f32)
        .f32s("output_norm.weight", &[32], |i| 1.0 + i as f32);
    for (name, rows) in [("attn_k", 16), ("attn_v", 16), ("attn_output", 32), ("ffn_gate", 32), ("ffn_up", 32), ("ffn_down", 32)] {
        builder = builder.f32s(&format!("blk.0.{name}.weight"), &[32, rows], |i| i as f32);
    }
    // Row r is filled with the byte r.
    let q: Vec<u8> = (0..32u8).flat_map(|r| [0, 0x3c].into_iter().chain([r; 32])).collect();
    builder.tensor("blk.0.attn_q.weight", 8, &[32, 32], q).f32s("blk.0.attn_norm.weight", &[32], |_| 1.0).f32s(
        "blk.0.ffn_norm.weight",
        &[32],
        |_| 1.0,
    )
}

fn open(builder: &Builder) -> Result<Gguf, String> {
    Gguf::from_bytes("m.gguf", builder.build()).map_err(|e: WeightsError| e.to_string())
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn metadata_become_the_files_of_a_folder() {
    let gguf = open(&model("llama")).unwrap();
    let config = parsed(&gguf.config);
    for (field, value) in [
        ("architectures", json!(["LlamaForCausalLM"])),
        ("hidden_size", json!(32)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(8)),
        ("vocab_size", json!(4)),
        ("tie_word_embeddings", json!(true)),
        ("rope_scaling", Value::Null),
        ("eos_token_id", json!([3])),
    ] {
        assert_eq!(config[field], value, "{field}");
    }
    assert_eq!(parsed(&gguf.tokenizer)["model"]["vocab"], json!({"a": 0, "b": 1, "ab": 2, "<|end|>": 3}));
    assert_eq!(parsed(&gguf.tokenizer_config), json!({"bos_token": "<|end|>", "eos_token": "<|end|>", "chat_template": "{{ messages }}"}));
    let tokens = ["a", "b", "<|eot_id|>", "<|end|>"].map(str::to_owned).to_vec();
    let turns = model("llama").set("tokenizer.ggml.tokens", Meta::Texts(tokens)).set("tokenizer.ggml.eos_token_id", Meta::U32(1));
    let turns = turns.set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 3, 1])).set("tokenizer.ggml.merges", Meta::Texts(vec![]));
    assert_eq!(parsed(&open(&turns).unwrap().config)["eos_token_id"], json!([1, 2]));
    let mixtral = model("llama").set("llama.expert_count", Meta::U32(4)).set("llama.expert_used_count", Meta::U32(2));
    assert_eq!(parsed(&open(&mixtral).unwrap().config)["architectures"], json!(["MixtralForCausalLM"]));
    let factors = model("llama").f32s("rope_freqs.weight", &[4], |i| i as f32 + 1.0);
    assert_eq!(parsed(&open(&factors).unwrap().config)["rope_scaling"], json!({"rope_type": "factors", "factors": [1.0, 2.0, 3.0, 4.0]}));
}

#[test]
fn rows_of_queries_are_put_back_in_order_packed() {
    let rows = |gguf: &Gguf, cut, size| -> Vec<u8> {
        let part =
            |rank| Loader::for_rank(&gguf.checkpoint, rank, size).matrix("model.layers.0.self_attn.q_proj.weight", [32, 32], cut).unwrap();
        (0..size)
            .flat_map(|rank| match part(rank).view() {
                crate::backend::MatrixView::Blocks { bytes, .. } => bytes.chunks_exact(34).map(|row| row[2]).collect::<Vec<_>>(),
                other => panic!("{}", other.encoding()),
            })
            .collect()
    };
    let llama = open(&model("llama")).unwrap();
    let first_head = [0, 2, 4, 6, 1, 3, 5, 7];
    let expected: Vec<u8> = (0..4).flat_map(|head| first_head.map(|row| head * 8 + row)).collect();
    assert_eq!(rows(&llama, Cut::Rows, 1), expected);
    assert_eq!(rows(&llama, Cut::Rows, 4), expected);
    assert_eq!(rows(&open(&model("qwen2")).unwrap(), Cut::Rows, 2), (0..32).collect::<Vec<u8>>());
    let error =
        Loader::for_rank(&llama.checkpoint, 0, 2).matrix("model.layers.0.self_attn.q_proj.weight", [32, 32], Cut::Cols).unwrap_err();
    assert!(error.to_string().ends_with("cannot be cut into 2 parts of 16 columns: they come in groups of 32"), "{error}");
}

#[test]
fn norms_of_gemma_lose_the_one_that_was_added() {
    let gemma = open(&model("gemma3").set("gemma3.attention.sliding_window", Meta::U32(16))).unwrap();
    let norm = Loader::new(&gemma.checkpoint).vector("model.norm.weight", 32, Cut::None).unwrap();
    let expected: Vec<u8> = (0..32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    assert_eq!(norm.view().bytes, expected);
}

#[test]
fn experts_are_parts_of_one_tensor() {
    let moe = model("qwen3moe").set("qwen3moe.expert_count", Meta::U32(3)).set("qwen3moe.expert_used_count", Meta::U32(2));
    let moe = moe.set("qwen3moe.expert_feed_forward_length", Meta::U32(2)).f32s("blk.0.ffn_up_exps.weight", &[32, 2, 3], |i| i as f32);
    let gguf = open(&moe).unwrap();
    let expert = Loader::new(&gguf.checkpoint).matrix("model.layers.0.mlp.experts.2.up_proj.weight", [2, 32], Cut::None).unwrap();
    let crate::backend::MatrixView::Plain(view) = expert.view() else { panic!("plain was expected") };
    assert_eq!(view.bytes[..4], 128f32.to_le_bytes());
    assert!(gguf.checkpoint.contains("model.layers.0.mlp.experts.0.up_proj.weight"));
    let none = moe.tensor("blk.0.ffn_gate_exps.weight", 0, &[32, 0, 1 << 60], vec![]);
    assert!(open(&none).unwrap_err().contains("where [experts, rows, cols] are expected"));
}

#[test]
fn refusals_are_one_sentence() {
    let error = |builder: Builder| open(&builder).unwrap_err();
    assert_eq!(
        error(model("mamba")),
        "m.gguf: key \"general.architecture\" is \"mamba\"; known are llama, qwen2, qwen3, qwen3moe and gemma3"
    );
    let mut none = model("llama");
    none.metadata.remove("llama.block_count");
    assert_eq!(error(none), "m.gguf: key \"llama.block_count\" is missing");
    assert_eq!(
        error(model("llama").set("llama.block_count", Meta::Text("x".into()))),
        "m.gguf: key \"llama.block_count\" is not a whole number"
    );
    assert!(
        error(model("llama").set("tokenizer.ggml.pre", Meta::Text("klingon".into())))
            .contains("\"tokenizer.ggml.pre\" is \"klingon\"; known are")
    );
    assert!(error(model("llama").set("tokenizer.ggml.bos_token_id", Meta::U32(9))).ends_with("is 9, but there are 4 tokens"));
    assert!(error(model("llama").set("split.count", Meta::U32(2))).contains("\"split.count\" is 2, but there are 1 files"));
    assert!(
        error(model("llama").set("llama.rope.scaling.type", Meta::Text("x".into())).set("llama.rope.scaling.factor", Meta::F32(2.0)))
            .contains("known are none, linear and yarn")
    );
    let bytes = |bytes: &[u8]| Gguf::from_bytes("m.gguf", bytes.to_vec()).unwrap_err().to_string();
    assert_eq!(bytes(b"GGML"), "m.gguf is not a GGUF file: it does not begin with \"GGUF\"");
    let whole = model("llama").build();
    assert_eq!(bytes(&[b"GGUF", &1u32.to_le_bytes()[..]].concat()), "m.gguf has GGUF version 1; 2 and 3 are supported");
    assert_eq!(bytes(&[b"GGUF", &3u32.to_be_bytes()[..]].concat()), "m.gguf is a big-endian GGUF file, which is not supported");
    assert!(bytes(&whole[..whole.len() - 64]).contains("is truncated: tensor \"blk.0.ffn_norm.weight\""));
    assert!(bytes(&whole[..100]).contains("is truncated: "));
    // Counts that no file can hold.
    for at in [8, 16] {
        let mut wrong = whole.clone();
        wrong[at..at + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        assert!(bytes(&wrong).starts_with("m.gguf "));
    }
    let unsupported = open(&model("llama").tensor("output.weight", 10, &[256, 1], vec![0; 84])).unwrap();
    let error = Loader::new(&unsupported.checkpoint).matrix("lm_head.weight", [1, 256], Cut::None).unwrap_err().to_string();
    assert_eq!(error, "m.gguf: tensor \"lm_head.weight\" has type Q2_K; F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K are supported");
}

#[test]
fn parts_lie_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = model("llama").set("split.count", Meta::U32(2)).set("split.no", Meta::U32(0));
    let second = Builder { tensors: first.tensors.split_off(5), ..Default::default() };
    let second = second.set("split.count", Meta::U32(2)).set("split.no", Meta::U32(1));
    let path = |n: u32| folder.path().join(format!("m-Q8_0-{n:05}-of-00002.gguf"));
    std::fs::write(path(1), first.build()).unwrap();
    assert!(
        Gguf::open(&path(1))
            .unwrap_err()
            .to_string()
            .ends_with("m-Q8_0-00002-of-00002.gguf cannot be read: it is missing; the model has 2 files")
    );
    std::fs::write(path(2), second.build()).unwrap();
    for n in [1, 2] {
        let gguf = Gguf::open(&path(n)).unwrap();
        assert!(
            gguf.checkpoint.contains("model.embed_tokens.weight") && gguf.checkpoint.contains("model.layers.0.self_attn.q_proj.weight")
        );
    }
    std::fs::copy(path(1), path(2)).unwrap();
    assert!(Gguf::open(&path(1)).unwrap_err().to_string().contains("\"split.no\" is not 1"));
}

fn spoil(mut bytes: Vec<u8>, edits: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    for (at, value) in edits {
        let at = at % bytes.len();
        bytes[at] = *value;
    }
    bytes.truncate(cut.map_or(bytes.len(), |cut| cut % bytes.len()));
    bytes
}

/// Nothing panics, and what is accepted lies inside the file.
fn check(bytes: Vec<u8>) {
    if let Ok(header) = header::parse(&bytes) {
        for (_, tensor) in &header.tensors {
            assert!(bytes.get(tensor.bytes.clone()).is_some());
        }
    }
    if let Ok(gguf) = Gguf::from_bytes("m.gguf", bytes) {
        let _ = Loader::new(&gguf.checkpoint).matrix("model.layers.0.self_attn.q_proj.weight", [32, 32], Cut::Rows);
        let _ = Loader::new(&gguf.checkpoint).vector("model.norm.weight", 32, Cut::None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutated_files_do_no_harm(gemma: bool, edits in prop::collection::vec((0usize..4096, any::<u8>()), 0..8), cut in prop::option::of(0usize..20000)) {
        check(spoil(model(if gemma { "gemma3" } else { "llama" }).build(), &edits, cut));
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), versioned: bool) {
        let start = if versioned { [&b"GGUF"[..], &3u32.to_le_bytes()].concat() } else { b"GGUF".to_vec() };
        check([start, bytes].concat());
    }

    #[test]
    fn any_dimensions_and_offsets_stay_inside(dims in prop::collection::vec(any::<u64>(), 0..5), small in prop::collection::vec(0u64..70, 0..5), code in 0u32..42) {
        check(model("llama").tensor("blk.0.ffn_up_exps.weight", code, &dims, vec![0; 64]).build());
        check(model("qwen3moe").tensor("blk.0.ffn_up_exps.weight", code, &small, vec![0; 64]).build());
    }
}

/// Two merges compete for "b" in "abc": the better score wins.
fn sentence_piece(add_space: bool) -> Builder {
    let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>"));
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "bc", "▁a", "▁ab"]
        .map(str::to_owned)
        .into_iter()
        .chain(["<turn>".to_owned(), "  ".to_owned()])
        .chain(bytes)
        .collect();
    let scores = [0.0, 0.0, 0.0, -9.0, -8.0, -8.0, -8.0, -2.0, -1.0, -4.0, -5.0, 0.0, 0.0];
    let kinds = [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4];
    model("llama")
        .set("tokenizer.ggml.model", Meta::Text("llama".into()))
        .set("tokenizer.ggml.scores", Meta::F32s(scores.into_iter().chain(std::iter::repeat_n(0.0, 256)).collect()))
        .set("tokenizer.ggml.token_type", Meta::I32s(kinds.into_iter().chain(std::iter::repeat_n(6, 256)).collect()))
        .set("tokenizer.ggml.tokens", Meta::Texts(tokens))
        .set("tokenizer.ggml.bos_token_id", Meta::U32(1))
        .set("tokenizer.ggml.eos_token_id", Meta::U32(2))
        .set("tokenizer.ggml.unknown_token_id", Meta::U32(0))
        .set("tokenizer.ggml.add_space_prefix", Meta::Bool(add_space))
}

fn tokenizer(builder: &Builder) -> crate::tokenizer::Tokenizer {
    let gguf = open(builder).unwrap();
    crate::tokenizer::Tokenizer::from_gguf(&gguf.tokenizer, &gguf.tokenizer_config, &gguf.file).unwrap()
}

#[test]
fn pieces_merge_by_their_scores() {
    let piece = tokenizer(&sentence_piece(true));
    let ids = |text: &str| piece.encode(text, false).unwrap();
    assert_eq!(ids("abc"), [9, 8]);
    assert_eq!(ids("ab"), [10]);
    assert_eq!(ids("c<turn>c"), [3, 6, 11, 3, 6]);
    let byte = |b: u8| 13 + u32::from(b);
    assert_eq!(ids("aé"), [9, byte(0xc3), byte(0xa9)]);
    assert_eq!(piece.encode("ab", true).unwrap(), [1, 10]);
    assert_eq!(piece.decode(&[1, 10, 8, byte(0xc3), byte(0xa9), 2], true).unwrap(), "abbcé");

    let piece = tokenizer(&sentence_piece(false));
    assert_eq!(piece.encode("abc", false).unwrap(), [4, 8]);
    assert_eq!(piece.encode("c   c", false).unwrap(), [6, 12, 3, 6]);
    assert_eq!(piece.decode(&[6, 12, 6], true).unwrap(), "c  c");
}

#[test]
fn byte_level_texts_are_split_as_the_file_says() {
    let bpe = tokenizer(&model("llama"));
    assert_eq!(bpe.encode("ab<|end|>b", true).unwrap(), [3, 2, 3, 1]);
    assert_eq!(bpe.decode(&[3, 2, 3, 1], true).unwrap(), "abb");
    assert_eq!(tokenizer(&model("llama").set("tokenizer.ggml.add_bos_token", Meta::Bool(false))).encode("ab", true).unwrap(), [2]);
}
