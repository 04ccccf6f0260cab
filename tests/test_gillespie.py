"""Reaction networks: the language, what a run promises, and laws that are known in closed form.

Statistical tests fix their seeds. A bound of 6 standard errors raises a false alarm once in 5e8 draws of a seed.
"""

import math
import re

import numpy as np
import pytest

import unitmass as um

SIR = "S + I -> 2 I @ beta\nI -> R @ gamma"
RATES = {"beta": 1e-3, "gamma": 0.05}


def near(found, expected, error, sigmas=6):
    """Within so many standard errors."""
    found, expected, error = np.broadcast_arrays(found, expected, error)
    off = np.abs(found - expected) / np.where(error > 0, error, 1e-300)
    assert (off < sigmas).all(), f"{found} is not {expected}: off by {off} standard errors"


# --- the language -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("8 - 3 - 2", 3),
        ("8 / 4 / 2", 1),
        ("-2^2", -4),
        ("2^-1", 0.5),
        ("2^3^2", 512),
        ("2 ** 0.5", math.sqrt(2)),
        ("(-2)^3", -8),
        ("pow(7, 8)", 7**8),
        ("7^9", 7**9),
        ("0^0", 1),
        ("- -3", 3),
        ("+3", 3),
        ("1e3 + .5 + 2.", 1002.5),
        ("1 < 2", 1),
        ("2 <= 2 and 3 > 2", 1),
        ("1 >= 2 or 1 == 1", 1),
        ("1 != 1 || 2 < 1", 0),
        ("not 1 < 2", 0),
        ("!0 && 1", 1),
        ("1 - 2 < 0", 1),
        ("if(A > 3, 10, 20)", 10),
        ("exp(1) - 2.718281828459045", 0),
        ("log(k) - log(2.5)", 0),
        ("ln(8) / ln(2)", 3),
        ("log10(1000)", 3),
        ("sqrt(A + 11)", 4),
        ("abs(-A)", 5),
        ("min(3, A, 4) + max(A, 9)", 12),
        ("floor(2.5) + ceil(2.5)", 5),
        ("hill(A, 5, 3)", 0.5),
        ("A * (A - 1) / 2 * k", 25),
    ],
)
def test_expressions_have_their_usual_meaning(text, value):
    """A reaction that runs only where the expression has the value."""
    near = f"abs(({text}) - ({value!r})) < 1e-12 * max(1, abs({value!r}))"
    net = um.ReactionNetwork(f"A -> A + X : if({near}, 1e3, 0)", params={"k": 2.5})
    assert net.simulate({"A": 5}, t=[1], rng=1)["X"] > 0


SYNTAX = [
    ("A - B", "expected '->' or '<->'", 5),
    ("A -> B", "expected '@' and a rate", 6),
    ("A -> B @ ", "expected one rate constant", None),
    ("A -> B @ gama", "unknown parameter 'gama', did you mean 'gamma'", 9),
    ("A -> B @ 2*gamma", "expected a rate constant", 9),
    ("A -> B @ -1", "expected a rate constant", 9),
    ("A -> B @ inf", "unknown parameter 'inf'", 9),
    ("A <-> B @ 1", "expected two rate constants, found 1", 9),
    ("A -> B @ 1, 2", "expected one rate constant, found 2", 8),
    ("A <-> B : 1", "takes two rate constants", 8),
    ("A B -> C @ 1", "expected a species, found 'A B'", 0),
    ("A + + B -> C @ 1", "expected a species, found ''", None),
    ("A -> gamma @ 1", "'gamma' is a parameter", 5),
    ("A -> B : A *", "expected a number, a name or '(', found 'the end'", 12),
    ("A -> B : (A", "expected ')', found 'the end'", 11),
    ("A -> B : A A", "expected an operator, found 'A'", 11),
    ("A -> B : AA", "unknown name 'AA', did you mean 'A'", 9),
    ("A -> B : foo(A)", "unknown function 'foo', did you mean 'floor'", 9),
    ("A -> B : exp(A, A)", "exp: expected 1 arguments, found 2", 9),
    ("A -> B : min(A)", "min: expected at least 2 arguments, found 1", 9),
    ("A -> B : A $ 2", "unexpected '$'", 11),
]


