//! The projection: `p = min(u, [x - t]₊/T)`, `Σ p = total`.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    BoundedRow, Upper, again,
    bounds::{Bounds, Caps, Own, OwnRows, Same, with_bounds},
    less_rounding,
};
use crate::{
    batch::{of_chunks, write_chunks},
    error::Error,
    maps::{
        power::Pair,
        threshold::{Position, filter},
        tile,
    },
    parallel::Run,
    scalar::Real,
    simd::{Sum, load_padded, store_part, whole_stripes},
};

/// `p = min(u, [x - t]₊/T)`, `Σ p = total`.
#[derive(Clone, Copy)]
struct Capped<T> {
    total: T,
    inverse: T,
    temperature: T,
}

/// Rows of at most this many values go a lane each, whole.
pub(super) const TILED: usize = 64;

/// Rows of at most this many values go a lane each, once they are filtered.
const GROUPED: usize = 512;

/// How many values of a row of n are looked at first: whole stripes, and at least one.
fn sample_len(n: usize) -> usize {
    let len = if n < 512 {
        n / 4
    } else {
        (n / 32).clamp(128, 4096)
    };
    (len & !15).max(16)
}

/// How far Σ p may be from the total, relatively, before the terms are exact.
const ROUGH: f64 = 1.0 / 128.0;

/// Steps before the terms are exact.
const ROUGH_STEPS: usize = 12;

/// The search takes about three steps then; this bounds it, where the scores differ by hundreds of powers of two.
const MOST_STEPS: usize = 10_000;

impl<T: Real> Capped<T> {
    fn new(total: f64, temperature: f64) -> Self {
        // A distance of total · T has to show its digits; below, no result changes.
        let least = T::MIN_POSITIVE.to_f64();
        let temperature = temperature.max(least).max(least / total);
        Self {
            total: T::from_f64(total),
            inverse: T::from_f64(1.0 / temperature),
            temperature: T::from_f64(temperature),
        }
    }

    /// What counts as no distance of Σ p from the total.
    fn tolerance(self) -> T {
        T::TWO * T::EPSILON * self.total
    }

    /// p, and 1 where it lies between its bounds. A NaN stays.
    #[inline(always)]
    fn terms<S: Simd>(
        self,
        t: &Pair<T, S>,
        x: T::Stripe<S>,
        u: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let d = t.below(x) * self.inverse;
        let (out, full) = (d.simd_le(zero), d.simd_ge(u));
        let p = full.select(u, out.select(zero, d));
        (p, (out | full).select(zero, one))
    }

