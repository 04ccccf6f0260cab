//! The lockstep engine: bit for bit with a scalar reference, and in law with closed forms.

mod common;

use fearless_simd::{Level, Simd, dispatch, f64x8, prelude::*};
use fearless_simd_macros::simd;
use proptest::prelude::*;
use unitmass_core::{
    error::{Error, Reason},
    gillespie::{Job, Network, Op, Output, PerTrajectory, Program, Propensity, Reaction, simulate},
    parallel::Run,
    rng::Stream,
    simd,
};

use common::every_level;

#[simd]
fn natural_log<S: Simd>(simd: S, x: f64) -> f64 {
    simd::ln::<f64, S>(f64x8::splat(simd, x))[0]
}

/// The logarithm of the engine, at the level that computes fused operations in software.
fn ln(x: f64) -> f64 {
    let (_, level) = simd::levels()[simd::levels().len() - 1];
    dispatch!(level, simd => natural_log(simd, x))
}

fn mass_action(
    constant: usize,
    reactants: &[(usize, usize)],
    changes: &[(usize, i32)],
) -> Reaction {
    Reaction {
        propensity: Propensity::MassAction {
            constant,
            reactants: reactants.to_vec(),
        },
        changes: changes.to_vec(),
    }
}

fn program(ops: &[Op], changes: &[(usize, i32)]) -> Reaction {
    Reaction {
        propensity: Propensity::Program(Program::new(ops.to_vec()).unwrap()),
        changes: changes.to_vec(),
    }
}

/// What an expression is worth, one operation after the other.
fn value(ops: &[Op], constants: &[f64], x: &[f64]) -> f64 {
    let mut stack: Vec<f64> = Vec::new();
    for op in ops {
        let at = stack.len() - op.operands();
        let a = stack.split_off(at);
        stack.push(match *op {
            Op::Number(v) => v,
            Op::Constant(i) => constants[i],
            Op::Species(i) => x[i],
            Op::Add => a[0] + a[1],
            Op::Sub => a[0] - a[1],
            Op::Mul => a[0] * a[1],
            Op::Div => a[0] / a[1],
            Op::Lt => f64::from(a[0] < a[1]),
            Op::If if a[0] != 0.0 => a[1],
            Op::If => a[2],
            Op::Max => a[0].max(a[1]),
            other => panic!("the reference has no {other:?}"),
        });
    }
    stack[0]
}

/// Gillespie's direct method as it is written, with the engine's order of reactions and numbers.
fn reference(
    job: &Job<'_>,
    reactions: &[Reaction],
    x: &[f64],
    constants: &[f64],
    index: u64,
) -> (Vec<i64>, u64) {
    let kind = |reaction: &Reaction| match &reaction.propensity {
        Propensity::MassAction { reactants, .. } => match reactants[..] {
            [] => 0,
            [(_, 1)] => 1,
            [(_, 1), (_, 1)] => 2,
            [(_, 2)] => 3,
            _ => 4,
        },
        Propensity::Program(_) => 5,
    };
    let mut order: Vec<&Reaction> = reactions.iter().collect();
    order.sort_by_key(|reaction| kind(reaction));
    let propensity = |reaction: &Reaction, x: &[f64]| match &reaction.propensity {
        Propensity::MassAction {
            constant,
            reactants,
        } => {
            let mut a = constants[*constant];
            for &(species, times) in reactants {
                for taken in 0..times {
                    a *= x[species] - taken as f64;
                }
            }
            a
        }
        Propensity::Program(program) => value(program.ops(), constants, x),
    };
    let mut stream = Stream::new(job.seed, index);
    let mut one_to_two = || f64::from_bits((stream.next_u64() >> 12) | 1f64.to_bits());
    let (mut x, mut t, mut events, mut out) = (x.to_vec(), 0.0, 0, Vec::new());
    let mut times = job.times.iter().peekable();
    while times.peek().is_some() {
        let mut sum = 0.0;
        let sums: Vec<f64> = order
            .iter()
            .map(|reaction| {
                sum += propensity(reaction, &x);
                sum
            })
            .collect();
        let (first, second) = (one_to_two(), one_to_two());
        let next = if sum > 0.0 {
            t + -ln(2.0 - first) / sum
        } else {
            f64::INFINITY
        };
        while times.next_if(|&&time| time < next).is_some() {
            out.extend(job.species.iter().map(|&species| x[species] as i64));
        }
        let drawn = (second - 1.0) * sum;
        if times.peek().is_some()
            && let Some(fired) = sums.iter().position(|&sum| drawn < sum)
        {
            for &(species, by) in &order[fired].changes {
                x[species] += f64::from(by);
            }
            events += 1;
        }
        t = next;
    }
    (out, events)
}

