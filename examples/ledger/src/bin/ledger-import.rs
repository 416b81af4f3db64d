//! Posts a CSV file to the account books, through the supervisor, and then asks every book whether it holds
//! what the file says: `ledger-import entries.csv`.
//!
//! The books' processes may die at any moment: a batch that was not answered is posted again, and because an
//! entry is known by its id, none counts twice. `--kill-between` puts that to the test.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ledger_book::{Added, Cents, Row};
use serde::Deserialize;
use workhall_protocol::Client;
use workhall_protocol::args::Payload;
use workhall_protocol::client::Ticket;
use workhall_protocol::messages::{Call, Kill, OutcomeBody, ReceiptBody, Until};
use workhall_protocol::terms::Refusal;

/// How many batches are on their way at once.
const BATCHES_AHEAD: usize = 32;
/// How often one batch is posted before somebody has to look what kills its worker.
const ATTEMPTS_MAX: u32 = 20;

type Connection = Client<std::os::unix::net::UnixStream>;

/// Posts a CSV file to the account books and compares what they hold with what it says.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The file; its first line is book,id,date,account,amount,memo
    file: PathBuf,
    /// The supervisor's socket [default: $WORKHALL_SOCKET, else
    /// $XDG_RUNTIME_DIR/workhall/workhall.sock, else /run/workhall/workhall.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The workers: NAME/eu keeps the book eu
    #[arg(long, default_value = "ledger", value_name = "NAME")]
    worker: String,
    /// How many entries one message carries
    #[arg(long, default_value = "20", value_name = "ENTRIES", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Kill the worker of every book after each of its batches
    #[arg(long)]
    kill_between: bool,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    book: String,
    id: String,
    date: String,
    account: String,
    amount: String,
    memo: String,
}

/// What the file says of one book.
#[derive(Debug, Default)]
struct Expected {
    rows: Vec<Row>,
    accounts: BTreeMap<String, Cents>,
    turnover: Cents,
}

/// Rows that travel in one message.
#[derive(Debug)]
struct Batch {
    book: String,
    rows: Vec<Row>,
    attempts: u32,
}

/// What came of all batches.
#[derive(Debug, Default)]
struct Done {
    entries: Added,
    posted_again: u64,
    kills: u64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ledger-import: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every book holds exactly what the file says.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let books = read(&arguments.file)?;
    let socket = arguments.socket.clone().unwrap_or_else(default_socket);
    let mut client = Client::connect(&socket).with_context(|| format!("no supervisor at {}", socket.display()))?;
    let done = import(arguments, &mut client, &books)?;
    let Done { entries: Added { added, known }, posted_again, kills } = done;
    println!("{added} entries added, {known} known already; {kills} kills, {posted_again} batches posted again");
    compare(arguments, &mut client, &books)
}

fn default_socket() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable("WORKHALL_SOCKET"), variable("XDG_RUNTIME_DIR")) {
        (Some(socket), _) => PathBuf::from(socket),
        (None, Some(dir)) => Path::new(&dir).join("workhall/workhall.sock"),
        (None, None) => PathBuf::from("/run/workhall/workhall.sock"),
    }
}

fn read(file: &Path) -> anyhow::Result<BTreeMap<String, Expected>> {
    let shown = file.display();
    let mut reader = csv::Reader::from_path(file).with_context(|| format!("cannot read {shown}"))?;
    let mut books: BTreeMap<String, Expected> = BTreeMap::new();
    for line in reader.deserialize() {
        let Line { book, id, date, account, amount, memo } = line.with_context(|| shown.to_string())?;
        let cents: Cents = amount.parse().with_context(|| format!("{shown}: entry `{id}` of {book}"))?;
        let expected = books.entry(book).or_default();
        let sum = expected.accounts.entry(account.clone()).or_default();
        *sum = sum.plus(cents).with_context(|| format!("{shown}: account {account} does not fit into 64 bits"))?;
        let debit = Cents(cents.0.max(0));
        expected.turnover = expected.turnover.plus(debit).context("the turnover does not fit into 64 bits")?;
        expected.rows.push(Row { id, date, account, amount: amount.into(), memo });
    }
    ensure!(!books.is_empty(), "{shown} has no entries");
    Ok(books)
}

