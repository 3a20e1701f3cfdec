# The steps that build-deb.sh and build-tarball.sh share. What a package has is listed once, as
# `package.metadata.deb` in server/Cargo.toml and mount/Cargo.toml, which cargo-deb reads. Sourced by
# scripts in the project's directory; does nothing by itself.

CARGO_DEB=3.8.0

target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/tools
# The pages and archives are of the commit's time. The compiler does not get it as SOURCE_DATE_EPOCH, since
# C libraries would be compiled anew for each commit.
made=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

install_cargo_deb() {
    if [[ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb $CARGO_DEB" ]]; then
        echo "installing: cargo-deb $CARGO_DEB"
        CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" \
            --version "$CARGO_DEB" cargo-deb
        rm -rf "$tools/build"
    fi
}

# Builds the programs into the directory $built, for this machine or for the target that is given, and
# writes their pages and completions beside them, into $pages.
build_programs() {
    built=$target${1:+/$1}/dist
    pages=$built/pages
    echo "building (the first time takes several minutes) ..."
    cargo build --quiet --locked --profile dist ${1:+--target "$1"} -p xfer-server -p xfer-mount -p xfer-pages
    rm -rf "$pages"
    "$built/xfer-pages" "$pages" "$(date --utc --date "@$made" +%F)"
    find "$pages" -path '*/man/*' -type f -exec gzip -9n {} +
}

# Makes both packages of what was built, with these options of cargo-deb.
make_packages() {
    local crate
    for crate in xfer-server xfer-mount; do
        SOURCE_DATE_EPOCH=$made "$tools/bin/cargo-deb" --quiet --locked --profile dist --no-build -p "$crate" "$@"
    done
}
