//! Quotas and expiring objects.

use keyhole_log::{BucketSettings, Error};

use super::{Answer, Client};

/// Quotas, in bytes: the size of a few bodies.
const QUOTAS: [u64; 4] = [0, 200_000, 1_000_000, 4_000_000];

/// Maximum ages: the clock counts the operations of a life.
const AGES: [u64; 4] = [0, 10, 50, 200];

/// Returns the tags that a bucket created at this time has from then on.
pub(super) fn created_tags(id: u64) -> Vec<u8> {
    vec![id as u8; id as usize % 4]
}

impl Client {
    pub(super) async fn set_bucket(&mut self, bucket: &'static str) {
        let (id, time) = self.number();
        let some = |value: u64| (value > 0).then_some(value);
        let quota = if self.random.chance(50) { 0 } else { *self.random.pick(&QUOTAS) };
        let policy = vec![id as u8; id as usize % 9];
        let lifecycle = vec![id as u8; id as usize % 5 * 1000].into();
        let cors = vec![id as u8; id as usize % 3 * 1000].into();
        // Never empty: the settings differ from those of a new bucket.
        let tags = vec![id as u8; 50 + id as usize % 50].into();
        let expire_ms = some(*self.random.pick(&AGES));
        let settings = BucketSettings {
            quota: some(quota),
            expire_ms,
            policy,
            lifecycle,
            cors,
            tags,
            ..BucketSettings::default()
        };
        let since = self.since();
        self.world.model.borrow_mut().set(bucket).begin(id, settings.clone(), since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.set_bucket(bucket, settings.clone(), time)).await;
        self.say(|| format!("set bucket {bucket} = {settings:?}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let lacks = model.may_lack_bucket(bucket, since.tick);
        let register = model.set(bucket);
        match answer {
            Ok(()) => {
                self.acknowledged(&since);
                register.acknowledge(id, now, durable);
            }
            Err(error) => {
                register.refuse_or_shadow(id, now, durable || judged.is_some());
                assert!(judged.is_some() || (matches!(error, Error::NoSuchBucket) && lacks), "set bucket: {error}");
            }
        }
    }

    pub(super) async fn expire(&mut self) {
        let (op, time) = self.number();
        let since = self.since();
        self.world.model.borrow_mut().begin_expiry(op, since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.expire(time)).await;
        self.say(|| format!("expire at {time}: {answer:?}"));
        let Some(answer) = answer else { return };
        let judged = answer.as_ref().err().map(|error| (error, self.judge(error, &since)));
        match judged {
            Some((_, Some(Answer::Unknown))) => return,
            Some((error, None)) => panic!("expire: {error}"),
            _ => {}
        }
        let now = self.now();
        self.world.model.borrow_mut().end_expiry(op, time, (since.tick, now), answer.is_ok());
    }
}
