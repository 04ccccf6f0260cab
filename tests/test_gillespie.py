"""Reaction networks: the language, what a run promises, and laws that are known in closed form, of every engine.

Statistical tests fix their seeds. A bound of 6 standard errors raises a false alarm once in 5e8 draws of a seed.
"""

import copy
import math
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import unitmass as um

SIR = "S + I -> 2 I @ beta\nI -> R @ gamma"
RATES = {"beta": 1e-3, "gamma": 0.05}


METHODS = ("lockstep", "sparse", "next_reaction")


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


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
        ("!A == 0", 1),
        ("not A == 0", 1),
        ("!2 + 3", 3),
        ("(1 < 2) < 3", 1),
        ("1 < 2 and 2 < 3 or 3 > 4", 1),
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
    ("A -> B : 1 < A < 3", "comparisons cannot be chained: write 1 < A and A < 3", 15),
    ("A -> B : 2 * (A + 1 == 1 >= B)", "write A + 1 == 1 and 1 >= B", 25),
    ("A -> B : " + "(" * 1500, "this is nested too deeply", None),
    ("A -> B : " + "-" * 1500 + "A", "this is nested too deeply", None),
    ("A -> B : " + "2^" * 1500 + "A", "this is nested too deeply", None),
    ("B + 0 A -> C @ 1", "A: a multiplicity must be from 1 to 2147483647, found 0", 4),
    ("4294967296 A -> B @ 1", "A: a multiplicity must be from 1 to 2147483647, found 4294967296", 0),
    ("171 A -> B @ 1", "A: mass action takes at most 20 of a species, found 171", 0),
    ("B <-> 21 A @ 1, 1", "A: mass action takes at most 20 of a species, found 21", 0),
    ("A -> t @ 1", "species: 't' is the time", 5),
    ("not -> A @ 1", "species: 'not' is an operator", 0),
    ("  t = 3", "name: 't' is the time", 2),
    ("and := 3", "name: 'and' is an operator", 0),
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


@pytest.mark.parametrize(
    ("expression", "rate"),
    [
        ("k*A*(A - 1)/2", "k"),
        ("(A - 1)*k*A/(1 + 0*0 + 1)", None),
        ("0.5*A*k*(A - 1)", "k"),
        ("2*A*(A - 1)/4", 1),
        ("k*A*max(A - 1, 0)/2", None),
        ("k*k*A*(A - 1)/2", None),
        ("0 + k*A*(A - 1)/2", None),
    ],
)
def test_expressions_of_mass_action_are_recognised(expression, rate):
    """Where they are, the engine takes them in another order: the same bits tell it."""
    text = "2 A -> B {}\n3 A -> C @ 0.1\nB -> 2 A @ 1"
    start = {"t": [1.0, 5.0], "n": 40, "rng": 8, "params": {"k": 0.25}}
    written = um.ReactionNetwork(text.format(f": {expression}"), params={"k": 1}).simulate([60, 0, 0], **start)
    factor = um.ReactionNetwork(text.format(f"@ {rate or 'k'}"), params={"k": 1}).simulate([60, 0, 0], **start)
    assert np.array_equal(written.counts, factor.counts) == (rate is not None)


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
    ens = net.simulate(**options)
    assert np.array_equal(ens["all"], ens["A(b)"] + 2 * ens["A(b!1).A(b!1)"])
    assert np.allclose(ens["brake"], 0.02 / (1 + 2 * ens["pairs"] / 10.4))
    assert "all = A(b) + 2*A(b!1).A(b!1)" in repr(net)
    used = tmp_path / "used.net"
    used.write_text(NET_FILE.replace("4 3,1 3", "4 3,1 0"))
    assert (um.ReactionNetwork.from_bionetgen(used).simulate(**options)["E()"] == 2).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2*k", "2*q", "in parameters: 2 twice 2*q: unknown name 'q'"),
        ("0.5*k #", "0.5*kk #", "in reactions: 1 1,1 2 0.5*kk: unknown rate 'kk', did you mean 'k'"),
        ("4 3,1 3", "4 9,1 3", "there is no species 9"),
        ("2 A(b!1).A(b!1) 0", "2 A(b!1).A(b!1) -3", "a count must not be negative, found -3"),
        ("crowd() 1", "crowd(x) 1", "a function with arguments is not supported"),
        ("begin groups", "begin energies", "a section 'energies' is not known"),
        ("begin groups", "begin energy patterns", "a section 'energy patterns' is not known"),
        ("end species", "", "the section 'species' has no end"),
        ("end groups", "", "the section 'groups' has no end"),
        ("end groups", "end groups\nend groups", "'end groups' ends no section"),
        (NET_FILE, "", "there are no species"),
        ("2 twice 2*k", "3 twice 2*k", "in parameters: 3 twice 2*k: expected the index 2, found 3"),
        ("3 $E() 2", "4 $E() 2", "in species: 4 $E() 2: expected the index 3, found 4"),
        ("2 twice 2*k", "2 k 2", "in parameters: 2 k 2: 'k' is already the name of a parameter"),
        ("3 $E() 2", "3 A(b) 2", "'A(b)' is there twice"),
        ("1 pairs 2", "1 k 2", "'k' is already the name of a parameter"),
        ("2 all 1,2*2", "2 pairs 1", "'pairs' is already the name of a group"),
        ("3 $E() 2", "3 pairs 2", "'pairs' is already the name of a species"),
        ("2 brake()", "2 crowd()", "'crowd' is already the name of a function"),
        ("1 k     0.02", "1 k", "in parameters: 1 k: expected a name and a value, found 'k'"),
        ("3 0 1 3", "3 1 2", "in reactions: 3 1 2: expected reactants, products and a rate, found '1 2'"),
        ("3 0 1 3", "3 x 1 3", "expected the index of a species, found 'x'"),
        ("crowd() 1 +", "crowd 1 +", "expected a function: name() and an expression"),
        ("crowd() 1 +", "crowd() brake() +", "in functions: crowd: crowd depends on itself"),
        ("0.5*k #", "-1*k #", "a rate must be finite and not negative, found -0.02"),
        ("0.5*k #", "k-1 #", "a rate must be finite and not negative, found -0.98"),
        ("2 twice 2*k", "2 or 2*k", "in parameters: 2 or 2*k: 'or' is an operator"),
        ("1 1,1 2", f"1 {'1,' * 20}1 2", "in reactions: A(b): mass action takes at most 20 of a species, found 21"),
        ("0 1 3", "0 1 -3", "a rate must be finite and not negative, found -3"),
        ("begin species", "\u00e9", "is not text in UTF-8"),
    ],
)
def test_a_net_file_that_cannot_be_read_is_named(tmp_path, old, new, message):
    path = tmp_path / "bad.net"
    path.write_text(NET_FILE.replace(old, new), encoding="latin-1")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        um.ReactionNetwork.from_bionetgen(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("rate", "meant", "shown"),
    [
        ("k", "k", "k*A(b)*(A(b)-1)"),
        ("0.5*k", "0.5*k", "0.5*k*A(b)*(A(b)-1)"),
        ("k*2", "2*k", "2*k*A(b)*(A(b)-1)"),
        ("k/4", "0.25*k", "0.25*k*A(b)*(A(b)-1)"),
        ("k*twice", "k*twice", "k*twice*A(b)*(A(b)-1)"),
        ("k + 1", "k + 1", "(k + 1)*A(b)*(A(b)-1)"),
        ("2*brake()", "2*k/(1 + 2*B/start)", "2*brake*A(b)*(A(b)-1)"),
        ("k*time()", "k*t", "k*time()*A(b)*(A(b)-1)"),
        ("start-2*k", "start - 2*k", "(start-2*k)*A(b)*(A(b)-1)"),
    ],
)
def test_rates_of_a_net_file_are_expressions_of_its_parameters(tmp_path, rate, meant, shown):
    path = tmp_path / "x.net"
    path.write_text(NET_FILE.replace("0.5*k #", f"{rate} #"))
    net = um.ReactionNetwork.from_bionetgen(path)
    assert f"2 A(b) -> A(b!1).A(b!1)  : {shown}\n" in repr(net).replace("   :", "  :")
    only = tmp_path / "only.net"
    only.write_text(re.sub(r"(?m)^ +[234] .*_R.*\n|^ +3 0 1 3\n", "", path.read_text()))
    text = um.ReactionNetwork(f"2 A -> B : ({meant}) * A * (A - 1)", params=net.params)
    options = {"t": [0.5, 2.0], "n": 2000, "params": {"k": np.linspace(0.01, 0.2, 2000)}}
    read = um.ReactionNetwork.from_bionetgen(only).simulate(rng=1, **options)["A(b)"]
    wrote = text.simulate({"A": 31}, rng=2, **options)["A"]
    near(read.mean(0), wrote.mean(0), np.sqrt((read.var(0) + wrote.var(0)) / 2000))


