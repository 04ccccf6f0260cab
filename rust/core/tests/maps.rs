//! The maps against slow references in f64, and the promises that hold for all of them: the same bits at every SIMD
//! level, layout and number of workers; sums of one; order kept; special values; errors that name the argument.
//!
//! `PROPTEST_CASES=20000 PROPTEST_RNG_SEED=$RANDOM` tries more rows, and others, than the default does.

mod common;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use fearless_simd::Level;
use half::f16;
use proptest::{prelude::*, sample::select};
use unitmass_core::{
    error::Error,
    maps::{
        Method, PerRow, Scores, Shape, Sparse, Storage, entmax, entmax_alpha_grad, entmax_sparse,
        entmax_vjp, entmax_vjp_sparse, log_softmax, log_softmax_vjp, project_simplex,
        project_simplex_sparse, softmax, softmax_vjp, threshold,
    },
    parallel::Run,
};

use common::{Numbers, every_level};

/// Every kernel of entmax: softmax, near it, powers of two kinds, sparsemax, roots.
const ALPHAS: [f64; 11] = [1.0, 1.0001, 1.25, 1.3, 1.5, 1.9, 2.0, 2.5, 3.0, 10.0, 20.0];

/// A type that an array may hold, as the tests see it.
trait Number: Storage + Debug + PartialEq {
    const EPSILON: f64;
    /// The smallest positive value.
    const LEAST: f64;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn from_random_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
    fn above(self, steps: u8) -> Self;
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
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
    fn above(self, steps: u8) -> Self {
        f32::from_bits(self.to_bits() + u32::from(steps))
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
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn above(self, steps: u8) -> Self {
        f64::from_bits(self.to_bits() + u64::from(steps))
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
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
    fn above(self, steps: u8) -> Self {
        f16::from_bits(self.to_bits() + u16::from(steps))
    }
}

/// A parameter for all rows or for each, owned.
#[derive(Clone, Debug)]
enum Rows {
    All(f64),
    Each(Vec<f64>),
}

impl Rows {
    fn as_per_row(&self) -> PerRow<'_> {
        match self {
            Rows::All(value) => PerRow::All(*value),
            Rows::Each(values) => PerRow::Each(values),
        }
    }

    fn of(&self, row: usize) -> Self {
        Rows::All(match self {
            Rows::All(value) => *value,
            Rows::Each(values) => values[row],
        })
    }
}

/// A map and its parameters.
#[derive(Clone, Debug)]
enum Map {
    Softmax(f64),
    LogSoftmax(f64),
    Project(Rows),
    Entmax(Rows, Method),
    Tempered(Rows, f64),
}

impl Map {
    fn entmax(alpha: f64) -> Self {
        Map::Entmax(Rows::All(alpha), Method::Auto)
    }

    fn run<E: Number>(
        &self,
        run: &mut Run<'_>,
        scores: &Scores<'_, E>,
        out: &mut [E],
    ) -> Result<(), Error> {
        match self {
            Map::Softmax(temperature) => softmax(run, scores, *temperature, out),
            Map::LogSoftmax(temperature) => log_softmax(run, scores, *temperature, out),
            Map::Project(total) => project_simplex(run, scores, total.as_per_row(), out),
            Map::Entmax(alpha, method) => {
                entmax(run, scores, alpha.as_per_row(), *method, 1.0, out)
            }
            Map::Tempered(alpha, temperature) => {
                let alpha = alpha.as_per_row();
                entmax(run, scores, alpha, Method::Auto, *temperature, out)
            }
        }
    }

    /// The map as it is for one row of a batch.
    fn of(&self, row: usize) -> Self {
        match self {
            Map::Project(total) => Map::Project(total.of(row)),
            Map::Entmax(alpha, method) => Map::Entmax(alpha.of(row), *method),
            Map::Tempered(alpha, temperature) => Map::Tempered(alpha.of(row), *temperature),
            other => other.clone(),
        }
    }

    fn sparse<E: Number>(
        &self,
        run: &mut Run<'_>,
        scores: &Scores<'_, E>,
    ) -> Option<Result<Sparse<E>, Error>> {
        match self {
            Map::Project(total) => Some(project_simplex_sparse(run, scores, total.as_per_row())),
            Map::Entmax(alpha, method) => {
                Some(entmax_sparse(run, scores, alpha.as_per_row(), *method, 1.0))
            }
            Map::Tempered(alpha, temperature) => {
                let alpha = alpha.as_per_row();
                Some(entmax_sparse(
                    run,
                    scores,
                    alpha,
                    Method::Auto,
                    *temperature,
                ))
            }
            _ => None,
        }
    }

