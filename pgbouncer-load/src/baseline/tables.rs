//! The tables that are loaded: whose they are, and whether they may be made.

use std::ops::ControlFlow;

use veza_probe::postgres::Session;
use veza_probe::report::Untouched;

use super::console::rows;
use super::refused;
use crate::cli::Args;

/// pgbench's own tables.
const OWN: [&str; 4] = [
    "pgbench_accounts",
    "pgbench_branches",
    "pgbench_history",
    "pgbench_tellers",
];

/// What is to be done before the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Nothing: they are there, of this scale.
    There(u64),
    /// They are made.
    Make,
    /// The user's scripts have tables of their own.
    NotNeeded,
}

/// What stands in the database, as [`decide`] has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those of pgbench's tables that are on the search path.
    pub own: Vec<String>,
    /// How many other tables there are.
    pub others: u64,
    /// How many branches, where there are tables.
    pub scale: u64,
}

/// Looks at the database and decides.
///
/// # Errors
/// Refused, when somebody's data is in the way.
pub async fn look(session: &Session, args: &Args, is_lab: bool) -> Result<Tables, Untouched> {
    let unreadable = |e: veza_probe::postgres::Error| refused("tables-unreadable", e.to_string());
    let sql = "select c.relname, (pg_table_is_visible(c.oid))::text as visible from pg_class c join \
               pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'f', 'm') and \
               n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg_toast%' \
               and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and \
               d.objid = c.oid and d.deptype = 'e')";
    let mut found = Found::default();
    for row in rows(session, sql).await.map_err(unreadable)? {
        let name = row.text("relname").unwrap_or_default();
        if !OWN.contains(&name) {
            found.others += 1;
        } else if row.text("visible").is_some_and(|v| v.starts_with('t')) {
            found.own.push(name.to_owned());
        }
    }
    found.own.sort();
    if found.own.len() == OWN.len() {
        let counted = rows(session, "select count(*) as n from pgbench_branches").await;
        let counted = counted.map_err(unreadable)?;
        found.scale = counted.first().map_or(0, |row| row.number("n"));
    }
    match decide(&found, args, is_lab) {
        ControlFlow::Continue(tables) => Ok(tables),
        ControlFlow::Break((reason_id, reason)) => Err(refused(reason_id, reason)),
    }
}

/// Decides what is done with what was found.
fn decide(found: &Found, args: &Args, is_lab: bool) -> ControlFlow<(&'static str, String), Tables> {
    if !is_lab && found.others > 0 {
        let reason = format!(
            "outside a lab the load belongs in a database of its own, and this one holds {} tables that \
             are not pgbench's",
            found.others
        );
        return ControlFlow::Break(("not-its-own-database", reason));
    }
    if !args.scripts.is_empty() && !args.init {
        return ControlFlow::Continue(Tables::NotNeeded);
    }
    let asked = u64::from(args.scale);
    match found.own.len() {
        _ if args.init => ControlFlow::Continue(Tables::Make),
        0 => ControlFlow::Continue(Tables::Make),
        4 if found.scale == asked => ControlFlow::Continue(Tables::There(found.scale)),
        4 => {
            let reason = format!(
                "pgbench's tables are there with scale {}, and {asked} was asked for: --scale {} takes \
                 them as they are, --init makes them anew",
                found.scale,
                found.scale.max(1)
            );
            ControlFlow::Break(("other-scale", reason))
        }
        _ => {
            let reason = format!(
                "only some of pgbench's tables are there ({}): --init makes all of them anew, if they \
                 are nobody's",
                found.own.join(", ")
            );
            ControlFlow::Break(("half-the-tables", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Parsed, parse};

    fn args(more: &[&str]) -> Box<Args> {
        let all = [
            "p",
            "--database-url=postgres://u@h/d",
            "--admin-uri=postgres://u@h/p",
        ];
        match parse(all.iter().chain(more).map(OsString::from)) {
            Parsed::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn found(own: usize, others: u64, scale: u64) -> Found {
        let own = OWN
            .iter()
            .take(own)
            .map(|name| (*name).to_owned())
            .collect();
        Found { own, others, scale }
    }

    fn why(found: &Found, more: &[&str], is_lab: bool) -> &'static str {
        match decide(found, &args(more), is_lab) {
            ControlFlow::Break((reason_id, _)) => reason_id,
            ControlFlow::Continue(tables) => panic!("{tables:?}"),
        }
    }

    #[test]
    fn tables_are_made_where_there_are_none_and_taken_as_they_are() {
        let made = |found: &Found, more: &[&str]| decide(found, &args(more), false);
        let (make, there) = (Tables::Make, Tables::There(10));
        assert_eq!(made(&found(0, 0, 0), &[]), ControlFlow::Continue(make));
        assert_eq!(made(&found(4, 0, 10), &[]), ControlFlow::Continue(there));
        let scripted = made(&found(0, 0, 0), &["--script=x.sql"]);
        assert_eq!(scripted, ControlFlow::Continue(Tables::NotNeeded));
    }

    #[test]
    fn nobodys_data_is_replaced_unasked() {
        assert_eq!(why(&found(4, 0, 7), &[], true), "other-scale");
        assert_eq!(why(&found(2, 0, 0), &[], true), "half-the-tables");
        for half in [found(4, 0, 7), found(2, 0, 0)] {
            let asked = decide(&half, &args(&["--init"]), true);
            assert_eq!(asked, ControlFlow::Continue(Tables::Make));
        }
    }

    #[test]
    fn outside_a_lab_only_a_database_of_its_own() {
        let id = "not-its-own-database";
        assert_eq!(why(&found(4, 1, 10), &[], false), id);
        assert_eq!(why(&found(0, 1, 0), &["--init"], false), id);
        let lab = decide(&found(0, 3, 0), &args(&[]), true);
        assert_eq!(lab, ControlFlow::Continue(Tables::Make));
    }
}
