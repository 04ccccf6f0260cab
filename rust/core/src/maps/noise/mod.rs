//! noisy_argmax of rows: `pᵢ = P[argmax(x/s + ε) = i]` for independent ε of one density f with distribution function F
//! (Su Jianlin, kexue.fm 2022-05-25); its gradient; and its sampler.
//!
//! ```text
//! z ← (x - max)/s;  h = f/F;  G(u) = Π F(u - zⱼ);  pᵢ = ∫ h(u - zᵢ) G(u) du
//! (Jᵀg)ⱼ = ∫ G h(u - zⱼ) (gⱼ H - K) du / s, H = Σ h(u - zᵢ), K = Σ gᵢ h(u - zᵢ)
//! ```
//!
//! * **Domain.** As [`super::softmax()`]: a NaN makes its row NaN; -∞ gets exactly 0, a row of only -∞ is NaN; +∞ entries
//!   share the mass equally. Any density: Gumbel noise is softmax, exponential noise is permute-and-flip.
//! * **Precision.** Everything is computed in f64: within 1e-10, and for p down to 1e-30 within 1e-8 of p, as far as z is
//!   known. Then the row is divided by its sum. A table is as good as its interpolation. Far below, p becomes exactly 0:
//!   under normal noise from 30 standard deviations behind the largest score (20.5 for f32), where it is below 1e-99
//!   (1e-47).
//! * **Order.** x ≤ y implies p(x) ≤ p(y) within a row: z is rounded to multiples of 2⁻³⁸, so scores that differ at all
//!   differ by more than the error with which p is computed.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** O(n k): see [`smooth`], where k is spent on points between the entries instead of on them, and [`kinked`].

mod draw;
mod kinked;
mod smooth;
mod table;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

pub use draw::noisy_sample;
pub use table::Table;

use super::{
    infinite::{Shares, share_infinities},
    softmax::softmax,
};
use crate::{
    batch::{
        LONG, RowMap, Scores, Scratch, Shape, Source, Storage, map_long_row, map_rows, store_rows,
        tasks,
    },
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    scalar::Real,
    simd::{Sum, exp, max, whole_stripes_mut},
};

/// The density of the noise.
#[derive(Debug, Clone, PartialEq)]
pub enum Noise {
    /// `e^{-u - e^{-u}}`.
    Gumbel,
    /// Standard normal.
    Normal,
    /// `1/(2 cosh(u/2))²`.
    Logistic,
    /// `e^{-u}` for u ≥ 0.
    Exponential,
    /// 1 on [0, 1].
    Uniform,
    /// Any other, tabulated.
    Table(Table),
}

/// `P[argmax(x + scale · ε) = i]` of every row.
///
/// # Errors
/// [`Error::Domain`] unless the scale is finite and positive; [`Error::Empty`] and [`Error::Length`] if the shapes do not
/// fit; [`Error::Interrupted`].
pub fn noisy_argmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    noise: &Noise,
    scale: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_scale(scale)?;
    match noise {
        Noise::Gumbel => softmax(run, scores, scale, out),
        _ => map_rows(run, scores, out, &NoisyArgmax { noise, scale }),
    }
}

