//! A reader for pickles of numpy arrays, and of nothing else.
//!
//! A pickle is a program for a small stack machine that may call any Python function. This
//! reader knows the operations that numpy arrays in nested tuples are written with (protocol 2),
//! "calls" only numpy's array and dtype constructors, and refuses everything else: nothing is
//! ever executed. Array data is borrowed from the input, not copied.

use crate::{Error, Result};

/// A numpy array in C order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array<'a> {
    pub shape: Vec<usize>,
    /// The type code as numpy writes it, with its byte order: `<f4`, `<i8`, `|u1`.
    pub dtype: String,
    pub bytes: &'a [u8],
}

/// The arrays of a pickle, in the order in which they were written.
///
/// # Errors
/// [`Error::Malformed`], with the position, at the first operation that is damaged or refused.
pub(crate) fn arrays(pickle: &[u8]) -> Result<Vec<Array<'_>>> {
    let mut machine = Machine {
        input: pickle,
        at: 0,
        stack: vec![],
        memo: vec![],
        objects: vec![],
    };
    machine
        .run()
        .map_err(|why| Error::malformed("the pickle", format!("at byte {}: {why}", machine.at)))?;
    Ok(machine
        .objects
        .into_iter()
        .filter_map(|object| match object {
            Object::Array(array) => array,
            Object::Dtype(_) => None,
        })
        .collect())
}

#[derive(Clone, Debug)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Bytes(&'a [u8]),
    Global(Constructor),
    Tuple(Vec<Value<'a>>),
    Mark,
    /// An index into the objects: numpy's objects are changed by BUILD after they were shared.
    Object(usize),
}

#[derive(Clone, Copy, Debug)]
enum Constructor {
    Reconstruct,
    NdArray,
    Dtype,
}

#[derive(Debug)]
enum Object<'a> {
    Array(Option<Array<'a>>),
    Dtype(String),
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    memo: Vec<Option<Value<'a>>>,
    objects: Vec<Object<'a>>,
}

type Step<T> = std::result::Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<()> {
        loop {
            if self.stack.len() > 1000 {
                return Err("the stack is deeper than any that numpy needs".into());
            }
            let op = self.take(1)?[0];
            match op {
                0x80 => {
                    let protocol = self.take(1)?[0];
                    if protocol > 3 {
                        return Err(format!("protocol {protocol} is not known here"));
                    }
                }
                b'.' => return self.pop().map(drop),
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'K' => {
                    let n = self.take(1)?[0];
                    self.stack.push(Value::Int(n.into()));
                }
                b'M' => {
                    let n = self.little_endian(2)?;
                    self.stack.push(Value::Int(n as i64));
                }
                b'J' => {
                    let n = self.little_endian(4)? as u32;
                    self.stack.push(Value::Int((n as i32).into()));
                }
                b'U' | b'C' => self.bytes(1)?,
                b'T' | b'B' => self.bytes(4)?,
                b'(' => self.stack.push(Value::Mark),
                b')' => self.stack.push(Value::Tuple(vec![])),
                0x85..=0x87 => {
                    let n = usize::from(op - 0x84);
                    let at = self
                        .stack
                        .len()
                        .checked_sub(n)
                        .ok_or("the stack is empty")?;
                    self.tuple(at)?;
                }
                b't' => {
                    let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark));
                    let mark = mark.ok_or("a tuple has no beginning")?;
                    self.tuple(mark + 1)?;
                    self.stack.swap_remove(mark);
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let constructor = match (module, name) {
                        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                            Constructor::Reconstruct
                        }
                        ("numpy", "ndarray") => Constructor::NdArray,
                        ("numpy", "dtype") => Constructor::Dtype,
                        _ => {
                            return Err(format!(
                                "it wants to call {module}.{name}, which is refused"
                            ));
                        }
                    };
                    self.stack.push(Value::Global(constructor));
                }
                b'q' => {
                    let slot = self.little_endian(1)?;
                    self.put(slot)?;
                }
                b'r' => {
                    let slot = self.little_endian(4)?;
                    self.put(slot)?;
                }
                b'h' => {
                    let slot = self.little_endian(1)?;
                    self.get(slot)?;
                }
                b'j' => {
                    let slot = self.little_endian(4)?;
                    self.get(slot)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                _ => {
                    return Err(format!(
                        "operation 0x{op:02x} is not one that numpy arrays need"
                    ));
                }
            }
        }
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let end = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.input.len());
        let end = end.ok_or_else(|| format!("{n} bytes are missing: it is truncated"))?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn little_endian(&mut self, n: usize) -> Step<usize> {
        Ok(self
            .take(n)?
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | usize::from(*byte)))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.input[self.at..];
        let len = rest
            .iter()
            .take(200)
            .position(|b| *b == b'\n')
            .ok_or("a name has no end")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name is not text".into())
    }

    fn bytes(&mut self, width: usize) -> Step<()> {
        let len = self.little_endian(width)?;
        let bytes = self.take(len)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    /// Folds the stack from `at` on into one tuple.
    fn tuple(&mut self, at: usize) -> Step<()> {
        let items = self.stack.split_off(at);
        // Depth and width of honest pickles are small; without a bound a chain of copies through
        // the memo could double the memory at every step.
        let size: usize = items.iter().map(weight).sum();
        if size > 1000 {
            return Err("a tuple is larger than any that numpy writes".into());
        }
        self.stack.push(Value::Tuple(items));
        Ok(())
    }

    fn put(&mut self, slot: usize) -> Step<()> {
        if slot > 10_000 {
            return Err(format!("memo slot {slot} is beyond what numpy arrays need"));
        }
        if self.memo.len() <= slot {
            self.memo.resize(slot + 1, None);
        }
        self.memo[slot] = self.stack.last().cloned();
        Ok(())
    }

    fn get(&mut self, slot: usize) -> Step<()> {
        let value = self.memo.get(slot).cloned().flatten();
        self.stack
            .push(value.ok_or_else(|| format!("memo slot {slot} is empty"))?);
        Ok(())
    }

    fn reduce(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(callee)) = (arguments, callee) else {
            return Err("a call of what is no function".into());
        };
        let object = match (callee, arguments.first()) {
            (Constructor::Reconstruct, Some(Value::Global(Constructor::NdArray))) => {
                Object::Array(None)
            }
            (Constructor::Dtype, Some(Value::Bytes(code))) => {
                Object::Dtype(String::from_utf8_lossy(code).into_owned())
            }
            _ => return Err("numpy's constructors are not called like this".into()),
        };
        self.objects.push(object);
        self.stack.push(Value::Object(self.objects.len() - 1));
        Ok(())
    }

    fn build(&mut self) -> Step<()> {
        let (state, target) = (self.pop()?, self.pop()?);
        let (Value::Tuple(state), Value::Object(index)) = (state, &target) else {
            return Err("the state of an object is no tuple".into());
        };
        let index = *index;
        let built = match (&self.objects[index], &state[..]) {
            (Object::Dtype(code), [Value::Int(_), Value::Bytes(order), ..]) if order.len() == 1 => {
                Object::Dtype(format!("{}{code}", char::from(order[0])))
            }
            (
                Object::Array(_),
                [
                    Value::Int(_),
                    Value::Tuple(shape),
                    Value::Object(dtype),
                    Value::Bool(false),
                    Value::Bytes(bytes),
                ],
            ) => {
                let shape: Option<Vec<usize>> = shape
                    .iter()
                    .map(|d| {
                        if let Value::Int(d) = d {
                            usize::try_from(*d).ok()
                        } else {
                            None
                        }
                    })
                    .collect();
                match (shape, self.objects.get(*dtype)) {
                    (Some(shape), Some(Object::Dtype(dtype))) => {
                        Object::Array(Some(checked(shape, dtype, bytes)?))
                    }
                    _ => return Err("the state of an array is damaged".into()),
                }
            }
            (Object::Array(_), [_, _, _, Value::Bool(true), _]) => {
                return Err("an array is in Fortran order".into());
            }
            _ => return Err("the state of an object is damaged".into()),
        };
        self.objects[index] = built;
        self.stack.push(target);
        Ok(())
    }
}

