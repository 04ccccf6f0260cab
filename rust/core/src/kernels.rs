//! The kernels of the families, compiled once, in this crate.
//!
//! A generic function is compiled again in every crate that calls it, and a kernel at every SIMD level: minutes and
//! gigabytes each time. A function that is not generic is compiled where it stands, with what it points to. So the
//! functions of the public interface, generic over the storage and light, call the kernels through a table for f32 and
//! one for f64.

use crate::{losses, maps, scalar::Real, smooth};

/// A type that the kernels are compiled for: f32 and f64.
pub trait Compiled: Real {
    /// Its kernels. Never inlined: that would be the caller's crate, and all of them compiled again there.
    fn kernels() -> &'static Kernels<Self>;
}

impl Compiled for f32 {
    #[inline(never)]
    fn kernels() -> &'static Kernels<f32> {
        &Kernels::AT_ANY_LEVEL
    }
}

impl Compiled for f64 {
    #[inline(never)]
    fn kernels() -> &'static Kernels<f64> {
        &Kernels::AT_ANY_LEVEL
    }
}

/// The kernels for values of type T, family by family.
pub struct Kernels<T> {
    pub(crate) losses: losses::Kernels<T>,
    pub(crate) maps: maps::Kernels<T>,
    pub(crate) smooth: smooth::Kernels<T>,
}

impl<T: Real> Kernels<T> {
    const AT_ANY_LEVEL: Self = Self {
        losses: losses::Kernels::AT_ANY_LEVEL,
        maps: maps::Kernels::AT_ANY_LEVEL,
        smooth: smooth::Kernels::AT_ANY_LEVEL,
    };
}
