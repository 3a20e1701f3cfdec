#!/usr/bin/env bash
# Installs what building, mounting and testing xfer need from Debian or Ubuntu, Rust apart.
# Does nothing, and needs no rights, if all of it is there.
#
#   packaging/install-deps.sh            to build and to mount
#   packaging/install-deps.sh --tests    and to run the tests
#   packaging/install-deps.sh --packages and to make packages
#   packaging/install-deps.sh --tarball  and to make the tarball
#   packaging/install-deps.sh --container    and to try the container
#   packaging/install-deps.sh --macos    and to build xfer for macOS
#   packaging/install-deps.sh --package-tests   and to try packages and tarball in a fresh Debian
#   packaging/install-deps.sh --benches  and to compare xfer with others
#   packaging/install-deps.sh --busy     and to run the tests on a machine that is kept busy
#   packaging/install-deps.sh --profile  and to see where its time goes
set -euo pipefail

# A program, and the package that has it.
needed=(
    cc:build-essential
    fusermount3:fuse3
    setfattr:attr
)
for_tests=(
    automount:autofs
    cpio:cpio
    curl:curl
    dbus-daemon:dbus
    faketime:faketime
    fish:fish
    flock:util-linux
    getfacl:acl
    gio:libglib2.0-bin
    git:git
    inotifywait:inotify-tools
    mkfs.btrfs:btrfs-progs
    ip:iproute2
    mandoc:mandoc
    man:man-db
    mkfs.ext4:e2fsprogs
    nano:nano
    openssl:openssl
    python3:python3
    rsync:rsync
    sqlite3:sqlite3
    strace:strace
    systemd-analyze:systemd
    tar:tar
    unshare:util-linux
    updatedb:plocate
    vim:vim
    zip:zip
    zsh:zsh
)

for_packages=(
    dpkg-shlibdeps:dpkg-dev
    gzip:gzip
    objcopy:binutils
)

for_tarball=(
    musl-gcc:musl-tools
)

for_container=(
    debootstrap:debootstrap
    podman:podman
    runc:runc
)

for_macos=(
    file:file
    pip3:python3-pip
)

for_package_tests=(
    busybox:busybox-static
    debootstrap:debootstrap
    file:file
    lintian:lintian
    systemd-nspawn:systemd-container
)

for_benches=(
    bindfs:bindfs
    cmp:diffutils
    ip:iproute2
    perl:perl-base
    rclone:rclone
    # A server that Debian also starts; the benches start one of their own.
    sshd:openssh-server
    sshfs:sshfs
)

case ${1-} in
    --tests) needed+=("${for_tests[@]}") ;;
    --packages) needed+=("${for_packages[@]}") ;;
    --tarball) needed+=("${for_packages[@]}" "${for_tarball[@]}") ;;
    --container) needed+=("${for_container[@]}") ;;
    --macos) needed+=("${for_macos[@]}") ;;
    --package-tests) needed+=("${for_packages[@]}" "${for_package_tests[@]}") ;;
    --benches) needed+=("${for_benches[@]}") ;;
    --busy) needed+=("${for_tests[@]}" stress-ng:stress-ng) ;;
    --profile) needed+=(perf:linux-perf) ;;
esac

missing=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done

# A module of Debian's Python has no program.
case ${1-} in
    --tests | --busy)
        /usr/bin/python3 -c 'import dbusmock' 2>/dev/null || missing+=(python3-dbusmock)
        ;;
esac

if ((${#missing[@]} > 0)); then
    . "$(dirname "$0")/apt.sh"
    install_packages "${missing[@]}"
fi

command -v cargo >/dev/null || {
    echo "cargo is missing; install Rust 1.88 or later by rustup" >&2
    exit 1
}
# Rust's standard library for another system.
case ${1-} in
    --tarball) other=x86_64-unknown-linux-musl ;;
    --macos) other=aarch64-apple-darwin ;;
    *) other= ;;
esac
if [[ -n $other && ! -d $(rustc --print target-libdir --target "$other") ]]; then
    command -v rustup >/dev/null || {
        echo "Rust's standard library for $other is missing; install it as you installed Rust" >&2
        exit 1
    }
    rustup target add "$other"
fi
[[ -e /dev/fuse ]] || {
    echo "/dev/fuse is missing; as root: modprobe fuse" >&2
    exit 1
}
