//! Readers: open loop, through the nodes that stay up in turn, every byte hashed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use veza_probe::prober::{ActError, Host};

use super::objects::{Read, Reading, compare};
use super::stage::Log;
use crate::cli::course::Object;
use crate::targets::Node;
use crate::targets::store::Store;

/// How long one read may take.
pub const READ_LIMIT: Duration = Duration::from_secs(5);

/// How many reads may be under way through one node; one more has failed when it is due.
pub const IN_FLIGHT: usize = 64;

/// Reads through one node. Its standing connections are places for reads: connections are made by S3's own client.
pub struct Reader {
    name: String,
    store: Store,
    objects: Arc<Vec<Object>>,
    places: Arc<Semaphore>,
    log: Log,
}

impl Reader {
    /// Reads these objects through one node.
    pub fn new(node: &Node, objects: Arc<Vec<Object>>, log: Log) -> Reader {
        Reader {
            name: node.name.clone(),
            store: node.reads.clone(),
            objects,
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
            log,
        }
    }
}

impl Host for Reader {
    type Connection = ();

    fn name(&self) -> &str {
        &self.name
    }

    async fn connect(&self) -> Result<(), String> {
        Ok(())
    }

    async fn act(&self, _place: &mut (), number: u64) -> Result<(), ActError> {
        let Ok(_place) = self.places.try_acquire() else {
            let words = format!("{IN_FLIGHT} reads are under way through this node");
            return Err(ActError::Refused(words));
        };
        let count = self.objects.len().max(1) as u64;
        let index = usize::try_from(number % count).unwrap_or_default();
        let Some(object) = self.objects.get(index) else {
            return Err(ActError::Refused("there is no object to read".to_owned()));
        };
        let got = self.store.get(&object.key, READ_LIMIT).await;
        let answered = got
            .as_ref()
            .err()
            .is_none_or(|failure| failure.code.is_some());
        let (key, node) = (object.key.clone(), self.name.clone());
        let read = compare(object, got);
        let came_to = match &read {
            // What somebody else wrote was served.
            Read::Right | Read::Changed(_) => Ok(()),
            Read::Wrong(words) => Err(ActError::Doubtful(words.clone())),
            Read::Denied(words) => Err(ActError::Refused(words.clone())),
            Read::Failed(words) if answered => Err(ActError::Refused(words.clone())),
            Read::Failed(words) => Err(ActError::Broken(words.clone())),
        };
        if matches!(read, Read::Wrong(_) | Read::Denied(_) | Read::Changed(_)) {
            self.log.take(vec![Reading { key, node, read }]);
        }
        came_to
    }
}
