//! Certificates: what breaks them, what does not, what the schema says, what people see.

use std::collections::BTreeMap;
use std::fs;

use ebb_record::ledger::{
    Claim, Digest, Entry, Ground, Head, Ledger, Merkle, NameKey, RequestId, Word,
};
use ebb_revise::*;
use ebb_space::{Direction, ExampleId, Number, Unit};
use serde_json::{Value, json};

fn word(text: &str) -> Word {
    Word::new(text).unwrap()
}

fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

fn number(name: &str) -> Number {
    Number {
        name: name.into(),
        value: 0.52,
        ci_low: Some(0.47),
        ci_high: Some(0.57),
        n: 400,
        unit: Unit::Example,
        direction: Direction::Lower,
        protocol: "RMIA, 16 shadow models; 95 %".into(),
    }
}

fn certificate() -> Certificate {
    Certificate {
        format_version: 1,
        issued: 1_700_000_300,
        request: Subject {
            id: RequestId([3; 16]),
            ground: Ground::Person,
            authority: digest(1),
            received: 1_700_000_000,
            deadline: Some(1_702_592_000),
            done: 1_700_000_200,
            approver: Some("data protection officer".into()),
            near_duplicates: 2,
            kept_by_law: 1,
        },
        records: Merkle::new([digest(9), digest(8)]).records(),
        method: Applied {
            name: word("ssd"),
            claim: Claim::Approximate,
            settings: BTreeMap::from([(word("alpha"), 10.0), (word("lambda"), 0.1)]),
            seed: 7,
        },
        guarantee: Guarantee::Equivalent,
        change: Change {
            base: StateRef {
                id: word("aa"),
                weights: digest(2),
            },
            result: StateRef {
                id: word("bb"),
                weights: digest(3),
            },
            norm: Some(0.25),
        },
        reached: vec![
            Reached {
                kind: Kind::Memory,
                how: How::Holds,
                name: digest(4),
                bytes: 821_248,
                fate: Fate::Edited,
            },
            Reached {
                kind: Kind::State,
                how: How::Influenced,
                name: digest(5),
                bytes: 12,
                fate: Fate::Kept,
            },
        ],
        versions: Versions {
            data: word("0123abcd"),
            configuration: word("ff00"),
            code: word("0.1.0+abc"),
        },
        verification: Verification {
            oracle: Oracle::Retrained { models: 16 },
            tests: vec![Test {
                number: number("membership"),
                threshold: 0.6,
                passed: true,
            }],
            utility: vec![number("accuracy")],
        },
        costs: Costs {
            seconds: 12.5,
            peak_rss_bytes: Some(1 << 30),
            forward_rows: 1000,
            backward_rows: 500,
            retraining: Some(Retraining {
                seconds: 300.0,
                measured: true,
            }),
        },
        notices: vec![Notice {
            to: "a partner".into(),
            at: None,
        }],
        residual_risk: vec!["an earlier state is kept as the base of the next audit".into()],
        not_proven: NOT_PROVEN.map(str::to_owned).to_vec(),
        ledger: Head {
            count: 9,
            hash: digest(6),
        },
    }
}

fn signer() -> (tempfile::TempDir, Signer) {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::create(&dir.path().join("signing.key")).unwrap();
    (dir, signer)
}

fn holds(text: &str, key: &PublicKey) -> bool {
    verify(text, key, None).is_ok_and(|verdict| verdict.holds())
}

/// Every place of a JSON value that holds no other, as pointers.
fn leaves(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter()
                .for_each(|(k, v)| leaves(v, &format!("{at}/{k}"), out));
        }
        Value::Array(values) if !values.is_empty() => {
            values
                .iter()
                .enumerate()
                .for_each(|(i, v)| leaves(v, &format!("{at}/{i}"), out));
        }
        _ => out.push(at.to_owned()),
    }
}

#[test]
fn a_signed_certificate_holds_and_says_what_was_checked() {
    let (dir, signer) = signer();
    let again = Signer::load(&dir.path().join("signing.key")).unwrap();
    assert_eq!(signer.public(), again.public());
    let signed = signer.sign(certificate()).unwrap();
    assert_eq!(
        again.sign(certificate()).unwrap(),
        signed,
        "ed25519 draws nothing"
    );
    let json = signed.to_json().unwrap();
    let verdict = verify(&json, &signer.public(), None).unwrap();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.signed, signed);
    let text = verdict.to_string();
    for says in [
        "nothing was changed since",
        "the one you trust",
        "before the deadline",
        "What it does not prove",
        "free of the records' influence",
        "16 retrained models",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert_eq!(
        signed.signer.to_string().parse::<PublicKey>().unwrap(),
        signed.signer
    );
}

