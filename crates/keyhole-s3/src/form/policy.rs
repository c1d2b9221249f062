//! Form policies: the conditions on the fields that the signature covers (AWS, "POST Policy").

use base64ct::{Base64, Encoding};
use serde_json::Value;

use super::{Form, IGNORED};
use crate::time::parse_iso8601;
use crate::{Error, ErrorCode};

/// The file length limits of a verified policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Minimum length of the file in bytes.
    pub min_len: u64,
    /// Maximum length of the file in bytes, if limited.
    pub max_len: Option<u64>,
}

enum Condition {
    Equal(String, String),
    StartsWith(String, String),
    Length(u64, u64),
}

/// Returns whether a field needs no condition.
fn is_free(name: &str) -> bool {
    matches!(name, "x-amz-signature" | "file" | "policy") || name.starts_with(IGNORED)
}

impl Policy {
    /// Checks a form against its policy: the policy must not be expired, all conditions must hold,
    /// and every field must be covered by one. `bucket` and `key` are the file's destination; the
    /// key has the file name inserted.
    ///
    /// # Errors
    /// `InvalidPolicyDocument` for a malformed policy; `AccessDenied` if a check fails.
    pub fn check(form: &Form, bucket: &str, key: &str, now_ms: u64) -> Result<Policy, Error> {
        let text = form.fields().get("policy").unwrap_or_default();
        let (expires_ms, conditions) = parse(text)?;
        if now_ms > expires_ms {
            return Err(refused("Policy expired."));
        }
        let value = |name: &str| match name {
            "bucket" => Some(bucket.as_bytes()),
            "key" => Some(key.as_bytes()),
            _ => form.fields().get(name),
        };
        let mut policy = Policy::default();
        let mut covered = Vec::with_capacity(conditions.len());
        for condition in conditions {
            let (operator, name, holds) = match condition {
                Condition::Equal(name, wanted) => {
                    let holds = value(&name).is_some_and(|value| value == wanted.as_bytes());
                    ("eq", name, holds)
                }
                Condition::StartsWith(name, wanted) => {
                    let holds = value(&name).is_some_and(|value| starts_with(&name, value, wanted.as_bytes()));
                    ("starts-with", name, holds)
                }
                Condition::Length(min, max) => {
                    policy.min_len = policy.min_len.max(min);
                    policy.max_len = Some(policy.max_len.map_or(max, |other| other.min(max)));
                    continue;
                }
            };
            if !holds {
                // The value may be a customer key.
                return Err(refused(&format!("Policy Condition failed: [\"{operator}\", \"${name}\"]")));
            }
            covered.push(name);
        }
        let names = form.fields().iter().map(|(name, _)| name).chain(["bucket"]);
        match names.filter(|name| !is_free(name)).find(|name| !covered.iter().any(|covered| covered == name)) {
            None => Ok(policy),
            Some(name) => Err(refused(&format!("Extra input fields: {name}"))),
        }
    }
}

/// Compares prefixes; in a list of content types, every element must match.
fn starts_with(name: &str, value: &[u8], wanted: &[u8]) -> bool {
    match name {
        "content-type" => value.split(|byte| *byte == b',').all(|value| value.trim_ascii_start().starts_with(wanted)),
        _ => value.starts_with(wanted),
    }
}

fn refused(what: &str) -> Error {
    Error::new(ErrorCode::AccessDenied).with_message(format!("Invalid according to Policy: {what}"))
}

/// Parses the expiration time and the conditions of a policy.
fn parse(text: &[u8]) -> Result<(u64, Vec<Condition>), Error> {
    let invalid = |what: &'static str| {
        Error::new(ErrorCode::InvalidPolicyDocument).with_message(format!("Invalid Policy: {what}"))
    };
    let text = std::str::from_utf8(text).ok().and_then(|text| Base64::decode_vec(text).ok());
    let text = text.ok_or_else(|| invalid("The policy is not base64."))?;
    let document: Value = serde_json::from_slice(&text).map_err(|_| invalid("Invalid JSON."))?;
    let expiration = document.get("expiration").ok_or_else(|| invalid("Policy missing expiration."))?;
    let expires_ms = expiration.as_str().and_then(parse_iso8601);
    let expires_ms =
        expires_ms.ok_or_else(|| invalid("Invalid 'expiration' value; it is such as 2026-11-23T10:11:12.000Z."))?;
    let conditions = document.get("conditions").and_then(Value::as_array);
    let conditions = conditions.ok_or_else(|| invalid("Policy missing conditions."))?;
    let mut parsed = Vec::new();
    for condition in conditions {
        match condition {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let value =
                        value.as_str().ok_or_else(|| invalid("Invalid Simple-Condition: value must be a string."))?;
                    parsed.push(Condition::Equal(name.to_ascii_lowercase(), value.to_owned()));
                }
            }
            Value::Array(items) => {
                parsed.push(operation(items).ok_or_else(|| {
                    invalid(
                        "Invalid Condition; they are [\"eq\", \"$field\", \"value\"], [\"starts-with\", \"$field\", \
                        \"value\"] and [\"content-length-range\", min, max].",
                    )
                })?);
            }
            _ => return Err(invalid("Invalid Simple-Condition: it has a field and a value.")),
        }
    }
    Ok((expires_ms, parsed))
}

fn operation(items: &[Value]) -> Option<Condition> {
    let [operator, first, second] = items else { return None };
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let field = || Some(first.as_str()?.strip_prefix('$')?.to_ascii_lowercase());
    let value = || second.as_str().map(str::to_owned);
    match &operator.as_str()?.to_ascii_lowercase()[..] {
        "eq" => Some(Condition::Equal(field()?, value()?)),
        "starts-with" => Some(Condition::StartsWith(field()?, value()?)),
        "content-length-range" => Some(Condition::Length(number(first)?, number(second)?)),
        _ => None,
    }
}
