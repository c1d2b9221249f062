//! Checks of the format's test vectors and of damaged copies, for any engine. An independent
//! implementation generated the vectors, including every intermediate value.

use keyhole_core::aead::Engine;
use keyhole_core::body::{self, Binding, Bodies, Etag, open_part_info};
use keyhole_core::chunked::{Opener, Sealer, message_len, plaintext_len};
use keyhole_core::file::{self, BodyEntry, Decoded, ENTRY_LEN, FileError, Layout, PREFACE_MAX, Preface, SEAL_OVERHEAD};
use keyhole_core::head::{ChecksumAlgorithm, Checksums, Head, OpenError, UserMetadata, open_head, seal_head};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, SEALED_HEAD_MAX, TAG_LEN};
use keyhole_core::{CustomerKey, DataKey, NotAuthentic};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Seed of the damaged positions.
const SEED: u64 = 0x5eed;

/// Number of damaged positions per input.
const PLACES: usize = 200;

/// Up to this input length every bit of a position is flipped, above it one bit.
const EVERY_BIT_MAX: usize = 40_000;

/// Returns positions in an input and the bits to flip there.
fn damages(len: usize) -> impl Iterator<Item = (usize, u8)> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let bits = if len <= EVERY_BIT_MAX { 8 } else { 1 };
    let places = (0..PLACES).flat_map(move |_| {
        let at = random.usize(..len);
        let first = random.u8(..8);
        (0..bits).map(move |bit| (at, 1 << ((first + bit) % 8)))
    });
    places.collect::<Vec<_>>().into_iter()
}

/// Returns truncated lengths: 0 to 100 bytes, and one byte less than the whole.
fn short_cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..=100).chain([len - 1]).filter(move |cut| *cut < len)
}

/// Runs all checks.
pub(crate) fn all<E: Engine>(engine: &E) {
    messages(engine);
    damaged_messages(engine);
    sealed_heads(engine);
    files(engine);
    damaged_files(engine);
    parts_of_another_upload(engine);
    sealed_at_once(engine);
}

pub(crate) fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[derive(Deserialize)]
struct Chunked {
    cases: Vec<ChunkedCase>,
}

#[derive(Deserialize)]
struct ChunkedCase {
    name: String,
    input_key: String,
    salt: String,
    context: String,
    plaintext_length: usize,
    commitment: String,
    message_length: usize,
    message_sha256: String,
    last_tag: String,
    message: Option<String>,
}

impl ChunkedCase {
    fn plaintext(&self) -> Vec<u8> {
        (0..self.plaintext_length).map(|i| (7 * i + 13 * (i >> 8) + 5) as u8).collect()
    }

    fn seal<E: Engine>(&self, engine: &E) -> Vec<u8> {
        let context = hex::decode(&self.context).unwrap();
        // Pass the context in two pieces: the split must not matter.
        let (a, b) = context.split_at(context.len() / 2);
        let mut sealer = Sealer::new(engine, &bytes(&self.input_key), &bytes(&self.salt), &[a, b]);
        let mut message = sealer.prefix().to_vec();
        let mut plaintext = self.plaintext();
        for chunk in plaintext.chunks_mut(CHUNK_LEN) {
            let tag = sealer.seal_next(chunk);
            message.extend_from_slice(chunk);
            message.extend_from_slice(&tag);
        }
        if !sealer.is_finished() {
            message.extend_from_slice(&sealer.seal_next(&mut []));
        }
        message
    }

    fn open<E: Engine>(&self, engine: &E, message: &[u8]) -> Result<Vec<u8>, Refused> {
        open_message(engine, &bytes(&self.input_key), &hex::decode(&self.context).unwrap(), message)
    }
}

/// Plaintext released before a message was rejected, and the index of the rejected chunk. The index
/// is `None` if the length or the commitment was rejected.
#[derive(PartialEq, Eq, Debug)]
struct Refused {
    released: Vec<u8>,
    chunk: Option<usize>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        NotAuthentic.fmt(f)
    }
}

