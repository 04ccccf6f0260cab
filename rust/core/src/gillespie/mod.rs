//! Exact stochastic simulation of reaction networks (Gillespie 1976, 1977), by the batch.
//!
//! A state is a vector of counts. Each reaction has a propensity, its rate in that state; the time to the next event is
//! exponential in their sum, and the event is one reaction, drawn in proportion to them.
//!
//! Three engines draw from this one law; as a rule, a seed gives different trajectories in each.
//!
//! | engine | work per event | for |
//! |---|---|---|
//! | [`Method::Lockstep`] | every reaction, but up to 32 trajectories at a time | small networks |
//! | [`Method::Sparse`] | the reactions that see a count leave its interval | large networks |
//! | [`Method::NextReaction`] | the reactions that see a changed count, on a heap | time in rates; interventions |

mod ledger;
mod lockstep;
mod network;
mod next_reaction;
mod program;
mod solo;
mod sparse;

use std::sync::atomic::AtomicU64;

pub use ledger::Event;
pub use network::{Assignment, Intervention, Network, Propensity, Reaction};
pub use program::{Op, Program};

use crate::{error::Error, parallel::Run};
use ledger::Ledger;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The direct method, a trajectory in each SIMD lane.
    Lockstep,
    /// Rejection from bounds of the propensities.
    Sparse,
    /// A clock for each reaction.
    NextReaction,
}

/// What an event costs in [`Method::Lockstep`], in nanoseconds: without any reaction, and for a unit of
/// [`Network::work`]; and in [`Method::Sparse`]. `benches/bench_gillespie.py --engines` measures them.
const LOCKSTEP: (f64, f64) = (4.0, 0.25);
const SPARSE: f64 = 60.0;

impl Method {
    /// The engine that runs this network fastest, until a condition holds; it depends on nothing else, so that a seed
    /// means the same for any number of trajectories.
    pub fn fastest(network: &Network, until: Option<&Program>) -> Self {
        if network.needs_clocks() || until.is_some_and(Program::is_timed) {
            Method::NextReaction
        } else if LOCKSTEP.0 + LOCKSTEP.1 * network.work() <= SPARSE {
            Method::Lockstep
        } else {
            Method::Sparse
        }
    }
}

/// Values for all trajectories, or for each in turn.
#[derive(Debug, Clone, Copy)]
pub enum PerTrajectory<'a> {
    /// The same for all.
    All(&'a [f64]),
    /// As many for each, one trajectory after the other.
    Each(&'a [f64]),
}

impl<'a> PerTrajectory<'a> {
    fn of(self, index: usize, width: usize) -> &'a [f64] {
        match self {
            PerTrajectory::All(values) => values,
            PerTrajectory::Each(values) => &values[index * width..(index + 1) * width],
        }
    }

    fn check(self, argument: &'static str, n: usize, width: usize) -> Result<(), Error> {
        match self {
            PerTrajectory::All(values) => fits(argument, width, values.len()),
            PerTrajectory::Each(values) => fits(argument, width.saturating_mul(n), values.len()),
        }
    }
}

fn fits(argument: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Length {
        argument,
        expected,
        found,
    })
}

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The reactions.
    pub network: &'a Network,
    /// How.
    pub method: Method,
    /// Counts at time 0.
    pub start: PerTrajectory<'a>,
    /// The network's constants.
    pub constants: PerTrajectory<'a>,
    /// When to record, not before 0 and never falling.
    pub times: &'a [f64],
    /// The species to record.
    pub species: &'a [usize],
    /// With the index of a trajectory, its random numbers.
    pub seed: u64,
    /// The index of the first trajectory.
    pub first: u64,
    /// A trajectory with more events fails.
    pub max_events: u64,
    /// Where this is other than 0, a trajectory stays as it is.
    pub until: Option<&'a Program>,
    /// What is done so far, for those who wait.
    pub progress: &'a Progress,
}

/// What is done so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// Trajectories that have ended.
    pub trajectories: AtomicU64,
    /// Events, also of trajectories that go on.
    pub events: AtomicU64,
}

/// Where the results of n trajectories go.
#[derive(Debug)]
pub struct Output<'a> {
    /// Counts by trajectory, time and species. The state at a time includes the events at that very time.
    pub counts: &'a mut [i64],
    /// How many events there were up to the last time; interventions count.
    pub events: &'a mut [u64],
    /// The time at which [`Job::until`] came true; infinite where it did not. One for each trajectory, or none.
    pub stopped: &'a mut [f64],
    /// All events up to the last time. One for each trajectory, or none.
    pub log: &'a mut [Vec<Event>],
}

/// Simulates as many trajectories as `output.events` has room for.
///
/// # Errors
/// [`Error::Length`] and [`Error::Domain`] for shapes and indices that do not fit; [`Error::Unsupported`] for an engine
/// that cannot run the network; [`Error::Trajectory`] for what goes wrong in one (see [`crate::error::Reason`]);
/// [`Error::Interrupted`].
pub fn simulate(run: &mut Run<'_>, job: &Job<'_>, output: Output<'_>) -> Result<(), Error> {
    let n = output.events.len();
    let network = job.network;
    job.start.check("x0", n, network.species)?;
    job.constants.check("params", n, network.constants)?;
    if let Some(&index) = job.species.iter().find(|&&index| index >= network.species) {
        return Err(Error::Domain {
            argument: "species",
            domain: "the index of a species",
            value: index as f64,
        });
    }
    let in_order = job.times.is_sorted() && job.times.first().is_none_or(|&time| time >= 0.0);
    if !in_order || job.times.last().is_some_and(|time| time.is_infinite()) {
        return Err(Error::Domain {
            argument: "t",
            domain: "finite, not negative and never falling",
            value: job.times.iter().copied().fold(0.0, f64::min),
        });
    }
    let width = job.times.len().saturating_mul(job.species.len());
    fits("counts", n.saturating_mul(width), output.counts.len())?;
    fits(
        "stopped",
        if job.until.is_some() { n } else { 0 },
        output.stopped.len(),
    )?;
    fits(
        "log",
        if output.log.is_empty() { 0 } else { n },
        output.log.len(),
    )?;
    let mut timed = network.needs_clocks();
    if let Some(until) = job.until {
        network.check_condition("condition", until)?;
        timed |= until.is_timed();
    }
    if timed && job.method != Method::NextReaction {
        return Err(Error::Unsupported {
            argument: "method",
            reason: "only 'next_reaction' runs what depends on time, and timed and state events",
        });
    }
    output.events.fill(0);
    output.stopped.fill(f64::INFINITY);
    if job.times.is_empty() {
        return Ok(());
    }
    let ledger = Ledger::new(job, output);
    match job.method {
        Method::Lockstep => lockstep::simulate(run, &ledger),
        Method::Sparse => {
            let plan = sparse::Plan::new(network);
            solo::simulate(run, &ledger, || sparse::Sparse::new(&plan))
        }
        Method::NextReaction => {
            let plan = next_reaction::Plan::new(network, job.until)?;
            solo::simulate(run, &ledger, || next_reaction::NextReaction::new(&plan))
        }
    }?;
    ledger.result()
}
