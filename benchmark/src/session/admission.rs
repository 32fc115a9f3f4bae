//! Who may begin a challenge now: how many are open, and how often they began in the last hour.

use std::collections::{BTreeMap, VecDeque};

use gristmill_protocol::identity::AccountId;

use super::event::Problem;
use super::link::{AddressKey, Links};
use super::policy::Policy;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// What began in the last hour. There are at most [`Policy::starts_per_hour_max`] of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    starts: VecDeque<(u64, AccountId, Option<AddressKey>)>,
    accounts: BTreeMap<AccountId, usize>,
    addresses: BTreeMap<AddressKey, usize>,
}

impl Admission {
    /// Admits one more beside those that are open, or says who has too many.
    pub(super) fn admit<'a>(
        &mut self,
        links: &Links,
        open: impl Iterator<Item = &'a Links>,
        policy: &Policy,
        now_ms: u64,
    ) -> Result<(), Problem> {
        self.forget_old(now_ms);
        let (mut all, mut of_account, mut of_address) = (0, 0, 0);
        for other in open {
            all += 1;
            of_account += usize::from(other.account == links.account);
            of_address += usize::from(links.address.is_some() && other.address == links.address);
        }
        let began_by = self.accounts.get(&links.account).copied().unwrap_or(0);
        if of_account >= policy.open_per_account_max || began_by >= policy.starts_per_hour_per_account_max {
            return Err(Problem::TooMany { who: "the account" });
        }
        let began_at = links
            .address
            .and_then(|address| self.addresses.get(&address).copied())
            .unwrap_or(0);
        if of_address >= policy.open_per_address_max || began_at >= policy.starts_per_hour_per_address_max {
            return Err(Problem::TooMany { who: "the address" });
        }
        if all >= policy.open_max || self.starts.len() >= policy.starts_per_hour_max {
            return Err(Problem::Full);
        }
        self.starts.push_back((now_ms, links.account, links.address));
        *self.accounts.entry(links.account).or_default() += 1;
        if let Some(address) = links.address {
            *self.addresses.entry(address).or_default() += 1;
        }
        Ok(())
    }

    fn forget_old(&mut self, now_ms: u64) {
        while let Some((began_ms, account, address)) = self.starts.front().copied() {
            if began_ms.saturating_add(HOUR_MS) > now_ms {
                return;
            }
            self.starts.pop_front();
            less(&mut self.accounts, &account);
            if let Some(address) = address {
                less(&mut self.addresses, &address);
            }
        }
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(account: u8, address: u8) -> Links {
        Links {
            account: AccountId::from_public_key([account; 32]),
            address: AddressKey::of([192, 0, 2, address].into()),
            uuid: None,
        }
    }

    #[test]
    fn every_bound_holds_and_heals_after_an_hour() {
        let policy = Policy {
            open_max: 3,
            open_per_account_max: 2,
            open_per_address_max: 2,
            starts_per_hour_max: 6,
            starts_per_hour_per_account_max: 3,
            starts_per_hour_per_address_max: 4,
            ..Policy::default()
        };
        let mut admission = Admission::default();
        let mut admit =
            |links: Links, open: &[Links], now_ms| admission.admit(&links, open.iter(), &policy, now_ms);
        let account = Err(Problem::TooMany { who: "the account" });
        let address = Err(Problem::TooMany { who: "the address" });
        assert_eq!(admit(links(1, 1), &[links(1, 2), links(1, 3)], 0), account);
        assert_eq!(admit(links(1, 1), &[links(2, 1), links(3, 1)], 0), address);
        assert_eq!(
            admit(links(1, 1), &[links(2, 2), links(3, 3), links(4, 4)], 0),
            Err(Problem::Full)
        );
        for _ in 0..3 {
            assert_eq!(admit(links(1, 1), &[], 0), Ok(()));
        }
        assert_eq!(admit(links(1, 1), &[], 0), account);
        assert_eq!(admit(links(2, 1), &[], 1), Ok(()));
        assert_eq!(admit(links(2, 1), &[], 1), address);
        assert_eq!(admit(links(3, 3), &[], 2), Ok(()));
        assert_eq!(admit(links(4, 4), &[], 2), Ok(()));
        assert_eq!(admit(links(5, 5), &[], 2), Err(Problem::Full));
        assert_eq!(admit(links(1, 1), &[], HOUR_MS - 1), account);
        assert_eq!(admit(links(1, 1), &[], HOUR_MS), Ok(()));
    }
}
