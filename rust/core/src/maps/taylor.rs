//! Taylor softmax of rows: `p = f(x/T) / Σ f(x/T)`, `f(u) = Σ_{m ≤ order} uᵐ/m!`, the order even (de Brébisson &
//! Vincent 2016; Banerjee et al. 2020).
//!
//! * **Domain.** Any values. A NaN makes its row NaN; -∞ gets exactly 0 and takes no part, a row of only -∞ is NaN; +∞
//!   entries share the mass equally. The map is not invariant to a shift, nor monotone: f falls, and then rises.
//! * **Precision.** A few ulp for each factor of f: nothing cancels in them.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** Two passes over a row while it lies in cache; narrow rows go a lane each ([`super::tile`]).
//!
//! ```text
//! f(u) = 1/order! · Π ((u - a)² + b²), a ± bi the roots of f
//! tᵢ ← Π ((xᵢ/T - a)² + b²);  pᵢ ← tᵢ / Σ t
//! ∂pᵢ/∂xⱼ = pᵢ (δᵢⱼ - pⱼ) r(xⱼ)/T,  r = f'/f = Σ 2 (u - a)/((u - a)² + b²)
//! ```
//!
//! 1. Where that overflows, `s u`, `s a` and `s b` take the place of u, a and b: s is a power of two, the digits stay.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    gradient::{Pullback, Softmax, map_pairs},
    infinite::{
        infinities, infinities_of_long_row, share_infinities, share_infinities_of_long_row,
    },
    kernels::{Map, Vjp},
    softmax::{inverse_temperature, multiply},
    threshold::max_of_long_row,
    tile::{self, InLanes},
};
use crate::{
    batch::{RowMap, Scores, Shape, Storage, map_rows, of_chunks, of_written_chunks, write_chunks},
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, load_padded, max, store_part, whole_stripes, whole_stripes_mut},
};

/// Rows of at most this many values go a lane each.
const TILED: usize = 64;

/// The largest order.
const MOST: usize = 16;

/// The pairs of roots a ± bi, as a and b², of the orders 2, 4, … 16; made by `taylor_roots.py`.
const ROOTS: [&[(f64, f64)]; MOST / 2] = [
    &[(-1.0, 1.0)],
    &[
        (-1.7294442310677054, 0.7902754414012606),
        (-0.27055576893229455, 6.273902331074652),
    ],
    &[
        (-2.361810180482303, 0.7028311884851056),
        (-1.4418013905495437, 5.926900688239505),
        (0.8036115710318467, 13.672998258792108),
    ],
    &[
        (-2.964599505160356, 0.6542841483975133),
        (-2.286429284171176, 5.653512775163566),
        (-0.7887936203876237, 14.226556589923037),
        (2.0398224097191555, 22.265326422785105),
    ],
    &[
        (-3.553875993928198, 0.6231872249622873),
        (-3.015535770425964, 5.453270465807628),
        (-1.8716600104194736, 14.21433438101912),
        (0.06620154630149054, 24.67783832714085),
        (3.3748702284721452, 31.652103062371527),
    ],
    &[
        (-4.135608239264631, 0.601465469937989),
        (-3.688897102446205, 5.30269048840861),
        (-2.757989231191921, 14.081619361905425),
        (-1.2491251433584185, 25.498006781499022),
        (1.053423639656268, 36.71743643707571),
        (4.778196076604908, 41.61767613649275),
    ],
    &[
        (-4.712586827653057, 0.5853820874731546),
        (-4.330708233773803, 5.185803498793988),
        (-3.543834464412609, 13.927246237492103),
        (-2.2976984118692925, 25.790069630476626),
        (-0.483158563940138, 38.92698378061337),
        (2.135677467731855, 49.99293093426937),
        (6.232309033917045, 52.02950928652225),
    ],
    &[
        (-5.286317803783073, 0.5729636445894339),
        (-4.952781382083705, 5.092525117532633),
        (-4.270424289875023, 13.778450721160194),
        (-3.20474966452649, 25.86622459125082),
        (-1.6915471777293483, 40.03648566619699),
        (0.38929335709019736, 54.10258673750841),
        (3.2904247642544098, 64.26618195913089),
        (7.726102196653032, 62.7991563864809),
    ],
];

