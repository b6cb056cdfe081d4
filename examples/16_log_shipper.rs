//! Ship a log: `tail -F app.log | cargo run --example 16_log_shipper STATE [thinclient.toml]`
//!
//! Each line that comes in is safe on this disk before the next one is taken, and goes out whatever happens to this program,
//! the machine or the network. Prints the read capability, and how far replicas are.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::state::{Kind, Options, State};
use pigeonfs::thin::{Config, Discovery, Environment};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let state = args.next().ok_or("say where the state is to be")?;
    let (config, environment) = (args.next().map(Into::into), Environment::of_process());
    let daemon = Config::discover(&Discovery { config, environment, ..Discovery::default() })?;

    let state = State::open(Options::new(state).daemon(daemon)).await?;
    let log = state.create("log", Kind::Stream).await?.stream()?;
    println!("to read it: {}", *log.share().await?.to_text());

    let mut watch = log.watch();
    let tell = tokio::spawn(async move {
        let mut told = None;
        while let Ok(now) = watch.next().await {
            if told.replace(now.stored_bytes) != Some(now.stored_bytes) {
                println!("{} of {} bytes are stored", now.stored_bytes, now.size);
            }
        }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        log.append(line + "\n").await?;
    }
    log.wait_stored(None).await?;
    tell.abort();
    println!("all is stored");
    state.close().await?;
    Ok(())
}
