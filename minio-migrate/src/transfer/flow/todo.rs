//! What is to be done for a key, from what the source lists, what the journal knows, and what stands on the target. Pure.

use crate::targets::walk::Version;
use crate::transfer::journal::rows::Row;

/// What is to be done for a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// Versions and marks to write, the oldest first, each with its number in the journal.
    pub add: Vec<(u32, Version)>,
    /// Of these, the first ones that stand on the target already, with the target's version: a killed run wrote them.
    pub written: Vec<Version>,
    /// Numbers of what is not on the source any more.
    pub gone: Vec<u32>,
}

/// Why a key is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The source has a version that is older than one that was copied: it can't be put below it.
    OutOfOrder,
    /// The target has something of this key that was not written by this migration.
    Foreign(usize),
}

impl Conflict {
    /// A sentence for people.
    pub fn words(self) -> String {
        match self {
            Conflict::OutOfOrder => {
                "the source has a version that is older than one that was copied already; S3 can only add the newest: \
                 remove the key from the target and from the journal, then run it again"
                    .to_owned()
            }
            Conflict::Foreign(count) => format!(
                "the target has {count} versions of it that this journal does not know: see who writes there; \
                 --overwrite writes on top of them"
            ),
        }
    }
}

/// What is to be done, as far as source and journal say.
///
/// # Errors
/// [`Conflict`].
pub fn of(history: &[Version], rows: &[Row]) -> Result<Todo, Conflict> {
    let all: Vec<&Version> = history.iter().rev().collect();
    let mut todo = Todo::default();
    let mut rest = all.as_slice();
    let mut replaced = None;
    for row in rows.iter().filter(|row| row.gone_ms.is_none()) {
        match rest.iter().position(|version| is_same(row, version)) {
            Some(0) => rest = rest.get(1..).unwrap_or_default(),
            Some(_) => return Err(Conflict::OutOfOrder),
            // Without versions the next one takes its place, on the target too.
            None if row.source_id.is_empty() && !rest.is_empty() => replaced = Some(row.number),
            None => todo.gone.push(row.number),
        }
    }
    let next = rows.iter().map(|row| row.number).max().unwrap_or(0) + 1;
    let numbers = replaced.into_iter().chain(next..);
    todo.add = numbers
        .zip(rest.iter().map(|version| (*version).clone()))
        .collect();
    Ok(todo)
}

/// Whether a row is of a version. One that was written without versioning may have been overwritten under its id.
fn is_same(row: &Row, version: &Version) -> bool {
    let id = version.id.as_deref().unwrap_or_default();
    let is_firm = !id.is_empty() && id != "null";
    row.source_id == id
        && row.is_mark == version.is_mark
        && row.etag == version.etag
        && (is_firm || row.modified_ms == version.modified_ms)
}

/// Looks at what the target has of a key. `may_be_ours`: whether a run that was killed may have written some of it; then what is
/// there on top, and is what comes next, is taken for that.
///
/// # Errors
/// [`Conflict`], unless that is allowed.
pub fn with_target(
    mut todo: Todo,
    rows: &[Row],
    standing: &[Version],
    (may_be_ours, is_allowed): (bool, bool),
) -> Result<Todo, Conflict> {
    let is_known = |version: &&Version| rows.iter().any(|row| row.target_is(version));
    let mut others: Vec<&Version> = standing.iter().rev().skip_while(is_known).collect();
    let count = others.iter().filter(|version| !is_known(version)).count();
    if may_be_ours {
        let ours = others.iter().zip(&todo.add);
        let ours = ours.take_while(|(version, (_, next))| is_copy(version, next));
        let ours = ours.count();
        todo.written = others.drain(..ours).cloned().collect();
    }
    if is_allowed || others.is_empty() {
        return Ok(todo);
    }
    Err(Conflict::Foreign(count))
}

