//! Vector math: how far exp, exp₂, ln and log₂ are from the truth, that none of them ever decreases, that every SIMD
//! level gives the same bits, and what the reductions lose.
//!
//! In f32 every value there is is tried, at the widest level, against the f64 functions of the same name. Those are
//! held against a reference of about 100 bits, written here in pairs of doubles, on random values; the standard
//! library would not do, being off by up to an ulp itself.

mod common;

use std::{
    ops::{Add, Mul, Neg, Sub},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;
use unitmass_core::{
    parallel::available_workers,
    scalar::Real,
    simd::{self, Sum, load_padded, max, store_part, two_sum},
};

use common::{Numbers, every_level};

/// The functions under test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Exp,
    Exp2,
    ExpLifted,
    Exp2Lifted,
    Ln,
    Ln1p,
    Log2,
    Log2OfNormal,
    /// log₂ x, of x times 2^LIFT.
    Log2OfLifted,
    /// log₂ (1 + x), of x and of 1 + x as it is rounded.
    Log2NearOne,
}

use Function::{
    Exp, Exp2, Exp2Lifted, ExpLifted, Ln, Ln1p, Log2, Log2NearOne, Log2OfLifted, Log2OfNormal,
};

const FUNCTIONS: [Function; 10] = [
    Exp,
    Exp2,
    ExpLifted,
    Exp2Lifted,
    Ln,
    Ln1p,
    Log2,
    Log2OfNormal,
    Log2OfLifted,
    Log2NearOne,
];

/// Loops over whole stripes.
mod slices {
    use super::{Real, Simd, SimdBase, simd};

    macro_rules! over_slice {
        ($name:ident) => {
            #[super::simd]
            pub fn $name<S: Simd, T: Real>(simd: S, x: &[T], y: &mut [T]) {
                for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact_mut(T::LANES)) {
                    simd::$name::<T, S>(T::Stripe::<S>::from_slice(simd, x)).store_slice(y);
                }
            }
        };
    }
    over_slice!(exp);
    over_slice!(exp2);
    over_slice!(exp_lifted);
    over_slice!(exp2_lifted);
    over_slice!(ln);
    over_slice!(ln_1p);
    over_slice!(log2);
    over_slice!(log2_of_normal);

    #[super::simd]
    pub fn log2_of_lifted<S: Simd, T: Real>(simd: S, x: &[T], y: &mut [T]) {
        for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact_mut(T::LANES)) {
            let lifted = T::Stripe::<S>::from_slice(simd, x) * T::LIFT_FACTOR;
            simd::log2_of_lifted::<T, S>(lifted).store_slice(y);
        }
    }

    #[super::simd]
    pub fn log2_near_one<S: Simd, T: Real>(simd: S, x: &[T], y: &mut [T]) {
        for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact_mut(T::LANES)) {
            let x = T::Stripe::<S>::from_slice(simd, x);
            simd::log2_near_one::<T, S>(x + T::ONE, x).1.store_slice(y);
        }
    }
}

impl Function {
    /// The function of whole stripes of values.
    fn map<T: Real>(self, level: Level, x: &[T], y: &mut [T]) {
        assert!(x.len() == y.len() && x.len().is_multiple_of(T::LANES));
        match self {
            Exp => dispatch!(level, simd => slices::exp(simd, x, y)),
            Exp2 => dispatch!(level, simd => slices::exp2(simd, x, y)),
            ExpLifted => dispatch!(level, simd => slices::exp_lifted(simd, x, y)),
            Ln => dispatch!(level, simd => slices::ln(simd, x, y)),
            Ln1p => dispatch!(level, simd => slices::ln_1p(simd, x, y)),
            Log2 => dispatch!(level, simd => slices::log2(simd, x, y)),
            Exp2Lifted => dispatch!(level, simd => slices::exp2_lifted(simd, x, y)),
            Log2OfNormal => dispatch!(level, simd => slices::log2_of_normal(simd, x, y)),
            Log2OfLifted => dispatch!(level, simd => slices::log2_of_lifted(simd, x, y)),
            Log2NearOne => dispatch!(level, simd => slices::log2_near_one(simd, x, y)),
        }
    }

    /// What the f64 function has to be multiplied by to be the f32 one: the lifts differ.
    fn f32_over_f64(self) -> f64 {
        match self {
            ExpLifted | Exp2Lifted => f64::from(f32::LIFT_FACTOR) / f64::LIFT_FACTOR,
            _ => 1.0,
        }
    }

    /// Whether the function is defined for x (a NaN elsewhere would be neither right nor wrong).
    fn takes<T: Real>(self, x: T) -> bool {
        match self {
            Exp | Exp2 | Ln | Log2 => true,
            ExpLifted => x <= T::from_f64(4.0),
            Exp2Lifted => x <= T::ZERO,
            Ln1p => x >= T::ZERO && x.is_finite(),
            Log2OfNormal => x >= T::MIN_POSITIVE && x.is_finite(),
            Log2OfLifted => x > T::ZERO && x <= T::MAX / T::LIFT_FACTOR,
            Log2NearOne => x > -T::ONE && x.is_finite(),
        }
    }

