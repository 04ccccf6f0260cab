//! Gradients of the maps: products of a vector g with the Jacobian, from the result p of the map.
//!
//! Every Jacobian here is symmetric, so a vector-Jacobian product is a Jacobian-vector product too.
//!
//! * softmax: `J g = p (g - ⟨p, g⟩)/T`; its logarithm: `Jᵀ g = (g - p Σ g)/T`.
//! * A threshold map (Martins & Astudillo 2016; Peters, Niculae & Martins 2019): `J = diag w - w wᵀ/Σ w`, w = p^{2-α}
//!   on the support and 0 off it. Where a score ties with the threshold, that takes one element of the generalised
//!   Jacobian: the one of the face p lies in.
//! * In α (Correia, Niculae & Martins 2019): `dp/dα = (p - s)/δ² - (p ln p - s Σ p ln p)/δ`, s = w/Σ w, δ = α - 1.
//!
//! **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//!
//! 1. For α > 2 the heaviest weight belongs to the smallest p and may be beyond all others: its entry is minus the sum
//!    of the others, so that nothing large cancels.
//! 2. The formula for dp/dα cancels as α → 1. With `E(y) = (e^y - 1 - y)/y²`, l = ln p, `M₁ = Σ p l`,
//!    `M₂ = Σ p l² E(-δ l)`, `Z = 1 - δ M₁ + δ² M₂` it is `(p/Z) (M₂ (1 - δ l) - l² E(-δ l) (1 - δ M₁))`, which does not,
//!    and is ½ p (Σ p l² - l²) at α = 1. Both are computed in f64.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    batch::{PerRow, Scores, Scratch, Shape, Source, Storage, store_rows, tasks},
    kernels::Compiled,
    softmax::inverse_temperature,
};
use crate::{
    error::Error,
    parallel::{Parts, Run},
    scalar::Real,
    simd::{Sum, exp, exp2, ln, load_padded, log2, polynomial, store_part},
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
    let kernel = E::Compute::kernels().softmax_vjp;
    map_pairs(run, shape, (p, g), out, |level, _, p, g, y| {
        kernel(level, inverse, p, g, y);
    })
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
    let kernel = E::Compute::kernels().log_softmax_vjp;
    map_pairs(run, shape, (log_p, g), out, |level, _, log_p, g, y| {
        kernel(level, inverse, log_p, g, y);
    })
}

/// `J g` of [`super::entmax()`] at its result p; at α = 2, of [`super::project_simplex()`] with any total.
///
/// # Errors
/// As [`super::entmax()`].
pub fn entmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    alpha: PerRow<'_>,
    out: &mut [E],
) -> Result<(), Error> {
    check_alpha(alpha, shape.count())?;
    let kernel = E::Compute::kernels().entmax_vjp;
    map_pairs(run, shape, (p, g), out, |level, row, p, g, y| {
        kernel(level, alpha.of(row), p, g, y);
    })
}

/// [`entmax_vjp`] of p in compressed sparse rows, `g` being dense; `out` belongs to the entries of p.
///
/// # Errors
/// As [`entmax_vjp`]. The columns must lie below `n` and `starts` must rise to the number of entries.
pub fn entmax_vjp_sparse<E: Storage>(
    run: &mut Run<'_>,
    n: usize,
    (p, columns, starts): (&[E], &[usize], &[usize]),
    g: &[E],
    alpha: PerRow<'_>,
    out: &mut [E],
) -> Result<(), Error> {
    let rows = starts.len().saturating_sub(1);
    let shape = Shape::rows(rows, n);
    shape.check("g", g.len())?;
    check_alpha(alpha, rows)?;
    check_sparse(p.len(), columns, starts, out.len(), n)?;
    let (level, kernel) = (run.level, E::Compute::kernels().entmax_vjp);
    let out = Parts::new(out);
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::new, |scratch, task| {
        for row in rows_of(task) {
            let entries = starts[row]..starts[row + 1];
            let g = &g[row * n..(row + 1) * n];
            scratch.x.resize(entries.len(), E::Compute::ZERO);
            E::load(&p[entries.clone()], &mut scratch.x);
            scratch.kernel.clear();
            scratch
                .kernel
                .extend(columns[entries.clone()].iter().map(|&k| g[k].widen()));
            scratch.y.resize(entries.len(), E::Compute::ZERO);
            kernel(
                level,
                alpha.of(row),
                &scratch.x,
                &scratch.kernel,
                &mut scratch.y,
            );
            // SAFETY: each row belongs to one task.
            E::store(&scratch.y, unsafe {
                out.part(entries.start, entries.len())
            });
        }
    })
}

