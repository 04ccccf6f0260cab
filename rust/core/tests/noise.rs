//! noisy_argmax against quadrature that is slow and plain, its gradient against differences, its sampler against it; and
//! the normal distribution of `simd`.

mod common;

use fearless_simd::{Level, Simd, dispatch, f64x8, prelude::*};
use fearless_simd_macros::simd;
use unitmass_core::{
    error::Error,
    losses::{Batch, Reduction, Targets, exact_accuracy_loss},
    maps::{
        Noise, PerRow, Scores, Shape, Storage, Table, noisy_argmax, noisy_argmax_vjp, noisy_sample,
        softmax,
    },
    parallel::Run,
    simd::{mills_ratio, normal_cdf, normal_log_cdf, normal_pdf},
};

use common::{Numbers, every_level};

fn with_run<R>(level: Level, workers: usize, call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

fn mapped_at<E: Storage>(level: Level, noise: &Noise, scale: f64, n: usize, x: &[E]) -> Vec<E> {
    let mut out = x.to_vec();
    let scores = Scores::new(Shape::rows(x.len() / n, n), x);
    with_run(level, 1, |run| {
        noisy_argmax(run, &scores, noise, scale, &mut out)
    })
    .unwrap();
    out
}

fn mapped(noise: &Noise, scale: f64, x: &[f64]) -> Vec<f64> {
    mapped_at(Level::new(), noise, scale, x.len(), x)
}

fn pulled_at<E: Storage>(level: Level, noise: &Noise, scale: f64, x: &[E], g: &[E]) -> Vec<E> {
    let mut out = x.to_vec();
    let shape = Shape::rows(1, x.len());
    with_run(level, 1, |run| {
        noisy_argmax_vjp(run, shape, (x, g), noise, scale, &mut out)
    })
    .unwrap();
    out
}

fn pulled(noise: &Noise, scale: f64, x: &[f64], g: &[f64]) -> Vec<f64> {
    pulled_at(Level::new(), noise, scale, x, g)
}

fn close(found: &[f64], expected: &[f64], absolute: f64, relative: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (k, (a, b)) in found.iter().zip(expected).enumerate() {
        let off = (a - b).abs();
        assert!(
            off <= absolute && (b.abs() < 1e-30 || off <= relative * b.abs()),
            "{what}, entry {k}: {a:e}, expected {b:e}"
        );
    }
}

/// Normal scores, of mean 0.
fn normal_scores(numbers: &mut Numbers, n: usize) -> Vec<f64> {
    (0..n)
        .map(|_| {
            let (u, v) = (numbers.uniform(1e-12, 1.0), numbers.uniform(0.0, 1.0));
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        })
        .collect()
}

/// A triangle on [-1, 2] with its peak at 0: kinks, and bounds that are not symmetric.
fn triangle() -> Table {
    Table::new(
        &[-1.0, 0.0, 2.0],
        &[0.0, 2.0 / 3.0, 0.0],
        &[0.0, 1.0 / 3.0, 1.0],
    )
    .unwrap()
}

/// The logistic density on a grid.
fn logistic_table() -> Table {
    let grid: Vec<f64> = (-4000..=4000).map(|k| k as f64 * 0.01).collect();
    let cdf: Vec<f64> = grid.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    let pdf: Vec<f64> = grid
        .iter()
        .map(|x| 0.25 / (0.5 * x).cosh().powi(2))
        .collect();
    Table::new(&grid, &pdf, &cdf).unwrap()
}

fn all() -> Vec<Noise> {
    vec![
        Noise::Gumbel,
        Noise::Normal,
        Noise::Logistic,
        Noise::Exponential,
        Noise::Uniform,
        Noise::Table(triangle()),
    ]
}

/// ln Φ by the power series near 0, the continued fraction left of it, and symmetry.
fn log_normal_cdf(x: f64) -> f64 {
    let log_pdf = -0.5 * x * x - 0.918_938_533_204_672_7;
    if x > 0.0 {
        return (-log_normal_cdf(-x).exp()).ln_1p();
    }
    if x > -2.5 {
        let (mut term, mut sum) = (x, x);
        for k in 1..60 {
            term *= x * x / (2 * k + 1) as f64;
            sum += term;
        }
        return (0.5 + log_pdf.exp() * sum).ln();
    }
    let mut fraction = 0.0;
    for k in (1..160).rev() {
        fraction = k as f64 / (fraction - x);
    }
    log_pdf - (fraction - x).ln()
}

/// ln f and ln F.
fn logs(noise: &Noise, x: f64) -> (f64, f64) {
    match noise {
        Noise::Normal => (-0.5 * x * x - 0.918_938_533_204_672_7, log_normal_cdf(x)),
        Noise::Logistic => {
            let log = x.min(0.0) - (-x.abs()).exp().ln_1p();
            (2.0 * log - x, log)
        }
        _ => unreachable!("the others have kinks"),
    }
}

/// The trapezoid rule with a small step, for densities without kinks.
fn smooth_reference(noise: &Noise, z: &[f64], step: f64) -> Vec<f64> {
    let low = z.iter().copied().fold(0.0, f64::min);
    let (start, end) = match noise {
        Noise::Normal => (0.5 * low - 10.0, 15.0),
        _ => (low - 45.0, 60.0),
    };
    let mut p = vec![0.0; z.len()];
    for k in (0..((end - start) / step) as usize).rev() {
        let u = start + step * k as f64;
        let each: Vec<(f64, f64)> = z.iter().map(|z| logs(noise, u - z)).collect();
        let log_g: f64 = each.iter().map(|&(_, cdf)| cdf).sum();
        if log_g < -150.0 {
            break;
        }
        for (p, (pdf, cdf)) in p.iter_mut().zip(each) {
            *p += step * (pdf - cdf + log_g).exp();
        }
    }
    p
}

/// Gauss' rule on small steps between kinks, for densities on an interval that are polynomials between some points.
fn kinked_reference(
    z: &[f64],
    points: &[f64],
    f: impl Fn(f64) -> f64,
    cdf: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let mut kinks: Vec<f64> = z
        .iter()
        .flat_map(|z| points.iter().map(move |x| x + z))
        .collect();
    kinks.sort_by(f64::total_cmp);
    let mut p = vec![0.0; z.len()];
    for pair in kinks.windows(2) {
        const PARTS: usize = 40;
        let h = (pair[1] - pair[0]) / PARTS as f64;
        for k in 0..PARTS {
            // Gauss' rule of three nodes.
            for (node, weight) in [(-0.6f64.sqrt(), 5.0), (0.0, 8.0), (0.6f64.sqrt(), 5.0)] {
                let u = pair[0] + h * (k as f64 + 0.5 + 0.5 * node);
                for i in 0..z.len() {
                    let others = (0..z.len()).filter(|&j| j != i);
                    let g: f64 = others.map(|j| cdf(u - z[j])).product();
                    p[i] += h * weight / 18.0 * f(u - z[i]) * g;
                }
            }
        }
    }
    p
}

fn reference(noise: &Noise, x: &[f64]) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let z: Vec<f64> = x.iter().map(|x| x - top).collect();
    match noise {
        Noise::Gumbel => {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(|z| z.exp() / sum).collect()
        }
        Noise::Uniform => kinked_reference(
            &z,
            &[0.0, 1.0],
            |u| f64::from((0.0..=1.0).contains(&u)),
            |u| u.clamp(0.0, 1.0),
        ),
        Noise::Exponential => {
            // In t = e^{-u}, where it is a polynomial.
            let a: Vec<f64> = z.iter().map(|z| z.exp()).collect();
            const PARTS: usize = 2000;
            let mut p = vec![0.0; z.len()];
            for k in 0..=PARTS {
                let t = k as f64 / PARTS as f64;
                let weight = match k {
                    0 | PARTS => 1.0,
                    k if k % 2 == 1 => 4.0,
                    _ => 2.0,
                };
                for i in 0..z.len() {
                    let others = (0..z.len()).filter(|&j| j != i);
                    let g: f64 = others.map(|j| 1.0 - a[j] * t).product();
                    p[i] += a[i] * g * weight / (3 * PARTS) as f64;
                }
            }
            p
        }
        Noise::Table(_) => kinked_reference(
            &z,
            &[-1.0, 0.0, 2.0],
            |u| {
                if u < 0.0 {
                    (2.0 / 3.0 * (1.0 + u)).max(0.0)
                } else {
                    (1.0 / 3.0 * (2.0 - u)).max(0.0)
                }
            },
            |u| {
                if u < 0.0 {
                    (1.0 + u).max(0.0).powi(2) / 3.0
                } else {
                    1.0 - (2.0 - u).max(0.0).powi(2) / 6.0
                }
            },
        ),
        smooth => smooth_reference(smooth, &z, 0.05),
    }
}

