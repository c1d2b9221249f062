//! Answers of the simulated disk on a faulty medium.

use std::future::Future;
use std::io::{ErrorKind, Result};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use keyhole_log::Disk;
use keyhole_log::limits::PAGE;
use keyhole_sim::disk::{ALWAYS, Crash, Faults, Medium, SimDisk, Survival, Survivors};
use keyhole_sim::random::Random;

const EIO: i32 = 5;
const EROFS: i32 = 30;

/// Runs a disk future that completes without waiting.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..100 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("an operation of the disk does not end");
}

/// Creates a medium of eight pages, each filled with one byte.
fn medium(faults: Faults) -> (Arc<Medium>, SimDisk) {
    let medium = Medium::new(Random::new(1), faults);
    let disk = SimDisk::in_turns(&medium);
    run(disk.allocate(0, 8 * PAGE as u64)).unwrap();
    write(&disk, 0, 8, 0x11).unwrap();
    run(disk.sync()).unwrap();
    (medium, disk)
}

fn write(disk: &SimDisk, page: usize, pages: usize, byte: u8) -> Result<()> {
    let mut buf = disk.buffer();
    buf.as_mut()[..pages * PAGE].fill(byte);
    run(disk.write((page * PAGE) as u64, buf, 0..pages * PAGE)).0
}

fn read(disk: &SimDisk, page: usize, pages: usize) -> Result<u8> {
    let (result, buf) = run(disk.read((page * PAGE) as u64, disk.buffer(), 0..pages * PAGE));
    result.map(|()| buf.as_ref()[0])
}

