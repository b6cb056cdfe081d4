//! Connect to the daemon, and see what happens to the link: `cargo run --example 01_connect [thinclient.toml]`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment, Event, Link};
use tokio::time::timeout_at;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    // Returns at once: the session connects on its own, again and again if need be.
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    // No call waits longer than its deadline. This one allows for what a daemon takes until it has the network's document.
    let deadline = client.deadline_for(0);

    // Events tell what happens. A subscriber that is slow loses the oldest ones and is told so; it holds nobody up.
    let mut events = client.events();
    while let Some(event) = timeout_at(deadline, events.next()).await? {
        match event {
            Event::Link(Link::Connected) => break,
            Event::Link(link) => println!("now: {link:?}"),
            Event::PkiDocument(document) => println!("the document of epoch {}", document.epoch),
            Event::Restarted => println!("another daemon than before"),
            other => println!("{other:?}"),
        }
    }
    // `status` holds how things stand; who only wants to wait for this much calls `wait_connected`.
    let status = client.wait_connected(deadline).await?;
    println!("link: {:?}", status.link);
    let geometry = status.pigeonhole.ok_or("a daemon tells its geometry when it connects")?;
    println!("a box carries {} bytes", geometry.max_plaintext_payload_length);

    // Closing tells the daemon to forget the session. A client that is only dropped does so too, on its own time.

    client.close().await;
    Ok(())
}
