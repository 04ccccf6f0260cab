//! n points on a circle: the shortest arc that holds k of them, and what rare events ask for.
//!
//! * **Angles** are fractions of a turn that wrap around as integers do: of 64 bits in the kernels "crowd" and "solo", of 32
//!   in the others. An arc is a hit exactly when the definition says so of these integers. What they stand for is off by at
//!   most n times their unit in the probability that all of uniform points lie in an arc.
//! * **The first point** is at 0: the circle is turned there. Uniform points save a draw by that.
//!
//! Four kernels share the work. Which one it is depends on the experiment and its thresholds alone.
//!
//! | kernel | for | cost |
//! |---|---|---|
//! | narrow | all n points in an arc of up to half a turn | the extremes of signed angles; stops when no lane is left: for uniform points some 10 draws, for any n |
//! | network | up to 1024 points | a sorting network, lanes are trials |
//! | crowd | all of more than 64 points in an arc, where that is rare | a mask of 64 buckets a lane; stops when no mask has a run of empty buckets that is long enough |
//! | solo | the rest | a trial at a time: the extremes of each of n buckets, or a sort for k < n |
//!
//! Let p₀ = 0 <= p₁ <= … be the sorted points. The shortest arc that holds all of them is the circle without its largest gap:
//!
//! ```text
//! min(pₙ₋₁, 2^b - max (pᵢ - pᵢ₋₁))
//! ```
//!
//! so more points at 0 change nothing: they fill a list up to the length of a network.

use fearless_simd::{Simd, i32x16, prelude::*, u32x16, u64x8};

use super::{
    density::{Density, Leaders},
    network::{LONGEST, sort},
    trials::{Scratch, Sink},
};
use crate::rng::{LANES, Lanes};

/// What is asked of the points.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Statistic {
    /// The shortest arc that holds so many of them.
    Arc(usize),
    /// How many gaps are larger than this; the one before the first point does not count.
    Lead(u64),
}

/// Where points fall.
#[derive(Clone, Copy)]
pub(super) enum Angles<'a> {
    Uniform,
    Density(&'a Density),
    /// Within θ of a first point.
    Leaders(&'a Leaders<'a>),
}

#[derive(Clone, Copy)]
enum Kernel {
    /// With the longest arc that is a hit.
    Narrow(u32),
    Network,
    Crowd(Crowd),
    Solo,
}

/// An experiment with points on a circle.
pub(super) struct Circle<'a> {
    n: usize,
    statistic: Statistic,
    angles: Angles<'a>,
    kernel: Kernel,
}

impl<'a> Circle<'a> {
    pub(super) fn new(
        n: usize,
        statistic: Statistic,
        angles: Angles<'a>,
        thresholds: &[u64],
    ) -> Self {
        let all = statistic == Statistic::Arc(n);
        let general = if n <= LONGEST {
            Kernel::Network
        } else {
            Kernel::Solo
        };
        let kernel = match (angles, thresholds) {
            (Angles::Leaders(_), _) => Kernel::Solo,
            (_, &[arc]) if all && arc < 1 << 63 => Kernel::Narrow((arc >> 32) as u32),
            (Angles::Uniform, &[arc]) if all && n > 64 => {
                Crowd::new(n, arc).map_or(general, Kernel::Crowd)
            }
            _ => general,
        };
        Self {
            n,
            statistic,
            angles,
            kernel,
        }
    }

    /// About how many points a trial draws.
    pub(super) fn points(&self) -> usize {
        match self.kernel {
            // A narrow density lets no trial end early.
            Kernel::Narrow(_) if matches!(self.angles, Angles::Uniform) => self.n.min(16),
            Kernel::Crowd(_) => self.n.min(256),
            Kernel::Narrow(_) | Kernel::Network | Kernel::Solo => self.n,
        }
    }

    pub(super) fn is_in_lanes(&self) -> bool {
        !matches!(self.kernel, Kernel::Solo)
    }

    /// Some trials, one after the other or in lanes.
    #[inline(always)]
    pub(super) fn block<S: Simd>(
        &self,
        simd: S,
        lanes: &mut Lanes<S>,
        scratch: &mut Scratch,
        trials: u64,
        sink: &mut Sink<'_>,
    ) {
        match (self.kernel, self.angles) {
            (Kernel::Crowd(crowd), _) => self.crowd(simd, lanes, &crowd, scratch, trials, sink),
            (Kernel::Solo, _) | (_, Angles::Leaders(_)) => {
                for _ in 0..trials {
                    self.draw(lanes, &mut scratch.points);
                    sink.take(self.number(scratch));
                }
            }
            (_, Angles::Uniform) => self.in_lanes(simd, Uniform(*lanes), trials, sink),
            (_, Angles::Density(density)) => {
                self.in_lanes(simd, Skewed(*lanes, density), trials, sink);
            }
        }
    }

