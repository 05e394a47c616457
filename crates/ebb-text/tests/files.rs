//! Examples from files, and what is said of files that are wrong.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ebb_hub::Message;
use ebb_text::{Body, Break, Error, Example, Fields, Reader, Reading};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

fn file(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("written");
    (folder, path)
}

fn read(path: &PathBuf, reading: &Reading) -> Vec<Result<Example, Error>> {
    Reader::open(path, reading).expect("opened").collect()
}

fn good(path: &PathBuf, reading: &Reading) -> Vec<Example> {
    let examples = read(path, reading).into_iter();
    examples.map(|e| e.expect("an example")).collect()
}

/// The message about line `number`, in which `said` stands.
fn refused(result: &Result<Example, Error>, place: &str, said: &str) {
    let message = result.as_ref().expect_err("refused").to_string();
    assert!(message.contains(place), "{message}");
    assert!(message.contains(said), "{message}");
}

#[test]
fn lines_of_all_three_forms() {
    let text = "\u{feff}{\"prompt\": \"1 + 1 =\", \"completion\": \" 2\", \"source\": 7}\r\n\n\
                {\"text\": \"A document.\"}\n\
                {\"messages\": [{\"role\": \"user\", \"content\": \"hi\", \"name\": null}, \
                {\"role\": \"assistant\", \"content\": \"ho\"}], \"text\": null}";
    let (_folder, path) = file("a.jsonl", text);
    let examples = good(&path, &Reading::default());
    let turns = vec![Message::new("user", "hi"), Message::new("assistant", "ho")];
    let same = [
        Example::completion("1 + 1 =", " 2"),
        Example::document("A document."),
        Example::chat(turns),
    ];
    assert_eq!(examples.len(), 3);
    for (example, same) in examples.iter().zip(&same) {
        assert_eq!((&example.body, example.id), (&same.body, same.id));
    }
    let lines: Vec<u64> = examples
        .iter()
        .map(|e| e.place.as_ref().expect("a place").number)
        .collect();
    assert_eq!(lines, [1, 3, 4]);
    assert!(examples[1].name().ends_with("a.jsonl`, line 3"));
}

#[test]
fn fields_have_the_names_that_are_said() {
    let (_folder, path) = file(
        "a.jsonl",
        r#"{"question": "q", "answer": "a", "text": "note"}"#,
    );
    let fields = Fields {
        prompt: "question".into(),
        completion: "answer".into(),
        text: "document".into(),
        ..Fields::default()
    };
    let reading = Reading {
        fields,
        ..Reading::default()
    };
    assert_eq!(
        good(&path, &reading)[0].id,
        Example::completion("q", "a").id
    );
}

#[test]
fn a_wrong_line_is_named_and_the_next_is_read() {
    let lines: [(&[u8], &str); 14] = [
        (b"{\"prompt\": \"x\"", "not valid JSON"),
        (b"[1, 2]", "it is a list"),
        (b"{\"prompt\": \"x\"}", "no `completion`"),
        (b"{\"completion\": \"x\"}", "no `prompt`"),
        (
            b"{\"input\": \"x\", \"output\": \"y\"}",
            "`input`, `output`",
        ),
        (
            b"{\"prompt\": \"x\", \"completion\": \" \"}",
            "`completion` is empty",
        ),
        (
            b"{\"prompt\": \"x\", \"completion\": 3}",
            "`completion` is a number",
        ),
        (b"{\"text\": \"\"}", "`text` is empty"),
        (b"{\"text\": \"caf\xe9\"}", "is not UTF-8"),
        (b"{\"text\": \"\\ud800\"}", "not valid JSON"),
        (
            b"{\"messages\": \"hi\"}",
            "`messages` is a text, not a list",
        ),
        (
            b"{\"messages\": [{\"content\": \"hi\"}]}",
            "turn 1 of `messages` is no message",
        ),
        (
            b"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}",
            "no turn of the role `assistant`",
        ),
        (
            b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"\"}]}",
            "turn 1 of `messages` is an empty answer",
        ),
    ];
    let mut bytes = Vec::new();
    for (line, _) in lines {
        bytes.extend(line);
        bytes.extend(b"\n{\"text\": \"fine\"}\n");
    }
    bytes.extend(b"{\"text\": \"x\", \"prompt\": \"y\"}");
    let (_folder, path) = file("bad.jsonl", bytes);
    let examples = read(&path, &Reading::default());
    assert_eq!(examples.len(), 2 * lines.len() + 1);
    for (i, (_, said)) in lines.iter().enumerate() {
        refused(
            &examples[2 * i],
            &format!("bad.jsonl`, line {}:", 2 * i + 1),
            said,
        );
        assert!(examples[2 * i + 1].is_ok());
    }
    refused(&examples[28], "line 29", "more than one form");
    // The byte is counted within the line.
    refused(&examples[16], "line 17", "byte 14");
}

