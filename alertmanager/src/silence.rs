//! Silences: which alerts are not to be told of, from when to when, and who said so.
//!
//! The rules of creating, changing and ending one are Alertmanager's and pure; time is an argument.

use crate::matchers::Matchers;
use pharos_common::labels::Labels;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One condition of a silence, as the API writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SilenceMatcher {
    /// The label.
    pub name: String,
    /// The value or pattern.
    pub value: String,
    /// Whether the value is a pattern.
    pub is_regex: bool,
    /// Whether the label has to match, or not to match.
    #[serde(default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

/// A silence as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Silence {
    /// A UUID.
    pub id: String,
    /// Which alerts.
    pub matchers: Vec<SilenceMatcher>,
    /// From when.
    pub starts_at_ms: TimestampMs,
    /// To when.
    pub ends_at_ms: TimestampMs,
    /// When it was last changed.
    pub updated_at_ms: TimestampMs,
    /// Who.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// What else was said about it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Where a silence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SilenceState {
    /// It has not begun.
    Pending,
    /// It silences.
    Active,
    /// It is over.
    Expired,
}

impl SilenceState {
    /// As the API writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SilenceState::Pending => "pending",
            SilenceState::Active => "active",
            SilenceState::Expired => "expired",
        }
    }
}

/// Why a silence cannot be set or ended.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SilenceError {
    /// No silence has this id.
    #[error("silence {0} not found")]
    NotFound(String),
    /// It is over already.
    #[error("silence {0} already expired")]
    AlreadyExpired(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There are too many.
    #[error("exceeded maximum number of silences: {0}")]
    TooMany(usize),
}

impl Silence {
    /// Where it stands.
    pub(crate) fn state_at(&self, now_ms: TimestampMs) -> SilenceState {
        if now_ms < self.starts_at_ms {
            SilenceState::Pending
        } else if now_ms >= self.ends_at_ms {
            SilenceState::Expired
        } else {
            SilenceState::Active
        }
    }

    fn compile(&self) -> Result<Matchers, SilenceError> {
        let matchers: Result<Vec<Matcher>, SilenceError> = self
            .matchers
            .iter()
            .map(|matcher| {
                let op = match (matcher.is_regex, matcher.is_equal) {
                    (false, true) => MatchOp::Equal,
                    (false, false) => MatchOp::NotEqual,
                    (true, true) => MatchOp::Regex,
                    (true, false) => MatchOp::NotRegex,
                };
                if matcher.name.is_empty() {
                    return Err(SilenceError::Invalid("invalid label matcher: empty label name".to_owned()));
                }
                Matcher::new(&matcher.name, op, &matcher.value)
                    .map_err(|error| SilenceError::Invalid(format!("invalid label matcher: {error}")))
            })
            .collect();
        matchers.map(Matchers::new)
    }

    fn check(&self) -> Result<Matchers, SilenceError> {
        let invalid = |message: &str| Err(SilenceError::Invalid(format!("invalid silence: {message}")));
        if self.matchers.is_empty() {
            return invalid("at least one matcher required");
        }
        if self.matchers.len() > crate::limits::MATCHERS_PER_SILENCE_MAX {
            return invalid("too many matchers");
        }
        let matchers = self.compile()?;
        if matchers.iter().all(Matcher::matches_empty) {
            return invalid("at least one matcher must not match the empty string");
        }
        if self.ends_at_ms < self.starts_at_ms {
            return invalid("end time must not be before start time");
        }
        if self.comment.len() + self.created_by.len() > crate::limits::COMMENT_BYTES_MAX {
            return invalid("comment and author are too long");
        }
        Ok(matchers)
    }
}

/// All silences.
#[derive(Debug, Default)]
pub(crate) struct Silences {
    by_id: BTreeMap<String, (Silence, Matchers)>,
}

