//! One book in one SQLite file.
//!
//! Its process may be killed at any instant. What was answered is on the disk (write-ahead log, synchronous
//! FULL); what was not answered happened as a whole or not at all, and may be posted again: an entry is known
//! by its id, and one that is there already is not added twice.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::Cents;

/// The layout of the file, in its `user_version`.
const LAYOUT: i64 = 1;
/// How long somebody else may keep the file locked: a backup, or a person with the sqlite3 shell.
const BUSY_MAX: Duration = Duration::from_secs(5);

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS entry (
        id      TEXT PRIMARY KEY,
        date    TEXT NOT NULL,
        account TEXT NOT NULL,
        cents   INTEGER NOT NULL,
        memo    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS entry_account ON entry (account, cents);
    PRAGMA user_version = 1;";

/// An entry as it is posted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// What it is known by in its book.
    pub id: String,
    /// The day, as in 2026-11-20.
    pub date: String,
    /// The account.
    pub account: String,
    /// The amount, as text.
    pub amount: Amount,
    /// For people.
    #[serde(default)]
    pub memo: String,
}

/// An amount as it is posted: a text, so that no cent is lost on the way.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Amount {
    /// As it should be.
    Text(String),
    /// A number or something else, to be refused with its row.
    #[serde(skip_serializing)]
    Other(IgnoredAny),
}

impl From<String> for Amount {
    fn from(text: String) -> Amount {
        Amount::Text(text)
    }
}

/// What posting has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Added {
    /// Entries that are new.
    pub added: u64,
    /// Entries that were there already.
    pub known: u64,
}

/// Why a book does not do what it was asked for. It reads as a sentence.
#[derive(Debug)]
pub enum Error {
    /// What was posted cannot be taken; nothing has changed.
    Refused(String),
    /// SQLite's reason.
    Sqlite(rusqlite::Error),
}

/// An open book.
#[derive(Debug)]
pub struct Book {
    file: Connection,
}

