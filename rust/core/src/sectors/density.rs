//! A law of angles on the circle: how it is drawn from, and the probability of a common sector under it.
//!
//! * **Form.** A histogram of 2¹⁶ cells of equal width, with a mass for each. Within a cell the density is constant, so what
//!   is narrower than 10⁻⁴ radians is smoothed, and F is off by at most f' h²/8, h the width of a cell.
//! * **Draws.** By inversion, exactly in law up to the resolution of the uniform number: a guide table finds the cell, a
//!   division the place in it.
//! * **Common sector**, for θ of any size the expected number of points that have all others within θ clockwise, which is
//!   the probability for θ <= π:
//!   ```text
//!   n ∫ f(a) G(a)ⁿ⁻¹ da,  G(a) = F(a + θ) - F(a)
//!   ```
//!   F is linear in pieces, so each piece between the ends of cells, and of cells turned by θ, is closed: with G from g₀ to
//!   g₁ over a length s, it is f s (g₁ⁿ - g₀ⁿ) / (g₁ - g₀), a sum of positive terms.
//! * **Determinism.** Additions, multiplications, divisions and the functions of the crate `libm`: the same bits everywhere.

use super::trials::check;
use crate::error::Error;

const BITS: u32 = 16;
/// How many cells a density has.
pub const CELLS: usize = 1 << BITS;
/// 2⁻⁶⁴ turns in a cell.
const WIDTH: u64 = 1 << (64 - BITS);

/// A density on the circle.
pub struct Density {
    /// F at the start of each cell and at the end of the last, in 2⁻⁶⁴; the last is 2⁶⁴ - 1.
    cumulated: Vec<u64>,
    /// The last cell that starts at or before each multiple of 2⁻¹⁶ of the mass.
    guide: Vec<u32>,
}

impl Density {
    /// From the masses of [`CELLS`] cells, the first starting at angle 0; they need not sum to 1.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Domain`], of `density`, if there are not as many, or one is negative, infinite or NaN,
    /// or all are 0.
    pub fn new(masses: &[f64]) -> Result<Self, Error> {
        if masses.len() != CELLS {
            return Err(Error::Length {
                argument: "density",
                expected: CELLS,
                found: masses.len(),
            });
        }
        let domain = |domain, value| {
            Err(Error::Domain {
                argument: "density",
                domain,
                value,
            })
        };
        if let Some(&mass) = masses
            .iter()
            .find(|mass| !(0.0..f64::INFINITY).contains(*mass))
        {
            return domain("finite and not negative", mass);
        }
        let largest = masses.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 {
            return domain("above 0 somewhere", 0.0);
        }
        // In integers, whose sums are exact.
        let weights = masses
            .iter()
            .map(|mass| (mass / largest * 2f64.powi(47)) as u64);
        let total: u64 = weights.clone().sum();
        let (mut sum, mut cumulated) = (0, vec![0]);
        for weight in weights {
            sum += weight;
            let share = (u128::from(sum) << 64) / u128::from(total);
            cumulated.push(share.min(u128::from(u64::MAX)) as u64);
        }
        let mut cell = 0;
        let guide = (0..CELLS as u64).map(|step| {
            while cumulated[cell + 1] <= step * WIDTH {
                cell += 1;
            }
            cell as u32
        });
        let guide = guide.collect();
        Ok(Self { cumulated, guide })
    }

    /// Von Mises's law about angle 0: proportional to e^(κ cos a).
    ///
    /// # Errors
    /// [`Error::Domain`] if `kappa` is not from 0 to 10⁴.
    pub fn von_mises(kappa: f64) -> Result<Self, Error> {
        check(
            "kappa",
            "from 0 to 1e4",
            kappa,
            (0.0..=1e4).contains(&kappa),
        )?;
        // cos a - 1 as -2 sin²(a/2), which keeps its digits near 0.
        Self::smooth(|a| libm::exp(-2.0 * kappa * libm::sin(a / 2.0).powi(2)))
    }

