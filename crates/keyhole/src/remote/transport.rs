//! HTTP requests of the S3 library, over connections of its own.
//!
//! Responses are not trusted: those that are held in memory are limited in length.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Method, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keyhole_remote::ServiceError;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};

use super::connector::Connector;
use super::failure;
use super::limits::{ERROR_MAX, RESPONSE_MAX};
use super::listing::without_invalid_names;

/// Time after which an idle connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Limit of idle connections.
const IDLE_MAX: usize = 4;

const AGENT: &str = concat!("keyhole/", env!("CARGO_PKG_VERSION"));

/// Sends the requests of the S3 library.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<Connector, HttpRequestBody>,
}

impl Transport {
    pub(super) fn new(connector: Connector) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE_TIMEOUT).pool_max_idle_per_host(IDLE_MAX).pool_timer(TokioTimer::new());
        Transport { client: builder.build(connector) }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let is_list = request.uri().query().is_some_and(|query| query.contains("list-type="));
        let is_object = request.method() == Method::GET && !is_list;
        let sent = self.client.request(request).await;
        let response = sent.map_err(|error| failure::of_connection(&error, error.is_connect()))?;
        let (parts, body) = response.into_parts();
        let body = body.map_err(|error| failure::of_connection(&error, false));
        if !parts.status.is_success() {
            // The status says enough if the rest fails.
            let body = Limited::new(body, ERROR_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(failure::http_error_of(failure::of_response(parts.status, &body)));
        }
        if is_object {
            return Ok(Response::from_parts(parts, HttpResponseBody::new(body)));
        }
        let body = Limited::new(body, RESPONSE_MAX).collect().await.map_err(|error| {
            let too_long = |_| invalid(format!("longer than {RESPONSE_MAX} bytes"));
            error.downcast::<HttpError>().map_or_else(too_long, |error| *error)
        })?;
        let body = body.to_bytes();
        if is_list {
            check_listing(&body)?;
            let listing = String::from_utf8_lossy(&body);
            let body = Bytes::from(without_invalid_names(&listing));
            return Ok(Response::from_parts(parts, body.into()));
        }
        Ok(Response::from_parts(parts, body.into()))
    }
}

fn invalid(what: impl fmt::Display) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, ServiceError::Unavailable(format!("invalid answer: {what}")))
}

/// Checks a listing for errors that the library takes for an empty or complete one.
fn check_listing(body: &[u8]) -> Result<(), HttpError> {
    let has = |text: &str| memchr::memmem::find(body, text.as_bytes()).is_some();
    if !has("<ListBucketResult") {
        return Err(invalid("no listing"));
    }
    if has("<IsTruncated>true</IsTruncated>") && !has("<NextContinuationToken>") {
        return Err(invalid("a truncated listing without a continuation token"));
    }
    Ok(())
}
