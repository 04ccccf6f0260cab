//! Means of rows that go from the minimum to the maximum, and their gradients: `log Σ e^(kx) / k` and `(Σ xᵖ/n)^(1/p)`.
//!
//! * **Domain.** Smooth maximum: any values; -∞ (+∞ for k < 0) takes no part beside others. Power mean: x ≥ 0, with -∞
//!   taking no part; another negative value, or NaN, makes its row NaN. Infinities and zeros give the limits.
//! * **Precision.** The value: a few ulp, measured for n up to 10⁶. The gradient: relative, an ulp for each unit of the
//!   exponent that it is the power of.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** Two passes over a row, three with the gradient.
//!
//! ```text
//! smooth maximum:  m ← max kx/|k|;  s ← Σ e^(|k| (x - m));       value m + log(s)/|k|;  gradient e^(|k| (x - m)) / s
//! power mean:      m ← the largest term;  u ← log(x/m);  s ← Σ e^(pu) / n;  log R ← log(s)/p;
//!                  value m R;  gradient e^((p - 1) (u - log R)) / n
//! ```
//!
//! 1. The logarithm is log1p over what is left when the maximum's own 1 is taken out, so a value near the maximum keeps its
//!    digits; for the power mean, over Σ (e^(pu) - 1) / n, so p may be as near to 0 as it likes.
//! 2. Rows end with a few operations in f64.
//! 3. Long rows are cut into chunks: their maxima, then their sums, then the gradient.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{check, curves::normal, tails::exp_m1};
use crate::{
    batch::{
        LONG, Scores, Scratch, Source, Storage, map_long_row, of_chunks, store_rows, tasks,
        write_chunks,
    },
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    scalar::Real,
    simd::{Sum, exp, ln, load_padded, store_part, whole_stripes, whole_stripes_mut},
};

/// `log Σ exp(k x) / k` of every row, and its gradient, softmax(k x), in the layout of the scores.
///
/// A row that the mask excludes whole has the value -∞ (+∞ for k < 0) and a gradient of zeros.
///
/// # Errors
/// [`Error::Domain`] unless k is finite and not 0; [`Error::Empty`] and [`Error::Length`] if the shapes do not fit;
/// [`Error::Interrupted`].
pub fn smooth_max<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    k: f64,
    values: &mut [E],
    gradient: Option<&mut [E]>,
) -> Result<(), Error> {
    check("k", "finite and not 0", k, k.is_finite() && k != 0.0)?;
    let mean = Maximum::<E::Compute>::new(k);
    mean_rows(
        run,
        scores,
        &mean,
        &E::Compute::kernels().smooth.maximum,
        values,
        gradient,
    )
}

/// `(Σ xᵖ / n)^(1/p)` of every row, and its gradient in the layout of the values.
///
/// p = 0 is the geometric mean, ±∞ are the maximum and the minimum. A row of which nothing takes part is NaN; where the
/// mask made it so, its gradient is zeros.
///
/// # Errors
/// [`Error::Domain`] if p is NaN; else as [`smooth_max`].
pub fn power_mean<E: Storage>(
    run: &mut Run<'_>,
    x: &Scores<'_, E>,
    p: f64,
    values: &mut [E],
    gradient: Option<&mut [E]>,
) -> Result<(), Error> {
    check("p", "a number", p, !p.is_nan())?;
    let mean = Power::<E::Compute>::new(p);
    mean_rows(
        run,
        x,
        &mean,
        &E::Compute::kernels().smooth.power,
        values,
        gradient,
    )
}

/// A mean of a row, found in three passes.
pub(super) trait Mean<T: Real>: Copy + Send + Sync {
    /// What takes no part.
    fn absent(&self) -> T;
    /// What the first pass finds in a part of the row.
    fn look<S: Simd>(&self, simd: S, x: &[T]) -> Ends<T>;
    /// The value that all are taken relative to.
    fn anchor(&self, ends: &Ends<T>) -> T;
    /// The sums of a stripe: those near 0 apart.
    fn terms<S: Simd>(&self, x: T::Stripe<S>, anchor: T) -> [T::Stripe<S>; 2];
    /// The mean, and what the gradient takes.
    fn finish(&self, ends: &Ends<T>, anchor: T, sums: [f64; 2]) -> Done<T>;
    /// The gradient of a stripe.
    fn gradient<S: Simd>(&self, x: T::Stripe<S>, anchor: T, done: &Done<T>) -> T::Stripe<S>;
}

