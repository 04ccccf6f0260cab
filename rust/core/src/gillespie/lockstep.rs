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
//! 4. Four registers go side by side, to hide the latency of the logarithm and the divisions; a single one where it holds
//!    all trajectories.

use std::{
    array, mem,
    ops::{Index, IndexMut},
};

use fearless_simd::{Simd, dispatch, f64x8, mask64x8, prelude::*, u64x8};
use fearless_simd_macros::simd;

use super::{
    ledger::{Event, Ledger},
    network::{Network, Propensity},
    program::Program,
};
use crate::{
    error::{Error, Reason},
    parallel::Run,
    rng::Stream,
    scalar::Real,
    simd::ln,
};

/// Registers side by side.
const GROUPS: usize = 4;
const LANES: usize = <f64 as Real>::LANES;
/// Events of a lane between two looks at the watch, times reactions: some milliseconds.
const SLICE: usize = 1 << 18;

/// A value for each trajectory that is simulated at once, in G registers.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Row<const G: usize>([[f64; LANES]; G]);

impl<const G: usize> Row<G> {
    pub(super) fn splat(value: f64) -> Self {
        Self([[value; LANES]; G])
    }

    fn values(&self) -> &[f64] {
        self.0.as_flattened()
    }
}

impl<const G: usize> Index<usize> for Row<G> {
    type Output = f64;

    #[inline(always)]
    fn index(&self, lane: usize) -> &f64 {
        &self.0[lane / LANES][lane % LANES]
    }
}

impl<const G: usize> IndexMut<usize> for Row<G> {
    #[inline(always)]
    fn index_mut(&mut self, lane: usize) -> &mut f64 {
        &mut self.0[lane / LANES][lane % LANES]
    }
}

#[inline(always)]
pub(super) fn load<const G: usize, S: Simd>(simd: S, row: &Row<G>, g: usize) -> f64x8<S> {
    row.0[g].simd_into(simd)
}

#[inline(always)]
pub(super) fn store<const G: usize, S: Simd>(row: &mut Row<G>, g: usize, value: f64x8<S>) {
    row.0[g] = value.into();
}

/// Simulates the trajectories of a ledger.
pub(super) fn simulate(run: &mut Run<'_>, ledger: &Ledger<'_>) -> Result<(), Error> {
    let plan = Plan::new(ledger.job.network, ledger.job.until);
    if ledger.n.div_ceil(run.workers) <= LANES {
        simulate_in::<1>(run, ledger, &plan)
    } else {
        simulate_in::<GROUPS>(run, ledger, &plan)
    }
}

fn simulate_in<const G: usize>(
    run: &mut Run<'_>,
    ledger: &Ledger<'_>,
    plan: &Plan,
) -> Result<(), Error> {
    let level = run.level;
    run.until_done(
        ledger.n.div_ceil(G * LANES),
        || Lanes::<G>::new(ledger, plan),
        |lanes| dispatch!(level, simd => lanes.advance(simd)),
    )
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
    /// Species that a reaction might take below 0: it takes more of them than its propensity asks for.
    guarded: Vec<usize>,
}

impl Plan {
    fn new(network: &Network, until: Option<&Program>) -> Self {
        let mut plan = Self {
            zeroth: Vec::new(),
            first: Vec::new(),
            second: Vec::new(),
            pair: Vec::new(),
            general: Vec::new(),
            programs: Vec::new(),
            depth: until.map_or(0, Program::depth),
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
                    5
                }
            };
            kinds[kind].push(index);
            let taken = |species| match &reaction.propensity {
                Propensity::MassAction { reactants, .. } => {
                    let of = reactants.iter().find(|reactant| reactant.0 == species);
                    of.map_or(0, |reactant| reactant.1)
                }
                Propensity::Program(_) => 0,
            };
            let falls = reaction
                .changes
                .iter()
                .filter(|(species, by)| *by < 0 && by.unsigned_abs() as usize > taken(*species));
            plan.guarded.extend(falls.map(|change| change.0));
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

/// The trajectories of a worker.
struct Lanes<'a, const G: usize> {
    ledger: &'a Ledger<'a>,
    plan: &'a Plan,
    counts: Vec<Row<G>>,
    constants: Vec<Row<G>>,
    /// cⱼ
    sums: Vec<Row<G>>,
    stack: Vec<Row<G>>,
    random: [[[u64; LANES]; G]; 4],
    time: Row<G>,
    /// The next grid time; infinite where a lane is idle.
    next_time: Row<G>,
    fired: Row<G>,
    trajectory: Vec<usize>,
    recorded: Vec<usize>,
    log: Vec<Vec<Event>>,
    busy: usize,
    /// Events of trajectories that have ended, and how many events were noted.
    ended: u64,
    noted: u64,
}

