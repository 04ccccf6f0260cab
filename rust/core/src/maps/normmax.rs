//! normmax of rows: `argmax ⟨x, p⟩ - ‖p‖_α` over the simplex, α > 1 (Blondel, Martins & Niculae 2020).
//!
//! On the support of p, `(pᵢ/‖p‖_α)^{α-1} = xᵢ - τ`. So with `dᵢ = [xᵢ - τ]₊` and `δ = 1 - 1/α`:
//!
//! ```text
//! Σ dᵢ^{1/δ} = 1,   pᵢ = vᵢ/Σ v,   vᵢ = dᵢ^{1/δ - 1} = dᵢ^{1/(α-1)}
//! ```
//!
//! The equation is that of entmax at 1 + δ in a unit of its own, and is solved as there ([`super::threshold`]); v, which
//! is the slope of its terms, comes from the distances.
//!
//! * **Domain, determinism.** As [`super::entmax()`].
//! * **Precision.** p is as if τ were off by an ulp of 1 over the size of the support, `|Σ p - 1| ≤ 4` ulp. For large α,
//!   a score just above τ has nearly as much as the largest: there p is steep in x. A score 1 or more below the largest has
//!   nothing.
//! * **Cost.** That of entmax; rows of at most [`TILED`] values go a lane each ([`super::tile`]).
//! * **Gradient.** With `wᵢ = pᵢ (‖p‖_α/pᵢ)^{α-1}` and `h = g - ⟨p, g⟩`, `J g = (w h - p Σ w h)/((α-1) T)`, in f64.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    gradient::{join, map_pairs, wide},
    infinite::{share_infinities, share_infinities_of_long_row},
    kernels::{Map, Vjp},
    power::{NEAR_ONE, Pair, Power, Solved, distance, settles},
    softmax::inverse_temperature,
    tempered::Tempered,
    threshold::{
        Approach, expand_chunk, locate, locate_long_row, replace_by_terms, replace_chunk, room,
        solve, start,
    },
    tile,
};
use crate::{
    batch::{
        CHUNK, PerRow, RowMap, Scores, Shape, Storage, map_rows, of_chunks, of_written_chunks,
        write_chunks,
    },
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{
        Sum, add_up, exp2, exp2_lifted, load_padded, log2, log2_near_one, log2_of_normal, max,
        rough_power_lifted, store_part,
    },
};

/// `argmax ⟨x/T, p⟩ - ‖p‖_α` over the simplex, of every row.
///
/// # Errors
/// [`Error::Domain`] unless every α is finite and more than 1 and the temperature finite and positive;
/// [`Error::Empty`] and [`Error::Length`] if the shapes do not fit; [`Error::Interrupted`].
pub fn normmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    alpha: PerRow<'_>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_alpha(alpha, scores.shape.count())?;
    let map = Tempered::new(Normmax { alpha }, temperature)?;
    map_rows(run, scores, out, &map)
}

/// `J g` of [`normmax`] at its result p. It is as steep as the map: p gives it to `α - 1` times its own error.
///
/// # Errors
/// As [`normmax`].
pub fn normmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    alpha: PerRow<'_>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_alpha(alpha, shape.count())?;
    let inverse = inverse_temperature(temperature)?;
    let kernel = &E::Compute::kernels().maps.normmax.vjp;
    map_pairs(run, shape, (p, g), out, kernel, |row| {
        (alpha.of(row), inverse)
    })
}

fn check_alpha(alpha: PerRow<'_>, rows: usize) -> Result<(), Error> {
    alpha.check("alpha", rows, "finite and more than 1", |a| {
        a > 1.0 && a.is_finite()
    })
}

/// The kernels for values of type T.
pub(crate) struct Kernels<T> {
    pub(crate) map: Map<T, f64>,
    vjp: Vjp<T, (f64, T)>,
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        map: Map {
            rows: normmax_rows,
            long_row: normmax_long_row,
        },
        vjp: Vjp {
            row: vjp_row,
            long_row: vjp_long_row,
        },
    };
}

