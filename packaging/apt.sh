# Installs packages of Debian or Ubuntu, and waits for another apt to be done first: on a new
# machine one is often at work for some minutes. Sourced by scripts; does nothing by itself.

# For how many seconds another apt is waited for.
APT_WAIT_MAX=${APT_WAIT_MAX:-600}

# Runs apt-get with these arguments, as root; again as long as another program has its locks.
# apt's own DPkg::Lock::Timeout does not cover the lists.
apt_get() {
    local said status holder waited=0
    said=$(mktemp)
    while true; do
        status=0
        "${as_root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
            apt-get -qq "$@" >"$said" 2>&1 || status=$?
        holder=$(grep -m 1 -E 'Could not get lock|was locked by another process' "$said") || break
        if ((status == 0 || waited >= APT_WAIT_MAX)); then
            break
        fi
        if ((waited == 0)); then
            echo "waiting up to $APT_WAIT_MAX s for another program that uses apt (${holder#E: })"
        fi
        sleep 1
        waited=$((waited + 1))
    done
    if ((status != 0)); then
        cat "$said" >&2
        [[ -z $holder ]] || echo "apt was busy for $waited s; try again when it is not" >&2
    fi
    rm -f "$said"
    return "$status"
}

# Installs packages, as root or by sudo.
install_packages() {
    local as_root=()
    if ((EUID != 0)); then
        as_root=(sudo)
        command -v sudo >/dev/null || {
            echo "missing: $*; install them as root, or install sudo" >&2
            return 1
        }
    fi
    echo "installing: $*"
    apt_get update && apt_get install --yes --no-install-recommends "$@"
}
