#!/usr/bin/env bash
# Proves that `xfer` can be built for macOS, with all warnings as errors: the program is linked, but nothing
# of it is run. Needs no Mac, but rustup, Debian's packages and a C compiler from PyPI; five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TRIPLE=aarch64-apple-darwin
readonly ZIG=0.17.1

if (($# > 0)); then
    sed -n '2,3s/^# \{0,1\}//p' "$0"
    exit 2
fi
packaging/install-deps.sh --macos
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/tools/zig-$ZIG
[[ -d $tools ]] || pip3 install --quiet --no-deps --target "$tools" "ziglang==$ZIG"

# A compiler, and a linker, of the names that cargo expects. zig calls the system otherwise than clang does,
# and has no libiconv, which nothing here uses.
cat >"$tools/cc" <<'END'
#!/usr/bin/env bash
kept=()
for argument; do
    case $argument in
        --target=* | -arch | arm64 | -mmacosx-version-min=* | -liconv) ;;
        *) kept+=("$argument") ;;
    esac
done
exec "$(dirname "$0")/ziglang/zig" cc -target aarch64-macos "${kept[@]}"
END
cat >"$tools/ar" <<'END'
#!/usr/bin/env bash
exec "$(dirname "$0")/ziglang/zig" ar "$@"
END
chmod +x "$tools/cc" "$tools/ar"
export CC_aarch64_apple_darwin=$tools/cc AR_aarch64_apple_darwin=$tools/ar
export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$tools/cc

cargo clippy --quiet --locked --target "$TRIPLE" -p xfer-mount --lib --bin xfer -- -D warnings
# rustc looks for the system's libraries. The compiler brings its own.
SDKROOT=$tools cargo build --quiet --locked --target "$TRIPLE" -p xfer-mount --bin xfer
file "$target/$TRIPLE/debug/xfer" | grep --quiet 'Mach-O 64-bit .*arm64 .*executable' || {
    echo "FAILED: $target/$TRIPLE/debug/xfer is no program for macOS" >&2
    exit 1
}
echo "PASSED: xfer is built for macOS; it was not run"
