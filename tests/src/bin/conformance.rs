//! `conformance -- PROGRAM ARGS…`: whether a worker in whatever language speaks as `protocol/PROTOCOL.md` says.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use workhall_tests::conformance::{Line, METHODS, Options, Verdict, as_parent, is_part_of_a_name, run};

const USAGE: &str = "usage: conformance [--json] [--only PART]… [--skip PART]… [--patience SECONDS] -- PROGRAM [ARG…]

Plays supervisor against a worker of your own and checks every message of protocol/PROTOCOL.md that it hears and
says, happy and hostile. The program is started for each check as the supervisor starts it; its first byte decides
the encoding. One line per check; of one that failed follow the reason, the conversation, and what the program wrote.

For the checks of attached workers it is started without WORKHALL_FD and with CONFORMANCE_ATTACH, a name: as this it is to
attach at WORKHALL_SOCKET, and to end with its connection. Who ends by itself and does not connect does not offer it; they are
skipped. They fail for who does neither, or is ended by a signal.

  --only PART       only checks whose name holds PART
  --skip PART       no checks whose name holds PART: a limit of your library that you know; said in the output
  --patience S      how long an answer or an end may take, in seconds (20)
  --json            one JSON object per check, then one about the worker

Exit status: 0 all checks passed; 1 one failed; 2 wrong usage; 3 all that could be checked passed, but some were
skipped because the worker lacks a method (those that its encoding or its window rule out, or that it does not attach, do
not count).

The worker needs these methods, under these names. What it lacks, it leaves unchecked: what its error of an unknown method does
not list; of one that lists none, what it answers with that same error.
";

const RECEIPTS: &str = "
A receipt as a text: `accepted`, `ignored REASON`, `refused REASON`, `killed N`; an `error` fails the method.
";

fn usage() -> String {
    let width = METHODS.iter().map(|(method, _)| method.len()).max().unwrap_or(0);
    let methods: String = METHODS.iter().map(|(method, does)| format!("  {method:width$}  {does}\n")).collect();
    format!("{USAGE}{methods}{RECEIPTS}")
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "--as-parent").is_some() {
        let Err(error) = as_parent(args) else { unreachable!("it waits to be killed") };
        eprintln!("conformance: {error}");
        return ExitCode::from(2);
    }
    let (options, json) = match options(args) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", usage());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("conformance: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    let mut counts = Counts::default();
    let profile = run(&options, |line| {
        counts.add(&line.verdict);
        if json {
            say(&serde_json::to_string(line).expect("a line of the report is JSON"));
        } else {
            say(&for_people(line));
        }
    });
    let profile = match profile {
        Ok(profile) => profile,
        Err(error) => {
            eprintln!("conformance: {error}");
            return ExitCode::FAILURE;
        }
    };
    if json {
        say(&serde_json::json!({ "worker": profile, "passed": counts.passed, "failed": counts.failed, "skipped": counts.skipped }).to_string());
    } else {
        say(&format!(
            "{} passed, {} failed, {} skipped; {}, window {}, {}, {}",
            counts.passed,
            counts.failed,
            counts.skipped,
            profile.encoding,
            profile.window,
            if profile.marks { "keeps the mark page" } else { "keeps no marks" },
            if profile.attaches { "attaches" } else { "does not offer attaching" },
        ));
    }
    match counts {
        Counts { failed: 1.., .. } => ExitCode::FAILURE,
        Counts { lacking: 1.., .. } => ExitCode::from(3),
        _ => ExitCode::SUCCESS,
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Skipped for want of a method.
    lacking: usize,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed { .. } => self.failed += 1,
            Verdict::Skipped { lacks_method, .. } => {
                self.skipped += 1;
                self.lacking += usize::from(*lacks_method);
            }
        }
    }
}

/// A reader that has gone changes nothing.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn for_people(line: &Line) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let paint = |colour: &str, word: &str| match colours {
        true => format!("\x1b[{colour}m{word}\x1b[0m"),
        false => word.to_string(),
    };
    match &line.verdict {
        Verdict::Passed => format!("{}  {}", paint("32", "passed "), line.check),
        Verdict::Skipped { reason, .. } => format!("{}  {}: {reason}", paint("33", "skipped"), line.check),
        Verdict::Failed { reason, transcript } => {
            let mut text = format!("{}  {}\n         {reason}", paint("31", "FAILED "), line.check);
            for said in transcript {
                text.push_str("\n           ");
                text.push_str(&said.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"));
            }
            text
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Option<(Options, bool)>, String> {
    let mut json = false;
    let mut options =
        Options { command: Vec::new(), patience: Duration::from_secs(20), only: Vec::new(), skip: Vec::new() };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => json = true,
            "--only" => options.only.push(value()?),
            "--skip" => options.skip.push(value()?),
            "--patience" => {
                let text = value()?;
                let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
                options.patience = seconds.ok_or_else(|| format!("--patience needs seconds, not `{text}`"))?;
            }
            "--" => options.command.extend(args.by_ref()),
            option if option.starts_with('-') => return Err(format!("there is no option {option}")),
            program => {
                options.command.push(program.to_string());
                options.command.extend(args.by_ref());
            }
        }
    }
    if let Some(part) = options.only.iter().chain(&options.skip).find(|part| !is_part_of_a_name(part)) {
        return Err(format!("no check has `{part}` in its name"));
    }
    if options.command.is_empty() {
        return Err("which program is the worker?".into());
    }
    Ok(Some((options, json)))
}
