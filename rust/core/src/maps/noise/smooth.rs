//! Normal and logistic noise: densities that are analytic near the real axis.
//!
//! ```text
//! pᵢ = P(zᵢ),  P(z) = ∫ h(u - z) G(u) du,  ln G(u) = Σ L(u - zⱼ),  L = ln F
//! c ← m Chebyshev points between the lowest z and 0                    # or the z, if there are no more
//! w ← Σⱼ ℓ(zⱼ), the weights with which f(c) gives Σ f(zⱼ)             # ℓ: Lagrange's polynomials
//! ln G(u) ← Σ w L(u - c) on a grid of k nodes u
//! ln P(c) ← ln Σ h(u - c) G(u) Δu
//! p ← exp of the polynomial through ln P(c), at z
//! ```
//!
//! The gradient is `pⱼ (gⱼ E[H] - E[K])`, the expectations being under the density h(u - zⱼ) G(u)/pⱼ: smooth functions
//! of z again. g is taken from its mean under p, so that a constant gives 0.
//!
//! 1. m comes from the singularities of L: 2.8 from the axis (zeros of Φ) or π. Bernstein's ellipse through them has a sum
//!    of semi-axes ρ, in units of half the interval, and the error is ρ^-m.
//! 2. The integrands are log-concave (normal) or nearly so, and vanish at both ends: the trapezoid rule converges
//!    geometrically. Its spacing is a fraction of the way from the lower end to the mode for the lowest z, which measures
//!    the Fourier transform of a bell and of Gumbel's density alike.
//! 3. The grid is found with half as many points, which is rough enough there.
//! 4. Entries so far below that the integrand could underflow take no part. Under normal noise they have no mass, under
//!    logistic noise that of an exponential tail.
//!
//! **Cost.** 4 m operations an entry, and m k values of ln F and h a row. A row of 1000 normal scores takes m = 40 and
//! k = 90; m grows as the spread.

use std::{f64::consts::PI, sync::OnceLock};

use fearless_simd::{Simd, prelude::*};
use fearless_simd_macros::simd;

use super::{BLOCK, Stripe, exponentials, f64s, stripe, taken};
use crate::{
    scalar::Real,
    simd::{exp, ln, mills_ratio},
};

const LANES: usize = <f64 as Real>::LANES;

/// A density without kinks.
pub(super) trait Smooth {
    /// How far from the real axis `ln F` is analytic.
    const REACH: f64;
    /// Entries below take no part; the second is for results in f32.
    const FLOOR: [f64; 2];
    /// Whether they still have the mass `P(floor) e^{z - floor}`, or none.
    const TAIL: bool;
    /// `ln F`, within 1e-16 of it or of 1, and `f/F`.
    fn log_cdf_and_hazard<S: Simd>(x: Stripe<S>) -> (Stripe<S>, Stripe<S>);
    /// `ln(f/F)` from `ln F`.
    fn log_hazard<S: Simd>(x: Stripe<S>, log_cdf: Stripe<S>) -> Stripe<S>;
    /// Where the integrands of n entries between `low` and 0 are of any size.
    fn range(low: f64, n: f64) -> (f64, f64);
}

/// The standard normal density.
pub(super) struct Normal;

impl Smooth for Normal {
    const REACH: f64 = 2.81;
    const FLOOR: [f64; 2] = [-30.0, -20.5];
    const TAIL: bool = false;

    #[inline(always)]
    fn log_cdf_and_hazard<S: Simd>(x: Stripe<S>) -> (Stripe<S>, Stripe<S>) {
        const LN_PDF_AT_ZERO: f64 = -0.918_938_533_204_672_8;
        let simd = x.token();
        let ratio = mills_ratio::<S>(x.abs());
        let half_square = x * x * -0.5;
        let pdf = exp::<f64, S>(half_square + LN_PDF_AT_ZERO);
        let right = x.simd_gt(0.0);
        // Φ on the right, Φ/φ on the left.
        let cdf = right.select(-(pdf * ratio) + 1.0, ratio);
        let hazard = right.select(pdf, f64s::<S>(simd, 1.0)) / cdf;
        let log = ln::<f64, S>(cdf);
        (
            right.select(log, log + half_square + LN_PDF_AT_ZERO),
            hazard,
        )
    }

