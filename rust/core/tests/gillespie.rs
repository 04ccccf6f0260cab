//! The engines: lockstep bit for bit with a scalar reference, all of them alike at every SIMD level and in law.

mod common;

use std::sync::atomic::AtomicU64;

use fearless_simd::{Level, Simd, dispatch, f64x8, prelude::*};
use fearless_simd_macros::simd;
use proptest::prelude::*;
use unitmass_core::{
    error::{Error, Reason},
    gillespie::{
        Assignment, Event, Intervention, Job, Method, Network, Op, Output, PerTrajectory, Program,
        Progress, Propensity, Reaction, simulate,
    },
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
        let network = checked(3, 4, reactions.clone());
        let mut numbers = common::Numbers::new(seed);
        let start: Vec<f64> = (0..3 * n).map(|_| numbers.uniform(0.0, 30.0).floor()).collect();
        let constants: Vec<f64> = (0..4 * n).map(|_| numbers.uniform(0.0, 1.0).powi(3)).collect();
        let times = [0.0, 0.5, 0.5, 3.0, 20.0];
        let job = Job {
            network: &network,
            method: Method::Lockstep,
            start: PerTrajectory::Each(&start),
            constants: PerTrajectory::Each(&constants),
            times: &times,
            species: &[2, 0, 1],
            seed,
            first,
            max_events: u64::MAX,
            until: None,
            progress: &Progress::default(),
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

fn checked(species: usize, constants: usize, reactions: Vec<Reaction>) -> Network {
    Network::new(species, 0, constants, reactions, Vec::new()).unwrap()
}

/// A source of rate c and a decay.
fn immigration_death() -> Network {
    let death = mass_action(1, &[(0, 1)], &[(0, -1)]);
    checked(1, 2, vec![mass_action(0, &[], &[(0, 1)]), death])
}

static PROGRESS: Progress = Progress {
    trajectories: AtomicU64::new(0),
    events: AtomicU64::new(0),
};

fn job<'a>(
    network: &'a Network,
    start: &'a [f64],
    constants: &'a [f64],
    times: &'a [f64],
) -> Job<'a> {
    Job {
        network,
        method: Method::Lockstep,
        start: PerTrajectory::All(start),
        constants: PerTrajectory::All(constants),
        times,
        species: &[0],
        seed: 1,
        first: 0,
        max_events: u64::MAX,
        until: None,
        progress: &PROGRESS,
    }
}