def test_functions_of_a_net_file_may_come_in_any_order_and_time_is_time(tmp_path):
    path = tmp_path / "x.net"
    text = NET_FILE.replace("1 crowd() 1 + 2*pairs/start", "1 late() brake() + t*time()").replace(
        "2 twice 2*k", "2 t 3"
    )
    path.write_text(text.replace("k/crowd()", "2*k").replace(" twice #", " t #"))
    net = um.ReactionNetwork.from_bionetgen(path)
    assert list(net.rules) == ["pairs", "all", "late", "brake"]
    assert np.allclose(net.simulate(t=[0, 2], rng=1)["late"], [[0.04, 6.04]])


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
        no(ValueError, "params: b: expected a number, found 'abc'", um.ReactionNetwork, params={"b": "abc"}),
        no(TypeError, r"params: b: expected a number, found \[1, 2\]", um.ReactionNetwork, params={"b": [1, 2]}),
        no(TypeError, r"params: expected a mapping .*, found \[1\]", um.ReactionNetwork, params=[1]),
        no(ValueError, "params: 'or' is an operator", um.ReactionNetwork, params={"or": 1}),
        no(ValueError, "species: 'and' is an operator", NET.add_species, "and"),
        no(ValueError, "rule: 'not' is an operator", NET.add_rule, "not", "1"),
        no(TypeError, "propensity: expected an expression, .* found 3", NET.add_reaction, {}, {}, propensity=3),
        no(ValueError, "Q: a multiplicity must be at most .* found", NET.add_reaction, {}, {"Q": 2**31}, rate=1),
        no(ValueError, "S: mass action takes at most 20", NET.add_reaction, {"S": 171}, {"Q": 1}, rate=1),
        no(TypeError, "reactants: S must be an integer, found 1.5", NET.add_reaction, {"S": 1.5}, {}, rate=1),
        no(TypeError, r"products: expected a mapping .* found \['S'\]", NET.add_reaction, {}, ["S"], rate=1),
        no(TypeError, "species: expected a sequence of names, found 5", run, t=[1], species=5),
        no(ValueError, "unknown name 'X'", NET.add_reaction, {"Q": 1}, {}, propensity="X"),
        no(ValueError, "reactants: expected two dimensions, found 1", um.ReactionNetwork.from_matrices, [1], [0], [1]),
        no(TypeError, "rng: expected a Generator, an integer or None, found 1.5", run, t=[1], rng=1.5),
        no(TypeError, "species: expected a name, a string, found 1", run, t=[1], species=[1]),
        no(ValueError, r"n: must be less than 2\*\*62, found", run, t=[1], n=2**70),
        no(ValueError, "n: must be at least 1, found 0", NET.histogram, "S", t=[1]),
        no(MemoryError, "histogram: .* GiB do not fit; S comes to 1125", NET.histogram, "S", {"S": 2**50}, t=[0], n=1),
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
        no(ValueError, "species: 'S' is named twice", run, t=[1], species=["S", "S"]),
        no(TypeError, "species: expected a sequence of names, found the string 'S'", run, t=[1], species="S"),
        no(ValueError, "workers: ", run, t=[1], workers=0),
        no(ValueError, "n: must be at least 2, found 1", NET.moments, t=[1], n=1),
        no(
            ValueError,
            r"params: beta: .* all trajectories, found shape \(2,\)",
            NET.moments,
            t=[1],
            n=2,
            params={"beta": [1, 2]},
        ),
        no(ValueError, "x0: .* the same for all trajectories", NET.histogram, "S", {"S": [1, 2]}, t=[1], n=2),
        no(MemoryError, "counts: .* GiB do not fit; `moments`", run, t=np.arange(10**6), n=10**9),
    ],
)
def test_refuses(call, args, options, error, message):
    with pytest.raises(error, match=message):
        call(*args, **options)
    assert NET.reactions == ("S + I -> 2 I", "I -> R")
    assert NET.species == ("S", "I", "R")
    assert NET.simulate({"S": 2}, t=[1], rng=1).counts.tolist() == [[[2, 0, 0]]]


