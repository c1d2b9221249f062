//! HTML form uploads: `multipart/form-data` (RFC 7578) with the fields that S3 defines (AWS, "POST
//! Object"), followed by the file.
//!
//! A [`FormReader`] parses the body incrementally. It collects the fields, up to a limit, and
//! passes the bytes of the file through.
//!
//! # Invariants
//! - Fields may be customer keys: they are wiped on drop.
//! - Fields after the file are ignored, as on S3, except that an encryption field there is an
//!   error.

mod policy;

use httparse::EMPTY_HEADER;
use memchr::memmem::Finder;
use percent_encoding::utf8_percent_encode;

pub use policy::Policy;

use crate::auth::ENCODED_IN_PATH;
use crate::http::{Headers, RequestHead};
use crate::limits::{BOUNDARY_MAX, FORM_FIELDS_MAX, HEADERS_MAX, KEY_MAX};
use crate::ops::{self, Tags};
use crate::query::{ENCODED, Query};
use crate::{Error, ErrorCode, sse, xml};

/// Maximum headers of one part of a form.
const PART_HEADERS_MAX: usize = 8;

/// Prefix of the names of ignored fields.
const IGNORED: &str = "x-ignore-";

/// The next element of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Parsed fields or framing of this length.
    Skip(usize),
    /// Incomplete; more input is needed.
    Need,
    /// File bytes of this length. If the caller takes fewer, the next step starts after those.
    File(usize),
    /// The end of the form; the rest is ignored.
    Done,
}

