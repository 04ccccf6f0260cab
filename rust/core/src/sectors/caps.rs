//! n points on the unit sphere of ℝᵈ: the smallest spherical cap that holds them all.
//!
//! Its angular radius has the cosine `v = max over unit u of minᵢ ⟨u, pᵢ⟩`: positive if the points lie in an open half
//! space, -1 if only the whole sphere would do.
//!
//! * **Domain.** Unit vectors, 2 <= d <= 16, n >= 1. Anything else that is d floats a point ends without a panic.
//! * **Precision.** v is off by about 1e-15, and by more than 1e-12 in a few of 10⁵ random sets. Points in
//!   special position (a point within 1e-11 of the span of fewer than d others: antipodal, say) may cost a few 1e-5.
//! * **Determinism.** Only + - * / and roots, in one order: the same bits everywhere.
//! * **Cost.** About d³ for each of the few points that change the cap, n·d for each such change. Where v < 0, the
//!   convex hull: n·d times its facets, of which there are n for d = 2, 2n for d = 3, and then up to the order of
//!   `n^⌊d/2⌋`: half a millisecond for (n, d) = (20, 8), twenty for (50, 8). No allocation after the first trials.
//!
//! ```text
//! w ← 0, active ← {}                        # v > 0: w = argmin |w|² with ⟨w, pᵢ⟩ >= 1 for all i, and v = 1/|w|
//! for each point, while some p has ⟨w, p⟩ < 1:                # (Goldfarb & Idnani, 1983)
//!     repeat                                # w = Σ weight·active, weights >= 0; p = Σ share·active + rest
//!         step ← (1 - ⟨w, p⟩) / |rest|², at most weight/share of an active point with share > 0
//!         w ← w + step·rest, weights ← weights - step·shares
//!         drop the active point whose weight became 0
//!     until none did; active ← active ∪ {p}
//!     if |active| > d: the origin is in the simplex of the active points, hence v <= 0
//!
//! facets ← those of that simplex, each with its outward normal u and offset h >= 0: ⟨u, pᵢ⟩ <= h
//! for each point p                          # beneath and beyond
//!     visible ← facets with ⟨u, p⟩ > h
//!     for each ridge between a visible facet and a hidden one: a facet through the ridge and p
//!     remove the visible ones
//! v ← -min h
//! ```
//!
//! Departures:
//! 1. The active points are kept as `L·Q`, a lower triangle times orthonormal rows (Gram-Schmidt, twice where
//!    little is left, so that Q stays orthogonal), from which w is solved afresh after each change.
//! 2. A point in the span of fewer than d others is moved out of it, so that d + 1 active points always make a simplex.
//! 3. All planes through a ridge are combinations of two of them: the new facet's is the one of its visible and its
//!    hidden facet that holds p. No system is solved, and the origin stays on the inner side.

/// The largest dimension.
const MOST: usize = 16;

/// How far a point may lie outside a cap or a facet and count as on it: far above the rounding of ⟨u, p⟩. And v is
/// wrong by no more, since it moves by at most what the points move by.
const TOLERANCE: f64 = 1e-12;

/// How far a point may lie from the span of fewer than d others and count as in it.
const FLAT: f64 = 1e-11;

/// How far along an axis it is moved then: so far that rounding cannot
/// turn a flat simplex over.
const MOVE: f64 = 1e-5;

/// Changes of the cap that one more point may cause. It takes about d; only rounding among ties could go on.
const CHANGES: usize = 1000;

/// Scratch that a worker keeps from trial to trial.
pub(super) struct Caps {
    d: usize,
    points: Vec<f64>,
    /// The points on the rim of the cap, `active[i] = Σ lower[i][j] basis[j]`.
    active: Vec<usize>,
    basis: [[f64; MOST]; MOST + 1],
    lower: [[f64; MOST + 1]; MOST + 1],
    /// w = Σ along[j] basis[j].
    along: [f64; MOST + 1],
    w: [f64; MOST],
    norm: f64,
    hull: Hull,
}

impl Caps {
    /// Scratch for trials of about `n` points in `d` dimensions.
    pub(super) fn new(n: usize, d: usize) -> Self {
        debug_assert!((2..=MOST).contains(&d));
        Self {
            d,
            points: Vec::with_capacity(n * d),
            active: Vec::with_capacity(d + 1),
            basis: [[0.0; MOST]; MOST + 1],
            lower: [[0.0; MOST + 1]; MOST + 1],
            along: [0.0; MOST + 1],
            w: [0.0; MOST],
            norm: 0.0,
            hull: Hull::default(),
        }
    }