def test_memory_that_is_in_use_is_not_there(monkeypatch, tmp_path):
    (tmp_path / "x").write_text("MemTotal: 99999999 kB\nMemAvailable:   100000 kB\n")
    monkeypatch.setattr("unitmass._arguments._MEMORY", ((tmp_path / "x", r"MemAvailable:\s*(\d+) kB", 1024),))
    with pytest.raises(MemoryError, match=r"counts: 0.119 GiB do not fit"):
        NET.simulate(t=np.arange(1000.0), n=5333, rng=1)


def test_of_many_counts_a_failure_shows_the_first():
    net = um.ReactionNetwork()
    for i in range(300):
        net.add_species(f"X{i}", i % 2)
    net.add_reaction({}, {"X298": 1}, propensity="-X1")
    with pytest.raises(ValueError, match=r"where X298 = 0, X1 = 1, X3 = 1, .*, X21 = 1 and 139 more$"):
        net.simulate(t=[1], rng=1)


def test_mappings_are_whatever_has_keys():
    pd = pytest.importorskip("pandas")
    options = {"t": [0, 30], "n": 3, "rng": 3}
    x0, params = {"I": [3, 4, 5], "S": [50, 60, 70]}, {"beta": [0.0, 0.01, 0.02]}
    plain = NET.simulate(x0, params=params, **options)
    table = NET.simulate(pd.DataFrame(x0), params=pd.DataFrame(params), **options)
    assert np.array_equal(table.counts, plain.counts)
    one, series = {"I": 3, "S": 50}, pd.Series({"I": 3, "S": 50})
    rates = pd.Series({"beta": 0.01})
    assert np.array_equal(
        NET.simulate(series, params=rates, **options).counts,
        NET.simulate(one, params={"beta": 0.01}, **options).counts,
    )
    assert (NET.moments(series, params=rates, **options).mean[0] == [50, 3, 0]).all()
    assert NET.events(series, 1, rng=1).species == NET.species
    with pytest.raises(ValueError, match="x0: unknown species 0"):
        NET.simulate(pd.Series([1, 2, 3]), t=[1])


def test_add_species_keeps_what_is_not_said():
    net = um.ReactionNetwork("Food + A -> 2 A @ 0.1")
    net.add_species("Food", 5, fixed=True)
    net.add_species("Food")
    assert "fixed: Food" in repr(net)
    net.add_species("Food", fixed=False)
    assert net.initial == {"Food": 5, "A": 0}
    assert "fixed" not in repr(net)
    net.add_species("Food", 7)
    assert net.initial["Food"] == 7


def test_ensembles_keep_their_rules_and_everything_can_be_pickled():
    net = um.ReactionNetwork("A -> B @ k", params={"k": 1.0, "scale": 2.0})
    net.add_rule("scaled", "scale * A + k")
    k = np.array([0.5, 1.5])
    ens = net.simulate({"A": 9}, t=[0, 1], n=2, rng=1, params={"k": k})
    expected = 2 * ens["A"] + k[:, None]
    k[:] = 7
    net.add_species("A", 3, fixed=True)
    net.add_event("t > 1", {"scale": 3})
    assert np.array_equal(ens["scaled"], expected)
    for again in (pickle.loads(pickle.dumps(ens)), copy.deepcopy(ens)):
        assert np.array_equal(again["scaled"], expected)
        assert again.seed == 1
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert repr(twin) == repr(net)
        options = {"t": [0, 2], "n": 5, "rng": 3}
        assert np.array_equal(twin.simulate({"A": 5}, **options).counts, net.simulate({"A": 5}, **options).counts)
    assert ens == ens
    assert ens != copy.deepcopy(ens)


def test_moments_of_very_many_species_do_not_fit():
    net = um.ReactionNetwork()
    for i in range(20_000):
        net.add_species(f"X{i}")
    with pytest.raises(MemoryError, match=r"cov: .* GiB do not fit; choose fewer with `species`"):
        net.moments(None, np.arange(200), 2)


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


