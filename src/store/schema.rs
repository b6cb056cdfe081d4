//! The tables, and the laws that the database itself keeps.
//!
//! Numbers of states and roles are those of [`BoxState::code`](super::BoxState) and `role_code`. Times are nanoseconds
//! since 1970. A law that a request would break aborts that request: see [`StoreError::Law`](super::StoreError::Law).

/// Marks the file as ours: "pgfs".
pub(super) const APPLICATION_ID: i64 = 0x7067_6673;

/// Schema 1. None was released yet: until then columns are added here; afterwards each change is a migration.
pub(super) const SCHEMA: &str = r"
-- The sets of directory authorities that channels are bound to: sorted 32-byte hashes of their identity keys.
CREATE TABLE network (
    id   INTEGER PRIMARY KEY,
    keys BLOB NOT NULL UNIQUE CHECK (length(keys) > 0 AND length(keys) % 32 = 0),
    -- Whether it is an embedded network.
    localnet INTEGER NOT NULL DEFAULT 0 CHECK (localnet IN (0, 1))
) STRICT;

-- What each of the last minutes has brought, over all channels, where it has brought anything.
CREATE TABLE history (
    minute        INTEGER PRIMARY KEY CHECK (minute >= 0),
    stored_boxes  INTEGER NOT NULL CHECK (stored_boxes >= 0),
    stored_bytes  INTEGER NOT NULL CHECK (stored_bytes >= 0),
    arrived_boxes INTEGER NOT NULL CHECK (arrived_boxes >= 0),
    arrived_bytes INTEGER NOT NULL CHECK (arrived_bytes >= 0),
    spool_bytes   INTEGER NOT NULL CHECK (spool_bytes >= 0)
) STRICT;

-- What the last mount was told: limits and times, by which whoever owns the state next goes.
CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL CHECK (value >= 0)
) STRICT, WITHOUT ROWID;

-- Requests that verbs asked for and that were done, the newest some thousand, so that none is done twice.
CREATE TABLE request (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    id      BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    -- What it came to, as CBOR.
    outcome BLOB NOT NULL
) STRICT;

-- What a channel's boxes hang on. An abandoned chain belongs to no channel; its boxes are deleted in slices.
CREATE TABLE chain (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- 0 in use, 1 abandoned, 2 abandoned by the verb that may give up what was sent
    abandoned INTEGER NOT NULL DEFAULT 0 CHECK (abandoned IN (0, 1, 2))
) STRICT;
CREATE INDEX chain_abandoned ON chain (id) WHERE abandoned <> 0;