/// What the first pass over a row finds.
#[derive(Clone, Copy)]
pub(super) struct Ends<T> {
    least: T,
    most: T,
    /// How many values take part.
    count: usize,
    /// Whether there is a value that has no mean.
    wrong: bool,
}

impl<T: Real> Ends<T> {
    fn join(self, other: Self) -> Self {
        Self {
            least: if other.least < self.least {
                other.least
            } else {
                self.least
            },
            most: if other.most > self.most {
                other.most
            } else {
                self.most
            },
            count: self.count + other.count,
            wrong: self.wrong || other.wrong,
        }
    }
}

/// The mean of a row, and two numbers for its gradient.
#[derive(Clone, Copy)]
pub(super) struct Done<T> {
    value: T,
    norm: T,
    shift: T,
}

impl<T: Real> Done<T> {
    const NAN: Self = Self {
        value: T::NAN,
        norm: T::NAN,
        shift: T::NAN,
    };
}

/// Writes the gradient over a row or a chunk: from the mean, x, the anchor and what was found.
type WriteGradient<T, M> = fn(Level, &M, &[T], &mut [T], T, &Done<T>);

/// The passes, at any level.
pub(super) struct MeanKernels<T, M> {
    look: fn(Level, &M, &[T]) -> Ends<T>,
    anchor: fn(&M, &Ends<T>) -> T,
    add: fn(Level, &M, &[T], T) -> [f64; 2],
    finish: fn(&M, &Ends<T>, T, [f64; 2]) -> Done<T>,
    gradient: WriteGradient<T, M>,
}

impl<T: Real, M: Mean<T>> MeanKernels<T, M> {
    const AT_ANY_LEVEL: Self = Self {
        look: |level, mean, x| dispatch!(level, simd => look(simd, mean, x)),
        anchor: M::anchor,
        add: |level, mean, x, anchor| dispatch!(level, simd => add(simd, mean, x, anchor)),
        finish: M::finish,
        gradient: |level, mean, x, g, anchor, done| {
            dispatch!(level, simd => write_gradient(simd, mean, x, g, anchor, done));
        },
    };

    fn row(&self, level: Level, mean: &M, x: &[T]) -> (T, Done<T>) {
        let ends = (self.look)(level, mean, x);
        let anchor = (self.anchor)(mean, &ends);
        let sums = (self.add)(level, mean, x, anchor);
        (anchor, (self.finish)(mean, &ends, anchor, sums))
    }

    fn long_row(&self, run: &mut Run<'_>, mean: &M, x: &[T]) -> Result<(T, Done<T>), Error> {
        let level = run.level;
        let parts = of_chunks(run, x.len(), |at| (self.look)(level, mean, &x[at]))?;
        let nothing = Ends {
            least: T::INFINITY,
            most: T::NEG_INFINITY,
            count: 0,
            wrong: false,
        };
        let ends = parts.into_iter().fold(nothing, Ends::join);
        let anchor = (self.anchor)(mean, &ends);
        let mut sums = [0.0; 2];
        for part in of_chunks(run, x.len(), |at| (self.add)(level, mean, &x[at], anchor))? {
            sums = [sums[0] + part[0], sums[1] + part[1]];
        }
        Ok((anchor, (self.finish)(mean, &ends, anchor, sums)))
    }
}

