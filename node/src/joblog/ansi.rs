//! What may pass from a log to a terminal: text, tabs, line ends and colours.
//!
//! A job's output can move the cursor, rename the window, write to the clipboard or answer in the user's name. This filter
//! lets SGR sequences (colours and weights) through and drops every other escape sequence and control character, C1 ones in
//! UTF-8 too. It keeps its state across chunks. Follows ECMA-48 and <https://vt100.net/emu/dec_ansi_parser>.

/// Parameter bytes of a colour sequence at most; a longer one is dropped.
const SGR_BYTES_MAX: usize = 64;

/// A filter for one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    state: State,
    /// The sequence or character that is being read.
    held: Vec<u8>,
    /// Bytes that the UTF-8 character still needs.
    continuations: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After 0xC2, which begins U+0080 to U+00BF.
    Latin,
    /// After ESC.
    Escape,
    /// After ESC and intermediate bytes.
    EscapeLong,
    /// Within a control sequence that may be a colour.
    Csi,
    /// Within a control sequence that is none.
    CsiDropped,
    /// Within a string (OSC, DCS, APC, PM, SOS), which ends with BEL or ESC \ or C1 ST.
    Text7,
    /// After 0xC2 within a string: 0x9C would end it.
    Text7Latin,
    /// After ESC within a string.
    Text7Escape,
}

