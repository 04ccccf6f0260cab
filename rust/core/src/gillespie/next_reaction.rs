//! A clock for each reaction (Gibson & Bruck 2000), in internal times (Anderson 2007): for rates that depend on time, and
//! for interventions.
//!
//! * **Domain.** Any network. Time in a rate may be compared with what does not depend on it (a switch, met exactly), or
//!   enter smoothly; a pulse that is neither, and shorter than about a five-hundredth of the run, can be missed.
//! * **Exactness.** Rates that depend on time are integrated to [`TOLERANCE`], relative; all else is exact, but for the
//!   rounding of times.
//! * **Cost.** Per event, the reactions that see a changed count: a propensity and a place on a heap each.
//!
//! ```text
//! each reaction has an exponential time e of its own; it happens when ∫ a(x, s) ds, since it happened last, reaches e
//! the reaction whose time τ is the least happens; for those that see a changed count:
//!     e ← e - ∫ a(x, s) ds until now;  τ ← where ∫ a(x', s) ds from now on reaches e
//! ```
//!
//! 1. A rate that does not depend on time, or only by switches, has the integral a (t - s) up to the next switch.
//! 2. Integrals go up to the next switch at most; there, all that depends on time is taken up anew, so that no integrand
//!    jumps. `t > c` comes true right after c: the next larger number is a switch, too.
//!    A rate that falls below 0 on the way ahead is an error only if its time is reached in the same state.
//! 3. Interventions are looked at whenever a count has changed, and at switches. What is triggered is carried out in the
//!    order of priorities, and may trigger others at the same time.

use fearless_simd::{Simd, f64x8, prelude::*};
use fearless_simd_macros::simd;

use super::{
    network::{Network, Propensity, Reaction},
    program::Program,
    solo::{Engine, Trace},
};
use crate::error::{Error, Reason};

/// The error that is allowed in an integral, relative to it.
const TOLERANCE: f64 = 1e-10;
/// Integrals take at least so many steps for the time of a run.
const STEPS: f64 = 64.0;
/// An assigned count is exact up to this one.
const LARGEST: f64 = (1u64 << 53) as f64;
/// Interventions at one time after which there is no hope for an end.
const ENDLESS: usize = 100_000;
/// An assigned count may be this far from a whole number, relative to it.
const NEARLY_WHOLE: f64 = 1e-9;

/// A network as this engine reads it.
pub(super) struct Plan<'a> {
    network: &'a Network,
    /// The reactions that depend on time, and whether one does between switches.
    timed: Vec<usize>,
    is_smooth: Vec<bool>,
    /// By species, the reactions that see it.
    seers: Vec<Vec<usize>>,
    /// What time is compared with.
    switches: Vec<Program>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(network: &'a Network, until: Option<&Program>) -> Result<Self, Error> {
        let mut plan = Self {
            network,
            timed: Vec::new(),
            is_smooth: vec![false; network.reactions.len()],
            seers: vec![Vec::new(); network.species],
            switches: Vec::new(),
        };
        for (index, reaction) in network.reactions.iter().enumerate() {
            if let Propensity::Program(program) = &reaction.propensity {
                plan.switches.extend(program.switches()?);
                if program.is_timed() {
                    plan.timed.push(index);
                    plan.is_smooth[index] = !program.is_timed_by_switches_alone();
                }
            }
            for species in reaction.propensity.species() {
                plan.seers[species].push(index);
            }
        }
        let triggers = (network.interventions.iter()).map(|intervention| &intervention.trigger);
        for program in triggers.chain(until) {
            plan.switches.extend(program.switches()?);
        }
        Ok(plan)
    }
}

/// A reaction's clock.
#[derive(Clone, Copy, Default)]
struct Clock {
    /// What was left of e at time `since`.
    left: f64,
    since: f64,
    /// The propensity since then, unless it changes by itself.
    rate: f64,
    /// What is wrong with the propensity when the clock rings.
    wrong: Option<Reason>,
}

/// What happens next.
#[derive(Clone, Copy)]
pub(super) enum Next {
    Reaction(usize),
    /// Time passes what it is compared with.
    Switch,
    /// A propensity goes wrong.
    Wrong(Reason),
}

/// An intervention that was triggered.
struct Pending {
    index: usize,
    /// What it sets, if that was settled when it was triggered.
    values: Option<Vec<f64>>,
}

