//! The direct method in lockstep: each SIMD lane is a trajectory, and all take their events at the same time.
//!
//! * **Domain.** Small networks, of up to some hundred reactions: every propensity is evaluated for every event.
//! * **Exactness.** Of Gillespie's direct method: times from 52 random bits in (0, 1], reactions from 52 in [0, 1).
//!   Counts are exact up to 2⁵³. A reaction of propensity 0 never happens.
//! * **Determinism.** Trajectory i depends on (seed, i) alone: not on the others, the workers or the SIMD level.
//! * **Cost.** Per event and lane: a multiplication and an addition a reaction, a comparison a reaction and an addition
//!   a change, one logarithm, two divisions' worth of latency that the other lanes hide.
//!
//! ```text
//! aⱼ ← propensities of x;  cⱼ ← a₁ + … + aⱼ;  t' ← t - ln(u₁)/c_R
//! record x at all grid times before t'
//! j ← the first with u₂ c_R < cⱼ;  x ← x + νⱼ;  t ← t'
//! ```
//!
//! 1. Reactions are sorted by the form of their propensity, so that one loop has no branches.
//! 2. The reaction is not looked up: each adds its changes under a mask.
//! 3. Grid times and ends are rare and handled lane by lane. A lane whose trajectory has ended takes the next one from a
//!    queue that all workers share.
//! 4. [`GROUPS`] registers go side by side, to hide the latency of the logarithm and the divisions.

use std::{
    array, mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use fearless_simd::{Simd, dispatch, f64x8, mask64x8, prelude::*, u64x8};
use fearless_simd_macros::simd;

use super::{
    network::{Network, Propensity},
    program::Program,
};
use crate::{
    error::{Error, Failure, Reason},
    parallel::{Parts, Run},
    rng::Stream,
    scalar::Real,
    simd::ln,
};

/// Registers side by side.
pub(super) const GROUPS: usize = 4;
const LANES: usize = <f64 as Real>::LANES;
/// Trajectories that a worker simulates at once.
const WIDTH: usize = GROUPS * LANES;
/// Events of a lane between two looks at the watch: some milliseconds.
const SLICE: usize = 4096;

/// A value for each trajectory that is simulated at once.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Row([f64; WIDTH]);

impl Row {
    pub(super) fn splat(value: f64) -> Self {
        Self([value; WIDTH])
    }
}

#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, row: &Row, g: usize) -> f64x8<S> {
    f64x8::from_slice(simd, &row.0[g * LANES..(g + 1) * LANES])
}

#[inline(always)]
pub(super) fn store<S: Simd>(row: &mut Row, g: usize, value: f64x8<S>) {
    value.store_slice(&mut row.0[g * LANES..(g + 1) * LANES]);
}

/// Values for all trajectories, or for each in turn.
#[derive(Debug, Clone, Copy)]
pub enum PerTrajectory<'a> {
    /// The same for all.
    All(&'a [f64]),
    /// As many for each, one trajectory after the other.
    Each(&'a [f64]),
}

impl<'a> PerTrajectory<'a> {
    fn of(self, index: usize, width: usize) -> &'a [f64] {
        match self {
            PerTrajectory::All(values) => values,
            PerTrajectory::Each(values) => &values[index * width..(index + 1) * width],
        }
    }

    fn check(self, argument: &'static str, n: usize, width: usize) -> Result<(), Error> {
        let (expected, found) = match self {
            PerTrajectory::All(values) => (width, values.len()),
            PerTrajectory::Each(values) => (width.saturating_mul(n), values.len()),
        };
        if expected != found {
            return Err(Error::Length {
                argument,
                expected,
                found,
            });
        }
        Ok(())
    }
}

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The reactions.
    pub network: &'a Network,
    /// Counts at time 0.
    pub start: PerTrajectory<'a>,
    /// The network's constants.
    pub constants: PerTrajectory<'a>,
    /// When to record, not before 0 and never falling.
    pub times: &'a [f64],
    /// The species to record.
    pub species: &'a [usize],
    /// With the index of a trajectory, its random numbers.
    pub seed: u64,
    /// The index of the first trajectory.
    pub first: u64,
    /// A trajectory with more events fails.
    pub max_events: u64,
    /// Where this is other than 0, a trajectory stays as it is.
    pub until: Option<&'a Program>,
}

