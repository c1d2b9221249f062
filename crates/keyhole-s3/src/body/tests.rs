//! Bodies in every framing, split at every position, and malformed ones.

use super::*;
use crate::auth::tests::{Example, NOW_MS};
use crate::auth::{SigningKeys, authenticate};
use crate::http::parse_head;

/// Decodes `wire` in pieces of `piece` bytes. Returns the payload and the digests.
fn decode_all(mut decoder: BodyDecoder, wire: &[u8], piece: usize) -> Result<(Vec<u8>, Digests), Error> {
    let mut got = Vec::new();
    let mut seen = 0;
    let mut received = 0;
    loop {
        match decoder.step(&wire[seen..received])? {
            Step::Skip(len) => seen += len,
            Step::Need if received == wire.len() => return Err(ErrorCode::IncompleteBody.into()),
            Step::Need => received = (received + piece).min(wire.len()),
            Step::Payload if seen == received => {
                if received == wire.len() {
                    return Err(ErrorCode::IncompleteBody.into());
                }
                received = (received + piece).min(wire.len());
            }
            Step::Payload => {
                let len = (decoder.direct() as usize).min(received - seen);
                decoder.payload(&wire[seen..seen + len]);
                got.extend_from_slice(&wire[seen..seen + len]);
                seen += len;
            }
            Step::Done => return decoder.finish().map(|digests| (got, digests)),
        }
    }
}

fn unsigned(headers: &str, wire: &[u8]) -> Result<(Vec<u8>, Digests), ErrorCode> {
    with_payload(BodySignatureKind::Unsigned, headers, wire, 7)
}

fn with_payload(
    kind: BodySignatureKind,
    headers: &str,
    wire: &[u8],
    piece: usize,
) -> Result<(Vec<u8>, Digests), ErrorCode> {
    let text =
        format!("PUT /bucket/k HTTP/1.1\nHost: h\nContent-Length: {}{headers}\n\n", wire.len()).replace('\n', "\r\n");
    let (head, _) = parse_head(text.as_bytes()).unwrap().unwrap();
    BodyDecoder::new(&head, BodySignature(kind), Wanted::Md5, 1 << 20)
        .and_then(|decoder| decode_all(decoder, wire, piece))
        .map_err(|error| error.code)
}

#[test]
fn function_of_several_digests_is_computed_once() {
    let md5 = "JfnnlDI7RTiF9RgfG2JNCw==";
    let sha256 = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";
    let hashers = |digester: &Digester| {
        let declared = digester.declared.iter().filter(|declared| declared.hasher.is_some()).count();
        let computed = digester.computed.iter().filter(|(_, hasher)| hasher.is_some()).count();
        usize::from(digester.md5.is_some()) + declared + computed
    };
    let right: [u8; 32] = Sha256::digest(b"123456789").into();
    for (headers, wanted, is_signed, expected) in [
        (format!("Content-MD5: {md5}\r\n"), Wanted::Md5, false, 1),
        (format!("Content-MD5: {md5}\r\nx-amz-checksum-md5: {md5}\r\n"), Wanted::Md5, false, 1),
        (format!("Content-MD5: {md5}\r\nx-amz-checksum-md5: {md5}\r\n"), Wanted::None, false, 1),
        (format!("x-amz-checksum-md5: {md5}\r\n"), Wanted::None, false, 1),
        (format!("x-amz-checksum-sha256: {sha256}\r\n"), Wanted::None, true, 0),
        (format!("x-amz-checksum-sha256: {sha256}\r\n"), Wanted::Md5, false, 2),
        ("x-amz-checksum-crc32: y/Q5Jg==\r\n".to_owned(), Wanted::Md5, true, 2),
    ] {
        let head = format!("PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n{headers}\r\n");
        let (head, _) = parse_head(head.as_bytes()).unwrap().unwrap();
        let kind = match is_signed {
            true => BodySignatureKind::Signed(Box::new(right)),
            false => BodySignatureKind::Unsigned,
        };
        let decoder = BodyDecoder::new(&head, BodySignature(kind), wanted, 9).unwrap();
        assert_eq!(hashers(&decoder.digester), expected, "{headers}");
        let (_, digests) = decode_all(decoder, b"123456789", 4).unwrap();
        assert_eq!(digests.checksums.iter().count(), headers.matches("\r\n").count(), "{headers}");
        // A wrong digest is still found.
        let wrong = headers.replacen("J", "K", 1).replacen("F", "G", 1).replacen("y/", "z/", 1);
        let head = format!("PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n{wrong}\r\n");
        let (head, _) = parse_head(head.as_bytes()).unwrap().unwrap();
        let kind = if is_signed { BodySignatureKind::Signed(Box::new(right)) } else { BodySignatureKind::Unsigned };
        let decoder = BodyDecoder::new(&head, BodySignature(kind), wanted, 9).unwrap();
        assert_eq!(decode_all(decoder, b"123456789", 4).unwrap_err().code, ErrorCode::BadDigest, "{wrong}");
    }
    // A copy whose ETag and checksum are both MD5.
    let copied = Digester::undeclared(Wanted::Md5, Some(ChecksumAlgorithm::Md5));
    assert_eq!(hashers(&copied), 1);
    let digests = copied.finish().unwrap();
    assert_eq!(digests.checksums.get(ChecksumAlgorithm::Md5), digests.md5.as_ref().map(|md5| &md5[..]));
}

