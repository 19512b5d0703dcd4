//! How far an escalation has climbed, and what is due next.
//!
//! Pure: time and circumstances are arguments. The ladder has a clock of its own that runs from the
//! alert's arrival and stands still while a silence or an acknowledgement holds it, so that afterwards it
//! goes on where it stood.

use super::policy::{EscalationPolicy, Tier};
use crate::alert::{Alert, Fingerprint};
use crate::config::StopOn;
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A running escalation of one alert. It keeps the alert, so that it goes on after a kill without waiting
/// for somebody to report it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Escalation {
    pub(crate) policy: String,
    pub(crate) alert: Alert,
    /// When the alert arrived.
    pub(crate) started_at_ms: TimestampMs,
    /// How many tiers have been reached.
    pub(crate) reached: usize,
    /// The ladder's time at which the highest tier was last told.
    last_told_ms: i64,
    /// For how long the ladder stood still, not counting the hold that lasts.
    held_ms: i64,
    /// Since when it stands still.
    held_since_ms: Option<TimestampMs>,
    /// The next tier is due at once, whatever the time (a remediation did not help).
    #[serde(default)]
    pub(crate) hurried: bool,
    /// Who was told, by tier.
    pub(crate) told: BTreeMap<usize, Told>,
    /// When it need not be looked at; whatever happens to it clears this.
    #[serde(skip)]
    pub(crate) rest: Option<Rest>,
}

/// A ladder on which nothing is due for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// The state of silences, acknowledgements and configuration that this was found out under.
    pub(crate) generation: u64,
    /// When something is due.
    pub(crate) until_ms: TimestampMs,
}

/// What became of one tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) receiver: String,
    pub(crate) at_ms: TimestampMs,
    /// How many times it was due.
    pub(crate) times: u32,
    /// Whether a route told it instead.
    pub(crate) by_route: bool,
    /// By integration: how far the notice came.
    pub(crate) integrations: BTreeMap<String, TierDelivery>,
}

/// How far a tier's notice to one integration came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TierDelivery {
    /// Rounds delivered or given up, up to `Told::times`.
    pub(crate) done: u32,
    /// Whether at least one was delivered.
    pub(crate) delivered: bool,
    /// Whether it was told that the alert is over.
    #[serde(default)]
    pub(crate) end_told: bool,
    /// Why the last one was not.
    pub(crate) error: Option<String>,
    /// What the service gave back, to change the message.
    pub(crate) receipt: Option<String>,
}

/// What the ladder has to know of the world.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Circumstances {
    pub(crate) now_ms: TimestampMs,
    pub(crate) acknowledged: bool,
    pub(crate) silenced: bool,
    pub(crate) resolved: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tell this tier now.
    Tell(usize),
    /// Nothing until this time, unless circumstances change.
    Wait(TimestampMs),
    /// Nothing until circumstances change.
    Hold,
    /// The alert is over: whoever was told hears of it, and the escalation ends.
    End,
}

impl Escalation {
    pub(crate) fn new(policy: &str, alert: Alert, now_ms: TimestampMs) -> Self {
        Escalation {
            policy: policy.to_owned(),
            alert,
            started_at_ms: now_ms,
            reached: 0,
            last_told_ms: 0,
            held_ms: 0,
            held_since_ms: None,
            hurried: false,
            told: BTreeMap::new(),
            rest: None,
        }
    }

    /// Until when nothing can be due on it, if that is known.
    pub(crate) fn rests_until(&self, generation: u64, now_ms: TimestampMs) -> Option<TimestampMs> {
        let rest = self.rest.filter(|rest| rest.generation == generation && rest.until_ms > now_ms)?;
        Some(rest.until_ms)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.alert.fingerprint()
    }

    /// The key under which it is kept.
    pub(crate) fn id(&self) -> String {
        escalation_id(&self.policy, self.fingerprint())
    }

    /// The ladder's own time.
    fn elapsed_ms(&self, now_ms: TimestampMs) -> i64 {
        let held_now = self.held_since_ms.map_or(0, |since| now_ms - since);
        now_ms - self.started_at_ms - self.held_ms - held_now
    }