@pytest.mark.parametrize(("line", "message", "at"), SYNTAX, ids=[line for line, _, _ in SYNTAX])
def test_what_cannot_be_read_is_marked(line, message, at):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        um.ReactionNetwork(f"# a comment\n{line}  # another\n", params={"gamma": 1})
    _, shown, mark = str(caught.value).split("\n")
    assert shown == "    " + line.rstrip()
    if at is not None:
        assert mark == " " * (4 + at) + "^"


def test_repr_shows_every_propensity_as_it_is_evaluated():
    text = "2 A + B <-> C @ k, 3\n-> A : k / (1 + A)"
    assert repr(um.ReactionNetwork(text, params={"k": 0.5})) == (
        "ReactionNetwork of 3 species and 3 reactions\n"
        "  2 A + B -> C  : k*A*(A-1)*B/2\n"
        "  C -> 2 A + B  : 3*C\n"
        "  ∅ -> A        : k / (1 + A)\n"
        "  k = 0.5"
    )
    falling = um.ReactionNetwork("3 A -> @ 2", mass_action="falling")
    assert "2*A*(A-1)*(A-2)\n" in repr(falling) + "\n"


@pytest.mark.parametrize(("mass_action", "factor"), [("combinations", 1 / 6), ("falling", 1)])
def test_mass_action_counts_combinations_or_orderings(mass_action, factor):
    """The first event of 3 A -> A + 2 B is exponential in c 5·4·3: its mean tells which."""
    net = um.ReactionNetwork("3 A -> A + 2 B @ 0.01", mass_action=mass_action)
    rate, n, t = 0.01 * 60 * factor, 100_000, 0.8
    alive = 1 - math.exp(-rate * t)
    moved = net.simulate({"A": 5}, t=[t], n=n, rng=11)["B"] > 0
    near(moved.mean(), alive, math.sqrt(alive * (1 - alive) / n))


def test_a_network_can_be_made_in_three_ways():
    text = um.ReactionNetwork("2 A -> B @ 0.5\nB -> 2 A @ 1")
    built = um.ReactionNetwork()
    built.add_reaction({"A": 2}, {"B": 1}, rate=0.5)
    built.add_reaction({"B": 1}, {"A": 2}, rate=1)
    arrays = um.ReactionNetwork.from_matrices([[2, 0], [0, 1]], [[0, 1], [2, 0]], [0.5, 1], species=["A", "B"])
    runs = [net.simulate({"A": 100}, t=[0, 0.1, 1], n=50, rng=5).counts for net in (text, built, arrays)]
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])
    assert text.species == built.species == arrays.species == ("A", "B")
    assert text.reactions == built.reactions == arrays.reactions == ("2 A -> B", "B -> 2 A")


NET_FILE = """\
# made by hand
begin parameters
    1 k     0.02  # Constant
    2 twice 2*k
    3 start 10.4
end parameters
begin functions
    1 crowd() 1 + 2*pairs/start
    2 brake() = k/crowd()
end functions
begin species
    1 A(b) 3*start
    2 A(b!1).A(b!1) 0
    3 $E() 2
end species
begin reactions
    1 1,1 2 0.5*k #_R1
    2 2 1,1 twice #_R2
    3 0 1 3
    4 3,1 3 2*brake() #_R3
end reactions
begin groups
    1 pairs 2
    2 all 1,2*2
end groups
"""