    fn is_log(&self) -> bool {
        matches!(self, Map::LogSoftmax(_))
    }
}

/// Calls with a run that nothing stops.
fn with_run<R>(level: Level, workers: usize, call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

/// The map of a C-ordered batch at the widest level, by one worker.
fn mapped<E: Number>(map: &Map, shape: Shape, x: &[E], mask: Option<&[bool]>) -> Vec<E> {
    mapped_by(map, shape, x, mask, (Level::new(), 1))
}

fn mapped_by<E: Number>(
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

fn mapped_in_place<E: Number>(
    map: &Map,
    shape: Shape,
    x: &[E],
    mask: Option<&[bool]>,
    workers: usize,
) -> Vec<E> {
    let mut out = x.to_vec();
    let scores = Scores {
        shape,
        x: None,
        mask,
    };
    with_run(Level::new(), workers, |run| map.run(run, &scores, &mut out)).unwrap();
    out
}

fn mapped_row<E: Number>(map: &Map, x: &[E]) -> Vec<E> {
    mapped(map, Shape::rows(1, x.len()), x, None)
}

fn bits<E: Number>(values: &[E]) -> Vec<u64> {
    values.iter().map(|v| v.bits()).collect()
}

fn wide<E: Number>(values: &[E]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// The values of one row of a batch of any layout.
fn row_of<V: Copy>(shape: Shape, values: &[V], row: usize) -> Vec<V> {
    let Shape { n, inner, .. } = shape;
    let start = row / inner * n * inner + row % inner;
    (0..n).map(|k| values[start + k * inner]).collect()
}

/// Fills a row in one of the manners that have broken kernels: spread, tied, adjacent, of any size, with specials.
fn fill<E: Number>(numbers: &mut Numbers, row: &mut [E]) {
    let kind = numbers.bits() % 8;
    let scale = [1e-3, 1.0, 10.0, 1000.0][(numbers.bits() % 4) as usize];
    let shift = [0.0, 0.0, 1000.0, -3e4][(numbers.bits() % 4) as usize];
    let base = E::from_f64(numbers.uniform(-scale, scale));
    for value in &mut *row {
        *value = match kind {
            0..=2 => E::from_f64(shift + numbers.uniform(-scale, scale)),
            3 => E::from_f64((numbers.bits() % 4) as f64 / 4.0),
            4 => base.above((numbers.bits() % 4) as u8),
            _ => E::from_f64(numbers.uniform(-3.0, 3.0)),
        };
        if kind == 5 {
            let any = E::from_random_bits(numbers.bits());
            *value = if any.to_f64().is_finite() {
                any
            } else {
                *value
            };
        }
    }
    if kind == 6 || kind == 7 {
        let specials = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, -0.0];
        let special = E::from_f64(specials[(numbers.bits() % 4) as usize]);
        let count = if numbers.bits().is_multiple_of(8) {
            row.len()
        } else {
            2
        };
        for _ in 0..count {
            let k = numbers.bits() as usize % row.len();
            row[k] = special;
        }
    }
}

/// A batch of any layout whose rows are filled in different manners.
fn batch<E: Number>(numbers: &mut Numbers, shape: Shape) -> Vec<E> {
    let mut x = vec![E::from_f64(0.0); shape.len()];
    let mut row = vec![E::from_f64(0.0); shape.n];
    for index in 0..shape.count() {
        fill(numbers, &mut row);
        let start = index / shape.inner * shape.n * shape.inner + index % shape.inner;
        for (k, &value) in row.iter().enumerate() {
            x[start + k * shape.inner] = value;
        }
    }
    x
}

/// Shapes of a few hundred values: wide and narrow, with any number of rows beside.
fn small_shape() -> impl Strategy<Value = Shape> {
    let n = prop_oneof![3 => 1..20usize, 2 => 1..300usize];
    (n, 1..40usize, 1..4usize).prop_map(|(n, rows, inner)| {
        let most = (900 / n).max(1);
        let inner = inner.min(most);
        Shape {
            outer: rows.min(most.div_ceil(inner)),
            n,
            inner,
        }
    })
}

/// Any map, its parameter for all rows or for each.
fn any_map() -> impl Strategy<Value = Map> {
    let total = prop_oneof![Just(1.0), 1e-3..1e3];
    let alpha = prop_oneof![3 => select(&ALPHAS[..]), 1 => 1.0..4.0];
    let rows = |of: BoxedStrategy<f64>| {
        let each = prop::collection::vec(of.clone(), 60).prop_map(Rows::Each);
        prop_oneof![of.prop_map(Rows::All), each].boxed()
    };
    let alphas = rows(alpha.boxed());
    prop_oneof![
        2 => (0.1..10.0).prop_map(Map::Softmax),
        2 => (0.1..10.0).prop_map(Map::LogSoftmax),
        2 => rows(total.boxed()).prop_map(Map::Project),
        4 => alphas.clone().prop_map(|alpha| Map::Entmax(alpha, Method::Auto)),
        1 => alphas.clone().prop_map(|alpha| Map::Entmax(alpha, Method::Bisect(30))),
        1 => (alphas, 0.1..10.0).prop_map(|(alpha, temperature)| Map::Tempered(alpha, temperature)),
    ]
}

/// [`any_map`] for a number of rows.
fn for_rows(mut map: Map, rows: usize) -> Map {
    if let Map::Project(Rows::Each(values))
    | Map::Entmax(Rows::Each(values), _)
    | Map::Tempered(Rows::Each(values), _) = &mut map
    {
        *values = values.iter().copied().cycle().take(rows).collect();
    }
    map
}

/// Compares everything that must not matter; `mask` excludes about a third where it is asked for.
fn nothing_but_the_row_matters<E: Number>(
    map: Map,
    shape: Shape,
    seed: u64,
    mask: bool,
) -> Result<(), TestCaseError> {
    let mut numbers = Numbers::new(seed);
    let x: Vec<E> = batch(&mut numbers, shape);
    let mask = mask.then(|| {
        let some = |numbers: &mut Numbers| !numbers.bits().is_multiple_of(3);
        (0..x.len())
            .map(|_| some(&mut numbers))
            .collect::<Vec<bool>>()
    });
    let mask = mask.as_deref();
    let map = for_rows(map, shape.count());
    let expected = mapped(&map, shape, &x, mask);
    for (name, level) in every_level() {
        let found = mapped_by(&map, shape, &x, mask, (level, 1));
        prop_assert_eq!(bits(&found), bits(&expected), "at {}, {:?}", name, x);
    }
    let found = mapped_in_place(&map, shape, &x, mask, 1);
    prop_assert_eq!(bits(&found), bits(&expected), "in place, {:?}", x);
    let one = Shape::rows(1, shape.n);
    for row in 0..shape.count() {
        let x = row_of(shape, &x, row);
        let mask = mask.map(|mask| row_of(shape, mask, row));
        let alone = mapped(&map.of(row), one, &x, mask.as_deref());
        let beside = row_of(shape, &expected, row);
        prop_assert_eq!(bits(&alone), bits(&beside), "row {} alone, {:?}", row, x);
    }
    sparse_agrees(&map, shape, &x, mask, &expected)
}

/// Without its zeros, a result is the same.
fn sparse_agrees<E: Number>(
    map: &Map,
    shape: Shape,
    x: &[E],
    mask: Option<&[bool]>,
    dense: &[E],
) -> Result<(), TestCaseError> {
    let scores = Scores {
        shape,
        x: Some(x),
        mask,
    };
    let Some(sparse) = with_run(Level::new(), 2, |run| map.sparse(run, &scores)) else {
        return Ok(());
    };
    let sparse = sparse.unwrap();
    prop_assert_eq!(sparse.starts.len(), shape.count() + 1);
    prop_assert_eq!(sparse.data.len(), *sparse.starts.last().unwrap());
    for row in 0..shape.count() {
        let mut found = vec![0; shape.n];
        let entries = sparse.starts[row]..sparse.starts[row + 1];
        prop_assert!(sparse.columns[entries.clone()].is_sorted());
        for k in entries {
            found[sparse.columns[k]] = sparse.data[k].bits();
        }
        prop_assert_eq!(found, bits(&row_of(shape, dense, row)), "row {}", row);
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_but_the_row_matters_in_f32(
        map in any_map(), shape in small_shape(), seed in any::<u64>(), mask in any::<bool>()
    ) {
        nothing_but_the_row_matters::<f32>(map, shape, seed, mask)?;
    }

    #[test]
    fn nothing_but_the_row_matters_in_f64(
        map in any_map(), shape in small_shape(), seed in any::<u64>(), mask in any::<bool>()
    ) {
        nothing_but_the_row_matters::<f64>(map, shape, seed, mask)?;
    }

    #[test]
    fn nothing_but_the_row_matters_in_f16(
        map in any_map(), shape in small_shape(), seed in any::<u64>(), mask in any::<bool>()
    ) {
        nothing_but_the_row_matters::<f16>(map, shape, seed, mask)?;
    }
}

#[test]
fn workers_change_nothing_where_there_are_many_tasks() {
    // Widths on both sides of where kernels change, and with an inner axis.
    let shapes = [
        (7001, 10, 1),
        (2000, 64, 1),
        (600, 130, 1),
        (40, 100, 30),
        (5, 40_000, 1),
    ];
    for (seed, (outer, n, inner)) in shapes.into_iter().enumerate() {
        let shape = Shape { outer, n, inner };
        let x: Vec<f32> = batch(&mut Numbers::new(seed as u64), shape);
        let each = |values: &[f64]| {
            Rows::Each(values.iter().copied().cycle().take(shape.count()).collect())
        };
        for map in [
            Map::Softmax(1.0),
            Map::LogSoftmax(0.5),
            Map::Project(each(&[1.0, 1.0, 2.5])),
            Map::Entmax(each(&ALPHAS), Method::Auto),
        ] {
            let expected = bits(&mapped(&map, shape, &x, None));
            for workers in [2, 3] {
                let found = mapped_by(&map, shape, &x, None, (Level::new(), workers));
                assert!(
                    bits(&found) == expected,
                    "{map:?}, {shape:?}, {workers} workers"
                );
                let found = mapped_in_place(&map, shape, &x, None, workers);
                assert!(bits(&found) == expected, "{map:?}, {shape:?}, in place");
            }
        }
    }
}

/// A row longer than what is one task.
fn long_row<E: Number>(numbers: &mut Numbers, spread: f64) -> Vec<E> {
    (0..200_000)
        .map(|_| E::from_f64(numbers.uniform(-spread, spread)))
        .collect()
}

fn long_rows_have_the_same_bits<E: Number>() {
    let mut numbers = Numbers::new(11);
    let mut maps = vec![
        Map::Softmax(1.0),
        Map::LogSoftmax(1.0),
        Map::Project(Rows::All(3.0)),
    ];
    maps.extend([1.3, 1.5, 2.0, 3.0].map(Map::entmax));
    maps.push(Map::Entmax(Rows::All(1.5), Method::Bisect(20)));
    maps.push(Map::Tempered(Rows::All(1.5), 3.0));
    for (index, map) in maps.iter().enumerate() {
        let x: Vec<E> = long_row(&mut numbers, [0.01, 10.0][index % 2]);
        let shape = Shape::rows(1, x.len());
        let expected = mapped(map, shape, &x, None);
        for (name, level) in every_level() {
            let found = mapped_by(map, shape, &x, None, (level, 2));
            assert!(bits(&found) == bits(&expected), "{map:?} at {name}");
        }
        for workers in [1, 3] {
            let found = mapped_in_place(map, shape, &x, None, workers);
            assert!(
                bits(&found) == bits(&expected),
                "{map:?} in place, {workers} workers"
            );
        }
        let two = Shape {
            outer: 1,
            n: x.len(),
            inner: 2,
        };
        let beside: Vec<E> = x.iter().flat_map(|&x| [x, E::from_f64(0.5)]).collect();
        let found = mapped_by(map, two, &beside, None, (Level::new(), 2));
        assert!(
            bits(&row_of(two, &found, 0)) == bits(&expected),
            "{map:?} beside another"
        );
        if !map.is_log() {
            let total = if let Map::Project(_) = map { 3.0 } else { 1.0 };
            sums_to(&expected, total, &x).unwrap();
            keeps_order(&x, &expected).unwrap();
        }
    }
}

#[test]
fn long_rows_have_the_same_bits_in_f32() {
    long_rows_have_the_same_bits::<f32>();
}

#[test]
fn long_rows_have_the_same_bits_in_f64() {
    long_rows_have_the_same_bits::<f64>();
}

/// The sum is within 4 ulp of the total: what is promised for up to 10⁶ values.
fn sums_to<E: Number>(p: &[E], total: f64, x: &[E]) -> Result<(), TestCaseError> {
    prop_assert!(
        p.iter().all(|p| p.to_f64() >= 0.0),
        "negative: {:?} of {:?}",
        p,
        x
    );
    // In pairs, so that the sum of doubles is itself exact enough.
    fn sum(p: &[f64]) -> f64 {
        match p {
            [] => 0.0,
            [p] => *p,
            _ => sum(&p[..p.len() / 2]) + sum(&p[p.len() / 2..]),
        }
    }
    let off = (sum(&wide(p)) - total) / (total * E::EPSILON);
    prop_assert!(
        off.abs() <= 4.0,
        "the sum is off by {} epsilon: {:?}",
        off,
        &x[..x.len().min(400)]
    );
    Ok(())
}

/// Scores so close that all p are nearly the same, where roundings add up: if what is left of the sum is not divided
/// out, some of these rows are up to 6 epsilon off.
#[test]
fn steep_rows_of_near_scores_sum_to_one() {
    let mut numbers = Numbers::new(12);
    for (alpha, spread, n) in [
        (2.1, 1e-3, 30),
        (2.1, 1e-9, 100),
        (2.5, 1e-3, 30),
        (2.5, 1e-9, 100),
        (3.0, 1e-9, 300),
    ] {
        let shape = Shape::rows(200_000 / n, n);
        let draw = || numbers.uniform(-spread, spread);
        let x: Vec<f64> = std::iter::repeat_with(draw).take(shape.len()).collect();
        let p = mapped(&Map::entmax(alpha), shape, &x, None);
        for (x, p) in x.chunks_exact(n).zip(p.chunks_exact(n)) {
            sums_to(p, 1.0, x).unwrap();
        }
    }
}

/// A larger score never has less; nor has an equal one.
fn keeps_order<E: Number>(x: &[E], p: &[E]) -> Result<(), TestCaseError> {
    let mut pairs: Vec<(f64, f64)> = wide(x).into_iter().zip(wide(p)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    for pair in pairs.windows(2) {
        let ((x0, p0), (x1, p1)) = (pair[0], pair[1]);
        let kept = if x0 == x1 { p0 == p1 } else { p0 <= p1 };
        prop_assert!(kept, "{:e} has {:e} but {:e} has {:e}", x0, p0, x1, p1);
    }
    Ok(())
}

fn finite<E: Number>() -> impl Strategy<Value = E> {
    any::<u64>()
        .prop_map(E::from_random_bits)
        .prop_filter("finite", |v| v.to_f64().is_finite())
}

/// Rows of finite scores: spread, far from zero, tied, adjacent, of any size.
fn row<E: Number>() -> impl Strategy<Value = Vec<E>> {
    let n = || prop_oneof![3 => 1..12usize, 2 => 1..300usize];
    let spread = (
        n(),
        select(&[1e-6, 1e-3, 1.0, 10.0, 1000.0][..]),
        select(&[0.0, 0.0, 1e6, -3e4][..]),
    );
    prop_oneof![
        3 => spread.prop_flat_map(|(n, scale, shift)| {
            prop::collection::vec((-1.0..1.0).prop_map(move |v| E::from_f64(v * scale + shift)), n)
        }),
        1 => n().prop_flat_map(|n| {
            prop::collection::vec((-4..5i32).prop_map(|v| E::from_f64(f64::from(v) / 4.0)), n)
        }),
        1 => n().prop_flat_map(|n| prop::collection::vec(finite::<E>(), n)),
        1 => adjacent(),
    ]
}

/// Rows of a few neighbouring floats.
fn adjacent<E: Number>() -> impl Strategy<Value = Vec<E>> {
    let base = finite::<E>().prop_filter("room above", |v| v.above(9).to_f64().is_finite());
    let base = prop_oneof![base, (-30.0..30.0).prop_map(E::from_f64)];
    let steps = prop::collection::vec(0..9u8, 1..200);
    (base, steps).prop_map(|(base, steps)| steps.into_iter().map(|s| base.above(s)).collect())
}

fn total() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(1.0),
        (-3.0..6.0).prop_map(|v: f64| f64::from(10f64.powf(v) as f32))
    ]
}

fn is_a_distribution_in_order<E: Number>(
    map: &Map,
    total: f64,
    x: &[E],
) -> Result<(), TestCaseError> {
    let p = mapped_row(map, x);
    sums_to(&p, total, x)?;
    keeps_order(x, &p)
}

fn temperature() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), (-6.0..6.0).prop_map(|v: f64| 10f64.powf(v))]
}