    /// `(Σ p, the number between bounds)` over columns of a tile, or over stripes of one row, which are then folded.
    #[inline(always)]
    fn sums<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        t: &Pair<T, S>,
        x: &[T],
        bounds: B,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut sum = Sum::<T, S>::new(simd);
        let mut count = zero;
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (g, group) in x.chunks(group).enumerate() {
            let mut partial = zero;
            for (i, stripe) in group.chunks_exact(T::LANES).enumerate() {
                let x = T::Stripe::<S>::from_slice(simd, stripe);
                let start = (g * Sum::<T, S>::GROUP + i) * T::LANES;
                let (p, free) = self.terms(t, x, bounds.stripe(simd, start));
                partial += p;
                count += free;
            }
            sum.add(partial);
        }
        if FOLD {
            let sum = T::Stripe::<S>::splat(simd, sum.total());
            (sum, T::Stripe::<S>::splat(simd, T::fold_sum(count)))
        } else {
            (sum.lanes(), count)
        }
    }

    /// Σ p over columns of a tile, or over stripes of one row, within their rounding; a NaN may not show.
    #[inline(always)]
    fn rough_sum<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        t: &Pair<T, S>,
        x: &[T],
        bounds: B,
    ) -> T::Stripe<S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut sum = zero;
        for (i, stripe) in x.chunks_exact(T::LANES).enumerate() {
            let d = t.below(T::Stripe::<S>::from_slice(simd, stripe)) * self.inverse;
            sum += d.max(zero).min(bounds.stripe(simd, i * T::LANES));
        }
        if FOLD {
            T::Stripe::<S>::splat(simd, T::fold_sum(sum))
        } else {
            sum
        }
    }

    /// Narrows an interval by regula falsi until Σ p is the total within a tolerance, in every lane or of one row; with
    /// how far it was off.
    ///
    /// A position is a distance from a score here, so that a step is a single addition.
    #[inline(always)]
    fn approach<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        interval: Interval<T, S>,
        (total, tolerance): (T::Stripe<S>, T::Stripe<S>),
    ) -> (Interval<T, S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let base = interval.at.high;
        let mut low = (interval.low.high - base) + interval.low.low;
        let mut high = (interval.high.high - base) + interval.high.low;
        let mut at = interval.at.low;
        let mut ends = Ends::of(&interval);
        let mut off = zero;
        let mut reach = total * self.temperature;
        let mut open = interval.open;
        for step in 0..ROUGH_STEPS {
            let t = Pair {
                high: base,
                low: at,
            };
            let now = self.rough_sum::<S, B, FOLD>(simd, &t, x, bounds) - total;
            let was_open = open.simd_gt(zero);
            off = was_open.select(now, off);
            let going = was_open & now.abs().simd_gt(tolerance);
            open = going.select(one, zero);
            if !going.any_true() {
                break;
            }
            let (rises, falls) = ends.take(going, now);
            low = rises.select(at, low);
            high = falls.select(at, high);

            let known = ends.low_off.simd_lt(T::INFINITY);
            let width = (high - low).min(one * (T::MAX * T::HALF));
            let share = if step % 4 == 3 {
                one * T::HALF
            } else {
                ends.share()
            };
            let down = at - reach.min(width);
            reach = known.select(reach, reach * T::from_f64(4.0));
            let next = known.select(low + width * share, down);
            at = going.select(next, at);
        }
        // The ends, apart from where rounding may have put them.
        let most = most_of::<T, S, B>(simd, x.len(), bounds);
        let most = if FOLD { one * T::fold_max(most) } else { most };
        let rounding = most * (self.temperature * T::EPSILON * T::from_f64(8.0));
        let (low_rounding, high_rounding) = (
            rounding + low.abs() * (T::EPSILON * T::from_f64(8.0)),
            rounding + high.abs() * (T::EPSILON * T::from_f64(8.0)),
        );
        let base = Pair::new(base);
        let narrowed = Interval {
            low: choose(
                ends.low_off.simd_lt(interval.low_off),
                base.add(low - low_rounding),
                interval.low,
            ),
            high: choose(
                high.simd_lt(interval.high.high - base.high),
                base.add(high + high_rounding),
                interval.high,
            ),
            low_off: ends.low_off,
            high_off: ends.high_off,
            at: base.add(at),
            open: interval.open,
        };
        (narrowed, off)
    }

    /// The position where Σ p is the total within the tolerance, in every lane that is open, or of one row.
    #[inline(always)]
    fn search<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        interval: Interval<T, S>,
        (total, tolerance): (T::Stripe<S>, T::Stripe<S>),
    ) -> Solution<T, S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        let mut ends = Ends::of(&interval);
        let Interval {
            mut low,
            mut high,
            mut at,
            mut open,
            ..
        } = interval;
        let mut off = infinity;
        let mut reach = total * self.temperature;
        for step in 0..MOST_STEPS {
            let (sum, free) = self.sums::<S, B, FOLD>(simd, &at, x, bounds);
            let now = sum - total;
            let was_open = open.simd_gt(zero);
            let halved = now.abs().simd_le(off.abs() * T::HALF);
            off = if step == 0 {
                now
            } else {
                was_open.select(now, off)
            };
            let going = was_open & now.abs().simd_gt(tolerance); // a NaN ends it
            if !going.any_true() {
                break;
            }
            let (rises, falls) = ends.take(going, now);
            low = choose(rises, at, low);
            high = choose(falls, at, high);

            let width = (high.high - low.high) + (high.low - low.low);
            let width = width.min(one * (T::MAX * T::HALF));
            let newton = now * self.temperature / free;
            let known = ends.low_off.simd_lt(infinity);
            let share = ends.share();
            let below = now.simd_gt(zero);
            let falsi = below.select(width * share, zero - width * (one - share));
            let middle = below.select(width * T::HALF, zero - width * T::HALF);
            let between = if step % 4 == 3 { middle } else { falsi };
            let by = (halved & newton.abs().simd_lt(width)).select(newton, between);
            let down = zero - reach.min(newton.abs()).min(width);
            reach = known.select(reach, reach * T::from_f64(4.0));
            let next = at.add(known.select(by, down));
            // Where nothing moves, halve; where that moves nothing either, the ends have met.
            let halfway = at.add(middle);
            let stays = equal(next, at);
            let next = choose(stays, halfway, next);
            let moves = going & !(stays & equal(halfway, at));
            open = moves.select(one, zero);
            at = choose(moves, next, at);
        }
        Solution { at, off }
    }

    /// The position where Σ p is the total, in every lane that is open, or of one row.
    #[inline(always)]
    fn solve<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        interval: Interval<T, S>,
    ) -> Solution<T, S> {
        let total = T::Stripe::<S>::splat(simd, self.total);
        let rough = (total, total * T::from_f64(ROUGH));
        let (near, _) = self.approach::<S, B, FOLD>(simd, x, bounds, interval, rough);
        let exact = (total, T::Stripe::<S>::splat(simd, self.tolerance()));
        self.search::<S, B, FOLD>(simd, x, bounds, near, exact)
    }

    /// Where to begin with a row: from a sample, for which there is room, so that Σ p is mostly a little more than the
    /// total.
    #[simd]
    fn estimate<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        sample: &mut [T],
        caps: &mut [T],
    ) -> Option<Position<T>> {
        let len = sample_len(x.len());
        let (sample, caps) = (&mut sample[..len], &mut caps[..len]);
        take_sample::<T, S, B>(simd, x, bounds, sample, caps);
        let (at, well) = self.near::<S, _, true>(simd, x.len(), sample, bounds.of(caps));
        well.all_true().then(|| Position::of(at))
    }

    /// The position that samples of rows of n values give, in every lane or of one row, and whether that went well.
    #[inline(always)]
    fn near<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        n: usize,
        sample: &[T],
        bounds: B,
    ) -> (Pair<T, S>, Mask<T, S>) {
        let (mut max, mut min) = extremes::<T, S>(simd, sample);
        let mut most = most_of::<T, S, B>(simd, sample.len(), bounds);
        let room = self.room::<S, B>(simd, sample, bounds);
        let mut len = sample.len() / T::LANES;
        let room = if FOLD {
            len = sample.len();
            max = T::Stripe::<S>::splat(simd, T::fold_max(max));
            min = -T::Stripe::<S>::splat(simd, T::fold_max(-min));
            most = T::Stripe::<S>::splat(simd, T::fold_max(most));
            T::Stripe::<S>::splat(simd, room.total())
        } else {
            room.lanes()
        };
        let whole = T::Stripe::<S>::splat(simd, self.total);
        // The sample's part of the total, and twice what it varies by if entries reach their bounds. With the total
        // itself, the position is below the solution of the row.
        let part = whole * T::from_f64(len as f64 / n as f64);
        let margin = (part * most).sqrt() * T::TWO;
        let wanted = whole.min(part + margin);
        let tolerance = wanted.min(margin) * T::from_f64(0.25);
        let aim = wanted + tolerance;
        let holds = apart::<T, S>(max, min) & room.simd_gt(aim + tolerance);
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let mut interval = self.interval(aim, max, min, most);
        interval.open = holds.select(one, zero);
        let (found, off) =
            self.approach::<S, _, FOLD>(simd, sample, bounds, interval, (aim, tolerance));
        (found.at, holds & off.abs().simd_le(tolerance))
    }

    /// What the bounds of the values above -∞ hold together.
    #[inline(always)]
    fn room<S: Simd, B: Bounds<T>>(self, simd: S, x: &[T], bounds: B) -> Sum<T, S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut room = Sum::<T, S>::new(simd);
        for (i, stripe) in x.chunks_exact(T::LANES).enumerate() {
            let counts = T::Stripe::<S>::from_slice(simd, stripe).simd_gt(T::NEG_INFINITY);
            room.add(counts.select(bounds.stripe(simd, i * T::LANES), zero));
        }
        room
    }

    /// An interval that holds the solution: everything is full at its lowest position, and nothing has mass at the highest.
    #[inline(always)]
    fn interval<S: Simd>(
        self,
        total: T::Stripe<S>,
        max: T::Stripe<S>,
        min: T::Stripe<S>,
        most: T::Stripe<S>,
    ) -> Interval<T, S> {
        let simd = max.token();
        let reach = most * (self.temperature * (T::ONE + T::EPSILON * T::from_f64(4.0)));
        let low = Pair::new(min).add(-reach);
        let most = T::Stripe::<S>::splat(simd, T::MAX);
        let width = most.min((max - low.high) - low.low);
        Interval {
            low,
            high: Pair::new(max),
            low_off: T::Stripe::<S>::splat(simd, T::INFINITY),
            high_off: -total,
            at: Pair {
                high: max,
                low: -width.min(total * self.temperature),
            },
            open: T::Stripe::<S>::splat(simd, T::ONE),
        }
    }

    /// The solution of the values that a filter has kept of a row, in whole stripes; nothing if there is none, or if it
    /// lies below the position that the filter went by.
    #[simd]
    fn settle<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        from: Option<Position<T>>,
        x: &[T],
        bounds: B,
    ) -> Option<Position<T>> {
        let (max, min) = extremes::<T, S>(simd, x);
        let (max, min) = (T::fold_max(max), -T::fold_max(-min));
        let near = max.abs() <= farthest() && min >= -farthest::<T>();
        if !near {
            return None;
        }
        let most = T::fold_max(most_of::<T, S, B>(simd, x.len(), bounds));
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let total = one * self.total;
        let mut interval = self.interval(total, one * max, one * min, one * most);
        if let Some(from) = from {
            interval.low = from.splat(simd);
            interval.at = interval.low;
        } else {
            let room = self.room(simd, x, bounds).total();
            if room.is_nan() || room < less_rounding(self.total) {
                return None;
            }
            if room <= self.total + self.tolerance() {
                let lowest = interval.low;
                let (sum, _) = self.sums::<S, B, true>(simd, &lowest, x, bounds);
                return (!sum[0].is_nan()).then(|| Position::of(lowest));
            }
        }
        let found = self.solve::<S, B, true>(simd, x, bounds, interval);
        let well = if from.is_some() {
            found.off[0] >= -self.tolerance()
        } else {
            !found.off[0].is_nan()
        };
        well.then(|| Position::of(found.at))
    }

    /// The solution of a row.
    #[simd]
    fn locate<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        bounds: B,
        x: &[T],
        kernel: &mut [T],
    ) -> Option<Position<T>> {
        let (kept, caps) = kernel.split_at_mut(kernel.len() / 2);
        if x.len() > TILED
            && let Some(from) = self.estimate(simd, x, bounds, kept, caps)
        {
            let len = keep::<T, S, B>(simd, x, bounds, below(from), kept, caps);
            let bounds = bounds.of(&caps[..len]);
            if let Some(found) = self.settle(simd, Some(from), &kept[..len], bounds) {
                return Some(found);
            }
        }
        let len = keep::<T, S, B>(simd, x, bounds, T::NEG_INFINITY, kept, caps);
        self.settle(simd, None, &kept[..len], bounds.of(&caps[..len]))
    }

    /// Writes a row, its solution being known.
    #[simd]
    fn write<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        position: Position<T>,
        bounds: B,
        x: &[T],
        y: &mut [T],
    ) {
        let at = position.splat(simd);
        let whole = whole_stripes(x).0.len();
        let (stripes, rest) = x.split_at(whole);
        let (y_stripes, y_rest) = y.split_at_mut(whole);
        for (i, (x, y)) in stripes
            .chunks_exact(T::LANES)
            .zip(y_stripes.chunks_exact_mut(T::LANES))
            .enumerate()
        {
            let x = T::Stripe::<S>::from_slice(simd, x);
            let u = bounds.stripe(simd, i * T::LANES);
            self.terms(&at, x, u).0.store_slice(y);
        }
        if !rest.is_empty() {
            let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
            let u = bounds.stripe(simd, whole);
            store_part::<T, S>(self.terms(&at, x, u).0, y_rest);
        }
    }
}

