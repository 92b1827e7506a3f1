//! Writers that are frozen: disabled at the source, and believed to be only when each is refused with its own login. A file says who
//! was disabled, before anybody is, so that a run that is killed can be undone.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::Client;
use serde::{Deserialize, Serialize};
use veza_probe::clock::{self, Clock};
use veza_probe::minio::{Admin, Status};

use crate::targets::s3::{Failure, S3, answered};

/// The name and version of a record.
const SCHEMA: &str = "veza-freeze/1";

/// For how long everybody must have been refused, and how long that may take to begin: nodes hear of it one after the other.
const REFUSED_FOR: Duration = Duration::from_secs(1);
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// How often it is tried.
const TRIED_EVERY: Duration = Duration::from_millis(100);

/// How often thawing is tried, and the pause between.
const THAWS: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// A writer: its access key, and itself at the source.
#[derive(Clone)]
pub struct Writer {
    /// The access key.
    pub access: String,
    /// The source, with its login.
    pub store: S3,
}

/// Where writers try to write: a key that is nobody's.
#[derive(Clone, Debug)]
pub struct Canary {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

/// A writer as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    access_key: String,
    was_enabled: bool,
}

/// What stands on disk of a freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    schema: String,
    run: String,
    /// The source's place.
    pub source: String,
    writers: Vec<Found>,
    made_at: String,
    /// When GO was given; afterwards nothing thaws by itself.
    go_at: Option<String>,
}

/// A freeze under way.
pub struct Freeze {
    admin: Admin,
    path: PathBuf,
    record: Record,
    /// Held until the end: a recovery leaves it alone meanwhile.
    _lock: File,
}

/// What came of a record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The writers write again, in words.
    Thawed(String),
    /// It still goes on, or GO was given.
    LeftAlone(String),
    /// They may still be frozen.
    Frozen(String),
}

/// Whether every writer could write before anything was done. Without that a refusal proves nothing.
///
/// # Errors
/// A sentence that names the writer.
pub async fn could_write(writers: &[Writer], source: &S3, canary: &Canary) -> Result<(), String> {
    for Writer { access, store } in writers {
        let put = store.ask(|client| {
            let request = client.put_object().bucket(&canary.bucket).key(&canary.key);
            answered(request.body(Vec::new().into()).send())
        });
        let place = format!("{}/{}", canary.bucket, canary.key);
        let put = put.await.map_err(|failure| {
            format!("writer {access} could not write {place} before it was frozen, so that a refusal proves nothing: {failure}")
        })?;
        remove(source, canary, put.version_id).await.map_err(|failure| {
            format!("writer {access} wrote {place}, and removing that with the migration's login failed: {failure}")
        })?;
    }
    Ok(())
}

async fn remove(source: &S3, canary: &Canary, version: Option<String>) -> Result<(), Failure> {
    let removed = source.ask(|client| {
        let request = client
            .delete_object()
            .bucket(&canary.bucket)
            .key(&canary.key);
        answered(request.set_version_id(version.clone()).send())
    });
    removed.await.map(drop)
}

