//! The owner's accept file: whose jobs, which commands and which labels a PC takes, and whether jobs get the network.
//!
//! `accept.toml` in the data directory. Every key may be left out; without the file everything is taken but the network:
//! ```toml
//! members  = ["ines", "laptop"]   # persons or nodes by name or id, a node stands for its person; default: everybody
//! commands = ["cargo", "make"]    # first word of the command; default: any
//! labels   = ["ci"]               # only jobs that ask for one of these; default: any job
//! network  = false                # whether jobs may open internet sockets
//! ```
//! A name counts only where exactly one person or node has it, for nodes name themselves; an id is always safe.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crdt::ids::{NodeId, PersonId};
use crdt::roster::Roster;
use mesh::offer::Accepts;
use serde::Deserialize;

/// Its name in the data directory.
pub const ACCEPT_FILE: &str = "accept.toml";
/// Bytes of the file. Larger: refused.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Entries of one list. More: refused.
const ENTRIES_MAX: usize = 1_000;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcceptFile {
    /// Persons and nodes by name or id.
    pub members: Option<Vec<String>>,
    /// Programs.
    pub commands: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<Vec<String>>,
    /// Whether jobs may use the network.
    pub network: bool,
}

/// Why the file cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// It cannot be read: see to its permissions.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is larger than such a file may be.
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes or a list in it has more than {ENTRIES_MAX} entries", path = path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// A line of it is not understood: mend it.
    #[error("{path}, line {line}: {why}; known are members, commands, labels (lists) and network (true or false)", path = path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

impl AcceptFile {
    /// Reads the file of a data directory; its absence is the default. Blocks.
    ///
    /// # Errors
    /// [`AcceptError`]: nothing should be taken until its owner has mended it.
    pub fn read(data_dir: &Path) -> Result<Self, AcceptError> {
        let path = data_dir.join(ACCEPT_FILE);
        let mut text = String::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(AcceptError::Io { path, source }),
            Ok(_) => {}
        }
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: PathBuf) -> Result<Self, AcceptError> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(AcceptError::TooLarge { path });
        }
        let file: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            AcceptError::Format { path: path.clone(), line, why: error.message().to_owned() }
        })?;
        let lists = [&file.members, &file.commands, &file.labels];
        if lists.into_iter().flatten().any(|list| list.len() > ENTRIES_MAX) {
            return Err(AcceptError::TooLarge { path });
        }
        Ok(file)
    }

    /// What goes into the offer, by what the roster says at present; and the members that it does not know, or not
    /// for certain. With `only`, nobody but that person is accepted, whatever the file says.
    #[must_use]
    pub fn resolve(&self, roster: &Roster, only: Option<Option<PersonId>>) -> (Accepts, Vec<String>) {
        let mut unknown = Vec::new();
        let mut persons: Option<BTreeSet<PersonId>> = self.members.as_ref().map(|members| {
            let mut persons = BTreeSet::new();
            for member in members {
                match person(roster, member) {
                    Some(person) => drop(persons.insert(person)),
                    None => unknown.push(member.clone()),
                }
            }
            persons
        });
        if let Some(owner) = only {
            let listed = |person: &PersonId| persons.as_ref().is_none_or(|listed| listed.contains(person));
            persons = Some(owner.into_iter().filter(listed).collect());
        }
        let set = |list: &Option<Vec<String>>| list.as_ref().map(|list| list.iter().cloned().collect());
        let accepts =
            Accepts { persons, commands: set(&self.commands), labels: set(&self.labels), network: self.network };
        (accepts, unknown)
    }
}

/// The one person that an id or a name stands for.
fn person(roster: &Roster, word: &str) -> Option<PersonId> {
    let (node, id) = (word.parse::<NodeId>(), word.parse::<PersonId>());
    // What looks like an id is never taken for a name.
    if node.is_ok() || id.is_ok() {
        let known = |id: &PersonId| roster.members.values().any(|m| m.person == *id) || roster.persons.contains_key(id);
        return node.ok().and_then(|node| roster.person(&node)).or_else(|| id.ok().filter(known));
    }
    let persons = roster.persons.iter().filter(|(_, name)| *name == word).map(|(id, _)| *id);
    let nodes = roster.standing().filter(|(_, member)| member.name == word).map(|(_, member)| member.person);
    let found: BTreeSet<PersonId> = persons.chain(nodes).collect();
    (found.len() == 1).then(|| found.first().copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crdt::roster::{Member, Role};

    fn roster() -> Roster {
        let member = |name: &str, person: u8| Member {
            name: name.to_owned(),
            person: PersonId([person; PersonId::LEN]),
            roles: vec![(0, Role::Worker)],
            admitted_ms: 0,
            invite: None,
        };
        let mut roster = Roster::default();
        for (node, name, person) in [(1, "laptop", 1), (2, "desktop", 1), (3, "twin", 3), (4, "twin", 4)] {
            roster.members.insert(NodeId([node; NodeId::LEN]), member(name, person));
        }
        roster.persons.insert(PersonId([1; PersonId::LEN]), "ines".into());
        roster
    }

    fn parse(text: &str) -> Result<AcceptFile, String> {
        AcceptFile::parse(text, "accept.toml".into()).map_err(|e| e.to_string())
    }

    #[test]
    fn without_a_file_everything_is_accepted_but_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let (accepts, unknown) = AcceptFile::read(dir.path()).unwrap().resolve(&roster(), None);
        assert_eq!((accepts, unknown), (Accepts::default(), vec![]));
    }

    #[test]
    fn a_member_is_named_by_name_or_id_and_an_ambiguous_name_is_nobody() {
        let id = NodeId([3; NodeId::LEN]).to_string();
        let file = parse(&format!("members = ['ines', 'laptop', '{id}', 'twin', 'who']\nnetwork = true")).unwrap();
        let (accepts, unknown) = file.resolve(&roster(), None);
        assert_eq!(accepts.persons.unwrap().into_iter().map(|p| p.0[0]).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(unknown, ["twin", "who"]);
        assert!(accepts.network);
    }

    #[test]
    fn without_a_sandbox_only_the_owner_is_accepted_whatever_the_file_says() {
        let owner = PersonId([1; PersonId::LEN]);
        let resolve = |text: &str, only| parse(text).unwrap().resolve(&roster(), Some(only)).0.persons.unwrap();
        assert_eq!(resolve("", Some(owner)), [owner].into());
        assert_eq!(resolve("members = ['ines', 'twin']", Some(owner)), [owner].into());
        assert!(resolve("members = []", Some(owner)).is_empty());
        assert!(resolve("", None).is_empty());
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        for (text, line, why) in [
            ("network = true\nmembrs = []", "line 2", "membrs"),
            ("labels = [\n  'a',\n  3]", "line 3", "string"),
            ("\n\ncommands = ['a'", "line 3", ""),
            ("network = 'yes'", "line 1", "boolean"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(line) && refused.contains(why), "{refused}");
        }
    }
}
