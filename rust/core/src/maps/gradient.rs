//! Gradients of the maps: products of a vector g with the Jacobian, from the result p of the map.
//!
//! Every Jacobian here is symmetric, so a vector-Jacobian product is a Jacobian-vector product too.
//!
//! * softmax: `J g = p (g - ⟨p, g⟩)/T`; its logarithm: `Jᵀ g = (g - p Σ g)/T`.
//! * A threshold map (Martins & Astudillo 2016; Peters, Niculae & Martins 2019): `J = (diag w - w wᵀ/Σ w)/T`, w = p^{2-α}
//!   on the support and 0 off it. Where a score ties with the threshold, that takes one element of the generalised
//!   Jacobian: the one of the face p lies in.
//! * In α (Correia, Niculae & Martins 2019): `dp/dα = (p - s)/δ² - (p ln p - s Σ p ln p)/δ`, s = w/Σ w, δ = α - 1.
//!
//! **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//!
//! Each is made of sums over the row and a pass that writes. A long row adds up chunk by chunk, and then the chunks in
//! their order.
//!
//! 1. For α > 2 the heaviest weight belongs to the smallest p and may be beyond all others: its entry is minus the sum
//!    of the others, so that nothing large cancels; or, where they overflow, comes from the mean of g like theirs.
//! 2. The formula for dp/dα cancels as α → 1. With `E(y) = (e^y - 1 - y)/y²`, l = ln p, `M₁ = Σ p l`,
//!    `M₂ = Σ p l² E(-δ l)`, `Z = 1 - δ M₁ + δ² M₂` it is `(p/Z) (M₂ (1 - δ l) - l² E(-δ l) (1 - δ M₁))`, which does not,
//!    and is ½ p (Σ p l² - l²) at α = 1. Both are computed in f64.

use std::array;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{kernels::Vjp, softmax::inverse_temperature};
use crate::{
    batch::{
        LONG, PerRow, Scores, Scratch, Shape, Source, Storage, make_room, map_long_row, of_chunks,
        of_written_chunks, store_rows, tasks, write_chunks,
    },
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    scalar::Real,
    simd::{Sum, add_up, exp, exp2, ln, load_padded, log2, polynomial, store_part},
};

/// `J g` of [`super::softmax()`] at its result p.
///
/// # Errors
/// As [`super::softmax()`].
pub fn softmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let inverse = inverse_temperature(temperature)?;
    let kernel = &E::Compute::kernels().maps.softmax_vjp;
    map_pairs(run, shape, (p, g), out, kernel, |_| inverse)
}

/// `Jᵀ g` of [`super::log_softmax()`] at its result log p.
///
/// # Errors
/// As [`super::softmax()`].
pub fn log_softmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (log_p, g): (&[E], &[E]),
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let inverse = inverse_temperature(temperature)?;
    let kernel = &E::Compute::kernels().maps.log_softmax_vjp;
    map_pairs(run, shape, (log_p, g), out, kernel, |_| inverse)
}

/// `J g` of [`super::entmax()`] at its result p; at α = 2 and temperature 1, of [`super::project_simplex()`] with any
/// total.
///
/// # Errors
/// As [`super::entmax()`].
pub fn entmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    alpha: PerRow<'_>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_alpha(alpha, shape.count())?;
    let inverse = inverse_temperature(temperature)?;
    let kernel = &E::Compute::kernels().maps.entmax_vjp;
    map_pairs(run, shape, (p, g), out, kernel, |row| {
        (alpha.of(row), inverse)
    })
}

