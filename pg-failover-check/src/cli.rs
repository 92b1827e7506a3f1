//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use veza_probe::arguments::{self, Output, Said, project_name, remote_name};
use veza_probe::fault::Kind;
use veza_probe::instance::InstanceName;
use veza_probe::postgres::Conninfo;
use veza_probe::prober::Shape;
use veza_probe::secret::Secret;
use veza_probe::verdict::{EXIT_CODES, Judgement, Verdict};
use veza_probe::window::Window;

use values::{milliseconds, node_instance, seconds};

/// The check's name: in reports, in records, and as a program.
pub const CHECK: &str = "pg-failover-check";

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
    /// The Incus project that holds the formation.
    #[arg(long, env = "VEZA_INCUS_PROJECT", value_name = "NAME", value_parser = project_name)]
    pub project: String,

    /// The Incus that holds the project: an https remote of Incus' own client (`incus remote list`), whose
    /// certificates are used. Without it, the Incus of this host. Nothing is broken over a remote without a
    /// timer on its host; see docs/remote.md.
    #[arg(long, env = "VEZA_INCUS_REMOTE", value_name = "NAME", value_parser = remote_name)]
    pub remote: Option<String>,

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

    /// How long writes must go on succeeding before service counts as back, in seconds.
    #[arg(long, env = "VEZA_SETTLE_SECONDS", value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub settle: Duration,

    /// The longest that the primary stays broken, in seconds; then it is healed, whatever the client
    /// sees. Default: 1.5 times the RTO target.
    #[arg(long, env = "VEZA_MAX_FAULT_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    pub max_fault: Option<Duration>,

    /// How long the client is watched before the fault, in seconds.
    #[arg(long, env = "VEZA_WARM_UP_SECONDS", value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub warm_up: Duration,

    /// The distance of two probes, in milliseconds.
    #[arg(long, env = "VEZA_PROBE_SPACING_MS", value_name = "MS", default_value = "20", value_parser = milliseconds)]
    pub spacing: Duration,

    /// The client's deadline for one probe, in milliseconds.
    #[arg(long, env = "VEZA_PROBE_LIMIT_MS", value_name = "MS", default_value = "1000", value_parser = milliseconds)]
    pub limit: Duration,

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

    /// The hours in UTC in which the drill must begin and end, healing and redundancy included.
    #[arg(long, env = "VEZA_WINDOW", value_name = "HH:MM-HH:MM")]
    pub window: Option<Window>,

    /// Outside a lab: the system that may be broken, as `--dry-run` names it. Without it a person on a
    /// terminal is asked.
    #[arg(long, value_name = "SYSTEM")]
    pub confirm: Option<String>,

    /// Outside a lab: breaks without asking, for a schedule that has been agreed on.
    #[arg(long)]
    pub yes: bool,

    /// Does everything up to the fault and prints the plan.
    #[arg(long)]
    pub dry_run: bool,

    /// Breaks nothing: mends what an earlier drill left broken, by its record in the state folder
    /// (VEZA_STATE_DIR) or by the key user.veza.fault of the instances, and says what it found.
    #[arg(long, conflicts_with = "dry_run")]
    pub recover: bool,

    /// With --recover: only what has outlived its time, for a timer that runs beside drills.
    #[arg(long, requires = "recover")]
    pub expired: bool,

    /// With --recover: also what a drill on another host may still be at.
    #[arg(long, requires = "recover")]
    pub take_over: bool,

    /// Where the result goes.
    #[command(flatten)]
    pub output: Output,
}

/// What stands between clients and nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// PgBouncer, in any pooling mode.
    Pgbouncer,
}

/// What came of the arguments.
#[derive(Debug)]
pub enum Parsed {
    /// Arguments to run with.
    Run(Box<Args>),
    /// `--help` or `--version`: the text to print.
    Tell(String),
    /// `--show` or `--compare`: one report, or two.
    Look(Vec<PathBuf>),
    /// Bad arguments or environment values.
    Usage(Judgement),
}

/// Parses arguments and environment.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(looked) = look(&args) {
        return looked;
    }
    let matches = match Args::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return told(&error),
    };
    let mut args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => return told(&error),
    };
    match args.complete(|id| matches.value_source(id) == Some(ValueSource::CommandLine)) {
        Ok(()) => Parsed::Run(Box::new(args)),
        Err(words) => Parsed::Usage(usage(words)),
    }
}

/// Arguments that only look at reports, for which nothing of a run is needed.
#[derive(Debug, Parser)]
#[command(name = "pg-failover-check", disable_help_flag = true)]
struct Look {
    #[arg(long, conflicts_with = "compare")]
    show: Option<PathBuf>,
    #[arg(long, num_args = 2)]
    compare: Option<Vec<PathBuf>>,
}

fn look(args: &[OsString]) -> Option<Parsed> {
    let is_it = |arg: &OsString| {
        let text = arg.to_str().unwrap_or_default();
        let name = text.split('=').next().unwrap_or_default();
        name == "--show" || name == "--compare"
    };
    if !args.iter().any(is_it) {
        return None;
    }
    Some(match Look::try_parse_from(args) {
        Ok(Look { show, compare }) => {
            let paths = compare.or_else(|| show.map(|path| vec![path]));
            Parsed::Look(paths.unwrap_or_default())
        }
        Err(error) => told(&error),
    })
}

/// The variables that this check takes from its environment, beside those that every tool does.
pub fn variables() -> Vec<String> {
    let passwords = ["PGAF_MONITOR", "PGAF_FORMATION", "DATABASE"];
    arguments::variables(&Args::command(), &passwords)
}

/// clap's error as ours.
fn told(error: &clap::Error) -> Parsed {
    match Said::from(error) {
        Said::Asked(text) => Parsed::Tell(text),
        Said::Wrong(words) => Parsed::Usage(usage(words)),
    }
}

/// A judgement on bad arguments.
pub fn usage(words: impl Into<String>) -> Judgement {
    Judgement::new(
        Verdict::Usage,
        "bad-arguments",
        words,
        "pg-failover-check --help",
    )
}

impl Args {
    /// Reads what clap takes as it is, so that a bad value is never repeated in a message.
    fn complete(&mut self, typed: impl Fn(&str) -> bool) -> Result<(), String> {
        self.shape()?;
        self.output.check()?;
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

    /// The shape of the probes.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn shape(&self) -> Result<Shape, String> {
        let shape = Shape::default()
            .with_spacing(self.spacing)
            .map_err(|e| e.to_string())?;
        shape.with_limit(self.limit).map_err(|e| e.to_string())
    }

    /// The longest that the primary stays broken.
    pub fn max_fault(&self) -> Duration {
        self.max_fault
            .unwrap_or_else(|| self.rto_target.mul_f64(1.5))
    }

    /// This check's command, as far as its Incus.
    pub fn so_far(&self) -> String {
        let remote = self.remote.as_ref().map(|name| format!(" --remote {name}"));
        let remote = remote.unwrap_or_default();
        format!("{CHECK}{remote} --project {}", self.project)
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
    use super::*;

    fn parsed(args: &[&str]) -> Parsed {
        let all = ["pg-failover-check", "--project", "p"].iter().chain(args);
        parse(all.map(OsString::from))
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
        assert_eq!(args.max_fault(), Duration::from_secs(15));
        let Parsed::Run(args) = parsed(&["--max-fault", "7"]) else {
            panic!()
        };
        assert_eq!(args.max_fault(), Duration::from_secs(7));
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