impl<T: Real> BoundedRow<T> for Capped<T> {
    fn total(self) -> T {
        self.total
    }

    fn with_total(self, total: T) -> Self {
        Self { total, ..self }
    }

    fn row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) -> Option<()> {
        kernel.resize(2 * (x.len() + T::LANES), T::ZERO);
        let position = dispatch!(level, simd => self.locate(simd, bounds, x, kernel))?;
        dispatch!(level, simd => self.write(simd, position, bounds, x, y));
        Some(())
    }

    fn shrunk(self, x: &[T]) -> Option<(Self, T)> {
        const UNIT: f64 = 16.0;
        let far = x.iter().any(|x| x.is_finite() && x.abs() > farthest());
        let map = Self::new(self.total.to_f64(), self.temperature.to_f64() / UNIT);
        far.then_some((map, T::from_f64(1.0 / UNIT)))
    }
}

/// A mask of a stripe.
type Mask<T, S> = <<T as Real>::Stripe<S> as SimdBase<S>>::Mask;

/// `a` in the lanes of the mask, `b` in the others.
#[inline(always)]
fn choose<T: Real, S: Simd>(mask: Mask<T, S>, a: Pair<T, S>, b: Pair<T, S>) -> Pair<T, S> {
    Pair {
        high: mask.select(a.high, b.high),
        low: mask.select(a.low, b.low),
    }
}

