//! A part of the points at which the power can go; all of them are tried by `quorate-sim crash-points`.

use quorate_sim::crash_points::{OPERATIONS, SWEEPS};
use quorate_sim::run::catch_panics;

#[test]
fn nothing_is_lost_wherever_the_power_goes() {
    catch_panics();
    for sweep in SWEEPS {
        let swept = sweep.run(101, 2);
        assert!(swept.failures.is_empty(), "{swept}");
        assert!(swept.reached > 1, "{swept}");
        assert!(swept.operations >= OPERATIONS, "{swept}");
    }
}
