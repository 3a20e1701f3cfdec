//! Tables: columns padded to their widest cell, and no decoration.

use xfer_protocol::shown::shown;

use crate::program::console::Console;
use crate::program::exit::Failure;

/// Prints a heading and its rows.
pub fn print<const N: usize>(
    console: &mut dyn Console,
    heading: [&str; N],
    rows: &[[String; N]],
) -> Result<(), Failure> {
    lines(heading, rows).iter().try_for_each(|line| console.print(line))
}

/// The lines of such a table.
pub fn lines<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    // Clients choose their own names, so escape them: they must not move the cursor.
    let mut all = vec![heading.map(str::to_owned)];
    all.extend(rows.iter().map(|row| row.clone().map(|cell| shown(&cell))));
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_hold_no_control_characters() {
        let rows = [["alice".to_owned(), "1".to_owned()], ["b\n".to_owned(), "22".to_owned()]];
        assert_eq!(lines(["NAME", "N"], &rows), ["NAME   N", "alice  1", "b\\n    22"]);
    }
}
