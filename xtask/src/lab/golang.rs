//! Programs that are built from their public source with Go: once, then kept in the cache under a name
//! that says what they are made from, with their SHA-256 beside them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use veza_probe::command::Command;

use super::image::{self, Work};
use super::packages;
use super::program::{Built, GoProgramSpec};
use super::role::short_digest;
use super::tale::Tale;

/// Raise it when something else than the specification decides what comes out.
const RECIPE: &str = "1";
/// The file beside the program with its SHA-256.
const SUM: &str = "sha256";
/// Where Go's own archive is unpacked to, which not every PATH has.
const GO_FOLDER: &str = "/usr/local/go/bin";
/// What the base image's Debian calls it; its Go is 1.24.
const GO_PACKAGE: &str = "golang-go";
const SHORT: Duration = Duration::from_secs(60);

/// The program from the cache, built first where it is not there or is not what was built.
///
/// # Errors
/// With the end of the build's output; when what was built calls itself another version.
pub async fn ensure(spec: &GoProgramSpec, tale: &Tale) -> anyhow::Result<Built> {
    let cache = image::cache(|name| std::env::var_os(name))?;
    let folder = cache.join(hash(spec));
    match kept(&folder, spec.name()) {
        Ok(Some(built)) => return Ok(built),
        Ok(None) => {}
        Err(error) => tale.say(&format!("{error:#}: building it again")),
    }
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let work = Work::new(&cache, &hash(spec))?;
    let (go, version) = match host_go(&spec.go).await {
        Some((go, version)) => (Some(go), version),
        None => (None, format!("Debian's {GO_PACKAGE}")),
    };
    tale.say(&format!(
        "{} {} is not in the cache: building it from source with {version}, which takes minutes",
        spec.name(),
        spec.says
    ));
    let out = work.path().join("out");
    match go {
        Some(go) => {
            let command = install(Command::new(go), spec, &out);
            let what = format!("building {}", spec.name());
            tale.during(&what, work.logged(command)).await?;
        }
        None => build_in_debian(&cache, &work, spec, &out, tale).await?,
    }
    check_version(&out.join(spec.name()), &spec.says).await?;
    keep(&out, &folder, spec.name())?;
    std::fs::remove_dir_all(work.path()).context("removing what the build left")?;
    let built = kept(&folder, spec.name())?;
    built.with_context(|| format!("{} was just written and is gone", folder.display()))
}

/// What a program is made from, as the name of its folder.
fn hash(spec: &GoProgramSpec) -> String {
    let GoProgramSpec {
        module,
        version,
        ldflags,
        says,
        ..
    } = spec;
    let parts = [
        RECIPE,
        module,
        version,
        ldflags,
        says,
        std::env::consts::ARCH,
    ];
    short_digest([parts.join("\0").as_bytes()])
}

fn sum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// The program in a folder; none when it was never built.
///
/// # Errors
/// When it is there, but is not what was built.
fn kept(folder: &Path, name: &str) -> anyhow::Result<Option<Built>> {
    let path = folder.join(name);
    let Ok(bytes) = std::fs::read(&path) else {
        return Ok(None);
    };
    let noted = std::fs::read_to_string(folder.join(SUM)).unwrap_or_default();
    let found = sum(&bytes);
    ensure!(
        noted.split_whitespace().next() == Some(found.as_str()),
        "{} has the SHA-256 {found}, and when it was built it had {:?}",
        path.display(),
        noted.split_whitespace().next().unwrap_or("none")
    );
    Ok(Some(Built {
        bytes: Arc::new(bytes),
        sum: Some(found),
    }))
}

/// Gives what was built its place, whole or not at all.
fn keep(out: &Path, folder: &Path, name: &str) -> anyhow::Result<()> {
    let program = out.join(name);
    let bytes =
        std::fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    // As `sha256sum --check` reads it.
    std::fs::write(out.join(SUM), format!("{}  {name}\n", sum(&bytes)))?;
    for file in [name, SUM] {
        File::open(out.join(file))?.sync_all()?;
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::rename(out, folder)
        .with_context(|| format!("renaming {} to {}", out.display(), folder.display()))?;
    Ok(())
}

/// Adds to `go`, or to a chroot that has it, what builds the program into a folder. Without C, so that no C
/// library has to fit; Go must not fetch another Go, and must not look for one in a project's folder.
fn install(command: Command, spec: &GoProgramSpec, out: &Path) -> Command {
    command
        .args(["install", "-trimpath", "-ldflags", &spec.ldflags])
        .arg(format!("{}@{}", spec.module, spec.version))
        .folder("/")
        .env("GOBIN", out)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off")
}

/// A Go of this host that is not older than asked, with what it calls itself.
async fn host_go(oldest: &str) -> Option<(PathBuf, String)> {
    let by_path = packages::tool("go").ok();
    let usual = Some(Path::new(GO_FOLDER).join("go")).filter(|go| go.exists());
    for go in by_path.into_iter().chain(usual) {
        let ask = Command::new(&go)
            .args(["env", "GOVERSION"])
            .folder("/")
            .env("GOTOOLCHAIN", "local");
        let Ok(said) = ask.run(SHORT).await else {
            continue;
        };
        let version = said.stdout.trim().to_owned();
        if is_at_least(&version, oldest) {
            return Some((go, version));
        }
    }
    None
}

/// Whether `go1.26.8` or `go1.25rc1` is not older than `1.24`.
fn is_at_least(version: &str, oldest: &str) -> bool {
    let parse = |text: &str| {
        let mut parts = text.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit());
            part.get(..end.unwrap_or(part.len()))?.parse::<u32>().ok()
        });
        Some((parts.next()??, parts.next()??))
    };
    let found = version.strip_prefix("go").and_then(parse);
    found.is_some_and(|found| parse(oldest).is_some_and(|oldest| found >= oldest))
}

