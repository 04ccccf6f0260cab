//! From an array of any layout to contiguous rows and back: the floor that every map stands on.
//!
//! A map is written once, for contiguous rows of f32 or f64 that do not alias. What differs from that (another axis,
//! float16 storage, a mask, output over the input) is staged: rows are copied into the worker's scratch, mapped
//! there, and copied out, a task at a time, so it costs cache traffic and no memory.

use std::ops::Range;

use fearless_simd::Level;
use half::{f16, slice::HalfFloatSliceExt};

use super::kernels::Compiled;
use crate::{
    error::Error,
    parallel::{Parts, Run},
    scalar::Real,
};

/// Values in a task: large enough to hide the cost of a task, small enough to share out few rows.
const TASK: usize = 1 << 15;

/// Rows in a task come in multiples of this, so that kernels with a lane per row fill their lanes.
const ROWS: usize = 16;

/// Rows longer than this are not tasks but are cut into tasks themselves.
pub(super) const LONG: usize = 1 << 17;

/// Values of a long row that are one task.
pub(super) const CHUNK: usize = 1 << 14;

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

    /// How many rows there are.
    pub fn count(self) -> usize {
        self.outer * self.inner
    }

    /// How many values there are.
    pub fn len(self) -> usize {
        self.count() * self.n
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The index of a row's first value.
    fn start(self, row: usize) -> usize {
        row / self.inner * self.n * self.inner + row % self.inner
    }

    pub(super) fn check(self, argument: &'static str, found: usize) -> Result<(), Error> {
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
    pub(super) fn of(self, row: usize) -> f64 {
        match self {
            PerRow::All(value) => value,
            PerRow::Each(values) => values[row],
        }
    }

    /// Checks the number of values and each value.
    pub(super) fn check(
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
    pub(super) fn runs(self, rows: Range<usize>, mut visit: impl FnMut(Range<usize>, f64)) {
        let mut start = rows.start;
        while start < rows.end {
            let value = self.of(start);
            let mut end = start + 1;
            match self {
                PerRow::All(_) => end = rows.end,
                PerRow::Each(values) => {
                    while end < rows.end && values[end] == value {
                        end += 1;
                    }
                }
            }
            visit(start..end, value);
            start = end;
        }
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

    pub(super) fn check(&self) -> Result<(), Error> {
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
    /// An excluded score becomes -∞; a NaN stays a NaN.
    ///
    /// # Safety
    /// `from` is `x`, or no other task holds the rows.
    pub(super) unsafe fn stage<'s>(
        &self,
        from: &Source<'s, E>,
        rows: Range<usize>,
        room: &'s mut Vec<E::Compute>,
    ) -> &'s [E::Compute] {
        let Shape { n, inner, .. } = self.shape;
        if let Source::Apart(x) = *from
            && inner == 1
            && self.mask.is_none()
            && let Some(direct) = E::direct(&x[rows.start * n..rows.end * n])
        {
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
        if let Some(mask) = self.mask {
            for row in rows.clone() {
                let start = self.shape.start(row);
                for (k, value) in room[(row - rows.start) * n..][..n].iter_mut().enumerate() {
                    if !mask[start + k * inner] && !value.is_nan() {
                        *value = E::Compute::NEG_INFINITY;
                    }
                }
            }
        }
        room
    }

    /// A row of only -∞ is NaN to a map; where the mask made it so, it is [`RowMap::EXCLUDED`] instead.
    pub(super) fn fill_excluded<M: RowMap<E::Compute>>(
        &self,
        rows: Range<usize>,
        x: &[E::Compute],
        y: &mut [E::Compute],
        _: &M,
    ) {
        if self.mask.is_none() {
            return;
        }
        let n = self.shape.n;
        for (row, (x, y)) in rows.zip(x.chunks_exact(n).zip(y.chunks_exact_mut(n))) {
            if self.excludes(row) && !x.iter().any(|x| x.is_nan()) {
                y.fill(M::EXCLUDED);
            }
        }
    }

    /// Whether the mask excludes the whole row.
    fn excludes(&self, row: usize) -> bool {
        let (start, inner) = (self.shape.start(row), self.shape.inner);
        self.mask
            .is_some_and(|mask| (0..self.shape.n).all(|k| !mask[start + k * inner]))
    }
}

/// Where the scores are read from.
pub(super) enum Source<'a, E> {
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
pub(super) unsafe fn store_rows<E: Storage>(
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

/// What a worker keeps from task to task.
pub(super) struct Scratch<T> {
    /// Staged input rows.
    pub(super) x: Vec<T>,
    /// Output rows before they are stored.
    pub(super) y: Vec<T>,
    /// The kernel's own.
    pub(super) kernel: Vec<T>,
}

impl<T> Scratch<T> {
    pub(super) fn new() -> Self {
        Self {
            x: Vec::new(),
            y: Vec::new(),
            kernel: Vec::new(),
        }
    }
}

/// A map, written for contiguous rows.
pub(super) trait RowMap<T: Real>: Sync {
    /// What an entry becomes in a row that is excluded whole.
    const EXCLUDED: T;

    /// Maps whole rows of at most [`LONG`] values, of which the first is row `first` of the batch.
    fn rows(&self, level: Level, first: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>);

    /// Maps one row of more than [`LONG`] values, row `index` of the batch.
    fn long_row(&self, run: &mut Run<'_>, index: usize, x: &[T], y: &mut [T]) -> Result<(), Error>;
}

/// Cuts the rows into tasks: their number, and the rows of each.
pub(super) fn tasks(shape: Shape) -> (usize, impl Fn(usize) -> Range<usize> + Sync) {
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
pub(super) fn map_rows<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    out: &mut [E],
    map: &impl RowMap<E::Compute>,
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
        let x = unsafe { scores.stage(&source, rows.clone(), &mut scratch.x) };
        let mut mapped = |y: &mut [E::Compute]| {
            map.rows(level, rows.start, shape.n, x, y, &mut scratch.kernel);
            scores.fill_excluded(rows.clone(), x, y, map);
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

fn map_long_rows<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    out: &mut [E],
    map: &impl RowMap<E::Compute>,
) -> Result<(), Error> {
    let Shape { n, inner, .. } = scores.shape;
    let out = Parts::new(out);
    let mut scratch = Scratch::new();
    for row in 0..scores.shape.count() {
        let source = match scores.x {
            Some(x) => Source::Apart(x),
            None => Source::InPlace(&out),
        };
        // SAFETY: one row at a time; its input is staged before its output is borrowed.
        let x = unsafe { scores.stage(&source, row..row + 1, &mut scratch.x) };
        if inner == 1 {
            // SAFETY: as above.
            if let Some(y) = E::direct_mut(unsafe { out.part(row * n, n) }) {
                map.long_row(run, row, x, y)?;
                scores.fill_excluded(row..row + 1, x, y, map);
                continue;
            }
        }
        scratch.y.resize(n, E::Compute::default());
        map.long_row(run, row, x, &mut scratch.y)?;
        scores.fill_excluded(row..row + 1, x, &mut scratch.y, map);
        // SAFETY: as above.
        unsafe { store_rows(scores.shape, row..row + 1, &scratch.y, &out) };
    }
    Ok(())
}
