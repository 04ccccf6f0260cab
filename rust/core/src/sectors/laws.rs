//! The laws of the gaps between n independent uniform points on a circle, exactly: the largest, the smallest, and the
//! smallest sector that holds all points, which is what the largest gap leaves of the circle.
//!
//! In turns, the largest gap G is below x with probability (Fisher 1929, Stevens 1939)
//! `C = Σⱼ (-1)ʲ C(n,j) (1-jx)₊ⁿ⁻¹ = (n-1)! xⁿ⁻¹ Mₙ(1/x)`, where Mₙ is the density of the sum of n uniform variables.
//! The smallest gap is above x with probability `(1-nx)₊ⁿ⁻¹`.
//!
//! * **Domain.** 1 to 2⁵³ points, any angle in radians. An angle stands for itself, with all digits of 2π; only the ends of
//!   a support are where doubles put them: `TAU / n`, `TAU` and `TAU - TAU / n`.
//! * **Precision.** Both tails have a relative error of at most some n·5e-16 for up to 1000 points, 5e-13 for up to 10⁸ and
//!   2e-12 for any number; the density twice that. A result below 1e-308 is 0 or subnormal; its logarithm is not, and has a
//!   relative error of some 1e-14. Quantiles are as accurate as a double of their size can be.
//! * **Determinism.** Pure Rust (`libm`): the same bits on every machine at any number of workers.
//! * **Cost.** Up to 2 µs for one value, however many points; 0.3 µs on average over the circle at n = 100. A quantile takes up
//!   to 10 µs.
//!
//! ```text
//! S ← P(G ≥ x) = n (1-x)ⁿ⁻¹ (1 - …)                  if its first term is at most e^-1/2     # C = 1 - S
//! C ← (nx-1)ⁿ⁻¹ (1 - n (1 - x/(nx-1))ⁿ⁻¹ + …)        if its second term is at most 1
//! C ← scaled recursion of Mₙ                          if n ≤ 64                              # S = 1 - C
//! C ← integral of Mₙ through its saddle point         otherwise
//! ```
//! The second line is the first formula with the symmetry `Mₙ(u) = Mₙ(n-u)`. In the first two, terms alternate but fall
//! at least as fast as 1/k!, and no tail above 0.63 is used; the others have positive terms, or a peak that is nearly Gaussian.
//!
//! The density of G is `n(n-1) (1-x)ⁿ⁻² P(the largest of n-1 gaps < x/(1-x))`: one gap is x, no other is larger.

use std::f64::consts::{LN_2, PI, TAU};

use libm::{atan2, cos, exp, expm1, fma, log, log1p, pow, sincos};

use super::interval::{log1p_lag, stirling_error};
use crate::{error::Error, parallel::Run};

/// Which random variable, in radians.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// The largest gap between neighbours.
    MaxGap,
    /// The smallest gap between neighbours.
    MinGap,
    /// The smallest sector that holds all points: 2π - [`Law::MaxGap`].
    Sector,
}

/// What to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// P(X ≤ value).
    Cdf,
    /// P(X > value).
    Sf,
    /// The logarithm of [`Quantity::Cdf`].
    LogCdf,
    /// The logarithm of [`Quantity::Sf`].
    LogSf,
    /// The density; infinite at an atom (n = 1).
    Pdf,
    /// The value with P(X ≤ value) = p.
    Ppf,
    /// The value with P(X > value) = q.
    Isf,
}

/// Values that one task takes.
const CHUNK: usize = 1024;

/// The largest number of points: up to here each is a double.
pub(super) const MOST: u64 = 1 << 53;

/// 2π - TAU.
const TAU_LOW: f64 = 2.449_293_598_294_706_4e-16;

/// The step of the integral in inverse standard deviations: the nearest densities that it adds are eleven of them away.
const STEP: f64 = 0.55;

/// Up to here the recursion is as fast as the integral. The integrand decays as a power of n: far below, slowly.
const RECURSION: f64 = 64.0;

