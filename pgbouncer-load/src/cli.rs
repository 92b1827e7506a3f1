//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use veza_probe::arguments::{self, Output, Said, project_name, remote_name};
use veza_probe::instance::InstanceName;
use veza_probe::postgres::Conninfo;
use veza_probe::report::{Report, keep};
use veza_probe::secret::Secret;
use veza_probe::verdict::{Judgement, Verdict};
use veza_probe::window::Window;

/// The check's name: in reports and as a program.
pub const CHECK: &str = "pgbouncer-load";

/// The exit codes, for the end of `--help`.
const EXIT_CODES: &str = "Exit codes:
  0    pass: every gate held (also: --dry-run planned, --help, --version)
  1    errors: a gate was missed, or the run was refused before it began
  2    unreachable: the pooler can't be reached, or refuses the credentials
  3    missing tool: no pgbench, or a file, the Incus socket or the project is not there
  4    not undone: pgbench may still run, look now
  5    inconclusive: the run said nothing (pgbench in words that this tool does not know, a limit
       inside the measured interval, others waited)
  64   usage: bad arguments or environment values
  70   internal: a bug of this tool; pgbench was ended
  129, 130, 143
       interrupted by SIGHUP, SIGINT, SIGTERM; pgbench was ended";

/// Loads a PgBouncer with pgbench, watches both, and believes neither of them alone.
///
/// pgbench says `0 failed` of a run in which clients were thrown out. A pass here needs all of: pgbench
/// ended with 0, no transaction failed, no line of error, as many clients as were asked for and as long
/// as was asked for; and at PgBouncer nearly all of these clients seen, and no error in its log.
///
/// Gates:
///   exit-status        of pgbench: 0
///   failed             transactions that failed; at most --max-failed (0)
///   connection-errors  connections that could not be made; at most --max-connection-errors (0)
///   client-errors      clients that gave up in the middle, and other lines of error; none
///   processed          transactions that were done; at least 1
///   clients            that pgbench ran; as many as --clients
///   clients-seen       at the pooler; at least 95 % of --clients
///   duration           of the run; at least --seconds
///   pooler-errors      lines of error in the pooler's log, where Incus can read it; none
///   p99, tps, maxwait  where --p99-max, --tps-min, --maxwait-max ask for them
///   tps-regression     where --against names an earlier report
///
/// Refuses (1) before anything is loaded when the pooler has not as many free places as clients are
/// asked for, when somebody waits for a connection already, when there are other people's tables in the
/// way, and, outside a lab, when the database is not one of pgbench's own.
#[derive(Debug, Parser)]
#[command(name = "pgbouncer-load", version, verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Args {
    /// The Incus project that holds the pooler. Without one its log and its limits are not read.
    #[arg(long, env = "VEZA_INCUS_PROJECT", value_name = "NAME", value_parser = project_name)]
    pub project: Option<String>,

    /// The Incus that holds the project: an https remote of Incus' own client. Without it, the Incus of
    /// this host.
    #[arg(
        long,
        env = "VEZA_INCUS_REMOTE",
        value_name = "NAME",
        requires = "project",
        value_parser = remote_name
    )]
    pub remote: Option<String>,

    /// The way through the pooler: a URI without password (the variable's may have one). The password:
    /// DATABASE_PASSWORD, DATABASE_PASSWORD_FILE, or PGPASSFILE.
    #[arg(long, env = "DATABASE_URL", value_name = "URI", hide_env_values = true)]
    database_url: Option<Secret>,

    /// [`Args::database_url`], read.
    #[arg(skip)]
    pub pooler: Option<Conninfo>,

    /// The pooler's admin console: a URI without password (the variable's may have one). The password:
    /// PGBOUNCER_ADMIN_PASSWORD, PGBOUNCER_ADMIN_PASSWORD_FILE, or PGPASSFILE. A user of stats_users is
    /// enough.
    #[arg(
        long,
        env = "PGBOUNCER_ADMIN_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    admin_uri: Option<Secret>,

    /// [`Args::admin_uri`], read.
    #[arg(skip)]
    pub console: Option<Conninfo>,

    /// Runs the same load without the pooler, too, after each round: what the pooler costs and saves.
    #[arg(long, env = "PGBENCH_DIRECT")]
    pub direct: bool,

    /// With --direct: the way to the primary without the pooler, as --database-url. The password:
    /// PGAF_FORMATION_PASSWORD, PGAF_FORMATION_PASSWORD_FILE, or PGPASSFILE.
    #[arg(
        long,
        env = "PGAF_FORMATION_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    direct_uri: Option<Secret>,

    /// [`Args::direct_uri`], read.
    #[arg(skip)]
    pub primary: Option<Conninfo>,

    /// Runs pgbench in this instance. Without it, on this host, or where it has none in the pooler's
    /// own instance.
    #[arg(
        long = "in",
        env = "PGBENCH_IN",
        value_name = "INSTANCE",
        requires = "project"
    )]
    pub inside: Option<InstanceName>,

    /// How many clients at once.
    #[arg(long, env = "PGBENCH_CLIENTS", value_name = "NUMBER", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,

    /// How long each round takes, in seconds.
    #[arg(long, env = "PGBENCH_SECONDS", value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,

    /// pgbench's threads.
    #[arg(long, env = "PGBENCH_THREADS", value_name = "NUMBER", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,

    /// The scale of pgbench's tables, where they are made.
    #[arg(long, env = "PGBENCH_SCALE", value_name = "NUMBER", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub scale: u32,

    /// How queries are sent.
    #[arg(
        long,
        env = "PGBENCH_MODE",
        value_name = "MODE",
        default_value = "simple"
    )]
    pub mode: Mode,

    /// A script of pgbench's instead of its TPC-B; may be repeated.
    #[arg(long = "script", value_name = "FILE")]
    pub scripts: Vec<PathBuf>,

    /// Transactions per second that are asked for in all; without it as many as go.
    #[arg(long, env = "PGBENCH_RATE", value_name = "TPS", value_parser = positive)]
    pub rate: Option<f64>,

    /// A new connection for each transaction.
    #[arg(long, env = "PGBENCH_RECONNECT")]
    pub reconnect: bool,

    /// How many rounds: their spread is the noise of what was measured.
    #[arg(long, env = "PGBENCH_ROUNDS", value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Makes pgbench's tables anew, whatever is in them.
    #[arg(long)]
    pub init: bool,

    /// Gate failed: how many transactions may fail.
    #[arg(
        long,
        env = "PGBENCH_MAX_FAILED",
        value_name = "NUMBER",
        default_value_t = 0
    )]
    pub max_failed: u64,

    /// Gate connection-errors: how many connections may fail to be made.
    #[arg(
        long,
        env = "PGBENCH_MAX_CONNECTION_ERRORS",
        value_name = "NUMBER",
        default_value_t = 0
    )]
    pub max_connection_errors: u64,

    /// Gate p99: 99 in 100 transactions took no longer, in milliseconds.
    #[arg(long, env = "PGBENCH_P99_MAX_MS", value_name = "MS", value_parser = positive)]
    pub p99_max: Option<f64>,

    /// Gate tps: transactions per second, in each round.
    #[arg(long, env = "PGBENCH_TPS_MIN", value_name = "TPS", value_parser = positive)]
    pub tps_min: Option<f64>,

    /// Gate maxwait: the longest that a client was seen to wait for a connection, in seconds.
    #[arg(long, env = "PGBENCH_MAXWAIT_MAX_SECONDS", value_name = "SECONDS", value_parser = positive)]
    pub maxwait_max: Option<f64>,

    /// An earlier report.json of this check to be compared with.
    #[arg(long, env = "PGBENCH_AGAINST", value_name = "REPORT")]
    against: Option<PathBuf>,

    /// [`Args::against`], read.
    #[arg(skip)]
    pub earlier: Option<Box<Report>>,

    /// Gate tps-regression, with --against: how many percent fewer transactions per second may be done.
    #[arg(long, env = "PGBENCH_MAX_REGRESSION", value_name = "PERCENT", default_value = "10", value_parser = positive)]
    pub max_regression: f64,

    /// The hours in UTC in which the load must begin and end, however slow its last transactions are.
    #[arg(long, env = "VEZA_WINDOW", value_name = "HH:MM-HH:MM")]
    pub window: Option<Window>,

    /// Does everything up to the load and prints the plan.
    #[arg(long)]
    pub dry_run: bool,

    /// Where the result goes.
    #[command(flatten)]
    pub output: Output,
}