impl Book {
    /// Opens the book of a file, and makes it if it is not there. What a killed process left half done is undone.
    pub fn open(path: &Path) -> Result<Book, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut file = Connection::open_with_flags(path, flags)?;
        file.busy_timeout(BUSY_MAX)?;
        let mode: String = file.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Error::Refused(format!(
                "{}: SQLite has no write-ahead log here, only `{mode}`",
                path.display()
            )));
        }
        file.pragma_update(None, "synchronous", "FULL")?;
        let transaction = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match transaction.query_row("PRAGMA user_version", [], |row| row.get(0))? {
            LAYOUT => drop(transaction),
            0 => {
                transaction.execute_batch(TABLE)?;
                transaction.commit()?;
            }
            newer => {
                let path = path.display();
                return Err(Error::Refused(format!("{path} has layout {newer}: a newer ledger has written it")));
            }
        }
        Ok(Book { file })
    }

    /// Adds entries, all or none. One that is there already with the same content is left as it is; the error
    /// names the row.
    pub fn import(&mut self, rows: &[Row]) -> Result<Added, Error> {
        let transaction = self.file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut done = Added::default();
        for (at, row) in rows.iter().enumerate() {
            let named = |why: String| match rows.len() {
                1 => Error::Refused(format!("entry `{}`: {why}", row.id)),
                _ => Error::Refused(format!("row {} (entry `{}`): {why}; nothing was imported", at + 1, row.id)),
            };
            let cents = row.check().map_err(named)?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO entry (id, date, account, cents, memo) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?;
            if insert.execute(params![row.id, row.date, row.account, cents.0, row.memo])? == 1 {
                done.added += 1;
                continue;
            }
            let mut same = transaction.prepare_cached(
                "SELECT 1 FROM entry WHERE id = ?1 AND date = ?2 AND account = ?3 AND cents = ?4 AND memo = ?5",
            )?;
            if !same.exists(params![row.id, row.date, row.account, cents.0, row.memo])? {
                return Err(named("there is another entry of this id already, with another content".to_string()));
            }
            done.known += 1;
        }
        transaction.commit()?;
        Ok(done)
    }

    /// What an account holds; nothing if nobody knows it.
    pub fn balance(&self, account: &str) -> Result<Cents, Error> {
        let mut sum = self.file.prepare_cached("SELECT sum(cents) FROM entry WHERE account = ?1")?;
        Ok(Cents(sum.query_row([account], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0)))
    }

    /// What all accounts hold together: zero, in a book that balances.
    pub fn total(&self) -> Result<Cents, Error> {
        let mut sum = self.file.prepare_cached("SELECT sum(cents) FROM entry")?;
        Ok(Cents(sum.query_row([], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0)))
    }

    /// What each account holds.
    pub fn accounts(&self) -> Result<BTreeMap<String, Cents>, Error> {
        let mut sums = self.file.prepare_cached("SELECT account, sum(cents) FROM entry GROUP BY account")?;
        let rows = sums.query_map([], |row| Ok((row.get(0)?, Cents(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many entries there are.
    pub fn entries(&self) -> Result<i64, Error> {
        let mut count = self.file.prepare_cached("SELECT count(*) FROM entry")?;
        Ok(count.query_row([], |row| row.get(0))?)
    }

    /// What SQLite finds wrong with the file, if anything.
    pub fn damage(&self) -> Result<Option<String>, Error> {
        let found: Option<String> = self.file.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).optional()?;
        Ok(found.filter(|found| found != "ok"))
    }
}

impl Row {
    /// The amount, if everything is as it should be.
    fn check(&self) -> Result<Cents, String> {
        for (what, text) in [("id", &self.id), ("account", &self.account)] {
            if text.trim().is_empty() {
                return Err(format!("its {what} is empty"));
            }
        }
        if !is_a_day(&self.date) {
            return Err(format!("`{}` is no date (write it like 2026-11-20)", self.date));
        }
        match &self.amount {
            Amount::Text(text) => text.parse().map_err(|error: crate::NotAnAmount| error.to_string()),
            Amount::Other(_) => Err("its amount is not a text: write it in quotes, \"12.50\"".to_string()),
        }
    }
}

fn is_a_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |part: &str, digits: usize| -> Option<u32> {
        (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Sqlite(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(why) => f.write_str(why),
            Error::Sqlite(error) => write!(f, "SQLite: {error}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, account: &str, amount: &str) -> Row {
        let amount = amount.to_string().into();
        Row { id: id.into(), date: "2026-11-20".into(), account: account.into(), amount, memo: "m".into() }
    }

    fn open() -> (tempfile::TempDir, Book) {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(&dir.path().join("eu.sqlite")).unwrap();
        (dir, book)
    }

    #[test]
    fn an_entry_that_is_posted_again_counts_once() {
        let (dir, mut book) = open();
        let rows = [row("1", "cash", "0.10"), row("2", "sales", "-0.10"), row("1", "cash", "0.1")];
        assert_eq!(book.import(&rows).unwrap(), Added { added: 2, known: 1 });
        drop(book);
        let mut book = Book::open(&dir.path().join("eu.sqlite")).unwrap();
        assert_eq!(book.import(&rows).unwrap(), Added { added: 0, known: 3 });
        assert_eq!((book.balance("cash").unwrap(), book.total().unwrap()), (Cents(10), Cents(0)));
        assert_eq!((book.entries().unwrap(), book.damage().unwrap()), (2, None));
        let accounts = [("cash".to_string(), Cents(10)), ("sales".to_string(), Cents(-10))];
        assert_eq!(book.accounts().unwrap(), accounts.into());
    }

    #[test]
    fn a_wrong_row_is_named_and_nothing_is_imported() {
        let (_dir, mut book) = open();
        book.import(&[row("1", "cash", "1")]).unwrap();
        let wrong_day = Row { date: "2026-02-30".into(), ..row("9", "cash", "1") };
        let number = Row { amount: Amount::Other(IgnoredAny), ..row("9", "cash", "1") };
        for (wrong, why) in [
            (row("9", "cash", "1.234"), "two decimals"),
            (row("9", " ", "1"), "account is empty"),
            (row("", "cash", "1"), "id is empty"),
            (wrong_day, "`2026-02-30` is no date"),
            (number, "in quotes"),
            (row("1", "cash", "2"), "another content"),
        ] {
            let error = book.import(&[row("8", "cash", "1"), wrong]).unwrap_err().to_string();
            assert!(error.starts_with("row 2 ") && error.contains(why), "{error}");
        }
        assert_eq!(book.total().unwrap(), Cents(100));
    }

    #[test]
    fn an_unknown_account_holds_nothing() {
        let (_dir, book) = open();
        assert_eq!(book.balance("nobody").unwrap(), Cents(0));
        assert_eq!(book.total().unwrap(), Cents(0));
        assert_eq!(book.accounts().unwrap(), BTreeMap::new());
    }

    #[test]
    fn a_file_that_a_newer_ledger_has_written_is_left_alone() {
        let (dir, book) = open();
        book.file.pragma_update(None, "user_version", 2).unwrap();
        drop(book);
        let error = Book::open(&dir.path().join("eu.sqlite")).unwrap_err().to_string();
        assert!(error.contains("layout 2"), "{error}");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, is) in [
            ("2026-11-20", true),
            ("2024-02-29", true),
            ("2026-02-29", false),
            ("2026-13-01", false),
            ("2026-00-01", false),
            ("2026-04-31", false),
            ("2026-1-1", false),
            ("20261120", false),
            ("2026-11-20-1", false),
            ("", false),
        ] {
            assert_eq!(is_a_day(text), is, "{text}");
        }
    }
}
