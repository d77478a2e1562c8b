//! How `v6 top` looks: one frame from one model.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState};
use web_gateway::api::{JobRow, JobState, LogStream, PeerView};

use super::super::output::{ago, command_line, short, shown, span};
use super::model::Model;

/// Rows of the list of nodes, with its frame, at most.
const NODE_ROWS_MAX: u16 = 10;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let nodes = u16::try_from(model.last.peers.len()).unwrap_or(u16::MAX).saturating_add(4).min(NODE_ROWS_MAX);
    let [head, top, jobs, log, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(nodes),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [peers, rate] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(1)]).areas(top);
    draw_head(frame, head, model);
    draw_nodes(frame, peers, model);
    draw_rate(frame, rate, model);
    draw_jobs(frame, jobs, model);
    draw_log(frame, log, model);
    draw_foot(frame, foot, model);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let status = &model.last.status;
    let mut spans = vec![
        Span::styled(" V6 ", bold().add_modifier(Modifier::REVERSED)),
        Span::raw(format!(
            " {} · mesh {} · {} peers online · {}/{} slots busy · up {}",
            shown(&status.name),
            short(&status.mesh),
            status.peers_online,
            status.slots_busy,
            status.slots,
            span(status.uptime_ms)
        )),
    ];
    if let Some(why) = &status.paused {
        spans.push(Span::styled(format!(" · paused: {}", shown(why)), Style::new().fg(Color::Yellow)));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let status = &model.last.status;
    let own = Row::new([
        Cell::from(short(&status.node).to_owned()),
        Cell::from(format!("{} (here)", shown(&status.name))),
        Cell::from(Span::styled("online", Style::new().fg(Color::Green))),
        Cell::from(format!("{}/{}", status.slots_busy, status.slots)),
        Cell::from("-"),
        Cell::from(shown(&status.labels.join(","))),
    ]);
    let rows = std::iter::once(own).chain(model.last.peers.iter().map(peer_row));
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Length(12),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Fill(2),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(["NODE", "NAME", "STATE", "BUSY", "RTT", "LABELS"]).style(bold()))
        .block(Block::new().borders(Borders::ALL).title(" nodes "));
    frame.render_widget(table, area);
}

fn peer_row(peer: &PeerView) -> Row<'static> {
    let state = if peer.online {
        Span::styled("online", Style::new().fg(Color::Green))
    } else {
        Span::styled(peer.last_seen.as_deref().map_or("offline".to_owned(), ago), Style::new().fg(Color::Red))
    };
    let busy = peer.slots_free.map_or("-".to_owned(), |free| peer.slots.saturating_sub(free).to_string());
    Row::new([
        Cell::from(short(&peer.node).to_owned()),
        Cell::from(shown(&peer.name)),
        Cell::from(state),
        Cell::from(format!("{busy}/{}", peer.slots)),
        Cell::from(peer.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.1} ms"))),
        Cell::from(shown(&peer.labels.join(","))),
    ])
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let last = model.rates.back().copied().unwrap_or(0);
    let title = format!(" {}.{} done/s ", last / 10, last % 10);
    let room = usize::from(area.width.saturating_sub(2));
    let data: Vec<u64> = model.rates.iter().copied().skip(model.rates.len().saturating_sub(room)).collect();
    let curve = Sparkline::default()
        .block(Block::new().borders(Borders::ALL).title(title))
        .style(Style::new().fg(Color::Cyan))
        .data(&data);
    frame.render_widget(curve, area);
}

fn state_style(state: JobState) -> Style {
    match state {
        JobState::Done => Style::new().fg(Color::Green),
        JobState::Failed => Style::new().fg(Color::Red),
        JobState::Running | JobState::Claimed => Style::new().fg(Color::Yellow),
        JobState::Cancelled | JobState::Skipped => Style::new().add_modifier(Modifier::DIM),
        JobState::Queued => Style::new(),
    }
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let counts: Vec<String> =
        model.last.status.jobs.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    let title = format!(" jobs: {} ", if counts.is_empty() { "none yet".to_owned() } else { counts.join(", ") });
    let widths = [
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(13),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Fill(1),
    ];
    let table = Table::new(model.last.jobs.iter().map(job_row), widths)
        .header(Row::new(["JOB", "STATE", "TASKS", "OWNER", "AGE", "COMMAND"]).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::ALL).title(title));
    let mut state = TableState::default().with_selected(model.chosen_index());
    frame.render_stateful_widget(table, area, &mut state);
}