CREATE TABLE channel (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL UNIQUE CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 255),
    role          INTEGER NOT NULL CHECK (role IN (0, 1)),
    cap           BLOB NOT NULL CHECK (length(cap) = CASE role WHEN 0 THEN 168 ELSE 136 END),
    chain         INTEGER NOT NULL UNIQUE REFERENCES chain (id),
    -- The index of the box after the last (writer), or of the frontier (reader).
    next_index    BLOB NOT NULL CHECK (length(next_index) = 104),
    network       INTEGER REFERENCES network (id),
    max_plaintext INTEGER NOT NULL CHECK (max_plaintext > 0),
    created       INTEGER NOT NULL,
    modified      INTEGER NOT NULL,
    accessed      INTEGER NOT NULL,
    -- Permission bits that were taken from those of the role.
    dropped_mode  INTEGER NOT NULL DEFAULT 0 CHECK (dropped_mode BETWEEN 0 AND 4095),
    -- Who made it, where that was another user than who mounted.
    uid           INTEGER CHECK (uid BETWEEN 0 AND 4294967295),
    gid           INTEGER CHECK (gid BETWEEN 0 AND 4294967295 AND (gid IS NULL) = (uid IS NULL)),
    fence         TEXT,
    -- Writer: what fences it is only that a launched box of so many bytes does not fit the network that was seen last.
    unfit         INTEGER CHECK (unfit IS NULL OR (role = 0 AND fence IS NOT NULL)),
    launched      INTEGER NOT NULL DEFAULT 0 CHECK (launched IN (0, 1)),
    shown         INTEGER NOT NULL DEFAULT 0 CHECK (shown IN (0, 1)),
    -- Writer: whether the write capability was shown, or came from elsewhere, so that this is not the only copy.
    cap_elsewhere INTEGER NOT NULL DEFAULT 0 CHECK (cap_elsewhere IN (0, 1)),
    rewrites      INTEGER NOT NULL DEFAULT 0 CHECK (rewrites >= 0),
    -- Counters, so that nothing is ever added up: kept by the same transactions that change the boxes.
    size           INTEGER NOT NULL DEFAULT 0 CHECK (size >= 0),
    boxes          INTEGER NOT NULL DEFAULT 0 CHECK (boxes >= 0),
    tail_bytes     INTEGER NOT NULL DEFAULT 0 CHECK (tail_bytes BETWEEN 0 AND size),
    launched_end   INTEGER NOT NULL DEFAULT 0 CHECK (launched_end BETWEEN 0 AND boxes),
    stored_boxes   INTEGER NOT NULL DEFAULT 0 CHECK (stored_boxes BETWEEN first_unstored AND launched_end),
    -- Where the boxes that are stored without a gap end, in boxes and in bytes.
    first_unstored INTEGER NOT NULL DEFAULT 0 CHECK (first_unstored >= 0),
    stored_bytes   INTEGER NOT NULL DEFAULT 0 CHECK (stored_bytes BETWEEN 0 AND size),
    frontier       INTEGER NOT NULL DEFAULT 0 CHECK (frontier BETWEEN 0 AND boxes),
    verdict_at     INTEGER,
    -- The network's replica epoch then.
    verdict_epoch  INTEGER,
    -- The beginning of a channel that is no longer here: it is stored (writer) or has arrived (reader), and went to make
    -- room. The last box stays: it is what the next one follows.
    dropped_boxes INTEGER NOT NULL DEFAULT 0
        CHECK (dropped_boxes BETWEEN 0 AND CASE role WHEN 0 THEN first_unstored ELSE frontier END
               AND (dropped_boxes = 0 OR dropped_boxes < CASE role WHEN 0 THEN boxes ELSE frontier END)),
    dropped_bytes INTEGER NOT NULL DEFAULT 0
        CHECK (dropped_bytes BETWEEN 0 AND CASE role WHEN 0 THEN stored_bytes ELSE size END),
    -- How many of those boxes' rows are deleted already.
    swept_boxes INTEGER NOT NULL DEFAULT 0 CHECK (swept_boxes BETWEEN 0 AND dropped_boxes),
    -- Reader: bytes that have arrived and are kept, those past the frontier too.
    held_bytes INTEGER NOT NULL DEFAULT 0 CHECK (held_bytes >= 0 AND (role = 1 OR held_bytes = 0)),
    changed INTEGER NOT NULL DEFAULT 0,
    -- Reader: what is missing before this box can no longer come.
    lost_end INTEGER NOT NULL DEFAULT 0 CHECK (lost_end BETWEEN 0 AND boxes AND (role = 1 OR lost_end = 0)),
    -- Reader: boxes before the frontier that were given up. They have no rows.
    skipped_boxes INTEGER NOT NULL DEFAULT 0 CHECK (skipped_boxes BETWEEN 0 AND frontier),
    -- What a channel carries: 0 a stream of bytes, 1 whole files.
    kind INTEGER NOT NULL DEFAULT 0 CHECK (kind IN (0, 1)),
    -- Whether what was sent may be deleted again: its headers are in boxes of their own.
    allow_delete INTEGER NOT NULL DEFAULT 0
        CHECK (allow_delete IN (0, 1) AND (allow_delete = 0 OR (kind = 1 AND role = 0))),
    -- A drop that is read: the boxes before this one were made into records; and whether a header is being looked for.
    assembled INTEGER NOT NULL DEFAULT 0
        CHECK (assembled BETWEEN 0 AND CASE WHEN kind = 1 AND role = 1 THEN frontier ELSE 0 END),
    astray INTEGER NOT NULL DEFAULT 0 CHECK (astray IN (0, 1)),
    -- Writer: 0 a replica's word lets the next box go, 1 a courier's.
    durability INTEGER NOT NULL DEFAULT 0 CHECK (durability IN (0, 1) AND (role = 0 OR durability = 0)),
    couriered_boxes INTEGER NOT NULL DEFAULT 0 CHECK (couriered_boxes BETWEEN 0 AND launched_end),
    couriered_bytes INTEGER NOT NULL DEFAULT 0 CHECK (couriered_bytes BETWEEN 0 AND size),
    -- Reader: the last verdict before one that came too late to be believed; a search is to tell.
    stale_since INTEGER CHECK (role = 1 OR stale_since IS NULL),
    -- The network's replica epoch then.
    stale_epoch INTEGER CHECK (stale_since IS NOT NULL OR stale_epoch IS NULL),
    -- Reader: when the first search of this day began, and what all of them may have asked for, in reads.
    searched INTEGER,
    search_probes INTEGER NOT NULL DEFAULT 0 CHECK (search_probes >= 0),
    -- Reader: its kind is what a person said of a capability that says none; the first box is to tell.
    kind_is_told INTEGER NOT NULL DEFAULT 0 CHECK (kind_is_told IN (0, 1) AND (kind_is_told = 0 OR role = 1)),
    -- The network that its capability's text names, as there: one byte, and four of a hash. And whether another hash is refused.
    text_network BLOB CHECK (text_network IS NULL OR length(text_network) = 5),
    strict_network INTEGER NOT NULL DEFAULT 0 CHECK (strict_network IN (0, 1)),
    -- Writer: until when what expires is sent again. Reader: until when its writer does so.
    kept_until INTEGER,
    -- Writer: the share of the idle slots that sending again may take.
    keep_share REAL NOT NULL DEFAULT 0.25 CHECK (keep_share > 0 AND keep_share <= 1),
    -- Nothing leaves before the channel is bound to a network.
    CHECK (launched = 0 OR network IS NOT NULL),
    CHECK (launched = 1 OR launched_end = 0),
    CHECK (role = 0 OR (launched = 0 AND tail_bytes = 0 AND stored_bytes = 0)),
    CHECK (role = 1 OR (frontier = 0 AND verdict_at IS NULL))
) STRICT;
-- Invitations with channels of ours, by contact vouchers.
CREATE TABLE invitation (
    channel      INTEGER PRIMARY KEY REFERENCES channel (id) ON DELETE CASCADE,
    display_name TEXT NOT NULL,
    -- The name that the other side's channel gets; NULL: the one that it suggests.
    wanted       TEXT,
    -- 0 the voucher is to be made, 1 it is made, 2 its payload is at the rendezvous, 3 the reply is being opened (inside one
    -- transaction only), 4 done, 5 it came to nothing
    stage        INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 5),
    voucher      BLOB CHECK (voucher IS NULL OR (length(voucher) = 32 AND stage > 0)),
    payload      BLOB,
    secret       BLOB CHECK (secret IS NULL OR stage BETWEEN 1 AND 3),
    -- The replica epoch in which the payload was put there.
    epoch        INTEGER CHECK (epoch IS NULL OR stage > 1),
    theirs       TEXT CHECK (theirs IS NULL OR stage = 4),
    trouble      TEXT,
    CHECK (stage NOT IN (1, 2, 3) OR (voucher IS NOT NULL AND payload IS NOT NULL AND secret IS NOT NULL))
) STRICT;
-- Law: nothing of a channel leaves while its indices are to move.
CREATE TRIGGER channel_is_invited BEFORE UPDATE OF launched, shown ON channel
    WHEN NEW.launched + NEW.shown > OLD.launched + OLD.shown
     AND EXISTS (SELECT 1 FROM invitation WHERE channel = OLD.id AND stage <> 4)
