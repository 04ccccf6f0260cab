//! What the engines share: the trajectories that are left, and where results go.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{Job, Output};
use crate::{
    error::{Error, Failure, Reason},
    parallel::Parts,
};

/// An event of a trajectory.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A reaction happened.
    Reaction {
        /// When.
        time: f64,
        /// Which.
        index: usize,
    },
    /// An intervention was carried out.
    Intervention {
        /// When.
        time: f64,
        /// Which.
        index: usize,
        /// What it added to each species.
        changes: Vec<f64>,
    },
}

/// The results of a call that runs. Each trajectory belongs to the worker that took it.
pub(super) struct Ledger<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) n: usize,
    pub(super) logs: bool,
    /// The trajectory that is taken next.
    next: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
    counts: Parts<'a, i64>,
    events: Parts<'a, u64>,
    stopped: Parts<'a, f64>,
    log: Parts<'a, Vec<Event>>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(job: &'a Job<'a>, output: Output<'a>) -> Self {
        Self {
            job,
            n: output.events.len(),
            logs: !output.log.is_empty(),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            counts: Parts::new(output.counts),
            events: Parts::new(output.events),
            stopped: Parts::new(output.stopped),
            log: Parts::new(output.log),
        }
    }

    /// A trajectory that nobody has taken, if there is one.
    pub(super) fn take(&self) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.n).then_some(index)
    }

    /// The first word of a trajectory's random numbers is that of this stream.
    pub(super) fn stream(&self, index: usize) -> u64 {
        self.job.first.wrapping_add(index as u64)
    }

    /// Writes the counts of a trajectory at a grid time.
    #[inline]
    pub(super) fn record(&self, index: usize, time: usize, count: impl Fn(usize) -> f64) {
        let width = self.job.species.len();
        let at = (index * self.job.times.len() + time) * width;
        // SAFETY: the trajectory belongs to one worker, which calls this.
        let out = unsafe { self.counts.part(at, width) };
        for (out, &species) in out.iter_mut().zip(self.job.species) {
            *out = count(species) as i64;
        }
    }

    /// Notes that a trajectory has met the condition that ends it.
    pub(super) fn stop(&self, index: usize, time: f64) {
        // SAFETY: the trajectory belongs to one worker, which calls this.
        unsafe { self.stopped.part(index, 1)[0] = time };
    }

    /// Closes a trajectory.
    pub(super) fn finish(&self, index: usize, events: u64, log: Vec<Event>) {
        // SAFETY: the trajectory belongs to one worker, which calls this.
        unsafe {
            self.events.part(index, 1)[0] = events;
            if self.logs {
                self.log.part(index, 1)[0] = log;
            }
        }
        let progress = self.job.progress;
        progress.trajectories.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes events, for those who wait.
    pub(super) fn note(&self, events: u64) {
        self.job
            .progress
            .events
            .fetch_add(events, Ordering::Relaxed);
    }

    /// Notes what is wrong with a trajectory, and ends the call.
    #[cold]
    pub(super) fn fail(&self, index: usize, time: f64, state: Vec<f64>, reason: Reason) {
        let failure = Failure {
            trajectory: self.stream(index),
            time,
            state,
            reason,
        };
        let mut found = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if found
            .as_ref()
            .is_none_or(|found| failure.trajectory < found.trajectory)
        {
            *found = Some(failure);
        }
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn result(self) -> Result<(), Error> {
        let failure = self.failure.into_inner();
        match failure.unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(Error::Trajectory(Box::new(failure))),
            None => Ok(()),
        }
    }
}
