//! Aligned tables, as wide as what they hold.

use comfy_table::{CellAlignment, ContentArrangement, presets};
use console::style;

/// A table that grows row by row.
pub(crate) struct Table {
    inner: comfy_table::Table,
    has_header: bool,
}

impl Table {
    /// A table with a header; `right` says which columns are aligned to the right.
    pub(crate) fn new(header: &[impl AsRef<str>], right: &[bool]) -> Self {
        let mut table = Self::plain();
        let names = header.iter().map(|name| name.as_ref().to_uppercase());
        table.inner.set_header(names);
        table.has_header = true;
        for (index, _) in right.iter().enumerate().filter(|(_, right)| **right) {
            if let Some(column) = table.inner.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// A table without a header.
    pub(crate) fn plain() -> Self {
        let mut inner = comfy_table::Table::new();
        inner
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        Self {
            inner,
            has_header: false,
        }
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.inner.add_row(
            cells
                .into_iter()
                .map(|cell| cell.into())
                .collect::<Vec<String>>(),
        );
    }

    /// The lines, without spaces at their ends.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.inner.lines().enumerate().map(|(index, line)| {
            // The preset puts a space before the first column.
            let line = line
                .strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned();
            if self.has_header && index == 0 {
                style(line).bold().to_string()
            } else {
                line
            }
        })
    }

    /// The whole table, each line ended, with `indent` before each.
    pub(crate) fn text(&self, indent: &str) -> String {
        self.lines()
            .map(|line| format!("{indent}{line}\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", "rows"], &[false, true]);
        table.row(["a", "1"]);
        table.row(["größer", "1234"]);
        assert_eq!(
            table.text("  "),
            "  NAME    ROWS\n  a          1\n  größer  1234\n"
        );
    }
}
