//! What a service manager is told, where one asked for it: `sd_notify(3)`, one datagram a word.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use tracing::warn;

/// The mount is there.
pub(super) fn ready(path: &Path) {
    let path = path.display().to_string().replace('\n', " ");
    tell(&format!("READY=1\nSTATUS=mounted at {path}\nMAINPID={}", std::process::id()));
}

/// It is on its way out.
pub(super) fn stopping() {
    tell("STOPPING=1\nSTATUS=sending what is left");
}

fn tell(words: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, words) {
        warn!(%error, "the service manager at $NOTIFY_SOCKET could not be told");
    }
}

fn send(socket: &OsString, words: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(receiver: &UnixDatagram) -> String {
        let mut words = [0; 256];
        let count = receiver.recv(&mut words).expect("a datagram");
        String::from_utf8_lossy(&words[..count]).into_owned()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_reached() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).expect("bound");
        send(&path.into_os_string(), "READY=1").expect("sent");
        assert_eq!(heard(&at_path), "READY=1");

        let name = format!("pigeonfs-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let at_name = UnixDatagram::bind_addr(&address).expect("bound");
        send(&format!("@{name}").into(), "STOPPING=1").expect("sent");
        assert_eq!(heard(&at_name), "STOPPING=1");
    }

    #[test]
    fn anything_else_is_no_socket() {
        assert!(send(&"vsock:2:1234".into(), "READY=1").is_err());
    }
}
