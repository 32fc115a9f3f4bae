//! Files for their owner's eyes only, written all at once or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Writes a file with mode 0600, synced, in place of one that is there; its folder is made where there is none.
/// After a crash, the file is as before or as it should be.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    create_folder(&folder)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let temporary = folder.join(format!(".{}.new", hex::encode(random)));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What went wrong first is what counts.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    permissions::sync_folder(&folder)
}

/// Makes a folder that only its owner can look into; one that is there stays as it is.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    permissions::private_folder(&mut DirBuilder::new())
        .recursive(true)
        .create(folder)
}

/// The whole content of a file of at most so many bytes; `None` where there is no such file.
///
/// # Errors
/// What the system says; where the file is larger.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(bytes))
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = permissions::private_file(OpenOptions::new().write(true).create_new(true)).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What Unix calls permissions.
#[cfg(unix)]
pub(crate) mod permissions {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
    use std::path::Path;

    pub(crate) fn open_to_others(metadata: &Metadata) -> Option<u32> {
        let mode = metadata.mode() & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }

    pub(crate) fn private_folder(builder: &mut DirBuilder) -> &mut DirBuilder {
        builder.mode(0o700)
    }

    pub(crate) fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
        options.mode(0o600)
    }

    pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Elsewhere a user's folder is private by inheritance.
#[cfg(not(unix))]
pub(crate) mod permissions {
    use std::fs::{DirBuilder, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    pub(crate) fn open_to_others(_: &Metadata) -> Option<u32> {
        None
    }

    pub(crate) fn private_folder(builder: &mut DirBuilder) -> &mut DirBuilder {
        builder
    }

    pub(crate) fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_whole_replaced_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/state.json");
        assert_eq!(read(&path, 10).unwrap(), None);
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path, 6).unwrap().unwrap(), b"second");
        assert!(read(&path, 5).is_err(), "one byte more than asked for");
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "kept").unwrap();
        assert!(write(&path, b"x").is_err(), "a folder is in the way");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(path.join("inside")).unwrap(), "kept");
    }
}
