//! Fuzz targets. `cargo test` replays their corpora.

use base64ct::{Base64, Encoding};
use keyhole_core::sigv4::{PayloadHash, RequestToSign, Signer};
use keyhole_s3::auth::{Credentials, Identity, SecretKey, SigningKeys, authenticate, authenticate_form, is_signed};
use keyhole_s3::body::{self, BodyDecoder, Wanted};
use keyhole_s3::form::{self, Form, FormReader, Policy};
use keyhole_s3::http::{RequestHead, parse_head};
use keyhole_s3::limits::FORM_FIELDS_MAX;
use keyhole_s3::ops::{self, Completion, HostNames, Operation, Target, route};
use keyhole_s3::sse::RequestSseC;
use keyhole_s3::{Error, ErrorCode, xml};

/// 2026-01-02T03:04:05Z
const NOW_MS: u64 = 1_767_323_045_000;
const DATE: &str = "20260102T030405Z";
const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "AKID";
const SECRET_KEY: &str = "a secret that no input contains";

/// Limit of a body's payload.
const BODY_MAX: u64 = 1 << 20;

/// A node with one access key.
struct OneKey(SecretKey);

impl Credentials for OneKey {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        (access_key == ACCESS_KEY).then_some(&self.0)
    }
}

fn credentials() -> OneKey {
    OneKey(SecretKey::new(SECRET_KEY.to_owned()))
}

fn verify(head: &RequestHead) -> Result<Identity, Error> {
    authenticate(head, &credentials(), &SigningKeys::default(), REGION, NOW_MS)
}

fn hosts() -> HostNames {
    HostNames::new(["node.example".to_owned()])
}

/// Returns the head at the front of the input, if it is complete and valid.
fn parsed(data: &[u8]) -> Option<(RequestHead, usize)> {
    parse_head(data).ok().flatten()
}

/// Reads everything that a head can say about an operation.
fn read_parameters(head: &RequestHead, operation: &Operation) {
    let _ = ops::check_headers(head, operation);
    let _ = ops::metadata(head);
    let _ = ops::refuse_metadata(head);
    let _ = ops::metadata_directive(head);
    let _ = ops::declared_checksum(head);
    let _ = ops::tags(head).map(|tags| assert_eq!(ops::Tags::from_bytes(&tags.to_bytes()), Some(tags)));
    let _ = ops::copied_tags(head);
    let _ = ops::read_options(head);
    let _ = (ops::write_condition(head), ops::delete_condition(head));
    let _ = ops::is_sealed_transfer(head, operation);
    let _ = Completion::new(head);
    let _ = (head.query.version_id(), ops::bypass_governance(head), ops::enables_object_lock(head));
    if let Ok(lock) = ops::requested_lock(head, || NOW_MS) {
        assert!(lock.retention.is_none_or(|retention| retention.until_ms > NOW_MS), "{lock:?}");
    }
    for conditions in [ops::conditions(head), ops::copy_conditions(head)] {
        let _ = (conditions.decide(None), conditions.decide(Some(("0123", NOW_MS))));
    }
    for size in [0, 1, 10_000] {
        if let Ok(Some(range)) = ops::range(head, size, &"0123", NOW_MS) {
            assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
        }
    }
    for is_secure in [false, true] {
        let _ = RequestSseC::parse(head, is_secure).write_key();
    }
}

/// Parses a request head, and reads what it says. A head that is cut must be incomplete: its
/// meaning must not change with the rest.
pub fn request_head(data: &[u8]) {
    let Some((head, len)) = parsed(data) else { return };
    assert!(len <= data.len());
    assert!(matches!(parse_head(&data[..len - 1]), Ok(None)), "complete before its end");
    let (again, same) = parsed(&data[..len]).expect("the same head");
    assert_eq!((&again.path, same), (&head.path, len));
    assert!(again.query.pairs().eq(head.query.pairs()), "another query");
    let Ok((target, operation)) = route(&head, &hosts()) else { return };
    assert!(target.key.is_none() || target.bucket.is_some());
    read_parameters(&head, &operation);
    let _ = BodyDecoder::new(&head, keyhole_s3::auth::unsigned_body(), Wanted::Md5, BODY_MAX);
}

/// Verifies a head that nobody signed, as it is and as a form's fields.
pub fn unsigned_head(data: &[u8]) {
    let Some((head, _)) = parsed(data) else { return };
    assert!(verify(&head).is_err(), "a forged signature was accepted");
    let _ = is_signed(&head);
    assert!(authenticate_form(&head.headers, &credentials(), REGION).is_err());
}

/// The parts of the request that [`signature`] signs.
struct Pieces<'d> {
    key: &'d str,
    name: &'d str,
    value: &'d str,
    presigned: bool,
}

