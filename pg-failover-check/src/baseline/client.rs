//! The client's side of the baseline: every node reached, the postmasters' start times, and one real
//! write that leaves nothing behind.

use std::time::Duration;

use veza_probe::clock::{Clock, within};
use veza_probe::instance::InstanceName;
use veza_probe::postgres::{self, Access, Error, Kind, Session, Target, writable};
use veza_probe::report::{Condition, Untouched};
use veza_probe::verdict::{Judgement, Verdict};

use super::formation::Node;
use super::monitor::condition;
use super::{Member, refused};

/// How long a node may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Logs in at every node as the client does.
///
/// # Errors
/// Missing tool when a node that the monitor calls healthy can't be reached from here: the vantage
/// is wrong; refused when it refuses the credentials or does not answer as it should.
pub async fn look(
    clock: &Clock,
    client: &Access,
    placed: Vec<(Node, InstanceName, Target)>,
) -> Result<Vec<Member>, Untouched> {
    let mut members = Vec::new();
    for (node, instance, at) in placed {
        let session = open(client, &at).await?;
        let started = postmaster_started(&session).await;
        let postmaster_started_us =
            started.map_err(|e| refused("node-unreadable", e.to_string()))?;
        let path_us = path_delay(clock, &at).await;
        members.push(Member {
            node,
            instance,
            at,
            postmaster_started_us,
            path_us,
        });
    }
    Ok(members)
}

async fn open(client: &Access, at: &Target) -> Result<Session, Untouched> {
    let opened = postgres::connect(at, &client.login, &client.tls, LIMIT).await;
    opened.map_err(|error| match error.kind() {
        Kind::Unreachable | Kind::Deadline => {
            let reason = format!(
                "{error}; the monitor calls this node healthy, so it is the way \
                                  from here that is closed"
            );
            let next = "run the check where clients run, open the way, or --observe-from INSTANCE";
            Judgement::new(Verdict::MissingTool, "address-unreachable", reason, next).into()
        }
        Kind::Credentials => refused("client-credentials-refused", error.to_string()),
        Kind::Tls => refused("client-tls-refused", error.to_string()),
        _ => refused("client-cannot-connect", error.to_string()),
    })
}

/// How long a TCP handshake takes from where it is observed: the fastest of three, in microseconds.
async fn path_delay(clock: &Clock, at: &Target) -> Option<i64> {
    let mut fastest = None;
    for _ in 0..3 {
        let handshake = at.way.handshake_us(clock, at.address);
        if let Ok(Ok(took_us)) = within(LIMIT, handshake).await {
            fastest = Some(fastest.map_or(took_us, |f: i64| f.min(took_us)));
        }
    }
    fastest
}

/// When the postmaster behind a session was started, in microseconds of Unix time.
///
/// # Errors
/// As the query, or when it takes too long.
pub async fn postmaster_started(session: &Session) -> Result<i64, Error> {
    let sql = "select (extract(epoch from pg_postmaster_start_time()) * 1000000)::int8";
    let tried = "reading pg_postmaster_start_time()";
    match within(LIMIT, session.client.query_one(sql, &[])).await {
        Ok(row) => row
            .and_then(|row| row.try_get(0))
            .map_err(|e| Error::query(tried, &e)),
        Err(_) => Err(Error::Deadline {
            tried: tried.to_owned(),
            step: postgres::Step::Query,
            limit: LIMIT,
        }),
    }
}

/// One real write on the primary, rolled back: the client may write, and may make the schema that the
/// heartbeat needs.
///
/// # Errors
/// Refused, with the server's own words.
pub async fn write_once(
    clock: &Clock,
    client: &Access,
    member: &Member,
    read_only: bool,
) -> Result<(), Untouched> {
    let session = open(client, &member.at).await?;
    let taken = within(LIMIT, writable(&session.client)).await;
    let taken = taken.map_err(|e| refused("client-cannot-write", e.to_string()))?;
    if !taken.map_err(|e| refused("client-cannot-write", e.to_string()))? {
        let reason = format!(
            "the primary {} refuses writes to database {} (transaction_read_only is on)",
            member.at, client.login.dbname
        );
        return Err(refused("client-cannot-write", reason));
    }
    if read_only {
        return Ok(());
    }
    let schema = format!("veza_drill_try_{}", clock.wall(clock.at()).as_microsecond());
    let sql = format!(
        "begin; create schema {schema}; create table {schema}.heartbeat (number int8); \
         insert into {schema}.heartbeat values (0); rollback"
    );
    let tried = format!(
        "a write as {} in {} on {}",
        client.login.user, client.login.dbname, member.at
    );
    match within(LIMIT, session.client.batch_execute(&sql)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(refused(
            "client-cannot-write",
            Error::query(tried, &e).to_string(),
        )),
        Err(e) => Err(refused("client-cannot-write", format!("{tried}: {e}"))),
    }
}

/// Asks through the pooler whether a write would be taken.
///
/// # Errors
/// Missing tool when the pooler can't be reached from here; refused when it leads to no primary.
pub async fn through_pooler(access: &Access, at: &Target) -> Result<(), Untouched> {
    let opened = postgres::connect(at, &access.login, &access.tls, LIMIT).await;
    let session = opened.map_err(|error| match error.kind() {
        Kind::Unreachable => {
            let next = "run the check where clients run, or start the pooler";
            let words = error.to_string();
            Judgement::new(Verdict::MissingTool, "pooler-unreachable", words, next).into()
        }
        _ => refused("pooler-refuses", error.to_string()),
    })?;
    match within(LIMIT, writable(&session.client)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => {
            let words = format!("the pooler {at} leads to a node that takes no writes");
            Err(refused("pooler-not-at-primary", words))
        }
        Ok(Err(error)) => Err(refused("pooler-refuses", error.to_string())),
        Err(elapsed) => {
            let words = format!("the pooler {at} gives no server: {elapsed}");
            Err(refused("pooler-refuses", words))
        }
    }
}

/// Versions and timers of the primary, and how far away each node is.
pub async fn conditions(client: &Access, member: &Member) -> Vec<Condition> {
    let mut conditions = vec![condition("client's TLS", &client.tls.describe())];
    let Ok(session) = open(client, &member.at).await else {
        return conditions;
    };
    let sql = "select name, setting || coalesce(' ' || unit, '') from pg_settings where name in \
               ('server_version', 'wal_sender_timeout', 'wal_receiver_timeout', \
               'synchronous_standby_names', 'synchronous_commit', 'tcp_user_timeout') order by 1";
    if let Ok(Ok(rows)) = within(LIMIT, session.client.query(sql, &[])).await {
        conditions.extend(rows.iter().filter_map(|row| {
            let (name, value): (String, String) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
            Some(condition(&format!("primary's {name}"), &value))
        }));
    }
    conditions
}
