//! Caps on what one tenant, or one connection, takes of the device: sequences that run at a time, and generated tokens per second.
//!
//! What is too much waits and is never refused. A waiting sequence whose owner has its share is passed over, so that it holds up nobody
//! else; the running streams of an owner with a rate take turns, the one served longest ago first, so that they share it evenly. The rate
//! is a bucket kept as a time: each token moves the time of the next by an interval, and tokens may go a tolerance ahead of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::pacing::RATE_CAP_TOLERANCE;

/// What one owner may take; `None` sets no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cap {
    /// Sequences that run at a time.
    pub max_seqs: Option<usize>,
    /// Generated tokens per second, of all its sequences together.
    pub max_rate: Option<f64>,
}

/// What each tenant and each connection may take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    pub tenant: Cap,
    pub connection: Cap,
}

/// Whom a cap binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// Requests that name no tenant are one tenant's.
    Tenant(Option<Arc<str>>),
    Connection(u64),
}

/// A sequence's places in the accounts; none where nothing is capped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners {
    tenant: Option<u32>,
    connection: Option<u32>,
}

impl Owners {
    fn accounts(self) -> impl Iterator<Item = usize> {
        [self.tenant, self.connection].into_iter().flatten().map(|at| at as usize)
    }
}

/// Why a sequence waits although there may be room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capped {
    /// When its owner may have the next token; `None` where one of its sequences has to end first.
    pub(super) until: Option<Duration>,
    pub(super) by_tenant: bool,
}

/// What an owner has.
#[derive(Clone, Debug)]
struct Account {
    owner: Owner,
    max_seqs: usize,
    /// From one token to the next at the highest rate; `None` without one.
    interval: Option<Duration>,
    /// Sequences that are here, and those of them that run.
    members: usize,
    running: usize,
    /// When the rate lets the next token go, the tolerance aside.
    next_token: Duration,
    /// Tokens given in plan number `given_in`.
    given: usize,
    given_in: u64,
}

/// The books of all owners of sequences that are here, and of those who left in debt until that is paid.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    caps: Caps,
    by_owner: HashMap<Owner, u32>,
    accounts: Vec<Account>,
    free: Vec<u32>,
    now: Duration,
    tolerance: Duration,
    plan: u64,
    swept: Duration,
}