/// `f(x/temperature) / Σ f(x/temperature)` of every row, f being the exponential function's series up to this order.
///
/// # Errors
/// [`Error::Domain`] unless the order is even and from 2 to 16; else as [`super::softmax()`].
pub fn taylor_softmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    order: usize,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_order(order)?;
    let inverse = inverse_temperature(temperature)?;
    map_rows(run, scores, out, &Taylor::<E::Compute> { order, inverse })
}

/// `Jᵀ g` of [`taylor_softmax`] at the scores x: not at its result, for two scores may have the same.
///
/// # Errors
/// As [`taylor_softmax`].
pub fn taylor_softmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (x, g): (&[E], &[E]),
    order: usize,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_order(order)?;
    let inverse = inverse_temperature(temperature)?;
    shape.check("x", x.len())?;
    let kernel = &E::Compute::kernels().maps.taylor.vjp;
    map_pairs(run, shape, (x, g), out, kernel, |_| (order, inverse))
}

fn check_order(order: usize) -> Result<(), Error> {
    if order.is_multiple_of(2) && (2..=MOST).contains(&order) {
        return Ok(());
    }
    Err(Error::Domain {
        argument: "order",
        domain: "even and from 2 to 16",
        value: order as f64,
    })
}

struct Taylor<T> {
    order: usize,
    inverse: T,
}

impl<T: Compiled> RowMap<T> for Taylor<T> {
    const EXCLUDED: T = T::ZERO;

    fn rows(&self, level: Level, _: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>) {
        let map = &T::kernels().maps.taylor.map;
        (map.rows)(level, (self.order, self.inverse), n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, _: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let map = &T::kernels().maps.taylor.map;
        (map.long_row)(run, (self.order, self.inverse), x, y)
    }
}

/// The kernels for values of type T, by the order and 1/T.
pub(super) struct Kernels<T> {
    map: Map<T, (usize, T)>,
    vjp: Vjp<T, (usize, T)>,
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        map: Map {
            rows: |level, (order, inverse), n, x, y, kernel| {
                dispatch!(level, simd => taylor_rows(simd, order, inverse, n, x, y, kernel));
            },
            long_row: taylor_long_row,
        },
        vjp: Vjp {
            row: |level, (order, inverse), x, g, y| {
                dispatch!(level, simd => pull_row(simd, order, inverse, x, g, y));
            },
            long_row: pull_long_row,
        },
    };
}

#[simd]
fn taylor_rows<S: Simd, T: Real>(
    simd: S,
    order: usize,
    inverse: T,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let product = Product::new(order, inverse);
    if n <= TILED {
        return tile::map_rows(simd, product, n, x, y, kernel);
    }
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        product.row(simd, x, y);
    }
}

impl<T: Real> InLanes<T> for Product<T> {
    #[inline(always)]
    fn tile<S: Simd>(self, simd: S, columns: &mut [T], _: &mut [T]) -> T::Stripe<S> {
        for column in columns.chunks_exact_mut(T::LANES) {
            self.term::<S>(T::Stripe::<S>::from_slice(simd, column))
                .store_slice(column);
        }
        let sum = tile::sum::<T, S>(simd, columns);
        tile::multiply(simd, columns, T::Stripe::<S>::splat(simd, T::ONE) / sum);
        sum
    }

    #[inline(always)]
    fn row<S: Simd>(self, simd: S, x: &[T], y: &mut [T]) {
        match terms_of_row(simd, self, x, y) {
            Some((_, sum)) => multiply(simd, y, T::ONE / sum),
            None => share_infinities(x, y, T::ONE),
        }
    }
}

/// Writes the terms of a row; returns what they are made by, and their sum. Nothing if the maximum is not finite, or a
/// NaN is among the scores.
#[inline(always)]
fn terms_of_row<S: Simd, T: Real>(
    simd: S,
    product: Product<T>,
    x: &[T],
    y: &mut [T],
) -> Option<(Product<T>, T)> {
    let sum = product.terms(simd, x, y);
    if holds(sum) {
        return Some((product, sum));
    }
    let max = max::<T, S>(simd, x);
    if !max.is_finite() {
        return None;
    }
    let product = product.scaled(largest(x));
    let sum = product.terms(simd, x, y);
    (!sum.is_nan()).then_some((product, sum))
}

