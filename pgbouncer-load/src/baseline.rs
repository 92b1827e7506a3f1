//! What was found before the load: whether everything answers, and whether there is room for as many
//! clients as were asked for. An unhealthy one ends the run untouched.

pub mod console;
mod tables;

use std::time::Duration;

use veza_probe::postgres::{Error, Kind, Session};
use veza_probe::report::{Condition, Untouched};
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::{Args, Mode};
use crate::targets::{Access, Targets, UNREACHABLE, missing};
use console::{Console, Row, rows};
pub use tables::Tables;

/// The oldest pgbench that says how many transactions failed.
const OLDEST: u32 = 15;

/// What pgbench opens beside its clients' connections.
const OWN_FILES: u64 = 16;

/// What was found.
pub struct Baseline {
    /// Versions, sizes and limits.
    pub conditions: Vec<Condition>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What is to be done with the tables.
    pub tables: Tables,
    /// Clients of our own database and user that were there before.
    pub clients_before: u64,
}

/// Looks at everything that the load needs.
///
/// # Errors
/// Unreachable, refused, missing tool or inconclusive: nothing was loaded.
pub async fn measure(targets: &Targets, args: &Args) -> Result<Baseline, Untouched> {
    let mut conditions = conditions(args);
    let mut notes = Vec::new();
    let version = pgbench_version(targets).await?;
    push(
        &mut conditions,
        "pgbench",
        format!("{version}, on {}", targets.place.told()),
    );
    let session = console::open(&targets.pooler).await;
    let session = session.map_err(|e| unreachable("through the pooler", &e))?;
    let opened = Console::open(&targets.console).await;
    let console = opened.map_err(|e| unreachable("the admin console", &e))?;
    let pooler = Pooler::ask(&console, targets).await?;
    pooler.told(&mut conditions);
    push(
        &mut conditions,
        "client's TLS",
        targets.pooler.tls.describe(),
    );
    server(&session, &mut conditions).await?;
    pooler.has_room(args)?;
    pooler.knows(args)?;
    files(targets, args, &mut conditions).await?;
    if let Some(primary) = &targets.primary {
        direct(primary, args, &mut conditions).await?;
    }
    let tables = tables::look(&session, args, targets.is_lab()).await?;
    let scale = match tables {
        Tables::There(scale) => Some(scale),
        Tables::Make => Some(args.scale.into()),
        Tables::NotNeeded => None,
    };
    if let Some(scale) = scale {
        push(&mut conditions, "scale", scale.to_string());
        if scale < u64::from(args.clients) && args.scripts.is_empty() {
            notes.push(format!(
                "scale {scale} with {} clients: in pgbench's TPC-B they also wait for each other's row \
                 locks ({scale} branches), so latencies are not the pooler's alone",
                args.clients
            ));
        }
    }
    notes.extend(targets.pooler.login.warnings.iter().cloned());
    if targets.pooler_in.is_none() {
        notes.push(
            "the pooler's log was not read: no Incus instance of the project has its address"
                .into(),
        );
    }
    Ok(Baseline {
        conditions,
        notes,
        tables,
        clients_before: pooler.own_clients.saturating_sub(1),
    })
}

/// A refusal.
pub fn refused(reason_id: &str, reason: impl Into<String>) -> Untouched {
    let next = "docs/runbooks/pgbouncer-load.md";
    Judgement::new(Verdict::Refused, reason_id, reason, next).into()
}

fn push(conditions: &mut Vec<Condition>, name: &str, value: String) {
    conditions.push(Condition {
        name: name.to_owned(),
        value,
    });
}

/// What was asked for: whatever differs here makes two runs incomparable.
fn conditions(args: &Args) -> Vec<Condition> {
    let mut all = Vec::new();
    push(&mut all, "version", env!("CARGO_PKG_VERSION").to_owned());
    let load = format!(
        "{} clients, {} threads, {} s, {} protocol",
        args.clients,
        args.threads,
        args.seconds,
        args.mode.word()
    );
    push(&mut all, "load", load);
    let scripts = args.scripts.iter().map(|path| path.display().to_string());
    let scripts: Vec<String> = scripts.collect();
    let what = match scripts.is_empty() {
        true => "pgbench's TPC-B".to_owned(),
        false => scripts.join(", "),
    };
    push(&mut all, "transaction", what);
    if let Some(rate) = args.rate {
        push(&mut all, "rate", format!("{rate} /s"));
    }
    if args.reconnect {
        push(
            &mut all,
            "connections",
            "a new one for each transaction".to_owned(),
        );
    }
    all
}