fn errno<T: std::fmt::Debug>(result: Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn unreadable_page_fails_each_read_until_it_is_healed() {
    for heals in [true, false] {
        let (medium, disk) = medium(Faults { heals, ..Faults::none() });
        medium.add_unreadable(&[3 * PAGE as u64]);
        for _ in 0..5 {
            assert_eq!(errno(read(&disk, 3, 1)), Some(EIO));
            assert_eq!(errno(read(&disk, 0, 8)), Some(EIO), "a read that touches it");
            assert_eq!(read(&disk, 0, 3).unwrap(), 0x11, "a read beside it");
        }
        medium.crash(Crash::Power(Survival::Nothing));
        assert_eq!(errno(read(&disk, 3, 1)), Some(EIO), "it outlives a power failure");
        write(&disk, 3, 1, 0x22).unwrap();
        if heals {
            assert_eq!(read(&disk, 3, 1).unwrap(), 0x22);
        } else {
            assert_eq!(errno(read(&disk, 3, 1)), Some(EIO));
        }
        medium.mend();
        assert_eq!(read(&disk, 3, 1).unwrap(), 0x22);
    }
}

#[test]
fn unwritable_page_fails_each_write() {
    let (medium, disk) = medium(Faults::none());
    medium.add_unwritable(3 * PAGE as u64..4 * PAGE as u64);
    for _ in 0..5 {
        assert_eq!(errno(write(&disk, 2, 2, 0x22)), Some(EIO));
        write(&disk, 4, 1, 0x22).unwrap();
    }
    assert!(medium.must_lose_power());
    assert_eq!(read(&disk, 4, 1).unwrap(), 0x22);
}

#[test]
fn read_only_medium_refuses_changes_and_serves_reads() {
    let (medium, disk) = medium(Faults::none());
    write(&disk, 0, 1, 0x22).unwrap();
    medium.turn_read_only_after(0);
    assert!(medium.is_read_only());
    assert_eq!(errno(run(disk.sync())), Some(EROFS), "the earlier write is not durable");
    assert_eq!(errno(write(&disk, 0, 1, 0x33)), Some(EROFS));
    assert_eq!(errno(run(disk.write_durable(0, disk.buffer(), 0..PAGE)).0), Some(EROFS));
    assert_eq!(errno(run(disk.allocate(0, PAGE as u64))), Some(EROFS));
    assert_eq!(errno(run(disk.discard(0, PAGE as u64))), Some(EROFS));
    assert_eq!(read(&disk, 1, 1).unwrap(), 0x11);
    medium.crash(Crash::Power(Survival::Nothing));
    assert_eq!(read(&disk, 0, 1).unwrap(), 0x11);
    run(disk.sync()).expect("nothing is to be written");
    medium.mend();
    write(&disk, 0, 1, 0x44).unwrap();
}

#[test]
fn write_without_space_fails_and_can_be_repeated() {
    use keyhole_sim::disk::FileSystem::NoExtents;
    let (medium, disk) = medium(Faults::none());
    medium.set_faults(Faults { file_system: NoExtents, neighbour: 1000, ..Faults::none() });
    run(disk.allocate(0, 2000 * PAGE as u64)).expect("the file only becomes longer");
    // Find the first hole without space.
    let fails = |page: &usize| write(&disk, *page, 1, 0x22).is_err_and(|error| error.kind() == ErrorKind::StorageFull);
    let page = (8..1900).find(fails).expect("others fill the file system");
    assert!(medium.counters().writes_full > 0 && medium.counters().failed == 0);
    write(&disk, 0, 8, 0x33).expect("these pages have space");
    medium.set_faults(Faults::none());
    write(&disk, page, 1, 0x44).unwrap();
    run(disk.sync()).unwrap();
    medium.crash(Crash::Power(Survival::Nothing));
    assert_eq!(read(&disk, page, 1).unwrap(), 0x44, "the partly written page keeps its later content");
}

#[test]
fn failed_sync_of_durable_write_is_visible_until_power_fails() {
    let (medium, disk) = medium(Faults::none());
    medium.update_faults(|faults| faults.sync = ALWAYS);
    let mut buf = disk.buffer();
    buf.as_mut().fill(0x22);
    run(disk.write_durable(0, buf, 0..PAGE)).0.unwrap_err();
    assert_eq!(read(&disk, 0, 1).unwrap(), 0x22, "the cache keeps it");
    medium.update_faults(|faults| faults.sync = 0);
    run(disk.sync()).expect_err("every sync that covers it fails");
    medium.crash(Crash::Process);
    run(disk.sync()).expect_err("in the next process as well");
    medium.crash(Crash::Power(Survival::Nothing));
    run(disk.sync()).unwrap();
    assert_eq!(read(&disk, 0, 1).unwrap(), 0x11);
}

#[test]
fn file_system_of_limited_size_has_the_space_that_others_leave() {
    let (medium, disk) = medium(Faults { holes: true, ..Faults::none() });
    let allocate = |page: usize, pages: usize| run(disk.allocate((page * PAGE) as u64, (pages * PAGE) as u64));
    medium.set_size(16 * PAGE as u64);
    assert_eq!(allocate(8, 9).unwrap_err().kind(), ErrorKind::StorageFull);
    allocate(8, 7).unwrap();
    medium.fill_by_others();
    assert_eq!(allocate(15, 1).unwrap_err().kind(), ErrorKind::StorageFull);
    medium.release_by_others();
    allocate(15, 1).unwrap();
    assert_eq!(allocate(16, 1).unwrap_err().kind(), ErrorKind::StorageFull);
    medium.punch(15 * PAGE as u64, PAGE as u64);
    allocate(16, 1).unwrap();
}

#[test]
fn chosen_changes_survive_power_failure() {
    let (medium, disk) = medium(Faults::none());
    for page in [0, 2, 4, 6] {
        write(&disk, page, 2, 0x22).unwrap();
    }
    assert_eq!(medium.unsynced(), 4);
    let survivors = Survivors { whole: 0b0001, beginnings: 0b0100, ends: 0b1000 };
    medium.crash(Crash::Power(Survival::Chosen(survivors)));
    let found: Vec<u8> = (0..8).map(|page| read(&disk, page, 1).unwrap()).collect();
    assert_eq!(found, [0x22, 0x22, 0x11, 0x11, 0x22, 0x11, 0x11, 0x22]);
}

#[test]
fn chosen_operations_fail() {
    let (medium, disk) = medium(Faults::none());
    medium.fail_after(2, 2);
    read(&disk, 0, 1).unwrap();
    write(&disk, 0, 1, 0x22).unwrap();
    read(&disk, 0, 1).unwrap_err();
    run(disk.sync()).unwrap_err();
    assert_eq!(medium.counters().chosen_failures, 2);
    read(&disk, 0, 1).unwrap();
    medium.fail_after(1, u64::MAX);
    run(disk.write_durable(0, disk.buffer(), 0..PAGE)).0.expect_err("its sync fails");
    read(&disk, 0, 1).unwrap_err();
    medium.end_failures();
    read(&disk, 0, 1).unwrap();
}
