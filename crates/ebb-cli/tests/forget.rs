//! Erasing as a user does it.

mod common;

use common::Desk;
use serde_json::Value;
use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

const REQUEST: &str = "\
format_version = 1
ground = \"person\"
authority = \"the person\"
[[forget]]
class = 7
";

fn ok(desk: &Desk, line: &str) -> String {
    desk.done(&line.split(' ').collect::<Vec<_>>())
}

fn run(desk: &Desk, line: &str) -> Output {
    desk.ebb(&line.split(' ').collect::<Vec<_>>())
}

/// The beginning of the one request's name.
fn id(desk: &Desk) -> String {
    let list = desk.json(&["forget", "list", "--keys", "keys", "--json"]);
    list[0]["id"].as_str().unwrap()[..8].to_owned()
}

#[test]
fn a_request_from_the_shell() {
    let desk = Desk::new();
    ok(&desk, "learn --method er --set train.steps=20 -o run -q");
    fs::write(desk.path("request.toml"), REQUEST).unwrap();
    let looked = ok(
        &desk,
        "forget submit request.toml --run run --dry-run --keys keys",
    );
    assert!(looked.contains("179 of 1797 records are meant"), "{looked}");
    assert!(ok(&desk, "forget list --keys keys").contains("no request yet"));
    ok(&desk, "forget submit request.toml --run run --keys keys");
    let id = id(&desk);
    let plan = ok(
        &desk,
        &format!("forget plan {id} --keys keys --methods npo,fine-tune"),
    );
    assert!(
        plan.contains("take exact") && plan.contains("untouched"),
        "{plan}"
    );
    ok(&desk, &format!("forget run {id} --keys keys -o erased -q"));
    let verified = ok(
        &desk,
        &format!("forget verify {id} --keys keys --prove --json"),
    );
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["same-bits"], true);
    ok(&desk, &format!("forget purge {id} --keys keys"));
    assert!(!desk.path("run").exists());
    let signed = ok(
        &desk,
        &format!("forget certificate {id} --keys keys -o certificate.json"),
    );
    let word = |name: &str| {
        let line = signed.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let (signer, head) = (word("signer"), word("head"));
    let checked = ok(
        &desk,
        &format!("forget verify certificate.json --signer {signer} --head {head}"),
    );
    assert!(checked.contains("What it does not prove"), "{checked}");
    ok(&desk, &format!("ledger verify office --head {head}"));
    assert!(ok(&desk, "ledger show office").contains("certified"));
    // The run that came out is one like any other, and stays so.
    ok(&desk, "report erased -o page.html");
    assert!(desk.path("certificate.html").is_file());
    // Another key, or one byte, and it does not hold.
    let other = "0".repeat(63) + "1";
    assert!(
        !run(
            &desk,
            &format!("forget verify certificate.json --signer {other}")
        )
        .status
        .success()
    );
    let text = fs::read_to_string(desk.path("certificate.json")).unwrap();
    fs::write(
        desk.path("forged.json"),
        text.replace("\"person\"", "\"licence\""),
    )
    .unwrap();
    let forged = run(
        &desk,
        &format!("forget verify forged.json --signer {signer}"),
    );
    assert_eq!(forged.status.code(), Some(1));
}

#[test]
fn what_cannot_be_is_said() {
    let desk = Desk::new();
    ok(
        &desk,
        "learn --method fine-tune --set train.steps=5 -o run -q",
    );
    fs::write(
        desk.path("request.toml"),
        REQUEST.replace("class = 7", "class = 70"),
    )
    .unwrap();
    let refused = run(&desk, "forget submit request.toml --run run --keys keys");
    assert_eq!(refused.status.code(), Some(1));
    for (command, says) in [
        (
            "forget run nothing --keys keys -o out",
            "there is no request",
        ),
        (
            "forget submit missing.toml --run run --keys keys",
            "cannot read",
        ),
        (
            "forget submit request.toml --run nowhere --keys keys",
            "nowhere",
        ),
        ("forget verify request.toml --keys keys", "public key"),
    ] {
        let text = desk.fails(&command.split(' ').collect::<Vec<_>>());
        assert!(text.contains(says), "{command}: {text}");
    }
    fs::write(
        desk.path("request.toml"),
        REQUEST.replace("class = 7", "clas = 7"),
    )
    .unwrap();
    let wrong = run(&desk, "forget submit request.toml --run run --keys keys");
    assert_eq!(wrong.status.code(), Some(2));
    // Keys inside a run would travel with it.
    fs::write(desk.path("request.toml"), REQUEST).unwrap();
    let inside = run(
        &desk,
        "forget submit request.toml --run run --keys run/keys --office other",
    );
    assert_eq!(inside.status.code(), Some(2));
}

/// Killed at any moment, the same command goes on, and comes to the same bits.
#[test]
fn a_request_survives_being_killed() {
    let desk = Desk::new();
    ok(
        &desk,
        "learn --method er --set train.steps=60 --set save.checkpoint-every=10 -o run -q",
    );
    fs::write(
        desk.path("request.toml"),
        REQUEST.replace("class = 7", "class = 1"),
    )
    .unwrap();
    ok(&desk, "forget submit request.toml --run run --keys keys");
    let id = id(&desk);
    let line = format!("forget run {id} --keys keys -o erased -q --json");
    let words: Vec<&str> = line.split(' ').collect();
    for wait in [5, 15, 25, 35, 50, 70, 90, 120, 160, 200] {
        let mut child = desk
            .command(&words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        // It may have ended before.
        let _ = child.kill();
        child.wait().unwrap();
        ok(&desk, "ledger verify office");
    }
    let work: Value = serde_json::from_str(&ok(&desk, &line)).unwrap();
    let verified = ok(
        &desk,
        &format!("forget verify {id} --keys keys --prove --json"),
    );
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["same-bits"], true);
    // What was told twice would be found here.
    let told = ok(&desk, "ledger show office");
    assert_eq!(told.matches("erased").count(), 1, "{told}");
    assert_eq!(told.matches("planned").count(), 1, "{told}");
    for _ in 0..3 {
        let purge = format!("forget purge {id} --keys keys");
        let words: Vec<&str> = purge.split(' ').collect();
        let mut child = desk
            .command(&words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3));
        let _ = child.kill();
        child.wait().unwrap();
    }
    ok(&desk, &format!("forget purge {id} --keys keys"));
    assert_eq!(ok(&desk, "ledger show office").matches("purged").count(), 1);
    assert!(!desk.path("run").exists() && work["purged"] == false);
}