BEGIN SELECT RAISE(ABORT, 'nothing of a channel leaves or is shown while its invitation is open'); END;
-- Law: what is put at a rendezvous never changes.
CREATE TRIGGER invitation_is_bound BEFORE UPDATE OF voucher, payload ON invitation
    WHEN (OLD.voucher IS NOT NULL AND NEW.voucher IS NOT OLD.voucher)
      OR (OLD.payload IS NOT NULL AND NEW.payload IS NOT NULL AND NEW.payload IS NOT OLD.payload)
BEGIN SELECT RAISE(ABORT, 'what is put at a rendezvous never changes'); END;

-- Codes of ours that were taken back, and are to be deleted from the network that they were put on.
CREATE TABLE withdrawn (
    voucher BLOB PRIMARY KEY CHECK (length(voucher) = 32),
    network INTEGER NOT NULL REFERENCES network (id),
    -- When; long after that no replica has it.
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Codes of others that are accepted.
CREATE TABLE acceptance (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL UNIQUE,
    ours         INTEGER NOT NULL REFERENCES channel (id) ON DELETE CASCADE,
    voucher      BLOB NOT NULL UNIQUE CHECK (length(voucher) = 32),
    -- 0 the payload is looked for, 1 the reply is made, 2 it is at the rendezvous, 3 done, 4 it came to nothing
    stage        INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 4),
    display_name TEXT,
    -- The inviter's channel.
    cap          BLOB CHECK (length(cap) = 136),
    reply        BLOB,
    trouble      TEXT,
    CHECK (stage NOT IN (1, 2) OR (cap IS NOT NULL AND reply IS NOT NULL))
) STRICT;
CREATE INDEX acceptance_of_channel ON acceptance (ours);
CREATE TRIGGER acceptance_is_bound BEFORE UPDATE OF id, name, ours, voucher, reply ON acceptance
    WHEN NEW.id <> OLD.id OR NEW.name <> OLD.name OR NEW.ours <> OLD.ours OR NEW.voucher <> OLD.voucher
      OR (OLD.reply IS NOT NULL AND NEW.reply IS NOT NULL AND NEW.reply IS NOT OLD.reply)
BEGIN SELECT RAISE(ABORT, 'what is put at a rendezvous never changes'); END;

-- A root key is held once in each role: two writers would fight over the same indices.
CREATE UNIQUE INDEX channel_root ON channel (role, substr(cap, CASE role WHEN 0 THEN 33 ELSE 1 END, 32));

CREATE TABLE box (
    id       INTEGER PRIMARY KEY,
    chain    INTEGER NOT NULL REFERENCES chain (id),
    seq      INTEGER NOT NULL CHECK (seq >= 0),
    -- 0 to 4 a writer's; from 10 on a reader's.
    state    INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4 OR state BETWEEN 10 AND 14),
    index104 BLOB NOT NULL CHECK (length(index104) = 104),
    -- Bytes of the channel before it; NULL past a reader's frontier.
    offset   INTEGER CHECK (offset >= 0),
    payload  BLOB NOT NULL,
    -- Writer: it was put on the network in this replica epoch, or a later one; it is there until the one
    -- after the next begins. NULL: not known.
    epoch INTEGER CHECK (epoch IS NULL OR state < 10),
    -- Reader: when the box came, where it came before one that it follows.
    seen INTEGER,
    -- The network's replica epoch then.
    seen_epoch INTEGER,
    -- When the box came into its state; a launched one, when it was sealed.
    since INTEGER,
    UNIQUE (chain, seq),
    -- An empty box would be a tombstone.
    CHECK (state > 4 OR (offset IS NOT NULL AND length(payload) > 0)),
    CHECK (state <= 4 OR state = 12 OR length(payload) = 0)
) STRICT;
CREATE INDEX box_by_epoch ON box (chain, coalesce(epoch, 0), seq) WHERE state = 4;
CREATE INDEX box_by_offset ON box (chain, offset, seq) WHERE offset IS NOT NULL;

