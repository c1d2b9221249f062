//! Seals a reading as a self-contained file, and opens it again without a server.
//!
//! ```sh
//! cargo run -p keyhole-core --example seal_and_open
//! ```

use keyhole_core::aead::Portable;
use keyhole_core::body::{Binding, Bodies, context};
use keyhole_core::chunked::Opener;
use keyhole_core::file::{self, BodyEntry, Decoded, ENTRY_LEN, Layout, Preface, SEAL_OVERHEAD};
use keyhole_core::head::open_head;
use keyhole_core::limits::{PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_core::{CustomerKey, DataKey};

const BUCKET: &str = "edge";
const KEY: &str = "reading";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // An application takes the key and the random bytes from a secure generator.
    let mut random = fastrand::Rng::new();
    let customer_key = CustomerKey::new([7; 32]);
    let reading = b"temperature 21.5";

    let mut sealed = vec![0; reading.len() + BUCKET.len() + KEY.len() + SEAL_OVERHEAD];
    let len = file::seal(&Portable, &customer_key, |bytes| random.fill(bytes), BUCKET, KEY, reading, &mut sealed)?;
    sealed.truncate(len);
    println!("sealed {} bytes as a file of {len}", reading.len());

    let opened = open(&customer_key, &sealed)?;
    assert_eq!(opened, reading);
    println!("opened: {}", String::from_utf8_lossy(&opened));
    assert!(open(&CustomerKey::new([8; 32]), &sealed).is_err());
    println!("another key does not open it");
    Ok(())
}

/// Opens a file with one body of one chunk.
fn open(customer_key: &CustomerKey, sealed: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    // The front: names, sealed head, and one entry per body.
    let Decoded::Whole(preface, len) = Preface::decode(sealed)? else { return Err("truncated file".into()) };
    let (entry, message) = sealed[len..].split_first_chunk::<ENTRY_LEN>().ok_or("truncated file")?;
    let entry = BodyEntry::decode(entry);
    let mut layout = Layout::new(preface.bodies);
    layout.push(&entry)?;
    if layout.finish()?.file_len(&preface) != sealed.len() as u64 {
        return Err("truncated file".into());
    }

    // The head holds the data key and describes the body.
    let mut head = preface.sealed_head.to_vec();
    let head = open_head(&Portable, customer_key, preface.bucket, preface.key, &mut head)?;
    let data_key = DataKey::new(*head.data_key.ok_or("head without a data key")?);
    let (prefix, rest) = message.split_first_chunk::<PREFIX_LEN>().ok_or("truncated body")?;
    let salt: &[u8; SALT_LEN] = prefix.first_chunk().ok_or("truncated body")?;
    let mut bodies = Bodies::new();
    bodies.push(entry.part_number, entry.message_len, salt)?;
    assert_eq!(bodies.check(&head)?, Binding::Bound);

    // The body, chunk by chunk; this one is short enough for a single chunk.
    let mut opener = Opener::new(&Portable, data_key.expose(), prefix, &[&context(entry.part_number)])?;
    let (chunk, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or("truncated body")?;
    let mut chunk = chunk.to_vec();
    opener.open_at(0, &mut chunk, tag)?;
    Ok(chunk)
}
