//! Ranges of a bucket's keys, that are listed at the same time: a page of a listing is a question and an answer, and one walk has one of them
//! under way.

use aws_sdk_s3::types::EncodingType;

use super::s3::{Failure, S3, answered};
use super::walk::decoded;

/// How many pages of a folder's folders are asked for, of up to 1,000 each, and how many folders deep.
const PAGES: usize = 8;
const DEPTH: usize = 8;

/// Keys behind one, up to another, which is one of them; none: from the beginning, to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The key before the first.
    pub behind: Option<String>,
    /// The last key.
    pub until: Option<String>,
}

impl Range {
    /// The ranges between keys that are in their order: together they have every key behind the first one, each once.
    pub fn between(behind: Option<String>, bounds: Vec<String>) -> Vec<Range> {
        let mut behind = behind;
        let mut ranges = Vec::new();
        for until in bounds.into_iter().map(Some).chain([None]) {
            let next = until.clone();
            ranges.push(Range { behind, until });
            behind = next;
        }
        ranges
    }
}

/// Up to so many ranges of a bucket, by the folders of its keys (what is before a `/`): of the first folder that has several. One where it has
/// no folders, or the store does not tell.
pub async fn by_folder(store: &S3, bucket: &str, prefix: &str, count: usize) -> Vec<Range> {
    let mut within = prefix.to_owned();
    let mut bounds = Vec::new();
    for _ in 0..DEPTH {
        // With one range there is nothing to ask for.
        if count < 2 {
            break;
        }
        let folders = folders(store, bucket, &within).await.unwrap_or_default();
        match <[String; 1]>::try_from(folders) {
            Ok([only]) => within = only,
            Err(folders) => {
                bounds = divided(folders, count);
                break;
            }
        }
    }
    Range::between(None, bounds)
}

/// Of keys in their order up to one less than so many, at the same distance of each other.
fn divided(keys: Vec<String>, count: usize) -> Vec<String> {
    let count = count.min(keys.len());
    let places: Vec<usize> = (1..count).map(|part| part * keys.len() / count).collect();
    let keys = keys.into_iter().enumerate();
    keys.filter(|(at, _)| places.contains(at))
        .map(|(_, key)| key)
        .collect()
}

/// The folders of a folder, the first thousands.
async fn folders(store: &S3, bucket: &str, prefix: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut token = None;
    for _ in 0..PAGES {
        let answer = store.ask(|client| {
            let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
            let request = request.delimiter("/").encoding_type(EncodingType::Url);
            answered(request.set_continuation_token(token.clone()).send())
        });
        let answer = answer.await?;
        let is_encoded = answer.encoding_type == Some(EncodingType::Url);
        let page = answer.common_prefixes.unwrap_or_default().into_iter();
        let page = page.filter_map(|folder| folder.prefix);
        let before = found.len();
        found.extend(page.map(|folder| decoded(&folder, is_encoded)));
        token = answer.next_continuation_token;
        // Thousands of keys that are in no folder are a listing of their own.
        if found.len() == before || token.is_none() {
            break;
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn ranges_have_every_key_once() {
        let range = |behind: &str, until: &str| {
            let key = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Range {
                behind: key(behind),
                until: key(until),
            }
        };
        assert_eq!(Range::between(None, Vec::new()), [Range::default()]);
        assert_eq!(
            Range::between(Some("a".into()), keys("c e")),
            [range("a", "c"), range("c", "e"), range("e", "")]
        );
    }

    #[test]
    fn folders_are_divided_evenly() {
        let folders = || keys("a/ b/ c/ d/ e/ f/ g/ h/");
        assert_eq!(divided(folders(), 4), keys("c/ e/ g/"));
        assert_eq!(divided(folders(), 1), keys(""));
        assert_eq!(divided(folders(), 100), keys("b/ c/ d/ e/ f/ g/ h/"));
        assert_eq!(divided(Vec::new(), 4), keys(""));
    }
}
