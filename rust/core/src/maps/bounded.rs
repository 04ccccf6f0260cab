//! Maps of rows whose entries have upper bounds: `pᵢ = min(uᵢ, g(xᵢ - τ))`, τ such that `Σ p = total`.
//!
//! * [`capped_simplex`]: `g(d) = [d]₊/T`, the Euclidean projection of x/T onto `{0 ≤ p ≤ u, Σ p = total}`. With u = 1 and
//!   total = k these are the k-subsets (budget); with total = 1 it is csparsemax (Malaviya, Ferreira & Martins 2018).
//! * [`csoftmax`]: `g(d) = e^{d/T}`, `Σ p = 1` (Martins & Kreutzer 2017).
//! * **Domain.** Any values. A NaN makes its row NaN; -∞ gets 0; entries of +∞ share the total equally up to their bounds,
//!   and what these cannot hold goes to the others. A row is NaN whose entries above -∞ cannot hold the total.
//! * **Precision.** `|Σ p - total| ≤ 4` ulp. For the projection, every p is as if τ, which has two parts, were off by an
//!   ulp of the total over the number of entries between their bounds.
//! * **Order.** With one bound for all, x ≤ y implies p(x) ≤ p(y) within a row.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** The projection: a filter by a bound from a sample, about ten sums over what it keeps, and a pass that
//!   writes. csoftmax: softmax, and a pass for each time that more entries reach their bounds.
//!
//! ```text
//! capped_simplex:  t ← a position from a sample of the row, mostly below τ
//!                  c ← the scores above t                              # the others have no mass
//!                  repeat: f ← Σ p(t) - total over c; t ← regula falsi (Illinois), now and then the middle
//!                  until |f| ≤ 1/128 of the total                      # with rough terms
//!                  repeat: the same with Newton's step where it leads into the bracket and f has halved
//!                  until |f| ≤ 2 ulp
//! csoftmax:        s ← 1/Σ e^x
//!                  repeat: s ← (1 - Σ u over those with s e^x ≥ u)/Σ e^x over the others   # these only become fewer
//!                  until none falls out
//! ```
//!
//! 1. A step waits for one sum, two divisions and one comparison after the other. So rows are taken `LANES` at a time, a
//!    lane each ([`super::tile`]): rows of at most [`TILED`] values whole, rows of at most [`GROUPED`] values once little
//!    but their candidates is left of them. What does not go well in a lane is done again, by itself.
//! 2. Σ p in s is concave, so from below Newton's method rises monotonically to the solution, and ends on it.
//! 3. Where the largest exponentials have reached their bounds, they are taken anew, relative to the largest of the
//!    others, which else might vanish beside them.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    entmax::Project,
    gradient::map_pairs,
    kernels::Vjp,
    power::Pair,
    softmax::{exponentials, inverse_temperature},
    threshold::{Position, filter, max_of_long_row},
    tile,
};
use crate::{
    batch::{
        PerRow, RowMap, Scores, Shape, Storage, map_rows, of_chunks, of_written_chunks, tasks,
        write_chunks,
    },
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, exp_lifted, load_padded, max, store_part, whole_stripes},
};

/// The upper bounds of the entries.
#[derive(Debug, Clone, Copy)]
pub enum Upper<'a, T> {
    /// The same for all entries.
    All(f64),
    /// One for each value of the axis, the same for all rows.
    Row(&'a [T]),
    /// One for each entry: those of a row lie one after the other, however the scores lie.
    Each(&'a [T]),
}

/// The Euclidean projection of every row of x/T onto `{0 ≤ p ≤ u, Σ p = total}`.
///
/// # Errors
/// [`Error::Domain`] unless every bound is at least 0 (+∞ is none) and the bounds of a row hold its total; the
/// temperature is finite and positive, and its product with a total at most the largest number over 4 n; the totals are
/// as for [`super::project_simplex()`]. [`Error::Empty`] and [`Error::Length`] if the shapes do not fit;
/// [`Error::Interrupted`].
pub fn capped_simplex<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    upper: Upper<'_, E::Compute>,
    total: PerRow<'_>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    scores.check()?;
    let shape = scores.shape;
    Project::new::<E>(scores, total)?; // checks the totals
    inverse_temperature::<E::Compute>(temperature)?;
    let largest = E::Compute::MAX.to_f64() / (4.0 * shape.n as f64);
    for row in 0..distinct(total) {
        if total.of(row) * temperature > largest {
            return Err(Error::Domain {
                argument: "temperature",
                domain: "so small that its product with a row of the total can be added up",
                value: temperature,
            });
        }
    }
    check_upper(run, shape, upper, Some(total))?;
    let map = CappedSimplex {
        upper,
        total,
        temperature,
    };
    map_rows(run, scores, out, &map)
}

/// `min(u, e^{x/T}/Z)` of every row, Z such that it sums to 1.
///
/// # Errors
/// [`Error::Domain`] unless the temperature is finite and positive, every bound at least 0 (+∞ is none), and the bounds
/// of a row hold 1; else as [`capped_simplex`].
pub fn csoftmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    upper: Upper<'_, E::Compute>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    scores.check()?;
    let inverse = inverse_temperature(temperature)?;
    check_upper(run, scores.shape, upper, Some(PerRow::All(1.0)))?;
    map_rows(run, scores, out, &Csoftmax { upper, inverse })
}

/// `J g` of [`capped_simplex`] at its result p: the mean of g over the entries between their bounds is taken from those,
/// the others get 0.
///
/// # Errors
/// As [`capped_simplex`].
pub fn capped_simplex_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    upper: Upper<'_, E::Compute>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let kernel = &E::Compute::kernels().maps.bounded.capped_vjp;
    vjp(run, shape, (p, g), upper, temperature, out, kernel)
}

/// `J g` of [`csoftmax`] at its result p, as [`capped_simplex_vjp`] with a mean that is weighted with p.
///
/// # Errors
/// As [`csoftmax`].
pub fn csoftmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    upper: Upper<'_, E::Compute>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let kernel = &E::Compute::kernels().maps.bounded.csoftmax_vjp;
    vjp(run, shape, (p, g), upper, temperature, out, kernel)
}

fn vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    pair: (&[E], &[E]),
    upper: Upper<'_, E::Compute>,
    temperature: f64,
    out: &mut [E],
    kernel: &BoundedVjp<E::Compute>,
) -> Result<(), Error> {
    shape.check("p", pair.0.len())?;
    let inverse = inverse_temperature(temperature)?;
    check_upper(run, shape, upper, None)?;
    // An entry at its bound is known by being equal to it, as it is stored.
    let stored = |u: &E::Compute| E::narrow(*u).widen();
    let narrows = E::direct(&[]).is_none();
    let mut room = Vec::new();
    let upper = match upper {
        Upper::All(u) => Upper::All(stored(&E::Compute::from_f64(u)).to_f64()),
        Upper::Row(u) if narrows => {
            room.extend(u.iter().map(stored));
            Upper::Row(&room[..])
        }
        Upper::Each(u) if narrows => {
            room.extend(u.iter().map(stored));
            Upper::Each(&room[..])
        }
        upper => upper,
    };
    let kernel = Vjp {
        row: kernel.row,
        long_row: kernel.long_row,
    };
    map_pairs(run, shape, pair, out, &kernel, |row| {
        (upper.of_row(row, shape.n), inverse)
    })
}

/// How many values there are.
fn distinct(values: PerRow<'_>) -> usize {
    match values {
        PerRow::All(_) => 1,
        PerRow::Each(values) => values.len(),
    }
}

