#!/usr/bin/env bash
# Compares xfer with sshfs, rclone mount, bindfs and the local disk, over a network of a chosen round
# trip and bandwidth that it makes on this machine, and prints tables in Markdown. Needs root, Debian
# or Ubuntu, 6 GiB on the disk of /var/tmp (--dir for another; --memory N takes N GiB more), and two
# hours for all of it.
#
#   tests/benches/run.sh                          everything, medians of 5 runs
#   tests/benches/run.sh --quick                  one timed run of each, and none over a minute
#   tests/benches/run.sh --fs xfer,sshfs --rows untar,find --rtt 20 --rate 1000
#   tests/benches/run.sh --profile DIR --rtt 20 --fs xfer --rows write    and flame graphs of it
#   tests/benches/run.sh --help                   all options
#
# Measures what users run: release builds without any switch of their own, and default settings, but
# for what is said above the tables.
set -euo pipefail
cd "$(dirname "$0")/../.."

# How long one mount may stand before the harness takes it for stuck.
export XFER_TEST_LIMIT_S=${XFER_TEST_LIMIT_S:-7200}

# What draws flame graphs.
readonly INFERNO=0.12.8

packaging/install-deps.sh --benches
if [[ " $* " == *" --profile"* ]]; then
    packaging/install-deps.sh --profile
    export PATH=$PWD/target/tools/bin:$PATH
    command -v inferno-flamegraph >/dev/null ||
        CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --root target/tools \
            --version "$INFERNO" inferno
    rm -rf target/tools/build
fi
cargo build --quiet --release --workspace --locked
cargo bench --quiet --package xfer-tests --bench filesystems --locked -- "$@"
