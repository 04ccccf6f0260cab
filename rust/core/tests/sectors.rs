//! Trials: the streams they draw from, whatever the level and the workers; and their hits beside exact laws.

mod common;

use std::f64::consts::TAU;

use fearless_simd::Level;
use unitmass_core::{
    error::Error,
    parallel::Run,
    rng::Stream,
    sectors::{
        Density, Experiment, Law, Leaders, Plan, Progress, Quantity, Stopped, Tally, count,
        evaluate, sample, trials_in_block, turns,
    },
};

use common::{Numbers, every_level};

const PLAN: Plan = Plan {
    seed: 7,
    first_block: 0,
    blocks: u64::MAX,
    trials: 0,
    hits: u64::MAX,
    above: false,
    seconds: f64::INFINITY,
};

fn counted(
    level: Level,
    workers: usize,
    experiment: &Experiment<'_>,
    angles: &[f64],
    plan: &Plan,
) -> Tally {
    let mut watch = || true;
    let run = &mut Run {
        level,
        workers,
        watch: &mut watch,
    };
    count(run, experiment, angles, plan, &Progress::default()).unwrap()
}

/// The shortest arc that holds k points, in turns of 2³² or 2⁶⁴, by the definition.
fn shortest(points: &[u128], turn: u128, k: usize) -> u128 {
    let arc = |&start: &u128| {
        let mut clockwise: Vec<u128> = points
            .iter()
            .map(|&point| (point + turn - start) % turn)
            .collect();
        clockwise.sort_unstable();
        clockwise[k - 1]
    };
    points.iter().map(arc).min().unwrap()
}

#[test]
fn trials_draw_from_the_streams_of_their_block() {
    // Up to 1024 points, lane l of sixteen takes half of a word of stream 8 block + l / 2; the first point is at 0.
    for (n, k) in [
        (2, 2),
        (4, 4),
        (5, 3),
        (9, 9),
        (17, 17),
        (40, 7),
        (64, 64),
        (100, 100),
    ] {
        let experiment = Experiment::Arc {
            n,
            k,
            density: None,
        };
        let mut streams: Vec<Stream> = (0..8).map(|lane| Stream::new(7, lane)).collect();
        let mut expected = Vec::new();
        for _ in 0..3 {
            let mut points = vec![vec![0]; 16];
            for _ in 1..n {
                for (lane, stream) in streams.iter_mut().enumerate() {
                    let word = u128::from(stream.next_u64());
                    points[2 * lane].push(word & 0xffff_ffff);
                    points[2 * lane + 1].push(word >> 32);
                }
            }
            expected.extend(
                points
                    .iter()
                    .map(|points| shortest(points, 1 << 32, k) as f64),
            );
        }
        for (name, level) in every_level() {
            let mut numbers = vec![0.0; 48];
            let run = &mut Run {
                level,
                workers: 1,
                watch: &mut || true,
            };
            sample(run, &experiment, 7, &mut numbers, &Progress::default()).unwrap();
            let found: Vec<f64> = numbers
                .iter()
                .map(|number| number * 2f64.powi(32))
                .collect();
            assert_eq!(found, expected, "{name} {n} {k}");
        }
    }
    // More points are of one trial: a word of each stream in turn.
    let (n, mut numbers) = (1030, vec![0.0; 3]);
    let mut streams: Vec<Stream> = (0..8).map(|lane| Stream::new(7, lane)).collect();
    let run = &mut Run {
        level: every_level()[0].1,
        workers: 1,
        watch: &mut || true,
    };
    let experiment = Experiment::Arc {
        n,
        k: n,
        density: None,
    };
    sample(run, &experiment, 7, &mut numbers, &Progress::default()).unwrap();
    for number in numbers {
        let mut points: Vec<u128> = (0..1032)
            .map(|i| u128::from(streams[i % 8].next_u64()))
            .collect();
        points.truncate(n);
        points[0] = 0;
        assert_eq!(
            number,
            shortest(&points, 1 << 64, n) as f64 * 2f64.powi(-64)
        );
    }
}

#[test]
fn counts_are_pinned() {
    // A change here changes what anyone has published: it is an entry in the CHANGELOG.
    let cases = [(4, 3.0), (16, 5.0), (100, 5.9), (100, 5.5), (1100, 6.23)];
    for (name, level) in every_level() {
        let hits = cases.map(|(n, theta)| {
            let experiment = Experiment::Arc {
                n,
                k: n,
                density: None,
            };
            let plan = Plan {
                trials: if n > 1000 { 1000 } else { 100_000 },
                ..PLAN
            };
            counted(level, 1, &experiment, &[theta], &plan).counts[0]
        });
        assert_eq!(hits, PINNED, "{name}");
    }
}