impl Refused {
    /// Expected result for a message damaged at `byte`.
    fn at(byte: usize, plaintext: &[u8]) -> Self {
        match byte.checked_sub(PREFIX_LEN) {
            None => Refused { released: Vec::new(), chunk: None },
            Some(byte) => {
                let chunk = byte / (CHUNK_LEN + TAG_LEN);
                Refused { released: plaintext[..chunk * CHUNK_LEN].to_vec(), chunk: Some(chunk) }
            }
        }
    }
}

fn open_message<E: Engine>(engine: &E, key: &[u8; 32], context: &[u8], message: &[u8]) -> Result<Vec<u8>, Refused> {
    let refused = || Refused { released: Vec::new(), chunk: None };
    plaintext_len(message.len() as u64).ok_or_else(refused)?;
    let prefix = message[..PREFIX_LEN].try_into().unwrap();
    let mut opener = Opener::new(engine, key, prefix, &[context]).map_err(|_| refused())?;
    let mut plaintext = Vec::new();
    for (index, sealed) in message[PREFIX_LEN..].chunks(CHUNK_LEN + TAG_LEN).enumerate() {
        let (chunk, tag) = sealed.split_last_chunk::<TAG_LEN>().unwrap();
        let mut chunk = chunk.to_vec();
        if opener.open_at(index as u64, &mut chunk, tag).is_err() {
            assert!(chunk.iter().all(|byte| *byte == 0), "a damaged chunk is wiped");
            return Err(Refused { released: plaintext, chunk: Some(index) });
        }
        plaintext.extend_from_slice(&chunk);
    }
    Ok(plaintext)
}

fn chunked() -> Vec<ChunkedCase> {
    serde_json::from_str::<Chunked>(include_str!("chunked.json")).unwrap().cases
}

/// Every message seals to its bytes, and opens.
pub(crate) fn messages<E: Engine>(engine: &E) {
    for case in chunked() {
        let message = case.seal(engine);
        assert_eq!(message.len(), case.message_length, "{}", case.name);
        assert_eq!(message_len(case.plaintext_length as u64), Some(message.len() as u64), "{}", case.name);
        assert_eq!(hex::encode(&message[24..PREFIX_LEN]), case.commitment, "{}", case.name);
        assert_eq!(hex::encode(&message[message.len() - TAG_LEN..]), case.last_tag, "{}", case.name);
        assert_eq!(hex::encode(Sha256::digest(&message)), case.message_sha256, "{}", case.name);
        if let Some(expected) = &case.message {
            assert_eq!(&hex::encode(&message), expected, "{}", case.name);
        }
        assert_eq!(case.open(engine, &message).unwrap(), case.plaintext(), "{}", case.name);
    }
}

/// Damages every message at 200 positions and cuts it at every boundary. It must be rejected at
/// exactly the damaged chunk, and the plaintext released before that must be correct.
pub(crate) fn damaged_messages<E: Engine>(engine: &E) {
    for case in chunked() {
        let mut message = case.seal(engine);
        let plaintext = case.plaintext();
        for (at, flip) in damages(message.len()) {
            message[at] ^= flip;
            // Not `assert_eq`, which would print megabytes.
            assert!(case.open(engine, &message) == Err(Refused::at(at, &plaintext)), "{}: byte {at}", case.name);
            message[at] ^= flip;
        }
        let borders = (0..=message.len() / (CHUNK_LEN + TAG_LEN)).map(|n| PREFIX_LEN + n * (CHUNK_LEN + TAG_LEN));
        let cuts = short_cuts(message.len()).chain(borders.flat_map(|border| [border - 1, border, border + 1]));
        for cut in cuts.filter(|cut| *cut < message.len()) {
            let refused = case.open(engine, &message[..cut]).expect_err("it is cut");
            assert!(plaintext.starts_with(&refused.released), "{}: cut at {cut}", case.name);
            // A valid message length is rejected at the last chunk, any other length immediately.
            let last = cut.checked_sub(PREFIX_LEN + TAG_LEN).map(|rest| rest / (CHUNK_LEN + TAG_LEN));
            let expected = plaintext_len(cut as u64).and(last);
            assert_eq!(refused.chunk, expected, "{}: cut at {cut}", case.name);
        }
    }
}

