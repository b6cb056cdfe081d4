//! The document for people: `{document}` prints some lines a node.

use std::fmt;

use super::{Document, Node};

impl fmt::Display for Document {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PKI document {} of epoch {} (genesis {})", self.version, self.epoch, self.genesis_epoch)?;
        writeln!(out, "{}", if self.localnet { ", of an embedded network: no anonymity" } else { "" })?;
        writeln!(out, "  signatures: {}", self.signature_scheme)?;
        writeln!(out, "  sphinx geometry: {}", Hex(&self.sphinx_geometry_hash))?;
        writeln!(out, "  shared random: {}", Hex(&self.shared_random))?;
        write!(out, "  a packet every {} from a client, {} a hop", Mean(self.lambda_p), Mean(self.mu))?;
        writeln!(out, "; rates per ms:")?;
        writeln!(
            out,
            "    μ {}  λP {}  λL {}  λM {}  λG {}  λR {}",
            self.mu, self.lambda_p, self.lambda_l, self.lambda_m, self.lambda_g, self.lambda_r
        )?;
        nodes(out, "gateways", &self.gateways)?;
        for (number, layer) in self.topology.iter().enumerate() {
            nodes(out, &format!("mixes of layer {number}"), layer)?;
        }
        nodes(out, "service nodes", &self.service_nodes)?;
        writeln!(out, "  replicas: {} on line, {} configured", self.replicas.len(), self.configured_replica_ids.len())?;
        for replica in &self.replicas {
            let epochs: Vec<_> = replica.envelope_keys.keys().map(u64::to_string).collect();
            let hash = replica.identity_hash();
            write!(out, "    {} #{} {}, envelope keys of epochs ", Plain(&replica.name), replica.id, Hex(&hash))?;
            writeln!(out, "{}", epochs.join(", "))?;
        }
        if self.unreadable_nodes > 0 {
            writeln!(out, "  {} nodes could not be read", self.unreadable_nodes)?;
        }
        Ok(())
    }
}

fn nodes(out: &mut fmt::Formatter<'_>, title: &str, nodes: &[Node]) -> fmt::Result {
    writeln!(out, "  {title}: {}", nodes.len())?;
    for node in nodes {
        writeln!(out, "    {} {}", Plain(&node.name), Hex(&node.identity_hash()))?;
        for address in node.addresses.values().flatten() {
            writeln!(out, "      {}", Plain(address))?;
        }
        for service in node.services() {
            let queue = String::from_utf8_lossy(&service.queue_id);
            writeln!(out, "      {} at {}", Plain(&service.capability), Plain(&queue))?;
        }
    }
    Ok(())
}

/// Text from outside, with nothing in it that a terminal would act on.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter.is_control() {
            true => write!(out, "{}", letter.escape_default()),
            false => write!(out, "{letter}"),
        })
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The mean time between the events of a rate.
struct Mean(f64);

impl fmt::Display for Mean {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0.0 { write!(out, "{:.0} ms", 1.0 / self.0) } else { out.write_str("no time") }
    }
}
