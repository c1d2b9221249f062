//! S3 errors: code, status and message.

use std::borrow::Cow;
use std::fmt;

use crate::echo::{echoed, without_keys};

macro_rules! codes {
    ($($name:ident $status:literal $message:literal,)*) => {
        /// An S3 error code.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = concat!($message, " (", stringify!($status), ")")] $name,)*
        }

        impl ErrorCode {
            /// All error codes.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// Returns the text of `Code` in the response.
            pub const fn code(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($name),)*
                }
            }

            /// Returns the response status.
            pub const fn status(self) -> u16 {
                match self {
                    $(ErrorCode::$name => $status,)*
                }
            }

            /// Returns the default message.
            pub const fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $message,)*
                }
            }
        }
    };
}

codes! {
    AccessDenied 403 "Access Denied",
    AccessForbidden 403 "CORSResponse: This CORS request is not allowed.",
    AuthorizationHeaderMalformed 400 "The authorization header that you provided is not valid.",
    AuthorizationQueryParametersError 400 "The authorization query parameters that you provided are not valid.",
    BadRequest 400 "The request is not valid.",
    BadDigest 400 "The Content-MD5 or checksum value that you specified did not match what the server received.",
    BucketAlreadyOwnedByYou 409 "The bucket that you tried to create already exists, and you own it.",
    BucketNotEmpty 409 "The bucket that you tried to delete is not empty.",
    ConditionalRequestConflict 409 "A conflicting operation occurred during this request. Send it again.",
    EntityTooLarge 400 "Your proposed upload exceeds the maximum allowed object size.",
    EntityTooSmall 400 "Your proposed upload is smaller than the minimum allowed object size.",
    IllegalVersioningConfigurationException 400 "The Versioning element must be specified",
    IncorrectNumberOfFilesInPostRequest 400 "POST requires exactly one file upload per request.",
    IncompleteBody 400 "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    InsufficientStorage 507 "The node has no room left for this. Delete objects, or give it more capacity.",
    InternalError 500 "An internal error occurred. Try again.",
    ObjectDamaged 500 "The stored object is damaged and cannot be read. Overwrite it, delete it, or restore it from a backup.",
    InvalidAccessKeyId 403 "The access key ID that you provided does not exist in our records.",
    InvalidArgument 400 "An argument of the request is not valid.",
    InvalidBucketName 400 "The specified bucket is not valid.",
    InvalidBucketState 409 "The request is not valid for the current state of the bucket.",
    InvalidDigest 400 "The Content-MD5 or checksum value that you specified is not valid.",
    InvalidEncryptionAlgorithmError 400 "The Encryption request you specified is not valid. Supported value: AES256.",
    InvalidLocationConstraint 400 "The specified location (Region) constraint is not valid.",
    InvalidPart 400 "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified ETag might not match the part's.",
    InvalidPartNumber 416 "The requested part number is not satisfiable.",
    InvalidPartOrder 400 "The list of parts was not in ascending order. The parts list must be specified in order by part number.",
    InvalidPolicyDocument 400 "The content of the form does not meet the conditions specified in the policy document.",
    InvalidRange 416 "The requested range is not satisfiable.",
    InvalidRequest 400 "The request is not valid.",
    InvalidStorageClass 400 "The storage class that you specified is not valid. This node has STANDARD alone.",
    InvalidTag 400 "The tag provided was not a valid tag. This error can occur if the tag did not pass input validation.",
    InvalidURI 400 "The specified URI could not be parsed.",
    KeyTooLongError 400 "Your key is too long. A key has at most 1,024 bytes.",
    MalformedPOSTRequest 400 "The body of your POST request is not well-formed multipart/form-data.",
    MalformedXML 400 "The XML that you provided was not well formed or did not validate against our published schema.",
    MaxPostPreDataLengthExceeded 400 "Your POST request fields preceding the upload file were too large.",
    MetadataTooLarge 400 "Your metadata headers exceed the maximum allowed metadata size of 2 KB.",
    MethodNotAllowed 405 "The specified method is not allowed against this resource.",
    MissingContentLength 411 "You must provide the Content-Length HTTP header.",
    NoSuchBucket 404 "The specified bucket does not exist.",
    NoSuchCORSConfiguration 404 "The CORS configuration does not exist.",
    NoSuchKey 404 "The specified key does not exist.",
    NoSuchLifecycleConfiguration 404 "The lifecycle configuration does not exist.",
    NoSuchObjectLockConfiguration 404 "The specified object does not have a ObjectLock configuration",
    NoSuchTagSet 404 "The TagSet does not exist.",
    NoSuchUpload 404 "The specified multipart upload does not exist. The upload ID might be invalid, or the multipart upload might have been aborted or completed.",
    NoSuchVersion 404 "The specified version does not exist.",
    NotImplemented 501 "A header or an operation that you asked for implies functionality that is not implemented.",
    ObjectLockConfigurationNotFoundError 404 "Object Lock configuration does not exist for this bucket",
    OperationAborted 409 "A conflicting conditional operation is currently in progress against this resource. Please try again.",
    PreconditionFailed 412 "At least one of the preconditions that you specified did not hold.",
    QuotaExceeded 403 "The bucket has reached its quota.",
    RequestHeaderSectionTooLarge 400 "Your request header section exceeds the maximum allowed size.",
    RequestTimeTooSkewed 403 "The difference between the request time and the server's time is too large.",
    RequestTimeout 400 "Your socket connection to the server was not read from or written to within the timeout period.",
    ServerSideEncryptionConfigurationNotFoundError 404 "The server side encryption configuration was not found.",
    ServiceUnavailable 503 "The node cannot do this at the moment. Try again.",
    SignatureDoesNotMatch 403 "The request signature that we calculated does not match the signature that you provided. Check your secret access key and signing method.",
    SlowDown 503 "Reduce your request rate.",
    UserKeyMustBeSpecified 400 "The bucket POST must contain the specified field name. If it is specified, check the order of the fields.",
    XAmzContentSHA256Mismatch 400 "The provided 'x-amz-content-sha256' header does not match what was computed.",
}

/// An S3 error for the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The error code.
    pub code: ErrorCode,
    /// The message for the user.
    pub message: Cow<'static, str>,
    /// Further elements of the error document, such as `ArgumentName`.
    pub fields: Vec<(&'static str, String)>,
    /// Further response headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Error {
    /// Creates an error with the default message of `code`.
    pub fn new(code: ErrorCode) -> Self {
        Error { code, message: Cow::Borrowed(code.message()), fields: Vec::new(), headers: Vec::new() }
    }

    /// Replaces the message. Text in it that has the shape of a key is redacted.
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = match message.into() {
            Cow::Owned(text) => Cow::Owned(without_keys(&text).into_owned()),
            message => message,
        };
        self
    }

    /// Adds an element to the error document. Text in it that has the shape of a key is redacted.
    pub fn with_field(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.fields.push((name, without_keys(value.as_ref()).into_owned()));
        self
    }

    /// Adds an element with a value of the client, which is cut: it could be a key.
    pub fn with_echo(self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.with_field(name, echoed(value.as_ref()))
    }

    /// Adds a response header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Creates an [`ErrorCode::InvalidArgument`] for a parameter or a header.
    pub fn invalid_argument(name: &'static str, value: impl AsRef<str>, message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorCode::InvalidArgument)
            .with_message(message)
            .with_field("ArgumentName", name)
            .with_echo("ArgumentValue", value)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.code(), self.message)
    }
}

impl std::error::Error for Error {}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Error::new(code)
    }
}
