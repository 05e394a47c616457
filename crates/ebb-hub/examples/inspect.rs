//! What a model file holds: `inspect MODEL [OUT]`, where `MODEL` is a GGUF file or a Hugging Face
//! folder. With `OUT`, the model is written there as a folder that `transformers` loads.

use std::path::Path;
use std::time::Instant;

use ebb_hub::{ChatOptions, Folder, FolderWriter, Gguf, Message, Result, Tensors, Tokenizer};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (from, to) = match &arguments[..] {
        [from] => (from, None),
        [from, to] => (from, Some(to)),
        _ => {
            eprintln!("usage: inspect MODEL [OUT]");
            std::process::exit(2);
        }
    };
    if let Err(error) = inspect(Path::new(from), to.map(Path::new)) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn inspect(from: &Path, to: Option<&Path>) -> Result<()> {
    let start = Instant::now();
    let (model, config, tokenizer): (Box<dyn Tensors>, _, _) = if from.is_dir() {
        let folder = Folder::open(from)?;
        let config = folder.config().clone();
        (Box::new(folder), config, Tokenizer::open(from)?)
    } else {
        let gguf = Gguf::open(from)?;
        let (config, tokenizer) = (gguf.config()?, Tokenizer::from_gguf(&gguf)?);
        (Box::new(gguf), config, tokenizer)
    };
    println!("opened in {:?}", start.elapsed());
    println!("{:#}", serde_json::Value::Object(config.clone()));

    let start = Instant::now();
    let weights = model.load_all()?;
    let odd = weights.as_slice().iter().filter(|v| !v.is_finite()).count();
    println!(
        "{} tensors, {} values, {odd} of them not finite, in {:?}",
        model.tensors().len(),
        weights.as_slice().len(),
        start.elapsed()
    );

    let text = "It's 2026: naïve café, 日本, 🙂\n\tdone.";
    let ids = tokenizer.encode(text, false)?;
    println!("{} tokens; {text:?} is {ids:?}", tokenizer.len());
    println!("and back {:?}", tokenizer.decode(&ids, true)?);
    let options = ChatOptions {
        add_generation_prompt: true,
        ..ChatOptions::default()
    };
    match tokenizer.chat() {
        Ok(chat) => println!("{}", chat.render(&[Message::new("user", "Hi!")], &options)?),
        Err(error) => println!("{error}"),
    }
    if let Some(to) = to {
        FolderWriter::new(config)
            .tokenizer(&tokenizer)?
            .write(to, &weights)?;
        println!("written to `{}`", to.display());
    }
    Ok(())
}
