//! The lanes: which thread takes the readings of a sampler that may hang.
//!
//! The first lane is shared by all of them. One whose reading hangs there keeps the thread to itself; the
//! others move on to a new one, and it comes back once its readings are short again.

use super::Shared;
use super::lane::{Finished, Job, Lane};
use super::runner::{Order, Runner};
use super::task::Task;
use std::time::Duration;

/// A reading on the shared lane that takes longer than this is left alone there.
const LANE_TIME_MAX: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Lanes {
    /// Number and lane; the first is shared, the others are left to one sampler each.
    lanes: Vec<(u64, Lane)>,
    next: u64,
    finished: Vec<Finished>,
    /// Processor time of lanes that are no more.
    cpu_ended: Duration,
}

impl Lanes {
    /// Starts the shared lane if somebody needs it.
    pub(super) fn start(&mut self, tasks: &[Task], shared: &Shared) {
        if !self.lanes.is_empty() || !tasks.iter().any(|task| task.kind.may_block) {
            return;
        }
        match Lane::start(shared.clone()) {
            Ok(lane) => self.lanes.push((self.next, lane)),
            Err(error) => tracing::error!(%error, "Cannot start the thread of the samplers that may hang"),
        }
    }

    /// Queues a reading; [`Lanes::wake`] begins with it.
    pub(super) fn send(&self, task: &mut Task, runner: Runner, order: Order) {
        let lane = task.lane.and_then(|of| self.lanes.iter().find(|(number, _)| *number == of));
        match lane.or(self.lanes.first()) {
            Some((number, lane)) => {
                lane.send(Job { runner, order, weight: task.readings_unmeasured });
                task.lane = Some(*number);
            }
            None => task.come_home(runner),
        }
    }

    pub(super) fn wake(&self) {
        self.lanes.iter().for_each(|(_, lane)| lane.wake());
    }

    /// Waits a little for the readings on the shared lane. The others are waited for by nobody, until their
    /// readings are short again.
    pub(super) fn wait(&self, time: Duration) {
        if let Some((_, lane)) = self.lanes.first() {
            lane.wait(time);
        }
    }

    /// Takes finished readings back; whether there were any.
    pub(super) fn take_home(&mut self, tasks: &mut [Task], shared: &Shared) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        for (_, lane) in &self.lanes {
            lane.take_home(&mut finished);
        }
        let any = !finished.is_empty();
        for Finished { mut runner, outcome } in finished.drain(..) {
            match tasks.iter_mut().find(|task| task.slot == runner.slot) {
                Some(task) if task.is_away() => {
                    task.observe(&runner, &outcome);
                    task.come_home(runner);
                    task.note_end_of_hang(shared);
                    if outcome.duration < LANE_TIME_MAX {
                        // Back to the shared lane, for on its own the readings would come a frame late.
                        task.lane = None;
                    }
                }
                // It was switched off and on again meanwhile; the series are its successor's.
                Some(_) => {}
                None => {
                    runner.end(shared);
                    shared.statuses.retain(|name| name != runner.kind.name);
                }
            }
        }
        self.finished = finished;
        any
    }

    /// Looks after the lanes: leaves those that hang, ends those that nobody needs any more.
    pub(super) fn tend(&mut self, tasks: &mut [Task], shared: &Shared) {
        self.end_idle(tasks);
        self.leave_hanging(tasks, shared);
    }

    /// Leaves a lane to the sampler whose reading hangs there; the others move to a new one.
    fn leave_hanging(&mut self, tasks: &mut [Task], shared: &Shared) {
        let Some((number, lane)) = self.lanes.first() else { return };
        let Some((slot, since)) = lane.running() else { return };
        let due_again = |task: &Task| task.due.at_ms <= shared.clock.now_ms();
        let hangs = since >= LANE_TIME_MAX
            || tasks.iter().any(|task| task.slot == slot && task.is_away() && due_again(task));
        if !hangs {
            return;
        }
        let (number, behind) = (*number, lane.take_back());
        let fresh = match Lane::start(shared.clone()) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(%error, "Cannot start a thread for samplers that may hang");
                behind.into_iter().for_each(|job| lane.send(job));
                return;
            }
        };
        behind.into_iter().for_each(|job| fresh.send(job));
        fresh.wake();
        self.next += 1;
        for task in tasks.iter_mut().filter(|task| task.lane == Some(number) && task.slot != slot) {
            task.lane = Some(self.next);
        }
        self.lanes.insert(0, (self.next, fresh));
    }

    /// Ends the lanes, other than the shared one, on which no sampler reads any more.
    fn end_idle(&mut self, tasks: &[Task]) {
        let Some(first) = self.lanes.first().map(|(number, _)| *number) else { return };
        let cpu_ended = &mut self.cpu_ended;
        self.lanes.retain(|(number, lane)| {
            let is_needed =
                *number == first || tasks.iter().any(|task| task.lane == Some(*number)) || !lane.is_empty();
            if !is_needed {
                *cpu_ended += lane.cpu();
            }
            is_needed
        });
    }

    /// When to tend them again, if the shared one is at work: what waits behind a reading that hangs is to wait
    /// little.
    pub(super) fn look_again_in(&self) -> Option<Duration> {
        let (_, since) = self.lanes.first().and_then(|(_, lane)| lane.running())?;
        Some(LANE_TIME_MAX.saturating_sub(since) + Duration::from_millis(1))
    }

    /// Processor time of all lanes so far.
    pub(super) fn cpu(&self) -> Duration {
        self.cpu_ended + self.lanes.iter().map(|(_, lane)| lane.cpu()).sum::<Duration>()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }
}
