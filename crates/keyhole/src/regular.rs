//! Opening of files whose names or contents come from elsewhere: regular files only, without
//! waiting for the other end of a FIFO. Replacement of files that only their owner may read.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Flags that keep an open from waiting, and from making a terminal the process's own.
pub(crate) const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens a regular file for reading. Follows symbolic links.
///
/// # Errors
/// The system's errors; `InvalidInput`, naming its kind, if it is another kind of file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// Opens a regular file with these options. Follows symbolic links.
///
/// # Errors
/// The errors of [`open`].
pub(crate) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match options.custom_flags(FLAGS).open(path) {
        // A socket, or a FIFO without a reader.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            Err(path.metadata().map_or(error, |metadata| other_kind(metadata.file_type())))
        }
        opened => check(opened?),
    }
}

/// Reads a whole file, up to `len_max` bytes.
///
/// # Errors
/// The errors of [`open`]; `InvalidData` for a longer file.
pub(crate) fn read(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(len_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {len_max} bytes")));
    }
    Ok(bytes)
}

/// Reads a whole file as text, up to `len_max` bytes.
///
/// # Errors
/// The errors of [`read`]; `InvalidData` for a file that is not UTF-8.
pub(crate) fn read_to_string(path: &Path, len_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, len_max)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Replaces a file durably: a crash leaves either the old or the new one. Its owner stays the same, or
/// becomes the directory's owner: the writer may be root. Other users have no rights on it.
///
/// # Errors
/// The system's errors.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let owner = fs::metadata(&path).or_else(|_| fs::metadata(directory))?;
    let prefix = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = tempfile::Builder::new().prefix(prefix).tempfile_in(directory)?;
    let made = new.as_file().metadata()?;
    if (made.uid(), made.gid()) != (owner.uid(), owner.gid()) {
        fchown(new.as_file(), Some(owner.uid()), Some(owner.gid()))?;
    }
    new.write_all(contents)?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    File::open(directory)?.sync_all()
}

/// Returns the file if it is a regular one.
///
/// # Errors
/// `InvalidInput`, naming its kind, if it is another kind of file.
pub(crate) fn check(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(other_kind(kind)) }
}

fn other_kind(kind: FileType) -> io::Error {
    let kind = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a FIFO or a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}; expected a regular file"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn other_kinds_of_file_are_refused_without_waiting() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, 0o600.into(), 0).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        symlink(at("fifo"), at("link")).unwrap();
        for (path, kind) in [
            (at("fifo"), "a FIFO"),
            (at("link"), "a FIFO"),
            (at("socket"), "a socket"),
            (home.path().to_owned(), "a directory"),
            ("/dev/null".into(), "a device"),
        ] {
            for error in [open(&path).unwrap_err(), read_to_string(&path, 9).unwrap_err()] {
                assert!(error.to_string().contains(kind), "{}: {error}", path.display());
            }
        }
        let error = open_with(OpenOptions::new().append(true), &at("fifo")).unwrap_err();
        assert!(error.to_string().contains("a FIFO"), "{error}");
    }

    #[test]
    fn regular_file_is_read_up_to_the_limit() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "12345").unwrap();
        let link = home.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read_to_string(&link, 5).unwrap(), "12345");
        assert!(read_to_string(&path, 4).unwrap_err().to_string().contains("4 bytes"));
    }
}
