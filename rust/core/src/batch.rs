//! From an array of any layout to contiguous rows and back: the floor that maps and losses stand on.
//!
//! A map is written once, for contiguous rows of f32 or f64 that do not alias. What differs from that (another axis,
//! float16 storage, a mask, output over the input) is staged: rows are copied into the worker's scratch, mapped
//! there, and copied out, a task at a time, so it costs cache traffic and no memory.

use std::{mem, ops::Range};

use fearless_simd::Level;
use half::{f16, slice::HalfFloatSliceExt};

use crate::{
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    scalar::Real,
};

/// Values in a task: large enough to hide the cost of a task, small enough to share out few rows.
const TASK: usize = 1 << 15;

/// Rows in a task come in multiples of this, so that kernels with a lane per row fill their lanes.
const ROWS: usize = 16;

/// Rows longer than this are not tasks but are cut into tasks themselves.
pub(crate) const LONG: usize = 1 << 17;

/// Values of a long row that are one task.
pub(crate) const CHUNK: usize = 1 << 14;

/// A C-ordered array seen along one axis: `(outer, n, inner)`, rows of `n` values that lie `inner` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The product of the lengths before the axis.
    pub outer: usize,
    /// The length of the axis.
    pub n: usize,
    /// The product of the lengths behind the axis.
    pub inner: usize,
}

impl Shape {
    /// Rows of `n` values one after the other.
    pub fn rows(rows: usize, n: usize) -> Self {
        Self {
            outer: rows,
            n,
            inner: 1,
        }
    }

    /// How many rows there are; `usize::MAX` if that is more.
    pub fn count(self) -> usize {
        self.outer.saturating_mul(self.inner)
    }

    /// How many values there are; `usize::MAX`, which no slice has, if that is more.
    pub fn len(self) -> usize {
        self.count().saturating_mul(self.n)
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The index of a row's first value.
    fn start(self, row: usize) -> usize {
        row / self.inner * self.n * self.inner + row % self.inner
    }

    pub(crate) fn check(self, argument: &'static str, found: usize) -> Result<(), Error> {
        if self.n == 0 {
            return Err(Error::Empty { argument });
        }
        if found != self.len() {
            return Err(Error::Length {
                argument,
                expected: self.len(),
                found,
            });
        }
        Ok(())
    }

    /// Calls `visit(start, rows)` for each run of rows that lie side by side, `start` being the index of the first value.
    fn runs(self, rows: Range<usize>, mut visit: impl FnMut(usize, Range<usize>)) {
        let mut row = rows.start;
        while row < rows.end {
            let (outer, inner) = (row / self.inner, row % self.inner);
            let end = rows.end.min(row + self.inner - inner);
            visit(outer * self.n * self.inner + inner, row..end);
            row = end;
        }
    }
}

/// What an array may hold: f16 is computed in f32, the others in themselves.
pub trait Storage: Copy + Send + Sync + 'static {
    /// The type of the computation.
    type Compute: Compiled;
    /// The value, exactly.
    fn widen(self) -> Self::Compute;
    /// The nearest value.
    fn narrow(value: Self::Compute) -> Self;
    /// The values as they are, where storage and computation agree.
    fn direct(values: &[Self]) -> Option<&[Self::Compute]>;
    /// The values as they are, where storage and computation agree.
    fn direct_mut(values: &mut [Self]) -> Option<&mut [Self::Compute]>;

    /// [`Storage::widen`] for many.
    fn load(from: &[Self], to: &mut [Self::Compute]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.widen();
        }
    }
    /// [`Storage::narrow`] for many.
    fn store(from: &[Self::Compute], to: &mut [Self]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = Self::narrow(from);
        }
    }
}

