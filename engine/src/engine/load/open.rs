//! Where a model's configuration, weights and tokenizer come from.

use std::path::{Path, PathBuf};

use super::LoadError;
use crate::{
    cli::RunnerArg,
    config::{EngineConfig, ModelSource},
    model::ModelConfig,
    tokenizer::Tokenizer,
    weights::{
        Checkpoint, Gguf,
        hub::{self, HubError, HubModel, HubSettings},
    },
};

/// Files of the model inside the binary.
mod demo {
    pub(super) const CONFIG: &[u8] = include_bytes!("../../../demo-model/config.json");
    pub(super) const GENERATION_CONFIG: &[u8] = include_bytes!("../../../demo-model/generation_config.json");
    pub(super) const WEIGHTS: &[u8] = include_bytes!("../../../demo-model/model.safetensors");
    pub(super) const TOKENIZER: &[u8] = include_bytes!("../../../demo-model/tokenizer.json");
    pub(super) const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../../demo-model/tokenizer_config.json");
}

/// A model whose files were found; its weights are mapped and not yet read.
pub(super) struct Opened {
    pub(super) config: ModelConfig,
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer: Tokenizer,
}

impl Opened {
    /// What `config` names, as it wants it used.
    pub(super) fn new(config: &EngineConfig) -> Result<Self, LoadError> {
        let mut opened = match &config.model {
            ModelSource::Path(path) => Self::path(path)?,
            ModelSource::Hub { model, cache } => Self::path(&fetch(model, cache.as_ref())?)?,
            ModelSource::Demo => Self::demo()?,
        };
        let pooling = &mut opened.config.pooling;
        match config.runner {
            RunnerArg::Auto => {}
            RunnerArg::Generate => *pooling = None,
            RunnerArg::Pooling => *pooling = Some(pooling.unwrap_or_default()),
        }
        if let Some(template) = &config.chat_template {
            set_chat_template(&mut opened.tokenizer, template)?;
        }
        Ok(opened)
    }

    /// A folder, or a GGUF file.
    fn path(path: &Path) -> Result<Self, LoadError> {
        let gguf = if path.is_file() { Some(path.to_owned()) } else { Gguf::in_folder(path)? };
        let Some(gguf) = gguf else {
            let (config, checkpoint) = (ModelConfig::open(path)?, Checkpoint::open(path)?);
            return Ok(Self { config, checkpoint, tokenizer: Tokenizer::from_dir(path)? });
        };
        let Gguf { file, checkpoint, config, tokenizer, tokenizer_config } = Gguf::open(&gguf)?;
        let tokenizer = Tokenizer::from_gguf(&tokenizer, &tokenizer_config, &file)?;
        Ok(Self { config: ModelConfig::from_gguf(&config, &file)?, checkpoint, tokenizer })
    }

    fn demo() -> Result<Self, LoadError> {
        Ok(Self {
            config: ModelConfig::parse(demo::CONFIG, Some(demo::GENERATION_CONFIG))?,
            checkpoint: Checkpoint::embedded("the demo model", demo::WEIGHTS)?,
            tokenizer: Tokenizer::from_bytes(demo::TOKENIZER, Some(demo::TOKENIZER_CONFIG), None)?,
        })
    }

    /// The context length that is asked for, or else the model's.
    pub(super) fn longest(&self, config: &EngineConfig) -> Result<usize, LoadError> {
        let limit = self.config.max_position_embeddings;
        match config.max_model_len {
            Some(asked) if asked > limit => Err(LoadError::MaxModelLen { asked, limit }),
            asked => Ok(asked.unwrap_or(limit)),
        }
    }
}

fn fetch(model: &HubModel, cache: Option<&PathBuf>) -> Result<PathBuf, HubError> {
    let settings = HubSettings::from_environment();
    hub::fetch(model, &HubSettings { cache: cache.cloned().unwrap_or(settings.cache), ..settings })
}

/// Puts another chat template in the model's place: a file, or the template itself.
fn set_chat_template(tokenizer: &mut Tokenizer, template: &str) -> Result<(), LoadError> {
    let is_inline = template.contains("{{") || template.contains("{%");
    if is_inline {
        tokenizer.set_chat_template(template, "--chat-template")?;
    } else {
        let read = std::fs::read_to_string(template);
        let source = read.map_err(|reason| LoadError::ChatTemplate { path: template.to_owned(), reason })?;
        tokenizer.set_chat_template(&source, template)?;
    }
    Ok(())
}
