//! What one sentinel says, and whether all of them say the same.

use std::collections::BTreeMap;

use redis::cmd;

use crate::targets::connection::{Error, Link};

/// A reason not to call a group whole: a stable word, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason id.
    pub reason_id: &'static str,
    /// The sentence.
    pub words: String,
}

impl Trouble {
    /// A trouble.
    pub fn new(reason_id: &'static str, words: impl Into<String>) -> Trouble {
        let words = words.into();
        Trouble { reason_id, words }
    }
}

/// A host as sentinels and servers announce it, with its port.
pub type Announced = (String, u16);

/// A server or sentinel as a sentinel sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub at: Announced,
    /// What the sentinel thinks of it: `slave`, `s_down`, `disconnected`.
    pub flags: Vec<String>,
    /// `slave-priority`, of a replica: 0 is never promoted.
    pub priority: Option<u32>,
}

impl Peer {
    /// What is wrong with it, if something is.
    fn trouble(&self) -> Option<&str> {
        let bad = ["s_down", "o_down", "disconnected"];
        self.flags
            .iter()
            .map(String::as_str)
            .find(|flag| bad.contains(flag))
    }
}

/// What one sentinel says of the master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The master.
    pub master: Peer,
    /// How many sentinels must agree that it is down.
    pub quorum: u32,
    /// `down-after-milliseconds`
    pub down_after_ms: u64,
    /// `failover-timeout`, in milliseconds.
    pub failover_timeout_ms: u64,
    /// `parallel-syncs`
    pub parallel_syncs: u64,
    /// The replicas that it knows.
    pub replicas: Vec<Peer>,
    /// The other sentinels that it knows.
    pub others: Vec<Peer>,
    /// Whether it is in TILT, and does nothing.
    pub tilt: bool,
    /// Why quorum and majority are not reachable from it, if they are not.
    pub no_quorum: Option<String>,
}

/// Asks a sentinel for all of it.
///
/// # Errors
/// As the questions; a sentinel that does not know the master says so.
pub async fn view(link: &mut Link, master: &str) -> Result<View, Error> {
    let question = |word: &str| {
        let mut question = cmd("SENTINEL");
        question.arg(word).arg(master);
        question
    };
    type Fields = BTreeMap<String, String>;
    let found: Fields = link.ask("SENTINEL MASTER", &question("MASTER")).await?;
    let replicas: Vec<Fields> = link.ask("SENTINEL REPLICAS", &question("REPLICAS")).await?;
    let others: Vec<Fields> = link
        .ask("SENTINEL SENTINELS", &question("SENTINELS"))
        .await?;
    let info: String = link.ask("INFO", cmd("INFO").arg("sentinel")).await?;
    let reachable = question("CKQUORUM");
    let no_quorum = match link.ask::<String>("SENTINEL CKQUORUM", &reachable).await {
        Ok(_) => None,
        Err(Error::Said { words, .. }) => Some(words),
        Err(error) => return Err(error),
    };
    let tilt = fields(&info).get("sentinel_tilt").is_some_and(|v| v != "0");
    Ok(View {
        master: peer(&found),
        quorum: number(&found, "quorum"),
        down_after_ms: number(&found, "down-after-milliseconds"),
        failover_timeout_ms: number(&found, "failover-timeout"),
        parallel_syncs: number(&found, "parallel-syncs"),
        replicas: replicas.iter().map(peer).collect(),
        others: others.iter().map(peer).collect(),
        tilt,
        no_quorum,
    })
}

/// The lines `name:value` of an answer to INFO.
pub fn fields(info: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (name, value) = line.trim_end().split_once(':')?;
        Some((name.to_owned(), value.to_owned()))
    };
    info.lines().filter_map(pair).collect()
}

/// A number of a map; its default where it is not there or none.
fn number<T: std::str::FromStr + Default>(map: &BTreeMap<String, String>, name: &str) -> T {
    let value = map.get(name).and_then(|value| value.parse().ok());
    value.unwrap_or_default()
}

fn peer(map: &BTreeMap<String, String>) -> Peer {
    let flags = map.get("flags").map(String::as_str).unwrap_or_default();
    let flags = flags.split(',').filter(|flag| !flag.is_empty());
    Peer {
        at: (
            map.get("ip").cloned().unwrap_or_default(),
            number(map, "port"),
        ),
        flags: flags.map(str::to_owned).collect(),
        priority: map.get("slave-priority").and_then(|p| p.parse().ok()),
    }
}

/// The master that all sentinels agree on, each under its name.
///
/// # Errors
/// What the first one says that must not be, or on what they differ.
pub fn agreed<'a>(views: &'a [(&str, &View)]) -> Result<&'a Announced, Trouble> {
    let Some((first, view)) = views.first() else {
        return Err(Trouble::new("sentinel-unreachable", "no sentinel answers"));
    };
    let told = |at: &Announced| format!("{}:{}", at.0, at.1);
    for (name, other) in views {
        if other.master.at != view.master.at {
            let words = format!(
                "the sentinels don't agree: {first} says that {} is the master, {name} says {}",
                told(&view.master.at),
                told(&other.master.at)
            );
            return Err(Trouble::new("sentinels-disagree", words));
        }
    }
    let timers = |view: &View| (view.down_after_ms, view.failover_timeout_ms, view.quorum);
    if let Some((name, _)) = views
        .iter()
        .find(|(_, other)| timers(other) != timers(view))
    {
        let words = format!(
            "the sentinels don't agree: down-after, failover-timeout and quorum of {name} are not those of {first}"
        );
        return Err(Trouble::new("sentinels-disagree", words));
    }
    for (name, view) in views {
        fit(name, view, views.len())?;
    }
    Ok(&view.master.at)
}