    /// Sixteen trials at a time.
    #[inline(always)]
    fn in_lanes<S: Simd>(&self, simd: S, source: impl Source<S>, trials: u64, sink: &mut Sink<'_>) {
        let zero = u32x16::splat(simd, 0);
        match (self.kernel, self.n) {
            (Kernel::Narrow(arc), _) => self.narrow(simd, source, arc, trials, sink),
            (_, ..=4) => self.network(simd, source, &mut [zero; 4], trials, sink),
            (_, ..=8) => self.network(simd, source, &mut [zero; 8], trials, sink),
            (_, ..=16) => self.network(simd, source, &mut [zero; 16], trials, sink),
            (_, ..=32) => self.network(simd, source, &mut [zero; 32], trials, sink),
            (_, ..=64) => self.network(simd, source, &mut [zero; 64], trials, sink),
            (_, n) => {
                let mut points = vec![zero; n.next_power_of_two()];
                self.network(simd, source, &mut points, trials, sink);
            }
        }
    }

    #[inline(always)]
    fn narrow<S: Simd>(
        &self,
        simd: S,
        mut source: impl Source<S>,
        arc: u32,
        trials: u64,
        sink: &mut Sink<'_>,
    ) {
        let zero = i32x16::splat(simd, 0);
        let mut all = 0;
        for valid in groups(trials) {
            let first = source.first(simd);
            let (mut low, mut high) = (zero, zero);
            let mut left = self.n - 1;
            all += loop {
                let together = left.min(TOGETHER);
                for _ in 0..together {
                    let angle: i32x16<S> = (source.next(simd) - first).bitcast();
                    (low, high) = (low.min(angle), high.max(angle));
                }
                left -= together;
                let span: u32x16<S> = (high - low).bitcast();
                let hits = span.simd_le(arc).to_bitmask();
                if left == 0 || hits == 0 {
                    break ones(hits, valid);
                }
            };
        }
        sink.take_hits(all, trials);
    }

    #[inline(always)]
    fn network<S: Simd>(
        &self,
        simd: S,
        mut source: impl Source<S>,
        points: &mut [u32x16<S>],
        trials: u64,
        sink: &mut Sink<'_>,
    ) {
        let zeros = points.len() + 1 - self.n;
        for valid in groups(trials) {
            let first = source.first(simd);
            for (i, point) in points.iter_mut().enumerate() {
                *point = if i < zeros {
                    u32x16::splat(simd, 0)
                } else {
                    source.next(simd) - first
                };
            }
            sort(points);
            let number = match self.statistic {
                Statistic::Arc(k) if k == self.n => arc_of_all(points),
                Statistic::Arc(k) => arc_of(&points[zeros - 1..], k),
                Statistic::Lead(gap) => larger_gaps(simd, points, (gap >> 32) as u32),
            };
            sink.take_lanes(number, valid);
        }
    }

    /// Eight trials at a time, as far as the buckets tell; then those that may be hits again, point by point.
    #[inline(always)]
    fn crowd<S: Simd>(
        &self,
        simd: S,
        lanes: &mut Lanes<S>,
        crowd: &Crowd,
        scratch: &mut Scratch,
        trials: u64,
        sink: &mut Sink<'_>,
    ) {
        let mut left = trials;
        while left > 0 {
            let valid = left.min(LANES as u64);
            let before = *lanes;
            let possible = crowd.possible(simd, lanes, self.n);
            let mut hits = 0;
            for lane in (0..valid).filter(|lane| possible >> lane & 1 == 1) {
                let mut again = before;
                scratch.points.resize(self.n, 0);
                scratch.points[0] = 0;
                for point in &mut scratch.points[1..] {
                    *point = again.next_u64()[lane as usize];
                }
                hits |= u64::from(self.number(scratch) <= crowd.arc) << lane;
            }
            sink.take_hits(ones(hits, valid), valid);
            left -= valid;
        }
    }

    /// The points of a trial, the first at 0.
    #[inline(always)]
    fn draw<S: Simd>(&self, lanes: &mut Lanes<S>, points: &mut Vec<u64>) {
        lanes.fill(points, self.n);
        match self.angles {
            Angles::Uniform => points[0] = 0,
            Angles::Density(density) => {
                let first = density.angle(points[0]);
                for point in points.iter_mut() {
                    *point = density.angle(*point).wrapping_sub(first);
                }
            }
            Angles::Leaders(leaders) => leaders.place(points),
        }
    }