/// `out[i]` becomes the quantity of the law of `n[i]` points at `value[i]`: radians, or a probability for
/// [`Quantity::Ppf`] and [`Quantity::Isf`].
///
/// NaN where the value is NaN, or a probability not from 0 to 1.
///
/// # Errors
/// [`Error::Length`] if the slices differ in length, [`Error::Domain`] if an n is not from 1 to 2⁵³, or as [`Run::each`].
pub fn evaluate(
    run: &mut Run<'_>,
    law: Law,
    quantity: Quantity,
    n: &[u64],
    value: &[f64],
    out: &mut [f64],
) -> Result<(), Error> {
    for (argument, found) in [("n", n.len()), ("out", out.len())] {
        if found != value.len() {
            return Err(Error::Length {
                argument,
                expected: value.len(),
                found,
            });
        }
    }
    if let Some(&n) = n.iter().find(|n| !(1..=MOST).contains(*n)) {
        return Err(Error::Domain {
            argument: "n",
            domain: "from 1 to 2**53",
            value: n as f64,
        });
    }
    run.each_chunk(
        out,
        CHUNK,
        || (),
        |(), index, out| {
            let start = index * CHUNK;
            for (i, out) in out.iter_mut().enumerate() {
                *out = evaluate_one(law, quantity, n[start + i] as f64, value[start + i]);
            }
        },
    )
}

/// The mean in radians; NaN without points.
pub fn mean(law: Law, n: u64) -> f64 {
    let points = n as f64;
    match law {
        _ if n == 0 => f64::NAN,
        Law::MaxGap => mean_of_largest(n, 1),
        Law::Sector => TAU - mean_of_largest(n, 1),
        Law::MinGap => TAU / points / points,
    }
}

/// The variance in square radians; NaN without points.
pub fn variance(law: Law, n: u64) -> f64 {
    let points = n as f64;
    let in_turns = match law {
        _ if n == 0 => f64::NAN,
        Law::MaxGap | Law::Sector => {
            let harmonic = inverse_sum(1, n);
            (inverse_square_sum(n) - harmonic * harmonic / points) / points / (points + 1.0)
        }
        Law::MinGap => (points - 1.0) / (points + 1.0) / (points * points) / (points * points),
    };
    in_turns * TAU * TAU
}

/// The mean of the k-th largest of n gaps in radians, `2π/n Σ 1/j` over j from k to n; NaN unless 1 ≤ k ≤ n.
pub fn mean_of_largest(n: u64, k: u64) -> f64 {
    if (1..=n).contains(&k) {
        TAU / n as f64 * inverse_sum(k, n)
    } else {
        f64::NAN
    }
}

/// One value of [`evaluate`].
pub(super) fn evaluate_one(law: Law, quantity: Quantity, n: f64, value: f64) -> f64 {
    let (low, high) = support(law, n);
    match quantity {
        _ if value.is_nan() => f64::NAN,
        Quantity::Cdf => tail(law, n, value).probability(true),
        Quantity::Sf => tail(law, n, value).probability(false),
        Quantity::LogCdf => tail(law, n, value).log_probability(true),
        Quantity::LogSf => tail(law, n, value).log_probability(false),
        Quantity::Pdf if value < low || value > high => 0.0,
        Quantity::Pdf if n == 1.0 => f64::INFINITY,
        Quantity::Pdf => density(law, n, value),
        Quantity::Ppf | Quantity::Isf if !(0.0..=1.0).contains(&value) => f64::NAN,
        Quantity::Ppf => quantile(law, n, value, true).clamp(low, high),
        Quantity::Isf => quantile(law, n, value, false).clamp(low, high),
    }
}

/// Where the law lives: one point if n is 1.
fn support(law: Law, n: f64) -> (f64, f64) {
    match law {
        Law::MaxGap => (TAU / n, TAU),
        Law::MinGap if n == 1.0 => (TAU, TAU),
        Law::MinGap => (0.0, TAU / n),
        Law::Sector => (0.0, TAU - TAU / n),
    }
}

fn tail(law: Law, n: f64, value: f64) -> Tail {
    let (low, high) = support(law, n);
    if value >= high {
        return Tail::of(false, 0.0);
    }
    if value <= low {
        return Tail::of(true, 0.0);
    }
    match law {
        Law::MaxGap => largest_gap(n, Gap::of_angle(n, value)),
        Law::MinGap => smallest_gap(n, Gap::of_angle(n, value)),
        Law::Sector => {
            let tail = largest_gap(n, Gap::beside(n, value));
            let lower = !tail.lower; // the sector is small where the gap is large
            Tail { lower, ..tail }
        }
    }
}

/// The density in 1/radians inside the support, n > 1.
fn density(law: Law, n: f64, value: f64) -> f64 {
    let log_density = match law {
        Law::MaxGap => log_largest_gap_density(n, Gap::of_angle(n, value)),
        Law::Sector => log_largest_gap_density(n, Gap::beside(n, value)),
        Law::MinGap => {
            let gap = Gap::of_angle(n, value);
            log(n * (n - 1.0)) + log_power(n - 2.0, -gap.excess, n * gap.turns)
        }
    };
    exp(log_density) / TAU
}

