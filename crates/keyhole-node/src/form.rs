//! PostObject: uploads from HTML forms. The file passes through the inbox before it gets to blocks,
//! because its end is only recognized by the boundary.

use std::ops::Range;

use keyhole_log::Etag;
use keyhole_s3::auth;
use keyhole_s3::body::{BodyDecoder, Digester, Digests, Wanted};
use keyhole_s3::form::{self, FormReader, Policy, Step, Success};
use keyhole_s3::limits::FORM_FIELDS_MAX;
use keyhole_s3::ops::{self, Operation};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::access::Right;
use crate::body_memory::BodyMemory;
use crate::failure::Result;
use crate::http::{Connection, Receiver, Response};
use crate::ingest::Ingested;
use crate::limits::{FORM_MAX, PUT_MAX};
use crate::link::Client;
use crate::node::Node;
use crate::plan::WriteKind;
use crate::platform::{Platform, Stream};
use crate::request::{ObjectName, Received, Request};
use crate::response_headers::quoted;
use crate::source::BodySource;

impl<P: Platform> Node<P> {
    /// Handles PostObject: reads the fields, verifies the signature of the policy and its
    /// conditions, then continues as a PUT.
    pub(crate) async fn post_object(
        &self,
        connection: &mut Connection<P::Stream>,
        received: Received<'_>,
    ) -> Result<Response<'_, P>> {
        let Received { head, request_id, account } = received;
        let address = self.client_address(connection, Some(head));
        let (target, operation) = ops::route(head, &self.config.host_names)?;
        if operation != Operation::PostObject {
            return Err(ErrorCode::AccessDenied.into());
        }
        self.begin(account, &operation);
        let target = account.target.get_or_init(|| target);
        form::refuse_headers(head)?;
        let decoder = BodyDecoder::new(head, auth::unsigned_body(), Wanted::None, FORM_MAX)?;
        let mut file = FormFile::new(Receiver::new(connection, decoder), FormReader::new(head)?);
        let link = account.link();
        let fields_memory = self.admission.form(FORM_FIELDS_MAX, link).await?;
        let form = file.receive_fields().await?;
        let named = form.key();
        if let (Some(bucket), Ok(key)) = (target.bucket.as_deref(), &named) {
            account.record_form_key(key);
            self.record_if_sealed(account, ObjectName { bucket, key }, None);
        }
        let caller = self.authenticate_form(&form).inspect_err(|_| {
            if form.fields().get("x-amz-signature").is_some() {
                account.record_refused_signature();
            }
        })?;
        let caller = account.caller.get_or_init(|| caller);
        link.client.set(Client::of(caller.access_key(), address));
        let bucket = target.bucket.as_deref().ok_or(ErrorCode::InvalidBucketName)?;
        let key = named?;
        let policy = Policy::check(&form, bucket, &key, self.host.now_ms())?;
        caller.require(Right::Write, bucket, &key)?;
        let success = form.success();
        let tags = form.tags()?;

        // The rest is a PUT with the form fields as headers.
        let fields = form.into_head();
        ops::check_headers(&fields, &operation)?;
        let received = Received { head: &fields, request_id, account };
        let request = Request::new(received, target, caller, auth::unsigned_body());
        request.record_key_headers();
        ops::is_sealed_transfer(&fields, &operation)?;
        let name = ObjectName { bucket, key: &key };
        let mut plan = self.plan_write(&request, name, WriteKind::Form(tags)).await?;
        file.expect(Digester::new(&fields, plan.wanted())?, &policy);
        // Nothing is held while the body waits for its memory.
        drop(fields_memory);
        let mut memory = BodyMemory::new(&self.admission, link.clone());
        let stored = self.ingest(&mut file, &mut memory, plan.sealing()).await?;
        let admitted = memory.written();
        let digests = file.finish().await?;
        self.record_if_sealed(account, name, None);
        let committed = self.commit(&mut plan, Ingested { stored, digests, admitted }).await?;
        let response = self.form_response(&success, &head.path, name, &committed.etag);
        let response = self.with_expiration(response, bucket, &key, committed.size, committed.time_ms);
        Ok(committed.describe_stored(response, plan.customer_key.as_deref()))
    }

    /// Builds the response to a successful form upload.
    fn form_response(&self, success: &Success, path: &str, name: ObjectName<'_>, etag: &Etag) -> Response<'_, P> {
        let ObjectName { bucket, key } = name;
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
}

/// The file of a form, as a body to store.
struct FormFile<'c, S> {
    receiver: Receiver<'c, S>,
    form: FormReader,
    digester: Option<Digester>,
    /// Minimum length of the file.
    len_min: u64,
    /// Maximum length of the file.
    len_max: u64,
    /// Received bytes of the file.
    len: u64,
}

impl<'c, S: Stream> FormFile<'c, S> {
    fn new(receiver: Receiver<'c, S>, form: FormReader) -> Self {
        FormFile { receiver, form, digester: None, len_min: 0, len_max: PUT_MAX, len: 0 }
    }

    /// Receives the fields before the file.
    async fn receive_fields(&mut self) -> Result<form::Form> {
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
        self.len_min = policy.min_len;
        self.len_max = policy.max_len.unwrap_or(PUT_MAX).min(PUT_MAX);
    }

    /// Counts received bytes of the file and enforces the maximum.
    fn count(&mut self, len: usize) -> Result<()> {
        self.len += len as u64;
        if self.len <= self.len_max {
            return Ok(());
        }
        Err(Error::new(ErrorCode::EntityTooLarge)
            .with_field("ProposedSize", self.len.to_string())
            .with_field("MaxSizeAllowed", self.len_max.to_string())
            .into())
    }

    /// Receives the rest of the form after the file and verifies the declared digests.
    async fn finish(mut self) -> Result<Digests> {
        if self.len < self.len_min {
            return Err(Error::new(ErrorCode::EntityTooSmall)
                .with_field("ProposedSize", self.len.to_string())
                .with_field("MinSizeAllowed", self.len_min.to_string())
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

impl<S: Stream> BodySource<S::Buf> for FormFile<'_, S> {
    fn remaining(&self) -> u64 {
        u64::from(!self.form.is_behind_file())
    }

    /// The length of the rest of the form: the length of the file is not known in advance.
    fn bound(&self) -> u64 {
        self.receiver.remaining()
    }

    fn leave_md5(&mut self) -> bool {
        self.digester.as_mut().is_some_and(Digester::leave_md5)
    }

    fn set_md5(&mut self, md5: [u8; 16]) {
        if let Some(digester) = &mut self.digester {
            digester.set_md5(md5);
        }
    }

    /// Fills until it is known whether the file continues.
    async fn fill(&mut self, mut buf: S::Buf, at: Range<usize>) -> (Result<usize>, S::Buf) {
        let start = at.start;
        let limit = at.end;
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