/// An event of a trajectory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// When it happened.
    pub time: f64,
    /// The index of the reaction.
    pub reaction: usize,
}

/// Where the results of n trajectories go.
#[derive(Debug)]
pub struct Output<'a> {
    /// Counts by trajectory, time and species. The state at a time includes the events at that very time.
    pub counts: &'a mut [i64],
    /// How many events there were up to the last time.
    pub events: &'a mut [u64],
    /// The time at which [`Job::until`] came true; infinite where it did not. One for each trajectory, or none.
    pub stopped: &'a mut [f64],
    /// All events up to the last time. One for each trajectory, or none.
    pub log: &'a mut [Vec<Event>],
}

/// Simulates as many trajectories as `output.events` has room for.
///
/// # Errors
/// [`Error::Length`] and [`Error::Domain`] for shapes and indices that do not fit; [`Error::Trajectory`] for a propensity
/// below 0 or not a number, a count below 0, and too many events; [`Error::Interrupted`].
pub fn simulate(run: &mut Run<'_>, job: &Job<'_>, output: Output<'_>) -> Result<(), Error> {
    let Output {
        counts,
        events,
        stopped,
        log,
    } = output;
    let n = events.len();
    let network = job.network;
    job.start.check("x0", n, network.species)?;
    job.constants.check("params", n, network.constants)?;
    if let Some(&index) = job.species.iter().find(|&&index| index >= network.species) {
        return Err(Error::Domain {
            argument: "species",
            domain: "the index of a species",
            value: index as f64,
        });
    }
    let width = job.times.len().saturating_mul(job.species.len());
    let stops = if job.until.is_some() { n } else { 0 };
    let logs = if log.is_empty() { 0 } else { n };
    for (argument, expected, found) in [
        ("counts", n.saturating_mul(width), counts.len()),
        ("stopped", stops, stopped.len()),
        ("log", logs, log.len()),
    ] {
        if expected != found {
            return Err(Error::Length {
                argument,
                expected,
                found,
            });
        }
    }
    stopped.fill(f64::INFINITY);
    let mut plan = Plan::new(network);
    if let Some(until) = job.until {
        network.check(until)?;
        plan.depth = plan.depth.max(until.depth());
    }
    let shared = Shared {
        job,
        plan: &plan,
        n,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
        logs: !log.is_empty(),
        counts: Parts::new(counts),
        events: Parts::new(events),
        stopped: Parts::new(stopped),
        log: Parts::new(log),
    };
    let level = run.level;
    run.until_done(
        n.div_ceil(WIDTH),
        || Lanes::new(&shared),
        |lanes| dispatch!(level, simd => lanes.advance(simd)),
    )?;
    let failure = shared.failure.into_inner();
    match failure.unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(Error::Trajectory(Box::new(failure))),
        None => Ok(()),
    }
}

/// A network in the order in which the kernel takes its reactions.
struct Plan {
    zeroth: Vec<usize>,
    first: Vec<(usize, usize)>,
    second: Vec<(usize, usize, usize)>,
    pair: Vec<(usize, usize)>,
    general: Vec<(usize, Vec<(usize, usize)>)>,
    programs: Vec<Program>,
    depth: usize,
    /// For each species, the positions that change it, and by how much.
    changes: Vec<Vec<(usize, f64)>>,
    /// The reaction at a position.
    reaction: Vec<usize>,
    /// Species that a program might take below 0.
    guarded: Vec<usize>,
}

