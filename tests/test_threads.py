"""Threads, forks, signals and environment variables. What could hang runs in a child with a time-out."""

import itertools
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import unitmass as um

PATIENCE = 60  # seconds before a child counts as hanging
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
needs_signals = pytest.mark.skipif(os.name == "nt", reason="no SIGINT to oneself here")


def run_child(code, **env):
    """Run a script in a fresh interpreter; what it prints, or a failure with what it said."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={k: v for k, v in os.environ.items() if not k.startswith("UNITMASS_")} | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def batch(rows=2000, n=500):
    return np.random.default_rng(0).normal(0, 2, (rows, n)).astype(np.float32)


# --- fork -------------------------------------------------------------------------------------------------------------


@needs_fork
def test_the_pool_survives_fork():
    """A pool's threads do not follow into a forked child: one that waited for them would hang."""
    out = run_child("""
        import os, signal, time, warnings
        import numpy as np, unitmass as um
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: the point
        x = np.random.default_rng(0).normal(0, 2, (2000, 500)).astype(np.float32)
        expected = um.entmax(x, workers=2)
        for _ in range(3):
            child = os.fork()
            if child == 0:
                same = np.array_equal(um.entmax(x, workers=2), expected)
                os._exit(0 if same else 3)
            limit = time.monotonic() + 15
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > limit:
                    os.kill(child, signal.SIGKILL)
                    raise SystemExit("the forked child hangs")
                time.sleep(0.005)
            assert os.waitstatus_to_exitcode(ended[1]) == 0, ended
            assert np.array_equal(um.entmax(x, workers=2), expected)  # and the parent's pool still works
        print("ok")
    """)
    assert out == "ok\n"


@needs_fork
def test_fork_in_the_middle_of_a_call():
    out = run_child("""
        import os, signal, threading, time, warnings
        import numpy as np, unitmass as um
        warnings.simplefilter("ignore", DeprecationWarning)
        x = np.random.default_rng(0).normal(0, 2, (2000, 500)).astype(np.float32)
        expected = um.entmax(x, 1.3, workers=2)
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                um.entmax(x, 1.3, workers=2)
        thread = threading.Thread(target=busy)
        thread.start()
        for i in range(8):
            time.sleep(0.003 * i)
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(um.entmax(x, 1.3, workers=2), expected) else 3)
            limit = time.monotonic() + 15
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > limit:
                    os.kill(child, signal.SIGKILL)
                    stop.set()
                    raise SystemExit("the forked child hangs")
                time.sleep(0.005)
            assert os.waitstatus_to_exitcode(ended[1]) == 0, ended
        stop.set()
        thread.join()
        print("ok")
    """)
    assert out == "ok\n"


@needs_fork
def test_multiprocessing_by_fork():
    out = run_child("""
        import multiprocessing, warnings
        import numpy as np, unitmass as um
        warnings.simplefilter("ignore", DeprecationWarning)
        x = np.random.default_rng(0).normal(0, 2, (2000, 500)).astype(np.float32)
        expected = um.softmax(x, workers=2)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            parts = pool.map_async(um.softmax, [x, x[:1000], x[1000:]]).get(timeout=30)
        assert np.array_equal(parts[0], expected)
        assert np.array_equal(np.concatenate(parts[1:]), expected)
        print("ok")
    """)
    assert out == "ok\n"


# --- many Python threads ----------------------------------------------------------------------------------------------


def test_concurrent_calls_do_not_meet():
    x = batch(300, 200)
    g = batch(300, 200)[::-1]
    calls = [
        lambda w: um.softmax(x, workers=w),
        lambda w: um.entmax(x, 1.3, workers=w),
        lambda w: um.sparsemax(x, workers=w),
        lambda w: um.entmax_vjp(np.abs(g), x, workers=w),
        lambda w: um.log_softmax(x.T, axis=0, workers=w).T,
    ]
    expected = [c(1) for c in calls]
    with ThreadPoolExecutor(16) as pool:
        jobs = [(i, pool.submit(calls[i], w)) for _ in range(12) for i in range(len(calls)) for w in (1, 2, None)]
        for i, job in jobs:
            np.testing.assert_array_equal(job.result(timeout=PATIENCE), expected[i])


