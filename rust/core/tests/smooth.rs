//! The smooth functions against slow formulas in f64, and what holds for all of them: the same bits at every SIMD level,
//! number of workers and place in the array; NaN and infinities; errors that name the argument.
//!
//! The last digits are the Python tests' concern (`tests/test_smooth.py`), which have 40 of them.

mod common;

use fearless_simd::Level;
use half::f16;
use proptest::prelude::*;
use unitmass_core::{
    error::Error,
    parallel::Run,
    smooth::{
        Absolute, Function, Kernel, PiecewiseLinear, Scores, Shape, Storage, Values, power_mean,
        smooth, smooth_abs, smooth_max,
    },
};

use common::{Numbers, every_level};

const KERNELS: [Kernel; 3] = [Kernel::Logistic, Kernel::Gaussian, Kernel::Uniform];

const PIECES: PiecewiseLinear<'_> = PiecewiseLinear {
    breaks: &[-1.0, 0.5, 2.0],
    slopes: &[0.5, -1.0, 0.0, 2.0],
    jumps: &[1.0, 0.0, -2.0],
    value: 0.7,
};

const FUNCTIONS: [Function<'_>; 8] = [
    Function::Ramp(0.0),
    Function::Ramp(0.1),
    Function::Gate(-0.3),
    Function::Step,
    Function::Sign,
    Function::Floor,
    Function::Round,
    Function::Pieces(PIECES),
];

/// Narrow and wide: both ways of the stairs.
const WIDTHS: [f64; 3] = [0.07, 0.6, 2.0];

fn run<R>(level: Level, workers: usize, call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

/// What a call writes: values and slopes.
type Pair<E> = (Vec<E>, Vec<E>);

fn written<E: Storage + Default>(
    level: Level,
    workers: usize,
    x: &[E],
    call: impl FnOnce(&mut Run<'_>, Values<'_, E>) -> Result<(), Error>,
) -> Pair<E> {
    let (mut out, mut slopes) = (vec![E::default(); x.len()], vec![E::default(); x.len()]);
    let values = Values {
        x: Some(x),
        out: &mut out,
        slopes: Some(&mut slopes),
    };
    run(level, workers, |run| call(run, values)).unwrap();
    (out, slopes)
}

fn smoothed<E: Storage + Default>(
    level: Level,
    workers: usize,
    function: Function<'_>,
    kernel: Kernel,
    width: f64,
    x: &[E],
) -> Pair<E> {
    written(level, workers, x, |run, values| {
        smooth(run, function, kernel, width, values)
    })
}

/// H and R of a kernel of width 1.
fn step_and_ramp(kernel: Kernel, z: f64) -> (f64, f64) {
    match kernel {
        Kernel::Logistic => (
            1.0 / (1.0 + (-z).exp()),
            z.max(0.0) + (-z.abs()).exp().ln_1p(),
        ),
        Kernel::Uniform => {
            let h = ((1.0 + z) / 2.0).clamp(0.0, 1.0);
            (h, if z.abs() < 1.0 { h * h } else { z.max(0.0) })
        }
        Kernel::Gaussian => {
            let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let h = 0.5 * erfc(-z / std::f64::consts::SQRT_2);
            (h, z * h + density)
        }
    }
}

/// erfc by Simpson's rule: 2/√π ∫ₓ^∞ e^(-t²) dt.
fn erfc(x: f64) -> f64 {
    let (steps, top) = (4000, 8.0);
    let h = (top - x) / f64::from(steps);
    let f = |i: i32| (-(x + h * f64::from(i)).powi(2)).exp();
    let simpson: f64 = (0..steps / 2)
        .map(|i| f(2 * i) + 4.0 * f(2 * i + 1) + f(2 * i + 2))
        .sum();
    simpson * h / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

fn expected(function: Function<'_>, kernel: Kernel, width: f64, x: f64) -> f64 {
    let (step, ramp) = step_and_ramp(kernel, x / width);
    let stairs = |x: f64| {
        let n = x.floor();
        let reach = 45.0 * width + 2.0;
        let mut j = (n - reach).ceil();
        let mut sum = j - 1.0;
        while j <= n + reach {
            sum += step_and_ramp(kernel, (x - j) / width).0;
            j += 1.0;
        }
        sum
    };
    match function {
        Function::Ramp(s) => s * x + (1.0 - s) * width * ramp,
        Function::Gate(s) => x * (s + (1.0 - s) * step),
        Function::Step => step,
        Function::Sign => 2.0 * step - 1.0,
        Function::Floor => stairs(x),
        Function::Round => stairs(x + 0.5),
        Function::Pieces(p) => {
            let mut sum = p.value + p.slopes[0] * (x - p.breaks[0]);
            for (i, b) in p.breaks.iter().enumerate() {
                let (step, ramp) = step_and_ramp(kernel, (x - b) / width);
                sum += (p.slopes[i + 1] - p.slopes[i]) * width * ramp + p.jumps[i] * step;
            }
            sum
        }
    }
}

#[test]
fn values_and_slopes_by_the_formulas() {
    let mut numbers = Numbers::new(1);
    let x: Vec<f64> = (0..37).map(|_| numbers.uniform(-4.0, 4.0)).collect();
    let (level, h) = (Level::new(), 1e-5);
    for function in FUNCTIONS {
        for kernel in KERNELS {
            for width in WIDTHS {
                let (values, slopes) = smoothed(level, 1, function, kernel, width, &x);
                for ((&x, value), slope) in x.iter().zip(values).zip(slopes) {
                    let f = |x| expected(function, kernel, width, x);
                    assert!(
                        (value - f(x)).abs() < 1e-11,
                        "{function:?} {kernel:?} {width} {x}"
                    );
                    let ends = kernel == Kernel::Uniform; // where the slope jumps
                    let difference = (f(x + h) - f(x - h)) / (2.0 * h);
                    let near = (slope - difference).abs() < 3e-6 * (1.0 + width.powi(-3));
                    assert!(
                        near || ends,
                        "{function:?} {kernel:?} {width} {x}: {slope} {difference}"
                    );
                }
            }
        }
    }
}

/// Numbers of every size, and the special ones.
fn all_sorts(count: usize) -> Vec<f64> {
    let mut numbers = Numbers::new(7);
    let special = [
        0.0,
        -0.0,
        0.5,
        -0.5,
        1.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        1e300,
        -5e-324,
    ];
    let mut x: Vec<f64> = special.into();
    x.extend((0..count).map(|_| numbers.uniform(-40.0, 5.0)));
    x.extend((0..count).map(|_| f64::from_bits(numbers.bits())));
    x
}

trait Bits: Storage + Default {
    fn of(x: f64) -> Self;
    fn bits(self) -> u64;
}

impl Bits for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }
    fn bits(self) -> u64 {
        if self.is_nan() {
            1
        } else {
            self.to_bits().into()
        }
    }
}

