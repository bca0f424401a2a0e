//! The line editor: history on disk, completion of commands and file names, pasted text of many lines. Knows the names of
//! the commands and which of them take a file; not what they do.

use std::path::PathBuf;

use anyhow::Context as _;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler, Helper, KeyEvent,
    Movement, RepeatCount,
};

use super::commands::{NAMES, TAKES_FILE};
use crate::{state, terminal};

pub(super) type LineEditor = Editor<Assist, FileHistory>;

const HISTORY_LINES: usize = 512;

pub(super) fn open() -> anyhow::Result<LineEditor> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)
        .context("cannot set up the line editor")?
        .bracketed_paste(true)
        .auto_add_history(false)
        .completion_type(rustyline::CompletionType::List)
        .build();
    let mut editor: LineEditor = Editor::with_config(config).context("cannot set up the line editor")?;
    editor.set_helper(Some(Assist { files: FilenameCompleter::new() }));
    editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(ClearLine)));
    if let Some(path) = history_file() {
        // A first start has no history.
        let _ = editor.load_history(&path);
    }
    Ok(editor)
}

/// Adds a line to the history and saves it at once. A history that cannot be saved is no reason to stop.
pub(super) fn remember(editor: &mut LineEditor, line: &str) {
    let added = !line.trim().is_empty() && editor.add_history_entry(line).unwrap_or(false);
    if let (true, Some(path)) = (added, history_file())
        && let Err(error) = editor.save_history(&path)
    {
        terminal::warn(format_args!("cannot save history: {error}"));
    }
}

fn history_file() -> Option<PathBuf> {
    Some(state::folder()?.join("history"))
}

/// Ctrl+C takes back what was typed; on an empty line it stays the interrupt that leaves.
struct ClearLine;

impl ConditionalEventHandler for ClearLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, ctx: &EventContext<'_>) -> Option<Cmd> {
        if ctx.line().is_empty() { None } else { Some(Cmd::Kill(Movement::WholeBuffer)) }
    }
}

/// What the editor asks while a line is typed.
pub(super) struct Assist {
    files: FilenameCompleter,
}

impl Completer for Assist {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, ctx: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        if let Some((command, _)) = typed.split_once(' ') {
            return if TAKES_FILE.contains(&command) {
                self.files.complete(line, pos, ctx)
            } else {
                Ok((pos, Vec::new()))
            };
        }
        let pair = |name: &&str| Pair { display: (*name).to_owned(), replacement: (*name).to_owned() };
        Ok((
            0,
            if typed.is_empty() {
                Vec::new()
            } else {
                NAMES.iter().filter(|n| n.starts_with(typed)).map(pair).collect()
            },
        ))
    }
}

impl Highlighter for Assist {}

impl Hinter for Assist {
    type Hint = String;
}

impl Validator for Assist {}

impl Helper for Assist {}
