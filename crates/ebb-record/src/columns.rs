//! The little of Parquet that is needed: flat columns, required or optional, in row groups.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::error::{At, Error, Result, supported};

const VERSION_KEY: &str = "ebb.format_version";
pub(crate) const SEGMENTS_KEY: &str = "ebb.segments";

/// A Parquet error as ours: a full disk keeps its message.
fn failed(path: &Path, error: ParquetError) -> Error {
    if let ParquetError::External(inner) = &error
        && let Some(io) = inner.downcast_ref::<std::io::Error>()
    {
        let io: std::io::Result<()> = Err(std::io::Error::new(io.kind(), io.to_string()));
        if let Err(error) = io.writing(path, 0) {
            return error;
        }
    }
    Error::damaged(
        path,
        format!("its columns cannot be read or written ({error})"),
    )
}

/// Reads through the library, which answers some damaged files with a panic: for us a file that
/// cannot be read is an error like any other.
fn reading<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let panicked = |_| Err(ParquetError::General("the library gave up on it".into()));
    let read = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(panicked);
    read.map_err(|e| failed(path, e))
}

/// Writes one file.
pub struct ColumnFile<'w> {
    writer: SerializedFileWriter<&'w mut BufWriter<File>>,
    path: PathBuf,
}

/// Writes the columns of one row group, in the order of the schema.
pub struct RowGroup<'a, W: Write + Send> {
    group: SerializedRowGroupWriter<'a, W>,
    path: &'a Path,
}

impl<'w> ColumnFile<'w> {
    /// A file of this schema (Parquet's message format) and format version, to be written into
    /// `file`; `pairs` are kept beside the columns.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the schema is none, [`Error::Io`], [`Error::DiskFull`]; so for all
    /// methods here.
    pub fn create(
        file: &'w mut BufWriter<File>,
        path: &Path,
        schema: &str,
        version: u32,
        pairs: &[(&str, String)],
    ) -> Result<ColumnFile<'w>> {
        let schema = parse_message_type(schema).map_err(|e| failed(path, e))?;
        let pair = |key: &str, value: &str| KeyValue::new(key.to_string(), value.to_string());
        let version = pair(VERSION_KEY, &version.to_string());
        let pairs = pairs.iter().map(|(key, value)| pair(key, value));
        let properties = WriterProperties::builder()
            .set_compression(Compression::GZIP(Default::default()))
            .set_created_by(concat!("ebb ", env!("CARGO_PKG_VERSION")).into())
            .set_key_value_metadata(Some([version].into_iter().chain(pairs).collect()))
            .build();
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties));
        Ok(ColumnFile {
            writer: writer.map_err(|e| failed(path, e))?,
            path: path.into(),
        })
    }

    /// Begins a row group.
    ///
    /// # Errors
    /// As [`ColumnFile::create`].
    pub fn row_group(&mut self) -> Result<RowGroup<'_, &'w mut BufWriter<File>>> {
        let group = self
            .writer
            .next_row_group()
            .map_err(|e| failed(&self.path, e))?;
        Ok(RowGroup {
            group,
            path: &self.path,
        })
    }

    /// Writes what closes the file.
    ///
    /// # Errors
    /// As [`ColumnFile::create`].
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        self.writer.close().map(drop).map_err(|e| failed(&path, e))
    }
}

impl<W: Write + Send> RowGroup<'_, W> {
    /// Writes the next column, which has a value in every row.
    ///
    /// # Errors
    /// As [`ColumnFile::create`].
    pub fn required<T: DataType>(&mut self, values: &[T::T]) -> Result<()> {
        self.column::<T>(values, None)
    }

    pub(crate) fn optional<T: DataType>(&mut self, column: &Optional<T::T>) -> Result<()> {
        self.column::<T>(&column.values, Some(&column.levels))
    }

    fn column<T: DataType>(&mut self, values: &[T::T], levels: Option<&[i16]>) -> Result<()> {
        let mut write = || {
            let column = self.group.next_column()?;
            let mut column =
                column.ok_or_else(|| ParquetError::General("one column too many".into()))?;
            column.typed::<T>().write_batch(values, levels, None)?;
            column.close()
        };
        write().map_err(|e| failed(self.path, e))
    }

    /// Ends the row group.
    ///
    /// # Errors
    /// As [`ColumnFile::create`].
    pub fn close(self) -> Result<()> {
        self.group
            .close()
            .map(drop)
            .map_err(|e| failed(self.path, e))
    }
}

