//! FUSE calls of the faulty file system: each is checked against the faults, and then passed
//! through to the backing directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, mknodat, statvfs};

use super::inodes::Inodes;
use super::{PAGE, SharedFaults};

/// Cache lifetime of names and attributes: the kernel asks for them each time.
const TTL: Duration = Duration::ZERO;

/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
const PUNCH_HOLE: i32 = 3;

type Result<T> = std::result::Result<T, Errno>;

/// The mounted file system.
pub(super) struct Calls {
    backing: PathBuf,
    faults: SharedFaults,
    table: Mutex<FileTable>,
}

/// A write by the program under test.
struct Write<'a> {
    offset: u64,
    bytes: &'a [u8],
    /// Whether it is synced before it completes (`O_DSYNC`, `RWF_DSYNC`).
    is_durable: bool,
}

/// Inodes and open files.
struct FileTable {
    inodes: Inodes,
    files: HashMap<u64, Arc<File>>,
    next_handle: u64,
}

impl Calls {
    pub(super) fn new(backing: PathBuf, faults: SharedFaults) -> Self {
        let table = FileTable { inodes: Inodes::new(), files: HashMap::new(), next_handle: 1 };
        Calls { backing, faults, table: Mutex::new(table) }
    }

    fn table(&self) -> MutexGuard<'_, FileTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the backing path of an inode.
    fn path(&self, inode: INodeNo) -> Result<PathBuf> {
        let table = self.table();
        Ok(self.backing.join(table.inodes.path(inode.into()).ok_or(Errno::ENOENT)?))
    }

    /// Returns the path of a name within the root, and its backing path.
    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<(PathBuf, PathBuf)> {
        let path = self.table().inodes.child(parent.into(), name).ok_or(Errno::ENOENT)?;
        let backing = self.backing.join(&path);
        Ok((path, backing))
    }

