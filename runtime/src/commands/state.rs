use super::print;
use crate::args::Global;
use crate::container::Container;
use crate::error::{Error, Result};

pub(super) fn state(global: &Global, id: &str) -> Result<i32> {
    let container = Container::load(&global.root, id)?;
    let text = serde_json::to_string_pretty(&container.document())
        .map_err(|error| Error::invalid(error.to_string()))?;
    print(&text)
}