def test_trajectories_depend_on_seed_and_index_alone(method):
    t = np.linspace(0, 100, 11)
    whole = NET.simulate({"S": 99, "I": 1}, t=t, n=200, rng=42, method=method)
    for workers in (1, 2):
        shards = [
            NET.simulate({"S": 99, "I": 1}, t=t, n=n, first=first, rng=42, method=method, workers=workers)
            for first, n in ((0, 1), (1, 130), (131, 69))
        ]
        assert np.array_equal(np.concatenate([shard.counts for shard in shards]), whole.counts)
        assert np.array_equal(np.concatenate([shard.n_events for shard in shards]), whole.n_events)
    some = NET.simulate({"S": 99, "I": 1}, t=t[5:], n=200, rng=42, method=method, species=["R", "S"])
    assert np.array_equal(some.counts, whole.counts[:, 5:, [2, 0]])
    assert not np.array_equal(NET.simulate({"S": 99, "I": 1}, t=t, n=200, rng=43, method=method).counts, whole.counts)


# Counts of trajectories 0, 1 and 10^12 at three times, and their events.
PINNED = {
    ("lockstep", 1): (
        [[[7, 1, 0], [3, 2, 1], [3, 1, 2]], [[3, 3, 0], [1, 3, 1], [3, 2, 1]], [[5, 1, 1], [5, 1, 1], [1, 2, 2]]],
        [30, 26, 19],
    ),
    ("lockstep", 9223372036854775813): (
        [[[5, 2, 0], [3, 2, 1], [3, 1, 2]], [[5, 2, 0], [3, 0, 3], [5, 0, 2]], [[5, 1, 1], [3, 2, 1], [1, 0, 4]]],
        [27, 24, 23],
    ),
    ("sparse", 1): (
        [[[7, 1, 0], [5, 1, 1], [3, 1, 2]], [[7, 1, 0], [5, 1, 1], [3, 2, 1]], [[3, 3, 0], [1, 0, 4], [1, 1, 3]]],
        [42, 27, 15],
    ),
    ("sparse", 9223372036854775813): (
        [[[5, 2, 0], [5, 1, 1], [1, 0, 4]], [[3, 2, 1], [3, 1, 2], [1, 2, 2]], [[3, 3, 0], [7, 1, 0], [3, 1, 2]]],
        [30, 24, 37],
    ),
    ("next_reaction", 1): (
        [[[3, 3, 0], [5, 0, 2], [1, 2, 2]], [[3, 3, 0], [3, 2, 1], [3, 2, 1]], [[3, 3, 0], [3, 2, 1], [3, 2, 1]]],
        [29, 32, 16],
    ),
    ("next_reaction", 9223372036854775813): (
        [[[7, 1, 0], [5, 1, 1], [3, 1, 2]], [[3, 3, 0], [5, 1, 1], [7, 0, 1]], [[7, 1, 0], [3, 2, 1], [5, 1, 1]]],
        [36, 33, 28],
    ),
}


@pytest.mark.parametrize(("method", "seed"), PINNED)
def test_the_streams_are_pinned(method, seed):
    """Other numbers here are an entry in the changelog."""
    net = um.ReactionNetwork("2 A <-> B @ 0.3, 0.7\nB -> C @ 0.4\nC -> 2 A : 0.9 * C / (1 + A)")
    options = {"t": [0.5, 2, 8], "rng": seed, "method": method}
    for workers in (1, 2):
        runs = [net.simulate({"A": 9}, n=n, first=k, workers=workers, **options) for k, n in ((0, 2), (10**12, 1))]
        counts, events = PINNED[method, seed]
        assert np.concatenate([ens.counts for ens in runs]).tolist() == counts
        assert np.concatenate([ens.n_events for ens in runs]).tolist() == events


def test_starts_and_parameters_of_each_trajectory(method):
    s, beta = np.arange(50, 60), np.linspace(0, 0.01, 10)
    each = NET.simulate({"S": s, "I": 3}, t=[0, 30], n=10, rng=3, method=method, params={"beta": beta})
    assert np.array_equal(each["S"][:, 0], s)
    for i in range(10):
        alone = NET.simulate([s[i], 3, 0], t=[0, 30], first=i, rng=3, method=method, params={"beta": beta[i]})
        assert np.array_equal(alone.counts[0], each.counts[i])
    table = np.column_stack([s, np.full(10, 3), np.zeros(10)])
    same = NET.simulate(table, t=[0, 30], n=10, rng=3, method=method, params={"beta": beta})
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
    with pytest.raises(ValueError, match="mean: needs at least 1 trajectory, found 0"):
        NET.simulate(t=[1], n=0, rng=1).mean()
    with pytest.raises(ValueError, match="var: needs at least 2 trajectories, found 1"):
        NET.simulate(t=[1], rng=1).var()
    assert repr(ens) == "Ensemble of 100 trajectories, 3 times, 3 species (seed 9, lockstep)"


def test_what_is_conserved_stays(method):
    ens = NET.simulate({"S": 500, "I": 5, "R": 2}, t=np.linspace(0, 200, 50), n=500, rng=2, method=method)
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


def test_immigration_and_death_make_a_poisson_law(method):
    net = um.ReactionNetwork("-> A @ 10\nA -> @ 0.5")
    ens = net.simulate(t=[0.5, 4], n=50_000, rng=21, method=method)
    for k, t in enumerate(ens.t):
        assert chi_square(ens["A"][:, k], poisson(20 * -math.expm1(-t / 2), 80)) < 6


