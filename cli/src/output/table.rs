//! Listings: docker's tables, `--format table TEMPLATE`, templates and JSON lines.

use super::template::Format;
use crate::exit::Result;
use serde_json::{Map, Value};

/// How a listing is to be printed.
pub(crate) struct Listing<'a> {
    /// Placeholders in the order of the default table, and every placeholder's header.
    pub(crate) default: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) format: Option<&'a str>,
    /// The placeholder that `--quiet` prints alone.
    pub(crate) quiet: Option<&'a str>,
}

/// One line's placeholders.
pub(crate) type Row = Map<String, Value>;

/// Columns are padded to at least this many characters and parted by [`GAP`].
const MIN_WIDTH: usize = 10;
const GAP: usize = 3;

impl Listing<'_> {
    /// The whole text, last newline included.
    pub(crate) fn render(&self, rows: Vec<Row>) -> Result<String> {
        if let Some(placeholder) = self.quiet {
            let text =
                |row: &Row| row.get(placeholder).and_then(Value::as_str).unwrap_or_default().to_owned();
            return Ok(rows.iter().map(|row| text(row) + "\n").collect());
        }
        match self.format.unwrap_or("table") {
            "json" => {
                let line = |mut row: Row| {
                    row.remove("LabelMap");
                    format!("{}\n", Value::Object(row))
                };
                Ok(rows.into_iter().map(line).collect())
            }
            "table" => self.table(self.default, rows),
            format => match format.strip_prefix("table ") {
                Some(template) => self.table(template, rows),
                None => {
                    let format = Format::parse(format)?;
                    rows.into_iter().map(|row| Ok(format.render(&Value::Object(row))? + "\n")).collect()
                }
            },
        }
    }

    fn table(&self, template: &str, rows: Vec<Row>) -> Result<String> {
        let format = Format::parse(template)?;
        let mut header: Row = self
            .headers
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Value::String((*text).to_owned())))
            .collect();
        header.insert("LabelMap".to_owned(), Value::Object(Map::new()));
        let mut lines = vec![format.render(&Value::Object(header))?];
        for row in rows {
            lines.push(format.render(&Value::Object(row))?);
        }
        Ok(align(&lines, MIN_WIDTH))
    }
}

/// Cells parted by tabs, in columns. The last cell of a line is not padded.
pub(crate) fn align(lines: &[String], min_width: usize) -> String {
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widest = cells.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        (widest.unwrap_or(0) + GAP).max(min_width)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in &cells {
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < line.len() {
                out.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_docker_s() {
        let listing = Listing {
            default: "{{.ID}}\t{{.Names}}",
            headers: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            format: None,
            quiet: None,
        };
        let row = |id: &str, name: &str| {
            Row::from_iter([("ID".to_owned(), id.into()), ("Names".to_owned(), name.into())])
        };
        let rows = vec![row("0123456789ab", "web"), row("ba9876543210", "a_long_name")];
        let expected = "CONTAINER ID   NAMES\n0123456789ab   web\nba9876543210   a_long_name\n";
        assert_eq!(listing.render(rows).unwrap(), expected);
        let quiet = Listing { quiet: Some("ID"), ..listing };
        assert_eq!(quiet.render(vec![row("x", "y")]).unwrap(), "x\n");
        let json = Listing { quiet: None, format: Some("json"), ..quiet };
        assert_eq!(json.render(vec![row("x", "y")]).unwrap(), "{\"ID\":\"x\",\"Names\":\"y\"}\n");
    }
}
