//! Comparison of the map with the standard one, and its memory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::index::Key;
use crate::sorted::SortedMap;

impl<V> KeyMap<V> {
    fn check(&self) {
        let leaves = || self.nodes.iter().flat_map(|node| &node.leaves);
        assert!(self.nodes.iter().all(|node| (1..=NODE_MAX).contains(&node.leaves.len())));
        leaves().for_each(|leaf| leaf.check());
        assert_eq!(leaves().map(|leaf| leaf.len()).sum::<usize>(), self.len);
        assert!(self.iter().map(|(key, _)| key).is_sorted_by(|a, b| a < b));
        // Each child is found by its first key.
        for (at, node) in self.nodes.iter().enumerate() {
            assert!(self.firsts.equal(node.first().as_bytes()).contains(&at));
            for (at, leaf) in node.leaves.iter().enumerate() {
                assert!(node.firsts.equal(leaf.first().as_bytes()).contains(&at));
            }
        }
    }
}

/// Makes keys of one kind from numbers. The order of the keys is not that of the numbers.
type Keys = fn(u64) -> String;

const KINDS: [(&str, Keys); 8] = [
    ("short", |n| format!("{n:x}")),
    ("behind a long prefix", |n| format!("cameras/entrance-north/2026/11/29/frame-{n:010}.jpg")),
    ("behind two prefixes", |n| {
        format!("{}{:06}", ["logs/machine-7/", "measurements/of/the/day/"][n as usize % 2], n / 2)
    }),
    ("random", |n| {
        let mut random = fastrand::Rng::with_seed(n);
        (0..random.usize(0..40)).map(|_| random.alphanumeric()).collect()
    }),
    ("nested prefixes", |n| "a".repeat(n as usize % 900)),
    ("equal but for the end", |n| format!("{}{n:04}", "0123456789abcdef".repeat(1 + n as usize % 3))),
    ("with NUL bytes", |n| format!("k{}{}", "\0".repeat(n as usize % 30), ["", "\0a", "b"][n as usize % 3])),
    ("not ASCII", |n| char::from_u32(0x3b1 + n as u32 % 0x4000).map_or_else(String::new, |c| format!("{c}{n}ü"))),
];

fn seed() -> u64 {
    let seed =
        std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("KEYHOLE_SEED={seed}");
    seed
}

/// Compares random operations on few and on many keys of each kind with the standard map.
#[test]
fn key_map_behaves_as_the_standard_map() {
    let mut random = fastrand::Rng::with_seed(seed());
    for (kind, key_of) in KINDS {
        for keys in [10, 1000, 30_000] {
            println!("{kind}, {keys} keys");
            compare(key_of, keys, &mut random);
        }
    }
}

fn compare(key_of: Keys, keys: u64, random: &mut fastrand::Rng) {
    let mut map = KeyMap::default();
    let mut model = BTreeMap::new();
    for step in 0..12_000u64 {
        // The map grows, shrinks, and grows again.
        let key = key_of(random.u64(..keys));
        if random.u64(..10) < if step / 3000 % 2 == 0 { 7 } else { 2 } {
            assert_eq!(map.insert(&key, step), model.insert(key, step));
        } else {
            assert_eq!(map.remove(key.as_bytes()), model.remove(&key));
        }
        let probe = key_of(random.u64(..keys));
        assert_eq!(map.get(probe.as_bytes()), model.get(&probe));
        assert_eq!(map.contains_key(probe.as_bytes()), model.contains_key(&probe));
        let after = model.range(probe.clone()..).next();
        assert_eq!(map.from(probe.as_bytes()).next(), after.map(|(key, step)| (key.as_str(), step)));
        if step % 100 == 0 {
            // The key that a listing goes on from after a common prefix need not be UTF-8.
            let mut past = probe.into_bytes();
            past.push([0, 0x80, 0xff][step as usize / 100 % 3]);
            let after = model.iter().find(|(key, _)| key.as_bytes() >= past.as_slice());
            assert_eq!(map.from(&past).next(), after.map(|(key, step)| (key.as_str(), step)));
        }
        if step % 1000 == 0 {
            map.check();
            let entries = || model.iter().map(|(key, step)| (key.as_str(), step));
            assert!(map.iter().eq(entries()) && map.len() == model.len());
            assert_eq!(map.last_key(), entries().next_back().map(|(key, _)| key));
        }
    }
    for key in model.keys() {
        assert!(map.remove(key.as_bytes()).is_some());
    }
    map.check();
    assert!(map.is_empty());
}

