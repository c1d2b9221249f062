//! The digests that a request declares of its body.

use keyhole_core::head::ChecksumAlgorithm;

use super::Declared;
use crate::checksum::{self, Hasher};
use crate::http::RequestHead;
use crate::{Error, ErrorCode};

/// Collects the digests that the request head declares, by value or for the trailer.
pub(super) fn declared(head: &RequestHead) -> Result<Vec<Declared>, Error> {
    let mut declared = Vec::new();
    if let Some(text) = head.headers.get("content-md5") {
        let algorithm = ChecksumAlgorithm::ContentMd5;
        declared.push(Declared {
            algorithm,
            hasher: Some(Hasher::new(algorithm)),
            expected: Some(decode(algorithm, text)?),
            in_trailer: false,
        });
    }
    // The checksum of a CompleteMultipartUpload is the object's, not the document's.
    let completes = head.method == "POST" && head.query.has("uploadId");
    if completes {
        return Ok(declared);
    }
    let checksums = declared_checksums(head)?;
    require_announced(head, &checksums)?;
    declared.extend(checksums);
    Ok(declared)
}

/// Collects the declared checksums: of one algorithm, and then in the request head, in the trailer,
/// or in both.
fn declared_checksums(head: &RequestHead) -> Result<Vec<Declared>, Error> {
    let mut declared: Vec<Declared> = Vec::new();
    for (name, text) in head.headers.iter().filter(|(name, _)| name.starts_with(checksum::PREFIX)) {
        let Some(algorithm) = checksum::of_header(name) else {
            if checksum::OTHER_HEADERS.contains(&name) {
                continue;
            }
            let message = format!(
                "The header {name} names a checksum algorithm that is not supported. Please try again with any of: [{}]",
                checksum::algorithm_names()
            );
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        };
        let expected = Some(decode(algorithm, text)?);
        declared.push(Declared { algorithm, hasher: Some(Hasher::new(algorithm)), expected, in_trailer: false });
    }
    for name in head.headers.all("x-amz-trailer") {
        let name = name.trim_ascii().to_ascii_lowercase();
        let Some(algorithm) = std::str::from_utf8(&name).ok().and_then(checksum::of_header) else {
            let message = "The value specified in the x-amz-trailer header is not supported.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        };
        declared.push(Declared { algorithm, hasher: Some(Hasher::new(algorithm)), expected: None, in_trailer: true });
    }
    let is_pair = match &declared[..] {
        [_] | [] => true,
        [first, second] => first.algorithm == second.algorithm && first.in_trailer != second.in_trailer,
        _ => false,
    };
    if is_pair { Ok(declared) } else { Err(checksum::multiple_checksums()) }
}

/// Checks that the checksum that `x-amz-sdk-checksum-algorithm` announces is the declared one.
fn require_announced(head: &RequestHead, declared: &[Declared]) -> Result<(), Error> {
    const NAME: &str = "x-amz-sdk-checksum-algorithm";
    let Some(value) = head.headers.get(NAME) else { return Ok(()) };
    let announced = std::str::from_utf8(value).ok().and_then(checksum::algorithm_of);
    let Some(announced) = announced else { return Err(checksum::invalid_header(NAME)) };
    let message = match declared.first().map(|declared| declared.algorithm) {
        Some(algorithm) if algorithm == announced => return Ok(()),
        Some(algorithm) => format!(
            "{NAME} announces {}, but the request has a checksum of {}.",
            checksum::algorithm_name(announced),
            checksum::algorithm_name(algorithm)
        ),
        None => format!(
            "{NAME} is given, and the request has no checksum: send {0} or x-amz-trailer: {0}.",
            checksum::header_name(announced)
        ),
    };
    Err(Error::new(ErrorCode::InvalidRequest).with_message(message))
}

/// Decodes a digest from its header.
pub(super) fn decode(algorithm: ChecksumAlgorithm, text: &[u8]) -> Result<Vec<u8>, Error> {
    checksum::decode(algorithm, text).ok_or_else(|| match algorithm {
        ChecksumAlgorithm::ContentMd5 => {
            Error::new(ErrorCode::InvalidDigest).with_message("The Content-MD5 you specified is not valid.")
        }
        _ => checksum::invalid_header(checksum::header_name(algorithm)),
    })
}
