//! Create a channel, and print its read and write capability: `cargo run --example 05_create_a_channel [thinclient.toml]`
//!
//! The write capability is a secret; this prints it because the next examples take it on stdin.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    let deadline = client.deadline_for(0);
    client.wait_connected(deadline).await?;

    // A channel is its seed: keep 32 bytes, and the channel can be made again. Nothing is sent into the network.
    let seed: [u8; 32] = rand::random();
    let pair = client.new_keypair(&seed, deadline).await?;
    println!("{}", *pair.write_cap.to_base64());
    println!("{}", *pair.read_cap.to_base64());

    // The first index is random, so it does not tell how many boxes come before: none do.
    assert_eq!(client.index_counter(&pair.first, deadline).await?, pair.first.counter());
    assert_eq!(client.next_index(&pair.first, deadline).await?, pair.first.next()?);

    client.close().await;
    Ok(())
}
