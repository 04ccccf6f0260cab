"""SBML: models mean what the same network means as text, or have the consequences that the specification demands.

Statistical tests fix their seeds. A bound of 6 standard errors raises a false alarm once in 5e8 draws of a seed.
"""

import math
import re
import sys

import dsmts
import libsbml
import numpy as np
import pytest

import unitmass as um

LISTS = (
    "FunctionDefinitions",
    "Compartments",
    "Species",
    "Parameters",
    "InitialAssignments",
    "Rules",
    "Reactions",
    "Events",
)


def math_of(formula):
    """MathML, without what belongs at the head of a file."""
    tree = libsbml.parseL3Formula(formula)
    assert tree is not None, libsbml.getLastParseL3Error()
    return libsbml.writeMathMLToString(tree).split("?>", 1)[1]


def compartment(name="C", size=1, constant="true"):
    value = "" if size is None else f'size="{size}"'
    return "Compartments", f'<compartment id="{name}" spatialDimensions="3" {value} constant="{constant}"/>'


def species(name, amount=None, *, substance="true", boundary="false", constant="false", more=""):
    value = "" if amount is None else f'initialAmount="{amount}"'
    return "Species", (
        f'<species id="{name}" compartment="C" {value} hasOnlySubstanceUnits="{substance}"'
        f' boundaryCondition="{boundary}" constant="{constant}" {more}/>'
    )


def parameter(name, value=None, constant="false"):
    return "Parameters", f'<parameter id="{name}" constant="{constant}"' + (f' value="{value}"/>' if value else "/>")


def function(name, arguments, formula):
    definition = math_of(f"lambda({', '.join([*arguments, formula])})")
    return "FunctionDefinitions", f'<functionDefinition id="{name}">{definition}</functionDefinition>'


def initially(name, formula):
    return "InitialAssignments", (f'<initialAssignment symbol="{name}">{math_of(formula)}</initialAssignment>')


def rule(name, formula, kind="assignmentRule"):
    return "Rules", f'<{kind} variable="{name}">{math_of(formula)}</{kind}>'


def reaction(name, left, right, law, *, modifiers="", local=None, more=""):
    """Sides are like "2 A, B"; those that begin with < are taken as they are."""

    def side(kind, text):
        references = []
        for term in filter(None, text.split(", ")):
            times, _, species = term.rpartition(" ")
            references.append(f'<speciesReference species="{species}" stoichiometry="{times or 1}" constant="true"/>')
        inside = text if text.startswith("<") else "".join(references)
        return f"<listOf{kind}>{inside}</listOf{kind}>" if inside else ""

    inside = side("Reactants", left) + side("Products", right)
    if modifiers:
        references = (f'<modifierSpeciesReference species="{each}"/>' for each in modifiers.split(", "))
        inside += f"<listOfModifiers>{''.join(references)}</listOfModifiers>"
    if law is not None:
        inside += f"<kineticLaw>{math_of(law)}"
        values = "".join(f'<localParameter id="{each}" value="{value}"/>' for each, value in (local or {}).items())
        inside += f"<listOfLocalParameters>{values}</listOfLocalParameters></kineticLaw>" if values else "</kineticLaw>"
    return "Reactions", f'<reaction id="{name}" reversible="false" fast="false" {more}>{inside}</reaction>'


def event(trigger, *, initial="true", persistent="true", when="true", priority=None, name="E", more="", **assignments):
    values = (
        f'<eventAssignment variable="{each}">{math_of(str(v))}</eventAssignment>' for each, v in assignments.items()
    )
    order = "" if priority is None else f"<priority>{math_of(str(priority))}</priority>"
    return "Events", (
        f'<event id="{name}" useValuesFromTriggerTime="{when}">'
        f'<trigger initialValue="{initial}" persistent="{persistent}">{math_of(trigger)}</trigger>'
        f"{order}{more}<listOfEventAssignments>{''.join(values)}</listOfEventAssignments></event>"
    )


