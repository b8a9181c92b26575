//! Perplexity and speed at every exit, as SVG: two panels over the exit layers.

use super::{Area, DARK, DrawResult, axis, bounds, panel};
use crate::card::Measured;
use crate::{Error, Result};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 560);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const GREEN: RGBColor = RGBColor(0, 140, 100);
/// A perplexity above this many times the best is left out: the first exits would flatten the rest.
const WORST: f64 = 3.0;
/// The margin on the right of both panels, so that their exits line up.
const RIGHT: u32 = 48;
/// The most labels of a vertical axis.
const ROWS: usize = 6;

type Points = Vec<(f64, f64)>;

/// The SVG of what a card measured.
///
/// # Errors
/// If it cannot be drawn.
pub fn svg(measured: &Measured, title: &str) -> Result<String> {
    let mut text = String::new();
    draw(measured, title, &SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
        .map_err(|error| Error::Drawing(format!("cannot draw the exits: {error}")))?;
    Ok(text)
}

fn draw(measured: &Measured, title: &str, area: &Area<'_>) -> DrawResult {
    area.fill(&WHITE)?;
    let scores = measured.validation.as_ref().map_or(&[][..], |scores| &scores.exits);
    let perplexity: Points = finite(scores.iter().map(|exit| (exit.exit_layer, exit.perplexity)));
    let timed = measured.speed.as_ref().map_or(&[][..], |speed| &speed.exits);
    let decode: Points = finite(timed.iter().map(|exit| (exit.exit_layer, exit.decode.median)));
    let deepest = measured.exits().last().copied().unwrap_or(1) as f64;
    let panels: Vec<_> =
        [(perplexity, true), (decode, false)].into_iter().filter(|(p, _)| !p.is_empty()).collect();
    for ((points, is_perplexity), area) in panels.iter().zip(area.split_evenly((panels.len().max(1), 1))) {
        match is_perplexity {
            true => draw_perplexity(points, title, deepest, &area)?,
            false => draw_speed(points, deepest, &area)?,
        }
    }
    area.present()?;
    Ok(())
}

/// The points with a positive, finite value.
fn finite(points: impl Iterator<Item = (usize, f64)>) -> Points {
    let some = points.filter(|point| point.1.is_finite() && point.1 > 0.0);
    some.map(|(exit_layer, value)| (exit_layer as f64, value)).collect()
}

fn draw_perplexity(points: &Points, title: &str, deepest: f64, area: &Area<'_>) -> DrawResult {
    let best = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let shown: Points = points.iter().copied().filter(|point| point.1 <= WORST * best).collect();
    let (low, high) = bounds(shown.iter().map(|point| point.1));
    let left_out = points.len() - shown.len();
    let beyond =
        if left_out > 0 { format!(" (the first {left_out} are above {high:.0})") } else { String::new() };
    let caption = format!("{title}: perplexity at every exit{beyond}");
    let values = axis::decimal(low..high, ROWS, 0, "");
    let mut chart = panel(&caption, area)
        .right_y_label_area_size(RIGHT)
        .build_cartesian_2d(0.5..deepest + 0.5, low..high)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).label_style(("sans-serif", 13)).x_labels(24).y_labels(ROWS);
    mesh.x_label_formatter(&layer).y_label_formatter(&values).draw()?;
    chart.draw_series(LineSeries::new(shown.iter().copied(), BLUE.stroke_width(2)))?;
    chart.draw_series(shown.iter().map(|&point| Circle::new(point, 4, BLUE.filled())))?;
    Ok(())
}

