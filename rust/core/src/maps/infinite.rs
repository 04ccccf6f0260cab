//! Rows whose maximum is not finite: scores of +∞ share the mass equally; with a NaN, or nothing above -∞, all is NaN.

use fearless_simd::prelude::*;

use crate::{
    batch::{of_chunks, write_chunks},
    error::Error,
    parallel::Run,
    scalar::Real,
    simd::ln_1p,
};

/// What the scores of such a row get.
#[derive(Clone, Copy)]
pub(crate) struct Shares<T> {
    /// What +∞ gets.
    top: T,
    /// What the others get.
    rest: T,
}

impl<T: Real> Shares<T> {
    /// Shares of a mass.
    #[cold]
    pub(crate) fn of_row(x: &[T], total: T) -> Self {
        Self::among(infinities(x), total)
    }

    pub(super) fn among(count: Option<usize>, total: T) -> Self {
        match count {
            None | Some(0) => Self {
                top: T::NAN,
                rest: T::NAN,
            },
            Some(count) => Self {
                top: total / T::from_f64(count as f64),
                rest: T::ZERO,
            },
        }
    }

    /// The logarithms of shares of 1.
    pub(super) fn logarithms<S: Simd>(simd: S, count: Option<usize>) -> Self {
        match count {
            None | Some(0) => Self::among(count, T::ONE),
            Some(count) => {
                let others = T::from_f64((count - 1) as f64);
                Self {
                    top: -ln_1p::<T, S>(T::Stripe::<S>::splat(simd, others))[0],
                    rest: T::NEG_INFINITY,
                }
            }
        }
    }

    /// What a score gets.
    pub(crate) fn at(self, x: T) -> T {
        if x == T::INFINITY {
            self.top
        } else {
            self.rest
        }
    }

    /// Writes what each score gets.
    pub(crate) fn write(self, x: &[T], y: &mut [T]) {
        for (x, y) in x.iter().zip(y) {
            *y = self.at(*x);
        }
    }

    /// As [`Shares::write`].
    pub(super) fn write_long_row(
        self,
        run: &mut Run<'_>,
        x: &[T],
        y: &mut [T],
    ) -> Result<(), Error> {
        write_chunks(run, y, |at, y| self.write(&x[at], y))
    }
}

/// How many scores are +∞; nothing if there is a NaN.
pub(super) fn infinities<T: Real>(x: &[T]) -> Option<usize> {
    let count = x.iter().filter(|&&x| x == T::INFINITY).count();
    (!x.iter().any(|x| x.is_nan())).then_some(count)
}

/// [`infinities`] of a long row.
pub(super) fn infinities_of_long_row<T: Real>(
    run: &mut Run<'_>,
    x: &[T],
) -> Result<Option<usize>, Error> {
    let counts = of_chunks(run, x.len(), |at| infinities(&x[at]))?;
    Ok(counts.into_iter().sum())
}

/// Writes shares of a mass.
#[cold]
pub(super) fn share_infinities<T: Real>(x: &[T], y: &mut [T], total: T) {
    Shares::of_row(x, total).write(x, y);
}

/// [`share_infinities`] of a long row.
#[cold]
pub(super) fn share_infinities_of_long_row<T: Real>(
    run: &mut Run<'_>,
    x: &[T],
    y: &mut [T],
    total: T,
) -> Result<(), Error> {
    Shares::among(infinities_of_long_row(run, x)?, total).write_long_row(run, x, y)
}
