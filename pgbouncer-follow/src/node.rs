//! A node, asked itself: nobody else knows whether it takes writes.

use std::time::Duration;

use veza_probe::clock::within;
use veza_probe::postgres::{Access, Error, Host, Step, Target, connect, writable};

use crate::formation::Node;

/// How long a node may take. It is asked again at once in a failover, so this is short; a node that is
/// slower than that has no clients to win.
const LIMIT: Duration = Duration::from_millis(800);

/// Whether a node takes writes, asked in a session of its own: being out of recovery would prove nothing,
/// because a node that is being promoted is held read only for a while.
///
/// # Errors
/// When it does not answer in time or refuses the login.
pub async fn takes_writes(node: &Node, access: &Access) -> Result<bool, Error> {
    let host = Host {
        name: node.host.clone(),
        hostaddr: None,
        port: node.port,
    };
    let ask = async {
        let mut last = None;
        for target in Target::resolve(&host, LIMIT).await? {
            match connect(&target, &access.login, &access.tls, LIMIT).await {
                Ok(session) => return writable(&session.client).await,
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| late(node)))
    };
    within(LIMIT, ask).await.unwrap_or_else(|_| Err(late(node)))
}

fn late(node: &Node) -> Error {
    Error::Deadline {
        tried: format!("asking {}:{} whether it takes writes", node.host, node.port),
        step: Step::Query,
        limit: LIMIT,
    }
}
