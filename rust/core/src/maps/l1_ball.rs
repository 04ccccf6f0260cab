//! The Euclidean projection of rows onto the ball `|p|₁ ≤ r` (Duchi, Shalev-Shwartz, Singer & Chandra 2008).
//!
//! A row inside the ball stays as it is; of any other, the magnitudes are projected onto the simplex of total r
//! ([`super::threshold`]), and keep their signs.
//!
//! * **Domain.** Any values; a NaN makes its row NaN; infinite entries share r equally, with their signs. An entry that
//!   the mask excludes counts as 0 and becomes 0.
//! * **Precision, determinism.** As [`super::project_simplex()`].
//! * **Gradient.** Outside, `J g = s (s g - mean of s g)` on the support, s the signs; on the sphere that is the element of
//!   the generalised Jacobian that is taken.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    gradient::{join, map_pairs},
    kernels::{Map, Vjp},
    power::Linear,
    threshold::{GROUPED, threshold_long_row, threshold_rows},
};
use crate::{
    batch::{
        PerRow, RowMap, Scores, Shape, Storage, map_rows, of_chunks, of_written_chunks,
        write_chunks,
    },
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, load_padded, store_part},
};

/// The Euclidean projection of every row onto `|p|₁ ≤ radius`.
///
/// # Errors
/// [`Error::Domain`] unless every radius is positive in the type of the result, normal in that of the computation, and
/// at most its largest number over 4 n; [`Error::Empty`] and [`Error::Length`] if the shapes do not fit;
/// [`Error::Interrupted`].
pub fn project_l1_ball<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    radius: PerRow<'_>,
    out: &mut [E],
) -> Result<(), Error> {
    check_radius::<E>(scores.shape, radius)?;
    map_rows(run, scores, out, &L1Ball { radius })
}

/// `J g` of [`project_l1_ball`] at its result p. A row whose |p|₁ is the radius, up to some ulp, counts as outside.
///
/// # Errors
/// As [`project_l1_ball`].
pub fn project_l1_ball_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (p, g): (&[E], &[E]),
    radius: PerRow<'_>,
    out: &mut [E],
) -> Result<(), Error> {
    check_radius::<E>(shape, radius)?;
    let kernel = &E::Compute::kernels().maps.l1_ball.vjp;
    let inside = 1.0 - 8.0 * epsilon::<E>();
    map_pairs(run, shape, (p, g), out, kernel, |row| {
        radius.of(row) * inside
    })
}

fn check_radius<E: Storage>(shape: Shape, radius: PerRow<'_>) -> Result<(), Error> {
    let largest = E::Compute::MAX.to_f64() / (4.0 * shape.n as f64);
    let least = E::Compute::MIN_POSITIVE.to_f64();
    let domain = "positive and normal, and so small that a row of it can be added up";
    radius.check("radius", shape.count(), domain, |radius| {
        let held = E::narrow(E::Compute::from_f64(radius)).widen();
        held > E::Compute::ZERO && held.is_finite() && (least..=largest).contains(&radius)
    })
}

/// The distance from 1 to the next larger value that can be stored.
fn epsilon<E: Storage>() -> f64 {
    let moves = |step: f64| E::narrow(E::Compute::from_f64(1.0 + step)).widen() > E::Compute::ONE;
    let mut epsilon = 1.0;
    while moves(epsilon / 2.0) {
        epsilon /= 2.0;
    }
    epsilon
}

/// The kernels for values of type T.
pub(super) struct Kernels<T> {
    map: Map<T, f64>,
    /// By the norm from which p counts as outside.
    vjp: Vjp<T, f64>,
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        map: Map {
            rows: l1_ball_rows,
            long_row: l1_ball_long_row,
        },
        vjp: Vjp {
            row: vjp_row,
            long_row: vjp_long_row,
        },
    };
}

struct L1Ball<'a> {
    radius: PerRow<'a>,
}

impl<T: Compiled> RowMap<T> for L1Ball<'_> {
    const ABSENT: T = T::ZERO;
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
        let rows = T::kernels().maps.l1_ball.map.rows;
        self.radius.each(first, n, x, y, |radius, _, x, y| {
            rows(level, radius, n, x, y, kernel)
        });
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        (T::kernels().maps.l1_ball.map.long_row)(run, self.radius.of(row), x, y)
    }
}

fn l1_ball_rows<T: Real>(
    level: Level,
    radius: f64,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let radius = T::from_f64(radius);
    // As many rows as are projected together.
    let group = if n > GROUPED { n } else { n * T::LANES };
    let mut magnitudes = vec![T::ZERO; group.min(x.len())];
    for (x, y) in x.chunks(group).zip(y.chunks_mut(group)) {
        let magnitudes = &mut magnitudes[..x.len()];
        let rows = || x.chunks_exact(n);
        let mut inside = 0_u64;
        for (row, (x, magnitudes)) in rows().zip(magnitudes.chunks_exact_mut(n)).enumerate() {
            let norm = dispatch!(level, simd => store_magnitudes(simd, x, magnitudes));
            inside |= u64::from(norm <= radius) << row;
        }
        if inside.count_ones() as usize == x.len() / n {
            y.copy_from_slice(x);
            continue;
        }
        let power = Linear { total: radius };
        dispatch!(level, simd => threshold_rows(simd, power, n, magnitudes, y, kernel));
        for (row, (x, y)) in rows().zip(y.chunks_exact_mut(n)).enumerate() {
            if inside >> row & 1 == 1 {
                y.copy_from_slice(x);
            } else {
                dispatch!(level, simd => give_signs(simd, x, y));
            }
        }
    }
}

