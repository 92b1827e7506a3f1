//! What a run leaves behind when it is killed: objects below its prefix, which only this program can remove.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use veza_probe::clock;
use veza_probe::undo::Chore;

use super::objects;
use crate::cli::Args;
use crate::targets::store::Store;
use crate::targets::{self, Targets};

/// The name of this check's only chore.
const CHORE: &str = "remove the drill's objects";

/// How often the nodes are asked where nothing was found that could be removed, and the pause between.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// What a chore is about: where to clean up.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    bucket: String,
    prefix: String,
    /// Keys, below the prefix, that are uploaded in parts.
    uploads: Vec<String>,
    /// Hosts as the endpoints name them, with their addresses.
    nodes: Vec<(String, std::net::SocketAddr)>,
}

/// The chores of the run of this name.
pub fn chores(args: &Args, targets: &Targets, run: &str) -> Vec<Chore> {
    let nodes = targets
        .nodes
        .iter()
        .map(|node| (node.endpoint.host.clone(), node.address));
    let about = About {
        bucket: args.bucket.clone(),
        prefix: args.prefix(run),
        uploads: objects::uploads(args.objects),
        nodes: nodes.collect(),
    };
    let about = serde_json::to_value(about).unwrap_or_default();
    vec![Chore {
        name: CHORE.to_owned(),
        about,
    }]
}

/// Does a chore: removes everything below the prefix, through every node that answers, until none lists anything. An empty
/// listing alone proves nothing: right after nodes had come back, one was seen to list none of 388 versions.
///
/// # Errors
/// What stood in the way.
pub async fn chore(args: &Args, chore: &Chore) -> Result<String, String> {
    let about: About =
        serde_json::from_value(chore.about.clone()).map_err(|error| error.to_string())?;
    let stores = targets::stores(args, &about.nodes, &about.bucket)?;
    let uploads: Vec<String> = about
        .uploads
        .iter()
        .map(|name| format!("{}{name}", about.prefix))
        .collect();
    let mut removed = 0;
    let mut last = Swept::default();
    for look in 0..LOOKS {
        if look > 0 {
            clock::sleep(PAUSE).await;
        }
        last = sweep(&stores, &about.prefix, &uploads).await;
        removed += last.removed;
        if removed > 0 && last.removed == 0 && last.answered > 0 {
            break;
        }
    }
    let (bucket, prefix) = (&about.bucket, &about.prefix);
    if last.answered == 0 {
        let nobody = || "no endpoint leads to a node of that run".to_owned();
        return Err(last.trouble.unwrap_or_else(nobody));
    }
    if last.removed > 0 {
        return Err(format!(
            "objects were found below {prefix} in {bucket} at each of {LOOKS} looks: is anybody writing there?"
        ));
    }
    Ok(format!(
        "{removed} versions below {prefix} in {bucket} were removed"
    ))
}

/// What one look at every node came to.
#[derive(Default)]
struct Swept {
    /// Versions that were removed.
    removed: usize,
    /// Nodes that answered, and list nothing any more.
    answered: usize,
    /// What stood in the way at the others.
    trouble: Option<String>,
}

/// Removes what each node lists, one after the other: where a node has only just come back, one may list what another
/// does not.
async fn sweep(stores: &[Store], prefix: &str, uploads: &[String]) -> Swept {
    let mut swept = Swept::default();
    for store in stores {
        match store.clear(prefix, uploads).await {
            Ok(count) => {
                swept.removed += count;
                swept.answered += 1;
            }
            Err(failure) => swept.trouble = Some(failure.to_string()),
        }
    }
    swept
}
