//! Parsing and writing of CORSConfiguration.

use super::read::{malformed, walk};
use super::write::Document;
use crate::http::is_token;
use crate::limits::{CORS_DOCUMENT_MAX, CORS_RULE_ID_MAX, CORS_RULES_MAX};
use crate::ops::{Cors, CorsMethod, CorsRule};
use crate::{Error, ErrorCode};

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

/// Checks that a pattern has at most one `*`.
fn pattern(element: &str, text: &str) -> Result<String, Error> {
    match text.matches('*').count() {
        0 | 1 => Ok(text.to_owned()),
        _ => Err(invalid(format!("{element} \"{text}\" can not have more than one wildcard."))),
    }
}

fn method(text: &str) -> Result<CorsMethod, Error> {
    CorsMethod::of(text.trim()).ok_or_else(|| {
        invalid(format!("Found unsupported HTTP method in CORS config. Unsupported method is {}", text.trim()))
    })
}

/// Checks the name of a header that responses list.
fn exposed(text: &str) -> Result<String, Error> {
    if text.contains('*') {
        let message = format!(
            "ExposeHeader \"{text}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
        );
        return Err(invalid(message));
    }
    if text.is_empty() || !is_token(text) {
        return Err(invalid(format!("ExposeHeader \"{text}\" is not the name of a header.")));
    }
    Ok(text.to_owned())
}

/// Parses an element of a rule. `path` is relative to the rule.
fn take(rule: &mut CorsRule, path: &[&str], text: &str) -> Result<(), Error> {
    match path {
        ["ID"] if rule.id.is_empty() => text.clone_into(&mut rule.id),
        ["AllowedOrigin"] => rule.origins.push(pattern("AllowedOrigin", text)?),
        ["AllowedHeader"] => rule.headers.push(pattern("AllowedHeader", text)?),
        ["ExposeHeader"] => rule.expose.push(exposed(text)?),
        ["AllowedMethod"] => {
            let method = method(text)?;
            if !rule.methods.contains(&method) {
                rule.methods.push(method);
            }
        }
        ["MaxAgeSeconds"] if rule.max_age_s.is_none() => {
            let seconds = text.trim().parse::<i32>().ok().and_then(|seconds| u32::try_from(seconds).ok());
            rule.max_age_s = Some(seconds.ok_or_else(malformed)?);
        }
        _ => return Err(malformed()),
    }
    Ok(())
}

fn check(rule: CorsRule) -> Result<CorsRule, Error> {
    if rule.id.chars().count() > CORS_RULE_ID_MAX {
        return Err(invalid(format!("ID length should not exceed allowed limit of {CORS_RULE_ID_MAX}")));
    }
    if rule.origins.is_empty() || rule.methods.is_empty() { Err(malformed()) } else { Ok(rule) }
}