impl Storage for f32 {
    type Compute = f32;
    fn widen(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> f32 {
        value
    }
    fn direct(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }
    fn direct_mut(values: &mut [f32]) -> Option<&mut [f32]> {
        Some(values)
    }
}

impl Storage for f64 {
    type Compute = f64;
    fn widen(self) -> f64 {
        self
    }
    fn narrow(value: f64) -> f64 {
        value
    }
    fn direct(values: &[f64]) -> Option<&[f64]> {
        Some(values)
    }
    fn direct_mut(values: &mut [f64]) -> Option<&mut [f64]> {
        Some(values)
    }
}

impl Storage for f16 {
    type Compute = f32;
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> f16 {
        f16::from_f32(value)
    }
    fn direct(_: &[f16]) -> Option<&[f32]> {
        None
    }
    fn direct_mut(_: &mut [f16]) -> Option<&mut [f32]> {
        None
    }
    // The crate converts slices by the CPU's instructions for it.
    fn load(from: &[f16], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
    fn store(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

/// A value for all rows, or one for each.
#[derive(Debug, Clone, Copy)]
pub enum PerRow<'a> {
    /// The same for all rows.
    All(f64),
    /// One for each row.
    Each(&'a [f64]),
}

impl PerRow<'_> {
    pub(crate) fn of(self, row: usize) -> f64 {
        match self {
            PerRow::All(value) => value,
            PerRow::Each(values) => values[row],
        }
    }

    /// Checks the number of values and each value.
    pub(crate) fn check(
        self,
        argument: &'static str,
        rows: usize,
        domain: &'static str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<(), Error> {
        let values = match &self {
            PerRow::All(value) => std::slice::from_ref(value),
            PerRow::Each(values) if values.len() == rows => values,
            PerRow::Each(values) => {
                return Err(Error::Length {
                    argument,
                    expected: rows,
                    found: values.len(),
                });
            }
        };
        match values.iter().find(|&&value| !holds(value)) {
            None => Ok(()),
            Some(&value) => Err(Error::Domain {
                argument,
                domain,
                value,
            }),
        }
    }

    /// The parts of `rows` in which the value does not change.
    pub(crate) fn runs(self, rows: Range<usize>, mut visit: impl FnMut(f64, Range<usize>)) {
        let mut start = rows.start;
        while start < rows.end {
            let value = self.of(start);
            let end = match self {
                PerRow::All(_) => rows.end,
                PerRow::Each(values) => {
                    let others = &values[start + 1..rows.end];
                    start + 1 + others.iter().take_while(|&&other| other == value).count()
                }
            };
            visit(value, start..end);
            start = end;
        }
    }

    /// [`PerRow::runs`] of rows of x and y, n values each, that begin with row `first`; says the first row of each.
    pub(crate) fn each<T>(
        self,
        first: usize,
        n: usize,
        x: &[T],
        y: &mut [T],
        mut visit: impl FnMut(f64, usize, &[T], &mut [T]),
    ) {
        self.runs(first..first + x.len() / n, |value, rows| {
            let at = (rows.start - first) * n..(rows.end - first) * n;
            visit(value, rows.start, &x[at.clone()], &mut y[at]);
        });
    }
}

/// Scores to read, and which of them count.
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a, E> {
    /// How the values lie.
    pub shape: Shape,
    /// The scores; `None` where they lie in the output already and are mapped in place.
    pub x: Option<&'a [E]>,
    /// `false` excludes a score; laid out as the scores.
    pub mask: Option<&'a [bool]>,
}

impl<'a, E: Storage> Scores<'a, E> {
    /// Scores that all count.
    pub fn new(shape: Shape, x: &'a [E]) -> Self {
        Self {
            shape,
            x: Some(x),
            mask: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let Shape { n, .. } = self.shape;
        if n == 0 {
            return Err(Error::Empty { argument: "x" });
        }
        if let Some(x) = self.x {
            self.shape.check("x", x.len())?;
        }
        if let Some(mask) = self.mask {
            self.shape.check("where", mask.len())?;
        }
        Ok(())
    }

    /// Contiguous rows of a task, straight from where they lie if that is possible, else copied to `room`.
    ///
    /// An excluded score becomes `absent`; a NaN stays a NaN.
    ///
    /// # Safety
    /// `from` is `x`, or no other task holds the rows.
    pub(crate) unsafe fn stage<'s>(
        &self,
        from: &Source<'s, E>,
        rows: Range<usize>,
        absent: E::Compute,
        room: &'s mut Vec<E::Compute>,
    ) -> &'s [E::Compute] {
        let Shape { n, inner, .. } = self.shape;
        if let Some(direct) = self.direct(from, rows.clone()) {
            return direct;
        }
        room.resize(rows.len() * n, E::Compute::default());
        if inner == 1 {
            // SAFETY: the caller's promise.
            E::load(unsafe { from.part(rows.start * n, rows.len() * n) }, room);
        } else {
            self.shape.runs(rows.clone(), |start, run| {
                for k in 0..n {
                    // SAFETY: the caller's promise.
                    let column = unsafe { from.part(start + k * inner, run.len()) };
                    for (row, value) in run.clone().zip(column) {
                        room[(row - rows.start) * n + k] = value.widen();
                    }
                }
            });
        }
        for (row, values) in rows.zip(room.chunks_exact_mut(n)) {
            self.exclude(self.shape.start(row), values, absent);
        }
        room
    }

    /// [`Scores::stage`] of one long row, shared out.
    ///
    /// # Safety
    /// As [`Scores::stage`].
    pub(crate) unsafe fn stage_long_row<'s>(
        &self,
        run: &mut Run<'_>,
        from: &Source<'s, E>,
        row: usize,
        absent: E::Compute,
        room: &'s mut Vec<E::Compute>,
    ) -> Result<&'s [E::Compute], Error> {
        let Shape { n, inner, .. } = self.shape;
        if let Some(direct) = self.direct(from, row..row + 1) {
            return Ok(direct);
        }
        make_room(room, n);
        write_chunks(run, room, |at, to| {
            let start = self.shape.start(row) + at.start * inner;
            if inner == 1 {
                // SAFETY: the caller's promise.
                E::load(unsafe { from.part(start, to.len()) }, to);
            } else {
                for (k, value) in to.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    *value = unsafe { from.part(start + k * inner, 1) }[0].widen();
                }
            }
            self.exclude(start, to, absent);
        })?;
        Ok(room)
    }

    /// Rows that can be used where they lie.
    fn direct<'s>(&self, from: &Source<'s, E>, rows: Range<usize>) -> Option<&'s [E::Compute]> {
        let Shape { n, inner, .. } = self.shape;
        match *from {
            Source::Apart(x) if inner == 1 && self.mask.is_none() => {
                E::direct(&x[rows.start * n..rows.end * n])
            }
            _ => None,
        }
    }

    /// Puts `absent` in place of what the mask excludes in a row, from the value that lies at `start`.
    fn exclude(&self, start: usize, row: &mut [E::Compute], absent: E::Compute) {
        let Some(mask) = self.mask else {
            return;
        };
        for (value, &counts) in row
            .iter_mut()
            .zip(mask[start..].iter().step_by(self.shape.inner))
        {
            if !counts && !value.is_nan() {
                *value = absent;
            }
        }
    }

    /// A row of only -∞ is NaN to a map; where the mask made it so, it is [`RowMap::EXCLUDED`] instead.
    pub(crate) fn fill_excluded(
        &self,
        rows: Range<usize>,
        x: &[E::Compute],
        y: &mut [E::Compute],
        excluded: E::Compute,
    ) {
        if self.mask.is_none() {
            return;
        }
        let n = self.shape.n;
        for (row, (x, y)) in rows.zip(x.chunks_exact(n).zip(y.chunks_exact_mut(n))) {
            if self.excludes(self.shape.start(row), x) {
                y.fill(excluded);
            }
        }
    }

    /// [`Scores::fill_excluded`] of one long row, shared out.
    pub(crate) fn fill_excluded_long_row(
        &self,
        run: &mut Run<'_>,
        row: usize,
        x: &[E::Compute],
        y: &mut [E::Compute],
        excluded: E::Compute,
    ) -> Result<(), Error> {
        if self.mask.is_none() {
            return Ok(());
        }
        let Shape { n, inner, .. } = self.shape;
        let start = self.shape.start(row);
        let chunks = of_chunks(run, n, |at| self.excludes(start + at.start * inner, &x[at]))?;
        if chunks.into_iter().all(|excludes| excludes) {
            write_chunks(run, y, |_, y| y.fill(excluded))?;
        }
        Ok(())
    }

    /// Whether the mask excludes a row whole.
    pub(crate) fn excludes_row(&self, row: usize) -> bool {
        let Shape { n, inner, .. } = self.shape;
        self.mask.is_some_and(|mask| {
            let mut counts = mask[self.shape.start(row)..].iter().step_by(inner).take(n);
            !counts.any(|&counts| counts)
        })
    }

    /// Whether the mask excludes all these values of a row, of which the first lies at `start`, and none of them is NaN.
    fn excludes(&self, start: usize, x: &[E::Compute]) -> bool {
        self.mask.is_some_and(|mask| {
            let mut counts = mask[start..].iter().step_by(self.shape.inner).take(x.len());
            !counts.any(|&counts| counts) && !x.iter().any(|x| x.is_nan())
        })
    }
}