proptest! {
    #[test]
    fn softmax_sums_to_one_and_keeps_order_in_f32(x in row::<f32>(), t in temperature()) {
        is_a_distribution_in_order(&Map::Softmax(t), 1.0, &x)?;
        keeps_order(&x, &mapped_row(&Map::LogSoftmax(t), &x))?;
    }

    #[test]
    fn softmax_sums_to_one_and_keeps_order_in_f64(x in row::<f64>(), t in temperature()) {
        is_a_distribution_in_order(&Map::Softmax(t), 1.0, &x)?;
        keeps_order(&x, &mapped_row(&Map::LogSoftmax(t), &x))?;
    }

    #[test]
    fn projections_sum_to_the_total_and_keep_order_in_f32(x in row::<f32>(), total in total()) {
        is_a_distribution_in_order(&Map::Project(Rows::All(total)), total, &x)?;
    }

    #[test]
    fn projections_sum_to_the_total_and_keep_order_in_f64(x in row::<f64>(), total in total()) {
        is_a_distribution_in_order(&Map::Project(Rows::All(total)), total, &x)?;
    }

    #[test]
    fn entmax_sums_to_one_and_keeps_order_in_f32(x in row::<f32>(), alpha in select(&ALPHAS[..])) {
        is_a_distribution_in_order(&Map::entmax(alpha), 1.0, &x)?;
    }

    #[test]
    fn entmax_sums_to_one_and_keeps_order_in_f64(x in row::<f64>(), alpha in select(&ALPHAS[..])) {
        is_a_distribution_in_order(&Map::entmax(alpha), 1.0, &x)?;
    }

    #[test]
    fn rows_of_neighbouring_floats_keep_order(x in adjacent::<f32>(), alpha in 1.0..4.0) {
        keeps_order(&x, &mapped_row(&Map::entmax(alpha), &x))?;
    }

    #[test]
    fn f16_keeps_order(x in row::<f16>(), alpha in select(&ALPHAS[..])) {
        keeps_order(&x, &mapped_row(&Map::entmax(alpha), &x))?;
        keeps_order(&x, &mapped_row(&Map::Softmax(1.0), &x))?;
    }
}

