//! A table of text.

/// Columns of `rows`, the first of which is the header: the first one to the left, the others, which are numbers, to
/// the right. A space is before and after each cell. No row is longer than the first.
pub fn table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let line = |row: &Vec<String>| -> String {
        let cells = row.iter().zip(&widths).enumerate();
        cells
            .map(|(at, (cell, &width))| match at {
                0 => format!(" {cell:<width$} "),
                _ => format!(" {cell:>width$} "),
            })
            .collect()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_string).to_vec();
        let rows = [row(["name", "n", "bytes"]), row(["\u{e9}", "10", "1"])];
        let text = " name   n  bytes \n \u{e9}     10      1 ";
        assert_eq!(table(&rows), text);
        assert_eq!(table(&[]), "");
    }
}
