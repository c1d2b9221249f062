//! Fuzz targets. They are modules of the binary, which is no library.

#[allow(dead_code)]
#[path = "../../src/transfer"]
mod transfer {
    mod entry;
    pub(crate) mod fuzzing;
    mod invalid;
    mod manifest;
    mod plain;
    mod versions;
}

/// Reads a piece of a manifest to its end.
pub fn manifest(data: &[u8]) {
    transfer::fuzzing::manifest(data);
}

/// Decodes a line of a manifest whose checksum is right.
pub fn manifest_line(data: &[u8]) {
    transfer::fuzzing::manifest_line(data);
}