const PINNED: [u64; 5] = [43_515, 47_324, 18_343, 20, 84];

#[test]
fn every_experiment_counts_the_same_at_any_level_number_of_workers_and_cut() {
    let density = Density::von_mises(1.5).unwrap();
    let leaders = Leaders::new(&density, 6, turns(4.0));
    let lengths = [turns(2.0), turns(3.0), turns(1.5), turns(0.5)];
    let experiments = [
        (
            Experiment::Arc {
                n: 4,
                k: 4,
                density: None,
            },
            vec![1.0, 3.0, 3.2, 5.0],
        ),
        (
            Experiment::Arc {
                n: 4,
                k: 4,
                density: None,
            },
            vec![3.0],
        ),
        (
            Experiment::Arc {
                n: 7,
                k: 7,
                density: Some(&density),
            },
            vec![3.0],
        ),
        (
            Experiment::Arc {
                n: 7,
                k: 3,
                density: Some(&density),
            },
            vec![0.5],
        ),
        (
            Experiment::Arc {
                n: 30,
                k: 30,
                density: None,
            },
            vec![5.3],
        ),
        (
            Experiment::Arc {
                n: 50,
                k: 5,
                density: None,
            },
            vec![0.1],
        ),
        (
            Experiment::Arc {
                n: 90,
                k: 90,
                density: None,
            },
            vec![5.5],
        ),
        (
            Experiment::Arc {
                n: 90,
                k: 90,
                density: None,
            },
            vec![5.8, 6.0],
        ),
        (
            Experiment::Arc {
                n: 90,
                k: 4,
                density: Some(&density),
            },
            vec![0.01],
        ),
        (Experiment::Cap { n: 5, d: 2 }, vec![1.2]),
        (Experiment::Cap { n: 5, d: 3 }, vec![1.0, 2.0]),
        (Experiment::Cap { n: 8, d: 4 }, vec![TAU / 4.0]),
        (Experiment::Cover { lengths: &lengths }, vec![]),
        (
            Experiment::Lead {
                n: 20,
                theta: turns(5.5),
                density: None,
            },
            vec![],
        ),
        (
            Experiment::Lead {
                n: 6,
                theta: turns(4.0),
                density: Some(&leaders),
            },
            vec![],
        ),
    ];
    for (experiment, angles) in &experiments {
        let block = trials_in_block(experiment, angles).unwrap();
        let plan = Plan {
            trials: 3 * block + 7,
            ..PLAN
        };
        let (_, best) = every_level()[0];
        let whole = counted(best, 1, experiment, angles, &plan);
        assert_eq!(whole.counts.iter().sum::<u64>(), plan.trials);
        assert_eq!(
            (whole.trials, whole.stopped),
            (plan.trials, Stopped::Trials)
        );
        assert!(
            whole.counts[..2.min(whole.counts.len())]
                .iter()
                .all(|&count| count > 0),
            "{whole:?}"
        );
        for (name, level) in every_level() {
            for workers in [1, 2, 3] {
                assert_eq!(
                    counted(level, workers, experiment, angles, &plan),
                    whole,
                    "{name}"
                );
            }
        }
        let mut sum = vec![0; whole.counts.len()];
        for (first_block, blocks) in [(0, 1), (1, 2), (3, 9)] {
            let part = counted(
                best,
                2,
                experiment,
                angles,
                &Plan {
                    first_block,
                    blocks,
                    ..plan
                },
            );
            sum.iter_mut()
                .zip(part.counts)
                .for_each(|(sum, count)| *sum += count);
        }
        assert_eq!(sum, whole.counts);
    }
}

#[test]
fn hits_agree_with_the_exact_law() {
    // Up to 4 Mi trials for each of 38 pairs: chi-square of z has 38 degrees of freedom, and is below 81 but for 6e-5.
    let (_, level) = every_level()[0];
    let (mut chi_square, mut pairs) = (0.0, 0);
    for n in [2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 100] {
        for share in [0.2, 0.4, 0.5, 0.6, 0.75, 0.9] {
            let theta = share * TAU;
            let mut exact = [0.0];
            let run = &mut Run {
                level,
                workers: 1,
                watch: &mut || true,
            };
            evaluate(
                run,
                Law::Sector,
                Quantity::Cdf,
                &[n as u64],
                &[theta],
                &mut exact,
            )
            .unwrap();
            let trials = if n > 32 { 1 << 19 } else { 1 << 22 };
            let error = (exact[0] * (1.0 - exact[0]) / trials as f64).sqrt();
            if exact[0].min(1.0 - exact[0]) < 1e-4 {
                continue;
            }
            let experiment = Experiment::Arc {
                n,
                k: n,
                density: None,
            };
            let tally = counted(level, 2, &experiment, &[theta], &Plan { trials, ..PLAN });
            chi_square += ((tally.counts[0] as f64 / trials as f64 - exact[0]) / error).powi(2);
            pairs += 1;
        }
    }
    println!("chi-square {chi_square:.1} of {pairs}");
    assert_eq!(pairs, 38);
    assert!(chi_square < 81.0);
}