/// What a slow reference found: p, and the weights w = dp/dx without the constraint.
struct Truth {
    p: Vec<f64>,
    w: Vec<f64>,
    /// Where p reaches 0, less the largest score.
    threshold: f64,
}

/// The projection, from sorted scores (Held, Wolfe & Crowder 1974).
fn reference_project(x: &[f64], total: f64) -> Truth {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut z: Vec<f64> = x.iter().map(|x| x - max).collect();
    z.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut threshold) = (0.0, 0.0);
    for (k, z) in z.iter().enumerate() {
        // While a score takes part, those before it leave something for it.
        if k > 0 && *z <= threshold {
            break;
        }
        sum += z;
        threshold = (sum - total) / (k + 1) as f64;
    }
    let p: Vec<f64> = x.iter().map(|x| ((x - max) - threshold).max(0.0)).collect();
    let w = p.iter().map(|&p| f64::from(p > 0.0)).collect();
    Truth { p, w, threshold }
}

/// entmax for α > 1, by bisection.
fn reference_entmax(x: &[f64], alpha: f64) -> Truth {
    let d = alpha - 1.0;
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let z: Vec<f64> = x.iter().map(|x| x - max).collect();
    let (p, threshold): (Vec<f64>, f64) = if alpha <= 2.0 {
        // The unknown is where p would be 1: near the largest score for every α, while the threshold runs away.
        let at = |c: f64, z: f64| {
            let u = d * (z - c);
            if u <= -1.0 {
                0.0
            } else {
                (u.ln_1p() / d).exp()
            }
        };
        let n = z.len() as f64;
        let upper = -(-d * n.ln()).exp_m1() / d;
        let c = bisected(0.0, upper, |c| {
            z.iter().map(|&z| at(c, z)).sum::<f64>() > 1.0
        });
        (z.iter().map(|&z| at(c, z)).collect(), c - 1.0 / d)
    } else {
        // The unknown is the smallest p, v, at the smallest score that has any. The scores themselves are subtracted
        // from each other: their distances from the largest are rounded, and the power is steep.
        let root = |base: f64| if base > 0.0 { base.powf(1.0 / d) } else { 0.0 };
        let mut anchors = x.to_vec();
        anchors.sort_by(f64::total_cmp);
        let mass = |a: f64, v: f64| {
            let above = x
                .iter()
                .filter(|x| **x > a)
                .map(|x| root(d * (x - a) + v.powf(d)));
            above.sum::<f64>() + v * x.iter().filter(|x| **x == a).count() as f64
        };
        let a = anchors.partition_point(|&a| mass(a, 0.0) >= 1.0);
        let a = anchors[a.min(anchors.len() - 1)];
        let v = bisected(0.0, 1.0, |v| mass(a, v) < 1.0);
        let p = |&x: &f64| match x {
            _ if x > a => root(d * (x - a) + v.powf(d)),
            _ if x == a => v,
            _ => 0.0,
        };
        (x.iter().map(p).collect(), a - max - v.powf(d) / d)
    };
    let weight = |&p: &f64| if p > 0.0 { p.powf(2.0 - alpha) } else { 0.0 };
    let w: Vec<f64> = p.iter().map(weight).collect();
    // What rounding the unknown has left of the sum, shared out; steep powers have none.
    let left = (1.0 - p.iter().sum::<f64>()) / w.iter().sum::<f64>();
    let left = if alpha <= 2.0 { left } else { 0.0 };
    let p = p
        .iter()
        .zip(&w)
        .map(|(p, w)| (p + w * left).max(0.0))
        .collect();
    Truth { p, w, threshold }
}