#[inline(always)]
fn equal<T: Real, S: Simd>(a: Pair<T, S>, b: Pair<T, S>) -> Mask<T, S> {
    a.high.simd_eq(b.high) & a.low.simd_eq(b.low)
}

/// The largest score that distances are taken from: with what the total spans, no difference of two overflows.
#[inline(always)]
fn farthest<T: Real>() -> T {
    T::MAX * T::from_f64(0.25)
}

/// Whether all scores in a lane are near enough to take distances, and there is one.
#[inline(always)]
fn apart<T: Real, S: Simd>(max: T::Stripe<S>, min: T::Stripe<S>) -> Mask<T, S> {
    max.abs().simd_le(farthest::<T>()) & min.simd_ge(-farthest::<T>())
}

/// A score at or below the position, whatever rounding does.
fn below<T: Real>(position: Position<T>) -> T {
    let at = position.high + position.low;
    at - at.abs() * (T::TWO * T::EPSILON)
}

/// Where [`Capped::search`] looks.
struct Interval<T: Real, S: Simd> {
    /// Where Σ p is not less than the total.
    low: Pair<T, S>,
    /// Where Σ p is not more than the total.
    high: Pair<T, S>,
    /// How far Σ p is from the total at the low end; infinite if that is not known.
    low_off: T::Stripe<S>,
    /// And at the high end.
    high_off: T::Stripe<S>,
    /// Where to begin.
    at: Pair<T, S>,
    /// 1 in the lanes that are to be searched.
    open: T::Stripe<S>,
}