/// `Jᵀ g` of [`noisy_argmax`] at the scores x. Zero for scores of -∞, and in rows with +∞; NaN in rows with NaN.
///
/// # Errors
/// As [`noisy_argmax`].
pub fn noisy_argmax_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (x, g): (&[E], &[E]),
    noise: &Noise,
    scale: f64,
    out: &mut [E],
) -> Result<(), Error> {
    check_scale(scale)?;
    shape.check("x", x.len())?;
    shape.check("g", g.len())?;
    shape.check("out", out.len())?;
    let kernel = E::Compute::kernels().maps.noise.vjp_row;
    let level = run.level;
    let scores = [Scores::new(shape, x), Scores::new(shape, g)];
    let sources = [Source::Apart(x), Source::Apart(g)];
    let absent = E::Compute::NEG_INFINITY;
    let out = Parts::new(out);
    if shape.n > LONG {
        let mut scratch = Scratch::new();
        let mut room = Room::default();
        for row in 0..shape.count() {
            // SAFETY: nothing is written to x and g; one row at a time.
            unsafe {
                let x = scores[0].stage_long_row(run, &sources[0], row, absent, &mut scratch.x)?;
                let g =
                    scores[1].stage_long_row(run, &sources[1], row, absent, &mut scratch.kernel)?;
                map_long_row(run, shape, row, &out, &mut scratch.y, |_, y| {
                    kernel(level, noise, scale, (x, g), y, &mut room);
                    Ok(())
                })?;
            }
        }
        return Ok(());
    }
    let (count, rows_of) = tasks(shape);
    run.each(
        count,
        || (Scratch::new(), Room::default()),
        |(scratch, room), task| {
            let rows = rows_of(task);
            // SAFETY: nothing is written to x and g.
            let (x, g) = unsafe {
                (
                    scores[0].stage(&sources[0], rows.clone(), absent, &mut scratch.x),
                    scores[1].stage(&sources[1], rows.clone(), absent, &mut scratch.kernel),
                )
            };
            scratch.y.resize(x.len(), E::Compute::ZERO);
            let n = shape.n;
            for ((x, g), y) in x
                .chunks_exact(n)
                .zip(g.chunks_exact(n))
                .zip(scratch.y.chunks_exact_mut(n))
            {
                kernel(level, noise, scale, (x, g), y, room);
            }
            // SAFETY: each row belongs to one task.
            unsafe { store_rows(shape, rows, &scratch.y, &out) };
        },
    )
}

/// `P[argmax(x + scale · ε) = target]` of one row, and its gradient in x where one is asked for.
pub(crate) fn target_probability<T: Compiled>(
    level: Level,
    noise: &Noise,
    scale: f64,
    x: &[T],
    target: usize,
    gradient: Option<&mut [T]>,
    room: &mut Room,
) -> f64 {
    (T::kernels().maps.noise.target)(level, noise, scale, x, target, gradient, room)
}

pub(super) fn check_scale(scale: f64) -> Result<(), Error> {
    if scale > 0.0 && scale < f64::INFINITY {
        return Ok(());
    }
    Err(Error::Domain {
        argument: "scale",
        domain: "finite and positive",
        value: scale,
    })
}

struct NoisyArgmax<'a> {
    noise: &'a Noise,
    scale: f64,
}

impl<T: Compiled> RowMap<T> for NoisyArgmax<'_> {
    const EXCLUDED: T = T::ZERO;

    fn rows(&self, level: Level, _: usize, n: usize, x: &[T], y: &mut [T], _: &mut Vec<T>) {
        let mut room = Room::default();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            (T::kernels().maps.noise.row)(level, self.noise, self.scale, x, y, &mut room);
        }
    }

    fn long_row(&self, run: &mut Run<'_>, _: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        // Not shared out, nor interrupted: a million entries take some milliseconds. But under uniform noise it is minutes
        // if all of them differ and lie closely together; see the cost of `kinked`.
        let mut room = Room::default();
        (T::kernels().maps.noise.row)(run.level, self.noise, self.scale, x, y, &mut room);
        Ok(())
    }
}

/// The kernels for values of type T; the last argument is their scratch.
pub(in crate::maps) struct Kernels<T> {
    row: MapRow<T>,
    vjp_row: PullRow<T>,
    target: TargetOfRow<T>,
    draw: draw::DrawRow<T>,
}

type MapRow<T> = fn(Level, &Noise, f64, &[T], &mut [T], &mut Room);
type PullRow<T> = fn(Level, &Noise, f64, (&[T], &[T]), &mut [T], &mut Room);
type TargetOfRow<T> = fn(Level, &Noise, f64, &[T], usize, Option<&mut [T]>, &mut Room) -> f64;

impl<T: Real> Kernels<T> {
    pub(in crate::maps) const AT_ANY_LEVEL: Self = Self {
        row: map_row,
        vjp_row: pull_row,
        target: target_of_row,
        draw: draw::draw_row,
    };
}