#[test]
fn equal_records_are_numbered_across_the_files_of_a_dataset() {
    let (_a, first) = file("a.jsonl", "{\"text\": \"same\"}\n{\"text\": \"same\"}\n");
    let (_b, second) = file("b.txt", "same\n\nother\n");
    let reading = Reading {
        documents: Break::Blank,
        ..Reading::default()
    };
    let all = Reader::open_all([&first, &second], &reading).expect("opened");
    let ids: Vec<_> = all.map(|e| e.expect("an example").id).collect();
    let same = Example::document("same").id;
    let numbered = [0, 1, 2].map(|n| same.with_occurrence(n));
    assert_eq!(ids[..3], numbered);
    assert_eq!(ids[3], Example::document("other").id);
}

#[test]
fn plain_text_is_parted_as_is_said() {
    let text = "\n  One\ntwo\n\n\nthree\n<|end|>\n\nfour  \n";
    let (_folder, path) = file("a.txt", text);
    for (between, documents, lines) in [
        (
            Break::File,
            vec!["  One\ntwo\n\n\nthree\n<|end|>\n\nfour"],
            vec![2],
        ),
        (
            Break::Line,
            vec!["  One", "two", "three", "<|end|>", "four"],
            vec![2, 3, 6, 7, 9],
        ),
        (
            Break::Blank,
            vec!["  One\ntwo", "three\n<|end|>", "four"],
            vec![2, 6, 9],
        ),
        (
            Break::Marker("<|end|>".into()),
            vec!["  One\ntwo\n\n\nthree", "four"],
            vec![2, 9],
        ),
    ] {
        let reading = Reading {
            documents: between.clone(),
            ..Reading::default()
        };
        let examples = good(&path, &reading);
        let bodies: Vec<&Body> = examples.iter().map(|e| &e.body).collect();
        let wanted: Vec<Body> = documents
            .iter()
            .map(|d| Body::Document((*d).into()))
            .collect();
        assert_eq!(bodies, wanted.iter().collect::<Vec<_>>(), "{between:?}");
        let numbers: Vec<u64> = examples
            .iter()
            .map(|e| e.place.as_ref().expect("a place").number)
            .collect();
        assert_eq!(numbers, lines, "{between:?}");
    }
    let (_folder, empty) = file("a.txt", " \n\n");
    assert!(read(&empty, &Reading::default()).is_empty());
    let (_folder, latin) = file("latin.txt", b"fine\ncaf\xe9\nfine");
    let examples = read(&latin, &Reading::default());
    assert_eq!(examples.len(), 1);
    refused(&examples[0], "latin.txt`, line 2", "is not UTF-8");
}

