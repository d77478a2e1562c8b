//! What texts mean, by a model of the owner's: an endpoint on this machine that answers like OpenAI's `/v1/embeddings`, as the servers
//! of llama.cpp, Ollama and LM Studio do. Without one nothing is compared by its meaning.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use crdt::doc::{DocId, DocKind};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// File of the vectors below the node's directory.
const FILE: &str = "index/meaning";
/// Version of the file. Another one is made anew.
const VERSION: u32 = 1;
const HEAD_BYTES_MAX: u64 = 4_096;
/// Where an address without a path means.
const PATH: &str = "/v1/embeddings";
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most numbers of a vector.
const DIMENSIONS_MAX: usize = 8_192;
/// Entries that are told to mean the same, the closest first.
const NEAREST_MAX: usize = 24;

/// A model, and where it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    authority: String,
    path: String,
    /// The model's name there.
    pub model: String,
    /// Cosine from which on two texts mean the same.
    pub same_min: f64,
}

impl Endpoint {
    /// Reads an address such as `http://127.0.0.1:11434/v1/embeddings`.
    ///
    /// # Errors
    /// What to write instead: what people note down goes to no other machine.
    pub fn parse(url: &str, model: String, same_min: f64) -> Result<Self, String> {
        let hint = "write the address of a model on this machine, such as http://127.0.0.1:11434/v1/embeddings";
        let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no address: {hint}"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("{url:?} is no address that begins with http://: {hint}"));
        };
        let host = authority.host().trim_matches(['[', ']']);
        if host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            return Err(format!("{host} is another machine, and the texts of ideas do not leave this one: {hint}"));
        }
        if !(0.0..=1.0).contains(&same_min) {
            return Err(format!("{same_min} is no likeness: write a number from 0 to 1"));
        }
        let authority = authority.port().map_or_else(|| format!("{host}:80"), |_| authority.to_string());
        let path = if uri.path() == "/" { PATH } else { uri.path() };
        Ok(Self { authority, path: path.to_owned(), model, same_min })
    }

    /// The meaning of each text, as vectors of one length.
    ///
    /// # Errors
    /// The model does not answer within `patience`, or not with that.
    pub(crate) async fn embed(&self, texts: &[String], patience: Duration) -> anyhow::Result<Vec<Vec<f32>>> {
        let answer = tokio::time::timeout(patience, self.ask(texts)).await;
        answer.with_context(|| format!("no answer within {patience:?}")).flatten().with_context(|| {
            format!("the model {} at http://{}{} tells no meanings", self.model, self.authority, self.path)
        })
    }

    async fn ask(&self, texts: &[String]) -> anyhow::Result<Vec<Vec<f32>>> {
        let socket = TcpStream::connect(&self.authority).await?;
        let (mut connection, driver) = handshake(TokioIo::new(socket)).await?;
        tokio::spawn(driver);
        let body = serde_json::to_vec(&Asked { model: &self.model, input: texts })?;
        let request = Request::post(&self.path).header(HOST, &self.authority).header(CONTENT_TYPE, "application/json");
        let answer = connection.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        if !status.is_success() {
            let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            anyhow::bail!("it says {status}: {said}");
        }
        let mut told: Answered = serde_json::from_slice(&body).context("its answer is not understood")?;
        told.data.sort_by_key(|one| one.index);
        let vectors: Vec<Vec<f32>> = told.data.into_iter().map(|one| one.embedding).collect();
        let is_one_length = vectors.windows(2).all(|two| two[0].len() == two[1].len());
        let fits = vectors.iter().all(|vector| (1..=DIMENSIONS_MAX).contains(&vector.len()));
        anyhow::ensure!(vectors.len() == texts.len() && is_one_length && fits, "it does not answer with vectors");
        Ok(vectors)
    }
}

#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a [String],
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}

/// First line of the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    model: String,
    dimensions: usize,
}

/// The meanings of all entries, in memory and in a file: each number of a vector is a byte.
#[derive(Debug)]
pub(crate) struct Meanings {
    path: PathBuf,
    model: String,
    dimensions: usize,
    docs: Vec<DocId>,
    vectors: Vec<i8>,
    known: HashSet<DocId>,
}

