//! The kernels of `unitmass`, usable from Rust alone.
//!
//! [`maps`] turns scores into probability distributions, [`losses`] compares them with targets, [`smooth`] rounds corners
//! off, [`gillespie`] simulates reaction networks, [`sectors`] tells how random points lie on circles and spheres. The rest
//! is what every family stands on: [`error`], [`scalar`] (f32 and f64), [`simd`] (vector math of a fixed order),
//! [`parallel`] (the worker pool), [`rng`] (streams).

// Not compiled with the unit tests, of which they have none: their kernels would take minutes once more. Their tests are
// in `tests`.
#[cfg(not(test))]
mod batch;
#[cfg(not(test))]
mod kernels;
#[cfg(not(test))]
pub mod losses;
#[cfg(not(test))]
pub mod maps;
#[cfg(not(test))]
pub mod smooth;

pub mod error;
pub mod gillespie;
pub mod parallel;
pub mod rng;
pub mod scalar;
pub mod sectors;
pub mod simd;
