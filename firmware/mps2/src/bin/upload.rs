//! Takes a reading, seals it, and uploads it over the UART, which QEMU connects to a node. Settings
//! are semihosting arguments, `name=value`:
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `host` | `127.0.0.1:9000` | the `Host` header; QEMU makes the connection |
//! | `bucket`, `key` | `edge`, `reading` | the object to write |
//! | `customer-key` | | 64 hex digits |
//! | `access-key`, `secret-key`, `region` | , , `us-east-1` | credentials for signing on the device |
//! | `url` | | alternatively, path and query of a presigned URL |
//! | `lines` | `60` | number of samples |
//! | `time` | the host's clock | seconds since 1970, of the first sample and of the signature |
//! | `seed` | | derives salts and data key from a number instead of `/dev/urandom`: for tests only |
//! | `copy` | | `1`: writes the plaintext to `reading.txt` in the working directory of QEMU: for tests only |
//!
//! Values must not contain spaces, and QEMU requires `,,` for a comma. Exits with 0 on a 200
//! response, with 1 on any other response, and with 2 if the request cannot be sent. A real device
//! has its settings and its random bytes on board.
#![no_std]
#![no_main]

use core::fmt::Display;

use cortex_m_rt::entry;
use keyhole_app::Package;
use keyhole_app::reading::{Simulated, take};
use keyhole_app::time::amz_date;
use keyhole_app::upload::{ANSWER_MAX, Authorization, Upload, answer};
use keyhole_checks::Seeded;
use keyhole_core::CustomerKey;
use keyhole_core::aead::Portable;
use keyhole_core::file::SEAL_OVERHEAD;
use keyhole_core::sigv4::Signer;
use keyhole_mps2::Uart;
use semihosting::experimental::env::{Args, args};
use semihosting::experimental::time::SystemTime;
use semihosting::io::Read as _;
use semihosting::{eprintln, fs, println, process};

/// Maximum length of all settings.
const SETTINGS_MAX: usize = 4096;
/// Size of the buffer for a reading, both names and the sealing overhead.
const BUFFER_LEN: usize = 4096 + 64 + 1024 + SEAL_OVERHEAD;

#[entry]
fn main() -> ! {
    let args = or_exit("settings", args::<SETTINGS_MAX>());
    let settings = Settings::new(&args);
    let setting = |name, default| settings.value(name).unwrap_or(default);
    let number = |name: &str, text: &str| text.parse::<u64>().unwrap_or_else(|_| exit(name, "must be a number"));
    let seconds = match setting("time", "") {
        "" => or_exit("time", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)).as_secs(),
        text => number("time", text),
    };
    let bucket = setting("bucket", "edge");
    let key = setting("key", "reading");

    let mut buffer = [0; BUFFER_LEN];
    let mut package = or_exit("package", Package::new(&mut buffer, bucket, key));
    let room = package.room();
    let lines = number("lines", setting("lines", "60"));
    let len = take(&mut Simulated::new(seconds as u32), lines as usize, room);
    if setting("copy", "") == "1" {
        or_exit("reading.txt", fs::write(c"reading.txt", &room[..len]));
    }
    let customer_key = customer_key(setting("customer-key", ""));
    let mut seeded = match setting("seed", "") {
        "" => None,
        seed => Some(Seeded(number("seed", seed))),
    };
    let random = |bytes: &mut [u8]| match &mut seeded {
        Some(seeded) => seeded.fill(bytes),
        None => or_exit("/dev/urandom", fs::File::open(c"/dev/urandom").and_then(|mut file| file.read_exact(bytes))),
    };
    let file = or_exit("seal", package.seal(&Portable, &customer_key, random, len));

    let date = amz_date(seconds);
    let date = or_exit("time", core::str::from_utf8(&date));
    let authorization = match setting("url", "") {
        "" => {
            let access_key = setting("access-key", "");
            let secret_key = setting("secret-key", "");
            if access_key.is_empty() || secret_key.is_empty() {
                exit("settings", "give access-key and secret-key, or url");
            }
            Authorization::Signer {
                signer: Signer { access_key, secret_key, region: setting("region", "us-east-1") },
                date,
            }
        }
        url => Authorization::Presigned(url),
    };
    let upload = Upload { host: setting("host", "127.0.0.1:9000"), bucket, key, authorization };
    // SAFETY: the only user of the UART, on its board.
    let mut uart = unsafe { Uart::new() };
    or_exit("upload", upload.send(&mut uart, file));
    let mut buffer = [0; ANSWER_MAX];
    let answer = or_exit("answer", answer(&mut uart, &mut buffer));
    println!("{} bytes of reading sealed to {}, answered with {}", len, file.len(), answer.status);
    if answer.status == 200 {
        process::exit(0);
    }
    eprintln!("{}", core::str::from_utf8(answer.body).unwrap_or("(not text)"));
    process::exit(1)
}

/// Names of all settings.
const NAMES: [&str; 13] = [
    "host",
    "bucket",
    "key",
    "customer-key",
    "access-key",
    "secret-key",
    "region",
    "url",
    "lines",
    "time",
    "seed",
    "copy",
    "program",
];

/// The values, in the order of the names.
struct Settings<'a>([Option<&'a str>; NAMES.len()]);

impl<'a> Settings<'a> {
    /// Parses the arguments; the first is skipped if it is the program name.
    fn new(args: &'a Args<SETTINGS_MAX>) -> Self {
        let mut values = [None; NAMES.len()];
        for (i, arg) in args.enumerate() {
            let arg = or_exit("settings", arg);
            let (name, value) = match arg.split_once('=') {
                Some(pair) => pair,
                None if i == 0 => ("program", arg),
                None => exit(arg, "settings are name=value"),
            };
            match NAMES.iter().position(|known| *known == name) {
                Some(place) => values[place] = Some(value),
                None => exit(name, "there is no such setting"),
            }
        }
        Settings(values)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.0[NAMES.iter().position(|known| *known == name)?]
    }
}

fn customer_key(hex: &str) -> CustomerKey {
    let mut key = [0; 32];
    let digits = |at: usize| hex.get(2 * at..2 * at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = digits(i).filter(|_| hex.len() == 64).unwrap_or_else(|| exit("customer-key", "must be 64 hex digits"));
    }
    CustomerKey::new(key)
}

fn or_exit<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| exit(what, error))
}

fn exit(what: &str, error: impl Display) -> ! {
    eprintln!("{what}: {error}");
    process::exit(2)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    keyhole_checks::board::panicked(info)
}
