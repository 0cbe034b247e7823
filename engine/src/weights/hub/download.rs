//! One file into the cache. A broken transfer is taken up where it broke, in this run or the next.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    thread,
};

use super::{
    HubError, HubModel,
    answers::FileInfo,
    cache::{Snapshot, cannot},
    client::{Client, Transfer},
};
use crate::progress::Progress;

/// Failures after which a transfer is given up, unless bytes came in between.
const MAX_FAILURES: u32 = 5;
const CHUNK: usize = 256 << 10;

/// Why a transfer stopped.
enum Stopped {
    /// Trying again may help.
    Broken(String),
    Failed(HubError),
}

/// Makes sure that the snapshot has the file.
pub(super) fn file(client: &Client<'_>, snapshot: &Snapshot, model: &HubModel, file: &str) -> Result<(), HubError> {
    if snapshot.path(file).exists() {
        return Ok(());
    }
    let info = again_and_again(client, model, file, || match client.file_info(model, &snapshot.sha, file) {
        Err(error) if error.is_outage() => Err((Stopped::Broken(reason(error)), false)),
        other => other.map_err(|error| (Stopped::Failed(error), false)),
    })?;
    let blob = snapshot.blob(&info.etag);
    let _lock = snapshot.lock(&info.etag)?;
    if !blob.exists() {
        let partial = blob.with_file_name(format!("{}.incomplete", info.etag));
        let mut progress = Progress::new("downloading", &format!("{}/{file}", model.repository), info.size);
        again_and_again(client, model, file, || {
            let before = size_of(&partial);
            let result = transfer(client, snapshot, model, file, &info, &partial, &mut progress);
            result.map_err(|stopped| (stopped, size_of(&partial) > before))
        })?;
        fs::rename(&partial, &blob).map_err(|e| cannot(&blob, &e))?;
        progress.finish();
    }
    snapshot.link(file, &info.etag)
}

/// Pauses between attempts get longer, until one makes progress.
fn again_and_again<T>(
    client: &Client<'_>,
    model: &HubModel,
    file: &str,
    mut attempt: impl FnMut() -> Result<T, (Stopped, bool)>,
) -> Result<T, HubError> {
    let mut failures = 0;
    loop {
        let reason = match attempt() {
            Ok(value) => return Ok(value),
            Err((Stopped::Failed(error), _)) => return Err(error),
            Err((Stopped::Broken(reason), got_further)) => {
                failures = if got_further { 1 } else { failures + 1 };
                reason
            }
        };
        if failures >= MAX_FAILURES {
            return Err(client.broken(model, file, &reason));
        }
        tracing::warn!(file, reason, "the transfer broke and is taken up again");
        thread::sleep(client.settings.first_pause * 2u32.pow(failures - 1));
    }
}

fn transfer(
    client: &Client<'_>,
    snapshot: &Snapshot,
    model: &HubModel,
    file: &str,
    info: &FileInfo,
    partial: &Path,
    progress: &mut Progress,
) -> Result<(), Stopped> {
    let failed = |e: io::Error| Stopped::Failed(cannot(partial, &e));
    let mut out = OpenOptions::new().create(true).append(true).open(partial).map_err(failed)?;
    let mut have = out.metadata().map_err(failed)?.len();
    if have > info.size {
        out.set_len(0).map_err(failed)?;
        have = 0;
    }
    if have < info.size {
        let Transfer { start, mut body } = match client.transfer(model, &snapshot.sha, file, have) {
            Ok(transfer) => transfer,
            Err(error) if error.is_outage() => return Err(Stopped::Broken(reason(error))),
            Err(error) => return Err(Stopped::Failed(error)),
        };
        if start != have {
            // The server does not do ranges, or not this one.
            out.set_len(0).map_err(failed)?;
            have = 0;
            if start != 0 {
                return Err(Stopped::Broken(format!("the bytes from {start} on came instead of those asked for")));
            }
        }
        let mut chunk = vec![0; CHUNK];
        while have < info.size {
            progress.at(have);
            let count = body.read(&mut chunk).map_err(|e| Stopped::Broken(e.to_string()))?;
            if count == 0 {
                return Err(Stopped::Broken(format!("the connection ended after {have} of {} bytes", info.size)));
            }
            // Of more bytes than were announced, none is wanted.
            let wanted = &chunk[..count.min((info.size - have) as usize)];
            out.write_all(wanted).map_err(failed)?;
            have += wanted.len() as u64;
        }
    }
    progress.at(have);
    out.sync_all().map_err(failed)
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn reason(error: HubError) -> String {
    match error {
        HubError::Transfer { reason, .. } => reason,
        other => other.to_string(),
    }
}
