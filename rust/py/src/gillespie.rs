//! The door to the simulation of reaction networks.

use numpy::{
    IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArrayDyn, PyReadwriteArray1,
    PyReadwriteArray3, PyUntypedArrayMethods,
};
use pyo3::{exceptions::PyValueError, prelude::*};
use unitmass_core::{
    error::{Error, Reason},
    gillespie::{self, Event, Job, Op, Output, PerTrajectory, Program, Propensity, Reaction},
};

use crate::{error::Refused, run::detached};

/// A constant with its reactants, or the instructions of a program.
#[derive(FromPyObject)]
enum Form {
    MassAction(usize, Vec<(usize, usize)>),
    Program(Vec<(String, f64)>),
}

/// What went wrong: the kind, the index of a reaction or species, the value; the trajectory, the time and the state.
type Failed = (&'static str, usize, f64, u64, f64, Vec<f64>);

/// Times and reactions.
type Log<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>);

/// A reaction network that was checked and compiled.
#[pyclass(frozen, module = "unitmass._core")]
pub(crate) struct Network(gillespie::Network);

#[pymethods]
impl Network {
    #[new]
    fn new(
        species: usize,
        constants: usize,
        reactions: Vec<(Form, Vec<(usize, i32)>)>,
    ) -> PyResult<Self> {
        let reactions = reactions.into_iter().map(|(form, changes)| {
            let propensity = match form {
                Form::MassAction(constant, reactants) => Propensity::MassAction {
                    constant,
                    reactants,
                },
                Form::Program(ops) => Propensity::Program(program(&ops)?),
            };
            Ok(Reaction {
                propensity,
                changes,
            })
        });
        let reactions = reactions.collect::<PyResult<_>>()?;
        Ok(Self(
            gillespie::Network::new(species, constants, reactions).map_err(Refused)?,
        ))
    }

    /// Fills `counts`, `events` and, if there is `until`, `stopped`; with `log`, returns every event.
    #[expect(clippy::too_many_arguments, reason = "they are Python's")]
    fn simulate<'py>(
        &self,
        py: Python<'py>,
        start: PyReadonlyArrayDyn<'_, f64>,
        constants: PyReadonlyArrayDyn<'_, f64>,
        times: PyReadonlyArray1<'_, f64>,
        species: Vec<usize>,
        seed: u64,
        first: u64,
        max_events: Option<u64>,
        until: Option<Vec<(String, f64)>>,
        mut counts: PyReadwriteArray3<'_, i64>,
        mut events: PyReadwriteArray1<'_, u64>,
        mut stopped: PyReadwriteArray1<'_, f64>,
        log: bool,
        workers: usize,
    ) -> PyResult<(Option<Failed>, Option<Log<'py>>)> {
        let until = until.as_deref().map(program).transpose()?;
        let job = Job {
            network: &self.0,
            start: per_trajectory(&start)?,
            constants: per_trajectory(&constants)?,
            times: times.as_slice()?,
            species: &species,
            seed,
            first,
            max_events: max_events.unwrap_or(u64::MAX),
            until: until.as_ref(),
        };
        let mut logs = vec![Vec::new(); if log { events.len() } else { 0 }];
        let output = Output {
            counts: counts.as_slice_mut()?,
            events: events.as_slice_mut()?,
            stopped: stopped.as_slice_mut()?,
            log: &mut logs,
        };
        let failure = detached(py, workers, |run| {
            match gillespie::simulate(run, &job, output) {
                Ok(()) => Ok(None),
                Err(Error::Trajectory(failure)) => Ok(Some(failure)),
                Err(error) => Err(error),
            }
        })?;
        let failure = failure.map(|failure| {
            let (kind, index, value) = match failure.reason {
                Reason::Propensity { reaction, value } => ("propensity", reaction, value),
                Reason::Negative { species } => ("negative", species, failure.state[species]),
                Reason::Events => ("events", 0, 0.0),
            };
            (
                kind,
                index,
                value,
                failure.trajectory,
                failure.time,
                failure.state,
            )
        });
        Ok((failure, log.then(|| flat(py, &logs))))
    }
}

/// The times and reactions of all trajectories, one after the other.
fn flat<'py>(py: Python<'py>, logs: &[Vec<Event>]) -> Log<'py> {
    let events = || logs.iter().flatten();
    let times: Vec<f64> = events().map(|event| event.time).collect();
    let reactions: Vec<i64> = events().map(|event| event.reaction as i64).collect();
    (times.into_pyarray(py), reactions.into_pyarray(py))
}

fn per_trajectory<'a>(values: &'a PyReadonlyArrayDyn<'_, f64>) -> PyResult<PerTrajectory<'a>> {
    let slice = values.as_slice()?;
    Ok(if values.ndim() == 1 {
        PerTrajectory::All(slice)
    } else {
        PerTrajectory::Each(slice)
    })
}

fn program(ops: &[(String, f64)]) -> PyResult<Program> {
    let ops = ops.iter().map(|(name, value)| op(name, *value));
    let ops = ops.collect::<Option<Vec<_>>>().and_then(Program::new);
    ops.ok_or_else(|| PyValueError::new_err("propensity: not a program"))
}

fn op(name: &str, value: f64) -> Option<Op> {
    Some(match name {
        "number" => Op::Number(value),
        "constant" => Op::Constant(value as usize),
        "species" => Op::Species(value as usize),
        "neg" => Op::Neg,
        "add" => Op::Add,
        "sub" => Op::Sub,
        "mul" => Op::Mul,
        "div" => Op::Div,
        "pow" => Op::Pow,
        "lt" => Op::Lt,
        "le" => Op::Le,
        "eq" => Op::Eq,
        "ne" => Op::Ne,
        "and" => Op::And,
        "or" => Op::Or,
        "not" => Op::Not,
        "if" => Op::If,
        "exp" => Op::Exp,
        "log" => Op::Log,
        "log10" => Op::Log10,
        "sqrt" => Op::Sqrt,
        "abs" => Op::Abs,
        "min" => Op::Min,
        "max" => Op::Max,
        "floor" => Op::Floor,
        "ceil" => Op::Ceil,
        _ => return None,
    })
}
