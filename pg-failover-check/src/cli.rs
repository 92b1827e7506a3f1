//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use veza_probe::arguments::{DrillArgs, node_instance, seconds};
use veza_probe::fault::Kind;
use veza_probe::instance::InstanceName;
use veza_probe::postgres::Conninfo;
use veza_probe::secret::Secret;
use veza_probe::verdict::EXIT_CODES;

/// Breaks the primary of a pg_auto_failover formation, measures how long a client could not write,
/// puts the node back, waits until the formation is whole, and reads what became of the writes.
///
/// Gates:
///   rto         from the last write that succeeded before the outage to the first one after it,
///               as a client saw it; at most --rto-target (60 s)
///   redundancy  from the moment healing of the old primary began until every node is healthy and
///               one standby is synchronous again; at most --redundancy-target (120 s)
///   lost-writes acknowledged rows that are not there at the end; at most --max-lost-writes (0)
///   phantom-writes
///               rows that were refused and are there all the same, or are there twice; none
///   two-primaries
///               writes acknowledged by one node while another one acknowledged writes, too; none
///
/// Refuses (1) before anything is touched when the formation is not whole, when the client can't
/// write, when the live timers can't meet the target, when nobody has allowed drills (key
/// user.veza.drill of the Incus project or instance), or when an earlier drill was not undone.
#[derive(Debug, Parser)]
#[command(name = "pg-failover-check", version, verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Args {
    /// The monitor: a URI without password (the variable's may have one). Without it, role
    /// autoctl_node and database pg_auto_failover on the instance named by --monitor. The password:
    /// PGAF_MONITOR_PASSWORD, PGAF_MONITOR_PASSWORD_FILE, or PGPASSFILE.
    #[arg(
        long,
        env = "PGAF_MONITOR_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    monitor_uri: Option<Secret>,

    /// [`Args::monitor_uri`], read.
    #[arg(skip)]
    pub monitor_conninfo: Option<Conninfo>,

    /// The instance that the monitor runs in, where no URI is given.
    #[arg(
        long,
        env = "PGAF_MONITOR",
        value_name = "INSTANCE",
        default_value = "pgaf-monitor"
    )]
    pub monitor: InstanceName,

    /// The client's way to the formation: a URI without password (the variable's may have one). Its
    /// hosts are probed; without it, the monitor's nodes are, with the formation's database and
    /// the user that PGUSER names. The password: PGAF_FORMATION_PASSWORD,
    /// PGAF_FORMATION_PASSWORD_FILE, or PGPASSFILE.
    #[arg(
        long,
        env = "PGAF_FORMATION_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    formation_uri: Option<Secret>,

    /// [`Args::formation_uri`], read.
    #[arg(skip)]
    pub formation_conninfo: Option<Conninfo>,

    /// The way that clients take to the formation, where they don't go to its nodes: `pgbouncer`, at
    /// --database-url. It is probed and judged then; the nodes are asked beside it, and when the pooler
    /// had followed is a phase of its own.
    #[arg(long, env = "PGAF_VIA", value_name = "POOLER")]
    pub via: Option<Via>,

    /// With --via: the pooler, a URI without password (the variable's may have one). The password:
    /// DATABASE_PASSWORD, DATABASE_PASSWORD_FILE, or PGPASSFILE.
    #[arg(long, env = "DATABASE_URL", value_name = "URI", hide_env_values = true)]
    database_url: Option<Secret>,

    /// [`Args::database_url`], read; only with --via.
    #[arg(skip)]
    pub database_conninfo: Option<Conninfo>,

    /// The formation, as the monitor names it.
    #[arg(
        long,
        env = "PGAF_FORMATION",
        value_name = "NAME",
        default_value = "default"
    )]
    pub formation: String,

    /// The group within the formation.
    #[arg(long, env = "PGAF_GROUP", value_name = "NUMBER", default_value_t = 0)]
    pub group: i32,

    /// Which instance a node runs in, where its address can't tell. May be repeated.
    #[arg(long = "instance", value_name = "NODE=NAME", value_parser = node_instance)]
    pub instances: Vec<(String, InstanceName)>,

    /// What is done to the primary: `stop` (power cut), `freeze` (a host that hangs), `partition` (its
    /// link vanishes), `kill:UNIT` (a crash that stays), `hold:UNIT` (stopped cleanly and held down),
    /// `kill-restart:UNIT` (a crash that systemd mends: times a restart, not a failover). `none` breaks
    /// nothing and must show no outage.
    #[arg(long, env = "PGAF_FAULT", value_name = "KIND", default_value = "stop")]
    pub fault: Kind,

    /// Gate rto: the longest that a client may be unable to write, in seconds.
    #[arg(long, env = "RTO_TARGET_SECONDS", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub rto_target: Duration,

    /// Gate redundancy: the longest until the formation is whole again after the old primary was
    /// started, in seconds.
    #[arg(long, env = "REDUNDANCY_TARGET_SECONDS", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub redundancy_target: Duration,

    /// Gate lost-writes: how many acknowledged rows may be missing at the end.
    #[arg(
        long,
        env = "PGAF_MAX_LOST_WRITES",
        value_name = "NUMBER",
        default_value_t = 0
    )]
    pub max_lost_writes: u64,

    /// Where the network of the service is not reached from here: observes from inside this running
    /// instance. This program is put there for as long as it runs; it must be no node of the formation.
    #[arg(long, env = "VEZA_OBSERVE_FROM", value_name = "INSTANCE")]
    pub observe_from: Option<InstanceName>,

    /// Probes without writing: asks each connection whether it would take a write. Says nothing about
    /// lost writes or two primaries: their gates are off.
    #[arg(long, env = "PGAF_READ_ONLY")]
    pub read_only: bool,

    /// Runs even when the live timers can't meet the RTO target.
    #[arg(long, env = "PGAF_ALLOW_INFEASIBLE")]
    pub allow_infeasible: bool,

    /// Gives the roles back afterwards, by a switchover once the formation is whole.
    #[arg(long, env = "PGAF_SWITCH_BACK")]
    pub switch_back: bool,

    /// What every drill has.
    #[command(flatten)]
    pub drill: DrillArgs,
}

