//! CORS: the rules of a bucket, preflight requests, and the headers of responses to other origins.

use std::sync::Arc;

use keyhole_log::BucketSettings;
use keyhole_s3::http::RequestHead;
use keyhole_s3::ops::{self, CORS_VARY, Cors, CorsRequest, Operation};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::failure::Result;
use crate::http::{Connection, Response};
use crate::node::Node;
use crate::platform::Platform;
use crate::request::{Received, Request};

impl<P: Platform> Node<P> {
    /// Handles a preflight request, which has no credentials. Does not reveal whether a bucket
    /// without rules exists.
    pub(crate) fn preflight(&self, received: Received<'_>) -> Result<Response<'_, P>> {
        let Received { head, account, .. } = received;
        self.begin(account, &Operation::Preflight);
        let request = CorsRequest::preflight(head)?;
        let not_enabled = || ops::cors_not_enabled(head);
        let target = ops::target(head, &self.config.host_names).map_err(|_| not_enabled())?;
        let target = account.target.get_or_init(|| target);
        let cors = target.bucket.as_deref().and_then(|bucket| self.cors(bucket)).ok_or_else(not_enabled)?;
        let headers = cors.response_headers(&request);
        let headers = headers.ok_or_else(|| ops::cors_not_allowed(head, target.key.is_some()))?;
        Ok(Response::new(200).headers(headers).header("Vary", CORS_VARY))
    }

    /// Returns the CORS headers of the response to a request, whatever its outcome. Preflight
    /// requests have their own.
    pub(crate) fn cors_headers(&self, head: &RequestHead) -> Vec<(&'static str, String)> {
        if head.headers.get("origin").is_none() || head.method == "OPTIONS" {
            return Vec::new();
        }
        let target = ops::target(head, &self.config.host_names).ok();
        let bucket = target.and_then(|target| target.bucket);
        let Some(rules) = bucket.and_then(|bucket| self.log.bucket_cors(&bucket)) else { return Vec::new() };
        let cors = Cors::from_bytes(&rules).unwrap_or_default();
        let allowed = CorsRequest::actual(head).and_then(|request| cors.response_headers(&request));
        let mut headers = allowed.unwrap_or_default();
        // Also without a rule that allows the request: to another origin the response may differ.
        headers.push(("Vary", CORS_VARY.to_owned()));
        headers
    }

    /// Returns the rules of a bucket, if it has any that can be decoded.
    fn cors(&self, bucket: &str) -> Option<Cors> {
        Cors::from_bytes(&self.log.bucket_cors(bucket)?)
    }

    /// Handles PutBucketCors: replaces the bucket's rules.
    pub(crate) async fn put_bucket_cors(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let (bucket, document) = self.bucket_document(connection, request).await?;
        let cors = xml::parse_cors(&document)?.to_bytes();
        self.set_cors(bucket, &cors).await?;
        Ok(Response::new(200))
    }

    /// Handles GetBucketCors.
    pub(crate) fn bucket_cors(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let (settings, _) = self.log.bucket_settings(bucket).ok_or(ErrorCode::NoSuchBucket)?;
        match Cors::from_bytes(&settings.cors) {
            None => {
                let message = "The bucket has CORS rules that this version of the node cannot read, and that allow nothing \
                    meanwhile. Set them again.";
                Err(Error::new(ErrorCode::NotImplemented).with_message(message).into())
            }
            Some(cors) if cors.is_empty() => {
                Err(Error::new(ErrorCode::NoSuchCORSConfiguration).with_field("BucketName", bucket).into())
            }
            Some(cors) => Ok(Response::xml(200, xml::cors(&cors))),
        }
    }

    /// Handles DeleteBucketCors: 204 whether there are rules or not.
    pub(crate) async fn delete_bucket_cors(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.set_cors(request.bucket()?, &[]).await?;
        Ok(Response::new(204))
    }

    async fn set_cors(&self, bucket: &str, cors: &[u8]) -> Result<()> {
        let cors: Arc<[u8]> = cors.into();
        let change = |settings: &mut BucketSettings| {
            settings.cors = cors;
            Ok(())
        };
        self.change_bucket(bucket, change).await
    }
}
