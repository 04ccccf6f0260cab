//! One trajectory after the other: what the engines that do not run in lockstep share.

use std::mem;

use fearless_simd::{Simd, dispatch, f64x8, prelude::*};
use fearless_simd_macros::simd;

use super::ledger::{Event, Ledger};
use crate::{
    error::{Error, Reason},
    parallel::Run,
    rng::Stream,
    scalar::Real,
    simd::ln,
};

/// Events between two looks at the watch: some milliseconds. To begin a trajectory takes as long as so many events as
/// there are reactions and species, over [`BEGIN`].
const SLICE: usize = 2048;
const BEGIN: usize = 16;

/// A way of drawing the events of a trajectory.
pub(super) trait Engine {
    /// What can come next.
    type Next: Copy;

    /// Takes up a trajectory at time 0, until `end`.
    fn start<S: Simd>(
        &mut self,
        simd: S,
        constants: &[f64],
        counts: &[f64],
        end: f64,
        trace: &mut Trace,
    ) -> Result<(), Reason>;

    /// The counts of the species.
    fn counts(&self) -> &[f64];

    fn constants(&self) -> &[f64];

    /// What comes next, and when: at an infinite time if that is after the end. It does not change the counts.
    fn next<S: Simd>(&mut self, simd: S, trace: &mut Trace) -> Result<(f64, Self::Next), Reason>;

    /// Carries it out.
    fn carry_out<S: Simd>(
        &mut self,
        simd: S,
        time: f64,
        next: Self::Next,
        trace: &mut Trace,
    ) -> Result<(), Reason>;
}

/// What a trajectory draws from and leaves behind.
pub(super) struct Trace {
    pub(super) draws: Draws,
    pub(super) time: f64,
    pub(super) events: u64,
    logs: bool,
    log: Vec<Event>,
}

impl Trace {
    pub(super) fn note_reaction(&mut self, time: f64, index: usize) {
        self.events += 1;
        if self.logs {
            self.log.push(Event::Reaction { time, index });
        }
    }

    pub(super) fn note_intervention(
        &mut self,
        time: f64,
        index: usize,
        changes: impl Fn() -> Vec<f64>,
    ) {
        self.events += 1;
        if self.logs {
            self.log.push(Event::Intervention {
                time,
                index,
                changes: changes(),
            });
        }
    }
}

/// Simulates the trajectories of a ledger.
pub(super) fn simulate<E: Engine>(
    run: &mut Run<'_>,
    ledger: &Ledger<'_>,
    engine: impl Fn() -> E + Sync,
) -> Result<(), Error> {
    let level = run.level;
    let worker = || Solo {
        ledger,
        engine: engine(),
        trajectory: None,
        recorded: 0,
        trace: Trace {
            draws: Draws::new(Stream::new(0, 0)),
            time: 0.0,
            events: 0,
            logs: ledger.logs,
            log: Vec::new(),
        },
        stack: Vec::new(),
        noted: 0,
    };
    run.until_done(
        ledger.n,
        worker,
        |solo| dispatch!(level, simd => solo.advance(simd)),
    )
}

/// The trajectory of a worker.
struct Solo<'a, E> {
    ledger: &'a Ledger<'a>,
    engine: E,
    trajectory: Option<usize>,
    recorded: usize,
    trace: Trace,
    stack: Vec<[f64; 8]>,
    /// How many of its events the ledger knows.
    noted: u64,
}