    /// What comes out for the points of a trial.
    fn number(&self, scratch: &mut Scratch) -> u64 {
        let Scratch {
            points, buckets, ..
        } = scratch;
        match self.statistic {
            Statistic::Arc(k) if k == self.n => arc_by_buckets(points, buckets),
            Statistic::Arc(k) => {
                points.sort_unstable();
                let inside = points[k - 1..]
                    .iter()
                    .zip(&*points)
                    .map(|(end, start)| end - start);
                let around = points[..k - 1].iter().zip(&points[self.n - k + 1..]);
                let around = around
                    .map(|(end, start)| end.wrapping_sub(*start).wrapping_sub(1).saturating_add(1));
                inside.chain(around).min().unwrap_or(0)
            }
            Statistic::Lead(gap) => {
                points.sort_unstable();
                let larger = points.windows(2).filter(|pair| pair[1] - pair[0] > gap);
                (larger.count() as u64) << 32
            }
        }
    }
}

/// Draws of the narrow kernel between two looks at whether any lane is left.
const TOGETHER: usize = 4;

/// How many of 16 lanes belong to trials, group after group.
fn groups(trials: u64) -> impl Iterator<Item = u64> {
    (0..trials)
        .step_by(16)
        .map(move |start| (trials - start).min(16))
}

/// How many of the first `valid` bits are set.
pub(super) fn ones(mask: u64, valid: u64) -> u64 {
    u64::from((mask & ((1 << valid) - 1)).count_ones())
}

/// Angles in 2⁻³² turns, one for each of 16 trials.
trait Source<S: Simd> {
    /// Where the circle is turned to.
    fn first(&mut self, simd: S) -> u32x16<S>;
    fn next(&mut self, simd: S) -> u32x16<S>;
}

// Lanes of its own stay in registers.
struct Uniform<S: Simd>(Lanes<S>);

impl<S: Simd> Source<S> for Uniform<S> {
    #[inline(always)]
    fn first(&mut self, simd: S) -> u32x16<S> {
        u32x16::splat(simd, 0)
    }

    #[inline(always)]
    fn next(&mut self, _: S) -> u32x16<S> {
        self.0.next_u64().bitcast()
    }
}

struct Skewed<'a, S: Simd>(Lanes<S>, &'a Density);

impl<S: Simd> Source<S> for Skewed<'_, S> {
    #[inline(always)]
    fn first(&mut self, simd: S) -> u32x16<S> {
        self.next(simd)
    }

    #[inline(always)]
    fn next(&mut self, simd: S) -> u32x16<S> {
        let mut turns: [u32; 16] = self.0.next_u64().bitcast::<u32x16<S>>().into();
        for turn in &mut turns {
            *turn = (self.1.angle(u64::from(*turn) << 32) >> 32) as u32;
        }
        turns.simd_into(simd)
    }
}

/// The shortest arc that holds all points, which are sorted, from 0 on.
#[inline(always)]
fn arc_of_all<S: Simd>(points: &[u32x16<S>]) -> u32x16<S> {
    let mut largest = points[0];
    for pair in points.windows(2) {
        largest = largest.max(pair[1] - pair[0]);
    }
    // The negative of an unsigned number, in a turn.
    (points[0] - largest).min(points[points.len() - 1])
}

/// The shortest arc that holds k of the points, which are sorted.
#[inline(always)]
fn arc_of<S: Simd>(points: &[u32x16<S>], k: usize) -> u32x16<S> {
    let n = points.len();
    let mut shortest = points[k - 1] - points[0];
    for (end, start) in points[k - 1..].iter().zip(points) {
        shortest = shortest.min(*end - *start);
    }
    // Around the end of the circle an arc is from 1 to 2³²: 1 less fits.
    for (end, start) in points[..k - 1].iter().zip(&points[n - k + 1..]) {
        shortest = shortest.min((*end - *start - 1).saturating_add(1));
    }
    shortest
}

/// How many gaps between the points, which are sorted, are larger than `gap`; in 2⁻³², as numbers of 2⁻⁶⁴ are told.
#[inline(always)]
fn larger_gaps<S: Simd>(simd: S, points: &[u32x16<S>], gap: u32) -> u32x16<S> {
    let mut count = u32x16::splat(simd, 0);
    for pair in points.windows(2) {
        let larger = (pair[1] - pair[0]).simd_gt(gap);
        count = larger.select(count + 1, count);
    }
    count
}