#[test]
fn any_changed_field_breaks_the_signature() {
    let (_dir, signer) = signer();
    let key = signer.public();
    let json: Value = serde_json::to_value(signer.sign(certificate()).unwrap()).unwrap();
    assert!(holds(&json.to_string(), &key));
    let mut places = Vec::new();
    leaves(&json, "", &mut places);
    assert!(places.len() > 70, "{}", places.len());
    for place in &places {
        let others: Vec<Value> = match json.pointer(place).unwrap() {
            Value::String(text) => {
                // The nearest other text of the same form, and of another.
                let last = if text.ends_with('0') { "1" } else { "0" };
                let near = format!("{}{last}", &text[..text.len() - 1]);
                vec![near.into(), format!("{text}x").into(), "".into()]
            }
            Value::Number(n) => match n.as_u64() {
                Some(n) => vec![(n + 1).into(), Value::Null],
                None => vec![n.as_f64().unwrap().next_up().into(), Value::Null],
            },
            Value::Bool(b) => vec![(!b).into()],
            _ => vec!["x".into(), 1.into(), false.into()],
        };
        for other in others {
            let mut changed = json.clone();
            *changed.pointer_mut(place).unwrap() = other.clone();
            assert!(!holds(&changed.to_string(), &key), "{place} = {other}");
        }
        let (parent, field) = place.rsplit_once('/').unwrap();
        let mut changed = json.clone();
        match changed.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.remove(field)),
            Value::Array(values) => drop(values.pop()),
            _ => unreachable!(),
        }
        assert!(!holds(&changed.to_string(), &key), "{place} left out");
        let mut changed = json.clone();
        if let Value::Object(map) = changed.pointer_mut(parent).unwrap() {
            map.insert("more".into(), 1.into());
            assert!(!holds(&changed.to_string(), &key), "{parent}/more");
        }
    }
}

#[test]
fn any_flipped_bit_of_the_text_breaks_it() {
    let (_dir, signer) = signer();
    let key = signer.public();
    // Without spaces, and without a number that could be written in another way.
    let value = serde_json::to_value(signer.sign(certificate()).unwrap()).unwrap();
    let text = value.to_string().into_bytes();
    for bit in 0..text.len() * 8 {
        let mut changed = text.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = String::from_utf8(changed) {
            assert!(!holds(&changed, &key), "bit {bit}");
        }
    }
}

#[test]
fn reformatting_does_not_break_it() {
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .rev()
                    .map(|(k, v)| (k.clone(), reversed(v)))
                    .collect(),
            ),
            Value::Array(values) => values.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }
    let (_dir, signer) = signer();
    let signed = signer.sign(certificate()).unwrap();
    let value = serde_json::to_value(&signed).unwrap();
    let pretty = signed.to_json().unwrap();
    for text in [
        value.to_string(),
        pretty.replace("  ", "\t\r\n "),
        reversed(&value).to_string(),
        value
            .to_string()
            .replace("\"a partner\"", "\"\\u0061 p\\u0061rtner\""),
        value
            .to_string()
            .replace("12.5", "0.125e2")
            .replace("10.0", "1e1"),
    ] {
        assert!(holds(&text, &signer.public()), "{text}");
    }
    // Twice the same field is not one content.
    let twice =
        value
            .to_string()
            .replacen("{\"certificate\"", "{\"signer\":\"00\",\"certificate\"", 1);
    assert!(!holds(&twice, &signer.public()));
}

