//! xfer-mount
fn main() {}
