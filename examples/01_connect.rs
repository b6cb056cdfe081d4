//! Connect to the daemon, and see what the link goes through: `cargo run --example 01_connect [thinclient.toml]`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;
use std::time::Duration;

use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let discovery = Discovery {
        config: std::env::args_os().nth(1).map(Into::into),
        environment: Environment::of_process(),
        ..Discovery::default()
    };
    let client = Client::start(Config::discover(&discovery)?, ClientOptions::default());
    let deadline = Instant::now() + Duration::from_secs(120);
    client.wait_connected(deadline).await?;

    // `status` is a watch: it holds the newest state, and a slow reader holds nobody up.
    let mut status = client.status();
    let now = status.borrow_and_update().clone();
    println!("link: {:?}", now.link);
    let geometry = now.pigeonhole.ok_or("a daemon tells its geometry when it connects")?;
    println!("a box carries {} bytes", geometry.max_plaintext_payload_length);
    // Each daemon process has a token of its own: another token is a restarted daemon.
    println!("daemon instance: {}", now.instance_token.is_some());

    // Anything else is told as it comes; here, for a second.
    let watching = Instant::now() + Duration::from_secs(1);
    while let Ok(Ok(())) = tokio::time::timeout_at(watching, status.changed()).await {
        println!("now: {:?}", status.borrow_and_update().link);
    }
    // Closing tells the daemon to forget the session; a client that is only dropped does so too, on its own time.

    client.close().await;
    Ok(())
}
