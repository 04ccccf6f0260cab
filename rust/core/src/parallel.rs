//! Sharing tasks among workers: a pool apart from rayon's global one, safe after `fork`, and a watch that can stop a long call.
//!
//! * **Determinism.** Tasks are cut by the caller, from the shape alone; which worker runs one never shows in a result.
//! * **Cost.** A call with one task, or with one worker, touches neither the pool nor an atomic shared with another core.
//! * **Calls do not wait for one another.** A call is open to helpers until its tasks are taken. It then waits for those
//!   that joined, which end the task they are at, and for no others: what a busy pool begins later finds it closed. (A
//!   scope of rayon's waits for each of its jobs, also for those that have not begun.)
//! * **fork.** A child of `fork` has none of its parent's threads. The pool remembers the process that built it, and a
//!   child builds its own. Nothing here takes a lock that a fork could leave closed; the parent's pool is leaked.

use std::{
    any::Any,
    iter,
    panic::{self, AssertUnwindSafe},
    process, ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
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
    /// Asked by the calling thread between its tasks, which take a few milliseconds at most; `false` stops the call with
    /// [`Error::Interrupted`].
    pub watch: &'a mut dyn FnMut() -> bool,
}

/// The cores that this process may use: affinity and cgroup limits count.
pub fn available_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Run<'_> {
    /// Runs `task` once for each index below `tasks`, in no particular order.
    ///
    /// `scratch` makes what a worker keeps from one task to the next. A panic in a task stops the call and goes on in the
    /// calling thread.
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
                if index > 0 && !(self.watch)() {
                    return Err(Error::Interrupted);
                }
                task(&mut own, index);
            }
            return Ok(());
        };
        let next = AtomicUsize::new(0);
        let work = |watch: &mut dyn FnMut() -> bool| {
            let _last = TakeAll { next: &next, tasks };
            let mut own = scratch();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= tasks {
                    return Ok(());
                }
                task(&mut own, index);
                if !watch() {
                    return Err(Error::Interrupted);
                }
            }
        };
        let help = || drop(work(&mut || true));
        helped(pool, workers - 1, &help, || work(self.watch))
    }

    /// Runs `task` again and again, on up to `most` workers, until it returns false to each.
    ///
    /// `scratch` makes what a worker keeps. A panic in a task stops the call and goes on in the calling thread.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the watch said so.
    pub fn until_done<W>(
        &mut self,
        most: usize,
        scratch: impl Fn() -> W + Sync,
        task: impl Fn(&mut W) -> bool + Sync,
    ) -> Result<(), Error> {
        let workers = self.workers.min(most);
        let stopped = AtomicBool::new(false);
        let work = |watch: &mut dyn FnMut() -> bool| {
            let panic = StopOnPanic(&stopped);
            let mut own = scratch();
            while !panic.0.load(Ordering::Relaxed) && task(&mut own) {
                if !watch() {
                    stopped.store(true, Ordering::Relaxed);
                    return Err(Error::Interrupted);
                }
            }
            Ok(())
        };
        let pool = if workers > 1 { pool(workers - 1) } else { None };
        let Some(pool) = pool else {
            return work(self.watch);
        };
        let help = || drop(work(&mut || true));
        helped(pool, workers - 1, &help, || work(self.watch))
    }

    /// Runs `task` once for each `size` values, and for those that are left: it takes the chunk's index and its values.
    ///
    /// # Errors
    /// As [`Run::each`].
    pub fn each_chunk<T: Send, W>(
        &mut self,
        values: &mut [T],
        size: usize,
        scratch: impl Fn() -> W + Sync,
        task: impl Fn(&mut W, usize, &mut [T]) + Sync,
    ) -> Result<(), Error> {
        let (len, parts) = (values.len(), Parts::new(values));
        self.each(len.div_ceil(size), scratch, |own, index| {
            let start = index * size;
            // SAFETY: chunks do not overlap, and each belongs to one task.
            let chunk = unsafe { parts.part(start, size.min(len - start)) };
            task(own, index, chunk);
        })
    }

    /// What `task` makes of each index below `tasks`, in their order.
    ///
    /// # Errors
    /// As [`Run::each`].
    pub fn collect<R: Send>(
        &mut self,
        tasks: usize,
        task: impl Fn(usize) -> R + Sync,
    ) -> Result<Vec<R>, Error> {
        let mut results: Vec<Option<R>> = iter::repeat_with(|| None).take(tasks).collect();
        self.each_chunk(
            &mut results,
            1,
            || (),
            |(), index, result| {
                result[0] = Some(task(index));
            },
        )?;
        Ok(results.into_iter().flatten().collect())
    }
}