impl Plan {
    fn new(network: &Network) -> Self {
        let mut plan = Self {
            zeroth: Vec::new(),
            first: Vec::new(),
            second: Vec::new(),
            pair: Vec::new(),
            general: Vec::new(),
            programs: Vec::new(),
            depth: 0,
            changes: Vec::new(),
            reaction: Vec::new(),
            guarded: Vec::new(),
        };
        let mut kinds = [const { Vec::new() }; 6];
        for (index, reaction) in network.reactions.iter().enumerate() {
            let kind = match &reaction.propensity {
                &Propensity::MassAction {
                    constant: c,
                    ref reactants,
                } => match reactants[..] {
                    [] => {
                        plan.zeroth.push(c);
                        0
                    }
                    [(a, 1)] => {
                        plan.first.push((c, a));
                        1
                    }
                    [(a, 1), (b, 1)] => {
                        plan.second.push((c, a, b));
                        2
                    }
                    [(a, 2)] => {
                        plan.pair.push((c, a));
                        3
                    }
                    _ => {
                        plan.general.push((c, reactants.clone()));
                        4
                    }
                },
                Propensity::Program(program) => {
                    plan.depth = plan.depth.max(program.depth());
                    plan.programs.push(program.clone());
                    let falling = reaction.changes.iter().filter(|change| change.1 < 0);
                    plan.guarded.extend(falling.map(|change| change.0));
                    5
                }
            };
            kinds[kind].push(index);
        }
        plan.guarded.sort_unstable();
        plan.guarded.dedup();
        plan.reaction = kinds.concat();
        plan.changes.resize(network.species, Vec::new());
        for (position, &index) in plan.reaction.iter().enumerate() {
            for &(species, by) in &network.reactions[index].changes {
                plan.changes[species].push((position, f64::from(by)));
            }
        }
        plan
    }
}

/// What the workers share.
struct Shared<'a> {
    job: &'a Job<'a>,
    plan: &'a Plan,
    n: usize,
    /// The trajectory that the next free lane takes.
    next: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
    logs: bool,
    counts: Parts<'a, i64>,
    events: Parts<'a, u64>,
    stopped: Parts<'a, f64>,
    log: Parts<'a, Vec<Event>>,
}

/// The trajectories of a worker.
struct Lanes<'a> {
    shared: &'a Shared<'a>,
    counts: Vec<Row>,
    constants: Vec<Row>,
    /// cⱼ
    sums: Vec<Row>,
    stack: Vec<Row>,
    random: [[u64; WIDTH]; 4],
    time: Row,
    /// The next grid time; infinite where a lane is idle.
    next_time: Row,
    fired: Row,
    trajectory: [usize; WIDTH],
    recorded: [usize; WIDTH],
    log: Vec<Vec<Event>>,
    busy: usize,
}