/// A trajectory.
pub(super) struct NextReaction<'a> {
    plan: &'a Plan<'a>,
    constants: Vec<f64>,
    counts: Vec<f64>,
    clocks: Vec<Clock>,
    /// τ
    heap: Heap,
    end: f64,
    /// The next time that time is compared with.
    switch: f64,
    /// The last value of each trigger.
    was: Vec<bool>,
    stack: Vec<[f64; 8]>,
    /// The reactions whose clocks must be set again.
    concerned: Vec<usize>,
    is_concerned: Vec<bool>,
}

impl<'a> NextReaction<'a> {
    pub(super) fn new(plan: &'a Plan<'a>) -> Self {
        let reactions = plan.network.reactions.len();
        Self {
            plan,
            constants: Vec::new(),
            counts: Vec::new(),
            clocks: vec![Clock::default(); reactions],
            heap: Heap::new(reactions),
            end: 0.0,
            switch: f64::INFINITY,
            was: Vec::new(),
            stack: Vec::new(),
            concerned: Vec::with_capacity(reactions),
            is_concerned: vec![false; reactions],
        }
    }

    #[inline(always)]
    fn value<S: Simd>(&mut self, simd: S, program: &Program, time: f64) -> f64 {
        program.value(simd, &self.constants, &self.counts, time, &mut self.stack)
    }

    #[inline(always)]
    fn propensity<S: Simd>(&mut self, simd: S, index: usize, time: f64) -> Result<f64, Reason> {
        let propensity = &self.plan.network.reactions[index].propensity;
        let (constants, counts) = (&self.constants, &self.counts);
        let value = propensity.value(simd, constants, counts, time, &mut self.stack);
        if (0.0..f64::INFINITY).contains(&value) {
            return Ok(value);
        }
        let reaction = index;
        Err(Reason::Propensity { reaction, value })
    }

    /// Notes that a clock must be set again; says whether that is new.
    #[inline(always)]
    fn concern(&mut self, index: usize) -> bool {
        let is_new = !self.is_concerned[index];
        if is_new {
            self.is_concerned[index] = true;
            self.concerned.push(index);
        }
        is_new
    }

    /// Brings a clock up to now, before the counts change that it sees.
    #[inline(always)]
    fn settle<S: Simd>(&mut self, simd: S, index: usize, now: f64) -> Result<(), Reason> {
        if !self.concern(index) {
            return Ok(());
        }
        let Clock {
            left, since, rate, ..
        } = self.clocks[index];
        let passed = if self.plan.is_smooth[index] {
            self.integral(simd, index, since..now, left, f64::INFINITY)?
                .1
        } else {
            rate * (now - since)
        };
        self.clocks[index].left = (left - passed).max(0.0);
        self.clocks[index].since = now;
        Ok(())
    }

    #[inline(always)]
    fn settle_seers<S: Simd>(&mut self, simd: S, species: usize, now: f64) -> Result<(), Reason> {
        let plan = self.plan;
        for &index in &plan.seers[species] {
            self.settle(simd, index, now)?;
        }
        Ok(())
    }

    #[simd]
    fn settle_timed<S: Simd>(&mut self, simd: S, now: f64) -> Result<(), Reason> {
        let plan = self.plan;
        for &index in &plan.timed {
            self.settle(simd, index, now)?;
        }
        Ok(())
    }

    /// Sets the clocks that are concerned.
    #[inline(always)]
    fn set_clocks<S: Simd>(&mut self, simd: S, now: f64) -> Result<(), Reason> {
        let plan = self.plan;
        if !plan.switches.is_empty() {
            let mut switch = f64::INFINITY;
            for program in &plan.switches {
                let value = self.value(simd, program, now);
                let later = if value == now { value.next_up() } else { value };
                if later > now {
                    switch = switch.min(later);
                }
            }
            if switch != self.switch {
                self.settle_timed(simd, now)?;
                self.switch = switch;
            }
        }
        while let Some(index) = self.concerned.pop() {
            self.is_concerned[index] = false;
            let left = self.clocks[index].left;
            self.clocks[index].wrong = None;
            let time = if plan.is_smooth[index] {
                let span = now..self.switch.min(self.end);
                self.integral(simd, index, span, left, left)?.0
            } else {
                let rate = self.propensity(simd, index, now)?;
                self.clocks[index].rate = rate;
                if rate > 0.0 {
                    now + left / rate
                } else {
                    f64::INFINITY
                }
            };
            self.heap.set(index, time);
        }
        Ok(())
    }