/// Checks the number of bounds, each of them, and that they hold the totals, if there are such.
fn check_upper<T: Real>(
    run: &mut Run<'_>,
    shape: Shape,
    upper: Upper<'_, T>,
    total: Option<PerRow<'_>>,
) -> Result<(), Error> {
    const ARGUMENT: &str = "upper";
    let (n, rows) = (shape.n, shape.count());
    let (values, expected) = match upper {
        Upper::All(_) => (&[][..], 0),
        Upper::Row(u) => (u, n),
        Upper::Each(u) => (u, shape.len()),
    };
    if values.len() != expected {
        return Err(Error::Length {
            argument: ARGUMENT,
            expected,
            found: values.len(),
        });
    }
    let least = |u: f64| Error::Domain {
        argument: ARGUMENT,
        domain: "at least 0",
        value: u,
    };
    let level = run.level;
    // The sum of the bounds of every row, or of the one that stands for all.
    let sums = match upper {
        Upper::All(u) if u >= 0.0 => vec![T::from_f64(u).to_f64() * n as f64],
        Upper::All(u) => return Err(least(u)),
        Upper::Row(_) | Upper::Each(_) => {
            let count = values.len() / n;
            let (tasks, rows_of) = tasks(Shape::rows(count, n));
            let found = run.collect(tasks, |task| {
                let mut sums = Vec::new();
                for row in rows_of(task) {
                    let u = &values[row * n..(row + 1) * n];
                    let sum = dispatch!(level, simd => sum_of_bounds(simd, u));
                    sums.push(sum.map_err(|u| least(u.to_f64()))?.to_f64());
                }
                Ok(sums)
            })?;
            found.into_iter().collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    let Some(total) = total else {
        return Ok(());
    };
    for row in 0..sums.len().max(distinct(total)).min(rows) {
        let sum = sums[row.min(sums.len() - 1)];
        if sum < less_rounding(T::from_f64(total.of(row)), n).to_f64() {
            return Err(Error::Domain {
                argument: ARGUMENT,
                domain: "large enough in sum to hold the total",
                value: sum,
            });
        }
    }
    Ok(())
}

/// The sum of bounds, each of them so small that all can be added up; or one that is none.
#[simd]
fn sum_of_bounds<S: Simd, T: Real>(simd: S, u: &[T]) -> Result<T, T> {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let most = T::Stripe::<S>::splat(simd, T::from_f64(T::MAX.to_f64() / (4.0 * u.len() as f64)));
    let mut sum = Sum::<T, S>::new(simd);
    let mut well = zero.simd_eq(zero);
    for group in u.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = zero;
        for stripe in group.chunks(T::LANES) {
            let u = load_padded::<T, S>(simd, stripe, T::ZERO);
            well &= u.simd_ge(zero);
            partial += u.min(most);
        }
        sum.add(partial);
    }
    if well.all_true() {
        return Ok(sum.total());
    }
    let bad = u.iter().find(|&&u| u < T::ZERO || u.is_nan());
    bad.map_or(Ok(sum.total()), |&u| Err(u))
}

/// What n bounds have to hold at least, their sum and the total being rounded.
fn less_rounding<T: Real>(total: T, n: usize) -> T {
    total - total * T::EPSILON * T::from_f64(n as f64)
}

impl<'a, T: Real> Upper<'a, T> {
    /// The bounds of a row.
    fn of_row(self, row: usize, n: usize) -> Caps<'a, T> {
        match self {
            Upper::All(u) => Caps::Same(T::from_f64(u)),
            Upper::Row(u) => Caps::Own(u),
            Upper::Each(u) => Caps::Own(&u[row * n..(row + 1) * n]),
        }
    }

    /// The bounds of the rows from the first on.
    fn rows_from(self, first: usize, n: usize) -> Self {
        match self {
            Upper::Each(u) => Upper::Each(&u[first * n..]),
            upper => upper,
        }
    }
}

/// The bounds of a row.
#[derive(Clone, Copy)]
pub(super) enum Caps<'a, T> {
    /// One for all values.
    Same(T),
    /// One for each.
    Own(&'a [T]),
}

/// The kernels for values of type T.
pub(crate) struct Kernels<T> {
    capped: BoundedMap<T, f64>,
    csoftmax: BoundedMap<T, T>,
    capped_vjp: BoundedVjp<T>,
    csoftmax_vjp: BoundedVjp<T>,
}

/// A map with its bounds, its total, and P: a temperature, or its inverse.
struct BoundedMap<T, P> {
    rows: Rows<T, P>,
    long_row: LongRow<T, P>,
}

type Rows<T, P> = fn(Level, (Upper<'_, T>, f64, P), usize, &[T], &mut [T], &mut Vec<T>);
type LongRow<T, P> = fn(&mut Run<'_>, (Caps<'_, T>, f64, P), &[T], &mut [T]) -> Result<(), Error>;

/// The product of a map's Jacobian with a row, by its bounds and the inverse of the temperature.
struct BoundedVjp<T> {
    row: VjpRow<T>,
    long_row: VjpLongRow<T>,
}

type VjpRow<T> = fn(Level, (Caps<'_, T>, T), &[T], &[T], &mut [T]);
type VjpLongRow<T> = fn(&mut Run<'_>, (Caps<'_, T>, T), &[T], &[T], &mut [T]) -> Result<(), Error>;

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        capped: BoundedMap {
            rows: capped_rows,
            long_row: capped_long_row,
        },
        csoftmax: BoundedMap {
            rows: csoftmax_rows,
            long_row: csoftmax_long_row,
        },
        capped_vjp: BoundedVjp {
            row: vjp_row::<T, false>,
            long_row: vjp_long_row::<T, false>,
        },
        csoftmax_vjp: BoundedVjp {
            row: vjp_row::<T, true>,
            long_row: vjp_long_row::<T, true>,
        },
    };
}

struct CappedSimplex<'a, T> {
    upper: Upper<'a, T>,
    total: PerRow<'a>,
    temperature: f64,
}

impl<T: Compiled> RowMap<T> for CappedSimplex<'_, T> {
    const EXCLUDED: T = T::ZERO;

    fn rows(
        &self,
        level: Level,
        first: usize,
        n: usize,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) {
        let rows = T::kernels().maps.bounded.capped.rows;
        self.total.runs(first..first + x.len() / n, |run, total| {
            let at = (run.start - first) * n..(run.end - first) * n;
            let upper = self.upper.rows_from(run.start, n);
            let parameters = (upper, total, self.temperature);
            rows(level, parameters, n, &x[at.clone()], &mut y[at], kernel);
        });
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let caps = self.upper.of_row(row, x.len());
        let parameters = (caps, self.total.of(row), self.temperature);
        (T::kernels().maps.bounded.capped.long_row)(run, parameters, x, y)
    }
}

struct Csoftmax<'a, T> {
    upper: Upper<'a, T>,
    inverse: T,
}

impl<T: Compiled> RowMap<T> for Csoftmax<'_, T> {
    const EXCLUDED: T = T::ZERO;

    fn rows(
        &self,
        level: Level,
        first: usize,
        n: usize,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) {
        let parameters = (self.upper.rows_from(first, n), 1.0, self.inverse);
        (T::kernels().maps.bounded.csoftmax.rows)(level, parameters, n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let parameters = (self.upper.of_row(row, x.len()), 1.0, self.inverse);
        (T::kernels().maps.bounded.csoftmax.long_row)(run, parameters, x, y)
    }
}

/// Bounds as the kernels read them, none above the total.
trait Bounds<T: Real>: Copy + Sync {
    /// Whether each value has its own.
    const OWN: bool;
    /// What [`Bounds::of`] gives.
    type Of<'a>: Bounds<T>;
    /// The bounds of the stripe of values that begins at `start`; 0 where there is none.
    fn stripe<S: Simd>(self, simd: S, start: usize) -> T::Stripe<S>;
    /// The bounds of the register of values that begins at `start`.
    fn register<S: Simd>(self, simd: S, start: usize) -> T::Native<S>;
    /// The same bounds, none above `most`.
    fn at_most(self, most: T) -> Self;
    /// The bounds of a part of the values.
    fn part(self, at: Range<usize>) -> Self;
    /// The bounds of other values, which are these if each value has its own.
    fn of(self, own: &[T]) -> Self::Of<'_>;
    /// The bound of a value.
    fn get(self, index: usize) -> T;
}

#[derive(Clone, Copy)]
struct Same<T> {
    value: T,
    most: T,
}

impl<T: Real> Bounds<T> for Same<T> {
    const OWN: bool = false;
    type Of<'a> = Self;

    #[inline(always)]
    fn stripe<S: Simd>(self, simd: S, _: usize) -> T::Stripe<S> {
        T::Stripe::<S>::splat(simd, self.get(0))
    }
    #[inline(always)]
    fn register<S: Simd>(self, simd: S, _: usize) -> T::Native<S> {
        T::Native::<S>::splat(simd, self.get(0))
    }
    fn at_most(self, most: T) -> Self {
        Self { most, ..self }
    }
    fn part(self, _: Range<usize>) -> Self {
        self
    }
    #[inline(always)]
    fn of(self, _: &[T]) -> Self {
        self
    }
    #[inline(always)]
    fn get(self, _: usize) -> T {
        if self.value < self.most {
            self.value
        } else {
            self.most
        }
    }
}

#[derive(Clone, Copy)]
struct Own<'a, T> {
    values: &'a [T],
    most: T,
}

