//! Buckets: creation, deletion, purge.

use keyhole_log::limits::{CHECKPOINTS_KEPT, SEGMENTS_START};
use keyhole_log::{Condition, Error};

use super::Client;
use super::settings::created_tags;
use crate::model::{BUCKETS, KEYS, upload_id};
use crate::plan::Bodies;

impl Client {
    pub(super) async fn create_bucket(&mut self, bucket: &'static str) {
        let id = self.world.model.borrow_mut().number();
        let since = self.since();
        self.world.model.borrow_mut().bucket(bucket).begin(id, Some(id), since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.create_tagged_bucket(bucket, id, &created_tags(id))).await;
        self.say(|| format!("create bucket {bucket} = {id}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
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
                    model.vanish(bucket, key, since.tick, now);
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
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let busy = model.bucket(bucket).is_busy(since.tick, id);
        let mut keys = KEYS.map(|key| (bucket, key)).into_iter();
        match answer {
            Ok(()) => {
                self.acknowledged(&since);
                assert!(model.bucket(bucket).observe(since.tick, now, durable, id, Option::is_some), "no {bucket}");
                model.end_bucket_deletion(id, bucket, now, true);
                for (bucket, key) in keys {
                    model.vanish(bucket, key, since.tick, now);
                    let register = model.key(bucket, key);
                    let seen = register.observe(since.tick, now, durable, 0, Option::is_none);
                    assert!(seen, "{bucket} is deleted, but {key} was there: {:?}", register.legal(false));
                }
            }
            Err(error) => {
                model.end_bucket_deletion(id, bucket, now, false);
                // A ring drops objects by itself: a current one may be on its way out.
                let is_dropping = self.world.plan.ring;
                let legal = match &error {
                    Error::BucketNotEmpty => {
                        is_dropping
                            || keys.any(|(bucket, key)| {
                                let register = model.key(bucket, key);
                                register.may_be(since.tick, Option::is_some) || register.is_busy(since.tick, 0)
                            })
                    }
                    Error::NoSuchBucket => model.bucket(bucket).may_be(since.tick, Option::is_none) || busy,
                    Error::Conflict => busy,
                    _ => judged.is_some(),
                };
                assert!(legal, "delete bucket {bucket}: {error}");
            }
        }
    }

    /// Deletes the content of a bucket, and the bucket unless another client writes to it
    /// meanwhile.
    pub(super) async fn purge(&mut self, bucket: &'static str) {
        for key in KEYS {
            self.delete_if(bucket, key, Condition::None).await;
        }
        self.delete_bucket(bucket).await;
    }

    /// Deletes everything. Then each segment that is not open must have room for a body.
    pub async fn empty_and_fill(mut self) {
        self.impatience = 0;
        for bucket in BUCKETS {
            let uploads: Vec<u64> = self.world.model.borrow().uploads.keys().copied().collect();
            for id in uploads {
                let key = self.world.model.borrow().uploads[&id].key;
                if self.log.upload(bucket, key, &upload_id(id)).is_ok_and(|found| found.is_some()) {
                    self.abort(id).await;
                }
            }
            self.purge(bucket).await;
        }
        self.purge_versions().await;
        let usage = self.usage();
        assert_eq!((usage.objects, usage.uploads, usage.bodies), (0, 0, 0), "after everything was deleted: {usage:?}");
        self.create_bucket(BUCKETS[0]).await;
        let len = self.world.plan.segment_len;
        let most = (usage.capacity - SEGMENTS_START - usage.reserved) / len;
        // Open segments stay as they are: two per worker and for the cleaner, and those with the
        // checkpoints.
        let open = 2 * (self.world.opening.get().workers as u64 + 1) + CHECKPOINTS_KEPT as u64;
        let room = most.saturating_sub(open).max(1) as usize;
        for key in KEYS.into_iter().take(room) {
            let content = self.content_of(Bodies::Same(len * 2 / 5));
            let body = self.body(content).await;
            let Some(body) = body else { panic!("no room for one of {room}: {:?}", self.log.store().stats()) };
            self.put_body(BUCKETS[0], key, content, body).await;
        }
    }
}
