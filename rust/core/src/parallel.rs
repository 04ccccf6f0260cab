//! Sharing tasks among workers: our own pool, safe after `fork`, and a watch that can stop a long call.
//!
//! * **Determinism.** Tasks are cut by the caller, from the shape alone; which worker runs one never shows in a result.
//! * **Cost.** A call with one task, or with one worker, touches neither the pool nor an atomic shared with another core.
//! * **fork.** A child of `fork` has none of its parent's threads. The pool remembers the process that built it, and a
//!   child builds its own. Nothing here takes a lock that a fork could leave closed; the parent's pool is leaked.

use std::{
    process, ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    thread,
};

use fearless_simd::Level;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::Error;

/// How a call is run; what it computes does not depend on any of it.
pub struct Run<'a> {
    /// The SIMD level.
    pub level: Level,
    /// Threads to use, the calling one included; at least 1.
    pub workers: usize,
    /// Asked by the calling thread after each of its tasks, which take a few milliseconds at most; `false` stops the call
    /// with [`Error::Interrupted`].
    pub watch: &'a mut dyn FnMut() -> bool,
}

/// The cores that this process may use: affinity and cgroup limits count.
pub fn available_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Run<'_> {
    /// Runs `task` once for each index below `tasks`, in no particular order.
    ///
    /// `scratch` makes what a worker keeps from one task to the next.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the watch said so; some tasks have then not run.
    pub fn each<W>(
        &mut self,
        tasks: usize,
        scratch: impl Fn() -> W + Sync,
        task: impl Fn(&mut W, usize) + Sync,
    ) -> Result<(), Error> {
        let workers = self.workers.min(tasks);
        let pool = if workers > 1 { pool(workers - 1) } else { None };
        let Some(pool) = pool else {
            let mut own = scratch();
            for index in 0..tasks {
                task(&mut own, index);
                if !(self.watch)() {
                    return Err(Error::Interrupted);
                }
            }
            return Ok(());
        };
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let claim = || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            (index < tasks && !stopped.load(Ordering::Relaxed)).then_some(index)
        };
        pool.in_place_scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|_| {
                    let mut own = scratch();
                    while let Some(index) = claim() {
                        task(&mut own, index);
                    }
                });
            }
            let mut own = scratch();
            while let Some(index) = claim() {
                task(&mut own, index);
                if !(self.watch)() {
                    stopped.store(true, Ordering::Relaxed);
                    return Err(Error::Interrupted);
                }
            }
            Ok(())
        })
    }
}

struct Pool {
    process: u32,
    pool: ThreadPool,
}

/// A pool of at least `threads` threads in this process; `None` if the system refuses threads.
fn pool(threads: usize) -> Option<&'static ThreadPool> {
    static CURRENT: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());
    loop {
        let current = CURRENT.load(Ordering::Acquire);
        // SAFETY: a pool that was published here is never freed.
        if let Some(current) = unsafe { current.as_ref() }
            && current.process == process::id()
            && current.pool.current_num_threads() >= threads
        {
            return Some(&current.pool);
        }
        let built = ThreadPoolBuilder::new()
            // Powers of two, so that growing demands leave few pools behind.
            .num_threads(threads.max(available_workers() - 1).next_power_of_two())
            .thread_name(|i| format!("unitmass-{i}"))
            .build()
            .ok()?;
        let built = Box::into_raw(Box::new(Pool {
            process: process::id(),
            pool: built,
        }));
        if CURRENT
            .compare_exchange(current, built, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: the pool was not published, so this is its only owner.
            drop(unsafe { Box::from_raw(built) });
        }
    }
}

/// A slice whose disjoint parts are written by different tasks.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a `Parts` gives out elements only through `unsafe` methods, whose callers promise that no two tasks touch one.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            owner: std::marker::PhantomData,
        }
    }

    /// # Safety
    /// No other task holds any element of the range.
    #[expect(
        clippy::mut_from_ref,
        reason = "that is what the caller's promise is for"
    )]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: the range is inside the slice; that nobody else holds it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Mutex,
        time::{Duration, Instant},
    };

    use super::*;

    fn run(workers: usize, watch: &mut dyn FnMut() -> bool) -> Run<'_> {
        Run {
            level: Level::new(),
            workers,
            watch,
        }
    }

    #[test]
    fn every_task_runs_once_at_any_number_of_workers() {
        for workers in [1, 2, 3, 8] {
            for tasks in [0, 1, 2, 1000] {
                let seen = Mutex::new(vec![0; tasks]);
                run(workers, &mut || true)
                    .each(tasks, || (), |(), i| seen.lock().unwrap()[i] += 1)
                    .unwrap();
                assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1));
            }
        }
    }

    #[test]
    fn a_watch_stops_a_long_call() {
        for workers in [1, 3] {
            let started = Instant::now();
            let stopped = run(workers, &mut || false).each(
                1_000_000,
                || (),
                |(), _| thread::sleep(Duration::from_millis(1)),
            );
            assert_eq!(stopped, Err(Error::Interrupted));
            assert!(started.elapsed() < Duration::from_secs(2));
        }
    }

    #[test]
    fn a_worker_keeps_its_scratch() {
        let made = AtomicUsize::new(0);
        run(2, &mut || true)
            .each(100, || made.fetch_add(1, Ordering::Relaxed), |_, _| ())
            .unwrap();
        assert!(made.into_inner() <= 2);
    }
}
