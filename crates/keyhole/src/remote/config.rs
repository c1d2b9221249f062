//! The settings of a remote.

use std::net::IpAddr;
use std::path::PathBuf;

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::limits::{BUCKET_MAX, BUCKET_MIN, NAME_MAX, PREFIX_MAX, REGION_MAX, URL_MAX};
use super::source::Source;
use super::window::Window;

/// The settings of a remote.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteConfig {
    pub(crate) name: String,
    /// The service, as `https://HOST[:PORT]`.
    pub(crate) url: String,
    pub(crate) bucket: String,
    /// The names in the bucket begin with the prefix and a `/`, unless it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) prefix: String,
    pub(crate) region: String,
    /// The credentials file; without it, the environment and the files of the AWS tools are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<PathBuf>,
    /// The certificate authorities to trust. Without it, those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    pub(crate) source: Source,
    pub(crate) mode: Mode,
    /// Whether objects that are deleted here stay in the remote.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) keep_deleted: bool,
    #[serde(default)]
    pub(crate) plaintext: Plaintext,
    /// Limit of the upload rate in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<u64>,
    /// Daily shipping hours. Without it, objects are shipped at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<Window>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) paused: bool,
    /// Whether the objects of another store in the remote are replaced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) take_over: bool,
    /// Whether the URL may be `http://` beyond this machine.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) insecure_http: bool,
}

/// The use of a remote.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Ship every object, and every deletion.
    Mirror,
    /// The same, and remove the bytes of sealed objects here when the store fills up: reads fetch them
    /// from the remote.
    Tier,
}

/// The policy on objects without a customer key.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Plaintext {
    /// Ship sealed objects only.
    #[default]
    Skip,
    /// Also ship plaintext objects, which the service can then read.
    Allow,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl RemoteConfig {
    /// Checks every setting by itself.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        if parse_url(&self.url)? != self.url {
            return Err(ConfigError::Url(self.url.clone()));
        }
        if self.url.starts_with("http://") && !self.insecure_http && !is_loopback(&self.url) {
            return Err(ConfigError::InsecureUrl(self.url.clone()));
        }
        check_bucket(&self.bucket)?;
        check_prefix(&self.prefix)?;
        check_region(&self.region)?;
        self.source.check()?;
        if self.rate == Some(0) {
            return Err(ConfigError::Rate);
        }
        let relative = [&self.credentials, &self.ca].into_iter().flatten().find(|path| !path.is_absolute());
        relative.map_or(Ok(()), |path: &PathBuf| Err(ConfigError::RelativePath(path.clone())))
    }

    /// Returns whether a bucket of the store belongs to the remote, at least partly.
    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.source.has_bucket(bucket)
    }

    /// Returns whether a key of the store belongs to the remote.
    pub(crate) fn has_key(&self, bucket: &str, key: &str) -> bool {
        self.source.has(bucket, key)
    }

    /// Returns whether a name in the service may belong to both remotes.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let with_end = |prefix: &str| if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let ours = with_end(&self.prefix);
        let theirs = with_end(&other.prefix);
        self.url == other.url && self.bucket == other.bucket && (ours.starts_with(&theirs) || theirs.starts_with(&ours))
    }
}

/// Checks the name of a remote.
pub(crate) fn check_name(name: &str) -> Result<(), ConfigError> {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_valid) {
        Ok(())
    } else {
        Err(ConfigError::Name(name.to_owned()))
    }
}