def document(*parts, version=1, head="", model=""):
    body = ""
    for name in LISTS:
        inside = "".join(xml for kind, xml in parts if kind == name)
        body += f"<listOf{name}>{inside}</listOf{name}>" if inside else ""
    if version == 2:
        body = body.replace(' fast="false"', "")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<sbml xmlns="http://www.sbml.org/sbml/level3/version{version}/core" level="3" version="{version}" {head}>'
        f'<model id="model" {model}>{body}</model></sbml>'
    )


@pytest.fixture
def read(tmp_path):
    def read(*parts, text=None, **options):
        path = tmp_path / "model.xml"
        path.write_text(text or document(*parts, **options), encoding="utf-8")
        return um.ReactionNetwork.from_sbml(path)

    return read


CELL = compartment()
RUN = {"t": np.linspace(0, 20, 6), "n": 70, "rng": 8}


def same(net, text, params=None, x0=None, method="auto"):
    """Trajectory by trajectory the same as what the text means."""
    written = um.ReactionNetwork(text, params={**net.params, **(params or {})})
    expected = written.simulate({**net.initial, **(x0 or {})}, **RUN, method=method)
    found = net.simulate(**RUN, method=method)
    assert found.n_events.sum() > 0
    assert expected.species == found.species
    assert np.array_equal(found.counts, expected.counts)


# --- the same as text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("method", ["lockstep", "sparse", "next_reaction"])
def test_a_model_means_what_its_text_means(read, method, version):
    net = read(
        CELL,
        *(species(name, amount) for name, amount in (("S", 60), ("I", 3), ("R", None), ("D", "1e1"))),
        parameter("beta", 0.005),
        parameter("k", 7),
        function("infect", ["rate", "a", "b"], "rate * a * b"),
        reaction("infection", "S, I", "2 I", "infect(beta, S, I)"),
        reaction("recovery", "I", "R", "k * I", local={"k": 0.1}),  # hides the other k
        reaction("slow", "R", "S", "k / 1000 * R / (1 + D)", modifiers="D"),
        reaction("dimer", "R, R, I", "I, D", "0.001 * R * (R - 1) / 2 * I"),
        reaction("split", "D", "R, 1 R", "D / 50"),
        version=version,
    )
    assert net.species == ("S", "I", "R", "D")
    assert net.params == {"beta": 0.005, "k": 7, "recovery_k": 0.1, "C": 1}
    assert net.initial == {"S": 60, "I": 3, "R": 0, "D": 10}
    text = """
        S + I -> 2 I : beta*S*I
        I -> R : recovery_k*I
        R -> S : k/1000 * R / (1 + D)
        2 R + I -> I + D : 0.001*R*(R-1)/2*I
        D -> 2 R : D/50
    """
    same(net, text, method=method)
    assert repr(net).splitlines()[:3] == [
        "ReactionNetwork of 4 species and 5 reactions",
        "  S + I -> 2 I      : beta * S * I",
        "  I -> R            : recovery_k * I",
    ]


def test_level_1(read):
    text = """<?xml version="1.0" encoding="UTF-8"?>
        <sbml xmlns="http://www.sbml.org/sbml/level1" level="1" version="2"><model name="m">
        <listOfCompartments><compartment name="C" volume="2"/></listOfCompartments>
        <listOfSpecies>
          <species name="A" compartment="C" initialAmount="40"/>
          <species name="B" compartment="C" initialAmount="4" boundaryCondition="true"/>
        </listOfSpecies>
        <listOfParameters><parameter name="k" value="0.3"/><parameter name="twice"/></listOfParameters>
        <listOfRules><parameterRule name="twice" formula="2 * k"/></listOfRules>
        <listOfReactions><reaction name="R" reversible="false">
          <listOfReactants><speciesReference species="A" stoichiometry="4" denominator="2"/></listOfReactants>
          <listOfProducts><speciesReference species="B"/></listOfProducts>
          <kineticLaw formula="twice * pow(A, 2)"/>
        </reaction></listOfReactions></model></sbml>"""
    net = read(text=text)
    written = um.ReactionNetwork("2 A -> B : 2*0.3*(A/2)^2")
    written.add_species("B", 4, fixed=True)
    ens = net.simulate(**RUN)
    assert np.array_equal(ens.counts, written.simulate({"A": 40}, **RUN).counts)
    assert (ens["twice"] == 0.6).all()


