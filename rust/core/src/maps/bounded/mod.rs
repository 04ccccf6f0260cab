//! Maps of rows whose entries have upper bounds: `pᵢ = min(uᵢ, g(xᵢ - τ))`, τ such that `Σ p = total`.
//!
//! * [`capped_simplex`]: `g(d) = [d]₊/T`, the Euclidean projection of x/T onto `{0 ≤ p ≤ u, Σ p = total}`. With u = 1 and
//!   total = k these are the k-subsets (budget); with total = 1 it is csparsemax (Malaviya, Ferreira & Martins 2018).
//! * [`csoftmax()`]: `g(d) = e^{d/T}`, `Σ p = 1` (Martins & Kreutzer 2017).
//! * **Domain.** Any values. A NaN makes its row NaN; -∞ gets 0; entries of +∞ share the total equally up to their bounds,
//!   and what these cannot hold goes to the others. A row is NaN whose entries above -∞ cannot hold the total.
//! * **Precision.** `|Σ p - total| ≤ 4` ulp; where the bounds hold the total only but for rounding, by at most 16 ε of it,
//!   they are the result. For the projection, every p is as if τ, which has two parts, were off by an
//!   ulp of the total over the number of entries between their bounds.
//! * **Order.** With one bound for all, x ≤ y implies p(x) ≤ p(y) within a row.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** The projection: a filter by a bound from a sample, about ten sums over what it keeps, and a pass that
//!   writes. csoftmax: softmax, and a pass for each time that more entries reach their bounds; where these lie far apart
//!   in x/T, softmax once for each halving of their range down to T.
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
//!    lane each ([`super::tile`]): short rows whole, longer ones of the projection once little but their candidates is left
//!    of them. What does not go well in a lane is done again, by itself.
//! 2. Σ p in s is concave, so from below Newton's method rises monotonically to the solution, and ends on it.
//! 3. Where the largest exponentials have reached their bounds, they are taken anew, relative to the largest of the
//!    others, which else might vanish beside them. Where that does not soon lead to the end, the score that they are
//!    relative to is found by halving.
//! 4. Scores so large that distances overflow are taken in a smaller unit, which the temperature is taken in, too.

mod bounds;
mod capped;
mod csoftmax;
mod gradient;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use self::{
    bounds::{Bounds, Caps, Own, Same, with_bounds},
    capped::{capped_long_row, capped_rows},
    csoftmax::{csoftmax_long_row, csoftmax_rows},
    gradient::{vjp_long_row, vjp_row},
};
use super::{entmax::Project, gradient::map_pairs, kernels::Vjp, softmax::inverse_temperature};
use crate::{
    batch::{PerRow, RowMap, Scores, Shape, Storage, map_rows, tasks},
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, load_padded},
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

/// `J g` of [`csoftmax()`] at its result p, as [`capped_simplex_vjp`] with a mean that is weighted with p.
///
/// # Errors
/// As [`csoftmax()`].
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
        if sum < less_rounding(T::from_f64(total.of(row))).to_f64() {
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

/// What the bounds have to hold at least: each of them is rounded, and their sum as that of a group of [`Sum`].
fn less_rounding<T: Real>(total: T) -> T {
    total * (T::ONE - T::EPSILON * T::from_f64(16.0))
}

/// The kernels for values of type T.
pub(crate) struct Kernels<T> {
    /// By the total and the temperature.
    capped: BoundedMap<T, (f64, f64)>,
    /// By the inverse of the temperature.
    csoftmax: BoundedMap<T, T>,
    capped_vjp: BoundedVjp<T>,
    csoftmax_vjp: BoundedVjp<T>,
}

/// A map by its bounds and P.
struct BoundedMap<T, P> {
    rows: Rows<T, P>,
    long_row: LongRow<T, P>,
}

type Rows<T, P> = fn(Level, (Upper<'_, T>, P), usize, &[T], &mut [T], &mut Vec<T>);
type LongRow<T, P> = fn(&mut Run<'_>, (Caps<'_, T>, P), &[T], &mut [T]) -> Result<(), Error>;

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
        self.total.each(first, n, x, y, |total, row, x, y| {
            let parameters = (self.upper.rows_from(row, n), (total, self.temperature));
            rows(level, parameters, n, x, y, kernel);
        });
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let caps = self.upper.of_row(row, x.len());
        let parameters = (caps, (self.total.of(row), self.temperature));
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
        let parameters = (self.upper.rows_from(first, n), self.inverse);
        (T::kernels().maps.bounded.csoftmax.rows)(level, parameters, n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let parameters = (self.upper.of_row(row, x.len()), self.inverse);
        (T::kernels().maps.bounded.csoftmax.long_row)(run, parameters, x, y)
    }
}

/// One of the two maps, of one row.
trait BoundedRow<T: Real>: Copy {
    fn total(self) -> T;
    fn with_total(self, total: T) -> Self;
    /// Maps a row, unless there is a NaN, no finite maximum, not room enough for the total above -∞, or, for
    /// [`BoundedRow::row_of_any_range`], scores so large that distances might overflow.
    fn row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) -> Option<()>;

    /// Where the distances of the scores might overflow, the map of what is smaller, and by which factor.
    fn shrunk(self, _: &[T]) -> Option<(Self, T)> {
        None
    }

    /// [`BoundedRow::row`] with scores of any size.
    fn row_of_any_range<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) -> Option<()> {
        let Some((map, factor)) = self.shrunk(x) else {
            return self.row(level, bounds, x, y, kernel);
        };
        let x: Vec<T> = x.iter().map(|&x| x * factor).collect();
        map.row(level, bounds, &x, y, kernel)
    }

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
        let held = (x.iter().enumerate())
            .filter(|(_, x)| infinite(x))
            .map(|(k, _)| bounds.get(k));
        let room = dispatch!(level, simd => add_up(simd, held));
        let done = if x.iter().any(|x| x.is_nan()) {
            None
        } else if !x.iter().any(infinite) {
            self.row_of_any_range(level, bounds, x, y, kernel)
        } else if room >= less_rounding(self.total()) {
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
            let rest = self.total() - room;
            let finite = |x: &T| if infinite(x) { T::NEG_INFINITY } else { *x };
            let z: Vec<T> = x.iter().map(finite).collect();
            let done =
                self.with_total(rest)
                    .row_of_any_range(level, bounds.at_most(rest), &z, y, kernel);
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

/// Maps the rows of a group whose bit in `well` is not set, by themselves.
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
