#!/bin/sh
# Installs xfer from its unpacked tarball: programs, manual pages, completions, documents and units of
# systemd. Any Linux on x86_64 will do, with /dev/fuse for mounts, and fusermount3 (package fuse3) for
# mounts by users other than root. It starts nothing and ends nothing: mounts and servers that run go on.
#
#   ./install.sh                    into /usr/local
#   ./install.sh --prefix DIR       into DIR, for example ~/.local
#   ./install.sh --uninstall        removes what it installed, with the same --prefix. It stays there as
#                                   share/xfer/install.sh. Stores, keys and settings are kept.
#
# Run by root, it also makes the links /sbin/mount.fuse.xfer and /sbin/mount.xfer, since mount(8) looks there.
# For makers of packages: with DESTDIR in the environment, everything goes below that directory.
set -eu
umask 022

usage() {
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit "$1"
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

prefix=/usr/local
action=install
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix) [ $# -ge 2 ] || usage 2 >&2; prefix=${2%/}; shift ;;
        --prefix=*) prefix=${1#*=}; prefix=${prefix%/} ;;
        --uninstall) action=uninstall ;;
        -h | --help) usage 0 ;;
        *) usage 2 >&2 ;;
    esac
    shift
done
case "$prefix" in
    # It is written into units and pages.
    *[!A-Za-z0-9/._+-]*) fail "a prefix has only letters, digits and the characters /._+- : $prefix" ;;
    /*) ;;
    *) fail "a prefix begins with a slash: $prefix" ;;
esac
root=${DESTDIR-}
# All that was made, a path a line: of a directory with a slash at its end, and before what is in it.
list=$prefix/share/xfer/files
listed=$(mktemp)
trap 'rm -f "$listed"' EXIT

make_directory() {
    if [ ! -d "$root$1/" ]; then
        make_directory "${1%/*}"
        mkdir "$root$1"
        echo "$1/" >>"$listed"
    fi
}

# Makes a file by a command that writes it, in one step: a program that runs goes on with its old file.
make_file() {
    path=$1 mode=$2
    shift 2
    make_directory "${path%/*}"
    "$@" >"$root$path.new"
    chmod "$mode" "$root$path.new"
    mv -f "$root$path.new" "$root$path"
    echo "$path" >>"$listed"
}

make_link() {
    make_directory "${1%/*}"
    ln -sf "$2" "$root$1"
    echo "$1" >>"$listed"
}

# A text that names places of the packages, with those in the prefix.
placed() {
    sed -e "s#/usr/bin/xfer#$prefix/bin/xfer#g" -e "s#/usr/share/doc/xfer#$prefix/share/doc/xfer#g" \
        -e "s#/usr/lib/systemd/#$prefix/lib/systemd/#g" "$1"
}

# Makes the links of mount(8), unless the prefix has them there, or another xfer.
make_helpers() {
    make_directory /sbin
    [ "$(cd "$root/sbin" && pwd -P)" != "$(cd "$root$prefix/sbin" && pwd -P)" ] || return 0
    for helper in mount.fuse.xfer mount.xfer; do
        if [ ! -e "$root/sbin/$helper" ] || [ "$(readlink "$root/sbin/$helper")" = "$prefix/sbin/$helper" ]; then
            make_link "/sbin/$helper" "$prefix/sbin/$helper"
        else
            echo "left as it is, since another xfer has it: /sbin/$helper"
        fi
    done
}

check_machine() {
    [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
        fail "these programs are for Linux on x86_64, and this is $(uname -s) on $(uname -m)"
    there=$root$prefix
    while [ ! -e "$there" ]; do
        there=$(dirname "$there")
    done
    [ -w "$there" ] || fail "no right to write in $there; run it as root, or with --prefix ~/.local"
}

install_all() {
    cd "$(dirname "$0")"
    [ -d bin ] || fail "to install, run the install.sh of an unpacked tarball"
    check_machine
    # What an earlier installation made is still there.
    [ ! -e "$root$list" ] || grep '/$' "$root$list" >"$listed" || true
    find bin lib share -type f | while read -r file; do
        case "$file" in
            bin/*) make_file "$prefix/$file" 755 cat "$file" ;;
            *) make_file "$prefix/$file" 644 placed "$file" ;;
        esac
    done
    find sbin share -type l | while read -r link; do
        make_link "$prefix/$link" "$(readlink "$link")"
    done
    [ "$(id -u)" != 0 ] || make_helpers
    make_file "$prefix/share/xfer/install.sh" 755 cat install.sh
    if [ -e "$root$list" ]; then
        remove "$(grep -Fxv -f "$listed" "$root$list")"
    fi
    echo "$list" >>"$listed"
    make_file "$list" 644 cat "$listed"
}

# Removes these files and directories, a path a line, from the last to the first.
remove() {
    echo "$1" | sed '1!G;h;$!d' | while read -r path; do
        case "$path" in
            "") ;;
            */) rmdir "$root$path" 2>/dev/null || true ;;
            *) rm -f "$root$path" ;;
        esac
    done
}

uninstall() {
    [ -e "$root$list" ] || fail "no xfer of a tarball in $prefix; was it installed with another --prefix?"
    remove "$(cat "$root$list")"
    echo "removed xfer from $prefix; kept are a server's store (/var/lib/xfer), settings (/etc/xfer), and users' keys and" \
        "changes that were not sent (~/.local/state/xfer, ~/.cache/xfer)"
}

say_what_comes_next() {
    echo "installed xfer into $prefix; to remove it: $prefix/share/xfer/install.sh --uninstall --prefix $prefix"
    command -v fusermount3 >/dev/null || echo "mounts by users other than root need fusermount3 (package fuse3)"
    [ -e /dev/fuse ] || echo "mounts need /dev/fuse, which is missing; as root: modprobe fuse"
    case ":$PATH:" in
        *":$prefix/bin:"*) ;;
        *) echo "the programs are in $prefix/bin, which is not in your PATH" ;;
    esac
}

if [ "$action" = install ]; then
    install_all
    say_what_comes_next
else
    uninstall
fi
