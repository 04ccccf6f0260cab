//! Random points on circles and spheres: do they lie in a common sector, and what else their gaps tell.
//!
//! n points of a disk lie in a sector of angle θ just if the largest gap between their angles is at least 2π - θ; and n arcs of
//! that length, beginning at the points, fail to cover the circle.
//!
//! | for | exactly | by trials |
//! |---|---|---|
//! | points on a circle | `laws.rs`, the gaps of uniform ones; `closed.rs`, half circles | `circle.rs`, over `network.rs` |
//! | other laws of angles | `density.rs`, sectors up to half a turn | `circle.rs`, by draws of `density.rs` |
//! | points on spheres | `closed.rs`, half spaces and caps | `caps.rs`, at directions of `sphere.rs` |
//! | arcs of several lengths | | `arcs.rs` |
//!
//! `trials.rs` cuts trials into blocks, hands them to workers and ends them; `interval.rs` has the quantiles that intervals of
//! confidence ask for.

mod arcs;
mod caps;
mod circle;
mod closed;
mod density;
mod interval;
mod laws;
mod network;
mod sphere;
mod trials;

pub use closed::{cap, gap_counts, half_circle, half_space};
pub use density::{CELLS, Density, Leaders};
pub use interval::beta_quantile;
pub use laws::{Law, Quantity, evaluate, mean, mean_of_largest, variance};
pub use trials::{
    Experiment, Plan, Progress, Stopped, Tally, count, sample, trials_in_block, turns,
};