/// [`entmax_vjp`] of p in compressed sparse rows, `g` being dense; `out` belongs to the entries of p.
///
/// # Errors
/// As [`entmax_vjp`]. The columns must lie below `n` and `starts` must rise from 0 to the number of entries.
pub fn entmax_vjp_sparse<E: Storage>(
    run: &mut Run<'_>,
    n: usize,
    (p, columns, starts): (&[E], &[usize], &[usize]),
    g: &[E],
    alpha: PerRow<'_>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let rows = starts.len().saturating_sub(1);
    let shape = Shape::rows(rows, n);
    shape.check("g", g.len())?;
    check_alpha(alpha, rows)?;
    let inverse = inverse_temperature(temperature)?;
    check_sparse(run, p.len(), columns, starts, out.len(), n)?;
    let (level, kernel) = (run.level, &E::Compute::kernels().maps.entmax_vjp);
    let out = Parts::new(out);
    let (count, rows_of) = tasks(shape);
    let entries_of = |row: usize| starts[row]..starts[row + 1];
    run.each(count, Scratch::new, |scratch, task| {
        for row in rows_of(task) {
            let entries = entries_of(row);
            if entries.len() > LONG {
                continue;
            }
            let g = &g[row * n..(row + 1) * n];
            scratch.x.resize(entries.len(), E::Compute::ZERO);
            E::load(&p[entries.clone()], &mut scratch.x);
            scratch.kernel.clear();
            scratch
                .kernel
                .extend(columns[entries.clone()].iter().map(|&k| g[k].widen()));
            scratch.y.resize(entries.len(), E::Compute::ZERO);
            (kernel.row)(
                level,
                (alpha.of(row), inverse),
                &scratch.x,
                &scratch.kernel,
                &mut scratch.y,
            );
            // SAFETY: each row belongs to one task.
            E::store(&scratch.y, unsafe {
                out.part(entries.start, entries.len())
            });
        }
    })?;
    let mut scratch = Scratch::new();
    for row in (0..rows).filter(|&row| entries_of(row).len() > LONG) {
        let entries = entries_of(row);
        let (p, columns, g) = (
            &p[entries.clone()],
            &columns[entries.clone()],
            &g[row * n..],
        );
        make_room(&mut scratch.kernel, entries.len());
        write_chunks(run, &mut scratch.kernel, |at, to| {
            for (to, &k) in to.iter_mut().zip(&columns[at]) {
                *to = g[k].widen();
            }
        })?;
        let shape = Shape::rows(1, entries.len());
        // SAFETY: one row at a time, and nothing is written to p.
        unsafe {
            let scores = Scores::new(shape, p);
            let p = scores.stage_long_row(
                run,
                &Source::Apart(p),
                0,
                E::Compute::NEG_INFINITY,
                &mut scratch.x,
            )?;
            let own = Parts::new(out.part(entries.start, entries.len()));
            map_long_row(run, shape, 0, &own, &mut scratch.y, |run, y| {
                (kernel.long_row)(run, (alpha.of(row), inverse), p, &scratch.kernel, y)
            })?;
        }
    }
    Ok(())
}

/// Refuses what is no matrix of n columns: that rows do not overlap is what makes their parts of `out` disjoint.
fn check_sparse(
    run: &mut Run<'_>,
    entries: usize,
    columns: &[usize],
    starts: &[usize],
    out: usize,
    n: usize,
) -> Result<(), Error> {
    for (argument, found) in [
        ("indices", columns.len()),
        ("out", out),
        ("indptr", starts.last().copied().unwrap_or(0)),
    ] {
        if found != entries {
            return Err(Error::Length {
                argument,
                expected: entries,
                found,
            });
        }
    }
    if let Some(&first) = starts.first().filter(|&&first| first > 0) {
        return Err(Error::Domain {
            argument: "indptr",
            domain: "0 at its beginning",
            value: first as f64,
        });
    }
    if let Some(fall) = starts.windows(2).find(|pair| pair[1] < pair[0]) {
        return Err(Error::Domain {
            argument: "indptr",
            domain: "rising",
            value: fall[1] as f64,
        });
    }
    let outside = of_chunks(run, entries, |at| {
        columns[at].iter().find(|&&column| column >= n)
    })?;
    if let Some(&column) = outside.into_iter().flatten().next() {
        return Err(Error::Domain {
            argument: "indices",
            domain: "below the number of columns",
            value: column as f64,
        });
    }
    Ok(())
}

