//! One connection to one node, and what its errors mean for it.

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};

/// Connects and logs in. The driver's own limits are off: whoever calls has one for all of it.
pub(super) async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// What an error says about the node that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: the request was wrong, or not allowed.
    OfTheRequest,
    /// It may have been replaced, and goes on answering.
    Doubtful,
    /// It is of no use as it is.
    Lost,
}

impl Meaning {
    /// Of a driver's error.
    pub(super) fn of(error: &RedisError) -> Meaning {
        match error.code() {
            // A master that became a replica, that waits for its own one, or that reads its file.
            Some("READONLY" | "MASTERDOWN" | "LOADING") => Meaning::Lost,
            // A master that was cut off from its replicas; another one may have been made.
            Some("NOREPLICAS") => Meaning::Doubtful,
            Some(_) => Meaning::OfTheRequest,
            None if error.is_io_error() || error.is_unrecoverable_error() => Meaning::Lost,
            None => Meaning::OfTheRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use ::redis::Value;

    use super::super::fake::{self, Fake};
    use super::*;

    /// What a client makes of one answer of a server.
    async fn of_answer(answer: &'static str) -> Meaning {
        let server = Fake::start(move |_: &[String]| Some(answer.to_owned())).await;
        let client = Client::open(format!("redis://{}", server.address)).unwrap();
        let mut connection = connect(&client).await.unwrap();
        let answer: RedisResult<Value> = ::redis::cmd("SET").query_async(&mut connection).await;
        Meaning::of(&answer.unwrap_err())
    }

    #[tokio::test]
    async fn a_demoted_node_is_left_and_a_wrong_request_leaves_nobody() {
        assert_eq!(of_answer(fake::READONLY).await, Meaning::Lost);
        assert_eq!(
            of_answer("-LOADING Redis is loading\r\n").await,
            Meaning::Lost
        );
        assert_eq!(
            of_answer("-MASTERDOWN Link with MASTER is down\r\n").await,
            Meaning::Lost
        );
        let few = "-NOREPLICAS Not enough good replicas to write.\r\n";
        assert_eq!(of_answer(few).await, Meaning::Doubtful);
        assert_eq!(of_answer("-NOPERM no\r\n").await, Meaning::OfTheRequest);
        assert_eq!(of_answer("-ERR no\r\n").await, Meaning::OfTheRequest);
    }

    #[tokio::test]
    async fn a_connection_that_ended_is_lost() {
        let server = Fake::start(fake::master()).await;
        let client = Client::open(format!("redis://{}", server.address)).unwrap();
        let mut connection = connect(&client).await.unwrap();
        server.stop().await;
        let answer: RedisResult<Value> = ::redis::cmd("GET").query_async(&mut connection).await;
        assert_eq!(Meaning::of(&answer.unwrap_err()), Meaning::Lost);
        assert_eq!(
            Meaning::of(&connect(&client).await.unwrap_err()),
            Meaning::Lost
        );
    }
}
