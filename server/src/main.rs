//! xfer-server
fn main() {}
