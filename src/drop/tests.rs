//! The format against vectors that other implementations made, against a model, and against people who mean harm.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;

use super::chain::{Progress, Standing, part_name, whole_name};
use super::*;

const M: usize = 1549;

fn key() -> SyncKey {
    SyncKey::of_root(&std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap()))
}

fn header(name: &str, body: &[u8]) -> Header {
    Header {
        name: name.to_owned(),
        size: body.len() as u64,
        digest: Some(*blake3::hash(body).as_bytes()),
        ..Header::default()
    }
}

/// All boxes of a record, cut `slice` boxes at a time.
fn boxes(header: &Header, body: &[u8], first: u64, m: usize, alone: bool, slice: usize) -> Vec<Vec<u8>> {
    let cutter = Cutter::new(header, first, m, alone, key()).unwrap();
    let bytes = [cutter.head(), body].concat();
    let (mut position, mut boxes) = (0, Vec::new());
    while position < bytes.len() {
        let seen = &bytes[position..bytes.len().min(position + cutter.needs(slice))];
        let cut = cutter.cut(position as u64, first + boxes.len() as u64, seen);
        assert!(!cut.is_empty(), "it goes on");
        for payload in cut {
            position += payload.len();
            boxes.push(payload.to_vec());
        }
    }
    boxes
}

fn feed_all(assembler: &mut Assembler, first: u64, boxes: &[Vec<u8>]) -> Vec<Event> {
    (first..).zip(boxes).flat_map(|(counter, payload)| assembler.feed(counter, Input::Box(payload))).collect()
}

fn completed(events: &[Event]) -> Vec<(u64, u64)> {
    let complete = |event: &Event| match event {
        Event::Complete { first, end, .. } => Some((*first, *end)),
        _ => None,
    };
    events.iter().filter_map(complete).collect()
}

