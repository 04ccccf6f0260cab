//! How a call is run: the SIMD level, the workers, and signals while the GIL is released.

use std::{
    env,
    sync::OnceLock,
    time::{Duration, Instant},
};

use fearless_simd::Level;
use pyo3::{exceptions::PyValueError, prelude::*};
use unitmass_core::{error::Error, parallel, parallel::Run, simd};

use crate::error::Refused;

/// How often a call looks for signals, which takes the GIL.
const SIGNALS: Duration = Duration::from_millis(40);

/// The variable that forces a level, for tests and comparisons.
const VARIABLE: &str = "UNITMASS_SIMD";

static LEVEL: OnceLock<(&'static str, Level)> = OnceLock::new();

/// Settles the level once, when the module is imported.
pub(crate) fn choose_level() -> PyResult<()> {
    let levels = simd::levels();
    let chosen = match env::var(VARIABLE) {
        Err(_) => levels[0],
        Ok(wanted) => levels
            .iter()
            .find(|(name, _)| *name == wanted)
            .copied()
            .ok_or_else(|| {
                let names: Vec<_> = levels.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                PyValueError::new_err(format!(
                    "{VARIABLE}: must be one of {names}, found {wanted:?}"
                ))
            })?,
    };
    LEVEL.get_or_init(|| chosen);
    Ok(())
}

fn level() -> (&'static str, Level) {
    *LEVEL.get_or_init(|| simd::levels()[0])
}

/// The SIMD level in use.
#[pyfunction]
pub(crate) fn simd_level() -> &'static str {
    level().0
}

/// The SIMD levels that this CPU has, widest first.
#[pyfunction]
pub(crate) fn simd_levels() -> Vec<&'static str> {
    simd::levels().into_iter().map(|(name, _)| name).collect()
}

/// The cores that this process may use.
#[pyfunction]
pub(crate) fn available_workers() -> usize {
    parallel::available_workers()
}

/// Calls a kernel without the GIL; what a signal handler raises meanwhile stops it.
pub(crate) fn detached<R: Send>(
    py: Python<'_>,
    workers: usize,
    kernel: impl FnOnce(&mut Run<'_>) -> Result<R, Error> + Send,
) -> PyResult<R> {
    watched(py, workers, |_| Ok(()), kernel)
}

/// The same; `tell` is called now and then, and what it raises stops the kernel.
pub(crate) fn watched<R: Send>(
    py: Python<'_>,
    workers: usize,
    mut tell: impl FnMut(Python<'_>) -> PyResult<()> + Send,
    kernel: impl FnOnce(&mut Run<'_>) -> Result<R, Error> + Send,
) -> PyResult<R> {
    let mut raised = None;
    let result = py.detach(|| {
        let mut looked = None; // a small call never asks for the time
        let mut watch = || {
            let last: &mut Instant = looked.get_or_insert_with(Instant::now);
            if last.elapsed() < SIGNALS {
                return true;
            }
            *last = Instant::now();
            let look = |py: Python<'_>| py.check_signals().and_then(|()| tell(py));
            raised = Python::attach(look).err();
            raised.is_none()
        };
        kernel(&mut Run {
            level: level().1,
            workers,
            watch: &mut watch,
        })
    });
    match raised {
        Some(error) => Err(error),
        None => Ok(result.map_err(Refused)?),
    }
}
