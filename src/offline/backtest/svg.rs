//! The little SVG that the page needs: shapes of a class, stretched to their box, each with a text for the pointer.
//!
//! A drawing has no text of its own: it is stretched to the width of the page, and letters would be too. Labels are
//! HTML beside it.

use std::fmt::{Display, Write};

/// Text with everything escaped that has a meaning in HTML or SVG, in content and in quoted attributes alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            // XML knows no way to write the others.
            '\t' | '\n' | '\r' => f.write_char(character),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}'),
            _ => f.write_char(character),
        })
    }
}

/// A box in a drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A drawing of a fixed inner size that is stretched to whatever box it stands in.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    width: f64,
    height: f64,
    /// What it shows, for those who do not see it.
    label: String,
    shapes: String,
}

impl Drawing {
    /// An empty one.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        Self { width, height, label: label.to_owned(), shapes: String::new() }
    }

    /// A filled box of a class; `hint` is shown when a pointer rests on it. Nothing is drawn for one without extent.
    pub(super) fn draw_bar(&mut self, area: Area, class: &str, opacity: f64, hint: &str) {
        let Area { x, y, width, height } = area;
        if !(width > 0.0 && height > 0.0) {
            return;
        }
        let opacity = if opacity < 1.0 { format!(r#" fill-opacity="{opacity:.2}""#) } else { String::new() };
        self.push_shape(format_args!(
            r#"<rect class="{}" x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}"{opacity}><title>{}</title></rect>"#,
            Escaped(class),
            Escaped(hint),
        ));
    }

    /// A line across the whole width.
    pub(super) fn draw_rule(&mut self, y: f64) {
        let width = self.width;
        self.push_shape(format_args!(
            r#"<line class="rule" x1="0" x2="{width:.0}" y1="{y:.2}" y2="{y:.2}"/>"#
        ));
    }

    fn push_shape(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        self.shapes.write_fmt(shape).unwrap_or_default();
    }
}

impl Display for Drawing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            r#"<svg role="img" aria-label="{}" viewBox="0 0 {:.0} {:.0}" preserveAspectRatio="none">{}</svg>"#,
            Escaped(&self.label),
            self.width,
            self.height,
            self.shapes,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area { x: 1.0, y: 2.0, width: 3.0, height: 4.0 };

    #[test]
    fn nothing_hostile_gets_through() {
        let mut drawing = Drawing::new(10.0, 10.0, "\"><script>1</script>");
        drawing.draw_bar(AREA, "a\" onload=\"x", 1.0, "</title><script>'&\u{0}\u{1b}");

        let drawn = drawing.to_string();

        assert!(!drawn.contains("<script") && !drawn.contains("onload=\"x\""), "{drawn}");
        assert!(drawn.contains("&lt;script&gt;&#39;&amp;\u{fffd}\u{fffd}</title>"), "{drawn}");
        assert!(drawn.contains("aria-label=\"&quot;&gt;&lt;script"), "{drawn}");
    }

    #[test]
    fn a_bar_has_its_place_and_one_without_extent_is_not_drawn() {
        let mut drawing = Drawing::new(10.0, 10.0, "");
        drawing.draw_bar(AREA, "c", 0.5, "h");
        for nothing in [0.0, -1.0, f64::NAN] {
            drawing.draw_bar(Area { width: nothing, ..AREA }, "c", 1.0, "h");
            drawing.draw_bar(Area { height: nothing, ..AREA }, "c", 1.0, "h");
        }
        drawing.draw_rule(5.0);

        assert_eq!(
            drawing.to_string(),
            concat!(
                r#"<svg role="img" aria-label="" viewBox="0 0 10 10" preserveAspectRatio="none">"#,
                r#"<rect class="c" x="1.00" y="2.00" width="3.00" height="4.00" fill-opacity="0.50"><title>h</title></rect>"#,
                r#"<line class="rule" x1="0" x2="10" y1="5.00" y2="5.00"/></svg>"#
            )
        );
    }
}
