//! Whom this is about: the two stores, with their logins. Nothing is asked of them yet.

pub mod s3;
pub mod walk;

pub use veza_probe::minio::Login;
use veza_probe::report::Untouched;
use veza_probe::secret;
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::{Args, usage};
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
    let certificates = match &args.ca_file {
        None => None,
        Some(path) => Some(std::fs::read(path).map_err(|error| {
            let words = format!("MINIO_CA_FILE: {}: {error}", path.display());
            Judgement::new(
                Verdict::MissingTool,
                "file-unreadable",
                words,
                "give a file that can be read",
            )
        })?),
    };
    let side = |prefix: &str, endpoints: &[crate::cli::Endpoint]| {
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
