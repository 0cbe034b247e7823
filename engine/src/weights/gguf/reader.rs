//! The bytes of a GGUF file, front to back. Nothing is copied and nothing allocated for what a length only claims.

use super::value::{Array, Kind, Value};

/// What is wrong, as the end of a sentence that begins with the file's name.
pub(super) type Reason = String;

/// Arrays inside arrays: the format allows any depth, files in use have none.
const MAX_DEPTH: usize = 4;

pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&mut self, count: u64) -> Result<&'a [u8], Reason> {
        let rest = &self.file[self.at..];
        let Some(bytes) = usize::try_from(count).ok().and_then(|count| rest.get(..count)) else {
            return Err(format!("is truncated: {count} bytes are promised at byte {}, {} are left", self.at, rest.len()));
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let bytes = self.bytes(N as u64)?;
        let mut out = [0; N];
        out.copy_from_slice(bytes);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Reason> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Reason> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length and so many bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Reason> {
        let length = self.u64()?;
        self.bytes(length)
    }

    pub(super) fn name(&mut self) -> Result<&'a str, Reason> {
        let at = self.at;
        std::str::from_utf8(self.string()?).map_err(|_| format!("has a name that is not UTF-8 at byte {at}"))
    }

    pub(super) fn value(&mut self) -> Result<Value<'a>, Reason> {
        let kind = self.u32()?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: u32, depth: usize) -> Result<Value<'a>, Reason> {
        if kind == Value::ARRAY {
            return self.array_value(depth).map(Value::Array);
        }
        match Kind::from_code(kind) {
            Some(kind) => self.scalar(kind),
            None => Err(format!("has a value of the unknown type {kind} at byte {}", self.at)),
        }
    }

    pub(super) fn scalar(&mut self, kind: Kind) -> Result<Value<'a>, Reason> {
        Ok(match kind {
            Kind::U8 => Value::Unsigned(self.array::<1>()?[0].into()),
            Kind::I8 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            Kind::U16 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            Kind::I16 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            Kind::U32 => Value::Unsigned(self.u32()?.into()),
            Kind::I32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            Kind::U64 => Value::Unsigned(self.u64()?),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            Kind::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            Kind::Bool => Value::Bool(self.array::<1>()?[0] != 0),
            Kind::String => Value::String(self.string()?),
        })
    }

    fn array_value(&mut self, depth: usize) -> Result<Array<'a>, Reason> {
        let kind = self.u32()?;
        let count = self.u64()?;
        let start = self.at;
        let element = Kind::from_code(kind);
        match element.and_then(Kind::size) {
            Some(size) => {
                let bytes = count.checked_mul(size as u64).ok_or_else(|| format!("has an array of {count} values at byte {start}"))?;
                self.bytes(bytes)?;
            }
            None if depth == MAX_DEPTH => return Err(format!("has arrays nested too deeply at byte {start}")),
            // Each step consumes bytes or fails, so that a wrong count ends with the file.
            None => {
                for _ in 0..count {
                    self.value_of(kind, depth + 1)?;
                }
            }
        }
        Ok(Array { kind: element, len: count as usize, bytes: &self.file[start..self.at] })
    }
}
