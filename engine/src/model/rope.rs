//! Rotary embedding: which angle each pair of dimensions turns by, for the scalings that checkpoints ask for.

use std::{f64::consts::TAU, sync::Arc};

use super::fields::{ConfigError, Fields};

#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    /// Number of leading dimensions of a head that are rotated.
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
    /// What cosines and sines are multiplied by: 1 except for yarn.
    pub attention_factor: f32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    Default,
    /// Positions are divided by `factor` (Chen et al., "Extending context window of large language models via positional interpolation").
    Linear {
        factor: f64,
    },
    /// Long wavelengths are stretched by `factor`, short ones kept, those between interpolated (Llama 3.1).
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: f64,
    },
    /// Peng et al., "YaRN: efficient context window extension of large language models": dimensions that turn often are left alone, those
    /// that turn seldom are stretched by `factor`.
    Yarn {
        factor: f64,
        extrapolated: YarnRange,
    },
    /// Each frequency is divided by its own factor: what a GGUF file has of a Llama 3.1.
    Factors(Arc<[f64]>),
}

impl RopeConfig {
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before). The second is that of layers with a sliding
    /// window, where the config gives them one of their own.
    pub(super) fn read(config: &Fields, head_dim: usize) -> Result<(Self, Option<Self>), ConfigError> {
        let new = config.object("rope_parameters")?;
        let of_layers = |kind| new.as_ref().map_or(Ok(None), |parameters| parameters.object(kind));
        if let Some(global) = of_layers("full_attention")? {
            let local = of_layers("sliding_attention")?.map(|local| Self::of(&local, config, head_dim)).transpose()?;
            return Ok((Self::of(&global, config, head_dim)?, local));
        }
        if let Some(new) = new {
            return Ok((Self::of(&new, config, head_dim)?, None));
        }
        let theta = config.optional_positive("rope_theta")?.unwrap_or(10_000.0);
        let rotary_dim = rotary_dim(config, config, head_dim)?;
        let plain = Self { theta, rotary_dim, scaling: RopeScaling::Default, attention_factor: 1.0 };
        let global = match config.object("rope_scaling")? {
            Some(scaling) => plain.clone().scaled(&scaling, config)?,
            None => plain.clone(),
        };
        let local = config.optional_positive("rope_local_base_freq")?;
        Ok((global, local.map(|theta| Self { theta, ..plain })))
    }

    /// From an object in the new form.
    fn of(parameters: &Fields, config: &Fields, head_dim: usize) -> Result<Self, ConfigError> {
        let (theta, rotary_dim) = (parameters.positive("rope_theta")?, rotary_dim(parameters, config, head_dim)?);
        Self { theta, rotary_dim, scaling: RopeScaling::Default, attention_factor: 1.0 }.scaled(parameters, config)
    }

    fn scaled(self, fields: &Fields, config: &Fields) -> Result<Self, ConfigError> {
        let scaling = RopeScaling::read(fields, config)?;
        let attention_factor = match &scaling {
            RopeScaling::Yarn { factor, .. } => yarn_attention_factor(fields, *factor)? as f32,
            RopeScaling::Factors(factors) if factors.len() != self.rotary_dim / 2 => {
                let reason = format!("has {} entries for {} frequencies", factors.len(), self.rotary_dim / 2);
                return Err(fields.error("factors", reason));
            }
            _ => 1.0,
        };
        Ok(Self { scaling, attention_factor, ..self })
    }

    /// `rotary_dim / 2` angles per position.
    pub fn inv_freq(&self) -> Vec<f32> {
        let frequency = |i: usize| self.theta.powf(-((2 * i) as f64) / self.rotary_dim as f64);
        let scaled = |i: usize| match &self.scaling {
            RopeScaling::Factors(factors) => frequency(i) / factors[i],
            RopeScaling::Yarn { factor, extrapolated, .. } => {
                let [low, high] = extrapolated.dims(self.theta, self.rotary_dim);
                let interpolated = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency(i) * (interpolated / factor + (1.0 - interpolated))
            }
            scaling => scaling.scale(frequency(i)),
        };
        (0..self.rotary_dim / 2).map(|i| scaled(i) as f32).collect()
    }

    /// The context that a yarn of the config's factor stretches the original one to; 0 without.
    pub(super) fn stretched_positions(&self) -> usize {
        match &self.scaling {
            RopeScaling::Yarn { factor, extrapolated, .. } => (factor * extrapolated.original_max_position_embeddings) as usize,
            _ => 0,
        }
    }
}

fn rotary_dim(parameters: &Fields, config: &Fields, head_dim: usize) -> Result<usize, ConfigError> {
    let has_own = matches!(parameters.optional::<f64>("partial_rotary_factor"), Ok(Some(_)));
    let holder = if has_own { parameters } else { config };
    let partial = holder.optional::<f64>("partial_rotary_factor")?.unwrap_or(1.0);
    let rotary_dim = (head_dim as f64 * partial) as usize;
    if !(0.0..=1.0).contains(&partial) || rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
        let reason = format!("is {partial}, which does not leave an even number of {head_dim} dimensions");
        return Err(holder.error("partial_rotary_factor", reason));
    }
    Ok(rotary_dim)
}

