//! S3 checksums: names, incremental digests, and checksums of objects from those of their parts.

mod xxhash;

use base64ct::{Base64, Encoding};
use crc_fast::CrcAlgorithm;
use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use self::xxhash::XxHash;
use crate::http::RequestHead;
use crate::{Error, ErrorCode};

/// The algorithms with an `x-amz-checksum-` header.
pub const ALGORITHMS: [ChecksumAlgorithm; 10] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
    ChecksumAlgorithm::Sha512,
    ChecksumAlgorithm::Md5,
    ChecksumAlgorithm::XxHash64,
    ChecksumAlgorithm::XxHash3,
    ChecksumAlgorithm::XxHash128,
];

/// The checksum types of multipart objects.
pub const TYPES: [ChecksumType; 2] = [ChecksumType::FullObject, ChecksumType::Composite];

/// The common prefix of the headers of all [`ALGORITHMS`].
pub(crate) const PREFIX: &str = "x-amz-checksum-";

/// Returns the header of an algorithm, in lower case.
pub const fn header_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
        ChecksumAlgorithm::Sha512 => "x-amz-checksum-sha512",
        ChecksumAlgorithm::Md5 => "x-amz-checksum-md5",
        ChecksumAlgorithm::XxHash64 => "x-amz-checksum-xxhash64",
        ChecksumAlgorithm::XxHash3 => "x-amz-checksum-xxhash3",
        ChecksumAlgorithm::XxHash128 => "x-amz-checksum-xxhash128",
        ChecksumAlgorithm::ContentMd5 => "content-md5",
    }
}

/// Headers with the same prefix that are not a checksum.
pub(crate) const OTHER_HEADERS: [&str; 3] = ["x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"];

/// Returns the algorithm of a header, by its lower-case name.
pub(crate) fn of_header(name: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|algorithm| header_name(*algorithm) == name)
}

/// Returns the name of an algorithm in headers and documents.
pub const fn algorithm_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
        ChecksumAlgorithm::Sha512 => "SHA512",
        ChecksumAlgorithm::Md5 | ChecksumAlgorithm::ContentMd5 => "MD5",
        ChecksumAlgorithm::XxHash64 => "XXHASH64",
        ChecksumAlgorithm::XxHash3 => "XXHASH3",
        ChecksumAlgorithm::XxHash128 => "XXHASH128",
    }
}

/// Parses the name of an algorithm, ignoring case.
pub fn algorithm_of(name: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|algorithm| algorithm_name(*algorithm).eq_ignore_ascii_case(name))
}

/// Returns the name of a checksum type.
pub const fn type_name(kind: ChecksumType) -> &'static str {
    match kind {
        ChecksumType::FullObject => "FULL_OBJECT",
        ChecksumType::Composite => "COMPOSITE",
    }
}

/// Parses the name of a checksum type.
pub fn type_of(name: &str) -> Option<ChecksumType> {
    TYPES.into_iter().find(|kind| type_name(*kind) == name)
}

/// Returns the XML element of an algorithm.
pub const fn element_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "ChecksumCRC32",
        ChecksumAlgorithm::Crc32c => "ChecksumCRC32C",
        ChecksumAlgorithm::Crc64Nvme => "ChecksumCRC64NVME",
        ChecksumAlgorithm::Sha1 => "ChecksumSHA1",
        ChecksumAlgorithm::Sha256 => "ChecksumSHA256",
        ChecksumAlgorithm::Sha512 => "ChecksumSHA512",
        ChecksumAlgorithm::Md5 | ChecksumAlgorithm::ContentMd5 => "ChecksumMD5",
        ChecksumAlgorithm::XxHash64 => "ChecksumXXHASH64",
        ChecksumAlgorithm::XxHash3 => "ChecksumXXHASH3",
        ChecksumAlgorithm::XxHash128 => "ChecksumXXHASH128",
    }
}

/// Encodes the checksums that S3 returns (all but the Content-MD5) in base64.
pub fn texts(checksums: &Checksums) -> impl Iterator<Item = (ChecksumAlgorithm, String)> {
    ALGORITHMS.into_iter().filter_map(|algorithm| Some((algorithm, encode(checksums.get(algorithm)?))))
}

/// The checksums of an object and their type. In headers and in the result of a completion, a
/// composite checksum is followed by the number of parts, which marks it as not computed over the
/// bytes; in attributes it is not.
#[derive(Clone, Copy, Debug)]
pub struct ObjectChecksums<'c> {
    /// The checksums.
    pub checksums: &'c Checksums,
    /// Full-object, or a composite of the parts' checksums.
    pub kind: ChecksumType,
    /// Number of parts of the object.
    pub parts: u16,
}

