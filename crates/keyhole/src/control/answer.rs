//! Executes requests, in the node or in a command with exclusive access to the store.

use std::io;
use std::pin::pin;
use std::time::Duration;

use keyhole_log::{
    BucketLock, BucketSettings, DefaultRetention, Disk, Error, Log, RetentionMode, RetentionPeriod, ScrubCursor,
    Versioning,
};
use keyhole_node::limits::PINS_MAX;
use keyhole_node::{OwnPolicy, Policy, PolicyDefaults, Services};
use keyhole_s3::ops::{Cors, CorsRule, Tags};
use tokio::time::{Instant, sleep, sleep_until};

use super::SEGMENTS_PER_LINE;
use super::protocol::{
    Allowed, Anonymous, BucketChange, BucketReply, CorsRuleReply, DamageReply, Reply, Request, SseC, TagReply,
};
use crate::env::System;
use crate::lock_clock::NodeLockClock;
use crate::status::{Monitor, StoreFigures};

/// Interval of progress replies, and so the delay until a disconnected client is noticed.
const TICK: Duration = Duration::from_secs(1);

/// Timeout and interval of retries to change a bucket while other changes are in flight. In a
/// continuous sequence of changes, each is in flight for milliseconds, with little time in between.
pub(crate) const CHANGE_PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const CHANGE_AGAIN: Duration = Duration::from_millis(2);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The receiver of replies.
#[allow(async_fn_in_trait)]
pub(crate) trait Replies {
    /// Sends a reply that is not final.
    ///
    /// # Errors
    /// The client has disconnected.
    async fn send(&mut self, reply: Reply) -> io::Result<()>;
}

/// Executes a request and returns the final reply. `monitor` is the node's, if a node serves the
/// store; `defaults` are its defaults for bucket policies. An error of the connection ends the work
/// as soon as it is noticed.
pub(crate) async fn answer<D: Disk>(
    log: &Log<D>,
    monitor: Option<&Monitor>,
    defaults: &PolicyDefaults,
    request: Request,
    replies: &mut impl Replies,
) -> io::Result<Reply> {
    let result = match request {
        Request::Stat { segments } => return stat(log, segments, replies).await,
        Request::Status {} => match monitor {
            Some(monitor) => Ok(Reply::Status(Box::new(monitor.status()))),
            None => return Ok(failed("no node serves this store".to_owned())),
        },
        Request::Compact {} => compact(log, &mut ProgressTicker::new(replies)).await?,
        Request::Checkpoint {} => log.checkpoint().await.map(|()| Reply::Checkpointed {}),
        Request::Scrub { rate_bytes_per_s: 0 } => return Ok(failed("invalid scrub rate 0: set it above 0".to_owned())),
        Request::Scrub { rate_bytes_per_s } => {
            scrub(log, monitor, rate_bytes_per_s, &mut ProgressTicker::new(replies)).await?
        }
        Request::BucketGet { bucket } => bucket_get(log, defaults, bucket),
        Request::BucketSet(change) => bucket_set(log, defaults, change).await,
        // Without a node, nothing has followed the clocks so far.
        Request::ClockAccept {} => accept_clock(&NodeLockClock::new(Duration::ZERO), log).await,
        Request::AccessReload {} => return Ok(failed("no running node to reload the access keys".to_owned())),
        Request::RemotesReload {} => return Ok(failed("no running node to reload the remotes".to_owned())),
        Request::Export(_) | Request::Import {} => {
            return Ok(failed("export and import need a connection of their own".to_owned()));
        }
    };
    Ok(result.unwrap_or_else(|error| failed(error.to_string())))
}

/// Sets the lock clock to the wall clock.
pub(super) async fn accept_clock<D: Disk>(clock: &NodeLockClock, log: &Log<D>) -> Result<Reply, Error> {
    let figures = clock.accept(log).await?;
    tracing::info!(lock_ms = figures.now_ms, "the operator accepted the wall clock for object lock");
    Ok(Reply::Clock { lock_ms: figures.now_ms })
}

pub(super) fn failed(message: String) -> Reply {
    Reply::Failed { message }
}

async fn stat<D: Disk>(log: &Log<D>, segments: bool, replies: &mut impl Replies) -> io::Result<Reply> {
    let stats = if segments { log.store().stats() } else { log.store().summary() };
    if segments {
        for some in stats.segments.chunks(SEGMENTS_PER_LINE) {
            replies.send(Reply::Segments { segments: some.iter().map(Into::into).collect() }).await?;
        }
    }
    Ok(Reply::Stat(StoreFigures::from(&stats)))
}