/// How far Σ p is from the total at the ends of an interval, as regula falsi takes it, and which of them has moved.
struct Ends<T: Real, S: Simd> {
    low_off: T::Stripe<S>,
    high_off: T::Stripe<S>,
    /// 1 where the low end has moved last, -1 where the high one has.
    side: T::Stripe<S>,
}

impl<T: Real, S: Simd> Ends<T, S> {
    #[inline(always)]
    fn of(interval: &Interval<T, S>) -> Self {
        Self {
            low_off: interval.low_off,
            high_off: interval.high_off,
            side: T::Stripe::<S>::splat(interval.open.token(), T::ZERO),
        }
    }

    /// Takes how far Σ p is off at a position, in the lanes that are going; returns where that becomes the low end, and
    /// where the high one.
    #[inline(always)]
    fn take(&mut self, going: Mask<T, S>, now: T::Stripe<S>) -> (Mask<T, S>, Mask<T, S>) {
        let Self {
            low_off,
            high_off,
            side,
        } = self;
        let zero = T::Stripe::<S>::splat(now.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(now.token(), T::ONE);
        let below = now.simd_gt(zero);
        let (rises, falls) = (going & below, going & !below);
        // Illinois: an end that stays for the second time counts half.
        *high_off = (rises & side.simd_gt(zero)).select(*high_off * T::HALF, *high_off);
        *low_off = (falls & side.simd_lt(zero)).select(*low_off * T::HALF, *low_off);
        *low_off = rises.select(now, *low_off);
        *high_off = falls.select(now, *high_off);
        *side = below.select(one, -one);
        (rises, falls)
    }

    /// The part of the interval that regula falsi goes, from its low end.
    #[inline(always)]
    fn share(&self) -> T::Stripe<S> {
        self.low_off / (self.low_off - self.high_off)
    }
}

/// What [`Capped::search`] has found: where, and how far Σ p is from the total there.
struct Solution<T: Real, S: Simd> {
    at: Pair<T, S>,
    off: T::Stripe<S>,
}

/// The largest of the bounds of whole stripes of values, in every lane.
#[inline(always)]
fn most_of<T: Real, S: Simd, B: Bounds<T>>(simd: S, len: usize, bounds: B) -> T::Stripe<S> {
    if !B::OWN {
        return bounds.stripe(simd, 0);
    }
    let mut most = T::Stripe::<S>::splat(simd, T::ZERO);
    for start in (0..len).step_by(T::LANES) {
        most = most.max(bounds.stripe(simd, start));
    }
    most
}

/// Takes stripes that lie evenly in a row, with their bounds if each value has its own.
#[inline(always)]
fn take_sample<T: Real, S: Simd, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    sample: &mut [T],
    caps: &mut [T],
) {
    let (stripes, count) = (x.len() / T::LANES, sample.len() / T::LANES);
    for (j, to) in sample.chunks_exact_mut(T::LANES).enumerate() {
        let from = j * stripes / count * T::LANES;
        to.copy_from_slice(&x[from..from + T::LANES]);
        if B::OWN {
            bounds
                .stripe(simd, from)
                .store_slice(&mut caps[j * T::LANES..][..T::LANES]);
        }
    }
}

