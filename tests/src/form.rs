//! HTML forms for uploads (PostObject).

use crate::data::base64;
use crate::sigv4::{Signer, amz_date};
use crate::{Node, Request, Response};

/// The boundary between the fields of a form.
pub const BOUNDARY: &str = "----KeyholeFormBoundary7MA4YWxk";

/// Returns the system's time in ms since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A form builder.
#[derive(Clone)]
pub struct Form {
    /// Names and values of the fields before the file.
    pub fields: Vec<(String, String)>,
    /// The conditions of the policy, as JSON.
    pub conditions: Vec<String>,
    /// The expiration of the policy.
    pub expiration: String,
    /// The name of the file.
    pub filename: String,
    /// The content of the file.
    pub file: Vec<u8>,
    /// Fields after the file.
    pub late: Vec<(String, String)>,
}

impl Form {
    /// Creates a form for a key, with conditions for it and the bucket.
    pub fn new(key: &str, file: impl Into<Vec<u8>>) -> Self {
        let form = Form {
            fields: Vec::new(),
            conditions: Vec::new(),
            expiration: "2099-01-01T00:00:00.000Z".to_owned(),
            filename: "file.txt".to_owned(),
            file: file.into(),
            late: Vec::new(),
        };
        form.condition("{\"bucket\": \"bucket\"}").condition("[\"starts-with\", \"$key\", \"\"]").free("key", key)
    }

    /// Adds a condition to the policy, as JSON.
    pub fn condition(mut self, condition: &str) -> Self {
        self.conditions.push(condition.to_owned());
        self
    }

    /// Adds a field without a condition in the policy.
    pub fn free(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a field with an equality condition.
    pub fn field(self, name: &str, value: &str) -> Self {
        let condition = serde_json::json!({ name: value }).to_string();
        self.condition(&condition).free(name, value)
    }

    /// Adds fields with equality conditions.
    pub fn fields(mut self, fields: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in fields {
            self = self.field(&name, &value);
        }
        self
    }

    /// Adds the policy and its signature, as of a time in ms since 1970.
    pub fn signed(self, signer: &Signer, now_ms: i64) -> Self {
        let date = amz_date(now_ms);
        let form = self
            .field("x-amz-algorithm", "AWS4-HMAC-SHA256")
            .field("X-Amz-Credential", &signer.credential(&date))
            .field("x-amz-date", &date);
        let conditions = form.conditions.join(", ");
        let policy = format!("{{\"expiration\": \"{}\", \"conditions\": [{conditions}]}}", form.expiration);
        let policy = base64(policy.as_bytes());
        let signature = signer.policy_signature(&policy, &date);
        form.free("Policy", &policy).free("x-amz-signature", &signature)
    }

    /// Returns the encoded form.
    pub fn body(&self) -> Vec<u8> {
        let field = |(name, value): &(String, String)| {
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let mut body: Vec<u8> = self.fields.iter().flat_map(|pair| field(pair).into_bytes()).collect();
        body.extend(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
                Content-Type: application/x-of-the-part\r\n\r\n",
                self.filename
            )
            .into_bytes(),
        );
        body.extend_from_slice(&self.file);
        body.extend(b"\r\n");
        body.extend(self.late.iter().flat_map(|pair| field(pair).into_bytes()));
        body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        body
    }

    /// Returns the unsigned request with the form.
    pub fn request(&self) -> Request {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        Request::new("POST", "/bucket").header("content-type", kind).body(self.body())
    }

    /// Sends the form.
    pub fn send(&self, node: &Node) -> Response {
        self.request().send_unsigned(node.address())
    }
}
