//! The line that tells what a job waits for: on a terminal's stderr only, and gone before the first byte of output.

use std::io::{IsTerminal, Write};

use super::output::{shown, width};

/// Widest line without a terminal that tells its width.
const COLUMNS_DEFAULT: usize = 80;

/// A line on stderr that can be replaced and erased.
#[derive(Debug)]
pub(super) struct StatusLine {
    active: bool,
    visible: bool,
}

impl StatusLine {
    /// Does nothing when stderr is no terminal.
    pub(super) fn new() -> Self {
        Self { active: std::io::stderr().is_terminal(), visible: false }
    }

    /// Shows a text in place of the one before.
    pub(super) fn show(&mut self, text: &str) {
        if !self.active {
            return;
        }
        let columns = crossterm::terminal::size().map_or(COLUMNS_DEFAULT, |(columns, _)| usize::from(columns));
        let mut line = shown(text);
        while width(&line) + 1 > columns && line.pop().is_some() {}
        let _ = write!(std::io::stderr(), "\r\x1b[2m{line}\x1b[0m\x1b[K");
        self.visible = true;
    }

    /// Takes the line away.
    pub(super) fn erase(&mut self) {
        if self.visible {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
            self.visible = false;
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.erase();
    }
}
