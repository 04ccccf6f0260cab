//! Propensities that are any expression: a program for a stack machine, run over a row of trajectories at a time.

use fearless_simd::{Simd, f64x8, prelude::*};

use super::lockstep::{GROUPS, Row, load, store};
use crate::simd::{exp, exp2, ln, log2};

/// One instruction; operands are taken from the stack, the last first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// Pushes a number.
    Number(f64),
    /// Pushes a constant of the trajectory.
    Constant(usize),
    /// Pushes the count of a species.
    Species(usize),
    /// `-a`
    Neg,
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a b`
    Mul,
    /// `a / b`
    Div,
    /// `a` to the power `b`; a negative `a` only to whole ones.
    Pow,
    /// `a < b`, 1 or 0
    Lt,
    /// `a ≤ b`
    Le,
    /// `a = b`
    Eq,
    /// `a ≠ b`
    Ne,
    /// Both are other than 0.
    And,
    /// One is other than 0.
    Or,
    /// It is 0.
    Not,
    /// `b` if `a` is other than 0, else `c`
    If,
    /// eᵃ
    Exp,
    /// The natural logarithm.
    Log,
    /// The decimal logarithm.
    Log10,
    /// The square root.
    Sqrt,
    /// |a|
    Abs,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// The largest integer that is not above.
    Floor,
    /// The smallest integer that is not below.
    Ceil,
}

impl Op {
    /// How many operands it takes; it leaves one value.
    pub fn operands(self) -> usize {
        match self {
            Op::Number(_) | Op::Constant(_) | Op::Species(_) => 0,
            Op::Neg
            | Op::Not
            | Op::Exp
            | Op::Log
            | Op::Log10
            | Op::Sqrt
            | Op::Abs
            | Op::Floor
            | Op::Ceil => 1,
            Op::If => 3,
            _ => 2,
        }
    }
}

/// Instructions that leave one value, and the room they need.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    ops: Vec<Op>,
    depth: usize,
}

impl Program {
    /// `None` unless the instructions find their operands and leave one value.
    pub fn new(ops: Vec<Op>) -> Option<Self> {
        let (mut height, mut depth) = (0usize, 0);
        for op in &ops {
            height = height.checked_sub(op.operands())? + 1;
            depth = depth.max(height);
        }
        (height == 1).then_some(Self { ops, depth })
    }

    /// The instructions.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Rows that the stack needs.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Leaves the value in the first row of the stack.
    #[inline(always)]
    pub(super) fn run<S: Simd>(
        &self,
        simd: S,
        constants: &[Row],
        counts: &[Row],
        stack: &mut [Row],
    ) {
        let mut top = 0;
        for &op in &self.ops {
            top -= op.operands();
            match op {
                Op::Number(number) => stack[top] = Row::splat(number),
                Op::Constant(index) => stack[top] = constants[index],
                Op::Species(index) => stack[top] = counts[index],
                _ => {
                    let rows = &mut stack[top..top + op.operands()];
                    for g in 0..GROUPS {
                        let operands =
                            [0, 1, 2].map(|i| load(simd, &rows[i.min(rows.len() - 1)], g));
                        store(&mut rows[0], g, op.of(simd, operands));
                    }
                }
            }
            top += 1;
        }
    }
}

impl Op {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, [a, b, c]: [f64x8<S>; 3]) -> f64x8<S> {
        let zero = f64x8::splat(simd, 0.0);
        let one = f64x8::splat(simd, 1.0);
        let is = |a: f64x8<S>| !a.simd_eq(0.0);
        match self {
            Op::Number(_) | Op::Constant(_) | Op::Species(_) => a,
            Op::Neg => -a,
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            Op::Pow => power(simd, a, b),
            Op::Lt => a.simd_lt(b).select(one, zero),
            Op::Le => a.simd_le(b).select(one, zero),
            Op::Eq => a.simd_eq(b).select(one, zero),
            Op::Ne => a.simd_eq(b).select(zero, one),
            Op::And => (is(a) & is(b)).select(one, zero),
            Op::Or => (is(a) | is(b)).select(one, zero),
            Op::Not => is(a).select(zero, one),
            Op::If => is(a).select(b, c),
            Op::Exp => exp::<f64, S>(a),
            Op::Log => ln::<f64, S>(a),
            Op::Log10 => ln::<f64, S>(a) * std::f64::consts::LOG10_E,
            Op::Sqrt => a.sqrt(),
            Op::Abs => a.abs(),
            // A NaN must show, whichever side it is on.
            Op::Min => or_nan(a, a.simd_lt(b).select(a, b)),
            Op::Max => or_nan(a, a.simd_gt(b).select(a, b)),
            Op::Floor => a.floor(),
            Op::Ceil => a.ceil(),
        }
    }
}

/// NaN where a is, else b.
#[inline(always)]
fn or_nan<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> f64x8<S> {
    a.simd_eq(a).select(b, a)
}

/// Whole powers up to this are products, and so exact where products are.
const PRODUCTS: f64 = 8.0;

/// `aᵇ`.
#[inline(always)]
fn power<S: Simd>(simd: S, a: f64x8<S>, b: f64x8<S>) -> f64x8<S> {
    let zero = f64x8::splat(simd, 0.0);
    let one = f64x8::splat(simd, 1.0);
    let whole = b.simd_eq(b.floor());
    let mut product = one;
    for step in 1..=PRODUCTS as i32 {
        product *= b.simd_ge(f64::from(step)).select(a, one);
    }
    let magnitude = exp2::<f64, S>(log2::<f64, S>(a.abs()) * b);
    let half = b * 0.5;
    let odd = whole & !half.simd_eq(half.floor());
    let signed = (odd & a.simd_lt(0.0)).select(-magnitude, magnitude);
    let nan = f64x8::splat(simd, f64::NAN);
    let defined = (a.simd_lt(0.0) & !whole).select(nan, signed);
    let defined = a.simd_eq(1.0).select(one, defined);
    let small = whole & b.simd_ge(0.0) & b.simd_le(PRODUCTS);
    let result = small.select(product, defined);
    // The logarithm of 0 times a power of 0 is not what 0⁰ is; and 1 to an infinite power is 1, as anywhere.
    b.simd_eq(zero).select(one, result)
}
