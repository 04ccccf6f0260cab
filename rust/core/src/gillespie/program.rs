//! Propensities that are any expression: a program for a stack machine, run for a row of trajectories or for one.
//!
//! * **Precision.** Arithmetic, comparisons and roots are those of IEEE 754; exp, log and powers are the house's.
//! * **Determinism.** Alike at every SIMD level, also in one state, which is a register of equal values.
//! * **Cost.** An instruction a value; each goes through memory, so that there are as many as there need be.

use std::ops::Range;

use fearless_simd::{Simd, f64x8, prelude::*};

use super::lockstep::{Row, load, store};
use crate::{
    error::Error,
    simd::{exp, exp2, ln, log2},
};

/// One instruction; operands are taken from the stack, the last first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// Pushes a number.
    Number(f64),
    /// Pushes a constant of the trajectory.
    Constant(usize),
    /// Pushes the count of a species.
    Species(usize),
    /// Pushes the time.
    Time,
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
    /// `a` to the power `b`; a negative `a` only to whole ones. Whole powers below 64 are products, ½ is the root; the
    /// others are good to some units in the last place.
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
            Op::Number(_) | Op::Constant(_) | Op::Species(_) | Op::Time => 0,
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

    /// The species that it reads.
    pub(super) fn species(&self) -> impl Iterator<Item = usize> {
        self.ops.iter().filter_map(|op| match *op {
            Op::Species(index) => Some(index),
            _ => None,
        })
    }

    /// Whether its value depends on time.
    pub(super) fn is_timed(&self) -> bool {
        self.ops.contains(&Op::Time)
    }

    /// Whether, in one state, its value changes at [`Program::switches`] alone.
    pub(super) fn is_timed_by_switches_alone(&self) -> bool {
        let times = self.ops.iter().filter(|&&op| op == Op::Time).count();
        self.switches()
            .is_ok_and(|switches| switches.len() == times)
    }

    /// What time is compared with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where such a comparison is of anything but time with what does not depend on it.
    pub(super) fn switches(&self) -> Result<Vec<Program>, Error> {
        let timed = |range: &Range<usize>| self.ops[range.clone()].contains(&Op::Time);
        let (mut values, mut switches) = (Vec::<Range<usize>>::new(), Vec::new());
        for (end, op) in self.ops.iter().enumerate() {
            let operands = values.split_off(values.len() - op.operands());
            if matches!(op, Op::Lt | Op::Le | Op::Eq | Op::Ne)
                && let [a, b] = &operands[..]
                && (timed(a) || timed(b))
            {
                let with = if self.ops[a.clone()] == [Op::Time] {
                    b
                } else {
                    a
                };
                let time = if with == a { b } else { a };
                if self.ops[time.clone()] != [Op::Time] || timed(with) {
                    return Err(Error::Unsupported {
                        argument: "t",
                        reason: "time can only be compared with what does not depend on time",
                    });
                }
                let ops = self.ops[with.clone()].to_vec();
                switches.extend(Program::new(ops));
            }
            let start = operands.first().map_or(end, |first| first.start);
            values.push(start..end + 1);
        }
        Ok(switches)
    }

    /// The value in one state.
    #[inline(always)]
    pub(super) fn value<S: Simd>(
        &self,
        simd: S,
        constants: &[f64],
        counts: &[f64],
        time: f64,
        stack: &mut Vec<[f64; 8]>,
    ) -> f64 {
        self.values(simd, constants, counts, f64x8::splat(simd, time), stack)[0]
    }

    /// The values in one state at several times.
    #[inline(always)]
    pub(super) fn values<S: Simd>(
        &self,
        simd: S,
        constants: &[f64],
        counts: &[f64],
        times: f64x8<S>,
        stack: &mut Vec<[f64; 8]>,
    ) -> f64x8<S> {
        stack.clear();
        for &op in &self.ops {
            let values = match op {
                Op::Number(number) => [number; 8],
                Op::Constant(index) => [constants[index]; 8],
                Op::Species(index) => [counts[index]; 8],
                Op::Time => times.into(),
                _ => {
                    let mut operands = [f64x8::splat(simd, 0.0); 3];
                    for operand in operands[..op.operands()].iter_mut().rev() {
                        *operand = stack.pop().unwrap_or([f64::NAN; 8]).simd_into(simd);
                    }
                    op.of(simd, operands).into()
                }
            };
            stack.push(values);
        }
        stack.pop().unwrap_or([f64::NAN; 8]).simd_into(simd)
    }

    /// Leaves the value in the first row of the stack.
    #[inline(always)]
    pub(super) fn run<const G: usize, S: Simd>(
        &self,
        simd: S,
        constants: &[Row<G>],
        counts: &[Row<G>],
        stack: &mut [Row<G>],
    ) {
        let mut top = 0;
        for &op in &self.ops {
            top -= op.operands();
            match op {
                Op::Number(number) => stack[top] = Row::splat(number),
                Op::Constant(index) => stack[top] = constants[index],
                Op::Species(index) => stack[top] = counts[index],
                // No such program gets here; if one did, its propensity would be refused.
                Op::Time => stack[top] = Row::splat(f64::NAN),
                _ => {
                    let rows = &mut stack[top..top + op.operands()];
                    for g in 0..G {
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
        match self {
            Op::Number(_) | Op::Constant(_) | Op::Species(_) | Op::Time => a,
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
            Op::And => (a.simd_eq(0.0) | b.simd_eq(0.0)).select(zero, one),
            Op::Or => (a.simd_eq(0.0) & b.simd_eq(0.0)).select(zero, one),
            Op::Not => a.simd_eq(0.0).select(one, zero),
            Op::If => a.simd_eq(0.0).select(c, b),
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

/// Whole powers below 2 to this are products, and so exact where products are.
const DOUBLINGS: usize = 6;

/// `aᵇ`.
#[inline(always)]
fn power<S: Simd>(simd: S, a: f64x8<S>, b: f64x8<S>) -> f64x8<S> {
    let zero = f64x8::splat(simd, 0.0);
    let one = f64x8::splat(simd, 1.0);
    let whole = b.simd_eq(b.floor());
    let (mut product, mut square, mut left) = (one, a, b.abs());
    for _ in 0..DOUBLINGS {
        let half = (left * 0.5).floor();
        product = left.simd_eq(half * 2.0).select(product, product * square);
        square *= square;
        left = half;
    }
    product = b.simd_lt(zero).select(one / product, product);
    let magnitude = exp2::<f64, S>(log2::<f64, S>(a.abs()) * b);
    let half = b * 0.5;
    let odd = whole & !half.simd_eq(half.floor());
    let signed = (odd & a.simd_lt(0.0)).select(-magnitude, magnitude);
    let nan = f64x8::splat(simd, f64::NAN);
    let defined = (a.simd_lt(0.0) & !whole).select(nan, signed);
    let defined = a.simd_eq(1.0).select(one, defined);
    let result = (whole & left.simd_eq(zero)).select(product, defined);
    let result = b.simd_eq(0.5).select(a.sqrt(), result);
    // The logarithm of 0 times a power of 0 is not what 0⁰ is; and 1 to an infinite power is 1, as anywhere.
    b.simd_eq(zero).select(one, result)
}
