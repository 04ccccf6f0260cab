//! The threshold maps of the public interface: [`project_simplex`], [`entmax`], [`threshold`].
//!
//! Each row's α chooses its kernel: 1 is softmax; 3/2 and 2 are powers by multiplication; the rest of (1, 2) goes
//! through exp₂ and log₂ ([`super::threshold`]); beyond 2, [`super::anchored`].

use fearless_simd::{Level, dispatch};

use super::{
    anchored::{self, Root},
    infinite::{infinities, infinities_of_long_row},
    power::{General, Linear, NEAR_ONE, Plain, Solved, Square},
    softmax::{softmax_long_row, softmax_rows},
    tempered::Tempered,
    threshold::{
        bisect_long_row, bisect_row, locate, room, threshold_and_support,
        threshold_and_support_of_long_row, threshold_long_row, threshold_rows,
    },
};
use crate::{
    batch::{LONG, PerRow, RowMap, Scores, Scratch, Source, Storage, map_rows, tasks},
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    scalar::Real,
};

/// How [`entmax`] finds the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// To the last place, by the method that suits α.
    Auto,
    /// By this many halvings, then divided by the sum: what other packages do, for comparison.
    Bisect(u32),
}

/// The Euclidean projection of every row onto `{p ≥ 0, Σ p = total}`; sparsemax if the total is 1.
///
/// # Errors
/// [`Error::Domain`] unless every total is finite and positive in the type of the result, normal in that of the
/// computation, and at most its largest number over 4 n; [`Error::Empty`] and [`Error::Length`] if the shapes do not
/// fit; [`Error::Interrupted`].
pub fn project_simplex<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    total: PerRow<'_>,
    out: &mut [E],
) -> Result<(), Error> {
    map_rows(run, scores, out, &Project::new::<E>(scores, total)?)
}

/// `p = [(α-1) x/temperature - τ]₊^{1/(α-1)}`, `Σ p = 1`, of every row: softmax at α = 1, sparsemax at 2.
///
/// # Errors
/// [`Error::Domain`] unless every α is finite and at least 1 and the temperature is finite and positive; else as
/// [`project_simplex`].
pub fn entmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    alpha: PerRow<'_>,
    method: Method,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let map = Entmax::new(scores, alpha, method)?;
    map_rows(run, scores, out, &Tempered::new(map, temperature)?)
}

/// τ of every row in the convention of [`entmax`], and the number of scores above it.
///
/// # Errors
/// [`Error::Domain`] unless every α is finite and more than 1; else as [`project_simplex`].
pub fn threshold<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    alpha: PerRow<'_>,
    tau: &mut [E],
    support: &mut [i64],
) -> Result<(), Error> {
    let shape = scores.shape;
    scores.check()?;
    alpha.check("alpha", shape.count(), "finite and more than 1", |a| {
        a > 1.0 && a.is_finite()
    })?;
    for (argument, found) in [("tau", tau.len()), ("support", support.len())] {
        if found != shape.count() {
            return Err(Error::Length {
                argument,
                expected: shape.count(),
                found,
            });
        }
    }
    let (level, kernel) = (run.level, &E::Compute::kernels().maps.threshold);
    let Some(x) = scores.x else {
        return Err(Error::Empty { argument: "x" }); // there is no output to be mapped in place
    };
    if shape.n > LONG {
        let mut room = Vec::new();
        for (row, (tau, support)) in tau.iter_mut().zip(support).enumerate() {
            // SAFETY: nothing is written to the scores.
            let x = unsafe {
                scores.stage_long_row(
                    run,
                    &Source::Apart(x),
                    row,
                    E::Compute::NEG_INFINITY,
                    &mut room,
                )?
            };
            let found = (kernel.long_row)(run, alpha.of(row), x)?;
            (*tau, *support) = (E::narrow(found.0), found.1 as i64);
        }
        return Ok(());
    }
    let (tau, support) = (Parts::new(tau), Parts::new(support));
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::new, |scratch, task| {
        let rows = rows_of(task);
        // SAFETY: the scores lie apart from the results.
        let x = unsafe {
            scores.stage(
                &Source::Apart(x),
                rows.clone(),
                E::Compute::NEG_INFINITY,
                &mut scratch.x,
            )
        };
        for (row, x) in rows.zip(x.chunks_exact(shape.n)) {
            let found = (kernel.row)(level, alpha.of(row), x, &mut scratch.kernel);
            // SAFETY: each row belongs to one task.
            unsafe {
                tau.part(row, 1)[0] = E::narrow(found.0);
                support.part(row, 1)[0] = found.1 as i64;
            }
        }
    })
}

