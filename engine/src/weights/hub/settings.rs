use std::{env, path::PathBuf, time::Duration};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, and how to behave towards it: what `huggingface_hub` takes from the environment, by the same names.
#[derive(Clone)]
pub struct HubSettings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or the file in which `hf auth login` left one.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// After how much silence a connection is given up.
    pub silence: Duration,
    /// Pause before a broken download is taken up again; doubled each time.
    pub first_pause: Duration,
}

impl HubSettings {
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| path("HOME").map(|home| home.join(".cache/huggingface")))
            .unwrap_or_else(|| ".cache/huggingface".into());
        let from_file = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            std::fs::read_to_string(file).ok()
        };
        let token = variable("HF_TOKEN").or_else(from_file).map(|token| token.trim().to_owned());
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into()).trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            // One that cannot stand in a header would fail every request.
            token: token.filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")),
            silence: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
        }
    }
}