/// The value with mass p below it, or above it.
fn quantile(law: Law, n: f64, p: f64, below: bool) -> f64 {
    let (low, high) = support(law, n);
    if n == 1.0 || p == 0.0 || p == 1.0 {
        return if below == (p == 0.0) { low } else { high };
    }
    if law == Law::MinGap {
        let log_sf = if below { log1p(-p) } else { log(p) };
        return -expm1(log_sf / (n - 1.0)) / n * TAU;
    }
    let lower = below == (law == Law::MaxGap);
    let gap = if p <= 0.5 {
        largest_gap_quantile(n, p, lower)
    } else {
        largest_gap_quantile(n, 1.0 - p, !lower)
    };
    match law {
        Law::Sector => gap.rest * TAU,
        _ => gap.turns * TAU,
    }
}

/// A gap of x turns and what cancels in its formulas, each to full relative precision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    /// x.
    pub turns: f64,
    /// 1 - x.
    pub rest: f64,
    /// nx - 1.
    pub excess: f64,
}

impl Gap {
    /// A gap in radians.
    pub(super) fn of_angle(n: f64, angle: f64) -> Self {
        let (high, low) = in_turns(angle);
        Self::of_turns(n, high, low)
    }

    /// The gap beside a sector in radians.
    fn beside(n: f64, sector: f64) -> Self {
        let (high, low) = in_turns(sector);
        let turns = 1.0 - high;
        Self::of_turns(n, turns, (1.0 - turns) - high - low)
    }

    /// A gap of high + low turns.
    fn of_turns(n: f64, high: f64, low: f64) -> Self {
        let product = n * high;
        Self {
            turns: high + low,
            rest: (1.0 - high) - low,
            excess: (product - 1.0) + (fma(n, high, -product) + n * low),
        }
    }
}

/// An angle over 2π, as an unevaluated sum of two doubles.
fn in_turns(angle: f64) -> (f64, f64) {
    let high = angle / TAU;
    (high, (fma(-high, TAU, angle) - high * TAU_LOW) / TAU)
}

/// One tail of a law, `scale · exp(exponent · log_base)`; the other is 1 minus it.
#[derive(Debug, Clone, Copy)]
struct Tail {
    /// Whether it is the cdf.
    lower: bool,
    scale: f64,
    /// Only read where it is at most 1/2.
    base: f64,
    log_base: f64,
    exponent: f64,
}

impl Tail {
    /// A probability without a power.
    fn of(lower: bool, scale: f64) -> Self {
        Self {
            lower,
            scale,
            base: 1.0,
            log_base: 0.0,
            exponent: 0.0,
        }
    }

    fn value(&self) -> f64 {
        if self.base <= 0.5 {
            self.scale * pow(self.base, self.exponent) // exact for simple fractions
        } else if self.exponent == 0.0 {
            self.scale
        } else {
            exp(self.log())
        }
    }

    fn log(&self) -> f64 {
        log(self.scale) + self.exponent * self.log_base
    }

    /// The cdf if `lower`, else the sf.
    fn probability(&self, lower: bool) -> f64 {
        if lower == self.lower {
            self.value()
        } else {
            1.0 - self.value()
        }
    }

    fn log_probability(&self, lower: bool) -> f64 {
        if lower == self.lower {
            self.log()
        } else {
            log1p(0.0 - self.value()) // of 0 it makes 0, not -0
        }
    }
}

/// The law of the smallest gap inside its support.
fn smallest_gap(n: f64, gap: Gap) -> Tail {
    let log_sf = log_power(n - 1.0, -gap.excess, n * gap.turns);
    if log_sf > -LN_2 {
        Tail::of(true, -expm1(log_sf))
    } else {
        Tail {
            lower: false,
            scale: 1.0,
            base: -gap.excess,
            log_base: log_sf / (n - 1.0),
            exponent: n - 1.0,
        }
    }
}

/// The law of the largest gap for x < 1, n > 1.
fn largest_gap(n: f64, gap: Gap) -> Tail {
    let Gap {
        turns,
        rest,
        excess,
    } = gap;
    if excess <= 0.0 {
        return Tail::of(true, 0.0); // also just inside a rounded end of the support
    }
    let power = n - 1.0;
    let log_rest = log_power(1.0, rest, turns);
    if log(n) + power * log_rest <= -0.5 {
        return Tail {
            lower: false,
            scale: n * alternating_sum(power, power, 1.0, turns / rest),
            base: rest,
            log_base: log_rest,
            exponent: power,
        };
    }
    let ratio = turns / excess;
    if ratio >= 1.0 || log(n) + power * log1p(-ratio) <= 0.0 {
        return Tail {
            lower: true,
            scale: alternating_sum(power, n, 0.0, ratio),
            base: excess,
            log_base: log(excess),
            exponent: power,
        };
    }
    if n <= RECURSION {
        Tail::of(true, recursion(n, gap))
    } else {
        saddle_point(n, gap)
    }
}