impl<'d> Pieces<'d> {
    /// Splits the input at line feeds.
    fn of(data: &'d [u8], presigned: bool) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        let mut lines = text.split('\n');
        let key = lines.next()?;
        let name = lines.next().unwrap_or_default();
        let value = lines.next().unwrap_or_default();
        Some(Pieces { key, name, value, presigned })
    }

    /// Signs a GET with one parameter of the query, and returns its head.
    fn sign(&self) -> Option<Vec<u8>> {
        let payload = PayloadHash::Unsigned;
        let every = [("host", "node.example"), ("x-amz-content-sha256", payload.header_value()), ("x-amz-date", DATE)];
        let headers = if self.presigned { &every[..1] } else { &every[..] };
        let pair = [(self.name, self.value)];
        let query = if self.name.is_empty() { &[][..] } else { &pair[..] };
        let request = RequestToSign { method: "GET", bucket: Some("bucket"), key: self.key, query, headers, payload };
        let signer = Signer { access_key: ACCESS_KEY, secret_key: SECRET_KEY, region: REGION };
        let mut text = if self.presigned {
            format!("GET {} HTTP/1.1\r\n", signer.presign(&request, DATE, 60).ok()?)
        } else {
            let authorization = signer.authorize(&request, DATE).ok()?;
            let query = query.iter().map(|(name, value)| format!("?{}={}", encode(name), encode(value)));
            let query = query.collect::<String>();
            format!("GET {}{query} HTTP/1.1\r\nauthorization: {authorization}\r\n", request.path())
        };
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        Some((text + "\r\n").into_bytes())
    }
}

