//! Uploads in parts that are open on a store. One whose writer was frozen stays as it is, and its client was never told that it is done;
//! one that goes on belongs to somebody who was not frozen.

use std::collections::BTreeMap;

use crate::targets::s3::{Failure, Node, S3, answered};

/// Bucket, key and id of each upload, with number and ETag of each of its parts.
pub type Open = BTreeMap<(String, String, String), Vec<(i32, String)>>;

/// What became of the open uploads while everybody was frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uploads {
    /// Those that are open in the end.
    pub left: usize,
    /// Those that were begun, went on or were ended meanwhile, by name.
    pub moved: Vec<String>,
}

impl Uploads {
    /// What two looks show.
    pub fn between(before: &Open, after: &Open) -> Uploads {
        let keys = before.keys().chain(after.keys());
        let mut moved: Vec<String> = keys
            .filter(|key| before.get(*key) != after.get(*key))
            .map(|(bucket, key, _)| format!("{bucket}/{key}"))
            .collect();
        moved.sort();
        moved.dedup();
        Uploads {
            left: after.len(),
            moved,
        }
    }
}

/// Every upload that is open in some buckets. MinIO's nodes list those that were begun through them since they started: each is asked.
///
/// # Errors
/// What a node answered instead.
pub async fn open(store: &S3, buckets: &[&str]) -> Result<Open, Failure> {
    let mut open = Open::new();
    for bucket in buckets {
        for node in store.each() {
            for (key, id) in listed(node, bucket).await? {
                // One that ends between the two questions has no parts.
                let parts = match parts(node, (bucket, &key, &id)).await {
                    Err(failure) if !failure.is_gone() => return Err(failure),
                    parts => parts.unwrap_or_default(),
                };
                open.insert(((*bucket).to_owned(), key, id), parts);
            }
        }
    }
    Ok(open)
}

async fn listed(node: &Node, bucket: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut all = Vec::new();
    let (mut key, mut id) = (None, None);
    loop {
        let asked = node.client.list_multipart_uploads().bucket(bucket);
        let asked = asked.set_key_marker(key.take());
        let page = answered(asked.set_upload_id_marker(id.take()).send()).await?;
        let uploads = page.uploads.unwrap_or_default().into_iter();
        let before = all.len();
        all.extend(uploads.filter_map(|upload| Some((upload.key?, upload.upload_id?))));
        (key, id) = (page.next_key_marker, page.next_upload_id_marker);
        if page.is_truncated != Some(true) || key.is_none() || all.len() == before {
            return Ok(all);
        }
    }
}

async fn parts(
    node: &Node,
    (bucket, key, id): (&str, &str, &str),
) -> Result<Vec<(i32, String)>, Failure> {
    let mut all = Vec::new();
    let mut marker = None;
    loop {
        let asked = node.client.list_parts().bucket(bucket).key(key);
        let asked = asked.upload_id(id).set_part_number_marker(marker.take());
        let page = answered(asked.send()).await?;
        let parts = page.parts.unwrap_or_default().into_iter();
        let before = all.len();
        all.extend(parts.filter_map(|part| Some((part.part_number?, part.e_tag?))));
        marker = page.next_part_number_marker;
        if page.is_truncated != Some(true) || marker.is_none() || all.len() == before {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(id: &str, parts: i32) -> ((String, String, String), Vec<(i32, String)>) {
        let name = ("b".to_owned(), "k".to_owned(), id.to_owned());
        (name, (1..=parts).map(|n| (n, format!("e{n}"))).collect())
    }

    #[test]
    fn what_stays_as_it_is_is_left_and_what_goes_on_is_named() {
        let before = Open::from([upload("1", 2), upload("2", 0)]);
        let came = |after: Vec<_>| Uploads::between(&before, &Open::from_iter(after));
        let is = |left: usize, moved: &[&str]| Uploads {
            left,
            moved: moved.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(came(vec![upload("1", 2), upload("2", 0)]), is(2, &[]));
        assert_eq!(came(vec![upload("1", 3), upload("2", 0)]), is(2, &["b/k"]));
        assert_eq!(came(vec![upload("1", 2)]), is(1, &["b/k"]), "ended");
        let begun = vec![upload("1", 2), upload("2", 0), upload("3", 0)];
        assert_eq!(came(begun), is(3, &["b/k"]));
        // The same part, sent again.
        let mut other = upload("1", 2);
        other.1[0].1 = "else".to_owned();
        assert_eq!(came(vec![other, upload("2", 0)]), is(2, &["b/k"]));
    }
}
