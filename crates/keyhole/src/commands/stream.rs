//! Streaming of plaintext and messages in constant memory: a chunk is written only after its tag
//! was verified.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, TAG_LEN};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempPath;
use zeroize::Zeroizing;

use super::{CommandError, Result};
use crate::engine::AnyAead;
use crate::regular;

/// Bytes read and written at once.
const BUFFER_LEN: usize = 1 << 20;

/// Minimum length of an input for which progress is shown.
const PROGRESS_MIN: u64 = 64 << 20;

/// The input of a command.
pub(crate) struct Input {
    name: String,
    reader: BufReader<File>,
    /// Bytes from the start position to the end; `None` for a pipe.
    pub(crate) len: Option<u64>,
    /// The position of the end in the file.
    end: Option<u64>,
    /// The identity of the file.
    pub(crate) id: Option<FileId>,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (name, file) = match path.to_str() {
            Some("-") => ("standard input".to_owned(), stdio(io::stdin())),
            _ => (path.display().to_string(), regular::open(path)),
        };
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                CommandError::Usage(format!("cannot read {name}: {error}; read it from standard input: `- < {name}`"))
            }
            _ => CommandError::io(format_args!("cannot read {name}"), error),
        })?;
        Input::new(name, file)
    }

    fn new(name: String, mut file: File) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| CommandError::io(format_args!("cannot read {name}"), error))?;
        // A file on standard input may have been partly read.
        let begin = if metadata.is_file() { file.stream_position().ok() } else { None };
        let len = begin.map(|at| metadata.len().saturating_sub(at));
        let end = begin.map(|_| metadata.len());
        let id = FileId::of(&metadata);
        Ok(Input { name, reader: BufReader::with_capacity(BUFFER_LEN, file), len, end, id })
    }

    /// Copies a pipe into an unnamed file, so that it is seekable. The copy contains only the
    /// received ciphertext.
    pub(crate) fn seekable(mut self) -> Result<Self> {
        if self.len.is_some() {
            return Ok(self);
        }
        let failed = |error| CommandError::io("cannot spool the input to a temporary file (see TMPDIR)", error);
        let mut file = tempfile::tempfile().map_err(failed)?;
        io::copy(&mut self.reader, &mut file).and_then(|_| file.rewind()).map_err(failed)?;
        Input::new(self.name, file)
    }

    /// Skips `len` bytes, which must exist.
    pub(crate) fn skip(&mut self, len: u64) -> Result<()> {
        let Some(before_last) = len.checked_sub(1) else { return Ok(()) };
        if let Some(end) = self.end {
            // A forged length may exceed the length of any file.
            let left = end.saturating_sub(self.position()?);
            let offset = i64::try_from(before_last).ok().filter(|_| len <= left).ok_or_else(|| self.ends_early())?;
            self.reader.seek_relative(offset).map_err(|error| self.failed(error))?;
        } else {
            let mut passed = (&mut self.reader).take(before_last);
            io::copy(&mut passed, &mut io::sink()).map_err(|error| self.failed(error))?;
        }
        // Seeking past the end of a truncated file succeeds; reading there does not.
        self.exactly(&mut [0])
    }

    /// Returns the position in the file.
    pub(crate) fn position(&mut self) -> Result<u64> {
        self.reader
            .stream_position()
            .map_err(|error| CommandError::io(format_args!("cannot read {}", self.name), error))
    }

    /// Seeks to a position in the file.
    pub(crate) fn go_to(&mut self, position: u64) -> Result<()> {
        let sought = self.reader.seek(SeekFrom::Start(position));
        sought.map(drop).map_err(|error| self.failed(error))
    }

    /// Reads until `buf` is full or the input ends; returns the count of bytes.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.reader.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled)
    }

    /// Fills `buf` completely.
    pub(crate) fn exactly(&mut self, buf: &mut [u8]) -> Result<()> {
        if self.fill(buf)? < buf.len() { Err(self.ends_early()) } else { Ok(()) }
    }

    /// Checks that the input ends here.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.fill(&mut [0])? {
            0 => Ok(()),
            _ => Err(CommandError::Malformed(format!("{} has data after the end of the message", self.name))),
        }
    }

    fn failed(&self, error: io::Error) -> CommandError {
        CommandError::io(format_args!("cannot read {}", self.name), error)
    }

    fn ends_early(&self) -> CommandError {
        CommandError::Malformed(format!("{} is truncated", self.name))
    }
}

