//! Noise of any density, from a table of it.
//!
//! F is the cubic between the points of the grid that has the values and slopes of the table (Hermite), the slopes being
//! cut where the cubic would fall (Fritsch & Carlson, 1980); f is its derivative.
//!
//! Gauss' rule of 8 nodes on pieces of u, from where G counts: 12 over the range in which ln G falls from -0.1 to -45, and
//! from there growing by a fourth each. The kinks of f at the points of the grid part them too: those of all entries where
//! at most 256 count, else those of the largest score. O(n k), k some hundreds.

use super::kinked::{self, gauss};
use crate::error::Error;

/// A density f and its distribution function F on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    grid: Vec<f64>,
    /// F between two points: a cubic in the distance from the first, lowest power first.
    cubics: Vec<[f64; 4]>,
    /// For cells of equal width, the last point of the grid at or below the start of each.
    cells: Vec<usize>,
    cells_per_unit: f64,
}

/// How far the table may begin above 0 and end below 1; it is scaled to reach both.
const LOOSE: f64 = 1e-3;

/// Nodes of the rule on a piece; half as many where pieces are many.
const NODES: usize = 8;
const MANY: usize = 128;

/// G counts from e^-DEPTH.
const DEPTH: f64 = 45.0;

/// Steps to a quantile; halving alone would take 52.
const MOST_STEPS: usize = 60;

/// The most kinks that part pieces.
const KINKS: usize = 256;

impl Table {
    /// A table of at least two points.
    ///
    /// # Errors
    /// [`Error::Unsupported`] and [`Error::Length`] if there are too few points, or not as many values; [`Error::Domain`] unless
    /// the grid is finite and rises strictly, the density is finite and nowhere negative, and the distribution function
    /// rises from 0 to 1, or to within 1e-3 of them.
    pub fn new(grid: &[f64], pdf: &[f64], cdf: &[f64]) -> Result<Self, Error> {
        if grid.len() < 2 {
            return Err(Error::Unsupported {
                argument: "grid",
                reason: "at least two points are needed",
            });
        }
        for (argument, found) in [("pdf", pdf.len()), ("cdf", cdf.len())] {
            if found != grid.len() {
                return Err(Error::Length {
                    argument,
                    expected: grid.len(),
                    found,
                });
            }
        }
        let domain = |argument, domain, value| Error::Domain {
            argument,
            domain,
            value,
        };
        if let Some(&value) = grid.iter().find(|value| !value.is_finite()) {
            return Err(domain("grid", "finite", value));
        }
        if let Some(pair) = grid.windows(2).find(|pair| pair[1] <= pair[0]) {
            return Err(domain("grid", "strictly increasing", pair[1]));
        }
        if let Some(&value) = pdf
            .iter()
            .find(|&&pdf| !(0.0..f64::INFINITY).contains(&pdf))
        {
            return Err(domain("pdf", "finite and at least 0", value));
        }
        if let Some(&value) = cdf.iter().find(|value| !value.is_finite()) {
            return Err(domain("cdf", "finite", value));
        }
        if let Some(pair) = cdf.windows(2).find(|pair| pair[1] < pair[0]) {
            return Err(domain("cdf", "nowhere falling", pair[1]));
        }
        let (first, last) = (cdf[0], cdf[cdf.len() - 1]);
        if first.abs() > LOOSE {
            return Err(domain("cdf", "0 at its beginning", first));
        }
        if (last - 1.0).abs() > LOOSE {
            return Err(domain("cdf", "1 at its end", last));
        }
        let scale = 1.0 / (last - first);
        let value = |k: usize| (cdf[k] - first) * scale;
        let secant = |k: usize| (value(k + 1) - value(k)) / (grid[k + 1] - grid[k]);
        let most = |k: usize| {
            let before = if k > 0 { secant(k - 1) } else { f64::INFINITY };
            let after = if k + 1 < grid.len() {
                secant(k)
            } else {
                f64::INFINITY
            };
            3.0 * before.min(after)
        };
        let slope = |k: usize| (pdf[k] * scale).min(most(k));
        let cubics = (0..grid.len() - 1)
            .map(|k| {
                let (width, secant) = (grid[k + 1] - grid[k], secant(k));
                let (start, end) = (slope(k), slope(k + 1));
                [
                    value(k),
                    start,
                    (3.0 * secant - 2.0 * start - end) / width,
                    (start + end - 2.0 * secant) / (width * width),
                ]
            })
            .collect();
        let width = grid[grid.len() - 1] - grid[0];
        let count = 2 * grid.len();
        let cells_per_unit = count as f64 / width;
        let mut at = 0;
        let cells = (0..=count)
            .map(|cell| {
                let start = grid[0] + cell as f64 / cells_per_unit;
                while at + 2 < grid.len() && grid[at + 1] <= start {
                    at += 1;
                }
                at
            })
            .collect();
        Ok(Self {
            grid: grid.to_vec(),
            cubics,
            cells,
            cells_per_unit,
        })
    }

