//! PostObject: uploads from HTML forms. The file passes through the inbox before it gets to blocks,
//! because its end is only recognized by the boundary.

use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_log::{Disk, Etag};
use keyhole_s3::auth;
use keyhole_s3::body::{BodyDecoder, Digester, Digests, Wanted};
use keyhole_s3::form::{self, Form, FormReader, Policy, Step, Success};
use keyhole_s3::http::{RequestHead, Response};
use keyhole_s3::ops::{self, Operation};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::access::{Caller, GoodAt, Right};
use crate::failure::Result;
use crate::heads::ObjectHead;
use crate::io::{Env, Stream};
use crate::limits::{FORM_MAX, PUT_MAX};
use crate::node::{Node, Request};
use crate::object::{NewObject, quoted, with_checksums, with_sse, write_condition};
use crate::observe::Account;
use crate::request::{Connection, Payload, Receiver};
use crate::upload::Sealing;

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Handles PostObject: reads the fields, verifies the signature of the policy and its
    /// conditions, then continues as a PUT.
    pub(crate) async fn post_object<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        head: &RequestHead,
        request_id: &str,
        account: &Account,
    ) -> Result<Response> {
        let (target, operation) = ops::route(head, &self.config.host_names)?;
        if operation != Operation::PostObject {
            return Err(ErrorCode::AccessDenied.into());
        }
        self.begins(account, &operation);
        let target = account.target.get_or_init(|| target);
        form::refuse_headers(head)?;
        let secure = self.is_secure(connection, head);
        let decoder = BodyDecoder::new(head, auth::unsigned_body(), Wanted::None, FORM_MAX)?;
        let mut file = FormFile::new(Receiver::new(connection, decoder), FormReader::new(head)?);
        let form = file.receive_fields().await?;
        let caller = self.authenticate_form(&form)?;
        let caller = account.caller.get_or_init(|| caller);
        let bucket = target.bucket.clone().ok_or(ErrorCode::InvalidBucketName)?;
        let key = form.key()?;
        let policy = Policy::check(&form, &bucket, &key, self.env.now_ms())?;
        caller.require(Right::Write, &bucket, &key)?;
        form.refuse_unknown()?;
        let (success, tags) = (form.success(), form.tags()?);

        // The rest is a PUT with the form fields as headers.
        let fields = form.into_head();
        let payload = auth::unsigned_body();
        let request = Request { head: &fields, target, caller, secure, request_id, payload, account };
        ops::is_sealed_transfer(&fields, &operation)?;
        let of_bucket = self.policy(&bucket)?;
        let customer_key = self.key_for_write(&request, &bucket, &of_bucket)?;
        let metadata = ops::metadata(&fields)?;
        self.require_bucket(&bucket)?;
        let (condition, sealed) = (write_condition(&request)?, customer_key.is_some());
        let name = (&bucket[..], &key[..]);
        let guard = self.guard(&request, name, &of_bucket, customer_key.as_ref(), sealed, condition).await?;
        let wanted = Wanted::for_etag(customer_key.is_some());
        file.expect(Digester::new(&fields, wanted)?, &policy);
        let admitted = self.admission.upload(file.bound()).await?;

        let data_key = customer_key.is_some().then(|| self.data_key());
        let sealing = data_key.as_ref().map(|data_key| Sealing { data_key, part_number: 0 });
        let stored = self.store(&mut file, sealing).await?;
        let _held = admitted.written();
        let digests = file.finish().await?;
        let object_head = ObjectHead {
            plaintext_length: data_key.is_some().then_some(stored.size),
            data_key,
            metadata,
            checksums: digests.checksums,
            ..ObjectHead::default()
        };
        let new = NewObject { stored, head: object_head, tags: tags.to_bytes(), md5: digests.md5, guard };
        let (etag, time_ms) = self.put(&bucket, &key, new, customer_key.as_ref()).await?;
        let response = answer(&success, &head.path, &bucket, &key, &etag);
        let response = self.with_expiration(response, &bucket, &key, time_ms);
        Ok(with_checksums(with_sse(response, customer_key.as_ref()), &digests.checksums))
    }

    /// Verifies the signature of a form's policy. Returns the caller.
    fn authenticate_form(&self, form: &Form) -> Result<Caller> {
        let (access, now_ms) = (self.config.access.load(), self.env.now_ms());
        let id = auth::authenticate_form(form.fields(), &GoodAt(&access, now_ms), &self.config.region)?;
        access.caller(&id, now_ms)
    }
}