#[test]
fn a_run_stops_with_the_trial_of_its_last_hit() {
    let experiment = Experiment::Arc {
        n: 5,
        k: 5,
        density: None,
    };
    for (theta, above) in [(1.0, false), (3.0, false), (3.0, true), (0.3, false)] {
        for hits in [1, 2, 100, 1000] {
            let plan = Plan {
                trials: u64::MAX / 2,
                hits,
                above,
                ..PLAN
            };
            let found = every_level().into_iter().flat_map(|(_, level)| {
                [1, 2, 3].map(|workers| counted(level, workers, &experiment, &[theta], &plan))
            });
            let mut found: Vec<Tally> = found.collect();
            found.dedup();
            assert_eq!(found.len(), 1, "{found:?}");
            let tally = &found[0];
            assert_eq!(
                (tally.counts[usize::from(above)], tally.stopped),
                (hits, Stopped::Hits)
            );
            assert_eq!(tally.trials, tally.counts.iter().sum());
            // One trial less has one hit less.
            let (_, level) = every_level()[0];
            let before = counted(
                level,
                1,
                &experiment,
                &[theta],
                &Plan {
                    trials: tally.trials - 1,
                    ..PLAN
                },
            );
            assert_eq!(before.counts[usize::from(above)], hits - 1);
        }
    }
}

#[test]
fn time_stops_a_run_and_a_watch_interrupts_it() {
    let experiment = Experiment::Arc {
        n: 4,
        k: 4,
        density: None,
    };
    let plan = Plan {
        trials: u64::MAX / 2,
        seconds: 0.1,
        ..PLAN
    };
    let (_, level) = every_level()[0];
    let tally = counted(level, 2, &experiment, &[3.0], &plan);
    assert_eq!(
        (tally.stopped, tally.trials % (1 << 16)),
        (Stopped::Time, 0)
    );
    let run = &mut Run {
        level,
        workers: 2,
        watch: &mut || false,
    };
    let endless = Plan {
        seconds: f64::INFINITY,
        ..plan
    };
    let stopped = count(run, &experiment, &[3.0], &endless, &Progress::default());
    assert_eq!(stopped, Err(Error::Interrupted));
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let too_many = (1 << 22) + 1;
    for (experiment, argument) in [
        (
            Experiment::Arc {
                n: 0,
                k: 0,
                density: None,
            },
            "n",
        ),
        (
            Experiment::Arc {
                n: too_many,
                k: 1,
                density: None,
            },
            "n",
        ),
        (
            Experiment::Arc {
                n: 3,
                k: 4,
                density: None,
            },
            "k",
        ),
        (
            Experiment::Arc {
                n: 3,
                k: 0,
                density: None,
            },
            "k",
        ),
        (Experiment::Cap { n: 3, d: 1 }, "d"),
        (Experiment::Cap { n: 3, d: 17 }, "d"),
        (Experiment::Cover { lengths: &[] }, "n"),
        (
            Experiment::Lead {
                n: 0,
                theta: 1,
                density: None,
            },
            "n",
        ),
    ] {
        let run = &mut Run {
            level: Level::new(),
            workers: 1,
            watch: &mut || true,
        };
        let refused = count(run, &experiment, &[1.0], &PLAN, &Progress::default()).unwrap_err();
        assert!(
            matches!(refused, Error::Domain { argument: named, .. } if named == argument),
            "{refused}"
        );
    }
}

#[test]
fn a_prefix_of_trials_is_a_prefix_of_hits() {
    let mut numbers = Numbers::new(5);
    let (_, level) = every_level()[0];
    for _ in 0..200 {
        let n = numbers.uniform(1.0, 80.0) as usize;
        let angle = [numbers.uniform(0.05, 1.0) * TAU];
        let experiment = Experiment::Arc {
            n,
            k: n,
            density: None,
        };
        let cut = numbers.uniform(1.0, 400.0) as u64;
        let [fewer, more] = [cut, cut + 1].map(|trials| {
            counted(level, 1, &experiment, &angle, &Plan { trials, ..PLAN }).counts[0]
        });
        assert!((0..=1).contains(&(more - fewer)) && fewer <= cut);
    }
}
