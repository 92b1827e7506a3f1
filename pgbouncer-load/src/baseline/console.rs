//! PgBouncer's admin console: the simple protocol only, and columns by their names, because every
//! version has some more of them.

use std::time::Duration;

use veza_probe::postgres::{self, Error, Session};

use crate::targets::Access;

/// How long the console may take for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// A session of the admin console.
#[derive(Debug)]
pub struct Console {
    session: Session,
}

/// One row of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(Vec<(String, String)>);

impl Row {
    /// A value by its column's name; none when this version has no such column.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(column, _)| column == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A number by its column's name; 0 when this version has no such column.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    #[cfg(test)]
    pub fn of(pairs: &[(&str, &str)]) -> Row {
        let owned = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Row(owned.collect())
    }
}

impl Console {
    /// Logs in.
    ///
    /// # Errors
    /// As every connection.
    pub async fn open(access: &Access) -> Result<Console, Error> {
        let session = open(access).await?;
        Ok(Console { session })
    }

    /// What a SHOW command answers.
    ///
    /// # Errors
    /// As every query, or when it takes too long.
    pub async fn show(&self, what: &str) -> Result<Vec<Row>, Error> {
        rows(&self.session, &format!("SHOW {what}")).await
    }
}

/// A session at the first host that answers.
///
/// # Errors
/// As every connection.
pub async fn open(access: &Access) -> Result<Session, Error> {
    match access.at.as_slice() {
        [one] => postgres::connect(one, &access.login, &access.tls, LIMIT).await,
        all => postgres::connect_first(all, &access.login, &access.tls, LIMIT).await,
    }
}

/// The rows that a query gives, over the simple protocol.
///
/// # Errors
/// As every query, or when it takes too long.
pub async fn rows(session: &Session, sql: &str) -> Result<Vec<Row>, Error> {
    let rows = postgres::rows(&session.client, sql, LIMIT).await?;
    let read = rows.iter().map(|row| {
        let columns = row.columns().iter().enumerate();
        let pair = |(index, column): (usize, &tokio_postgres::SimpleColumn)| {
            let value = row.get(index).unwrap_or_default();
            (column.name().to_owned(), value.to_owned())
        };
        Row(columns.map(pair).collect())
    });
    Ok(read.collect())
}