/// `⟨g, dp/dα⟩` of every row, p being the result of [`super::entmax()`].
///
/// # Errors
/// As [`super::entmax()`].
pub fn entmax_alpha_grad<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    alpha: PerRow<'_>,
    out: &mut [E],
) -> Result<(), Error> {
    check_alpha(alpha, shape.count())?;
    if out.len() != shape.count() {
        return Err(Error::Length {
            argument: "out",
            expected: shape.count(),
            found: out.len(),
        });
    }
    let level = run.level;
    let kernel = &E::Compute::kernels().maps.alpha_slope;
    let out = Parts::new(out);
    let store = |row, slope| {
        // SAFETY: each row belongs to one task.
        unsafe { out.part(row, 1)[0] = E::narrow(E::Compute::from_f64(slope)) };
    };
    each_pair(
        run,
        shape,
        (p, g),
        |row, p, g, _| store(row, (kernel.row)(level, alpha.of(row), p, g)),
        |run, row, p, g, _| {
            store(row, (kernel.long_row)(run, alpha.of(row), p, g)?);
            Ok(())
        },
    )
}

fn check_alpha(alpha: PerRow<'_>, rows: usize) -> Result<(), Error> {
    alpha.check("alpha", rows, "finite and at least 1", |a| {
        a >= 1.0 && a.is_finite()
    })
}

/// Visits every row of two arrays of one shape, short or long; the last argument is room for a row.
fn each_pair<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    visit: impl Fn(usize, &[E::Compute], &[E::Compute], &mut Vec<E::Compute>) + Sync,
    visit_long: impl Fn(
        &mut Run<'_>,
        usize,
        &[E::Compute],
        &[E::Compute],
        &mut Vec<E::Compute>,
    ) -> Result<(), Error>,
) -> Result<(), Error> {
    shape.check("p", p.len())?;
    shape.check("g", g.len())?;
    let scores = [Scores::new(shape, p), Scores::new(shape, g)];
    let sources = [Source::Apart(p), Source::Apart(g)];
    if shape.n > LONG {
        let mut scratch = Scratch::new();
        for row in 0..shape.count() {
            // SAFETY: nothing is written to p and g.
            let (p, g) = unsafe {
                (
                    scores[0].stage_long_row(
                        run,
                        &sources[0],
                        row,
                        E::Compute::NEG_INFINITY,
                        &mut scratch.x,
                    )?,
                    scores[1].stage_long_row(
                        run,
                        &sources[1],
                        row,
                        E::Compute::NEG_INFINITY,
                        &mut scratch.kernel,
                    )?,
                )
            };
            visit_long(run, row, p, g, &mut scratch.y)?;
        }
        return Ok(());
    }
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::new, |scratch, task| {
        let rows = rows_of(task);
        // SAFETY: nothing is written to p and g.
        let (p, g) = unsafe {
            (
                scores[0].stage(
                    &sources[0],
                    rows.clone(),
                    E::Compute::NEG_INFINITY,
                    &mut scratch.x,
                ),
                scores[1].stage(
                    &sources[1],
                    rows.clone(),
                    E::Compute::NEG_INFINITY,
                    &mut scratch.kernel,
                ),
            )
        };
        for (row, (p, g)) in rows.zip(p.chunks_exact(shape.n).zip(g.chunks_exact(shape.n))) {
            visit(row, p, g, &mut scratch.y);
        }
    })
}

pub(super) fn map_pairs<E: Storage, P>(
    run: &mut Run<'_>,
    shape: Shape,
    pair: (&[E], &[E]),
    out: &mut [E],
    kernel: &Vjp<E::Compute, P>,
    parameter: impl Fn(usize) -> P + Sync,
) -> Result<(), Error> {
    shape.check("out", out.len())?;
    let level = run.level;
    let out = Parts::new(out);
    each_pair(
        run,
        shape,
        pair,
        |row, p, g, room| {
            // SAFETY: each row belongs to one task.
            unsafe {
                if shape.inner == 1
                    && let Some(y) = E::direct_mut(out.part(row * shape.n, shape.n))
                {
                    return (kernel.row)(level, parameter(row), p, g, y);
                }
                room.resize(shape.n, E::Compute::ZERO);
                (kernel.row)(level, parameter(row), p, g, room);
                store_rows(shape, row..row + 1, room, &out);
            }
        },
        |run, row, p, g, room| {
            // SAFETY: one row at a time.
            unsafe {
                map_long_row(run, shape, row, &out, room, |run, y| {
                    (kernel.long_row)(run, parameter(row), p, g, y)
                })
            }
        },
    )
}

