//! Lines that tell how a long command goes, in eksctl's form.

use jiff::Zoned;

/// Something is being done.
pub(crate) fn info(text: impl std::fmt::Display) {
    line("ℹ", &text);
}

/// Something is done.
pub(crate) fn done(text: impl std::fmt::Display) {
    line("✔", &text);
}

/// Something deserves attention.
pub(crate) fn warn(text: impl std::fmt::Display) {
    line("!", &text);
}

fn line(mark: &str, text: &dyn std::fmt::Display) {
    println!("{} [{mark}]  {text}", Zoned::now().strftime("%Y-%m-%d %H:%M:%S"));
}

/// Prints a table as kubectl does: no borders, three spaces between columns.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let print = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    print(header.iter().map(ToString::to_string).collect());
    rows.iter().cloned().for_each(print);
}