/// The identity of a file independent of its name: device and inode number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// Returns the identity of a file or block device; `None` for others, such as a terminal, which
    /// may be both input and output.
    fn of(metadata: &Metadata) -> Option<Self> {
        (metadata.is_file() || metadata.file_type().is_block_device()).then(|| FileId(metadata.dev(), metadata.ino()))
    }

    /// Returns the identity of the file at this path, if it exists.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().and_then(|metadata| FileId::of(&metadata))
    }
}

/// The output of a command.
///
/// A file is written under a temporary name and renamed at the end ([`finish`](Self::finish)).
/// Until then, and after a failure, an existing file stays unchanged.
pub(crate) struct Output {
    name: String,
    writer: BufWriter<File>,
    target: Option<FileTarget>,
    /// Bytes written.
    pub(crate) written: u64,
}

/// The temporary and the final path of a file.
struct FileTarget {
    temporary: TempPath,
    path: PathBuf,
    /// Whether a file already exists at the final path.
    is_taken: bool,
}

impl Output {
    /// Creates a file, or opens standard output for `-`. The output must not be one of `inputs`.
    pub(crate) fn create(path: &Path, inputs: &[Option<FileId>]) -> Result<Self> {
        let failed = |name: &str, error| CommandError::io(format_args!("cannot write {name}"), error);
        let check = |name: &str, metadata: &Metadata| match FileId::of(metadata) {
            Some(id) if inputs.contains(&Some(id)) => Err(CommandError::Usage(format!(
                "{name} is an input file and would be overwritten; give another output"
            ))),
            _ => Ok(()),
        };
        if path.to_str() == Some("-") {
            let name = "standard output".to_owned();
            let file = stdio(io::stdout()).map_err(|error| failed(&name, error))?;
            check(&name, &file.metadata().map_err(|error| failed(&name, error))?)?;
            return Ok(Output::new(name, file, None));
        }
        let name = path.display().to_string();
        let metadata = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&name, error)),
        };
        if let Some(metadata) = &metadata {
            check(&name, metadata)?;
            // Checks that it is writable. Devices and pipes are written in place.
            let file = OpenOptions::new().write(true).custom_flags(regular::FLAGS).open(path);
            let file = file.map_err(|error| match error.raw_os_error() {
                Some(libc::ENXIO) => CommandError::Other(format!("cannot write {name}: nothing reads from it")),
                _ => failed(&name, error),
            })?;
            if !metadata.is_file() {
                let blocking = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags - OFlags::NONBLOCK));
                blocking.map_err(|error| failed(&name, error.into()))?;
                return Ok(Output::new(name, file, None));
            }
        }
        let (file, target) = beside(path, metadata.as_ref()).map_err(|error| failed(&name, error))?;
        Ok(Output::new(name, file, Some(target)))
    }

    fn new(name: String, file: File, target: Option<FileTarget>) -> Self {
        Output { name, writer: BufWriter::with_capacity(BUFFER_LEN, file), target, written: 0 }
    }

    /// Creates an unnamed file that can be read again.
    pub(crate) fn temporary() -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| CommandError::io("cannot create a temporary file", error))?;
        Ok(Output::new("a temporary file".to_owned(), file, None))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|error| self.failed(error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|error| self.failed(error))
    }

    /// Completes the output and renames the file.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Some(FileTarget { temporary, path, is_taken }) = self.target.take() else { return Ok(()) };
        if is_taken {
            // Replace the old file only after the new one is durable.
            self.writer.get_ref().sync_all().map_err(|error| self.failed(error))?;
        }
        temporary.persist(path).map_err(|error| self.failed(error.error))
    }

    /// Returns the written bytes as an input, from the beginning.
    pub(crate) fn into_input(mut self) -> Result<Input> {
        self.flush()?;
        let Output { name, writer, .. } = self;
        let (mut file, _) = writer.into_parts();
        file.rewind().map_err(|error| CommandError::io(format_args!("cannot read {name}"), error))?;
        Input::new(name, file)
    }

    fn failed(&self, error: io::Error) -> CommandError {
        CommandError::io(format_args!("cannot write {}", self.name), error)
    }
}

