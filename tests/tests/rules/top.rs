//! `workhall top`, in a terminal: what stands on the screen, what keys do, and how the terminal is given back.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workhall_tests::harness::{ANY_NAME, Supervisor, bin_dir, is_root, lives, output, text, until};

use super::logs;

/// Any user's, and no worker's.
const DAEMON: u32 = 1;

/// A terminal of 80 by 24 with a shell in it, by a tmux of its own.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// `None`, having said so, where there is no tmux.
    fn open(supervisor: &Supervisor, variables: &[(&str, &str)]) -> Option<Terminal> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: no tmux");
            return None;
        }
        let terminal = Terminal { socket: text(&supervisor.path("tmux")).to_string() };
        let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap());
        let mut shell =
            vec!["env".to_string(), "-u".into(), "NO_COLOR".into(), "PS1=$ ".into(), format!("PATH={path}")];
        shell.push(format!("WORKHALL_SOCKET={}", text(supervisor.socket())));
        shell.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        shell.push("sh".into());
        let shell: Vec<&str> = shell.iter().map(String::as_str).collect();
        terminal.tmux(&[&["new-session", "-d", "-x", "80", "-y", "24"], &*shell].concat());
        Some(terminal)
    }

    /// The same, with `workhall top` in it and its list on the screen.
    fn top(supervisor: &Supervisor, args: &str) -> Option<Terminal> {
        let terminal = Terminal::open(supervisor, &[])?;
        terminal.line(&format!("workhall top {args}"));
        terminal.until("the list is there", |screen| screen.starts_with("workhall ") && screen.contains("NAME"));
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(args).env_remove("TMUX");
        output(&mut command).ok().out
    }

    /// Types a line.
    fn line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    /// Presses keys, by their names.
    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.screen();
                condition(&last)
            });
        }));
        assert!(seen.is_ok(), "waited in vain until {what}; the screen:\n{last}");
    }

    #[track_caller]
    fn shows(&self, part: &str) {
        self.until(part, |screen| screen.contains(part));
    }

    /// A line begins so, names a worker with its number, and goes on so.
    #[track_caller]
    fn answers(&self, act: &str, what: &str) {
        self.until(what, |screen| {
            screen.lines().any(|line| line.contains(&format!("{act} (%")) && line.contains(what))
        });
    }

    /// Waits until `workhall top` has ended with this status, and the shell has its terminal as it was.
    #[track_caller]
    fn ended(&self, status: &str) {
        self.until("the shell asks", |screen| screen.trim_end().ends_with('$'));
        self.line("echo ended $?; stty -a");
        self.shows(&format!("ended {status}"));
        self.until("the terminal is as it was", |screen| {
            screen.contains(" icanon ") && screen.contains(" echo ") && !screen.contains("? help")
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let pids = self.tmux(&["display-message", "-p", "#{pid} #{pane_pid}"]);
        let mut pids: Vec<i32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        // What the shell has started hears of the end too.
        let children = format!("/proc/{0}/task/{0}/children", pids[1]);
        let children = std::fs::read_to_string(children).unwrap_or_default();
        pids.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        self.tmux(&["kill-server"]);
        until("all of the terminal has ended", || pids.iter().all(|pid| !lives(*pid)));
    }
}

/// The line of a worker in the list, in words.
fn row<'a>(screen: &'a str, name: &str) -> Vec<&'a str> {
    let rows = screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.skip(4).find(|row| row.first() == Some(&name)).unwrap_or_default()
}

/// Which of these workers stand in the list, in its order.
fn order(screen: &str, names: &[&str]) -> Vec<String> {
    let first = screen.lines().skip(4).filter_map(|line| line.split_whitespace().next());
    first.filter(|word| names.contains(word)).map(str::to_string).collect()
}

fn pid(supervisor: &Supervisor, worker: &str) -> i64 {
    supervisor.ps(worker)["pid"].as_i64().unwrap()
}