/// The end of the interval on which `before` holds.
fn bisected(mut low: f64, mut high: f64, before: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if before(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low + (high - low) / 2.0
}

/// Compares with the truth: a few ulp of each p itself, and a few of the sum, shared out by the weights as an error of
/// the threshold would be. p is a power of a number near 1, which costs |ln p| ulp.
fn agrees<E: Number>(found: &[E], truth: &Truth, total: f64, x: &[E]) -> Result<(), TestCaseError> {
    let weights: f64 = truth.w.iter().sum();
    for ((found, &p), &w) in found.iter().zip(&truth.p).zip(&truth.w) {
        let own = if p > 0.0 {
            p * (1.0 + (p / total).ln().abs())
        } else {
            0.0
        };
        let share = if weights.is_finite() {
            w / weights
        } else {
            1.0
        };
        // The reference has an error of its own: its distances are rounded too.
        let reference = f64::EPSILON * w.min(1.0) * (4.0 + 4.0 * truth.threshold.abs());
        let bound = E::EPSILON * (4.0 * own + 4.0 * total * share) + 2.0 * E::LEAST + reference;
        let off = (found.to_f64() - p).abs();
        // A score within rounding of the threshold may be on either side of it.
        let edge = E::EPSILON * total;
        prop_assert!(
            off <= bound || off <= edge,
            "{:e}, not {:e}: off by {} times the bound, of {:?}",
            found.to_f64(),
            p,
            off / bound,
            x
        );
    }
    Ok(())
}

/// Rows on which a reference in f64 is good: the differences of the scores are exact, or nearly.
fn tame_row<E: Number>() -> impl Strategy<Value = Vec<E>> {
    row::<E>().prop_filter("moderate", |x| x.iter().all(|x| x.to_f64().abs() < 1e7))
}

fn entmax_agrees<E: Number>(x: &[E], alpha: f64) -> Result<(), TestCaseError> {
    let truth = reference_entmax(&wide(x), alpha);
    agrees(&mapped_row(&Map::entmax(alpha), x), &truth, 1.0, x)
}

proptest! {
    #[test]
    fn softmax_agrees_with_the_definition(x in tame_row::<f32>(), t in 0.01..100.0) {
        let p = mapped_row(&Map::Softmax(t), &x);
        let log_p = mapped_row(&Map::LogSoftmax(t), &x);
        let max = wide(&x).into_iter().fold(f64::NEG_INFINITY, f64::max);
        let z: Vec<f64> = x.iter().map(|x| (x.to_f64() - max) / t).collect();
        let top = z.iter().filter(|z| **z == 0.0).count() as f64;
        let others: f64 = z.iter().filter(|z| **z < 0.0).map(|z| z.exp()).sum();
        let log_sum = (top - 1.0 + others).ln_1p();
        // What the errors of the other exponentials make of the logarithm of the sum.
        let of_others = |z: f64| z.exp() * (1.5 * z.abs() + 3.0);
        let of_sum = z.iter().filter(|z| **z < 0.0).map(|z| of_others(*z)).sum::<f64>()
            * f64::from(f32::EPSILON) / (top + others);
        for (i, &z) in z.iter().enumerate() {
            // z is rounded twice, and 1/T once.
            let argument = 1.5 * f64::from(f32::EPSILON) * z.abs();
            let expected = (z - log_sum).exp();
            let bound = expected * (argument + 3.0 * f64::from(f32::EPSILON)) + 2.0 * f32::LEAST;
            prop_assert!((p[i].to_f64() - expected).abs() <= bound, "{} not {}", p[i], expected);
            let bound = argument + of_sum + 3.0 * f64::from(f32::EPSILON) * (z - log_sum).abs() + f32::LEAST;
            prop_assert!((log_p[i].to_f64() - (z - log_sum)).abs() <= bound, "{} not {}", log_p[i], z - log_sum);
        }
    }

    #[test]
    fn projection_agrees_with_sorting_in_f32(x in tame_row::<f32>(), total in total()) {
        let p = mapped_row(&Map::Project(Rows::All(total)), &x);
        agrees(&p, &reference_project(&wide(&x), total), total, &x)?;
    }

    #[test]
    fn projection_agrees_with_sorting_in_f64(x in tame_row::<f64>(), total in total()) {
        let p = mapped_row(&Map::Project(Rows::All(total)), &x);
        agrees(&p, &reference_project(&wide(&x), total), total, &x)?;
    }

    #[test]
    fn entmax_agrees_with_bisection_in_f32(x in tame_row::<f32>(), alpha in select(&ALPHAS[1..])) {
        entmax_agrees(&x, alpha)?;
    }

    #[test]
    fn entmax_agrees_with_bisection_in_f64(x in tame_row::<f64>(), alpha in select(&ALPHAS[1..])) {
        entmax_agrees(&x, alpha)?;
    }
}

/// Steep powers of tiny probabilities leave the range of the type, and so do the differences of tiny scores.
#[test]
fn roots_of_numbers_out_of_range_keep_their_digits() {
    for n in [2, 17, 139, 300] {
        for alpha in [2.5, 10.0, 20.0, 100.0] {
            let x: Vec<f32> = (0..n).map(|i| f32::from_bits(i * i % 11 * 20)).collect();
            entmax_agrees(&x, alpha).unwrap();
        }
    }
}

/// τ by its definition, and the support as far as rounding lets it be known.
fn threshold_agrees<E: Number>(x: &[E], alpha: f64) -> Result<(), TestCaseError> {
    let truth = reference_entmax(&wide(x), alpha);
    let max = wide(x).into_iter().fold(f64::NEG_INFINITY, f64::max);
    let d = alpha - 1.0;
    let expected = d * (max + truth.threshold);
    let (mut tau, mut support) = ([E::from_f64(7.0)], [7]);
    let scores = Scores::new(Shape::rows(1, x.len()), x);
    let all = PerRow::All(alpha);
    with_run(Level::new(), 1, |run| {
        threshold(run, &scores, all, &mut tau, &mut support)
    })
    .unwrap();
    // α - 1, its product with the score and τ itself are rounded once each.
    let bound = E::EPSILON * (4.0 + 3.0 * d * max.abs() + 3.0 * expected.abs()) + E::LEAST;
    let off = (tau[0].to_f64() - expected).abs();
    prop_assert!(
        off <= bound,
        "{:e}, not {:e}, of {:?}",
        tau[0].to_f64(),
        expected,
        x
    );
    // A score counts where p is not lost to underflow.
    let above = |by: f64, least: f64| {
        let counts = |(x, p): (f64, &f64)| d * ((x - max) - truth.threshold) > by && *p >= least;
        wide(x)
            .into_iter()
            .zip(&truth.p)
            .filter(|v| counts(*v))
            .count() as i64
    };
    let edge = 8.0 * E::EPSILON;
    let (least, most) = (above(edge, 4.0 * E::LEAST / E::EPSILON), above(-edge, 0.0));
    let found = support[0];
    prop_assert!(
        (least..=most.max(1)).contains(&found),
        "{found}, not {least} to {most}, of {x:?}"
    );
    Ok(())
}

proptest! {
    #[test]
    fn thresholds_agree_with_bisection_in_f32(x in tame_row::<f32>(), alpha in select(&ALPHAS[1..])) {
        threshold_agrees(&x, alpha)?;
    }

    #[test]
    fn thresholds_agree_with_bisection_in_f64(x in tame_row::<f64>(), alpha in select(&ALPHAS[1..])) {
        threshold_agrees(&x, alpha)?;
    }
}

/// A product with a Jacobian, made from the result of its map.
#[derive(Clone, Debug)]
enum Vjp {
    Softmax(f64),
    LogSoftmax(f64),
    Entmax(Rows),
}

impl Vjp {
    fn map(&self) -> Map {
        match self {
            Vjp::Softmax(temperature) => Map::Softmax(*temperature),
            Vjp::LogSoftmax(temperature) => Map::LogSoftmax(*temperature),
            Vjp::Entmax(alpha) => Map::Entmax(alpha.clone(), Method::Auto),
        }
    }

    fn product<E: Number>(
        &self,
        shape: Shape,
        pair: (&[E], &[E]),
        (level, workers): (Level, usize),
    ) -> Vec<E> {
        let mut out = vec![E::from_f64(7.0); shape.len()];
        let call = |run: &mut Run<'_>| match self {
            Vjp::Softmax(temperature) => softmax_vjp(run, shape, pair, *temperature, &mut out),
            Vjp::LogSoftmax(temperature) => {
                log_softmax_vjp(run, shape, pair, *temperature, &mut out)
            }
            Vjp::Entmax(alpha) => entmax_vjp(run, shape, pair, alpha.as_per_row(), 1.0, &mut out),
        };
        with_run(level, workers, call).unwrap();
        out
    }
}

fn any_vjp() -> impl Strategy<Value = Vjp> {
    let alpha = select(&ALPHAS[..]);
    prop_oneof![
        (0.1..10.0).prop_map(Vjp::Softmax),
        (0.1..10.0).prop_map(Vjp::LogSoftmax),
        alpha
            .clone()
            .prop_map(|alpha| Vjp::Entmax(Rows::All(alpha))),
        prop::collection::vec(alpha, 60).prop_map(|alpha| Vjp::Entmax(Rows::Each(alpha))),
    ]
}