    #[inline(always)]
    fn log_hazard<S: Simd>(x: Stripe<S>, log_cdf: Stripe<S>) -> Stripe<S> {
        const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;
        x * x * -0.5 - HALF_LN_TAU - log_cdf
    }

    fn range(low: f64, n: f64) -> (f64, f64) {
        (0.5 * low - 9.0, (2.0 * libm::log(n)).sqrt() + 9.0)
    }
}

/// The standard logistic density.
pub(super) struct Logistic;

impl Smooth for Logistic {
    const REACH: f64 = PI;
    const FLOOR: [f64; 2] = [-80.0; 2];
    const TAIL: bool = true;

    #[inline(always)]
    fn log_cdf_and_hazard<S: Simd>(x: Stripe<S>) -> (Stripe<S>, Stripe<S>) {
        let zero = f64s::<S>(x.token(), 0.0);
        let e = exp::<f64, S>(-x.abs());
        let sum = e + 1.0;
        let one = f64s::<S>(x.token(), 1.0);
        let hazard = x.simd_gt(0.0).select(e, one) / sum;
        (x.min(zero) - ln::<f64, S>(sum), hazard)
    }

    #[inline(always)]
    fn log_hazard<S: Simd>(x: Stripe<S>, log_cdf: Stripe<S>) -> Stripe<S> {
        log_cdf - x
    }

    fn range(low: f64, n: f64) -> (f64, f64) {
        (low - 38.0, libm::log(n) + 38.0)
    }
}

/// An integrand counts down to e^-DEPTH of its maximum.
const DEPTH: f64 = 34.0;

/// The spacing of the nodes: this part of the way from the lower end to the mode, and at most [`WIDEST`].
const SPACING: f64 = 0.08;
const WIDEST: f64 = 0.5;

/// Digits, as a natural logarithm, that interpolation keeps.
const DIGITS: f64 = 28.0;

/// Nodes of the first look at a row, and of the second.
const FIRST_LOOK: usize = 16;
const SECOND_LOOK: usize = 16;

/// Scratch; point by point, or node by node, or both.
#[derive(Default)]
pub(super) struct Room {
    points: Points,
    rough: Points,
    u: Vec<f64>,
    g: Vec<f64>,
    /// G H and G K.
    hazard: Vec<f64>,
    pull: Vec<f64>,
    /// h of each point at all nodes.
    hazards: Vec<f64>,
    p: Vec<f64>,
    log_p: Vec<f64>,
    /// E[H] and E[K].
    means: [Vec<f64>; 2],
    sums: [Vec<f64>; 2],
    series: [Vec<f64>; 3],
}

/// Points c, their weights for `Σ f(zⱼ)`, and for `Σ gⱼ f(zⱼ)`.
#[derive(Default)]
struct Points {
    c: Vec<f64>,
    weights: Vec<f64>,
    pulls: Vec<f64>,
}

/// The entries that take part.
#[derive(Clone, Copy)]
struct Span {
    floor: f64,
    low: f64,
    count: usize,
    /// Whether some entries are below the floor, though they have mass.
    tail: bool,
    /// Chebyshev points, a multiple of `LANES`.
    degree: usize,
}

impl Span {
    #[inline(always)]
    fn new<S: Simd, D: Smooth>(simd: S, z: &[f64], narrow: bool) -> Self {
        let floor = D::FLOOR[usize::from(narrow)];
        let (zero, one) = (f64s::<S>(simd, 0.0), f64s::<S>(simd, 1.0));
        let (mut low, mut count, mut beyond) = (zero, zero, zero);
        for z in z.chunks_exact(LANES) {
            let z = stripe::<S>(simd, z);
            let takes_part = z.simd_ge(floor);
            low = low.min(takes_part.select(z, zero));
            count += takes_part.select(one, zero);
            // What is -∞ has no mass.
            let known = z.simd_ge(f64::MIN).select(one, zero);
            beyond += takes_part.select(zero, known);
        }
        let tail = D::TAIL && f64::fold_sum(beyond) > 0.0;
        let low = if tail { floor } else { -f64::fold_max(-low) };
        let ratio = D::REACH / (-0.5 * low).max(1e-6);
        let ellipse = libm::log(ratio + (ratio * ratio + 1.0).sqrt());
        Self {
            floor,
            low,
            count: f64::fold_sum(count) as usize,
            tail,
            degree: ((DIGITS / ellipse) as usize + 3).next_multiple_of(LANES),
        }
    }