impl<T: Real> Bounds<T> for Own<'_, T> {
    const OWN: bool = true;
    type Of<'a> = Own<'a, T>;

    #[inline(always)]
    fn stripe<S: Simd>(self, simd: S, start: usize) -> T::Stripe<S> {
        load_padded::<T, S>(simd, &self.values[start..], T::ZERO)
            .min(T::Stripe::<S>::splat(simd, self.most))
    }
    #[inline(always)]
    fn register<S: Simd>(self, simd: S, start: usize) -> T::Native<S> {
        let width = T::Native::<S>::LEN;
        T::Native::<S>::from_slice(simd, &self.values[start..start + width])
            .min(T::Native::<S>::splat(simd, self.most))
    }
    fn at_most(self, most: T) -> Self {
        Self { most, ..self }
    }
    fn part(self, at: Range<usize>) -> Self {
        Self {
            values: &self.values[at],
            ..self
        }
    }
    #[inline(always)]
    fn of(self, own: &[T]) -> Own<'_, T> {
        Own {
            values: own,
            most: self.most,
        }
    }
    fn get(self, index: usize) -> T {
        let value = self.values[index];
        if value < self.most { value } else { self.most }
    }
}

/// Evaluates an expression with the bounds of a row, limited to the total, in their type.
macro_rules! with_bounds {
    ($caps:expr, $most:expr, |$bounds:ident| $body:expr) => {
        match $caps {
            Caps::Same(value) => {
                let $bounds = Same { value, most: $most };
                $body
            }
            Caps::Own(values) => {
                let $bounds = Own {
                    values,
                    most: $most,
                };
                $body
            }
        }
    };
}

/// One of the two maps, of one row.
trait BoundedRow<T: Real>: Copy {
    fn total(self) -> T;
    fn with_total(self, total: T) -> Self;
    /// Maps a row, unless there is a NaN, no finite maximum, or not room enough for the total above -∞.
    fn row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) -> Option<()>;

    /// Maps any row.
    fn any_row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) {
        if self.row(level, bounds, x, y, kernel).is_none() {
            self.extreme_row(level, bounds, x, y, kernel);
        }
    }

    /// Maps a row that [`BoundedRow::row`] cannot.
    #[cold]
    fn extreme_row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) {
        let infinite = |x: &T| *x == T::INFINITY;
        let mut room = 0.0;
        for (k, _) in x.iter().enumerate().filter(|(_, x)| infinite(x)) {
            room += bounds.get(k).to_f64();
        }
        let done = if x.iter().any(|x| x.is_nan()) || !x.iter().any(infinite) {
            None
        } else if room >= less_rounding(self.total(), x.len()).to_f64() {
            let level_out = |x: &T| {
                if infinite(x) {
                    T::ZERO
                } else {
                    T::NEG_INFINITY
                }
            };
            let z: Vec<T> = x.iter().map(level_out).collect();
            self.row(level, bounds, &z, y, kernel)
        } else {
            let rest = self.total() - T::from_f64(room);
            let finite = |x: &T| if infinite(x) { T::NEG_INFINITY } else { *x };
            let z: Vec<T> = x.iter().map(finite).collect();
            let done = self
                .with_total(rest)
                .row(level, bounds.at_most(rest), &z, y, kernel);
            for (k, y) in y.iter_mut().enumerate().filter(|(k, _)| infinite(&x[*k])) {
                *y = bounds.get(k);
            }
            done
        };
        if done.is_none() {
            y.fill(T::NAN);
        }
    }
}

// The projection.

/// `p = min(u, [x - t]₊/T)`, `Σ p = total`.
#[derive(Clone, Copy)]
struct Capped<T> {
    total: T,
    inverse: T,
    temperature: T,
}

/// Rows of at most this many values go a lane each, whole.
const TILED: usize = 64;

/// Rows of at most this many values go a lane each, once they are filtered.
const GROUPED: usize = 512;

/// How many values of a row of n are looked at first: whole stripes, and at least one.
fn sample_len(n: usize) -> usize {
    let len = if n < 512 {
        n / 4
    } else {
        (n / 32).clamp(128, 4096)
    };
    (len & !15).max(16)
}

/// How far Σ p may be from the total, relatively, before the terms are exact.
const ROUGH: f64 = 1.0 / 128.0;

/// Steps before the terms are exact.
const ROUGH_STEPS: usize = 12;

/// The search takes about three steps then; this bounds it, where the scores differ by hundreds of powers of two.
const MOST_STEPS: usize = 10_000;

impl<T: Real> Capped<T> {
    fn new(total: f64, temperature: f64) -> Self {
        // A distance of total · T has to show its digits; below, no result changes.
        let least = T::MIN_POSITIVE.to_f64();
        let temperature = temperature.max(least).max(least / total);
        Self {
            total: T::from_f64(total),
            inverse: T::from_f64(1.0 / temperature),
            temperature: T::from_f64(temperature),
        }
    }

    /// What counts as no distance of Σ p from the total.
    fn tolerance(self) -> T {
        T::TWO * T::EPSILON * self.total
    }

    /// p, and 1 where it lies between its bounds. A NaN stays.
    #[inline(always)]
    fn terms<S: Simd>(
        self,
        t: &Pair<T, S>,
        x: T::Stripe<S>,
        u: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let d = t.below(x) * self.inverse;
        let (out, full) = (d.simd_le(zero), d.simd_ge(u));
        let p = full.select(u, out.select(zero, d));
        (p, (out | full).select(zero, one))
    }

