//! Whoever wants to convict an honest log can't.

use super::*;

/// What somebody has who wants to convict an honest log: everything it ever signed, hashes of true and of invented
/// trees, and keys of their own.
#[derive(Clone, Debug)]
struct Forger {
    numbers: [u64; 6],
    kind: u8,
    material: u8,
    mutation: u8,
}

fn forger() -> impl Strategy<Value = Forger> {
    (any::<[u64; 6]>(), 0u8..3, 0u8..6, 0u8..8).prop_map(|(numbers, kind, material, mutation)| Forger {
        numbers,
        kind,
        material,
        mutation,
    })
}

impl Forger {
    fn size(&self, number: usize) -> u64 {
        self.numbers[number] % (SIZE + 1)
    }

    /// Notes that the honest log signed, and ones that it did not.
    fn note(&self, log: &TestLog, invented: &TestLog, number: usize) -> SignedNote {
        let size = self.size(number);
        let honest = log.checkpoint(size).into_note();
        let forged = invented.checkpoint(size).into_note();
        match self.numbers[number] >> 32 & 7 {
            // The other root under the honest signature, the forger's signature, a foreign origin.
            0 => format!("{}\n{}", forged.text(), honest.signatures()[0])
                .parse()
                .unwrap(),
            1 => TestLog {
                signer: 9,
                ..invented.clone()
            }
            .checkpoint(size)
            .into_note(),
            2 => TestLog {
                origin: "elsewhere".to_owned(),
                ..invented.clone()
            }
            .checkpoint(size)
            .into_note(),
            _ => honest,
        }
    }

    fn extension(&self, log: &TestLog, invented: &TestLog) -> Extension {
        let (old_size, new_size) = (self.size(0).min(self.size(1)), self.size(0).max(self.size(1)));
        let (mut true_one, other) = (
            log.extension(old_size, new_size),
            invented.extension(old_size, new_size),
        );
        match self.material {
            0 => true_one.before = other.before,
            1 => true_one.after = other.after,
            2 => true_one = other,
            3 => std::mem::swap(&mut true_one.before, &mut true_one.after),
            4 => {
                let at = self.size(2).min(new_size);
                true_one = Extension {
                    old_size,
                    new_size,
                    ..log.extension(at, new_size)
                };
            }
            _ => {}
        }
        self.change(&mut true_one.before);
        if self.mutation.is_multiple_of(2) {
            self.change(&mut true_one.after);
        }
        true_one
    }

    fn change(&self, hashes: &mut Vec<LogHash>) {
        let at = usize::try_from(self.numbers[3]).unwrap() % hashes.len().max(1);
        match self.mutation {
            0 | 1 if !hashes.is_empty() => hashes[at] = leaf_hash(b"invented"),
            2 => hashes.push(empty_root()),
            3 if !hashes.is_empty() => drop(hashes.remove(at)),
            4 => hashes.reverse(),
            5 if hashes.len() > 1 => {
                // Two hashes folded into one, so that everything still leads to the true root.
                let right = hashes.pop().unwrap();
                let left = hashes.pop().unwrap();
                hashes.push(crate::log::hash::node_hash(&left, &right));
            }
            _ => {}
        }
    }

    fn receipt(&self, log: &TestLog, invented: &TestLog) -> String {
        let sequence = self.numbers[4] % SIZE + 1;
        match self.material {
            0 => jws::sign(
                &receipt_claims(sequence, leaf_hash(b"invented").to_string()),
                &keypair(9),
            ),
            1 => {
                let honest = log.receipt(sequence);
                let forged = invented.receipt(sequence);
                let (_, signature) = honest.rsplit_once('.').unwrap();
                format!("{}.{signature}", forged.rsplit_once('.').unwrap().0)
            }
            _ => log.receipt(sequence),
        }
    }

    fn evidence(&self, log: &TestLog, invented: &TestLog) -> Evidence {
        match self.kind {
            0 => {
                let mut second = self.note(log, invented, 1);
                if self.mutation < 4 {
                    second = Self {
                        numbers: [self.numbers[0]; 6],
                        ..self.clone()
                    }
                    .note(log, invented, 0);
                }
                Evidence::TwoRoots {
                    first: self.note(log, invented, 0),
                    second,
                }
            }
            1 => {
                let extension = self.extension(log, invented);
                let (mut old, mut new) = (self.note(log, invented, 0), self.note(log, invented, 1));
                if self.size(0) > self.size(1) {
                    std::mem::swap(&mut old, &mut new);
                }
                Evidence::NotAnExtension { old, new, extension }
            }
            _ => {
                let size = self.size(0).max(1);
                let index = match self.material {
                    2 | 3 => (self.numbers[4] % SIZE).min(size - 1),
                    _ => self.numbers[5] % size,
                };
                let from = if self.mutation.is_multiple_of(3) {
                    invented
                } else {
                    log
                };
                let mut proof = from.inclusion(index, size);
                self.change(&mut proof.hashes);
                let leaf = if self.mutation < 5 {
                    from.leaf(index)
                } else {
                    leaf_hash(b"invented")
                };
                let mut note = self.note(log, invented, 0);
                if self.size(0) == 0 {
                    note = log.checkpoint(1).into_note();
                }
                Evidence::BrokenReceipt {
                    receipt: self.receipt(log, invented),
                    checkpoint: note,
                    leaf,
                    proof,
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nobody_convicts_an_honest_log(forger in forger()) {
        let log = honest();
        let invented = log.with_changed(forger.numbers[2] % SIZE);
        let evidence = forger.evidence(&log, &invented);
        let mut keys = log.keys();
        keys.add_key(keypair(8).account());
        let verified = evidence.verify(&keys);
        prop_assert!(verified.is_err(), "{evidence:?}: {verified:?}");
        if let Ok(decoded) = Evidence::decode(&evidence.encode()) {
            prop_assert_eq!(decoded.verify(&keys), verified);
        }
    }
}
