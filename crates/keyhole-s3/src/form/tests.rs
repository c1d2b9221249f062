//! Forms as browsers send them, split at every position; malformed forms; the policy of AWS's
//! example.

use base64ct::{Base64, Encoding};

use super::*;
use crate::auth::authenticate_form;
use crate::auth::tests::Example;
use crate::http::tests::head;
use crate::ops::{Operation, check_headers};

fn reader(boundary: &str) -> Result<FormReader, Error> {
    FormReader::new(&head(&format!("POST /bucket HTTP/1.1\nContent-Type: multipart/form-data; boundary={boundary}")))
}

fn field(name: &str, value: &str) -> String {
    format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(content: &str) -> String {
    format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n{content}"
    )
}

/// Parses a form in pieces of `piece` bytes, taking at most `most` bytes of the file at a time.
/// Returns the fields and the file.
fn read(text: &[u8], piece: usize, most: usize) -> Result<(Form, Vec<u8>), ErrorCode> {
    let mut reader = reader("xyz").map_err(|error| error.code)?;
    let mut form = None;
    let mut content = Vec::new();
    let mut input = Vec::new();
    let mut pieces = text.chunks(piece);
    loop {
        match reader.step(&input).map_err(|error| error.code)? {
            Step::Skip(len) => drop(input.drain(..len)),
            Step::File(len) => {
                assert!(len > 0);
                form.get_or_insert_with(|| reader.take_form());
                content.extend(input.drain(..len.min(most)));
            }
            Step::Need => input.extend_from_slice(pieces.next().ok_or(ErrorCode::IncompleteBody)?),
            Step::Done => return Ok((form.unwrap_or_else(|| reader.take_form()), content)),
        }
    }
}

#[test]
fn form_is_parsed_for_every_split() {
    // The file contains prefixes of the delimiter.
    let content = "line\r\n--xy\r\n--xy-\r\r\n-\r\n--x";
    let late = field("submit", "Upload");
    let text = [
        &field("key", "user/${filename}")[..],
        &field("Content-Type", ""),
        &field("x-amz-meta-a", "two\r\nlines"),
        &file(content),
        "\r\n",
        &late,
        "--xyz--\r\nwhatever",
    ]
    .concat();
    for piece in 1..text.len() {
        for most in [1, 7, usize::MAX] {
            let (form, got) = read(text.as_bytes(), piece, most).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), content, "in pieces of {piece}");
            let fields: Vec<_> = form.fields().iter().collect();
            let expected: [(&str, &[u8]); 3] =
                [("key", b"user/${filename}"), ("content-type", b""), ("x-amz-meta-a", b"two\r\nlines")];
            assert_eq!(fields, expected);
            assert_eq!(form.key().unwrap(), "user/a.txt");
        }
    }
    for content in ["", "\r\n", "a"] {
        for start in ["", "\r\n"] {
            let text = format!("{start}{}\r\n--xyz--", file(content));
            for piece in [1, 2, 3, 1000] {
                assert_eq!(read(text.as_bytes(), piece, 10).unwrap().1, content.as_bytes());
            }
        }
    }
}