/// `Σⱼ (-1)ʲ Πᵢ₌₁ʲ (many-i+1)/(i+offset) · (1-jx)₊ᵖᵒʷᵉʳ`, where the second term is at most 1.
pub(super) fn alternating_sum(power: f64, many: f64, offset: f64, x: f64) -> f64 {
    let (mut sum, mut term, mut j) = (1.0, 1.0, 1.0);
    while j * x < 1.0 {
        let shrunk = exp(power * log1p(-x / (1.0 - (j - 1.0) * x)));
        term *= -(many - j + 1.0) / (j + offset) * shrunk;
        sum += term;
        if term.abs() < 1e-18 {
            break;
        }
        j += 1.0;
    }
    sum
}

/// C by `Cₘ(v) = x [v Cₘ₋₁(v) + (m-v) Cₘ₋₁(v-1)]`, C₁ = 1 on [0, 1): positive terms only.
fn recursion(n: f64, gap: Gap) -> f64 {
    const LEN: usize = RECURSION as usize / 2 + 2;
    let Gap { turns, excess, .. } = gap;
    // u or n - u, whichever is smaller.
    let end = excess.min(1.0) / turns;
    let (n, last) = (n as usize, end as usize);
    let v: [f64; LEN] = std::array::from_fn(|i| end - i as f64);
    let mut c = [0.0; LEN]; // at v, and a zero for what is below 0
    c[last] = 1.0;
    for m in 2..=n {
        // From the end of the support to what the result still needs.
        let (first, count) = ((last + 1).saturating_sub(m), last.min(n - m) + 1);
        let m = m as f64;
        for i in first..count {
            c[i] = turns * (v[i] * c[i] + (m - v[i]) * c[i + 1]);
        }
    }
    c[0]
}

/// C by an integral along the vertical line through the saddle point, that is: tilted by the rate r, the n uniform variables
/// become truncated exponentials with the mean u/n, and the density of their sum there is the integral of its
/// characteristic function. The trapezoidal rule is exact up to the densities at u ± 2π/step.
fn saddle_point(n: f64, gap: Gap) -> Tail {
    let Gap { turns, excess, .. } = gap;
    // u/n, or 1 - u/n by symmetry, so that r > 0.
    let (mean, outer) = if excess >= 1.0 {
        (1.0 / (1.0 + excess), 0.0)
    } else {
        (excess / (1.0 + excess), log(excess))
    };
    let r = rate(mean);
    // ln [nx · M(-r) · exp(r·mean - 1)] with M(-r) = (1-e⁻ʳ)/r; for large r, both parts are small.
    let lag = 1.0 - r * mean;
    let log_base = if r < 1.0 {
        outer + log(-expm1(-r) / (r * mean)) - lag
    } else {
        outer + log1p(-exp(-r)) + log1p_lag(-lag)
    };
    let density = density_at_mean(n, r, mean);
    Tail {
        lower: true,
        // The rest of (n-1)! xⁿ⁻¹, by Stirling's series.
        scale: (TAU / n).sqrt() * exp(stirling_error(n)) / turns * density,
        base: 1.0,
        log_base,
        exponent: n,
    }
}

/// The density of the sum of n exponential variables of rate r, truncated to [0, 1], at their mean.
fn density_at_mean(n: f64, r: f64, mean: f64) -> f64 {
    let q = 1.0 / expm1(r);
    let deviation = (n / (r * r + 12.0)).sqrt(); // of the sum, up to 10 % less
    let step = STEP / deviation;
    let mut sum = 0.5;
    let mut k = 1.0;
    loop {
        let t = k * step;
        let (s, c) = sincos(0.5 * t);
        let tau = t / r;
        // The characteristic function of one is (1 - q(eⁱᵗ-1)) / (1 - iτ).
        let square = log1p((4.0 * q * (1.0 + q) * s * s - tau * tau) / (1.0 + tau * tau));
        let modulus = exp(0.5 * n * square);
        if modulus < 1e-17 {
            return sum * step / PI;
        }
        let (real, imaginary) = (1.0 + 2.0 * q * s * s, 2.0 * q * s * c);
        let argument = atan2(tau * real - imaginary, real + tau * imaginary);
        sum += modulus * cos(n * (argument - t * mean));
        k += 1.0;
    }
}

