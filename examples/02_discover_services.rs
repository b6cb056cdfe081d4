//! Find the network's services in the PKI document: `cargo run --example 02_discover_services [thinclient.toml]`
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::thin::{Client, ClientOptions, Config, Discovery, Document, Environment};

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

    // The daemon pushes the document of each epoch; this sends nothing.
    let document = client.pki_document().ok_or("a connected daemon has a document")?;
    println!("epoch {}: {} layers, {} replicas", document.epoch, document.layers(), document.replicas.len());

    for courier in document.couriers() {
        println!("courier on {} at queue {:?}", courier.node, String::from_utf8_lossy(&courier.queue_id));
    }
    // One of a kind is drawn at random, so that clients spread over the nodes.
    match document.service("echo") {
        Some(echo) => println!("echo: {} {:?}", echo.node, echo.parameters),
        None => println!("echo: this network has none"),
    }
    // The document prints itself, a few lines a node; and earlier epochs are asked for by number.
    println!("{document}");
    let same = client.pki_document_for_epoch(document.epoch, deadline).await?;
    assert_eq!(Document::clone(&same), *document);

    client.close().await;
    Ok(())
}