#[test]
fn a_state_without_propensity_stays() {
    let network = checked(1, 1, vec![mass_action(0, &[(0, 1)], &[(0, -1)])]);
    let job = job(&network, &[3.0], &[1.0], &[0.0, 1e3, f64::MAX]);
    let (counts, events) = simulated(&job, 100, Level::new(), 1).unwrap();
    assert!(counts.chunks(3).all(|counts| counts == [3, 0, 0]));
    assert!(events.iter().all(|&events| events == 3));
    let empty = checked(1, 0, Vec::new());
    let job = Job {
        constants: PerTrajectory::All(&[]),
        network: &empty,
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

fn failure(method: Method, reactions: Vec<Reaction>, constants: &[f64], max_events: u64) -> Reason {
    let network = checked(1, constants.len(), reactions);
    let job = Job {
        method,
        max_events,
        ..job(&network, &[5.0], constants, &[100.0])
    };
    match simulated(&job, 40, Level::new(), 1) {
        Err(Error::Trajectory(failure)) => failure.reason,
        other => panic!("{other:?}"),
    }
}

const METHODS: [Method; 3] = [Method::Lockstep, Method::Sparse, Method::NextReaction];

#[test]
fn what_cannot_go_on_is_named() {
    use Op::{Number, Species, Sub};
    for method in METHODS {
        let grow = || mass_action(0, &[(0, 1)], &[(0, 1)]);
        let sinks = program(&[Species(0), Number(6.5), Sub], &[(0, 1)]);
        let (reaction, value) = (1, -1.5);
        let found = failure(method, vec![grow(), sinks], &[1.0], u64::MAX);
        assert_eq!(found, Reason::Propensity { reaction, value });
        let falls = program(&[Number(1.0)], &[(0, -2)]);
        let found = failure(method, vec![falls], &[], u64::MAX);
        assert_eq!(found, Reason::Negative { species: 0 });
        let found = failure(method, vec![mass_action(0, &[], &[(0, 1)])], &[50.0], 1000);
        assert_eq!(found, Reason::Events);
        let explodes = vec![mass_action(0, &[(0, 2)], &[])];
        let Reason::Propensity { reaction: 0, value } = failure(method, explodes, &[1e308], 9)
        else {
            panic!("an infinite propensity passes");
        };
        assert!(value.is_infinite());
    }
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
    let of = |reaction| Network::new(1, 0, 1, vec![reaction], Vec::new());
    assert!(of(mass_action(1, &[], &[])).is_err());
    assert!(of(mass_action(0, &[(1, 1)], &[])).is_err());
    assert!(of(mass_action(0, &[], &[(1, 1)])).is_err());
    assert!(of(program(&[Op::Species(1)], &[])).is_err());
    assert!(of(program(&[Op::Constant(1)], &[])).is_err());
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

/// A law that mixes all kinds, in 3 species from small counts to thousands.
fn mixed() -> (Network, [f64; 3], [f64; 4]) {
    use Op::{Add, Div, Mul, Number, Species};
    let binding = [
        Species(1),
        Number(200.0),
        Mul,
        Species(1),
        Number(9.0),
        Add,
        Div,
    ];
    let reactions = vec![
        mass_action(0, &[], &[(0, 1)]),
        mass_action(1, &[(0, 1)], &[(0, -1)]),
        mass_action(2, &[(0, 2)], &[(0, -2), (1, 1)]),
        mass_action(1, &[(1, 1)], &[(1, -1)]),
        mass_action(3, &[(0, 1), (1, 1)], &[(0, -1)]),
        mass_action(3, &[(0, 1), (1, 2)], &[(1, -1)]),
        program(&binding, &[(2, 1)]),
        mass_action(1, &[(2, 1)], &[(2, -1)]),
    ];
    (
        checked(3, 4, reactions),
        [3.0, 0.0, 1.0],
        [300.0, 1.0, 0.01, 0.002],
    )
}

#[test]
fn engines_agree_in_law() {
    // Means within 6 standard errors of a difference, variances within 6 of theirs (near normal counts): a false alarm in
    // 5e8 for each of the 24 comparisons, and the seed is fixed.
    let (network, start, constants) = mixed();
    let n = 5_000;
    let moments = |method| {
        let job = Job {
            method,
            species: &[0, 1, 2],
            ..job(&network, &start, &constants, &[0.5, 3.0])
        };
        let (counts, _) = simulated(&job, n, Level::new(), 2).unwrap();
        (0..6)
            .map(|k| {
                let values = counts.iter().skip(k).step_by(6).map(|&x| x as f64);
                let mean = values.clone().sum::<f64>() / n as f64;
                let var = values.map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
                (mean, var)
            })
            .collect::<Vec<_>>()
    };
    let direct = moments(Method::Lockstep);
    for method in [Method::Sparse, Method::NextReaction] {
        for ((mean, var), (direct_mean, direct_var)) in moments(method).into_iter().zip(&direct) {
            let error = ((var + direct_var) / n as f64).sqrt();
            assert!(
                (mean - direct_mean).abs() < 6.0 * error,
                "{method:?}: {mean}, not {direct_mean}"
            );
            let error = (2.0 * (var * var + direct_var * direct_var) / n as f64).sqrt();
            assert!(
                (var - direct_var).abs() < 6.0 * error,
                "{method:?}: {var}, not {direct_var}"
            );
        }
    }
}

#[test]
fn engines_are_alike_at_every_level_and_number_of_workers() {
    let (network, start, constants) = mixed();
    for method in [Method::Sparse, Method::NextReaction] {
        let job = Job {
            method,
            species: &[0, 1, 2],
            ..job(&network, &start, &constants, &[0.5, 3.0])
        };
        let expected = simulated(&job, 40, Level::new(), 1).unwrap();
        for (name, level) in every_level() {
            for workers in [1, 3] {
                let found = simulated(&job, 40, level, workers).unwrap();
                assert_eq!(
                    found, expected,
                    "{method:?} at {name} with {workers} workers"
                );
            }
        }
        let shard = Job { first: 7, ..job };
        let (counts, events) = simulated(&shard, 10, Level::new(), 1).unwrap();
        assert_eq!(counts, expected.0[7 * 6..17 * 6]);
        assert_eq!(events, expected.1[7..17]);
    }
}

#[test]
fn only_the_clocks_run_what_depends_on_time() {
    use Op::{Lt, Number, Time};
    let timed = checked(1, 0, vec![program(&[Time], &[(0, 1)])]);
    let plain = immigration_death();
    let until = Program::new(vec![Number(0.5), Time, Lt]).unwrap();
    let jobs = [
        Job {
            constants: PerTrajectory::All(&[]),
            ..job(&timed, &[0.0], &[], &[1.0])
        },
        Job {
            until: Some(&until),
            ..job(&plain, &[0.0], &[1.0, 1.0], &[1.0])
        },
    ];
    for job in jobs {
        assert_eq!(
            Method::fastest(job.network, job.until),
            Method::NextReaction
        );
        for method in METHODS {
            let job = Job { method, ..job };
            let (mut counts, mut events, mut stopped) = ([0], [0], [0.0]);
            let output = Output {
                counts: &mut counts,
                events: &mut events,
                stopped: if job.until.is_some() {
                    &mut stopped
                } else {
                    &mut []
                },
                log: &mut [],
            };
            let result = run(Level::new(), 1, |run| simulate(run, &job, output));
            assert_eq!(result.is_ok(), method == Method::NextReaction, "{result:?}");
            if result.is_ok() && job.until.is_some() {
                assert_eq!(stopped, [0.5f64.next_up()]);
            }
        }
    }
}

#[test]
fn rates_that_depend_on_time_make_a_poisson_law() {
    // Sources of rate c₀ e^{-t} (smooth), and c₁ up to time 2 and 0 from there on (a switch): Poisson counts with means
    // c₀ (1 - e^{-t}) and c₁ min(t, 2). Bounds of 6 standard errors; the seed is fixed.
    use Op::{Constant, Exp, If, Lt, Mul, Neg, Number, Time};
    let smooth = program(&[Constant(0), Time, Neg, Exp, Mul], &[(0, 1)]);
    let switched = program(
        &[Time, Number(2.0), Lt, Constant(1), Number(0.0), If],
        &[(1, 1)],
    );
    let network = checked(2, 2, vec![smooth, switched]);
    let (n, times) = (20_000, [0.5, 3.0, 50.0]);
    let job = Job {
        method: Method::NextReaction,
        species: &[0, 1],
        ..job(&network, &[0.0, 0.0], &[40.0, 5.0], &times)
    };
    let (counts, _) = simulated(&job, n, Level::new(), 2).unwrap();
    for (k, time) in times.into_iter().enumerate() {
        for (species, mean) in [40.0 * (1.0 - (-time).exp()), 5.0 * time.min(2.0)]
            .into_iter()
            .enumerate()
        {
            let values = counts
                .iter()
                .skip(2 * k + species)
                .step_by(6)
                .map(|&x| x as f64);
            let found = values.clone().sum::<f64>() / n as f64;
            let square = values.map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            assert!(
                (found - mean).abs() < 6.0 * (mean / n as f64).sqrt(),
                "{found}, not {mean}"
            );
            let error = ((mean + 2.0 * mean * mean) / n as f64).sqrt();
            assert!((square - mean).abs() < 6.0 * error, "{square}, not {mean}");
        }
    }
}

#[test]
fn interventions_come_at_their_time_and_in_order() {
    use Op::{Add, Le, Mul, Number, Species, Time};
    let program = |ops: &[Op]| Program::new(ops.to_vec()).unwrap();
    let intervention = |at: f64, priority: Option<f64>, species, value: &[Op]| Intervention {
        trigger: program(&[Number(at), Time, Le]),
        was: false,
        persistent: true,
        values_when_triggered: false,
        priority: priority.map(|priority| program(&[Number(priority)])),
        assignments: vec![Assignment {
            species,
            value: program(value),
        }],
    };
    // At 22.5: double first (priority 5), then add 1, then the one without a priority copies; at 0 all starts from 3.
    let interventions = vec![
        intervention(22.5, None, 1, &[Species(0), Number(0.25), Mul]),
        intervention(22.5, Some(1.0), 0, &[Species(0), Number(1.0), Add]),
        intervention(22.5, Some(5.0), 0, &[Species(0), Number(2.0), Mul]),
        intervention(0.0, None, 0, &[Number(3.0)]),
    ];
    let network = Network::new(2, 1, 0, Vec::new(), interventions).unwrap();
    let job = Job {
        method: Method::NextReaction,
        constants: PerTrajectory::All(&[]),
        ..job(&network, &[0.0, 0.0], &[], &[0.0, 22.4, 22.5, 22.5])
    };
    let (mut counts, mut events, mut log) = ([0; 4], [0], [Vec::new()]);
    let output = Output {
        log: &mut log,
        ..output(&mut counts, &mut events)
    };
    run(Level::new(), 1, |run| simulate(run, &job, output)).unwrap();
    assert_eq!((counts, events), ([3, 3, 7, 7], [4]));
    let expected = [
        (0.0, 3, [3.0, 0.0]),
        (22.5, 2, [3.0, 0.0]),
        (22.5, 1, [1.0, 0.0]),
        (22.5, 0, [0.0, 1.75]),
    ];
    let expected = expected.map(|(time, index, changes)| Event::Intervention {
        time,
        index,
        changes: changes.to_vec(),
    });
    assert_eq!(log[0], expected);
}

#[test]
fn an_endless_chain_of_interventions_and_a_broken_count_are_named() {
    use Op::{Add, Eq, Number, Species};
    let program = |ops: &[Op]| Program::new(ops.to_vec()).unwrap();
    let toggles = |from: f64, value: &[Op]| Intervention {
        trigger: program(&[Species(0), Number(from), Eq]),
        was: false,
        persistent: true,
        values_when_triggered: true,
        priority: None,
        assignments: vec![Assignment {
            species: 0,
            value: program(value),
        }],
    };
    let reason = |interventions: Vec<Intervention>| {
        let network = Network::new(1, 0, 0, Vec::new(), interventions).unwrap();
        let job = Job {
            method: Method::NextReaction,
            constants: PerTrajectory::All(&[]),
            ..job(&network, &[0.0], &[], &[1.0])
        };
        match simulated(&job, 1, Level::new(), 1) {
            Err(Error::Trajectory(failure)) => failure.reason,
            other => panic!("{other:?}"),
        }
    };
    let endless = vec![toggles(0.0, &[Number(1.0)]), toggles(1.0, &[Number(0.0)])];
    assert_eq!(reason(endless), Reason::Endless);
    let broken = vec![toggles(0.0, &[Number(2.0), Number(0.5), Add])];
    let (species, value) = (0, 2.5);
    assert_eq!(reason(broken), Reason::Fraction { species, value });
    let negative = vec![toggles(0.0, &[Number(-1.0)])];
    assert_eq!(reason(negative), Reason::Negative { species });
}

#[test]
fn time_is_compared_with_what_does_not_depend_on_it() {
    use Op::{Add, If, Lt, Mul, Number, Time};
    let twice = [Time, Number(2.0), Mul, Number(9.0), Lt];
    let with_time = [Time, Time, Number(1.0), Add, Lt];
    for ops in [twice.to_vec(), with_time.to_vec()] {
        let rate = [ops.clone(), vec![Number(1.0), Number(2.0), If]].concat();
        let reactions = vec![program(&rate, &[(0, 1)])];
        assert!(Network::new(1, 0, 0, reactions, Vec::new()).is_err());
    }
    let smooth = Intervention {
        trigger: Program::new(vec![Time]).unwrap(),
        was: false,
        persistent: true,
        values_when_triggered: true,
        priority: None,
        assignments: Vec::new(),
    };
    assert!(Network::new(1, 0, 0, Vec::new(), vec![smooth]).is_err());
}

#[test]
fn large_networks_agree_in_law_with_the_clocks() {
    // A ring of species that hop, and meet their neighbours. The squares of the differences of means, in standard errors,
    // add up to the number of species, give or take its root: 8 of these are a false alarm in 1e12, and the seed is fixed.
    for (size, n) in [(5, 2000), (17, 1000), (300, 200), (2500, 60)] {
        let reactions = (0..size).flat_map(|i| {
            let next = (i + 1) % size;
            [
                mass_action(0, &[(i, 1)], &[(i, -1), (next, 1)]),
                mass_action(1, &[(i, 1), (next, 1)], &[(i, 1), (next, -1)]),
            ]
        });
        let network = checked(size, 2, reactions.collect());
        let start: Vec<f64> = (0..size).map(|i| (7 * i % 40) as f64).collect();
        let species: Vec<usize> = (0..size).collect();
        let [sparse, clocks] = [Method::Sparse, Method::NextReaction].map(|method| {
            let job = Job {
                method,
                species: &species,
                ..job(&network, &start, &[1.0, 0.02], &[0.7])
            };
            let (counts, _) = simulated(&job, n, Level::new(), 2).unwrap();
            let total: f64 = start.iter().sum();
            for counts in counts.chunks(size) {
                assert_eq!(counts.iter().sum::<i64>() as f64, total);
            }
            counts
        });
        let mut sum = 0.0;
        for i in 0..size {
            let moments = |counts: &[i64]| {
                let values = counts.iter().skip(i).step_by(size).map(|&x| x as f64);
                let mean = values.clone().sum::<f64>() / n as f64;
                (
                    mean,
                    values.map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64,
                )
            };
            let ((a, a_var), (b, b_var)) = (moments(&sparse), moments(&clocks));
            sum += (a - b).powi(2) / ((a_var + b_var) / n as f64);
        }
        let off = (sum - size as f64) / (2.0 * size as f64).sqrt();
        assert!(off.abs() < 8.0, "{size} species: {off}");
    }
}

#[test]
fn a_hub_that_dies_out_leaves_no_candidates() {
    let ways = 1200;
    let reactions = (1..=ways).map(|i| mass_action(0, &[(0, 1)], &[(0, -1), (i, 1)]));
    let network = checked(ways + 1, 1, reactions.collect());
    for count in [5.0, 11.0, 60.0] {
        let start: Vec<f64> = (0..=ways)
            .map(|i| if i == 0 { count } else { 0.0 })
            .collect();
        let job = Job {
            method: Method::Sparse,
            ..job(&network, &start, &[1.0], &[1e15])
        };
        let (counts, events) = simulated(&job, 20, Level::new(), 1).unwrap();
        assert!(counts.iter().all(|&x| x == 0));
        assert!(events.iter().all(|&events| events == count as u64));
    }
}

#[test]
fn clocks_that_ring_at_once_depend_on_nothing_else() {
    use Op::{If, Le, Number, Time};
    let at_once = |species| {
        let ops = [Number(1e6), Time, Le, Number(1e11), Number(0.0), If];
        program(&ops, &[(species, 1)])
    };
    let network = checked(3, 0, (0..3).map(at_once).collect());
    let end = [1e6f64.next_up().next_up()];
    let job = Job {
        method: Method::NextReaction,
        species: &[0, 1, 2],
        ..job(&network, &[0.0; 3], &[], &end)
    };
    let (whole, _) = simulated(&job, 6, Level::new(), 1).unwrap();
    let (part, _) = simulated(&Job { first: 3, ..job }, 3, Level::new(), 1).unwrap();
    assert_eq!(whole[9..], part);
}

#[test]
fn a_rate_is_wrong_only_in_a_state_and_at_a_time_that_come() {
    use Op::{Add, Number, Species, Sub, Time};
    let falls = program(&[Species(0), Number(1.0), Add, Time, Sub], &[(1, 1)]);
    let grows = checked(2, 1, vec![mass_action(0, &[], &[(0, 1)]), falls.clone()]);
    let timed = |network, constants| Job {
        method: Method::NextReaction,
        ..job(network, &[0.0, 0.0], constants, &[5.0])
    };
    simulated(&timed(&grows, &[100.0]), 200, Level::new(), 1).unwrap();
    let alone = checked(2, 0, vec![falls]);
    match simulated(&timed(&alone, &[]), 20, Level::new(), 1) {
        Err(Error::Trajectory(failure)) => {
            assert!((failure.time - 1.0).abs() < 1e-6, "{failure}");
            assert!(
                matches!(failure.reason, Reason::Propensity { reaction: 0, value } if value < 0.0)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pulse_is_seen_however_long_the_run() {
    // 100 e^{-(t-60)²}: Poisson of mean 100 √π; the bound is 6 standard errors.
    use Op::{Exp, Mul, Neg, Number, Sub, Time};
    let distance = [Time, Number(60.0), Sub];
    let ops = [
        &distance[..],
        &distance[..],
        &[Mul, Neg, Exp, Number(100.0), Mul],
    ]
    .concat();
    let network = checked(1, 0, vec![program(&ops, &[(0, 1)])]);
    let mean = 100.0 * std::f64::consts::PI.sqrt();
    for end in [[100.0], [250.0], [1000.0]] {
        let job = Job {
            method: Method::NextReaction,
            ..job(&network, &[0.0], &[], &end)
        };
        let (counts, _) = simulated(&job, 50, Level::new(), 1).unwrap();
        let found = counts.iter().sum::<i64>() as f64 / 50.0;
        assert!(
            (found - mean).abs() < 6.0 * (mean / 50.0).sqrt(),
            "{found}, not {mean}"
        );
    }
}

#[test]
fn times_that_are_none_are_refused() {
    let network = immigration_death();
    for times in [
        [f64::NAN, 1.0],
        [1.0, f64::NAN],
        [2.0, 1.0],
        [-1.0, 1.0],
        [1.0, f64::INFINITY],
    ] {
        let job = job(&network, &[0.0], &[1.0, 1.0], &times);
        assert!(matches!(
            simulated(&job, 1, Level::new(), 1),
            Err(Error::Domain { argument: "t", .. })
        ));
    }
}
