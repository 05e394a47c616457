//! `ebb forget`: records erased on request, and the proof of it.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::interrupt;
use crate::out::{self, Table};
use crate::watch::Watch;
use ebb_erase::office::{Case, Found, How, Office, Stage, Submission, Verified, Verifying};
use ebb_erase::plan::{Advice, PRICE, Rehearsal, advise, rehearse};
use ebb_erase::{METHODS, Method, Relearning, Subject, exact};
use ebb_report::Colour;
use ebb_revise::{PublicKey, Why, verify};
use ebb_space::Number;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Erase records on request, and prove it
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Forget {
    #[command(subcommand)]
    verb: ForgetVerb,
    /// The office: the ledger and a folder for each request
    #[arg(long, global = true, value_name = "DIR", default_value = "office")]
    office: PathBuf,
    /// Its keys, outside of office and runs [default: $EBB_KEYS, else the user's configuration]
    #[arg(long, global = true, value_name = "DIR")]
    keys: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
A request (TOML or JSON) says which records, why and on whose authority: by id, by content with what
is like it, by class, or by concept.

  format_version = 1
  ground = \"person\"              # licence, poisoned, wrong-label, { other = \"...\" }
  authority = \"data protection officer, ticket 4711\"
  deadline = \"2027-01-31\"
  [[forget]]
  text = \"The whole text of the record.\"
  near = 0.8                     # and what shares so much of its words
  [[forget]]
  class = 3

The road of a request:
  ebb forget submit request.toml --run runs/er-1 --dry-run    what it means, and keep nothing
  ebb forget submit request.toml --run runs/er-1              take it in
  ebb forget plan ID                                          what each way would cost and leave
  ebb forget run ID -o runs/er-1-erased                       the run without the records
  ebb forget verify ID --prove --oracles 16                   beside models that never saw them
  ebb forget purge ID                                         remove the old run
  ebb forget certificate ID                                   sign what was done
  ebb forget verify certificate.json --signer KEY             check it, offline

Neither the ledger nor any file of the office holds content or ids. `ebb ledger` checks it.";

#[derive(clap::Subcommand)]
enum ForgetVerb {
    /// Take a request in, or look what it means
    Submit {
        /// The request
        #[arg(value_name = "FILE")]
        request: PathBuf,
        /// The run that learnt the records
        #[arg(long, value_name = "RUN")]
        run: PathBuf,
        /// Who approved it; may be published
        #[arg(long, value_name = "NAME")]
        approver: Option<String>,
        /// Only show what it means
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Every request, and how far it is
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare the ways to erase, each tried on other records, and recommend one
    Plan {
        /// The request, or the beginning of its name
        #[arg(value_name = "ID")]
        id: String,
        /// The most seconds that learning again may take
        #[arg(long, value_name = "S")]
        seconds: Option<f64>,
        /// The most accuracy on test examples that may be lost
        #[arg(long, value_name = "SHARE", default_value_t = PRICE)]
        price: f64,
        /// Try these methods; all by default
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        methods: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Carry a request out: a new run without the records
    Run {
        /// The request, or the beginning of its name
        #[arg(value_name = "ID")]
        id: String,
        /// How: `exact`, or an eraser (`ebb forget methods`)
        #[arg(short, long, value_name = "NAME", default_value = "exact")]
        method: String,
        /// Settings of an eraser
        #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
        sets: Vec<(String, String)>,
        /// Where the new run goes
        #[arg(short, long, value_name = "DIR")]
        out: PathBuf,
        /// No progress
        #[arg(short, long)]
        quiet: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure the result of a request, or check a certificate
    Verify {
        /// The request, or a certificate's file
        #[arg(value_name = "ID|FILE")]
        what: String,
        /// Models to train without the records, with other seeds, to compare with
        #[arg(long, value_name = "N", default_value_t = 0)]
        oracles: u64,
        /// The greatest difference to them that counts as none
        #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
        margin: f64,
        /// Learn from scratch without the records, and compare bit for bit
        #[arg(long)]
        prove: bool,
        /// Of a certificate: the public key that its signer gave you
        #[arg(long, value_name = "HEX")]
        signer: Option<String>,
        /// Of a certificate: a head of the ledger that you kept (COUNT-HASH)
        #[arg(long, value_name = "HEAD")]
        head: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the old run of a request, with all that the records had reached
    Purge {
        /// The request, or the beginning of its name
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Sign what was done
    Certificate {
        /// The request, or the beginning of its name
        #[arg(value_name = "ID")]
        id: String,
        /// Copy it here, and the page beside it
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// The erasers
    Methods {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

fn assignment(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().into(), value.trim().into()))
        }
        _ => Err("write KEY=VALUE".into()),
    }
}

/// Seconds since 1970.
fn clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Where keys lie unless said otherwise.
fn keys() -> Result<PathBuf> {
    if let Some(keys) = std::env::var_os("EBB_KEYS").filter(|k| !k.is_empty()) {
        return Ok(keys.into());
    }
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|c| !c.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    config.map(|c| c.join("ebbinghaus/keys")).ok_or_else(|| {
        Error::request(
            "there is no place for the office's keys",
            "name one with --keys or EBB_KEYS",
        )
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// What is printed of a request that came in.
#[derive(Serialize)]
struct Sent<'a> {
    request: Option<String>,
    scanned: u64,
    records: Vec<String>,
    near_duplicates: u64,
    missing: usize,
    refused: Option<&'a str>,
}

/// What is printed of a plan.
#[derive(Serialize)]
struct Planned<'a> {
    request: String,
    exact: &'a exact::Route,
    rehearsals: &'a [Rehearsal],
    advice: &'a Advice,
}

impl Forget {
    /// Does it.
    ///
    /// # Errors
    /// When request, run, office or keys cannot be used, or the work fails.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.verb {
            ForgetVerb::Methods { json } => methods(*json, around),
            ForgetVerb::Verify {
                what,
                signer,
                head,
                json,
                ..
            } if Path::new(what).is_file() => {
                check(Path::new(what), signer.as_deref(), head.as_deref(), *json)
            }
            ForgetVerb::Submit {
                request,
                run,
                approver,
                dry_run,
                json,
            } => {
                let text = read(request)?;
                let data = around.data_dir_or_here();
                let office = self.office()?;
                let sent = office.submit(&text, run, approver.as_deref(), *dry_run, &data)?;
                submitted(&sent, &office, *json, around)
            }
            ForgetVerb::List { json } => list(&self.office()?, *json, around),
            ForgetVerb::Plan {
                id,
                seconds,
                price,
                methods,
                json,
            } => self.plan(id, *seconds, *price, methods, *json, around),
            ForgetVerb::Run {
                id,
                method,
                sets,
                out,
                quiet,
                json,
            } => self.carry_out(id, method, sets, out, *quiet, *json, around),
            ForgetVerb::Verify {
                what,
                oracles,
                margin,
                prove,
                json,
                ..
            } => {
                let how = Verifying {
                    oracles: *oracles,
                    margin: *margin,
                    prove: *prove,
                };
                self.verify(what, &how, *json, around)
            }
            ForgetVerb::Purge { id } => {
                let office = self.office()?;
                let work = office.purge(&office.find(id)?)?;
                out::print(&format!(
                    "removed: {} files that the records had reached; the run without them is {}\n",
                    work.reached.len(),
                    out::quoted(&work.out)
                ))?;
                Ok(Ended::Done)
            }
            ForgetVerb::Certificate { id, out } => self.certificate(id, out.as_deref()),
        }
    }

    fn office(&self) -> Result<Office> {
        let keys = match &self.keys {
            Some(keys) => keys.clone(),
            None => keys()?,
        };
        Ok(Office::open(&self.office, &keys, clock)?)
    }

    fn plan(
        &self,
        id: &str,
        seconds: Option<f64>,
        price: f64,
        names: &[String],
        json: bool,
        around: &Around,
    ) -> Result<Ended> {
        let office = self.office()?;
        let case = office.find(id)?;
        let data = around.data_dir_or_here();
        let route = office.route(&case, &data)?;
        let all: Vec<String> = METHODS.iter().map(|m| m.0.to_owned()).collect();
        let names = if names.is_empty() { &all[..] } else { names };
        let methods: Vec<Method> = names
            .iter()
            .map(|n| Method::parse(n, &[]))
            .collect::<Result<_, _>>()?;
        let gone = office.gone(&case)?;
        let subject = Subject::open(&case.run, &gone, &data, interrupt::flag())?;
        let rehearsals = rehearse(subject, &methods, &Relearning::default())?;
        let advice = advise(&route, &rehearsals, seconds, price);
        if json {
            out::json(&Planned {
                request: case.id.to_string(),
                exact: &route,
                rehearsals: &rehearsals,
                advice: &advice,
            })?;
            return Ok(Ended::Done);
        }
        let terminal = around.terminal();
        let mut text = format!(
            "exact: {:.0} % of {} steps again{}{}\n\nTried on other records of the same kind, which stay:\n\n",
            100.0 * route.share(),
            route.all_steps,
            match route.seconds {
                Some(s) => format!(", about {:.1} s", s * route.share()),
                None => String::new(),
            },
            match &route.because {
                Some(why) => format!(" ({why})"),
                None => String::new(),
            }
        );
        let mut table = Table::new(&[
            "method",
            ">records",
            ">others",
            ">test",
            ">test loss",
            ">attack",
            ">relearnt",
            ">seconds",
        ]);
        for r in &rehearsals {
            let value = |name: &str| {
                let number = r.numbers.iter().find(|n| n.name == name);
                number.map_or("–".into(), |n| format!("{:.1}", 100.0 * n.value))
            };
            table.row([
                r.method.clone(),
                value("forget_accuracy"),
                value("retain_accuracy"),
                value("test_accuracy"),
                r.numbers
                    .iter()
                    .find(|n| n.name == "test_loss")
                    .map_or("–".into(), |n| format!("{:.3}", n.value)),
                value("attack_auc"),
                value("relearnt_accuracy"),
                format!("{:.1}", r.seconds),
            ]);
        }
        text += &table.text(&terminal);
        for (method, why) in rehearsals
            .iter()
            .filter_map(|r| Some((&r.method, r.failed.as_ref()?)))
        {
            text += &format!("{method} failed: {why}\n");
        }
        text += "\naccuracy in per cent; test: test examples of what stays; attack: records told from test examples of their kind by their loss \
                 (50: not at all); relearnt: accuracy on the records after ten small steps on them\n";
        text += &format!("\ntake {}\n", out::bold(&terminal, &advice.method));
        for why in &advice.because {
            text += &format!("  {why}\n");
        }
        out::print(&text)?;
        Ok(Ended::Done)
    }

    #[allow(clippy::too_many_arguments)]
    fn carry_out(
        &self,
        id: &str,
        method: &str,
        sets: &[(String, String)],
        into: &Path,
        quiet: bool,
        json: bool,
        around: &Around,
    ) -> Result<Ended> {
        let office = self.office()?;
        let case = office.find(id)?;
        let how = match method {
            "exact" if sets.is_empty() => How::Exact,
            "exact" => {
                return Err(Error::request(
                    "learning again has no settings: it is the run's own recipe",
                    "leave --set out",
                ));
            }
            name => How::By(Method::parse(name, sets)?),
        };
        let colour = around.terminal().colour != Colour::None;
        let mut watch = Watch::new(quiet || json, colour, "");
        let work = office.erase(
            &case,
            &how,
            into,
            &mut ebb_learn::Around {
                data_dir: &around.data_dir_or_here(),
                progress: &mut watch,
                stop: interrupt::flag(),
            },
        )?;
        if json {
            out::json(&work)?;
            return Ok(Ended::Done);
        }
        let retraining = match work.retraining_seconds {
            Some(s) => format!("; learning all of it again took {s:.1} s"),
            None => String::new(),
        };
        let id = &case.id.to_string()[..8];
        out::print(&format!(
            "{} in {:.1} s{retraining}\nrun  {}\nthe old run still holds {} files that the records reached\n\n\
             next ebb forget verify {id}   what is left of them\n     ebb forget purge {id}    remove the old run\n",
            work.method,
            work.seconds,
            out::quoted(&work.out),
            work.reached.len(),
        ))?;
        Ok(Ended::Done)
    }

    fn verify(&self, id: &str, how: &Verifying, json: bool, around: &Around) -> Result<Ended> {
        let office = self.office()?;
        let case = office.find(id)?;
        let mut watch = Watch::new(true, false, "");
        let verified = office.verify(
            &case,
            how,
            &mut ebb_learn::Around {
                data_dir: &around.data_dir_or_here(),
                progress: &mut watch,
                stop: interrupt::flag(),
            },
        )?;
        match json {
            true => out::json(&verified)?,
            false => out::print(&shown(&verified, around))?,
        }
        Ok(match verified.passed() {
            true => Ended::Done,
            false => Ended::DoesNotHold,
        })
    }

    fn certificate(&self, id: &str, to: Option<&Path>) -> Result<Ended> {
        let office = self.office()?;
        let certified = office.certify(&office.find(id)?)?;
        let (mut json, mut page) = (certified.json.clone(), certified.page.clone());
        if let Some(to) = to {
            for (from, to) in [
                (&mut json, to.to_owned()),
                (&mut page, to.with_extension("html")),
            ] {
                std::fs::copy(&*from, &to).map_err(|source| Error::Io {
                    action: "write",
                    path: to.clone(),
                    source,
                })?;
                *from = to;
            }
        }
        let head = ebb_record::ledger::verify(office.directory(), None)?.head;
        out::print(&format!(
            "certificate  {}\npage         {}\nsigner       {}\nhead         {head}\n\n\
             Publish the signer's key and the head elsewhere: a certificate is checked against a key that \
             was had from its holder.\n",
            out::quoted(&json),
            out::quoted(&page),
            certified.signer,
        ))?;
        Ok(Ended::Done)
    }
}

/// Checks a certificate against a key and, if there is one, a head.
fn check(path: &Path, signer: Option<&str>, head: Option<&str>, json: bool) -> Result<Ended> {
    let signer: PublicKey = match signer {
        Some(key) => key.parse().map_err(ebb_erase::Error::from)?,
        None => {
            return Err(Error::request(
                "a certificate is checked against its signer's public key",
                "give the key that its holder published with --signer; the one inside proves nothing",
            ));
        }
    };
    let head = head.map(str::parse).transpose()?;
    let verdict = verify(&read(path)?, &signer, head.as_ref()).map_err(ebb_erase::Error::from)?;
    match json {
        true => out::json(&serde_json::json!({
            "holds": verdict.holds(),
            "checks": verdict.checks.iter().map(|c| serde_json::json!({
                "holds": c.holds, "says": c.says,
            })).collect::<Vec<_>>(),
        }))?,
        false => out::print(&verdict.to_string())?,
    }
    Ok(match verdict.holds() {
        true => Ended::Done,
        false => Ended::DoesNotHold,
    })
}

/// What a record is meant by, in a word or two.
fn because(why: &[Why]) -> String {
    let word = |why: &Why| match why {
        Why::Id { .. } => "named".to_owned(),
        Why::Exact { .. } => "the same".to_owned(),
        Why::Near { similarity, .. } => format!("{:.0} % alike", 100.0 * similarity),
        Why::Passage { bytes, .. } => format!("{bytes} bytes in common"),
        Why::Close { distance, .. } => format!("{distance:.3} away"),
        Why::Class { .. } => "class".to_owned(),
        Why::Concept { .. } => "concept".to_owned(),
    };
    why.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Records that are shown before only their number is told.
const SHOWN: usize = 20;

fn submitted(sent: &Submission, office: &Office, json: bool, around: &Around) -> Result<Ended> {
    let ended = match sent.refused {
        Some(_) => Ended::DoesNotHold,
        None => Ended::Done,
    };
    if json {
        out::json(&Sent {
            request: sent.id.map(|id| id.to_string()),
            scanned: sent.scanned,
            records: sent.found.iter().map(|f| f.id.to_string()).collect(),
            near_duplicates: sent.near_duplicates,
            missing: sent.missing.len(),
            refused: sent.refused.as_deref(),
        })?;
        return Ok(ended);
    }
    let terminal = around.terminal();
    let mut table = Table::new(&["record", "meant by", "content"]);
    for found in sent.found.iter().take(SHOWN) {
        table.row([short(found), because(&found.why), excerpt(&found.excerpt)]);
    }
    let mut text = String::new();
    if !sent.found.is_empty() {
        text = table.text(&terminal);
        if sent.found.len() > SHOWN {
            text += &format!("and {} more\n", sent.found.len() - SHOWN);
        }
        text.push('\n');
    }
    text += &format!(
        "{} of {} records are meant, {} only because they are like what was named{}\n",
        sent.found.len(),
        sent.scanned,
        sent.near_duplicates,
        match sent.missing.len() {
            0 => String::new(),
            n => format!("; {n} ids that were named are not there"),
        }
    );
    match (&sent.refused, sent.id) {
        (Some(why), _) => text += &format!("refused: {why}\n"),
        (None, Some(id)) => {
            let id = &id.to_string()[..8];
            text += &format!(
                "request  {id}  in {}\n\nnext ebb forget plan {id}        what each way would cost and leave\n     \
                 ebb forget run {id} -o DIR  learn again without the records\n",
                out::quoted(office.directory())
            );
        }
        (None, None) => text += "nothing was kept; leave --dry-run out to take it in\n",
    }
    out::print(&text)?;
    Ok(ended)
}

fn short(found: &Found) -> String {
    found.id.to_string().chars().take(12).collect()
}

fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() > 60 {
        true => line.chars().take(59).chain(['…']).collect(),
        false => line,
    }
}

fn list(office: &Office, json: bool, around: &Around) -> Result<Ended> {
    let cases = office.cases()?;
    #[derive(Serialize)]
    struct Line<'a> {
        stage: Stage,
        #[serde(flatten)]
        case: &'a Case,
    }
    if json {
        let lines: Vec<Line> = cases
            .iter()
            .map(|(case, stage)| Line {
                stage: *stage,
                case,
            })
            .collect();
        out::json(&lines)?;
        return Ok(Ended::Done);
    }
    if cases.is_empty() {
        out::print("no request yet: `ebb forget submit` takes one in\n")?;
        return Ok(Ended::Done);
    }
    let now = clock();
    let mut table = Table::new(&["request", ">records", "stage", "run", "deadline"]);
    for (case, stage) in &cases {
        let open = matches!(stage, Stage::Submitted | Stage::Erased);
        table.row([
            case.id.to_string()[..8].to_owned(),
            case.records.count.to_string(),
            format!("{stage:?}").to_lowercase(),
            case.run.display().to_string(),
            match case.deadline {
                None => "none".into(),
                Some(d) if d < now && open => "passed".into(),
                Some(d) => format!("in {} days", d.saturating_sub(now) / 86_400),
            },
        ]);
    }
    out::print(&table.text(&around.terminal()))?;
    Ok(Ended::Done)
}

/// A share with its interval.
fn with_interval(n: &Number) -> String {
    match (n.ci_low, n.ci_high) {
        (Some(low), Some(high)) => format!("{:.3} [{low:.3}, {high:.3}]", n.value),
        _ => format!("{:.3}", n.value),
    }
}

fn shown(verified: &Verified, around: &Around) -> String {
    let terminal = around.terminal();
    let mut table = Table::new(&["", "result", "models without the records", "difference", ""]);
    for number in &verified.numbers {
        let beside = verified.equivalences.iter().find(|e| e.name == number.name);
        table.row([
            number.name.replace('_', " "),
            with_interval(number),
            beside.map_or(String::new(), |e| {
                format!("{:.3} ± {:.3}", e.oracle, e.spread)
            }),
            beside.map_or(String::new(), |e| {
                format!("[{:+.3}, {:+.3}]", e.low, e.high)
            }),
            beside.map_or(String::new(), |e| {
                if e.holds {
                    "equivalent"
                } else {
                    "not shown to be equivalent"
                }
                .to_owned()
            }),
        ]);
    }
    let mut text = table.text(&terminal);
    text += &match verified.equivalences.first() {
        Some(e) => format!(
            "\nbeside {} models retrained without the records; equivalent: the 90 % interval of the \
             difference lies within {} on both sides\n",
            e.models, verified.margin
        ),
        None => {
            "\nnothing to compare with: `--oracles 16` trains models without the records\n".into()
        }
    };
    match verified.same_bits {
        Some(true) => text += "learning from scratch without the records came to the same bits\n",
        Some(false) => text += "learning from scratch without the records came to OTHER bits\n",
        None => {}
    }
    text
}

fn methods(json: bool, around: &Around) -> Result<Ended> {
    let mut table = Table::new(&["method", "claims", "needs", "what it does", "card"]);
    let mut all = vec![serde_json::json!({
        "method": "exact", "claim": "exact", "card": "X16",
        "about": "learns again from the last state that no record had reached",
    })];
    table.row([
        "exact".into(),
        "exact".into(),
        "all other data".into(),
        "learns again from the last state that no record had reached".into(),
        "X16".into(),
    ]);
    for (name, about, card) in METHODS {
        let method = Method::parse(name, &[])?;
        let (claim, needs) = (method.eraser().claim(), method.eraser().needs());
        let claim = format!("{claim:?}").to_lowercase();
        let needs = match (needs.forget, needs.retain) {
            (true, true) => "the records, others",
            (true, false) => "the records",
            _ => "others",
        };
        all.push(serde_json::json!({
            "method": name, "claim": claim, "card": card, "about": about, "settings": method,
        }));
        table.row([
            (*name).into(),
            claim,
            needs.into(),
            (*about).into(),
            (*card).into(),
        ]);
    }
    match json {
        true => out::json(&all)?,
        false => out::print(&table.text(&around.terminal()))?,
    }
    Ok(Ended::Done)
}
