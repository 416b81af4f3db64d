//! What of a connection goes to the next program of this supervisor, beside its descriptor.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::{self, Info, List, Ref, Request, Status};
use workhall_protocol::terms::Refusal;
use workhall_protocol::wire::{Decoder, Encoding, encode};

use super::{Connection, Peer};
use crate::questions::Question;
use crate::sys::Stream;

/// Plain values. Fields are only ever added, with a default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    pub key: NonZeroU64,
    pub peer: Peer,
    /// Whether it speaks in binary frames; none before the peer's first byte.
    pub binary: Option<bool>,
    /// What came and is not handled. Questions that wait for their answers stand before it, as the peer has asked them.
    pub read: ByteBuf,
    /// What is not written.
    pub unwritten: ByteBuf,
    pub chain_broken: Option<Refusal>,
    pub closing: bool,
    pub half_closed: bool,
    pub awaited: usize,
    pub waits: usize,
    pub stalled: bool,
    pub greeted: bool,
    pub unwritten_tasks: Vec<(MessageId, u64, usize)>,
    pub sent: u64,
    pub refs: Vec<(usize, Ref)>,
}

impl Connection {
    /// All that the next program needs to go on. To be called between two turns.
    pub fn carried(&self) -> Carried {
        let mut read = Vec::new();
        for question in &self.questions {
            let asked = encode(&as_request(question), self.encoding, &mut read);
            debug_assert!(asked.is_ok(), "it came as a message");
        }
        read.extend_from_slice(self.decoder.unread());
        debug_assert!(self.accepted_last.is_none(), "brief receipts are said within the turn");
        Carried {
            key: self.key,
            peer: self.peer,
            binary: self.decoder.encoding().map(|encoding| encoding == Encoding::Binary),
            read: ByteBuf::from(read),
            unwritten: ByteBuf::from(&self.out[self.written..]),
            chain_broken: self.chain_broken,
            closing: self.closing,
            half_closed: self.half_closed,
            awaited: self.awaited - self.questions.len(),
            waits: self.waits,
            stalled: self.stalled || !self.questions.is_empty(),
            greeted: self.greeted,
            unwritten_tasks: self.unwritten_tasks.iter().copied().collect(),
            sent: self.sent,
            refs: self.refs.iter().map(|(at, reference)| (at, reference.clone())).collect(),
        }
    }

    /// Goes on with it; watched for reading. What it holds is not charged yet, and nobody is held back yet.
    pub fn again(carried: Carried, stream: Stream) -> Connection {
        let encoding = carried.binary.map(|binary| if binary { Encoding::Binary } else { Encoding::Json });
        Connection {
            decoder: Decoder::resumed(encoding, &carried.read),
            encoding: encoding.unwrap_or(Encoding::Json),
            out: carried.unwritten.into_vec(),
            chain_broken: carried.chain_broken,
            closing: carried.closing,
            half_closed: carried.half_closed,
            awaited: carried.awaited,
            waits: carried.waits,
            stalled: carried.stalled,
            greeted: carried.greeted,
            task_bytes: carried.unwritten_tasks.iter().map(|(.., bytes)| bytes).sum(),
            unwritten_tasks: carried.unwritten_tasks.into(),
            sent: carried.sent,
            refs: carried.refs.into_iter().collect(),
            ..Connection::new(carried.key, stream, carried.peer)
        }
    }
}

fn as_request(question: &Question) -> Request<'_> {
    match question {
        Question::List(List { reference, after, limit }) => {
            Request::List(List { reference: reference.clone(), after: *after, limit: *limit })
        }
        Question::Info(reference, worker) => {
            let worker = match worker {
                messages::Address::Name(name) => messages::Address::Name(name.as_ref().into()),
                messages::Address::Number(number) => messages::Address::Number(*number),
            };
            Request::Info(Info { reference: reference.clone(), worker })
        }
        Question::Status(reference) => Request::Status(Status { reference: reference.clone() }),
        Question::Cancel(cancel) => Request::Cancel(cancel.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use workhall_protocol::args::Payload;
    use workhall_protocol::messages::{Reply, Task, ToSupervisor};

    use super::*;
    use crate::access::Creds;

    /// What was read and not handled, asked and not answered, said and not written goes on, in its order.
    #[test]
    fn a_connection_goes_on_where_it_was() {
        let (ours, theirs) = crate::sys::stream_pair().unwrap();
        let mut theirs = UnixStream::from(theirs);
        let peer = Peer::Client(Creds { pid: 1, uid: 2, gid: 3 });
        let mut connection = Connection::new(NonZeroU64::MIN, ours, peer);
        theirs.write_all(b"{\"info\":{\"ref\":9,\"worker\":\"b\"}}\n{\"sta").unwrap();
        connection.read(&mut Vec::new(), 1000).unwrap();
        connection.encoding = Encoding::Json;
        let list = List { reference: Ref::Text("l".into()), after: Some(1), limit: None };
        for question in [Question::List(list), Question::Info(Ref::Number(2), "a".into())] {
            connection.questions.push_back(question);
            connection.awaited += 1;
        }
        let reply = connection.reply_to(&Ref::Text("r".into()), false);
        let args = Payload(Cow::Owned(vec![0x91, 0xa1, b'x']));
        let task = Task { id: 1, method: Cow::Borrowed("m"), args, from: None, wait: false };
        connection.say_task(&Reply::Task(task), MessageId(1)).unwrap();
        let (unwritten, carried) = (connection.unwritten(), connection.carried());
        let text = rmp_serde::to_vec_named(&carried).unwrap();
        let carried: Carried = rmp_serde::from_slice(&text).unwrap();
        let Connection { stream, .. } = connection;
        let mut connection = Connection::again(carried, stream);
        assert_eq!((connection.unwritten(), connection.awaited, connection.stalled), (unwritten, 1, true));
        assert_eq!(connection.first_unwritten_task(), Some(MessageId(1)));
        assert_eq!(connection.charge().unread, 0, "tasks are charged to their mailboxes");
        connection.flush(&mut Vec::new()).unwrap();
        assert_eq!(connection.first_unwritten_task(), None);
        let mut line = vec![0; unwritten];
        theirs.read_exact(&mut line).unwrap();
        assert!(line.starts_with(b"{\"task\":{\"id\":1,") && line.ends_with(b"\n"));
        assert_eq!(connection.outcome_reference(reply.token), Some(Ref::Text("r".into())));
        theirs.write_all(b"tus\":{\"ref\":10}}\n").unwrap();
        connection.read(&mut Vec::new(), 1000).unwrap();
        let mut asked = Vec::new();
        while let Some(request) = connection.decoder.next::<ToSupervisor>().unwrap() {
            asked.push(format!("{request:?}").chars().filter(char::is_ascii_digit).collect::<String>());
        }
        assert_eq!(asked, ["1", "2", "9", "10"], "list after 1, info 2, info 9, status 10");
    }
}
