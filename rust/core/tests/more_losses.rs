//! zlpr, the k-subset softmax, group_zlpr and cosent: known values, slow references in f64, gradients against finite
//! differences, special values, what the driver adds (weights, masks, lists, reductions), and the same bits at every
//! SIMD level.

mod common;

use fearless_simd::Level;
use proptest::prelude::*;
use unitmass_core::{
    error::Error,
    losses::{Batch, Reduction, Targets, cosent, group_zlpr, subset_softmax_loss, zlpr},
    maps::{PerRow, Scores, Shape, Storage},
    parallel::Run,
};

use common::{Numbers, every_level};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// A loss and its options.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// The threshold; the margin and its scale.
    Zlpr(f64, Option<(f64, f64)>),
    Subset,
    /// The classes of a group; whether centred.
    Group(usize, bool),
    /// The scale.
    Cosent(f64),
}

const PLAIN: Kind = Kind::Zlpr(0.0, None);

/// Every loss with every option, for rows of 12.
const KINDS: [Kind; 9] = [
    PLAIN,
    Kind::Zlpr(0.7, None),
    Kind::Zlpr(0.0, Some((0.3, 2.5))),
    Kind::Subset,
    Kind::Group(3, false),
    Kind::Group(3, true),
    Kind::Group(12, false),
    Kind::Cosent(20.0),
    Kind::Cosent(900.0),
];

impl Kind {
    fn call<E: Storage>(
        self,
        level: Level,
        workers: usize,
        batch: &Batch<'_, E>,
        values: &mut [f64],
        gradient: Option<&mut [E]>,
    ) -> Result<f64, Error> {
        let run = &mut Run {
            level,
            workers,
            watch: &mut || true,
        };
        match self {
            Kind::Zlpr(threshold, margin) => {
                let threshold = PerRow::All(threshold);
                zlpr(run, batch, threshold, margin, values, gradient)
            }
            Kind::Subset => subset_softmax_loss(run, batch, values, gradient),
            Kind::Group(m, centred) => group_zlpr(run, batch, m, centred, values, gradient),
            Kind::Cosent(scale) => cosent(run, batch, scale, values, gradient),
        }
    }

    /// The value and the gradient of one row, the same bits at every level, and with or without the gradient.
    fn row<E: Storage + PartialOrd>(self, x: &[E], t: &[E]) -> (f64, Vec<E>) {
        let batch = rows_of(x.len(), x, Targets::Dense(t));
        let mut found: Option<(f64, Vec<E>)> = None;
        for (name, level) in every_level() {
            let (mut alone, mut value) = ([0.0], [0.0]);
            let mut gradient = x.to_vec();
            self.call(level, 1, &batch, &mut alone, None).unwrap();
            self.call(level, 1, &batch, &mut value, Some(&mut gradient))
                .unwrap();
            assert_eq!(alone[0].to_bits(), value[0].to_bits(), "{self:?} {name}");
            if let Some((expected, slopes)) = &found {
                assert_eq!(value[0].to_bits(), expected.to_bits(), "{self:?} {name}");
                let same = |(a, b): (&E, &E)| a == b || is_nan(a) && is_nan(b);
                assert!(gradient.iter().zip(slopes).all(same), "{self:?} {name}");
            }
            found = Some((value[0], gradient));
        }
        found.unwrap()
    }

    /// What multiplies the scores.
    fn scale(self) -> f64 {
        match self {
            Kind::Zlpr(_, Some((_, scale))) | Kind::Cosent(scale) => scale,
            _ => 1.0,
        }
    }

