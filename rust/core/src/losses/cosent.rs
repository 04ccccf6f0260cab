//! cosent (Su 2022): similarities in the order of their labels. A row is a batch of pairs with the scores f and the
//! labels y, and its loss is `log(1 + Σ_{yᵢ < yⱼ} e^{λ(fᵢ - fⱼ)})`.
//!
//! * **Domain.** Any labels; equal ones are not compared. A score of -∞ takes no part. +∞ below the label of a finite
//!   score makes the loss +∞, and the gradient is the limit; else it takes no part. A NaN among scores or labels makes
//!   the row NaN.
//! * **Precision.** f64 inside. Where the scores lie too far apart, sums are kept relative to their largest terms, so
//!   no scale is too large.
//! * **Determinism.** The same bits at every SIMD level.
//! * **Cost.** O(n log n) time, O(n) memory.
//!
//! ```text
//! sort by label;  of each score: Pre ← Σ e^{λf} over lower labels, Suf ← Σ e^{-λf} over higher ones
//! S ← Σ e^{-λf} Pre;  loss ← log(1 + S);  ∂f ← λ (e^{λf} Suf - e^{-λf} Pre) / (1 + S)
//! ```

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::Storage,
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{exp, load_padded, store_part},
};

/// The cosent loss of every row of pairs; the scale is λ. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] unless the scale is finite and positive, or for a weight below 0; [`Error::Unsupported`] for one
/// label a row; [`Error::Empty`] and [`Error::Length`] if the shapes do not fit; [`Error::Interrupted`].
pub fn cosent<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    scale: f64,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    if !(scale > 0.0 && scale < f64::INFINITY) {
        return Err(Error::Domain {
            argument: "scale",
            domain: "finite and positive",
            value: scale,
        });
    }
    each_row(run, batch, &Cosent { scale }, values, gradient)
}

struct Cosent {
    scale: f64,
}

impl<T: Compiled> Loss<T> for Cosent {
    const TAKES: Takes = Takes::Numbers;

    fn rows(&self, level: Level, rows: Rows<'_, T>, _: &mut Vec<T>) {
        (T::kernels().losses.cosent.rows)(level, self.scale, rows);
    }
}

/// The kernels of cosent.
pub(crate) struct Kernels<T> {
    rows: fn(Level, f64, Rows<'_, T>),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        rows: |level, scale, rows| dispatch!(level, simd => cosent_rows(simd, scale, rows)),
    };
}

#[simd]
fn cosent_rows<S: Simd, T: Real>(simd: S, scale: f64, rows: Rows<'_, T>) {
    let Rows {
        n,
        x,
        targets,
        mut gradient,
        values,
        ..
    } = rows;
    let RowTargets::Dense(targets) = targets else {
        return; // refused at the door
    };
    let mut order = Order::default();
    for (i, value) in values.iter_mut().enumerate() {
        let at = i * n..(i + 1) * n;
        let (x, y) = (&x[at.clone()], &targets[at.clone()]);
        let mut gradient = gradient.as_deref_mut().map(|all| &mut all[at]);
        let nan = x.iter().zip(y).any(|(x, y)| x.is_nan() | y.is_nan());
        if let Some(gradient) = &mut gradient {
            gradient.fill(if nan { T::NAN } else { T::ZERO });
        }
        *value = if nan {
            f64::NAN
        } else {
            order.sort(x, y);
            order.compare(simd, x, scale, gradient)
        };
    }
}

/// Exponents that differ by less keep far from overflow, as do the sums of their products.
const NEAR: f64 = 500.0;

/// The scores that take part, in the order of their labels.
#[derive(Default)]
struct Order {
    /// The label, as an integer of the same order, and where the score is in the row.
    sorted: Vec<(u64, usize)>,
    /// `λf`, and its opposite; or their exponentials.
    up: Vec<f64>,
    down: Vec<f64>,
    /// Pre of each, or its logarithm.
    before: Vec<f64>,
}

impl Order {
    fn sort<T: Real>(&mut self, x: &[T], y: &[T]) {
        self.sorted.clear();
        for (i, (&x, y)) in x.iter().zip(y).enumerate() {
            if x > T::NEG_INFINITY {
                let bits = (y.to_f64() + 0.0).to_bits(); // -0 is 0
                let negative = bits >> 63 == 1;
                let key = if negative { !bits } else { bits | 1 << 63 };
                self.sorted.push((key, i));
            }
        }
        self.sorted.sort_by_key(|&(key, _)| key);
    }

    /// The loss; adds the gradient to zeros.
    #[inline(always)]
    fn compare<S: Simd, T: Real>(
        &mut self,
        simd: S,
        x: &[T],
        scale: f64,
        mut gradient: Option<&mut [T]>,
    ) -> f64 {
        if x.contains(&T::INFINITY) {
            // Against +∞, all that is finite is small: what counts is how the finite scores compare with one another.
            self.exponents(
                x,
                scale,
                |x| (f64::NEG_INFINITY, -x),
                (0.0, f64::NEG_INFINITY),
            );
            let log = self.log_sum();
            if log > f64::NEG_INFINITY {
                self.log_gradient(log, scale, gradient);
                return f64::INFINITY;
            }
            self.sorted.retain(|&(_, i)| x[i] < T::INFINITY);
        }
        self.exponents(x, scale, |x| (x, -x), (0.0, 0.0));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for &a in &self.up {
            low = if a < low { a } else { low };
            high = if a > high { a } else { high };
        }
        if high - low < NEAR {
            let middle = low + 0.5 * (high - low);
            exponentials(simd, middle, &mut self.up, &mut self.down);
            let sum = self.sum();
            self.gradient(1.0 + sum, scale, gradient.take());
            return libm::log1p(sum);
        }
        let log = self.log_sum();
        let value = log_1p_exp(log);
        self.log_gradient(value, scale, gradient);
        value
    }

