//! Source, journal and target side by side, in the order of keys, each read ahead by a page.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::targets::s3::Failure;
use crate::targets::walk::{Entry, Walk};
use crate::transfer::journal::Journal;
use crate::transfer::journal::rows::Row;

/// How many keys are handed over at once.
const PAGE: usize = 500;

/// All that is there of a key.
#[derive(Debug, Default)]
pub struct Key {
    /// The key.
    pub key: String,
    /// What the source lists.
    pub source: Option<Entry>,
    /// What the journal knows.
    pub rows: Vec<Row>,
    /// What the target lists, where it is walked too.
    pub target: Option<Entry>,
}

/// A store's keys, read ahead.
struct Ahead {
    pages: mpsc::Receiver<Result<Vec<Entry>, Failure>>,
    page: VecDeque<Entry>,
    reader: JoinHandle<()>,
    side: &'static str,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Ahead {
    fn new(mut walk: Walk, side: &'static str) -> Ahead {
        let (sender, pages) = mpsc::channel(2);
        let reader = tokio::spawn(async move {
            loop {
                let mut page = Vec::new();
                let ended = loop {
                    match walk.next().await {
                        Ok(Some(entry)) => page.push(entry),
                        Ok(None) => break Some(Ok(())),
                        Err(failure) => break Some(Err(failure)),
                    }
                    if page.len() >= PAGE {
                        break None;
                    }
                };
                if !page.is_empty() && sender.send(Ok(page)).await.is_err() {
                    return;
                }
                match ended {
                    None => {}
                    Some(Ok(())) => return,
                    Some(Err(failure)) => {
                        // Nobody is there to hear of it any more.
                        let _ = sender.send(Err(failure)).await;
                        return;
                    }
                }
            }
        });
        Ahead {
            pages,
            page: VecDeque::new(),
            reader,
            side,
        }
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        if self.page.is_empty()
            && let Some(page) = self.pages.recv().await
        {
            let page = page.map_err(|failure| Failure {
                words: format!("{}, {failure}", self.side),
                ..failure
            })?;
            self.page = page.into();
        }
        Ok(())
    }

    fn first(&self) -> Option<&str> {
        self.page.front().map(|entry| entry.key.as_str())
    }

    fn take(&mut self, key: &str) -> Option<Entry> {
        self.page.pop_front_if(|entry| entry.key == key)
    }
}

/// What the journal knows, a page at a time.
struct Known {
    journal: Journal,
    bucket: String,
    prefix: String,
    behind: Option<String>,
    page: VecDeque<(String, Vec<Row>)>,
    is_over: bool,
}

impl Known {
    fn fill(&mut self) -> Result<(), String> {
        if self.page.is_empty() && !self.is_over {
            let place = (self.prefix.as_str(), self.behind.as_deref());
            let page = self.journal.page(&self.bucket, place, PAGE)?;
            self.is_over = page.len() < PAGE;
            self.behind = page.last().map(|(key, _)| key.clone());
            self.page = page.into();
        }
        Ok(())
    }
}

/// The three of them.
pub struct Lanes {
    source: Ahead,
    target: Option<Ahead>,
    known: Known,
}

/// Why the walk ends before its end.
pub enum Broken {
    /// A listing broke off.
    Listing(Failure),
    /// The journal can't be read.
    Journal(String),
}

impl Lanes {
    /// Walks behind the same key in all of them.
    pub fn new(
        source: Walk,
        target: Option<Walk>,
        (journal, bucket, prefix): (&Journal, &str, &str),
        behind: Option<&String>,
    ) -> Lanes {
        Lanes {
            source: Ahead::new(source.behind(behind.cloned()), "source"),
            target: target.map(|walk| Ahead::new(walk.behind(behind.cloned()), "target")),
            known: Known {
                journal: journal.clone(),
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
                behind: behind.cloned(),
                page: VecDeque::new(),
                is_over: false,
            },
        }
    }

    /// The next key of any of them; none at the end of all.
    ///
    /// # Errors
    /// [`Broken`]: what follows is not known then.
    pub async fn next(&mut self) -> Result<Option<Key>, Broken> {
        self.source.fill().await.map_err(Broken::Listing)?;
        if let Some(target) = &mut self.target {
            target.fill().await.map_err(Broken::Listing)?;
        }
        self.known.fill().map_err(Broken::Journal)?;
        let firsts = [
            self.source.first(),
            self.target.as_ref().and_then(Ahead::first),
            self.known.page.front().map(|(key, _)| key.as_str()),
        ];
        let Some(key) = firsts.into_iter().flatten().min().map(str::to_owned) else {
            return Ok(None);
        };
        let rows = self.known.page.pop_front_if(|(known, _)| *known == key);
        Ok(Some(Key {
            source: self.source.take(&key),
            target: self.target.as_mut().and_then(|target| target.take(&key)),
            rows: rows.map(|(_, rows)| rows).unwrap_or_default(),
            key,
        }))
    }

    /// The last key that is at hand without another question to the source.
    pub fn horizon(&self) -> Option<&str> {
        self.source.page.back().map(|entry| entry.key.as_str())
    }
}