impl Bits for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn bits(self) -> u64 {
        if self.is_nan() { 1 } else { self.to_bits() }
    }
}

impl Bits for f16 {
    fn of(x: f64) -> Self {
        f16::from_f64(x)
    }
    fn bits(self) -> u64 {
        if self.is_nan() {
            1
        } else {
            self.to_bits().into()
        }
    }
}

fn assert_same<E: Bits>(a: &[E], b: &[E]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.bits(), b.bits(), "at {i}");
    }
}

fn the_same_bits_everywhere<E: Bits>() {
    let x: Vec<E> = all_sorts(400).into_iter().map(E::of).collect();
    let x: Vec<E> = x.iter().copied().cycle().take(70_000).collect(); // three tasks
    let few = &x[..821];
    for function in FUNCTIONS {
        for kernel in KERNELS {
            for width in [0.07, 0.6] {
                let (values, slopes) = smoothed(Level::new(), 1, function, kernel, width, few);
                for (_, level) in every_level() {
                    let other = smoothed(level, 1, function, kernel, width, few);
                    assert_same(&values, &other.0);
                    assert_same(&slopes, &other.1);
                }
            }
        }
        let (values, slopes) = smoothed(Level::new(), 1, function, Kernel::Logistic, 1.0, &x);
        let other = smoothed(Level::new(), 3, function, Kernel::Logistic, 1.0, &x);
        assert_same(&values, &other.0);
        assert_same(&slopes, &other.1);
        let mut own = x.clone();
        let in_place = Values {
            x: None,
            out: &mut own,
            slopes: None,
        };
        run(Level::new(), 2, |run| {
            smooth(run, function, Kernel::Logistic, 1.0, in_place)
        })
        .unwrap();
        assert_same(&own, &values);
    }
    for form in [Absolute::Maximum, Absolute::Root] {
        let call = |level| {
            written(level, 1, few, |run, values| {
                smooth_abs(run, form, 1.5, values)
            })
        };
        let (values, slopes) = call(Level::new());
        for (_, level) in every_level() {
            let other = call(level);
            assert_same(&values, &other.0);
            assert_same(&slopes, &other.1);
        }
    }
}