/// How often those who left are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Accounts {
    pub(super) fn new(caps: Caps) -> Self {
        for rate in [caps.tenant.max_rate, caps.connection.max_rate].into_iter().flatten() {
            assert!(rate.is_normal() && rate > 0.0, "a cap on the rate is not a positive number");
        }
        let (now, tolerance) = (Duration::ZERO, RATE_CAP_TOLERANCE);
        Self { caps, by_owner: HashMap::new(), accounts: Vec::new(), free: Vec::new(), now, tolerance, plan: 0, swept: now }
    }

    /// Whether anybody's rate is capped.
    pub(super) fn limit_rates(&self) -> bool {
        self.caps.tenant.max_rate.is_some() || self.caps.connection.max_rate.is_some()
    }

    /// A plan begins; steps take about `step_time`, in which as many tokens as the rate allows must fit.
    pub(super) fn begin_plan(&mut self, now: Duration, step_time: Duration) {
        self.now = now;
        self.tolerance = RATE_CAP_TOLERANCE.max(2 * step_time);
        self.plan += 1;
        if now >= self.swept + SWEEP_INTERVAL {
            self.swept = now;
            for at in 0..self.accounts.len() as u32 {
                self.close_if_unused(at);
            }
        }
    }

    /// Takes a sequence in.
    pub(super) fn join(&mut self, tenant: Option<Arc<str>>, connection: Option<u64>) -> Owners {
        let Caps { tenant: of_tenant, connection: of_connection } = self.caps;
        let is_set = |cap: Cap| cap != Cap::default();
        Owners {
            tenant: is_set(of_tenant).then(|| self.open(Owner::Tenant(tenant), of_tenant)),
            connection: connection.filter(|_| is_set(of_connection)).map(|cookie| self.open(Owner::Connection(cookie), of_connection)),
        }
    }

    fn open(&mut self, owner: Owner, cap: Cap) -> u32 {
        if let Some(&at) = self.by_owner.get(&owner) {
            self.accounts[at as usize].members += 1;
            return at;
        }
        let interval =
            cap.max_rate.map(|rate| Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::MAX).max(Duration::from_nanos(1)));
        let account = Account {
            owner: owner.clone(),
            max_seqs: cap.max_seqs.unwrap_or(usize::MAX),
            interval,
            members: 1,
            running: 0,
            next_token: Duration::ZERO,
            given: 0,
            given_in: 0,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.accounts[at as usize] = account;
                at
            }
            None => {
                self.accounts.push(account);
                self.accounts.len() as u32 - 1
            }
        };
        self.by_owner.insert(owner, at);
        at
    }

    /// A sequence is here no more; it has stopped running before.
    pub(super) fn leave(&mut self, owners: Owners) {
        for at in owners.accounts() {
            self.accounts[at].members -= 1;
            self.close_if_unused(at as u32);
        }
    }

    /// Forgets an owner without sequences once forgetting gives it nothing: a fresh bucket would hold no more.
    fn close_if_unused(&mut self, at: u32) {
        let account = &self.accounts[at as usize];
        if account.members == 0 && account.next_token <= self.now && self.by_owner.get(&account.owner) == Some(&at) {
            self.by_owner.remove(&account.owner);
            self.free.push(at);
        }
    }

    /// Whether a waiting sequence's owners have room for one more.
    pub(super) fn may_start(&self, owners: Owners) -> Result<(), Capped> {
        for at in owners.accounts() {
            let account = &self.accounts[at];
            let by_tenant = matches!(account.owner, Owner::Tenant(_));
            if account.running >= account.max_seqs {
                return Err(Capped { until: None, by_tenant });
            }
            self.check_rate(account)?;
        }
        Ok(())
    }

    /// It runs from now on, and its first token is charged. Call it once for each sequence, until [`Accounts::stopped`].
    pub(super) fn started(&mut self, owners: Owners) {
        for at in owners.accounts() {
            self.accounts[at].running += 1;
            self.accounts[at].charge(self.now);
        }
    }

    /// It runs no more.
    pub(super) fn stopped(&mut self, owners: Owners) {
        for at in owners.accounts() {
            self.accounts[at].running -= 1;
        }
    }

    /// Gives one token of this plan to a sequence that generates.
    pub(super) fn give(&mut self, owners: Owners) -> Result<(), Capped> {
        owners.accounts().try_for_each(|at| self.check_rate(&self.accounts[at]))?;
        for at in owners.accounts() {
            let account = &mut self.accounts[at];
            account.given = account.given_in(self.plan) + 1;
            account.given_in = self.plan;
        }
        Ok(())
    }

    /// A token was sampled that was not charged before.
    pub(super) fn token_sampled(&mut self, owners: Owners, now: Duration) {
        owners.accounts().for_each(|at| self.accounts[at].charge(now));
    }

    /// Whether the rate lets one more token go in this plan.
    fn check_rate(&self, account: &Account) -> Result<(), Capped> {
        let Some(interval) = account.interval else { return Ok(()) };
        let given = interval.saturating_mul(account.given_in(self.plan) as u32);
        let due = account.next_token.max(self.now).saturating_add(given).saturating_sub(self.tolerance);
        if due <= self.now { Ok(()) } else { Err(Capped { until: Some(due), by_tenant: matches!(account.owner, Owner::Tenant(_)) }) }
    }

    /// Checks the books against the sequences that are here: their owners, and whether each runs.
    pub(super) fn check(&self, sequences: impl Iterator<Item = (Owners, bool)>) -> Result<(), String> {
        let mut counted = vec![(0, 0); self.accounts.len()];
        for (owners, runs) in sequences {
            for at in owners.accounts() {
                let (members, running) = &mut counted[at];
                *members += 1;
                *running += usize::from(runs);
            }
        }
        for (at, account) in self.accounts.iter().enumerate() {
            let booked = (account.members, account.running);
            if counted[at] != booked {
                return Err(format!("{:?} has (members, running) {:?}, booked as {booked:?}", account.owner, counted[at]));
            }
            if account.running > account.max_seqs {
                return Err(format!("{} sequences of {:?} run", account.running, account.owner));
            }
        }
        Ok(())
    }
}

