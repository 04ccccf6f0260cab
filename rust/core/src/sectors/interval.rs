//! Quantiles of the beta law, from which binomial confidence intervals are made (Clopper-Pearson, Jeffreys).
//!
//! `I_x(a, b) = ∫₀ˣ tᵃ⁻¹ (1-t)ᵇ⁻¹ dt / B(a, b)`; the quantile is the x where it equals p.
//!
//! * **Domain.** a and b from 0.5 to 1e15, p between 0 and 1.
//! * **Precision.** A relative error of some 1e-13 where x is above 1e-307, and of 1 - x as far as the double x can tell, while
//!   a or b is below [`LARGE`]; beyond, an error of some 1e-8 standard deviations of the law.
//! * **Determinism.** Pure Rust (`libm`): the same bits everywhere.
//! * **Cost.** Some 5 to 10 continued fractions, of 10 + √min(a, b) / 2 terms each.
//!
//! ```text
//! t ← ln(a/b)                               # x = 1/(1+e⁻ᵗ), 1-x = 1/(1+eᵗ): both keep their digits
//! repeat: t ← t + (ln p - ln I) I / I'      # Newton on the log of the nearer tail, which is concave in t
//! ```
//! with `I' = dI/dt = xᵃ(1-x)ᵇ/B(a,b)`, and I from a continued fraction.

use std::f64::consts::TAU;

use libm::{erfc, exp, lgamma, log, log1p};

/// Where the smaller parameter is above this, the signed root of the deviance is normal to all intents: with a - 1/3 and
/// b - 1/3 in place of a and b, its error is of the order of 1/min(a, b) standard deviations.
const LARGE: f64 = 1e8;

/// The x with `I_x(a, b) = p`.
///
/// NaN unless a and b are at least 0.5 and at most 1e15, and 0 < p < 1.
pub fn beta_quantile(a: f64, b: f64, p: f64) -> f64 {
    let domain = 0.5..=1e15;
    if !(domain.contains(&a) && domain.contains(&b) && p > 0.0 && p < 1.0) {
        return f64::NAN;
    }
    let lower = p <= 0.5;
    let target = if lower { log(p) } else { log1p(-p) };
    let deviation = (1.0 / a + 1.0 / b).sqrt();
    let (mut low, mut high) = (-709.0, 709.0); // e⁷¹⁰ is no double
    let mut t = log(a / b);
    for _ in 0..200 {
        let (x, y) = (1.0 / (1.0 + exp(-t)), 1.0 / (1.0 + exp(t)));
        let (below, above) = beta_tails(a, b, x, y);
        let tail = if lower { below } else { above };
        let short = target - log(tail); // > 0: the tail is too small
        if (short > 0.0) == lower {
            low = t;
        } else {
            high = t;
        }
        let step = short * tail / beta_front(a, b, x, y);
        let next = if lower { t + step } else { t - step };
        let inside = next >= low && next <= high; // false also for a NaN, where both tail and slope underflow
        let previous = std::mem::replace(&mut t, if inside { next } else { 0.5 * (low + high) });
        // The error of a Newton step is of the order of its square.
        if (t - previous).abs() <= 1e-7 * deviation {
            break;
        }
    }
    1.0 / (1.0 + exp(-t))
}

/// `I_x(a, b)` and `1 - I_x(a, b)` for y = 1 - x; the smaller of them keeps its relative accuracy.
fn beta_tails(a: f64, b: f64, x: f64, y: f64) -> (f64, f64) {
    if a.min(b) > LARGE {
        let (a, b) = (a - 1.0 / 3.0, b - 1.0 / 3.0);
        let root = deviance(a, b, x, y).sqrt(); // z/√2
        let z = if b * x < a * y { root } else { -root };
        return (0.5 * erfc(z), 0.5 * erfc(-z));
    }
    // The fraction converges fast on this side of the mean.
    if x * (a + b + 2.0) < a + 1.0 {
        let lower = beta_front(a, b, x, y) * fraction(a, b, x, y);
        (lower, 1.0 - lower)
    } else {
        let upper = beta_front(a, b, x, y) * fraction(b, a, y, x);
        (1.0 - upper, upper)
    }
}

/// `xᵃ yᵇ / B(a, b)`.
fn beta_front(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let stirling = stirling_error(a + b) - stirling_error(a) - stirling_error(b);
    (a / TAU * (b / (a + b))).sqrt() * exp(stirling - deviance(a, b, x, y))
}

/// `a ln(a/(nx)) + b ln(b/(ny))` with n = a + b: 0 at the mean x = a/n, and made of positive terms that do not cancel.
fn deviance(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let shift = b * x - a * y; // nx - a
    // `a ln(a/m) + m - a` for m = a + shift.
    let part = |a: f64, m: f64, shift: f64| {
        let relative = shift / a;
        if relative.abs() < 0.5 {
            a * log1p_lag(relative)
        } else {
            shift - a * log(m / a)
        }
    };
    part(a, (a + b) * x, shift) + part(b, (a + b) * y, -shift)
}

