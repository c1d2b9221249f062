//! Changes of an object file that keep every checksum right, as somebody with access to the disk can
//! make them.
//!
//! [`Tamper::fields`] lists the fields of all structures. [`Tamper::with`] changes some of them and
//! computes the checksums again: those of the structures, those of the chunks of blocks, and the
//! chain of the records in a segment.

mod fields;

use std::collections::BTreeSet;
use std::ops::Range;

use super::{LAST_OF_BATCH, Layout, Object, PAGE, RECORD_HEADER, Record, SegmentKind, field, kind};

/// Bytes under one checksum in a footer.
const CHUNK: usize = 16 * 1024;

/// Length of a part in an object's record.
const PART_LEN: usize = 58;

/// Kind of the records of uploads.
pub const UPLOAD: u8 = 6;

/// Kind of the records of parts.
pub const PART: u8 = 7;

/// The structure that a field is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    /// A copy of the superblock, by its offset.
    Superblock(u64),
    /// The header of a segment, by its index.
    Segment(usize),
    /// A record, by its index.
    Record(usize),
    /// Data and footer of a block, by its index.
    Block(usize),
}

/// A field of a structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// The structure and the field.
    pub name: String,
    /// The key of the object that the structure belongs to, if it belongs to one.
    pub key: Option<String>,
    /// The current value.
    pub value: Vec<u8>,
    at: u64,
    place: Place,
}

impl Field {
    /// Returns the value as a number, if the field is one.
    pub fn number(&self) -> Option<u64> {
        (self.value.len() <= 8).then(|| field(&self.value, 0, self.value.len()))
    }

    /// Returns other values of the field. Numbers become 0, one more, one less, a page and a chunk
    /// less, larger, and the largest; other bytes are cleared, and changed at both ends.
    pub fn others(&self) -> Vec<Vec<u8>> {
        let len = self.value.len();
        let mut others = BTreeSet::new();
        if let Some(number) = self.number() {
            let numbers = [
                0,
                number.wrapping_add(1),
                number.wrapping_sub(1),
                number.wrapping_sub(PAGE),
                number.wrapping_sub(CHUNK as u64),
                number.wrapping_add(1 << 20),
                u64::MAX >> 1,
                u64::MAX,
            ];
            others.extend(numbers.map(|number| number.to_le_bytes()[..len].to_vec()));
        } else {
            others.insert(vec![0; len]);
            for at in [0, len - 1] {
                let mut other = self.value.clone();
                other[at] ^= 1;
                others.insert(other);
            }
        }
        others.remove(&self.value);
        others.into_iter().collect()
    }
}

/// A record of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordOf {
    /// The object's own record.
    Object,
    /// The record of its first body.
    Body,
}

/// An object file to be tampered with.
pub struct Tamper {
    layout: Layout,
}

impl Tamper {
    /// Parses an object file.
    pub fn new(bytes: Vec<u8>) -> Self {
        Tamper { layout: Layout::of(bytes) }
    }

    /// Returns the field of this name in the structures of an object, the first of several.
    ///
    /// # Panics
    /// If there is none.
    pub fn field(&self, key: &str, name: &str) -> Field {
        let found = self.all_fields(key, name).into_iter().next();
        found.unwrap_or_else(|| panic!("no {name} of {key}"))
    }

    /// Returns the fields of this name in the structures of an object.
    pub fn all_fields(&self, key: &str, name: &str) -> Vec<Field> {
        let is_wanted = |field: &Field| field.key.as_deref() == Some(key) && field.name == name;
        self.fields().into_iter().filter(is_wanted).collect()
    }

    /// Returns the object file with other values of some fields, which keep their lengths.
    pub fn with(&self, changes: &[(&Field, &[u8])]) -> Vec<u8> {
        let mut bytes = self.layout.bytes.clone();
        let mut places = BTreeSet::new();
        for (field, value) in changes {
            assert_eq!(field.value.len(), value.len(), "{}", field.name);
            put(&mut bytes, field.at, value);
            places.insert(field.place);
        }
        places.into_iter().for_each(|place| self.seal(&mut bytes, place));
        bytes
    }