/// Refuses what is no matrix of n columns: that rows do not overlap is what makes their parts of `out` disjoint.
fn check_sparse(
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
    if let Some(fall) = starts.windows(2).find(|pair| pair[1] < pair[0]) {
        return Err(Error::Domain {
            argument: "indptr",
            domain: "rising",
            value: fall[1] as f64,
        });
    }
    if let Some(&column) = columns.iter().find(|&&column| column >= n) {
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
    let (level, kernel) = (run.level, E::Compute::kernels().alpha_slope);
    let out = Parts::new(out);
    each_pair(run, shape, (p, g), |row, p, g, _| {
        let slope = kernel(level, alpha.of(row), p, g);
        // SAFETY: each row belongs to one task.
        unsafe { out.part(row, 1)[0] = E::narrow(E::Compute::from_f64(slope)) };
    })
}

fn check_alpha(alpha: PerRow<'_>, rows: usize) -> Result<(), Error> {
    alpha.check("alpha", rows, "finite and at least 1", |a| {
        a >= 1.0 && a.is_finite()
    })
}

/// Visits every row of two arrays of one shape; the last argument is room for a row.
fn each_pair<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    visit: impl Fn(usize, &[E::Compute], &[E::Compute], &mut Vec<E::Compute>) + Sync,
) -> Result<(), Error> {
    shape.check("p", p.len())?;
    shape.check("g", g.len())?;
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::new, |scratch, task| {
        let rows = rows_of(task);
        // SAFETY: nothing is written to p and g.
        let (p, g) = unsafe {
            (
                Scores::new(shape, p).stage(&Source::Apart(p), rows.clone(), &mut scratch.x),
                Scores::new(shape, g).stage(&Source::Apart(g), rows.clone(), &mut scratch.kernel),
            )
        };
        for (row, (p, g)) in rows.zip(p.chunks_exact(shape.n).zip(g.chunks_exact(shape.n))) {
            visit(row, p, g, &mut scratch.y);
        }
    })
}

fn map_pairs<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    pair: (&[E], &[E]),
    out: &mut [E],
    map: impl Fn(Level, usize, &[E::Compute], &[E::Compute], &mut [E::Compute]) + Sync,
) -> Result<(), Error> {
    shape.check("out", out.len())?;
    let level = run.level;
    let out = Parts::new(out);
    each_pair(run, shape, pair, |row, p, g, room| {
        // SAFETY: each row belongs to one task.
        unsafe {
            if shape.inner == 1
                && let Some(y) = E::direct_mut(out.part(row * shape.n, shape.n))
            {
                return map(level, row, p, g, y);
            }
            room.resize(shape.n, E::Compute::ZERO);
            map(level, row, p, g, room);
            store_rows(shape, row..row + 1, room, &out);
        }
    })
}

/// Adds up what `term` makes of the stripes of two rows, a rest being filled with zeros.
macro_rules! sum_pairs {
    ($simd:ident, $t:ty, $s:ty, $p:expr, $g:expr, |$a:ident, $b:ident| $term:expr) => {{
        let mut sum = Sum::<$t, $s>::new($simd);
        for (p, g) in $p.chunks(<$t>::LANES).zip($g.chunks(<$t>::LANES)) {
            let $a = load_padded::<$t, $s>($simd, p, <$t>::ZERO);
            let $b = load_padded::<$t, $s>($simd, g, <$t>::ZERO);
            sum.add($term);
        }
        sum.total()
    }};
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

#[simd]
pub(super) fn softmax_row<S: Simd, T: Real>(simd: S, inverse: T, p: &[T], g: &[T], y: &mut [T]) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    // An entry that is exactly 0 counts for nothing, whatever g is there.
    let mean = sum_pairs!(simd, T, S, p, g, |p, g| p
        .simd_eq(T::ZERO)
        .select(zero, p * g));
    write_pairs!(simd, T, S, p, g, y, |p, g| p
        .simd_eq(T::ZERO)
        .select(zero, p * (g - mean) * inverse));
}