impl Freeze {
    /// Writes down who is there, and disables those who are enabled.
    ///
    /// # Errors
    /// What stood in the way: before the record is written nothing was done, and afterwards the freeze is given back, to be thawed.
    pub async fn set(
        admin: &Admin,
        clock: &Clock,
        (folder, run, source): (&Path, &str, &str),
        writers: &[Writer],
    ) -> Result<(Freeze, Result<(), String>), String> {
        let mut found = Vec::new();
        for Writer { access, .. } in writers {
            let status = admin
                .user_status(access)
                .await
                .map_err(|error| error.to_string())?;
            found.push(Found {
                access_key: access.clone(),
                was_enabled: status == Status::Enabled,
            });
        }
        let record = Record {
            schema: SCHEMA.to_owned(),
            run: run.to_owned(),
            source: source.to_owned(),
            writers: found,
            made_at: clock.wall(clock.at()).to_string(),
            go_at: None,
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(format!("{run}.json"));
        write(&path, &record)?;
        let lock = locked(&path)?.ok_or_else(|| format!("{}: it is locked", path.display()))?;
        let freeze = Freeze {
            admin: admin.clone(),
            path,
            record,
            _lock: lock,
        };
        let disabled = freeze.disable().await;
        Ok((freeze, disabled))
    }

    async fn disable(&self) -> Result<(), String> {
        for found in self.record.writers.iter().filter(|found| found.was_enabled) {
            let disabled = self
                .admin
                .set_user_status(&found.access_key, Status::Disabled)
                .await;
            disabled.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether each writer is refused whatever it tries: to write, to delete, to begin an upload.
    ///
    /// # Errors
    /// Who was not, and what it could do.
    pub async fn proven(
        &self,
        clock: &Clock,
        writers: &[Writer],
        source: &S3,
        canary: &Canary,
    ) -> Result<(), String> {
        let deadline = clock.at().plus(REFUSED_WITHIN);
        let mut since = None;
        loop {
            let taken = tried(writers, source, canary).await;
            let now = clock.at();
            match taken {
                None => {
                    let since = *since.get_or_insert(now);
                    if now >= since.plus(REFUSED_FOR) {
                        return Ok(());
                    }
                }
                Some(words) if now >= deadline => return Err(words),
                Some(_) => since = None,
            }
            clock::sleep(TRIED_EVERY).await;
        }
    }

    /// Writes down that GO was given.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn go(&mut self, clock: &Clock) -> Result<(), String> {
        self.record.go_at = Some(clock.wall(clock.at()).to_string());
        write(&self.path, &self.record)
    }

    /// Lets those write again who could before, and forgets it.
    ///
    /// # Errors
    /// Who may still be frozen.
    pub async fn thaw(self) -> Result<String, String> {
        thaw(&self.admin, &self.path, &self.record).await
    }
}

/// What a writer was let do; none when everybody was refused everything.
async fn tried(writers: &[Writer], source: &S3, canary: &Canary) -> Option<String> {
    let Canary { bucket, key } = canary;
    for Writer { access, store } in writers {
        for node in store.each() {
            let client: &Client = &node.client;
            let put = client
                .put_object()
                .bucket(bucket)
                .key(key)
                .body(Vec::new().into());
            match answered(put.send()).await {
                Ok(put) => {
                    // It must not be migrated.
                    let _ = remove(source, canary, put.version_id).await;
                    return Some(format!("{access} could still write through {}", node.name));
                }
                Err(failure) if !is_refusal(&failure) => {
                    return Some(odd(access, &node.name, &failure));
                }
                Err(_) => {}
            }
            let delete = client.delete_object().bucket(bucket).key(key);
            match answered(delete.send()).await {
                Ok(deleted) => {
                    let _ = remove(source, canary, deleted.version_id).await;
                    return Some(format!("{access} could still delete through {}", node.name));
                }
                Err(failure) if !is_refusal(&failure) => {
                    return Some(odd(access, &node.name, &failure));
                }
                Err(_) => {}
            }
            let create = client.create_multipart_upload().bucket(bucket).key(key);
            match answered(create.send()).await {
                Ok(upload) => {
                    let id = upload.upload_id.unwrap_or_default();
                    let given_up = source.ask(|client| {
                        let request = client.abort_multipart_upload().bucket(bucket).key(key);
                        answered(request.upload_id(&id).send())
                    });
                    let _ = given_up.await;
                    return Some(format!(
                        "{access} could still begin an upload through {}",
                        node.name
                    ));
                }
                Err(failure) if !is_refusal(&failure) => {
                    return Some(odd(access, &node.name, &failure));
                }
                Err(_) => {}
            }
        }
    }
    None
}

fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.code, Some(401 | 403))
}

fn odd(access: &str, node: &str, failure: &Failure) -> String {
    format!("whether {access} is refused through {node} can't be told: {failure}")
}

async fn thaw(admin: &Admin, path: &Path, record: &Record) -> Result<String, String> {
    let mut trouble = String::new();
    for attempt in 0..THAWS {
        if attempt > 0 {
            clock::sleep(PAUSE).await;
        }
        match enabled(admin, record).await {
            Ok(words) => {
                let removed = std::fs::remove_file(path);
                removed.map_err(|error| {
                    format!("{words}, but removing {}: {error}", path.display())
                })?;
                return Ok(words);
            }
            Err(words) => trouble = words,
        }
    }
    Err(trouble)
}

async fn enabled(admin: &Admin, record: &Record) -> Result<String, String> {
    let mut names = Vec::new();
    for found in record.writers.iter().filter(|found| found.was_enabled) {
        let access = &found.access_key;
        let set = admin.set_user_status(access, Status::Enabled).await;
        set.map_err(|error| error.to_string())?;
        let status = admin.user_status(access).await;
        if status.map_err(|error| error.to_string())? != Status::Enabled {
            return Err(format!("{access} is still disabled"));
        }
        names.push(access.as_str());
    }
    Ok(match names.as_slice() {
        [] => "nobody had been frozen".to_owned(),
        names => format!("{} may write again", names.join(", ")),
    })
}

