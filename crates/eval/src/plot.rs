//! The curves of a training run as SVG: loss and validations, gradient norm, learning rate.

mod axis;
pub mod exits;
pub mod heat;

use crate::{Error, Result, TrainingReport};
use offramp_model::run_folder::{CURVES, JOURNAL};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 840);
/// Lower ends of the upper and the middle panel, in pixels.
const PANELS: [u32; 2] = [500, 670];
const MARGIN: u32 = 12;
const LABELS: u32 = 64;
/// The most labels of the loss.
const LOSS_LABELS: usize = 11;

const PALE: RGBColor = RGBColor(190, 196, 204);
const DARK: RGBColor = RGBColor(60, 66, 74);
/// A color for each exit, from shallow to deep. They differ in lightness as well as in hue.
const EXITS: [RGBColor; 6] = [
    RGBColor(230, 159, 0),
    RGBColor(204, 82, 30),
    RGBColor(140, 90, 180),
    RGBColor(0, 114, 178),
    RGBColor(0, 140, 100),
    RGBColor(90, 90, 90),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The SVG of a run.
///
/// # Errors
/// If it cannot be drawn.
pub fn svg(report: &TrainingReport, title: &str) -> Result<String> {
    let mut text = String::new();
    draw(report, title, &SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
        .map_err(|error| Error::Drawing(format!("cannot draw the curves: {error}")))?;
    Ok(text)
}

/// Draws the curves of the journal in a run folder into its `curves.svg`; `None` before the first
/// step.
///
/// # Errors
/// If the journal cannot be read, or the curves cannot be drawn or written.
pub fn write(folder: &Path) -> Result<Option<TrainingReport>> {
    let Some(report) = TrainingReport::read(&folder.join(JOURNAL))? else { return Ok(None) };
    let svg = svg(&report, &folder.file_name().unwrap_or_default().to_string_lossy())?;
    let path = folder.join(CURVES);
    offramp_model::checkpoint::write_atomically(&path, |file| file.write_all(svg.as_bytes()))?;
    Ok(Some(report))
}

type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(report: &TrainingReport, title: &str, area: &Area<'_>) -> DrawResult {
    area.fill(&WHITE)?;
    let (upper, rest) = area.split_vertically(PANELS[0]);
    let (middle, lower) = rest.split_vertically(PANELS[1] - PANELS[0]);
    let steps = report.steps.max(1) as f64;
    loss(report, title, steps, &upper)?;
    let norms = &report.curves.grad_norm;
    let (low, high) = decades(bounds(norms.iter().map(|point| point.1).filter(|&norm| norm > 0.0)));
    let norm_labels = axis::logarithmic(low..high, 4);
    let mut chart = panel("gradient norm before clipping, logarithmic", &middle)
        .build_cartesian_2d(0.0..steps, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .y_labels(4)
        .y_label_formatter(&norm_labels)
        .x_label_formatter(&step)
        .draw()?;
    chart.draw_series(LineSeries::new(norms.iter().copied(), DARK.stroke_width(1)))?;
    let rates = &report.curves.learning_rate;
    let most = rates.iter().map(|point| point.1).fold(0.0, f64::max);
    let range = 0.0..most.max(1e-9) * 1.05;
    let rate_labels = axis::scientific(range.clone(), 4);
    let mut chart = panel("learning rate", &lower).build_cartesian_2d(0.0..steps, range)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).label_style(("sans-serif", 13)).y_labels(4).x_desc("step");
    mesh.x_label_formatter(&step).y_label_formatter(&rate_labels).draw()?;
    chart.draw_series(LineSeries::new(rates.iter().copied(), DARK.stroke_width(2)))?;
    area.present()?;
    Ok(())
}

/// The label of a whole step. Fractions get none, because they would read the same.
fn step(step: &f64) -> String {
    axis::whole(*step).map(crate::number::grouped).unwrap_or_default()
}

fn panel<'a, 'b>(caption: &str, area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(MARGIN).margin_right(2 * MARGIN).x_label_area_size(32).y_label_area_size(LABELS);
    chart.caption(caption, ("sans-serif", 16));
    chart
}

fn loss(report: &TrainingReport, title: &str, steps: f64, area: &Area<'_>) -> DrawResult {
    let curves = &report.curves;
    let validated = report.validation.iter().flat_map(|record| record.exits.iter().map(|exit| exit.loss));
    let (low, high) = bounds(curves.loss.iter().map(|point| point.1).chain(validated));
    let caption = format!("{title}: loss, nats per token");
    let losses = axis::decimal(low..high, LOSS_LABELS, 1, "");
    let mut chart = panel(&caption, area).build_cartesian_2d(0.0..steps, low..high)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .y_labels(LOSS_LABELS)
        .y_label_formatter(&losses)
        .x_label_formatter(&step)
        .draw()?;
    chart.draw_series(LineSeries::new(curves.loss.iter().copied(), PALE.stroke_width(1)))?;
    let legend =
        |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
    chart
        .draw_series(LineSeries::new(curves.smoothed_loss.iter().copied(), DARK.stroke_width(2)))?
        .label("training, full model, smoothed")
        .legend(legend(DARK));
    for (exit_layer, color) in exits(report).into_iter().zip(EXITS.into_iter().cycle()) {
        let points: Vec<(f64, f64)> = report
            .validation
            .iter()
            .filter_map(|record| {
                let exit = record.exits.iter().find(|exit| exit.exit_layer == exit_layer)?;
                exit.loss.is_finite().then_some((record.step as f64, exit.loss))
            })
            .collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(format!("validation, exit {exit_layer}"))
            .legend(legend(color));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).margin(MARGIN);
    labels.background_style(WHITE.mix(0.85)).border_style(PALE).label_font(("sans-serif", 14)).draw()?;
    Ok(())
}

/// The exit layers that were validated, the shallowest first.
fn exits(report: &TrainingReport) -> Vec<usize> {
    let mut exits: Vec<_> =
        report.validation.iter().flat_map(|record| record.exits.iter().map(|exit| exit.exit_layer)).collect();
    exits.sort_unstable();
    exits.dedup();
    exits
}

/// The powers of ten around a range: the labels of a logarithmic axis.
fn decades(range: (f64, f64)) -> (f64, f64) {
    let (low, high) = (range.0.log10().floor(), range.1);
    (10f64.powf(low), 10f64.powf(high.log10().ceil().max(low + 1.0)))
}

/// The least and the greatest of the finite values, with a margin. They always differ.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    if low.is_finite() && high > low { (0.95 * low, 1.05 * high) } else { (0.5, 2.0f64.max(2.0 * high)) }
}
