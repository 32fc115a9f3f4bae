//! Those certificates of a listing that a consumer believes.

use crate::hardware::HardwareCertificate;
use crate::listing::Listing;
use crate::log::checkpoint::LogKeys;

/// The certificates of a listing that its provider was given by a trusted coordinator. Any other one counts as none:
/// a provider may have several coordinators, and who forwards a listing can't check what it does not know.
#[derive(Clone, Debug, Default)]
pub(super) struct Certified(Box<[Checked]>);

/// A certificate that was checked, and the token that it was in.
#[derive(Clone, Debug)]
struct Checked {
    token: String,
    certificate: HardwareCertificate,
}

/// The number of a certificate in its listing, and when it was issued in Unix seconds.
pub(super) type WrittenCertificate = (usize, u64);

impl Certified {
    /// Checks the certificates of a listing. What was `known` of the listing before it, of the same provider and with
    /// some of these keys, is not checked again: listings come every minute, certificates every few hours. Also says how
    /// many were.
    pub(super) fn of(listing: &Listing, keys: &LogKeys, known: &Self, now_ms: u64) -> (Self, usize) {
        let (mut checked, mut signatures): (Vec<Checked>, usize) = (Vec::new(), 0);
        for token in &listing.certificates {
            if checked.iter().any(|before| before.token == *token) {
                continue;
            }
            let before = known.0.iter().find(|before| before.token == *token).cloned();
            let fresh = || {
                signatures += 1;
                let certificate = HardwareCertificate::open(token, keys, now_ms).ok()?;
                let is_own = certificate.sub == listing.provider;
                is_own.then(|| Checked {
                    token: token.clone(),
                    certificate,
                })
            };
            checked.extend(before.or_else(fresh));
        }
        (Self(checked.into_boxed_slice()), signatures)
    }

    /// Which of the listing's certificates these are, to be written down, and when each was issued.
    pub(super) fn written(&self, listing: &Listing) -> Vec<WrittenCertificate> {
        let position = |checked: &Checked| {
            listing
                .certificates
                .iter()
                .position(|token| *token == checked.token)
        };
        self.0
            .iter()
            .filter_map(|checked| Some((position(checked)?, checked.certificate.iat)))
            .collect()
    }

    /// Checks again those that were written down, at the times when they were issued; `None` where one does not hold.
    pub(super) fn read(written: &[WrittenCertificate], listing: &Listing, keys: &LogKeys) -> Option<Self> {
        let checked = |(position, issued_at_s): &WrittenCertificate| {
            let token = listing.certificates.get(*position)?;
            let issued_at_ms = issued_at_s.saturating_mul(1_000);
            Some(Checked {
                token: token.clone(),
                certificate: HardwareCertificate::open(token, keys, issued_at_ms).ok()?,
            })
        };
        written.iter().map(checked).collect::<Option<_>>().map(Self)
    }