def test_level_2(read):
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
        <sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4"><model>
        <listOfCompartments><compartment id="C" size="2"/></listOfCompartments>
        <listOfSpecies>
          <species id="A" compartment="C" initialConcentration="20"/>
          <species id="B" compartment="C"/>
        </listOfSpecies>
        <listOfReactions><reaction id="R" reversible="false">
          <listOfReactants><speciesReference species="A" stoichiometry="2"/></listOfReactants>
          <listOfProducts><speciesReference species="B"/></listOfProducts>
          <kineticLaw>{math_of("k * A * A")}
            <listOfParameters><parameter id="k" value="0.01"/></listOfParameters>
          </kineticLaw>
        </reaction></listOfReactions>
        <listOfEvents><event><trigger>{math_of("time > 7.5")}</trigger><listOfEventAssignments>
          <eventAssignment variable="B">{math_of("50")}</eventAssignment>
        </listOfEventAssignments></event></listOfEvents>
        </model></sbml>"""
    net = read(text=text)
    written = um.ReactionNetwork("2 A -> B : R_k * (A/C) * (A/C)", params=net.params)
    written.add_event("t > 7.5", {"B": 100})
    assert net.initial == {"A": 40, "B": 0}
    assert np.array_equal(net.simulate(**RUN).counts, written.simulate(net.initial, **RUN).counts)


def test_concentrations_are_amounts_over_sizes(read):
    net = read(
        compartment(size=2.5),
        species("A", 40, substance="false"),
        species("B", substance="false", more='initialConcentration="4"'),
        species("D", more='initialConcentration="4"'),
        species("y", substance="false"),
        rule("y", "2 * A"),
        reaction("R", "A, B", "D", "0.1 * A * B * D"),
        reaction("Q", "", "A", "y * C / 50"),
        reaction("P", "A", "", "A"),
    )
    assert net.initial == {"A": 40, "B": 10, "D": 10}
    same(net, "A + B -> D : 0.1*(A/C)*(B/C)*D\n -> A : 2*(A/C)*C/50\nA -> : A/C")
    ens = net.simulate(**RUN)
    assert np.allclose(ens["y"], 2 * ens["A"], rtol=1e-15)
    assert np.array_equal(ens["y"], 2 * (ens["A"] / 2.5) * 2.5)
    assert "A + B -> D  : 0.1 * (A / C) * (B / C) * D\n" in repr(net)
    assert "  A -> ∅      : A / C\n" in repr(net)
    assert "Q" not in net.rules
    assert net.rules == {"y": "(2 * (A / C)) * C"}


def test_a_size_that_is_changed_changes_concentrations(read):
    net = read(
        compartment(size=2, constant="false"),
        species("A", 40, substance="false"),
        species("B", 12, substance="false"),
        parameter("seen", 1),
        parameter("after", 1),
        event("time >= 1", C=8, B=2, name="E1"),  # B is 2 in the new size
        event("time >= 2", seen="A", after="B", name="E2"),
        event("time >= 3", A="seen + after", name="E3"),
        event("time >= 4", C=4, name="E4"),
        event("time >= 5", B="A", name="E5"),
    )
    ens = net.simulate(t=[0, 1, 3, 5], rng=1)
    assert ens["A"].tolist() == [[40, 40, (40 // 8 + 2) * 8, 56]]
    assert ens["B"].tolist() == [[12, 16, 16, 56]]


def test_boundary_and_constant_species_stay(read):
    net = read(
        CELL,
        species("Source", 0, boundary="true"),
        species("Food", 5, boundary="true", constant="true"),
        species("A", 1),
        reaction("R", "Source", "A", "3"),  # fires, though there is none
        reaction("Q", "Food, A", "2 A", "0.01 * Food * A"),
        event("time >= 10", Source=9),
    )
    ens = net.simulate(**RUN)
    assert (ens["Source"] == [0, 0, 0, 9, 9, 9]).all()
    assert (ens["Food"] == 5).all()
    assert (np.diff(ens["A"]) > 0).any()
    assert "fixed: Source, Food" in repr(net)


# --- maths ------------------------------------------------------------------------------------------------------------

MATHS = [
    ("A + k + 2 - 1", 8.5),
    ("-A + (-2)", -7),
    ("2 * A * k * 3 / 4", 18.75),
    ("2^3^2", 512),
    ("pow(A, 2)", 25),
    ("root(3, 27)", 3),
    ("sqrt(A + 11)", 4),
    ("exp(1)", math.e),
    ("ln(exponentiale^3)", 3),
    ("log10(1000)", 3),
    ("log(2, 32)", 5),
    ("abs(-A)", 5),
    ("floor(2.5) + ceil(2.5)", 5),
    ("min(3, A, 4) + max(A, 9, k)", 12),
    ("factorial(5)", 120),
    ("pi", math.pi),
    ("avogadro", 6.02214179e23),
    ("true + true + false", 2),
    ("1e-4 + 2.5e3 + (1/3)", 2500.0001 + 1 / 3),
    ("2 < A", 1),
    ("2 < A && A < 5", 0),
    ("A <= 5", 1),
    ("A > k", 1),
    ("A >= 5.5", 0),
    ("A == 5", 1),
    ("A != 5", 0),
    ("lt(1, 2, A)", 1),
    ("gt(7, A, A)", 0),
    ("geq(7, A, A, k)", 1),
    ("eq(A, 5, 4)", 0),
    ("and(A > 1, k > 1, A > 9)", 0),
    ("or(A > 9, k > 9, A > 1)", 1),
    ("xor(A > 1, k > 1, A > 2)", 1),
    ("xor(A > 1, k > 1)", 0),
    ("!(A > 1)", 0),
    ("implies(A > 1, k > 9)", 0),
    ("implies(A > 9, k > 9)", 1),
    ("and() + 2 * or() + plus() + times()", 2),
    ("piecewise(1, A < 5, 2, A == 5, 3)", 2),
    ("piecewise(1, A < 5, 2, A < 5, 3)", 3),
    ("piecewise(4, A == 5)", 4),
    ("quotient(-7, 2)", -3),
    ("rem(-7, 2) + rem(A, 3)", 1),
    ("min(A, INF)", 5),
    ("f(A, k)", 2.5 - 10),
    ("f(g(k, A), ten())", 10 - 2 * -7.5),
    ("made", 0.25),
    ("reactants", 3),
    ("z", 6.5),
    (" + ".join(["A"] * 3000), 15000),
]


@pytest.mark.parametrize(("formula", "value"), MATHS, ids=[formula[:40] for formula, _ in MATHS])
def test_maths_has_its_meaning(read, formula, value):
    """By the kernel, in a reaction that runs only where the formula has the value, and by an ensemble's rules."""
    three = '<speciesReference id="reactants" species="A" stoichiometry="3" constant="true"/>'
    net = read(
        CELL,
        species("A", 5, boundary="true"),
        species("X"),
        parameter("k", 2.5),
        *(parameter(name) for name in "yz"),
        function("g", "xy", "x - 2 * y"),
        function("f", "xy", "g(y, x)"),
        function("ten", "", "10"),
        rule("y", formula),
        rule("z", "k + 4"),
        reaction("made", three, "", "k / 10"),
        reaction("R", "", "X", f"piecewise(1e3, abs(y - ({value!r})) <= 1e-14 * max(1, abs({value!r})), 0)"),
        version=2,
    )
    ens = net.simulate(t=[1], rng=1)
    assert ens["X"] > 0
    assert ens["y"].item() == pytest.approx(value, rel=1e-14)


