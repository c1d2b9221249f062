//! XML documents in responses.

use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use crate::Error;
use crate::checksum::{self, ObjectChecksums};
use crate::ops::{ListObjects, ListObjectsV2, ListUploads, Tags, UploadId, encode_key, encode_token};
use crate::time::iso8601;

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The owner of all buckets and objects.
pub(crate) const OWNER: &str = "keyhole";

/// An XML document under construction.
pub struct Document {
    writer: Writer<Vec<u8>>,
    open: Vec<&'static str>,
}

impl Document {
    /// Starts a document with this root element, in the S3 namespace.
    pub fn new(root: &'static str) -> Self {
        Self::start(BytesStart::new(root).with_attributes([("xmlns", NAMESPACE)]), root)
    }

    /// Starts a document with this root element and no namespace, as for errors.
    pub fn bare(root: &'static str) -> Self {
        Self::start(BytesStart::new(root), root)
    }

    fn start(element: BytesStart<'_>, root: &'static str) -> Self {
        let mut document = Document { writer: Writer::new(Vec::with_capacity(1024)), open: vec![root] };
        document.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        document.event(Event::Text(BytesText::from_escaped("\n")));
        document.event(Event::Start(element));
        document
    }

    fn event(&mut self, event: Event<'_>) {
        self.writer.write_event(event).expect("a vector takes all that is written");
    }

    /// Starts an element.
    pub fn open(&mut self, name: &'static str) {
        self.event(Event::Start(BytesStart::new(name)));
        self.open.push(name);
    }

    /// Ends the innermost open element.
    pub fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.event(Event::End(BytesEnd::new(name)));
        }
    }

    /// Adds an element with text.
    pub fn text(&mut self, name: &'static str, text: &str) {
        self.open(name);
        self.event(Event::Text(BytesText::from_escaped(escape(text))));
        self.close();
    }

    /// Adds an element with a number.
    pub fn number(&mut self, name: &'static str, number: impl Into<u64>) {
        self.text(name, &number.into().to_string());
    }

    /// Adds an element with a boolean.
    pub fn flag(&mut self, name: &'static str, flag: bool) {
        self.text(name, if flag { "true" } else { "false" });
    }

    /// Adds an element with a quoted ETag.
    pub fn etag(&mut self, etag: &str) {
        self.text("ETag", &format!("\"{etag}\""));
    }

    fn checksums(&mut self, checksums: &Checksums) {
        for (algorithm, text) in checksum::texts(checksums) {
            self.text(checksum::element_name(algorithm), &text);
        }
    }

    /// Adds the checksums of an object, a composite one with the number of parts, and their type.
    fn object_checksums(&mut self, checksums: &ObjectChecksums<'_>) {
        for (algorithm, text) in checksums.texts() {
            self.text(checksum::element_name(algorithm), &text);
        }
        self.checksum_type(checksums);
    }

    fn checksum_type(&mut self, checksums: &ObjectChecksums<'_>) {
        if !checksums.checksums.is_empty() {
            self.text("ChecksumType", checksum::type_name(checksums.kind));
        }
    }

    pub(super) fn owner(&mut self, name: &'static str) {
        self.open(name);
        self.text("ID", OWNER);
        self.text("DisplayName", OWNER);
        self.close();
    }

    fn delimiter(&mut self, delimiter: Option<&str>, url: bool) {
        if let Some(delimiter) = delimiter {
            self.text("Delimiter", &encode_key(delimiter, url));
        }
        if url {
            self.text("EncodingType", "url");
        }
    }

    /// Adds the fields that every page of keys has after its markers.
    pub(super) fn page_of_keys(&mut self, max_keys: usize, delimiter: Option<&str>, url: bool, truncated: bool) {
        self.number("MaxKeys", max_keys as u64);
        self.delimiter(delimiter, url);
        self.flag("IsTruncated", truncated);
    }

    pub(super) fn common_prefix(&mut self, prefix: &str, url: bool) {
        self.open("CommonPrefixes");
        self.text("Prefix", &encode_key(prefix, url));
        self.close();
    }

    fn common_prefixes(&mut self, entries: &[ListEntry<'_>], url: bool) {
        for entry in entries {
            if let ListEntry::Prefix(prefix) = entry {
                self.common_prefix(prefix, url);
            }
        }
    }

    /// Ends all open elements and returns the text.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        String::from_utf8(self.writer.into_inner()).expect("only text was written")
    }
}