#[test]
fn the_same_bits_everywhere_f32() {
    the_same_bits_everywhere::<f32>();
}

#[test]
fn the_same_bits_everywhere_f64() {
    the_same_bits_everywhere::<f64>();
}

#[test]
fn the_same_bits_everywhere_f16() {
    the_same_bits_everywhere::<f16>();
}

/// A mean of rows, with its gradient.
#[derive(Debug, Clone, Copy)]
enum Mean {
    Max(f64),
    Power(f64),
}

const MEANS: [Mean; 7] = [
    Mean::Max(2.0),
    Mean::Max(-0.5),
    Mean::Power(0.0),
    Mean::Power(-1.5),
    Mean::Power(0.3),
    Mean::Power(7.0),
    Mean::Power(f64::NEG_INFINITY),
];

fn means<E: Storage + Default>(
    level: Level,
    workers: usize,
    mean: Mean,
    scores: &Scores<'_, E>,
) -> Pair<E> {
    let mut values = vec![E::default(); scores.shape.count()];
    let mut gradient = vec![E::default(); scores.shape.len()];
    let to = Some(&mut gradient[..]);
    run(level, workers, |run| match mean {
        Mean::Max(k) => smooth_max(run, scores, k, &mut values, to),
        Mean::Power(p) => power_mean(run, scores, p, &mut values, to),
    })
    .unwrap();
    (values, gradient)
}

fn row_by_formula(mean: Mean, x: &[f64]) -> (f64, Vec<f64>) {
    let n = x.len() as f64;
    match mean {
        Mean::Max(k) => {
            let m = x.iter().fold(f64::NEG_INFINITY, |m, x| m.max(k * x));
            let sum: f64 = x.iter().map(|x| (k * x - m).exp()).sum();
            let gradient = x.iter().map(|x| (k * x - m).exp() / sum).collect();
            ((m + sum.ln()) / k, gradient)
        }
        Mean::Power(p) => {
            let value = if p == 0.0 {
                (x.iter().map(|x| x.ln()).sum::<f64>() / n).exp()
            } else if p.is_infinite() {
                x.iter().copied().fold(f64::INFINITY, f64::min)
            } else {
                (x.iter().map(|x| x.powf(p)).sum::<f64>() / n).powf(1.0 / p)
            };
            let of = |x: &f64| {
                if p.is_infinite() {
                    f64::from(*x == value)
                } else {
                    (x / value).powf(p - 1.0) / n
                }
            };
            (value, x.iter().map(of).collect())
        }
    }
}

proptest! {
    #[test]
    fn means_by_the_formulas(x in prop::collection::vec(0.2f64..5.0, 1..70)) {
        for mean in MEANS {
            let (value, gradient) = row_by_formula(mean, &x);
            let mut first = None;
            for (_, level) in every_level() {
                let (values, slopes) = means(level, 1, mean, &Scores::new(Shape::rows(1, x.len()), &x));
                prop_assert!((values[0] - value).abs() < 1e-13 * value.abs().max(1.0), "{mean:?}");
                for (a, b) in slopes.iter().zip(&gradient) {
                    prop_assert!((a - b).abs() < 1e-12 * b.abs().max(1e-3), "{mean:?} {a} {b}");
                }
                let bits = (values[0].to_bits(), slopes);
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits);
            }
        }
    }

    #[test]
    fn a_kernel_keeps_values_in_order(mut x in prop::collection::vec(-50f32..50.0, 2..60)) {
        x.sort_by(f32::total_cmp);
        for kernel in KERNELS {
            for function in [Function::Ramp(0.0), Function::Step, Function::Sign, Function::Round] {
                let (y, _) = smoothed(Level::new(), 1, function, kernel, 0.4, &x);
                for pair in y.windows(2) {
                    prop_assert!(pair[1] >= pair[0] - 4.0 * f32::EPSILON * (1.0 + pair[0].abs()));
                }
            }
        }
    }
}