fn mean_rows<E: Storage, M: Mean<E::Compute>>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    mean: &M,
    kernels: &MeanKernels<E::Compute, M>,
    values: &mut [E],
    gradient: Option<&mut [E]>,
) -> Result<(), Error> {
    let (shape, level) = (scores.shape, run.level);
    scores.check()?;
    if values.len() != shape.count() {
        return Err(Error::Length {
            argument: "out",
            expected: shape.count(),
            found: values.len(),
        });
    }
    if let Some(gradient) = &gradient {
        shape.check("gradient", gradient.len())?;
    }
    let Some(x) = scores.x else {
        return Err(Error::Empty { argument: "x" }); // the values are no rows that could hold it
    };
    let gradient = gradient.map(Parts::new);
    if shape.n > LONG {
        let mut scratch = Scratch::new();
        for (row, value) in values.iter_mut().enumerate() {
            // SAFETY: nothing is written to the scores, and one row at a time to the gradient.
            unsafe {
                let from = Source::Apart(x);
                let x = scores.stage_long_row(run, &from, row, mean.absent(), &mut scratch.x)?;
                let (anchor, done) = kernels.long_row(run, mean, x)?;
                *value = E::narrow(done.value);
                if let Some(gradient) = &gradient {
                    map_long_row(run, shape, row, gradient, &mut scratch.y, |run, g| {
                        write_chunks(run, g, |at, g| {
                            (kernels.gradient)(level, mean, &x[at], g, anchor, &done);
                        })?;
                        scores.fill_excluded_long_row(run, row, x, g, E::Compute::ZERO)
                    })?;
                }
            }
        }
        return Ok(());
    }
    let values = Parts::new(values);
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::new, |scratch, task| {
        let rows = rows_of(task);
        // SAFETY: the scores lie apart from the results.
        let x = unsafe {
            let from = Source::Apart(x);
            scores.stage(&from, rows.clone(), mean.absent(), &mut scratch.x)
        };
        // SAFETY: each row belongs to one task.
        let values = unsafe { values.part(rows.start, rows.len()) };
        let Some(gradient) = &gradient else {
            for (x, value) in x.chunks_exact(shape.n).zip(values) {
                *value = E::narrow(kernels.row(level, mean, x).1.value);
            }
            return;
        };
        scratch.y.resize(x.len(), E::Compute::default());
        let each = scratch.y.chunks_exact_mut(shape.n);
        for ((x, g), value) in x.chunks_exact(shape.n).zip(each).zip(values) {
            let (anchor, done) = kernels.row(level, mean, x);
            *value = E::narrow(done.value);
            (kernels.gradient)(level, mean, x, g, anchor, &done);
        }
        scores.fill_excluded(rows.clone(), x, &mut scratch.y, E::Compute::ZERO);
        // SAFETY: as above.
        unsafe { store_rows(shape, rows, &scratch.y, gradient) };
    })
}

#[simd]
fn look<S: Simd, T: Real, M: Mean<T>>(simd: S, mean: &M, x: &[T]) -> Ends<T> {
    mean.look(simd, x)
}

/// The sums over a row or a chunk.
#[simd]
fn add<S: Simd, T: Real, M: Mean<T>>(simd: S, mean: &M, x: &[T], anchor: T) -> [f64; 2] {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let (stripes, rest) = whole_stripes(x);
    let mut sums = [Sum::<T, S>::new(simd), Sum::<T, S>::new(simd)];
    for group in stripes.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = [zero; 2];
        for x in group.chunks_exact(T::LANES) {
            let [a, b] = mean.terms::<S>(T::Stripe::<S>::from_slice(simd, x), anchor);
            partial = [partial[0] + a, partial[1] + b];
        }
        sums[0].add(partial[0]);
        sums[1].add(partial[1]);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, mean.absent());
        let [a, b] = mean.terms::<S>(x, anchor);
        sums[0].add(a);
        sums[1].add(b);
    }
    sums.map(|sum| sum.total().to_f64())
}

#[simd]
fn write_gradient<S: Simd, T: Real, M: Mean<T>>(
    simd: S,
    mean: &M,
    x: &[T],
    g: &mut [T],
    anchor: T,
    done: &Done<T>,
) {
    let (stripes, rest) = whole_stripes(x);
    let (g_stripes, g_rest) = whole_stripes_mut(g);
    for (x, g) in stripes
        .chunks_exact(T::LANES)
        .zip(g_stripes.chunks_exact_mut(T::LANES))
    {
        let x = T::Stripe::<S>::from_slice(simd, x);
        mean.gradient::<S>(x, anchor, done).store_slice(g);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, mean.absent());
        store_part::<T, S>(mean.gradient::<S>(x, anchor, done), g_rest);
    }
}

/// `log Σ exp(k x) / k`.
#[derive(Clone, Copy)]
pub(super) struct Maximum<T> {
    k: f64,
    /// |k|, and the sign of k.
    sharpness: T,
    sign: T,
}

impl<T: Real> Maximum<T> {
    pub(super) const KERNELS: MeanKernels<T, Self> = MeanKernels::AT_ANY_LEVEL;

    fn new(k: f64) -> Self {
        Self {
            k,
            sharpness: normal::<T>(k.abs()),
            sign: if k < 0.0 { -T::ONE } else { T::ONE },
        }
    }