pub(crate) fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap()
}

/// Runs `check` on each head vector, with the head built from its fields.
pub(crate) fn heads(check: impl Fn(&Value, &Head<'_>)) {
    let cases: Vec<Value> = serde_json::from_str(include_str!("head.json")).unwrap();
    assert!(!cases.is_empty());
    for case in &cases {
        let data_key = bytes(text(case, "data_key"));
        let user: Vec<(&str, &[u8])> = case["user_metadata"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap().as_bytes()))
            .collect();
        let mut checksums = Checksums::default();
        for (number, digest) in case["checksums"].as_object().unwrap() {
            let algorithm = ChecksumAlgorithm::ALL[number.parse::<usize>().unwrap() - 1];
            checksums.set(algorithm, &hex::decode(digest.as_str().unwrap()).unwrap()).unwrap();
        }
        let decoded = hex::decode(text(case, "head_cbor")).unwrap();
        // The vectors contain manifest and declared checksum only in the encoding.
        let from_bytes = Head::decode(&decoded).unwrap();
        let head = Head {
            data_key: Some(&data_key),
            plaintext_length: case["plaintext_length"].as_u64(),
            fields: std::array::from_fn(|i| case["headers"][(i + 3).to_string()].as_str().map(str::as_bytes)),
            user_metadata: UserMetadata::new(&user),
            checksums,
            manifest: from_bytes.manifest,
            declared: from_bytes.declared,
        };
        check(case, &head);
    }
}

/// Every head seals to its bytes and opens, but not with any input changed.
pub(crate) fn sealed_heads<E: Engine>(engine: &E) {
    heads(|case, head| {
        let mut encoded = vec![0; 16 * 1024];
        let len = head.encode(&mut encoded).unwrap();
        assert_eq!(hex::encode(&encoded[..len]), text(case, "head_cbor"));

        let key = CustomerKey::new(bytes(text(case, "customer_key")));
        let bucket = text(case, "bucket");
        let name = text(case, "key");
        let mut sealed = vec![0; SEALED_HEAD_MAX];
        let len = seal_head(engine, &key, &bytes(text(case, "salt")), bucket, name, head, &mut sealed).unwrap();
        assert_eq!(hex::encode(&sealed[..len]), text(case, "sealed_head"));

        let open = |key: &CustomerKey, bucket: &str, name: &str, sealed: &[u8]| {
            let mut sealed = sealed.to_vec();
            let opened = open_head(engine, key, bucket, name, &mut sealed).map(|head| head.plaintext_length);
            assert!(opened.is_ok() || sealed.iter().all(|byte| *byte == 0), "rejected input is wiped");
            opened
        };
        let sealed = &sealed[..len];
        assert_eq!(open(&key, bucket, name, sealed), Ok(head.plaintext_length));
        let refused = Err(OpenError::NotAuthentic);
        assert_eq!(open(&CustomerKey::new([1; 32]), bucket, name, sealed), refused);
        assert_eq!(open(&key, "other", name, sealed), refused);
        assert_eq!(open(&key, bucket, "other", sealed), refused);
        for cut in short_cuts(sealed.len()) {
            assert_eq!(open(&key, bucket, name, &sealed[..cut]), refused, "cut at {cut}");
        }
        for (at, flip) in damages(sealed.len()) {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= flip;
            assert_eq!(open(&key, bucket, name, &damaged), refused, "seed {SEED}, byte {at}");
        }
    });
}

/// The pieces of a file.
struct Pieces<'f> {
    preface: Preface<'f>,
    entries: Vec<BodyEntry>,
    infos: Vec<&'f [u8]>,
    messages: Vec<&'f [u8]>,
}