    /// The largest error in ulp: of f32 the measured one, of f64 the measured one and a margin for what was not tried.
    fn bounds(self) -> (f64, f64) {
        match self {
            Exp => (0.822, 0.9),
            Exp2 => (0.855, 0.95),
            ExpLifted => (0.819, 0.9),
            Ln => (0.858, 0.9),
            Ln1p => (0.828, 0.9),
            Log2 => (1.829, 1.7),
            Exp2Lifted => (0.794, 0.95),
            Log2OfNormal | Log2OfLifted => (1.829, 1.7),
            // Away from 1, this counts the rounding of 1 + x too.
            Log2NearOne => (2.16, 2.3),
        }
    }
}

/// A number of about 106 bits: the unevaluated sum of two doubles (Dekker 1971; Hida, Li & Bailey 2001).
#[derive(Clone, Copy, Debug)]
struct Double {
    high: f64,
    low: f64,
}

impl Double {
    /// ln 2 to 106 bits.
    const LN_2: Self = Self {
        high: std::f64::consts::LN_2,
        low: 2.319_046_813_846_299_6e-17,
    };

    /// `high + low`, where |high| ≥ |low|.
    fn of(high: f64, low: f64) -> Self {
        let sum = high + low;
        Self {
            high: sum,
            low: low - (sum - high),
        }
    }

    fn over(self, k: f64) -> Self {
        let quotient = self.high / k;
        let rest = (-quotient).mul_add(k, self.high) + self.low;
        Self::of(quotient, rest / k)
    }

    fn recip(self) -> Self {
        let one = Self::from(1.0);
        let first = Self::from(1.0 / self.high);
        // Each step of Newton's method doubles the digits.
        let second = first + first * (one - self * first);
        second + second * (one - self * second)
    }

    /// `self · 2ⁿ`.
    fn times_power_of_two(self, n: i32) -> Self {
        Self {
            high: scaled(self.high, n),
            low: scaled(self.low, n),
        }
    }
}

impl From<f64> for Double {
    fn from(high: f64) -> Self {
        Self { high, low: 0.0 }
    }
}

impl Add for Double {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let exact = |a: f64, b: f64| {
            let sum = a + b;
            let b_part = sum - a;
            (sum, (a - (sum - b_part)) + (b - b_part))
        };
        let (high, error) = exact(self.high, other.high);
        let (low, last) = exact(self.low, other.low);
        let first = Self::of(high, error + low);
        Self::of(first.high, first.low + last)
    }
}

impl Neg for Double {
    type Output = Self;
    fn neg(self) -> Self {
        Self {
            high: -self.high,
            low: -self.low,
        }
    }
}

impl Sub for Double {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Double {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let high = self.high * other.high;
        let error = self.high.mul_add(other.high, -high);
        Self::of(
            high,
            error + (self.high * other.low + self.low * other.high),
        )
    }
}

/// `value · 2ⁿ`, rounded once: in steps, as 2ⁿ itself may be out of range.
fn scaled(value: f64, n: i32) -> f64 {
    let power = |n: i32| f64::from_bits(((1023 + n) as u64) << 52);
    match n {
        -1000..=1000 => value * power(n),
        ..-1000 => scaled(value * power(1000).recip(), n + 1000),
        _ => scaled(value * power(1000), n - 1000),
    }
}

/// `e^x` as `(m, n)`, meaning `m 2ⁿ` with m in about [√½, √2]: relative error below 2⁻⁹⁰ for |x| up to 2000.
fn exp_reference(x: Double) -> (Double, i32) {
    let n = (x.high * std::f64::consts::LOG2_E).round();
    let r = x - Double::LN_2 * Double::from(n);
    // Taylor's series: 0.35²⁶/26! < 2⁻¹²⁰.
    let mut sum = Double::from(1.0);
    for k in (1..26).rev() {
        sum = Double::from(1.0) + (r * sum).over(f64::from(k));
    }
    (sum, n as i32)
}

/// `ln(1 + f)` for 1 + f > 0 of any size: relative error below 2⁻⁹⁰.
fn ln_1p_reference(f: Double) -> Double {
    let one = Double::from(1.0);
    if f.high.abs() < 2f64.powi(-200) {
        return f; // and the products below would be subnormal
    }
    if f.high.abs() < 1.0 / 16.0 {
        // 2 artanh(s), s = f/(2 + f): (1/31)²⁸ < 2⁻¹²⁰.
        let s = f * (Double::from(2.0) + f).recip();
        let mut sum = Double::from(0.0);
        for k in (0..14).rev() {
            sum = Double::from(2.0).over(f64::from(2 * k + 1)) + s * s * sum;
        }
        return s * sum;
    }
    ln_reference(one + f)
}

