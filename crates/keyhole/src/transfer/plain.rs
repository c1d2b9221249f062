//! Descriptions of plaintext objects in an export.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums, Field, Head, UserMetadata};
use keyhole_core::limits::HEAD_MAX;
use keyhole_log::Etag;
use keyhole_node::transfer::{Description, PartDescription};
use keyhole_s3::checksum::{type_name, type_of};
use serde::{Deserialize, Serialize};

use super::invalid::EntryError;

/// Further description of a plaintext object.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plain {
    /// Stored headers, by name in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, Text>,
    /// User metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, Text>,
    /// Checksums by algorithm, in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) checksums: BTreeMap<String, String>,
    /// Checksum algorithm and type that its upload declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) declared: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<PlainPart>,
}

/// One part of a plaintext multipart object.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlainPart {
    pub(crate) number: u16,
    pub(crate) size: u64,
    pub(crate) etag: String,
    /// Present if the object has part checksums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksums: Option<BTreeMap<String, String>>,
}

/// The value of a header: UTF-8 text, or other bytes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(untagged)]
pub(crate) enum Text {
    Utf8(String),
    Bytes { base64: String },
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text::Utf8(text.to_owned()),
            Err(_) => Text::Bytes { base64: Base64::encode_string(bytes) },
        }
    }
}

impl Text {
    fn bytes(&self) -> Result<Vec<u8>, EntryError> {
        match self {
            Text::Utf8(text) => Ok(text.clone().into_bytes()),
            Text::Bytes { base64 } => from_base64(base64, "the value of a header"),
        }
    }
}

pub(super) fn from_base64(text: &str, what: &'static str) -> Result<Vec<u8>, EntryError> {
    Base64::decode_vec(text).map_err(|_| EntryError::Base64(what))
}

impl Plain {
    /// Describes a plaintext object.
    pub(super) fn new(description: &Description) -> Result<Self, EntryError> {
        let head = Head::decode(&description.head).map_err(EntryError::Head)?;
        let headers = Field::ALL.into_iter().zip(head.fields);
        let headers = headers.filter_map(|(field, value)| Some((field.header_name().to_owned(), Text::from(value?))));
        let metadata = head.user_metadata.iter().map(|(name, value)| (name.to_owned(), Text::from(value)));
        let declared = head.declared.map(|(algorithm, kind)| (name(algorithm).to_owned(), type_name(kind).to_owned()));
        let parts = match description.parts[..] {
            [PartDescription { number: 0, .. }] => Vec::new(),
            ref parts => parts.iter().map(PlainPart::new).collect::<Result<_, _>>()?,
        };
        Ok(Plain {
            headers: headers.collect(),
            metadata: metadata.collect(),
            checksums: texts(&head.checksums),
            declared,
            parts,
        })
    }

    /// Encodes the object head.
    pub(super) fn head(&self) -> Result<Vec<u8>, EntryError> {
        let mut fields: [Option<Vec<u8>>; Field::ALL.len()] = Default::default();
        for (name, value) in &self.headers {
            let place = Field::ALL.into_iter().position(|field| field.header_name() == name);
            fields[place.ok_or_else(|| EntryError::UnknownHeader(name.clone()))?] = Some(value.bytes()?);
        }
        let metadata = self.metadata.iter().map(|(name, value)| Ok((name.as_str(), value.bytes()?)));
        let metadata: Vec<(&str, Vec<u8>)> = metadata.collect::<Result<_, EntryError>>()?;
        let metadata: Vec<(&str, &[u8])> = metadata.iter().map(|(name, value)| (*name, &value[..])).collect();
        let declared = match &self.declared {
            None => None,
            Some((algorithm, kind)) => Some((algorithm_of(algorithm)?, kind_of(kind)?)),
        };
        encode(&Head {
            fields: std::array::from_fn(|i| fields[i].as_deref()),
            user_metadata: UserMetadata::new(&metadata),
            checksums: checksums(&self.checksums)?,
            declared,
            ..Head::default()
        })
    }

    /// Decodes the parts of an object of this size.
    pub(super) fn parts(&self, size: u64, etag: Etag) -> Result<Vec<PartDescription>, EntryError> {
        if self.parts.is_empty() {
            return Ok(vec![PartDescription { number: 0, size, etag: etag.digest, checksums: None }]);
        }
        self.parts.iter().map(PlainPart::description).collect()
    }
}

impl PlainPart {
    fn new(part: &PartDescription) -> Result<Self, EntryError> {
        let checksums = match part.checksums.as_deref() {
            None => None,
            Some([]) => Some(BTreeMap::new()),
            Some(info) => {
                let head = Head::decode(info).map_err(EntryError::Part)?;
                Some(texts(&head.checksums))
            }
        };
        let etag = Etag { digest: part.etag, parts: 0 }.to_string();
        Ok(PlainPart { number: part.number, size: part.size, etag, checksums })
    }

    fn description(&self) -> Result<PartDescription, EntryError> {
        let etag = self.etag.parse().ok().filter(|etag: &Etag| etag.parts == 0);
        let Etag { digest: etag, .. } = etag.ok_or(EntryError::PartEtag)?;
        let info = match &self.checksums {
            None => None,
            Some(none) if none.is_empty() => Some(Vec::new()),
            Some(some) => Some(encode(&Head { checksums: checksums(some)?, ..Head::default() })?),
        };
        Ok(PartDescription { number: self.number, size: self.size, etag, checksums: info })
    }
}

pub(super) fn encode(head: &Head<'_>) -> Result<Vec<u8>, EntryError> {
    let mut bytes = vec![0; HEAD_MAX];
    let len = head.encode(&mut bytes).map_err(EntryError::Head)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Returns the name of an algorithm as in headers, without their prefix.
fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    let header = keyhole_s3::checksum::header_name(algorithm);
    header.strip_prefix("x-amz-checksum-").unwrap_or(header)
}

fn algorithm_of(text: &str) -> Result<ChecksumAlgorithm, EntryError> {
    let found = ChecksumAlgorithm::ALL.into_iter().find(|algorithm| name(*algorithm) == text);
    found.ok_or_else(|| EntryError::UnknownAlgorithm(text.to_owned()))
}

fn kind_of(text: &str) -> Result<ChecksumType, EntryError> {
    type_of(text).ok_or_else(|| EntryError::UnknownChecksumType(text.to_owned()))
}

fn texts(checksums: &Checksums) -> BTreeMap<String, String> {
    checksums.iter().map(|(algorithm, digest)| (name(algorithm).to_owned(), Base64::encode_string(digest))).collect()
}

fn checksums(texts: &BTreeMap<String, String>) -> Result<Checksums, EntryError> {
    let mut checksums = Checksums::default();
    for (name, text) in texts {
        let digest = from_base64(text, "a checksum")?;
        checksums.set(algorithm_of(name)?, &digest).map_err(EntryError::Checksum)?;
    }
    Ok(checksums)
}