/// Keys in order, in reverse, and shuffled: all of them are found, and the memory stays within what
/// [`INDEX_PER_NAME`](crate::limits::INDEX_PER_NAME) leaves for it.
#[test]
fn memory_of_a_name_is_within_its_estimate() {
    const COUNT: usize = 60_000;
    let mut random = fastrand::Rng::with_seed(seed());
    let ordered: Vec<String> = (0..COUNT).map(|n| format!("objects/of/the/day/{n:08}")).collect();
    let mut shuffled = ordered.clone();
    random.shuffle(&mut shuffled);
    let reversed: Vec<String> = ordered.iter().rev().cloned().collect();
    let len = ordered[0].len();
    // 76 bytes without the key and slack: the value, the fingerprint and the end of the key.
    for (keys, limit) in [(&ordered, 80 + len), (&reversed, 94 + len), (&shuffled, 86 + len)] {
        let mut map = KeyMap::default();
        for key in keys {
            map.insert(key, [0u64; 8]);
        }
        map.check();
        assert!(keys.iter().all(|key| map.contains_key(key.as_bytes())));
        let each = map.allocated() / COUNT;
        println!("{each} bytes an entry with a key of {len}");
        assert!(each <= limit, "{each}");
        for key in &shuffled[COUNT / 5..] {
            assert!(map.remove(key.as_bytes()).is_some());
        }
        map.check();
        assert!(shuffled[..COUNT / 5].iter().all(|key| map.contains_key(key.as_bytes())));
        assert!(map.allocated() / map.len() <= 2 * limit, "{}", map.allocated() / map.len());
    }
}

#[test]
fn empty_map_has_no_entries() {
    let mut map = KeyMap::<u8>::default();
    assert!(map.is_empty() && map.get(b"a").is_none() && map.remove(b"a").is_none());
    assert!(map.from(b"").next().is_none() && map.iter().next().is_none() && map.last_key().is_none());
    map.insert("", 1);
    assert_eq!(map.get(b""), Some(&1));
}

/// Measures lookups in turns with the sorted map of boxed keys, which stored the names before:
/// `cargo test --release -p keyhole-log --lib lookup_cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures, and takes a minute"]
fn lookup_cost_as_a_ratio_to_the_sorted_map() {
    const LOOKUPS: usize = 200_000;
    let mut random = fastrand::Rng::with_seed(seed());
    for (kind, key_of) in [KINDS[1], KINDS[3], KINDS[0]] {
        for count in [1000, 1_000_000] {
            let mut keys: Vec<String> = (0..count).map(key_of).collect();
            random.shuffle(&mut keys);
            let mut new = KeyMap::default();
            let mut old = SortedMap::default();
            for key in &keys {
                new.insert(key, [0u64; 8]);
                old.insert(Key::from(key.as_str()), [0u64; 8]);
            }
            let each = new.allocated() / new.len();
            let of_keys: usize = old.iter().map(|(key, _)| key.0.len()).sum();
            let each_old = (old.allocated() + of_keys) / old.len();
            let wanted: Vec<&str> = (0..LOOKUPS).map(|_| keys[random.usize(..keys.len())].as_str()).collect();
            let mut costs = [f64::MAX; 2];
            for _ in 0..5 {
                let start = Instant::now();
                wanted.iter().for_each(|key| assert!(black_box(old.get(key.as_bytes())).is_some()));
                costs[0] = costs[0].min(start.elapsed().as_nanos() as f64 / LOOKUPS as f64);
                let start = Instant::now();
                wanted.iter().for_each(|key| assert!(black_box(new.get(key.as_bytes())).is_some()));
                costs[1] = costs[1].min(start.elapsed().as_nanos() as f64 / LOOKUPS as f64);
            }
            let [before, after] = costs;
            let ratio = after / before;
            println!("{kind}, {count}: {before:.0} -> {after:.0} ns ({ratio:.2}), {each_old} -> {each} bytes an entry");
        }
    }
}
