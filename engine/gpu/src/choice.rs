//! Which card is asked for: "auto", "cuda", "cuda:1", "rocm:0".

use std::{fmt, str::FromStr};

use crate::GpuError;

/// A card as people name it; ordinals count the cards that are visible to this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first card of NVIDIA's, else of AMD's.
    #[default]
    Auto,
    Cuda(Option<usize>),
    Rocm(Option<usize>),
}

impl FromStr for DeviceChoice {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let wrong = || GpuError::Unavailable(format!("device `{text}`: expected auto, cuda, cuda:N, rocm or rocm:N"));
        let (name, ordinal) = match text.split_once(':') {
            Some((name, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => (name, Some(digits.parse().map_err(|_| wrong())?)),
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        match (name, ordinal) {
            ("auto", None) => Ok(Self::Auto),
            ("cuda", _) => Ok(Self::Cuda(ordinal)),
            ("rocm", _) => Ok(Self::Rocm(ordinal)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (name, ordinal) = match self {
            Self::Auto => ("auto", &None),
            Self::Cuda(ordinal) => ("cuda", ordinal),
            Self::Rocm(ordinal) => ("rocm", ordinal),
        };
        f.write_str(name)?;
        ordinal.map_or(Ok(()), |n| write!(f, ":{n}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_read_and_written() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cuda", DeviceChoice::Cuda(None)),
            ("cuda:1", DeviceChoice::Cuda(Some(1))),
            ("rocm", DeviceChoice::Rocm(None)),
            ("rocm:0", DeviceChoice::Rocm(Some(0))),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "gpu", "auto:0", "cuda:", "cuda:-1", "cuda:+1", "cuda:1:2", "CUDA", "cuda:99999999999999999999"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("cuda:N"), "{error}");
        }
    }
}