    /// When the integral of a propensity reaches `target`, infinite where it does not, and the integral over the span;
    /// `scale` is what the error is relative to. With a finite target it looks ahead: the time may be that at which the
    /// propensity goes wrong, and the clock knows.
    #[simd]
    fn integral<S: Simd>(
        &mut self,
        simd: S,
        index: usize,
        span: std::ops::Range<f64>,
        scale: f64,
        target: f64,
    ) -> Result<(f64, f64), Reason> {
        let (mut start, mut sum, mut step) = (span.start, 0.0, span.end - span.start);
        let longest = self.end / STEPS;
        step = step.min(longest);
        if target < f64::INFINITY {
            // About as far as it takes, unless the rate falls.
            let rate = self.propensity(simd, index, start).unwrap_or(0.0);
            step = step.min(1.5 * target / rate);
        }
        while start < span.end {
            let last = step >= span.end - start;
            let end = if last { span.end } else { start + step };
            let found = self.rule(simd, index, start, end);
            let (part, error) = match found {
                Err(reason) if target == f64::INFINITY => return Err(reason),
                Err(_) => (0.0, f64::INFINITY),
                Ok(found) => found,
            };
            let allowed = TOLERANCE * f64::max(scale, part);
            if error > allowed && step > 1e-12 * end.abs() {
                step = 0.5 * (end - start);
                continue;
            }
            if let Err(reason) = found {
                self.clocks[index].wrong = Some(reason);
                return Ok((start, sum));
            }
            if sum + part >= target {
                let time = self.inverse(simd, index, start..end, target - sum, allowed)?;
                return Ok((time, target));
            }
            sum += part;
            start = end;
            step = longest.min(2.0 * step);
        }
        Ok((f64::INFINITY, sum))
    }

    /// Where the integral from the start of a span reaches `target`, which it does inside the span.
    #[inline(always)]
    fn inverse<S: Simd>(
        &mut self,
        simd: S,
        index: usize,
        span: std::ops::Range<f64>,
        target: f64,
        allowed: f64,
    ) -> Result<f64, Reason> {
        let (mut low, mut high) = (span.start, span.end);
        let mut time = 0.5 * (low + high);
        while low < time && time < high {
            let off = self.rule(simd, index, span.start, time)?.0 - target;
            if off.abs() <= allowed {
                break;
            }
            if off < 0.0 {
                low = time;
            } else {
                high = time;
            }
            let newton = time - off / self.propensity(simd, index, time)?;
            let inside = low < newton && newton < high;
            time = if inside { newton } else { 0.5 * (low + high) };
        }
        Ok(time)
    }

    /// The integral by the 15 points of Kronrod, and how far that by the 7 of Gauss among them is from it.
    #[inline(always)]
    fn rule<S: Simd>(
        &mut self,
        simd: S,
        index: usize,
        start: f64,
        end: f64,
    ) -> Result<(f64, f64), Reason> {
        let (middle, half) = (0.5 * (start + end), 0.5 * (end - start));
        let away = f64x8::from_slice(simd, &NODES) * half;
        let mut both = f64x8::splat(simd, 0.0);
        if let Propensity::Program(program) = &self.plan.network.reactions[index].propensity {
            for times in [middle - away, middle + away] {
                let (constants, counts) = (&self.constants, &self.counts);
                let values = program.values(simd, constants, counts, times, &mut self.stack);
                if !(values.simd_ge(0.0) & values.simd_lt(f64::INFINITY)).all_true() {
                    let values: [f64; 8] = values.into();
                    let bad = values
                        .into_iter()
                        .find(|a| !(0.0..f64::INFINITY).contains(a));
                    return Err(Reason::Propensity {
                        reaction: index,
                        value: bad.unwrap_or(f64::NAN),
                    });
                }
                both += values;
            }
        }
        let [kronrod, gauss] = [weighted(simd, both, &KRONROD), weighted(simd, both, &GAUSS)];
        let (kronrod, gauss) = (half * kronrod, half * gauss);
        Ok((kronrod, (kronrod - gauss).abs()))
    }

