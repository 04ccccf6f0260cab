//! Do arcs of given, different lengths, dropped at uniform random places, cover the circle?
//!
//! Places and lengths are integers in units of 2⁻⁶⁴ turns; an arc is `[start, start + length)`, so arcs that touch
//! leave no gap. (Stevens, 1939, has the law for equal lengths; for mixed ones there is no closed form.)
//!
//! * **Domain.** Any number of arcs, none included; any start; lengths 0 to `u64::MAX`, which is the
//!   circle but for 2⁻⁶⁴ turns.
//! * **Precision, determinism.** Integers: exact, the same everywhere.
//! * **Cost.** A sort of n pairs, and a sweep that stops at the first gap.
//!
//! ```text
//! reach ← max (startᵢ + lengthᵢ) - 1 turn         # what wraps past 0 covers [0, reach)
//! for arcs by start
//!     if start > reach: a gap
//!     reach ← max(reach, start + length)
//! covered ⇔ reach >= 1 turn
//! ```

/// One turn, in units of 2⁻⁶⁴ turns.
const TURN: u128 = 1 << 64;

/// Whether the arcs from `starts[i]`, of `lengths[i]`, cover the circle; `order` is scratch.
pub(super) fn cover(starts: &[u64], lengths: &[u64], order: &mut Vec<(u64, u64)>) -> bool {
    debug_assert_eq!(starts.len(), lengths.len());
    order.clear();
    order.extend(starts.iter().copied().zip(lengths.iter().copied()));
    order.sort_unstable();

    let ends = order.iter().copied().map(end);
    let mut reach = ends.max().unwrap_or(0).saturating_sub(TURN);
    for &arc in order.iter() {
        if u128::from(arc.0) > reach {
            return false;
        }
        reach = reach.max(end(arc));
    }
    reach >= TURN
}

/// Where an arc ends, counted from 0 without wrapping.
fn end((start, length): (u64, u64)) -> u128 {
    u128::from(start) + u128::from(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Stream;

    /// The circle is covered if and only if each arc's end lies in some arc: behind a gap there is an arc, which ends
    /// where the gap begins.
    fn reference(starts: &[u64], lengths: &[u64]) -> bool {
        let arcs = || starts.iter().zip(lengths);
        let holds = |at: u64| arcs().any(|(&s, &l)| at.wrapping_sub(s) < l);
        !starts.is_empty() && arcs().all(|(&s, &l)| holds(s.wrapping_add(l)))
    }

    fn covers(starts: &[u64], lengths: &[u64]) -> bool {
        cover(starts, lengths, &mut Vec::new())
    }

    /// Multiples of a sixteenth of a turn, so that ends meet starts, and their neighbours.
    fn sixteenths() -> impl Strategy<Value = u64> {
        (0..16u64, -1..=1i64).prop_map(|(k, by)| (k << 60).wrapping_add_signed(by))
    }

    fn arcs<T: Strategy<Value = u64>>(
        at: fn() -> T,
        upto: usize,
    ) -> impl Strategy<Value = (Vec<u64>, Vec<u64>)> {
        prop::collection::vec((at(), at()), 0..upto).prop_map(|arcs| arcs.into_iter().unzip())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn agrees_with_the_definition_where_arcs_touch((starts, lengths) in arcs(sixteenths, 7)) {
            prop_assert_eq!(covers(&starts, &lengths), reference(&starts, &lengths));
        }

        #[test]
        fn agrees_with_the_definition_on_any_arcs((starts, lengths) in arcs(any::<u64>, 7)) {
            prop_assert_eq!(covers(&starts, &lengths), reference(&starts, &lengths));
        }

        #[test]
        fn equal_arcs_cover_if_they_span_the_largest_gap(
            mut starts in prop::collection::vec(sixteenths(), 1..7),
            length in sixteenths(),
        ) {
            let covered = covers(&starts, &vec![length; starts.len()]);
            starts.sort_unstable();
            let inner = starts.windows(2).map(|s| u128::from(s[1] - s[0]));
            let outer = TURN - u128::from(starts[starts.len() - 1] - starts[0]);
            prop_assert_eq!(covered, inner.chain([outer]).max() <= Some(u128::from(length)));
        }
    }

    #[test]
    fn nothing_and_one_arc_never_cover() {
        assert!(!covers(&[], &[]));
        for start in [0, 1, 1 << 63, u64::MAX] {
            for length in [0, 1, 1 << 63, u64::MAX] {
                assert!(!covers(&[start], &[length]), "{start} {length}");
            }
        }
    }

    #[test]
    fn the_last_unit_decides() {
        let start = 77;
        let nearly = u64::MAX; // all but the unit before `start`
        assert!(covers(&[start, start - 1], &[nearly, 1]));
        assert!(!covers(&[start, start], &[nearly, nearly]));
        assert!(!covers(&[start, start - 1], &[nearly, 0]));
        assert!(covers(&[0, 1 << 63], &[1 << 63, 1 << 63]));
        assert!(!covers(&[0, 1 << 63], &[1 << 63, (1 << 63) - 1]));
    }

    #[test]
    fn two_arcs_cover_with_probability_a_plus_b_minus_1() {
        // 10⁵ trials, 5 standard errors: false alarm 6e-7, and the seed is fixed.
        let lengths = [0.45, 0.8].map(|turns: f64| (turns * 2f64.powi(64)) as u64);
        let mut stream = Stream::new(3, 0);
        let mut order = Vec::new();
        let trials = 100_000;
        let hits = (0..trials)
            .filter(|_| {
                let starts = [stream.next_u64(), stream.next_u64()];
                cover(&starts, &lengths, &mut order)
            })
            .count();
        let (found, expected) = (hits as f64 / f64::from(trials), 0.25f64);
        let standard_error = (expected * (1.0 - expected) / f64::from(trials)).sqrt();
        assert!((found - expected).abs() < 5.0 * standard_error, "{found}");
    }
}