/// How many values a value is made of.
fn weight(value: &Value) -> usize {
    match value {
        Value::Tuple(items) => 1 + items.iter().map(weight).sum::<usize>(),
        _ => 1,
    }
}

fn checked<'a>(shape: Vec<usize>, dtype: &str, bytes: &'a [u8]) -> Step<Array<'a>> {
    let width = dtype
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse::<usize>();
    let expected = shape.iter().try_fold(
        width.map_err(|_| format!("the type {dtype} is not known"))?,
        |n, d| n.checked_mul(*d),
    );
    if expected != Some(bytes.len()) {
        return Err(format!(
            "an array of shape {shape:?} and type {dtype} has {} bytes",
            bytes.len()
        ));
    }
    Ok(Array {
        shape,
        dtype: dtype.to_string(),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(float32 array of shape (1, 2) = [0.5, -1], int64 array of shape (2,) = [7, 8])` as
    /// Python 2 and numpy write it in protocol 2 (the layout of `mnist.pkl.gz`).
    fn sample() -> Vec<u8> {
        let mut p = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03".to_vec();
        p.extend(b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87Rq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x08\x00\x00\x00");
        p.extend(0.5f32.to_le_bytes());
        p.extend((-1f32).to_le_bytes());
        p.extend(b"tbh\x01h\x02K\x00\x85U\x01b\x87Rq\x06(K\x01K\x02\x85h\x04U\x02i8K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10");
        p.extend(7i64.to_le_bytes());
        p.extend(8i64.to_le_bytes());
        p.extend(b"tb\x86q\x08.");
        p
    }

    #[test]
    fn reads_nested_arrays() {
        let pickle = sample();
        let arrays = arrays(&pickle).unwrap();
        assert_eq!(arrays.len(), 2);
        assert_eq!(
            (&arrays[0].shape[..], &arrays[0].dtype[..]),
            (&[1, 2][..], "<f4")
        );
        assert_eq!(
            arrays[0].bytes,
            [0.5f32.to_le_bytes(), (-1f32).to_le_bytes()].concat()
        );
        assert_eq!(
            (&arrays[1].shape[..], &arrays[1].dtype[..]),
            (&[2][..], "<i8")
        );
    }

    #[test]
    fn calls_nothing() {
        let message = arrays(b"\x80\x02cos\nsystem\n(U\x02lsR.")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("os.system") && message.contains("refused"),
            "{message}"
        );
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = sample();
        for cut in 0..good.len() {
            assert!(arrays(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut bad = good.clone();
        for i in 0..good.len() {
            for byte in 0..=255 {
                bad[i] = byte;
                drop(arrays(&bad)); // whatever comes out, it comes out
            }
            bad[i] = good[i];
        }
        // A bomb: a tuple of two copies of itself, again and again.
        let mut bomb = b"K\x00".to_vec();
        for _ in 0..60 {
            bomb.extend(b"q\x00h\x00\x86");
        }
        assert!(arrays(&bomb).unwrap_err().to_string().contains("larger"));
    }
}
