//! Bounded readers of the encodings inside an automerge change: LEB128 numbers and run-length columns.
//!
//! They decode nothing for use; they make sure that whoever decodes later meets no length, count or number beyond its
//! bound. The encodings are those of <https://automerge.org/automerge-binary-format-spec/>.

use super::{MAX_OP_MAX, NoteRefusal};

/// A position in bytes that a peer sent.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Actors in the table of the change that is being read.
    pub(super) actors: u64,
}

fn truncated() -> NoteRefusal {
    NoteRefusal::Truncated
}

fn bad_number() -> NoteRefusal {
    NoteRefusal::Format("a number out of range".into())
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, actors: 0 }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], NoteRefusal> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An unsigned LEB128 number.
    pub(super) fn unsigned(&mut self) -> Result<u64, NoteRefusal> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad_number())
    }

    /// A signed LEB128 number.
    pub(super) fn signed(&mut self) -> Result<i64, NoteRefusal> {
        let mut value = 0_i64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let used = shift + 7;
                return Ok(if byte & 0x40 == 0 { value } else { value | (-1_i64 << used) });
            }
        }
        Err(bad_number())
    }

    /// A length or count: no more than the bytes that are left can pay for.
    pub(super) fn length(&mut self) -> Result<usize, NoteRefusal> {
        let value = self.unsigned()?;
        match usize::try_from(value) {
            Ok(len) if len <= self.bytes.len() => Ok(len),
            _ => Err(truncated()),
        }
    }
}

/// What a run-length column of unsigned numbers amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) rows: usize,
    pub(super) value_max: Option<u64>,
    pub(super) value_sum: u64,
    /// The sum of the values without their lowest four bits: of a metadata column, the bytes of its values.
    pub(super) length_sum: u64,
}

impl Runs {
    fn add(&mut self, rows: usize, value: u64) -> Result<(), NoteRefusal> {
        let times = rows as u64;
        let sum = |sum: u64, v: u64| v.checked_mul(times).and_then(|v| sum.checked_add(v)).ok_or_else(bad_number);
        self.value_max = self.value_max.max(Some(value));
        self.value_sum = sum(self.value_sum, value)?;
        self.length_sum = sum(self.length_sum, value >> 4)?;
        Ok(())
    }
}

/// One step of a run-length column.
enum Run {
    /// The next number stands for this many rows.
    Repeated(usize),
    /// This many numbers follow, one a row.
    Literal(usize),
    /// Rows without a value.
    Null,
}

/// Reads a run's header and counts its rows against `rows_max`.
fn run(reader: &mut Reader<'_>, rows: &mut usize, rows_max: usize) -> Result<Run, NoteRefusal> {
    let header = reader.signed()?;
    let length = if header == 0 { reader.unsigned()? } else { header.unsigned_abs() };
    let length = usize::try_from(length).ok().filter(|n| (1..=rows_max - *rows).contains(n));
    let length = length.ok_or(NoteRefusal::TooManyOps)?;
    *rows += length;
    Ok(match header {
        0 => Run::Null,
        1.. => Run::Repeated(length),
        _ => Run::Literal(length),
    })
}

/// Walks a run-length column of unsigned numbers.
pub(super) fn runs(data: &[u8], rows_max: usize) -> Result<Runs, NoteRefusal> {
    let mut reader = Reader::new(data);
    let mut found = Runs::default();
    while !reader.rest().is_empty() {
        match run(&mut reader, &mut found.rows, rows_max)? {
            Run::Null => {}
            Run::Repeated(rows) => {
                let value = reader.unsigned()?;
                found.add(rows, value)?;
            }
            Run::Literal(rows) => {
                for _ in 0..rows {
                    let value = reader.unsigned()?;
                    found.add(1, value)?;
                }
            }
        }
    }
    Ok(found)
}

/// Walks a run-length column of differences: each sum is an operation's counter.
pub(super) fn deltas(data: &[u8], rows_max: usize) -> Result<(), NoteRefusal> {
    let mut reader = Reader::new(data);
    let (mut rows, mut value) = (0, 0_i64);
    let step = |value: i64, delta: i64, times: usize| {
        let times = i64::try_from(times).map_err(|_| bad_number())?;
        let next = delta.checked_mul(times).and_then(|d| value.checked_add(d));
        next.filter(|v| u64::try_from(*v).is_ok_and(|v| v <= MAX_OP_MAX)).ok_or_else(bad_number)
    };
    while !reader.rest().is_empty() {
        match run(&mut reader, &mut rows, rows_max)? {
            Run::Null => {}
            Run::Repeated(times) => value = step(value, reader.signed()?, times)?,
            Run::Literal(count) => {
                for _ in 0..count {
                    value = step(value, reader.signed()?, 1)?;
                }
            }
        }
    }
    Ok(())
}

/// Walks a column of alternating runs of false and true.
pub(super) fn booleans(data: &[u8], rows_max: usize) -> Result<(), NoteRefusal> {
    let mut reader = Reader::new(data);
    let mut left = rows_max as u64;
    while !reader.rest().is_empty() {
        left = left.checked_sub(reader.unsigned()?).ok_or(NoteRefusal::TooManyOps)?;
    }
    Ok(())
}
