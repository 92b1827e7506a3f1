//! The monitor: its session, its timers, its view of the formation, and how far its clock is off.

use std::time::Duration;

use tokio_postgres::Client;
use veza_probe::clock::{Clock, Offset, within};
use veza_probe::postgres::{self, Access, Error, Kind, Session, Target};
use veza_probe::report::{Condition, Untouched};
use veza_probe::verdict::{Judgement, Verdict};

use super::feasibility::{SETTINGS, Timers};
use super::formation::{self, Node};
use crate::cli::Args;
use crate::targets::Targets;

/// How long the monitor may take to answer.
pub const LIMIT: Duration = Duration::from_secs(5);

/// How many round trips measure its clock; the fastest counts.
const CLOCK_TRIPS: usize = 5;

/// The monitor, with an open session.
pub struct Monitor {
    /// Where it is.
    pub at: Target,
    /// How to log in again.
    pub access: Access,
    /// Which formation and group this is about.
    pub formation: (String, i32),
    /// The version of its extension.
    pub extension: String,
    /// Its clock, seen from ours.
    pub offset: Offset,
    /// The id of its latest event before the drill.
    pub last_event: i64,
    session: Session,
}

impl Monitor {
    /// Logs in, and reads what doesn't change.
    ///
    /// # Errors
    /// Refused: the monitor is down, refuses the credentials, or is no monitor.
    pub async fn open(clock: &Clock, targets: &Targets, args: &Args) -> Result<Monitor, Untouched> {
        let access = targets.monitor.clone();
        let at = targets.monitor_at.clone();
        let opened = postgres::connect(&at, &access.login, &access.tls, LIMIT).await;
        let session = opened.map_err(|error| unusable(&error))?;
        let read = async {
            let offset = measure_offset(clock, &session.client).await?;
            let sql = "select coalesce((select extversion from pg_extension \
                       where extname = 'pgautofailover'), '')";
            let extension: String = session.client.query_one(sql, &[]).await?.try_get(0)?;
            let sql = "select coalesce(max(eventid), 0) from pgautofailover.event";
            let last_event: i64 = session.client.query_one(sql, &[]).await?.try_get(0)?;
            Ok((offset, extension, last_event))
        };
        let read = within(LIMIT, read)
            .await
            .map_err(|e| not_a_monitor(&at, &e.to_string()))?;
        let (offset, extension, last_event) = read.map_err(|e: tokio_postgres::Error| {
            not_a_monitor(&at, &Error::query("reading the monitor", &e).to_string())
        })?;
        let formation = (args.formation.clone(), args.group);
        Ok(Monitor {
            at,
            access,
            formation,
            extension,
            offset,
            last_event,
            session,
        })
    }