def test_a_net_file_means_what_the_text_means(tmp_path):
    path = tmp_path / "dimers.net"
    path.write_text(NET_FILE)
    net = um.ReactionNetwork.from_bionetgen(path)
    assert net.species == ("A(b)", "A(b!1).A(b!1)", "E()")
    assert net.params == {"k": 0.02, "twice": 0.04, "start": 10.4}
    text = um.ReactionNetwork(
        "2 A -> P @ half\nP -> 2 A @ twice\n-> A @ 3\nE + A -> E : k/(1 + 2*P/start) * 2 * E * A",
        params={**net.params, "half": 0.01},
        mass_action="falling",
    )
    options = {"t": np.linspace(0, 20, 5), "n": 60, "rng": 40}
    read = net.simulate(**options).counts
    written = text.simulate({"A": 31, "E": 2}, **options)
    assert np.array_equal(read, written.counts[:, :, [written.species.index(s) for s in "APE"]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2*k", "2*q", "in parameters: 2 twice 2*q: unknown name 'q'"),
        ("0.5*k #", "0.5*kk #", "in reactions: 1 1,1 2 0.5*kk: unknown rate 'kk', did you mean 'k'"),
        ("4 3,1 3", "4 9,1 3", "there is no species 9"),
        ("4 3,1 3", "4 3,1 0", "the fixed species E() would change"),
        ("crowd() 1", "crowd(x) 1", "a function with arguments is not supported"),
        ("begin groups", "begin energies", "a section 'energies' is not known"),
    ],
)
def test_a_net_file_that_cannot_be_read_is_named(tmp_path, old, new, message):
    path = tmp_path / "bad.net"
    path.write_text(NET_FILE.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        um.ReactionNetwork.from_bionetgen(path)
    assert str(caught.value).startswith(str(path))


def no(error, message, call, *args, **options):
    return pytest.param(call, args, options, error, message, id=message)


NET = um.ReactionNetwork(SIR, params=RATES)
run = NET.simulate


@pytest.mark.parametrize(
    ("call", "args", "options", "error", "message"),
    [
        no(ValueError, "mass_action: .*'other'", um.ReactionNetwork, mass_action="other"),
        no(ValueError, "params: '2a' is not a name", um.ReactionNetwork, params={"2a": 1}),
        no(ValueError, "params: a: must be finite, found nan", um.ReactionNetwork, params={"a": math.nan}),
        no(ValueError, "rate: expected either", NET.add_reaction, {}, {}),
        no(ValueError, "rate: expected either rate", NET.add_reaction, {}, {}, rate=1, propensity="1"),
        no(ValueError, "rate: unknown parameter 'bet', did you mean 'beta'", NET.add_reaction, {}, {}, rate="bet"),
        no(ValueError, "rate: a rate must not be negative, found -1", NET.add_reaction, {}, {}, rate=-1),
        no(ValueError, "reactants: S must not be negative, found -1", NET.add_reaction, {"S": -1}, {}, rate=1),
        no(ValueError, "species: 'beta' is the name of a parameter", NET.add_reaction, {"beta": 1}, {}, rate=1),
        no(ValueError, "species: '2' is not a name", NET.add_reaction, {"2": 1}, {}, rate=1),
        no(
            ValueError,
            r"products: .*\(1, 2\), found \(2, 2\)",
            um.ReactionNetwork.from_matrices,
            [[1, 0]],
            np.eye(2),
            [1],
        ),
        no(ValueError, "rates: expected 1 numbers, found 2", um.ReactionNetwork.from_matrices, [[1]], [[0]], [1, 2]),
        no(
            ValueError,
            "species: expected 1 different",
            um.ReactionNetwork.from_matrices,
            [[1]],
            [[0]],
            [1],
            species="ab",
        ),
        no(ValueError, "reactants: must be whole", um.ReactionNetwork.from_matrices, [[0.5]], [[0]], [1]),
        no(ValueError, "x0: unknown species 'X'", run, {"X": 1}, t=[1]),
        no(ValueError, "x0: S: must be whole numbers .* found -1", run, {"S": -1}, t=[1]),
        no(ValueError, "x0: S: must be whole numbers .* found 0.5", run, {"S": 0.5}, t=[1]),
        no(ValueError, "x0: S: must be finite, found nan", run, {"S": math.nan}, t=[1]),
        no(ValueError, r"x0: .* shape \(2,\), found shape \(3,\)", run, {"S": [1, 2, 3]}, t=[1], n=2),
        no(ValueError, r"x0: expected the shape \(3,\) or \(2, 3\), found \(2,\)", run, [1, 2], t=[1], n=2),
        no(ValueError, "params: unknown parameter 'bet', did you mean 'beta'", run, t=[1], params={"bet": 1}),
        no(
            ValueError, "params: beta: a rate must not be negative, found -1", run, t=[1], params={"beta": [1, -1]}, n=2
        ),
        no(ValueError, "params: beta: must be finite, found inf", run, t=[1], params={"beta": math.inf}),
        no(ValueError, "t: must begin at 0 or later and never fall", run, t=[1, 0]),
        no(ValueError, "t: must begin at 0 or later and never fall", run, t=[-1]),
        no(ValueError, "t: must be finite, found nan", run, t=[math.nan]),
        no(ValueError, "t: expected one dimension, found 2", run, t=[[1]]),
        no(TypeError, "t: expected real numbers", run, t="now"),
        no(ValueError, "n: must be at least 0, found -1", run, t=[1], n=-1),
        no(TypeError, "n: expected an integer, found 1.5", run, t=[1], n=1.5),
        no(ValueError, "first: must be at least 0", run, t=[1], first=-1),
        no(ValueError, r"rng: a seed must be from 0 to 2\*\*64 - 1, found -1", run, t=[1], rng=-1),
        no(ValueError, "species: unknown species 'X'", run, t=[1], species=["X"]),
        no(ValueError, "workers: ", run, t=[1], workers=0),
        no(ValueError, "n: must be at least 2, found 1", NET.moments, t=[1], n=1),
        no(MemoryError, "counts: .* GiB do not fit; `moments`", run, t=np.arange(10**6), n=10**9),
    ],
)
def test_refuses(call, args, options, error, message):
    with pytest.raises(error, match=message):
        call(*args, **options)
    assert NET.reactions == ("S + I -> 2 I", "I -> R")


def test_a_bad_propensity_names_reaction_time_state_and_trajectory():
    net = um.ReactionNetwork("-> A @ 1\nA -> A + B : 5 - A")
    with pytest.raises(
        ValueError, match=r"^reaction 1 \(A -> A \+ B\): the propensity is -1 at t = \S+ in trajectory "
    ) as e:
        net.simulate(t=[1000], n=3, first=7, rng=1)
    assert re.search(r"in trajectory [789], where A = 6, B = \d+$", str(e.value))
    with pytest.raises(
        ValueError, match=r"reaction 0 .*: the propensity is nan at t = 0 in trajectory 0, where A = 0$"
    ):
        um.ReactionNetwork("-> A : 0 / A").simulate(t=[1], rng=1)
    with pytest.raises(ValueError, match=r"^species A: the count is -1 at t = \S+ in trajectory 0, where A = -1$"):
        um.ReactionNetwork("A -> : 1").simulate(t=[1000], rng=1)
    with pytest.raises(ValueError, match=r"^max_events: there are more at t = \S+ in trajectory \d, where A = \d+$"):
        um.ReactionNetwork("-> A @ 1").simulate(t=[1000], n=2, rng=1, max_events=500)


# --- what a run promises ----------------------------------------------------------------------------------------------


def test_trajectories_depend_on_seed_and_index_alone():
    t = np.linspace(0, 100, 11)
    whole = NET.simulate({"S": 99, "I": 1}, t=t, n=200, rng=42)
    for workers in (1, 2):
        shards = [
            NET.simulate({"S": 99, "I": 1}, t=t, n=n, first=first, rng=42, workers=workers)
            for first, n in ((0, 1), (1, 130), (131, 69))
        ]
        assert np.array_equal(np.concatenate([shard.counts for shard in shards]), whole.counts)
        assert np.array_equal(np.concatenate([shard.n_events for shard in shards]), whole.n_events)
    some = NET.simulate({"S": 99, "I": 1}, t=t[5:], n=200, rng=42, species=["R", "S"])
    assert np.array_equal(some.counts, whole.counts[:, 5:, [2, 0]])
    assert not np.array_equal(NET.simulate({"S": 99, "I": 1}, t=t, n=200, rng=43).counts, whole.counts)


def test_starts_and_parameters_of_each_trajectory():
    s, beta = np.arange(50, 60), np.linspace(0, 0.01, 10)
    each = NET.simulate({"S": s, "I": 3}, t=[0, 30], n=10, rng=3, params={"beta": beta})
    assert np.array_equal(each["S"][:, 0], s)
    for i in range(10):
        alone = NET.simulate([s[i], 3, 0], t=[0, 30], first=i, rng=3, params={"beta": beta[i]})
        assert np.array_equal(alone.counts[0], each.counts[i])
    table = np.column_stack([s, np.full(10, 3), np.zeros(10)])
    same = NET.simulate(table, t=[0, 30], n=10, rng=3, params={"beta": beta})
    assert np.array_equal(same.counts, each.counts)


def test_the_seed_reproduces():
    for rng in (None, np.random.default_rng(1), 2**64 - 1):
        ens = NET.simulate({"S": 9, "I": 1}, t=[5, 50], n=20, rng=rng)
        assert np.array_equal(NET.simulate({"S": 9, "I": 1}, t=[5, 50], n=20, rng=ens.seed).counts, ens.counts)
    drawn = np.random.default_rng(1)
    assert NET.simulate(t=[1], rng=drawn).seed != NET.simulate(t=[1], rng=drawn).seed


def test_edges():
    assert NET.simulate(t=[], n=3, rng=1).counts.shape == (3, 0, 3)
    assert NET.simulate(t=[1], n=0, rng=1).counts.shape == (0, 1, 3)
    assert NET.simulate({"S": 5}, t=3, rng=1).counts.tolist() == [[[5, 0, 0]]]
    assert um.ReactionNetwork().simulate(t=[1], rng=1).counts.shape == (1, 1, 0)
    twice = NET.simulate({"S": 50, "I": 5}, t=[0, 0, 7, 7], n=5, rng=1).counts
    assert np.array_equal(twice[:, 0], twice[:, 1])
    assert np.array_equal(twice[:, 2], twice[:, 3])
    huge = um.ReactionNetwork("A -> B @ 1").simulate({"A": 2**53 - 1}, t=[0], rng=1)
    assert huge["A"].item() == 2**53 - 1


def test_an_ensemble_summarises_itself():
    ens = NET.simulate({"S": 30, "I": 2}, t=[0, 10, 20], n=100, rng=9)
    assert np.allclose(ens.mean(), ens.counts.mean(0))
    assert np.allclose(ens.var(), ens.counts.var(0, ddof=1))
    assert np.array_equal(ens.quantile([0.1, 0.5]), np.quantile(ens.counts, [0.1, 0.5], axis=0))
    with pytest.raises(KeyError, match="unknown species 's'"):
        ens["s"]
    assert repr(ens) == "Ensemble of 100 trajectories, 3 times, 3 species (seed 9, lockstep)"


def test_what_is_conserved_stays():
    ens = NET.simulate({"S": 500, "I": 5, "R": 2}, t=np.linspace(0, 200, 50), n=500, rng=2)
    assert (ens.counts.sum(axis=2) == 507).all()
    assert (ens.counts >= 0).all()
    assert (np.diff(ens["R"], axis=1) >= 0).all()
    # Each event of SIR moves one: infections are the lost S, recoveries the gained R.
    assert np.array_equal(ens.n_events, (500 - ens["S"][:, -1]) + (ens["R"][:, -1] - 2))


# --- closed forms -----------------------------------------------------------------------------------------------------


def chi_square(counts, law):
    """Pearson's statistic over the cells that expect ten, in standard deviations from its mean."""
    n = counts.size
    expected = n * np.asarray(law)
    cells = np.flatnonzero(expected >= 10)
    found = np.bincount(counts, minlength=len(law))[: len(law)]
    rest = n - expected[cells].sum(), n - found[cells].sum()
    statistic = ((found[cells] - expected[cells]) ** 2 / expected[cells]).sum()
    if rest[0] > 1:
        statistic += (rest[1] - rest[0]) ** 2 / rest[0]
    return (statistic - cells.size) / math.sqrt(2 * cells.size)


def poisson(mean, size):
    k = np.arange(size)
    return np.exp(k * math.log(mean) - mean - np.array([math.lgamma(v + 1) for v in k]))


def binomial(n, p):
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def test_immigration_and_death_make_a_poisson_law():
    net = um.ReactionNetwork("-> A @ 10\nA -> @ 0.5")
    ens = net.simulate(t=[0.5, 4], n=100_000, rng=21)
    for k, t in enumerate(ens.t):
        assert chi_square(ens["A"][:, k], poisson(20 * -math.expm1(-t / 2), 80)) < 6


def test_death_makes_a_binomial_law():
    ens = um.ReactionNetwork("A -> @ 2").simulate({"A": 30}, t=[0.3], n=100_000, rng=22)
    assert chi_square(ens["A"][:, 0], binomial(30, math.exp(-0.6))) < 6


def test_birth_makes_a_geometric_law():
    ens = um.ReactionNetwork("A -> 2 A @ 1").simulate({"A": 1}, t=[1.5], n=100_000, rng=23)
    p = math.exp(-1.5)
    assert chi_square(ens["A"][:, 0], [0, *(p * (1 - p) ** np.arange(100))]) < 6


def test_birth_and_death_die_out_in_time():
    """((μ - μ e^{-(λ-μ)t})/(λ - μ e^{-(λ-μ)t}))^n0."""
    up, down, t, n = 1.0, 0.8, 3.0, 100_000
    ens = um.ReactionNetwork("A -> 2 A @ 1\nA -> @ 0.8").simulate({"A": 3}, t=[t], n=n, rng=24)
    e = math.exp(-(up - down) * t)
    law = ((down - down * e) / (up - down * e)) ** 3
    near((ens["A"] == 0).mean(), law, math.sqrt(law * (1 - law) / n))


def test_events_of_a_source_are_poisson():
    ens = um.ReactionNetwork("-> A @ 3\n-> B @ 4").simulate(t=[2], n=100_000, rng=25)
    assert chi_square(ens.n_events, poisson(14, 60)) < 6
    assert np.array_equal(ens.n_events, ens.counts[:, 0].sum(axis=1))


def test_dimers_follow_the_master_equation():
    """2 A <-> B from 9 A, by the exponential of the generator of its five states."""
    c, d, t = 0.3, 0.7, 1.1
    size = 5
    generator = np.zeros((size, size))
    for b in range(size):
        a = 9 - 2 * b
        if b + 1 < size:
            generator[b + 1, b] += c * a * (a - 1) / 2
            generator[b, b] -= c * a * (a - 1) / 2
        if b:
            generator[b - 1, b] += d * b
            generator[b, b] -= d * b
    step = np.eye(size) + generator * t / 2**20  # squared 20 times; good to 1e-4 standard errors of the test
    step += (generator * t / 2**20) @ (generator * t / 2**20) / 2
    for _ in range(20):
        step = step @ step
    ens = um.ReactionNetwork("2 A <-> B @ 0.3, 0.7").simulate({"A": 9}, t=[t], n=200_000, rng=26)
    assert chi_square(ens["B"][:, 0], step[:, 0]) < 6


def test_an_epidemic_ends_as_it_should():
    """The law of the final size, by the chain of its infections and recoveries."""
    s0, beta, gamma = 10, 0.02, 0.1
    law = np.zeros((s0 + 1, 2 * s0 + 2))
    law[s0, 1] = 1.0
    final = np.zeros(s0 + 1)
    for s in range(s0, -1, -1):
        for i in range(s0 + 1 - s + 1, 0, -1):
            up = beta * s / (beta * s + gamma)
            if s:
                law[s - 1, i + 1] += law[s, i] * up
            if i > 1:
                law[s, i - 1] += law[s, i] * (1 - up)
            else:
                final[s] += law[s, i] * (1 - up)
    assert abs(final.sum() - 1) < 1e-12
    net = um.ReactionNetwork(SIR, params={"beta": beta, "gamma": gamma})
    ens = net.simulate({"S": s0, "I": 1}, t=[1e6], n=100_000, rng=27)
    assert chi_square(ens["S"][:, 0], final) < 6


GENE = "-> m @ 20\nm -> m + n @ 2.5\nm -> @ 1\nn -> @ 1"
"""The model of the blog: E m = 20, E n = 50, Var m = 20, Var n = 112.5, Cov = 25."""


def test_moments_of_the_gene_model():
    n = 200_000
    moments = um.ReactionNetwork(GENE).moments(t=[0, 40], n=n, rng=28)
    assert (moments.mean[0] == 0).all()
    near(moments.mean[1], [20, 50], moments.standard_error[1])
    cov = np.array([[20, 25], [25, 112.5]])
    # Standard errors of covariances, as if the law were normal, and a margin for its skewness.
    error = 1.2 * np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / n)
    near(moments.cov[1], cov, error)


