//! CORS rules of a bucket (AWS, "Using cross-origin resource sharing"): their encoding in bucket
//! settings, and the response headers of the requests that they allow. The XML document is handled
//! in [`xml`](crate::xml).

use super::encoding::{decode_rules, encode_rules, push_text, take, take_text};
use crate::http::RequestHead;
use crate::limits::{CORS_REQUEST_HEADERS_MAX, CORS_RULES_MAX};
use crate::{Error, ErrorCode};

/// The value of `Vary` on responses that depend on a bucket's CORS rules.
pub const CORS_VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// A method that a rule can allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // Named as in HTTP.
pub enum CorsMethod {
    Get = 0,
    Put = 1,
    Head = 2,
    Post = 3,
    Delete = 4,
}

impl CorsMethod {
    const ALL: [CorsMethod; 5] =
        [CorsMethod::Get, CorsMethod::Put, CorsMethod::Head, CorsMethod::Post, CorsMethod::Delete];

    /// Returns the method's name.
    pub const fn name(self) -> &'static str {
        match self {
            CorsMethod::Get => "GET",
            CorsMethod::Put => "PUT",
            CorsMethod::Head => "HEAD",
            CorsMethod::Post => "POST",
            CorsMethod::Delete => "DELETE",
        }
    }

    /// Returns the method of this name, if rules can allow it.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A CORS rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CorsRule {
    /// The id; empty if the rule has none.
    pub id: String,
    /// Origins that are allowed, each with at most one `*` that stands for any text.
    pub origins: Vec<String>,
    /// Methods that are allowed; each occurs once.
    pub methods: Vec<CorsMethod>,
    /// Request headers that are allowed, each with at most one `*` that stands for any text.
    pub headers: Vec<String>,
    /// Response headers that a script may read.
    pub expose: Vec<String>,
    /// Seconds for which a browser may keep the answer to a preflight request.
    pub max_age_s: Option<u32>,
}

impl CorsRule {
    fn allows(&self, request: &CorsRequest<'_>) -> bool {
        let is_allowed = |header: &String| self.headers.iter().any(|pattern| matches_header(pattern, header));
        self.methods.contains(&request.method)
            && self.origins.iter().any(|pattern| matches_origin(pattern, request.origin))
            && request.headers.iter().all(is_allowed)
    }
}

/// Returns the text before and after the `*` of a pattern; without `*`, `None`.
fn halves(pattern: &str) -> Option<(&str, &str)> {
    pattern.split_once('*')
}

fn matches_origin(pattern: &str, origin: &str) -> bool {
    match halves(pattern) {
        None => pattern == origin,
        Some((start, end)) => {
            origin.len() >= start.len() + end.len() && origin.starts_with(start) && origin.ends_with(end)
        }
    }
}

/// Compares a pattern with the name of a header, which has no case.
fn matches_header(pattern: &str, name: &str) -> bool {
    let name = name.as_bytes();
    match halves(pattern) {
        None => name.eq_ignore_ascii_case(pattern.as_bytes()),
        Some((start, end)) => {
            name.len() >= start.len() + end.len()
                && name[..start.len()].eq_ignore_ascii_case(start.as_bytes())
                && name[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
        }
    }
}

/// The origin, method and headers of a cross-origin request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorsRequest<'a> {
    origin: &'a str,
    method: CorsMethod,
    /// Lower-case names of the headers that the request will have.
    headers: Vec<String>,
}

impl<'a> CorsRequest<'a> {
    /// Parses a preflight request.
    ///
    /// # Errors
    /// `BadRequest` without `Origin`, and without a method that rules can allow; `AccessForbidden`
    /// for more than [`CORS_REQUEST_HEADERS_MAX`] headers.
    pub fn preflight(head: &'a RequestHead) -> Result<Self, Error> {
        let bad = |message: String| Error::new(ErrorCode::BadRequest).with_message(message);
        let origin = head
            .headers
            .text("origin")
            .ok_or_else(|| bad("Insufficient information. Origin request header needed.".to_owned()))?;
        let name = head.headers.text("access-control-request-method");
        let method = name
            .and_then(CorsMethod::of)
            .ok_or_else(|| bad(format!("Invalid Access-Control-Request-Method: {}", name.unwrap_or("null"))))?;
        let headers = requested_headers(head).ok_or_else(|| cors_not_allowed(head, true))?;
        Ok(CorsRequest { origin, method, headers })
    }

