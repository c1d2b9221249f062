//! A SeaweedFS cluster as the service: one of its servers and the node are killed while objects are
//! shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::data::{bytes, fresh_seed};
use keyhole_tests::seaweedfs::SeaweedFs;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{Aws, CustomerKey, Node, Request, Response};

use super::{Remote, free_address, launch, listed, status, verify, wait_until_shipped};
use crate::transfer::versions::{self, set_versioning};
use crate::transfer::{assert_same_stream, fill};

const OBJECTS: usize = 2000;
const KILLS: usize = 10;

/// An object or version that the node has acknowledged.
#[derive(Clone)]
struct Stored {
    seed: u64,
    len: usize,
    is_sealed: bool,
}

/// A client that repeats each request until the node has acknowledged it.
struct Client {
    address: std::net::SocketAddr,
    signer: Signer,
    key: CustomerKey,
    random: fastrand::Rng,
    /// Objects of the bucket without versions, by key.
    plain: BTreeMap<String, Stored>,
    /// Versions by key and id.
    versions: BTreeMap<(String, String), Stored>,
}

impl Client {
    fn send(&self, request: &Request) -> Response {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let signed = request.clone().signed(self.address, &self.signer);
            match signed.try_send_unsigned(self.address) {
                Ok(response) if response.status < 300 && response.is_complete => return response,
                Ok(response) => panic!("{}: {}", response.status, response.text()),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns a length: most are short, some are of several parts.
    fn random_len(&mut self) -> usize {
        match self.random.u32(..1000) {
            0..20 => 0,
            20..900 => self.random.usize(1..8 << 10),
            900..980 => self.random.usize(8 << 10..128 << 10),
            980..996 => self.random.usize(128 << 10..2 << 20),
            _ => self.random.usize(4 << 20..=6 << 20),
        }
    }

    /// Stores an object or a version. Two of three are sealed.
    fn put(&mut self, bucket: &str, key: &str) {
        let stored = Stored { seed: self.random.u64(..), len: self.random_len(), is_sealed: self.random.u32(..3) > 0 };
        let mut put = Request::new("PUT", &format!("/{bucket}/{key}")).header("x-amz-meta-n", stored.seed.to_string());
        if stored.is_sealed {
            put = put.headers(self.key.headers());
        }
        let response = self.send(&put.body(bytes(stored.seed, stored.len)));
        match response.header("x-amz-version-id") {
            Some(id) => drop(self.versions.insert((key.to_owned(), id.to_owned()), stored)),
            None => drop(self.plain.insert(key.to_owned(), stored)),
        }
    }

    /// Overwrites or deletes something.
    fn change(&mut self, keys: usize) {
        let key = key_of(self.random.usize(..keys));
        match self.random.u32(..4) {
            0 => self.put("plain", &key),
            1 => {
                self.send(&Request::new("DELETE", &format!("/plain/{key}")));
                self.plain.remove(&key);
            }
            // A delete marker.
            2 => drop(self.send(&Request::new("DELETE", &format!("/history/{key}")))),
            _ => {
                let Some((key, id)) = self.random.choice(self.versions.keys()).cloned() else { return };
                self.send(&Request::new("DELETE", &format!("/history/{key}")).query("versionId", &id));
                self.versions.remove(&(key, id));
            }
        }
    }

    fn run(mut self, done: &AtomicUsize) -> Self {
        for number in 0..OBJECTS {
            let bucket = if number % 2 == 0 { "plain" } else { "history" };
            let key = if number % 2 == 0 { number / 2 } else { self.random.usize(..OBJECTS / 4) };
            self.put(bucket, &key_of(key));
            if self.random.u32(..5) == 0 {
                self.change(number / 2 + 1);
            }
            done.store(number + 1, Ordering::Relaxed);
        }
        self
    }
}

fn key_of(number: usize) -> String {
    format!("{}/k{number}", number % 7)
}

/// Returns the names that the remote must have of a bucket, from the versions that the node lists.
fn expected(node: &Node, bucket: &str, is_versioned: bool, names: &mut BTreeSet<String>) {
    names.insert(format!("{bucket}/.bucket"));
    let mut list = Request::new("GET", &format!("/{bucket}")).query("versions", "");
    loop {
        let page = node.send(&list).expect(200);
        let text = page.text().replace("<DeleteMarker>", "<Version>");
        for item in text.split("<Version>").skip(1) {
            let field = |name: &str| item.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap();
            names.insert(match is_versioned {
                true => format!("{bucket}/.version/{}/{}", field("Key"), field("VersionId")),
                false => format!("{bucket}/{}", field("Key")),
            });
        }
        let Some(marker) = page.element("NextKeyMarker") else { return };
        let id = page.element("NextVersionIdMarker").unwrap();
        list = Request::new("GET", &format!("/{bucket}")).query("versions", "");
        list = list.query("key-marker", &marker).query("version-id-marker", &id);
    }
}

/// Kills the node at random moments while the client runs and afterwards, and one volume server.
fn kill_often(node: &mut Node, cluster: &mut SeaweedFs, done: &AtomicUsize, random: &mut fastrand::Rng) {
    let mut is_volume_killed = false;
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(random.u64(50..1500)));
        if !is_volume_killed && done.load(Ordering::Relaxed) > OBJECTS / 3 {
            cluster.kill_volume(random.usize(..3));
            is_volume_killed = true;
        }
        println!("killed after {} objects: {}", done.load(Ordering::Relaxed), status(node));
        node.kill();
        node.start();
    }
    if !is_volume_killed {
        cluster.kill_volume(random.usize(..3));
    }
}