    fn object(&self, key: &str) -> Object {
        self.layout.objects().remove(key).unwrap_or_else(|| panic!("no object {key}"))
    }

    fn record(&self, key: &str, of: RecordOf) -> Record {
        let object = self.object(key);
        match of {
            RecordOf::Object => object.record,
            RecordOf::Body => object.bodies[0].clone(),
        }
    }

    /// Returns the payload of a record of an object.
    pub fn payload(&self, key: &str, of: RecordOf) -> Vec<u8> {
        self.record(key, of).payload
    }

    /// Returns the object file with another payload in a record of an object; see
    /// [`with_record`](Self::with_record).
    pub fn with_payload(&self, key: &str, of: RecordOf, payload: &[u8]) -> Vec<u8> {
        let bytes = self.record(key, of).bytes;
        let index = self.layout.records.iter().position(|other| other.bytes == bytes).expect("its record");
        self.with_record(index, payload)
    }

    /// Returns the object file with another payload in a record. It may be longer, if the record is
    /// the last of its batch and its page has space.
    ///
    /// # Panics
    /// If there is no space.
    pub fn with_record(&self, index: usize, payload: &[u8]) -> Vec<u8> {
        let record = &self.layout.records[index];
        let start = record.bytes.start;
        let end = start + RECORD_HEADER + payload.len() as u64;
        let flags = self.layout.bytes[start as usize + 13];
        let space = record.bytes.end.next_multiple_of(if flags & LAST_OF_BATCH == 0 { 8 } else { PAGE });
        assert!(end <= space, "no space for a payload of {} bytes", payload.len());
        let mut bytes = self.layout.bytes.clone();
        bytes[(start + RECORD_HEADER) as usize..space as usize].fill(0);
        put(&mut bytes, start + RECORD_HEADER, payload);
        put(&mut bytes, start + 8, &((end - start) as u32).to_le_bytes());
        self.seal(&mut bytes, Place::Record(index));
        // The next record of the batch begins where this one ends.
        assert!(flags & LAST_OF_BATCH != 0 || space == end.next_multiple_of(8), "a gap behind the record");
        bytes
    }

    /// Returns indices and payloads of the records of a kind, in file order.
    pub fn records(&self, kind: u8) -> Vec<(usize, Vec<u8>)> {
        let records = self.layout.records.iter().enumerate().filter(|(_, record)| record.kind == kind);
        records.map(|(index, record)| (index, record.payload.clone())).collect()
    }

    /// Returns the payloads of all records of objects with this key, oldest first.
    pub fn payloads_of_objects(&self, key: &str) -> Vec<Vec<u8>> {
        let records = self.layout.records.iter().filter(|record| record.kind == kind::OBJECT);
        records.filter(|record| record.key() == key).map(|it| it.payload.clone()).collect()
    }

    /// Returns the key that a record belongs to, if it belongs to one.
    fn key_of(&self, record: &Record) -> Option<String> {
        let text = |at: usize, len: u64| record.payload.get(at..at + len as usize);
        let key = match record.kind {
            kind::OBJECT => text(60, field(&record.payload, 52, 2)),
            UPLOAD => text(42, field(&record.payload, 36, 2)),
            kind::BODY => return self.owner(field(&record.payload, 0, 8)),
            PART => return self.owner(field(&record.payload, 26, 8)),
            _ => None,
        };
        key.map(|key| String::from_utf8_lossy(key).into_owned())
    }

    /// Returns the key of the first object that has a body.
    fn owner(&self, body: u64) -> Option<String> {
        let objects = self.layout.records.iter().filter(|record| record.kind == kind::OBJECT);
        objects.filter(|object| object.bodies().contains(&body)).map(Record::key).next()
    }