    /// `(Σ p, the number between bounds)` over columns of a tile, or over stripes of one row, which are then folded.
    #[inline(always)]
    fn sums<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        t: &Pair<T, S>,
        x: &[T],
        bounds: B,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut sum = Sum::<T, S>::new(simd);
        let mut count = zero;
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (g, group) in x.chunks(group).enumerate() {
            let mut partial = zero;
            for (i, stripe) in group.chunks_exact(T::LANES).enumerate() {
                let x = T::Stripe::<S>::from_slice(simd, stripe);
                let start = (g * Sum::<T, S>::GROUP + i) * T::LANES;
                let (p, free) = self.terms(t, x, bounds.stripe(simd, start));
                partial += p;
                count += free;
            }
            sum.add(partial);
        }
        if FOLD {
            let sum = T::Stripe::<S>::splat(simd, sum.total());
            (sum, T::Stripe::<S>::splat(simd, T::fold_sum(count)))
        } else {
            (sum.lanes(), count)
        }
    }

    /// Σ p over columns of a tile, or over stripes of one row, within their rounding; a NaN may not show.
    #[inline(always)]
    fn rough_sum<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        t: &Pair<T, S>,
        x: &[T],
        bounds: B,
    ) -> T::Stripe<S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut sum = zero;
        for (i, stripe) in x.chunks_exact(T::LANES).enumerate() {
            let d = t.below(T::Stripe::<S>::from_slice(simd, stripe)) * self.inverse;
            sum += d.max(zero).min(bounds.stripe(simd, i * T::LANES));
        }
        if FOLD {
            T::Stripe::<S>::splat(simd, T::fold_sum(sum))
        } else {
            sum
        }
    }

    /// Narrows an interval by regula falsi until Σ p is the total within a tolerance, in every lane or of one row; with
    /// how far it was off.
    ///
    /// A position is a distance from a score here, so that a step is a single addition.
    #[inline(always)]
    fn approach<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        interval: Interval<T, S>,
        (total, tolerance): (T::Stripe<S>, T::Stripe<S>),
    ) -> (Interval<T, S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let base = interval.at.high;
        let mut low = (interval.low.high - base) + interval.low.low;
        let mut high = (interval.high.high - base) + interval.high.low;
        let mut at = interval.at.low;
        let (mut low_off, mut high_off) = (interval.low_off, interval.high_off);
        let (mut off, mut side) = (zero, zero);
        let mut reach = total * self.temperature;
        let mut open = interval.open;
        for step in 0..ROUGH_STEPS {
            let t = Pair {
                high: base,
                low: at,
            };
            let now = self.rough_sum::<S, B, FOLD>(simd, &t, x, bounds) - total;
            let was_open = open.simd_gt(zero);
            off = was_open.select(now, off);
            let going = was_open & now.abs().simd_gt(tolerance);
            open = going.select(one, zero);
            if !going.any_true() {
                break;
            }
            let below = now.simd_gt(zero);
            let (rises, falls) = (going & below, going & !below);
            // Illinois: an end that stays for the second time counts half.
            high_off = (rises & side.simd_gt(zero)).select(high_off * T::HALF, high_off);
            low_off = (falls & side.simd_lt(zero)).select(low_off * T::HALF, low_off);
            (low, low_off) = (rises.select(at, low), rises.select(now, low_off));
            (high, high_off) = (falls.select(at, high), falls.select(now, high_off));
            side = below.select(one, -one);

            let known = low_off.simd_lt(T::INFINITY);
            let width = (high - low).min(one * (T::MAX * T::HALF));
            let share = if step % 4 == 3 {
                one * T::HALF
            } else {
                low_off / (low_off - high_off)
            };
            let down = at - reach.min(width);
            reach = known.select(reach, reach * T::from_f64(4.0));
            let next = known.select(low + width * share, down);
            at = going.select(next, at);
        }
        // The ends, apart from where rounding may have put them.
        let most = most_of::<T, S, B>(simd, x.len(), bounds);
        let most = if FOLD { one * T::fold_max(most) } else { most };
        let rounding = most * (self.temperature * T::EPSILON * T::from_f64(8.0));
        let (low_rounding, high_rounding) = (
            rounding + low.abs() * (T::EPSILON * T::from_f64(8.0)),
            rounding + high.abs() * (T::EPSILON * T::from_f64(8.0)),
        );
        let base = Pair::new(base);
        let narrowed = Interval {
            low: choose(
                low_off.simd_lt(interval.low_off),
                base.add(low - low_rounding),
                interval.low,
            ),
            high: choose(
                high.simd_lt(interval.high.high - base.high),
                base.add(high + high_rounding),
                interval.high,
            ),
            low_off,
            high_off,
            at: base.add(at),
            open: interval.open,
        };
        (narrowed, off)
    }

    /// The position where Σ p is the total within the tolerance, in every lane that is open, or of one row.
    #[inline(always)]
    fn search<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        interval: Interval<T, S>,
        (total, tolerance): (T::Stripe<S>, T::Stripe<S>),
    ) -> Solution<T, S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        let Interval {
            mut low,
            mut high,
            mut low_off,
            mut high_off,
            mut at,
            mut open,
        } = interval;
        let mut off = infinity;
        let mut reach = total * self.temperature;
        let mut side = zero;
        for step in 0..MOST_STEPS {
            let (sum, free) = self.sums::<S, B, FOLD>(simd, &at, x, bounds);
            let now = sum - total;
            let was_open = open.simd_gt(zero);
            let halved = now.abs().simd_le(off.abs() * T::HALF);
            off = if step == 0 {
                now
            } else {
                was_open.select(now, off)
            };
            let going = was_open & now.abs().simd_gt(tolerance); // a NaN ends it
            if !going.any_true() {
                break;
            }
            let below = now.simd_gt(zero);
            let (rises, falls) = (going & below, going & !below);
            // Illinois: an end that stays for the second time counts half.
            high_off = (rises & side.simd_gt(zero)).select(high_off * T::HALF, high_off);
            low_off = (falls & side.simd_lt(zero)).select(low_off * T::HALF, low_off);
            low = choose(rises, at, low);
            high = choose(falls, at, high);
            low_off = rises.select(now, low_off);
            high_off = falls.select(now, high_off);
            side = below.select(one, zero - one);

            let width = (high.high - low.high) + (high.low - low.low);
            let width = width.min(one * (T::MAX * T::HALF));
            let newton = now * self.temperature / free;
            let known = low_off.simd_lt(infinity);
            let share = low_off / (low_off - high_off);
            let falsi = below.select(width * share, zero - width * (one - share));
            let middle = below.select(width * T::HALF, zero - width * T::HALF);
            let between = if step % 4 == 3 { middle } else { falsi };
            let by = (halved & newton.abs().simd_lt(width)).select(newton, between);
            let down = zero - reach.min(newton.abs()).min(width);
            reach = known.select(reach, reach * T::from_f64(4.0));
            let next = at.add(known.select(by, down));
            // Where nothing moves, halve; where that moves nothing either, the ends have met.
            let halfway = at.add(middle);
            let stays = equal(next, at);
            let next = choose(stays, halfway, next);
            let moves = going & !(stays & equal(halfway, at));
            open = moves.select(one, zero);
            at = choose(moves, next, at);
        }
        Solution { at, off }
    }

    /// The position where Σ p is the total, in every lane that is open, or of one row.
    #[inline(always)]
    fn solve<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        interval: Interval<T, S>,
    ) -> Solution<T, S> {
        let total = T::Stripe::<S>::splat(simd, self.total);
        let rough = (total, total * T::from_f64(ROUGH));
        let (near, _) = self.approach::<S, B, FOLD>(simd, x, bounds, interval, rough);
        let exact = (total, T::Stripe::<S>::splat(simd, self.tolerance()));
        self.search::<S, B, FOLD>(simd, x, bounds, near, exact)
    }

    /// Where to begin with a row: from a sample, for which there is room, so that Σ p is mostly a little more than the
    /// total.
    #[simd]
    fn estimate<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        x: &[T],
        bounds: B,
        sample: &mut [T],
        caps: &mut [T],
    ) -> Option<Position<T>> {
        let len = sample_len(x.len());
        let (sample, caps) = (&mut sample[..len], &mut caps[..len]);
        take_sample::<T, S, B>(simd, x, bounds, sample, caps);
        let (at, well) = self.near::<S, _, true>(simd, x.len(), sample, bounds.of(caps));
        well.all_true().then(|| Position::of(at))
    }

    /// The position that samples of rows of n values give, in every lane or of one row, and whether that went well.
    #[inline(always)]
    fn near<S: Simd, B: Bounds<T>, const FOLD: bool>(
        self,
        simd: S,
        n: usize,
        sample: &[T],
        bounds: B,
    ) -> (Pair<T, S>, Mask<T, S>) {
        let (mut max, mut min) = extremes::<T, S>(simd, sample);
        let mut most = most_of::<T, S, B>(simd, sample.len(), bounds);
        let room = self.room::<S, B>(simd, sample, bounds);
        let mut len = sample.len() / T::LANES;
        let room = if FOLD {
            len = sample.len();
            max = T::Stripe::<S>::splat(simd, T::fold_max(max));
            min = -T::Stripe::<S>::splat(simd, T::fold_max(-min));
            most = T::Stripe::<S>::splat(simd, T::fold_max(most));
            T::Stripe::<S>::splat(simd, room.total())
        } else {
            room.lanes()
        };
        let whole = T::Stripe::<S>::splat(simd, self.total);
        // The sample's part of the total, and twice what it varies by if entries reach their bounds. With the total
        // itself, the position is below the solution of the row.
        let part = whole * T::from_f64(len as f64 / n as f64);
        let margin = (part * most).sqrt() * T::TWO;
        let wanted = whole.min(part + margin);
        let tolerance = wanted.min(margin) * T::from_f64(0.25);
        let aim = wanted + tolerance;
        let holds = max.abs().simd_lt(T::INFINITY) & room.simd_gt(aim + tolerance);
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let mut interval = self.interval(aim, max, min, most);
        interval.open = holds.select(one, zero);
        let (found, off) =
            self.approach::<S, _, FOLD>(simd, sample, bounds, interval, (aim, tolerance));
        (found.at, holds & off.abs().simd_le(tolerance))
    }

    /// What the bounds of the values above -∞ hold together.
    #[inline(always)]
    fn room<S: Simd, B: Bounds<T>>(self, simd: S, x: &[T], bounds: B) -> Sum<T, S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut room = Sum::<T, S>::new(simd);
        for (i, stripe) in x.chunks_exact(T::LANES).enumerate() {
            let counts = T::Stripe::<S>::from_slice(simd, stripe).simd_gt(T::NEG_INFINITY);
            room.add(counts.select(bounds.stripe(simd, i * T::LANES), zero));
        }
        room
    }

    /// An interval that holds the solution: everything is full at its lowest position, and nothing has mass at the highest.
    #[inline(always)]
    fn interval<S: Simd>(
        self,
        total: T::Stripe<S>,
        max: T::Stripe<S>,
        min: T::Stripe<S>,
        most: T::Stripe<S>,
    ) -> Interval<T, S> {
        let simd = max.token();
        let reach = most * (self.temperature * (T::ONE + T::EPSILON * T::from_f64(4.0)));
        let low = Pair::new(min).add(-reach);
        let most = T::Stripe::<S>::splat(simd, T::MAX);
        let width = most.min((max - low.high) - low.low);
        Interval {
            low,
            high: Pair::new(max),
            low_off: T::Stripe::<S>::splat(simd, T::INFINITY),
            high_off: -total,
            at: Pair {
                high: max,
                low: -width.min(total * self.temperature),
            },
            open: T::Stripe::<S>::splat(simd, T::ONE),
        }
    }

    /// The solution of the values that a filter has kept of a row, in whole stripes; nothing if there is none, or if it
    /// lies below the position that the filter went by.
    #[simd]
    fn settle<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        from: Option<Position<T>>,
        x: &[T],
        bounds: B,
    ) -> Option<Position<T>> {
        let (max, min) = extremes::<T, S>(simd, x);
        let (max, min) = (T::fold_max(max), -T::fold_max(-min));
        if !max.is_finite() {
            return None;
        }
        let most = T::fold_max(most_of::<T, S, B>(simd, x.len(), bounds));
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let total = one * self.total;
        let mut interval = self.interval(total, one * max, one * min, one * most);
        if let Some(from) = from {
            interval.low = from.splat(simd);
            interval.at = interval.low;
        } else {
            let room = self.room(simd, x, bounds).total();
            if room.is_nan() || room < less_rounding(self.total, x.len()) {
                return None;
            }
            if room <= self.total + self.tolerance() {
                let lowest = interval.low;
                let (sum, _) = self.sums::<S, B, true>(simd, &lowest, x, bounds);
                return (!sum[0].is_nan()).then(|| Position::of(lowest));
            }
        }
        let found = self.solve::<S, B, true>(simd, x, bounds, interval);
        let well = if from.is_some() {
            found.off[0] >= -self.tolerance()
        } else {
            !found.off[0].is_nan()
        };
        well.then(|| Position::of(found.at))
    }

    /// The solution of a row.
    #[simd]
    fn locate<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        bounds: B,
        x: &[T],
        kernel: &mut [T],
    ) -> Option<Position<T>> {
        let (kept, caps) = kernel.split_at_mut(kernel.len() / 2);
        if x.len() > TILED
            && let Some(from) = self.estimate(simd, x, bounds, kept, caps)
        {
            let len = keep::<T, S, B>(simd, x, bounds, below(from), kept, caps);
            let bounds = bounds.of(&caps[..len]);
            if let Some(found) = self.settle(simd, Some(from), &kept[..len], bounds) {
                return Some(found);
            }
        }
        let len = keep::<T, S, B>(simd, x, bounds, T::NEG_INFINITY, kept, caps);
        self.settle(simd, None, &kept[..len], bounds.of(&caps[..len]))
    }

    /// Writes a row, its solution being known.
    #[simd]
    fn write<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        position: Position<T>,
        bounds: B,
        x: &[T],
        y: &mut [T],
    ) {
        let at = position.splat(simd);
        let whole = whole_stripes(x).0.len();
        let (stripes, rest) = x.split_at(whole);
        let (y_stripes, y_rest) = y.split_at_mut(whole);
        for (i, (x, y)) in stripes
            .chunks_exact(T::LANES)
            .zip(y_stripes.chunks_exact_mut(T::LANES))
            .enumerate()
        {
            let x = T::Stripe::<S>::from_slice(simd, x);
            let u = bounds.stripe(simd, i * T::LANES);
            self.terms(&at, x, u).0.store_slice(y);
        }
        if !rest.is_empty() {
            let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
            let u = bounds.stripe(simd, whole);
            store_part::<T, S>(self.terms(&at, x, u).0, y_rest);
        }
    }
}

