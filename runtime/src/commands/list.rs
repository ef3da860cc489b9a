use std::fmt::Write;

use super::print;
use crate::args::{Global, ListFormat};
use crate::container::{Container, StateDocument};
use crate::error::{Error, Result};
use crate::state;

pub(super) fn list(global: &Global, format: ListFormat, quiet: bool) -> Result<i32> {
    let ids = state::ids(&global.root)?;
    if quiet {
        return print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    // One may be going just now; one that a killed `create` left is shown, so that it can be deleted.
    let containers: Vec<Container> =
        ids.iter().filter_map(|id| Container::load_unfinished(&global.root, id).ok()).collect();
    let documents: Vec<StateDocument<'_>> = containers
        .iter()
        .map(|container| StateDocument { owner: container.owner(), ..container.document() })
        .collect();
    match format {
        ListFormat::Table => print(&table(&documents)),
        ListFormat::Json if documents.is_empty() => print("null\n"),
        ListFormat::Json => {
            let text =
                serde_json::to_string(&documents).map_err(|error| Error::invalid(error.to_string()))?;
            print(&(text + "\n"))
        }
    }
}

fn table(documents: &[StateDocument<'_>]) -> String {
    const HEADER: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    const LEAST_WIDTH: usize = 12;
    const GAP: usize = 3;
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(documents.iter().map(|d| {
        [d.id.into(), d.pid.to_string(), d.status.into(), d.bundle.into(), d.created.into(), d.owner.clone()]
    }));
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len() + GAP).max(LEAST_WIDTH);
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{}", row[5]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_the_original_has_them() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
