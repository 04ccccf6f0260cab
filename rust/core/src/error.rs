//! What can be wrong with a call, named so that its owner can mend it.

/// A call that was refused or stopped. A refused call has written nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The axis to work along has no values.
    #[error("{argument}: the axis is empty")]
    Empty {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
    },
    /// The number of values does not fit.
    #[error("{argument}: expected {expected} values, found {found}")]
    Length {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
        /// What would have fitted.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A parameter lies outside its domain.
    #[error("{argument}: must be {domain}, found {}", Shown(*.value))]
    Domain {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
        /// The values that are allowed.
        domain: &'static str,
        /// What came.
        value: f64,
    },
    /// An integer lies outside its domain.
    #[error("{argument}: must be {domain}, found {value}")]
    Integer {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
        /// The values that are allowed.
        domain: &'static str,
        /// What came.
        value: i64,
    },
    /// Something that cannot be done in this way.
    #[error("{argument}: {reason}")]
    Unsupported {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A simulation that cannot go on.
    #[error("{0}")]
    Trajectory(Box<Failure>),
    /// The watch asked to stop; what was written so far is unspecified.
    #[error("interrupted")]
    Interrupted,
}

/// Where a simulation stopped, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The index of the trajectory.
    pub trajectory: u64,
    /// The time in it.
    pub time: f64,
    /// The counts of all species then.
    pub state: Vec<f64>,
    /// What is wrong there.
    pub reason: Reason,
}

/// Why a simulation cannot go on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// A propensity is below 0, or not a number, or the sum up to it is infinite.
    Propensity {
        /// The index of the reaction.
        reaction: usize,
        /// Its propensity, or the sum.
        value: f64,
    },
    /// A count fell below 0.
    Negative {
        /// The index of the species.
        species: usize,
    },
    /// An intervention sets a count to what is no whole number.
    Fraction {
        /// The index of the species.
        species: usize,
        /// The value.
        value: f64,
    },
    /// Interventions trigger one another without end.
    Endless,
    /// There are more events than were allowed.
    Events,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            trajectory,
            time,
            state,
            reason,
        } = self;
        match reason {
            Reason::Propensity { reaction, value } => {
                write!(
                    f,
                    "reaction {reaction}: the propensity is {}",
                    Shown(*value)
                )?;
            }
            Reason::Negative { species } => write!(f, "species {species}: the count is below 0")?,
            Reason::Fraction { species, value } => {
                write!(
                    f,
                    "species {species}: the count is set to {}",
                    Shown(*value)
                )?;
            }
            Reason::Endless => f.write_str("interventions trigger one another without end")?,
            Reason::Events => write!(f, "max_events: there are more")?,
        }
        write!(
            f,
            ", in trajectory {trajectory} at time {time} in state {state:?}"
        )
    }
}

/// A number as Python shows it.
struct Shown(f64);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_nan() {
            f.write_str("nan")
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}