    /// Carries out what is triggered.
    #[simd]
    fn intervene<S: Simd>(&mut self, simd: S, now: f64, trace: &mut Trace) -> Result<(), Reason> {
        let interventions = &self.plan.network.interventions;
        let mut pending: Vec<Pending> = Vec::new();
        for _ in 0..ENDLESS {
            for (index, intervention) in interventions.iter().enumerate() {
                let value = self.value(simd, &intervention.trigger, now);
                let holds = value != 0.0 && !value.is_nan();
                if holds && !self.was[index] {
                    let mut values = None;
                    if intervention.values_when_triggered {
                        values = Some(self.assigned(simd, index, now));
                    }
                    pending.push(Pending { index, values });
                }
                if !holds && !intervention.persistent {
                    pending.retain(|pending| pending.index != index);
                }
                self.was[index] = holds;
            }
            let Some(chosen) = self.choose(simd, &pending, now, trace) else {
                return Ok(());
            };
            let Pending { index, values } = pending.remove(chosen);
            let values = match values {
                Some(values) => values,
                None => self.assigned(simd, index, now),
            };
            self.assign(simd, index, &values, now, trace)?;
        }
        Err(Reason::Endless)
    }

    /// What an intervention would set now.
    #[inline(always)]
    fn assigned<S: Simd>(&mut self, simd: S, index: usize, now: f64) -> Vec<f64> {
        let mut values = Vec::new();
        for assignment in &self.plan.network.interventions[index].assignments {
            values.push(self.value(simd, &assignment.value, now));
        }
        values
    }

    /// The place of the one that comes first.
    #[inline(always)]
    fn choose<S: Simd>(
        &mut self,
        simd: S,
        pending: &[Pending],
        now: f64,
        trace: &mut Trace,
    ) -> Option<usize> {
        let (mut first, mut highest) = (Vec::new(), f64::NEG_INFINITY);
        for (place, pending) in pending.iter().enumerate() {
            let priority = &self.plan.network.interventions[pending.index].priority;
            let priority = match priority {
                Some(program) => self.value(simd, program, now),
                None => f64::NEG_INFINITY,
            };
            if priority > highest {
                highest = priority;
                first.clear();
            }
            if priority >= highest {
                first.push(place);
            }
        }
        match first[..] {
            [] => (!pending.is_empty()).then_some(0),
            [only] => Some(only),
            _ => {
                let (_, uniform) = trace.draws.pair(simd);
                Some(first[(uniform * first.len() as f64) as usize])
            }
        }
    }

    #[inline(always)]
    fn assign<S: Simd>(
        &mut self,
        simd: S,
        index: usize,
        values: &[f64],
        now: f64,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let network = self.plan.network;
        let assignments = &network.interventions[index].assignments;
        for assignment in assignments {
            self.settle_seers(simd, assignment.species, now)?;
        }
        let before = self.counts.clone();
        for (assignment, &value) in assignments.iter().zip(values) {
            let species = assignment.species;
            let is_count = species < network.species - network.variables;
            let whole = value.round();
            let off = (value - whole).abs() > NEARLY_WHOLE * value.abs().max(1.0);
            if !value.is_finite() || (is_count && (off || whole > LARGEST)) {
                return Err(Reason::Fraction { species, value });
            }
            self.counts[species] = if is_count { whole } else { value };
            if is_count && whole < 0.0 {
                return Err(Reason::Negative { species });
            }
        }
        let counts = &self.counts;
        trace.note_intervention(now, index, || {
            counts.iter().zip(&before).map(|(x, y)| x - y).collect()
        });
        Ok(())
    }
}

