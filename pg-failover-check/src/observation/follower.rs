//! Follows the monitor: its durable events since the baseline, and its view of the formation, asked
//! at every notification and several times a second. A monitor that goes away is noted and tried again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client};
use veza_probe::clock::{self, At, Clock, Offset, within};
use veza_probe::postgres::{self, Access, Session, Target};
use veza_probe::story::Story;

use crate::baseline::formation::{self, Node};
use crate::baseline::monitor::{LIMIT, Monitor};

/// How often the monitor is asked when it does not speak by itself.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// An event of the monitor (`pgautofailover.event`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorEvent {
    /// `eventid`.
    pub id: i64,
    /// When the monitor says it happened, by our clock: not before the first, not after the second.
    pub at: (At, At),
    /// When we saw it.
    pub seen: At,
    /// `nodeid`.
    pub node: i64,
    /// `nodename`.
    pub name: String,
    /// `reportedstate`.
    pub reported: String,
    /// `goalstate`.
    pub assigned: String,
    /// `description`.
    pub description: String,
}

impl MonitorEvent {
    /// The event in a line: where the node is and where it is sent.
    pub fn told(&self) -> String {
        let MonitorEvent {
            name,
            reported,
            assigned,
            description,
            ..
        } = self;
        if description.contains("is marked as") {
            let health = description.split("is marked as ").nth(1).unwrap_or("?");
            let health = health.split(' ').next().unwrap_or("?");
            return format!("{name} is {health}");
        }
        if reported == assigned {
            return format!("{name} is {reported}");
        }
        format!("{name} is {reported}, to become {assigned}")
    }
}

/// One look at the formation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When the monitor was asked.
    pub asked: At,
    /// When its answer was in.
    pub answered: At,
    /// What is missing to a whole formation; none when it is whole.
    pub missing: Option<String>,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// What the monitor said.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its events since the baseline.
    pub events: Vec<MonitorEvent>,
    /// Every look at the formation.
    pub looks: Vec<Look>,
    /// When it could not be asked, and why.
    pub troubles: Vec<(At, String)>,
}

impl Record {
    /// The last look after `since` at which something was missing, and the first whole one after it.
    pub fn whole_again(&self, since: At) -> (Option<&Look>, Option<&Look>) {
        let after = self.looks.iter().filter(|look| look.asked >= since);
        let last_missing = after.clone().rfind(|look| look.missing.is_some());
        let from = last_missing.map_or(since, |look| look.answered);
        let whole = after
            .clone()
            .find(|look| look.missing.is_none() && look.asked >= from);
        (last_missing, whole)
    }
}

/// The follower under way.
pub struct Follower {
    record: Arc<Mutex<Record>>,
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts following, with a session of its own.
    pub fn start(clock: Clock, story: Story, monitor: &Monitor) -> Follower {
        let record = Arc::new(Mutex::new(Record::default()));
        let (sender, news) = watch::channel(0);
        let eyes = Eyes {
            clock,
            story,
            at: monitor.at.clone(),
            access: monitor.access.clone(),
            formation: monitor.formation.clone(),
            offset: monitor.offset,
            last_event: monitor.last_event,
            record: Arc::clone(&record),
            news: sender,
        };
        let task = tokio::spawn(eyes.follow());
        Follower { record, news, task }
    }

    /// Looks at what was recorded.
    pub fn inspect<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with every look.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    /// Stops following.
    pub fn finish(self) -> Record {
        self.task.abort();
        self.inspect(Record::clone)
    }
}

struct Eyes {
    clock: Clock,
    story: Story,
    at: Target,
    access: Access,
    formation: (String, i32),
    offset: Offset,
    last_event: i64,
    record: Arc<Mutex<Record>>,
    news: watch::Sender<u64>,
}

impl Eyes {
    async fn follow(mut self) {
        loop {
            let trouble = match self.open().await {
                Ok(session) => self.listen(session).await,
                Err(trouble) => trouble,
            };
            self.trouble(&trouble);
            clock::sleep(ASK_EVERY).await;
        }
    }

    /// Notes a trouble once, however often it is met in a row.
    fn trouble(&self, trouble: &str) {
        let at = self.clock.at();
        let mut is_new = false;
        self.with(|record| {
            is_new = record
                .troubles
                .last()
                .is_none_or(|(_, last)| last != trouble);
            if is_new {
                record.troubles.push((at, trouble.to_owned()));
            }
        });
        if is_new {
            self.story.say(&format!("monitor: {trouble}"));
        }
    }

    async fn open(&self) -> Result<Session, String> {
        let Access { login, tls } = &self.access;
        let opened = postgres::connect(&self.at, login, tls, LIMIT).await;
        let session = opened.map_err(|e| e.to_string())?;
        let listen = within(LIMIT, session.client.batch_execute("listen state")).await;
        listen
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok(session)
    }

