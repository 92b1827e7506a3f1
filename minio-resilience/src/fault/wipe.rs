//! A drive that is emptied, in a lab alone: while its server is held down, all that stands on it is deleted. Nothing
//! brings that back but healing from the other drives, so these must be whole before.

use std::time::Duration;

use veza_probe::incus::Incus;
use veza_probe::instance::InstanceName;

/// The longest that deleting may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A drive that is to be emptied.
pub struct Drive<'a> {
    /// The instance of its node.
    pub instance: &'a InstanceName,
    /// The unit of its server, which must be down.
    pub unit: &'a str,
    /// Where it is mounted.
    pub path: &'a str,
    /// The cluster's id, which must stand in the drive's own format.json: so it is this cluster's drive.
    pub deployment_id: &'a str,
}

/// Every condition is looked at where the deleting is done, right before it.
const EMPTY: &str = r#"
set -euo pipefail
path=$1 unit=$2 id=$3
state=$(systemctl show --property=ActiveState --value "$unit")
case "$state" in inactive | failed) ;; *) echo "$unit is $state, and must be down" >&2; exit 3 ;; esac
mountpoint --quiet "$path" || { echo "$path is no mount point" >&2; exit 3; }
grep --quiet --fixed-strings "\"id\":\"$id\"" "$path/.minio.sys/format.json" ||
    { echo "$path/.minio.sys/format.json is not of the cluster $id" >&2; exit 3; }
find "$path" -xdev -mindepth 1 -type f | wc --lines
find "$path" -xdev -mindepth 1 -delete
test -z "$(ls -A "$path")" || { echo "$path is not empty" >&2; exit 4; }
sync --file-system "$path"
"#;

/// Empties the drive; returns how many files it had.
///
/// # Errors
/// What stood in the way: nothing was deleted then, where it says so.
pub async fn empty(incus: &Incus, drive: &Drive<'_>) -> Result<u64, String> {
    let Drive {
        instance,
        unit,
        path,
        deployment_id,
    } = drive;
    if deployment_id.is_empty() {
        return Err(format!(
            "nothing was deleted on {instance}: the cluster's id is not known"
        ));
    }
    let argv = ["bash", "-c", EMPTY, "empty", path, unit, deployment_id];
    let done = incus.exec(instance, &argv, LIMIT).await;
    let done = done.map_err(|error| format!("emptying {path} of {instance}: {error}"))?;
    let said = done.stderr.trim();
    match done.code {
        0 => {}
        3 => return Err(format!("nothing was deleted on {instance}: {said}")),
        code => {
            let words = format!("emptying {path} of {instance} ended with code {code}: {said}");
            return Err(format!(
                "{words}; part of it may be gone: heal the drive, mc admin heal"
            ));
        }
    }
    let files = done.stdout.trim().parse();
    files.map_err(|_| {
        format!(
            "emptying {path} of {instance}: no count in {:?}",
            done.stdout
        )
    })
}
