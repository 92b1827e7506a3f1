//! What stands in a journal: versions, walks, and sums over them.

use rusqlite::{Connection, OptionalExtension, Row as Sql, params};

use crate::targets::walk::Version;

/// A version that was carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its place in the order in which versions of its key were written.
    pub number: u32,
    /// The source's id; empty where it was listed without versions.
    pub source_id: String,
    /// Whether it is a mark of deletion.
    pub is_mark: bool,
    /// Its size.
    pub size_bytes: u64,
    /// The source's ETag.
    pub etag: String,
    /// When the source says that it was written.
    pub modified_ms: i64,
    /// SHA-256 of what the source sent, where that is known.
    pub sha256: Option<[u8; 32]>,
    /// The target's id of it.
    pub target_id: Option<String>,
    /// The target's ETag of it.
    pub target_etag: String,
    /// The node that took it.
    pub node: Option<String>,
    /// When it was written.
    pub copied_ms: i64,
    /// When it was read again, and was the same.
    pub verified_ms: Option<i64>,
    /// Since when it is not on the source any more.
    pub gone_ms: Option<i64>,
    /// What the target could not take.
    pub losses: Option<String>,
}

impl Row {
    /// Whether a version of the target is the one that this row speaks of.
    pub fn target_is(&self, version: &Version) -> bool {
        let plain = |id: Option<&str>| id.filter(|id| *id != "null").map(str::to_owned);
        let (one, other) = (
            plain(version.id.as_deref()),
            plain(self.target_id.as_deref()),
        );
        match (one, other) {
            (Some(one), Some(other)) => one == other,
            // A listing without versions shows no ids.
            (None, other) if other.is_none() || version.id.is_none() => {
                version.is_mark == self.is_mark && version.etag == self.target_etag
            }
            _ => false,
        }
    }
}

/// A version that was read again.
pub struct Verified<'a> {
    /// Its place in the order of its key.
    pub number: u32,
    /// SHA-256 of both sides.
    pub sha256: [u8; 32],
    /// The node that it was read through.
    pub node: &'a str,
    /// When.
    pub at_ms: i64,
}

/// A walk through a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Its number.
    pub id: i64,
    /// Whether no walk through this bucket was ended before.
    pub is_first: bool,
    /// Every key up to this one is done.
    pub reached: Option<String>,
    /// Keys up to this one may have been begun.
    pub frontier: Option<String>,
    /// How many keys it has seen.
    pub keys: u64,
    /// When it was ended.
    pub ended_ms: Option<i64>,
}

/// Sums over a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Versions that stand, without marks of deletion.
    pub versions: u64,
    /// Marks of deletion.
    pub marks: u64,
    /// Bytes of the versions.
    pub bytes: u64,
    /// Versions that were not read again.
    pub unverified: u64,
    /// Versions that are not on the source any more.
    pub gone: u64,
    /// Keys that could not be carried.
    pub troubles: u64,
    /// Buckets whose last walk was ended.
    pub buckets_ended: u64,
    /// Buckets with a walk.
    pub buckets: u64,
}

impl Sums {
    /// Everything in one look.
    pub fn of(connection: &Connection) -> rusqlite::Result<Sums> {
        let sql = "SELECT coalesce(sum(NOT is_mark), 0), coalesce(sum(is_mark), 0), coalesce(sum(size_bytes), 0), \
                   coalesce(sum(NOT is_mark AND verified_ms IS NULL), 0) FROM version WHERE gone_ms IS NULL";
        let mut sums = connection.query_row(sql, [], |row| {
            Ok(Sums {
                versions: row.get(0)?,
                marks: row.get(1)?,
                bytes: row.get(2)?,
                unverified: row.get(3)?,
                ..Sums::default()
            })
        })?;
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
        sums.gone = number("SELECT count(*) FROM version WHERE gone_ms IS NOT NULL")?;
        sums.troubles = number("SELECT count(*) FROM trouble")?;
        sums.buckets = number("SELECT count(DISTINCT bucket) FROM pass")?;
        sums.buckets_ended = number(
            "SELECT count(DISTINCT bucket) FROM pass WHERE id IN (SELECT max(id) FROM pass GROUP BY bucket, prefix) \
             AND ended_ms IS NOT NULL",
        )?;
        Ok(sums)
    }
}