impl<T: Real> BoundedRow<T> for Capped<T> {
    fn total(self) -> T {
        self.total
    }

    fn with_total(self, total: T) -> Self {
        Self { total, ..self }
    }

    fn row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) -> Option<()> {
        kernel.resize(2 * (x.len() + T::LANES), T::ZERO);
        let position = dispatch!(level, simd => self.locate(simd, bounds, x, kernel))?;
        dispatch!(level, simd => self.write(simd, position, bounds, x, y));
        Some(())
    }
}

/// A mask of a stripe.
type Mask<T, S> = <<T as Real>::Stripe<S> as SimdBase<S>>::Mask;

/// `a` in the lanes of the mask, `b` in the others.
#[inline(always)]
fn choose<T: Real, S: Simd>(mask: Mask<T, S>, a: Pair<T, S>, b: Pair<T, S>) -> Pair<T, S> {
    Pair {
        high: mask.select(a.high, b.high),
        low: mask.select(a.low, b.low),
    }
}

#[inline(always)]
fn equal<T: Real, S: Simd>(a: Pair<T, S>, b: Pair<T, S>) -> Mask<T, S> {
    a.high.simd_eq(b.high) & a.low.simd_eq(b.low)
}

/// A score at or below the position, whatever rounding does.
fn below<T: Real>(position: Position<T>) -> T {
    let at = position.high + position.low;
    at - at.abs() * (T::TWO * T::EPSILON)
}

/// Where [`Capped::search`] looks.
struct Interval<T: Real, S: Simd> {
    /// Where Σ p is not less than the total.
    low: Pair<T, S>,
    /// Where Σ p is not more than the total.
    high: Pair<T, S>,
    /// How far Σ p is from the total at the low end; infinite if that is not known.
    low_off: T::Stripe<S>,
    /// And at the high end.
    high_off: T::Stripe<S>,
    /// Where to begin.
    at: Pair<T, S>,
    /// 1 in the lanes that are to be searched.
    open: T::Stripe<S>,
}

/// What [`Capped::search`] has found: where, and how far Σ p is from the total there.
struct Solution<T: Real, S: Simd> {
    at: Pair<T, S>,
    off: T::Stripe<S>,
}

/// The largest of the bounds of whole stripes of values, in every lane.
#[inline(always)]
fn most_of<T: Real, S: Simd, B: Bounds<T>>(simd: S, len: usize, bounds: B) -> T::Stripe<S> {
    if !B::OWN {
        return bounds.stripe(simd, 0);
    }
    let mut most = T::Stripe::<S>::splat(simd, T::ZERO);
    for start in (0..len).step_by(T::LANES) {
        most = most.max(bounds.stripe(simd, start));
    }
    most
}

/// Takes stripes that lie evenly in a row, with their bounds if each value has its own.
#[inline(always)]
fn take_sample<T: Real, S: Simd, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    sample: &mut [T],
    caps: &mut [T],
) {
    let (stripes, count) = (x.len() / T::LANES, sample.len() / T::LANES);
    for (j, to) in sample.chunks_exact_mut(T::LANES).enumerate() {
        let from = j * stripes / count * T::LANES;
        to.copy_from_slice(&x[from..from + T::LANES]);
        if B::OWN {
            bounds
                .stripe(simd, from)
                .store_slice(&mut caps[j * T::LANES..][..T::LANES]);
        }
    }
}

/// The largest value in every lane, and the smallest above -∞.
#[inline(always)]
fn extremes<T: Real, S: Simd>(simd: S, x: &[T]) -> (T::Stripe<S>, T::Stripe<S>) {
    let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
    let (mut max, mut min) = (-infinity, infinity);
    for stripe in x.chunks_exact(T::LANES) {
        let x = T::Stripe::<S>::from_slice(simd, stripe);
        max = max.max(x);
        min = min.min(x.simd_eq(T::NEG_INFINITY).select(infinity, x));
    }
    (max, min)
}

/// [`filter_with_bounds`]; fills up the last stripe with what never counts, and returns the length of all stripes.
#[inline(always)]
fn keep<T: Real, S: Simd, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    lower: T,
    to: &mut [T],
    caps: &mut [T],
) -> usize {
    let count = filter_with_bounds::<T, S, B>(simd, x, bounds, lower, to, caps);
    let len = count.next_multiple_of(T::LANES);
    to[count..len].fill(T::NEG_INFINITY);
    caps[count..len].fill(T::ZERO);
    len
}

/// [`filter`], also of the bounds if each value has its own.
#[inline(always)]
fn filter_with_bounds<T: Real, S: Simd, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    lower: T,
    to: &mut [T],
    caps: &mut [T],
) -> usize {
    if !B::OWN {
        return filter::<T, S>(simd, x, lower, to);
    }
    let width = T::Native::<S>::LEN;
    let mut count = 0;
    let chunks = x.chunks_exact(width);
    let rest = chunks.remainder();
    for (i, x) in chunks.enumerate() {
        let x = T::Native::<S>::from_slice(simd, x);
        let keep = !x.simd_le(lower);
        x.compress(keep).store_slice(&mut to[count..count + width]);
        bounds
            .register(simd, i * width)
            .compress(keep)
            .store_slice(&mut caps[count..count + width]);
        count += keep.to_bitmask().count_ones() as usize;
    }
    for (i, &v) in (x.len() - rest.len()..).zip(rest) {
        (to[count], caps[count]) = (v, bounds.get(i));
        count += usize::from(v > lower || v.is_nan());
    }
    count
}