/// The largest value in every lane, and the smallest above -∞.
#[inline(always)]
fn extremes<T: Real, S: Simd>(simd: S, x: &[T]) -> (T::Stripe<S>, T::Stripe<S>) {
    let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
    let (mut max, mut min) = (-infinity, infinity);
    for stripe in x.chunks_exact(T::LANES) {
        let x = T::Stripe::<S>::from_slice(simd, stripe);
        max = max.max(x);
        min = min.min(x.simd_eq(T::NEG_INFINITY).select(infinity, x));
    }
    (max, min)
}

/// [`filter_with_bounds`]; fills up the last stripe with what never counts, and returns the length of all stripes.
#[inline(always)]
fn keep<T: Real, S: Simd, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    lower: T,
    to: &mut [T],
    caps: &mut [T],
) -> usize {
    let count = filter_with_bounds::<T, S, B>(simd, x, bounds, lower, to, caps);
    let len = count.next_multiple_of(T::LANES);
    to[count..len].fill(T::NEG_INFINITY);
    caps[count..len].fill(T::ZERO);
    len
}

/// [`filter`], also of the bounds if each value has its own.
#[inline(always)]
fn filter_with_bounds<T: Real, S: Simd, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    lower: T,
    to: &mut [T],
    caps: &mut [T],
) -> usize {
    if !B::OWN {
        return filter::<T, S>(simd, x, lower, to);
    }
    let width = T::Native::<S>::LEN;
    let mut count = 0;
    let chunks = x.chunks_exact(width);
    let rest = chunks.remainder();
    for (i, x) in chunks.enumerate() {
        let x = T::Native::<S>::from_slice(simd, x);
        let keep = !x.simd_le(lower);
        x.compress(keep).store_slice(&mut to[count..count + width]);
        bounds
            .register(simd, i * width)
            .compress(keep)
            .store_slice(&mut caps[count..count + width]);
        count += keep.to_bitmask().count_ones() as usize;
    }
    for (i, &v) in (x.len() - rest.len()..).zip(rest) {
        (to[count], caps[count]) = (v, bounds.get(i));
        count += usize::from(v > lower || v.is_nan());
    }
    count
}