/// How pgbench sends queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The simple protocol.
    Simple,
    /// Parsed for each query.
    Extended,
    /// Prepared once in each session; through a pooler it must know how.
    Prepared,
}

impl Mode {
    /// As pgbench calls it.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Simple => "simple",
            Mode::Extended => "extended",
            Mode::Prepared => "prepared",
        }
    }
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
    let matches = match Args::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return told(&error),
    };
    let mut args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => return told(&error),
    };
    if let Some(paths) = args.output.looked_at() {
        return Parsed::Look(paths);
    }
    match args.complete(|id| matches.value_source(id) == Some(ValueSource::CommandLine)) {
        Ok(()) => Parsed::Run(Box::new(args)),
        Err(words) => Parsed::Usage(usage(words)),
    }
}

/// The variables that this check takes from its environment, beside those that every tool does.
pub fn variables() -> Vec<String> {
    let secrets = [
        "DATABASE_PASSWORD",
        "PGBOUNCER_ADMIN_PASSWORD",
        "PGAF_FORMATION_PASSWORD",
    ];
    arguments::variables(&Args::command(), &secrets)
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
    let next = format!("{CHECK} --help");
    Judgement::new(Verdict::Usage, "bad-arguments", words, next)
}

impl Args {
    /// Reads what clap takes as it is, so that a bad value is never repeated in a message.
    fn complete(&mut self, typed: impl Fn(&str) -> bool) -> Result<(), String> {
        self.output.check()?;
        if self.threads > self.clients {
            return Err(format!(
                "--threads {} is more than --clients {}: each thread needs a client",
                self.threads, self.clients
            ));
        }
        let given = |uri: Option<&Secret>, names, id| {
            let read = |uri| Conninfo::given(uri, names, typed(id));
            uri.map(read).transpose()
        };
        let names = ("--database-url", "DATABASE_URL");
        self.pooler = given(self.database_url.as_ref(), names, "database_url")?;
        let names = ("--admin-uri", "PGBOUNCER_ADMIN_URI");
        self.console = given(self.admin_uri.as_ref(), names, "admin_uri")?;
        let names = ("--direct-uri", "PGAF_FORMATION_URI");
        self.primary = given(self.direct_uri.as_ref(), names, "direct_uri")?;
        if self.pooler.is_none() {
            return Err("no pooler: set DATABASE_URL, or give --database-url".into());
        }
        if self.console.is_none() {
            return Err(
                "no admin console: set PGBOUNCER_ADMIN_URI, or give --admin-uri; without it only \
                 pgbench could say how the run went"
                    .into(),
            );
        }
        if self.direct && self.primary.is_none() {
            return Err("--direct needs --direct-uri, or PGAF_FORMATION_URI".into());
        }
        if let Some(path) = &self.against {
            let report = keep::read(path).map_err(|words| format!("--against {words}"))?;
            if report.check != CHECK {
                let path = path.display();
                return Err(format!(
                    "--against {path}: it is a report of {}",
                    report.check
                ));
            }
            self.earlier = Some(Box::new(report));
        }
        Ok(())
    }

