//! The bounded maps, normmax and the projection onto the ℓ₁ ball, against slow references in f64, and the promises that
//! hold for every map: the same bits at every SIMD level, layout and number of workers; sums; order; special values.

mod common;

use std::fmt::Debug;

use fearless_simd::Level;
use half::f16;
use proptest::{prelude::*, sample::select};
use unitmass_core::{
    error::Error,
    maps::{
        PerRow, Scores, Shape, Storage, Upper, capped_simplex, capped_simplex_vjp, csoftmax,
        csoftmax_vjp, normmax, normmax_vjp, project_l1_ball, project_l1_ball_vjp,
    },
    parallel::Run,
};

use common::{Numbers, every_level};

const INF: f64 = f64::INFINITY;

trait Number: Storage + Debug + PartialEq {
    const EPSILON: f64;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn bits(self) -> u64;
    fn compute(value: f64) -> Self::Compute;
}

macro_rules! number {
    ($t:ty, $epsilon:expr, $compute:ty, $from:expr) => {
        impl Number for $t {
            const EPSILON: f64 = $epsilon;
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn compute(value: f64) -> $compute {
                value as $compute
            }
        }
    };
}
number!(f32, f32::EPSILON as f64, f32, |v| v as f32);
number!(f64, f64::EPSILON, f64, |v| v);
number!(f16, 0.000_976_562_5, f32, f16::from_f64);

/// Bounds, owned.
#[derive(Clone, Debug)]
enum Caps {
    All(f64),
    Row(Vec<f64>),
    Each(Vec<f64>),
}

impl Caps {
    fn of(&self, row: usize, k: usize, n: usize) -> f64 {
        match self {
            Caps::All(u) => *u,
            Caps::Row(u) => u[k],
            Caps::Each(u) => u[row * n + k],
        }
    }

    fn with<E: Number, R>(&self, call: impl FnOnce(Upper<'_, E::Compute>) -> R) -> R {
        let converted =
            |u: &[f64]| -> Vec<E::Compute> { u.iter().map(|&u| E::compute(u)).collect() };
        match self {
            Caps::All(u) => call(Upper::All(*u)),
            Caps::Row(u) => call(Upper::Row(&converted(u))),
            Caps::Each(u) => call(Upper::Each(&converted(u))),
        }
    }
}

#[derive(Clone, Debug)]
enum Map {
    Capped(Caps, f64, f64),
    Csoftmax(Caps, f64),
    Normmax(f64, f64),
    Ball(f64),
}

impl Map {
    fn run<E: Number>(
        &self,
        run: &mut Run<'_>,
        scores: &Scores<'_, E>,
        out: &mut [E],
    ) -> Result<(), Error> {
        match self {
            Map::Capped(caps, total, t) => caps.with::<E, _>(|upper| {
                capped_simplex(run, scores, upper, PerRow::All(*total), *t, out)
            }),
            Map::Csoftmax(caps, t) => {
                caps.with::<E, _>(|upper| csoftmax(run, scores, upper, *t, out))
            }
            Map::Normmax(alpha, t) => normmax(run, scores, PerRow::All(*alpha), *t, out),
            Map::Ball(radius) => project_l1_ball(run, scores, PerRow::All(*radius), out),
        }
    }

    fn vjp<E: Number>(&self, run: &mut Run<'_>, shape: Shape, p: &[E], g: &[E]) -> Vec<E> {
        let mut out = vec![E::from_f64(7.0); p.len()];
        match self {
            Map::Capped(caps, _, t) => caps
                .with::<E, _>(|upper| capped_simplex_vjp(run, shape, (p, g), upper, *t, &mut out)),
            Map::Csoftmax(caps, t) => {
                caps.with::<E, _>(|upper| csoftmax_vjp(run, shape, (p, g), upper, *t, &mut out))
            }
            Map::Normmax(alpha, t) => {
                normmax_vjp(run, shape, (p, g), PerRow::All(*alpha), *t, &mut out)
            }
            Map::Ball(radius) => {
                project_l1_ball_vjp(run, shape, (p, g), PerRow::All(*radius), &mut out)
            }
        }
        .unwrap();
        out
    }

    /// The map of one row of a batch.
    fn of(&self, row: usize, n: usize) -> Self {
        let own = |caps: &Caps| match caps {
            Caps::Each(u) => Caps::Row(u[row * n..(row + 1) * n].to_vec()),
            other => other.clone(),
        };
        match self {
            Map::Capped(caps, total, t) => Map::Capped(own(caps), *total, *t),
            Map::Csoftmax(caps, t) => Map::Csoftmax(own(caps), *t),
            other => other.clone(),
        }
    }

    /// What the slow reference makes of a row of finite scores.
    fn reference(&self, x: &[f64]) -> Vec<f64> {
        let n = x.len();
        match self {
            Map::Capped(caps, total, t) => {
                let u: Vec<f64> = (0..n).map(|k| caps.of(0, k, n).min(*total)).collect();
                capped_by_sorting(x, &u, *total, *t)
            }
            Map::Csoftmax(caps, t) => {
                let u: Vec<f64> = (0..n).map(|k| caps.of(0, k, n)).collect();
                csoftmax_by_sorting(x, &u, *t)
            }
            Map::Normmax(alpha, t) => normmax_by_bisection(x, *alpha, *t),
            Map::Ball(radius) => {
                let norm: f64 = x.iter().map(|x| x.abs()).sum();
                if norm <= *radius {
                    return x.to_vec();
                }
                let magnitudes: Vec<f64> = x.iter().map(|x| x.abs()).collect();
                let p = capped_by_sorting(&magnitudes, &vec![*radius; n], *radius, 1.0);
                p.iter().zip(x).map(|(p, x)| p * x.signum()).collect()
            }
        }
    }

