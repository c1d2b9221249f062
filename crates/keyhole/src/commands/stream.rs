//! Plaintext and messages as streams, in constant memory: a chunk is written when its tag has been compared, and not
//! before.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, TAG_LEN};
use tempfile::TempPath;
use zeroize::Zeroizing;

use super::{Failure, Result};
use crate::engine::ChosenAead;

/// Bytes that are read and written at once.
const BUFFER_LEN: usize = 1 << 20;

/// Bytes below which no progress is shown.
const PROGRESS_MIN: u64 = 64 << 20;

/// Where a command reads from.
pub(crate) struct Input {
    name: String,
    reader: BufReader<File>,
    /// Bytes from where this began to the end, where that is known: of a file, not of a pipe.
    pub(crate) len: Option<u64>,
    /// Where in the file that end is.
    end: Option<u64>,
    /// Which file it is.
    pub(crate) id: Option<FileId>,
}

impl Input {
    /// A file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (name, file) = match path.to_str() {
            Some("-") => ("standard input".to_owned(), stdio(io::stdin())),
            _ => (path.display().to_string(), File::open(path)),
        };
        let file = file.map_err(|error| Failure::io(format_args!("cannot read {name}"), error))?;
        Input::new(name, file)
    }

    fn new(name: String, mut file: File) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Failure::io(format_args!("cannot read {name}"), error))?;
        // A file on standard input may have been read in part.
        let begin = if metadata.is_file() { file.stream_position().ok() } else { None };
        let len = begin.map(|at| metadata.len().saturating_sub(at));
        let end = begin.map(|_| metadata.len());
        let id = FileId::of(&metadata);
        Ok(Input { name, reader: BufReader::with_capacity(BUFFER_LEN, file), len, end, id })
    }

    /// The same bytes in a file without a name, if this is a pipe: so that one can go back in them. What goes there is
    /// what came, ciphertext.
    pub(crate) fn seekable(mut self) -> Result<Self> {
        if self.len.is_some() {
            return Ok(self);
        }
        let failed = |error| Failure::io("cannot spool the input to a temporary file (see TMPDIR)", error);
        let mut file = tempfile::tempfile().map_err(failed)?;
        io::copy(&mut self.reader, &mut file).and_then(|_| file.rewind()).map_err(failed)?;
        Input::new(self.name, file)
    }

    /// Goes on `len` bytes, which must be there, without looking at them.
    pub(crate) fn skip(&mut self, len: u64) -> Result<()> {
        let Some(before_last) = len.checked_sub(1) else { return Ok(()) };
        if let Some(end) = self.end {
            // A length that was made up may be beyond all that a file can have.
            let left = end.saturating_sub(self.position()?);
            let offset = i64::try_from(before_last).ok().filter(|_| len <= left).ok_or_else(|| self.ends_early())?;
            self.reader.seek_relative(offset).map_err(|error| self.failed(error))?;
        } else {
            let mut passed = (&mut self.reader).take(before_last);
            io::copy(&mut passed, &mut io::sink()).map_err(|error| self.failed(error))?;
        }
        // One can go past the end of a file that has been cut since, but not read there.
        self.exactly(&mut [0])
    }

    /// Where in the file this is.
    pub(crate) fn position(&mut self) -> Result<u64> {
        self.reader.stream_position().map_err(|error| Failure::io(format_args!("cannot read {}", self.name), error))
    }

    /// Goes to a place of the file.
    pub(crate) fn go_to(&mut self, position: u64) -> Result<()> {
        let sought = self.reader.seek(SeekFrom::Start(position));
        sought.map(drop).map_err(|error| self.failed(error))
    }

    /// As many bytes as `buf` takes, or as there are.
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

    /// Exactly as many bytes as `buf` takes.
    pub(crate) fn exactly(&mut self, buf: &mut [u8]) -> Result<()> {
        if self.fill(buf)? < buf.len() { Err(self.ends_early()) } else { Ok(()) }
    }

    /// There must be nothing more.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.fill(&mut [0])? {
            0 => Ok(()),
            _ => Err(Failure::Malformed(format!("{} has data after the end of the message", self.name))),
        }
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::io(format_args!("cannot read {}", self.name), error)
    }

    fn ends_early(&self) -> Failure {
        Failure::Malformed(format!("{} is truncated", self.name))
    }
}

/// Which file it is, whatever it is called: the numbers of its device and of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// Of what has contents that could be written over; a terminal can be read and written.
    fn of(metadata: &Metadata) -> Option<Self> {
        (metadata.is_file() || metadata.file_type().is_block_device()).then(|| FileId(metadata.dev(), metadata.ino()))
    }

    /// Of the file of this name, if there is one.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().and_then(|metadata| FileId::of(&metadata))
    }
}

