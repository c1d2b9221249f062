//! `keyhole chunked`: bare chunked messages (C2SP chunked-encryption, Cobblestone-256).

use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{PREFIX_LEN, SALT_LEN};

use super::stream::{Input, Output, Progress, finish_opened};
use super::{CommandError, Result, stream};
use crate::cli::sealed::{ChunkedCommand, Hex};
use crate::engine::AnyEngine;
use crate::env::random;

pub(crate) fn run(command: &ChunkedCommand) -> Result<()> {
    let engine = AnyEngine::Accelerated;
    match command {
        ChunkedCommand::Seal { options, salt_hex } => {
            let mut salt = [0; SALT_LEN];
            match salt_hex {
                Some(Hex(given)) => salt = **given,
                None => random(&mut salt),
            }
            let mut sealer = Sealer::new(&engine, &options.key_hex.0, &salt, &[&options.context_hex.0]);
            let mut input = Input::open(&options.input)?;
            let mut output = Output::create(&options.output, &[input.id])?;
            output.write(&sealer.prefix())?;
            let progress = Progress::new(input.len);
            stream::seal(&mut sealer, &mut input, &mut output, &progress)?;
            output.finish()
        }
        ChunkedCommand::Open { options } => {
            let mut input = Input::open(&options.input)?;
            let progress = Progress::new(input.len);
            let mut prefix = [0; PREFIX_LEN];
            input.exactly(&mut prefix)?;
            let mut opener =
                Opener::new(&engine, &options.key_hex.0, &prefix, &[&options.context_hex.0]).map_err(|_| {
                    CommandError::Malformed("authentication failed: wrong key, context or message".to_owned())
                })?;
            // Create the output only after the input's beginning has authenticated.
            let mut output = Output::create(&options.output, &[input.id])?;
            let opened = stream::open(&mut opener, &mut input, None, &mut output, &progress);
            finish_opened(opened.and_then(|()| input.end()), output)
        }
    }
}
