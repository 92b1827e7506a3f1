//! The journal of a migration: one SQLite file that says of each version what the source sent, when, and through which node it
//! was written and read again. What is in it survives a kill at any byte; what is not is looked for on the target.

pub mod rows;
mod schema;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::cli::{Listings, Versions};
use crate::targets::ranges::Range;
use rows::{Pass, Row, Verified, from_row};

/// What a journal is about. Another run with other words can't go on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The source's place.
    pub source: String,
    /// The target's first place.
    pub target: String,
    /// Which versions are carried.
    pub versions: Versions,
    /// Which of how many shards this is.
    pub shard: (u32, u32),
}

impl About {
    /// The journal's own file in a folder of several.
    pub fn file_name(&self) -> String {
        let plain = |text: &str| text.replace(':', "_");
        let (shard, shards) = self.shard;
        let versions = self.word();
        format!(
            "{}--{}-{versions}-{shard}of{shards}.sqlite",
            plain(&self.source),
            plain(&self.target)
        )
    }

    fn word(&self) -> &'static str {
        match self.versions {
            Versions::All => "all",
            Versions::Latest => "latest",
        }
    }

    fn pairs(&self) -> [(&'static str, String); 4] {
        [
            ("source", self.source.clone()),
            ("target", self.target.clone()),
            ("versions", self.word().to_owned()),
            ("shard", format!("{}/{}", self.shard.0, self.shard.1)),
        ]
    }
}

/// A journal that is open, and locked against a second run.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Held until the last of them is gone.
    _lock: Option<File>,
}

/// A version to be written down.
pub struct Copied<'a> {
    /// Bucket and key.
    pub place: (&'a str, &'a str),
    /// What stands in the row.
    pub row: &'a Row,
}

impl Journal {
    /// Opens a journal, or makes it.
    ///
    /// # Errors
    /// A sentence for the user: not a journal, of something else, in use, not to be written.
    pub fn open(path: &Path, about: &About) -> Result<Journal, String> {
        let name = path.display();
        let lock = lock(path)?;
        let told = |error: rusqlite::Error| format!("journal {name}: {error}");
        let mut connection = Connection::open(path).map_err(told)?;
        schema::ensure(&mut connection).map_err(|words| format!("journal {name}: {words}"))?;
        let transaction = connection.transaction().map_err(told)?;
        for (key, value) in about.pairs() {
            let stands: Option<String> = transaction
                .query_row("SELECT value FROM about WHERE name = ?1", [key], |row| {
                    row.get(0)
                })
                .optional()
                .map_err(told)?;
            match stands {
                Some(stands) if stands != value => {
                    return Err(format!(
                        "journal {name} is of {key} {stands}, and this run of {key} {value}: name another file with \
                         --journal, or run with what it is of"
                    ));
                }
                Some(_) => {}
                None => {
                    let sql = "INSERT INTO about (name, value) VALUES (?1, ?2)";
                    transaction
                        .execute(sql, params![key, value])
                        .map_err(told)?;
                }
            }
        }
        transaction.commit().map_err(told)?;
        let journal = Journal(Arc::new(Inner {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            _lock: Some(lock),
        }));
        journal.begin()?;
        Ok(journal)
    }