/// Where a command writes to.
///
/// A file is written beside its place, under a name of its own, and takes its place at the end ([`finish`](Self::finish)):
/// until then, and if it never comes to that, what was there stays.
pub(crate) struct Output {
    name: String,
    writer: BufWriter<File>,
    place: Option<Place>,
    /// Bytes written.
    pub(crate) written: u64,
}

/// Where a file will be, and where it is until then.
struct Place {
    temporary: TempPath,
    path: PathBuf,
    /// Whether a file is there already.
    is_taken: bool,
}

impl Output {
    /// A file, or standard output for `-`. What is read must not be written over: `inputs`.
    pub(crate) fn create(path: &Path, inputs: &[Option<FileId>]) -> Result<Self> {
        let failed = |name: &str, error| Failure::io(format_args!("cannot write {name}"), error);
        let check = |name: &str, metadata: &Metadata| match FileId::of(metadata) {
            Some(id) if inputs.contains(&Some(id)) => {
                Err(Failure::Usage(format!("{name} is an input file and would be overwritten; give another output")))
            }
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
            // Whether it may be written; and devices and pipes are nothing to take the place of.
            let file = OpenOptions::new().write(true).open(path).map_err(|error| failed(&name, error))?;
            if !metadata.is_file() {
                return Ok(Output::new(name, file, None));
            }
        }
        let (file, place) = beside(path, metadata.as_ref()).map_err(|error| failed(&name, error))?;
        Ok(Output::new(name, file, Some(place)))
    }

    fn new(name: String, file: File, place: Option<Place>) -> Self {
        Output { name, writer: BufWriter::with_capacity(BUFFER_LEN, file), place, written: 0 }
    }

    /// One without a name, to be read again.
    pub(crate) fn temporary() -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| Failure::io("cannot create a temporary file", error))?;
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

    /// All is written; a file takes its place.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Some(Place { temporary, path, is_taken }) = self.place.take() else { return Ok(()) };
        if is_taken {
            // The old file goes when the new one is on the disk.
            self.writer.get_ref().sync_all().map_err(|error| self.failed(error))?;
        }
        temporary.persist(path).map_err(|error| self.failed(error.error))
    }

    /// Reads from the beginning what was written.
    pub(crate) fn into_input(mut self) -> Result<Input> {
        self.flush()?;
        let Output { name, writer, .. } = self;
        let (mut file, _) = writer.into_parts();
        file.rewind().map_err(|error| Failure::io(format_args!("cannot read {name}"), error))?;
        Input::new(name, file)
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::io(format_args!("cannot write {}", self.name), error)
    }
}

/// A new file in the directory of `path`, which has the permissions of the one that is there, or those of any new one.
fn beside(path: &Path, there: Option<&Metadata>) -> io::Result<(File, Place)> {
    // A symbolic link stays, and the file that it leads to is replaced.
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
    Ok((file, Place { temporary, path, is_taken: there.is_some() }))
}

fn stdio(stream: impl std::os::fd::AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// The path that stands for standard input or output.
pub(crate) fn dash() -> PathBuf {
    PathBuf::from("-")
}

/// Shows on a terminal how far long work has come.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Of so many bytes, if that is known.
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

/// Seals all of `input` as the chunks of one message; bytes of the plaintext.
pub(crate) fn seal(
    sealer: &mut Sealer<ChosenAead>,
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

/// Opens the chunks of a message of `message_len` bytes, or of one that ends where the input does. `opener` has the
/// message's prefix.
pub(crate) fn open(
    opener: &mut Opener<ChosenAead>,
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
        let truncated = || Failure::Malformed(format!("{}: the message is truncated", input.name));
        if len < wanted && left.is_some() {
            return Err(truncated());
        }
        let Some((chunk, tag)) = sealed[..len].split_last_chunk_mut::<TAG_LEN>() else { return Err(truncated()) };
        opener
            .open_at(index, chunk, tag)
            .map_err(|_| Failure::Malformed(format!("{}: chunk {index} does not authenticate", input.name)))?;
        output.write(chunk)?;
        progress.add(chunk.len());
        if chunk.len() < CHUNK_LEN {
            break;
        }
        left = left.map(|left| left - len as u64);
    }
    Ok(())
}

/// Ends the output. Where the input was found malformed on the way, what was verified until then is kept, if it is
/// anything, and how much it is is said.
pub(crate) fn finish_opened(opened: Result<()>, output: Output) -> Result<()> {
    match opened {
        Err(Failure::Malformed(text)) => {
            let written = output.written;
            if written > 0 {
                output.finish()?;
            }
            Err(Failure::Malformed(format!("{text}; {written} verified bytes were written")))
        }
        Ok(()) => output.finish(),
        other => other,
    }
}
