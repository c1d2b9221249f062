//! Serves connections: each request from its head to the end of its response.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use keyhole_s3::auth;
use keyhole_s3::body::Wanted;
use keyhole_s3::http::{Persistence, RequestHead};
use keyhole_s3::ops::{self, Operation};
use keyhole_s3::{Error, ErrorCode, form};

use crate::access::Caller;
use crate::failure::{Cause, Failure, Result, slow_down};
use crate::http::{Connection, Receiver, ReplyContext, Response, ResponseSource};
use crate::limits::UNWANTED_BODY_MAX;
use crate::link::Client;
use crate::node::Node;
use crate::observe::{Account, Exchange, Fault};
use crate::platform::{Platform, Stream};
use crate::request::{Received, Request};

/// The action on the connection after an exchange.
enum Next {
    Request,
    Close,
    Abort,
}

/// Returns whether a request may have brought a customer key, also under a wrong name.
fn may_carry_key(head: &RequestHead) -> bool {
    let is_suspect = |name: &str| name.contains("encryption") || name.contains("key");
    form::is_form(head) || head.headers.iter().any(|(name, _)| is_suspect(name))
}

/// The end of an exchange.
struct Ended {
    /// The status of the response; 0 if no complete response was sent.
    status: u16,
    error: Option<ErrorCode>,
    next: Next,
}

impl<P: Platform> Node<P> {
    /// Serves the requests of one connection in order until either side closes it.
    pub async fn serve(self: &Rc<Self>, stream: P::Stream) {
        let mut connection = Connection::new(stream, self.host.clone());
        loop {
            match self.exchange(&mut connection).await {
                Next::Request => {}
                Next::Close => {
                    connection.discard_inbox();
                    return connection.stream.close().await;
                }
                Next::Abort => return connection.stream.abort(),
            }
        }
    }

    /// Serves one request.
    async fn exchange(&self, connection: &mut Connection<P::Stream>) -> Next {
        let head = match connection.request_head().await {
            Ok(None) => return Next::Close,
            Ok(Some(head)) => Ok(head),
            Err(Failure::Reply(error)) => Err(error),
            Err(_) => return Next::Abort,
        };
        let began = self.host.instant();
        let mut request_id = [0; 16];
        hex::encode_to_slice(self.host.random_array::<8>(), &mut request_id).expect("two digits for each byte");
        request_id.make_ascii_uppercase();
        let request_id = std::str::from_utf8(&request_id).expect("digits are text");
        let head_or_none = head.as_ref().ok();
        let is_secure = self.is_secure(connection, head_or_none);
        let account = Account::new(&*self.config.observer, is_secure, connection.link.clone());
        connection.link.client.set(Client::of(None, self.client_address(connection, head_or_none)));
        let result = match &head {
            Ok(head) => {
                let received = Received { head, request_id, account: &account };
                self.dispatch(connection, received).await
            }
            Err(error) => Err(Failure::Reply(error.clone())),
        };
        let result = result.map_err(|failure| self.while_room_is_made(failure));
        let context = ReplyContext {
            request_id,
            resource: head_or_none.map_or("", |head| &head.path),
            now_ms: self.host.now_ms(),
            persistence: match head_or_none {
                Some(head) if connection.is_clean() => head.persistence(),
                _ => Persistence::Close,
            },
            is_head: head_or_none.is_some_and(|head| head.method == "HEAD"),
            cors: head_or_none.map(|head| self.cors_headers(head)).unwrap_or_default(),
        };
        let ended = self.respond(connection, result, &context, &account).await;
        self.report(connection, head_or_none, &context, &account, began, &ended);
        if ended.error.is_some() || account.concerns_sealed() || head_or_none.is_none_or(may_carry_key) {
            self.host.wipe_stack();
        }
        ended.next
    }

    /// Asks the client to come back if the store is full and objects are being evicted.
    fn while_room_is_made(&self, failure: Failure) -> Failure {
        let full = Error::new(ErrorCode::InsufficientStorage);
        match &failure {
            // A full index has another message, and stays full.
            Failure::Reply(error) if error.code == full.code && error.message == full.message => {}
            _ => return failure,
        }
        if self.config.evicted.as_ref().is_some_and(|evicted| evicted.makes_room()) { slow_down() } else { failure }
    }

