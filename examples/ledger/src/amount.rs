//! Amounts of money: whole cents, read from and written as decimal text. No binary fraction comes near them.

use std::fmt;
use std::str::FromStr;

/// An amount in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(pub i64);

/// A text that is no amount. It reads as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnAmount(String);

impl Cents {
    /// The sum, unless it would not fit into 64 bits.
    pub fn plus(self, other: Cents) -> Option<Cents> {
        self.0.checked_add(other.0).map(Cents)
    }
}

impl FromStr for Cents {
    type Err = NotAnAmount;

    /// `12`, `12.5`, `12.50`, `-0.07`: a sign if it is negative, digits, and at most two behind a point.
    fn from_str(text: &str) -> Result<Cents, NotAnAmount> {
        let wrong = |why: &str| Err(NotAnAmount(format!("`{text}` is no amount: {why} (write it like 12.50 or -3)")));
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "00"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) {
            return wrong("it has other characters than digits, one point and a leading minus");
        }
        let tens = match fraction.len() {
            1 => 10,
            2 => 1,
            _ => return wrong("it has more than two decimals"),
        };
        let cents = whole.parse::<i64>().ok().zip(fraction.parse::<i64>().ok());
        let cents = cents.and_then(|(whole, fraction)| whole.checked_mul(100)?.checked_add(fraction * tens));
        match cents {
            Some(cents) => Ok(Cents(if negative { -cents } else { cents })),
            None => wrong("it is too large"),
        }
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        f.pad(&format!("{sign}{}.{:02}", cents / 100, cents % 100))
    }
}

impl fmt::Display for NotAnAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAnAmount {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, cents, written) in [
            ("0", 0, "0.00"),
            ("-0", 0, "0.00"),
            ("12", 1200, "12.00"),
            ("12.5", 1250, "12.50"),
            ("12.05", 1205, "12.05"),
            ("-0.07", -7, "-0.07"),
            ("0.10", 10, "0.10"),
            ("007.30", 730, "7.30"),
            ("92233720368547758.07", i64::MAX, "92233720368547758.07"),
            ("-92233720368547758.07", -i64::MAX, "-92233720368547758.07"),
        ] {
            assert_eq!(text.parse(), Ok(Cents(cents)), "{text}");
            assert_eq!(Cents(cents).to_string(), written);
        }
        assert_eq!(Cents(i64::MIN).to_string(), "-92233720368547758.08");
    }

    #[test]
    fn what_is_no_amount_says_why() {
        for (text, why) in [
            ("", "digits"),
            ("-", "digits"),
            ("+1", "digits"),
            ("1.", "digits"),
            (".5", "digits"),
            ("1,000.00", "digits"),
            ("1e3", "digits"),
            ("1.2.3", "digits"),
            ("--1", "digits"),
            (" 1", "digits"),
            ("٣", "digits"),
            ("12.345", "two decimals"),
            ("92233720368547758.08", "too large"),
            ("99999999999999999999999", "too large"),
        ] {
            let error = text.parse::<Cents>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{text}: {error}");
        }
    }
}