    /// Computes the checksums of a structure again, and those that depend on them.
    fn seal(&self, bytes: &mut [u8], place: Place) {
        match place {
            Place::Superblock(at) => seal_page(bytes, at),
            Place::Segment(index) => {
                let segment = &self.layout.segments[index];
                seal_page(bytes, segment.start);
                if segment.kind == SegmentKind::Records {
                    self.chain(bytes, segment.number, segment.start);
                }
            }
            Place::Record(index) => {
                let record = &self.layout.records[index];
                seal_record(bytes, record.bytes.clone());
                self.chain(bytes, record.segment, record.bytes.start);
            }
            Place::Block(index) => {
                let block = &self.layout.blocks[index];
                let data = bytes[block.data.start as usize..block.data.end as usize].to_vec();
                for (chunk, at) in data.chunks(CHUNK).zip((block.footer.start + 64..).step_by(4)) {
                    put(bytes, at, &crc32fast::hash(chunk).to_le_bytes());
                }
                let crc = crc32fast::hash(&bytes[block.footer.start as usize + 8..block.footer.end as usize]);
                put(bytes, block.footer.start + 4, &crc.to_le_bytes());
            }
        }
    }

    /// Chains the records behind this offset of a segment again.
    fn chain(&self, bytes: &mut [u8], segment: u64, from: u64) {
        let start = self.layout.segments.iter().find(|other| other.number == segment).expect("its segment").start;
        let mut previous = start as usize + 12;
        for record in self.layout.records.iter().filter(|record| record.segment == segment) {
            if record.bytes.start > from {
                let crc = bytes[previous..previous + 4].to_vec();
                put(bytes, record.bytes.start + 64, &crc);
                seal_record(bytes, record.bytes.clone());
            }
            previous = record.bytes.start as usize + 4;
        }
    }
}

/// Seals the record in this range, by the length that it claims where that is possible.
fn seal_record(bytes: &mut [u8], range: Range<u64>) {
    let start = range.start as usize;
    let claimed = field(bytes, start + 8, 4) as usize;
    let is_possible = claimed >= RECORD_HEADER as usize && start + claimed <= bytes.len();
    let end = if is_possible { start + claimed } else { range.end as usize };
    let mut check = crc32fast::Hasher::new();
    check.update(&bytes[start + 8..start + 14]);
    check.update(&bytes[start + 16..start + 56]);
    check.update(&bytes[start + 64..start + 68]);
    put(bytes, range.start + 14, &(check.finalize() as u16).max(1).to_le_bytes());
    let crc = crc32fast::hash(&bytes[start + 8..end]);
    put(bytes, range.start + 4, &crc.to_le_bytes());
}

/// Seals a superblock or the header of a segment.
fn seal_page(bytes: &mut [u8], at: u64) {
    let start = at as usize;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[start..start + 12]);
    crc.update(&bytes[start + 16..start + PAGE as usize]);
    put(bytes, at + 12, &crc.finalize().to_le_bytes());
}

fn put(bytes: &mut [u8], at: u64, value: &[u8]) {
    let at = at as usize;
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Returns the range of the head in the payload of an object's record, or of an upload's.
pub fn head_range(payload: &[u8], of_upload: bool) -> Range<usize> {
    let (key, key_len, head_len) = if of_upload { (42, 36, 38) } else { (60, 52, 56) };
    let start = key + field(payload, key_len, 2) as usize;
    start..start + field(payload, head_len, 4) as usize
}

/// Replaces the head in the payload of an object's record, or of an upload's.
pub fn replace_head(payload: &mut Vec<u8>, of_upload: bool, head: &[u8]) {
    let range = head_range(payload, of_upload);
    payload.splice(range, head.iter().copied());
    let len = if of_upload { 38 } else { 56 };
    payload[len..len + 4].copy_from_slice(&(head.len() as u32).to_le_bytes());
}

/// Returns the range of a part in the payload of an object's record.
pub fn part_range(payload: &[u8], part: usize) -> Range<usize> {
    let start = 60 + field(payload, 52, 2) as usize + field(payload, 56, 4) as usize + part * PART_LEN;
    start..start + PART_LEN
}
