//! What was typed: flags and variables, checked for form only. Nothing is asked of anyone here.

pub mod copying;
pub mod cutting;
pub mod choosing;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use veza_probe::arguments::{self, Output, Said};
use veza_probe::verdict::{Judgement, Verdict};

use choosing::fits;

/// The check's name: in reports and as a program.
pub const CHECK: &str = "minio-migrate";

/// How many versions are worth a listing of their own, ten pages, and how many listings a store has at the same time from one run.
const WORTH_A_LISTING: u64 = 10_000;
const MOST_LISTINGS: u64 = 4;

/// The exit codes, for the end of `--help`.
const EXIT_CODES: &str = "Exit codes:
  0    pass: GO, copied, the same, or in step, as the word has it (also: --help, --version, --recover)
  1    refused: a store does not answer, refuses the credentials, or has no such bucket; nothing was touched
  2    fail: NO-GO (the writers write as before), or something is missing, different or not to be read; it is named
  3    missing tool: a file is not there
  4    not undone: writers may still be frozen: minio-migrate cutover --recover
  5    inconclusive: incomplete, and the same again goes on; objects changed meanwhile; there was nothing to do
  64   usage: bad arguments or environment values
  70   internal: a bug of this tool
  129, 130, 143
       interrupted by SIGHUP, SIGINT, SIGTERM; nobody is frozen";

