//! The maps that select: top-k and top-p softmax, evidential softmax; and Taylor softmax. Against slow references in
//! f64, with the promises that hold for all maps: the same bits at every SIMD level, layout and number of workers; sums
//! of one; special values; errors that name the argument.

mod common;

use std::fmt::Debug;

use fearless_simd::Level;
use half::f16;
use proptest::{prelude::*, sample::select};
use unitmass_core::{
    error::Error,
    maps::{
        Keep, Scores, Shape, Storage, ev_softmax, softmax, taylor_softmax, taylor_softmax_vjp,
        topk_softmax,
    },
    parallel::Run,
};

use common::{Numbers, every_level};

/// A type that an array may hold, as the tests see it.
trait Number: Storage + Debug + PartialEq + PartialOrd {
    const EPSILON: f64;
    /// The smallest positive value.
    const LEAST: f64;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn from_random_bits(bits: u64) -> Self;
}

impl Number for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
    const LEAST: f64 = 1.401_298_464_324_817e-45;
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_random_bits(bits: u64) -> Self {
        f32::from_bits((bits >> 32) as u32)
    }
}

impl Number for f64 {
    const EPSILON: f64 = f64::EPSILON;
    const LEAST: f64 = 5e-324;
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn from_random_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
}

impl Number for f16 {
    const EPSILON: f64 = 0.000_976_562_5;
    const LEAST: f64 = 5.960_464_477_539_063e-8;
    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_random_bits(bits: u64) -> Self {
        f16::from_bits((bits >> 48) as u16)
    }
}

/// A map and its parameters but for the temperature.
#[derive(Clone, Copy, Debug)]
enum Map {
    Softmax,
    Count(usize),
    Mass(f64),
    Taylor(usize),
    Evidential,
}

impl Map {
    fn run<E: Number>(
        self,
        run: &mut Run<'_>,
        scores: &Scores<'_, E>,
        temperature: f64,
        out: &mut [E],
    ) -> Result<(), Error> {
        match self {
            Map::Softmax => softmax(run, scores, temperature, out),
            Map::Count(k) => topk_softmax(run, scores, Keep::Count(k), temperature, out),
            Map::Mass(mass) => topk_softmax(run, scores, Keep::Mass(mass), temperature, out),
            Map::Taylor(order) => taylor_softmax(run, scores, order, temperature, out),
            Map::Evidential => ev_softmax(run, scores, temperature, out),
        }
    }
}

/// Calls with a run that nothing stops.
fn with_run<R>((level, workers): (Level, usize), call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

fn mapped_by<E: Number>(
    map: Map,
    scores: &Scores<'_, E>,
    temperature: f64,
    out: &mut [E],
    how: (Level, usize),
) {
    with_run(how, |run| map.run(run, scores, temperature, out)).unwrap();
}

/// The map of contiguous rows, at every level: the bits must be the same.
fn mapped_rows<E: Number>(
    map: Map,
    n: usize,
    x: &[E],
    mask: Option<&[bool]>,
    temperature: f64,
) -> Vec<E> {
    let scores = Scores {
        shape: Shape::rows(x.len() / n, n),
        x: Some(x),
        mask,
    };
    let mut expected = vec![E::from_f64(7.0); x.len()];
    mapped_by(map, &scores, temperature, &mut expected, (Level::new(), 1));
    for (name, level) in every_level() {
        let mut found = vec![E::from_f64(7.0); x.len()];
        mapped_by(map, &scores, temperature, &mut found, (level, 1));
        assert!(same(&found, &expected), "{map:?} at {name}");
    }
    expected
}

fn mapped_row<E: Number>(map: Map, x: &[E], temperature: f64) -> Vec<E> {
    mapped_rows(map, x.len(), x, None, temperature)
}

/// The same values, any NaN being equal to any.
fn same<E: Number>(a: &[E], b: &[E]) -> bool {
    let equal = |(a, b): (&E, &E)| {
        let (a, b) = (a.to_f64(), b.to_f64());
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

/// A row in one of the manners that have broken kernels: spread, tied, adjacent, of any size, with -∞.
fn row<E: Number>(n: usize, seed: u64) -> Vec<E> {
    let mut numbers = Numbers::new(seed);
    let kind = numbers.bits() % 8;
    let scale = [1e-3, 1.0, 10.0, 1000.0][(numbers.bits() % 4) as usize];
    let shift = [0.0, 0.0, 1000.0, -3e4][(numbers.bits() % 4) as usize];
    let draw = |_| {
        let value = match kind {
            0..=2 => shift + numbers.uniform(-scale, scale),
            3 => (numbers.bits() % 4) as f64 / 4.0,
            4 => shift * (1.0 + (numbers.bits() % 4) as f64 * E::EPSILON),
            5 => {
                let any = E::from_random_bits(numbers.bits()).to_f64();
                if any.is_finite() { any } else { 0.0 }
            }
            6 if numbers.bits().is_multiple_of(3) => f64::NEG_INFINITY,
            _ => numbers.uniform(-1.0, 1.0) * numbers.uniform(0.0, 3.0),
        };
        E::from_f64(value)
    };
    (0..n).map(draw).collect()
}

/// Widths on both sides of where kernels change.
fn width() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..40usize, 4 => 40..400usize, 2 => 400..2500usize]
}

/// A sum that keeps what rounding loses (Neumaier 1974).
fn total(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() {
            (sum - next) + value
        } else {
            (value - next) + sum
        };
        sum = next;
    }
    sum + lost
}

