//! Rejection from bounds (Thanh, Priami & Zunino 2014): most events of a large network change no bound.
//!
//! * **Domain.** Networks of hundreds to hundreds of thousands of reactions, each of which shares species with few others.
//! * **Exactness.** Candidates come at the rate of the sum of the bounds; a candidate is taken in proportion to its
//!   propensity. That is the law of the direct method. Sums are made anew from what they sum, never updated by
//!   differences, so that nothing drifts and a reaction of propensity 0 never happens.
//! * **Cost.** Per candidate, a search among [`WIDTH`] values for each level of sums, and one propensity. Per count that
//!   leaves its interval, the bounds of the reactions that take the species, and the sums above them.
//!
//! ```text
//! lᵢ ≤ xᵢ ≤ uᵢ;  bⱼ = aⱼ(u);  B = Σ bⱼ
//! t ← t + e/B;  j ← the first with v B < b₁ + … + bⱼ;  r ← what v B is above b₁ + … + bⱼ₋₁
//! unless r < aⱼ(x): again
//! x ← x + νⱼ;  for each i with xᵢ < lᵢ or xᵢ > uᵢ: a new interval, and new bounds where i takes part
//! ```
//!
//! 1. The rest r of the drawn number decides on acceptance: it is uniform below bⱼ, in steps of 2⁻⁵² B.
//! 2. Small counts have intervals of one value, for most of their reactions lack a reactant now and then. Others have
//!    what is cheapest: the more reactions take a species, the wider ([`half_width`]).
//! 3. A reaction with up to two reactants is `c x y`, with a count of 1 in the place of a missing reactant. In the list of
//!    a species stands all that its bound needs, so that the list is read from start to end.
//! 4. A propensity that is a program, or has more reactants, has itself as its bound and is computed whenever a count in
//!    it changes.

use std::mem;

use fearless_simd::{Simd, f64x8, prelude::*};

use super::{
    network::{Network, Propensity},
    solo::{Engine, Trace},
};
use crate::{error::Reason, scalar::Real};

const LANES: usize = <f64 as Real>::LANES;
/// How many values one sum has below it.
const WIDTH: usize = VECTORS * LANES;
const VECTORS: usize = 2;
/// What a bound costs, relative to a candidate; and a move of an interval, relative to a bound.
const BOUND: f64 = 0.1;
const MOVE: f64 = 40.0;
/// Counts up to this one have intervals of one value, unless so many reactions take the species.
const SMALL: (f64, usize) = (10.0, 1000);