impl Silences {
    /// Puts a silence back that was read from the state folder.
    ///
    /// # Errors
    /// If its matchers do not compile.
    pub(crate) fn restore(&mut self, silence: Silence) -> Result<(), SilenceError> {
        let matchers = silence.compile()?;
        self.by_id.insert(silence.id.clone(), (silence, matchers));
        Ok(())
    }

    /// The silence of an id.
    pub(crate) fn get(&self, id: &str) -> Option<&Silence> {
        self.by_id.get(id).map(|(silence, _)| silence)
    }

    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.by_id.values().map(|(silence, _)| silence)
    }

    /// Creates a silence, or changes the one whose id it carries. Returns every silence that changed, the
    /// one asked for last.
    ///
    /// Only the times and the words of a live silence can change; anything else ends it and creates
    /// another, whose id `new_id` gives.
    ///
    /// # Errors
    /// If it makes no sense, or carries an id that is unknown.
    pub(crate) fn set(
        &mut self,
        mut silence: Silence,
        now_ms: TimestampMs,
        new_id: impl FnOnce() -> String,
    ) -> Result<Vec<Silence>, SilenceError> {
        let matchers = silence.check()?;
        silence.updated_at_ms = now_ms;
        let mut changed = Vec::new();
        if !silence.id.is_empty() {
            let Some((previous, _)) = self.by_id.get_mut(&silence.id) else {
                return Err(SilenceError::NotFound(silence.id));
            };
            if can_update(previous, &silence, now_ms) {
                self.by_id.insert(silence.id.clone(), (silence.clone(), matchers));
                return Ok(vec![silence]);
            }
            if previous.state_at(now_ms) != SilenceState::Expired {
                end(previous, now_ms);
                changed.push(previous.clone());
            }
        }
        if self.by_id.len() >= crate::limits::SILENCES_MAX {
            return Err(SilenceError::TooMany(crate::limits::SILENCES_MAX));
        }
        silence.id = new_id();
        silence.starts_at_ms = silence.starts_at_ms.max(now_ms);
        self.by_id.insert(silence.id.clone(), (silence.clone(), matchers));
        changed.push(silence);
        Ok(changed)
    }

    /// Ends a silence now.
    ///
    /// # Errors
    /// If it is unknown or over.
    pub(crate) fn expire(&mut self, id: &str, now_ms: TimestampMs) -> Result<Silence, SilenceError> {
        let Some((silence, _)) = self.by_id.get_mut(id) else {
            return Err(SilenceError::NotFound(id.to_owned()));
        };
        if silence.state_at(now_ms) == SilenceState::Expired {
            return Err(SilenceError::AlreadyExpired(id.to_owned()));
        }
        end(silence, now_ms);
        Ok(silence.clone())
    }

    /// The ids of the silences that apply to a label set now.
    pub(crate) fn silencing(&self, labels: &Labels, now_ms: TimestampMs) -> Vec<String> {
        self.by_id
            .values()
            .filter(|(silence, matchers)| {
                silence.state_at(now_ms) == SilenceState::Active && matchers.matches(labels)
            })
            .map(|(silence, _)| silence.id.clone())
            .collect()
    }

    /// Whether any silence applies to a label set now.
    pub(crate) fn silences(&self, labels: &Labels, now_ms: TimestampMs) -> bool {
        self.by_id.values().any(|(silence, matchers)| {
            silence.state_at(now_ms) == SilenceState::Active && matchers.matches(labels)
        })
    }

    /// Removes what has been over for `retention_ms`; returns the ids.
    pub(crate) fn forget_before(&mut self, now_ms: TimestampMs, retention_ms: i64) -> Vec<String> {
        let gone: Vec<String> = self
            .iter()
            .filter(|silence| silence.ends_at_ms.saturating_add(retention_ms) < now_ms)
            .map(|silence| silence.id.clone())
            .collect();
        for id in &gone {
            self.by_id.remove(id);
        }
        gone
    }

    /// The next time after `now_ms` at which a silence begins or ends.
    pub(crate) fn next_change_after(&self, now_ms: TimestampMs) -> Option<TimestampMs> {
        self.iter()
            .flat_map(|silence| [silence.starts_at_ms, silence.ends_at_ms])
            .filter(|&at| at > now_ms)
            .min()
    }
}

