//! Trials in blocks, each with streams of its own; and when to stop.
//!
//! Block b has the eight streams of [`Lanes`] of (seed, b). What comes out of a block are integers that depend on the
//! experiment, the thresholds, the seed and b alone: the counts of a run are the same at any number of workers and any SIMD
//! level, and runs over ranges of blocks add up to the run over all of them.
//!
//! Stopping at a number of hits is inverse binomial sampling: the trials end with the one that makes the last hit, in the
//! order of blocks and of the trials in them, wherever the work was done. (hits - 1) / (trials - 1) is then unbiased (Haldane
//! 1945). Stopping by time is the only thing here that does not repeat.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use fearless_simd::{Simd, dispatch, prelude::*, u32x16};
use fearless_simd_macros::simd;

use super::{
    arcs::cover,
    caps::Caps,
    circle::{Angles, Circle, Statistic, ones},
    density::{Density, Leaders},
    sphere::Directions,
};
use crate::{error::Error, parallel::Run, rng::Lanes};

/// What is done in each trial; a number in 2⁻⁶⁴ comes out.
#[derive(Clone, Copy)]
pub enum Experiment<'a> {
    /// The length in turns of the shortest arc of the circle that holds `k` of `n` points.
    Arc {
        /// How many points.
        n: usize,
        /// How many of them the arc holds.
        k: usize,
        /// Their law, if they are not uniform.
        density: Option<&'a Density>,
    },
    /// The smallest cap that holds n uniform points of the unit sphere, as (1 - cos β)/2 for its angular radius β.
    Cap {
        /// How many points.
        n: usize,
        /// The dimension of the space.
        d: usize,
    },
    /// 0 if arcs at uniform places cover the circle, else the largest number.
    Cover {
        /// The length of each arc, in 2⁻⁶⁴ turns.
        lengths: &'a [u64],
    },
    /// Points of which one has all others within θ clockwise: how many others could be that one, times 2³².
    Lead {
        /// How many points.
        n: usize,
        /// θ in 2⁻⁶⁴ turns.
        theta: u64,
        /// Their law and its θ, if they are not uniform.
        density: Option<&'a Leaders<'a>>,
    },
}

impl Experiment<'_> {
    fn check(&self) -> Result<(), Error> {
        match *self {
            Self::Arc { n, k, .. } => {
                check_points(n)?;
                check("k", "from 1 to n", k as f64, (1..=n).contains(&k))
            }
            Self::Cap { n, d } => {
                check_points(n)?;
                check(
                    "d",
                    "from 2 to 16 for trials",
                    d as f64,
                    (2..=16).contains(&d),
                )
            }
            Self::Cover { lengths } => check_points(lengths.len()),
            Self::Lead { n, .. } => check_points(n),
        }
    }

    /// The numbers up to which a trial counts as a hit, for angles in radians that rise: arcs up to the angle, caps up to
    /// this angular radius. Where no angle belongs to the experiment, every number that can come out.
    fn thresholds(&self, angles: &[f64]) -> Vec<u64> {
        // An arc that is as long as the angle to the last bit is no hit: half a turn is then less than 2⁶³, and the extremes
        // of signed angles are told apart.
        let below = |share: f64| ((share * 2f64.powi(64)) as u64).saturating_sub(1);
        match *self {
            Self::Arc { .. } => angles.iter().map(|angle| below(angle / TURN)).collect(),
            Self::Cap { .. } => angles
                .iter()
                .map(|angle| below(libm::sin(angle / 2.0).powi(2)))
                .collect(),
            Self::Cover { .. } => vec![0],
            Self::Lead { n, theta, .. } => {
                let gaps = u64::MAX / theta.wrapping_neg().max(1);
                (0..gaps.min(n as u64).max(1))
                    .map(|others| others << 32)
                    .collect()
            }
        }
    }
}

/// θ of an experiment, in 2⁻⁶⁴ turns.
pub fn turns(theta: f64) -> u64 {
    (theta / TURN * 2f64.powi(64)) as u64
}

const TURN: f64 = 2.0 * std::f64::consts::PI;

/// Which trials, and how many.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// With the index of a block, its random numbers.
    pub seed: u64,
    /// The index of the first block.
    pub first_block: u64,
    /// At most so many blocks.
    pub blocks: u64,
    /// How many trials all blocks together have, from block 0 on.
    pub trials: u64,
    /// Stop with the trial that makes so many hits, at least 1: numbers up to the first threshold, or above it.
    pub hits: u64,
    /// Whether hits are the numbers above the first threshold.
    pub above: bool,
    /// Stop after so many seconds.
    pub seconds: f64,
}