/// Returns whether a request carries a form.
pub fn is_form(head: &RequestHead) -> bool {
    let media = head.headers.text("content-type").and_then(|text| text.split(';').next()).unwrap_or_default();
    head.method == "POST" && media.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// Parses a form.
///
/// ```
/// use keyhole_s3::form::{FormReader, Step};
/// use keyhole_s3::http::parse_head;
///
/// let head = b"POST /edge HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=xyz\r\n\r\n";
/// let (head, _) = parse_head(head)?.expect("a complete head");
/// let mut reader = FormReader::new(&head)?;
/// let mut input = &b"--xyz\r\nContent-Disposition: form-data; name=key\r\n\r\nreading\r\n\
///     --xyz\r\nContent-Disposition: form-data; name=file\r\n\r\n21.5\r\n--xyz--"[..];
/// let mut file = Vec::new();
/// loop {
///     match reader.step(input)? {
///         Step::Skip(len) => input = &input[len..],
///         Step::File(len) => {
///             file.extend_from_slice(&input[..len]);
///             input = &input[len..];
///         }
///         Step::Need => panic!("a complete form"),
///         Step::Done => break,
///     }
/// }
/// assert_eq!((reader.take_form().key()?.as_str(), &file[..]), ("reading", &b"21.5"[..]));
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
pub struct FormReader {
    /// `\r\n--` and the boundary, which end every part.
    delimiter: Finder<'static>,
    state: FormState,
    /// Remaining bytes for fields.
    left: usize,
    fields: Headers,
    filename: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FormState {
    /// Expects the first delimiter.
    Start,
    /// Expects a part; whether the file has been read.
    Part {
        after_file: bool,
    },
    File,
    Done,
}

impl FormReader {
    /// Reads the boundary from the request head.
    ///
    /// # Errors
    /// `MalformedPOSTRequest`.
    pub fn new(head: &RequestHead) -> Result<Self, Error> {
        let media = head.headers.text("content-type").unwrap_or_default();
        let boundary = parameter(media, "boundary").filter(|text| (1..=BOUNDARY_MAX).contains(&text.len()));
        let boundary = boundary.ok_or_else(|| malformed("The Content-Type has no boundary of up to 70 characters."))?;
        Ok(FormReader {
            delimiter: Finder::new(&format!("\r\n--{boundary}")).into_owned(),
            state: FormState::Start,
            left: FORM_FIELDS_MAX,
            fields: Headers::default(),
            filename: None,
        })
    }

    /// Parses the beginning of the input.
    ///
    /// # Errors
    /// `MalformedPOSTRequest`; `MaxPostPreDataLengthExceeded` beyond [`FORM_FIELDS_MAX`];
    /// `IncorrectNumberOfFilesInPostRequest`; `InvalidArgument` for a repeated field.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Error> {
        match self.state {
            FormState::Start => self.start(input),
            FormState::Part { after_file } => self.part(input, after_file),
            FormState::File => self.file(input),
            FormState::Done => Ok(Step::Done),
        }
    }

    /// Returns whether the fields are complete and the file is next.
    pub fn is_at_file(&self) -> bool {
        self.state == FormState::File
    }

    /// Returns whether the file is complete.
    pub fn is_behind_file(&self) -> bool {
        matches!(self.state, FormState::Part { after_file: true } | FormState::Done)
    }

    /// Takes the fields before the file.
    pub fn take_form(&mut self) -> Form {
        Form { fields: std::mem::take(&mut self.fields), filename: self.filename.take().unwrap_or_default() }
    }

    fn start(&mut self, input: &[u8]) -> Result<Step, Error> {
        let delimiter = self.delimiter.needle();
        // The first delimiter has no leading line end, but some clients send one.
        let first = if input.starts_with(b"\r") { delimiter } else { &delimiter[2..] };
        let len = first.len() + 2;
        if input.len() < len {
            let known = input.len().min(first.len());
            return if input[..known] == first[..known] { Ok(Step::Need) } else { Err(missing_delimiter()) };
        }
        if input[..first.len()] != *first || input[first.len()..len] != *b"\r\n" {
            return Err(missing_delimiter());
        }
        self.state = FormState::Part { after_file: false };
        self.spend(len)
    }

    /// Parses a field together with the delimiter after it, or the headers of the file.
    fn part(&mut self, input: &[u8], after_file: bool) -> Result<Step, Error> {
        let input = &input[..input.len().min(self.left)];
        let need = || {
            if input.len() == self.left {
                return Err(Error::new(ErrorCode::MaxPostPreDataLengthExceeded));
            }
            Ok(Step::Need)
        };
        let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") else { return need() };
        let disposition = Disposition::parse(&input[..end + 4])?;
        let value_at = end + 4;
        if disposition.name.eq_ignore_ascii_case("file") {
            if after_file {
                return Err(Error::new(ErrorCode::IncorrectNumberOfFilesInPostRequest));
            }
            self.filename = disposition.filename;
            self.state = FormState::File;
            return self.spend(value_at);
        }
        // After an empty value, the delimiter's line end is the one that ends the headers.
        let Some(at) = self.delimiter.find(&input[value_at - 2..]) else { return need() };
        let value_end = (value_at - 2 + at).max(value_at);
        let behind = value_at - 2 + at + self.delimiter.needle().len();
        let Some(tail) = input.get(behind..behind + 2) else { return need() };
        self.state = match tail {
            b"\r\n" => FormState::Part { after_file },
            b"--" if after_file => FormState::Done,
            b"--" => return Err(Error::new(ErrorCode::IncorrectNumberOfFilesInPostRequest)),
            _ => return Err(missing_delimiter()),
        };
        let name = disposition.name.to_ascii_lowercase();
        if after_file {
            refuse_late(&name)?;
        } else {
            self.keep(name, &input[value_at..value_end])?;
        }
        self.spend(behind + 2)
    }

    fn keep(&mut self, name: String, value: &[u8]) -> Result<(), Error> {
        if self.fields.get(&name).is_some() || self.fields.iter().count() == HEADERS_MAX {
            let message =
                "A field of the form is there twice, or there are too many. Send each once, ahead of the file.";
            return Err(Error::new(ErrorCode::InvalidArgument).with_message(message).with_field("ArgumentName", name));
        }
        self.fields.push(&name, value);
        Ok(())
    }

    fn file(&mut self, input: &[u8]) -> Result<Step, Error> {
        let delimiter = self.delimiter.needle();
        match self.delimiter.find(input) {
            Some(0) => {
                let end = delimiter.len();
                self.state = match input.get(end..end + 2) {
                    None => return Ok(Step::Need),
                    Some(b"\r\n") => FormState::Part { after_file: true },
                    Some(b"--") => FormState::Done,
                    Some(_) => return Err(missing_delimiter()),
                };
                self.left = FORM_FIELDS_MAX;
                Ok(Step::Skip(end + 2))
            }
            Some(at) => Ok(Step::File(at)),
            // A possible beginning of a delimiter must wait for more input.
            None => match input.len().saturating_sub(delimiter.len() - 1) {
                0 => Ok(Step::Need),
                len => Ok(Step::File(len)),
            },
        }
    }

    fn spend(&mut self, len: usize) -> Result<Step, Error> {
        match self.left.checked_sub(len) {
            Some(left) => {
                self.left = left;
                Ok(Step::Skip(len))
            }
            None => Err(Error::new(ErrorCode::MaxPostPreDataLengthExceeded)),
        }
    }
}

fn malformed(message: &'static str) -> Error {
    Error::new(ErrorCode::MalformedPOSTRequest).with_message(message)
}

fn missing_delimiter() -> Error {
    malformed("The body of your POST request has no boundary where one must be, or something behind one.")
}

/// Rejects an encryption field after the file: it comes too late, and the file would be stored in
/// plaintext.
fn refuse_late(name: &str) -> Result<(), Error> {
    let is_storage_field = name.contains("server-side-encryption")
        || name.starts_with("x-keyhole-")
        || sse::refuse_misspelt(name).is_err();
    if !is_storage_field || name.starts_with(IGNORED) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidArgument)
        .with_message("Fields that say how to store the file come ahead of it.")
        .with_field("ArgumentName", name))
}

