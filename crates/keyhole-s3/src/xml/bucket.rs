//! Documents of buckets: creation, tags, and the listing of buckets.

use super::read::{malformed, walk};
use super::write::{Bucket, Document};
use crate::ops::{ListBuckets, Tags, encode_token};
use crate::time::iso8601;
use crate::{Error, ErrorCode};

/// The content of a CreateBucketConfiguration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CreateBucketRequest {
    /// The region, if the document names one.
    pub location: Option<String>,
    /// The tags of the bucket.
    pub tags: Tags,
}

/// Collects the tags of a bucket.
#[derive(Default)]
struct TagReader {
    tags: Tags,
    key: Option<String>,
    value: Option<String>,
}

impl TagReader {
    /// Parses an element of a set of tags. `path` is relative to the set.
    fn take(&mut self, path: &[&str], text: &str) -> Result<(), Error> {
        match path {
            ["Tag", "Key"] if self.key.is_none() => self.key = Some(text.to_owned()),
            ["Tag", "Value"] if self.value.is_none() => self.value = Some(text.to_owned()),
            ["Tag"] => {
                let (Some(key), Some(value)) = (self.key.take(), self.value.take()) else { return Err(malformed()) };
                self.tags.push_of_bucket(key, value)?;
            }
            _ => return Err(malformed()),
        }
        Ok(())
    }
}

