//! What normalises a row of scores: its maximum, and the sum of the exponentials below it.

use fearless_simd::{Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use crate::{
    batch::of_chunks,
    error::Error,
    parallel::Run,
    scalar::Real,
    simd::{Sum, exp_lifted, ln_1p, load_padded, max, store_part, whole_stripes},
};

/// The maximum of a row, and 2^LIFT times the sum of the exponentials. Those at the maximum may be counted apart: then
/// the others keep their digits. Where the maximum is not finite, nothing else is of use.
#[derive(Clone, Copy)]
pub(crate) struct Mass<T> {
    pub(crate) max: T,
    count: T,
    rest: T,
}

impl<T: Real> Mass<T> {
    /// Counts the scores at the maximum apart, or stores the lifted exponentials if the maximum is finite, or both.
    #[inline(always)]
    pub(crate) fn of<S: Simd, const APART: bool, const STORED: bool>(
        simd: S,
        x: &[T],
        inverse: T,
        to: &mut [T],
    ) -> Self {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let max = max::<T, S>(simd, x);
        if !max.is_finite() {
            let nan = x.iter().any(|x| x.is_nan());
            return Self {
                max,
                count: T::ZERO,
                rest: if nan { T::NAN } else { T::ZERO },
            };
        }
        let (stripes, x_rest) = whole_stripes(x);
        let mut sum = Sum::<T, S>::new(simd);
        let mut count = zero;
        for (k, group) in stripes.chunks(Sum::<T, S>::GROUP * T::LANES).enumerate() {
            let mut partial = zero;
            let start = k * Sum::<T, S>::GROUP * T::LANES;
            for (j, x) in group.chunks_exact(T::LANES).enumerate() {
                let z = (T::Stripe::<S>::from_slice(simd, x) - max) * inverse;
                let e = exp_lifted::<T, S>(z);
                if APART {
                    let top = z.simd_eq(T::ZERO);
                    partial += top.select(zero, e);
                    count += top.select(one, zero);
                } else {
                    partial += e;
                }
                if STORED {
                    e.store_slice(&mut to[start + j * T::LANES..][..T::LANES]);
                }
            }
            sum.add(partial);
        }
        if !x_rest.is_empty() {
            let z = (load_padded::<T, S>(simd, x_rest, T::NEG_INFINITY) - max) * inverse;
            let e = exp_lifted::<T, S>(z);
            if APART {
                let top = z.simd_eq(T::ZERO);
                sum.add(top.select(zero, e));
                count += top.select(one, zero);
            } else {
                sum.add(e);
            }
            if STORED {
                store_part::<T, S>(e, &mut to[stripes.len()..]);
            }
        }
        Self {
            max,
            count: T::fold_sum(count),
            rest: sum.total(),
        }
    }

    /// Of a long row: each chunk against its own maximum, then all against the largest.
    pub(super) fn of_long_row<const APART: bool>(
        run: &mut Run<'_>,
        x: &[T],
        inverse: T,
    ) -> Result<Self, Error> {
        let level = run.level;
        let masses = of_chunks(
            run,
            x.len(),
            |at| dispatch!(level, simd => Self::of_chunk::<_, APART>(simd, &x[at], inverse)),
        )?;
        Ok(dispatch!(level, simd => Self::combine(simd, &masses, inverse)))
    }

    #[simd]
    fn of_chunk<S: Simd, const APART: bool>(simd: S, x: &[T], inverse: T) -> Self {
        Self::of::<S, APART, false>(simd, x, inverse, &mut [])
    }

    #[simd]
    fn combine<S: Simd>(simd: S, masses: &[Self], inverse: T) -> Self {
        let mut whole = Self {
            max: T::NEG_INFINITY,
            count: T::ZERO,
            rest: T::ZERO,
        };
        for mass in masses {
            // A NaN maximum must not be lost to a comparison.
            if mass.max > whole.max || mass.max.is_nan() {
                whole.max = mass.max;
            }
        }
        let mut sum = Sum::<T, S>::new(simd);
        for mass in masses {
            if mass.max == whole.max {
                whole.count += mass.count;
                sum.add_one(mass.rest);
            } else {
                let lower = T::Stripe::<S>::splat(simd, (mass.max - whole.max) * inverse);
                let own = mass.count + mass.rest / T::LIFT_FACTOR;
                sum.add_one(exp_lifted::<T, S>(lower)[0] * own);
            }
        }
        whole.rest = sum.total();
        whole
    }

    /// 2^LIFT times the sum of all exponentials.
    #[inline(always)]
    pub(crate) fn lifted(self) -> T {
        self.count * T::LIFT_FACTOR + self.rest
    }

    /// The sum of the exponentials of all scores but one of the largest.
    #[inline(always)]
    fn others(self) -> T {
        (self.count - T::ONE) + self.rest / T::LIFT_FACTOR
    }

    /// The logarithm of the sum.
    #[inline(always)]
    pub(crate) fn log(self) -> f64 {
        libm::log1p(self.others().to_f64())
    }

    /// The logarithm of the sum, as a lane computes it.
    #[inline(always)]
    pub(super) fn log_in_lanes<S: Simd>(self, simd: S) -> T {
        ln_1p::<T, S>(T::Stripe::<S>::splat(simd, self.others()))[0]
    }

    /// p of a score, z being its distance from the largest over T.
    #[inline(always)]
    pub(crate) fn share<S: Simd>(self, simd: S, z: T) -> T {
        exp_lifted::<T, S>(T::Stripe::<S>::splat(simd, z))[0] * (T::ONE / self.lifted())
    }

    /// `1 - p` of a score, z being its distance from the largest over T.
    #[inline(always)]
    pub(crate) fn beside<S: Simd>(self, simd: S, z: T) -> T {
        if z == T::ZERO {
            let others = self.others();
            others / (T::ONE + others)
        } else {
            let own = exp_lifted::<T, S>(T::Stripe::<S>::splat(simd, z))[0];
            (self.lifted() - own) / self.lifted()
        }
    }
}