def test_first_calls_may_race():
    """The pool is built by whoever comes first."""
    out = run_child("""
        import threading
        import numpy as np, unitmass as um
        x = np.random.default_rng(0).normal(0, 2, (2000, 500)).astype(np.float32)
        results, barrier = [], threading.Barrier(8)
        def first(workers):
            barrier.wait()
            results.append(um.sparsemax(x, workers=workers))
        threads = [threading.Thread(target=first, args=(1 + i % 3,)) for i in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(results) == 8
        assert all(np.array_equal(r, results[0]) for r in results)
        print("ok")
    """)
    assert out == "ok\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gil_is_released(workers):
    """This thread must go on counting while another is in a kernel."""
    x = np.random.default_rng(0).normal(0, 2, (40_000, 128)).astype(np.float32)
    spent = []

    def kernel():
        start = time.perf_counter()
        um.entmax(x, 1.3, method="bisect", n_iter=50, workers=workers)
        spent.append(time.perf_counter() - start)

    thread = threading.Thread(target=kernel)
    thread.start()
    naps = 0
    while thread.is_alive():
        time.sleep(0.001)
        naps += 1
    assert spent[0] > 0.05, "too short a call to tell"
    # A nap and a turn take a few milliseconds beside busy cores; with the GIL held there are one or two.
    assert naps >= max(5, spent[0] / 0.05)


def test_a_short_call_does_not_wait_for_a_long_one():
    """A long call has every thread of the pool; who asks for help meanwhile goes on without."""
    out = run_child("""
        import os, threading, time
        import numpy as np, unitmass as um
        x = np.random.default_rng(0).normal(0, 0.01, (400_000, 64))
        expected = um.softmax(x[:2000], workers=1)
        workers = max(2, um.show_config(mode="dicts")["workers"])
        long = threading.Thread(
            target=lambda: um.entmax(x, 1.3, method="bisect", n_iter=1000, workers=workers), daemon=True
        )
        long.start()
        time.sleep(0.2)
        for _ in range(20):
            assert np.array_equal(um.softmax(x[:2000], workers=workers), expected)
        print("before" if long.is_alive() else "after", flush=True)
        os._exit(0)
    """)
    assert out == "before\n"


# --- long rows are shared out inside the row --------------------------------------------------------------------------

CHUNK, LONGEST_TASK = 1 << 14, 1 << 17  # as in rust/core/src/maps/batch.rs
BORDERS = [LONGEST_TASK + 1, 9 * CHUNK - 1, 9 * CHUNK, 9 * CHUNK + 1]


