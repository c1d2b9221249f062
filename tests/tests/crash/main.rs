//! The real binary under load, killed or cut off from power: acknowledged objects must be intact
//! after every round.
//!
//! `KEYHOLE_CRASH_ROUNDS` sets the number of rounds of each kind, and `KEYHOLE_CRASH_SEED` repeats
//! a run as far as a seed can. Devices need root: without it those tests report "skipped".

mod load;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use keyhole_tests::data::fresh_seed;
use keyhole_tests::device::{EmptyDevice, Volume, skipped};
use keyhole_tests::{Launch, Node, Request};

use load::{Client, Target};

const CLIENTS: usize = 6;

/// Default number of rounds.
const ROUNDS: u64 = 50;

/// Capacity of a store, enough for the objects of all rounds.
const CAPACITY: &str = "6GiB";
const WORK_MAX: u64 = 3 << 30;

/// Maximum number of bytes that the clients send in a round.
const ROUND_WORK_MAX: u64 = 32 << 20;

/// Length of the devices; their files are sparse.
const DEVICE_LEN: u64 = 8 << 30;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn rounds() -> u64 {
    variable("KEYHOLE_CRASH_ROUNDS").unwrap_or(ROUNDS)
}

fn launch() -> Launch {
    Launch::default().capacity(Some(CAPACITY)).with_credential()
}

/// A node and its clients, over many crashes.
struct CrashTest {
    node: Node,
    launch: Box<dyn Fn() -> Launch>,
    bucket: String,
    clients: Vec<Client>,
    random: Rng,
    rounds: u64,
    begun: Instant,
}

impl CrashTest {
    /// Creates the clients of a new node; `launch` returns the options after each crash.
    fn new(node: Node, launch: impl Fn() -> Launch + 'static) -> Self {
        let seed = variable("KEYHOLE_CRASH_SEED").unwrap_or_else(fresh_seed);
        println!("KEYHOLE_CRASH_SEED={seed}");
        let mut random = Rng::with_seed(seed);
        // Another node may reuse the port: it must not have this bucket.
        let bucket = format!("crash-{:016x}", fresh_seed());
        node.make_bucket(&bucket);
        let clients = (0..CLIENTS).map(|index| Client::new(&bucket, index, random.fork())).collect();
        let launch = Box::new(launch);
        CrashTest { node, launch, bucket, clients, random, rounds: 0, begun: Instant::now() }
    }

    /// Loads the node, and kills it at a random moment, or first cuts the power of its volume.
    fn crash(&mut self, cut: Option<&Volume>) {
        let target = Target::new(&self.node);
        let set = |flag: &AtomicBool| flag.store(true, Ordering::SeqCst);
        let work = self.random.u64(1..=ROUND_WORK_MAX.min(2 * WORK_MAX / rounds().max(1)));
        let mut pause = |ms_max: u64| thread::sleep(Duration::from_micros(self.random.u64(..ms_max * 1000)));
        thread::scope(|scope| {
            let target = &target;
            let threads: Vec<_> =
                self.clients.iter_mut().map(|client| scope.spawn(move || client.run(target))).collect();
            while target.work.load(Ordering::Relaxed) < work && !threads.iter().any(|thread| thread.is_finished()) {
                thread::sleep(Duration::from_millis(1));
            }
            pause(20);
            set(&target.progress.crashing);
            if let Some(volume) = cut {
                set(&target.progress.cutting);
                volume.cut_power();
                set(&target.progress.cut);
                // From here on no reply may acknowledge a write.
                pause(20);
            }
            set(&target.progress.gone);
            self.node.kill();
        });
        self.rounds += 1;
    }

