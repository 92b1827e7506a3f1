//! The base image: Debian with the packages of all roles, made by debootstrap from the mirror that
//! the host is set up with. Kept as files named by what they are made from, so that a second `up`
//! imports them in seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use veza_probe::command::Command;
use veza_probe::incus::{Incus, Method, Request};

use super::objects;
use super::packages::{self, Missing};
use super::role::short_digest;
use super::tale::Tale;
use super::topology::LabSpec;

const SUITE: &str = "trixie";
/// udev: `/sys` is writable in a container, so systemd-networkd waits for it, else for ever.
const INCLUDE: &str = "systemd,systemd-sysv,dbus,udev,iproute2,ca-certificates,curl";
/// Raise it when the steps after debootstrap change, so that images made by older ones are not used.
const RECIPE: &str = "1";
/// Names the mirror where the host gets no Debian from anywhere.
const MIRROR_VARIABLE: &str = "VEZA_DEBIAN_MIRROR";
/// The longest that one step may take.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const SHORT: Duration = Duration::from_secs(120);

/// The folder of all caches: `$XDG_CACHE_HOME/veza`, else `~/.cache/veza`.
///
/// # Errors
/// When neither variable is set.
pub fn cache(lookup: impl Fn(&str) -> Option<std::ffi::OsString>) -> anyhow::Result<PathBuf> {
    let set = |name: &str| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let base =
        base.context("neither XDG_CACHE_HOME nor HOME is set: where should the cache be?")?;
    Ok(base.join("veza"))
}

/// What an image is made from.
#[derive(Clone, Debug)]
pub struct Image {
    packages: BTreeSet<String>,
    gateway: String,
    domain: String,
}

impl Image {
    /// The image that serves all of these packages.
    pub fn new(lab: &LabSpec, packages: BTreeSet<String>) -> Image {
        Image {
            packages,
            gateway: lab.gateway.to_string(),
            domain: lab.domain.clone(),
        }
    }

    fn base_hash() -> String {
        short_digest([SUITE, "\0", INCLUDE].map(str::as_bytes))
    }

    fn hash(&self) -> String {
        let packages: Vec<&str> = self.packages.iter().map(String::as_str).collect();
        let packages = packages.join(" ");
        let base = Image::base_hash();
        short_digest(
            [
                &base,
                "\0",
                RECIPE,
                "\0",
                &packages,
                "\0",
                &self.gateway,
                "\0",
                &self.domain,
            ]
            .map(str::as_bytes),
        )
    }

    /// The image's name in Incus.
    pub fn alias(&self) -> String {
        format!("veza-base-{}", self.hash())
    }

    /// Sees to it that Incus has the image: already, from the cache, or made now.
    ///
    /// # Errors
    /// With the end of the log of the step that failed.
    pub async fn ensure(&self, incus: &Incus, tale: &Tale) -> anyhow::Result<()> {
        let alias = self.alias();
        let path = format!("/1.0/images/aliases/{alias}");
        if objects::find(incus, &path).await?.is_some() {
            return Ok(());
        }
        let cache = cache(|name| std::env::var_os(name))?;
        let folder = cache.join(self.hash());
        if folder.is_dir() {
            tale.say(&format!(
                "the base image is in the cache: {}",
                folder.display()
            ));
        } else {
            self.build(&cache, &folder, tale).await?;
        }
        let import = async {
            if self.import(incus, &folder, &alias).await.is_ok() {
                return Ok(());
            }
            // An import that was cut off may have ended just now, without giving the image its name.
            remove_others(incus, self, tale).await?;
            self.import(incus, &folder, &alias).await
        };
        tale.during("importing the base image", import).await
    }

    async fn import(&self, incus: &Incus, folder: &Path, alias: &str) -> anyhow::Result<()> {
        let socket = incus.place().socket();
        let socket = socket.context("a lab is in the Incus of this host")?;
        let client = Command::new(packages::tool("incus")?)
            .args(["--project", incus.project(), "image", "import", "--quiet"])
            .args([
                "metadata.tar",
                "rootfs.squashfs",
                "local:",
                "--alias",
                alias,
            ])
            .folder(folder)
            .env("INCUS_SOCKET", socket)
            .env_remove("INCUS_REMOTE");
        client.run(BUILD_LIMIT).await?;
        Ok(())
    }