/// `ln x` for x > 0.
fn ln_reference(x: Double) -> Double {
    let one = Double::from(1.0);
    if (x.high - 1.0).abs() < 1.0 / 16.0 {
        return ln_1p_reference(x - one);
    }
    // From an approximation y: ln x = y + ln(x e⁻ʸ), and that argument is within 2⁻⁴⁰ of 1.
    let approximate = Double::from(x.high.ln());
    let (m, n) = exp_reference(-approximate);
    approximate + ln_1p_reference(x.times_power_of_two(n) * m - one)
}

impl Function {
    /// The function's value for an f64 as `(m, n)`, meaning `m 2ⁿ`.
    fn reference(self, x: f64) -> (Double, i32) {
        match self {
            Exp => exp_reference(Double::from(x)),
            Exp2 => {
                let n = x.round();
                let (m, rest) = exp_reference(Double::from(x - n) * Double::LN_2);
                (m, rest + n as i32)
            }
            ExpLifted => {
                let (m, n) = exp_reference(Double::from(x));
                (m, n + 53)
            }
            Exp2Lifted => {
                let (m, n) = Exp2.reference(x);
                (m, n + 53)
            }
            Ln => (ln_of_any(x), 0),
            Ln1p => (ln_1p_reference(Double::from(x)), 0),
            Log2 | Log2OfNormal | Log2OfLifted => (ln_of_any(x) * Double::LN_2.recip(), 0),
            Log2NearOne => (ln_1p_reference(Double::from(x)) * Double::LN_2.recip(), 0),
        }
    }
}

/// [`ln_reference`] of a double, which may be subnormal.
fn ln_of_any(x: f64) -> Double {
    if x >= f64::MIN_POSITIVE {
        return ln_reference(Double::from(x));
    }
    ln_reference(Double::from(scaled(x, 64))) - Double::LN_2 * Double::from(64.0)
}

/// By how many ulp y differs from m 2ⁿ, an ulp being the distance of doubles around m 2ⁿ.
fn error_in_ulp(y: f64, (m, n): (Double, i32)) -> f64 {
    let exponent = (m.high.abs().to_bits() >> 52) as i32 - 1023;
    let ulp = (exponent + n).max(-1022) - 52;
    // All scaled so that m keeps its size: exact, and inside the normal range.
    let difference = (scaled(y, -n) - m.high) - m.low;
    scaled(difference.abs(), n - ulp)
}

#[test]
fn the_reference_knows_the_constants() {
    // To 32 digits, from mpmath at 60 digits; the second double of each pair is what the first lacks.
    let near = |found: Double, high: f64, low: f64| {
        let off = (found - Double { high, low }).high;
        assert!(
            off.abs() <= high.abs() * 2f64.powi(-95),
            "{found:?} is off by {off:e}"
        );
    };
    let value = |(m, n): (Double, i32)| m.times_power_of_two(n);
    let e = std::f64::consts::E;
    let root = std::f64::consts::SQRT_2;
    let ln_10 = std::f64::consts::LN_10;
    near(value(Exp.reference(1.0)), e, 1.445_646_891_729_250_2e-16);
    near(
        value(Exp.reference(-20.5)),
        1.2501528663867426e-09,
        6.448235878237776e-26,
    );
    near(value(Exp2.reference(0.5)), root, -9.667_293_313_452_913e-17);
    near(Ln.reference(10.0).0, ln_10, -2.170_756_223_382_249_4e-16);
    near(
        Ln.reference(1.03125).0,
        0.030_771_658_666_753_687,
        1.043_173_202_900_596_8e-18,
    );
    near(
        Ln1p.reference(1e-5).0,
        9.999_950_000_333_332e-6,
        -2.386_863_728_449_341_6e-22,
    );
    near(
        Ln1p.reference(3.0).0,
        1.386_294_361_119_890_6,
        4.638_093_627_692_599e-17,
    );
    near(
        Log2.reference(10.0).0,
        std::f64::consts::LOG2_10,
        1.661_617_516_973_592e-16,
    );
}

/// The floats from -∞ to ∞ in their order, and how many there are.
const FLOATS: u64 = 2 * 0x7f80_0001;

fn float(position: u64) -> f32 {
    f32::from_bits(if position <= 0x7f80_0000 {
        0xff80_0000 - position as u32
    } else {
        (position - 0x7f80_0001) as u32
    })
}

/// Values that are tried at once.
const BLOCK: usize = 1 << 16;

/// Each block begins with the last stripe of the one before it, so that a step down between two is seen.
const STRIDE: u64 = (BLOCK - f32::LANES) as u64;

struct Block {
    x: Vec<f32>,
    y: Vec<f32>,
    wide: Vec<f64>,
    truth: Vec<f64>,
}

impl Block {
    fn new() -> Self {
        Self {
            x: vec![0.0; BLOCK],
            y: vec![0.0; BLOCK],
            wide: vec![0.0; BLOCK],
            truth: vec![0.0; BLOCK],
        }
    }

