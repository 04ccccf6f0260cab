//! The losses against slow references in f64, their gradients against finite differences, and what holds for all of
//! them: rows that take no part, weights, reductions, special values, and the same bits at every SIMD level.

mod common;

use fearless_simd::Level;
use proptest::prelude::*;
use unitmass_core::{
    error::Error,
    losses::{
        Batch, Margin, Reduction, Targets, cross_entropy, entmax_loss, exact_accuracy_loss,
        margin_softmax, normmax_loss, smooth_accuracy, smooth_f1, soft_argmax, soft_top_k,
        soft_top_k_vjp, topk_cross_entropy,
    },
    maps::{Method, PerRow, Scores, Shape, Storage, entmax},
    parallel::Run,
};

use common::{Numbers, every_level};

const INF: f64 = f64::INFINITY;

/// A loss with its options.
#[derive(Clone, Copy, Debug)]
enum Loss {
    CrossEntropy(f64, f64),
    Margin(Margin, f64),
    Entmax(f64),
    Normmax(f64),
    TopK(usize),
    Accuracy(f64),
    F1(f64),
    Exact(f64, Option<f64>, bool),
}

/// Every loss, with every kind of its options.
const LOSSES: [Loss; 24] = [
    Loss::CrossEntropy(1.0, 0.0),
    Loss::CrossEntropy(0.7, 0.2),
    Loss::CrossEntropy(2.0, 1.0),
    Loss::Margin(Margin::Additive(0.0), 5.0),
    Loss::Margin(Margin::Additive(0.35), 5.0),
    Loss::Margin(Margin::Angular(0.5), 5.0),
    Loss::Margin(Margin::Sphere(4), 5.0),
    Loss::Entmax(1.0),
    Loss::Entmax(1.001),
    Loss::Entmax(1.3),
    Loss::Entmax(1.5),
    Loss::Entmax(1.9),
    Loss::Entmax(2.0),
    Loss::Entmax(3.0),
    Loss::Normmax(1.5),
    Loss::Normmax(2.0),
    Loss::Normmax(5.0),
    Loss::TopK(2),
    Loss::TopK(100),
    Loss::Accuracy(0.8),
    Loss::F1(0.8),
    Loss::Exact(0.9, None, false),
    Loss::Exact(0.4, Some(0.5), false),
    Loss::Exact(0.6, Some(1.5), true),
];

impl Loss {
    fn call<E: Storage>(
        self,
        run: &mut Run<'_>,
        batch: &Batch<'_, E>,
        values: &mut [f64],
        gradient: Option<&mut [E]>,
    ) -> Result<f64, Error> {
        match self {
            Loss::CrossEntropy(temperature, smoothing) => {
                cross_entropy(run, batch, temperature, smoothing, values, gradient)
            }
            Loss::Margin(margin, scale) => {
                margin_softmax(run, batch, margin, scale, values, gradient)
            }
            Loss::Entmax(alpha) => {
                entmax_loss(run, batch, PerRow::All(alpha), values, gradient, None)
            }
            Loss::Normmax(alpha) => normmax_loss(run, batch, PerRow::All(alpha), values, gradient),
            Loss::TopK(k) => topk_cross_entropy(run, batch, k, values, gradient),
            Loss::Accuracy(temperature) => {
                smooth_accuracy(run, batch, temperature, values, gradient)
            }
            Loss::F1(temperature) => smooth_f1(run, batch, temperature, values, gradient),
            Loss::Exact(sigma, margin, normalize) => {
                exact_accuracy_loss(run, batch, sigma, margin, normalize, values, gradient)
            }
        }
    }

    fn takes_labels(self) -> bool {
        !matches!(self, Loss::F1(_))
    }

    fn takes_distributions(self) -> bool {
        !matches!(self, Loss::Margin(..) | Loss::Exact(..))
    }
}

