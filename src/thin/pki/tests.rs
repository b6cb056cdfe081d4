//! Documents: as a real network signed them, as odd encoders write them, and as nobody should.

use ciborium::cbor;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::thin::message::DirectoryAuthority;

const SIGNED: &[u8] = include_bytes!("../../../testdata/recorded/pki-signed.cbor");
const AUTHORITIES: &[u8] = include_bytes!("../../../testdata/recorded/directory-authorities.cbor");

const AT_CONNECT: &[u8] = include_bytes!("../../../testdata/recorded/pki-connect.cbor");
const BROADCAST: &[u8] = include_bytes!("../../../testdata/recorded/pki-broadcast.cbor");

fn authorities() -> Vec<DirectoryAuthority> {
    frame::decode(AUTHORITIES).expect("as recorded")
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("into memory");
    bytes
}

#[test]
fn a_real_networks_document_is_read_whole() {
    let signed = SignedDocument::parse(SIGNED).expect("a certificate");
    let document = signed.document().expect("a document");
    assert_eq!((document.epoch, document.genesis_epoch), (2_493_310, 2_493_310));
    assert_eq!((document.mu, document.lambda_p, document.lambda_r), (0.005, 0.001, 0.005));
    assert_eq!((document.lambda_l, document.lambda_m, document.lambda_g), (0.0005, 0.0005, 0.0015));
    assert_eq!((document.layers(), document.gateways.len(), document.service_nodes.len()), (3, 1, 1));
    assert_eq!(document.topology[0][0].name, "mix1");
    assert_eq!(document.topology[0][0].mix_keys.keys().copied().collect::<Vec<_>>(), [2_493_310, 2_493_311, 2_493_312]);
    assert!(document.gateways[0].is_gateway_node && document.service_nodes[0].is_service_node);
    assert_eq!(document.gateways[0].authentication_type, "tofu");
    assert_eq!(document.configured_replica_ids, [0, 3, 2, 1, 4]);
    // Both lists stand in an order of their own; the ids lead from one to the other.
    assert_eq!(document.replicas.len(), 5);
    for replica in &document.replicas {
        let at = document.configured_replica_ids.iter().position(|id| *id == replica.id).expect("a configured one");
        assert_eq!(replica.identity_key[..], document.configured_replica_keys[at][..]);
        assert_eq!(replica.envelope_keys.keys().copied().collect::<Vec<_>>(), [494, 495]);
        assert_eq!(replica.addresses["tcp"].len(), 1);
    }
    assert_eq!((document.shared_random.len(), document.prior_shared_randoms.len()), (32, 2));
    assert_eq!((document.version.as_str(), document.signature_scheme.as_str()), ("v1", "Ed25519"));
    assert_eq!((document.unreadable_nodes, document.localnet), (0, false));

    let echo = document.service(Service::ECHO).expect("one");
    assert_eq!((echo.node.as_str(), &echo.queue_id[..]), ("servicenode1", &b"+echo"[..]));
    assert_eq!(echo.identity_hash, document.service_nodes[0].identity_hash());
    let couriers: Vec<_> = document.couriers().collect();
    let Parameter::Text(key) = &couriers[0].advertised["linkPublicKey"] else { panic!("{couriers:?}") };
    assert!(key.starts_with("-----BEGIN XWING PUBLIC KEY-----"));
    assert_eq!(document.service("bitcoin"), None);
    let drawn = |seed| {
        let mut dice = StdRng::seed_from_u64(seed);
        (0..20).filter_map(|_| document.service_by(Service::COURIER, &mut dice)).collect::<Vec<_>>()
    };
    assert_eq!((drawn(1).len(), drawn(1) == drawn(1)), (20, true));
    assert!(couriers.iter().all(|courier| drawn(1).contains(courier)), "each has its turn");

    let shown = document.to_string();
    for told in ["epoch 2493310", "servicenode1", "+echo", "tcp://127.0.0.1:30014", "replica5 #4", "494, 495"] {
        assert!(shown.contains(told), "{told}:\n{shown}");
    }
}