    /// The largest error in ulp among the values from a position on; infinite if the function falls or is NaN.
    fn worst(&mut self, function: Function, level: Level, first: u64, end: u64) -> f64 {
        let Self { x, y, wide, truth } = self;
        for (i, x) in x.iter_mut().enumerate() {
            *x = float((first + i as u64).min(end - 1));
        }
        function.map(level, x, y);
        if dispatch!(level, simd => falls(simd, y)) {
            let rises = |i: usize| y[i] >= y[i - 1];
            let at = (1..BLOCK).find(|&i| !rises(i)).unwrap();
            println!(
                "{function:?}({:e}) = {:e}, but {function:?}({:e}) = {:e}",
                x[at - 1],
                y[at - 1],
                x[at],
                y[at]
            );
            return f64::INFINITY;
        }
        // Where the result is the same all over a block, the truth is farthest from it at an end of the block.
        let len = if y[0] == y[BLOCK - 1] {
            let last = x[BLOCK - 1];
            x[1..f64::LANES].fill(last);
            f64::LANES
        } else {
            BLOCK
        };
        for (wide, x) in wide[..len].iter_mut().zip(&*x) {
            *wide = f64::from(*x);
        }
        function.map(level, &wide[..len], &mut truth[..len]);
        let factor = function.f32_over_f64();
        dispatch!(level, simd => largest_error(simd, &y[..len], &truth[..len], factor))
    }
}

/// Whether a value is not at or above the one before it, which a NaN never is.
#[simd]
fn falls<S: Simd>(_simd: S, y: &[f32]) -> bool {
    let mut rises = true;
    for (a, b) in y.iter().zip(&y[1..]) {
        rises &= b >= a;
    }
    !rises
}

/// The largest distance in ulp of f32, which are those around the truth; ∞ counts as 2¹²⁸, the next f32 there would be.
#[simd]
fn largest_error<S: Simd>(_simd: S, y: &[f32], truth: &[f64], factor: f64) -> f64 {
    const BEYOND: f64 = 2.0 * (1u128 << 127) as f64;
    // Magnitudes compare like their bits, and a NaN above all of them.
    let mut worst = 0;
    for (y, truth) in y.iter().zip(truth) {
        let truth = (truth * factor).clamp(-BEYOND, BEYOND);
        let y = f64::from(*y).clamp(-BEYOND, BEYOND);
        let exponent = ((truth.abs().to_bits() >> 52) as i64).max(1023 - 126);
        let ulps_in_one = f64::from_bits(((2046 + 23 - exponent) as u64) << 52);
        worst = worst.max(((y - truth).abs() * ulps_in_one).to_bits());
    }
    f64::from_bits(worst)
}

impl Function {
    /// The positions of the floats where the function is defined.
    fn positions(self) -> std::ops::Range<u64> {
        let zero = FLOATS / 2;
        match self {
            Exp | Exp2 => 0..FLOATS,
            // Below, it is zero by definition.
            ExpLifted => {
                let up = u64::from(4f32.to_bits());
                zero - 1 - u64::from((-f32::EXP_ZERO).to_bits())..zero + up + 1
            }
            Exp2Lifted => zero - 1 - u64::from((-f32::EXP2_ZERO).to_bits())..zero + 1,
            Ln | Log2 => zero - 1..FLOATS, // from -0 on
            Ln1p => zero..FLOATS - 1,
            Log2OfNormal => zero + u64::from(f32::MIN_POSITIVE.to_bits())..FLOATS - 1,
            Log2OfLifted => zero + 1..zero + 1 + u64::from((f32::MAX / f32::LIFT_FACTOR).to_bits()),
            Log2NearOne => zero - u64::from(1f32.to_bits())..FLOATS - 1,
        }
    }
}

/// Tries every f32.
fn try_every_float(function: Function) {
    let level = Level::new();
    let std::ops::Range { start, end } = function.positions();
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut block, mut worst) = (Block::new(), 0.0f64);
        loop {
            let first = start + next.fetch_add(1, Ordering::Relaxed) as u64 * STRIDE;
            if first >= end {
                return worst;
            }
            worst = worst.max(block.worst(function, level, first, end));
        }
    };
    let worst = thread::scope(|scope| {
        let workers: Vec<_> = (0..available_workers())
            .map(|_| scope.spawn(work))
            .collect();
        let found = workers.into_iter().map(|worker| worker.join().unwrap());
        found.fold(0.0, f64::max)
    });
    println!("{function:?}: {worst} ulp of f32");
    assert!(worst <= function.bounds().0, "{function:?}: {worst} ulp");
}

macro_rules! on_every_float {
    ($($name:ident: $function:expr,)*) => {
        $(#[test]
        fn $name() {
            try_every_float($function);
        })*
    };
}

on_every_float! {
    exp_is_near_and_never_falls_on_any_f32: Exp,
    exp2_is_near_and_never_falls_on_any_f32: Exp2,
    exp_lifted_is_near_and_never_falls_on_any_f32: ExpLifted,
    ln_is_near_and_never_falls_on_any_f32: Ln,
    ln_1p_is_near_and_never_falls_on_any_f32: Ln1p,
    log2_is_near_and_never_falls_on_any_f32: Log2,
    exp2_lifted_is_near_and_never_falls_on_any_f32: Exp2Lifted,
    log2_of_normal_is_near_and_never_falls_on_any_f32: Log2OfNormal,
    log2_of_lifted_is_near_and_never_falls_on_any_f32: Log2OfLifted,
    log2_near_one_is_near_and_never_falls_on_any_f32: Log2NearOne,
}

