//! Documents of versioning: the state of a bucket, and the listing of versions.

use super::read::{malformed, walk};
use super::write::Document;
use crate::ops::{ListVersions, VersionId, Versioning, encode_key};
use crate::time::iso8601;
use crate::{Error, ErrorCode};

/// Parses a `VersioningConfiguration` document.
///
/// # Errors
/// `MalformedXML`; `IllegalVersioningConfigurationException` without a state; `NotImplemented` for
/// deletions that require multi-factor authentication.
pub fn parse_versioning(document: &[u8]) -> Result<Versioning, Error> {
    let mut status = None;
    let mut mfa_delete = None;
    walk(document, |path, text| {
        match path {
            ["VersioningConfiguration"] => {}
            ["VersioningConfiguration", "Status"] if status.is_none() => {
                let states = [Versioning::Enabled, Versioning::Suspended];
                let state = states.into_iter().find(|state| state.name() == text.trim());
                status = Some(state.ok_or_else(malformed)?);
            }
            ["VersioningConfiguration", "MfaDelete"] if mfa_delete.is_none() => {
                mfa_delete = Some(match text.trim() {
                    "Enabled" => true,
                    "Disabled" => false,
                    _ => return Err(malformed()),
                });
            }
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    if mfa_delete == Some(true) {
        let message = "This node has no multi-factor authentication. Leave MfaDelete out.";
        return Err(Error::new(ErrorCode::NotImplemented).with_message(message));
    }
    status.ok_or_else(|| Error::new(ErrorCode::IllegalVersioningConfigurationException))
}

/// Writes the result of GetBucketVersioning, which is empty before versioning is first configured.
pub fn versioning(state: Option<Versioning>) -> String {
    let mut doc = Document::new("VersioningConfiguration");
    if let Some(state) = state {
        doc.text("Status", state.name());
    }
    doc.finish()
}

/// An entry of a listing of versions.
pub enum VersionEntry<'a> {
    /// A version of an object, or a delete marker.
    Version {
        /// The key.
        key: &'a str,
        /// The id of the version.
        id: VersionId,
        /// Whether it is the newest of its key.
        is_latest: bool,
        /// Time of the last modification, in ms since 1970.
        time_ms: u64,
        /// The content; `None` for a delete marker.
        content: Option<VersionContent>,
    },
    /// A common prefix.
    Prefix(&'a str),
}

/// The content of a listed version.
pub struct VersionContent {
    /// Length of the plaintext.
    pub size: u64,
    /// The ETag, without quotes.
    pub etag: String,
}

/// Writes the result of ListObjectVersions. `next`: the key and the version that the next page starts
/// after, if there is one; without a version, it starts after all of that key.
pub fn list_versions(
    bucket: &str,
    query: &ListVersions,
    listed: &[VersionEntry<'_>],
    next: Option<(&str, Option<VersionId>)>,
) -> String {
    let url = query.encoding_url;
    let mut doc = Document::new("ListVersionsResult");
    doc.text("Name", bucket);
    doc.text("Prefix", &encode_key(&query.prefix, url));
    doc.text("KeyMarker", &encode_key(query.key_marker.as_deref().unwrap_or_default(), url));
    doc.text("VersionIdMarker", &query.version_marker.map(|id| id.to_string()).unwrap_or_default());
    if let Some((key, version)) = next {
        doc.text("NextKeyMarker", &encode_key(key, url));
        version.iter().for_each(|id| doc.text("NextVersionIdMarker", &id.to_string()));
    }
    doc.page_of_keys(query.max_keys, query.delimiter.as_deref(), url, next.is_some());
    for entry in listed {
        let VersionEntry::Version { key, id, is_latest, time_ms, content } = entry else { continue };
        doc.open(if content.is_some() { "Version" } else { "DeleteMarker" });
        doc.text("Key", &encode_key(key, url));
        doc.text("VersionId", &id.to_string());
        doc.flag("IsLatest", *is_latest);
        doc.text("LastModified", &iso8601(*time_ms));
        if let Some(VersionContent { size, etag }) = content {
            doc.etag(etag);
            doc.number("Size", *size);
            doc.text("StorageClass", "STANDARD");
        }
        doc.owner("Owner");
        doc.close();
    }
    for entry in listed {
        if let VersionEntry::Prefix(prefix) = entry {
            doc.common_prefix(prefix, url);
        }
    }
    doc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioning_documents_are_parsed_or_rejected() {
        let parse = |inner: &str| {
            let document = format!("<VersioningConfiguration>{inner}</VersioningConfiguration>");
            parse_versioning(document.as_bytes()).map_err(|error| error.code)
        };
        for state in [Versioning::Enabled, Versioning::Suspended] {
            assert_eq!(parse(&format!("<Status> {}\n</Status>", state.name())), Ok(state));
            assert_eq!(parse_versioning(versioning(Some(state)).as_bytes()), Ok(state));
        }
        assert_eq!(parse("<MfaDelete>Disabled</MfaDelete><Status>Enabled</Status>"), Ok(Versioning::Enabled));
        use ErrorCode as C;
        for (bad, code) in [
            ("", C::IllegalVersioningConfigurationException),
            ("<MfaDelete>Disabled</MfaDelete>", C::IllegalVersioningConfigurationException),
            ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", C::NotImplemented),
            ("<MfaDelete>Enabled</MfaDelete>", C::NotImplemented),
            ("<Status>enabled</Status>", C::MalformedXML),
            ("<Status>Disabled</Status>", C::MalformedXML),
            ("<Status/>", C::MalformedXML),
            ("<Status>Enabled</Status><Status>Enabled</Status>", C::MalformedXML),
            ("<Status>Enabled</Status><MfaDelete>no</MfaDelete>", C::MalformedXML),
            ("<Status><A/></Status>", C::MalformedXML),
            ("<Versioning>Enabled</Versioning>", C::MalformedXML),
        ] {
            assert_eq!(parse(bad), Err(code), "{bad}");
        }
        assert_eq!(parse_versioning(b"<X/>").unwrap_err().code, C::MalformedXML);
        assert!(versioning(None).ends_with("2006-03-01/\"></VersioningConfiguration>"), "{}", versioning(None));
    }

    #[test]
    fn listing_has_versions_and_markers_in_order() {
        let query = ListVersions { max_keys: 3, encoding_url: true, ..ListVersions::default() };
        let version = |key, id, is_latest, content| VersionEntry::Version { key, id, is_latest, time_ms: 0, content };
        let content = VersionContent { size: 5, etag: "e".to_owned() };
        let listed = [
            version("a b", VersionId::Id([1; 16]), true, None),
            version("a b", VersionId::Null, false, Some(content)),
            VersionEntry::Prefix("c/"),
        ];
        let all = list_versions("bucket", &query, &listed, None);
        let expected = "<IsTruncated>false</IsTruncated><DeleteMarker><Key>a%20b</Key>\
            <VersionId>01010101010101010101010101010101</VersionId><IsLatest>true</IsLatest>\
            <LastModified>1970-01-01T00:00:00.000Z</LastModified><Owner><ID>keyhole</ID>\
            <DisplayName>keyhole</DisplayName></Owner></DeleteMarker><Version><Key>a%20b</Key><VersionId>null</VersionId>\
            <IsLatest>false</IsLatest><LastModified>1970-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>\
            <Size>5</Size><StorageClass>STANDARD</StorageClass><Owner><ID>keyhole</ID><DisplayName>keyhole</DisplayName>\
            </Owner></Version><CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes></ListVersionsResult>";
        assert!(all.ends_with(expected) && !all.contains("<Next"), "{all}");
        let marker = ListVersions {
            key_marker: Some("a".to_owned()),
            version_marker: Some(VersionId::Id([2; 16])),
            ..query.clone()
        };
        let page = list_versions("bucket", &marker, &listed[..2], Some(("a b", Some(VersionId::Null))));
        assert!(
            page.contains(
                "<VersionIdMarker>02020202020202020202020202020202</VersionIdMarker>\
                <NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>null</NextVersionIdMarker>"
            ),
            "{page}"
        );
        let page = list_versions("bucket", &query, &listed, Some(("c/", None)));
        assert!(page.contains("<NextKeyMarker>c/</NextKeyMarker>") && !page.contains("NextVersionIdMarker"), "{page}");
    }
}
