//! The cache's layout: `models--org--name/` with contents in `blobs/` by their ETags, links to them in `snapshots/COMMIT/`, and in `refs/`
//! the commit of each revision.

use std::{
    fs::{self, File},
    path::{Component, Path, PathBuf},
};

use super::{HubError, HubModel, HubSettings};

/// One commit's files.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// `models--org--name`.
    repository: PathBuf,
    /// Where locks lie, beside the repositories.
    locks: PathBuf,
    pub(super) sha: String,
}

impl Snapshot {
    fn at(settings: &HubSettings, model: &HubModel, sha: &str) -> Self {
        let name = format!("models--{}", model.repository.replace('/', "--"));
        Self { repository: settings.cache.join(&name), locks: settings.cache.join(".locks").join(&name), sha: sha.to_owned() }
    }

    pub(super) fn create(settings: &HubSettings, model: &HubModel, sha: &str) -> Result<Self, HubError> {
        let snapshot = Self::at(settings, model, sha);
        for folder in [snapshot.repository.join("blobs"), snapshot.folder(), snapshot.locks.clone()] {
            fs::create_dir_all(&folder).map_err(|e| cannot(&folder, &e))?;
        }
        Ok(snapshot)
    }

    /// What the cache has of the revision.
    pub(super) fn find(settings: &HubSettings, model: &HubModel) -> Option<Self> {
        let any = Self::at(settings, model, &model.revision);
        let sha = match fs::read_to_string(any.reference(&model.revision)?) {
            Ok(sha) => sha.trim().to_owned(),
            Err(_) => model.revision.clone(),
        };
        let is_plain = !sha.is_empty() && sha.bytes().all(|b| b.is_ascii_alphanumeric());
        let snapshot = Self { sha, ..any };
        (is_plain && snapshot.folder().is_dir()).then_some(snapshot)
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.sha)
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder().join(file)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repository.join("blobs").join(etag)
    }

    /// Paths of all files, with `/` between folders. A link whose content is gone is none.
    pub(super) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.folder().join(&folder)).into_iter().flatten().flatten() {
                let path = folder.join(entry.file_name());
                match fs::metadata(entry.path()) {
                    Ok(metadata) if metadata.is_dir() => folders.push(path),
                    Ok(_) => files.extend(path.to_str().map(str::to_owned)),
                    Err(_) => {}
                }
            }
        }
        files
    }

    /// Makes the file of this commit be the content `etag`.
    pub(super) fn link(&self, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.path(file);
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|e| cannot(parent, &e))?;
        let up = "../".repeat(2 + file.matches('/').count());
        // Replaced at once, should another process have made it meanwhile.
        let temporary = path.with_file_name(format!(".{etag}.{}.link", std::process::id()));
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &temporary).map_err(|e| cannot(&path, &e))?;
        fs::rename(&temporary, &path).map_err(|e| cannot(&path, &e))
    }

    pub(super) fn note_revision(&self, revision: &str) -> Result<(), HubError> {
        let Some(path) = self.reference(revision).filter(|_| revision != self.sha) else { return Ok(()) };
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|e| cannot(parent, &e))?;
        fs::write(&path, &self.sha).map_err(|e| cannot(&path, &e))
    }

    /// `None` for a revision that would lead out of the cache.
    fn reference(&self, revision: &str) -> Option<PathBuf> {
        let is_plain = Path::new(revision).components().all(|part| matches!(part, Component::Normal(_)));
        (is_plain && !revision.is_empty()).then(|| self.repository.join("refs").join(revision))
    }

    /// Held while a content is written; other processes, Python's too, wait for it.
    pub(super) fn lock(&self, etag: &str) -> Result<File, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(|e| cannot(&path, &e))?;
        if file.try_lock().is_err() {
            tracing::info!(lock = %path.display(), "another process fetches the same file: waiting for it");
            file.lock().map_err(|e| cannot(&path, &e))?;
        }
        Ok(file)
    }
}

pub(super) fn cannot(path: &Path, error: &std::io::Error) -> HubError {
    HubError::Cache { path: path.to_owned(), reason: error.to_string() }
}
