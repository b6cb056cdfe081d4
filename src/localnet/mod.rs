//! localnet: an embedded Pigeonhole network behind the thin-client protocol. It gives no anonymity.