#[simd]
pub(super) fn log_softmax_row<S: Simd, T: Real>(
    simd: S,
    inverse: T,
    log_p: &[T],
    g: &[T],
    y: &mut [T],
) {
    let sum = sum_pairs!(simd, T, S, log_p, g, |_p, g| g);
    write_pairs!(simd, T, S, log_p, g, y, |log_p, g| (g - exp::<T, S>(log_p)
        * sum)
        * inverse);
}

pub(super) fn entmax_row<T: Real>(level: Level, alpha: f64, p: &[T], g: &[T], y: &mut [T]) {
    if alpha > 2.0 {
        let wide = |values: &[T]| values.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let (p, g, mut wide_y) = (wide(p), wide(g), vec![0.0; y.len()]);
        dispatch!(level, simd => heavy_tail_row(simd, 2.0 - alpha, &p, &g, &mut wide_y));
        for (y, wide) in y.iter_mut().zip(wide_y) {
            *y = T::from_f64(wide);
        }
    } else if alpha == 2.0 {
        dispatch!(level, simd => weighted_row::<_, T, 0>(simd, T::ZERO, p, g, y));
    } else if alpha == 1.5 {
        dispatch!(level, simd => weighted_row::<_, T, 1>(simd, T::ZERO, p, g, y));
    } else if alpha == 1.0 {
        dispatch!(level, simd => softmax_row(simd, T::ONE, p, g, y));
    } else {
        dispatch!(level, simd => weighted_row::<_, T, 2>(simd, T::from_f64(2.0 - alpha), p, g, y));
    }
}

/// w = p^exponent on the support: exponent 0 (KIND 0), ½ (1) or any (2).
#[inline(always)]
fn weight<S: Simd, T: Real, const KIND: u8>(exponent: T, p: T::Stripe<S>) -> T::Stripe<S> {
    let simd = p.token();
    let out = p.simd_le(T::ZERO); // a NaN is not, and stays
    let w = match KIND {
        0 => p
            .simd_gt(T::ZERO)
            .select(T::Stripe::<S>::splat(simd, T::ONE), p),
        1 => p.sqrt(),
        _ => exp2::<T, S>(log2::<T, S>(p) * exponent),
    };
    out.select(T::Stripe::<S>::splat(simd, T::ZERO), w)
}

#[simd]
fn weighted_row<S: Simd, T: Real, const KIND: u8>(
    simd: S,
    exponent: T,
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let weights = sum_pairs!(simd, T, S, p, g, |p, _g| weight::<S, T, KIND>(exponent, p));
    if weights == T::ZERO {
        return y.fill(T::ZERO); // a row that was excluded
    }
    let sum = sum_pairs!(simd, T, S, p, g, |p, g| {
        let w = weight::<S, T, KIND>(exponent, p);
        w.simd_eq(T::ZERO).select(zero, w * g)
    });
    let mean = sum / weights;
    write_pairs!(simd, T, S, p, g, y, |p, g| {
        let w = weight::<S, T, KIND>(exponent, p);
        w.simd_eq(T::ZERO).select(zero, w * (g - mean))
    });
}