/// The indices of the scores above -∞, the largest first; of equals, the lowest index first.
fn by_size<E: Number>(x: &[E]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len())
        .filter(|&k| x[k].to_f64() > f64::NEG_INFINITY)
        .collect();
    order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).expect("no NaN"));
    order
}

/// `e^{(x - max)/T}` in f64, of differences as the type has them.
fn exponentials<E: Number>(x: &[E], temperature: f64) -> Vec<f64> {
    let max = x.iter().map(|x| x.to_f64()).fold(f64::MIN, f64::max);
    x.iter()
        .map(|x| E::from_f64(x.to_f64() - max).to_f64() / temperature)
        .map(f64::exp)
        .collect()
}

/// p against the softmax over `kept`, 0 elsewhere.
fn is_softmax_over<E: Number>(
    x: &[E],
    p: &[E],
    kept: &[usize],
    temperature: f64,
) -> Result<(), TestCaseError> {
    let e = exponentials(x, temperature);
    let sum = total(kept.iter().map(|&k| e[k]));
    let mut expected = vec![0.0; x.len()];
    for &k in kept {
        expected[k] = e[k] / sum;
    }
    for (k, (p, expected)) in p.iter().zip(&expected).enumerate() {
        // (x - max)/T is rounded twice, before the exponential, to the size of its logarithm.
        let z = if *expected > 0.0 {
            1.0 - expected.ln()
        } else {
            0.0
        };
        let bound = E::EPSILON * (4.0 + 2.0 * z) * expected + 2.0 * E::LEAST;
        let off = (p.to_f64() - expected).abs();
        prop_assert!(
            off <= bound,
            "{:e} not {:e}, of {k} in {x:?}",
            p.to_f64(),
            expected
        );
    }
    Ok(())
}

fn sums_to_one<E: Number>(p: &[E]) -> Result<(), TestCaseError> {
    let sum = total(p.iter().map(|p| p.to_f64()));
    // Each p is rounded to half an ulp of its own, beside what the kernel promises.
    let bound = 4.0 * E::EPSILON + p.len() as f64 * E::LEAST;
    prop_assert!((sum - 1.0).abs() <= bound, "the sum is {sum}");
    prop_assert!(p.iter().all(|p| p.to_f64() >= 0.0));
    Ok(())
}

fn keeps_count<E: Number>(x: &[E], k: usize, temperature: f64) -> Result<(), TestCaseError> {
    let order = by_size(x);
    prop_assume!(!order.is_empty());
    let p = mapped_row(Map::Count(k), x, temperature);
    is_softmax_over(x, &p, &order[..k.min(order.len())], temperature)?;
    sums_to_one(&p)
}