def results_on_long_rows(x, g, where, axis, workers):
    """All that is computed from three long rows, by name."""
    options = {"axis": axis, "workers": workers}
    p, log_p = um.softmax(x, axis=axis, where=where), um.log_softmax(x, axis=axis)
    results = {
        "softmax": um.softmax(x, where=where, **options),
        "log_softmax": um.log_softmax(x, where=where, **options),
        "softmax_vjp": um.softmax_vjp(p, g, **options),
        "log_softmax_vjp": um.log_softmax_vjp(log_p, g, **options),
        "bisect": um.entmax(x, 1.3, method="bisect", where=where, **options),
    }
    for alpha in (1, 1.1, 1.3, 1.5, 2, 3):
        p = um.entmax(x, alpha, axis=axis, where=where)
        results[f"entmax {alpha}"] = um.entmax(x, alpha, where=where, **options)
        results[f"entmax_vjp {alpha}"] = um.entmax_vjp(p, g, alpha, **options)
        results[f"entmax_alpha_grad {alpha}"] = um.entmax_alpha_grad(p, g, alpha, **options)
        triple = um.entmax(x, alpha, where=where, sparse=True, **options)
        rows = np.moveaxis(g, axis, -1)
        products = um.entmax_vjp(triple, rows, alpha, workers=workers)
        for name, part in zip(("data", "indices", "indptr"), triple, strict=True):
            results[f"sparse {name} {alpha}"] = part
        results[f"sparse vjp {alpha}"] = products[0]
        if alpha > 1:
            tau, support = um.threshold(x, alpha, where=where, **options)
            results |= {f"tau {alpha}": tau, f"support {alpha}": support}
    return results


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n", BORDERS)
@pytest.mark.parametrize("axis", [-1, 0])
def test_long_rows_have_the_same_bits_at_any_number_of_workers(axis, n, dtype):
    rng = np.random.default_rng(n)
    x, g = rng.normal(0, [[3], [0.01], [1]], (3, n)).astype(dtype), rng.normal(size=(3, n)).astype(dtype)
    where = rng.random((3, n)) < 0.7
    where[2] = False
    if axis == 0:
        x, g, where = x.T.copy(), g.T.copy(), where.T.copy()
    expected = results_on_long_rows(x, g, where, axis, 1)
    for workers in (2, 3):
        results = results_on_long_rows(x, g, where, axis, workers)
        for name, result in results.items():
            np.testing.assert_array_equal(result, expected[name], err_msg=f"{name}, {workers} workers")


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_special_values_in_shared_rows(fill):
    x = np.random.default_rng(0).normal(size=LONGEST_TASK + 1)
    x[[5 * CHUNK - 1, 5 * CHUNK]] = fill
    everywhere = np.full_like(x, fill)
    for alpha in (1.1, 1.3, 1.5, 2, 3):
        for workers in (1, 3):
            tau, support = um.threshold(x, alpha, workers=workers)
            if fill < 0:
                assert support == np.count_nonzero(um.entmax(x, alpha))
            else:
                np.testing.assert_equal((tau, support), (fill, 2 if fill > 0 else 0))
            count = x.size if fill > 0 else 0
            expected = (fill if fill > 0 else np.nan, count)
            np.testing.assert_equal(um.threshold(everywhere, alpha, workers=workers), expected)
            share = 1 / x.size if fill > 0 else np.nan
            assert np.array_equal(um.entmax(everywhere, alpha, workers=workers), np.full_like(x, share), equal_nan=True)
            if np.isnan(fill):
                g = np.ones_like(x)
                assert np.isnan(um.entmax_vjp(x, g, alpha, workers=workers)[0])
                assert np.isnan(um.entmax_alpha_grad(np.abs(x), g, alpha, workers=workers))


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

INTERRUPT = """
import os, signal, sys, threading, time
import numpy as np, unitmass as um

rows, n, workers = {rows}, {n}, {workers}
x = np.random.default_rng(0).normal(0, 0.01, rows * n).reshape(rows, n)
sent = []

def press():
    time.sleep(0.15)  # well inside the call: which cannot happen if the GIL is held
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

{handler}
um.entmax(x[:1, :100])
threading.Thread(target=press).start()
start = time.perf_counter()
try:
    {call}
    print("returned after", time.perf_counter() - start, "signal after", sent[0] - start if sent else None)
except {error}:
    print("stopped", time.perf_counter() - sent[0])
after = um.entmax(np.array([1.0, 0.0]), workers=workers)  # nothing is left behind
assert abs(after.sum() - 1) < 1e-15
{check}
"""
SHAPES = {"many rows": (200_000, 64), "one long row": (1, 12_000_000)}
LONG_CALL = 'um.entmax(x, 1.3, method="bisect", n_iter=1000, workers=workers)'
CALLS = {
    "bisect": LONG_CALL,
    "softmax": "while True: um.softmax(x, workers=workers)",
    "threshold": "while True: um.threshold(x, 3, workers=workers)",
    "sparse": "while True: um.entmax(x, 1.3, workers=workers, sparse=True)",
    "masked": "while True: um.entmax(x, 1.5, workers=workers, where=np.False_)",
    "gradient": "while True: um.entmax_vjp(x, x, 3, workers=workers)",
    "alpha": "while True: um.entmax_alpha_grad(x, x, workers=workers)",
}


@needs_signals
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_interrupt_stops_within_a_quarter_second(call, shape, workers):
    rows, n = SHAPES[shape]
    code = INTERRUPT.format(
        rows=rows, n=n, workers=workers, call=call, error="KeyboardInterrupt",
        # What a shell starts in the background may have SIGINT ignored.
        handler="signal.signal(signal.SIGINT, signal.default_int_handler)",
        check="assert signal.getsignal(signal.SIGINT) is signal.default_int_handler",
    )  # fmt: skip
    said, delay = run_child(code).split(maxsplit=1)
    assert said == "stopped", f"{said} {delay}"
    assert float(delay) < 0.25


