//! The labels of an axis, with as many decimals as it takes for all of them to differ.

use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;

/// An `f64` has no more significant decimals.
const MOST_DECIMALS: usize = 17;

/// Writes a number as a label.
pub(super) type Label = Box<dyn Fn(&f64) -> String>;

/// Labels with a decimal point, at least `least` decimals, and a unit.
pub(super) fn decimal(range: Range<f64>, labels: usize, least: usize, unit: &'static str) -> Label {
    let marks = RangedCoordf64::from(range).key_points(BoldPoints(labels));
    distinct(&marks, least, move |decimals, value| format!("{value:.decimals$}{unit}"))
}

/// Labels with a power of ten.
pub(super) fn scientific(range: Range<f64>, labels: usize) -> Label {
    let marks = RangedCoordf64::from(range).key_points(BoldPoints(labels));
    distinct(&marks, 1, power)
}

/// Labels of a logarithmic axis, with a decimal point where that is short.
pub(super) fn logarithmic(range: Range<f64>, labels: usize) -> Label {
    let readable = range.start >= 1e-3 && range.end <= 1e5;
    let axis: LogCoord<f64> = range.log_scale().into();
    let marks = axis.key_points(BoldPoints(labels));
    match readable {
        true => distinct(&marks, 1, |decimals, value| format!("{value:.decimals$}")),
        false => distinct(&marks, 0, power),
    }
}

/// Whole numbers with separators, or decimals where whole numbers would be equal.
pub(super) fn grouped(range: Range<f64>, labels: usize) -> Label {
    let marks = RangedCoordf64::from(range).key_points(BoldPoints(labels));
    distinct(&marks, 0, |decimals, value| match decimals {
        0 => crate::number::grouped(value.round() as u64),
        _ => format!("{value:.decimals$}"),
    })
}

/// The whole number that `value` is, or `None`.
pub(super) fn whole(value: f64) -> Option<u64> {
    ((value - value.round()).abs() < 1e-6 && value >= 0.0).then_some(value.round() as u64)
}

fn power(decimals: usize, value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.decimals$e}") }
}

/// Calls `write` with the fewest decimals, at least `least`, that make all marks differ.
fn distinct(marks: &[f64], least: usize, write: impl Fn(usize, f64) -> String + 'static) -> Label {
    let differ = |decimals: &usize| {
        let mut labels: Vec<_> = marks.iter().map(|&mark| write(*decimals, mark)).collect();
        labels.sort_unstable();
        labels.windows(2).all(|pair| pair[0] != pair[1])
    };
    let decimals = (least..MOST_DECIMALS).find(differ).unwrap_or(MOST_DECIMALS);
    Box::new(move |&value| write(decimals, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_distinct(label: &Label, marks: &[f64], what: &str) {
        let mut labels: Vec<_> = marks.iter().map(label).collect();
        labels.sort_unstable();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{what}: {labels:?}");
    }

    /// Over any range, no two labels of an axis are equal.
    #[test]
    fn no_two_labels_are_equal() {
        for power in -9..9 {
            for low in [-731.5, -3.0, 0.0, 0.04, 1.0, 2.97, 999.0] {
                for width in [1e-3, 0.02, 0.3, 1.0, 1.7, 50.0, 4321.0] {
                    let [low, width] = [low, width].map(|value| value * 10f64.powi(power));
                    let range = low..low + width;
                    let positive = low.abs() + width / 9.0..low.abs() + width;
                    for labels in [2, 4, 6, 11] {
                        let marks = RangedCoordf64::from(range.clone()).key_points(BoldPoints(labels));
                        let what = format!("{range:?} with {labels}");
                        assert_distinct(&decimal(range.clone(), labels, 0, "×"), &marks, &what);
                        assert_distinct(&scientific(range.clone(), labels), &marks, &what);
                        let log: LogCoord<f64> = positive.clone().log_scale().into();
                        let marks = log.key_points(BoldPoints(labels));
                        assert_distinct(&logarithmic(positive.clone(), labels), &marks, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn labels_are_no_longer_than_they_must() {
        let written = |label: Label, marks: &[f64]| marks.iter().map(&label).collect::<Vec<_>>();
        assert_eq!(written(decimal(0.0..4.0, 6, 0, "×"), &[1.0, 2.0]), ["1×", "2×"]);
        assert_eq!(written(decimal(0.0..2.0, 6, 0, "×"), &[0.5, 1.0]), ["0.5×", "1.0×"]);
        assert_eq!(written(grouped(0.0..9000.0, 6), &[2000.0]), ["2,000"]);
        assert_eq!(written(grouped(0.0..2.0, 6), &[1.0]), ["1.0"]);
        assert_eq!((whole(3.0000001), whole(2.5), whole(-1.0)), (Some(3), None, None));
    }
}