fn capped_rows<T: Real>(
    level: Level,
    (upper, total, temperature): (Upper<'_, T>, f64, f64),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let capped = Capped::new(total, temperature);
    if n > GROUPED {
        return each_row(level, capped, upper, n, x, y, kernel);
    }
    let group = n * T::LANES;
    for (index, (x, y)) in x.chunks(group).zip(y.chunks_mut(group)).enumerate() {
        let upper = upper.rows_from(index * T::LANES, n);
        let bounds = upper.of_row(0, n);
        let own = match upper {
            Upper::All(_) => OwnRows(&[], 0),
            Upper::Row(u) => OwnRows(u, 0),
            Upper::Each(u) => OwnRows(u, n),
        };
        let well = with_bounds!(bounds, capped.total, |bounds| if n > TILED {
            kernel.resize(4 * T::LANES * (n + T::LANES), T::ZERO);
            dispatch!(level, simd => capped_group(simd, capped, (bounds, own), n, x, y, kernel))
        } else {
            kernel.resize(2 * group + tile::spare::<T>(n), T::ZERO);
            dispatch!(level, simd => capped_tile(simd, capped, (bounds, own), n, x, y, kernel))
        });
        again(level, capped, upper, (n, well), x, y, kernel);
    }
}

/// Maps the rows of a group that did not go well, by themselves.
fn again<T: Real, M: BoundedRow<T>>(
    level: Level,
    map: M,
    upper: Upper<'_, T>,
    (n, well): (usize, u64),
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    for (row, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
        if well >> row & 1 == 0 {
            with_bounds!(upper.of_row(row, n), map.total(), |bounds| map
                .any_row(level, bounds, x, y, kernel));
        }
    }
}

/// The bounds of the values of some rows, where these have their own, and how far those of two rows lie apart.
#[derive(Clone, Copy)]
struct OwnRows<'a, T>(&'a [T], usize);

impl<'a, T: Real> OwnRows<'a, T> {
    /// Those of a row of n values.
    #[inline(always)]
    fn row(self, row: usize, n: usize) -> &'a [T] {
        let Self(u, stride) = self;
        &u[(row * stride).min(u.len())..(row * stride + n).min(u.len())]
    }

    /// Turns those of `rows` rows into columns.
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, rows: usize, n: usize, columns: &mut [T], spare: &mut [T]) {
        let Self(u, stride) = self;
        if stride > 0 {
            return tile::load(simd, u, rows, n, columns, spare);
        }
        for (column, &u) in columns.chunks_exact_mut(T::LANES).zip(u) {
            column.fill(u);
        }
    }
}

/// Which lanes are set.
#[inline(always)]
fn bits<T: Real, S: Simd>(mask: Mask<T, S>) -> u64 {
    mask.to_bitmask()
}

/// Maps at most `LANES` rows; a bit of the result says whether that went well with a row.
#[simd]
fn capped_tile<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    capped: Capped<T>,
    (bounds, own): (B, OwnRows<'_, T>),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) -> u64 {
    let rows = x.len() / n;
    let (columns, rest) = kernel.split_at_mut(n * T::LANES);
    let (caps, spare) = rest.split_at_mut(columns.len());
    own.load(simd, rows, n, caps, spare);
    let bounds = bounds.of(caps);
    tile::load(simd, x, rows, n, columns, spare);

    let (max, min) = extremes::<T, S>(simd, columns);
    let most = most_of::<T, S, _>(simd, columns.len(), bounds);
    let room = capped.room::<S, _>(simd, columns, bounds).lanes();
    let holds = room.simd_ge(less_rounding(capped.total, n)) & max.abs().simd_lt(T::INFINITY);
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let total = one * capped.total;
    let mut interval = capped.interval(total, max, min, most);
    let full = room.simd_le(capped.total + capped.tolerance());
    interval.at = choose(full, interval.low, interval.at);
    interval.open = (holds & !full).select(one, zero);
    let found = capped.solve::<S, _, false>(simd, columns, bounds, interval);
    for (k, column) in columns.chunks_exact_mut(T::LANES).enumerate() {
        let x = T::Stripe::<S>::from_slice(simd, column);
        let u = bounds.stripe(simd, k * T::LANES);
        capped.terms(&found.at, x, u).0.store_slice(column);
    }
    tile::store(simd, columns, rows, n, y, spare);
    bits::<T, S>(holds & found.off.simd_eq(found.off)) // no NaN among the scores
}

/// As [`capped_tile`], of rows of which only the candidates are turned into columns.
#[simd]
fn capped_group<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    capped: Capped<T>,
    (bounds, own): (B, OwnRows<'_, T>),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) -> u64 {
    let stride = n + T::LANES; // the filter writes whole registers
    let (kept, rest) = kernel.split_at_mut(T::LANES * stride);
    let (caps, rest) = rest.split_at_mut(T::LANES * stride);
    let (columns, cap_columns) = rest.split_at_mut(T::LANES * stride);
    let len = sample_len(n);
    for (row, x) in x.chunks_exact(n).enumerate() {
        let bounds = bounds.of(own.row(row, n));
        let at = row * len..(row + 1) * len;
        take_sample::<T, S, _>(simd, x, bounds, &mut kept[at.clone()], &mut caps[at]);
    }
    kept[x.len() / n * len..T::LANES * len].fill(T::NEG_INFINITY); // lanes without a row
    tile::gather::<T, S>(simd, kept, len, len, columns);
    if B::OWN {
        tile::gather::<T, S>(simd, caps, len, len, cap_columns);
    }
    let (sample, own_bounds) = (&columns[..len * T::LANES], bounds.of(cap_columns));
    let (from, sampled) = capped.near::<S, _, false>(simd, n, sample, own_bounds);

    let mut counts = [0; tile::MOST];
    for (row, x) in x.chunks_exact(n).enumerate() {
        if sampled.test(row) {
            let bounds = bounds.of(own.row(row, n));
            let (kept, caps) = (&mut kept[row * stride..], &mut caps[row * stride..]);
            let lower = below(Position::of_lane(from, row));
            counts[row] = filter_with_bounds::<T, S, _>(simd, x, bounds, lower, kept, caps);
        }
    }
    let width = counts.into_iter().max().unwrap_or(0).max(1);
    for (row, &count) in counts.iter().enumerate().take(T::LANES) {
        kept[row * stride..][count..width].fill(T::NEG_INFINITY);
        if B::OWN {
            caps[row * stride..][count..width].fill(T::ZERO);
        }
    }
    let columns = &mut columns[..width * T::LANES];
    let cap_columns = &mut cap_columns[..width * T::LANES];
    tile::gather::<T, S>(simd, kept, stride, width, columns);
    if B::OWN {
        tile::gather::<T, S>(simd, caps, stride, width, cap_columns);
    }
    let max = tile::max::<T, S>(simd, columns);
    let sampled = sampled & max.abs().simd_lt(T::INFINITY);
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let interval = Interval {
        low: from,
        high: Pair::new(max),
        low_off: one * T::INFINITY,
        high_off: one * -capped.total,
        at: from,
        open: sampled.select(one, zero),
    };
    let found = capped.solve::<S, _, false>(simd, columns, bounds.of(cap_columns), interval);
    let well = sampled & found.off.simd_ge(-capped.tolerance()); // nor a NaN among the scores
    for (row, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
        if well.test(row) {
            let bounds = bounds.of(own.row(row, n));
            capped.write(simd, Position::of_lane(found.at, row), bounds, x, y);
        }
    }
    bits::<T, S>(well)
}

/// Maps row by row.
fn each_row<T: Real, M: BoundedRow<T>>(
    level: Level,
    map: M,
    upper: Upper<'_, T>,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    for (row, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
        with_bounds!(upper.of_row(row, n), map.total(), |bounds| map
            .any_row(level, bounds, x, y, kernel));
    }
}

fn capped_long_row<T: Real>(
    run: &mut Run<'_>,
    (caps, total, temperature): (Caps<'_, T>, f64, f64),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let capped = Capped::new(total, temperature);
    with_bounds!(caps, capped.total, |bounds| {
        let level = run.level;
        let Some(position) = locate_in_long_row(run, capped, bounds, x)? else {
            capped.extreme_row(level, bounds, x, y, &mut Vec::new());
            return Ok(());
        };
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => capped.write(simd, position, bounds, &x[at], y));
        })
    })
}

