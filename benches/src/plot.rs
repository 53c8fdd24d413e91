//! Plots in SVG: grouped bars, and lines over a logarithmic axis.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (900, 420);
const FONT: (&str, i32) = ("sans-serif", 14);
/// Told apart by colour-blind people too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x99, 0x99, 0x99),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xd5, 0x5e, 0x00),
];

/// A name, and a figure for each of the groups or places.
pub type Series<T> = (String, Vec<T>);

/// Bars in groups: `groups` are below the axis, each of the series has a bar in every group.
///
/// # Errors
/// The file could not be written.
pub fn bars(file: &Path, title: &str, unit: &str, groups: &[String], series: &[Series<f64>]) -> Result<()> {
    let most = series.iter().flat_map(|(_, figures)| figures).copied().fold(0.0, f64::max) * 1.1;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..groups.len() as f64, 0.0..most)?;
        chart.configure_mesh().disable_x_mesh().disable_x_axis().y_desc(unit).label_style(FONT).draw()?;
        let width = 0.8 / series.len() as f64;
        for (place, (name, figures)) in series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let bar = |(group, figure): (usize, &f64)| {
                let left = group as f64 + 0.1 + width * place as f64;
                Rectangle::new([(left, 0.0), (left + width * 0.92, *figure)], colour.filled())
            };
            chart
                .draw_series(figures.iter().enumerate().map(bar))?
                .label(name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        }
        let below = FONT.into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
        let (left, bottom) = chart.plotting_area().map_coordinate(&(0.0, 0.0));
        let (right, _) = chart.plotting_area().map_coordinate(&(groups.len() as f64, 0.0));
        for (place, group) in groups.iter().enumerate() {
            let middle = f64::from(right - left) * (place as f64 + 0.5) / groups.len() as f64;
            root.draw(&Text::new(group.clone(), (left + middle as i32, bottom + 6), below.clone()))?;
        }
        legend(&mut chart)?;
        root.present()
    };
    draw().map_err(|e| anyhow!("{}: {e}", file.display()))
}

/// Lines through points; the horizontal axis is logarithmic.
///
/// # Errors
/// The file could not be written.
pub fn lines(file: &Path, title: &str, axes: [&str; 2], series: &[Series<(f64, f64)>]) -> Result<()> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let most = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
    let first = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let last = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d((first..last * 1.2).log_scale(), 0.0..most)?;
        chart.configure_mesh().x_desc(axes[0]).y_desc(axes[1]).label_style(FONT).draw()?;
        for (place, (name, points)) in series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        legend(&mut chart)?;
        root.present()
    };
    draw().map_err(|e| anyhow!("{}: {e}", file.display()))
}

/// The names of the series, in the corner.
fn legend<'a, B: DrawingBackend + 'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, B, C>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
}