/// What a worker keeps from row to row.
#[derive(Default)]
pub(crate) struct Room {
    /// Scores below the largest, in units of the scale; then p. Filled up with -∞ to whole [`BLOCK`]s.
    z: Vec<f64>,
    /// Gradients from above, filled up with zeros; then those of the row.
    g: Vec<f64>,
    smooth: smooth::Room,
    kinked: kinked::Room,
}

/// The z of a row are a multiple of this many.
const BLOCK: usize = 32;

impl Noise {
    /// Adding and subtracting it rounds z to multiples of 2⁻³⁸. Softmax keeps the order by itself.
    fn grain(&self) -> f64 {
        match self {
            Noise::Gumbel => 0.0,
            _ => 1.5 * (1u64 << 14) as f64,
        }
    }
}

fn map_row<T: Real>(
    level: Level,
    noise: &Noise,
    scale: f64,
    x: &[T],
    y: &mut [T],
    room: &mut Room,
) {
    let top = dispatch!(level, simd => load(simd, x, scale, noise.grain(), &mut room.z));
    if !top.is_finite() {
        return share_infinities(x, y, T::ONE);
    }
    probabilities(level, noise, T::LANES == f32::LANES, room);
    for (y, p) in y.iter_mut().zip(&room.z) {
        *y = T::from_f64(*p);
    }
}

fn pull_row<T: Real>(
    level: Level,
    noise: &Noise,
    scale: f64,
    (x, g): (&[T], &[T]),
    y: &mut [T],
    room: &mut Room,
) {
    let top = dispatch!(level, simd => load(simd, x, scale, noise.grain(), &mut room.z));
    if !top.is_finite() {
        return y.fill(if top.is_nan() { T::NAN } else { T::ZERO });
    }
    room.g.clear();
    room.g.extend(g.iter().map(|g| g.to_f64()));
    room.g.resize(room.z.len(), 0.0);
    gradient(level, noise, T::LANES == f32::LANES, room);
    for (y, g) in y.iter_mut().zip(&room.g) {
        *y = T::from_f64(*g / scale);
    }
}

fn target_of_row<T: Real>(
    level: Level,
    noise: &Noise,
    scale: f64,
    x: &[T],
    target: usize,
    y: Option<&mut [T]>,
    room: &mut Room,
) -> f64 {
    let top = dispatch!(level, simd => load(simd, x, scale, noise.grain(), &mut room.z));
    if !top.is_finite() {
        if let Some(y) = y {
            y.fill(if top == f64::INFINITY {
                T::ZERO
            } else {
                T::NAN
            });
        }
        return Shares::of_row(x, T::ONE).at(x[target]).to_f64();
    }
    let Some(y) = y else {
        probabilities(level, noise, false, room);
        return room.z[target];
    };
    room.g.clear();
    room.g.resize(room.z.len(), 0.0);
    room.g[target] = 1.0;
    gradient(level, noise, false, room);
    for (y, g) in y.iter_mut().zip(&room.g) {
        *y = T::from_f64(*g / scale);
    }
    room.z[target]
}

/// Fills z and returns the maximum; NaN if there is a NaN.
#[simd]
fn load<S: Simd, T: Real>(simd: S, x: &[T], scale: f64, grain: f64, z: &mut Vec<f64>) -> f64 {
    let top = max::<T, S>(simd, x).to_f64();
    z.resize(x.len().next_multiple_of(BLOCK), 0.0);
    for (z, x) in z.iter_mut().zip(x) {
        *z = x.to_f64();
    }
    z[x.len()..].fill(f64::NEG_INFINITY);
    let (stripes, _) = whole_stripes_mut(z);
    let mut known = f64s::<S>(simd, 0.0).simd_eq(0.0);
    for z in stripes.chunks_exact_mut(f64::LANES) {
        let x = stripe::<S>(simd, z);
        known &= x.simd_eq(x);
        let below = (x - top) / scale;
        ((below + grain) - grain).store_slice(z);
    }
    if known.all_true() { top } else { f64::NAN }
}