#[test]
fn malformed_forms_are_rejected() {
    use ErrorCode as C;
    let check = |text: &str, code| {
        for piece in [1, 5, 10_000] {
            assert_eq!(read(text.as_bytes(), piece, 10).map(|_| ()).unwrap_err(), code, "{text}");
        }
    };
    check("", C::IncompleteBody);
    check("--abc\r\n", C::MalformedPOSTRequest);
    check("preamble\r\n--xyz\r\n", C::MalformedPOSTRequest);
    check("--xyz--\r\n", C::MalformedPOSTRequest);
    check(&file("cut"), C::IncompleteBody);
    check(&(file("x") + "\r\n--xyz"), C::IncompleteBody);
    check(&(file("x") + "\r\n--xyzz--"), C::MalformedPOSTRequest);
    check(&(field("key", "k") + "--xyz--"), C::IncorrectNumberOfFilesInPostRequest);
    check(&(file("x") + "\r\n" + &file("y") + "\r\n--xyz--"), C::IncorrectNumberOfFilesInPostRequest);
    check(&(field("key", "k") + &field("KEY", "k") + &file("x")), C::InvalidArgument);
    check("--xyz\r\nContent-Type: a/b\r\n\r\n", C::MalformedPOSTRequest);
    check("--xyz\r\nContent-Disposition: form-data\r\n\r\n", C::MalformedPOSTRequest);
    check("--xyz\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n", C::MalformedPOSTRequest);
    // An encryption field after the file.
    let late = field("x-amz-server-side-encryption-customer-key", "k") + "--xyz--";
    check(&(file("x") + "\r\n" + &late), C::InvalidArgument);
    for bad in ["", "\"\"", &"b".repeat(BOUNDARY_MAX + 1)] {
        assert!(reader(bad).is_err(), "{bad}");
    }
    assert!(reader(&"b".repeat(BOUNDARY_MAX)).is_ok() && reader("\"a b\"; charset=utf-8").is_ok());
}

#[test]
fn form_fields_are_limited() {
    let form = |extra: usize| field("key", "k") + &field("a", &"v".repeat(extra)) + &file("x") + "\r\n--xyz--";
    let room = FORM_FIELDS_MAX - (form(0).len() - "x\r\n--xyz--".len());
    assert!(read(form(room).as_bytes(), 1000, 10).is_ok());
    let code = |text: String| read(text.as_bytes(), 1000, 10).map(|_| ()).unwrap_err();
    assert_eq!(code(form(room + 1)), ErrorCode::MaxPostPreDataLengthExceeded);
    let late = file("x") + "\r\n" + &field("a", &"v".repeat(FORM_FIELDS_MAX)) + "--xyz--";
    assert_eq!(code(late), ErrorCode::MaxPostPreDataLengthExceeded);
    let many: String = (0..=HEADERS_MAX).map(|i| field(&i.to_string(), "")).collect();
    assert_eq!(code(many + &file("x")), ErrorCode::InvalidArgument);
}

#[test]
fn file_names_are_inserted_into_keys() {
    for (filename, expected) in [
        ("a.txt", "a.txt"),
        ("C:\\dir\\a.txt", "a.txt"),
        ("/dir/a b.txt", "a b.txt"),
        ("say \\\"a\\\".txt", "say \"a\".txt"),
        ("é;name=x.txt", "é;name=x.txt"),
    ] {
        let part = format!("--xyz\r\ncontent-disposition: FORM-DATA; filename=\"{filename}\"; name=file\r\n\r\n");
        let text = field("key", "${filename}/${filename}") + &part + "\r\n--xyz--";
        let (form, _) = read(text.as_bytes(), 9, 10).unwrap();
        assert_eq!(form.key().unwrap(), format!("{expected}/{expected}"));
    }
}

#[test]
fn form_keys_and_success_responses_are_parsed() {
    let form = |fields: &[(&str, &str)]| {
        let fields: String = fields.iter().map(|(name, value)| field(name, value)).collect();
        read((fields + &file("x") + "\r\n--xyz--").as_bytes(), 100, 10).unwrap().0
    };
    assert_eq!(form(&[]).key().unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(form(&[("key", "")]).key().unwrap_err().code, ErrorCode::UserKeyMustBeSpecified);
    assert!(form(&[("key", &"k".repeat(KEY_MAX))]).key().is_ok());
    assert_eq!(form(&[("key", &"k".repeat(KEY_MAX + 1))]).key().unwrap_err().code, ErrorCode::KeyTooLongError);
    let success = |fields: &[(&str, &str)]| form(fields).success();
    assert_eq!(success(&[]), Success::Status(204));
    for (status, expected) in [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204)] {
        assert_eq!(success(&[("success_action_status", status)]), Success::Status(expected));
    }
    let url = "https://example.com/done?a=b";
    for name in ["success_action_redirect", "redirect"] {
        assert_eq!(success(&[(name, url), ("success_action_status", "201")]), Success::Redirect(url.to_owned()));
    }
    for bad in ["javascript:alert(1)", "/relative", "http://a b", "http://a\r\nX: y"] {
        assert_eq!(success(&[("success_action_redirect", bad)]), Success::Status(204), "{bad}");
    }
    let expected = "http://a/?b=c&bucket=b&key=k%2F%20%C3%A9&etag=%22e%22#d";
    assert_eq!(redirect("http://a/?b=c#d", "b", "k/ é", "e"), expected);
    assert_eq!(redirect("http://a/", "b", "k", "e"), "http://a/?bucket=b&key=k&etag=%22e%22");
    let head = form(&[("acl", "public-read")]).into_head();
    assert_eq!(head.headers.get("x-amz-acl"), Some(&b"public-read"[..]));
}