/// Creates a file in the directory of `path`, with the permissions of the existing file, or the
/// default.
fn beside(path: &Path, there: Option<&Metadata>) -> io::Result<(File, FileTarget)> {
    // Keep a symbolic link, and replace the file that it leads to.
    let path = if there.is_some() { path.canonicalize()? } else { path.to_owned() };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let permissions = there.map_or(0o666, |there| there.mode() & 0o777);
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix(".keyhole-").permissions(Permissions::from_mode(permissions)).tempfile_in(directory)?;
    let (file, temporary) = named.into_parts();
    if there.is_some() {
        file.set_permissions(Permissions::from_mode(permissions))?;
    }
    Ok((file, FileTarget { temporary, path, is_taken: there.is_some() }))
}

fn stdio(stream: impl std::os::fd::AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Returns the path that stands for standard input or output.
pub(crate) fn dash() -> PathBuf {
    PathBuf::from("-")
}

/// Shows the progress of long work on a terminal.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Returns a display for a total of `len` bytes, if known.
    pub(crate) fn new(len: Option<u64>) -> Self {
        if !io::stderr().is_terminal() || len.is_some_and(|len| len < PROGRESS_MIN) {
            return Progress(None);
        }
        let template = match len {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = len.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(Some(bar))
    }

    fn add(&self, len: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(len as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Seals all of `input` as the chunks of one message; returns the length of the plaintext.
pub(crate) fn seal(
    sealer: &mut Sealer<AnyAead>,
    input: &mut Input,
    output: &mut Output,
    progress: &Progress,
) -> Result<u64> {
    let mut chunk = Zeroizing::new(vec![0; CHUNK_LEN]);
    let mut sealed = 0;
    while !sealer.is_finished() {
        let len = input.fill(&mut chunk)?;
        let tag = sealer.seal_next(&mut chunk[..len]);
        output.write(&chunk[..len])?;
        output.write(&tag)?;
        sealed += len as u64;
        progress.add(len);
    }
    Ok(sealed)
}

/// Opens the chunks of a message of `message_len` bytes, or up to the end of the input. `opener`
/// has already processed the message's prefix.
pub(crate) fn open(
    opener: &mut Opener<AnyAead>,
    input: &mut Input,
    message_len: Option<u64>,
    output: &mut Output,
    progress: &Progress,
) -> Result<()> {
    let mut sealed = Zeroizing::new(vec![0; CHUNK_LEN + TAG_LEN]);
    let mut left = message_len.map(|len| len - PREFIX_LEN as u64);
    for index in 0.. {
        let wanted = left.map_or(sealed.len(), |left| sealed.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let len = input.fill(&mut sealed[..wanted])?;
        let truncated = || CommandError::Malformed(format!("{}: the message is truncated", input.name));
        if len < wanted && left.is_some() {
            return Err(truncated());
        }
        let Some((chunk, tag)) = sealed[..len].split_last_chunk_mut::<TAG_LEN>() else { return Err(truncated()) };
        opener
            .open_at(index, chunk, tag)
            .map_err(|_| CommandError::Malformed(format!("{}: chunk {index} does not authenticate", input.name)))?;
        output.write(chunk)?;
        progress.add(chunk.len());
        if chunk.len() < CHUNK_LEN {
            break;
        }
        left = left.map(|left| left - len as u64);
    }
    Ok(())
}

/// Completes the output. If the input turned out to be malformed, keeps the verified part, if any,
/// and reports its length.
pub(crate) fn finish_opened(opened: Result<()>, output: Output) -> Result<()> {
    match opened {
        Err(CommandError::Malformed(text)) => {
            let written = output.written;
            if written > 0 {
                output.finish()?;
            }
            Err(CommandError::Malformed(format!("{text}; {written} verified bytes were written")))
        }
        Ok(()) => output.finish(),
        other => other,
    }
}