async fn pgbench_version(targets: &Targets) -> Result<String, Untouched> {
    let ran = targets
        .place
        .sh("\"$1\" --version", &[&targets.place.pgbench()])
        .await;
    let ran = ran.map_err(|words| missing("no-pgbench", words, "pgbench --version"))?;
    let text = ran.stdout.trim().to_owned();
    let number = text.strip_prefix("pgbench (PostgreSQL) ").and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let said = |reason: String| {
        let next = "install a pgbench of PostgreSQL 15 or newer, or --in INSTANCE";
        let id = "pgbench-unknown";
        Err(Judgement::new(Verdict::Inconclusive, id, reason, next).into())
    };
    match number {
        Some(major) if major >= OLDEST => {
            let version = text.strip_prefix("pgbench (PostgreSQL) ").unwrap_or(&text);
            Ok(version.to_owned())
        }
        Some(major) => said(format!(
            "pgbench on {} is of PostgreSQL {major}, which does not say how many transactions failed",
            targets.place.told()
        )),
        None => said(format!(
            "what calls itself pgbench on {} answers --version with {:?} (exit code {})",
            targets.place.told(),
            text.chars().take(200).collect::<String>(),
            ran.code
        )),
    }
}

/// What a connection that was not made comes to.
fn unreachable(what: &str, error: &Error) -> Untouched {
    let reason = format!("{what}: {error}");
    // PgBouncer has one SQLSTATE, 08P01, for all that it says itself: only its words tell them apart.
    let says = |words: &[&str]| words.iter().any(|part| reason.contains(part));
    let kind = match error.kind() {
        Kind::Server
            if says(&[
                "SASL authentication failed",
                "password authentication failed",
            ]) =>
        {
            Kind::Credentials
        }
        Kind::Server if says(&["no more connections allowed"]) => Kind::Full,
        other => other,
    };
    let (id, next) = match kind {
        Kind::Credentials => (
            "credentials-refused",
            "correct the password's variable, its file, or PGPASSFILE",
        ),
        Kind::Full => return refused("pooler-full", reason),
        _ => (UNREACHABLE, "docs/runbooks/pgbouncer-load.md"),
    };
    Judgement::new(Verdict::Refused, id, reason, next).into()
}

/// What the pooler says of itself.
struct Pooler {
    version: String,
    config: Vec<Row>,
    dbname: String,
    pool_mode: String,
    pool_size: String,
    used_clients: u64,
    own_clients: u64,
    waiting: Vec<String>,
}

impl Pooler {
    async fn ask(console: &Console, targets: &Targets) -> Result<Pooler, Untouched> {
        let told = |e: Error| refused("console-unreadable", format!("the admin console: {e}"));
        let show = async |what: &str| console.show(what).await.map_err(told);
        let login = &targets.pooler.login;
        let version = show("VERSION").await?;
        let version = version.first().and_then(|row| row.text("version"));
        let config = show("CONFIG").await?;
        let lists = show("LISTS").await?;
        let used = lists
            .iter()
            .find(|row| row.text("list") == Some("used_clients"));
        let pools = show("POOLS").await?;
        let own = pools
            .iter()
            .find(|row| is_pool(row, &login.dbname, &login.user));
        let databases = show("DATABASES").await?;
        let database = databases
            .iter()
            .find(|row| row.text("name") == Some(&login.dbname));
        let text =
            |row: Option<&Row>, name| row.and_then(|r| r.text(name)).unwrap_or("?").to_owned();
        Ok(Pooler {
            version: version
                .unwrap_or("PgBouncer of an unknown version")
                .to_owned(),
            dbname: login.dbname.clone(),
            pool_mode: text(own, "pool_mode"),
            pool_size: text(database, "pool_size"),
            used_clients: used.map_or(0, |row| row.number("items")),
            own_clients: own.map_or(0, clients),
            waiting: waiting(&pools),
            config,
        })
    }