    /// Parses a request other than a preflight. `None` without `Origin`, and for a request that no
    /// rule can allow.
    pub fn actual(head: &'a RequestHead) -> Option<Self> {
        let origin = head.headers.text("origin")?;
        Some(CorsRequest { origin, method: CorsMethod::of(&head.method)?, headers: requested_headers(head)? })
    }
}

/// Returns the names in `Access-Control-Request-Headers`. `None` if there are too many.
fn requested_headers(head: &RequestHead) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for value in head.headers.all("access-control-request-headers") {
        for name in String::from_utf8_lossy(value).split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if names.len() == CORS_REQUEST_HEADERS_MAX {
                return None;
            }
            names.push(name.to_ascii_lowercase());
        }
    }
    Some(names)
}

/// Returns the error for a preflight request to a bucket without rules. A bucket that does not exist
/// has the same error, so that a private bucket's existence is not revealed.
pub fn cors_not_enabled(head: &RequestHead) -> Error {
    let message = "CORSResponse: CORS is not enabled for this bucket.";
    forbidden(head, message, "BUCKET")
}

/// Returns the error for a preflight request that no rule allows.
pub fn cors_not_allowed(head: &RequestHead, is_object: bool) -> Error {
    let message = "CORSResponse: This CORS request is not allowed. This is usually because the evaluation of Origin, \
        request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the \
        resource's CORS spec.";
    forbidden(head, message, if is_object { "OBJECT" } else { "BUCKET" })
}

fn forbidden(head: &RequestHead, message: &'static str, resource: &str) -> Error {
    let method = head.headers.text("access-control-request-method").and_then(CorsMethod::of);
    Error::new(ErrorCode::AccessForbidden)
        .with_message(message)
        .with_field("Method", method.map_or("OPTIONS", CorsMethod::name))
        .with_field("ResourceType", resource)
}

/// The CORS rules of a bucket, in the client's order.
///
/// ```
/// use keyhole_s3::http::parse_head;
/// use keyhole_s3::ops::CorsRequest;
///
/// let document = b"<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example</AllowedOrigin>\
///     <AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>";
/// let cors = keyhole_s3::xml::parse_cors(document)?;
/// let head = b"GET /bucket/key HTTP/1.1\r\nHost: node\r\nOrigin: https://app.example\r\n\r\n";
/// let (head, _) = parse_head(head)?.expect("a complete head");
/// let request = CorsRequest::actual(&head).expect("an origin");
/// let headers = cors.response_headers(&request).expect("a rule that allows it");
/// assert!(headers.contains(&("Access-Control-Allow-Origin", "https://app.example".to_owned())));
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cors {
    /// At most [`CORS_RULES_MAX`].
    pub rules: Vec<CorsRule>,
}

const NO_MAX_AGE: u32 = u32::MAX;

impl Cors {
    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the response headers of a request, without `Vary`, by the first rule that allows it.
    /// `None` if no rule does.
    pub fn response_headers(&self, request: &CorsRequest<'_>) -> Option<Vec<(&'static str, String)>> {
        let rule = self.rules.iter().find(|rule| rule.allows(request))?;
        let mut headers = Vec::with_capacity(6);
        if rule.origins.iter().any(|origin| origin == "*") {
            headers.push(("Access-Control-Allow-Origin", "*".to_owned()));
        } else {
            headers.push(("Access-Control-Allow-Origin", request.origin.to_owned()));
            headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
        }
        let methods: Vec<&str> = rule.methods.iter().map(|method| method.name()).collect();
        headers.push(("Access-Control-Allow-Methods", methods.join(", ")));
        if !request.headers.is_empty() {
            headers.push(("Access-Control-Allow-Headers", request.headers.join(", ")));
        }
        if !rule.expose.is_empty() {
            headers.push(("Access-Control-Expose-Headers", rule.expose.join(", ")));
        }
        if let Some(max_age_s) = rule.max_age_s {
            headers.push(("Access-Control-Max-Age", max_age_s.to_string()));
        }
        Some(headers)
    }

