//! Recovery reads records twice. A record that verifies only the first time is damage.

use keyhole_log::limits::{PAGE, SEGMENTS_START};
use keyhole_sim::disk::Crash;

use super::support::store::{Store, get, keys, put};

#[test]
fn record_that_fails_second_reading_is_damage() {
    const OBJECTS: u64 = 6;
    // One page each for the segment header, the bucket and the objects; the last page is the mark
    // of the orderly shutdown.
    for page in 1..OBJECTS + 3 {
        let (medium, mut store) = Store::fresh(page, 1);
        let log = store.log();
        store.run(log.create_bucket("bucket", 1)).unwrap();
        for n in 0..OBJECTS {
            store.run(put(&log, &format!("key {n}"), n, 100)).unwrap();
        }
        drop(log);
        store.close();
        medium.crash(Crash::Process);
        medium.fade(SEGMENTS_START + page * PAGE as u64);
        let recovery = Store::open(&medium, 1).recovery;
        let what: Vec<_> = recovery.damaged.iter().map(|damage| damage.what).collect();
        assert!(what.contains(&"a record that does not verify"), "page {page}: {what:?}");
        // Records after the bad page are still read, if the bucket exists.
        let expected = match page {
            1 => 0,
            page if page == OBJECTS + 2 => OBJECTS,
            _ => OBJECTS - 1,
        };
        assert_eq!(recovery.objects, expected, "page {page}");
        // The bytes on disk were intact, so the next recovery finds everything.
        medium.mend();
        medium.crash(Crash::Process);
        let mut store = Store::open(&medium, 1);
        let log = store.log();
        assert_eq!(keys(&log).len() as u64, OBJECTS, "page {page}: {:?}", store.recovery.damaged);
        assert_eq!(store.run(get(&log, "key 3")), Some(3));
    }
}