fn job_row(job: &JobRow) -> Row<'static> {
    Row::new([
        Cell::from(short(&job.id).to_owned()),
        Cell::from(Span::styled(job.state.as_str(), state_style(job.state))),
        Cell::from(format!("{}/{}", job.done, job.tasks)),
        Cell::from(job.owner.as_deref().map_or("-", short).to_owned()),
        Cell::from(ago(&job.created)),
        Cell::from(job.name.as_deref().map_or_else(|| command_line(&job.command, 200), shown)),
    ])
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let title = model.chosen().map_or(" log ".to_owned(), |job| format!(" log of {} ", short(job)));
    let rows = usize::from(area.height.saturating_sub(2));
    let lines: Vec<Line<'_>> = model
        .log_lines(rows)
        .into_iter()
        .map(|(stream, text)| match stream {
            LogStream::Stdout => Line::raw(text),
            LogStream::Stderr => Line::styled(text, Style::new().fg(Color::Yellow)),
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(Block::new().borders(Borders::ALL).title(title)), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let line = match &model.trouble {
        Some(text) => {
            let first = text.lines().next().unwrap_or_default();
            Line::styled(format!(" {}", shown(first)), Style::new().fg(Color::Red))
        }
        None => Line::styled(
            format!(" {} running · ↑ ↓ choose a job · q quits", model.running()),
            Style::new().add_modifier(Modifier::DIM),
        ),
    };
    frame.render_widget(line, area);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use web_gateway::api::{LogLine, StatusView};

    use super::super::model::Snapshot;
    use super::*;

    fn snapshot(at: Instant, jobs: usize, done: u64) -> Snapshot {
        let status = serde_json::json!({
            "node": "aa".repeat(32), "name": "desk", "mesh": "bb".repeat(32), "version": "0", "peers_online": 0,
            "jobs": {"done": done, "running": 1}, "feeds": {}, "state_hash": "", "lease_ms": 5000, "api_token_file": ""
        });
        let status: StatusView = serde_json::from_value(status).expect("a status");
        let row = |n: usize| {
            let row = serde_json::json!({
                "id": format!("{n:032x}"), "state": "running", "trace": "", "submitter": "", "owner": null,
                "created": "2026-01-02T03:04:05.678Z", "tasks": 2, "done": 0, "command": ["make", format!("t{n}")]
            });
            serde_json::from_value(row).expect("a row")
        };
        Snapshot { at, status, peers: Vec::new(), jobs: (0..jobs).map(row).collect() }
    }

    fn screen(model: &Model) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 30)).expect("a terminal");
        terminal.draw(|frame| draw(frame, model)).expect("a frame");
        let buffer = terminal.backend().buffer().clone();
        buffer.content.chunks(120).map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn bytes(text: &str, offset: u64) -> LogLine {
        let stream = LogStream::Stdout;
        LogLine::Bytes { attempt: 1, task: 0, stream, offset, text: Some(text.into()), base64: None }
    }

    #[test]
    fn a_screen_shows_nodes_jobs_throughput_and_the_log_of_the_chosen_job() {
        let start = Instant::now();
        let mut model = Model::new(snapshot(start, 3, 0));
        model.choose(1);
        let job = model.chosen().expect("a job").to_owned();
        model.log(&job, bytes("hello\nwor", 0));
        model.log(&job, bytes("world\x1b[2J\n", 6));
        model.look(snapshot(start + Duration::from_secs(2), 3, 50));
        let screen = screen(&model);
        for wanted in ["desk", "make t1", "hello", "world", "25.0 done/s", "log of 00000000", "50 done"] {
            assert!(screen.contains(wanted), "{wanted}\n{screen}");
        }
        assert!(!screen.contains('\x1b') && !screen.contains("worworld"), "{screen}");
    }

    #[test]
    fn the_choice_stays_in_the_list_and_with_its_job() {
        let start = Instant::now();
        let mut model = Model::new(snapshot(start, 3, 0));
        model.choose(isize::MAX);
        assert_eq!(model.chosen_index(), Some(2));
        model.choose(-99);
        assert_eq!(model.chosen_index(), Some(0));
        model.look(snapshot(start, 0, 0));
        model.choose(1);
        assert_eq!(model.chosen_index(), None);
        let _ = screen(&model);
        model.look(snapshot(start, 2, 0));
        assert_eq!(model.chosen_index(), Some(0));
    }

    #[test]
    fn a_tiny_terminal_is_survived() {
        let mut terminal = Terminal::new(TestBackend::new(3, 2)).expect("a terminal");
        let model = Model::new(snapshot(Instant::now(), 1, 0));
        terminal.draw(|frame| draw(frame, &model)).expect("a frame");
    }
}
