//! The metaphrase command line.
fn main() {}