#[test]
fn known_values() {
    // The specification's, from float64 quadrature.
    let p = mapped(&Noise::Normal, 1.0, &[-2.0, 0.0, 0.5]);
    close(
        &p,
        &[0.013_645_52, 0.356_068_49, 0.630_285_99],
        5e-9,
        1.0,
        "normal",
    );
    let p = mapped(&Noise::Normal, 1.0, &[1.0, 0.0]);
    close(&p, &[0.760_249_94, 0.239_750_06], 5e-9, 1.0, "normal");
    let p = mapped(&Noise::Normal, 1.0, &[1.0, 0.0, 0.0]);
    close(
        &p,
        &[0.633_702_05, 0.183_148_98, 0.183_148_98],
        5e-9,
        1.0,
        "normal",
    );
    let p = mapped(&Noise::Uniform, 1.0, &[0.5, 0.0]);
    close(&p, &[0.875, 0.125], 2e-16, 1e-15, "uniform");
    // Permute and flip of two: 1 - e^-d/2.
    let p = mapped(&Noise::Exponential, 1.0, &[1.0, 0.0]);
    let half = 0.5 * (-1f64).exp();
    close(&p, &[1.0 - half, half], 1e-12, 1e-11, "exponential");
    // Two logistic: (e^d (d - 1) + 1)/(e^d - 1)².
    let p = mapped(&Noise::Logistic, 1.0, &[2.0, 0.0]);
    let e = 2f64.exp();
    let less = (e + 1.0) / (e - 1.0).powi(2);
    close(&p, &[1.0 - less, less], 1e-11, 1e-10, "logistic");
    // Gumbel noise is softmax.
    let x = [-2.0, 0.0, 0.5];
    let mut expected = x;
    with_run(Level::new(), 1, |run| {
        softmax(run, &Scores::new(Shape::rows(1, 3), &x), 2.0, &mut expected)
    })
    .unwrap();
    close(
        &mapped(&Noise::Gumbel, 2.0, &x),
        &expected,
        0.0,
        0.0,
        "gumbel",
    );
}