#[test]
fn the_vectors_of_other_implementations_hold() {
    let all: Value = serde_json::from_str(include_str!("../../testdata/drop/vectors.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let key = SyncKey::of_root(&hex::decode(text(&all["root"])).unwrap());
    for vector in all["sync"].as_array().unwrap() {
        let counter = text(&vector["counter"]).parse().unwrap();
        assert_eq!(hex::encode(key.at(counter)), text(&vector["sync"]));
    }
    for vector in all["headers"].as_array().unwrap() {
        let bytes = hex::decode(text(&vector["header"])).unwrap();
        let body = hex::decode(text(&vector["body"])).unwrap();
        let (header, length) = Header::decode(&[&bytes[..], &body].concat()).unwrap();
        assert_eq!(length, bytes.len(), "{}", vector["what"]);
        assert_eq!(hex::encode(header.encode(M).unwrap()), hex::encode(&bytes), "{}", vector["what"]);
        let fields = vector["fields"].as_object().unwrap();
        assert_eq!(header.name, text(&fields["name"]));
        assert_eq!(header.size, fields["size"].as_u64().unwrap());
        assert_eq!(header.path, fields.get("path").map(text).unwrap_or_default());
        assert_eq!(header.kind == Kind::EmptyDirectory, fields.contains_key("kind"));
        assert_eq!(header.part.map(|part| part.number), fields.get("part").map(|part| part.as_u64().unwrap() as u32));
        assert_eq!(header.raw.as_ref().map(|raw| raw.size), fields.get("raw_size").map(|size| size.as_u64().unwrap()));
        assert_eq!(header.mtime, fields.get("mtime").map(|time| time.as_i64().unwrap()));
        if let Some(counter) = vector["counter"].as_u64() {
            assert_eq!(key.find(counter, &bytes).map(|(_, length)| length), Some(bytes.len()));
            assert_eq!(key.find(counter + 1, &bytes), None);
        }
    }
}

/// Three files, of which the second is deleted: its contents first, and its header at last. However far that has come, a
/// reader who comes then gets the other two, and hears of no trouble but that the second was deleted.
#[test]
fn a_deleted_record_is_passed_over_however_far_its_deletion_has_come() {
    let body = vec![7; 4 * M];
    let mut all = Vec::new();
    let mut ranges = Vec::new();
    for name in ["a", "b", "c"] {
        let begin = all.len();
        all.extend(boxes(&header(name, &body), &body, begin as u64, M, true, 3));
        ranges.push(begin as u64..all.len() as u64);
    }
    let deleted = ranges[1].clone();
    let order: Vec<_> = (deleted.start + 1..deleted.end).chain([deleted.start]).collect();
    for far in 0..=order.len() {
        let mut assembler = Assembler::new(key());
        let feed = |(counter, payload): (u64, &Vec<u8>)| {
            let gone = order[..far].contains(&counter);
            assembler.feed(counter, if gone { Input::Tombstone } else { Input::Box(payload) })
        };
        let events: Vec<_> = (0..).zip(&all).flat_map(feed).collect();
        let whole = completed(&events);
        let expected = if far == 0 { vec![0, 1, 2] } else { vec![0, 2] };
        assert_eq!(whole, expected.iter().map(|&at| (ranges[at].start, ranges[at].end)).collect::<Vec<_>>(), "{far}");
        let trouble = events.into_iter().filter(|event| matches!(event, Event::Broken { .. } | Event::Astray { .. }));
        let fault = Fault::Deleted(deleted.start + 1);
        let expected = Event::Broken { first: deleted.start, end: deleted.start + 1, fault };
        let in_the_middle = far > 0 && far < order.len();
        assert_eq!(
            trouble.collect::<Vec<_>>(),
            in_the_middle.then_some(expected).into_iter().collect::<Vec<_>>(),
            "{far}"
        );
    }
}

/// Others may delete a file from its header on, and send without a sync. What is left of the file is passed over, and the
/// next header counts.
#[test]
fn what_is_left_behind_a_deleted_header_is_passed_over_and_the_next_file_is_found() {
    let mut assembler = Assembler::new(key());
    let plain = Header { digest: None, ..header("next", b"hello") };
    let mut encoded = plain.encode(M).unwrap();
    encoded.extend(b"hello");
    let left = vec![7; M];
    let inputs = [Input::Tombstone, Input::Box(&left), Input::Tombstone, Input::Box(&left), Input::Box(&encoded)];
    let events: Vec<_> = (0..).zip(inputs).flat_map(|(at, input)| assembler.feed(at, input)).collect();
    assert_eq!(completed(&events), [(4, 5)]);
    assert_eq!(events.len(), 2, "{events:?}");
    assembler.feed(5, Input::Tombstone);
    assert!(matches!(assembler.feed(6, Input::Lost)[..], [Event::Astray { at: 6, fault: Fault::Missing(6) }]));
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_passed_over() {
    let map = |keys: &[(&str, ciborium::Value)]| {
        let map = keys.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
        let mut bytes = Vec::new();
        ciborium::into_writer(&ciborium::Value::Map(map), &mut bytes).unwrap();
        Header::decode(&bytes).map(|(header, _)| header)
    };
    let (name, size) = (("name", "x".into()), ("size", 7.into()));
    let nested = ciborium::Value::Array(vec![ciborium::Value::Map(vec![(1.into(), 2.0.into())])]);
    let read = map(&[("later", nested), size.clone(), ("b", ciborium::Value::Bytes(vec![1])), name.clone()]).unwrap();
    assert_eq!((read.name.as_str(), read.size), ("x", 7));
    assert_eq!(map(std::slice::from_ref(&name)), Err(HeaderError::Missing("size")));
    assert_eq!(map(&[name.clone(), size.clone(), size.clone()]), Err(HeaderError::Bad("size")));
    assert_eq!(map(&[name.clone(), ("size", (MAX_SIZE + 1).into())]), Err(HeaderError::Bad("size")));
    assert_eq!(map(&[name.clone(), ("size", (-1).into())]), Err(HeaderError::Bad("size")));
    assert_eq!(map(&[("name", 1.into()), size.clone()]), Err(HeaderError::Bad("name")));
    for (key, value) in [
        ("digest", ciborium::Value::Bytes(vec![0; 31])),
        ("sync", "sixteen bytes ..".into()),
        ("path", "x".repeat(MAX_PATH_BYTES + 1).into()),
        ("kind", 1.into()),
        ("part", 1.into()),
        ("last", ciborium::Value::Array(vec![1.into()])),
        ("mode", 0o10000.into()),
    ] {
        assert!(map(&[name.clone(), size.clone(), (key, value.clone())]).is_err(), "{key} {value:?}");
    }
}

#[test]
fn a_header_that_fits_no_box_is_not_sent() {
    let longest = Header { path: "p".repeat(MAX_PATH_BYTES), ..header(&"n".repeat(255), b"") };
    assert!(longest.encode(M).unwrap().len() <= M - 4);
    let too_long = longest.encode(1000).unwrap_err();
    assert!(matches!(too_long, HeaderError::TooLong { limit: 996, .. }), "{too_long}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_cut_is_assembled_however_the_work_is_divided(
        sizes in prop::collection::vec(0_usize..9000, 1..5),
        m in 200_usize..1600,
        first in 0_u64..u64::MAX / 2,
        alone: bool,
        slice in 1_usize..9,
    ) {
        let bodies: Vec<Vec<u8>> = sizes.iter().map(|&size| (0..size).map(|at| (at * 7 + size) as u8).collect()).collect();
        let mut assembler = Assembler::new(key());
        let mut next = first;
        for body in &bodies {
            let header = header("a file", body);
            let cut = boxes(&header, body, next, m, alone, slice);
            prop_assert_eq!(&cut, &boxes(&header, body, next, m, alone, 1000), "the same boxes");
            prop_assert!(cut.iter().all(|payload| (1..=m).contains(&payload.len())));
            let head = Header { sync: Some(key().at(next)), ..header }.encode(m).unwrap();
            prop_assert_eq!(&cut.concat()[head.len()..], &body[..]);
            prop_assert_eq!(cut[0].len() == head.len(), alone || body.is_empty());
            let events = feed_all(&mut assembler, next, &cut);
            let end = next + cut.len() as u64;
            prop_assert_eq!(completed(&events), vec![(next, end)]);
            prop_assert_eq!(events.len(), 2);
            next = end;
        }
    }

    #[test]
    fn a_lost_box_costs_only_its_own_record(lost in 0_usize..40, joined in 0_usize..40, deleted: bool) {
        let body = vec![7; 4 * M];
        let mut all = Vec::new();
        let mut ranges = Vec::new();
        while all.len() < 40 {
            let begin = all.len();
            all.extend(boxes(&header("f", &body), &body, begin as u64, M, false, 3));
            ranges.push((begin as u64, all.len() as u64));
        }
        let mut assembler = Assembler::astray(key());
        let mut events = Vec::new();
        for (counter, payload) in all.iter().enumerate().skip(joined) {
            let input = match counter == lost {
                true if deleted => Input::Tombstone,
                true => Input::Lost,
                false => Input::Box(payload),
            };
            events.extend(assembler.feed(counter as u64, input));
        }
        let whole = |&&(begin, end): &&(u64, u64)| {
            begin >= joined as u64 && !(begin..end).contains(&(lost as u64))
        };
        prop_assert_eq!(completed(&events), ranges.iter().filter(whole).copied().collect::<Vec<_>>());
    }

    #[test]
    fn names_become_safe_and_harmless_ones_stay(name: String, count in 0_u32..1000) {
        let safe = SafeName::of(&name);
        for safe in [safe.clone(), safe.numbered(count)] {
            let text = safe.as_str();
            prop_assert!((1..=MAX_FILE_NAME_BYTES).contains(&text.len()));
            prop_assert!(!text.chars().any(|c| c.is_control() || c == '/' || c == '\\'));
            prop_assert!(text != "." && text != "..");
            prop_assert_eq!(&SafeName::of(text), &safe);
        }
    }

    #[test]
    fn a_body_is_packed_and_unpacked(body in prop::collection::vec(0_u8..4, 0..20_000)) {
        let mut frame = Vec::new();
        let packed = pack(&mut &body[..], &mut frame).unwrap();
        prop_assert_eq!((packed.raw_size, packed.size), (body.len() as u64, frame.len() as u64));
        prop_assert_eq!(packed.digest, *blake3::hash(&frame).as_bytes());
        prop_assert_eq!(unpack(&frame, packed.raw_size).unwrap(), body);
    }
}

/// What the writer relays, somebody else may have made, who knows the sync of every index: here each box that follows,
/// as far as whoever made the file could tell, begins with a header that is right for its place.
#[test]
fn a_forged_sync_in_a_relayed_file_begins_no_record() {
    let (first, m) = (1000, 400);
    for shift in 0..3 {
        let mut body = Vec::new();
        let head = Header { sync: Some(key().at(first)), ..header("evil", &vec![0; 4000]) }.encode(m).unwrap();
        for counter in first + 1..first + 9 {
            // Boxes before this one may be shortened already: it aims at each place in turn.
            body.resize((counter - first) as usize * m - head.len() - shift, b' ');
            for at in [counter, counter + 1] {
                let forged = Header { sync: Some(key().at(at)), ..header("x", b"") }.encode(m).unwrap();
                body.extend(forged);
            }
        }
        body.resize(4000, b'.');
        let evil = header("evil", &body);
        let cut = boxes(&evil, &body, first, m, false, 2);
        assert_eq!(cut, boxes(&evil, &body, first, m, false, 100));
        let events = feed_all(&mut Assembler::new(key()), first, &cut);
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(completed(&events), [(first, first + cut.len() as u64)]);
        // Nor for who joins in the middle.
        let mut late = Assembler::astray(key());
        assert_eq!(feed_all(&mut late, first + 1, &cut[1..]), []);
        assert!(shift > 0 || cut.iter().any(|payload| payload.len() == m - 1), "the first attempt hits a box");
    }
}

#[test]
fn a_header_that_is_alone_stays_whole_whatever_the_body_begins_with() {
    let first = 70;
    let body = Header { sync: Some(key().at(first + 1)), ..header("x", b"") }.encode(M).unwrap();
    let relayed = header("evil", &body);
    let cut = boxes(&relayed, &body, first, M, true, 1);
    assert_eq!(cut.len(), 2);
    let events = feed_all(&mut Assembler::new(key()), first, &cut);
    assert_eq!(completed(&events), [(first, first + 2)]);
    assert_eq!(feed_all(&mut Assembler::astray(key()), first + 1, &cut[1..]), []);
}

#[test]
fn records_of_pigeonhole_cp_follow_one_another() {
    let plain = |name: &str, body: &[u8]| {
        let head = Header { name: name.to_owned(), size: body.len() as u64, ..Header::default() }.encode(M).unwrap();
        [&head[..], body].concat()
    };
    let mut assembler = Assembler::new(key());
    let (one, two) = (plain("one", &[1; 3 * M]), plain("two", b""));
    // As its direct mode cuts, and as a copy command does.
    let mut cut: Vec<Vec<u8>> = one.chunks(M).map(<[u8]>::to_vec).collect();
    cut.push(two);
    cut.extend(one.chunks(M - 4).map(<[u8]>::to_vec));
    let events = feed_all(&mut assembler, 5, &cut);
    assert_eq!(completed(&events), [(5, 9), (9, 10), (10, 14)]);
    // Surplus bytes in the last box are ignored.
    let surplus = [plain("x", b"abc"), vec![0xa2; 50]].concat();
    assert_eq!(completed(&feed_all(&mut assembler, 14, &[surplus])), [(14, 15)]);
}

#[test]
fn lies_are_told_apart_and_the_next_record_is_read() {
    let next = |counter: u64| boxes(&header("next", b"good"), b"good", counter, M, false, 1).remove(0);
    let faulty = |payloads: Vec<Vec<u8>>| {
        let mut assembler = Assembler::new(key());
        let mut events = feed_all(&mut assembler, 0, &payloads);
        let counter = payloads.len() as u64;
        events.extend(assembler.feed(counter, Input::Box(&next(counter))));
        assert_eq!(completed(&events), [(counter, counter + 1)], "{events:?}");
        let fault = events.into_iter().find_map(|event| match event {
            Event::Broken { fault, .. } | Event::Astray { fault, .. } => Some(fault),
            _ => None,
        });
        fault.expect("a fault")
    };
    let raw = |header: Header| Header { sync: Some(key().at(0)), ..header }.encode(M).unwrap();
    let digest_lie = raw(Header { digest: Some([0; 32]), ..header("d", b"abc") });
    assert_eq!(faulty(vec![[&digest_lie[..], b"abc"].concat()]), Fault::Digest);
    let size_lie = raw(Header { size: MAX_SIZE, ..header("s", b"abc") });
    assert_eq!(faulty(vec![[&size_lie[..], b"abc"].concat()]), Fault::BrokenOff { bytes: 3, size: MAX_SIZE });
    let elsewhere = Header { sync: Some([9; 16]), ..header("w", b"") }.encode(M).unwrap();
    assert_eq!(faulty(vec![elsewhere]), Fault::WrongPlace(0));
    let none = Fault::Header { at: 0, error: HeaderError::NotAHeader };
    assert_eq!(faulty(vec![b"hello".to_vec(), vec![0xa2; 1000]]), none);
    assert_eq!(faulty(vec![vec![0xbf; M]]), none, "deeper than anything nests");
}

/// Whatever comes, nothing panics, and what was sent honestly afterwards is read.
#[test]
fn ten_thousand_broken_headers_break_nothing() {
    let mut random = StdRng::seed_from_u64(7);
    let model = Header {
        path: "a/b".to_owned(),
        part: Some(Part { chain: [1; 16], number: 3, last: Some(Total { size: 9, digest: [2; 32] }) }),
        mode: Some(0o644),
        mtime: Some(1 << 40),
        ..header("a name", b"body")
    };
    let good = [Header { sync: Some(key().at(0)), ..model }.encode(M).unwrap(), b"body".to_vec()].concat();
    let mut counter = 0;
    let mut assembler = Assembler::new(key());
    for round in 0..10_000_u64 {
        let mut bytes = good.clone();
        match round % 4 {
            0 => {
                for _ in 0..random.random_range(1..6) {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = random.random();
                }
            }
            1 => bytes.truncate(random.random_range(1..bytes.len())),
            2 => {
                // A length that claims anything, somewhere.
                let at = random.random_range(0..bytes.len());
                let head = [random.random_range(0..8_u8) << 5 | 27].into_iter().chain(random.random::<[u8; 8]>());
                bytes.splice(at..at, head);
            }
            _ => {
                bytes.resize(random.random_range(1..M), 0);
                random.fill_bytes(&mut bytes);
                bytes[0] = 0xa0 | bytes[0] & 0x1f;
            }
        }
        let _ = Header::decode(&bytes);
        let events = assembler.feed(counter, Input::Box(&bytes));
        assert!(events.len() <= 3);
        counter += 1;
        if round % 100 == 99 {
            let honest = boxes(&header("honest", b"yes"), b"yes", counter, M, false, 1);
            let events = feed_all(&mut assembler, counter, &honest);
            assert_eq!(completed(&events), [(counter, counter + 1)]);
            counter += 1;
        }
    }
}

#[test]
fn evil_names_lead_nowhere() {
    let long = "ü".repeat(5000);
    for (name, safe) in [
        ("a.txt", "a.txt"),
        ("with space ü.tar.gz", "with space ü.tar.gz"),
        (".hidden", ".hidden"),
        ("what? 100%: <yes>*", "what? 100%: <yes>*"),
        ("", "_"),
        (".", "_"),
        ("..", "__"),
        ("../x", ".._x"),
        ("/etc/passwd", "_etc_passwd"),
        ("..\\..\\x", ".._.._x"),
        ("a\0b", "a_b"),
        ("a\nb\x1b[2J", "a_b_[2J"),
        ("gpj.\u{202e}exe", "gpj._exe"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("Lpt1.tar.gz", "_Lpt1.tar.gz"),
        ("console", "console"),
        ("COM10", "COM10"),
    ] {
        assert_eq!(SafeName::of(name).as_str(), safe, "{name:?}");
    }
    let cut = SafeName::of(&format!("{long}.tar.gz"));
    assert!(cut.as_str().len() <= MAX_FILE_NAME_BYTES && cut.as_str().ends_with(".tar.gz"));
    assert_ne!(cut, SafeName::of(&format!("{long}x.tar.gz")), "different names stay different");
    assert_eq!(SafeName::of("a.tar.gz").numbered(2).as_str(), "a~2.tar.gz");
    assert_eq!(SafeName::of(".x").numbered(1).as_str(), ".x~1");
    assert_eq!(SafeName::of(&"n".repeat(255)).numbered(12).as_str().len(), 255);
    for (path, safe) in
        [("", ""), ("a/b c", "a/b c"), ("/etc//x/", "etc/x"), ("../../a/./..", "__/__/a/__"), ("a/\0/NUL", "a/_/_NUL")]
    {
        assert_eq!(SafePath::of(path).to_string(), safe, "{path:?}");
    }
    assert_eq!(SafePath::of(&"d/".repeat(500)).names().len(), 64);
}

#[test]
fn a_chain_is_whole_when_its_parts_add_up() {
    let total = Total { size: 30, digest: [1; 32] };
    let part = |number, last: Option<Total>| (Part { chain: [0; 16], number, last }, 10);
    let last = part(3, Some(total));
    let standing = |parts: &[(Part, u64)]| Progress::default().take(parts.iter().copied());
    assert_eq!(standing(&[part(1, None), part(2, None), last]), Standing::Whole(total));
    assert_eq!(standing(&[part(1, None), part(1, None), part(2, None), last]), Standing::Whole(total), "sent again");
    assert_eq!(standing(&[part(1, None), last]), Standing::Missing { part: 2 });
    assert_eq!(standing(&[part(1, None), part(2, None)]), Standing::Missing { part: 3 });
    assert_eq!(standing(&[part(2, None)]), Standing::Missing { part: 1 });
    let lie = part(2, Some(Total { size: 99, ..total }));
    assert_eq!(standing(&[part(1, None), lie]), Standing::Wrong { bytes: 20, promised: 99 });
    let mut later = Progress::default();
    assert_eq!(later.take([part(1, None), last]), Standing::Missing { part: 2 });
    assert_eq!(later.take([part(2, None), last]), Standing::Whole(total), "what was counted is not counted again");
    assert_eq!((part_name("a.tar", 7).as_str(), whole_name("a.tar.part-00007")), ("a.tar.part-00007", "a.tar"));
    assert_eq!(whole_name("x.part-7y"), "x.part-7y");
}

#[test]
fn a_bomb_does_not_go_off() {
    let bomb = {
        let mut frame = Vec::new();
        pack(&mut std::io::Read::take(std::io::repeat(0), 64 << 20), &mut frame).unwrap();
        frame
    };
    assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
    let lie = unpack(&bomb, 1000);
    assert!(matches!(lie, Err(UnpackError::Size { promised: 1000 })), "{lie:?}");
    let short = unpack(&bomb, (64 << 20) + 1);
    assert!(matches!(short, Err(UnpackError::Size { .. })), "{short:?}");
    assert!(unpack(&bomb, 64 << 20).unwrap().iter().all(|&byte| byte == 0), "it may be as long as it says");
    assert!(matches!(unpack(b"no frame", 8), Err(UnpackError::Frame(_))));
    assert!(unpack(&bomb[..50], 64 << 20).is_err(), "cut off");
    // More than can come out of a body is no header of one.
    let claims = |raw_size: u64| {
        let raw = Some(Raw { name: None, size: raw_size });
        Header { raw, ..header("zeros.zst", &bomb) }.encode(1549)
    };
    assert!(claims(64 << 20).is_ok());
    assert_eq!(claims(MAX_SIZE), Err(HeaderError::Bad("raw_size")));
    assert_eq!(claims((bomb.len() as u64 + 2) << 15), Err(HeaderError::Bad("raw_size")));
}

fn unpack(frame: &[u8], promised: u64) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = Unpacker::new(frame, promised)?;
    let mut out = Vec::new();
    loop {
        let bytes = unpacker.piece()?;
        if bytes.is_empty() {
            return Ok(out);
        }
        out.extend_from_slice(bytes);
    }
}
