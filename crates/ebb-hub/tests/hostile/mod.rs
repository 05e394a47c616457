//! Files that somebody altered: how they are made from whole ones, and what reads them. The tests,
//! `examples/fuzz.rs` and the targets of `fuzz/` share this.

use std::fs;
use std::path::{Path, PathBuf};

use ebb_hub::{
    Adapter, Bundle, ChatOptions, Folder, FolderWriter, Gguf, Message, MetaValue, Tensors,
    Tokenizer,
};
use ebb_space::Stream;

/// A kind of file that comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A GGUF file: tensors, configuration, tokenizer.
    Gguf,
    /// `model.safetensors` of a folder.
    Safetensors,
    /// `tokenizer.json` of a folder.
    Tokenizer,
    /// Any of the other JSON files of a folder or an adapter.
    Config,
}

impl Target {
    pub const ALL: [(&'static str, Target); 4] = [
        ("gguf", Target::Gguf),
        ("safetensors", Target::Safetensors),
        ("tokenizer", Target::Tokenizer),
        ("config", Target::Config),
    ];

    /// The most bytes that reading a file may take: JSON takes more room in memory than on paper,
    /// and the rules of a tokenizer are compiled, up to a limit that their library has (two of ten
    /// megabytes). Beyond that, memory grows with the file and with nothing that it claims.
    pub fn allowed(self, file: usize) -> usize {
        let rules = match self {
            Target::Gguf | Target::Safetensors => 4 << 20,
            Target::Tokenizer | Target::Config => 24 << 20,
        };
        rules + 64 * file
    }

    /// Whole files, by name.
    pub fn seeds(self) -> Vec<(String, Vec<u8>)> {
        // The targets of `fuzz/` are a package of their own.
        let fixtures = ["tests/fixtures", "../crates/ebb-hub/tests/fixtures"]
            .map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
            .into_iter()
            .find(|folder| folder.is_dir())
            .expect("a folder of fixtures");
        let read = |name: &str| {
            let bytes = fs::read(fixtures.join(name)).expect("a fixture");
            (name.to_owned(), bytes)
        };
        match self {
            Target::Gguf => [
                "llama.gguf",
                "gemma3.gguf",
                "gpt2.gguf",
                "gptneox.gguf",
                "blocks.gguf",
                "tokenizer-smollm.gguf",
                "tokenizer-llama-bpe.gguf",
                "tokenizer-spm.gguf",
            ]
            .map(read)
            .into(),
            Target::Safetensors => {
                let files = [
                    "llama.safetensors",
                    "gpt2.safetensors",
                    "sharded/model-00001-of-00002.safetensors",
                    "adapter-plain/adapter_model.safetensors",
                ];
                let mut all: Vec<_> = files.map(read).into();
                all.push(("bundle".into(), bundle(&fixtures)));
                all
            }
            Target::Tokenizer => [
                "tokenizer-gpt-2/tokenizer.json",
                "tokenizer-llama-bpe/tokenizer.json",
                "tokenizer-qwen2/tokenizer.json",
                "tokenizer-smollm/tokenizer.json",
                // By hand, of the kinds that the others lack.
                "written/word-piece.json",
                "written/unigram.json",
                "written/word-level.json",
                "written/byte-pairs-of-words.json",
            ]
            .map(read)
            .into(),
            Target::Config => [
                "sharded/config.json",
                "sharded/model.safetensors.index.json",
                "tokenizer-qwen2/tokenizer_config.json",
                "adapter-plain/adapter_config.json",
                "adapter-rslora/adapter_config.json",
            ]
            .map(read)
            .into(),
        }
    }
}

/// A file of adapters in common bases.
fn bundle(fixtures: &Path) -> Vec<u8> {
    let adapters = ["adapter-plain", "adapter-rslora"].map(|name| fixtures.join(name));
    let (bundle, _) = Bundle::of(&adapters.each_ref().map(|a| a.as_path()), 1).expect("a bundle");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bundle.safetensors");
    bundle.write(&path).expect("written");
    fs::read(path).expect("a bundle")
}

const TEXT: &str = "it's 12 déjà\n\tvu 日本 <|im_start|>  🙂";

/// A folder in which a file of each kind is read as a program would read it.
pub struct Reader {
    dir: tempfile::TempDir,
}

impl Reader {
    pub fn new() -> Reader {
        expect_panics_of_the_library();
        // Thousands of files are written: in memory, where the system has a folder for that.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a folder");
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, bytes).expect("written");
        };
        put("safetensors/config.json", b"{}");
        for (name, bytes) in Target::Config.seeds() {
            if name == "adapter-plain/adapter_config.json" {
                put("safetensors/adapter_config.json", &bytes);
            }
        }
        for (name, bytes) in Target::Safetensors.seeds() {
            if name.starts_with("adapter") {
                put("config/adapter_model.safetensors", &bytes);
            } else if name.starts_with("sharded") {
                put("config/model-00001-of-00002.safetensors", &bytes);
            }
        }
        for (name, bytes) in Target::Tokenizer.seeds() {
            if name == "written/word-level.json" {
                put("config/tokenizer.json", &bytes);
            }
        }
        put("tokenizer/tokenizer_config.json", b"{}");
        Reader { dir }
    }

    fn file(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::write(&path, bytes).expect("written");
        path
    }

    /// Reads everything that can be read; whether anything could be.
    pub fn read(&self, target: Target, bytes: &[u8]) -> bool {
        match target {
            Target::Gguf => {
                let path = self.file("x.gguf", bytes);
                let Ok(gguf) = Gguf::open(&path) else {
                    return false;
                };
                for info in gguf.tensors() {
                    gguf.read(&info.name).expect("a tensor of its own table");
                }
                let _ = gguf.config();
                let _ = gguf
                    .metadata()
                    .values()
                    .filter_map(MetaValue::as_array)
                    .count();
                if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
                    use_tokenizer(&tokenizer);
                }
                true
            }
            Target::Safetensors => {
                self.file("safetensors/model.safetensors", bytes);
                let path = self.file("safetensors/adapter_model.safetensors", bytes);
                if let Ok(bundle) = Bundle::open(path) {
                    for name in bundle.names() {
                        let _ = bundle.extract(name);
                    }
                }
                let folder = self.dir.path().join("safetensors");
                let adapter = Adapter::open(&folder);
                let Ok(folder) = Folder::open(folder) else {
                    assert!(adapter.is_err(), "an adapter of a file that cannot be read");
                    return false;
                };
                for info in folder.tensors() {
                    let _ = folder.read(&info.name);
                }
                let _ = folder.load_all();
                true
            }
            Target::Tokenizer => {
                self.file("tokenizer/tokenizer.json", bytes);
                let Ok(tokenizer) = Tokenizer::open(self.dir.path().join("tokenizer")) else {
                    return false;
                };
                use_tokenizer(&tokenizer);
                true
            }
            Target::Config => {
                let folder = self.dir.path().join("config");
                for name in [
                    "config.json",
                    "generation_config.json",
                    "model.safetensors.index.json",
                    "tokenizer_config.json",
                    "adapter_config.json",
                ] {
                    self.file(&format!("config/{name}"), bytes);
                }
                let opened = Folder::open(&folder);
                if let Ok(folder) = &opened {
                    let _ = folder.generation_config();
                    let _ = folder.load_all();
                }
                let tokenizer = Tokenizer::open(&folder);
                if let Ok(tokenizer) = &tokenizer {
                    use_tokenizer(tokenizer);
                }
                let adapter = Adapter::open(&folder);
                if let (Ok(adapter), Ok(opened)) = (&adapter, &opened)
                    && let Ok(mut weights) = opened.load_all()
                {
                    let _ = adapter.merge_into(&mut weights);
                }
                opened.is_ok() || tokenizer.is_ok() || adapter.is_ok()
            }
        }
    }
}

