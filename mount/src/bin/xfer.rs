//! xfer
fn main() {}
