//! What the lab keeps on disk between commands: the lock, the credentials, and notes of what it
//! changed on the host, so that `down` can put it back.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::verifier;

/// A secret of this name is the SCRAM verifier of the secret whose name stands before it.
const VERIFIER: &str = "_verifier";

const CREDENTIALS: &str = "credentials.toml";
const NOTES: &str = "host.toml";
const LOCK: &str = "lock";

/// The lab's state folder.
#[derive(Clone, Debug)]
pub struct Keep(PathBuf);

/// Who the lab is, and the secrets that were made for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// A random name; the Incus project carries it, too.
    pub lab_id: String,
    /// Secrets by name.
    pub secrets: BTreeMap<String, String>,
}

/// What the lab changed on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// The Incus daemon that the lab started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incusd: Option<Started>,
    /// `fs.inotify.max_user_instances` as it was before the lab raised it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inotify_before: Option<u64>,
    /// The destination of the blackhole route that the lab added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// How the daemon was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Started {
    /// By `systemctl start`.
    Systemd,
    /// By the lab itself, which has not heard from it yet.
    Starting,
    /// By the lab itself; the numbers tell it from a later process with the same id.
    Process {
        /// Its process id.
        pid: u32,
        /// Its start in clock ticks since boot.
        start_ticks: u64,
        /// The boot that the ticks count from.
        boot_id: String,
    },
}

impl Keep {
    /// The folder for a project: in `VEZA_STATE_DIR`, else in `/var/lib/veza`. `lookup` is
    /// `std::env::var_os` but in tests.
    pub fn new(project: &str, lookup: impl Fn(&str) -> Option<std::ffi::OsString>) -> Keep {
        let base = lookup("VEZA_STATE_DIR").filter(|v| !v.is_empty());
        let base = base.map_or_else(|| PathBuf::from("/var/lib/veza"), PathBuf::from);
        Keep(base.join("lab").join(project))
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the lab's lock: one command changes the lab at a time. The lock goes when the value is
    /// dropped, and with the process.
    ///
    /// # Errors
    /// When another command holds it; the message says which.
    pub fn lock(&self, doing: &str) -> anyhow::Result<File> {
        let path = self.path(LOCK);
        // Folders are open to all, the files in them are not: a certificate is read by anyone.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.0)?;
        for _ in 0..5 {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("opening {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    file.read_to_string(&mut holder)?;
                    bail!(
                        "another command changes the lab right now ({}): wait for it, or end it",
                        holder.trim()
                    );
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            // `down` removes the folder while it holds the lock: what we locked may be gone.
            let same = std::fs::metadata(&path)
                .is_ok_and(|now| file.metadata().is_ok_and(|m| m.ino() == now.ino()));
            if same {
                file.set_len(0)?;
                write!(file, "process {}: {doing}", std::process::id())?;
                return Ok(file);
            }
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&self.0)?;
        }
        bail!("{} is removed again and again", path.display())
    }

    /// Where the credentials are.
    pub fn credentials_path(&self) -> PathBuf {
        self.path(CREDENTIALS)
    }

    /// The credentials, if the lab was made.
    ///
    /// # Errors
    /// When the file can't be read or understood.
    pub fn credentials(&self) -> anyhow::Result<Option<Credentials>> {
        self.read(CREDENTIALS)
    }

    /// The credentials with a secret for each of these names; what is missing is made now, and a
    /// verifier that no longer belongs to its password, too.
    ///
    /// # Errors
    /// When the file can't be read, understood or written, or a password has no verifier.
    pub fn credentials_with<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
    ) -> anyhow::Result<Credentials> {
        let found = self.credentials()?;
        let mut wanted = found.clone().unwrap_or_default();
        if wanted.lab_id.is_empty() {
            wanted.lab_id = random(16)?;
        }
        for name in names {
            let password = name.strip_suffix(VERIFIER);
            let plain = password.unwrap_or(name);
            let secret = match wanted.secrets.get(plain) {
                Some(secret) => secret.clone(),
                None => random(32)?,
            };
            if password.is_some() && !verifier::belongs(wanted.secrets.get(name), &secret) {
                let made = verifier::of(&secret, random(16)?.as_bytes());
                let made = made.with_context(|| format!("secret {plain}"))?;
                wanted.secrets.insert(name.clone(), made);
            }
            wanted.secrets.insert(plain.to_owned(), secret);
        }
        if found.as_ref() != Some(&wanted) {
            self.write(CREDENTIALS, &toml::to_string(&wanted)?, 0o600)?;
        }
        Ok(wanted)
    }