fn end(silence: &mut Silence, now_ms: TimestampMs) {
    if silence.state_at(now_ms) == SilenceState::Pending {
        silence.starts_at_ms = now_ms;
    }
    silence.ends_at_ms = now_ms;
    silence.updated_at_ms = now_ms;
}

fn can_update(old: &Silence, new: &Silence, now_ms: TimestampMs) -> bool {
    if old.matchers != new.matchers {
        return false;
    }
    match old.state_at(now_ms) {
        // amtool and browsers cut times to seconds.
        SilenceState::Active => {
            new.starts_at_ms / 1_000 == old.starts_at_ms / 1_000 && new.ends_at_ms >= now_ms
        }
        SilenceState::Pending => new.starts_at_ms >= now_ms,
        SilenceState::Expired => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(id: &str, starts: i64, ends: i64) -> Silence {
        Silence {
            id: id.to_owned(),
            matchers: vec![SilenceMatcher {
                name: "gpu".to_owned(),
                value: "3".to_owned(),
                is_regex: false,
                is_equal: true,
            }],
            starts_at_ms: starts,
            ends_at_ms: ends,
            updated_at_ms: 0,
            created_by: "me".to_owned(),
            comment: "test".to_owned(),
            annotations: BTreeMap::new(),
        }
    }

    fn set(silences: &mut Silences, silence: Silence, now: i64) -> Result<String, SilenceError> {
        let id = format!("id{}", silences.by_id.len());
        silences.set(silence, now, || id).map(|changed| changed.last().unwrap().id.clone())
    }

    #[test]
    fn a_silence_goes_from_pending_to_active_to_expired() {
        let mut silences = Silences::default();
        let id = set(&mut silences, silence("", 10_000, 20_000), 0).unwrap();
        let labels = Labels::from_pairs([("gpu", "3")]);
        for (now, state, silenced) in [
            (0, SilenceState::Pending, false),
            (10_000, SilenceState::Active, true),
            (19_999, SilenceState::Active, true),
            (20_000, SilenceState::Expired, false),
        ] {
            assert_eq!(silences.get(&id).unwrap().state_at(now), state);
            assert_eq!(silences.silences(&labels, now), silenced);
        }
    }

    #[test]
    fn changing_times_keeps_the_id_and_changing_matchers_takes_another() {
        let mut silences = Silences::default();
        let id = set(&mut silences, silence("", 0, 20_000), 0).unwrap();
        assert_eq!(set(&mut silences, silence(&id, 0, 30_000), 5_000).unwrap(), id);
        let mut other = silence(&id, 0, 30_000);
        other.matchers[0].value = "4".to_owned();
        let new = set(&mut silences, other, 6_000).unwrap();
        assert_ne!(new, id);
        assert_eq!(silences.get(&id).unwrap().state_at(6_000), SilenceState::Expired);
        assert_eq!(silences.get(&new).unwrap().starts_at_ms, 6_000);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut silences = Silences::default();
        assert_eq!(
            set(&mut silences, silence("nope", 0, 1), 0),
            Err(SilenceError::NotFound("nope".to_owned()))
        );
        assert!(set(&mut silences, silence("", 5, 1), 0).is_err());
        let mut empty = silence("", 0, 1);
        empty.matchers[0].value = String::new();
        assert!(set(&mut silences, empty, 0).is_err());
        let id = set(&mut silences, silence("", 0, 10), 0).unwrap();
        silences.expire(&id, 5).unwrap();
        assert_eq!(silences.expire(&id, 6), Err(SilenceError::AlreadyExpired(id)));
    }
}
