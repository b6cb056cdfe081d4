//! Fetch files: `cargo run --example 18_fetcher_that_resumes STATE DIRECTORY [thinclient.toml] < read.cap`
//!
//! Puts what has arrived in a drop into the directory, each file once, and ends where nothing more is there. What had arrived
//! before an interruption is not fetched again. The capability is needed once; from then on the state has it.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;
use std::path::PathBuf;

use pigeonfs::state::{Arrival, Kind, Options, Saving, State};
use pigeonfs::thin::{Config, Discovery, Environment};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let state = args.next().ok_or("say where the state is to be")?;
    let directory = PathBuf::from(args.next().ok_or("say where files are to go")?);
    let (config, environment) = (args.next().map(Into::into), Environment::of_process());
    let daemon = Config::discover(&Discovery { config, environment, ..Discovery::default() })?;

    let state = State::open(Options::new(state).daemon(daemon)).await?;
    let mut files = match state.inbox("files").await {
        Ok(there) => there,
        Err(_) => {
            let capability = std::io::read_to_string(std::io::stdin())?;
            state.add_as("files", &capability.trim().parse()?, Kind::Drop).await?.inbox()?
        }
    };
    while let Some(arrival) = files.next().await? {
        match arrival {
            Arrival::File(file) => {
                if let Some(path) = file.save_in(&directory, Saving::default()).await? {
                    println!("{}", path.display());
                }
            }
            Arrival::Broken { reason, record } => println!("{} was broken off: {reason}", record.name),
        }
    }
    println!("nothing more");
    state.close().await?;
    Ok(())
}