fn with_run<R>(level: Level, workers: usize, call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

fn batch<'a, E: Storage>(n: usize, x: &'a [E], targets: Targets<'a, E>) -> Batch<'a, E> {
    Batch {
        scores: Scores::new(Shape::rows(x.len() / n, n), x),
        targets,
        weights: PerRow::All(1.0),
        ignore: None,
        reduction: Reduction::None,
    }
}

fn best() -> Level {
    every_level()[0].1
}

/// The values and the gradients of a batch; the values are the same without the gradients.
fn both<E: Storage + PartialEq>(
    level: Level,
    loss: Loss,
    batch: &Batch<'_, E>,
) -> (Vec<f64>, Vec<E>, f64) {
    let (rows, len) = (batch.scores.shape.count(), batch.scores.shape.len());
    let zero = E::narrow(E::Compute::default());
    let (mut values, mut alone, mut gradient) = (vec![0.0; rows], vec![0.0; rows], vec![zero; len]);
    let reduced = with_run(level, 1, |run| {
        loss.call(run, batch, &mut values, Some(&mut gradient))
    });
    let reduced = reduced.expect("a loss of what it takes");
    with_run(level, 2, |run| loss.call(run, batch, &mut alone, None)).expect("its value");
    for (row, (value, alone)) in values.iter().zip(&alone).enumerate() {
        assert!(
            value.to_bits() == alone.to_bits(),
            "{loss:?} row {row}: {value} with the gradient, {alone} without"
        );
    }
    (values, gradient, reduced)
}

fn value(loss: Loss, x: &[f64], targets: Targets<'_, f64>) -> f64 {
    both(best(), loss, &batch(x.len(), x, targets)).0[0]
}

fn of_label(loss: Loss, x: &[f64], label: i64) -> f64 {
    value(loss, x, Targets::Labels(&[label]))
}

fn gradient_of_label(loss: Loss, x: &[f64], label: i64) -> Vec<f64> {
    let labels = [label];
    both(best(), loss, &batch(x.len(), x, Targets::Labels(&labels))).1
}

#[track_caller]
fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance || found == expected,
        "found {found}, expected {expected}"
    );
}

#[test]
fn known_values() {
    let x = [-2.0, 0.0, 0.5];
    for (label, expected) in [(0, 2.5625), (1, 0.5625), (2, 0.0625)] {
        assert_near(of_label(Loss::Entmax(2.0), &x, label), expected, 1e-15);
    }
    for (label, expected) in [(0, 2.68437138), (1, 0.68437138), (2, 0.18437138)] {
        assert_near(of_label(Loss::Entmax(1.5), &x, label), expected, 5e-9);
    }
    assert_near(of_label(Loss::TopK(2), &x, 2), 0.474077, 5e-7);
    let cross_entropy = of_label(Loss::CrossEntropy(1.0, 0.0), &x, 1);
    assert_near(cross_entropy, -0.3592_f64.ln(), 1e-4);
    let scores = [2.0, 1.0, 4.0, 5.0, 3.0];
    let (mut mean, mut top) = ([0.0], [0.0; 5]);
    let all = Scores::new(Shape::rows(1, 5), &scores);
    with_run(best(), 1, |run| {
        soft_argmax(run, &all, 1.0, &mut mean, None).unwrap();
        soft_top_k(run, &all, 2, &mut top).unwrap();
    });
    assert_near(mean[0], 2.73363966, 5e-9); // 3.73363966 counted from 1
    let expected = [0.1410237, 0.0531746, 0.64725527, 0.81418058, 0.34436585];
    for (found, expected) in top.into_iter().zip(expected) {
        assert_near(found, expected, 5e-8);
    }
}

/// Three points with the classes -1, -1 and 1, scored by x - b: the paper's own example (Karpukhin et al. 2022).
#[test]
fn exact_expects_the_accuracy() {
    let accuracy = |b: f64| {
        let points = [(-0.25, 0), (0.0, 0), (0.25, 1)];
        let total: f64 = points
            .into_iter()
            .map(|(x, label)| -of_label(Loss::Exact(0.05, None, false), &[0.0, x - b], label))
            .sum();
        total / 3.0
    };
    assert_near(accuracy(0.125), 0.97430002, 5e-9);
    assert!(accuracy(0.12) < accuracy(0.125) && accuracy(0.13) < accuracy(0.125));
}

#[test]
fn small_losses_keep_their_digits() {
    let x = [17f32, 0.0];
    let (values, gradient, _) = both(
        best(),
        Loss::CrossEntropy(1.0, 0.0),
        &batch(2, &x, Targets::Labels(&[0])),
    );
    let expected = (-17f64).exp();
    assert_near(values[0], expected.ln_1p(), 1e-14);
    assert_near(gradient[0].into(), -expected, 1e-14);
    let x = [1.0, 1e-3]; // sparsemax [.9995, .0005]
    assert_near(of_label(Loss::Entmax(2.0), &x, 0), 0.0005 * 0.0005, 1e-19);
    for alpha in [1.3, 1.5, 2.0, 3.0] {
        let sure = [1.0 / (alpha - 1.0) + 1e-9, 0.0, -3.0];
        assert_eq!(of_label(Loss::Entmax(alpha), &sure, 0), 0.0);
        assert_eq!(gradient_of_label(Loss::Entmax(alpha), &sure, 0), [0.0; 3]);
    }
    assert_eq!(of_label(Loss::Normmax(2.0), &[2.0, 0.0], 0), 0.0);
}

/// The slow references.
mod slow {
    use super::*;

