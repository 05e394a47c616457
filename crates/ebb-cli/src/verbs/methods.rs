//! `ebb methods`: what can be done against forgetting.

use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;
use crate::out::{self, Table};
use ebb_learn::MethodCard;
use ebb_learn::methods::taxonomy::{self, APPROACHES, Approach};
use ebb_learn::methods::{ALL, find};
use ebb_report::Terminal;
use serde::Serialize;

/// List the methods, or show one: source, use, cost, parameters, long form
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub struct Methods {
    #[command(subcommand)]
    verb: Option<Show>,
    /// Order them by the approaches of the field's survey
    #[arg(long)]
    taxonomy: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  ebb methods
  ebb methods --taxonomy           ordered by approach
  ebb methods show der++           what it does, costs and stands for
  ebb methods --json | jq -r '.[].name'";

#[derive(clap::Subcommand)]
enum Show {
    /// Show one method
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A method in the machine form.
#[derive(Serialize)]
struct Card {
    name: &'static str,
    aliases: &'static [&'static str],
    title: &'static str,
    family: &'static str,
    source: &'static str,
    card: &'static str,
    use_it: &'static str,
    not_for: &'static str,
    stores: &'static str,
    costs: &'static str,
    parameters: toml::Table,
    /// What the name stands for in a recipe.
    long_form: toml::Table,
}

impl Card {
    fn of(m: &MethodCard) -> Result<Card> {
        Ok(Card {
            name: m.name,
            aliases: m.aliases,
            title: m.title,
            family: m.family,
            source: m.source,
            card: m.card,
            use_it: m.use_it,
            not_for: m.not_for,
            stores: m.stores,
            costs: m.costs,
            parameters: (m.defaults)(),
            long_form: m.long_form()?,
        })
    }
}

impl Methods {
    /// Does it.
    ///
    /// # Errors
    /// When there is no such method.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let terminal = around.terminal();
        match &self.verb {
            None if self.taxonomy => self.taxonomy(&terminal)?,
            None if self.json => {
                let cards = ALL.iter().map(Card::of).collect::<Result<Vec<_>>>()?;
                out::json(&cards)?;
            }
            None => {
                let mut table = Table::new(&["method", "family", "source", "use it for"]);
                for m in ALL {
                    table.row([m.name, m.family, m.source, m.use_it].map(str::to_owned));
                }
                out::print(&table.text(&terminal))?;
            }
            Some(Show::Show { name, json: true }) => out::json(&Card::of(find(name)?)?)?,
            Some(Show::Show { name, json: false }) => {
                out::print(&card(find(name)?, &terminal)?)?;
            }
        }
        Ok(Ended::Done)
    }

    fn taxonomy(&self, terminal: &Terminal) -> Result<()> {
        if self.json {
            // In the survey's order, which a sorted map would lose.
            let names = |families| {
                taxonomy::methods(families)
                    .map(|m| m.name)
                    .collect::<Vec<_>>()
            };
            let of = |(approach, directions): &Approach| {
                let each = directions.iter().map(|(d, families)| (*d, names(families)));
                let each: serde_json::Map<_, _> = each
                    .map(|(d, names)| (d.to_owned(), names.into()))
                    .collect();
                ((*approach).to_owned(), each.into())
            };
            let tree: serde_json::Map<String, serde_json::Value> =
                APPROACHES.iter().map(of).collect();
            return out::json(&tree);
        }
        let mut text = String::new();
        for (approach, directions) in APPROACHES {
            text.push_str(&format!("{}\n", out::bold(terminal, approach)));
            for (direction, families) in *directions {
                let names: Vec<&str> = taxonomy::methods(families).map(|m| m.name).collect();
                let names = match names.is_empty() {
                    true => out::dim(terminal, "none yet"),
                    false => names.join(", "),
                };
                text.push_str(&format!("  {direction:<32}{names}\n"));
            }
        }
        let note = "after Wang et al., A comprehensive survey of continual learning, TPAMI 2024";
        text.push_str(&format!("\n{}\n", out::dim(terminal, note)));
        out::print(&text)
    }
}

/// A method's card as text.
fn card(m: &MethodCard, terminal: &Terminal) -> Result<String> {
    let title = out::bold(terminal, &format!("{}: {}", m.name, m.title));
    let mut text = format!("{title}\n\n");
    let lines = [
        ("source", format!("{} (card {})", m.source, m.card)),
        ("family", m.family.to_owned()),
        ("also called", m.aliases.join(", ")),
        ("use it for", m.use_it.to_owned()),
        ("not for", m.not_for.to_owned()),
        ("stores", m.stores.to_owned()),
        ("costs", m.costs.to_owned()),
    ];
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let name = out::dim(terminal, &format!("{name:<12}"));
        text.push_str(&format!("{name} {value}\n"));
    }
    let parameters = (m.defaults)();
    text.push_str(&format!("\n{}\n", out::bold(terminal, "In a recipe")));
    text.push_str(&indented(&m.short_form()));
    text.push_str(&format!(
        "\n{}\n",
        out::bold(terminal, "which is short for")
    ));
    let long = toml::to_string(&m.long_form()?).unwrap_or_default();
    text.push_str(&indented(&long));
    text.push_str(&format!(
        "\n{}\n",
        out::dim(
            terminal,
            &format!("ebb learn --method {}{}", m.name, example(&parameters))
        )
    ));
    Ok(text)
}

/// How the first parameter would be changed from the command line.
fn example(parameters: &toml::Table) -> String {
    let number = |v: &&toml::Value| v.is_integer() || v.is_float();
    let first = parameters.iter().find(|(_, v)| number(v));
    first.map_or_else(String::new, |(key, value)| {
        format!(" --set with.{key}={value}")
    })
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("  {line}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_learn::Recipe;

    /// What `show` prints, put into a recipe, is the same recipe as the name.
    #[test]
    fn the_long_form_stands_for_the_name() {
        let stream = "accept = [\"penalty-alone-on-class-incremental\"]\nlabel = \"x\"\n";
        let end = "[stream]\ndataset = \"digits\"\nsplit = 5\n";
        let texts = "[stream]\ndataset = \"text\"\n[network]\nkind = \"decoder\"\n\
                     [[language.experience]]\nname = \"a\"\n\
                     world = { kind = \"facts\", people = 8 }\n\
                     [language.generic]\nname = \"b\"\n\
                     world = { kind = \"facts\", people = 8 }\n";
        let plain = texts.split("[language.generic]").next().unwrap_or_default();
        for m in ALL {
            let short = m.short_form();
            let long = toml::to_string(&m.long_form().unwrap()).unwrap();
            let (top, tables) = long.split_at(long.find("\n[").unwrap_or(long.len()));
            let of = |end: &str| Recipe::parse(&format!("{stream}{short}{end}"), &[]);
            // Some are for language models alone.
            let ends = [end, plain, texts];
            let end = ends.into_iter().find(|end| of(end).is_ok()).unwrap_or(end);
            let short = of(end).unwrap_or_else(|e| panic!("{}: {e}", m.name));
            let long = Recipe::parse(&format!("{stream}{top}\n{end}{tables}"), &[]);
            let long = long.unwrap_or_else(|e| panic!("{}: {e}", m.name));
            assert_eq!(short.text(), long.text(), "{}", m.name);
        }
    }
}