/// Freezes that earlier runs left: their files.
///
/// # Errors
/// What can't be read.
pub fn left(folder: &Path, source: &str) -> Result<Vec<(PathBuf, Record)>, String> {
    let told = |path: &Path, error: &dyn std::fmt::Display| {
        format!("{}: {error}: a writer may be frozen by it", path.display())
    };
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(told(folder, &error)),
    };
    let mut all = Vec::new();
    for file in files {
        let path = file.map_err(|error| told(folder, &error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let bytes = std::fs::read(&path).map_err(|error| told(&path, &error))?;
            let record: Record =
                serde_json::from_slice(&bytes).map_err(|error| told(&path, &error))?;
            if record.source == source {
                all.push((path, record));
            }
        }
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}

impl Record {
    /// Whether GO was given, and when.
    pub fn go_at(&self) -> Option<&str> {
        self.go_at.as_deref()
    }

    /// Who was frozen, and when, in words.
    pub fn told(&self) -> String {
        let names: Vec<&str> = self
            .writers
            .iter()
            .map(|found| found.access_key.as_str())
            .collect();
        format!(
            "{} froze {} at {}",
            self.run,
            names.join(", "),
            self.made_at
        )
    }
}

/// Thaws what a run left that was killed.
pub async fn recover(admin: &Admin, (path, record): &(PathBuf, Record)) -> Recovered {
    let told = record.told();
    if let Some(go_at) = record.go_at() {
        let path = path.display();
        return Recovered::LeftAlone(format!(
            "{told}; GO was given at {go_at}, so the target has what the source has not: nothing thaws by itself. To write to the \
             source again: mc admin user enable, and remove {path}"
        ));
    }
    match locked(path) {
        Ok(None) => return Recovered::LeftAlone(format!("{told}, and is still at work")),
        Err(words) => return Recovered::Frozen(words),
        Ok(Some(_lock)) => {}
    }
    match thaw(admin, path, record).await {
        Ok(words) => Recovered::Thawed(format!("{told}; {words}")),
        Err(words) => Recovered::Frozen(format!("{told}; {words}")),
    }
}

/// The lock of a record; none while a run has it.
fn locked(path: &Path) -> Result<Option<File>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(told)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(told(error)),
    }
}

/// Writes a record in its own file, which may be locked: it is short, and whole after a crash, or can't be read and is told of.
fn write(path: &Path, record: &Record) -> Result<(), String> {
    let told = |error: std::io::Error| {
        format!(
            "{}: {error}: without it a freeze could not be undone",
            path.display()
        )
    };
    let text = serde_json::to_vec_pretty(record).map_err(|error| told(error.into()))?;
    let mut options = File::options();
    let mut file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(told)?;
    file.write_all(&text)
        .and_then(|()| file.set_len(text.len() as u64))
        .map_err(told)?;
    file.sync_all().map_err(told)?;
    let folder = path.parent().map(File::open).transpose().map_err(told)?;
    folder
        .map_or(Ok(()), |folder| folder.sync_all())
        .map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            schema: SCHEMA.to_owned(),
            run: "r".to_owned(),
            source: "old:9000".to_owned(),
            writers: vec![Found {
                access_key: "app".to_owned(),
                was_enabled: true,
            }],
            made_at: "then".to_owned(),
            go_at: None,
        }
    }

    #[test]
    fn a_record_is_found_again_and_kept_while_its_run_lives() {
        let folder = std::env::temp_dir().join(format!("veza-freeze-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("r.json");
        let mut written = record();
        written.go_at = Some("a long word that makes the file longer".to_owned());
        write(&path, &written).unwrap();
        write(&path, &record()).unwrap();
        let found = left(&folder, "old:9000").unwrap();
        assert_eq!(found, [(path.clone(), record())]);
        assert!(left(&folder, "else:9000").unwrap().is_empty());
        let held = locked(&path).unwrap();
        assert!(held.is_some() && locked(&path).unwrap().is_none());
        std::fs::write(&path, "{").unwrap();
        assert!(
            left(&folder, "old:9000")
                .unwrap_err()
                .contains("may be frozen")
        );
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(left(&folder, "old:9000").unwrap().is_empty());
    }
}