def test_moments_are_those_of_the_ensemble(monkeypatch):
    options = {"t": [1.0, 5.0], "n": 1000, "rng": 29, "species": ["n", "m"]}
    ens = um.ReactionNetwork(GENE).simulate({"m": 1000}, **options)
    whole = um.ReactionNetwork(GENE).moments({"m": 1000}, **options)
    monkeypatch.setattr("unitmass.gillespie._PART_BYTES", 1 << 11)
    parts = um.ReactionNetwork(GENE).moments({"m": 1000}, **options)
    for moments in (whole, parts):
        np.testing.assert_allclose(moments.mean, ens.mean(), rtol=1e-12)
        np.testing.assert_allclose(moments.var, ens.var(), rtol=1e-9)
        for k in range(2):
            np.testing.assert_allclose(moments.cov[k], np.cov(ens.counts[:, k].T), rtol=1e-9)
        np.testing.assert_allclose(moments.standard_error, np.sqrt(ens.var() / 1000), rtol=1e-9)


def test_a_histogram_counts_counts(monkeypatch):
    options = {"t": [0.0, 2.0, 2.0], "n": 700, "rng": 30}
    ens = um.ReactionNetwork(GENE).simulate({"m": 3}, **options)
    monkeypatch.setattr("unitmass.gillespie._PART_BYTES", 1 << 11)
    found = um.ReactionNetwork(GENE).histogram("n", {"m": 3}, **options)
    assert found.shape == (3, ens["n"].max() + 1)
    for k in range(3):
        assert np.array_equal(found[k], np.bincount(ens["n"][:, k], minlength=found.shape[1]))