    fn total(&self) -> f64 {
        match self {
            Map::Capped(_, total, _) | Map::Ball(total) => *total,
            _ => 1.0,
        }
    }
}

/// Bisection between the break points of Σ p that the total lies between. A position is relative to a score, so that
/// nothing is lost at an offset.
fn capped_by_sorting(x: &[f64], u: &[f64], total: f64, t: f64) -> Vec<f64> {
    let p = |k: usize, (from, by): (usize, f64)| (((x[k] - x[from]) - by) / t).clamp(0.0, u[k]);
    let sum = |at| -> f64 { (0..x.len()).map(|k| p(k, at)).sum() };
    let mut breaks: Vec<(usize, f64)> = (0..x.len())
        .flat_map(|k| [(k, 0.0), (k, -u[k] * t)])
        .collect();
    breaks.sort_by(|a, b| (x[b.0] + b.1).total_cmp(&(x[a.0] + a.1)));
    let below = breaks.partition_point(|&at| sum(at) < total);
    let (from, by) = breaks[below.min(breaks.len() - 1)];
    let next = breaks[below.clamp(1, breaks.len() - 1) - 1];
    let (mut low, mut high) = (0.0, (x[next.0] - x[from]) + (next.1 - by));
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if sum((from, by + middle)) >= total {
            low = middle;
        } else {
            high = middle;
        }
    }
    (0..x.len()).map(|k| p(k, (from, by + low))).collect()
}

/// The entries reach their bounds in the order of x - T ln u.
fn csoftmax_by_sorting(x: &[f64], u: &[f64], t: f64) -> Vec<f64> {
    let key = |k: usize| x[k] / t - u[k].ln();
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    let mut p = u.to_vec();
    for first in 0..x.len() {
        let (capped, free) = order.split_at(first);
        let rest = 1.0 - capped.iter().map(|&k| u[k]).sum::<f64>();
        let top = free.iter().map(|&k| x[k]).fold(-INF, f64::max);
        let e = |k: usize| ((x[k] - top) / t).exp();
        let z: f64 = free.iter().map(|&k| e(k)).sum();
        let own = |k: usize| e(k) * rest.max(0.0) / z;
        if own(free[0]) <= u[free[0]] {
            for &k in free {
                p[k] = own(k);
            }
            break;
        }
    }
    p
}

fn normmax_by_bisection(x: &[f64], alpha: f64, t: f64) -> Vec<f64> {
    let top = x.iter().copied().fold(-INF, f64::max);
    let z: Vec<f64> = x.iter().map(|x| (x - top) / t).collect();
    let sum = |tau: f64| -> f64 {
        let term = |z: &f64| (z - tau).max(0.0).powf(alpha / (alpha - 1.0));
        z.iter().map(term).sum()
    };
    let (mut low, mut high) = (-1.0, 0.0);
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if sum(middle) >= 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let share = |z: &f64| {
        let d = z - low;
        if d > 0.0 {
            d.powf(1.0 / (alpha - 1.0))
        } else {
            0.0
        }
    };
    let v: Vec<f64> = z.iter().map(share).collect();
    let whole: f64 = v.iter().sum();
    v.iter().map(|v| v / whole).collect()
}

