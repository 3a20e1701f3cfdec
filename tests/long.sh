#!/usr/bin/env bash
# What tests/run.sh does in part, at full size, the packages, the tarball and other systems: hours. Needs root, and what tests/run.sh installs.
#
#   tests/long.sh              everything
#   tests/long.sh PART...      only these parts: fsx, differential, space, sides, breaks, rules, big,
#                              packages, tarball, container, macos
#
# XFER_FSX_OPERATIONS, XFER_DIFFERENTIAL_OPERATIONS, XFER_SPACE_OPERATIONS, XFER_RULES_OPERATIONS,
# XFER_RULES_RUNS, XFER_RULES_SHORT_RUNS, XFER_RULES_SEEDS, XFER_KILLS, XFER_COPIED_MIB, XFER_PULLED_S, XFER_OPENINGS, XFER_CUTS, XFER_STOPPED_S,
# XFER_COMING_BACK, XFER_RESCUES, XFER_STORE_FILES, XFER_BUSY_S, XFER_CLIENT_KILLS, XFER_POWER_CUTS, XFER_TURNS, XFER_SHORT_STEPS, XFER_SHORT_ALL_STEPS, PROPTEST_CASES,
# XFER_BIG_ENTRIES, XFER_SPARSE_WRITES and XFER_MEMORY_FILES change how much each does.
set -euo pipefail
cd "$(dirname "$0")/.."

export XFER_TEST_LIMIT_S=${XFER_TEST_LIMIT_S:-86400}
readonly PARTS=(fsx differential space sides breaks rules big packages tarball container macos)

# Runs one part, in a build that is fast and has the checks of a debug build, and says what came of
# it and how long it took.
measured() {
    local what=$1 start=$SECONDS
    shift
    if cargo test --quiet --locked --profile long --no-fail-fast "$@"; then
        printf 'PASSED: %s in %d s\n' "$what" $((SECONDS - start))
    else
        printf 'FAILED: %s after %d s\n' "$what" $((SECONDS - start))
        failed=1
    fi
}

# Two tests, of which each does half of all operations.
fsx() {
    local all=${XFER_FSX_OPERATIONS:-10000000}
    export XFER_FSX_OPERATIONS=$((all / 2))
    measured "fsx, $all operations" -p xfer-tests --test programs -- suites::fsx
}

differential() {
    export XFER_DIFFERENTIAL_OPERATIONS=${XFER_DIFFERENTIAL_OPERATIONS:-1000000}
    measured "random operations, $XFER_DIFFERENTIAL_OPERATIONS" \
        -p xfer-tests --test programs -- differential::random_operations
}

space() {
    export XFER_SPACE_OPERATIONS=${XFER_SPACE_OPERATIONS:-500000}
    measured "what is used after $XFER_SPACE_OPERATIONS operations" \
        -p xfer-tests --test storing -- exact_to_the_byte
}

sides() {
    export XFER_RULES_OPERATIONS=${XFER_RULES_OPERATIONS:-10000000}
    export XFER_RULES_RUNS=${XFER_RULES_RUNS:-100000} XFER_RULES_SEEDS=${XFER_RULES_SEEDS:-10000}
    export XFER_SHORT_STEPS=${XFER_SHORT_STEPS:-4} XFER_SHORT_ALL_STEPS=${XFER_SHORT_ALL_STEPS:-3}
    measured "both sides against the rules, $XFER_RULES_OPERATIONS operations" \
        -p xfer-tests --test rules -- --nocapture
}

