//! Cancel what is in flight: `cargo run --example 13_cancel [thinclient.toml]`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment, ErrorKind, Missing};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    client.wait_connected(client.deadline_for(0)).await?;
    let deadline = client.deadline_for(2);

    let cap = WriteCap::from_seed(&rand::random());
    let (read_cap, at) = (cap.read_cap(), cap.index());

    // Nobody ever writes this box, so it is looked for until the deadline.
    let reading = client.read(read_cap, at, deadline);
    // Dropping a future cancels its operation, here and at the daemon; so a timeout is all that a limit takes.
    let dropped = tokio::time::timeout(Duration::from_millis(200), reading).await;
    assert!(dropped.is_err());
    println!("dropped");

    // By its envelope's hash an operation is cancelled from anywhere: another task, or another client. With `Retry` the
    // daemon sends this one envelope until it is told to stop; `read`, which makes a fresh one each time, finds more.
    let envelope = client.encrypt_read(read_cap, at, deadline).await?;
    let reading = client.start_read(read_cap, at, &envelope, Missing::Retry, deadline);
    let cancelling = client.cancel(envelope.hash(), deadline);
    let (read, cancelled) = tokio::join!(reading, cancelling);
    // `NothingFound` is not the end at a real daemon: what waits in its queue may still start. The client sees to it.
    println!("{:?}", cancelled?);
    assert_eq!(read.map_err(|error| error.kind), Err(ErrorKind::Cancelled));
    println!("cancelled");

    client.close().await;
    Ok(())
}
