//! What a single binary needs to be run by hand against the lab: variables, and files of mode 0600
//! for the secrets. Which ones is the topology's business; here they are rendered and quoted.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use minijinja::context;
use minijinja::value::{Serde, Value};

use super::certificates;
use super::keep::{Credentials, Keep};
use super::role;
use super::topology::Topology;

/// The folder of the secret files, within the state folder.
const FOLDER: &str = "env";

/// Writes the secret files of all groups.
///
/// # Errors
/// When a template names what is not there, or a file can't be written.
pub fn write_files(
    topology: &Topology,
    keep: &Keep,
    credentials: &Credentials,
) -> anyhow::Result<()> {
    for (name, text) in secret_files(topology, credentials)? {
        let path = format!("{FOLDER}/{name}");
        // Rewritten only when it differs: a reader may have it open.
        if std::fs::read_to_string(keep.path(&path)).ok().as_ref() != Some(&text) {
            keep.write(&path, &text, 0o600)?;
        }
    }
    Ok(())
}

fn secret_files(
    topology: &Topology,
    credentials: &Credentials,
) -> anyhow::Result<BTreeMap<String, String>> {
    let values = context! {
        secrets => Value::from(Serde(&credentials.secrets)),
        ..role::shared_values(topology)
    };
    let templates = role::templates();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for group in &topology.groups {
        for (name, template) in &group.secret_files {
            let text = templates
                .render_str(template, &values)
                .with_context(|| format!("group {}: secret file {name}", group.name))?;
            files.entry(name.clone()).or_default().push_str(&text);
        }
    }
    Ok(files)
}

/// The variables of the lab: its own, then those of all groups. `lookup` is `std::env::var_os` but in
/// tests.
///
/// # Errors
/// When a template names what is not there, or two groups disagree.
pub fn variables(
    topology: &Topology,
    keep: &Keep,
    lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> anyhow::Result<Vec<(String, String)>> {
    let credentials = keep.credentials_path();
    let mut all = vec![
        (
            "VEZA_INCUS_PROJECT".to_owned(),
            topology.lab.project.to_string(),
        ),
        // By it a tool knows that this project is a lab, where it need not ask.
        (
            "VEZA_LAB_CREDENTIALS".to_owned(),
            credentials.display().to_string(),
        ),
    ];
    // Where the lab was told to find Incus, or to keep its state, the tools must be, too.
    for name in ["INCUS_SOCKET", "INCUS_DIR", "VEZA_STATE_DIR"] {
        let value = lookup(name).filter(|v| !v.is_empty());
        if let Some(value) = value.and_then(|v| v.into_string().ok()) {
            all.push((name.to_owned(), value));
        }
    }
    let names = topology.groups.iter().flat_map(|g| g.secret_files.keys());
    let files: BTreeMap<&String, String> = names
        .map(|name| (name, text(&keep.path(FOLDER).join(name))))
        .collect();
    let values = context! {
        ca_file => text(&certificates::ca_file(keep)),
        files => Value::from(Serde(files)),
        ..role::shared_values(topology)
    };
    let templates = role::templates();
    for group in &topology.groups {
        for (name, template) in &group.env {
            let value = templates
                .render_str(template, &values)
                .with_context(|| format!("group {}: variable {name}", group.name))?;
            match all.iter().find(|(n, _)| n == name) {
                None => all.push((name.clone(), value)),
                Some((_, other)) if *other == value => {}
                Some((_, other)) => bail!("{name} is both {other:?} and {value:?}"),
            }
        }
    }
    Ok(all)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Lines for `eval` in any POSIX shell.
///
/// # Errors
/// For a value that no line can hold.
pub fn export_lines(variables: &[(String, String)]) -> anyhow::Result<String> {
    let mut lines = String::new();
    for (name, value) in variables {
        ensure!(!value.contains('\0'), "{name} holds a NUL");
        let quoted = value.replace('\'', r"'\''");
        lines.push_str(&format!("export {name}='{quoted}'\n"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::small;
    use super::*;

    fn keep() -> Keep {
        Keep::new("veza-lab", |_| Some("/state".into()))
    }

    #[test]
    fn values_survive_the_shell() {
        let value = "a b'c\"$d`e\\".to_owned();
        let lines = export_lines(&[("X".to_owned(), value)]).unwrap();
        assert_eq!(lines, "export X='a b'\\''c\"$d`e\\'\n");
        assert!(export_lines(&[("X".to_owned(), "\0".to_owned())]).is_err());
    }

    #[test]
    fn variables_come_from_the_topology_and_never_hold_secrets() {
        let mut topology = small();
        let group = &mut topology.groups[0];
        group
            .secret_files
            .insert("pgpass".to_owned(), "{{ secrets.p }}\n".to_owned());
        group
            .env
            .insert("PGPASSFILE".to_owned(), "{{ files.pgpass }}".to_owned());
        group
            .env
            .insert("CA".to_owned(), "{{ ca_file }}".to_owned());
        let all = variables(&topology, &keep(), |_| None).unwrap();
        let value = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1.as_str();
        assert_eq!(value("VEZA_INCUS_PROJECT"), "veza-lab");
        assert_eq!(value("PGPASSFILE"), "/state/lab/veza-lab/env/pgpass");
        assert_eq!(value("CA"), "/state/lab/veza-lab/ca.crt");
        assert_eq!(value("URI"), "x://lxd");
        assert!(!all.iter().any(|(n, _)| n == "INCUS_SOCKET"));
        topology.groups[0]
            .env
            .insert("P".to_owned(), "{{ secrets.p }}".to_owned());
        assert!(variables(&topology, &keep(), |_| None).is_err());
    }

    #[test]
    fn groups_share_a_secret_file_and_must_agree_on_a_variable() {
        let mut topology = small();
        let mut other = topology.groups[0].clone();
        topology.groups[0]
            .secret_files
            .insert("pgpass".to_owned(), "a\n".to_owned());
        other.name = "two".to_owned();
        other
            .secret_files
            .insert("pgpass".to_owned(), "b\n".to_owned());
        topology.groups.push(other);
        let files = secret_files(&topology, &Credentials::default()).unwrap();
        assert_eq!(files["pgpass"], "a\nb\n");
        assert!(variables(&topology, &keep(), |_| None).is_ok());
        topology.groups[1]
            .env
            .insert("URI".to_owned(), "y".to_owned());
        let error = variables(&topology, &keep(), |_| None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("URI is both"), "{error}");
    }
}
