//! Many drills in each test.

mod whole;
