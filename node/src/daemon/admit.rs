//! Requests for certificates that come as files: answered as those are that come over a link.
//!
//! What always holds: the invitations, the book and the checks are those of a link, so a token that was used there is
//! used here; who is refused gets no file. Not here: what is right to issue (`ca::enrol`, `ca::renew`).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Message, Numbers, listen::CoreInvites};
use crate::{
    admin::{Admitted, Failure, FailureKind},
    ca::{
        Facts, Response,
        enrol::{self, EnrolError},
        file::{self, Answer, FileError, Kind},
        renew,
    },
    transport::Transport,
};

/// What answering takes.
pub struct Admissions {
    transport: Arc<Transport>,
    invites: Arc<CoreInvites>,
    core: mpsc::Sender<Message>,
    numbers: Arc<Numbers>,
}

impl Admissions {
    pub fn new(
        transport: Arc<Transport>,
        invites: Arc<CoreInvites>,
        core: mpsc::Sender<Message>,
        numbers: Arc<Numbers>,
    ) -> Arc<Self> {
        Arc::new(Self { transport, invites, core, numbers })
    }

    /// Answers the request in a file.
    pub async fn admit(&self, text: &str) -> Result<Admitted, Failure> {
        let (kind, request) = file::read(text.as_bytes())?;
        let response = match kind {
            Kind::Enrolment => self.enrol(request.to_vec()).await?,
            Kind::Renewal => self.renew(request).await?,
            found @ Kind::Answer => {
                return Err(FileError::Kind { found, wanted: "a request" }.into());
            }
        };
        let granted = response.clone().granted()?;
        let own = granted.chain.first().and_then(Facts::read);
        let own = own.ok_or_else(|| failed("the certificate that was issued cannot be read"))?;
        let role = own.subject.role.ok_or_else(|| failed("the certificate that was issued is a CA's"))?;
        Ok(Admitted {
            node: own.key.id(),
            place: own.subject.place,
            role,
            renewed: kind == Kind::Renewal,
            until: own.not_after,
            answer: Answer::write(request, response),
        })
    }

    async fn enrol(&self, request: Vec<u8>) -> Result<Response, Failure> {
        let (identity, invites) = (self.transport.identity(), self.invites.clone());
        let now = self.transport.trust().clock().now();
        let by = identity.clone();
        let answering = tokio::task::spawn_blocking(move || enrol::answer(&by, &*invites, &request, now));
        let redeemed = answering.await.map_err(failed)?.map_err(refused)?;
        let issued = &redeemed.grant.issued;
        tracing::info!(place = %issued.place, node = %issued.node, "enrolled by file");
        Ok(redeemed.response(&identity))
    }

    async fn renew(&self, request: &[u8]) -> Result<Response, Failure> {
        let shown =
            renew::Request::from_json(request).and_then(|request| request.open(&self.numbers.place()));
        let renew::Shown { place, chain, ca_key } = shown.map_err(refused)?;
        let (answer, answered) = oneshot::channel();
        let _ = self.core.send(Message::RenewChild { place, chain, ca_key, answer }).await;
        answered.await.map_err(|_| {
            let text = "the daemon is ending; start it, and try again";
            Failure::new(FailureKind::Unreachable, text)
        })
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Failed, format!("{error}; please report this"))
}

fn refused(refusal: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Refused, format!("{refusal}. Nothing was issued"))
}

impl From<EnrolError> for Failure {
    fn from(error: EnrolError) -> Self {
        let kind = match error {
            EnrolError::Keys(_) => FailureKind::Failed,
            _ => FailureKind::Refused,
        };
        Failure::new(kind, error.to_string())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let kind = match error {
            FileError::CutOff | FileError::Altered => FailureKind::Integrity,
            FileError::OtherRequest => FailureKind::Refused,
            FileError::Foreign | FileError::Kind { .. } | FileError::Version => FailureKind::Failed,
        };
        Failure::new(kind, error.to_string())
    }
}
