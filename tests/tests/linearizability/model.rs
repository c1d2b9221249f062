//! The effects and outcomes of operations on an object.

use keyhole_tests::linearizability::{Call, Specification};

/// Identifies a body or a delete marker. Each is written once.
pub(crate) type Token = u64;

/// An object in a bucket without versioning: its content, if it exists.
pub(crate) struct Plain;

/// The versions of a key, the newest last. Their order is that in which the node has accepted them. Of
/// concurrent writes, a later one may become visible first: the earlier one then appears below it.
pub(crate) struct Versions;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    token: Token,
    is_marker: bool,
    /// The end of the call that wrote it.
    ended: u64,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`, with the ETag of this content.
    Match(Token),
}

/// An operation and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A PutObject or CompleteMultipartUpload that has succeeded, or may have.
    Put(Token, Condition),
    /// A write that was refused with 412.
    Refused(Condition),
    /// A write with `If-Match` that was refused with 404.
    Missing,
    /// A DeleteObject. With versioning, it writes this marker.
    Delete(Token),
    /// The content that a GetObject, a HeadObject or a listing has shown.
    Read(Option<Token>),
    /// The deletion of a version.
    DeleteVersion(Token),
    /// Whether a GetObject of a version has found it.
    ReadVersion(Token, bool),
    /// A listing of versions, the newest first.
    List(Vec<Listed>),
}

/// A version in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    Content(Token),
    /// A delete marker: `None` if the reply to the request that wrote it was lost.
    Marker(Option<Token>),
}

impl Listed {
    fn is(self, version: Version) -> bool {
        match self {
            Listed::Content(token) => !version.is_marker && version.token == token,
            Listed::Marker(token) => version.is_marker && token.is_none_or(|token| version.token == token),
        }
    }
}

impl Condition {
    fn holds(self, current: Option<Token>) -> bool {
        match self {
            Condition::None => true,
            Condition::Absent => current.is_none(),
            Condition::Match(token) => current == Some(token),
        }
    }
}

impl Specification for Plain {
    type State = Option<Token>;
    type Operation = Operation;

    fn apply(state: &Option<Token>, call: &Call<Operation>) -> Vec<Option<Token>> {
        let next = match &call.operation {
            Operation::Put(token, condition) => condition.holds(*state).then_some(Some(*token)),
            Operation::Refused(condition) => is_refused(*condition, *state).then_some(*state),
            Operation::Missing => state.is_none().then_some(None),
            Operation::Delete(_) => Some(None),
            Operation::Read(found) => (found == state).then_some(*state),
            Operation::DeleteVersion(_) | Operation::ReadVersion(..) | Operation::List(_) => {
                panic!("{:?} of an object without versions", call.operation)
            }
        };
        next.into_iter().collect()
    }
}

/// Returns whether a write is refused with 412.
fn is_refused(condition: Condition, current: Option<Token>) -> bool {
    let is_missing = matches!(condition, Condition::Match(_)) && current.is_none();
    !is_missing && !condition.holds(current)
}

impl Specification for Versions {
    type State = Vec<Version>;
    type Operation = Operation;

    fn apply(state: &Vec<Version>, call: &Call<Operation>) -> Vec<Vec<Version>> {
        let current = content_of(state);
        let is_possible = match &call.operation {
            Operation::Put(token, condition) => return insert(state, call, (*token, false), *condition),
            Operation::Delete(marker) => return insert(state, call, (*marker, true), Condition::None),
            Operation::DeleteVersion(token) => {
                return vec![state.iter().copied().filter(|version| version.token != *token).collect()];
            }
            Operation::Refused(condition) => is_refused(*condition, current),
            Operation::Missing => current.is_none(),
            Operation::Read(found) => *found == current,
            Operation::ReadVersion(token, is_found) => state.iter().any(|version| version.token == *token) == *is_found,
            Operation::List(listed) => {
                let pairs = listed.iter().zip(state.iter().rev());
                listed.len() == state.len() && pairs.into_iter().all(|(listed, version)| listed.is(*version))
            }
        };
        if is_possible { vec![state.clone()] } else { Vec::new() }
    }
}

/// Returns the content of the newest version, unless that is a marker.
fn content_of(versions: &[Version]) -> Option<Token> {
    versions.last().filter(|version| !version.is_marker).map(|version| version.token)
}

/// Inserts a version at the end, or below versions that were written concurrently. The condition holds for
/// the versions below.
fn insert(
    state: &[Version],
    call: &Call<Operation>,
    (token, is_marker): (Token, bool),
    condition: Condition,
) -> Vec<Vec<Version>> {
    let before = state.iter().rposition(|version| version.ended < call.begun).map_or(0, |last| last + 1);
    let places = (before..=state.len()).filter(|place| condition.holds(content_of(&state[..*place])));
    let version = Version { token, is_marker, ended: call.ended };
    places.map(|place| [&state[..place], &[version], &state[place..]].concat()).collect()
}
