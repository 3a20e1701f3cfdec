#!/usr/bin/env bash
# Runs the tests while other programs compute on every core: that makes them slow, and must not make
# them fail. Needs what tests/run.sh does, and over an hour.
#
#   tests/busy.sh [NAME...]    as tests/run.sh
#
# XFER_BUSY_PROGRAMS: how many programs compute for each core, 2 unless it says otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

packaging/install-deps.sh --busy
export XFER_TEST_LIMIT_S=${XFER_TEST_LIMIT_S:-1800} NEXTEST_PROFILE=busy
# It ends with this script, however that ends.
stress-ng --quiet --cpu $(($(nproc) * ${XFER_BUSY_PROGRAMS:-2})) --timeout 0 &
trap 'kill %1' EXIT
tests/run.sh "$@"