/// Adds up each of the terms that are made of the stripes of two rows, a rest being filled with zeros.
macro_rules! sum_pairs {
    ($simd:ident, $t:ty, $s:ty, $p:expr, $g:expr, |$a:ident, $b:ident| $terms:expr) => {{
        let mut sums = array::from_fn(|_| Sum::<$t, $s>::new($simd));
        for (p, g) in $p.chunks(<$t>::LANES).zip($g.chunks(<$t>::LANES)) {
            let $a = load_padded::<$t, $s>($simd, p, <$t>::ZERO);
            let $b = load_padded::<$t, $s>($simd, g, <$t>::ZERO);
            add_each(&mut sums, $terms);
        }
        totals(sums)
    }};
}

#[inline(always)]
fn add_each<T: Real, S: Simd, const N: usize>(sums: &mut [Sum<T, S>; N], terms: [T::Stripe<S>; N]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        sum.add(term);
    }
}

#[inline(always)]
fn totals<T: Real, S: Simd, const N: usize>(sums: [Sum<T, S>; N]) -> [T; N] {
    let mut totals = [T::ZERO; N];
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total = sum.total();
    }
    totals
}

/// Writes what `value` makes of the stripes of two rows.
macro_rules! write_pairs {
    ($simd:ident, $t:ty, $s:ty, $p:expr, $g:expr, $y:expr, |$a:ident, $b:ident| $value:expr) => {
        let inputs = $p.chunks(<$t>::LANES).zip($g.chunks(<$t>::LANES));
        for ((p, g), y) in inputs.zip($y.chunks_mut(<$t>::LANES)) {
            let $a = load_padded::<$t, $s>($simd, p, <$t>::ZERO);
            let $b = load_padded::<$t, $s>($simd, g, <$t>::ZERO);
            store_part::<$t, $s>($value, y);
        }
    };
}

/// The gradient of a row: two sums, and values given them.
pub(super) trait Pullback<T: Real>: Copy + Sync {
    /// The inverse of a temperature, with α where there is one.
    type Parameter;

    fn new(parameter: Self::Parameter) -> Self;
    fn sums<S: Simd>(self, simd: S, p: &[T], g: &[T]) -> [T; 2];
    fn write<S: Simd>(self, simd: S, sums: [T; 2], p: &[T], g: &[T], y: &mut [T]);
}

/// Maps a row.
pub(super) fn pull_row<T: Real, P: Pullback<T>>(
    level: Level,
    parameter: P::Parameter,
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    dispatch!(level, simd => pull(simd, P::new(parameter), p, g, y));
}

#[simd]
fn pull<S: Simd, T: Real, P: Pullback<T>>(simd: S, pullback: P, p: &[T], g: &[T], y: &mut [T]) {
    let sums = pullback.sums(simd, p, g);
    pullback.write(simd, sums, p, g, y);
}

/// [`pull_row`] of a long row.
pub(super) fn pull_long_row<T: Real, P: Pullback<T>>(
    run: &mut Run<'_>,
    parameter: P::Parameter,
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let (level, pullback) = (run.level, P::new(parameter));
    let sums = of_chunks(
        run,
        p.len(),
        |at| dispatch!(level, simd => pullback.sums(simd, &p[at.clone()], &g[at])),
    )?;
    let sums = dispatch!(level, simd => join(simd, &sums));
    write_chunks(run, y, |at, y| {
        dispatch!(level, simd => pullback.write(simd, sums, &p[at.clone()], &g[at], y));
    })
}

/// Adds up the sums of the chunks of a row.
#[simd]
pub(super) fn join<S: Simd, T: Real, const N: usize>(simd: S, chunks: &[[T; N]]) -> [T; N] {
    array::from_fn(|k| add_up(simd, chunks.iter().map(|chunk| chunk[k])))
}

#[derive(Clone, Copy)]
pub(super) struct Softmax<T> {
    inverse: T,
}

impl<T: Real> Pullback<T> for Softmax<T> {
    type Parameter = T;

    fn new(inverse: T) -> Self {
        Self { inverse }
    }