    /// By the definition.
    fn reference(self, x: &[f64], t: &[f64]) -> f64 {
        match self {
            Kind::Zlpr(threshold, None) => {
                let z: Vec<f64> = x.iter().map(|x| x - threshold).collect();
                log_1p(z.iter().zip(t).map(|(z, t)| (1.0 - t, *z)))
                    + log_1p(z.iter().zip(t).map(|(z, t)| (*t, -z)))
            }
            Kind::Zlpr(_, Some((margin, scale))) => {
                let others = |j: usize| move |i: usize| (j, i);
                log_1p(
                    (0..x.len())
                        .flat_map(|j| (0..x.len()).map(others(j)))
                        .map(|(j, i)| (t[j] * (1.0 - t[i]), scale * (x[i] - x[j] + margin))),
                )
            }
            Kind::Subset => {
                let n = x.len();
                let size = t.iter().filter(|&&t| t != 0.0).count();
                let score = |set: usize| {
                    (0..n)
                        .filter(|i| set >> i & 1 == 1)
                        .map(|i| x[i])
                        .sum::<f64>()
                };
                let own = (0..n).filter(|&i| t[i] != 0.0).map(|i| 1 << i).sum();
                let others = (0..1_usize << n)
                    .filter(|set| set.count_ones() as usize == size && *set != own);
                log_1p(others.map(|set| (1.0, score(set) - score(own))))
            }
            Kind::Group(m, centred) => (0..m)
                .map(|j| {
                    let groups = x.chunks(m).zip(t.chunks(m));
                    log_1p(groups.flat_map(|(x, t)| {
                        if centred {
                            let mean = x.iter().sum::<f64>() / m as f64;
                            return vec![(t[j], mean - x[j])];
                        }
                        let others = (0..m).filter(|&k| k != j);
                        others.map(|k| (t[j], x[k] - x[j])).collect()
                    }))
                })
                .sum(),
            Kind::Cosent(scale) => {
                let pairs = (0..x.len()).flat_map(|i| (0..x.len()).map(move |j| (i, j)));
                let ordered = pairs.filter(|&(i, j)| t[i] < t[j]);
                log_1p(ordered.map(|(i, j)| (1.0, scale * (x[i] - x[j]))))
            }
        }
    }

    /// Targets that the loss takes.
    fn targets(self, numbers: &mut Numbers, n: usize, hard: bool) -> Vec<f64> {
        (0..n)
            .map(|_| match self {
                Kind::Cosent(_) if hard => numbers.uniform(-2.0, 3.0).floor(),
                Kind::Cosent(_) => numbers.uniform(-2.0, 2.0),
                Kind::Subset => numbers.uniform(0.0, 1.5).floor(),
                _ if hard => numbers.uniform(0.0, 1.5).floor(),
                _ => numbers.uniform(-0.3, 1.3).clamp(0.0, 1.0),
            })
            .collect()
    }
}

/// Whether a value is none.
fn is_nan<E: PartialOrd>(value: &E) -> bool {
    value.partial_cmp(value).is_none()
}

/// `log(1 + Σ w e^z)`; terms with the weight 0 are absent.
fn log_1p(terms: impl Iterator<Item = (f64, f64)>) -> f64 {
    let terms: Vec<_> = terms.filter(|&(w, _)| w != 0.0).collect();
    let most = terms.iter().fold(0.0_f64, |most, &(_, z)| most.max(z));
    let sum: f64 = terms.iter().map(|&(w, z)| w * (z - most).exp()).sum();
    if most == 0.0 {
        sum.ln_1p()
    } else {
        most + ((-most).exp() + sum).ln()
    }
}

fn rows_of<'a, E: Storage>(n: usize, x: &'a [E], targets: Targets<'a, E>) -> Batch<'a, E> {
    Batch {
        scores: Scores::new(Shape::rows(x.len() / n, n), x),
        targets,
        weights: PerRow::All(1.0),
        ignore: Some(-100),
        reduction: Reduction::None,
    }
}

fn best() -> Level {
    every_level()[0].1
}

#[track_caller]
fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance || found == expected,
        "{found} is not {expected} within {tolerance}"
    );
}

#[track_caller]
fn assert_row(kind: Kind, x: &[f64], t: &[f64], value: f64, gradient: &[f64]) {
    let (found, slopes) = kind.row(x, t);
    let same = |a: f64, b: f64| a == b || (a - b).abs() < 1e-14 || a.is_nan() && b.is_nan();
    assert!(same(found, value), "{kind:?} {x:?}: {found} is not {value}");
    let all = slopes.iter().zip(gradient).all(|(&a, &b)| same(a, b));
    assert!(all, "{kind:?} {x:?}: {slopes:?} is not {gradient:?}");
}