#[test]
fn what_has_no_value_is_nan() {
    // Every NaN of f32 and, for logarithms, values below 0.
    let nans = (0x7f80_0001..0x8000_0000).chain(0xff80_0001..=u32::MAX);
    let negative = (0..FLOATS / 2 - 1).step_by(255).map(float);
    is_nan_on(nans.map(f32::from_bits).collect(), &[Exp, Exp2, Ln, Log2]);
    is_nan_on(negative.collect(), &[Ln, Log2]);
}

/// Where the maps may drop an entry: where its exponential is no nearer to the least float than to 0.
#[test]
fn lifted_powers_are_zero_where_the_powers_round_to_zero() {
    fn check<T: Value>(function: Function, [below, at, above]: [T; 3], least: f64) {
        let x: Vec<T> = [at, below, T::NEG_INFINITY, -T::MAX]
            .into_iter()
            .cycle()
            .take(T::LANES)
            .collect();
        let mut y = vec![T::ONE; T::LANES];
        function.map(Level::new(), &x, &mut y);
        assert!(y[0] > T::ZERO && y[1] == T::ZERO && y[2] == T::ZERO && y[3] == T::ZERO);
        // The power against half the least float: m 2ⁿ ≤ 2^least
        let rounds_to_zero = |x: T| {
            let power = if function == ExpLifted { Exp } else { Exp2 };
            let (m, n) = power.reference(x.to_f64());
            m.high.log2() + f64::from(n) <= least
        };
        assert!(rounds_to_zero(below) && !rounds_to_zero(above));
    }
    let around = |v: f32| [v.next_down(), v, v.next_up()];
    check(ExpLifted, around(f32::EXP_ZERO), -150.0);
    check(Exp2Lifted, around(f32::EXP2_ZERO), -150.0);
    let around = |v: f64| [v.next_down(), v, v.next_up()];
    check(ExpLifted, around(f64::EXP_ZERO), -1075.0);
    check(Exp2Lifted, around(f64::EXP2_ZERO), -1075.0);
}

#[simd]
fn near_one<S: Simd, T: Real>(simd: S, x: &[T], less_one: &[T], y: &mut [T], log: &mut [T]) {
    let load = |x| T::Stripe::<S>::from_slice(simd, x);
    let (x, logarithm) = simd::log2_near_one::<T, S>(load(x), load(less_one));
    x.store_slice(y);
    logarithm.store_slice(log);
}

fn the_difference_from_one_is_used_where_it_knows_more<T: Value>() {
    // 1 + d is rounded to 1, or x is a few ulp from it: near 1 that must not show, and elsewhere d must not.
    let x: Vec<T> = [1.0, 1.0, 1.4, 0.71, 0.7, 1.5, 3.0, 0.1]
        .map(T::from_f64)
        .into_iter()
        .cycle()
        .take(T::LANES)
        .collect();
    let tiny = T::EPSILON.to_f64() / 3.0;
    let less_one: Vec<T> = [tiny, -tiny, 0.4 + tiny, -0.29, -0.5, 0.75, 7.0, -0.2]
        .map(T::from_f64)
        .into_iter()
        .cycle()
        .take(T::LANES)
        .collect();
    for (name, level) in every_level() {
        let (mut y, mut log) = (vec![T::ZERO; T::LANES], vec![T::ZERO; T::LANES]);
        dispatch!(level, simd => near_one(simd, &x, &less_one, &mut y, &mut log));
        for i in 0..T::LANES {
            let near = i % 8 < 4;
            let (expected, truth) = if near {
                (less_one[i] + T::ONE, less_one[i].to_f64().ln_1p())
            } else {
                (x[i], x[i].to_f64().ln())
            };
            assert!(y[i] == expected, "{name}: {:?} for {:?}", y[i], x[i]);
            let truth = truth * std::f64::consts::LOG2_E;
            let off = (log[i].to_f64() - truth) / truth / T::EPSILON.to_f64();
            assert!(off.abs() <= 2.0, "{name}: log₂ {:?} is off by {off}", x[i]);
        }
    }
}

#[test]
fn the_difference_from_one_is_used_where_it_knows_more_in_f32() {
    the_difference_from_one_is_used_where_it_knows_more::<f32>();
}

#[test]
fn the_difference_from_one_is_used_where_it_knows_more_in_f64() {
    the_difference_from_one_is_used_where_it_knows_more::<f64>();
}

fn is_nan_on(mut x: Vec<f32>, functions: &[Function]) {
    x.resize(x.len().next_multiple_of(f32::LANES), f32::NAN);
    let mut y = vec![0.0; x.len()];
    for function in functions {
        function.map(Level::new(), &x, &mut y);
        let wrong = x.iter().zip(&y).find(|(_, y)| !y.is_nan());
        assert_eq!(wrong, None, "{function:?}");
    }
}