def test_time_in_rates(read):
    net = read(
        CELL,
        species("A"),
        species("B"),
        reaction("R", "", "A", "piecewise(4, (time >= 5) && !(time >= 10), 0)"),
        reaction("Q", "", "B", "1 + exp(-time)"),
    )
    same(net, " -> A : if(t >= 5 and not t >= 10, 4, 0)\n -> B : 1 + exp(-t)")


def test_names_that_mean_something_elsewhere(read):
    """A species t beside the time, which its element calls t, too; and parameters exp and lambda."""
    time = '<csymbol encoding="text" definitionURL="http://www.sbml.org/sbml/symbols/time"> t </csymbol>'
    law = (
        "<apply><times/><ci>exp</ci><ci>t</ci><ci>lambda</ci><apply><exp/><apply><minus/>"
        + time
        + "</apply></apply></apply>"
    )
    kinetic = f'<kineticLaw><math xmlns="http://www.w3.org/1998/Math/MathML">{law}</math></kineticLaw>'
    body = '<reaction id="R" reversible="false" fast="false"><listOfReactants><speciesReference species="t"'
    body += f' stoichiometry="1" constant="true"/></listOfReactants>{kinetic}</reaction>'
    net = read(
        compartment(size=2),
        species("t", 50, substance="false"),
        parameter("exp", 0.5),
        parameter("lambda", 0.6),
        ("Reactions", body),
    )
    assert "  : exp * (t / C) * lambda * exp(-time)\n" in repr(net)
    written = um.ReactionNetwork("A -> : a*(A/C)*b*exp(-t)", params={"a": 0.5, "b": 0.6, "C": 2})
    assert np.array_equal(net.simulate(**RUN).counts, written.simulate({"A": 50}, **RUN).counts)