/// The rate at which an exponential variable truncated to [0, 1] has this mean, from 0 to 1/2: `1/r - 1/(eʳ-1) = mean`.
fn rate(mean: f64) -> f64 {
    let skew = 1.0 - 2.0 * mean;
    // Cohen's approximation of the inverse Langevin function, good to 5 % and much better for small rates.
    let mut r = (2.0 * skew * (3.0 - skew * skew) / (1.0 - skew * skew)).max(1e-7);
    if r > 1e-3 {
        for _ in 0..4 {
            let q = 1.0 / expm1(r);
            r += (1.0 / r - q - mean) / (1.0 / (r * r) - q * (1.0 + q));
        }
    }
    r
}

/// The log of the density of the largest gap in 1/turns, n > 1.
fn log_largest_gap_density(n: f64, gap: Gap) -> f64 {
    let Gap {
        turns,
        rest,
        excess,
    } = gap;
    let others = if n == 2.0 || turns >= rest {
        0.0
    } else {
        let gap = Gap {
            turns: turns / rest,
            rest: (rest - turns) / rest,
            excess: excess / rest,
        };
        largest_gap(n - 1.0, gap).log_probability(true)
    };
    log(n * (n - 1.0)) + log_power(n - 2.0, rest, turns) + others
}

/// The largest gap with mass p ≤ 1/2 below it, or above it: Newton's method on the log of that mass, in an unknown of which
/// it is nearly a linear function, `t = ln(nx-1)` or `t = -ln(1-x)`, from bounds of either.
fn largest_gap_quantile(n: f64, p: f64, lower: bool) -> Gap {
    /// A bound can be the solution but for rounding.
    const SLACK: f64 = 1e-6;
    let (power, log_p) = (n - 1.0, log(p));
    let at = |t: f64| {
        if lower {
            let excess = exp(t);
            Gap {
                turns: (1.0 + excess) / n,
                rest: (power - excess) / n,
                excess,
            }
        } else {
            let turns = -expm1(-t);
            Gap {
                turns,
                rest: exp(-t),
                excess: n * turns - 1.0,
            }
        }
    };
    let (mut low, mut high, mut t);
    if lower {
        // The first terms bound the sums: P(G < x) ≤ (nx-1)ⁿ⁻¹ and P(G ≥ x) ≤ n (1-x)ⁿ⁻¹.
        low = log_p / power;
        if exp(low) * power <= 1.0 {
            return at(low); // there is no second term
        }
        high = log(-expm1((log1p(-p) - log(n)) / power) * n - 1.0) + SLACK;
        t = log((log(n) - log(-log_p) - 1.0).max(exp(low))); // Gumbel's law
        low -= SLACK;
    } else {
        high = (log(n) - log_p) / power;
        if exp(-high) <= 0.5 {
            return at(high);
        }
        low = high - LN_2 / power; // two terms: S ≥ s(1-s/2) for s = n (1-x)ⁿ⁻¹ ≤ 1
        t = (log(n) - log(-log1p(-p))) / power; // Gumbel's law
        high *= 1.0 + SLACK;
    }
    for _ in 0..100 {
        let gap = at(t);
        let log_mass = largest_gap(n, gap).log_probability(lower);
        let (slope, scale) = if lower {
            (gap.excess / n, t.abs().max(1.0))
        } else {
            (-gap.rest, t)
        };
        let short = log_p - log_mass;
        if (short > 0.0) == lower {
            low = t;
        } else {
            high = t;
        }
        let next = t + short / (slope * exp(log_largest_gap_density(n, gap) - log_mass));
        let inside = next >= low && next <= high;
        let previous = std::mem::replace(&mut t, if inside { next } else { 0.5 * (low + high) });
        // The error of a Newton step is of the order of its square.
        if (t - previous).abs() <= 1e-9 * scale {
            break;
        }
    }
    at(t)
}

/// `exponent · ln(base)` for a base that is also 1 - complement; 0 where the exponent is 0.
pub(super) fn log_power(exponent: f64, base: f64, complement: f64) -> f64 {
    if exponent == 0.0 {
        0.0
    } else if complement < 0.5 {
        exponent * log1p(-complement)
    } else {
        exponent * log(base.max(0.0))
    }
}

/// From here on, sums over 1/j are the asymptotic series of the digamma function.
const SERIES: u64 = 32;

/// `Σ 1/j` over j from k to n.
fn inverse_sum(k: u64, n: u64) -> f64 {
    let direct: f64 = (k..=n.min(SERIES - 1)).rev().map(|j| 1.0 / j as f64).sum();
    let k = k.max(SERIES);
    if n < k {
        return direct;
    }
    // ψ(z + 1/2) = ln z + 1/24z² - …, between the half integers.
    let correction = |z: f64| {
        let s = 1.0 / (z * z);
        s * (1.0 / 24.0 - s * (7.0 / 960.0 - s * (31.0 / 8064.0 - s * 127.0 / 30720.0)))
    };
    let (first, last) = (k as f64 - 0.5, n as f64 + 0.5);
    log1p((n - k + 1) as f64 / first) + (correction(last) - correction(first)) + direct
}

