//! What the tests of every family share.

use std::sync::Once;

use fearless_simd::Level;
use unitmass_core::simd;

/// Every SIMD level that this CPU has, widest first; a level that is missing is printed.
///
/// The last, SSE2 on x86-64, computes each fused operation in software: it is the reference of the others.
pub fn every_level() -> Vec<(&'static str, Level)> {
    static PRINTED: Once = Once::new();
    let levels = simd::levels();
    let known: &[&str] = if cfg!(target_arch = "x86_64") {
        &["avx512", "avx2", "sse2"]
    } else if cfg!(target_arch = "aarch64") {
        &["neon"]
    } else {
        &[]
    };
    PRINTED.call_once(|| {
        for name in known {
            if !levels.iter().any(|(found, _)| found == name) {
                println!("skipped: this CPU has no {name}");
            }
        }
    });
    levels
}

/// Numbers that repeat from run to run (xorshift64*, Vigna 2016), for tests that need millions of them.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform on [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }
}