/// [`Capped::locate`] with the filter shared out.
fn locate_in_long_row<T: Real, B: Bounds<T>>(
    run: &mut Run<'_>,
    capped: Capped<T>,
    bounds: B,
    x: &[T],
) -> Result<Option<Position<T>>, Error> {
    let level = run.level;
    let len = sample_len(x.len());
    let (mut sample, mut caps) = (vec![T::ZERO; len], vec![T::ZERO; len]);
    let estimate =
        dispatch!(level, simd => capped.estimate(simd, x, bounds, &mut sample, &mut caps));
    for from in [estimate, None] {
        let lower = from.map_or(T::NEG_INFINITY, below);
        let kept = of_chunks(run, x.len(), |at| {
            let room = at.len() + T::LANES;
            let (mut kept, mut caps) = (vec![T::ZERO; room], vec![T::ZERO; room]);
            let own = bounds.part(at.clone());
            let len = dispatch!(level, simd => keep_chunk(simd, &x[at], own, lower, &mut kept, &mut caps));
            kept.truncate(len);
            caps.truncate(len);
            (kept, caps)
        })?;
        let (kept, caps): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        let (kept, caps) = (kept.concat(), caps.concat());
        let bounds = bounds.of(&caps);
        let found = dispatch!(level, simd => capped.settle(simd, from, &kept, bounds));
        if found.is_some() || from.is_none() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[simd]
fn keep_chunk<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    x: &[T],
    bounds: B,
    lower: T,
    to: &mut [T],
    caps: &mut [T],
) -> usize {
    keep::<T, S, B>(simd, x, bounds, lower, to, caps)
}

// csoftmax.

/// `p = min(u, s e^x)`, `Σ p = total`.
#[derive(Clone, Copy)]
struct Exponential<T> {
    total: T,
    inverse: T,
}

/// Sums of a row at a scale: the bounds of those that have reached them and their number, and the others' exponentials.
#[derive(Clone, Copy)]
struct Reached<T> {
    bounds: T,
    count: T,
    others: T,
}

/// How much s may grow before the exponentials are taken anew, so that none is lost that counts.
const MOST_GROWTH: f64 = 1024.0;

/// The exponentials of a row, and who works on them.
trait Exponentials<T: Real> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error>;
    /// The largest score whose entry has not reached its bound.
    fn largest(&mut self, scale: T) -> Result<T, Error>;
    /// Takes the exponentials anew, relative to a score; those that have reached their bounds become infinite.
    fn renew(&mut self, scale: T, max: T) -> Result<(), Error>;
}

impl<T: Real> Exponential<T> {
    /// The scale of the exponentials, of which there are n with this sum; nothing if the bounds cannot hold the total.
    fn settle(self, n: usize, sum: T, row: &mut impl Exponentials<T>) -> Result<Option<T>, Error> {
        let larger = |a: T, b: T| if a > b { a } else { b };
        let mut scale = self.total / sum;
        let mut count = T::ZERO;
        loop {
            let now = row.reached(scale)?;
            if now.count == count {
                return Ok(Some(scale)); // it is the scale of these
            }
            count = now.count;
            let rest = self.total - now.bounds;
            if rest <= T::ZERO {
                return Ok(Some(scale)); // what the others have is lost in rounding
            }
            let next = rest / now.others;
            if now.others > T::ZERO && next * T::LIFT_FACTOR <= T::from_f64(MOST_GROWTH) {
                scale = larger(scale, next);
                continue;
            }
            let max = row.largest(scale)?;
            if max == T::NEG_INFINITY {
                let holds = now.bounds >= less_rounding(self.total, n);
                return Ok(holds.then_some(scale));
            }
            row.renew(scale, max)?;
            let others = row.reached(T::MIN_POSITIVE)?.others;
            scale = larger(rest / others, T::MIN_POSITIVE);
            count = -T::ONE;
        }
    }

    #[simd]
    fn reached<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, e: &[T]) -> Reached<T> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let mut others = Sum::<T, S>::new(simd);
        let mut full = Sum::<T, S>::new(simd);
        let mut count = zero;
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (g, group) in e.chunks(group).enumerate() {
            let (mut full_partial, mut partial) = (zero, zero);
            for (i, stripe) in group.chunks(T::LANES).enumerate() {
                let e = load_padded::<T, S>(simd, stripe, T::ZERO);
                let u = bounds.stripe(simd, (g * Sum::<T, S>::GROUP + i) * T::LANES);
                let reached = (e * scale).simd_ge(u);
                partial += reached.select(zero, e);
                full_partial += reached.select(u, zero);
                count += reached.select(one, zero);
            }
            others.add(partial);
            full.add(full_partial);
        }
        Reached {
            bounds: full.total(),
            count: T::fold_sum(count),
            others: others.total(),
        }
    }

    #[simd]
    fn largest<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, x: &[T], e: &[T]) -> T {
        let mut largest = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
        for (i, (x, e)) in x.chunks(T::LANES).zip(e.chunks(T::LANES)).enumerate() {
            let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, e, T::ZERO);
            let reached = (e * scale).simd_ge(bounds.stripe(simd, i * T::LANES));
            let none = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
            largest = largest.max(reached.select(none, x));
        }
        T::fold_max(largest)
    }

    #[simd]
    fn renew<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        bounds: B,
        (scale, max): (T, T),
        x: &[T],
        e: &mut [T],
    ) {
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        for (i, (x, to)) in x.chunks(T::LANES).zip(e.chunks_mut(T::LANES)).enumerate() {
            let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, to, T::ZERO);
            let reached = (e * scale).simd_ge(bounds.stripe(simd, i * T::LANES));
            let e = exp_lifted::<T, S>((x - max) * self.inverse);
            store_part::<T, S>(reached.select(infinity, e), to);
        }
    }

    #[simd]
    fn finish<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, y: &mut [T]) {
        for (i, to) in y.chunks_mut(T::LANES).enumerate() {
            let p = load_padded::<T, S>(simd, to, T::ZERO) * scale;
            let u = bounds.stripe(simd, i * T::LANES);
            store_part::<T, S>(p.simd_ge(u).select(u, p), to);
        }
    }
}

/// The calling thread works on a row.
struct Here<'a, T, B> {
    map: Exponential<T>,
    level: Level,
    bounds: B,
    x: &'a [T],
    e: &'a mut [T],
}

impl<T: Real, B: Bounds<T>> Exponentials<T> for Here<'_, T, B> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error> {
        let Self { map, bounds, e, .. } = self;
        Ok(dispatch!(self.level, simd => map.reached(simd, *bounds, scale, e)))
    }
    fn largest(&mut self, scale: T) -> Result<T, Error> {
        let Self { map, bounds, .. } = *self;
        Ok(dispatch!(self.level, simd => map.largest(simd, bounds, scale, self.x, self.e)))
    }
    fn renew(&mut self, scale: T, max: T) -> Result<(), Error> {
        let Self { map, bounds, .. } = *self;
        dispatch!(self.level, simd => map.renew(simd, bounds, (scale, max), self.x, self.e));
        Ok(())
    }
}

/// A long row is shared out in chunks.
struct SharedOut<'a, 'r, T, B> {
    map: Exponential<T>,
    run: &'a mut Run<'r>,
    bounds: B,
    x: &'a [T],
    e: &'a mut [T],
}

impl<T: Real, B: Bounds<T>> Exponentials<T> for SharedOut<'_, '_, T, B> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error> {
        let (map, bounds, level, e) = (self.map, self.bounds, self.run.level, &*self.e);
        let chunks = of_chunks(self.run, e.len(), |at| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => map.reached(simd, bounds, scale, &e[at]))
        })?;
        Ok(dispatch!(level, simd => Reached::combine(simd, &chunks)))
    }
    fn largest(&mut self, scale: T) -> Result<T, Error> {
        let (map, bounds, level) = (self.map, self.bounds, self.run.level);
        let (x, e) = (self.x, &*self.e);
        let chunks = of_chunks(self.run, x.len(), |at| {
            let bounds = bounds.part(at.clone());
            let (x, e) = (&x[at.clone()], &e[at]);
            dispatch!(level, simd => map.largest(simd, bounds, scale, x, e))
        })?;
        Ok(dispatch!(level, simd => max::<T, _>(simd, &chunks)))
    }
    fn renew(&mut self, scale: T, max: T) -> Result<(), Error> {
        let (map, bounds, level, x) = (self.map, self.bounds, self.run.level, self.x);
        write_chunks(self.run, self.e, |at, e| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => map.renew(simd, bounds, (scale, max), &x[at], e));
        })
    }
}

impl<T: Real> Reached<T> {
    /// Adds up the sums of the chunks of a row.
    #[simd]
    fn combine<S: Simd>(simd: S, chunks: &[Self]) -> Self {
        Self {
            bounds: add_up(simd, chunks.iter().map(|chunk| chunk.bounds)),
            count: add_up(simd, chunks.iter().map(|chunk| chunk.count)),
            others: add_up(simd, chunks.iter().map(|chunk| chunk.others)),
        }
    }
}

impl<T: Real> BoundedRow<T> for Exponential<T> {
    fn total(self) -> T {
        self.total
    }

    fn with_total(self, total: T) -> Self {
        Self { total, ..self }
    }

    fn row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        _: &mut Vec<T>,
    ) -> Option<()> {
        let max = dispatch!(level, simd => max::<T, _>(simd, x));
        if !max.is_finite() {
            return None;
        }
        let sum = dispatch!(level, simd => exponentials(simd, x, y, max, self.inverse));
        if sum.is_nan() {
            return None;
        }
        let mut row = Here {
            map: self,
            level,
            bounds,
            x,
            e: y,
        };
        let scale = self.settle(x.len(), sum, &mut row).ok().flatten()?;
        dispatch!(level, simd => self.finish(simd, bounds, scale, y));
        Some(())
    }
}