    /// Fills in the exponents.
    fn exponents<T: Real>(
        &mut self,
        x: &[T],
        scale: f64,
        of_finite: impl Fn(f64) -> (f64, f64),
        of_infinity: (f64, f64),
    ) {
        self.up.clear();
        self.down.clear();
        for &(_, i) in &self.sorted {
            let (up, down) = if x[i] == T::INFINITY {
                of_infinity
            } else {
                // Finite differences, whatever the scale.
                of_finite((scale * x[i].to_f64()).clamp(-1e300, 1e300))
            };
            self.up.push(up);
            self.down.push(down);
        }
    }

    /// S, from exponentials; leaves every Pre.
    fn sum(&mut self) -> f64 {
        self.before.clear();
        let (mut sum, mut lower) = (0.0, 0.0);
        for tied in self.sorted.chunk_by(|a, b| a.0 == b.0) {
            let at = self.before.len()..self.before.len() + tied.len();
            for &down in &self.down[at.clone()] {
                self.before.push(lower);
                sum += down * lower;
            }
            for &up in &self.up[at] {
                lower += up;
            }
        }
        sum
    }

    /// After [`Order::sum`].
    fn gradient<T: Real>(&self, norm: f64, scale: f64, gradient: Option<&mut [T]>) {
        let Some(gradient) = gradient else {
            return;
        };
        let (mut higher, mut end) = (0.0, self.sorted.len());
        for tied in self.sorted.chunk_by(|a, b| a.0 == b.0).rev() {
            let start = end - tied.len();
            for (&(_, i), at) in tied.iter().zip(start..) {
                let difference = self.up[at] * higher - self.down[at] * self.before[at];
                gradient[i] = T::from_f64(scale * (difference / norm));
            }
            for &down in &self.down[start..end] {
                higher += down;
            }
            end = start;
        }
    }

    /// The logarithm of S, from exponents; leaves the logarithm of every Pre.
    fn log_sum(&mut self) -> f64 {
        self.before.clear();
        let (mut sum, mut lower) = (LogSum::NOTHING, LogSum::NOTHING);
        for tied in self.sorted.chunk_by(|a, b| a.0 == b.0) {
            let at = self.before.len()..self.before.len() + tied.len();
            let log = lower.log();
            for &down in &self.down[at.clone()] {
                self.before.push(log);
                sum.add(down + log);
            }
            for &up in &self.up[at] {
                lower.add(up);
            }
        }
        sum.log()
    }

    /// After [`Order::log_sum`].
    fn log_gradient<T: Real>(&self, norm: f64, scale: f64, gradient: Option<&mut [T]>) {
        let Some(gradient) = gradient else {
            return;
        };
        let (mut higher, mut end) = (LogSum::NOTHING, self.sorted.len());
        for tied in self.sorted.chunk_by(|a, b| a.0 == b.0).rev() {
            let start = end - tied.len();
            let log = higher.log();
            for (&(_, i), at) in tied.iter().zip(start..) {
                let up = libm::exp(self.up[at] + log - norm);
                let down = libm::exp(self.down[at] + self.before[at] - norm);
                gradient[i] = T::from_f64(scale * (up - down));
            }
            for &down in &self.down[start..end] {
                higher.add(down);
            }
            end = start;
        }
    }
}

/// A running sum of exponentials, relative to the largest.
struct LogSum {
    largest: f64,
    sum: f64,
}

impl LogSum {
    const NOTHING: Self = Self {
        largest: f64::NEG_INFINITY,
        sum: 0.0,
    };

    fn add(&mut self, exponent: f64) {
        if exponent > self.largest {
            self.sum = self.sum * libm::exp(self.largest - exponent) + 1.0;
            self.largest = exponent;
        } else if exponent > f64::NEG_INFINITY {
            self.sum += libm::exp(exponent - self.largest);
        }
    }

    fn log(&self) -> f64 {
        self.largest + libm::log(self.sum)
    }
}

fn log_1p_exp(log: f64) -> f64 {
    if log > 0.0 {
        log + libm::log1p(libm::exp(-log))
    } else {
        libm::log1p(libm::exp(log))
    }
}

/// `e^{up - middle}` and its inverse.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, middle: f64, up: &mut [f64], down: &mut [f64]) {
    const LANES: usize = <f64 as Real>::LANES;
    for (up, down) in up.chunks_mut(LANES).zip(down.chunks_mut(LANES)) {
        let e = exp::<f64, S>(load_padded::<f64, S>(simd, up, 0.0) - middle);
        store_part::<f64, S>(e, up);
        store_part::<f64, S>(1.0 / e, down);
    }
}