/// Whether one sentinel could lead a failover now.
fn fit(name: &str, view: &View, sentinels: usize) -> Result<(), Trouble> {
    let trouble = |id, words: String| Err(Trouble::new(id, format!("sentinel {name}: {words}")));
    if view.tilt {
        let words = "it is in TILT, and would do nothing: its clock jumped, or it could not run";
        return trouble("sentinel-in-tilt", words.to_owned());
    }
    if view
        .master
        .flags
        .iter()
        .any(|flag| flag == "failover_in_progress")
    {
        return trouble("failover-in-progress", "a failover is under way".to_owned());
    }
    if let Some(words) = &view.no_quorum {
        return trouble("no-quorum", words.clone());
    }
    if view.others.len() + 1 != sentinels {
        let words = format!(
            "it knows {} other sentinels, and {} are named here: all of them must be asked",
            view.others.len(),
            sentinels.saturating_sub(1)
        );
        return trouble("sentinels-unknown", words);
    }
    let down = |kind: &str, peer: &Peer| {
        let flag = peer.trouble()?;
        Some(format!("{kind} {}:{} is {flag}", peer.at.0, peer.at.1))
    };
    if let Some(words) = down("the master", &view.master) {
        return trouble("master-down", words);
    }
    if let Some(words) = view.others.iter().find_map(|peer| down("sentinel", peer)) {
        return trouble("sentinel-unreachable", words);
    }
    if let Some(words) = view.replicas.iter().find_map(|peer| down("replica", peer)) {
        return trouble("replica-not-in-sync", words);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8, flags: &[&str]) -> Peer {
        Peer {
            at: (format!("198.18.0.{last}"), 6379),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
            priority: Some(100),
        }
    }

    fn good() -> View {
        View {
            master: peer(21, &["master"]),
            quorum: 2,
            down_after_ms: 1000,
            failover_timeout_ms: 10_000,
            parallel_syncs: 1,
            replicas: vec![peer(22, &["slave"]), peer(23, &["slave"])],
            others: vec![peer(22, &["sentinel"]), peer(23, &["sentinel"])],
            tilt: false,
            no_quorum: None,
        }
    }

    fn judged(change: impl FnOnce(&mut View)) -> Result<Announced, &'static str> {
        let (good, mut third) = (good(), good());
        change(&mut third);
        let views = [("a", &good), ("b", &good), ("c", &third)];
        agreed(&views).cloned().map_err(|trouble| trouble.reason_id)
    }

    #[test]
    fn three_that_say_the_same_agree() {
        assert_eq!(judged(|_| ()), Ok(("198.18.0.21".to_owned(), 6379)));
    }

    #[test]
    fn one_that_says_otherwise_is_enough_to_refuse() {
        type Change = fn(&mut View);
        let cases: [(Change, &str); 9] = [
            (|v| v.down_after_ms = 500, "sentinels-disagree"),
            (
                |v| v.master.at.0 = "198.18.0.22".into(),
                "sentinels-disagree",
            ),
            (|v| v.tilt = true, "sentinel-in-tilt"),
            (
                |v| v.master.flags.push("failover_in_progress".into()),
                "failover-in-progress",
            ),
            (|v| v.no_quorum = Some("NOQUORUM 1".into()), "no-quorum"),
            (|v| v.others.truncate(1), "sentinels-unknown"),
            (|v| v.master.flags.push("s_down".into()), "master-down"),
            (
                |v| v.others[0].flags.push("disconnected".into()),
                "sentinel-unreachable",
            ),
            (
                |v| v.replicas[1].flags.push("s_down".into()),
                "replica-not-in-sync",
            ),
        ];
        for (change, reason_id) in cases {
            assert_eq!(judged(change), Err(reason_id));
        }
        assert_eq!(
            agreed(&[]).map_err(|t| t.reason_id),
            Err("sentinel-unreachable")
        );
    }

    #[test]
    fn what_a_sentinel_says_is_read_by_name() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
            pairs.iter().map(owned).collect()
        };
        let found = super::peer(&map(&[
            ("ip", "198.18.0.22"),
            ("port", "6379"),
            ("flags", "slave,s_down"),
            ("slave-priority", "0"),
        ]));
        assert_eq!(found.at, ("198.18.0.22".to_owned(), 6379));
        assert_eq!(found.trouble(), Some("s_down"));
        assert_eq!(found.priority, Some(0));
        assert_eq!(super::peer(&map(&[])).at.1, 0);
        let info = fields("# Sentinel\r\nsentinel_tilt:1\r\n");
        assert_eq!(info.get("sentinel_tilt").map(String::as_str), Some("1"));
    }
}
