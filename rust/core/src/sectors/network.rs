//! Sorting networks over registers: lane l of all registers is a list of its own, and the lists are sorted together.
//!
//! Up to 16 values go through Batcher's odd-even merge sort (1968), written out so that they stay in registers. Longer lists
//! are runs of 16, merged bitonically: value i of one run is compared with value i from the end of the other, which leaves two
//! bitonic halves, and each is sorted by comparing over half its length, a quarter, and so on.
//!
//! A pass over memory takes two of these steps, on four values, and the last four, on sixteen.

use fearless_simd::{Simd, prelude::*, u32x16};

/// The longest list: beyond, a cache of 64 KiB or so would be left.
pub(super) const LONGEST: usize = 1024;

macro_rules! exchange {
    ($v:ident: $($i:literal $j:literal),*) => {
        $(
            let (low, high) = ($v[$i].min($v[$j]), $v[$i].max($v[$j]));
            ($v[$i], $v[$j]) = (low, high);
        )*
    };
    // The same where values are borrowed: each is read and written once.
    ([$($borrowed:ident),*]: $($rest:tt)*) => {
        let mut v = [$(*$borrowed),*];
        exchange!(v: $($rest)*);
        [$(*$borrowed),*] = v;
    };
}

/// Sorts a power of two of values, from 4 to [`LONGEST`], in each lane.
#[inline(always)]
pub(super) fn sort<S: Simd>(values: &mut [u32x16<S>]) {
    // Loops, not a function that takes each sort: what is called through a closure loses the level's instructions.
    match values.len() {
        4 => {
            for run in values.as_chunks_mut().0 {
                *run = sort_4(*run);
            }
        }
        8 => {
            for run in values.as_chunks_mut().0 {
                *run = sort_8(*run);
            }
        }
        _ => {
            for run in values.as_chunks_mut().0 {
                *run = sort_16(*run);
            }
        }
    }
    let mut length = 32;
    while length <= values.len() {
        for runs in values.chunks_exact_mut(length) {
            merge(runs);
        }
        length *= 2;
    }
}

#[inline(always)]
fn sort_4<S: Simd>(mut v: [u32x16<S>; 4]) -> [u32x16<S>; 4] {
    exchange!(v: 0 1, 2 3, 0 2, 1 3, 1 2);
    v
}

#[inline(always)]
fn sort_8<S: Simd>(mut v: [u32x16<S>; 8]) -> [u32x16<S>; 8] {
    exchange!(v: 0 1, 2 3, 4 5, 6 7, 0 2, 1 3, 4 6, 5 7, 1 2, 5 6);
    exchange!(v: 0 4, 1 5, 2 6, 3 7, 2 4, 3 5, 1 2, 3 4, 5 6);
    v
}

#[inline(always)]
fn sort_16<S: Simd>(mut v: [u32x16<S>; 16]) -> [u32x16<S>; 16] {
    exchange!(v: 0 1, 2 3, 4 5, 6 7, 8 9, 10 11, 12 13, 14 15);
    exchange!(v: 0 2, 1 3, 4 6, 5 7, 8 10, 9 11, 12 14, 13 15, 1 2, 5 6, 9 10, 13 14);
    exchange!(v: 0 4, 1 5, 2 6, 3 7, 8 12, 9 13, 10 14, 11 15, 2 4, 3 5, 10 12, 11 13);
    exchange!(v: 1 2, 3 4, 5 6, 9 10, 11 12, 13 14);
    exchange!(v: 0 8, 1 9, 2 10, 3 11, 4 12, 5 13, 6 14, 7 15, 4 8, 5 9, 6 10, 7 11);
    exchange!(v: 2 4, 3 5, 6 8, 7 9, 10 12, 11 13, 1 2, 3 4, 5 6, 7 8, 9 10, 11 12, 13 14);
    v
}

