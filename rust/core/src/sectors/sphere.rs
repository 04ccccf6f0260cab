//! Uniform directions in R^d: d normal numbers, divided by their length.
//!
//! Normal numbers come in pairs by Marsaglia's polar method (1964), with the logarithm of the crate `libm`: the same bits
//! everywhere.

use fearless_simd::Simd;

use crate::rng::{LANES, Lanes};

/// Directions, one after the other, from the streams of a block.
pub(super) struct Directions<'a, S: Simd> {
    lanes: &'a mut Lanes<S>,
    bits: [u64; LANES],
    used: usize,
    spare: Option<f64>,
}

impl<'a, S: Simd> Directions<'a, S> {
    #[inline(always)]
    pub(super) fn new(lanes: &'a mut Lanes<S>) -> Self {
        Self {
            lanes,
            bits: [0; LANES],
            used: LANES,
            spare: None,
        }
    }

    #[inline(always)]
    pub(super) fn next(&mut self, point: &mut [f64]) {
        let mut squares = 0.0;
        for coordinate in point.iter_mut() {
            *coordinate = self.normal();
            squares += *coordinate * *coordinate;
        }
        let length = squares.sqrt();
        point
            .iter_mut()
            .for_each(|coordinate| *coordinate /= length);
    }

    #[inline(always)]
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (self.symmetric(), self.symmetric());
            let square = x * x + y * y;
            if 0.0 < square && square < 1.0 {
                let factor = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(y * factor);
                return x * factor;
            }
        }
    }

    /// Uniform on [-1, 1).
    #[inline(always)]
    fn symmetric(&mut self) -> f64 {
        if self.used == self.bits.len() {
            self.bits = self.lanes.next_u64().into();
            self.used = 0;
        }
        let bits = self.bits[self.used];
        self.used += 1;
        (bits as i64 >> 11) as f64 * 2f64.powi(-52)
    }
}
