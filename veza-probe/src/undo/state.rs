//! The state folder: a record per fault, the locks, and what was healed without its check.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Refusal;
use super::record::Record;

/// How many runs that a watchdog or `--recover` healed are remembered.
const REMEMBERED: usize = 50;

/// Where records and locks are.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

/// A file in the folder of records.
#[derive(Debug)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// What it holds, or why that can't be read.
    pub record: Result<Record, String>,
}

impl State {
    /// The folder: `VEZA_STATE_DIR`; else for root `/var/lib/veza`; else `$XDG_STATE_HOME/veza`, else
    /// `~/.local/state/veza`. `lookup` is `std::env::var_os` but in tests.
    pub fn new(lookup: impl Fn(&str) -> Option<OsString>) -> State {
        let set = |name: &str| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(folder) = set("VEZA_STATE_DIR") {
            return State(folder);
        }
        if rustix::process::geteuid().is_root() {
            return State("/var/lib/veza".into());
        }
        let own = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        State(own.unwrap_or_else(|| "/tmp".into()).join("veza"))
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn faults(&self) -> PathBuf {
        self.0.join("faults")
    }

    pub(super) fn path(&self, run: &str) -> PathBuf {
        self.faults().join(format!("{run}.json"))
    }

    /// A subfolder that only we can read, made where it is missing.
    pub(super) fn subfolder(&self, name: &str) -> Result<PathBuf, Refusal> {
        let folder = self.0.join(name);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.map_err(|error| unwritable(&folder, &error))?;
        Ok(folder)
    }

    /// All records, in the order of their names; a folder that is not there has none.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn records(&self) -> Result<Vec<Entry>, Refusal> {
        let folder = self.faults();
        let unreadable = |error: &std::io::Error| {
            let reason = format!("{} can't be read: {error}", folder.display());
            let next = "correct its permissions, or name another folder in VEZA_STATE_DIR";
            Refusal::new("state-unreadable", reason, next)
        };
        let files = match std::fs::read_dir(&folder) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&error)),
        };
        let mut entries = Vec::new();
        for file in files {
            let path = file.map_err(|error| unreadable(&error))?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                let record = read(&path);
                entries.push(Entry { path, record });
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Writes a record so that it is there whole after a crash at any moment: temporary name, fsync,
    /// rename, fsync of the folder.
    ///
    /// # Errors
    /// Read only, full, or not ours: refused before anything is broken.
    pub fn write(&self, record: &Record) -> Result<(), Refusal> {
        let folder = self.subfolder("faults")?;
        let path = self.path(&record.run);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| unwritable(&path, &std::io::Error::other(error)))?;
        let new = folder.join(format!("{}.new", record.run));
        let written = write_whole(&new, &path, &folder, &text);
        written.map_err(|error| {
            let _ = std::fs::remove_file(&new);
            unwritable(&path, &error)
        })
    }

    /// Removes a record; one that is not there is fine.
    ///
    /// # Errors
    /// When the file can't be removed.
    pub fn remove(&self, record: &Record) -> Result<(), Refusal> {
        self.remove_file(&self.path(&record.run))
    }

    pub(super) fn remove_file(&self, path: &Path) -> Result<(), Refusal> {
        let removed = match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let synced = removed.and_then(|()| match File::open(self.faults()) {
            Ok(folder) => folder.sync_all(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        synced.map_err(|error| {
            let reason = format!("removing {}: {error}", path.display());
            Refusal::new("record-stays", reason, format!("remove {}", path.display()))
        })
    }

    /// Remembers what was healed without its check, for the person who asks what happened in the
    /// night. A full disk is no reason to call a healed fault not undone.
    pub(super) fn remember(&self, record: &Record) {
        let Ok(folder) = self.subfolder("healed") else {
            return;
        };
        if let Ok(text) = serde_json::to_vec_pretty(record) {
            let _ = std::fs::write(folder.join(format!("{}.json", record.run)), text);
        }
        let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|file| Some(file.ok()?.path()))
            .collect();
        names.sort();
        let surplus = names.len().saturating_sub(REMEMBERED);
        for old in names.iter().take(surplus) {
            let _ = std::fs::remove_file(old);
        }
    }
}

fn read(path: &Path) -> Result<Record, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn write_whole(new: &Path, path: &Path, folder: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(new, path)?;
    File::open(folder)?.sync_all()
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    let reason = format!(
        "{}: {error}; without a record a fault could not be undone after a crash",
        path.display()
    );
    let next = "make room or correct its permissions, or name another folder in VEZA_STATE_DIR";
    Refusal::new("state-unwritable", reason, next)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    fn state(name: &str) -> State {
        let folder = std::env::temp_dir().join(format!("veza-{name}-{}", std::process::id()));
        State::new(|name| (name == "VEZA_STATE_DIR").then(|| folder.clone().into()))
    }

    #[test]
    fn the_folder_is_the_one_that_is_named() {
        assert!(
            state("named")
                .folder()
                .ends_with(format!("veza-named-{}", std::process::id()))
        );
        let folder = State::new(|name| (name == "XDG_STATE_HOME").then(|| "/x".into()));
        let root = rustix::process::geteuid().is_root();
        let expected = if root { "/var/lib/veza" } else { "/x/veza" };
        assert_eq!(folder.folder(), Path::new(expected));
    }

    #[test]
    fn a_record_is_written_read_and_removed() {
        let state = state("records");
        assert!(state.records().unwrap().is_empty());
        let record = record("run-1");
        state.write(&record).unwrap();
        std::fs::write(state.path("run-2"), "{\"schema\": \"veza-un").unwrap();
        let entries = state.records().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].record.as_ref().unwrap(), &record);
        assert!(entries[1].record.is_err());
        state.remove(&record).unwrap();
        state.remove(&record).unwrap();
        assert_eq!(state.records().unwrap().len(), 1);
        std::fs::remove_dir_all(state.folder()).unwrap();
    }

    #[test]
    fn what_can_not_be_written_is_refused_and_leaves_nothing() {
        let state = state("unwritable");
        // A file where the folder should be: as unwritable for root as for anyone.
        std::fs::create_dir_all(state.folder()).unwrap();
        std::fs::write(state.folder().join("faults"), "").unwrap();
        let refusal = state.write(&record("run-1")).unwrap_err();
        assert_eq!(refusal.reason_id, "state-unwritable");
        assert!(refusal.reason.contains("faults"), "{refusal}");
        std::fs::remove_dir_all(state.folder()).unwrap();
    }

    #[test]
    fn only_the_latest_healed_runs_are_remembered() {
        let state = state("healed");
        for number in 0..REMEMBERED + 3 {
            state.remember(&record(&format!("run-{number:03}")));
        }
        let names = std::fs::read_dir(state.folder().join("healed")).unwrap();
        let names: Vec<_> = names.map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names.len(), REMEMBERED);
        assert!(!names.contains(&"run-002.json".into()));
        std::fs::remove_dir_all(state.folder()).unwrap();
    }
}
