//! Compressed sparse rows (CSR): the results of the threshold maps without their zeros.

use std::mem;

use super::{
    entmax::{Entmax, Method, Project},
    tempered::Tempered,
};
use crate::{
    batch::{
        LONG, PerRow, RowMap, Scores, Scratch, Source, Storage, make_room, of_chunks, take_first,
        tasks,
    },
    error::Error,
    parallel::Run,
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
    temperature: f64,
) -> Result<Sparse<E>, Error> {
    let map = Entmax::new(scores, alpha, method)?;
    compress(run, scores, &Tempered::new(map, temperature)?)
}

/// The entries of one task, in their order: of some rows, or of a chunk of a long one.
struct Part<E> {
    data: Vec<E>,
    columns: Vec<usize>,
    /// For each row that ends here, how many entries there are up to its end.
    ends: Vec<usize>,
}

impl<E> Default for Part<E> {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            columns: Vec::new(),
            ends: Vec::new(),
        }
    }
}

impl<E: Storage> Part<E> {
    /// The entries among `p`, which begins with column `first`, if there is more than one row.
    fn of(p: &[E::Compute], n: usize, first: usize) -> Self {
        let stored = |&p: &E::Compute| E::narrow(p); // f16 has fewer values that are not zero
        let counts = |p: &E| p.widen() != E::Compute::ZERO;
        let count = p.iter().map(stored).filter(counts).count();
        let mut part = Self {
            data: Vec::with_capacity(count),
            columns: Vec::with_capacity(count),
            ends: Vec::with_capacity(p.len() / n),
        };
        for row in p.chunks(n) {
            for (column, p) in (first..).zip(row.iter().map(stored)) {
                if counts(&p) {
                    part.data.push(p);
                    part.columns.push(column);
                }
            }
            if first + row.len() == n {
                part.ends.push(part.data.len());
            }
        }
        part
    }
}

fn compress<E: Storage, M: RowMap<E::Compute>>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    map: &M,
) -> Result<Sparse<E>, Error> {
    let shape = scores.shape;
    scores.check()?;
    let Some(x) = scores.x else {
        return Err(Error::Empty { argument: "x" }); // there is no output to be mapped in place
    };
    let source = Source::Apart(x);
    let mut parts = Vec::new();
    if shape.n > LONG {
        let mut scratch = Scratch::new();
        for row in 0..shape.count() {
            make_room(&mut scratch.y, shape.n);
            let y = &mut scratch.y;
            // SAFETY: nothing is written to x.
            let x = unsafe { scores.stage_long_row(run, &source, row, M::ABSENT, &mut scratch.x)? };
            map.long_row(run, row, x, y)?;
            scores.fill_excluded_long_row(run, row, x, y, M::EXCLUDED)?;
            parts.extend(of_chunks(run, shape.n, |at| {
                Part::of(&y[at.clone()], shape.n, at.start)
            })?);
        }
    } else {
        let level = run.level;
        let (count, rows_of) = tasks(shape);
        parts.resize_with(count, Part::default);
        run.each_chunk(&mut parts, 1, Scratch::new, |scratch, task, part| {
            let rows = rows_of(task);
            // SAFETY: nothing is written to x.
            let x = unsafe { scores.stage(&source, rows.clone(), M::ABSENT, &mut scratch.x) };
            scratch.y.resize(x.len(), E::Compute::ZERO);
            map.rows(
                level,
                rows.start,
                shape.n,
                x,
                &mut scratch.y,
                &mut scratch.kernel,
            );
            scores.fill_excluded(rows, x, &mut scratch.y, M::EXCLUDED);
            part[0] = Part::of(&scratch.y, shape.n, 0);
        })?;
    }
    join(run, shape.count(), parts)
}

/// Puts the parts one after the other.
fn join<E: Storage>(
    run: &mut Run<'_>,
    rows: usize,
    parts: Vec<Part<E>>,
) -> Result<Sparse<E>, Error> {
    let entries = parts.iter().map(|part| part.data.len()).sum();
    let mut whole = Sparse {
        data: vec![E::narrow(E::Compute::ZERO); entries],
        columns: vec![0; entries],
        starts: vec![0; rows + 1],
    };
    let (mut data, mut columns) = (&mut whole.data[..], &mut whole.columns[..]);
    let (mut starts, mut before) = (&mut whole.starts[1..], 0);
    let mut moves = Vec::with_capacity(parts.len());
    for part in parts {
        let len = part.data.len();
        let to = (
            before,
            take_first(&mut data, len),
            take_first(&mut columns, len),
            take_first(&mut starts, part.ends.len()),
        );
        moves.push((part, to));
        before += len;
    }
    run.each_chunk(
        &mut moves,
        1,
        || (),
        |(), _, moves| {
            let (part, (before, data, columns, starts)) = &mut moves[0];
            let part = mem::take(part); // and free it here
            data.copy_from_slice(&part.data);
            columns.copy_from_slice(&part.columns);
            for (start, end) in starts.iter_mut().zip(part.ends) {
                *start = *before + end;
            }
        },
    )?;
    Ok(whole)
}
