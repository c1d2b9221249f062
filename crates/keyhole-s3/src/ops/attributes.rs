//! Parameters of GetObjectAttributes.

use super::query::{page, part_marker};
use crate::Error;
use crate::http::RequestHead;

/// The requested attributes (AWS, "GetObjectAttributes").
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttributesQuery {
    /// The ETag.
    pub etag: bool,
    /// The checksums of the whole object.
    pub checksum: bool,
    /// The parts.
    pub parts: bool,
    /// The storage class.
    pub storage_class: bool,
    /// The length of the plaintext.
    pub size: bool,
    /// The part number after which the page starts.
    pub marker: u16,
    /// The maximum number of parts.
    pub max_parts: usize,
}

impl AttributesQuery {
    /// Parses `x-amz-object-attributes`, `x-amz-part-number-marker` and `x-amz-max-parts`.
    pub(crate) fn parse(head: &RequestHead) -> Result<Self, Error> {
        let mut query = AttributesQuery {
            marker: part_marker("x-amz-part-number-marker", head.headers.text("x-amz-part-number-marker"))?,
            max_parts: page("x-amz-max-parts", head.headers.text("x-amz-max-parts"))?,
            ..AttributesQuery::default()
        };
        let invalid = |value: &[u8]| {
            let message =
                "Invalid attribute name specified. They are ETag, Checksum, ObjectParts, StorageClass and ObjectSize.";
            Error::invalid_argument("x-amz-object-attributes", String::from_utf8_lossy(value), message)
        };
        let mut is_empty = true;
        for name in head.headers.all("x-amz-object-attributes").flat_map(|value| value.split(|byte| *byte == b',')) {
            let place = match name.trim_ascii() {
                b"ETag" => &mut query.etag,
                b"Checksum" => &mut query.checksum,
                b"ObjectParts" => &mut query.parts,
                b"StorageClass" => &mut query.storage_class,
                b"ObjectSize" => &mut query.size,
                other => return Err(invalid(other)),
            };
            *place = true;
            is_empty = false;
        }
        if is_empty { Err(invalid(b"")) } else { Ok(query) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    #[test]
    fn attribute_names_and_pages_are_parsed() {
        let parse = |headers: &str| AttributesQuery::parse(&head(&format!("GET /b/k?attributes HTTP/1.1{headers}")));
        let all = parse("\nx-amz-object-attributes: ETag, Checksum,ObjectParts\nx-amz-object-attributes: ObjectSize");
        let all = all.unwrap();
        assert!(all.etag && all.checksum && all.parts && all.size && !all.storage_class);
        assert_eq!((all.marker, all.max_parts), (0, 1000));
        let page = "\nx-amz-object-attributes: ObjectParts\nx-amz-max-parts: 2\nx-amz-part-number-marker: 7";
        let page = parse(page).unwrap();
        assert_eq!((page.marker, page.max_parts), (7, 2));
        for bad in ["", "\nx-amz-object-attributes:", "\nx-amz-object-attributes: etag"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in ["x-amz-max-parts: -1", "x-amz-max-parts: a", "x-amz-part-number-marker: a"] {
            assert!(parse(&format!("\nx-amz-object-attributes: ETag\n{bad}")).is_err(), "{bad}");
        }
    }
}
