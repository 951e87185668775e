//! Makes a failing plan small: leaves out what is not needed for the same promise to be broken.

use std::time::{Duration, Instant};

use super::{
    Failure, Trace,
    plan::{HEAD_BYTES, ITEM_BYTES, Plan, Taste},
    run_plan,
};

/// A smaller string of bytes whose world breaks the same promise, found by leaving out runs of items and then setting
/// bytes of the head to zero. Stops after so long.
pub fn minimise(bytes: &[u8], taste: Taste, failure: &Failure, most: Duration) -> Vec<u8> {
    let begin = Instant::now();
    let fails = |bytes: &[u8]| {
        if begin.elapsed() > most {
            return None;
        }
        let outcome = run_plan(Plan::of_bytes(bytes, taste), &mut Trace::off());
        Some(outcome.is_err_and(|other| other.oracle == failure.oracle))
    };
    let mut best = bytes.to_vec();
    let mut run = (best.len().saturating_sub(HEAD_BYTES) / ITEM_BYTES).next_power_of_two();
    while run > 0 {
        let mut at = HEAD_BYTES;
        while at < best.len() {
            let mut shorter = best.clone();
            shorter.drain(at..(at + run * ITEM_BYTES).min(best.len()));
            match fails(&shorter) {
                None => return best,
                Some(true) => best = shorter,
                Some(false) => at += run * ITEM_BYTES,
            }
        }
        run /= 2;
    }
    for at in 0..HEAD_BYTES.min(best.len()) {
        let mut plainer = best.clone();
        plainer[at] = 0;
        match fails(&plainer) {
            None => return best,
            Some(true) => best = plainer,
            Some(false) => {}
        }
    }
    best
}