fn process_state(pid: i64) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[test]
fn the_list_is_sorted_filtered_explained_and_left_as_it_was_found() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let Some(terminal) = Terminal::open(&supervisor, &[]) else { return };
    supervisor.call(&["a", "count"]);
    let held = supervisor.hold("b");
    for _ in 0..3 {
        supervisor.cli(&["call", "b", "count"]).ok();
    }
    supervisor.cli(&["call", "c", "exit", "4", "--wait"]).fails(6, &["crashed"]);
    terminal.line("echo before");
    terminal.line("workhall top -d 0.1");
    // NAME STATE DEPTH AGE RATE CRASHES CPU MEM
    terminal.until("all are there, with what they use", |screen| {
        let (a, b, c) = (row(screen, "a"), row(screen, "b"), row(screen, "c"));
        a.len() == 9
            && (a[1], a[2], a[3]) == ("idle", "0", "-")
            && a[6].ends_with('%')
            && a[8] == "MiB"
            && b.len() == 9
            && (b[1], b[2], b[5]) == ("busy", "3", "0")
            && b[3].ends_with('s')
            && c.len() >= 8
            && c[5] == "1"
    });
    let screen = terminal.screen();
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert_eq!(order(&screen, &["a", "b", "c"]), ["a", "b", "c"]);
    assert!(screen.contains("accepted 6 (") && screen.contains("dead 1 (1 kept)"), "{screen}");
    terminal.keys(&["s", "s"]);
    terminal.until("most pending first", |screen| {
        screen.contains("DEPTH\u{25be}") && order(screen, &["a", "b", "c"]) == ["b", "a", "c"]
    });
    terminal.keys(&["<", "<", "S"]);
    terminal.until("by name, backwards", |screen| {
        screen.contains("NAME\u{25b4}") && order(screen, &["a", "b", "c"]) == ["c", "b", "a"]
    });
    supervisor.call(&["led/eu", "count"]);
    supervisor.call(&["led/us", "count"]);
    terminal.keys(&["/", "l", "e", "d"]);
    terminal.until("only those", |screen| {
        screen.contains("filter: led_") && order(screen, &["a", "b", "c", "led/eu", "led/us"]) == ["led/us", "led/eu"]
    });
    terminal.keys(&["/", "*", "Enter"]);
    terminal.until("a pattern", |screen| screen.contains("filter: led/*") && row(screen, "led/eu").len() == 9);
    terminal.keys(&["Escape"]);
    terminal.until("all again", |screen| order(screen, &["a", "b", "c"]) == ["c", "b", "a"]);
    terminal.keys(&["?"]);
    terminal.shows("any key closes this");
    terminal.shows("post its dead letters again");
    terminal.keys(&["x"]);
    terminal.until("it is closed", |screen| !screen.contains("any key closes this"));
    terminal.tmux(&["resize-window", "-x", "110", "-y", "12"]);
    terminal.until("the class has room", |screen| {
        screen.lines().count() == 12 && screen.contains("CLASS") && row(screen, "a").last() == Some(&"any")
    });
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    terminal.until("and has not", |screen| screen.contains("MEM") && !screen.contains("CLASS"));
    terminal.keys(&["q"]);
    terminal.shows("before");
    terminal.ended("0");
    held.release();
}