    /// The normal law of standard deviation `sigma` radians about angle 0, wrapped around the circle.
    ///
    /// # Errors
    /// [`Error::Domain`] if `sigma` is not from 10⁻² to 10³.
    pub fn wrapped_normal(sigma: f64) -> Result<Self, Error> {
        check(
            "sigma",
            "from 0.01 to 1e3",
            sigma,
            (1e-2..=1e3).contains(&sigma),
        )?;
        if sigma > 2.0 {
            // 1 + 2 Σ e^(-j²σ²/2) cos ja, of which five terms are left.
            let term = |a: f64, j: f64| libm::exp(-j * j * sigma * sigma / 2.0) * libm::cos(j * a);
            return Self::smooth(|a| {
                1.0 + 2.0 * (1..=5).map(|j| term(a, f64::from(j))).sum::<f64>()
            });
        }
        let turn = 2.0 * std::f64::consts::PI;
        let normal = |a: f64| libm::exp(-(a / sigma).powi(2) / 2.0);
        Self::smooth(|a| (-3..=2).map(|j| normal(a + f64::from(j) * turn)).sum())
    }

    /// The masses of a smooth density, by Gauss's rule of three points in each cell.
    fn smooth(f: impl Fn(f64) -> f64) -> Result<Self, Error> {
        let cell = 2.0 * std::f64::consts::PI / CELLS as f64;
        let node = 0.6f64.sqrt();
        let mass = |i| {
            let at = |u: f64| f((i as f64 + (u + 1.0) / 2.0) * cell);
            5.0 * (at(-node) + at(node)) + 8.0 * at(0.0)
        };
        let masses: Vec<f64> = (0..CELLS).map(mass).collect();
        Self::new(&masses)
    }

    /// The angle below which a share `share` of the mass lies, both in 2⁻⁶⁴.
    #[inline]
    pub(super) fn angle(&self, share: u64) -> u64 {
        // The last number belongs to the last cell with a mass, not to those after it.
        let share = share.min(u64::MAX - 1);
        let mut cell = self.guide[(share / WIDTH) as usize] as usize;
        while cell + 1 < CELLS && self.cumulated[cell + 1] <= share {
            cell += 1;
        }
        let (start, end) = (self.cumulated[cell], self.cumulated[cell + 1]);
        let part = (share - start) as f64 / (end - start) as f64;
        cell as u64 * WIDTH + ((part * WIDTH as f64) as u64).min(WIDTH - 1)
    }

    /// The largest density, that of uniform angles being 1.
    pub fn peak(&self) -> f64 {
        let masses = self.cumulated.windows(2).map(|pair| pair[1] - pair[0]);
        fraction(masses.max().unwrap_or(0)) * CELLS as f64
    }

    /// The share of the mass below an angle, both in 2⁻⁶⁴.
    pub(super) fn share(&self, angle: u64) -> u64 {
        let cell = (angle / WIDTH) as usize;
        let (start, end) = (self.cumulated[cell], self.cumulated[cell + 1]);
        let mass = u128::from(end - start) * u128::from(angle % WIDTH);
        start + (mass / u128::from(WIDTH)) as u64
    }
}

/// The points that have all others within θ clockwise: how many are expected among n, and where.
///
/// For θ up to half a turn there is at most one, so that the number expected is the probability of a common sector.
pub struct Leaders<'a> {
    density: &'a Density,
    n: usize,
    theta: u64,
    /// Parts of the circle with a constant density and a linear G: the start and the length of each.
    parts: Vec<(u64, u64)>,
    /// What is expected in the parts up to each, and in it.
    cumulated: Vec<f64>,
}

impl<'a> Leaders<'a> {
    /// For n points and θ, in 2⁻⁶⁴ turns.
    pub fn new(density: &'a Density, n: usize, theta: u64) -> Self {
        // The ends of cells, turned back by θ, fall this far into cells.
        let cut = WIDTH - theta % WIDTH;
        let mut leaders = Self {
            density,
            n,
            theta,
            parts: Vec::with_capacity(2 * CELLS),
            cumulated: Vec::with_capacity(2 * CELLS),
        };
        let (mut sum, mut lost) = (0.0, 0.0);
        for cell in 0..CELLS {
            let mass = density.cumulated[cell + 1] - density.cumulated[cell];
            let f = fraction(mass) / WIDTH as f64;
            for (offset, length) in [(0, cut), (cut, WIDTH - cut)] {
                if mass > 0 && length > 0 {
                    let part = (cell as u64 * WIDTH + offset, length);
                    let expected = n as f64 * f * length as f64 * leaders.slope(part).mean_power();
                    // Kahan's sum: there are many parts.
                    let added = expected - lost;
                    let next = sum + added;
                    (sum, lost) = (next, (next - sum) - added);
                    leaders.parts.push(part);
                    leaders.cumulated.push(sum);
                }
            }
        }
        leaders
    }