    /// Encodes the rules for the bucket's settings; without rules, the encoding is empty. Otherwise
    /// a version byte (1), and for each rule: the seconds in 4 bytes (all ones: none); the number of
    /// methods in a byte and a byte for each (0 GET, 1 PUT, 2 HEAD, 3 POST, 4 DELETE); the id; and
    /// the origins, headers and exposed headers, each list with its length in 2 bytes. A text has
    /// its length in 2 bytes before it. Integers are little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_rules(&self.rules, encode_rule)
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes). Returns `None` if the encoding is
    /// unknown.
    pub fn from_bytes(bytes: &[u8]) -> Option<Cors> {
        decode_rules(bytes, CORS_RULES_MAX, take_rule).map(|rules| Cors { rules })
    }
}

fn encode_rule(rule: &CorsRule, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&rule.max_age_s.unwrap_or(NO_MAX_AGE).to_le_bytes());
    bytes.push(rule.methods.len() as u8);
    bytes.extend(rule.methods.iter().map(|method| *method as u8));
    push_text(bytes, &rule.id);
    for texts in [&rule.origins, &rule.headers, &rule.expose] {
        bytes.extend_from_slice(&(texts.len() as u16).to_le_bytes());
        texts.iter().for_each(|text| push_text(bytes, text));
    }
}

fn take_rule(bytes: &mut &[u8]) -> Option<CorsRule> {
    let max_age_s = Some(u32::from_le_bytes(take(bytes)?)).filter(|seconds| *seconds != NO_MAX_AGE);
    let [count] = take(bytes)?;
    let mut methods = Vec::new();
    for _ in 0..count {
        let [method] = take(bytes)?;
        methods.push(*CorsMethod::ALL.get(usize::from(method))?);
    }
    let id = take_text(bytes)?;
    let origins = take_texts(bytes)?;
    let headers = take_texts(bytes)?;
    let expose = take_texts(bytes)?;
    let is_rule = !methods.is_empty() && !origins.is_empty();
    is_rule.then_some(CorsRule { id, origins, methods, headers, expose, max_age_s })
}