#[test]
fn one_worker_has_its_events_exits_log_and_dead_letters() {
    let mut supervisor = logs::supervisor("");
    let Some(terminal) = Terminal::top(&supervisor, "-d 100ms") else { return };
    supervisor.call(&["w/1", "sh", "printf 'first\\033[2J\\n'; echo second >&2"]);
    supervisor.call(&["other", "sh", ":"]);
    supervisor.cli(&["call", "w/1", "run", "os._exit(4)", "--wait"]).fails(6, &["crashed"]);
    terminal.until("it is there", |screen| !row(screen, "w/1").is_empty());
    terminal.keys(&["/", "w", "/", "Enter"]);
    terminal.until("it is selected", |screen| order(screen, &["w/1", "other"]) == ["w/1"]);
    terminal.keys(&["Enter"]);
    terminal.shows("1 overview");
    terminal.shows("worker.py");
    terminal.shows("1, 1 in a row");
    terminal.keys(&["2"]);
    terminal.shows("exited, exit status 4");
    terminal.shows("it may have run in");
    terminal.keys(&["Tab"]);
    terminal.shows("generation 1, ");
    terminal.keys(&["Tab"]);
    // What would command the terminal is shown and does nothing.
    terminal.shows("out| first\\x1b[2J");
    terminal.shows("err| second");
    terminal.keys(&["5"]);
    terminal.shows("crashed, exit status 4");
    // They are posted again from here, and die again, each as another message.
    let first = supervisor.cli(&["dead", "list", "--json"]).ok().json()[0]["message"].as_u64().unwrap();
    terminal.keys(&["R"]);
    terminal.shows("Posts its dead letter again");
    terminal.keys(&["n"]);
    terminal.until("it is closed", |screen| !screen.contains("y: do it"));
    terminal.keys(&["R", "y"]);
    terminal.answers("requeue w/1", "1 message posted again");
    supervisor.cli(&["resume", "w/1"]).ok();
    supervisor.until("it is dead again", |this| {
        let letters = this.cli(&["dead", "list", "--json"]).ok().json();
        letters.as_array().is_some_and(|list| list.len() == 1) && letters[0]["message"].as_u64() > Some(first)
    });
    let again = supervisor.cli(&["dead", "list", "--json"]).ok().json()[0]["message"].to_string();
    terminal.until("it is on the screen", |screen| screen.lines().any(|line| line.starts_with(&again)));
    terminal.keys(&["Escape"]);
    terminal.shows("NAME");
    terminal.keys(&["q"]);
    terminal.ended("0");
}

#[test]
fn a_kill_is_done_when_it_is_confirmed_and_says_what_it_does() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let Some(terminal) = Terminal::top(&supervisor, "-d 100ms") else { return };
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    terminal.until("it is there", |screen| row(screen, "a").get(2) == Some(&"1"));
    let before = supervisor.ps("a");
    terminal.keys(&["K"]);
    terminal.answers("Kill a", "how?");
    terminal.keys(&["n"]);
    terminal.shows("1 pending message is discarded; the");
    terminal.keys(&["n"]);
    terminal.until("it is closed", |screen| !screen.contains("y: do it"));
    terminal.keys(&["K", "Escape", "K", "d", "x", "Escape"]);
    terminal.until("it is closed", |screen| !screen.contains("y: do it") && !screen.contains("how?"));
    let now = supervisor.ps("a");
    assert_eq!((&now["pid"], &now["state"], &now["pending"]), (&before["pid"], &before["state"], &before["pending"]));
    terminal.keys(&["K", "a"]);
    terminal.shows("it ends after");
    terminal.keys(&["y"]);
    terminal.answers("kill a", "it ends; 1 message discarded");
    terminal.until("it is seen", |screen| row(screen, "a").get(1) == Some(&"ending"));
    assert_eq!(supervisor.ledger("discarded"), 1);
    terminal.keys(&["K", "n", "y"]);
    terminal.answers("kill at once a", "it ends");
    terminal.until("it is gone", |screen| row(screen, "a").is_empty());
    assert!(!held.has_ended() && !lives(before["pid"].as_i64().unwrap() as i32));
    // A drain executes what is pending.
    let held = supervisor.hold("d");
    supervisor.cli(&["call", "d", "count"]).ok();
    terminal.until("it is there", |screen| row(screen, "d").get(2) == Some(&"1"));
    terminal.keys(&["K", "d"]);
    terminal.shows("It executes the 1 message that wait");
    terminal.keys(&["y"]);
    terminal.answers("drain d", "it ends");
    let done = supervisor.ledger("done");
    held.release();
    terminal.until("it is gone", |screen| row(screen, "d").is_empty());
    assert_eq!(supervisor.ledger("done"), done + 2);
}

