//! From batches of scores and targets to values and gradients: the floor that every loss stands on.
//!
//! A loss is written once, for contiguous rows of f32 or f64 and targets beside them. What is common to all is done here,
//! a task at a time: staging ([`crate::batch`]), labels and lists of labels, rows that take no part, weights, and the
//! factor of the gradient that a reduction asks for.
//!
//! * **Rows that take no part** have the value 0, the gradient 0, and no share in a mean: those with the label to ignore,
//!   with weight 0, and those that the mask excludes whole.
//! * **Determinism.** The same bits at every SIMD level and number of workers: a reduction adds up in the order of the
//!   rows, in f64, and keeps what rounding loses.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use crate::{
    batch::{PerRow, Scores, Source, Storage, store_rows, tasks},
    error::Error,
    kernels::Compiled,
    maps::multiply,
    parallel::{Parts, Run},
    scalar::Real,
    simd::{Sum, load_padded, whole_stripes},
};

/// What the rows of scores are compared with.
#[derive(Debug, Clone, Copy)]
pub enum Targets<'a, E> {
    /// The index of a score in each row.
    Labels(&'a [i64]),
    /// So many indices for each row, padded with the label to ignore.
    Lists {
        /// Row by row.
        indices: &'a [i64],
        /// How many there are for a row.
        each: usize,
    },
    /// A number for each score, laid out as the scores.
    Dense(&'a [E]),
}

/// What becomes of the values of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// They stay as they are.
    None,
    /// They are added up.
    Sum,
    /// They are added up, and divided by the sum of the weights of the rows that take part.
    Mean,
}

/// Scores with their targets.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, E> {
    /// The scores.
    pub scores: Scores<'a, E>,
    /// What they are compared with.
    pub targets: Targets<'a, E>,
    /// What the value of a row is multiplied by; 0 leaves a row out.
    pub weights: PerRow<'a>,
    /// The label of rows to leave out, or of no score in a list.
    pub ignore: Option<i64>,
    /// What becomes of the values.
    pub reduction: Reduction,
}

/// What a loss takes for targets that are dense.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dense {
    /// Probabilities that add up to 1.
    Distribution,
    /// Numbers from 0 to 1.
    Fractions,
    /// Numbers.
    Numbers,
}

/// Rows of a task.
pub(super) struct Rows<'a, T> {
    /// The index of the first row in the batch.
    pub(super) first: usize,
    /// Scores in a row.
    pub(super) n: usize,
    /// The scores, row by row; -∞ takes no part.
    pub(super) x: &'a [T],
    pub(super) targets: RowTargets<'a, T>,
    /// Where the gradients go, row by row.
    pub(super) gradient: Option<&'a mut [T]>,
    /// Where the values go.
    pub(super) values: &'a mut [f64],
}

/// The targets of some rows.
#[derive(Clone, Copy)]
pub(super) enum RowTargets<'a, T> {
    /// A label for each.
    Labels(&'a [usize]),
    /// A number for each score.
    Dense(&'a [T]),
}

/// A loss, written for contiguous rows.
pub(super) trait Loss<T>: Sync {
    /// What dense targets have to be.
    const DENSE: Dense;

    /// Computes whole rows; the vector is the kernel's scratch.
    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>);
}

impl<E: Storage> Batch<'_, E> {
    fn check(&self) -> Result<(), Error> {
        self.scores.check()?;
        let (shape, rows) = (self.scores.shape, self.scores.shape.count());
        let (expected, found, labels): (_, _, &[i64]) = match self.targets {
            Targets::Labels(labels) => (rows, labels.len(), labels),
            Targets::Lists { indices, each } => (rows.saturating_mul(each), indices.len(), indices),
            Targets::Dense(targets) => (shape.len(), targets.len(), &[]),
        };
        if found != expected {
            return Err(Error::Length {
                argument: "targets",
                expected,
                found,
            });
        }
        let outside = |&&label: &&i64| {
            Some(label) != self.ignore && usize::try_from(label).map_or(true, |k| k >= shape.n)
        };
        if let Some(&label) = labels.iter().find(outside) {
            return Err(Error::Domain {
                argument: "targets",
                domain: "the index of a score along the axis, or ignore_index",
                value: label as f64,
            });
        }
        let domain = "finite and at least 0";
        self.weights
            .check("weights", rows, domain, |w| w >= 0.0 && w.is_finite())
    }

    /// The weight of a row; nothing if it takes no part.
    fn weight(&self, row: usize) -> Option<f64> {
        let ignored = match self.targets {
            Targets::Labels(labels) => Some(labels[row]) == self.ignore,
            _ => false,
        };
        let weight = self.weights.of(row);
        (!ignored && weight > 0.0 && !self.scores.excludes_row(row)).then_some(weight)
    }

    /// Multiplies what a loss gives for each row beside its value, as each gradient is multiplied.
    pub(super) fn weigh(&self, values: &[f64], slopes: &mut [f64]) {
        let norm = self.norm();
        for (row, slope) in slopes.iter_mut().enumerate() {
            match self.weight(row) {
                Some(weight) => *slope *= weight / norm,
                None => *slope = values[row], // 0 or NaN
            }
        }
    }

    /// What values are divided by.
    fn norm(&self) -> f64 {
        match self.reduction {
            Reduction::Mean => {
                add_up((0..self.scores.shape.count()).filter_map(|row| self.weight(row)))
            }
            _ => 1.0,
        }
    }
}

