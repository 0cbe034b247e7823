//! Files that are whole or absent.

use std::path::Path;

use anyhow::Context;

/// Writes beside the target and renames, so that nobody ever finds half a file.
///
/// # Errors
/// When the folder cannot be made or the file not be written; the message names it.
pub(super) fn write(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, contents.as_ref())?;
        // Others may read it, as any file that a command makes.
        std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