#[test]
fn files_that_are_not_read_say_how_to_get_there() {
    for (name, said) in [
        ("a.json", "one object a line"),
        ("a.csv", "should end in .jsonl"),
        ("a", "should end in .jsonl"),
        ("a.parquet", "no Parquet file"),
    ] {
        let (_folder, path) = file(name, "[]");
        let error = Reader::open(&path, &Reading::default())
            .err()
            .expect("refused");
        assert!(error.to_string().contains(said), "{error}");
    }
    let error = Reader::open("no/such.jsonl", &Reading::default())
        .err()
        .expect("refused");
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// A column of texts: the values, definition levels and repetition levels.
type Column = (Vec<&'static [u8]>, Option<Vec<i16>>, Option<Vec<i16>>);

fn parquet(schema: &str, columns: Vec<Column>, numbers: Option<Vec<i64>>) -> (TempDir, PathBuf) {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    for (values, definitions, repetitions) in columns {
        let values: Vec<ByteArray> = values.into_iter().map(ByteArray::from).collect();
        let mut column = group.next_column().expect("a column").expect("a column");
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, definitions.as_deref(), repetitions.as_deref())
            .expect("written");
        column.close().expect("closed");
    }
    if let Some(numbers) = numbers {
        let mut column = group.next_column().expect("a column").expect("a column");
        column
            .typed::<Int64Type>()
            .write_batch(&numbers, None, None)
            .expect("written");
        column.close().expect("closed");
    }
    group.close().expect("closed");
    writer.close().expect("closed");
    file("rows.parquet", bytes)
}

const PAIRS: &str = "message m {
    required binary prompt (UTF8);
    optional binary completion (UTF8);
    required int64 score;
}";

#[test]
fn rows_of_prompts_and_of_chats() {
    let columns = vec![
        (vec![&b"p1"[..], b"p2", b"p3"], None, None),
        (vec![&b" c1"[..], b" "], Some(vec![1, 0, 1]), None),
    ];
    let (_folder, path) = parquet(PAIRS, columns, Some(vec![1, 2, 3]));
    let rows = read(&path, &Reading::default());
    let first = rows[0].as_ref().expect("an example");
    assert_eq!(first.id, Example::completion("p1", " c1").id);
    refused(&rows[1], "rows.parquet`, row 2", "no `completion`");
    refused(&rows[2], "rows.parquet`, row 3", "`completion` is empty");

    let chats = "message m {
        optional group messages (LIST) {
            repeated group list {
                optional group element {
                    optional binary role (UTF8);
                    optional binary content (UTF8);
                }
            }
        }
    }";
    // Two rows: two turns, then one turn that nobody answers.
    let columns = vec![
        (
            vec![&b"user"[..], b"assistant", b"user"],
            Some(vec![4, 4, 4]),
            Some(vec![0, 1, 0]),
        ),
        (
            vec![&b"hi"[..], b"ho", b"hm"],
            Some(vec![4, 4, 4]),
            Some(vec![0, 1, 0]),
        ),
    ];
    let (_folder, path) = parquet(chats, columns, None);
    let rows = read(&path, &Reading::default());
    let turns = vec![Message::new("user", "hi"), Message::new("assistant", "ho")];
    assert_eq!(
        rows[0].as_ref().expect("an example").id,
        Example::chat(turns).id
    );
    refused(&rows[1], "row 2", "no turn of the role `assistant`");
}

#[test]
fn parquet_that_is_wrong() {
    let text = "message m { required binary text (UTF8); }";
    let (_folder, path) = parquet(text, vec![(vec![&b"caf\xe9"[..]], None, None)], None);
    refused(
        &read(&path, &Reading::default())[0],
        "row 1",
        "is not UTF-8",
    );

    let other = "message m { required binary body (UTF8); }";
    let (_folder, path) = parquet(other, vec![(vec![&b"x"[..]], None, None)], None);
    let error = Reader::open(&path, &Reading::default())
        .err()
        .expect("refused");
    assert!(error.to_string().contains("`body`"), "{error}");

    // Cut short, or with any one byte changed, it is an error or other rows and never a panic.
    let columns = vec![
        (vec![&b"p1"[..]; 40], None, None),
        (vec![&b" c1"[..]; 40], Some(vec![1; 40]), None),
    ];
    let (_folder, path) = parquet(PAIRS, columns, Some(vec![1; 40]));
    let bytes = fs::read(&path).expect("bytes");
    std::panic::set_hook(Box::new(|_| {}));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let cut = bytes[..at].to_vec();
        for bytes in [damaged, cut] {
            fs::write(&path, bytes).expect("written");
            if let Ok(rows) = Reader::open(&path, &Reading::default()) {
                let _ = rows.take(100).count();
            }
        }
    }
    let _ = std::panic::take_hook();
}
