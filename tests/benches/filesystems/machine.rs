//! The machine on which the figures were measured.

use std::path::Path;

use xfer_tests::shell;

/// Describes it in a sentence, with its load from other programs.
pub fn description(directory: &Path) -> String {
    let script = r#"
        cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
        memory=$(awk '/^MemTotal/ { printf "%d", $2 / 1048576 + 0.5 }' /proc/meminfo)
        disk=$(df --output=fstype . | tail -n 1)
        versions=$(dpkg-query -W -f '${Package} ${Version}, ' sshfs rclone bindfs openssh-server 2>/dev/null || true)
        echo "$(nproc) x $cpu, $memory GiB, Linux $(uname -r), $disk; ${versions}load $(cut -d ' ' -f 1 /proc/loadavg) at the beginning."
    "#;
    shell(directory, script)
}