    #[inline(always)]
    fn sums<S: Simd>(self, simd: S, p: &[T], g: &[T]) -> [T; 2] {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        // An entry that is exactly 0 counts for nothing, whatever g is there.
        let [mean] = sum_pairs!(simd, T, S, p, g, |p, g| [p
            .simd_eq(T::ZERO)
            .select(zero, p * g)]);
        [mean, T::ONE]
    }

    #[inline(always)]
    fn write<S: Simd>(self, simd: S, [mean, _]: [T; 2], p: &[T], g: &[T], y: &mut [T]) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        write_pairs!(simd, T, S, p, g, y, |p, g| p
            .simd_eq(T::ZERO)
            .select(zero, p * (g - mean) * self.inverse));
    }
}

#[derive(Clone, Copy)]
pub(super) struct LogSoftmax<T> {
    inverse: T,
}

impl<T: Real> Pullback<T> for LogSoftmax<T> {
    type Parameter = T;

    fn new(inverse: T) -> Self {
        Self { inverse }
    }

    #[inline(always)]
    fn sums<S: Simd>(self, simd: S, log_p: &[T], g: &[T]) -> [T; 2] {
        let [sum] = sum_pairs!(simd, T, S, log_p, g, |_p, g| [g]);
        [sum, T::ONE]
    }

    #[inline(always)]
    fn write<S: Simd>(self, simd: S, [sum, _]: [T; 2], log_p: &[T], g: &[T], y: &mut [T]) {
        write_pairs!(simd, T, S, log_p, g, y, |log_p, g| (g - exp::<T, S>(log_p)
            * sum)
            * self.inverse);
    }
}

