//! Programs of this workspace that instances run: built by cargo before anything is converged, and checked
//! for fitting the image's C library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::program::Built;
use super::tale::Tale;
use crate::cargo;

/// The longest that a build may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// The C library of the base image, Debian trixie.
const IMAGE_GLIBC: (u32, u32) = (2, 41);

/// Builds these binaries and reads them; without any, cargo is not asked. With nothing to build it
/// takes a fraction of a second, and nothing is said.
///
/// # Errors
/// When one does not build, or would not run in the image.
pub async fn build(
    binaries: &BTreeSet<&str>,
    tale: &Tale,
) -> anyhow::Result<BTreeMap<String, Built>> {
    if binaries.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = binaries.iter().copied().collect::<Vec<_>>().join(", ");
    let began = tale.seconds();
    let what = format!("building {names}");
    tale.doing(&what);
    let (programs, fresh) = tale
        .lasting(&what, cargo::build_quietly(binaries, LIMIT))
        .await
        .with_context(|| format!("building {names} for the lab"))?;
    if !fresh {
        tale.say(&format!("built {names} ({:.1} s)", tale.seconds() - began));
    }
    let mut all = BTreeMap::new();
    for binary in binaries {
        let is_it = |program: &&cargo::Program| program.kind == "bin" && program.target == *binary;
        let program = programs.iter().find(is_it);
        let program = program.with_context(|| format!("no crate has a binary {binary}"))?;
        let bytes = std::fs::read(&program.path)
            .with_context(|| format!("reading {}", program.path.display()))?;
        fits(&program.path, &bytes)?;
        let built = Built {
            bytes: Arc::new(bytes),
            sum: None,
        };
        all.insert((*binary).to_owned(), built);
    }
    Ok(all)
}

/// A program that was linked against a newer C library would end at its start, with a word about it that
/// nobody reads.
fn fits(path: &Path, program: &[u8]) -> anyhow::Result<()> {
    let needs = newest_glibc(program);
    let named = needs > (0, 0);
    ensure!(
        named,
        "{} names no version of glibc where its linker should have put it",
        path.display()
    );
    ensure!(
        needs <= IMAGE_GLIBC,
        "{} needs glibc {}.{}, and the lab's image has {}.{}: build it on a Debian or Ubuntu that is not newer",
        path.display(),
        needs.0,
        needs.1,
        IMAGE_GLIBC.0,
        IMAGE_GLIBC.1
    );
    Ok(())
}

/// The newest version of glibc's symbols that a program names; (0, 0) when it names none. The linker puts
/// these names into the first pages.
fn newest_glibc(program: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"\0GLIBC_";
    let program = program.get(..1 << 20).unwrap_or(program);
    let version = |at: usize| -> Option<(u32, u32)> {
        let rest = program.get(at + MARK.len()..)?;
        let text = rest.split(|byte| *byte == 0).next()?;
        let (major, minor) = std::str::from_utf8(text.get(..text.len().min(16))?)
            .ok()?
            .split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let starts = program.windows(MARK.len()).enumerate();
    let marks = starts.filter(|(_, window)| *window == MARK);
    marks
        .filter_map(|(at, _)| version(at))
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_the_image_can_not_run_is_told_before_it_is_there() {
        let old = b"x\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(old), (2, 34));
        assert!(fits(Path::new("p"), old).is_ok());
        let error = fits(Path::new("p"), b"\0GLIBC_2.42\0")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("p needs glibc 2.42") && error.contains("2.41"),
            "{error}"
        );
        assert_eq!(newest_glibc(b"GLIBC"), (0, 0));
    }
}