#[test]
fn few_scores_agree_with_plain_quadrature() {
    let mut numbers = Numbers::new(1);
    for noise in &all() {
        for n in [1, 2, 3, 5, 9] {
            for spread in [0.0, 0.01, 0.3, 1.0, 3.0, 8.0] {
                let x: Vec<f64> = (0..n)
                    .map(|_| numbers.uniform(0.0, spread + 1e-9))
                    .collect();
                let what = format!("{noise:?}, {x:?}");
                let (absolute, relative) = match noise {
                    Noise::Table(_) => (1e-9, 1.0),
                    _ => (1e-11, 1e-8),
                };
                close(
                    &mapped(noise, 1.0, &x),
                    &reference(noise, &x),
                    absolute,
                    relative,
                    &what,
                );
            }
        }
    }
}

#[test]
fn smooth_noise_agrees_with_plain_quadrature_for_any_spread() {
    let mut numbers = Numbers::new(2);
    for noise in [Noise::Normal, Noise::Logistic] {
        for n in [2, 20, 60, 300] {
            for spread in [
                0.0, 0.01, 1.0, 4.0, 7.0, 12.0, 20.0, 30.0, 40.0, 60.0, 100.0,
            ] {
                let kinds: [&mut dyn FnMut() -> f64; 3] = [
                    &mut || -numbers.uniform(0.0, spread),
                    &mut || -spread,
                    &mut || -3.0,
                ];
                for (kind, score) in kinds.into_iter().enumerate() {
                    let mut x: Vec<f64> = (1..n).map(|_| score()).collect();
                    x.push(0.0);
                    x[0] = -spread;
                    let found = mapped(&noise, 1.0, &x);
                    let what = format!("{noise:?}, n = {n}, spread {spread}, kind {kind}");
                    close(&found, &reference(&noise, &x), 1e-11, 1e-9, &what);
                }
            }
        }
    }
}

#[test]
fn a_scale_divides_and_a_shift_does_not_matter() {
    for noise in &all() {
        let expected = mapped(noise, 1.0, &[0.0, 0.5, -0.25]);
        let found = mapped(noise, 0.5, &[1024.0, 1024.25, 1023.875]);
        assert_eq!(found, expected, "{noise:?}");
    }
}

#[test]
fn large_rows() {
    let mut numbers = Numbers::new(3);
    for n in [1000, 50_000, 200_000] {
        let x = normal_scores(&mut numbers, n);
        for noise in &all() {
            if n > 1000 && matches!(noise, Noise::Table(_)) {
                continue;
            }
            let p = mapped(noise, 1.0, &x);
            let what = format!("{noise:?}, n = {n}");
            sums_to_one(&p, &what);
            keeps_order(&x, &p, &what);
            if n == 50_000 && matches!(noise, Noise::Normal | Noise::Logistic) {
                let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let z: Vec<f64> = x.iter().map(|x| x - top).collect();
                close(&p, &smooth_reference(noise, &z, 0.07), 1e-10, 1e-8, &what);
            }
        }
    }
}

fn sums_to_one(p: &[f64], what: &str) {
    // Added up in pairs of sizes, the error is far below 4 ulp.
    let mut p = p.to_vec();
    p.sort_by(f64::total_cmp);
    let (mut sum, mut lost) = (0.0f64, 0.0);
    for p in p {
        let new = sum + p;
        lost += p - (new - sum);
        sum = new;
    }
    assert!(
        (sum + lost - 1.0).abs() <= 4.0 * f64::EPSILON,
        "{what}: {}",
        sum + lost
    );
}