/// Parses the URL of a service, and returns it in lower case, without the scheme's own port and
/// without a `/` at the end.
pub(crate) fn parse_url(text: &str) -> Result<String, ConfigError> {
    let invalid = || ConfigError::Url(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| invalid())?;
    let scheme = uri.scheme_str().ok_or_else(invalid)?;
    let authority = uri.authority().ok_or_else(invalid)?;
    let own_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(invalid()),
    };
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains(['@', '#', '?']);
    let has_valid_port =
        authority.as_str().ends_with(authority.host()) || authority.port_u16().is_some_and(|it| it > 0);
    if text.len() > URL_MAX || !is_bare || !has_valid_port || authority.host().is_empty() {
        return Err(invalid());
    }
    let host = authority.host().to_ascii_lowercase();
    Ok(match authority.port_u16().filter(|port| *port != own_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// Returns whether the host of a URL is this machine.
fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Checks the name of a bucket in a service.
pub(crate) fn check_bucket(bucket: &str) -> Result<(), ConfigError> {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let is_dots = bucket.bytes().all(|byte| byte == b'.');
    if (BUCKET_MIN..=BUCKET_MAX).contains(&bucket.len()) && bucket.bytes().all(is_valid) && !is_dots {
        Ok(())
    } else {
        Err(ConfigError::Bucket(bucket.to_owned()))
    }
}

/// Checks a prefix, which may be empty.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), ConfigError> {
    let has_valid_names = || prefix.split('/').all(|name| !matches!(name, "" | "." | ".."));
    let is_short = prefix.len() <= PREFIX_MAX && !prefix.contains(char::is_control);
    if prefix.is_empty() || (is_short && has_valid_names()) {
        Ok(())
    } else {
        Err(ConfigError::Prefix(prefix.to_owned()))
    }
}

/// Checks the name of a region.
pub(crate) fn check_region(region: &str) -> Result<(), ConfigError> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=REGION_MAX).contains(&region.len()) && region.bytes().all(is_valid) {
        Ok(())
    } else {
        Err(ConfigError::Region(region.to_owned()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns valid settings with this name.
    pub(in crate::remote) fn config(name: &str) -> RemoteConfig {
        RemoteConfig {
            name: name.to_owned(),
            url: "https://s3.example".to_owned(),
            bucket: "backup".to_owned(),
            prefix: String::new(),
            region: "us-east-1".to_owned(),
            credentials: None,
            ca: None,
            source: Source::new(vec!["*".parse().unwrap()]),
            mode: Mode::Mirror,
            keep_deleted: false,
            plaintext: Plaintext::Skip,
            rate: None,
            window: None,
            paused: false,
            take_over: false,
            insecure_http: false,
        }
    }

    #[test]
    fn names_and_lengths_are_bounded() {
        for (check, valid, invalid) in [
            (check_name as fn(&str) -> _, ["a", "site-2", &"n".repeat(NAME_MAX)], ["", "A", &"n".repeat(NAME_MAX + 1)]),
            (check_bucket, ["abc", "a.b-c", &"b".repeat(BUCKET_MAX)], ["ab", "a_b", &"b".repeat(BUCKET_MAX + 1)]),
            (check_region, ["us-east-1", "a", &"r".repeat(REGION_MAX)], ["", "a b", &"r".repeat(REGION_MAX + 1)]),
            (check_prefix, ["", "a/b c", &"p".repeat(PREFIX_MAX)], ["a//b", "../a", &"p".repeat(PREFIX_MAX + 1)]),
            (check_prefix, ["a", "ä", "a.b"], ["a/", "/a", "a\n"]),
            (check_bucket, ["...a", "123", "a-b"], ["...", "a/b", "a\u{e9}b"]),
        ] {
            assert!(valid.iter().all(|text| check(text).is_ok()), "{valid:?}");
            assert!(invalid.iter().all(|text| check(text).is_err()), "{invalid:?}");
        }
    }

    #[test]
    fn url_is_scheme_host_and_port() {
        for (text, url) in [
            ("https://s3.example", "https://s3.example"),
            ("https://S3.Example/", "https://s3.example"),
            ("https://s3.example:443", "https://s3.example"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("https://[::1]:9000", "https://[::1]:9000"),
            ("https://[::1]", "https://[::1]"),
        ] {
            assert_eq!(parse_url(text).as_deref(), Ok(url));
        }
        let long = |len: usize| format!("https://{}", "h".repeat(len - "https://".len()));
        assert!(parse_url(&long(URL_MAX)).is_ok() && parse_url(&long(URL_MAX + 1)).is_err());
        for bad in [
            "",
            "s3.example",
            "ftp://s3.example",
            "https://s3.example/path",
            "https://s3.example/?a",
            "https://s3.example#a",
            "https://user@s3.example",
            "https://s3.example:99999",
            "https://s3.example:",
            "https://s3.example:0",
            "https://",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_limited_to_this_machine() {
        let with =
            |url: &str, insecure_http| RemoteConfig { url: url.to_owned(), insecure_http, ..config("a") }.check();
        for local in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost"] {
            assert_eq!(with(local, false), Ok(()), "{local}");
        }
        for distant in ["http://10.0.0.1", "http://s3.example", "http://localhost.example"] {
            assert_eq!(with(distant, false), Err(ConfigError::InsecureUrl(distant.to_owned())));
            assert_eq!(with(distant, true), Ok(()));
        }
    }

    #[test]
    fn invalid_settings_are_rejected() {
        assert_eq!(RemoteConfig { rate: Some(0), ..config("a") }.check(), Err(ConfigError::Rate));
        assert_eq!(RemoteConfig { rate: Some(1), ..config("a") }.check(), Ok(()));
        assert_eq!(RemoteConfig { source: Source::new(Vec::new()), ..config("a") }.check(), Err(ConfigError::NoSource));
        let relative = RemoteConfig { ca: Some("ca.pem".into()), ..config("a") };
        assert_eq!(relative.check(), Err(ConfigError::RelativePath("ca.pem".into())));
        let upper = RemoteConfig { url: "https://S3.example".to_owned(), ..config("a") };
        assert!(upper.check().is_err(), "URLs are compared in lower case");
    }

    #[test]
    fn overlap_is_of_whole_names() {
        let with = |prefix: &str| RemoteConfig { prefix: prefix.to_owned(), ..config("a") };
        for (one, other, overlaps) in [
            ("", "", true),
            ("", "a", true),
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "ab", false),
            ("a/b", "a/c", false),
        ] {
            assert_eq!(with(one).overlaps(&with(other)), overlaps, "{one} {other}");
            assert_eq!(with(other).overlaps(&with(one)), overlaps, "{other} {one}");
        }
        assert!(!with("").overlaps(&RemoteConfig { bucket: "other".to_owned(), ..config("b") }));
        assert!(!with("").overlaps(&RemoteConfig { url: "https://other".to_owned(), ..config("b") }));
    }

    #[test]
    fn settings_round_trip_as_json() {
        let full = RemoteConfig {
            prefix: "p/q".to_owned(),
            credentials: Some("/c".into()),
            ca: Some("/a".into()),
            source: Source::new(vec!["photos/2026/*".parse().unwrap(), "films".parse().unwrap()]),
            keep_deleted: true,
            plaintext: Plaintext::Allow,
            rate: Some(10_000_000),
            window: Some("22:00-06:00".parse().unwrap()),
            paused: true,
            take_over: true,
            insecure_http: true,
            ..config("a")
        };
        for config in [config("a"), full] {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<RemoteConfig>(&text).unwrap(), config, "{text}");
        }
        let text = serde_json::to_string(&config("a")).unwrap();
        for (from, to) in [
            (r#""mode""#, r#""later":1,"mode""#),
            (r#""mirror""#, r#""other""#),
            (r#"["*"]"#, r#"["*a"]"#),
            (r#""region":"us-east-1","#, ""),
        ] {
            assert!(text.contains(from), "{text}");
            assert!(serde_json::from_str::<RemoteConfig>(&text.replace(from, to)).is_err(), "{to}");
        }
    }
}