/// Lists of unequal lengths, one after the other.
struct Lists<T> {
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> Lists<T> {
    /// Sorts items, which come with the index of their list, into so many lists.
    fn new(lists: usize, items: &[(u32, T)]) -> Self {
        let mut starts = vec![0; lists + 1];
        for &(list, _) in items {
            starts[list as usize + 1] += 1;
        }
        for list in 0..lists {
            starts[list + 1] += starts[list];
        }
        let mut next = starts.clone();
        let mut sorted: Vec<T> = items.iter().map(|item| item.1).collect();
        for &(list, item) in items {
            let next = &mut next[list as usize];
            sorted[*next as usize] = item;
            *next += 1;
        }
        Self {
            starts,
            items: sorted,
        }
    }

    #[inline(always)]
    fn of(&self, index: usize) -> &[T] {
        &self.items[self.starts[index] as usize..self.starts[index + 1] as usize]
    }
}

/// `c x y`, or `c x (x - 1)` where both are one species.
#[derive(Clone, Copy)]
struct Pair {
    constant: u32,
    species: [u32; 2],
}

/// A reaction in the list of a species.
#[derive(Clone, Copy)]
struct Taker {
    reaction: u32,
    constant: u32,
    /// The species beside that of the list.
    other: u32,
}

/// A network as this engine reads it.
pub(super) struct Plan {
    species: usize,
    /// By reaction.
    pairs: Vec<Pair>,
    /// Reactions that are no pairs.
    specials: Vec<(u32, Propensity)>,
    changes: Lists<(u32, f64)>,
    /// By species, the pairs that take it.
    takers: Lists<Taker>,
    /// By species, the specials that see it.
    seers: Lists<u32>,
}

/// Marks a special reaction in [`Plan::pairs`].
const SPECIAL: u32 = u32::MAX;

impl Plan {
    pub(super) fn new(network: &Network) -> Self {
        let species = network.species;
        let (mut takers, mut seers, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pairs, mut specials) = (Vec::new(), Vec::new());
        for (index, reaction) in network.reactions.iter().enumerate() {
            let index = index as u32;
            for &(species, by) in &reaction.changes {
                changes.push((index, (species as u32, f64::from(by))));
            }
            // Two species that are not there have a count of 1.
            let (one, another) = (species as u32, species as u32 + 1);
            let ordinary = match &reaction.propensity {
                Propensity::MassAction {
                    constant,
                    reactants,
                } => match reactants[..] {
                    [] => Some((*constant, [one, another])),
                    [(a, 1)] => Some((*constant, [a as u32, one])),
                    [(a, 2)] => Some((*constant, [a as u32; 2])),
                    [(a, 1), (b, 1)] => Some((*constant, [a as u32, b as u32])),
                    _ => None,
                },
                Propensity::Program(_) => None,
            };
            if let Some((constant, both)) = ordinary {
                let constant = constant as u32;
                pairs.push(Pair {
                    constant,
                    species: both,
                });
                let [a, b] = both;
                for (a, other) in [(a, b), (b, a)].into_iter().take(1 + usize::from(a != b)) {
                    if a < one {
                        let reaction = index;
                        let taker = Taker {
                            reaction,
                            constant,
                            other,
                        };
                        takers.push((a, taker));
                    }
                }
                continue;
            }
            for species in reaction.propensity.species() {
                seers.push((species as u32, specials.len() as u32));
            }
            pairs.push(Pair {
                constant: 0,
                species: [SPECIAL; 2],
            });
            specials.push((index, reaction.propensity.clone()));
        }
        Self {
            species,
            changes: Lists::new(pairs.len(), &changes),
            takers: Lists::new(species, &takers),
            seers: Lists::new(species, &seers),
            pairs,
            specials,
        }
    }
}

/// A trajectory.
pub(super) struct Sparse<'a> {
    plan: &'a Plan,
    constants: Vec<f64>,
    /// x and u, with two counts of 1 at the end.
    counts: Vec<f64>,
    upper: Vec<f64>,
    /// l
    lower: Vec<f64>,
    /// bⱼ, the sums of each [`WIDTH`] of them, the sums of these, and so on up to [`WIDTH`] or fewer.
    bounds: Vec<Vec<f64>>,
    /// For each of these values, the sum of those before it in its block.
    starts: Vec<Vec<f64>>,
    /// How many values a level has, without the padding.
    sizes: Vec<usize>,
    /// Bits for the blocks whose sums are out of date, by level.
    stale: Vec<Vec<u64>>,
    total: f64,
    end: f64,
    stack: Vec<[f64; 8]>,
}

