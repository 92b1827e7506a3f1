//! What is typed about a cutover: who writes, how long that may stop, what may be lost.

use std::path::PathBuf;
use std::time::Duration;

use veza_probe::arguments::seconds;

/// Losses that every migration by S3 has, by name: nobody can choose a version's id, or when it was written.
pub const ALWAYS: [&str; 2] = ["version-ids", "last-modified"];

/// What a cutover may do.
#[derive(Clone, Debug, clap::Args)]
pub struct Cutting {
    /// The access key of a user who writes to the source; may be repeated, and the variable has commas between. The cutover disables
    /// these users, and believes that they are frozen when each is refused with its own login. Root can't be disabled.
    #[arg(
        long = "writer-access-key",
        env = "MINIO_MIGRATE_WRITERS",
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub writers: Vec<String>,

    /// A file with a line for each writer: its access key, a blank, its secret key. Nobody else may read it.
    #[arg(long, env = "MINIO_WRITER_SECRETS_FILE", value_name = "FILE")]
    pub writer_secrets: Option<PathBuf>,

    /// GO without a proof that nobody writes: two complete listings that are the same show two moments, and nothing between.
    /// With writers: GO also where the source does not tell which writes it still serves.
    #[arg(long, env = "MINIO_MIGRATE_ACCEPT_UNFROZEN")]
    pub accept_unfrozen: bool,

    /// How long the writers may be frozen until GO, in seconds. What a rehearsal says will take longer is not begun; what takes
    /// longer is ended, and they may write again.
    #[arg(long, env = "MINIO_MIGRATE_MAX_FREEZE", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub max_freeze: Duration,

    /// What may be lost, by name; may be repeated, and the variable has commas between: version-ids and last-modified always are,
    /// others (retention, etag, expires) where the report names them.
    #[arg(
        long = "accept-loss",
        env = "MINIO_MIGRATE_ACCEPT_LOSSES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub accepted: Vec<String>,

    /// With reverse: how long a pass may take, in seconds; so old may a write be that the old store has not.
    #[arg(long, env = "MINIO_MIGRATE_MAX_LAG", value_name = "SECONDS", value_parser = seconds)]
    pub max_lag: Option<Duration>,

    /// Lets writers write again that a cutover froze which was killed. After GO it never does: then the target has what the source
    /// has not.
    #[arg(long)]
    pub recover: bool,
}

impl Cutting {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// A sentence that names the flag.
    pub fn check(&self) -> Result<(), String> {
        let known = [
            "version-ids",
            "last-modified",
            "retention",
            "etag",
            "expires",
        ];
        if let Some(name) = self
            .accepted
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            return Err(format!(
                "--accept-loss {name}: expected one of {}",
                known.join(", ")
            ));
        }
        if self.writers.iter().any(String::is_empty) {
            return Err("--writer-access-key: expected an access key".to_owned());
        }
        if !self.writers.is_empty() && self.writer_secrets.is_none() {
            return Err(
                "--writer-access-key: each writer's own login must be refused before it is called frozen: give their secret keys \
                 in a file with MINIO_WRITER_SECRETS_FILE"
                    .to_owned(),
            );
        }
        if self.writers.is_empty() && !self.accept_unfrozen && !self.recover {
            return Err(
                "cutover: who writes? Name them with --writer-access-key, or say --accept-unfrozen"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