def test_values_at_time_0_depend_on_one_another(read):
    net = read(
        compartment(size=1, constant="false"),
        species("A", 1, substance="false"),
        species("B"),
        species("D"),
        *(parameter(name) for name in ("k", "r", "p", "unused")),
        initially("A", "B / 10"),
        initially("B", "p * 2 + time"),
        initially("p", "r * k"),
        initially("C", "k - 1"),
        initially("k", "3"),
        initially("D", "R"),
        rule("r", "k + 17"),
        reaction("R", "A", "", "A * C / 4"),
    )
    assert net.initial == {"A": 12 * 2, "B": 120, "D": 6}
    assert net.params == {"k": 3, "p": 60, "C": 2}


def test_rules_in_any_order(read):
    net = read(
        compartment(constant="false", size=None),
        species("A", 8, substance="false"),
        species("top"),
        *(parameter(name) for name in "pq"),
        parameter("k", 2),
        rule("top", "p + q"),
        rule("p", "q * k"),
        rule("q", "A + 1"),
        rule("C", "2 * k"),
        reaction("R", "A", "", "top * A / 100"),
        initially("k", "4 / 2"),
    )
    ens = net.simulate(**RUN)
    assert np.array_equal(ens["top"], (ens["A"] / 4 + 1) * 2 + (ens["A"] / 4 + 1))
    assert (ens["C"] == 4).all()
    same(net, "A -> : ((A/(2*k) + 1)*k + (A/(2*k) + 1)) * (A/(2*k)) / 100")


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("initial", "expected"), [("false", 7), ("true", 1)])
def test_the_trigger_before_time_0(read, initial, expected):
    net = read(CELL, species("A", 1), event("time >= 0", initial=initial, A=7))
    assert (net.simulate(t=[0, 1], rng=1)["A"] == expected).all()


def test_several_assignments_are_made_at_once(read):
    net = read(CELL, species("A", 1), species("B", 2), event("time >= 22.5", A="B", B="A"))
    ens = net.simulate(t=[22.4, 22.5, 30], rng=1)
    assert ens.counts.tolist() == [[[1, 2], [2, 1], [2, 1]]]


def test_priorities(read):
    """The digits of A tell the order."""
    net = read(
        CELL,
        species("A", 0),
        species("B", 2),
        *(
            event("time > 1", A=f"10 * A + {digit}", when="false", name=f"E{digit}", priority=priority)
            for digit, priority in enumerate((None, "1 - B", 5, "B", 3))
        ),
    )
    assert (net.simulate(t=[2], n=20, rng=1)["A"] == 24310).all()