/// Builds it in a Debian as the base image's.
async fn build_in_debian(
    cache: &Path,
    work: &Work,
    spec: &GoProgramSpec,
    out: &Path,
    tale: &Tale,
) -> anyhow::Result<()> {
    image::bare(cache, work, tale).await?;
    let packages = [GO_PACKAGE].into_iter();
    let what = format!("building {}: installing {GO_PACKAGE}", spec.name());
    tale.during(&what, image::install(work, packages)).await?;
    // Whom this host trusts on the way to the modules, the folder must, too.
    let authorities = "etc/ssl/certs/ca-certificates.crt";
    let own = Path::new("/").join(authorities);
    if own.exists() {
        std::fs::copy(&own, work.root().join(authorities)).context("copying authorities")?;
    }
    let inside = Path::new("/out");
    let command = image::in_chroot(work, ["go"]).await?;
    let command = install(command, spec, inside)
        .env("GOCACHE", "/go/cache")
        .env("GOPATH", "/go")
        .env("HOME", "/go");
    let what = format!("building {}", spec.name());
    tale.during(&what, work.logged(command)).await?;
    std::fs::rename(work.root().join("out"), out).context("taking the program out of the folder")
}

/// Asks a program for its version.
async fn check_version(program: &Path, says: &str) -> anyhow::Result<()> {
    let said = Command::new(program).arg("--version").run(SHORT).await?;
    let first = said.stdout.lines().next().unwrap_or_default();
    ensure!(
        first.split_whitespace().any(|word| word == says),
        "{} was built, but calls itself {first:?}, not {says}",
        program.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn spec(text: &str) -> GoProgramSpec {
        let all = "module = \"example.com/x/prog\"\nversion = \"v1\"\ngo = \"1.24\"\nldflags = \"-s\"\n\
                   says = \"R1\"\npath = \"/p\"\n";
        toml::from_str(&all.replace("v1", text)).unwrap()
    }

    /// A folder of its own for each test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("veza-golang-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_name_says_what_the_program_is_made_from() {
        assert_eq!(spec("v1").name(), "prog");
        assert_eq!(hash(&spec("v1")), hash(&spec("v1")));
        assert_ne!(hash(&spec("v1")), hash(&spec("v2")));
        let mut other = spec("v1");
        other.ldflags = "-s -w".to_owned();
        assert_ne!(hash(&spec("v1")), hash(&other));
        // Where it is put in an instance, and which Go is old enough, is not in it.
        let elsewhere = GoProgramSpec {
            go: "1.25".to_owned(),
            ..spec("v1")
        };
        assert_eq!(hash(&spec("v1")), hash(&elsewhere));
    }

    #[test]
    fn what_is_kept_is_what_was_built_or_is_built_again() {
        let folder = Folder::new("kept");
        let (out, good) = (folder.0.join("out"), folder.0.join("good"));
        assert_eq!(kept(&good, "prog").unwrap(), None);
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("prog"), b"a program").unwrap();
        // What an earlier, broken one left there is gone.
        std::fs::create_dir_all(good.join("old")).unwrap();
        keep(&out, &good, "prog").unwrap();
        let built = kept(&good, "prog").unwrap().unwrap();
        assert_eq!(**built.bytes, *b"a program");
        assert_eq!(built.sum, Some(sum(b"a program")));
        assert!(!out.exists() && !good.join("old").exists());
        std::fs::write(good.join("prog"), b"another one").unwrap();
        let error = kept(&good, "prog").unwrap_err().to_string();
        assert!(error.contains(&sum(b"a program")), "{error}");
        std::fs::write(good.join("prog"), b"a program").unwrap();
        std::fs::remove_file(good.join(SUM)).unwrap();
        assert!(kept(&good, "prog").is_err());
    }

    #[test]
    fn a_go_is_old_enough_by_number() {
        for good in [
            "go1.24",
            "go1.24.4",
            "go1.26.8",
            "go1.100",
            "go2.0",
            "go1.25rc1",
        ] {
            assert!(is_at_least(good, "1.24"), "{good}");
        }
        for bad in ["go1.23.9", "go1.9", "1.26", "devel +abc", "", "go1"] {
            assert!(!is_at_least(bad, "1.24"), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_program_that_calls_itself_another_version_is_none_of_ours() {
        let folder = Folder::new("version");
        let program = folder.0.join("prog");
        let script = "#!/bin/sh\necho 'prog version R10 (commit-id=x)'\necho R1\n";
        std::fs::write(&program, script).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        check_version(&program, "R10").await.unwrap();
        let error = check_version(&program, "R1").await.unwrap_err().to_string();
        assert!(error.contains("R10"), "{error}");
    }
}