    /// Whether the entries are few enough to be the points.
    fn is_direct(self) -> bool {
        self.count < self.degree
    }

    fn middle(self) -> f64 {
        0.5 * self.low
    }

    /// What turns a distance from the middle into an argument of Chebyshev's polynomials.
    fn inverse_half(self) -> f64 {
        if self.low < 0.0 { -2.0 / self.low } else { 0.0 }
    }

    #[inline(always)]
    fn argument<S: Simd>(self, z: Stripe<S>) -> Stripe<S> {
        let low = f64s::<S>(z.token(), self.low);
        (z.max(low) - self.middle()) * self.inverse_half()
    }
}

/// p in place of z.
#[simd]
pub(super) fn probabilities<S: Simd, D: Smooth>(
    simd: S,
    narrow: bool,
    z: &mut [f64],
    room: &mut Room,
) {
    let span = Span::new::<S, D>(simd, z, narrow);
    prepare::<S, D, false>(simd, span, z, &[], room);
    let step = place_nodes::<S, D>(simd, span, room);
    integrate::<S, D>(simd, step, room);
    if span.is_direct() {
        let mut next = 0;
        for z in &mut *z {
            (*z, next) = at_point(span, *z, next, &room.log_p);
        }
        exponentials(simd, z);
        return;
    }
    fit::<S>(simd, span.degree, &room.log_p, &mut room.series[0]);
    for block in z.chunks_exact_mut(BLOCK) {
        let (z, t) = arguments::<S>(simd, span, block);
        let log_p = sum_up::<S>(simd, &room.series[0], t);
        for ((to, z), log_p) in block.chunks_exact_mut(LANES).zip(z).zip(log_p) {
            value::<S, D>(span, z, log_p).store_slice(to);
        }
    }
}

/// p in place of z, and Jᵀg in place of g.
#[simd]
pub(super) fn gradient<S: Simd, D: Smooth>(
    simd: S,
    narrow: bool,
    z: &mut [f64],
    g: &mut [f64],
    room: &mut Room,
) {
    let span = Span::new::<S, D>(simd, z, narrow);
    prepare::<S, D, true>(simd, span, z, g, room);
    let step = place_nodes::<S, D>(simd, span, room);
    integrate::<S, D>(simd, step, room);
    let mean = expect::<S>(simd, step, room);
    let [of_h, of_k] = &room.means;
    if span.is_direct() {
        let mut next = 0;
        for (z, g) in z.iter_mut().zip(&mut *g) {
            let at = if *z >= span.floor { next } else { span.count };
            *g = if at < of_h.len() {
                (*g - mean) * of_h[at] - of_k[at]
            } else {
                0.0
            };
            (*z, next) = at_point(span, *z, next, &room.log_p);
        }
        exponentials(simd, z);
        for (p, g) in z.chunks_exact(LANES).zip(g.chunks_exact_mut(LANES)) {
            let p = stripe::<S>(simd, p);
            taken::<S>(p, p * stripe::<S>(simd, g)).store_slice(g);
        }
        return;
    }
    fit::<S>(simd, span.degree, &room.log_p, &mut room.series[0]);
    fit::<S>(simd, span.degree, of_h, &mut room.series[1]);
    fit::<S>(simd, span.degree, of_k, &mut room.series[2]);
    for (block, g) in z.chunks_exact_mut(BLOCK).zip(g.chunks_exact_mut(BLOCK)) {
        let (z, t) = arguments::<S>(simd, span, block);
        let log_p = sum_up::<S>(simd, &room.series[0], t);
        let of_h = sum_up::<S>(simd, &room.series[1], t);
        let of_k = sum_up::<S>(simd, &room.series[2], t);
        for (k, (to, g)) in block
            .chunks_exact_mut(LANES)
            .zip(g.chunks_exact_mut(LANES))
            .enumerate()
        {
            let p = value::<S, D>(span, z[k], log_p[k]);
            p.store_slice(to);
            let pulled = (stripe::<S>(simd, g) - mean) * of_h[k] - of_k[k];
            taken::<S>(p, p * pulled).store_slice(g);
        }
    }
}