/// Fetches sealed objects with the AWS CLI, and opens their files with the key.
fn open_some(cluster: &SeaweedFs, client: &Client, random: &mut fastrand::Rng) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("key"), client.key.0).unwrap();
    let aws = Aws::with_endpoint("KEYHOLE_AWSCLI_2", &cluster.endpoint(), &cluster.signer(), directory.path());
    let plain = client.plain.iter().map(|(key, stored)| (format!("plain/{key}"), stored));
    let versions = client.versions.iter().map(|((key, id), stored)| (format!("history/.version/{key}/{id}"), stored));
    let mut sealed: Vec<_> = plain.chain(versions).filter(|(_, stored)| stored.is_sealed).collect();
    random.shuffle(&mut sealed);
    sealed.sort_by_key(|(_, stored)| stored.len < 4 << 20);
    let (name, stored) = &sealed[sealed.len() - 1];
    println!("of {} sealed objects, e.g. {name} with {} bytes", sealed.len(), stored.len);
    let largest = sealed.iter().take(2);
    for (name, stored) in largest.chain(sealed.iter().rev().take(4)) {
        aws.shell(&format!("aws s3 cp --quiet s3://bucket/site/1/{name} file"));
        let file = directory.path().join("file");
        let key = directory.path().join("key");
        let open = ["open", "--key", super::text(&key), super::text(&file)];
        let opened = keyhole_tests::command::expect_success(&open, b"");
        assert!(opened == bytes(stored.seed, stored.len), "{name}");
    }
}

#[test]
fn cluster_has_every_acknowledged_version_after_crashes() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut cluster = SeaweedFs::start();
    cluster.make_bucket("bucket");
    println!("the cluster runs after {:?}", begun.elapsed());
    let remote = Remote::new(&cluster.endpoint());
    let mut node = launch().listen(&free_address()).start();
    ["plain", "history"].iter().for_each(|bucket| node.make_bucket(bucket));
    set_versioning(&node, "history", "Enabled");
    remote.add(&node, &["--plaintext", "allow"]);

    let client = Client {
        address: node.address(),
        signer: cluster.signer(),
        key: CustomerKey::random(),
        random: random.fork(),
        plain: BTreeMap::new(),
        versions: BTreeMap::new(),
    };
    let done = AtomicUsize::new(0);
    let client = thread::scope(|scope| {
        let client = scope.spawn(|| client.run(&done));
        kill_often(&mut node, &mut cluster, &done, &mut random);
        client.join().unwrap()
    });
    println!("all is stored after {:?}: {}", begun.elapsed(), status(&node));
    let shipped = wait_until_shipped(&node);
    println!("shipped after {:?}: {shipped}", begun.elapsed());
    assert_eq!((&shipped["owed"], &shipped["exceptions"]), (&0.into(), &serde_json::json!([])), "{shipped}");

    let mut names = BTreeSet::from([".keyhole".to_owned()]);
    expected(&node, "plain", false, &mut names);
    expected(&node, "history", true, &mut names);
    for name in client.plain.keys() {
        assert!(names.contains(&format!("plain/{name}")), "{name}");
    }
    for (key, id) in client.versions.keys() {
        assert!(names.contains(&format!("history/.version/{key}/{id}")), "{key} {id}");
    }
    let found = listed(|request| cluster.send(request), "bucket", "site/1/");
    let found: BTreeSet<String> = found.into_iter().map(|(name, _)| name["site/1/".len()..].to_owned()).collect();
    let missing: Vec<_> = names.difference(&found).collect();
    let unexpected: Vec<_> = found.difference(&names).collect();
    assert!(missing.is_empty() && unexpected.is_empty(), "missing {missing:?}, unexpected {unexpected:?}");
    let (figures, _) = verify(&node, 0);
    assert_eq!(figures["equal"].as_u64().unwrap(), names.len() as u64 - 1, "{figures}");
    open_some(&cluster, &client, &mut random);
    println!("verified after {:?}", begun.elapsed());
}

/// Names, metadata and sizes of every kind go to another implementation of S3 and come back.
#[test]
fn store_is_rebuilt_from_cluster() {
    let cluster = SeaweedFs::start();
    cluster.make_bucket("bucket");
    let remote = Remote::new(&cluster.endpoint());
    let node = launch().start();
    remote.add(&node, &["--plaintext", "allow"]);
    fill(&node);
    versions::fill(&node);
    let shipped = wait_until_shipped(&node);
    assert_eq!(shipped["exceptions"], serde_json::json!([]));
    verify(&node, 0);
    let other = launch().start();
    remote.restore(other.data(), 0, &[]);
    assert_same_stream(&node, &other);
}
