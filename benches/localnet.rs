//! How fast localnet is, beside plain SQLite on the same disk in the same run. Prints a table; judges nothing.
//!
//! Run by `cargo bench --bench localnet`, in some minutes; `-- --quick` uses fewer boxes. A localnet of its own process
//! is asked over its Unix socket by one client with 16 operations in flight, as the profile `instant` has it. Client and
//! network share the machine's processors.
//!
//! * Writes: strict, of envelopes made beforehand; each is on the disk when it is confirmed. They are measured twice: with
//!   frames made beforehand too, so that the client costs next to nothing, and with the thin client. Beside them a loop
//!   that commits the very same rows, as localnet left them, with the same tables, indices and settings, in groups of 16: as
//!   many as can ever wait together. What localnet does besides (it opens envelopes, checks signatures, looks for what is
//!   there already, answers) the loop does not.
//! * Reads: of random boxes, by envelopes made beforehand, with the thin client.
//! * Localnet's own processor time for each: it says the same on a machine that is busy with other things.
//! * With a million boxes: from the start of the process to the first byte of its greeting, and what it takes of memory.

#![allow(clippy::print_stdout)] // A table is what it is for.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pigeonfs::bacap::{BoxIndex, WriteCap};
use pigeonfs::thin::frame;
use pigeonfs::thin::message::{EncryptWrite, Octets, RequestFrame, ResponseFrame, StartResending, random_id};
use pigeonfs::thin::{Address, Client, ClientOptions, Config, Envelope, Missing, ReadOutcome, WriteMode, WriteOutcome};
use rusqlite::{Connection, params};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const IN_FLIGHT: usize = 16;
const ROUNDS: u8 = 3;
/// How often localnet and the bare loop take turns in a round.
const TURNS: usize = 10;

fn main() -> Outcome<()> {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    // `cargo test --all-targets` runs this too, and has no use for it.
    if !asked("--bench") {
        return Ok(());
    }
    let (operations, boxes) = if asked("--quick") { (2_000, 50_000) } else { (10_000, 1_000_000) };
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        speed(root.path(), operations, 0).await?;
        let state = root.path().join("many");
        filled(&state, boxes)?;
        large(&state, boxes)?;
        speed(root.path(), operations, boxes).await
    })
}

/// A localnet in a process of its own, which ends with this.
struct Network {
    process: Child,
    socket: PathBuf,
    /// From its start to its greeting.
    ready: Duration,
}