impl<'a> Lanes<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        let Shared { job, plan, .. } = *shared;
        let rows = |count| vec![Row::splat(0.0); count];
        let mut lanes = Self {
            shared,
            counts: rows(job.network.species),
            constants: rows(job.network.constants),
            sums: rows(plan.reaction.len()),
            stack: rows(plan.depth),
            random: [[1; WIDTH]; 4],
            time: Row::splat(0.0),
            next_time: Row::splat(f64::INFINITY),
            fired: Row::splat(0.0),
            trajectory: [0; WIDTH],
            recorded: [0; WIDTH],
            log: vec![Vec::new(); WIDTH],
            busy: 0,
        };
        for lane in 0..WIDTH {
            lanes.refill(lane);
        }
        lanes
    }

    /// Takes the next trajectory; the lane is idle where none is left: it has no time to wait for.
    fn refill(&mut self, lane: usize) {
        let Shared { job, n, .. } = *self.shared;
        loop {
            let index = self.shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                self.next_time.0[lane] = f64::INFINITY;
                self.constants.iter_mut().for_each(|row| row.0[lane] = 0.0);
                self.counts.iter_mut().for_each(|row| row.0[lane] = 0.0);
                return;
            }
            let start = job.start.of(index, self.counts.len());
            let constants = job.constants.of(index, self.constants.len());
            if job.times.is_empty() {
                continue;
            }
            for (row, &value) in self.counts.iter_mut().zip(start) {
                row.0[lane] = value;
            }
            for (row, &value) in self.constants.iter_mut().zip(constants) {
                row.0[lane] = value;
            }
            let state = Stream::new(job.seed, job.first.wrapping_add(index as u64)).state();
            for (row, value) in self.random.iter_mut().zip(state) {
                row[lane] = value;
            }
            self.time.0[lane] = 0.0;
            self.next_time.0[lane] = job.times[0];
            self.fired.0[lane] = 0.0;
            self.trajectory[lane] = index;
            self.recorded[lane] = 0;
            self.busy += 1;
            return;
        }
    }

    /// Records the state at the grid times before `until`; says whether the trajectory goes on.
    fn record(&mut self, lane: usize, until: f64) -> bool {
        let Shared { job, .. } = *self.shared;
        let index = self.trajectory[lane];
        let width = job.species.len();
        while self.next_time.0[lane] < until {
            let at = (index * job.times.len() + self.recorded[lane]) * width;
            // SAFETY: each trajectory belongs to one lane of one worker.
            let out = unsafe { self.shared.counts.part(at, width) };
            for (out, &species) in out.iter_mut().zip(job.species) {
                *out = self.counts[species].0[lane] as i64;
            }
            self.recorded[lane] += 1;
            match job.times.get(self.recorded[lane]) {
                Some(&time) => self.next_time.0[lane] = time,
                None => {
                    if self.is_beyond_limit(lane) {
                        self.fail(lane, Reason::Events);
                    }
                    // SAFETY: as above.
                    unsafe {
                        self.shared.events.part(index, 1)[0] = self.fired.0[lane] as u64;
                        if self.shared.logs {
                            self.shared.log.part(index, 1)[0] = mem::take(&mut self.log[lane]);
                        }
                    }
                    self.busy -= 1;
                    return false;
                }
            }
        }
        true
    }

    /// Notes what is wrong with the trajectory of a lane, and ends the call.
    fn fail(&mut self, lane: usize, reason: Reason) {
        let failure = Failure {
            trajectory: self
                .shared
                .job
                .first
                .wrapping_add(self.trajectory[lane] as u64),
            time: self.time.0[lane],
            state: self.counts.iter().map(|row| row.0[lane]).collect(),
            reason,
        };
        let mut found = self
            .shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if found
            .as_ref()
            .is_none_or(|found| failure.trajectory < found.trajectory)
        {
            *found = Some(failure);
        }
        self.shared.failed.store(true, Ordering::Relaxed);
    }

    fn is_busy(&self, lane: usize) -> bool {
        self.next_time.0[lane] < f64::INFINITY
    }

    /// Finds the propensity that is below 0, or no number, or makes the sum infinite.
    #[cold]
    #[inline(never)]
    fn blame_propensities<S: Simd>(&mut self, simd: S) {
        let Shared { plan, .. } = *self.shared;
        let programs = plan.reaction.len() - plan.programs.len();
        for (index, program) in plan.programs.iter().enumerate() {
            program.run(simd, &self.constants, &self.counts, &mut self.stack);
            for lane in 0..WIDTH {
                let value = self.stack[0].0[lane];
                if self.is_busy(lane) && !(0.0..f64::INFINITY).contains(&value) {
                    let reaction = plan.reaction[programs + index];
                    return self.fail(lane, Reason::Propensity { reaction, value });
                }
            }
        }
        for lane in 0..WIDTH {
            let infinite = self.sums.iter().position(|sum| !sum.0[lane].is_finite());
            if let Some(position) = infinite {
                let (reaction, value) = (plan.reaction[position], self.sums[position].0[lane]);
                return self.fail(lane, Reason::Propensity { reaction, value });
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn blame_negative(&mut self, species: usize) {
        let counts = self.counts[species].0;
        if let Some(lane) = counts.iter().position(|&count| count < 0.0) {
            self.fail(lane, Reason::Negative { species });
        }
    }

    /// Takes some thousand events in every lane; says whether any lane is busy.
    #[simd]
    fn advance<S: Simd>(&mut self, simd: S) -> bool {
        let none = [mask64x8::splat(simd, false); GROUPS];
        let mut fires = vec![none; self.sums.len()];
        for _ in 0..SLICE {
            if self.busy == 0 || self.shared.failed.load(Ordering::Relaxed) {
                return false;
            }
            self.step(simd, &mut fires);
        }
        for lane in 0..WIDTH {
            if self.is_busy(lane) && self.is_beyond_limit(lane) {
                self.fail(lane, Reason::Events);
            }
        }
        true
    }

    fn is_beyond_limit(&self, lane: usize) -> bool {
        self.fired.0[lane] > self.shared.job.max_events as f64
    }

    /// One event in every lane.
    #[inline(always)]
    fn step<S: Simd>(&mut self, simd: S, fires: &mut [[mask64x8<S>; GROUPS]]) {
        let Shared { job, plan, .. } = *self.shared;
        if let Some(until) = job.until {
            self.stop_where(simd, until);
        }
        if self.sum_propensities(simd) {
            return self.blame_propensities(simd);
        }
        let infinity = f64x8::splat(simd, f64::INFINITY);
        let total = self.sums.last();
        let (mut until, mut drawn) = (Row::splat(0.0), Row::splat(0.0));
        let (mut crossed, mut finite) = (false, true);
        for g in 0..GROUPS {
            let a0 = match total {
                Some(total) => load(simd, total, g),
                None => f64x8::splat(simd, 0.0),
            };
            let first = from_one_to_two(simd, &mut self.random, g);
            let second = from_one_to_two(simd, &mut self.random, g);
            let wait = -ln::<f64, S>(f64x8::splat(simd, 2.0) - first) / a0;
            let next = load(simd, &self.time, g) + wait;
            let next = a0.simd_gt(0.0).select(next, infinity);
            crossed |= next.simd_gt(load(simd, &self.next_time, g)).any_true();
            finite &= a0.simd_lt(infinity).all_true();
            store(&mut until, g, next);
            store(&mut drawn, g, (second - 1.0) * a0);
        }
        if !finite {
            return self.blame_propensities(simd);
        }
        if crossed {
            for lane in 0..WIDTH {
                if self.next_time.0[lane] < until.0[lane] && !self.record(lane, until.0[lane]) {
                    self.refill(lane);
                    // Its first event is the next one.
                    (until.0[lane], drawn.0[lane]) = (self.time.0[lane], f64::INFINITY);
                }
            }
        }
        self.time = until;
        if self.shared.logs {
            self.note_events(&drawn);
        }
        let drawn = of(simd, &drawn);
        let zero = f64x8::splat(simd, 0.0);
        let mut before = [mask64x8::splat(simd, false); GROUPS];
        for (sum, fires) in self.sums.iter().zip(&mut *fires) {
            let sum = of(simd, sum);
            let below: [_; GROUPS] = array::from_fn(|g| drawn[g].simd_lt(sum[g]));
            *fires = array::from_fn(|g| below[g] & !before[g]);
            before = below;
        }
        for (row, changes) in self.counts.iter_mut().zip(&plan.changes) {
            let mut x = of(simd, row);
            for &(position, by) in changes {
                let by = f64x8::splat(simd, by);
                let fires = &fires[position];
                for g in 0..GROUPS {
                    x[g] += fires[g].select(by, zero);
                }
            }
            for (g, x) in x.into_iter().enumerate() {
                store(row, g, x);
            }
        }
        for (g, any) in before.iter().enumerate() {
            let fired = load(simd, &self.fired, g);
            store(&mut self.fired, g, any.select(fired + 1.0, fired));
        }
        for &species in &plan.guarded {
            for g in 0..GROUPS {
                if load(simd, &self.counts[species], g).simd_lt(0.0).any_true() {
                    return self.blame_negative(species);
                }
            }
        }
    }

    /// Ends the trajectories whose state is one to stop at.
    #[inline(always)]
    fn stop_where<S: Simd>(&mut self, simd: S, until: &Program) {
        loop {
            until.run(simd, &self.constants, &self.counts, &mut self.stack);
            let found = self.stack[0].0;
            let mut any = false;
            for (lane, &value) in found.iter().enumerate() {
                if self.is_busy(lane) && value != 0.0 && !value.is_nan() {
                    let index = self.trajectory[lane];
                    // SAFETY: each trajectory belongs to one lane of one worker.
                    unsafe { self.shared.stopped.part(index, 1)[0] = self.time.0[lane] };
                    self.record(lane, f64::INFINITY);
                    self.refill(lane);
                    any = true; // where the next one starts is looked at too
                }
            }
            if !any {
                return;
            }
        }
    }

    fn note_events(&mut self, drawn: &Row) {
        for lane in 0..WIDTH {
            let position = self.sums.iter().position(|sum| drawn.0[lane] < sum.0[lane]);
            if let Some(position) = position {
                self.log[lane].push(Event {
                    time: self.time.0[lane],
                    reaction: self.shared.plan.reaction[position],
                });
            }
        }
    }

    /// Sums up the propensities one after the other; says whether one is below 0 or no number.
    #[inline(always)]
    fn sum_propensities<S: Simd>(&mut self, simd: S) -> bool {
        let Shared { plan, .. } = *self.shared;
        let (constants, counts) = (&self.constants, &self.counts);
        let mut sum = [f64x8::splat(simd, 0.0); GROUPS];
        let mut rows = self.sums.iter_mut();
        for (&c, row) in plan.zeroth.iter().zip(&mut rows) {
            sum = with(sum, of(simd, &constants[c]), row);
        }
        for (&(c, x), row) in plan.first.iter().zip(&mut rows) {
            let (c, x) = (of(simd, &constants[c]), of(simd, &counts[x]));
            sum = with(sum, array::from_fn(|g| c[g] * x[g]), row);
        }
        for (&(c, x, y), row) in plan.second.iter().zip(&mut rows) {
            let c = of(simd, &constants[c]);
            let (x, y) = (of(simd, &counts[x]), of(simd, &counts[y]));
            sum = with(sum, array::from_fn(|g| c[g] * x[g] * y[g]), row);
        }
        for (&(c, x), row) in plan.pair.iter().zip(&mut rows) {
            let (c, x) = (of(simd, &constants[c]), of(simd, &counts[x]));
            sum = with(sum, array::from_fn(|g| c[g] * x[g] * (x[g] - 1.0)), row);
        }
        for ((c, reactants), row) in plan.general.iter().zip(&mut rows) {
            let mut a = of(simd, &constants[*c]);
            for &(x, times) in reactants {
                let mut x = of(simd, &counts[x]);
                for _ in 0..times {
                    for g in 0..GROUPS {
                        a[g] *= x[g];
                        x[g] -= 1.0;
                    }
                }
            }
            sum = with(sum, a, row);
        }
        let mut bad = false;
        for (program, row) in plan.programs.iter().zip(&mut rows) {
            program.run(simd, constants, counts, &mut self.stack);
            let next_time = of(simd, &self.next_time);
            let a = of(simd, &self.stack[0]);
            let a = array::from_fn(|g| {
                // An idle lane is nobody's.
                let idle = !next_time[g].simd_lt(f64::INFINITY);
                let good = a[g].simd_ge(0.0) & a[g].simd_lt(f64::INFINITY);
                bad |= !(good | idle).all_true();
                idle.select(f64x8::splat(simd, 0.0), a[g])
            });
            sum = with(sum, a, row);
        }
        bad
    }
}

#[inline(always)]
fn of<S: Simd>(simd: S, row: &Row) -> [f64x8<S>; GROUPS] {
    array::from_fn(|g| load(simd, row, g))
}

/// The sum with one propensity more, which is kept in a row.
#[inline(always)]
fn with<S: Simd>(
    sum: [f64x8<S>; GROUPS],
    a: [f64x8<S>; GROUPS],
    row: &mut Row,
) -> [f64x8<S>; GROUPS] {
    array::from_fn(|g| {
        let sum = sum[g] + a[g];
        store(row, g, sum);
        sum
    })
}

/// The next value of xoshiro256++ in the lanes of a register, as a number in [1, 2).
#[inline(always)]
fn from_one_to_two<S: Simd>(simd: S, random: &mut [[u64; WIDTH]; 4], g: usize) -> f64x8<S> {
    let at = g * LANES..(g + 1) * LANES;
    let [mut a, mut b, mut c, mut d] =
        array::from_fn(|i| u64x8::from_slice(simd, &random[i][at.clone()]));
    let sum = a + d;
    let result = ((sum << 23) | (sum >> 41)) + a;
    let shifted = b << 17;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 45) | (d >> 19);
    for (row, value) in random.iter_mut().zip([a, b, c, d]) {
        value.store_slice(&mut row[at.clone()]);
    }
    f64x8::from_bits((result >> 12) | 0x3ff0_0000_0000_0000)
}
