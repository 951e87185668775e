//! The layout of the file and its history.
//!
//! `user_version` counts the migrations that the file has seen. They only go forward, each in a transaction of
//! its own together with the new number, and none of them makes a change of a record. The tables are explained
//! in `docs/STORAGE.md`.

use rusqlite::Connection;

use super::Fallible;

/// Marks the file as a Tuyến store: "Tuyn" in ASCII.
pub const APPLICATION_ID: i64 = 0x5475_796e;

/// The version of the layout that this program writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// Migration `n` brings a file from version `n` to `n + 1`. Never edit one that has been released.
const MIGRATIONS: [&str; 8] = [V1, V2, V3, V4, V5, V6, V7, V8];

const V1: &str = "
-- Names that rows refer to by small numbers.
CREATE TABLE incarnation (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE org (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE record (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  home INTEGER REFERENCES org
) STRICT;
CREATE TABLE record_name (
  name TEXT PRIMARY KEY,
  record INTEGER NOT NULL REFERENCES record
) STRICT, WITHOUT ROWID;
CREATE TABLE further_home (
  record INTEGER NOT NULL REFERENCES record,
  nth INTEGER NOT NULL,
  org INTEGER NOT NULL REFERENCES org,
  since INTEGER NOT NULL,
  PRIMARY KEY (record, nth)
) STRICT, WITHOUT ROWID;

-- The feed. A row holds an entry, or offers the entry of an older row.
CREATE TABLE feed (
  seq INTEGER PRIMARY KEY,
  lane INTEGER NOT NULL,
  record INTEGER NOT NULL REFERENCES record,
  home INTEGER REFERENCES org,
  origin INTEGER REFERENCES incarnation,
  src INTEGER REFERENCES incarnation,
  src_pos INTEGER,
  offers INTEGER,
  offered_to INTEGER REFERENCES org,
  issued INTEGER NOT NULL,
  at INTEGER NOT NULL,
  chain BLOB NOT NULL,
  entry BLOB,
  CHECK ((entry IS NULL) = (offers IS NOT NULL))
) STRICT;
CREATE INDEX feed_head ON feed (lane, seq, record, home, src, src_pos, offers, offered_to, issued);
CREATE TABLE change (
  record INTEGER NOT NULL REFERENCES record,
  hash BLOB NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (record, hash)
) STRICT, WITHOUT ROWID;

-- How far things have come: 'tip', the last row of the feed; 'folded', a row of it; 'named', the last record in
-- record_name.
CREATE TABLE reached (what TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Where feeds stand: this node's own and those it reads.
CREATE TABLE segment (
  nth INTEGER PRIMARY KEY,
  incarnation INTEGER NOT NULL UNIQUE REFERENCES incarnation,
  base INTEGER NOT NULL,
  parent INTEGER REFERENCES incarnation,
  parent_pos INTEGER
) STRICT;
CREATE TABLE read_cursor (
  segment INTEGER NOT NULL REFERENCES incarnation,
  lane INTEGER NOT NULL,
  pos INTEGER NOT NULL,
  chain BLOB,
  n INTEGER NOT NULL,
  brought INTEGER NOT NULL,
  PRIMARY KEY (segment, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE had_read (
  segment INTEGER NOT NULL REFERENCES incarnation,
  lane INTEGER NOT NULL,
  pos INTEGER NOT NULL,
  chain BLOB,
  PRIMARY KEY (segment, lane, pos)
) STRICT, WITHOUT ROWID;
CREATE TABLE frontier (
  which INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (which, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE mark (
  lane INTEGER NOT NULL,
  src INTEGER NOT NULL REFERENCES incarnation,
  src_pos INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (lane, src, src_pos, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE digest (
  home INTEGER PRIMARY KEY REFERENCES org,
  count INTEGER NOT NULL,
  sum BLOB NOT NULL
) STRICT;

-- Who is who.
CREATE TABLE certificate (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  node BLOB NOT NULL,
  place TEXT NOT NULL,
  role TEXT NOT NULL,
  chain BLOB NOT NULL
) STRICT;
CREATE INDEX certificate_node ON certificate (node);
CREATE TABLE announcement (
  incarnation INTEGER PRIMARY KEY REFERENCES incarnation,
  certificate INTEGER NOT NULL REFERENCES certificate,
  node BLOB NOT NULL,
  parent INTEGER REFERENCES incarnation,
  parent_pos INTEGER,
  signature BLOB NOT NULL
) STRICT;
CREATE INDEX announcement_certificate ON announcement (certificate);
CREATE TABLE node (
  node BLOB PRIMARY KEY,
  certificate INTEGER NOT NULL REFERENCES certificate,
  n INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE revocation (id INTEGER PRIMARY KEY, body BLOB NOT NULL UNIQUE) STRICT;

-- The projection: what the last fold left of each record. It can be rebuilt from the feed.
CREATE TABLE projection (
  record INTEGER PRIMARY KEY REFERENCES record,
  state INTEGER NOT NULL,
  open_conflicts INTEGER NOT NULL,
  version TEXT NOT NULL,
  conflicts TEXT,
  resource TEXT
) STRICT;
CREATE INDEX projection_state ON projection (state, open_conflicts);
CREATE INDEX projection_conflicts ON projection (record) WHERE open_conflicts > 0;
CREATE TABLE snapshot (
  record INTEGER PRIMARY KEY REFERENCES record,
  seq INTEGER NOT NULL,
  document BLOB NOT NULL
) STRICT;
CREATE TABLE waiting (
  record INTEGER NOT NULL REFERENCES record,
  seq INTEGER NOT NULL,
  PRIMARY KEY (record, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE unreadable (
  record INTEGER NOT NULL REFERENCES record,
  seq INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (record, seq)
) STRICT, WITHOUT ROWID;

-- The host's own, by name; `ca-book` is what its CA has promised and issued.
CREATE TABLE setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

const V2: &str = "
-- How secret the few records are that are.
CREATE TABLE secret (
  record INTEGER PRIMARY KEY REFERENCES record,
  degree INTEGER NOT NULL
) STRICT;

-- When the daemon ran and which links stood, as events in the order in which they were noticed. `was` is what the clock
-- said before it was set.
CREATE TABLE outage_log (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  was INTEGER,
  event TEXT NOT NULL,
  neighbour TEXT
) STRICT;
";

const V3: &str = "
-- The orders that have rearranged the tree, and, in at most one row, how far the rows have been offered that children
-- have gained by them.
CREATE TABLE tree_order (id INTEGER PRIMARY KEY, body BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE gain (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  since INTEGER NOT NULL,
  done INTEGER NOT NULL,
  upto INTEGER NOT NULL
) STRICT;
";

const V4: &str = "
-- The running hashes of rows that were forgotten, because the tree was rearranged; how far that has come, in at most one
-- row, and how much it was so far.
CREATE TABLE forgotten (seq INTEGER PRIMARY KEY, chain BLOB NOT NULL) STRICT;
CREATE TABLE purge (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  tree_order INTEGER NOT NULL,
  done INTEGER NOT NULL,
  upto INTEGER NOT NULL
) STRICT;
CREATE TABLE purge_count (
  home INTEGER PRIMARY KEY REFERENCES org,
  records INTEGER NOT NULL,
  entries INTEGER NOT NULL
) STRICT;
";

const V5: &str = "
-- Permissions to hold a record. `since` is the first row that could know of it; `over` is set when it has ended: to the row
-- that offers its end to those below, or to 0 when its time had passed. And the records that are to be forgotten because of it,
-- with the row that the root has to have before.
CREATE TABLE grant_ (
  record INTEGER NOT NULL REFERENCES record,
  name BLOB NOT NULL,
  org INTEGER NOT NULL REFERENCES org,
  until INTEGER NOT NULL,
  since INTEGER NOT NULL,
  over INTEGER,
  PRIMARY KEY (record, name, org)
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_end ON grant_ (until) WHERE over IS NULL;
CREATE TABLE leaving (record INTEGER PRIMARY KEY REFERENCES record, upto INTEGER NOT NULL) STRICT;
";

const V6: &str = "
-- About which patients the records are, by the resource that the projection has. Everything is folded once more to fill it.
CREATE TABLE about (
  patient TEXT NOT NULL,
  record INTEGER NOT NULL REFERENCES record,
  PRIMARY KEY (patient, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX about_record ON about (record);
UPDATE reached SET value = 0 WHERE what = 'folded';
";

const V7: &str = "
-- How secret what was made here of a record is; how secret the rows are that came from elsewhere and are; and how secret what
-- goes to a neighbour may be, over a link (0) or by courier (1).
ALTER TABLE secret ADD COLUMN here INTEGER NOT NULL DEFAULT 0;
UPDATE secret SET here = degree;
CREATE TABLE secret_row (seq INTEGER PRIMARY KEY, degree INTEGER NOT NULL) STRICT;
CREATE TABLE allowed (
  org INTEGER NOT NULL REFERENCES org,
  way INTEGER NOT NULL,
  degree INTEGER NOT NULL,
  PRIMARY KEY (org, way)
) STRICT, WITHOUT ROWID;
";

const V8: &str = "
-- The attachments that entries name: how many of the pieces are not here, where else all of it is (0 nobody knows, 1 at the
-- parent, 2 at the root), and the chaining values of the pieces. And the pieces: the number of the content times 4,096, and
-- the piece's own from 0.
CREATE TABLE attachment (
  id INTEGER PRIMARY KEY,
  record INTEGER NOT NULL REFERENCES record,
  hash BLOB NOT NULL,
  size INTEGER NOT NULL,
  lacking INTEGER NOT NULL,
  kept INTEGER NOT NULL,
  tree BLOB,
  UNIQUE (record, hash, size)
) STRICT;
CREATE INDEX attachment_lacking ON attachment (size) WHERE lacking > 0;
CREATE INDEX attachment_unkept ON attachment (kept, size) WHERE lacking = 0 AND kept < 2;
CREATE TABLE piece (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
";

/// The version of the file's layout.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the file to [`VERSION`].
pub(super) fn migrate(conn: &Connection) -> Fallible<()> {
    let from = version(conn)?;
    for (to, migration) in (1..).zip(MIGRATIONS) {
        if to > from {
            conn.execute_batch(&format!(
                "BEGIN IMMEDIATE;{migration};PRAGMA application_id={APPLICATION_ID};PRAGMA user_version={to};COMMIT"
            ))?;
        }
    }
    Ok(())
}
