//! Progress of pull, load and import: bars on a terminal, docker's plain lines elsewhere.

use super::units::size_fine;
use crate::exit::{Failure, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::docker::image::Progress;
use std::collections::HashMap;

/// Prints a progress stream, document by document.
pub(crate) struct Printer {
    bars: Option<Bars>,
    /// Only the outcome.
    quiet: bool,
    /// To standard error: what a `run` says of its pull is not the container's output.
    talk: bool,
}

struct Bars {
    all: MultiProgress,
    by_id: HashMap<String, ProgressBar>,
}

impl Printer {
    pub(crate) fn new(quiet: bool) -> Printer {
        let terminal = crate::term::stdout_is_terminal() && !quiet;
        let all = || MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Printer { bars: terminal.then(|| Bars { all: all(), by_id: HashMap::new() }), quiet, talk: false }
    }

    /// For a pull that a `run` needs.
    pub(crate) fn talking(quiet: bool) -> Printer {
        Printer { bars: None, quiet, talk: true }
    }

    /// One document; an error in the stream ends the command.
    pub(crate) fn print(&mut self, document: serde_json::Value) -> Result<()> {
        let progress: Progress = serde_json::from_value(document)?;
        if let Some(error) = &progress.error_detail {
            return Err(Failure::new(1, error.message.clone()));
        }
        if !progress.error.is_empty() {
            return Err(Failure::new(1, progress.error));
        }
        if !progress.stream.is_empty() {
            self.line(progress.stream.trim_end());
            return Ok(());
        }
        if self.quiet || progress.status.is_empty() {
            return Ok(());
        }
        let detail = progress.progress_detail.clone().unwrap_or_default();
        let counted = detail.current > 0 || detail.total > 0;
        match &mut self.bars {
            Some(bars) if progress.progress_detail.is_some() && !progress.id.is_empty() => {
                bars.update(&progress)
            }
            // Without a terminal there is nothing to draw over: counts are left out, as docker does.
            None if counted => {}
            _ if progress.id.is_empty() => self.line(&progress.status),
            _ => self.line(&format!("{}: {}", progress.id, progress.status)),
        }
        Ok(())
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.all.println(text);
            }
            None if self.talk => eprintln!("{text}"),
            None => println!("{text}"),
        }
    }
}

impl Bars {
    fn update(&mut self, progress: &Progress) {
        let detail = progress.progress_detail.clone().unwrap_or_default();
        let bar = self.by_id.entry(progress.id.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(0));
            bar.set_prefix(progress.id.clone());
            bar
        });
        if detail.total > 0 {
            let style =
                ProgressStyle::with_template("{prefix}: {msg} [{bar:50}]").expect("a constant template");
            bar.set_style(style.progress_chars("=> "));
            bar.set_length(detail.total as u64);
            bar.set_position(detail.current as u64);
            let count = format!("{}/{}", size_fine(detail.current), size_fine(detail.total));
            bar.set_message(format!("{} {count}", progress.status));
        } else {
            bar.set_style(ProgressStyle::with_template("{prefix}: {msg}").expect("a constant template"));
            bar.set_message(progress.status.clone());
            bar.tick();
        }
    }
}

impl Drop for Bars {
    /// What was reached stays on the screen.
    fn drop(&mut self) {
        for bar in self.by_id.values() {
            bar.abandon();
        }
    }
}