/// A column with gaps: the values that are there, and for each row whether it has one.
#[derive(Clone, Debug)]
pub(crate) struct Optional<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Optional<T> {
    pub fn new() -> Optional<T> {
        Optional {
            values: Vec::new(),
            levels: Vec::new(),
        }
    }

    pub fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

/// Reads one file.
pub struct ColumnReader {
    reader: SerializedFileReader<File>,
    path: PathBuf,
    pairs: BTreeMap<String, String>,
}

/// Reads the columns of one row group by index.
pub struct RowGroupColumns<'a> {
    group: Box<dyn RowGroupReader + 'a>,
    path: &'a Path,
    /// Rows of the group.
    pub rows: usize,
}

impl ColumnReader {
    /// Opens a file of this schema.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Newer`], [`Error::Damaged`]; so for all methods here.
    pub fn open(path: &Path, schema: &str, version: u32) -> Result<ColumnReader> {
        Self::open_with(path, version, |_| Ok(schema.to_owned()))
    }

    /// Opens a file whose schema follows from what is kept beside its columns.
    ///
    /// # Errors
    /// As [`ColumnReader::open`], and those of `schema`.
    pub fn open_with(
        path: &Path,
        version: u32,
        schema: impl FnOnce(&BTreeMap<String, String>) -> Result<String>,
    ) -> Result<ColumnReader> {
        let file = File::open(path).at("open", path)?;
        let reader = reading(path, || SerializedFileReader::new(file))?;
        let metadata = reader.metadata().file_metadata();
        let pairs: BTreeMap<String, String> = metadata
            .key_value_metadata()
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?)))
            .collect();
        let found = pairs.get(VERSION_KEY).and_then(|v| v.parse().ok());
        supported(path, found.ok_or_else(|| foreign(path))?, version)?;
        let expected = parse_message_type(&schema(&pairs)?).map_err(|e| failed(path, e))?;
        // Typed readers panic on another type: nothing is read before this holds.
        if *metadata.schema_descr().root_schema() != expected {
            return Err(Error::damaged(
                path,
                "its columns are not the expected ones",
            ));
        }
        Ok(ColumnReader {
            reader,
            path: path.into(),
            pairs,
        })
    }

    /// How many segments of the running log the file holds.
    pub(crate) fn segments(&self) -> Result<u32> {
        let found = self.pairs.get(SEGMENTS_KEY).and_then(|v| v.parse().ok());
        found.ok_or_else(|| foreign(&self.path))
    }

    /// What is kept beside the columns under `key`.
    pub fn pair(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// Number of row groups.
    pub fn row_groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    /// A row group.
    ///
    /// # Errors
    /// As [`ColumnReader::open`].
    pub fn row_group(&self, index: usize) -> Result<RowGroupColumns<'_>> {
        let group = reading(&self.path, || self.reader.get_row_group(index))?;
        let rows = usize::try_from(group.metadata().num_rows());
        let rows = rows.map_err(|_| Error::damaged(&self.path, "a negative number of rows"))?;
        Ok(RowGroupColumns {
            group,
            path: &self.path,
            rows,
        })
    }
}

fn foreign(path: &Path) -> Error {
    Error::damaged(path, "it is not a file of this program")
}

impl RowGroupColumns<'_> {
    /// A column with a value in every row.
    ///
    /// # Errors
    /// As [`ColumnReader::open`].
    pub fn required<T: DataType>(&self, column: usize) -> Result<Vec<T::T>> {
        let (values, _) = self.column::<T>(column, false)?;
        if values.len() != self.rows {
            return Err(self.short(column));
        }
        Ok(values)
    }

    pub(crate) fn optional<T: DataType>(&self, column: usize) -> Result<Vec<Option<T::T>>> {
        let (values, levels) = self.column::<T>(column, true)?;
        let present = levels.iter().filter(|&&level| level == 1).count();
        if levels.len() != self.rows || values.len() != present {
            return Err(self.short(column));
        }
        let mut values = values.into_iter();
        Ok(levels
            .iter()
            .map(|&level| if level == 1 { values.next() } else { None })
            .collect())
    }

    fn short(&self, column: usize) -> Error {
        Error::damaged(
            self.path,
            format!("column {column} does not have {} rows", self.rows),
        )
    }

    fn column<T: DataType>(&self, column: usize, optional: bool) -> Result<(Vec<T::T>, Vec<i16>)> {
        reading(self.path, || {
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let mut reader = get_typed_column_reader::<T>(self.group.get_column_reader(column)?);
            let levels_wanted = optional.then_some(&mut levels);
            reader.read_records(self.rows, levels_wanted, None, &mut values)?;
            Ok((values, levels))
        })
    }
}
