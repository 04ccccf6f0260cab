//! Closed forms around the gaps: points in half circles, half spaces and caps of the sphere, and how many gaps are long.
//!
//! * Hodges (1955): at least k > n/2 of n points in some half circle, `2¹⁻ⁿ c Σⱼ C(n, k+jc)` with c = 2k - n, which is also
//!   `Σₗ (-1)ˡ cosⁿ(πl/c)` over l from 0 to c - 1. Of these two (a sum and its Fourier transform) one always has few terms.
//! * Wendel (1962): n points of a centrally symmetric law in d dimensions in a half space, `2¹⁻ⁿ Σ C(n-1, k)` over k < d.
//! * A common cap of angular radius β on the sphere, `n² qⁿ⁻¹ - (n-1)(n+2) qⁿ` with q = sin²(β/2).
//! * Stevens (1939): exactly l of n gaps of at least x turns, `C(n,l) Σⱼ (-1)ʲ C(n-l,j) (1-(l+j)x)₊ⁿ⁻¹`.
//!
//! Each is evaluated so that nothing large cancels:
//!
//! * **Domain.** Any number of points; [`gap_counts`] and [`cap`] say their own.
//! * **Precision.** A relative error of some n·2e-16 for up to 1000 points, 3e-13 for up to 10⁶.
//! * **Determinism.** Pure Rust (`libm`): the same bits everywhere.
//! * **Cost.** Less than 1 µs; [`half_space`] adds O(√n) terms, [`gap_counts`] fills a table.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use libm::{atanh, cos, exp, log, log1p, pow, scalbn, sin};

use super::{
    interval::stirling_error,
    laws::{Gap, Law, MOST, Quantity, alternating_sum, evaluate_one, log_power},
};
use crate::error::Error;

/// Steps that [`gap_counts`] may take at most: a second or so.
const LIMIT: f64 = (1 << 30) as f64;

/// P(at least k of n points lie in some half circle).
pub fn half_circle(n: u64, k: u64) -> f64 {
    if k <= n.div_ceil(2) {
        return 1.0;
    }
    if k > n {
        return 0.0;
    }
    let step = k - (n - k);
    let (points, c) = (n as f64, step as f64);
    if points * (PI / c) * (PI / c) > 4.0 {
        let mut sum = 1.0;
        for l in 1..=(step - 1) / 2 {
            let s = sin(PI * l as f64 / c);
            let term = 2.0 * exp(0.5 * points * log1p(-s * s));
            sum += if l.is_multiple_of(2) { term } else { -term };
            if term < 1e-17 {
                break;
            }
        }
        return sum;
    }
    let mut sum = 0.0;
    for k in (k..=n).step_by(step as usize) {
        let term = fair_binomial(n, k);
        sum += term;
        if term <= 1e-17 * sum {
            break;
        }
    }
    2.0 * c * sum
}

/// P(n points of a centrally symmetric law in d dimensions lie in a half space), and the probability that they do not: that
/// their convex hull contains the centre.
///
/// Each keeps its relative accuracy, however small.
pub fn half_space(n: u64, d: u64) -> (f64, f64) {
    if d >= n {
        return (1.0, 0.0);
    }
    let flips = n - 1; // in a half space if fewer than d of them are heads
    let below = |d: u64| {
        let Some(last) = d.checked_sub(1) else {
            return 0.0;
        };
        let (mut sum, mut term) = (1.0, 1.0);
        for k in (1..=last).rev() {
            term *= k as f64 / (flips - k + 1) as f64;
            sum += term;
            if term < 1e-17 * sum {
                break;
            }
        }
        fair_binomial(flips, last) * sum
    };
    if d <= n - d {
        let inside = below(d);
        (inside, 1.0 - inside)
    } else {
        let outside = below(n - d); // as many tails
        (1.0 - outside, outside)
    }
}

/// P(n points on the sphere lie in a common cap of angular radius `beta`); NaN unless 0 ≤ β ≤ π/2 and n ≥ 1.
pub fn cap(n: u64, beta: f64) -> f64 {
    if n == 0 || !(0.0..=FRAC_PI_2).contains(&beta) {
        return f64::NAN;
    }
    let n = n as f64;
    let (s, c) = (sin(0.5 * beta), cos(0.5 * beta));
    let q = s * s;
    // The factor after qⁿ⁻¹, of which (n-1)(n+2) = n² + (n-2) leaves hardly anything to cancel for q ≤ 1/2.
    pow(q, n - 1.0) * (n * n * c * c - (n - 2.0) * q)
}