fn l1_ball_long_row<T: Real>(
    run: &mut Run<'_>,
    radius: f64,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let (level, radius) = (run.level, T::from_f64(radius));
    let mut magnitudes = vec![T::ZERO; x.len()];
    let norms = of_written_chunks(
        run,
        &mut magnitudes,
        |at, to| dispatch!(level, simd => store_magnitudes(simd, &x[at], to)),
    )?;
    if dispatch!(level, simd => add_up(simd, norms.into_iter())) <= radius {
        return write_chunks(run, y, |at, y| y.copy_from_slice(&x[at]));
    }
    threshold_long_row(run, Linear { total: radius }, &magnitudes, y)?;
    write_chunks(
        run,
        y,
        |at, y| dispatch!(level, simd => give_signs(simd, &x[at], y)),
    )
}

/// Writes |x| and returns its sum.
#[simd]
fn store_magnitudes<S: Simd, T: Real>(simd: S, x: &[T], to: &mut [T]) -> T {
    let mut sum = Sum::<T, S>::new(simd);
    let group = Sum::<T, S>::GROUP * T::LANES;
    for (x, to) in x.chunks(group).zip(to.chunks_mut(group)) {
        let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
        for (x, to) in x.chunks(T::LANES).zip(to.chunks_mut(T::LANES)) {
            let magnitude = load_padded::<T, S>(simd, x, T::ZERO).abs();
            store_part::<T, S>(magnitude, to);
            partial += magnitude;
        }
        sum.add(partial);
    }
    sum.total()
}

/// Gives magnitudes the signs of a row; 0 has none.
#[simd]
fn give_signs<S: Simd, T: Real>(simd: S, x: &[T], y: &mut [T]) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    for (x, to) in x.chunks(T::LANES).zip(y.chunks_mut(T::LANES)) {
        let x = load_padded::<T, S>(simd, x, T::ZERO);
        let p = load_padded::<T, S>(simd, to, T::ZERO);
        store_part::<T, S>(x.simd_lt(zero).select(zero - p, p), to);
    }
}

/// `(|p|₁, Σ s g, the size of the support)`
#[simd]
fn vjp_sums<S: Simd, T: Real>(simd: S, p: &[T], g: &[T]) -> [T; 3] {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let (mut norm, mut sum, mut count) = (
        Sum::<T, S>::new(simd),
        Sum::<T, S>::new(simd),
        Sum::<T, S>::new(simd),
    );
    for (p, g) in p.chunks(T::LANES).zip(g.chunks(T::LANES)) {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        let out = p.simd_eq(zero);
        norm.add(p.abs());
        sum.add(out.select(zero, p.simd_lt(zero).select(zero - g, g)));
        count.add(out.select(zero, one));
    }
    [norm.total(), sum.total(), count.total()]
}

#[simd]
fn vjp_write<S: Simd, T: Real>(simd: S, mean: T, p: &[T], g: &[T], y: &mut [T]) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let mean = T::Stripe::<S>::splat(simd, mean);
    let pairs = p.chunks(T::LANES).zip(g.chunks(T::LANES));
    for ((p, g), y) in pairs.zip(y.chunks_mut(T::LANES)) {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        let value = g - p.simd_lt(zero).select(zero - mean, mean);
        store_part::<T, S>(p.simd_eq(zero).select(zero, value), y);
    }
}

/// The mean to take away, of a row with these sums; nothing where J is the identity.
fn mean<T: Real>(from: f64, [norm, sum, count]: [T; 3]) -> Option<T> {
    if norm.is_nan() {
        Some(T::NAN)
    } else {
        (norm.to_f64() >= from).then(|| sum / count)
    }
}

fn vjp_row<T: Real>(level: Level, from: f64, p: &[T], g: &[T], y: &mut [T]) {
    let sums = dispatch!(level, simd => vjp_sums(simd, p, g));
    match mean(from, sums) {
        Some(mean) => dispatch!(level, simd => vjp_write(simd, mean, p, g, y)),
        None => y.copy_from_slice(g),
    }
}

fn vjp_long_row<T: Real>(
    run: &mut Run<'_>,
    from: f64,
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let sums = of_chunks(
        run,
        p.len(),
        |at| dispatch!(level, simd => vjp_sums(simd, &p[at.clone()], &g[at])),
    )?;
    let sums = dispatch!(level, simd => join(simd, &sums));
    let mean = mean(from, sums);
    write_chunks(run, y, |at, y| match mean {
        Some(mean) => {
            let (p, g) = (&p[at.clone()], &g[at]);
            dispatch!(level, simd => vjp_write(simd, mean, p, g, y));
        }
        None => y.copy_from_slice(&g[at]),
    })
}
