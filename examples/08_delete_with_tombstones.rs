//! Delete messages with tombstones: `cargo run --example 08_delete_with_tombstones [thinclient.toml] < write.cap`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment, WriteMode};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;
    let deadline = client.deadline_for(4);

    let cap = WriteCap::from_base64(&std::io::read_to_string(std::io::stdin())?)?;

    // A tombstone is asked for by name: `encrypt_write` refuses the empty message that would be one.
    let envelope = client.encrypt_tombstone(&cap, cap.index(), deadline).await?;
    client.start_write(&cap, &envelope, WriteMode::Strict, deadline).await?;
    println!("the first box is deleted");

    // A range is an envelope a box. `complete` turns a range that was cut short into its error; without it, go on at
    // `next` with what is missing.
    let range = client.tombstone_range(&cap, envelope.next(), 3, deadline).await.complete()?;
    for (at, envelope) in &range {
        client.start_write(&cap, envelope, WriteMode::Strict, deadline).await?;
        println!("box {} is deleted, whether or not it was written", at.counter());
    }

    client.close().await;
    Ok(())
}
