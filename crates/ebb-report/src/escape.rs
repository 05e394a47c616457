//! The one gate for outside text: nothing a run carries may become markup.

use std::fmt::{self, Write};

/// Writes a text with the five characters of markup replaced and control characters dropped;
/// safe in element content and in double-quoted attributes.
pub(crate) struct Escape<'a>(pub &'a str);

impl fmt::Display for Escape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                c if c.is_control() || is_bidi_override(c) => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Characters that turn the direction of the text after them.
fn is_bidi_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shorthand for use in format strings.
pub(crate) fn esc(text: &str) -> Escape<'_> {
    Escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(
            esc("<script>alert(\"1\" & '2')</script>").to_string(),
            "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;"
        );
        assert_eq!(
            esc("a\u{0}b\u{1b}[31m\u{202e}c\nd").to_string(),
            "a\u{fffd}b\u{fffd}[31m\u{fffd}c\nd"
        );
        assert_eq!(esc("Größe 12 μs").to_string(), "Größe 12 μs");
    }
}
