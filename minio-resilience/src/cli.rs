//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

pub mod course;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use veza_probe::arguments::{DrillArgs, node_instance, seconds};
use veza_probe::fault::Kind;
use veza_probe::instance::InstanceName;
use veza_probe::verdict::EXIT_CODES;

use course::{Course, Step};

/// The port of a node where none is named.
const PORT: u16 = 9000;

/// What the keys of every run begin with, where no other prefix was asked for.
pub const PREFIXES: &str = "veza-drill/";

/// How many objects may be asked for: each is read through every node, again and again.
const MOST_OBJECTS: usize = 5000;

/// Takes nodes of a MinIO cluster away, watches what its readers get, puts them back, and proves that every object
/// was healed. One act after the other, each with its own fault and its own heal.
///
/// Steps (--step, may be repeated):
///   lose        --nodes nodes are lost at once: what must be readable is read, and what must be refused is refused
///   heal        objects are written while a node is away; healed; proven by reading them without the nodes that
///               were there for every write
///   wipe-drive  a drive is emptied (lab only); healed; proven in the same way
///   bitrot      bytes of shards are flipped (lab only); read right; found and mended
///
/// Gates, named by act:
///   read-outage   from the last read that succeeded before the outage to the first one after it, of a client of the
///                 nodes that stay up; at most --read-outage-max (15 s; 30 s for freeze and partition)
///   failed-reads  reads that failed after service was back; none
///   wrong-bytes   objects whose bytes are not those that were written; none
///   unread        objects that could not be read while nodes were lost and the configuration promises reads; none
///   refusal       how long a write took to be refused, where reads are promised and writes are not; at most 5 s
///   taken-writes  writes that were taken without write quorum; none
///   phantoms      refused writes of which something is there later; none
///   service       from the heal until every node reads and writes again; at most --service-target (60 s)
///   redundancy    from the heal until every drive is online and nothing is healing; at most --heal-target (120 s)
///
/// Refuses (1) before anything is touched when a node or a drive is missing, when the parity is not the one asked
/// for, when something is healing, when credentials can't do what is needed, when clocks differ by a second, when
/// versions differ, when nobody has allowed drills (key user.veza.drill of the Incus project or instance), or when
/// an earlier drill was not undone.
#[derive(Clone, Debug, Parser)]
#[command(name = "minio-resilience", version, verbatim_doc_comment, after_help = EXIT_CODES)]
// What is promised of a cluster that loses nodes is seconds, and its own servers keep the processors of a host that has them all busy: a
// probe in every hundred was sent 13 to 26 ms late with two processors, which says nothing about a limit of 15 s.
#[command(mut_arg("spacing", |arg| arg.default_value("50")))]
pub struct Args {
    /// Every node, as a URL (http or https), with commas between. The credentials: MINIO_ACCESS_KEY and
    /// MINIO_SECRET_KEY, or MINIO_ACCESS_KEY_FILE and MINIO_SECRET_KEY_FILE.
    #[arg(
        long,
        env = "MINIO_ENDPOINTS",
        value_name = "URLS",
        hide_env_values = true
    )]
    endpoints: String,

    /// [`Args::endpoints`], read.
    #[arg(skip)]
    read: Vec<Endpoint>,

    /// Where a run stands.
    #[arg(skip)]
    pub course: Course,

    /// The bucket that the working set is written to; it must be there.
    #[arg(long, env = "MINIO_BUCKET", value_name = "BUCKET")]
    pub bucket: String,

    /// What the keys of all objects begin with, and of nothing else: everything below it is removed at the end.
    /// Default: veza-drill/<run>/.
    #[arg(long, env = "MINIO_DRILL_PREFIX", value_name = "PREFIX")]
    pub prefix: Option<String>,

    /// The region that requests are signed for.
    #[arg(
        long,
        env = "MINIO_REGION",
        value_name = "REGION",
        default_value = "us-east-1"
    )]
    pub region: String,

    /// A file of certificates (PEM) that the nodes' are checked against, instead of the system's.
    #[arg(long, env = "MINIO_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// What is done; see above. Default: lose and heal.
    #[arg(long = "step", env = "MINIO_STEPS", value_name = "STEP", value_enum, value_delimiter = ',', default_values = ["lose", "heal"])]
    pub steps: Vec<Step>,

    /// How many nodes are lost at once in the step lose.
    #[arg(long, env = "MINIO_NODES", value_name = "NUMBER", default_value_t = 2)]
    pub nodes: usize,

    /// Which nodes are lost, by the host of their endpoint or the name of their instance, with commas between. Without it, others from run to run.
    #[arg(long, env = "MINIO_LOSE", value_name = "NODES", value_delimiter = ',')]
    pub lose: Vec<String>,

    /// Which instance a node runs in, where its address can't tell: the host as the endpoints name it. May be
    /// repeated.
    #[arg(long = "instance", value_name = "HOST=NAME", value_parser = node_instance)]
    pub instances: Vec<(String, InstanceName)>,

    /// What is done to nodes in the step lose: `stop` (power cut), `freeze` (a host that hangs), `partition` (its
    /// link vanishes). `none` breaks nothing and must show no outage.
    #[arg(long, env = "MINIO_FAULT", value_name = "KIND", default_value = "stop")]
    pub fault: Kind,

    /// How many objects the working set has.
    #[arg(
        long,
        env = "MINIO_OBJECTS",
        value_name = "NUMBER",
        default_value_t = 200
    )]
    pub objects: usize,

    /// The drives of parity that a set must have.
    #[arg(long, env = "MINIO_PARITY", value_name = "EC:N", default_value = "EC:2", value_parser = parity)]
    pub parity: usize,

    /// Gate read-outage: the longest that a client of the nodes that stay up may be unable to read, in seconds.
    /// Default: 15; 30 for freeze and partition.
    #[arg(long, env = "MINIO_READ_OUTAGE_MAX_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    read_outage_max: Option<Duration>,

    /// Gate service: the longest until every node reads and writes again after the heal, in seconds.
    #[arg(long, env = "MINIO_SERVICE_TARGET_SECONDS", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub service_target: Duration,

    /// Gate redundancy: the longest until every drive is online and nothing is healing after the heal, in seconds.
    #[arg(long, env = "MINIO_HEAL_TARGET_SECONDS", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub heal_target: Duration,

    /// How long a cluster is watched healing by itself before it is asked to, in seconds.
    #[arg(long, env = "MINIO_SELF_HEAL_WAIT_SECONDS", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub self_heal_wait: Duration,

    /// In how many shards bytes are flipped in the step bitrot.
    #[arg(long, env = "MINIO_BITROT", value_name = "NUMBER", default_value_t = 3)]
    pub bitrot: usize,

    /// Another S3 store: does without MinIO's own API, and says what was not checked.
    #[arg(long, env = "MINIO_S3_ONLY")]
    pub s3_only: bool,

    /// What every drill takes.
    #[command(flatten)]
    pub drill: DrillArgs,
}

