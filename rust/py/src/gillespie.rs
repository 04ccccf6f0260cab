//! The door to the simulation of reaction networks.

use std::sync::atomic::Ordering::Relaxed;

use numpy::{
    IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArrayDyn, PyReadwriteArray1,
    PyReadwriteArray3, PyUntypedArrayMethods,
};
use pyo3::{exceptions::PyValueError, prelude::*};
use unitmass_core::{
    error::{Error, Reason},
    gillespie::{
        self, Assignment, Event, Intervention, Job, Method, Op, Output, PerTrajectory, Program,
        Progress, Propensity, Reaction,
    },
};

use crate::{error::Refused, run::watched};

/// Instructions of a program: names and numbers.
type Ops = Vec<(String, f64)>;

/// A constant with its reactants, or a program.
#[derive(FromPyObject)]
enum Form {
    MassAction(usize, Vec<(usize, usize)>),
    Program(Ops),
}

/// Trigger, whether it held before, is persistent and has its values from then; priority; species and their values.
type Intervening = (Ops, bool, bool, bool, Option<Ops>, Vec<(usize, Ops)>);

/// What went wrong: the kind, the index of a reaction or species, the value; the trajectory, the time and the state.
type Failed = (&'static str, usize, f64, u64, f64, Vec<f64>);

/// Times and indices of events, interventions after the reactions; what each intervention added to the species.
type Log<'py> = (
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f64>>,
);

/// A reaction network that was checked and compiled.
#[pyclass(frozen, module = "unitmass._core")]
pub(crate) struct Network {
    network: gillespie::Network,
    reactions: usize,
}

#[pymethods]
impl Network {
    #[new]
    fn new(
        species: usize,
        variables: usize,
        constants: usize,
        reactions: Vec<(Form, Vec<(usize, i32)>)>,
        interventions: Vec<Intervening>,
    ) -> PyResult<Self> {
        let count = reactions.len();
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
        let interventions = interventions.iter().map(intervention);
        let interventions = interventions.collect::<PyResult<_>>()?;
        let network =
            gillespie::Network::new(species, variables, constants, reactions, interventions);
        Ok(Self {
            network: network.map_err(Refused)?,
            reactions: count,
        })
    }

    /// The name of the engine that runs it fastest, until a condition holds.
    fn fastest(&self, until: Option<Ops>) -> PyResult<&'static str> {
        let until = until.as_deref().map(program).transpose()?;
        let fastest = Method::fastest(&self.network, until.as_ref());
        let known = METHODS.iter().find(|(_, method)| *method == fastest);
        Ok(known.map_or("", |(name, _)| name))
    }

    /// Fills `counts`, `events` and, if there is `until`, `stopped`; with `log`, returns every event. `progress` is called
    /// with how many trajectories and events are done.
    #[expect(clippy::too_many_arguments, reason = "they are Python's")]
    fn simulate<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        start: PyReadonlyArrayDyn<'_, f64>,
        constants: PyReadonlyArrayDyn<'_, f64>,
        times: PyReadonlyArray1<'_, f64>,
        species: Vec<usize>,
        seed: u64,
        first: u64,
        max_events: Option<u64>,
        until: Option<Ops>,
        mut counts: PyReadwriteArray3<'_, i64>,
        mut events: PyReadwriteArray1<'_, u64>,
        mut stopped: PyReadwriteArray1<'_, f64>,
        log: bool,
        workers: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Option<Failed>, Option<Log<'py>>)> {
        let until = until.as_deref().map(program).transpose()?;
        let known = METHODS.iter().find(|(name, _)| *name == method);
        let unknown = || PyValueError::new_err("method: not an engine");
        let done = Progress::default();
        let job = Job {
            network: &self.network,
            method: known.ok_or_else(unknown)?.1,
            start: per_trajectory(&start)?,
            constants: per_trajectory(&constants)?,
            times: times.as_slice()?,
            species: &species,
            seed,
            first,
            max_events: max_events.unwrap_or(u64::MAX),
            until: until.as_ref(),
            progress: &done,
        };
        let mut logs = vec![Vec::new(); if log { events.len() } else { 0 }];
        let output = Output {
            counts: counts.as_slice_mut()?,
            events: events.as_slice_mut()?,
            stopped: stopped.as_slice_mut()?,
            log: &mut logs,
        };
        let tell = |py: Python<'_>| match &progress {
            Some(progress) => {
                let (trajectories, events) = (&done.trajectories, &done.events);
                progress.call1(py, (trajectories.load(Relaxed), events.load(Relaxed)))?;
                Ok(())
            }
            None => Ok(()),
        };
        let failure = watched(py, workers, tell, |run| {
            match gillespie::simulate(run, &job, output) {
                Ok(()) => Ok(None),
                Err(Error::Trajectory(failure)) => Ok(Some(failure)),
                Err(error) => Err(error),
            }
        })?;
        let failure = failure.map(|failure| {
            let (kind, index, value) = match failure.reason {
                Reason::Propensity { reaction, value } => ("propensity", reaction, value),
                Reason::Negative { species } => ("count", species, failure.state[species]),
                Reason::Fraction { species, value } => ("count", species, value),
                Reason::Endless => ("endless", 0, 0.0),
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
        Ok((failure, log.then(|| flat(py, &logs, self.reactions))))
    }
}

const METHODS: [(&str, Method); 3] = [
    ("lockstep", Method::Lockstep),
    ("sparse", Method::Sparse),
    ("next_reaction", Method::NextReaction),
];

/// The events of all trajectories, one after the other.
fn flat<'py>(py: Python<'py>, logs: &[Vec<Event>], reactions: usize) -> Log<'py> {
    let (mut times, mut indices, mut jumps) = (Vec::new(), Vec::new(), Vec::new());
    for event in logs.iter().flatten() {
        let (time, index) = match event {
            Event::Reaction { time, index } => (*time, *index),
            Event::Intervention {
                time,
                index,
                changes,
            } => {
                jumps.extend_from_slice(changes);
                (*time, reactions + index)
            }
        };
        times.push(time);
        indices.push(index as i64);
    }
    (
        times.into_pyarray(py),
        indices.into_pyarray(py),
        jumps.into_pyarray(py),
    )
}

fn intervention(
    (trigger, was, persistent, values_when_triggered, priority, assignments): &Intervening,
) -> PyResult<Intervention> {
    let assignments = assignments.iter().map(|(species, value)| {
        Ok(Assignment {
            species: *species,
            value: program(value)?,
        })
    });
    Ok(Intervention {
        trigger: program(trigger)?,
        was: *was,
        persistent: *persistent,
        values_when_triggered: *values_when_triggered,
        priority: priority.as_deref().map(program).transpose()?,
        assignments: assignments.collect::<PyResult<_>>()?,
    })
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
        "time" => Op::Time,
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
