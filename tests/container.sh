#!/usr/bin/env bash
# Proves packaging/Containerfile, with images made here, since those of a registry can't be had everywhere: one
# of Debian, and one of Debian with this machine's Rust. Builds the server in a container and runs it in
# another, where a user is invited, stores a file from outside and finds it after the container was replaced.
# Needs root, and Debian's packages; a quarter of an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/machine.sh

if (($# > 0)); then
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
fi
packaging/install-deps.sh --container
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
readonly CONTAINER=xfer-try-$$
here=$(mktemp -d /tmp/xfer-container.XXXXXX)
export XDG_STATE_HOME=$here/state XDG_CONFIG_HOME=$here/config

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    podman logs --tail 20 "$CONTAINER" >&2 2>/dev/null || true
    exit 1
}

clean_up() {
    podman rm --force "$CONTAINER" >/dev/null 2>&1 || true
    podman volume rm --force "$CONTAINER" >/dev/null 2>&1 || true
    podman rmi --force "localhost/$CONTAINER" "localhost/$CONTAINER-rust" "localhost/$CONTAINER-debian" >/dev/null 2>&1 || true
    rm -rf --one-file-system "$here"
}
trap clean_up EXIT

make_images() {
    step "the images of Debian and of Rust"
    bootstrap "$here/debian"
    tar --create --directory "$here/debian" . | podman import --quiet - "localhost/$CONTAINER-debian" >/dev/null
    chroot "$here/debian" apt-get -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0 install \
        build-essential ca-certificates >/dev/null
    cp --archive "$(rustc --print sysroot)" "$here/debian/opt/rust"
    tar --create --directory "$here/debian" . |
        podman import --quiet --change 'ENV PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin' - \
            "localhost/$CONTAINER-rust" >/dev/null
    rm -rf --one-file-system "$here/debian"
}

build() {
    step "podman build"
    # What cargo has fetched is given, so that nothing is fetched twice.
    cargo fetch --quiet --locked
    podman build --quiet --isolation chroot --network host --volume "${CARGO_HOME:-/root/.cargo}/registry:/root/.cargo/registry:O" \
        --build-arg "RUST=localhost/$CONTAINER-rust" --build-arg "DEBIAN=localhost/$CONTAINER-debian" \
        --tag "localhost/$CONTAINER" --file packaging/Containerfile . >/dev/null
}

# A free port, since the container has the machine's network. By runc, and with bounds that any machine allows:
# podman's own runtime refuses some ways of control groups, and podman asks for more than some machines allow.
start() {
    podman --runtime runc run --detach --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
        --name "$CONTAINER" --network host --volume "$CONTAINER:/var/lib/xfer" \
        "localhost/$CONTAINER" run --listen "127.0.0.1:$port" >/dev/null
    local end=$((SECONDS + 30))
    # Not by a pipe: one that ends early would fail what writes to it.
    until [[ $(podman logs "$CONTAINER" 2>&1) == *'listening on'* ]]; do
        ((SECONDS < end)) || fail "the server does not listen"
        sleep 0.1
    done
    port=$(podman logs "$CONTAINER" 2>&1 | sed -n 's/.*listening on 127.0.0.1:\([0-9]*\),.*/\1/p')
}

use() {
    step "a server in a container"
    cargo build --quiet --locked -p xfer-mount --bin xfer
    PATH=$target/debug:$PATH
    port=0
    start
    local line who
    who=$(podman exec "$CONTAINER" sh -c 'stat -c "%u %a" /var/lib/xfer')
    [[ $who == "33000 700" ]] || fail "the store is of $who"
    line=$(podman exec "$CONTAINER" xfer-server user add alice --invite --host "127.0.0.1:$port" 2>/dev/null)
    echo "a good password" | bash -c "$line --password-stdin"
    echo hello | xfer put - "alice@127.0.0.1:$port:file"
    podman stop --time 20 "$CONTAINER" >/dev/null
    [[ $(podman inspect --format '{{.State.ExitCode}}' "$CONTAINER") == 0 ]] || fail "its end"
    podman rm "$CONTAINER" >/dev/null
    start
    [[ $(xfer cat "alice@127.0.0.1:$port:file") == hello ]] || fail "what was stored"
}

make_images
build
use
printf '\nPASSED: the container\n'