    /// Those that hold now. The issuer's clock and ours may differ by what tokens allow at their beginning, but nothing
    /// holds after its expiry.
    pub(super) fn holding(&self, now_ms: u64) -> impl Iterator<Item = &HardwareCertificate> {
        self.0
            .iter()
            .map(|checked| &checked.certificate)
            .filter(move |certificate| now_ms < certificate.exp.saturating_mul(1_000))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::board::{Board, BoardRestoreError, Insertion};
    use crate::hardware::{
        CERTIFICATE_LIFE_SECONDS, CertifiedDevice, HardwareCertificate, HardwareDigest, HardwareKind, METHOD,
        Precision, Throughput,
    };
    use crate::identity::Keypair;
    use crate::ids::ChallengeId;
    use crate::job::JobKind;
    use crate::jws::Audience;
    use crate::listing::{Listing, Offer, OpenedListing, PrivacyTier};
    use crate::log::checkpoint::LogKeys;
    use crate::usage::Price;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;
    const COORDINATOR: u8 = 1;
    const NEW_KEY: u8 = 2;
    const PROVIDER: u8 = 3;
    const OTHER: u8 = 4;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn keys(signers: &[u8]) -> LogKeys {
        let mut keys = LogKeys::new(keypair(signers[0]).account());
        for signer in &signers[1..] {
            keys.add_key(keypair(*signer).account());
        }
        keys
    }

    fn certificate(issuer: u8, about: u8, issued_at_ms: u64) -> String {
        let iat = issued_at_ms / 1_000;
        HardwareCertificate {
            iss: keypair(issuer).account(),
            sub: keypair(about).account(),
            aud: Audience::One(keypair(issuer).account()),
            jti: ChallengeId::from_bytes([7; 16]),
            iat,
            exp: iat + CERTIFICATE_LIFE_SECONDS,
            shown_at: iat,
            method: METHOD.into(),
            device: CertifiedDevice {
                kind: HardwareKind::Cuda,
                index: 0,
                name: "NVIDIA H200".into(),
                vendor: "NVIDIA".into(),
                uuid: None,
            },
            memory_bytes: 24 << 30,
            throughput: vec![Throughput {
                precision: Precision::F32,
                multiply_adds_per_second: 1 << 44,
            }],
            score: 1_000,
            fingerprint: HardwareDigest::from_bytes([9; 32]),
            fingerprint_changed: false,
        }
        .sign(&keypair(issuer))
    }

    fn sealed(provider: u8, at_ms: u64, certificates: Vec<String>) -> Vec<u8> {
        let listing = Listing {
            provider: keypair(provider).account(),
            sequence: at_ms,
            issued_at_ms: at_ms,
            ttl_ms: 600_000,
            addresses: vec![],
            coordinators: vec![keypair(COORDINATOR).account()],
            region: String::new(),
            privacy: PrivacyTier::Standard,
            offers: vec![Offer {
                kind: JobKind::ChatCompletions,
                model: "guide".into(),
                weights_digest: None,
                quantization: String::new(),
                context_length: 512,
                capabilities: vec![],
                price: Price::default(),
            }],
            slots: 1,
            free_slots: 1,
            certificates,
        };
        listing.seal(&keypair(provider)).unwrap()
    }

    fn is_verified(board: &Board, now_ms: u64) -> bool {
        let coordinator = keypair(COORDINATOR).account();
        let mut candidates = board.candidates(JobKind::ChatCompletions, "guide", coordinator, now_ms);
        let candidate = candidates.next().unwrap();
        let provider = candidate.listing.provider;
        let holding = board.certificates(&provider, now_ms).count();
        assert_eq!(candidate.is_verified, holding > 0);
        candidate.is_verified
    }

    /// Looks at everything.
    fn look(board: &mut Board) {
        assert!(board.check_certificates(usize::MAX, NOW).is_complete);
    }

    fn board(signers: &[u8], certificates: Vec<String>) -> Board {
        let mut board = Board::default();
        board.trust(keys(signers));
        let inserted = board.insert(&sealed(PROVIDER, NOW, certificates), NOW);
        assert_eq!(inserted, Ok(Insertion::New), "no reason to refuse the listing");
        board
    }

    #[test]
    fn only_an_own_unaltered_living_certificate_of_the_coordinator_counts() {
        let good = certificate(COORDINATOR, PROVIDER, NOW);
        assert!(is_verified(&board(&[COORDINATOR], vec![good.clone()]), NOW));
        let life_ms = CERTIFICATE_LIFE_SECONDS * 1_000;
        let mut altered = good.clone().into_bytes();
        let middle = altered.len() / 2;
        altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
        for (what, wrong) in [
            ("of another account", certificate(COORDINATOR, OTHER, NOW)),
            ("expired", certificate(COORDINATOR, PROVIDER, NOW - life_ms)),
            ("of an unknown issuer", certificate(OTHER, PROVIDER, NOW)),
            ("of the provider itself", certificate(PROVIDER, PROVIDER, NOW)),
            (
                "of tomorrow",
                certificate(COORDINATOR, PROVIDER, NOW + 86_400_000),
            ),
            ("altered", String::from_utf8(altered).unwrap()),
            ("no token", "nonsense".to_owned()),
            ("empty", String::new()),
        ] {
            assert!(
                !is_verified(&board(&[COORDINATOR], vec![wrong.clone()]), NOW),
                "{what}"
            );
            assert!(
                is_verified(&board(&[COORDINATOR], vec![wrong, good.clone()]), NOW),
                "{what}"
            );
        }
    }

    #[test]
    fn a_certificate_holds_until_its_expiry_and_not_a_millisecond_longer() {
        let life_ms = CERTIFICATE_LIFE_SECONDS * 1_000;
        let issued_at_ms = NOW - life_ms + 60_000;
        let mut board = board(
            &[COORDINATOR],
            vec![certificate(COORDINATOR, PROVIDER, issued_at_ms)],
        );
        assert!(is_verified(&board, NOW + 59_999));
        assert!(!is_verified(&board, NOW + 60_000));
        // Saying it again does not make it live on.
        let again = vec![certificate(COORDINATOR, PROVIDER, issued_at_ms)];
        assert_eq!(
            board.insert(&sealed(PROVIDER, NOW + 70_000, again), NOW + 70_000),
            Ok(Insertion::Renewed)
        );
        assert!(!is_verified(&board, NOW + 70_000));
        // Nor does leaving it out keep it.
        let fresh = vec![certificate(COORDINATOR, PROVIDER, NOW)];
        board
            .insert(&sealed(PROVIDER, NOW + 80_000, fresh), NOW + 80_000)
            .unwrap();
        assert!(is_verified(&board, NOW + 80_000));
        board
            .insert(&sealed(PROVIDER, NOW + 90_000, vec![]), NOW + 90_000)
            .unwrap();
        assert!(!is_verified(&board, NOW + 90_000));
    }

    #[test]
    fn nobody_is_verified_before_it_is_known_whose_word_counts() {
        let mut board = Board::default();
        let token = certificate(COORDINATOR, PROVIDER, NOW);
        board.insert(&sealed(PROVIDER, NOW, vec![token]), NOW).unwrap();
        assert!(!is_verified(&board, NOW));
        board.trust(keys(&[COORDINATOR]));
        assert!(!is_verified(&board, NOW), "nothing is checked at once");
        look(&mut board);
        assert!(is_verified(&board, NOW), "what is posted is looked at again");
        board.trust(keys(&[OTHER]));
        assert!(!is_verified(&board, NOW), "at once");
        look(&mut board);
        assert!(!is_verified(&board, NOW), "another coordinator's word");
    }

    #[test]
    fn a_hand_over_leaves_old_certificates_and_brings_new_ones() {
        let by_new = certificate(NEW_KEY, PROVIDER, NOW);
        let mut after = board(&[COORDINATOR], vec![by_new]);
        assert!(!is_verified(&after, NOW), "the hand-over is not known yet");
        after.trust(keys(&[COORDINATOR, NEW_KEY]));
        look(&mut after);
        assert!(is_verified(&after, NOW));
        let mut before = board(&[COORDINATOR], vec![certificate(COORDINATOR, PROVIDER, NOW)]);
        before.trust(keys(&[COORDINATOR, NEW_KEY]));
        assert!(
            is_verified(&before, NOW),
            "what is known stays, before anything is looked at"
        );
        look(&mut before);
        assert!(is_verified(&before, NOW));
    }

    /// Also long after it was issued, and with a key that came later.
    #[test]
    fn certificates_that_count_still_do_when_the_board_is_read_back() {
        let tokens = vec![
            certificate(OTHER, PROVIDER, NOW),
            certificate(NEW_KEY, PROVIDER, NOW),
            certificate(COORDINATOR, PROVIDER, NOW),
        ];
        let sealed = sealed(PROVIDER, NOW, tokens);
        let opened = Arc::new(OpenedListing::open(&sealed).unwrap());
        let mut board = Board::default();
        board.trust(keys(&[COORDINATOR, NEW_KEY]));
        board.post(&opened, NOW).unwrap();
        let mut restored = Board::restore(board.snapshot(), |_| Some(opened.clone())).unwrap();
        let provider = keypair(PROVIDER).account();
        assert_eq!(restored.certificates(&provider, NOW).count(), 2);
        assert!(
            restored
                .certificates(&provider, NOW)
                .eq(board.certificates(&provider, NOW))
        );
        restored.trust(keys(&[OTHER]));
        look(&mut restored);
        assert_eq!(restored.certificates(&provider, NOW).count(), 1);

        let other = Arc::new(OpenedListing::open(&self::sealed(PROVIDER, NOW, vec![])).unwrap());
        assert!(matches!(
            Board::restore(board.snapshot(), |_| Some(other.clone())),
            Err(BoardRestoreError::Certificate(_))
        ));
    }

    #[test]
    fn one_certificate_said_twice_is_one() {
        let token = certificate(COORDINATOR, PROVIDER, NOW);
        let board = board(&[COORDINATOR], vec![token.clone(), token]);
        assert_eq!(board.certificates(&keypair(PROVIDER).account(), NOW).count(), 1);
        let gone_at_ms = NOW + 600_000;
        assert_eq!(
            board
                .certificates(&keypair(PROVIDER).account(), gone_at_ms)
                .count(),
            0
        );
    }

    fn posted(providers: &[u8], tokens: impl Fn(u8) -> Vec<String>) -> Board {
        let mut board = Board::default();
        for provider in providers {
            board
                .insert(&sealed(*provider, NOW, tokens(*provider)), NOW)
                .unwrap();
        }
        board
    }

    /// A board that came before its signers is looked at in slices, none of which does more than it was told to.
    #[test]
    fn a_look_at_a_board_is_made_of_bounded_slices() {
        let providers: Vec<u8> = (10..50).collect();
        let two = |provider| {
            let own = certificate(COORDINATOR, provider, NOW);
            vec![own.clone(), own, certificate(OTHER, provider, NOW)]
        };
        let mut board = posted(&providers, two);
        let count = |board: &Board| {
            let held = |provider: &&u8| {
                let account = keypair(**provider).account();
                board.certificates(&account, NOW).next().is_some()
            };
            providers.iter().filter(held).count()
        };
        board.trust(keys(&[COORDINATOR]));
        let (mut turns, mut signatures) = (0, 0);
        loop {
            let check = board.check_certificates(7, NOW);
            assert!(check.signatures <= 2 * 7, "{check:?}");
            (turns, signatures) = (turns + 1, signatures + check.signatures);
            assert_eq!(count(&board), providers.len().min(turns * 7));
            if check.is_complete {
                break;
            }
        }
        // One that is said twice is checked once.
        assert_eq!((turns, signatures), (6, 80));
        assert_eq!(board.check_certificates(7, NOW).signatures, 0, "nothing is left");
        // After a hand-over only what did not hold before is looked at, and what did holds all the time.
        board.trust(keys(&[COORDINATOR, NEW_KEY]));
        assert_eq!(count(&board), 40);
        assert_eq!(board.check_certificates(usize::MAX, NOW).signatures, 40);
        assert_eq!(count(&board), 40);
    }

    /// What comes and goes between two slices is neither left out nor looked at with the wrong keys.
    #[test]
    fn what_changes_during_a_look_is_judged_all_the_same() {
        let own = |provider| vec![certificate(COORDINATOR, provider, NOW)];
        let providers: Vec<u8> = (10..20).collect();
        let mut board = posted(&providers, own);
        board.trust(keys(&[COORDINATOR]));
        for (provider, slice) in (20..30).zip([0, 1, 2, 3].into_iter().cycle()) {
            board.check_certificates(slice, NOW);
            board.insert(&sealed(provider, NOW, own(provider)), NOW).unwrap();
        }
        while !board.check_certificates(1, NOW).is_complete {}
        let mut all = posted(&[], own);
        all.trust(keys(&[COORDINATOR]));
        for provider in 10..30 {
            all.insert(&sealed(provider, NOW, own(provider)), NOW).unwrap();
            let account = keypair(provider).account();
            assert_eq!(board.certificates(&account, NOW).count(), 1);
            assert!(
                board
                    .certificates(&account, NOW)
                    .eq(all.certificates(&account, NOW))
            );
        }
        // Of several keys in a row the last ones count, also where the look at the ones before was not done.
        board.trust(keys(&[OTHER]));
        board.check_certificates(3, NOW);
        board.trust(keys(&[COORDINATOR]));
        look(&mut board);
        assert!((10..30).all(|provider| board.certificates(&keypair(provider).account(), NOW).count() == 1));
    }

    proptest! {
        /// Whatever stands in place of certificates, the listing is taken and nobody is verified by it.
        #[test]
        fn arbitrary_certificates_verify_nobody(texts in proptest::collection::vec("[ -~]{0,200}", 0..8)) {
            prop_assert!(!is_verified(&board(&[COORDINATOR], texts), NOW));
        }
    }
}