fn take_apart(file: &[u8]) -> Result<Pieces<'_>, FileError> {
    let Decoded::Whole(preface, len) = Preface::decode(file)? else { return Err(FileError::Length) };
    let mut rest = &file[len..];
    let mut take = |len: u64| {
        let len = usize::try_from(len).map_err(|_| FileError::Length)?;
        let (taken, left) = rest.split_at_checked(len).ok_or(FileError::Length)?;
        rest = left;
        Ok(taken)
    };
    let mut layout = Layout::new(preface.bodies);
    let mut entries = Vec::new();
    for _ in 0..preface.bodies {
        let entry = BodyEntry::decode(take(ENTRY_LEN as u64)?.try_into().unwrap());
        layout.push(&entry)?;
        entries.push(entry);
    }
    if layout.finish()?.file_len(&preface) != file.len() as u64 {
        return Err(FileError::Length);
    }
    let infos = entries.iter().map(|entry| take(entry.info_len.into())).collect::<Result<_, _>>()?;
    let messages = entries.iter().map(|entry| take(entry.message_len)).collect::<Result<_, _>>()?;
    if rest.is_empty() { Ok(Pieces { preface, entries, infos, messages }) } else { Err(FileError::Length) }
}

fn put_together(pieces: &Pieces<'_>) -> Vec<u8> {
    let mut file = vec![0; PREFACE_MAX];
    let preface = Preface { bodies: pieces.entries.len() as u32, ..pieces.preface };
    let len = preface.encode(&mut file).unwrap();
    file.truncate(len);
    pieces.entries.iter().for_each(|entry| file.extend_from_slice(&entry.encode()));
    pieces.infos.iter().chain(&pieces.messages).for_each(|bytes| file.extend_from_slice(bytes));
    file
}

/// Content of an opened file.
struct Opened {
    plaintext: Vec<u8>,
    etag: Etag,
    binding: Binding,
}

fn open_file<E: Engine>(
    engine: &E,
    file: &[u8],
    key: &CustomerKey,
    bucket: &str,
    name: &str,
) -> Result<Opened, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let pieces = take_apart(file).map_err(|error| text(&error))?;
    if (pieces.preface.bucket, pieces.preface.key) != (bucket, name) {
        return Err("another name".to_owned());
    }
    let mut head = pieces.preface.sealed_head.to_vec();
    let head = open_head(engine, key, bucket, name, &mut head).map_err(|error| text(&error))?;
    let data_key = DataKey::new(*head.data_key.unwrap());
    let mut bodies = Bodies::new();
    for (entry, message) in pieces.entries.iter().zip(&pieces.messages) {
        let salt = message[..SALT_LEN].try_into().unwrap();
        bodies.push(entry.part_number, entry.message_len, salt).map_err(|error| text(&error))?;
    }
    let checked = bodies.check(&head);
    if let [BodyEntry { part_number: 0, message_len, .. }] = pieces.entries[..] {
        assert_eq!(body::check_whole(message_len, &head), checked.map(|_| ()));
        assert!(body::check_whole(message_len - 1, &head).is_err());
    }
    let binding = checked.map_err(|error| text(&error))?;
    let mut plaintext = Vec::new();
    for ((entry, message), info) in pieces.entries.iter().zip(&pieces.messages).zip(&pieces.infos) {
        let mut checksums = Checksums::default();
        if !info.is_empty() {
            let salt = message[..SALT_LEN].try_into().unwrap();
            let mut info = info.to_vec();
            checksums = open_part_info(engine, &data_key, entry.part_number, salt, &mut info)
                .inspect_err(|_| assert!(info.iter().all(|byte| *byte == 0), "rejected input is wiped"))
                .map_err(|error| text(&error))?;
        }
        let context = body::context(entry.part_number);
        let part = open_message(engine, data_key.expose(), &context, message).map_err(|error| text(&error))?;
        if let Some(sha256) = checksums.get(ChecksumAlgorithm::Sha256) {
            assert_eq!(sha256, &Sha256::digest(&part)[..]);
        }
        plaintext.extend(part);
    }
    Ok(Opened { plaintext, etag: bodies.etag(), binding })
}