breaks() {
    export XFER_STORE_FILES=${XFER_STORE_FILES:-200000}
    export XFER_KILLS=${XFER_KILLS:-300} XFER_COPIED_MIB=${XFER_COPIED_MIB:-2048}
    export XFER_PULLED_S=${XFER_PULLED_S:-300} XFER_COMING_BACK=${XFER_COMING_BACK:-1000}
    export XFER_RESCUES=${XFER_RESCUES:-500} XFER_CLIENT_KILLS=${XFER_CLIENT_KILLS:-300}
    measured "crashes, $XFER_KILLS kills, a copy of $XFER_COPIED_MIB MiB and a store of $XFER_STORE_FILES files" \
        -p xfer-tests --test storing -- --nocapture crashes::
    export XFER_POWER_CUTS=${XFER_POWER_CUTS:-300}
    measured "$XFER_POWER_CUTS power cuts of a disk that forgets" \
        -p xfer-tests --test storing -- --nocapture power::
    measured "$XFER_POWER_CUTS power cuts of a client's machine" \
        -p xfer-tests --test away -- --nocapture offline_power::
    measured "$XFER_RESCUES rescues of random changes" \
        -p xfer-tests --test away -- --nocapture rescue::random
    measured "$XFER_CLIENT_KILLS kills of a client that works offline" \
        -p xfer-tests --test away -- --nocapture offline::whatever
    export XFER_TURNS=${XFER_TURNS:-1000}
    measured "two machines that take turns $XFER_TURNS times" \
        -p xfer-tests --test machines -- handoff::the_tree_follows
    export XFER_CUTS=${XFER_CUTS:-all}
    measured "links that end after each byte that they carry" \
        -p xfer-tests --test away -- --nocapture cuts::
    export XFER_OPENINGS=${XFER_OPENINGS:-200}
    measured "broken links, pulled for $XFER_PULLED_S s" -p xfer-tests --test away -- breaks::
    for seconds in 1 30; do
        XFER_PULLED_S=$seconds measured "a cable that is pulled for $seconds s" \
            -p xfer-tests --test away -- breaks::programs_go_on
    done
    export XFER_STOPPED_S=${XFER_STOPPED_S:-330}
    measured "servers and clients that are stopped for $XFER_STOPPED_S s" \
        -p xfer-tests --test away -- stopped::
    measured "$XFER_COMING_BACK clients that come back" \
        -p xfer-tests --test sessions -- --nocapture come_back
    export XFER_BUSY_S=${XFER_BUSY_S:-300}
    measured "a machine that is busy for $XFER_BUSY_S s" \
        -p xfer-tests --test sessions -- --nocapture a_machine_that_is_busy
}

rules() {
    export PROPTEST_CASES=${PROPTEST_CASES:-20000}
    measured "properties, $PROPTEST_CASES cases each" \
        -p xfer-protocol -p xfer-store -p xfer-server -p xfer-client -p xfer-mount
}

big() {
    export XFER_BIG_ENTRIES=${XFER_BIG_ENTRIES:-1000000}
    export XFER_SPARSE_WRITES=${XFER_SPARSE_WRITES:-20000} XFER_MEMORY_FILES=${XFER_MEMORY_FILES:-10000}
    measured "big things, $XFER_BIG_ENTRIES entries, $XFER_SPARSE_WRITES writes" \
        -p xfer-tests --test storing --test programs --test sessions -- --nocapture --test-threads 1 \
        big:: big_files:: memory::
}

# Runs a script, and says what came of it and how long it took.
scripted() {
    local what=$1 start=$SECONDS
    shift
    if "$@"; then
        printf 'PASSED: %s in %d s\n' "$what" $((SECONDS - start))
    else
        printf 'FAILED: %s after %d s\n' "$what" $((SECONDS - start))
        failed=1
    fi
}

packages() {
    scripted packages tests/packages.sh --boot
}

tarball() {
    scripted "the tarball" tests/tarball.sh
}

container() {
    scripted "the container" tests/container.sh
}

macos() {
    scripted "xfer for macOS" tests/macos.sh
}

failed=0
packaging/install-deps.sh --tests
tests/install-tools.sh
cargo build --quiet --workspace --locked --profile long
for part in "${@:-${PARTS[@]}}"; do
    if [[ " ${PARTS[*]} " != *" $part "* ]]; then
        echo "no such part: $part; there are ${PARTS[*]}" >&2
        exit 2
    fi
    "$part"
done
exit "$failed"