impl Filter {
    /// A filter at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Passes on what is safe of the next bytes.
    pub fn filter(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.push(*byte, out);
        }
    }

    /// What undoes colours at the end of a stream or before text of one's own.
    #[must_use]
    pub const fn reset() -> &'static str {
        "\x1b[0m"
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match self.state {
            State::Text => self.text(byte, out),
            State::Latin => match byte {
                // U+009B begins a control sequence, some others a string; the rest of C1 is dropped.
                0x9b => self.begin_csi(),
                0x90 | 0x98 | 0x9d..=0x9f => State::Text7,
                0x80..=0x9f => State::Text,
                0xa0..=0xbf => {
                    out.extend_from_slice(&[0xc2, byte]);
                    State::Text
                }
                _ => self.text(byte, out),
            },
            State::Escape => match byte {
                b'[' => self.begin_csi(),
                b']' | b'P' | b'X' | b'^' | b'_' => State::Text7,
                0x20..=0x2f => State::EscapeLong,
                0x1b => State::Escape,
                b'\n' | b'\r' => self.text(byte, out),
                _ => State::Text,
            },
            State::EscapeLong => match byte {
                0x20..=0x2f => State::EscapeLong,
                0x1b => State::Escape,
                b'\n' | b'\r' => self.text(byte, out),
                _ => State::Text,
            },
            State::Csi => self.csi(byte, out),
            State::CsiDropped => match byte {
                0x1b => State::Escape,
                0x40..=0x7e | 0x18 | 0x1a => State::Text,
                b'\n' | b'\r' => self.text(byte, out),
                _ => State::CsiDropped,
            },
            State::Text7 => match byte {
                0x07 | 0x18 | 0x1a => State::Text,
                0x1b => State::Text7Escape,
                0xc2 => State::Text7Latin,
                _ => State::Text7,
            },
            State::Text7Latin => match byte {
                0x9c | 0x07 | 0x18 | 0x1a => State::Text,
                0x1b => State::Text7Escape,
                0xc2 => State::Text7Latin,
                _ => State::Text7,
            },
            State::Text7Escape => match byte {
                b'\\' => State::Text,
                0x1b => State::Text7Escape,
                b'[' => self.begin_csi(),
                b']' | b'P' | b'X' | b'^' | b'_' => State::Text7,
                _ => State::Text,
            },
        };
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        let due = std::mem::take(&mut self.continuations);
        match byte {
            0x1b => return State::Escape,
            0xc2 => return State::Latin,
            b'\t' | b'\n' | b'\r' | 0x20..=0x7e => out.push(byte),
            // A byte of 0x80 to 0x9F by itself is a C1 control to terminals that do not speak UTF-8.
            0x80..=0xbf if due > 0 => {
                self.continuations = due - 1;
                out.push(byte);
            }
            0xc3..=0xf4 => {
                self.continuations = 1 + u8::from(byte >= 0xe0) + u8::from(byte >= 0xf0);
                out.push(byte);
            }
            _ => {}
        }
        State::Text
    }

    fn begin_csi(&mut self) -> State {
        self.held.clear();
        State::Csi
    }

    fn csi(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match byte {
            b'0'..=b'9' | b';' | b':' if self.held.len() < SGR_BYTES_MAX => {
                self.held.push(byte);
                State::Csi
            }
            b'm' => {
                out.extend_from_slice(b"\x1b[");
                out.append(&mut self.held);
                out.push(b'm');
                State::Text
            }
            0x1b => State::Escape,
            b'\n' | b'\r' => self.text(byte, out),
            0x40..=0x7e | 0x18 | 0x1a => State::Text,
            _ => State::CsiDropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn safe(text: &[u8]) -> String {
        let mut out = Vec::new();
        Filter::new().filter(text, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn text_of_any_script_and_colours_pass() {
        for text in ["plain\n", "\x1b[1;31mred\x1b[0m\r\n", "مرحبا\t©à\u{a0}é", "\x1b[38;2;1;2;3mtrue\x1b[m", "🎉"]
        {
            assert_eq!(safe(text.as_bytes()), text);
        }
    }

    #[test]
    fn everything_that_acts_on_the_terminal_is_dropped() {
        for (evil, left) in [
            ("a\x1b[2Jb", "ab"),
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"),
            ("a\x1bP+q544e\x1b\\b", "ab"),
            ("a\x1b[?1049hb", "ab"),
            ("a\x1b[>4;1mb", "ab"),
            ("a\x1bcb", "ab"),
            ("a\x1b(0b", "ab"),
            ("a\x07\x08\x7f\x00b", "ab"),
            ("a\u{9b}2Jb", "ab"),
            ("a\u{9b}31mb", "a\x1b[31mb"),
            ("a\u{9d}0;x\u{9c}b", "ab"),
            ("a\u{85}b", "ab"),
            ("a\x1b[6nb", "ab"),
            ("a\x1b\x1b[31mb", "a\x1b[31mb"),
            ("a\x1b[1\x1b[31mb", "a\x1b[31mb"),
            ("a\x1b[3\n1mb", "a\n1mb"),
        ] {
            assert_eq!(safe(evil.as_bytes()), left, "{evil:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_of_their_own_are_dropped() {
        assert_eq!(safe(b"a\x9b2Jb\xc2"), "a2Jb");
        assert_eq!(safe(b"a\xc2\x1b[2Jb"), "ab");
    }

    proptest! {
        #[test]
        fn what_passes_does_not_depend_on_the_chunks_and_holds_only_colours(
            bytes in proptest::collection::vec(prop_oneof![Just(0x1b), Just(b'['), Just(b'm'), Just(0xc2), Just(0x9b), any::<u8>()], 0..200),
            cut in 0usize..200,
        ) {
            let mut whole = Vec::new();
            Filter::new().filter(&bytes, &mut whole);
            let (mut parts, mut filter) = (Vec::new(), Filter::new());
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            filter.filter(head, &mut parts);
            filter.filter(tail, &mut parts);
            prop_assert_eq!(&whole, &parts);
            let mut again = Vec::new();
            Filter::new().filter(&whole, &mut again);
            prop_assert_eq!(&whole, &again, "what passed passes again");
            for (at, byte) in whole.iter().enumerate() {
                if *byte == 0x1b {
                    let rest = &whole[at + 1..];
                    let end = rest.iter().skip(1).position(|b| !matches!(b, b'0'..=b'9' | b';' | b':'));
                    prop_assert!(rest.first() == Some(&b'[') && end.is_some_and(|end| rest[1 + end] == b'm'));
                }
            }
        }
    }
}
