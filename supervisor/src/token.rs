//! What the poller gives back with an event.

/// What a descriptor in the poller is. The number of the thing is in the low half of the token; of
/// connections and processes a part of their serial is above, so that an event that was fetched for one is
/// not taken for its successor in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    ChildSignal,
    StopSignal,
    ReloadSignal,
    OtherSignal,
    /// The program that is asked whether it can go on.
    Check,
    /// Somebody asks for the metrics.
    Metrics,
    Connection {
        index: usize,
        serial: u64,
    },
    Process {
        slot: usize,
        serial: u64,
    },
    /// The control group of a process.
    Tree {
        slot: usize,
        serial: u64,
    },
    /// What a process writes.
    Output {
        slot: usize,
        stderr: bool,
        serial: u64,
    },
}

/// The part of a serial number that fits into a token.
pub(crate) const SERIAL_MASK: u64 = (1 << 28) - 1;

/// The serial number behind this one: 1 to 2^32 - 1, then 1 again. So each fits above a place, and none is
/// zero. Not to be met again within days of a thousand connections a second.
pub(crate) fn next_serial(serial: u64) -> u64 {
    serial % u64::from(u32::MAX) + 1
}

impl Token {
    pub fn pack(self) -> u64 {
        let place = |kind: u64, index: usize, serial: u64| kind << 60 | (serial & SERIAL_MASK) << 32 | index as u64;
        match self {
            Token::Listener => 0,
            Token::ChildSignal => 1,
            Token::StopSignal => 2,
            Token::ReloadSignal => 3,
            Token::Check => 4,
            Token::Metrics => 5,
            Token::OtherSignal => 6,
            Token::Connection { index, serial } => place(1, index, serial),
            Token::Process { slot, serial } => place(2, slot, serial),
            Token::Tree { slot, serial } => place(3, slot, serial),
            Token::Output { slot, stderr, serial } => place(4 + u64::from(stderr), slot, serial),
        }
    }

    pub fn unpack(token: u64) -> Token {
        let (index, serial) = ((token & u64::from(u32::MAX)) as usize, token >> 32 & SERIAL_MASK);
        match (token >> 60, token) {
            (1, _) => Token::Connection { index, serial },
            (2, _) => Token::Process { slot: index, serial },
            (3, _) => Token::Tree { slot: index, serial },
            (kind @ (4 | 5), _) => Token::Output { slot: index, stderr: kind == 5, serial },
            (_, 0) => Token::Listener,
            (_, 1) => Token::ChildSignal,
            (_, 2) => Token::StopSignal,
            (_, 3) => Token::ReloadSignal,
            (_, 4) => Token::Check,
            (_, 5) => Token::Metrics,
            _ => Token::OtherSignal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_fit_above_a_place_and_are_never_zero() {
        let last = (1_u64 << 32) - 1;
        for (serial, next) in [(0, 1), (1, 2), (SERIAL_MASK, SERIAL_MASK + 1), (last - 1, last), (last, 1)] {
            assert_eq!(next_serial(serial), next);
            assert_eq!(next << 32 >> 32, next, "nothing is cut off");
            assert!(next << 32 > 0, "the key at the first place is not zero");
        }
    }

    #[test]
    fn tokens_come_back_as_they_went() {
        let large = Token::Connection { index: u32::MAX as usize, serial: SERIAL_MASK };
        for token in [
            Token::Listener,
            Token::ChildSignal,
            Token::StopSignal,
            Token::ReloadSignal,
            Token::Check,
            Token::Metrics,
            Token::OtherSignal,
            Token::Connection { index: 0, serial: 1 },
            large,
            Token::Process { slot: 7, serial: 9 },
            Token::Tree { slot: 7, serial: 9 },
            Token::Output { slot: 7, stderr: false, serial: 9 },
            Token::Output { slot: 7, stderr: true, serial: 9 },
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