def test_death_makes_a_binomial_law(method):
    ens = um.ReactionNetwork("A -> @ 2").simulate({"A": 30}, t=[0.3], n=100_000, rng=22, method=method)
    assert chi_square(ens["A"][:, 0], binomial(30, math.exp(-0.6))) < 6


def test_birth_makes_a_geometric_law(method):
    ens = um.ReactionNetwork("A -> 2 A @ 1").simulate({"A": 1}, t=[1.5], n=100_000, rng=23, method=method)
    p = math.exp(-1.5)
    assert chi_square(ens["A"][:, 0], [0, *(p * (1 - p) ** np.arange(100))]) < 6


def test_birth_and_death_die_out_in_time(method):
    """((μ - μ e^{-(λ-μ)t})/(λ - μ e^{-(λ-μ)t}))^n0."""
    up, down, t, n = 1.0, 0.8, 3.0, 100_000
    ens = um.ReactionNetwork("A -> 2 A @ 1\nA -> @ 0.8").simulate({"A": 3}, t=[t], n=n, rng=24, method=method)
    e = math.exp(-(up - down) * t)
    law = ((down - down * e) / (up - down * e)) ** 3
    near((ens["A"] == 0).mean(), law, math.sqrt(law * (1 - law) / n))


def test_events_of_a_source_are_poisson(method):
    ens = um.ReactionNetwork("-> A @ 3\n-> B @ 4").simulate(t=[2], n=100_000, rng=25, method=method)
    assert chi_square(ens.n_events, poisson(14, 60)) < 6
    assert np.array_equal(ens.n_events, ens.counts[:, 0].sum(axis=1))


def propagated(generator, t):
    """The exponential of a generator: a short step squared 20 times, good to 1e-4 standard errors of these tests."""
    step = np.asarray(generator) * t / 2**20
    step = np.eye(len(step)) + step + step @ step / 2
    for _ in range(20):
        step = step @ step
    return step


def test_dimers_follow_the_master_equation(method):
    """2 A <-> B from 9 A."""
    c, d, t = 0.3, 0.7, 1.1
    generator = np.zeros((5, 5))
    for b in range(5):
        a = 9 - 2 * b
        if b + 1 < 5:
            generator[b + 1, b] = c * a * (a - 1) / 2
        if b:
            generator[b - 1, b] = d * b
    generator -= np.diag(generator.sum(axis=0))
    ens = um.ReactionNetwork("2 A <-> B @ 0.3, 0.7").simulate({"A": 9}, t=[t], n=100_000, rng=26, method=method)
    assert chi_square(ens["B"][:, 0], propagated(generator, t)[:, 0]) < 6


def test_complexes_follow_the_master_equation(method):
    """A + B <-> C from 12 A and 7 B."""
    on, off, t = 0.1, 0.5, 0.8
    generator = np.zeros((8, 8))
    for c in range(8):
        if c < 7:
            generator[c + 1, c] = on * (12 - c) * (7 - c)
        if c:
            generator[c - 1, c] = off * c
    generator -= np.diag(generator.sum(axis=0))
    net = um.ReactionNetwork("A + B <-> C @ 0.1, 0.5")
    ens = net.simulate({"A": 12, "B": 7}, t=[t], n=100_000, rng=35, method=method)
    assert chi_square(ens["C"][:, 0], propagated(generator, t)[:, 0]) < 6


def test_monomolecular_counts_are_multinomial_and_poisson(method):
    """A -> B -> C, C -> A from 20 A, and a source of A (Jahnke & Huisinga 2007).

    What was there at the beginning is multinomial with the law of one molecule; what came since is Poisson.
    """
    rates = np.array([[-0.7, 0, 0.2], [0.7, -0.4, 0], [0, 0.4, -0.2]])
    t, source, n = 1.7, 3.0, 100_000
    p = propagated(rates, t)[:, 0]
    steps = (np.arange(200) + 0.5) * t / 200
    came = source * sum(propagated(rates, s)[:, 0] for s in steps) * t / 200
    net = um.ReactionNetwork("A -> B @ 0.7\nB -> C @ 0.4\nC -> A @ 0.2\n-> A @ 3")
    ens = net.simulate({"A": 20}, t=[t], n=n, rng=36, method=method)
    for k, name in enumerate("ABC"):
        law = np.convolve(binomial(20, p[k]), poisson(came[k], 60))
        assert chi_square(ens[name][:, 0], law) < 6
    cov = np.cov(ens.counts[:, 0].T)
    expected = 20 * (np.diag(p) - np.outer(p, p)) + np.diag(came)
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)
    near(cov, expected, error)


def stationary(up, down, size):
    """The law of a birth-death chain: products of its ratios."""
    k = np.arange(size)
    logs = np.concatenate([[0], np.cumsum(np.log(up(k[:-1])) - np.log(down(k[1:])))])
    law = np.exp(logs - logs.max())
    return law / law.sum()


def test_two_states_of_schloegl(method):
    """A bistable chain, by Kolmogorov and Smirnov: sqrt(n) D beyond 3 has probability 3e-8. It starts in its law."""
    a, b, c, d = 3e-2, 1e-4, 25.0, 0.37

    def up(x):
        return a * x * (x - 1) / 2 + c

    def down(x):
        return b * x * (x - 1) * (x - 2) / 6 * 5 + d * x * 5

    law = stationary(up, down, 1500)
    n = 4000
    start = np.random.default_rng(37).choice(law.size, size=n, p=law)
    text = f"2 X -> 3 X @ {a}\n3 X -> 2 X @ {5 * b}\n-> X @ {c}\nX -> @ {5 * d}"
    x = um.ReactionNetwork(text).simulate({"X": start}, t=[2.0], n=n, rng=37, method=method)["X"][:, 0]
    found = np.bincount(x, minlength=law.size).cumsum() / n
    assert math.sqrt(n) * np.abs(found[: law.size] - law.cumsum()).max() < 3


