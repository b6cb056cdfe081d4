//! Back up a directory: `cargo run --example 17_backup_of_a_directory STATE DIRECTORY [thinclient.toml]`
//!
//! Sends each file of the directory through a drop, compressed where that helps. When it is begun anew, it sends what was modified
//! or has come since, and goes on with the rest. Prints the capability that `18_fetcher_that_resumes` restores it with.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::collections::HashSet;
use std::error::Error;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use pigeonfs::state::{Compress, Kind, Options, Outgoing, State};
use pigeonfs::thin::{Config, Discovery, Environment};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let state = args.next().ok_or("say where the state is to be")?;
    let directory = PathBuf::from(args.next().ok_or("say what is to be sent")?);
    let (config, environment) = (args.next().map(Into::into), Environment::of_process());
    let daemon = Config::discover(&Discovery { config, environment, ..Discovery::default() })?;

    let state = State::open(Options::new(state).daemon(daemon)).await?;
    let backup = state.create("backup", Kind::Drop).await?.outbox()?;
    println!("to restore it: {}", *backup.share().await?.to_text());

    let (mut sent, mut after) = (HashSet::new(), 0);
    while let page = backup.files(after).await?
        && let Some(last) = page.last()
    {
        after = last.record;
        sent.extend(
            page.into_iter().filter(|file| file.state != "broken").map(|file| (file.name, file.size, file.mtime)),
        );
    }
    let mut under_way = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let (path, found) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let seconds = i64::try_from(found.modified()?.duration_since(UNIX_EPOCH)?.as_secs())?;
        if found.is_file() && !sent.contains(&(name, found.len(), Some(seconds))) {
            let file = Outgoing::file(path)?.modified(found.modified()?).compress(Compress::Auto);
            under_way.push(backup.send(file).await?);
        }
    }
    for mut sent in under_way {
        while let Some(file) = sent.progress().await? {
            println!("{}: {} of {} bytes", file.name, file.done, file.sent_size);
        }
    }
    backup.wait_stored(None).await?;
    println!("all is stored");
    state.close().await?;
    Ok(())
}
