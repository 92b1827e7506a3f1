//! Bytes of shards that are flipped, in a lab.
