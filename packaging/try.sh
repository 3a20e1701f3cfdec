#!/usr/bin/env bash
# Tries xfer out on this machine: builds it, starts a server, mounts two users, sends a file.
# Everything is in a temporary directory and goes away at the end.
#
#   packaging/try.sh          then gives you a shell in the middle of it (on a terminal)
#   packaging/try.sh --keep   leaves it running instead, and says how to end it
set -euo pipefail
cd "$(dirname "$0")/.."

keep=no
case "${1-}" in
    "") ;;
    --keep) keep=yes ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

packaging/install-deps.sh
echo "building (the first time takes a few minutes) ..."
cargo build --quiet --release --locked -p xfer-server -p xfer-mount
PATH="${CARGO_TARGET_DIR:-$PWD/target}/release:$PATH"
export PATH

here=$(mktemp -d /tmp/xfer-try.XXXXXX)
server=

clean_up() {
    local user
    for user in alice bob; do
        if mountpoint -q "$here/$user" 2>/dev/null; then
            xfer unmount "$here/$user" >/dev/null || fusermount3 -uz "$here/$user" || true
        fi
    done
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    # Never through a mount that could not be taken away.
    rm -rf --one-file-system "$here" || true
}
trap clean_up EXIT

# Prints a command as it would be typed, then runs it.
show() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    bash -c "$*"
}

start_server() {
    local user
    for user in alice bob; do
        (umask 077 && head -c 15 /dev/urandom | base64 >"$here/$user.password")
        xfer-server user add "$user" --password-file "$here/$user.password" --store "$here/store"
        mkdir "$here/$user"
    done
    xfer-server run --store "$here/store" --listen 127.0.0.1:0 >"$here/server.log" 2>&1 &
    server=$!
    local line=
    for _ in {1..100}; do
        line=$(grep -m 1 -o 'listening on .*' "$here/server.log") && break
        kill -0 "$server" 2>/dev/null || { cat "$here/server.log" >&2; exit 1; }
        sleep 0.1
    done
    [[ -n $line ]] || { echo "the server did not start; see $here/server.log" >&2; exit 1; }
    address=${line#listening on }
    address=${address%%,*}
    fingerprint=${line##*fingerprint }
}

# Waits for a file, at most ten seconds.
wait_for() {
    local i
    for i in {1..100}; do
        [[ -e $1 ]] && return
        sleep 0.1
    done
    echo "$1 did not appear" >&2
    exit 1
}

start_server
echo "server: $address, $fingerprint"
cd "$here"
for user in alice bob; do
    show "xfer-mount --fingerprint $fingerprint --password-file $user.password $user@$address $user"
done
show "ls -l alice"
show "cp -r /usr/share/doc/base-files alice/docs && ls alice/docs"
show "cp /usr/share/common-licenses/GPL-3 alice/ && head -n 3 alice/GPL-3"
show "mv alice/GPL-3 alice/renamed && rm alice/renamed"
show "echo 'Hello Bob' > letter.txt && cp letter.txt alice/outbox/bob/"
wait_for bob/inbox/alice/letter.txt
show "cat bob/inbox/alice/letter.txt && getfattr -d bob/inbox/alice/letter.txt"
for _ in {1..50}; do
    getfattr --only-values -n user.xfer.state alice/outbox/bob/letter.txt 2>/dev/null |
        grep -q received && break
    sleep 0.1
done
show "getfattr -d alice/outbox/bob/letter.txt"
show "xfer status"

if [[ $keep == yes ]]; then
    trap - EXIT
    disown "$server"
    cat <<END

It goes on running in $here. To end it:
  xfer unmount $here/alice; xfer unmount $here/bob; kill $server; rm -r $here
(xfer is in ${PATH%%:*})
END
elif [[ -t 0 && -t 1 ]]; then
    printf '\nYou are in %s; alice and bob are mounted. Type "exit" to end it all.\n' "$here"
    bash -i || true
else
    printf '\nAll of it worked. It was in %s and is cleaned up now.\n' "$here"
fi
