use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::Serialize;

use super::validate::VectorForm;
use crate::api::{generation::Usage, state::unix_seconds};

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Embeddings {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    data: Vec<Embedding>,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Embedding {
    index: usize,
    object: &'static str,
    embedding: Vector,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    /// Little-endian f32.
    Base64(String),
}

/// `vectors` are those of the prompts, in their order.
pub(super) fn embeddings(request_id: &str, model: String, vectors: Vec<Vec<f32>>, form: &VectorForm, num_tokens: usize) -> Embeddings {
    let embedding = |(index, vector)| Embedding { index, object: "embedding", embedding: form.encode(vector) };
    Embeddings {
        id: format!("embd-{request_id}"),
        object: "list",
        created: unix_seconds(),
        model,
        data: vectors.into_iter().enumerate().map(embedding).collect(),
        usage: Usage::new(num_tokens, 0),
    }
}

impl VectorForm {
    fn encode(&self, mut vector: Vec<f32>) -> Vector {
        if let Some(dimensions) = self.dimensions {
            vector.truncate(dimensions);
            let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
        if self.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Vector::Base64(BASE64_STANDARD.encode(bytes))
        } else {
            Vector::Float(vector)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_dimensions_have_length_one_again() {
        let encode = |dimensions| match (VectorForm { base64: false, dimensions }).encode(vec![0.48, 0.64, 0.6]) {
            Vector::Float(vector) => vector,
            Vector::Base64(text) => panic!("{text}"),
        };
        assert_eq!(encode(None), [0.48, 0.64, 0.6]);
        assert_eq!(encode(Some(2)), [0.6, 0.8]);
        assert_eq!(encode(Some(1)), [1.0]);
    }

    #[test]
    fn base64_is_of_little_endian_floats() {
        let form = VectorForm { base64: true, dimensions: None };
        assert_eq!(serde_json::to_value(form.encode(vec![1.0, -2.0])).unwrap(), "AACAPwAAAMA=");
    }
}