/// Room for n values. What is new comes as zeros from the system, which clears a page when it is first touched.
pub(crate) fn make_room<T: Real>(room: &mut Vec<T>, n: usize) {
    if room.len() != n {
        *room = vec![T::ZERO; n];
    }
}

/// Where chunk `index` of a long row lies in it.
pub(crate) fn chunk(len: usize, index: usize) -> Range<usize> {
    index * CHUNK..len.min((index + 1) * CHUNK)
}

/// What `visit` makes of each chunk of a long row, in their order.
pub(crate) fn of_chunks<R: Send>(
    run: &mut Run<'_>,
    len: usize,
    visit: impl Fn(Range<usize>) -> R + Sync,
) -> Result<Vec<R>, Error> {
    run.collect(len.div_ceil(CHUNK), |index| visit(chunk(len, index)))
}

/// Writes a long row: `write` takes where a chunk lies in it, and the chunk.
pub(crate) fn write_chunks<T: Send>(
    run: &mut Run<'_>,
    y: &mut [T],
    write: impl Fn(Range<usize>, &mut [T]) + Sync,
) -> Result<(), Error> {
    of_written_chunks(run, y, write).map(drop)
}

/// [`write_chunks`], and what `write` returns for each chunk, in their order.
pub(crate) fn of_written_chunks<T: Send, R: Send>(
    run: &mut Run<'_>,
    y: &mut [T],
    write: impl Fn(Range<usize>, &mut [T]) -> R + Sync,
) -> Result<Vec<R>, Error> {
    let (len, parts) = (y.len(), Parts::new(y));
    of_chunks(run, len, |at| {
        // SAFETY: chunks do not overlap, and each belongs to one task.
        let y = unsafe { parts.part(at.start, at.len()) };
        write(at, y)
    })
}