/// Moves buckets from one S3 store to another, and proves it: every object and version, with all that belongs to it.
///
/// (no word) copies, then compares everything, and says what comes next.
/// plan      lists both stores and says what is to be copied, what the target would refuse, and how long the listings of a cutover
///           would take. It changes nothing.
/// copy      copies what the target has not, every version and mark of deletion in its order, and keeps a journal: a run that is
///           killed at any moment goes on where it was. Objects keep the parts that they had, and so their ETags.
/// verify    reads every object and version from the source and, through the target's endpoints in turn, from the
///           target, and compares SHA-256 of what came, content headers, user metadata, tags, retention and legal
///           hold; then what the buckets are set to. Equal counts are no proof, and neither is a word of the
///           stores': whatever copied it (mc mirror, rclone, replication), both sides are read again. With the journal of a
///           copy here, what the source sent then is not asked of it again.
/// cutover   copies and compares while writers write, rehearses, freezes the writers (disables them at the source, and tries that
///           with their own logins), copies and compares the rest, and says GO or NO-GO; after NO-GO they may write again.
/// reverse   after GO: copies back to the source what was written to the target, so that moving back loses nothing.
/// status    says what journals hold, and whether together they are one migration.
///
/// Gates of verify, and with others of cutover:
///   missing     objects and versions of the source that the target has not; none
///   different   those that it has otherwise; none
///   unexpected  objects and versions of the target that the source has not; none (--allow-unexpected: not judged)
///   unread      those that could not be read on either side; none
///   buckets     settings of buckets that differ: versioning, object lock, lifecycle, policy, tags, CORS, notification,
///               encryption; none (--ignore-buckets: not judged)
///
/// Version ids and times of modification are the store's own and can't be copied by S3: verify counts and says that they differ,
/// cutover wants that accepted by name (--accept-loss). ETags depend on the sizes of parts.
#[derive(Debug, Parser)]
#[command(name = "minio-migrate", version, verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Args {
    /// What is done; see above. Without a word: copy, then verify.
    #[arg(value_name = "WORD", value_enum)]
    pub word: Option<Word>,

    /// The store that is moved away from: http://HOST:PORT or https://HOST:PORT. The login: MINIO_SRC_ACCESS_KEY and
    /// MINIO_SRC_SECRET_KEY, or their _FILE.
    #[arg(
        long,
        env = "MINIO_SRC_ENDPOINT",
        value_name = "URL",
        hide_env_values = true
    )]
    source_endpoint: Option<String>,

    /// A node of the store that is moved to; may be repeated, and the variable has commas between. What one node does not
    /// answer is asked of the next. The login: MINIO_DST_ACCESS_KEY and MINIO_DST_SECRET_KEY, or their _FILE.
    #[arg(
        long = "target-endpoint",
        env = "MINIO_DST_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    target_endpoints: Vec<String>,

    /// [`Args::source_endpoint`], read.
    #[arg(skip)]
    pub source: Option<Endpoint>,

    /// [`Args::target_endpoints`], read.
    #[arg(skip)]
    pub targets: Vec<Endpoint>,

    /// The region that requests are signed for.
    #[arg(
        long,
        env = "MINIO_REGION",
        value_name = "NAME",
        default_value = "us-east-1"
    )]
    pub region: String,

    /// Certificates in PEM that https endpoints are checked against, instead of the system's.
    #[arg(long, env = "MINIO_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// A bucket, or a pattern with `*`; may be repeated. Without one, every bucket that the source's login sees.
    #[arg(
        long = "bucket",
        env = "MINIO_MIGRATE_BUCKETS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub buckets: Vec<String>,

    /// Only keys that begin so.
    #[arg(
        long,
        env = "MINIO_MIGRATE_PREFIX",
        value_name = "TEXT",
        default_value = ""
    )]
    pub prefix: String,

    /// Which keys.
    #[command(flatten)]
    pub choosing: choosing::Choosing,

    /// Which versions are compared.
    #[arg(
        long,
        env = "MINIO_MIGRATE_VERSIONS",
        value_name = "WHICH",
        value_enum,
        default_value = "all"
    )]
    pub versions: Versions,

    /// How much is read: `full`, or `sample:P`, P percent of the keys by a hash of their own. Of the others only what
    /// listings tell is compared (that they are there, and their sizes), and the verdict says so.
    #[arg(
        long,
        env = "MINIO_MIGRATE_VERIFY",
        value_name = "HOW",
        default_value = "full"
    )]
    pub verify: Depth,

    /// How many objects are under way at once, at most: 16 that are compared, or 64 that are copied, of which as many are as
    /// makes it faster.
    #[arg(long, env = "MINIO_MIGRATE_WORKERS", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: Option<u16>,

    /// Into how many ranges of keys a bucket is divided that are listed at the same time: by what the journal knows, or by folders. Without
    /// this one for every 10,000 versions, and at most 4. A first copy lists in one piece: it takes longer than its listing.
    #[arg(long, env = "MINIO_MIGRATE_LISTINGS", value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    listings: Option<u8>,

    /// Gate unexpected is not judged.
    #[arg(long, env = "MINIO_MIGRATE_ALLOW_UNEXPECTED")]
    pub allow_unexpected: bool,

    /// Gate buckets is not judged.
    #[arg(long, env = "MINIO_MIGRATE_IGNORE_BUCKETS")]
    pub ignore_buckets: bool,

    /// Writes every finding into FILE, a line of JSON for each; the report names the first ones only. It must not be there.
    #[arg(long, env = "MINIO_MIGRATE_FINDINGS", value_name = "FILE")]
    pub findings: Option<PathBuf>,

    /// What a copy may do.
    #[command(flatten)]
    pub copying: copying::Copying,

    /// What a cutover may do.
    #[command(flatten)]
    pub cutting: cutting::Cutting,

    /// Where the result goes.
    #[command(flatten)]
    pub output: Output,
}

/// Into how many ranges a bucket is divided; none: as many as are worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listings(Option<u8>);

impl Listings {
    /// So many, whatever it is worth.
    #[cfg(test)]
    pub fn into(ranges: u8) -> Listings {
        Listings(Some(ranges))
    }

