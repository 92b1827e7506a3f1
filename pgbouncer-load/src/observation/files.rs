//! What pgbench finds in its folder: who it logs in as, with which password, and its scripts. Nothing of
//! it is in an argument, and the folder is its user's alone.

use veza_probe::postgres::Wanted;

use crate::cli::Args;
use crate::targets::Access;

/// libpq's variables that would change whom pgbench speaks to.
const FOREIGN: &str = "PGPASSWORD PGSERVICE PGSERVICEFILE PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE \
                       PGOPTIONS PGSSLMODE PGSSLROOTCERT PGTARGETSESSIONATTRS PGCONNECT_TIMEOUT PGAPPNAME";

/// A script in the folder.
pub fn script(number: usize) -> String {
    format!("script{number}.sql")
}

/// All files of the folder.
///
/// # Errors
/// A sentence, when one can't be read.
pub fn files(args: &Args, access: &Access) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let mut files = vec![
        ("lease", Vec::new()),
        ("pgpass", pgpass(access).into_bytes()),
    ];
    let mut environment = environment(access);
    if let Some(path) = &access.login.sslrootcert {
        let read = std::fs::read(path);
        let pem = read.map_err(|e| format!("sslrootcert {}: {e}", path.display()))?;
        files.push(("root.crt", pem));
        environment.push_str("export PGSSLROOTCERT=\"$PWD/root.crt\"\n");
    }
    for (number, path) in args.scripts.iter().enumerate() {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|e| format!("--script {}: {e}", path.display()))?;
        // Written by the shell that starts pgbench, as the names of files here are fixed.
        let mark = format!("END_OF_SCRIPT_{number}");
        if text.contains(&mark) {
            return Err(format!("--script {}: it holds {mark}", path.display()));
        }
        let name = script(number);
        environment.push_str(&format!(
            "cat >{name} <<'{mark}'\n{}\n{mark}\n",
            text.trim_end()
        ));
    }
    files.push(("env", environment.into_bytes()));
    Ok(files)
}

/// What the shell reads before it starts pgbench.
fn environment(access: &Access) -> String {
    let login = &access.login;
    let all = |each: fn(&veza_probe::postgres::Target) -> String| {
        access.at.iter().map(each).collect::<Vec<_>>().join(",")
    };
    let mut pairs = vec![
        ("PGHOST", all(|target| target.name.clone())),
        ("PGHOSTADDR", all(|target| target.address.ip().to_string())),
        ("PGPORT", all(|target| target.address.port().to_string())),
        ("PGUSER", login.user.clone()),
        ("PGDATABASE", login.dbname.clone()),
        ("PGSSLMODE", login.sslmode.to_string()),
        // What is read here is what it says without translation.
        ("LC_ALL", "C".to_owned()),
    ];
    pairs.extend(
        login
            .conninfo
            .options
            .clone()
            .map(|options| ("PGOPTIONS", options)),
    );
    if login.conninfo.target_session_attrs != Wanted::Any {
        let wanted = login.conninfo.target_session_attrs.to_string();
        pairs.push(("PGTARGETSESSIONATTRS", wanted));
    }
    let mut text = format!("unset {FOREIGN}\nexport PGPASSFILE=\"$PWD/pgpass\"\n");
    for (name, value) in pairs {
        text.push_str(&format!("export {name}={}\n", quoted(&value)));
    }
    text
}

/// A word that the shell takes as it is.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// libpq's password file: a line for each host that there is a password for.
fn pgpass(access: &Access) -> String {
    let mut text = String::new();
    for target in &access.at {
        let port = target.address.port();
        if let Some(password) = access.login.password(&target.name, port) {
            let name = escaped(&target.name);
            text.push_str(&format!(
                "{name}:{port}:*:*:{}\n",
                escaped(password.expose())
            ));
        }
    }
    text
}

fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_stays_one_word() {
        assert_eq!(quoted("a b$(c)"), "'a b$(c)'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(escaped("a:b\\c"), "a\\:b\\\\c");
    }
}
