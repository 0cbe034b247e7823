//! Privilege is needed to attach the kernel program and for nothing after it, so it is given up for good.

use std::io;

use caps::{CapSet, CapsHashSet};

/// Drops every capability of this thread and of all threads that it starts from now on, and the way back to them: call it before there are
/// others.
///
/// # Errors
/// When the kernel refuses, which it has no reason to: dropping needs no privilege.
pub fn drop_all() -> Result<(), DropError> {
    // Emptying the bounding set needs CAP_SETPCAP; without it there is no way to regain what it allows either.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    // Kernels before 4.3 have no ambient set to empty.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &CapsHashSet::new())?;
    caps::set(None, CapSet::Permitted, &CapsHashSet::new())?;
    // A program that root owns could be run with privilege all the same.
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this command takes numbers alone.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(DropError::NoNewPrivileges(io::Error::last_os_error())),
    }
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    #[error("{0}")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("prctl(PR_SET_NO_NEW_PRIVS): {0}")]
    NoNewPrivileges(io::Error),
}
