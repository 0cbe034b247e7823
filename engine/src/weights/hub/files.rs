//! Which of a repository's files serving needs.

use std::{collections::BTreeSet, path::Path};

use super::{HubError, HubModel, answers, name::Choice};
use crate::weights::gguf_parts;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Beside config and weights; each where it is there.
const OPTIONAL: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "modules.json",
    "1_Pooling/config.json",
];

/// The files of one model.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    /// A Hugging Face folder; `index` among `files` names the shards.
    Folder { files: Vec<String>, index: Option<&'static str> },
    /// The parts of a GGUF file, `first` among them.
    Gguf { parts: Vec<String>, first: String },
}

/// Of a repository's `files` those that serving `model` needs.
///
/// # Errors
/// When there is no such model among them, or more than one that it could be.
pub fn wanted(model: &HubModel, files: &[String]) -> Result<Wanted, HubError> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let fail = |reason: String| HubError::NoModel { repository: model.repository.clone(), reason };
    let is_folder = has(SINGLE) || has(INDEX);
    if model.choice == Choice::Only && is_folder {
        if !has(CONFIG) {
            return Err(fail(format!("it has weights, but no {CONFIG}")));
        }
        let index = has(INDEX).then_some(INDEX);
        let names = [CONFIG].into_iter().chain(OPTIONAL.into_iter().filter(|name| has(name))).chain([index.unwrap_or(SINGLE)]);
        return Ok(Wanted::Folder { files: names.map(str::to_owned).collect(), index });
    }
    // Files for images and the like lie beside the models.
    let is_model = |name: &&String| name.ends_with(".gguf") && !name.to_lowercase().contains("mmproj");
    let models: BTreeSet<Vec<String>> = files.iter().filter(is_model).map(|file| gguf_parts(file)).collect();
    let chosen: Vec<&Vec<String>> = match &model.choice {
        Choice::Only => models.iter().collect(),
        Choice::File(name) => models.iter().filter(|parts| parts.contains(name)).collect(),
        Choice::Quantization(tag) => models.iter().filter(|parts| has_tag(&parts[0], tag)).collect(),
    };
    let names = || models.iter().map(|parts| parts[0].as_str()).collect::<Vec<_>>().join(", ");
    match chosen[..] {
        [] if models.is_empty() => Err(fail("it has neither safetensors nor GGUF files".into())),
        [] => Err(fail(format!("none of its GGUF files is {model}; it has {}", names()))),
        [parts] => match parts.iter().find(|part| !has(part)) {
            None => Ok(Wanted::Gguf { parts: parts.clone(), first: parts[0].clone() }),
            Some(missing) => Err(fail(format!("the part {missing} is missing"))),
        },
        _ => Err(fail(format!("it has several GGUF files, name one as {}:Q4_K_M or by its file: {}", model.repository, names()))),
    }
}

/// Whether the tag stands by itself: "Q4_K" is not in "m-Q4_K_M.gguf".
fn has_tag(file: &str, tag: &str) -> bool {
    let (file, tag) = (file.to_lowercase(), tag.to_lowercase());
    let is_inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    file.match_indices(&tag).any(|(at, _)| !is_inside(file[..at].chars().next_back()) && !is_inside(file[at + tag.len()..].chars().next()))
}

/// The files that an index names.
pub(super) fn shards(index: &Path, model: &HubModel) -> Result<Vec<String>, HubError> {
    let fail = |reason: String| HubError::NoModel { repository: model.repository.clone(), reason: format!("{INDEX} {reason}") };
    let text = std::fs::read(index).map_err(|e| fail(format!("cannot be read: {e}")))?;
    Ok(answers::shards(&text).map_err(fail)?.into_iter().collect())
}
