//! What each exit is worth and how fast it is, as SVG: two panels over the exit layers.

use super::{Area, DARK, Drawn, bounds, panel};
use anyhow::Result;
use offramp_eval::card::Measured;
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 560);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const GREEN: RGBColor = RGBColor(0, 140, 100);
/// Perplexities beyond so many times the best are left out of the picture: the first exits would flatten the rest.
const WORST: f64 = 3.0;
/// Room beside both panels, so that their exits stand above each other.
const RIGHT: u32 = 48;

type Points = Vec<(f64, f64)>;

/// The SVG of what a card measured.
pub(crate) fn svg(measured: &Measured, title: &str) -> Result<String> {
    let mut text = String::new();
    draw(measured, title, &SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
        .map_err(|error| anyhow::anyhow!("cannot draw the exits: {error}"))?;
    Ok(text)
}

fn draw(measured: &Measured, title: &str, area: &Area<'_>) -> Drawn {
    area.fill(&WHITE)?;
    let scores = measured.validation.as_ref().map_or(&[][..], |scores| &scores.exits);
    let perplexity: Points = scores.iter().map(|exit| (exit.exit_layer as f64, exit.perplexity)).collect();
    let timed = measured.speed.as_ref().map_or(&[][..], |speed| &speed.exits);
    let decode: Points = timed.iter().map(|exit| (exit.exit_layer as f64, exit.decode.median)).collect();
    let deepest = measured.exits().last().copied().unwrap_or(1) as f64;
    let panels: Vec<_> =
        [(perplexity, true), (decode, false)].into_iter().filter(|(p, _)| !p.is_empty()).collect();
    for ((points, is_perplexity), area) in panels.iter().zip(area.split_evenly((panels.len().max(1), 1))) {
        match is_perplexity {
            true => draw_perplexity(points, (title, deepest), &area)?,
            false => draw_speed(points, (title, deepest), &area)?,
        }
    }
    area.present()?;
    Ok(())
}

fn draw_perplexity(points: &Points, (title, deepest): (&str, f64), area: &Area<'_>) -> Drawn {
    let best = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let shown: Points = points.iter().copied().filter(|point| point.1 <= WORST * best).collect();
    let (low, high) = bounds(shown.iter().map(|point| point.1));
    let left_out = points.len() - shown.len();
    let beyond =
        if left_out > 0 { format!(" (the first {left_out} are above {high:.0})") } else { String::new() };
    let caption = format!("{title}: perplexity at every exit{beyond}");
    let mut chart = panel(&caption, area)
        .right_y_label_area_size(RIGHT)
        .build_cartesian_2d(0.5..deepest + 0.5, low..high)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).label_style(("sans-serif", 13)).x_labels(24).y_labels(6);
    mesh.x_label_formatter(&layer).y_label_formatter(&|value| format!("{value:.0}")).draw()?;
    chart.draw_series(LineSeries::new(shown.iter().copied(), BLUE.stroke_width(2)))?;
    chart.draw_series(shown.iter().map(|&point| Circle::new(point, 4, BLUE.filled())))?;
    Ok(())
}

fn draw_speed(points: &Points, (_, deepest): (&str, f64), area: &Area<'_>) -> Drawn {
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
        .y_labels(6)
        .x_desc("exit layer");
    let tokens = |value: &f64| crate::number::grouped(value.round() as u64);
    mesh.x_label_formatter(&layer).y_label_formatter(&tokens).draw()?;
    let mut right = chart.configure_secondary_axes();
    right
        .label_style(("sans-serif", 13))
        .y_labels(6)
        .y_label_formatter(&|value| format!("{value:.0}×"))
        .draw()?;
    let bar = |&(x, y): &(f64, f64)| Rectangle::new([(x - 0.3, 0.0), (x + 0.3, y)], GREEN.mix(0.75).filled());
    chart.draw_series(points.iter().map(bar))?;
    chart.draw_series(LineSeries::new([(0.5, slowest), (deepest + 0.5, slowest)], DARK.stroke_width(1)))?;
    Ok(())
}

fn layer(layer: &f64) -> String {
    if (layer - layer.round()).abs() < 1e-6 { format!("{layer:.0}") } else { String::new() }
}
