//! Requests about attachments: which there are, where they are, and the content itself.
//!
//! Content goes to whoever asked in parts, so that no line of the socket is long. Who waits for content that is not here hears
//! how far it has come, and why it does not come.

use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::Value;
use sync_core::{
    attachment::{Attachment, Held, Kept, Name, PIECE_BYTES},
    bundle::{ContentPlaces, decode_contents, encode_contents},
    engine::{Event, Fetching},
    id::{ContentHash, RecordId, Secrecy},
    store::{Op, Store, StoreError},
};
use tokio::sync::mpsc;

use super::core::{Core, Outcome, refuse, send};
use crate::{
    admin::{
        Answer, AttachmentLine, AttachmentPart, Attachments, Contents, Failure, FailureKind, Progress,
        Waiting,
    },
    clock,
    fhir::attachment,
};

/// Most records whose attachments are listed on one page.
const PAGE_RECORDS: usize = 1_000;
/// Bytes of one part of content that is given.
const PART_BYTES: u64 = 64 * PIECE_BYTES as u64;
/// The setting that holds what people have asked for and is not here.
const WISHES: &str = "attachment-wishes";
/// So many are remembered.
const WISHES_MAX: usize = 4_096;
/// How often somebody who waits hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Somebody who waits for content.
pub(super) struct Fetcher {
    name: Name,
    answers: mpsc::UnboundedSender<Answer>,
    /// For how long nothing may come.
    patience: Duration,
    /// How much there was, and since when.
    bytes: u64,
    since: Instant,
    tell_at: Instant,
}

/// What a resource brings of attachments.
#[derive(Default)]
pub(super) struct Brought {
    /// What its entry names.
    pub named: Vec<Attachment>,
    /// What is kept with it.
    pub ops: Vec<Op>,
}

impl Core {
    /// Takes large content out of a resource that is to be written. The inner error is for who writes.
    pub fn take_out(
        &self,
        record: &RecordId,
        resource: &mut Value,
    ) -> Result<Result<Brought, String>, StoreError> {
        let found = match attachment::take_out(resource) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let name = |attachment| Name { record: record.clone(), attachment };
        let mut brought = Brought::default();
        for attachment in found.named {
            let comes = found.contents.iter().any(|content| content.attachment == attachment);
            if !comes && self.store.attachment(&name(attachment))?.is_none() {
                return Ok(Err(format!(
                    "it names an attachment {} that {record} does not have at this node; give its `data`, or read the \
                     record anew",
                    attachment.hash.short()
                )));
            }
        }
        for content in found.contents {
            let name = name(content.attachment);
            let held = self.store.attachment(&name)?;
            if held.is_some_and(|held| held.is_whole()) {
                continue;
            }
            if held.is_none() {
                brought.named.push(content.attachment);
            }
            brought.ops.push(Op::Tree(name.clone(), content.tree));
            for (nth, piece) in content.bytes.chunks(PIECE_BYTES).enumerate() {
                brought.ops.push(Op::Piece { name: name.clone(), nth, bytes: piece.to_vec() });
            }
        }
        Ok(Ok(brought))
    }

    /// The attachments of a record, or a page of all.
    pub fn attachments(&self, record: Option<&RecordId>, after: Option<&RecordId>) -> Outcome<Attachments> {
        if let Some(record) = record {
            self.known(record)?;
            let lines = self.store.attachments(record)?.into_iter();
            let lines: Result<Vec<_>, StoreError> =
                lines.map(|held| self.attachment_line(record, &held)).collect();
            return Ok(Attachments { attachments: lines?, next: None });
        }
        let found = self.reader.contents(after, PAGE_RECORDS)?;
        let next = found.last().map(|(name, _)| name.record.clone());
        let lines = found.iter().map(|(name, held)| self.attachment_line(&name.record, held));
        Ok(Attachments { attachments: lines.collect::<Result<_, _>>()?, next })
    }

    fn attachment_line(&self, record: &RecordId, held: &Held) -> Result<AttachmentLine, StoreError> {
        let name = Name { record: record.clone(), attachment: held.attachment };
        let safe = match held.kept {
            _ if self.store.secrecy(record)? != Secrecy::None => "secret",
            _ if !held.is_whole() => "away",
            _ if self.engine.is_root() => "root",
            Kept::Root => "root",
            Kept::Parent => "hub",
            Kept::Here => "local",
        };
        Ok(AttachmentLine {
            record: record.clone(),
            hash: held.attachment.hash,
            bytes: held.attachment.size,
            here: self.engine.fetching(&name, &self.store)?.bytes,
            safe: safe.to_owned(),
        })
    }