fn keeps_order(x: &[f64], p: &[f64], what: &str) {
    let mut pairs: Vec<(f64, f64)> = x.iter().copied().zip(p.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    for pair in pairs.windows(2) {
        assert!(pair[0].1 <= pair[1].1, "{what}: {pair:?}");
        if pair[0].0 == pair[1].0 {
            assert_eq!(pair[0].1, pair[1].1, "{what}: {pair:?}");
        }
    }
}

#[test]
fn order_is_kept_by_scores_that_hardly_differ() {
    let mut numbers = Numbers::new(4);
    for noise in &all() {
        for n in [4, 40, 400] {
            for spread in [0.0, 1.0, 10.0] {
                for gap in [1e-15, 1e-12, 1e-11, 1e-10, 1e-8] {
                    let x: Vec<f64> = (0..n)
                        .map(|k| {
                            let base = (k % 4) as f64 / 4.0 * spread;
                            base + gap * numbers.uniform(0.0, 4.0)
                        })
                        .collect();
                    let p = mapped(noise, 1.0, &x);
                    let what = format!("{noise:?}, n = {n}, spread {spread}, gap {gap}");
                    keeps_order(&x, &p, &what);
                    sums_to_one(&p, &what);
                }
            }
        }
    }
}

#[test]
fn ties_share_equally() {
    for noise in &all() {
        for n in [1, 2, 3, 20, 1000, 50_000] {
            if n > 1000 && matches!(noise, Noise::Table(_)) {
                continue;
            }
            let p = mapped(noise, 1.0, &vec![3.5; n]);
            close(
                &p,
                &vec![1.0 / n as f64; n],
                1e-14,
                1e-12,
                &format!("{noise:?}, {n}"),
            );
        }
    }
}

#[test]
fn entries_far_below_many_ties_do_no_harm() {
    for noise in &all() {
        for depth in [20.4, 20.6, 29.9, 30.1, 79.0, 81.0, 1000.0] {
            let mut x = vec![0.0; 100_000];
            if matches!(noise, Noise::Table(_)) {
                x.truncate(100);
            }
            x[7] = -depth;
            let p = mapped(noise, 1.0, &x);
            let what = format!("{noise:?}, {depth}");
            sums_to_one(&p, &what);
            keeps_order(&x, &p, &what);
            assert!((p[0] * (x.len() - 1) as f64 - 1.0).abs() < 1e-8, "{what}");
            let g: Vec<f64> = (0..x.len()).map(|k| (k % 7) as f64).collect();
            let y = pulled(noise, 1.0, &x, &g);
            assert!(y.iter().all(|y| y.is_finite()), "{what}");
            assert!(y.iter().sum::<f64>().abs() < 1e-8, "{what}");
        }
    }
}

#[test]
fn a_table_of_a_known_density_gives_what_it_gives() {
    let mut numbers = Numbers::new(5);
    let table = Noise::Table(logistic_table());
    for n in [2, 5, 100] {
        let x = normal_scores(&mut numbers, n);
        let expected = mapped(&Noise::Logistic, 1.0, &x);
        // The cubics are within 1e-10 of the distribution function.
        close(
            &mapped(&table, 1.0, &x),
            &expected,
            2e-9,
            1e-6,
            &format!("{n}"),
        );
    }
}

#[test]
fn gradients_agree_with_differences() {
    let mut numbers = Numbers::new(6);
    for noise in &all() {
        for n in [1, 2, 3, 20, 150] {
            for scale in [1.0, 0.4] {
                let x: Vec<f64> = normal_scores(&mut numbers, n)
                    .iter()
                    .map(|x| 0.4 * x)
                    .collect();
                let g: Vec<f64> = (0..n).map(|_| numbers.uniform(-1.0, 1.0)).collect();
                let found = pulled(noise, scale, &x, &g);
                for k in (0..n).step_by(1 + n / 10) {
                    let h = 1.0 / 8192.0;
                    let at = |step: f64| {
                        let mut x = x.clone();
                        x[k] += step;
                        let p = mapped(noise, scale, &x);
                        p.iter().zip(&g).map(|(p, g)| p * g).sum::<f64>()
                    };
                    // Of the fourth order.
                    let slope =
                        (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
                    let off = (found[k] - slope).abs();
                    assert!(
                        off < 1e-6,
                        "{noise:?}, n = {n}, {k}: {} and {slope}",
                        found[k]
                    );
                }
                let total: f64 = found.iter().sum();
                assert!(total.abs() < 1e-8, "{noise:?}, n = {n}: {total}");
                // A constant changes nothing, and moves nothing.
                let same = pulled(noise, scale, &x, &vec![0.7; n]);
                assert!(same.iter().all(|y| y.abs() < 1e-12), "{noise:?}, n = {n}");
            }
        }
    }
}

#[test]
fn gradients_agree_with_the_plain_formula() {
    let mut numbers = Numbers::new(7);
    for noise in [Noise::Normal, Noise::Logistic] {
        for (n, spread) in [(2, 1.0), (7, 3.0), (300, 0.1), (300, 6.0), (300, 35.0)] {
            let z: Vec<f64> = (0..n).map(|k| -spread * k as f64 / n as f64).collect();
            let g: Vec<f64> = (0..n).map(|_| numbers.uniform(-1.0, 1.0)).collect();
            let step = 0.05;
            let mut expected = vec![0.0; n];
            for k in 0..2800 {
                let u = -75.0 + step * k as f64;
                let each: Vec<(f64, f64)> = z.iter().map(|z| logs(&noise, u - z)).collect();
                let log_g: f64 = each.iter().map(|&(_, cdf)| cdf).sum();
                if log_g < -700.0 {
                    continue;
                }
                let h: Vec<f64> = each.iter().map(|(pdf, cdf)| (pdf - cdf).exp()).collect();
                let total: f64 = h.iter().sum();
                let pull: f64 = h.iter().zip(&g).map(|(h, g)| h * g).sum();
                for j in 0..n {
                    expected[j] += step * log_g.exp() * h[j] * (g[j] * total - pull);
                }
            }
            let what = format!("{noise:?}, n = {n}, spread {spread}");
            close(
                &pulled(&noise, 1.0, &z, &g),
                &expected,
                1e-10,
                f64::INFINITY,
                &what,
            );
        }
    }
}

#[test]
fn the_probability_of_one_score_is_that_of_the_map() {
    let x: Vec<f64> = (0..60).map(|k| (k * k % 37) as f64 / 20.0).collect();
    let p = mapped_at(Level::new(), &Noise::Normal, 0.5, x.len(), &x);
    for label in [0, 6, 59] {
        let mut g = vec![0.0; x.len()];
        g[label] = 1.0;
        let (mut slopes, mut value) = (vec![0.0; x.len()], [0.0]);
        let mut expected = x.clone();
        let shape = Shape::rows(1, x.len());
        let batch = Batch {
            scores: Scores::new(shape, &x),
            targets: Targets::Labels(&[label as i64]),
            weights: PerRow::All(1.0),
            ignore: None,
            reduction: Reduction::None,
        };
        with_run(Level::new(), 1, |run| {
            noisy_argmax_vjp(run, shape, (&x, &g), &Noise::Normal, 0.5, &mut expected)?;
            exact_accuracy_loss(run, &batch, 0.5, None, false, &mut value, None)?;
            assert!((value[0] + p[label]).abs() < 1e-15);
            exact_accuracy_loss(run, &batch, 0.5, None, false, &mut value, Some(&mut slopes))
        })
        .unwrap();
        assert!((value[0] + p[label]).abs() < 1e-15);
        slopes.iter_mut().for_each(|slope| *slope = -*slope);
        close(&slopes, &expected, 1e-15, 1.0, "slopes");
    }
}

#[test]
fn the_same_bits_at_every_level() {
    let mut numbers = Numbers::new(8);
    for noise in &all() {
        for n in [1, 3, 17, 50, 300] {
            let x = normal_scores(&mut numbers, n);
            let g = normal_scores(&mut numbers, n);
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let levels = every_level();
            let (_, first) = levels[0];
            for &(name, level) in &levels {
                let what = format!("{name}, {noise:?}, n = {n}");
                let at = |level| mapped_at(level, noise, 0.7, n, &x);
                assert_eq!(at(level), at(first), "{what}");
                let at = |level| mapped_at(level, noise, 0.7, n, &narrow);
                assert_eq!(at(level), at(first), "{what}");
                let at = |level| pulled_at(level, noise, 0.7, &x, &g);
                assert_eq!(at(level), at(first), "{what}");
                let at = |level| drawn(level, noise, 0.7, &x, 1, 30, 5);
                assert_eq!(at(level), at(first), "{what}");
            }
        }
    }
}

#[test]
fn special_values() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    for noise in &all() {
        let what = format!("{noise:?}");
        for x in [
            [0.0, NAN, 1.0],
            [NAN, INF, 0.0],
            [NAN, -INF, -INF],
            [-INF; 3],
        ] {
            assert!(mapped(noise, 1.0, &x).iter().all(|p| p.is_nan()), "{what}");
        }
        assert_eq!(
            mapped(noise, 1.0, &[INF, 0.0, INF, -INF]),
            [0.5, 0.0, 0.5, 0.0],
            "{what}"
        );
        assert_eq!(mapped(noise, 1.0, &[-INF, 5.0]), [0.0, 1.0], "{what}");
        let [with, without] = [&[0.5, -INF, 0.2][..], &[0.5, 0.2]].map(|x| mapped(noise, 1.0, x));
        assert_eq!(
            [with[0], with[1], with[2]],
            [without[0], 0.0, without[1]],
            "{what}"
        );
        assert_eq!(
            mapped(noise, 1.0, &[1e300, 0.0, -1e308]),
            [1.0, 0.0, 0.0],
            "{what}"
        );
        assert_eq!(
            mapped(noise, 5e-324, &[1.0, 0.0, -1e308]),
            [1.0, 0.0, 0.0],
            "{what}"
        );
        let y = pulled(noise, 1.0, &[0.5, -INF, 0.2], &[1.0, NAN, 2.0]);
        assert_eq!(y[1], 0.0, "{what}");
        assert!(y[0] < 0.0 && (y[0] + y[2]).abs() < 1e-12, "{what}: {y:?}");
        assert_eq!(
            pulled(noise, 1.0, &[INF, 0.0], &[1.0, 2.0]),
            [0.0, 0.0],
            "{what}"
        );
        assert_eq!(
            pulled(noise, 1.0, &[-INF, -INF], &[1.0, 2.0]),
            [0.0, 0.0],
            "{what}"
        );
        let y = pulled(noise, 1.0, &[0.0, NAN], &[1.0, 2.0]);
        assert!(y.iter().all(|y| y.is_nan()), "{what}");
        // Masks.
        let mut out = [7.0; 6];
        let scores = Scores {
            shape: Shape::rows(2, 3),
            x: Some(&[0.5, 9.0, 0.2, 1.0, 2.0, 3.0]),
            mask: Some(&[true, false, true, false, false, false]),
        };
        with_run(Level::new(), 1, |run| {
            noisy_argmax(run, &scores, noise, 1.0, &mut out)
        })
        .unwrap();
        assert_eq!(out, [without[0], 0.0, without[1], 0.0, 0.0, 0.0], "{what}");
    }
}

#[test]
fn columns_and_narrow_types_are_rows() {
    let mut numbers = Numbers::new(9);
    let shape = Shape {
        outer: 2,
        n: 37,
        inner: 3,
    };
    let x = normal_scores(&mut numbers, shape.len());
    let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    for noise in &all() {
        let (mut out, mut narrow_out) = (x.clone(), narrow.clone());
        with_run(Level::new(), 2, |run| {
            noisy_argmax(run, &Scores::new(shape, &x), noise, 1.0, &mut out)?;
            noisy_argmax(
                run,
                &Scores::new(shape, &narrow),
                noise,
                1.0,
                &mut narrow_out,
            )
        })
        .unwrap();
        let mut y = x.clone();
        with_run(Level::new(), 2, |run| {
            noisy_argmax_vjp(run, shape, (&x, &x), noise, 1.0, &mut y)
        })
        .unwrap();
        for row in 0..shape.count() {
            let start = row / 3 * 37 * 3 + row % 3;
            let of = |values: &[f64]| (0..37).map(|k| values[start + 3 * k]).collect::<Vec<_>>();
            assert_eq!(of(&out), mapped(noise, 1.0, &of(&x)), "{noise:?}");
            assert_eq!(of(&y), pulled(noise, 1.0, &of(&x), &of(&x)), "{noise:?}");
        }
        for (a, b) in narrow_out.iter().zip(&out) {
            assert!((f64::from(*a) - b).abs() < 1e-6, "{noise:?}");
        }
    }
}

#[test]
fn refusals() {
    let x = [0.0, 1.0];
    let mut out = [0.0; 2];
    let scores = Scores::new(Shape::rows(1, 2), &x);
    for scale in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        for noise in &all() {
            let refused = with_run(Level::new(), 1, |run| {
                noisy_argmax(run, &scores, noise, scale, &mut out)
            });
            assert!(
                matches!(
                    refused,
                    Err(Error::Domain {
                        argument: "scale",
                        ..
                    })
                ),
                "{refused:?}"
            );
        }
    }
    let refused = |grid: &[f64], pdf: &[f64], cdf: &[f64]| Table::new(grid, pdf, cdf).unwrap_err();
    let named = |error: Error| match error {
        Error::Domain { argument, .. }
        | Error::Length { argument, .. }
        | Error::Unsupported { argument, .. } => argument,
        other => panic!("{other}"),
    };
    assert_eq!(named(refused(&[0.0], &[1.0], &[0.0])), "grid");
    assert_eq!(named(refused(&[0.0, 0.0], &[1.0; 2], &[0.0, 1.0])), "grid");
    assert_eq!(
        named(refused(&[0.0, f64::NAN], &[1.0; 2], &[0.0, 1.0])),
        "grid"
    );
    assert_eq!(
        named(refused(&[0.0, 1.0], &[1.0, -1.0], &[0.0, 1.0])),
        "pdf"
    );
    assert_eq!(named(refused(&[0.0, 1.0], &[1.0; 3], &[0.0, 1.0])), "pdf");
    assert_eq!(named(refused(&[0.0, 1.0], &[1.0; 2], &[0.0, 0.9])), "cdf");
    assert_eq!(named(refused(&[0.0, 1.0], &[1.0; 2], &[0.1, 1.0])), "cdf");
    assert_eq!(
        named(refused(&[0.0, 1.0, 2.0], &[1.0; 3], &[0.0, 1.0, 0.9])),
        "cdf"
    );
}