fn run<R>(level: Level, workers: usize, call: impl FnOnce(&mut Run<'_>) -> R) -> R {
    call(&mut Run {
        level,
        workers,
        watch: &mut || true,
    })
}

fn output<'a>(counts: &'a mut [i64], events: &'a mut [u64]) -> Output<'a> {
    Output {
        counts,
        events,
        stopped: &mut [],
        log: &mut [],
    }
}

fn simulated(
    job: &Job<'_>,
    n: usize,
    level: Level,
    workers: usize,
) -> Result<(Vec<i64>, Vec<u64>), Error> {
    let mut out = vec![-1; n * job.times.len() * job.species.len()];
    let mut events = vec![0; n];
    let output = output(&mut out, &mut events);
    run(level, workers, |run| simulate(run, job, output))?;
    Ok((out, events))
}

/// Every form of propensity, and a reaction that uses up what it needs.
fn every_kind() -> Vec<Reaction> {
    use Op::{Add, Constant, Div, If, Lt, Max, Mul, Number, Species, Sub};
    vec![
        program(
            &[
                Constant(0),
                Species(1),
                Mul,
                Number(5.0),
                Species(1),
                Add,
                Div,
            ],
            &[(2, 1)],
        ),
        mass_action(1, &[(0, 2)], &[(0, -2), (1, 1)]),
        mass_action(0, &[], &[(0, 1)]),
        mass_action(2, &[(0, 1), (1, 1)], &[(0, -1)]),
        mass_action(3, &[(1, 1)], &[(1, -1), (0, 2)]),
        mass_action(1, &[(0, 2), (2, 1)], &[(2, -1)]),
        mass_action(3, &[(2, 3)], &[(2, -3)]),
        program(
            &[
                Species(2),
                Number(3.0),
                Lt,
                Number(0.0),
                Species(2),
                Number(2.0),
                Sub,
                Constant(3),
                Mul,
                If,
            ],
            &[(2, -3)],
        ),
        program(
            &[Species(0), Number(20.0), Sub, Number(0.0), Max],
            &[(0, -20)],
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn trajectories_are_those_of_the_scalar_reference(seed in any::<u64>(), first in any::<u64>(), n in 1usize..80) {
        let reactions = every_kind();
        let network = Network::new(3, 4, reactions.clone()).unwrap();
        let mut numbers = common::Numbers::new(seed);
        let start: Vec<f64> = (0..3 * n).map(|_| numbers.uniform(0.0, 30.0).floor()).collect();
        let constants: Vec<f64> = (0..4 * n).map(|_| numbers.uniform(0.0, 1.0).powi(3)).collect();
        let times = [0.0, 0.5, 0.5, 3.0, 20.0];
        let job = Job {
            network: &network,
            start: PerTrajectory::Each(&start),
            constants: PerTrajectory::Each(&constants),
            times: &times,
            species: &[2, 0, 1],
            seed,
            first,
            max_events: u64::MAX,
            until: None,
        };
        let expected: Vec<_> = (0..n)
            .map(|i| {
                let (x, c) = (&start[3 * i..3 * i + 3], &constants[4 * i..4 * i + 4]);
                reference(&job, &reactions, x, c, first.wrapping_add(i as u64))
            })
            .collect();
        let counts: Vec<i64> = expected.iter().flat_map(|(counts, _)| counts.clone()).collect();
        let events: Vec<u64> = expected.iter().map(|(_, events)| *events).collect();
        for (name, level) in every_level() {
            for workers in [1, 3] {
                let found = simulated(&job, n, level, workers).unwrap();
                prop_assert_eq!(&found.0, &counts, "{} with {} workers", name, workers);
                prop_assert_eq!(&found.1, &events, "{} with {} workers", name, workers);
            }
        }
    }
}

/// A source of rate c and a decay.
fn immigration_death() -> Network {
    Network::new(
        1,
        2,
        vec![
            mass_action(0, &[], &[(0, 1)]),
            mass_action(1, &[(0, 1)], &[(0, -1)]),
        ],
    )
    .unwrap()
}

fn job<'a>(
    network: &'a Network,
    start: &'a [f64],
    constants: &'a [f64],
    times: &'a [f64],
) -> Job<'a> {
    Job {
        network,
        start: PerTrajectory::All(start),
        constants: PerTrajectory::All(constants),
        times,
        species: &[0],
        seed: 1,
        first: 0,
        max_events: u64::MAX,
        until: None,
    }
}

#[test]
fn a_state_without_propensity_stays() {
    let network = Network::new(1, 1, vec![mass_action(0, &[(0, 1)], &[(0, -1)])]).unwrap();
    let job = job(&network, &[3.0], &[1.0], &[0.0, 1e3, f64::MAX]);
    let (counts, events) = simulated(&job, 100, Level::new(), 1).unwrap();
    assert!(counts.chunks(3).all(|counts| counts == [3, 0, 0]));
    assert!(events.iter().all(|&events| events == 3));
    let network = Network::new(1, 0, Vec::new()).unwrap();
    let job = Job {
        constants: PerTrajectory::All(&[]),
        network: &network,
        ..job
    };
    assert_eq!(
        simulated(&job, 1, Level::new(), 1).unwrap(),
        (vec![3, 3, 3], vec![0])
    );
}

#[test]
fn immigration_and_death_make_a_poisson_law() {
    // Mean and variance α/μ (1 - e^{-μt}); bounds of 6 standard errors: false alarm below 1e-8, and the seed is fixed.
    let network = immigration_death();
    let (n, mean) = (40_000, 20.0 * (1.0 - (-0.75f64).exp()));
    let job = job(&network, &[0.0], &[10.0, 0.5], &[1.5]);
    let (counts, _) = simulated(&job, n, Level::new(), 2).unwrap();
    let average = counts.iter().sum::<i64>() as f64 / n as f64;
    let square = counts
        .iter()
        .map(|&x| (x as f64 - mean).powi(2))
        .sum::<f64>()
        / n as f64;
    assert!(
        (average - mean).abs() < 6.0 * (mean / n as f64).sqrt(),
        "{average}, not {mean}"
    );
    let error = ((mean + 2.0 * mean * mean) / n as f64).sqrt();
    assert!((square - mean).abs() < 6.0 * error, "{square}, not {mean}");
}

fn failure(reactions: Vec<Reaction>, constants: &[f64], max_events: u64) -> Reason {
    let network = Network::new(1, constants.len(), reactions).unwrap();
    let job = Job {
        max_events,
        ..job(&network, &[5.0], constants, &[100.0])
    };
    match simulated(&job, 40, Level::new(), 1) {
        Err(Error::Trajectory(failure)) => failure.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_go_on_is_named() {
    use Op::{Number, Species, Sub};
    let grow = || mass_action(0, &[(0, 1)], &[(0, 1)]);
    let sinks = program(&[Species(0), Number(6.5), Sub], &[(0, 1)]);
    let found = failure(vec![grow(), sinks], &[1.0], u64::MAX);
    assert_eq!(
        found,
        Reason::Propensity {
            reaction: 1,
            value: -1.5
        }
    );
    let falls = program(&[Number(1.0)], &[(0, -2)]);
    assert_eq!(
        failure(vec![falls], &[], u64::MAX),
        Reason::Negative { species: 0 }
    );
    assert_eq!(
        failure(vec![mass_action(0, &[], &[(0, 1)])], &[50.0], 1000),
        Reason::Events
    );
    let Reason::Propensity { reaction: 0, value } =
        failure(vec![mass_action(0, &[(0, 2)], &[])], &[1e308], 9)
    else {
        panic!("an infinite propensity passes");
    };
    assert!(value.is_infinite());
}

#[test]
fn a_watch_stops_a_long_simulation() {
    let network = immigration_death();
    let job = job(&network, &[0.0], &[1e6, 1.0], &[1e9]);
    let (mut out, mut events) = (vec![0; 64], vec![0; 64]);
    for workers in [1, 2] {
        let mut looks = 0;
        let mut watch = || {
            looks += 1;
            looks < 3
        };
        let mut run = Run {
            level: Level::new(),
            workers,
            watch: &mut watch,
        };
        assert_eq!(
            simulate(&mut run, &job, output(&mut out, &mut events)),
            Err(Error::Interrupted)
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(Network::new(1, 0, vec![mass_action(0, &[], &[])]).is_err());
    assert!(Network::new(1, 1, vec![mass_action(0, &[(1, 1)], &[])]).is_err());
    assert!(Network::new(1, 1, vec![mass_action(0, &[], &[(1, 1)])]).is_err());
    assert!(Network::new(1, 1, vec![program(&[Op::Species(1)], &[])]).is_err());
    assert!(Network::new(1, 1, vec![program(&[Op::Constant(1)], &[])]).is_err());
    assert_eq!(Program::new(vec![Op::Add]), None);
    assert_eq!(Program::new(vec![Op::Number(1.0), Op::Number(1.0)]), None);
    assert_eq!(Program::new(Vec::new()), None);
    let network = immigration_death();
    let good = job(&network, &[0.0], &[1.0, 1.0], &[1.0]);
    let bad = [
        Job {
            start: PerTrajectory::All(&[]),
            ..good
        },
        Job {
            start: PerTrajectory::Each(&[1.0]),
            ..good
        },
        Job {
            constants: PerTrajectory::All(&[1.0]),
            ..good
        },
        Job {
            species: &[1],
            ..good
        },
    ];
    for job in bad {
        assert!(simulated(&job, 2, Level::new(), 1).is_err());
    }
    let short = run(Level::new(), 1, |run| {
        simulate(run, &good, output(&mut [0], &mut [0, 0]))
    });
    assert!(short.is_err());
}