fn csoftmax_rows<T: Real>(
    level: Level,
    (upper, total, inverse): (Upper<'_, T>, f64, T),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let total = T::from_f64(total);
    let map = Exponential { total, inverse };
    if n > TILED {
        return each_row(level, map, upper, n, x, y, kernel);
    }
    let group = n * T::LANES;
    for (index, (x, y)) in x.chunks(group).zip(y.chunks_mut(group)).enumerate() {
        let upper = upper.rows_from(index * T::LANES, n);
        let own = match upper {
            Upper::All(_) => OwnRows(&[], 0),
            Upper::Row(u) => OwnRows(u, 0),
            Upper::Each(u) => OwnRows(u, n),
        };
        kernel.resize(2 * group + tile::spare::<T>(n), T::ZERO);
        let well = with_bounds!(upper.of_row(0, n), total, |bounds| {
            dispatch!(level, simd => csoftmax_tile(simd, map, (bounds, own), n, x, y, kernel))
        });
        again(level, map, upper, (n, well), x, y, kernel);
    }
}

/// As [`capped_tile`]. What needs its exponentials taken anew does not go well.
#[simd]
fn csoftmax_tile<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    map: Exponential<T>,
    (bounds, own): (B, OwnRows<'_, T>),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) -> u64 {
    let rows = x.len() / n;
    let (columns, rest) = kernel.split_at_mut(n * T::LANES);
    let (caps, spare) = rest.split_at_mut(columns.len());
    own.load(simd, rows, n, caps, spare);
    let bounds = bounds.of(caps);
    tile::load(simd, x, rows, n, columns, spare);

    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let max = tile::max::<T, S>(simd, columns);
    let mut sum = Sum::<T, S>::new(simd);
    for column in columns.chunks_exact_mut(T::LANES) {
        let z = (T::Stripe::<S>::from_slice(simd, column) - max) * map.inverse;
        let e = exp_lifted::<T, S>(z);
        e.store_slice(column);
        sum.add(e);
    }
    let sum = sum.lanes();
    let mut well = max.abs().simd_lt(T::INFINITY) & sum.simd_eq(sum); // no NaN among the scores
    let mut scale = one * map.total / sum;
    let mut count = zero;
    for _ in 0..=n {
        let (mut others, mut full) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
        let mut now = zero;
        for (k, column) in columns.chunks_exact(T::LANES).enumerate() {
            let e = T::Stripe::<S>::from_slice(simd, column);
            let u = bounds.stripe(simd, k * T::LANES);
            let reached = (e * scale).simd_ge(u);
            others.add(reached.select(zero, e));
            full.add(reached.select(u, zero));
            now += reached.select(one, zero);
        }
        let open = well & !now.simd_eq(count);
        if !open.any_true() {
            break;
        }
        count = open.select(now, count);
        let (others, rest) = (others.lanes(), zero.max(one * map.total - full.lanes()));
        let next = rest / others;
        let most = T::from_f64(MOST_GROWTH) / T::LIFT_FACTOR;
        well &= !open | (others.simd_gt(zero) & next.simd_le(most));
        scale = (open & well).select(scale.max(next), scale);
    }
    for (k, column) in columns.chunks_exact_mut(T::LANES).enumerate() {
        let p = T::Stripe::<S>::from_slice(simd, column) * scale;
        let u = bounds.stripe(simd, k * T::LANES);
        p.simd_ge(u).select(u, p).store_slice(column);
    }
    tile::store(simd, columns, rows, n, y, spare);
    bits::<T, S>(well)
}

fn csoftmax_long_row<T: Real>(
    run: &mut Run<'_>,
    (caps, total, inverse): (Caps<'_, T>, f64, T),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let total = T::from_f64(total);
    let map = Exponential { total, inverse };
    with_bounds!(caps, total, |bounds| {
        if map.long_row(run, bounds, x, y)?.is_none() {
            map.extreme_row(run.level, bounds, x, y, &mut Vec::new());
        }
        Ok(())
    })
}

impl<T: Real> Exponential<T> {
    /// [`BoundedRow::row`], shared out.
    fn long_row<B: Bounds<T>>(
        self,
        run: &mut Run<'_>,
        bounds: B,
        x: &[T],
        y: &mut [T],
    ) -> Result<Option<()>, Error> {
        let level = run.level;
        let max = max_of_long_row(run, x)?;
        if !max.is_finite() {
            return Ok(None);
        }
        let sums = of_written_chunks(
            run,
            y,
            |at, y| dispatch!(level, simd => exponentials(simd, &x[at], y, max, self.inverse)),
        )?;
        let sum = dispatch!(level, simd => add_up(simd, sums.into_iter()));
        if sum.is_nan() {
            return Ok(None);
        }
        let mut row = SharedOut {
            map: self,
            run,
            bounds,
            x,
            e: y,
        };
        let Some(scale) = self.settle(x.len(), sum, &mut row)? else {
            return Ok(None);
        };
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at);
            dispatch!(level, simd => self.finish(simd, bounds, scale, y));
        })?;
        Ok(Some(()))
    }
}

// The gradients.

/// w: 1, or p with `WEIGHTED`, where p lies between its bounds; a NaN stays.
#[inline(always)]
fn weight<T: Real, S: Simd, const WEIGHTED: bool>(
    p: T::Stripe<S>,
    u: T::Stripe<S>,
) -> T::Stripe<S> {
    let zero = T::Stripe::<S>::splat(p.token(), T::ZERO);
    let one = T::Stripe::<S>::splat(p.token(), T::ONE);
    let w = if WEIGHTED {
        p
    } else {
        p.simd_gt(zero).select(one, p)
    };
    (p.simd_le(zero) | p.simd_ge(u)).select(zero, w)
}

/// `(Σ w g, Σ w)`.
#[simd]
fn vjp_sums<S: Simd, T: Real, B: Bounds<T>, const WEIGHTED: bool>(
    simd: S,
    bounds: B,
    p: &[T],
    g: &[T],
) -> (T, T) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let (mut sum, mut weights) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
    for (i, (p, g)) in p.chunks(T::LANES).zip(g.chunks(T::LANES)).enumerate() {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        let w = weight::<T, S, WEIGHTED>(p, bounds.stripe(simd, i * T::LANES));
        sum.add(w.simd_eq(zero).select(zero, w * g));
        weights.add(w);
    }
    (sum.total(), weights.total())
}

#[simd]
fn vjp_write<S: Simd, T: Real, B: Bounds<T>, const WEIGHTED: bool>(
    simd: S,
    bounds: B,
    (mean, inverse): (T, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let pairs = p.chunks(T::LANES).zip(g.chunks(T::LANES));
    for (i, ((p, g), y)) in pairs.zip(y.chunks_mut(T::LANES)).enumerate() {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        let w = weight::<T, S, WEIGHTED>(p, bounds.stripe(simd, i * T::LANES));
        let value = w * (g - mean) * inverse;
        store_part::<T, S>(w.simd_eq(zero).select(zero, value), y);
    }
}

fn vjp_row<T: Real, const WEIGHTED: bool>(
    level: Level,
    (caps, inverse): (Caps<'_, T>, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    with_bounds!(caps, T::INFINITY, |bounds| {
        let (sum, weights) =
            dispatch!(level, simd => vjp_sums::<_, T, _, WEIGHTED>(simd, bounds, p, g));
        let mean = sum / weights;
        dispatch!(level, simd => vjp_write::<_, T, _, WEIGHTED>(simd, bounds, (mean, inverse), p, g, y));
    });
}

fn vjp_long_row<T: Real, const WEIGHTED: bool>(
    run: &mut Run<'_>,
    (caps, inverse): (Caps<'_, T>, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    with_bounds!(caps, T::INFINITY, |bounds| {
        let sums = of_chunks(run, p.len(), |at| {
            let bounds = bounds.part(at.clone());
            let (p, g) = (&p[at.clone()], &g[at]);
            dispatch!(level, simd => vjp_sums::<_, T, _, WEIGHTED>(simd, bounds, p, g))
        })?;
        let sum = dispatch!(level, simd => add_up(simd, sums.iter().map(|sums| sums.0)));
        let weights = dispatch!(level, simd => add_up(simd, sums.iter().map(|sums| sums.1)));
        let mean = sum / weights;
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at.clone());
            let (p, g) = (&p[at.clone()], &g[at]);
            dispatch!(level, simd => vjp_write::<_, T, _, WEIGHTED>(simd, bounds, (mean, inverse), p, g, y));
        })
    })
}