impl<'a> Sparse<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let zeros = |count| vec![0.0; count];
        let (mut bounds, mut sizes, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        let mut count = plan.pairs.len();
        loop {
            let blocks = count.div_ceil(WIDTH);
            bounds.push(zeros(blocks * WIDTH));
            sizes.push(count);
            stale.push(vec![0; blocks.div_ceil(64)]);
            if blocks <= 1 {
                break;
            }
            count = blocks;
        }
        Self {
            plan,
            constants: Vec::new(),
            counts: zeros(plan.species + 2),
            upper: zeros(plan.species + 2),
            lower: zeros(plan.species),
            starts: bounds.clone(),
            bounds,
            sizes,
            stale,
            total: 0.0,
            end: 0.0,
            stack: Vec::new(),
        }
    }

    #[inline(always)]
    fn set_bound(&mut self, reaction: usize, bound: f64) {
        let old = &mut self.bounds[0][reaction];
        if *old != bound {
            *old = bound;
            let block = reaction / WIDTH;
            self.stale[0][block / 64] |= 1 << (block % 64);
        }
    }

    /// Makes the sums anew that are out of date.
    #[inline(always)]
    fn add_up<S: Simd>(&mut self, simd: S) {
        for level in 0..self.bounds.len() {
            for word in 0..self.stale[level].len() {
                let mut bits = mem::take(&mut self.stale[level][word]);
                while bits != 0 {
                    let block = 64 * word + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let at = block * WIDTH..(block + 1) * WIDTH;
                    let values = &self.bounds[level][at.clone()];
                    let sum = add_up(simd, values, &mut self.starts[level][at]);
                    if level + 1 == self.bounds.len() {
                        self.total = sum;
                        return;
                    }
                    self.bounds[level + 1][block] = sum;
                    let above = block / WIDTH;
                    self.stale[level + 1][above / 64] |= 1 << (above % 64);
                }
            }
        }
    }

    /// Gives a species an interval about its count, and the reactions that take it their bounds.
    #[inline(always)]
    fn move_interval(&mut self, species: usize) {
        let x = self.counts[species];
        let half = half_width(x, self.plan.takers.of(species).len());
        self.lower[species] = x - half;
        let upper = x + half;
        self.upper[species] = upper;
        let plan = self.plan;
        for taker in plan.takers.of(species) {
            let (other, reaction) = (taker.other as usize, taker.reaction as usize);
            let other = if other == species {
                upper - 1.0
            } else {
                self.upper[other]
            };
            // Where a reactant is missing before and after, so is the bound.
            if other == 0.0 && self.bounds[0][reaction] == 0.0 {
                continue;
            }
            let bound = self.constants[taker.constant as usize] * upper * other;
            self.set_bound(reaction, bound);
        }
    }

    /// The bound of a special reaction is its propensity.
    #[inline(always)]
    fn renew<S: Simd>(&mut self, simd: S, index: usize, time: f64) -> Result<(), Reason> {
        let (reaction, propensity) = &self.plan.specials[index];
        let (reaction, constants, counts) = (*reaction as usize, &self.constants, &self.counts);
        let value = propensity.value(simd, constants, counts, time, &mut self.stack);
        if !(0.0..f64::INFINITY).contains(&value) {
            return Err(Reason::Propensity { reaction, value });
        }
        self.set_bound(reaction, value);
        Ok(())
    }

    /// The reaction at `drawn` among the bounds, and what is left of it; without branches, for none can be foreseen.
    ///
    /// Sums are rounded each in their own way, so that the last one drawn may be beyond all values, or a step before its
    /// start: it then has a rest that is not below it, or of 0.
    #[inline(always)]
    fn find<S: Simd>(&self, simd: S, mut drawn: f64) -> (usize, f64) {
        let mut at = 0;
        for (starts, &count) in self.starts.iter().zip(&self.sizes).rev() {
            let starts = &starts[at * WIDTH..(at + 1) * WIDTH];
            let mut reached = 0;
            for starts in starts.chunks_exact(LANES) {
                let reaches = f64x8::from_slice(simd, starts).simd_le(drawn);
                reached += reaches.to_bitmask().count_ones() as usize;
            }
            // The first starts at 0.
            let last = reached.saturating_sub(1);
            drawn = (drawn - starts[last]).max(0.0);
            at = (at * WIDTH + last).min(count - 1);
        }
        (at, drawn)
    }

    #[inline(always)]
    fn propensity(&self, reaction: usize) -> f64 {
        let Pair { constant, species } = self.plan.pairs[reaction];
        let [a, b] = species;
        if a == SPECIAL {
            return self.bounds[0][reaction];
        }
        let x = self.counts[a as usize];
        let y = self.counts[b as usize] - f64::from(u8::from(a == b));
        self.constants[constant as usize] * x * y
    }

    /// The propensity that makes the sum infinite.
    #[cold]
    fn blame(&self) -> Reason {
        let bounds = &self.bounds[0];
        let reaction = (0..self.plan.pairs.len()).find(|&j| !self.propensity(j).is_finite());
        let largest = || (0..bounds.len()).max_by(|&i, &j| bounds[i].total_cmp(&bounds[j]));
        Reason::Propensity {
            reaction: reaction.or_else(largest).unwrap_or(0),
            value: f64::INFINITY,
        }
    }
}