#[test]
fn known_values() {
    // Eight digits of the formulas.
    let digits = |kind: Kind, x: &[f64], t: &[f64], value| {
        assert_near(kind.row(x, t).0, value, 5.1e-9);
    };
    digits(
        PLAIN,
        &[2.0, -1.0, 0.5, -3.0],
        &[1.0, 0.0, 1.0, 0.0],
        0.903_969_14,
    );
    let groups = [1.0, 0.0, -1.0, 0.0, 2.0, 1.0];
    let right = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    digits(Kind::Group(3, false), &groups, &right, 0.815_211_93);
    digits(Kind::Group(3, true), &groups, &right, 0.626_523_37);
    let (f, y) = ([0.9, 0.8, 0.3, -0.1, 0.5], [1.0, 0.0, 1.0, 0.0, 2.0]);
    digits(Kind::Cosent(20.0), &f, &y, 10.142_977_04);
    // Z of the scores log 1, 2, 3 is 6, 11, 6.
    let s = [1.0_f64, 2.0, 3.0].map(f64::ln);
    for (t, ratio) in [
        ([0.0, 1.0, 0.0], 6.0 / 2.0),
        ([1.0, 0.0, 1.0], 11.0 / 3.0),
        ([1.0, 1.0, 1.0], 6.0 / 6.0),
        ([0.0, 0.0, 0.0], 1.0),
    ] {
        assert_near(Kind::Subset.row(&s, &t).0, f64::ln(ratio), 1e-15);
    }
    // P(i in S) for k = 2: 5/11, 8/11, 9/11.
    let (_, gradient) = Kind::Subset.row(&s, &[1.0, 0.0, 1.0]);
    for (found, expected) in gradient.iter().zip([-6.0 / 11.0, 8.0 / 11.0, -2.0 / 11.0]) {
        assert_near(*found, expected, 1e-15);
    }
}

#[test]
fn soft_zlpr_is_least_where_the_targets_say() {
    let t = [0.9, 0.2, 0.5];
    let s = t.map(|t: f64| 0.5 * (t / (1.0 - t)).ln());
    for (s, digits) in s.iter().zip([1.098_612, -std::f64::consts::LN_2, 0.0]) {
        assert_near(*s, digits, 5e-7);
    }
    let (value, gradient) = PLAIN.row(&s, &t);
    assert_near(value, 1.576_914_72, 5.1e-9);
    let least = t.iter().map(|t| (t * (1.0 - t)).sqrt()).sum::<f64>();
    assert_near(value, 2.0 * least.ln_1p(), 1e-15);
    assert!(gradient.iter().all(|g| g.abs() < 1e-16), "{gradient:?}");
}

#[test]
fn a_threshold_shifts_the_scores() {
    let mut numbers = Numbers::new(3);
    let n = 21;
    let x: Vec<f64> = (0..2 * n).map(|_| numbers.uniform(-4.0, 4.0)).collect();
    let t = PLAIN.targets(&mut numbers, 2 * n, true);
    let thresholds = [0.75, -1.5];
    let (mut values, mut gradient) = ([0.0; 2], vec![0.0; 2 * n]);
    let run = &mut Run {
        level: best(),
        workers: 1,
        watch: &mut || true,
    };
    let each = PerRow::Each(&thresholds);
    let batch = rows_of(n, &x, Targets::Dense(&t));
    zlpr(run, &batch, each, None, &mut values, Some(&mut gradient)).unwrap();
    for row in 0..2 {
        let at = row * n..(row + 1) * n;
        let s0 = thresholds[row];
        let shifted: Vec<f64> = x[at.clone()].iter().map(|x| x - s0).collect();
        let (value, slopes) = PLAIN.row(&shifted, &t[at.clone()]);
        assert_eq!(values[row], value);
        assert_eq!(gradient[at.clone()], slopes);
        let own = x[at.clone()].iter().zip(&t[at]);
        let negative: f64 = own.clone().map(|(x, t)| (1.0 - t) * x.exp()).sum();
        let positive: f64 = own.map(|(x, t)| t * (-x).exp()).sum();
        let expected = (s0.exp() + negative).ln() + ((-s0).exp() + positive).ln();
        assert_near(value, expected, 1e-14);
    }
}