struct Normmax<'a> {
    alpha: PerRow<'a>,
}

impl<T: Compiled> RowMap<T> for Normmax<'_> {
    const EXCLUDED: T = T::ZERO;

    fn rows(
        &self,
        level: Level,
        first: usize,
        n: usize,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) {
        let rows = T::kernels().maps.normmax.map.rows;
        self.alpha.each(first, n, x, y, |alpha, _, x, y| {
            rows(level, alpha, n, x, y, kernel)
        });
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        (T::kernels().maps.normmax.map.long_row)(run, self.alpha.of(row), x, y)
    }
}

/// α = 2: `Σ d² = 1`, `v = d`.
#[derive(Clone, Copy)]
struct Euclidean;

impl<T: Real> Power<T> for Euclidean {
    type Cut<S: Simd> = Pair<T, S>;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn reach(&self) -> T {
        T::ONE
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> Pair<T, S> {
        t
    }

    #[inline(always)]
    fn terms<S: Simd>(&self, cut: &Pair<T, S>, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let d = cut.below(x);
        let d = d.simd_le(zero).select(zero, d); // a NaN stays
        (d * d, d)
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &Pair<T, S>) -> Pair<T, S> {
        *cut
    }
}

impl<T: Real> Solved<T> for Euclidean {
    const CHEAP: bool = true;

    #[inline(always)]
    fn delta(&self) -> T {
        T::HALF
    }

    #[inline(always)]
    fn step<S: Simd>(&self, q: T::Stripe<S>, s: T::Stripe<S>) -> T::Stripe<S> {
        (q - q.sqrt()) / s
    }

    #[inline(always)]
    fn settles(&self) -> T {
        T::NEARLY
    }
}

/// Any other α. The unknown is τ + 1, and `NEAR` is for δ near 0, as in [`super::power::General`].
#[derive(Clone, Copy)]
struct Norm<T, const NEAR: bool> {
    delta: T,
    exponent: T,
}

impl<T: Real, const NEAR: bool> Norm<T, NEAR> {
    fn new(alpha: f64) -> Self {
        Self {
            delta: T::from_f64(1.0 - 1.0 / alpha),
            exponent: T::from_f64(1.0 / (alpha - 1.0)),
        }
    }
}

impl<T: Real, const NEAR: bool> Power<T> for Norm<T, NEAR> {
    /// The threshold, and the position.
    type Cut<S: Simd> = (Pair<T, S>, Pair<T, S>);
    const ROUNDED: bool = true;

    #[inline(always)]
    fn reach(&self) -> T {
        T::ZERO
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> (Pair<T, S>, Pair<T, S>) {
        (t.add(T::Stripe::<S>::splat(t.high.token(), -T::ONE)), t)
    }

    #[inline(always)]
    fn terms<S: Simd>(
        &self,
        (threshold, center): &(Pair<T, S>, Pair<T, S>),
        x: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let u = threshold.below(x);
        // Below the least normal value there is no logarithm; a NaN stays.
        let out = u.simd_lt(T::MIN_POSITIVE);
        let u = out.select(one, u);
        let (u, log) = if NEAR {
            log2_near_one::<T, S>(u, center.below(x))
        } else {
            (u, log2_of_normal::<T, S>(u))
        };
        let v = exp2_lifted::<T, S>(log * self.exponent);
        let p = v * (u * (T::ONE / T::LIFT_FACTOR));
        (out.select(zero, p), out.select(zero, v))
    }

    #[inline(always)]
    fn rough_terms<S: Simd>(
        &self,
        cut: &(Pair<T, S>, Pair<T, S>),
        x: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        if NEAR {
            return self.terms(cut, x);
        }
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let u = cut.0.below(x);
        let out = u.simd_lt(T::MIN_POSITIVE);
        let v = rough_power_lifted::<T, S>(u, self.exponent);
        let p = v * (u * (T::ONE / T::LIFT_FACTOR));
        (out.select(zero, p), out.select(zero, v))
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &(Pair<T, S>, Pair<T, S>)) -> Pair<T, S> {
        cut.0
    }
}

impl<T: Real, const NEAR: bool> Solved<T> for Norm<T, NEAR> {
    const CHEAP: bool = false;