#[test]
fn another_key_is_found_out() {
    let (_dir, signer) = self::signer();
    let (_other, other) = self::signer();
    let json = signer.sign(certificate()).unwrap().to_json().unwrap();
    let verdict = verify(&json, &other.public(), None).unwrap();
    assert!(!verdict.holds());
    assert!(verdict.to_string().contains("signed with another key"));
    // Putting the trusted key's name there does not help.
    let (a, b) = (signer.public().to_string(), other.public().to_string());
    assert!(!holds(&json.replace(&a, &b), &other.public()));
    for bad in [
        "",
        "00",
        &"0".repeat(64),
        &a.to_uppercase(),
        &format!("01{}", "0".repeat(62)),
    ] {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
}

#[test]
fn a_head_of_the_ledger_is_held_against_it() {
    let (_dir, signer) = signer();
    let json = signer.sign(certificate()).unwrap().to_json().unwrap();
    let found = |head: Head| verify(&json, &signer.public(), Some(&head)).unwrap();
    let head = certificate().ledger;
    assert!(found(head).holds());
    let rewritten = found(Head {
        hash: digest(7),
        ..head
    });
    assert!(!rewritten.holds() && rewritten.to_string().contains("rewritten"));
    let later = found(Head {
        count: 12,
        hash: digest(7),
    });
    assert!(later.holds() && later.to_string().contains("with both heads"));
}

#[test]
fn what_claims_too_much_is_neither_signed_nor_held_to_be_sound() {
    let (_dir, signer) = signer();
    let edit = |edit: fn(&mut Certificate)| {
        let mut c = certificate();
        edit(&mut c);
        signer.sign(c)
    };
    for (result, word) in [
        (
            edit(|c| c.guarantee = Guarantee::Exact),
            "claims to be exact",
        ),
        (
            edit(|c| c.verification.oracle = Oracle::None),
            "without an oracle",
        ),
        (
            edit(|c| c.verification.oracle = Oracle::Retrained { models: 0 }),
            "without an oracle",
        ),
        (edit(|c| c.method.claim = Claim::Suppress), "suppresses"),
        (edit(|c| c.verification.tests[0].passed = false), "failed"),
        (edit(|c| c.verification.tests.clear()), "needs tests"),
        (
            edit(|c| {
                c.guarantee = Guarantee::Certified {
                    epsilon: -1.0,
                    delta: 0.0,
                }
            }),
            "at least 0",
        ),
        (
            edit(|c| {
                c.guarantee = Guarantee::Certified {
                    epsilon: f64::NAN,
                    delta: 0.0,
                }
            }),
            "at least 0",
        ),
        (edit(|c| c.residual_risk.clear()), "residual_risk"),
        (edit(|c| c.reached[0].fate = Fate::Kept), "still holds"),
        (edit(|c| c.records.count = 0), "no records"),
        (edit(|c| drop(c.not_proven.remove(0))), "does not prove"),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Overclaim(_)) && error.to_string().contains(word),
            "{word}: {error}"
        );
    }
    for (result, word) in [
        (edit(|c| c.costs.seconds = f64::INFINITY), "not finite"),
        (edit(|c| c.change.norm = Some(f64::NAN)), "not finite"),
        (edit(|c| c.method.seed = 1 << 53), "largest that JSON keeps"),
        (edit(|c| c.format_version = 2), "version 1"),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::NotACertificate(_)) && error.to_string().contains(word),
            "{word}: {error}"
        );
    }
    for fine in [
        edit(|c| (c.guarantee, c.verification.oracle) = (Guarantee::EmpiricalOnly, Oracle::None)),
        edit(|c| (c.guarantee, c.method.claim) = (Guarantee::Exact, Claim::Exact)),
        edit(|c| (c.guarantee, c.verification.tests[0].passed) = (Guarantee::EmpiricalOnly, false)),
    ] {
        assert!(holds(&fine.unwrap().to_json().unwrap(), &signer.public()));
    }
    // Late, or out of order, is signed and said.
    let late = edit(|c| c.request.deadline = Some(1_700_000_100)).unwrap();
    let verdict = verify(&late.to_json().unwrap(), &signer.public(), None).unwrap();
    assert!(!verdict.holds() && verdict.to_string().contains("100 s after the deadline"));
    let early = edit(|c| c.issued = 5).unwrap();
    assert!(!holds(&early.to_json().unwrap(), &signer.public()));
}

#[test]
fn garbage_and_newer_versions_are_no_certificates() {
    let (_dir, signer) = signer();
    let json = signer.sign(certificate()).unwrap().to_json().unwrap();
    let says = |text: &str| {
        verify(text, &signer.public(), None)
            .unwrap_err()
            .to_string()
    };
    for text in [
        "",
        "{}",
        "[]",
        "null",
        &json[..json.len() / 2],
        &"[".repeat(100_000),
    ] {
        assert!(says(text).contains("not a certificate"), "{text}");
    }
    let newer = json.replacen("\"format_version\": 1", "\"format_version\": 2", 1);
    assert!(says(&newer).contains("format version 2"));
}

