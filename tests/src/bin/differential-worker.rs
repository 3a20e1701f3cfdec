//! A worker process of `tests/tests/differential.rs`, which compares a mount with a local
//! directory.

fn main() {
    xfer_tests::differential::run();
}
