//! What goes over the control socket: one JSON object on each line.

use keyhole_log::{CleanerStats, Damage, SegmentKind, SegmentStat, SegmentState, Stats, Written};
use serde::{Deserialize, Deserializer, Serialize};

use crate::status::Status;

/// What a client wants.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Figures of the store; `segments`: and of each segment.
    Stat {
        #[serde(default)]
        segments: bool,
    },
    /// How the node is.
    Status {},
    /// Runs the cleaner to its end.
    Compact {},
    /// Writes a checkpoint.
    Checkpoint {},
    /// Verifies everything, no faster than this.
    Scrub { rate_bytes_per_s: u64 },
    /// The settings of a bucket.
    BucketGet { bucket: String },
    /// Changes some of them.
    BucketSet(BucketChange),
    /// Reads the file of access keys again.
    AccessReload {},
    /// Gives objects. After the reply, `ready`, frames go over the connection (`moving/session.rs`).
    Export(Scope),
    /// Takes objects. Likewise.
    Import {},
}

impl Request {
    /// Whether it changes nothing.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Request::Stat { .. }
                | Request::Status {}
                | Request::Scrub { .. }
                | Request::BucketGet { .. }
                | Request::Export(_)
        )
    }
}

/// Which objects are meant.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scope {
    /// Those of this bucket; of all, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bucket: Option<String>,
    /// Those whose keys begin so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) prefix: String,
}

impl Scope {
    /// Whether objects of this bucket may be meant.
    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.bucket.as_ref().is_none_or(|wanted| wanted == bucket)
    }

    /// Whether this object is meant.
    pub(crate) fn has(&self, bucket: &str, key: &str) -> bool {
        self.has_bucket(bucket) && key.starts_with(&self.prefix)
    }
}

/// What to change of a bucket: what is absent stays, `null` takes the setting away.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketChange {
    pub(crate) bucket: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Change,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) expire_days: Change,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sse_c: Option<SseC>,
    /// Ids of the only customer keys that it takes, in 32 hex digits each; with none of them it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rekey_by_overwrite: Option<Allowed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) anonymous_read: Option<Anonymous>,
}

/// Whether a bucket takes customer keys.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SseC {
    /// It takes them.
    Allow,
    /// It takes nothing else.
    Require,
    /// It takes none.
    Forbid,
    /// As the node has it for buckets of which this was not set.
    Default,
}

/// Whether something may be done.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Allowed {
    /// By everybody.
    Allow,
    /// Not without the key of what is overwritten.
    Forbid,
    /// As the node has it for buckets of which this was not set.
    Default,
}

/// Whether everybody may get objects.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Anonymous {
    /// Everybody, without a signature.
    Allow,
    /// Only who has an access key with the right to.
    Forbid,
    /// As the node has it for buckets of which this was not set.
    Default,
}

/// What becomes of a setting: it stays (`None`), is taken away, or is set.
pub(crate) type Change = Option<Option<u64>>;

/// Tells `null` from a field that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Change, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What the node says.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum Reply {
    // On the way, any number of them.
    /// It goes on: bytes verified or moved so far. At least every second.
    Progress {
        bytes: u64,
    },
    /// Something does not verify.
    Damage(DamageReply),
    /// Some of the segments.
    Segments {
        segments: Vec<Segment>,
    },
    // At the end, one of them.
    /// Objects may move now.
    Ready {},
    Stat(StatReply),
    Status(Box<Status>),
    Compacted {
        segments_freed: u64,
        bytes_moved: u64,
    },
    Checkpointed {},
    Scrubbed {
        bytes: u64,
        damaged: u64,
    },
    Bucket(BucketReply),
    /// So many access keys are good now, but for those that have expired.
    AccessReloaded {
        keys: u64,
    },
    Failed {
        message: String,
    },
}

impl Reply {
    /// Whether another one follows.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Reply::Progress { .. } | Reply::Damage(_) | Reply::Segments { .. })
    }
}