    async fn build(&self, cache: &Path, folder: &Path, tale: &Tale) -> anyhow::Result<()> {
        std::fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
        let work = Work::new(cache, &self.hash())?;
        bare(cache, &work, tale).await?;
        let what = format!("base image: installing {} packages", self.packages.len());
        tale.during(&what, self.install(&work)).await?;
        tale.during("base image: packing", self.pack(&work)).await?;
        // Only a folder that is complete and on disk ever has the good name.
        std::fs::remove_dir_all(work.root()).context("removing the unpacked image")?;
        for name in ["metadata.tar", "rootfs.squashfs"] {
            File::open(work.0.join(name))?.sync_all()?;
        }
        std::fs::rename(&work.0, folder)
            .with_context(|| format!("renaming {} to {}", work.0.display(), folder.display()))?;
        File::open(cache)?.sync_all()?;
        Ok(())
    }

    async fn install(&self, work: &Work) -> anyhow::Result<()> {
        let root = work.root();
        let before = enabled_units(&root)?;
        let packages = self.packages.iter().map(String::as_str);
        install(work, packages).await?;
        // What a package enabled is a role's to enable.
        for link in enabled_units(&root)?.difference(&before) {
            std::fs::remove_file(link).with_context(|| format!("removing {}", link.display()))?;
        }
        self.configure(work, &root).await
    }

    async fn configure(&self, work: &Work, root: &Path) -> anyhow::Result<()> {
        let mask = [
            "systemctl",
            "--quiet",
            "mask",
            "systemd-modules-load.service",
            "console-getty.service",
        ];
        chroot(work, mask).await?;
        let timers = [
            "systemctl",
            "--quiet",
            "disable",
            "apt-daily.timer",
            "apt-daily-upgrade.timer",
        ];
        chroot(work, timers).await?;
        chroot(
            work,
            ["systemctl", "--quiet", "enable", "systemd-networkd.service"],
        )
        .await?;
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            // It may be a link to somewhere that is this host's.
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        // Without a default route nothing that runs in the lab can send a packet out of it.
        write(
            "etc/systemd/network/eth0.network",
            "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\
             [DHCPv4]\nUseGateway=no\n",
        )?;
        let resolv = format!("nameserver {}\nsearch {}\n", self.gateway, self.domain);
        write("etc/resolv.conf", &resolv)?;
        // Empty, each container makes its own; missing would be a first boot, which enables units.
        write("etc/machine-id", "")?;
        for folder in ["var/lib/apt/lists", "var/cache/apt"] {
            remove_content(&root.join(folder))?;
        }
        Ok(())
    }

    async fn pack(&self, work: &Work) -> anyhow::Result<()> {
        squash(&work.root(), &work.0.join("rootfs.squashfs"), "3", work).await?;
        let templates = work.0.join("templates");
        std::fs::create_dir_all(&templates)?;
        std::fs::write(templates.join("hostname.tpl"), "{{ container.name }}\n")?;
        let arch = Command::new("uname").arg("-m").run(SHORT).await?.stdout;
        // JSON is YAML, too.
        let metadata = json!({
            "architecture": arch.trim(),
            "creation_date": 1_700_000_000,
            "properties": { "os": "debian", "release": SUITE, "description": "base image of the lab" },
            "templates": {
                "/etc/hostname": { "when": ["create", "copy"], "template": "hostname.tpl" },
            },
        });
        std::fs::write(work.0.join("metadata.yaml"), metadata.to_string())?;
        let tar = Command::new("tar")
            .args([
                "--create",
                "--file=metadata.tar",
                "metadata.yaml",
                "templates",
            ])
            .folder(&work.0);
        tar.run(SHORT).await?;
        std::fs::remove_dir_all(templates)?;
        std::fs::remove_file(work.0.join("metadata.yaml"))?;
        Ok(())
    }
}

/// Unpacks the bare Debian into the folder: from the cache, else from the mirror.
///
/// # Errors
/// With the end of the log of the step that failed.
pub async fn bare(cache: &Path, work: &Work, tale: &Tale) -> anyhow::Result<()> {
    let mirror = mirror()?;
    let base = cache.join(format!("base-{}.squashfs", Image::base_hash()));
    if base.exists() {
        let what = "base image: unpacking the bare Debian from the cache";
        return tale.during(what, unpack(&base, work)).await;
    }
    let what = format!("base image: debootstrap {SUITE} from {mirror}");
    tale.during(&what, debootstrap(&mirror, work, &base)).await
}