    /// Reports a completed request to the observer.
    fn report(
        &self,
        connection: &mut Connection<P::Stream>,
        head: Option<&RequestHead>,
        context: &ReplyContext<'_>,
        account: &Account,
        began: Instant,
        ended: &Ended,
    ) {
        let peer = connection.stream.peer();
        let client = self.client_address(connection, head);
        let sealed_objects = account.take_sealed_objects();
        self.config.observer.finished(&Exchange {
            request_id: context.request_id,
            peer,
            client,
            secure: account.is_secure,
            method: head.map_or("-", |head| &head.method),
            resource: context.resource,
            operation: account.operation.get(),
            claimed_operation: account.claimed_operation.get(),
            bucket: account.bucket(),
            key: account.key(),
            access_key: account.caller.get().and_then(Caller::access_key),
            sse_c: account.concerns_sealed(),
            // A chunk of the body has a signature of its own.
            is_unauthenticated: account.is_unauthenticated() || ended.error == Some(ErrorCode::SignatureDoesNotMatch),
            sealed_objects: &sealed_objects,
            key_id: account.key_id(),
            status: ended.status,
            error: ended.error,
            received: connection.take_received(),
            sent: account.sent.get(),
            took: self.host.instant().saturating_duration_since(began),
        });
    }

    /// Returns the address of the client: the peer's, or the one that a trusted proxy names.
    pub(crate) fn client_address(&self, connection: &Connection<P::Stream>, head: Option<&RequestHead>) -> IpAddr {
        let peer = connection.stream.peer();
        match head {
            Some(head) => self.config.proxies.client(head, peer),
            None => peer.ip().to_canonical(),
        }
    }

    /// Sends the response.
    async fn respond(
        &self,
        connection: &mut Connection<P::Stream>,
        result: Result<Response<'_, P>>,
        context: &ReplyContext<'_>,
        account: &Account,
    ) -> Ended {
        let next = if context.persistence == Persistence::Close { Next::Close } else { Next::Request };
        let result = match result {
            Ok(Response { head, source: Some(source), .. }) => {
                let head = context.with_cors(head);
                let ResponseSource { mut bytes, admitted, _memory } = *source;
                let disk = &**self.log.disk();
                match connection.send_source(&head, &mut bytes, &admitted, disk, context, account).await {
                    Ok(()) => return Ended { status: head.status, error: None, next },
                    Err(failure) => Err(failure),
                }
            }
            Ok(Response { head, admitted, source: None }) => Ok((head, admitted)),
            Err(failure) => Err(failure),
        };
        let (response, error, _admitted) = match result {
            Ok((response, admitted)) => (response, None, admitted),
            Err(Failure::Reply(error)) => {
                (error.response(context.resource, context.request_id), Some(error.code), None)
            }
            Err(Failure::Fault(error, cause)) => {
                self.report_fault(context.request_id, context.resource, account.read_name(), &cause);
                (error.response(context.resource, context.request_id), Some(error.code), None)
            }
            Err(Failure::Connection(error)) => {
                let ReplyContext { request_id, resource, .. } = context;
                let fault = account.take_fault();
                if let Some((_, cause)) = &fault {
                    self.report_fault(request_id, resource, account.read_name(), cause);
                }
                tracing::debug!(request_id, resource, %error, "connection aborted");
                return Ended { status: 0, error: fault.map(|(code, _)| code), next: Next::Abort };
            }
        };
        let status = response.status;
        match connection.send_whole(context.with_cors(response), context, account).await {
            Ok(()) => Ended { status, error, next },
            Err(_) => Ended { status: 0, error, next: Next::Abort },
        }
    }

    /// Reports a fault to the observer. `name` is that of the object that was being read.
    pub(crate) fn report_fault(
        &self,
        request_id: &str,
        resource: &str,
        (bucket, key): (Option<&str>, Option<&str>),
        cause: &Cause,
    ) {
        self.config.observer.fault(&Fault { kind: cause.kind, request_id, resource, bucket, key, cause: &cause.text });
    }