    /// Restarts the node with either kind of I/O, and returns the acknowledged changes that were
    /// lost.
    fn recover(&mut self) -> Vec<String> {
        let io = if self.random.u8(..4) == 0 { "--io=epoll" } else { "--io=auto" };
        self.node.set_launch((self.launch)().arg(io));
        self.node.start();
        let mut lost: Vec<String> = self.clients.iter_mut().flat_map(|client| client.check(&self.node)).collect();
        let listed = self.node.send(&Request::new("GET", &format!("/{}", self.bucket)).query("list-type", "2"));
        let text = listed.text();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()).map(str::to_owned);
        let listed: BTreeSet<String> = keys.collect();
        let existing: BTreeSet<String> = self.clients.iter().flat_map(Client::existing).collect();
        lost.extend(
            existing.symmetric_difference(&listed).map(|name| format!("{name}: the listing and the object disagree")),
        );
        lost
    }

    /// Restarts the node and requires that nothing was lost.
    fn recover_all(&mut self) {
        let lost = self.recover();
        assert!(lost.is_empty(), "round {}: {lost:#?}", self.rounds);
    }

    fn report(&self, kind: &str) {
        let acknowledged: u64 = self.clients.iter().map(|client| client.acknowledged).sum();
        let unanswered: u64 = self.clients.iter().map(|client| client.unanswered).sum();
        let each = self.begun.elapsed().as_millis() / u128::from(self.rounds.max(1));
        println!(
            "{kind}: {} rounds of {each} ms, {acknowledged} changes acknowledged, {unanswered} carried out without a reply",
            self.rounds
        );
        assert!(acknowledged > self.rounds, "too few acknowledged changes");
    }
}

#[test]
fn acknowledged_objects_survive_kill_9() {
    let mut test = CrashTest::new(launch().start(), launch);
    for _ in 0..rounds() {
        test.crash(None);
        test.recover_all();
    }
    test.report("kill -9");
}

/// Runs a round of power loss and returns the acknowledged changes that were lost.
fn lose_power(test: &mut CrashTest, volume: &mut Volume) -> Vec<String> {
    test.crash(Some(volume));
    volume.restore_power();
    test.recover()
}

#[test]
fn acknowledged_objects_survive_power_loss() {
    let mut volume = match Volume::new(DEVICE_LEN) {
        Ok(volume) => volume,
        Err(reason) => return skipped("power loss", &reason),
    };
    let mut test = CrashTest::new(launch().start_in(&volume.point().join("data")), launch);
    for _ in 0..rounds() {
        let lost = lose_power(&mut test, &mut volume);
        assert!(lost.is_empty(), "round {}: {lost:#?}", test.rounds);
    }
    test.report("power loss");
}

/// Validates the test above: it must detect a node that acknowledges changes before they are
/// durable.
#[test]
#[cfg_attr(not(has_skip_sync), ignore = "KEYHOLE_BIN_SKIP_SYNC is not set: tests/run builds that binary")]
fn build_without_fdatasync_loses_objects() {
    let mut volume = match Volume::new(DEVICE_LEN) {
        Ok(volume) => volume,
        Err(reason) => return skipped("power loss without fdatasync", &reason),
    };
    let program = std::env::var_os("KEYHOLE_BIN_SKIP_SYNC").expect("a variable that was set at build time");
    let launch = move || launch().program(program.as_ref());
    let mut test = CrashTest::new(launch().start_in(&volume.point().join("data")), launch);
    assert!(test.node.log().contains("skip-sync"), "{}", test.node.log());
    // Make the store and the bucket durable: only objects are to be lost.
    volume.sync();
    for round in 1..=rounds() {
        let lost = lose_power(&mut test, &mut volume);
        if !lost.is_empty() {
            println!("detected in round {round}: {} lost, {}", lost.len(), lost[0]);
            return;
        }
    }
    panic!("no loss in {} rounds", test.rounds);
}

#[test]
fn acknowledged_objects_on_block_device_survive_kill_9() {
    let device = match EmptyDevice::new(DEVICE_LEN) {
        Ok(device) => device,
        Err(reason) => return skipped("kill -9 over a block device", &reason),
    };
    let state = device.home().to_owned();
    let launch = move || Launch::default().capacity(None).with_credential().env("XDG_STATE_HOME", &state);
    let mut test = CrashTest::new(launch().arg("--format").start_in(device.path()), launch);
    for _ in 0..rounds() {
        test.crash(None);
        test.recover_all();
    }
    test.report("kill -9 over a block device");
}

#[test]
fn block_device_with_file_system_is_refused() {
    let device = match EmptyDevice::new(64 << 20).and_then(|device| device.make_ext4().map(|()| device)) {
        Ok(device) => device,
        Err(reason) => return skipped("a block device with a file system", &reason),
    };
    let launch = Launch::default().capacity(None).with_credential().env("XDG_STATE_HOME", device.home());
    let (code, message) = launch.refused_start(device.path());
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("--format"), "{message}");
}
