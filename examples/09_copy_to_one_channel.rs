//! Send to one channel in one go: `cargo run --example 09_copy_to_one_channel [thinclient.toml] < write.cap`
//!
//! A courier writes all boxes, so that a reader sees none until the sender is done. It is not atomic: where a courier fails in the
//! middle, what came before stays. Repeat the command then; the same bytes are no conflict.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{Client, ClientOptions, Config, Courier, Discovery, Environment, Part, Payload, WriteMode};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;
    let deadline = client.deadline_for(8);

    let write_cap = WriteCap::from_base64(&std::io::read_to_string(std::io::stdin())?)?;
    let bytes = vec![b'x'; 4000];

    // The daemon turns the payload into the boxes of a temporary stream, each of which we write.
    let payload = Payload { start: write_cap.index().clone(), write_cap, bytes };
    let made = client.envelopes_from_payload(&payload, Part::WHOLE, deadline).await?;
    let stream = WriteCap::from_seed(&rand::random());
    let mut at = stream.index().clone();
    for element in &made.elements {
        let envelope = client.encrypt_write(&stream, &at, element, deadline).await?;
        client.start_write(&stream, &envelope, WriteMode::Strict, deadline).await?;
        at = envelope.next().clone();
    }
    // A courier reads that stream and carries it out. Dropping this future, or `cancel_copy`, ends the wait.
    client.start_copy(&stream, Courier::Random, deadline).await?;
    println!("copied; the channel goes on at box {}", made.next[0].counter());

    client.close().await;
    Ok(())
}
