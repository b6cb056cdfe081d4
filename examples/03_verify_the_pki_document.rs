//! Verify the PKI document yourself: `cargo run --example 03_verify_the_pki_document [thinclient.toml]`
//!
//! The daemon verifies documents before it uses them. This does not trust it to. Take the authorities' keys from where you trust them:
//! those that the daemon itself names, as here, show no more than that it agrees with itself.
#![allow(clippy::print_stdout)] // It is a program that prints.

use std::error::Error;

use pigeonfs::thin::pki::{SignedDocument, Verdict};
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

    let authorities = client.directory_authorities(deadline).await?;
    let (bytes, epoch) = client.pki_document_raw(0, deadline).await?;
    let signed = SignedDocument::parse(&bytes)?;
    let verification = signed.verify(&authorities);
    for (name, verdict) in &verification.verdicts {
        match verdict {
            Verdict::Valid => println!("{name}: its signature holds"),
            Verdict::Invalid => println!("{name}: its signature does NOT hold"),
            Verdict::Missing => println!("{name}: did not sign"),
            // Hybrids with SPHINCS+ cannot be verified here; that is no verdict on the document.
            Verdict::Unverifiable { scheme } => println!("{name}: signs with {scheme}, which is not verified here"),
        }
    }
    println!("epoch {epoch}, valid until {}: consensus: {}", signed.expiration, verification.is_consensus());
    let document = signed.document().ok_or("certified, and no document")?;
    assert_eq!(document.epoch, epoch);

    client.close().await;
    Ok(())
}