def test_a_telegraph_makes_a_poisson_beta_law(method):
    """A gene that switches on (rate a) and off (b) and makes m (k) that die (1): Poisson of k times a Beta(a, b)."""
    on, off, k = 0.8, 1.5, 30.0
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = (nodes + 1) * math.pi / 4  # p = sin², which tames the ends
    p = np.sin(angle) ** 2
    density = np.sin(angle) ** (2 * on - 1) * np.cos(angle) ** (2 * off - 1) * weights
    density /= density.sum()
    m = np.arange(90)
    logs = m[:, None] * np.log(k * p) - k * p - np.array([math.lgamma(v + 1) for v in m])[:, None]
    law = np.exp(logs) @ density
    assert abs(law.sum() - 1) < 1e-9
    text = "off -> on @ 0.8\non -> off @ 1.5\non -> on + m @ 30\nm -> @ 1"
    ens = um.ReactionNetwork(text).simulate({"off": 1}, t=[30], n=40_000, rng=38, method=method)
    assert chi_square(ens["m"][:, 0], law) < 6


def test_an_epidemic_ends_as_it_should(method):
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
    ens = net.simulate({"S": s0, "I": 1}, t=[1e6], n=100_000, rng=27, method=method)
    assert chi_square(ens["S"][:, 0], final) < 6


GENE = "-> m @ 20\nm -> m + n @ 2.5\nm -> @ 1\nn -> @ 1"
"""The model of the blog: E m = 20, E n = 50, Var m = 20, Var n = 112.5, Cov = 25."""


def test_moments_of_the_gene_model(method):
    n = 50_000 if method == "lockstep" else 4000
    moments = um.ReactionNetwork(GENE).moments(t=[0, 40], n=n, rng=28, method=method)
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


def test_events_are_those_of_the_trajectories(method):
    t = np.linspace(0, 60, 13)
    ens = NET.simulate({"S": [40] * 70, "I": 2}, t=t, n=70, first=3, rng=31, method=method)
    events = NET.events({"S": [40] * 70, "I": 2}, t_max=60, n=70, first=3, rng=31, method=method)
    assert np.array_equal(np.diff(events.offsets), ens.n_events)
    assert events.method == method
    for i in range(70):
        mine = slice(events.offsets[i], events.offsets[i + 1])
        time, state = events.time[mine], events.state[mine]
        assert (np.diff(time) > 0).all()
        states = np.vstack([[40, 2, 0], state])
        assert np.array_equal(states[np.searchsorted(time, t, side="right")], ens.counts[i])
        moves = np.array([[-1, 1, 0], [0, -1, 1]])[events.reaction[mine]]
        assert np.array_equal(np.diff(states, axis=0), moves)
    assert NET.events(t_max=1, n=4, rng=1, method=method).offsets.tolist() == [0] * 5
    assert NET.events(t_max=1, n=0, rng=1, method=method).state.shape == (0, 3)


def test_waiting_times_are_exponential(method):
    """Kolmogorov-Smirnov against the exponential law: sqrt(n) D beyond 3 has probability 3e-8."""
    events = um.ReactionNetwork("-> A @ 2\n-> B @ 3").events(t_max=10_000, rng=32, method=method)
    gaps = np.sort(-np.expm1(-5 * np.diff(events.time)))
    n = gaps.size
    d = max(np.abs(gaps - np.arange(n) / n).max(), np.abs(gaps - np.arange(1, n + 1) / n).max())
    assert math.sqrt(n) * d < 3
    near(np.mean(events.reaction == 0), 0.4, math.sqrt(0.24 / n))


def test_first_passages_are_when_the_events_say(method):
    net = um.ReactionNetwork(GENE, params={"level": 12.0})
    n, t_max = 100, 1.5
    levels = np.linspace(0, 40, n)
    passages = net.first_passage("m >= level", t_max=t_max, n=n, rng=33, method=method, params={"level": levels})
    events = net.events(t_max=t_max, n=n, rng=33, method=method)
    assert np.isinf(passages.time).any()
    assert passages.method == method
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


# --- engines, time and events -----------------------------------------------------------------------------------------


def test_the_engine_is_chosen_by_the_network_alone():
    small, chain = um.ReactionNetwork("A <-> B @ 1, 1"), um.ReactionNetwork()
    for i in range(300):
        chain.add_reaction({f"X{i}": 1}, {f"X{(i + 1) % 300}": 1}, rate=1)
    timed = um.ReactionNetwork("-> A : 1 + t")
    for net, name in ((small, "lockstep"), (chain, "sparse"), (timed, "next_reaction")):
        for n in (1, 50):
            assert net.simulate(t=[1], n=n, rng=1).method == name
    assert small.simulate(t=[1], rng=1, method="sparse").method == "sparse"
    for method in ("lockstep", "sparse"):
        with pytest.raises(ValueError, match="method: only 'next_reaction' runs what depends on time"):
            timed.simulate(t=[1], rng=1, method=method)
    with pytest.raises(ValueError, match="method: expected one of auto, lockstep, sparse, next_reaction, found 'tau'"):
        small.simulate(t=[1], rng=1, method="tau")