/// The shortest arc that holds all of more than a few points, one of them at 0.
///
/// The largest gap is at least as long as a bucket, so it lies between the points of different ones.
fn arc_by_buckets(points: &[u64], buckets: &mut Vec<[u64; 2]>) -> u64 {
    let bits = points.len().next_power_of_two().ilog2();
    buckets.clear();
    buckets.resize(1 << bits, [u64::MAX, 0]);
    for &point in points {
        let [low, high] = &mut buckets[(point >> (64 - bits)) as usize];
        (*low, *high) = (point.min(*low), point.max(*high));
    }
    let (mut largest, mut last) = (0, 0);
    for &[low, high] in &*buckets {
        // Without a branch: which buckets are empty cannot be foreseen.
        let gap = if low <= high { low - last } else { 0 };
        (largest, last) = (gap.max(largest), high.max(last));
    }
    last.min(largest.wrapping_neg())
}

/// The hits among many points, where they are rare: eight trials side by side.
#[derive(Clone, Copy)]
struct Crowd {
    /// The longest arc that is a hit.
    arc: u64,
    /// So many empty buckets of 64, side by side, are in the gap that it leaves.
    run: u32,
}

impl Crowd {
    /// Points drawn between two looks at the masks.
    const TOGETHER: usize = 8;

    /// `None` where the buckets would leave too much to do.
    fn new(n: usize, arc: u64) -> Option<Self> {
        let run = ((arc.wrapping_neg() >> 58) as u32).checked_sub(1)?;
        let possible = n as f64 * libm::pow(1.0 - f64::from(run) / 64.0, (n - 1) as f64);
        (run >= 3 && possible < 0.1).then_some(Self { arc, run })
    }