impl Plan {
    fn hits_of(&self, counts: &[u64]) -> u64 {
        if self.above {
            counts[1..].iter().sum()
        } else {
            counts[0]
        }
    }
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All trials are done.
    Trials,
    /// The hits that were asked for.
    Hits,
    /// The time is up.
    Time,
}

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// How often the number lay at or below each threshold and above the one before, and how often above the last.
    pub counts: Vec<u64>,
    /// How many trials there were.
    pub trials: u64,
    /// Why there are not more.
    pub stopped: Stopped,
}

/// What is done so far, for those who wait.
#[derive(Debug, Default)]
pub struct Progress {
    /// Trials.
    pub trials: AtomicU64,
    /// Hits, as the plan says.
    pub hits: AtomicU64,
}

/// Work between two looks at the time, in seconds: long enough for all workers to have blocks, short enough to wait for.
const ROUND: f64 = 0.05;
/// Counts that a round may hold.
const COUNTS: usize = 1 << 20;

/// Counts the numbers of trials between thresholds: those of `angles`, which rise, in radians.
///
/// # Errors
/// [`Error::Domain`] for an experiment that cannot be done, [`Error::Interrupted`].
pub fn count(
    run: &mut Run<'_>,
    experiment: &Experiment<'_>,
    angles: &[f64],
    plan: &Plan,
    progress: &Progress,
) -> Result<Tally, Error> {
    let work = Work::new(*experiment, angles)?;
    let thresholds = &work.thresholds[..];
    let cells = thresholds.len() + 1;
    let begun = Instant::now();
    let mut tally = Tally {
        counts: vec![0; cells],
        trials: 0,
        stopped: Stopped::Trials,
    };
    let level = run.level;
    let count_block = |scratch: &mut Scratch, block: u64, trials: u64, counts: &mut [u64]| {
        counts.fill(0);
        let sink = &mut Sink::Cells { thresholds, counts };
        dispatch!(level, simd => work.block(simd, scratch, plan.seed, block, trials, sink));
    };
    let end = plan
        .first_block
        .saturating_add(plan.blocks)
        .min(plan.trials.div_ceil(work.trials));
    let mut round = run.workers.min(COUNTS / cells).max(1) as u64;
    let mut next = plan.first_block;
    while next < end {
        let started = Instant::now();
        let blocks = round.min(end - next);
        let mut counts = vec![0; blocks as usize * cells];
        run.each_chunk(
            &mut counts,
            cells,
            Scratch::default,
            |scratch, index, counts| {
                let block = next + index as u64;
                let trials = work.trials_of(block, plan.trials);
                count_block(scratch, block, trials, counts);
                progress.trials.fetch_add(trials, Relaxed);
                progress.hits.fetch_add(plan.hits_of(counts), Relaxed);
            },
        )?;
        for (block, counts) in (next..).zip(counts.chunks_exact_mut(cells)) {
            let mut trials = work.trials_of(block, plan.trials);
            let wanted = plan.hits - plan.hits_of(&tally.counts);
            if plan.hits_of(counts) >= wanted {
                // The first number of trials of this block that has as many.
                let (mut fewer, mut scratch) = (0, Scratch::default());
                while trials - fewer > 1 {
                    let middle = fewer + (trials - fewer) / 2;
                    count_block(&mut scratch, block, middle, counts);
                    if plan.hits_of(counts) >= wanted {
                        trials = middle;
                    } else {
                        fewer = middle;
                    }
                }
                count_block(&mut scratch, block, trials, counts);
                tally.stopped = Stopped::Hits;
            }
            tally.trials += trials;
            for (sum, count) in tally.counts.iter_mut().zip(counts) {
                *sum += *count;
            }
            if tally.stopped == Stopped::Hits {
                return Ok(tally);
            }
        }
        next += blocks;
        if !(run.watch)() {
            return Err(Error::Interrupted); // a round of one block did not ask
        }
        if next < end && begun.elapsed().as_secs_f64() >= plan.seconds {
            tally.stopped = Stopped::Time;
            return Ok(tally);
        }
        if started.elapsed().as_secs_f64() < ROUND && 2 * blocks as usize * cells <= COUNTS {
            round *= 2;
        }
    }
    Ok(tally)
}