@pytest.mark.parametrize(("persistent", "expected"), [("true", [5, 9]), ("false", [5, 0])])
def test_persistence(read, persistent, expected):
    """The first makes the trigger of the second false again."""
    net = read(
        CELL,
        species("A", 0),
        species("B", 0),
        event("time >= 1", A=5, priority=2, name="E1"),
        event("(time >= 1) && (A < 3)", B=9, priority=1, persistent=persistent, name="E2"),
    )
    assert net.simulate(t=[1], rng=1).counts.tolist() == [[expected]]


@pytest.mark.parametrize(("when", "expected"), [("true", 0), ("false", 5)])
def test_values_when_triggered(read, when, expected):
    net = read(
        CELL,
        species("A", 0),
        species("B", 7),
        event("time >= 1", A=5, priority=2, name="E1"),
        event("time >= 1", B="A", priority=1, when=when, name="E2"),
    )
    assert (net.simulate(t=[1], rng=1)["B"] == expected).all()


def test_a_state_event_arms_again(read):
    """Births from 0; above 3, back to 0: what was born, modulo 4."""
    net = read(
        CELL,
        species("A"),
        species("born"),
        parameter("limit"),
        rule("limit", "A - 3"),
        reaction("R", "", "A, born", "1"),
        event("(limit > 0) && (time >= 0)", A=0),
    )
    ens = net.simulate(**RUN)
    assert np.array_equal(ens["A"], ens["born"] % 4)
    assert (ens["born"] > 8).any()


def test_a_trigger_may_hold_time_in_any_logic(read):
    net = read(CELL, species("A"), event("xor(time >= 2, time > 5, A > 3)", A="A + 1"), version=2)
    # Up at 2; down after 5.
    assert net.simulate(t=[1, 2, 4, 6, 9], rng=1)["A"].tolist() == [[0, 1, 1, 1, 1]]
    net = read(CELL, species("A"), event("!(time < 3) || implies(true, time == 1)", A="A + 1"), version=2)
    assert net.simulate(t=[0.5, 1, 2.5, 3, 9], rng=1)["A"].tolist() == [[0, 1, 1, 2, 2]]


def test_a_rate_that_an_event_changes(read):
    """A A of 20 lives on to 2 with probability exp(-0.5 1.5 - 2 0.5)."""
    net = read(
        CELL,
        species("A", 20),
        parameter("k", 0.5),
        reaction("R", "A", "", "k * A"),
        event("time >= 1.5", k="4 * k"),
    )
    n, p = 20_000, math.exp(-0.5 * 1.5 - 2 * 0.5)
    off = net.simulate(t=[2], n=n, rng=3)["A"].mean() - 20 * p
    assert abs(off) < 6 * math.sqrt(20 * p * (1 - p) / n)


# --- what is refused --------------------------------------------------------------------------------------------------

A, K, DEATH = species("A", 5), parameter("k", 1), reaction("R", "A", "", "A")
REFERENCE = '<speciesReference id="ref" species="A" {} constant="false"/>'
DELAY = f"<delay>{math_of('2')}</delay>"
ALGEBRAIC = "Rules", f"<algebraicRule>{math_of('k - A')}</algebraicRule>"
COMP = 'xmlns:comp="http://www.sbml.org/sbml/level3/version1/comp/version1" comp:required="true"'
NEW = 'xmlns:new="http://www.sbml.org/sbml/level3/version1/new/version1" new:required="true"'


def no(message, *parts, **options):
    return pytest.param(message, parts, options, id=message[:60])


