//! Files inside instances, by Incus' file API: with the folders above them, and owners by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use veza_probe::clock;
use veza_probe::incus::{Error, FileKind, Incus, Method, Request};
use veza_probe::instance::InstanceName;

use super::role::Rendered;

/// One call, without the time that its bytes take. Seen with Incus 6.0: once in a while one gets no answer,
/// and the same call made again is answered at once.
const CALL_LIMIT: Duration = Duration::from_secs(8);
/// What is written at least in a second, with everything else that goes on.
const BYTES_PER_SECOND: usize = 2 << 20;

/// Writes files to an instance, running or not.
///
/// # Errors
/// When an owner is unknown there, or Incus refuses.
pub async fn write(incus: &Incus, name: &InstanceName, files: &[&Rendered]) -> anyhow::Result<()> {
    let users = ids(incus, name, "/etc/passwd").await?;
    let groups = ids(incus, name, "/etc/group").await?;
    let mut folders = BTreeSet::new();
    for file in files {
        for folder in parents(&file.path) {
            if folders.insert(folder.to_owned()) {
                write_one(incus, name, folder, &FileKind::Folder, (0, 0, 0o755)).await?;
            }
        }
        let user = users.get(&file.owner);
        let user = *user.with_context(|| format!("the instance has no user {}", file.owner))?;
        let group = groups.get(&file.group);
        let group = *group.with_context(|| format!("the instance has no group {}", file.group))?;
        if file.mode & 0o111 != 0 {
            // What runs goes on with the old one; it could not be written to.
            remove(incus, name, &file.path).await?;
        }
        let bytes = FileKind::File(file.content.to_vec());
        write_one(incus, name, &file.path, &bytes, (user, group, file.mode)).await?;
    }
    Ok(())
}

async fn write_one(
    incus: &Incus,
    name: &InstanceName,
    path: &str,
    kind: &FileKind,
    how: (u32, u32, u32),
) -> anyhow::Result<()> {
    let bytes = match kind {
        FileKind::File(bytes) => bytes.len(),
        FileKind::Folder => 0,
    };
    let more = Duration::from_secs((bytes / BYTES_PER_SECOND) as u64);
    let limit = CALL_LIMIT.saturating_add(more);
    insist(limit, || incus.write_file(name, path, kind.clone(), how)).await
}

/// Removes a file; one that is gone already is fine.
///
/// # Errors
/// When Incus refuses.
pub async fn remove(incus: &Incus, name: &InstanceName, file: &str) -> anyhow::Result<()> {
    let path = format!("/1.0/instances/{name}/files");
    let request = Request::new(Method::DELETE, path).query("path", file);
    match incus.change(request, CALL_LIMIT).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a call that can be repeated, up to three times.
async fn insist<T, F: Future<Output = Result<T, Error>>>(
    limit: Duration,
    call: impl Fn() -> F,
) -> anyhow::Result<T> {
    for _ in 0..2 {
        if let Ok(done) = clock::within(limit, call()).await {
            return Ok(done?);
        }
    }
    Ok(call().await?)
}

/// The folders above a path, from the top, but for those that every Debian has.
fn parents(path: &str) -> Vec<&str> {
    const KNOWN: [&str; 6] = [
        "/etc",
        "/usr",
        "/usr/local",
        "/usr/local/lib",
        "/etc/systemd",
        "/etc/systemd/system",
    ];
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
    let folders = ends.filter_map(|at| path.get(..at));
    folders.filter(|f| !KNOWN.contains(f)).collect()
}

/// Users or groups of an instance by name.
async fn ids(
    incus: &Incus,
    name: &InstanceName,
    path: &str,
) -> anyhow::Result<BTreeMap<String, u32>> {
    let bytes = insist(CALL_LIMIT, || incus.read_file(name, path)).await?;
    Ok(parse_ids(&String::from_utf8_lossy(&bytes)))
}

/// `name:password:id:…`, as in passwd and group.
fn parse_ids(text: &str) -> BTreeMap<String, u32> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), id.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_a_file_needs_come_from_the_top() {
        assert_eq!(
            parents("/etc/veza/tls/ca.crt"),
            ["/etc/veza", "/etc/veza/tls"]
        );
        assert!(parents("/etc/hosts").is_empty());
        assert!(parents("/top").is_empty());
    }

    #[test]
    fn ids_are_read_from_passwd_and_group() {
        let ids = parse_ids("root:x:0:0:r:/root:/bin/bash\npostgres:x:101:103::/:/bin/sh\nbad\n");
        assert_eq!(ids.get("postgres"), Some(&101));
        assert!(!ids.contains_key("bad"));
    }

    #[tokio::test]
    async fn an_error_is_an_answer_and_not_asked_again() {
        let calls = std::cell::Cell::new(0);
        let failing = insist(CALL_LIMIT, || {
            calls.set(calls.get() + 1);
            let words = "no".to_owned();
            let asked = "x".to_owned();
            std::future::ready(Err::<(), _>(Error::NotFound { asked, words }))
        });
        assert!(failing.await.is_err());
        assert_eq!(calls.get(), 1);
    }
}
