//! The arguments of the commands on keys, sealed object files and chunked messages.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyhole_core::limits::{KEY_LEN, SALT_LEN};
use zeroize::Zeroizing;

#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Create a key: 32 random bytes in a file that only its owner can read.
    New {
        /// The file to create; it must not exist.
        file: PathBuf,
    },
    /// Show a key in the form that the AWS CLI expects: base64, with its MD5.
    Show {
        /// The key file of 32 bytes.
        file: PathBuf,
    },
    /// Show a key's ID in a bucket, for `keyhole bucket set --pin`. It does not reveal the key.
    Id {
        /// The key file of 32 bytes.
        file: PathBuf,
        /// The bucket's name.
        #[arg(long)]
        bucket: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct SealOptions {
    /// The customer key: a file of 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The bucket of the object.
    #[arg(long)]
    pub(crate) bucket: String,
    /// The object's key (its name).
    #[arg(long)]
    pub(crate) name: String,
    /// The object's Content-Type.
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// User metadata. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_metadata)]
    pub(crate) meta: Vec<(String, String)>,
    /// The plaintext; `-` is standard input.
    #[arg(default_value = "-")]
    pub(crate) input: PathBuf,
    /// The sealed object file; `-` is standard output.
    #[arg(default_value = "-")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct OpenOptions {
    /// The customer key: a file of 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The bucket that the file must belong to. Default: the one in the file.
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    /// The object's key (its name) that the file must belong to. Default: the one in the file.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Also open an object whose parts were assembled without the key. Only its ETag then shows
    /// that no part was dropped or replaced by an earlier attempt.
    #[arg(long)]
    pub(crate) allow_unbound: bool,
    /// The sealed object file; `-` is standard input.
    #[arg(default_value = "-")]
    pub(crate) input: PathBuf,
    /// The plaintext; `-` is standard output.
    #[arg(default_value = "-")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct InspectOptions {
    /// The sealed object file; `-` is standard input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_metadata(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_lowercase(), value.to_owned()))
}

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
    pub(crate) key_hex: Hex<KEY_LEN>,
    /// The context, in hex.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = parse_context)]
    pub(crate) context_hex: Context,
    /// The input file; `-` is standard input.
    #[arg(default_value = "-")]
    pub(crate) input: PathBuf,
    /// The output file; `-` is standard output.
    #[arg(default_value = "-")]
    pub(crate) output: PathBuf,
}

/// Bytes given in hex. `Debug` hides them, because they may be a key.
#[derive(Clone)]
pub(crate) struct Hex<const N: usize>(pub(crate) Zeroizing<[u8; N]>);

impl<const N: usize> std::fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Context(pub(crate) Vec<u8>);

fn parse_hex<const N: usize>(text: &str) -> Result<Hex<N>, String> {
    let mut bytes = Zeroizing::new([0; N]);
    hex::decode_to_slice(text, &mut *bytes).map_err(|_| format!("expected {N} bytes as {} hex digits", 2 * N))?;
    Ok(Hex(bytes))
}

fn parse_context(text: &str) -> Result<Context, String> {
    hex::decode(text).map(Context).map_err(|_| "expected bytes as hex digits".to_owned())
}
