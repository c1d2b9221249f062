//! `keyhole seal`, `open` and `inspect`: sealed object files.

use keyhole_core::body::{self, Binding, Bodies, open_part_info};
use keyhole_core::chunked::{Opener, Sealer, message_len, plaintext_len};
use keyhole_core::file::{BodyEntry, Decoded, ENTRY_LEN, Layout, PREFACE_MAX, Preface, Totals};
use keyhole_core::head::{Field, Head, UserMetadata, open_stored_head, seal_head};
use keyhole_core::limits::{PREFIX_LEN, SALT_LEN, SEALED_HEAD_MAX};
use keyhole_core::{CustomerKey, DataKey};
use serde::Serialize;
use zeroize::Zeroizing;

use super::stream::{FileId, Input, Output, Progress, dash, finish_opened};
use super::{CommandError, Result, key, stream};
use crate::cli::sealed::{InspectOptions, OpenOptions, SealOptions};
use crate::engine::AnyEngine;
use crate::env::random;

const ENGINE: AnyEngine = AnyEngine::Accelerated;

fn malformed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Malformed(error.to_string())
}

pub(crate) fn seal(options: &SealOptions) -> Result<()> {
    let customer_key = key::read(&options.key)?;
    let mut input = Input::open(&options.input)?;
    let read = [input.id, FileId::at(&options.key)];
    let progress = Progress::new(input.len);
    let mut random_bytes = Zeroizing::new([0; 32]);
    random(&mut *random_bytes);
    let data_key = DataKey::new(*random_bytes);
    let mut salt = [0; SALT_LEN];
    random(&mut salt);
    let mut sealer = Sealer::new(&ENGINE, data_key.expose(), &salt, &[&body::context(0)]);
    if let Some(len) = input.len {
        // Validate names and metadata before the output is created.
        let (preface, entry) = begin_file(options, &customer_key, &data_key, len)?;
        let mut output = Output::create(&options.output, &read)?;
        [&preface[..], &entry.encode(), &sealer.prefix()].iter().try_for_each(|bytes| output.write(bytes))?;
        let sealed = stream::seal(&mut sealer, &mut input, &mut output, &progress)?;
        if sealed != len {
            return Err(CommandError::Other("the input changed while it was read".to_owned()));
        }
        return output.finish();
    }
    begin_file(options, &customer_key, &data_key, 0)?;
    // The length of the input is known at its end, but is at the beginning of the file: spool the
    // ciphertext in an unnamed file.
    let mut spool = Output::temporary()?;
    let len = stream::seal(&mut sealer, &mut input, &mut spool, &progress)?;
    let (preface, entry) = begin_file(options, &customer_key, &data_key, len)?;
    let mut output = Output::create(&options.output, &read)?;
    [&preface[..], &entry.encode(), &sealer.prefix()].iter().try_for_each(|bytes| output.write(bytes))?;
    copy(&mut spool.into_input()?, &mut output)?;
    output.finish()
}

fn copy(input: &mut Input, output: &mut Output) -> Result<()> {
    let mut buf = vec![0; 1 << 20];
    loop {
        match input.fill(&mut buf)? {
            0 => return Ok(()),
            len => output.write(&buf[..len])?,
        }
    }
}

/// Returns preface and table entry of a file with one body of this length.
fn begin_file(
    options: &SealOptions,
    customer_key: &CustomerKey,
    data_key: &DataKey,
    len: u64,
) -> Result<(Vec<u8>, BodyEntry)> {
    let usage = |what: &dyn std::fmt::Display| CommandError::Usage(what.to_string());
    let mut meta: Vec<(&str, &[u8])> =
        options.meta.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    meta.sort_unstable();
    let mut fields = [None; Field::ALL.len()];
    fields[0] = options.content_type.as_deref().map(str::as_bytes);
    let head = Head {
        data_key: Some(data_key.expose()),
        plaintext_length: Some(len),
        fields,
        user_metadata: UserMetadata::new(&meta),
        ..Head::default()
    };
    let mut salt = [0; SALT_LEN];
    random(&mut salt);
    let mut sealed = Zeroizing::new(vec![0; SEALED_HEAD_MAX]);
    let sealed_len = seal_head(&ENGINE, customer_key, &salt, &options.bucket, &options.name, &head, &mut sealed)
        .map_err(|error| usage(&format_args!("invalid object description: {error}")))?;
    let preface =
        Preface { bucket: &options.bucket, key: &options.name, sealed_head: &sealed[..sealed_len], bodies: 1 };
    let mut bytes = vec![0; PREFACE_MAX];
    let preface_len = preface.encode(&mut bytes).map_err(|error| usage(&error))?;
    bytes.truncate(preface_len);
    let message_len = message_len(len).ok_or_else(|| usage(&"the object is too long"))?;
    Ok((bytes, BodyEntry { part_number: 0, message_len, info_len: 0 }))
}