/// `I_x(a, b) B(a, b) / xᵃyᵇ` below the mean, by the even part of the continued fraction DLMF 8.17.22 (DiDonato & Morris 1992),
/// in which nothing cancels, and the modified method of Lentz.
fn fraction(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let shift = a * y - b * x + 1.0;
    let mut value = a * shift / (a + 1.0);
    let (mut c, mut d) = (value, 0.0);
    let mut n = 1.0;
    // Below LARGE it takes some thousand rounds; the bound is there so that no rounding can keep it going.
    while n < 1e6 {
        let s = a + 2.0 * n - 1.0;
        let w = n * (b - n) * x / s;
        let numerator = (a + n - 1.0) * (a + b + n - 1.0) / s * w * x;
        let denominator = n + w + (a + n) * (shift + n * (1.0 + y)) / (s + 2.0);
        d = 1.0 / (denominator + numerator * d);
        c = denominator + numerator / c;
        value *= c * d;
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
        n += 1.0;
    }
    1.0 / value
}

/// `ln Γ(a) - [(a - 1/2) ln a - a + ln √2π]`.
pub(super) fn stirling_error(a: f64) -> f64 {
    if a < 16.0 {
        return lgamma(a) - ((a - 0.5) * log(a) - a + 0.5 * log(TAU));
    }
    let s = 1.0 / (a * a);
    (1.0 / 12.0 - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s / 1188.0)))) / a
}

/// `u - ln(1+u)`, which for small u is near u²/2.
pub(super) fn log1p_lag(u: f64) -> f64 {
    if u.abs() > 0.25 {
        return u - log1p(u);
    }
    // ln(1+u) = 2 artanh s, and u - 2s = us.
    let s = u / (2.0 + u);
    let square = s * s;
    let tail = (1..10)
        .rev()
        .fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    u * s - 2.0 * s * square * tail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64, relative: f64) -> bool {
        (value - expected).abs() <= relative * expected.abs()
    }

    #[test]
    fn the_digits_of_scipy() {
        // scipy.stats.beta.ppf(p, a, b)
        for (a, b, p, expected) in [
            (0.5, 10.5, 0.025, 4.7890433157581876e-05),
            (0.5, 10.5, 0.975, 0.21719626750921053),
            (3.5, 7.5, 0.025, 0.09269459393815316),
            (4.0, 7.0, 0.975, 0.6524528500599973),
            (51.0, 50.0, 0.025, 0.40803632915545374),
            (1000.5, 9000.5, 0.975, 0.10599560843213915),
            (20.0, 100000.0, 0.025, 0.00012214613113783668),
            (123457.0, 876544.0, 0.975, 0.12410234027680268),
            (200000.0, 700000.0, 1e-06, 0.22014359206500178),
            (10.5, 0.5, 0.3, 0.9489695310335042),
            (1000000.0, 3000000.0, 0.025, 0.24957577383160803),
        ] {
            let x = beta_quantile(a, b, p);
            assert!(close(x, expected, 1e-11), "{a} {b} {p}: {x} {expected}");
        }
    }

    #[test]
    fn closed_forms() {
        for p in [1e-12, 0.025, 0.3, 0.5, 0.975] {
            for n in [1.0, 2.0, 50.0, 1e6, 1e12] {
                let (all, none) = (exp(log(p) / n), -libm::expm1(log1p(-p) / n));
                assert!(close(beta_quantile(n, 1.0, p), all, 1e-13), "{n} {p}");
                assert!(close(beta_quantile(1.0, n, p), none, 1e-12), "{n} {p}");
            }
            let s = libm::sin(p * std::f64::consts::FRAC_PI_2); // the arcsine law
            assert!(close(beta_quantile(0.5, 0.5, p), s * s, 1e-13), "{p}");
        }
    }

    #[test]
    fn large_parameters_have_the_quantiles_of_a_normal_law() {
        const Z: f64 = 1.959_963_984_540_054; // of 0.975
        for (a, b) in [(2e8, 2e8), (1e12, 1e12), (1e15, 1e15), (3e11, 1e15)] {
            let n: f64 = a + b;
            let deviation = (a / n * (b / n) / n).sqrt();
            let (low, high) = (beta_quantile(a, b, 0.025), beta_quantile(a, b, 0.975));
            // A law so narrow has a skewness of up to 1e-4 at these a.
            for (x, z) in [(low, -Z), (high, Z)] {
                let found = (x - a / n) / deviation;
                assert!((found - z).abs() < 2e-5, "{a} {b}: {found}");
            }
        }
        // On both sides of the border between the methods.
        let (below, above) = (
            beta_quantile(LARGE, 3e8, 0.025),
            beta_quantile(LARGE + 1.0, 3e8 + 3.0, 0.025),
        );
        assert!((below - above).abs() < 1e-12, "{below} {above}");
    }

    #[test]
    fn anything_else_has_none() {
        let nan = f64::NAN;
        for (a, b, p) in [
            (0.4, 1.0, 0.5),
            (1.0, 2e15, 0.5),
            (1.0, 1.0, 0.0),
            (1.0, 1.0, 1.0),
            (nan, 1.0, 0.5),
            (1.0, 1.0, nan),
        ] {
            assert!(beta_quantile(a, b, p).is_nan());
        }
    }
}
