//! The message of a body in a sealed object file: chunks, each followed by its tag.

use keyhole_core::limits::{CHUNK_LEN, TAG_LEN};

/// Length of a full chunk and its tag in a message.
pub(crate) const SEALED_CHUNK: usize = CHUNK_LEN + TAG_LEN;

/// Moves the tags from between the chunks of `message` to `tags`. Returns the length of the
/// ciphertext, which is then contiguous at the front.
pub(crate) fn detach_tags(message: &mut [u8], tags: &mut Vec<[u8; TAG_LEN]>) -> usize {
    let (mut from, mut to) = (0, 0);
    while from < message.len() {
        let len = CHUNK_LEN.min(message.len() - from - TAG_LEN);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&message[from + len..][..TAG_LEN]);
        tags.push(tag);
        message.copy_within(from..from + len, to);
        (from, to) = (from + len + TAG_LEN, to + len);
    }
    to
}

#[cfg(test)]
mod tests {
    use keyhole_log::limits::BLOCK_DATA;

    use super::*;

    #[test]
    fn detached_tags_are_those_of_the_message() {
        for data_len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, BLOCK_DATA - 1, BLOCK_DATA] {
            let count = data_len / CHUNK_LEN + 1;
            let len = data_len + count * TAG_LEN;
            let message: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut block = message.clone();
            let mut tags = Vec::new();
            assert_eq!((detach_tags(&mut block, &mut tags), tags.len()), (data_len, count));
            for (chunk, tag) in tags.iter().enumerate() {
                let end = ((chunk + 1) * SEALED_CHUNK).min(len);
                assert_eq!(tag[..], message[end - TAG_LEN..end], "{chunk} of {data_len}");
            }
        }
    }
}