impl Meanings {
    /// Reads what a model's meanings are known of. What was written of another model, or half, counts for nothing.
    pub(crate) fn open(data_dir: &Path, model: &str) -> Self {
        let path = data_dir.join(FILE);
        let mut this = Self {
            path,
            model: model.to_owned(),
            dimensions: 0,
            docs: Vec::new(),
            vectors: Vec::new(),
            known: HashSet::new(),
        };
        if let Err(error) = this.read() {
            tracing::debug!(error = format!("{error:#}"), "the meanings of ideas are asked for anew");
        }
        this
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut file = BufReader::new(std::fs::File::open(&self.path)?);
        let mut line = Vec::new();
        file.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
        let head: Head = serde_json::from_slice(&line)?;
        let is_ours = head.version == VERSION && head.model == self.model;
        anyhow::ensure!(is_ours && (1..=DIMENSIONS_MAX).contains(&head.dimensions), "it is of another model");
        self.dimensions = head.dimensions;
        let mut row = vec![0; 16 + head.dimensions];
        let mut whole = line.len() as u64;
        while file.read_exact(&mut row).is_ok() {
            let (id, vector) = row.split_first_chunk().expect("16 bytes and more");
            self.keep(DocId { kind: DocKind::Ledger, id: *id }, vector.iter().map(|byte| byte.cast_signed()));
            whole += row.len() as u64;
        }
        // What a kill left half written would shift the next rows.
        std::fs::OpenOptions::new().write(true).open(&self.path)?.set_len(whole)?;
        Ok(())
    }

    fn keep(&mut self, doc: DocId, vector: impl Iterator<Item = i8>) {
        if self.known.insert(doc) {
            self.docs.push(doc);
            self.vectors.extend(vector);
        }
    }

    /// Whether an entry's meaning is known.
    pub(crate) fn knows(&self, doc: &DocId) -> bool {
        self.known.contains(doc)
    }

    /// Takes meanings in, and writes them down.
    ///
    /// # Errors
    /// They are of another length than what is known, or the file cannot be written: then the next start asks for them again.
    pub(crate) fn add(&mut self, rows: &[(DocId, Vec<f32>)]) -> anyhow::Result<()> {
        let Some((_, first)) = rows.first() else { return Ok(()) };
        let begins = self.docs.is_empty();
        if begins {
            self.dimensions = first.len();
        }
        let fits = rows.iter().all(|(_, vector)| vector.len() == self.dimensions);
        anyhow::ensure!(
            fits,
            "vectors of {} numbers do not compare with {}: if the model is another one now, give it another name or remove {}",
            first.len(),
            self.dimensions,
            self.path.display()
        );
        let mut bytes = Vec::new();
        if begins {
            let head = Head { version: VERSION, model: self.model.clone(), dimensions: self.dimensions };
            bytes = serde_json::to_vec(&head)?;
            bytes.push(b'\n');
        }
        for (doc, vector) in rows.iter().filter(|(doc, _)| !self.known.contains(doc)) {
            bytes.extend_from_slice(&doc.id);
            bytes.extend(unit(vector).map(i8::cast_unsigned));
        }
        rows.iter().for_each(|(doc, vector)| self.keep(*doc, unit(vector)));
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let options = if begins { options.write(true).create(true).truncate(true) } else { options.append(true) };
        options.open(&self.path)?.write_all(&bytes)?;
        Ok(())
    }

    /// The entries whose cosine with a vector is at least `least`, the closest first.
    pub(crate) fn nearest(&self, asked: &[f32], least: f64) -> Vec<(DocId, f64)> {
        if asked.len() != self.dimensions {
            return Vec::new();
        }
        let asked: Vec<i8> = unit(asked).collect();
        let length = norm(&asked);
        let rows = self.docs.iter().zip(self.vectors.chunks_exact(self.dimensions));
        let cosine = |row: &[i8]| {
            let dot: i64 = row.iter().zip(&asked).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
            #[allow(clippy::cast_precision_loss, reason = "below 2^27")]
            let dot = dot as f64;
            dot / (length * norm(row)).max(1.0)
        };
        let near = rows.map(|(doc, row)| (*doc, cosine(row))).filter(|(_, cosine)| *cosine >= least);
        let mut found: Vec<(DocId, f64)> = near.collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(NEAREST_MAX);
        found
    }
}