fn keeps_mass<E: Number>(x: &[E], mass: f64, temperature: f64) -> Result<(), TestCaseError> {
    let order = by_size(x);
    prop_assume!(!order.is_empty());
    let p = mapped_row(Map::Mass(mass), x, temperature);
    let e = exponentials(x, temperature);
    let sum = total(e.iter().copied());
    let count = p.iter().filter(|p| p.to_f64() > 0.0).count().max(1);
    // What is kept comes first in the order, is enough, and is not too much but for roundings.
    is_softmax_over(x, &p, &order[..count], temperature)?;
    let z = 2.0
        - e.iter()
            .map(|e| e / sum)
            .fold(1.0, f64::min)
            .ln()
            .max(-50.0);
    let rounding = E::EPSILON * (8.0 + 2.0 * z);
    let all = total(order[..count].iter().map(|&k| e[k])) / sum;
    let without_last = total(order[..count - 1].iter().map(|&k| e[k])) / sum;
    prop_assert!(all >= mass - rounding, "{all} is less than {mass}");
    prop_assert!(
        without_last <= mass + rounding,
        "{without_last} is {mass} already"
    );
    sums_to_one(&p)
}

proptest! {
    #[test]
    fn the_largest_are_kept_in_f32(
        n in width(), seed in any::<u64>(), part in 0.0..1.0, t in select(&[1.0, 0.3, 7.0][..])
    ) {
        let k = 1 + (part * part * part * n as f64) as usize;
        keeps_count(&row::<f32>(n, seed), k, t)?;
    }

    #[test]
    fn the_largest_are_kept_in_f64(
        n in width(), seed in any::<u64>(), part in 0.0..1.1, t in select(&[1.0, 0.3, 7.0][..])
    ) {
        let k = 1 + (part * part * n as f64) as usize;
        keeps_count(&row::<f64>(n, seed), k, t)?;
    }

    #[test]
    fn a_mass_is_kept_in_f32(n in width(), seed in any::<u64>(), mass in 1e-6..1.0, t in select(&[1.0, 0.3, 7.0][..])) {
        keeps_mass(&row::<f32>(n, seed), mass, t)?;
    }

    #[test]
    fn a_mass_is_kept_in_f64(n in width(), seed in any::<u64>(), mass in 1e-6..1.0, t in select(&[1.0, 0.3, 7.0][..])) {
        keeps_mass(&row::<f64>(n, seed), mass, t)?;
    }

    #[test]
    fn evidential_softmax_keeps_what_is_at_least_the_mean(n in width(), seed in any::<u64>(), t in 0.3..7.0) {
        evidence_agrees(&row::<f32>(n, seed), t)?;
        evidence_agrees(&row::<f64>(n, seed), t)?;
    }

    #[test]
    fn taylor_softmax_agrees_with_the_series(
        n in width(), seed in any::<u64>(), order in select(&[2, 4, 6, 8, 10, 12, 14, 16][..]), t in 0.5..3.0
    ) {
        taylor_agrees::<f32>(n, seed, order, t)?;
        taylor_agrees::<f64>(n, seed, order, t)?;
    }

    #[test]
    fn the_gradient_of_taylor_softmax_agrees_with_a_difference(
        n in 1..40usize, seed in any::<u64>(), order in select(&[2, 4, 10, 16][..]), t in 0.5..3.0
    ) {
        let mut numbers = Numbers::new(seed);
        let mut draw = || (0..n).map(|_| numbers.uniform(-4.0, 4.0)).collect::<Vec<f64>>();
        let (x, g) = (draw(), draw());
        let found = taylor_product(&x, &g, order, t);
        for k in 0..n {
            let h = 1e-5;
            let at = |h: f64| {
                let mut x = x.clone();
                x[k] += h;
                let p = mapped_row(Map::Taylor(order), &x, t);
                p.iter().zip(&g).map(|(p, g)| p * g).sum::<f64>()
            };
            let expected = (at(h) - at(-h)) / (2.0 * h);
            // h² times the third derivative, and rounding over h.
            prop_assert!((found[k] - expected).abs() < 1e-7, "{} not {}", found[k], expected);
        }
    }

    #[test]
    fn nothing_but_the_row_matters(
        seed in any::<u64>(), n in 1..300usize, outer in 1..6usize, inner in 1..4usize, masked in any::<bool>()
    ) {
        for map in [Map::Count(3), Map::Mass(0.6), Map::Taylor(4), Map::Evidential] {
            layouts_agree::<f32>(map, seed, Shape { outer, n, inner }, masked)?;
            layouts_agree::<f16>(map, seed, Shape { outer, n, inner }, masked)?;
        }
    }
}

