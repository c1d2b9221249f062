//! Tests of the faults through system calls.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, fallocate};

use super::*;
use crate::device::skipped;

const EIO: Option<i32> = Some(5);
const ENOSPC: Option<i32> = Some(28);
const EROFS: Option<i32> = Some(30);
const EOPNOTSUPP: Option<i32> = Some(95);

fn mounted(test: &str) -> Option<FaultyFs> {
    FaultyFs::mount().map_err(|reason| skipped(test, &reason)).ok()
}

fn open(faulty: &FaultyFs) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(faulty.point().join("file")).unwrap()
}

fn code<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn allocate(file: &File, len: u64) -> Option<i32> {
    fallocate(file, FallocateFlags::empty(), 0, len).err().map(rustix::io::Errno::raw_os_error)
}

#[test]
fn bad_sector_fails_reads_until_written() {
    let Some(faulty) = mounted("a bad sector") else { return };
    let file = open(&faulty);
    file.write_all_at(&[7; 4 * PAGE as usize], 0).unwrap();
    faulty.fail_reads("file", PAGE..PAGE + 512);
    let mut page = [0; PAGE as usize];
    assert_eq!(code(file.read_exact_at(&mut page, PAGE)), EIO);
    assert_eq!(code(file.read_exact_at(&mut [0; 2], PAGE - 1)), EIO);
    file.read_exact_at(&mut page, 0).unwrap();
    file.read_exact_at(&mut page, 2 * PAGE).unwrap();
    assert_eq!(faulty.injected().reads, 2);
    // The injected failure leaves the bytes unchanged.
    assert_eq!(fs::read(faulty.backing().join("file")).unwrap(), vec![7; 4 * PAGE as usize]);
    file.write_all_at(&[8; PAGE as usize], PAGE).unwrap();
    file.read_exact_at(&mut page, PAGE).unwrap();
    assert_eq!(page, [8; PAGE as usize]);
}

#[test]
fn unwritable_range_fails_writes_but_not_syncs() {
    let Some(faulty) = mounted("an unwritable range") else { return };
    let file = open(&faulty);
    faulty.fail_writes("file", 4 * PAGE..u64::MAX);
    file.write_all_at(&[1; 4 * PAGE as usize], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(code(file.write_all_at(&[1; 512], 4 * PAGE)), EIO);
    file.sync_data().unwrap();
    let other = File::create(faulty.point().join("other")).unwrap();
    other.write_all_at(&[1; 512], 4 * PAGE).unwrap();
    faulty.heal();
    file.write_all_at(&[1; 512], 4 * PAGE).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn durable_write_with_failing_syncs_fails() {
    let Some(faulty) = mounted("a durable write") else { return };
    const O_DSYNC: i32 = 0o10000;
    let path = faulty.point().join("file");
    let durable = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(O_DSYNC).open(path).unwrap();
    durable.write_all_at(&[1; 512], 0).unwrap();
    faulty.fail_syncs();
    assert_eq!(code(durable.write_all_at(&[1; 512], 0)), EIO);
    open(&faulty).write_all_at(&[1; 512], 0).unwrap();
}

#[test]
fn read_only_file_system_refuses_changes_and_serves_reads() {
    let Some(faulty) = mounted("a read-only file system") else { return };
    let file = open(&faulty);
    file.write_all_at(&[1; 512], 0).unwrap();
    faulty.set_read_only(true);
    assert_eq!(code(file.write_all_at(&[2; 512], 0)), EROFS);
    let path = faulty.point().join("file");
    assert_eq!(code(OpenOptions::new().write(true).open(&path)), EROFS);
    assert_eq!(code(File::create(faulty.point().join("new"))), EROFS);
    assert_eq!(code(fs::remove_file(&path)), EROFS);
    assert_eq!(code(fs::create_dir(faulty.point().join("directory"))), EROFS);
    assert_eq!(fs::read(&path).unwrap(), [1; 512]);
}

#[test]
fn full_file_system_without_fallocate_accepts_only_overwrites() {
    let Some(faulty) = mounted("a full file system") else { return };
    let file = open(&faulty);
    assert_eq!(allocate(&file, PAGE), EOPNOTSUPP);
    file.write_all_at(&[1; 8 * PAGE as usize], 0).unwrap();
    faulty.fill();
    assert_eq!(rustix::fs::statvfs(faulty.point()).unwrap().f_bavail, 0);
    file.write_all_at(&[2; PAGE as usize], PAGE).unwrap();
    assert_eq!(code(file.write_all_at(&[2; 1], 8 * PAGE)), ENOSPC);
    file.set_len(7 * PAGE).unwrap();
    file.write_all_at(&[2; 1], 7 * PAGE).unwrap();
    drop(file);
    fs::remove_file(faulty.point().join("file")).unwrap();
    assert_eq!(faulty.used(), 0);
}

#[test]
fn write_to_reserved_space_on_full_file_system_succeeds() {
    let Some(faulty) = mounted("reserved space") else { return };
    let file = open(&faulty);
    faulty.set_space(Space::Reserved);
    faulty.set_budget(Some(4 * PAGE));
    assert_eq!((allocate(&file, 5 * PAGE), allocate(&file, 4 * PAGE)), (ENOSPC, None));
    file.write_all_at(&[1; 4 * PAGE as usize], 0).unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, flags, PAGE, PAGE).unwrap();
    assert_eq!(faulty.used(), 3 * PAGE);
    assert_eq!(allocate(&file, 4 * PAGE), None, "allocated pages need no more space");
}

#[test]
fn overwrite_with_copy_on_write_needs_space() {
    let Some(faulty) = mounted("copy on write") else { return };
    let file = open(&faulty);
    faulty.set_space(Space::CopyOnWrite);
    faulty.set_budget(Some(4 * PAGE));
    assert_eq!(allocate(&file, 100 * PAGE), None);
    file.write_all_at(&[1; 4 * PAGE as usize], 0).unwrap();
    assert_eq!(code(file.write_all_at(&[1; 1], 0)), ENOSPC);
}

#[test]
fn files_are_written_directly_renamed_and_listed() {
    const O_DIRECT: i32 = 0o40000;
    let Some(faulty) = mounted("direct writes") else { return };
    fs::create_dir(faulty.point().join("deep")).unwrap();
    let path = faulty.point().join("deep/new");
    let direct = OpenOptions::new().write(true).create_new(true).custom_flags(O_DIRECT).open(&path).unwrap();
    // Longer than a single request of the kernel.
    let bytes: Vec<u8> = (0..3 << 20).map(|n| (n >> 12) as u8).collect();
    direct.write_all_at(&bytes, 0).unwrap();
    fs::rename(&path, faulty.point().join("deep/file")).unwrap();
    fs::rename(faulty.point().join("deep"), faulty.point().join("moved")).unwrap();
    assert_eq!(fs::read(faulty.point().join("moved/file")).unwrap(), bytes);
    let names: Vec<_> =
        fs::read_dir(faulty.point().join("moved")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    faulty.fail_reads("file", 0..1);
    assert_eq!(code(fs::read(faulty.point().join("moved/file"))), EIO);
}
