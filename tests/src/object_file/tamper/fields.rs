//! The fields of all structures in an object file.

use super::{Field, PART, PART_LEN, Place, Tamper, UPLOAD};
use crate::object_file::{INLINE, RECORD_HEADER, Record, SUPERBLOCKS, field, kind};

/// Length of a run in a body's record.
const RUN_LEN: u64 = 20;

impl Tamper {
    /// Returns the fields of all structures. Checksums are not among them.
    pub fn fields(&self) -> Vec<Field> {
        let mut out = Vec::new();
        for (copy, at) in SUPERBLOCKS.into_iter().enumerate() {
            let mut fields = Fields { tamper: self, place: Place::Superblock(at), at, key: None, out: &mut out };
            fields.push_all(&format!("superblock {copy}"), &SUPERBLOCK);
        }
        for (index, segment) in self.layout.segments.iter().enumerate() {
            let at = segment.start;
            let mut fields = Fields { tamper: self, place: Place::Segment(index), at, key: None, out: &mut out };
            fields.push_all("segment", &[("kind", 8, 4), ("store", 16, 16), ("generation", 32, 8), ("number", 40, 8)]);
        }
        for (index, record) in self.layout.records.iter().enumerate() {
            let key = self.key_of(record);
            let at = record.bytes.start;
            let mut fields = Fields { tamper: self, place: Place::Record(index), at, key, out: &mut out };
            fields.record(record);
        }
        for (index, block) in self.layout.blocks.iter().enumerate() {
            let key = self.owner(block.body);
            let at = block.footer.start;
            let mut fields = Fields { tamper: self, place: Place::Block(index), at, key, out: &mut out };
            fields.push_all("footer", &FOOTER);
            fields.at = block.data.start;
            fields.push("block data", 0, block.data.end - block.data.start);
        }
        out
    }
}

/// Name, offset and length of a field.
type Named = (&'static str, u64, u64);

const SUPERBLOCK: [Named; 8] = [
    ("version", 8, 4),
    ("store", 16, 16),
    ("epoch", 32, 8),
    ("segment length", 40, 8),
    ("capacity", 48, 8),
    ("created", 56, 8),
    ("newest checkpoint", 64, 8),
    ("checkpoint before", 72, 8),
];

const FOOTER: [Named; 10] = [
    ("store", 8, 16),
    ("generation", 24, 8),
    ("offset", 32, 8),
    ("body", 40, 8),
    ("index", 48, 4),
    ("data length", 52, 4),
    ("tags", 56, 2),
    ("reserved", 58, 6),
    ("first tag", 320, 16),
    ("second tag", 336, 16),
];

const RECORD: [Named; 12] = [
    ("length", 8, 4),
    ("kind", 12, 1),
    ("flags", 13, 1),
    ("store", 16, 16),
    ("generation", 32, 8),
    ("offset", 40, 8),
    ("sequence number", 48, 8),
    ("watermark", 56, 8),
    ("previous", 64, 4),
    ("durable", 68, 4),
    ("hint segment", 72, 4),
    ("hint durable", 76, 4),
];

/// Collects the fields of one structure, which begins at `at`.
struct Fields<'t> {
    tamper: &'t Tamper,
    place: Place,
    at: u64,
    key: Option<String>,
    out: &'t mut Vec<Field>,
}

