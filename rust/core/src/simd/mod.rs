//! Vector math shared by the families: elementary functions, and reductions in a fixed order.

mod elementary;
mod fused;
mod normal;
mod reduce;

pub use elementary::{
    exp, exp_lifted, exp2, exp2_lifted, ln, ln_1p, log2, log2_near_one, log2_of_lifted,
    log2_of_normal, polynomial, rough_power_lifted,
};
pub use normal::{mills_ratio, normal_cdf, normal_log_cdf, normal_pdf};
pub use reduce::{
    Sum, add_up, load_padded, max, max_of_each_quarter, store_part, two_sum, whole_stripes,
    whole_stripes_mut,
};

use fearless_simd::Level;

/// The SIMD levels that this CPU has, by name, widest first.
pub fn levels() -> Vec<(&'static str, Level)> {
    let best = Level::new();
    #[cfg(target_arch = "x86_64")]
    let all = [
        best.as_avx512().map(|t| ("avx512", Level::Avx512(t))),
        best.as_avx2().map(|t| ("avx2", Level::Avx2(t))),
        best.as_sse2().map(|t| ("sse2", Level::Sse2(t))),
    ];
    #[cfg(target_arch = "aarch64")]
    let all = [best.as_neon().map(|t| ("neon", Level::Neon(t)))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all = [Some(("baseline", best))];
    all.into_iter().flatten().collect()
}