pub(super) fn capped_rows<T: Real>(
    level: Level,
    (upper, (total, temperature)): (Upper<'_, T>, (f64, f64)),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let capped = Capped::new(total, temperature);
    let group = n * T::LANES;
    for (index, (x, y)) in x.chunks(group).zip(y.chunks_mut(group)).enumerate() {
        let upper = upper.rows_from(index * T::LANES, n);
        let bounds = upper.of_row(0, n);
        let well = with_bounds!(bounds, capped.total, |bounds| if n > GROUPED {
            0
        } else if n > TILED {
            kernel.resize(4 * T::LANES * (n + T::LANES), T::ZERO);
            dispatch!(level, simd => capped_group(simd, capped, (bounds, upper.own(n)), n, x, y, kernel))
        } else {
            kernel.resize(2 * group + tile::spare::<T>(n), T::ZERO);
            dispatch!(level, simd => capped_tile(simd, capped, (bounds, upper.own(n)), n, x, y, kernel))
        });
        again(level, capped, upper, (n, well), x, y, kernel);
    }
}

/// Maps at most `LANES` rows; a bit of the result says whether that went well with a row.
#[simd]
fn capped_tile<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    capped: Capped<T>,
    (bounds, own): (B, OwnRows<'_, T>),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) -> u64 {
    let rows = x.len() / n;
    let (columns, rest) = kernel.split_at_mut(n * T::LANES);
    let (caps, spare) = rest.split_at_mut(columns.len());
    own.load(simd, rows, n, caps, spare);
    let bounds = bounds.of(caps);
    tile::load(simd, x, rows, n, columns, spare);

    let (max, min) = extremes::<T, S>(simd, columns);
    let most = most_of::<T, S, _>(simd, columns.len(), bounds);
    let room = capped.room::<S, _>(simd, columns, bounds).lanes();
    let holds = room.simd_ge(less_rounding(capped.total)) & apart::<T, S>(max, min);
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let total = one * capped.total;
    let mut interval = capped.interval(total, max, min, most);
    let full = room.simd_le(capped.total + capped.tolerance());
    interval.at = choose(full, interval.low, interval.at);
    interval.open = (holds & !full).select(one, zero);
    let found = capped.solve::<S, _, false>(simd, columns, bounds, interval);
    for (k, column) in columns.chunks_exact_mut(T::LANES).enumerate() {
        let x = T::Stripe::<S>::from_slice(simd, column);
        let u = bounds.stripe(simd, k * T::LANES);
        capped.terms(&found.at, x, u).0.store_slice(column);
    }
    tile::store(simd, columns, rows, n, y, spare);
    let known = found.off.simd_eq(found.off); // no NaN among the scores
    (holds & known).to_bitmask()
}

/// As [`capped_tile`], of rows of which only the candidates are turned into columns.
#[simd]
fn capped_group<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    capped: Capped<T>,
    (bounds, own): (B, OwnRows<'_, T>),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) -> u64 {
    let stride = n + T::LANES; // the filter writes whole registers
    let (kept, rest) = kernel.split_at_mut(T::LANES * stride);
    let (caps, rest) = rest.split_at_mut(T::LANES * stride);
    let (columns, cap_columns) = rest.split_at_mut(T::LANES * stride);
    let len = sample_len(n);
    for (row, x) in x.chunks_exact(n).enumerate() {
        let bounds = bounds.of(own.row(row, n));
        let at = row * len..(row + 1) * len;
        take_sample::<T, S, _>(simd, x, bounds, &mut kept[at.clone()], &mut caps[at]);
    }
    kept[x.len() / n * len..T::LANES * len].fill(T::NEG_INFINITY); // lanes without a row
    tile::gather::<T, S>(simd, kept, len, len, columns);
    if B::OWN {
        tile::gather::<T, S>(simd, caps, len, len, cap_columns);
    }
    let (sample, own_bounds) = (&columns[..len * T::LANES], bounds.of(cap_columns));
    let (from, sampled) = capped.near::<S, _, false>(simd, n, sample, own_bounds);

    let mut counts = [0; tile::MOST];
    for (row, x) in x.chunks_exact(n).enumerate() {
        if sampled.test(row) {
            let bounds = bounds.of(own.row(row, n));
            let (kept, caps) = (&mut kept[row * stride..], &mut caps[row * stride..]);
            let lower = below(Position::of_lane(from, row));
            counts[row] = filter_with_bounds::<T, S, _>(simd, x, bounds, lower, kept, caps);
        }
    }
    let width = counts.into_iter().max().unwrap_or(0).max(1);
    for (row, &count) in counts.iter().enumerate().take(T::LANES) {
        kept[row * stride..][count..width].fill(T::NEG_INFINITY);
        if B::OWN {
            caps[row * stride..][count..width].fill(T::ZERO);
        }
    }
    let columns = &mut columns[..width * T::LANES];
    let cap_columns = &mut cap_columns[..width * T::LANES];
    tile::gather::<T, S>(simd, kept, stride, width, columns);
    if B::OWN {
        tile::gather::<T, S>(simd, caps, stride, width, cap_columns);
    }
    let max = tile::max::<T, S>(simd, columns);
    let sampled = sampled & apart::<T, S>(max, from.high); // no other lies below
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let interval = Interval {
        low: from,
        high: Pair::new(max),
        low_off: one * T::INFINITY,
        high_off: one * -capped.total,
        at: from,
        open: sampled.select(one, zero),
    };
    let found = capped.solve::<S, _, false>(simd, columns, bounds.of(cap_columns), interval);
    let well = sampled & found.off.simd_ge(-capped.tolerance()); // nor a NaN among the scores
    for (row, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
        if well.test(row) {
            let bounds = bounds.of(own.row(row, n));
            capped.write(simd, Position::of_lane(found.at, row), bounds, x, y);
        }
    }
    well.to_bitmask()
}

pub(super) fn capped_long_row<T: Real>(
    run: &mut Run<'_>,
    (caps, (total, temperature)): (Caps<'_, T>, (f64, f64)),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let capped = Capped::new(total, temperature);
    with_bounds!(caps, capped.total, |bounds| {
        let level = run.level;
        let Some(position) = locate_in_long_row(run, capped, bounds, x)? else {
            capped.extreme_row(level, bounds, x, y, &mut Vec::new());
            return Ok(());
        };
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => capped.write(simd, position, bounds, &x[at], y));
        })
    })
}

