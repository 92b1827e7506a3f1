//! The pooler's own log, as journald of its instance has it: the errors that only PgBouncer knows of.

use std::time::Duration;

use veza_probe::incus::Incus;
use veza_probe::instance::InstanceName;

const LIMIT: Duration = Duration::from_secs(20);

/// Lines that complain, of the unit $1 since the moment $2, about sessions that match $3. What ends a session in good order is no complaint.
const READ: &str = r#"
said=$(journalctl -u "$1" --since "@$2" -o cat --no-pager -q) || exit 9
printf '%s\n' "$said" |
  grep -E ' (WARNING|ERROR|FATAL) |closing because: ' |
  grep -vE 'closing because: (client close request|client unexpected eof|server idle timeout|server lifetime over)' |
  grep -E "$3|\(nodb\)/\(nouser\)@|FATAL" | cut -c 1-300 | head -n 5000
exit 0
"#;

/// The unit that PgBouncer is.
const UNIT: &str = "pgbouncer.service";

/// What the pooler complained of since a moment (seconds of Unix time) about clients and servers of one
/// database and user.
///
/// # Errors
/// A sentence, when its log can't be read.
pub async fn complaints(
    (incus, name): (&Incus, &InstanceName),
    since_s: i64,
    (dbname, user): (&str, &str),
) -> Result<Vec<String>, String> {
    let since = since_s.to_string();
    let ours = format!(" {}/{}@", escaped(dbname), escaped(user));
    let argv = ["sh", "-c", READ, "sh", UNIT, &since, &ours];
    let output = incus.exec(name, &argv, LIMIT).await;
    let output = output.map_err(|e| format!("journalctl in {name}: {e}"))?;
    match output.code {
        0 => Ok(output
            .stdout
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()),
        code => Err(format!(
            "journalctl in {name} ended with {code}: {}",
            output.stderr.trim()
        )),
    }
}

/// A name inside an extended regular expression.
fn escaped(name: &str) -> String {
    let special = |c: char| "\\.^$*+?()[]{}|".contains(c);
    let each = name.chars().map(|c| match special(c) {
        true => format!("\\{c}"),
        false => c.to_string(),
    });
    each.collect()
}