/// Parses a `CORSConfiguration` document.
///
/// # Errors
/// `EntityTooLarge` over [`CORS_DOCUMENT_MAX`]; `MalformedXML`, also for no rules, for a rule
/// without an origin or a method, and for unknown elements; `InvalidRequest` for values that S3
/// rejects, and for more than [`CORS_RULES_MAX`].
pub fn parse_cors(document: &[u8]) -> Result<Cors, Error> {
    if document.len() > CORS_DOCUMENT_MAX {
        return Err(Error::new(ErrorCode::EntityTooLarge));
    }
    let mut cors = Cors::default();
    let mut rule = CorsRule::default();
    walk(document, |path, text| {
        match path {
            ["CORSConfiguration"] => {}
            ["CORSConfiguration", "CORSRule"] => {
                if cors.rules.len() == CORS_RULES_MAX {
                    let message =
                        format!("The number of CORS rules should not exceed allowed limit of {CORS_RULES_MAX} rules.");
                    return Err(invalid(message));
                }
                cors.rules.push(check(std::mem::take(&mut rule))?);
            }
            ["CORSConfiguration", "CORSRule", rest @ ..] => take(&mut rule, rest, text)?,
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    if cors.is_empty() { Err(malformed()) } else { Ok(cors) }
}

/// Writes the result of GetBucketCors.
pub fn cors(cors: &Cors) -> String {
    let mut doc = Document::new("CORSConfiguration");
    for rule in &cors.rules {
        doc.open("CORSRule");
        if !rule.id.is_empty() {
            doc.text("ID", &rule.id);
        }
        rule.headers.iter().for_each(|header| doc.text("AllowedHeader", header));
        rule.methods.iter().for_each(|method| doc.text("AllowedMethod", method.name()));
        rule.origins.iter().for_each(|origin| doc.text("AllowedOrigin", origin));
        rule.expose.iter().for_each(|header| doc.text("ExposeHeader", header));
        if let Some(seconds) = rule.max_age_s {
            doc.number("MaxAgeSeconds", seconds);
        }
        doc.close();
    }
    doc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "<AllowedOrigin>*</AllowedOrigin>";
    const GET: &str = "<AllowedMethod>GET</AllowedMethod>";

    fn parse(rules: &str) -> Result<Cors, ErrorCode> {
        let document =
            format!("<CORSConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rules}</CORSConfiguration>");
        let parsed = parse_cors(document.as_bytes()).map_err(|error| error.code)?;
        // The output parses to the same rules, and so does the stored form.
        assert_eq!(parse_cors(cors(&parsed).as_bytes()).as_ref(), Ok(&parsed), "{rules}");
        assert_eq!(Cors::from_bytes(&parsed.to_bytes()).as_ref(), Some(&parsed));
        Ok(parsed)
    }

    fn rule(inner: &str) -> String {
        format!("<CORSRule>{ORIGIN}{GET}{inner}</CORSRule>")
    }

    #[test]
    fn cors_documents_are_parsed() {
        let text = "\n <CORSRule>\n  <ID>a &amp; b</ID>\n  <AllowedOrigin>https://*.example</AllowedOrigin><AllowedOrigin>o</AllowedOrigin>\
            <AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod>\
            <AllowedHeader>x-amz-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds> 3000 </MaxAgeSeconds>\n </CORSRule>\n";
        let expected = CorsRule {
            id: "a & b".to_owned(),
            origins: vec!["https://*.example".to_owned(), "o".to_owned()],
            methods: vec![CorsMethod::Put, CorsMethod::Get],
            headers: vec!["x-amz-*".to_owned()],
            expose: vec!["ETag".to_owned()],
            max_age_s: Some(3000),
        };
        assert_eq!(parse(text).unwrap().rules, [expected]);
        for method in ["GET", "PUT", "HEAD", "POST", "DELETE"] {
            let rule = format!("<CORSRule>{ORIGIN}<AllowedMethod>{method}</AllowedMethod></CORSRule>");
            assert_eq!(parse(&rule).unwrap().rules[0].methods[0].name(), method);
        }
    }

    #[test]
    fn malformed_cors_rules_are_rejected() {
        use ErrorCode as C;
        let age = |text: &str| rule(&format!("<MaxAgeSeconds>{text}</MaxAgeSeconds>"));
        for (bad, code) in [
            (String::new(), C::MalformedXML),
            ("<CORSRule/>".to_owned(), C::MalformedXML),
            (format!("<CORSRule>{GET}</CORSRule>"), C::MalformedXML),
            (format!("<CORSRule>{ORIGIN}</CORSRule>"), C::MalformedXML),
            (rule("<AllowedOrigins>a</AllowedOrigins>"), C::MalformedXML),
            (rule("<ID>a</ID><ID>b</ID>"), C::MalformedXML),
            (rule("<AllowedMethod>PATCH</AllowedMethod>"), C::InvalidRequest),
            (rule("<AllowedMethod>OPTIONS</AllowedMethod>"), C::InvalidRequest),
            (rule("<AllowedMethod>get</AllowedMethod>"), C::InvalidRequest),
            (rule("<AllowedMethod>*</AllowedMethod>"), C::InvalidRequest),
            (rule("<AllowedOrigin>http://*.*</AllowedOrigin>"), C::InvalidRequest),
            (rule("<AllowedHeader>*-amz-*</AllowedHeader>"), C::InvalidRequest),
            (rule("<ExposeHeader>*</ExposeHeader>"), C::InvalidRequest),
            (rule("<ExposeHeader>x-amz-*</ExposeHeader>"), C::InvalidRequest),
            (rule("<ExposeHeader>a&#13;&#10;b</ExposeHeader>"), C::InvalidRequest),
            (rule("<ExposeHeader>a, b</ExposeHeader>"), C::InvalidRequest),
            (rule("<ExposeHeader/>"), C::InvalidRequest),
            (age("soon"), C::MalformedXML),
            (age("-1"), C::MalformedXML),
            (age("2147483648"), C::MalformedXML),
            (rule("<MaxAgeSeconds>1</MaxAgeSeconds><MaxAgeSeconds>1</MaxAgeSeconds>"), C::MalformedXML),
        ] {
            assert_eq!(parse(&bad), Err(code), "{bad}");
        }
        for bad in ["", "<CORSConfiguration/>", "<Cors/>"] {
            assert_eq!(parse_cors(bad.as_bytes()).unwrap_err().code, C::MalformedXML, "{bad}");
        }
        // Values at the limits and beyond them.
        assert!(parse(&age("0")).is_ok() && parse(&age("2147483647")).is_ok());
        let named = |len| rule(&format!("<ID>{}</ID>", "é".repeat(len)));
        assert!(parse(&named(CORS_RULE_ID_MAX)).is_ok());
        assert_eq!(parse(&named(CORS_RULE_ID_MAX + 1)), Err(C::InvalidRequest));
        assert_eq!(parse(&rule("").repeat(CORS_RULES_MAX)).unwrap().rules.len(), CORS_RULES_MAX);
        assert_eq!(parse(&rule("").repeat(CORS_RULES_MAX + 1)), Err(C::InvalidRequest));
        let sized = |len: usize| {
            let document = format!("<CORSConfiguration>{}</CORSConfiguration>", rule(""));
            document.clone() + &" ".repeat(len - document.len())
        };
        assert!(parse_cors(sized(CORS_DOCUMENT_MAX).as_bytes()).is_ok());
        assert_eq!(parse_cors(sized(CORS_DOCUMENT_MAX + 1).as_bytes()).unwrap_err().code, C::EntityTooLarge);
    }

    /// The stored form of any document is shorter than the document.
    #[test]
    fn stored_rules_are_shorter_than_their_document() {
        let short = "<CORSRule><AllowedOrigin/><AllowedMethod>PUT</AllowedMethod><AllowedHeader/></CORSRule>";
        for rules in [short.repeat(CORS_RULES_MAX), rule(&"<AllowedHeader/>".repeat(1000)), rule("")] {
            let document = format!("<CORSConfiguration>{rules}</CORSConfiguration>");
            assert!(parse_cors(document.as_bytes()).unwrap().to_bytes().len() < document.len(), "{rules}");
        }
    }
}