    /// For so many versions; none: nobody has counted them.
    pub fn of(self, versions: Option<u64>) -> u64 {
        let usual = versions.map_or(MOST_LISTINGS, |versions| versions / WORTH_A_LISTING);
        self.0.map_or(usual.clamp(1, MOST_LISTINGS), u64::from)
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Word {
    /// Says what a copy would have to do.
    Plan,
    /// Copies what the target has not.
    Copy,
    /// Compares both stores.
    Verify,
    /// Copies, freezes the writers, copies and compares the rest, and says GO or NO-GO.
    Cutover,
    /// After GO, copies back to the source what was written to the target.
    Reverse,
    /// Tells what journals say.
    Status,
}

/// Which versions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Versions {
    /// Every version, and how often a key was deleted.
    All,
    /// What a reader gets who names no version.
    Latest,
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// Everything.
    Full,
    /// This share of the keys, in percent.
    Sample(f64),
}

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Depth, String> {
        let percent = match text.split_once(':') {
            None if text == "full" => return Ok(Depth::Full),
            Some(("sample", percent)) => percent.parse::<f64>().ok(),
            _ => None,
        };
        let percent = percent.filter(|percent| *percent > 0.0 && *percent < 100.0);
        let percent = percent.ok_or("expected full, or sample:P with P between 0 and 100")?;
        Ok(Depth::Sample(percent))
    }
}

/// A server's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its URL, without a slash at the end.
    pub url: String,
    /// Its host and port, for people.
    pub name: String,
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
    let read = Args::command().try_get_matches_from(args);
    let mut args = match read.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => {
            return match Said::from(&error) {
                Said::Asked(text) => Parsed::Tell(text),
                Said::Wrong(words) => Parsed::Usage(usage(words)),
            };
        }
    };
    if let Some(paths) = args.output.looked_at() {
        return Parsed::Look(paths);
    }
    match args.complete() {
        Ok(()) => Parsed::Run(Box::new(args)),
        Err(words) => Parsed::Usage(usage(words)),
    }
}

/// The variables that this check takes from its environment, beside those that every tool does.
pub fn variables() -> Vec<String> {
    let secrets = [
        "MINIO_SRC_ACCESS_KEY",
        "MINIO_SRC_SECRET_KEY",
        "MINIO_DST_ACCESS_KEY",
        "MINIO_DST_SECRET_KEY",
        "MINIO_SRC_ADMIN_ACCESS_KEY",
        "MINIO_SRC_ADMIN_SECRET_KEY",
        "MINIO_DST_ADMIN_ACCESS_KEY",
        "MINIO_DST_ADMIN_SECRET_KEY",
    ];
    arguments::variables(&Args::command(), &secrets)
}

/// A judgement on bad arguments.
pub fn usage(words: impl Into<String>) -> Judgement {
    let next = format!("{CHECK} --help");
    Judgement::new(Verdict::Usage, "bad-arguments", words, next)
}

