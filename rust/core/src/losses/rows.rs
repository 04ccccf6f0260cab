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
    simd::{Sum, load_padded},
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

/// What a loss takes for targets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// None: no labels are there.
    Nothing,
    /// A label for each row.
    Labels,
    /// A label for each row, or probabilities that add up to 1.
    Distributions,
    /// Lists of labels, or numbers from 0 to 1.
    Fractions,
    /// Lists of labels, or 0 and 1.
    Sets,
    /// A number for each score.
    Numbers,
}

impl Takes {
    /// What is wrong with targets of a kind.
    fn refuses<E>(self, targets: &Targets<'_, E>) -> Option<&'static str> {
        match (self, targets) {
            (Self::Nothing | Self::Labels | Self::Distributions, Targets::Labels(_))
            | (Self::Distributions | Self::Numbers, Targets::Dense(_))
            | (Self::Fractions | Self::Sets, Targets::Dense(_) | Targets::Lists { .. }) => None,
            (Self::Nothing, _) => Some("none are taken"),
            (Self::Labels, _) => Some("this loss takes one label for each row"),
            (Self::Distributions, _) => {
                Some("this loss takes one label for each row, or a distribution")
            }
            // Whether a single label to ignore would leave out its row is not plain.
            (Self::Fractions | Self::Sets, _) => {
                Some("one label for each row; give lists of labels, or a number for each score")
            }
            (Self::Numbers, _) => Some("this loss takes a number for each score"),
        }
    }
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
    /// What the targets have to be.
    const TAKES: Takes;

    /// Computes whole rows; the vector is the kernel's scratch.
    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>);
}