/// Cuts off the first `len` values.
pub(crate) fn take_first<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (first, others) = mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

/// The values of all parts, one after the other, and `room` zeros.
pub(crate) fn gather<T: Real>(
    run: &mut Run<'_>,
    parts: Vec<Vec<T>>,
    room: usize,
) -> Result<Vec<T>, Error> {
    let mut all = vec![T::ZERO; parts.iter().map(Vec::len).sum::<usize>() + room];
    let mut rest = &mut all[..];
    let mut moves: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let to = take_first(&mut rest, part.len());
            (part, to)
        })
        .collect();
    run.each_chunk(
        &mut moves,
        1,
        || (),
        |(), _, moves| {
            let (part, to) = &mut moves[0];
            to.copy_from_slice(&mem::take(part));
        },
    )?;
    Ok(all)
}

/// Where the scores are read from.
pub(crate) enum Source<'a, E> {
    /// An array of their own.
    Apart(&'a [E]),
    /// The output.
    InPlace(&'a Parts<'a, E>),
}

impl<E> Source<'_, E> {
    /// # Safety
    /// In place, no other task holds the range.
    unsafe fn part(&self, start: usize, len: usize) -> &[E] {
        match self {
            Source::Apart(x) => &x[start..start + len],
            // SAFETY: the caller's promise.
            Source::InPlace(parts) => unsafe { parts.part(start, len) },
        }
    }
}

/// Stores contiguous rows to where they belong.
///
/// # Safety
/// No other task holds the rows.
pub(crate) unsafe fn store_rows<E: Storage>(
    shape: Shape,
    rows: Range<usize>,
    y: &[E::Compute],
    to: &Parts<'_, E>,
) {
    let Shape { n, inner, .. } = shape;
    if inner == 1 {
        // SAFETY: the caller's promise.
        return E::store(y, unsafe { to.part(rows.start * n, rows.len() * n) });
    }
    shape.runs(rows.clone(), |start, run| {
        for k in 0..n {
            // SAFETY: the caller's promise.
            let column = unsafe { to.part(start + k * inner, run.len()) };
            for (row, value) in run.clone().zip(column) {
                *value = E::narrow(y[(row - rows.start) * n + k]);
            }
        }
    });
}

/// Gives `map` room for a long row and stores what it wrote there, if that is not its place already.
///
/// # Safety
/// No other task holds the row.
pub(crate) unsafe fn map_long_row<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    row: usize,
    to: &Parts<'_, E>,
    room: &mut Vec<E::Compute>,
    map: impl FnOnce(&mut Run<'_>, &mut [E::Compute]) -> Result<(), Error>,
) -> Result<(), Error> {
    let Shape { n, inner, .. } = shape;
    if inner == 1 {
        // SAFETY: the caller's promise.
        if let Some(y) = E::direct_mut(unsafe { to.part(row * n, n) }) {
            return map(run, y);
        }
    }
    make_room(room, n);
    map(run, room)?;
    run.each(
        n.div_ceil(CHUNK),
        || (),
        |(), index| {
            let at = chunk(n, index);
            let start = shape.start(row) + at.start * inner;
            let y = &room[at];
            if inner == 1 {
                // SAFETY: the caller's promise; each chunk belongs to one task.
                E::store(y, unsafe { to.part(start, y.len()) });
            } else {
                for (k, &y) in y.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { to.part(start + k * inner, 1)[0] = E::narrow(y) };
                }
            }
        },
    )
}

