//! The XML document of an error response.

use super::Document;
use crate::Error;
use crate::http::Response;

impl Error {
    /// Builds the error response; `resource` is the path of the request.
    ///
    /// ```
    /// use keyhole_s3::{Error, ErrorCode};
    ///
    /// let response = Error::new(ErrorCode::NoSuchKey).response("/edge/reading", "request-1");
    /// assert_eq!(response.status, 404);
    /// ```
    pub fn response(&self, resource: &str, request_id: &str) -> Response {
        let mut document = Document::bare("Error");
        document.text("Code", self.code.code());
        document.text("Message", &self.message);
        for (name, value) in &self.fields {
            document.text(name, value);
        }
        document.text("Resource", resource);
        document.text("RequestId", request_id);
        let mut response = Response::xml(self.code.status(), document.finish());
        for (name, value) in &self.headers {
            response = response.header(*name, value.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_document_contains_all_fields() {
        let error = Error::invalid_argument("x-amz-server-side-encryption", "<&>", "no");
        let response = error.response("/b/a<k", "ID1");
        assert_eq!(response.status, 400);
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidArgument</Code><Message>no</Message>\
            <ArgumentName>x-amz-server-side-encryption</ArgumentName><ArgumentValue>&lt;&amp;&gt;</ArgumentValue>\
            <Resource>/b/a&lt;k</Resource><RequestId>ID1</RequestId></Error>";
        assert_eq!(String::from_utf8(response.body).unwrap(), expected);
    }
}