fn use_tokenizer(tokenizer: &Tokenizer) {
    for special in [false, true] {
        if let Ok(ids) = tokenizer.encode(TEXT, special) {
            let _ = tokenizer.decode(&ids, special);
        }
    }
    let _ = tokenizer.decode(&[0, 1, 2, 3, u32::MAX], true);
    if let Ok(chat) = tokenizer.chat() {
        let _ = chat.render(&[Message::new("user", TEXT)], &ChatOptions::default());
    }
    let _ = FolderWriter::new(serde_json::Map::new()).tokenizer(tokenizer);
}

/// Says nothing of panics inside the library of tokenizers, which the crate turns into errors.
pub fn expect_panics_of_the_library() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic
                .location()
                .is_some_and(|l| l.file().contains("tokenizers-"))
            {
                told(panic);
            }
        }));
    });
}

/// What stands in JSON where something else was expected, and names that mean much to a reader.
const WORDS: [&str; 24] = [
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "0",
    "1e999",
    "4294967295",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
    "\"type\":\"Sequence\"",
    "\"type\":\"ByteLevel\"",
    "\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"",
    "\"Regex\":\"(?:a*)*$\"",
    "\"Regex\":\"(\\\\w+)+!\"",
    "\"String\":\"\"",
    "\"\\ud800\"",
    "\"dtype\":\"F32\"",
    "[0,18446744073709551615]",
    "[18446744073709551615,2]",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
];