/// Computes the value of every row, and its gradient if there is room for it; returns the reduction (NaN for a mean over
/// no rows, 0 for [`Reduction::None`]).
///
/// # Errors
/// [`Error::Domain`] for a label that no score has, a weight below 0, or targets that are not what the loss takes;
/// [`Error::Empty`] and [`Error::Length`] if the shapes do not fit; [`Error::Interrupted`].
pub(super) fn each_row<E: Storage, L: Loss<E::Compute>>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    loss: &L,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    batch.check()?;
    let shape = batch.scores.shape;
    let n = shape.n;
    let Some(x) = batch.scores.x else {
        return Err(Error::Empty { argument: "scores" });
    };
    if values.len() != shape.count() {
        return Err(Error::Length {
            argument: "values",
            expected: shape.count(),
            found: values.len(),
        });
    }
    if let Some(gradient) = &gradient {
        shape.check("gradient", gradient.len())?;
    }
    let (level, norm) = (run.level, batch.norm());
    let kernels = &E::Compute::kernels().losses.rows;
    let refused = Mutex::new(None);
    let gradient = gradient.map(Parts::new);
    let all_values = Parts::new(values);
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::default, |scratch, task| {
        let rows = rows_of(task);
        let len = rows.len() * n;
        // SAFETY: nothing is written to the scores and the targets; each row belongs to one task.
        let (x, values) = unsafe {
            let absent = E::Compute::NEG_INFINITY;
            let x = batch
                .scores
                .stage(&Source::Apart(x), rows.clone(), absent, &mut scratch.x);
            (x, all_values.part(rows.start, rows.len()))
        };
        let targets = stage_targets(
            batch,
            rows.clone(),
            &mut scratch.labels,
            &mut scratch.targets,
        );
        if let RowTargets::Dense(targets) = targets {
            let found = targets
                .chunks_exact(n)
                .find_map(|row| (kernels.refuse)(level, L::DENSE, row));
            if let Some(value) = found {
                let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                if refused.is_none_or(|(row, _)| rows.start < row) {
                    *refused = Some((rows.start, value));
                }
                return;
            }
        }
        let mut compute = |mut gradient: Option<&mut [E::Compute]>| {
            let task = Rows {
                first: rows.start,
                n,
                x,
                targets,
                gradient: gradient.as_deref_mut(),
                values: &mut *values,
            };
            loss.rows(level, task, &mut scratch.kernel);
            for (i, row) in rows.clone().enumerate() {
                let mut own = gradient
                    .as_deref_mut()
                    .map(|all| &mut all[i * n..(i + 1) * n]);
                let Some(weight) = batch.weight(row) else {
                    // A NaN shows also under a mask.
                    let lost = batch.scores.excludes_row(row)
                        && x[i * n..(i + 1) * n].iter().any(|x| x.is_nan());
                    let fill = if lost {
                        E::Compute::NAN
                    } else {
                        E::Compute::ZERO
                    };
                    values[i] = fill.to_f64();
                    if let Some(own) = &mut own {
                        own.fill(fill);
                    }
                    continue;
                };
                values[i] *= weight;
                let factor = weight / norm;
                if let Some(own) = own.filter(|_| factor != 1.0) {
                    (kernels.multiply)(level, E::Compute::from_f64(factor), own);
                }
            }
        };
        let Some(gradient) = &gradient else {
            return compute(None);
        };
        if shape.inner == 1 {
            // SAFETY: each row belongs to one task.
            if let Some(own) = E::direct_mut(unsafe { gradient.part(rows.start * n, len) }) {
                return compute(Some(own));
            }
        }
        scratch.gradient.resize(len, E::Compute::ZERO);
        compute(Some(&mut scratch.gradient));
        // SAFETY: as above.
        unsafe { store_rows(shape, rows, &scratch.gradient, gradient) };
    })?;
    if let Some((_, value)) = refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(Error::Domain {
            argument: "targets",
            domain: match L::DENSE {
                Dense::Distribution => "probabilities, at least 0 and adding up to 1 in each row",
                _ => "from 0 to 1",
            },
            value,
        });
    }
    Ok(match batch.reduction {
        Reduction::None => 0.0,
        Reduction::Sum | Reduction::Mean => add_up(values.iter().copied()) / norm,
    })
}

