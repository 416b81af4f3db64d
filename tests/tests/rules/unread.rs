//! A client that asks for much and takes nothing until it has asked for all.

use workhall_protocol::Client;
use workhall_protocol::args::Payload;
use workhall_protocol::client::Ticket;
use workhall_protocol::messages::{Call, OutcomeBody};
use workhall_tests::harness::{PATIENCE, Supervisor, payload};

/// Together more than the supervisor keeps for a peer before it stops reading from it.
const RESULTS: usize = 12;
const RESULT_BYTES: usize = (1 << 20) + 1;
/// Together more than a socket holds.
const REQUESTS: usize = 20;
const REQUEST_BYTES: usize = 100 << 10;

#[test]
fn outcomes_that_are_not_taken_do_not_keep_a_client_from_posting() {
    let mut supervisor = Supervisor::start();
    let mut client = supervisor.client();
    client.stream().set_write_timeout(Some(PATIENCE)).unwrap();
    let submit = |client: &mut Client<_>, method: &str, args: Payload<'_>| -> Ticket {
        client.submit(Call { wait: true, ..Call::new("a", method, args) }).unwrap()
    };
    let size = payload(&(RESULT_BYTES,));
    let results: Vec<Ticket> = (0..RESULTS).map(|_| submit(&mut client, "big", size.clone())).collect();
    client.flush().unwrap();
    supervisor.until("all are executed", |this| this.ledger("done") == RESULTS as u64);
    // The supervisor reads no more from this client, which has read nothing.
    let text = "x".repeat(REQUEST_BYTES);
    let large = payload(&(&text,));
    let requests: Vec<Ticket> = (0..REQUESTS).map(|_| submit(&mut client, "echo", large.clone())).collect();
    for ticket in results {
        let OutcomeBody::Done { result } = client.outcome(ticket).unwrap() else { panic!("it failed") };
        assert_eq!(result.decode::<String>().unwrap().len(), RESULT_BYTES);
    }
    for ticket in requests.into_iter().rev() {
        let OutcomeBody::Done { result } = client.outcome(ticket).unwrap() else { panic!("it failed") };
        assert_eq!(result.decode::<(String,)>().unwrap().0, text);
    }
    assert_eq!(supervisor.ledger("done"), (RESULTS + REQUESTS) as u64);
}