    /// `e^(|k| (x - m))`, 1 at the maximum also where that is infinite.
    #[inline(always)]
    fn term<S: Simd>(&self, x: T::Stripe<S>, anchor: T) -> T::Stripe<S> {
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let x = x * self.sign;
        let e = exp::<T, S>((x - anchor) * self.sharpness);
        x.simd_eq(anchor).select(one, e)
    }
}

impl<T: Real> Mean<T> for Maximum<T> {
    fn absent(&self) -> T {
        T::NEG_INFINITY * self.sign
    }

    #[inline(always)]
    fn look<S: Simd>(&self, simd: S, x: &[T]) -> Ends<T> {
        let mut most = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
        let mut nan = T::Stripe::<S>::splat(simd, T::ZERO);
        let (stripes, rest) = whole_stripes(x);
        for x in stripes.chunks_exact(T::LANES) {
            let x = T::Stripe::<S>::from_slice(simd, x);
            nan = x.simd_eq(x).select(nan, x);
            most = most.max(x * self.sign);
        }
        let last = load_padded::<T, S>(simd, rest, self.absent());
        nan = last.simd_eq(last).select(nan, last);
        Ends {
            least: T::INFINITY,
            most: T::fold_max(most.max(last * self.sign)),
            count: x.len(),
            wrong: nan.simd_ne(nan).any_true(),
        }
    }

    fn anchor(&self, ends: &Ends<T>) -> T {
        ends.most
    }

    #[inline(always)]
    fn terms<S: Simd>(&self, x: T::Stripe<S>, anchor: T) -> [T::Stripe<S>; 2] {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let top = (x * self.sign).simd_eq(anchor);
        let e = self.term(x, anchor);
        [top.select(zero, e), top.select(one, zero)]
    }

    fn finish(&self, ends: &Ends<T>, anchor: T, [rest, tops]: [f64; 2]) -> Done<T> {
        if ends.wrong {
            return Done::NAN;
        }
        let above = libm::log1p((tops - 1.0) + rest) / self.k.abs();
        let value = if anchor.is_finite() {
            T::from_f64(anchor.to_f64() + above)
        } else {
            anchor
        };
        let norm = if anchor == T::NEG_INFINITY {
            T::NAN
        } else {
            T::from_f64(1.0 / (tops + rest))
        };
        Done {
            value: value * self.sign,
            norm,
            shift: T::ZERO,
        }
    }

    #[inline(always)]
    fn gradient<S: Simd>(&self, x: T::Stripe<S>, anchor: T, done: &Done<T>) -> T::Stripe<S> {
        self.term(x, anchor) * done.norm
    }
}

/// `(Σ xᵖ / n)^(1/p)`.
#[derive(Clone, Copy)]
pub(super) struct Power<T> {
    /// 0 and ±∞ where it rounds to them.
    p: T,
}

impl<T: Real> Power<T> {
    pub(super) const KERNELS: MeanKernels<T, Self> = MeanKernels::AT_ANY_LEVEL;

    fn new(p: f64) -> Self {
        // Below this, p u is too small for its digits, and far too small to show.
        let nothing = T::MIN_POSITIVE / T::EPSILON;
        let p = T::from_f64(p);
        let p = if p.abs() < nothing { T::ZERO } else { p };
        Self { p }
    }

    /// log(x/m), 0 at the anchor m also where that is 0 or infinite.
    #[inline(always)]
    fn logarithm<S: Simd>(x: T::Stripe<S>, anchor: T) -> T::Stripe<S> {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let ratio = x / anchor;
        let mut log = ln::<T, S>(ratio);
        let far = ratio.simd_lt(T::MIN_POSITIVE) | ratio.simd_eq(T::INFINITY);
        if far.any_true() {
            let anchor = T::Stripe::<S>::splat(x.token(), anchor);
            log = far.select(ln::<T, S>(x) - ln::<T, S>(anchor), log);
        }
        x.simd_eq(anchor).select(zero, log)
    }
}

impl<T: Real> Mean<T> for Power<T> {
    fn absent(&self) -> T {
        T::NEG_INFINITY
    }

