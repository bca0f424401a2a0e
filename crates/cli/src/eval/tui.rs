//! The screen of an evaluation: taking and giving back the terminal, keys, and when to draw. What is drawn is `view`'s; what
//! the keys do to the run is `Control`'s.

mod view;

use std::collections::VecDeque;
use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::Context;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal as screen};

use super::board::{State, Update};
use super::{Ending, Scene};
use crate::failure::leave;
use crate::interrupt::Interrupt;
use crate::terminal;
use view::View;

/// How long to wait for a key before looking for news.
const FRAME: Duration = Duration::from_millis(60);
/// Speed is that of the last seconds.
const SPEED_OVER: Duration = Duration::from_secs(3);

/// The terminal while the run has it. Gives it back when dropped.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn take() -> anyhow::Result<Self> {
        restore_after_panics();
        screen::enable_raw_mode().context("cannot use the terminal")?;
        terminal::screen_taken(true);
        let taken = execute!(io::stdout(), screen::EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                terminal::leave_screen();
                Err(error).context("cannot use the terminal")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        terminal::leave_screen();
    }
}

/// A panic's message belongs on the user's screen, not on one that vanishes.
fn restore_after_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            terminal::leave_screen();
            before(panic);
        }));
    });
}

/// Shows the run until it ends.
pub(super) fn follow(scene: &mut Scene<'_>, news: &Receiver<Update>, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut screen = Screen::take()?;
    let mut desk = Desk { selected: 0, pinned: false, speeds: VecDeque::new(), ending: Ending::Done };
    loop {
        let over = Desk::read(scene, news)?;
        desk.follow_running(scene);
        let view = desk.view(scene);
        screen.0.draw(|frame| view::draw(frame, &view)).context("cannot draw")?;
        if over {
            return Ok(desk.ending);
        }
        if interrupt.requested() {
            desk.stop(scene, Ending::Interrupted);
        }
        if event::poll(FRAME).context("cannot read keys")?
            && let Event::Key(key) = event::read().context("cannot read keys")?
        {
            desk.key(scene, key);
        }
    }
}

/// What the user does and sees, beside the board.
struct Desk {
    selected: usize,
    /// The user chose what to look at; otherwise the screen follows what runs.
    pinned: bool,
    /// Running time and tokens drawn by then.
    speeds: VecDeque<(Duration, u64)>,
    ending: Ending,
}

impl Desk {
    /// Takes in all news there is. Whether no more can come.
    fn read(scene: &mut Scene<'_>, news: &Receiver<Update>) -> anyhow::Result<bool> {
        loop {
            match news.try_recv() {
                Ok(update) => scene.take(update)?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Ok(true),
            }
        }
    }

    fn follow_running(&mut self, scene: &Scene<'_>) {
        let running = |row: &usize| scene.board.lines[*row].state.is_running();
        if self.pinned && running(&self.selected) {
            self.pinned = false;
        }
        if !self.pinned && !running(&self.selected) {
            let first = (0..scene.board.lines.len()).find(running);
            self.selected = first.unwrap_or(self.selected);
        }
    }

    fn view<'a>(&mut self, scene: &'a Scene<'_>) -> View<'a> {
        let now = scene.control.gate.elapsed();
        let tokens = scene.board.lines.iter().map(|line| u64::from(line.generated)).sum();
        self.speeds.push_back((now, tokens));
        while self.speeds.len() > 2 && now.saturating_sub(self.speeds[0].0) > SPEED_OVER {
            self.speeds.pop_front();
        }
        let (then, before) = self.speeds[0];
        let seconds = now.saturating_sub(then).as_secs_f64();
        // A second attempt begins to count anew.
        let speed = if seconds > 0.0 { tokens.saturating_sub(before) as f64 / seconds } else { 0.0 };
        View {
            plan: scene.plan,
            board: &scene.board,
            selected: self.selected,
            tokens,
            speed,
            elapsed: now,
            paused: scene.control.gate.is_paused(),
            stopping: self.ending != Ending::Done,
        }
    }

    fn key(&mut self, scene: &mut Scene<'_>, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control && self.ending != Ending::Done => {
                terminal::leave_screen();
                leave(130);
            }
            KeyCode::Char('c') if control => self.stop(scene, Ending::Stopped),
            KeyCode::Char('q') => self.stop(scene, Ending::Stopped),
            KeyCode::Up => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down => self.select((self.selected + 1).min(scene.board.lines.len() - 1)),
            KeyCode::Enter => scene.control.hurry(self.selected),
            KeyCode::Char('p') if self.ending == Ending::Done => scene.control.gate.toggle(),
            // What runs reports its end itself.
            KeyCode::Char('s') if scene.control.skip(self.selected) => {
                scene.board.lines[self.selected].state = State::Stopped;
            }
            _ => {}
        }
    }

    fn select(&mut self, row: usize) {
        (self.selected, self.pinned) = (row, true);
    }

    fn stop(&mut self, scene: &Scene<'_>, ending: Ending) {
        if self.ending == Ending::Done {
            self.ending = ending;
        }
        scene.control.stop();
    }
}