/// A type of which the tests draw values and compare bits.
trait Value: Real {
    fn from_random_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
    /// The values around which formulas change or results leave the range.
    fn special() -> Vec<Self>;
}

impl Value for f32 {
    fn from_random_bits(bits: u64) -> Self {
        f32::from_bits((bits >> 32) as u32)
    }
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn special() -> Vec<Self> {
        let mut values = vec![f32::NAN, 0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY];
        values.extend([0x7f80_0001, 0x7fc1_2345, 0xffff_ffff, 0xff80_0001].map(f32::from_bits));
        values.extend([
            1e-45,
            1e-40,
            0.5f32.sqrt(),
            1.0,
            2f32.sqrt(),
            88.722_84,
            87.336_55,
        ]);
        values.extend([
            103.972_08, 103.278_93, 126.0, 127.0, 128.0, 149.0, 150.0, 252.0, 254.0,
        ]);
        values.extend([1e10, 1e30, 8_388_608.0, 12_582_912.0, 0.346_573_6]);
        around(values, f32::next_up, f32::next_down)
    }
}

impl Value for f64 {
    fn from_random_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn special() -> Vec<Self> {
        let mut values = vec![f64::NAN, 0.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY];
        let payloads = [
            0x7ff0_0000_0000_0001,
            0x7ff8_1234_5678_9abc,
            u64::MAX,
            0xfff0_0000_0000_0001,
        ];
        values.extend(payloads.map(f64::from_bits));
        values.extend([
            5e-324,
            1e-310,
            0.5f64.sqrt(),
            1.0,
            2f64.sqrt(),
            709.782_712_893_384,
        ]);
        values.extend([
            745.133_219_101_941_1,
            708.396_418_532_264_1,
            1022.0,
            1023.0,
            1024.0,
        ]);
        values.extend([
            1074.0,
            1075.0,
            2044.0,
            2046.0,
            1e10,
            1e300,
            0.346_573_590_279_972_65,
        ]);
        around(values, f64::next_up, f64::next_down)
    }
}

/// The values, their neighbours, and the same on the other side of zero.
fn around<T: Copy + Neg<Output = T>>(values: Vec<T>, up: fn(T) -> T, down: fn(T) -> T) -> Vec<T> {
    let near = values.into_iter().flat_map(|v| [down(v), v, up(v)]);
    near.flat_map(|v| [v, -v]).collect()
}

fn same_bits_at_every_level<T: Value>() {
    let mut numbers = Numbers::new(1);
    let mut x = T::special();
    x.extend((0..60_000).map(|_| T::from_random_bits(numbers.bits())));
    // Of random bits, few lie where exp is neither 0, 1 nor ∞.
    x.extend((0..60_000).map(|_| T::from_f64(numbers.uniform(-160.0, 160.0))));
    x.extend((0..20_000).map(|_| T::from_f64(numbers.uniform(-1100.0, 1100.0))));
    x.resize(x.len().next_multiple_of(T::LANES), T::ONE);
    for function in FUNCTIONS {
        let mut widest: Option<Vec<T>> = None;
        for (name, level) in every_level() {
            let mut y = vec![T::ZERO; x.len()];
            function.map(level, &x, &mut y);
            let widest = widest.get_or_insert_with(|| y.clone());
            for ((&x, &y), &expected) in x.iter().zip(&y).zip(&*widest) {
                let (y, expected) = (y.bits(), expected.bits());
                assert!(
                    y == expected || !function.takes(x),
                    "{function:?}({:x}) at {name}: {y:x}, at the widest level {expected:x}",
                    x.bits()
                );
            }
        }
    }
}

#[test]
fn every_level_gives_the_same_f32() {
    same_bits_at_every_level::<f32>();
}

#[test]
fn every_level_gives_the_same_f64() {
    same_bits_at_every_level::<f64>();
}