/// `Σ 1/j²` over j from 1 to n.
fn inverse_square_sum(n: u64) -> f64 {
    if n < SERIES {
        return (1..=n).rev().map(|j| 1.0 / (j * j) as f64).sum();
    }
    let z = n as f64 + 0.5;
    let s = 1.0 / (z * z);
    let rest =
        (1.0 - s * (1.0 / 12.0 - s * (7.0 / 240.0 - s * (31.0 / 1344.0 - s * 127.0 / 3840.0)))) / z;
    PI * PI / 6.0 - rest
}

#[cfg(test)]
mod tests {
    use fearless_simd::Level;
    use proptest::prelude::*;

    use super::*;

    fn close(value: f64, expected: f64, relative: f64) -> bool {
        (value - expected).abs() <= relative * expected.abs()
    }

    fn sector(quantity: Quantity, n: u64, turns: f64) -> f64 {
        evaluate_one(Law::Sector, quantity, n as f64, turns * TAU)
    }

    #[test]
    fn the_published_digits() {
        for (n, turns, expected) in [
            (4, 0.5, 0.5), // four ducks in a half circle
            (3, 0.5, 0.75),
            (4, 1.0 / 3.0, 4.0 / 27.0),
            (4, 2.0 / 3.0, 26.0 / 27.0),
            (6, 2.0 / 3.0, 177.0 / 243.0),
            (4, 0.6, 0.816),
            (5, 0.7, 0.9455),
            (8, 0.85, 0.999_987_206_25),
        ] {
            let p = sector(Quantity::Cdf, n, turns);
            assert!(close(p, expected, 1e-14), "{n} {turns}: {p}");
        }
        assert_eq!(sector(Quantity::Cdf, 4, 0.5), 0.5);
        // Where an alternating sum in doubles has no digit left.
        for (n, turns, expected) in [
            (200, 0.985, 4.771_706_624_792_906e-7),
            (1000, 0.996, 2.246_859_949_029_365e-10),
            (1000, 0.9965, 5.192_238_594_601_241e-18),
            (100, 0.975, 7.657_839_875_008e-7),
        ] {
            let p = sector(Quantity::Sf, n, turns);
            assert!(close(p, expected, 3e-13), "{n} {turns}: {p}");
            assert!(close(sector(Quantity::LogSf, n, turns), log(p), 1e-14));
        }
    }

    #[test]
    fn the_regimes_agree_where_they_overlap() {
        for n in [60.0, 64.0, 65.0, 100.0] {
            for i in 0..100 {
                let x = (1.3 + 0.05 * i as f64) / n;
                let gap = Gap::of_turns(n, x, 0.0);
                let law = largest_gap(n, gap).probability(true);
                let integral = saddle_point(n, gap).value();
                assert!(close(integral, law, 5e-14), "{n} {x}: {integral} {law}");
                if n <= RECURSION {
                    let positive = recursion(n, gap);
                    assert!(close(positive, law, 3e-14), "{n} {x}: {positive} {law}");
                }
            }
        }
    }

    #[test]
    fn the_support_ends_where_doubles_put_it() {
        for n in [1, 2, 3, 5, 7, 49, 64, 1000, 1 << 20, 1_000_003, MOST] {
            let n = n as f64;
            for law in [Law::MaxGap, Law::MinGap, Law::Sector] {
                let of = |quantity, value| evaluate_one(law, quantity, n, value);
                let (low, high) = support(law, n);
                assert_eq!(
                    (of(Quantity::Ppf, 0.0), of(Quantity::Ppf, 1.0)),
                    (low, high)
                );
                assert_eq!(
                    (of(Quantity::Isf, 1.0), of(Quantity::Isf, 0.0)),
                    (low, high)
                );
                for (value, cdf) in [
                    (f64::NEG_INFINITY, 0.0),
                    (low.next_down(), 0.0),
                    (high, 1.0),
                    (f64::INFINITY, 1.0),
                ] {
                    assert_eq!(of(Quantity::Cdf, value), cdf, "{law:?} {n} {value}");
                    assert_eq!(of(Quantity::Sf, value), 1.0 - cdf);
                    assert_eq!(of(Quantity::LogCdf, value), log(cdf));
                    assert_eq!(of(Quantity::LogSf, value), log(1.0 - cdf));
                }
                assert_eq!(of(Quantity::Pdf, low.next_down()), 0.0);
                assert_eq!(of(Quantity::Pdf, high.next_up()), 0.0);
                if n == 1.0 {
                    assert_eq!(of(Quantity::Pdf, low), f64::INFINITY);
                } else {
                    assert_eq!(of(Quantity::Cdf, low), 0.0);
                    assert!(of(Quantity::Pdf, low) >= 0.0 && of(Quantity::Pdf, high) >= 0.0);
                    let inside = of(Quantity::Cdf, high.next_down());
                    assert!((0.0..=1.0).contains(&inside), "{law:?} {n}: {inside}");
                }
                for value in [-0.1, 1.1, f64::NAN] {
                    assert!(of(Quantity::Ppf, value).is_nan() && of(Quantity::Isf, value).is_nan());
                }
                assert!(
                    of(Quantity::Cdf, f64::NAN).is_nan() && of(Quantity::Pdf, f64::NAN).is_nan()
                );
            }
        }
    }