#[derive(Deserialize)]
struct FileCase {
    file: String,
    bucket: String,
    key: String,
    customer_key: String,
    parts: Vec<u32>,
    plaintext_length: usize,
    plaintext_sha256: String,
    etag: String,
    manifest: String,
    bound: bool,
}

impl FileCase {
    fn bytes(&self) -> &'static [u8] {
        match &self.file[..] {
            "hello.sealed" => include_bytes!("hello.sealed"),
            "empty.sealed" => include_bytes!("empty.sealed"),
            "big.sealed" => include_bytes!("big.sealed"),
            "multi.sealed" => include_bytes!("multi.sealed"),
            "multi-unbound.sealed" => include_bytes!("multi-unbound.sealed"),
            other => panic!("a vector more: {other}"),
        }
    }

    fn customer_key(&self) -> CustomerKey {
        CustomerKey::new(bytes(&self.customer_key))
    }

    fn open<E: Engine>(&self, engine: &E, file: &[u8]) -> Result<Opened, String> {
        open_file(engine, file, &self.customer_key(), &self.bucket, &self.key)
    }
}

fn file_cases() -> Vec<FileCase> {
    serde_json::from_str(include_str!("files.json")).unwrap()
}

/// Every file opens to its plaintext, and splits into pieces that reassemble to the same bytes.
pub(crate) fn files<E: Engine>(engine: &E) {
    for case in file_cases() {
        let file = case.bytes();
        let pieces = take_apart(file).unwrap();
        assert!(pieces.entries.iter().map(|entry| entry.part_number).eq(case.parts.iter().copied()), "{}", case.file);
        assert!(put_together(&pieces) == file, "{}", case.file);
        let opened = case.open(engine, file).unwrap();
        assert_eq!(opened.plaintext.len(), case.plaintext_length, "{}", case.file);
        assert_eq!(hex::encode(Sha256::digest(&opened.plaintext)), case.plaintext_sha256, "{}", case.file);
        assert_eq!(opened.etag.to_string(), case.etag, "{}", case.file);
        assert_eq!(opened.binding == Binding::Bound, case.bound, "{}", case.file);
        let mut bodies = Bodies::new();
        for (entry, message) in pieces.entries.iter().zip(&pieces.messages) {
            bodies.push(entry.part_number, entry.message_len, message[..SALT_LEN].try_into().unwrap()).unwrap();
        }
        if !case.manifest.is_empty() {
            assert_eq!(bodies.manifest().map(hex::encode), Some(case.manifest), "{}", case.file);
        }
        let refused = |key: &CustomerKey, bucket: &str, name: &str| open_file(engine, file, key, bucket, name).is_err();
        let key = CustomerKey::new(bytes(&case.customer_key));
        assert!(refused(&CustomerKey::new([1; 32]), &case.bucket, &case.key), "{}", case.file);
        assert!(refused(&key, "other", &case.key) && refused(&key, &case.bucket, "other"), "{}", case.file);
    }
}

/// Returns positions near the boundaries of each message and chunk.
fn borders(file: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = file.len() - take_apart(file).unwrap().messages.iter().map(|message| message.len()).sum::<usize>();
    let mut borders = Vec::new();
    for message in take_apart(file).unwrap().messages {
        borders.push(at);
        borders.extend((PREFIX_LEN..message.len()).step_by(CHUNK_LEN + TAG_LEN).map(|border| at + border));
        at += message.len();
    }
    borders.push(at);
    borders.into_iter().flat_map(|border| [border - 1, border, border + 1])
}