#[test]
fn p04_a_worker_is_paused_and_resumed_from_the_screen() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let Some(terminal) = Terminal::top(&supervisor, "-d 100ms") else { return };
    supervisor.call(&["a", "count"]);
    let process = pid(&supervisor, "a");
    terminal.until("it is there", |screen| !row(screen, "a").is_empty());
    terminal.keys(&["p"]);
    terminal.shows(&format!("Its process {process} stops"));
    assert_eq!(process_state(process), Some('S'));
    terminal.keys(&["y"]);
    terminal.answers("pause a", "it is paused");
    supervisor.until("it is stopped", |_| process_state(process) == Some('T'));
    terminal.until("it is seen", |screen| row(screen, "a").get(1) == Some(&"paused"));
    terminal.keys(&["Enter"]);
    terminal.shows("by an operator");
    terminal.keys(&["r"]);
    terminal.shows("goes on where it was");
    terminal.keys(&["y"]);
    terminal.answers("resume a", "it goes on");
    supervisor.until("it goes on", |_| process_state(process) == Some('S'));
    assert_eq!(supervisor.call(&["a", "count"]), 2);
}

#[test]
fn a_supervisor_that_does_not_answer_or_dies_holds_up_no_key_and_comes_back() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let Some(terminal) = Terminal::top(&supervisor, "-d 100ms") else { return };
    supervisor.call(&["old", "count"]);
    terminal.until("it is there", |screen| !row(screen, "old").is_empty());
    supervisor.signal(Signal::SIGSTOP);
    terminal.shows("no answer since ");
    terminal.keys(&["?"]);
    terminal.shows("any key closes this");
    terminal.keys(&["Escape"]);
    supervisor.signal(Signal::SIGCONT);
    terminal.until("it answers", |screen| screen.starts_with("workhall ") && !row(screen, "old").is_empty());
    let old = supervisor.ps("old")["number"].clone();
    // Asked of this one, and answered by nobody: it is not done to the next one's worker of that number.
    supervisor.signal(Signal::SIGSTOP);
    terminal.shows("no answer since ");
    terminal.keys(&["p"]);
    terminal.answers("Pause old", "?");
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    terminal.until("it is missed", |screen| screen.starts_with("no supervisor at "));
    terminal.keys(&["y"]);
    terminal.shows("nothing was done, another supervisor is here now");
    supervisor.restart();
    supervisor.call(&["new", "count"]);
    terminal.until("the new one is there", |screen| {
        screen.starts_with("workhall ") && row(screen, "old").is_empty() && !row(screen, "new").is_empty()
    });
    let new = supervisor.ps("new");
    assert!(new["number"] == old && new["paused_ms"].is_null(), "{new}");
    terminal.keys(&["K", "a", "y"]);
    terminal.answers("kill new", "it ends");
    terminal.keys(&["q"]);
    terminal.ended("0");
}

/// The process of `workhall top`.
fn top_of(terminal: &Terminal) -> Pid {
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().to_string();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

#[test]
fn signals_give_the_terminal_back() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let Some(terminal) = Terminal::top(&supervisor, "") else { return };
    for (signal, status) in [(Signal::SIGTERM, "143"), (Signal::SIGINT, "130")] {
        kill(top_of(&terminal), signal).unwrap();
        terminal.until("the screen is the shell's", |screen| !screen.contains("? help"));
        terminal.ended(status);
        terminal.line("clear; workhall top");
        terminal.shows("? help");
    }
    // Stopped as a job it leaves the terminal to the shell, and has it again.
    terminal.keys(&["C-z"]);
    terminal.until("the screen is the shell's", |screen| !screen.contains("? help"));
    terminal.line("stty -a | grep -o ' icanon '; fg");
    terminal.shows("? help");
    kill(top_of(&terminal), Signal::SIGTSTP).unwrap();
    terminal.until("the screen is the shell's", |screen| !screen.contains("? help"));
    terminal.shows(" icanon");
    terminal.line("clear; fg");
    terminal.shows("? help");
    terminal.keys(&["?"]);
    terminal.shows("any key closes this");
    terminal.keys(&["C-c"]);
    terminal.until("the screen is the shell's", |screen| !screen.contains("closes this"));
    terminal.ended("0");
}