/// α > 2: the weights fall with p, and the heaviest is set apart (departure 1). In f64, for their range.
#[simd]
fn heavy_tail_row<S: Simd>(simd: S, exponent: f64, p: &[f64], g: &[f64], y: &mut [f64]) {
    if p.iter().any(|p| p.is_nan()) {
        return y.fill(f64::NAN);
    }
    let mut heaviest = None;
    for (k, &value) in p.iter().enumerate() {
        if value > 0.0 && heaviest.is_none_or(|h: usize| value < p[h]) {
            heaviest = Some(k);
        }
    }
    let Some(heaviest) = heaviest else {
        return y.fill(0.0); // a row that was excluded
    };
    let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
    let least = <f64 as Real>::Stripe::<S>::splat(simd, p[heaviest]);
    let most = (log2::<f64, S>(least) * exponent)[0];
    let own = g[heaviest];
    let weights = sum_pairs!(simd, f64, S, p, g, |p, _g| {
        let w = exp2::<f64, S>(log2::<f64, S>(p) * exponent - most);
        p.simd_gt(0.0).select(w, zero)
    });
    let sum = sum_pairs!(simd, f64, S, p, g, |p, g| {
        let w = exp2::<f64, S>(log2::<f64, S>(p) * exponent - most);
        p.simd_gt(0.0).select(w * (g - own), zero)
    });
    let above = sum / weights; // of the mean over g of the heaviest
    write_pairs!(simd, f64, S, p, g, y, |p, g| {
        let difference = (g - own) - above;
        let counts = p.simd_gt(0.0) & !difference.simd_eq(0.0); // a weight may be infinite
        counts.select(
            exp2::<f64, S>(log2::<f64, S>(p) * exponent) * difference,
            zero,
        )
    });
    y[heaviest] = 0.0;
    let others = sum_pairs!(simd, f64, S, y, g, |y, _g| y);
    y[heaviest] = -others;
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

#[simd]
pub(super) fn alpha_slope<S: Simd, T: Real>(simd: S, alpha: f64, p: &[T], g: &[T]) -> f64 {
    let (p, g): (Vec<f64>, Vec<f64>) = p
        .iter()
        .zip(g)
        .filter(|(p, _)| **p != T::ZERO)
        .map(|(p, g)| (p.to_f64(), g.to_f64()))
        .unzip();
    if p.is_empty() {
        return 0.0; // a row that was excluded
    }
    if p.iter().any(|p| p.is_nan()) {
        return f64::NAN;
    }
    let delta = alpha - 1.0;
    let zero = <f64 as Real>::Stripe::<S>::splat(simd, 0.0);
    // ln p where there is a p, 0 in the padding; every sum has a factor p or w, which is 0 there.
    macro_rules! sum {
        (|$p:ident, $g:ident, $l:ident| $term:expr) => {
            sum_pairs!(simd, f64, S, p, g, |$p, $g| {
                let there = $p.simd_gt(0.0);
                let $l = there.select(ln::<f64, S>($p), zero);
                there.select($term, zero)
            })
        };
    }
    let m1 = sum!(|p, _g, l| p * l);
    if delta < FAR_FROM_ONE {
        let m2 = sum!(|p, _g, l| p * l * l * remainder::<S>(l * -delta));
        let a = sum!(|p, g, l| g * p * (-(l * delta) + 1.0));
        let b = sum!(|p, g, l| g * p * l * l * remainder::<S>(l * -delta));
        let z = 1.0 - delta * m1 + delta * delta * m2;
        return (m2 * a - b * (1.0 - delta * m1)) / z;
    }
    let least = p.iter().copied().fold(1.0, f64::min);
    let most = if delta > 1.0 {
        ln::<f64, S>(<f64 as Real>::Stripe::<S>::splat(simd, least))[0]
    } else {
        0.0
    };
    let weights = sum!(|p, _g, l| exp::<f64, S>((l - most) * (1.0 - delta)));
    let weighted = sum!(|p, g, l| g * exp::<f64, S>((l - most) * (1.0 - delta)));
    let s = weighted / weights;
    let gp = sum!(|p, g, _l| g * p);
    let gpl = sum!(|p, g, l| g * p * l);
    (gp - s) / (delta * delta) - (gpl - s * m1) / delta
}

/// `(e^y - 1 - y)/y²` for y ≥ 0.
#[inline(always)]
fn remainder<S: Simd>(y: <f64 as Real>::Stripe<S>) -> <f64 as Real>::Stripe<S> {
    let near = polynomial::<f64, S>(&REMAINDER, y);
    let far = (exp::<f64, S>(y) - 1.0 - y) / (y * y);
    y.simd_le(1.0).select(near, far)
}
