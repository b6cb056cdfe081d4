//! Live through a daemon's restart: `cargo run --example 14_survive_a_restart [thinclient.toml] < read.cap`
//!
//! Waits for a box to be written. Restart the daemon meanwhile: the client connects again, sees another instance token, and puts its
//! question anew; this program does nothing for that.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;
use std::time::Duration;

use pigeonfs::bacap::ReadCap;
use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Environment};
use tokio::time::Instant;

/// How long the writer may take.
const PATIENCE: Duration = Duration::from_secs(3600);

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
    let mut status = client.status();
    let mut instance = status.borrow_and_update().instance_token;
    // Each look has a fresh envelope: couriers answer an old one from their caches.
    let reading = client.read(&cap, cap.index(), Instant::now() + PATIENCE);
    tokio::pin!(reading);
    println!("waiting");
    let read = loop {
        tokio::select! {
            read = &mut reading => break read?,
            changed = status.changed() => {
                changed?;
                let now = status.borrow_and_update().clone();
                println!("link: {:?}", now.link);
                if now.instance_token != instance {
                    println!("the daemon was restarted");
                    instance = now.instance_token;
                }
            }
        }
    };
    println!("read: {read:?}");

    client.close().await;
    Ok(())
}
