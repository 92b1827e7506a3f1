//! The tables of a journal, and their version.

use rusqlite::Connection;

/// "vzmg": tells a journal from another SQLite file.
const APPLICATION: i64 = 0x767a_6d67;

/// The version of these tables. A change of them is another number.
const FORMAT: i64 = 1;

/// Keys are compared byte by byte, as S3 orders them. The view is for people: `SELECT * FROM objects`.
const TABLES: &str = "
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE bucket (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE node (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE version (
  bucket INTEGER NOT NULL, key TEXT NOT NULL,
  number INTEGER NOT NULL,      -- the order in which a key's versions were written to the target
  source_id TEXT NOT NULL,      -- the source's version id; empty where it was listed without versions
  is_mark INTEGER NOT NULL,     -- whether it is a mark of deletion
  size_bytes INTEGER NOT NULL, etag TEXT NOT NULL, modified_ms INTEGER NOT NULL, -- as the source listed it
  sha256 BLOB,                  -- of what the source sent; none of what a killed run had written
  target_id TEXT, target_etag TEXT NOT NULL, node INTEGER, copied_ms INTEGER NOT NULL,
  verified_ms INTEGER, verified_node INTEGER, -- when and through which node it was read again and was the same
  gone_ms INTEGER,              -- since when it is not on the source any more
  losses TEXT,                  -- what the target could not take
  PRIMARY KEY (bucket, key, number)
) WITHOUT ROWID;
CREATE TABLE trouble (bucket INTEGER NOT NULL, key TEXT NOT NULL, words TEXT NOT NULL, at_ms INTEGER NOT NULL,
  PRIMARY KEY (bucket, key)) WITHOUT ROWID;
CREATE TABLE pass (
  id INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, prefix TEXT NOT NULL, began_ms INTEGER NOT NULL,
  reached TEXT,                 -- every key up to this one is done
  frontier TEXT,                -- keys up to this one may have been begun
  keys INTEGER NOT NULL, ended_ms INTEGER
);
CREATE VIEW objects AS
  SELECT bucket.name AS bucket, key, number, source_id, is_mark, size_bytes, etag,
    datetime(modified_ms / 1000, 'unixepoch') AS modified, lower(hex(sha256)) AS sha256, target_id, target_etag,
    writer.name AS written_through, datetime(copied_ms / 1000, 'unixepoch') AS copied,
    reader.name AS read_through, datetime(verified_ms / 1000, 'unixepoch') AS verified,
    datetime(gone_ms / 1000, 'unixepoch') AS gone, losses
  FROM version JOIN bucket ON bucket.id = version.bucket
  LEFT JOIN node AS writer ON writer.id = version.node LEFT JOIN node AS reader ON reader.id = version.verified_node;
";

/// Makes the tables of a new file, and checks those of an old one.
///
/// # Errors
/// A sentence for the user.
pub fn ensure(connection: &mut Connection) -> Result<(), String> {
    let told = |error: rusqlite::Error| error.to_string();
    // A commit is on disk when it is answered: what was copied and is not in the journal would be looked for again.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;",
        )
        .map_err(told)?;
    connection.set_prepared_statement_cache_capacity(64);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(told)?;
    if tables > 0 {
        return check(connection);
    }
    let transaction = connection.transaction().map_err(told)?;
    transaction.execute_batch(TABLES).map_err(told)?;
    transaction
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};"
        ))
        .map_err(told)?;
    transaction.commit().map_err(told)
}

/// Whether a file is a journal of this version.
///
/// # Errors
/// A sentence for the user.
pub fn check(connection: &Connection) -> Result<(), String> {
    let number = |pragma: &str| {
        let asked = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0));
        asked.map_err(|error: rusqlite::Error| error.to_string())
    };
    let (application, format): (i64, i64) = (number("application_id")?, number("user_version")?);
    if application != APPLICATION {
        return Err("it is no journal of a migration: name another file".to_owned());
    }
    if format != FORMAT {
        return Err(format!(
            "it is of format {format}, and this version writes {FORMAT}: go on with the version that began it"
        ));
    }
    Ok(())
}
