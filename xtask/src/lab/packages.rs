//! What the host must have installed, and how Debian and Ubuntu get it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use veza_probe::command::Command;

use super::tale::Tale;

/// This machine or this user lacks something: exit code 3.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Programs that the lab needs, each with its package. Incus' daemon stands outside any PATH.
const TOOLS: [(&str, &str); 7] = [
    ("incus", "incus-client"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("nft", "nftables"),
    ("dnsmasq", "dnsmasq-base"),
    ("mksquashfs", "squashfs-tools"),
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
];
const INCUSD: [&str; 3] = [
    "/usr/libexec/incus/incusd",
    "/usr/lib/incus/incusd",
    "/opt/incus/bin/incusd",
];
/// Where Debian keeps the keys that its archive is signed with; newer releases use the second name.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
/// The daemon and containers; the package `incus` would add a virtual machine monitor.
const INCUS: [&str; 2] = ["incus-base", "incus-client"];
const APT_LIMIT: Duration = Duration::from_secs(900);
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/veza-backports.sources";

/// Whether we may change the host.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program, also where an unprivileged PATH does not look.
///
/// # Errors
/// [`Missing`].
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    which::which_in(name, Some(path), "/")
        .map_err(|_| Missing(format!("the program {name} is not installed")).into())
}

/// Incus' daemon, if it is installed.
pub fn incusd() -> Option<PathBuf> {
    INCUSD.iter().map(PathBuf::from).find(|p| p.exists())
}

/// The keys of Debian's archive, if they are installed.
pub fn debian_keyring() -> Option<PathBuf> {
    KEYRINGS.iter().map(PathBuf::from).find(|p| p.exists())
}

/// The packages that this host lacks.
fn missing() -> Vec<&'static str> {
    let mut missing: Vec<_> = TOOLS
        .iter()
        .filter(|(program, _)| tool(program).is_err())
        .map(|(_, package)| *package)
        .collect();
    if incusd().is_none() {
        missing.insert(0, "incus-base");
    }
    if debian_keyring().is_none() {
        missing.push("debian-archive-keyring");
    }
    missing
}

/// Sees to it that all packages are there. Says first what it will install; without `install` it only
/// says it.
///
/// # Errors
/// [`Missing`] with the list when it may not or can't install; apt's own words when that failed.
pub async fn ensure(tale: &Tale, install: bool) -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !install {
        bail!(Missing(format!(
            "this host lacks packages: {list}\n  `cargo xtask lab up` without --no-install installs \
             them (Incus from backports where the release has none)"
        )));
    }
    if tool("apt-get").is_err() {
        bail!(Missing(format!(
            "this host lacks {list} (Debian's names), and it has no apt-get: install them by hand"
        )));
    }
    tale.say(&format!("installing packages: {list}"));
    let (incus, others): (Vec<&str>, Vec<&str>) = missing.iter().partition(|p| INCUS.contains(p));
    tale.during("apt-get update", apt(["update"])).await?;
    let suite = if incus.is_empty() {
        None
    } else {
        suite_with_incus(tale).await?
    };
    let step = async {
        if !others.is_empty() {
            apt(install_args(&others, None)).await?;
        }
        if !incus.is_empty() {
            apt(install_args(&incus, suite.as_deref())).await?;
        }
        Ok(())
    };
    tale.during("apt-get install", step).await?;
    let still = self::missing();
    if still.is_empty() {
        return Ok(());
    }
    bail!(Missing(format!(
        "apt-get installed the packages, but this is still missing: {}",
        still.join(" ")
    )))
}

fn install_args(packages: &[&str], suite: Option<&str>) -> Vec<String> {
    let mut args: Vec<String> = ["install", "--yes", "--no-install-recommends"]
        .map(str::to_owned)
        .into();
    args.extend(suite.map(|s| format!("--target-release={s}")));
    args.extend(packages.iter().map(|p| (*p).to_owned()));
    args
}

async fn apt(args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> anyhow::Result<()> {
    let command = Command::new(tool("apt-get")?)
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command.run(APT_LIMIT).await?;
    Ok(())
}

/// The suite that Incus must be asked of; none when the release itself has it. Adds the release's
/// backports where no source has Incus.
async fn suite_with_incus(tale: &Tale) -> anyhow::Result<Option<String>> {
    let release = os_release("VERSION_CODENAME")?;
    let backports = format!("{release}-backports");
    if !has_candidate().await? {
        let sources = all_sources(Path::new("/etc/apt"))?;
        let main = sources.iter().find(|s| s.has_suite(&release));
        let main = main.with_context(|| {
            format!("no apt source of this host has the suite {release}, so none can have Incus")
        })?;
        tale.say(&format!(
            "no apt source has Incus: adding {backports} in {BACKPORTS_FILE}"
        ));
        std::fs::write(BACKPORTS_FILE, main.with_only_suite(&backports))
            .with_context(|| format!("writing {BACKPORTS_FILE}"))?;
        tale.during("apt-get update", apt(["update"])).await?;
        if !has_candidate().await? {
            bail!(Missing(format!(
                "{backports} has no Incus either: install Incus by hand (https://linuxcontainers.org/incus)"
            )));
        }
    }
    // Packages of backports need their companions from there; the release's own don't.
    let policy = policy().await?;
    let from_backports = policy.contains(&backports) && !policy.contains(&format!(" {release}/"));
    Ok(from_backports.then_some(backports))
}

async fn policy() -> anyhow::Result<String> {
    let command = Command::new(tool("apt-cache")?)
        .args(["policy", "incus-base"])
        .env("LC_ALL", "C");
    Ok(command.run(Duration::from_secs(60)).await?.stdout)
}

async fn has_candidate() -> anyhow::Result<bool> {
    let policy = policy().await?;
    let candidate = policy
        .lines()
        .find_map(|l| l.trim().strip_prefix("Candidate:"));
    Ok(candidate.is_some_and(|c| !c.contains("(none)")))
}

/// A value of `/etc/os-release`.
pub fn os_release(key: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let prefix = format!("{key}=");
    let value = text.lines().find_map(|l| l.strip_prefix(&prefix));
    let value = value.with_context(|| format!("/etc/os-release has no {key}"))?;
    Ok(value.trim_matches('"').to_owned())
}

/// One enabled apt source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The first of its URIs.
    pub uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Source {
    fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|s| s == suite) && self.components.iter().any(|c| c == "main")
    }

    /// The same mirror with another suite, in apt's deb822 format.
    fn with_only_suite(&self, suite: &str) -> String {
        let mut text = format!(
            "# Written by `cargo xtask lab up`: Incus is not in the release itself.\n\
             Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
            self.uri
        );
        if let Some(key) = &self.signed_by {
            text.push_str(&format!("Signed-By:{key}\n"));
        }
        text
    }
}