    /// Returns the last component of an inode's path.
    fn name(&self, inode: INodeNo) -> String {
        let table = self.table();
        let name = table.inodes.path(inode.into()).and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>> {
        self.table().files.get(&handle.into()).cloned().ok_or(Errno::EBADF)
    }

    fn register(&self, file: File) -> FileHandle {
        let mut table = self.table();
        let handle = table.next_handle;
        table.next_handle += 1;
        table.files.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    /// Returns the attributes of a path within the root.
    fn entry(&self, path: &Path, backing: &Path) -> Result<FileAttr> {
        let metadata = fs::symlink_metadata(backing)?;
        let number = self.table().inodes.number(path);
        Ok(attributes(number, &metadata))
    }

    fn attributes(&self, inode: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr> {
        let metadata = match handle.map(|handle| self.file(handle)) {
            Some(Ok(file)) => file.metadata()?,
            _ => fs::symlink_metadata(self.path(inode)?)?,
        };
        Ok(attributes(inode.into(), &metadata))
    }

    fn make(&self, parent: INodeNo, name: &OsStr, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<FileAttr> {
        self.faults.lock().change()?;
        let (path, backing) = self.child(parent, name)?;
        make(&backing)?;
        self.entry(&path, &backing)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, remove: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
        self.faults.lock().change()?;
        let (path, backing) = self.child(parent, name)?;
        remove(&backing)?;
        if let Some(inode) = self.table().inodes.remove(&path) {
            self.faults.lock().free_from(inode, 0);
        }
        Ok(())
    }

    fn set_len(&self, inode: INodeNo, handle: Option<FileHandle>, len: u64) -> Result<()> {
        let file = match handle.map(|handle| self.file(handle)) {
            Some(Ok(file)) => file,
            _ => Arc::new(OpenOptions::new().write(true).open(self.path(inode)?)?),
        };
        file.set_len(len)?;
        self.faults.lock().free_from(inode.into(), len);
        Ok(())
    }

    fn read_some(&self, inode: INodeNo, handle: FileHandle, offset: u64, len: u32) -> Result<Vec<u8>> {
        self.faults.lock().read(&self.name(inode), &range(offset, len.into()))?;
        let file = self.file(handle)?;
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], offset + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    fn write_some(&self, inode: INodeNo, handle: FileHandle, write: Write<'_>) -> Result<()> {
        let touched = range(write.offset, write.bytes.len() as u64);
        self.faults.lock().write(inode.into(), &self.name(inode), &touched)?;
        self.file(handle)?.write_all_at(write.bytes, write.offset)?;
        if write.is_durable { self.faults.lock().sync() } else { Ok(()) }
    }

    fn allocate(&self, inode: INodeNo, handle: FileHandle, offset: u64, len: u64, mode: i32) -> Result<()> {
        let file = self.file(handle)?;
        let bytes = range(offset, len);
        match mode {
            0 => {
                self.faults.lock().allocate(inode.into(), &bytes)?;
                // The accounting reserves the space; the backing directory has enough.
                if file.metadata()?.len() < bytes.end {
                    file.set_len(bytes.end)?;
                }
                Ok(())
            }
            PUNCH_HOLE => {
                self.faults.lock().punch(inode.into(), &bytes)?;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&*file, flags, offset, len).map_err(|error| io::Error::from(error).into())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn list(&self, inode: INodeNo) -> Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let directory = self.path(inode)?;
        let own = inode.into();
        let mut entries = vec![(own, FileType::Directory, ".".into()), (own, FileType::Directory, "..".into())];
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            let within = path.strip_prefix(&self.backing).map_err(|_| Errno::EIO)?;
            let number = self.table().inodes.number(within);
            entries.push((number, kind(entry.file_type()?), entry.file_name()));
        }
        Ok(entries)
    }
}

fn range(offset: u64, len: u64) -> Range<u64> {
    offset..offset.saturating_add(len)
}

fn kind(kind: fs::FileType) -> FileType {
    if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::RegularFile
    }
}

fn attributes(inode: u64, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    FileAttr {
        ino: INodeNo(inode),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime()),
        mtime: time(metadata.mtime()),
        ctime: time(metadata.ctime()),
        crtime: UNIX_EPOCH,
        kind: kind(metadata.file_type()),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

/// Opens a backing file for reading, and for writing if that is permitted.
fn open_backing(path: &Path) -> io::Result<File> {
    let both = OpenOptions::new().read(true).write(true).open(path);
    both.or_else(|_| File::open(path))
}

impl Filesystem for Calls {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.child(parent, name).and_then(|(path, backing)| self.entry(&path, &backing)) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode, handle) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = || {
            self.faults.lock().change()?;
            if let Some(mode) = mode {
                fs::set_permissions(self.path(inode)?, Permissions::from_mode(mode))?;
            }
            if let Some(size) = size {
                self.set_len(inode, handle, size)?;
            }
            self.attributes(inode, handle)
        };
        match change() {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.make(parent, name, |path| {
            let kind = rustix::fs::FileType::from_raw_mode(mode);
            Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(mode), 0)?)
        });
        match made {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.make(parent, name, |path| {
            fs::create_dir(path)?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        });
        match made {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(self.remove(parent, name, |path| fs::remove_file(path)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(self.remove(parent, name, |path| fs::remove_dir(path)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || {
            self.faults.lock().change()?;
            let (from, from_backing) = self.child(parent, name)?;
            let (to, to_backing) = self.child(new_parent, new_name)?;
            fs::rename(from_backing, to_backing)?;
            if let Some(replaced) = self.table().inodes.rename(&from, &to) {
                self.faults.lock().free_from(replaced, 0);
            }
            Ok(())
        };
        reply_empty(rename(), reply);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = || {
            if flags.acc_mode() != fuser::OpenAccMode::O_RDONLY {
                self.faults.lock().change()?;
            }
            Ok(open_backing(&self.path(inode)?)?)
        };
        match open() {
            Ok(file) => reply.opened(self.register(file), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        let made = self.make(parent, name, |path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            file.set_permissions(Permissions::from_mode(mode & 0o7777))
        });
        let opened = made.and_then(|attributes| Ok((attributes, open_backing(&self.path(attributes.ino)?)?)));
        match opened {
            Ok((attributes, file)) => {
                let handle = self.register(file);
                reply.created(&TTL, &attributes, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_some(inode, handle, offset, len) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_durable = flags.0 as u32 & OFlags::DSYNC.bits() != 0;
        match self.write_some(inode, handle, Write { offset, bytes, is_durable }) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(self.allocate(inode, handle, offset, len, mode), reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.table().files.remove(&handle.into());
        reply.ok();
    }

    /// Checks only the faults: power never fails here, so written bytes are durable.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(self.faults.lock().sync(), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(self.faults.lock().sync(), reply);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(inode) {
            Ok(entries) => {
                for (index, (number, kind, name)) in (1..).zip(entries).skip(offset as usize) {
                    if reply.add(INodeNo(number), index, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let is_write = mask.contains(AccessFlags::W_OK);
        reply_empty(if is_write { self.faults.lock().change() } else { Ok(()) }, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (used, budget) = {
            let faults = self.faults.lock();
            (faults.used(), faults.budget())
        };
        let Ok(backing) = statvfs(&self.backing) else { return reply.error(Errno::EIO) };
        let pages = budget.map_or(backing.f_blocks, |budget| budget / PAGE);
        let free = budget.map_or(backing.f_bavail, |budget| budget.saturating_sub(used) / PAGE);
        reply.statfs(pages, free, free, backing.f_files, backing.f_ffree, PAGE as u32, 255, PAGE as u32);
    }
}

fn reply_empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