impl Account {
    fn charge(&mut self, now: Duration) {
        if let Some(interval) = self.interval {
            self.next_token = self.next_token.max(now).saturating_add(interval);
        }
    }

    fn given_in(&self, plan: u64) -> usize {
        if self.given_in == plan { self.given } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(max_seqs: usize, max_rate: f64) -> Caps {
        Caps { tenant: Cap { max_seqs: Some(max_seqs), max_rate: Some(max_rate) }, connection: Cap::default() }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_owner_has_so_many_seats_and_others_have_theirs() {
        let mut accounts = Accounts::new(Caps { connection: Cap { max_seqs: Some(2), max_rate: None }, ..Caps::default() });
        let of = |accounts: &mut Accounts, connection| accounts.join(Some("t".into()), connection);
        let (a, b, c, d) = (of(&mut accounts, Some(7)), of(&mut accounts, Some(7)), of(&mut accounts, Some(7)), of(&mut accounts, Some(8)));
        accounts.started(a);
        accounts.started(b);
        assert_eq!(accounts.may_start(c), Err(Capped { until: None, by_tenant: false }));
        assert_eq!(accounts.may_start(d), Ok(()));
        let unknown = of(&mut accounts, None);
        assert_eq!((unknown, accounts.may_start(unknown)), (Owners::default(), Ok(())), "an unknown connection has no cap");
        accounts.stopped(a);
        assert_eq!(accounts.may_start(c), Ok(()));
    }

    #[test]
    fn tokens_go_a_tolerance_ahead_and_then_at_the_rate() {
        let mut accounts = Accounts::new(caps(9, 10.0));
        let owners = accounts.join(None, None);
        accounts.begin_plan(ms(1000), ms(20));
        assert_eq!(accounts.give(owners), Ok(()), "two at once: the tolerance is one interval");
        assert_eq!(accounts.give(owners), Ok(()));
        assert!(accounts.give(owners).is_err(), "however long it had none");
        accounts.token_sampled(owners, ms(1000));
        accounts.token_sampled(owners, ms(1000));
        accounts.begin_plan(ms(1000), ms(20));
        let capped = accounts.give(owners).unwrap_err();
        assert_eq!(capped, Capped { until: Some(ms(1100)), by_tenant: true });
        accounts.begin_plan(ms(1099), ms(20));
        assert!(accounts.give(owners).is_err());
        accounts.begin_plan(ms(1100), ms(20));
        assert_eq!(accounts.give(owners), Ok(()));
        assert!(accounts.give(owners).is_err(), "one in this plan");
    }

    #[test]
    fn a_first_token_is_charged_when_its_sequence_is_let_in() {
        let mut accounts = Accounts::new(caps(9, 10.0));
        let owners = accounts.join(None, None);
        accounts.begin_plan(ms(1000), ms(20));
        accounts.started(owners);
        accounts.started(owners);
        assert!(accounts.may_start(owners).is_err());
        assert_eq!(accounts.give(owners).unwrap_err().until, Some(ms(1100)));
        accounts.begin_plan(ms(1100), ms(20));
        assert_eq!(accounts.may_start(owners), Ok(()));
    }

    #[test]
    fn an_owner_who_leaves_in_debt_is_remembered_until_it_is_paid() {
        let mut accounts = Accounts::new(caps(9, 1.0));
        let owners = accounts.join(Some("a".into()), None);
        accounts.begin_plan(ms(1000), ms(20));
        accounts.token_sampled(owners, ms(1000));
        accounts.leave(owners);
        let again = accounts.join(Some("a".into()), None);
        assert!(accounts.may_start(again).is_err(), "coming again pays no debt");
        accounts.leave(again);
        accounts.begin_plan(ms(2500), ms(20));
        assert!(accounts.by_owner.is_empty());
        assert_eq!(accounts.join(Some("b".into()), None), again, "its place is used again");
        assert_eq!(accounts.check([(again, false)].into_iter()), Ok(()));
        assert!(accounts.check([(again, true)].into_iter()).is_err());
    }
}
