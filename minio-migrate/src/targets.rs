//! Whom this is about: the two stores, with their logins. Nothing is asked of them yet.

pub mod s3;
pub mod keys;
pub mod admin;
pub mod ranges;
pub mod walk;

use veza_probe::clock::Clock;
use veza_probe::minio::Admin;
pub use veza_probe::minio::Login;
use veza_probe::report::Untouched;
use veza_probe::secret;
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::{Args, Endpoint, usage};
use s3::S3;

/// Both stores.
pub struct Targets {
    /// What is moved away from.
    pub source: S3,
    /// What is moved to, by its nodes.
    pub target: S3,
}

/// Makes the clients of both.
///
/// # Errors
/// Usage when variables make no login; missing tool when certificates can't be read.
pub fn resolve(args: &Args) -> Result<Targets, Untouched> {
    let certificates = certificates(args)?;
    let side = |prefix: &str, endpoints: &[Endpoint]| {
        let login = login(prefix)?;
        let made = S3::new(endpoints, certificates.clone(), (&login, &args.region));
        made.map_err(|words| Untouched::from(usage(words)))
    };
    let source: Vec<_> = args.source.iter().cloned().collect();
    Ok(Targets {
        source: side("MINIO_SRC", &source)?,
        target: side("MINIO_DST", &args.targets)?,
    })
}

/// The certificates that were named.
fn certificates(args: &Args) -> Result<Option<Vec<u8>>, Untouched> {
    let Some(path) = &args.ca_file else {
        return Ok(None);
    };
    let read = std::fs::read(path).map_err(|error| {
        let words = format!("MINIO_CA_FILE: {}: {error}", path.display());
        let next = "give a file that can be read";
        Judgement::new(Verdict::MissingTool, "file-unreadable", words, next)
    });
    Ok(Some(read?))
}

/// A client that asks without a login.
///
/// # Errors
/// As [`resolve`].
pub fn plain_client(args: &Args) -> Result<reqwest::Client, Untouched> {
    let made = admin::client(certificates(args)?.as_deref());
    made.map_err(|words| Untouched::from(usage(words)))
}

/// The admin API of both sides: with the logins that are named for it, else with those of S3.
///
/// # Errors
/// As [`resolve`].
pub fn admins(args: &Args, clock: &Clock) -> Result<(Admin, Admin), Untouched> {
    let certificates = certificates(args)?;
    let side = |prefix: &str, endpoints: &[Endpoint]| {
        let own = format!("{prefix}_ADMIN");
        let is_named = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_own =
            is_named(&format!("{own}_ACCESS_KEY")) || is_named(&format!("{own}_ACCESS_KEY_FILE"));
        let login = login(if is_own { &own } else { prefix })?;
        let made = admin::admin(
            clock,
            endpoints,
            certificates.as_deref(),
            (&login, &args.region),
        );
        made.map_err(|words| Untouched::from(usage(words)))
    };
    let source: Vec<_> = args.source.iter().cloned().collect();
    Ok((
        side("MINIO_SRC", &source)?,
        side("MINIO_DST", &args.targets)?,
    ))
}

/// Those who write to the source, each with its own login.
///
/// # Errors
/// As [`resolve`].
pub fn writers(args: &Args) -> Result<Vec<(String, S3)>, Untouched> {
    let Some(path) = &args.cutting.writer_secrets else {
        return Ok(Vec::new());
    };
    let certificates = certificates(args)?;
    let source: Vec<_> = args.source.iter().cloned().collect();
    let logins = admin::writers(&args.cutting.writers, path).map_err(usage)?;
    let store = |login: Login| {
        let made = S3::new(&source, certificates.clone(), (&login, &args.region));
        Ok((login.access.expose().to_owned(), made.map_err(usage)?))
    };
    logins.into_iter().map(store).collect()
}

fn login(prefix: &str) -> Result<Login, Untouched> {
    let read = |key: &str| {
        let name = format!("{prefix}_{key}");
        let value = secret::read(&name, |name| std::env::var_os(name));
        let value = value.map_err(|error| usage(error.to_string()))?;
        let value = value.filter(|secret| !secret.expose().is_empty());
        let missing = || usage(format!("{name} or {name}_FILE must be set"));
        value.ok_or_else(|| Untouched::from(missing()))
    };
    Ok(Login {
        access: read("ACCESS_KEY")?,
        secret: read("SECRET_KEY")?,
    })
}

/// A refusal with its reason and the next step.
pub fn refused(reason_id: &str, words: impl Into<String>, next: &str) -> Untouched {
    Judgement::new(Verdict::Refused, reason_id, words, next).into()
}