/// Writes the number of each trial, as a fraction of 2⁶⁴.
///
/// # Errors
/// As [`count`].
pub fn sample(
    run: &mut Run<'_>,
    experiment: &Experiment<'_>,
    seed: u64,
    numbers: &mut [f64],
    progress: &Progress,
) -> Result<(), Error> {
    let work = Work::new(*experiment, &[])?;
    let level = run.level;
    run.each_chunk(
        numbers,
        work.trials as usize,
        Scratch::default,
        |scratch, index, numbers| {
            let trials = numbers.len() as u64;
            let sink = &mut Sink::Numbers { numbers, at: 0 };
            dispatch!(level, simd => work.block(simd, scratch, seed, index as u64, trials, sink));
            progress.trials.fetch_add(trials, Relaxed);
        },
    )
}

/// How many trials a block has.
///
/// # Errors
/// As [`count`].
pub fn trials_in_block(experiment: &Experiment<'_>, angles: &[f64]) -> Result<u64, Error> {
    Ok(Work::new(*experiment, angles)?.trials)
}

/// What a worker keeps from block to block.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) points: Vec<u64>,
    pub(super) buckets: Vec<[u64; 2]>,
    coordinates: Vec<f64>,
    order: Vec<(u64, u64)>,
    caps: Option<Caps>,
}

/// Where the numbers of a block go.
pub(super) enum Sink<'a> {
    /// Into counts between thresholds.
    Cells {
        thresholds: &'a [u64],
        counts: &'a mut [u64],
    },
    /// Into an array, from place `at` on.
    Numbers { numbers: &'a mut [f64], at: usize },
}

impl Sink<'_> {
    /// The first `valid` of 16 numbers in 2⁻³².
    #[inline(always)]
    pub(super) fn take_lanes<S: Simd>(&mut self, numbers: u32x16<S>, valid: u64) {
        if let Sink::Cells {
            thresholds: [threshold],
            ..
        } = self
        {
            let hits = numbers.simd_le((*threshold >> 32) as u32);
            self.take_hits(ones(hits.to_bitmask(), valid), valid);
        } else {
            let numbers: [u32; 16] = numbers.into();
            for number in &numbers[..valid as usize] {
                self.take(u64::from(*number) << 32);
            }
        }
    }

    /// So many trials hit the only threshold, of so many.
    pub(super) fn take_hits(&mut self, hits: u64, trials: u64) {
        if let Sink::Cells { counts, .. } = self {
            counts[0] += hits;
            counts[1] += trials - hits;
        }
    }

    /// A number in 2⁻⁶⁴.
    #[inline]
    pub(super) fn take(&mut self, number: u64) {
        match self {
            Sink::Cells { thresholds, counts } => {
                counts[thresholds.partition_point(|&threshold| threshold < number)] += 1;
            }
            Sink::Numbers { numbers, at } => {
                numbers[*at] = number as f64 * 2f64.powi(-64);
                *at += 1;
            }
        }
    }
}

/// An experiment with what is settled once for all blocks.
struct Work<'a> {
    experiment: Experiment<'a>,
    thresholds: Vec<u64>,
    circle: Option<Circle<'a>>,
    /// Where a cap with this cosine is small enough, and nothing else is asked.
    cosine: Option<f64>,
    /// In a block.
    trials: u64,
}

/// The most trials in a block, and about how many points it has.
const MOST_TRIALS: u64 = 1 << 16;
const POINTS: f64 = 1048576.0;
/// What a point of a cap costs, in those of a circle.
const CAP: f64 = 64.0;

impl<'a> Work<'a> {
    fn new(experiment: Experiment<'a>, angles: &[f64]) -> Result<Self, Error> {
        experiment.check()?;
        let mut work = Self {
            experiment,
            thresholds: experiment.thresholds(angles),
            circle: None,
            cosine: None,
            trials: 0,
        };
        let points = match experiment {
            Experiment::Arc { n, k, density } => {
                let angles = density.map_or(Angles::Uniform, Angles::Density);
                let circle = Circle::new(n, Statistic::Arc(k), angles, &work.thresholds);
                work.circle.insert(circle).points() as f64
            }
            Experiment::Lead { n, theta, density } => {
                let (unit, angles) = match density {
                    Some(leaders) => (u64::MAX, Angles::Leaders(leaders)),
                    None => (theta, Angles::Uniform),
                };
                let gap = (theta.wrapping_neg() as f64 / unit as f64 * 2f64.powi(64)) as u64;
                let circle = Circle::new(n, Statistic::Lead(gap), angles, &work.thresholds);
                work.circle.insert(circle).points() as f64
            }
            Experiment::Cap { n, d } => {
                if let [height] = work.thresholds[..] {
                    let cosine = 1.0 - height as f64 * 2f64.powi(-63);
                    work.cosine = Some(cosine).filter(|&cosine| cosine >= 0.0);
                }
                if work.cosine.is_some() {
                    CAP * n.min(4 * d) as f64
                } else if hull(n, d) <= HULL {
                    CAP * hull(n, d)
                } else {
                    return Err(Error::Unsupported {
                        argument: "n",
                        reason: "too many points for the smallest cap in so many dimensions",
                    });
                }
            }
            Experiment::Cover { lengths } => 8.0 * lengths.len() as f64,
        };
        let in_lanes = work.circle.as_ref().is_some_and(Circle::is_in_lanes);
        let least = if in_lanes { 16 } else { 1 };
        let most = (POINTS / points) as u64;
        work.trials = (1 << most.max(least).ilog2()).min(MOST_TRIALS);
        Ok(work)
    }