/// Installs packages in the folder, of which none starts anything there.
///
/// # Errors
/// With the end of apt's output.
pub async fn install<'a>(
    work: &Work,
    packages: impl Iterator<Item = &'a str>,
) -> anyhow::Result<()> {
    let root = work.root();
    let policy = root.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o755))?;
    let resolv = root.join("etc/resolv.conf");
    std::fs::copy("/etc/resolv.conf", &resolv).context("copying /etc/resolv.conf")?;
    let mut packages = packages.peekable();
    if packages.peek().is_some() {
        let args = [
            "apt-get",
            "-q",
            "install",
            "--yes",
            "--no-install-recommends",
        ];
        chroot(work, args.into_iter().chain(packages)).await?;
    }
    chroot(work, ["apt-get", "clean"]).await?;
    std::fs::remove_file(&policy)?;
    Ok(())
}

/// A folder in which something is being made; what an unclean end left there is removed first.
pub struct Work(PathBuf);

impl Work {
    /// The folder for what will have this name in the cache.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(cache: &Path, hash: &str) -> anyhow::Result<Work> {
        let work = Work(cache.join(format!("{hash}.building")));
        if work.0.exists() {
            std::fs::remove_dir_all(&work.0)
                .with_context(|| format!("removing {}", work.0.display()))?;
        }
        std::fs::create_dir_all(&work.0).with_context(|| format!("making {}", work.0.display()))?;
        Ok(work)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The Debian in it.
    pub fn root(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Runs a step with its output in a file; when it fails, the end of that output tells why.
    ///
    /// # Errors
    /// With that end.
    pub async fn logged(&self, command: Command) -> anyhow::Result<()> {
        let path = self.0.join("log");
        let log = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let line = command.line();
        let done = command.log(log).output(BUILD_LIMIT).await?;
        if done.status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let mut tail: Vec<&str> = log.lines().rev().take(8).collect();
        tail.reverse();
        bail!(
            "{line} ended with {}; {} ends:\n  {}",
            done.status,
            path.display(),
            tail.join("\n  ")
        )
    }
}

/// The mirror to take Debian from.
fn mirror() -> anyhow::Result<String> {
    let named = std::env::var(MIRROR_VARIABLE).ok();
    if let Some(named) = named.filter(|m| !m.is_empty()) {
        return Ok(named);
    }
    packages::debian_mirror()?.with_context(|| {
        Missing(format!(
            "the base image is Debian {SUITE}, and this host's apt sources name no mirror of Debian: \
             name one in {MIRROR_VARIABLE}"
        ))
    })
}

/// The proxy that apt is set up with, for programs that only know the environment.
async fn with_proxy(command: Command) -> anyhow::Result<Command> {
    let ask = Command::new("apt-config").args(["shell", "PROXY", "Acquire::http::Proxy"]);
    let said = match packages::tool("apt-config") {
        Ok(_) => ask.run(SHORT).await?.stdout,
        Err(_) => String::new(),
    };
    let proxy = said
        .trim()
        .strip_prefix("PROXY='")
        .and_then(|p| p.strip_suffix('\''));
    Ok(match proxy {
        Some(proxy) if !proxy.is_empty() => command.env("http_proxy", proxy),
        _ => command,
    })
}

async fn debootstrap(mirror: &str, work: &Work, base: &Path) -> anyhow::Result<()> {
    let keyring = packages::debian_keyring().context("Debian's archive keyring is not there")?;
    let command = Command::new(packages::tool("debootstrap")?)
        .args(["--variant=minbase", &format!("--include={INCLUDE}")])
        .arg(format!("--keyring={}", keyring.display()))
        .arg(SUITE)
        .arg(work.root())
        .arg(mirror);
    work.logged(with_proxy(command).await?).await?;
    // Kept, so that a further role costs its packages only.
    let new = base.with_extension("new");
    let _ = std::fs::remove_file(&new);
    squash(&work.root(), &new, "1", work).await?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, base)?;
    Ok(())
}

