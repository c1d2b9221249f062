//! Passes over many objects bypass the page cache, which keeps what requests read.

use keyhole_log::Condition;
use keyhole_log::limits::SEGMENTS_START;

use crate::support::new_medium;
use crate::support::store::{SEGMENT_LEN, Store, format, options, put};

#[test]
fn scrub_and_cleaner_read_directly() {
    // In records, in one block, and in several blocks.
    for (len, count) in [(20_000, 200u64), (400_000, 40), (2_500_000, 8)] {
        let medium = new_medium(len as u64);
        format(&medium, SEGMENTS_START + 31 * SEGMENT_LEN).unwrap();
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        store.run(async {
            log.create_bucket("bucket", 1).await.unwrap();
            for i in 0..count {
                put(&log, &format!("k{i:03}"), i, len).await.unwrap();
            }
            for i in (0..count).filter(|i| i % 4 > 0) {
                assert!(log.delete_object("bucket", &format!("k{i:03}"), 1, Condition::None).await.unwrap());
            }
            let start = medium.counters();
            let mut cursor = Some(Default::default());
            while let Some(at) = cursor {
                let step = log.scrub(at).await.unwrap();
                assert_eq!(step.findings, []);
                cursor = step.next;
            }
            let scrubbed = medium.counters();
            assert!(scrubbed.reads >= start.reads + count / 4, "{len}: {} reads", scrubbed.reads - start.reads);
            assert!(log.compact().await.unwrap().bytes_moved > 0, "{len}");
            let end = medium.counters();
            assert!(end.reads > scrubbed.reads);
            assert_eq!(end.reads_direct - start.reads_direct, end.reads - start.reads, "{len}");
        });
    }
}
