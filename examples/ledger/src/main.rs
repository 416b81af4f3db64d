//! A worker that keeps account books: `ledger/eu` is the book `eu`, in DIR/eu.sqlite, which its process
//! alone writes.
//!
//! ```text
//! workhall call ledger/eu post inv-17 2026-11-20 cash '"12.50"' 'one chair'
//! workhall call ledger/eu balance cash --wait
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use ledger_book::{Book, Cents, Row};
use worker_host::{Context, MethodResult, Worker};

/// A Workhall worker that keeps account books: the part of its name behind the slash is the book.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where the books are, one SQLite file each; made if it is not there
    #[arg(long, value_name = "DIR", env = "LEDGER_DIR", default_value = ".")]
    db_dir: PathBuf,
}

/// The book is opened by the first task, so that whoever calls learns why it cannot be.
struct Ledger {
    dir: PathBuf,
    book: Option<Book>,
}

fn main() -> worker_host::Result {
    let Arguments { db_dir } = Arguments::parse();
    Worker::new(Ledger { dir: db_dir, book: None })
        .method("post", |ledger, ctx, row: Row| Ok(ledger.book(ctx)?.import(&[row])?))
        .method("import", |ledger, ctx, (rows,): (Vec<Row>,)| Ok(ledger.book(ctx)?.import(&rows)?))
        .method("balance", |ledger, ctx, accounts: Vec<String>| {
            let book = ledger.book(ctx)?;
            match &accounts[..] {
                [] => Ok(book.total()?.to_string()),
                [account] => Ok(book.balance(account)?.to_string()),
                _ => Err("`balance` takes one account, or none for the whole book".into()),
            }
        })
        .method("accounts", |ledger, ctx, ()| {
            let accounts = ledger.book(ctx)?.accounts()?.into_iter();
            Ok(accounts.map(|(account, cents)| (account, cents.to_string())).collect::<BTreeMap<_, _>>())
        })
        .method("check", |ledger, ctx, ()| check(ledger.book(ctx)?))
        .method("end", |_, ctx, ()| Ok(ctx.kill_self().map(drop)?))
        .run()
}

/// The number of entries of a book that is sound and balances; for another one the error.
fn check(book: &Book) -> MethodResult<i64> {
    if let Some(damage) = book.damage()? {
        return Err(format!("the file is damaged: {damage}").into());
    }
    match book.total()? {
        Cents(0) => Ok(book.entries()?),
        sum => Err(format!("the book does not balance: all accounts together hold {sum} instead of 0.00").into()),
    }
}

impl Ledger {
    fn book(&mut self, ctx: &Context<'_>) -> MethodResult<&mut Book> {
        if self.book.is_none() {
            let name = book_name(ctx.worker())?;
            std::fs::create_dir_all(&self.dir)
                .map_err(|error| format!("cannot make the directory {}: {error}", self.dir.display()))?;
            self.book = Some(open(&self.dir.join(format!("{name}.sqlite")))?);
        }
        Ok(self.book.as_mut().expect("it was just opened"))
    }
}

fn open(path: &Path) -> MethodResult<Book> {
    Book::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()).into())
}

/// The book that a worker's name names. It becomes the name of a file, and must not lead elsewhere.
fn book_name(worker: &str) -> MethodResult<&str> {
    let Some((_, book)) = worker.split_once('/') else {
        return Err(format!("`{worker}` names no book: call `{worker}/NAME`, as in `{worker}/eu`").into());
    };
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !book.is_empty() && book.chars().all(allowed) && !book.starts_with('.') {
        true => Ok(book),
        false => Err(format!("`{book}` cannot be a book: its name has letters, digits, `-`, `_` and `.` only").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_named_behind_the_slash_and_stays_in_its_directory() {
        assert_eq!(book_name("ledger/eu").unwrap(), "eu");
        assert_eq!(book_name("ledger/büro-2.a").unwrap(), "büro-2.a");
        for wrong in ["ledger", "ledger/", "ledger/..", "ledger/../eu", "ledger/a/b", "ledger/.x", "ledger/a b"] {
            assert!(book_name(wrong).is_err(), "{wrong}");
        }
    }
}