#[test]
fn certificates_fit_the_published_schema_and_nothing_less_does() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let (_dir, signer) = signer();
    let mut c = certificate();
    let full = serde_json::to_value(signer.sign(c.clone()).unwrap()).unwrap();
    c.guarantee = Guarantee::Certified {
        epsilon: 0.5,
        delta: 1e-5,
    };
    c.verification.oracle = Oracle::Replayed;
    (c.request.deadline, c.request.approver, c.change.norm) = (None, None, None);
    (c.costs.peak_rss_bytes, c.costs.retraining) = (None, None);
    let spare = serde_json::to_value(signer.sign(c.clone()).unwrap()).unwrap();
    (c.guarantee, c.verification.oracle) = (Guarantee::EmpiricalOnly, Oracle::None);
    let empirical = serde_json::to_value(signer.sign(c.clone()).unwrap()).unwrap();
    (c.guarantee, c.method.claim) = (Guarantee::Exact, Claim::Exact);
    let exact = serde_json::to_value(signer.sign(c).unwrap()).unwrap();
    for value in [&full, &spare, &empirical, &exact] {
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    // Every field is required and none is unknown to the schema.
    let mut places = Vec::new();
    leaves(&full, "", &mut places);
    for place in places {
        let (parent, field) = place.rsplit_once('/').unwrap();
        let mut changed = full.clone();
        if let Value::Object(map) = changed.pointer_mut(parent).unwrap() {
            let value = map.remove(field).unwrap();
            let free = parent.ends_with("/settings");
            assert_eq!(validator.is_valid(&changed), free, "{place} left out");
            if let Value::Object(map) = changed.pointer_mut(parent).unwrap() {
                map.insert(field.into(), value);
                map.insert("more".into(), json!("x"));
            }
            assert!(!validator.is_valid(&changed), "{parent}/more");
        }
    }
    for (place, value) in [
        ("/signature", json!("00")),
        ("/certificate/ledger", json!("0-00")),
        ("/certificate/records/count", json!(0)),
        ("/certificate/guarantee", json!({"class": "certified"})),
        ("/certificate/method/claim", json!("perfect")),
        ("/certificate/not_proven", json!([])),
    ] {
        let mut changed = full.clone();
        *changed.pointer_mut(place).unwrap() = value;
        assert!(!validator.is_valid(&changed), "{place}");
    }
}

#[test]
fn the_page_escapes_everything_and_loads_nothing() {
    let (_dir, signer) = signer();
    let evil = "</td><script>alert('x')</script>\u{202e}\u{0}\"&";
    let mut c = certificate();
    c.request.approver = Some(evil.into());
    c.verification.tests[0].number.name = evil.into();
    c.verification.tests[0].number.protocol = evil.into();
    c.notices[0].to = evil.into();
    c.residual_risk.push(evil.into());
    c.not_proven.push(evil.into());
    let signed = signer.sign(c).unwrap();
    let verdict = verify(&signed.to_json().unwrap(), &signer.public(), None).unwrap();
    let html = page(&signed, Some(&verdict));
    assert_eq!(html.matches("&lt;script&gt;").count(), 6);
    for never in [
        "<script", "src=", "href=", "url(", "http://", "https://", "\u{202e}", "\u{0}",
    ] {
        assert!(!html.contains(never), "{never}");
    }
    for says in [
        NOT_PROVEN[0].split(':').next().unwrap(),
        "2023-11-14 22:13 UTC",
        "equivalent",
        "0.52 [0.47, 0.57], n = 400",
    ] {
        assert!(html.contains(&says.replace('\'', "&#39;")), "{says}");
    }
    let open = html.matches("<t").count() - html.matches("<title").count();
    let closed = html.matches("</t").count() - html.matches("</title").count();
    assert_eq!(open, closed, "every table, row and cell is closed");
    assert!(page(&signed, None).contains("without checking the signature"));
}

#[test]
fn the_signing_key_stays_outside_of_runs_and_ledgers() {
    let dir = tempfile::tempdir().unwrap();
    let names = NameKey::create(&dir.path().join("names.key")).unwrap();
    let ledger = dir.path().join("ledger");
    drop(Ledger::create(&ledger, &names, 0).unwrap());
    let inside = Signer::create(&ledger.join("signing.key")).unwrap_err();
    assert!(inside.to_string().contains("lies within"), "{inside}");
    // One kind of key is not taken for the other.
    let wrong = Signer::load(&dir.path().join("names.key")).unwrap_err();
    assert!(wrong.to_string().contains("record-names"), "{wrong}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join("signing.key");
        Signer::create(&path).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Signer::load(&path).unwrap_err().to_string().contains("644"));
    }
}

