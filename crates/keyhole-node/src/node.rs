//! The node: serves the requests of each connection in order.

use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use keyhole_core::aead::Engine;
use keyhole_log::{Disk, Log};
use keyhole_s3::auth::{self, BodySignature, SigningKeys};
use keyhole_s3::body::{BodyDecoder, Wanted};
use keyhole_s3::http::{RequestHead, Response};
use keyhole_s3::ops::{self, HostNames, Operation, Target};
use keyhole_s3::{Error, ErrorCode, form};

use crate::access::{AccessTable, Caller, GoodAt};
use crate::admission::{Admission, Gauge, Share};
use crate::failure::{Failure, Result};
use crate::io::{Env, Stream};
use crate::observe::{Account, Exchange, Observer};
use crate::proxy::TrustedProxies;
use crate::request::{Connection, Receiver, ReplyContext};
use crate::settings::PolicyDefaults;

/// Configuration shared by all workers of a node.
pub struct Config {
    /// The region in the credential scope of signatures.
    pub region: String,
    /// Host names for virtual-hosted-style requests (`BUCKET.HOST`).
    pub host_names: HostNames,
    /// The access keys and their grants; replaceable at run time.
    pub access: ArcSwap<AccessTable>,
    /// Default policies, for settings that a bucket does not have itself.
    pub defaults: PolicyDefaults,
    /// Receives request events.
    pub observer: Box<dyn Observer>,
    /// The proxies whose forwarding headers are trusted.
    pub proxies: TrustedProxies,
    /// The memory limits of each worker's requests.
    pub share: Share,
}

/// One worker of the node: its handle to the log, its AES engine and its memory.
pub struct Node<D: Disk, E: Engine, V> {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Log<D>,
    pub(crate) engine: E,
    pub(crate) env: V,
    pub(crate) admission: Arc<Admission>,
    signing_keys: SigningKeys,
}

/// A parsed and authenticated request.
pub(crate) struct Request<'r> {
    pub(crate) head: &'r RequestHead,
    pub(crate) target: &'r Target,
    pub(crate) caller: &'r Caller,
    /// Customer keys are accepted on this connection.
    pub(crate) secure: bool,
    pub(crate) request_id: &'r str,
    /// How the request body is signed.
    pub(crate) payload: BodySignature,
    /// Collects the fields of the request's [`Exchange`].
    pub(crate) account: &'r Account,
}

/// The outcome of an operation.
pub(crate) enum Outcome {
    /// A response that has not been sent yet.
    Reply(Response),
    /// The response, with this status, was sent completely.
    Sent(u16),
}

/// The action on the connection after an exchange.
enum Next {
    Request,
    Close,
    Abort,
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Creates a worker that serves the objects of `log`.
    pub fn new(config: Arc<Config>, log: Log<D>, engine: E, env: V) -> Rc<Self> {
        let admission = Arc::new(Admission::new(config.share));
        Rc::new(Node { config, log, engine, env, admission, signing_keys: SigningKeys::default() })
    }

    /// Returns a handle for reading the worker's memory use from any thread.
    pub fn gauge(&self) -> Gauge {
        Gauge::new(self.admission.clone())
    }

    /// Serves the requests of one connection until either side closes it.
    pub async fn serve<S: Stream<Buf = D::Buf>>(self: &Rc<Self>, stream: S) {
        let mut connection = Connection::new(stream);
        loop {
            match self.exchange(&mut connection).await {
                Next::Request => {}
                Next::Close => return connection.stream.close().await,
                Next::Abort => return connection.stream.abort(),
            }
        }
    }

    /// Serves one request.
    async fn exchange<S: Stream<Buf = D::Buf>>(&self, connection: &mut Connection<S>) -> Next {
        let head = match connection.head().await {
            Ok(None) => return Next::Close,
            Ok(Some(head)) => Ok(head),
            Err(Failure::Connection(_)) => return Next::Abort,
            Err(failure) => Err(failure),
        };
        let began = self.env.instant();
        let request_id = hex::encode_upper(self.env.random_array::<8>());
        let observer = &*self.config.observer;
        let account = Account::new(observer);
        let (mut method, mut resource, mut is_head, mut keep_alive) = ("-", "", false, false);
        let result = match &head {
            Ok(head) => {
                (method, resource, keep_alive) = (&head.method, &head.path, head.keep_alive);
                is_head = method == "HEAD";
                self.dispatch(connection, head, &request_id, &account).await
            }
            Err(Failure::Reply(error)) => Err(Failure::Reply(error.clone())),
            Err(_) => return Next::Abort,
        };
        let keep_alive = keep_alive && connection.is_clean();
        let (status, error, next) =
            self.reply(connection, result, &account, &request_id, (resource, is_head, keep_alive)).await;
        let target = account.target.get();
        let (sse_c, key_id) = account.used();
        let peer = connection.stream.peer();
        let (client, secure) = match &head {
            Ok(head) => (self.config.proxies.client(head, peer), self.is_secure(connection, head)),
            Err(_) => (peer.ip().to_canonical(), connection.stream.is_secure()),
        };
        observer.finished(&Exchange {
            request_id: &request_id,
            peer,
            client,
            secure,
            method,
            resource,
            operation: account.operation.get(),
            bucket: target.and_then(|target| target.bucket.as_deref()),
            key: target.and_then(|target| target.key.as_deref()),
            access_key: account.caller.get().and_then(Caller::access_key),
            sse_c,
            key_id,
            status,
            error,
            received: connection.take_received(),
            sent: account.sent.get(),
            took: self.env.instant().saturating_duration_since(began),
        });
        next
    }

