//! Caps on what one tenant, or one connection, takes of the device: sequences that run at a time, and generated tokens per second.
//!
//! What is too much waits and is never refused. A waiting sequence whose owner has its share is passed over, so that it holds up nobody
//! else; the running streams of an owner with a rate take turns, the one served longest ago first, so that they share it evenly. The rate
//! is a bucket kept as a time: each token moves the time of the next by an interval, and tokens may go a tolerance ahead of it.
//!
//! A waiting sequence that the rate stops has a turn like those that run: it claims one, and those that have had a token since wait until
//! it has started, or has found no room. Turns go round whatever the priorities: within an owner with a rate one of high priority does not
//! overtake a running one of low priority, it only starts before others that wait.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{pacing::RATE_CAP_TOLERANCE, queued::Rank};

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

/// Owners as many of whose sequences wait for their caps as may wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullQueues {
    /// `None` is the tenant of requests that name none.
    pub tenants: HashSet<Option<Arc<str>>>,
    pub connections: HashSet<u64>,
}

/// The turn of a waiting sequence that the rate stopped.
#[derive(Clone, Copy, Debug)]
struct Claim {
    rank: Rank,
    /// Who has had a token after this step goes behind it.
    since: u64,
    /// The plan that found it waiting last, and when it said that the sequence may start.
    seen_in: u64,
    until: Duration,
}