/// Damages every file at 200 positions, truncates it, extends it, and drops, swaps and duplicates
/// its parts.
pub(crate) fn damaged_files<E: Engine>(engine: &E) {
    for case in file_cases() {
        let file = case.bytes();
        for (at, flip) in damages(file.len()) {
            let mut damaged = file.to_vec();
            damaged[at] ^= flip;
            assert!(case.open(engine, &damaged).is_err(), "{}: byte {at}", case.file);
        }
        for cut in short_cuts(file.len()).chain(borders(file)).filter(|cut| *cut < file.len()) {
            assert!(case.open(engine, &file[..cut]).is_err(), "{}: cut at {cut}", case.file);
        }
        assert!(case.open(engine, &[file, &[0]].concat()).is_err(), "{}: a byte more", case.file);
        if case.parts.len() < 2 {
            continue;
        }
        let pieces = || take_apart(file).unwrap();
        let last = case.parts.len() - 1;
        for part in 0..=last {
            let mut dropped = pieces();
            dropped.entries.remove(part);
            dropped.infos.remove(part);
            dropped.messages.remove(part);
            // If the upload was completed without the key, only the ETag detects the change.
            match case.open(engine, &put_together(&dropped)) {
                Ok(opened) => assert!(!case.bound && opened.etag.to_string() != case.etag, "{}: no {part}", case.file),
                Err(_) => assert!(case.bound, "{}: no {part}", case.file),
            }
        }
        let mut swapped = pieces();
        swapped.messages.swap(0, last);
        let lengths = swapped.messages.iter().map(|message| message.len() as u64).collect::<Vec<_>>();
        swapped.entries.iter_mut().zip(lengths).for_each(|(entry, len)| entry.message_len = len);
        assert!(case.open(engine, &put_together(&swapped)).is_err(), "{}: parts swapped", case.file);
        let mut doubled = pieces();
        doubled.messages[last] = doubled.messages[0];
        doubled.entries[last].message_len = doubled.entries[0].message_len;
        assert!(case.open(engine, &put_together(&doubled)).is_err(), "{}: a part twice", case.file);
        let mut renumbered = pieces();
        renumbered.entries[last].part_number += 1;
        assert!(case.open(engine, &put_together(&renumbered)).is_err(), "{}: another number", case.file);
    }
}

/// Replaces a part with an earlier attempt, which has the same data key and part number.
pub(crate) fn parts_of_another_upload<E: Engine>(engine: &E) {
    let customer_key = CustomerKey::new([1; 32]);
    let data_key = DataKey::new([2; 32]);
    let attempts = [(1, 11, 100), (2, 12, 20_000), (2, 13, 20_000), (3, 14, 0)].map(|(number, salt, len)| {
        let mut sealer = Sealer::new(engine, data_key.expose(), &[salt; SALT_LEN], &[&body::context(number)]);
        let mut message = sealer.prefix().to_vec();
        let mut plaintext = vec![salt; len];
        for chunk in plaintext.chunks_mut(CHUNK_LEN) {
            let tag = sealer.seal_next(chunk);
            message.extend_from_slice(chunk);
            message.extend_from_slice(&tag);
        }
        if !sealer.is_finished() {
            message.extend_from_slice(&sealer.seal_next(&mut []));
        }
        (BodyEntry { part_number: number, message_len: message.len() as u64, info_len: 0 }, message)
    });
    let file = |chosen: [usize; 3], bound: bool| {
        let mut bodies = Bodies::new();
        // The head refers to the later attempt.
        for (entry, message) in [0, 2, 3].map(|i| &attempts[i]) {
            bodies.push(entry.part_number, entry.message_len, message[..SALT_LEN].try_into().unwrap()).unwrap();
        }
        let manifest = if bound { bodies.manifest() } else { None };
        let head = Head { data_key: Some(data_key.expose()), manifest, ..Head::default() };
        let mut sealed = vec![0; SEALED_HEAD_MAX];
        let len = seal_head(engine, &customer_key, &[9; SALT_LEN], "b", "k", &head, &mut sealed).unwrap();
        put_together(&Pieces {
            preface: Preface { bucket: "b", key: "k", sealed_head: &sealed[..len], bodies: 3 },
            entries: chosen.map(|i| attempts[i].0).to_vec(),
            infos: vec![&[]; 3],
            messages: chosen.map(|i| &attempts[i].1[..]).to_vec(),
        })
    };
    let open = |file: &[u8]| open_file(engine, file, &customer_key, "b", "k");
    let good = open(&file([0, 2, 3], true)).unwrap();
    assert_eq!((good.plaintext.len(), good.binding), (20_100, Binding::Bound));
    assert!(open(&file([0, 1, 3], true)).is_err(), "an older attempt");
    let unbound = open(&file([0, 1, 3], false)).unwrap();
    assert!(unbound.binding == Binding::Unbound && unbound.etag != good.etag);
}

