//! Rotary embedding: which angle each pair of dimensions turns by, for the scalings that checkpoints ask for.

use std::f64::consts::TAU;

use super::fields::{ConfigError, Fields};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    /// Number of leading dimensions of a head that are rotated.
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
}

#[derive(Clone, Copy, Debug, PartialEq)]
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
}

impl RopeConfig {
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).
    pub(super) fn read(config: &Fields, head_dim: usize) -> Result<Self, ConfigError> {
        let new = config.object("rope_parameters")?;
        let (theta, scaling) = match &new {
            Some(parameters) => (parameters.positive("rope_theta")?, Some(parameters)),
            None => (if config.optional::<f64>("rope_theta")?.is_some() { config.positive("rope_theta")? } else { 10_000.0 }, None),
        };
        let old = if new.is_none() { config.object("rope_scaling")? } else { None };
        let scaling = scaling.or(old.as_ref());

        let holder = new.as_ref().filter(|n| matches!(n.optional::<f64>("partial_rotary_factor"), Ok(Some(_)))).unwrap_or(config);
        let partial = holder.optional::<f64>("partial_rotary_factor")?.unwrap_or(1.0);
        let rotary_dim = (head_dim as f64 * partial) as usize;
        if !(0.0..=1.0).contains(&partial) || rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            return Err(holder
                .error("partial_rotary_factor", format!("is {partial}, which does not leave an even number of {head_dim} dimensions")));
        }
        Ok(Self { theta, rotary_dim, scaling: scaling.map_or(Ok(RopeScaling::Default), RopeScaling::read)? })
    }

    /// `rotary_dim / 2` angles per position.
    pub fn inv_freq(&self) -> Vec<f32> {
        let frequency = |i: usize| self.theta.powf(-((2 * i) as f64) / self.rotary_dim as f64);
        (0..self.rotary_dim / 2).map(|i| self.scaling.scale(frequency(i)) as f32).collect()
    }
}

impl RopeScaling {
    fn read(fields: &Fields) -> Result<Self, ConfigError> {
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
                let original_max_position_embeddings = fields.positive("original_max_position_embeddings")?;
                Ok(Self::Llama3 { factor: fields.positive("factor")?, low_freq_factor, high_freq_factor, original_max_position_embeddings })
            }
            other => Err(fields.error("rope_type", format!("is \"{other}\"; known are default, linear and llama3"))),
        }
    }

    fn scale(&self, frequency: f64) -> f64 {
        match *self {
            Self::Default => frequency,
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
        RopeConfig::read(&Fields::parse("config.json", json.as_bytes()).unwrap(), 64).map_err(|e| e.to_string())
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
            read(r#"{"rope_parameters":{"rope_theta":1e4,"rope_type":"yarn"}}"#).unwrap_err(),
            "config.json: field \"rope_parameters.rope_type\" is \"yarn\"; known are default, linear and llama3"
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
        };
        let plain = RopeConfig { scaling: RopeScaling::Default, ..rope }.inv_freq();
        let scaled = rope.inv_freq();
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[63] - plain[63] / 8.0).abs() < 1e-12);
        assert!(scaled.windows(2).all(|w| w[0] > w[1]));
    }
}
