//! `keyhole chunked`: bare chunked messages (C2SP chunked-encryption, Cobblestone-256).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{KEY_LEN, PREFIX_LEN, SALT_LEN};
use zeroize::Zeroizing;

use super::stream::{Input, Output, Progress, finish_opened};
use super::{Failure, Result, stream};
use crate::engine::Chosen;
use crate::env::random;

#[derive(Subcommand, Debug)]
pub(crate) enum ChunkedCommand {
    /// Seal standard input or a file as one message.
    Seal {
        #[command(flatten)]
        options: MessageOptions,
        /// The salt, 24 bytes in hex; random by default. Never use a salt twice with one key.
        #[arg(long, value_name = "HEX", value_parser = parse_hex::<SALT_LEN>)]
        salt_hex: Option<Hex<SALT_LEN>>,
    },
    /// Open one message.
    Open {
        #[command(flatten)]
        options: MessageOptions,
    },
}

#[derive(Args, Debug)]
pub(crate) struct MessageOptions {
    /// The input key, 32 bytes in hex. Other users of the machine can see it in the process list.
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<KEY_LEN>)]
    key_hex: Hex<KEY_LEN>,
    /// The context, in hex.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = parse_context)]
    context_hex: Context,
    /// The input file; `-` is standard input.
    #[arg(default_value = "-")]
    input: PathBuf,
    /// The output file; `-` is standard output.
    #[arg(default_value = "-")]
    output: PathBuf,
}

/// Bytes given in hex. `Debug` hides them, because they may be a key.
#[derive(Clone)]
pub(crate) struct Hex<const N: usize>(Zeroizing<[u8; N]>);

impl<const N: usize> std::fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Context(Vec<u8>);

fn parse_hex<const N: usize>(text: &str) -> std::result::Result<Hex<N>, String> {
    let mut bytes = Zeroizing::new([0; N]);
    hex::decode_to_slice(text, &mut *bytes).map_err(|_| format!("expected {N} bytes as {} hex digits", 2 * N))?;
    Ok(Hex(bytes))
}

fn parse_context(text: &str) -> std::result::Result<Context, String> {
    hex::decode(text).map(Context).map_err(|_| "expected bytes as hex digits".to_owned())
}

pub(crate) fn run(command: &ChunkedCommand) -> Result<()> {
    let engine = Chosen::Accelerated;
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
            let mut opener = Opener::new(&engine, &options.key_hex.0, &prefix, &[&options.context_hex.0])
                .map_err(|_| Failure::Malformed("authentication failed: wrong key, context or message".to_owned()))?;
            // Create the output only after the input's beginning has authenticated.
            let mut output = Output::create(&options.output, &[input.id])?;
            let opened = stream::open(&mut opener, &mut input, None, &mut output, &progress);
            finish_opened(opened.and_then(|()| input.end()), output)
        }
    }
}