#[test]
fn means_along_any_axis_in_long_rows_and_under_masks() {
    let mut numbers = Numbers::new(3);
    let (outer, n, inner) = (3, 41, 5);
    let x: Vec<f64> = (0..outer * n * inner)
        .map(|_| numbers.uniform(0.5, 3.0))
        .collect();
    let mask: Vec<bool> = (0..x.len()).map(|i| i % 7 != 2 && i % inner != 4).collect();
    for mean in MEANS {
        let scores = Scores {
            shape: Shape { outer, n, inner },
            x: Some(&x),
            mask: Some(&mask),
        };
        let (values, gradient) = means(Level::new(), 2, mean, &scores);
        for (row, &found) in values.iter().enumerate() {
            let at = |k: usize| row / inner * n * inner + k * inner + row % inner;
            let own: Vec<usize> = (0..n).map(at).filter(|&i| mask[i]).collect();
            if own.is_empty() {
                assert!(!found.is_finite());
                assert!((0..n).all(|k| gradient[at(k)] == 0.0));
                continue;
            }
            let some: Vec<f64> = own.iter().map(|&i| x[i]).collect();
            let (value, slopes) = row_by_formula(mean, &some);
            assert!((found - value).abs() < 1e-13 * 5.0);
            for (&i, slope) in own.iter().zip(slopes) {
                assert!((gradient[i] - slope).abs() < 1e-12);
            }
        }
        let long: Vec<f64> = (0..200_000).map(|_| numbers.uniform(0.5, 3.0)).collect();
        let (value, slopes) = row_by_formula(mean, &long);
        for workers in [1, 3] {
            let scores = Scores::new(Shape::rows(1, long.len()), &long);
            let (values, gradient) = means(Level::new(), workers, mean, &scores);
            assert!((values[0] - value).abs() < 1e-11 * value.abs());
            for (a, b) in gradient.iter().zip(&slopes) {
                assert!((a - b).abs() <= 1e-10 * b.abs());
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let level = Level::new();
    let refused = |function, width| {
        let values = Values {
            x: Some(&[1.0f64][..]),
            out: &mut [0.0],
            slopes: None,
        };
        run(level, 1, |run| {
            smooth(run, function, Kernel::Gaussian, width, values)
        })
        .unwrap_err()
    };
    let named = |error| match error {
        Error::Domain { argument, .. }
        | Error::Length { argument, .. }
        | Error::Unsupported { argument, .. }
        | Error::Empty { argument } => argument,
        other => panic!("{other}"),
    };
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(named(refused(Function::Step, width)), "width");
    }
    assert_eq!(named(refused(Function::Ramp(f64::NAN), 1.0)), "slope");
    for (pieces, argument) in [
        (
            PiecewiseLinear {
                breaks: &[],
                ..PIECES
            },
            "breaks",
        ),
        (
            PiecewiseLinear {
                breaks: &[1.0, 1.0, 2.0],
                ..PIECES
            },
            "breaks",
        ),
        (
            PiecewiseLinear {
                breaks: &[f64::NAN, 1.0, 2.0],
                ..PIECES
            },
            "breaks",
        ),
        (
            PiecewiseLinear {
                slopes: &[1.0],
                ..PIECES
            },
            "slopes",
        ),
        (
            PiecewiseLinear {
                jumps: &[1.0],
                ..PIECES
            },
            "jumps",
        ),
        (
            PiecewiseLinear {
                value: f64::INFINITY,
                ..PIECES
            },
            "value",
        ),
    ] {
        assert_eq!(named(refused(Function::Pieces(pieces), 1.0)), argument);
    }
    let values = Values {
        x: Some(&[1.0f32, 2.0][..]),
        out: &mut [0.0],
        slopes: None,
    };
    let error = run(level, 1, |run| smooth_abs(run, Absolute::Root, 1.0, values)).unwrap_err();
    assert_eq!(named(error), "x");
    let scores = Scores::new(Shape::rows(1, 2), &[1.0f64, 2.0]);
    for k in [0.0, f64::NAN, f64::INFINITY] {
        let error = run(level, 1, |run| {
            smooth_max(run, &scores, k, &mut [0.0], None)
        })
        .unwrap_err();
        assert_eq!(named(error), "k");
    }
    let error = run(level, 1, |run| {
        power_mean(run, &scores, f64::NAN, &mut [0.0], None)
    })
    .unwrap_err();
    assert_eq!(named(error), "p");
    let error = run(level, 1, |run| {
        power_mean(run, &scores, 1.0, &mut [0.0; 2], None)
    })
    .unwrap_err();
    assert_eq!(named(error), "out");
    let empty = Scores::new(Shape::rows(1, 0), &[] as &[f64]);
    let error = run(level, 1, |run| {
        smooth_max(run, &empty, 1.0, &mut [0.0], None)
    })
    .unwrap_err();
    assert_eq!(named(error), "x");
}