/// Something that does not verify.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct DamageReply {
    pub(crate) what: String,
    pub(crate) offset: u64,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
}

impl From<&Damage> for DamageReply {
    fn from(damage: &Damage) -> Self {
        DamageReply {
            what: damage.what.to_owned(),
            offset: damage.offset,
            bucket: damage.bucket.clone(),
            key: damage.key.clone(),
        }
    }
}

/// The settings of a bucket.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct BucketReply {
    pub(crate) bucket: String,
    /// Plaintext bytes of its objects and of the parts of its uploads.
    pub(crate) bytes: u64,
    /// Bytes that they may have.
    pub(crate) quota: Option<u64>,
    /// Days after which an object is deleted.
    pub(crate) expire_days: Option<u64>,
    /// Rules that were set through S3, by which objects and uploads go; `None`: they cannot be read, and do nothing.
    pub(crate) lifecycle_rules: Option<u64>,
    pub(crate) sse_c: SseC,
    /// Ids of the only customer keys that it takes, if there are any.
    pub(crate) pin: Vec<String>,
    pub(crate) rekey_by_overwrite: Allowed,
    pub(crate) anonymous_read: Anonymous,
}

/// Figures of the store. All lengths are bytes; what was written and done is since the node's start.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct StatReply {
    pub(crate) capacity: u64,
    pub(crate) allocated: u64,
    pub(crate) live: u64,
    pub(crate) dead: u64,
    pub(crate) buckets: u64,
    pub(crate) objects: u64,
    pub(crate) uploads: u64,
    pub(crate) bodies: u64,
    pub(crate) index: u64,
    pub(crate) written: WrittenReply,
    /// Batches with up to 1, 2, 4, ..., 512 commits.
    pub(crate) batches: Vec<u64>,
    pub(crate) cleaner: CleanerReply,
}

/// Bytes written, by what they are.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct WrittenReply {
    /// What requests had to be written.
    pub(crate) appended: u64,
    pub(crate) records: u64,
    pub(crate) blocks: u64,
    pub(crate) moved: u64,
    pub(crate) checkpoints: u64,
    pub(crate) other: u64,
    pub(crate) total: u64,
    /// Bytes written for each byte appended; `None` before the first.
    pub(crate) amplification: Option<f64>,
}

/// What the cleaner did.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct CleanerReply {
    pub(crate) segments_cleaned: u64,
    pub(crate) segments_freed: u64,
    pub(crate) bytes_moved: u64,
    pub(crate) checkpoints: u64,
}

impl From<&Stats> for StatReply {
    fn from(stats: &Stats) -> Self {
        let Stats { usage, index_bytes, written, batches, cleaner, .. } = stats;
        StatReply {
            capacity: usage.capacity,
            allocated: usage.allocated,
            live: usage.live,
            dead: usage.dead,
            buckets: usage.buckets,
            objects: usage.objects,
            uploads: usage.uploads,
            bodies: usage.bodies,
            index: *index_bytes,
            written: written.into(),
            batches: batches.0.to_vec(),
            cleaner: cleaner.into(),
        }
    }
}

impl From<&Written> for WrittenReply {
    fn from(written: &Written) -> Self {
        WrittenReply {
            appended: written.appended,
            records: written.records,
            blocks: written.blocks,
            moved: written.moved,
            checkpoints: written.checkpoints,
            other: written.other,
            total: written.total(),
            amplification: written.amplification(),
        }
    }
}

impl From<&CleanerStats> for CleanerReply {
    fn from(cleaner: &CleanerStats) -> Self {
        CleanerReply {
            segments_cleaned: cleaner.segments_cleaned,
            segments_freed: cleaner.segments_freed,
            bytes_moved: cleaner.bytes_moved,
            checkpoints: cleaner.checkpoints,
        }
    }
}

/// One segment.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    /// `meta` (records), `body` (blocks) or `blank`.
    pub(crate) kind: String,
    /// `blank`, `open`, `closed`, `condemned` or `damaged`.
    pub(crate) state: String,
    pub(crate) generation: u64,
    pub(crate) written: u64,
    pub(crate) live: u64,
}