#[test]
fn md5_left_to_the_caller_is_verified() {
    let right: [u8; 16] = hex::decode("25f9e794323b453885f5181f1b624d0b").unwrap().try_into().unwrap();
    let head = "PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\
        Content-MD5: JfnnlDI7RTiF9RgfG2JNCw==\r\nx-amz-checksum-md5: JfnnlDI7RTiF9RgfG2JNCw==\r\n\r\n";
    let (head, _) = parse_head(head.as_bytes()).unwrap().unwrap();
    let decode = |md5: Option<[u8; 16]>| {
        let kind = BodySignatureKind::Unsigned;
        let mut decoder = BodyDecoder::new(&head, BodySignature(kind), Wanted::Md5, 9).unwrap();
        assert!(decoder.digester().leave_md5());
        if let Some(md5) = md5 {
            decoder.digester().set_md5(md5);
        }
        decode_all(decoder, b"123456789", 4).map(|(_, digests)| digests).map_err(|error| error.code)
    };
    let digests = decode(Some(right)).unwrap();
    assert_eq!(digests.md5, Some(right));
    assert_eq!(digests.checksums.get(ChecksumAlgorithm::ContentMd5), Some(&right[..]));
    assert_eq!(digests.checksums.get(ChecksumAlgorithm::Md5), Some(&right[..]));
    assert_eq!(decode(Some([7; 16])).unwrap_err(), ErrorCode::BadDigest);
    assert_eq!(decode(None).unwrap_err(), ErrorCode::InternalError);
    assert!(!Digester::undeclared(Wanted::None, None).leave_md5());
}

