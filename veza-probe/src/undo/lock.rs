//! One drill at a time for a system: a lock per member, held by the check and by its watchdog alike,
//! so that it is free only when both are gone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Refusal;
use super::record::Record;
use super::state::State;

/// The locks of all members.
pub(super) struct Locks(Vec<File>);

impl Locks {
    /// Takes them in the order of the names, so that two drills can't each hold what the other wants.
    pub(super) fn take(state: &State, record: &Record) -> Result<Locks, Refusal> {
        let folder = state.subfolder("locks")?;
        let mut names = record.members.clone();
        names.sort();
        names.dedup();
        let mut held = Vec::new();
        for name in &names {
            let path = folder.join(format!("{}.{name}.lock", record.project));
            held.push(lock(&path, name.as_str(), record)?);
        }
        Ok(Locks(held))
    }

    /// For handing them on to the watchdog.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }
}

fn lock(path: &Path, member: &str, record: &Record) -> Result<File, Refusal> {
    let failed = |error: &std::io::Error| {
        let reason = format!("{}: {error}", path.display());
        let next = "correct its permissions, or name another folder in VEZA_STATE_DIR";
        Refusal::new("state-unwritable", reason, next)
    };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let mut file = opened.map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let reason = format!(
                "a drill on {member} is under way, or its watchdog is still healing: {}",
                holder.trim()
            );
            return Err(Refusal::new(
                "drill-under-way",
                reason,
                "wait for its end and run it again",
            ));
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error)),
    }
    // For people only; what counts is the lock.
    let owner = &record.owner;
    let words = format!(
        "{} {} by process {} since {}, boot {}\n",
        record.check, record.run, owner.pid, record.made_at, owner.boot_id
    );
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(words.as_bytes()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn two_drills_that_share_a_member_can_not_both_have_it() {
        let folder = std::env::temp_dir().join(format!("veza-locks-{}", std::process::id()));
        let state = State::new(|name| (name == "VEZA_STATE_DIR").then(|| folder.clone().into()));
        let first = Locks::take(&state, &record("run-1")).unwrap();
        let mut other = record("run-2");
        other.members.truncate(1);
        let refusal = Locks::take(&state, &other).err().unwrap();
        assert_eq!(refusal.reason_id, "drill-under-way");
        assert!(refusal.reason.contains("run-1"), "{refusal}");
        other.project = "another".to_owned();
        assert!(
            Locks::take(&state, &other).is_ok(),
            "another project's instance"
        );
        // A second descriptor of the same lock keeps it held.
        let copies: Vec<_> = first.0.iter().map(|f| f.try_clone().unwrap()).collect();
        drop(first);
        assert!(Locks::take(&state, &record("run-2")).is_err());
        drop(copies);
        assert!(Locks::take(&state, &record("run-2")).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
