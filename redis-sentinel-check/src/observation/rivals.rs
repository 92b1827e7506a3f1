//! Asks every server, through the whole drill, whether it takes a write: one that calls itself master proves
//! nothing, only a write that succeeds does. Each has a key of its own, outside the ledger, and at most one
//! question per server is open. Before each, the server is asked for a key that was acknowledged to the client:
//! one that lacks it answers from the past.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::cmd;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use veza_probe::clock::{self, At, Clock, within};
use veza_probe::incus::{Attached, Incus};
use veza_probe::instance::InstanceName;
use veza_probe::tenure::{Answer, Asked, Tenure};

use super::keys::{Keys, TTL_S};
use super::reads::{BEHIND, Read};
use super::writer::Log;
use crate::baseline::{Baseline, Member};
use crate::targets::connection::{Error, Link, Login, Server};

/// The pause between two questions to a server.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(1);

/// How long the console in an instance may take to be there.
const CONSOLE_LIMIT: Duration = Duration::from_secs(10);

/// What was answered.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// Of writes, for each server.
    pub tenures: Vec<Tenure>,
    /// Of reads, in the order of their ends.
    pub reads: Vec<Read>,
}

/// The questions under way. Dropping it ends them.
pub struct Rivals {
    clock: Clock,
    keys: Keys,
    login: Login,
    acknowledged: Log,
    log: Arc<Mutex<Asking>>,
    /// The server that is asked from inside its instance now, as the network does not reach it.
    inside: watch::Sender<Option<String>>,
    tasks: JoinSet<()>,
    inner: Option<AbortHandle>,
}

impl Rivals {
    /// Starts asking every server over the network.
    pub fn start(
        clock: Clock,
        baseline: &Baseline,
        login: &Login,
        (keys, acknowledged): (&Keys, &Log),
    ) -> Rivals {
        let tenure = |member: &Member| Tenure {
            node: member.name.clone(),
            asked: Vec::new(),
        };
        let log = Asking {
            tenures: baseline.members.iter().map(tenure).collect(),
            reads: Vec::new(),
        };
        let mut rivals = Rivals {
            clock,
            keys: keys.clone(),
            login: login.clone(),
            acknowledged: acknowledged.clone(),
            log: Arc::new(Mutex::new(log)),
            inside: watch::Sender::new(None),
            tasks: JoinSet::new(),
            inner: None,
        };
        for member in &baseline.members {
            let server = member.place.server.clone();
            rivals.spawn(member, Way::Network { server, link: None });
        }
        rivals
    }

    fn spawn(&mut self, member: &Member, way: Way) -> AbortHandle {
        let questions = Questions {
            clock: self.clock,
            name: member.name.clone(),
            keys: self.keys.clone(),
            login: self.login.clone(),
            acknowledged: self.acknowledged.clone(),
            log: Arc::clone(&self.log),
            inside: self.inside.subscribe(),
            way,
        };
        self.tasks.spawn(questions.ask_on())
    }

    /// From now on asks a server from inside its own instance, as long as the network is cut.
    pub fn ask_inside(&mut self, incus: &Incus, member: &Member) {
        let way = Way::Inside {
            incus: incus.clone(),
            instance: member.instance.clone(),
            port: member.place.server.address.port(),
            console: None,
        };
        self.inside.send_replace(Some(member.name.clone()));
        self.inner = Some(self.spawn(member, way));
    }

    /// The network is there again.
    pub fn ask_outside(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.abort();
        }
        self.inside.send_replace(None);
    }

    /// What was answered so far.
    pub fn so_far(&self) -> Asking {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Asks no more; the question that is open is given up.
    pub async fn finish(mut self) -> Asking {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.so_far()
    }
}

/// How a server is reached.
enum Way {
    Network {
        server: Server,
        link: Option<Link>,
    },
    Inside {
        incus: Incus,
        instance: InstanceName,
        port: u16,
        console: Option<Attached>,
    },
}

/// The questions to one server.
struct Questions {
    clock: Clock,
    name: String,
    keys: Keys,
    login: Login,
    acknowledged: Log,
    log: Arc<Mutex<Asking>>,
    inside: watch::Receiver<Option<String>>,
    way: Way,
}