#[test]
fn plain_bodies_are_verified_against_their_digests() {
    let (body, digests) =
        unsigned("\nContent-MD5: JfnnlDI7RTiF9RgfG2JNCw==\nx-amz-checksum-crc32: y/Q5Jg==", b"123456789").unwrap();
    assert_eq!(body, b"123456789");
    assert_eq!(hex::encode(digests.md5.unwrap()), "25f9e794323b453885f5181f1b624d0b");
    assert_eq!(digests.checksums.get(ChecksumAlgorithm::Crc32), Some(&[0xcb, 0xf4, 0x39, 0x26][..]));
    for (headers, code) in [
        ("\nContent-MD5: JfnnlDI7RTiF9RgfG2JNCg==", ErrorCode::BadDigest),
        ("\nContent-MD5: JfnnlDI7", ErrorCode::InvalidDigest),
        ("\nx-amz-checksum-crc32: y/Q5Jw==", ErrorCode::BadDigest),
        ("\nx-amz-checksum-crc32: y/Q5", ErrorCode::InvalidRequest),
        ("\nx-amz-checksum-sha1: y/Q5Jg==", ErrorCode::InvalidRequest),
        ("\nx-amz-checksum-crc32: y/Q5Jg==\nx-amz-checksum-crc32c: 4waSgw==", ErrorCode::InvalidRequest),
        ("\nx-amz-trailer: x-amz-checksum-crc32", ErrorCode::InvalidRequest),
        ("\nx-amz-trailer: x-other", ErrorCode::InvalidRequest),
    ] {
        assert_eq!(unsigned(headers, b"123456789").unwrap_err(), code, "{headers}");
    }
    let right = Sha256::digest(b"123456789").into();
    assert!(with_payload(BodySignatureKind::Signed(Box::new(right)), "", b"123456789", 4).is_ok());
    let wrong = with_payload(BodySignatureKind::Signed(Box::new([0; 32])), "", b"123456789", 4);
    assert_eq!(wrong.unwrap_err(), ErrorCode::XAmzContentSHA256Mismatch);
}

#[test]
fn body_lengths_are_required_and_limited() {
    let check = |text: &str, max: u64| {
        let text = text.replace('\n', "\r\n") + "\r\nHost: h\r\n\r\n";
        let (head, _) = parse_head(text.as_bytes()).unwrap().unwrap();
        BodyDecoder::new(&head, BodySignature(BodySignatureKind::Unsigned), Wanted::None, max)
            .map(|decoder| decoder.payload_len())
            .map_err(|error| error.code)
    };
    assert_eq!(check("PUT /bucket HTTP/1.1", 9), Ok(0));
    assert_eq!(check("GET /bucket/k HTTP/1.1", 9), Ok(0));
    assert_eq!(check("PUT /bucket/k HTTP/1.1\nContent-Length: 9", 9), Ok(9));
    assert_eq!(check("PUT /bucket/k HTTP/1.1\nContent-Length: 10", 9), Err(ErrorCode::EntityTooLarge));
}

const TRAILER: &str = "\nx-amz-trailer: x-amz-checksum-crc32\nx-amz-decoded-content-length: 9";

fn trailer(wire: &str, piece: usize) -> Result<Vec<u8>, ErrorCode> {
    let kind = BodySignatureKind::Streaming { signer: None, trailer: true };
    with_payload(kind, TRAILER, wire.replace('\n', "\r\n").as_bytes(), piece).map(|(body, _)| body)
}

#[test]
fn unsigned_chunks_with_trailer_are_decoded_or_rejected() {
    for piece in 1..60 {
        let body = trailer("4\n1234\n5\n56789\n0\nx-amz-checksum-crc32:y/Q5Jg==\n\n", piece).unwrap();
        assert_eq!(body, b"123456789", "in pieces of {piece}");
    }
    for (wire, code) in [
        ("9\n123456789\n0\nx-amz-checksum-crc32:y/Q5Jw==\n\n", ErrorCode::BadDigest),
        ("9\n123456789\n0\nx-amz-checksum-crc32:y/Q\n\n", ErrorCode::InvalidRequest),
        ("9\n123456789\n0\n\n", ErrorCode::InvalidRequest),
        ("9\n123456789\n0\nx-amz-checksum-sha1:y/Q5Jg==\n\n", ErrorCode::InvalidRequest),
        (
            "9\n123456789\n0\nx-amz-checksum-crc32:y/Q5Jg==\nx-amz-checksum-crc32:y/Q5Jg==\n\n",
            ErrorCode::InvalidRequest,
        ),
        ("9\n123456789\n0\nx-amz-checksum-crc32:y/Q5Jg==\n\nmore", ErrorCode::InvalidRequest),
        ("9\n123456789\n0\nx-amz-checksum-crc32:y/Q5Jg==\n", ErrorCode::IncompleteBody),
        ("9\n1234567890\n0\nx-amz-checksum-crc32:y/Q5Jg==\n\n", ErrorCode::InvalidRequest),
        ("8\n12345678\n0\nx-amz-checksum-crc32:y/Q5Jg==\n\n", ErrorCode::IncompleteBody),
        ("a\n1234567890\n0\nx-amz-checksum-crc32:y/Q5Jg==\n\n", ErrorCode::InvalidRequest),
        ("9\n123456", ErrorCode::IncompleteBody),
        ("9", ErrorCode::IncompleteBody),
        ("+9\n123456789\n", ErrorCode::InvalidRequest),
        ("\n", ErrorCode::InvalidRequest),
        ("fffffffffffffffff\n", ErrorCode::InvalidRequest),
    ] {
        for piece in [1, 1000] {
            assert_eq!(trailer(wire, piece).unwrap_err(), code, "{wire:?}");
        }
    }
}

