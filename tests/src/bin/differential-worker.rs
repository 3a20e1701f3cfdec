//! One of the processes that `tests/tests/differential.rs` compares a mount and a local directory
//! by.

fn main() {
    xfer_tests::differential::run();
}
