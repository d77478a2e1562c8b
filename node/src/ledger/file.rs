//! The file of a ledger: lines of JSON that carry each entry with its first signature, between a head and a signed end.
//!
//! What people can read of a line is there twice, once as the signed bytes: a line whose two halves differ is refused.

use std::collections::BTreeSet;
use std::io::BufRead;

use anyhow::Context;
use crdt::Signer;
use crdt::ids::{EntryId, MeshId, NodeId};
use crdt::ledger::{Signed, Target};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The format of the file.
const FORMAT: &str = "v6-ledger/1";
/// What the signature at the end says that it is of.
const DOMAIN: &str = "v6/export/1";
/// Longest line, in bytes: an entry of 256 KiB, as text and as bytes.
const LINE_BYTES_MAX: u64 = 2 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: String,
    pub(crate) mesh: MeshId,
    pub(crate) node: NodeId,
    pub(crate) exported: String,
    /// Entries when it was begun; more may have come meanwhile.
    pub(crate) entries: u64,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tail {
    end: bool,
    entries: u64,
    hash: String,
    signature: String,
}

/// Writes the lines of a file.
pub(crate) struct Writer {
    hasher: blake3::Hasher,
    entries: u64,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), entries: 0 }
    }

    fn line(&mut self, value: &impl Serialize) -> Vec<u8> {
        let mut line = serde_json::to_vec(value).expect("maps of strings and numbers");
        line.push(b'\n');
        self.hasher.update(&line);
        line
    }

    pub(crate) fn head(&mut self, mesh: MeshId, node: NodeId, exported: String, entries: u64) -> Vec<u8> {
        self.line(&Head { format: FORMAT.to_owned(), mesh, node, exported, entries })
    }

    pub(crate) fn entry(&mut self, signed: &Signed) -> Vec<u8> {
        self.entries += 1;
        self.line(&shown(signed))
    }

    pub(crate) fn tail(mut self, key: &dyn Signer) -> Vec<u8> {
        let hash = *self.hasher.finalize().as_bytes();
        let signature = BASE64.encode(&key.sign(&message(&hash)));
        let entries = self.entries;
        self.line(&Tail { end: true, entries, hash: data_encoding::HEXLOWER.encode(&hash), signature })
    }
}

fn message(hash: &[u8; 32]) -> Vec<u8> {
    crdt::cbor::encode(&(DOMAIN, serde_bytes::Bytes::new(hash)))
}

/// An entry's line.
fn shown(signed: &Signed) -> Value {
    let created = crate::daemon::shown_time(signed.by.created_ms);
    let by = json!({ "node": signed.by.node, "person": signed.by.person, "created": created });
    json!({ "id": signed.id, "by": by, "says": signed.says, "entry": BASE64.encode(&signed.bytes) })
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    /// Line, from 1; 0 for the file as a whole.
    pub(crate) line: u64,
    /// The entry, as far as it can be read.
    pub(crate) id: Option<String>,
    pub(crate) reason: String,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if let Some(id) = &self.id {
            write!(f, "entry {id}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// What a reader was told of a file's lines.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) entries: u64,
    pub(crate) subjects: u64,
    pub(crate) links: u64,
    pub(crate) bad: Vec<Bad>,
}

/// Reads a file to its end and checks the format, each entry's name, signature and readable half, that what entries are about and
/// link to is there, and the end. `each` gets the good ones in their order.
///
/// # Errors
/// The file cannot be read, or `each` says so.
pub(crate) fn check(
    mut file: impl BufRead,
    mut started: impl FnMut(&Head),
    mut each: impl FnMut(Signed) -> anyhow::Result<()>,
) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let mut hasher = blake3::Hasher::new();
    let (mut subjects, mut wanted) = (BTreeSet::new(), Vec::new());
    let (mut head, mut tail) = (None::<Head>, None::<Tail>);
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut file, LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .context("the file cannot be read")?;
        if read == 0 {
            break;
        }
        number += 1;
        let mut bad = |id, reason: String| checked.bad.push(Bad { line: number, id, reason });
        if tail.is_some() {
            bad(None, "there is more after the end".into());
            break;
        }
        let Some(known) = &head else {
            match serde_json::from_slice::<Head>(&line) {
                Ok(read) if read.format == FORMAT => {
                    started(&read);
                    head = Some(read);
                    hasher.update(&line);
                    continue;
                }
                Ok(read) => anyhow::bail!("its format is {:?}; this version reads {FORMAT:?}", read.format),
                Err(_) => anyhow::bail!(
                    "it is no export of a ledger: its first line is not the head that `v6 idea export` writes"
                ),
            }
        };
        let Ok(value) = serde_json::from_slice::<Value>(&line) else {
            bad(None, if line.ends_with(b"\n") { "it is not JSON".into() } else { "it ends in the middle".into() });
            hasher.update(&line);
            continue;
        };
        if value.get("end").is_some() {
            match serde_json::from_value::<Tail>(value) {
                Ok(read) => {
                    if let Err(reason) = ends(&read, &hasher, known.node) {
                        bad(None, reason);
                    }
                    tail = Some(read);
                }
                Err(error) => bad(None, format!("the end is not as it should be: {error}")),
            }
            continue;
        }
        hasher.update(&line);
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        match entry(&value) {
            Ok(signed) => {
                checked.entries += 1;
                if signed.says.about.is_none() {
                    checked.subjects += 1;
                    subjects.insert(signed.id);
                }
                wanted.extend(signed.says.about.map(|about| (number, signed.id, about, "is about")));
                if let Some(link) = &signed.says.link {
                    checked.links += 1;
                    if let Target::Entry(to) = &link.to {
                        wanted.push((number, signed.id, *to, "leads to"));
                    }
                }
                each(signed)?;
            }
            Err(reason) => bad(id, reason),
        }
    }
    let lacks = wanted.into_iter().filter(|(_, _, to, _)| !subjects.contains(to));
    checked.bad.extend(lacks.map(|(line, id, to, how): (u64, EntryId, EntryId, &str)| Bad {
        line,
        id: Some(id.to_string()),
        reason: format!("it {how} {to}, which is not there"),
    }));
    checked.bad.sort_by_key(|bad| bad.line);
    anyhow::ensure!(head.is_some(), "it is empty");
    if tail.is_none() {
        checked.bad.push(Bad { line: 0, id: None, reason: "the file has no end: it was cut off".into() });
    }
    Ok(checked)
}