    pub fn softmax(z: &[f64]) -> Vec<f64> {
        let max = z.iter().copied().fold(-INF, f64::max);
        let e: Vec<f64> = z.iter().map(|z| (z - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|e| e / sum).collect()
    }

    fn log_sum(z: &[f64]) -> f64 {
        let max = z.iter().copied().fold(-INF, f64::max);
        max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
    }

    /// A product in which 0 wins.
    fn times(a: f64, b: f64) -> f64 {
        if a == 0.0 { 0.0 } else { a * b }
    }

    /// argmax ⟨p, x⟩ - Ω(p) by halvings: entmax, or normmax in its own equation.
    fn map(loss: Loss, x: &[f64]) -> Vec<f64> {
        let max = x.iter().copied().fold(-INF, f64::max);
        let (exponent, scale) = match loss {
            Loss::Entmax(alpha) => (1.0 / (alpha - 1.0), alpha - 1.0),
            Loss::Normmax(alpha) => (alpha / (alpha - 1.0), 1.0),
            _ => unreachable!(),
        };
        let terms = |tau: f64, e: f64| -> Vec<f64> {
            x.iter()
                .map(|x| (scale * (x - max) - tau).max(0.0).powf(e))
                .collect()
        };
        let (mut low, mut high) = (-1.0, 0.0);
        for _ in 0..200 {
            let middle = 0.5 * (low + high);
            if terms(middle, exponent).iter().sum::<f64>() >= 1.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        let v = match loss {
            Loss::Normmax(alpha) => {
                let tau = low;
                let own = |x: &f64| match x - max - tau {
                    d if d > 0.0 => d.powf(1.0 / (alpha - 1.0)),
                    _ => 0.0,
                };
                x.iter().map(own).collect()
            }
            _ => terms(low, exponent),
        };
        let sum: f64 = v.iter().sum();
        v.iter().map(|v| v / sum).collect()
    }

    fn omega(loss: Loss, p: &[f64]) -> f64 {
        match loss {
            Loss::Entmax(1.0) => p.iter().map(|&p| times(p, p.ln())).sum(),
            Loss::Entmax(alpha) => {
                (p.iter().map(|p| p.powf(alpha)).sum::<f64>() - 1.0) / (alpha * (alpha - 1.0))
            }
            Loss::Normmax(alpha) => {
                p.iter()
                    .map(|p| p.powf(alpha))
                    .sum::<f64>()
                    .powf(1.0 / alpha)
                    - 1.0
            }
            _ => unreachable!(),
        }
    }

    /// The loss of a row against a distribution or, for F1, numbers.
    pub fn loss(loss: Loss, x: &[f64], y: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(&a, &b)| times(a, b)).sum::<f64>();
        let scaled = |by: f64| -> Vec<f64> { x.iter().map(|x| x * by).collect() };
        match loss {
            Loss::CrossEntropy(temperature, smoothing) => {
                let z = scaled(1.0 / temperature);
                let count = x.iter().filter(|&&x| x > -INF).count() as f64;
                let smooth: Vec<f64> = x
                    .iter()
                    .zip(y)
                    .map(|(&x, y)| {
                        y * (1.0 - smoothing) + if x > -INF { smoothing / count } else { 0.0 }
                    })
                    .collect();
                log_sum(&z) * smooth.iter().sum::<f64>() - dot(&smooth, &z)
            }
            Loss::Margin(margin, scale) => {
                let t = y.iter().position(|&y| y == 1.0).unwrap();
                let theta = x[t].clamp(-1.0, 1.0).acos();
                let pi = std::f64::consts::PI;
                let mut z = x.to_vec();
                z[t] = match margin {
                    Margin::Additive(m) => x[t] - m,
                    Margin::Angular(m) if theta + m > pi => theta.cos() - m * m.sin(),
                    Margin::Angular(m) => (theta + m).cos(),
                    Margin::Sphere(m) => {
                        let m = f64::from(m);
                        let k = (m * theta / pi).floor();
                        (-1f64).powf(k) * (m * theta).cos() - 2.0 * k
                    }
                };
                let z: Vec<f64> = z.iter().map(|z| z * scale).collect();
                log_sum(&z) - z[t]
            }
            Loss::Entmax(_) | Loss::Normmax(_) => {
                let p = match loss {
                    Loss::Entmax(1.0) => softmax(x),
                    _ => map(loss, x),
                };
                let difference: Vec<f64> = p.iter().zip(y).map(|(p, y)| p - y).collect();
                omega(loss, y) - omega(loss, &p) + dot(&difference, x)
            }
            Loss::TopK(k) => {
                let mut largest = x.to_vec();
                largest.sort_by(|a, b| b.total_cmp(a));
                largest.truncate(k);
                log_sum(&largest) - dot(y, x)
            }
            Loss::Accuracy(temperature) => dot(&softmax(&scaled(1.0 / temperature)), y),
            Loss::F1(temperature) => {
                let p: Vec<f64> = x
                    .iter()
                    .map(|x| 1.0 / (1.0 + (-x / temperature).exp()))
                    .collect();
                2.0 * dot(y, &p) / (y.iter().sum::<f64>() + p.iter().sum::<f64>())
            }
            Loss::Exact(sigma, margin, normalize) => {
                let t = y.iter().position(|&y| y == 1.0).unwrap();
                let mut z = x.to_vec();
                if normalize {
                    let mean = z.iter().sum::<f64>() / z.len() as f64;
                    let square = z.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>();
                    let sd = (square / z.len() as f64).sqrt();
                    z.iter_mut().for_each(|z| *z = (*z - mean) / sd);
                }
                if let Some(margin) = margin {
                    let least = z[t] - margin;
                    z.iter_mut().for_each(|z| *z = z.max(least));
                }
                // -E Π F(ε + (z_t - z_j)/σ), by the trapezoid rule.
                let (step, root_tau) = (0.02, std::f64::consts::TAU.sqrt());
                let cdf = |u: f64| 0.5 * libm::erfc(-u / std::f64::consts::SQRT_2);
                let mut sum = 0.0;
                for i in -500..=500 {
                    let u = step * f64::from(i);
                    let others = (0..z.len()).filter(|&j| j != t);
                    let product: f64 = others.map(|j| cdf(u + (z[t] - z[j]) / sigma)).product();
                    sum += product * (-0.5 * u * u).exp() / root_tau * step;
                }
                -sum
            }
        }
    }
}

/// Random scores of a row; cosines for a margin.
fn row(numbers: &mut Numbers, loss: Loss, n: usize) -> Vec<f64> {
    let reach = if matches!(loss, Loss::Margin(..)) {
        0.97
    } else {
        2.5
    };
    (0..n).map(|_| numbers.uniform(-reach, reach)).collect()
}

/// A random distribution, with zeros in it; numbers from 0 to 1 for F1.
fn soft_row(numbers: &mut Numbers, loss: Loss, n: usize) -> Vec<f64> {
    let mut y: Vec<f64> = (0..n)
        .map(|_| numbers.uniform(-0.5, 1.0).max(0.0))
        .collect();
    y[n / 2] = 0.5;
    if !matches!(loss, Loss::F1(_)) {
        let sum: f64 = y.iter().sum();
        y.iter_mut().for_each(|y| *y /= sum);
    }
    y
}

fn one_hot(n: usize, label: usize) -> Vec<f64> {
    (0..n).map(|k| f64::from(u8::from(k == label))).collect()
}

const WIDTHS: [usize; 7] = [2, 3, 8, 16, 17, 40, 700];

#[test]
fn values_agree_with_the_references() {
    let mut numbers = Numbers::new(1);
    for loss in LOSSES {
        for n in WIDTHS {
            let x = row(&mut numbers, loss, n);
            if loss.takes_labels() {
                let label = numbers.bits() as usize % n;
                let expected = slow::loss(loss, &x, &one_hot(n, label));
                let found = of_label(loss, &x, label as i64);
                let tolerance = 1e-11 * expected.abs().max(1.0);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{loss:?} {n}: found {found}, expected {expected}"
                );
            }
            if loss.takes_distributions() {
                let y = soft_row(&mut numbers, loss, n);
                let expected = slow::loss(loss, &x, &y);
                let found = value(loss, &x, Targets::Dense(&y));
                let tolerance = 1e-11 * expected.abs().max(1.0);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{loss:?} {n}: found {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    const STEP: f64 = 1e-5;
    let mut numbers = Numbers::new(2);
    for loss in LOSSES {
        for n in [2, 3, 9, 17, 40] {
            let x = row(&mut numbers, loss, n);
            let labels = [(numbers.bits() as usize % n) as i64];
            let y = soft_row(&mut numbers, loss, n);
            let mut all: Vec<Targets<'_, f64>> = Vec::new();
            if loss.takes_labels() {
                all.push(Targets::Labels(&labels));
            }
            if loss.takes_distributions() {
                all.push(Targets::Dense(&y));
            }
            for targets in all {
                let (_, gradient, _) = both(best(), loss, &batch(n, &x, targets));
                for k in 0..n {
                    let at = |by: f64| {
                        let mut x = x.clone();
                        x[k] += by;
                        value(loss, &x, targets)
                    };
                    let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                    assert!(
                        (gradient[k] - expected).abs() <= 2e-6 * expected.abs().max(1.0),
                        "{loss:?} {targets:?} entry {k} of {x:?}: {} and {expected}",
                        gradient[k]
                    );
                }
            }
        }
    }
}

#[test]
fn slopes_in_alpha_agree_with_finite_differences() {
    let mut numbers = Numbers::new(3);
    for n in [2, 5, 17, 60] {
        let x = row(&mut numbers, Loss::Entmax(1.0), n);
        let y = soft_row(&mut numbers, Loss::Entmax(1.0), n);
        let labels = [n as i64 / 3];
        for targets in [Targets::Labels(&labels), Targets::Dense(&y)] {
            let of = |alpha: f64| {
                let (mut value, mut slope) = ([0.0], [0.0]);
                let batch = batch(n, &x, targets);
                let alpha = PerRow::All(alpha);
                with_run(best(), 1, |run| {
                    entmax_loss(run, &batch, alpha, &mut value, None, Some(&mut slope)).unwrap()
                });
                (value[0], slope[0])
            };
            for alpha in [1.0 + 1e-4, 1.2, 1.5, 1.8, 2.0, 3.0] {
                let step = 5e-5;
                let expected = (of(alpha + step).0 - of(alpha - step).0) / (2.0 * step);
                assert_near(of(alpha).1, expected, 1e-6);
            }
            // Continuous where the formula changes.
            assert_near(of(1.0).1, of(1.0 + 1e-9).1, 1e-7);
        }
    }
}

#[test]
fn slopes_are_those_of_the_reduction() {
    let x = [1.0, 0.2, -0.3, 0.1, 0.4, 0.0];
    let mut of = [[0.0; 2]; 2];
    for (slopes, reduction) in of.iter_mut().zip([Reduction::None, Reduction::Mean]) {
        let batch = Batch {
            weights: PerRow::Each(&[1.0, 3.0]),
            reduction,
            ..batch(3, &x, Targets::Labels(&[0, 1]))
        };
        let alpha = PerRow::Each(&[1.3, 1.7]);
        with_run(best(), 1, |run| {
            entmax_loss(run, &batch, alpha, &mut [0.0; 2], None, Some(slopes)).unwrap()
        });
    }
    assert_near(of[1][0], of[0][0] / 4.0, 1e-16);
    assert_near(of[1][1], of[0][1] / 4.0, 1e-16);
}

#[test]
fn lists_name_the_positives_of_f1() {
    let x = [0.3, -1.0, 0.9, 0.1];
    let lists = Targets::Lists {
        indices: &[2, 0, -1],
        each: 3,
    };
    let lists = Batch {
        ignore: Some(-1),
        ..batch(4, &x, lists)
    };
    let dense = [1.0, 0.0, 1.0, 0.0];
    let dense = batch(4, &x, Targets::Dense(&dense));
    let loss = Loss::F1(0.5);
    assert_eq!(both(best(), loss, &lists), both(best(), loss, &dense));
}

#[test]
fn impossible_scores_take_no_part() {
    let (short, long) = ([0.3, -1.0, 0.9], [0.3, -INF, -1.0, 0.9, -INF]);
    for loss in LOSSES {
        if !loss.takes_labels() {
            continue;
        }
        let (value, gradient) = (
            of_label(loss, &short, 1),
            gradient_of_label(loss, &short, 1),
        );
        assert_near(of_label(loss, &long, 2), value, 1e-12);
        let found = gradient_of_label(loss, &long, 2);
        assert_eq!((found[1], found[4]), (0.0, 0.0), "{loss:?}");
        for (found, expected) in [found[0], found[2], found[3]].into_iter().zip(gradient) {
            assert_near(found, expected, 1e-12);
        }
        // As a target, it cannot be reached.
        let lost = of_label(loss, &long, 4);
        let expected = match loss {
            Loss::Accuracy(_) | Loss::Exact(..) => 0.0,
            Loss::CrossEntropy(_, 1.0) => continue, // the label counts for nothing
            _ => INF,
        };
        assert_eq!(lost.abs(), expected, "{loss:?}");
        assert!(
            gradient_of_label(loss, &long, 4)
                .iter()
                .all(|g| g.is_finite())
        );
    }
    let f1 = value(Loss::F1(1.0), &short, Targets::Dense(&[1.0, 0.0, 0.5]));
    let wide = Targets::Dense(&[1.0, 1.0, 0.0, 0.5, 1.0]);
    assert_near(value(Loss::F1(1.0), &long, wide), f1, 1e-15);
    let none = [-INF, -INF];
    assert_eq!(
        value(Loss::F1(1.0), &none, Targets::Dense(&[1.0, 0.0])),
        0.0
    );
}

#[test]
fn infinite_scores_share_the_mass() {
    let x = [INF, 0.0, INF];
    assert_eq!(of_label(Loss::CrossEntropy(0.5, 0.0), &x, 2), 2f64.ln());
    assert_eq!(of_label(Loss::CrossEntropy(0.5, 0.0), &x, 1), INF);
    assert_eq!(of_label(Loss::CrossEntropy(0.5, 0.1), &x, 0), INF);
    let gradient = gradient_of_label(Loss::CrossEntropy(0.5, 0.0), &x, 2);
    assert_eq!(gradient, [1.0, 0.0, -1.0]);
    assert_near(of_label(Loss::Entmax(2.0), &x, 0), 0.25, 1e-15);
    assert_eq!(of_label(Loss::Entmax(2.0), &x, 1), INF);
    assert_near(
        of_label(Loss::Normmax(2.0), &x, 0),
        1.0 - 0.5f64.sqrt(),
        1e-15,
    );
    assert_eq!(
        gradient_of_label(Loss::Entmax(1.5), &x, 0),
        [-0.5, 0.0, 0.5]
    );
    assert_eq!(of_label(Loss::Accuracy(1.0), &x, 0), 0.5);
    assert_eq!(of_label(Loss::Exact(1.0, Some(1.0), true), &x, 0), -0.5);
    let f1 = value(Loss::F1(1.0), &x, Targets::Dense(&[1.0, 0.0, 1.0]));
    assert_near(f1, 4.0 / 4.5, 1e-15);
}

#[test]
fn nan_makes_the_row_nan() {
    for loss in LOSSES {
        for n in [3, 20] {
            let mut x = vec![0.5; 3 * n];
            (x[n + 1], x[n]) = (f64::NAN, INF);
            x[2 * n..].fill(-INF);
            let labels = [0, 0, 0];
            let y = [one_hot(n, 0), one_hot(n, 0), one_hot(n, 0)].concat();
            let targets = if loss.takes_labels() {
                Targets::Labels(&labels)
            } else {
                Targets::Dense(&y)
            };
            let (values, gradient, _) = both(best(), loss, &batch(n, &x, targets));
            assert!(
                values[0].is_finite() && values[1].is_nan(),
                "{loss:?} {values:?}"
            );
            assert!(gradient[..n].iter().all(|g| g.is_finite()), "{loss:?}");
            assert!(gradient[n..2 * n].iter().all(|g| g.is_nan()), "{loss:?}");
            assert_eq!(
                values[2].is_nan(),
                loss.takes_labels(),
                "{loss:?} {values:?}"
            );
        }
    }
}

#[test]
fn rows_that_take_no_part_count_for_nothing() {
    let mut numbers = Numbers::new(4);
    let n = 5;
    for loss in LOSSES {
        if !loss.takes_labels() {
            continue;
        }
        let x: Vec<f64> = (0..5).flat_map(|_| row(&mut numbers, loss, n)).collect();
        let labels = [1, -100, 0, 4, 2];
        let mask: Vec<bool> = (0..5 * n).map(|k| k / n != 2).collect();
        let weights = [2.0, 1.0, 1.0, 0.0, 0.5];
        let plain = both(
            best(),
            loss,
            &batch(n, &x, Targets::Labels(&[1, 0, 0, 4, 2])),
        );
        for (reduction, norm) in [
            (Reduction::None, 1.0),
            (Reduction::Sum, 1.0),
            (Reduction::Mean, 2.5),
        ] {
            let mut batch = Batch {
                weights: PerRow::Each(&weights),
                ignore: Some(-100),
                reduction,
                ..batch(n, &x, Targets::Labels(&labels))
            };
            batch.scores.mask = Some(&mask);
            let (values, gradient, reduced) = both(best(), loss, &batch);
            let expected = [2.0 * plain.0[0], 0.0, 0.0, 0.0, 0.5 * plain.0[4]];
            assert_eq!(values, expected, "{loss:?}");
            if reduction != Reduction::None {
                assert_near(reduced, expected.iter().sum::<f64>() / norm, 1e-15);
            }
            for (k, found) in gradient.into_iter().enumerate() {
                let factor = [2.0, 0.0, 0.0, 0.0, 0.5][k / n] / norm;
                assert_near(found, plain.1[k] * factor, 1e-14);
            }
        }
    }
}

#[test]
fn margins_at_the_ends() {
    let slope = |margin, c| gradient_of_label(Loss::Margin(margin, 1.0), &[c, 0.0], 0)[0];
    for margin in [Margin::Angular(0.5), Margin::Sphere(4)] {
        for c in [1.0 + 1e-7, 1.0, -1.0, -1.0 - 1e-7] {
            assert!(slope(margin, c).is_finite());
            let clamped = c.clamp(-1.0, 1.0);
            let value = |c| of_label(Loss::Margin(margin, 3.0), &[c, 0.0], 0);
            assert_eq!(value(c), value(clamped));
        }
    }
    // The loss falls wherever the cosine rises.
    for margin in [
        Margin::Angular(0.5),
        Margin::Angular(1.5),
        Margin::Sphere(3),
    ] {
        let value = |k: i32| of_label(Loss::Margin(margin, 3.0), &[f64::from(k) / 500.0, 0.0], 0);
        assert!((-500..500).all(|k| value(k) >= value(k + 1)));
    }
}

#[test]
fn f32_follows_f64() {
    let mut numbers = Numbers::new(5);
    for loss in LOSSES {
        for n in [3, 30, 300] {
            let x: Vec<f32> = row(&mut numbers, loss, n)
                .iter()
                .map(|&x| x as f32)
                .collect();
            let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let labels = [n as i64 / 2];
            let y: Vec<f32> = soft_row(&mut numbers, loss, n)
                .iter()
                .map(|&y| y as f32)
                .collect();
            let wide_y: Vec<f64> = y.iter().map(|&y| y.into()).collect();
            let (narrow, expected) = if loss.takes_labels() {
                (
                    both(best(), loss, &batch(n, &x, Targets::Labels(&labels))),
                    both(best(), loss, &batch(n, &wide, Targets::Labels(&labels))),
                )
            } else {
                (
                    both(best(), loss, &batch(n, &x, Targets::Dense(&y))),
                    both(best(), loss, &batch(n, &wide, Targets::Dense(&wide_y))),
                )
            };
            assert_near(
                narrow.0[0],
                expected.0[0],
                4e-6 * expected.0[0].abs().max(1.0),
            );
            for (found, expected) in narrow.1.into_iter().zip(expected.1) {
                assert_near(found.into(), expected, 4e-6 * expected.abs().max(1.0));
            }
        }
    }
}

#[test]
fn every_level_gives_the_same_bits() {
    let mut numbers = Numbers::new(6);
    for loss in LOSSES {
        for n in WIDTHS {
            let x: Vec<f32> = (0..3)
                .flat_map(|_| row(&mut numbers, loss, n))
                .map(|x| x as f32)
                .collect();
            let labels = [0, n as i64 / 2, n as i64 - 1];
            let y: Vec<f32> = (0..3)
                .flat_map(|_| soft_row(&mut numbers, loss, n))
                .map(|y| y as f32)
                .collect();
            let mut all = Vec::new();
            if loss.takes_labels() {
                all.push(Targets::Labels(&labels));
            }
            if loss.takes_distributions() {
                all.push(Targets::Dense(&y));
            }
            for targets in all {
                let batch = batch(n, &x, targets);
                let bits = |level| {
                    let (values, gradient, _) = both(level, loss, &batch);
                    let values: Vec<u64> = values.iter().map(|v| v.to_bits()).collect();
                    let gradient: Vec<u32> = gradient.iter().map(|g| g.to_bits()).collect();
                    (values, gradient)
                };
                let expected = bits(best());
                for (name, level) in every_level() {
                    assert!(bits(level) == expected, "{loss:?} {n} at {name}");
                }
            }
        }
    }
}

#[test]
fn soft_top_k_and_its_gradient() {
    let mut numbers = Numbers::new(7);
    for (n, k) in [(1, 1), (3, 2), (8, 3), (17, 5), (40, 2)] {
        let mut x = row(&mut numbers, Loss::Entmax(1.0), n);
        let g = row(&mut numbers, Loss::Entmax(1.0), n);
        if n > 8 {
            x[4] = -INF;
        }
        let shape = Shape::rows(1, n);
        let of = |x: &[f64]| {
            let mut q = vec![0.0; n];
            let scores = Scores::new(shape, x);
            with_run(best(), 1, |run| soft_top_k(run, &scores, k, &mut q)).unwrap();
            q
        };
        let mut expected = vec![0.0; n];
        let least = x.iter().copied().filter(|&x| x > -INF).fold(INF, f64::min);
        for _ in 0..k {
            let left = x
                .iter()
                .zip(&expected)
                .map(|(x, q)| (1.0 - q) * (x - least));
            let p = slow::softmax(&left.collect::<Vec<_>>());
            expected.iter_mut().zip(p).for_each(|(q, p)| *q += p);
        }
        for (found, expected) in of(&x).into_iter().zip(expected) {
            assert_near(found, expected, 1e-14);
        }
        let mut pulled = vec![0.0; n];
        with_run(best(), 1, |run| {
            soft_top_k_vjp(run, shape, (&x, &g), k, &mut pulled).unwrap();
        });
        for j in 0..n {
            if x[j] == -INF {
                assert_eq!((of(&x)[j], pulled[j]), (0.0, 0.0));
                continue;
            }
            let at = |by: f64| {
                let mut x = x.clone();
                x[j] += by;
                of(&x).iter().zip(&g).map(|(q, g)| q * g).sum::<f64>()
            };
            assert_near(pulled[j], (at(1e-5) - at(-1e-5)) / 2e-5, 1e-8);
        }
    }
    let x = [f32::INFINITY, 0.0, f32::INFINITY, f32::NAN, 1.0, 2.0];
    let mut q = [0.0; 6];
    let scores = Scores::new(Shape::rows(2, 3), &x);
    with_run(best(), 1, |run| soft_top_k(run, &scores, 2, &mut q)).unwrap();
    assert_eq!(q[..3], [1.0, 0.0, 1.0]);
    assert!(q[3..].iter().all(|q| q.is_nan()));
}

#[test]
fn soft_argmax_and_its_gradient() {
    let mut numbers = Numbers::new(8);
    for n in [1, 3, 17, 200] {
        let x = row(&mut numbers, Loss::Entmax(1.0), n);
        let of = |x: &[f64]| {
            let (mut mean, mut gradient) = ([0.0], vec![0.0; n]);
            let scores = Scores::new(Shape::rows(1, n), x);
            with_run(best(), 1, |run| {
                soft_argmax(run, &scores, 0.5, &mut mean, Some(&mut gradient)).unwrap();
            });
            (mean[0], gradient)
        };
        let p = slow::softmax(&x.iter().map(|x| x / 0.5).collect::<Vec<_>>());
        let expected: f64 = p.iter().enumerate().map(|(k, p)| k as f64 * p).sum();
        assert_near(of(&x).0, expected, 1e-12 * n as f64);
        for k in 0..n {
            let at = |by: f64| {
                let mut x = x.clone();
                x[k] += by;
                of(&x).0
            };
            assert_near(of(&x).1[k], (at(1e-5) - at(-1e-5)) / 2e-5, 1e-7);
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let x = [0.1, 0.2, 0.3];
    let call = |loss: Loss, targets: Targets<'_, f64>| {
        let batch = batch(3, &x, targets);
        with_run(best(), 1, |run| loss.call(run, &batch, &mut [0.0], None)).unwrap_err()
    };
    let named = |loss: Loss, targets| match call(loss, targets) {
        Error::Domain { argument, .. }
        | Error::Integer { argument, .. }
        | Error::Unsupported { argument, .. } => argument,
        other => panic!("{other}"),
    };
    let label = Targets::Labels(&[0]);
    let list = Targets::Lists {
        indices: &[0, 1],
        each: 2,
    };
    assert_eq!(named(Loss::CrossEntropy(0.0, 0.0), label), "temperature");
    assert_eq!(
        named(Loss::CrossEntropy(1.0, 1.5), label),
        "label_smoothing"
    );
    assert_eq!(named(Loss::Entmax(0.5), label), "alpha");
    assert_eq!(named(Loss::Normmax(1.0), label), "alpha");
    assert_eq!(named(Loss::TopK(0), label), "k");
    assert_eq!(
        named(Loss::Margin(Margin::Angular(2.0), 1.0), label),
        "margin"
    );
    assert_eq!(named(Loss::Margin(Margin::Sphere(0), 1.0), label), "margin");
    assert_eq!(
        named(Loss::Margin(Margin::Additive(0.0), -1.0), label),
        "scale"
    );
    assert_eq!(named(Loss::Exact(0.0, None, false), label), "temperature");
    assert_eq!(
        named(Loss::Exact(1.0, Some(f64::NAN), false), label),
        "margin"
    );
    assert_eq!(named(Loss::F1(1.0), label), "targets");
    for loss in LOSSES {
        if loss.takes_labels() {
            assert_eq!(named(loss, list), "targets");
            assert_eq!(named(loss, Targets::Labels(&[3])), "targets");
        }
        if !loss.takes_distributions() {
            assert_eq!(named(loss, Targets::Dense(&[1.0, 0.0, 0.0])), "targets");
        }
    }
}

proptest! {
    /// No Fenchel-Young loss is below 0, and its gradient is p - y.
    #[test]
    fn fenchel_young_losses_are_not_negative(
        x in prop::collection::vec(-6f32..6.0, 2..80),
        alpha in 1f64..4.0,
        label in any::<prop::sample::Index>(),
    ) {
        let n = x.len();
        let t = label.index(n);
        let labels = [t as i64];
        let mut p = vec![0f32; n];
        let scores = Scores::new(Shape::rows(1, n), &x[..]);
        with_run(best(), 1, |run| {
            entmax(run, &scores, PerRow::All(alpha), Method::Auto, 1.0, &mut p)
        }).unwrap();
        let hard = both(best(), Loss::Entmax(alpha), &batch(n, &x, Targets::Labels(&labels)));
        prop_assert!(hard.0[0] >= 0.0);
        for (k, (g, p)) in hard.1.iter().zip(&p).enumerate() {
            let y = if k == t { 1.0 } else { 0.0 };
            prop_assert!((g - (p - y)).abs() <= 4.0 * f32::EPSILON);
        }
        // At y = p, nothing is left but rounding.
        let soft = both(best(), Loss::Entmax(alpha), &batch(n, &x, Targets::Dense(&p)));
        prop_assert!(soft.0[0] >= 0.0 && soft.0[0] <= 1e-5, "{}", soft.0[0]);
        let normmax = both(best(), Loss::Normmax(alpha + 0.1), &batch(n, &x, Targets::Dense(&p)));
        prop_assert!(normmax.0[0] >= 0.0);
    }
}