// ---- posting --------------------------------------------------------------------------------

fn import(arguments: &Arguments, client: &mut Connection, books: &BTreeMap<String, Expected>) -> anyhow::Result<Done> {
    let mut waiting = batches(arguments, books);
    // With kills, one batch of each book is on its way, and its worker is killed before the next.
    let ahead = if arguments.kill_between { books.len() } else { BATCHES_AHEAD };
    let mut sent: VecDeque<(Batch, Ticket)> = VecDeque::new();
    let mut done = Done::default();
    let progress = progress(books);
    loop {
        if sent.is_empty() || !arguments.kill_between {
            while let Some(batch) = waiting.pop_front_if(|_| sent.len() < ahead) {
                let ticket = post(client, &worker(arguments, &batch.book), &batch)?;
                sent.push_back((batch, ticket));
            }
        }
        let Some((mut batch, ticket)) = sent.pop_front() else { break };
        let name = worker(arguments, &batch.book);
        match answer(client, &name, ticket)? {
            Some(added) => {
                done.entries.added += added.added;
                done.entries.known += added.known;
                progress.inc(batch.rows.len() as u64);
            }
            None => {
                batch.attempts += 1;
                ensure!(batch.attempts < ATTEMPTS_MAX, "{name}: a batch was posted {ATTEMPTS_MAX} times in vain");
                done.posted_again += 1;
                waiting.push_front(batch);
            }
        }
        if arguments.kill_between && sent.is_empty() && !waiting.is_empty() {
            done.kills += kill_all(arguments, client, books)?;
        }
    }
    progress.finish_and_clear();
    Ok(done)
}

/// The batches of all books by turns, so that the books' processes work side by side.
fn batches(arguments: &Arguments, books: &BTreeMap<String, Expected>) -> VecDeque<Batch> {
    let mut turns: Vec<_> =
        books.iter().map(|(book, expected)| (book, expected.rows.chunks(arguments.batch.into()))).collect();
    let mut batches = VecDeque::new();
    loop {
        let before = batches.len();
        for (book, chunks) in &mut turns {
            let rows = chunks.next().map(<[Row]>::to_vec);
            batches.extend(rows.map(|rows| Batch { book: book.to_string(), rows, attempts: 0 }));
        }
        if batches.len() == before {
            return batches;
        }
    }
}

fn post(client: &mut Connection, worker: &str, batch: &Batch) -> anyhow::Result<Ticket> {
    let args = Payload::encode(&(&batch.rows,))?;
    Ok(client.submit(Call { wait: true, ..Call::new(worker, "import", args) })?)
}

/// What became of a batch; none if it is to be posted again.
fn answer(client: &mut Connection, worker: &str, ticket: Ticket) -> anyhow::Result<Option<Added>> {
    match client.receipt(ticket)? {
        ReceiptBody::Accepted(_) => {}
        ReceiptBody::Refused { reason: Refusal::MailboxFull, .. } => {
            let room = client.wait(worker.into(), Until::Room)?;
            client.outcome(room)?;
            return Ok(None);
        }
        ReceiptBody::Refused { detail, .. } => bail!("{worker}: refused: {detail}"),
        other => bail!("{worker}: unexpected answer: {other:?}"),
    }
    match client.outcome(ticket)? {
        OutcomeBody::Done { result } => Ok(Some(result.decode()?)),
        OutcomeBody::Failed { error } => bail!("{worker}: {error}"),
        // It has not been executed, or in part, or as a whole and only the answer was lost: all the same.
        OutcomeBody::Discarded { .. } | OutcomeBody::Expired { .. } | OutcomeBody::Dead { .. } => Ok(None),
        other => bail!("{worker}: unexpected outcome: {other:?}"),
    }
}