/// [`Capped::locate`] with the filter shared out.
fn locate_in_long_row<T: Real, B: Bounds<T>>(
    run: &mut Run<'_>,
    capped: Capped<T>,
    bounds: B,
    x: &[T],
) -> Result<Option<Position<T>>, Error> {
    let level = run.level;
    let len = sample_len(x.len());
    let (mut sample, mut caps) = (vec![T::ZERO; len], vec![T::ZERO; len]);
    let estimate =
        dispatch!(level, simd => capped.estimate(simd, x, bounds, &mut sample, &mut caps));
    for from in [estimate, None] {
        let lower = from.map_or(T::NEG_INFINITY, below);
        let kept = of_chunks(run, x.len(), |at| {
            let room = at.len() + T::LANES;
            let (mut kept, mut caps) = (vec![T::ZERO; room], vec![T::ZERO; room]);
            let own = bounds.part(at.clone());
            let len = dispatch!(level, simd => keep_chunk(simd, &x[at], own, lower, &mut kept, &mut caps));
            kept.truncate(len);
            caps.truncate(len);
            (kept, caps)
        })?;
        let (kept, caps): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        let (kept, caps) = (kept.concat(), caps.concat());
        let bounds = bounds.of(&caps);
        let found = dispatch!(level, simd => capped.settle(simd, from, &kept, bounds));
        if found.is_some() || from.is_none() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[simd]
fn keep_chunk<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    lower: T,
    to: &mut [T],
    caps: &mut [T],
) -> usize {
    keep::<T, S, B>(simd, x, bounds, lower, to, caps)
}
