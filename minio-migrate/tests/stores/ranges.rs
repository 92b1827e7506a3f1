//! Buckets that are listed in several ranges at the same time: every key is seen, and once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::copy::Kept;
use crate::store::*;

const FOUR: &str = "--listings=4";

/// Sixty objects in six folders of one folder.
pub fn albums() -> Store {
    let store = Store::default();
    let key = |number: usize| format!("albums/{}/{:02}", number / 10, number % 10);
    let objects = (0..60).map(|number| (key(number), vec![b'x'; number]));
    store.objects.lock().unwrap().extend(objects);
    store
}

fn changed(store: Store, change: impl FnOnce(&Store)) -> Store {
    change(&store);
    store
}

fn without(keys: &[&str]) -> Store {
    changed(albums(), |store| {
        let mut objects = store.objects.lock().unwrap();
        objects.retain(|key, _| !keys.contains(&key.as_str()));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_listed_at_the_same_time_and_every_key_is_compared() {
    let (source, target) = (Arc::new(albums()), Arc::new(albums()));
    let ends = both(&source, &target).await;
    let came_to = ran("verify", &ends, &[FOUR]).await;
    assert_eq!(came_to, came(0, "all-gates-held"));
    let began = |store: &Store| store.ranges.load(Ordering::Relaxed);
    assert_eq!((began(&source), began(&target)), (3, 3));
    // The first key, the last one, and those on both sides of a border.
    for key in ["albums/0/00", "albums/1/09", "albums/2/00", "albums/5/09"] {
        let came_to = verified(albums(), without(&[key]), &[FOUR]).await;
        assert_eq!(came_to, came(2, "missing-missed"), "{key}");
        let came_to = verified(without(&[key]), albums(), &[FOUR]).await;
        assert_eq!(came_to, came(2, "unexpected-missed"), "{key}");
        let other = changed(albums(), |store| {
            let mut objects = store.objects.lock().unwrap();
            objects.insert(key.to_owned(), b"other".to_vec());
        });
        let came_to = verified(albums(), other, &[FOUR]).await;
        assert_eq!(came_to, came(2, "different-missed"), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_breaks_off_proves_nothing() {
    let target = Store {
        loses_pages: true.into(),
        ..albums()
    };
    let came_to = verified(albums(), target, &[FOUR]).await;
    assert_eq!(came_to, came(5, "listing-broken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_pass_sees_what_changed_in_every_range() {
    let kept = Kept::new("ranges");
    let (source, target) = (Arc::new(albums()), Arc::new(Store::default()));
    let ends = both(&source, &target).await;
    let flags = [&kept.flag(), FOUR];
    assert_eq!(ran("copy", &ends, &flags).await, came(0, "copied"));
    let began = source.ranges.load(Ordering::Relaxed);
    assert_eq!(began, 0, "a first pass goes on where it was");
    let change = |store: &Store| {
        let mut objects = store.objects.lock().unwrap();
        for key in ["a", "albums/1/04x", "albums/3/09", "albums/5/09", "z"] {
            objects.insert(key.to_owned(), b"another".to_vec());
        }
    };
    change(&source);
    assert_eq!(ran("copy", &ends, &flags).await, came(0, "copied"));
    assert_eq!(source.ranges.load(Ordering::Relaxed), 3);
    let there = target.objects.lock().unwrap().clone();
    assert_eq!(there, *source.objects.lock().unwrap());
    // A pass in which a range breaks off is no end, and removes nothing.
    source.objects.lock().unwrap().remove("albums/2/02");
    let gone = [flags[0], FOUR, "--delete-extraneous"];
    source.loses_pages.store(true, Ordering::Relaxed);
    let came_to = ran("copy", &ends, &gone).await;
    assert_eq!(came_to, came(5, "listing-broken"));
    assert!(target.objects.lock().unwrap().contains_key("albums/2/02"));
    source.loses_pages.store(false, Ordering::Relaxed);
    assert_eq!(ran("copy", &ends, &gone).await, came(0, "copied"));
    let there = target.objects.lock().unwrap().clone();
    assert_eq!(there, *source.objects.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_pass_that_is_killed_at_any_moment_loses_no_range() {
    let kept = Kept::new("killed-ranges");
    let (source, target) = (Arc::new(albums()), Arc::new(Store::default()));
    let ends = both(&source, &target).await;
    let flags = [&kept.flag(), FOUR, "--limit-rate=60"];
    assert_eq!(ran("copy", &ends, &flags[..2]).await, came(0, "copied"));
    for (key, bytes) in source.objects.lock().unwrap().iter_mut() {
        *bytes = format!("another {key}").into_bytes();
    }
    let began = source.ranges.load(Ordering::Relaxed);
    // Six times in one pass, in whichever ranges it is by then.
    for writes in [1, 2, 5, 9, 14, 20] {
        killed(&ends, &flags, &target, writes).await;
    }
    assert_eq!(ran("copy", &ends, &flags[..2]).await, came(0, "copied"));
    assert!(source.ranges.load(Ordering::Relaxed) > began);
    let there = target.objects.lock().unwrap().clone();
    assert_eq!(there, *source.objects.lock().unwrap());
}