impl<E: Storage> Batch<'_, E> {
    fn check(&self, takes: Takes) -> Result<(), Error> {
        self.scores.check()?;
        if let Some(reason) = takes.refuses(&self.targets) {
            return Err(Error::Unsupported {
                argument: "targets",
                reason,
            });
        }
        let (shape, rows) = (self.scores.shape, self.scores.shape.count());
        // The labels, and how many there are for each row.
        let (expected, found, labels, each): (_, _, &[i64], _) = match self.targets {
            Targets::Labels(labels) if takes == Takes::Nothing => (0, labels.len(), labels, 1),
            Targets::Labels(labels) => (rows, labels.len(), labels, 1),
            Targets::Lists { indices, each } => {
                (rows.saturating_mul(each), indices.len(), indices, each)
            }
            Targets::Dense(targets) => (shape.len(), targets.len(), &[], 1),
        };
        if found != expected {
            return Err(Error::Length {
                argument: "targets",
                expected,
                found,
            });
        }
        let largest = E::Compute::MAX.to_f64();
        let domain = "at least 0, and no larger than numbers of the scores' type";
        self.weights
            .check("weights", rows, domain, |w| (0.0..=largest).contains(&w))?;
        let norm = self.norm();
        if norm == f64::INFINITY {
            return Err(Error::Domain {
                argument: "weights",
                domain: "numbers of which the sum is finite",
                value: norm,
            });
        }
        let outside = |&(index, label): &(usize, &i64)| {
            let wrong = Some(*label) != self.ignore && self.index(*label).is_none();
            wrong && self.weight(index / each).is_some()
        };
        match labels.iter().enumerate().find(outside) {
            None => Ok(()),
            Some((_, &label)) => Err(Error::Integer {
                argument: "targets",
                domain: "the index of a score along the axis, or ignore_index",
                value: label,
            }),
        }
    }

    /// A label as the index of a score.
    fn index(&self, label: i64) -> Option<usize> {
        usize::try_from(label)
            .ok()
            .filter(|&index| index < self.scores.shape.n)
    }

    /// The weight of a row; nothing if it takes no part.
    fn weight(&self, row: usize) -> Option<f64> {
        let ignored = match self.targets {
            Targets::Labels(labels) => labels.get(row).is_some_and(|&k| Some(k) == self.ignore),
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
    batch.check(L::TAKES)?;
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
            x,
            &mut scratch.labels,
            [&mut scratch.targets, &mut scratch.possible],
        );
        if let RowTargets::Dense(targets) = targets {
            let refuse = |(row, targets)| {
                (kernels.refuse)(level, L::TAKES, targets).filter(|_| batch.weight(row).is_some())
            };
            let mut targets = rows.clone().zip(targets.chunks_exact(n));
            if let Some(value) = targets.find_map(refuse) {
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
            domain: match L::TAKES {
                Takes::Distributions => "probabilities, at least 0 and adding up to 1 in each row",
                Takes::Sets => "0 or 1",
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
    possible: Vec<T>,
    labels: Vec<usize>,
    gradient: Vec<T>,
    kernel: Vec<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            x: Vec::new(),
            targets: Vec::new(),
            possible: Vec::new(),
            labels: Vec::new(),
            gradient: Vec::new(),
            kernel: Vec::new(),
        }
    }
}

/// The targets of some rows of scores x, as the kernels take them. A row that takes no part has some label; what a mask
/// excludes has a target only if that makes the row impossible.
fn stage_targets<'s, E: Storage>(
    batch: &'s Batch<'_, E>,
    rows: Range<usize>,
    x: &[E::Compute],
    labels: &'s mut Vec<usize>,
    [room, possible]: [&'s mut Vec<E::Compute>; 2],
) -> RowTargets<'s, E::Compute> {
    match batch.targets {
        Targets::Labels(all) => {
            labels.clear();
            let all = all.get(rows).unwrap_or(&[]); // of a loss without targets
            labels.extend(all.iter().map(|&label| batch.index(label).unwrap_or(0)));
            RowTargets::Labels(labels)
        }
        Targets::Lists { indices, each } => {
            let n = batch.scores.shape.n;
            room.clear();
            room.resize(rows.len() * n, E::Compute::ZERO);
            for (row, to) in rows.zip(room.chunks_exact_mut(n)) {
                for &label in &indices[row * each..(row + 1) * each] {
                    let index = batch.index(label).filter(|_| Some(label) != batch.ignore);
                    if let Some(index) = index {
                        to[index] = E::Compute::ONE;
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
            if batch.scores.mask.is_none() {
                return RowTargets::Dense(staged);
            }
            possible.clear();
            possible.extend(staged.iter().zip(x).map(|(&y, &x)| {
                let counts = x > E::Compute::NEG_INFINITY || y > E::Compute::ZERO || x.is_nan();
                if counts { y } else { E::Compute::ZERO }
            }));
            RowTargets::Dense(possible)
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
    refuse: fn(Level, Takes, &[T]) -> Option<f64>,
    /// Multiplies a row.
    multiply: fn(Level, T, &mut [T]),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        refuse: |level, takes, row| dispatch!(level, simd => refuse(simd, takes, row)),
        multiply: |level, factor, row| dispatch!(level, simd => multiply(simd, row, factor)),
    };
}

/// How far the sum of a distribution may be from 1: what float16 makes of it.
const SLACK: f64 = 0.01;

/// What is wrong with a row of dense targets: its sum, or an entry.
#[simd]
fn refuse<S: Simd, T: Real>(simd: S, takes: Takes, row: &[T]) -> Option<f64> {
    if takes == Takes::Numbers {
        return None;
    }
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let most = if takes == Takes::Distributions {
        T::MAX
    } else {
        T::ONE
    };
    let mut sum = Sum::<T, S>::new(simd);
    let mut outside = zero;
    for group in row.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = zero;
        for y in group.chunks(T::LANES) {
            let y = load_padded::<T, S>(simd, y, T::ZERO);
            partial += y;
            let bad = if takes == Takes::Sets {
                !(y.simd_eq(T::ZERO) | y.simd_eq(T::ONE))
            } else {
                y.simd_lt(T::ZERO) | y.simd_gt(most)
            };
            outside = bad.select(y, outside);
        }
        sum.add(partial);
    }
    for &value in outside.as_slice() {
        if value != T::ZERO {
            return Some(value.to_f64());
        }
    }
    let sum = sum.total().to_f64();
    (takes == Takes::Distributions && (sum - 1.0).abs() > SLACK).then_some(sum)
}
