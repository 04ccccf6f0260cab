//! Exponential and uniform noise: integrands that are polynomials between kinks, so that Gauss' rule is exact or nearly so.
//!
//! **Exponential.** With `t = e^{-u}` and `aⱼ = e^{zⱼ} ≤ 1` it is permute-and-flip: `pᵢ = aᵢ ∫ Π (1 - aⱼ t)/(1 - aᵢ t) dt`
//! over 0 ≤ t ≤ 1. In absolute value the integrand is at most `e^{A |t|}`, A = Σ a, also at complex t, and at real t at most
//! `e^{1 - A t}`: 32 nodes on [0, min(1, 45/A)] always suffice, and n/2 are exact. O(32 n).
//!
//! **Uniform.** With `v = 1 - u` and `dⱼ = -zⱼ < 1`: `pᵢ = ∫ Π (1 - v + dⱼ)/(1 - v + dᵢ) dv` over dᵢ ≤ v ≤ 1, the product
//! being over dⱼ < v. Between two d it is a polynomial. O(n) and O(m²), m being the number of d before the product is
//! below any size: a few for scores that are apart, some √n for n scores within 1, all for ties.
//!
//! The gradient takes g from its mean under p, so that a constant gives 0.

use std::sync::OnceLock;

use fearless_simd::{Simd, prelude::*};
use fearless_simd_macros::simd;

use super::{Stripe, exponentials, f64s, stripe, taken};
use crate::{scalar::Real, simd::Sum};

const LANES: usize = <f64 as Real>::LANES;

/// The most nodes of a rule.
pub(super) const MOST: usize = 32;

/// Gauss' rule of `count` nodes on [0, 1]: nodes and weights.
pub(super) fn gauss(count: usize) -> &'static [(f64, f64)] {
    static KEPT: [OnceLock<Vec<(f64, f64)>>; MOST + 1] = [const { OnceLock::new() }; MOST + 1];
    KEPT[count].get_or_init(|| {
        let n = count as f64;
        let node = |k: usize| {
            let mut x = libm::cos(std::f64::consts::PI * (k as f64 + 0.75) / (n + 0.5));
            let mut slope = 1.0;
            for _ in 0..10 {
                let (mut p, mut before) = (x, 1.0);
                for degree in 2..=count {
                    let degree = degree as f64;
                    (p, before) = (
                        ((2.0 * degree - 1.0) * x * p - (degree - 1.0) * before) / degree,
                        p,
                    );
                }
                slope = n * (x * p - before) / (x * x - 1.0);
                x -= p / slope;
            }
            (0.5 - 0.5 * x, 1.0 / ((1.0 - x * x) * slope * slope))
        };
        (0..count).map(node).collect()
    })
}

/// Scratch.
#[derive(Default)]
pub(super) struct Room {
    /// A node, its weight times the product there, and how many entries are in the product.
    pub(super) nodes: Vec<(f64, f64, usize)>,
    /// The entries that take part, by d, and where they come from.
    order: Vec<(f64, usize)>,
    d: Vec<f64>,
    p: Vec<f64>,
    g: Vec<f64>,
    y: Vec<f64>,
}

/// p in place of z.
#[simd]
pub(super) fn exponential<S: Simd>(simd: S, z: &mut [f64], room: &mut Room) {
    exponentials(simd, z);
    exponential_nodes::<S>(simd, z, &mut room.nodes);
    for a in z.chunks_exact_mut(LANES) {
        exponential_p::<S>(&room.nodes, stripe::<S>(simd, a)).store_slice(a);
    }
}

/// p in place of z, and Jᵀg in place of g.
#[simd]
pub(super) fn exponential_gradient<S: Simd>(
    simd: S,
    z: &mut [f64],
    g: &mut [f64],
    room: &mut Room,
) {
    exponentials(simd, z);
    exponential_nodes::<S>(simd, z, &mut room.nodes);
    room.p.resize(z.len(), 0.0);
    let (mut total, mut mean) = (Sum::<f64, S>::new(simd), Sum::<f64, S>::new(simd));
    for ((a, p), g) in z
        .chunks_exact(LANES)
        .zip(room.p.chunks_exact_mut(LANES))
        .zip(g.chunks_exact(LANES))
    {
        let value = exponential_p::<S>(&room.nodes, stripe::<S>(simd, a));
        value.store_slice(p);
        total.add(value);
        mean.add(taken::<S>(value, value * stripe::<S>(simd, g)));
    }
    let mean = mean.total() / total.total();
    for (a, g) in z.chunks_exact(LANES).zip(g.chunks_exact_mut(LANES)) {
        taken::<S>(stripe::<S>(simd, a), stripe::<S>(simd, g) - mean).store_slice(g);
    }
    room.y.clear();
    room.y.resize(z.len(), 0.0);
    for &(t, weight, _) in &room.nodes {
        let (mut hazard, mut pull) = (f64s::<S>(simd, 0.0), f64s::<S>(simd, 0.0));
        for (a, g) in z.chunks_exact(LANES).zip(g.chunks_exact(LANES)) {
            let a = stripe::<S>(simd, a);
            let h = a / (-(a * t) + 1.0);
            hazard += h;
            pull += h * stripe::<S>(simd, g);
        }
        let (hazard, pull) = (f64::fold_sum(hazard), f64::fold_sum(pull));
        let weight = weight * t;
        for ((a, g), y) in z
            .chunks_exact(LANES)
            .zip(g.chunks_exact(LANES))
            .zip(room.y.chunks_exact_mut(LANES))
        {
            let a = stripe::<S>(simd, a);
            let h = a / (-(a * t) + 1.0) * weight;
            let own = h * (stripe::<S>(simd, g) * hazard - pull);
            (stripe::<S>(simd, y) + own).store_slice(y);
        }
    }
    g.copy_from_slice(&room.y);
    z.copy_from_slice(&room.p);
}

