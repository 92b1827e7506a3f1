//! What is copied.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::store::*;

/// A journal of the test's own, gone with it.
pub struct Kept(PathBuf);

impl Kept {
    pub fn new(name: &str) -> Kept {
        let folder =
            std::env::temp_dir().join(format!("minio-migrate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Kept(folder)
    }

    pub fn flag(&self) -> String {
        format!("--journal={}", self.0.join("journal.sqlite").display())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// More than a copy has under way at once.
fn many() -> Store {
    let store = Store::default();
    let objects = (0..200).map(|number| (format!("k{number:03}"), vec![b'x'; number]));
    store.objects.lock().unwrap().extend(objects);
    store
}

/// Copies to an empty store; what it came to, and what is there then.
async fn copied(
    name: &str,
    source: Store,
    target: Store,
) -> ((i32, String), BTreeMap<String, Vec<u8>>) {
    let kept = Kept::new(name);
    let target = Arc::new(target);
    let ends = (started(source).await, served(Arc::clone(&target)).await);
    let came = ran("copy", &ends, &[&kept.flag()]).await;
    let objects = target.objects.lock().unwrap().clone();
    (came, objects)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_is_what_the_source_has_through_whatever_happens() {
    let all = good().objects.into_inner().unwrap();
    let (came_to, there) = copied("plain", good(), Store::default()).await;
    assert_eq!((came_to, there), (came(0, "copied"), all.clone()));
    let source = Store {
        busy: 2.into(),
        cut: 2.into(),
        ..good()
    };
    let target = Store {
        lost_answers: 2.into(),
        ..Store::default()
    };
    let (came_to, there) = copied("busy", source, target).await;
    assert_eq!((came_to, there), (came(0, "copied"), all));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_the_way_are_never_called_copied() {
    let flips = Store {
        flips: true,
        ..good()
    };
    let (came_to, there) = copied("from", flips, Store::default()).await;
    assert_eq!(came_to, came(5, "keys-left"));
    assert_eq!(
        there.keys().collect::<Vec<_>>(),
        ["c"],
        "what was wrong is gone again"
    );
    let flips = Store {
        flips_writes: true,
        ..Store::default()
    };
    let (came_to, there) = copied("to", good(), flips).await;
    assert_eq!(came_to, came(5, "keys-left"));
    let empty: Vec<&String> = there.keys().collect();
    assert_eq!(empty, ["c"], "only what has no byte can't be changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_incomplete_and_gone_on_from() {
    let kept = Kept::new("lost");
    let target = Arc::new(Store::default());
    let to = served(Arc::clone(&target)).await;
    let lost = Store {
        loses_pages: true.into(),
        ..good()
    };
    let source = Arc::new(lost);
    let from = served(Arc::clone(&source)).await;
    let ends = (from, to);
    assert_eq!(
        ran("copy", &ends, &[&kept.flag()]).await,
        came(5, "listing-broken")
    );
    let count = target.objects.lock().unwrap().len();
    assert!((1..5).contains(&count), "what was listed before: {count}");
    assert_eq!(
        ran("status", &ends, &[&kept.flag()]).await,
        came(5, "walk-unfinished")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_written_once() {
    let kept = Kept::new("once");
    let target = Arc::new(Store::default());
    let ends = (started(good()).await, served(Arc::clone(&target)).await);
    for _ in 0..2 {
        assert_eq!(ran("copy", &ends, &[&kept.flag()]).await, came(0, "copied"));
    }
    assert_eq!(target.writes.load(Ordering::Relaxed), OBJECTS.len());
    // Somebody else writes there: it is named, and stays.
    let other = Arc::new(Store::with(&[("b", "TWO")]));
    let ends = (ends.0, served(Arc::clone(&other)).await);
    let own = Kept::new("other");
    assert_eq!(
        ran("copy", &ends, &[&own.flag()]).await,
        came(5, "conflicts")
    );
    assert_eq!(other.objects.lock().unwrap().get("b").unwrap(), b"TWO");
    assert_eq!(
        ran("copy", &ends, &[&own.flag(), "--overwrite"]).await,
        came(0, "copied")
    );
    assert_eq!(other.objects.lock().unwrap().get("b").unwrap(), b"two");
    let words = ran("copy", &ends, &[&kept.flag()]).await;
    assert_eq!(
        words,
        came(1, "journal-unusable"),
        "it is of another target"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_from_the_source_is_removed_only_when_told_and_no_more_than_allowed() {
    let kept = Kept::new("gone");
    let (source, target) = (Arc::new(good()), Arc::new(Store::default()));
    let ends = both(&source, &target).await;
    let there = || {
        target
            .objects
            .lock()
            .unwrap()
            .keys()
            .cloned()
            .collect::<String>()
    };
    let flag = kept.flag();
    assert_eq!(ran("copy", &ends, &[&flag]).await, came(0, "copied"));
    for key in ["b", "d"] {
        source.objects.lock().unwrap().remove(key);
    }
    // Of others, and of no concern to this journal.
    target
        .objects
        .lock()
        .unwrap()
        .insert("x".to_owned(), b"1".to_vec());
    assert_eq!(ran("copy", &ends, &[&flag]).await, came(0, "copied"));
    assert_eq!(there(), "abcdex");
    let few = ran(
        "copy",
        &ends,
        &[&flag, "--delete-extraneous", "--max-delete=1"],
    )
    .await;
    assert_eq!(
        (few, there()),
        (came(5, "not-removed"), "abcdex".to_owned())
    );
    // One of them is another one on the target by now.
    target
        .objects
        .lock()
        .unwrap()
        .insert("d".to_owned(), b"other".to_vec());
    let done = ran("copy", &ends, &[&flag, "--delete-extraneous"]).await;
    assert_eq!((done, there()), (came(0, "copied"), "acdex".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_room_ends_the_copy_and_it_goes_on_when_there_is() {
    let kept = Kept::new("full");
    let source = Arc::new(many());
    let all = source.objects.lock().unwrap().clone();
    let target = Arc::new(Store::default());
    *target.full_after.lock().unwrap() = Some(30);
    let ends = (served(source), served(Arc::clone(&target)));
    let ends = (ends.0.await, ends.1.await);
    let came_to = ran("copy", &ends, &[&kept.flag()]).await;
    assert_eq!(came_to, came(5, "target-full"));
    let tried = target.writes.load(Ordering::Relaxed);
    assert!(
        (31..100).contains(&tried),
        "the others were not tried: {tried}"
    );
    *target.full_after.lock().unwrap() = None;
    let came_to = ran("copy", &ends, &[&kept.flag()]).await;
    assert_eq!(came_to, came(0, "copied"));
    assert_eq!(*target.objects.lock().unwrap(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_not_write_is_not_tried_with_every_key() {
    let kept = Kept::new("denied");
    let target = Arc::new(Store {
        denies: true,
        ..Store::default()
    });
    let ends = (started(many()), served(Arc::clone(&target)));
    let ends = (ends.0.await, ends.1.await);
    let came_to = ran("copy", &ends, &[&kept.flag()]).await;
    assert_eq!(came_to, came(5, "not-permitted"));
    let tried = target.writes.load(Ordering::Relaxed);
    assert!((20..100).contains(&tried), "{tried}");
    // One that may write nothing at all is found out before anything is listed.
    let none = Arc::new(Store {
        denies_all: true,
        ..Store::default()
    });
    let ends = (ends.0, served(Arc::clone(&none)).await);
    let own = Kept::new("denied-all");
    let came_to = ran("copy", &ends, &[&own.flag()]).await;
    assert_eq!(came_to, came(1, "not-permitted"));
    assert_eq!(none.writes.load(Ordering::Relaxed), 0);
}
