//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

use std::fmt;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use veza_probe::arguments::{DrillArgs, node_instance, seconds};
use veza_probe::fault::{Kind, Unit};
use veza_probe::instance::InstanceName;
use veza_probe::verdict::EXIT_CODES;

/// The port of a sentinel where none is named.
const SENTINEL_PORT: u16 = 26_379;

/// Breaks the master of a Redis group under Sentinel, measures how long a client could not write, puts it
/// back, waits until the group is whole, and reads what became of the writes. Or holds sentinels (--target),
/// and makes sure that clients don't notice, and that nobody is promoted without a quorum.
///
/// Gates:
///   rto         from the last write that succeeded before the outage to the first one after it, as a
///               client saw it that asks the sentinels for the master; at most --rto-target (30 s)
///   redundancy  from the moment healing of the old master began until all sentinels agree, every replica
///               is in step, and the old master is one of them; at most --redundancy-target (120 s)
///   lost-writes writes that every replica had confirmed (WAIT) and that are not there at the end; at most
///               --max-lost-writes (0). Sentinel promises nothing for the others: they are counted beside
///   phantom-writes
///               writes that were refused and are there all the same; none
///   two-primaries
///               writes acknowledged by one server while another one acknowledged writes, too; none
/// With --target sentinel, in place of rto:
///   no-outage   probes that failed, from the fault to the end; none
///   no-failover failovers that were begun; none
/// With --target quorum, in place of rto:
///   no-outage   probes that failed while only sentinels were held; none
///   no-promotion
///               servers that became master, or took writes, while the master was held, too; none
///   no-writes   writes that succeeded meanwhile; none
///
/// Shown without a gate: how long a client waited that keeps its connection and has no limit of its own
/// (kept-connection), and reads in which the old master knew less than had been acknowledged (stale-reads).
///
/// Refuses (1) before anything is touched when the sentinels don't all answer and agree, when a replica is
/// not in step, when the master would come back empty, when a failover would have to wait for an earlier
/// one, when the live timers can't meet the target, when nobody has allowed drills (key user.veza.drill of
/// the Incus project or instance), or when an earlier drill was not undone.
#[derive(Debug, Parser)]
#[command(name = "redis-sentinel-check", version, verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Args {
    /// Every sentinel, HOST or HOST:PORT, with commas between. The passwords: REDIS_SENTINEL_PASSWORD and
    /// REDIS_PASSWORD, or REDIS_SENTINEL_PASSWORD_FILE and REDIS_PASSWORD_FILE.
    #[arg(long, env = "REDIS_SENTINEL_ADDRS", value_name = "ADDRESSES")]
    sentinels: String,

    /// [`Args::sentinels`], read.
    #[arg(skip)]
    addresses: Vec<(String, u16)>,

    /// The master, as the sentinels name it.
    #[arg(
        long,
        env = "REDIS_SENTINEL_MASTER_NAME",
        value_name = "NAME",
        default_value = "mymaster"
    )]
    pub master: String,

    /// The ACL user of the sentinels; the default one where none is named.
    #[arg(long, env = "REDIS_SENTINEL_USERNAME", value_name = "USER")]
    pub sentinel_user: Option<String>,

    /// The ACL user of the servers; the default one where none is named.
    #[arg(long, env = "REDIS_USERNAME", value_name = "USER")]
    pub user: Option<String>,

    /// The sentinels' systemd unit: its log is read before the fault, and --target holds it.
    #[arg(
        long,
        env = "REDIS_SENTINEL_UNIT",
        value_name = "UNIT",
        default_value = "redis-sentinel",
        value_parser = Unit::new
    )]
    pub sentinel_unit: Unit,

    /// The servers' systemd unit: the master's is held with --target quorum.
    #[arg(
        long,
        env = "REDIS_SERVER_UNIT",
        value_name = "UNIT",
        default_value = "redis-server",
        value_parser = Unit::new
    )]
    pub server_unit: Unit,

    /// Which instance a server runs in, where its address can't tell: the host as the sentinels announce
    /// it. May be repeated.
    #[arg(long = "instance", value_name = "HOST=NAME", value_parser = node_instance)]
    pub instances: Vec<(String, InstanceName)>,

    /// What is broken: the `master`, as --fault says; one `sentinel`, whose unit is held; or the `quorum`: the
    /// units of so many sentinels are held that no failover can be decided, and then the master's, too.
    #[arg(
        long,
        env = "REDIS_TARGET",
        value_enum,
        value_name = "WHAT",
        default_value = "master"
    )]
    pub target: Target,

    /// What is done to the master: `stop` (power cut), `freeze` (a host that hangs), `partition` (its link
    /// vanishes), `kill:UNIT` (a crash that stays), `hold:UNIT` (stopped cleanly and held down),
    /// `kill-restart:UNIT` (a crash that systemd mends: times a restart, not a failover). `none` breaks
    /// nothing and must show no outage.
    #[arg(long, env = "REDIS_FAULT", value_name = "KIND", default_value = "stop")]
    pub fault: Kind,

    /// Gate rto: the longest that a client may be unable to write, in seconds.
    #[arg(long, env = "RTO_TARGET_SECONDS", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub rto_target: Duration,

    /// Gate redundancy: the longest until the group is whole again after the old master was started, in
    /// seconds.
    #[arg(long, env = "REDUNDANCY_TARGET_SECONDS", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub redundancy_target: Duration,

    /// Gate lost-writes: how many writes that every replica had confirmed may be missing at the end.
    #[arg(
        long,
        env = "REDIS_MAX_LOST_WRITES",
        value_name = "NUMBER",
        default_value_t = 0
    )]
    pub max_lost_writes: u64,

    /// Waits where the sentinels tried a failover so recently that they would not begin another one yet (2 ×
    /// failover-timeout), instead of refusing; the whole time where their logs can't be read.
    #[arg(long, env = "REDIS_SETTLE_FAILOVER")]
    pub settle_failover: bool,

    /// Runs even when the live timers can't meet the RTO target.
    #[arg(long, env = "REDIS_ALLOW_INFEASIBLE")]
    pub allow_infeasible: bool,

    /// What every drill takes.
    #[command(flatten)]
    pub drill: DrillArgs,
}

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The master.
    #[default]
    Master,
    /// One sentinel.
    Sentinel,
    /// So many sentinels that none is promoted, and then the master.
    Quorum,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Master => "master",
            Target::Sentinel => "sentinel",
            Target::Quorum => "quorum",
        })
    }
}

