//! Buckets: creating, deleting, emptying.

use keyhole_log::Error;

use super::{Answer, Client};
use crate::model::KEYS;

impl Client {
    pub(super) async fn create_bucket(&mut self, bucket: &'static str) {
        let id = self.world.model.borrow_mut().number();
        let since = self.since();
        self.world.model.borrow_mut().bucket(bucket).begin(id, Some(id), since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.create_bucket(bucket, id)).await;
        self.say(|| format!("create bucket {bucket} = {id}: {answer:?}"));
        let Some(answer) = answer else { return };
        let judged = answer.as_ref().err().and_then(|error| self.judge(error, &since));
        if judged == Some(Answer::Unknown) {
            return;
        }
        let (now, mut model) = (self.now(), self.world.model.borrow_mut());
        let durable = model.durable;
        let register = model.bucket(bucket);
        let busy = register.is_busy(since.tick, id);
        match answer {
            Ok(true) => {
                self.acknowledged(&since);
                let seen = register.observe(since.tick, now, durable, id, Option::is_none);
                assert!(seen, "bucket {bucket} was there: {:?}", register.legal(false));
                register.acknowledge(id, now, durable);
                for key in KEYS {
                    let register = model.key(bucket, key);
                    let seen = register.observe(since.tick, now, durable, 0, Option::is_none);
                    assert!(seen, "{bucket}/{key} was there before its bucket: {:?}", register.legal(false));
                }
            }
            Ok(false) => {
                register.refuse(id, now);
                let seen = register.observe(since.tick, now, durable, 0, Option::is_some);
                assert!(seen, "bucket {bucket} was not there");
            }
            Err(error) => {
                register.refuse(id, now);
                let conflict = matches!(error, Error::Conflict) && busy;
                assert!(judged.is_some() || conflict, "create bucket {bucket}: {error}");
            }
        }
    }

    pub(super) async fn delete_bucket(&mut self, bucket: &'static str) {
        let id = self.world.model.borrow_mut().number();
        let since = self.since();
        self.world.model.borrow_mut().begin_bucket_deletion(id, bucket, since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.delete_bucket(bucket, id)).await;
        self.say(|| format!("delete bucket {bucket} = {id}: {answer:?}"));
        let Some(answer) = answer else { return };
        let judged = answer.as_ref().err().and_then(|error| self.judge(error, &since));
        if judged == Some(Answer::Unknown) {
            return;
        }
        let (now, mut model) = (self.now(), self.world.model.borrow_mut());
        let durable = model.durable;
        let busy = model.bucket(bucket).is_busy(since.tick, id);
        let mut keys = KEYS.map(|key| (bucket, key)).into_iter();
        match answer {
            Ok(()) => {
                self.acknowledged(&since);
                assert!(model.bucket(bucket).observe(since.tick, now, durable, id, Option::is_some), "no {bucket}");
                model.end_bucket_deletion(id, bucket, now, true);
                for (bucket, key) in keys {
                    let register = model.key(bucket, key);
                    let seen = register.observe(since.tick, now, durable, 0, Option::is_none);
                    assert!(seen, "{bucket} is deleted, but {key} was there: {:?}", register.legal(false));
                }
            }
            Err(error) => {
                model.end_bucket_deletion(id, bucket, now, false);
                let legal = match &error {
                    Error::BucketNotEmpty => keys.any(|(bucket, key)| {
                        let register = model.key(bucket, key);
                        register.may_be(since.tick, Option::is_some) || register.is_busy(since.tick, 0)
                    }),
                    Error::NoSuchBucket => model.bucket(bucket).may_be(since.tick, Option::is_none) || busy,
                    Error::Conflict => busy,
                    _ => judged.is_some(),
                };
                assert!(legal, "delete bucket {bucket}: {error}");
            }
        }
    }

    /// Deletes everything in a bucket, and the bucket, if nobody comes in between.
    pub(super) async fn purge(&mut self, bucket: &'static str) {
        for key in KEYS {
            self.delete(bucket, key).await;
        }
        self.delete_bucket(bucket).await;
    }
}