#[test]
fn unknown_form_fields_are_rejected() {
    let form = |name: &str| {
        let mut form = Form { fields: Headers::default(), filename: "f".to_owned() };
        form.fields.push(name, b"v");
        form
    };
    let check = |name: &str| {
        check_headers(&form(name).into_head(), &Operation::PostObject).map_err(|error| (error.code, error.message))
    };
    for good in [
        "key",
        "tagging",
        "submit",
        "x-amz-meta-tagging",
        "x-amz-meta-",
        "x-amz-checksum-crc32",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-signature",
        "if-none-match",
        "x-ignore-x-amz-tagging",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    use ErrorCode as C;
    for (bad, code) in [
        ("x-amz-tagging", C::NotImplemented),
        ("x-amz-tagging-directive", C::NotImplemented),
        ("x-amz-metadata", C::NotImplemented),
        ("x-amz-security-token", C::NotImplemented),
        ("x-amz-website-redirect-location", C::NotImplemented),
        ("x-amz-copy-source", C::InvalidArgument),
        ("x-amz-content-sha256", C::NotImplemented),
        ("x-amz-object-lock-event-hold", C::NotImplemented),
        ("x-amz-checksum-crc32x", C::NotImplemented),
        ("x-amz-", C::NotImplemented),
        ("x-keyhole-seal", C::NotImplemented),
        ("acl", C::NotImplemented),
        ("content-range", C::NotImplemented),
    ] {
        assert_eq!(check(bad).unwrap_err().0, code, "{bad}");
    }
    assert!(check("x-amz-tagging").unwrap_err().1.contains("field tagging"));
    let ignored = "x-ignore-x-amz-server-side-encryption-customer-key";
    assert!(form(ignored).into_head().headers.iter().next().is_none() && refuse_late(ignored).is_ok());
    assert_eq!(form("x-amz-meta-a").into_head().headers.get("x-amz-meta-a"), Some(&b"v"[..]));
}

/// 2026-01-01T00:00:00Z
const NOW_MS: u64 = 1_767_225_600_000;

fn check_policy(policy: &str, fields: &[(&str, &str)]) -> Result<Policy, (ErrorCode, String)> {
    let mut form = Form { fields: Headers::default(), filename: "f".to_owned() };
    form.fields.push("policy", Base64::encode_string(policy.as_bytes()).as_bytes());
    for (name, value) in fields {
        form.fields.push(name, value.as_bytes());
    }
    Policy::check(&form, "bucket", "user/k", NOW_MS).map_err(|error| (error.code, error.message.into_owned()))
}

#[test]
fn policy_conditions_are_checked() {
    use ErrorCode as C;
    let check = |conditions: &str, fields: &[(&str, &str)], expected: Result<(u64, Option<u64>), (C, &str)>| {
        let policy = format!("{{\"expiration\": \"2026-01-01T00:00:00.000Z\", \"conditions\": [{conditions}]}}");
        match (check_policy(&policy, fields), expected) {
            (Ok(got), Ok(expected)) => assert_eq!((got.min_len, got.max_len), expected, "{conditions}"),
            (Err((code, message)), Err((expected, words))) => {
                assert!(code == expected && message.contains(words), "{conditions}: {code:?} {message}");
            }
            (got, _) => panic!("{conditions}: {got:?}"),
        }
    };
    let base = "{\"bucket\": \"bucket\"}, [\"starts-with\", \"$key\", \"user/\"]";
    let with = |more: &str| format!("{base}, {more}");
    let key = ("key", "user/${filename}");
    let denied = |words| Err((C::AccessDenied, words));
    let invalid = |words| Err((C::InvalidPolicyDocument, words));
    check(base, &[key], Ok((0, None)));
    check("{\"bUcKeT\": \"bucket\"}, [\"StArTs-WiTh\", \"$KeY\", \"\"]", &[key], Ok((0, None)));
    check("{\"bucket\": \"bucket\"}, [\"eq\", \"$key\", \"user/k\"]", &[key], Ok((0, None)));
    check("{\"bucket\": \"bucket\", \"key\": \"user/k\"}", &[key], Ok((0, None)));
    check("{\"bucket\": \"bucket\", \"key\": \"user/${filename}\"}", &[key], denied("[\"eq\", \"$key\"]"));
    check("{\"bucket\": \"other\"}", &[key], denied("[\"eq\", \"$bucket\"]"));
    check("[\"starts-with\", \"$key\", \"user/\"]", &[key], denied("Extra input fields: bucket"));
    check("{\"bucket\": \"bucket\"}", &[key], denied("Extra input fields: key"));
    check(base, &[key, ("x-amz-meta-a", "1")], denied("Extra input fields: x-amz-meta-a"));
    check(base, &[key, ("x-ignore-a", "1"), ("x-amz-signature", "s")], Ok((0, None)));
    check(&with("{\"x-amz-meta-a\": \"1\"}"), &[key, ("x-amz-meta-a", "1")], Ok((0, None)));
    check(&with("{\"x-amz-meta-a\": \"1\"}"), &[key, ("x-amz-meta-a", "10")], denied("$x-amz-meta-a"));
    check(&with("{\"x-amz-meta-a\": \"1\"}"), &[key], denied("$x-amz-meta-a"));
    check(&with("[\"starts-with\", \"$x-amz-meta-a\", \"\"]"), &[key], denied("$x-amz-meta-a"));
    let image = with("[\"starts-with\", \"$Content-Type\", \"image/\"]");
    check(&image, &[key, ("content-type", "image/png, image/gif")], Ok((0, None)));
    check(&image, &[key, ("content-type", "image/png,text/html")], denied("$content-type"));
    check(&with("[\"content-length-range\", 3, 10]"), &[key], Ok((3, Some(10))));
    check(&with("[\"content-length-range\", \"3\", 10], [\"content-length-range\", 1, 9]"), &[key], Ok((3, Some(9))));
    let words = "Invalid Condition";
    for bad in [
        "[\"content-length-range\", 0]",
        "[\"content-length-range\", -1, 0]",
        "[\"ne\", \"$key\", \"a\"]",
        "[\"eq\", \"key\", \"a\"]",
        "[\"eq\", \"$key\", 1]",
        "[]",
    ] {
        check(&with(bad), &[key], invalid(words));
    }
    for bad in ["{}", "1", "{\"key\": 1}", "{\"key\": null}"] {
        check(&with(bad), &[key], invalid("Invalid Simple-Condition"));
    }
}

#[test]
fn malformed_policies_are_rejected() {
    for (policy, words) in [
        ("", "Invalid JSON"),
        ("[", "Invalid JSON"),
        ("{}", "missing expiration"),
        ("{\"EXPIRATION\": \"2030-01-01T00:00:00Z\", \"conditions\": []}", "missing expiration"),
        ("{\"expiration\": \"tomorrow\", \"conditions\": []}", "Invalid 'expiration'"),
        ("{\"expiration\": 1, \"conditions\": []}", "Invalid 'expiration'"),
        ("{\"expiration\": \"2030-01-01T00:00:00Z\"}", "missing conditions"),
        ("{\"expiration\": \"2030-01-01T00:00:00Z\", \"CONDITIONS\": []}", "missing conditions"),
    ] {
        let (code, message) = check_policy(policy, &[]).unwrap_err();
        assert!(code == ErrorCode::InvalidPolicyDocument && message.contains(words), "{policy}: {message}");
    }
    let over = "{\"expiration\": \"2025-12-31T23:59:59.999Z\", \"conditions\": [{\"bucket\": \"bucket\"}]}";
    let (code, message) = check_policy(over, &[]).unwrap_err();
    assert!(code == ErrorCode::AccessDenied && message.contains("Policy expired"), "{message}");
    let mut form = Form { fields: Headers::default(), filename: String::new() };
    form.fields.push("policy", b"not base64!");
    assert_eq!(Policy::check(&form, "b", "k", 0).unwrap_err().code, ErrorCode::InvalidPolicyDocument);
}

/// The policy of AWS's page "Example: Browser-Based Upload using HTTP POST (Using AWS Signature
/// Version 4)".
const EXAMPLE: &str = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7ImJ1Y2tldCI6ICJzaWd2NGV4YW1wbGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0KICAgIHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3QiOiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdXBsb2FkLmh0bWwifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRhLXV1aWQiOiAiMTQzNjUxMjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVTMjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsICIkeC1hbXotbWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNyZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFzdC0xL3MzL2F3czRfcmVxdWVzdCJ9LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOiAiMjAxNTEyMjlUMDAwMDAwWiIgfQ0KICBdDQp9";

fn example(changes: &[(&str, &str)]) -> Headers {
    let mut fields = Headers::default();
    for (name, value) in [
        ("policy", EXAMPLE),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"),
        ("x-amz-date", "20151229T000000Z"),
        ("x-amz-signature", "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"),
    ] {
        let changed = changes.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, value)| value);
        if !changed.is_empty() {
            fields.push(name, changed.as_bytes());
        }
    }
    fields
}