fn take_texts(bytes: &mut &[u8]) -> Option<Vec<String>> {
    let count = u16::from_le_bytes(take(bytes)?);
    (0..count).map(|_| take_text(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    fn rule(origins: &[&str], methods: &[CorsMethod], headers: &[&str]) -> CorsRule {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        CorsRule { origins: texts(origins), methods: methods.to_vec(), headers: texts(headers), ..CorsRule::default() }
    }

    fn preflight(
        cors: &Cors,
        origin: &str,
        method: &str,
        headers: &str,
    ) -> Result<Vec<(&'static str, String)>, ErrorCode> {
        let head = head(&format!(
            "OPTIONS /b/k HTTP/1.1\nOrigin: {origin}\nAccess-Control-Request-Method: {method}\nAccess-Control-Request-Headers: {headers}"
        ));
        let request = CorsRequest::preflight(&head).map_err(|error| error.code)?;
        cors.response_headers(&request).ok_or_else(|| cors_not_allowed(&head, true).code)
    }

    #[test]
    fn origins_and_headers_match_with_one_wildcard() {
        for (pattern, origin, expected) in [
            ("https://app.example", "https://app.example", true),
            ("https://app.example", "https://APP.example", false),
            ("https://app.example", "https://app.example:8080", false),
            ("*", "null", true),
            ("https://*.example", "https://app.example", true),
            ("https://*.example", "https://.example", true),
            ("https://*.example", "https://example", false),
            ("http://a*a", "http://a", false),
            ("https://*", "http://app.example", false),
        ] {
            assert_eq!(matches_origin(pattern, origin), expected, "{pattern} {origin}");
        }
        for (pattern, name, expected) in [
            ("Content-Type", "content-type", true),
            ("x-amz-*", "X-AMZ-Meta-a", true),
            ("x-amz-*", "x-amz", false),
            ("*-Type", "content-type", true),
            ("a*a", "a", false),
            ("*", "é", true),
        ] {
            assert_eq!(matches_header(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn first_rule_that_allows_the_request_answers() {
        use CorsMethod::{Delete, Get, Put};
        let any = CorsRule { max_age_s: Some(3000), ..rule(&["*"], &[Get], &[]) };
        let app = CorsRule {
            expose: vec!["ETag".to_owned(), "x-amz-request-id".to_owned()],
            ..rule(&["https://app.example", "https://*.test"], &[Put, Delete], &["content-type", "x-amz-*"])
        };
        let cors = Cors { rules: vec![any, app] };
        let names = |headers: Vec<(&'static str, String)>| {
            headers
                .into_iter()
                .map(|(name, value)| format!("{}: {value}", &name["Access-Control-".len()..]))
                .collect::<Vec<_>>()
        };
        let got = preflight(&cors, "https://other.example", "GET", "").map(names).unwrap();
        assert_eq!(got, ["Allow-Origin: *", "Allow-Methods: GET", "Max-Age: 3000"]);
        let got = preflight(&cors, "https://x.test", "PUT", "Content-Type,  X-Amz-Date ,").map(names).unwrap();
        let expected = [
            "Allow-Origin: https://x.test",
            "Allow-Credentials: true",
            "Allow-Methods: PUT, DELETE",
            "Allow-Headers: content-type, x-amz-date",
            "Expose-Headers: ETag, x-amz-request-id",
        ];
        assert_eq!(got, expected);
        for (origin, method, headers) in [
            ("https://other.example", "PUT", ""),
            ("https://app.example", "POST", ""),
            ("https://app.example", "PUT", "content-type, authorization"),
            ("https://app.example", "GET", "content-type"),
        ] {
            assert_eq!(preflight(&cors, origin, method, headers), Err(ErrorCode::AccessForbidden), "{origin} {method}");
        }
        for method in ["", "PATCH", "get"] {
            assert_eq!(preflight(&cors, "https://app.example", method, ""), Err(ErrorCode::BadRequest), "{method}");
        }
    }

    #[test]
    fn requested_headers_are_limited() {
        let cors = Cors { rules: vec![rule(&["*"], &[CorsMethod::Get], &["*"])] };
        let names = |count: usize| (0..count).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert!(preflight(&cors, "o", "GET", &names(CORS_REQUEST_HEADERS_MAX)).is_ok());
        assert_eq!(preflight(&cors, "o", "GET", &names(CORS_REQUEST_HEADERS_MAX + 1)), Err(ErrorCode::AccessForbidden));
    }

    #[test]
    fn rules_survive_storage() {
        let full = CorsRule {
            id: "é".to_owned(),
            expose: vec!["ETag".to_owned()],
            max_age_s: Some(0),
            ..rule(&["*", "a"], &CorsMethod::ALL, &["x-*", ""])
        };
        let cors = Cors { rules: vec![full, rule(&["o"], &[CorsMethod::Head], &[])] };
        let bytes = cors.to_bytes();
        assert_eq!(Cors::from_bytes(&bytes), Some(cors.clone()));
        assert_eq!(Cors::from_bytes(b""), Some(Cors::default()));
        assert!(Cors::default().to_bytes().is_empty());
        for len in 1..bytes.len() {
            let cut = Cors::from_bytes(&bytes[..len]);
            assert!(cut.is_none_or(|cut| cors.rules.starts_with(&cut.rules) && cut != cors), "{len}");
        }
        let many = |count| Cors { rules: vec![rule(&["o"], &[CorsMethod::Get], &[]); count] }.to_bytes();
        assert!(
            Cors::from_bytes(&many(CORS_RULES_MAX)).is_some() && Cors::from_bytes(&many(CORS_RULES_MAX + 1)).is_none()
        );
        for bad in [
            &[1][..],
            &[2, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 1, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Cors::from_bytes(bad), None, "{bad:?}");
        }
    }
}
