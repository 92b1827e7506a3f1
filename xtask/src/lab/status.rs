//! What the lab is right now: a table for people, JSON for programs.

use futures_util::future::join_all;
use serde::Serialize;
use veza_probe::incus::Incus;

use super::plan::{Found, Wanted};
use super::{provision, ready};

/// One instance as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Its name.
    pub instance: String,
    /// Its group.
    pub group: String,
    /// Its role.
    pub role: String,
    /// Incus' word for its state, or `absent`.
    pub state: String,
    /// The address that it should have.
    pub address: String,
    /// Whether it runs, and its role says that it is ready.
    pub healthy: bool,
    /// What its role saw.
    pub ready: String,
}

/// Asks all of these instances.
///
/// # Errors
/// When Incus does not answer.
pub async fn of(incus: &Incus, all: &[Wanted<'_>]) -> anyhow::Result<Vec<Health>> {
    let found = provision::found(incus).await?;
    let asks = all.iter().map(|wanted| {
        let found = found.get(wanted.spec.name.as_str());
        async move { of_one(incus, wanted, found).await }
    });
    Ok(join_all(asks).await)
}

/// The same, where there is no lab.
pub fn absent(all: &[Wanted<'_>]) -> Vec<Health> {
    all.iter().map(|wanted| health(wanted, None)).collect()
}

async fn of_one(incus: &Incus, wanted: &Wanted<'_>, found: Option<&Found>) -> Health {
    let mut health = health(wanted, found);
    // Nothing is run in a frozen instance: it would hang.
    if found.is_some_and(Found::is_running) {
        let seen = ready::ask(incus, wanted).await;
        health.healthy = seen.ready;
        health.ready = seen.line;
    }
    health
}

fn health(wanted: &Wanted<'_>, found: Option<&Found>) -> Health {
    let state = found.map_or("absent", |f| f.status.as_str());
    Health {
        instance: wanted.spec.name.to_string(),
        group: wanted.group.to_owned(),
        role: wanted.spec.role.clone(),
        state: state.to_lowercase(),
        address: wanted.spec.address.to_string(),
        healthy: false,
        ready: "-".to_owned(),
    }
}

/// The table.
pub fn table(all: &[Health]) -> String {
    let head = [
        "INSTANCE", "GROUP", "ROLE", "STATE", "ADDRESS", "HEALTHY", "READY",
    ];
    let yes_no = |yes: bool| if yes { "yes" } else { "NO" };
    let mut rows: Vec<Vec<&str>> = vec![head.to_vec()];
    rows.extend(all.iter().map(|h| {
        vec![
            h.instance.as_str(),
            &h.group,
            &h.role,
            &h.state,
            &h.address,
            yes_no(h.healthy),
            &h.ready,
        ]
    }));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<&str>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_an_unhealthy_instance_stands_out() {
        let health = |instance: &str, healthy: bool| Health {
            instance: instance.to_owned(),
            group: "g".to_owned(),
            role: "r".to_owned(),
            state: "running".to_owned(),
            address: "198.18.0.11".to_owned(),
            healthy,
            ready: "primary".to_owned(),
        };
        assert_eq!(
            table(&[health("a", true), health("longer", false)]),
            "INSTANCE  GROUP  ROLE  STATE    ADDRESS      HEALTHY  READY\n\
             a         g      r     running  198.18.0.11  yes      primary\n\
             longer    g      r     running  198.18.0.11  NO       primary\n"
        );
    }
}
