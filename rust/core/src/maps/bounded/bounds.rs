//! The bounds of rows, as the kernels read them.

use std::ops::Range;

use fearless_simd::prelude::*;

use super::Upper;
use crate::{maps::tile, scalar::Real, simd::load_padded};

impl<'a, T: Real> Upper<'a, T> {
    /// The bounds of a row.
    pub(super) fn of_row(self, row: usize, n: usize) -> Caps<'a, T> {
        match self {
            Upper::All(u) => Caps::Same(T::from_f64(u)),
            Upper::Row(u) => Caps::Own(u),
            Upper::Each(u) => Caps::Own(&u[row * n..(row + 1) * n]),
        }
    }

    /// The bounds of the rows from the first on.
    pub(super) fn rows_from(self, first: usize, n: usize) -> Self {
        match self {
            Upper::Each(u) => Upper::Each(&u[first * n..]),
            upper => upper,
        }
    }

    /// Those of rows of n values, where values have their own.
    pub(super) fn own(self, n: usize) -> OwnRows<'a, T> {
        match self {
            Upper::All(_) => OwnRows(&[], 0),
            Upper::Row(u) => OwnRows(u, 0),
            Upper::Each(u) => OwnRows(u, n),
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

/// Bounds as the kernels read them, none above the total.
pub(super) trait Bounds<T: Real>: Copy + Sync {
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
pub(super) struct Same<T>(T);

impl<T: Real> Same<T> {
    pub(super) fn new(value: T, most: T) -> Self {
        Self(less(value, most))
    }
}

impl<T: Real> Bounds<T> for Same<T> {
    const OWN: bool = false;
    type Of<'a> = Self;

    #[inline(always)]
    fn stripe<S: Simd>(self, simd: S, _: usize) -> T::Stripe<S> {
        T::Stripe::<S>::splat(simd, self.0)
    }
    #[inline(always)]
    fn register<S: Simd>(self, simd: S, _: usize) -> T::Native<S> {
        T::Native::<S>::splat(simd, self.0)
    }
    fn at_most(self, most: T) -> Self {
        Self::new(self.0, most)
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
        self.0
    }
}

#[derive(Clone, Copy)]
pub(super) struct Own<'a, T> {
    pub(super) values: &'a [T],
    pub(super) most: T,
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
        less(self.values[index], self.most)
    }
}

/// The smaller of two numbers.
fn less<T: Real>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

/// Evaluates an expression with the bounds of a row, limited to the total, in their type.
macro_rules! with_bounds {
    ($caps:expr, $most:expr, |$bounds:ident| $body:expr) => {
        match $caps {
            Caps::Same(value) => {
                let $bounds = Same::new(value, $most);
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
pub(super) use with_bounds;

/// The bounds of the values of some rows, where these have their own, and how far those of two rows lie apart.
#[derive(Clone, Copy)]
pub(super) struct OwnRows<'a, T>(&'a [T], usize);

impl<'a, T: Real> OwnRows<'a, T> {
    /// Those of a row of n values.
    #[inline(always)]
    pub(super) fn row(self, row: usize, n: usize) -> &'a [T] {
        let Self(u, stride) = self;
        &u[(row * stride).min(u.len())..(row * stride + n).min(u.len())]
    }

    /// Turns those of `rows` rows into columns.
    #[inline(always)]
    pub(super) fn load<S: Simd>(
        self,
        simd: S,
        rows: usize,
        n: usize,
        columns: &mut [T],
        spare: &mut [T],
    ) {
        let Self(u, stride) = self;
        if stride > 0 {
            return tile::load(simd, u, rows, n, columns, spare);
        }
        for (column, &u) in columns.chunks_exact_mut(T::LANES).zip(u) {
            column.fill(u);
        }
    }
}
