//! Bucket policies on customer keys.

use keyhole_core::{CustomerKey, key_id};
use keyhole_s3::{Error, ErrorCode};

/// Whether a bucket accepts objects under customer keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SseC {
    /// Accepts customer keys.
    #[default]
    Allow = 0,
    /// Requires customer keys.
    Require = 1,
    /// Rejects customer keys.
    Forbid = 2,
}

/// The policy of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Whether customer keys are allowed.
    pub sse_c: SseC,
    /// The ids ([`key_id`]) of the only customer keys accepted, at most
    /// [`PINS_MAX`](crate::limits::PINS_MAX); empty accepts any key.
    pub pins: Vec<[u8; 16]>,
    /// Whether overwriting an object under another customer key requires the old key too.
    pub forbids_rekeying: bool,
    /// Whether unsigned requests may get objects (SSE-C objects still need their key).
    pub anonymous_read: bool,
}

impl Policy {
    /// Checks whether a request may store an object or part with or without a key, before the key
    /// is examined.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_kind(&self, brings_key: bool) -> Result<(), Error> {
        match (self.sse_c, brings_key) {
            (SseC::Forbid, true) => Err(denied("The bucket has blocked uploads with customer-provided keys (SSE-C).")),
            (SseC::Require, false) => {
                Err(denied("The bucket requires customer-provided keys (SSE-C), and the request has none."))
            }
            _ => Ok(()),
        }
    }

    /// Rejects a sealed transfer if the policy needs the key to decide.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_sealed_transfer(&self) -> Result<(), Error> {
        self.check_kind(true)?;
        if self.pins.is_empty() && !self.forbids_rekeying {
            return Ok(());
        }
        Err(denied(
            "The bucket pins customer keys or guards overwriting, which cannot be checked of a sealed object without its key.",
        ))
    }

    /// Checks the completion of a sealed upload, since the policy may have changed since the upload
    /// was begun. Without the key, the pins cannot be checked: the completion then passes only if
    /// the bucket's settings have not changed since (`set_since`).
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_completion(
        &self,
        key: Option<&CustomerKey>,
        set_since: bool,
        bucket: &str,
    ) -> Result<(), Error> {
        match key {
            Some(key) => self.check_key(key, bucket),
            None if self.pins.is_empty() || !set_since => Ok(()),
            None => Err(denied(
                "The bucket pins customer keys, and its settings were changed since the upload was begun. Bring the key of \
                the upload in the headers of its completion, too.",
            )),
        }
    }

    /// Checks whether the pins accept a customer key.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_key(&self, key: &CustomerKey, bucket: &str) -> Result<(), Error> {
        if self.pins.is_empty() || self.pins.contains(&key_id(key, bucket)) {
            return Ok(());
        }
        Err(denied("The bucket accepts other customer-provided keys than the one of the request."))
    }
}

/// Returns an `AccessDenied` with this message.
pub(crate) fn denied(message: &'static str) -> Error {
    Error::new(ErrorCode::AccessDenied).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_decides_on_kind_and_pins() {
        let (key, other) = (CustomerKey::new([1; 32]), CustomerKey::new([2; 32]));
        let policy = Policy { pins: vec![key_id(&key, "b")], ..Policy::default() };
        assert!(policy.check_key(&key, "b").is_ok());
        assert!(policy.check_key(&other, "b").is_err() && policy.check_key(&key, "c").is_err());
        assert!(Policy::default().check_key(&other, "b").is_ok());
        let of = |sse_c, brings_key| Policy { sse_c, ..Policy::default() }.check_kind(brings_key).is_ok();
        assert!(of(SseC::Allow, true) && of(SseC::Allow, false) && of(SseC::Require, true) && of(SseC::Forbid, false));
        assert!(!of(SseC::Require, false) && !of(SseC::Forbid, true));
    }
}