/// ln p of an entry where the entries are the points, and the next point.
fn at_point(span: Span, z: f64, next: usize, log_p: &[f64]) -> (f64, usize) {
    if z >= span.floor {
        (log_p[next], next + 1)
    } else if span.tail {
        (log_p[span.count] + (z - span.floor), next)
    } else {
        (f64::NEG_INFINITY, next)
    }
}

#[inline(always)]
fn arguments<S: Simd>(simd: S, span: Span, block: &[f64]) -> ([Stripe<S>; 4], [Stripe<S>; 4]) {
    let mut z = [f64s::<S>(simd, 0.0); 4];
    let mut t = z;
    for (k, from) in block.chunks_exact(LANES).enumerate() {
        z[k] = stripe::<S>(simd, from);
        t[k] = span.argument::<S>(z[k]);
    }
    (z, t)
}

/// p from the logarithm at z, or at the floor if z is below.
#[inline(always)]
fn value<S: Simd, D: Smooth>(span: Span, z: Stripe<S>, log_p: Stripe<S>) -> Stripe<S> {
    let simd = z.token();
    let low = f64s::<S>(simd, span.low);
    let p = exp::<f64, S>(log_p + (z - z.max(low)));
    if D::TAIL {
        p
    } else {
        z.simd_ge(span.floor).select(p, f64s::<S>(simd, 0.0))
    }
}

/// Settles the points and their weights, and the rough ones of [`place_nodes`].
#[inline(always)]
fn prepare<S: Simd, D: Smooth, const PULL: bool>(
    simd: S,
    span: Span,
    z: &[f64],
    g: &[f64],
    room: &mut Room,
) {
    let Room {
        points,
        rough,
        sums,
        ..
    } = room;
    if span.is_direct() {
        points.c.clear();
        points.pulls.clear();
        for (k, &z) in z.iter().enumerate() {
            if z >= span.floor {
                points.c.push(z);
                points.pulls.push(if PULL { g[k] } else { 0.0 });
            }
        }
        points.weights.clear();
        points.weights.resize(span.count, 1.0);
        if span.tail {
            points.c.push(span.floor);
            points.weights.push(0.0);
            points.pulls.push(0.0);
        }
        rough.c.clone_from(&points.c);
        rough.weights.clone_from(&points.weights);
        return;
    }
    analyze::<S, PULL>(simd, span, z, g, sums);
    points.weigh::<S>(simd, span, span.degree, &sums[0]);
    let half = (span.degree / 2).next_multiple_of(LANES);
    rough.weigh::<S>(simd, span, half, &sums[0]);
    if PULL {
        transform::<S>(simd, cosines(span.degree).0, &sums[1], &mut points.pulls);
    }
}

impl Points {
    /// From the sums of Chebyshev's polynomials over the entries.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, span: Span, degree: usize, sums: &[f64]) {
        let cosines = cosines(degree).0;
        transform::<S>(simd, cosines, &sums[..degree], &mut self.weights);
        self.c.clear();
        for &t in &cosines[degree..2 * degree] {
            self.c.push(span.middle() - 0.5 * span.low * t);
        }
    }
}

/// `(2 - [q = 0])/m · Σⱼ Tq(tⱼ)` for q < m, and the same with the weights g.
#[inline(always)]
fn analyze<S: Simd, const PULL: bool>(
    simd: S,
    span: Span,
    z: &[f64],
    g: &[f64],
    sums: &mut [Vec<f64>; 2],
) {
    let degree = span.degree;
    let [plain, pulled] = sums;
    add_polynomials::<S, false>(simd, span, z, g, plain);
    if PULL {
        add_polynomials::<S, true>(simd, span, z, g, pulled);
    }
    for sums in [plain, pulled] {
        let lanes = sums.len();
        for q in 0..lanes / LANES {
            let factor = if q == 0 { 1.0 } else { 2.0 } / degree as f64;
            sums[q] = f64::fold_sum(stripe::<S>(simd, &sums[q * LANES..][..LANES])) * factor;
        }
        sums.truncate(lanes / LANES);
    }
}