/// The part of a file before its messages.
struct Front {
    preface: Vec<u8>,
    entries: Vec<BodyEntry>,
    totals: Totals,
}

impl Front {
    /// Reads up to the end of the table.
    fn read(input: &mut Input) -> Result<Self> {
        let mut preface = Vec::new();
        let bodies = loop {
            match Preface::decode(&preface).map_err(malformed)? {
                Decoded::Whole(decoded, _) => break decoded.bodies,
                Decoded::Needs(len) => {
                    let had = preface.len();
                    preface.resize(len, 0);
                    input.exactly(&mut preface[had..])?;
                }
            }
        };
        let mut layout = Layout::new(bodies);
        let mut entries = Vec::with_capacity(bodies as usize);
        for _ in 0..bodies {
            let mut bytes = [0; ENTRY_LEN];
            input.exactly(&mut bytes)?;
            let entry = BodyEntry::decode(&bytes);
            layout.push(&entry).map_err(malformed)?;
            entries.push(entry);
        }
        let totals = layout.finish().map_err(malformed)?;
        Ok(Front { preface, entries, totals })
    }

    fn preface(&self) -> Preface<'_> {
        match Preface::decode(&self.preface) {
            Ok(Decoded::Whole(preface, _)) => preface,
            other => unreachable!("it was decoded when it was read: {other:?}"),
        }
    }

    /// Reads the salts of all messages, from the start of the part infos to the end of the input.
    fn bodies(&self, input: &mut Input) -> Result<Bodies> {
        input.skip(self.totals.infos_len)?;
        let mut bodies = Bodies::new();
        for entry in &self.entries {
            let mut salt = [0; SALT_LEN];
            input.exactly(&mut salt)?;
            bodies.push(entry.part_number, entry.message_len, &salt).map_err(malformed)?;
            input.skip(entry.message_len - SALT_LEN as u64)?;
        }
        input.end()?;
        Ok(bodies)
    }

    fn is_whole(&self) -> bool {
        matches!(self.entries[..], [BodyEntry { part_number: 0, .. }])
    }
}

pub(crate) fn open(options: &OpenOptions) -> Result<()> {
    let customer_key = key::read(&options.key)?;
    let mut input = Input::open(&options.input)?;
    let read = [input.id, FileId::at(&options.key)];
    let front = Front::read(&mut input)?;
    let preface = front.preface();
    for (given, found, what) in [(&options.bucket, preface.bucket, "bucket"), (&options.name, preface.key, "name")] {
        if let Some(given) = given.as_deref().filter(|given| *given != found) {
            return Err(CommandError::Malformed(format!("the file is for the {what} {found:?}, not {given:?}")));
        }
    }
    let mut sealed_head = Zeroizing::new(preface.sealed_head.to_vec());
    // The file of an upload that was completed without the key has the upload's head.
    let (_, head) = open_stored_head(&ENGINE, &customer_key, preface.bucket, preface.key, &mut sealed_head)
        .map_err(|error| malformed(format_args!("wrong key, or the file was altered: {error}")))?;
    let Some(data_key) = head.data_key.map(|key| DataKey::new(*key)) else {
        return Err(malformed("the head has no data key"));
    };
    let input = if front.is_whole() {
        // A single body is bound by its length alone, so it can be streamed.
        let mut bodies = Bodies::new();
        bodies.push(0, front.entries[0].message_len, &[0; SALT_LEN]).map_err(malformed)?;
        bodies.check(&head).map_err(malformed)?;
        input
    } else {
        // Check all parts against the object head before any output is written.
        let mut input = input.seekable()?;
        let start = input.position()?;
        let binding = front.bodies(&mut input)?.check(&head).map_err(malformed)?;
        if binding == Binding::Unbound && !options.allow_unbound {
            return Err(malformed(
                "the parts are not bound to the head, because the upload was completed without the key; compare the \
                 ETag (keyhole inspect) with a known one, and use --allow-unbound",
            ));
        }
        input.go_to(start)?;
        input
    };
    let mut output = Output::create(&options.output, &read)?;
    let opened = open_bodies(&front, &data_key, input, &mut output);
    finish_opened(opened, output)
}