async fn unpack(base: &Path, work: &Work) -> anyhow::Result<()> {
    let command = Command::new(packages::tool("unsquashfs")?)
        .args(["-no-progress", "-dest"])
        .arg(work.root())
        .arg(base);
    work.logged(command).await
}

async fn squash(from: &Path, to: &Path, level: &str, work: &Work) -> anyhow::Result<()> {
    let command = Command::new(packages::tool("mksquashfs")?)
        .arg(from)
        .arg(to)
        .args(["-comp", "zstd", "-Xcompression-level", level])
        .args(["-noappend", "-no-progress", "-quiet"]);
    work.logged(command).await
}

async fn chroot<A: AsRef<OsStr>>(
    work: &Work,
    argv: impl IntoIterator<Item = A>,
) -> anyhow::Result<()> {
    work.logged(in_chroot(work, argv).await?).await
}

/// A command in the folder's Debian.
///
/// # Errors
/// When this host has no `chroot`.
pub async fn in_chroot<A: AsRef<OsStr>>(
    work: &Work,
    argv: impl IntoIterator<Item = A>,
) -> anyhow::Result<Command> {
    let command = Command::new(packages::tool("chroot")?)
        .arg(work.root())
        .args(argv)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    with_proxy(command).await
}

/// The links by which systemd starts units.
fn enabled_units(root: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let folder = root.join("etc/systemd/system");
    let mut links = BTreeSet::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        let wants = path
            .extension()
            .is_some_and(|e| e == "wants" || e == "requires");
        if wants && path.is_dir() {
            for link in std::fs::read_dir(&path)? {
                links.insert(link?.path());
            }
        }
    }
    Ok(links)
}

fn remove_content(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("emptying {}", folder.display()))?;
        std::fs::create_dir(folder)?;
    }
    Ok(())
}

/// Removes images that the topology does not ask for, and one whose import was cut off before it had
/// its name. Instances made from them stand on their own.
///
/// # Errors
/// As every change.
pub async fn remove_others(incus: &Incus, image: &Image, tale: &Tale) -> anyhow::Result<()> {
    let images: Vec<BTreeMap<String, Value>> = incus.get("/1.0/images?recursion=1").await?;
    let alias = image.alias();
    for image in images {
        let aliases = image.get("aliases").and_then(Value::as_array);
        let names = aliases.into_iter().flatten().filter_map(|a| a.get("name"));
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        let fingerprint = image.get("fingerprint").and_then(Value::as_str);
        let Some(fingerprint) = fingerprint.filter(|_| !names.contains(&alias.as_str())) else {
            continue;
        };
        tale.say(&format!(
            "removing another base image ({})",
            names.join(", ")
        ));
        let path = format!("/1.0/images/{fingerprint}");
        incus
            .change(Request::new(Method::DELETE, path), SHORT)
            .await?;
    }
    Ok(())
}

/// Removes the cache.
///
/// # Errors
/// When the system refuses.
pub fn remove_cache(tale: &Tale) -> anyhow::Result<()> {
    let cache = cache(|name| std::env::var_os(name))?;
    ensure!(
        cache.ends_with("veza"),
        "{} is no cache of ours",
        cache.display()
    );
    if cache.exists() {
        std::fs::remove_dir_all(&cache).with_context(|| format!("removing {}", cache.display()))?;
        tale.say(&format!("removed the cache {}", cache.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::small;
    use super::*;

    fn image(packages: &[&str]) -> Image {
        let packages = packages.iter().map(|p| (*p).to_owned()).collect();
        Image::new(&small().lab, packages)
    }

    #[test]
    fn the_name_says_what_the_image_is_made_from() {
        assert_eq!(image(&["a", "b"]).alias(), image(&["b", "a"]).alias());
        assert_ne!(image(&["a", "b"]).alias(), image(&["a"]).alias());
        assert_ne!(image(&["ab"]).alias(), image(&["a", "b"]).alias());
    }

    #[test]
    fn the_cache_is_where_such_things_belong() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| v.into())
            }
        };
        assert_eq!(
            cache(env(&[("XDG_CACHE_HOME", "/x")])).unwrap(),
            Path::new("/x/veza")
        );
        assert_eq!(
            cache(env(&[("XDG_CACHE_HOME", ""), ("HOME", "/h")])).unwrap(),
            Path::new("/h/.cache/veza")
        );
        assert!(cache(env(&[])).is_err());
    }
}