-- One row: sums over all channels.
CREATE TABLE spool (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    -- Accepted and not yet stored.
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    -- What was sent and is kept for reading back, and what has arrived and is kept.
    sent_bytes INTEGER NOT NULL DEFAULT 0 CHECK (sent_bytes >= 0),
    cache_bytes INTEGER NOT NULL DEFAULT 0 CHECK (cache_bytes >= 0),
    -- When a channel was made, renamed or removed.
    listing_changed INTEGER NOT NULL DEFAULT 0,
    -- The replica epoch that the network told last: weeks of its own time.
    replica_epoch INTEGER
) STRICT;
INSERT INTO spool (id, bytes) VALUES (1, 0);
CREATE TRIGGER spool_changes AFTER UPDATE OF size, stored_bytes ON channel WHEN NEW.role = 0 BEGIN
    UPDATE spool SET bytes = bytes + (NEW.size - NEW.stored_bytes) - (OLD.size - OLD.stored_bytes);
END;
CREATE TRIGGER spool_shrinks AFTER DELETE ON channel WHEN OLD.role = 0 BEGIN
    UPDATE spool SET bytes = bytes - (OLD.size - OLD.stored_bytes);
END;

-- Law: the bytes and the index of a box are bound to each other before it leaves, for ever. Only the open tail takes
-- bytes; a box that was not launched may be moved up by a re-packing.
CREATE TRIGGER box_is_bound BEFORE UPDATE OF id, chain, seq, index104, payload ON box
    WHEN NOT (OLD.state = 0 AND NEW.state IN (0, 1) AND NEW.chain = OLD.chain AND NEW.seq = OLD.seq
              AND NEW.index104 = OLD.index104 AND substr(NEW.payload, 1, length(OLD.payload)) = OLD.payload)
     AND NOT (OLD.state IN (0, 1) AND NEW.chain = OLD.chain AND NEW.payload = OLD.payload AND NEW.state = OLD.state)
     AND NOT (NEW.chain = OLD.chain AND NEW.payload = OLD.payload AND NEW.state = OLD.state
              AND OLD.chain IN (SELECT chain FROM rewritten))
BEGIN SELECT RAISE(ABORT, 'the bytes and the index of a box are bound for ever'); END;
CREATE TRIGGER box_offset_is_bound BEFORE UPDATE OF offset ON box WHEN OLD.offset IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the offset of a box never changes'); END;
CREATE TRIGGER box_goes_forward BEFORE UPDATE OF state ON box
    WHEN NEW.state < OLD.state OR (OLD.state = 0 AND NEW.state > 1) OR (OLD.state = 1 AND NEW.state > 2)
      OR (OLD.state >= 4 AND NEW.state <> OLD.state)
BEGIN SELECT RAISE(ABORT, 'a box goes forward through its states, one by one'); END;
CREATE TRIGGER box_stays BEFORE DELETE ON box
    WHEN OLD.state NOT IN (0, 1) AND NOT EXISTS (SELECT 1 FROM chain WHERE id = OLD.chain AND abandoned <> 0)
     AND NOT EXISTS (SELECT 1 FROM channel WHERE chain = OLD.chain AND OLD.seq < dropped_boxes)
     AND OLD.chain NOT IN (SELECT chain FROM rewritten)
BEGIN SELECT RAISE(ABORT, 'a box that was launched or has arrived stays until it is dropped or forgotten'); END;
-- Law: a writer's boxes follow one another without a gap, in number and in bytes, and only the last is open.
CREATE TRIGGER box_begins BEFORE INSERT ON box
    WHEN NEW.state > 1 AND NEW.state < 10 AND NEW.chain NOT IN (SELECT chain FROM rewritten)
BEGIN SELECT RAISE(ABORT, 'a box begins open or sealed'); END;
CREATE TRIGGER box_is_first BEFORE INSERT ON box WHEN NEW.state < 10 AND NEW.seq = 0 AND NEW.offset <> 0
BEGIN SELECT RAISE(ABORT, 'the first box begins at byte 0'); END;
CREATE TRIGGER box_follows BEFORE INSERT ON box
    WHEN NEW.state < 10 AND NEW.seq > 0
     AND NOT EXISTS (SELECT 1 FROM box WHERE chain = NEW.chain AND seq = NEW.seq - 1
                                         AND (state BETWEEN 1 AND 4 OR state = 13)
                                         AND offset + length(payload) = NEW.offset)
     AND NOT EXISTS (SELECT 1 FROM channel WHERE chain = NEW.chain AND NEW.seq = dropped_boxes
                                             AND NEW.offset = dropped_bytes)