/// Whether a sum of terms is neither empty nor beyond the numbers.
fn holds<T: Real>(sum: T) -> bool {
    sum > T::ZERO && sum.is_finite()
}

/// The largest magnitude but for -∞.
fn largest<T: Real>(x: &[T]) -> T {
    let mut largest = T::ZERO;
    for x in x {
        if x.is_finite() && x.abs() > largest {
            largest = x.abs();
        }
    }
    largest
}

/// `order! f` as the product of its factors, in units in which it does not overflow.
#[derive(Clone, Copy)]
struct Product<T> {
    order: usize,
    /// 1/T as it was given.
    given: T,
    /// s a and (s b)².
    factors: [(T, T); MOST / 2],
    /// s u is x times both.
    shrink: T,
    inverse: T,
    /// s/T, which a slope is multiplied by.
    unit: T,
}

impl<T: Real> Product<T> {
    /// With s = 1.
    fn new(order: usize, inverse: T) -> Self {
        Self::with_unit(order, inverse, 1.0, T::ONE, inverse)
    }

    /// With s such that no product overflows, x being at most `largest`.
    fn scaled(self, largest: T) -> Self {
        // Three quarters of the exponents are for the product, the rest for the sum.
        let most = (0.75 * T::EXPONENT_BIAS.to_f64()) as i32 / self.order as i32;
        let (_, x_exponent) = libm::frexp(largest.to_f64());
        let (fraction, exponent) = libm::frexp(self.given.to_f64());
        let shift = (x_exponent + exponent - most).max(0);
        Self::with_unit(
            self.order,
            self.given,
            libm::ldexp(1.0, -shift),
            T::from_f64(libm::ldexp(1.0, -x_exponent)),
            T::from_f64(libm::ldexp(fraction, x_exponent + exponent - shift)),
        )
    }

    fn with_unit(order: usize, given: T, s: f64, shrink: T, inverse: T) -> Self {
        let mut factors = [(T::ZERO, T::ZERO); MOST / 2];
        for (factor, (a, square)) in factors.iter_mut().zip(ROOTS[order / 2 - 1]) {
            *factor = (T::from_f64(s * a), T::from_f64(s * s * square));
        }
        Self {
            order,
            given,
            factors,
            shrink,
            inverse,
            unit: T::from_f64(s * given.to_f64()),
        }
    }

    /// Writes the terms, 0 for -∞, and returns their sum.
    #[simd]
    fn terms<S: Simd>(self, simd: S, x: &[T], y: &mut [T]) -> T {
        let (stripes, rest) = whole_stripes(x);
        let (y_stripes, y_rest) = whole_stripes_mut(y);
        let mut sum = Sum::<T, S>::new(simd);
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (x, y) in stripes.chunks(group).zip(y_stripes.chunks_mut(group)) {
            let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
            for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact_mut(T::LANES)) {
                let term = self.term::<S>(T::Stripe::<S>::from_slice(simd, x));
                term.store_slice(y);
                partial += term;
            }
            sum.add(partial);
        }
        if !rest.is_empty() {
            let term = self.term::<S>(load_padded::<T, S>(simd, rest, T::NEG_INFINITY));
            store_part::<T, S>(term, y_rest);
            sum.add(term);
        }
        sum.total()
    }

    #[inline(always)]
    fn term<S: Simd>(&self, x: T::Stripe<S>) -> T::Stripe<S> {
        let u = x * self.shrink * self.inverse;
        let (&(a, square), others) = self.factors[..self.order / 2]
            .split_first()
            .expect("an order has a factor");
        let d = u - a;
        let mut term = d * d + square;
        for &(a, square) in others {
            let d = u - a;
            term *= d * d + square;
        }
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        x.simd_eq(T::NEG_INFINITY).select(zero, term)
    }

    /// Σ p g.
    #[simd]
    fn mean<S: Simd>(self, simd: S, p: &[T], g: &[T]) -> T {
        Softmax::new(self.given).sums(simd, p, g)[0]
    }

    /// Puts the gradient in place of p; an entry that is exactly 0 stays it.
    #[simd]
    fn pull<S: Simd>(self, simd: S, mean: T, x: &[T], g: &[T], p: &mut [T]) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let inputs = x.chunks(T::LANES).zip(g.chunks(T::LANES));
        for ((x, g), y) in inputs.zip(p.chunks_mut(T::LANES)) {
            let u = load_padded::<T, S>(simd, x, T::ZERO) * self.shrink * self.inverse;
            let mut slope = zero;
            for &(a, square) in &self.factors[..self.order / 2] {
                let d = u - a;
                slope += (d + d) / (d * d + square);
            }
            let g = load_padded::<T, S>(simd, g, T::ZERO);
            let p = load_padded::<T, S>(simd, y, T::ZERO);
            let product = p * (g - mean) * (slope * self.unit);
            store_part::<T, S>(p.simd_eq(T::ZERO).select(zero, product), y);
        }
    }
}