impl Function {
    /// A random value of the domain, where the result is neither zero nor infinite.
    fn draw(self, numbers: &mut Numbers) -> f64 {
        let kind = numbers.bits() % 4;
        let sign = if numbers.bits() & 1 == 0 { 1.0 } else { -1.0 };
        let mut any_size =
            |most: f64| numbers.uniform(0.5, 1.0) * numbers.uniform(-60.0, most).exp2();
        match (self, kind) {
            (Exp | Exp2, 1) => sign * any_size(9.0),
            (ExpLifted | Exp2Lifted, 1) => -any_size(9.0),
            (Ln1p, 1 | 2) => any_size(60.0),
            (Ln | Log2 | Log2OfNormal | Log2OfLifted, 1) => 1.0 + sign * any_size(-1.0),
            (Log2NearOne, 1) => sign * any_size(-1.0),
            (Log2NearOne, _) => any_size(60.0) - numbers.uniform(0.0, 0.999),
            (Exp, _) => numbers.uniform(-745.1, 709.7),
            (Exp2, 2) => numbers.uniform(-30.0, 30.0).round() + numbers.uniform(-1e-3, 1e-3),
            (Exp2, _) => numbers.uniform(-1074.9, 1023.9),
            (ExpLifted, _) => numbers.uniform(-745.1, 4.0),
            (Exp2Lifted, 2) => numbers.uniform(-30.0, -1.0).round() + numbers.uniform(-1e-3, 1e-3),
            (Exp2Lifted, _) => numbers.uniform(-1074.9, 0.0),
            (Ln | Log2 | Log2OfNormal | Log2OfLifted, 2) => numbers.uniform(0.5, 2.0),
            (Log2OfNormal, _) => {
                let (least, most) = (f64::MIN_POSITIVE.to_bits(), f64::MAX.to_bits());
                f64::from_bits(least + numbers.bits() % (most - least))
            }
            (Log2OfLifted, _) => {
                let most = (f64::MAX / f64::LIFT_FACTOR).to_bits();
                f64::from_bits(1 + numbers.bits() % most)
            }
            (Ln | Log2 | Ln1p, _) => f64::from_bits(1 + numbers.bits() % (f64::MAX.to_bits())),
        }
    }
}

#[test]
fn f64_is_near_on_random_values() {
    thread::scope(|scope| {
        for function in FUNCTIONS {
            scope.spawn(move || {
                let mut numbers = Numbers::new(2);
                let x: Vec<f64> = (0..1 << 19).map(|_| function.draw(&mut numbers)).collect();
                let mut y = vec![0.0; x.len()];
                function.map(Level::new(), &x, &mut y);
                let (mut worst, mut at) = (0.0, 0.0);
                for (&x, &y) in x.iter().zip(&y) {
                    let error = error_in_ulp(y, function.reference(x));
                    if error > worst || error.is_nan() {
                        (worst, at) = (error, x);
                    }
                }
                println!("{function:?}: {worst} ulp of f64, at {at:e}");
                assert!(
                    worst <= function.bounds().1,
                    "{function:?}({at:e}): {worst} ulp"
                );
            });
        }
    });
}

#[test]
fn f64_never_falls_between_neighbours() {
    for function in FUNCTIONS {
        let mut numbers = Numbers::new(3);
        let (mut x, mut y) = ([0.0; 64], [0.0; 64]);
        for _ in 0..100_000 {
            let mut next = function.draw(&mut numbers);
            for x in &mut x {
                *x = next;
                let up = next.next_up();
                next = if function.takes(up) { up } else { next };
            }
            function.map(Level::new(), &x, &mut y);
            let falls = (1..x.len()).find(|&i| y[i] < y[i - 1]);
            assert_eq!(falls, None, "{function:?} between neighbours of {:e}", x[0]);
        }
    }
}

#[simd]
fn sum_of<S: Simd, T: Real>(simd: S, x: &[T]) -> T {
    let mut sum = Sum::<T, S>::new(simd);
    for group in x.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
        for stripe in group.chunks(T::LANES) {
            partial += load_padded::<T, S>(simd, stripe, T::ZERO);
        }
        sum.add(partial);
    }
    sum.total()
}

fn sums_are_good_to_an_ulp<T: Value>() {
    let mut numbers = Numbers::new(4);
    let n = 1_000_000;
    let mut rows: Vec<Vec<T>> = [0.1, 1.0 / 3.0, 1e-30]
        .map(|v| vec![T::from_f64(v); n])
        .to_vec();
    let mut random = |n: usize, low: f64| -> Vec<T> {
        let draw = || T::from_f64(numbers.uniform(low, 0.0).exp());
        std::iter::repeat_with(draw).take(n).collect()
    };
    rows.extend([random(n, -1.0), random(n, -60.0)]);
    rows.extend((1..300).map(|n| random(n, -3.0)));
    let mut worst = 0.0f64;
    for row in &rows {
        let levels = every_level().into_iter();
        let sums: Vec<T> = levels
            .map(|(_, level)| dispatch!(level, simd => sum_of(simd, row)))
            .collect();
        assert!(
            sums.iter().all(|s| s.bits() == sums[0].bits()),
            "levels differ: {sums:?}"
        );
        let add = |sum, x: &T| sum + Double::from(x.to_f64());
        let exact = row.iter().fold(Double::from(0.0), add);
        let off = (exact - Double::from(sums[0].to_f64())).high.abs();
        worst = worst.max(off / exact.high / T::EPSILON.to_f64());
    }
    println!("sums are off by up to {worst} epsilon");
    // 7 additions in a group, 3 or 4 in the fold and the last one, each ½ epsilon, were they all to err the same way.
    assert!(worst <= 1.5);
}

#[test]
fn a_sum_of_a_million_f32_is_good_to_an_ulp() {
    sums_are_good_to_an_ulp::<f32>();
}

#[test]
fn a_sum_of_a_million_f64_is_good_to_an_ulp() {
    sums_are_good_to_an_ulp::<f64>();
}