impl Args {
    /// Reads the sentinels' addresses, and makes sure that the flags fit together; `typed` tells whether the
    /// argument of this id was on the command line.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn read(&mut self, typed: &dyn Fn(&str) -> bool) -> Result<(), String> {
        self.addresses = addresses(&self.sentinels)?;
        if self.target != Target::Master && typed("fault") {
            let target = self.target;
            return Err(format!(
                "--fault is what is done to the master; --target {target} holds units"
            ));
        }
        Ok(())
    }

    /// What is done at first: to the master, or to sentinels.
    pub fn first_fault(&self) -> Kind {
        match self.target {
            Target::Master => self.fault.clone(),
            Target::Sentinel | Target::Quorum => Kind::Hold(self.sentinel_unit.clone()),
        }
    }

    /// Every sentinel: host and port.
    pub fn sentinels(&self) -> &[(String, u16)] {
        &self.addresses
    }

    /// The instance chosen for a host with `--instance`.
    pub fn chosen_instance(&self, host: &str) -> Option<&InstanceName> {
        let chosen = self.instances.iter().find(|(name, _)| name == host);
        chosen.map(|(_, instance)| instance)
    }
}

/// Hosts with ports, between commas; blanks around them and empty parts are dropped.
fn addresses(text: &str) -> Result<Vec<(String, u16)>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let address = |part: &str| {
        let wrong = || {
            "REDIS_SENTINEL_ADDRS or --sentinels: expected HOST or HOST:PORT, with commas between"
                .to_owned()
        };
        let (host, port) = match part.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (part, SENTINEL_PORT),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || port == 0 || !host.chars().all(plain) {
            return Err(wrong());
        }
        Ok((host.to_owned(), port))
    };
    let all: Vec<(String, u16)> = parts.map(address).collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err("REDIS_SENTINEL_ADDRS or --sentinels names no sentinel".to_owned());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use veza_probe::drill::{Parsed, parse};

    use super::*;

    fn parsed(args: &[&str]) -> Parsed<Args> {
        let needed = ["redis-sentinel-check", "--project", "p", "--sentinels", "a"];
        parse(needed.iter().chain(args).map(OsString::from))
    }

    #[test]
    fn sentinels_are_named_with_commas_between() {
        let all = addresses(" redis-1:26380, ,redis-2 ").unwrap();
        let expected = [
            ("redis-1".to_owned(), 26_380),
            ("redis-2".to_owned(), 26_379),
        ];
        assert_eq!(all, expected);
        for wrong in [
            "",
            " , ",
            ":1",
            "a:b",
            "a:0",
            "redis://:hunter2@a:1",
            "u:p@a",
        ] {
            let words = addresses(wrong).unwrap_err();
            assert!(words.contains("REDIS_SENTINEL_ADDRS"), "{words}");
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn garbage_in_a_flag_is_usage_and_names_the_flag() {
        for (flag, value) in [
            ("--rto-target", "soon"),
            ("--rto-target", "0"),
            ("--redundancy-target", "1e99"),
            ("--fault", "explode"),
            ("--fault", "kill"),
            ("--instance", "=pg"),
            ("--max-lost-writes", "-1"),
            ("--target", "replica"),
            ("--sentinel-unit", "a.timer"),
        ] {
            let Parsed::Usage(judgement) = parsed(&[&format!("{flag}={value}")]) else {
                panic!("{flag}={value}")
            };
            assert!(judgement.reason.contains(flag), "{}", judgement.reason);
        }
    }

    #[test]
    fn sentinels_are_held_and_nothing_else() {
        for target in ["sentinel", "quorum"] {
            let Parsed::Run(args) = parsed(&["--target", target]) else {
                panic!("{target}")
            };
            assert_eq!(args.target.to_string(), target);
            assert_eq!(
                args.first_fault().to_string(),
                "hold:redis-sentinel.service"
            );
            let both = ["--target", target, "--fault", "stop"];
            let Parsed::Usage(judgement) = parsed(&both) else {
                panic!("{target}")
            };
            assert!(judgement.reason.contains("--fault"), "{}", judgement.reason);
        }
        let Parsed::Run(args) = parsed(&["--fault", "freeze"]) else {
            panic!()
        };
        assert_eq!(args.first_fault(), Kind::Freeze);
    }

    #[test]
    fn help_is_no_error_and_explains_gates_and_codes() {
        let Parsed::Tell(text) = parsed(&["--help"]) else {
            panic!()
        };
        for word in [
            "rto ",
            "lost-writes",
            "WAIT",
            "Exit codes:",
            "REDIS_SENTINEL_ADDRS",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