#[test]
fn a_real_networks_signatures_hold_and_altered_ones_do_not() {
    let authorities = authorities();
    let signed = SignedDocument::parse(SIGNED).expect("a certificate");
    let verified = signed.verify(&authorities);
    assert_eq!((verified.valid(), verified.is_consensus()), (3, true), "{verified:?}");
    assert_eq!(verified.verdicts[0], ("auth1".to_owned(), Verdict::Valid));

    let mut altered = signed.clone();
    *altered.certified.last_mut().expect("bytes") ^= 1;
    assert!(altered.verify(&authorities).verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Invalid));
    let later = SignedDocument { expiration: signed.expiration + 1, ..signed.clone() };
    assert_eq!(later.verify(&authorities).valid(), 0, "the expiration is signed too");

    let mut lone = signed.clone();
    let first = authorities[0].identity_key_hash.as_deref().expect("32 bytes");
    lone.signatures.retain(|signer, _| signer[..] == *first);
    let verified = lone.verify(&authorities);
    assert_eq!((verified.valid(), verified.is_consensus()), (1, false), "one of three is no consensus");
    assert_eq!(verified.verdicts[1].1, Verdict::Missing);
    let again = [authorities[0].clone(), authorities[0].clone()];
    assert_eq!(signed.verify(&again).verdicts.len(), 1, "an authority that is named twice counts once");
    assert!(!signed.verify(&[]).is_consensus(), "nobody's word is none");

    // A key that does not hash to the name that it signs under, and a scheme that is not verified here.
    let mut odd = authorities.clone();
    odd[0].identity_public_key_pem = odd[1].identity_public_key_pem.clone();
    odd[2].pki_signature_scheme = "Ed25519-Sphincs+".to_owned();
    let verdicts = signed.verify(&odd).verdicts;
    assert_eq!(verdicts[0].1, Verdict::Invalid);
    assert_eq!(verdicts[2].1, Verdict::Unverifiable { scheme: "Ed25519-Sphincs+".to_owned() });
}

#[test]
fn both_of_the_daemons_encodings_are_the_same_document() {
    assert_ne!(AT_CONNECT, BROADCAST);
    assert_eq!(Document::parse(AT_CONNECT).expect("a document"), Document::parse(BROADCAST).expect("a document"));
}

#[test]
fn a_document_is_read_in_any_order_of_keys_and_widths_of_numbers() {
    // float16 0.5, as canonical encoders shorten it; whole numbers; null for what is empty; what nobody knows yet.
    let value = cbor!({
        "Mu" => 0.5, "LambdaP" => 1, "Epoch" => 7, "Topology" => [[], [], []], "StorageReplicas" => [{}, { "Name" => 1 }],
        "Unknown" => { "a" => [1, 2] }, "ServiceNodes" => null, "PigeonfsLocalnet" => true,
    });
    let bytes = bytes(&value.expect("cbor"));
    assert!(bytes.windows(3).any(|window| window == [0xf9, 0x38, 0x00]), "0.5 is written in two bytes");
    let document = Document::parse(&bytes).expect("a document");
    let expected = Document {
        epoch: 7,
        lambda_p: 1.0,
        mu: 0.5,
        topology: vec![Vec::new(); 3],
        replicas: vec![Replica::default()],
        unreadable_nodes: 1,
        localnet: true,
        ..Document::default()
    };
    assert_eq!(document, expected);
    assert_eq!(Document::parse(b"\x01"), None);
    assert_eq!(Document::parse(&vec![0; MAX_DOCUMENT_BYTES + 1]), None);
    let too_long = SignedDocument::parse(&vec![0; MAX_DOCUMENT_BYTES + 1]);
    assert_eq!(too_long, Err(CertificateError::TooLong(MAX_DOCUMENT_BYTES + 1)));
}

#[test]
fn what_a_node_says_of_itself_moves_no_cursor() {
    let name = "mix\u{1b}[2J";
    let node = bytes(&cbor!({ "Name" => name }).expect("cbor"));
    let document = cbor!({ "GatewayNodes" => [Value::Bytes(node), Value::Bytes(vec![1])] }).expect("cbor");
    let document = Document::parse(&bytes(&document)).expect("a document");
    assert_eq!((document.gateways.len(), document.unreadable_nodes), (1, 1));
    assert!(!document.to_string().contains('\u{1b}'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A real document with some bytes altered or cut off: an answer, and never a panic.
    #[test]
    fn no_bytes_are_too_hostile(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep: prop::sample::Index,
        cut: bool,
    ) {
        let mut bytes = SignedDocument::parse(SIGNED).expect("a certificate").certified;
        for (place, byte) in at {
            // Most of a document is keys, where nothing can go wrong: half of the alterations go to its head.
            let within = if byte % 2 == 0 { 200 } else { bytes.len() };
            bytes[place.index(within)] = byte;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Some(document) = Document::parse(&bytes) {
            let _ = document.to_string();
            let _ = document.service(Service::COURIER);
        }
        if let Ok(signed) = SignedDocument::parse(&bytes) {
            prop_assert!(!signed.verify(&authorities()).is_consensus());
        }
    }
}