#[test]
fn what_is_refused_is_said_on_the_screen() {
    if !is_root() {
        return println!("skipped: only root can become another user");
    }
    let supervisor = Supervisor::with_config(
        "[supervisor]\nsocket_mode = '0666'\nkill = {}\n[class.a]\nexec = ['{bin}/test-worker', '1']\n",
    );
    supervisor.open_to_others();
    let Some(terminal) = Terminal::open(&supervisor, &[]) else { return };
    supervisor.call(&["a", "count"]);
    let process = pid(&supervisor, "a");
    let program = supervisor.path("workhall");
    let user = format!("setpriv --reuid {DAEMON} --regid {DAEMON} --clear-groups --");
    terminal.line(&format!("{user} {} top -d 100ms", text(&program)));
    terminal.until("it is there", |screen| !row(screen, "a").is_empty());
    for keys in [["K", "n", "y"], ["p", "", "y"]] {
        terminal.keys(&keys.map(|key| if key.is_empty() { "x" } else { key }));
        terminal.shows("refused: not_permitted");
        terminal.keys(&["Escape"]);
        terminal.until("it was read", |screen| !screen.contains("not_permitted"));
    }
    terminal.keys(&["Enter", "4"]);
    terminal.shows("not_permitted");
    assert_eq!((pid(&supervisor, "a"), process_state(process)), (process, Some('S')));
}

#[test]
fn colours_are_left_out_under_no_color() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let held = supervisor.hold("b");
    let coloured = |terminal: &Terminal| {
        let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
        // Green, as the terminal was told it.
        ["\u{1b}[32m", "\u{1b}[38;5;2m"].iter().any(|green| screen.contains(&format!("{green}busy")))
    };
    for (value, colours) in [("", true), ("1", false)] {
        let Some(terminal) = Terminal::open(&supervisor, &[("NO_COLOR", value)]) else { return };
        terminal.line("workhall top -d 100ms");
        terminal.until("it is there", |screen| row(screen, "b").get(1) == Some(&"busy"));
        // The selected row is drawn the other way round: that is another.
        supervisor.call(&["zz", "count"]);
        terminal.until("another is there", |screen| !row(screen, "zz").is_empty());
        terminal.keys(&["G"]);
        terminal.shows("2 of 2");
        assert_eq!(coloured(&terminal), colours, "{}", terminal.tmux(&["capture-pane", "-p", "-e"]));
    }
    held.release();
}

#[test]
fn without_a_terminal_or_a_supervisor_it_says_so_at_once() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.cli(&["top"]).fails(2, &["needs a terminal", "workhall ps --json"]);
    supervisor.cli(&["top", "-d", "0"]).fails(2, &["from 100ms to 1h"]);
    supervisor.cli(&["top", "-d", "2h"]).fails(2, &["from 100ms to 1h"]);
    supervisor.cli(&["top", "--sort", "size"]).fails(2, &["memory"]);
    let help = supervisor.cli(&["top", "--help"]).ok().out;
    assert!(help.contains("Examples:") && help.contains("workhall top -d 5s --sort depth"), "{help}");
    let Some(terminal) = Terminal::open(&supervisor, &[]) else { return };
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    terminal.line("workhall top; echo ended $?");
    terminal.shows("ended 4");
    terminal.shows("nobody listens");
    terminal.line("clear; TERM=dumb workhall top; echo ended $?");
    terminal.shows("ended 2");
}