#[test]
fn two_classes_are_zlpr_of_the_difference() {
    let mut numbers = Numbers::new(5);
    let groups = 40;
    let x: Vec<f64> = (0..2 * groups)
        .map(|_| numbers.uniform(-9.0, 9.0))
        .collect();
    let t: Vec<f64> = (0..groups)
        .map(|_| numbers.uniform(0.0, 2.0).floor())
        .collect();
    let difference: Vec<f64> = x.chunks(2).map(|s| s[0] - s[1]).collect();
    let pairs: Vec<f64> = t.iter().flat_map(|t| [*t, 1.0 - t]).collect();
    let (expected, slopes) = PLAIN.row(&difference, &t);
    let (value, gradient) = Kind::Group(2, false).row(&x, &pairs);
    assert_near(value, expected, 1e-14 * expected);
    for (slope, pair) in slopes.iter().zip(gradient.chunks(2)) {
        assert_near(pair[0], *slope, 1e-14);
        assert_near(pair[1], -slope, 1e-14);
    }
}

#[test]
fn values_agree_with_the_definition() {
    let mut numbers = Numbers::new(7);
    for round in 0..400 {
        let spread = [0.1, 1.0, 10.0, 100.0, 5000.0][round % 5];
        for kind in KINDS {
            let x: Vec<f64> = (0..12).map(|_| numbers.uniform(-spread, spread)).collect();
            let t = kind.targets(&mut numbers, 12, round % 2 == 0);
            let (value, expected) = (kind.row(&x, &t).0, kind.reference(&x, &t));
            let scale = kind.scale();
            // An exponent is as wrong as its rounding; the rest is a few ulp. Beside log f, subsets have an absolute
            // error.
            let slack = 1e-16 * (40.0 + 4.0 * scale * spread) * expected.max(0.0);
            let slack = slack
                + if matches!(kind, Kind::Subset) {
                    2e-15
                } else {
                    0.0
                };
            let slack = slack + 4e-16 * scale * spread * expected.min(1.0);
            assert!(
                (value - expected).abs() <= slack,
                "{kind:?}, {x:?}, {t:?}: {value} is not {expected} within {slack}"
            );
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let narrow_t: Vec<f32> = t.iter().map(|&t| t as f32).collect();
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let value = kind.row(&narrow, &narrow_t).0;
            let expected = kind.reference(&wide(&narrow), &wide(&narrow_t));
            let slack = match kind {
                Kind::Zlpr(..) => 1e-7 * (10.0 + 2.0 * scale * spread) * expected,
                _ => 1e-14 * (10.0 + scale * spread) * expected + 2e-15,
            };
            assert!(
                (value - expected).abs() <= slack + 1e-44,
                "{kind:?}, {narrow:?}, {narrow_t:?}: {value} is not {expected} within {slack}"
            );
        }
    }
}

#[test]
fn gradients_are_the_slopes() {
    let mut numbers = Numbers::new(11);
    for round in 0..60 {
        let spread = [0.5, 2.0, 6.0][round % 3];
        for kind in KINDS {
            let scale = kind.scale();
            let x: Vec<f64> = (0..12).map(|_| numbers.uniform(-spread, spread)).collect();
            let t = kind.targets(&mut numbers, 12, round % 2 == 0);
            let (value, gradient) = kind.row(&x, &t);
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let narrow_t: Vec<f32> = t.iter().map(|&t| t as f32).collect();
            let (_, narrow) = kind.row(&narrow, &narrow_t);
            for i in 0..12 {
                // The error of the difference: of third order in the step, and the rounding of the values by the step.
                let step = 1e-5 / scale;
                let (mut above, mut below) = (x.clone(), x.clone());
                above[i] += step;
                below[i] -= step;
                let slope =
                    (kind.reference(&above, &t) - kind.reference(&below, &t)) / (2.0 * step);
                let slack = 1e-9 * scale + 1e-15 * value / step;
                assert_near(gradient[i], slope, slack);
                // In f32 the scores differ by their rounding.
                assert_near(
                    narrow[i].into(),
                    slope,
                    slack + 2e-6 * scale * (1.0 + scale * spread),
                );
            }
        }
    }
}

/// What is left of a polynomial of degree n whose roots are -e^s, by the plain recursion.
fn log_of_symmetric_polynomial(s: &[f64], k: usize) -> f64 {
    let mut z = vec![0.0; k + 1];
    z[0] = 1.0;
    for s in s {
        for j in (1..=k).rev() {
            z[j] += s.exp() * z[j - 1];
        }
    }
    z[k].ln()
}