    /// Stops or restarts the ladder's clock as circumstances ask. Returns whether it did either.
    pub(crate) fn adjust(&mut self, policy: &EscalationPolicy, world: &Circumstances) -> bool {
        let hold = holds(policy, world);
        match (hold, self.held_since_ms) {
            (true, None) => {
                self.held_since_ms = Some(world.now_ms);
                true
            }
            (false, Some(since)) => {
                self.held_ms += world.now_ms - since;
                self.held_since_ms = None;
                true
            }
            _ => false,
        }
    }

    /// What is due. [`Escalation::adjust`] comes first.
    pub(crate) fn next(&self, policy: &EscalationPolicy, world: &Circumstances) -> Step {
        if world.resolved && policy.stops_on(StopOn::Resolved) {
            return Step::End;
        }
        if holds(policy, world) {
            return Step::Hold;
        }
        let elapsed = self.elapsed_ms(world.now_ms);
        let at = |ladder_ms: i64| world.now_ms + (ladder_ms - elapsed);
        let next: Option<&Tier> = policy.tiers.get(self.reached);
        if next.is_some_and(|tier| self.hurried || elapsed >= tier.after_ms) {
            return Step::Tell(self.reached);
        }
        let current = self.reached.checked_sub(1).and_then(|index| Some((index, policy.tiers.get(index)?)));
        let repeat = current.and_then(|(index, tier)| Some((index, self.last_told_ms + tier.repeat_ms?)));
        if let Some((index, due)) = repeat.filter(|(_, due)| elapsed >= *due) {
            debug_assert!(elapsed >= due);
            return Step::Tell(index);
        }
        let waits = next.map(|tier| tier.after_ms).into_iter().chain(repeat.map(|(_, due)| due));
        match waits.min() {
            Some(due) => Step::Wait(at(due)),
            // Every tier was told, none repeats, and a resolve does not end it: nothing is left to do.
            None if world.resolved => Step::End,
            None => Step::Hold,
        }
    }

    /// A tier is being told.
    pub(crate) fn tell(&mut self, tier: usize, receiver: &str, by_route: bool, now_ms: TimestampMs) {
        self.last_told_ms = self.elapsed_ms(now_ms);
        self.reached = self.reached.max(tier + 1);
        self.hurried = false;
        let told = self.told.entry(tier).or_insert_with(|| Told {
            receiver: receiver.to_owned(),
            at_ms: now_ms,
            times: 0,
            by_route,
            integrations: BTreeMap::new(),
        });
        told.at_ms = now_ms;
        told.times += 1;
    }

    /// As the API says it.
    pub(crate) fn state(&self, world: &Circumstances) -> &'static str {
        match () {
            () if world.resolved => "resolved",
            () if world.acknowledged => "acknowledged",
            () if world.silenced => "silenced",
            () => "escalating",
        }
    }
}

fn holds(policy: &EscalationPolicy, world: &Circumstances) -> bool {
    (world.acknowledged && policy.stops_on(StopOn::Acknowledged))
        || (world.silenced && policy.stops_on(StopOn::Silenced))
}