/// p in place of z.
fn probabilities(level: Level, noise: &Noise, narrow: bool, room: &mut Room) {
    let Room {
        z, smooth, kinked, ..
    } = room;
    match noise {
        Noise::Gumbel => dispatch!(level, simd => exponentials(simd, z)),
        Noise::Normal => {
            dispatch!(level, simd => smooth::probabilities::<_, smooth::Normal>(simd, narrow, z, smooth));
        }
        Noise::Logistic => {
            dispatch!(level, simd => smooth::probabilities::<_, smooth::Logistic>(simd, narrow, z, smooth));
        }
        Noise::Exponential => dispatch!(level, simd => kinked::exponential(simd, z, kinked)),
        Noise::Uniform => dispatch!(level, simd => kinked::uniform(simd, z, kinked)),
        Noise::Table(table) => table.probabilities(z, kinked),
    }
    dispatch!(level, simd => normalize(simd, z));
}

/// p in place of z, and Jᵀg in place of g but for the scale.
fn gradient(level: Level, noise: &Noise, narrow: bool, room: &mut Room) {
    let Room {
        z,
        g,
        smooth,
        kinked,
    } = room;
    match noise {
        Noise::Gumbel => {
            probabilities(level, noise, narrow, room);
            let Room { z, g, .. } = room;
            return dispatch!(level, simd => pull_softmax(simd, z, g));
        }
        Noise::Normal => {
            dispatch!(level, simd => smooth::gradient::<_, smooth::Normal>(simd, narrow, z, g, smooth));
        }
        Noise::Logistic => {
            dispatch!(level, simd => smooth::gradient::<_, smooth::Logistic>(simd, narrow, z, g, smooth));
        }
        Noise::Exponential => {
            dispatch!(level, simd => kinked::exponential_gradient(simd, z, g, kinked));
        }
        Noise::Uniform => dispatch!(level, simd => kinked::uniform_gradient(simd, z, g, kinked)),
        Noise::Table(table) => table.gradient(z, g, kinked),
    }
    dispatch!(level, simd => normalize(simd, z));
}

#[simd]
fn exponentials<S: Simd>(simd: S, z: &mut [f64]) {
    for z in z.chunks_exact_mut(f64::LANES) {
        exp::<f64, S>(stripe::<S>(simd, z)).store_slice(z);
    }
}

#[simd]
fn pull_softmax<S: Simd>(simd: S, p: &[f64], g: &mut [f64]) {
    let mut mean = Sum::<f64, S>::new(simd);
    for (p, g) in p.chunks_exact(f64::LANES).zip(g.chunks_exact(f64::LANES)) {
        let p = stripe::<S>(simd, p);
        mean.add(taken::<S>(p, p * stripe::<S>(simd, g)));
    }
    let mean = mean.total();
    for (p, g) in p
        .chunks_exact(f64::LANES)
        .zip(g.chunks_exact_mut(f64::LANES))
    {
        let p = stripe::<S>(simd, p);
        taken::<S>(p, p * (stripe::<S>(simd, g) - mean)).store_slice(g);
    }
}

/// Divides by the sum.
#[simd]
fn normalize<S: Simd>(simd: S, p: &mut [f64]) {
    let mut sum = Sum::<f64, S>::new(simd);
    for p in p.chunks_exact(f64::LANES) {
        sum.add(stripe::<S>(simd, p));
    }
    let inverse = sum.total().recip();
    for p in p.chunks_exact_mut(f64::LANES) {
        (stripe::<S>(simd, p) * inverse).store_slice(p);
    }
}

/// The value where p is not 0, and 0 where it is.
#[inline(always)]
fn taken<S: Simd>(p: Stripe<S>, value: Stripe<S>) -> Stripe<S> {
    p.simd_gt(0.0).select(value, f64s::<S>(p.token(), 0.0))
}

type Stripe<S> = <f64 as Real>::Stripe<S>;

#[inline(always)]
fn stripe<S: Simd>(simd: S, values: &[f64]) -> Stripe<S> {
    Stripe::<S>::from_slice(simd, values)
}

#[inline(always)]
fn f64s<S: Simd>(simd: S, value: f64) -> Stripe<S> {
    Stripe::<S>::splat(simd, value)
}
