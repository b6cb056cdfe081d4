//! A chat of two: `cargo run --example 15_chat STATE [thinclient.toml]`
//!
//! Prints the capability of what is typed here. The other one's is typed first, then what there is to say; at the end of the input
//! the chat ends. Whoever begins again with the same state reads all of it again.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;
use std::time::Duration;

use pigeonfs::state::{ErrorKind, Kind, Options, State};
use pigeonfs::thin::{Config, Discovery, Environment};
use tokio::io::{AsyncBufReadExt, BufReader};

const GONE: &str = "(gone)";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let state = args.next().ok_or("say where the state is to be")?;
    let (config, environment) = (args.next().map(Into::into), Environment::of_process());
    let daemon = Config::discover(&Discovery { config, environment, ..Discovery::default() })?;

    let state = State::open(Options::new(state).daemon(daemon)).await?;
    let ours = state.create("ours", Kind::Stream).await?.stream()?;
    println!("ours: {}", *ours.share().await?.to_text());

    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    let first = typed.next_line().await?.ok_or("the other one's capability is missing")?;
    let theirs = match state.add("theirs", &first.parse()?).await {
        // It was added before.
        Err(error) if error.kind == ErrorKind::Busy => state.stream("theirs").await?,
        added => added?.stream()?,
    };
    // Looked at often for an hour, as two who talk do not want to wait.
    theirs.follow(Duration::from_secs(3600)).await?;

    let say = async {
        while let Some(line) = typed.next_line().await? {
            ours.append(line + "\n").await?;
        }
        ours.append(format!("{GONE}\n")).await?;
        Ok::<_, Box<dyn Error>>(ours.wait_stored(None).await.map(drop)?)
    };
    let hear = async {
        let mut heard = BufReader::new(theirs.reader().follow()).lines();
        while let Some(line) = heard.next_line().await?.filter(|line| line != GONE) {
            println!("> {line}");
        }
        Ok(())
    };
    tokio::try_join!(say, hear)?;
    state.close().await?;
    Ok(())
}