/// Kills the worker of every book. What is posted next waits for a new process by itself.
fn kill_all(arguments: &Arguments, client: &mut Connection, books: &BTreeMap<String, Expected>) -> anyhow::Result<u64> {
    let mut tickets = Vec::new();
    for book in books.keys() {
        let name = worker(arguments, book);
        tickets.push(client.kill(Kill { worker: Some((&*name).into()), ..Kill::default() })?);
    }
    let mut kills = 0;
    for ticket in tickets {
        kills += u64::from(matches!(client.receipt(ticket)?, ReceiptBody::Killed { .. }));
    }
    Ok(kills)
}

fn worker(arguments: &Arguments, book: &str) -> String {
    format!("{}/{book}", arguments.worker)
}

/// Drawn on a terminal only.
fn progress(books: &BTreeMap<String, Expected>) -> ProgressBar {
    let rows = books.values().map(|expected| expected.rows.len() as u64).sum();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {eta} left");
    ProgressBar::new(rows).with_style(style.expect("the template is correct"))
}

// ---- comparing ------------------------------------------------------------------------------

/// Asks every book, prints the table, and returns whether all is as the file says.
fn compare(arguments: &Arguments, client: &mut Connection, books: &BTreeMap<String, Expected>) -> anyhow::Result<bool> {
    println!("{:<10}{:>8}{:>10}{:>14}{:>10}", "BOOK", "ENTRIES", "ACCOUNTS", "TURNOVER", "BALANCE");
    let mut all = true;
    for (book, expected) in books {
        let name = worker(arguments, book);
        let accounts: BTreeMap<String, String> = ask(client, &name, "accounts")?;
        let balance: String = ask(client, &name, "balance")?;
        let entries = ask::<u64>(client, &name, "check");
        println!(
            "{book:<10}{:>8}{:>10}{:>14}{balance:>10}",
            entries.as_ref().map_or("-".to_string(), u64::to_string),
            accounts.len(),
            expected.turnover.to_string(),
        );
        for difference in differences(expected, &accounts, entries) {
            all = false;
            eprintln!("ledger-import: {name}: {difference}");
        }
    }
    if all {
        println!("every book balances, and every account holds to the cent what {} says", arguments.file.display());
    }
    Ok(all)
}

fn ask<T: serde::de::DeserializeOwned>(client: &mut Connection, worker: &str, method: &str) -> anyhow::Result<T> {
    for _attempt in 0..ATTEMPTS_MAX {
        match client.call_and_wait(Call::new(worker, method, Payload::no_args()))? {
            (_, Some(OutcomeBody::Done { result })) => return Ok(result.decode()?),
            (_, Some(OutcomeBody::Failed { error })) => bail!("{worker}: {error}"),
            (_, Some(_died)) => {}
            (receipt, None) => bail!("{worker}: {method} was not accepted: {receipt:?}"),
        }
    }
    bail!("{worker}: {method} was asked {ATTEMPTS_MAX} times in vain")
}

/// Everything in which a book is not what the file says.
fn differences(expected: &Expected, accounts: &BTreeMap<String, String>, entries: anyhow::Result<u64>) -> Vec<String> {
    let mut found = Vec::new();
    match entries {
        Err(error) => found.push(format!("{error:#}")),
        Ok(entries) if entries != expected.rows.len() as u64 => {
            found.push(format!("it has {entries} entries, the file {}", expected.rows.len()));
        }
        Ok(_) => {}
    }
    for (account, cents) in &expected.accounts {
        let holds = accounts.get(account).map_or("nothing", String::as_str);
        if holds != cents.to_string() {
            found.push(format!("account {account} holds {holds}, the file says {cents}"));
        }
    }
    let unknown = accounts.keys().filter(|account| !expected.accounts.contains_key(*account));
    found.extend(unknown.map(|account| format!("account {account} is not in the file")));
    found
}
