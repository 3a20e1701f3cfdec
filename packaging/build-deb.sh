#!/usr/bin/env bash
# Builds the packages xfer-server and xfer for the Debian or Ubuntu that this machine runs, into
# target/debian, and for each a package with debug information (xfer-dbgsym_*.ddeb). Needs a Rust
# toolchain; installs what else is missing.
#
#   packaging/build-deb.sh                  version 0.1.0-1, for example
#   packaging/build-deb.sh --revision 2     version 0.1.0-2
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/packages.sh

revision=1
case "${1-}" in
    "") ;;
    --revision) revision=${2:?"a revision is missing"} ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

# What a package has in /usr/share/doc beside the project's documents.
write_changelog() {
    local package=$1 directory=$2
    mkdir -p "$directory"
    cat >"$directory/changelog.Debian" <<END
$package ($version-$revision) unstable; urgency=medium

  * What changed is in changelog.gz.

 -- $maintainer  $(LC_ALL=C date --utc --date "@$made" '+%a, %d %b %Y %T %z')
END
    gzip -9n "$directory/changelog.Debian"
}

packaging/install-deps.sh --packages
install_cargo_deb
build_programs
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' mount/Cargo.toml)
for package in xfer xfer-server; do
    write_changelog "$package" "$pages/$package/doc/$package"
    install -Dm 644 "packaging/lintian/$package" "$pages/$package/lintian/overrides/$package"
done
make_packages --dbgsym --deb-revision "$revision" --output "$target/debian"
