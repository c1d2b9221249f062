//! XML documents in requests.

use keyhole_core::head::ChecksumAlgorithm;

pub(super) use super::walk::walk;
use crate::checksum;
use crate::limits::{DELETE_MAX, KEY_MAX, PART_NUMBER_MAX};
use crate::ops::{Required, Tags};
use crate::{Error, ErrorCode};

/// A DeleteObjects request.
#[derive(Debug)]
pub struct DeleteRequest {
    /// The objects, in order.
    pub objects: Vec<ObjectToDelete>,
    /// Whether the response lists errors only.
    pub quiet: bool,
}

/// An object named in a DeleteObjects request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectToDelete {
    /// The key.
    pub key: String,
    /// The id of the version, as sent.
    pub version_id: Option<String>,
    /// The properties without which the object is not deleted.
    pub required: Required,
}

/// A part named in a CompleteMultipartUpload.
#[derive(Debug)]
pub struct CompletedPart {
    /// The part number.
    pub number: u16,
    /// The ETag, as sent.
    pub etag: String,
    /// The expected checksums.
    pub checksums: NamedChecksums,
}

/// The checksums that a CompleteMultipartUpload names for a part. Takes the memory of the digests
/// that are there, because there may be 10,000 parts.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct NamedChecksums(Box<[u8]>);

impl NamedChecksums {
    /// Iterates over the digests, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = (ChecksumAlgorithm, &[u8])> {
        digests(&self.0)
    }

    /// Returns the digest of an algorithm.
    pub fn get(&self, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
        self.iter().find(|(named, _)| *named == algorithm).map(|(_, digest)| digest)
    }
}

/// Iterates over digests that each follow the number of their algorithm.
fn digests(mut bytes: &[u8]) -> impl Iterator<Item = (ChecksumAlgorithm, &[u8])> {
    std::iter::from_fn(move || {
        let (number, rest) = bytes.split_first()?;
        let algorithm = checksum::ALGORITHMS.into_iter().find(|algorithm| *algorithm as u8 == *number)?;
        let (digest, rest) = rest.split_at_checked(algorithm.digest_len())?;
        bytes = rest;
        Some((algorithm, digest))
    })
}

pub(super) fn malformed() -> Error {
    Error::new(ErrorCode::MalformedXML)
}

/// Returns the error for an element that a reader does not take, so that none is ignored:
/// `NotImplemented` if S3 defines it (`of_s3` names such elements, with all that is in them),
/// `MalformedXML` otherwise.
pub(super) fn refused(path: &[&str], of_s3: &[&str]) -> Error {
    let Some(name) = path.iter().find(|name| of_s3.contains(name)) else { return malformed() };
    let message = format!("The element {name} implies functionality that is not implemented. Leave it out.");
    Error::new(ErrorCode::NotImplemented).with_message(message)
}

/// Sets the value of an element, which may occur once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() { Err(malformed()) } else { Ok(()) }
}

/// Parses a `Delete` document.
///
/// # Errors
/// `MalformedXML`, also for unknown and repeated elements, for no objects and for more than
/// [`DELETE_MAX`]; `KeyTooLongError`.
pub fn parse_delete(document: &[u8]) -> Result<DeleteRequest, Error> {
    let mut objects = Vec::new();
    let mut quiet = None;
    let mut key = None;
    let mut version_id = None;
    let mut required = Required::default();
    walk(document, |path, text| match path {
        ["Delete", "Object", "Key"] => once(&mut key, text.to_owned()),
        ["Delete", "Object", "VersionId"] => once(&mut version_id, text.to_owned()),
        ["Delete", "Object", "ETag"] => once(&mut required.etag, Required::parse_etag(text)),
        ["Delete", "Object", "Size"] => once(&mut required.size, Required::parse_size(text).ok_or_else(malformed)?),
        ["Delete", "Object", "LastModifiedTime"] => {
            once(&mut required.time_ms, Required::parse_time(text).ok_or_else(malformed)?)
        }
        ["Delete", "Object"] => {
            let key = key.take().filter(|key| !key.is_empty()).ok_or_else(malformed)?;
            if key.len() > KEY_MAX {
                return Err(Error::new(ErrorCode::KeyTooLongError));
            }
            if objects.len() == DELETE_MAX {
                return Err(malformed());
            }
            let version_id = version_id.take().filter(|id| !id.is_empty());
            objects.push(ObjectToDelete { key, version_id, required: std::mem::take(&mut required) });
            Ok(())
        }
        ["Delete", "Quiet"] => once(&mut quiet, boolean(text)?),
        ["Delete"] => Ok(()),
        _ => Err(malformed()),
    })?;
    if objects.is_empty() { Err(malformed()) } else { Ok(DeleteRequest { objects, quiet: quiet.unwrap_or(false) }) }
}

