//! The maps at each SIMD level that the CPU has: one worker, normal(0, 2) scores, values per second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use unitmass_benches::normal;
use unitmass_core::{
    maps::{Method, PerRow, Scores, Shape, entmax, log_softmax, project_simplex, softmax},
    parallel::Run,
    simd::levels,
};

const SHAPES: [(usize, usize); 4] = [(16_384, 10), (2_048, 128), (256, 1_000), (8, 32_000)];

fn maps(c: &mut Criterion) {
    for (rows, n) in SHAPES {
        let x = normal(rows * n, 2.0);
        let mut y = vec![0.0; x.len()];
        let scores = Scores::new(Shape::rows(rows, n), &x);
        let mut group = c.benchmark_group(format!("{rows}x{n}"));
        group.throughput(Throughput::Elements(x.len() as u64));
        for (name, level) in levels() {
            let mut watch = || true;
            let mut run = Run {
                level,
                workers: 1,
                watch: &mut watch,
            };
            group.bench_function(BenchmarkId::new("softmax", name), |b| {
                b.iter(|| softmax(&mut run, &scores, 1.0, &mut y))
            });
            group.bench_function(BenchmarkId::new("log_softmax", name), |b| {
                b.iter(|| log_softmax(&mut run, &scores, 1.0, &mut y))
            });
            group.bench_function(BenchmarkId::new("project_simplex", name), |b| {
                b.iter(|| project_simplex(&mut run, &scores, PerRow::All(1.0), &mut y))
            });
            for alpha in [1.3, 1.5, 3.0] {
                group.bench_function(BenchmarkId::new(format!("entmax {alpha}"), name), |b| {
                    let alpha = PerRow::All(alpha);
                    b.iter(|| entmax(&mut run, &scores, alpha, Method::Auto, 1.0, &mut y))
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, maps);
criterion_main!(benches);
