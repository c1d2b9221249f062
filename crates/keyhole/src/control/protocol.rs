//! The messages of the control socket: one JSON object per line.

use keyhole_log::{Damage, SegmentKind, SegmentStat, SegmentState};
use serde::{Deserialize, Deserializer, Serialize};

use crate::status::{Status, StoreFigures};

/// A request of a client.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Returns figures of the store; with `segments`, also of each segment.
    Stat {
        #[serde(default)]
        segments: bool,
    },
    /// Returns the status of the node.
    Status {},
    /// Runs the cleaner to its end.
    Compact {},
    /// Writes a checkpoint.
    Checkpoint {},
    /// Verifies everything, at most at this rate.
    Scrub { rate_bytes_per_s: u64 },
    /// Returns the settings of a bucket.
    BucketGet { bucket: String },
    /// Changes settings of a bucket.
    BucketSet(BucketChange),
    /// Sets the lock clock to the wall clock.
    ClockAccept {},
    /// Reloads the file of access keys.
    AccessReload {},
    /// Reloads the file of remotes.
    RemotesReload {},
    /// Exports objects. After the reply `ready`, the connection carries frames
    /// (`transfer/protocol.rs`).
    Export(Scope),
    /// Imports objects, likewise.
    Import {},
}

impl Request {
    /// Returns whether the request changes nothing.
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

/// A selection of objects.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scope {
    /// The bucket; `None` selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bucket: Option<String>,
    /// The prefix of the keys.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) prefix: String,
}

impl Scope {
    /// Returns whether objects of this bucket may be selected.
    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.bucket.as_ref().is_none_or(|wanted| wanted == bucket)
    }

    /// Returns whether this object is selected.
    pub(crate) fn has(&self, bucket: &str, key: &str) -> bool {
        self.has_bucket(bucket) && key.starts_with(&self.prefix)
    }
}

/// A change of a bucket's settings: absent fields stay, `null` removes a setting.
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
    /// IDs of the only customer keys that the bucket accepts, 32 hex digits each; an empty list
    /// accepts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rekey_by_overwrite: Option<Allowed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) anonymous_read: Option<Anonymous>,
}

/// The policy of a bucket on customer keys.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SseC {
    /// Accept objects with and without customer keys.
    Allow,
    /// Require a customer key.
    Require,
    /// Refuse customer keys.
    Forbid,
    /// Use the node's default for buckets.
    Default,
}

/// The policy on overwriting an object under another customer key.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Allowed {
    /// Allow it to everyone with the right to write.
    Allow,
    /// Require the key of the overwritten object.
    Forbid,
    /// Use the node's default for buckets.
    Default,
}

/// The policy on anonymous reads.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Anonymous {
    /// Allow reads without a signature.
    Allow,
    /// Require an access key with the right to read.
    Forbid,
    /// Use the node's default for buckets.
    Default,
}

/// A change of a setting: `None` keeps it, `Some(None)` removes it, `Some(Some(_))` sets it.
pub(crate) type Change = Option<Option<u64>>;

/// Distinguishes `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Change, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A reply of the node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum Reply {
    // Intermediate replies, any number of them.
    /// Progress: bytes verified or moved so far, at least every second.
    Progress {
        bytes: u64,
    },
    /// A damaged item.
    Damage(DamageReply),
    /// Some of the segments.
    Segments {
        segments: Vec<Segment>,
    },
    // Final replies, exactly one of them.
    /// The transfer of objects begins.
    Ready {},
    Stat(StoreFigures),
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
    /// The time of the lock clock, in ms since 1970, if there is one.
    Clock {
        lock_ms: Option<u64>,
    },
    /// The count of access keys after the reload, including expired ones.
    AccessReloaded {
        keys: u64,
    },
    /// The count of remotes after the reload.
    RemotesReloaded {
        remotes: u64,
    },
    Failed {
        message: String,
    },
}

impl Reply {
    /// Returns whether another reply follows.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Reply::Progress { .. } | Reply::Damage(_) | Reply::Segments { .. })
    }
}

/// A damaged item.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct DamageReply {
    pub(crate) what: String,
    pub(crate) offset: u64,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    /// Its version, if the damage is of a known version of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

impl From<&Damage> for DamageReply {
    fn from(damage: &Damage) -> Self {
        DamageReply {
            what: damage.what.to_owned(),
            offset: damage.offset,
            bucket: damage.bucket.clone(),
            key: damage.key.clone(),
            version: None,
        }
    }
}

/// The settings of a bucket.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct BucketReply {
    pub(crate) bucket: String,
    /// Plaintext bytes of its objects and of its uploads' parts.
    pub(crate) bytes: u64,
    /// Limit of these bytes.
    pub(crate) quota: Option<u64>,
    /// Days after which an object is deleted.
    pub(crate) expire_days: Option<u64>,
    /// Lifecycle rules that were set through S3; `None` if they are unreadable and have no effect.
    pub(crate) lifecycle_rules: Option<u64>,
    /// CORS rules that were set through S3; `None` if they are unreadable and have no effect.
    #[serde(default)]
    pub(crate) cors: Option<Vec<CorsRuleReply>>,
    /// Tags that were set through S3; `None` if they are unreadable.
    #[serde(default)]
    pub(crate) tags: Option<Vec<TagReply>>,
    pub(crate) sse_c: SseC,
    /// IDs of the only customer keys that the bucket accepts, if it is restricted.
    pub(crate) pin: Vec<String>,
    pub(crate) rekey_by_overwrite: Allowed,
    pub(crate) anonymous_read: Anonymous,
    /// `off`, `enabled` or `suspended`.
    #[serde(default)]
    pub(crate) versioning: String,
    /// The default retention, such as `compliance 30 days`, or `enabled`; `None` without object lock.
    #[serde(default)]
    pub(crate) object_lock: Option<String>,
}

/// One CORS rule of a bucket.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct CorsRuleReply {
    pub(crate) id: String,
    pub(crate) origins: Vec<String>,
    pub(crate) methods: Vec<String>,
    pub(crate) headers: Vec<String>,
    pub(crate) expose_headers: Vec<String>,
    pub(crate) max_age_s: Option<u32>,
}

/// One tag of a bucket.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct TagReply {
    pub(crate) key: String,
    pub(crate) value: String,
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
        let kind = kind.to_owned();
        let state = state.to_owned();
        let SegmentStat { number, generation, written, live, .. } = *segment;
        Segment { number, kind, state, generation, written, live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_as_json() {
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
            (r#"{"request":"remotes-reload"}"#, Request::RemotesReload {}),
            (r#"{"request":"clock-accept"}"#, Request::ClockAccept {}),
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
    fn full_line_of_segments_fits_reply() {
        let kind = "blank".to_owned();
        let state = "condemned".to_owned();
        let segment =
            Segment { number: u32::MAX, kind, state, generation: u64::MAX, written: u64::MAX, live: u64::MAX };
        let reply = Reply::Segments { segments: vec![segment; super::super::SEGMENTS_PER_LINE] };
        assert!(serde_json::to_string(&reply).unwrap().len() < super::super::REPLY_MAX);
    }
}
