//! The hub's protocol: what a repository holds, what is known of a file, and a file's bytes.

use std::{io::Read, time::Duration};

use ureq::{Agent, Body, http::Response};

use super::{
    HubError, HubModel, HubSettings,
    answers::{self, FileInfo, RepositoryInfo},
};

/// More than any list of a repository's files takes.
const MAX_INFO_BYTES: u64 = 32 << 20;
const MAX_REDIRECTS: usize = 5;

pub(super) struct Client<'a> {
    pub(super) settings: &'a HubSettings,
    agent: Agent,
}

/// A file's bytes from some place on.
pub(super) struct Transfer {
    /// Where the bytes begin; 0 where the server does not do ranges.
    pub(super) start: u64,
    pub(super) body: Box<dyn Read>,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a HubSettings) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("tokenflow/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(settings.silence.min(Duration::from_secs(10))))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence));
        if settings.endpoint.starts_with("http://127.0.0.1") || settings.endpoint.starts_with("http://localhost") {
            config = config.proxy(None);
        }
        Self { settings, agent: config.build().into() }
    }

    pub(super) fn info(&self, model: &HubModel) -> Result<RepositoryInfo, HubError> {
        let url = format!("{}/api/models/{}/revision/{}", self.settings.endpoint, model.repository, escaped(&model.revision));
        let mut response = self.follow("GET", url, None, model, "")?;
        let text = response.body_mut().with_config().limit(MAX_INFO_BYTES).read_to_vec().map_err(|e| self.broken(model, "", &e))?;
        let endpoint = &self.settings.endpoint;
        answers::repository(&text).map_err(|reason| HubError::Protocol { what: model.to_string(), endpoint: endpoint.clone(), reason })
    }

    fn file_url(&self, model: &HubModel, sha: &str, file: &str) -> String {
        let path: Vec<String> = file.split('/').map(escaped).collect();
        format!("{}/{}/resolve/{sha}/{}", self.settings.endpoint, model.repository, path.join("/"))
    }

    pub(super) fn file_info(&self, model: &HubModel, sha: &str, file: &str) -> Result<FileInfo, HubError> {
        let response = self.ask("HEAD", self.file_url(model, sha, file), None, model, file, |location| location.starts_with('/'))?;
        let what = || format!("{}/{file}", model.repository);
        let endpoint = &self.settings.endpoint;
        answers::file(response.headers(), response.status()).map_err(|reason| HubError::Protocol {
            what: what(),
            endpoint: endpoint.clone(),
            reason,
        })
    }

    /// The file from byte `start` on, or from its beginning where the server does not do ranges.
    pub(super) fn transfer(&self, model: &HubModel, sha: &str, file: &str, start: u64) -> Result<Transfer, HubError> {
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let response = self.follow("GET", self.file_url(model, sha, file), range.as_deref(), model, file)?;
        let start = answers::first_byte(response.headers(), response.status(), start);
        Ok(Transfer { start, body: Box::new(response.into_body().into_reader()) })
    }

    fn follow(&self, method: &str, url: String, range: Option<&str>, model: &HubModel, file: &str) -> Result<Response<Body>, HubError> {
        self.ask(method, url, range, model, file, |_| true)
    }

    /// Sends a request and follows the redirects that `follows` agrees to; any other is the answer. The token goes to the endpoint only.
    fn ask(
        &self,
        method: &str,
        mut url: String,
        range: Option<&str>,
        model: &HubModel,
        file: &str,
        follows: impl Fn(&str) -> bool,
    ) -> Result<Response<Body>, HubError> {
        let endpoint = &self.settings.endpoint;
        for _ in 0..MAX_REDIRECTS {
            let mut request = if method == "HEAD" { self.agent.head(&url) } else { self.agent.get(&url) };
            // The sizes of files are those of their bytes as they are.
            request = request.header("accept-encoding", "identity");
            let is_ours = url.strip_prefix(endpoint.as_str()).is_some_and(|rest| rest.starts_with('/'));
            if let Some(token) = self.settings.token.as_ref().filter(|_| is_ours) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some(range) = range {
                request = request.header("range", range);
            }
            let response = request.call().map_err(|e| self.broken(model, file, &e))?;
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match location.filter(|_| response.status().is_redirection()) {
                Some(location) if follows(location) => {
                    url = if location.starts_with('/') { format!("{endpoint}{location}") } else { location.to_owned() };
                }
                _ => return self.checked(response, model, file),
            }
        }
        Err(self.broken(model, file, &"it redirects without an end"))
    }

    fn checked(&self, response: Response<Body>, model: &HubModel, file: &str) -> Result<Response<Body>, HubError> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        let (endpoint, repository) = (self.settings.endpoint.clone(), model.repository.clone());
        let what = what(model, file);
        let code = response.headers().get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Err(match (status.as_u16(), code) {
            (_, "RevisionNotFound") => HubError::Revision { repository, revision: model.revision.clone() },
            (401, "GatedRepo") => HubError::NeedsToken { what, repository, endpoint },
            (403, _) | (401, _) if self.settings.token.is_some() && code != "RepoNotFound" => {
                HubError::Refused { what, repository, endpoint }
            }
            (403, _) => HubError::NeedsToken { what, repository, endpoint },
            (401, _) => HubError::Unknown { what, endpoint },
            (404, _) if file.is_empty() => HubError::Unknown { what, endpoint },
            (404, _) => HubError::NoFile { what, endpoint },
            (status, _) => HubError::Transfer { what, endpoint, reason: format!("it answers with status {status}") },
        })
    }

    pub(super) fn broken(&self, model: &HubModel, file: &str, error: &dyn std::fmt::Display) -> HubError {
        HubError::Transfer { what: what(model, file), endpoint: self.settings.endpoint.clone(), reason: error.to_string() }
    }
}

fn what(model: &HubModel, file: &str) -> String {
    if file.is_empty() { model.to_string() } else { format!("{}/{file}", model.repository) }
}

/// For one segment of a URL's path.
fn escaped(segment: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(escape).collect()
}