/// Escapes text. Control characters become character references, as on S3, although XML 1.0
/// excludes most of them; clients use `encoding-type=url` for such keys.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push_str(&format!("&#x{:x};", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("&#x{:x};", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// A bucket in a listing.
pub struct Bucket<'a> {
    /// The name.
    pub name: &'a str,
    /// Time of creation, in ms since 1970.
    pub time_ms: u64,
}

/// Writes the result of GetBucketLocation; for historical reasons, the first region is empty.
pub fn location(region: &str) -> String {
    let mut doc = Document::new("LocationConstraint");
    if region != "us-east-1" {
        doc.event(Event::Text(BytesText::from_escaped(escape(region))));
    }
    doc.finish()
}

/// Writes the result of GetBucketEncryption for a bucket that blocks customer keys.
pub fn bucket_encryption() -> String {
    let mut doc = Document::new("ServerSideEncryptionConfiguration");
    doc.open("Rule");
    doc.open("BlockedEncryptionTypes");
    doc.text("EncryptionType", "SSE-C");
    doc.finish()
}

/// Writes the result of GetObjectTagging.
pub fn tagging(tags: &Tags) -> String {
    let mut doc = Document::new("Tagging");
    doc.open("TagSet");
    for (key, value) in tags.iter() {
        doc.open("Tag");
        doc.text("Key", key);
        doc.text("Value", value);
        doc.close();
    }
    doc.finish()
}

/// Writes the result of GetBucketAcl and GetObjectAcl: the owner has FULL_CONTROL.
pub fn acl() -> String {
    let mut doc = Document::new("AccessControlPolicy");
    doc.owner("Owner");
    doc.open("AccessControlList");
    doc.open("Grant");
    let grantee = BytesStart::new("Grantee")
        .with_attributes([("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"), ("xsi:type", "CanonicalUser")]);
    doc.event(Event::Start(grantee));
    doc.open.push("Grantee");
    doc.text("ID", OWNER);
    doc.text("DisplayName", OWNER);
    doc.close();
    doc.text("Permission", "FULL_CONTROL");
    doc.finish()
}

/// An entry of an object listing.
pub enum ListEntry<'a> {
    /// An object.
    Object {
        /// The key.
        key: &'a str,
        /// Length of the plaintext.
        size: u64,
        /// Time of the last modification, in ms since 1970.
        time_ms: u64,
        /// The ETag, without quotes.
        etag: String,
    },
    /// A common prefix.
    Prefix(&'a str),
}

impl ListEntry<'_> {
    fn name(&self) -> &str {
        match self {
            ListEntry::Object { key, .. } => key,
            ListEntry::Prefix(prefix) => prefix,
        }
    }
}

