//! A mixed load of PUT, GET and DELETE that records every answer, for nodes on faulty media.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::data::bytes;
use crate::http::object;
use crate::{Node, Request, Response};

/// Status of a request that fails for lack of space.
pub const INSUFFICIENT_STORAGE: u16 = 507;

/// Number of names that each client uses.
const NAMES: usize = 24;

/// Number of different contents per client.
const CONTENTS: usize = 6;

/// Maximum number of wrong answers described in a tally.
const WRONG_KEPT: usize = 20;

/// Lengths of objects: inside their records, one block, and several.
const LENGTHS: [usize; CONTENTS] = [100, 20_000, 90_000, 400_000, 1_500_000, 2_500_000];

/// Parameters of a load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Duration.
    pub time: Duration,
    /// Interval between the requests of a client; `None` for no delay.
    pub pace: Option<Duration>,
    /// Maximum latency of an answer.
    pub answer_max: Duration,
    /// Percentages of PUTs and GETs; the rest are DELETEs.
    pub mix: (u8, u8),
}

/// The answers of a load.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Counts by method and status.
    pub answers: BTreeMap<(&'static str, u16), u64>,
    /// Maximum latency.
    pub slowest: Duration,
    /// Descriptions of the first wrong answers.
    pub wrong: Vec<String>,
    /// Number of wrong answers.
    pub wrong_count: u64,
}

impl Tally {
    /// Returns the number of answers.
    pub fn count(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Returns the number of answers with this method and status.
    pub fn of(&self, method: &'static str, status: u16) -> u64 {
        self.answers.get(&(method, status)).copied().unwrap_or(0)
    }

    /// Formats the tally in one line.
    pub fn line(&self) -> String {
        let mut line = String::new();
        for ((method, status), count) in &self.answers {
            let _ = write!(line, "{method} {status}: {count}, ");
        }
        let slowest = self.slowest.as_millis();
        let _ = write!(line, "slowest answer {slowest} ms, wrong answers: {}", self.wrong_count);
        line
    }

    fn add(&mut self, other: Tally) {
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self.wrong_count += other.wrong_count;
        self.wrong.extend(other.wrong);
        self.wrong.truncate(WRONG_KEPT);
    }

    fn record_wrong(&mut self, wrong: String) {
        self.wrong_count += 1;
        if self.wrong.len() < WRONG_KEPT {
            self.wrong.push(wrong);
        }
    }
}

/// Clients, each with its own objects.
pub struct Load {
    clients: Vec<Client>,
}

struct Client {
    prefix: String,
    contents: Vec<Vec<u8>>,
    /// The content of each existing name.
    stored: BTreeMap<usize, usize>,
    /// Names whose last change was not answered.
    in_doubt: BTreeSet<usize>,
    random: Rng,
}

impl Load {
    /// Creates this many clients without objects.
    pub fn new(clients: usize, seed: u64) -> Self {
        let client = |index: usize| {
            let seed = seed.wrapping_add(1000 * index as u64);
            let contents = LENGTHS.into_iter().zip(0..).map(|(len, n)| bytes(seed + n, len)).collect();
            let prefix = format!("load/{index}");
            let random = Rng::with_seed(seed);
            Client { prefix, contents, stored: BTreeMap::new(), in_doubt: BTreeSet::new(), random }
        };
        Load { clients: (0..clients).map(client).collect() }
    }

    /// Runs the load and tallies the answers.
    pub fn run(&mut self, node: &Node, options: LoadOptions) -> Tally {
        let until = Instant::now() + options.time;
        let mut tally = Tally::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.clients.iter_mut().map(|client| scope.spawn(move || client.run(node, options, until))).collect();
            for thread in threads {
                tally.add(thread.join().expect("a client"));
            }
        });
        tally
    }

    /// Gets every name, with or without an object.
    pub fn verify(&mut self, node: &Node, answer_max: Duration) -> Tally {
        let mut tally = Tally::default();
        for client in &mut self.clients {
            for name in 0..NAMES {
                client.get(node, name, answer_max, &mut tally);
            }
        }
        tally
    }

    /// Deletes every object.
    pub fn delete_all(&mut self, node: &Node, answer_max: Duration) -> Tally {
        let mut tally = Tally::default();
        for client in &mut self.clients {
            for name in client.stored.keys().copied().collect::<Vec<_>>() {
                client.delete(node, name, answer_max, &mut tally);
            }
        }
        tally
    }
}

/// Objects that use up the remaining space of a store.
pub struct Ballast(Vec<String>);

/// Length and maximum number of these objects.
const BALLAST_LEN: usize = 1_500_000;
const BALLAST_MAX: usize = 2000;

