#!/usr/bin/env bash
# Proves xfer, from formatting to real mounts. Needs a Debian or Ubuntu with a Rust toolchain, and
# the right to mount: root, or a user who may open /dev/fuse (then fusermount3 mounts). Without root
# the tests fail that change users, remount, or make overlays or networks.
#
#   tests/run.sh            everything
#   tests/run.sh NAME...    only the tests whose names contain one of these
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    printf '\n== %s\n' "$*"
}

# The version that deny.toml was written for.
readonly DENY_VERSION=0.20.2

check_dependencies() {
    if [[ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $DENY_VERSION" ]]; then
        cargo install --quiet --locked --version "$DENY_VERSION" cargo-deny
    fi
    local log
    log=$(mktemp)
    if cargo deny --log-level error fetch db >"$log" 2>&1; then
        cargo deny --log-level error check
    else
        echo "NOT CHECKED: security advisories, since their database can't be fetched from here" \
            "($(grep -m 1 -i -o 'failed to .*' "$log" | head -c 100 || true))"
        cargo deny --log-level error check bans licenses sources
    fi
    rm -f "$log"
}

check_source() {
    step "format"
    cargo fmt --all --check
    step "clippy"
    cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
    step "docs"
    # Private items are documented too, so links to them lead somewhere.
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
        cargo doc --quiet --workspace --no-deps --document-private-items --locked
    step "dependencies"
    check_dependencies
    step "scripts"
    bash -n packaging/*.sh tests/*.sh tests/benches/*.sh .ci/run
}

# What a run that was killed left behind: mounts that nothing serves any more.
detach_stale_mounts() {
    local path
    while read -r path; do
        timeout 5 stat "$path" >/dev/null 2>&1 || fusermount3 -uzq "$path" || true
    done < <(awk '$5 ~ "^/tmp/xfer-" { print $5 }' /proc/self/mountinfo)
}

run_tests() {
    step "build"
    # The programs of all members: `cargo test` alone would not build them for the tests' member.
    cargo build --quiet --workspace --locked
    step "tests"
    detach_stale_mounts
    if cargo nextest --version >/dev/null 2>&1; then
        # Many tests wait for most of their time.
        cargo nextest run --workspace --locked --test-threads "$(($(nproc) * 2))" "$@"
    else
        # The tests' runner takes one filter only, so each name has a run of its own.
        local name
        for name in "${@:-}"; do
            cargo test --workspace --locked -- ${name:+"$name"}
        done
    fi
}

step "what the system needs"
packaging/install-deps.sh --tests
tests/install-tools.sh
if (($# == 0)); then
    check_source
fi
run_tests "$@"
