//! Object properties declared in a CompleteMultipartUpload, and the checksum that each part
//! requires.

use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums};

use crate::checksum;
use crate::http::RequestHead;
use crate::xml::CompletedPart;
use crate::{Error, ErrorCode};

const SIZE_HEADER: &str = "x-amz-mp-object-size";

/// The checksum that an upload declared, if any.
pub type DeclaredChecksum = Option<(ChecksumAlgorithm, ChecksumType)>;

/// The object properties declared in the headers of a completion.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Completion {
    checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
    /// The number of parts that follows a composite checksum.
    parts: Option<u16>,
    kind: Option<ChecksumType>,
    size: Option<u64>,
}

impl Completion {
    /// Parses the headers.
    ///
    /// # Errors
    /// `InvalidRequest` for invalid values and for more than one checksum.
    pub fn new(head: &RequestHead) -> Result<Self, Error> {
        let mut completion = Completion::default();
        for algorithm in checksum::ALGORITHMS {
            let name = checksum::header_name(algorithm);
            for text in head.headers.all(name) {
                if completion.checksum.is_some() {
                    return Err(checksum::multiple_checksums());
                }
                let mut halves = text.splitn(2, |byte| *byte == b'-');
                let digest = halves.next().and_then(|text| checksum::decode(algorithm, text));
                let parts = halves.next().map(|text| std::str::from_utf8(text).ok()?.parse().ok());
                let (Some(digest), false) = (digest, parts == Some(None)) else {
                    return Err(checksum::invalid_header(name));
                };
                completion.checksum = Some((algorithm, digest));
                completion.parts = parts.flatten();
            }
        }
        completion.kind = checksum::type_header(head)?;
        if let Some(text) = head.headers.text(SIZE_HEADER) {
            completion.size = Some(text.parse().map_err(|_| checksum::invalid_header(SIZE_HEADER))?);
        }
        Ok(completion)
    }

    /// Returns the checksum to compute from those of the parts: the upload's, or else the one
    /// declared here.
    pub fn wanted(&self, declared: DeclaredChecksum) -> DeclaredChecksum {
        declared.or_else(|| self.checksum.as_ref().map(|(algorithm, _)| (*algorithm, ChecksumType::FullObject)))
    }

    /// Compares the declared properties with those of the object.
    ///
    /// # Errors
    /// `BadDigest` if the checksum or its type differs; `InvalidRequest` if the size differs or
    /// there is no computed checksum to compare.
    pub fn check(&self, size: u64, parts: u16, declared: DeclaredChecksum, checksums: &Checksums) -> Result<(), Error> {
        if let Some(said) = self.size.filter(|said| *said != size) {
            return Err(invalid(format!(
                "The provided '{SIZE_HEADER}' header value {said} does not match what was computed: {size}"
            )));
        }
        let kind = declared.map_or(ChecksumType::FullObject, |(_, kind)| kind);
        if self.kind.is_some_and(|said| said != kind) {
            let message = format!("The upload was created with the checksum type {}.", checksum::type_name(kind));
            return Err(Error::new(ErrorCode::BadDigest).with_message(message));
        }
        let Some((algorithm, said)) = &self.checksum else { return Ok(()) };
        let Some(digest) = checksums.get(*algorithm) else {
            return Err(mismatch(declared.map(|(algorithm, _)| algorithm), Some(*algorithm)));
        };
        let of_parts = self.parts.is_none_or(|said| kind == ChecksumType::Composite && said == parts);
        if digest == said && of_parts {
            return Ok(());
        }
        Err(checksum::bad_digest(*algorithm))
    }
}

/// Returns the algorithm that the node must compute for a part because the client did not send a
/// checksum.
///
/// # Errors
/// `InvalidRequest` if the part's checksum differs from the one that its upload declared, or if it
/// is missing although the object's checksum is a composite of those that the client sends.
pub fn checksum_of_part(
    declared: DeclaredChecksum,
    sent: Option<ChecksumAlgorithm>,
) -> Result<Option<ChecksumAlgorithm>, Error> {
    match (declared, sent) {
        (None, _) => Ok(None),
        (Some((algorithm, _)), Some(sent)) if sent == algorithm => Ok(None),
        (Some((algorithm, ChecksumType::FullObject)), None) => Ok(Some(algorithm)),
        (Some((algorithm, _)), sent) => Err(mismatch(Some(algorithm), sent)),
    }
}