    #[inline(always)]
    fn look<S: Simd>(&self, simd: S, x: &[T]) -> Ends<T> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        let (stripes, rest) = whole_stripes(x);
        let last = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
        let absent = last.simd_eq(T::NEG_INFINITY);
        let mut count = absent.select(zero, zero + T::ONE);
        let mut wrong = (absent | last.simd_ge(T::ZERO)).select(zero, infinity);
        let (mut least, mut most) = (absent.select(infinity, last), last);
        for x in stripes.chunks_exact(T::LANES) {
            let x = T::Stripe::<S>::from_slice(simd, x);
            let absent = x.simd_eq(T::NEG_INFINITY);
            count += absent.select(zero, zero + T::ONE);
            wrong = (absent | x.simd_ge(T::ZERO)).select(wrong, infinity);
            least = least.min(absent.select(infinity, x));
            most = most.max(x);
        }
        Ends {
            least: -T::fold_max(-least),
            most: T::fold_max(most),
            count: T::fold_sum(count).to_f64() as usize, // of at most LONG
            wrong: wrong.simd_gt(T::ZERO).any_true(),
        }
    }

    fn anchor(&self, ends: &Ends<T>) -> T {
        if self.p < T::ZERO {
            ends.least
        } else if self.p > T::ZERO || ends.most < T::INFINITY || ends.least == T::INFINITY {
            ends.most
        } else {
            T::ONE // infinite logarithms then tell the geometric mean
        }
    }

    #[inline(always)]
    fn terms<S: Simd>(&self, x: T::Stripe<S>, anchor: T) -> [T::Stripe<S>; 2] {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let absent = x.simd_eq(T::NEG_INFINITY);
        if self.p.abs() == T::INFINITY {
            return [zero, x.simd_eq(anchor).select(one, zero)];
        }
        let log = Self::logarithm(x, anchor);
        if self.p == T::ZERO {
            return [absent.select(zero, log), zero];
        }
        let power = log * self.p;
        let e = exp::<T, S>(power);
        let less = exp_m1::<T, S>(power, e);
        [absent.select(zero, less), absent.select(zero, e)]
    }

    fn finish(&self, ends: &Ends<T>, anchor: T, [less, all]: [f64; 2]) -> Done<T> {
        if ends.wrong || ends.count == 0 {
            return Done::NAN;
        }
        if self.p.abs() == T::INFINITY {
            return Done {
                value: anchor,
                norm: T::from_f64(1.0 / all),
                shift: T::ZERO,
            };
        }
        let n = ends.count as f64;
        let shift = if self.p == T::ZERO {
            // A sum that loses no rounding loses infinities.
            let zero = ends.least == T::ZERO && anchor != T::ZERO;
            let infinite = ends.most == T::INFINITY && anchor != T::INFINITY;
            match (zero, infinite) {
                (true, true) => return Done::NAN,
                (true, false) => f64::NEG_INFINITY,
                (false, true) => f64::INFINITY,
                (false, false) => less / n,
            }
        } else if less > -0.5 * n {
            libm::log1p(less / n) / self.p.to_f64()
        } else {
            libm::log(all / n) / self.p.to_f64()
        };
        let anchor = anchor.to_f64();
        let ratio = libm::exp(shift);
        let value = if anchor == 0.0 || anchor == f64::INFINITY {
            anchor
        } else {
            anchor * ratio
        };
        Done {
            value: T::from_f64(value),
            norm: T::from_f64(1.0 / n),
            shift: T::from_f64(shift),
        }
    }

    #[inline(always)]
    fn gradient<S: Simd>(&self, x: T::Stripe<S>, anchor: T, done: &Done<T>) -> T::Stripe<S> {
        let simd = x.token();
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let norm = T::Stripe::<S>::splat(simd, done.norm);
        if done.norm.is_nan() {
            return norm;
        }
        let share = if self.p.abs() == T::INFINITY {
            x.simd_eq(anchor).select(norm, zero)
        } else if self.p == T::ONE {
            norm
        } else {
            let log = Self::logarithm(x, anchor);
            let e = exp::<T, S>((log - done.shift) * (self.p - T::ONE)) * done.norm;
            // A geometric mean of 0 rises from its zeros without bound; one of ∞ no longer rises with what is ∞.
            let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
            let both = log.abs().simd_eq(T::INFINITY) & log.simd_eq(done.shift);
            both.select(log.simd_lt(T::ZERO).select(infinity, zero), e)
        };
        x.simd_eq(T::NEG_INFINITY).select(zero, share)
    }
}
