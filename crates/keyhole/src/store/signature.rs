//! Identifies the content of a device by the signatures of file systems, partition tables and
//! volume managers.
//!
//! The result is for the operator, to prevent formatting by mistake; other content is reported as
//! unknown data.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use keyhole_log::limits::SUPERBLOCK_AT;

/// Bytes inspected at the beginning of a device; they contain all known signatures.
pub(crate) const LOOKED_AT: usize = 1 << 20;

/// The apparent content of the first [`LOOKED_AT`] bytes of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signature {
    /// An object file of Keyhole.
    Keyhole,
    /// Only zeros.
    Zeros,
    /// A known format.
    Known(&'static str),
    /// Other bytes.
    Unknown,
}

/// The signature of an object file.
const KEYHOLE: &[u8] = b"keyhlog\n";

/// Description, offset and signature; the first match counts. Formats that contain a partition
/// table's signature come before it, as do formats that are laid over a device that had one.
const MARKS: &[(&str, usize, &[u8])] = &[
    ("a LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    ("an LVM physical volume", 0x000, b"LABELONE"),
    ("an LVM physical volume", 0x200, b"LABELONE"),
    ("an LVM physical volume", 0x400, b"LABELONE"),
    ("an LVM physical volume", 0x600, b"LABELONE"),
    ("a member of a Linux RAID", 0x0000, b"\xfc\x4e\x2b\xa9"),
    ("a member of a Linux RAID", 0x1000, b"\xfc\x4e\x2b\xa9"),
    ("an XFS file system", 0, b"XFSB"),
    ("an ext2, ext3 or ext4 file system", 0x438, b"\x53\xef"),
    ("a btrfs file system", 0x10040, b"_BHRfS_M"),
    ("an F2FS file system", 0x400, b"\x10\x20\xf5\xf2"),
    ("a squashfs file system", 0, b"hsqs"),
    ("an ISO 9660 file system", 0x8001, b"CD001"),
    ("swap space", 0x0ff6, b"SWAPSPACE2"),
    ("swap space", 0x0ff6, b"SWAP-SPACE"),
    ("swap space", 0xfff6, b"SWAPSPACE2"),
    ("hibernated memory in swap space", 0x0ff6, b"S1SUSPEND"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a FAT file system", 0x36, b"FAT1"),
    ("a FAT file system", 0x52, b"FAT32"),
    ("a GPT partition table", 0x0200, b"EFI PART"),
    ("a GPT partition table", 0x1000, b"EFI PART"),
    ("an MBR partition table", 0x1fe, b"\x55\xaa"),
];

impl Signature {
    /// Inspects a device, up to its length.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let mut start = vec![0; LOOKED_AT];
        let mut len = 0;
        while len < LOOKED_AT {
            match file.read_at(&mut start[len..], len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Signature::parse(&start[..len]))
    }

    fn parse(start: &[u8]) -> Self {
        let has = |at: usize, mark: &[u8]| start.get(at..at + mark.len()) == Some(mark);
        if SUPERBLOCK_AT.iter().any(|at| has(*at as usize, KEYHOLE)) {
            return Signature::Keyhole;
        }
        if let Some((name, ..)) = MARKS.iter().find(|(_, at, mark)| has(*at, mark)) {
            return Signature::Known(name);
        }
        if start.iter().all(|byte| *byte == 0) { Signature::Zeros } else { Signature::Unknown }
    }

    /// Describes the content, for a message after "it has".
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Signature::Keyhole => "a Keyhole store",
            Signature::Zeros => "nothing but zeros in its first MiB",
            Signature::Known(name) => name,
            Signature::Unknown => "data of an unknown kind",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_found_at_their_offsets() {
        assert_eq!(Signature::parse(&[]), Signature::Zeros);
        assert_eq!(Signature::parse(&[0; LOOKED_AT]), Signature::Zeros);
        for (name, at, mark) in MARKS {
            let mut start = vec![0; LOOKED_AT];
            start[*at..at + mark.len()].copy_from_slice(mark);
            assert_eq!(Signature::parse(&start), Signature::Known(name));
            start[*at] ^= 1;
            assert_eq!(Signature::parse(&start), Signature::Unknown);
        }
        for at in SUPERBLOCK_AT {
            let mut start = vec![1; LOOKED_AT];
            start[at as usize..at as usize + KEYHOLE.len()].copy_from_slice(KEYHOLE);
            assert_eq!(Signature::parse(&start), Signature::Keyhole, "one copy is enough");
        }
        // A file system on a whole disk may leave the signature of a partition table.
        let mut start = vec![0; LOOKED_AT];
        start[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        start[0x438..0x43a].copy_from_slice(b"\x53\xef");
        assert_eq!(Signature::parse(&start), Signature::Known("an ext2, ext3 or ext4 file system"));
    }
}
