//! Only some keys of a bucket.

use std::sync::Arc;

use crate::copy::Kept;
use crate::ranges::albums;
use crate::store::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_copied_and_compared_and_nothing_else_is_touched() {
    let kept = Kept::new("part");
    let (source, target) = (Arc::new(albums()), Arc::new(Store::default()));
    let ends = both(&source, &target).await;
    let flag = kept.flag();
    let part = [
        flag.as_str(),
        "--include=albums/1/*,albums/2/0*",
        "--exclude=*/09",
    ];
    assert_eq!(ran("copy", &ends, &part).await, came(0, "copied"));
    let there = |store: &Store| {
        let objects = store.objects.lock().unwrap();
        objects.keys().cloned().collect::<Vec<_>>()
    };
    let mut wanted = there(&source);
    wanted.retain(|key| {
        (key.starts_with("albums/1/") || key.starts_with("albums/2/")) && !key.ends_with("/09")
    });
    assert_eq!((there(&target), wanted.len()), (wanted, 18));
    // What nobody asked for is not missing, and not unexpected.
    let other = ("albums/3/00".to_owned(), b"other".to_vec());
    target.objects.lock().unwrap().extend([other]);
    assert_eq!(ran("verify", &ends, &part).await, came(0, "all-gates-held"));
    // To everybody else they are.
    let all = ran("verify", &ends, &[&flag]).await;
    assert_eq!(all, came(2, "gates-missed"));
    // What another part had copied is not gone from the source.
    let gone = [&flag, "--delete-extraneous", "--include=albums/5/*"];
    assert_eq!(ran("copy", &ends, &gone).await, came(0, "copied"));
    assert_eq!(there(&target).len(), 18 + 1 + 10);
    let before = there(&target);
    source.objects.lock().unwrap().remove("albums/1/00");
    assert_eq!(ran("copy", &ends, &gone).await, came(0, "copied"));
    assert_eq!(there(&target), before);
    // Neither is it removed with another part when it is known to be gone.
    assert_eq!(ran("copy", &ends, &part).await, came(0, "copied"));
    assert_eq!(ran("copy", &ends, &gone).await, came(0, "copied"));
    assert_eq!(there(&target), before);
    let own = [&part[..], &["--delete-extraneous"]].concat();
    assert_eq!(ran("copy", &ends, &own).await, came(0, "copied"));
    assert_eq!(there(&target).len(), before.len() - 1);
    // A part without keys is not called copied, whatever the journal has of others.
    let nothing = [flag.as_str(), "--include=albmus/*"];
    let came_to = ran("copy", &ends, &nothing).await;
    assert_eq!(came_to, came(5, "nothing-copied"));
}