/// What stands between clients and nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// PgBouncer, in any pooling mode.
    Pgbouncer,
}

impl Args {
    /// Reads what clap takes as it is, so that a bad value is never repeated in a message.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn read_uris(&mut self, typed: &dyn Fn(&str) -> bool) -> Result<(), String> {
        let given = |uri: Option<&Secret>, names, id| {
            let read = |uri| Conninfo::given(uri, names, typed(id));
            uri.map(read).transpose()
        };
        let names = ("--monitor-uri", "PGAF_MONITOR_URI");
        self.monitor_conninfo = given(self.monitor_uri.as_ref(), names, "monitor_uri")?;
        let names = ("--formation-uri", "PGAF_FORMATION_URI");
        self.formation_conninfo = given(self.formation_uri.as_ref(), names, "formation_uri")?;
        if self.via.is_some() {
            let names = ("--database-url", "DATABASE_URL");
            self.database_conninfo = given(self.database_url.as_ref(), names, "database_url")?;
            if self.database_conninfo.is_none() {
                return Err("--via needs the pooler: set DATABASE_URL or --database-url".into());
            }
        }
        Ok(())
    }

    /// The instance chosen for a node with `--instance`.
    pub fn chosen_instance(&self, node: &str) -> Option<&InstanceName> {
        self.instances
            .iter()
            .find(|(name, _)| name == node)
            .map(|(_, instance)| instance)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use veza_probe::drill::{self, Parsed};

    use super::*;

    fn parsed(args: &[&str]) -> Parsed<Args> {
        let all = ["pg-failover-check", "--project", "p"].iter().chain(args);
        drill::parse(all.map(OsString::from))
    }

    fn refused(args: &[&str]) -> String {
        match parsed(args) {
            Parsed::Usage(judgement) => judgement.reason,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn garbage_in_a_flag_is_usage_and_names_the_flag() {
        for (flag, value) in [
            ("--rto-target", "soon"),
            ("--rto-target", "0"),
            ("--rto-target", "-1"),
            ("--rto-target", "NaN"),
            ("--rto-target", "inf"),
            ("--redundancy-target", "1e99"),
            ("--settle", ""),
            ("--spacing", "1.5"),
            ("--limit", "0"),
            ("--fault", "explode"),
            ("--group", "x"),
            ("--instance", "node"),
            ("--instance", "=pg"),
            ("--instance", "a=1b"),
            ("--monitor", "a b"),
            ("--project", "a/b"),
            ("--remote", ""),
            ("--remote", "../lab"),
            ("--remote", "lab:"),
            ("--format", "xml"),
            ("--fault", "kill"),
            ("--fault", "kill:a.timer"),
            ("--max-lost-writes", "-1"),
            ("--window", "22-4"),
            ("--keep", "few"),
            ("--monitor-uri", "mysql://x"),
            ("--formation-uri", "postgres://h/db?nonsense=1"),
        ] {
            let words = refused(&[&format!("{flag}={value}")]);
            assert!(words.contains(flag), "{flag}={value}: {words}");
        }
    }

    #[test]
    fn a_password_in_a_flag_is_refused_and_not_echoed() {
        for flag in ["--monitor-uri", "--formation-uri"] {
            let words = refused(&[flag, "postgres://u:hunter2@h/db"]);
            assert!(
                words.contains(flag) && !words.contains("hunter2"),
                "{words}"
            );
            // Not even when the rest of it is wrong, too.
            let words = refused(&[flag, "postgres://u:hunter2@h/db?nonsense=1"]);
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn the_fault_lasts_at_most_one_and_a_half_targets() {
        let Parsed::Run(args) = parsed(&["--rto-target", "10"]) else {
            panic!()
        };
        assert_eq!(
            args.drill.max_fault(args.rto_target),
            Duration::from_secs(15)
        );
        let Parsed::Run(args) = parsed(&["--max-fault", "7"]) else {
            panic!()
        };
        assert_eq!(
            args.drill.max_fault(args.rto_target),
            Duration::from_secs(7)
        );
    }

    #[test]
    fn help_is_no_error_and_explains_gates_and_codes() {
        let Parsed::Tell(text) = parsed(&["--help"]) else {
            panic!()
        };
        for word in [
            "rto ",
            "redundancy ",
            "lost-writes",
            "two-primaries",
            "--recover",
            "Exit codes:",
            "RTO_TARGET_SECONDS",
            "60",
            "120",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
