//! Source, journal and target side by side, in the order of keys, each read ahead by a page; several ranges of keys at the same time.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::targets::ranges::Range;
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

/// The three of them, in one range.
struct Lane {
    source: Ahead,
    target: Option<Ahead>,
    known: Known,
    until: Option<String>,
}

/// Keys of a lane in their order, or why there are no more of them. None at all: that was the lane's end.
type Batch = (usize, Result<Vec<Key>, Broken>);

/// Every range's lane.
pub struct Lanes {
    batches: mpsc::Receiver<Batch>,
    readers: Vec<JoinHandle<()>>,
    /// How many have not come to their end.
    open: usize,
}

/// Why the walk ends before its end.
pub enum Broken {
    /// A listing broke off.
    Listing(Failure),
    /// The journal can't be read.
    Journal(String),
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

impl Lanes {
    /// Walks through the same ranges in all of them; `walk` gives a new walk of the source, and of the target where that is wanted.
    pub fn new(
        walk: impl Fn() -> (Walk, Option<Walk>),
        (journal, bucket, prefix): (&Journal, &str, &str),
        ranges: &[Range],
    ) -> Lanes {
        let (sender, batches) = mpsc::channel(2 * ranges.len().max(1));
        let lane = |(number, range): (usize, &Range)| {
            let (source, target) = walk();
            let lane = Lane {
                source: Ahead::new(source.within(range), "source"),
                target: target.map(|walk| Ahead::new(walk.within(range), "target")),
                known: Known {
                    journal: journal.clone(),
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_owned(),
                    behind: range.behind.clone(),
                    page: VecDeque::new(),
                    is_over: false,
                },
                until: range.until.clone(),
            };
            tokio::spawn(lane.read(number, sender.clone()))
        };
        Lanes {
            batches,
            readers: ranges.iter().enumerate().map(lane).collect(),
            open: ranges.len(),
        }
    }

    /// The next keys of any lane, with its number: in their order in each lane, and in none between lanes. No keys at the end of a lane;
    /// none at the end of all.
    ///
    /// # Errors
    /// [`Broken`]: what follows is not known then.
    pub async fn next(&mut self) -> Result<Option<(usize, Vec<Key>)>, Broken> {
        if self.open == 0 {
            return Ok(None);
        }
        let Some((lane, keys)) = self.batches.recv().await else {
            let words = "a listing ended by a bug of this tool: its story is above";
            return Err(Broken::Listing(Failure::silent(words)));
        };
        let keys = keys?;
        self.open -= usize::from(keys.is_empty());
        Ok(Some((lane, keys)))
    }
}

impl Lane {
    /// Hands over its keys, and then none.
    async fn read(mut self, number: usize, sender: mpsc::Sender<Batch>) {
        loop {
            let keys = self.batch().await;
            let is_over = keys.as_ref().map_or(true, Vec::is_empty);
            if sender.send((number, keys)).await.is_err() || is_over {
                return;
            }
        }
    }

    /// What is at hand without another question to the source.
    async fn batch(&mut self) -> Result<Vec<Key>, Broken> {
        let mut keys = Vec::new();
        while keys.is_empty() || (self.source.first().is_some() && keys.len() < PAGE) {
            match self.next().await? {
                Some(key) => keys.push(key),
                None => break,
            }
        }
        Ok(keys)
    }

    /// The next key of any of them; none at the end of all.
    async fn next(&mut self) -> Result<Option<Key>, Broken> {
        self.source.fill().await.map_err(Broken::Listing)?;
        if let Some(target) = &mut self.target {
            target.fill().await.map_err(Broken::Listing)?;
        }
        self.known.fill().map_err(Broken::Journal)?;
        let known = self.known.page.front().map(|(key, _)| key.as_str());
        let firsts = [
            self.source.first(),
            self.target.as_ref().and_then(Ahead::first),
            // The journal's pages know nothing of where a range ends.
            known.filter(|key| self.until.as_deref().is_none_or(|until| *key <= until)),
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
}
