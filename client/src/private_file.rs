//! Files for their owner's eyes only: written all at once or not at all, or added to.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Writes a file with mode 0600, synced, in place of one that is there; its folder is made where there is none.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    create_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // Left by a process that was killed; its permissions may be anything.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = permissions::file(OpenOptions::new().write(true).create_new(true)).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(folder)
}

/// Opens a file at whose end is written; it and its folder are made where there are none.
pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
    let folder = folder_of(path);
    create_folder(folder)?;
    let is_new = !path.exists();
    let file = permissions::file(OpenOptions::new().read(true).append(true).create(true)).open(path)?;
    if is_new {
        sync_folder(folder)?;
    }
    Ok(file)
}

/// Opens a file that other processes lock; it and its folder are made where there are none.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    create_folder(folder_of(path))?;
    permissions::file(OpenOptions::new().write(true).create(true).truncate(false)).open(path)
}

/// The whole content of a file of at most so many bytes; nothing where there is no such file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(bytes))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    permissions::folder(&mut DirBuilder::new())
        .recursive(true)
        .create(folder)
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    folder
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// What keeps files from others, by system.
mod permissions {
    use std::fs::{DirBuilder, OpenOptions};

    #[cfg(unix)]
    pub(super) fn file(options: &mut OpenOptions) -> &mut OpenOptions {
        std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
    }

    #[cfg(unix)]
    pub(super) fn folder(builder: &mut DirBuilder) -> &mut DirBuilder {
        std::os::unix::fs::DirBuilderExt::mode(builder, 0o700)
    }

    /// A folder in a user's profile is that user's.
    #[cfg(not(unix))]
    pub(super) fn file(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    /// See [`file`].
    #[cfg(not(unix))]
    pub(super) fn folder(builder: &mut DirBuilder) -> &mut DirBuilder {
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_replaced_whole_and_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        assert_eq!(read(&path, 9).unwrap(), None);
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b.json.new"), "left by a crash").unwrap();
        write(&path, b"first").unwrap();
        write(&path, b"other").unwrap();
        open_to_append(&path).unwrap().write_all(b"!").unwrap();
        assert_eq!(read(&path, 6).unwrap().unwrap(), b"other!");
        assert!(read(&path, 5).is_err(), "a byte more than may be");
        let (log, lock) = (folder.path().join("c/d/log"), folder.path().join("c/lock"));
        let _ = (open_to_append(&log).unwrap(), open_lock(&lock).unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!([&path, &log, &lock].map(|path| mode(path)), [0o600; 3]);
            assert_eq!(mode(log.parent().unwrap()), 0o700);
        }
    }
}