    #[inline(always)]
    fn delta(&self) -> T {
        self.delta
    }

    #[inline(always)]
    fn step<S: Simd>(&self, q: T::Stripe<S>, s: T::Stripe<S>) -> T::Stripe<S> {
        q * distance::<T, S>(q, self.delta) * (T::LIFT_FACTOR * self.delta) / s
    }

    #[inline(always)]
    fn settles(&self) -> T {
        settles(self.delta)
    }
}

/// The shares at a solution: v in place of the terms.
#[derive(Clone, Copy)]
struct Shares<P>(P);

impl<T: Real, P: Power<T>> Power<T> for Shares<P> {
    type Cut<S: Simd> = P::Cut<S>;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn reach(&self) -> T {
        self.0.reach()
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> P::Cut<S> {
        self.0.cut(t)
    }

    #[inline(always)]
    fn terms<S: Simd>(&self, cut: &P::Cut<S>, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let v = self.0.terms(cut, x).1;
        (v, v)
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &P::Cut<S>) -> Pair<T, S> {
        self.0.threshold(cut)
    }
}

/// The entmax of the same δ is near α = 1.
fn is_near(alpha: f64) -> bool {
    2.0 - 1.0 / alpha < NEAR_ONE
}

/// Rows of at most this many values go a lane each.
const TILED: usize = 128;

fn normmax_rows<T: Real>(
    level: Level,
    alpha: f64,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    if alpha == 2.0 {
        dispatch!(level, simd => rows_by_power(simd, Euclidean, n, x, y, kernel));
    } else if is_near(alpha) {
        let norm = Norm::<T, true>::new(alpha);
        dispatch!(level, simd => rows_by_power(simd, norm, n, x, y, kernel));
    } else {
        let norm = Norm::<T, false>::new(alpha);
        dispatch!(level, simd => rows_by_power(simd, norm, n, x, y, kernel));
    }
}

#[simd]
fn rows_by_power<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    if n > TILED {
        kernel.resize(room::<T>(n), T::ZERO);
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            normmax_row(simd, power, x, y, kernel);
        }
        return;
    }
    let tile = tile::len::<T>(n);
    kernel.resize(tile + tile::spare::<T>(n), T::ZERO);
    let (columns, spare) = kernel.split_at_mut(tile);
    for (x, y) in x.chunks(tile).zip(y.chunks_mut(tile)) {
        let rows = x.len() / n;
        tile::load(simd, x, rows, n, columns, spare);
        let max = tile::max::<T, S>(simd, columns);
        let mut approach = Approach::new(power, start(power, max));
        approach.run::<false>(simd, columns);
        let newton = solve::<T, S, P, false>(simd, power, max, approach.at, columns);
        let cut = power.cut(newton.at);
        let sum = replace_by_terms(simd, Shares(power), &cut, columns).lanes();
        let scale = T::Stripe::<S>::splat(simd, T::ONE) / sum;
        for column in columns.chunks_exact_mut(T::LANES) {
            (T::Stripe::<S>::from_slice(simd, column) * scale).store_slice(column);
        }
        tile::store(simd, columns, rows, n, y, spare);
        let well = max.abs().simd_lt(T::INFINITY) & newton.off.simd_eq(newton.off); // no NaN among the scores
        for (lane, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
            if !well.test(lane) {
                share_infinities(x, y, T::ONE);
            }
        }
    }
}

#[simd]
fn normmax_row<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) {
    let Some(found) = locate(simd, power, x, kernel) else {
        return share_infinities(x, y, T::ONE);
    };
    let candidates = &mut kernel[4 * T::LANES..];
    let len = found.count.next_multiple_of(T::LANES);
    let sum = replace_chunk(simd, Shares(power), found.position, &mut candidates[..len]);
    expand_chunk(simd, x, found.bound, candidates, T::ONE / sum, y);
}