pub(super) fn threshold_of_row<T: Real>(
    level: Level,
    alpha: f64,
    x: &[T],
    kernel: &mut Vec<T>,
) -> (T, usize) {
    fn by_power<T: Real, P: Solved<T>>(
        level: Level,
        power: P,
        x: &[T],
        kernel: &mut Vec<T>,
    ) -> Option<(T, usize)> {
        kernel.resize(room::<T>(x.len()), T::ZERO);
        let found = dispatch!(level, simd => locate(simd, power, x, kernel))?;
        Some(dispatch!(level, simd => threshold_and_support(simd, power, found.position, x)))
    }
    let found = match Kernel::of(alpha) {
        Kernel::Sparsemax => by_power(level, Linear { total: T::ONE }, x, kernel),
        Kernel::Square => by_power(level, Square, x, kernel),
        Kernel::Softmax | Kernel::Near => {
            by_power(level, General::<T, true>::new(alpha), x, kernel)
        }
        Kernel::General => by_power(level, General::<T, false>::new(alpha), x, kernel),
        Kernel::Root => anchored::threshold_and_support(level, Root::new(alpha), x, kernel),
    };
    found.unwrap_or_else(|| threshold_at_infinity(infinities(x)))
}

pub(super) fn threshold_of_long_row<T: Real>(
    run: &mut Run<'_>,
    alpha: f64,
    x: &[T],
) -> Result<(T, usize), Error> {
    let found = match Kernel::of(alpha) {
        Kernel::Sparsemax => threshold_and_support_of_long_row(run, Linear { total: T::ONE }, x)?,
        Kernel::Square => threshold_and_support_of_long_row(run, Square, x)?,
        Kernel::Softmax | Kernel::Near => {
            threshold_and_support_of_long_row(run, General::<T, true>::new(alpha), x)?
        }
        Kernel::General => {
            threshold_and_support_of_long_row(run, General::<T, false>::new(alpha), x)?
        }
        Kernel::Root => anchored::threshold_and_support_of_long_row(run, Root::new(alpha), x)?,
    };
    match found {
        Some(found) => Ok(found),
        None => Ok(threshold_at_infinity(infinities_of_long_row(run, x)?)),
    }
}

/// τ and the support of a row without a finite maximum, or with a NaN.
fn threshold_at_infinity<T: Real>(infinities: Option<usize>) -> (T, usize) {
    match infinities {
        Some(count) if count > 0 => (T::INFINITY, count),
        _ => (T::NAN, 0),
    }
}

/// More halvings change nothing: no interval is longer than 2¹⁰²⁵, and half of 2⁻¹⁰⁷⁴ is 0.
const MOST_HALVINGS: u32 = 2100;

/// The kernel of an α.
enum Kernel {
    Softmax,
    Near,
    Square,
    General,
    Sparsemax,
    Root,
}

impl Kernel {
    fn of(alpha: f64) -> Self {
        match alpha {
            1.0 => Self::Softmax,
            1.5 => Self::Square,
            2.0 => Self::Sparsemax,
            _ if alpha < NEAR_ONE => Self::Near,
            _ if alpha < 2.0 => Self::General,
            _ => Self::Root,
        }
    }
}

pub(super) struct Project<'a> {
    total: PerRow<'a>,
}

impl<'a> Project<'a> {
    pub(super) fn new<E: Storage>(
        scores: &Scores<'_, E>,
        total: PerRow<'a>,
    ) -> Result<Self, Error> {
        let rows = scores.shape.count();
        let domain = "finite and positive in the type of the result";
        total.check("total", rows, domain, |total| {
            let held = E::narrow(E::Compute::from_f64(total)).widen();
            held > E::Compute::ZERO && held.is_finite()
        })?;
        let largest = E::Compute::MAX.to_f64() / (4.0 * scores.shape.n as f64);
        let least = E::Compute::MIN_POSITIVE.to_f64();
        let domain = "normal, and so small that a row of it can be added up";
        total.check("total", rows, domain, |total| {
            (least..=largest).contains(&total)
        })?;
        Ok(Self { total })
    }
}

