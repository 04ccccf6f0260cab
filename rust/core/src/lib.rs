//! The kernels of `unitmass`, usable from Rust alone.
//!
//! [`maps`] turns scores into probability distributions, [`losses`] compares them with targets, [`smooth`] rounds corners
//! off, [`gillespie`] simulates reaction networks, [`sectors`] tells how random points lie on circles and spheres. The rest
//! is what every family stands on: [`error`], [`scalar`] (f32 and f64), [`simd`] (vector math of a fixed order),
//! [`parallel`] (the worker pool), [`rng`] (streams).

mod batch;
pub mod error;
pub mod gillespie;
mod kernels;
pub mod losses;
pub mod maps;
pub mod parallel;
pub mod rng;
pub mod scalar;
pub mod sectors;
pub mod simd;
pub mod smooth;
