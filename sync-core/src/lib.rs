//! The sync engine of Tuyến: everything that a node decides, and nothing that it does.
//!
//! A node keeps FHIR records, lets people write them without a line, and agrees with its parent and its children
//! when there is one. This crate holds the rules of that: what a record is, what a conflict is, who may hold what,
//! what two neighbours say to each other, and when anybody may be told that something is safe. It opens no file
//! and no socket, reads no clock and draws no random number: it is told what has happened and answers with what
//! is to be done. So a whole country runs in one thread and in made-up time (`tests/src/sim`), and the same code
//! runs in the daemon (`node/src/daemon/core.rs`). It is not a database, not a network library and no FHIR
//! validator: any JSON object with a resource type is a record.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | node | one running store, with a key ([`id::NodeId`]) and a place in the tree ([`id::OrgPath`]); a root, a hub or a leaf ([`identity::Role`]) |
//! | record | one FHIR resource, named `Patient/8f21` ([`id::RecordId`]), kept as one automerge document |
//! | change | one automerge change of one record; its hash does not cover the record's name |
//! | entry | a change with its header: record, home, lane ([`change::Entry`]). The unit that is stored, sent and acknowledged |
//! | incarnation | 16 bytes for one run of a node's process, eight of them random and eight of its node's name ([`id::Incarnation`]): the automerge actor of that run, and the name of its segment |
//! | feed | the order in which entries became durable at one node. Rows count from 1 over everything ([`feed::Seq`]) |
//! | segment | the part of a feed that one run wrote ([`feed::Segment`]). It names the segment before it and where that ended |
//! | cursor | how far a neighbour's feed has been read: segment, position, running hash ([`feed::Cursor`]) |
//! | lineage | which part of which segments a node still knows to be its own ([`feed::Lineage`]) |
//! | lane | urgent, normal or bulk ([`id::Lane`]). A record keeps the lane that it was created in, so its entries never overtake one another |
//! | home | the organization whose patient the record is about, or whose node created it ([`scope::compartment`]); two, when it was created at two places |
//! | scope | what a neighbour is sent: upwards everything, downwards the records with a home in the child's part of the tree, and what is issued at its place or above ([`scope::wants`]) |
//! | frontier | the last row of the own feed that has to go up, that is durable at the parent, that is durable at the root ([`store::Frontier`]) |
//! | receipt | the news that moves a frontier: an ACK from the parent, or the parent's word about the root |
//! | mark | "when the root has row n of my feed, it has everything that I read from you up to here" ([`store::Mark`]) |
//! | conflict | a question of a record with two or more answers ([`conflict::Conflict`]): a function of its changes, in whatever order they came |
//!
//! # The contract
//!
//! ```text
//!            Event                        Effect::Commit(batch)
//!  host  ------------>  Engine::handle  ----------------------->  store
//!    ^                       |   ^                                   |
//!    |  Effect::Send,        |   |        Event::Committed           |
//!    |  Close, Written,      |   +-----------------------------------+
//!    +------ Alert ----------+
//! ```
//!
//! * [`engine::Engine::handle`] is one mutation. It takes an [`engine::Event`], reads the [`store::Store`]
//!   synchronously, and is told the time ([`time::Now`]). Then the host calls [`engine::Engine::poll_effect`] until
//!   it gives none.
//! * [`engine::Engine::poll_timeout`] says when [`engine::Event::Timeout`] is due and why. There is one reason: a
//!   neighbour that has not settled within [`session::SETTLE_TIMEOUT_MILLIS`] is refused.
//! * Writes leave as one [`engine::Effect::Commit`] at a time. While it is under way, whatever else has to become
//!   durable is gathered, and goes into the next one.
//! * **The acknowledgement gate**: an ACK to a neighbour and [`engine::Effect::Written`] to a local writer come out
//!   of [`engine::Event::Committed`] and of nothing else.
//! * A [`store::StoreError`] is final. The host ends the process, and the next start reads from the disk what is
//!   true. Bytes from a neighbour that make no sense are no such error: they end the link that they came on.
//!
//! Randomness and cryptography come through [`engine::Identity`], which mints incarnations, signs announcements and
//! judges those of others. The node implements it with certificates, the simulated world with a table.
//!
//! # One write's way
//!
//! 1. The host loads the record ([`fold::Opened::load`]), gives it the whole resource that somebody wrote
//!    ([`record::Record::put`]), and gets one change of only what differs from the version that the writer had read.
//! 2. It wraps the change into an [`change::Entry`] and says [`engine::Event::Write`], with the new projection.
//! 3. The engine asks for a commit: [`store::Op::Append`], the projection and, for the first row of a run,
//!    [`store::Op::OpenSegment`] with the signed announcement of that run.
//! 4. On [`engine::Event::Committed`] the writer is answered, and on each settled link whatever lies behind the
//!    reader's place and is in its scope goes out: the most urgent lane first, in batches of one lane and one origin.
//! 5. The hub checks the batch without opening a change. It appends the entries that it does not have and moves its
//!    cursor in one commit, then says ACK, which moves the leaf's [`store::Frontier::Hub`] past the row. It sends the
//!    entry on, and folds it into what people see when nothing else waits ([`fold::next`]).
//! 6. When the root has acknowledged the hub's row, the hub's mark turns that into a place in the leaf's feed, and
//!    SAFE_AT_ROOT moves [`store::Frontier::Root`] there.
//!
//! # How two neighbours agree
//!
//! Both directions of a link are the same code; each side is the writer of its own feed and the reader of the
//! other's. The frames are those of [`wire::Frame`], byte by byte in `docs/PROTOCOL.md`.
//!
//! * **HELLO** is said by both at once: which run speaks, where its own feed ends, and how far it has read the
//!   other's. The reader's word counts. What the writer remembers is a hint, so a parent that fell behind sets a
//!   child's frontiers back. When nothing is new, this is all.
//! * **ANNOUNCE** carries a run's name, its parent segment and its node's signature. The writer announces the
//!   segments that are newer than any that the reader named. From them the reader learns the writer's lineage, and
//!   until then it sends no rows of its own. A run that wrote an entry of a batch and is not known is asked for with
//!   **NEED**, and the batch is held back meanwhile.
//! * **BATCH** carries entries with their positions. The batches up to the next one that says how far the reader
//!   has now come are a *stretch*: it becomes durable whole, or not at all. A row that came from the neighbour is
//!   not offered back while the neighbour's lineage covers the place that it came from.
//! * **ACK** names a place of the receiver's own feed that is durable at the sender; **SAFE_AT_ROOT** one that is
//!   durable at the root, as far as the parent says. Neither is signed: a child believes its parent.
//! * **LOST** is said by a writer that does not know a cursor, or knows less than the reader has read: it came back
//!   from an older copy. It announces all its segments, and the reader answers with **CURSORS** in that lineage.
//!   What the writer lost is no longer covered, so it is offered back like anything else. There is no replay of its
//!   own kind.
//! * **Forks.** A cursor whose running hash is not that of the own segment there, or that lies beyond the end of the
//!   segment that this very process writes, means that two machines wrote under one name. So do rows of earlier
//!   runs beyond the place that a reader and a restored writer agreed on: the reader may have read others there.
//!   The writer gives its part of those segments new names, ends its links, tells the operator
//!   ([`engine::Alert::Forked`]), and meets everybody anew. Nothing is dropped on either side.
//! * **AUDIT** asks what the other's entries of the child's part of the tree come to; nearly always that was all. Where
//!   the two differ, whoever began looks where (LOOK, RANGES), asks for what is lacking here (WANT, REPAIR) and gives
//!   what is lacking there (REPAIR, REPAIRED). It gives way to everything else. What a check of the store has found
//!   damaged is asked for by name, and goes back to its row.
//! * **ASK** asks for a part of an attachment, which an entry's header names. Whoever has all of it, and whose record is for
//!   the asker, gives TREE and BYTES, and NOTHING otherwise; KEPT says where all of it is. It comes after everything else.
//! * **REVOCATIONS** are sent when the two digests in HELLO differ, and to everybody when a new one is durable. A
//!   link whose neighbour is revoked ends.
//!
//! A child may bring an entry when its author may speak for the home that the entry names, and the record has a home
//! in the child's part of the tree. The author is the node whose run the change names; the change itself is not
//! signed, unless its record is an issued one. `docs/THREATS.md` says what follows from that. Entries from a parent are
//! taken as they come, but issued ones, which are taken with their author's signature alone.
//!
//! # Modules
//!
//! | module | what it is for |
//! |---|---|
//! | [`id`] | names that cannot hold a wrong value |
//! | [`time`] | the time as the engine is told it; stamps that never go back along a record's history |
//! | [`codec`] | varints and bounded reading, for every binary format here |
//! | [`attachment`] | content beside its record: its hash, its pieces, and how they are checked |
//! | [`audit`] | what two neighbours compare, and what a check of a store finds |
//! | [`change`] | entries, and the header of a change read without automerge |
//! | [`record`] | a resource as flat automerge registers: the only module that uses automerge |
//! | [`conflict`] | the words for disagreement, and which of it a person decides |
//! | [`fold`] | from the entries of a record to what people see |
//! | [`feed`] | positions, segments, lineages, digests |
//! | [`scope`] | where organizations stand, and who gets which row |
//! | [`store`] | what the engine needs of a store; [`store::MemStore`] is the reference that every other has to equal |
//! | [`identity`] | announcements, revocations, refusals, and the question whether they are genuine |
//! | [`wire`] | frames to bytes and back, within named limits |
//! | [`session`] | one link: what is known of the neighbour, and the constants of sending |
//! | [`engine`] | all links, all commits, all decisions |
//!
//! # What must never be here
//!
//! No clock, randomness, I/O, environment, thread or async runtime, and no `HashMap` or `HashSet`, whose order is
//! random: the same events must give the same effects. `clippy.toml` forbids them by name, and
//! `tests/tests/purity.rs` looks at everything that the crate links. No decision about keeping data looks at
//! [`time::Now::wall`]. [`session`] and [`engine`] never look inside a change. No error holds a value of a record.

pub mod attachment;
pub mod audit;
pub mod bundle;
pub mod change;
pub mod codec;
pub mod conflict;
pub mod engine;
pub mod feed;
pub mod fold;
pub mod id;
pub mod identity;
pub mod order;
pub mod record;
pub mod scope;
pub mod session;
pub mod store;
pub mod time;
pub mod wire;