impl Engine for NextReaction<'_> {
    type Next = Next;

    #[inline(always)]
    fn start<S: Simd>(
        &mut self,
        simd: S,
        constants: &[f64],
        counts: &[f64],
        end: f64,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let plan = self.plan;
        constants.clone_into(&mut self.constants);
        counts.clone_into(&mut self.counts);
        self.end = end;
        self.switch = f64::INFINITY;
        self.was.clear();
        self.was
            .extend(plan.network.interventions.iter().map(|i| i.was));
        self.concerned.clear();
        self.is_concerned.fill(true);
        for (index, clock) in self.clocks.iter_mut().enumerate() {
            *clock = Clock {
                left: trace.draws.pair(simd).0,
                ..Clock::default()
            };
            self.concerned.push(index);
        }
        self.intervene(simd, 0.0, trace)?;
        self.set_clocks(simd, 0.0)
    }

    fn counts(&self) -> &[f64] {
        &self.counts
    }

    fn constants(&self) -> &[f64] {
        &self.constants
    }

    #[inline(always)]
    fn next<S: Simd>(&mut self, _: S, _: &mut Trace) -> Result<(f64, Next), Reason> {
        let (time, index) = self.heap.first();
        if self.switch <= time && self.switch <= self.end {
            Ok((self.switch, Next::Switch))
        } else if time <= self.end {
            let wrong = self.clocks[index].wrong;
            Ok((time, wrong.map_or(Next::Reaction(index), Next::Wrong)))
        } else {
            Ok((f64::INFINITY, Next::Switch))
        }
    }

    #[inline(always)]
    fn carry_out<S: Simd>(
        &mut self,
        simd: S,
        now: f64,
        next: Next,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let plan = self.plan;
        match next {
            Next::Wrong(reason) => return Err(reason),
            Next::Switch => self.settle_timed(simd, now)?,
            Next::Reaction(index) => {
                trace.note_reaction(now, index);
                let Reaction { changes, .. } = &plan.network.reactions[index];
                self.concern(index);
                self.clocks[index] = Clock {
                    left: trace.draws.pair(simd).0,
                    since: now,
                    ..Clock::default()
                };
                for &(species, _) in changes {
                    self.settle_seers(simd, species, now)?;
                }
                for &(species, by) in changes {
                    self.counts[species] += f64::from(by);
                    if self.counts[species] < 0.0 {
                        return Err(Reason::Negative { species });
                    }
                }
            }
        }
        if !plan.network.interventions.is_empty() {
            self.intervene(simd, now, trace)?;
        }
        self.set_clocks(simd, now)
    }
}

/// The sum of values, weighted.
#[inline(always)]
fn weighted<S: Simd>(simd: S, values: f64x8<S>, weights: &[f64; 8]) -> f64 {
    let terms: [f64; 8] = (values * f64x8::from_slice(simd, weights)).into();
    terms.iter().sum()
}

/// Times, of which the first can be found and any can be set.
struct Heap {
    times: Vec<f64>,
    /// Indices of times, none of which comes before the one at half its place.
    order: Vec<u32>,
    place: Vec<u32>,
}

impl Heap {
    fn new(size: usize) -> Self {
        let indices = || (0..size as u32).collect();
        Self {
            times: vec![f64::INFINITY; size],
            order: indices(),
            place: indices(),
        }
    }

    #[inline(always)]
    fn first(&self) -> (f64, usize) {
        match self.order.first() {
            Some(&index) => (self.times[index as usize], index as usize),
            None => (f64::INFINITY, 0),
        }
    }

    #[inline(always)]
    fn set(&mut self, index: usize, time: f64) {
        self.times[index] = time;
        let mut at = self.place[index] as usize;
        while at > 0 && self.is_before(at, (at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.order.len() && self.is_before(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    #[inline(always)]
    fn is_before(&self, a: usize, b: usize) -> bool {
        // Of equal times the first index comes first, whatever was on the heap before.
        let [a, b] = [a, b].map(|place| self.order[place]);
        (self.times[a as usize], a) < (self.times[b as usize], b)
    }

    #[inline(always)]
    fn swap(&mut self, a: usize, b: usize) {
        self.order.swap(a, b);
        self.place[self.order[a] as usize] = a as u32;
        self.place[self.order[b] as usize] = b as u32;
    }
}

/// The nodes that are not negative (Piessens et al., QUADPACK, 1983). The last counts twice.
const NODES: [f64; 8] = [
    0.991_455_371_120_812_6,
    0.949_107_912_342_758_5,
    0.864_864_423_359_769_1,
    0.741_531_185_599_394_4,
    0.586_087_235_467_691_1,
    0.405_845_151_377_397_2,
    0.207_784_955_007_898_47,
    0.0,
];
/// Their weights.
const KRONROD: [f64; 8] = [
    0.022_935_322_010_529_224,
    0.063_092_092_629_978_55,
    0.104_790_010_322_250_18,
    0.140_653_259_715_525_92,
    0.169_004_726_639_267_9,
    0.190_350_578_064_785_4,
    0.204_432_940_075_298_9,
    0.209_482_141_084_727_82 / 2.0,
];
/// Their weights in Gauss's rule, which has no node where this is 0.
const GAUSS: [f64; 8] = [
    0.0,
    0.129_484_966_168_869_7,
    0.0,
    0.279_705_391_489_276_64,
    0.0,
    0.381_830_050_505_118_9,
    0.0,
    0.417_959_183_673_469_4 / 2.0,
];