fn entries(doc: &mut Document, entries: &[ListEntry<'_>], url: bool, owner: bool) {
    for entry in entries {
        if let ListEntry::Object { key, size, time_ms, etag } = entry {
            doc.open("Contents");
            doc.text("Key", &encode_key(key, url));
            doc.text("LastModified", &iso8601(*time_ms));
            doc.etag(etag);
            doc.number("Size", *size);
            if owner {
                doc.owner("Owner");
            }
            doc.text("StorageClass", "STANDARD");
            doc.close();
        }
    }
    doc.common_prefixes(entries, url);
}

/// Writes the result of ListObjects.
pub fn list_objects_v1(bucket: &str, query: &ListObjects, listed: &[ListEntry<'_>], truncated: bool) -> String {
    let url = query.encoding_url;
    let mut doc = Document::new("ListBucketResult");
    doc.text("Name", bucket);
    doc.text("Prefix", &encode_key(&query.prefix, url));
    doc.text("Marker", &encode_key(query.marker.as_deref().unwrap_or_default(), url));
    if let (true, Some(last)) = (truncated, listed.last()) {
        doc.text("NextMarker", &encode_key(last.name(), url));
    }
    doc.page_of_keys(query.max_keys, query.delimiter.as_deref(), url, truncated);
    entries(&mut doc, listed, url, true);
    doc.finish()
}

/// Writes the result of ListObjectsV2.
pub fn list_objects_v2(bucket: &str, query: &ListObjectsV2, listed: &[ListEntry<'_>], truncated: bool) -> String {
    let url = query.encoding_url;
    let mut doc = Document::new("ListBucketResult");
    doc.text("Name", bucket);
    doc.text("Prefix", &encode_key(&query.prefix, url));
    if let Some(start_after) = &query.start_after {
        doc.text("StartAfter", &encode_key(start_after, url));
    }
    if let Some(continuation) = &query.continuation {
        doc.text("ContinuationToken", &encode_token(continuation));
    }
    if let (true, Some(last)) = (truncated, listed.last()) {
        doc.text("NextContinuationToken", &encode_token(last.name()));
    }
    doc.number("KeyCount", listed.len() as u64);
    doc.page_of_keys(query.max_keys, query.delimiter.as_deref(), url, truncated);
    entries(&mut doc, listed, url, query.fetch_owner);
    doc.finish()
}

/// The result of deleting one key.
pub struct Deleted<'a> {
    /// The key.
    pub key: &'a str,
    /// The version that the request named.
    pub version_id: Option<&'a str>,
    /// The id of the delete marker that the deletion has stored or removed.
    pub marker: Option<String>,
    /// The error, if the key was not deleted.
    pub error: Option<Error>,
}

/// Writes the result of DeleteObjects; `quiet` lists errors only.
pub fn delete_result(results: &[Deleted<'_>], quiet: bool) -> String {
    let mut doc = Document::new("DeleteResult");
    for Deleted { key, version_id, marker, error } in results {
        match error {
            None if quiet => {}
            None => {
                doc.open("Deleted");
                doc.text("Key", key);
                version_id.iter().for_each(|id| doc.text("VersionId", id));
                if let Some(id) = marker {
                    doc.flag("DeleteMarker", true);
                    doc.text("DeleteMarkerVersionId", id);
                }
                doc.close();
            }
            Some(error) => {
                doc.open("Error");
                doc.text("Key", key);
                version_id.iter().for_each(|id| doc.text("VersionId", id));
                doc.text("Code", error.code.code());
                doc.text("Message", &error.message);
                doc.close();
            }
        }
    }
    doc.finish()
}

/// Writes the result of CopyObject with the checksums of the copy.
pub fn copy_object_result(etag: &str, time_ms: u64, checksums: &ObjectChecksums<'_>) -> String {
    let mut doc = copy_result("CopyObjectResult", etag, time_ms);
    doc.object_checksums(checksums);
    doc.finish()
}

/// Writes the result of UploadPartCopy with the computed checksums of the part.
pub fn copy_part_result(etag: &str, time_ms: u64, checksums: &Checksums) -> String {
    let mut doc = copy_result("CopyPartResult", etag, time_ms);
    doc.checksums(checksums);
    doc.finish()
}

fn copy_result(root: &'static str, etag: &str, time_ms: u64) -> Document {
    let mut doc = Document::new(root);
    doc.etag(etag);
    doc.text("LastModified", &iso8601(time_ms));
    doc
}

/// Writes the result of CreateMultipartUpload.
pub fn initiate_upload(bucket: &str, key: &str, id: &UploadId) -> String {
    let mut doc = Document::new("InitiateMultipartUploadResult");
    doc.text("Bucket", bucket);
    doc.text("Key", key);
    doc.text("UploadId", &hex::encode(id));
    doc.finish()
}

/// Writes the result of CompleteMultipartUpload.
pub fn complete_result(bucket: &str, key: &str, etag: &str, checksums: &ObjectChecksums<'_>) -> String {
    let mut doc = Document::new("CompleteMultipartUploadResult");
    doc.text("Location", &format!("/{bucket}/{key}"));
    doc.text("Bucket", bucket);
    doc.text("Key", key);
    doc.etag(etag);
    doc.object_checksums(checksums);
    doc.finish()
}

/// Writes the result of PostObject, for forms that ask for status 201.
pub fn post_result(location: &str, bucket: &str, key: &str, etag: &str) -> String {
    let mut doc = Document::bare("PostResponse");
    doc.text("Location", location);
    doc.text("Bucket", bucket);
    doc.text("Key", key);
    doc.etag(etag);
    doc.finish()
}

/// The requested attributes of an object.
#[derive(Default)]
pub struct Attributes<'a> {
    /// The ETag, without quotes.
    pub etag: Option<&'a str>,
    /// The checksums of the whole object.
    pub checksums: Option<ObjectChecksums<'a>>,
    /// The parts; only for multipart objects.
    pub parts: Option<ObjectParts>,
    /// The storage class.
    pub storage_class: Option<&'a str>,
    /// Length of the plaintext.
    pub size: Option<u64>,
}

/// The parts of an object.
pub struct ObjectParts {
    /// The total number of parts.
    pub count: u16,
    /// A page of parts, if they have checksums.
    pub page: Option<PartsPage>,
}

/// A page of an object's parts.
pub struct PartsPage {
    /// The part number after which the page starts.
    pub marker: u16,
    /// The maximum number of parts.
    pub max: usize,
    /// Whether more parts follow.
    pub truncated: bool,
    /// Numbers, plaintext lengths and checksums.
    pub parts: Vec<(u16, u64, Checksums)>,
}

/// Writes the result of GetObjectAttributes.
pub fn object_attributes(attributes: &Attributes<'_>) -> String {
    let mut doc = Document::new("GetObjectAttributesResponse");
    if let Some(etag) = attributes.etag {
        doc.text("ETag", etag);
    }
    if let Some(checksums) = attributes.checksums.filter(|checksums| !checksums.checksums.is_empty()) {
        doc.open("Checksum");
        doc.checksums(checksums.checksums);
        doc.checksum_type(&checksums);
        doc.close();
    }
    if let Some(parts) = &attributes.parts {
        doc.open("ObjectParts");
        if let Some(page) = &parts.page {
            doc.number("PartNumberMarker", page.marker);
            doc.number("NextPartNumberMarker", page.parts.last().map_or(0, |(number, ..)| *number));
            doc.number("MaxParts", page.max as u64);
            doc.flag("IsTruncated", page.truncated);
            for (number, size, checksums) in &page.parts {
                doc.open("Part");
                doc.number("PartNumber", *number);
                doc.number("Size", *size);
                doc.checksums(checksums);
                doc.close();
            }
        }
        doc.number("PartsCount", parts.count);
        doc.close();
    }
    if let Some(class) = attributes.storage_class {
        doc.text("StorageClass", class);
    }
    if let Some(size) = attributes.size {
        doc.number("ObjectSize", size);
    }
    doc.finish()
}

/// A part in a listing.
pub struct PartEntry {
    /// The part number.
    pub number: u16,
    /// Length of the plaintext.
    pub size: u64,
    /// The ETag, without quotes.
    pub etag: String,
    /// Time of the upload, in ms since 1970.
    pub time_ms: u64,
    /// The checksums of the part, if the upload declared an algorithm.
    pub checksums: Checksums,
}

/// A page of the parts of an upload.
pub struct PartList<'a> {
    /// The upload id.
    pub id: &'a UploadId,
    /// The checksum that the upload declared.
    pub declared: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// The part number after which the page starts.
    pub marker: u16,
    /// The maximum number of parts.
    pub max: usize,
    /// The parts, by number.
    pub parts: Vec<PartEntry>,
    /// Whether more parts follow.
    pub truncated: bool,
}

/// Writes the result of ListParts.
pub fn list_parts(bucket: &str, key: &str, list: &PartList<'_>) -> String {
    let PartList { id, declared, marker, max, ref parts, truncated } = *list;
    let mut doc = Document::new("ListPartsResult");
    doc.text("Bucket", bucket);
    doc.text("Key", key);
    doc.text("UploadId", &hex::encode(id));
    doc.owner("Initiator");
    doc.owner("Owner");
    doc.text("StorageClass", "STANDARD");
    if let Some((algorithm, kind)) = declared {
        doc.text("ChecksumAlgorithm", checksum::algorithm_name(algorithm));
        doc.text("ChecksumType", checksum::type_name(kind));
    }
    doc.number("PartNumberMarker", marker);
    doc.number("NextPartNumberMarker", parts.last().map_or(0, |part| part.number));
    doc.number("MaxParts", max as u64);
    doc.flag("IsTruncated", truncated);
    for part in parts {
        doc.open("Part");
        doc.number("PartNumber", part.number);
        doc.text("LastModified", &iso8601(part.time_ms));
        doc.etag(&part.etag);
        doc.number("Size", part.size);
        doc.checksums(&part.checksums);
        doc.close();
    }
    doc.finish()
}

/// An entry of an upload listing.
pub enum UploadEntry<'a> {
    /// An upload.
    Upload {
        /// The object key.
        key: &'a str,
        /// The upload id.
        id: &'a UploadId,
        /// Time of creation, in ms since 1970.
        time_ms: u64,
    },
    /// A common prefix.
    Prefix(&'a str),
}

/// Writes the result of ListMultipartUploads.
pub fn list_uploads(bucket: &str, query: &ListUploads, listed: &[UploadEntry<'_>], truncated: bool) -> String {
    let url = query.encoding_url;
    let mut doc = Document::new("ListMultipartUploadsResult");
    doc.text("Bucket", bucket);
    doc.text("KeyMarker", &encode_key(query.key_marker.as_deref().unwrap_or_default(), url));
    doc.text("UploadIdMarker", &query.upload_id_marker.map(hex::encode).unwrap_or_default());
    if truncated {
        match listed.last() {
            Some(UploadEntry::Upload { key, id, .. }) => {
                doc.text("NextKeyMarker", &encode_key(key, url));
                doc.text("NextUploadIdMarker", &hex::encode(id));
            }
            Some(UploadEntry::Prefix(prefix)) => doc.text("NextKeyMarker", &encode_key(prefix, url)),
            None => {}
        }
    }
    doc.text("Prefix", &encode_key(&query.prefix, url));
    doc.delimiter(query.delimiter.as_deref(), url);
    doc.number("MaxUploads", query.max_uploads as u64);
    doc.flag("IsTruncated", truncated);
    for entry in listed {
        match entry {
            UploadEntry::Upload { key, id, time_ms } => {
                doc.open("Upload");
                doc.text("Key", &encode_key(key, url));
                doc.text("UploadId", &hex::encode(id));
                doc.owner("Initiator");
                doc.owner("Owner");
                doc.text("StorageClass", "STANDARD");
                doc.text("Initiated", &iso8601(*time_ms));
                doc.close();
            }
            UploadEntry::Prefix(prefix) => doc.common_prefix(prefix, url),
        }
    }
    doc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let mut doc = Document::bare("A");
        doc.text("B", "<&>\"\u{1}\r\u{7f}é");
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<A><B>&lt;&amp;&gt;&quot;&#x1;&#xd;&#x7f;é</B></A>";
        assert_eq!(doc.finish(), expected);
    }

    #[test]
    fn quiet_deletion_lists_errors_only() {
        let results = [
            Deleted { key: "a", version_id: None, marker: None, error: None },
            Deleted { key: "m", version_id: None, marker: Some("1".to_owned()), error: None },
            Deleted {
                key: "b",
                version_id: None,
                marker: None,
                error: Some(Error::new(crate::ErrorCode::InternalError)),
            },
        ];
        let loud = delete_result(&results, false);
        let quiet = delete_result(&results, true);
        assert!(
            loud.contains(
                "<Deleted><Key>a</Key></Deleted><Deleted><Key>m</Key><DeleteMarker>true</DeleteMarker>\
                <DeleteMarkerVersionId>1</DeleteMarkerVersionId></Deleted>"
            ) && loud.contains("<Error><Key>b</Key><Code>InternalError")
        );
        assert!(!quiet.contains("<Deleted>") && quiet.contains("<Error><Key>b</Key>"));
    }
}
