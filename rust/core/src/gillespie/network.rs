//! A reaction network, checked.

use fearless_simd::Simd;

use super::program::{Op, Program};
use crate::error::Error;

/// The rate at which a reaction happens in a state.
#[derive(Debug, Clone, PartialEq)]
pub enum Propensity {
    /// `c x (x - 1) … (x - k + 1) …`: the index of the constant c, and the species x with how many of it take part, k.
    MassAction {
        /// Index of the constant.
        constant: usize,
        /// Species and multiplicities, each species once.
        reactants: Vec<(usize, usize)>,
    },
    /// Any expression.
    Program(Program),
}

impl Propensity {
    /// What it is in one state.
    #[inline(always)]
    pub(super) fn value<S: Simd>(
        &self,
        simd: S,
        constants: &[f64],
        counts: &[f64],
        time: f64,
        stack: &mut Vec<[f64; 8]>,
    ) -> f64 {
        match self {
            Propensity::MassAction {
                constant,
                reactants,
            } => {
                let mut a = constants[*constant];
                for &(species, times) in reactants {
                    for taken in 0..times {
                        a *= counts[species] - taken as f64;
                    }
                }
                a
            }
            Propensity::Program(program) => program.value(simd, constants, counts, time, stack),
        }
    }

    /// The species that it sees, each once.
    pub(super) fn species(&self) -> Vec<usize> {
        let mut species: Vec<usize> = match self {
            Propensity::MassAction { reactants, .. } => reactants.iter().map(|r| r.0).collect(),
            Propensity::Program(program) => program.species().collect(),
        };
        species.sort_unstable();
        species.dedup();
        species
    }
}

/// A reaction: how often it happens, and what it changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaction {
    /// Its rate.
    pub propensity: Propensity,
    /// Species and what is added to their counts.
    pub changes: Vec<(usize, i32)>,
}

/// A change that comes when a condition comes true: at a time, or in a state (an event of SBML).
#[derive(Debug, Clone, PartialEq)]
pub struct Intervention {
    /// It is triggered when this goes from 0 to another value.
    pub trigger: Program,
    /// What the trigger was before time 0.
    pub was: bool,
    /// Whether it is carried out although others, at the same time, have made the trigger false again.
    pub persistent: bool,
    /// Whether values are those when it was triggered, and not when it is carried out.
    pub values_when_triggered: bool,
    /// Of those that are triggered at the same time, the highest comes first, then those without one; equals in random
    /// order.
    pub priority: Option<Program>,
    /// What it sets.
    pub assignments: Vec<Assignment>,
}

/// A species gets a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Which.
    pub species: usize,
    /// The value.
    pub value: Program,
}

/// Species, constants, reactions and interventions, whose indices fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(super) species: usize,
    /// The last of the species, which are any numbers.
    pub(super) variables: usize,
    pub(super) constants: usize,
    pub(super) reactions: Vec<Reaction>,
    pub(super) interventions: Vec<Intervention>,
}

impl Network {
    /// A network of so many species, of which the last, `variables`, may have any value: only interventions change them.
    ///
    /// # Errors
    /// [`Error::Domain`] if a species or constant does not exist, [`Error::Unsupported`] if time is compared with what
    /// depends on time.
    pub fn new(
        species: usize,
        variables: usize,
        constants: usize,
        reactions: Vec<Reaction>,
        interventions: Vec<Intervention>,
    ) -> Result<Self, Error> {
        let network = Self {
            species,
            variables,
            constants,
            reactions,
            interventions,
        };
        for reaction in &network.reactions {
            match &reaction.propensity {
                Propensity::MassAction {
                    constant,
                    reactants,
                } => {
                    known("constant", *constant, constants)?;
                    for (place, &(index, _)) in reactants.iter().enumerate() {
                        known("reactants", index, species)?;
                        if reactants[..place]
                            .iter()
                            .any(|reactant| reactant.0 == index)
                        {
                            return Err(Error::Domain {
                                argument: "reactants",
                                domain: "named once each",
                                value: index as f64,
                            });
                        }
                    }
                }
                Propensity::Program(program) => {
                    network.check("propensity", program)?;
                    program.switches()?;
                }
            }
            for &(index, _) in &reaction.changes {
                known("changes", index, species.saturating_sub(variables))?;
            }
        }
        for intervention in &network.interventions {
            network.check_condition("trigger", &intervention.trigger)?;
            if let Some(priority) = &intervention.priority {
                network.check("priority", priority)?;
            }
            for assignment in &intervention.assignments {
                known("assignments", assignment.species, species)?;
                network.check("assignments", &assignment.value)?;
            }
        }
        for (argument, count) in [
            ("species", species),
            ("reactions", network.reactions.len()),
            ("constants", constants),
        ] {
            if count >= u32::MAX as usize - 1 {
                return Err(Error::Domain {
                    argument,
                    domain: "fewer than 2³² - 2",
                    value: count as f64,
                });
            }
        }
        if variables > species {
            return Err(Error::Domain {
                argument: "variables",
                domain: "among the species",
                value: variables as f64,
            });
        }
        Ok(network)
    }

    /// Whether the program knows only species and constants of this network.
    fn check(&self, argument: &'static str, program: &Program) -> Result<(), Error> {
        for op in program.ops() {
            match *op {
                Op::Constant(index) => known(argument, index, self.constants)?,
                Op::Species(index) => known(argument, index, self.species)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The same, for what comes true at a time that must be known beforehand.
    pub(super) fn check_condition(
        &self,
        argument: &'static str,
        program: &Program,
    ) -> Result<(), Error> {
        self.check(argument, program)?;
        if program.is_timed_by_switches_alone() {
            return Ok(());
        }
        Err(Error::Unsupported {
            argument,
            reason: "time can only be compared, and only with what does not depend on time",
        })
    }

    /// How many species there are.
    pub fn species(&self) -> usize {
        self.species
    }

    /// How many constants a trajectory has.
    pub fn constants(&self) -> usize {
        self.constants
    }

    /// Whether only [`super::Method::NextReaction`] runs it.
    pub fn needs_clocks(&self) -> bool {
        !self.interventions.is_empty()
            || self.reactions.iter().any(|reaction| {
                matches!(&reaction.propensity, Propensity::Program(program) if program.is_timed())
            })
    }

    /// What evaluating every propensity and every change costs, in units of a reaction of mass action.
    pub(super) fn work(&self) -> f64 {
        let reaction = |reaction: &Reaction| match &reaction.propensity {
            Propensity::MassAction { reactants, .. } => 1.0 + 0.25 * reactants.len() as f64,
            Propensity::Program(program) => program.ops().len() as f64,
        };
        let changes = |reaction: &Reaction| 0.5 * reaction.changes.len() as f64;
        self.reactions
            .iter()
            .map(|r| reaction(r) + changes(r))
            .sum()
    }
}

fn known(argument: &'static str, index: usize, count: usize) -> Result<(), Error> {
    if index < count {
        return Ok(());
    }
    Err(Error::Domain {
        argument,
        domain: "the index of a species or constant of the network",
        value: index as f64,
    })
}
