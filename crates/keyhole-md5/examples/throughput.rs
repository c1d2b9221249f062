//! Measures the throughput of one to sixteen messages at once on this processor.

use std::time::Instant;

use keyhole_md5::{Md5, update_all};

const LEN: usize = 64 << 10;
const TURNS: usize = 64;

fn main() {
    for count in 1..=16 {
        let messages: Vec<Vec<u8>> = (0..count).map(|message| vec![message; LEN]).collect();
        let mut digests: Vec<Md5> = messages.iter().map(|_| Md5::new()).collect();
        let began = Instant::now();
        for _ in 0..TURNS {
            let bytes = messages.iter().map(|message| &message[..]);
            update_all(&mut digests.iter_mut().zip(bytes).collect::<Vec<_>>());
        }
        let rate = (usize::from(count) * LEN * TURNS) as f64 / began.elapsed().as_secs_f64();
        println!("{count:2} messages: {:5.2} GB/s", rate / 1e9);
    }
}