/// From the request to the certificate: no file that is written holds what was planted, nor a hash
/// of it that somebody without the key could compute.
#[test]
fn nothing_that_is_written_tells_of_the_records() {
    const PLANTS: [&str; 3] = [
        "Zerlina Quux lives at 17 Plantagenet Row and owes the baker eleven crowns",
        "the password of Zerlina Quux is correct-horse-battery",
        "zerlina",
    ];
    let keys = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let names = NameKey::create(&keys.path().join("names.key")).unwrap();
    let signer = Signer::create(&keys.path().join("signing.key")).unwrap();
    let data: Vec<Record> = PLANTS
        .iter()
        .chain(&["an owl sat in the old oak tree"])
        .enumerate()
        .map(|(n, text)| Record {
            id: ExampleId::of(text.as_bytes(), n as u32),
            label: n as u32,
            content: Content::Text(text),
        })
        .collect();
    let text = format!(
        "format_version = 1\nground = {{ other = '{}' }}\nauthority = '{}'\n\
         [[forget]]\ntext = '{}'\nnear = 0.5\nverbatim = 12\n\
         [[forget]]\nids = ['{}']\n\
         [[forget]]\nconcept = {{ name = '{}', phrases = ['{}'] }}\n",
        PLANTS[2], PLANTS[1], PLANTS[0], data[1].id, PLANTS[2], PLANTS[2]
    );
    let request = Request::from_toml(&text).unwrap();
    let matches = expand(&request, data.iter().copied()).unwrap();
    let decision = decide(
        &request,
        &matches,
        5,
        &BTreeMap::from([(data[1].id, PLANTS[1].into())]),
    );
    let Decision::Accepted { records, kept } = &decision else {
        panic!("{decision:?}")
    };
    assert_eq!((records.len(), kept.len()), (2, 1));

    let path = out.path().join("ledger");
    let mut ledger = Ledger::create(&path, &names, 1).unwrap();
    let (id, submitted) = request.submitted(&names, &text, 1);
    ledger.append(1, &submitted).unwrap();
    for entry in decision.refusals(id) {
        ledger.append(2, &entry).unwrap();
    }
    let tree = Merkle::new(records.iter().map(|id| names.record(id)));
    let method = word("ssd");
    let planned = Entry::Planned {
        request: id,
        records: tree.records(),
        method,
        claim: Claim::Approximate,
    };
    ledger.append(3, &planned).unwrap();
    let mut c = certificate();
    c.request = Subject {
        id,
        ground: request.ground.kind(),
        authority: names.text(&request.authority),
        received: 1,
        deadline: request.deadline,
        done: 5,
        approver: None,
        near_duplicates: matches.near_duplicates(),
        kept_by_law: kept.len() as u64,
    };
    c.records = tree.records();
    c.reached[0].name = names.text("lineage/0123.ids");
    c.ledger = ledger.commit().unwrap();
    let signed = signer.sign(c).unwrap();
    let certified = Entry::Certified {
        request: id,
        certificate: signed.digest().unwrap(),
    };
    ledger.append(6, &certified).unwrap();
    ledger.commit().unwrap();
    let json = signed.to_json().unwrap();
    let verdict = verify(&json, &signer.public(), None).unwrap();
    assert!(verdict.holds(), "{verdict}");
    fs::write(out.path().join("certificate.json"), &json).unwrap();
    fs::write(
        out.path().join("certificate.html"),
        page(&signed, Some(&verdict)),
    )
    .unwrap();
    fs::write(out.path().join("verdict.txt"), verdict.to_string()).unwrap();

    // The holder of the key can prove that a record was among them.
    let name = names.record(&records[0]);
    assert!(
        tree.prove(&name)
            .unwrap()
            .proves(&name, &signed.certificate.records)
    );

    // Content, and the hash of it that anybody can compute, whole or cut short, raw or in hex.
    let forms = |bytes: &[u8]| {
        let hash = blake3::hash(bytes);
        let hex = hash.to_string()[..16].to_owned().into_bytes();
        [bytes.to_vec(), hash.as_bytes()[..8].to_vec(), hex]
    };
    let mut sought: Vec<Vec<u8>> = forms(text.as_bytes()).to_vec();
    for plant in PLANTS.iter().chain(&["Quux"]) {
        for form in [
            plant.to_string(),
            plant.to_lowercase(),
            plant.to_uppercase(),
        ] {
            sought.extend(forms(form.as_bytes()));
        }
    }
    for record in &data[..3] {
        let hex = record.id.to_string();
        sought.extend(forms(&record.id.base));
        sought.extend(forms(hex.as_bytes()));
        sought.push(hex.as_bytes()[..16].to_vec());
    }
    let contains = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    let mut files = Vec::new();
    for directory in [out.path(), &path] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    assert_eq!(
        files.len(),
        6,
        "ledger, head, lock, certificate, page, verdict"
    );
    for (path, bytes) in &files {
        for needle in &sought {
            assert!(
                !contains(bytes, needle),
                "{} holds {:?}",
                path.display(),
                String::from_utf8_lossy(needle)
            );
        }
    }
    // Positive control: the same search finds the plants in the request.
    let found = sought
        .iter()
        .filter(|needle| contains(text.as_bytes(), needle));
    assert!(found.count() > 4);
}