fn ends(tail: &Tail, hasher: &blake3::Hasher, node: NodeId) -> Result<(), String> {
    let hash = *hasher.finalize().as_bytes();
    if tail.hash != data_encoding::HEXLOWER.encode(&hash) {
        return Err("the lines before the end are not those that were exported".into());
    }
    let signature = BASE64.decode(tail.signature.as_bytes()).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let is_signed = signature.is_some_and(|signature| crdt::verify(&node, &message(&hash), &signature));
    if is_signed { Ok(()) } else { Err("the end is not signed by the node that exported it".into()) }
}

/// The entry of a line, if its name, its signature and both halves agree.
fn entry(line: &Value) -> Result<Signed, String> {
    let bytes = line.get("entry").and_then(Value::as_str).and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let bytes = bytes.ok_or("its bytes cannot be read")?;
    let signed = Signed::verify(&bytes).map_err(|error| error.to_string())?;
    let of_bytes = shown(&signed);
    for (name, value) in of_bytes.as_object().into_iter().flatten() {
        if line.get(name) != Some(value) {
            return Err(format!("what the line says as {name:?} is not what was signed"));
        }
    }
    Ok(signed)
}

/// The bytes of an entry in an import.
pub(crate) fn decode(text: &str) -> Result<Signed, String> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| "it is not base64".to_owned())?;
    Signed::verify(&bytes).map_err(|error| error.to_string())
}

/// The opposite of [`decode`].
pub(crate) fn encode(signed: &Signed) -> String {
    BASE64.encode(&signed.bytes)
}

#[cfg(test)]
mod tests {
    use crdt::SigningKey;
    use crdt::ids::PersonId;
    use crdt::ledger::{Content, Kind, Link, Relation};

    use super::*;

    fn file() -> (Vec<u8>, Vec<Signed>) {
        let key = SigningKey::from_bytes(&[3; 32]);
        let sign = |n: u8, says| Signed::sign(&key, PersonId([4; 16]), 1_800_000_000_000, [n; 16], says).expect("good");
        let idea = sign(1, Content::new(Kind::Idea, "ماكو فكرة تضيع"));
        let other = sign(2, Content::new(Kind::Idea, "another"));
        let link = Link { relation: Relation::Supports, to: Target::Entry(other.id), score: None, method: None };
        let link = sign(3, Content { link: Some(link), ..Content::about(Kind::Link, idea.id) });
        let entries = vec![idea, link, other];
        let mut writer = Writer::new();
        let mut out = writer.head(MeshId([9; 32]), key.node(), "2026-11-28T00:00:00.000Z".into(), 3);
        out.extend(entries.iter().flat_map(|entry| writer.entry(entry)));
        out.extend(writer.tail(&key));
        (out, entries)
    }

    fn read(bytes: &[u8]) -> (Vec<Bad>, Vec<Signed>) {
        let mut good = Vec::new();
        let checked = check(
            bytes,
            |_| {},
            |signed| {
                good.push(signed);
                Ok(())
            },
        );
        (checked.expect("a file").bad, good)
    }

    #[test]
    fn a_file_gives_back_what_went_into_it() {
        let (bytes, entries) = file();
        assert_eq!(read(&bytes), (Vec::new(), entries));
    }

    #[test]
    fn every_changed_line_is_named_and_a_cut_is_noticed() {
        let (bytes, entries) = file();
        let text = String::from_utf8(bytes).expect("JSON");
        let lines: Vec<&str> = text.lines().collect();
        for (at, entry) in entries.iter().enumerate() {
            let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            changed[at + 1] = changed[at + 1].replace("2027-01-15", "2027-01-16");
            let (bad, good) = read((changed.join("\n") + "\n").as_bytes());
            assert!(bad.iter().any(|bad| bad.id == Some(entry.id.to_string()) && bad.line == at as u64 + 2), "{bad:?}");
            assert_eq!(good.len(), 2);
        }
        let cut = read((lines[..3].join("\n") + "\n").as_bytes()).0;
        assert!(cut.iter().any(|bad| bad.reason.contains("cut off")), "{cut:?}");
        let without = read(([lines[0], lines[1], lines[3], lines[4]].join("\n") + "\n").as_bytes()).0;
        assert!(without.iter().any(|bad| bad.reason.contains("not those that were exported")), "{without:?}");
    }
}