    fn setting(&self, name: &str) -> Option<&str> {
        let found = self.config.iter().find(|row| row.text("key") == Some(name));
        found.and_then(|row| row.text("value"))
    }

    fn told(&self, conditions: &mut Vec<Condition>) {
        push(conditions, "PgBouncer", self.version.clone());
        let pool = format!(
            "{}, {} server connections for {}, {} in reserve",
            self.pool_mode,
            self.pool_size,
            self.dbname,
            self.setting("reserve_pool_size").unwrap_or("?")
        );
        push(conditions, "pool", pool);
        for name in [
            "max_client_conn",
            "query_wait_timeout",
            "max_prepared_statements",
        ] {
            if let Some(value) = self.setting(name) {
                push(conditions, name, value.to_owned());
            }
        }
    }

    /// Whether as many clients fit as were asked for, beside those of others.
    fn has_room(&self, args: &Args) -> Result<(), Untouched> {
        if let Some(first) = self.waiting.first() {
            let reason = format!("somebody waits for a connection already: {first}");
            return Err(refused("others-wait", reason));
        }
        let most: u64 = self
            .setting("max_client_conn")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        // Our own two are among the used ones; one of them stays.
        let used = self.used_clients.saturating_sub(1);
        let free = most.saturating_sub(used);
        if u64::from(args.clients) <= free {
            return Ok(());
        }
        let reason = format!(
            "{} clients do not fit: the pooler takes max_client_conn = {most}, {used} of these places \
             are taken, {free} are free",
            args.clients
        );
        Err(refused("not-enough-places", reason))
    }

    /// Whether it can do what the mode needs.
    fn knows(&self, args: &Args) -> Result<(), Untouched> {
        let none = self
            .setting("max_prepared_statements")
            .is_none_or(|value| value == "0");
        if args.mode == Mode::Prepared && self.pool_mode != "session" && none {
            let reason = format!(
                "--mode prepared: the pooler's mode is {} and max_prepared_statements is 0 or unknown to \
                 it, so a session's prepared statements are not there in the next transaction",
                self.pool_mode
            );
            return Err(refused("no-prepared-statements", reason));
        }
        Ok(())
    }
}

/// Whether a row of SHOW POOLS is that of a database and user.
pub fn is_pool(row: &Row, dbname: &str, user: &str) -> bool {
    row.text("database") == Some(dbname) && row.text("user") == Some(user)
}

/// All clients of a pool; one that has nothing to do counts as active there.
pub fn clients(row: &Row) -> u64 {
    row.number("cl_active") + row.number("cl_waiting")
}

/// Whether somebody waits in a pool, and has for a second: for moments one always does while clients
/// come.
pub fn waits(row: &Row) -> bool {
    row.number("cl_waiting") > 0 && row.number("maxwait") > 0
}

/// Pools in which somebody waits.
fn waiting(pools: &[Row]) -> Vec<String> {
    let waits = pools.iter().filter(|row| waits(row));
    let told = waits.map(|row| {
        let name = |column| row.text(column).unwrap_or("?");
        let (count, oldest) = (row.number("cl_waiting"), row.number("maxwait"));
        format!(
            "{count} clients of {} in {}, the longest for {oldest} s",
            name("user"),
            name("database")
        )
    });
    told.collect()
}

async fn server(session: &Session, conditions: &mut Vec<Condition>) -> Result<(), Untouched> {
    let sql = "select current_setting('server_version') as version, \
               current_setting('synchronous_commit') as commit";
    let answer = rows(session, sql).await;
    let answer = answer.map_err(|e| unreachable("through the pooler", &e))?;
    let row = answer.first().cloned().unwrap_or_default();
    for (name, column) in [("PostgreSQL", "version"), ("synchronous_commit", "commit")] {
        push(conditions, name, row.text(column).unwrap_or("?").to_owned());
    }
    Ok(())
}

