use std::{fmt, str::FromStr};

/// A model on the hub: `org/name`, and where it has several GGUF files, which one: `org/name:Q4_K_M` or `org/name/file.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    /// `org/name`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    pub(super) choice: Choice,
}

/// Which of a repository's models is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Only,
    /// The GGUF file whose name has this in it.
    Quantization(String),
    /// The GGUF file.
    File(String),
}

impl HubModel {
    pub fn with_revision(self, revision: Option<&str>) -> Self {
        Self { revision: revision.map_or(self.revision, str::to_owned), ..self }
    }
}

/// Not the name of a model on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a name such as org/model, org/model:Q4_K_M or org/model/file.gguf")]
pub struct NotAName;

impl FromStr for HubModel {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (path, tag) = text.split_once(':').map_or((text, None), |(path, tag)| (path, Some(tag)));
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() < 2 || !parts.iter().all(|part| is_name(part)) || !tag.is_none_or(is_name) {
            return Err(NotAName);
        }
        let choice = match (&parts[2..], tag) {
            ([], None) => Choice::Only,
            ([], Some(tag)) => Choice::Quantization(tag.into()),
            (file, None) if path.ends_with(".gguf") => Choice::File(file.join("/")),
            _ => return Err(NotAName),
        };
        Ok(Self { repository: parts[..2].join("/"), revision: "main".into(), choice })
    }
}

/// The hub's own rule; it also keeps a name from leading out of the cache.
fn is_name(part: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 255 && part.chars().all(is_allowed) && !part.starts_with(['.', '-']) && !part.contains("..")
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.choice {
            Choice::Only => f.write_str(&self.repository),
            Choice::Quantization(tag) => write!(f, "{}:{tag}", self.repository),
            Choice::File(file) => write!(f, "{}/{file}", self.repository),
        }
    }
}
