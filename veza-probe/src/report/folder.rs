//! Where reports are kept: a folder for each run, and `latest`, which leads to the newest.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Report;
use crate::clock::{At, Clock};

/// The file that holds a run's events, a line each.
pub const EVENTS: &str = "events.ndjson";

/// The link to the newest run's folder.
const LATEST: &str = "latest";

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct Folder {
    base: PathBuf,
    check: String,
    path: PathBuf,
}

impl Folder {
    /// Makes the folder of this run in `base`, named for its beginning and the check, and makes
    /// `latest` lead to it.
    ///
    /// # Errors
    /// With the path, when that is not possible.
    pub fn make(base: &Path, check: &str, clock: &Clock) -> io::Result<Folder> {
        let told = |path: &Path, error: &io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .create(base)
            .map_err(|error| told(base, &error))?;
        let began = clock.wall(At(0)).strftime("%Y%m%dT%H%M%SZ");
        // Two runs may begin in the same second.
        for number in 1..100 {
            let name = match number {
                1 => format!("{began}-{check}"),
                _ => format!("{began}-{check}.{number}"),
            };
            let path = base.join(&name);
            match DirBuilder::new().create(&path) {
                Ok(()) => {
                    point(base, &name).map_err(|error| told(base, &error))?;
                    let (base, check) = (base.to_owned(), check.to_owned());
                    return Ok(Folder { base, check, path });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(told(&path, &error)),
            }
        }
        let words = format!("{}: 99 runs began in the same second", base.display());
        Err(io::Error::other(words))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file for the run's events, new.
    ///
    /// # Errors
    /// With the path, when it can't be made.
    pub fn events(&self) -> io::Result<File> {
        let path = self.path.join(EVENTS);
        File::create(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }

    /// Writes the report into it, in every form.
    ///
    /// # Errors
    /// As [`Report::save`].
    pub fn save(&self, report: &Report) -> io::Result<()> {
        report.save(&self.path)
    }

    /// Removes the oldest runs of this check but the newest `keep`; this one stays in any case.
    ///
    /// # Errors
    /// With the path, when one can't be removed.
    pub fn keep(&self, keep: usize) -> io::Result<()> {
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.base)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if path.is_dir() && name.is_some_and(|name| is_run(name, &self.check)) {
                runs.push(path);
            }
        }
        runs.sort();
        runs.retain(|path| *path != self.path);
        let surplus = (runs.len() + 1).saturating_sub(keep.max(1));
        for path in runs.iter().take(surplus) {
            std::fs::remove_dir_all(path)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        }
        Ok(())
    }
}

/// Whether a name is that of a run of a check: nothing else is ever removed.
fn is_run(name: &str, check: &str) -> bool {
    let Some((began, rest)) = name.split_once('-') else {
        return false;
    };
    let digits =
        |text: &str, count: usize| text.len() == count && text.chars().all(|c| c.is_ascii_digit());
    let time = began
        .strip_suffix('Z')
        .and_then(|began| began.split_once('T'));
    let is_time = time.is_some_and(|(date, time)| digits(date, 8) && digits(time, 6));
    let number = rest.strip_prefix(check).unwrap_or("?");
    let is_ours = number.is_empty()
        || number
            .strip_prefix('.')
            .is_some_and(|number| !number.is_empty() && digits(number, number.len()));
    is_time && is_ours
}

/// Makes `latest` lead to a folder beside it; whoever follows it meanwhile gets the old or the new one.
fn point(base: &Path, name: &str) -> io::Result<()> {
    let new = base.join(format!(".{LATEST}.{}", std::process::id()));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(name, &new)?;
    std::fs::rename(&new, base.join(LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_each_run_latest_leads_to_the_newest_and_only_runs_are_removed() {
        let base = std::env::temp_dir().join(format!("veza-folder-{}", std::process::id()));
        let clock = Clock::start();
        let first = Folder::make(&base, "a-check", &clock).unwrap();
        let second = Folder::make(&base, "a-check", &clock).unwrap();
        assert_ne!(first.path(), second.path());
        let leads_to = std::fs::canonicalize(base.join(LATEST)).unwrap();
        assert_eq!(leads_to, std::fs::canonicalize(second.path()).unwrap());
        let others = [
            "20260101T000000Z-b-check",
            "20260101T000000Z-a-check-2",
            "a-check",
            "notes",
        ];
        for other in others.into_iter().chain(["20260101T000000Z-a-check"]) {
            std::fs::create_dir(base.join(other)).unwrap();
        }
        second.keep(2).unwrap();
        assert!(first.path().exists() && second.path().exists());
        assert!(!base.join("20260101T000000Z-a-check").exists());
        second.keep(0).unwrap();
        assert!(
            !first.path().exists() && second.path().exists(),
            "this run stays"
        );
        assert!(others.iter().all(|other| base.join(other).exists()));
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_told_with_its_path() {
        let base = std::env::temp_dir().join(format!("veza-no-folder-{}", std::process::id()));
        std::fs::write(&base, "").unwrap();
        let error = Folder::make(&base.join("x"), "a", &Clock::start()).unwrap_err();
        assert!(error.to_string().contains("veza-no-folder"), "{error}");
        std::fs::remove_file(&base).unwrap();
    }
}