BEGIN SELECT RAISE(ABORT, 'a box follows the sealed one before it'); END;
-- Law: boxes go only into a chain that is in use.
CREATE TRIGGER box_has_channel BEFORE INSERT ON box
    WHEN NOT EXISTS (SELECT 1 FROM channel WHERE chain = NEW.chain)
BEGIN SELECT RAISE(ABORT, 'a box belongs to a channel'); END;

-- Law: what was launched or shown is given up by one verb only, and is known for ever.
CREATE TRIGGER chain_is_kept BEFORE UPDATE ON chain
    WHEN NEW.abandoned < OLD.abandoned OR NEW.id <> OLD.id
      OR (NEW.abandoned = 1 AND EXISTS (SELECT 1 FROM channel
                                        WHERE chain = NEW.id AND (launched OR shown OR role = 1)))
BEGIN SELECT RAISE(ABORT, 'what was launched or shown is given up only by forgetting the channel'); END;
CREATE TRIGGER channel_leaves_chain BEFORE UPDATE OF chain ON channel
    WHEN NEW.chain <> OLD.chain AND NOT EXISTS (SELECT 1 FROM chain WHERE id = OLD.chain AND abandoned = 1)
BEGIN SELECT RAISE(ABORT, 'a channel leaves its boxes only when it is emptied'); END;
CREATE TRIGGER channel_is_removed BEFORE DELETE ON channel
    WHEN NOT EXISTS (SELECT 1 FROM chain WHERE id = OLD.chain AND abandoned <> 0)
BEGIN SELECT RAISE(ABORT, 'a channel is removed by abandoning its boxes'); END;
CREATE TRIGGER channel_remembers BEFORE UPDATE OF launched, shown ON channel
    WHEN NEW.launched < OLD.launched OR NEW.shown < OLD.shown
BEGIN SELECT RAISE(ABORT, 'that a channel was launched or shown is never taken back'); END;
CREATE TRIGGER channel_is_what_it_is BEFORE UPDATE OF id, role, cap, created ON channel
    WHEN NOT (NEW.id = OLD.id AND NEW.role = OLD.role AND NEW.created = OLD.created
              -- A reply to an invitation moves it to another chain of indices, with the same root key.
              AND OLD.launched = 0 AND OLD.shown = 0 AND substr(NEW.cap, 1, 64) = substr(OLD.cap, 1, 64)
              AND EXISTS (SELECT 1 FROM invitation WHERE channel = OLD.id AND stage = 3))
BEGIN SELECT RAISE(ABORT, 'the capability of a channel never changes'); END;
CREATE TRIGGER channel_is_bound BEFORE UPDATE OF network ON channel
    WHEN OLD.network IS NOT NULL AND NEW.network IS NOT OLD.network AND (OLD.launched OR OLD.role = 1)
BEGIN SELECT RAISE(ABORT, 'a channel stays with its network'); END;
CREATE TRIGGER channel_goes_forward
    BEFORE UPDATE OF stored_boxes, first_unstored, stored_bytes, frontier, launched_end ON channel
    WHEN (NEW.stored_boxes < OLD.stored_boxes OR NEW.launched_end < OLD.launched_end
          OR NEW.first_unstored < OLD.first_unstored OR NEW.stored_bytes < OLD.stored_bytes
          OR NEW.frontier < OLD.frontier)
     AND NOT (NEW.first_unstored >= OLD.first_unstored AND NEW.stored_bytes >= OLD.stored_bytes
              AND NEW.chain IN (SELECT chain FROM rewritten))
BEGIN SELECT RAISE(ABORT, 'what was launched, stored or has arrived stays so'); END;

CREATE INDEX channel_unswept ON channel (id) WHERE swept_boxes < dropped_boxes;

CREATE TRIGGER sent_changes AFTER UPDATE OF stored_bytes, dropped_bytes ON channel WHEN NEW.role = 0 BEGIN
    UPDATE spool SET sent_bytes = sent_bytes + (NEW.stored_bytes - NEW.dropped_bytes)
                                             - (OLD.stored_bytes - OLD.dropped_bytes);
END;
CREATE TRIGGER sent_shrinks AFTER DELETE ON channel WHEN OLD.role = 0 BEGIN
    UPDATE spool SET sent_bytes = sent_bytes - (OLD.stored_bytes - OLD.dropped_bytes);
END;
CREATE TRIGGER cache_changes AFTER UPDATE OF held_bytes ON channel BEGIN
    UPDATE spool SET cache_bytes = cache_bytes + NEW.held_bytes - OLD.held_bytes;
END;
CREATE TRIGGER cache_shrinks AFTER DELETE ON channel BEGIN
    UPDATE spool SET cache_bytes = cache_bytes - OLD.held_bytes;
END;

-- Law: what is dropped is gone for good, and only what is dropped may be deleted.
CREATE TRIGGER channel_drops_forward BEFORE UPDATE OF dropped_boxes, dropped_bytes, swept_boxes ON channel
    WHEN NEW.dropped_boxes < OLD.dropped_boxes OR NEW.dropped_bytes < OLD.dropped_bytes
      OR NEW.swept_boxes < OLD.swept_boxes