/// Sealing in place yields the same file. Without enough room the buffer stays unchanged.
fn in_place<E: Engine>(engine: &E, customer_key: &CustomerKey, plaintext: &[u8], expected: &[u8]) {
    let front = file::front_len("bu", "key", plaintext.len() as u64).unwrap();
    let seal = |before: usize, after: usize| {
        let mut buffer = [&vec![0; before], plaintext, &vec![0; after]].concat();
        let untouched = buffer.clone();
        let mut random = fastrand::Rng::with_seed(SEED);
        let place = before..before + plaintext.len();
        let sealed =
            file::seal_in_place(engine, customer_key, |bytes| random.fill(bytes), "bu", "key", &mut buffer, place);
        assert!(sealed.is_ok() || buffer == untouched);
        sealed.map(|file| buffer[file].to_vec())
    };
    if plaintext.len() >= CHUNK_LEN {
        assert_eq!(seal(front, TAG_LEN), Err(FileError::TooLong));
        return;
    }
    assert!(seal(front, TAG_LEN).unwrap() == expected && seal(front + 3, TAG_LEN + 4).unwrap() == expected);
    assert_eq!(seal(front - 1, TAG_LEN), Err(FileError::Room));
    assert_eq!(seal(front, TAG_LEN - 1), Err(FileError::Room));
}

/// Files made in one call, of various lengths, with just enough room and with too little.
pub(crate) fn sealed_at_once<E: Engine>(engine: &E) {
    let customer_key = CustomerKey::new([1; 32]);
    let seal = |bucket: &str, key: &str, plaintext: &[u8], out: &mut [u8]| {
        let mut random = fastrand::Rng::with_seed(SEED);
        file::seal(engine, &customer_key, |bytes| random.fill(bytes), bucket, key, plaintext, out)
    };
    for len in [0, 1, 23, 24, 300, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 70_000] {
        let plaintext: Vec<u8> = (0..len).map(|i| (i * 31) as u8 | 1).collect();
        let mut out = vec![0; len + 5 + SEAL_OVERHEAD + len / CHUNK_LEN * TAG_LEN];
        let file_len = seal("bu", "key", &plaintext, &mut out).unwrap();
        let opened = open_file(engine, &out[..file_len], &customer_key, "bu", "key").unwrap();
        assert!(opened.plaintext == plaintext && opened.binding == Binding::Bound, "{len}");
        let mut exact = vec![0; file_len];
        assert_eq!(seal("bu", "key", &plaintext, &mut exact), Ok(file_len));
        assert!(exact == out[..file_len], "the same randomness gives the same bytes");
        in_place(engine, &customer_key, &plaintext, &exact);
        let too_short = if len < 1000 { 0..file_len } else { file_len - 40..file_len };
        for room in too_short {
            let mut out = vec![0; room];
            assert_eq!(seal("bu", "key", &plaintext, &mut out), Err(FileError::Room), "{len} in {room}");
            // A chunk is copied completely or not at all.
            let mut ends = plaintext.rchunks_exact(8).take(2);
            let clear = ends.any(|end| out.windows(8).any(|written| written == end));
            assert!(!clear, "{len} in {room}");
        }
    }
    let long_bucket = "b".repeat(64);
    let long_key = "k".repeat(1025);
    for (bucket, key) in [("", "k"), ("b", ""), (&long_bucket[..], "k"), ("b", &long_key[..])] {
        assert_eq!(seal(bucket, key, b"x", &mut [0; 2000]), Err(FileError::Name));
    }
}