#[test]
fn large_subsets() {
    let mut numbers = Numbers::new(13);
    for (n, k, spread) in [
        (60, 7, 1.0),
        (60, 53, 1.0),
        (200, 100, 0.1),
        (300, 2, 3.0),
        (90, 45, 4.0),
    ] {
        let s: Vec<f64> = (0..n).map(|_| numbers.uniform(-spread, spread)).collect();
        let mut t = vec![0.0; n];
        for i in 0..k {
            t[i * n / k] = 1.0;
        }
        let (value, gradient) = Kind::Subset.row(&s, &t);
        let own: f64 = s.iter().zip(&t).map(|(s, t)| s * t).sum();
        let log = log_of_symmetric_polynomial(&s, k);
        assert_near(value, log - own, 1e-14 * (log.abs() + own.abs() + 10.0));
        let mut sum = 0.0;
        for i in 0..n {
            let others: Vec<f64> = (0..n).filter(|&j| j != i).map(|j| s[j]).collect();
            let p = (s[i] + log_of_symmetric_polynomial(&others, k - 1) - log).exp();
            assert_near(gradient[i] + t[i], p, 1e-12);
            sum += gradient[i];
        }
        assert_near(sum, 0.0, 1e-13);
    }
    // A thousand equal scores, far from 0: any set is as probable as any other.
    for at in [0.0, 1e30, -1e300] {
        let mut t = vec![0.0; 1000];
        t[..3].fill(1.0);
        let (value, gradient) = Kind::Subset.row(&vec![at; 1000], &t);
        assert_near(value, (1000.0_f64 * 999.0 * 998.0 / 6.0).ln(), 1e-12);
        assert_near(gradient[500], 3e-3, 1e-15);
        assert_near(gradient[0], -0.997, 1e-15);
    }
}

#[test]
fn huge_scores_and_small_losses() {
    // Far apart.
    let x = [1e30, -1e30, 0.0, 2.0];
    let t = [1.0, 0.0, 0.0, 1.0];
    assert_row(PLAIN, &x[..2], &t[..2], 0.0, &[0.0, 0.0]);
    assert_row(PLAIN, &x[..2], &t[1..3], 1e30, &[1.0, 0.0]);
    assert_row(PLAIN, &x[..2], &[0.0, 1.0], 2e30, &[1.0, -1.0]);
    let margin = Kind::Zlpr(0.0, Some((0.5, 2.0)));
    assert_row(margin, &x[..2], &[0.0, 1.0], 4e30, &[2.0, -2.0]);
    assert_row(margin, &x[..2], &t[..2], 0.0, &[0.0, 0.0]);
    assert_row(
        Kind::Subset,
        &x[..3],
        &[0.0, 1.0, 0.0],
        2e30,
        &[1.0, -1.0, 0.0],
    );
    assert_row(
        Kind::Group(2, false),
        &x[..2],
        &[0.0, 1.0],
        2e30,
        &[1.0, -1.0],
    );
    assert_row(Kind::Cosent(2.0), &x[..2], &[0.0, 1.0], 4e30, &[2.0, -2.0]);
    // Small.
    for kind in [
        PLAIN,
        Kind::Group(2, false),
        Kind::Cosent(1.0),
        Kind::Zlpr(0.0, Some((0.0, 1.0))),
    ] {
        let x = [60.0, -60.0];
        let (value, gradient) = kind.row(&x, &t[..2]);
        let expected = kind.reference(&x, &t[..2]);
        assert!(expected < 1e-20);
        assert_near(value, expected, 1e-14 * expected);
        let slope = if kind == PLAIN { 0.5 } else { 1.0 } * expected;
        assert_near(gradient[0], -slope, 1e-14 * slope);
        assert_near(gradient[1], slope, 1e-14 * slope);
    }
}