    /// How long a round takes.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1e12 => Ok(value),
        _ => Err("expected a number that is more than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Parsed {
        let all = [
            "pgbouncer-load",
            "--database-url=postgres://u@h/d",
            "--admin-uri=postgres://a@h/pgbouncer",
        ];
        parse(all.iter().chain(args).map(OsString::from))
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
            ("--clients", "0"),
            ("--clients", "many"),
            ("--seconds", "0"),
            ("--seconds", "1.5"),
            ("--threads", "0"),
            ("--scale", "-1"),
            ("--mode", "fast"),
            ("--rate", "0"),
            ("--rounds", "0"),
            ("--p99-max", "NaN"),
            ("--tps-min", "-3"),
            ("--maxwait-max", "soon"),
            ("--max-regression", "0"),
            ("--in", "a b"),
            ("--format", "xml"),
            ("--against", "/nonexistent/report.json"),
        ] {
            let words = refused(&[&format!("{flag}={value}")]);
            assert!(words.contains(flag), "{flag}={value}: {words}");
        }
        assert!(refused(&["--clients=4"]).contains("--threads 8"));
    }

    #[test]
    fn a_password_in_a_flag_is_refused_and_not_echoed() {
        let args = ["pgbouncer-load", "--database-url=postgres://u:hunter2@h/d"];
        let Parsed::Usage(judgement) = parse(args.map(OsString::from)) else {
            panic!()
        };
        let words = judgement.reason;
        assert!(
            words.contains("PGPASSFILE") && !words.contains("hunter2"),
            "{words}"
        );
    }

    #[test]
    fn the_load_of_the_old_script_is_the_default() {
        let Parsed::Run(args) = parsed(&[]) else {
            panic!()
        };
        let load = (args.clients, args.seconds, args.threads, args.scale);
        assert_eq!(load, (500, 30, 8, 10));
    }

    #[test]
    fn help_is_no_error_and_explains_gates_and_codes() {
        let Parsed::Tell(text) = parsed(&["--help"]) else {
            panic!()
        };
        for word in [
            "connection-errors",
            "clients-seen",
            "unreachable",
            "DATABASE_URL",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
