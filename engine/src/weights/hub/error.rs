use std::path::PathBuf;

/// Why a model cannot be had; one sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "{what}: {endpoint} knows no such repository, or it is private or gated: check the name, and set HF_TOKEN to a token that may read it"
    )]
    Unknown { what: String, endpoint: String },
    #[error(
        "{what}: access is refused to the token in HF_TOKEN: accept the model's terms at {endpoint}/{repository}, or take a token that may read it"
    )]
    Refused { what: String, repository: String, endpoint: String },
    #[error("{what}: access needs a token: accept the model's terms at {endpoint}/{repository} and set HF_TOKEN")]
    NeedsToken { what: String, repository: String, endpoint: String },
    #[error("{repository} has no revision \"{revision}\"; --revision takes a branch, a tag or a commit")]
    Revision { repository: String, revision: String },
    #[error("{what}: {endpoint} has no such file")]
    NoFile { what: String, endpoint: String },
    #[error("{what} cannot be fetched from {endpoint}: {reason}; what has arrived is kept, start again to go on")]
    Transfer { what: String, endpoint: String, reason: String },
    #[error("{what}: the answer of {endpoint} is not the hub's: {reason}")]
    Protocol { what: String, endpoint: String, reason: String },
    #[error("{repository} has no model that can be served: {reason}")]
    NoModel { repository: String, reason: String },
    #[error("HF_HUB_OFFLINE is set and the cache in {} does not have all of {model}; unset it once to fetch the model", cache.display())]
    Offline { model: String, cache: PathBuf },
    #[error("{} cannot be written: {reason}", path.display())]
    Cache { path: PathBuf, reason: String },
}

impl HubError {
    /// Whether the hub could not be asked, rather than said no.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Transfer { .. })
    }
}
