//! Opaque settings of buckets: CORS rules and tags, also those that a bucket is created with.

use keyhole_log::limits::{BUCKET_TAGS_MAX, CORS_MAX, LIFECYCLE_MAX, POLICY_MAX};
use keyhole_log::{BucketSettings, Error};

use crate::support::LOST;
use crate::support::store::{Store, keys, options, put};

fn tagged(tags: &[u8]) -> BucketSettings {
    BucketSettings { tags: tags.into(), ..BucketSettings::default() }
}

/// The tags survive in the record of the creation, in a checkpoint, and beside later settings.
#[test]
fn tags_of_creation_hold_until_settings_are_set() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        assert!(log.create_tagged_bucket("tagged", 1, b"tags").await.unwrap());
        assert!(!log.create_tagged_bucket("tagged", 1, b"other").await.unwrap(), "it exists");
        assert_eq!(log.bucket_settings("tagged").unwrap().0, tagged(b"tags"));
        assert_eq!(log.bucket_settings("bucket").unwrap().0, BucketSettings::default());
    });
    drop((log, store));
    for checkpoint in [false, true, true] {
        medium.crash(LOST);
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        assert_eq!(log.bucket_settings("tagged").unwrap().0, tagged(b"tags"), "checkpoint: {checkpoint}");
        store.run(async {
            if checkpoint {
                log.checkpoint().await.unwrap();
            }
        });
    }
    let changed = BucketSettings { quota: Some(5), cors: (*b"rules").into(), ..tagged(b"tags") };
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        let change = |settings: &mut BucketSettings| {
            settings.quota = Some(5);
            settings.cors = (*b"rules").into();
            Ok::<(), Error>(())
        };
        log.change_bucket("tagged", 1, change).await.unwrap();
        assert_eq!(log.bucket_settings("tagged").unwrap().0, changed);
        assert_eq!(log.bucket_cors("tagged").as_deref(), Some(&b"rules"[..]));
    });
    drop((log, store));
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        assert_eq!(log.bucket_settings("tagged").unwrap().0, changed);
        log.checkpoint().await.unwrap();
        log.set_bucket("tagged", BucketSettings::default(), 1).await.unwrap();
        assert_eq!((log.bucket_settings("tagged").unwrap().0, log.bucket_cors("tagged")), Default::default());
    });
    drop((log, store));
    let store = Store::maintained(&medium, options(1)).unwrap();
    assert_eq!(
        store.log().bucket_settings("tagged").unwrap().0,
        BucketSettings::default(),
        "the tags are gone for good"
    );
}

#[test]
fn longest_settings_survive_a_checkpoint_and_longer_ones_are_refused() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let longest = BucketSettings {
        quota: None,
        expire_ms: Some(7),
        policy: vec![1; POLICY_MAX],
        lifecycle: vec![2; LIFECYCLE_MAX].into(),
        cors: vec![3; CORS_MAX].into(),
        tags: vec![4; BUCKET_TAGS_MAX].into(),
        ..BucketSettings::default()
    };
    store.run(async {
        for longer in [
            BucketSettings { cors: vec![3; CORS_MAX + 1].into(), ..longest.clone() },
            BucketSettings { tags: vec![4; BUCKET_TAGS_MAX + 1].into(), ..longest.clone() },
        ] {
            assert!(matches!(log.set_bucket("bucket", longer, 1).await, Err(Error::TooLarge(_))));
        }
        assert!(matches!(log.create_tagged_bucket("b", 1, &[4; BUCKET_TAGS_MAX + 1]).await, Err(Error::TooLarge(_))));
        assert!(log.create_tagged_bucket("b", 1, &[4; BUCKET_TAGS_MAX]).await.unwrap());
        log.set_bucket("bucket", longest.clone(), 1).await.unwrap();
        log.checkpoint().await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    let store = Store::maintained(&medium, options(1)).unwrap();
    assert_eq!(store.log().bucket_settings("bucket").unwrap().0, longest);
    assert_eq!(store.log().bucket_settings("b").unwrap().0, tagged(&[4; BUCKET_TAGS_MAX]));
}

/// The seed of an object is its time.
#[test]
fn rules_see_the_size_of_an_object() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        for (key, size) in [("a", 99), ("b", 100), ("c", 101), ("d", 0)] {
            put(&log, key, 1, size).await.unwrap();
        }
        let rules = |_: &BucketSettings| Some(|_: &str, _: u64, size: u64| size > 99 && size < 101);
        assert_eq!(log.expire_by(9, rules).await.unwrap(), 1);
        assert_eq!(keys(&log), ["a", "c", "d"]);
    });
}