fn drawn(
    level: Level,
    noise: &Noise,
    scale: f64,
    x: &[f64],
    workers: usize,
    size: usize,
    seed: u64,
) -> Vec<i64> {
    let mut out = vec![7; size];
    let scores = Scores::new(Shape::rows(1, x.len()), x);
    with_run(level, workers, |run| {
        noisy_sample(run, &scores, noise, scale, size, seed, &mut out)
    })
    .unwrap();
    out
}

#[test]
fn draws_have_the_probabilities() {
    // Every count is within 5 standard errors: 6 noises, 3 rows, some 40 entries; false alarm below 3e-4, and the seed is
    // fixed.
    const DRAWS: usize = 400_000;
    let mut numbers = Numbers::new(10);
    let rows = [vec![0.3, -0.1, 0.0], vec![0.0; 7], {
        normal_scores(&mut numbers, 30)
            .iter()
            .map(|x| 0.5 * x)
            .collect()
    }];
    for noise in &all() {
        for (row, x) in rows.iter().enumerate() {
            let p = mapped(noise, 0.8, x);
            let draws = drawn(Level::new(), noise, 0.8, x, 2, DRAWS, 11 + row as u64);
            let mut counts = vec![0.0; x.len()];
            for draw in draws {
                counts[draw as usize] += 1.0;
            }
            for (k, (p, count)) in p.iter().zip(counts).enumerate() {
                let error = (p * (1.0 - p) * DRAWS as f64).sqrt().max(1.0);
                let off = (count - p * DRAWS as f64) / error;
                assert!(off.abs() < 5.0, "{noise:?}, row {row}, {k}: {off}");
            }
        }
    }
}