/// Decodes with `Transfer-Encoding: chunked`; `wire` has `\n` as line ends.
fn transferred(kind: BodySignatureKind, wire: &[u8], piece: usize) -> Result<Vec<u8>, ErrorCode> {
    let text =
        format!("PUT /bucket/k HTTP/1.1\nHost: h\nTransfer-Encoding: chunked{TRAILER}\n\n").replace('\n', "\r\n");
    let (head, _) = parse_head(text.as_bytes()).unwrap().unwrap();
    BodyDecoder::new(&head, BodySignature(kind), Wanted::None, 1 << 20)
        .and_then(|decoder| decode_all(decoder, wire, piece))
        .map(|(body, _)| body)
        .map_err(|error| error.code)
}

/// Encodes bytes in chunks of `len`.
fn in_chunks(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in bytes.chunks(len) {
        wire.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// Bodies as botocore sends them over TLS: HTTP chunks around S3 chunks, with independent
/// boundaries.
#[test]
fn chunks_within_transfer_encoding_are_decoded_or_rejected() {
    let streaming = || BodySignatureKind::Streaming { signer: None, trailer: true };
    let inner = "4\r\n1234\r\n5\r\n56789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
    for len in 1..60 {
        for piece in [1, 2, 3, 5, 8, 13, 1000] {
            let body = transferred(streaming(), &in_chunks(inner.as_bytes(), len), piece);
            assert_eq!(body.as_deref(), Ok(&b"123456789"[..]), "chunks of {len} in pieces of {piece}");
        }
        let signed = in_chunks(&published_wire(), len * 1000);
        assert_eq!(published(&signed, true).unwrap(), vec![b'a'; 66_560]);
    }
    let with = |from: &str, to: &str| inner.replace(from, to).into_bytes();
    let whole = |inner: &[u8]| in_chunks(inner, 7);
    let good = whole(inner.as_bytes());
    let long_line = [b"9;".to_vec(), vec![b'x'; CHUNK_LINE_MAX]].concat();
    for (wire, code) in [
        (good[..good.len() - 1].to_vec(), ErrorCode::IncompleteBody),
        (good[..good.len() - 7].to_vec(), ErrorCode::IncompleteBody),
        (whole(&inner.as_bytes()[..inner.len() - 2]), ErrorCode::IncompleteBody),
        (whole(&with("56789", "56780")), ErrorCode::BadDigest),
        (whole(&with("56789", "567890")), ErrorCode::InvalidRequest),
        (whole(&[inner.as_bytes(), b"more"].concat()), ErrorCode::InvalidRequest),
        (whole(&long_line), ErrorCode::InvalidRequest),
        (in_chunks(&long_line, 1000), ErrorCode::InvalidRequest),
        (b"0\r\n\r\n".to_vec(), ErrorCode::IncompleteBody),
        (b"x\r\n\r\n".to_vec(), ErrorCode::InvalidRequest),
        (b"3\r\n4\r\n1234".to_vec(), ErrorCode::InvalidRequest),
        (long_line.clone(), ErrorCode::InvalidRequest),
    ] {
        for piece in [1, 1000] {
            let text = String::from_utf8_lossy(&wire);
            assert_eq!(transferred(streaming(), &wire, piece).unwrap_err(), code, "{text:?}");
        }
    }
    // S3 supports it around `aws-chunked` only.
    for kind in [BodySignatureKind::Unsigned, BodySignatureKind::Signed(Box::new([0; 32]))] {
        let text = "PUT /bucket/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (head, _) = parse_head(text.as_bytes()).unwrap().unwrap();
        let error = BodyDecoder::new(&head, BodySignature(kind), Wanted::None, 9).map(drop).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotImplemented);
    }
}

#[test]
fn chunk_lines_and_trailers_are_limited() {
    let line = |len: usize| format!("9;{}\n123456789\n0\nx-amz-checksum-crc32:y/Q5Jg==\n\n", "x".repeat(len - 4));
    assert!(trailer(&line(CHUNK_LINE_MAX), 9).is_ok());
    assert_eq!(trailer(&line(CHUNK_LINE_MAX + 1), 9).unwrap_err(), ErrorCode::InvalidRequest);
    let field = "x-amz-checksum-crc32:y/Q5Jg==";
    let long = |len: usize| format!("9\n123456789\n0\n{field}{}\n\n", " ".repeat(len - field.len() - 4));
    assert!(trailer(&long(TRAILER_MAX), 9).is_ok());
    assert_eq!(trailer(&long(TRAILER_MAX + 1), 9).unwrap_err(), ErrorCode::InvalidRequest);
}

/// The example of AWS's page "Signature Calculations: Transferring Payload in Multiple Chunks".
fn published(wire: &[u8], is_chunked: bool) -> Result<Vec<u8>, ErrorCode> {
    let text = "PUT /examplebucket/chunkObject.txt HTTP/1.1\nHost: s3.amazonaws.com\nx-amz-date: 20130524T000000Z\n\
        x-amz-storage-class: REDUCED_REDUNDANCY\nAuthorization: AWS4-HMAC-SHA256 \
        Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
        SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,\
        Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9\n\
        x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\nContent-Encoding: aws-chunked\n\
        x-amz-decoded-content-length: 66560\nContent-Length: 66824\n\n";
    let (mut head, _) = parse_head(text.replace('\n', "\r\n").as_bytes()).unwrap().unwrap();
    let identity = authenticate(&head, &Example::default(), &SigningKeys::default(), "us-east-1", NOW_MS)
        .expect("the published signature");
    if is_chunked {
        // The example signs `Content-Length`; clients that send no length do not sign it.
        head.content_length = None;
        head.is_chunked = true;
    }
    BodyDecoder::new(&head, identity.body, Wanted::None, 1 << 20)
        .and_then(|decoder| decode_all(decoder, wire, 10_000))
        .map(|(body, _)| body)
        .map_err(|error| error.code)
}

fn published_wire() -> Vec<u8> {
    let mut wire = Vec::new();
    for (len, signature) in [
        (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ] {
        wire.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
        wire.extend_from_slice(&vec![b'a'; len]);
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

#[test]
fn published_signed_chunks_are_accepted() {
    let wire = published_wire();
    assert_eq!(wire.len(), 66_824);
    assert_eq!(published(&wire, false).unwrap(), vec![b'a'; 66_560]);
}

#[test]
fn signed_chunk_with_changed_byte_is_rejected() {
    // In the data of both chunks and in each signature.
    let wire = published_wire();
    for at in [200, 65_000, 66_000, 30, 65_536 + 87 + 2 + 40, wire.len() - 20] {
        let mut wrong = wire.clone();
        wrong[at] ^= 1;
        assert_eq!(published(&wrong, false).unwrap_err(), ErrorCode::SignatureDoesNotMatch, "{at}");
    }
    assert_eq!(published(&wire[..wire.len() - 2], false).unwrap_err(), ErrorCode::IncompleteBody);
}

#[test]
fn random_bodies_cause_no_panic() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let alphabet = b"0129af\r\n;:x-=\x00\xff";
    for _ in 0..5_000 {
        let wire: Vec<u8> = (0..random.usize(..64)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
        let piece = random.usize(1..=20);
        let kind = BodySignatureKind::Streaming { signer: None, trailer: random.bool() };
        let _ = with_payload(kind, "\nx-amz-decoded-content-length: 9", &wire, piece);
        let kind = BodySignatureKind::Streaming { signer: None, trailer: random.bool() };
        let _ = transferred(kind, &wire, piece);
        let _ = parse_head(&wire);
    }
}

#[test]
fn checksums_of_current_sdks_are_verified() {
    for (header, right, wrong) in [
        (
            "x-amz-checksum-sha512",
            "2eZ2LdHI6vbWGzxhkvxAjU1tXxF20MKRabwk5xw/J0rSf81YEbMT1oH35V7ALXPUmclUVba1u1A6z1dPuo/+hQ==",
            "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        ),
        ("x-amz-checksum-md5", "JfnnlDI7RTiF9RgfG2JNCw==", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        ("x-amz-checksum-xxhash64", "jLhB20DmroM=", "70bbN1HY6Zk="),
        ("x-amz-checksum-xxhash3", "ctyxi2ehff8=", "LQaABTjTlMI="),
        ("x-amz-checksum-xxhash128", "MxGUd+3l3NXpcWQnaB1YYA==", "maoG0wFHmNhgAcMkRo1Jfw=="),
    ] {
        assert!(unsigned(&format!("\n{header}: {right}"), b"123456789").is_ok(), "{header}");
        assert_eq!(unsigned(&format!("\n{header}: {wrong}"), b"123456789").unwrap_err(), ErrorCode::BadDigest);
        assert_eq!(unsigned(&format!("\n{header}: AAAA"), b"123456789").unwrap_err(), ErrorCode::InvalidRequest);
    }
}

#[test]
fn announced_checksum_must_be_declared() {
    let announced = "\nx-amz-sdk-checksum-algorithm: CRC32";
    let crc32 = "\nx-amz-checksum-crc32: y/Q5Jg==";
    assert!(unsigned(&format!("{announced}{crc32}"), b"123456789").is_ok());
    for bad in [
        announced.to_owned(),
        "\nx-amz-sdk-checksum-algorithm: CRC16".to_owned(),
        format!("\nx-amz-sdk-checksum-algorithm: CRC32C{crc32}"),
        format!("{announced}\nContent-MD5: JfnnlDI7RTiF9RgfG2JNCw=="),
        "\nx-amz-checksum-crc16: AAA=".to_owned(),
    ] {
        assert_eq!(unsigned(&bad, b"123456789").unwrap_err(), ErrorCode::InvalidRequest, "{bad}");
    }
}

#[test]
fn checksum_in_header_and_trailer_is_verified_twice() {
    let check = |header: &str, value: &str| {
        let kind = BodySignatureKind::Streaming { signer: None, trailer: true };
        let wire = format!("9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:{value}\r\n\r\n");
        with_payload(kind, &format!("{TRAILER}{header}"), wire.as_bytes(), 5).map(|_| ())
    };
    let right = "y/Q5Jg==";
    let wrong = "y/Q5Jw==";
    let header = |value: &str| format!("\nx-amz-checksum-crc32: {value}");
    assert_eq!(check(&header(right), right), Ok(()));
    assert_eq!(check(&header(wrong), right), Err(ErrorCode::BadDigest));
    assert_eq!(check(&header(right), wrong), Err(ErrorCode::BadDigest));
    assert_eq!(check("\nx-amz-checksum-crc32c: 4waSgw==", right), Err(ErrorCode::InvalidRequest));
}
