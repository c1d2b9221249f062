//! `keyhole key`: customer keys in files of 32 bytes, as `openssl rand -out FILE 32` makes them.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use keyhole_core::limits::KEY_LEN;
use keyhole_core::sse_c::{Headers, SseCTarget};
use keyhole_core::{CustomerKey, key_id};
use zeroize::Zeroizing;

use super::{CommandError, Result};
use crate::cli::sealed::KeyCommand;
use crate::env::random;
use crate::regular;

pub(crate) fn run(command: &KeyCommand) -> Result<()> {
    match command {
        KeyCommand::New { file } => {
            make(file)?;
            show(file)
        }
        KeyCommand::Show { file } => show(file),
        KeyCommand::Id { file, bucket } => {
            println!("{}", hex::encode(key_id(&read(file)?, bucket)));
            Ok(())
        }
    }
}

fn make(path: &Path) -> Result<()> {
    let failed = |error| CommandError::io(format_args!("cannot make {}", path.display()), error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    random(&mut *key);
    file.write_all(&*key).and_then(|()| file.sync_all()).map_err(failed)
}

/// Reads a key file of 32 bytes.
pub(crate) fn read(path: &Path) -> Result<CustomerKey> {
    let failed = |error| CommandError::io(format_args!("cannot read {}", path.display()), error);
    // One more byte, to detect longer files.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
    regular::open(path).map_err(failed)?.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    match <[u8; KEY_LEN]>::try_from(&bytes[..]) {
        Ok(key) => Ok(CustomerKey::new(key)),
        Err(_) => Err(CommandError::Usage(format!(
            "invalid key file {}: expected exactly {KEY_LEN} bytes, not text; create one with `keyhole key new FILE`",
            path.display()
        ))),
    }
}

fn show(path: &Path) -> Result<()> {
    let headers = Headers::new(&read(path)?);
    let [_, (_, key), (_, md5)] = headers.iter(SseCTarget::Object);
    println!("ENCRYPTION_KEY={key}\nKEY_DIGEST={md5}");
    Ok(())
}