    /// The cosine of the angular radius of the smallest cap that holds `points`, d coordinates each.
    pub(super) fn cosine(&mut self, points: &[f64]) -> f64 {
        debug_assert!(!points.is_empty() && points.len().is_multiple_of(self.d));
        self.begin();
        if points.chunks_exact(self.d).all(|p| self.admits(p, 0.0)) {
            return 1.0 / self.norm;
        }
        self.points.extend_from_slice(&points[self.points.len()..]);
        self.enclose();
        for (name, point) in self.points.chunks_exact(self.d).enumerate() {
            if !self.active.contains(&name) {
                self.hull.add(name, point);
            }
        }
        -self.hull.least_offset()
    }

    /// Forgets all points.
    pub(super) fn begin(&mut self) {
        self.points.clear();
        self.active.clear();
        self.solve();
    }

    /// Adds a point: whether a cap whose angular radius has the cosine `least` >= 0 still holds all since [`begin`].
    /// After a `false`, begin anew.
    ///
    /// [`begin`]: Self::begin
    pub(super) fn admits(&mut self, point: &[f64], least: f64) -> bool {
        debug_assert!(point.len() == self.d && least >= 0.0);
        let mut outside = self.points.len() / self.d;
        self.points.extend_from_slice(point);
        for _ in 0..CHANGES {
            let lies_outside = self.slack(outside) > TOLERANCE * self.norm; // false for NaN
            if !lies_outside || self.active.contains(&outside) {
                break;
            }
            if !self.widen(outside) || self.norm * least > 1.0 {
                return false;
            }
            outside = self.farthest();
        }
        true
    }

    /// What the point lacks for ⟨w, p⟩ = 1.
    fn slack(&self, point: usize) -> f64 {
        1.0 - dot(&self.w[..self.d], &self.points[point * self.d..][..self.d])
    }

    /// The point with the least ⟨w, p⟩.
    fn farthest(&self) -> usize {
        let (mut farthest, mut least) = (0, f64::INFINITY);
        for (i, p) in self.points.chunks_exact(self.d).enumerate() {
            let height = dot(&self.w[..self.d], p);
            if height < least {
                (farthest, least) = (i, height);
            }
        }
        farthest
    }

    /// Widens the cap to reach the point `new` outside it; false if that takes more than a half space. Then the active
    /// points are a simplex that holds the origin.
    fn widen(&mut self, new: usize) -> bool {
        let mut weights = self.along;
        self.divide(&mut weights, self.active.len());
        let mut slack = self.slack(new);
        self.active.push(new);
        loop {
            let held = self.active.len() - 1;
            self.split(held);
            let mut shares = self.lower[held];
            self.divide(&mut shares, held);

            let rest = self.lower[held][held] * self.lower[held][held];
            let mut step = if held < self.d {
                slack / rest
            } else {
                f64::INFINITY
            };
            let mut emptied = None;
            for (i, (weight, share)) in weights[..held].iter().zip(&shares).enumerate() {
                if *share > 0.0 && weight / share < step {
                    (step, emptied) = (weight / share, Some(i));
                }
            }
            let Some(emptied) = emptied else {
                if held == self.d {
                    return false;
                }
                self.solve();
                return true;
            };

            slack -= step * rest;
            for (weight, share) in weights.iter_mut().zip(&shares) {
                *weight -= step * share;
            }
            weights.copy_within(emptied + 1.., emptied);
            self.active.remove(emptied);
            (emptied..held - 1).for_each(|i| self.split(i));
        }
    }

    /// Row i of the triangle and of the basis, from those before it. A point in their span is moved, axis by axis, until
    /// it is out: some axis has 1/√d or more of its length outside, and the sum of the moves before it or after it half
    /// of that. Each row begins at another axis, so that the moved points are independent.
    fn split(&mut self, i: usize) {
        let d = self.d;
        let (basis, rest) = self.basis.split_at_mut(i);
        let (rest, row) = (&mut rest[0][..d], &mut self.lower[i]);
        let point = &mut self.points[self.active[i] * d..][..d];
        for axis in 0..=d {
            rest.copy_from_slice(point);
            *row = [0.0; MOST + 1];
            row[i] = remove(basis, rest, row);
            let enough = if axis == 0 { FLAT } else { MOVE / 16.0 };
            if i == d || axis == d || row[i] >= enough {
                break;
            }
            point[(i + axis) % d] += MOVE;
        }
    }

