//! Whose key signs for a ledger, and whose did before: what a coordinator checks before it signs anything.

use gristmill_ledger::Ledger;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::index::PAGE_MAX_ITEMS;
use gristmill_ledger::outcome::{Effect, Posted};
use gristmill_ledger::store::{ReadError, StoredCheckpoint};
use gristmill_protocol::handover::{self, HandoverError, SignedHandover};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::account_of_origin;
use thiserror::Error;

/// Who signs for a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers {
    log: AccountId,
    now: AccountId,
    handovers: Vec<SignedHandover>,
}

/// Why a key can't sign for a ledger.
#[derive(Debug, Error)]
pub enum SignersError {
    /// The ledger can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger is another key's.
    #[error(
        "this ledger is signed by {signer}, but the key here is that of {own}: two keys would make two histories of \
         one ledger. Copy the signing.key of the coordinator that keeps this ledger, with mode 0600, or restore it \
         from a backup made with --include-key"
    )]
    OtherKey {
        /// Who signs for the ledger.
        signer: AccountId,
        /// Whose key is here.
        own: AccountId,
    },
    /// The hand-overs in the ledger do not lead to the key that signs now.
    #[error("the hand-overs of the signing key in the ledger do not hold: {0}. Run 'gristmill ledger audit'")]
    Handover(#[from] HandoverError),
    /// A hand-over that the ledger tells of is not found.
    #[error(
        "the ledger tells of a hand-over of the signing key by {0}, which is not found. Run 'gristmill ledger audit'"
    )]
    Missing(AccountId),
    /// The newest checkpoint is not of a coordinator's log.
    #[error("the newest checkpoint of the log is of '{0}', which is no coordinator's log")]
    Origin(String),
}

impl Signers {
    /// Reads who signs for a ledger; `None` where nobody has signed for it yet.
    ///
    /// # Errors
    /// [`SignersError`]
    pub async fn read(ledger: &Ledger) -> Result<Option<Self>, SignersError> {
        let origin = origin(ledger.store().published_checkpoint().await?)?;
        let Some(signer) = ledger.head().await?.signer else {
            return Ok(origin.map(Self::first));
        };
        let handovers = handovers(ledger, signer.log, signer.now).await?;
        let now = handover::follow(&signer.log, &handovers)?;
        match origin.filter(|origin| *origin != signer.log) {
            Some(origin) => Err(SignersError::OtherKey {
                signer: origin,
                own: signer.log,
            }),
            None => Ok(Some(Self {
                log: signer.log,
                now,
                handovers,
            })),
        }
    }

    /// The key of a new ledger, which names its log from then on.
    #[must_use]
    pub const fn first(key: AccountId) -> Self {
        Self {
            log: key,
            now: key,
            handovers: Vec::new(),
        }
    }

    /// Checks that this key signs now.
    ///
    /// # Errors
    /// [`SignersError::OtherKey`]
    pub fn check(&self, own: AccountId) -> Result<(), SignersError> {
        if self.now == own {
            return Ok(());
        }
        let signer = self.now;
        Err(SignersError::OtherKey { signer, own })
    }

    /// The first key, which names the log.
    #[must_use]
    pub const fn log(&self) -> AccountId {
        self.log
    }

    /// The key that signs now.
    #[must_use]
    pub const fn now(&self) -> AccountId {
        self.now
    }

    /// The hand-overs from the first key to the one that signs now, in order.
    #[must_use]
    pub fn handovers(&self) -> &[SignedHandover] {
        &self.handovers
    }

    /// The keys that signed before, the first one first.
    pub fn retired(&self) -> impl DoubleEndedIterator<Item = AccountId> {
        self.handovers
            .iter()
            .map(|handover| handover.by_old.content_unchecked().old)
    }
}

/// The first key of the log that a checkpoint is of.
fn origin(published: Option<StoredCheckpoint>) -> Result<Option<AccountId>, SignersError> {
    let Some(note) = published.and_then(|published| published.note) else {
        return Ok(None);
    };
    let origin = note.lines().next().unwrap_or_default();
    let unknown = || SignersError::Origin(origin.chars().take(100).collect());
    account_of_origin(origin).ok_or_else(unknown).map(Some)
}

async fn handovers(
    ledger: &Ledger,
    first: AccountId,
    last: AccountId,
) -> Result<Vec<SignedHandover>, SignersError> {
    let mut found = Vec::new();
    let mut known = first;
    while known != last {
        let handover = handover_by(ledger, known).await?;
        known = handover.by_old.content_unchecked().new;
        found.push(handover);
        if known == first {
            break;
        }
    }
    Ok(found)
}

/// The hand-over by which a key was retired.
async fn handover_by(ledger: &Ledger, old: AccountId) -> Result<SignedHandover, SignersError> {
    let mut before = None;
    loop {
        let page = ledger.history(&old, before, PAGE_MAX_ITEMS).await?;
        let retired = |posted: &&Posted| matches!(&posted.outcome.effect, Effect::KeyRotated(rotated) if rotated.old == old);
        if let Some(posted) = page.iter().find(retired) {
            let record = ledger.record(posted.sequence).await?;
            return match record.map(|record| Entry::decode_salted(&record.content)) {
                Some(Ok(Entry::RotateKey(handover))) => Ok(*handover),
                _ => Err(SignersError::Missing(old)),
            };
        }
        match page.last() {
            Some(last) => before = Some(last.sequence),
            None => return Err(SignersError::Missing(old)),
        }
    }
}