    /// How many are expected.
    pub fn expected(&self) -> f64 {
        self.cumulated[self.cumulated.len() - 1]
    }

    /// Turns uniform numbers in 2⁻⁶⁴ into points: a first one, and others within θ clockwise, told by how far.
    pub(super) fn place(&self, points: &mut [u64]) {
        let first = self.first(points[0]);
        let (start, within) = (self.density.share(first), self.within(first));
        points[0] = 0;
        for point in &mut points[1..] {
            let share = (u128::from(*point) * u128::from(within)) >> 64;
            let angle = self.density.angle(start.wrapping_add(share as u64));
            // Rounding may have left a point just before the first, or just beyond θ.
            let after = angle.wrapping_sub(first);
            *point = if after <= self.theta {
                after
            } else if after - self.theta < after.wrapping_neg() {
                self.theta
            } else {
                0
            };
        }
    }

    /// The angle below which a share of the expectation lies.
    fn first(&self, share: u64) -> u64 {
        let target = fraction(share) * self.expected();
        let index = self.cumulated.partition_point(|&sum| sum <= target);
        let index = index.min(self.parts.len() - 1);
        let before = if index == 0 {
            0.0
        } else {
            self.cumulated[index - 1]
        };
        let part = (target - before) / (self.cumulated[index] - before);
        let (start, length) = self.parts[index];
        let offset = (self.slope(self.parts[index]).quantile(part) * length as f64) as u64;
        start + offset.min(length - 1)
    }

    /// G, in 2⁻⁶⁴.
    fn within(&self, angle: u64) -> u64 {
        let (end, around) = angle.overflowing_add(self.theta);
        let (start, end) = (self.density.share(angle), self.density.share(end));
        if around {
            // All of the mass where both ends lie in one gap of it.
            end + (u64::MAX - start)
        } else {
            end - start
        }
    }

    fn slope(&self, (start, length): (u64, u64)) -> Slope {
        let [from, to] = [start, start.wrapping_add(length)].map(|a| fraction(self.within(a)));
        Slope {
            n: self.n as f64,
            falls: from > to,
            top: from.max(to),
            drop: if from == to {
                0.0
            } else {
                (from - to).abs() / from.max(to)
            },
        }
    }
}

fn fraction(bits: u64) -> f64 {
    bits as f64 * 2f64.powi(-64)
}

/// G over a part: linear, from its top down by a share `drop` of it, or up to it.
struct Slope {
    n: f64,
    falls: bool,
    top: f64,
    drop: f64,
}

impl Slope {
    /// 1 - (1 - drop)ⁿ
    fn fall(&self) -> f64 {
        -libm::expm1(self.n * libm::log1p(-self.drop))
    }

    /// The mean of Gⁿ⁻¹.
    fn mean_power(&self) -> f64 {
        let Self { n, drop, .. } = *self;
        let shape = if n * drop > 1e-3 {
            self.fall() / (n * drop)
        } else {
            // Its series, where that is exact: nearly everywhere, for the parts are short.
            let ratio = |j: f64| (n - j) * drop / (j + 1.0);
            1.0 - ratio(1.0) * (1.0 - ratio(2.0) * (1.0 - ratio(3.0) * (1.0 - ratio(4.0))))
        };
        power(self.top, (self.n as u64).saturating_sub(1)) * shape
    }

    /// Where the integral of Gⁿ⁻¹ has a share `share` of its value; both from 0 to 1.
    fn quantile(&self, share: f64) -> f64 {
        if self.drop == 0.0 {
            return share;
        }
        let below_top = if self.falls { share } else { 1.0 - share };
        let down = -libm::expm1(libm::log1p(-below_top * self.fall()) / self.n);
        let from_top = (down / self.drop).min(1.0);
        if self.falls { from_top } else { 1.0 - from_top }
    }
}

