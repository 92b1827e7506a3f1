//! Tests that can do with any node as primary, and leave a formation that is whole and followed.

mod following;
mod sabotage;