impl Ballast {
    /// Puts objects until one fails for lack of space.
    pub fn put(node: &Node, answer_max: Duration) -> (Self, Tally) {
        let mut tally = Tally::default();
        let mut keys = Vec::new();
        for n in 0..BALLAST_MAX {
            let key = format!("ballast/{n}");
            let request = object("PUT", &key).body(vec![n as u8; BALLAST_LEN]);
            match send_timed("PUT", node, &request, answer_max, &mut tally).map(|reply| reply.status) {
                Some(200) => keys.push(key),
                Some(INSUFFICIENT_STORAGE) => return (Ballast(keys), tally),
                Some(status) => {
                    tally.record_wrong(format!("PUT {key}: {status}"));
                    break;
                }
                None => break,
            }
        }
        tally.record_wrong(format!("no PUT was refused for lack of space after {} objects", keys.len()));
        (Ballast(keys), tally)
    }

    /// Deletes the objects.
    pub fn delete(self, node: &Node, answer_max: Duration) -> Tally {
        let mut tally = Tally::default();
        for key in self.0 {
            let reply = send_timed("DELETE", node, &object("DELETE", &key), answer_max, &mut tally);
            if let Some(reply) = reply.filter(|reply| reply.status != 204) {
                tally.record_wrong(format!("DELETE {key}: {}", status_and_code(&reply)));
            }
        }
        tally
    }
}

impl Client {
    fn run(&mut self, node: &Node, options: LoadOptions, until: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut next = Instant::now();
        while Instant::now() < until {
            let name = self.random.usize(..NAMES);
            let dice = self.random.u8(..100);
            if dice < options.mix.0 {
                self.put(node, name, options.answer_max, &mut tally);
            } else if dice < options.mix.0 + options.mix.1 {
                self.get(node, name, options.answer_max, &mut tally);
            } else {
                self.delete(node, name, options.answer_max, &mut tally);
            }
            if let Some(pace) = options.pace {
                next += pace;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        tally
    }

    fn key(&self, name: usize) -> String {
        format!("{}/{name:02}", self.prefix)
    }

    fn put(&mut self, node: &Node, name: usize, answer_max: Duration, tally: &mut Tally) {
        let content = self.random.usize(..CONTENTS);
        let request = object("PUT", &self.key(name)).body(self.contents[content].clone());
        let Some(reply) = send_timed("PUT", node, &request, answer_max, tally) else {
            self.in_doubt.insert(name);
            return;
        };
        match reply.status {
            200 => {
                self.in_doubt.remove(&name);
                self.stored.insert(name, content);
            }
            INSUFFICIENT_STORAGE => {}
            _ => tally.record_wrong(format!("PUT {}: {}", self.key(name), status_and_code(&reply))),
        }
    }

    fn get(&mut self, node: &Node, name: usize, answer_max: Duration, tally: &mut Tally) {
        let Some(reply) = send_timed("GET", node, &object("GET", &self.key(name)), answer_max, tally) else { return };
        let expected = self.stored.get(&name).map(|content| &self.contents[*content]);
        let is_right = match expected {
            Some(content) => reply.status == 200 && reply.body == *content,
            None => reply.status == 404,
        };
        if !is_right && !self.in_doubt.contains(&name) {
            let wanted = expected.map(Vec::len);
            let got = format!("{} with {} bytes", reply.status, reply.body.len());
            tally.record_wrong(format!("GET {}: {got}, expected {wanted:?}", self.key(name)));
        }
    }

    fn delete(&mut self, node: &Node, name: usize, answer_max: Duration, tally: &mut Tally) {
        let Some(reply) = send_timed("DELETE", node, &object("DELETE", &self.key(name)), answer_max, tally) else {
            self.in_doubt.insert(name);
            return;
        };
        if reply.status == 204 {
            self.in_doubt.remove(&name);
            self.stored.remove(&name);
        } else {
            tally.record_wrong(format!("DELETE {}: {}", self.key(name), status_and_code(&reply)));
        }
    }
}

/// Formats status and error code of an answer.
fn status_and_code(reply: &Response) -> String {
    format!("{} {}", reply.status, reply.element("Code").unwrap_or_default())
}

/// Sends a request. A late or missing answer counts as wrong.
fn send_timed(
    method: &'static str,
    node: &Node,
    request: &Request,
    answer_max: Duration,
    tally: &mut Tally,
) -> Option<Response> {
    let begun = Instant::now();
    let reply = request.clone().signed(node.address(), node.signer()).try_send_within(node.address(), answer_max);
    let took = begun.elapsed();
    tally.slowest = tally.slowest.max(took);
    match reply {
        Ok(reply) => {
            *tally.answers.entry((method, reply.status)).or_default() += 1;
            if took > answer_max {
                tally.record_wrong(format!("{method} took {} ms", took.as_millis()));
            }
            Some(reply)
        }
        Err(error) => {
            tally.record_wrong(format!("{method}: no answer after {} ms: {error}", took.as_millis()));
            None
        }
    }
}