def test_rates_may_depend_on_time():
    """Poisson counts with the integral of the rate as their mean: smooth, and with a jump at 2."""
    net = um.ReactionNetwork("-> A : a * exp(-t)\n-> B : if(t < 2, 5, 0)", params={"a": 40})
    ens = net.simulate(t=[0.5, 3], n=10_000, rng=41)
    for k, t in enumerate(ens.t):
        assert chi_square(ens["A"][:, k], poisson(-40 * math.expm1(-t), 100)) < 6
        assert chi_square(ens["B"][:, k], poisson(5 * min(t, 2), 60)) < 6
    grows = um.ReactionNetwork("A -> 2 A : A * t").simulate({"A": 1}, t=[1.2], n=40_000, rng=42)
    p = math.exp(-(1.2**2) / 2)  # Yule's process in the time ∫ s ds
    assert chi_square(grows["A"][:, 0], [0, *(p * (1 - p) ** np.arange(200))]) < 6


def test_rates_compare_time_with_what_does_not_depend_on_it():
    net = um.ReactionNetwork("-> A : if(2 * t > 1, 1, 2)")
    with pytest.raises(ValueError, match="t: time can only be compared with what does not depend on time"):
        net.simulate(t=[1], rng=1)


def test_a_condition_may_depend_on_time():
    passages = um.ReactionNetwork("A -> @ 1").first_passage("t >= 0.25 and A < 9", {"A": 9}, 5, n=2000, rng=43)
    near(np.mean(passages.time == 0.25), -math.expm1(-9 / 4), math.sqrt(0.25 / 2000))
    assert (passages.time >= 0.25).all()


def test_timed_events_come_exactly_then():
    net = um.ReactionNetwork("-> A @ 1\nA -> @ 0.1", params={"level": 40.0})
    net.add_event("t >= 22.5", {"A": "level"})
    ens = net.simulate(t=[22.5 - 1e-9, 22.5, 40], n=20_000, rng=44)
    assert (ens["A"][:, 1] == 40).all()
    assert ens["A"][:, 0].std() > 1
    decay = math.exp(-1.75)
    law = np.convolve(binomial(40, decay), poisson(10 * (1 - decay), 60))
    assert chi_square(ens["A"][:, 2], law) < 6
    assert "at (t >= 22.5): A = level" in repr(net)
    later = um.ReactionNetwork("-> A @ 0")
    later.add_event("t > 1", {"A": 3})
    assert later.simulate(t=[1, 1.0000000001], rng=1)["A"].tolist() == [[0, 3]]