/// Where a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether over TLS.
    pub tls: bool,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// As a URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

impl Args {
    /// Reads the endpoints, and what depends on several arguments.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn read(&mut self) -> Result<(), String> {
        self.read = endpoints(&self.endpoints)?;
        self.course = Course::of(match self.fault.breaks() {
            true => &self.steps,
            false => &[Step::Lose],
        });
        let hosts: Vec<&str> = self.read.iter().map(|e| e.host.as_str()).collect();
        within("--objects", self.objects, 1, MOST_OBJECTS)?;
        within("--bitrot", self.bitrot, 1, MOST_OBJECTS)?;
        // What a run takes away, the nodes that are left have to tell of.
        within("--nodes", self.nodes, 1, hosts.len().saturating_sub(1))?;
        let mut named = self.lose.clone();
        named.sort();
        named.dedup();
        if !named.is_empty() && (named.len() != self.lose.len() || named.len() != self.nodes) {
            let (count, nodes) = (named.len(), self.nodes);
            return Err(format!(
                "--lose names {count} nodes, and --nodes asks for {nodes}"
            ));
        }
        if self.fault.unit().is_some() {
            return Err("--fault: expected stop, freeze, partition or none".to_owned());
        }
        bucket(&self.bucket)?;
        self.prefix.as_deref().map_or(Ok(()), prefix)?;
        let own = |step: &&Step| **step != Step::Lose;
        if self.s3_only && self.steps.iter().any(|step| own(&step)) {
            let words = "--s3-only: only the step lose does without MinIO's own API";
            return Err(format!("{words}; add --step lose"));
        }
        Ok(())
    }

    /// Every node.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.read
    }

    /// What the keys of a run begin with.
    pub fn prefix(&self, run: &str) -> String {
        let own = || format!("{PREFIXES}{run}/");
        self.prefix.clone().unwrap_or_else(own)
    }

    /// The host of the first node: what names the system.
    pub fn first_host(&self) -> &str {
        self.read.first().map_or("", |endpoint| &endpoint.host)
    }

    /// The instance chosen for a host with `--instance`.
    pub fn chosen_instance(&self, host: &str) -> Option<&InstanceName> {
        let chosen = self.instances.iter().find(|(name, _)| name == host);
        chosen.map(|(_, instance)| instance)
    }

    /// The longest that reads may fail, by what is done to nodes.
    pub fn read_outage_max(&self) -> Duration {
        let seconds = match self.fault {
            Kind::Freeze | Kind::Partition => 30,
            _ => 15,
        };
        self.read_outage_max.unwrap_or(Duration::from_secs(seconds))
    }
}

fn within(flag: &str, given: usize, least: usize, most: usize) -> Result<(), String> {
    match (least..=most).contains(&given) {
        true => Ok(()),
        false => Err(format!("{flag}: expected {least} to {most}, not {given}")),
    }
}