@pytest.mark.parametrize(
    ("message", "parts", "options"),
    [
        no("event late: delays are not supported", A, event("A > 1", A=0, name="late", more=DELAY)),
        no("reaction R: delay is not supported", A, reaction("R", "A", "", "delay(A, 2)")),
        no("the algebraic rule k - A is not supported", A, K, ALGEBRAIC),
        no("the rate rule of k is not supported", A, K, rule("k", "A", "rateRule")),
        no("reaction R: rateOf is not supported", A, K, reaction("R", "A", "", "rateOf(k)"), version=2),
        no("reaction R: sin is not supported", A, reaction("R", "A", "", "1 + sin(A)")),
        no("the rule of k: tanh is not supported", A, K, rule("k", "tanh(A)")),
        no("event E: cos is not supported", A, event("A > 1", A="cos(A)")),
        no("reaction R: factorial is not supported but of", A, reaction("R", "A", "", "factorial(A)")),
        no("reaction R: factorial is not supported but of", A, reaction("R", "A", "", "factorial(171)")),
        no("the stoichiometry of A must be a whole number, found 1.5", A, reaction("R", "1.5 A", "", "A")),
        no("must be a whole number, found nan", A, reaction("R", REFERENCE.format(""), "", "A")),
        no(
            "ref: a stoichiometry that is not a plain number",
            A,
            reaction("R", "", REFERENCE.format('stoichiometry="1"'), "A"),
            rule("ref", "A"),
        ),
        no(
            "ref: a stoichiometry that is not a plain number",
            A,
            reaction("R", REFERENCE.format('stoichiometry="1"'), "", "A"),
            event("A > 1", ref="2"),
        ),
        no(
            "species A: conversion factors are",
            parameter("k", 1, "true"),
            species("A", 1, more='conversionFactor="k"'),
        ),
        no(
            "model model: conversion factors are",
            parameter("k", 1, "true"),
            A,
            model='conversionFactor="k"',
        ),
        no("reaction R: there is no kinetic law", A, reaction("R", "A", "", None)),
        no("the package comp is not supported", A, head=COMP),
        no("requires an SBML Level 3 package unavailable", A, head=NEW),
        no("species A: the initial amount must be a whole number from 0 to 2**53, found 1.5", species("A", 1.5)),
        no("species A: the initial amount must be a whole number from 0 to 2**53, found -1", species("A", -1)),
        no("species A: the initial amount must be a whole number from 0 to 2**53, found 1e+17", species("A", "1e17")),
        no("species A: the value of A at time 0 must be finite, found inf", species("A", "INF")),
        no(
            "species A: the size of C must be positive, found 0",
            species("A", 1, substance="false"),
            initially("C", "0"),
        ),
        no("parameter k: the value of k at time 0 must be finite, found nan", K, initially("k", "0 / 0")),
        no("reaction R: k has no value", A, parameter("k"), reaction("R", "A", "", "k * A")),
        no("event E: k has no value", A, parameter("k"), event("A > 1", k=2)),
        no("A depends on itself", species("A", 5, substance="false"), rule("C", "R"), DEATH),
        no("event E: trigger: time can only be compared", A, event("time - A > 1", A=0)),
        no("event E: trigger: time can only be compared", A, event("sqrt(time) > 1", A=0)),
        no("reaction R: t: time can only be compared", A, reaction("R", "A", "", "rem(time, 2) * A"), version=2),
        no("event E: there is no trigger", A, ("Events", '<event id="E" useValuesFromTriggerTime="true"/>'), version=2),
        no("the rule of k: there is no maths", A, K, ("Rules", '<assignmentRule variable="k"/>'), version=2),
        # By libsbml.
        no("'B'", A, reaction("R", "B", "", "A")),
        no("'k'", A, reaction("R", "A", "", "k * A")),
        no("Duplicate 'id' attribute value", A, A),
        no("Circular dependencies", *(parameter(name) for name in "ab"), rule("a", "b"), rule("b", "a")),
        no("Recursive function definitions", function("f", "x", "f(x)")),
        no("there is no model", text=document(version=2).replace('<model id="model" ></model>', "")),
        no("line 1: Unclosed token: Unclosed XML token.", text='<?xml version="1.0" encoding="UTF-8"?><sbml'),
    ],
)
def test_refuses(read, tmp_path, message, parts, options):
    cell = compartment(constant="false")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(cell, *parts, **options)
    assert str(caught.value).startswith(f"{tmp_path / 'model.xml'}: ")


