//! A small checker of markup: tags balance, attributes are quoted and not repeated, text holds
//! no stray `<`. It knows HTML's void elements and the raw text of `style` and `script`.

const VOID: [&str; 6] = ["meta", "br", "hr", "img", "input", "link"];

/// Names and values.
pub type Attributes = Vec<(String, String)>;

/// What is wrong with a document, or its tags in order (name, attributes).
pub fn check(document: &str) -> Result<Vec<(String, Attributes)>, String> {
    let mut open: Vec<String> = Vec::new();
    let mut tags = Vec::new();
    let mut rest = document.strip_prefix("<!doctype html>").unwrap_or(document);
    while let Some(at) = rest.find('<') {
        if rest[..at].contains('>') {
            return Err(format!("stray > before {:.80}", &rest[at..]));
        }
        rest = &rest[at + 1..];
        if let Some(closing) = rest.strip_prefix('/') {
            let end = closing.find('>').ok_or("an end tag without end")?;
            let name = &closing[..end];
            let opened = open.pop();
            if opened.as_deref() != Some(name) {
                return Err(format!(
                    "</{name}> closes {opened:?}, before {:.80}",
                    &closing[end..]
                ));
            }
            rest = &closing[end + 1..];
            continue;
        }
        let (name, attributes, empty, after) = tag(rest)?;
        rest = after;
        if name == "style" || name == "script" {
            let end = format!("</{name}>");
            let at = rest.find(&end).ok_or(format!("<{name}> without end"))?;
            rest = &rest[at + end.len()..];
        } else if !empty && !VOID.contains(&name.as_str()) {
            open.push(name.clone());
        }
        tags.push((name, attributes));
    }
    if open.is_empty() {
        Ok(tags)
    } else {
        Err(format!("never closed: {open:?}"))
    }
}

type Tag<'a> = (String, Attributes, bool, &'a str);

fn tag(text: &str) -> Result<Tag<'_>, String> {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .ok_or("a tag without end")?;
    let name = text[..end].to_string();
    if name.is_empty() {
        return Err(format!("stray < before {text:.80}"));
    }
    let mut rest = &text[end..];
    let mut attributes: Attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return Ok((name, attributes, true, after));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Ok((name, attributes, false, after));
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == ':'))
            .ok_or("an attribute without end")?;
        let key = rest[..end].to_string();
        if key.is_empty() || attributes.iter().any(|(k, _)| *k == key) {
            return Err(format!("attribute {key:?} of <{name}>, before {rest:.80}"));
        }
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(quoted) = rest.strip_prefix("=\"") {
            let end = quoted.find('"').ok_or("an attribute value without end")?;
            value = quoted[..end].to_string();
            if value.contains('<') {
                return Err(format!("< in attribute {key} of <{name}>"));
            }
            rest = &quoted[end + 1..];
        }
        attributes.push((key, value));
    }
}