/// Builds the response to a successful form upload.
fn answer(success: &Success, path: &str, bucket: &str, key: &str, etag: &Etag) -> Response {
    let location = format!("{}/{}", path.trim_end_matches('/'), form::encode_path(key));
    let response = match success {
        Success::Redirect(url) => {
            return Response::new(303).header("Location", form::redirect(url, bucket, key, &etag.to_string()));
        }
        Success::Status(201) => Response::xml(201, xml::post_result(&location, bucket, key, &etag.to_string())),
        Success::Status(status) => Response::new(*status),
    };
    response.header("Location", location).header("ETag", quoted(etag))
}

/// The file of a form, as a payload.
struct FormFile<'c, S> {
    receiver: Receiver<'c, S>,
    form: FormReader,
    digester: Option<Digester>,
    /// Minimum and maximum length of the file.
    bounds: (u64, u64),
    len: u64,
}

impl<'c, S: Stream> FormFile<'c, S> {
    fn new(receiver: Receiver<'c, S>, form: FormReader) -> Self {
        FormFile { receiver, form, digester: None, bounds: (0, PUT_MAX), len: 0 }
    }

    /// Receives the fields before the file.
    async fn receive_fields(&mut self) -> Result<Form> {
        while !self.form.is_at_file() {
            match self.form.step(self.receiver.buffered())? {
                Step::Skip(len) => self.receiver.take(len),
                Step::Need => self.receiver.receive_more().await?,
                Step::File(_) | Step::Done => return Err(ErrorCode::InternalError.into()),
            }
        }
        Ok(self.form.take_form())
    }

    /// Sets the digests to compute and the length limits of the file.
    fn expect(&mut self, digester: Digester, policy: &Policy) {
        self.digester = Some(digester);
        self.bounds = (policy.min_len, policy.max_len.unwrap_or(PUT_MAX).min(PUT_MAX));
    }

    /// Counts received bytes of the file and enforces the maximum.
    fn count(&mut self, len: usize) -> Result<()> {
        self.len += len as u64;
        match self.len <= self.bounds.1 {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::EntityTooLarge)
                .with_field("ProposedSize", self.len.to_string())
                .with_field("MaxSizeAllowed", self.bounds.1.to_string())
                .into()),
        }
    }

    /// Receives the rest of the form after the file and verifies the declared digests.
    async fn finish(mut self) -> Result<Digests> {
        if self.len < self.bounds.0 {
            return Err(Error::new(ErrorCode::EntityTooSmall)
                .with_field("ProposedSize", self.len.to_string())
                .with_field("MinSizeAllowed", self.bounds.0.to_string())
                .into());
        }
        loop {
            match self.form.step(self.receiver.buffered())? {
                Step::Skip(len) => self.receiver.take(len),
                Step::Need => self.receiver.receive_more().await?,
                Step::Done => break,
                Step::File(_) => return Err(ErrorCode::InternalError.into()),
            }
        }
        loop {
            match self.receiver.buffered().len() {
                0 if self.receiver.remaining() == 0 => break,
                0 => self.receiver.receive_more().await?,
                len => self.receiver.take(len),
            }
        }
        self.receiver.finish().await?;
        Ok(self.digester.ok_or(ErrorCode::InternalError)?.finish()?)
    }
}

impl<S: Stream> Payload<S::Buf> for FormFile<'_, S> {
    fn remaining(&self) -> u64 {
        u64::from(!self.form.is_behind_file())
    }

    /// The length of the rest of the form: the length of the file is not known in advance.
    fn bound(&self) -> u64 {
        self.receiver.remaining()
    }

    /// Fills until it is known whether the file continues.
    async fn fill(&mut self, mut buf: S::Buf, at: Range<usize>) -> (Result<usize>, S::Buf) {
        let Range { start, end: limit } = at;
        let mut filled = start;
        while !self.form.is_behind_file() {
            let input = self.receiver.buffered();
            let outcome = match self.form.step(input) {
                Ok(Step::File(_)) if filled == limit => break,
                Ok(Step::File(len)) => {
                    let len = len.min(limit - filled);
                    S::slice(&mut buf, filled..filled + len).copy_from_slice(&input[..len]);
                    if let Some(digester) = &mut self.digester {
                        digester.update(&input[..len]);
                    }
                    self.receiver.take(len);
                    filled += len;
                    self.count(len)
                }
                Ok(Step::Skip(len)) => {
                    self.receiver.take(len);
                    Ok(())
                }
                Ok(Step::Need) => self.receiver.receive_more().await,
                Ok(Step::Done) => break,
                Err(error) => Err(error.into()),
            };
            if let Err(failure) = outcome {
                return (Err(failure), buf);
            }
        }
        (Ok(filled - start), buf)
    }
}
