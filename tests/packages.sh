#!/usr/bin/env bash
# Proves the packages in a fresh Debian: builds them twice, in two versions, checks them with lintian, and
# installs them in a directory where there is nothing but Debian's base. There a server runs, a user is
# invited and mounts, sends a file and goes on while both packages are upgraded, removed and purged.
# Needs root, /dev/fuse, and Debian's packages; a quarter of an hour.
#
#   tests/packages.sh            everything but the next
#   tests/packages.sh --boot     also boots that Debian with systemd-nspawn, to see the service
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/machine.sh

boots=no
case "${1-}" in
    "") ;;
    --boot) boots=yes ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
target=${CARGO_TARGET_DIR:-$PWD/target}
# The packages, which are tried on a machine with a fresh Debian.
built=$(mktemp -d /tmp/xfer-built.XXXXXX)
# Any port at first; the one that it got, later.
port=0
writer=

# Runs a script in it as a user who is not root.
as_user() {
    inside runuser -u ann -- env HOME=/home/ann bash -euo pipefail -c "$1"
}

# apt in it, as /etc/apt says below, also for what calls it by itself.
apt_inside() {
    DEBIAN_FRONTEND=noninteractive inside apt-get "$@"
}

# The packages of these names in the fresh Debian, as a path there; the first argument is the revision.
package_files() {
    local revision=$1 name file
    shift
    for name in "$@"; do
        for file in "$machine/srv/${name}_"*"-${revision}_"*.deb; do
            echo "${file#"$machine"}"
        done
    done
}

clean_up() {
    rm -rf "$built"
    discard_machine
}
trap clean_up EXIT

