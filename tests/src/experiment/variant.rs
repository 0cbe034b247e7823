//! What runs are compared by: a mode of pacing and, where laws are compared, the law.

use super::Mode;

/// One way of pacing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub mode: Mode,
    /// As `--pacing-law` says; `None` is the engine's own.
    pub law: Option<String>,
}

impl Variant {
    /// The modes, with `per-connection` once for each law; the first law stands under the mode's plain name.
    pub fn all(modes: &[Mode], laws: &[String]) -> Vec<Self> {
        let of_mode = |&mode: &Mode| {
            let laws = if mode == Mode::PerConnection { laws.iter().map(|law| Some(law.clone())).collect() } else { Vec::new() };
            let laws = if laws.is_empty() { vec![None] } else { laws };
            laws.into_iter().map(move |law| Self { mode, law })
        };
        modes.iter().flat_map(of_mode).collect()
    }
}

/// Their names in files and tables: the mode's, and the law's for all but the first of a mode.
pub fn names(variants: &[Variant]) -> Vec<String> {
    let name = |(index, variant): (usize, &Variant)| {
        let first = variants[..index].iter().all(|other| other.mode != variant.mode);
        match &variant.law {
            Some(law) if !first => format!("{}-{law}", variant.mode.name()),
            _ => variant.mode.name().to_owned(),
        }
    };
    variants.iter().enumerate().map(name).collect()
}

/// The order of a round: rotated, so that none is always the first on a machine that has just been resting.
pub fn order(variants: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..variants).map(move |place| (place + round) % variants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_are_compared_where_they_pace() {
        let variants = Variant::all(&Mode::ALL, &["window".to_owned(), "aimd".to_owned()]);
        assert_eq!(names(&variants), ["off", "global", "per-connection", "per-connection-aimd"]);
        assert_eq!(names(&Variant::all(&[Mode::PerConnection], &[])), ["per-connection"]);
    }

    #[test]
    fn every_round_has_every_variant_and_begins_with_another() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|round| order(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }
}
