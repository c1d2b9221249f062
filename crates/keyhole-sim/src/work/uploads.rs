//! Uploads: creation, parts, completion, abort.

use keyhole_log::{CompleteUpload, Condition, CreateUpload, Error, PutPart, UploadRef};

use super::{Answer, Client, Since};
use crate::model::{Piece, Register, Version, digest, etag, object_head, opaque, part_checksums, tags, upload_id};

/// Number of part numbers of the workload.
const PARTS: u64 = 4;

/// Maximum length of a part description in bytes.
const PART_CHECKSUM_MAX: usize = keyhole_log::limits::PART_CHECKSUM_MAX;

impl Client {
    pub(super) async fn create_upload(&mut self, bucket: &'static str, key: &'static str) {
        let id = self.world.model.borrow_mut().number();
        let since = self.since();
        self.world.model.borrow_mut().begin_upload(id, id, bucket, key, since.tick);
        let create = CreateUpload {
            bucket: bucket.into(),
            key: key.into(),
            id: upload_id(id),
            head: object_head(id),
            tags: tags(id),
            sealed: id.is_multiple_of(2),
            time_ms: self.time(id),
            declared: id.is_multiple_of(3).then_some((3, 1)),
        };
        let log = self.log.clone();
        let answer = self.patiently(log.create_upload(create)).await;
        self.say(|| format!("create upload {id} of {bucket}/{key}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let lacks = model.may_lack_bucket(bucket, since.tick);
        let exceeds = model.may_exceed(bucket, since.tick);
        let exists = &mut model.uploads.get_mut(&id).expect("it has just begun").exists;
        match answer {
            Ok(()) => {
                self.acknowledged(&since);
                exists.acknowledge(id, now, durable);
            }
            Err(error) => {
                exists.refuse_or_shadow(id, now, durable || judged.is_some());
                let legal = match error {
                    Error::NoSuchBucket => lacks,
                    Error::QuotaExceeded => exceeds,
                    _ => judged.is_some(),
                };
                assert!(legal, "create upload: {error}");
            }
        }
    }

    /// Picks an upload that may exist.
    fn upload(&mut self) -> Option<(u64, UploadRef)> {
        let now = self.world.clock.tick();
        let mut model = self.world.model.borrow_mut();
        let there = model.uploads.iter().filter(|(_, upload)| upload.exists.may_be(now, |there| *there));
        let there: Vec<u64> = there.map(|(id, _)| *id).collect();
        if there.is_empty() {
            return None;
        }
        let id = *self.random.pick(&there);
        let durable = model.durable;
        let upload = model.uploads.get_mut(&id)?;
        let bucket = upload.bucket;
        match self.log.upload(bucket, upload.key, &upload_id(id)) {
            Ok(found) => {
                if found.is_none() {
                    model.vanish_upload(id, now, now);
                }
                let upload = model.uploads.get_mut(&id)?;
                let seen = upload.exists.observe(now, now, durable, 0, |there| *there == found.is_some());
                assert!(seen, "upload {id} is {found:?}, may be there: {:?}", upload.exists.legal(false));
                Some((id, found?))
            }
            Err(error) => {
                assert!(matches!(error, Error::NoSuchBucket) && model.may_lack_bucket(bucket, now), "upload: {error}");
                None
            }
        }
    }

    /// Returns whether an operation may fail because the upload is missing.
    fn may_lack_upload(&self, id: u64, since: &Since, but: u64) -> bool {
        let mut model = self.world.model.borrow_mut();
        let upload = &model.uploads[&id];
        let bucket = upload.bucket;
        let lacks = upload.exists.may_be(since.tick, |there| !there) || model.ring;
        lacks || upload.exists.is_busy(since.tick, but) || model.may_lack_bucket(bucket, since.tick)
    }

    fn is_upload_busy(&self, id: u64, since: &Since, but: u64) -> bool {
        let model = self.world.model.borrow();
        model.ring || model.uploads[&id].exists.is_busy(since.tick, but)
    }

    pub(super) async fn put_part(&mut self) {
        let content = self.content();
        let Some(body) = self.body(content).await else { return };
        let Some((upload, reference)) = self.upload() else { return };
        let number = 1 + self.random.below(PARTS) as u16;
        let id = self.world.model.borrow_mut().number();
        let piece = Piece { number, content, etag: digest(id), salt: [id as u8; 24] };
        let since = self.since();
        {
            let mut model = self.world.model.borrow_mut();
            model.pieces.insert(id, piece);
            let upload = model.uploads.get_mut(&upload).expect("uploads stay as long as the process");
            let part = upload.parts.entry(number).or_insert_with(|| Register::new(None));
            part.begin(id, Some(id), since.tick);
            upload.attempts.entry(number).or_default().push(id);
        }
        let put = PutPart {
            upload: reference,
            number,
            content: body,
            salt: piece.salt,
            etag: piece.etag,
            size: content.len,
            time_ms: self.time(id),
            checksums: opaque(id, PART_CHECKSUM_MAX),
        };
        let log = self.log.clone();
        let answer = self.patiently(log.put_part(put)).await;
        self.say(|| format!("part {number} of upload {upload} = {id}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        if let Err(error) = &answer {
            let legal = match error {
                // `NoSuchBucket` if the bucket was deleted while the part was in flight.
                Error::NoSuchUpload | Error::NoSuchBucket => self.may_lack_upload(upload, &since, 0),
                Error::Conflict => self.is_upload_busy(upload, &since, 0),
                Error::QuotaExceeded => {
                    let model = self.world.model.borrow();
                    model.may_exceed(model.uploads[&upload].bucket, since.tick)
                }
                _ => judged.is_some(),
            };
            assert!(legal, "part {number} of upload {upload}: {error}");
        }
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        if answer.is_ok() {
            let bucket = model.uploads[&upload].bucket;
            let but = ("", Some((upload, number)));
            let room = model.may_have_room(bucket, since.tick, content.len, but);
            assert!(room, "{bucket}: there is no room for part {number} of upload {upload} by its quota");
        }
        let durable = model.durable;
        let upload = model.uploads.get_mut(&upload).expect("uploads stay as long as the process");
        let part = upload.parts.get_mut(&number).expect("it has begun");
        if answer.is_ok() {
            self.acknowledged(&since);
            part.acknowledge(id, now, durable);
            assert!(upload.exists.observe(since.tick, now, durable, 0, |there| *there), "a part of nothing");
        } else {
            // If it was written, a crash may undo the end of its upload.
            part.refuse_or_shadow(id, now, durable || judged.is_some());
        }
    }

    /// Returns the parts of an upload, with occasional omissions; `None` if it has no parts.
    fn parts(&mut self, upload: u64, reference: &UploadRef) -> Option<Vec<(Piece, keyhole_log::Part)>> {
        let since = self.since();
        let part_checksums = match self.log.parts(reference, 0, 100) {
            Ok(part_checksums) => part_checksums,
            Err(error) => {
                assert!(matches!(error, Error::NoSuchUpload) && self.may_lack_upload(upload, &since, 0), "{error}");
                return None;
            }
        };
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let found: Vec<_> = part_checksums.iter().map(|info| model.recognise_part(info)).collect();
        for (number, part) in &mut model.uploads.get_mut(&upload)?.parts {
            let found = found.iter().find(|(_, piece)| piece.number == *number).map(|(id, _)| *id);
            let seen = part.observe(since.tick, since.tick, durable, 0, |value| *value == found);
            assert!(seen, "part {number} of {upload} is {found:?}, may be {:?}", part.legal(false));
        }
        // Earlier attempts can be used as well.
        let attempts = self.log.part_attempts(reference).expect("the parts of the upload are there");
        let pieces = part_checksums.into_iter().filter(|_| !self.random.chance(10)).collect::<Vec<_>>();
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|current| {
                let of_number: Vec<_> = attempts.iter().filter(|info| info.number == current.number).collect();
                assert_eq!(of_number.last(), Some(&&current), "the newest attempt is the current one");
                let info = if self.random.chance(70) { current } else { (*self.random.pick(&of_number)).clone() };
                (model.recognise_part(&info).1, info.part)
            })
            .collect();
        (!pieces.is_empty()).then_some(pieces)
    }

    pub(super) async fn complete_upload(&mut self) {
        let Some((upload, reference)) = self.upload() else { return };
        let chosen = self.since();
        let Some(parts) = self.parts(upload, &reference) else { return };
        if self.random.chance(20) {
            // Gives other clients time to replace a part.
            let time = self.random.below(self.world.plan.faults.slowness * 2 + 1);
            self.world.clock.sleep(time).await;
        }
        let (bucket, key) = {
            let model = self.world.model.borrow();
            (model.uploads[&upload].bucket, model.uploads[&upload].key)
        };
        let condition = self.condition(bucket, key);
        let id = self.world.model.borrow_mut().number();
        let (pieces, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let parts_count = pieces.len() as u16;
        let sealed = reference.sealed;
        let version = Version {
            name: (bucket, key),
            parts: parts_count,
            pieces,
            sealed,
            upload: Some(upload),
            tags: vec![id],
            part_checksums: Some(id),
        };
        let complete = CompleteUpload {
            upload: reference,
            parts,
            head: object_head(id),
            tags: tags(id),
            part_checksums: part_checksums(id),
            bound: id % 2 == 1,
            etag: etag(id, version.parts),
            size: version.size(),
            time_ms: self.time(id),
            condition,
        };
        let since = self.since();
        {
            let mut model = self.world.model.borrow_mut();
            model.versions.insert(id, version);
            model.key(bucket, key).begin(id, Some(id), since.tick);
            let upload = model.uploads.get_mut(&upload).expect("uploads stay as long as the process");
            upload.exists.begin(id, false, since.tick);
            upload.completions.push((id, id));
        }
        let log = self.log.clone();
        let answer = self.patiently(log.complete_upload(complete)).await;
        self.say(|| format!("complete upload {upload}: {bucket}/{key} = {id} if {condition:?}: {answer:?}"));
        match answer {
            None => {}
            Some(Ok(())) => {
                self.acknowledged(&since);
                self.written(bucket, key, id, condition, &since);
                let now = self.now();
                let mut model = self.world.model.borrow_mut();
                let durable = model.durable;
                let exists = &mut model.uploads.get_mut(&upload).expect("it is there").exists;
                assert!(exists.observe(since.tick, now, durable, id, |there| *there), "completed twice");
                exists.acknowledge(id, now, durable);
            }
            Some(Err(error)) => self.not_completed((upload, id), (bucket, key), condition, (&chosen, &since), &error),
        }
    }

    fn not_completed(
        &self,
        (upload, id): (u64, u64),
        (bucket, key): (&'static str, &'static str),
        condition: Condition,
        (chosen, since): (&Since, &Since),
        error: &Error,
    ) {
        let legal = match error {
            Error::NoSuchUpload => self.may_lack_upload(upload, since, id),
            Error::Conflict => self.is_upload_busy(upload, since, id),
            Error::PartChanged => {
                let mut model = self.world.model.borrow_mut();
                let upload = model.uploads.get_mut(&upload).expect("it is there");
                upload.parts.values().any(|part| part.is_busy(chosen.tick, 0))
            }
            _ => false,
        };
        if legal {
            let now = self.now();
            self.world.model.borrow_mut().key(bucket, key).refuse(id, now);
        } else {
            // The remaining errors are those of any write of the name.
            self.not_written(bucket, key, id, condition, since, error);
        }
        if !matches!(self.judge(error, since), Some(Answer::Unknown)) {
            let now = self.now();
            let mut model = self.world.model.borrow_mut();
            model.uploads.get_mut(&upload).expect("it is there").exists.refuse(id, now);
        }
    }

    pub(super) async fn abort_upload(&mut self) {
        if let Some((upload, _)) = self.upload() {
            self.abort(upload).await;
        }
    }

    pub(super) async fn abort(&mut self, upload: u64) {
        let id = self.world.model.borrow_mut().number();
        let since = self.since();
        let (bucket, key) = {
            let mut model = self.world.model.borrow_mut();
            let upload = model.uploads.get_mut(&upload).expect("it is there");
            upload.exists.begin(id, false, since.tick);
            (upload.bucket, upload.key)
        };
        let log = self.log.clone();
        let answer = self.patiently(log.abort_upload(bucket, key, &upload_id(upload), self.time(id))).await;
        self.say(|| format!("abort upload {upload}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        if let Err(error) = &answer {
            let legal = match error {
                Error::NoSuchUpload | Error::NoSuchBucket => self.may_lack_upload(upload, &since, id),
                Error::Conflict => self.is_upload_busy(upload, &since, id),
                _ => judged.is_some(),
            };
            assert!(legal, "abort upload {upload}: {error}");
        }
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let exists = &mut model.uploads.get_mut(&upload).expect("it is there").exists;
        if answer.is_ok() {
            self.acknowledged(&since);
            exists.acknowledge(id, now, durable);
        } else {
            exists.refuse(id, now);
        }
    }
}