impl<T: Compiled> RowMap<T> for Project<'_> {
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
        let rows = T::kernels().maps.project.rows;
        self.total.each(first, n, x, y, |total, _, x, y| {
            rows(level, total, n, x, y, kernel)
        });
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        (T::kernels().maps.project.long_row)(run, self.total.of(row), x, y)
    }
}

pub(super) fn project_rows<T: Real>(
    level: Level,
    total: f64,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let power = Linear {
        total: T::from_f64(total),
    };
    dispatch!(level, simd => threshold_rows(simd, power, n, x, y, kernel));
}

pub(super) fn project_long_row<T: Real>(
    run: &mut Run<'_>,
    total: f64,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let total = T::from_f64(total);
    threshold_long_row(run, Linear { total }, x, y)
}

pub(super) struct Entmax<'a> {
    alpha: PerRow<'a>,
    method: Method,
}

impl<'a> Entmax<'a> {
    pub(super) fn new<E: Storage>(
        scores: &Scores<'_, E>,
        alpha: PerRow<'a>,
        method: Method,
    ) -> Result<Self, Error> {
        alpha.check(
            "alpha",
            scores.shape.count(),
            "finite and at least 1",
            |a| a >= 1.0 && a.is_finite(),
        )?;
        let method = match method {
            Method::Bisect(0) => {
                return Err(Error::Domain {
                    argument: "n_iter",
                    domain: "at least 1",
                    value: 0.0,
                });
            }
            Method::Bisect(steps) => Method::Bisect(steps.min(MOST_HALVINGS)),
            Method::Auto => method,
        };
        Ok(Self { alpha, method })
    }
}

impl<T: Compiled> RowMap<T> for Entmax<'_> {
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
        let rows = T::kernels().maps.entmax.rows;
        self.alpha.each(first, n, x, y, |alpha, _, x, y| {
            rows(level, (alpha, self.method), n, x, y, kernel);
        });
    }

    fn long_row(&self, run: &mut Run<'_>, row: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        (T::kernels().maps.entmax.long_row)(run, (self.alpha.of(row), self.method), x, y)
    }
}

pub(super) fn entmax_rows<T: Real>(
    level: Level,
    (alpha, method): (f64, Method),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    match (Kernel::of(alpha), method) {
        (Kernel::Softmax, _) => {
            dispatch!(level, simd => softmax_rows::<_, T, false>(simd, T::ONE, n, x, y, kernel))
        }
        (_, Method::Bisect(steps)) => {
            let power = Plain::new(alpha);
            kernel.resize(room::<T>(n), T::ZERO);
            for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
                dispatch!(level, simd => bisect_row(simd, power, steps, x, y, kernel));
            }
        }
        (Kernel::Square, _) => {
            dispatch!(level, simd => threshold_rows(simd, Square, n, x, y, kernel))
        }
        (Kernel::Sparsemax, _) => project_rows(level, 1.0, n, x, y, kernel),
        (Kernel::Near, _) => {
            let power = General::<T, true>::new(alpha);
            dispatch!(level, simd => threshold_rows(simd, power, n, x, y, kernel))
        }
        (Kernel::General, _) => {
            let power = General::<T, false>::new(alpha);
            dispatch!(level, simd => threshold_rows(simd, power, n, x, y, kernel))
        }
        (Kernel::Root, _) => {
            let root = Root::new(alpha);
            for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
                anchored::anchored_row(level, root, x, y, kernel);
            }
        }
    }
}

pub(super) fn entmax_long_row<T: Real>(
    run: &mut Run<'_>,
    (alpha, method): (f64, Method),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    match (Kernel::of(alpha), method) {
        (Kernel::Softmax, _) => softmax_long_row::<T, false>(run, T::ONE, x, y),
        (_, Method::Bisect(steps)) => bisect_long_row(run, Plain::new(alpha), steps, x, y),
        (Kernel::Square, _) => threshold_long_row(run, Square, x, y),
        (Kernel::Sparsemax, _) => project_long_row(run, 1.0, x, y),
        (Kernel::Near, _) => threshold_long_row(run, General::<T, true>::new(alpha), x, y),
        (Kernel::General, _) => threshold_long_row(run, General::<T, false>::new(alpha), x, y),
        (Kernel::Root, _) => anchored::anchored_long_row(run, Root::new(alpha), x, y),
    }
}
