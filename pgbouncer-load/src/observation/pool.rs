//! The pooler while it is loaded: SHOW POOLS and SHOW STATS, once a second.

use veza_probe::clock::{At, Clock};

use crate::baseline::console::{Console, Row};
use crate::baseline::{clients, is_pool, waits};
use crate::targets::Access;

/// One look at our own pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: At,
    /// Clients, with those that have nothing to do.
    pub clients: u64,
    /// Of these, those that wait for a server connection.
    pub waiting: u64,
    /// For how long the first in the queue has waited.
    pub maxwait_s: f64,
    /// Server connections at work.
    pub sv_active: u64,
    /// All server connections.
    pub servers: u64,
}

/// Totals of our database, which only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    xacts: u64,
    wait_us: u64,
}

/// What was seen of the pooler in one round.
#[derive(Debug, Default)]
pub struct Pool {
    /// Each look.
    pub samples: Vec<Sample>,
    /// What went wrong with looking.
    pub troubles: Vec<String>,
    first: Option<Totals>,
    last: Option<Totals>,
}

impl Pool {
    /// How long a transaction waited for its server connection, on average.
    pub fn wait_ms(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        let xacts = last.xacts.checked_sub(first.xacts).filter(|n| *n > 0)?;
        let wait_us = last.wait_us.checked_sub(first.wait_us)?;
        Some(wait_us as f64 / 1e3 / xacts as f64)
    }

    /// The most clients that were seen at once.
    pub fn most_clients(&self) -> Option<u64> {
        self.samples.iter().map(|sample| sample.clients).max()
    }

    /// The longest that one was seen to wait.
    pub fn maxwait_s(&self) -> Option<f64> {
        self.samples
            .iter()
            .map(|sample| sample.maxwait_s)
            .reduce(f64::max)
    }
}

/// Looks at the pooler; logs in again when its session is lost.
pub struct Watcher<'a> {
    clock: Clock,
    pooler: &'a Access,
    console: &'a Access,
    session: Option<Console>,
}

impl<'a> Watcher<'a> {
    /// One that has not looked yet.
    pub fn new(clock: Clock, pooler: &'a Access, console: &'a Access) -> Watcher<'a> {
        Watcher {
            clock,
            pooler,
            console,
            session: None,
        }
    }

    /// Looks once. Answers with the pools of others in which somebody waits.
    pub async fn look(&mut self, pool: &mut Pool) -> Vec<String> {
        match self.asked().await {
            Ok((pools, stats)) => {
                let totals = self.totals(&stats);
                pool.first = pool.first.or(totals);
                pool.last = totals.or(pool.last);
                pool.samples.extend(self.sample(&pools));
                self.others(&pools)
            }
            Err(words) => {
                self.session = None;
                pool.troubles.push(words);
                Vec::new()
            }
        }
    }

    async fn asked(&mut self) -> Result<(Vec<Row>, Vec<Row>), String> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Console::open(self.console)
                .await
                .map_err(|e| e.to_string())?,
        };
        let pools = session.show("POOLS").await.map_err(|e| e.to_string())?;
        let stats = session.show("STATS").await.map_err(|e| e.to_string())?;
        self.session = Some(session);
        Ok((pools, stats))
    }

    fn sample(&self, pools: &[Row]) -> Option<Sample> {
        let login = &self.pooler.login;
        let row = pools
            .iter()
            .find(|row| is_pool(row, &login.dbname, &login.user))?;
        let servers = ["sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login"];
        Some(Sample {
            at: self.clock.at(),
            clients: clients(row),
            waiting: row.number("cl_waiting"),
            maxwait_s: row.number("maxwait") as f64 + row.number("maxwait_us") as f64 / 1e6,
            sv_active: row.number("sv_active"),
            servers: servers.map(|name| row.number(name)).iter().sum(),
        })
    }

    fn totals(&self, stats: &[Row]) -> Option<Totals> {
        let dbname = self.pooler.login.dbname.as_str();
        let row = stats
            .iter()
            .find(|row| row.text("database") == Some(dbname))?;
        Some(Totals {
            xacts: row.number("total_xact_count"),
            wait_us: row.number("total_wait_time"),
        })
    }

    fn others(&self, pools: &[Row]) -> Vec<String> {
        let login = &self.pooler.login;
        let waiting = pools
            .iter()
            .filter(|row| !is_pool(row, &login.dbname, &login.user) && waits(row));
        let told = waiting.map(|row| {
            let name = |column| row.text(column).unwrap_or("?");
            let count = row.number("cl_waiting");
            format!(
                "{count} clients of {} in {}",
                name("user"),
                name("database")
            )
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_per_transaction_is_the_difference_of_totals() {
        let totals = |xacts, wait_us| Some(Totals { xacts, wait_us });
        let pool = |first, last| Pool {
            first,
            last,
            ..Pool::default()
        };
        assert_eq!(
            pool(totals(100, 5_000), totals(300, 205_000)).wait_ms(),
            Some(1.0)
        );
        assert_eq!(pool(totals(100, 5_000), totals(100, 5_000)).wait_ms(), None);
        // The pooler was restarted: its totals begin anew.
        assert_eq!(pool(totals(100, 5_000), totals(3, 10)).wait_ms(), None);
        assert_eq!(pool(None, totals(3, 10)).wait_ms(), None);
    }
}