@needs_signals
@pytest.mark.parametrize("shape", SHAPES)
def test_a_handler_of_the_user_runs_and_stays(shape):
    rows, n = SHAPES[shape]
    handler = """
class Mine(Exception): pass
def handle(number, frame): raise Mine
signal.signal(signal.SIGINT, handle)
"""
    code = INTERRUPT.format(
        rows=rows, n=n, workers=2, call=LONG_CALL, handler=handler, error="Mine",
        check="assert signal.getsignal(signal.SIGINT) is handle",
    )  # fmt: skip
    said, delay = run_child(code).split(maxsplit=1)
    assert said == "stopped", f"{said} {delay}"
    assert float(delay) < 0.25


@needs_signals
def test_a_handler_that_returns_lets_the_call_finish():
    handler = """
heard = []
def handle(number, frame): heard.append(time.perf_counter())
signal.signal(signal.SIGINT, handle)
expected = um.entmax(x, 1.3, workers=1)
"""
    check = """
assert signal.getsignal(signal.SIGINT) is handle
assert len(heard) == 1 and heard[0] - sent[0] < 0.25, (heard, sent)
assert heard[0] < end, "the handler waited for the call"
assert abs(p - expected).max() < 1e-12
"""
    call = 'p = um.entmax(x, 1.3, method="bisect", n_iter=60, workers=1); end = time.perf_counter()'
    code = INTERRUPT.format(
        rows=200_000, n=64, workers=1, call=call, handler=handler, error="KeyboardInterrupt", check=check
    )
    assert run_child(code).startswith("returned")


# --- workers ----------------------------------------------------------------------------------------------------------


def workers_now():
    return um.show_config(mode="dicts")["workers"]


def test_set_workers_nests_and_restores():
    before = workers_now()
    with um.set_workers(1):
        assert workers_now() == 1
        with um.set_workers(3):
            assert workers_now() == 3
        assert workers_now() == 1
        with um.set_workers(-1):
            assert workers_now() == cores()
    assert workers_now() == before


def test_set_workers_restores_after_an_error():
    before = workers_now()
    with pytest.raises(KeyError), um.set_workers(before + 1):
        raise KeyError
    assert workers_now() == before


def test_set_workers_is_of_its_thread():
    before, seen = workers_now(), []
    with um.set_workers(before + 2):
        thread = threading.Thread(target=lambda: seen.append(workers_now()))
        thread.start()
        thread.join()
        assert workers_now() == before + 2
    if getattr(sys.flags, "thread_inherit_context", 0):
        pytest.skip("threads inherit the context of their parent here")
    assert seen == [before]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(0, ValueError, r"\b0\b"), (-1000, ValueError, "-1000"), (1.5, TypeError, r"1\.5"), ("2", TypeError, "2")],
)
def test_set_workers_refuses(value, error, message):
    before = workers_now()
    with pytest.raises(error, match=rf"workers\b.*{message}"), um.set_workers(value):
        pass
    assert workers_now() == before


def test_negative_workers_count_back():
    x = batch(64, 64)
    expected = um.softmax(x, workers=1)
    for workers in range(-cores(), 0):
        np.testing.assert_array_equal(um.softmax(x, workers=workers), expected)
    with pytest.raises(ValueError, match=rf"workers\b.*{-cores() - 1}"):
        um.softmax(x, workers=-cores() - 1)


REPORT = "import json, unitmass as um; print(json.dumps(um.show_config(mode='dicts')))"


def test_the_default_is_every_core():
    assert json.loads(run_child(REPORT))["workers"] == cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_the_affinity_is_respected():
    core = min(os.sched_getaffinity(0))
    out = run_child(f"import os; os.sched_setaffinity(0, {{{core}}})\n{REPORT}")
    assert json.loads(out)["workers"] == 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_environment_sets_the_default(n):
    assert json.loads(run_child(REPORT, UNITMASS_NUM_THREADS=str(n)))["workers"] == n


# --- SIMD -------------------------------------------------------------------------------------------------------------

