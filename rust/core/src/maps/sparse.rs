//! Compressed sparse rows (CSR): the results of the threshold maps without their zeros.

use super::{
    batch::{LONG, PerRow, RowMap, Scores, Scratch, Source, Storage, tasks},
    entmax::{Entmax, Method, Project},
};
use crate::{
    error::Error,
    parallel::{Parts, Run},
    scalar::Real,
};

/// A matrix of rows of which most entries are zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse<E> {
    /// The entries that are not zero, row by row.
    pub data: Vec<E>,
    /// The column of each.
    pub columns: Vec<usize>,
    /// Where each row begins, and where the last one ends.
    pub starts: Vec<usize>,
}

/// [`super::project_simplex()`], without zeros.
///
/// # Errors
/// As [`super::project_simplex()`].
pub fn project_simplex_sparse<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    total: PerRow<'_>,
) -> Result<Sparse<E>, Error> {
    compress(run, scores, &Project::new::<E>(scores, total)?)
}

/// [`super::entmax()`], without zeros.
///
/// # Errors
/// As [`super::entmax()`].
pub fn entmax_sparse<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    alpha: PerRow<'_>,
    method: Method,
) -> Result<Sparse<E>, Error> {
    compress(run, scores, &Entmax::new(scores, alpha, method)?)
}

/// The rows of one task.
struct Part<E> {
    data: Vec<E>,
    columns: Vec<usize>,
    counts: Vec<usize>,
}

impl<E: Storage> Part<E> {
    fn new() -> Self {
        Self {
            data: Vec::new(),
            columns: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn push_row(&mut self, p: &[E::Compute]) {
        let before = self.data.len();
        for (column, &p) in p.iter().enumerate() {
            let stored = E::narrow(p); // f16 has fewer values that are not zero
            if stored.widen() != E::Compute::ZERO {
                self.data.push(stored);
                self.columns.push(column);
            }
        }
        self.counts.push(self.data.len() - before);
    }
}

fn compress<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    map: &impl RowMap<E::Compute>,
) -> Result<Sparse<E>, Error> {
    let shape = scores.shape;
    scores.check()?;
    let Some(x) = scores.x else {
        return Err(Error::Empty { argument: "x" }); // there is no output to be mapped in place
    };
    let mut parts: Vec<Part<E>> = Vec::new();
    if shape.n > LONG {
        let mut part = Part::new();
        let (mut staged, mut y) = (Vec::new(), vec![E::Compute::ZERO; shape.n]);
        for row in 0..shape.count() {
            // SAFETY: nothing is written to x.
            let x = unsafe { scores.stage(&Source::Apart(x), row..row + 1, &mut staged) };
            map.long_row(run, row, x, &mut y)?;
            scores.fill_excluded(row..row + 1, x, &mut y, map);
            part.push_row(&y);
        }
        parts.push(part);
    } else {
        let level = run.level;
        let (count, rows_of) = tasks(shape);
        parts.resize_with(count, Part::new);
        let shared = Parts::new(&mut parts);
        run.each(count, Scratch::new, |scratch, task| {
            let rows = rows_of(task);
            // SAFETY: nothing is written to x.
            let x = unsafe { scores.stage(&Source::Apart(x), rows.clone(), &mut scratch.x) };
            scratch.y.resize(x.len(), E::Compute::ZERO);
            map.rows(
                level,
                rows.start,
                shape.n,
                x,
                &mut scratch.y,
                &mut scratch.kernel,
            );
            scores.fill_excluded(rows, x, &mut scratch.y, map);
            // SAFETY: each part belongs to one task.
            let part = unsafe { &mut shared.part(task, 1)[0] };
            for p in scratch.y.chunks_exact(shape.n) {
                part.push_row(p);
            }
        })?;
    }
    let mut whole = Sparse {
        data: Vec::with_capacity(parts.iter().map(|part| part.data.len()).sum()),
        columns: Vec::new(),
        starts: vec![0],
    };
    whole.columns.reserve(whole.data.capacity());
    let mut end = 0;
    for part in parts {
        whole.data.extend(part.data);
        whole.columns.extend(part.columns);
        for count in part.counts {
            end += count;
            whole.starts.push(end);
        }
    }
    Ok(whole)
}
