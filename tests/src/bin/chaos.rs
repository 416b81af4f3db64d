//! The chaos run: `cargo run -p workhall-tests --bin chaos -- --seconds 600 [--seed N]`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use workhall_tests::chaos::{Options, run};

const USAGE: &str = "usage: chaos [--seconds N] [--seed N] [--clients N] [--supervisor-deaths on|off]

A real supervisor and real workers under random calls, kills, signals and hostile clients; then all accounts are
checked. Prints one line of figures. Exit status 0: nothing was violated; 1: something was; 2: wrong usage.
The seed decides what is intended, and is drawn from the clock unless given; real time decides the rest.";

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let report = run(options);
    println!("chaos: {}", report.summary);
    if report.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    for violation in &report.violations {
        println!("violation: {violation}");
    }
    println!(
        "replay: cargo run -p workhall-tests --bin chaos -- --seconds {} --seed {} --clients {} --supervisor-deaths {}",
        options.lasts.as_secs(),
        options.seed,
        options.clients,
        if options.supervisor_deaths { "on" } else { "off" },
    );
    ExitCode::FAILURE
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
    let mut options = Options { seed: clock % 1_000_000, progress: true, ..Options::default() };
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{option} needs a number, not `{value}`"));
        match option.as_str() {
            "--seconds" => options.lasts = Duration::from_secs(number()?),
            "--seed" => options.seed = number()?,
            "--clients" => options.clients = number()?,
            "--supervisor-deaths" => {
                options.supervisor_deaths = match value.as_str() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(format!("--supervisor-deaths is on or off, not `{value}`")),
                };
            }
            _ => return Err(format!("there is no option {option}")),
        }
    }
    Ok(options)
}