    /// How much content is not where it has to be.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        let counts = self.reader.content_counts()?;
        let up = |counted| if self.engine.is_root() { (0, 0) } else { counted };
        let (only_here, unkept) = (up(counts.only_here), up(counts.unkept));
        Ok(Contents {
            here: counts.whole.0,
            here_bytes: counts.whole.1,
            not_at_hub: only_here.0,
            not_at_hub_bytes: only_here.1,
            not_at_root: unkept.0,
            not_at_root_bytes: unkept.1,
            away: counts.lacking.0,
            away_bytes: counts.lacking.1,
        })
    }

    /// Which attachment of a record is meant.
    fn which(&self, record: &RecordId, hash: Option<ContentHash>) -> Outcome<Name> {
        self.known(record)?;
        let all = self.store.attachments(record)?;
        let mut meant = all.iter().filter(|held| hash.is_none_or(|hash| held.attachment.hash == hash));
        let name = |held: &Held| Name { record: record.clone(), attachment: held.attachment };
        match (meant.next(), meant.next()) {
            (Some(held), None) => Ok(name(held)),
            (Some(held), Some(_)) if hash.is_some() => Ok(name(held)),
            (Some(_), Some(_)) => {
                let text = format!(
                    "{record} has {} attachments; say which with --hash, `tuyen attachment list {record}` shows them",
                    all.len()
                );
                refuse(FailureKind::Usage, text)
            }
            (None, _) => {
                let text = format!(
                    "{record} has no such attachment at this node; `tuyen attachment list {record}` shows what it has"
                );
                refuse(FailureKind::Failed, text)
            }
        }
    }

    /// Answers when all of an attachment is here.
    pub fn fetch(
        &mut self,
        record: &RecordId,
        hash: Option<ContentHash>,
        patience: Duration,
        answers: mpsc::UnboundedSender<Answer>,
    ) -> Outcome<()> {
        let name = self.which(record, hash)?;
        self.engine.handle(Event::Fetch(name.clone()), &self.store, clock::now())?;
        self.let_out()?;
        self.wishes_for(&name)?;
        self.numbers.dial.notify_one();
        let bytes = self.engine.fetching(&name, &self.store)?.bytes;
        let (since, tell_at) = (Instant::now(), Instant::now());
        self.fetchers.push(Fetcher { name, answers, patience, bytes, since, tell_at });
        self.answer_fetchers()?;
        Ok(())
    }

    /// Somebody has asked for content that is not all here: that is remembered over a restart.
    fn wishes_for(&mut self, name: &Name) -> Result<(), StoreError> {
        let is_lacking = |name: &Name| {
            Ok::<_, StoreError>(self.store.attachment(name)?.is_some_and(|held| !held.is_whole()))
        };
        let mut wishes = self.wishes()?;
        wishes.insert(name.clone(), 0);
        let mut left = ContentPlaces::new();
        for (name, at) in wishes {
            if left.len() < WISHES_MAX && is_lacking(&name)? {
                left.insert(name, at);
            }
        }
        self.store.set_setting(WISHES, &encode_contents(&left))
    }

    fn wishes(&self) -> Result<ContentPlaces, StoreError> {
        // What cannot be read has to be asked for again.
        Ok(decode_contents(&self.store.setting(WISHES)?.unwrap_or_default()).unwrap_or_default())
    }

    /// What people have asked for before the start is asked for on.
    pub fn wish_on(&mut self) -> Result<(), StoreError> {
        for name in self.wishes()?.into_keys() {
            self.engine.handle(Event::Fetch(name), &self.store, clock::now())?;
        }
        self.let_out().map(drop)
    }

    /// Whether somebody waits for content.
    pub fn has_fetchers(&self) -> bool {
        !self.fetchers.is_empty()
    }

    /// Tells those who wait how far it is, that it is here, or why it does not come.
    pub fn answer_fetchers(&mut self) -> Result<(), StoreError> {
        for mut fetcher in std::mem::take(&mut self.fetchers) {
            let Some(held) = self.store.attachment(&fetcher.name)? else {
                let text = format!("{} is not at this node any more", fetcher.name.record);
                let _ = fetcher.answers.send(Answer::Failed(Failure::new(FailureKind::Failed, text)));
                continue;
            };
            if held.is_whole() {
                let line = self.attachment_line(&fetcher.name.record, &held)?;
                send(&fetcher.answers, &line);
                continue;
            }
            let fetching = self.engine.fetching(&fetcher.name, &self.store)?;
            if fetching.bytes > fetcher.bytes {
                (fetcher.bytes, fetcher.since) = (fetching.bytes, Instant::now());
            }
            if fetcher.since.elapsed() > fetcher.patience {
                let failure = why_not(&fetcher.name, &fetching, self.waiting_bulk()?);
                let _ = fetcher.answers.send(Answer::Failed(failure));
                continue;
            }
            if Instant::now() >= fetcher.tell_at {
                fetcher.tell_at = Instant::now() + TELL_EVERY;
                let what = "bytes of the attachment".to_owned();
                let total = Some(held.attachment.size);
                let _ =
                    fetcher.answers.send(Answer::Progress(Progress { what, done: fetching.bytes, total }));
            }
            if !fetcher.answers.is_closed() {
                self.fetchers.push(fetcher);
            }
        }
        Ok(())
    }

    /// A part of content that is here.
    pub fn part(&mut self, record: &RecordId, hash: ContentHash, from: u64) -> Outcome<AttachmentPart> {
        let name = self.which(record, Some(hash))?;
        if !self.store.attachment(&name)?.is_some_and(|held| held.is_whole()) {
            let text = format!(
                "not all of the attachment is at this node; `tuyen attachment fetch {record}` gets it"
            );
            return refuse(FailureKind::Failed, text);
        }
        let (size, mut bytes) = (name.attachment.size, Vec::new());
        let upto = size.min(from.saturating_add(PART_BYTES));
        let tree = self.store.tree(&name)?;
        while from + (bytes.len() as u64) < upto {
            let at = from + bytes.len() as u64;
            let (nth, begin) = (at as usize / PIECE_BYTES, at as usize % PIECE_BYTES);
            let piece = self.store.piece(&name, nth)?.unwrap_or_default();
            if !tree.as_ref().is_some_and(|tree| tree.fits(nth, &piece)) {
                self.engine.handle(Event::Rotten(vec![(name, nth)]), &self.store, clock::now())?;
                self.let_out()?;
                let text = format!(
                    "a part of the attachment is damaged on this disk, and is fetched again from whoever has it; try again, \
                     and see `tuyen attachment list {record}`"
                );
                return refuse(FailureKind::Integrity, text);
            }
            bytes.extend_from_slice(&piece[begin..]);
        }
        bytes.truncate((upto.saturating_sub(from)) as usize);
        Ok(AttachmentPart { bytes: BASE64.encode(&bytes), size })
    }
}

fn why_not(name: &Name, fetching: &Fetching, waiting: Option<Waiting>) -> Failure {
    let (record, size, bytes) = (&name.record, name.attachment.size, fetching.bytes);
    if let Some(Waiting { until, utc_offset, .. }) = waiting {
        let text = format!(
            "{bytes} of {size} bytes of the attachment of {record} are here, and the rest waits until {}, because files go when bulk \
             may (`tuyen link show`). It comes by itself then; `tuyen sync now --bulk` lets it through once",
            utc_offset.show(until)
        );
        return Failure::new(FailureKind::Unreachable, text);
    }
    if fetching.has_link {
        let text = format!(
            "{bytes} of {size} bytes of the attachment of {record} are here, and nobody who is connected has the rest now; \
             it comes by itself as soon as somebody has it. Ask again later, or where the record was written"
        );
        return Failure::new(FailureKind::Failed, text);
    }
    let text = format!(
        "{bytes} of {size} bytes of the attachment of {record} are here, and there is no link over which the rest could come; \
         see `tuyen peers` and `tuyen link show`. It is fetched when there is one, and goes on where it stopped; it is also asked \
         for in each bundle that is exported for the parent"
    );
    Failure::new(FailureKind::Unreachable, text)
}