impl Questions {
    async fn ask_on(mut self) {
        loop {
            let is_inside = matches!(self.way, Way::Inside { .. });
            let wanted = self.inside.borrow_and_update().as_ref() == Some(&self.name);
            if wanted != is_inside {
                // The other way is the one now; its questions must not overlap with ours.
                if self.inside.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let newest = self.acknowledged.newest_but(BEHIND);
            let wanted = newest.map(|number| self.keys.write(number));
            let key = self.keys.rival(&self.name);
            let mut question = Question {
                clock: self.clock,
                key: &key,
                wanted: wanted.as_deref(),
                read: None,
            };
            let began = self.clock.at();
            let (answer, words) = match &mut self.way {
                Way::Network { server, link } => {
                    let inside = &mut self.inside;
                    tokio::select! {
                        answer = over_network(server, &self.login, link, &mut question) => answer,
                        _ = inside.wait_for(|name| name.as_ref() == Some(&self.name)) => {
                            (Answer::Unacknowledged, "given up when the network was cut".to_owned())
                        }
                    }
                }
                Way::Inside {
                    incus,
                    instance,
                    port,
                    console,
                } => {
                    let about = (incus as &Incus, instance as &InstanceName, *port);
                    from_inside(about, &self.login, console, &mut question).await
                }
            };
            let read = question.read;
            self.note(began, answer, words, read);
            clock::sleep(PAUSE).await;
        }
    }

    fn note(&self, began: At, answer: Answer, words: String, read: Option<(At, At, bool)>) {
        let ended = self.clock.at();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.reads.extend(read.map(|(began, ended, there)| Read {
            node: self.name.clone(),
            began,
            ended,
            there,
        }));
        let mut tenures = log.tenures.iter_mut();
        if let Some(tenure) = tenures.find(|tenure| tenure.node == self.name) {
            tenure.asked.push(Asked {
                began,
                ended,
                answer,
                words,
            });
        }
    }
}

/// One question: a read and a write.
struct Question<'a> {
    clock: Clock,
    /// The server's own key, which is written.
    key: &'a str,
    /// A key whose write was acknowledged; none where there is none yet.
    wanted: Option<&'a str>,
    /// When the read began and ended, and whether the key is there; none when that was not answered.
    read: Option<(At, At, bool)>,
}

/// One write over a connection that is kept as long as it answers. One that was closed meanwhile must not be
/// taken for a server that may have taken the write: it is pinged first.
async fn over_network(
    server: &Server,
    login: &Login,
    kept: &mut Option<Link>,
    question: &mut Question<'_>,
) -> (Answer, String) {
    let alive = match kept.take() {
        Some(mut link) => match link.ask::<redis::Value>("PING", &cmd("PING")).await {
            Ok(_) => Some(link),
            Err(error) if error.is_answer() => Some(link),
            Err(_) => None,
        },
        None => None,
    };
    let mut link = match alive {
        Some(link) => link,
        None => match Link::open(server, login, LIMIT).await {
            Ok(link) => link,
            Err(error) => return (not_connected(&error), error.to_string()),
        },
    };
    if let Some(wanted) = question.wanted {
        let began = question.clock.at();
        match link.ask::<bool>("EXISTS", cmd("EXISTS").arg(wanted)).await {
            Ok(there) => question.read = Some((began, question.clock.at(), there)),
            Err(error) if error.is_answer() => {}
            // Nothing was written yet.
            Err(error) => return (Answer::Unasked, error.to_string()),
        }
    }
    let mut set = cmd("SET");
    set.arg(question.key).arg("?").arg("EX").arg(TTL_S);
    let answer = match link.ask::<()>("SET", &set).await {
        Ok(()) => (Answer::Took, "took a write".to_owned()),
        Err(error) if error.is_answer() => (Answer::Refused, error.to_string()),
        Err(error) => return (Answer::Unacknowledged, error.to_string()),
    };
    *kept = Some(link);
    answer
}

