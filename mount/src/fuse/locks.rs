//! Locks that programs hold on files of a mount (`flock`, `fcntl`). The kernel keeps them, and asks this
//! process nothing about them.

use std::fs;

/// Whether a program holds a lock on a file of the filesystem with this device number, `MAJOR:MINOR` as
/// in the table of mounts.
pub(super) fn are_held(device: &str) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_else(|error| {
        tracing::debug!(%error, "locks cannot be looked at");
        String::new()
    });
    has_lock(&locks, device)
}

/// Whether the kernel's list, as in proc_locks(5), has such a lock. It writes the device in hexadecimal.
fn has_lock(list: &str, device: &str) -> bool {
    let Some((major, minor)) = numbers(device, 10) else { return false };
    let is_here = |line: &str| {
        let place = line.split_whitespace().find(|word| word.matches(':').count() == 2);
        let of = place.and_then(|place| numbers(place, 16));
        of == Some((major, minor))
            && ["FLOCK", "POSIX", "OFDLCK"].iter().any(|kind| line.contains(kind))
    };
    list.lines().any(is_here)
}

/// The first two of the numbers in `A:B` or `A:B:C`.
fn numbers(text: &str, radix: u32) -> Option<(u32, u32)> {
    let mut numbers = text.split(':').map(|number| u32::from_str_radix(number, radix).ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "1: POSIX  ADVISORY  WRITE 568 00:2f:34388 0 EOF\n\
                        2: FLOCK  ADVISORY  READ 601 103:02:771 0 EOF\n\
                        2: -> FLOCK  ADVISORY  WRITE 602 103:02:771 0 EOF\n\
                        3: OFDLCK ADVISORY  WRITE -1 00:10:7 0 EOF\n\
                        4: LEASE  ACTIVE    READ 567 00:11:8 0 EOF\n";

    #[test]
    fn a_lock_counts_for_the_filesystem_of_its_file() {
        for device in ["0:47", "259:2", "0:16"] {
            assert!(has_lock(LIST, device), "{device}");
        }
        for device in ["0:48", "0:2", "47:0", "0:17", "", "nonsense"] {
            assert!(!has_lock(LIST, device), "{device}");
        }
        assert!(!has_lock("", "0:47"));
    }
}
