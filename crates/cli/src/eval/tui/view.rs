//! The screen as a function of the run: rows on the left, the selected one on the right, one line of status below.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, List, ListState, Paragraph};
use unicode_width::UnicodeWidthChar;

use crate::eval::board::{self, Board, State};
use crate::eval::report;
use crate::eval::runner::Plan;

/// Columns of the list, where there is room for them.
const LIST_WIDTH: u16 = 34;
/// Characters of a question that are shown.
const QUESTION: usize = 400;

/// Everything that is shown.
pub(super) struct View<'a> {
    pub(super) plan: &'a Plan,
    pub(super) board: &'a Board,
    pub(super) selected: usize,
    pub(super) tokens: u64,
    /// Tokens a second.
    pub(super) speed: f64,
    pub(super) elapsed: Duration,
    pub(super) paused: bool,
    pub(super) stopping: bool,
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &View<'_>) {
    let [main, status] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    let list_width = LIST_WIDTH.min(main.width * 2 / 5);
    let [left, right] = Layout::horizontal([Constraint::Length(list_width), Constraint::Min(0)]).areas(main);
    list(frame, left, view);
    detail(frame, right, view);
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(status_line(view)).style(style), status);
}

fn list(frame: &mut Frame<'_>, area: Rect, view: &View<'_>) {
    let runs = view.plan.rows.last().map_or(1, |row| row.run + 1);
    let items = view.board.lines.iter().enumerate().map(|(row, line)| {
        let id = plain(&view.plan.case(row).id);
        let run = if runs > 1 { format!(" ({})", view.plan.rows[row].run + 1) } else { String::new() };
        let (mark, style) = mark(line.state);
        Line::from(vec![Span::styled(format!("{mark} {:<10} ", line.state.name()), style), Span::raw(id + &run)])
    });
    let title = format!("{} of {} passed", view.board.passed(), view.board.lines.len());
    let list = List::new(items)
        .block(Block::new().borders(Borders::RIGHT).title(title))
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(list, area, &mut ListState::default().with_selected(Some(view.selected)));
}

fn mark(state: State) -> (char, Style) {
    let colour = |colour| Style::new().fg(colour);
    match state {
        State::Pending => (' ', Style::new()),
        State::Prefill | State::Thinking | State::Answering => ('>', colour(Color::Yellow)),
        State::Passed => ('+', colour(Color::Green)),
        State::Failed | State::Incomplete | State::Broken => ('-', colour(Color::Red)),
        State::Stopped => ('.', Style::new().add_modifier(Modifier::DIM)),
    }
}

fn detail(frame: &mut Frame<'_>, area: Rect, view: &View<'_>) {
    let (case, line) = (view.plan.case(view.selected), &view.board.lines[view.selected]);
    let block = Block::new().title(format!(" {}: {} ", plain(&case.suite), plain(&case.id)));
    let inside = block.inner(area);
    let width = inside.width as usize;
    let height = inside.height as usize;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut pieces = vec![(bold, question(case.asked())), (Style::new(), "\n".to_owned())];
    if line.state == State::Prefill {
        pieces.push((Style::new(), format!("processing {} of {} tokens", line.prefill.0, line.prefill.1)));
    }
    for (reasoning, text) in &line.drawn {
        let style = if *reasoning { Style::new().add_modifier(Modifier::DIM) } else { Style::new() };
        // More than fits is not looked at.
        pieces.push((style, tail(text, (width + 1) * (height + 1)).to_owned()));
        if *reasoning {
            pieces.push((style, "\n".to_owned()));
        }
    }
    if let Some(attempt) = &line.attempt {
        pieces.push((bold, verdict(case, line.state, attempt)));
    }
    let lines = wrap(&pieces, width.max(1));
    let from = lines.len().saturating_sub(height);
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(lines[from..].to_vec()), inside);
}

fn verdict(case: &crate::eval::case::Case, state: State, attempt: &board::Attempt) -> String {
    let given = attempt.verdict.as_ref().map_or("", |verdict| verdict.given.as_str());
    let why = attempt.error.as_deref().unwrap_or(given);
    let (tokens, seconds) = (attempt.generated, attempt.seconds);
    let expected = case.expect.correct();
    format!("\n\n{}: {tokens} tokens, {seconds:.1} s\ngiven:    {why}\nexpected: {expected}", state.name())
}

/// The end of a long question is what is asked.
fn question(text: &str) -> String {
    let shown = tail(text, QUESTION);
    if shown.len() < text.len() { format!("…{shown}") } else { shown.to_owned() }
}

/// The last `chars` characters.
fn tail(text: &str, chars: usize) -> &str {
    let at = text.char_indices().rev().nth(chars.saturating_sub(1)).map_or(0, |(at, _)| at);
    &text[at..]
}

/// Text that moves no cursor and changes no colour.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Styled text cut into lines of at most `width` columns.
fn wrap(pieces: &[(Style, String)], width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default()];
    let mut used = 0;
    for (style, text) in pieces {
        let mut run = String::new();
        for c in text.chars() {
            let c = if c.is_control() && c != '\n' { ' ' } else { c };
            let columns = c.width().unwrap_or(0);
            if c == '\n' || used + columns > width {
                push(&mut lines, *style, &mut run);
                lines.push(Line::default());
                used = 0;
            }
            if c != '\n' {
                run.push(c);
                used += columns;
            }
        }
        push(&mut lines, *style, &mut run);
    }
    lines
}

