//! What destroys data is done in a lab alone.

use std::collections::BTreeMap;
use std::ffi::OsString;

use veza_probe::report::Untouched;
use veza_probe::undo::is_lab;
use veza_probe::verdict::{Judgement, Verdict};

/// Refuses to destroy anything elsewhere than in a lab of this user's. `lookup` is `std::env::var_os` but in tests.
///
/// # Errors
/// Refused.
pub fn lab_only(
    what: &str,
    project: (&str, &BTreeMap<String, String>),
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<(), Untouched> {
    let (name, config) = project;
    if is_lab(config, lookup) {
        return Ok(());
    }
    let words = format!(
        "{what} destroys data, which is done in a lab only, and project {name} is none of this user's: its \
         user.veza.lab is not the id in the file that VEZA_LAB_CREDENTIALS names"
    );
    let next = "eval \"$(cargo xtask lab env)\", and run it against the lab";
    Err(Judgement::new(Verdict::Refused, "not-a-lab", words, next).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_destroyed_but_in_a_lab() {
        let path = std::env::temp_dir().join(format!("veza-minio-lab-{}", std::process::id()));
        std::fs::write(&path, "lab_id = \"abc\"\n").unwrap();
        let file = |name: &str| (name == "VEZA_LAB_CREDENTIALS").then(|| path.clone().into());
        let of = |id: &str| BTreeMap::from([("user.veza.lab".to_owned(), id.to_owned())]);
        assert!(lab_only("--wipe-drive", ("p", &of("abc")), file).is_ok());
        for (config, known) in [
            (of("abd"), true),
            (BTreeMap::new(), true),
            (of("abc"), false),
        ] {
            let lookup = |name: &str| file(name).filter(|_| known);
            let refused = lab_only("--wipe-drive", ("p", &config), lookup).unwrap_err();
            let judgement = refused.judgement;
            assert_eq!(judgement.verdict, Verdict::Refused);
            assert_eq!(judgement.reason_id, "not-a-lab");
            assert!(
                judgement.reason.contains("--wipe-drive"),
                "{}",
                judgement.reason
            );
        }
        std::fs::remove_file(&path).unwrap();
    }
}