    /// Authenticates, routes, authorizes and runs one request.
    async fn dispatch(
        &self,
        connection: &mut Connection<P::Stream>,
        received: Received<'_>,
    ) -> Result<Response<'_, P>> {
        let Received { head, account, .. } = received;
        if head.method == "OPTIONS" {
            return self.preflight(received);
        }
        if form::is_form(head) && !auth::is_signed(head) {
            ops::check_binding_header(head, &Operation::PostObject, false)?;
            return Box::pin(self.post_object(connection, received)).await;
        }
        let (caller, signature) =
            self.authenticate(head).inspect_err(|_| self.record_refused_signature(account, head))?;
        let caller = account.caller.get_or_init(|| caller);
        let link = account.link();
        link.client.set(Client::of(caller.access_key(), self.client_address(connection, Some(head))));
        let hidden = |error| match caller {
            Caller::Key(_) => error,
            Caller::Anonymous => Error::new(ErrorCode::AccessDenied),
        };
        let hoisted = ops::hoist(head).map_err(hidden)?;
        let head = hoisted.as_deref().unwrap_or(head);
        let received = Received { head, ..received };
        let (target, operation) = ops::route(head, &self.config.host_names).map_err(hidden)?;
        self.begin(account, &operation);
        let target = account.target.get_or_init(|| target);
        let request = Request::new(received, target, caller, signature);
        self.record_concern(account, target, &operation);
        request.record_key_headers();
        let is_sealed = ops::is_sealed_transfer(head, &operation)?;
        ops::check_binding_header(head, &operation, is_sealed)?;
        if is_sealed {
            account.record_sealed();
        }
        self.authorize(&request, &operation, is_sealed)?;
        if operation == Operation::PostObject {
            // A signed form: forms authenticate by their policy document alone.
            return Err(auth::multiple_mechanisms().into());
        }
        ops::check_headers(head, &operation)?;
        // Box the futures of all but the hottest operations: a connection's task is as large as the
        // largest future stored in line.
        match operation {
            Operation::PutObject if !is_sealed => self.put_object(connection, &request).await,
            Operation::GetObject if !is_sealed => {
                self.receive_no_body(connection, &request).await?;
                self.get_object(&request).await
            }
            other => Box::pin(self.handle(connection, &request, other, is_sealed)).await,
        }
    }

    /// Runs an operation other than PutObject and GetObject of unsealed transfers.
    async fn handle(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
        operation: Operation,
        is_sealed: bool,
    ) -> Result<Response<'_, P>> {
        use Operation as Op;
        match operation {
            Op::PutObject if is_sealed => return Box::pin(self.put_sealed(connection, request)).await,
            Op::UploadPart { upload_id, number } => {
                return Box::pin(self.upload_part(connection, request, &upload_id, number)).await;
            }
            Op::CompleteMultipartUpload { upload_id } => {
                return Box::pin(self.complete_upload(connection, request, &upload_id)).await;
            }
            Op::DeleteObjects => return Box::pin(self.delete_objects(connection, request)).await,
            Op::PutObjectTagging => return Box::pin(self.put_object_tagging(connection, request)).await,
            Op::PutObjectRetention => return Box::pin(self.put_retention(connection, request)).await,
            Op::PutObjectLegalHold => return Box::pin(self.put_legal_hold(connection, request)).await,
            Op::PutBucketVersioning => return Box::pin(self.put_bucket_versioning(connection, request)).await,
            Op::PutObjectLockConfiguration => return Box::pin(self.put_object_lock(connection, request)).await,
            Op::CreateBucket => return Box::pin(self.create_bucket(connection, request)).await,
            Op::PutBucketEncryption => return Box::pin(self.put_bucket_encryption(connection, request)).await,
            Op::PutBucketLifecycle => return Box::pin(self.put_bucket_lifecycle(connection, request)).await,
            Op::PutBucketCors => return Box::pin(self.put_bucket_cors(connection, request)).await,
            Op::PutBucketTagging => return Box::pin(self.put_bucket_tagging(connection, request)).await,
            _ => {}
        }
        self.receive_no_body(connection, request).await?;
        if is_listing(&operation) {
            let admitted = self.admission.listing(request.account.link()).await?;
            return Ok(self.handle_bodyless(request, operation, is_sealed).await?.with_memory(admitted));
        }
        self.handle_bodyless(request, operation, is_sealed).await
    }

    /// Runs an operation without a request body.
    async fn handle_bodyless(
        &self,
        request: &Request<'_>,
        operation: Operation,
        is_sealed: bool,
    ) -> Result<Response<'_, P>> {
        use Operation as Op;
        match operation {
            Op::GetObject => self.get_sealed(request).await,
            Op::HeadObject if is_sealed => self.head_sealed(request).await,
            Op::HeadObject => self.head_object(request).await,
            Op::DeleteObject => self.delete_object(request).await,
            Op::GetObjectTagging => self.object_tagging(request).await,
            Op::DeleteObjectTagging => self.delete_object_tagging(request).await,
            Op::GetObjectAttributes(query) => self.object_attributes(request, &query).await,
            Op::GetObjectAcl => self.object_acl(request).await,
            Op::GetObjectRetention => self.retention(request).await,
            Op::GetObjectLegalHold => self.legal_hold(request).await,
            Op::CopyObject(source) => Box::pin(self.copy_object(request, &source)).await,
            Op::CreateMultipartUpload => self.create_upload(request).await,
            Op::UploadPartCopy { upload_id, number, source, range } => {
                Box::pin(self.upload_part_copy(request, &upload_id, number, &source, range)).await
            }
            Op::AbortMultipartUpload { upload_id } => self.abort_upload(request, &upload_id).await,
            Op::ListParts { upload_id, marker, max } => self.list_parts(request, &upload_id, marker, max).await,
            Op::ListMultipartUploads(query) => self.list_uploads(request, &query),
            Op::ListObjects(query) => self.list_objects(request, &query),
            Op::ListObjectsV2(query) => self.list_objects_v2(request, &query),
            Op::ListObjectVersions(query) => self.list_versions(request, &query),
            other => self.handle_bucket(request, other).await,
        }
    }

    /// Runs an operation on a bucket itself that has no body.
    async fn handle_bucket(&self, request: &Request<'_>, operation: Operation) -> Result<Response<'_, P>> {
        use Operation as Op;
        match operation {
            Op::ListBuckets(query) => self.list_buckets(request, &query),
            Op::HeadBucket => self.head_bucket(request),
            Op::DeleteBucket => self.delete_bucket(request).await,
            Op::GetBucketLocation => self.bucket_location(request),
            Op::GetBucketVersioning => self.bucket_versioning(request),
            Op::GetBucketAcl => self.bucket_acl(request),
            Op::GetObjectLockConfiguration => self.object_lock(request),
            Op::GetBucketEncryption => self.bucket_encryption(request),
            Op::DeleteBucketEncryption => self.delete_bucket_encryption(request).await,
            Op::GetBucketLifecycle => self.bucket_lifecycle(request),
            Op::DeleteBucketLifecycle => self.delete_bucket_lifecycle(request).await,
            Op::GetBucketCors => self.bucket_cors(request),
            Op::DeleteBucketCors => self.delete_bucket_cors(request).await,
            Op::GetBucketTagging => self.bucket_tagging(request),
            Op::DeleteBucketTagging => self.delete_bucket_tagging(request).await,
            _ => Err(ErrorCode::NotImplemented.into()),
        }
    }

    /// Returns whether the request may carry a customer key; without a head, what the connection
    /// itself admits.
    fn is_secure(&self, connection: &Connection<P::Stream>, head: Option<&RequestHead>) -> bool {
        let stream = &connection.stream;
        let Some(head) = head else { return stream.is_secure() };
        self.config.proxies.is_secure(head, stream.is_secure(), || stream.peer())
    }

    /// Receives and verifies the body of a request whose operation has none, because it may be
    /// signed, and discards it. Limited to [`UNWANTED_BODY_MAX`].
    async fn receive_no_body(&self, connection: &mut Connection<P::Stream>, request: &Request<'_>) -> Result<()> {
        let decoder = request.decoder(Wanted::None, UNWANTED_BODY_MAX)?;
        Receiver::new(connection, decoder).discard().await
    }
}

/// Returns whether the response of an operation can be long and does not come from an object, whose
/// memory includes that of its list of parts.
fn is_listing(operation: &Operation) -> bool {
    use Operation as Op;
    matches!(
        operation,
        Op::ListObjects(_)
            | Op::ListObjectsV2(_)
            | Op::ListMultipartUploads(_)
            | Op::ListParts { .. }
            | Op::ListObjectVersions(_)
            | Op::ListBuckets(_)
            | Op::GetBucketCors
            | Op::GetBucketLifecycle
    )
}