const COLUMNS: &str = "number, source_id, is_mark, size_bytes, etag, modified_ms, sha256, target_id, target_etag, \
                       (SELECT name FROM node WHERE id = node) AS node_name, copied_ms, verified_ms, gone_ms, losses";

/// Every row with its place.
pub const SELECT_PLACED: &str = "SELECT bucket.name AS bucket_name, key, number, source_id, is_mark, size_bytes, etag, \
                                 modified_ms, sha256, target_id, target_etag, (SELECT name FROM node WHERE id = node) AS \
                                 node_name, copied_ms, verified_ms, gone_ms, losses FROM version";

/// A row as it was asked for.
pub fn from_row(row: &Sql<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        number: row.get("number")?,
        source_id: row.get("source_id")?,
        is_mark: row.get("is_mark")?,
        size_bytes: row.get("size_bytes")?,
        etag: row.get("etag")?,
        modified_ms: row.get("modified_ms")?,
        sha256: row.get("sha256")?,
        target_id: row.get("target_id")?,
        target_etag: row.get("target_etag")?,
        node: row.get("node_name")?,
        copied_ms: row.get("copied_ms")?,
        verified_ms: row.get("verified_ms")?,
        gone_ms: row.get("gone_ms")?,
        losses: row.get("losses")?,
    })
}

/// The rows of a key, in the order of copying.
pub fn of_key(connection: &Connection, bucket: &str, key: &str) -> rusqlite::Result<Vec<Row>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM version WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key = ?2 ORDER BY number"
    );
    let mut rows = connection.prepare_cached(&sql)?;
    rows.query_map(params![bucket, key], from_row)?.collect()
}

/// How many versions of keys with a prefix are known behind a key.
pub fn count(
    connection: &Connection,
    (bucket, prefix, behind): (&str, &str, &str),
) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM version WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key > ?3 \
               AND substr(key, 1, length(?2)) = ?2";
    connection.query_row(sql, params![bucket, prefix, behind], |row| row.get(0))
}

/// The key of so many versions further on.
pub fn further(
    connection: &Connection,
    (bucket, prefix, behind): (&str, &str, &str),
    versions: u64,
) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT key FROM version WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key > ?3 \
               AND substr(key, 1, length(?2)) = ?2 ORDER BY key LIMIT 1 OFFSET ?4";
    let offset = versions.saturating_sub(1);
    let asked = connection.query_row(sql, params![bucket, prefix, behind, offset], |row| {
        row.get(0)
    });
    asked.optional()
}

/// The number of a name in a table of names, made where there is none.
fn id_of(connection: &Connection, table: &str, name: &str) -> rusqlite::Result<i64> {
    let select = format!("SELECT id FROM {table} WHERE name = ?1");
    let asked = |connection: &Connection| {
        let mut asked = connection.prepare_cached(&select)?;
        asked.query_row([name], |row| row.get(0)).optional()
    };
    if let Some(id) = asked(connection)? {
        return Ok(id);
    }
    connection.execute(&format!("INSERT INTO {table} (name) VALUES (?1)"), [name])?;
    Ok(connection.last_insert_rowid())
}

/// Writes a row. One with its number that is there already is replaced.
pub fn insert(
    connection: &Connection,
    (bucket, key): (&str, &str),
    row: &Row,
) -> rusqlite::Result<()> {
    let bucket = id_of(connection, "bucket", bucket)?;
    let node = row.node.as_deref();
    let node = node
        .map(|node| id_of(connection, "node", node))
        .transpose()?;
    let sql = "INSERT OR REPLACE INTO version (bucket, key, number, source_id, is_mark, size_bytes, etag, modified_ms, \
               sha256, target_id, target_etag, node, copied_ms, verified_ms, gone_ms, losses) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    connection.prepare_cached(sql)?.execute(params![
        bucket,
        key,
        row.number,
        row.source_id,
        row.is_mark,
        row.size_bytes,
        row.etag,
        row.modified_ms,
        row.sha256,
        row.target_id,
        row.target_etag,
        node,
        row.copied_ms,
        row.verified_ms,
        row.gone_ms,
        row.losses,
    ])?;
    Ok(())
}