/// What it says of a server that no connection could be had with.
fn not_connected(error: &Error) -> Answer {
    match error {
        // The kernel of a host that is there refuses; of one that is not, nothing comes back.
        Error::Unreachable { words, .. } if words.contains("refused") => Answer::Absent,
        Error::Credentials { .. } | Error::Said { .. } => Answer::Refused,
        Error::NoWay { .. } | Error::Unreachable { .. } | Error::Lost { .. } => Answer::Unasked,
    }
}

/// One write by Redis' own console in the instance. It reads its commands from its input, so that the
/// password stands in no list of processes.
async fn from_inside(
    (incus, instance, port): (&Incus, &InstanceName, u16),
    login: &Login,
    kept: &mut Option<Attached>,
    question: &mut Question<'_>,
) -> (Answer, String) {
    let unasked = |words: String| (Answer::Unasked, format!("from inside: {words}"));
    let mut console = match kept.take() {
        Some(console) => console,
        None => match within(CONSOLE_LIMIT, console(incus, instance, port, login)).await {
            Ok(Ok(console)) => console,
            Ok(Err(words)) => return unasked(words),
            Err(elapsed) => return unasked(elapsed.to_string()),
        },
    };
    if let Some(wanted) = question.wanted {
        let began = question.clock.at();
        match within(LIMIT, say(&mut console, &format!("EXISTS {wanted}\n"))).await {
            Ok(Ok(line)) if line == "0" || line == "1" => {
                question.read = Some((began, question.clock.at(), line == "1"));
            }
            // An error of the server; the write tells more.
            Ok(Ok(_)) => {}
            Ok(Err(words)) => return unasked(words),
            Err(elapsed) => return unasked(elapsed.to_string()),
        }
    }
    let line = format!("SET {} ? EX {TTL_S}\n", question.key);
    let asked = say(&mut console, &line);
    match within(LIMIT, asked).await {
        Err(elapsed) => (Answer::Unacknowledged, format!("from inside: {elapsed}")),
        Ok(Err(words)) => unasked(words),
        Ok(Ok(line)) => {
            *kept = Some(console);
            match line.as_str() {
                "OK" => (Answer::Took, "took a write from inside".to_owned()),
                _ => (Answer::Refused, format!("from inside: {line}")),
            }
        }
    }
}

async fn console(
    incus: &Incus,
    instance: &InstanceName,
    port: u16,
    login: &Login,
) -> Result<Attached, String> {
    let port = port.to_string();
    let argv = ["redis-cli", "-h", "127.0.0.1", "-p", &port];
    let attached = incus.attach(instance, &argv).await;
    let mut console = attached.map_err(|error| error.to_string())?;
    if let Some(password) = &login.password {
        let user = login
            .user
            .as_deref()
            .map(|user| format!("{} ", quoted(user)));
        let user = user.unwrap_or_default();
        let auth = format!("AUTH {user}{}\n", quoted(password.expose()));
        let answer = say(&mut console, &auth).await?;
        if answer != "OK" {
            return Err(format!("logging in: {answer}"));
        }
    }
    Ok(console)
}

/// A word as redis-cli reads it between quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Sends a line, and waits for the line that answers it.
async fn say(console: &mut Attached, line: &str) -> Result<String, String> {
    // What is still there belongs to an earlier question: an error is followed by an empty line.
    while console.output.try_recv().is_ok() {}
    let sent = console.input.send(line.as_bytes().to_vec());
    sent.map_err(|_| format!("the console ended: {}", console.errors()))?;
    let mut answer: Vec<u8> = Vec::new();
    while !answer.iter().any(|byte| !byte.is_ascii_whitespace()) || !answer.contains(&b'\n') {
        match console.output.recv().await {
            Some(bytes) => answer.extend(bytes),
            None => return Err(format!("the console ended: {}", console.errors())),
        }
    }
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_can_not_end_its_line() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }

    #[test]
    fn only_a_refused_connection_says_that_no_server_is_there() {
        let unreachable = |words: &str| Error::Unreachable {
            at: "r1".into(),
            words: words.into(),
        };
        let refused = unreachable("Connection refused (os error 111)");
        assert_eq!(not_connected(&refused), Answer::Absent);
        assert_eq!(
            not_connected(&unreachable("no answer within 1 s")),
            Answer::Unasked
        );
    }
}
