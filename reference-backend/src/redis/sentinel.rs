//! Which node the sentinels call master at this moment.
//!
//! The driver has a client for sentinels, too; it takes the first answer. A sentinel that was away during
//! a failover still names the old master when it comes back, so here a majority is asked and the newest word counts:
//! that of the highest configuration epoch.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisError, cmd};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use veza_probe::clock::{Elapsed, within};

use super::config::{Address, Login};
use super::connection::connect;

/// How long one sentinel may take. A lost host answers nothing at all.
const LIMIT: Duration = Duration::from_millis(500);

/// What one sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    master: Address,
    epoch: u64,
}

/// Why no sentinel names a master.
#[derive(Debug, thiserror::Error)]
#[error("no sentinel names the master {master_name}: {}", words.join("; "))]
pub struct Unknown {
    master_name: String,
    words: Vec<String>,
}

/// Why one sentinel says nothing.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error(transparent)]
    Elapsed(#[from] Elapsed),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("its answer has no usable {0}")]
    Answer(&'static str),
}

/// Asks all sentinels at once. As soon as a majority has answered, the rest is not waited for: they may be
/// lost with the master. Takes 0.5 s at most.
///
/// # Errors
/// [`Unknown`] when none of them names the master, with the word of each.
pub(super) async fn master(
    sentinels: &[Address],
    master_name: &str,
    login: &Login,
) -> Result<Address, Unknown> {
    let ask = |sentinel: &Address| {
        let sentinel = sentinel.clone();
        async move {
            let asked = ask(&sentinel, master_name, login);
            let answer = match within(LIMIT, asked).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(elapsed.into()),
            };
            (sentinel, answer)
        }
    };
    let mut asked: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
    let (mut heard, mut words) = (Vec::new(), Vec::new());
    while let Some((sentinel, answer)) = asked.next().await {
        match answer {
            Ok(word) => heard.push(word),
            Err(silence) => words.push(format!("{sentinel}: {silence}")),
        }
        if heard.len() > sentinels.len() / 2 {
            break;
        }
    }
    newest(heard).ok_or_else(|| Unknown {
        master_name: master_name.to_owned(),
        words,
    })
}

/// The master by the word that knows of the latest failover.
fn newest(heard: Vec<Word>) -> Option<Address> {
    let newest = heard.into_iter().max_by_key(|word| word.epoch);
    newest.map(|word| word.master)
}

async fn ask(sentinel: &Address, master_name: &str, login: &Login) -> Result<Word, Silence> {
    let address = ConnectionAddr::Tcp(sentinel.host.clone(), sentinel.port);
    let info = address.into_connection_info()?;
    let client = Client::open(info.set_redis_settings(login.settings()))?;
    let mut connection = connect(&client).await?;
    let mut question = cmd("SENTINEL");
    question.arg("MASTER").arg(master_name);
    let fields: HashMap<String, String> = question.query_async(&mut connection).await?;
    word(&fields)
}

fn word(fields: &HashMap<String, String>) -> Result<Word, Silence> {
    let field = |name: &'static str| fields.get(name).ok_or(Silence::Answer(name));
    let host = field("ip")?.clone();
    if host.is_empty() {
        return Err(Silence::Answer("ip"));
    }
    let port = field("port")?.parse();
    let port = port.map_err(|_| Silence::Answer("port"))?;
    let epoch = field("config-epoch")?.parse();
    Ok(Word {
        master: Address { host, port },
        epoch: epoch.map_err(|_| Silence::Answer("config-epoch"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::*;

    fn says(port: u16, epoch: u64) -> Word {
        let host = "h".to_owned();
        let master = Address { host, port };
        Word { master, epoch }
    }

    #[test]
    fn the_latest_failover_counts_not_the_first_answer_or_the_most() {
        let heard = vec![says(1, 4), says(2, 5), says(1, 4)];
        assert_eq!(newest(heard), Some(says(2, 5).master));
        assert_eq!(newest(Vec::new()), None);
    }

    #[test]
    fn an_answer_without_what_is_needed_says_nothing() {
        let fields = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let own = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            own.collect()
        };
        let all = [("ip", "h"), ("port", "6"), ("config-epoch", "3")];
        assert_eq!(word(&fields(&all)).unwrap(), says(6, 3));
        for (missing, (name, _)) in all.iter().enumerate() {
            let mut some = all.to_vec();
            some.remove(missing);
            let error = word(&fields(&some)).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            some.push((name, if *name == "ip" { "" } else { "x" }));
            assert!(word(&fields(&some)).is_err());
        }
    }

    /// Sentinels of a master, each with its own word; the others are at an address that refuses.
    #[tokio::test]
    async fn a_majority_is_enough_and_one_is_better_than_none() {
        let old = Fake::start(fake::sentinel(1, 3)).await;
        let new = Fake::start(fake::sentinel(2, 4)).await;
        let gone = Fake::start(fake::sentinel(9, 9)).await;
        let address = gone.address.clone();
        gone.stop().await;
        let none = Login::default();
        let three = [address.clone(), old.address.clone(), new.address.clone()];
        assert_eq!(master(&three, "veza", &none).await.unwrap().port, 2);
        let one = [address.clone(), address.clone(), old.address.clone()];
        assert_eq!(master(&one, "veza", &none).await.unwrap().port, 1);
        let error = master(std::slice::from_ref(&address), "veza", &none)
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("veza") && error.contains(&address.to_string()),
            "{error}"
        );
        let error = master(&three[1..], "other", &none).await.unwrap_err();
        assert!(error.to_string().contains("No such master"), "{error}");
    }

    /// One that hangs is not waited for, once the others have spoken.
    #[tokio::test]
    async fn a_sentinel_that_hangs_counts_as_one_that_says_nothing() {
        let hangs = Fake::start(fake::silent()).await;
        let new = Fake::start(fake::sentinel(2, 4)).await;
        let none = Login::default();
        let both = [hangs.address.clone(), new.address.clone()];
        assert_eq!(master(&both, "veza", &none).await.unwrap().port, 2);
        let error = master(&both[..1], "veza", &none).await.unwrap_err();
        assert!(
            error.to_string().contains("no answer within 0.5 s"),
            "{error}"
        );
    }
}