fn encode(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// Returns what a head asks for, as text.
fn meaning(head: &RequestHead) -> Result<String, ErrorCode> {
    let (Target { bucket, key, version }, operation) = route(head, &hosts()).map_err(|error| error.code)?;
    Ok(format!("{} {bucket:?} {key:?} {version:?} {operation:?}", head.method))
}

/// Signs a request, which must verify. With one byte changed, it must not verify or must mean the
/// same. The first three bytes of the input select the change and the way to sign.
pub fn signature(data: &[u8]) {
    let Some(([at_high, at_low, change], rest)) = data.split_first_chunk::<3>() else { return };
    let Some(pieces) = Pieces::of(rest, change % 2 == 1) else { return };
    // A presigner's own parameters, a repeated one would be refused.
    if pieces.name.to_ascii_lowercase().starts_with("x-amz-") {
        return;
    }
    let Some(mut request) = pieces.sign() else { return };
    let Some((head, _)) = parsed(&request) else { return };
    verify(&head).expect("the request as it was signed");
    let expected = meaning(&head);
    let at = (usize::from(*at_high) << 8 | usize::from(*at_low)) % request.len();
    request[at] ^= (change / 2).max(1);
    let Some((changed, _)) = parsed(&request) else { return };
    if verify(&changed).is_ok() {
        assert_eq!(meaning(&changed), expected, "byte {at}: {}", String::from_utf8_lossy(&request));
    }
}

/// Routes a query for a bucket and for an object.
pub fn query(data: &[u8]) {
    for (method, path) in [("GET", "/"), ("GET", "/bucket"), ("GET", "/bucket/k"), ("PUT", "/bucket/k")] {
        let mut bytes = format!("{method} {path}?").into_bytes();
        bytes.extend(data.iter().filter(|byte| !b" \r\n".contains(byte)));
        bytes.extend(b" HTTP/1.1\r\nhost: node.example\r\ncontent-length: 0\r\n\r\n");
        let Some((head, _)) = parsed(&bytes) else { return };
        let Ok(hoisted) = ops::hoist(&head) else { continue };
        let head = hoisted.as_deref().unwrap_or(&head);
        if let Ok((_, operation)) = route(head, &hosts()) {
            read_parameters(head, &operation);
        }
    }
}

/// The payload of a decoded body and its checksums, or the error.
type Decoded = Result<(Vec<u8>, String), ErrorCode>;

/// Decodes a body that arrives in pieces of `piece` bytes.
fn decode(decoder: &mut Option<BodyDecoder>, input: &[u8], piece: usize) -> Decoded {
    let mut payload = Vec::new();
    let mut from = 0;
    let mut until = 0;
    loop {
        let this = decoder.as_mut().expect("a decoder");
        match this.step(&input[from..until]).map_err(|error| error.code)? {
            body::Step::Skip(len) => from += len,
            body::Step::Payload if from < until => {
                let len = usize::try_from(this.direct()).unwrap_or(usize::MAX).min(until - from);
                this.payload(&input[from..from + len]);
                payload.extend(&input[from..from + len]);
                from += len;
            }
            body::Step::Done => break,
            body::Step::Payload | body::Step::Need if until == input.len() => return Err(ErrorCode::IncompleteBody),
            body::Step::Payload | body::Step::Need => until = (until + piece).min(input.len()),
        }
    }
    let digests = decoder.take().expect("a decoder").finish().map_err(|error| error.code)?;
    Ok((payload, format!("{digests:?}")))
}

/// Decodes a body, framed by its length, by `aws-chunked`, or by that within `Transfer-Encoding:
/// chunked`. In pieces, it must give the same as in one. The first two bytes of the input select
/// the framing and the pieces.
pub fn body(data: &[u8]) {
    let Some(([framing, piece], data)) = data.split_first_chunk::<2>() else { return };
    let (content, has_trailer) = match framing % 3 {
        0 => ("UNSIGNED-PAYLOAD", false),
        1 => ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", true),
        _ => ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", false),
    };
    // The payload is shorter than its framing.
    let decoded_len = if framing % 3 == 0 { data.len() } else { usize::from(framing / 16) }.to_string();
    let mut headers = vec![
        ("host", "node.example"),
        ("x-amz-content-sha256", content),
        ("x-amz-date", DATE),
        ("x-amz-decoded-content-length", &decoded_len),
    ];
    if has_trailer {
        headers.push(("x-amz-trailer", "x-amz-checksum-crc32"));
    }
    let payload = PayloadHash::Sha256(content);
    let request =
        RequestToSign { method: "PUT", bucket: Some("bucket"), key: "k", query: &[], headers: &headers, payload };
    let signer = Signer { access_key: ACCESS_KEY, secret_key: SECRET_KEY, region: REGION };
    let authorization = signer.authorize(&request, DATE).expect("a valid request");
    let mut text = format!("PUT {} HTTP/1.1\r\nauthorization: {authorization}\r\n", request.path());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    if framing & 4 != 0 {
        text.push_str("transfer-encoding: chunked\r\n");
    } else {
        text.push_str(&format!("content-length: {}\r\n", data.len()));
    }
    let (head, _) = parsed((text + "\r\n").as_bytes()).expect("a valid head");
    let decoder = || {
        let signature = verify(&head).expect("a signed request").body;
        BodyDecoder::new(&head, signature, Wanted::Md5, BODY_MAX).ok()
    };
    let mut whole = decoder();
    if whole.is_none() {
        return;
    }
    let expected = decode(&mut whole, data, usize::MAX - data.len());
    let in_pieces = decode(&mut decoder(), data, usize::from(*piece).max(1));
    assert_eq!(in_pieces, expected, "pieces of {piece} bytes");
}

/// The fields of a form as text, and the file, or the error.
type ReadForm = Result<(String, Vec<u8>, bool), ErrorCode>;

/// Reads a form that arrives in pieces of `piece` bytes.
fn read_form(head: &RequestHead, input: &[u8], piece: usize) -> (ReadForm, Option<Form>) {
    let mut form = None;
    let mut file = Vec::new();
    let result = (|| {
        let mut reader = FormReader::new(head).map_err(|error| error.code)?;
        let mut from = 0;
        let mut until = 0;
        loop {
            if reader.is_at_file() && form.is_none() {
                form = Some(reader.take_form());
            }
            match reader.step(&input[from..until]).map_err(|error| error.code)? {
                form::Step::Skip(len) => from += len,
                form::Step::File(len) => {
                    file.extend(&input[from..from + len]);
                    from += len;
                }
                form::Step::Done => return Ok(true),
                form::Step::Need if until == input.len() => return Ok(false),
                form::Step::Need => until = (until + piece).min(input.len()),
            }
        }
    })();
    let fields = form.as_ref().map_or_else(String::new, |form| {
        form.fields().iter().map(|(name, value)| format!("{name}={value:?};")).collect()
    });
    (result.map(|is_done| (fields, file, is_done)), form)
}

/// Reads an HTML form with the boundary `x`. In pieces, it must give the same as in one. The first
/// byte of the input selects the pieces.
pub fn form(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let text = format!(
        "POST /bucket HTTP/1.1\r\nhost: node.example\r\ncontent-length: {}\r\n\
         content-type: multipart/form-data; boundary=x\r\n\r\n",
        data.len()
    );
    let (head, _) = parsed(text.as_bytes()).expect("a valid head");
    let (expected, form) = read_form(&head, data, usize::MAX - data.len());
    if data.len() < FORM_FIELDS_MAX {
        let (in_pieces, _) = read_form(&head, data, usize::from(*piece).max(1));
        assert_eq!(in_pieces, expected, "pieces of {piece} bytes");
    }
    let Some(form) = form else { return };
    let key = form.key();
    let _ = Policy::check(&form, "bucket", key.as_deref().unwrap_or("key"), NOW_MS);
    assert!(authenticate_form(form.fields(), &credentials(), REGION).is_err(), "nobody signed it");
    let _ = (form.tags(), form.success());
    let head = form.into_head();
    read_parameters(&head, &Operation::PostObject);
}

/// Checks a form's policy, which is the whole input.
pub fn policy(data: &[u8]) {
    let mut text = b"--x\r\nContent-Disposition: form-data; name=policy\r\n\r\n".to_vec();
    text.extend(Base64::encode_string(data).as_bytes());
    text.extend(b"\r\n--x\r\nContent-Disposition: form-data; name=file\r\n\r\n");
    let head = b"POST /bucket HTTP/1.1\r\nhost: node.example\r\ncontent-type: multipart/form-data; boundary=x\r\n\r\n";
    let (head, _) = parsed(head).expect("a valid head");
    let (_, form) = read_form(&head, &text, usize::MAX - text.len());
    let Some(form) = form else { return };
    if let Ok(Policy { min_len, max_len }) = Policy::check(&form, "bucket", "key", NOW_MS) {
        let _ = max_len.map(|max_len| max_len.checked_sub(min_len));
    }
}

/// Parses a `Delete` document.
pub fn xml_delete(data: &[u8]) {
    let _ = xml::parse_delete(data);
}

/// Parses a `CompleteMultipartUpload` document.
pub fn xml_complete(data: &[u8]) {
    let _ =
        xml::parse_complete(data).map(|parts| assert!(parts.iter().all(|part| (1..=10_000).contains(&part.number))));
}

/// Parses a `Tagging` document. Accepted tags must survive writing and parsing.
pub fn xml_tagging(data: &[u8]) {
    if let Ok(tags) = xml::parse_tagging(data) {
        let again = xml::parse_tagging(xml::tagging(&tags).as_bytes());
        assert_eq!(again.map_err(|error| error.code), Ok(tags));
    }
}

/// Parses the documents of CreateBucket and of a bucket's settings. Accepted tags and CORS rules must
/// survive writing and parsing, as a document and as stored bytes.
pub fn xml_bucket(data: &[u8]) {
    let _ = xml::parse_create_bucket(data);
    let _ = xml::parse_bucket_encryption(data);
    if let Ok(tags) = xml::parse_bucket_tagging(data) {
        let again = xml::parse_bucket_tagging(xml::tagging(&tags).as_bytes()).map_err(|error| error.code);
        assert_eq!(again.as_ref(), Ok(&tags));
        assert_eq!(ops::Tags::bucket_from_bytes(&tags.to_bytes()), Some(tags));
    }
    if let Ok(cors) = xml::parse_cors(data) {
        let document = xml::cors(&cors);
        let again = xml::parse_cors(document.as_bytes()).map_err(|error| error.code);
        assert_eq!(again.as_ref(), Ok(&cors), "{document}");
        assert_eq!(ops::Cors::from_bytes(&cors.to_bytes()), Some(cors));
    }
    let _ = ops::Cors::from_bytes(data);
}

/// Parses the documents of versioning and object lock. Accepted ones must survive writing and parsing.
pub fn xml_versions(data: &[u8]) {
    if let Ok(state) = xml::parse_versioning(data) {
        let again = xml::parse_versioning(xml::versioning(Some(state)).as_bytes());
        assert_eq!(again.map_err(|error| error.code), Ok(state));
    }
    if let Ok(default) = xml::parse_object_lock(data) {
        let again = xml::parse_object_lock(xml::object_lock(default).as_bytes());
        assert_eq!(again.map_err(|error| error.code), Ok(default));
    }
    if let Ok(Some(retention)) = xml::parse_retention(data) {
        let again = xml::parse_retention(xml::retention(retention).as_bytes());
        assert_eq!(again.map_err(|error| error.code), Ok(Some(retention)));
    }
    if let Ok(is_on) = xml::parse_legal_hold(data) {
        let again = xml::parse_legal_hold(xml::legal_hold(is_on).as_bytes());
        assert_eq!(again.map_err(|error| error.code), Ok(is_on));
    }
}

/// Parses a `LifecycleConfiguration` document. Accepted rules must survive writing and parsing, as
/// a document and as stored bytes.
pub fn xml_lifecycle(data: &[u8]) {
    if let Ok(lifecycle) = xml::parse_lifecycle(data) {
        let document = xml::lifecycle(&lifecycle);
        let again = xml::parse_lifecycle(document.as_bytes()).map_err(|error| error.code);
        assert_eq!(again.as_ref(), Ok(&lifecycle), "{document}");
        assert_eq!(ops::Lifecycle::from_bytes(&lifecycle.to_bytes()), Some(lifecycle));
    }
    let _ = ops::Lifecycle::from_bytes(data);
}
