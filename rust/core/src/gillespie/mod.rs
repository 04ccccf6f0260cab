//! Exact stochastic simulation of reaction networks (Gillespie 1976, 1977), by the batch.
//!
//! A state is a vector of counts. Each reaction has a propensity, its rate in that state; the time to the next event is
//! exponential in their sum, and the event is one reaction, drawn in proportion to them.

mod lockstep;
mod network;
mod program;

pub use lockstep::{Event, Job, Output, PerTrajectory, simulate};
pub use network::{Network, Propensity, Reaction};
pub use program::{Op, Program};
