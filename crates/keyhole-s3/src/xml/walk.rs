//! The reader of all XML documents in requests: it visits the elements, and rejects what no document of
//! S3 has.

use quick_xml::NsReader;
use quick_xml::events::Event;
use quick_xml::name::{Namespace, ResolveResult};

use super::read::malformed;
use crate::Error;
use crate::limits::{
    XML_COMPLETE_ELEMENTS_MAX, XML_CORS_ELEMENTS_MAX, XML_DELETE_ELEMENTS_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX,
    XML_LIFECYCLE_ELEMENTS_MAX,
};

/// Returns the limit of the elements of a document with this root.
fn elements_max(root: &str) -> usize {
    match root {
        "Delete" => XML_DELETE_ELEMENTS_MAX,
        "CompleteMultipartUpload" => XML_COMPLETE_ELEMENTS_MAX,
        "LifecycleConfiguration" => XML_LIFECYCLE_ELEMENTS_MAX,
        "CORSConfiguration" => XML_CORS_ELEMENTS_MAX,
        _ => XML_ELEMENTS_MAX,
    }
}

/// Counts the elements of a document, and whatever else a parser stops at.
struct ElementCount {
    count: usize,
    max: usize,
}

impl ElementCount {
    fn new() -> Self {
        ElementCount { count: 0, max: XML_ELEMENTS_MAX }
    }

    fn begin(&mut self, depth: usize, name: &str) -> Result<(), Error> {
        if depth == 0 {
            self.max = elements_max(name);
        }
        self.add()
    }

    fn add(&mut self) -> Result<(), Error> {
        self.count += 1;
        if self.count > self.max { Err(malformed()) } else { Ok(()) }
    }
}

/// The namespaces that elements may be in, besides none: S3's, and the form of it that its manual has
/// in some examples. Both also with a slash at the end.
const NAMESPACES: [&str; 2] = ["http://s3.amazonaws.com/doc/2006-03-01", "http://doc.s3.amazonaws.com/2006-03-01"];

/// The elements of requests that hold other elements, and no text.
const CONTAINERS: [&str; 20] = [
    "AbortIncompleteMultipartUpload",
    "And",
    "BlockedEncryptionTypes",
    "CORSConfiguration",
    "CORSRule",
    "CompleteMultipartUpload",
    "CreateBucketConfiguration",
    "Delete",
    "Expiration",
    "Filter",
    "LifecycleConfiguration",
    "NoncurrentVersionExpiration",
    "Object",
    "Part",
    "Rule",
    "ServerSideEncryptionConfiguration",
    "Tag",
    "TagSet",
    "Tagging",
    "Tags",
];

/// Checks that an element is in a namespace of S3, or in none.
fn check_namespace(namespace: &ResolveResult<'_>) -> Result<(), Error> {
    match namespace {
        ResolveResult::Unbound => Ok(()),
        ResolveResult::Bound(Namespace(name)) if NAMESPACES.contains(&name.trim_end_matches('/')) => Ok(()),
        ResolveResult::Bound(_) | ResolveResult::Unknown(_) => Err(malformed()),
    }
}

/// Checks that no text is where only elements may be.
fn check_blank(text: &str) -> Result<(), Error> {
    if text.trim_ascii().is_empty() { Ok(()) } else { Err(malformed()) }
}

/// Calls `visit` with the path and the text of each element at its end. Ignores attributes. Rejects
/// foreign namespaces, text beside elements, and document types, and with them all entities but the
/// predefined ones.
pub(super) fn walk(document: &[u8], mut visit: impl FnMut(&[&str], &str) -> Result<(), Error>) -> Result<(), Error> {
    let document = std::str::from_utf8(document).map_err(|_| malformed())?;
    // No document holds it, and none could be written from it (XML 1.0 section 2.2).
    if document.contains('\0') {
        return Err(malformed());
    }
    let mut reader = NsReader::from_str(document.strip_prefix('\u{feff}').unwrap_or(document));
    let mut path: Vec<String> = Vec::new();
    // Of the innermost element, since its last child.
    let mut text = String::new();
    // Whether the last tag was an end: then the innermost element has children.
    let mut follows_child = false;
    let mut roots = 0;
    let mut elements = ElementCount::new();
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(|_| malformed())?;
        match event {
            Event::Start(element) => {
                check_namespace(&namespace)?;
                check_blank(&text)?;
                follows_child = false;
                if path.len() == XML_DEPTH_MAX {
                    return Err(malformed());
                }
                roots += usize::from(path.is_empty());
                let name = element.local_name();
                elements.begin(path.len(), name.as_ref())?;
                path.push(name.as_ref().to_owned());
                text.clear();
            }
            Event::Empty(element) => {
                check_namespace(&namespace)?;
                check_blank(&text)?;
                follows_child = true;
                text.clear();
                roots += usize::from(path.is_empty());
                let name = element.local_name();
                elements.begin(path.len(), name.as_ref())?;
                path.push(name.as_ref().to_owned());
                visit(&path.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
                path.pop();
            }
            Event::Text(piece) => text.push_str(&piece.xml10_content()),
            Event::CData(piece) => {
                elements.add()?;
                text.push_str(&piece.xml10_content());
            }
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(|_| malformed())? {
                Some(c) => text.push(c),
                None => text.push_str(quick_xml::escape::resolve_predefined_entity(&reference).ok_or_else(malformed)?),
            },
            Event::End(_) => {
                if follows_child || path.last().is_some_and(|name| CONTAINERS.contains(&name.as_str())) {
                    check_blank(&text)?;
                }
                follows_child = true;
                visit(&path.iter().map(String::as_str).collect::<Vec<_>>(), &text)?;
                path.pop();
                text.clear();
            }
            Event::DocType(_) => return Err(malformed()),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => elements.add()?,
            Event::Eof => {
                check_blank(&text)?;
                break;
            }
        }
    }
    if roots == 1 && path.is_empty() { Ok(()) } else { Err(malformed()) }
}
