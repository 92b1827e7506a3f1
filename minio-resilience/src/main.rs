//! minio-resilience: takes nodes of a MinIO cluster away, watches what its readers get, puts them back, and proves that
//! every object was healed.

fn main() {}