fn gradients_have_the_same_bits<E: Number>(
    mut vjp: Vjp,
    shape: Shape,
    seed: u64,
) -> Result<(), TestCaseError> {
    if let Vjp::Entmax(Rows::Each(alpha)) = &mut vjp {
        *alpha = alpha.iter().copied().cycle().take(shape.count()).collect();
    }
    let mut numbers = Numbers::new(seed);
    let x: Vec<E> = batch(&mut numbers, shape);
    let p = mapped(&vjp.map(), shape, &x, None);
    let draw = |numbers: &mut Numbers| E::from_f64(numbers.uniform(-2.0, 2.0));
    let g: Vec<E> = (0..p.len()).map(|_| draw(&mut numbers)).collect();
    let expected = vjp.product(shape, (&p, &g), (Level::new(), 1));
    for (name, level) in every_level() {
        let found = vjp.product(shape, (&p, &g), (level, 1));
        prop_assert_eq!(bits(&found), bits(&expected), "at {}, {:?}", name, p);
    }
    let Vjp::Entmax(alpha) = &vjp else {
        return Ok(());
    };
    let slope = |level| {
        let mut out = vec![E::from_f64(7.0); shape.count()];
        let pair = (&p[..], &g[..]);
        let call =
            |run: &mut Run<'_>| entmax_alpha_grad(run, shape, pair, alpha.as_per_row(), &mut out);
        with_run(level, 1, call).unwrap();
        bits(&out)
    };
    for (name, level) in every_level() {
        prop_assert_eq!(
            slope(level),
            slope(Level::new()),
            "in alpha, at {}, {:?}",
            name,
            p
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn gradients_have_the_same_bits_in_f32(vjp in any_vjp(), shape in small_shape(), seed in any::<u64>()) {
        gradients_have_the_same_bits::<f32>(vjp, shape, seed)?;
    }

    #[test]
    fn gradients_have_the_same_bits_in_f64(vjp in any_vjp(), shape in small_shape(), seed in any::<u64>()) {
        gradients_have_the_same_bits::<f64>(vjp, shape, seed)?;
    }

    #[test]
    fn gradients_have_the_same_bits_in_f16(vjp in any_vjp(), shape in small_shape(), seed in any::<u64>()) {
        gradients_have_the_same_bits::<f16>(vjp, shape, seed)?;
    }

    /// J g against `Σⱼ wᵢ wⱼ (gᵢ - gⱼ)/Σw`, in which nothing cancels.
    #[test]
    fn entmax_vjp_agrees_with_the_jacobian(
        x in prop::collection::vec(-2.0..2.0f32, 1..60), alpha in select(&ALPHAS[..9]), seed in any::<u64>()
    ) {
        let shape = Shape::rows(1, x.len());
        let vjp = Vjp::Entmax(Rows::All(alpha));
        let p = mapped_row(&vjp.map(), &x);
        let mut numbers = Numbers::new(seed);
        let g: Vec<f32> = p.iter().map(|_| numbers.uniform(-1.0, 1.0) as f32).collect();
        let found = vjp.product(shape, (&p, &g), (Level::new(), 1));
        let weight = |p: &f32| if *p > 0.0 { f64::from(*p).powf(2.0 - alpha) } else { 0.0 };
        let w: Vec<f64> = p.iter().map(weight).collect();
        let sum: f64 = w.iter().sum();
        let between = |i: usize, j: usize| w[i] * (w[j] / sum) * f64::from(g[i] - g[j]);
        let size = |i: usize| (0..w.len()).map(|j| between(i, j).abs()).sum::<f64>();
        let most: f64 = (0..w.len()).map(size).fold(0.0, f64::max);
        for i in 0..w.len() {
            let expected: f64 = (0..w.len()).map(|j| between(i, j)).sum();
            // α ≤ 2: the mean of g is rounded to its own size. Beyond, differences are, and powers cost |ln p| ulp.
            let scale = if alpha > 2.0 { most } else { w[i].max(size(i)) };
            let bound = 12.0 * f64::from(f32::EPSILON) * scale * (1.0 + 6.0 * (alpha - 2.0).abs());
            prop_assert!((f64::from(found[i]) - expected).abs() <= bound + 1e-37, "{} not {}", found[i], expected);
        }
    }

    #[test]
    fn softmax_gradients_agree_with_the_jacobian(
        x in prop::collection::vec(-5.0..5.0f64, 1..60), t in 0.1..10.0, seed in any::<u64>()
    ) {
        let shape = Shape::rows(1, x.len());
        let mut numbers = Numbers::new(seed);
        let g: Vec<f64> = x.iter().map(|_| numbers.uniform(-1.0, 1.0)).collect();
        let p = mapped_row(&Map::Softmax(t), &x);
        let log_p = mapped_row(&Map::LogSoftmax(t), &x);
        let by_p = Vjp::Softmax(t).product(shape, (&p, &g), (Level::new(), 1));
        let by_log_p = Vjp::LogSoftmax(t).product(shape, (&log_p, &g), (Level::new(), 1));
        let mean: f64 = p.iter().zip(&g).map(|(p, g)| p * g).sum();
        let sum: f64 = g.iter().sum();
        for i in 0..x.len() {
            // 60 values of size 1 are summed in another order here.
            let bound = 100.0 * f64::EPSILON / t;
            prop_assert!((by_p[i] - p[i] * (g[i] - mean) / t).abs() <= bound);
            prop_assert!((by_log_p[i] - (g[i] - p[i] * sum) / t).abs() <= 60.0 * bound);
        }
    }

    /// A temperature stages `(x - max)/T`, and divides the gradient: by a power of two, exactly.
    #[test]
    fn a_temperature_divides_scores_and_gradients(
        x in tame_row::<f32>(), alpha in select(&ALPHAS[..]), t in 0.1..10.0, seed in any::<u64>()
    ) {
        let all = Rows::All(alpha);
        let inverse = (1.0 / t) as f32;
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let staged: Vec<f32> = x.iter().map(|x| (x - max) * inverse).collect();
        let p = mapped_row(&Map::Tempered(all.clone(), t), &x);
        prop_assert_eq!(bits(&p), bits(&mapped_row(&Map::entmax(alpha), &staged)));
        let plain = mapped_row(&Map::entmax(alpha), &x);
        prop_assert_eq!(bits(&plain), bits(&mapped_row(&Map::Tempered(all.clone(), 1.0), &x)));
        let shape = Shape::rows(1, x.len());
        let mut numbers = Numbers::new(seed);
        let g: Vec<f32> = x.iter().map(|_| numbers.uniform(-1.0, 1.0) as f32).collect();
        let expected = Vjp::Entmax(all).product(shape, (&p, &g), (Level::new(), 1));
        let mut found = vec![7.0; x.len()];
        let call = |run: &mut Run<'_>| {
            entmax_vjp(run, shape, (&p, &g), PerRow::All(alpha), 0.25, &mut found)
        };
        with_run(Level::new(), 1, call).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            // Where the one is subnormal, or too large for the other, it has been rounded.
            let off = (found - expected * 4.0).abs();
            prop_assert!(off <= 4.0 * f32::MIN_POSITIVE * f32::EPSILON || found.is_infinite());
        }
    }

    /// ⟨g, dp/dα⟩ against a difference of the map, whose error is about h² and ε/h.
    #[test]
    fn the_gradient_in_alpha_agrees_with_a_difference(
        x in prop::collection::vec(-1.0..1.0f64, 2..30), alpha in 1.001..1.7, seed in any::<u64>()
    ) {
        let h = 1e-5;
        let shape = Shape::rows(1, x.len());
        let mut numbers = Numbers::new(seed);
        let g: Vec<f64> = x.iter().map(|_| numbers.uniform(-1.0, 1.0)).collect();
        let at = |alpha| mapped_row(&Map::entmax(alpha), &x);
        let (before, after) = (at(alpha - h), at(alpha + h));
        let difference = after.iter().zip(&before).map(|(a, b)| (a - b) / (2.0 * h));
        let expected: f64 = difference.zip(&g).map(|(d, g)| d * g).sum();
        let (p, mut out) = (at(alpha), [7.0]);
        let call = |run: &mut Run<'_>| entmax_alpha_grad(run, shape, (&p, &g), PerRow::All(alpha), &mut out);
        with_run(Level::new(), 1, call).unwrap();
        // A score that enters the support between the two makes a kink of at most about h^½.
        prop_assert!((out[0] - expected).abs() < 1e-3, "{} not {}", out[0], expected);
    }

    #[test]
    fn a_sparse_gradient_is_the_dense_one_on_its_entries(
        seed in any::<u64>(), shape in small_shape(), alpha in select(&ALPHAS[4..9])
    ) {
        let shape = Shape::rows(shape.count(), shape.n);
        let mut numbers = Numbers::new(seed);
        let mut draw = || (0..shape.len()).map(|_| numbers.uniform(-2.0, 2.0) as f32).collect::<Vec<_>>();
        let (x, g) = (draw(), draw());
        let all = PerRow::All(alpha);
        let p = mapped(&Map::entmax(alpha), shape, &x, None);
        let dense = Vjp::Entmax(Rows::All(alpha)).product(shape, (&p, &g), (Level::new(), 1));
        let sparse = with_run(Level::new(), 2, |run| {
            entmax_sparse(run, &Scores::new(shape, &x), all, Method::Auto, 1.0)
        }).unwrap();
        let mut out = vec![7.0; sparse.data.len()];
        let entries = (&sparse.data[..], &sparse.columns[..], &sparse.starts[..]);
        with_run(Level::new(), 2, |run| entmax_vjp_sparse(run, shape.n, entries, &g, all, 1.0, &mut out)).unwrap();
        for row in 0..shape.count() {
            for k in sparse.starts[row]..sparse.starts[row + 1] {
                let expected = f64::from(dense[row * shape.n + sparse.columns[k]]);
                // The sums run over other stripes, so they are rounded otherwise.
                let bound = 1e-4 * (1.0 + expected.abs());
                prop_assert!((f64::from(out[k]) - expected).abs() <= bound, "{} not {}", out[k], expected);
            }
        }
    }
}

