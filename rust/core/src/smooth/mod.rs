//! Smooth stand-ins for functions with bends and jumps, value by value with their slopes; and smooth means of rows.
//!
//! [`smooth`] convolves a piecewise-linear function, floor or round with a kernel, or weighs a ramp by a smoothed step;
//! [`smooth_abs`] is the one of |x| in its two forms; [`smooth_max`] and [`power_mean`] work along an axis.
//!
//! * **Domain.** Any values. NaN stays NaN, infinities give the limits; floor and round have no slope there: NaN.
//! * **Precision.** The exact function plus tails of the kernel (`tails.rs`), each to a few ulp of itself; x/width is
//!   rounded once, so a value is that of an x within an ulp. floor and round: a few ulp of 1 or of the value.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** A pass. A ramp takes an exponential and a logarithm (logistic), or an exponential and a polynomial
//!   (Gaussian), or a few multiplications (uniform); pieces take that at each break.

mod curves;
mod means;
mod stairs;
mod table;
mod tails;

pub use crate::batch::{Scores, Shape, Storage};
pub use means::{power_mean, smooth_max};
pub(crate) use table::Kernels;

use crate::{
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    scalar::Real,
};

/// Values in a task.
const TASK: usize = 1 << 15;

/// The density that smooths, by its width w.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The derivative of `1/(1 + e^(-x/w))`.
    Logistic,
    /// Normal; w is the standard deviation.
    Gaussian,
    /// Uniform on [-w, w].
    Uniform,
}

/// A function to be smoothed.
#[derive(Debug, Clone, Copy)]
pub enum Function<'a> {
    /// x above 0, and x times the number below.
    Ramp(f64),
    /// The same as a product: x (s + (1 - s) H(x)), H being the smoothed step.
    Gate(f64),
    /// 0 below 0, 1 above.
    Step,
    /// -1 below 0, 1 above.
    Sign,
    /// The largest integer that is not above x.
    Floor,
    /// The integer next to x.
    Round,
    /// Any lines.
    Pieces(PiecewiseLinear<'a>),
}

/// A function made of lines, with a bend, a jump or both at each break.
#[derive(Debug, Clone, Copy)]
pub struct PiecewiseLinear<'a> {
    /// Where the lines meet, in increasing order; at least one.
    pub breaks: &'a [f64],
    /// The slope before the first break, between each two, and behind the last.
    pub slopes: &'a [f64],
    /// What is added at each break.
    pub jumps: &'a [f64],
    /// The value at the first break, from the left.
    pub value: f64,
}

impl PiecewiseLinear<'_> {
    fn check<T: Real>(&self) -> Result<(), Error> {
        let count = self.breaks.len();
        if count == 0 {
            return Err(Error::Unsupported {
                argument: "breaks",
                reason: "at least one is needed",
            });
        }
        for (argument, values, expected) in [
            ("slopes", self.slopes, count + 1),
            ("jumps", self.jumps, count),
        ] {
            if values.len() != expected {
                return Err(Error::Length {
                    argument,
                    expected,
                    found: values.len(),
                });
            }
        }
        for (argument, values) in [
            ("breaks", self.breaks),
            ("slopes", self.slopes),
            ("jumps", self.jumps),
            ("value", &[self.value]),
        ] {
            for &value in values {
                check(argument, FITS, value, fits::<T>(value))?;
            }
        }
        for pair in self.breaks.windows(2) {
            check("breaks", "increasing", pair[1], pair[0] < pair[1])?;
        }
        Ok(())
    }
}

const FITS: &str = "finite in the type of the values";

fn fits<T: Real>(value: f64) -> bool {
    T::from_f64(value).is_finite()
}

fn check(
    argument: &'static str,
    domain: &'static str,
    value: f64,
    holds: bool,
) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Domain {
        argument,
        domain,
        value,
    })
}

fn check_positive(argument: &'static str, value: f64) -> Result<(), Error> {
    let holds = value > 0.0 && value.is_finite();
    check(argument, "finite and positive", value, holds)
}

/// Where values are read and written: `x`, or `out` itself if there is none; and their slopes, if they are asked for.
pub struct Values<'a, E> {
    /// The values; `None` where they lie in the output.
    pub x: Option<&'a [E]>,
    /// What becomes of them.
    pub out: &'a mut [E],
    /// The derivatives there.
    pub slopes: Option<&'a mut [E]>,
}