fn draw_speed(points: &Points, deepest: f64, area: &Area<'_>) -> DrawResult {
    let high = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.05;
    let slowest = points.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |point| point.1);
    let mut chart = panel("decode tokens/s at every exit, and its multiple of the full depth's", area)
        .right_y_label_area_size(RIGHT)
        .build_cartesian_2d(0.5..deepest + 0.5, 0.0..high)?
        .set_secondary_coord(0.5..deepest + 0.5, 0.0..high / slowest);
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .x_labels(24)
        .y_labels(ROWS)
        .x_desc("exit layer");
    let tokens = axis::grouped(0.0..high, ROWS);
    let multiples = axis::decimal(0.0..high / slowest, ROWS, 0, "×");
    mesh.x_label_formatter(&layer).y_label_formatter(&tokens).draw()?;
    let mut right = chart.configure_secondary_axes();
    right.label_style(("sans-serif", 13)).y_labels(ROWS).y_label_formatter(&multiples).draw()?;
    let green = GREEN.mix(0.75).filled();
    chart.draw_series(points.iter().map(|(x, y)| Rectangle::new([(x - 0.3, 0.0), (x + 0.3, *y)], green)))?;
    chart.draw_series(LineSeries::new([(0.5, slowest), (deepest + 0.5, slowest)], DARK.stroke_width(1)))?;
    Ok(())
}

fn layer(layer: &f64) -> String {
    axis::whole(*layer).map(|layer| layer.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitScore;
    use crate::card::{ExitSpeedFigures, Scores, SpeedFigures};

    fn scored(perplexities: &[f64]) -> Measured {
        let exit = |(index, &perplexity): (usize, &f64)| ExitScore {
            exit_layer: index + 1,
            tokens: 9,
            bytes: 9,
            nats_per_token: perplexity.ln(),
            perplexity,
            bits_per_byte: 1.0,
            agreement: 1.0,
        };
        let exits = perplexities.iter().enumerate().map(exit).collect();
        Measured { validation: Some(Scores { data: "v".to_owned(), exits }), ..Measured::default() }
    }

    fn timed(rates: &[f64]) -> Measured {
        let exit = |(index, &rate): (usize, &f64)| {
            let spread = crate::Spread { median: rate, min: rate, max: rate };
            ExitSpeedFigures { exit_layer: index + 1, prefill: spread, decode: spread, speed_up: 1.0 }
        };
        let speed = SpeedFigures {
            processor: None,
            kernels: String::new(),
            threads: 1,
            formats: String::new(),
            prompt_tokens: 1,
            new_tokens: 1,
            runs: 1,
            exits: rates.iter().enumerate().map(exit).collect(),
        };
        Measured { speed: Some(speed), ..Measured::default() }
    }

    /// The labels of one axis: all at the same height, or all at the same distance from the left.
    fn assert_labels_differ(svg: &str) {
        let attribute = |tag: &str, name: &str| {
            let rest = tag.split_once(&format!("{name}=\"")).unwrap().1;
            rest.split_once('"').unwrap().0.to_owned()
        };
        let label = |text: &str| {
            let (tag, rest) = text.split_once('>').unwrap();
            let tag = format!(" {tag}");
            let axis = match attribute(&tag, "text-anchor").as_str() {
                "middle" => "y",
                _ => "x",
            };
            let told = rest.split_once("</text>").unwrap().0.trim().to_owned();
            (axis, attribute(&tag, &format!(" {axis}")), told)
        };
        let mut labels: Vec<_> = svg.split("<text ").skip(1).map(label).collect();
        labels.retain(|(.., told)| !told.is_empty());
        assert!(labels.len() > 5, "{svg}");
        labels.sort_unstable();
        labels.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "{svg}"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn labels_of_an_axis_differ_however_little_it_reaches_over() {
        for measured in [
            scored(&[3.21, 3.2, 3.19]),
            scored(&[1.5]),
            scored(&[9e4, 12.0, 9.5, 8.0, 7.9]),
            scored(&[f64::INFINITY, f64::NAN, 4.0, 3.9]),
            timed(&[1.3, 1.2, 1.1]),
            timed(&[0.02, 0.01]),
            timed(&[24_000.0, 12_000.0, 8000.0]),
            timed(&[f64::NAN, f64::INFINITY, 20.0]),
        ] {
            assert_labels_differ(&svg(&measured, "m").unwrap());
        }
    }
}