/// Writes down that a version was read again.
pub fn verified(
    connection: &Connection,
    (bucket, key): (&str, &str),
    verified: &Verified<'_>,
) -> rusqlite::Result<()> {
    let node = id_of(connection, "node", verified.node)?;
    let sql = "UPDATE version SET sha256 = ?4, verified_ms = ?5, verified_node = ?6 \
               WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key = ?2 AND number = ?3";
    let (number, sha256, at_ms) = (verified.number, verified.sha256, verified.at_ms);
    connection
        .prepare_cached(sql)?
        .execute(params![bucket, key, number, sha256, at_ms, node])?;
    Ok(())
}

/// Writes down that versions are not on the source any more.
pub fn gone(
    connection: &Connection,
    (bucket, key): (&str, &str),
    numbers: &[u32],
    at_ms: i64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE version SET gone_ms = ?4 WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) AND key = ?2 \
               AND number = ?3 AND gone_ms IS NULL";
    let mut statement = connection.prepare_cached(sql)?;
    for number in numbers {
        statement.execute(params![bucket, key, number, at_ms])?;
    }
    Ok(())
}

/// Writes down that a key could not be carried, or can now.
pub fn trouble(
    connection: &Connection,
    (bucket, key): (&str, &str),
    words: Option<&str>,
    at_ms: i64,
) -> rusqlite::Result<()> {
    let bucket = id_of(connection, "bucket", bucket)?;
    match words {
        Some(words) => {
            let sql = "INSERT OR REPLACE INTO trouble (bucket, key, words, at_ms) VALUES (?1, ?2, ?3, ?4)";
            connection
                .prepare_cached(sql)?
                .execute(params![bucket, key, words, at_ms])?;
        }
        None => {
            let sql = "DELETE FROM trouble WHERE bucket = ?1 AND key = ?2";
            connection
                .prepare_cached(sql)?
                .execute(params![bucket, key])?;
        }
    }
    Ok(())
}

impl Pass {
    /// The walk through a bucket that was not ended, or a new one.
    pub fn of(
        connection: &Connection,
        (bucket, prefix): (&str, &str),
        at_ms: i64,
    ) -> rusqlite::Result<Pass> {
        let bucket = id_of(connection, "bucket", bucket)?;
        let ended = "SELECT count(*) FROM pass WHERE bucket = ?1 AND ended_ms IS NOT NULL AND substr(?2, 1, length(prefix)) = prefix";
        let ended: i64 = connection.query_row(ended, params![bucket, prefix], |row| row.get(0))?;
        let open = "SELECT id, reached, frontier, keys FROM pass WHERE bucket = ?1 AND prefix = ?2 AND ended_ms IS NULL";
        let open = connection.query_row(open, params![bucket, prefix], |row| {
            Ok(Pass {
                id: row.get(0)?,
                is_first: ended == 0,
                reached: row.get(1)?,
                frontier: row.get(2)?,
                keys: row.get(3)?,
                ended_ms: None,
            })
        });
        if let Some(pass) = open.optional()? {
            return Ok(pass);
        }
        let sql = "INSERT INTO pass (bucket, prefix, began_ms, keys) VALUES (?1, ?2, ?3, 0)";
        connection.execute(sql, params![bucket, prefix, at_ms])?;
        Ok(Pass {
            id: connection.last_insert_rowid(),
            is_first: ended == 0,
            reached: None,
            frontier: None,
            keys: 0,
            ended_ms: None,
        })
    }

    /// Forgets troubles of before this walk: what is still in trouble was seen again by it.
    pub fn forget(
        connection: &Connection,
        (bucket, prefix): (&str, &str),
        id: i64,
    ) -> rusqlite::Result<()> {
        let sql = "DELETE FROM trouble WHERE bucket = (SELECT id FROM bucket WHERE name = ?1) \
                   AND substr(key, 1, length(?2)) = ?2 AND at_ms < (SELECT began_ms FROM pass WHERE id = ?3)";
        connection.execute(sql, params![bucket, prefix, id])?;
        Ok(())
    }

    /// Writes down how far it is.
    pub fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql =
            "UPDATE pass SET reached = ?2, frontier = ?3, keys = ?4, ended_ms = ?5 WHERE id = ?1";
        let Pass {
            id,
            reached,
            frontier,
            keys,
            ended_ms,
            ..
        } = self;
        connection
            .prepare_cached(sql)?
            .execute(params![id, reached, frontier, keys, ended_ms])?;
        Ok(())
    }
}
