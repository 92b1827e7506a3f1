//! What a run leaves behind when it is killed: objects below its prefix, which only this program can remove.

use serde::{Deserialize, Serialize};
use veza_probe::undo::Chore;

use super::objects;
use crate::cli::Args;
use crate::targets::{self, Targets};

/// The name of this check's only chore.
const CHORE: &str = "remove the drill's objects";

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

/// Does a chore: removes everything below the prefix, through the first node that can.
///
/// # Errors
/// What stood in the way.
pub async fn chore(args: &Args, chore: &Chore) -> Result<String, String> {
    let about: About =
        serde_json::from_value(chore.about.clone()).map_err(|error| error.to_string())?;
    let stores = targets::stores(args, &about.nodes, &about.bucket)?;
    let mut trouble = "no endpoint leads to a node of that run".to_owned();
    let uploads: Vec<String> = about
        .uploads
        .iter()
        .map(|name| format!("{}{name}", about.prefix))
        .collect();
    for store in stores {
        match store.clear(&about.prefix, &uploads).await {
            Ok(count) => {
                let (bucket, prefix) = (&about.bucket, &about.prefix);
                return Ok(format!(
                    "{count} versions below {prefix} in {bucket} were removed"
                ));
            }
            Err(failure) => trouble = failure.to_string(),
        }
    }
    Err(trouble)
}
