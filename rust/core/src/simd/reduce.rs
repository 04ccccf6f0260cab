//! Reductions whose order, and so whose bits, do not depend on the width of the registers.

use fearless_simd::{Simd, prelude::*};

use crate::scalar::Real;

/// A running sum of stripes that keeps what rounding loses.
///
/// Stripes are added in groups of [`Sum::GROUP`] by plain additions, and each group by an error-free one. So the error
/// is that of `GROUP` additions, however many stripes there are: about one ulp, also for a million equal values.
pub struct Sum<T: Real, S: Simd> {
    high: T::Stripe<S>,
    low: T::Stripe<S>,
}

impl<T: Real, S: Simd> Sum<T, S> {
    /// Stripes that the caller adds up before handing them over.
    pub const GROUP: usize = 8;

    /// No values yet.
    #[inline(always)]
    pub fn new(simd: S) -> Self {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        Self {
            high: zero,
            low: zero,
        }
    }

    /// Adds the sum of at most [`Sum::GROUP`] stripes.
    #[inline(always)]
    pub fn add(&mut self, group: T::Stripe<S>) {
        let (sum, error) = two_sum::<T, S>(self.high, group);
        self.high = sum;
        self.low += error;
    }

    /// Adds a single value.
    #[inline(always)]
    pub fn add_one(&mut self, value: T) {
        let mut first = T::Stripe::<S>::splat(self.high.token(), T::ZERO);
        first[0] = value;
        self.add(first);
    }

    /// The sum in each lane.
    #[inline(always)]
    pub fn lanes(self) -> T::Stripe<S> {
        self.high + self.low
    }

    /// The sum of all lanes.
    #[inline(always)]
    pub fn total(self) -> T {
        T::fold_sum(self.high) + T::fold_sum(self.low)
    }
}

/// The sum of single values, in their order.
#[inline(always)]
pub fn add_up<T: Real, S: Simd>(simd: S, values: impl Iterator<Item = T>) -> T {
    let mut sum = Sum::<T, S>::new(simd);
    for value in values {
        sum.add_one(value); // in a closure, it would lose the target features
    }
    sum.total()
}

/// `a + b` rounded, and what the rounding lost, exactly (Knuth).
#[inline(always)]
pub fn two_sum<T: Real, S: Simd>(a: T::Stripe<S>, b: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// The first stripe of the values, filled up where there are fewer.
#[inline(always)]
pub fn load_padded<T: Real, S: Simd>(simd: S, x: &[T], fill: T) -> T::Stripe<S> {
    if let Some(x) = x.get(..T::LANES) {
        return T::Stripe::<S>::from_slice(simd, x);
    }
    let mut stripe = T::Stripe::<S>::splat(simd, fill);
    stripe.as_mut_slice()[..x.len()].copy_from_slice(x);
    stripe
}

/// Stores as much of the stripe as there is room for.
#[inline(always)]
pub fn store_part<T: Real, S: Simd>(stripe: T::Stripe<S>, to: &mut [T]) {
    match to.get_mut(..T::LANES) {
        Some(to) => stripe.store_slice(to),
        None => to.copy_from_slice(&stripe.as_slice()[..to.len()]),
    }
}

/// Cuts a slice into whole stripes and what is left.
///
/// Loops run over the whole stripes: with the rest among them, the compiler keeps every stripe in memory.
#[inline(always)]
pub fn whole_stripes<T: Real>(x: &[T]) -> (&[T], &[T]) {
    x.split_at(x.len() / T::LANES * T::LANES)
}

/// [`whole_stripes`] to write to.
#[inline(always)]
pub fn whole_stripes_mut<T: Real>(x: &mut [T]) -> (&mut [T], &mut [T]) {
    x.split_at_mut(x.len() / T::LANES * T::LANES)
}

/// The largest value, -∞ if there are none; if there is a NaN, nothing is promised.
#[inline(always)]
pub fn max<T: Real, S: Simd>(simd: S, x: &[T]) -> T {
    let [a, b, c, d] = max_of_each_quarter::<T, S>(simd, x);
    T::fold_max(a.max(b).max(c.max(d)))
}

/// The maxima of `4 · LANES` interleaved parts of the values.
#[inline(always)]
pub fn max_of_each_quarter<T: Real, S: Simd>(simd: S, x: &[T]) -> [T::Stripe<S>; 4] {
    let [mut a, mut b, mut c, mut d] = [T::Stripe::<S>::splat(simd, T::NEG_INFINITY); 4];
    let (fours, rest) = x.split_at(x.len() / (4 * T::LANES) * (4 * T::LANES));
    for four in fours.chunks_exact(4 * T::LANES) {
        let (ab, cd) = four.split_at(2 * T::LANES);
        a = a.max(T::Stripe::<S>::from_slice(simd, &ab[..T::LANES]));
        b = b.max(T::Stripe::<S>::from_slice(simd, &ab[T::LANES..]));
        c = c.max(T::Stripe::<S>::from_slice(simd, &cd[..T::LANES]));
        d = d.max(T::Stripe::<S>::from_slice(simd, &cd[T::LANES..]));
    }
    let (stripes, rest) = whole_stripes(rest);
    for stripe in stripes.chunks_exact(T::LANES) {
        a = a.max(T::Stripe::<S>::from_slice(simd, stripe));
    }
    [
        a,
        b,
        c,
        d.max(load_padded::<T, S>(simd, rest, T::NEG_INFINITY)),
    ]
}