def test_refuses_what_older_levels_have(read, tmp_path):
    text = document(CELL, A, DEATH)
    with pytest.raises(ValueError, match="reaction R: fast reactions are not supported"):
        read(text=text.replace('fast="false"', 'fast="true"'))
    level_2 = text.replace("level3/version1/core", "level2/version4").replace(
        'level="3" version="1"', 'level="2" version="4"'
    )
    for name in ('constant="true"', 'spatialDimensions="3"'):
        level_2 = level_2.replace(name, "")
    mathematical = f"<stoichiometryMath>{math_of('A + 1')}</stoichiometryMath>"
    reference = '<speciesReference species="A" stoichiometry="1" />'
    assert reference in level_2
    changed = level_2.replace(reference, f'<speciesReference species="A">{mathematical}</speciesReference>')
    assert read(text=level_2).reactions == ("A -> ∅",)
    with pytest.raises(ValueError, match="reaction R: the stoichiometry of A is not a plain number"):
        read(text=changed)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.xml"):
        um.ReactionNetwork.from_sbml(tmp_path / "model.xml")


def test_without_libsbml(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "libsbml", None)
    with pytest.raises(ImportError, match=re.escape('pip install "unitmass[sbml]"')):
        um.ReactionNetwork.from_sbml(tmp_path / "model.xml")


# --- the runner of the stochastic test suite --------------------------------------------------------------------------

SETTINGS = """start: 0
duration: 2
steps: 2
variables: A, B, y
absolute: {empty}
amount: A, B
concentration: y
output: A-mean, A-sd, B-sd, y-mean
meanRange: (-3, 3)
sdRange: (-5, 5)
"""


def case(folder, *, mean=1.0, sd=1.0, fixed="7", leak="0"):
    """Deaths, a species that stays but for a leak, and a concentration; the file's numbers times factors."""
    folder.mkdir(parents=True)
    parts = (
        compartment(size=4),
        species("A", 30),
        species("B", 7),
        species("y", substance="false"),
        rule("y", "A / 4"),
        DEATH,
        reaction("leak", "B", "", f"{leak} * B"),
    )
    (folder / f"{folder.name}-sbml-l3v1.xml").write_text(document(*parts))
    (folder / f"{folder.name}-sbml-l2v4.xml").write_text("an older one")
    (folder / f"{folder.name}-settings.txt").write_text(SETTINGS.format(empty=""))
    lines = ["time,A-mean,A-sd,B-mean,B-sd,y-mean,y-sd"]
    for t in range(3):
        p = math.exp(-t)
        m, s = 30 * p * (mean if t else 1), math.sqrt(30 * p * (1 - p)) * sd
        lines.append(f"{t},{m:.7g},{s:.7g},{fixed},0,{30 * p / 4:.7g},{s / 4:.7g}")
    (folder / f"{folder.name}-results.csv").write_text("\n".join(lines) + "\n")


def test_the_runner_passes_what_is_right(tmp_path, capsys):
    """By its own account a false alarm in at most one of a thousand draws of a seed."""
    case(tmp_path / "00001")
    assert dsmts.main([str(tmp_path), "--n", "30000", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"00001 model +\S+ events/s  mean:  0 of   6 miss, \|Z\| to +\S+  sd:  0 of   6 miss.*PASS", out)
    assert "1 of 1 cases pass" in out


@pytest.mark.parametrize("wrong", [{"mean": 1.02}, {"sd": 1.05}, {"fixed": "7.000001"}, {"leak": "1e-5"}], ids=str)
def test_the_runner_fails_what_is_wrong(tmp_path, capsys, wrong):
    """1 % of the mean are 8 standard errors, 4 % of the deviation 10."""
    case(tmp_path / "00001")
    case(tmp_path / "00002", **wrong)
    settings = tmp_path / "00002" / "00002-settings.txt"
    if "leak" not in wrong:  # a few of 30,000 trajectories: the deviation alone must tell
        settings.write_text(settings.read_text().replace("B-sd", "B-sd, B-mean"))
    assert dsmts.main([str(tmp_path), "--n", "30000", "--seed", "2"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert "PASS" in out[0]
    assert "FAIL" in out[1]
    assert out[2].startswith("1 of 2 cases pass")


def test_the_runner_without_cases(tmp_path, capsys):
    assert dsmts.main([str(tmp_path)]) == 2
    assert "there are no cases" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        dsmts.main([str(tmp_path), "--n", "1"])
    assert caught.value.code == 2