BEGIN SELECT RAISE(ABORT, 'what was dropped does not come back'); END;

-- Law: what was given up stays so.
CREATE TRIGGER channel_skips_forward BEFORE UPDATE OF skipped_boxes ON channel
    WHEN NEW.skipped_boxes < OLD.skipped_boxes
BEGIN SELECT RAISE(ABORT, 'what was given up stays so'); END;

CREATE INDEX channel_drops ON channel (id) WHERE kind = 1;

CREATE TABLE drop_record (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    chain      INTEGER NOT NULL REFERENCES chain (id),
    -- A writer's: 0 waiting, 1 filling boxes, 2 filled, 3 to be deleted, 4 deleted, 5 broken off before its end.
    -- A reader's: 10 incomplete, 11 complete, 12 broken.
    state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5 OR state BETWEEN 10 AND 12),
    -- As encoded: a writer's without its sync, a reader's as it came. Empty: boxes that belong to no record.
    header     BLOB NOT NULL,
    name       TEXT NOT NULL,
    path       TEXT NOT NULL,
    size       INTEGER NOT NULL CHECK (size >= 0),
    digest     BLOB CHECK (digest IS NULL OR length(digest) = 32),
    -- Writer: where its bytes are, below the directory of drops, until all of them are stored.
    staging    TEXT,
    -- Where it is in the channel: boxes, and bytes of the channel before it.
    first_seq  INTEGER CHECK (first_seq >= 0),
    end_seq    INTEGER CHECK (end_seq > first_seq),
    begin      INTEGER CHECK (begin >= 0),
    head_bytes INTEGER NOT NULL DEFAULT 0 CHECK (head_bytes >= 0),
    -- Bytes of the body that are in boxes.
    taken      INTEGER NOT NULL DEFAULT 0 CHECK (taken BETWEEN 0 AND size),
    reason     TEXT CHECK ((reason IS NOT NULL) = (state IN (5, 12))),
    -- Which chain of parts, and which part of it; 0: the file that the parts make.
    parts      BLOB CHECK (parts IS NULL OR length(parts) = 16),
    part       INTEGER CHECK ((part IS NULL) = (parts IS NULL)),
    -- Where the part is in that file, once that is whole.
    part_begin INTEGER CHECK (part_begin IS NULL OR (part > 0 AND state = 11)),
    -- Writer: the next box to be deleted from the network; those before it are.
    deleted_end INTEGER CHECK (deleted_end IS NULL OR (state IN (3, 4) AND deleted_end BETWEEN first_seq AND end_seq)),
    -- Reader: a verb has put it where a person wanted it, or has told that it is broken. Writer: a person has removed
    -- one that was broken off.
    delivered  INTEGER NOT NULL DEFAULT 0 CHECK (delivered IN (0, 1)),
    created    INTEGER NOT NULL,
    -- Writer: when the file was changed, as its owner has it;
    modified INTEGER,
    CHECK (state <> 0 OR (first_seq IS NULL AND end_seq IS NULL AND begin IS NULL AND taken = 0 AND head_bytes = 0)),
    CHECK (state NOT IN (1, 2, 3, 4, 5, 10) OR (first_seq IS NOT NULL AND begin IS NOT NULL AND head_bytes > 0)),
    CHECK (state NOT IN (2, 3, 4, 5) OR end_seq IS NOT NULL),
    CHECK (state <> 2 OR taken = size),
    CHECK (state NOT IN (1, 10) OR end_seq IS NULL),
    CHECK (state <> 11 OR part = 0 OR (end_seq IS NOT NULL AND taken = size AND digest IS NOT NULL)),
    CHECK (state > 5 OR size = 0 OR staging IS NOT NULL OR state >= 2)
) STRICT;
CREATE INDEX drop_record_by_chain ON drop_record (chain, state, end_seq);
CREATE INDEX drop_record_in_order ON drop_record (chain, id);
CREATE INDEX drop_record_by_name ON drop_record (chain, path, name);
CREATE INDEX drop_record_unfilled ON drop_record (chain, id) WHERE state < 2;
CREATE INDEX drop_record_parts ON drop_record (chain, parts, part, id) WHERE parts IS NOT NULL;
CREATE INDEX drop_record_parted ON drop_record (chain, parts, part_begin, size)
    WHERE part_begin IS NOT NULL;
CREATE UNIQUE INDEX drop_record_whole ON drop_record (chain, parts) WHERE part = 0;
CREATE INDEX drop_record_staging ON drop_record (staging) WHERE staging IS NOT NULL;
CREATE INDEX drop_record_staged ON drop_record (chain, end_seq) WHERE staging IS NOT NULL;
CREATE INDEX drop_record_deleting ON drop_record (chain) WHERE state = 3;
-- One record at a time arrives.
CREATE UNIQUE INDEX drop_record_arriving ON drop_record (chain) WHERE state = 10;

