//! The least of SVG: a drawing that is read on light and on dark pages.

use std::fmt::Write as _;

/// Colours by role; the page's own scheme chooses the set. Without variables, which few programs but browsers know.
const STYLE: &str = "\
text{font-family:ui-sans-serif,system-ui,sans-serif;font-size:12px}.title{font-weight:600}\
.line0,.line1{stroke-width:4;stroke-linecap:round;opacity:.45}.rule{stroke-width:1}\
.paper{fill:#fff}.ink,.title{fill:#1b1f24}.dim{fill:#6a737d}.rule{stroke:#d8dee4}\
.fill0{fill:#0969da}.line0{stroke:#0969da}.fill1{fill:#bf5700}.line1{stroke:#bf5700}\
@media(prefers-color-scheme:dark){\
.paper{fill:#0d1117}.ink,.title{fill:#e6edf3}.dim{fill:#8b949e}.rule{stroke:#30363d}\
.fill0{fill:#58a6ff}.line0{stroke:#58a6ff}.fill1{fill:#f0883e}.line1{stroke:#f0883e}}";

/// Where a text stands about its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing in the making. Classes are those of [`STYLE`].
#[derive(Debug, Default)]
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        let _infallible =
            writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#);
    }

    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, title: &str) {
        let title = escape(title);
        let _infallible = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" class="{class}"><title>{title}</title></rect>"#
        );
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _infallible =
            writeln!(self.body, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#);
    }

    pub(crate) fn dot(&mut self, (x, y): (f64, f64), radius: f64, class: &str, title: &str) {
        let title = escape(title);
        let _infallible = writeln!(
            self.body,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" class="{class}"><title>{title}</title></circle>"#
        );
    }

    /// The whole file.
    pub(crate) fn finish(self, width: f64, height: f64, title: &str) -> String {
        let Self { body } = self;
        let title = escape(title);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img">
<title>{title}</title>
<style>{STYLE}</style>
<rect width="{width:.0}" height="{height:.0}" class="paper"/>
{body}</svg>
"#
        )
    }
}

/// Text as XML carries it; what XML cannot carry at all is left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escape("a<b> & \"c\"\u{0}\n"), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