fn normmax_long_row<T: Real>(
    run: &mut Run<'_>,
    alpha: f64,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    if alpha == 2.0 {
        long_row(run, Euclidean, x, y)
    } else if is_near(alpha) {
        long_row(run, Norm::<T, true>::new(alpha), x, y)
    } else {
        long_row(run, Norm::<T, false>::new(alpha), x, y)
    }
}

fn long_row<T: Real, P: Solved<T>>(
    run: &mut Run<'_>,
    power: P,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let Some(mut found) = locate_long_row(run, power, x)? else {
        return share_infinities_of_long_row(run, x, y, T::ONE);
    };
    let position = found.position;
    let sums = of_written_chunks(
        run,
        found.kept.padded(),
        |_, candidates| dispatch!(level, simd => replace_chunk(simd, Shares(power), position, candidates)),
    )?;
    let scale = T::ONE / dispatch!(level, simd => add_up(simd, sums.into_iter()));
    write_chunks(run, y, |at, y| {
        let terms = &found.kept.values[found.kept.starts[at.start / CHUNK]..];
        dispatch!(level, simd => expand_chunk(simd, &x[at], found.bound, terms, scale, y));
    })
}

/// The gradient of a row, in f64: the weights grow with the power α - 1.
#[derive(Clone, Copy)]
struct Pull {
    alpha: f64,
    inverse: f64,
    /// log₂ of the largest p; after the first sums, of the norm.
    log: f64,
    /// ⟨p, g⟩
    mean: f64,
}

/// log₂ of a weight is kept below this, so that their sum is finite.
const MOST: f64 = 900.0;

impl Pull {
    #[simd]
    fn new<S: Simd>(simd: S, alpha: f64, inverse: f64, largest: f64) -> Self {
        let largest = <f64 as Real>::Stripe::<S>::splat(simd, largest);
        Self {
            alpha,
            inverse,
            log: log2::<f64, S>(largest)[0],
            mean: 0.0,
        }
    }

    /// `(Σ (p/max p)^α, ⟨p, g⟩)`
    #[simd]
    fn sums<S: Simd, T: Real>(self, simd: S, p: &[T], g: &[T]) -> [f64; 2] {
        let (p, g) = (wide(p), wide(g));
        let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
        let (mut powers, mut mean) = (Sum::<f64, S>::new(simd), Sum::<f64, S>::new(simd));
        for (p, g) in p.chunks(f64::LANES).zip(g.chunks(f64::LANES)) {
            let p = load_padded::<f64, S>(simd, p, 0.0);
            let g = load_padded::<f64, S>(simd, g, 0.0);
            let out = p.simd_eq(0.0);
            let log = log2::<f64, S>(p) - self.log;
            powers.add(out.select(zero, exp2::<f64, S>(log * self.alpha)));
            mean.add(out.select(zero, p * g));
        }
        [powers.total(), mean.total()]
    }

    #[simd]
    fn with_sums<S: Simd>(self, simd: S, [powers, mean]: [f64; 2]) -> Self {
        let powers = <f64 as Real>::Stripe::<S>::splat(simd, powers);
        Self {
            log: self.log + log2::<f64, S>(powers)[0] / self.alpha,
            mean,
            ..self
        }
    }

    /// w h, 0 where p is.
    #[inline(always)]
    fn weighted<S: Simd>(
        self,
        p: <f64 as Real>::Stripe<S>,
        g: <f64 as Real>::Stripe<S>,
    ) -> <f64 as Real>::Stripe<S> {
        let zero = <f64 as Real>::Stripe::<S>::splat(p.token(), 0.0);
        let most = <f64 as Real>::Stripe::<S>::splat(p.token(), MOST);
        let log = (-log2::<f64, S>(p) + self.log) * (self.alpha - 1.0);
        let log = log.simd_gt(most).select(most, log); // a NaN stays
        let w = p * exp2::<f64, S>(log);
        p.simd_eq(0.0).select(zero, w * (g - self.mean))
    }