#[test]
fn known_values_come_out() {
    // For [-2, 0, ½], to the digits given; closed forms, and bisection in 50 digits for α = 1.25.
    let x = [-2.0f64, 0.0, 0.5];
    let known = [
        (Map::Softmax(1.0), [0.0486, 0.3592, 0.5922], 5e-5),
        (Map::Project(Rows::All(1.0)), [0.0, 0.25, 0.75], 1e-15),
        (Map::entmax(1.5), [0.0, 0.3260, 0.6740], 5e-5),
        (
            Map::entmax(1.25),
            [0.005_339_42, 0.352_109_79, 0.642_550_8],
            5e-9,
        ),
        (Map::entmax(3.0), [0.0, 0.0, 1.0], 1e-15),
    ];
    for (map, expected, digits) in known {
        for (p, expected) in mapped_row(&map, &x).into_iter().zip(expected) {
            assert!(
                (p - expected).abs() <= digits,
                "{map:?}: {p}, not {expected}"
            );
        }
    }
    assert_eq!(
        mapped_row(&Map::entmax(1.5), &[2.0, 0.0, 0.0]),
        [1.0, 0.0, 0.0]
    );
    let steep = mapped_row(&Map::entmax(20.0), &[0.01f32, 0.0]);
    assert!(
        (steep[0] - 0.916).abs() < 1e-3 && (steep[1] - 0.084).abs() < 1e-3,
        "{steep:?}"
    );
    // The entry at the maximum keeps its digits.
    let log_p = mapped_row(&Map::LogSoftmax(1.0), &[17.0f32, 0.0]);
    assert!(
        (log_p[0] + 4.14e-8).abs() < 1e-10 && log_p[1] == -17.0,
        "{log_p:?}"
    );
}

#[test]
fn special_values_follow_one_rule_in_every_map() {
    let maps = [
        Map::Softmax(0.5),
        Map::LogSoftmax(2.0),
        Map::Project(Rows::All(2.0)),
    ];
    let entmaxes = ALPHAS.map(Map::entmax);
    let bisected = Map::Entmax(Rows::All(1.5), Method::Bisect(40));
    let infinity = f32::INFINITY;
    for map in maps.into_iter().chain(entmaxes).chain([bisected]) {
        let total = if let Map::Project(_) = map { 2.0 } else { 1.0 };
        let none = if map.is_log() { -infinity } else { 0.0 };
        let share = |p: f32| if map.is_log() { p.ln() } else { p * total };
        // Tiles, rows and long rows have code of their own.
        for n in [2, 5, 64, 65, 129, 300, 140_000] {
            let shape = Shape::rows(1, n);
            let of = |special: &[f32], fill: f32| {
                let mut x = vec![fill; n];
                x[n - special.len()..].copy_from_slice(special);
                x
            };
            let run = |x: &[f32], mask: Option<&[bool]>| {
                let y = mapped(&map, shape, x, mask);
                for (name, level) in every_level() {
                    let found = mapped_by(&map, shape, x, mask, (level, 1));
                    assert!(bits(&found) == bits(&y), "{map:?}, n = {n}, at {name}");
                }
                y
            };
            let about = |what: &str| format!("{map:?}, n = {n}: {what}");
            for special in [
                &[f32::NAN][..],
                &[infinity, f32::NAN],
                &[f32::NAN, -infinity],
            ] {
                let all_nan = |y: Vec<f32>| y.iter().all(|y| y.is_nan());
                assert!(all_nan(run(&of(special, 0.25), None)), "{}", about("NaN"));
                assert!(
                    all_nan(run(&of(special, -infinity), None)),
                    "{}",
                    about("NaN beside -∞")
                );
                let mask = vec![false; n];
                assert!(
                    all_nan(run(&of(special, 0.25), Some(&mask))),
                    "{}",
                    about("NaN, masked")
                );
            }
            let y = run(&vec![-infinity; n], None);
            assert!(y.iter().all(|y| y.is_nan()), "{}", about("only -∞"));
            let y = run(&vec![1.0; n], Some(&vec![false; n]));
            assert!(y.iter().all(|&y| y == none), "{}", about("excluded whole"));
            let y = run(&of(&[infinity, infinity], 3.0), None);
            let expected = of(&[share(0.5), share(0.5)], none);
            let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() < 1e-6;
            assert!(y.iter().zip(&expected).all(near), "{}", about("two +∞"));
            let mask: Vec<bool> = (0..n).map(|k| k + 1 < n).collect();
            let y = run(&of(&[infinity], 0.5), Some(&mask));
            assert!(y[n - 1] == none && y[0] > none, "{}", about("+∞ excluded"));
            let y = run(&of(&[-infinity], 0.5), None);
            assert!(y[n - 1] == none && y[0] > none, "{}", about("one -∞"));
        }
    }
}

