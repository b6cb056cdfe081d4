//! Delete a range through a copy stream: `cargo run --example 12_tombstone_a_range_by_copy [thinclient.toml] < write.cap`
//!
//! Where `08_delete_with_tombstones` sends an operation a box, here one courier does it all.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{Client, ClientOptions, Config, CopyStream, Courier, Discovery, Environment};

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

    let cap = WriteCap::from_base64(&std::io::read_to_string(std::io::stdin())?)?;

    let mut stream = CopyStream::new(WriteCap::from_seed(&rand::random()));
    let next = stream.add_tombstones(&client, &cap, cap.index(), 5, deadline).await?;
    stream.finish(&client, deadline).await?;
    stream.write(&client, deadline).await?;
    stream.copy(&client, Courier::Random, deadline).await?;
    println!("5 boxes are deleted; the next one is number {}", next.counter());

    client.close().await;
    Ok(())
}
