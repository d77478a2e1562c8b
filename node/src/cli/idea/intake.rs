//! Ideas out of files of other programs: CommonMark, CSV, issues of GitHub.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use serde::Deserialize;
use web_gateway::api::IdeaRequest;

/// Most bytes of a file: a hundred thousand notes of 600 bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// What `v6 idea export` wrote
    Ledger,
    /// Headings are titles, what follows is their text; without headings, each item of a list
    Markdown,
    /// Columns title, and perhaps body, kind, language, tags, url, id
    Csv,
    /// What `gh issue list --json number,title,body,labels,url` prints
    GithubIssues,
}

/// Reads the ideas of a file. Each has a key of its source, so that the same file adds nothing twice.
///
/// # Errors
/// The file cannot be read, or is not of that format: which part, and what is expected.
pub(super) fn read(path: &Path, format: Format) -> anyhow::Result<Vec<IdeaRequest>> {
    let name = path.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy().into_owned());
    let mut text = String::new();
    let said = || format!("{} cannot be read as UTF-8 text", path.display());
    if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(said)?;
    } else {
        let file = std::fs::File::open(path).with_context(said)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(said)?;
    }
    anyhow::ensure!(text.len() as u64 <= FILE_BYTES_MAX, "{} has more than {FILE_BYTES_MAX} bytes", path.display());
    let ideas = match format {
        Format::Ledger => anyhow::bail!("a ledger is taken with its signatures"),
        Format::Markdown => markdown(&text, &name),
        Format::Csv => csv(&text, &name)?,
        Format::GithubIssues => github(&text)?,
    };
    let mut keys = BTreeSet::new();
    for idea in &ideas {
        let key = idea.key.clone().unwrap_or_default();
        anyhow::ensure!(
            keys.insert(key),
            "{name}: {:?} is there twice: give one of them another title or id",
            idea.title
        );
    }
    anyhow::ensure!(!ideas.is_empty(), "{name}: there is no idea in it");
    Ok(ideas)
}

fn line_of(text: &str, at: usize) -> u32 {
    u32::try_from(text[..at].matches('\n').count() + 1).unwrap_or(u32::MAX)
}

fn markdown(text: &str, name: &str) -> Vec<IdeaRequest> {
    let sections = headings(text);
    let found = if sections.is_empty() { items(text) } else { sections };
    let request = |(title, body, at): (String, String, usize)| IdeaRequest {
        key: Some(format!("markdown/{name}/{title}")),
        file: Some(name.to_owned()),
        line: Some(line_of(text, at)),
        title,
        body,
        ..IdeaRequest::default()
    };
    found.into_iter().filter(|(title, ..)| !title.is_empty()).map(request).collect()
}

/// Headings of the highest level that there are more than one of (a single one on top is the file's title), each with the text
/// up to the next.
fn headings(text: &str) -> Vec<(String, String, usize)> {
    let mut all: Vec<(HeadingLevel, String, std::ops::Range<usize>)> = Vec::new();
    let mut is_open = false;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                all.push((level, String::new(), range));
                is_open = true;
            }
            Event::End(TagEnd::Heading(_)) => is_open = false,
            Event::Text(words) | Event::Code(words) if is_open => {
                if let Some((_, title, _)) = all.last_mut() {
                    title.push_str(&words);
                }
            }
            _ => {}
        }
    }
    let count = |level: HeadingLevel| all.iter().filter(|(other, ..)| *other == level).count();
    let levels: BTreeSet<HeadingLevel> = all.iter().map(|(level, ..)| *level).collect();
    let level = levels.iter().find(|level| count(**level) > 1).or(levels.first()).copied();
    let Some(level) = level else { return Vec::new() };
    let mut found = Vec::new();
    for (at, (of, title, range)) in all.iter().enumerate().filter(|(_, (of, ..))| *of == level) {
        let next = all[at + 1..].iter().find(|(other, ..)| *other <= *of).map_or(text.len(), |(.., next)| next.start);
        found.push((title.trim().to_owned(), text[range.end..next].trim().to_owned(), range.start));
    }
    found
}

/// The items of the outermost lists: the first line is the title.
fn items(text: &str) -> Vec<(String, String, usize)> {
    let (mut depth, mut found) = (0, Vec::new());
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Item) => {
                if depth == 0 {
                    let item = text[range.clone()].trim_start().trim_start_matches(['-', '*', '+', '.', ')']);
                    let item = item.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(['.', ')']);
                    let (title, body) = item.trim().split_once('\n').unwrap_or((item.trim(), ""));
                    found.push((title.trim().to_owned(), body.trim().to_owned(), range.start));
                }
                depth += 1;
            }
            Event::End(TagEnd::Item) => depth -= 1,
            _ => {}
        }
    }
    found
}

