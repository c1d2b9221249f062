//! Limits of access keys and their secrets.

/// Minimum lengths, as in other S3 servers.
pub(super) const ACCESS_KEY_MIN: usize = 3;
pub(super) const SECRET_KEY_MIN: usize = 8;

/// Maximum lengths: IAM's for an access key; a secret is hashed as a whole with each signing key.
pub(super) const ACCESS_KEY_MAX: usize = 128;
pub(super) const SECRET_KEY_MAX: usize = 1024;