    fn first(&self) -> f64 {
        self.grid[0]
    }

    fn last(&self) -> f64 {
        self.grid[self.grid.len() - 1]
    }

    /// F and f.
    fn at(&self, x: f64) -> (f64, f64) {
        if x >= self.last() {
            return (1.0, 0.0);
        }
        if x <= self.first() {
            return (0.0, 0.0);
        }
        let cell = ((x - self.first()) * self.cells_per_unit) as usize;
        let mut k = self.cells[cell.min(self.cells.len() - 1)];
        while k > 0 && self.grid[k] > x {
            k -= 1;
        }
        while k + 2 < self.grid.len() && self.grid[k + 1] <= x {
            k += 1;
        }
        let [a, b, c, d] = self.cubics[k];
        let x = x - self.grid[k];
        let cdf = a + x * (b + x * (c + x * d));
        let pdf = b + x * (2.0 * c + x * (3.0 * d));
        (cdf.clamp(0.0, 1.0), pdf.max(0.0))
    }

    /// The x with F(x) = `cdf`, as near as doubles get: Newton's method, or the middle where that leads out of the bracket.
    pub(super) fn quantile(&self, cdf: f64) -> f64 {
        let k = self.cubics.partition_point(|cubic| cubic[0] <= cdf).max(1) - 1;
        let [a, b, c, d] = self.cubics[k];
        let width = self.grid[k + 1] - self.grid[k];
        let (mut low, mut high, mut x) = (0.0, width, 0.5 * width);
        for _ in 0..MOST_STEPS {
            let off = (a - cdf) + x * (b + x * (c + x * d));
            if off < 0.0 {
                low = x;
            } else {
                high = x;
            }
            let newton = x - off / (b + x * (2.0 * c + x * (3.0 * d)));
            let inside = low < newton && newton < high;
            let next = if inside { newton } else { 0.5 * (low + high) };
            let done = (next - x).abs() <= f64::EPSILON * width;
            x = next;
            if done {
                break;
            }
        }
        self.grid[k] + x
    }

    /// `ln G(u)`, or -∞ where it is below -DEPTH; the largest z come first.
    fn log_product(&self, u: f64, z: &[f64]) -> f64 {
        let (mut log, mut product) = (0.0, 1.0f64);
        for &z in z {
            if u - z >= self.last() {
                break;
            }
            product *= self.at(u - z).0;
            if product < 1e-200 {
                if product == 0.0 || log < -DEPTH {
                    return f64::NEG_INFINITY;
                }
                log += libm::log(product);
                product = 1.0;
            }
        }
        log + libm::log(product)
    }

    /// The least u, to a thousandth of the grid's length, with `ln G(u) > level`.
    fn rise(&self, level: f64, z: &[f64]) -> f64 {
        let (mut low, mut high) = (self.first(), self.last());
        for _ in 0..14 {
            let u = 0.5 * (low + high);
            if self.log_product(u, z) > level {
                high = u;
            } else {
                low = u;
            }
        }
        low
    }