/// What a worker keeps from task to task.
pub(crate) struct Scratch<T> {
    /// Staged input rows.
    pub(crate) x: Vec<T>,
    /// Output rows before they are stored.
    pub(crate) y: Vec<T>,
    /// The kernel's own.
    pub(crate) kernel: Vec<T>,
}

impl<T> Scratch<T> {
    pub(crate) fn new() -> Self {
        Self {
            x: Vec::new(),
            y: Vec::new(),
            kernel: Vec::new(),
        }
    }
}

/// A map, written for contiguous rows.
pub(crate) trait RowMap<T: Real>: Sync {
    /// What a score counts as that the mask excludes.
    const ABSENT: T = T::NEG_INFINITY;
    /// What an entry becomes in a row that is excluded whole.
    const EXCLUDED: T;

    /// Maps whole rows of at most [`LONG`] values, of which the first is row `first` of the batch.
    fn rows(&self, level: Level, first: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>);

    /// Maps one row of more than [`LONG`] values, row `index` of the batch.
    fn long_row(&self, run: &mut Run<'_>, index: usize, x: &[T], y: &mut [T]) -> Result<(), Error>;
}

/// Cuts the rows into tasks: their number, and the rows of each.
pub(crate) fn tasks(shape: Shape) -> (usize, impl Fn(usize) -> Range<usize> + Sync) {
    let rows = shape.count();
    let each = match TASK / shape.n {
        0 if shape.inner == 1 => 1,
        wanted => wanted.next_multiple_of(ROWS).max(ROWS),
    };
    (rows.div_ceil(each), move |task| {
        task * each..rows.min((task + 1) * each)
    })
}

/// Maps all rows.
pub(crate) fn map_rows<E: Storage, M: RowMap<E::Compute>>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    out: &mut [E],
    map: &M,
) -> Result<(), Error> {
    let shape = scores.shape;
    scores.check()?;
    shape.check("out", out.len())?;
    if shape.n > LONG {
        return map_long_rows(run, scores, out, map);
    }
    let level = run.level;
    let out = Parts::new(out);
    let source = match scores.x {
        Some(x) => Source::Apart(x),
        None => Source::InPlace(&out),
    };
    let (count, rows_of) = tasks(shape);
    run.each(count, Scratch::new, |scratch, task| {
        let rows = rows_of(task);
        let len = rows.len() * shape.n;
        // SAFETY: each row belongs to one task; its input is staged before its output is borrowed.
        let x = unsafe { scores.stage(&source, rows.clone(), M::ABSENT, &mut scratch.x) };
        let mut mapped = |y: &mut [E::Compute]| {
            map.rows(level, rows.start, shape.n, x, y, &mut scratch.kernel);
            scores.fill_excluded(rows.clone(), x, y, M::EXCLUDED);
        };
        if shape.inner == 1 {
            // SAFETY: as above.
            if let Some(y) = E::direct_mut(unsafe { out.part(rows.start * shape.n, len) }) {
                return mapped(y);
            }
        }
        scratch.y.resize(len, E::Compute::default());
        mapped(&mut scratch.y);
        // SAFETY: as above.
        unsafe { store_rows(shape, rows, &scratch.y, &out) };
    })
}

fn map_long_rows<E: Storage, M: RowMap<E::Compute>>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    out: &mut [E],
    map: &M,
) -> Result<(), Error> {
    let out = Parts::new(out);
    let source = match scores.x {
        Some(x) => Source::Apart(x),
        None => Source::InPlace(&out),
    };
    let mut scratch = Scratch::new();
    for row in 0..scores.shape.count() {
        // SAFETY: one row at a time; its input is staged before its output is borrowed.
        unsafe {
            let x = scores.stage_long_row(run, &source, row, M::ABSENT, &mut scratch.x)?;
            map_long_row(run, scores.shape, row, &out, &mut scratch.y, |run, y| {
                map.long_row(run, row, x, y)?;
                scores.fill_excluded_long_row(run, row, x, y, M::EXCLUDED)
            })?;
        }
    }
    Ok(())
}
