//! A reaction network, checked.

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

/// A reaction: how often it happens, and what it changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaction {
    /// Its rate.
    pub propensity: Propensity,
    /// Species and what is added to their counts.
    pub changes: Vec<(usize, i32)>,
}

/// Species, constants and reactions, whose indices fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(super) species: usize,
    pub(super) constants: usize,
    pub(super) reactions: Vec<Reaction>,
}

impl Network {
    /// # Errors
    /// [`Error::Domain`] if a species or constant does not exist.
    pub fn new(species: usize, constants: usize, reactions: Vec<Reaction>) -> Result<Self, Error> {
        let network = Self {
            species,
            constants,
            reactions,
        };
        for reaction in &network.reactions {
            match &reaction.propensity {
                Propensity::MassAction {
                    constant,
                    reactants,
                } => {
                    known("constant", *constant, constants)?;
                    for &(index, _) in reactants {
                        known("reactants", index, species)?;
                    }
                }
                Propensity::Program(program) => network.check(program)?,
            }
            for &(index, _) in &reaction.changes {
                known("changes", index, species)?;
            }
        }
        Ok(network)
    }

    /// Whether the program knows only species and constants of this network.
    pub(super) fn check(&self, program: &Program) -> Result<(), Error> {
        for op in program.ops() {
            match *op {
                Op::Constant(index) => known("propensity", index, self.constants)?,
                Op::Species(index) => known("propensity", index, self.species)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// How many species there are.
    pub fn species(&self) -> usize {
        self.species
    }

    /// How many constants a trajectory has.
    pub fn constants(&self) -> usize {
        self.constants
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