/// The first worker that leaves leaves nothing to the others: no task is left, or it was stopped, or it panicked.
struct TakeAll<'a> {
    next: &'a AtomicUsize,
    tasks: usize,
}

impl Drop for TakeAll<'_> {
    fn drop(&mut self) {
        self.next.store(self.tasks, Ordering::Relaxed);
    }
}

/// Ends the work of all when one panics.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A call that threads of the pool may join as long as it is open.
struct Call {
    help: Help,
    joined: Mutex<Joined>,
    /// Told when the last helper leaves.
    left: Condvar,
}

struct Joined {
    open: bool,
    helpers: usize,
    panic: Option<Panic>,
}

type Panic = Box<dyn Any + Send>;

/// A borrowed closure without its type and lifetime.
#[derive(Clone, Copy)]
struct Help {
    closure: *const (),
    run: unsafe fn(*const ()),
}

// SAFETY: it is made of closures that are `Sync`.
unsafe impl Send for Help {}
// SAFETY: as for `Send`.
unsafe impl Sync for Help {}

impl Help {
    fn new<F: Fn() + Sync>(closure: &F) -> Self {
        /// # Safety
        /// `closure` points to an `F`.
        unsafe fn run<F: Fn()>(closure: *const ()) {
            // SAFETY: the caller's promise.
            unsafe { (*closure.cast::<F>())() }
        }
        Self {
            closure: ptr::from_ref(closure).cast(),
            run: run::<F>,
        }
    }

    /// # Safety
    /// The closure is still borrowed.
    unsafe fn run(self) {
        // SAFETY: `run` was made for the type of the closure, which is there by the caller's promise.
        unsafe { (self.run)(self.closure) }
    }
}