    /// Asks again and again until something goes wrong; returns what.
    async fn listen(&mut self, mut session: Session) -> String {
        loop {
            match within(LIMIT, self.ask(&session.client)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    return postgres::Error::query("asking the monitor", &error).to_string();
                }
                Err(elapsed) => return format!("asking the monitor: {elapsed}"),
            }
            let notified = async {
                while let Some(message) = session.messages.recv().await {
                    if matches!(message, AsyncMessage::Notification(_)) {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            };
            // A notification or the time: either way the next question is due.
            let _ = within(ASK_EVERY, notified).await;
        }
    }

    async fn ask(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let asked = self.clock.at();
        let nodes = formation::read(client, &self.formation.0, self.formation.1).await?;
        let answered = self.clock.at();
        let events = self.new_events(client).await?;
        if let Some(last) = events.last() {
            self.last_event = last.id;
        }
        for event in &events {
            self.story.say(&format!("monitor: {}", event.told()));
        }
        let missing = formation::whole(&nodes).err();
        self.with(|record| {
            record.events.extend(events);
            record.looks.push(Look {
                asked,
                answered,
                missing,
                nodes,
            });
        });
        self.news.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn new_events(
        &self,
        client: &Client,
    ) -> Result<Vec<MonitorEvent>, tokio_postgres::Error> {
        let sql = "select eventid, (extract(epoch from eventtime) * 1000000)::int8, nodeid, \
                   reportedstate::text, goalstate::text, coalesce(description, ''), nodename \
                   from pgautofailover.event where eventid > $1 and formationid = $2 \
                   and groupid = $3 order by eventid";
        let (formation, group) = &self.formation;
        let rows = client
            .query(sql, &[&self.last_event, formation, group])
            .await?;
        let seen = self.clock.at();
        let event = |row: &tokio_postgres::Row| {
            let (earliest, latest) = self.offset.ours(&self.clock, row.try_get(1)?);
            Ok(MonitorEvent {
                id: row.try_get(0)?,
                // It can't have happened after we saw it.
                at: (earliest.min(seen), latest.min(seen)),
                seen,
                node: row.try_get(2)?,
                reported: row.try_get(3)?,
                assigned: row.try_get(4)?,
                description: row.try_get(5)?,
                name: row.try_get(6)?,
            })
        };
        rows.iter().map(event).collect()
    }

    fn with(&self, note: impl FnOnce(&mut Record)) {
        note(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_in_a_line() {
        let event = |reported: &str, assigned: &str, description: &str| MonitorEvent {
            id: 1,
            at: (At(0), At(0)),
            seen: At(0),
            node: 1,
            name: "pg-a".into(),
            reported: reported.into(),
            assigned: assigned.into(),
            description: description.into(),
        };
        assert_eq!(
            event("primary", "draining", "x").told(),
            "pg-a is primary, to become draining"
        );
        assert_eq!(event("primary", "primary", "x").told(), "pg-a is primary");
        let marked = "Node node 1 \"pg-a\" (h:1) is marked as unhealthy by the monitor";
        assert_eq!(
            event("primary", "primary", marked).told(),
            "pg-a is unhealthy"
        );
    }

    fn look(asked: i64, missing: bool) -> Look {
        Look {
            asked: At(asked),
            answered: At(asked + 1),
            missing: missing.then(|| "a standby".to_owned()),
            nodes: Vec::new(),
        }
    }

    fn bounds(looks: &[(i64, bool)], since: i64) -> (Option<i64>, Option<i64>) {
        let looks = looks
            .iter()
            .map(|(at, missing)| look(*at, *missing))
            .collect();
        let record = Record {
            looks,
            ..Record::default()
        };
        let (missing, whole) = record.whole_again(At(since));
        (missing.map(|l| l.asked.0), whole.map(|l| l.asked.0))
    }

    #[test]
    fn whole_again_is_the_first_whole_look_after_the_last_one_that_missed_something() {
        let looks = [
            (10, false),
            (20, true),
            (30, true),
            (40, false),
            (50, false),
        ];
        assert_eq!(bounds(&looks, 15), (Some(30), Some(40)));
        assert_eq!(bounds(&looks, 35), (None, Some(40)));
    }

    #[test]
    fn a_formation_that_breaks_again_is_not_whole_and_no_look_is_no_proof() {
        assert_eq!(
            bounds(&[(20, true), (30, false), (40, true)], 0),
            (Some(40), None)
        );
        assert_eq!(
            bounds(&[(20, true), (30, false), (40, true), (50, false)], 0),
            (Some(40), Some(50))
        );
        assert_eq!(bounds(&[], 0), (None, None));
        assert_eq!(bounds(&[(10, false)], 20), (None, None));
    }
}
