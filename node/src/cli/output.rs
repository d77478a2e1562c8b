//! How answers look: JSON on one line for programs; aligned tables, ages and colours for people.
//!
//! What other people chose (names, labels, commands) is never trusted: control characters and bidirectional overrides are
//! taken out, and right-to-left text is isolated so that it cannot reorder the columns around it.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::SystemTime;

use clap::Args;
use ratatui::text::Span;
use serde::Serialize;

/// Options of a command that only reads.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Writes to stdout. When nobody reads any more, the process ends quietly, as other tools do.
pub(super) fn emit(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(141);
    }
}

/// Writes a line to stdout.
pub(super) fn say(line: &str) {
    emit(format!("{line}\n").as_bytes());
}

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string(value)?);
    Ok(())
}

/// Writes a message to stderr, with the program's name before it.
pub(super) fn complain(message: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "v6: {}", multiline(message));
}

/// Whether stdout shows colours: a terminal, and NO_COLOR is not set.
pub(super) fn colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| {
        std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    })
}

/// A colour of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    Yellow,
    Dim,
    Bold,
}

/// Colours a text where colours are shown.
pub(super) fn paint(colour: Colour, text: &str) -> String {
    if !colours() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => "32",
        Colour::Red => "31",
        Colour::Yellow => "33",
        Colour::Dim => "2",
        Colour::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The colour of a state's word.
pub(super) fn state_colour(state: &str) -> Option<Colour> {
    match state {
        "done" | "online" => Some(Colour::Green),
        "failed" | "lost" | "frozen" | "revoked" => Some(Colour::Red),
        "running" | "claimed" => Some(Colour::Yellow),
        "cancelled" | "skipped" | "offline" => Some(Colour::Dim),
        _ => None,
    }
}

/// A text of foreign origin made safe for a line of a terminal or a file.
pub(super) fn shown(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_bidi_control(c) {
            // Seen, and without effect.
            clean.extend(c.escape_unicode());
        } else {
            clean.push(if c.is_control() { '\u{fffd}' } else { c });
        }
    }
    if std::io::stdout().is_terminal() && clean.chars().any(is_right_to_left) {
        return format!("\u{2068}{clean}\u{2069}");
    }
    clean
}

/// The same for a text that may have several lines.
pub(super) fn multiline(text: &str) -> String {
    text.split('\n').map(|line| shown_tabs(line.strip_suffix('\r').unwrap_or(line))).collect::<Vec<_>>().join("\n")
}

fn shown_tabs(line: &str) -> String {
    line.split('\t').map(shown).collect::<Vec<_>>().join("\t")
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{0590}'..='\u{08ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

/// The first eight characters of an id.
pub(super) fn short(id: &str) -> &str {
    id.char_indices().nth(8).map_or(id, |(end, _)| &id[..end])
}

/// A command line as it would be typed, shortened in the middle.
pub(super) fn command_line(command: &[String], width_max: usize) -> String {
    let line = command.iter().map(|part| quote(part)).collect::<Vec<_>>().join(" ");
    let count = line.chars().count();
    if count <= width_max {
        return shown(&line);
    }
    let head: String = line.chars().take(width_max / 2).collect();
    let tail: String = line.chars().skip(count - (width_max - width_max / 2 - 1)).collect();
    shown(&format!("{head}…{tail}"))
}

fn quote(part: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !part.is_empty() && part.chars().all(plain) {
        part.to_owned()
    } else {
        format!("'{}'", part.replace('\'', "'\\''"))
    }
}

/// "3 s ago", from an RFC 3339 time.
pub(super) fn ago(time: &str) -> String {
    let Ok(then) = humantime::parse_rfc3339(time) else { return shown(time) };
    match SystemTime::now().duration_since(then) {
        Ok(age) => format!("{} ago", span(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
        Err(ahead) => format!("in {}", span(u64::try_from(ahead.duration().as_millis()).unwrap_or(u64::MAX))),
    }
}

/// "from … to …" as a length: the time between two RFC 3339 times, or since the first.
pub(super) fn took(started: Option<&str>, ended: Option<&str>) -> String {
    let Some(Ok(started)) = started.map(humantime::parse_rfc3339) else { return String::new() };
    let ended = match ended {
        Some(time) => match humantime::parse_rfc3339(time) {
            Ok(time) => time,
            Err(_) => return String::new(),
        },
        None => SystemTime::now(),
    };
    ended
        .duration_since(started)
        .map_or_else(|_| String::new(), |length| span(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}

/// A length of time in its largest unit: "40 ms", "3 s", "12 min", "5 h", "8 d".
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// A size in its largest binary unit, with one decimal.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale: u64 = 1;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{}.{} {}", bytes / scale, u128::from(bytes % scale) * 10 / u128::from(scale), UNITS[unit])
}

/// A table with aligned columns. Cells are made safe and may be coloured; the last column is not padded.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells are made safe here.
    pub(super) fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.rows.push(cells.iter().map(|cell| shown(cell.as_ref())).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines.
    pub(super) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|cell| width(cell)).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate().take(widths.len()) {
                widths[column] = widths[column].max(width(cell));
            }
        }
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|&cell| cell.to_owned()).collect();
        line(&mut text, &head, &widths, true);
        for row in &self.rows {
            line(&mut text, row, &widths, false);
        }
        text
    }

    pub(super) fn print(&self) {
        emit(self.render().as_bytes());
    }
}

fn line(text: &mut String, cells: &[String], widths: &[usize], head: bool) {
    let last = widths.len().saturating_sub(1);
    for (column, cell) in cells.iter().enumerate().take(widths.len()) {
        let colour = if head { Some(Colour::Bold) } else { state_colour(cell) };
        match colour {
            Some(colour) => text.push_str(&paint(colour, cell)),
            None => text.push_str(cell),
        }
        if column < last {
            text.push_str(&" ".repeat(widths[column].saturating_sub(width(cell)) + 2));
        }
    }
    while text.ends_with(' ') {
        text.pop();
    }
    text.push('\n');
}

/// Columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_safe() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(&["a\x1b[2J", "queued"]);
        table.row(&["حاسوب", "done"]);
        let text = table.render();
        assert!(!text.contains('\x1b'));
        let columns: Vec<usize> = text
            .lines()
            .map(|line| line.char_indices().take_while(|(_, c)| !c.is_ascii_uppercase() || *c == 'N').count())
            .collect();
        assert_eq!(columns.len(), 3);
        assert!(text.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn spans_and_sizes_read_like_speech() {
        assert_eq!(span(40), "40 ms");
        assert_eq!(span(3_200), "3.2 s");
        assert_eq!(span(90_000), "90 s");
        assert_eq!(span(3_600_000), "60 min");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1536), "1.5 KiB");
    }

    #[test]
    fn an_override_cannot_reorder_a_line() {
        assert_eq!(shown("a\u{202e}b\nc"), "a\\u{202e}b\u{fffd}c");
    }
}
