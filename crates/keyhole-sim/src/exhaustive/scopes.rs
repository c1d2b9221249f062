//! The scopes: which operations make up the sequences, and the store that they begin with.

use std::fmt;

use keyhole_log::Durability;
use keyhole_log::limits::INLINE_MAX;

use crate::work::Operation;

/// Operations of a sequence.
const LENGTH: usize = 3;

/// Length of a body that is stored in its record. The record exceeds half a page, so that either
/// half of the page lacks a part of it.
const SHORT: u64 = 3000;

/// Length of the shortest body that is stored in blocks.
const LONG: u64 = INLINE_MAX as u64 + 1;

/// Length of a body of which eight fill a segment of records, and the number of such bodies that
/// are stored before a sequence: they fill one segment, and the next one except for two or three
/// bodies.
const FILLING: u64 = 60_000;
const FILLINGS: usize = 13;

/// The keys of objects in sequences. One is a prefix of the other.
const NAMES: [&str; 2] = ["a", "a/"];

/// The write after each recovery. Its key is in no sequence.
pub(super) const PROBE: Operation = Operation::Put("z", SHORT);

/// A set of cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// Durability of acknowledged writes.
    pub durability: Durability,
    /// Whether there are checkpoints and a cleaner.
    pub is_maintained: bool,
    /// The operations before each sequence.
    pub before: Vec<Operation>,
    /// The operations that a sequence consists of: those of one name, and the same ones of another.
    pub alphabet: Vec<Operation>,
    /// The operations after each sequence, which are interrupted like its last one.
    pub after: Vec<Operation>,
    /// Maximum number of operations of a sequence.
    pub length: usize,
    /// Number of operations after which a flush is inserted.
    pub flush_after: Option<usize>,
}

impl Scope {
    fn new(name: &'static str, alphabet: Vec<Operation>) -> Self {
        Scope {
            name,
            durability: Durability::Always,
            is_maintained: false,
            before: vec![Operation::CreateBuckets, Operation::Flush],
            alphabet,
            after: Vec::new(),
            length: LENGTH,
            flush_after: None,
        }
    }

    /// Returns sequences of writes and deletions of two objects.
    pub fn objects() -> Self {
        let each = |key| [Operation::Put(key, SHORT), Operation::Put(key, LONG), Operation::Delete(key)];
        Scope::new("objects", NAMES.into_iter().flat_map(each).collect())
    }

    /// Returns sequences of writes and deletions of two objects in segments that are nearly full,
    /// each followed by a compaction.
    pub fn cleaned() -> Self {
        let each = |key| [Operation::Put(key, FILLING), Operation::Delete(key)];
        let mut scope = Scope::new("cleaned objects", NAMES.into_iter().flat_map(each).collect());
        scope.is_maintained = true;
        scope.before.extend(NAMES.map(|key| Operation::Put(key, SHORT)));
        scope.before.extend([Operation::Put("b/b", FILLING); FILLINGS]);
        scope.after = vec![Operation::Compact];
        scope
    }

    /// Returns sequences of writes and deletions of versions of two objects.
    pub fn versions() -> Self {
        let each =
            |key| [Operation::PutVersion(key, SHORT), Operation::DeleteToMarker(key), Operation::DeleteNewest(key)];
        Scope::new("versions", ["v", "v/a"].into_iter().flat_map(each).collect())
    }

    /// Returns sequences like those of [`versions`](Self::versions) with suspended versioning,
    /// after one version of each object.
    pub fn suspended() -> Self {
        let mut scope = Scope { name: "suspended versions", ..Scope::versions() };
        let versions = ["v", "v/a"].map(|key| Operation::PutVersion(key, SHORT));
        scope.before.extend(versions);
        scope.before.extend([Operation::Suspend, Operation::Flush]);
        scope
    }

    /// Returns the scope with deferred durability and a flush after this many operations.
    #[must_use]
    pub fn deferred(self, flush_after: usize) -> Self {
        Scope { durability: Durability::Deferred, flush_after: Some(flush_after), ..self }
    }

    /// Returns the scope with a read of both objects after each sequence.
    #[must_use]
    pub fn with_reads(self) -> Self {
        Scope { after: NAMES.map(Operation::Get).to_vec(), ..self }
    }

    /// Returns the scope with sequences of up to this length.
    #[must_use]
    pub fn with_length(self, length: usize) -> Self {
        Scope { length, ..self }
    }

    /// Returns whether acknowledged writes are durable.
    pub(super) fn is_durable(&self) -> bool {
        self.durability == Durability::Always
    }

    /// Returns all sequences of up to the length of the scope, the empty one included. Those that
    /// begin with the second name are left out: they differ from others in their names only.
    pub(super) fn scripts(&self) -> Vec<Script> {
        let first = self.alphabet.len() / 2;
        let mut scripts = vec![Vec::new()];
        let mut longest = vec![Vec::new()];
        for place in 0..self.length {
            let choice = if place == 0 { &self.alphabet[..first] } else { &self.alphabet[..] };
            let extended = |script: &Vec<Operation>| {
                let script = script.clone();
                choice.iter().map(move |operation| [&script[..], &[*operation]].concat())
            };
            longest = longest.iter().flat_map(extended).collect();
            scripts.extend_from_slice(&longest);
        }
        scripts.into_iter().map(|script| self.script(&script)).collect()
    }

    /// Divides a sequence and inserts the flush.
    fn script(&self, sequence: &[Operation]) -> Script {
        let Some((last, before)) = sequence.split_last() else { return Script::default() };
        let mut script = Script { before: before.to_vec(), last: vec![*last] };
        match self.flush_after {
            Some(after) if after < sequence.len() => script.before.insert(after, Operation::Flush),
            Some(after) if after == sequence.len() => script.last.push(Operation::Flush),
            _ => {}
        }
        script.last.extend_from_slice(&self.after);
        script
    }
}

/// A sequence of operations, of which the last one is interrupted: interruptions of the others are
/// cases of shorter sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) before: Vec<Operation>,
    /// The interrupted operation, and what follows it. Empty: the opening is interrupted.
    pub(super) last: Vec<Operation>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |operations: &[Operation]| {
            let operations: Vec<String> = operations.iter().map(Operation::to_string).collect();
            operations.join(", ")
        };
        write!(f, "[{}], then [{}]", join(&self.before), join(&self.last))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:?}", self.name, self.durability)
    }
}