impl Engine for Sparse<'_> {
    type Next = usize;

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
        self.end = end;
        self.constants.clear();
        self.constants.extend_from_slice(constants);
        self.counts.fill(1.0);
        self.upper.fill(1.0);
        self.counts[..plan.species].copy_from_slice(counts);
        self.upper[..plan.species].copy_from_slice(counts);
        self.bounds.iter_mut().for_each(|values| values.fill(0.0));
        self.total = 0.0;
        for (index, pair) in plan.pairs.iter().enumerate() {
            if pair.species == [plan.species as u32, plan.species as u32 + 1] {
                self.set_bound(index, self.constants[pair.constant as usize]);
            }
        }
        for species in 0..plan.species {
            self.move_interval(species);
        }
        for index in 0..plan.specials.len() {
            self.renew(simd, index, trace.time)?;
        }
        Ok(())
    }

    fn counts(&self) -> &[f64] {
        &self.counts[..self.plan.species]
    }

    fn constants(&self) -> &[f64] {
        &self.constants
    }

    #[inline(always)]
    fn next<S: Simd>(&mut self, simd: S, trace: &mut Trace) -> Result<(f64, usize), Reason> {
        self.add_up(simd);
        if !self.total.is_finite() {
            return Err(self.blame());
        }
        let mut time = trace.time;
        if self.total > 0.0 {
            let mean = 1.0 / self.total;
            while time <= self.end {
                let (exponential, uniform) = trace.draws.pair(simd);
                time += exponential * mean;
                let (reaction, rest) = self.find(simd, uniform * self.total);
                if rest < self.bounds[0][reaction]
                    && rest < self.propensity(reaction)
                    && time <= self.end
                {
                    return Ok((time, reaction));
                }
            }
        }
        Ok((f64::INFINITY, 0))
    }

    #[inline(always)]
    fn carry_out<S: Simd>(
        &mut self,
        simd: S,
        time: f64,
        reaction: usize,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let plan = self.plan;
        trace.note_reaction(time, reaction);
        let changes = plan.changes.of(reaction);
        for &(species, by) in changes {
            let x = &mut self.counts[species as usize];
            *x += by;
            if *x < 0.0 {
                return Err(Reason::Negative {
                    species: species as usize,
                });
            }
        }
        for &(species, _) in changes {
            let species = species as usize;
            let x = self.counts[species];
            if x < self.lower[species] || x > self.upper[species] {
                self.move_interval(species);
            }
        }
        if !plan.specials.is_empty() {
            for &(species, _) in changes {
                for &index in plan.seers.of(species as usize) {
                    self.renew(simd, index as usize, time)?;
                }
            }
        }
        Ok(())
    }
}

/// How far the interval of a species reaches to each side of its count.
///
/// A count that moves by one at a time leaves an interval of half width h after about h² steps, which costs F bounds, one
/// for each taker, and the move itself, m; meanwhile a share h/x of the candidates is in vain. The sum is least where
/// h³ = 2 x b (F + m), with b the cost of a bound.
///
/// No interval joins counts at which a reaction lacks reactants (0 of them, or 1 of two) with others, or counts that are
/// more than threefold apart: however long such a count stays, candidates are not in vain for more than a bounded share.
fn half_width(x: f64, takers: usize) -> f64 {
    if x <= 2.0 || (x <= SMALL.0 && takers <= SMALL.1) {
        return 0.0;
    }
    let cube = 2.0 * BOUND * x * (takers as f64 + MOVE);
    // The system's cube root may be off; what is compared is exact.
    let root = cube.cbrt().round();
    let root = if root * root * root > cube {
        root - 1.0
    } else {
        root
    };
    root.min((x / 2.0).floor()).min(x - 2.0)
}

/// The sum of a block, and the sums of what is before each value in it.
#[inline(always)]
fn add_up<S: Simd>(simd: S, values: &[f64], starts: &mut [f64]) -> f64 {
    let zero = f64x8::splat(simd, 0.0);
    let mut sum = 0.0;
    for (values, starts) in values
        .chunks_exact(LANES)
        .zip(starts.chunks_exact_mut(LANES))
    {
        let mut sums = f64x8::from_slice(simd, values);
        sums += zero.slide::<7>(sums);
        sums += zero.slide::<6>(sums);
        sums += zero.slide::<4>(sums);
        (zero.slide::<7>(sums) + sum).store_slice(starts);
        sum += sums[LANES - 1];
    }
    sum
}
