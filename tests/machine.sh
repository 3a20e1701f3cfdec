# shellcheck shell=bash
# A machine of its own for scripts that try xfer: a directory with a system in it, entered by chroot(8). To be sourced.

# The directory, and the server in it, with its port, and its output in srv/log.
machine=
server=
port=

step() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    [[ -z $machine ]] || tail -n 20 "$machine/srv/log" >&2 2>/dev/null || true
    exit 1
}

# Makes a small Debian in a directory, of the release of this machine, for which programs were built here.
bootstrap() {
    local log
    log=$(mktemp)
    debootstrap --variant=minbase "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$1" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; fail debootstrap; }
    rm "$log"
}

# Runs a program there, as root.
inside() {
    LC_ALL=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        chroot "$machine" "$@"
}

# Waits until a command succeeds, half a minute at most.
wait_for() {
    local end=$((SECONDS + 30))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "not within 30 s: $*"
        sleep 0.1
    done
}

# Notes the port of a server that was started.
await_server() {
    wait_for grep -q 'listening on' "$machine/srv/log"
    port=$(sed -n 's/.*listening on 127.0.0.1:\([0-9]*\),.*/\1/p' "$machine/srv/log")
}

stop_server() {
    kill "$server"
    wait "$server" || true
    server=
}

# Ends what runs there and is mounted there, and removes it.
discard_machine() {
    local place
    [[ -n $machine ]] || return 0
    for place in home/ann/remote mnt/bob; do
        umount -l "$machine/$place" 2>/dev/null || true
    done
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    umount "$machine/proc" 2>/dev/null || umount -l "$machine/proc" 2>/dev/null || true
    rm -rf --one-file-system "$machine" || true
    machine=
}