/// As transformers derives it: `attention_factor`, or from `mscale` and `mscale_all_dim`, or from the factor alone.
fn yarn_attention_factor(fields: &Fields, factor: f64) -> Result<f64, ConfigError> {
    if let Some(given) = fields.optional_positive("attention_factor")? {
        return Ok(given);
    }
    let of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    match (fields.optional::<f64>("mscale")?, fields.optional::<f64>("mscale_all_dim")?) {
        (Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => Ok(of(mscale) / of(all)),
        _ => Ok(of(1.0)),
    }
}

/// Which dimensions yarn leaves alone (below the first bound) and which it interpolates fully (above the second).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnRange {
    /// Turns over the original context from which on a dimension is left alone.
    pub beta_fast: f64,
    /// Turns up to which it is interpolated.
    pub beta_slow: f64,
    pub original_max_position_embeddings: f64,
    /// Whether the bounds are whole dimensions.
    pub truncate: bool,
}

impl YarnRange {
    fn dims(&self, theta: f64, rotary_dim: usize) -> [f64; 2] {
        let dim = |turns: f64| rotary_dim as f64 * (self.original_max_position_embeddings / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (low, high) = (dim(self.beta_fast), dim(self.beta_slow));
        let (low, high) = if self.truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(rotary_dim as f64 - 1.0));
        [low, if low == high { high + 0.001 } else { high }]
    }
}