    /// All nodes of the formation, now.
    ///
    /// # Errors
    /// As the query, or when the monitor doesn't answer in time.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let (formation, group) = &self.formation;
        self.within(
            "reading the nodes",
            formation::read(&self.session.client, formation, *group),
        )
        .await
    }

    /// The database of the formation.
    ///
    /// # Errors
    /// As the query.
    pub async fn dbname(&self) -> Result<String, Error> {
        let sql = "select dbname::text from pgautofailover.formation where formationid = $1";
        let query = async {
            self.session
                .client
                .query_one(sql, &[&self.formation.0])
                .await?
                .try_get(0)
        };
        self.within("reading the formation's database", query).await
    }

    /// Asks the monitor to make a node primary, by a switchover.
    ///
    /// # Errors
    /// As the query; the monitor refuses unless the formation is whole.
    pub async fn promote(&self, node: &str) -> Result<(), Error> {
        let sql = "select pgautofailover.perform_promotion($1, $2)";
        let query = async {
            self.session
                .client
                .execute(sql, &[&self.formation.0, &node])
                .await
        };
        self.within(&format!("promoting {node}"), query)
            .await
            .map(drop)
    }

    /// The timers that decide how long a failover takes.
    ///
    /// # Errors
    /// As the query, or when a setting is not there.
    pub async fn timers(&self) -> Result<Timers, Error> {
        let mut values = [0.0; 6];
        for (value, name) in values.iter_mut().zip(SETTINGS) {
            let sql = "select setting::float8 from pg_settings where name = $1";
            let query = async {
                self.session
                    .client
                    .query_one(sql, &[&name])
                    .await?
                    .try_get(0)
            };
            *value = self.within(&format!("reading {name}"), query).await?;
        }
        Ok(Timers::read(values))
    }

    /// Versions, timers and clock, for the report; what can't be read is left out.
    pub async fn conditions(&self) -> Vec<Condition> {
        let sql = "select name, setting || coalesce(' ' || unit, '') from pg_settings \
                   where name like 'pgautofailover.%' and (name like '%timeout' or name like \
                   '%health_check%' or name like '%grace_period') union all \
                   select 'monitor PostgreSQL', current_setting('server_version') order by 1";
        let mut conditions = vec![
            condition("pg_auto_failover", &self.extension),
            condition(
                "monitor's clock",
                &format!(
                    "{:+.1} ms against ours, give or take {:.1} ms",
                    -self.offset.us as f64 / 1e3,
                    self.offset.error_us as f64 / 1e3
                ),
            ),
        ];
        if let Ok(Ok(rows)) = within(LIMIT, self.session.client.query(sql, &[])).await {
            conditions.extend(rows.iter().filter_map(|row| {
                let (name, value): (String, String) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
                Some(condition(&name, &value))
            }));
        }
        conditions
    }

    async fn within<T>(
        &self,
        tried: &str,
        query: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let tried = format!("{tried} at the monitor {}", self.at);
        match within(LIMIT, query).await {
            Ok(done) => done.map_err(|e| Error::query(tried, &e)),
            Err(_) => Err(Error::Deadline {
                tried,
                step: postgres::Step::Query,
                limit: LIMIT,
            }),
        }
    }
}

/// A name with its value.
pub fn condition(name: &str, value: &str) -> Condition {
    Condition {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

async fn measure_offset(clock: &Clock, client: &Client) -> Result<Offset, tokio_postgres::Error> {
    let sql = "select (extract(epoch from clock_timestamp()) * 1000000)::int8";
    let statement = client.prepare(sql).await?;
    let mut best: Option<Offset> = None;
    for _ in 0..CLOCK_TRIPS {
        let sent = clock.at();
        let theirs: i64 = client.query_one(&statement, &[]).await?.try_get(0)?;
        let trip = (sent, clock.at());
        let ours_us = |at| clock.wall(at).as_microsecond();
        best = Some(Offset::of_trip(trip, theirs, ours_us).or_closer(best));
    }
    Ok(best.unwrap_or(Offset {
        us: 0,
        error_us: i64::from(i32::MAX),
    }))
}

fn unusable(error: &Error) -> Untouched {
    if error.is_no_way() {
        let next = "run the check where clients run, open the way, or --observe-from INSTANCE";
        let (id, words) = ("address-unreachable", error.to_string());
        return Judgement::new(Verdict::MissingTool, id, words, next).into();
    }
    let reason_id = match error.kind() {
        Kind::Credentials => "monitor-credentials-refused",
        Kind::Tls => "monitor-tls-refused",
        _ => "monitor-unreachable",
    };
    let next = "see docs/runbooks/pg-failover-check.md";
    Judgement::new(Verdict::Refused, reason_id, error.to_string(), next).into()
}

fn not_a_monitor(at: &Target, words: &str) -> Untouched {
    let reason = format!("{at} answers, but not as a pg_auto_failover monitor: {words}");
    let next = "check PGAF_MONITOR_URI: role autoctl_node, database pg_auto_failover";
    Judgement::new(Verdict::Refused, "not-a-monitor", reason, next).into()
}