fn open_bodies(front: &Front, data_key: &DataKey, mut input: Input, output: &mut Output) -> Result<()> {
    let progress = Progress::new(Some(front.totals.plaintext_len));
    let mut infos = Vec::with_capacity(front.entries.len());
    for entry in &front.entries {
        // The layout has limited the length.
        let mut info = vec![0; entry.info_len as usize];
        input.exactly(&mut info)?;
        infos.push(info);
    }
    for (entry, mut info) in front.entries.iter().zip(infos) {
        let mut prefix = [0; PREFIX_LEN];
        input.exactly(&mut prefix)?;
        if let (Some(salt), false) = (prefix.first_chunk(), info.is_empty()) {
            open_part_info(&ENGINE, data_key, entry.part_number, salt, &mut info)
                .map_err(|error| malformed(format_args!("invalid checksums of part {}: {error}", entry.part_number)))?;
        }
        let mut opener = Opener::new(&ENGINE, data_key.expose(), &prefix, &[&body::context(entry.part_number)])
            .map_err(|_| malformed(format_args!("body {} does not belong to its head", entry.part_number)))?;
        stream::open(&mut opener, &mut input, Some(entry.message_len), output, &progress)?;
    }
    input.end()
}

/// The content of a file that is visible without a key.
#[derive(Serialize)]
struct Inspection {
    bucket: String,
    key: String,
    plaintext_length: u64,
    etag: String,
    file_length: u64,
    sealed_head_length: usize,
    parts: Vec<InspectedPart>,
}

#[derive(Serialize)]
struct InspectedPart {
    part_number: u32,
    plaintext_length: u64,
    message_length: u64,
    part_info_length: u32,
}

pub(crate) fn inspect(options: &InspectOptions) -> Result<()> {
    let mut input = Input::open(&options.file)?;
    let front = Front::read(&mut input)?;
    let bodies = front.bodies(&mut input)?;
    let preface = front.preface();
    let parts = front.entries.iter().map(|entry| InspectedPart {
        part_number: entry.part_number,
        plaintext_length: plaintext_len(entry.message_len).unwrap_or_default(),
        message_length: entry.message_len,
        part_info_length: entry.info_len,
    });
    let found = Inspection {
        bucket: preface.bucket.to_owned(),
        key: preface.key.to_owned(),
        plaintext_length: front.totals.plaintext_len,
        etag: bodies.etag().to_string(),
        file_length: front.totals.file_len(&preface),
        sealed_head_length: preface.sealed_head.len(),
        parts: if front.is_whole() { Vec::new() } else { parts.collect() },
    };
    let text = if options.json { serde_json::to_string_pretty(&found)? + "\n" } else { found.to_string() };
    let mut output = Output::create(&dash(), &[])?;
    output.write(text.as_bytes())?;
    output.finish()
}

impl std::fmt::Display for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Names are quoted: they are foreign text, and the output may be a terminal.
        writeln!(f, "bucket       {:?}", self.bucket)?;
        writeln!(f, "key          {:?}", self.key)?;
        writeln!(f, "plaintext    {} bytes", self.plaintext_length)?;
        writeln!(f, "ETag         {}", self.etag)?;
        writeln!(f, "file         {} bytes, {} of them the sealed head", self.file_length, self.sealed_head_length)?;
        for part in &self.parts {
            let InspectedPart { part_number, plaintext_length, part_info_length, .. } = part;
            let info = if *part_info_length > 0 { ", with checksums" } else { "" };
            writeln!(f, "part {part_number:<7} {plaintext_length} bytes{info}")?;
        }
        Ok(())
    }
}