build() {
    step "build, in two versions"
    packaging/install-deps.sh --package-tests
    local revision
    for revision in 1 2; do
        packaging/build-deb.sh --revision "$revision"
        # The next build removes them.
        cp "$target"/debian/{xfer,xfer-server}_*-"$revision"_*.deb \
            "$target"/debian/{xfer,xfer-server}-dbgsym_*-"$revision"_*.ddeb "$built/"
    done
    step "lintian"
    # It takes bytes in tables and ciphers for words, in some builds and not in others.
    lintian --suppress-tags spelling-error-in-binary --fail-on warning,info --display-info --tag-display-limit 0 \
        "$built"/*-1_*.deb
}

# The programs are stripped and of a bounded size, and the package for debugging has what was taken out of
# each: by its build ID, which is that of the program.
check_programs() {
    step "what is in the packages"
    local package program id debug bytes unpacked=$built/unpacked
    for package in xfer xfer-server; do
        dpkg-deb --extract "$built/${package}_"*-1_*.deb "$unpacked"
        dpkg-deb --extract "$built/${package}-dbgsym_"*-1_*.ddeb "$unpacked"
    done
    for program in xfer xfer-mount xfer-server; do
        [[ $(file --brief "$unpacked/usr/bin/$program") == *", stripped" ]] || fail "$program is not stripped"
        bytes=$(stat -c %s "$unpacked/usr/bin/$program")
        ((bytes < 20 * 1024 * 1024)) || fail "$program has $bytes bytes"
        id=$(readelf --notes "$unpacked/usr/bin/$program" | sed -n 's/.*Build ID: //p')
        debug=$unpacked/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug
        # No pipe to `grep --quiet`, which would break it.
        [[ $(nm --demangle "$debug") == *" T main"* ]] || fail "no names of $program in $debug"
        [[ $(readelf --sections "$debug" 2>/dev/null) == *.debug_line* ]] || fail "no lines of $program in $debug"
    done
}

make_debian() {
    step "a fresh Debian"
    machine=$(mktemp -d /tmp/xfer-packages.XXXXXX)
    bootstrap "$machine"
    chmod 755 "$machine"
    mount -t proc proc "$machine/proc"
    [[ -e $machine/dev/fuse ]] || mknod -m 666 "$machine/dev/fuse" c 10 229
    cat >"$machine/etc/apt/apt.conf.d/50try" <<'END'
quiet "2";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
DPkg::Lock::Timeout "600";
Dpkg::Use-Pty "false";
END
    cp "$built"/*.deb "$machine/srv/"
    apt_inside update
}

install_packages_in_it() {
    step "install"
    apt_inside install $(package_files 1 xfer xfer-server)
    [[ $(inside stat -c '%U:%G %a' /var/lib/xfer) == "xfer:xfer 700" ]] || fail "the store's directory"
    inside xfer-server --version
    # Nothing of the packages is missing, and no program lacks a library.
    inside dpkg --verify xfer xfer-server
    inside ldd /usr/bin/xfer /usr/bin/xfer-mount /usr/bin/xfer-server | grep 'not found' && fail ldd
    inside test -x /sbin/mount.fuse.xfer -a -x /sbin/mount.xfer || fail "the helper of mount(8)"
}

start_server() {
    chroot --userspec=xfer:xfer "$machine" /usr/bin/xfer-server run --listen "127.0.0.1:$port" \
        >"$machine/srv/log" 2>&1 &
    server=$!
    await_server
}

log_in() {
    step "a user is invited and logs in"
    start_server
    inside useradd --create-home ann
    local line
    line=$(inside xfer-server user add ann --invite --host "127.0.0.1:$port" 2>/dev/null)
    echo "a good password" | as_user "$line --password-stdin"
}

# As a container or a script does, where there is neither the device nor the program for it.
work_without_fuse() {
    step "files without FUSE"
    mv "$machine/dev/fuse" "$machine/usr/bin/fusermount3" "$machine/srv/"
    as_user "xfer-mount ann@127.0.0.1:$port /tmp" 2>/dev/null && fail "a mount without FUSE"
    as_user "tree=ann@127.0.0.1:$port:"'
        cd
        seq 100000 >numbers
        mkdir back
        xfer mkdir "${tree}some"
        xfer put numbers "${tree}some/"
        xfer cp "${tree}some/numbers" :copy
        xfer mv "${tree}copy" :moved
        xfer ls "$tree" | grep -x moved
        xfer stat "${tree}moved"
        xfer find "$tree" | grep numbers
        xfer du -s "$tree"
        [[ $(xfer head -n 1 "${tree}moved") == 1 && $(xfer cat "${tree}moved" | wc -l) == 100000 ]]
        xfer get -r "${tree}some" back
        cmp numbers back/some/numbers
        xfer rm -r "${tree}some" "${tree}moved"
        [[ $(xfer ls "$tree" | grep -c -e some -e moved) == 0 ]]
        xfer outbox "${tree%:}"
        xfer inbox "${tree%:}"
        rm -r numbers back' >/dev/null
    mv "$machine/srv/fuse" "$machine/dev/"
    mv "$machine/srv/fusermount3" "$machine/usr/bin/"
}

mount_both() {
    step "both ways to mount"
    as_user "mkdir ~/remote && xfer-mount ann@127.0.0.1:$port ~/remote"
    # Root mounts another account with mount(8).
    echo "another password" | inside xfer-server user add bob --password-stdin
    echo "another password" | inside xfer login "bob@127.0.0.1:$port" --accept-new --password-stdin
    inside mkdir /mnt/bob
    inside mount -t fuse.xfer "bob@127.0.0.1:$port" /mnt/bob
}

# What an administrator has set stays, whatever the packages do.
set_up() {
    step "settings of this machine"
    echo 'silence = 7  # ours' >>"$machine/etc/xfer/server.toml"
    has_settings || fail "a setting without effect"
}

has_settings() {
    grep -q '^silence = 7  # ours$' "$machine/etc/xfer/server.toml" &&
        [[ $(inside xfer-server run --print-config) == *'silence = "7"'* ]]
}

manage_without_root() {
    step "a member of the group xfer-admin manages users, and nobody else does"
    as_user "xfer-server user list" 2>/dev/null && fail "not a member yet"
    inside usermod --append --groups xfer-admin ann
    as_user "xfer-server user quota bob --quota 2GiB && xfer-server session list | grep '^ann '"
    inside xfer-server user quota bob | grep -q ' 2 GiB' || fail "the quota"
    grep -q "uid=$(inside id -u ann) command=.*quota" "$machine/srv/log" || fail "the log"
}

send() {
    step "a file is sent"
    as_user "echo hello > ~/remote/outbox/bob/$1 && xfer sync ~/remote"
    wait_for inside test -s "/mnt/bob/inbox/ann/$1"
    [[ $(inside cat "/mnt/bob/inbox/ann/$1") == hello ]] || fail "what was sent"
}

# A program that has a file open on the mount, for which it writes a line whenever it is asked to.
start_writer() {
    mkfifo "$machine/srv/asked"
    chmod 666 "$machine/srv/asked"
    as_user 'exec >> ~/remote/open; while read -r line && [[ $line != end ]]; do echo "$line"; done < /srv/asked' &
    writer=$!
    exec 9<>"$machine/srv/asked"
}

write() {
    echo "$1" >&9
    wait_for as_user "grep -qx '$1' ~/remote/open"
}

upgrade() {
    step "an upgrade while the mounts are in use"
    local before
    before=$(grep "$machine/" /proc/self/mountinfo)
    start_writer
    write "before"
    apt_inside install $(package_files 2 xfer xfer-server)
    [[ $(inside dpkg-query -W -f '${Version} ' xfer xfer-server) == *-2\ *-2\  ]] || fail "the versions"
    [[ $(grep "$machine/" /proc/self/mountinfo) == "$before" ]] || fail "a mount did not stay"
    write "after"
    has_settings || fail "the settings are gone"
    # Without systemd, whoever started the server restarts it.
    stop_server
    start_server
    write "with the new server"
    as_user "xfer sync ~/remote && xfer status"
    send after
}

remove() {
    step "packages that are removed and purged"
    apt_inside remove xfer xfer-server
    inside test -e /usr/bin/xfer && fail "the program is still there"
    write "without the package"
    echo end >&9
    wait "$writer"
    inside umount /home/ann/remote /mnt/bob
    stop_server
    local said
    said=$(apt_inside purge xfer xfer-server 2>&1)
    [[ $(grep -c '^kept /var/lib/xfer; remove it by hand' <<<"$said") == 1 ]] || fail "purge: $said"
    inside test -s /var/lib/xfer/xfer.db || fail "the store is gone"
}

come_back() {
    step "installed again, the store is there; purged without one, nothing is left"
    apt_inside install $(package_files 2 xfer-server)
    [[ $(inside xfer-server user list) == *$'\n'ann\ * ]] || fail "the store was not taken"
    rm -r "$machine/var/lib/xfer"
    apt_inside install --reinstall $(package_files 2 xfer-server)
    local said
    said=$(apt_inside purge xfer-server 2>&1)
    [[ $said != *kept* ]] || fail "nothing was to be kept: $said"
    inside test -e /var/lib/xfer && fail "the empty store's directory stayed"
    return 0
}

# What the booted Debian does in its first life, and what it finds in its second, after a boot: each ends with
# "passed" in /srv/result.
readonly IN_BOTH='
    set -eux
    trap "[ -e /srv/result ] || journalctl --no-pager --lines 40" EXIT
    wait_for() { i=0; until "$@"; do i=$((i + 1)); [ $i -lt 600 ]; sleep 0.1; done; }
    is_over() { state=$(systemctl show -P ActiveState "$1"); [ "$state" = inactive ] || [ "$state" = failed ]; }
    # `!` alone does not end a script.
    never() { if "$@"; then exit 1; fi; }
    pid_of() { systemctl show -P MainPID "$1"; }
    # Runs a script as a user who has logged in.
    as() { runuser -u "$1" -- env HOME="/home/$1" XDG_RUNTIME_DIR="/run/user/$(id -u "$1")" bash -euxc "cd; $2"; }
'

# Runs the page of README as it stands there: as root, and as two users, each as if on a machine of their own.
readonly IN_BOOTED_README='
    echo "127.0.0.1 server.example.org" >> /etc/hosts
    cd /srv/first
    . /srv/as-root
    . /srv/readme.1 > /srv/invitations
    wait_for systemctl --quiet is-active xfer-server
    systemctl is-enabled xfer-server
    [ "$(stat -c %U "/proc/$(pid_of xfer-server)")" = xfer ]
    grep "^sudo" /srv/readme.2 > /srv/readme.2.root
    . /srv/readme.2.root
    cd /
    for user in alice bob; do
        useradd --create-home "$user"
        loginctl enable-linger "$user"
        wait_for systemctl --quiet is-active "user@$(id -u "$user")"
        log_in "$user"
    done
    as alice "echo a report > report.pdf; . /srv/as-user; . /srv/readme.2"
    as bob ". /srv/as-user; . /srv/readme.3"
    as bob "grep -x \"a report\" ~/remote/inbox/alice/report.pdf"
'

readonly IN_BOOTED='
    line=$(xfer-server user add cy --invite --host 127.0.0.1)
    echo "a good password" | sh -c "$line --password-stdin"
    unit=xfer-mount@$(systemd-escape cy@127.0.0.1).service
    mkdir -p "/etc/systemd/system/$unit.d"
    printf "[Service]\nEnvironment=\"XFER_MOUNT_OPTIONS=-o fmask=077\"\nRestartSec=1\n" > "/etc/systemd/system/$unit.d/try.conf"
    systemctl daemon-reload
    systemctl start "$unit"
    mountpoint /mnt/cy@127.0.0.1
    echo before > /mnt/cy@127.0.0.1/file
    [ "$(stat -c %a /mnt/cy@127.0.0.1/file)" = 600 ]
    xfer sync /mnt/cy@127.0.0.1
    # One that is killed is mounted again.
    mount=$(pid_of "$unit")
    kill -KILL "$mount"
    wait_for grep -x before /mnt/cy@127.0.0.1/file
    mount=$(pid_of "$unit")
    # A server that is stuck is killed and started anew. Its mounts go on.
    mkdir -p /etc/systemd/system/xfer-server.service.d
    printf "[Service]\nWatchdogSec=3\n" > /etc/systemd/system/xfer-server.service.d/try.conf
    systemctl daemon-reload
    systemctl restart xfer-server
    server=$(pid_of xfer-server)
    kill -STOP "$server"
    is_another() { now=$(pid_of xfer-server); [ "$now" != 0 ] && [ "$now" != "$server" ]; }
    wait_for is_another
    wait_for systemctl --quiet is-active xfer-server
    echo anew >> /mnt/cy@127.0.0.1/file
    xfer sync /mnt/cy@127.0.0.1
    rm -r /etc/systemd/system/xfer-server.service.d
    systemctl daemon-reload
    # systemd opens the port, and starts the server when somebody comes, such as a mount that comes back.
    systemctl stop xfer-server
    printf "[Socket]\nListenStream=127.0.0.1:33000\n[Install]\nWantedBy=sockets.target\n" > /etc/systemd/system/xfer-server.socket
    systemctl daemon-reload
    systemctl start xfer-server.socket
    echo here >> /mnt/cy@127.0.0.1/file
    xfer sync /mnt/cy@127.0.0.1
    systemctl is-active xfer-server
    [ "$(pid_of "$unit")" = "$mount" ]
    systemctl stop xfer-server.socket xfer-server
    rm /etc/systemd/system/xfer-server.socket
    systemctl daemon-reload
    systemctl start xfer-server
    server=$(pid_of xfer-server)
    cp /etc/xfer/server.toml /srv/settings
    apt-get install $SECOND
    # The server was restarted, the mount was not.
    systemctl is-active xfer-server
    [ "$(pid_of xfer-server)" != "$server" ]
    [ "$(pid_of "$unit")" = "$mount" ]
    echo after >> /mnt/cy@127.0.0.1/file
    xfer sync /mnt/cy@127.0.0.1
    systemctl stop "$unit"
    never mountpoint /mnt/cy@127.0.0.1
    systemctl start "$unit"
    grep -x after /mnt/cy@127.0.0.1/file
    # One that was unmounted by hand is not mounted again.
    umount /mnt/cy@127.0.0.1
    wait_for is_over "$unit"
    [ "$state" = inactive ]
    # A user of the machine, at login.
    systemctl start "user@$(id -u ann)"
    line=$(xfer-server user add ann --invite --host 127.0.0.1)
    echo "a good password" | as ann "$line --password-stdin"
    unit=xfer-mount@$(systemd-escape ann@127.0.0.1).service
    as ann "systemctl --user start \"$unit\"; mountpoint ~/ann@127.0.0.1; echo hello > ~/ann@127.0.0.1/file"
    as ann "systemctl --user stop \"$unit\"; ! mountpoint ~/ann@127.0.0.1"
    # What is to be there after the next boot: a unit of the system, a line of fstab, and one at login.
    systemctl enable xfer-mount@$(systemd-escape cy@127.0.0.1).service
    line=$(xfer-server user add dan --invite --host 127.0.0.1)
    echo "a good password" | sh -c "$line --password-stdin"
    mkdir /mnt/dan
    echo "dan@127.0.0.1 /mnt/dan fuse.xfer _netdev,noauto,x-systemd.automount,retry=20 0 0" >> /etc/fstab
    as ann "mkdir -p ~/remote; xfer mount --at-login ann@127.0.0.1 ~/remote; mountpoint ~/remote"
    loginctl enable-linger ann
    echo passed > /srv/result
'

readonly IN_BOOTED_AGAIN='
    # systemd has made them again, and not the scripts of the package.
    [ "$(stat -c "%U:%G %a" /run/xfer)" = "xfer:xfer-admin 2750" ]
    wait_for mountpoint /mnt/cy@127.0.0.1
    grep -x after /mnt/cy@127.0.0.1/file
    user=$(id -u ann)
    wait_for grep " /home/ann/remote fuse.xfer " /proc/self/mounts
    runuser -u ann -- grep -x hello /home/ann/remote/file
    # Those of README, too.
    for name in alice bob; do
        wait_for grep " /home/$name/remote fuse.xfer " /proc/self/mounts
    done
    as bob "grep -x \"a report\" ~/remote/inbox/alice/report.pdf"
    # Mounted by whoever looks.
    grep " /mnt/dan autofs " /proc/self/mounts
    never grep " /mnt/dan fuse.xfer " /proc/self/mounts
    ls /mnt/dan/inbox
    grep " /mnt/dan fuse.xfer " /proc/self/mounts
    # No password lies about.
    never grep -r "a good password" /etc /home /root /var/lib/systemd
    # Without root, as a member of the group, and by the name of the one who does it.
    usermod --append --groups xfer-admin ann
    runuser -u ann -- xfer-server user disable cy
    xfer-server user list | grep "^cy .* disabled "
    wait_for journalctl --quiet --unit xfer-server --grep "uid=$user command=.*disable"
    apt-get purge xfer xfer-server
    never systemctl is-active xfer-server
    test -s /var/lib/xfer/xfer.db
    echo passed > /srv/result
'

# Writes the blocks of the page of README to /srv/readme.1 and so on, and beside them what it takes to run them:
# what is typed, and commands that have been run already, or wait.
lay_out_readme() {
    sed -n '/^## Install, log in, mount, send$/,/^## [^I]/p' README.md |
        awk -v to="$machine/srv/readme." '/^```sh$/ { part++; inside = 1; next }
            /^```$/ { inside = 0 } inside { print > (to part) }'
    [[ $(cat "$machine"/srv/readme.[123] | wc -l) -ge 12 ]] || fail "the page of README"
    mkdir "$machine/srv/first"
    ln "$machine"/srv/{xfer,xfer-server}_*-1_*.deb "$machine/srv/first/"
    cat >"$machine/srv/as-root" <<'END'
sudo() { "$@"; }

# `xfer login` of a user, with the line of an invitation and a new password typed on a terminal.
log_in() {
    mkfifo /srv/keys
    script --quiet --flush --return --command "runuser -u $1 -- env HOME=/home/$1 xfer login" /srv/typed \
        <>/srv/keys >/dev/null 2>&1 &
    wait_for grep -q 'or the invitation: ' /srv/typed
    grep -o "xfer login .$1@.*" /srv/invitations >/srv/keys
    wait_for grep -q 'New password' /srv/typed
    echo 'a good password' >/srv/keys
    wait_for grep -q 'gain' /srv/typed
    echo 'a good password' >/srv/keys
    wait $!
    rm /srv/keys /srv/typed
}
END
    cat >"$machine/srv/as-user" <<'END'
# Each of these was done before, by root, or typed.
sudo() { :; }
xfer() { [[ $1 == login ]] || command xfer "$@"; }
# A person waits a moment.
ls() { until command ls "$@"; do sleep 0.1; done; }
END
}

# Boots the fresh Debian, with a script as its only service. Its network is its own, and nothing of it stays.
boot_with() {
    rm -f "$machine/srv/result"
    echo "$1" >"$machine/srv/try"
    timeout 600 systemd-nspawn --quiet --boot --register=no --keep-unit --private-network \
        --bind="$machine/srv/fuse:/dev/fuse" --bind="$machine/srv/autofs:/dev/autofs" --directory="$machine" \
        >"$machine/srv/console" 2>&1 || true
    if [[ ! -e $machine/srv/result ]]; then
        tail -n 80 "$machine/srv/said" "$machine/srv/console" >&2
        fail "the Debian that boots"
    fi
}

boot() {
    step "the service, in a Debian that boots"
    apt_inside install systemd systemd-sysv dbus libpam-systemd
    cat >"$machine/etc/systemd/system/try.service" <<'END'
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=HOME=/root DEBIAN_FRONTEND=noninteractive
ExecStart=/bin/bash /srv/try
StandardOutput=file:/srv/said
StandardError=file:/srv/said
TimeoutStartSec=500
[Install]
WantedBy=default.target
END
    inside systemctl enable try.service
    # The users and groups of the service come from the package, by systemd's own means.
    inside userdel xfer
    inside groupdel xfer-admin
    lay_out_readme
    umount "$machine/proc"
    # The machine's own may be for root alone.
    mknod -m 666 "$machine/srv/fuse" c 10 229
    mknod -m 600 "$machine/srv/autofs" c 10 235
    local packages
    packages=$(printf 'SECOND="%s"' "$(package_files 2 xfer xfer-server | xargs)")
    boot_with "$packages$IN_BOTH$IN_BOOTED_README$IN_BOOTED"
    step "what is there after the next boot"
    boot_with "$IN_BOTH$IN_BOOTED_AGAIN"
}

build
check_programs
make_debian
install_packages_in_it
set_up
log_in
work_without_fuse
mount_both
manage_without_root
send before
upgrade
remove
come_back
if [[ $boots == yes ]]; then
    boot
fi
printf '\nPASSED: the packages\n'