    /// What the lab changed on the host.
    ///
    /// # Errors
    /// When the file can't be read or understood.
    pub fn notes(&self) -> anyhow::Result<Notes> {
        Ok(self.read(NOTES)?.unwrap_or_default())
    }

    /// Notes a change, before it is made.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn note(&self, change: impl FnOnce(&mut Notes)) -> anyhow::Result<()> {
        let mut notes = self.notes()?;
        change(&mut notes);
        self.write(NOTES, &toml::to_string(&notes)?, 0o600)
    }

    /// Reads a TOML file of the folder.
    ///
    /// # Errors
    /// When it is there but can't be read or understood.
    pub fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.path(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", path.display()));
            }
        };
        toml::from_str(&text)
            .with_context(|| format!("{}: correct it, or remove it and the lab", path.display()))
    }

    /// Writes a file of the folder, whole or not at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> anyhow::Result<()> {
        let path = self.path(name);
        write_whole(&path, text.as_bytes(), mode)
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// Writes a file under a temporary name, synced, then renamed: a reader or a crash sees the old text
/// or the new one.
///
/// # Errors
/// When the system refuses.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)?;
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Random letters and digits, safe in URIs, shells and configuration files alike.
fn random(length: usize) -> anyhow::Result<String> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut source = File::open("/dev/urandom").context("opening /dev/urandom")?;
    let mut text = String::new();
    let mut bytes = [0; 64];
    while text.len() < length {
        source
            .read_exact(&mut bytes)
            .context("reading /dev/urandom")?;
        // 248 is the largest multiple of 62 in a byte: beyond it some letters would come more often.
        let fair = bytes.iter().filter(|b| **b < 248);
        let letters = fair.filter_map(|b| LETTERS.get(usize::from(b % 62)));
        text.extend(letters.take(length - text.len()).map(|l| char::from(*l)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(name: &str) -> Keep {
        let folder = std::env::temp_dir().join(format!("veza-keep-{name}-{}", std::process::id()));
        Keep::new("p", |_| Some(folder.clone().into()))
    }

    #[test]
    fn secrets_are_made_once_and_the_file_is_private() {
        let keep = keep("secrets");
        let names = ["a".to_owned(), "b".to_owned()];
        let first = keep.credentials_with(names.iter().take(1)).unwrap();
        let second = keep.credentials_with(names.iter()).unwrap();
        assert_eq!(first.lab_id, second.lab_id);
        assert_eq!(first.secrets["a"], second.secrets["a"]);
        assert_ne!(second.secrets["a"], second.secrets["b"]);
        assert_eq!(second.secrets["b"].len(), 32);
        let mode = std::fs::metadata(keep.path(CREDENTIALS)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(keep.folder()).unwrap();
    }

    #[test]
    fn a_verifier_is_kept_as_long_as_it_belongs_to_its_password() {
        let keep = keep("verifier");
        let names = ["a_verifier".to_owned()];
        let first = keep.credentials_with(names.iter()).unwrap();
        let again = keep.credentials_with(names.iter()).unwrap();
        assert_eq!(first, again);
        let mut changed = again;
        changed.secrets.insert("a".to_owned(), "other".to_owned());
        let text = toml::to_string(&changed).unwrap();
        keep.write(CREDENTIALS, &text, 0o600).unwrap();
        let after = keep.credentials_with(names.iter()).unwrap();
        assert_eq!(after.secrets["a"], "other");
        assert_ne!(after.secrets["a_verifier"], first.secrets["a_verifier"]);
        std::fs::remove_dir_all(keep.folder()).unwrap();
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let keep = keep("lock");
        let held = keep.lock("lab up").unwrap();
        let error = keep.lock("lab down").unwrap_err().to_string();
        assert!(error.contains("lab up"), "{error}");
        drop(held);
        keep.lock("lab down").unwrap();
        std::fs::remove_dir_all(keep.folder()).unwrap();
    }

    #[test]
    fn notes_come_back_as_they_were() {
        let keep = keep("notes");
        let started = Started::Process {
            pid: 7,
            start_ticks: 8,
            boot_id: "x".to_owned(),
        };
        keep.note(|n| n.incusd = Some(started.clone())).unwrap();
        keep.note(|n| n.inotify_before = Some(128)).unwrap();
        let notes = keep.notes().unwrap();
        assert_eq!(
            (notes.incusd, notes.inotify_before),
            (Some(started), Some(128))
        );
        std::fs::write(keep.path(NOTES), "nonsense").unwrap();
        assert!(keep.notes().is_err());
        std::fs::remove_dir_all(keep.folder()).unwrap();
    }

    #[test]
    fn random_text_is_long_and_plain() {
        let text = random(200).unwrap();
        assert!(text.len() == 200 && text.chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(text, random(200).unwrap());
    }
}
