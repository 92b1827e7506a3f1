//! What a journal keeps.

use super::*;
use crate::transfer::journal::rows::Sums;

fn about() -> About {
    About {
        source: "old:9000".to_owned(),
        target: "new:9000".to_owned(),
        versions: Versions::All,
        shard: (1, 1),
    }
}

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder =
            std::env::temp_dir().join(format!("veza-journal-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("journal.sqlite")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn row(number: u32) -> Row {
    Row {
        number,
        source_id: format!("id{number}"),
        size_bytes: 7,
        etag: "e".to_owned(),
        sha256: Some([9; 32]),
        node: Some("new:9000".to_owned()),
        losses: (number == 2).then(|| "retention is over".to_owned()),
        ..Row::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_have_about_as_many_versions() {
    let folder = Folder::new("bounds");
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    for number in 0..12 {
        write(&journal, &format!("a/{number:02}"), 1);
    }
    for number in 1..=12 {
        write(&journal, "b", number);
    }
    write(&journal, "c", 1);
    let bounds = |prefix: &str, behind: Option<&str>, ranges: u8| {
        let divided = journal.ranges("b", (prefix, behind), Listings::into(ranges));
        let bounds = divided.unwrap().into_iter().filter_map(|range| range.until);
        bounds.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(bounds("", None, 1), "");
    // 25 versions in five: a key is never divided, and what is left behind it is less than a fifth.
    assert_eq!(bounds("", None, 5), "a/04 a/09 b");
    assert_eq!(bounds("a/", None, 3), "a/03 a/07");
    assert_eq!(bounds("a/", Some("a/07"), 2), "a/09");
    assert_eq!(
        bounds("a/", None, 64),
        (0..11)
            .map(|n| format!("a/{n:02}"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert_eq!(bounds("nothing", None, 4), "");
    let whole = journal.ranges("another", ("", None), Listings::into(4));
    assert_eq!(whole, Ok(vec![Range::default()]));
}

fn write(journal: &Journal, key: &str, number: u32) {
    let copied = Copied {
        place: ("b", key),
        row: &row(number),
    };
    journal.copied(&copied).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_is_there_again_and_what_was_not_is_not() {
    let folder = Folder::new("saved");
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    for key in ["a", "a/b", "b%", "é"] {
        write(&journal, key, 1);
    }
    write(&journal, "a", 2);
    journal.save().unwrap();
    write(&journal, "lost", 1);
    // A killed process closes nothing: what is on disk now is what another one finds.
    let kept = folder.0.join("kept.sqlite");
    for end in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        std::fs::copy(name(&folder.file()), name(&kept)).unwrap();
    }
    let again = Journal::open(&kept, &about()).unwrap();
    let keys = |behind: Option<&str>, prefix: &str| {
        let page = again.page("b", (prefix, behind), 10).unwrap();
        page.into_iter()
            .map(|(key, rows)| (key, rows.len()))
            .collect::<Vec<_>>()
    };
    let key = |key: &str, rows| (key.to_owned(), rows);
    assert_eq!(
        keys(None, ""),
        [key("a", 2), key("a/b", 1), key("b%", 1), key("é", 1)]
    );
    assert_eq!(keys(Some("a"), "a"), [key("a/b", 1)]);
    assert_eq!(keys(Some("a"), "b"), [key("b%", 1)]);
    assert_eq!(again.of_key("b", "a").unwrap(), [row(1), row(2)]);
    assert_eq!(
        again.losses(9).unwrap(),
        [(
            "b".to_owned(),
            "a".to_owned(),
            "retention is over".to_owned()
        )]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_goes_on_until_it_is_ended() {
    let folder = Folder::new("walk");
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    let mut pass = journal.pass("b", "", 1).unwrap();
    assert!(pass.is_first && pass.reached.is_none());
    pass.reached = Some("k".to_owned());
    pass.frontier = Some("m".to_owned());
    journal.reached(&pass).unwrap();
    journal.save().unwrap();
    drop(journal);
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    assert_eq!(journal.pass("b", "", 2).unwrap(), pass);
    // Another prefix is another walk, and none of it was ended.
    assert!(journal.pass("b", "x%", 2).unwrap().is_first);
    pass.ended_ms = Some(3);
    journal.reached(&pass).unwrap();
    let next = journal.pass("b", "", 4).unwrap();
    assert!(!next.is_first && next.reached.is_none() && next.id != pass.id);
    assert!(
        !journal.pass("b", "y", 4).unwrap().is_first,
        "it was walked through with the rest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_and_troubles_are_kept() {
    let folder = Folder::new("sums");
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    write(&journal, "a", 1);
    write(&journal, "a", 2);
    write(&journal, "b", 1);
    let verified = Verified {
        number: 1,
        sha256: [9; 32],
        node: "other:9000",
        at_ms: 5,
    };
    journal.verified(("b", "a"), &verified).unwrap();
    journal.gone(("b", "b"), &[1], 6).unwrap();
    journal.trouble(("b", "x"), Some("busy"), 7).unwrap();
    let sums = Sums {
        versions: 2,
        bytes: 14,
        unverified: 1,
        gone: 1,
        troubles: 1,
        ..Sums::default()
    };
    assert_eq!(journal.sums().unwrap(), sums);
    assert_eq!(journal.troubles(9).unwrap().len(), 1);
    // A walk that began later and did not see it again has ended it; one below another prefix says nothing of it.
    journal.trouble(("b", "y"), Some("busy"), 20).unwrap();
    for (prefix, left) in [("z", 2), ("", 1)] {
        let pass = journal.pass("b", prefix, 10).unwrap();
        journal.ended(&pass, "b", prefix).unwrap();
        assert_eq!(journal.troubles(9).unwrap().len(), left, "{prefix}");
    }
    journal.trouble(("b", "y"), None, 21).unwrap();
    assert!(journal.troubles(9).unwrap().is_empty());
    journal.close().unwrap();
    // Somebody looks while it is still open.
    assert_eq!(
        Journal::look(&folder.file())
            .unwrap()
            .sums()
            .unwrap()
            .versions,
        2
    );
    let mut seen = Vec::new();
    journal
        .each(|bucket, key, row| seen.push((bucket.to_owned(), key.to_owned(), row.number)))
        .unwrap();
    assert_eq!(seen.len(), 3);
}

#[test]
fn another_journal_is_not_written_to() {
    let folder = Folder::new("other");
    let file = folder.file();
    drop(Journal::open(&file, &about()).unwrap());
    let other = About {
        source: "else:9000".to_owned(),
        ..about()
    };
    let words = Journal::open(&file, &other).err().unwrap();
    assert!(
        words.contains("of source old:9000") && words.contains("--journal"),
        "{words}"
    );
    let held = Journal::open(&file, &about()).unwrap();
    let words = Journal::open(&file, &about()).err().unwrap();
    assert!(words.contains("another run has it"), "{words}");
    drop(held);
    let text = folder.0.join("notes.txt");
    std::fs::write(&text, "no database, but a text of more than a hundred bytes, so that it can't be taken for an empty file").unwrap();
    let before = std::fs::read(&text).unwrap();
    assert!(Journal::open(&text, &about()).is_err());
    assert_eq!(std::fs::read(&text).unwrap(), before);
    let foreign = folder.0.join("foreign.sqlite");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let words = Journal::open(&foreign, &about()).err().unwrap();
    assert!(words.contains("no journal of a migration"), "{words}");
    assert!(Journal::open(Path::new("/nowhere/journal"), &about()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_loses_nothing_that_was_saved() {
    let folder = Folder::new("full");
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    write(&journal, "kept", 1);
    journal.save().unwrap();
    journal
        .with(|connection| connection.execute_batch("PRAGMA max_page_count = 1"))
        .unwrap();
    let mut refused = None;
    for number in 0..10_000 {
        let copied = Copied {
            place: ("b", &format!("key-{number}")),
            row: &row(1),
        };
        if let Err(words) = journal.copied(&copied) {
            refused = Some(words);
            break;
        }
    }
    let words = refused.unwrap();
    assert!(
        words.contains("full") && words.contains("make room"),
        "{words}"
    );
    drop(journal);
    let journal = Journal::open(&folder.file(), &about()).unwrap();
    assert_eq!(journal.of_key("b", "kept").unwrap().len(), 1);
}
