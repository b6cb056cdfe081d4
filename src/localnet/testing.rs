//! A network for a test: one line to start it, and nothing of it left behind.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Console, Localnet, LocalnetError, Options};
use crate::thin::{Client, ClientOptions, Config};

/// A fresh localnet in a directory of its own under the system's one for temporary files. Dropping it ends the network and
/// removes the directory.
///
/// ```
/// use pigeonfs::localnet::testing::FreshLocalnet;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = FreshLocalnet::start().await?;
/// let client = network.client().await;
/// let pair = client.new_keypair(&[7; 32], client.deadline_for(1)).await?;
/// assert_eq!(pair.write_cap.index(), &pair.first);
/// # Ok(())
/// # }
/// ```
pub struct FreshLocalnet {
    // Ends before its directory goes.
    localnet: Option<Localnet>,
    directory: PathBuf,
}

impl FreshLocalnet {
    /// Starts a network of the profile `instant` in which nothing goes wrong. Needs a tokio runtime.
    pub async fn start() -> Result<Self, LocalnetError> {
        Self::start_with(|_| {}).await
    }

    /// Starts a network with other options than the defaults; its directory stays the one that was made for it.
    pub async fn start_with(choose: impl FnOnce(&mut Options)) -> Result<Self, LocalnetError> {
        let name = format!("pigeonfs-localnet-{:016x}", rand::random::<u64>());
        let directory = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(|error| LocalnetError::State { path: directory.clone(), error })?;
        // From here on it is removed, whatever happens.
        let mut network = Self { localnet: None, directory };
        let mut options = Options::new(&network.directory);
        choose(&mut options);
        options.state.clone_from(&network.directory);
        network.localnet = Some(Localnet::start(options).await?);
        Ok(network)
    }

    /// The network itself.
    pub fn localnet(&self) -> &Localnet {
        self.localnet.as_ref().expect("it is there until it is dropped")
    }

    /// The configuration by which a client reaches it; the file `thinclient.toml` in [`Self::directory`] says the same.
    pub fn config(&self) -> Config {
        self.localnet().config()
    }

    /// Where it takes commands: faults, clock, restarts.
    pub fn console(&self) -> &Console {
        self.localnet().console()
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A client of it that is connected.
    ///
    /// # Panics
    /// If the network does not let it in within two minutes.
    pub async fn client(&self) -> Client {
        let client = Client::start(self.config(), ClientOptions::default());
        let connected = client.wait_connected(client.deadline_for(0)).await;
        connected.expect("a localnet lets clients in");
        client
    }
}

impl Drop for FreshLocalnet {
    fn drop(&mut self) {
        self.localnet = None;
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "the directory of a localnet could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_network_is_fresh_and_leaves_nothing() {
        let (one, other) = (FreshLocalnet::start().await.expect("one"), FreshLocalnet::start().await.expect("another"));
        assert_ne!(one.directory(), other.directory());
        let client = one.client().await;
        assert!(client.pki_document().is_some());
        let directories = [one.directory().to_owned(), other.directory().to_owned()];
        drop((one, other));
        assert!(directories.iter().all(|directory| !directory.exists()), "the directories are gone");
    }

    #[tokio::test]
    async fn a_network_that_cannot_start_leaves_nothing() {
        let mut directory = PathBuf::new();
        let refused = FreshLocalnet::start_with(|options| {
            directory.clone_from(&options.state);
            options.settings.max_plaintext = Some(0);
        });
        assert!(refused.await.is_err());
        assert!(!directory.as_os_str().is_empty() && !directory.exists());
    }
}