fn push(lines: &mut [Line<'static>], style: Style, run: &mut String) {
    if let (Some(line), false) = (lines.last_mut(), run.is_empty()) {
        line.push_span(Span::styled(std::mem::take(run), style));
    }
}

fn status_line(view: &View<'_>) -> String {
    let done = view.board.lines.iter().filter(|line| line.attempt.is_some()).count();
    let mode = match (view.stopping, view.paused) {
        (true, _) => " stopping ",
        (false, true) => " paused ",
        (false, false) => "",
    };
    format!(
        " {done}/{} done, {} failed | {} tokens {:.1} t/s | {} {mode}| Enter next  p pause  s skip  q stop",
        view.board.lines.len(),
        view.board.failed(),
        view.tokens,
        view.speed,
        report::clock(view.elapsed),
    )
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::eval::board::Update;
    use crate::eval::options::{Asked, parse};
    use crate::eval::{case, runner::Plan};

    fn plan() -> Plan {
        let lines: Vec<String> = (0..40)
            .map(|i| format!(r#"{{"id": "q{i:02}", "kind": "integer", "question": "How many? {i}", "answer": {i}}}"#))
            .collect();
        let cases = case::read(&lines.join("\n"), "sums").expect("cases");
        let Asked::Run(run) = parse([].into_iter()).expect("options") else { panic!("a run") };
        let tokenizer = crate::embedded::published_tokenizer().expect("a tokenizer");
        Plan::new(cases, 1, run.settings, &tokenizer).expect("a plan")
    }

    /// The screen's rows, and whether a cell is dim.
    fn drawn(plan: &Plan, board: &Board, selected: usize, size: (u16, u16)) -> (Vec<String>, Vec<Vec<bool>>) {
        let view = View {
            plan,
            board,
            selected,
            tokens: 1234,
            speed: 45.6,
            elapsed: Duration::from_secs(83),
            paused: true,
            stopping: false,
        };
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &view)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let cell = |x, y| &buffer[(x, y)];
        let rows = (0..size.1).map(|y| (0..size.0).map(|x| cell(x, y).symbol()).collect()).collect();
        let dim = |x, y| cell(x, y).modifier.contains(Modifier::DIM);
        (rows, (0..size.1).map(|y| (0..size.0).map(|x| dim(x, y)).collect()).collect())
    }

    #[test]
    fn states_thinking_answers_and_status_are_on_the_screen() {
        let plan = plan();
        let mut board = Board::new(plan.rows.len());
        board.lines[0].state = State::Passed;
        board.lines[1].state = State::Failed;
        let token = |reasoning, text: &str| Update::Token { row: 2, reasoning, text: text.to_owned() };
        board.apply(Update::Prefill { row: 2, done: 5, total: 9 });
        let (rows, _) = drawn(&plan, &board, 2, (90, 12));
        assert!(rows.iter().any(|row| row.contains("processing 5 of 9 tokens")), "{rows:#?}");
        board.apply(token(true, "let me see\x1b[2J"));
        board.apply(token(false, "it is 2"));
        let (rows, dim) = drawn(&plan, &board, 2, (90, 12));
        assert!(rows[0].starts_with("1 of 40 passed") && rows[0].contains(" sums: q02 "), "{rows:#?}");
        for (row, text) in [(1, "+ passed"), (2, "- failed"), (3, "> answering"), (4, "  pending")] {
            assert!(rows[row].starts_with(text), "{rows:#?}");
        }
        let find = |text: &str| {
            let y = rows.iter().position(|row| row.contains(text)).unwrap_or_else(|| panic!("{text}: {rows:#?}"));
            let x = rows[y][..rows[y].find(text).expect("found")].chars().count();
            dim[y][x]
        };
        assert!(find("let me see [2J") && !find("it is 2") && !find("How many? 2"));
        let status = &rows[11];
        assert!(status.contains("1 failed | 1234 tokens 45.6 t/s | 00:01:23  paused |"), "{status}");
    }

    #[test]
    fn the_selected_row_is_in_sight_and_any_size_can_be_drawn() {
        let plan = plan();
        let mut board = Board::new(plan.rows.len());
        let (rows, _) = drawn(&plan, &board, 39, (60, 8));
        assert!(rows.iter().any(|row| row.contains("q39")) && !rows.iter().any(|row| row.contains("q00")), "{rows:#?}");
        board.apply(Update::Prefill { row: 0, done: 0, total: 1 });
        for n in 0..300 {
            board.apply(Update::Token { row: 0, reasoning: n % 7 == 0, text: format!("wörd{n} 漢字\t") });
        }
        let (rows, _) = drawn(&plan, &board, 0, (100, 20));
        assert!(rows.iter().any(|row| row.contains("wörd299")), "the end of a long text is shown: {rows:#?}");
        for size in [(1, 1), (2, 2), (5, 1), (1, 9), (20, 3), (40, 10), (300, 80)] {
            drawn(&plan, &board, 0, size);
        }
    }

    #[test]
    fn lines_are_as_wide_as_the_pane_at_most() {
        let lines = wrap(&[(Style::new(), "abcdef\ng漢字".to_owned())], 4);
        let texts: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["abcd", "ef", "g漢", "字"]);
        assert_eq!(tail("añb", 2), "ñb");
        assert_eq!(tail("ab", 9), "ab");
    }
}