#[test]
fn published_form_signature_is_accepted_unless_modified() {
    use ErrorCode as C;
    let check = |changes: &[(&str, &str)]| {
        authenticate_form(&example(changes), &Example::default(), "us-east-1").map_err(|error| error.code)
    };
    assert_eq!(check(&[]).unwrap(), "AKIAIOSFODNN7EXAMPLE");
    let credential = |text| ("x-amz-credential", text);
    for (change, code) in [
        (("policy", ""), C::InvalidArgument),
        (("policy", "e30="), C::SignatureDoesNotMatch),
        (("x-amz-signature", "8afdbf"), C::SignatureDoesNotMatch),
        (("x-amz-signature", ""), C::InvalidArgument),
        (("x-amz-algorithm", "AWS4-HMAC-SHA1"), C::InvalidArgument),
        (("x-amz-date", "20151230T000000Z"), C::InvalidArgument),
        (("x-amz-date", "20151229"), C::InvalidArgument),
        (credential("AKIAIOSFODNN7EXAMPLF/20151229/us-east-1/s3/aws4_request"), C::InvalidAccessKeyId),
        (credential("AKIAIOSFODNN7EXAMPLE/20151229/eu-west-1/s3/aws4_request"), C::InvalidArgument),
        (credential("AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/ec2/aws4_request"), C::InvalidArgument),
        (credential("AKIAIOSFODNN7EXAMPLE/20151230/us-east-1/s3/aws4_request"), C::InvalidArgument),
        (credential("AKIAIOSFODNN7EXAMPLE"), C::InvalidArgument),
    ] {
        assert_eq!(check(&[change]).unwrap_err(), code, "{change:?}");
    }
    let none =
        ["policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"].map(|name| (name, ""));
    assert_eq!(check(&none).unwrap_err(), C::AccessDenied);
}

#[test]
fn random_forms_cause_no_panic() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let words =
        ["--xyz", "\r\n", "--", "Content-Disposition: form-data; name=", "\"", "file", "k", "\\", ";filename=", "\0"];
    for _ in 0..20_000 {
        let mut text = String::from(if random.bool() { "--xyz\r\n" } else { "" });
        for _ in 0..12 {
            text.push_str(words[random.usize(..words.len())]);
        }
        let _ = (read(text.as_bytes(), random.usize(1..=16), 3), parameter(&text, "name"));
    }
}