# --- every event ------------------------------------------------------------------------------------------------------


def test_events_are_those_of_the_trajectories():
    t = np.linspace(0, 60, 13)
    ens = NET.simulate({"S": [40] * 70, "I": 2}, t=t, n=70, first=3, rng=31)
    events = NET.events({"S": [40] * 70, "I": 2}, t_max=60, n=70, first=3, rng=31)
    assert np.array_equal(np.diff(events.offsets), ens.n_events)
    for i in range(70):
        mine = slice(events.offsets[i], events.offsets[i + 1])
        time, state = events.time[mine], events.state[mine]
        assert (np.diff(time) > 0).all()
        states = np.vstack([[40, 2, 0], state])
        assert np.array_equal(states[np.searchsorted(time, t, side="right")], ens.counts[i])
        moves = np.array([[-1, 1, 0], [0, -1, 1]])[events.reaction[mine]]
        assert np.array_equal(np.diff(states, axis=0), moves)
    assert NET.events(t_max=1, n=4, rng=1).offsets.tolist() == [0] * 5
    assert NET.events(t_max=1, n=0, rng=1).state.shape == (0, 3)


def test_waiting_times_are_exponential():
    """Kolmogorov-Smirnov against the exponential law: sqrt(n) D beyond 3 has probability 3e-8."""
    events = um.ReactionNetwork("-> A @ 2\n-> B @ 3").events(t_max=20_000, rng=32)
    gaps = np.sort(-np.expm1(-5 * np.diff(events.time)))
    n = gaps.size
    d = max(np.abs(gaps - np.arange(n) / n).max(), np.abs(gaps - np.arange(1, n + 1) / n).max())
    assert math.sqrt(n) * d < 3
    near(np.mean(events.reaction == 0), 0.4, math.sqrt(0.24 / n))


