//! Plain text tables.

/// Rows below a header, columns aligned and two blanks apart, each line indented by two.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&header).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric: Vec<bool> =
        (0..header.len()).map(|column| rows.iter().all(|row| is_number(&row[column]))).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).zip(&numeric).map(|((cell, width), numeric)| {
            if *numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    std::iter::once(&header).chain(rows).map(line).collect()
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit()) && cell.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_to_the_right_and_text_to_the_left() {
        let rows = [
            vec!["a".to_owned(), "10".to_owned(), "x".to_owned()],
            vec!["long".to_owned(), "-".to_owned(), String::new()],
        ];
        assert_eq!(table(&["P", "N", "WHY"], &rows), "  P      N  WHY\n  a     10  x\n  long   -\n");
    }
}
