//! Write a message to a channel, whose write capability comes on stdin:
//! `cargo run --example 06_write_a_message [thinclient.toml] < write.cap`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment, WriteMode, WriteOutcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;
    // By the network's own numbers, which the document tells: what one box may take on it.
    let deadline = client.deadline_for(1);

    let cap = WriteCap::from_base64(&std::io::read_to_string(std::io::stdin())?)?;
    let at = cap.index().clone();

    // Keep the plaintext and its index before anything leaves: the same bytes at the same index are safe to send again,
    // and other bytes never are. The envelope is only for now: it goes stale with the network's epochs.
    let envelope = client.encrypt_write(&cap, &at, b"hello, reader", deadline).await?;

    // Strict waits for a replica's own word. The default ends when a courier has the envelope, which may still be lost.
    match client.start_write(&cap, &envelope, WriteMode::Strict, deadline).await? {
        WriteOutcome::Done => println!("stored; the next box is number {}", envelope.next().counter()),
        WriteOutcome::AlreadyExists => println!("another writer's bytes stand there: nothing was written"),
    }

    client.close().await;
    Ok(())
}