#[simd]
fn one_by_one<S: Simd, T: Real>(simd: S, x: &[T]) -> T {
    let mut sum = Sum::<T, S>::new(simd);
    for &x in x {
        sum.add_one(x);
    }
    let lanes = sum.lanes();
    assert!(lanes.as_slice()[1..].iter().all(|&v| v == T::ZERO));
    lanes[0]
}

#[test]
fn single_values_are_summed_without_loss() {
    // Plain f32 additions would lose every 1.
    let mut x = vec![1.0f32; 4097];
    x[0] = 16_777_216.0;
    for (name, level) in every_level() {
        let sum = dispatch!(level, simd => one_by_one(simd, &x));
        assert_eq!(sum, 16_777_216.0 + 4096.0, "{name}");
    }
}

#[simd]
fn two_sums<S: Simd, T: Real>(simd: S, (a, b): (&[T], &[T]), sum: &mut [T], error: &mut [T]) {
    for i in (0..a.len()).step_by(T::LANES) {
        let a = T::Stripe::<S>::from_slice(simd, &a[i..i + T::LANES]);
        let b = T::Stripe::<S>::from_slice(simd, &b[i..i + T::LANES]);
        let (s, e) = two_sum::<T, S>(a, b);
        s.store_slice(&mut sum[i..i + T::LANES]);
        e.store_slice(&mut error[i..i + T::LANES]);
    }
}

fn two_sum_is_exact<T: Value>() {
    let mut numbers = Numbers::new(5);
    let mut draw = |kinds: u64| {
        let any = T::from_random_bits(numbers.bits());
        let near = T::from_f64(numbers.uniform(-4.0, 4.0));
        // The largest values are left out, so that no sum overflows.
        let overflows = !any.is_finite() || any.abs() > T::MAX * T::HALF;
        if overflows || !numbers.bits().is_multiple_of(kinds) {
            near
        } else {
            any
        }
    };
    let a: Vec<T> = (0..1 << 14).map(|_| draw(3)).collect();
    let b: Vec<T> = (0..1 << 14).map(|_| draw(2)).collect();
    for (name, level) in every_level() {
        let (mut sum, mut error) = (vec![T::ZERO; a.len()], vec![T::ZERO; a.len()]);
        dispatch!(level, simd => two_sums(simd, (&a, &b), &mut sum, &mut error));
        for i in 0..a.len() {
            // Dekker's version, exact where the larger number comes first.
            let (large, small) = if a[i].abs() >= b[i].abs() {
                (a[i], b[i])
            } else {
                (b[i], a[i])
            };
            let s = large + small;
            let exact = sum[i] == s && error[i] == small - (s - large);
            assert!(exact, "{:?} + {:?} at {name}", a[i], b[i]);
        }
    }
}

#[test]
fn two_sum_is_exact_in_f32() {
    two_sum_is_exact::<f32>();
}

#[test]
fn two_sum_is_exact_in_f64() {
    two_sum_is_exact::<f64>();
}

#[simd]
fn copy_part<S: Simd, T: Real>(simd: S, x: &[T], fill: T, y: &mut [T]) {
    store_part::<T, S>(load_padded::<T, S>(simd, x, fill), y);
}

#[simd]
fn largest<S: Simd, T: Real>(simd: S, x: &[T]) -> T {
    max::<T, S>(simd, x)
}

fn parts_and_maxima_are_right<T: Value>() {
    let mut numbers = Numbers::new(6);
    for (name, level) in every_level() {
        for n in 0..300 {
            let x: Vec<T> = (0..n)
                .map(|_| T::from_f64(numbers.uniform(-3.0, 1.0)))
                .collect();
            let larger = |m, &x| if x > m { x } else { m };
            let expected = x.iter().fold(T::NEG_INFINITY, larger);
            let found = dispatch!(level, simd => largest(simd, &x));
            assert!(found == expected, "{name}, {n} values");
        }
        for (from, to) in (0..40).flat_map(|from| (0..=T::LANES).map(move |to| (from, to))) {
            let x: Vec<T> = (0..from).map(|i| T::from_f64(f64::from(i))).collect();
            let mut y = vec![-T::ONE; to];
            dispatch!(level, simd => copy_part(simd, &x, T::HALF, &mut y));
            for (i, &y) in y.iter().enumerate() {
                let expected = x.get(i).copied().unwrap_or(T::HALF);
                assert!(y == expected, "{name}: {from} values to {to}, value {i}");
            }
        }
        // Room beyond a stripe is left as it is.
        let mut y = vec![-T::ONE; T::LANES + 3];
        dispatch!(level, simd => copy_part(simd, &[], T::HALF, &mut y));
        assert!(y[..T::LANES].iter().all(|&y| y == T::HALF));
        assert!(y[T::LANES..].iter().all(|&y| y == -T::ONE));
    }
}

#[test]
fn parts_of_stripes_and_maxima_are_right_at_any_length_in_f32() {
    parts_and_maxima_are_right::<f32>();
}

#[test]
fn parts_of_stripes_and_maxima_are_right_at_any_length_in_f64() {
    parts_and_maxima_are_right::<f64>();
}