impl From<&SegmentStat> for Segment {
    fn from(segment: &SegmentStat) -> Self {
        let kind = match segment.kind {
            SegmentKind::Meta => "meta",
            SegmentKind::Body => "body",
            SegmentKind::Blank => "blank",
        };
        let state = match segment.state {
            SegmentState::Blank => "blank",
            SegmentState::Open => "open",
            SegmentState::Closed => "closed",
            SegmentState::Condemned => "condemned",
            SegmentState::Damaged => "damaged",
        };
        let (kind, state) = (kind.to_owned(), state.to_owned());
        let SegmentStat { number, generation, written, live, .. } = *segment;
        Segment { number, kind, state, generation, written, live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let change =
            |quota, expire_days| BucketChange { bucket: "b".to_owned(), quota, expire_days, ..BucketChange::default() };
        let set = |quota, expire_days| Request::BucketSet(change(quota, expire_days));
        let policy = BucketChange {
            sse_c: Some(SseC::Require),
            pin: Some(vec!["00".to_owned()]),
            rekey_by_overwrite: Some(Allowed::Forbid),
            anonymous_read: Some(Anonymous::Allow),
            ..change(None, None)
        };
        let cases = [
            (r#"{"request":"stat"}"#, Request::Stat { segments: false }),
            (r#"{"request":"stat","segments":true}"#, Request::Stat { segments: true }),
            (r#"{"request":"status"}"#, Request::Status {}),
            (r#"{"request":"compact"}"#, Request::Compact {}),
            (r#"{"request":"checkpoint"}"#, Request::Checkpoint {}),
            (r#"{"request":"scrub","rate_bytes_per_s":5}"#, Request::Scrub { rate_bytes_per_s: 5 }),
            (r#"{"request":"access-reload"}"#, Request::AccessReload {}),
            (r#"{"request":"export"}"#, Request::Export(Scope::default())),
            (
                r#"{"request":"export","bucket":"b","prefix":"p/"}"#,
                Request::Export(Scope { bucket: Some("b".to_owned()), prefix: "p/".to_owned() }),
            ),
            (r#"{"request":"import"}"#, Request::Import {}),
            (r#"{"request":"bucket-get","bucket":"b"}"#, Request::BucketGet { bucket: "b".to_owned() }),
            (r#"{"request":"bucket-set","bucket":"b"}"#, set(None, None)),
            (r#"{"request":"bucket-set","bucket":"b","quota":null}"#, set(Some(None), None)),
            (
                r#"{"request":"bucket-set","bucket":"b","sse_c":"require","pin":["00"],"rekey_by_overwrite":"forbid","anonymous_read":"allow"}"#,
                Request::BucketSet(policy),
            ),
            (r#"{"request":"bucket-set","bucket":"b","quota":7,"expire_days":1}"#, set(Some(Some(7)), Some(Some(1)))),
        ];
        for (text, request) in cases {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request, "{text}");
            let written = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&written).unwrap(), request, "{written}");
        }
        let bad = [
            "",
            "{}",
            "[]",
            r#"{"request":"format"}"#,
            r#"{"request":"scrub"}"#,
            r#"{"request":"compact","now":true}"#,
            r#"{"request":"bucket-set","bucket":"b","quota":-1}"#,
            r#"{"request":"bucket-set","bucket":"b","sse_c":"maybe"}"#,
            r#"{"request":"bucket-set","bucket":"b","pins":[]}"#,
        ];
        for text in bad {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_full_line_of_segments_is_within_the_bound() {
        let (kind, state) = ("blank".to_owned(), "condemned".to_owned());
        let segment =
            Segment { number: u32::MAX, kind, state, generation: u64::MAX, written: u64::MAX, live: u64::MAX };
        let reply = Reply::Segments { segments: vec![segment; super::super::SEGMENTS_PER_LINE] };
        assert!(serde_json::to_string(&reply).unwrap().len() < super::super::REPLY_MAX);
    }
}