/// `Σⱼ gⱼ Tq(tⱼ)` of each lane.
#[inline(always)]
fn add_polynomials<S: Simd, const PULL: bool>(
    simd: S,
    span: Span,
    z: &[f64],
    g: &[f64],
    sums: &mut Vec<f64>,
) {
    sums.clear();
    sums.resize(span.degree * LANES, 0.0);
    let (zero, one) = (f64s::<S>(simd, 0.0), f64s::<S>(simd, 1.0));
    for (index, block) in z.chunks_exact(BLOCK).enumerate() {
        let (z, mut t) = arguments::<S>(simd, span, block);
        let (mut old, mut new) = ([zero; 4], [zero; 4]);
        for k in 0..4 {
            let weight = if PULL {
                stripe::<S>(simd, &g[index * BLOCK + k * LANES..][..LANES])
            } else {
                one
            };
            old[k] = z[k].simd_ge(span.floor).select(weight, zero);
            new[k] = old[k] * t[k];
            t[k] += t[k];
        }
        for pair in sums.chunks_exact_mut(2 * LANES) {
            let (even, odd) = pair.split_at_mut(LANES);
            add_four::<S>(simd, even, old);
            add_four::<S>(simd, odd, new);
            for k in 0..4 {
                old[k] = t[k] * new[k] - old[k];
                new[k] = t[k] * old[k] - new[k];
            }
        }
    }
}

#[inline(always)]
fn add_four<S: Simd>(simd: S, sum: &mut [f64], [a, b, c, d]: [Stripe<S>; 4]) {
    (stripe::<S>(simd, sum) + ((a + b) + (c + d))).store_slice(sum);
}

/// The product of a row vector with a matrix.
#[inline(always)]
fn transform<S: Simd>(simd: S, matrix: &[f64], x: &[f64], y: &mut Vec<f64>) {
    let n = x.len();
    y.clear();
    y.resize(n, 0.0);
    for (x, row) in x.iter().zip(matrix.chunks_exact(n)) {
        for (y, a) in y.chunks_exact_mut(LANES).zip(row.chunks_exact(LANES)) {
            (stripe::<S>(simd, a) * *x + stripe::<S>(simd, y)).store_slice(y);
        }
    }
}

/// `cos(π q (j + ½)/m)`, row by row of q, and the transposed matrix; for m a multiple of `LANES`.
fn cosines(m: usize) -> (&'static [f64], &'static [f64]) {
    static KEPT: [OnceLock<(Vec<f64>, Vec<f64>)>; 64] = [const { OnceLock::new() }; 64];
    let (rows, columns) = KEPT[m / LANES].get_or_init(|| {
        let turn: Vec<f64> = (0..4 * m)
            .map(|k| libm::cos(PI * k as f64 / (2 * m) as f64))
            .collect();
        let at = |q: usize, j: usize| turn[q * (2 * j + 1) % (4 * m)];
        let square = |at: &dyn Fn(usize, usize) -> f64| {
            (0..m * m).map(|k| at(k / m, k % m)).collect::<Vec<f64>>()
        };
        (square(&at), square(&|j, q| at(q, j)))
    });
    (rows, columns)
}

/// Chebyshev's series through values at the points, in half its first coefficient; without what rounding made.
#[inline(always)]
fn fit<S: Simd>(simd: S, degree: usize, values: &[f64], series: &mut Vec<f64>) {
    transform::<S>(simd, cosines(degree).1, values, series);
    let factor = 2.0 / degree as f64;
    let mut most = 1.0f64;
    for a in &mut *series {
        *a *= factor;
        most = most.max(a.abs());
    }
    series[0] *= 0.5;
    while series.len() > 2 && series[series.len() - 1].abs() < 4e-16 * most {
        series.pop();
    }
}

/// Clenshaw's recurrence.
#[inline(always)]
fn sum_up<S: Simd>(simd: S, series: &[f64], t: [Stripe<S>; 4]) -> [Stripe<S>; 4] {
    let zero = f64s::<S>(simd, 0.0);
    let (mut new, mut old) = ([zero; 4], [zero; 4]);
    for &a in series[1..].iter().rev() {
        for k in 0..4 {
            (new[k], old[k]) = ((t[k] + t[k]) * new[k] + (-old[k] + a), new[k]);
        }
    }
    for k in 0..4 {
        new[k] = t[k] * new[k] + (-old[k] + series[0]);
    }
    new
}