    /// How many trials of `all` belong to a block.
    fn trials_of(&self, block: u64, all: u64) -> u64 {
        self.trials.min(all - block * self.trials)
    }

    #[simd]
    fn block<S: Simd>(
        &self,
        simd: S,
        scratch: &mut Scratch,
        seed: u64,
        block: u64,
        trials: u64,
        sink: &mut Sink<'_>,
    ) {
        let mut lanes = Lanes::new(simd, seed, block);
        if let Some(circle) = &self.circle {
            return circle.block(simd, &mut lanes, scratch, trials, sink);
        }
        match self.experiment {
            Experiment::Cap { n, d } => self.caps(&mut lanes, scratch, n, d, trials, sink),
            Experiment::Cover { lengths } => {
                for _ in 0..trials {
                    lanes.fill(&mut scratch.points, lengths.len());
                    let covered = lengths.contains(&u64::MAX)
                        || cover(&scratch.points, lengths, &mut scratch.order);
                    sink.take(if covered { 0 } else { u64::MAX });
                }
            }
            Experiment::Arc { .. } | Experiment::Lead { .. } => {}
        }
    }

    #[inline(always)]
    fn caps<S: Simd>(
        &self,
        lanes: &mut Lanes<S>,
        scratch: &mut Scratch,
        n: usize,
        d: usize,
        trials: u64,
        sink: &mut Sink<'_>,
    ) {
        let caps = scratch.caps.get_or_insert_with(|| Caps::new(n, d));
        if n == 1 {
            // Its direction is off by rounding; the cap has no radius.
            return (0..trials).for_each(|_| sink.take(0));
        }
        let mut directions = Directions::new(lanes);
        scratch.coordinates.resize(n * d, 0.0);
        for _ in 0..trials {
            if let Some(cosine) = self.cosine {
                let point = &mut scratch.coordinates[..d];
                caps.begin();
                let mut left = n;
                while left > 0 {
                    directions.next(point);
                    if !caps.admits(point, cosine) {
                        break;
                    }
                    left -= 1;
                }
                sink.take(if left == 0 { 0 } else { u64::MAX });
                continue;
            }
            for point in scratch.coordinates.chunks_exact_mut(d) {
                directions.next(point);
            }
            let height = (1.0 - caps.cosine(&scratch.coordinates)) / 2.0;
            sink.take((height * 2f64.powi(64)) as u64);
        }
    }
}

/// A trial of as many takes some hundred milliseconds.
const MOST_POINTS: usize = 1 << 22;

/// Steps of a hull for which a trial takes less.
const HULL: f64 = 1e8;

/// Points times the most facets that their hull can have (McMullen 1970): those of a cyclic polytope.
fn hull(n: usize, d: usize) -> f64 {
    let (half, free) = (d / 2, n.saturating_sub(d.div_ceil(2)));
    let choose = |product: f64, i: usize| product * free.saturating_sub(i) as f64 / (i + 1) as f64;
    n as f64 * (2.0 * (0..half).fold(1.0, choose)).max(1.0)
}

fn check_points(n: usize) -> Result<(), Error> {
    let domain = "from 1 to 2**22 for trials";
    check("n", domain, n as f64, (1..=MOST_POINTS).contains(&n))
}

/// Refuses a value unless it is in its domain.
pub(super) fn check(
    argument: &'static str,
    domain: &'static str,
    value: f64,
    holds: bool,
) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Domain {
        argument,
        domain,
        value,
    })
}
