//! What was found amiss, by name, and everything that was counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

/// How many findings of each kind are kept for the report; all of them go to the file.
const NAMED: usize = 50;

/// What is amiss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// On the source and not on the target.
    Missing,
    /// On both, and not the same.
    Different,
    /// On the target and not on the source.
    Unexpected,
    /// Could not be read on one of them.
    Unread,
    /// Was another one when it was read than when it was listed.
    Changed,
    /// A setting of a bucket.
    Bucket,
}

impl Kind {
    /// As it is called in files and reports.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Different => "different",
            Kind::Unexpected => "unexpected",
            Kind::Unread => "unread",
            Kind::Changed => "changed",
            Kind::Bucket => "bucket",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is amiss.
    pub kind: Kind,
    /// The bucket.
    pub bucket: String,
    /// The key; empty of a bucket itself.
    pub key: String,
    /// The source's version, where there is one.
    pub version: Option<String>,
    /// How, for people.
    pub words: String,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many of each kind.
    pub counts: BTreeMap<Kind, usize>,
    /// The first of each kind.
    pub named: Vec<Finding>,
    /// Keys that were compared, with all of their versions.
    pub keys: u64,
    /// Versions whose bytes were read on both sides and were the same, with all that belongs to them.
    pub same: u64,
    /// Versions of these whose source was read when they were copied, and asked only for what belongs to them now.
    pub noted: u64,
    /// Versions that were read again before, and are listed as they were then.
    pub verified_before: u64,
    /// Versions of which only the listings were compared.
    pub listed: u64,
    /// Readings that a node answered with 404 of versions that were listed then.
    pub denied: u64,
    /// Marks of deletion that both have.
    pub marks: u64,
    /// Bytes that were read from the source.
    pub bytes: u64,
    /// Versions whose ETag is another one.
    pub etags: u64,
    /// Versions whose id is another one.
    pub ids: u64,
    /// Why a bucket was not walked to its end.
    pub broken: Vec<String>,
    /// Findings that could not be written into the file.
    pub unwritten: Option<String>,
}

impl Seen {
    /// How many of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }
}

/// Where findings and counts go, from everybody who compares.
#[derive(Clone)]
pub struct Book(Arc<Mutex<Written>>);

struct Written {
    seen: Seen,
    file: Option<BufWriter<File>>,
}

impl Book {
    /// A book; `file` takes a line of JSON for each finding.
    pub fn new(file: Option<File>) -> Book {
        let (seen, file) = (Seen::default(), file.map(BufWriter::new));
        Book(Arc::new(Mutex::new(Written { seen, file })))
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts.
    pub fn count(&self, count: impl FnOnce(&mut Seen)) {
        count(&mut self.lock().seen);
    }

    /// Takes a finding over.
    pub fn take(&self, finding: Finding) {
        let mut written = self.lock();
        if let Some(file) = &mut written.file {
            let Finding {
                kind,
                bucket,
                key,
                version,
                words,
            } = &finding;
            let line = json!({"kind": kind.word(), "bucket": bucket, "key": key, "version": version, "words": words});
            if let Err(error) = writeln!(file, "{line}") {
                written.seen.unwritten = Some(error.to_string());
                written.file = None;
            }
        }
        let count = written.seen.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= NAMED {
            written.seen.named.push(finding);
        }
    }

    /// All that was seen so far.
    pub fn so_far(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// All that was seen; the file is complete then.
    pub fn close(&self) -> Seen {
        let mut written = self.lock();
        if let Some(Err(error)) = written.file.take().map(|mut file| file.flush()) {
            written.seen.unwritten = Some(error.to_string());
        }
        written.seen.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_counted_and_written_and_the_first_are_named() {
        let path =
            std::env::temp_dir().join(format!("minio-migrate-findings-{}", std::process::id()));
        let book = Book::new(Some(File::create_new(&path).unwrap()));
        for number in 0..=NAMED {
            book.take(Finding {
                kind: Kind::Missing,
                bucket: "b".to_owned(),
                key: format!("k\n{number}"),
                version: None,
                words: "it is not there".to_owned(),
            });
        }
        let seen = book.close();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            (seen.count(Kind::Missing), seen.named.len()),
            (NAMED + 1, NAMED)
        );
        assert_eq!(
            (text.lines().count(), seen.unwritten.clone()),
            (NAMED + 1, None)
        );
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["key"], format!("k\n{NAMED}"));
        assert_eq!(seen.count(Kind::Different), 0);
    }
}