/// P(exactly l of n gaps are at least `gap` radians), for each l from 0 to as many as fit into the circle, n at most.
///
/// While n (1-x)ⁿ⁻¹ is above 1, Stevens's terms cancel, and a recursion takes their place, in n K²/2 steps for K such gaps.
/// With `p(m, l, v)` for the probability that l of m + l gaps are at least x on a circle of length (v + l) x, times
/// `((v + l) x)ᵐ⁺ˡ⁻¹`:
///
/// ```text
/// p(m, l, v) = (m+l) x · [v/m p(m-1, l, v) + (m-v)/m p(m-1, l, v-1)]    for v ≤ m
///              (m+l) x · [p(m-1, l, v) + (v-m)/l p(m, l-1, v)]          for v > m
/// ```
/// (de Boor's recursion for a spline of m boxes and l cones.) All terms are positive, and only v = 1/x - k occurs,
/// with l ≤ k ≤ n - m.
///
/// # Errors
/// [`Error::Domain`] if n is not from 1 to 2⁵³, or the gap is negative or NaN; [`Error::Unsupported`] if K is 10⁶ or more, or if
/// that recursion has n (K+1)² above 2²⁸.
pub fn gap_counts(n: u64, gap: f64) -> Result<Vec<f64>, Error> {
    if !(1..=MOST).contains(&n) {
        return Err(Error::Domain {
            argument: "n",
            domain: "from 1 to 2**53",
            value: n as f64,
        });
    }
    if gap.is_nan() || gap < 0.0 {
        return Err(Error::Domain {
            argument: "gap",
            domain: "at least 0",
            value: gap,
        });
    }
    if gap > TAU {
        return Ok(vec![1.0]);
    }
    if n == 1 {
        return Ok(vec![0.0, 1.0]);
    }
    let points = n as f64;
    let mut most = ((TAU / gap).floor() + 1.0).min(points);
    if most > 1e6 {
        return Err(Error::Unsupported {
            argument: "gap",
            reason: "10**6 gaps of this length fit into the circle",
        });
    }
    let room = |l: f64| -Gap::of_angle(l, gap).excess; // 1 - lx
    while room(most) < 0.0 {
        most -= 1.0; // what came on top of the division, and its rounding
    }
    let Gap { turns, rest, .. } = Gap::of_angle(points, gap);
    let power = points - 1.0;
    let none = evaluate_one(Law::MaxGap, Quantity::Cdf, points, gap);
    if log(points) + log_power(power, rest, turns) <= 0.0 {
        // The terms fall at least as fast as 1/j!, for each l.
        let mut log_choose = 0.0;
        let some = (1..=most as u64).map(|l| {
            let l = l as f64;
            log_choose += log((points - l + 1.0) / l);
            let log_first = log_choose + log_power(power, room(l), l * turns);
            exp(log_first) * alternating_sum(power, points - l, 0.0, turns / room(l))
        });
        return Ok([none].into_iter().chain(some).collect());
    }
    if points * (most + 1.0) * (most + 1.0) > LIMIT {
        return Err(Error::Unsupported {
            argument: "gap",
            reason: "too many gaps of this length fit into the circle: n (K + 1)**2 exceeds 2**30",
        });
    }
    let mut counts = vec![0.0; most as usize + 1];
    if turns.recip().is_finite() {
        recursion(n as usize, turns, room(most) / turns, &mut counts);
        counts[0] = none; // it needs no table and never underflows
    } else {
        counts[most as usize] = 1.0;
    }
    Ok(counts)
}