#[test]
fn draws_depend_on_seed_row_and_number_only() {
    let mut numbers = Numbers::new(12);
    let shape = Shape {
        outer: 2,
        n: 50,
        inner: 3,
    };
    let x = normal_scores(&mut numbers, shape.len());
    let scores = Scores::new(shape, &x);
    for noise in &all() {
        let draw = |workers, size| {
            let mut out = vec![0; size * shape.count()];
            with_run(Level::new(), workers, |run| {
                noisy_sample(run, &scores, noise, 1.0, size, 5, &mut out)
            })
            .unwrap();
            out
        };
        let many = draw(1, 40);
        assert_eq!(draw(3, 40), many, "{noise:?}");
        assert_eq!(draw(1, 3), many[..3 * shape.count()], "{noise:?}");
        assert_eq!(draw(1, 0), []);
    }
    let x = [
        f64::NAN,
        0.0,
        f64::NEG_INFINITY,
        f64::NEG_INFINITY,
        f64::INFINITY,
        0.0,
    ];
    let mut out = [7; 30];
    with_run(Level::new(), 1, |run| {
        let scores = Scores::new(Shape::rows(3, 2), &x);
        noisy_sample(run, &scores, &Noise::Normal, 1.0, 10, 5, &mut out)
    })
    .unwrap();
    for draw in out.chunks(3) {
        assert_eq!(draw, [-1, -1, 0]);
    }
    // All of +∞ in turn, and what is -∞ never.
    let x = [f64::INFINITY, 3.0, f64::INFINITY];
    let draws = drawn(Level::new(), &Noise::Normal, 1.0, &x, 1, 1000, 5);
    let first = draws.iter().filter(|&&k| k == 0).count();
    assert!(draws.iter().all(|&k| k != 1) && (400..600).contains(&first));
    let x = [f64::NEG_INFINITY, 3.0, f64::NEG_INFINITY];
    let draws = drawn(Level::new(), &Noise::Normal, 1.0, &x, 1, 100, 5);
    assert!(draws.iter().all(|&k| k == 1));
}