    /// The lanes whose points leave a run of empty buckets that is long enough.
    #[inline(always)]
    fn possible<S: Simd>(&self, simd: S, lanes: &mut Lanes<S>, n: usize) -> u64 {
        let one = u64x8::splat(simd, 1);
        let mut occupied = one;
        let mut left = n - 1;
        loop {
            for _ in 0..left.min(Self::TOGETHER) {
                occupied |= one << (lanes.next_u64() >> 58);
            }
            left -= left.min(Self::TOGETHER);
            let mut runs = !occupied;
            let mut length = 1;
            while length < self.run {
                let by = length.min(self.run - length);
                runs &= (runs << by) | (runs >> (64 - by));
                length += by;
            }
            let possible = runs.simd_ne(0).to_bitmask();
            if left == 0 || possible == 0 {
                return possible;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use fearless_simd::dispatch;
    use fearless_simd_macros::simd;

    use super::*;
    use crate::rng::Stream;

    /// Points that a test has chosen, one trial after the other; each is given to all lanes.
    struct Given<'a>(iter::Copied<std::slice::Iter<'a, u32>>);

    impl<S: Simd> Source<S> for Given<'_> {
        fn first(&mut self, simd: S) -> u32x16<S> {
            self.next(simd)
        }

        fn next(&mut self, simd: S) -> u32x16<S> {
            u32x16::splat(simd, self.0.next().unwrap())
        }
    }

    /// By the definition: the shortest of the arcs that begin at a point and hold k.
    fn shortest(points: &[u64], turn: u128, k: usize) -> u64 {
        let arc = |&start: &u64| {
            let after = |&point: &u64| (u128::from(point) + turn - u128::from(start)) % turn;
            let mut clockwise: Vec<u128> = points.iter().map(after).collect();
            clockwise.sort_unstable();
            clockwise[k - 1] as u64
        };
        points.iter().map(arc).min().unwrap()
    }

    /// Few places, so that ties, half turns and their neighbours are common.
    fn places(stream: &mut Stream, n: usize) -> Vec<u32> {
        let bits = stream.next_u64() % 4;
        let place = |bits: u64| match bits % 5 {
            0 => 1 << 31,
            1 => (1 << 31) - 1,
            2 => (1 << 31) + 1,
            _ => (bits >> 32) as u32,
        };
        (0..n)
            .map(|_| {
                let drawn = stream.next_u64();
                if bits < 2 {
                    (drawn >> 61) as u32 * 0x2000_0000
                } else {
                    place(drawn)
                }
            })
            .collect()
    }

    #[simd]
    fn in_lanes<S: Simd>(simd: S, circle: &Circle<'_>, points: &[u32], sink: &mut Sink<'_>) {
        circle.in_lanes(simd, Given(points.iter().copied()), 1, sink);
    }

    #[test]
    fn arcs_in_lanes_are_those_of_the_definition() {
        let mut stream = Stream::new(1, 0);
        for (_, level) in crate::simd::levels() {
            for n in (1..=20).chain([31, 32, 33, 64, 65, 200]) {
                for round in 0..60 {
                    let points = places(&mut stream, n);
                    let wide: Vec<u64> = points.iter().map(|&point| u64::from(point)).collect();
                    let k = [n, 1 + round % n][round % 2];
                    let circle = Circle::new(n, Statistic::Arc(k), Angles::Uniform, &[]);
                    let mut number = [0.0];
                    let sink = &mut Sink::Numbers {
                        numbers: &mut number,
                        at: 0,
                    };
                    dispatch!(level, simd => in_lanes(simd, &circle, &points, sink));
                    let expected = shortest(&wide, 1 << 32, k);
                    assert_eq!(number[0] * 2f64.powi(32), expected as f64, "{points:?} {k}");
                }
            }
        }
    }

    #[test]
    fn narrow_hits_are_those_of_the_definition_up_to_half_a_turn() {
        let mut stream = Stream::new(2, 0);
        let mut hits = 0;
        for (_, level) in crate::simd::levels() {
            for n in 1..=12 {
                for round in 0..200 {
                    let mut points = places(&mut stream, n);
                    if round % 2 == 0 {
                        points.iter_mut().for_each(|point| *point /= 2);
                    }
                    let wide: Vec<u64> = points.iter().map(|&point| u64::from(point)).collect();
                    let expected = shortest(&wide, 1 << 32, n);
                    for arc in [0, 5, expected.saturating_sub(1), expected, (1 << 31) - 1] {
                        let arc = arc.min((1 << 31) - 1);
                        let thresholds = &[arc << 32];
                        let circle = Circle::new(n, Statistic::Arc(n), Angles::Uniform, thresholds);
                        assert!(matches!(circle.kernel, Kernel::Narrow(_)));
                        let mut counts = [0, 0];
                        let sink = &mut Sink::Cells {
                            thresholds,
                            counts: &mut counts,
                        };
                        dispatch!(level, simd => in_lanes(simd, &circle, &points, sink));
                        assert_eq!(counts[0] == 1, expected <= arc, "{points:?} {arc}");
                        hits += counts[0];
                    }
                }
            }
        }
        assert!(hits > 1000);
    }

    #[test]
    fn arcs_of_many_points_are_those_of_the_definition() {
        let mut stream = Stream::new(3, 0);
        let mut scratch = Scratch::default();
        for round in 0..300 {
            let n = 65 + round % 70;
            let narrow = places(&mut stream, n);
            let mut points: Vec<u64> = narrow.iter().map(|&point| u64::from(point) << 32).collect();
            if round % 3 == 0 {
                points
                    .iter_mut()
                    .for_each(|point| *point = stream.next_u64());
            }
            points[0] = 0;
            for k in [n, 1 + round % n] {
                let circle = Circle::new(n, Statistic::Arc(k), Angles::Uniform, &[]);
                scratch.points.clone_from(&points);
                assert_eq!(circle.number(&mut scratch), shortest(&points, 1 << 64, k));
            }
        }
    }

    #[test]
    fn crowds_miss_no_hit() {
        // The kernel for rare hits beside the one for all, on points that are close together more often than chance has it.
        #[simd]
        fn possible<S: Simd>(simd: S, crowd: &Crowd, block: u64, n: usize) -> (u64, [Vec<u64>; 8]) {
            let mut lanes = Lanes::new(simd, 9, block);
            let mut again = lanes;
            let mut points: [Vec<u64>; 8] = std::array::from_fn(|_| vec![0]);
            for _ in 1..n {
                let drawn: [u64; 8] = again.next_u64().into();
                points
                    .iter_mut()
                    .zip(drawn)
                    .for_each(|(lane, point)| lane.push(point));
            }
            (crowd.possible(simd, &mut lanes, n), points)
        }
        let (mut hits, mut candidates) = (0, 0);
        for (_, level) in crate::simd::levels() {
            for block in 0..400 {
                let (n, arc) = (66, (0.93 * 2f64.powi(64)) as u64 - 1);
                // Asked for runs of the same length as `Crowd::new` asks for, which would leave this to another kernel.
                let crowd = Crowd {
                    arc,
                    run: (arc.wrapping_neg() >> 58) as u32 - 1,
                };
                let (possible, points) = dispatch!(level, simd => possible(simd, &crowd, block, n));
                for (lane, points) in points.iter().enumerate() {
                    let hit = arc_by_buckets(points, &mut Vec::new()) <= arc;
                    let candidate = possible >> lane & 1 == 1;
                    assert!(candidate || !hit);
                    hits += u32::from(hit);
                    candidates += u32::from(candidate);
                }
            }
        }
        assert!(hits > 100 && candidates < 100 * hits);
    }
}