/// The recursion of [`gap_counts`] for all l that `counts` has room for; `fraction` is 1/x minus the largest of them.
fn recursion(n: usize, turns: f64, fraction: f64, counts: &mut [f64]) {
    /// No value exceeds 1; this doubles the range below it.
    const SCALE: f64 = f64::from_bits((1023 + 1000) << 52);
    let most = counts.len() - 1;
    let left = |k: usize| fraction + (most - k) as f64; // 1/x - k
    let growth: Vec<f64> = (0..=n).map(|s| s as f64 * turns).collect();
    // A row of k + 1 values for each k, and one of zeros.
    let row = |k: usize| k * (k + 1) / 2;
    let mut table = vec![0.0; row(most + 2)];
    for k in 1..=most {
        let p = &mut table[row(k)..];
        p[1] = SCALE;
        for l in 2..=k {
            p[l] = turns * left(k) * p[l - 1];
        }
    }
    if most == n {
        counts[n] = table[row(n) + n] / SCALE;
    }
    for short in 1..=n {
        let (m, last) = (short as f64, most.min(n - short));
        for k in 0..=last {
            let v = left(k);
            let (p, next) = table[row(k)..].split_at_mut(k + 1);
            let growth = &growth[short..];
            if v >= m {
                for l in 1..=k {
                    p[l] = growth[l] * (p[l] + (v - m) / l as f64 * p[l - 1]);
                }
            } else if short == 1 {
                for (l, p) in p.iter_mut().enumerate() {
                    *p = if l == 0 { SCALE } else { growth[l] * v * *p };
                }
            } else {
                let (stay, step) = (v / m, (m - v) / m);
                for ((p, next), growth) in p.iter_mut().zip(next).zip(growth) {
                    *p = growth * (stay * *p + step * *next);
                }
            }
        }
        if last == n - short {
            counts[last] = table[row(last) + last] / SCALE;
        }
    }
}