#[derive(Debug, Deserialize)]
struct CsvRow {
    title: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    tags: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    id: Option<String>,
}

fn csv(text: &str, name: &str) -> anyhow::Result<Vec<IdeaRequest>> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let mut ideas = Vec::new();
    for row in reader.deserialize::<CsvRow>() {
        let row = row.with_context(|| {
            format!("{name}: the first line names the columns: title, and perhaps body, kind, language, tags, url, id")
        })?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let id = filled(row.id).unwrap_or_else(|| row.title.clone());
        ideas.push(IdeaRequest {
            key: Some(format!("csv/{name}/{id}")),
            file: Some(name.to_owned()),
            title: row.title,
            body: row.body,
            kind: filled(row.kind),
            language: filled(row.language),
            tags: row.tags.split([';', '|']).map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect(),
            url: filled(row.url),
            ..IdeaRequest::default()
        });
    }
    Ok(ideas)
}

#[derive(Debug, Deserialize)]
struct Issue {
    number: u64,
    title: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default, alias = "html_url")]
    url: Option<String>,
    /// Of the API's list: then it is no issue.
    #[serde(default)]
    pull_request: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Label {
    name: String,
}

fn github(text: &str) -> anyhow::Result<Vec<IdeaRequest>> {
    let issues: Vec<Issue> = serde_json::from_str(text).context(
        "it is no list of issues: `gh issue list --json number,title,body,labels,url` prints one, and so does the API",
    )?;
    let request = |issue: Issue| {
        let id = issue.url.clone().unwrap_or_else(|| issue.number.to_string());
        IdeaRequest {
            key: Some(format!("github/{id}")),
            title: issue.title.trim().to_owned(),
            body: issue.body.unwrap_or_default().replace("\r\n", "\n"),
            kind: Some("issue".to_owned()),
            tags: issue.labels.into_iter().map(|label| label.name).collect(),
            url: issue.url,
            ..IdeaRequest::default()
        }
    };
    Ok(issues.into_iter().filter(|issue| issue.pull_request.is_none()).map(request).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(ideas: &[IdeaRequest]) -> Vec<(&str, &str, Option<u32>)> {
        ideas.iter().map(|idea| (idea.title.as_str(), idea.body.as_str(), idea.line)).collect()
    }

    #[test]
    fn headings_are_titles_and_code_is_not() {
        let text = "# Notes\n\n## Cache `tools`\nThey are large.\n\n```\n## no heading\n```\n### More\nand more\n## ترجمة\n\nنعم\n";
        let ideas = markdown(text, "notes.md");
        let body = "They are large.\n\n```\n## no heading\n```\n### More\nand more";
        assert_eq!(plain(&ideas), [("Cache tools", body, Some(3)), ("ترجمة", "نعم", Some(11))]);
        assert_eq!(ideas[0].key.as_deref(), Some("markdown/notes.md/Cache tools"));
    }

    #[test]
    fn without_headings_the_outermost_items_are_ideas() {
        let ideas = markdown("Some words.\n\n- one\n  - part of one\n- two\n\n1. three\n", "list.md");
        assert_eq!(plain(&ideas), [("one", "- part of one", Some(3)), ("two", "", Some(5)), ("three", "", Some(7))]);
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let text = "\u{feff}id,title,tags,body\n7,\"Cache, warm\",ui;build,\"two\nlines\"\n,Plain,,\n";
        let ideas = csv(text, "ideas.csv").expect("read");
        assert_eq!(plain(&ideas), [("Cache, warm", "two\nlines", None), ("Plain", "", None)]);
        assert_eq!(ideas[0].tags, ["ui", "build"]);
        let keys: Vec<_> = ideas.iter().filter_map(|idea| idea.key.as_deref()).collect();
        assert_eq!(keys, ["csv/ideas.csv/7", "csv/ideas.csv/Plain"]);
        assert!(csv("name\nx\n", "x.csv").expect_err("no title").to_string().contains("names the columns"));
    }

    #[test]
    fn issues_keep_their_labels_and_addresses_and_pull_requests_are_left_out() {
        let text = r#"[{"number":3,"title":"Slow","body":"a\r\nb","labels":[{"name":"bug"}],"url":"https://example.org/3"},
            {"number":4,"title":"A change","pull_request":{}}]"#;
        let ideas = github(text).expect("read");
        assert_eq!(plain(&ideas), [("Slow", "a\nb", None)]);
        assert_eq!((ideas[0].tags[0].as_str(), ideas[0].kind.as_deref()), ("bug", Some("issue")));
        assert_eq!(ideas[0].key.as_deref(), Some("github/https://example.org/3"));
        assert!(github("{}").is_err());
    }
}