/// What a worker keeps from task to task.
struct Scratch<T> {
    x: Vec<T>,
    targets: Vec<T>,
    labels: Vec<usize>,
    gradient: Vec<T>,
    kernel: Vec<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            x: Vec::new(),
            targets: Vec::new(),
            labels: Vec::new(),
            gradient: Vec::new(),
            kernel: Vec::new(),
        }
    }
}

/// The targets of some rows, as the kernels take them. A row to ignore has some label.
fn stage_targets<'s, E: Storage>(
    batch: &'s Batch<'_, E>,
    rows: Range<usize>,
    labels: &'s mut Vec<usize>,
    room: &'s mut Vec<E::Compute>,
) -> RowTargets<'s, E::Compute> {
    match batch.targets {
        Targets::Labels(all) => {
            labels.clear();
            let index = |&label: &i64| {
                if Some(label) == batch.ignore {
                    0
                } else {
                    label as usize
                }
            };
            labels.extend(all[rows].iter().map(index));
            RowTargets::Labels(labels)
        }
        Targets::Lists { indices, each } => {
            let n = batch.scores.shape.n;
            room.clear();
            room.resize(rows.len() * n, E::Compute::ZERO);
            for (row, to) in rows.zip(room.chunks_exact_mut(n)) {
                for &label in &indices[row * each..(row + 1) * each] {
                    if Some(label) != batch.ignore {
                        to[label as usize] = E::Compute::ONE;
                    }
                }
            }
            RowTargets::Dense(room)
        }
        Targets::Dense(targets) => {
            let all = Scores::new(batch.scores.shape, targets);
            // SAFETY: nothing is written to the targets.
            let staged =
                unsafe { all.stage(&Source::Apart(targets), rows, E::Compute::ZERO, room) };
            RowTargets::Dense(staged)
        }
    }
}

/// The sum of the values, in their order; what rounding loses is kept (Neumaier), and a loss of +∞ stays one: the
/// compensation of [`crate::simd::add_up`] would make it NaN.
fn add_up(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut low) = (0.0_f64, 0.0);
    for value in values {
        let next = sum + value;
        low += if sum.abs() >= value.abs() {
            (sum - next) + value
        } else {
            (value - next) + sum
        };
        sum = next;
    }
    if low.is_finite() { sum + low } else { sum }
}

/// What every loss needs beside its own kernels.
pub(crate) struct Kernels<T> {
    /// What is wrong with a row of dense targets: its sum, or an entry.
    refuse: fn(Level, Dense, &[T]) -> Option<f64>,
    /// Multiplies a row.
    multiply: fn(Level, T, &mut [T]),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        refuse: |level, dense, row| dispatch!(level, simd => refuse(simd, dense, row)),
        multiply: |level, factor, row| dispatch!(level, simd => multiply(simd, row, factor)),
    };
}

/// How far the sum of a distribution may be from 1: what float16 makes of it.
const SLACK: f64 = 0.01;

#[simd]
fn refuse<S: Simd, T: Real>(simd: S, dense: Dense, row: &[T]) -> Option<f64> {
    if dense == Dense::Numbers {
        return None;
    }
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let most = if dense == Dense::Fractions {
        T::ONE
    } else {
        T::MAX
    };
    let mut sum = Sum::<T, S>::new(simd);
    let mut outside = zero;
    let (stripes, rest) = whole_stripes(row);
    for group in stripes.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = zero;
        for y in group.chunks_exact(T::LANES) {
            let y = T::Stripe::<S>::from_slice(simd, y);
            partial += y;
            outside = (y.simd_lt(T::ZERO) | y.simd_gt(most)).select(y, outside);
        }
        sum.add(partial);
    }
    if !rest.is_empty() {
        let y = load_padded::<T, S>(simd, rest, T::ZERO);
        sum.add(y);
        outside = (y.simd_lt(T::ZERO) | y.simd_gt(most)).select(y, outside);
    }
    for &value in outside.as_slice() {
        if value != T::ZERO {
            return Some(value.to_f64());
        }
    }
    let sum = sum.total().to_f64();
    (dense == Dense::Distribution && (sum - 1.0).abs() > SLACK).then_some(sum)
}