/// Merges two sorted runs of 16 values or more.
#[inline(always)]
fn merge<S: Simd>(values: &mut [u32x16<S>]) {
    let half = values.len() / 2;
    let (low, high) = values.split_at_mut(half);
    if half == 16 {
        for (a, b) in low.iter_mut().zip(high.iter_mut().rev()) {
            exchange!([a, b]: 0 1);
        }
    } else {
        let (a, b) = low.split_at_mut(half / 2);
        let (c, d) = high.split_at_mut(half / 2);
        let backwards = c.iter_mut().rev().zip(d.iter_mut().rev());
        for ((a, b), (c, d)) in a.iter_mut().zip(b).zip(backwards) {
            exchange!([a, b, c, d]: 0 3, 1 2, 0 1, 2 3);
        }
    }
    // Bitonic runs of this length are left.
    let mut length = half.max(32) / 2;
    while length > 16 {
        for run in values.chunks_exact_mut(length) {
            let (low, high) = run.split_at_mut(length / 2);
            if length == 32 {
                for (a, b) in low.iter_mut().zip(high) {
                    exchange!([a, b]: 0 1);
                }
            } else {
                let (a, b) = low.split_at_mut(length / 4);
                let (c, d) = high.split_at_mut(length / 4);
                for ((a, b), (c, d)) in a.iter_mut().zip(b).zip(c.iter_mut().zip(d)) {
                    exchange!([a, b, c, d]: 0 2, 1 3, 0 1, 2 3);
                }
            }
        }
        length = (length / 4).max(16);
    }
    for run in values.as_chunks_mut().0 {
        *run = sort_bitonic(*run);
    }
}

/// Sorts what rises and then falls, or falls and then rises.
#[inline(always)]
fn sort_bitonic<S: Simd>(mut v: [u32x16<S>; 16]) -> [u32x16<S>; 16] {
    exchange!(v: 0 8, 1 9, 2 10, 3 11, 4 12, 5 13, 6 14, 7 15);
    exchange!(v: 0 4, 1 5, 2 6, 3 7, 8 12, 9 13, 10 14, 11 15);
    exchange!(v: 0 2, 1 3, 4 6, 5 7, 8 10, 9 11, 12 14, 13 15);
    exchange!(v: 0 1, 2 3, 4 5, 6 7, 8 9, 10 11, 12 13, 14 15);
    v
}

#[cfg(test)]
mod tests {
    use fearless_simd::dispatch;
    use fearless_simd_macros::simd;

    use super::*;
    use crate::rng::Stream;

    #[simd]
    fn sorted<S: Simd>(simd: S, lists: &[[u32; 16]]) -> Vec<[u32; 16]> {
        let mut values: Vec<u32x16<S>> = lists.iter().map(|list| (*list).simd_into(simd)).collect();
        sort(&mut values);
        values.into_iter().map(Into::into).collect()
    }

    #[test]
    fn every_list_of_zeros_and_ones_up_to_sixteen_is_sorted() {
        // A network that sorts these sorts everything (Knuth, TAOCP 3, 5.3.4).
        for (_, level) in crate::simd::levels() {
            for length in [4, 8, 16] {
                for first in (0..1u32 << length).step_by(16) {
                    let lists: Vec<[u32; 16]> = (0..length)
                        .map(|i| std::array::from_fn(|lane| (first + lane as u32) >> i & 1))
                        .collect();
                    check(&lists, &dispatch!(level, simd => sorted(simd, &lists)));
                }
            }
        }
    }

    #[test]
    fn lists_with_few_and_many_ties_are_sorted() {
        let mut stream = Stream::new(11, 0);
        for (_, level) in crate::simd::levels() {
            for length in [4, 8, 16, 32, 64, 128, 256, 512, LONGEST] {
                for shift in [0, 20, 28, 31] {
                    let mut list = || std::array::from_fn(|_| stream.next_u64() as u32 >> shift);
                    let lists: Vec<[u32; 16]> = (0..length).map(|_| list()).collect();
                    check(&lists, &dispatch!(level, simd => sorted(simd, &lists)));
                }
            }
        }
    }

    #[test]
    fn merges_are_right_for_all_runs_of_zeros_and_ones() {
        // Two sorted runs of zeros and ones are told by their numbers of ones.
        let (_, level) = crate::simd::levels()[0];
        for length in [32, 64, 128, 256] {
            let half = length / 2;
            for ones in 0..=half {
                for first in (0..=half).step_by(16) {
                    let lists: Vec<[u32; 16]> = (0..length)
                        .map(|i| {
                            std::array::from_fn(|lane| {
                                let (at, of) = if i < half {
                                    (i, ones)
                                } else {
                                    (i - half, first + lane)
                                };
                                u32::from(half - at <= of)
                            })
                        })
                        .collect();
                    check(&lists, &dispatch!(level, simd => sorted(simd, &lists)));
                }
            }
        }
    }

    fn check(lists: &[[u32; 16]], found: &[[u32; 16]]) {
        for lane in 0..16 {
            let mut expected: Vec<u32> = lists.iter().map(|list| list[lane]).collect();
            expected.sort_unstable();
            assert!(expected.into_iter().eq(found.iter().map(|list| list[lane])));
        }
    }
}