async fn compact<D: Disk>(
    log: &Log<D>,
    ticker: &mut ProgressTicker<'_, impl Replies>,
) -> io::Result<Result<Reply, Error>> {
    let moved = || log.store().summary().cleaner.bytes_moved;
    let before = moved();
    let result = ticker.during(log.compact(), || moved() - before).await?;
    Ok(result.map(|done| Reply::Compacted { segments_freed: done.segments_freed, bytes_moved: done.bytes_moved }))
}

async fn scrub<D: Disk>(
    log: &Log<D>,
    monitor: Option<&Monitor>,
    rate: u64,
    ticker: &mut ProgressTicker<'_, impl Replies>,
) -> io::Result<Result<Reply, Error>> {
    let begun = Instant::now();
    let mut bytes = 0;
    let mut damaged = 0;
    let mut next = Some(ScrubCursor::default());
    while let Some(cursor) = next {
        let step = match ticker.during(log.scrub(cursor), || bytes).await? {
            Ok(step) => step,
            Err(error) => return Ok(Err(error)),
        };
        bytes += step.bytes;
        if let Some(monitor) = monitor {
            monitor.add_scrubbed(step.bytes, step.findings.len() as u64);
        }
        for damage in &step.findings {
            damaged += 1;
            tracing::error!("damaged: {damage}");
            ticker.replies.send(Reply::Damage(DamageReply::from(damage))).await?;
        }
        next = step.next;
        // Limit the rate: wait until reading this many bytes is due.
        let due = begun + Duration::from_secs_f64(bytes as f64 / rate as f64);
        ticker.during(sleep_until(due), || bytes).await?;
    }
    if let Some(monitor) = monitor {
        monitor.end_scrub(damaged);
    }
    Ok(Ok(Reply::Scrubbed { bytes, damaged }))
}

fn bucket_get<D: Disk>(log: &Log<D>, defaults: &PolicyDefaults, bucket: String) -> Result<Reply, Error> {
    let (settings, bytes) = log.bucket_settings(&bucket).ok_or(Error::NoSuchBucket)?;
    // An unreadable policy is shown as its effect.
    let unreadable = OwnPolicy { sse_c: Some(keyhole_node::SseC::Forbid), ..OwnPolicy::default() };
    let own = OwnPolicy::decode(&settings.policy).unwrap_or(unreadable);
    let Policy { sse_c, pins, forbids_rekeying, anonymous_read } = own.over(&defaults.of(&bucket));
    Ok(Reply::Bucket(BucketReply {
        bucket,
        bytes,
        quota: settings.quota,
        expire_days: settings.expire_ms.map(|ms| ms / DAY_MS),
        lifecycle_rules: keyhole_node::rule_count(&settings).map(|count| count as u64),
        cors: cors_rules(&settings.cors),
        tags: tags(&settings.tags),
        sse_c: match sse_c {
            keyhole_node::SseC::Allow => SseC::Allow,
            keyhole_node::SseC::Require => SseC::Require,
            keyhole_node::SseC::Forbid => SseC::Forbid,
        },
        pin: pins.iter().map(hex::encode).collect(),
        rekey_by_overwrite: if forbids_rekeying { Allowed::Forbid } else { Allowed::Allow },
        anonymous_read: if anonymous_read { Anonymous::Allow } else { Anonymous::Forbid },
        versioning: match settings.versioning {
            Versioning::Off => "off",
            Versioning::Enabled => "enabled",
            Versioning::Suspended => "suspended",
        }
        .to_owned(),
        object_lock: settings.lock.map(|lock| object_lock(&lock)),
    }))
}

/// Decodes CORS rules; `None` if they are unreadable.
fn cors_rules(stored: &[u8]) -> Option<Vec<CorsRuleReply>> {
    if stored.is_empty() {
        return Some(Vec::new());
    }
    let rule = |rule: CorsRule| CorsRuleReply {
        methods: rule.methods.iter().map(|method| method.name().to_owned()).collect(),
        id: rule.id,
        origins: rule.origins,
        headers: rule.headers,
        expose_headers: rule.expose,
        max_age_s: rule.max_age_s,
    };
    Some(Cors::from_bytes(stored)?.rules.into_iter().map(rule).collect())
}

/// Decodes tags; `None` if they are unreadable.
fn tags(stored: &[u8]) -> Option<Vec<TagReply>> {
    let tags = Tags::bucket_from_bytes(stored)?;
    Some(tags.iter().map(|(key, value)| TagReply { key: key.to_owned(), value: value.to_owned() }).collect())
}

/// Describes the object lock of a bucket.
fn object_lock(lock: &BucketLock) -> String {
    let Some(DefaultRetention { mode, period }) = lock.default else { return "enabled".to_owned() };
    let mode = match mode {
        RetentionMode::Governance => "governance",
        RetentionMode::Compliance => "compliance",
    };
    match period {
        RetentionPeriod::Days(days) => format!("{mode} {days} days"),
        RetentionPeriod::Years(years) => format!("{mode} {years} years"),
    }
}

