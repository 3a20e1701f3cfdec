#!/usr/bin/env bash
# Proves the tarball: builds it twice, the second time from nothing, and compares the bytes. Installs it in
# a directory where there is nothing but busybox, and in an old Debian. In each a server runs, a user is
# invited and mounts, sends a file and unmounts, and the installation is removed again. Needs root, /dev/fuse,
# and Debian's packages; half an hour.
#
#   tests/tarball.sh            everything
#   tests/tarball.sh FILE       only with this tarball, which was built before
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/machine.sh

tarball=
case "${1-}" in
    -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) tarball=${1-} ;;
esac
target=${CARGO_TARGET_DIR:-$PWD/target}
readonly HOST=server.test

clean_up() {
    rm -rf "$target/again"
    discard_machine
}
trap clean_up EXIT

build() {
    step "build, twice"
    packaging/build-tarball.sh
    tarball=$(echo "$target"/tarball/xfer-*.tar.gz)
    (cd "$target/tarball" && sha256sum --check SHA256SUMS)
    rm -rf "$target/again"
    mkdir "$target/again"
    ln -s "$target/tools" "$target/again/tools"
    CARGO_TARGET_DIR=$target/again packaging/build-tarball.sh
    cmp "$tarball" "$target/again/tarball/$(basename "$tarball")" || fail "the two builds differ"
    rm -r "$target/again"
}

check_programs() {
    step "programs that need no library"
    local unpacked program
    unpacked=$(mktemp -d /tmp/xfer-unpacked.XXXXXX)
    tar -xzf "$tarball" --strip-components 1 -C "$unpacked"
    for program in xfer xfer-mount xfer-server; do
        [[ $(file "$unpacked/bin/$program") == *static*linked* ]] || fail "$program is not static: file"
        # It ends with an error for some static programs.
        [[ $(ldd "$unpacked/bin/$program" 2>&1 || true) =~ statically\ linked|not\ a\ dynamic ]] ||
            fail "$program is not static: ldd"
    done
    rm -r "$unpacked"
}

new_machine() {
    machine=$(mktemp -d /tmp/xfer-tarball-in.XXXXXX)
    chmod 755 "$machine"
}

# What both machines have.
complete_machine() {
    mkdir -p "$machine"/{proc,dev,etc,srv,tmp,root,mnt/bob,home/ann/remote}
    chmod 1777 "$machine/tmp"
    mount -t proc proc "$machine/proc"
    [[ -e $machine/dev/fuse ]] || mknod -m 666 "$machine/dev/fuse" c 10 229
    [[ -e $machine/dev/null ]] || mknod -m 666 "$machine/dev/null" c 1 3
    # A server by its name, which a program without glibc finds there too.
    echo "127.0.0.1 $HOST" >>"$machine/etc/hosts"
    cp "$tarball" "$machine/srv/"
}

make_bare_machine() {
    step "a machine with busybox alone"
    [[ $(file -L "$(command -v busybox)") == *statically* ]] || fail "busybox is not static; install busybox-static"
    new_machine
    mkdir "$machine/bin"
    cp "$(command -v busybox)" "$machine/bin/"
    complete_machine
    inside /bin/busybox --install -s /bin
    ann=(inside env HOME=/home/ann)
}

make_old_debian() {
    local release
    for release in bullseye bookworm; do
        step "a machine with Debian's $release"
        new_machine
        if debootstrap --variant=minbase --include=fuse3 "$release" "$machine" >"$machine.log" 2>&1; then
            break
        fi
        tail -n 3 "$machine.log" >&2
        rm -rf --one-file-system "$machine"
        machine=
    done
    rm -f "$machine.log"
    [[ -n $machine ]] || fail "debootstrap"
    # Debian makes it at the first boot, and fusermount3 reads it.
    [[ -e $machine/etc/mtab ]] || ln -s ../proc/self/mounts "$machine/etc/mtab"
    inside useradd --create-home ann
    complete_machine
    inside chown ann: /home/ann/remote
    ann=(inside runuser -u ann -- env HOME=/home/ann)
}

# All files and directories of the machine.
everything() {
    (cd "$machine" && find . -xdev -path ./dev -prune -o -path ./srv -prune -o -print | sort)
}

install_it() {
    step "install"
    inside sh -c 'cd /srv && gunzip -c xfer-*.tar.gz | tar -xf - && cd xfer-*/ && ./install.sh'
    inside xfer-server --version
    inside test -x /sbin/mount.fuse.xfer || fail "the helper of mount(8)"
}

start_server() {
    inside xfer-server run --listen 127.0.0.1:0 >"$machine/srv/log" 2>&1 &
    server=$!
    await_server
}

log_in_and_mount() {
    step "users are invited, log in and mount"
    local line
    line=$(inside xfer-server user add ann --invite --host "$HOST:$port" 2>/dev/null)
    echo "a good password" | "${ann[@]}" sh -c "$line --password-stdin"
    "${ann[@]}" xfer-mount "ann@$HOST:$port" /home/ann/remote
    line=$(inside xfer-server user add bob --invite --host "$HOST:$port" 2>/dev/null)
    echo "another password" | inside sh -c "$line --password-stdin"
    inside mount -t fuse.xfer "bob@$HOST:$port" /mnt/bob
}

send() {
    step "a file is sent"
    "${ann[@]}" sh -c 'echo hello > ~/remote/outbox/bob/letter && xfer sync ~/remote && xfer status'
    wait_for inside test -s /mnt/bob/inbox/ann/letter
    [[ $(inside cat /mnt/bob/inbox/ann/letter) == hello ]] || fail "what was sent"
}

uninstall_it() {
    step "uninstall"
    inside sh /usr/local/share/xfer/install.sh --uninstall
    [[ -s $machine/var/lib/xfer/xfer.db ]] || fail "the store is gone"
    "${ann[@]}" sh -c 'ls ~/.local/state/xfer/keys/*' || fail "the key is gone"
    # Nothing but a store, what users have, and the empty directory in which mounts had their sockets.
    local left
    left=$(comm -13 <(echo "$before") <(everything) |
        grep -vE '^\./(var|var/lib|var/lib/xfer|(root|home/ann)/\.(local|cache|config))(/|$)|^\./tmp/xfer-[0-9]+$' || true)
    [[ -z $left ]] || fail "left behind: $left"
}

try_it() {
    local before
    before=$(everything)
    install_it
    start_server
    log_in_and_mount
    send
    step "unmount"
    "${ann[@]}" xfer unmount /home/ann/remote
    inside umount /mnt/bob
    stop_server
    uninstall_it
    discard_machine
}

packaging/install-deps.sh --package-tests
[[ -n $tarball ]] || build
check_programs
make_bare_machine
try_it
make_old_debian
try_it
printf '\nPASSED: the tarball\n'