/// The smoothed function of every value, and its derivative.
///
/// # Errors
/// [`Error::Domain`] unless the width is finite and positive and what the function is made of is finite, with breaks that
/// increase; [`Error::Unsupported`] without breaks; [`Error::Length`] if the lengths do not fit; [`Error::Interrupted`].
pub fn smooth<E: Storage>(
    run: &mut Run<'_>,
    function: Function<'_>,
    kernel: Kernel,
    width: f64,
    values: Values<'_, E>,
) -> Result<(), Error> {
    check_positive("width", width)?;
    match function {
        Function::Ramp(slope) | Function::Gate(slope) => {
            check("slope", FITS, slope, fits::<E::Compute>(slope))?;
        }
        Function::Pieces(pieces) => pieces.check::<E::Compute>()?,
        _ => {}
    }
    write(run, Smoothed::Function(function, kernel, width), values)
}

/// How |x| is made smooth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absolute {
    /// `log(e^kx + e^-kx) / k`, the smooth maximum of x and -x: |x| convolved with the logistic kernel of width 1/(2k).
    Maximum,
    /// `√(x² + 1/k²)`.
    Root,
}

/// A smooth |x| of every value, and its derivative.
///
/// # Errors
/// [`Error::Domain`] unless k is finite and positive; else as [`smooth`].
pub fn smooth_abs<E: Storage>(
    run: &mut Run<'_>,
    form: Absolute,
    k: f64,
    values: Values<'_, E>,
) -> Result<(), Error> {
    check_positive("k", k)?;
    let what = match form {
        Absolute::Maximum => Smoothed::Absolute(0.5 / k),
        Absolute::Root => Smoothed::Root(1.0 / k),
    };
    write(run, what, values)
}

/// A function that was checked.
#[derive(Clone, Copy)]
enum Smoothed<'a> {
    /// With the kernel and its width.
    Function(Function<'a>, Kernel, f64),
    /// |x| convolved with the logistic kernel of this width.
    Absolute(f64),
    /// `√(x² + ε²)`.
    Root(f64),
}

fn write<E: Storage>(
    run: &mut Run<'_>,
    what: Smoothed<'_>,
    values: Values<'_, E>,
) -> Result<(), Error> {
    let Values { x, out, slopes } = values;
    let expected = out.len();
    for (argument, found) in [
        ("x", x.map(<[E]>::len)),
        ("slopes", slopes.as_ref().map(|s| s.len())),
    ] {
        if let Some(found) = found.filter(|&found| found != expected) {
            return Err(Error::Length {
                argument,
                expected,
                found,
            });
        }
    }
    let (level, kernels) = (run.level, &E::Compute::kernels().smooth);
    let (out, slopes) = (Parts::new(out), slopes.map(Parts::new));
    let tasks = expected.div_ceil(TASK);
    run.each(tasks, <[Vec<E::Compute>; 3]>::default, |rooms, task| {
        let [x_room, y_room, slope_room] = rooms;
        let start = task * TASK;
        let len = TASK.min(expected - start);
        // SAFETY: each range belongs to one task, which reads its values before it writes.
        let (y, slopes) = unsafe {
            (
                out.part(start, len),
                slopes.as_ref().map(|s| s.part(start, len)),
            )
        };
        let x = match x.map(|x| &x[start..start + len]) {
            Some(x) => E::direct(x).unwrap_or_else(|| loaded(x, x_room)),
            None => loaded(y, x_room),
        };
        if E::direct(&*y).is_some() {
            let y = E::direct_mut(y).unwrap_or_default();
            return (kernels.write)(level, what, x, y, slopes.and_then(E::direct_mut));
        }
        y_room.resize(len, E::Compute::default());
        match slopes {
            None => (kernels.write)(level, what, x, y_room, None),
            Some(slopes) => {
                slope_room.resize(len, E::Compute::default());
                (kernels.write)(level, what, x, y_room, Some(slope_room));
                E::store(slope_room, slopes);
            }
        }
        E::store(y_room, y);
    })
}

/// The values in the type that computes.
fn loaded<'a, E: Storage>(x: &[E], room: &'a mut Vec<E::Compute>) -> &'a [E::Compute] {
    room.resize(x.len(), E::Compute::default());
    E::load(x, room);
    room
}