#[test]
fn infinite_scores() {
    let low = -INF;
    // -∞ takes no part; as a target it makes the loss infinite.
    let ln_2 = std::f64::consts::LN_2;
    assert_row(PLAIN, &[low, 0.0], &[0.0, 1.0], ln_2, &[0.0, -0.5]);
    assert_row(PLAIN, &[low, 0.0], &[1.0, 0.0], INF, &[-1.0, 0.5]);
    assert_row(
        PLAIN,
        &[low, low],
        &[0.5, 0.25],
        INF,
        &[-2.0 / 3.0, -1.0 / 3.0],
    );
    assert_row(PLAIN, &[low, low], &[0.0, 0.0], 0.0, &[0.0, 0.0]);
    assert_row(PLAIN, &[INF, 0.0], &[1.0, 0.0], ln_2, &[0.0, 0.5]);
    assert_row(PLAIN, &[INF, INF], &[0.0, 0.0], INF, &[0.5, 0.5]);
    let margin = Kind::Zlpr(0.0, Some((0.0, 1.0)));
    assert_row(
        margin,
        &[low, 0.0, 0.0],
        &[0.0, 1.0, 0.0],
        ln_2,
        &[0.0, -0.5, 0.5],
    );
    assert_row(margin, &[low, 0.0], &[1.0, 0.0], INF, &[-1.0, 1.0]);
    assert_row(margin, &[low, 0.0], &[0.0, 0.0], 0.0, &[0.0, 0.0]);
    let s = Kind::Subset;
    assert_row(
        s,
        &[low, 0.0, 0.0],
        &[0.0, 1.0, 0.0],
        ln_2,
        &[0.0, -0.5, 0.5],
    );
    assert_row(
        s,
        &[low, 0.0, 0.0],
        &[1.0, 0.0, 0.0],
        INF,
        &[-1.0, 0.5, 0.5],
    );
    assert_row(
        s,
        &[low, low, 0.0],
        &[1.0, 0.0, 1.0],
        INF,
        &[-1.0, 0.0, 0.0],
    );
    assert_row(
        s,
        &[INF, 0.0, 0.0],
        &[1.0, 1.0, 0.0],
        ln_2,
        &[0.0, -0.5, 0.5],
    );
    assert_row(
        s,
        &[INF, 0.0, 0.0],
        &[0.0, 1.0, 0.0],
        INF,
        &[1.0, -1.0, 0.0],
    );
    assert_row(
        s,
        &[INF, INF, 0.0],
        &[0.0, 1.0, 0.0],
        ln_2,
        &[0.5, -0.5, 0.0],
    );
    for centred in [false, true] {
        let group = Kind::Group(3, centred);
        let (two, slopes) = Kind::Group(2, centred).row(&[0.3, 0.0], &[1.0, 0.0]);
        assert_row(
            group,
            &[0.3, low, 0.0],
            &[1.0, 0.0, 0.0],
            two,
            &[slopes[0], 0.0, slopes[1]],
        );
        let (value, gradient) = group.row(&[0.3, low, 0.0], &[0.0, 1.0, 0.0]);
        assert_eq!(value, INF);
        assert_eq!(gradient[1], -1.0);
        assert_row(group, &[low; 3], &[0.0; 3], 0.0, &[0.0; 3]);
        assert_row(group, &[low; 3], &[0.0, 1.0, 0.0], INF, &[0.0, -1.0, 0.0]);
    }
    assert_row(
        Kind::Group(2, false),
        &[INF, 0.0],
        &[1.0, 0.0],
        0.0,
        &[0.0, 0.0],
    );
    assert_row(
        Kind::Group(2, false),
        &[INF, 0.0],
        &[0.0, 1.0],
        INF,
        &[1.0, -1.0],
    );
    assert_row(Kind::Group(1, false), &[3.0], &[1.0], 0.0, &[0.0]);
    let c = Kind::Cosent(1.0);
    assert_row(
        c,
        &[low, 0.0, 0.0],
        &[0.0, 1.0, 2.0],
        ln_2,
        &[0.0, 0.5, -0.5],
    );
    assert_row(
        c,
        &[INF, 0.0, 0.0],
        &[0.0, 1.0, 2.0],
        INF,
        &[1.0, -0.5, -0.5],
    );
    assert_row(
        c,
        &[INF, 0.0, 0.0],
        &[3.0, 1.0, 2.0],
        ln_2,
        &[0.0, 0.5, -0.5],
    );
    assert_row(c, &[5.0], &[1.0], 0.0, &[0.0]);
    assert_row(c, &[5.0, 6.0], &[0.0, -0.0], 0.0, &[0.0, 0.0]);
    assert_row(
        c,
        &[0.0, 0.0, 0.0],
        &[INF, -INF, -1.0],
        4_f64.ln(),
        &[-0.5, 0.5, 0.0],
    );
}