impl Fields<'_> {
    fn push(&mut self, name: &str, at: u64, len: u64) {
        let at = self.at + at;
        let value = self.tamper.layout.slice(at, len).to_vec();
        if !value.is_empty() {
            self.out.push(Field { name: name.to_owned(), key: self.key.clone(), value, at, place: self.place });
        }
    }

    fn push_all(&mut self, structure: &str, fields: &[Named]) {
        fields.iter().for_each(|(name, at, len)| self.push(&format!("{structure} {name}"), *at, *len));
    }

    fn record(&mut self, record: &Record) {
        let payload = &record.payload[..];
        let what = match record.kind {
            1 => "bucket",
            kind::BODY => "body",
            kind::OBJECT => "object",
            UPLOAD => "upload",
            PART => "part",
            kind::CHECKPOINT_ITEMS => "items",
            kind::CHECKPOINT_END => "checkpoint",
            _ => "other",
        };
        self.push_all(&format!("{what} record"), &RECORD);
        self.at += RECORD_HEADER;
        match record.kind {
            1 => self.push_all(what, &[("time", 0, 8), ("name length", 8, 2), ("name", 10, field(payload, 8, 2))]),
            kind::BODY => self.body(payload),
            kind::OBJECT => self.object(payload),
            UPLOAD => self.upload(payload),
            PART => {
                self.push_all(
                    what,
                    &[("bucket", 0, 8), ("upload", 8, 8), ("time", 16, 8), ("checksums length", 82, 2)],
                );
                self.part(what, 24);
            }
            // Items have no fixed offsets; any word may hold a field.
            kind::CHECKPOINT_ITEMS | kind::CHECKPOINT_END => {
                (0..payload.len() as u64 / 8).for_each(|word| self.push(&format!("{what} word"), 8 * word, 8));
            }
            _ => {}
        }
    }

    fn body(&mut self, payload: &[u8]) {
        let prefix = field(payload, 17, 1);
        let count = field(payload, 20, 4);
        self.push_all(
            "body",
            &[
                ("identity", 0, 8),
                ("length", 8, 8),
                ("form", 16, 1),
                ("prefix length", 17, 1),
                ("zero", 18, 2),
                ("count", 20, 4),
                ("relocation", 24, 8),
                ("salt", 32, prefix.min(24)),
                ("commitment", 56, prefix.saturating_sub(24)),
            ],
        );
        let rest = 32 + prefix;
        if payload[16] == INLINE {
            self.push("body first tag", rest, if count > 0 { 16 } else { 0 });
            let data = rest + 16 * count;
            self.push("body data", data, payload.len() as u64 - data);
            return;
        }
        for run in 0..count {
            let at = rest + run * RUN_LEN;
            self.push_all("body run", &[("offset", at, 8), ("generation", at + 8, 8), ("bytes", at + 16, 4)]);
        }
    }

    fn object(&mut self, payload: &[u8]) {
        let key = field(payload, 52, 2);
        let head = field(payload, 56, 4);
        let count = field(payload, 54, 2);
        self.push_all(
            "object",
            &[
                ("bucket", 0, 8),
                ("upload", 8, 8),
                ("size", 16, 8),
                ("time", 24, 8),
                ("ETag", 32, 16),
                ("ETag parts", 48, 2),
                ("flags", 50, 1),
                ("zero", 51, 1),
                ("key length", 52, 2),
                ("part count", 54, 2),
                ("head length", 56, 4),
                ("key", 60, key),
                ("head", 60 + key, head),
            ],
        );
        let parts = 60 + key + head;
        (0..count).for_each(|part| self.part("object part", parts + part * PART_LEN as u64));
        let end = parts + count * PART_LEN as u64;
        self.push("object tags and checksums", end, payload.len() as u64 - end);
    }

    fn upload(&mut self, payload: &[u8]) {
        let key = field(payload, 36, 2);
        self.push_all(
            "upload",
            &[
                ("bucket", 0, 8),
                ("id", 8, 16),
                ("time", 24, 8),
                ("flags", 32, 1),
                ("algorithm", 33, 1),
                ("type", 34, 1),
                ("key length", 36, 2),
                ("head length", 38, 4),
                ("head", 42 + key, field(payload, 38, 4)),
            ],
        );
    }

    fn part(&mut self, what: &str, at: u64) {
        let fields = [
            ("number", at, 2),
            ("body", at + 2, 8),
            ("size", at + 10, 8),
            ("salt", at + 18, 24),
            ("ETag", at + 42, 16),
        ];
        self.push_all(what, &fields);
    }
}