/// Parses a `CreateBucketConfiguration` document; an empty document has no content.
///
/// # Errors
/// `MalformedXML`, also for unknown and repeated elements; `NotImplemented` for directory buckets;
/// the errors of [`Tags::push_of_bucket`].
pub fn parse_create_bucket(document: &[u8]) -> Result<CreateBucketRequest, Error> {
    let mut location = None;
    let mut reader = TagReader::default();
    let mut has_tags = false;
    if document.is_empty() {
        return Ok(CreateBucketRequest::default());
    }
    walk(document, |path, text| {
        match path {
            ["CreateBucketConfiguration"] => {}
            ["CreateBucketConfiguration", "LocationConstraint"] if location.is_none() => {
                location = Some(text.trim().to_owned());
            }
            ["CreateBucketConfiguration", "Location" | "Bucket", ..] => {
                return Err(Error::new(ErrorCode::NotImplemented)
                    .with_message("This node has no directory buckets. Leave Location and Bucket out."));
            }
            ["CreateBucketConfiguration", "Tags"] if !has_tags && text.trim().is_empty() => has_tags = true,
            ["CreateBucketConfiguration", "Tags", rest @ ..] if !rest.is_empty() && !has_tags => {
                reader.take(rest, text)?;
            }
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    Ok(CreateBucketRequest { location: location.filter(|location| !location.is_empty()), tags: reader.tags })
}

/// Parses the `Tagging` document of a bucket.
///
/// # Errors
/// `MalformedXML`, and the errors of [`Tags::push_of_bucket`].
pub fn parse_bucket_tagging(document: &[u8]) -> Result<Tags, Error> {
    let mut reader = TagReader::default();
    let mut has_set = false;
    walk(document, |path, text| {
        match path {
            ["Tagging"] => {}
            ["Tagging", "TagSet"] if !has_set && text.trim().is_empty() => has_set = true,
            ["Tagging", "TagSet", rest @ ..] if !rest.is_empty() && !has_set => reader.take(rest, text)?,
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    if has_set { Ok(reader.tags) } else { Err(malformed()) }
}

/// Writes the result of ListBuckets. `token`: the last bucket, if more follow.
pub fn list_buckets(query: &ListBuckets, region: &str, buckets: &[Bucket<'_>], token: Option<&str>) -> String {
    let mut doc = Document::new("ListAllMyBucketsResult");
    doc.owner("Owner");
    doc.open("Buckets");
    for bucket in buckets {
        doc.open("Bucket");
        doc.text("Name", bucket.name);
        doc.text("CreationDate", &iso8601(bucket.time_ms));
        // As on S3, only if the request has a parameter.
        if *query != ListBuckets::default() {
            doc.text("BucketRegion", region);
        }
        doc.close();
    }
    doc.close();
    if let Some(last) = token {
        doc.text("ContinuationToken", &encode_token(last));
    }
    if let Some(prefix) = &query.prefix {
        doc.text("Prefix", prefix);
    }
    doc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BUCKET_TAGS_MAX;

    fn tag(key: &str, value: &str) -> String {
        format!("<Tag>\n<Key>{key}</Key><Value>{value}</Value></Tag>\n")
    }

    fn many(count: usize) -> String {
        (0..count).map(|n| tag(&format!("k{n}"), "v")).collect()
    }

    #[test]
    fn create_bucket_documents_are_parsed_or_rejected() {
        let check = |inner: &str| {
            let document = format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</CreateBucketConfiguration>"
            );
            let request = parse_create_bucket(document.as_bytes()).map_err(|error| error.code)?;
            let tags: Vec<_> = request.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            Ok((request.location, tags.join(",")))
        };
        let region = "<LocationConstraint>\n eu-1 </LocationConstraint>";
        assert_eq!(check(region), Ok((Some("eu-1".to_owned()), String::new())));
        assert_eq!(
            check(&format!("{region}<Tags>{}</Tags>", tag("a", "1"))),
            Ok((Some("eu-1".to_owned()), "a=1".to_owned()))
        );
        assert_eq!(check(&format!("<Tags>{}{}</Tags>", tag("b", ""), tag("a", "1"))), Ok((None, "b=,a=1".to_owned())));
        for nothing in ["", "<LocationConstraint/>", "<Tags/>"] {
            assert_eq!(check(nothing), Ok((None, String::new())), "{nothing}");
        }
        assert_eq!(parse_create_bucket(b""), Ok(CreateBucketRequest::default()));
        use ErrorCode as C;
        for (bad, code) in [
            (region.repeat(2), C::MalformedXML),
            ("<Unknown>a</Unknown>".to_owned(), C::MalformedXML),
            ("<LocationConstraint><A/></LocationConstraint>".to_owned(), C::MalformedXML),
            ("<Tags><Tag><Key>a</Key></Tag></Tags>".to_owned(), C::MalformedXML),
            (format!("<Tags>{}</Tags><Tags/>", tag("a", "1")), C::MalformedXML),
            (format!("<Tags><Tags>{}</Tags></Tags>", tag("a", "1")), C::MalformedXML),
            (format!("<TagSet>{}</TagSet>", tag("a", "1")), C::MalformedXML),
            (tag("a", "1"), C::MalformedXML),
            (format!("<Tags>{}</Tags>", tag("a", "1").repeat(2)), C::InvalidTag),
            (format!("<Tags>{}</Tags>", many(BUCKET_TAGS_MAX + 1)), C::BadRequest),
            ("<Location><Name>a</Name><Type>AvailabilityZone</Type></Location>".to_owned(), C::NotImplemented),
            ("<Bucket><Type>Directory</Type></Bucket>".to_owned(), C::NotImplemented),
        ] {
            assert_eq!(check(&bad), Err(code), "{bad}");
        }
        assert_eq!(parse_create_bucket(b"<X/>").unwrap_err().code, C::MalformedXML);
    }

    #[test]
    fn bucket_tagging_documents_are_parsed_or_rejected() {
        let check = |inner: &str| {
            let document = format!(
                "<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>{inner}</TagSet></Tagging>"
            );
            let tags = parse_bucket_tagging(document.as_bytes()).map_err(|error| error.code)?;
            // The output parses to the same tags, and so does the stored form.
            assert_eq!(parse_bucket_tagging(crate::xml::tagging(&tags).as_bytes()), Ok(tags.clone()));
            assert_eq!(Tags::bucket_from_bytes(&tags.to_bytes()), Some(tags.clone()));
            Ok(tags.len())
        };
        assert_eq!(check(""), Ok(0));
        assert_eq!(check(&many(BUCKET_TAGS_MAX)), Ok(BUCKET_TAGS_MAX));
        assert_eq!(check(&many(BUCKET_TAGS_MAX + 1)), Err(ErrorCode::BadRequest));
        assert_eq!(check(&tag("aws:a", "1")), Err(ErrorCode::InvalidTag));
        assert_eq!(check(&tag("a", "1").repeat(2)), Err(ErrorCode::InvalidTag));
        for bad in ["<Tag><Key>a</Key></Tag>", "<Key>a</Key>", "<X/>"] {
            assert_eq!(check(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
        for bad in ["", "<Tagging/>", "<TagSet/>", "<Tagging><TagSet/><TagSet/></Tagging>"] {
            assert_eq!(parse_bucket_tagging(bad.as_bytes()).unwrap_err().code, ErrorCode::MalformedXML, "{bad}");
        }
    }
}
