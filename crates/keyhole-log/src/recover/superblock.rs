//! Reading and writing the two copies of the superblock.

use crate::disk::{Disk, is_unreadable, read_again};
use crate::error::{Damage, Error};
use crate::limits::{PAGE, SUPERBLOCK_AT};
use crate::wire::superblock::{Invalid, Superblock, VERSION};

/// What is said when neither copy can be read.
const BOTH_SUPERBLOCKS: &str = "both superblocks (run `keyhole check --repair`)";

/// The current superblock, and which copy is bad or older, so that it is to be written anew.
pub(super) async fn read<D: Disk>(disk: &D) -> Result<(Superblock, Option<usize>), Error> {
    let mut copies = Vec::with_capacity(2);
    let len = disk.len().await?;
    for offset in SUPERBLOCK_AT {
        if offset + PAGE as u64 > len {
            copies.push(Err(Invalid::Foreign { empty: len == 0 }));
            continue;
        }
        let (result, buf) = read_again(disk, offset, disk.buffer(), 0..PAGE).await;
        copies.push(match result {
            Ok(()) => Superblock::parse(&buf.as_ref()[..PAGE]),
            Err(error) if is_unreadable(&error) => Err(Invalid::Damaged),
            Err(error) => return Err(error.into()),
        });
    }
    let Ok([a, b]) = <[_; 2]>::try_from(copies) else { unreachable!("there are two copies") };
    // A sound copy of another version is in charge, whatever the other one says.
    for copy in [&a, &b] {
        if let Err(Invalid::Version { found, sound: true }) = *copy {
            return Err(Error::UnsupportedVersion { found, supported: VERSION });
        }
    }
    match (a, b) {
        (Ok(a), Ok(b)) if a.epoch == b.epoch => Ok((a, None)),
        (Ok(a), Ok(b)) if a.epoch > b.epoch => Ok((a, Some(1))),
        (Ok(_), Ok(b)) => Ok((b, Some(0))),
        (Ok(a), Err(_)) => Ok((a, Some(1))),
        (Err(_), Ok(b)) => Ok((b, Some(0))),
        (Err(a), Err(b)) => Err(refusal(a, b)),
    }
}

/// What the file is if it is none of ours that can be read.
fn refusal(a: Invalid, b: Invalid) -> Error {
    match (a, b) {
        (Invalid::Version { found, .. }, _) | (_, Invalid::Version { found, .. }) => {
            Error::UnsupportedVersion { found, supported: VERSION }
        }
        (Invalid::Damaged, _) | (_, Invalid::Damaged) => Damage::error(BOTH_SUPERBLOCKS, SUPERBLOCK_AT[0]),
        (Invalid::Foreign { empty: true }, Invalid::Foreign { empty: true }) => Error::Foreign("it is empty"),
        _ => Error::Foreign("it does not begin as one"),
    }
}

/// Writes one copy, durably.
pub(super) async fn write<D: Disk>(disk: &D, superblock: &Superblock, copy: usize) -> Result<(), Error> {
    let mut buf = disk.buffer();
    superblock.emit(D::part(&mut buf, 0..PAGE));
    let (result, _) = disk.write(SUPERBLOCK_AT[copy], buf, 0..PAGE).await;
    result?;
    Ok(disk.sync().await?)
}

/// Writes both copies, the second only after the first is durable: one of them is good at any time. `first` is the one that
/// is bad or older, if one is.
pub(super) async fn write_both<D: Disk>(disk: &D, superblock: &Superblock, first: usize) -> Result<(), Error> {
    write(disk, superblock, first).await?;
    write(disk, superblock, 1 - first).await
}