    /// Makes w the shortest vector with ⟨w, p⟩ = 1 for the active points.
    fn solve(&mut self) {
        let count = self.active.len();
        (self.along, self.w) = self.vector(&[1.0; MOST][..count]);
        self.norm = dot(&self.along[..count], &self.along[..count]).sqrt();
    }

    /// The shortest vector whose products with the first active points are `heights`: its coordinates in the basis, and
    /// itself.
    fn vector(&self, heights: &[f64]) -> ([f64; MOST + 1], [f64; MOST]) {
        let mut along = [0.0; MOST + 1];
        let mut vector = [0.0; MOST];
        for (i, height) in heights.iter().enumerate() {
            along[i] = (height - dot(&self.lower[i][..i], &along[..i])) / self.lower[i][i];
            subtract(&mut vector[..self.d], -along[i], &self.basis[i][..self.d]);
        }
        (along, vector)
    }

    /// From coordinates in the basis to weights of the first `count` active points.
    fn divide(&self, coordinates: &mut [f64; MOST + 1], count: usize) {
        for i in (0..count).rev() {
            coordinates[i] /= self.lower[i][i];
            let weight = coordinates[i];
            subtract(&mut coordinates[..i], weight, &self.lower[i][..i]);
        }
    }

    /// Begins the hull with the simplex of the active points. Facet i lacks point i, and has the others in the order
    /// i + 1, i + 2, … (mod d + 1).
    fn enclose(&mut self) {
        let (d, count) = (self.d, self.d + 1);
        // Σ share·point = 0, no share positive. So ⟨u, pⱼ⟩ = -shareᵢ for j ≠ i, ⟨u, pᵢ⟩ = Σ shares - shareᵢ makes a
        // facet's outward normal u; where it holds for all points but one, it holds for that one.
        let mut shares = self.lower[d];
        self.divide(&mut shares, d);
        shares[d] = -1.0;
        let sum: f64 = shares[..count].iter().sum();
        self.hull.begin(d);
        for i in 0..count {
            let facet = self.hull.grow();
            for place in 0..d {
                let other = (i + 1 + place) % count;
                self.hull.vertices[facet * d + place] = self.active[other];
                self.hull.twins[facet * d + place] = other * d + (d - 1 - place);
            }
            let mut heights = [-shares[i]; MOST + 1];
            heights[i] += sum;
            let (along, normal) = self.vector(&heights[..d]);
            let norm = dot(&along[..d], &along[..d]).sqrt();
            let plane = &mut self.hull.planes[facet * count..];
            for (u, v) in plane.iter_mut().zip(&normal[..d]) {
                *u = v / norm;
            }
            plane[d] = -shares[i] / norm;
        }
    }
}

/// A simplicial polytope. Facet f has d sides, numbered `f·d + place`; each side has a vertex, the one opposite to it,
/// and a twin, the same ridge as a side of the neighbouring facet.
#[derive(Default)]
struct Hull {
    d: usize,
    vertices: Vec<usize>,
    twins: Vec<usize>,
    /// Normal and offset of each facet; the offset of a removed one is infinite, so that nothing sees it.
    planes: Vec<f64>,
    /// How far the point that is being added lies above each facet.
    heights: Vec<f64>,
    removed: Vec<usize>,
    visible: Vec<usize>,
    /// The sides that visible facets turn to hidden ones.
    horizon: Vec<usize>,
}

impl Hull {
    fn begin(&mut self, d: usize) {
        self.d = d;
        self.vertices.clear();
        self.twins.clear();
        self.planes.clear();
        self.heights.clear();
        self.removed.clear();
    }

    /// Room for a facet.
    fn grow(&mut self) -> usize {
        let facet = self.heights.len();
        self.vertices.resize((facet + 1) * self.d, 0);
        self.twins.resize((facet + 1) * self.d, 0);
        self.planes.resize((facet + 1) * (self.d + 1), 0.0);
        self.heights.push(0.0);
        facet
    }

    fn is_visible(&self, facet: usize) -> bool {
        self.heights[facet] > TOLERANCE
    }