impl<'a, const G: usize> Lanes<'a, G> {
    const WIDTH: usize = G * LANES;

    fn new(ledger: &'a Ledger<'a>, plan: &'a Plan) -> Self {
        let job = ledger.job;
        let rows = |count| vec![Row::splat(0.0); count];
        let mut lanes = Self {
            ledger,
            plan,
            counts: rows(job.network.species),
            constants: rows(job.network.constants),
            sums: rows(plan.reaction.len()),
            stack: rows(plan.depth),
            random: [[[1; LANES]; G]; 4],
            time: Row::splat(0.0),
            next_time: Row::splat(f64::INFINITY),
            fired: Row::splat(0.0),
            trajectory: vec![0; Self::WIDTH],
            recorded: vec![0; Self::WIDTH],
            log: vec![Vec::new(); Self::WIDTH],
            busy: 0,
            ended: 0,
            noted: 0,
        };
        for lane in 0..Self::WIDTH {
            lanes.refill(lane);
        }
        lanes
    }

    /// Takes the next trajectory; the lane is idle where none is left: it has no time to wait for.
    fn refill(&mut self, lane: usize) {
        let job = self.ledger.job;
        let Some(index) = self.ledger.take() else {
            self.next_time[lane] = f64::INFINITY;
            self.constants.iter_mut().for_each(|row| row[lane] = 0.0);
            self.counts.iter_mut().for_each(|row| row[lane] = 0.0);
            self.fired[lane] = 0.0;
            return;
        };
        let start = job.start.of(index, self.counts.len());
        for (row, &value) in self.counts.iter_mut().zip(start) {
            row[lane] = value;
        }
        let constants = job.constants.of(index, self.constants.len());
        for (row, &value) in self.constants.iter_mut().zip(constants) {
            row[lane] = value;
        }
        let state = Stream::new(job.seed, self.ledger.stream(index)).state();
        for (row, value) in self.random.iter_mut().zip(state) {
            row[lane / LANES][lane % LANES] = value;
        }
        self.time[lane] = 0.0;
        self.next_time[lane] = job.times[0];
        self.fired[lane] = 0.0;
        self.trajectory[lane] = index;
        self.recorded[lane] = 0;
        self.busy += 1;
    }

    /// Records the state at the grid times before `until`; says whether the trajectory goes on.
    fn record(&mut self, lane: usize, until: f64) -> bool {
        let ledger = self.ledger;
        let index = self.trajectory[lane];
        while self.next_time[lane] < until {
            ledger.record(index, self.recorded[lane], |species| {
                self.counts[species][lane]
            });
            self.recorded[lane] += 1;
            match ledger.job.times.get(self.recorded[lane]) {
                Some(&time) => self.next_time[lane] = time,
                None => {
                    if self.is_beyond_limit(lane) {
                        self.fail(lane, Reason::Events);
                    }
                    let fired = self.fired[lane] as u64;
                    self.ended += fired;
                    ledger.finish(index, fired, mem::take(&mut self.log[lane]));
                    self.busy -= 1;
                    return false;
                }
            }
        }
        true
    }

    fn fail(&mut self, lane: usize, reason: Reason) {
        let state = self.counts.iter().map(|row| row[lane]).collect();
        let (index, time) = (self.trajectory[lane], self.time[lane]);
        self.ledger.fail(index, time, state, reason);
    }

    fn is_busy(&self, lane: usize) -> bool {
        self.next_time[lane] < f64::INFINITY
    }