/// Whether both ends may open as many files as clients were asked for.
async fn files(
    targets: &Targets,
    args: &Args,
    conditions: &mut Vec<Condition>,
) -> Result<(), Untouched> {
    let asked = u64::from(args.clients);
    let enough =
        |limit: &str, needed: u64| limit.parse::<u64>().map_or(true, |limit| limit >= needed);
    let ran = targets.place.sh("ulimit -Hn", &[]).await;
    let here = ran
        .map(|ran| ran.stdout.trim().to_owned())
        .unwrap_or_default();
    if !enough(&here, asked + OWN_FILES) {
        let reason = format!(
            "{asked} clients need {} open files, and pgbench on {} may have {here} (ulimit -Hn)",
            asked + OWN_FILES,
            targets.place.told()
        );
        return Err(refused("not-enough-descriptors", reason));
    }
    push(conditions, "open files of pgbench", here);
    let Some((incus, name)) = targets.pooler_instance() else {
        return Ok(());
    };
    let script = "p=$(pidof -s pgbouncer) && sed -n 's/^Max open files *\\([^ ]*\\).*/\\1/p' /proc/$p/limits";
    let argv = ["sh", "-c", script];
    let output = incus.exec(name, &argv, Duration::from_secs(10)).await;
    let there = output.map(|output| output.stdout.trim().to_owned());
    let there = there.unwrap_or_default();
    // Each client, and a server for each that is served at once.
    if !enough(&there, asked + OWN_FILES) {
        let reason = format!(
            "{asked} clients need {} open files, and PgBouncer in {name} may have {there} \
             (LimitNOFILE)",
            asked + OWN_FILES
        );
        return Err(refused("not-enough-descriptors", reason));
    }
    push(conditions, "open files of PgBouncer", there);
    Ok(())
}

/// Whether the primary takes as many clients without the pooler.
async fn direct(
    primary: &Access,
    args: &Args,
    conditions: &mut Vec<Condition>,
) -> Result<(), Untouched> {
    let session = console::open(primary).await;
    let session = session.map_err(|e| refused("primary-unreachable", format!("--direct: {e}")))?;
    let sql = "select current_setting('max_connections')::int - \
               current_setting('superuser_reserved_connections')::int as most, \
               (select count(*) from pg_stat_activity where backend_type = 'client backend') as used";
    let answer = rows(&session, sql).await;
    let answer = answer.map_err(|e| refused("primary-unreachable", format!("--direct: {e}")))?;
    let row = answer.first().cloned().unwrap_or_default();
    // Ours is one of the used ones, and goes.
    let (most, used) = (row.number("most"), row.number("used").saturating_sub(1));
    let free = most.saturating_sub(used);
    push(conditions, "connections of the primary", most.to_string());
    if u64::from(args.clients) <= free {
        return Ok(());
    }
    let reason = format!(
        "--direct: {} clients do not fit: the primary takes {most} connections, {used} are in use, \
         {free} are free",
        args.clients
    );
    Err(refused("not-enough-connections", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_wait_for_a_moment_is_not_to_wait() {
        let row = |waiting, longest| Row::of(&[("cl_waiting", waiting), ("maxwait", longest)]);
        assert!(waits(&row("1", "1")));
        assert!(!waits(&row("9", "0")) && !waits(&row("0", "0")));
    }

    #[test]
    fn who_waits_is_told_and_idle_clients_count() {
        let idle = [
            ("database", "d"),
            ("user", "u"),
            ("cl_active", "4"),
            ("cl_waiting", "0"),
        ];
        let row = Row::of(&idle);
        assert!(is_pool(&row, "d", "u") && !is_pool(&row, "d", "v"));
        assert_eq!(clients(&row), 4);
        assert!(waiting(std::slice::from_ref(&row)).is_empty());
        let busy = [
            ("database", "d"),
            ("user", "u"),
            ("cl_waiting", "3"),
            ("maxwait", "7"),
        ];
        let told = waiting(&[row, Row::of(&busy)]);
        assert_eq!(told, ["3 clients of u in d, the longest for 7 s"]);
    }
}