impl ObjectChecksums<'_> {
    /// Encodes the checksums, composite ones with the number of parts.
    pub fn texts(&self) -> impl Iterator<Item = (ChecksumAlgorithm, String)> {
        texts(self.checksums).map(|(algorithm, text)| match self.kind {
            ChecksumType::FullObject => (algorithm, text),
            ChecksumType::Composite => (algorithm, format!("{text}-{}", self.parts)),
        })
    }

    /// Returns the response headers: the checksums, and their type if there are any.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let kind = (!self.checksums.is_empty()).then(|| ("x-amz-checksum-type", type_name(self.kind).to_owned()));
        self.texts().map(|(algorithm, text)| (header_name(algorithm), text)).chain(kind)
    }
}

/// Returns whether the checksums of parts combine to that of the whole, so that a multipart object
/// can have a full-object checksum.
pub(crate) const fn combines(algorithm: ChecksumAlgorithm) -> bool {
    crc(algorithm).is_some()
}

/// Returns the names of all algorithms, separated by commas.
pub(crate) fn algorithm_names() -> String {
    ALGORITHMS.map(algorithm_name).join(", ")
}

const fn crc(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        _ => None,
    }
}

/// An incremental digest.
///
/// ```
/// use keyhole_core::head::ChecksumAlgorithm;
/// use keyhole_s3::checksum::{Hasher, encode};
///
/// let mut hasher = Hasher::new(ChecksumAlgorithm::Crc32);
/// hasher.update(b"123456789");
/// assert_eq!(encode(&hasher.finish()), "y/Q5Jg==");
/// ```
#[derive(Clone)]
pub struct Hasher {
    algorithm: ChecksumAlgorithm,
    state: HashState,
}

#[derive(Clone)]
enum HashState {
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
    Md5(Md5),
    // Boxed because they are larger than the usual ones.
    Sha512(Box<Sha512>),
    XxHash(Box<XxHash>),
}

impl Hasher {
    /// Creates a digest of empty input.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        let state = match (crc(algorithm), algorithm) {
            (Some(crc), _) => HashState::Crc(crc_fast::Digest::new(crc)),
            (None, ChecksumAlgorithm::Sha1) => HashState::Sha1(Sha1::new()),
            (None, ChecksumAlgorithm::Sha256) => HashState::Sha256(Sha256::new()),
            (None, ChecksumAlgorithm::Sha512) => HashState::Sha512(Box::default()),
            (None, ChecksumAlgorithm::XxHash64) => HashState::XxHash(Box::new(XxHash::xxh64())),
            (None, ChecksumAlgorithm::XxHash3) => HashState::XxHash(Box::new(XxHash::xxh3())),
            (None, ChecksumAlgorithm::XxHash128) => HashState::XxHash(Box::new(XxHash::xxh128())),
            (None, _) => HashState::Md5(Md5::new()),
        };
        Hasher { algorithm, state }
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            HashState::Crc(digest) => digest.update(bytes),
            HashState::Sha1(digest) => digest.update(bytes),
            HashState::Sha256(digest) => digest.update(bytes),
            HashState::Md5(digest) => digest.update(bytes),
            HashState::Sha512(digest) => digest.update(bytes),
            HashState::XxHash(digest) => digest.update(bytes),
        }
    }

    /// Returns the digest; CRCs and XXH values in big-endian order.
    pub fn finish(self) -> Vec<u8> {
        match self.state {
            HashState::Crc(digest) => crc_bytes(self.algorithm, digest.finalize()),
            HashState::Sha1(digest) => digest.finalize().to_vec(),
            HashState::Sha256(digest) => digest.finalize().to_vec(),
            HashState::Md5(digest) => digest.finalize().to_vec(),
            HashState::Sha512(digest) => digest.finalize().to_vec(),
            HashState::XxHash(digest) => digest.finish(),
        }
    }
}

fn crc_bytes(algorithm: ChecksumAlgorithm, value: u64) -> Vec<u8> {
    value.to_be_bytes()[8 - algorithm.digest_len()..].to_vec()
}

/// The checksum of a multipart object, computed from those of its parts, in order.
pub struct PartsHasher {
    algorithm: ChecksumAlgorithm,
    state: PartsState,
}

enum PartsState {
    /// The digest of the parts' digests, concatenated.
    Composite(Box<Hasher>),
    /// The CRC of the bytes so far.
    FullObject(CrcAlgorithm, u64),
}