/// Checks that a completion names the checksums of all parts, if the object's is a composite of
/// them.
///
/// # Errors
/// `InvalidRequest`.
pub fn require_part_checksums(declared: DeclaredChecksum, completed: &[CompletedPart]) -> Result<(), Error> {
    let Some((algorithm, ChecksumType::Composite)) = declared else { return Ok(()) };
    match completed.iter().find(|part| part.checksums.get(algorithm).is_none()) {
        None => Ok(()),
        Some(part) => Err(invalid(format!(
            "The upload was created using a {} checksum. The complete request must include the checksum for each part. \
             It was missing for part {} in the request.",
            checksum::algorithm_name(algorithm).to_ascii_lowercase(),
            part.number
        ))),
    }
}

fn mismatch(expected: Option<ChecksumAlgorithm>, actual: Option<ChecksumAlgorithm>) -> Error {
    let name = |algorithm: Option<ChecksumAlgorithm>| {
        algorithm.map_or_else(|| "null".to_owned(), |it| checksum::algorithm_name(it).to_ascii_lowercase())
    };
    invalid(format!(
        "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
        name(expected),
        name(actual)
    ))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChecksumAlgorithm::{Crc32, Sha256};
    use ChecksumType::{Composite, FullObject};

    fn completion(headers: &str) -> Result<Completion, ErrorCode> {
        let head = format!("POST /b/k?uploadId=1 HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        Completion::new(&crate::http::parse_head(head.as_bytes()).unwrap().unwrap().0).map_err(|error| error.code)
    }

    #[test]
    fn completion_headers_are_checked_against_the_object() {
        let crc = "x-amz-checksum-crc32: AAAAAQ==";
        for bad in [
            "x-amz-checksum-crc32: AAAA\r\n".to_owned(),
            "x-amz-checksum-crc32: AAAAAQ==-x\r\n".to_owned(),
            format!("{crc}\r\nx-amz-checksum-crc32c: AAAAAQ==\r\n"),
            "x-amz-checksum-type: WHOLE\r\n".to_owned(),
            "x-amz-mp-object-size: -1\r\n".to_owned(),
        ] {
            assert_eq!(completion(&bad), Err(ErrorCode::InvalidRequest), "{bad}");
        }
        let mut checksums = Checksums::default();
        checksums.set(Crc32, &[0, 0, 0, 1]).unwrap();
        let check = |headers: String, declared: DeclaredChecksum| {
            completion(&headers).unwrap().check(7, 2, declared, &checksums).map_err(|error| error.code)
        };
        let whole = Some((Crc32, FullObject));
        let parts = Some((Crc32, Composite));
        for (headers, declared, expected) in [
            (String::new(), None, Ok(())),
            (format!("{crc}\r\n"), whole, Ok(())),
            (format!("{crc}\r\n"), parts, Ok(())),
            (format!("{crc}\r\n"), None, Ok(())),
            (format!("{crc}-2\r\n"), parts, Ok(())),
            (format!("{crc}-3\r\n"), parts, Err(ErrorCode::BadDigest)),
            (format!("{crc}-2\r\n"), whole, Err(ErrorCode::BadDigest)),
            ("x-amz-checksum-crc32: AAAAAg==\r\n".to_owned(), whole, Err(ErrorCode::BadDigest)),
            ("x-amz-checksum-crc32c: AAAAAg==\r\n".to_owned(), whole, Err(ErrorCode::InvalidRequest)),
            ("x-amz-checksum-type: COMPOSITE\r\n".to_owned(), whole, Err(ErrorCode::BadDigest)),
            ("x-amz-checksum-type: FULL_OBJECT\r\n".to_owned(), whole, Ok(())),
            ("x-amz-mp-object-size: 7\r\n".to_owned(), None, Ok(())),
            ("x-amz-mp-object-size: 8\r\n".to_owned(), None, Err(ErrorCode::InvalidRequest)),
        ] {
            assert_eq!(check(headers.clone(), declared), expected, "{headers} {declared:?}");
        }
    }

    #[test]
    fn part_checksums_must_match_the_declared_algorithm() {
        let of_part = |declared, sent| checksum_of_part(declared, sent).map_err(|error| error.code);
        let wrong = Err(ErrorCode::InvalidRequest);
        assert_eq!(of_part(None, None), Ok(None));
        assert_eq!(of_part(None, Some(Crc32)), Ok(None));
        assert_eq!(of_part(Some((Crc32, FullObject)), None), Ok(Some(Crc32)));
        assert_eq!(of_part(Some((Crc32, FullObject)), Some(Crc32)), Ok(None));
        assert_eq!(of_part(Some((Crc32, FullObject)), Some(Sha256)), wrong);
        assert_eq!(of_part(Some((Sha256, Composite)), Some(Sha256)), Ok(None));
        assert_eq!(of_part(Some((Sha256, Composite)), None), wrong);
        assert_eq!(of_part(Some((Sha256, Composite)), Some(Crc32)), wrong);
    }
}
