//! The door to random points on circles and spheres.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::{exceptions::PyValueError, prelude::*};
use unitmass_core::sectors::{
    self, Experiment as Core, Law, Leaders, Plan, Progress, Quantity, Stopped,
};

use crate::{
    error::Refused,
    run::{detached, watched},
};

/// A law of angles.
#[pyclass(frozen, module = "unitmass._core")]
pub(crate) struct Density(Arc<sectors::Density>);

#[pymethods]
impl Density {
    /// From the masses of `CELLS` cells of equal width.
    #[new]
    fn new(masses: PyReadonlyArray1<'_, f64>) -> PyResult<Self> {
        Self::of(sectors::Density::new(masses.as_slice()?))
    }

    #[staticmethod]
    fn von_mises(kappa: f64) -> PyResult<Self> {
        Self::of(sectors::Density::von_mises(kappa))
    }

    #[staticmethod]
    fn wrapped_normal(sigma: f64) -> PyResult<Self> {
        Self::of(sectors::Density::wrapped_normal(sigma))
    }

    #[classattr]
    const CELLS: usize = sectors::CELLS;

    /// The largest density, that of uniform angles being 1.
    #[getter]
    fn peak(&self) -> f64 {
        self.0.peak()
    }

    /// How many of n points are expected to have all others within each angle clockwise.
    fn leaders<'py>(
        &self,
        py: Python<'py>,
        n: usize,
        theta: PyReadonlyArray1<'_, f64>,
        workers: usize,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let theta = theta.as_slice()?;
        let expected = detached(py, workers, |run| {
            let one = |i: usize| Leaders::new(&self.0, n, sectors::turns(theta[i])).expected();
            run.collect(theta.len(), one)
        })?;
        Ok(expected.into_pyarray(py))
    }
}

impl Density {
    fn of(density: Result<sectors::Density, unitmass_core::error::Error>) -> PyResult<Self> {
        Ok(Self(Arc::new(density.map_err(Refused)?)))
    }
}

/// What is done in each trial.
#[pyclass(frozen, module = "unitmass._core")]
pub(crate) struct Experiment(Form);

enum Form {
    Arc(usize, usize, Option<Arc<sectors::Density>>),
    Cap(usize, usize),
    Cover(Vec<u64>),
    Lead(usize, u64, Option<Arc<sectors::Density>>),
}

#[pymethods]
impl Experiment {
    /// The shortest arc that holds k of n points.
    #[staticmethod]
    #[pyo3(signature = (n, k, density=None))]
    fn arc(n: usize, k: usize, density: Option<&Density>) -> Self {
        Self(Form::Arc(n, k, density.map(|density| density.0.clone())))
    }

    /// The smallest cap that holds n points of the sphere in R^d.
    #[staticmethod]
    fn cap(n: usize, d: usize) -> Self {
        Self(Form::Cap(n, d))
    }

    /// Whether arcs of these lengths, in radians, cover the circle.
    #[staticmethod]
    fn cover(lengths: PyReadonlyArray1<'_, f64>) -> PyResult<Self> {
        let lengths = lengths.as_slice()?.iter().copied().map(sectors::turns);
        Ok(Self(Form::Cover(lengths.collect())))
    }

    /// How many of n points, all within theta clockwise of one of them, could be that one.
    #[staticmethod]
    #[pyo3(signature = (n, theta, density=None))]
    fn lead(n: usize, theta: f64, density: Option<&Density>) -> Self {
        let density = density.map(|density| density.0.clone());
        Self(Form::Lead(n, sectors::turns(theta), density))
    }

    /// How many trials a block has.
    fn trials_in_block(&self, angles: PyReadonlyArray1<'_, f64>) -> PyResult<u64> {
        let angles = angles.as_slice()?;
        Ok(self
            .with(|experiment| sectors::trials_in_block(experiment, angles))
            .map_err(Refused)?)
    }

    /// Counts per cell between rising angles, trials, and what ended them; `progress` is called with trials and hits.
    #[expect(clippy::too_many_arguments, reason = "they are Python's")]
    fn count<'py>(
        &self,
        py: Python<'py>,
        angles: PyReadonlyArray1<'_, f64>,
        seed: u64,
        first_block: u64,
        blocks: u64,
        trials: u64,
        hits: u64,
        above: bool,
        seconds: f64,
        workers: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyArray1<u64>>, u64, &'static str)> {
        let angles = angles.as_slice()?;
        let plan = Plan {
            seed,
            first_block,
            blocks,
            trials,
            hits,
            above,
            seconds,
        };
        let done = Progress::default();
        let tally = watched(py, workers, telling(&progress, &done), |run| {
            self.with(|experiment| sectors::count(run, experiment, angles, &plan, &done))
        })?;
        let stopped = match tally.stopped {
            Stopped::Trials => "trials",
            Stopped::Hits => "hits",
            Stopped::Time => "time",
        };
        Ok((tally.counts.into_pyarray(py), tally.trials, stopped))
    }

    /// Fills `numbers` with that of each trial, as a fraction: of a turn, or (1 - cos β)/2.
    fn sample(
        &self,
        py: Python<'_>,
        mut numbers: PyReadwriteArray1<'_, f64>,
        seed: u64,
        workers: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let numbers = numbers.as_slice_mut()?;
        let done = Progress::default();
        watched(py, workers, telling(&progress, &done), |run| {
            self.with(|experiment| sectors::sample(run, experiment, seed, numbers, &done))
        })
    }
}