/// By squaring: a few times faster than the function for all exponents.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut power = 1.0;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power *= base;
        }
        base *= base;
        exponent /= 2;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn turns(theta: f64) -> u64 {
        (theta * 2f64.powi(64)) as u64
    }

    #[test]
    fn a_uniform_density_has_the_closed_form() {
        let uniform = Density::new(&vec![0.3; CELLS]).unwrap();
        for n in [2, 4, 17, 300] {
            for theta in [0.5, 0.31, 0.1234] {
                let expected = n as f64 * f64::powi(theta, n - 1);
                let found = Leaders::new(&uniform, n as usize, turns(theta)).expected();
                assert!(
                    (found / expected - 1.0).abs() < 1e-12,
                    "{n} {theta} {found}"
                );
            }
        }
    }

    #[test]
    fn von_mises_has_the_value_of_adaptive_quadrature() {
        // κ = 1, n = 4, θ = π, by mpmath with 30 digits. Constant densities in cells are off by some 1e-10.
        let density = Density::von_mises(1.0).unwrap();
        let found = Leaders::new(&density, 4, 1 << 63).expected();
        assert!((found - VON_MISES).abs() < 1e-9, "{found}");
    }

    const VON_MISES: f64 = 0.717_006_312_324_977;

    #[test]
    fn a_wide_normal_is_nearly_uniform_and_both_series_agree() {
        let (narrow, wide) = (
            Density::wrapped_normal(2.0).unwrap(),
            Density::wrapped_normal(2.0 + 1e-12).unwrap(),
        );
        for cell in (0..CELLS).step_by(997) {
            let off = narrow.cumulated[cell].abs_diff(wide.cumulated[cell]);
            assert!(fraction(off) < 1e-11);
        }
        let flat = Density::wrapped_normal(1e3).unwrap();
        assert!(fraction(flat.cumulated[CELLS / 3].abs_diff(CELLS as u64 / 3 * WIDTH)) < 1e-12);
    }

    #[test]
    fn shares_and_angles_are_inverse_and_empty_cells_are_never_drawn() {
        let mut masses = vec![0.0; CELLS];
        masses[10] = 1.0;
        masses[11] = 3.0;
        masses[60_000] = 4.0;
        let density = Density::new(&masses).unwrap();
        let mut stream = Stream::new(1, 1);
        for _ in 0..10_000 {
            let share = stream.next_u64();
            let angle = density.angle(share);
            assert!(masses[(angle / WIDTH) as usize] > 0.0);
            // Half of the mass lies in a cell of 2⁴⁸ angles.
            assert!(density.share(angle).abs_diff(share) <= 1 << 16);
        }
        assert_eq!(density.angle(0) / WIDTH, 10);
        assert_eq!(density.angle(u64::MAX) / WIDTH, 60_000);
    }

    #[test]
    fn leaders_are_drawn_from_their_density() {
        // Kolmogorov and Smirnov's distance of 40,000 draws from the expectation up to each part: below 0.01 but for 1e-3.
        let density = Density::von_mises(2.0).unwrap();
        let leaders = Leaders::new(&density, 5, turns(0.7));
        let mut stream = Stream::new(3, 0);
        let mut drawn: Vec<u64> = (0..40_000)
            .map(|_| leaders.first(stream.next_u64()))
            .collect();
        drawn.sort_unstable();
        let mut at = 0;
        for (part, sum) in leaders.parts.iter().zip(&leaders.cumulated) {
            let end = part.0 + (part.1 - 1);
            while at < drawn.len() && drawn[at] <= end {
                at += 1;
            }
            assert!((at as f64 / 40_000.0 - sum / leaders.expected()).abs() < 0.01);
        }
    }

    #[test]
    fn all_mass_is_within_a_sector_that_leaves_only_a_gap_of_it() {
        let mut masses = vec![0.0; CELLS];
        for support in [41_000..52_000, 60_000..65_000, 0..10] {
            masses.fill(0.0);
            masses[support].fill(1.0);
            let density = Density::new(&masses).unwrap();
            for (n, theta) in [(2, 1 << 63), (4, 1 << 63), (1000, 1 << 63), (4, u64::MAX)] {
                // Around the whole circle, each of the points could lead.
                let leaders = if theta == u64::MAX { 4.0 } else { 1.0 };
                let found = Leaders::new(&density, n, theta).expected();
                assert!((found - leaders).abs() < 1e-9, "{n} {theta} {found}");
            }
        }
    }

    #[test]
    fn what_is_no_density_is_refused() {
        assert!(Density::new(&[1.0; 5]).is_err());
        assert!(Density::new(&vec![0.0; CELLS]).is_err());
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            let mut masses = vec![1.0; CELLS];
            masses[7] = wrong;
            assert!(Density::new(&masses).is_err());
            assert!(Density::von_mises(wrong).is_err() && Density::wrapped_normal(wrong).is_err());
        }
    }
}
