#!/usr/bin/env bash
# Builds the packages xfer-server and xfer for the Debian or Ubuntu that this machine runs, into
# target/debian, and for each a package with debug information (xfer-dbgsym_*.ddeb). Needs a Rust
# toolchain; installs what else is missing.
#
#   packaging/build-deb.sh                  version 0.1.0-1, for example
#   packaging/build-deb.sh --revision 2     version 0.1.0-2
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CARGO_DEB=3.8.0
readonly PACKAGES=(xfer-server xfer-mount)

revision=1
case "${1-}" in
    "") ;;
    --revision) revision=${2:?"a revision is missing"} ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/tools
# The pages and archives are of the commit's time. The compiler does not get it as SOURCE_DATE_EPOCH, since
# C libraries would be compiled anew for each commit.
made=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

install_cargo_deb() {
    if [[ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb $CARGO_DEB" ]]; then
        echo "installing: cargo-deb $CARGO_DEB"
        CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" \
            --version "$CARGO_DEB" cargo-deb
        rm -rf "$tools/build"
    fi
}

# What a package has in /usr/share/doc beside the project's documents.
write_changelog() {
    local package=$1 version=$2 directory=$3
    mkdir -p "$directory"
    cat >"$directory/changelog.Debian" <<END
$package ($version) unstable; urgency=medium

  * What changed is in changelog.gz.

 -- $maintainer  $(LC_ALL=C date --utc --date "@$made" '+%a, %d %b %Y %T %z')
END
    gzip -9n "$directory/changelog.Debian"
}

packaging/install-deps.sh --packages
install_cargo_deb
echo "building (the first time takes several minutes) ..."
cargo build --quiet --locked --profile dist -p xfer-server -p xfer-mount -p xfer-pages

pages=$target/dist/pages
rm -rf "$pages"
"$target/dist/xfer-pages" "$pages" "$(date --utc --date "@$made" +%F)"
find "$pages" -path '*/man/*' -type f -exec gzip -9n {} +
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' mount/Cargo.toml)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)-$revision
for package in xfer xfer-server; do
    write_changelog "$package" "$version" "$pages/$package/doc/$package"
    install -Dm 644 "packaging/lintian/$package" "$pages/$package/lintian/overrides/$package"
done

for crate in "${PACKAGES[@]}"; do
    SOURCE_DATE_EPOCH=$made "$tools/bin/cargo-deb" --quiet --locked --profile dist --no-build --dbgsym \
        -p "$crate" --deb-revision "$revision" --output "$target/debian"
done
