//! The expected accuracy of noisy scores (EXACT: Karpukhin, Dereka & Kolesnikov 2022), as a loss:
//! `-P[y = argmax(x/σ + ε)]`, ε independent and standard normal.
//!
//! A difference of two scores so has noise of variance 2 σ²: with two scores that differ by f, P = Φ(f/(σ √2)).
//!
//! * **Margin** r: the target's lead over each other score counts as at most r; a lead that is clipped has no gradient.
//! * **Normalised** scores come first: `(x - mean)/sd` over the scores of the row above -∞, with the standard deviation of
//!   the population; where that is 0, all are 0, and so is the gradient.
//! * **Domain.** As [`crate::maps::noisy_argmax()`]: -∞ takes no part and is never right, scores of +∞ share the
//!   probability, a NaN makes the row NaN, and so do only -∞. Rows with +∞ are neither normalised nor clipped.
//! * **Precision, determinism.** Those of the probability, which is computed in f64. Normalising is in f64 as well.

use fearless_simd::Level;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::Storage,
    error::Error,
    kernels::Compiled,
    maps::{
        inverse_temperature,
        noise::{Noise, Room, target_probability},
    },
    parallel::Run,
    scalar::Real,
};

/// The loss of every row at the temperature σ. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] unless the temperature is finite and positive, and the margin finite and at least 0;
/// [`Error::Unsupported`] unless the targets are labels; else as [`super::cross_entropy()`].
pub fn exact_accuracy_loss<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    temperature: f64,
    margin: Option<f64>,
    normalize: bool,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    inverse_temperature::<f64>(temperature)?;
    if let Some(margin) = margin.filter(|margin| !(0.0..f64::INFINITY).contains(margin)) {
        return Err(Error::Domain {
            argument: "margin",
            domain: "finite and at least 0",
            value: margin,
        });
    }
    let loss = Exact {
        temperature,
        margin,
        normalize,
    };
    each_row(run, batch, &loss, values, gradient)
}

struct Exact {
    temperature: f64,
    margin: Option<f64>,
    normalize: bool,
}

impl<T: Compiled> Loss<T> for Exact {
    const TAKES: Takes = Takes::Labels;

    fn rows(&self, level: Level, rows: Rows<'_, T>, _: &mut Vec<T>) {
        let Rows {
            n,
            x,
            targets,
            mut gradient,
            values,
            ..
        } = rows;
        let RowTargets::Labels(labels) = targets else {
            return; // refused at the door
        };
        let (mut room, mut scores, mut slopes) = (Room::default(), Vec::new(), Vec::new());
        for (row, (x, value)) in x.chunks_exact(n).zip(values).enumerate() {
            scores.clear();
            scores.extend(x.iter().map(|x| x.to_f64()));
            let to = gradient
                .as_deref_mut()
                .map(|all| &mut all[row * n..(row + 1) * n]);
            slopes.resize(if to.is_some() { n } else { 0 }, 0.0);
            let slopes = to.is_some().then_some(&mut slopes[..]);
            *value = self.row(level, &mut scores, labels[row], slopes, &mut room, to);
        }
    }
}

impl Exact {
    /// The loss of a row of scores, which are overwritten.
    fn row<T: Real>(
        &self,
        level: Level,
        z: &mut [f64],
        label: usize,
        slopes: Option<&mut [f64]>,
        room: &mut Room,
        to: Option<&mut [T]>,
    ) -> f64 {
        let finite = z.iter().all(|&z| z < f64::INFINITY); // nor a NaN
        let sd = (finite && self.normalize).then(|| standardize(z));
        let clipped = match self.margin.filter(|_| finite) {
            Some(margin) => clip(z, label, margin),
            None => Vec::new(),
        };
        let (noise, scale) = (&Noise::Normal, self.temperature);
        let Some((slopes, to)) = slopes.zip(to) else {
            return -target_probability(level, noise, scale, z, label, None, room);
        };
        let p = target_probability(level, noise, scale, z, label, Some(&mut *slopes), room);
        for (k, score) in clipped {
            // A clipped score moves with the target's.
            slopes[label] += slopes[k];
            slopes[k] = 0.0;
            z[k] = score;
        }
        if let Some(sd) = sd {
            pull_standardized(z, sd, slopes);
        }
        for (to, slope) in to.iter_mut().zip(&*slopes) {
            *to = T::from_f64(-slope);
        }
        -p
    }
}

/// Raises the scores above -∞ that the label's leads by more than the margin; returns their indices and what they were.
fn clip(z: &mut [f64], label: usize, margin: f64) -> Vec<(usize, f64)> {
    let least = z[label] - margin;
    let mut clipped = Vec::new();
    for (k, z) in z.iter_mut().enumerate() {
        if k != label && *z > f64::NEG_INFINITY && *z < least {
            clipped.push((k, *z));
            *z = least;
        }
    }
    clipped
}

/// The mean over the scores above -∞ of what `of` makes of them and their index.
fn mean(z: &[f64], of: impl Fn(usize, f64) -> f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (k, &z) in z.iter().enumerate() {
        if z > f64::NEG_INFINITY {
            sum += of(k, z);
            count += 1.0;
        }
    }
    sum / count
}

/// Takes off the mean of the scores above -∞, divides by their standard deviation, and returns that.
fn standardize(z: &mut [f64]) -> f64 {
    // From one of them, so that equal scores differ by exactly 0, and halved, so that the largest differ at all.
    let origin = z.iter().find(|&&z| z > f64::NEG_INFINITY);
    let origin = 0.5 * origin.copied().unwrap_or(0.0);
    let mut unit = 0.0_f64;
    for z in z.iter_mut().filter(|z| **z > f64::NEG_INFINITY) {
        *z = 0.5 * *z - origin;
        unit = unit.max(z.abs());
    }
    if unit == 0.0 {
        return 0.0;
    }
    // In this unit, no square overflows or vanishes.
    let center = mean(z, |_, z| z / unit);
    let sd = mean(z, |_, z| (z / unit - center) * (z / unit - center)).sqrt();
    for z in z.iter_mut().filter(|z| **z > f64::NEG_INFINITY) {
        *z = (*z / unit - center) / sd;
    }
    2.0 * unit * sd
}

/// The gradient in the scores from that in the standardised ones.
fn pull_standardized(z: &[f64], sd: f64, slopes: &mut [f64]) {
    let (all, along) = (mean(z, |k, _| slopes[k]), mean(z, |k, z| slopes[k] * z));
    for (z, slope) in z.iter().zip(slopes) {
        *slope = if sd > 0.0 && *z > f64::NEG_INFINITY {
            (*slope - all - z * along) / sd
        } else {
            0.0
        };
    }
}