#[test]
fn nan_shows() {
    for kind in KINDS {
        for n in [12, 36] {
            let mut numbers = Numbers::new(17);
            let t = kind.targets(&mut numbers, n, true);
            for spread in [1.0, 1000.0] {
                for i in [0, n / 2, n - 1] {
                    let mut x: Vec<f64> =
                        (0..n).map(|_| numbers.uniform(-spread, spread)).collect();
                    x[i] = NAN;
                    assert_row(kind, &x, &t, NAN, &vec![NAN; n]);
                }
            }
        }
    }
    let targets = [0.0, NAN, 1.0];
    assert_row(PLAIN, &[1.0; 3], &targets, NAN, &[NAN; 3]);
    assert_row(Kind::Cosent(1.0), &[1.0; 3], &targets, NAN, &[NAN; 3]);
    assert_row(Kind::Group(3, false), &[1.0; 3], &targets, NAN, &[NAN; 3]);
}

#[test]
fn weights_masks_lists_and_means() {
    let mut numbers = Numbers::new(19);
    let (rows, n) = (70, 12);
    let x: Vec<f32> = (0..rows * n)
        .map(|_| numbers.uniform(-3.0, 3.0) as f32)
        .collect();
    let mask: Vec<bool> = (0..rows * n)
        .map(|i| numbers.uniform(0.0, 1.0) < 0.7 && i / n != 3)
        .collect();
    let mut weights: Vec<f64> = (0..rows).map(|_| numbers.uniform(0.0, 2.0)).collect();
    weights[5] = 0.0;
    for kind in KINDS {
        let mut t: Vec<f32> = kind
            .targets(&mut numbers, rows * n, true)
            .iter()
            .map(|&t| t as f32)
            .collect();
        if !matches!(kind, Kind::Cosent(_)) {
            for (t, &counts) in t.iter_mut().zip(&mask) {
                *t *= f32::from(u8::from(counts));
            }
        }
        let mut batch = rows_of(n, &x, Targets::Dense(&t));
        batch.scores.mask = Some(&mask);
        batch.weights = PerRow::Each(&weights);
        batch.reduction = Reduction::Mean;
        let (mut values, mut gradient) = (vec![0.0; rows], vec![0.0_f32; rows * n]);
        let mean = kind.call(best(), 2, &batch, &mut values, Some(&mut gradient));
        let taking_part = |row: &usize| *row != 3 && *row != 5;
        let norm: f64 = (0..rows).filter(taking_part).map(|row| weights[row]).sum();
        assert_near(mean.unwrap(), values.iter().sum::<f64>() / norm, 1e-9);
        for row in 0..rows {
            let at = row * n..(row + 1) * n;
            let own: Vec<f32> = x[at.clone()]
                .iter()
                .zip(&mask[at.clone()])
                .map(|(&x, &counts)| if counts { x } else { f32::NEG_INFINITY })
                .collect();
            let (value, slopes) = kind.row(&own, &t[at.clone()]);
            let weight = if taking_part(&row) { weights[row] } else { 0.0 };
            let expected = if weight == 0.0 { 0.0 } else { value * weight };
            assert_eq!(values[row], expected, "{kind:?}");
            for (found, slope) in gradient[at].iter().zip(slopes) {
                let expected = slope * (weight / norm) as f32;
                assert!(*found == expected || weight == 0.0 && *found == 0.0);
            }
        }
    }
    // Lists are targets of 0 and 1.
    let each = 3;
    let mut indices = vec![-100; rows * each];
    let mut t = vec![0.0_f32; rows * n];
    for (row, list) in indices.chunks_mut(each).enumerate() {
        for label in list.iter_mut().take(row % (each + 1)) {
            *label = numbers.uniform(0.0, 12.0) as i64;
            t[row * n + *label as usize] = 1.0;
        }
    }
    for kind in &KINDS[..4] {
        let lists = Targets::Lists {
            indices: &indices,
            each,
        };
        let mut found = [(); 2].map(|()| (vec![0.0; rows], vec![0.0_f32; rows * n]));
        for ((values, gradient), targets) in found.iter_mut().zip([lists, Targets::Dense(&t)]) {
            let batch = rows_of(n, &x, targets);
            kind.call(best(), 1, &batch, values, Some(gradient))
                .unwrap();
        }
        assert_eq!(found[0], found[1]);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let x = [0.5, 1.5, -1.0, 2.0];
    let (t, labels) = ([1.0, 0.0, 0.0, 1.0], [0]);
    let refused = |kind: Kind, targets, expected: &str| {
        let batch = rows_of(4, &x, targets);
        let error = kind.call(best(), 1, &batch, &mut [0.0], None).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    };
    let dense = Targets::Dense(&t);
    for kind in [PLAIN, Kind::Subset, Kind::Group(2, false)] {
        refused(
            kind,
            Targets::Labels(&labels),
            "targets: one label for each row",
        );
    }
    let numbers = "targets: this loss takes a number for each score";
    refused(Kind::Cosent(1.0), Targets::Labels(&labels), numbers);
    let finite = "must be finite";
    refused(
        Kind::Zlpr(INF, None),
        dense,
        &format!("threshold: {finite}, found inf"),
    );
    refused(
        Kind::Zlpr(0.0, Some((NAN, 1.0))),
        dense,
        &format!("margin: {finite}, found nan"),
    );
    let positive = "must be finite and positive";
    refused(
        Kind::Zlpr(0.0, Some((0.0, 0.0))),
        dense,
        &format!("scale: {positive}, found 0.0"),
    );
    refused(
        Kind::Cosent(-1.0),
        dense,
        &format!("scale: {positive}, found -1.0"),
    );
    refused(
        Kind::Group(0, true),
        dense,
        "m: must be at least 1, found 0.0",
    );
    refused(
        Kind::Group(3, true),
        dense,
        "scores: expected 6 values, found 4",
    );
    let outside = Targets::Dense(&[0.0, 1.5, 0.0, 0.0]);
    refused(PLAIN, outside, "targets: must be from 0 to 1, found 1.5");
    refused(
        Kind::Group(2, true),
        outside,
        "targets: must be from 0 to 1, found 1.5",
    );
    let half = Targets::Dense(&[0.0, 0.5, 0.0, 0.0]);
    refused(Kind::Subset, half, "targets: must be 0 or 1, found 0.5");
}

proptest! {
    #[test]
    fn long_rows_agree_with_the_definition(seed in any::<u64>(), groups in 1_usize..60, spread in 0.1..200.0_f64) {
        let mut numbers = Numbers::new(seed);
        let n = 3 * groups;
        let x: Vec<f64> = (0..n).map(|_| numbers.uniform(-spread, spread)).collect();
        for kind in KINDS {
            if matches!(kind, Kind::Subset | Kind::Group(12, _)) {
                continue;
            }
            let t = kind.targets(&mut numbers, n, seed % 2 == 0);
            let (value, gradient) = kind.row(&x, &t);
            let expected = kind.reference(&x, &t);
            // Scales of at most 900 multiply the rounding of the scores.
            prop_assert!((value - expected).abs() <= 1e-11 * expected, "{kind:?}: {value} is not {expected}");
            prop_assert!(gradient.iter().all(|g| g.is_finite()));
            if !matches!(kind, Kind::Zlpr(_, None)) {
                // Of pairs, only differences count. What is added up is at most the scale, and as small as the loss.
                let sum: f64 = gradient.iter().sum();
                let slack = 2e-10 * kind.scale() * expected.min(1.0);
                prop_assert!(sum.abs() <= slack, "{kind:?}: the gradient adds up to {sum}, not within {slack}");
            }
        }
    }

    #[test]
    fn subsets_agree_with_the_definition(x in prop::collection::vec(-30.0..30.0, 1..9), set in any::<u8>()) {
        let t: Vec<f64> = (0..x.len()).map(|i| f64::from(set >> i & 1)).collect();
        let (value, gradient) = Kind::Subset.row(&x, &t);
        let expected = Kind::Subset.reference(&x, &t);
        prop_assert!((value - expected).abs() <= 1e-14 * expected + 2e-15, "{value} is not {expected}");
        prop_assert!(gradient.iter().zip(&t).all(|(g, t)| (0.0..=1.0).contains(&(g + t))));
        prop_assert!(gradient.iter().sum::<f64>().abs() < 1e-14);
    }
}
