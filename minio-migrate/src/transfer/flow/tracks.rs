//! How far each range of a bucket is, and so the bucket: keys are begun in their order, and end in any. Pure.

use std::collections::VecDeque;

/// The ranges of a bucket, in their order.
pub struct Tracks {
    /// Up to where everything was done before.
    before: Option<String>,
    ranges: Vec<Track>,
}

#[derive(Default)]
struct Track {
    /// Keys that were begun, in their order, and whether they are done.
    begun: VecDeque<(String, bool)>,
    /// Every key of the range up to this one is done.
    reached: Option<String>,
    /// Whether all of its keys were begun.
    is_over: bool,
}

impl Tracks {
    /// So many ranges behind what was done before.
    pub fn new(before: Option<String>, ranges: usize) -> Tracks {
        Tracks {
            before,
            ranges: (0..ranges).map(|_| Track::default()).collect(),
        }
    }

    /// A key is begun.
    pub fn begin(&mut self, range: usize, key: &str) {
        if let Some(track) = self.ranges.get_mut(range) {
            track.begun.push_back((key.to_owned(), false));
        }
    }

    /// A key was done as it was seen.
    pub fn done(&mut self, range: usize, key: String) {
        if let Some(track) = self.ranges.get_mut(range) {
            if track.begun.is_empty() {
                track.reached = Some(key);
            } else {
                track.begun.push_back((key, true));
            }
        }
    }

    /// A key that was begun is done.
    pub fn ended(&mut self, key: &str) {
        for track in &mut self.ranges {
            if let Some(begun) = track.begun.iter_mut().find(|(begun, _)| begun == key) {
                begun.1 = true;
            }
            while let Some((key, _)) = track.begun.pop_front_if(|(_, is_done)| *is_done) {
                track.reached = Some(key);
            }
        }
    }

    /// A range has no more keys.
    pub fn over(&mut self, range: usize) {
        if let Some(track) = self.ranges.get_mut(range) {
            track.is_over = true;
        }
    }

    /// Every key of the bucket up to this one is done.
    pub fn reached(&self) -> Option<&str> {
        let mut reached = self.before.as_deref();
        for track in &self.ranges {
            reached = track.reached.as_deref().or(reached);
            if !track.is_over || !track.begun.is_empty() {
                break;
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_reached_before_all_up_to_it_are_done() {
        let mut tracks = Tracks::new(Some("a".to_owned()), 3);
        // The last range is through before the first one has begun.
        tracks.done(2, "x".to_owned());
        tracks.over(2);
        assert_eq!(tracks.reached(), Some("a"));
        tracks.begin(0, "b");
        tracks.begin(0, "c");
        tracks.done(0, "d".to_owned());
        tracks.ended("c");
        assert_eq!(tracks.reached(), Some("a"));
        tracks.begin(1, "m");
        tracks.done(1, "n".to_owned());
        tracks.over(1);
        tracks.ended("b");
        assert_eq!(tracks.reached(), Some("d"));
        // All keys of the first range, and the second one has one under way.
        tracks.over(0);
        assert_eq!(tracks.reached(), Some("d"));
        tracks.ended("m");
        assert_eq!(tracks.reached(), Some("x"));
    }

    #[test]
    fn a_range_without_keys_is_no_end() {
        let mut tracks = Tracks::new(None, 2);
        tracks.over(0);
        assert_eq!(tracks.reached(), None);
        tracks.done(1, "k".to_owned());
        assert_eq!(tracks.reached(), Some("k"));
    }
}
