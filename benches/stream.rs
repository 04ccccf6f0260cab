//! Writes the random numbers of `rng::Lanes` to stdout without end, for `testu01.sh`: 2¹⁴ values of each of the eight
//! streams of a block, a value of every stream in turn, block after block, as 32-bit words in little-endian order.

use std::io::{self, Write};

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;
use unitmass_core::rng::{LANES, Lanes};

const SEED: u64 = 2026;
const STEPS: usize = 1 << 14;

fn main() {
    let level = Level::new();
    let mut values = vec![[0; LANES]; STEPS];
    let mut bytes = Vec::with_capacity(size_of::<u64>() * LANES * STEPS);
    let mut stdout = io::stdout().lock();
    for block in 0.. {
        dispatch!(level, simd => draw(simd, block, &mut values));
        bytes.clear();
        bytes.extend(values.as_flattened().iter().flat_map(|v| v.to_le_bytes()));
        if stdout.write_all(&bytes).is_err() {
            return; // the reader has enough
        }
    }
}

#[simd]
fn draw<S: Simd>(simd: S, block: u64, values: &mut [[u64; LANES]]) {
    let mut lanes = Lanes::new(simd, SEED, block);
    for eight in values {
        *eight = lanes.next_u64().into();
    }
}
