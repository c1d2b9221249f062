//! Loading of certificates, keys and revocation lists from files, and detection of changed files.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::TlsError;
use crate::error::FileError;
use crate::regular;

/// Limit of a file's length. The largest bundles of authorities have a quarter of a megabyte, and
/// revocation lists some megabytes.
const FILE_MAX: u64 = 16 << 20;

/// The marks of encrypted keys: PKCS #8, and the older form of OpenSSL (RFC 1421 §4.6.1.1).
const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

/// Loads the certificates of the file that an option names: at least one.
pub(super) fn load_certificates(path: &Path, option: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = all_of(&read(path, option)?, path)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned(), option });
    }
    Ok(certificates)
}

/// Loads the revocation lists of a file: at least one.
pub(super) fn load_lists(
    path: &Path,
    option: &'static str,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists: Vec<_> = all_of(&read(path, option)?, path)?;
    if lists.is_empty() {
        return Err(TlsError::NoList { path: path.to_owned(), option });
    }
    Ok(lists)
}

fn all_of<T: PemObject>(pem: &[u8], path: &Path) -> Result<Vec<T>, TlsError> {
    let all: Result<Vec<T>, pem::Error> = T::pem_slice_iter(pem).collect();
    all.map_err(|error| TlsError::InvalidPem { path: path.to_owned(), error })
}

/// Loads the private key of a file.
pub(super) fn load_key(path: &Path, option: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path, option)?;
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o007 != 0 {
        tracing::warn!("{} is readable by everybody; restrict it with chmod 600", path.display());
    }
    let is_encrypted = ENCRYPTED.iter().any(|mark| pem.windows(mark.len()).any(|window| window == *mark));
    // The parser's own message could quote the file.
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted => Err(TlsError::EncryptedKey { path: path.to_owned(), option }),
        Err(_) => Err(TlsError::NoKey { path: path.to_owned(), option }),
    }
}

/// Reads a whole file into memory that is wiped on drop, because it may contain a key.
fn read(path: &Path, option: &'static str) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = || -> io::Result<_> {
        let file = regular::open(path)?;
        let len = file.metadata()?.len().min(FILE_MAX);
        // Allocated at full size: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > FILE_MAX => {
            Err(TlsError::FileTooLong { path: path.to_owned(), mib: FILE_MAX >> 20, option })
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(FileError::new(format!("cannot read {option}"), path, error).into()),
    }
}

/// The identity of a file's content: changes if the name leads to another file, or the file has
/// other content. Symbolic links are followed, so a changed link is another file as well.
#[derive(PartialEq, Eq, Clone, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of a file; `None` if the file does not exist.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Files that belong together, with their stamps when they were last read.
///
/// Changes are detected by polling instead of notification. Polling works on every file system and
/// also notices renames and changed symbolic links anywhere on the path. It costs a few `stat`
/// calls every other second.
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    read: Vec<Option<Stamp>>,
    /// The stamps at the last poll, if they differ from those read.
    changing: Option<Vec<Option<Stamp>>>,
}

impl Watched {
    /// Watches these files, which are about to be read.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let mut watched = Watched { paths, read: Vec::new(), changing: None };
        watched.about_to_be_read();
        watched
    }

    /// Marks the current content as read. Called before reading, so that a change during the read
    /// is detected later.
    pub(super) fn about_to_be_read(&mut self) {
        self.read = self.stamps();
        self.changing = None;
    }

    /// Returns whether the files have changed since they were read, but not since the last poll: a
    /// writer of two files, or of a long one, can finish first.
    pub(super) fn have_changed(&mut self) -> bool {
        let now = self.stamps();
        if now == self.read {
            self.changing = None;
            return false;
        }
        let is_settled = self.changing.as_ref() == Some(&now);
        self.changing = Some(now);
        is_settled
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.paths.iter().map(|path| Stamp::of(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn settled_changes_are_detected() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        write("a", "one");
        write("b", "two");
        fs::create_dir(path("1")).unwrap();
        fs::create_dir(path("2")).unwrap();
        write("1/c", "three");
        write("2/c", "three");
        symlink("1", path("data")).unwrap();
        symlink("data/c", path("c")).unwrap();
        let mut watched = Watched::new(vec![path("a"), path("b"), path("c")]);
        assert!(!watched.have_changed() && !watched.have_changed());

        let mut found_by = |what: &str, change: &dyn Fn()| {
            change();
            assert!(!watched.have_changed(), "{what}: perhaps not all of it yet");
            assert!(watched.have_changed(), "{what}");
            watched.about_to_be_read();
            assert!(!watched.have_changed() && !watched.have_changed(), "{what}: once");
        };
        found_by("other bytes", &|| write("a", "ONE!"));
        found_by("as many other bytes", &|| write("a", "one!"));
        found_by("a rename", &|| {
            write("new", "one!");
            fs::rename(path("new"), path("a")).unwrap();
        });
        found_by("a symbolic link on the way", &|| {
            symlink("2", path("new")).unwrap();
            fs::rename(path("new"), path("data")).unwrap();
        });
        found_by("an absence", &|| fs::remove_file(path("b")).unwrap());
        found_by("a return", &|| write("b", "two"));

        write("a", "begun");
        assert!(!watched.have_changed());
        write("a", "begun, and gone on");
        assert!(!watched.have_changed(), "still changing");
        assert!(watched.have_changed());
        // The original content again, before it was read.
        watched.about_to_be_read();
        fs::rename(path("a"), path("aside")).unwrap();
        assert!(!watched.have_changed());
        assert!(watched.have_changed());
    }

    #[test]
    fn file_length_is_bounded() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("long");
        let file = fs::File::create(&path).unwrap();
        file.set_len(FILE_MAX).unwrap();
        assert_eq!(read(&path, "--option").unwrap().len() as u64, FILE_MAX);
        file.set_len(FILE_MAX + 1).unwrap();
        let error = read(&path, "--option").unwrap_err().to_string();
        assert!(error.contains("16 MiB") && error.contains("--option"), "{error}");
        assert!(read(Path::new("/dev/zero"), "--option").is_err());
    }
}