def test_state_events_come_again_when_their_trigger_does():
    """Deaths from 10; whenever 3 are left, 10 come back: each round takes 7 deaths and one event."""
    net = um.ReactionNetwork("A -> D @ 1")
    net.add_species("rounds")
    net.add_event("A <= 3", {"A": 10, "rounds": "rounds + 1"})
    ens = net.simulate({"A": 10}, t=np.linspace(0, 30, 61), n=50, rng=45)
    assert (ens["A"] > 3).all()
    assert np.array_equal(ens["A"], 10 - ens["D"] % 7)
    assert np.array_equal(ens["rounds"], ens["D"] // 7)
    assert np.array_equal(ens.n_events, ens["D"][:, -1] + ens["rounds"][:, -1])


def test_events_change_parameters():
    """A source that is switched on at 1 and off at 3."""
    net = um.ReactionNetwork("-> A @ k\n-> B : 2 * k", params={"k": 0.0, "high": 7.0})
    net.add_event("t >= 1", {"k": "high"})
    net.add_event("t >= 3", {"k": 0})
    ens = net.simulate(t=[1, 3, 9], n=20_000, rng=46, params={"high": np.tile([7.0, 3.5], 10_000)})
    assert (ens.counts[:, 0] == 0).all()
    assert np.array_equal(ens.counts[:, 1], ens.counts[:, 2])
    for half, high in ((0, 7.0), (1, 3.5)):
        assert chi_square(ens["A"][half::2, 1], poisson(2 * high, 60)) < 6
        assert chi_square(ens["B"][half::2, 1], poisson(4 * high, 90)) < 6


def test_events_at_one_time_have_an_order():
    def net(**options):
        net = um.ReactionNetwork(params={"one": 1.0})
        for name in ("A", "B"):
            net.add_species(name, 3)
        net.add_event("t >= 1", {"A": "2 * A"}, priority="5 * one", **options)
        net.add_event("t >= 1", {"A": "A + 1", "B": "A"}, priority=1, **options)
        return net

    t = [0, 1]
    assert net(values_when_triggered=False).simulate(t=t, rng=1).counts[0].tolist() == [[3, 3], [7, 6]]
    assert net(values_when_triggered=True).simulate(t=t, rng=1).counts[0].tolist() == [[3, 3], [4, 3]]
    for persistent, last in ((True, 0), (False, 6)):
        stops = net(values_when_triggered=False)
        stops.add_event("t >= 1 and A == 3", {"A": 0}, priority=0, persistent=persistent)
        assert stops.simulate(t=t, rng=1)["A"][0].tolist() == [3, 7 if not persistent else last]
    at_once = um.ReactionNetwork()
    at_once.add_species("A")
    at_once.add_event("A == 0", {"A": 5}, initial_value=False)
    assert at_once.simulate(t=[0], rng=1)["A"].tolist() == [[5]]
    tie = um.ReactionNetwork()
    tie.add_species("A")
    for value in (1, 2):
        tie.add_event("t >= 1", {"A": value}, priority=3)
    last = tie.simulate(t=[1], n=4000, rng=47)["A"]
    near(np.mean(last == 2), 0.5, math.sqrt(0.25 / 4000))


def test_every_event_is_told_also_those_of_a_trigger():
    net = um.ReactionNetwork("A -> @ 1")
    net.add_event("A <= 2", {"A": 5})
    events = net.events({"A": 4}, 6, n=3, rng=48)
    for i in range(3):
        mine = slice(events.offsets[i], events.offsets[i + 1])
        assert events.state[mine, 0][:4].tolist() == [3, 2, 5, 4]
        assert events.reaction[mine][:4].tolist() == [0, 0, 1, 0]
        assert events.time[mine][1] == events.time[mine][2]


def test_fixed_species_and_rules():
    net = um.ReactionNetwork("Food + A -> 2 A @ 0.1", params={"scale": 2.0})
    net.add_species("Food", 5, fixed=True)
    net.add_rule("biomass", "scale * A + Food")
    net.add_rule("double", "2 * biomass")
    net.add_reaction({"A": 1}, {}, propensity="0.001 * double")
    assert net.initial == {"Food": 5, "A": 0}
    assert net.rules == {"biomass": "scale * A + Food", "double": "2 * biomass"}
    scale = np.linspace(1, 2, 20)
    ens = net.simulate({"A": 3}, t=[1, 2], n=20, rng=49, params={"scale": scale})
    assert (ens["Food"] == 5).all()
    assert np.array_equal(ens["double"], 2 * (scale[:, None] * ens["A"] + 5))
    assert "fixed: Food" in repr(net)
    assert "biomass = scale * A + Food" in repr(net)
    alone = net.simulate({"A": 3}, t=[1], rng=49, species=["Food"])
    with pytest.raises(KeyError, match="the species 'A', on which it depends, was not recorded"):
        alone["biomass"]
    net.add_event("t > 1", {"scale": 3})
    with pytest.raises(KeyError, match="the parameter 'scale', on which it depends, is changed by events"):
        net.simulate(t=[1], rng=1)["biomass"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.add_species("t"), "species: 't' is the time"),
        (lambda net: net.add_species("k"), "species: 'k' is the name of a parameter"),
        (lambda net: net.add_species("A", -1), "initial: must be whole numbers .* found -1"),
        (lambda net: net.add_rule("A", "1"), "rule: 'A' is the name of a species, parameter or rule"),
        (lambda net: net.add_rule("2", "1"), "rule: '2' is not a name"),
        (lambda net: net.add_rule("r", "AA"), "unknown name 'AA', did you mean 'A'"),
        (lambda net: net.add_event("A >", {"A": 1}), "expected a number, a name or"),
        (lambda net: net.add_event("A > 1", {"AA": 1}), "assignments: unknown name 'AA', did you mean 'A'"),
        (
            lambda net: net.add_event("2 * t > 1", {"A": 1}),
            "trigger: time can only be compared, and only with what does not depend on time",
        ),
        (lambda net: net.add_event("t", {"A": 1}), "trigger: time can only be compared"),
        (
            lambda net: (net.add_event("t > 1", {"A": 0.5}), net.simulate(t=[2], rng=1)),
            "species A: the count is 0.5 at t = 1 in trajectory 0, where A = ",
        ),
        (
            lambda net: (
                (net.add_event("A == 0", {"A": 1}), net.add_event("A == 1", {"A": 0})) and net.simulate(t=[2], rng=1)
            ),
            "events: they trigger one another without end at t = ",
        ),
        (lambda net: net.simulate(t=[1], max_events=-1), "max_events: must be at least 0, found -1"),
        (lambda net: net.events(), "t_max: must be finite, found inf"),
        (lambda net: net.events(None, -1), "t_max: must begin at 0 or later"),
    ],
)
def test_refuses_events_rules_and_species(call, message):
    net = um.ReactionNetwork("-> A @ k", params={"k": 1.0})
    with pytest.raises(ValueError, match=message):
        call(net)
    assert net.species == ("A",)
    assert not net.rules


def test_progress_is_told():
    told = []
    GENE_NET = um.ReactionNetwork(GENE)
    GENE_NET.simulate(t=[3000], n=600, rng=50, workers=1, progress=lambda done, n: told.append((done, n)))
    assert told[-1] == (600, 600)
    assert told[0][0] < 600
    assert told == sorted(told)
    told.clear()
    GENE_NET.moments(None, [1], 1000, 50, progress=lambda done, n: told.append((done, n)))
    assert told[-1] == (1000, 1000)

    def stops(done, n):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        GENE_NET.simulate(t=[1e9], n=300, rng=50, progress=stops)


LARGE = um.ReactionNetwork()
for _i in range(200):
    LARGE.add_reaction({f"X{_i}": 1}, {f"X{(_i + 1) % 200}": 1}, rate=1e3)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals to threads")
def test_ctrl_c_stops_a_run_at_once(method):
    """A quarter of a second on a machine that has nothing else to do; left alone, the run takes hours."""
    main = threading.main_thread().ident
    begun = []

    def interrupt():
        begun.append(time.perf_counter())
        signal.pthread_kill(main, signal.SIGINT)

    for workers in (1, 2):
        timer = threading.Timer(0.2, interrupt)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            LARGE.simulate({"X0": 1000}, t=[1e9], n=100, rng=1, method=method, workers=workers)
        assert time.perf_counter() - begun.pop() < 5
        timer.join()


MEMORY = """
import resource
import numpy as np
import unitmass as um
um.ReactionNetwork("A -> @ 1").moments({"A": 1}, [1.0], 10, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net = um.ReactionNetwork("S + I -> 2 I @ 1e-2 \\n I -> R @ 0.3")
moments = net.moments({"S": 20, "I": 1}, np.linspace(0, 250, 251), 100_000, 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_moments_need_the_same_memory_for_any_number_of_trajectories():
    """All counts of these 100,000 trajectories would take 600 MB; moments of them take less than 100 MiB."""
    told = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    assert int(told) < 100 * 1024