def test_first_passages_are_when_the_events_say():
    net = um.ReactionNetwork(GENE, params={"level": 12.0})
    n, t_max = 100, 1.5
    levels = np.linspace(0, 40, n)
    passages = net.first_passage("m >= level", t_max=t_max, n=n, rng=33, params={"level": levels})
    events = net.events(t_max=t_max, n=n, rng=33)
    assert np.isinf(passages.time).any()
    for i in range(n):
        mine = slice(events.offsets[i], events.offsets[i + 1])
        reached = np.flatnonzero(events.state[mine][:, 0] >= levels[i])
        if levels[i] == 0:
            assert passages.time[i] == 0
        elif reached.size:
            assert passages.time[i] == events.time[mine][reached[0]]
            assert np.array_equal(passages.state[i], events.state[mine][reached[0]])
        else:
            assert passages.time[i] == np.inf
            assert np.array_equal(passages.state[i], events.state[mine][-1])
    with pytest.raises(ValueError, match="unknown name 'M', did you mean 'm'"):
        net.first_passage("M > 1", t_max=1)


def test_a_first_passage_has_its_law():
    """From 5 to 0 by death alone: P(T <= t) = (1 - e^-t)^5."""
    n = 100_000
    passages = um.ReactionNetwork("A -> @ 1").first_passage("A == 0", {"A": 5}, t_max=2, n=n, rng=34)
    law = (1 - math.exp(-1.2)) ** 5
    near(np.mean(passages.time <= 1.2), law, math.sqrt(law * (1 - law) / n))
    assert (passages.state[np.isfinite(passages.time)] == 0).all()