/// URLs between commas; blanks around them and empty parts are dropped.
fn endpoints(text: &str) -> Result<Vec<Endpoint>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let all: Vec<Endpoint> = parts.map(endpoint).collect::<Result<_, _>>()?;
    let mut hosts: Vec<_> = all.iter().map(|e| (&e.host, e.port)).collect();
    hosts.sort();
    hosts.dedup();
    if hosts.len() != all.len() {
        return Err("MINIO_ENDPOINTS or --endpoints names a node twice".to_owned());
    }
    if all.len() < 2 {
        return Err("MINIO_ENDPOINTS or --endpoints names fewer than two nodes".to_owned());
    }
    Ok(all)
}

/// One URL. It is never repeated in a message: it may hold a password.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = || {
        let words = "expected http://HOST:PORT or https://HOST:PORT, with commas between";
        format!("MINIO_ENDPOINTS or --endpoints: {words}")
    };
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (rest, PORT),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    if host.is_empty() || port == 0 || !host.chars().all(plain) {
        return Err(wrong());
    }
    let host = host.to_ascii_lowercase();
    Ok(Endpoint { tls, host, port })
}

/// `EC:2`.
fn parity(text: &str) -> Result<usize, String> {
    let number = text.strip_prefix("EC:").and_then(|n| n.parse().ok());
    number
        .filter(|number| (1..=8).contains(number))
        .ok_or_else(|| "expected EC:1 to EC:8".to_owned())
}

/// A bucket's name, as S3 has them.
fn bucket(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    match (3..=63).contains(&name.len()) && name.chars().all(plain) {
        true => Ok(()),
        false => Err("MINIO_BUCKET or --bucket: expected the name of a bucket".to_owned()),
    }
}

/// A prefix that can't be anybody else's folder by mistake, and whose removal can't be that of a whole bucket.
fn prefix(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let odd = |part: &str| part.is_empty() || part.starts_with('.');
    let inner = text.strip_suffix('/').unwrap_or_default();
    match !inner.is_empty()
        && text.len() <= 200
        && text.chars().all(plain)
        && !inner.split('/').any(odd)
    {
        true => Ok(()),
        false => {
            let words = "expected letters, digits, dashes and slashes, with a slash at the end";
            Err(format!("MINIO_DRILL_PREFIX or --prefix: {words}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use veza_probe::drill::{Parsed, parse};

    use super::*;

    const FOUR: &str =
        "http://minio-1.lxd:9000,http://minio-2,https://minio-3/, http://minio-4:9001 ,";

    fn parsed(args: &[&str]) -> Parsed<Args> {
        let needed = [
            "minio-resilience",
            "--project",
            "p",
            "--endpoints",
            FOUR,
            "--bucket",
            "abc",
        ];
        parse(needed.iter().chain(args).map(OsString::from))
    }

    #[test]
    fn nodes_are_named_by_their_urls() {
        let Parsed::Run(args) = parsed(&[]) else {
            panic!()
        };
        let urls: Vec<String> = args.endpoints().iter().map(Endpoint::url).collect();
        let expected = [
            "http://minio-1.lxd:9000",
            "http://minio-2:9000",
            "https://minio-3:9000",
            "http://minio-4:9001",
        ];
        assert_eq!(urls, expected);
        assert_eq!(args.parity, 2);
        assert_eq!(args.read_outage_max(), Duration::from_secs(15));
        let spacing = |args: &Args| args.drill.shape().unwrap().spacing();
        assert_eq!(spacing(&args), Duration::from_millis(50));
        let Parsed::Run(args) = parsed(&["--spacing", "20"]) else {
            panic!()
        };
        assert_eq!(spacing(&args), Duration::from_millis(20));
    }

    #[test]
    fn a_frozen_node_is_waited_for_longer() {
        for fault in ["freeze", "partition"] {
            let Parsed::Run(args) = parsed(&["--fault", fault]) else {
                panic!()
            };
            assert_eq!(args.read_outage_max(), Duration::from_secs(30));
        }
    }

    #[test]
    fn garbage_in_a_flag_is_usage_and_names_the_flag() {
        for args in [
            &["--objects", "0"][..],
            &["--objects", "many"],
            &["--nodes", "0"],
            &["--nodes", "4"],
            &["--parity", "2"],
            &["--parity", "EC:0"],
            &["--bucket", "A B"],
            &["--prefix", "/"],
            &["--prefix", "a"],
            &["--prefix", "a//b/"],
            &["--prefix", "../"],
            &["--fault", "explode"],
            &["--fault", "kill:minio"],
            &["--lose", "minio-2"],
            &["--step", "dance"],
            &["--s3-only"],
            &["--read-outage-max", "0"],
            &["--endpoints", "http://one:9000"],
            &["--endpoints", "http://a,http://a"],
            &["--endpoints", "http://user:hunter2@a,http://b"],
            &["--endpoints", "minio-1,minio-2"],
        ] {
            let Parsed::Usage(judgement) = parsed(args) else {
                panic!("{args:?}")
            };
            let reason = judgement.reason;
            assert!(reason.contains(args[0]), "{args:?}: {reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn help_is_no_error_and_explains_gates_and_codes() {
        let Parsed::Tell(text) = parsed(&["--help"]) else {
            panic!()
        };
        for word in [
            "read-outage ",
            "wipe-drive",
            "Exit codes:",
            "MINIO_ENDPOINTS",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