/// `a Σ weight/(1 - a t)`.
#[inline(always)]
fn exponential_p<S: Simd>(nodes: &[(f64, f64, usize)], a: Stripe<S>) -> Stripe<S> {
    let mut sum = f64s::<S>(a.token(), 0.0);
    for &(t, weight, _) in nodes {
        sum += f64s::<S>(a.token(), weight) / (-(a * t) + 1.0);
    }
    a * sum
}

#[inline(always)]
fn exponential_nodes<S: Simd>(simd: S, a: &[f64], nodes: &mut Vec<(f64, f64, usize)>) {
    let (zero, one) = (f64s::<S>(simd, 0.0), f64s::<S>(simd, 1.0));
    let (mut sum, mut count) = (zero, zero);
    for a in a.chunks_exact(LANES) {
        let a = stripe::<S>(simd, a);
        sum += a;
        count += a.simd_gt(0.0).select(one, zero);
    }
    let count = f64::fold_sum(count) as usize;
    let end = (45.0 / f64::fold_sum(sum)).min(1.0);
    nodes.clear();
    for four in gauss(count.div_ceil(2).min(MOST)).chunks(4) {
        let mut t = [0.0; 4];
        for (t, &(node, _)) in t.iter_mut().zip(four) {
            *t = node * end;
        }
        let mut products = [one; 4];
        for a in a.chunks_exact(LANES) {
            let a = stripe::<S>(simd, a);
            for k in 0..4 {
                products[k] *= -(a * t[k]) + 1.0;
            }
        }
        for (k, &(_, weight)) in four.iter().enumerate() {
            nodes.push((t[k], weight * end * multiplied::<S>(products[k]), count));
        }
    }
}

#[inline(always)]
fn multiplied<S: Simd>(stripe: Stripe<S>) -> f64 {
    let mut product = 1.0;
    for k in 0..LANES {
        product *= stripe[k];
    }
    product
}

/// p in place of z.
#[simd]
pub(super) fn uniform<S: Simd>(simd: S, z: &mut [f64], room: &mut Room) {
    uniform_p::<S>(simd, z, room);
    z.fill(0.0);
    for (&(_, index), p) in room.order.iter().zip(&room.p) {
        z[index] = *p;
    }
}

/// p in place of z, and Jᵀg in place of g.
#[simd]
pub(super) fn uniform_gradient<S: Simd>(simd: S, z: &mut [f64], g: &mut [f64], room: &mut Room) {
    uniform_p::<S>(simd, z, room);
    z.fill(0.0);
    let (mut total, mut mean) = (0.0, 0.0);
    for (&(_, index), &p) in room.order.iter().zip(&room.p) {
        z[index] = p;
        total += p;
        mean += if p > 0.0 { p * g[index] } else { 0.0 };
    }
    room.g.clear();
    room.g.resize(room.d.len(), 0.0);
    for ((&(_, index), &p), own) in room.order.iter().zip(&room.p).zip(&mut room.g) {
        *own = if p > 0.0 {
            g[index] - mean / total
        } else {
            0.0
        };
    }
    room.y.clear();
    room.y.resize(room.d.len(), 0.0);
    for &(v, weight, active) in &room.nodes {
        let reach = active.next_multiple_of(LANES);
        let (mut hazard, mut pull) = (f64s::<S>(simd, 0.0), f64s::<S>(simd, 0.0));
        for (d, g) in room.d[..reach]
            .chunks_exact(LANES)
            .zip(room.g.chunks_exact(LANES))
        {
            let h = uniform_hazard::<S>(stripe::<S>(simd, d), v);
            hazard += h;
            pull += h * stripe::<S>(simd, g);
        }
        let (hazard, pull) = (f64::fold_sum(hazard), f64::fold_sum(pull));
        for ((d, g), y) in room.d[..reach]
            .chunks_exact(LANES)
            .zip(room.g.chunks_exact(LANES))
            .zip(room.y.chunks_exact_mut(LANES))
        {
            let h = uniform_hazard::<S>(stripe::<S>(simd, d), v) * weight;
            let own = h * (stripe::<S>(simd, g) * hazard - pull);
            (stripe::<S>(simd, y) + own).store_slice(y);
        }
    }
    g.fill(0.0);
    for (&(_, index), y) in room.order.iter().zip(&room.y) {
        g[index] = *y;
    }
}

