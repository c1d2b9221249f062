//! Fuzz targets. `cargo test` replays their corpora.

use keyhole_core::aead::Portable;
use keyhole_core::body::{self, Bodies};
use keyhole_core::chunked::{Opener, Sealer, message_len, plaintext_len};
use keyhole_core::file::{BodyEntry, Decoded, ENTRY_LEN, Layout, PREFACE_MAX, Preface};
use keyhole_core::head::{Head, open_head};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_core::sse_c::{Headers, SseCHeaders, SseCTarget};
use keyhole_core::{CustomerKey, NotAuthentic};

/// Parses lines of `name: value` as headers. An accepted key must survive encoding and parsing.
pub fn headers(data: &[u8]) {
    let lines = || {
        data.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
        })
    };
    for target in [SseCTarget::Object, SseCTarget::CopySource] {
        let Ok(parsed) = SseCHeaders::from_headers(target, lines()) else { continue };
        let written = parsed.for_write();
        let read = parsed.for_read();
        if let Ok(Some(key)) = written {
            assert_eq!(read, Ok(Some(CustomerKey::new(*key.expose()))));
            let headers = Headers::new(&key);
            let again = headers.iter(target).map(|(name, value)| (name, value.as_bytes()));
            let again = SseCHeaders::from_headers(target, again.into_iter()).expect("its own headers");
            assert_eq!(again.for_write(), Ok(Some(key)));
        }
    }
}

/// Decodes an object head. A valid object head must encode to the same bytes, as the encoding is
/// unique.
pub fn head(data: &[u8]) {
    if let Ok(head) = Head::decode(data) {
        let mut encoded = vec![0; data.len()];
        assert_eq!(head.encode(&mut encoded), Ok(data.len()));
        assert_eq!(encoded, data);
        let _ = format!("{head:?}");
    }
    let mut sealed = data.to_vec();
    assert!(open_head(&Portable, &CustomerKey::new([1; 32]), "bucket", "key", &mut sealed).is_err());
}

fn open(key: &[u8; 32], message: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
    let len = plaintext_len(message.len() as u64).ok_or(NotAuthentic)?;
    let (prefix, rest) = message.split_first_chunk::<PREFIX_LEN>().ok_or(NotAuthentic)?;
    let mut opener = Opener::new(&Portable, key, prefix, &[b"context"])?;
    let mut plaintext = Vec::new();
    for (index, sealed) in (0..).zip(rest.chunks(CHUNK_LEN + TAG_LEN)) {
        let (chunk, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(NotAuthentic)?;
        let mut chunk = chunk.to_vec();
        let opened = opener.open_at(index, &mut chunk, tag);
        if opened.is_err() {
            assert!(chunk.iter().all(|byte| *byte == 0), "a damaged chunk is wiped");
        }
        opened?;
        plaintext.extend(chunk);
    }
    assert_eq!(plaintext.len() as u64, len);
    Ok(plaintext)
}

/// Seals a plaintext in pieces. It must open, and must not open when cut or damaged. The first
/// eight bytes of the input select the pieces and the damage.
pub fn chunked(data: &[u8]) {
    let key = [3; 32];
    assert!(open(&key, data).is_err(), "never sealed");
    let Some(([cut_a, cut_b, at @ .., bit], plaintext)) = data.split_first_chunk::<8>() else { return };
    // Repeat it, to get several chunks.
    let plaintext = plaintext.repeat(1 + usize::from(*cut_b) * 4);
    let mut sealer = Sealer::new(&Portable, &key, &[5; SALT_LEN], &[b"con", b"text"]);
    let mut message = sealer.prefix().to_vec();
    let mut chunks: Vec<Vec<u8>> = plaintext.chunks(CHUNK_LEN).map(<[u8]>::to_vec).collect();
    if plaintext.len() % CHUNK_LEN == 0 {
        chunks.push(Vec::new());
    }
    for mut chunk in chunks {
        let mut sealing = sealer.begin_next();
        chunk.chunks_mut(1 + usize::from(*cut_a)).for_each(|piece| sealing.seal(piece));
        let tag = sealing.finish();
        message.extend(chunk);
        message.extend(tag);
    }
    assert!(sealer.is_finished());
    assert_eq!(message_len(plaintext.len() as u64), Some(message.len() as u64));
    assert!(open(&key, &message).as_deref() == Ok(&plaintext[..]));
    let place = at.iter().fold(0, |place, byte| place << 8 | usize::from(*byte)) % message.len();
    assert!(open(&key, &message[..place]).is_err(), "cut at {place}");
    message[place] ^= 1 << (bit % 8);
    assert!(open(&key, &message).is_err(), "damaged at {place}");
}

/// Decodes a sealed object file. Decoded pieces must encode to the same bytes, and the object head
/// must not open with another key.
pub fn sealed_file(data: &[u8]) {
    let (preface, len) = match Preface::decode(data) {
        Ok(Decoded::Whole(preface, len)) => (preface, len),
        Ok(Decoded::Needs(needed)) => return assert!(needed > data.len() && needed <= PREFACE_MAX),
        Err(_) => return,
    };
    let mut encoded = vec![0; len];
    assert_eq!(preface.encode(&mut encoded), Ok(len));
    assert_eq!(encoded, data[..len]);
    let mut layout = Layout::new(preface.bodies);
    let mut entries = Vec::new();
    for bytes in data[len..].chunks_exact(ENTRY_LEN).take(preface.bodies as usize) {
        let entry = BodyEntry::decode(bytes.try_into().expect("an entry's length"));
        assert_eq!(entry.encode(), bytes);
        if layout.push(&entry).is_err() {
            return;
        }
        entries.push(entry);
    }
    let mut head = preface.sealed_head.to_vec();
    assert!(open_head(&Portable, &CustomerKey::new([1; 32]), preface.bucket, preface.key, &mut head).is_err());
    let Ok(totals) = layout.finish() else { return };
    assert!(totals.plaintext_len < totals.messages_len && totals.file_len(&preface) > len as u64);
    let mut bodies = Bodies::new();
    for entry in &entries {
        bodies.push(entry.part_number, entry.message_len, &[0; SALT_LEN]).expect("the layout has checked it");
    }
    let _ = (bodies.check(&Head::default()), bodies.etag().to_string(), body::context(entries[0].part_number));
}
