use std::{borrow::Cow, collections::HashMap, ops::Range, path::Path};

use super::{
    WeightsError,
    file::WeightFile,
    formats::{self, Format},
    safetensors,
};

/// The tensors of a model, wherever they lie and whatever they are called there: names here are Hugging Face's.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder or file, or what stands in its place, for messages.
    origin: String,
    files: Vec<WeightFile>,
    tensors: HashMap<String, Stored>,
    /// How `config.json` says that matrices are quantised.
    format: Option<Box<dyn Format>>,
}

/// One tensor as a file's header describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// Index of the file.
    pub(super) file: usize,
    /// As the file spells it: "BF16", "Q4_K".
    pub(super) dtype: Cow<'static, str>,
    pub(super) shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(super) bytes: Range<usize>,
    pub(super) arrangement: Arrangement,
}

/// What a converter did to a tensor, to be undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arrangement {
    #[default]
    AsIs,
    /// Rows of each head are in rotated pairs, (0, half), (1, half + 1) and so on, where a model wants the first halves first.
    RotaryPairs { head_dim: usize },
    /// 1 was added to every value.
    PlusOne,
}

/// A tensor, and how to speak of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorRef<'a> {
    pub(super) file: &'a str,
    pub(super) name: &'a str,
    pub(super) dtype: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
    pub(super) arrangement: Arrangement,
}

impl TensorRef<'_> {
    pub(super) fn error(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::Tensor { file: self.file.into(), tensor: self.name.into(), reason: reason.into() }
    }

    /// # Errors
    /// When the tensor has another shape.
    pub(super) fn expect_shape(&self, expected: &[usize]) -> Result<(), WeightsError> {
        if self.shape == expected {
            return Ok(());
        }
        Err(self.error(format!("has shape {:?} where the config asks for {expected:?}", self.shape)))
    }
}

impl Checkpoint {
    /// Maps the weights of a Hugging Face folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists. Matrices
    /// are quantised as the `quantization_config` of its `config.json` says.
    ///
    /// # Errors
    /// When a file is missing, truncated or malformed, a shard lacks a tensor that the index promises, or the quantisation is unknown.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let files = safetensors::open(folder)?;
        let mut checkpoint = Self::new(folder.display().to_string());
        checkpoint.format = formats::declared(&folder.join("config.json"))?;
        for (file, tensors) in files {
            checkpoint.add(file, tensors);
        }
        Ok(checkpoint)
    }

    /// A safetensors file that is part of the program. `name` stands for it in messages.
    ///
    /// # Errors
    /// When the bytes are no such file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, WeightsError> {
        Self::from_file(WeightFile::embedded(name, bytes))
    }

    /// A safetensors file in memory. `name` stands for it in messages.
    ///
    /// # Errors
    /// When the bytes are no such file.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::from_file(WeightFile::owned(name, bytes))
    }

    /// The same with the `config.json` that says how its matrices are quantised.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes_with_config(name: &str, bytes: Vec<u8>, config: &[u8]) -> Result<Self, WeightsError> {
        let format = formats::declared_in("config.json".to_owned(), config)?;
        Ok(Self { format, ..Self::from_bytes(name, bytes)? })
    }

    fn from_file(file: WeightFile) -> Result<Self, WeightsError> {
        let mut checkpoint = Self::new(file.name.clone());
        let tensors = safetensors::tensors(&file)?;
        checkpoint.add(file, tensors);
        Ok(checkpoint)
    }

    pub(super) fn new(origin: String) -> Self {
        Self { origin, files: Vec::new(), tensors: HashMap::new(), format: None }
    }

    /// The tensors' `file` is set to this one.
    pub(super) fn add(&mut self, file: WeightFile, tensors: Vec<(String, Stored)>) {
        let number = self.files.len();
        self.tensors.extend(tensors.into_iter().map(|(name, stored)| (name, Stored { file: number, ..stored })));
        self.files.push(file);
    }

    /// Whether the tensor is there, in whichever encoding.
    pub fn contains(&self, tensor: &str) -> bool {
        let is_packed = |base| self.tensors.contains_key(&format!("{base}.qweight"));
        self.tensors.contains_key(tensor) || tensor.strip_suffix(".weight").is_some_and(is_packed)
    }

    /// Bytes of all tensors as stored.
    pub fn num_bytes(&self) -> usize {
        self.tensors.values().map(|stored| stored.bytes.len()).sum()
    }

    /// Name, type and shape of every tensor, as its file has them.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &str, &[usize])> {
        self.tensors.iter().map(|(name, stored)| (&**name, &*stored.dtype, &*stored.shape))
    }

    /// Whether most of the bytes are float32.
    pub fn is_float32(&self) -> bool {
        self.num_bytes_of("F32") * 2 > self.num_bytes()
    }

    /// Whether there is more in float16 than in bfloat16. Norms that a converter left in float32 say nothing.
    pub fn is_float16(&self) -> bool {
        self.num_bytes_of("F16") > self.num_bytes_of("BF16")
    }

    fn num_bytes_of(&self, dtype: &str) -> usize {
        self.tensors.values().filter(|stored| stored.dtype == dtype).map(|stored| stored.bytes.len()).sum()
    }

    /// Lets the memory go that holds what was read of a tensor. It can be read again.
    pub(super) fn release(&self, tensor: &str) {
        if let Some(stored) = self.tensors.get(tensor) {
            self.files[stored.file].release(stored.bytes.clone());
        }
    }

    pub(super) fn format(&self) -> Option<&dyn Format> {
        self.format.as_deref()
    }

    pub(super) fn find<'a>(&'a self, name: &str) -> Option<TensorRef<'a>> {
        let (name, stored) = self.tensors.get_key_value(name)?;
        let file = &self.files[stored.file];
        Some(TensorRef {
            file: &file.name,
            name,
            dtype: &stored.dtype,
            shape: &stored.shape,
            bytes: &file.bytes()[stored.bytes.clone()],
            arrangement: stored.arrangement,
        })
    }

    pub(super) fn get<'a>(&'a self, name: &str) -> Result<TensorRef<'a>, WeightsError> {
        self.find(name).ok_or_else(|| WeightsError::Missing { checkpoint: self.origin.clone(), tensor: name.into() })
    }
}