/// Another axis, in place, more workers: every row is as it is alone.
fn layouts_agree<E: Number>(
    map: Map,
    seed: u64,
    shape: Shape,
    masked: bool,
) -> Result<(), TestCaseError> {
    let Shape { n, inner, .. } = shape;
    let mut x = vec![E::from_f64(0.0); shape.len()];
    let mut mask = vec![true; shape.len()];
    let mut numbers = Numbers::new(seed);
    let start = |index: usize| index / inner * n * inner + index % inner;
    for index in 0..shape.count() {
        let row = row::<E>(n, numbers.bits());
        let whole = numbers.bits().is_multiple_of(5);
        for (k, value) in row.into_iter().enumerate() {
            x[start(index) + k * inner] = value;
            mask[start(index) + k * inner] =
                !(masked && (whole || numbers.bits().is_multiple_of(4)));
        }
    }
    let mask_of = masked.then_some(&mask[..]);
    let scores = Scores {
        shape,
        x: Some(&x),
        mask: mask_of,
    };
    let mut found = vec![E::from_f64(7.0); x.len()];
    mapped_by(map, &scores, 0.7, &mut found, (Level::new(), 2));
    let mut in_place = x.clone();
    let scores = Scores {
        shape,
        x: None,
        mask: mask_of,
    };
    mapped_by(map, &scores, 0.7, &mut in_place, (Level::new(), 1));
    prop_assert!(same(&found, &in_place), "{map:?} in place");
    for index in 0..shape.count() {
        let take =
            |values: &[E]| -> Vec<E> { (0..n).map(|k| values[start(index) + k * inner]).collect() };
        let row_mask: Vec<bool> = (0..n).map(|k| mask[start(index) + k * inner]).collect();
        let alone = mapped_rows(map, n, &take(&x), masked.then_some(&row_mask), 0.7);
        prop_assert!(same(&take(&found), &alone), "{map:?}, row {index}");
        if masked && !row_mask.contains(&true) {
            prop_assert!(alone.iter().all(|p| p.to_f64() == 0.0));
        }
        // What is excluded takes no part.
        if masked && row_mask.contains(&true) {
            let mut absent = take(&x);
            for (x, counts) in absent.iter_mut().zip(&row_mask) {
                if !counts {
                    *x = E::from_f64(f64::NEG_INFINITY);
                }
            }
            prop_assert!(same(&alone, &mapped_row(map, &absent, 0.7)));
        }
    }
    Ok(())
}

fn evidence_agrees<E: Number>(x: &[E], temperature: f64) -> Result<(), TestCaseError> {
    let order = by_size(x);
    prop_assume!(!order.is_empty());
    let p = mapped_row(Map::Evidential, x, temperature);
    let max = x[order[0]].to_f64();
    // In quarters, for the distance of two numbers may be beyond all numbers.
    let distance = |k: usize| x[k].to_f64() / 4.0 - max / 4.0;
    let counts = order.len() as f64;
    let mean = total(order.iter().map(|&k| distance(k) / counts));
    // A distance and the mean are rounded to the type; one that is so near the mean may be on either side.
    let edge = E::EPSILON * 4.0 * mean.abs() + E::LEAST;
    let certain = order.iter().filter(|&&k| distance(k) > mean + edge).count();
    let possible = order
        .iter()
        .filter(|&&k| distance(k) >= mean - edge)
        .count();
    let found = order.iter().filter(|&&k| p[k].to_f64() > 0.0).count();
    prop_assert!(
        found <= possible,
        "{found} are kept, not {certain} to {possible}"
    );
    let kept = if (certain..=possible).contains(&found) {
        found
    } else {
        certain // of which some underflow
    };
    is_softmax_over(x, &p, &order[..kept], temperature)?;
    sums_to_one(&p)
}