async fn bucket_set<D: Disk>(log: &Log<D>, defaults: &PolicyDefaults, change: BucketChange) -> Result<Reply, Error> {
    let begun = Instant::now();
    loop {
        match log.change_bucket(&change.bucket, System.now_ms(), |settings| apply(&change, settings)).await {
            Ok(()) => return bucket_get(log, defaults, change.bucket),
            Err(Refusal::Log(Error::Conflict)) if begun.elapsed() < CHANGE_PATIENCE => sleep(CHANGE_AGAIN).await,
            Err(Refusal::Log(error)) => return Err(error),
            Err(refusal) => return Ok(failed(refusal.to_string())),
        }
    }
}

/// The reason why settings are not changed.
#[derive(thiserror::Error, Debug)]
enum Refusal {
    #[error("too many keys to pin ({0}): a bucket has at most {max}", max = PINS_MAX)]
    TooManyPins(usize),
    #[error("invalid key id {0:?}: expected 32 hex digits, as shown by `keyhole key id`")]
    InvalidPin(String),
    #[error(transparent)]
    Log(#[from] Error),
}

/// Applies the named changes.
fn apply(change: &BucketChange, settings: &mut BucketSettings) -> Result<(), Refusal> {
    let BucketChange { bucket: _, quota, expire_days, sse_c, pin, rekey_by_overwrite, anonymous_read } = change;
    if let Some(quota) = quota {
        settings.quota = *quota;
    }
    if let Some(days) = expire_days {
        settings.expire_ms = days.map(|days| days.saturating_mul(DAY_MS));
    }
    // An unreadable policy stays in force and forbids, until a policy is set.
    let sets_policy = sse_c.is_some() || pin.is_some() || rekey_by_overwrite.is_some() || anonymous_read.is_some();
    let mut own = OwnPolicy::decode(&settings.policy).unwrap_or_default();
    if let Some(sse_c) = sse_c {
        own.sse_c = match sse_c {
            SseC::Allow => Some(keyhole_node::SseC::Allow),
            SseC::Require => Some(keyhole_node::SseC::Require),
            SseC::Forbid => Some(keyhole_node::SseC::Forbid),
            SseC::Default => None,
        };
    }
    if let Some(pin) = pin {
        own.pins = pins(pin)?;
    }
    if let Some(allowed) = rekey_by_overwrite {
        own.forbids_rekeying = match allowed {
            Allowed::Allow => Some(false),
            Allowed::Forbid => Some(true),
            Allowed::Default => None,
        };
    }
    if let Some(anonymous) = anonymous_read {
        own.anonymous_read = match anonymous {
            Anonymous::Allow => Some(true),
            Anonymous::Forbid => Some(false),
            Anonymous::Default => None,
        };
    }
    if sets_policy {
        settings.policy = own.encode();
    }
    Ok(())
}

/// Parses key IDs.
fn pins(texts: &[String]) -> Result<Vec<[u8; 16]>, Refusal> {
    if texts.len() > PINS_MAX {
        return Err(Refusal::TooManyPins(texts.len()));
    }
    let pin = |text: &String| {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map(|()| id).map_err(|_| Refusal::InvalidPin(text.clone()))
    };
    texts.iter().map(pin).collect()
}

/// Reports progress every [`TICK`].
struct ProgressTicker<'a, R> {
    replies: &'a mut R,
    next: Instant,
}

impl<'a, R: Replies> ProgressTicker<'a, R> {
    fn new(replies: &'a mut R) -> Self {
        ProgressTicker { replies, next: Instant::now() + TICK }
    }

    /// Awaits some work while reporting progress; drops the work if the client has disconnected.
    async fn during<T>(&mut self, work: impl Future<Output = T>, bytes: impl Fn() -> u64) -> io::Result<T> {
        let mut work = pin!(work);
        loop {
            // Biased, so that a sequence of short steps does not starve the progress replies.
            tokio::select! {
                biased;
                () = sleep_until(self.next) => {
                    self.replies.send(Reply::Progress { bytes: bytes() }).await?;
                    self.next = Instant::now() + TICK;
                }
                result = &mut work => return Ok(result),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_lock_is_described_by_its_default_retention() {
        let lock = |mode, period| BucketLock { default: Some(DefaultRetention { mode, period }) };
        for (lock, expected) in [
            (BucketLock { default: None }, "enabled"),
            (lock(RetentionMode::Compliance, RetentionPeriod::Days(30)), "compliance 30 days"),
            (lock(RetentionMode::Governance, RetentionPeriod::Years(7)), "governance 7 years"),
        ] {
            assert_eq!(object_lock(&lock), expected);
        }
    }
}