#[test]
fn draws_are_pinned() {
    // A change here changes what anyone has drawn: it is an entry in the CHANGELOG.
    let x = [0.0, 0.5, 0.25, 0.1];
    let draws: Vec<Vec<i64>> = all()
        .iter()
        .map(|noise| drawn(Level::new(), noise, 1.0, &x, 1, 12, 2024))
        .collect();
    assert_eq!(draws, PINNED);
}

const PINNED: [[i64; 12]; 6] = [
    [3, 1, 2, 3, 0, 1, 3, 0, 1, 0, 2, 1],
    [3, 1, 2, 3, 0, 1, 3, 0, 1, 0, 2, 1],
    [3, 1, 2, 3, 0, 1, 3, 0, 1, 0, 2, 1],
    [1, 2, 3, 2, 2, 2, 0, 1, 0, 1, 0, 0],
    [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1],
    [3, 1, 2, 1, 0, 1, 3, 0, 1, 0, 2, 1],
];

#[simd]
fn normals<S: Simd>(simd: S, z: [f64; 8]) -> [[f64; 8]; 4] {
    let z = f64x8::from_slice(simd, &z);
    [
        mills_ratio::<S>(z.abs()).into(),
        normal_pdf::<S>(z).into(),
        normal_cdf::<S>(z).into(),
        normal_log_cdf::<S>(z).into(),
    ]
}

#[test]
fn the_normal_distribution() {
    // z, R(|z|), φ(z), Φ(z), ln Φ(z), from mpmath in 40 digits.
    for (name, level) in every_level() {
        for [z, ratio, pdf, cdf, log_cdf] in NORMAL {
            let found = dispatch!(level, simd => normals(simd, [z; 8]));
            for (what, value, expected, ulps) in [
                ("R", found[0][3], ratio, 3.0),
                ("φ", found[1][3], pdf, 3.0),
                ("Φ", found[2][3], cdf, 4.0),
                ("ln Φ", found[3][3], log_cdf, 6.0),
            ] {
                let off = (value - expected).abs();
                let ulp = expected.abs() * f64::EPSILON;
                assert!(
                    off <= ulps * ulp,
                    "{name}, {what}({z}): {value:e}, {expected:e}"
                );
            }
        }
        let [ratio, pdf, cdf, log] = dispatch!(level, simd => normals(simd, [f64::INFINITY; 8]));
        assert_eq!(
            [ratio[0], pdf[0], cdf[0], log[0]],
            [0.0, 0.0, 1.0, 0.0],
            "{name}"
        );
        let [_, pdf, cdf, log] = dispatch!(level, simd => normals(simd, [f64::NEG_INFINITY; 8]));
        assert_eq!(
            [pdf[0], cdf[0], log[0]],
            [0.0, 0.0, f64::NEG_INFINITY],
            "{name}"
        );
        let [ratio, pdf, cdf, log] = dispatch!(level, simd => normals(simd, [f64::NAN; 8]));
        assert!(
            [ratio[0], pdf[0], cdf[0], log[0]]
                .iter()
                .all(|x| x.is_nan()),
            "{name}"
        );
    }
}

