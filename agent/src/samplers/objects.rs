//! Objects that a file lists line by line (cpus, disks, interfaces), each with its group.
//!
//! The kernel lists them in the same order every time, so the next line's object is nearly always the
//! one behind the last: looking it up is one comparison. Objects that a reading does not mention have
//! gone, and their groups end.

use crate::error::SampleError;
use crate::group::{GROUPS_MAX, GroupHandle, GroupSet};

/// The objects of one source and what the sampler keeps for each.
#[derive(Debug)]
pub(super) struct Objects<T> {
    known: Vec<Object<T>>,
    next: usize,
    generation: u64,
    overflow: bool,
}

#[derive(Debug)]
struct Object<T> {
    name: Vec<u8>,
    seen: u64,
    /// `None` for objects that a filter leaves out.
    kept: Option<Kept<T>>,
}

/// What is kept for an object that is watched.
#[derive(Debug)]
pub(super) struct Kept<T> {
    /// Its group.
    pub(super) group: GroupHandle,
    /// What the sampler remembers of it.
    pub(super) state: T,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Objects { known: Vec::new(), next: 0, generation: 0, overflow: false }
    }
}

impl<T> Objects<T> {
    /// Starts a reading.
    pub(super) fn begin(&mut self) {
        self.next = 0;
        self.generation += 1;
        self.overflow = false;
    }

    /// The object of that name. `define` opens its group when it is new, or leaves it out.
    pub(super) fn find_or_define(
        &mut self,
        name: &[u8],
        define: impl FnOnce(&str) -> Option<Kept<T>>,
    ) -> Option<&mut Kept<T>> {
        let index = match self.known.get(self.next) {
            Some(object) if object.name == name => self.next,
            _ => match self.known.iter().position(|object| object.name == name) {
                Some(index) => index,
                None if self.known.len() >= GROUPS_MAX => {
                    self.overflow = true;
                    return None;
                }
                None => {
                    let kept = define(&String::from_utf8_lossy(name));
                    self.known.push(Object { name: name.to_owned(), seen: 0, kept });
                    self.known.len() - 1
                }
            },
        };
        self.next = index + 1;
        let generation = self.generation;
        let object = self.known.get_mut(index)?;
        object.seen = generation;
        object.kept.as_mut()
    }

    /// Objects that this reading has mentioned so far and that are watched.
    pub(super) fn seen(&mut self) -> impl Iterator<Item = &mut Kept<T>> {
        let generation = self.generation;
        let seen = self.known.iter_mut().filter(move |object| object.seen == generation);
        seen.filter_map(|object| object.kept.as_mut())
    }

    /// Objects that are watched.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Kept<T>> {
        self.known.iter().filter_map(|object| object.kept.as_ref())
    }

    /// Objects that this reading has not mentioned so far.
    pub(super) fn unseen(&self) -> impl Iterator<Item = &Kept<T>> {
        let generation = self.generation;
        self.known
            .iter()
            .filter(move |object| object.seen != generation)
            .filter_map(|object| object.kept.as_ref())
    }

    /// Ends the groups of objects that this reading did not mention.
    ///
    /// # Errors
    /// If there were more objects than an agent holds.
    pub(super) fn finish(&mut self, groups: &mut GroupSet) -> Result<(), SampleError> {
        let generation = self.generation;
        if self.known.iter().any(|object| object.seen != generation) {
            self.known.retain(|object| {
                let stays = object.seen == generation;
                if !stays && let Some(kept) = &object.kept {
                    groups.end(kept.group);
                }
                stays
            });
        }
        if self.overflow {
            return Err(SampleError::TooMany { what: "objects of one sampler", limit: GROUPS_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::ColumnSpec;

    #[test]
    fn objects_come_and_go_and_may_change_their_order() {
        let mut groups = GroupSet::default();
        let mut objects: Objects<()> = Objects::default();
        let mut read = |names: &[&str], groups: &mut GroupSet| {
            groups.begin();
            objects.begin();
            for name in names {
                let kept = objects.find_or_define(name.as_bytes(), |name| {
                    (name != "ignored").then(|| Kept {
                        group: groups.define(name, Vec::new(), vec![ColumnSpec::plain("x")]),
                        state: (),
                    })
                });
                if let Some(kept) = kept {
                    groups.group(kept.group).unwrap().put(0, 1.0);
                }
            }
            objects.finish(groups).unwrap();
            let here: Vec<String> =
                groups.iter().filter(|g| !g.present().is_empty()).map(|g| g.key().to_owned()).collect();
            let gone: Vec<String> =
                groups.iter().filter(|g| !g.gone().is_empty()).map(|g| g.key().to_owned()).collect();
            groups.published();
            (here.join(" "), gone.join(" "))
        };
        let text = |here: &str, gone: &str| (here.to_owned(), gone.to_owned());
        assert_eq!(read(&["a", "ignored", "b"], &mut groups), text("a b", ""));
        assert_eq!(read(&["b", "a"], &mut groups), text("a b", ""));
        assert_eq!(read(&["b", "c"], &mut groups), text("b c", "a"));
        assert_eq!(read(&["a", "b"], &mut groups), text("a b", "c"));
    }
}