/// Parses a boolean, ignoring case; an empty element is false.
fn boolean(text: &str) -> Result<bool, Error> {
    match text.trim() {
        "" | "0" => Ok(false),
        "1" => Ok(true),
        text if text.eq_ignore_ascii_case("true") => Ok(true),
        text if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(malformed()),
    }
}

/// The checksum elements of S3 whose algorithms the node may lack.
const CHECKSUMS: [&str; 5] =
    ["ChecksumMD5", "ChecksumSHA512", "ChecksumXXHASH3", "ChecksumXXHASH64", "ChecksumXXHASH128"];

/// Parses a `CompleteMultipartUpload` document.
///
/// # Errors
/// `MalformedXML`, also for no parts, for repeated and for unknown elements; `InvalidArgument` for
/// part numbers out of range; `NotImplemented` for checksums that this node lacks.
pub fn parse_complete(document: &[u8]) -> Result<Vec<CompletedPart>, Error> {
    let mut parts = Vec::new();
    let mut number = None;
    let mut etag = None;
    // As in `NamedChecksums`.
    let mut checksums = Vec::new();
    walk(document, |path, text| {
        match path {
            ["CompleteMultipartUpload", "Part", "PartNumber"] => {
                let value = text.trim().parse().ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number));
                let value = value.ok_or_else(|| {
                    Error::invalid_argument(
                        "PartNumber",
                        text,
                        "Part number must be an integer between 1 and 10000, inclusive",
                    )
                })?;
                once(&mut number, value)?;
            }
            ["CompleteMultipartUpload", "Part", "ETag"] => once(&mut etag, text.trim().to_owned())?,
            ["CompleteMultipartUpload", "Part", name] => {
                let known = checksum::ALGORITHMS.into_iter().find(|it| checksum::element_name(*it) == *name);
                let algorithm = known.ok_or_else(|| refused(path, &CHECKSUMS))?;
                let digest = checksum::decode(algorithm, text.trim().as_bytes());
                let digest = digest.ok_or_else(|| Error::new(ErrorCode::InvalidPart))?;
                if digests(&checksums).any(|(named, _)| named == algorithm) {
                    return Err(malformed());
                }
                checksums.push(algorithm as u8);
                checksums.extend_from_slice(&digest);
            }
            ["CompleteMultipartUpload", "Part"] => {
                let (Some(number), Some(etag)) = (number.take(), etag.take()) else { return Err(malformed()) };
                if parts.len() == usize::from(PART_NUMBER_MAX) {
                    return Err(malformed());
                }
                parts.push(CompletedPart { number, etag, checksums: NamedChecksums(checksums[..].into()) });
                checksums.clear();
            }
            ["CompleteMultipartUpload"] => {}
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    if parts.is_empty() { Err(malformed()) } else { Ok(parts) }
}

/// Parses a `Tagging` document.
///
/// # Errors
/// `MalformedXML`, and the errors of [`Tags::push`].
pub fn parse_tagging(document: &[u8]) -> Result<Tags, Error> {
    let mut tags = Tags::default();
    let mut key = None;
    let mut value = None;
    let mut has_set = false;
    walk(document, |path, text| {
        match path {
            ["Tagging", "TagSet", "Tag", "Key"] if key.is_none() => key = Some(text.to_owned()),
            ["Tagging", "TagSet", "Tag", "Value"] if value.is_none() => value = Some(text.to_owned()),
            ["Tagging", "TagSet", "Tag"] => {
                let (Some(key), Some(value)) = (key.take(), value.take()) else { return Err(malformed()) };
                tags.push(key, value)?;
            }
            ["Tagging", "TagSet"] if !has_set => has_set = true,
            ["Tagging"] => {}
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    if has_set { Ok(tags) } else { Err(malformed()) }
}

/// Parses a `ServerSideEncryptionConfiguration` document. Returns whether it blocks customer keys.
///
/// # Errors
/// `NotImplemented` for a default encryption, which would use managed keys; `MalformedXML`, also if
/// the document does not say which types are blocked.
pub fn parse_bucket_encryption(document: &[u8]) -> Result<bool, Error> {
    let mut rules = 0;
    let mut blocks = None;
    let mut has_types = false;
    walk(document, |path, text| {
        let ["ServerSideEncryptionConfiguration", rest @ ..] = path else { return Err(malformed()) };
        match rest {
            [] => {}
            ["Rule"] => rules += 1,
            ["Rule", "BlockedEncryptionTypes"] if !has_types => has_types = true,
            ["Rule", "BlockedEncryptionTypes", "EncryptionType"] => {
                let this = match text.trim() {
                    "SSE-C" => true,
                    "NONE" => false,
                    _ => return Err(malformed()),
                };
                // `NONE` cannot be combined.
                if blocks.replace(this).is_some() {
                    return Err(malformed());
                }
            }
            ["Rule", "BucketKeyEnabled"] if text.trim() == "false" => {}
            ["Rule", "ApplyServerSideEncryptionByDefault" | "BucketKeyEnabled", ..] => {
                return Err(Error::new(ErrorCode::NotImplemented).with_message(
                    "Server-side encryption with managed keys is not supported. Use customer-provided keys (SSE-C).",
                ));
            }
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    blocks.filter(|_| rules == 1).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{
        XML_COMPLETE_ELEMENTS_MAX, XML_CORS_ELEMENTS_MAX, XML_DELETE_ELEMENTS_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX,
        XML_LIFECYCLE_ELEMENTS_MAX,
    };

    #[test]
    fn nul_is_rejected_as_character_and_as_reference() {
        for text in ["a\0", "&#0;", "<![CDATA[\0]]>"] {
            let document = format!("<Delete><Object><Key>{text}</Key></Object></Delete>");
            assert_eq!(parse_delete(document.as_bytes()).unwrap_err().code, ErrorCode::MalformedXML, "{text:?}");
        }
        let document = b"<Delete><Object><Key>a&#x1;&#13;</Key></Object></Delete>";
        assert_eq!(parse_delete(document).unwrap().objects[0].key, "a\u{1}\r");
    }

    #[test]
    fn elements_of_foreign_namespaces_are_rejected() {
        const S3: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
        let object = "<Object><Key>a</Key></Object>";
        let parse = |document: String| parse_delete(document.as_bytes()).map(|_| ()).map_err(|error| error.code);
        for accepted in [
            format!("<Delete>{object}</Delete>"),
            format!("<Delete xmlns=\"\">{object}</Delete>"),
            format!("<Delete xmlns=\"{S3}\">{object}</Delete>"),
            format!("<Delete xmlns='{}'>{object}</Delete>", S3.trim_end_matches('/')),
            format!("<Delete xmlns=\"http://doc.s3.amazonaws.com/2006-03-01\">{object}</Delete>"),
            format!("<d:Delete xmlns:d=\"{S3}\"><d:Object><d:Key>a</d:Key></d:Object></d:Delete>"),
            format!("<Delete>{}</Delete>", object.replacen("<Object", &format!("<Object xmlns=\"{S3}\""), 1)),
            // The namespace of an attribute alone.
            format!("<Delete xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:a=\"b\">{object}</Delete>"),
            format!("\u{feff}<?xml version=\"1.0\"?><Delete>{object}</Delete>"),
        ] {
            assert_eq!(parse(accepted.clone()), Ok(()), "{accepted}");
        }
        for refused in [
            format!("<Delete xmlns=\"http://example.com/\">{object}</Delete>"),
            format!("<Delete xmlns=\"{S3}\">{}</Delete>", object.replacen("<Object", "<Object xmlns=\"urn:x\"", 1)),
            format!("<Delete xmlns=\"{S3}\" xmlns:x=\"urn:x\">{object}<x:Quiet>true</x:Quiet></Delete>"),
            format!("<Delete xmlns=\"{S3}\" xmlns:x=\"urn:x\">{object}<x:Quiet/></Delete>"),
            format!("<d:Delete>{object}</d:Delete>"),
            format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2007-01-01/\">{object}</Delete>"),
        ] {
            assert_eq!(parse(refused.clone()), Err(ErrorCode::MalformedXML), "{refused}");
        }
        // All documents are read in the same way.
        for document in [
            "<CompleteMultipartUpload xmlns=\"urn:x\"><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>",
            "<Tagging xmlns=\"urn:x\"><TagSet/></Tagging>",
            "<CreateBucketConfiguration xmlns=\"urn:x\"/>",
        ] {
            let bytes = document.as_bytes();
            let results = [
                parse_complete(bytes).map(|_| ()),
                parse_tagging(bytes).map(|_| ()),
                crate::xml::parse_create_bucket(bytes).map(|_| ()),
            ];
            let codes: Vec<_> = results.into_iter().map(|result| result.map_err(|error| error.code)).collect();
            assert_eq!(codes, [Err(ErrorCode::MalformedXML); 3], "{document}");
        }
    }

    #[test]
    fn text_beside_elements_is_rejected() {
        let key = "<Key>a</Key>";
        let parse = |document: &str| parse_delete(document.as_bytes()).map(|_| ()).map_err(|error| error.code);
        let spaced = format!("\n<Delete> <Object>\n{key}\t</Object>\r\n<Quiet> true </Quiet></Delete>\n");
        assert_eq!(parse(&spaced), Ok(()));
        for refused in [
            format!("x<Delete><Object>{key}</Object></Delete>"),
            format!("<Delete>x<Object>{key}</Object></Delete>"),
            format!("<Delete><Object>x{key}</Object></Delete>"),
            format!("<Delete><Object>{key}x</Object></Delete>"),
            format!("<Delete><Object>{key}</Object>x<Quiet/></Delete>"),
            format!("<Delete><Object>{key}</Object><Quiet/>x</Delete>"),
            format!("<Delete><Object>{key}</Object></Delete>x"),
            format!("<Delete>&amp;<Object>{key}</Object></Delete>"),
            format!("<Delete><![CDATA[x]]><Object>{key}</Object></Delete>"),
        ] {
            assert_eq!(parse(&refused), Err(ErrorCode::MalformedXML), "{refused}");
        }
        // It would delete all tags.
        let tags = b"<Tagging><TagSet>a=b</TagSet></Tagging>";
        assert_eq!(parse_tagging(tags).unwrap_err().code, ErrorCode::MalformedXML);
        assert_eq!(parse_tagging(b"<Tagging><TagSet> </TagSet></Tagging>").map(|tags| tags.len()).ok(), Some(0));
    }

    #[test]
    fn bucket_encryption_is_parsed_or_rejected() {
        let rule = |rule: &str| {
            let document = format!(
                "<ServerSideEncryptionConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rule}</ServerSideEncryptionConfiguration>"
            );
            parse_bucket_encryption(document.as_bytes()).map_err(|error| error.code)
        };
        let blocked = |kind: &str| {
            format!(
                "<Rule><BlockedEncryptionTypes><EncryptionType>{kind}</EncryptionType></BlockedEncryptionTypes></Rule>"
            )
        };
        assert_eq!(rule(&blocked("SSE-C")), Ok(true));
        assert_eq!(rule(&blocked("NONE")), Ok(false));
        let by_default = "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>";
        assert_eq!(rule(by_default), Err(ErrorCode::NotImplemented));
        let twice = blocked("SSE-C").replace("</Rule>", "<BlockedEncryptionTypes/></Rule>");
        for bad in ["", "<Rule></Rule>", &blocked("SSE"), &blocked("SSE-C").repeat(2), &twice, "<Rule><A/></Rule>"] {
            assert_eq!(rule(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
        assert_eq!(parse_bucket_encryption(b"").map_err(|error| error.code), Err(ErrorCode::MalformedXML));
    }

    #[test]
    fn delete_documents_are_parsed_or_rejected() {
        let check = |document: &str, expected: Result<(&[&str], bool), ErrorCode>| {
            let got = parse_delete(document.as_bytes());
            match (got, expected) {
                (Ok(got), Ok((keys, quiet))) => {
                    let got_keys: Vec<_> = got.objects.iter().map(|object| object.key.as_str()).collect();
                    assert!(got_keys == keys && got.quiet == quiet, "{document}: {got:?}");
                }
                (Err(got), Err(code)) => assert_eq!(got.code, code, "{document}"),
                (got, _) => panic!("{document}: {got:?}"),
            }
        };
        let one = "<Object><Key>a</Key></Object>";
        check(
            &format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{one}</Delete>"),
            Ok((&["a"], false)),
        );
        check(
            &format!(
                "<?xml version=\"1.0\"?>\n<d:Delete xmlns:d=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>{one}</d:Delete>\n"
            ),
            Ok((&["a"], true)),
        );
        let escaped = "<Delete><Object><Key> a&amp;&#x1;&#233;<![CDATA[<&]]></Key></Object></Delete>";
        check(escaped, Ok((&[" a&\u{1}é<&"], false)));
        check("<Delete></Delete>", Err(ErrorCode::MalformedXML));
        check("<Delete/>", Err(ErrorCode::MalformedXML));
        check("", Err(ErrorCode::MalformedXML));
        check("<Delete><Object></Object></Delete>", Err(ErrorCode::MalformedXML));
        check("<Delete><Object><Key>a</Key></Delete>", Err(ErrorCode::MalformedXML));
        check(&format!("<Delete>{one}</Delete><Delete>{one}</Delete>"), Err(ErrorCode::MalformedXML));
        check(
            "<!DOCTYPE x [<!ENTITY e \"a\">]><Delete><Object><Key>&e;</Key></Object></Delete>",
            Err(ErrorCode::MalformedXML),
        );
        check("<Delete><Object><Key>&e;</Key></Object></Delete>", Err(ErrorCode::MalformedXML));
        check(&("<Delete>".to_owned() + &"<a>".repeat(XML_DEPTH_MAX)), Err(ErrorCode::MalformedXML));
        let key = |len| format!("<Delete><Object><Key>{}</Key></Object></Delete>", "k".repeat(len));
        assert!(parse_delete(key(KEY_MAX).as_bytes()).is_ok());
        check(&key(KEY_MAX + 1), Err(ErrorCode::KeyTooLongError));
        let many = |n| format!("<Delete>{}</Delete>", one.repeat(n));
        assert_eq!(parse_delete(many(DELETE_MAX).as_bytes()).unwrap().objects.len(), DELETE_MAX);
        check(&many(DELETE_MAX + 1), Err(ErrorCode::MalformedXML));
    }

    #[test]
    fn delete_entries_carry_versions_and_conditions() {
        let parse = |inner: &str| {
            let document = format!("<Delete><Object><Key>a</Key>{inner}</Object></Delete>");
            parse_delete(document.as_bytes()).map(|mut request| request.objects.remove(0)).map_err(|error| error.code)
        };
        let entry = |version_id: Option<&str>, etag: Option<&str>, size, time_ms| {
            let required = Required { etag: etag.map(str::to_owned), size, time_ms };
            Ok(ObjectToDelete { key: "a".to_owned(), version_id: version_id.map(str::to_owned), required })
        };
        assert_eq!(parse(""), entry(None, None, None, None));
        assert_eq!(parse("<VersionId>null</VersionId>"), entry(Some("null"), None, None, None));
        assert_eq!(parse("<VersionId/>"), entry(None, None, None, None));
        assert_eq!(parse("<ETag>&quot;e&quot;</ETag>"), entry(None, Some("e"), None, None));
        assert_eq!(parse("<ETag>*</ETag><Size>0</Size>"), entry(None, Some("*"), Some(0), None));
        let time = "<LastModifiedTime>Thu, 01 Jan 1970 00:00:05 GMT</LastModifiedTime>";
        assert_eq!(parse(time), entry(None, None, None, Some((5000, 5999))));
        // Conditions belong to their entry.
        let two = b"<Delete><Object><Key>a</Key><Size>1</Size></Object><Object><Key>b</Key></Object></Delete>";
        assert!(parse_delete(two).unwrap().objects[1].required.is_empty());
        for bad in [
            "<Etag>e</Etag>",
            "<Generation>1</Generation>",
            "<Size>-1</Size>",
            "<Size/>",
            "<LastModifiedTime>soon</LastModifiedTime>",
            "<LastModifiedTime/>",
            "<Key>b</Key>",
            "<ETag>e</ETag><ETag>f</ETag>",
            "<VersionId>a</VersionId><VersionId>b</VersionId>",
            "<ETag><Value>e</Value></ETag>",
        ] {
            assert_eq!(parse(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
        for bad in ["<Quiet>maybe</Quiet>", "<Quiet>true</Quiet><Quiet>true</Quiet>", "<Loud/>"] {
            let document = format!("<Delete>{bad}<Object><Key>a</Key></Object></Delete>");
            assert_eq!(parse_delete(document.as_bytes()).unwrap_err().code, ErrorCode::MalformedXML, "{bad}");
        }
    }

    #[test]
    fn documents_are_parsed_up_to_their_limit_of_elements() {
        // One root, and so many elements, comments or sections in it.
        let many = |root: &str, piece: &str, count: usize| {
            let document = format!("<{root}>{}</{root}>", piece.repeat(count));
            let mut visited = 0;
            walk(document.as_bytes(), |_, _| {
                visited += 1;
                Ok(())
            })
            .map(|()| visited)
            .map_err(|error| error.code)
        };
        for (root, max) in [
            ("Delete", XML_DELETE_ELEMENTS_MAX),
            ("CompleteMultipartUpload", XML_COMPLETE_ELEMENTS_MAX),
            ("LifecycleConfiguration", XML_LIFECYCLE_ELEMENTS_MAX),
            ("CORSConfiguration", XML_CORS_ELEMENTS_MAX),
            ("Tagging", XML_ELEMENTS_MAX),
        ] {
            assert_eq!(many(root, "<a/>", max - 1), Ok(max), "{root}");
            assert_eq!(many(root, "<a></a>", max - 1), Ok(max), "{root}");
            for piece in ["<a/>", "<a></a>", "<!---->", "<?a?>", "<![CDATA[]]>"] {
                assert_eq!(many(root, piece, max), Err(ErrorCode::MalformedXML), "{root} {piece}");
            }
        }
        // A prefix of comments does not raise the limit.
        let document = "<!---->".repeat(XML_ELEMENTS_MAX + 1) + "<Delete/>";
        assert_eq!(walk(document.as_bytes(), |_, _| Ok(())).map_err(|error| error.code), Err(ErrorCode::MalformedXML));
    }

    #[test]
    fn complete_documents_are_parsed_or_rejected() {
        let part = |n: &str| {
            format!(
                "<Part><ETag>&quot;e&quot;</ETag><PartNumber>{n}</PartNumber><ChecksumCRC32>AAAAAQ==</ChecksumCRC32></Part>"
            )
        };
        let document = |parts: &str| format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let parts = parse_complete(document(&(part("1") + &part("10000"))).as_bytes()).unwrap();
        assert_eq!((parts[0].number, parts[1].number, parts[0].etag.as_str()), (1, 10_000, "\"e\""));
        assert_eq!(parts[0].checksums.iter().next().unwrap().1, [0, 0, 0, 1]);
        for bad in ["0", "10001", "-1", "x", ""] {
            let error = parse_complete(document(&part(bad)).as_bytes()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
        }
        let with = |more: &str| document(&part("1").replace("</Part>", &format!("{more}</Part>")));
        for bad in [
            document(""),
            document("<Part><ETag>e</ETag></Part>"),
            "<Other/>".to_owned(),
            with("<ETag>f</ETag>"),
            with("<PartNumber>2</PartNumber>"),
            with("<ChecksumCRC32>AAAAAQ==</ChecksumCRC32>"),
            with("<ChecksumCRC32X>AAAAAQ==</ChecksumCRC32X>"),
            with("<Checksumcrc32>AAAAAQ==</Checksumcrc32>"),
            with("<Size>1</Size>"),
            document(&format!("{}<Size>1</Size>", part("1"))),
        ] {
            assert_eq!(parse_complete(bad.as_bytes()).unwrap_err().code, ErrorCode::MalformedXML, "{bad}");
        }
        for name in CHECKSUMS {
            let is_known = checksum::ALGORITHMS.into_iter().any(|it| checksum::element_name(it) == name);
            let error = parse_complete(with(&format!("<{name}>AA==</{name}>")).as_bytes()).unwrap_err();
            let expected = if is_known { ErrorCode::InvalidPart } else { ErrorCode::NotImplemented };
            assert_eq!(error.code, expected, "{name}");
        }
    }

    #[test]
    fn tagging_documents_are_parsed_or_rejected() {
        let check = |inner: &str| {
            let document = format!(
                "<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>{inner}</TagSet></Tagging>"
            );
            let tags = parse_tagging(document.as_bytes()).map_err(|error| error.code)?;
            // The output parses to the same tags.
            assert_eq!(parse_tagging(crate::xml::tagging(&tags).as_bytes()).unwrap(), tags);
            Ok(tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        };
        let tag = |key: &str, value: &str| format!("<Tag>\n<Key>{key}</Key><Value>{value}</Value></Tag>\n");
        assert_eq!(check(""), Ok(vec![]));
        assert_eq!(check(&(tag("a", " 1 ") + &tag("b", ""))), Ok(vec!["a= 1 ".to_owned(), "b=".to_owned()]));
        assert_eq!(check(&(tag("a", "1") + &tag("a", "2"))), Err(ErrorCode::InvalidTag));
        assert_eq!(check(&tag("a", "&lt;")), Err(ErrorCode::InvalidTag));
        assert_eq!(check(&tag("", "1")), Err(ErrorCode::InvalidTag));
        assert_eq!(check(&(0..11).map(|i| tag(&i.to_string(), "")).collect::<String>()), Err(ErrorCode::BadRequest));
        for bad in ["<Tag><Key>a</Key></Tag>", "<Tag><Value>a</Value></Tag>", "<Key>a</Key>", "<X/>"] {
            assert_eq!(check(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
        for bad in ["", "<Tagging/>", "<TagSet/>", "<Tagging><TagSet/><TagSet/></Tagging>"] {
            assert_eq!(parse_tagging(bad.as_bytes()).unwrap_err().code, ErrorCode::MalformedXML, "{bad}");
        }
    }

    #[test]
    fn random_documents_cause_no_panic() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let alphabet = b"<>/&;#x\"'=!-[]DeleteObjctKyPar\x00\xc3\xa9 ";
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..64)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            let _ = (
                parse_delete(&bytes),
                parse_complete(&bytes),
                crate::xml::parse_create_bucket(&bytes),
                parse_tagging(&bytes),
            );
        }
    }
}