/// For so many plans a claim stands that none of them came to look at.
const CLAIM_LASTS: u64 = 16;

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
    /// Running sequences that are parked, as of plan number `parked_in`.
    parked: usize,
    parked_in: u64,
    claim: Option<Claim>,
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
            parked: 0,
            parked_in: 0,
            claim: None,
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

    /// Whether a waiting sequence's owners have room for one more, whose first token `is_prepaid` or is to be charged.
    pub(super) fn may_start(&self, owners: Owners, rank: Rank, is_prepaid: bool) -> Result<(), Capped> {
        if let Some(account) = owners.accounts().map(|at| &self.accounts[at]).find(|account| account.is_full()) {
            return Err(Capped { until: None, by_tenant: account.is_tenants() });
        }
        if is_prepaid { Ok(()) } else { self.check_rates(owners, Some(rank)) }
    }

    /// It runs from now on, and its first token is charged unless it `is_prepaid`. Call it once for each sequence, until
    /// [`Accounts::stopped`].
    pub(super) fn started(&mut self, owners: Owners, is_prepaid: bool) {
        for at in owners.accounts() {
            let account = &mut self.accounts[at];
            account.running += 1;
            if !is_prepaid {
                account.charge(self.now);
                account.claim = None;
            }
        }
    }

    /// A running sequence is parked in this plan.
    pub(super) fn note_parked(&mut self, owners: Owners) {
        for at in owners.accounts() {
            let account = &mut self.accounts[at];
            account.parked = if account.parked_in == self.plan { account.parked + 1 } else { 1 };
            account.parked_in = self.plan;
        }
    }

    /// Whether an owner has all its places and some of them for parked sequences.
    pub(super) fn have_parked(&self, owners: Owners) -> bool {
        let parks = |account: &Account| account.is_full() && account.parked_in == self.plan && account.parked > 0;
        owners.accounts().any(|at| parks(&self.accounts[at]))
    }

    /// Whether one sequence's place would be the other's, since they share an owner who has no further one.
    pub(super) fn share_full(&self, one: Owners, other: Owners) -> bool {
        one.accounts().any(|at| self.accounts[at].is_full() && other.accounts().any(|of_other| of_other == at))
    }

    /// Whether a claim would find an account that nobody who goes first has claimed.
    pub(super) fn may_claim(&self, owners: Owners) -> bool {
        let is_free = |account: &Account| account.interval.is_some() && account.claim.is_none_or(|claim| claim.seen_in < self.plan);
        owners.accounts().any(|at| is_free(&self.accounts[at]))
    }

    /// Gives a waiting sequence that the rate stops its turn: after those that have had no token since the step when it first asked.
    ///
    /// Where two owners stop it, it holds the slower one's token until the faster one's is due, but not the other way round.
    pub(super) fn claim(&mut self, owners: Owners, rank: Rank, step: u64) {
        let Err(Capped { until: Some(until), .. }) = self.check_rates(owners, Some(rank)) else { return };
        let refuses = |at: &usize| self.check_rate(&self.accounts[*at], Some(rank)).is_err();
        let slowest = owners.accounts().filter(refuses).filter_map(|at| self.accounts[at].interval).max();
        for at in owners.accounts() {
            let stands = |claim: &Claim| claim.seen_in + CLAIM_LASTS >= self.plan;
            let account = &mut self.accounts[at];
            if account.interval < slowest || account.claim.is_some_and(|claim| claim.seen_in == self.plan) {
                continue;
            }
            let before = account.claim.filter(|claim| claim.rank == rank && stands(claim));
            account.claim = Some(Claim { rank, since: before.map_or(step, |claim| claim.since), seen_in: self.plan, until });
        }
    }

    /// Whether one that was last given a token by step `last_decoded` - 1 lets a waiting one go first.
    pub(super) fn yields(&self, owners: Owners, last_decoded: u64) -> bool {
        let claims = owners.accounts().filter_map(|at| self.accounts[at].claim);
        claims.filter(|claim| claim.seen_in + CLAIM_LASTS >= self.plan).any(|claim| last_decoded > claim.since)
    }

    /// It runs no more.
    pub(super) fn stopped(&mut self, owners: Owners) {
        for at in owners.accounts() {
            self.accounts[at].running -= 1;
        }
    }

    /// Gives one token of this plan to a sequence that generates.
    pub(super) fn give(&mut self, owners: Owners) -> Result<(), Capped> {
        self.check_rates(owners, None)?;
        self.give_pending(owners, 1);
        Ok(())
    }

    /// Tokens of steps in flight that will be charged when they are there: until then they count as given in this plan.
    pub(super) fn give_pending(&mut self, owners: Owners, tokens: usize) {
        for at in owners.accounts() {
            let account = &mut self.accounts[at];
            account.given = account.given_in(self.plan) + tokens;
            account.given_in = self.plan;
        }
    }

    /// A token was sampled that was not charged before.
    pub(super) fn token_sampled(&mut self, owners: Owners, now: Duration) {
        owners.accounts().for_each(|at| self.accounts[at].charge(now));
    }

    /// Whether the rates of all its owners let one more token go in this plan.
    fn check_rates(&self, owners: Owners, rank: Option<Rank>) -> Result<(), Capped> {
        let refusals = owners.accounts().filter_map(|at| self.check_rate(&self.accounts[at], rank).err());
        refusals.max_by_key(|capped| capped.until).map_or(Ok(()), Err)
    }

    /// Whether the rate lets one more token go in this plan, to the waiting sequence of that rank if there is one.
    fn check_rate(&self, account: &Account, rank: Option<Rank>) -> Result<(), Capped> {
        let by_tenant = account.is_tenants();
        if let Some(claim) = account.claim.filter(|claim| claim.seen_in == self.plan && rank != Some(claim.rank)) {
            return Err(Capped { until: Some(claim.until), by_tenant });
        }
        let due = self.due(account, 0);
        if due <= self.now { Ok(()) } else { Err(Capped { until: Some(due), by_tenant }) }
    }

    /// When the rate lets a token go, after `more` than were given in this plan.
    fn due(&self, account: &Account, more: usize) -> Duration {
        let Some(interval) = account.interval else { return Duration::ZERO };
        let given = interval.saturating_mul((account.given_in(self.plan) + more) as u32);
        account.next_token.max(self.now).saturating_add(given).saturating_sub(self.tolerance)
    }

    /// Of those that wait to start, in order: how many could, as far as caps go, and whose queues have `most` that could not.
    pub(super) fn count_queues(&self, waiting: impl Iterator<Item = Owners>, most: usize) -> (usize, FullQueues) {
        let mut full = FullQueues::default();
        if self.accounts.is_empty() {
            return (waiting.count(), full);
        }
        // By account: those that could start, and those that it keeps from starting.
        let mut counts = vec![(0, 0); self.accounts.len()];
        let allows = |at: usize, (start, _): (usize, usize)| {
            let account = &self.accounts[at];
            account.running.saturating_add(start) < account.max_seqs && self.due(account, start) <= self.now
        };
        let mut num_free = 0;
        for owners in waiting {
            if owners.accounts().all(|at| allows(at, counts[at])) {
                num_free += 1;
                owners.accounts().for_each(|at| counts[at].0 += 1);
            } else {
                for at in owners.accounts() {
                    counts[at].1 += usize::from(!allows(at, counts[at]));
                }
            }
        }
        for (_, account) in self.accounts.iter().enumerate().filter(|(at, _)| counts[*at].1 >= most && !allows(*at, counts[*at])) {
            match &account.owner {
                Owner::Tenant(tenant) => drop(full.tenants.insert(tenant.clone())),
                Owner::Connection(cookie) => drop(full.connections.insert(*cookie)),
            }
        }
        (num_free, full)
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
    fn is_full(&self) -> bool {
        self.running >= self.max_seqs
    }

    fn is_tenants(&self) -> bool {
        matches!(self.owner, Owner::Tenant(_))
    }

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

    const RANK: Rank = Rank { priority: 0, arrival: 9 };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_owner_has_so_many_seats_and_others_have_theirs() {
        let mut accounts = Accounts::new(Caps { connection: Cap { max_seqs: Some(2), max_rate: None }, ..Caps::default() });
        let of = |accounts: &mut Accounts, connection| accounts.join(Some("t".into()), connection);
        let (a, b, c, d) = (of(&mut accounts, Some(7)), of(&mut accounts, Some(7)), of(&mut accounts, Some(7)), of(&mut accounts, Some(8)));
        accounts.started(a, false);
        accounts.started(b, false);
        assert_eq!(accounts.may_start(c, RANK, false), Err(Capped { until: None, by_tenant: false }));
        assert_eq!(accounts.may_start(d, RANK, false), Ok(()));
        let unknown = of(&mut accounts, None);
        assert_eq!((unknown, accounts.may_start(unknown, RANK, false)), (Owners::default(), Ok(())), "an unknown connection has no cap");
        accounts.stopped(a);
        assert_eq!(accounts.may_start(c, RANK, false), Ok(()));
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
        accounts.started(owners, false);
        accounts.started(owners, false);
        assert!(accounts.may_start(owners, RANK, false).is_err());
        assert_eq!(accounts.give(owners).unwrap_err().until, Some(ms(1100)));
        accounts.begin_plan(ms(1100), ms(20));
        assert_eq!(accounts.may_start(owners, RANK, false), Ok(()));
        accounts.stopped(owners);
        assert_eq!(accounts.may_start(owners, RANK, true), Ok(()));
        accounts.started(owners, true);
        assert_eq!(accounts.may_start(owners, RANK, false), Ok(()), "what is paid is not charged again");
    }

    #[test]
    fn those_that_wait_have_turns_and_hold_what_they_wait_for_no_longer_than_need_be() {
        let mut accounts = Accounts::new(caps(9, 10.0));
        let owners = accounts.join(None, None);
        accounts.begin_plan(ms(1000), ms(20));
        accounts.started(owners, false);
        accounts.started(owners, false);
        accounts.claim(owners, RANK, 5);
        assert!(!accounts.may_claim(owners), "one at a time");
        let next = Rank { arrival: 10, ..RANK };
        for now in [1050, 1100] {
            accounts.begin_plan(ms(now), ms(20));
            assert!(accounts.yields(owners, 6) && !accounts.yields(owners, 5));
            accounts.claim(owners, RANK, 7);
        }
        assert_eq!((accounts.may_start(owners, RANK, false), accounts.may_start(owners, next, false)), (Ok(()), Ok(())));
        assert!(accounts.yields(owners, 6), "it keeps its place in the turn");
        accounts.started(owners, false);
        assert!(!accounts.yields(owners, 6));
    }

    #[test]
    fn of_two_owners_the_slower_waits_for_the_faster() {
        let cap = |max_rate| Cap { max_seqs: None, max_rate: Some(max_rate) };
        let mut accounts = Accounts::new(Caps { tenant: cap(2.0), connection: cap(8.0) });
        let (both, tenant, connection) =
            (accounts.join(None, Some(1)), accounts.join(None, None), accounts.join(Some("b".into()), Some(1)));
        accounts.begin_plan(ms(1000), ms(1));
        accounts.token_sampled(connection, ms(1000));
        accounts.claim(both, RANK, 5);
        assert!(accounts.give(tenant).is_err(), "the tenant's token is kept for it");
        let mut accounts = Accounts::new(Caps { tenant: cap(8.0), connection: cap(2.0) });
        let (both, tenant, connection) =
            (accounts.join(None, Some(1)), accounts.join(None, None), accounts.join(Some("b".into()), Some(1)));
        accounts.begin_plan(ms(1000), ms(1));
        accounts.token_sampled(connection, ms(1000));
        accounts.claim(both, RANK, 5);
        assert_eq!(accounts.give(tenant), Ok(()), "many tokens would go by until the connection's is due");
    }

    #[test]
    fn an_owner_who_leaves_in_debt_is_remembered_until_it_is_paid() {
        let mut accounts = Accounts::new(caps(9, 1.0));
        let owners = accounts.join(Some("a".into()), None);
        accounts.begin_plan(ms(1000), ms(20));
        accounts.token_sampled(owners, ms(1000));
        accounts.leave(owners);
        let again = accounts.join(Some("a".into()), None);
        assert!(accounts.may_start(again, RANK, false).is_err(), "coming again pays no debt");
        accounts.leave(again);
        accounts.begin_plan(ms(2500), ms(20));
        assert!(accounts.by_owner.is_empty());
        assert_eq!(accounts.join(Some("b".into()), None), again, "its place is used again");
        assert_eq!(accounts.check([(again, false)].into_iter()), Ok(()));
        assert!(accounts.check([(again, true)].into_iter()).is_err());
    }
}
