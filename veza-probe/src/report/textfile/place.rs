//! The file of a check in the collector's folder: read and replaced by one run at a time, so that two
//! runs that end together don't lose each other's series.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::super::told;
use super::exposition::Series;

/// The collector runs as another user.
const MODE: u32 = 0o644;

/// Another run needs the folder for milliseconds; whoever holds it longer is not one of us.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// More than a run has to say: written once beforehand, so that a full disk is known in time.
const ROOM: [u8; 16 * 1024] = [b'\n'; 16 * 1024];

/// The file, with the folder locked.
pub(super) struct Place {
    folder: PathBuf,
    path: PathBuf,
    /// The folder itself; closing it gives the lock back.
    handle: File,
}

impl Place {
    pub(super) fn open(check: &str, folder: &Path) -> io::Result<Place> {
        let named = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = check.chars().map(named).collect();
        Ok(Place {
            folder: folder.to_owned(),
            path: folder.join(format!("veza_{name}.prom")),
            handle: locked(folder).map_err(|error| told(folder, &error))?,
        })
    }

    /// What is in the file; nothing when it is not there.
    pub(super) fn read(&self, check: &str) -> io::Result<Series> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Series::default()),
            Err(error) => return Err(told(&self.path, &error)),
        };
        Series::parse(&text, check).map_err(|number| {
            let words = format!(
                "line {number} was not written by this tool; move the file away (what it knows of \
                 the last pass goes with it)"
            );
            told(&self.path, &io::Error::new(ErrorKind::InvalidData, words))
        })
    }

    /// Writes the temporary file and takes it away again.
    pub(super) fn rehearse(&self) -> io::Result<()> {
        let new = self.new_file();
        let written = write(&new, &ROOM);
        let removed = std::fs::remove_file(&new);
        written.and(removed).map_err(|error| told(&new, &error))
    }

    /// Replaces the file: a reader sees the old one or the new one, after a crash as well.
    pub(super) fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.new_file();
        let written = write(&new, text.as_bytes())
            .and_then(|()| std::fs::rename(&new, &self.path))
            .and_then(|()| self.handle.sync_all());
        written.map_err(|error| {
            let _ = std::fs::remove_file(&new);
            told(&self.path, &error)
        })
    }

    /// Under a name that the collector, which reads `*.prom`, passes over.
    fn new_file(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let mut new = name.to_owned();
        new.push(".new");
        self.folder.join(new)
    }
}

/// Locks a folder, but does not wait for ever: any user who may read it can hold its lock.
fn locked(folder: &Path) -> io::Result<File> {
    let handle = File::open(folder)?;
    let same = handle.try_clone()?;
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(same.lock()));
    match wait.recv_timeout(LOCK_LIMIT) {
        Ok(locked) => locked.map(|()| handle),
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            "somebody holds a lock on the folder",
        )),
    }
}

/// Writes a file anew; what a killed run left under its name is not followed or kept.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.sync_all()
}