    /// Extends the hull to `point`, which gets this name.
    fn add(&mut self, name: usize, point: &[f64]) {
        let d = self.d;
        self.visible.clear();
        self.horizon.clear();
        for (facet, plane) in self.planes.chunks_exact(d + 1).enumerate() {
            // No unit point lies deeper than 2; NaN counts as hidden, as it has to count as one of the two.
            self.heights[facet] = (dot(&plane[..d], point) - plane[d]).max(-2.0);
            if self.heights[facet] > TOLERANCE {
                self.visible.push(facet);
            }
        }
        for &facet in &self.visible {
            let sides = facet * d..(facet + 1) * d;
            self.horizon
                .extend(sides.filter(|&side| self.heights[self.twins[side] / d] <= TOLERANCE));
        }
        for i in 0..self.horizon.len() {
            self.raise(self.horizon[i], name);
        }
        for i in 0..self.horizon.len() {
            self.join(self.horizon[i]);
        }
        for &facet in &self.visible {
            self.planes[facet * (d + 1) + d] = f64::INFINITY;
        }
        self.removed.extend_from_slice(&self.visible);
    }

    /// A facet on the ridge at `side` of the horizon and the new point, which takes the place of the visible facet's
    /// vertex. Leads the side to it.
    fn raise(&mut self, side: usize, name: usize) {
        let d = self.d;
        let (visible, place) = (side / d, side % d);
        let beyond = self.twins[side];
        let hidden = beyond / d;
        let new = self.removed.pop().unwrap_or_else(|| self.grow());
        self.vertices
            .copy_within(visible * d..(visible + 1) * d, new * d);
        self.vertices[new * d + place] = name;
        self.twins[new * d + place] = beyond;
        self.twins[beyond] = new * d + place;
        self.twins[side] = new * d + place;

        let (above, below) = (self.heights[visible], self.heights[hidden].min(0.0));
        let [plane, visible, hidden] = [new, visible, hidden].map(|facet| facet * (d + 1));
        for i in 0..=d {
            self.planes[plane + i] =
                above * self.planes[hidden + i] - below * self.planes[visible + i];
        }
        let plane = &mut self.planes[plane..=plane + d];
        let norm = dot(&plane[..d], &plane[..d]).sqrt();
        plane.iter_mut().for_each(|v| *v /= norm);
        self.heights[new] = 0.0;
    }

    /// Joins the new facet at `side` of the horizon to its new neighbours. Each contains the new point and the ridge but
    /// for one vertex: turning around what they share, through visible facets, leads from one to the other.
    fn join(&mut self, side: usize) {
        let d = self.d;
        let (facet, place, new) = (side / d, side % d, self.twins[side] / d);
        for other in (0..d).filter(|&other| other != place) {
            let (mut from, mut to) = (side, facet * d + other);
            while self.is_visible(self.twins[to] / d) {
                let kept = self.vertices[from];
                from = self.twins[to];
                to = from / d * d;
                while self.vertices[to] != kept {
                    to += 1; // it is there: both facets have the vertex
                }
            }
            self.twins[new * d + other] = self.twins[to] / d * d + from % d;
        }
    }

    /// The distance of the nearest facet from the origin.
    fn least_offset(&self) -> f64 {
        let offsets = self.planes.iter().skip(self.d).step_by(self.d + 1);
        offsets.fold(1.0, |least, &h| h.min(least))
    }
}