/// Whether a version on the target may be a copy of one of the source's.
fn is_copy(target: &Version, source: &Version) -> bool {
    target.is_mark == source.is_mark
        && target.size_bytes == source.size_bytes
        && target.etag == source.etag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str, etag: &str) -> Version {
        Version::of((!id.is_empty()).then(|| id.to_owned()), etag, etag == "M")
    }

    fn row(number: u32, version: &Version) -> Row {
        Row {
            number,
            source_id: version.id.clone().unwrap_or_default(),
            is_mark: version.is_mark,
            etag: version.etag.clone(),
            modified_ms: version.modified_ms,
            target_id: Some(format!("t{number}")),
            target_etag: version.etag.clone(),
            ..Row::default()
        }
    }

    fn numbers(todo: &Todo) -> Vec<u32> {
        todo.add.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn versions_are_added_in_their_order_and_only_once() {
        let (one, mark, two) = (version("a", "1"), version("b", "M"), version("c", "2"));
        let history = [two.clone(), mark.clone(), one.clone()];
        let todo = of(&history, &[]).unwrap();
        assert_eq!(
            todo.add,
            [(1, one.clone()), (2, mark.clone()), (3, two.clone())]
        );
        let rows = [row(1, &one), row(2, &mark)];
        assert_eq!(of(&history, &rows).unwrap().add, [(3, two.clone())]);
        let rows = [row(1, &one), row(2, &mark), row(3, &two)];
        assert_eq!(of(&history, &rows).unwrap(), Todo::default());
    }

    #[test]
    fn what_went_from_the_source_is_told_and_numbers_are_not_used_again() {
        let (one, two, three) = (version("a", "1"), version("b", "2"), version("c", "3"));
        let rows = [row(1, &one), row(2, &two)];
        let todo = of(&[three.clone(), two], &rows).unwrap();
        assert_eq!((todo.gone.as_slice(), numbers(&todo)), (&[1][..], vec![3]));
        let todo = of(&[], &rows).unwrap();
        assert_eq!((todo.gone, todo.add), (vec![1, 2], vec![]));
        let mut rows = rows;
        for row in &mut rows {
            row.gone_ms = Some(1);
        }
        assert_eq!(numbers(&of(&[three], &rows).unwrap()), [3]);
    }

    #[test]
    fn an_older_version_that_appears_is_a_conflict() {
        let (one, two) = (version("a", "1"), version("b", "2"));
        let rows = [row(1, &two)];
        assert_eq!(of(&[two, one], &rows), Err(Conflict::OutOfOrder));
    }

    #[test]
    fn without_versions_the_new_one_takes_the_place_of_the_old() {
        let (old, new) = (version("", "1"), version("", "2"));
        let rows = [row(1, &old)];
        let todo = of(std::slice::from_ref(&new), &rows).unwrap();
        assert_eq!((numbers(&todo), todo.gone.len()), (vec![1], 0));
        // Written again with the same bytes: its metadata may be others.
        let mut again = old.clone();
        again.modified_ms = 9;
        assert_eq!(numbers(&of(&[again], &rows).unwrap()), [1]);
        assert_eq!(of(&[old], &rows).unwrap(), Todo::default());
        assert_eq!(of(&[], &rows).unwrap().gone, [1]);
    }

    #[test]
    fn what_a_killed_run_wrote_is_found_and_what_others_wrote_is_a_conflict() {
        let (one, two) = (version("a", "1"), version("b", "2"));
        let todo = of(&[two.clone(), one.clone()], &[]).unwrap();
        let (ours, others) = (version("x", "1"), version("y", "9"));
        let found = with_target(
            todo.clone(),
            &[],
            std::slice::from_ref(&ours),
            (true, false),
        );
        assert_eq!(found.unwrap().written, std::slice::from_ref(&ours));
        let conflict = Err(Conflict::Foreign(1));
        let standing = std::slice::from_ref(&ours);
        assert_eq!(
            with_target(todo.clone(), &[], standing, (false, false)),
            conflict
        );
        let standing = std::slice::from_ref(&others);
        assert_eq!(
            with_target(todo.clone(), &[], standing, (true, false)),
            conflict
        );
        assert!(with_target(todo, &[], standing, (false, true)).is_ok());
        // What the journal knows is no stranger; what stands on top of it is.
        let rows = [row(1, &one)];
        let todo = of(&[two, one], &rows).unwrap();
        let known = version("t1", "1");
        assert!(
            with_target(
                todo.clone(),
                &rows,
                std::slice::from_ref(&known),
                (false, false)
            )
            .is_ok()
        );
        assert_eq!(
            with_target(todo, &rows, &[others, known], (true, false)),
            conflict
        );
    }

    #[test]
    fn without_versions_a_target_is_known_by_its_etag() {
        let source = version("", "1");
        let mut known = row(1, &source);
        known.target_id = None;
        let todo = Todo::default();
        let standing = |etag| [version("null", etag)];
        let rows = [known];
        assert!(with_target(todo.clone(), &rows, &standing("1"), (false, false)).is_ok());
        assert_eq!(
            with_target(todo, &rows, &standing("2"), (false, false)),
            Err(Conflict::Foreign(1))
        );
    }
}