/// The parsed `Content-Disposition` of a part.
struct Disposition {
    name: String,
    filename: Option<String>,
}

impl Disposition {
    fn parse(headers: &[u8]) -> Result<Self, Error> {
        let mut fields = [EMPTY_HEADER; PART_HEADERS_MAX];
        let wrong = || malformed("A part of your POST request has no Content-Disposition: form-data with a name.");
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(headers, &mut fields) else {
            return Err(wrong());
        };
        let is_match = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-disposition");
        let text =
            fields.iter().find(is_match).and_then(|field| std::str::from_utf8(field.value).ok()).ok_or_else(wrong)?;
        let kind = text.split(';').next().unwrap_or_default();
        let name = parameter(text, "name").filter(|name| !name.is_empty()).ok_or_else(wrong)?;
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return Err(wrong());
        }
        Ok(Disposition { name, filename: parameter(text, "filename") })
    }
}

/// Returns a parameter of a header, as a token or quoted. In quotes a backslash escapes only a
/// quote, because browsers send Windows paths.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text.split_once(';')?.1;
    loop {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            None => {
                let (value, after) = value.split_once(';').unwrap_or((value, ""));
                (value.trim().to_owned(), after)
            }
            Some(quoted) => {
                let end = quoted.match_indices('"').map(|(at, _)| at).find(|at| !quoted[..*at].ends_with('\\'))?;
                let after = quoted[end + 1..].trim_start();
                (quoted[..end].replace("\\\"", "\""), after.strip_prefix(';').unwrap_or(after))
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// The fields of a form.
#[derive(Debug)]
pub struct Form {
    fields: Headers,
    filename: String,
}

/// The response to a successful upload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Success {
    /// This status: 200 or 204 without a body, 201 with a document.
    Status(u16),
    /// 303 with this URL.
    Redirect(String),
}

impl Form {
    /// Returns the fields, with lower-case names.
    pub fn fields(&self) -> &Headers {
        &self.fields
    }

    /// Returns the object key, with the file name inserted.
    ///
    /// # Errors
    /// `InvalidArgument` if it is missing, `UserKeyMustBeSpecified` if it is empty,
    /// `KeyTooLongError`.
    pub fn key(&self) -> Result<String, Error> {
        let Some(key) = self.fields.get("key") else {
            let message = "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.";
            return Err(Error::invalid_argument("key", "", message));
        };
        let key = std::str::from_utf8(key).map_err(|_| Error::invalid_argument("key", "", "A key is UTF-8."))?;
        let filename = self.filename.rsplit(['/', '\\']).next().unwrap_or_default();
        let key = key.replace("${filename}", filename);
        match key.len() {
            0 => Err(Error::new(ErrorCode::UserKeyMustBeSpecified)),
            1..=KEY_MAX => Ok(key),
            len => Err(Error::new(ErrorCode::KeyTooLongError)
                .with_field("Size", len.to_string())
                .with_field("MaxSizeAllowed", KEY_MAX.to_string())),
        }
    }

    /// Parses the XML document in the field `tagging`.
    ///
    /// # Errors
    /// The errors of [`xml::parse_tagging`].
    pub fn tags(&self) -> Result<Tags, Error> {
        self.fields.get("tagging").map_or(Ok(Tags::default()), xml::parse_tagging)
    }

    /// Returns the response to send on success. Invalid URLs and other statuses are ignored, as on
    /// S3.
    pub fn success(&self) -> Success {
        let redirect = self.fields.text("success_action_redirect").or_else(|| self.fields.text("redirect"));
        let is_url = |url: &&str| {
            (url.starts_with("http://") || url.starts_with("https://"))
                && url.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match (redirect.filter(is_url), self.fields.get("success_action_status")) {
            (Some(url), _) => Success::Redirect(url.to_owned()),
            (None, Some(b"200")) => Success::Status(200),
            (None, Some(b"201")) => Success::Status(201),
            (None, _) => Success::Status(204),
        }
    }

    /// Converts the form to the request head of an equivalent PUT, with the fields as headers.
    pub fn into_head(self) -> RequestHead {
        let mut headers = Headers::default();
        for (name, value) in self.fields.iter().filter(|(name, _)| !name.starts_with(IGNORED)) {
            headers.push(name, value);
        }
        if let Some(acl) = headers.get("acl").map(<[u8]>::to_vec) {
            headers.push("x-amz-acl", &acl);
        }
        RequestHead {
            method: "PUT".to_owned(),
            path: "/".to_owned(),
            decoded_path: None,
            query: Query::default(),
            headers,
            is_http_1_0: false,
            keep_alive: false,
            expects_continue: false,
            content_length: None,
            is_chunked: false,
        }
    }
}

/// Encodes a key for a path.
pub fn encode_path(key: &str) -> String {
    utf8_percent_encode(key, &ENCODED_IN_PATH).to_string()
}

/// Builds the redirect URL: appends bucket, key and ETag (`etag` is unquoted) to the URL of
/// `success_action_redirect`.
pub fn redirect(url: &str, bucket: &str, key: &str, etag: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, &ENCODED).to_string();
    let (url, fragment) = url.find('#').map_or((url, ""), |at| url.split_at(at));
    let sign = if url.contains('?') { '&' } else { '?' };
    let key = encode(key);
    let etag = encode(&format!("\"{etag}\""));
    format!("{url}{sign}bucket={bucket}&key={key}&etag={etag}{fragment}")
}

/// Rejects headers that carry meaning on a form request, whose fields say how to store the file.
/// Rejects them in its query too, which no signature covers.
///
/// # Errors
/// `InvalidRequest`.
pub fn refuse_headers(head: &RequestHead) -> Result<(), Error> {
    let hoisted = ops::hoist(head)?;
    ops::check_form_headers(&hoisted.as_deref().unwrap_or(head).headers)
}

#[cfg(test)]
mod tests;
