//! A compact ordered map of strings, for the names of objects.
//!
//! A lookup among millions of keys costs as much as the memory that it touches for the first time, so
//! each step of it reads one short array: the separators of the root, those of a node, the fingerprints
//! of a leaf, and at last one key. The separators of a node and the fingerprints of a leaf begin behind
//! the prefix that its keys share, so they hold the bytes in which long names differ. Keys with equal
//! separators or fingerprints are compared as a whole.
//!
//! A key is stored once and takes no allocation of its own: a leaf keeps all of its keys in one string.

mod leaf;
mod separators;

use leaf::Leaf;
use separators::Separators;

use crate::limits::{LEAF_MAX, NODE_MAX};

/// A leaf with fewer entries is merged with a neighbour if both fit into one.
const LEAF_MIN: usize = LEAF_MAX / 4;

/// A node with fewer leaves is merged with a neighbour if both fit into one.
const NODE_MIN: usize = NODE_MAX / 4;

/// An ordered map of strings.
#[derive(Debug)]
pub(crate) struct KeyMap<V> {
    /// The first keys of the nodes.
    firsts: Separators,
    /// The nodes. None of them is empty.
    nodes: Vec<Node<V>>,
    len: usize,
}

// Boxed, so that an insertion moves little.
#[allow(clippy::vec_box)]
type Leaves<V> = Vec<Box<Leaf<V>>>;

/// A run of leaves. None of them is empty.
#[derive(Debug)]
struct Node<V> {
    /// The first keys of the leaves.
    firsts: Separators,
    leaves: Leaves<V>,
}

/// Position of an entry or of an insertion. Invalidated by changes of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyPlace {
    node: usize,
    leaf: usize,
    at: usize,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        KeyMap { firsts: Separators::default(), nodes: Vec::new(), len: 0 }
    }
}

