//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};
use veza_probe::arguments::{self, Said};
use veza_probe::postgres::{Access, Conninfo};
use veza_probe::secret::Secret;

use crate::databases::Database;

/// The exit codes, for the end of `--help`.
const EXIT_CODES: &str = "Exit codes:
  0    with --once: the pooler goes to the primary (with --dry-run: what would be written was printed)
  1    with --once: refused, nothing was changed: the monitor or the pooler does not answer, refuses the
       credentials, or no node is to be chosen
  3    the file can't be written
  64   usage: bad arguments or environment values
  70   internal: a bug of this tool
  129, 130, 143
       ended by SIGHUP, SIGINT, SIGTERM";

/// Points PgBouncer at the primary of a pg_auto_failover formation, as soon as it takes writes, and at no
/// other node.
///
/// Writes a file with the section [databases], which pgbouncer.ini includes, from what the monitor says
/// at this moment, and lets PgBouncer reload it through its console. A node is chosen when the monitor wants
/// exactly one to take writes and that node itself says that it does. While the monitor is away, while two
/// nodes are wanted or the one does not take writes yet, everything stays as it is.
///
/// Passwords: PGPASSFILE; or PGAF_MONITOR_PASSWORD, PGAF_FORMATION_PASSWORD and
/// PGBOUNCER_ADMIN_PASSWORD, each also with _FILE.
#[derive(Debug, Parser)]
#[command(name = "pgbouncer-follow", version, verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Args {
    /// The monitor: a URI without password (the variable's may have one). Its role needs to read
    /// pgautofailover.node, and nothing more.
    #[arg(
        long,
        env = "PGAF_MONITOR_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    monitor_uri: Secret,

    /// How to log in at a node: role, database and TLS of this URI; which node is the monitor's word,
    /// so its hosts are not used. The role needs to log in, and nothing more.
    #[arg(
        long,
        env = "PGAF_FORMATION_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    formation_uri: Secret,

    /// PgBouncer's console: a URI to its database pgbouncer, as one of its admin_users.
    #[arg(
        long,
        env = "PGBOUNCER_ADMIN_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    admin_uri: Secret,

    /// The file to write; pgbouncer.ini has `%include FILE`. Its folder must be writable.
    #[arg(
        long,
        env = "PGBOUNCER_FOLLOW_FILE",
        value_name = "FILE",
        default_value = "/var/lib/pgbouncer-follow/databases.ini"
    )]
    pub file: PathBuf,

    /// A database that clients name, and how the formation names it, if otherwise. May be repeated, or
    /// separated by commas. Default: the database of the formation's URI.
    #[arg(
        long = "database",
        env = "PGBOUNCER_FOLLOW_DATABASES",
        value_name = "NAME[=DBNAME]",
        value_delimiter = ',',
        value_parser = Database::parse
    )]
    databases: Vec<Database>,

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

    /// Answers HTTP with metrics for Prometheus here, such as 127.0.0.1:9128; not with --once.
    #[arg(long, env = "PGBOUNCER_FOLLOW_METRICS", value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Does it once, says what came of it, and ends.
    #[arg(long)]
    pub once: bool,

    /// With --once: prints the file that would be written, and changes nothing.
    #[arg(long, requires = "once")]
    pub dry_run: bool,

    /// A file of variables, a line NAME=VALUE each, for everything that is taken from the environment
    /// here; a name that no tool knows is refused.
    #[arg(long, env = "VEZA_ENV_FILE", value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// All that is needed to follow.
#[derive(Debug)]
pub struct Settings {
    /// As typed.
    pub args: Args,
    /// How to log in at the monitor.
    pub monitor: Access,
    /// How to log in at a node.
    pub node: Access,
    /// How to log in at the console.
    pub console: Access,
    /// The databases to point at the primary; at least one.
    pub databases: Vec<Database>,
}

/// What came of the arguments.
#[derive(Debug)]
pub enum Parsed {
    /// Settings to run with.
    Run(Box<Settings>),
    /// `--help` or `--version`: the text to print.
    Tell(String),
    /// Bad arguments or environment values, in a sentence.
    Usage(String),
}

/// Parses arguments and environment.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let matches = match Args::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return told(&error),
    };
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => return told(&error),
    };
    let typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    settings(args, typed).map_or_else(Parsed::Usage, |settings| Parsed::Run(Box::new(settings)))
}

fn settings(args: Args, typed: impl Fn(&str) -> bool) -> Result<Settings, String> {
    let of =
        |uri: &Secret, id: &str, flag: &str, prefix: &str| access(uri, flag, prefix, typed(id));
    let monitor = of(
        &args.monitor_uri,
        "monitor_uri",
        "--monitor-uri",
        "PGAF_MONITOR",
    )?;
    let formation = "PGAF_FORMATION";
    let node = of(
        &args.formation_uri,
        "formation_uri",
        "--formation-uri",
        formation,
    )?;
    let console = of(
        &args.admin_uri,
        "admin_uri",
        "--admin-uri",
        "PGBOUNCER_ADMIN",
    )?;
    let mut databases = args.databases.clone();
    if databases.is_empty() {
        let default = Database::parse(&node.login.dbname);
        databases.push(default.map_err(|e| format!("the database of {formation}_URI: {e}"))?);
    }
    let mut names: Vec<&str> = databases.iter().map(|d| d.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()) {
        return Err(format!("--database: {} twice", twice.concat()));
    }
    Ok(Settings {
        args,
        monitor,
        node,
        console,
        databases,
    })
}

/// The login of a URI, with the password of its own variable.
fn access(uri: &Secret, flag: &str, prefix: &str, typed: bool) -> Result<Access, String> {
    let variable = format!("{prefix}_URI");
    let names = (flag, variable.as_str());
    let access = Access::new(Conninfo::given(uri, names, typed)?, prefix, |name| {
        std::env::var_os(name)
    });
    let name = if typed { flag } else { variable.as_str() };
    access.map_err(|words| format!("{name}: {words}"))
}

/// The variables that this tool takes from its environment, beside those that every tool does.
pub fn variables() -> Vec<String> {
    let secrets = [
        "PGAF_MONITOR_PASSWORD",
        "PGAF_FORMATION_PASSWORD",
        "PGBOUNCER_ADMIN_PASSWORD",
    ];
    arguments::variables(&Args::command(), &secrets)
}

/// clap's error as ours.
fn told(error: &clap::Error) -> Parsed {
    match Said::from(error) {
        Said::Asked(text) => Parsed::Tell(text),
        Said::Wrong(words) => Parsed::Usage(words),
    }
}
