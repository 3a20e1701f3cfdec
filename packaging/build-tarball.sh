#!/usr/bin/env bash
# Builds target/tarball/xfer-VERSION-x86_64-linux.tar.gz, with SHA256SUMS: all that the packages have, with
# programs that are linked statically and so run on every Linux, and install.sh. One commit gives the same
# bytes each time. Needs a Debian or Ubuntu with a Rust toolchain; installs what else is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/packages.sh

readonly TRIPLE=x86_64-unknown-linux-musl
readonly NAME=xfer-$version-x86_64-linux

if (($# > 0)); then
    sed -n '2,4s/^# \{0,1\}//p' "$0"
    exit 2
fi
staged=$(mktemp -d /tmp/xfer-tarball.XXXXXX)
trap 'rm -rf "$staged"' EXIT

# Unpacks both packages, and makes of what they install in /usr what install.sh installs in its prefix.
lay_out() {
    local package root=$staged/$NAME
    make_packages --target "$TRIPLE" --output "$staged" >/dev/null
    for package in "$staged"/*.deb; do
        dpkg-deb --extract "$package" "$staged/root"
    done
    mv "$staged/root/usr" "$root"
    mv "$staged/root/etc/xfer/server.toml" "$root/share/doc/xfer-server/examples/"
    # Where zsh looks by itself; the other place is Debian's.
    mv "$root/share/zsh/vendor-completions" "$root/share/zsh/site-functions"
    # install.sh writes the prefix into pages, so they are not compressed.
    find "$root/share" -type f -name '*.gz' -exec gunzip {} +
    rm "$root/share/man/man8/mount.xfer.8.gz"
    ln -s mount.fuse.xfer.8 "$root/share/man/man8/mount.xfer.8"
    install -m 644 LICENSE LICENSE-APACHE LICENSE-MIT "$root/share/doc/xfer/"
    install -m 755 packaging/install.sh "$root/"
    ln -s share/doc/xfer/README.md "$root/README.md"
}

pack() {
    rm -rf "$target/tarball"
    mkdir -p "$target/tarball"
    cd "$target/tarball"
    tar --create --directory "$staged" --sort=name --format=gnu --mtime "@$made" --owner root:0 --group root:0 \
        --mode u=rwX,go=rX "$NAME" | gzip -9n >"$NAME.tar.gz"
    sha256sum "$NAME.tar.gz" >SHA256SUMS
    echo "$PWD/$NAME.tar.gz"
}

packaging/install-deps.sh --tarball
install_cargo_deb
# Where the sources are must not show in the programs.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="--remap-path-prefix=$PWD=. \
--remap-path-prefix=$target=target --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
export CFLAGS_x86_64_unknown_linux_musl="-ffile-prefix-map=$PWD=. \
-ffile-prefix-map=$target=target -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=cargo"
# The date that a C library notes of its build: always the same one.
SOURCE_DATE_EPOCH=0 build_programs "$TRIPLE"
lay_out
pack