# One line per export, dtype and width: the hash of every bit it returned.
FINGERPRINT = """
import hashlib, json
import numpy as np, unitmass as um

def fingerprint(*parts):
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()

lines = {}
for dtype in (np.float16, np.float32, np.float64):
    for n in (1, 3, 10, 17, 33, 64, 100, 257, 1000, 5003, 140_001):
        rng = np.random.default_rng(n)
        rows = max(2, min(60, 200_000 // n))
        g = rng.normal(size=(rows, n)).astype(dtype)
        for draw, x in {
            "normal": rng.normal(0, 2, (rows, n)),
            "uniform": rng.uniform(0, 1, (rows, n)),
            "tight": rng.normal(0, 0.01, (rows, n)),
            "wide": rng.normal(0, 1e4, (rows, n)),
        }.items():
            x = x.astype(dtype)
            key = f"{np.dtype(dtype)} {n} {draw}"
            lines["softmax " + key] = fingerprint(um.softmax(x), um.softmax(x, 0.3))
            log_p = um.log_softmax(x)
            lines["log_softmax " + key] = fingerprint(log_p)
            lines["log_softmax_vjp " + key] = fingerprint(um.log_softmax_vjp(log_p, g))
            lines["softmax_vjp " + key] = fingerprint(um.softmax_vjp(um.softmax(x), g))
            p = um.sparsemax(x)
            lines["sparsemax " + key] = fingerprint(p, um.project_simplex(x, 3.0), *um.threshold(x))
            lines["sparsemax_vjp " + key] = fingerprint(um.sparsemax_vjp(p, g), um.project_simplex_vjp(p, g))
            for alpha in (1.0001, 1.25, 1.3, 4 / 3, 1.5, 3):
                p = um.entmax(x, alpha)
                lines[f"entmax {alpha} " + key] = fingerprint(p, *um.threshold(x, alpha))
                lines[f"entmax_vjp {alpha} " + key] = fingerprint(um.entmax_vjp(p, g, alpha=alpha))
                lines[f"entmax_alpha_grad {alpha} " + key] = fingerprint(um.entmax_alpha_grad(p, g, alpha=alpha))
            if n <= 1000:
                lines["bisect " + key] = fingerprint(um.entmax(x, 1.4, method="bisect", n_iter=30))
print(json.dumps({"level": um.show_config(mode="dicts")["simd"]["level"], "lines": lines}))
"""
EXPECTED_LEVELS = {"x86_64": ["sse2", "avx2", "avx512"], "AMD64": ["sse2", "avx2", "avx512"]}


@pytest.fixture(scope="module")
def default_bits():
    return json.loads(run_child(FINGERPRINT))


def available_levels():
    return um.show_config(mode="dicts")["simd"]["available"]


def test_the_simd_level_is_one_of_those_available(default_bits):
    import platform

    absent = [v for v in EXPECTED_LEVELS.get(platform.machine(), ["neon"]) if v not in available_levels()]
    print(f"SIMD levels: {', '.join(available_levels())}; not on this machine: {', '.join(absent) or 'none'}")
    assert default_bits["level"] in available_levels()


@pytest.mark.parametrize("level", available_levels())
def test_every_simd_level_gives_the_same_bits(level, default_bits):
    forced = json.loads(run_child(FINGERPRINT, UNITMASS_SIMD=level))
    assert forced["level"] == level
    assert forced["lines"].keys() == default_bits["lines"].keys()
    differ = [k for k, v in forced["lines"].items() if v != default_bits["lines"][k]]
    assert not differ, f"{len(differ)} of {len(forced['lines'])} differ, as {list(itertools.islice(differ, 6))}"


def test_an_unknown_simd_level_is_named():
    done = subprocess.run(
        [sys.executable, "-c", "import unitmass as um; um.softmax([1.0, 2.0]); um.show_config()"],
        env=os.environ | {"UNITMASS_SIMD": "mmx"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert "UNITMASS_SIMD" in done.stderr
    assert "mmx" in done.stderr


# --- show_config ------------------------------------------------------------------------------------------------------


def test_show_config_prints_what_it_returns(capsys):
    config = um.show_config(mode="dicts")
    assert config["unitmass"] == um.__version__
    assert config["numpy"] == np.__version__
    assert um.show_config() is None
    printed = capsys.readouterr().out
    assert um.__version__ in printed
    assert config["simd"]["level"] in printed
    with pytest.raises(ValueError, match=r"mode\b.*yaml"):
        um.show_config(mode="yaml")
