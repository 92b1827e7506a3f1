//! A drive that is emptied, in a lab.
