//! The control socket: a JSON command a line, a JSON answer a line, in the same order.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::command::{Answer, Command, CommandError, Console};
use super::serve::stopped;

/// Its name in the network's directory.
pub(super) const SOCKET: &str = "ctl.sock";
/// The longest line, its end included.
const LINE_BYTES: u64 = 64 * 1024;
/// Who is answered at once; further ones wait in the socket's backlog.
const CLIENTS: usize = 32;

/// Gives a command to the network whose directory is `state`, and waits for its answer.
pub async fn ask(state: &Path, command: &Command) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(state.join(SOCKET)).await?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(LINE_BYTES).read_until(b'\n', &mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the network ended without an answer"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Answers until the network stops.
pub(super) async fn serve(listener: UnixListener, console: Console, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    let mut conversations = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("never closed");
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
            Some(_) = conversations.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let console = console.clone();
                conversations.spawn(async move {
                    if let Err(error) = converse(&console, stream).await {
                        debug!(%error, "a control connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(console: &Console, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut read).take(LINE_BYTES).read_until(b'\n', &mut line).await?;
        let whole = line.ends_with(b"\n");
        if !whole && line.len() as u64 >= LINE_BYTES {
            let error = Answer::Error(format!("a line has at most {LINE_BYTES} bytes"));
            return say(&mut write, &error).await;
        }
        if line.trim_ascii().is_empty() {
            match whole {
                true => continue,
                false => return Ok(()),
            }
        }
        let answer = match serde_json::from_slice::<Command>(&line) {
            Ok(command) => match console.tell(command).await {
                Ok(answer) => answer,
                Err(error @ (CommandError::Refused(_) | CommandError::Ended)) => Answer::Error(error.to_string()),
            },
            Err(error) => Answer::Error(format!("no command: {error}")),
        };
        say(&mut write, &answer).await?;
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}