/// `1/(1 - v + d)` where d < v, 0 elsewhere.
#[inline(always)]
fn uniform_hazard<S: Simd>(d: Stripe<S>, v: f64) -> Stripe<S> {
    let simd = d.token();
    let h = f64s::<S>(simd, 1.0) / (d + (1.0 - v));
    d.simd_lt(v).select(h, f64s::<S>(simd, 0.0))
}

/// The product no longer counts below this.
const LEAST: f64 = 1e-36;

/// By how much, in exponents at its beginning, the product may fall from one rule to the next.
const PIECE: f64 = 5.0;

/// The most nodes of a rule here.
const MOST_IN_PIECE: usize = 14;

/// Fills `order`, `d`, `nodes` and `p`, in the order of d.
#[inline(always)]
fn uniform_p<S: Simd>(simd: S, z: &[f64], room: &mut Room) {
    room.order.clear();
    for (index, &z) in z.iter().enumerate() {
        if z > -1.0 {
            room.order.push((-z, index));
        }
    }
    room.order
        .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let count = room.order.len();
    room.d.clear();
    room.d.extend(room.order.iter().map(|&(d, _)| d));
    room.d.resize(count.next_multiple_of(LANES), 2.0);
    room.p.clear();
    room.p.resize(room.d.len(), 0.0);
    room.nodes.clear();
    let (mut start, mut active) = (0.0, 0);
    while start < 1.0 {
        while active < count && room.d[active] <= start {
            active += 1;
        }
        let kink = if active < count { room.d[active] } else { 1.0 };
        let d = &room.d[..active.next_multiple_of(LANES)];
        let (end, nodes) = if active <= 2 * MOST_IN_PIECE {
            (kink, active.div_ceil(2))
        } else {
            let mut slope = f64s::<S>(simd, 0.0);
            for d in d.chunks_exact(LANES) {
                slope += uniform_hazard::<S>(stripe::<S>(simd, d), start.next_up());
            }
            let slope = f64::fold_sum(slope);
            let end = kink.min(start + PIECE / slope);
            (end, nodes_for(2.0 * slope * (end - start)))
        };
        let mut largest = 0.0f64;
        for &(x, weight) in gauss(nodes) {
            let v = start + (end - start) * x;
            let mut product = f64s::<S>(simd, 1.0);
            for d in d.chunks_exact(LANES) {
                let one = f64s::<S>(simd, 1.0);
                product *= (stripe::<S>(simd, d) + (1.0 - v)).min(one);
            }
            let product = multiplied::<S>(product);
            largest = largest.max(product);
            let weight = weight * (end - start) * product;
            room.nodes.push((v, weight, active));
            for (d, p) in d.chunks_exact(LANES).zip(room.p.chunks_exact_mut(LANES)) {
                let own = uniform_hazard::<S>(stripe::<S>(simd, d), v) * weight;
                (stripe::<S>(simd, p) + own).store_slice(p);
            }
        }
        if largest < LEAST {
            break;
        }
        start = end;
    }
}

/// Nodes for a fall by e^fall: the error of Gauss' rule for an exponential is below 1e-17.
fn nodes_for(fall: f64) -> usize {
    static MOST_FALL: OnceLock<[f64; MOST_IN_PIECE]> = OnceLock::new();
    let most = MOST_FALL.get_or_init(|| {
        let mut log_factorial = [0.0; 2 * MOST_IN_PIECE + 1];
        for k in 1..log_factorial.len() {
            log_factorial[k] = log_factorial[k - 1] + libm::log(k as f64);
        }
        std::array::from_fn(|k| {
            let n = k + 1;
            // fall^2n n!⁴/((2n + 1) (2n)!³)
            let log = 3.0 * log_factorial[2 * n] - 4.0 * log_factorial[n]
                + libm::log((2 * n + 1) as f64)
                + libm::log(1e-17);
            libm::exp(log / (2 * n) as f64)
        })
    });
    most.iter()
        .take_while(|&&most| most < fall)
        .count()
        .min(MOST_IN_PIECE - 1)
        + 1
}