/// The mirror that the host gets Debian from; none when the host is no Debian.
///
/// # Errors
/// When the host's release or apt's configuration can't be read.
pub fn debian_mirror() -> anyhow::Result<Option<String>> {
    if os_release("ID")? != "debian" {
        return Ok(None);
    }
    let release = os_release("VERSION_CODENAME")?;
    let sources = all_sources(Path::new("/etc/apt"))?;
    let main = sources.into_iter().find(|s| s.has_suite(&release));
    Ok(main.map(|s| s.uri))
}

fn all_sources(folder: &Path) -> anyhow::Result<Vec<Source>> {
    let parts = folder.join("sources.list.d");
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(&parts) {
        let mut more: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        more.sort();
        files.extend(more);
    }
    let mut sources = Vec::new();
    for file in files.iter().filter(|f| f.exists()) {
        let read =
            || std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()));
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(one_line_sources(&read()?)),
            Some("sources") => sources.extend(deb822_sources(&read()?)),
            _ => {}
        }
    }
    Ok(sources)
}

/// apt's older format: `deb [options] URI suite component…`.
fn one_line_sources(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix(char::is_whitespace)?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(bracket) => bracket.split_once(']')?,
            None => ("", rest),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let mut words = rest.split_whitespace().map(str::to_owned);
        let signed_by = options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="));
        Some(Source {
            uri: words.next()?,
            suites: vec![words.next()?],
            components: words.collect(),
            signed_by: signed_by.map(|s| format!(" {s}")),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// apt's newer format: paragraphs of `Key: value`, where a value goes on in indented lines.
fn deb822_sources(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain(std::iter::once("")) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(deb822_source(&fields));
            fields.clear();
        } else if line.starts_with(char::is_whitespace) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.trim_end().to_owned()));
        }
    }
    sources
}

fn deb822_source(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| fields.iter().find(|(k, _)| k == name).map(|(_, v)| v);
    let words = |name: &str| -> Vec<String> {
        let value = field(name).map(String::as_str).unwrap_or_default();
        value.split_whitespace().map(str::to_owned).collect()
    };
    if words("enabled").first().is_some_and(|v| v == "no") {
        return None;
    }
    if !words("types").iter().any(|t| t == "deb") {
        return None;
    }
    Some(Source {
        uri: words("uris").into_iter().next()?,
        suites: words("suites"),
        components: words("components"),
        // Kept as it is written: it may be a path, or a whole key over many lines.
        signed_by: field("signed-by").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_with_and_without_options() {
        let text = "# deb http://no/ x main\n\
                    deb-src http://no/ x main\n\
                    deb http://a/debian bookworm main contrib # note\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://b/debian bookworm-updates main\n";
        let sources = one_line_sources(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].uri, "http://a/debian");
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert!(sources[0].has_suite("bookworm") && !sources[1].has_suite("bookworm"));
        assert_eq!(sources[1].signed_by.as_deref(), Some(" /k.gpg"));
    }

    #[test]
    fn the_newer_format_with_comments_paragraphs_and_a_key_within() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://a/debian http://b/\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN\n .\n AAA\n\n\
                    Types: deb\nEnabled: no\nURIs: http://c/\nSuites: bookworm\nComponents: main\n\n\
                    Types: deb-src\nURIs: http://d/\nSuites: bookworm\nComponents: main";
        let sources = deb822_sources(text);
        assert_eq!(sources.len(), 1);
        let source = &sources[0];
        assert_eq!(source.uri, "http://a/debian");
        assert!(source.has_suite("bookworm-updates"));
        let written = source.with_only_suite("bookworm-backports");
        assert!(
            written.ends_with("Signed-By:\n -----BEGIN\n .\n AAA\n"),
            "{written}"
        );
        // What is written is read back as the same mirror.
        let again = deb822_sources(&written);
        assert_eq!(again[0].uri, source.uri);
        assert!(again[0].has_suite("bookworm-backports") && again[0].signed_by == source.signed_by);
    }

    #[test]
    fn a_suite_counts_only_with_its_main_component() {
        let nodistro = one_line_sources("deb http://a/ bookworm contrib\n");
        assert!(!nodistro[0].has_suite("bookworm"));
    }

    #[test]
    fn backports_are_asked_by_name() {
        assert_eq!(
            install_args(&["incus-base"], Some("bookworm-backports")).join(" "),
            "install --yes --no-install-recommends --target-release=bookworm-backports incus-base"
        );
    }
}
