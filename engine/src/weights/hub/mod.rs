//! Models by their name on the Hugging Face hub, or on a mirror that speaks its protocol. What is fetched lies in the cache that Python's
//! `huggingface_hub` uses, in the same layout, so that either finds what the other fetched.
//!
//! Transfers are our own: of the hub's crate, 1.0 starts a broken download again from nothing and brings 80 crates, and 0.5 has no
//! timeouts and appends a whole file to a half one where a server ignores ranges.

pub mod answers;
mod cache;
mod client;
mod download;
mod error;
mod files;
mod name;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use error::HubError;
pub use files::{Wanted, wanted};
pub use name::{HubModel, NotAName};
pub use settings::HubSettings;

use cache::Snapshot;
use client::Client;

/// Makes sure that the model's files are in the cache, and says where: the snapshot's folder, or the GGUF file in it.
///
/// # Errors
/// When the hub refuses or cannot be reached, or the connection breaks again and again; one sentence with the repository, the file and
/// what to do. What has arrived is kept, and the next call goes on from there.
pub fn fetch(model: &HubModel, settings: &HubSettings) -> Result<PathBuf, HubError> {
    if settings.offline {
        return cached(model, settings)?.ok_or_else(|| HubError::Offline { model: model.to_string(), cache: settings.cache.clone() });
    }
    let client = Client::new(settings);
    let info = match client.info(model) {
        Ok(info) => info,
        Err(error) if error.is_outage() => {
            let Some(path) = cached(model, settings)? else { return Err(error) };
            tracing::warn!(%error, "the hub does not answer: what the cache has is served");
            return Ok(path);
        }
        Err(error) => return Err(error),
    };
    let snapshot = Snapshot::create(settings, model, &info.sha)?;
    let download = |file: &str| download::file(&client, &snapshot, model, file);
    let (shards, entry) = match wanted(model, &info.files)? {
        Wanted::Gguf { parts, first } => (parts, Some(first)),
        Wanted::Folder { files, index } => {
            for file in files {
                download(&file)?;
            }
            let shards = index.map(|index| files::shards(&snapshot.path(index), model)).transpose()?;
            (shards.unwrap_or_default(), None)
        }
    };
    for file in shards {
        download(&file)?;
    }
    snapshot.note_revision(&model.revision)?;
    Ok(entry.map_or_else(|| snapshot.folder(), |first| snapshot.path(&first)))
}

/// Where the cache has the whole model.
fn cached(model: &HubModel, settings: &HubSettings) -> Result<Option<PathBuf>, HubError> {
    let Some(snapshot) = Snapshot::find(settings, model) else { return Ok(None) };
    let there = snapshot.files();
    let all_there = |files: &[String]| files.iter().all(|file| there.contains(file));
    Ok(match wanted(model, &there) {
        Ok(Wanted::Gguf { parts, first }) if all_there(&parts) => Some(snapshot.path(&first)),
        Ok(Wanted::Folder { index: None, .. }) => Some(snapshot.folder()),
        Ok(Wanted::Folder { index: Some(index), .. }) => {
            let shards = files::shards(&snapshot.path(index), model)?;
            all_there(&shards).then(|| snapshot.folder())
        }
        _ => None,
    })
}
