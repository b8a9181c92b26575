//! A sweep as a heat map: the speed-up at every exit layer and draft length.

use super::{Area, DARK, DrawResult, MARGIN, PALE};
use crate::number::{percent, times};
use crate::{Error, Result, SweepPoint, SweepReport};
use offramp_model::Format;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height of a cell.
const CELL: (i32, i32) = (104, 58);
/// Margins: on the left of the cells, above them and below them.
const LEFT: i32 = 78;
const ABOVE: i32 = 62;
const BELOW: i32 = 92;
/// The least width, which the captions need.
const NARROWEST: i32 = 620;

/// The size of a text, and the side that is at its position.
#[derive(Clone, Copy)]
struct Font {
    size: f64,
    side: HPos,
}

const TITLE: Font = Font { size: 16.0, side: HPos::Left };
const LABEL: Font = Font { size: 13.0, side: HPos::Left };

/// The SVG of a sweep.
///
/// # Errors
/// If it cannot be drawn.
pub fn svg(report: &SweepReport, title: &str) -> Result<String> {
    let (columns, rows) = (lengths(report).len() as i32, exits(report).len() as i32);
    let width = (LEFT + columns * CELL.0 + 2 * MARGIN as i32).max(NARROWEST);
    let size = (width as u32, (ABOVE + rows * CELL.1 + BELOW) as u32);
    let mut text = String::new();
    draw(report, title, &SVGBackend::with_string(&mut text, size).into_drawing_area())
        .map_err(|error| Error::Drawing(format!("cannot draw the sweep: {error}")))?;
    Ok(text)
}

fn draw(report: &SweepReport, title: &str, area: &Area<'_>) -> DrawResult {
    area.fill(&WHITE)?;
    let (lengths, exits) = (lengths(report), exits(report));
    let caption = format!("{title}: speed-up of speculative over plain decoding");
    write(area, &caption, (MARGIN as i32, 22), TITLE, &DARK)?;
    let middle = |column: usize| LEFT + column as i32 * CELL.0 + CELL.0 / 2;
    let top = |row: usize| ABOVE + row as i32 * CELL.1;
    for (column, length) in lengths.iter().enumerate() {
        write(
            area,
            &length.to_string(),
            (middle(column), ABOVE - 12),
            Font { side: HPos::Center, ..LABEL },
            &DARK,
        )?;
    }
    for (row, (exit, layer)) in exits.iter().enumerate() {
        write(
            area,
            &exit.map_or_else(|| format!("exit {layer}"), |format| format!("{layer}, {format}")),
            (LEFT - 10, top(row) + CELL.1 / 2),
            Font { side: HPos::Right, ..LABEL },
            &DARK,
        )?;
    }
    for (index, point) in report.points.iter().enumerate() {
        let column = lengths.iter().position(|length| *length == point.num_speculations).unwrap_or(0);
        let row = exits.iter().position(|exit| *exit == (point.draft_format, point.exit_layer)).unwrap_or(0);
        let corner = (LEFT + column as i32 * CELL.0, top(row));
        cell(area, point, corner, index == report.best)?;
    }
    let below = top(exits.len());
    write(area, "draft length, tokens", (LEFT, below + 20), LABEL, &DARK)?;
    let auto = format!(
        "auto: {}, {} of the best ({}); in small: accepted of drafted",
        times(report.auto.speed_up.median),
        percent(report.auto.of_best.median, 0),
        times(report.points[report.best].speed_up.median)
    );
    write(area, &auto, (LEFT, below + 44), LABEL, &DARK)?;
    let machine = format!(
        "{} new tokens, median of {}; {}, threads {}",
        report.new_tokens, report.runs, report.kernels, report.threads
    );
    write(area, &machine, (LEFT, below + 66), LABEL, &DARK)?;
    area.present()?;
    Ok(())
}

fn cell(area: &Area<'_>, point: &SweepPoint, corner: (i32, i32), best: bool) -> DrawResult {
    let (x, y) = corner;
    let (color, dark) = shade(point.speed_up.median);
    area.draw(&Rectangle::new([(x, y), (x + CELL.0, y + CELL.1)], color.filled()))?;
    area.draw(&Rectangle::new([(x, y), (x + CELL.0, y + CELL.1)], PALE.stroke_width(1)))?;
    if best {
        let inside = [(x + 2, y + 2), (x + CELL.0 - 2, y + CELL.1 - 2)];
        area.draw(&Rectangle::new(inside, DARK.stroke_width(3)))?;
    }
    let ink = if dark { WHITE } else { DARK };
    let middle = x + CELL.0 / 2;
    write(
        area,
        &times(point.speed_up.median),
        (middle, y + 23),
        Font { size: 17.0, side: HPos::Center },
        &ink,
    )?;
    let accepted = percent(point.acceptance_rate, 0);
    write(area, &accepted, (middle, y + 42), Font { size: 12.0, side: HPos::Center }, &ink)
}

/// The color of a speed-up: white for 1, blue above, orange below. Also whether the color is dark.
fn shade(speed_up: f64) -> (RGBColor, bool) {
    let (depth, full) = match speed_up {
        gain if gain >= 1.0 => (((gain - 1.0) / 1.5).min(1.0), (0.0, 84.0, 147.0)),
        loss => (((1.0 - loss) / 0.6).min(1.0), (204.0, 102.0, 0.0)),
    };
    let part = |full: f64| (255.0 + depth * (full - 255.0)).round() as u8;
    (RGBColor(part(full.0), part(full.1), part(full.2)), depth > 0.55)
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), font: Font, ink: &RGBColor) -> DrawResult {
    let style = ("sans-serif", font.size).into_font().color(ink).pos(Pos::new(font.side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

fn lengths(report: &SweepReport) -> Vec<usize> {
    sorted(report.points.iter().map(|point| point.num_speculations))
}

/// The model's own exits first, then those of copies.
fn exits(report: &SweepReport) -> Vec<(Option<Format>, usize)> {
    let mut exits: Vec<_> =
        report.points.iter().map(|point| (point.draft_format, point.exit_layer)).collect();
    exits.sort_by_key(|(format, exit)| (format.is_some(), *exit));
    exits.dedup();
    exits
}

fn sorted(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut values: Vec<usize> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}