fn taylor_long_row<T: Real>(
    run: &mut Run<'_>,
    (order, inverse): (usize, T),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    match terms_of_long_row(run, Product::new(order, inverse), x, y)? {
        Some((_, sum)) => normalize_long_row(run, sum, y),
        None => share_infinities_of_long_row(run, x, y, T::ONE),
    }
}

/// [`terms_of_row`], shared out.
fn terms_of_long_row<T: Real>(
    run: &mut Run<'_>,
    product: Product<T>,
    x: &[T],
    y: &mut [T],
) -> Result<Option<(Product<T>, T)>, Error> {
    let sum = terms_of_chunks(run, product, x, y)?;
    if holds(sum) {
        return Ok(Some((product, sum)));
    }
    let max = max_of_long_row(run, x)?;
    if !max.is_finite() {
        return Ok(None);
    }
    let largest_of_chunks = of_chunks(run, x.len(), |at| largest(&x[at]))?;
    let product = product.scaled(largest(&largest_of_chunks));
    let sum = terms_of_chunks(run, product, x, y)?;
    Ok((!sum.is_nan()).then_some((product, sum)))
}

fn terms_of_chunks<T: Real>(
    run: &mut Run<'_>,
    product: Product<T>,
    x: &[T],
    y: &mut [T],
) -> Result<T, Error> {
    let level = run.level;
    let sums = of_written_chunks(
        run,
        y,
        |at, y| dispatch!(level, simd => product.terms(simd, &x[at], y)),
    )?;
    Ok(dispatch!(level, simd => add_up(simd, sums.into_iter())))
}

fn normalize_long_row<T: Real>(run: &mut Run<'_>, sum: T, y: &mut [T]) -> Result<(), Error> {
    let (level, scale) = (run.level, T::ONE / sum);
    write_chunks(
        run,
        y,
        |_, y| dispatch!(level, simd => multiply(simd, y, scale)),
    )
}

#[simd]
fn pull_row<S: Simd, T: Real>(simd: S, order: usize, inverse: T, x: &[T], g: &[T], y: &mut [T]) {
    match terms_of_row(simd, Product::new(order, inverse), x, y) {
        Some((product, sum)) => {
            multiply(simd, y, T::ONE / sum);
            let mean = product.mean(simd, y, g);
            product.pull(simd, mean, x, g, y);
        }
        None => y.fill(at_infinity(infinities(x))),
    }
}

/// The gradient where the maximum is not finite: p does not change with +∞ or -∞.
fn at_infinity<T: Real>(infinities: Option<usize>) -> T {
    infinities.map_or(T::NAN, |_| T::ZERO)
}

/// [`pull_row`] of a long row.
fn pull_long_row<T: Real>(
    run: &mut Run<'_>,
    (order, inverse): (usize, T),
    x: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    match terms_of_long_row(run, Product::new(order, inverse), x, y)? {
        Some((product, sum)) => {
            normalize_long_row(run, sum, y)?;
            let means = of_chunks(
                run,
                y.len(),
                |at| dispatch!(level, simd => product.mean(simd, &y[at.clone()], &g[at])),
            )?;
            let mean = dispatch!(level, simd => add_up(simd, means.into_iter()));
            write_chunks(run, y, |at, y| {
                dispatch!(level, simd => product.pull(simd, mean, &x[at.clone()], &g[at], y));
            })
        }
        None => {
            let value = at_infinity(infinities_of_long_row(run, x)?);
            write_chunks(run, y, |_, y| y.fill(value))
        }
    }
}