    #[test]
    fn two_points_are_uniform() {
        for angle in [PI + 1e-7, 3.2, 4.0, 5.5, 6.2] {
            let of = |law, quantity, value| evaluate_one(law, quantity, 2.0, value);
            let p = (angle - PI - 0.5 * TAU_LOW) / PI;
            assert!(close(of(Law::MaxGap, Quantity::Cdf, angle), p, 1e-15));
            assert!(close(of(Law::MaxGap, Quantity::Sf, angle), 1.0 - p, 1e-14));
            assert!(close(
                of(Law::Sector, Quantity::Cdf, TAU - angle),
                1.0 - p,
                1e-14
            ));
            assert!(close(of(Law::MinGap, Quantity::Sf, TAU - angle), p, 1e-8));
            for law in [Law::MaxGap, Law::MinGap, Law::Sector] {
                let value = if law == Law::MaxGap {
                    angle
                } else {
                    TAU - angle
                };
                assert!(close(of(law, Quantity::Pdf, value), 1.0 / PI, 1e-15));
            }
        }
    }

    #[test]
    fn any_number_of_points_has_a_law_near_that_of_gumbel() {
        for n in [1e4, 1e6, 1e9, MOST as f64] {
            for shift in [-2.0, 0.0, 3.0, 20.0] {
                let value = (log(n) + shift) / n * TAU;
                let limit = exp(-exp(-shift));
                let p = evaluate_one(Law::MaxGap, Quantity::Cdf, n, value);
                assert!(
                    (p - limit).abs() < 1000.0 / n + 1e-13,
                    "{n} {shift}: {p} {limit}"
                );
            }
        }
    }

    #[test]
    fn densities_are_derivatives() {
        for n in [2.0, 3.0, 5.0, 20.0, 64.0, 66.0, 300.0] {
            for law in [Law::MaxGap, Law::MinGap, Law::Sector] {
                for i in 1..40 {
                    let value = quantile(law, n, i as f64 / 40.0, true);
                    let step = 1e-5 * value.min(TAU - value) / n;
                    let cdf = |value| evaluate_one(law, Quantity::Cdf, n, value);
                    let slope = (cdf(value + step) - cdf(value - step)) / (2.0 * step);
                    let pdf = evaluate_one(law, Quantity::Pdf, n, value);
                    assert!(
                        close(slope, pdf, 1e-5),
                        "{law:?} {n} {value}: {slope} {pdf}"
                    );
                }
            }
        }
    }

    #[test]
    fn moments() {
        let square = TAU * TAU;
        for (law, n, expected, spread) in [
            (Law::MaxGap, 1, TAU, 0.0),
            (Law::Sector, 1, 0.0, 0.0),
            (Law::MinGap, 1, TAU, 0.0),
            (Law::MaxGap, 2, 0.75 * TAU, square / 48.0),
            (Law::MaxGap, 3, TAU * 11.0 / 18.0, square * 13.0 / 648.0),
            (Law::Sector, 3, TAU * 7.0 / 18.0, square * 13.0 / 648.0),
            (Law::MinGap, 3, TAU / 9.0, square / 162.0),
        ] {
            assert!(close(mean(law, n), expected, 1e-15), "{law:?} {n}");
            assert!(close(variance(law, n), spread, 1e-15), "{law:?} {n}");
        }
        for n in [1, 31, 32, 33, 500] {
            let direct: f64 = (1..=n).rev().map(|j| 1.0 / j as f64).sum();
            assert!(close(mean_of_largest(n, 1), TAU * direct / n as f64, 1e-15));
            // All gaps together are the circle.
            let sum: f64 = (1..=n).map(|k| mean_of_largest(n, k)).sum();
            assert!(close(sum, TAU, 1e-13), "{n}: {sum}");
        }
        assert!(close(
            mean_of_largest(MOST, MOST),
            TAU / (MOST as f64 * MOST as f64),
            1e-15
        ));
        assert!(mean_of_largest(5, 0).is_nan() && mean_of_largest(5, 6).is_nan());
        assert!(mean(Law::MinGap, 0).is_nan() && variance(Law::Sector, 0).is_nan());
    }