/// C(n, k) / 2ⁿ by Stirling's series around its deviance (Loader 2000).
fn fair_binomial(n: u64, k: u64) -> f64 {
    let few = k.min(n - k);
    if few < 16 {
        let product = (0..few).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64);
        return scalbn(product, -(n.min(4000) as i32));
    }
    let (a, b, n) = (k as f64, (n - k) as f64, n as f64);
    let d = (a - b) / n;
    // a ln(2a/n) + b ln(2b/n)
    let deviance = 0.5 * n * (log1p(-d * d) + 2.0 * d * atanh(d));
    let stirling = stirling_error(n) - stirling_error(a) - stirling_error(b);
    (n / a / b / TAU).sqrt() * exp(stirling - deviance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sectors::laws::mean_of_largest;

    fn close(value: f64, expected: f64, relative: f64) -> bool {
        (value - expected).abs() <= relative * expected.abs()
    }

    /// Exact for n < 60.
    fn choose(n: u64, k: u64) -> f64 {
        (0..k).fold(1u128, |c, i| c * u128::from(n - i) / u128::from(i + 1)) as f64
    }

    #[test]
    fn half_circles_agree_with_the_sum_of_hodges() {
        assert_eq!(half_circle(3, 3), 0.75);
        assert_eq!(half_circle(4, 4), 0.5); // four ducks
        assert_eq!((half_circle(0, 0), half_circle(5, 6)), (1.0, 0.0));
        for n in 1..60u64 {
            for k in 0..=n {
                let c = u64::saturating_sub(2 * k, n);
                let sum: f64 = (k..=n)
                    .step_by(c.max(1) as usize)
                    .map(|i| choose(n, i))
                    .sum();
                let expected = if 2 * k <= n + 1 {
                    1.0
                } else {
                    scalbn(c as f64 * sum, 1 - n as i32)
                };
                assert!(close(half_circle(n, k), expected, 1e-14), "{n} {k}");
            }
        }
        // mpmath, in 60 digits
        assert!(close(
            half_circle(1_000_000, 500_700),
            0.838_804_226_722_875,
            1e-14
        ));
        assert!(close(
            half_circle(1_000_000, 502_000),
            0.002_141_254_526_499_906,
            1e-13
        ));
        assert!(half_circle(u64::MAX, u64::MAX / 2 + 5_000_000_000) < 1.0);
    }

    #[test]
    fn half_spaces_agree_with_the_sum_of_wendel() {
        assert_eq!(half_space(4, 2), (0.5, 0.5));
        assert_eq!(half_space(5, 0), (0.0, 1.0));
        assert_eq!(half_space(5, 5), (1.0, 0.0));
        for n in 1..60 {
            for d in 0..=n {
                let part = |range: std::ops::Range<u64>| {
                    scalbn(range.map(|k| choose(n - 1, k)).sum::<f64>(), 1 - n as i32)
                };
                let (inside, outside) = half_space(n, d);
                assert!(close(inside, part(0..d), 1e-14), "{n} {d}");
                assert!(close(outside, part(d..n), 1e-14), "{n} {d}");
            }
            assert!(close(half_space(n, 2).0, half_circle(n, n), 1e-14));
            // A half of the sphere.
            assert!(close(cap(n, FRAC_PI_2), half_space(n, 3).0, 1e-13), "{n}");
        }
        assert!(close(
            half_space(1_000_000, 490_000).0,
            half_space(1_000_000, 510_000).1,
            1e-15
        ));
    }

    #[test]
    fn two_points_share_a_cap_if_their_distance_is_twice_its_radius() {
        for beta in [0.0, 1e-9, 0.3, 1.0, FRAC_PI_2] {
            let s = sin(beta);
            assert!(close(cap(2, beta), s * s, 1e-14));
            assert!(close(cap(1, beta), 1.0, 1e-15));
        }
        assert!(
            [-0.1, 1.6, f64::NAN]
                .iter()
                .all(|&beta| cap(3, beta).is_nan())
        );
        assert!(cap(0, 1.0).is_nan());
    }

    #[test]
    fn gap_counts_agree_with_the_formula_of_stevens() {
        for (n, gap) in [
            (2, 1.0),
            (3, 2.5),
            (5, 0.9),
            (8, 1.0),
            (8, 0.7),
            (12, 0.4),
            (12, 2.0),
        ] {
            let (points, x) = (n as f64, gap / TAU);
            let counts = gap_counts(n, gap).unwrap();
            assert_eq!(counts.len() as f64, (1.0 / x).floor().min(points) + 1.0);
            for (l, p) in counts.iter().enumerate() {
                let l = l as u64;
                let expected: f64 = (l..=n)
                    .map(|j| {
                        let sign = if (j - l).is_multiple_of(2) { 1.0 } else { -1.0 };
                        let room = (1.0 - j as f64 * x).max(0.0);
                        sign * choose(n - l, j - l) * pow(room, points - 1.0)
                    })
                    .sum();
                // The formula itself cancels.
                assert!(
                    (p - choose(n, l) * expected).abs() < 1e-12,
                    "{n} {gap} {l}: {p}"
                );
            }
        }
    }

    #[test]
    fn gap_counts_keep_their_moments_with_many_points() {
        for (n, mean_gaps) in [
            (100, 1.0),
            (1000, 0.1),
            (1000, 1.1),
            (1500, 1.9),
            (3000, 5.3),
            (10_000, 12.0),
        ] {
            let gap = mean_gaps / n as f64 * TAU;
            let counts = gap_counts(n, gap).unwrap();
            let rest = log1p(-gap / TAU);
            let sum: f64 = counts.iter().sum();
            let mean: f64 = counts.iter().enumerate().map(|(l, p)| l as f64 * p).sum();
            assert!(close(sum, 1.0, 1e-12), "{n}: {sum}");
            let expected = n as f64 * exp((n as f64 - 1.0) * rest);
            assert!(close(mean, expected, 1e-11), "{n}: {mean}");
        }
    }

    #[test]
    fn gap_counts_at_the_ends() {
        assert_eq!(gap_counts(1, 1.0), Ok(vec![0.0, 1.0]));
        assert_eq!(gap_counts(1, 7.0), Ok(vec![1.0]));
        assert_eq!(gap_counts(3, f64::INFINITY), Ok(vec![1.0]));
        assert_eq!(gap_counts(3, 0.0), Ok(vec![0.0, 0.0, 0.0, 1.0]));
        assert_eq!(gap_counts(3, 1e-320), Ok(vec![0.0, 0.0, 0.0, 1.0]));
        assert!(matches!(
            gap_counts(0, 1.0),
            Err(Error::Domain { argument: "n", .. })
        ));
        for gap in [-1.0, f64::NAN] {
            assert!(matches!(
                gap_counts(3, gap),
                Err(Error::Domain {
                    argument: "gap",
                    ..
                })
            ));
        }
        for (n, gap) in [(1 << 53, 0.0), (1 << 53, 1e-9), (10_000, 1e-3)] {
            assert!(matches!(gap_counts(n, gap), Err(Error::Unsupported { .. })));
        }
        // The mean of the second largest gap, from P(at least 2 gaps ≥ x).
        let steps = 4000;
        let mean: f64 = (0..steps)
            .map(|i| {
                let gap = (i as f64 + 0.5) * TAU / steps as f64;
                gap_counts(5, gap).unwrap().iter().skip(2).sum::<f64>() * TAU / steps as f64
            })
            .sum();
        assert!(close(mean, mean_of_largest(5, 2), 1e-6));
    }
}
