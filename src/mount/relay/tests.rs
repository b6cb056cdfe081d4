//! The relay between two sockets: one stands for the device, and the test is the kernel and fuser.

use std::sync::mpsc;

use super::*;

/// A device, and fuser's end of the pair.
struct Ends {
    relay: Arc<Relay>,
    device: OwnedFd,
    fuser: OwnedFd,
    heard: mpsc::Receiver<Heard>,
}

fn ends() -> Ends {
    let (device, kernel) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
    for end in [&device, &kernel] {
        set_socket_send_buffer_size(end, 4 * MESSAGE_BYTES).expect("set");
    }
    let (tell, heard) = mpsc::channel();
    let (relay, fuser) = Relay::start(kernel, 2, move |it| tell.send(it).unwrap_or(())).expect("started");
    Ends { relay, device, fuser, heard }
}

/// The same with two requests, 2 and 4, that fuser has and nobody has answered.
fn with_two_due() -> Ends {
    let ends = ends();
    for unique in [2, 4] {
        put(&ends.device, &request(15, unique, b""));
        take(&ends.fuser);
    }
    ends
}

fn request(opcode: u32, unique: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(40 + body.len()).expect("short");
    let mut bytes = [length, opcode].map(u32::to_ne_bytes).concat();
    bytes.extend(unique.to_ne_bytes());
    bytes.resize(40, 0);
    bytes.extend(body);
    bytes
}

fn answer(unique: u64, data: &[u8]) -> Vec<u8> {
    [&message::answer_head(unique, 0, data.len()).expect("short")[..], data].concat()
}

fn put(end: &OwnedFd, message: &[u8]) {
    send(end, message, SendFlags::NOSIGNAL).expect("sent");
}

fn take(end: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; MESSAGE_BYTES];
    let (_, length) = recv(end, &mut buffer[..], RecvFlags::empty()).expect("received");
    buffer.truncate(length);
    buffer
}

#[test]
fn requests_and_answers_pass_unchanged_and_interrupts_are_taken_out() {
    let ends = ends();
    let lookup = request(1, 2, b"name\0");
    put(&ends.device, &lookup);
    put(&ends.device, &request(36, 3, &2_u64.to_ne_bytes()));
    put(&ends.device, &request(2, 4, &[0; 8]));
    put(&ends.device, &request(42, 4, &[0; 24]));
    let unknown = request(999, 6, b"of another time");
    put(&ends.device, &unknown);
    assert_eq!(take(&ends.fuser), lookup);
    assert_eq!(ends.heard.recv(), Ok(Heard::Interrupted(2)));
    assert_eq!(take(&ends.fuser), unknown, "what needs no answer goes no further");
    put(&ends.fuser, &answer(2, b"found"));
    assert!(ends.relay.settle(2, Err(libc::EIO)), "it was fuser's");
    assert_eq!(take(&ends.device), answer(2, b"found"));
}

#[test]
fn what_fuser_answers_or_tells_by_itself_is_passed_on_too() {
    let ends = ends();
    put(&ends.device, &request(999, 2, b""));
    take(&ends.fuser);
    put(&ends.fuser, &answer(2, b""));
    assert_eq!(take(&ends.device), answer(2, b""), "though nobody settled it");
    put(&ends.fuser, &answer(0, b"a notification"));
    ends.relay.drain();
    assert_eq!(take(&ends.device), answer(0, b"a notification"));
}

#[test]
fn a_request_that_cannot_be_passed_on_is_answered() {
    let ends = ends();
    put(&ends.device, &request(16, 2, &vec![7; LARGEST_DATA]));
    assert_eq!(take(&ends.fuser).len(), 40 + LARGEST_DATA, "the largest passes");
    drop(ends.fuser);
    put(&ends.device, &request(1, 4, b"name\0"));
    assert_eq!(take(&ends.device), message::answer_head(4, libc::EIO, 0).expect("short"));
    // A write that is lost is told of, so that nobody takes its file for whole.
    put(&ends.device, &request(16, 6, &9_u64.to_ne_bytes()));
    assert_eq!(take(&ends.device), message::answer_head(6, libc::EIO, 0).expect("short"));
    assert_eq!(ends.heard.try_iter().collect::<Vec<_>>(), [Heard::Lost(OfHandle::Change { handle: 9 })]);
}

#[test]
fn an_answer_that_fuser_could_not_send_is_given_in_its_place() {
    let ends = with_two_due();
    assert!(!ends.relay.settle(2, Ok(b"read")));
    assert_eq!(take(&ends.device), answer(2, b"read"));
    assert!(!ends.relay.settle(4, Err(libc::ENOSPC)));
    assert_eq!(take(&ends.device), message::answer_head(4, libc::ENOSPC, 0).expect("short"));
}

#[test]
fn data_goes_past_fuser_once() {
    let ends = with_two_due();
    assert!(ends.relay.answer_past_fuser(2, b"bytes of a file"));
    // What fuser says of it then is heard by nobody; nor is a second answer.
    put(&ends.fuser, &message::answer_head(2, libc::EIO, 0).expect("short"));
    ends.relay.drain();
    assert!(!ends.relay.answer_past_fuser(2, b"once more"));
    put(&ends.fuser, &answer(4, b"of fuser"));
    assert!(ends.relay.settle(4, Err(libc::EIO)));
    assert_eq!(take(&ends.device), answer(2, b"bytes of a file"));
    assert_eq!(take(&ends.device), answer(4, b"of fuser"), "and nothing between the two");
}

#[test]
fn many_who_answer_at_once_lose_and_double_nothing() {
    let ends = ends();
    const COUNT: u64 = 2000;
    let device = ends.device.try_clone().expect("a second descriptor");
    let kernel = thread::spawn(move || {
        let mut seen: Vec<u64> =
            (0..COUNT).map(|_| AnswerHead::of(&take(&device)).expect("an answer").unique).collect();
        seen.sort_unstable();
        seen
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..COUNT / 4 {
                    let unique = RequestHead::of(&take(&ends.fuser)).expect("a request").unique;
                    put(&ends.fuser, &answer(unique, &[9; 100]));
                    ends.relay.settle(unique, Err(libc::EIO));
                }
            });
        }
        (1..=COUNT).for_each(|n| put(&ends.device, &request(1, n * 2, b"name\0")));
    });
    assert_eq!(kernel.join().expect("no panic"), (1..=COUNT).map(|n| n * 2).collect::<Vec<_>>());
    assert!(ends.relay.lock().due.is_empty());
}

#[test]
fn the_end_of_the_device_ends_each_reader() {
    let ends = ends();
    drop(ends.device);
    for _ in 0..2 {
        assert_eq!(take(&ends.fuser), message::destroy());
    }
}
