//! Drills that leave the processor to others, and what must not become one.

mod untouched;
mod whole;
mod sabotage;