/// Takes the span of the orthonormal `basis` out of the unit `vector` and normalises what is left, whose length it
/// returns. Adds what it took to `coordinates`.
fn remove(basis: &[[f64; MOST]], vector: &mut [f64], coordinates: &mut [f64; MOST + 1]) -> f64 {
    let mut norm = 0.0;
    // Where little is left, rounding shows in its direction: a second pass takes that out.
    for _ in 0..2 {
        for (row, coordinate) in basis.iter().zip(coordinates.iter_mut()) {
            let part = dot(row, vector);
            subtract(vector, part, row);
            *coordinate += part;
        }
        norm = dot(vector, vector).sqrt();
        if norm > 0.5 {
            break;
        }
    }
    vector.iter_mut().for_each(|v| *v /= norm);
    norm
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// `a -= times·b`.
fn subtract(a: &mut [f64], times: f64, b: &[f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a -= times * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// What v may be off (see *Precision*; the seeds are fixed).
    const OFF: f64 = 2.0 * TOLERANCE;

    /// What points in special position may be moved, in any direction.
    const MOVED: f64 = 4.0 * MOVE;

    fn gaussian(stream: &mut Stream) -> f64 {
        let radius = (-2.0 * (1.0 - stream.next_f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * stream.next_f64()).cos()
    }

    /// n uniform points.
    fn uniform(stream: &mut Stream, n: usize, d: usize) -> Vec<f64> {
        normalized((0..n * d).map(|_| gaussian(stream)).collect(), d)
    }

    fn normalized(mut points: Vec<f64>, d: usize) -> Vec<f64> {
        for point in points.chunks_exact_mut(d) {
            let norm = dot(point, point).sqrt();
            point.iter_mut().for_each(|v| *v /= norm);
        }
        points
    }

    fn cosine(points: &[f64], d: usize) -> f64 {
        Caps::new(points.len() / d, d).cosine(points)
    }

    /// Every choice of 1 to `most` of n.
    fn choices(n: usize, most: usize) -> impl Iterator<Item = Vec<usize>> {
        (1u32..1 << n)
            .filter(move |set| set.count_ones() as usize <= most)
            .map(move |set| (0..n).filter(|i| set >> i & 1 == 1).collect())
    }

    /// The unit vector u of the span of `points` and the h >= 0 with ⟨u, p⟩ = h for each; none where the points depend
    /// on each other. By elimination in w = Σ xᵢpᵢ, ⟨w, pᵢ⟩ = 1, which keeps more digits of w than the Gram matrix.
    fn plane(points: &[&[f64]]) -> Option<(Vec<f64>, f64)> {
        let (m, d) = (points.len(), points[0].len());
        let size = m + d;
        let mut system = vec![vec![0.0; size + 1]; size];
        for k in 0..d {
            system[k][k] = 1.0;
            for (i, p) in points.iter().enumerate() {
                system[k][d + i] = -p[k];
                system[d + i][k] = p[k];
                system[d + i][size] = 1.0;
            }
        }
        for k in 0..size {
            let pivot =
                (k..size).max_by(|&a, &b| system[a][k].abs().total_cmp(&system[b][k].abs()))?;
            system.swap(k, pivot);
            if system[k][k].abs() < 1e-13 {
                return None;
            }
            let row = system[k].clone();
            for other in (0..size).filter(|&i| i != k) {
                let times = system[other][k] / row[k];
                subtract(&mut system[other], times, &row);
            }
        }
        let w: Vec<f64> = (0..d).map(|k| system[k][size] / system[k][k]).collect();
        let norm = dot(&w, &w).sqrt();
        Some((w.iter().map(|v| v / norm).collect(), 1.0 / norm))
    }

    /// The best of all caps that have up to d of the points on their rim and hold the others.
    fn reference(points: &[f64], d: usize) -> f64 {
        let points: Vec<&[f64]> = points.chunks_exact(d).collect();
        let mut v = -1.0f64;
        for choice in choices(points.len(), d) {
            let rim: Vec<&[f64]> = choice.iter().map(|&i| points[i]).collect();
            let Some((u, h)) = plane(&rim) else { continue };
            if points.iter().all(|p| dot(&u, p) >= h - 1e-9) {
                v = v.max(h);
            }
            if rim.len() == d && points.iter().all(|p| dot(&u, p) <= h + 1e-9) {
                v = v.max(-h);
            }
        }
        v
    }

    #[test]
    fn agrees_with_all_caps_through_up_to_d_points() {
        // The reference takes 1e-9 for nothing.
        let mut stream = Stream::new(1, 0);
        for (d, most) in [(2, 9), (3, 9), (4, 10), (5, 11)] {
            let mut caps = Caps::new(1, d);
            let mut signs = [0; 2];
            for trial in 0..300 {
                let n = 1 + trial % most;
                let points = uniform(&mut stream, n, d);
                let (found, expected) = (caps.cosine(&points), reference(&points, d));
                assert!(
                    (found - expected).abs() < 1e-8,
                    "{n} {d}: {found} {expected}"
                );
                signs[usize::from(found > 0.0)] += 1;
            }
            assert!(signs.iter().all(|&count| count > 20), "{d}: {signs:?}");
        }
    }

    #[test]
    fn on_the_circle_it_is_the_largest_gap() {
        let mut stream = Stream::new(2, 0);
        for trial in 0..3000 {
            let mut angles: Vec<f64> = (0..1 + trial % 30)
                .map(|_| std::f64::consts::TAU * stream.next_f64())
                .collect();
            let points: Vec<f64> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
            angles.sort_unstable_by(f64::total_cmp);
            let outer = angles[0] + std::f64::consts::TAU - angles[angles.len() - 1];
            let gap = angles.windows(2).map(|a| a[1] - a[0]).fold(outer, f64::max);
            let found = cosine(&points, 2);
            assert!((found + (gap / 2.0).cos()).abs() < OFF, "{found} {gap}");
        }
    }

    #[test]
    fn no_direction_beats_it_and_the_order_does_not_matter() {
        let mut stream = Stream::new(3, 0);
        for (n, d) in [
            (3, 6),
            (40, 3),
            (200, 3),
            (12, 6),
            (20, 8),
            (16, 16),
            (18, 16),
        ] {
            for _ in 0..5 {
                let mut points = uniform(&mut stream, n, d);
                let v = cosine(&points, d);
                for u in uniform(&mut stream, 1000, d).chunks_exact(d) {
                    let least = points.chunks_exact(d).map(|p| dot(u, p));
                    assert!(least.fold(1.0, f64::min) <= v + OFF);
                }
                for i in (1..n).rev() {
                    let j = stream.next_u64() as usize % (i + 1);
                    (0..d).for_each(|k| points.swap(i * d + k, j * d + k));
                }
                let again = cosine(&points, d);
                assert!((again - v).abs() < OFF, "{n} {d}: {v} {again}");
            }
        }
    }

    #[test]
    fn caps_through_known_points() {
        let axes = |d: usize, signs: &[f64]| -> Vec<f64> {
            (0..d * signs.len() * d)
                .map(|i| {
                    if i % d == i / d % d {
                        signs[i / (d * d)]
                    } else {
                        0.0
                    }
                })
                .collect()
        };
        for d in 2..=6 {
            let root = 1.0 / (d as f64).sqrt();
            assert!((cosine(&axes(d, &[1.0]), d) - root).abs() < MOVED);
            // The cross-polytope, once and twice; the cube, whose facets have coplanar points; one point, twice.
            for signs in [&[1.0, -1.0][..], &[1.0, -1.0, -1.0, 1.0]] {
                assert!((cosine(&axes(d, signs), d) + root).abs() < MOVED, "{d}");
            }
            let corners: Vec<f64> = (0..d << d)
                .map(|i| {
                    if (i / d) >> (i % d) & 1 == 1 {
                        root
                    } else {
                        -root
                    }
                })
                .collect();
            assert!((cosine(&corners, d) + root).abs() < MOVED, "{d}");
            assert!((cosine(&corners[..d], d) - 1.0).abs() < MOVED);
            assert!((cosine(&corners[..d].repeat(2), d) - 1.0).abs() < MOVED);
            // Antipodal points fit in a half space, as points around an equator do.
            let pair = [&corners[..d], &corners[corners.len() - d..]].concat();
            assert!(cosine(&pair, d).abs() < MOVED, "{d}");
            let equator = axes(d, &[1.0, -1.0]);
            let equator: Vec<f64> = equator
                .chunks_exact(d)
                .filter(|p| p[d - 1] == 0.0)
                .flatten()
                .copied()
                .collect();
            assert!(cosine(&equator, d).abs() < MOVED, "{d}");
        }
    }

    #[test]
    fn points_of_a_coarse_grid_neither_panic_nor_loop() {
        // Few different coordinates: equal, antipodal, coplanar points and flat simplices in most of the sets.
        let mut stream = Stream::new(4, 0);
        for (d, most) in [(2, 9), (3, 10), (4, 11), (5, 11)] {
            for trial in 0..500 {
                let n = 1 + trial % most;
                let mut points: Vec<f64> = (0..n * d)
                    .map(|_| (stream.next_u64() % 3) as f64 - 1.0)
                    .collect();
                for point in points.chunks_exact_mut(d) {
                    point[0] += f64::from(u8::from(point.iter().all(|&v| v == 0.0)));
                }
                let points = normalized(points, d);
                // The reference wants general position, and v moves by at most what the points move by.
                let moved = points.iter().map(|v| v + 1e-3 * (stream.next_f64() - 0.5));
                let expected = reference(&normalized(moved.collect(), d), d);
                let found = cosine(&points, d);
                assert!(
                    (found - expected).abs() < 2e-3,
                    "{d} {found} {expected} {points:?}"
                );
            }
        }
    }

    #[test]
    fn coordinates_of_no_sphere_neither_panic_nor_loop() {
        let odd = [
            0.0,
            1.0,
            -1.0,
            1e-300,
            -1e-12,
            1e300,
            -1e300,
            f64::INFINITY,
            f64::NAN,
        ];
        let mut stream = Stream::new(7, 0);
        for d in 2..=5 {
            for kinds in 2..=odd.len() {
                for _ in 0..200 {
                    let mut points = uniform(&mut stream, 12, d);
                    for value in &mut points {
                        if stream.next_u64().is_multiple_of(4) {
                            *value = odd[stream.next_u64() as usize % kinds];
                        }
                    }
                    cosine(&points, d);
                }
            }
        }
    }

    #[test]
    fn points_are_admitted_while_a_cap_holds_them() {
        let mut stream = Stream::new(5, 0);
        for (n, d) in [(8, 2), (10, 3), (12, 5), (14, 7)] {
            let mut caps = Caps::new(n, d);
            for _ in 0..300 {
                let points = uniform(&mut stream, n, d);
                let least = stream.next_f64() * 0.7;
                let until = |caps: &mut Caps, least| {
                    caps.begin();
                    points
                        .chunks_exact(d)
                        .position(|p| !caps.admits(p, least))
                        .unwrap_or(n)
                };
                let (held, half) = (until(&mut caps, least), until(&mut caps, 0.0));
                assert!((1..=half).contains(&held));
                for (count, least) in [(held, least), (half, 0.0)] {
                    assert!(cosine(&points[..count * d], d) >= least);
                    assert!(count == n || cosine(&points[..(count + 1) * d], d) < least);
                }
            }
        }
    }

    /// How often `hit` is true of n uniform points, within 5 standard errors (false alarm 6e-7, and the seed is fixed).
    fn assert_probability(
        n: usize,
        d: usize,
        expected: f64,
        hit: impl Fn(&mut Caps, &[f64]) -> bool,
    ) {
        let mut stream = Stream::new(6, n as u64);
        let mut caps = Caps::new(n, d);
        let trials = 20_000;
        let hits = (0..trials)
            .filter(|_| hit(&mut caps, &uniform(&mut stream, n, d)))
            .count();
        let found = hits as f64 / f64::from(trials);
        let standard_error = (expected * (1.0 - expected) / f64::from(trials)).sqrt();
        assert!(
            (found - expected).abs() < 5.0 * standard_error,
            "{n} {d}: {found} {expected}"
        );
    }

    fn all_admitted(caps: &mut Caps, points: &[f64], least: f64) -> bool {
        caps.begin();
        points.chunks_exact(caps.d).all(|p| caps.admits(p, least))
    }

    #[test]
    fn half_spaces_have_wendels_probability() {
        for (n, d) in [(3, 2), (6, 2), (4, 3), (8, 3), (8, 4), (9, 5), (24, 12)] {
            let (mut binomial, mut sum) = (1.0, 0.0);
            for k in 0..d {
                sum += binomial;
                binomial *= (n - 1 - k) as f64 / (k + 1) as f64;
            }
            let expected = sum * 0.5f64.powi(n as i32 - 1);
            assert_probability(n, d, expected, |caps, points| {
                all_admitted(caps, points, 0.0)
            });
        }
    }

    #[test]
    fn caps_of_the_sphere_and_sectors_of_the_disk_have_their_closed_forms() {
        for (n, beta) in [(3, 1.0f64), (4, 1.3), (6, 1.5), (10, 1.57)] {
            let q = (1.0 - beta.cos()) / 2.0;
            let count = n as f64;
            let expected = count * count * q.powi(n as i32 - 1)
                - (count - 1.0) * (count + 2.0) * q.powi(n as i32);
            assert_probability(n, 3, expected, |caps, points| {
                let admitted = all_admitted(caps, points, beta.cos());
                assert_eq!(admitted, caps.cosine(points) >= beta.cos());
                admitted
            });
        }
        // Two thirds of a turn: Stevens 1939, the table in the tests of the gaps.
        for (n, expected) in [(4, 26.0 / 27.0), (6, 0.728_395_06)] {
            assert_probability(n, 2, expected, |caps, points| caps.cosine(points) >= -0.5);
        }
    }
}
