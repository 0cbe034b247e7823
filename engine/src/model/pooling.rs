//! Which models embed text instead of continuing it: those in whose folder sentence-transformers left `modules.json`.

use std::path::Path;

use serde::Deserialize;

use super::fields::{ConfigError, Fields};

/// How an embedding model's output becomes one vector: it is the final state of the last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolingConfig {
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
}

/// What a model that generates is made to do when it is asked to embed.
impl Default for PoolingConfig {
    fn default() -> Self {
        Self { normalize: true }
    }
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

impl PoolingConfig {
    /// Reads `modules.json` and the pooling module's own config; `None` where the folder has none.
    ///
    /// # Errors
    /// When a file is malformed, or the model pools other than by its last token.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, ConfigError> {
        let path = folder.join("modules.json");
        if !path.exists() {
            return Ok(None);
        }
        let file = path.display().to_string();
        let text = std::fs::read(&path).map_err(|e| ConfigError::Io { path, reason: e.to_string() })?;
        let modules: Vec<Module> = serde_json::from_slice(&text).map_err(|e| ConfigError::Field {
            file: file.clone(),
            field: "type".into(),
            reason: format!("is malformed: {e}"),
        })?;
        let Some(pooling) = modules.iter().find(|module| module.r#type.ends_with(".Pooling")) else { return Ok(None) };
        // A name from outside must not lead out of the folder.
        if !Path::new(&pooling.path).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(ConfigError::Field { file, field: "path".into(), reason: format!("is \"{}\", not a folder's name", pooling.path) });
        }
        Self::read(&Fields::open(&folder.join(&pooling.path).join("config.json"))?)?;
        Ok(Some(Self { normalize: modules.iter().any(|module| module.r#type.ends_with(".Normalize")) }))
    }

    fn read(fields: &Fields) -> Result<(), ConfigError> {
        const LAST_TOKEN: &str = "pooling_mode_lasttoken";
        for mode in ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens"] {
            let field = format!("pooling_mode_{mode}");
            if fields.flag(&field)? {
                return Err(fields.error(&field, format!("is true, which is not supported; {LAST_TOKEN} is")));
            }
        }
        if fields.flag(LAST_TOKEN)? || fields.optional::<String>("pooling_mode")?.as_deref() == Some("lasttoken") {
            return Ok(());
        }
        Err(fields.error(LAST_TOKEN, "is not true, and no other pooling is supported"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MODULES: &str = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

    fn open(modules: &str, pooling: &str) -> Result<Option<PoolingConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        fs::write(folder.path().join("modules.json"), modules).unwrap();
        fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
        PoolingConfig::open(folder.path()).map_err(|e| e.to_string().replace(&folder.path().display().to_string(), "DIR"))
    }

    #[test]
    fn the_last_token_is_taken_and_normalized_where_a_module_says_so() {
        let last = r#"{"word_embedding_dimension": 1024, "pooling_mode_cls_token": false, "pooling_mode_lasttoken": true}"#;
        assert_eq!(open(MODULES, last), Ok(Some(PoolingConfig { normalize: true })));
        assert_eq!(open(&MODULES.replace("models.Normalize", "models.Dense"), last), Ok(Some(PoolingConfig { normalize: false })));
        assert_eq!(open(MODULES, r#"{"pooling_mode": "lasttoken"}"#), Ok(Some(PoolingConfig { normalize: true })));
        assert_eq!(open("[]", last), Ok(None));
        assert_eq!(PoolingConfig::open(Path::new("/nonexistent")).unwrap(), None);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(
            open(MODULES, r#"{"pooling_mode_mean_tokens": true}"#).unwrap_err(),
            "DIR/1_Pooling/config.json: field \"pooling_mode_mean_tokens\" is true, which is not supported; pooling_mode_lasttoken is"
        );
        assert!(open(MODULES, "{}").unwrap_err().contains("pooling_mode_lasttoken"));
        assert!(open("{}", "{}").unwrap_err().starts_with("DIR/modules.json: field \"type\" is malformed: invalid type: map"));
        assert!(open(&MODULES.replace("1_Pooling", "../x"), "{}").unwrap_err().contains("not a folder's name"));
    }
}