const NUMBERS: [u64; 16] = [
    0,
    1,
    3,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    1 << 24,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    (1 << 62) + 1,
    (1 << 63) - 1,
    (1 << 63) + 1,
    u64::MAX,
];

/// A whole file, altered in one to six places.
pub fn mutate(whole: &[u8], other: &[u8], rng: &mut Stream) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + rng.below(6) {
        alter(&mut bytes, other, rng);
    }
    bytes
}

fn alter(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Stream) {
    if bytes.is_empty() {
        bytes.push(rng.next_u64() as u8);
        return;
    }
    let place = |rng: &mut Stream, len: usize| {
        // Half of the time near the start, where lengths and counts are.
        let most = if rng.below(2) == 0 { len.min(512) } else { len };
        rng.below(most as u64) as usize
    };
    let at = place(rng, bytes.len());
    match rng.below(10) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next_u64() as u8,
        2 => {
            let number = NUMBERS[rng.below(16) as usize].to_le_bytes();
            let width = (1 << rng.below(4)).min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        3 => bytes.truncate(at),
        4 => {
            let end = at + rng.below((bytes.len() - at).min(64) as u64) as usize;
            bytes.drain(at..end);
        }
        5 => {
            let end = at + rng.below((bytes.len() - at).min(64) as u64) as usize;
            let part = bytes[at..end].to_vec();
            let to = place(rng, bytes.len());
            bytes.splice(to..to, part);
        }
        6 if !other.is_empty() => {
            let from = place(rng, other.len());
            let end = from + rng.below((other.len() - from).min(256) as u64) as usize;
            let over = at + rng.below((bytes.len() - at).min(256) as u64) as usize;
            bytes.splice(at..over, other[from..end].iter().copied());
        }
        7 => {
            let word = WORDS[rng.below(WORDS.len() as u64) as usize];
            bytes.splice(at..at, word.bytes());
        }
        // A number, or a value, in the place of the next one of a text.
        8 => {
            let digits = |b: &u8| b.is_ascii_digit();
            if let Some(start) = bytes[at..].iter().position(digits).map(|i| at + i) {
                let len = bytes[start..].iter().take_while(|b| digits(b)).count();
                let number = NUMBERS[rng.below(16) as usize].to_string();
                bytes.splice(start..start + len, number.into_bytes());
            }
        }
        _ => {
            if let Some(start) = bytes[at..]
                .iter()
                .position(|&b| b == b':')
                .map(|i| at + i + 1)
            {
                let ends = |b: &u8| b",}]".contains(b);
                let len = bytes[start..].iter().take_while(|b| !ends(b)).count();
                let word = WORDS[rng.below(WORDS.len() as u64) as usize];
                bytes.splice(start..start + len, word.bytes());
            }
        }
    }
}
