//! Scores to measure on: the distributions of `bench_maps.py`, from the house's own streams.

use unitmass_core::rng::Stream;

/// `count` values of normal(0, sigma), by Box and Muller.
pub fn normal(count: usize, sigma: f64) -> Vec<f32> {
    let mut stream = Stream::new(0, 0);
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - stream.next_f64()).ln()).sqrt();
            let angle = std::f64::consts::TAU * stream.next_f64();
            (sigma * radius * angle.cos()) as f32
        })
        .collect()
}
