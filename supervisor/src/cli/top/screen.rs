//! The terminal: taken, and given back as it was, however this ends.

use std::io::{self, Stdout, Write as _, stdout};
use std::panic;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::consts::SIGTSTP;

use super::app::App;
use super::view::{self, Theme};

/// A terminal in raw mode, with another screen than the shell's.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
    /// It is the shell's at the moment.
    away: bool,
}

impl Screen {
    /// Takes the terminal. A panic, of any thread, gives it back, is printed, and ends the program.
    pub fn enter() -> io::Result<Screen> {
        let printed = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let _the_terminal_is_gone_too = give_back();
            printed(panic);
            std::process::exit(101);
        }));
        take()?;
        match Terminal::new(CrosstermBackend::new(stdout())) {
            Ok(terminal) => Ok(Screen { terminal, theme: Theme::of_environment(), away: false }),
            Err(error) => {
                give_back()?;
                Err(error)
            }
        }
    }

    /// Draws what has changed.
    pub fn draw(&mut self, app: &mut App) -> io::Result<()> {
        if self.away {
            return Ok(());
        }
        self.terminal.draw(|frame| view::draw(frame, app, self.theme)).map(drop)
    }

    /// Gives the terminal to the shell and stops, until somebody continues this process.
    pub fn stop(&mut self) -> io::Result<()> {
        self.leave()?;
        signal_hook::low_level::emulate_default_handler(SIGTSTP)
    }

    /// Takes the terminal again, and draws all of it.
    pub fn come_back(&mut self) -> io::Result<()> {
        take()?;
        self.away = false;
        execute!(stdout(), Clear(ClearType::All))?;
        // One that knows nothing of what was drawn. (The old one's `clear` would ask the terminal where its cursor is,
        // and that answer would have to be read by the thread that reads keys.)
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }

    /// Gives the terminal back.
    pub fn leave(&mut self) -> io::Result<()> {
        self.away = true;
        give_back()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.away {
            let _the_terminal_is_gone_too = give_back();
        }
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

fn give_back() -> io::Result<()> {
    let raw = disable_raw_mode();
    execute!(stdout(), LeaveAlternateScreen, Show)?;
    stdout().flush()?;
    raw
}
