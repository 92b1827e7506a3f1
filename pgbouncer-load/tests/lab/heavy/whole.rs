//! Tests that leave formation and pooler whole.

mod ends;
mod passes;