    fn points() -> impl Strategy<Value = u64> {
        prop_oneof![2u64..200, 2u64..100_000, 2..=MOST]
    }

    fn law() -> impl Strategy<Value = Law> {
        prop_oneof![Just(Law::MaxGap), Just(Law::MinGap), Just(Law::Sector)]
    }

    proptest! {
        #[test]
        fn quantiles_are_inverse(law in law(), n in points(), log_p in -600.0..-0.001f64, below in any::<bool>()) {
            let (p, n) = (exp(log_p), n as f64);
            let (ask, back) = if below { (Quantity::Ppf, Quantity::LogCdf) } else { (Quantity::Isf, Quantity::LogSf) };
            let value = evaluate_one(law, ask, n, p);
            // The next doubles may well have quite other probabilities.
            let at = |value| evaluate_one(law, back, n, value);
            let (a, b) = (at(value * (1.0 - 1e-15)), at(value * (1.0 + 1e-15)));
            let slack = 1e-11 * log_p.abs().max(1.0);
            prop_assert!(a.min(b) - slack <= log_p && log_p <= a.max(b) + slack, "{value}: {a} {b}");
        }

        #[test]
        fn the_law_is_monotone_and_its_forms_agree(law in law(), n in points(), u in 0.0..1.0f64, w in 0.0..1.0f64) {
            let n = n as f64;
            let (low, high) = support(law, n);
            // Mostly where the law has its mass.
            let spread = |u: f64| if w < 0.5 { low + u * (high - low) } else { quantile(law, n, u, true).clamp(low, high) };
            let (a, b) = (spread(u * w), spread(u));
            let (a, b) = (a.min(b), a.max(b)); // quantiles are rounded
            let of = |quantity, value| evaluate_one(law, quantity, n, value);
            prop_assert!(of(Quantity::Cdf, a) <= of(Quantity::Cdf, b) * (1.0 + 1e-11));
            prop_assert!(of(Quantity::Sf, b) <= of(Quantity::Sf, a) * (1.0 + 1e-11));
            let (cdf, sf) = (of(Quantity::Cdf, b), of(Quantity::Sf, b));
            prop_assert!((cdf + sf - 1.0).abs() < 1e-15);
            prop_assert!(close(exp(of(Quantity::LogCdf, b)), cdf, 1e-12) || cdf < 1e-300);
            prop_assert!(close(exp(of(Quantity::LogSf, b)), sf, 1e-12) || sf < 1e-300);
            prop_assert!(of(Quantity::Pdf, b) >= 0.0);
        }
    }

    fn call(workers: usize, n: &[u64], value: &[f64], out: &mut [f64]) -> Result<(), Error> {
        let mut run = Run {
            level: Level::new(),
            workers,
            watch: &mut || true,
        };
        evaluate(&mut run, Law::MaxGap, Quantity::Cdf, n, value, out)
    }

    #[test]
    fn the_bits_do_not_depend_on_the_workers() {
        let n: Vec<u64> = (0..5000).map(|i| 1 + i % 300).collect();
        let value: Vec<f64> = (0..5000).map(|i| i as f64 * 1e-3).collect();
        let (mut one, mut three) = (vec![0.0; 5000], vec![0.0; 5000]);
        call(1, &n, &value, &mut one).unwrap();
        call(3, &n, &value, &mut three).unwrap();
        assert!(
            one.iter()
                .zip(&three)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
        assert!(one.iter().enumerate().all(|(i, p)| *p == evaluate_one(Law::MaxGap, Quantity::Cdf, n[i] as f64, value[i])));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(matches!(
            call(1, &[1, 2], &[1.0], &mut [0.0]),
            Err(Error::Length { argument: "n", .. })
        ));
        assert!(matches!(
            call(1, &[1], &[1.0], &mut []),
            Err(Error::Length {
                argument: "out",
                ..
            })
        ));
        for n in [0, MOST + 1] {
            assert!(matches!(
                call(1, &[n], &[1.0], &mut [0.0]),
                Err(Error::Domain { argument: "n", .. })
            ));
        }
        assert_eq!(call(1, &[], &[], &mut []), Ok(()));
    }
}