impl Experiment {
    fn with<R>(&self, call: impl FnOnce(&Core<'_>) -> R) -> R {
        match &self.0 {
            Form::Arc(n, k, density) => call(&Core::Arc {
                n: *n,
                k: *k,
                density: density.as_deref(),
            }),
            Form::Cap(n, d) => call(&Core::Cap { n: *n, d: *d }),
            Form::Cover(lengths) => call(&Core::Cover { lengths }),
            Form::Lead(n, theta, density) => {
                let leaders = density
                    .as_deref()
                    .map(|density| Leaders::new(density, *n, *theta));
                call(&Core::Lead {
                    n: *n,
                    theta: *theta,
                    density: leaders.as_ref(),
                })
            }
        }
    }
}

fn telling<'a>(
    progress: &'a Option<Py<PyAny>>,
    done: &'a Progress,
) -> impl FnMut(Python<'_>) -> PyResult<()> + Send + 'a {
    move |py| match progress {
        Some(progress) => {
            progress.call1(py, (done.trials.load(Relaxed), done.hits.load(Relaxed)))?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// A quantity of an exact law, for as many n as values.
#[pyfunction]
pub(crate) fn gap_law<'py>(
    py: Python<'py>,
    law: &str,
    quantity: &str,
    n: PyReadonlyArray1<'_, u64>,
    value: PyReadonlyArray1<'_, f64>,
    workers: usize,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (law, quantity) = (named(&LAWS, law)?, named(&QUANTITIES, quantity)?);
    let (n, value) = (n.as_slice()?, value.as_slice()?);
    let mut out = vec![0.0; value.len()];
    detached(py, workers, |run| {
        sectors::evaluate(run, law, quantity, n, value, &mut out)
    })?;
    Ok(out.into_pyarray(py))
}

const LAWS: [(&str, Law); 3] = [
    ("max_gap", Law::MaxGap),
    ("min_gap", Law::MinGap),
    ("sector", Law::Sector),
];

const QUANTITIES: [(&str, Quantity); 7] = [
    ("cdf", Quantity::Cdf),
    ("sf", Quantity::Sf),
    ("logcdf", Quantity::LogCdf),
    ("logsf", Quantity::LogSf),
    ("pdf", Quantity::Pdf),
    ("ppf", Quantity::Ppf),
    ("isf", Quantity::Isf),
];

fn named<T: Copy>(known: &[(&str, T)], name: &str) -> PyResult<T> {
    let found = known.iter().find(|(known, _)| *known == name);
    let unknown = || PyValueError::new_err(format!("{name}: not known"));
    Ok(found.ok_or_else(unknown)?.1)
}

/// The mean and the variance of a law.
#[pyfunction]
pub(crate) fn gap_moments(law: &str, n: u64) -> PyResult<(f64, f64)> {
    let law = named(&LAWS, law)?;
    Ok((sectors::mean(law, n), sectors::variance(law, n)))
}

/// Fills `means` with that of the k-th largest gap, for each k from 1 to its length.
#[pyfunction]
pub(crate) fn gap_means(
    py: Python<'_>,
    mut means: PyReadwriteArray1<'_, f64>,
    workers: usize,
) -> PyResult<()> {
    const CHUNK: usize = 1 << 12;
    let means = means.as_slice_mut()?;
    let n = means.len() as u64;
    detached(py, workers, |run| {
        run.each_chunk(
            means,
            CHUNK,
            || (),
            |(), index, means| {
                for (k, mean) in ((index * CHUNK + 1) as u64..).zip(means) {
                    *mean = sectors::mean_of_largest(n, k);
                }
            },
        )
    })
}

/// The probabilities that exactly 0, 1, 2, … gaps are at least as long as this.
#[pyfunction]
pub(crate) fn gap_counts(py: Python<'_>, n: u64, gap: f64) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let counts = detached(py, 1, |_| sectors::gap_counts(n, gap))?;
    Ok(counts.into_pyarray(py))
}

/// The probability that some half circle holds k of n points.
#[pyfunction]
pub(crate) fn half_circle(n: u64, k: u64) -> f64 {
    sectors::half_circle(n, k)
}

/// The probability that some half space of R^d holds n points, and that none does.
#[pyfunction]
pub(crate) fn half_space(n: u64, d: u64) -> (f64, f64) {
    sectors::half_space(n, d)
}

/// The probability that some cap of the sphere in R^3 holds n points.
#[pyfunction]
pub(crate) fn small_cap(n: u64, angle: f64) -> f64 {
    sectors::cap(n, angle)
}

/// The quantile of the beta law.
#[pyfunction]
pub(crate) fn beta_quantile(a: f64, b: f64, p: f64) -> f64 {
    sectors::beta_quantile(a, b, p)
}