    /// Nodes u and their weights times G(u).
    fn nodes(&self, z: &[f64], room: &mut kinked::Room) {
        // What is so far below the largest never wins, and is below all nodes.
        let reach = self.first() - self.last();
        let mut part: Vec<f64> = z.iter().copied().filter(|&z| z > reach).collect();
        part.sort_unstable_by(|a, b| b.total_cmp(a));
        let start = self.rise(-DEPTH, &part);
        let mut width = (self.rise(-0.1, &part) - start).max(1e-3 / self.cells_per_unit) / 12.0;
        let mut cuts = vec![start];
        let mut end = start;
        while end < self.last() {
            if cuts.len() > 16 {
                width *= 1.25;
            }
            end = (end + width).min(self.last());
            cuts.push(end);
        }
        let inside = |shift: f64| {
            let first = self.grid.partition_point(|x| x + shift <= start);
            let end = self.grid.partition_point(|x| x + shift < self.last());
            &self.grid[first.min(end)..end]
        };
        let kinks: usize = part.iter().map(|&z| inside(z).len()).sum();
        let shifts: &[f64] = if kinks <= KINKS {
            &part
        } else if self.grid.len() <= KINKS {
            &[0.0]
        } else {
            &[]
        };
        for &shift in shifts {
            cuts.extend(inside(shift).iter().map(|x| x + shift));
        }
        cuts.sort_unstable_by(f64::total_cmp);
        cuts.dedup();
        let nodes = if cuts.len() > MANY { NODES / 2 } else { NODES };
        room.nodes.clear();
        for pair in cuts.windows(2) {
            let width = pair[1] - pair[0];
            for &(x, weight) in gauss(nodes) {
                let u = pair[0] + width * x;
                let g = libm::exp(self.log_product(u, &part));
                if g > 0.0 {
                    room.nodes.push((u, weight * width * g, part.len()));
                }
            }
        }
    }

    /// `f/F`; 0 where both are.
    fn hazard(&self, x: f64) -> f64 {
        let (cdf, pdf) = self.at(x);
        if cdf > 0.0 { pdf / cdf } else { 0.0 }
    }

    fn p(&self, z: f64, nodes: &[(f64, f64, usize)]) -> f64 {
        if z <= self.first() - self.last() {
            return 0.0;
        }
        let mut sum = 0.0;
        for &(u, weight, _) in nodes {
            if u - z >= self.last() {
                break;
            }
            sum += weight * self.hazard(u - z);
        }
        sum
    }

    /// p in place of z.
    pub(super) fn probabilities(&self, z: &mut [f64], room: &mut kinked::Room) {
        self.nodes(z, room);
        for z in z {
            *z = self.p(*z, &room.nodes);
        }
    }

    /// p in place of z, and Jᵀg in place of g.
    pub(super) fn gradient(&self, z: &mut [f64], g: &mut [f64], room: &mut kinked::Room) {
        self.nodes(z, room);
        let p: Vec<f64> = z.iter().map(|&z| self.p(z, &room.nodes)).collect();
        let (mut total, mut mean) = (0.0, 0.0);
        for (&p, &g) in p.iter().zip(&*g) {
            total += p;
            mean += if p > 0.0 { p * g } else { 0.0 };
        }
        mean /= total;
        let (mut y, mut h) = (vec![0.0; z.len()], Vec::new());
        for &(u, weight, _) in &room.nodes {
            let (mut hazard, mut pull) = (0.0, 0.0);
            h.clear();
            for ((&z, &p), &g) in z.iter().zip(&p).zip(&*g) {
                let own = if p > 0.0 { self.hazard(u - z) } else { 0.0 };
                h.push(own);
                if own > 0.0 {
                    hazard += own;
                    pull += own * (g - mean);
                }
            }
            for ((y, &h), &g) in y.iter_mut().zip(&h).zip(&*g) {
                if h > 0.0 {
                    *y += weight * h * ((g - mean) * hazard - pull);
                }
            }
        }
        z.copy_from_slice(&p);
        g.copy_from_slice(&y);
    }
}