/// Where integrands are of any size: sets the nodes, whole stripes of them, and returns their spacing.
#[inline(always)]
fn place_nodes<S: Simd, D: Smooth>(simd: S, span: Span, room: &mut Room) -> f64 {
    let (start, end) = D::range(span.low, span.count as f64);
    let cell = (end - start) / (FIRST_LOOK - 1) as f64;
    let [lower, upper] = look::<S, D, FIRST_LOOK>(simd, &room.rough, span.low, start, cell);
    let left = lower.first_above(DEPTH).saturating_sub(1);
    let end = start + cell * upper.falling(DEPTH);
    // The second look goes from the lower end to beyond the mode.
    let start = start + cell * left as f64;
    let finer = cell * (lower.peak + 1 - left) as f64 / (SECOND_LOOK - 1) as f64;
    let [lower, _] = look::<S, D, SECOND_LOOK>(simd, &room.rough, span.low, start, finer);
    let rise = lower.rising(DEPTH);
    let width = finer * (lower.summit() - rise).max(1.0);
    let step = (SPACING * width).min(WIDEST);
    let start = start + finer * rise;
    let count = (((end - start) / step) as usize + 1).next_multiple_of(LANES);
    room.u.clear();
    for k in 0..count {
        room.u.push(start + step * k as f64);
    }
    step
}

/// The logarithm of an integrand at N nodes, and where it is largest.
#[derive(Clone, Copy)]
struct Look<const N: usize> {
    values: [f64; N],
    peak: usize,
}

impl<const N: usize> Look<N> {
    fn first_above(&self, depth: f64) -> usize {
        let least = self.values[self.peak] - depth;
        (0..self.peak)
            .find(|&k| self.values[k] > least)
            .unwrap_or(self.peak)
    }

    /// Where the values rise through the depth. Between nodes they are concave, and lie above what is taken here.
    fn rising(&self, depth: f64) -> f64 {
        let above = self.first_above(depth);
        match above.checked_sub(1) {
            Some(below) => above as f64 - self.above(above, below, depth),
            None => 0.0,
        }
    }

    /// Where they fall through it again.
    fn falling(&self, depth: f64) -> f64 {
        let least = self.values[self.peak] - depth;
        let above = (self.peak..N)
            .rfind(|&k| self.values[k] > least)
            .unwrap_or(self.peak);
        if above + 1 < N {
            above as f64 + self.above(above, above + 1, depth)
        } else {
            above as f64
        }
    }

    /// The part of the way from node `above` to `below` at which the depth is reached.
    fn above(&self, above: usize, below: usize, depth: f64) -> f64 {
        let excess = self.values[above] - (self.values[self.peak] - depth);
        excess / (self.values[above] - self.values[below])
    }

    /// The top of the parabola through the largest value and its neighbours.
    fn summit(&self) -> f64 {
        let peak = self.peak.clamp(1, N - 2);
        let [a, b, c] = [peak - 1, peak, peak + 1].map(|k| self.values[k]);
        let bend = a - 2.0 * b + c;
        if bend < 0.0 {
            peak as f64 + (0.5 * (a - c) / bend).clamp(-1.0, 1.0)
        } else {
            peak as f64
        }
    }
}

/// The integrands of the lowest z and of the highest.
#[inline(always)]
fn look<S: Simd, D: Smooth, const N: usize>(
    simd: S,
    points: &Points,
    low: f64,
    start: f64,
    cell: f64,
) -> [Look<N>; 2] {
    let mut looks = [Look {
        values: [0.0; N],
        peak: 0,
    }; 2];
    for first in (0..N).step_by(LANES) {
        let mut u = f64s::<S>(simd, 0.0);
        for k in 0..LANES {
            u[k] = start + cell * (first + k) as f64;
        }
        let mut log_g = f64s::<S>(simd, 0.0);
        for (&c, &weight) in points.c.iter().zip(&points.weights) {
            log_g += D::log_cdf_and_hazard::<S>(u - c).0 * weight;
        }
        for (look, z) in looks.iter_mut().zip([low, 0.0]) {
            let x = u - z;
            let log = log_g + D::log_hazard::<S>(x, D::log_cdf_and_hazard::<S>(x).0);
            log.store_slice(&mut look.values[first..][..LANES]);
        }
    }
    for look in &mut looks {
        for k in 1..N {
            if look.values[k] > look.values[look.peak] {
                look.peak = k;
            }
        }
    }
    looks
}

