//! An account book: exact amounts, and the SQLite file that one worker is the only writer of.

mod amount;
mod book;

pub use amount::{Cents, NotAnAmount};
pub use book::{Added, Book, Error, Row};