/// `Σ uᵐ/m!`; the terms of a negative u cancel, by less than its precision here.
fn series(u: f64, order: usize) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for m in 1..=order {
        term *= u / m as f64;
        sum += term;
    }
    sum
}

fn taylor_agrees<E: Number>(
    n: usize,
    seed: u64,
    order: usize,
    t: f64,
) -> Result<(), TestCaseError> {
    let mut numbers = Numbers::new(seed);
    let draw = |_| E::from_f64(numbers.uniform(-6.0, 6.0));
    let x: Vec<E> = (0..n).map(draw).collect();
    let p = mapped_row(Map::Taylor(order), &x, t);
    let terms: Vec<f64> = x.iter().map(|x| series(x.to_f64() / t, order)).collect();
    let sum = total(terms.iter().copied());
    for (k, p) in p.iter().enumerate() {
        // Each factor has three roundings, and a root that is rounded to its own size, which is a few times b; x/T is
        // rounded before a slope of at most |u| or the order. The series cancels to e^12 times its precision.
        let bound = E::EPSILON * (16.0 + 6.0 * order as f64) + 1e-11;
        let expected = terms[k] / sum;
        prop_assert!(
            (p.to_f64() / expected - 1.0).abs() <= bound,
            "{:e} not {:e}, of {:?}",
            p.to_f64(),
            expected,
            x[k]
        );
    }
    sums_to_one(&p)
}

/// `Jᵀ g` of Taylor softmax, the same at every level.
fn taylor_product<E: Number>(x: &[E], g: &[E], order: usize, t: f64) -> Vec<E> {
    let shape = Shape::rows(1, x.len());
    let product = |how| {
        let mut out = vec![E::from_f64(7.0); x.len()];
        let call = |run: &mut Run<'_>| taylor_softmax_vjp(run, shape, (x, g), order, t, &mut out);
        with_run(how, call).unwrap();
        out
    };
    let expected = product((Level::new(), 1));
    for (name, level) in every_level() {
        assert!(same(&product((level, 2)), &expected), "at {name}");
    }
    expected
}

fn is_near<E: Number>(found: &[E], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let off = (found.to_f64() - expected).abs();
        assert!(off <= bound, "{:?} not {expected}", found.to_f64());
    }
}

#[test]
fn known_values() {
    let x = [-2.0, 0.0, 0.5];
    is_near(
        &mapped_row(Map::Count(2), &x, 1.0),
        &[0.0, 0.37754, 0.62246],
        5e-6,
    );
    is_near(&mapped_row(Map::Count(1), &x, 1.0), &[0.0, 0.0, 1.0], 0.0);
    // softmax is [.0486, .3592, .5922].
    is_near(&mapped_row(Map::Mass(0.59), &x, 1.0), &[0.0, 0.0, 1.0], 0.0);
    is_near(
        &mapped_row(Map::Mass(0.6), &x, 1.0),
        &[0.0, 0.37754, 0.62246],
        5e-6,
    );
    is_near(
        &mapped_row(Map::Mass(0.96), &x, 1.0),
        &[0.0486, 0.3592, 0.5922],
        5e-5,
    );
    is_near(
        &mapped_row(Map::Taylor(2), &x, 1.0),
        &[0.27586, 0.27586, 0.44828],
        5e-6,
    );
    is_near(
        &mapped_row(Map::Taylor(2), &[-3.0, 0.0], 1.0),
        &[5.0 / 7.0, 2.0 / 7.0],
        2e-16,
    );
    // The mean is -½.
    is_near(
        &mapped_row(Map::Evidential, &x, 1.0),
        &[0.0, 0.37754, 0.62246],
        5e-6,
    );
    // A score that equals the mean is kept.
    let e = [1.0, 1f64.exp()].map(|e| e / (1.0 + 1f64.exp()));
    is_near(
        &mapped_row(Map::Evidential, &[0.0, 1.0, 2.0], 1.0),
        &[0.0, e[0], e[1]],
        2e-16,
    );
}