    /// `Σ w h`
    #[simd]
    fn weighted_sum<S: Simd, T: Real>(self, simd: S, p: &[T], g: &[T]) -> [f64; 1] {
        let (p, g) = (wide(p), wide(g));
        let mut sum = Sum::<f64, S>::new(simd);
        for (p, g) in p.chunks(f64::LANES).zip(g.chunks(f64::LANES)) {
            let p = load_padded::<f64, S>(simd, p, 0.0);
            let g = load_padded::<f64, S>(simd, g, 0.0);
            sum.add(self.weighted::<S>(p, g));
        }
        [sum.total()]
    }

    #[simd]
    fn write<S: Simd, T: Real>(self, simd: S, [sum]: [f64; 1], p: &[T], g: &[T], y: &mut [T]) {
        let (p, g) = (wide(p), wide(g));
        let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
        let scale = self.inverse / (self.alpha - 1.0);
        let mut wide_y = [0.0; f64::LANES];
        let pairs = p.chunks(f64::LANES).zip(g.chunks(f64::LANES));
        for ((p, g), y) in pairs.zip(y.chunks_mut(f64::LANES)) {
            let p = load_padded::<f64, S>(simd, p, 0.0);
            let g = load_padded::<f64, S>(simd, g, 0.0);
            let value = (self.weighted::<S>(p, g) - p * sum) * scale;
            store_part::<f64, S>(p.simd_eq(0.0).select(zero, value), &mut wide_y);
            for (y, wide) in y.iter_mut().zip(wide_y) {
                *y = T::from_f64(wide);
            }
        }
    }
}

fn vjp_row<T: Real>(level: Level, (alpha, inverse): (f64, T), p: &[T], g: &[T], y: &mut [T]) {
    let largest = dispatch!(level, simd => max::<T, _>(simd, p)).to_f64();
    let inverse = inverse.to_f64();
    if p.iter().all(|&p| p == T::ZERO) {
        return y.fill(T::ZERO); // a row that was excluded
    }
    let pull = dispatch!(level, simd => Pull::new(simd, alpha, inverse, largest));
    let sums = dispatch!(level, simd => pull.sums(simd, p, g));
    let pull = dispatch!(level, simd => pull.with_sums(simd, sums));
    let sum = dispatch!(level, simd => pull.weighted_sum(simd, p, g));
    dispatch!(level, simd => pull.write(simd, sum, p, g, y));
}

fn vjp_long_row<T: Real>(
    run: &mut Run<'_>,
    (alpha, inverse): (f64, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let (level, n, inverse) = (run.level, p.len(), inverse.to_f64());
    let found = of_chunks(run, n, |at| {
        let p = &p[at];
        let zero = p.iter().all(|&p| p == T::ZERO);
        (dispatch!(level, simd => max::<T, _>(simd, p)), zero)
    })?;
    if found.iter().all(|&(_, zero)| zero) {
        return write_chunks(run, y, |_, y| y.fill(T::ZERO));
    }
    let maxima: Vec<T> = found.into_iter().map(|(max, _)| max).collect();
    let largest = dispatch!(level, simd => max::<T, _>(simd, &maxima)).to_f64();
    let pull = dispatch!(level, simd => Pull::new(simd, alpha, inverse, largest));
    let sums = of_chunks(
        run,
        n,
        |at| dispatch!(level, simd => pull.sums(simd, &p[at.clone()], &g[at])),
    )?;
    let sums = dispatch!(level, simd => join(simd, &sums));
    let pull = dispatch!(level, simd => pull.with_sums(simd, sums));
    let sum = of_chunks(
        run,
        n,
        |at| dispatch!(level, simd => pull.weighted_sum(simd, &p[at.clone()], &g[at])),
    )?;
    let sum = dispatch!(level, simd => join(simd, &sum));
    write_chunks(run, y, |at, y| {
        let (p, g) = (&p[at.clone()], &g[at]);
        dispatch!(level, simd => pull.write(simd, sum, p, g, y));
    })
}
