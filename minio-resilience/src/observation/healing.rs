//! What healing does: what each object lacks, and how long until it lacks nothing.