pub(super) fn entmax_row<T: Real>(
    level: Level,
    (alpha, inverse): (f64, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    if alpha > 2.0 {
        heavy_tail_row(level, (alpha, inverse), p, g, y);
    } else if alpha == 2.0 {
        pull_row::<T, Weighted<T, 0>>(level, (alpha, inverse), p, g, y);
    } else if alpha == 1.5 {
        pull_row::<T, Weighted<T, 1>>(level, (alpha, inverse), p, g, y);
    } else if alpha == 1.0 {
        pull_row::<T, Softmax<T>>(level, inverse, p, g, y);
    } else {
        pull_row::<T, Weighted<T, 2>>(level, (alpha, inverse), p, g, y);
    }
}

pub(super) fn entmax_long_row<T: Real>(
    run: &mut Run<'_>,
    (alpha, inverse): (f64, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    if alpha > 2.0 {
        heavy_tail_long_row(run, (alpha, inverse), p, g, y)
    } else if alpha == 2.0 {
        pull_long_row::<T, Weighted<T, 0>>(run, (alpha, inverse), p, g, y)
    } else if alpha == 1.5 {
        pull_long_row::<T, Weighted<T, 1>>(run, (alpha, inverse), p, g, y)
    } else if alpha == 1.0 {
        pull_long_row::<T, Softmax<T>>(run, inverse, p, g, y)
    } else {
        pull_long_row::<T, Weighted<T, 2>>(run, (alpha, inverse), p, g, y)
    }
}

/// 1 < α ≤ 2, by the weights w = p^{2-α} on the support: 1 (KIND 0), √p (1), or any (2).
#[derive(Clone, Copy)]
struct Weighted<T, const KIND: u8> {
    exponent: T,
    inverse: T,
}

impl<T: Real, const KIND: u8> Weighted<T, KIND> {
    #[inline(always)]
    fn weight<S: Simd>(self, p: T::Stripe<S>) -> T::Stripe<S> {
        let simd = p.token();
        let out = p.simd_le(T::ZERO); // a NaN is not, and stays
        let w = match KIND {
            0 => p
                .simd_gt(T::ZERO)
                .select(T::Stripe::<S>::splat(simd, T::ONE), p),
            1 => p.sqrt(),
            _ => exp2::<T, S>(log2::<T, S>(p) * self.exponent),
        };
        out.select(T::Stripe::<S>::splat(simd, T::ZERO), w)
    }
}

impl<T: Real, const KIND: u8> Pullback<T> for Weighted<T, KIND> {
    type Parameter = (f64, T);

    fn new((alpha, inverse): (f64, T)) -> Self {
        Self {
            exponent: T::from_f64(2.0 - alpha),
            inverse,
        }
    }

    #[inline(always)]
    fn sums<S: Simd>(self, simd: S, p: &[T], g: &[T]) -> [T; 2] {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        sum_pairs!(simd, T, S, p, g, |p, g| {
            let w = self.weight::<S>(p);
            [w.simd_eq(T::ZERO).select(zero, w * g), w]
        })
    }

    #[inline(always)]
    fn write<S: Simd>(self, simd: S, [sum, weights]: [T; 2], p: &[T], g: &[T], y: &mut [T]) {
        if weights == T::ZERO {
            return y.fill(T::ZERO); // a row that was excluded
        }
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mean = sum / weights;
        write_pairs!(simd, T, S, p, g, y, |p, g| {
            let w = self.weight::<S>(p);
            w.simd_eq(T::ZERO)
                .select(zero, w * (g - mean) * self.inverse)
        });
    }
}

/// α > 2: the weights fall with p, and the heaviest is set apart (departure 1). In f64, for their range.
#[derive(Clone, Copy)]
struct HeavyTail {
    exponent: f64,
    inverse: f64,
    /// The heaviest entry: its index, g there, and log₂ of its weight.
    heaviest: usize,
    own: f64,
    most: f64,
}

/// The smallest p above 0, the first of equals, and its index; nothing where there is none.
type Least<T> = Option<(T, usize)>;

/// The least of values that begin at index `first`; `Err` if one is NaN.
fn least<T: Real>(first: usize, p: &[T]) -> Result<Least<T>, IsNan> {
    let mut least = None;
    for (index, &p) in (first..).zip(p) {
        if p.is_nan() {
            return Err(IsNan);
        }
        if p > T::ZERO && least.is_none_or(|(least, _)| p < least) {
            least = Some((p, index));
        }
    }
    Ok(least)
}

#[derive(Clone, Copy)]
struct IsNan;

pub(super) fn wide<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

fn heavy_tail_row<T: Real>(
    level: Level,
    (alpha, inverse): (f64, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    let of_p = (alpha, inverse.to_f64());
    let (least, heaviest) = match least(0, p) {
        Err(IsNan) => return y.fill(T::NAN),
        Ok(None) => return y.fill(T::ZERO), // a row that was excluded
        Ok(Some(least)) => least,
    };
    let own = g[heaviest].to_f64();
    let tail = dispatch!(level, simd => HeavyTail::new(simd, of_p, least.to_f64(), heaviest, own));
    let sums = dispatch!(level, simd => tail.sums(simd, p, g));
    let others = dispatch!(level, simd => tail.write(simd, sums, 0, p, g, y));
    y[heaviest] = T::from_f64(dispatch!(level, simd => tail.of_heaviest(simd, sums, others)));
}

fn heavy_tail_long_row<T: Real>(
    run: &mut Run<'_>,
    (alpha, inverse): (f64, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let (level, of_p) = (run.level, (alpha, inverse.to_f64()));
    let chunks = of_chunks(run, p.len(), |at| least(at.start, &p[at]))?;
    let chunks: Result<Vec<Least<T>>, IsNan> = chunks.into_iter().collect();
    let least = chunks.map(|chunks| {
        let all = chunks.into_iter().flatten();
        all.reduce(|least, next| if next.0 < least.0 { next } else { least })
    });
    let (least, heaviest) = match least {
        Err(IsNan) => return write_chunks(run, y, |_, y| y.fill(T::NAN)),
        Ok(None) => return write_chunks(run, y, |_, y| y.fill(T::ZERO)),
        Ok(Some(least)) => least,
    };
    let own = g[heaviest].to_f64();
    let tail = dispatch!(level, simd => HeavyTail::new(simd, of_p, least.to_f64(), heaviest, own));
    let sums = of_chunks(
        run,
        p.len(),
        |at| dispatch!(level, simd => tail.sums(simd, &p[at.clone()], &g[at])),
    )?;
    let sums = dispatch!(level, simd => join(simd, &sums));
    let others = of_written_chunks(run, y, |at, y| {
        let (p, g) = (&p[at.clone()], &g[at.clone()]);
        [dispatch!(level, simd => tail.write(simd, sums, at.start, p, g, y))]
    })?;
    let [others] = dispatch!(level, simd => join(simd, &others));
    y[heaviest] = T::from_f64(dispatch!(level, simd => tail.of_heaviest(simd, sums, others)));
    Ok(())
}

impl HeavyTail {
    #[simd]
    fn new<S: Simd>(
        simd: S,
        (alpha, inverse): (f64, f64),
        least: f64,
        heaviest: usize,
        own: f64,
    ) -> Self {
        // Beyond 1e300 no weight changes; with it, its logarithm is finite.
        let exponent = 2.0 - alpha.min(1e300);
        let least = <f64 as Real>::Stripe::<S>::splat(simd, least);
        Self {
            exponent,
            inverse,
            heaviest,
            own,
            most: (log2::<f64, S>(least) * exponent)[0],
        }
    }

    /// Of the weights relative to the heaviest: their sum with the distance of g from the heaviest's, and alone.
    #[simd]
    fn sums<S: Simd, T: Real>(self, simd: S, p: &[T], g: &[T]) -> [f64; 2] {
        let Self {
            exponent,
            own,
            most,
            ..
        } = self;
        let (p, g) = (wide(p), wide(g));
        let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
        sum_pairs!(simd, f64, S, p, g, |p, g| {
            let w = exp2::<f64, S>(log2::<f64, S>(p) * exponent - most);
            let counts = p.simd_gt(0.0);
            [counts.select(w * (g - own), zero), counts.select(w, zero)]
        })
    }

    /// Writes all entries but the heaviest, and returns their sum before the temperature; the values begin at index `first` of the row.
    #[simd]
    fn write<S: Simd, T: Real>(
        self,
        simd: S,
        [sum, weights]: [f64; 2],
        first: usize,
        p: &[T],
        g: &[T],
        y: &mut [T],
    ) -> f64 {
        let Self { exponent, own, .. } = self;
        let (p, g, mut wide_y) = (wide(p), wide(g), vec![0.0; y.len()]);
        let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
        let above = sum / weights; // of the mean over g of the heaviest
        write_pairs!(simd, f64, S, p, g, wide_y, |p, g| {
            let difference = (g - own) - above;
            let counts = p.simd_gt(0.0) & !difference.simd_eq(0.0); // a weight may be infinite
            counts.select(
                exp2::<f64, S>(log2::<f64, S>(p) * exponent) * difference,
                zero,
            )
        });
        if let Some(heaviest) = self.heaviest.checked_sub(first)
            && heaviest < wide_y.len()
        {
            wide_y[heaviest] = 0.0;
        }
        for (y, wide) in y.iter_mut().zip(&wide_y) {
            *y = T::from_f64(*wide * self.inverse);
        }
        let [others] = sum_pairs!(simd, f64, S, wide_y, g, |y, _g| [y]);
        others
    }

    /// The entry of the heaviest, from the sum of all other entries.
    #[simd]
    fn of_heaviest<S: Simd>(self, simd: S, [sum, weights]: [f64; 2], others: f64) -> f64 {
        if others.is_finite() || sum == 0.0 {
            return -others * self.inverse;
        }
        let weight = exp2::<f64, S>(<f64 as Real>::Stripe::<S>::splat(simd, self.most))[0];
        -(sum / weights) * weight * self.inverse
    }
}

/// δ from which the formula for dp/dα is used as it stands.
const FAR_FROM_ONE: f64 = 0.5;

/// `1/(k+2)!`: the series of `(e^y - 1 - y)/y²`, to the last place for y up to 1.
const REMAINDER: [f64; 17] = {
    let mut c = [0.5; 17];
    let mut k = 1;
    while k < 17 {
        c[k] = c[k - 1] / (k + 2) as f64;
        k += 1;
    }
    c
};

/// What dp/dα needs to know of a row before its sums.
#[derive(Clone, Copy)]
struct Occupied {
    /// Whether there is a p that is not 0.
    any: bool,
    nan: bool,
    least: f64,
}

impl Occupied {
    fn of<T: Real>(p: &[T]) -> Self {
        let there = || p.iter().filter(|&&p| p != T::ZERO);
        Self {
            any: there().next().is_some(),
            nan: there().any(|p| p.is_nan()),
            least: there().map(|p| p.to_f64()).fold(1.0, f64::min),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            any: self.any || other.any,
            nan: self.nan || other.nan,
            least: self.least.min(other.least),
        }
    }

    /// The slope where there is nothing to add up.
    fn slope(self) -> Option<f64> {
        if self.nan {
            Some(f64::NAN)
        } else {
            (!self.any).then_some(0.0) // a row that was excluded
        }
    }
}

pub(super) fn alpha_slope<T: Real>(level: Level, alpha: f64, p: &[T], g: &[T]) -> f64 {
    let occupied = Occupied::of(p);
    occupied.slope().unwrap_or_else(|| {
        let sums = dispatch!(level, simd => slope_sums(simd, alpha, occupied.least, p, g));
        slope(alpha, sums)
    })
}

pub(super) fn alpha_slope_of_long_row<T: Real>(
    run: &mut Run<'_>,
    alpha: f64,
    p: &[T],
    g: &[T],
) -> Result<f64, Error> {
    let level = run.level;
    let chunks = of_chunks(run, p.len(), |at| Occupied::of(&p[at]))?;
    let occupied = chunks
        .into_iter()
        .fold(Occupied::of::<T>(&[]), Occupied::and);
    if let Some(slope) = occupied.slope() {
        return Ok(slope);
    }
    let sums = of_chunks(
        run,
        p.len(),
        |at| dispatch!(level, simd => slope_sums(simd, alpha, occupied.least, &p[at.clone()], &g[at])),
    )?;
    Ok(slope(alpha, dispatch!(level, simd => join(simd, &sums))))
}

/// The sums that [`slope`] takes.
#[simd]
fn slope_sums<S: Simd, T: Real>(simd: S, alpha: f64, least: f64, p: &[T], g: &[T]) -> [f64; 5] {
    let (p, g): (Vec<f64>, Vec<f64>) = p
        .iter()
        .zip(g)
        .filter(|(p, _)| **p != T::ZERO)
        .map(|(p, g)| (p.to_f64(), g.to_f64()))
        .unzip();
    let delta = alpha - 1.0;
    let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
    if delta < FAR_FROM_ONE {
        return sum_pairs!(simd, f64, S, p, g, |p, g| {
            let there = p.simd_gt(0.0);
            let (p, g) = (there.select(p, zero), there.select(g, zero));
            let l = there.select(ln::<f64, S>(p), zero);
            let r = remainder::<S>(l * -delta);
            let a = g * p * (-(l * delta) + 1.0);
            [p * l, p * l * l * r, a, g * p * l * l * r, zero]
        });
    }
    let most = if delta > 1.0 {
        ln::<f64, S>(<f64 as Real>::Stripe::<S>::splat(simd, least))[0]
    } else {
        0.0
    };
    sum_pairs!(simd, f64, S, p, g, |p, g| {
        let there = p.simd_gt(0.0);
        let (p, g) = (there.select(p, zero), there.select(g, zero));
        let l = there.select(ln::<f64, S>(p), zero);
        let w = there.select(exp::<f64, S>((l - most) * (1.0 - delta)), zero);
        [p * l, w, g * w, g * p, g * p * l]
    })
}

/// `⟨g, dp/dα⟩` from the sums over the row.
fn slope(alpha: f64, sums: [f64; 5]) -> f64 {
    let delta = alpha - 1.0;
    if delta < FAR_FROM_ONE {
        let [m1, m2, a, b, _] = sums;
        let z = 1.0 - delta * m1 + delta * delta * m2;
        (m2 * a - b * (1.0 - delta * m1)) / z
    } else {
        let [m1, weights, weighted, gp, gpl] = sums;
        let s = weighted / weights;
        (gp - s) / (delta * delta) - (gpl - s * m1) / delta
    }
}

/// `(e^y - 1 - y)/y²` for y ≥ 0.
#[inline(always)]
fn remainder<S: Simd>(y: <f64 as Real>::Stripe<S>) -> <f64 as Real>::Stripe<S> {
    let near = polynomial::<f64, S>(&REMAINDER, y);
    let far = (exp::<f64, S>(y) - 1.0 - y) / (y * y);
    y.simd_le(1.0).select(near, far)
}