/// The key of a policy's escalation of an alert.
pub(crate) fn escalation_id(policy: &str, fingerprint: Fingerprint) -> String {
    format!("{fingerprint}/{policy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::labels::Labels;

    const MINUTE: i64 = 60_000;

    fn policy(yaml: &str) -> EscalationPolicy {
        let written = pharos_common::config::parse(std::path::Path::new("e.yml"), yaml).unwrap();
        let receivers = ["a", "b", "c"]
            .map(|name| {
                let receiver = crate::notify::Receiver {
                    name: name.to_owned(),
                    labels: BTreeMap::new(),
                    integrations: Vec::new(),
                };
                (name.to_owned(), std::sync::Arc::new(receiver))
            })
            .into();
        EscalationPolicy::build(&written, "escalations[0]", &receivers).unwrap()
    }

    fn three_tiers() -> EscalationPolicy {
        policy(
            "name: e\ntiers: [{receiver: a}, {receiver: b, after: 5m}, {receiver: c, after: 15m, repeat: 10m}]",
        )
    }

    fn escalation() -> Escalation {
        let alert = Alert {
            labels: Labels::from_pairs([("alertname", "A")]),
            annotations: BTreeMap::new(),
            starts_at_ms: 0,
            ends_at_ms: i64::MAX,
            updated_at_ms: 0,
            timeout: false,
            generator_url: String::new(),
        };
        Escalation::new("e", alert, 0)
    }

    /// Lets the ladder run and writes down when which tier was told.
    fn climb(
        ladder: &mut Escalation,
        policy: &EscalationPolicy,
        until: i64,
        world: impl Fn(i64) -> Circumstances,
    ) -> Vec<(i64, usize)> {
        let mut told = Vec::new();
        for second in 0..=until / 1_000 {
            let now = second * 1_000;
            let world = Circumstances { now_ms: now, ..world(now) };
            ladder.adjust(policy, &world);
            while let Step::Tell(tier) = ladder.next(policy, &world) {
                ladder.tell(tier, "x", false, now);
                told.push((now / MINUTE, tier));
            }
        }
        told
    }

    #[test]
    fn tiers_are_told_in_time_and_the_last_repeats() {
        let told = climb(&mut escalation(), &three_tiers(), 36 * MINUTE, |_| Circumstances::default());
        assert_eq!(told, [(0, 0), (5, 1), (15, 2), (25, 2), (35, 2)]);
    }

    #[test]
    fn an_acknowledgement_holds_the_ladder_and_its_end_lets_it_go_on() {
        let world = |now| Circumstances {
            acknowledged: (3 * MINUTE..63 * MINUTE).contains(&now),
            ..Default::default()
        };
        let told = climb(&mut escalation(), &three_tiers(), 80 * MINUTE, world);
        assert_eq!(told, [(0, 0), (65, 1), (75, 2)]);
    }

    #[test]
    fn a_silence_holds_the_ladder_only_if_the_policy_says_so() {
        let world = |now| Circumstances { silenced: now < 60 * MINUTE, ..Default::default() };
        assert_eq!(climb(&mut escalation(), &three_tiers(), 66 * MINUTE, world), [(60, 0), (65, 1)]);
        let stubborn =
            policy("name: e\nstop_on: [resolved]\ntiers: [{receiver: a}, {receiver: b, after: 5m}]");
        assert_eq!(climb(&mut escalation(), &stubborn, 66 * MINUTE, world), [(0, 0), (5, 1)]);
    }

    #[test]
    fn a_resolve_ends_it() {
        let world = Circumstances { now_ms: 0, resolved: true, ..Default::default() };
        assert_eq!(escalation().next(&three_tiers(), &world), Step::End);
    }

    #[test]
    fn a_hurried_ladder_tells_the_next_tier_at_once() {
        let policy = three_tiers();
        let mut ladder = escalation();
        ladder.tell(0, "a", false, 0);
        let world = Circumstances { now_ms: MINUTE, ..Default::default() };
        assert_eq!(ladder.next(&policy, &world), Step::Wait(5 * MINUTE));
        ladder.hurried = true;
        assert_eq!(ladder.next(&policy, &world), Step::Tell(1));
        ladder.tell(1, "b", false, MINUTE);
        assert_eq!(ladder.next(&policy, &world), Step::Wait(15 * MINUTE));
    }

    #[test]
    fn it_survives_being_written_and_read() {
        let mut ladder = escalation();
        ladder.tell(0, "a", false, 5);
        let text = serde_json::to_string(&ladder).unwrap();
        let again: Escalation = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }

    proptest::proptest! {
        #[test]
        fn whatever_holds_it_no_tier_is_told_early_twice_or_while_it_is_held(
            holds in proptest::collection::vec((0..40i64, 1..20i64, proptest::bool::ANY), 0..5),
        ) {
            let held = |now: i64, kind: bool| {
                holds.iter().any(|(from, long, acknowledges)| {
                    *acknowledges == kind && (from * MINUTE..(from + long) * MINUTE).contains(&now)
                })
            };
            let world = |now: i64| Circumstances {
                acknowledged: held(now, true),
                silenced: held(now, false),
                ..Default::default()
            };
            let policy = policy("name: e\ntiers: [{receiver: a}, {receiver: b, after: 5m}, {receiver: c, after: 15m}]");
            let told = climb(&mut escalation(), &policy, 120 * MINUTE, world);
            // With the time it was held added, every tier is told exactly once and exactly in time.
            let free: Vec<i64> = (0..=120).filter(|minute| !held(minute * MINUTE, true) && !held(minute * MINUTE, false)).collect();
            let want: Vec<(i64, usize)> =
                [(0, 0), (5, 1), (15, 2)].into_iter().map(|(after, tier)| (free[after], tier)).collect();
            proptest::prop_assert_eq!(told, want);
        }
    }
}