impl Args {
    fn complete(&mut self) -> Result<(), String> {
        self.output.check()?;
        self.choosing.check()?;
        if self.word == Some(Word::Status) {
            return Ok(());
        }
        if self.word == Some(Word::Cutover) {
            self.cutting.check()?;
        } else if self.cutting.recover {
            return Err("--recover is of cutover".to_owned());
        }
        let given = self.source_endpoint.as_deref();
        let source = given.filter(|text| !text.is_empty());
        let source =
            source.ok_or("no source: set MINIO_SRC_ENDPOINT, or give --source-endpoint")?;
        self.source = Some(endpoint(source, "MINIO_SRC_ENDPOINT or --source-endpoint")?);
        let flag = "MINIO_DST_ENDPOINTS or --target-endpoint";
        let targets = self.target_endpoints.iter().map(|text| text.trim());
        let targets = targets.filter(|text| !text.is_empty());
        self.targets = targets
            .map(|text| endpoint(text, flag))
            .collect::<Result<_, _>>()?;
        if self.targets.is_empty() {
            return Err("no target: set MINIO_DST_ENDPOINTS, or give --target-endpoint".to_owned());
        }
        if self
            .targets
            .iter()
            .any(|target| Some(target) == self.source.as_ref())
        {
            return Err(format!("{flag}: the source is its own target"));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*".contains(c);
        let is_odd = |name: &&String| name.is_empty() || !name.chars().all(plain);
        match self.buckets.iter().find(is_odd) {
            Some(name) => Err(format!(
                "--bucket {name}: expected a bucket's name, or a pattern with *"
            )),
            None => Ok(()),
        }
    }

    /// Whether a bucket is one that was asked for.
    pub fn wants(&self, bucket: &str) -> bool {
        self.buckets.is_empty() || self.buckets.iter().any(|pattern| fits(pattern, bucket))
    }

    /// Into how many ranges a bucket is divided.
    pub fn listings(&self) -> Listings {
        Listings(self.listings)
    }

    /// Which keys of the buckets the run is about, in words; none: all.
    pub fn part(&self) -> Option<String> {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.is_empty());
        let prefix = prefix.map(|prefix| format!("only {prefix}*"));
        let words: Vec<String> = prefix.into_iter().chain(self.choosing.words()).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// How many objects may be under way, or what is usual.
    pub fn at_once(&self, usual: u16) -> usize {
        usize::from(self.workers.unwrap_or(usual))
    }

    /// Both ends, for people.
    pub fn system(&self) -> String {
        let source = self.source.as_ref().map_or("", |source| &source.name);
        let target = self.targets.first().map_or("", |target| &target.name);
        format!("S3 {source} to {target}")
    }
}

/// One URL. It is never repeated in a message: it may hold a password.
fn endpoint(text: &str, flag: &str) -> Result<Endpoint, String> {
    let wrong = || format!("{flag}: expected http://HOST:PORT or https://HOST:PORT");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.split_once(':').map_or((rest, "9000"), |split| split);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if !["http", "https"].contains(&scheme)
        || host.is_empty()
        || !host.chars().all(plain)
        || port == 0
    {
        return Err(wrong());
    }
    let name = format!("{}:{port}", host.to_ascii_lowercase());
    Ok(Endpoint {
        url: format!("{scheme}://{name}"),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Parsed {
        let all = [
            "minio-migrate",
            "verify",
            "--source-endpoint=http://old:9000",
            "--target-endpoint=http://new:9000",
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
            ("--verify", "half"),
            ("--verify", "sample:0"),
            ("--verify", "sample:100"),
            ("--workers", "0"),
            ("--exclude", ""),
            ("--versions", "some"),
            ("--bucket", "A_B"),
            ("--target-endpoint", "new"),
            ("--target-endpoint", "http://user:hunter2@new"),
            ("--target-endpoint", "http://old:9000"),
        ] {
            let words = refused(&[&format!("{flag}={value}")]);
            assert!(words.contains(flag), "{flag}={value}: {words}");
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn large_buckets_are_listed_in_ranges() {
        let usual = |versions| Listings(None).of(versions);
        assert_eq!(
            [0, 19_999, 20_000, 1 << 40].map(|count| usual(Some(count))),
            [1, 1, 2, 4]
        );
        assert_eq!(usual(None), 4);
        assert_eq!(Listings(Some(3)).of(Some(5)), 3);
        assert!(refused(&["--listings=0"]).contains("--listings"));
    }

    #[test]
    fn patterns_stand_for_buckets() {
        let Parsed::Run(args) = parsed(&["--bucket=veza-*-tracks,other"]) else {
            panic!()
        };
        assert!(
            args.wants("veza-prod-tracks") && args.wants("veza--tracks") && args.wants("other")
        );
        assert!(args.part().is_none());
        assert!(
            !args.wants("veza-prod") && !args.wants("others") && !args.wants("x-veza-prod-tracks")
        );
        let Parsed::Run(args) = parsed(&[]) else {
            panic!()
        };
        assert!(args.wants("anything"));
        let Parsed::Run(args) = parsed(&["--prefix=songs/", "--exclude=*.tmp"]) else {
            panic!()
        };
        assert_eq!(args.part().as_deref(), Some("only songs/*, without *.tmp"));
    }
}