impl PartsHasher {
    /// Creates the checksum of an object without parts; `None` if the algorithm cannot combine the
    /// digests of parts to that of the whole.
    pub fn new(algorithm: ChecksumAlgorithm, kind: ChecksumType) -> Option<Self> {
        let state = match kind {
            ChecksumType::Composite => PartsState::Composite(Box::new(Hasher::new(algorithm))),
            ChecksumType::FullObject => {
                let crc = crc(algorithm)?;
                PartsState::FullObject(crc, crc_fast::Digest::new(crc).finalize())
            }
        };
        Some(PartsHasher { algorithm, state })
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// Adds the next part: its digest, and its length in bytes.
    pub fn push(&mut self, digest: &[u8], len: u64) {
        match &mut self.state {
            PartsState::Composite(hasher) => hasher.update(digest),
            PartsState::FullObject(crc, whole) => {
                let value = digest.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
                *whole = crc_fast::checksum_combine(*crc, *whole, value, len);
            }
        }
    }

    /// Returns the checksum.
    pub fn finish(self) -> Vec<u8> {
        match self.state {
            PartsState::Composite(hasher) => hasher.finish(),
            PartsState::FullObject(_, whole) => crc_bytes(self.algorithm, whole),
        }
    }
}

/// Encodes a digest in base64, as in headers and documents.
pub fn encode(digest: &[u8]) -> String {
    Base64::encode_string(digest)
}

/// Decodes a digest. Returns `None` if it is not base64 or has the wrong length for the algorithm.
pub fn decode(algorithm: ChecksumAlgorithm, text: &[u8]) -> Option<Vec<u8>> {
    let digest = Base64::decode_vec(std::str::from_utf8(text).ok()?).ok()?;
    (digest.len() == algorithm.digest_len()).then_some(digest)
}

/// Parses the `x-amz-checksum-type` header.
pub(crate) fn type_header(head: &RequestHead) -> Result<Option<ChecksumType>, Error> {
    const NAME: &str = "x-amz-checksum-type";
    let Some(text) = head.headers.text(NAME) else { return Ok(None) };
    type_of(text).map(Some).ok_or_else(|| invalid_header(NAME))
}

/// Returns the error for an invalid header value.
pub(crate) fn invalid_header(name: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(format!("Value for {name} header is invalid."))
}

/// Returns the error for more than one checksum.
pub(crate) fn multiple_checksums() -> Error {
    let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

/// Returns the error for a checksum mismatch.
pub(crate) fn bad_digest(algorithm: ChecksumAlgorithm) -> Error {
    let name = algorithm_name(algorithm);
    let message = format!("The {name} you specified did not match the calculated checksum.");
    Error::new(ErrorCode::BadDigest).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_headers_share_a_prefix() {
        assert!(ALGORITHMS.into_iter().all(|algorithm| header_name(algorithm).starts_with(PREFIX)));
    }

    #[test]
    fn hashers_return_published_digests() {
        // The check values of the CRC catalogue; FIPS 180-4 and RFC 1321 digests of the same nine
        // digits.
        for (algorithm, expected) in [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
            (ChecksumAlgorithm::ContentMd5, "25f9e794323b453885f5181f1b624d0b"),
            (ChecksumAlgorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (
                ChecksumAlgorithm::Sha512,
                "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a\
                 d27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
            ),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"1234");
            hasher.update(b"56789");
            assert_eq!(hex::encode(hasher.finish()), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn composite_checksum_names_the_number_of_parts() {
        let mut checksums = Checksums::default();
        checksums.set(ChecksumAlgorithm::Crc32, &[0, 0, 0, 1]).unwrap();
        let headers = |kind| ObjectChecksums { checksums: &checksums, kind, parts: 3 }.headers().collect::<Vec<_>>();
        let text = |text: &str| text.to_owned();
        let expected = [("x-amz-checksum-crc32", text("AAAAAQ==-3")), ("x-amz-checksum-type", text("COMPOSITE"))];
        assert_eq!(headers(ChecksumType::Composite), expected);
        let expected = [("x-amz-checksum-crc32", text("AAAAAQ==")), ("x-amz-checksum-type", text("FULL_OBJECT"))];
        assert_eq!(headers(ChecksumType::FullObject), expected);
        let none = ObjectChecksums { checksums: &Checksums::default(), kind: ChecksumType::FullObject, parts: 0 };
        assert_eq!(none.headers().count(), 0);
    }

    #[test]
    fn part_crcs_combine_to_the_crc_of_the_whole() {
        for algorithm in ALGORITHMS {
            let digest = |bytes: &[u8]| {
                let mut hasher = PartsHasher::new(algorithm, ChecksumType::Composite).unwrap();
                hasher.push(bytes, 0);
                hasher.finish()
            };
            let combined = PartsHasher::new(algorithm, ChecksumType::FullObject).map(|mut hasher| {
                [&b"12"[..], b"", b"3456789"].iter().for_each(|part| hasher.push(&digest(part), part.len() as u64));
                hasher.finish()
            });
            assert_eq!(combined, crc(algorithm).map(|_| digest(b"123456789")), "{algorithm:?}");
        }
    }
}
