//! Send to several channels in one go: `cargo run --example 10_copy_to_several_channels [thinclient.toml]`
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
    let deadline = client.deadline_for(4);

    let payloads = ["to Alice", "to Bob"].map(|text| {
        let write_cap = WriteCap::from_seed(&rand::random());
        Payload { start: write_cap.index().clone(), write_cap, bytes: text.into() }
    });

    // `CopyStream` makes the daemon's calls in their order, passes what one leaves over to the next, writes the temporary
    // stream, several boxes at a time, and has a courier carry it out.
    let mut stream = CopyStream::new(WriteCap::from_seed(&rand::random()));
    let next = stream.add(&client, &payloads, deadline).await?;
    stream.finish(&client, deadline).await?;
    stream.write(&client, deadline).await?;

    // A courier of your choice, rather than one that is drawn: only it knows how far a command came.
    let document = client.pki_document().ok_or("a connected daemon has a document")?;
    let courier = document.couriers().next().map_or(Courier::Random, Courier::from);
    stream.copy(&client, courier, deadline).await?;
    println!("copied to {} channels", next.len());

    client.close().await;
    Ok(())
}
