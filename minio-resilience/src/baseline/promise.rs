//! What the configuration promises when nodes are lost. Pure.

/// An erasure set, as far as quorums depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Drives of one set.
    pub drives: usize,
    /// Drives of parity among them.
    pub parity: usize,
    /// Nodes that the drives of each set are spread over evenly.
    pub nodes: usize,
}

/// What is promised with some nodes lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Whether objects can be read.
    pub reads: bool,
    /// Whether objects can be written.
    pub writes: bool,
}

impl Layout {
    /// Drives that must answer a read.
    pub fn read_quorum(&self) -> usize {
        self.drives.saturating_sub(self.parity)
    }

    /// Drives that must take a write: one more where data and parity are equal, so that no two halves of a set can
    /// both take writes (MinIO, `objectQuorumFromMeta` in cmd/erasure-metadata.go).
    pub fn write_quorum(&self) -> usize {
        let data = self.read_quorum();
        data + usize::from(data == self.parity)
    }

    /// What is promised with this many nodes lost.
    pub fn without(&self, lost: usize) -> Promise {
        let each = self.drives.div_ceil(self.nodes.max(1));
        let online = self.drives.saturating_sub(lost * each);
        Promise {
            reads: online > 0 && online >= self.read_quorum(),
            writes: online > 0 && online >= self.write_quorum(),
        }
    }

    /// The sum, for people.
    pub fn told(&self, lost: usize) -> String {
        let Layout {
            drives,
            parity,
            nodes,
        } = self;
        let can = |is: bool| if is { "yes" } else { "no" };
        let Promise { reads, writes } = self.without(lost);
        format!(
            "{drives} drives on {nodes} nodes, EC:{parity}: read quorum {}, write quorum {}; with {lost} nodes lost: \
             reads {}, writes {}",
            self.read_quorum(),
            self.write_quorum(),
            can(reads),
            can(writes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn layout(drives: usize, parity: usize) -> Layout {
        Layout {
            drives,
            parity,
            nodes: 4,
        }
    }

    #[test]
    fn four_drives_with_two_of_parity_read_without_two_and_write_without_one() {
        let four = layout(4, 2);
        assert_eq!((four.read_quorum(), four.write_quorum()), (2, 3));
        let can: Vec<_> = (0..=4)
            .map(|lost| four.without(lost))
            .map(|p| (p.reads, p.writes))
            .collect();
        assert_eq!(
            can,
            [
                (true, true),
                (true, true),
                (true, false),
                (false, false),
                (false, false)
            ]
        );
    }

    #[test]
    fn with_less_parity_than_data_reads_and_writes_go_together() {
        let eight = layout(8, 2);
        assert_eq!((eight.read_quorum(), eight.write_quorum()), (6, 6));
        assert_eq!(
            eight.without(1),
            Promise {
                reads: true,
                writes: true
            }
        );
        assert_eq!(
            eight.without(2),
            Promise {
                reads: false,
                writes: false
            }
        );
        let told = layout(4, 2).told(2);
        assert!(
            told.ends_with("with 2 nodes lost: reads yes, writes no"),
            "{told}"
        );
    }
}