impl<E: Engine> Solo<'_, E> {
    /// Takes some thousand events; says whether a trajectory may be left.
    #[simd]
    fn advance<S: Simd>(&mut self, simd: S) -> bool {
        let network = self.ledger.job.network;
        let begin = (network.species + network.reactions.len()) / BEGIN;
        let mut left = SLICE;
        while left > 0 {
            left -= 1;
            if self.trajectory.is_none() {
                left = left.saturating_sub(begin);
            }
            if self.ledger.failed() {
                return false;
            }
            let Some(index) = self.trajectory.or_else(|| self.ledger.take()) else {
                return false;
            };
            if let Err(reason) = self.step(simd, index) {
                let state = self.engine.counts().to_vec();
                self.ledger.fail(index, self.trace.time, state, reason);
                return false;
            }
        }
        self.ledger.note(self.trace.events - self.noted);
        self.noted = self.trace.events;
        true
    }

    /// Takes a trajectory to its next event.
    #[inline(always)]
    fn step<S: Simd>(&mut self, simd: S, index: usize) -> Result<(), Reason> {
        let job = self.ledger.job;
        if self.trajectory.is_none() {
            self.begin(simd, index)?;
            self.check_limit()?;
        }
        if let Some(until) = job.until {
            let (constants, counts) = (self.engine.constants(), self.engine.counts());
            let value = until.value(simd, constants, counts, self.trace.time, &mut self.stack);
            if value != 0.0 && !value.is_nan() {
                self.ledger.stop(index, self.trace.time);
                self.record(index, f64::INFINITY);
                return self.finish(index);
            }
        }
        let (time, next) = self.engine.next(simd, &mut self.trace)?;
        if !self.record(index, time) {
            return self.finish(index);
        }
        self.trace.time = time;
        self.engine.carry_out(simd, time, next, &mut self.trace)?;
        self.check_limit()
    }

    #[inline(always)]
    fn check_limit(&self) -> Result<(), Reason> {
        if self.trace.events > self.ledger.job.max_events {
            return Err(Reason::Events);
        }
        Ok(())
    }

    #[simd]
    fn begin<S: Simd>(&mut self, simd: S, index: usize) -> Result<(), Reason> {
        let job = self.ledger.job;
        self.trajectory = Some(index);
        self.recorded = 0;
        self.noted = 0;
        self.trace.draws = Draws::new(Stream::new(job.seed, self.ledger.stream(index)));
        self.trace.time = 0.0;
        self.trace.events = 0;
        let constants = job.constants.of(index, job.network.constants);
        let counts = job.start.of(index, job.network.species);
        let end = job.times[job.times.len() - 1];
        self.engine
            .start(simd, constants, counts, end, &mut self.trace)
    }

    /// Records the state at the grid times before `until`; says whether any is left.
    #[inline(always)]
    fn record(&mut self, index: usize, until: f64) -> bool {
        while let Some(&time) = self.ledger.job.times.get(self.recorded) {
            if time >= until {
                return true;
            }
            let counts = self.engine.counts();
            self.ledger
                .record(index, self.recorded, |species| counts[species]);
            self.recorded += 1;
        }
        false
    }

    #[cold]
    fn finish(&mut self, index: usize) -> Result<(), Reason> {
        let trace = &mut self.trace;
        self.ledger.note(trace.events - self.noted);
        self.noted = trace.events;
        self.ledger
            .finish(index, trace.events, mem::take(&mut trace.log));
        self.trajectory = None;
        Ok(())
    }
}

const LANES: usize = <f64 as Real>::LANES;
/// Pairs of random numbers that are made at a time.
const DRAWS: usize = 4 * LANES;

/// The random numbers of a trajectory: of each two, the first makes an exponential and the second is uniform.
pub(super) struct Draws {
    stream: Stream,
    exponentials: [f64; DRAWS],
    uniforms: [f64; DRAWS],
    used: usize,
}

impl Draws {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            exponentials: [0.0; DRAWS],
            uniforms: [0.0; DRAWS],
            used: DRAWS,
        }
    }

    /// An exponential of mean 1 and a uniform on [0, 1).
    #[inline(always)]
    pub(super) fn pair<S: Simd>(&mut self, simd: S) -> (f64, f64) {
        if self.used == DRAWS {
            self.refill(simd);
        }
        let pair = (self.exponentials[self.used], self.uniforms[self.used]);
        self.used += 1;
        pair
    }

    #[inline(always)]
    fn refill<S: Simd>(&mut self, simd: S) {
        // The 52 bits of a number in [1, 2), as in the lockstep engine.
        let mut one_to_two = || f64::from_bits((self.stream.next_u64() >> 12) | 1f64.to_bits());
        for (first, second) in self.exponentials.iter_mut().zip(&mut self.uniforms) {
            *first = 2.0 - one_to_two();
            *second = one_to_two() - 1.0;
        }
        for chunk in self.exponentials.chunks_exact_mut(LANES) {
            let u = f64x8::from_slice(simd, chunk);
            (-ln::<f64, S>(u)).store_slice(chunk);
        }
        self.used = 0;
    }
}
