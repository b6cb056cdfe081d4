//! The persistent layer: channels in a database, and copy streams built by it.

use std::path::Path;

use katzenpost_thin_client::ThinClientError;
use katzenpost_thin_client::persistent::{Database, PigeonholeClient, PigeonholeDbError};

use crate::{Outcome, Peer, bytes, done, refused};

pub(crate) async fn run(peer: &Peer, database: &Path) -> Outcome {
    let pair = peer.pair().await?;
    let first = &pair.first_message_index;
    let client = PigeonholeClient::new(peer.client.clone(), Database::open(database)?);
    let mut writer = client.load_write_channel("news", &pair.write_cap, first)?;
    let mut reader = client.load_read_channel("news", &pair.read_cap, first)?;
    assert!(client.load_write_channel("news", &pair.write_cap, first).is_err());
    refused!(client.get_read_channel("nowhere"), PigeonholeDbError::ChannelNotFound(_));
    assert!(writer.name() == "news" && writer.write_cap() == pair.write_cap && reader.name() == "news");
    assert!(reader.read_cap() == pair.read_cap && reader.next_index() == first);
    refused!(reader.receive_no_retry().await, PigeonholeDbError::ThinClient(ThinClientError::BoxNotFound));
    writer.send(b"one").await?;
    writer.send_return_box_exists(b"two").await?;
    assert_eq!(reader.receive().await?, b"one");
    assert_eq!(reader.receive().await?, b"two");
    assert_eq!(reader.next_index(), writer.next_index());
    let unread = reader.get_unread_messages()?;
    assert_eq!(unread.len(), 2);
    reader.mark_message_read(unread[0].id)?;
    assert_eq!((reader.get_unread_messages()?.len(), reader.get_all_messages()?.len()), (1, 2));
    done("channels: send and receive");

    // Another handle on the same database sees how far they are.
    let again = PigeonholeClient::new(client.thin_client().clone(), client.db().clone());
    assert_eq!(again.get_write_channel("news")?.next_index(), writer.next_index());
    assert_eq!((again.list_write_channels()?.len(), again.list_read_channels()?.len()), (1, 1));
    assert!(client.db().get_pending_messages(client.db().get_write_channel("news")?.id)?.is_empty());
    let mut stale = again.get_read_channel("news")?;
    writer.refresh()?;
    let third = writer.next_index().to_vec();
    let fourth = writer.write_box_return_box_exists(b"three", &third).await?;
    assert_eq!(writer.next_index(), third);
    assert_eq!(reader.read_box(&third).await?, (b"three".to_vec(), fourth.clone()));
    assert_eq!(reader.read_box_no_retry(&third).await?.0, b"three");
    refused!(
        writer.send_return_box_exists(b"another third").await,
        PigeonholeDbError::ThinClient(ThinClientError::BoxAlreadyExists)
    );
    writer.write_box(b"four", &fourth).await?;
    assert_eq!(reader.read_box(&fourth).await?.0, b"four");
    reader.receive_no_retry().await?;
    stale.refresh()?;
    assert_eq!(stale.next_index(), fourth);
    done("channels: single boxes, refresh");

    writer.tombstone_at(&third).await?;
    writer.tombstone_current().await?;
    assert_eq!(writer.next_index(), fourth);
    assert_eq!(writer.tombstone_range(2).await?, 2);
    assert_eq!(writer.tombstone_from(first, 2).await?, 2);
    writer.send(b"after the tombstones").await?;
    // What was told by the courier is at the replicas when a later box of the channel is.
    let last = client.thin_client().next_message_box_index(&fourth).await?;
    let last = client.thin_client().next_message_box_index(&last).await?;
    assert_eq!(reader.read_box(&last).await?.0, b"after the tombstones");
    for index in [first, &third, &fourth] {
        refused!(reader.read_box(index).await, PigeonholeDbError::ThinClient(ThinClientError::Tombstone));
    }
    done("channels: tombstones");

    let chunk = client.thin_client().pigeonhole_geometry().max_plaintext_payload_length - 4;
    let whole = bytes(chunk + 50);
    let one = peer.pair().await?;
    let mut builder = client.copy_stream_builder().await?;
    let boxes = builder.add_payload(&whole, &one.write_cap, &one.first_message_index, true).await?;
    assert!(boxes >= 2 && !builder.temp_write_cap().is_empty());
    assert_eq!(builder.finish().await?, boxes);
    assert_eq!(peer.content(&one, whole.len()).await?, whole);

    let (one, other) = (peer.pair().await?, peer.pair().await?);
    let mut builder = writer.copy_stream_builder().await?;
    let destinations = vec![(&whole[..], &one.write_cap[..], &one.first_message_index[..])];
    builder.add_multi_payload(destinations, false).await?;
    assert!(!builder.buffer().is_empty());
    let destinations = vec![(&b"short"[..], &other.write_cap[..], &other.first_message_index[..])];
    builder.add_multi_payload(destinations, true).await?;
    let (courier, queue) = client.thin_client().get_service("courier").await?.to_destination();
    builder.finish_with_courier(&courier, &queue).await?;
    assert_eq!(peer.content(&one, whole.len()).await?, whole);
    assert_eq!(peer.content(&other, 5).await?, b"short");
    done("copy streams: one destination, several, with a courier");

    // A channel that is a copy stream itself, written box by box.
    let (one, temporary) = (peer.pair().await?, peer.pair().await?);
    let memory = PigeonholeClient::new_in_memory(peer.client.clone())?;
    let mut stream = memory.load_write_channel("stream", &temporary.write_cap, &temporary.first_message_index)?;
    let index = &one.first_message_index;
    let made = peer.client.create_courier_envelopes_from_payload(b"copied", &one.write_cap, index, true, true).await?;
    for element in &made.envelopes {
        stream.send(element).await?;
    }
    stream.execute_copy(None, None).await?;
    assert_eq!(peer.content(&one, 6).await?, b"copied");
    stream.cancel_copy(&peer.hash(&temporary.write_cap).await?).await?;
    memory.delete_write_channel("stream")?;
    client.delete_write_channel("news")?;
    client.delete_read_channel("news")?;
    assert!(client.list_write_channels()?.is_empty() && client.list_read_channels()?.is_empty());
    done("a copy of a channel; channels are deleted");
    Ok(())
}