/// Fills `g`, `hazards` and `log_p`.
#[inline(always)]
fn integrate<S: Simd, D: Smooth>(simd: S, step: f64, room: &mut Room) {
    let Room {
        points,
        u,
        g,
        hazards,
        log_p,
        ..
    } = room;
    let nodes = u.len();
    g.clear();
    g.resize(nodes, 0.0);
    hazards.resize(points.c.len() * nodes, 0.0);
    for ((&c, &weight), row) in points
        .c
        .iter()
        .zip(&points.weights)
        .zip(hazards.chunks_exact_mut(nodes))
    {
        for ((u, log_g), to) in u
            .chunks_exact(LANES)
            .zip(g.chunks_exact_mut(LANES))
            .zip(row.chunks_exact_mut(LANES))
        {
            let (log_cdf, hazard) = D::log_cdf_and_hazard::<S>(stripe::<S>(simd, u) - c);
            hazard.store_slice(to);
            (log_cdf * weight + stripe::<S>(simd, log_g)).store_slice(log_g);
        }
    }
    exponentials(simd, g);
    let count = points.c.len();
    log_p.clear();
    for row in hazards.chunks_exact(nodes).take(count) {
        log_p.push(step * dot::<S>(simd, row, g));
    }
    log_p.resize(count.next_multiple_of(LANES), 1.0);
    for p in log_p.chunks_exact_mut(LANES) {
        ln::<f64, S>(stripe::<S>(simd, p)).store_slice(p);
    }
    log_p.truncate(count);
}

#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[f64], y: &[f64]) -> f64 {
    let mut sum = f64s::<S>(simd, 0.0);
    for (x, y) in x.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
        sum += stripe::<S>(simd, x) * stripe::<S>(simd, y);
    }
    f64::fold_sum(sum)
}

/// Fills `means` with E[H] and E[K], and returns the mean of g under p, from which K takes g.
#[inline(always)]
fn expect<S: Simd>(simd: S, step: f64, room: &mut Room) -> f64 {
    let Room {
        points,
        u,
        g,
        hazard,
        pull,
        hazards,
        p,
        log_p,
        means,
        ..
    } = room;
    let (nodes, count) = (u.len(), points.c.len());
    p.clear();
    p.extend_from_slice(log_p);
    p.resize(count.next_multiple_of(LANES), 0.0);
    exponentials(simd, p);
    let (mut total, mut mean) = (0.0, 0.0);
    for ((p, weight), pull) in p.iter().zip(&points.weights).zip(&points.pulls) {
        total += p * weight;
        mean += p * pull;
    }
    let mean = mean / total;
    for (pull, weight) in points.pulls.iter_mut().zip(&points.weights) {
        *pull -= mean * weight;
    }
    let [of_h, of_k] = means;
    for (to, weights, of) in [(hazard, &points.weights, of_h), (pull, &points.pulls, of_k)] {
        to.clear();
        to.resize(nodes, 0.0);
        for (&weight, row) in weights.iter().zip(hazards.chunks_exact(nodes)) {
            for (to, h) in to.chunks_exact_mut(LANES).zip(row.chunks_exact(LANES)) {
                (stripe::<S>(simd, h) * weight + stripe::<S>(simd, to)).store_slice(to);
            }
        }
        for (to, g) in to.chunks_exact_mut(LANES).zip(g.chunks_exact(LANES)) {
            (stripe::<S>(simd, to) * stripe::<S>(simd, g)).store_slice(to);
        }
        of.clear();
        for (row, p) in hazards.chunks_exact(nodes).zip(&p[..count]) {
            of.push(step * dot::<S>(simd, row, to) / p);
        }
    }
    mean
}