fn with_run<R>(level: Level, workers: usize, call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

fn mapped<E: Number>(
    map: &Map,
    shape: Shape,
    x: &[E],
    mask: Option<&[bool]>,
    (level, workers): (Level, usize),
) -> Vec<E> {
    let mut out = vec![E::from_f64(7.0); x.len()];
    let scores = Scores {
        shape,
        x: Some(x),
        mask,
    };
    with_run(level, workers, |run| map.run(run, &scores, &mut out)).unwrap();
    out
}

fn mapped_row<E: Number>(map: &Map, x: &[E]) -> Vec<E> {
    mapped(map, Shape::rows(1, x.len()), x, None, (Level::new(), 1))
}

fn row_of_f64(map: &Map, x: &[f64]) -> Vec<f64> {
    mapped_row(map, x)
}

fn bits<E: Number>(values: &[E]) -> Vec<u64> {
    values.iter().map(|v| v.bits()).collect()
}

fn wide<E: Number>(values: &[E]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

fn row_of<V: Copy>(shape: Shape, values: &[V], row: usize) -> Vec<V> {
    let Shape { n, inner, .. } = shape;
    let start = row / inner * n * inner + row % inner;
    (0..n).map(|k| values[start + k * inner]).collect()
}

/// Σ p without rounding that would show.
fn sum(p: &[f64]) -> f64 {
    let (mut sum, mut low) = (0.0_f64, 0.0);
    for &p in p {
        let next = sum + p;
        let part = next - sum;
        low += (sum - (next - part)) + (p - part);
        sum = next;
    }
    sum + low
}

/// Rows in the manners that have broken kernels: spread, tied, adjacent, with outliers.
fn fill<E: Number>(numbers: &mut Numbers, kind: u64, row: &mut [E]) {
    let scale = [1e-3, 0.1, 1.0, 10.0][(numbers.bits() % 4) as usize];
    for value in &mut *row {
        *value = E::from_f64(match kind {
            0..=2 => numbers.uniform(-scale, scale),
            3 => (numbers.bits() % 4) as f64 / 4.0,
            4 => 1000.0 + numbers.uniform(-scale, scale),
            5 => numbers.uniform(-1.0, 1.0) + 300.0 * f64::from(numbers.bits().is_multiple_of(16)),
            6 => numbers.uniform(-1.0, 1.0) - 1e9 * f64::from(numbers.bits().is_multiple_of(4)),
            _ => -numbers.uniform(0.0, 1.0).ln() * scale,
        });
    }
}

/// Bounds that can hold the total.
fn caps(numbers: &mut Numbers, kind: u64, rows: usize, n: usize, total: f64) -> Caps {
    let slack = [1.0, 1.02, 1.5, 4.0, 30.0][(numbers.bits() % 5) as usize];
    let even = f64::from((total * slack / n as f64) as f32 * (1.0 + f32::EPSILON));
    let mut own = |count: usize| -> Vec<f64> {
        let mut u: Vec<f64> = (0..count).map(|_| numbers.uniform(0.0, 1.0)).collect();
        for row in u.chunks_mut(n) {
            let most = row.len() - 1;
            row[most] += 0.5; // so that the sum is not 0
            let whole: f64 = row.iter().sum();
            for (k, u) in row.iter_mut().enumerate() {
                *u = f64::from((*u * total * slack * (1.0 + 1e-5) / whole) as f32);
                *u = match k % 7 {
                    3 if k < most && slack > 1.2 => INF,
                    _ => *u,
                };
            }
        }
        u
    };
    match kind % 4 {
        0 => Caps::All(even),
        1 => Caps::Row(own(n)),
        2 => Caps::Each(own(rows * n)),
        _ => Caps::All(if slack > 10.0 { INF } else { even * 3.0 }),
    }
}

fn any_map(numbers: &mut Numbers, rows: usize, n: usize) -> Map {
    let t = [1.0, 1.0, 0.3, 7.0][(numbers.bits() % 4) as usize];
    let total = [1.0, 0.1, n as f64 / 4.0, 3.0][(numbers.bits() % 4) as usize];
    let alpha = [2.0, 1.01, 1.2, 1.5, 3.0, 10.0, 1000.0, 1e6][(numbers.bits() % 8) as usize];
    let kind = numbers.bits();
    match numbers.bits() % 4 {
        0 => Map::Capped(caps(numbers, kind, rows, n, total), total, t),
        1 => Map::Csoftmax(caps(numbers, kind, rows, n, 1.0), t),
        2 => Map::Normmax(alpha, t),
        _ => Map::Ball(total),
    }
}

fn any_n() -> impl Strategy<Value = usize> {
    select(vec![
        1, 2, 3, 7, 10, 16, 31, 32, 33, 64, 100, 255, 257, 300, 513, 1000, 1537, 2500,
    ])
}

fn check_row<E: Number>(map: &Map, x: &[E], p: &[E]) -> Result<(), TestCaseError> {
    let (x, p) = (wide(x), wide(p));
    let (n, total) = (x.len(), map.total());
    let ulp = E::EPSILON * total;
    let found = sum(&p);
    match map {
        Map::Ball(radius) => {
            let norm = sum(&p.iter().map(|p| p.abs()).collect::<Vec<_>>());
            prop_assert!(norm <= radius + 4.0 * ulp, "{norm}");
        }
        _ => prop_assert!(
            (found - total).abs() <= 4.0 * ulp,
            "sum {found}, total {total}"
        ),
    }
    let same = match map {
        Map::Capped(caps, ..) | Map::Csoftmax(caps, _) => {
            for (k, &p) in p.iter().enumerate() {
                let u = E::compute(caps.of(0, k, n));
                prop_assert!(p >= 0.0 && p <= E::narrow(u).to_f64());
            }
            matches!(caps, Caps::All(_))
        }
        _ => true,
    };
    if same {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
        for pair in order.windows(2) {
            prop_assert!(p[pair[0]] <= p[pair[1]], "order at {:?}", pair);
        }
    }
    let truth = map.reference(&x);
    for (k, (&p, &truth)) in p.iter().zip(&truth).enumerate() {
        let off = match map {
            // Here p is steep in x, or its exponent grows with it: what the rounding of a distance does.
            Map::Normmax(alpha, t) => {
                let steep = if *alpha > 2.0 { 0.02 } else { 0.0 };
                let lost = (x[k].abs() / t + 8.0) / (alpha - 1.0).min(1.0);
                E::EPSILON * (4.0 + truth * lost * 8.0) + steep
            }
            Map::Csoftmax(_, t) => E::EPSILON * (4.0 + truth * (x[k].abs() / t * 4.0 + 16.0)),
            _ => E::EPSILON * (6.0 * total + 4.0 * truth.abs()),
        };
        let off = off + 1e-13 * (1.0 + total); // of the reference
        prop_assert!((p - truth).abs() <= off, "p[{k}] = {p}, not {truth}");
    }
    Ok(())
}

fn is_right<E: Number>(seed: u64, kind: u64, n: usize) -> Result<(), TestCaseError> {
    let mut numbers = Numbers::new(seed);
    let mut x = vec![E::from_f64(0.0); n];
    fill(&mut numbers, kind, &mut x);
    let map = any_map(&mut numbers, 1, n);
    let p = mapped_row(&map, &x);
    check_row(&map, &x, &p).map_err(|error| TestCaseError::fail(format!("{map:?} {error}")))
}

fn nothing_but_the_row_matters<E: Number>(seed: u64, n: usize) -> Result<(), TestCaseError> {
    let mut numbers = Numbers::new(seed);
    let shape = Shape {
        outer: 1 + (numbers.bits() % 5) as usize,
        n,
        inner: [1, 1, 3, 17][(numbers.bits() % 4) as usize],
    };
    let map = any_map(&mut numbers, shape.count(), n);
    let mut x = vec![E::from_f64(0.0); shape.len()];
    for row in x.chunks_mut(n) {
        let kind = numbers.bits() % 9;
        fill(&mut numbers, kind, row);
        if numbers.bits().is_multiple_of(4) {
            let specials = [f64::NAN, INF, -INF, INF, -INF, -0.0];
            for _ in 0..2 {
                let special = specials[(numbers.bits() % 6) as usize];
                row[(numbers.bits() % n as u64) as usize] = E::from_f64(special);
            }
        }
    }
    let mask: Option<Vec<bool>> = numbers.bits().is_multiple_of(3).then(|| {
        (0..x.len())
            .map(|_| !numbers.bits().is_multiple_of(8))
            .collect()
    });
    let mask = mask.as_deref();
    let g: Vec<E> = x
        .iter()
        .map(|_| E::from_f64(numbers.uniform(-1.0, 1.0)))
        .collect();
    let whole = mapped(&map, shape, &x, mask, (Level::new(), 1));
    let gradient = with_run(Level::new(), 1, |run| map.vjp(run, shape, &whole, &g));
    for (name, level) in every_level() {
        for workers in [1, 3] {
            let again = mapped(&map, shape, &x, mask, (level, workers));
            prop_assert_eq!(bits(&again), bits(&whole), "{} {:?}", name, map);
            let again = with_run(level, workers, |run| map.vjp(run, shape, &whole, &g));
            prop_assert_eq!(bits(&again), bits(&gradient), "{} {:?}", name, map);
        }
    }
    let mut in_place = x.clone();
    let scores = Scores {
        shape,
        x: None,
        mask,
    };
    with_run(Level::new(), 1, |run| map.run(run, &scores, &mut in_place)).unwrap();
    prop_assert_eq!(bits(&in_place), bits(&whole));
    for row in 0..shape.count() {
        let own = row_of(shape, &x, row);
        let own_mask = mask.map(|mask| row_of(shape, mask, row));
        let p = mapped(
            &map.of(row, n),
            Shape::rows(1, n),
            &own,
            own_mask.as_deref(),
            (Level::new(), 1),
        );
        prop_assert_eq!(
            bits(&p),
            bits(&row_of(shape, &whole, row)),
            "row {} {:?}",
            row,
            map
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn rows_agree_with_the_reference_in_f32(seed: u64, kind in 0u64..8, n in any_n()) {
        is_right::<f32>(seed, kind, n)?;
    }

    #[test]
    fn rows_agree_with_the_reference_in_f64(seed: u64, kind in 0u64..8, n in any_n()) {
        is_right::<f64>(seed, kind, n)?;
    }

    #[test]
    fn nothing_but_the_row_matters_in_f32(seed: u64, n in any_n()) {
        nothing_but_the_row_matters::<f32>(seed, n)?;
    }

    #[test]
    fn nothing_but_the_row_matters_in_f64(seed: u64, n in any_n()) {
        nothing_but_the_row_matters::<f64>(seed, n)?;
    }

    #[test]
    fn nothing_but_the_row_matters_in_f16(seed: u64, n in any_n()) {
        nothing_but_the_row_matters::<f16>(seed, n)?;
    }

    /// Where no entry is near a bound, the map is smooth: the gradient is a difference.
    #[test]
    fn gradients_agree_with_differences(seed: u64, n in 2usize..40) {
        let mut numbers = Numbers::new(seed);
        let x: Vec<f64> = (0..n).map(|_| numbers.uniform(-1.0, 1.0)).collect();
        let g: Vec<f64> = (0..n).map(|_| numbers.uniform(-1.0, 1.0)).collect();
        let map = match any_map(&mut numbers, 1, n) {
            Map::Normmax(alpha, t) => Map::Normmax(alpha.clamp(1.1, 5.0), t),
            other => other,
        };
        let p = row_of_f64(&map, &x);
        let vjp = with_run(Level::new(), 1, |run| map.vjp(run, Shape::rows(1, n), &p, &g));
        let step = if matches!(map, Map::Normmax(..)) { 1e-7 } else { 1e-6 };
        let dot = |p: &[f64]| -> f64 { p.iter().zip(&g).map(|(p, g)| p * g).sum() };
        for k in 0..n {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[k] += by;
                row_of_f64(&map, &x)
            };
            let (up, down) = (moved(step), moved(-step));
            let kink = (0..n).any(|i| {
                let own = |p: &[f64]| p[i] != 0.0;
                let full = |p: &[f64]| match &map {
                    Map::Capped(caps, ..) | Map::Csoftmax(caps, _) => p[i] >= caps.of(0, i, n),
                    _ => false,
                };
                own(&up) != own(&down) || full(&up) != full(&down) || full(&p) != full(&up)
            });
            let steep = matches!(map, Map::Normmax(..)) && p.iter().any(|&p| p > 0.0 && p < 0.1);
            let norm: f64 = p.iter().map(|p| p.abs()).sum();
            let edge = matches!(map, Map::Ball(r) if (norm - r).abs() < 1e-5 && norm < r);
            if kink || steep || edge {
                continue;
            }
            let slope = (dot(&up) - dot(&down)) / (2.0 * step);
            prop_assert!(
                (vjp[k] - slope).abs() < 2e-6 * (1.0 + slope.abs()) * (1.0 + 1.0 / map_t(&map)),
                "{map:?}: {} {slope}", vjp[k]
            );
        }
    }
}

fn map_t(map: &Map) -> f64 {
    match map {
        Map::Capped(_, _, t) | Map::Csoftmax(_, t) | Map::Normmax(_, t) => *t,
        Map::Ball(_) => 1.0,
    }
}

fn near(found: &[f64], expected: &[f64]) {
    for (found_one, expected_one) in found.iter().zip(expected) {
        assert!(
            (found_one - expected_one).abs() < 6e-5,
            "{found:?}, not {expected:?}"
        );
    }
}

#[test]
fn known_values_come_out() {
    let x = [-2.0, 0.0, 0.5];
    let all = |u: f64, total: f64| Map::Capped(Caps::All(u), total, 1.0);
    near(
        &row_of_f64(&Map::Normmax(2.0, 1.0), &x),
        &[0.0, 0.3110, 0.6890],
    );
    near(
        &row_of_f64(&Map::Normmax(1000.0, 1.0), &x),
        &[0.0, 0.4997, 0.5003],
    );
    near(&row_of_f64(&all(1.0, 2.0), &x), &[0.0, 1.0, 1.0]);
    near(&row_of_f64(&all(INF, 1.0), &x), &[0.0, 0.25, 0.75]);
    near(&row_of_f64(&all(0.5, 1.0), &x), &[0.0, 0.5, 0.5]);
    near(&row_of_f64(&all(1.0, 1.0), &[1.0, 1.0]), &[0.5, 0.5]);
    near(
        &row_of_f64(&Map::Csoftmax(Caps::All(INF), 1.0), &x),
        &[0.0486, 0.3592, 0.5922],
    );
    // ½ is taken by the largest; the rest shares ½ as e⁻² : 1.
    near(
        &row_of_f64(&Map::Csoftmax(Caps::All(0.5), 1.0), &x),
        &[0.05960, 0.44040, 0.5],
    );
    // The others would vanish beside the largest, whose bound leaves them a half.
    for (far, map) in [(800.0, 1.0), (3000.0, 1.0), (1e6, 2.0)] {
        let map = Map::Csoftmax(Caps::All(0.5), map);
        let p = row_of_f64(&map, &[far, 0.0, 0.0, -2.0]);
        assert_eq!(p[0], 0.5);
        assert_eq!(p[1], p[2]);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-15 && p[3] > 0.01);
    }
    near(&row_of_f64(&Map::Ball(1.0), &[0.3, -0.2]), &[0.3, -0.2]);
    near(
        &row_of_f64(&Map::Ball(1.0), &[2.0, -1.5, 0.1]),
        &[0.75, -0.25, 0.0],
    );
    near(
        &row_of_f64(&Map::Ball(1.0), &[-INF, 4.0, INF]),
        &[-0.5, 0.0, 0.5],
    );
    // An outlier at its bound takes no digits from the others.
    let p = mapped_row(&all(0.5, 1.0), &[1e6_f32, 0.3, 0.1]);
    near(&wide(&p), &[0.5, 0.35, 0.15]);
    // The bounds hold exactly the total.
    let third = 1.0 / 3.0;
    near(
        &row_of_f64(&all(third, 1.0), &[5.0, -700.0, 0.1]),
        &[third; 3],
    );
    near(
        &row_of_f64(&Map::Csoftmax(Caps::All(third), 1.0), &[5.0, -2000.0, 0.1]),
        &[third; 3],
    );
}

#[test]
fn infinite_scores_share_up_to_their_bounds() {
    let x = [INF, 1.0, INF, 0.5, -INF];
    for softmax in [false, true] {
        let map = |u: &[f64]| {
            let caps = Caps::Row(u.to_vec());
            if softmax {
                Map::Csoftmax(caps, 1.0)
            } else {
                Map::Capped(caps, 1.0, 1.0)
            }
        };
        near(&row_of_f64(&map(&[INF; 5]), &x), &[0.5, 0.0, 0.5, 0.0, 0.0]);
        near(
            &row_of_f64(&map(&[0.2, 1.0, 1.0, 1.0, 1.0]), &x),
            &[0.2, 0.0, 0.8, 0.0, 0.0],
        );
        near(
            &row_of_f64(&map(&[0.2, 0.1, 0.4, 1.0, 1.0]), &x),
            &[0.2, 0.1, 0.4, 0.3, 0.0],
        );
        // Those above -∞ cannot hold 1.
        let p = row_of_f64(&map(&[0.2, 0.1, 0.4, 0.1, 1.0]), &x);
        assert!(p.iter().all(|p| p.is_nan()), "{p:?}");
        let p = row_of_f64(
            &map(&[0.2, 0.1, 0.4, 0.1, 1.0]),
            &[0.0, 0.0, 0.0, 0.0, -INF],
        );
        assert!(p.iter().all(|p| p.is_nan()), "{p:?}");
    }
}

#[test]
fn special_values_follow_one_rule() {
    for n in [4, 50, 700] {
        let maps = [
            Map::Capped(Caps::All(0.9), 1.0, 1.0),
            Map::Capped(Caps::Row(vec![0.9; n]), 1.0, 2.0),
            Map::Csoftmax(Caps::All(0.9), 1.0),
            Map::Normmax(2.0, 1.0),
            Map::Normmax(1.1, 0.5),
            Map::Normmax(7.0, 1.0),
            Map::Ball(1.0),
        ];
        for map in maps {
            let ball = matches!(map, Map::Ball(_));
            let row = |special: f64| {
                let mut x = vec![1.0; n];
                x[1] = special;
                x
            };
            let run = |x: &[f64], mask: Option<&[bool]>| {
                mapped(&map, Shape::rows(1, n), x, mask, (Level::new(), 1))
            };
            let nan = run(&row(f64::NAN), Some(&vec![false; n]));
            assert!(nan.iter().all(|p| p.is_nan()), "{map:?} {nan:?}");
            let mut mask = vec![true; n];
            mask[1] = false;
            let p = run(&row(5.0), Some(&mask));
            assert_eq!(p[1], 0.0);
            assert!((sum(&p) - 1.0).abs() < 1e-15, "{map:?} {}", sum(&p));
            assert_eq!(run(&row(5.0), Some(&vec![false; n])), vec![0.0; n]);
            if !ball {
                assert_eq!(run(&row(-INF), None)[1], 0.0);
                assert_eq!(bits(&run(&row(-INF), None)), bits(&p), "{map:?}");
                let none = run(&vec![-INF; n], None);
                assert!(none.iter().all(|p| p.is_nan()), "{map:?} {none:?}");
            }
        }
    }
}

/// Offsets change nothing but what the scores' own rounding does.
#[test]
fn an_offset_changes_nothing() {
    let mut numbers = Numbers::new(3);
    for n in [20, 1000] {
        let x: Vec<f32> = (0..n)
            .map(|_| 1e6 + (numbers.bits() % 64) as f32 / 16.0)
            .collect();
        let near: Vec<f32> = x.iter().map(|x| x - 1e6).collect();
        for map in [
            Map::Capped(Caps::All(0.11), 1.0, 1.0),
            Map::Capped(Caps::All(1.0), 3.0, 0.5),
            Map::Csoftmax(Caps::All(0.11), 1.0),
            Map::Normmax(3.0, 1.0),
        ] {
            let (p, q) = (mapped_row(&map, &x), mapped_row(&map, &near));
            for (p, q) in p.iter().zip(&q) {
                assert!((p - q).abs() <= 2e-6 * q + 2e-7, "{map:?} {p} {q}");
            }
        }
    }
}

#[test]
fn long_rows_have_the_same_bits_and_are_right() {
    let mut numbers = Numbers::new(11);
    let n = 140_001;
    let mut x: Vec<f32> = (0..n).map(|_| numbers.uniform(-3.0, 3.0) as f32).collect();
    let u: Vec<f64> = (0..n).map(|_| numbers.uniform(0.0, 2e-3)).collect();
    let g: Vec<f32> = (0..n).map(|_| numbers.uniform(-1.0, 1.0) as f32).collect();
    let shape = Shape::rows(1, n);
    for special in [None, Some(f32::INFINITY), Some(f32::NAN)] {
        if let Some(special) = special {
            x[777] = special;
        }
        for map in [
            Map::Capped(Caps::All(0.001), 1.0, 1.0),
            Map::Capped(Caps::Row(u.clone()), 20.0, 0.5),
            Map::Capped(Caps::All(1.0), 90_000.0, 1.0),
            Map::Csoftmax(Caps::All(1e-5), 0.2),
            Map::Csoftmax(Caps::Row(u.clone()), 0.1),
            Map::Normmax(2.0, 1.0),
            Map::Normmax(1.1, 1.0),
            Map::Normmax(5.0, 1.0),
            Map::Ball(7.0),
            Map::Ball(1e7),
        ] {
            let p = mapped(&map, shape, &x, None, (Level::new(), 1));
            let vjp = with_run(Level::new(), 1, |run| map.vjp(run, shape, &p, &g));
            for (_, level) in every_level() {
                let again = mapped(&map, shape, &x, None, (level, 2));
                assert_eq!(bits(&p), bits(&again), "{map:?}");
                let again = with_run(level, 2, |run| map.vjp(run, shape, &p, &g));
                assert_eq!(bits(&vjp), bits(&again), "{map:?}");
            }
            if special.is_some_and(f32::is_nan) {
                assert!(p.iter().all(|p| p.is_nan()), "{map:?}");
                assert!(vjp.iter().all(|y| y.is_nan()), "{map:?}");
            } else if !matches!(map, Map::Ball(_)) {
                let total = map.total();
                let off = sum(&wide(&p)) - total;
                assert!(
                    off.abs() <= 4.0 * total * f64::from(f32::EPSILON),
                    "{map:?} {off}"
                );
            }
        }
    }
}

/// The rounding of the bounds is allowed for, however many there are; no more than that.
#[test]
fn bounds_that_cannot_hold_the_total_are_refused() {
    fn held<E: Number>(map: &Map, n: usize) -> Result<f64, Error> {
        let x = vec![E::from_f64(0.0); n];
        let mut out = x.clone();
        let scores = Scores::new(Shape::rows(1, n), &x);
        with_run(Level::new(), 2, |run| map.run(run, &scores, &mut out))?;
        Ok(sum(&wide(&out)))
    }
    let maps = |caps: &Caps| {
        [
            Map::Capped(caps.clone(), 1.0, 1.0),
            Map::Csoftmax(caps.clone(), 1.0),
        ]
    };
    for n in [3, 50, 700, 10_000, 1_000_000] {
        let share = 1.0 / n as f64;
        let nearest = share as f32;
        let down = if f64::from(nearest) > share {
            nearest.next_down()
        } else {
            nearest
        };
        for caps in [
            Caps::All(f64::from(down)),
            Caps::Row(vec![f64::from(down); n]),
        ] {
            for map in maps(&caps) {
                let held = held::<f32>(&map, n).unwrap();
                assert!((held - 1.0).abs() < 2e-7, "{n} {held}");
            }
        }
        for caps in [Caps::All(share), Caps::Row(vec![share; n])] {
            for map in maps(&caps) {
                let held = held::<f64>(&map, n).unwrap();
                assert!((held - 1.0).abs() < 1e-15, "{n} {held}");
            }
        }
        for part in [0.9, 0.9999, 0.999_995] {
            for caps in [Caps::All(part * share), Caps::Row(vec![part * share; n])] {
                for map in maps(&caps) {
                    let refused = held::<f32>(&map, n);
                    assert!(
                        matches!(
                            refused,
                            Err(Error::Domain {
                                argument: "upper",
                                ..
                            })
                        ),
                        "{n}"
                    );
                    assert!(held::<f64>(&map, n).is_err(), "{n}");
                }
            }
        }
    }
    // What is left of a row, too.
    let n = 140_001;
    for n in [60, 500, 5000, n] {
        for map in maps(&Caps::All(1.0 / (n - 2) as f64)) {
            let row = |special: f64, count: usize| -> Vec<f32> {
                let mut x = vec![0.0; n];
                x[..count].fill(special as f32);
                mapped_row(&map, &x)
            };
            assert!((sum(&wide(&row(-INF, 1))) - 1.0).abs() < 5e-7, "{map:?}");
            assert!(row(-INF, 3).iter().all(|p| p.is_nan()), "{map:?}");
            assert!((sum(&wide(&row(INF, n - 1))) - 1.0).abs() < 5e-7, "{map:?}");
            assert!((sum(&wide(&row(INF, n - 2))) - 1.0).abs() < 5e-7, "{map:?}");
        }
    }
}

/// Distances between scores may be beyond the numbers.
#[test]
fn the_largest_scores_are_mapped_like_others() {
    fn check<E: Number>(largest: f64, n: usize) {
        let share = 1.0 / (n as f64 - 0.5); // n - 1 of them are less than 1
        let mut x = vec![E::from_f64(largest); n];
        x[1] = E::from_f64(-largest);
        for caps in [Caps::All(share), Caps::Row(vec![share; n])] {
            let map = Map::Capped(caps, 1.0, 1.0);
            let p = wide(&mapped_row(&map, &x));
            let rest = 1.0 - share * (n - 1) as f64;
            for (k, &p) in p.iter().enumerate() {
                let (truth, off) = if k == 1 { (rest, 2.0) } else { (share, share) };
                assert!(
                    (p - truth).abs() < off * E::EPSILON,
                    "{n} {k}: {p}, not {truth}"
                );
            }
        }
        // The infinite one takes its bound, the largest finite ones theirs, and the smallest score the rest.
        x[0] = E::from_f64(INF);
        let p = wide(&mapped_row(&Map::Capped(Caps::All(share), 1.0, 1.0), &x));
        assert!(p[0] == p[2] && p[1] > 0.0 && (sum(&p) - 1.0).abs() < 4.0 * E::EPSILON);
        // Not all is at its bound, and the temperature counts.
        let lowest = -2f64.powi(largest.log2() as i32 - 1); // so that sums with t are exact
        let t = -lowest / 2.0 / n.next_power_of_two() as f64;
        let x: Vec<E> = (0..n)
            .map(|k| E::from_f64(if k == 1 { lowest + t / 2.0 } else { lowest }))
            .collect();
        let p = wide(&mapped_row(&Map::Capped(Caps::All(INF), 1.0, t), &x));
        let lower = 0.5 / n as f64;
        assert!(
            (p[0] - lower).abs() < 8.0 * E::EPSILON * lower,
            "{n} {}",
            p[0]
        );
        assert!(
            (p[1] - 0.5 - lower).abs() < 2.0 * E::EPSILON,
            "{n} {}",
            p[1]
        );
    }
    for n in [5, 40, 300, 1000, 140_001] {
        check::<f32>(f64::from(f32::MAX), n);
        check::<f64>(f64::MAX, n);
    }
}

/// Entries that reach their bounds far apart do not take a pass each.
#[test]
fn far_scores_take_few_passes() {
    /// [`csoftmax_by_sorting`] in O(n log n), for one bound.
    fn reference(x: &[f64], u: f64, t: f64) -> Vec<f64> {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| x[b].total_cmp(&x[a]));
        let z = |k: usize| x[order[k]] / t;
        // The logarithm of the sum from each on.
        let mut tail = vec![-INF; x.len() + 1];
        for k in (0..x.len()).rev() {
            tail[k] = z(k) + (tail[k + 1] - z(k)).exp().ln_1p();
        }
        let rest = |k: usize| 1.0 - k as f64 * u;
        let first = (0..x.len()).find(|&k| (z(k) - tail[k]).exp() * rest(k) <= u);
        let first = first.unwrap();
        let mut p = vec![u; x.len()];
        for k in first..x.len() {
            p[order[k]] = (z(k) - tail[first]).exp() * rest(first);
        }
        p
    }
    let mut numbers = Numbers::new(5);
    for (n, t) in [(60, 1e-3), (5000, 1e-4), (1 << 16, 1e-6), (140_001, 1e-7)] {
        let x: Vec<f64> = (0..n).map(|_| numbers.uniform(0.0, 1.0)).collect();
        for slack in [1.001, 3.3, 50.0] {
            let u = slack / n as f64;
            let truth = reference(&x, u, t);
            let single = Map::Csoftmax(Caps::All(u), t);
            let p = mapped_row(&single, &x);
            assert!((sum(&p) - 1.0).abs() <= 4.0 * f64::EPSILON);
            for (k, (p, truth)) in p.iter().zip(&truth).enumerate() {
                // What the rounding of x/T does.
                assert!(
                    (p - truth).abs() <= 4e-16 * truth / t + 1e-18,
                    "{n} {k}: {p}, not {truth}"
                );
            }
            let own = mapped_row(&Map::Csoftmax(Caps::Row(vec![u; n]), t), &x);
            assert_eq!(bits(&p), bits(&own));
            for (_, level) in every_level() {
                let again = mapped(&single, Shape::rows(1, n), &x, None, (level, 2));
                assert_eq!(bits(&p), bits(&again));
            }
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let p = wide(&mapped_row(&single, &narrow));
            assert!((sum(&p) - 1.0).abs() <= 4.0 * f64::from(f32::EPSILON));
        }
    }
    // Not thousands of passes: the watch is asked between the chunks of each.
    let n = 140_001;
    let x: Vec<f64> = (0..n).map(|_| numbers.uniform(0.0, 1.0)).collect();
    let mut asked = 0;
    let mut watch = || {
        asked += 1;
        true
    };
    let mut run = Run {
        level: Level::new(),
        workers: 1,
        watch: &mut watch,
    };
    let scores = Scores::new(Shape::rows(1, n), &x);
    csoftmax(
        &mut run,
        &scores,
        Upper::All(1.001 / n as f64),
        1e-6,
        &mut vec![0.0; n],
    )
    .unwrap();
    assert!(asked < 200 * (n >> 14), "{asked}");
    // Bounds of all sizes, scores that differ by less than T or by all there is, and too little room but for rounding.
    for (spread, t) in [(1.0, 1e-5), (1e30, 1.0), (1e300, 1e-300), (1e-9, 1e-3)] {
        let n = 300;
        let x: Vec<f64> = (0..n).map(|_| numbers.uniform(-spread, spread)).collect();
        let mut u: Vec<f64> = (0..n).map(|_| numbers.uniform(-300.0, 0.0).exp()).collect();
        for slack in [1.0, 1.0001, 2.0] {
            let whole = sum(&u);
            u.iter_mut().for_each(|u| *u *= slack / whole);
            let map = Map::Csoftmax(Caps::Row(u.clone()), t);
            let p = mapped_row(&map, &x);
            assert!(
                (sum(&p) - 1.0).abs() <= 4.0 * f64::EPSILON,
                "{spread} {slack}"
            );
            let truth = map.reference(&x);
            for (p, truth) in p.iter().zip(&truth) {
                let lost = (spread / t * 4e-16).min(1.0);
                assert!(
                    (p - truth).abs() <= (4e-15 + lost) * (1.0 + truth),
                    "{p}, not {truth}"
                );
            }
        }
    }
}

#[test]
fn errors_name_the_argument() {
    let x = [0.0_f64, 1.0, 2.0, 0.0, 1.0, 2.0];
    let scores = Scores::new(Shape::rows(2, 3), &x);
    let argument = |map: &Map| {
        let mut out = [0.0; 6];
        match with_run(Level::new(), 1, |run| map.run(run, &scores, &mut out)).unwrap_err() {
            Error::Domain { argument, .. } | Error::Length { argument, .. } => argument,
            other => panic!("{other:?}"),
        }
    };
    let capped = |caps: Caps, total: f64, t: f64| Map::Capped(caps, total, t);
    let row = |u: &[f64]| Caps::Row(u.to_vec());
    assert_eq!(argument(&capped(Caps::All(0.2), 1.0, 1.0)), "upper");
    assert_eq!(argument(&capped(Caps::All(-0.2), 1.0, 1.0)), "upper");
    assert_eq!(argument(&capped(Caps::All(f64::NAN), 1.0, 1.0)), "upper");
    assert_eq!(argument(&capped(row(&[1.0, 2.0]), 1.0, 1.0)), "upper");
    assert_eq!(
        argument(&capped(row(&[1.0, 2.0, f64::NAN]), 1.0, 1.0)),
        "upper"
    );
    assert_eq!(argument(&capped(row(&[1.0, 2.0, -1.0]), 1.0, 1.0)), "upper");
    assert_eq!(argument(&capped(row(&[0.2, 0.2, 0.2]), 1.0, 1.0)), "upper");
    let each = Caps::Each(vec![1.0, 1.0, 1.0, 0.2, 0.2, 0.2]);
    assert_eq!(argument(&capped(each.clone(), 1.0, 1.0)), "upper");
    assert_eq!(argument(&Map::Csoftmax(each, 1.0)), "upper");
    assert_eq!(argument(&capped(Caps::All(1.0), 0.0, 1.0)), "total");
    assert_eq!(argument(&capped(Caps::All(1.0), f64::NAN, 1.0)), "total");
    assert_eq!(argument(&capped(Caps::All(1.0), 1.0, 0.0)), "temperature");
    assert_eq!(argument(&capped(Caps::All(1.0), 1.0, 1e308)), "temperature");
    assert_eq!(argument(&Map::Csoftmax(Caps::All(1.0), INF)), "temperature");
    assert_eq!(argument(&Map::Normmax(1.0, 1.0)), "alpha");
    assert_eq!(argument(&Map::Normmax(f64::NAN, 1.0)), "alpha");
    assert_eq!(argument(&Map::Normmax(2.0, -1.0)), "temperature");
    assert_eq!(argument(&Map::Ball(0.0)), "radius");
    assert_eq!(argument(&Map::Ball(INF)), "radius");
    // Infinite and finite bounds together, and a bound for each of no rows.
    let p = row_of_f64(&capped(row(&[INF, 0.1, INF]), 1.0, 1.0), &[0.0, 5.0, 0.0]);
    assert!((p[0] - 0.45).abs() < 1e-15 && p[1] == 0.1, "{p:?}");
    let none = mapped::<f64>(
        &capped(Caps::Each(vec![]), 1.0, 1.0),
        Shape::rows(0, 3),
        &[],
        None,
        (Level::new(), 1),
    );
    assert!(none.is_empty());
}