/// The argument that an error names.
fn argument(error: Error) -> &'static str {
    match error {
        Error::Empty { argument }
        | Error::Length { argument, .. }
        | Error::Domain { argument, .. }
        | Error::Integer { argument, .. }
        | Error::Unsupported { argument, .. } => argument,
        Error::Trajectory(_) => "trajectory",
        Error::Interrupted => "interrupted",
    }
}

#[test]
fn errors_name_the_argument() {
    let shape = Shape::rows(2, 3);
    let (x, mut out) = ([0.0f32; 6], [0.0f32; 6]);
    let scores = Scores::new(shape, &x);
    let mut refused = |map: Map, scores: Scores<'_, f32>, len: usize| {
        let found = with_run(Level::new(), 1, |run| {
            map.run(run, &scores, &mut out[..len])
        });
        argument(found.unwrap_err())
    };
    let softmax = || Map::Softmax(1.0);
    assert_eq!(
        refused(softmax(), Scores::new(Shape::rows(2, 0), &[]), 0),
        "x"
    );
    assert_eq!(refused(softmax(), Scores::new(shape, &x[..5]), 6), "x");
    // Its length is 2^64, or 0 to a product that wraps.
    let beyond = Shape {
        outer: usize::MAX / 2 + 1,
        n: 1,
        inner: 2,
    };
    assert_eq!(refused(softmax(), Scores::new(beyond, &[]), 0), "x");
    assert_eq!(refused(softmax(), scores, 5), "out");
    let short = Scores {
        mask: Some(&[true; 5]),
        ..scores
    };
    assert_eq!(refused(softmax(), short, 6), "where");
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(Map::Softmax(bad), scores, 6), "temperature");
        assert_eq!(refused(Map::LogSoftmax(bad), scores, 6), "temperature");
        assert_eq!(refused(Map::Project(Rows::All(bad)), scores, 6), "total");
        assert_eq!(
            refused(Map::Project(Rows::Each(vec![1.0, bad])), scores, 6),
            "total"
        );
    }
    // Neither is a positive number in f32.
    for bad in [1e-60, 1e60] {
        assert_eq!(refused(Map::Project(Rows::All(bad)), scores, 6), "total");
    }
    for bad in [0.999, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(Map::entmax(bad), scores, 6), "alpha");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            refused(Map::Tempered(Rows::All(1.5), bad), scores, 6),
            "temperature"
        );
    }
    let each = |values: &[f64]| Map::Entmax(Rows::Each(values.to_vec()), Method::Auto);
    assert_eq!(refused(each(&[1.5, 0.5]), scores, 6), "alpha");
    assert_eq!(refused(each(&[1.5]), scores, 6), "alpha");
    let none = Map::Entmax(Rows::All(1.5), Method::Bisect(0));
    assert_eq!(refused(none, scores, 6), "n_iter");
    assert_eq!(out, [0.0; 6], "a refused call has written");
}

#[test]
fn errors_of_thresholds_and_gradients_name_the_argument() {
    let shape = Shape::rows(2, 3);
    let (x, g) = ([0.5f32; 6], [1.0f32; 6]);
    let scores = Scores::new(shape, &x);
    let refused = |alpha: f64, taus: usize, supports: usize| {
        let (mut tau, mut support) = (vec![0.0; taus], vec![0; supports]);
        let call =
            |run: &mut Run<'_>| threshold(run, &scores, PerRow::All(alpha), &mut tau, &mut support);
        argument(with_run(Level::new(), 1, call).unwrap_err())
    };
    assert_eq!(refused(1.0, 2, 2), "alpha");
    assert_eq!(refused(2.0, 1, 2), "tau");
    assert_eq!(refused(2.0, 2, 3), "support");
    let refused = |alpha: f64, (p, g): (&[f32], &[f32]), len: usize| {
        let mut out = vec![0.0; len];
        let call =
            |run: &mut Run<'_>| entmax_vjp(run, shape, (p, g), PerRow::All(alpha), 1.0, &mut out);
        argument(with_run(Level::new(), 1, call).unwrap_err())
    };
    assert_eq!(refused(0.5, (&x, &g), 6), "alpha");
    assert_eq!(refused(1.5, (&x[1..], &g), 6), "p");
    assert_eq!(refused(1.5, (&x, &g[1..]), 6), "g");
    assert_eq!(refused(1.5, (&x, &g), 5), "out");
    let refused = |columns: &[usize], starts: &[usize], len: usize| {
        let (p, mut out) = (&x[..2], vec![0.0; len]);
        let call = |run: &mut Run<'_>| {
            let alpha = PerRow::All(1.5);
            entmax_vjp_sparse(run, 3, (p, columns, starts), &g, alpha, 1.0, &mut out)
        };
        argument(with_run(Level::new(), 1, call).unwrap_err())
    };
    assert_eq!(refused(&[0, 3], &[0, 1, 2], 2), "indices");
    assert_eq!(refused(&[0], &[0, 1, 2], 2), "indices");
    assert_eq!(refused(&[0, 1], &[1, 1, 2], 2), "indptr");
    assert_eq!(refused(&[0, 1], &[0, 3, 2], 2), "indptr");
    assert_eq!(refused(&[0, 1], &[0, 1, 1], 2), "indptr");
    assert_eq!(refused(&[0, 1], &[0, 2], 2), "g");
    assert_eq!(refused(&[0, 1], &[0, 1, 2], 3), "out");
}

/// Runs until a watch that always refuses is asked; the scalar level is slow enough to see it.
fn is_stopped(map: &Map, shape: Shape, level: Level) {
    let x = vec![0.5f32; shape.len()];
    let mut out = vec![0.0; x.len()];
    for workers in [1, 2] {
        let started = Instant::now();
        let mut run = Run {
            level,
            workers,
            watch: &mut || false,
        };
        let found = map.run(&mut run, &Scores::new(shape, &x), &mut out);
        assert_eq!(
            found,
            Err(Error::Interrupted),
            "{map:?}, {shape:?}, {workers} workers"
        );
        // A quarter of a second is promised; the rest is for a machine that does something else too.
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{map:?}, {shape:?}, {workers} workers"
        );
    }
}

#[test]
fn a_watch_stops_many_rows() {
    for map in [Map::Softmax(1.0), Map::entmax(1.3)] {
        is_stopped(&map, Shape::rows(4000, 1000), slowest());
    }
}

#[test]
fn a_watch_stops_one_long_row() {
    for map in [Map::Softmax(1.0), Map::entmax(1.3), Map::entmax(3.0)] {
        is_stopped(&map, Shape::rows(1, 4_000_000), slowest());
    }
}

#[test]
fn a_watch_stops_many_long_rows() {
    // Each of them takes less than the time between two questions.
    is_stopped(&Map::Softmax(1.0), Shape::rows(60, 140_000), slowest());
}

/// The level at which a call lasts longest.
fn slowest() -> Level {
    every_level().last().expect("a CPU has a level").1
}