fn norm(vector: &[i8]) -> f64 {
    let sum: i32 = vector.iter().map(|a| i32::from(*a) * i32::from(*a)).sum();
    f64::from(sum).sqrt()
}

/// A vector in bytes: its largest number is 127.
fn unit(vector: &[f32]) -> impl Iterator<Item = i8> + '_ {
    let most = vector.iter().fold(0.0f32, |most, a| most.max(a.abs()));
    let scale = if most > 0.0 && most.is_finite() { 127.0 / most } else { 0.0 };
    #[allow(clippy::cast_possible_truncation, reason = "between -127 and 127")]
    vector.iter().map(move |a| (a * scale).round() as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(n: u8) -> DocId {
        DocId { kind: DocKind::Ledger, id: [n; 16] }
    }

    #[test]
    fn a_model_is_asked_on_this_machine_only() {
        let parse = |url: &str| Endpoint::parse(url, "m".into(), 0.8).map(|e| format!("{}{}", e.authority, e.path));
        assert_eq!(parse("http://127.0.0.1:11434/v1/embeddings").as_deref(), Ok("127.0.0.1:11434/v1/embeddings"));
        assert_eq!(parse("http://localhost:8080").as_deref(), Ok("localhost:8080/v1/embeddings"));
        assert_eq!(parse("http://[::1]:1/x").as_deref(), Ok("[::1]:1/x"));
        for (url, why) in [
            ("http://example.com/v1/embeddings", "another machine"),
            ("https://127.0.0.1/v1", "http://"),
            ("127.0.0.1:1", "http://"),
            ("a b", "no address"),
        ] {
            assert!(parse(url).expect_err(url).contains(why), "{url}");
        }
        assert!(Endpoint::parse("http://[::1]:1/", "m".into(), 1.5).expect_err("no cosine").contains("0 to 1"));
    }

    #[test]
    fn meanings_are_kept_by_their_model_and_the_closest_comes_first() {
        let root = tempfile::tempdir().expect("a directory");
        let mut meanings = Meanings::open(root.path(), "m");
        assert_eq!(meanings.nearest(&[1.0, 0.0], 0.0), []);
        let rows = [(doc(1), vec![1.0, 0.0]), (doc(2), vec![0.9, 0.1]), (doc(3), vec![0.0, -2.0])];
        meanings.add(&rows).expect("added");
        meanings.add(&rows[..1]).expect("known already");
        meanings.add(&[(doc(4), vec![0.1, 0.1])]).expect("added");
        assert!(meanings.add(&[(doc(5), vec![1.0])]).is_err());
        let closest = |meanings: &Meanings| {
            let found = meanings.nearest(&[3.0, 0.0], 0.9);
            found.into_iter().map(|(doc, cosine)| (doc.id[0], (cosine * 100.0).round())).collect::<Vec<_>>()
        };
        assert_eq!(closest(&meanings), [(1, 100.0), (2, 99.0)]);
        let again = Meanings::open(root.path(), "m");
        assert_eq!((closest(&again), again.docs.len()), (closest(&meanings), 4));
        assert!(again.knows(&doc(4)) && !again.knows(&doc(5)));
        // A kill in the middle of a row costs that row.
        let path = root.path().join(FILE);
        let bytes = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("cut");
        let mut cut = Meanings::open(root.path(), "m");
        assert_eq!(cut.docs.len(), 3);
        cut.add(&[(doc(6), vec![1.0, 0.2])]).expect("added");
        assert_eq!(closest(&Meanings::open(root.path(), "m")), [(1, 100.0), (2, 99.0), (6, 98.0)]);
        assert_eq!(Meanings::open(root.path(), "other").docs.len(), 0);
    }
}
