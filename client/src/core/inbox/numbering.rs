//! Numbers for names that are taken: `name (2).ext`, `name (3).ext` and so on.

use xfer_protocol::limits::NAME_BYTES_MAX;
use xfer_protocol::{Errno, Name};

/// The largest number that a name gets.
pub(super) const NUMBER_MAX: u32 = 100_000_000;

/// A number that is free after one that is taken; or 1, if that is free. The search begins at
/// `hint`, the number that was taken last. It takes steps that double, and then halves the last
/// step. So it asks about few numbers, however many are taken.
pub(super) fn free_number<E>(
    hint: u32,
    mut is_taken: impl FnMut(u32) -> Result<bool, E>,
) -> Result<Option<u32>, E> {
    if !is_taken(1)? {
        return Ok(Some(1));
    }
    // The hint is worth nothing if its file was removed since.
    let mut taken = if hint > 1 && is_taken(hint)? { hint } else { 1 };
    let mut step = 1;
    let mut free = loop {
        let next = taken + step;
        if next > NUMBER_MAX {
            return Ok(None);
        }
        if !is_taken(next)? {
            break next;
        }
        (taken, step) = (next, step * 2);
    };
    // `taken` stays taken and `free` stays free, so the two meet at a number that serves, though
    // other numbers between them may be free.
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(middle)? { taken = middle } else { free = middle }
    }
    Ok(Some(free))
}

/// The name for the `number`th thing of that name: `name (2).ext` for the second. A long one is cut
/// at the end of its stem.
pub(super) fn numbered(name: &Name, number: u32) -> Result<Name, Errno> {
    if number == 1 {
        return Ok(name.clone());
    }
    let bytes = name.as_bytes();
    let (stem, extension) = match bytes.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => bytes.split_at(dot),
        Some(_) | None => (bytes, &[][..]),
    };
    let suffix = format!(" ({number})").into_bytes();
    let room = NAME_BYTES_MAX - suffix.len();
    let extension = if extension.len() < room { extension } else { &[][..] };
    let stem = &stem[..stem.len().min(room - extension.len())];
    Name::new(&[stem, &suffix, extension].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, number: u32, expected: &str) {
        let name = Name::new(name.as_bytes()).unwrap();
        assert_eq!(numbered(&name, number).unwrap().as_bytes(), expected.as_bytes());
    }

    #[test]
    fn a_second_thing_of_a_name_gets_a_number_before_its_extension() {
        check("report.txt", 1, "report.txt");
        check("report.txt", 2, "report (2).txt");
        check("archive.tar.gz", 3, "archive.tar (3).gz");
        check("README", 2, "README (2)");
        check(".bashrc", 2, ".bashrc (2)");
    }

    #[test]
    fn a_free_number_is_found_by_looking_at_few() {
        let look = |hint: u32, taken: &dyn Fn(u32) -> bool| {
            let mut looks = 0;
            let found = free_number(hint, |number| {
                looks += 1;
                Ok::<_, Errno>(taken(number))
            });
            (found.unwrap().unwrap(), looks)
        };
        assert_eq!(look(1, &|_| false), (1, 1));
        assert_eq!(look(1, &|number| number == 1), (2, 2));
        for count in [2, 3, 1000, 99_999] {
            let (found, looks) = look(1, &|number| number <= count);
            assert_eq!(found, count + 1);
            assert!(looks <= 40, "{looks}");
            assert_eq!(look(count, &|number| number <= count), (count + 1, 3));
        }
        // The first is free again, or the hint is.
        assert_eq!(look(1000, &|number| number > 1 && number <= 1000).0, 1);
        assert_eq!(look(1000, &|number| number <= 10).0, 11);
    }

    #[test]
    fn a_numbered_name_is_never_too_long() {
        let long = "x".repeat(255);
        check(&long, 12, &format!("{} (12)", "x".repeat(250)));
        check(&format!("{}.txt", "x".repeat(251)), 2, &format!("{} (2).txt", "x".repeat(247)));
    }
}