impl RopeScaling {
    fn read(fields: &Fields, config: &Fields) -> Result<Self, ConfigError> {
        let original = || match fields.optional_positive("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => config.count("max_position_embeddings").map(|positions| positions as f64),
        };
        // "type" is how transformers before 4.43 spelt it.
        let kind = match fields.optional::<String>("rope_type")? {
            Some(kind) => kind,
            None => fields.optional("type")?.unwrap_or_else(|| "default".into()),
        };
        match kind.as_str() {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: fields.positive("factor")? }),
            "llama3" => {
                let (low_freq_factor, high_freq_factor) = (fields.positive("low_freq_factor")?, fields.positive("high_freq_factor")?);
                if low_freq_factor >= high_freq_factor {
                    return Err(fields
                        .error("high_freq_factor", format!("is {high_freq_factor} but must be above low_freq_factor, {low_freq_factor}")));
                }
                let original_max_position_embeddings = original()?;
                Ok(Self::Llama3 { factor: fields.positive("factor")?, low_freq_factor, high_freq_factor, original_max_position_embeddings })
            }
            "yarn" => {
                let original_max_position_embeddings = original()?;
                let factor = match fields.optional_positive("factor")? {
                    Some(factor) => factor,
                    None => config.count("max_position_embeddings")? as f64 / original_max_position_embeddings,
                };
                let extrapolated = YarnRange {
                    beta_fast: fields.optional_positive("beta_fast")?.unwrap_or(32.0),
                    beta_slow: fields.optional_positive("beta_slow")?.unwrap_or(1.0),
                    original_max_position_embeddings,
                    truncate: fields.optional("truncate")?.unwrap_or(true),
                };
                Ok(Self::Yarn { factor, extrapolated })
            }
            "factors" => {
                let factors: Vec<f64> = fields.required("factors")?;
                match factors.iter().find(|factor| !(**factor > 0.0 && factor.is_finite())) {
                    Some(factor) => Err(fields.error("factors", format!("has {factor}; factors must be above 0"))),
                    None => Ok(Self::Factors(factors.into())),
                }
            }
            other => Err(fields.error("rope_type", format!("is \"{other}\"; known are default, linear, llama3 and yarn"))),
        }
    }

    fn scale(&self, frequency: f64) -> f64 {
        match *self {
            Self::Default | Self::Yarn { .. } | Self::Factors(_) => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let turns = original_max_position_embeddings * frequency / TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RopeConfig, String> {
        RopeConfig::read(&Fields::parse("config.json", json.as_bytes()).unwrap(), 64).map(|(global, _)| global).map_err(|e| e.to_string())
    }

    #[test]
    fn old_and_new_form_say_the_same() {
        let llama3 = r#""factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192"#;
        let new = read(&format!(r#"{{"rope_parameters":{{"rope_type":"llama3","rope_theta":5e5,{llama3}}}}}"#)).unwrap();
        let old = read(&format!(r#"{{"rope_theta":5e5,"rope_scaling":{{"rope_type":"llama3",{llama3}}}}}"#)).unwrap();
        assert_eq!(new, old);
        assert!(matches!(new.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
        assert_eq!(
            read(r#"{"rope_theta":1e6,"rope_scaling":null}"#),
            read(r#"{"rope_parameters":{"rope_theta":1000000,"rope_type":"default"}}"#)
        );
        assert_eq!(read("{}").unwrap().theta, 10_000.0);
        assert_eq!(read(r#"{"rope_scaling":{"type":"linear","factor":2}}"#).unwrap().scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!(read(r#"{"partial_rotary_factor":0.5}"#).unwrap().rotary_dim, 32);
    }

    #[test]
    fn refusals_name_the_field() {
        assert_eq!(
            read(r#"{"rope_parameters":{"rope_theta":1e4,"rope_type":"longrope"}}"#).unwrap_err(),
            "config.json: field \"rope_parameters.rope_type\" is \"longrope\"; known are default, linear, llama3 and yarn"
        );
        assert_eq!(read(r#"{"rope_scaling":{"type":"linear"}}"#).unwrap_err(), "config.json: field \"rope_scaling.factor\" is missing");
        assert_eq!(
            read(r#"{"rope_parameters":{"rope_type":"default"}}"#).unwrap_err(),
            "config.json: field \"rope_parameters.rope_theta\" is missing"
        );
        assert_eq!(read(r#"{"rope_theta":-1}"#).unwrap_err(), "config.json: field \"rope_theta\" is -1 but must be above 0");
        assert!(read(r#"{"partial_rotary_factor":0.01}"#).unwrap_err().contains("partial_rotary_factor"));
    }

    #[test]
    fn layers_may_have_bases_of_their_own() {
        let both = |json: &str| RopeConfig::read(&Fields::parse("config.json", json.as_bytes()).unwrap(), 64).unwrap();
        let linear = r#""rope_type":"linear","factor":8.0"#;
        let new = both(&format!(
            r#"{{"rope_parameters":{{"full_attention":{{"rope_theta":1e6,{linear}}},"sliding_attention":{{"rope_theta":1e4,"rope_type":"default"}}}}}}"#
        ));
        let old = both(&format!(r#"{{"rope_theta":1e6,"rope_local_base_freq":1e4,"rope_scaling":{{{linear}}}}}"#));
        assert_eq!(new, old);
        assert_eq!(new.0.scaling, RopeScaling::Linear { factor: 8.0 });
        assert_eq!(new.1.map(|local| (local.theta, local.scaling)), Some((1e4, RopeScaling::Default)));
    }

    #[test]
    fn yarns_attention_factor_is_given_or_derived() {
        let factor = |fields: &str| {
            let json = format!(r#"{{"max_position_embeddings":4096,"rope_scaling":{{"rope_type":"yarn",{fields}}}}}"#);
            read(&json).unwrap().attention_factor
        };
        assert_eq!(factor(r#""factor":4.0"#), 1.138_629_4);
        assert_eq!(factor(r#""factor":4.0,"attention_factor":1.5"#), 1.5);
        assert_eq!(factor(r#""factor":4.0,"mscale":0.5,"mscale_all_dim":1.0"#), 1.069_314_7 / 1.138_629_4);
        assert_eq!(factor(r#""factor":4.0,"mscale":0.5"#), 1.138_629_4);
        assert_eq!(factor(r#""original_max_position_embeddings":1024"#), 1.138_629_4);
        assert_eq!(factor(r#""factor":0.5"#), 1.0);
    }

    #[test]
    fn yarn_keeps_short_waves_and_stretches_long_ones() {
        let yarn = |extra: &str| {
            read(&format!(
                r#"{{"rope_theta":1e6,"rope_scaling":{{"type":"yarn","factor":4,"original_max_position_embeddings":32768{extra}}}}}"#
            ))
            .unwrap()
        };
        let (plain, scaled) = (read(r#"{"rope_theta":1e6}"#).unwrap().inv_freq(), yarn("").inv_freq());
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[31] - plain[31] / 4.0).abs() < 1e-12);
        assert!(scaled.windows(2).all(|w| w[0] > w[1]));
        assert_ne!(scaled, yarn(r#","truncate":false"#).inv_freq());
        assert_eq!(yarn("").stretched_positions(), 131_072);
    }

    #[test]
    fn factors_divide_frequencies() {
        let factors = |list: &str| read(&format!(r#"{{"rope_scaling":{{"rope_type":"factors","factors":{list}}}}}"#));
        let ramp = serde_json::to_string(&(1..=32).collect::<Vec<_>>()).unwrap();
        let (scaled, plain) = (factors(&ramp).unwrap().inv_freq(), read("{}").unwrap().inv_freq());
        assert!((0..32).all(|i| (scaled[i] - plain[i] / (i + 1) as f32).abs() < 1e-7));
        assert!(factors("[1]").unwrap_err().ends_with("field \"rope_scaling.factors\" has 1 entries for 32 frequencies"));
        assert!(factors("[0]").unwrap_err().ends_with("has 0; factors must be above 0"));
    }

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let rope = RopeConfig {
            theta: 5e5,
            rotary_dim: 128,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192.0,
            },
            attention_factor: 1.0,
        };
        let plain = RopeConfig { scaling: RopeScaling::Default, ..rope }.inv_freq();
        let scaled = rope.inv_freq();
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[63] - plain[63] / 8.0).abs() < 1e-12);
        assert!(scaled.windows(2).all(|w| w[0] > w[1]));
    }
}