/// Runs `own` while up to `most` threads of the pool run `help`; those that began have ended when it returns.
fn helped<R>(
    pool: &ThreadPool,
    most: usize,
    help: &(impl Fn() + Sync),
    own: impl FnOnce() -> R,
) -> R {
    let call = Arc::new(Call {
        help: Help::new(help),
        joined: Mutex::new(Joined {
            open: true,
            helpers: 0,
            panic: None,
        }),
        left: Condvar::new(),
    });
    for _ in 0..most {
        let call = Arc::clone(&call);
        pool.spawn(move || call.join());
    }
    // Nothing may unwind past the borrow of `help` while the call is open.
    let result = panic::catch_unwind(AssertUnwindSafe(own));
    match (result, call.close()) {
        (Err(panic), _) | (_, Some(panic)) => panic::resume_unwind(panic),
        (Ok(result), None) => result,
    }
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread of the pool does, perhaps long after the call.
    fn join(&self) {
        let mut joined = self.lock();
        if !joined.open {
            return;
        }
        joined.helpers += 1;
        drop(joined);
        // SAFETY: the call closes, and its borrow ends, only when this helper has left.
        let result = panic::catch_unwind(AssertUnwindSafe(|| unsafe { self.help.run() }));
        let mut joined = self.lock();
        joined.helpers -= 1;
        if let Err(panic) = result {
            joined.panic.get_or_insert(panic);
        }
        if joined.helpers == 0 {
            self.left.notify_one();
        }
    }

    /// Lets nobody join any more and waits for those that did; returns a panic of one of them.
    fn close(&self) -> Option<Panic> {
        let mut joined = self.lock();
        joined.open = false;
        while joined.helpers > 0 {
            joined = self
                .left
                .wait(joined)
                .unwrap_or_else(PoisonError::into_inner);
        }
        joined.panic.take()
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
        sync::{Barrier, atomic::AtomicBool, mpsc},
        time::{Duration, Instant},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

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
    fn chunks_are_cut_and_results_ordered_alike_at_any_number_of_workers() {
        for workers in [1, 2, 3, 8] {
            for len in [0, 1, 6, 7, 8, 100] {
                let mut values = vec![0; len];
                run(workers, &mut || true)
                    .each_chunk(&mut values, 7, || (), |(), i, chunk| chunk.fill(i))
                    .unwrap();
                assert!(values.iter().enumerate().all(|(k, &i)| i == k / 7));
                let squares = run(workers, &mut || true).collect(len, |i| i * i).unwrap();
                assert!(squares.into_iter().eq((0..len).map(|i| i * i)));
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
    fn a_stopped_call_waits_for_the_tasks_that_run() {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let both = Barrier::new(2);
        let stopped = run(2, &mut || false).each(
            1000,
            || (),
            |(), _| {
                if begun.fetch_add(1, Ordering::SeqCst) < 2 {
                    both.wait();
                }
                if thread::current().name().is_some_and(is_a_helper) {
                    thread::sleep(Duration::from_millis(100));
                }
                ended.fetch_add(1, Ordering::SeqCst);
            },
        );
        assert_eq!(stopped, Err(Error::Interrupted));
        assert_eq!(begun.into_inner(), ended.into_inner());
    }

    fn is_a_helper(thread: &str) -> bool {
        thread.starts_with("unitmass-")
    }

    /// A worker for each thread that the pool has, whatever the other tests asked for, and the calling thread.
    fn all_workers() -> usize {
        available_workers().max(8) + 1
    }

    #[test]
    fn a_call_does_not_wait_for_a_busy_pool() {
        let all = all_workers();
        let (busy, freed) = (Barrier::new(all + 1), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                run(all, &mut || true).each(
                    all,
                    || (),
                    |(), _| {
                        busy.wait();
                        while !freed.load(Ordering::Relaxed) {
                            thread::sleep(Duration::from_millis(1));
                        }
                    },
                )
            });
            busy.wait();
            let (tell, told) = mpsc::channel();
            scope.spawn(move || {
                let sum = AtomicUsize::new(0);
                run(3, &mut || true)
                    .each(
                        100,
                        || (),
                        |(), i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        },
                    )
                    .unwrap();
                tell.send(sum.into_inner()).unwrap();
            });
            let sum = told.recv_timeout(PATIENCE);
            freed.store(true, Ordering::Relaxed);
            assert_eq!(sum, Ok(4950));
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_stops_the_others() {
        for in_helper in [false, true] {
            let (both, tasks) = (Barrier::new(2), AtomicUsize::new(0));
            let panic = panic::catch_unwind(AssertUnwindSafe(|| {
                run(2, &mut || true).each(
                    1_000_000,
                    || (),
                    |(), _| {
                        if tasks.fetch_add(1, Ordering::Relaxed) < 2 {
                            both.wait();
                        }
                        if thread::current().name().is_some_and(is_a_helper) == in_helper {
                            panic!("a task's own words");
                        }
                        thread::sleep(Duration::from_millis(1));
                    },
                )
            }))
            .unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"a task's own words"));
            assert!(tasks.into_inner() < 1000);
        }
    }

    #[test]
    fn tasks_may_make_calls() {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let sum = AtomicUsize::new(0);
            let sum_of = |i: usize| {
                run(3, &mut || true).each(
                    10,
                    || (),
                    |(), j| {
                        sum.fetch_add(10 * i + j, Ordering::Relaxed);
                    },
                )
            };
            run(4, &mut || true)
                .each(100, || (), |(), i| sum_of(i).unwrap())
                .unwrap();
            tell.send(sum.into_inner()).unwrap();
        });
        assert_eq!(told.recv_timeout(PATIENCE), Ok(499_500));
    }

    #[test]
    fn threads_and_helpers_of_all_kinds_at_once() {
        // What each call lends lies in its own frame, and is gone when the call has returned or unwound.
        const CALLS: usize = if cfg!(miri) { 20 } else { 2000 };
        thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    for call in 0..CALLS {
                        one_call(2 + (call + caller) % 4, call % 7, call % 11);
                    }
                });
            }
        });
    }

    fn one_call(workers: usize, panics_at: usize, stops_after: usize) {
        const TASKS: usize = 8;
        let mut values = vec![1; TASKS];
        let parts = Parts::new(&mut values);
        let mut asked = 0;
        let mut watch = || {
            asked += 1;
            asked <= stops_after
        };
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            run(workers, &mut watch).each(
                TASKS,
                || vec![0; 4],
                |own, i| {
                    if i == panics_at && stops_after == 10 {
                        panic::resume_unwind(Box::new("as planned"));
                    }
                    own[i % 4] += 1;
                    // SAFETY: each task has an element of its own.
                    unsafe { parts.part(i, 1)[0] += i };
                },
            )
        }));
        match done {
            Ok(Ok(())) => assert!((0..TASKS).all(|i| values[i] == 1 + i)),
            Ok(Err(error)) => assert_eq!(error, Error::Interrupted),
            Err(panic) => assert_eq!(panic.downcast_ref(), Some(&"as planned")),
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