const NORMAL: [[f64; 5]; 24] = [
    [
        0.0,
        1.253_314_137_315_500_3,
        0.398_942_280_401_432_7,
        0.5,
        -std::f64::consts::LN_2,
    ],
    [
        0.0,
        1.253_314_137_315_500_3,
        0.398_942_280_401_432_7,
        0.5,
        -std::f64::consts::LN_2,
    ],
    [
        0.1,
        1.159_262_399_618_736_3,
        0.396_952_547_477_011_75,
        0.539_827_837_277_029,
        -0.616_505_010_115_026_3,
    ],
    [
        -0.1,
        1.159_262_399_618_736_3,
        0.396_952_547_477_011_75,
        0.460_172_162_722_971,
        -0.776_154_592_730_273_3,
    ],
    [
        0.5,
        0.876_364_456_453_692_3,
        0.352_065_326_764_299_47,
        0.691_462_461_274_013_1,
        -0.368_946_415_288_656_4,
    ],
    [
        -0.5,
        0.876_364_456_453_692_3,
        0.352_065_326_764_299_47,
        0.308_537_538_725_986_9,
        -1.175_911_761_593_618_5,
    ],
    [
        1.0,
        0.655_679_542_418_798_4,
        0.241_970_724_519_143_34,
        0.841_344_746_068_542_9,
        -0.172_753_779_023_449_88,
    ],
    [
        -1.0,
        0.655_679_542_418_798_4,
        0.241_970_724_519_143_34,
        0.158_655_253_931_457_05,
        -1.841_021_645_009_263_6,
    ],
    [
        2.25,
        0.385_148_290_798_434_6,
        0.031_739_651_835_667_42,
        0.987_775_527_344_955_3,
        -0.012_299_806_091_449_409,
    ],
    [
        -2.25,
        0.385_148_290_798_434_6,
        0.031_739_651_835_667_42,
        0.012_224_472_655_044_703,
        -4.404_315_381_153_271,
    ],
    [
        5.0,
        0.192_808_104_715_315_76,
        1.486_719_514_734_297_7e-6,
        0.999_999_713_348_428_1,
        -2.866_516_129_637_636e-7,
    ],
    [
        -5.0,
        0.192_808_104_715_315_76,
        1.486_719_514_734_297_7e-6,
        2.866_515_718_791_939e-7,
        -15.064_998_393_988_725,
    ],
    [
        8.0,
        0.123_131_963_257_932_3,
        5.052_271_083_536_892e-15,
        0.999_999_999_999_999_3,
        -6.220_960_574_271_786e-16,
    ],
    [
        -8.0,
        0.123_131_963_257_932_3,
        5.052_271_083_536_892e-15,
        6.220_960_574_271_784e-16,
        -35.013_437_159_914_55,
    ],
    [
        12.5,
        0.079_497_529_161_117_21,
        4.695_195_357_975_146e-35,
        1.0,
        -3.732_564_298_877_713e-36,
    ],
    [
        -12.5,
        0.079_497_529_161_117_21,
        4.695_195_357_975_146e-35,
        3.732_564_298_877_713e-36,
        -81.575_967_870_743_88,
    ],
    [
        -20.3,
        0.049_142_403_980_316_02,
        1.308_288_554_681_529e-90,
        6.429_244_467_698_346e-92,
        -209.976_971_525_242_02,
    ],
    [
        20.3,
        0.049_142_403_980_316_02,
        1.308_288_554_681_529e-90,
        1.0,
        -6.429_244_467_698_346e-92,
    ],
    [
        -30.7,
        0.032_538_838_445_773_86,
        8.745_949_016_024_064e-206,
        2.845_830_220_873_819_3e-207,
        -475.589_259_407_229_3,
    ],
    [
        -37.5,
        0.026_647_744_014_898_55,
        1.728_233_732_284_105_4e-306,
        4.605_353_009_581_955e-308,
        -707.668_989_317_507_2,
    ],
    [
        37.5,
        0.026_647_744_014_898_55,
        1.728_233_732_284_105_4e-306,
        1.0,
        -4.605_353_009_581_955e-308,
    ],
    [
        -3.3333,
        0.278_201_330_750_787_2,
        0.001_542_450_369_287_704_3,
        0.000_429_111_745_352_882_4,
        -7.753_793_194_276_890_5,
    ],
    [
        3.3333,
        0.278_201_330_750_787_2,
        0.001_542_450_369_287_704_3,
        0.999_570_888_254_647_1,
        -0.000_429_203_840_144_795_9,
    ],
    [
        1e-09,
        1.253_314_136_315_500_3,
        0.398_942_280_401_432_7,
        0.500_000_000_398_942_3,
        -0.693_147_179_762_060_8,
    ],
];
