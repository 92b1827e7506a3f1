//! Reads of what had been acknowledged: a server that does not have it answers from the past. Pure.

use veza_probe::clock::At;

/// How many of the newest acknowledged writes are not asked for: a replica in step may be that far behind.
pub const BEHIND: usize = 5;

/// A server was asked whether it has a key whose write had been acknowledged before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The server.
    pub node: String,
    /// When the question began.
    pub began: At,
    /// When it was answered.
    pub ended: At,
    /// Whether it has the key.
    pub there: bool,
}

/// What a server answered from the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// How many reads it answered.
    pub answered: u64,
    /// How many of those without something that had been acknowledged.
    pub stale: u64,
    /// When the first such question began and the last was answered; none when there is none.
    pub span: Option<(At, At)>,
}

/// What the `old` master answered to reads that began when the new one was `writable`.
pub fn stale(reads: &[Read], old: &str, writable: At) -> Stale {
    let asked = reads
        .iter()
        .filter(|read| read.node == old && read.began >= writable);
    let missing = asked.clone().filter(|read| !read.there);
    let first = missing.clone().next().map(|read| read.began);
    let last = missing.clone().next_back().map(|read| read.ended);
    Stale {
        answered: asked.count() as u64,
        stale: missing.count() as u64,
        span: first.zip(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(node: &str, began: i64, there: bool) -> Read {
        Read {
            node: node.to_owned(),
            began: At(began),
            ended: At(began + 2),
            there,
        }
    }

    #[test]
    fn a_read_is_stale_when_the_old_master_lacks_what_was_acknowledged_since_the_new_one_is_writable()
     {
        let reads = [
            // The new one was not writable yet: nothing newer had been acknowledged.
            read("old", 5, false),
            read("old", 10, true),
            read("old", 20, false),
            // Another one that is behind is none of this.
            read("new", 25, false),
            read("old", 30, false),
            read("old", 40, true),
        ];
        let found = stale(&reads, "old", At(10));
        assert_eq!((found.answered, found.stale), (4, 2));
        assert_eq!(found.span, Some((At(20), At(32))));
        let none = stale(&reads, "old", At(35));
        assert_eq!((none.answered, none.stale, none.span), (1, 0, None));
        assert_eq!(stale(&reads, "old", At(50)).answered, 0);
    }
}
