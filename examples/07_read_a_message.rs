//! Read a message from a channel, whose read capability comes on stdin:
//! `cargo run --example 07_read_a_message [thinclient.toml] < read.cap`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::bacap::ReadCap;
use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment, Missing, ReadOutcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;

    let cap = ReadCap::from_base64(&std::io::read_to_string(std::io::stdin())?)?;
    let mut at = cap.index().clone();
    loop {
        let deadline = client.deadline_for(1);
        // A fresh envelope for each look: couriers answer an old one from their caches.
        let envelope = client.encrypt_read(&cap, &at, deadline).await?;
        match client.start_read(&cap, &at, &envelope, Missing::Report, deadline).await? {
            ReadOutcome::Box(message) => println!("message: {}", String::from_utf8_lossy(&message)),
            ReadOutcome::Tombstone => println!("deleted"),
            // A hint, and no proof: look again later, on a schedule that does not follow your own.
            ReadOutcome::NotFound => break println!("nothing more at box {}", at.counter()),
        }
        at = envelope.next().clone();
    }

    client.close().await;
    Ok(())
}