/// Returns the last child whose first key is not above `key`, or else the first child.
fn child_of<'a>(firsts: &Separators, key: &[u8], first: impl Fn(usize) -> &'a str) -> usize {
    let equal = firsts.equal(key);
    let mut low = equal.start;
    let mut high = equal.end;
    while low < high {
        let middle = low.midpoint(high);
        if first(middle).as_bytes() <= key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.saturating_sub(1)
}

impl<V> Node<V> {
    fn new(leaves: Leaves<V>) -> Self {
        let mut node = Node { firsts: Separators::default(), leaves };
        node.renew_firsts();
        node
    }

    fn first(&self) -> &str {
        self.leaves[0].first()
    }

    fn renew_firsts(&mut self) {
        self.firsts = Separators::of(self.leaves.iter().map(|leaf| leaf.first()));
    }

    fn insert_leaf(&mut self, at: usize, leaf: Leaf<V>) {
        let inserted = self.firsts.insert(at, leaf.first());
        self.leaves.insert(at, Box::new(leaf));
        if !inserted {
            self.renew_firsts();
        }
    }

    /// Updates the first key of a leaf.
    fn first_changed(&mut self, leaf: usize) {
        if !self.firsts.replace(leaf, self.leaves[leaf].first()) {
            self.renew_firsts();
        }
    }

    /// Merges a leaf with the next one, or else the previous one, if they fit into one.
    fn join(&mut self, leaf: usize) {
        for left in [Some(leaf), leaf.checked_sub(1)].into_iter().flatten() {
            let len = self.leaves[left].len();
            if self.leaves.get(left + 1).is_some_and(|right| right.len() + len <= LEAF_MAX) {
                let right = self.leaves.remove(left + 1);
                self.firsts.remove(left + 1);
                self.leaves[left].append(*right);
                return;
            }
        }
    }
}

impl<V> KeyMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes allocated by the map, with its keys, without those owned by values.
    pub(crate) fn allocated(&self) -> usize {
        let of_node = |node: &Node<V>| {
            let leaves: usize = node.leaves.iter().map(|leaf| leaf.allocated()).sum();
            leaves + node.leaves.capacity() * size_of::<usize>() + node.firsts.allocated()
        };
        let nodes = self.nodes.iter().map(of_node).sum::<usize>() + self.nodes.capacity() * size_of::<Node<V>>();
        nodes + self.firsts.allocated()
    }

    /// Returns the position of this key (`Ok`), or where it would be inserted (`Err`).
    pub(crate) fn find(&self, key: &[u8]) -> Result<KeyPlace, KeyPlace> {
        let node = child_of(&self.firsts, key, |node| self.nodes[node].first());
        let Some(found) = self.nodes.get(node) else { return Err(KeyPlace { node: 0, leaf: 0, at: 0 }) };
        let leaf = child_of(&found.firsts, key, |leaf| found.leaves[leaf].first());
        match found.leaves[leaf].find(key) {
            Ok(at) => Ok(KeyPlace { node, leaf, at }),
            Err(at) => Err(KeyPlace { node, leaf, at }),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        self.find(key).ok().map(|place| self.at(place))
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.find(key).ok().map(|place| self.at_mut(place))
    }

    pub(crate) fn contains_key(&self, key: &[u8]) -> bool {
        self.find(key).is_ok()
    }

    pub(crate) fn at(&self, KeyPlace { node, leaf, at }: KeyPlace) -> &V {
        self.nodes[node].leaves[leaf].value(at)
    }

    pub(crate) fn at_mut(&mut self, KeyPlace { node, leaf, at }: KeyPlace) -> &mut V {
        self.nodes[node].leaves[leaf].value_mut(at)
    }

    /// Inserts an entry and returns the previous value.
    pub(crate) fn insert(&mut self, key: &str, value: V) -> Option<V> {
        match self.find(key.as_bytes()) {
            Ok(place) => Some(std::mem::replace(self.at_mut(place), value)),
            Err(place) => {
                self.insert_at(place, key, value);
                None
            }
        }
    }

    /// Inserts an entry at the position returned by [`find`](Self::find).
    pub(crate) fn insert_at(&mut self, KeyPlace { node, leaf, at }: KeyPlace, key: &str, value: V) {
        self.len += 1;
        let Some(found) = self.nodes.get_mut(node) else {
            self.insert_node(0, Node::new(vec![Box::new(Leaf::of(key, value))]));
            return;
        };
        let entries = &mut found.leaves[leaf];
        if entries.len() < LEAF_MAX {
            entries.insert(at, key, value);
            if at == 0 {
                self.first_changed(node, leaf);
            }
            return;
        }
        // At the end the full leaf stays full, so sequential insertion fills every leaf.
        let right = if at == LEAF_MAX {
            entries.shrink(0);
            Leaf::of(key, value)
        } else {
            let split = LEAF_MAX / 2;
            let mut right = entries.split_off(split);
            if at < split {
                entries.insert(at, key, value);
            } else {
                right.insert(at - split, key, value);
            }
            right
        };
        if at == 0 {
            self.first_changed(node, leaf);
        }
        self.insert_leaf(node, leaf + 1, right);
    }

    fn insert_node(&mut self, at: usize, node: Node<V>) {
        let inserted = self.firsts.insert(at, node.first());
        self.nodes.insert(at, node);
        if !inserted {
            self.renew_firsts();
        }
    }

    fn insert_leaf(&mut self, node: usize, at: usize, leaf: Leaf<V>) {
        let found = &mut self.nodes[node];
        if found.leaves.len() < NODE_MAX {
            found.insert_leaf(at, leaf);
            return;
        }
        let right = if at == NODE_MAX {
            Node::new(vec![Box::new(leaf)])
        } else {
            let split = NODE_MAX / 2;
            let mut leaves = found.leaves.split_off(split);
            if at <= split {
                found.leaves.insert(at, Box::new(leaf));
            } else {
                leaves.insert(at - split, Box::new(leaf));
            }
            found.renew_firsts();
            Node::new(leaves)
        };
        self.insert_node(node + 1, right);
    }

    fn renew_firsts(&mut self) {
        self.firsts = Separators::of(self.nodes.iter().map(Node::first));
    }

    /// Updates the first key of a leaf.
    fn first_changed(&mut self, node: usize, leaf: usize) {
        self.nodes[node].first_changed(leaf);
        if leaf == 0 && !self.firsts.replace(node, self.nodes[node].first()) {
            self.renew_firsts();
        }
    }

    #[cfg(test)]
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.find(key).ok().map(|place| self.remove_at(place))
    }

    pub(crate) fn remove_at(&mut self, KeyPlace { node, leaf, at }: KeyPlace) -> V {
        self.len -= 1;
        let found = &mut self.nodes[node];
        let entries = &mut found.leaves[leaf];
        let value = entries.remove(at);
        let len = entries.len();
        if len == 0 {
            found.leaves.remove(leaf);
            found.firsts.remove(leaf);
            if found.leaves.is_empty() {
                self.nodes.remove(node);
                self.firsts.remove(node);
                return value;
            }
            if leaf == 0 {
                self.first_changed(node, 0);
            }
        } else {
            if at == 0 {
                self.first_changed(node, leaf);
            }
            if len < LEAF_MIN {
                self.nodes[node].join(leaf);
            }
        }
        if self.nodes[node].leaves.len() < NODE_MIN {
            self.join(node);
        }
        value
    }

    /// Merges a node with the next one, or else the previous one, if they fit into one.
    fn join(&mut self, node: usize) {
        for left in [Some(node), node.checked_sub(1)].into_iter().flatten() {
            let len = self.nodes[left].leaves.len();
            if self.nodes.get(left + 1).is_some_and(|right| right.leaves.len() + len <= NODE_MAX) {
                let right = self.nodes.remove(left + 1);
                self.firsts.remove(left + 1);
                self.nodes[left].leaves.extend(right.leaves);
                self.nodes[left].renew_firsts();
                return;
            }
        }
    }

    /// Iterates over the entries with keys at or above `key`.
    pub(crate) fn from(&self, key: &[u8]) -> impl Iterator<Item = (&str, &V)> + use<'_, V> {
        self.iter_at(self.find(key).unwrap_or_else(|place| place))
    }

    /// Iterates over the entries from a position on.
    fn iter_at(&self, KeyPlace { node, leaf, at }: KeyPlace) -> impl Iterator<Item = (&str, &V)> {
        let found = self.nodes.get(node);
        let entries = found.map(|found| found.leaves[leaf].iter_at(at));
        let leaves = found.map_or(&[][..], |found| &found.leaves[leaf + 1..]);
        let nodes = self.nodes.get(node + 1..).unwrap_or_default();
        let leaves = leaves.iter().chain(nodes.iter().flat_map(|node| &node.leaves));
        entries.into_iter().flatten().chain(leaves.flat_map(|leaf| leaf.iter_at(0)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.iter_at(KeyPlace { node: 0, leaf: 0, at: 0 })
    }

    pub(crate) fn last_key(&self) -> Option<&str> {
        self.nodes.last()?.leaves.last().map(|leaf| leaf.last())
    }
}

#[cfg(test)]
mod tests;