#[test]
fn of_equal_scores_the_first_are_kept() {
    for n in [3, 17, 64, 100, 500, 1000] {
        let x = vec![2.5f32; n];
        for k in [1, 2, n - 1] {
            let p = mapped_row(Map::Count(k), &x, 1.0);
            let kept: Vec<f32> = (0..n)
                .map(|index| if index < k { 1.0 / k as f32 } else { 0.0 })
                .collect();
            is_near(
                &p,
                &kept.iter().map(|&p| f64::from(p)).collect::<Vec<_>>(),
                1e-7 / k as f64,
            );
        }
        let p = mapped_row(Map::Evidential, &x, 1.0);
        assert!(p.iter().all(|&p| (p * n as f32 - 1.0).abs() < 3e-7));
    }
    let quarter = mapped_row(Map::Mass(0.25), &[1.0f32; 8], 1.0);
    assert_eq!(quarter, [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    // Zeros of both signs are equal.
    assert_eq!(
        mapped_row(Map::Count(2), &[-1.0, -0.0, 0.0, 0.0], 1.0),
        [0.0, 0.5, 0.5, 0.0]
    );
    // Scores that differ by less than their terms show: the larger first.
    let near = [0.0, 2e-17, 1e-17, 3e-17];
    assert_eq!(mapped_row(Map::Mass(0.5), &near, 1.0), [0.0, 0.5, 0.0, 0.5]);
}

#[test]
fn keeping_all_is_softmax() {
    let x = row::<f32>(700, 5);
    for map in [Map::Count(700), Map::Count(usize::MAX), Map::Mass(1.0)] {
        assert!(same(
            &mapped_row(map, &x, 0.7),
            &mapped_row(Map::Softmax, &x, 0.7)
        ));
    }
}

#[test]
fn special_values() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    let maps = [
        Map::Count(2),
        Map::Mass(0.5),
        Map::Taylor(4),
        Map::Evidential,
    ];
    for n in [4, 70, 600, 140_000] {
        let padded = |values: &[f64]| -> Vec<f64> {
            let mut row = vec![-1.0; n];
            row[..values.len()].copy_from_slice(values);
            row
        };
        for map in maps {
            for place in [0, n / 2, n - 1] {
                let mut x = padded(&[0.5, -INF, 0.25]);
                x[place] = NAN;
                assert!(mapped_row(map, &x, 2.0).iter().all(|p| p.is_nan()));
                let mask = vec![false; n];
                let p = mapped_rows(map, n, &x, Some(&mask), 2.0);
                assert!(p.iter().all(|p| p.is_nan()), "{map:?}");
                x[(place + 1) % n] = INF;
                assert!(mapped_row(map, &x, 2.0).iter().all(|p| p.is_nan()));
            }
            let p = mapped_row(map, &vec![-INF; n], 1.0);
            assert!(p.iter().all(|p| p.is_nan()));
            let p = mapped_rows(map, n, &padded(&[]), Some(&vec![false; n]), 1.0);
            assert!(p.iter().all(|&p| p == 0.0));
            let p = mapped_row(map, &padded(&[0.5, -INF]), 1.0);
            assert!(p[1] == 0.0 && p[0] > 0.0);
            let p = mapped_row(map, &padded(&[INF, 0.0, INF]), 1.0);
            let expected = match map {
                Map::Mass(_) => [1.0, 0.0, 0.0],
                _ => [0.5, 0.0, 0.5],
            };
            assert_eq!(p[..3], expected, "{map:?}");
            assert!(p[3..].iter().all(|&p| p == 0.0));
        }
        let p = mapped_row(Map::Count(2), &padded(&[0.0, INF, INF, INF]), 1.0);
        assert_eq!(p[..4], [0.0, 0.5, 0.5, 0.0]);
        let p = mapped_row(Map::Mass(0.6), &padded(&[INF, INF, INF, 0.0]), 1.0);
        assert_eq!(p[..4], [0.5, 0.5, 0.0, 0.0]);
    }
    // Fewer than k scores count.
    let p = mapped_row(Map::Count(3), &[-INF, 0.0, -INF, 0.0, -INF], 1.0);
    assert_eq!(p, [0.0, 0.5, 0.0, 0.5, 0.0]);
}

#[test]
fn the_gradient_of_taylor_softmax_at_special_values() {
    const INF: f64 = f64::INFINITY;
    let g = [1.0, f64::NAN, 2.0];
    let at = |x: [f64; 3]| taylor_product(&x, &g, 2, 1.0);
    assert_eq!(at([-INF; 3]), [0.0; 3]);
    assert_eq!(at([INF, 0.0, 1.0]), [0.0; 3]);
    assert!(at([f64::NAN, 0.0, INF]).iter().all(|g| g.is_nan()));
    // p is [.5, 0, .5] and f'/f is 1 at 0: an entry that takes no part has no say, whatever g is there.
    assert_eq!(at([0.0, -INF, 0.0]), [-0.25, 0.0, 0.25]);
}

#[test]
fn huge_scores_go_like_their_power() {
    for order in (2..=16).step_by(2) {
        let half = 0.5f64.powi(order as i32);
        let expected = [1.0 / (1.0 + half), half / (1.0 + half), 0.0];
        is_near(
            &mapped_row(Map::Taylor(order), &[1e30f32, -5e29, 3.0], 1.0),
            &expected,
            3e-6,
        );
        is_near(
            &mapped_row(Map::Taylor(order), &[3e38f32, -1.5e38, 3.0], 1e-30),
            &expected,
            3e-6,
        );
        is_near(
            &mapped_row(Map::Taylor(order), &[1e300, -5e299, 3.0], 1e-300),
            &expected,
            1e-14,
        );
        // ∂p₀/∂x₀ = p₀ (1 - p₀) order/x₀.
        let found = taylor_product(&[1e30f32, -5e29, 3.0], &[1.0, 0.0, 0.0], order, 1.0);
        let slope = expected[0] * expected[1] * order as f64;
        is_near(
            &[f64::from(found[0]) * 1e30, f64::from(found[1]) * 1e30],
            &[slope, 2.0 * slope],
            1e-5,
        );
    }
    // Where the units change, nothing jumps: p against itself with a score that needs them.
    let x: Vec<f32> = (0..200).map(|k| k as f32 - 100.0).collect();
    for order in [6, 16] {
        for at in [150.0f32, 250.0, 260.0, 1e4, 1e6] {
            let mut x = x.clone();
            x[0] = at;
            let p = mapped_row(Map::Taylor(order), &x, 1.0);
            let terms: Vec<f64> = x.iter().map(|&x| series(x.into(), order)).collect();
            let sum = total(terms.iter().copied());
            for (p, term) in p.iter().zip(&terms) {
                let expected = term / sum;
                assert!((f64::from(*p) - expected).abs() <= 2e-5 * expected + 1e-37);
            }
        }
    }
}

#[test]
fn evidence_is_not_disturbed_by_an_offset_or_the_largest_numbers() {
    let near: Vec<f32> = (0..1000).map(|k| 1e6 + (k % 5) as f32 / 16.0).collect();
    let p = mapped_row(Map::Evidential, &near, 1.0);
    let kept = p
        .iter()
        .zip(&near)
        .all(|(&p, &x)| (p > 0.0) == (x >= 1e6 + 0.125));
    assert!(kept);
    // The mean is 1/3 of 10³⁸.
    let p = mapped_row(Map::Evidential, &[3e38f32, 1e38, -3e38], 5e37);
    let e = (-4f64).exp();
    is_near(&p, &[1.0 / (1.0 + e), e / (1.0 + e), 0.0], 1e-6);
    let many = mapped_row(Map::Evidential, &[f32::MAX, f32::MIN, 0.0, f32::MIN], 5e37);
    assert!(many[0] > 0.0 && many[2] > 0.0 && many[1] == 0.0 && many[3] == 0.0);
}

/// Rows longer than what is one task.
#[test]
fn long_rows() {
    let mut numbers = Numbers::new(3);
    let draw = |_| (numbers.uniform(-2.0, 2.0) * 4096.0).round() as f32 / 4096.0; // with ties
    let x: Vec<f32> = (0..200_000).map(draw).collect();
    let shape = Shape::rows(1, x.len());
    let maps = [
        Map::Count(1),
        Map::Count(40),
        Map::Count(5000),
        Map::Count(150_000),
        Map::Mass(1e-5),
        Map::Mass(0.5),
        Map::Mass(0.999),
        Map::Taylor(2),
        Map::Taylor(8),
        Map::Evidential,
    ];
    for map in maps {
        let expected = mapped_row(map, &x, 0.5);
        let mut found = vec![7.0; x.len()];
        mapped_by(
            map,
            &Scores::new(shape, &x),
            0.5,
            &mut found,
            (Level::new(), 3),
        );
        assert!(same(&found, &expected), "{map:?} by 3 workers");
        match map {
            Map::Count(k) => keeps_count(&x, k, 0.5).unwrap(),
            Map::Mass(mass) => {
                keeps_mass(&x, mass, 0.5).unwrap();
            }
            Map::Evidential => evidence_agrees(&x, 0.5).unwrap(),
            _ => sums_to_one(&expected).unwrap(),
        }
    }
    let mut huge = x.clone();
    huge[7] = 1e30;
    assert_eq!(mapped_row(Map::Taylor(16), &huge, 1.0)[7], 1.0);
    let g: Vec<f32> = x.iter().rev().copied().collect();
    let long = taylor_product(&x, &g, 4, 1.0);
    let p: Vec<f64> = x.iter().map(|&x| series(x.into(), 4)).collect();
    let sum: f64 = p.iter().sum();
    let mean: f64 = p.iter().zip(&g).map(|(p, &g)| p / sum * f64::from(g)).sum();
    for k in (0..x.len()).step_by(97) {
        let slope = series(x[k].into(), 3) / sum;
        let expected = slope * (f64::from(g[k]) - mean);
        assert!((f64::from(long[k]) - expected).abs() < 1e-5 * p[k] / sum);
    }
    let equal = vec![1.0f32; 150_000];
    let p = mapped_row(Map::Count(3), &equal, 1.0);
    assert!(p[..3].iter().all(|&p| p == 1.0 / 3.0) && p[3..].iter().all(|&p| p == 0.0));
    let p = mapped_row(Map::Evidential, &equal, 1.0);
    assert!(p[0] > 0.0 && p.iter().all(|&other| other == p[0]));
}

#[test]
fn errors_name_the_argument() {
    let x = [0.5f32; 6];
    let scores = Scores::new(Shape::rows(2, 3), &x);
    let mut out = [0.0; 6];
    let mut refused = |map: Map, temperature: f64, len: usize| {
        let call = |run: &mut Run<'_>| map.run(run, &scores, temperature, &mut out[..len]);
        match with_run((Level::new(), 1), call) {
            Err(Error::Domain { argument, .. } | Error::Length { argument, .. }) => argument,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(Map::Count(0), 1.0, 6), "k");
    for bad in [0.0, -0.5, 1.5, f64::NAN] {
        assert_eq!(refused(Map::Mass(bad), 1.0, 6), "top_p");
    }
    for bad in [0, 1, 3, 18] {
        assert_eq!(refused(Map::Taylor(bad), 1.0, 6), "order");
    }
    for map in [
        Map::Count(1),
        Map::Mass(0.5),
        Map::Taylor(2),
        Map::Evidential,
    ] {
        assert_eq!(refused(map, 0.0, 6), "temperature");
        assert_eq!(refused(map, f64::NAN, 6), "temperature");
        assert_eq!(refused(map, 1.0, 5), "out");
    }
    assert_eq!(out, [0.0; 6], "a refused call has written");
    let shape = Shape::rows(2, 3);
    let mut refused = |x: &[f32], order: usize| {
        let call = |run: &mut Run<'_>| taylor_softmax_vjp(run, shape, (x, x), order, 1.0, &mut out);
        match with_run((Level::new(), 1), call) {
            Err(Error::Domain { argument, .. } | Error::Length { argument, .. }) => argument,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&x, 3), "order");
    assert_eq!(refused(&x[1..], 2), "x");
}
