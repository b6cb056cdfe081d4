//! Send a message to a service of the mixnet and wait for its reply: `cargo run --example 04_echo [thinclient.toml]`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::thin::{Client, ClientOptions, Config, Destination, Discovery, Environment};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;
    let deadline = client.deadline_for(1);

    let document = client.pki_document().ok_or("a connected daemon has a document")?;
    let echo = document.service("echo").ok_or("this network has no echo")?;

    // One packet out and one back, each at most once: nothing repeats them, and a lost one is silence until the deadline.
    let sent = Instant::now();
    let reply = client.blocking_send_message(&Destination::from(echo), b"is anybody there?", deadline).await?;
    println!("after {:?}: {}", sent.elapsed(), String::from_utf8_lossy(&reply).trim_end_matches('\0'));

    client.close().await;
    Ok(())
}
