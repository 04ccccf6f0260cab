//! `a · b + c`, rounded once, at every level.

use fearless_simd::{Level, Simd, prelude::*};

/// [`Fused::fused`].
pub(super) trait Fused<S: Simd>: SimdFloat<S> {
    /// `self · b + c`, rounded once: by the instruction, or where there is none in software and out of line. There it
    /// is a hundred instructions a register, which took the compiler minutes when every kernel had its copies.
    #[inline(always)]
    fn fused(self, b: impl SimdInto<Self, S>, c: impl SimdInto<Self, S>) -> Self {
        let simd = self.token();
        let (b, c) = (b.simd_into(simd), c.simd_into(simd));
        if has_instruction(simd.level()) {
            self.mul_add_precise(b, c)
        } else {
            in_software(self, b, c)
        }
    }
}

impl<S: Simd, V: SimdFloat<S>> Fused<S> for V {}

/// A constant, once it is inlined.
#[inline(always)]
fn has_instruction(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level.as_avx2().is_some();
    #[cfg(target_arch = "aarch64")]
    return level.as_neon().is_some();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[inline(never)]
fn in_software<S: Simd, V: SimdFloat<S>>(a: V, b: V, c: V) -> V {
    a.mul_add_precise(b, c)
}
