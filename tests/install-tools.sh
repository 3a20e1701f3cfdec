#!/usr/bin/env bash
# Installs the suites that others wrote, at the versions that the tests expect, into target/tools.
# Does nothing, and needs no network, for those that are there, or on the PATH, already.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TOOLS=(pjdfstest:0.2.2 fsx:0.3.2)
readonly ROOT=$PWD/target/tools

for pair in "${TOOLS[@]}"; do
    name=${pair%%:*} version=${pair#*:}
    for program in "$ROOT/bin/$name" "$name"; do
        if [[ "$("$program" --version 2>/dev/null)" == "$name $version" ]]; then
            continue 2
        fi
    done
    echo "installing: $name $version"
    CARGO_TARGET_DIR=$ROOT/build cargo install --quiet --locked --root "$ROOT" \
        --version "$version" "$name"
done
rm -rf "$ROOT/build"