    /// Sends the response, unless it was sent already. Returns its status (0: no complete
    /// response), its error code and the next action on the connection.
    async fn reply<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        result: Result<Outcome>,
        account: &Account,
        request_id: &str,
        (resource, is_head, keep_alive): (&str, bool, bool),
    ) -> (u16, Option<ErrorCode>, Next) {
        let next = if keep_alive { Next::Request } else { Next::Close };
        let (response, error) = match result {
            Ok(Outcome::Sent(status)) => return (status, None, next),
            Ok(Outcome::Reply(response)) => (response, None),
            Err(Failure::Reply(error)) => (error.response(resource, request_id), Some(error.code)),
            Err(Failure::Fault(error, cause)) => {
                tracing::error!(request_id, resource, "{cause}");
                (error.response(resource, request_id), Some(error.code))
            }
            Err(Failure::Connection(error)) => {
                tracing::debug!(request_id, resource, %error, "connection aborted");
                return (0, None, Next::Abort);
            }
        };
        let status = response.status;
        let context = ReplyContext { request_id, now_ms: self.env.now_ms(), keep_alive, is_head };
        match connection.reply(response, &context, account).await {
            Ok(()) => (status, error, next),
            Err(_) => (0, error, Next::Abort),
        }
    }

    /// Authenticates, routes, authorizes and runs one request.
    async fn dispatch<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        head: &RequestHead,
        request_id: &str,
        account: &Account,
    ) -> Result<Outcome> {
        if form::is_form(head) && !auth::is_signed(head) {
            return Box::pin(self.post_object(connection, head, request_id, account)).await.map(Outcome::Reply);
        }
        let (caller, payload) = self.authenticate(head)?;
        let caller = account.caller.get_or_init(|| caller);
        let (target, operation) = ops::route(head, &self.config.host_names).map_err(|error| match caller {
            Caller::Key(_) => error,
            Caller::Anonymous => Error::new(ErrorCode::AccessDenied),
        })?;
        self.begins(account, &operation);
        let target = account.target.get_or_init(|| target);
        let secure = self.is_secure(connection, head);
        let request = Request { head, target, caller, secure, request_id, payload, account };
        use Operation as Op;
        let sealed = ops::is_sealed_transfer(head, &operation)?;
        if sealed {
            account.is_sealed();
        }
        self.authorize(&request, &operation, sealed)?;
        // Box the futures of all but the hottest operations: a connection's task is as large as the
        // largest future stored in line.
        let response = match operation {
            Op::PutObject if sealed => Box::pin(self.put_sealed(connection, request)).await?,
            Op::PutObject => self.put_object(connection, request).await?,
            Op::UploadPart { upload_id, number } => {
                Box::pin(self.upload_part(connection, request, &upload_id, number)).await?
            }
            Op::DeleteObjects => Box::pin(self.delete_objects(connection, request)).await?,
            Op::PutObjectTagging => Box::pin(self.put_object_tagging(connection, request)).await?,
            // A signed POST form: forms authenticate by their policy document alone.
            Op::PostObject => return Err(auth::multiple_mechanisms().into()),
            Op::CreateBucket => Box::pin(self.create_bucket(connection, request)).await?,
            Op::PutBucketEncryption => Box::pin(self.put_bucket_encryption(connection, request)).await?,
            Op::PutBucketLifecycle => Box::pin(self.put_bucket_lifecycle(connection, request)).await?,
            Op::CompleteMultipartUpload { upload_id } => {
                Box::pin(self.complete_upload(connection, request, &upload_id)).await?
            }
            Op::GetObject => {
                self.take_no_body(connection, &request).await?;
                return match sealed {
                    true => Box::pin(self.get_sealed(connection, &request)).await,
                    false => self.get_object(connection, &request).await,
                };
            }
            Op::HeadObject if sealed => {
                self.take_no_body(connection, &request).await?;
                Box::pin(self.head_sealed(&request)).await?
            }
            other => {
                self.take_no_body(connection, &request).await?;
                Box::pin(self.answer(&request, other)).await?
            }
        };
        Ok(Outcome::Reply(response))
    }

    /// Verifies the signature. Returns the caller, anonymous if unsigned, and how the body is
    /// signed.
    fn authenticate(&self, head: &RequestHead) -> Result<(Caller, BodySignature)> {
        let (access, now_ms) = (self.config.access.load(), self.env.now_ms());
        let good = GoodAt(&access, now_ms);
        match auth::authenticate(head, &good, &self.signing_keys, &self.config.region, now_ms) {
            Ok(identity) => Ok((access.caller(&identity.access_key, now_ms)?, identity.body)),
            Err(error) if error.code == ErrorCode::AccessDenied && !auth::is_signed(head) => {
                Ok((Caller::Anonymous, auth::unsigned_body()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Records and reports the operation of a request.
    pub(crate) fn begins(&self, account: &Account, operation: &Operation) {
        account.operation.set(Some(operation.name()));
        self.config.observer.began(operation.name());
    }

    /// Returns whether the request may carry a customer key.
    pub(crate) fn is_secure<S: Stream>(&self, connection: &Connection<S>, head: &RequestHead) -> bool {
        let stream = &connection.stream;
        self.config.proxies.is_secure(head, stream.is_secure(), || stream.peer())
    }

    /// Runs an operation without a request body and with a small response.
    async fn answer(&self, request: &Request<'_>, operation: Operation) -> Result<Response> {
        use Operation as Op;
        match operation {
            Op::ListBuckets => self.list_buckets(request),
            Op::HeadBucket => self.head_bucket(request),
            Op::DeleteBucket => self.delete_bucket(request).await,
            Op::GetBucketLocation => self.bucket_location(request),
            Op::GetBucketVersioning => self.bucket_versioning(request),
            Op::GetBucketAcl => self.bucket_acl(request),
            Op::GetBucketEncryption => self.bucket_encryption(request),
            Op::DeleteBucketEncryption => self.delete_bucket_encryption(request).await,
            Op::GetBucketLifecycle => self.bucket_lifecycle(request),
            Op::DeleteBucketLifecycle => self.delete_bucket_lifecycle(request).await,
            Op::ListObjects(query) => self.list_objects(request, &query),
            Op::ListObjectsV2(query) => self.list_objects_v2(request, &query),
            Op::ListMultipartUploads(query) => self.list_uploads(request, &query),
            Op::HeadObject => self.head_object(request).await,
            Op::DeleteObject => self.delete_object(request).await,
            Op::GetObjectTagging => self.object_tagging(request).await,
            Op::DeleteObjectTagging => self.delete_object_tagging(request).await,
            Op::GetObjectAttributes(query) => self.object_attributes(request, &query).await,
            Op::GetObjectAcl => self.object_acl(request).await,
            Op::CopyObject(source) => self.copy_object(request, &source).await,
            Op::CreateMultipartUpload => self.create_upload(request).await,
            Op::UploadPartCopy { upload_id, number, source, range } => {
                self.upload_part_copy(request, &upload_id, number, &source, range).await
            }
            Op::AbortMultipartUpload { upload_id } => self.abort_upload(request, &upload_id).await,
            Op::ListParts { upload_id, marker, max } => self.list_parts(request, &upload_id, marker, max).await,
            _ => Err(ErrorCode::NotImplemented.into()),
        }
    }

    /// Reads and verifies the body of a request whose operation has none, because it may be signed.
    /// Limited to [`XML_BODY_MAX`](crate::limits::XML_BODY_MAX).
    async fn take_no_body<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: &Request<'_>,
    ) -> Result<()> {
        let max = crate::limits::XML_BODY_MAX;
        let decoder = BodyDecoder::new(request.head, request.payload.clone(), Wanted::None, max)?;
        Receiver::new(connection, decoder).read_document().await?;
        Ok(())
    }
}

impl Request<'_> {
    /// Returns the bucket of the request.
    pub(crate) fn bucket(&self) -> Result<&str> {
        self.target.bucket.as_deref().ok_or_else(|| Error::new(ErrorCode::InvalidBucketName).into())
    }

    /// Returns the bucket and the key of the request.
    pub(crate) fn object(&self) -> Result<(&str, &str)> {
        let key = self.target.key.as_deref().ok_or(ErrorCode::MethodNotAllowed)?;
        Ok((self.bucket()?, key))
    }
}
