//! Build a copy stream over several calls, and go on after a crash:
//! `cargo run --example 11_copy_in_parts [thinclient.toml] < write.cap`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{Client, ClientOptions, Config, CopyStream, Courier, Discovery, Environment, Payload};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;
    // Some seven boxes one after the other, the courier's copies of them, and some to spare.
    let deadline = client.deadline_for(12);

    let write_cap = WriteCap::from_base64(&std::io::read_to_string(std::io::stdin())?)?;
    let mut start = write_cap.index().clone();
    let mut stream = CopyStream::new(WriteCap::from_seed(&rand::random()));
    let mut saved = stream.to_bytes();

    for part in ["one ", "two ", "three"] {
        // A crash: all that is left is what was saved.
        stream = CopyStream::from_bytes(&saved).ok_or("what was saved is read again")?;
        let payload = Payload { write_cap: write_cap.clone(), start, bytes: part.repeat(500).into_bytes() };
        start = stream.add(&client, &[payload], deadline).await?.remove(0);
        // To a file of mode 0600, in a real program, with `start`: it holds the elements, the part of one that is left over, and secrets.
        saved = stream.to_bytes();
        stream.write(&client, deadline).await?;
    }
    // A crash behind a write repeats it: the same bytes at the same index, which is no conflict.
    stream = CopyStream::from_bytes(&saved).ok_or("what was saved is read again")?;
    println!("{} boxes are written again", stream.unwritten());
    stream.finish(&client, deadline).await?;
    stream.write(&client, deadline).await?;
    stream.copy(&client, Courier::Random, deadline).await?;
    println!("copied; the channel goes on at box {}", start.counter());

    client.close().await;
    Ok(())
}