impl Network {
    fn start(state: &Path) -> Outcome<Self> {
        let since = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_pigeonfs"))
            .args([Path::new("localnet"), Path::new("--state"), state])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let socket = state.join("kpclientd.sock");
        let mut network = Self { process, socket, ready: Duration::ZERO };
        loop {
            if let Ok(mut stream) = UnixStream::connect(&network.socket)
                && stream.read_exact(&mut [0; 4]).is_ok()
            {
                network.ready = since.elapsed();
                return Ok(network);
            }
            if since.elapsed() > Duration::from_secs(120) || network.process.try_wait()?.is_some() {
                return Err("localnet did not start".into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    fn client(&self) -> Client {
        Client::start(Config::new(Address::Unix(self.socket.clone())), ClientOptions::default())
    }

    /// Resident memory now and at its most, in MiB.
    fn memory(&self) -> Outcome<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| -> Option<f64> {
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        Ok((field("VmRSS:").ok_or("no VmRSS")? / 1024.0, field("VmHWM:").ok_or("no VmHWM")? / 1024.0))
    }

    /// Processor time that it has used.
    fn processor(&self) -> Outcome<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).ok_or("no times");
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Killed, as what it has confirmed is on the disk.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes and reads per second, in a network that has so many boxes before.
async fn speed(root: &Path, operations: usize, boxes: u32) -> Outcome<()> {
    println!("\n{boxes} boxes in the network, {operations} operations a round, {IN_FLIGHT} in flight");
    let state = if boxes > 0 { root.join("many") } else { root.join("fresh") };
    let plain = root.join(format!("plain-{boxes}.db"));
    if boxes > 0 {
        std::fs::copy(state.join("localnet.db"), &plain)?;
    }
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let seed = 2 * round + if boxes > 0 { 100 } else { 0 };
        let network = Network::start(&state)?;
        let (framed, raw) = tokio::task::block_in_place(|| framed_writes(&network, seed, operations, &plain))?;
        let client = network.client();
        let cap = WriteCap::from_seed(&[seed + 1; 32]);
        let indices = Arc::new(indices(&cap, operations)?);
        let written = writes(&network, &client, &cap, &indices).await?;
        let read = reads(&network, &client, &cap, &indices).await?;
        let (now, most) = network.memory()?;
        client.close().await;
        drop(network);

        let per_second = |spent: &Spent| operations as f64 / spent.time.as_secs_f64();
        let each = |spent: &Spent| spent.processor.as_secs_f64() * 1e6 / operations as f64;
        let plain = operations as f64 / raw.as_secs_f64();
        let ratio = per_second(&framed) / plain;
        ratios.push(ratio);
        println!(
            "  round {}: writes {:>6.0}/s ({:>3.0} us of processor each)  SQLite {plain:>6.0}/s  ratio {ratio:.2}   \
             with the thin client: writes {:>6.0}/s ({:>3.0} us)  reads {:>6.0}/s ({:>3.0} us)   \
             memory {now:.0} MiB, at most {most:.0}",
            round + 1,
            per_second(&framed),
            each(&framed),
            per_second(&written),
            each(&written),
            per_second(&read),
            each(&read),
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "  ratio of durable writes to plain SQLite, median: {:.2} (goals: 0.25, reads 200 us of processor, memory 64 MiB)",
        ratios[ratios.len() / 2]
    );
    Ok(())
}

/// What operations took.
struct Spent {
    time: Duration,
    /// Of localnet.
    processor: Duration,
}

struct Measured<'a> {
    network: &'a Network,
    since: Instant,
    processor: Duration,
}

impl<'a> Measured<'a> {
    fn begin(network: &'a Network) -> Outcome<Self> {
        Ok(Self { network, processor: network.processor()?, since: Instant::now() })
    }

    fn end(self) -> Outcome<Spent> {
        Ok(Spent { time: self.since.elapsed(), processor: self.network.processor()? - self.processor })
    }
}

/// Writes of frames that were made beforehand, and the time that the bare loop takes for the same rows. They take turns, so
/// that what else the machine does hits both.
fn framed_writes(network: &Network, seed: u8, operations: usize, plain: &Path) -> Outcome<(Spent, Duration)> {
    let cap = WriteCap::from_seed(&[seed; 32]);
    let mut wire = Wire { stream: UnixStream::connect(&network.socket)?, bytes: Vec::new() };
    let mut frames = Vec::with_capacity(operations);
    for (number, index) in indices(&cap, operations)?.iter().enumerate() {
        frames.push(start_frame(&mut wire, &cap, index, number)?);
    }
    let database = network.socket.with_file_name("localnet.db");
    let mut spent = Spent { time: Duration::ZERO, processor: Duration::ZERO };
    let mut raw_time = Duration::ZERO;
    for frames in frames.chunks(operations.div_ceil(TURNS)) {
        let measured = Measured::begin(network)?;
        wire.exchange(frames)?;
        let turn = measured.end()?;
        spent = Spent { time: spent.time + turn.time, processor: spent.processor + turn.processor };
        raw_time += raw(&database, plain, frames.len())?;
    }
    Ok((spent, raw_time))
}

/// The frame that starts a strict write of what the daemon encrypted for it.
fn start_frame(wire: &mut Wire, cap: &WriteCap, index: &BoxIndex, number: usize) -> Outcome<Vec<u8>> {
    let query_id = || Some(Octets::from(random_id()));
    let write_cap = || Some(Octets::from(&cap.to_bytes()[..]));
    let encrypt = EncryptWrite {
        query_id: query_id(),
        plaintext: Some(payload(number).into()),
        write_cap: write_cap(),
        message_box_index: Some(Octets::from(&index.as_bytes()[..])),
    };
    wire.stream.write_all(&frame::encode(&RequestFrame::from(encrypt))?)?;
    let envelope = loop {
        if let Some(reply) = wire.heard()?.into_iter().find_map(|frame| frame.encrypt_write_reply) {
            break reply;
        }
    };
    let start = StartResending {
        query_id: query_id(),
        write_cap: write_cap(),
        envelope_descriptor: envelope.envelope_descriptor,
        message_ciphertext: envelope.message_ciphertext,
        envelope_hash: envelope.envelope_hash,
        no_idempotent_box_already_exists: true,
        ..StartResending::default()
    };
    Ok(frame::encode(&RequestFrame::from(start))?)
}

/// A connection without a client.
struct Wire {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Wire {
    /// Sends frames, [`IN_FLIGHT`] of them unanswered at most, until each write is confirmed.
    fn exchange(&mut self, frames: &[Vec<u8>]) -> Outcome<()> {
        let (mut waiting, mut room, mut answered) = (frames.iter(), IN_FLIGHT, 0);
        while answered < frames.len() {
            let next: Vec<u8> = waiting.by_ref().take(room).flatten().copied().collect();
            self.stream.write_all(&next)?;
            room = 0;
            for reply in self.heard()?.into_iter().filter_map(|frame| frame.start_resending_encrypted_message_reply) {
                if reply.error_code != 0 {
                    return Err(format!("a write ended with code {}", reply.error_code).into());
                }
                room += 1;
            }
            answered += room;
        }
        Ok(())
    }

    /// Waits for something, and gives the frames that have come whole.
    fn heard(&mut self) -> Outcome<Vec<ResponseFrame>> {
        let (before, mut frames) = (self.bytes.len(), Vec::new());
        self.bytes.resize(before + 64 * 1024, 0);
        let read = self.stream.read(&mut self.bytes[before..])?;
        self.bytes.truncate(before + read);
        if read == 0 {
            return Err("localnet hung up".into());
        }
        while let Some((length, body)) = self.bytes.split_first_chunk::<4>()
            && let Some(body) = body.get(..u32::from_be_bytes(*length) as usize)
        {
            frames.push(frame::decode(body)?);
            self.bytes.drain(..4 + body.len());
        }
        Ok(frames)
    }
}

async fn writes(network: &Network, client: &Client, cap: &WriteCap, indices: &[BoxIndex]) -> Outcome<Spent> {
    let envelopes = encrypted(client, indices, async |client, number, index| {
        Ok(client.encrypt_write(cap, index, &payload(number), deadline()).await?)
    });
    let envelopes = envelopes.await?;
    let (client, cap) = (client.clone(), cap.clone());
    let writes = together(indices.len(), move |number| {
        let (client, cap, envelopes) = (client.clone(), cap.clone(), Arc::clone(&envelopes));
        async move {
            let write = client.start_write(&cap, &envelopes[number], WriteMode::Strict, deadline()).await?;
            if write == WriteOutcome::Done { Ok(()) } else { Err("a box was there before".into()) }
        }
    });
    let measured = Measured::begin(network)?;
    writes.await?;
    measured.end()
}

async fn reads(network: &Network, client: &Client, cap: &WriteCap, indices: &Arc<Vec<BoxIndex>>) -> Outcome<Spent> {
    let (operations, cap) = (indices.len(), cap.read_cap().clone());
    let envelopes =
        encrypted(client, indices, async |client, _, index| Ok(client.encrypt_read(&cap, index, deadline()).await?));
    let envelopes = envelopes.await?;
    let (client, indices) = (client.clone(), Arc::clone(indices));
    let reads = together(operations, move |number| {
        // Not in the order of the writing.
        let number = number * 7919 % operations;
        let (client, cap) = (client.clone(), cap.clone());
        let (envelopes, indices) = (Arc::clone(&envelopes), Arc::clone(&indices));
        async move {
            let read = client.start_read(&cap, &indices[number], &envelopes[number], Missing::Report, deadline());
            match read.await? {
                ReadOutcome::Box(bytes) if bytes == payload(number) => Ok(()),
                _ => Err("a box is not what was written".into()),
            }
        }
    });
    let measured = Measured::begin(network)?;
    reads.await?;
    measured.end()
}

fn indices(cap: &WriteCap, count: usize) -> Outcome<Vec<BoxIndex>> {
    let mut indices = vec![cap.index().clone()];
    while indices.len() < count {
        indices.push(indices[indices.len() - 1].next()?);
    }
    Ok(indices)
}

fn payload(number: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(1549).collect()
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(120)
}

/// An envelope for each index.
async fn encrypted(
    client: &Client,
    indices: &[BoxIndex],
    encrypt: impl AsyncFn(&Client, usize, &BoxIndex) -> Outcome<Envelope>,
) -> Outcome<Arc<Vec<Envelope>>> {
    let mut envelopes = Vec::with_capacity(indices.len());
    for (number, index) in indices.iter().enumerate() {
        envelopes.push(encrypt(client, number, index).await?);
    }
    Ok(Arc::new(envelopes))
}

/// So many operations, [`IN_FLIGHT`] of them at a time.
async fn together<F>(operations: usize, start: impl Fn(usize) -> F + Clone + Send + 'static) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, start) = (Arc::clone(&next), start.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= operations {
                    return Ok(());
                }
                start(number).await?;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        let ended: Outcome<()> = ended?;
        ended?;
    }
    Ok(())
}

/// The settings of localnet's own connection.
fn settled(path: &Path) -> Outcome<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    for (name, value) in [("cache_size", -16 * 1024), ("wal_autocheckpoint", 4000)] {
        connection.pragma_update(None, name, value)?;
    }
    Ok(connection)
}

/// The time that a bare loop takes to commit the newest rows of a network's database once more, into one of the same schema.
fn raw(from: &Path, to: &Path, count: usize) -> Outcome<Duration> {
    let from = Connection::open(from)?;
    let rows = from
        .prepare("SELECT box_id, payload, signature, epoch, holders FROM box ORDER BY id DESC LIMIT ?")?
        .query_map([i64::try_from(count)?], |row| {
            Ok((
                row.get::<_, Vec<u8>>(0)?,
                row.get::<_, Vec<u8>>(1)?,
                row.get::<_, Vec<u8>>(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })?
        .collect::<Result<Vec<(_, _, _, i64, i64)>, _>>()?;
    let fresh = !to.exists();
    let to = settled(to)?;
    if fresh {
        to.execute_batch(&schema(&from)?)?;
    }
    let since = Instant::now();
    for group in rows.chunks(IN_FLIGHT) {
        to.execute_batch("BEGIN IMMEDIATE")?;
        for (box_id, payload, signature, epoch, holders) in group {
            to.prepare_cached("INSERT INTO box (box_id, payload, signature, epoch, holders) VALUES (?, ?, ?, ?, ?)")?
                .execute(params![box_id, payload, signature, epoch, holders])?;
        }
        to.execute_batch("COMMIT")?;
    }
    Ok(since.elapsed())
}

/// The statements that made the tables and indices of a database.
fn schema(database: &Connection) -> Outcome<String> {
    let mut statement =
        database.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', name")?;
    let statements = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(statements.join(";\n"))
}

/// A network with so many boxes, put into its database in bulk.
fn filled(state: &Path, boxes: u32) -> Outcome<()> {
    drop(Network::start(state)?);
    let database = Connection::open(state.join("localnet.db"))?;
    let epoch =
        (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() - 1_496_275_200) / 604_800;
    let mut indices =
        database.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")?;
    let indices = indices
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    // Indices are made last, in one go: it is the boxes that are wanted, not the time that they take.
    database.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; BEGIN")?;
    for (name, _) in &indices {
        database.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    {
        let sql = "INSERT INTO box (box_id, payload, signature, epoch, holders) VALUES (randomblob(32), ?, ?, ?, 3)";
        let mut insert = database.prepare(sql)?;
        let payload: Vec<u8> = (0..1569_u32).map(|n| u8::try_from(n * 31 % 251).unwrap_or(0)).collect();
        for _ in 0..boxes {
            insert.execute(params![payload, [7_u8; 64], i64::try_from(epoch)?])?;
        }
    }
    for (_, sql) in &indices {
        database.execute_batch(sql)?;
    }
    database.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

/// How soon a network with many boxes is ready, and what it takes of memory then.
fn large(state: &Path, boxes: u32) -> Outcome<()> {
    let mut ready = Vec::new();
    let mut resident = 0.0;
    for _ in 0..5 {
        let network = Network::start(state)?;
        ready.push(network.ready);
        resident = network.memory()?.0;
    }
    ready.sort();
    let bytes = std::fs::metadata(state.join("localnet.db"))?.len();
    println!(
        "\n{boxes} boxes, {:.0} MiB on disk: ready after {:.1} ms (median of {}, at most {:.1} ms; goal 200), \
         memory {resident:.0} MiB (goal 64; after work: below)",
        bytes as f64 / f64::from(1 << 20),
        ready[ready.len() / 2].as_secs_f64() * 1000.0,
        ready.len(),
        ready[ready.len() - 1].as_secs_f64() * 1000.0,
    );
    Ok(())
}