-- How many records of a chain are how far, so that nobody has to walk over them.
CREATE TABLE drop_count (
    chain   INTEGER NOT NULL,
    state   INTEGER NOT NULL,
    is_part INTEGER NOT NULL CHECK (is_part IN (0, 1)),
    records INTEGER NOT NULL CHECK (records >= 0),
    PRIMARY KEY (chain, state, is_part)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER drop_count_grows AFTER INSERT ON drop_record BEGIN
    INSERT INTO drop_count VALUES (NEW.chain, NEW.state, coalesce(NEW.part > 0, 0), 1)
        ON CONFLICT DO UPDATE SET records = records + 1;
END;
CREATE TRIGGER drop_count_changes AFTER UPDATE OF state ON drop_record WHEN NEW.state <> OLD.state BEGIN
    UPDATE drop_count SET records = records - 1
        WHERE chain = OLD.chain AND state = OLD.state AND is_part = coalesce(OLD.part > 0, 0);
    INSERT INTO drop_count VALUES (NEW.chain, NEW.state, coalesce(NEW.part > 0, 0), 1)
        ON CONFLICT DO UPDATE SET records = records + 1;
END;
CREATE TRIGGER drop_count_shrinks AFTER DELETE ON drop_record BEGIN
    UPDATE drop_count SET records = records - 1
        WHERE chain = OLD.chain AND state = OLD.state AND is_part = coalesce(OLD.part > 0, 0);
END;
CREATE TRIGGER drop_count_goes AFTER DELETE ON chain BEGIN
    DELETE FROM drop_count WHERE chain = OLD.id;
END;

-- The spool counts what is accepted and in no box yet.
CREATE TRIGGER drop_spool_grows AFTER INSERT ON drop_record WHEN NEW.state < 10 BEGIN
    UPDATE spool SET bytes = bytes + NEW.size - NEW.taken;
END;
CREATE TRIGGER drop_spool_changes AFTER UPDATE OF taken ON drop_record WHEN NEW.state < 10 BEGIN
    UPDATE spool SET bytes = bytes + OLD.taken - NEW.taken;
END;
CREATE TRIGGER drop_spool_gives_up AFTER UPDATE OF state ON drop_record WHEN NEW.state = 5 BEGIN
    UPDATE spool SET bytes = bytes - (NEW.size - NEW.taken);
END;
CREATE TRIGGER drop_spool_shrinks AFTER DELETE ON drop_record WHEN OLD.state < 3 BEGIN
    UPDATE spool SET bytes = bytes - (OLD.size - OLD.taken);
END;

-- Law: a record is what it was accepted or arrived as.
CREATE TRIGGER drop_record_is_what_it_is
    BEFORE UPDATE OF id, chain, header, name, path, size, parts, part, created ON drop_record
BEGIN SELECT RAISE(ABORT, 'a record is what it was accepted or arrived as'); END;
CREATE TRIGGER drop_record_keeps_digest BEFORE UPDATE OF digest ON drop_record
    WHEN OLD.digest IS NOT NULL AND NEW.digest IS NOT OLD.digest
BEGIN SELECT RAISE(ABORT, 'a record is what it was accepted or arrived as'); END;
-- Law: from the first packet on a record stays at its boxes.
CREATE TRIGGER drop_record_is_bound BEFORE UPDATE OF first_seq, begin, head_bytes ON drop_record
    WHEN OLD.first_seq IS NOT NULL
     AND (NEW.first_seq IS NOT OLD.first_seq OR NEW.begin IS NOT OLD.begin OR NEW.head_bytes <> OLD.head_bytes)
     AND NOT EXISTS (SELECT 1 FROM channel WHERE chain = OLD.chain AND role = 0 AND launched_end <= OLD.first_seq)
BEGIN SELECT RAISE(ABORT, 'a record stays at its boxes once a packet may have left'); END;
-- Law: a record goes forward, but for a writer's whose boxes are packed anew.
CREATE TRIGGER drop_record_goes_forward BEFORE UPDATE OF state ON drop_record
    WHEN NEW.state <> OLD.state
     AND NOT (OLD.state <= 2 AND NEW.state <= 2)
     AND NOT (OLD.state = 1 AND NEW.state = 5)
     AND NOT (OLD.state IN (2, 5) AND NEW.state = 3 AND EXISTS (SELECT 1 FROM channel WHERE chain = OLD.chain AND allow_delete))
     AND NOT (OLD.state = 3 AND NEW.state = 4)
     AND NOT (OLD.state = 10 AND NEW.state IN (11, 12))
BEGIN SELECT RAISE(ABORT, 'a record goes forward'); END;
-- Law: the bytes of a record are kept until replicas have all of them.
CREATE TRIGGER drop_record_keeps_bytes BEFORE UPDATE OF staging ON drop_record
    WHEN NOT EXISTS (SELECT 1 FROM channel WHERE chain = OLD.chain AND first_unstored >= OLD.end_seq)
      OR NEW.staging IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the bytes of a record are kept until they are stored'); END;
-- Law: only what no packet has left of is taken back; what arrived stays, but for a file that its writer deleted before all
-- of it had arrived.
CREATE TRIGGER drop_record_stays BEFORE DELETE ON drop_record
    WHEN OLD.state NOT IN (0, 10) AND NOT (OLD.state = 11 AND OLD.part > 0 AND OLD.part_begin IS NULL) AND NOT EXISTS (SELECT 1 FROM chain WHERE id = OLD.chain AND abandoned <> 0)
BEGIN SELECT RAISE(ABORT, 'a record that was begun or has arrived stays until its channel is forgotten'); END;
-- Law: records are in drops, and a drop has nothing else: no open tail.
CREATE TRIGGER drop_record_has_drop BEFORE INSERT ON drop_record
    WHEN NOT EXISTS (SELECT 1 FROM channel WHERE chain = NEW.chain AND kind = 1
                                             AND role = CASE WHEN NEW.state < 10 THEN 0 ELSE 1 END)
      OR NEW.state BETWEEN 1 AND 9
BEGIN SELECT RAISE(ABORT, 'a record begins in a drop'); END;
CREATE TRIGGER box_of_drop_is_whole BEFORE INSERT ON box
    WHEN NEW.state = 0 AND EXISTS (SELECT 1 FROM channel WHERE chain = NEW.chain AND kind = 1)
BEGIN SELECT RAISE(ABORT, 'a box of a drop is sealed when it is made'); END;
CREATE TRIGGER channel_keeps_kind BEFORE UPDATE OF kind, allow_delete ON channel
BEGIN SELECT RAISE(ABORT, 'what a channel carries never changes'); END;
CREATE TRIGGER channel_assembles_forward BEFORE UPDATE OF assembled ON channel WHEN NEW.assembled < OLD.assembled
BEGIN SELECT RAISE(ABORT, 'boxes are made into records once'); END;

CREATE TABLE recovery (
    channel         INTEGER PRIMARY KEY REFERENCES channel (id) ON DELETE CASCADE,
    -- 1 another writer's boxes are adopted, 2 what was not stored was moved to another channel
    kind            INTEGER NOT NULL CHECK (kind IN (1, 2)),
    -- 0 the network is asked, 1 the boxes are being rewritten (inside one transaction only), 2 done
    stage           INTEGER NOT NULL CHECK (stage IN (0, 1, 2)),
    -- The first box that is looked at.
    first           INTEGER NOT NULL CHECK (first >= 0),
    foreign_boxes   INTEGER NOT NULL DEFAULT 0 CHECK (foreign_boxes >= 0),
    foreign_bytes   INTEGER NOT NULL DEFAULT 0 CHECK (foreign_bytes >= 0),
    replanned_boxes INTEGER NOT NULL DEFAULT 0 CHECK (replanned_boxes >= 0),
    replanned_bytes INTEGER NOT NULL DEFAULT 0 CHECK (replanned_bytes >= 0)
) STRICT;
-- What the network holds at the indices of a channel that is being adopted.
CREATE TABLE finding (
    channel INTEGER NOT NULL REFERENCES recovery (channel) ON DELETE CASCADE,
    seq     INTEGER NOT NULL CHECK (seq >= 0),
    -- 0 nothing, 1 what we wrote, 2 what another writer wrote, 3 a tombstone
    found   INTEGER NOT NULL CHECK (found IN (0, 1, 2, 3)),
    payload BLOB NOT NULL CHECK ((length(payload) > 0) = (found = 2)),
    PRIMARY KEY (channel, seq)
) STRICT;

-- Law: the bytes and the index of a box are bound to each other before it leaves, for ever; but a person may have a
-- fenced channel rewritten, in one transaction, behind what another writer wrote.
CREATE VIEW rewritten AS
    SELECT c.chain FROM recovery r JOIN channel c ON c.id = r.channel WHERE r.stage = 1;

CREATE TABLE note (
    id      INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL REFERENCES channel (id) ON DELETE CASCADE,
    at      INTEGER NOT NULL,
    text    TEXT NOT NULL
) STRICT;
CREATE INDEX note_of_channel ON note (channel, id);

CREATE TABLE log (
    id   INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;

CREATE INDEX channel_stale ON channel (id) WHERE stale_since IS NOT NULL;
-- How far the search of a channel has come.
CREATE TABLE search (
    channel  INTEGER PRIMARY KEY REFERENCES channel (id) ON DELETE CASCADE,
    -- Where the channel stood when it began.
    frontier INTEGER NOT NULL CHECK (frontier >= 0),
    -- How many boxes past the frontier it looks, and in how many reads.
    span     INTEGER NOT NULL CHECK (span >= 0),
    budget   INTEGER NOT NULL CHECK (budget > 0),
    -- A byte for each read so far: 0 no answer, 1 not there, 2 arrived.
    answers  BLOB NOT NULL DEFAULT x'',
    -- The lowest box that has arrived, and what it holds; no payload: a tombstone.
    found_at      INTEGER CHECK (found_at > 0),
    found_index   BLOB CHECK ((found_index IS NULL) = (found_at IS NULL)),
    found_payload BLOB CHECK (found_payload IS NULL OR found_at IS NOT NULL)
) STRICT;
";
