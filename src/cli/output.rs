//! The only place that writes to the terminal.

use std::fmt::{self, Display};
use std::io::{self, Write};

use anstyle::Style;
use serde::Serialize;

use super::Status;

/// The standard output and the standard error of a command. Styles reach terminals alone, and `NO_COLOR` turns them off.
pub struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    /// That of this process.
    pub fn of_process() -> Self {
        Self { out: Box::new(anstream::stdout()), err: Box::new(anstream::stderr()) }
    }

    /// One that goes elsewhere, without styles.
    pub fn plain(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self { out: Box::new(Plain(out)), err: Box::new(Plain(err)) }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Writes a text that ends its lines itself.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn text(&mut self, text: impl Display) -> io::Result<()> {
        write!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes a text to the standard error, where what is not the result goes.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn note(&mut self, text: impl Display) -> io::Result<()> {
        write!(self.err, "{text}")?;
        self.err.flush()
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        writeln!(self.out)
    }

    /// Writes a table.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        self.text(table)
    }

    /// Tells why the command failed. A reader that has gone (`| head`) is no failure of ours to tell.
    pub(super) fn failure(&mut self, error: &anyhow::Error) -> Status {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        if !error.chain().filter_map(|cause| cause.downcast_ref()).any(gone) {
            let red = anstyle::AnsiColor::Red.on_default().bold();
            // Nobody is left to tell that even this could not be written.
            let _ = self.note(format_args!("{red}error{red:#}: {error:#}\n"));
        }
        Status::Failure
    }
}

/// A writer that drops styles.
struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(&anstream::adapter::strip_bytes(bytes).into_vec())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The output as a writer: it leaves out the colours where nobody sees them.
pub(super) struct Through<'a>(pub(super) &'a mut Output);

impl Write for Through<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.text(String::from_utf8_lossy(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A text with a style.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text in this style.
    pub fn styled(text: impl Display, style: Style) -> Self {
        Self { text: text.to_string(), style }
    }
}

impl<T: Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Rows in aligned columns, two spaces apart.
#[derive(Debug, Clone, Default)]
pub struct Table {
    indent: usize,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table, `indent` spaces from the left.
    pub fn new(indent: usize) -> Self {
        Self { indent, rows: Vec::new() }
    }

    /// An empty table with a head.
    pub fn with_head<const N: usize>(head: [&str; N]) -> Self {
        let mut table = Self::new(0);
        table.row(head.map(|title| Cell::styled(title, Style::new().bold())));
        table
    }

    /// Adds a row. Rows may be of different lengths.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.text.chars().count().max(*width);
            }
        }
        widths
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let last = row.iter().rposition(|cell| !cell.text.is_empty());
            write!(f, "{:1$}", "", if last.is_some() { self.indent } else { 0 })?;
            for (column, Cell { text, style }) in row.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
                let padding = widths[column] - text.chars().count() + 2;
                write!(f, "{style}{text}{style:#}{:1$}", "", if last == Some(column) { 0 } else { padding })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_their_style() {
        let mut table = Table::with_head(["name", "size"]);
        table.row([Cell::styled("ä", anstyle::AnsiColor::Red.on_default()), 10.into(), "".into()]);
        table.row(["longer".into()]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(plain, "name    size\nä       10\nlonger\n");
    }
}