    /// Finds the propensity that is below 0, or no number, or makes the sum infinite.
    #[cold]
    #[inline(never)]
    fn blame_propensities<S: Simd>(&mut self, simd: S) {
        let plan = self.plan;
        let programs = plan.reaction.len() - plan.programs.len();
        for (index, program) in plan.programs.iter().enumerate() {
            program.run(simd, &self.constants, &self.counts, &mut self.stack);
            for lane in 0..Self::WIDTH {
                let value = self.stack[0][lane];
                if self.is_busy(lane) && !(0.0..f64::INFINITY).contains(&value) {
                    let reaction = plan.reaction[programs + index];
                    return self.fail(lane, Reason::Propensity { reaction, value });
                }
            }
        }
        for lane in 0..Self::WIDTH {
            let infinite = self.sums.iter().position(|sum| !sum[lane].is_finite());
            if let Some(position) = infinite {
                let (reaction, value) = (plan.reaction[position], self.sums[position][lane]);
                return self.fail(lane, Reason::Propensity { reaction, value });
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn blame_negative(&mut self, species: usize) {
        let counts = self.counts[species].values();
        if let Some(lane) = counts.iter().position(|&count| count < 0.0) {
            self.fail(lane, Reason::Negative { species });
        }
    }

    /// Takes some thousand events in every lane; says whether any lane is busy.
    #[simd]
    fn advance<S: Simd>(&mut self, simd: S) -> bool {
        let none = [mask64x8::splat(simd, false); G];
        let mut fires = vec![none; self.sums.len()];
        let mut left = (SLICE / (64 + self.sums.len())).max(1);
        while left > 0 && self.busy > 0 && !self.ledger.failed() {
            self.step(simd, &mut fires);
            left -= 1;
        }
        for lane in 0..Self::WIDTH {
            if self.is_busy(lane) && self.is_beyond_limit(lane) {
                self.fail(lane, Reason::Events);
            }
        }
        let fired = self.fired.values().iter().map(|&fired| fired as u64);
        let events = self.ended + fired.sum::<u64>();
        self.ledger.note(events - self.noted);
        self.noted = events;
        left == 0
    }

    fn is_beyond_limit(&self, lane: usize) -> bool {
        self.fired[lane] > self.ledger.job.max_events as f64
    }

    /// One event in every lane.
    #[inline(always)]
    fn step<S: Simd>(&mut self, simd: S, fires: &mut [[mask64x8<S>; G]]) {
        let (job, plan) = (self.ledger.job, self.plan);
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
        for g in 0..G {
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
            for lane in 0..Self::WIDTH {
                if self.next_time[lane] < until[lane] && !self.record(lane, until[lane]) {
                    self.refill(lane);
                    // Its first event is the next one.
                    (until[lane], drawn[lane]) = (self.time[lane], f64::INFINITY);
                }
            }
        }
        self.time = until;
        if self.ledger.logs {
            self.note_events(&drawn);
        }
        let drawn = of(simd, &drawn);
        let zero = f64x8::splat(simd, 0.0);
        let mut before = [mask64x8::splat(simd, false); G];
        for (sum, fires) in self.sums.iter().zip(&mut *fires) {
            let sum = of(simd, sum);
            let below: [_; G] = array::from_fn(|g| drawn[g].simd_lt(sum[g]));
            *fires = array::from_fn(|g| below[g] & !before[g]);
            before = below;
        }
        for (row, changes) in self.counts.iter_mut().zip(&plan.changes) {
            let mut x = of(simd, row);
            for &(position, by) in changes {
                let by = f64x8::splat(simd, by);
                let fires = &fires[position];
                for g in 0..G {
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
            for g in 0..G {
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
            let found = self.stack[0];
            let mut any = false;
            for (lane, &value) in found.values().iter().enumerate() {
                if self.is_busy(lane) && value != 0.0 && !value.is_nan() {
                    let index = self.trajectory[lane];
                    self.ledger.stop(index, self.time[lane]);
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

    fn note_events(&mut self, drawn: &Row<G>) {
        for lane in 0..Self::WIDTH {
            let position = self.sums.iter().position(|sum| drawn[lane] < sum[lane]);
            if let Some(position) = position {
                self.log[lane].push(Event::Reaction {
                    time: self.time[lane],
                    index: self.plan.reaction[position],
                });
            }
        }
    }

    /// Sums up the propensities one after the other; says whether one is below 0 or no number.
    #[inline(always)]
    fn sum_propensities<S: Simd>(&mut self, simd: S) -> bool {
        let plan = self.plan;
        let (constants, counts) = (&self.constants, &self.counts);
        let mut sum = [f64x8::splat(simd, 0.0); G];
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
                    for g in 0..G {
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
fn of<const G: usize, S: Simd>(simd: S, row: &Row<G>) -> [f64x8<S>; G] {
    array::from_fn(|g| load(simd, row, g))
}

/// The sum with one propensity more, which is kept in a row.
#[inline(always)]
fn with<const G: usize, S: Simd>(
    sum: [f64x8<S>; G],
    a: [f64x8<S>; G],
    row: &mut Row<G>,
) -> [f64x8<S>; G] {
    array::from_fn(|g| {
        let sum = sum[g] + a[g];
        store(row, g, sum);
        sum
    })
}

/// The next value of xoshiro256++ in the lanes of a register, as a number in [1, 2).
#[inline(always)]
fn from_one_to_two<const G: usize, S: Simd>(
    simd: S,
    random: &mut [[[u64; LANES]; G]; 4],
    g: usize,
) -> f64x8<S> {
    let [mut a, mut b, mut c, mut d]: [u64x8<S>; 4] =
        array::from_fn(|i| random[i][g].simd_into(simd));
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
        row[g] = value.into();
    }
    f64x8::from_bits((result >> 12) | 0x3ff0_0000_0000_0000)
}