    /// Opens a journal to read what is in it, also while a run writes it.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn look(path: &Path) -> Result<Journal, String> {
        let name = path.display();
        let told = |error: rusqlite::Error| format!("journal {name}: {error}");
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(told)?;
        schema::check(&connection).map_err(|words| format!("journal {name}: {words}"))?;
        Ok(Journal(Arc::new(Inner {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            _lock: None,
        })))
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // What a panic left half done is rolled back by SQLite, or written down: both are true.
        self.0
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs statements, and tells what went wrong with the file's name.
    fn with<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
        let connection = self.connection();
        run(&connection).map_err(|error| {
            let name = self.0.path.display();
            format!("journal {name}: {error}: make room or correct its permissions, then run it again: it goes on")
        })
    }

    fn begin(&self) -> Result<(), String> {
        self.with(|connection| connection.execute_batch("BEGIN IMMEDIATE"))
    }

    /// Puts on disk what was written down so far.
    ///
    /// # Errors
    /// What stood in the way; then nothing since the last time is on disk.
    pub fn save(&self) -> Result<(), String> {
        tokio::task::block_in_place(|| {
            self.with(|connection| connection.execute_batch("COMMIT; BEGIN IMMEDIATE"))
        })
    }

    /// Everything is on disk, and the file is in one piece again.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn close(&self) -> Result<(), String> {
        self.with(|connection| {
            connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); BEGIN IMMEDIATE")
        })
    }

    /// What is known of keys behind one, in their order: at most `limit` keys, each with its rows in the order of copying.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn page(
        &self,
        bucket: &str,
        (prefix, behind): (&str, Option<&str>),
        limit: usize,
    ) -> Result<Vec<(String, Vec<Row>)>, String> {
        self.with(|connection| {
            // Behind a key is behind its prefix, too. One bound, so that the index is entered at it: with two, every page is
            // counted from the prefix again, and a million keys took 3.9 times as long for each as ten thousand.
            let (bound, from) = match behind {
                Some(behind) if behind >= prefix => (">", behind),
                _ => (">=", prefix),
            };
            let sql = format!(
                "SELECT key FROM version WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key {bound} ?2 \
                 GROUP BY key ORDER BY key LIMIT ?3"
            );
            let mut keys = connection.prepare_cached(&sql)?;
            let keys = keys.query_map(params![bucket, from, limit], |row| row.get::<_, String>(0))?;
            let mut page = Vec::new();
            for key in keys {
                let key = key?;
                // Keys with one prefix stand together, and begin where the prefix does.
                if !key.starts_with(prefix) {
                    break;
                }
                let rows = rows::of_key(connection, bucket, &key)?;
                page.push((key, rows));
            }
            Ok(page)
        })
    }

    /// Ranges of keys behind one in which about as many versions are known; together they have every key behind it.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn ranges(
        &self,
        bucket: &str,
        (prefix, behind): (&str, Option<&str>),
        listings: Listings,
    ) -> Result<Vec<Range>, String> {
        let divided = |connection: &Connection| {
            let within = (bucket, prefix, behind.unwrap_or_default());
            let all = rows::count(connection, within)?;
            let ranges = listings.of(Some(all)).clamp(1, all.max(1));
            let mut bounds: Vec<String> = Vec::new();
            while (bounds.len() as u64) < ranges - 1 {
                let last = bounds.last().map_or(within.2, String::as_str);
                let next = rows::further(connection, (bucket, prefix, last), all / ranges)?;
                let Some(next) = next else { break };
                bounds.push(next);
            }
            Ok(Range::between(behind.map(str::to_owned), bounds))
        };
        tokio::task::block_in_place(|| self.with(divided))
    }

    /// What is known of a key, in the order of copying.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn of_key(&self, bucket: &str, key: &str) -> Result<Vec<Row>, String> {
        self.with(|connection| rows::of_key(connection, bucket, key))
    }

    /// Writes a version down. It is on disk after the next [`Journal::save`].
    ///
    /// # Errors
    /// What stood in the way.
    pub fn copied(&self, copied: &Copied<'_>) -> Result<(), String> {
        self.with(|connection| rows::insert(connection, copied.place, copied.row))
    }

    /// A version was read again from the target, and is what the source sent.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn verified(&self, place: (&str, &str), verified: &Verified<'_>) -> Result<(), String> {
        self.with(|connection| rows::verified(connection, place, verified))
    }

    /// Versions of a key are not on the source any more.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn gone(&self, place: (&str, &str), numbers: &[u32], at_ms: i64) -> Result<(), String> {
        self.with(|connection| rows::gone(connection, place, numbers, at_ms))
    }

    /// What is not on the source any more, of keys that are wanted, in their order, and at most so many.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn gone_rows(
        &self,
        (bucket, prefix): (&str, &str),
        wants: impl Fn(&str) -> bool,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, String> {
        self.with(|connection| {
            let sql = format!(
                "{} JOIN bucket ON bucket.id = version.bucket WHERE bucket.name = ?1 AND gone_ms IS NOT NULL \
                 AND substr(key, 1, length(?2)) = ?2 ORDER BY key, number",
                rows::SELECT_PLACED
            );
            let mut all = connection.prepare_cached(&sql)?;
            let all = all.query_map(params![bucket, prefix], |row| {
                Ok((row.get::<_, String>("key")?, from_row(row)?))
            })?;
            let is_wanted =
                |row: &rusqlite::Result<(String, Row)>| row.as_ref().map_or(true, |(key, _)| wants(key));
            all.filter(is_wanted).take(limit).collect()
        })
    }

    /// A version is on the target no more.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn removed(&self, (bucket, key): (&str, &str), number: u32) -> Result<(), String> {
        self.with(|connection| {
            let sql = "DELETE FROM version WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key = ?2 AND number = ?3";
            connection.execute(sql, params![bucket, key, number]).map(drop)
        })
    }

    /// A key could not be carried; none: it is now.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn trouble(
        &self,
        place: (&str, &str),
        words: Option<&str>,
        at_ms: i64,
    ) -> Result<(), String> {
        self.with(|connection| rows::trouble(connection, place, words, at_ms))
    }

    /// Keys that could not be carried: bucket, key, why; the first ones.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn troubles(&self, limit: usize) -> Result<Vec<(String, String, String)>, String> {
        self.with(|connection| {
            let sql = "SELECT bucket.name, key, words FROM trouble JOIN bucket ON bucket.id = bucket \
                       ORDER BY 1, 2 LIMIT ?1";
            let mut all = connection.prepare_cached(sql)?;
            let all = all.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            all.collect()
        })
    }

    /// The walk through a bucket that was not ended, or a new one.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn pass(&self, bucket: &str, prefix: &str, at_ms: i64) -> Result<Pass, String> {
        let pass = self.with(|connection| Pass::of(connection, (bucket, prefix), at_ms))?;
        self.save()?;
        Ok(pass)
    }

    /// A walk came to its end: troubles of before it that it did not see again are over.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn ended(&self, pass: &Pass, bucket: &str, prefix: &str) -> Result<(), String> {
        self.with(|connection| {
            Pass::forget(connection, (bucket, prefix), pass.id)?;
            pass.write(connection)
        })?;
        self.save()
    }

    /// How far a walk is: every key up to `reached` is done; keys up to `frontier` may have been begun.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn reached(&self, pass: &Pass) -> Result<(), String> {
        self.with(|connection| pass.write(connection))
    }

    /// Sums over everything, in one look.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn sums(&self) -> Result<rows::Sums, String> {
        self.with(rows::Sums::of)
    }

    /// What it is about: source, target, which versions, and which shard.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn about(&self) -> Result<[String; 4], String> {
        self.with(|connection| {
            let sql = "SELECT value FROM about WHERE name = ?1";
            let word = |name: &str| {
                let word = connection
                    .query_row(sql, [name], |row| row.get(0))
                    .optional();
                word.map(Option::unwrap_or_default)
            };
            Ok([
                word("source")?,
                word("target")?,
                word("versions")?,
                word("shard")?,
            ])
        })
    }

    /// What the target could not take: bucket, key and words; the first ones.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn losses(&self, limit: usize) -> Result<Vec<(String, String, String)>, String> {
        self.with(|connection| {
            let sql = "SELECT bucket.name, key, losses FROM version JOIN bucket ON bucket.id = bucket \
                       WHERE losses IS NOT NULL AND gone_ms IS NULL ORDER BY 1, 2 LIMIT ?1";
            let mut all = connection.prepare_cached(sql)?;
            let all = all.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            all.collect()
        })
    }

    /// Every version that stands, in the order of keys, to a closure.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn each(&self, mut each: impl FnMut(&str, &str, Row)) -> Result<(), String> {
        self.with(|connection| {
            let sql = format!(
                "{} JOIN bucket ON bucket.id = version.bucket ORDER BY bucket.name, key, number",
                rows::SELECT_PLACED
            );
            let mut all = connection.prepare_cached(&sql)?;
            let mut all = all.query([])?;
            while let Some(row) = all.next()? {
                let (bucket, key): (String, String) = (row.get("bucket_name")?, row.get("key")?);
                each(&bucket, &key, from_row(row)?);
            }
            Ok(())
        })
    }
}

/// One run for each journal: two would copy everything twice.
fn lock(path: &Path) -> Result<File, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let made = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name);
    let file = made.map_err(|error| format!("journal {}: its lock: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "journal {}: another run has it: wait for it, or name another file with --journal",
            path.display()
        )),
        Err(TryLockError::Error(error)) => {
            Err(format!("journal {}: its lock: {error}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests;
