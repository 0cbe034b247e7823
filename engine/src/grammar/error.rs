/// Longest message that is passed on.
const MAX_CHARS: usize = 300;

/// Why a constraint cannot be compiled: the request's fault, in one sentence's worth of words without a subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    #[error("{0}")]
    Invalid(String),
    #[error("it has {size} bytes, at most {max} are taken")]
    TooLarge { size: usize, max: usize },
    #[error("it nests objects and arrays more than {max} levels deep")]
    TooDeep { max: usize },
    #[error("it offers no choice")]
    NoChoice,
    #[error("the model has no end-of-sequence token to end constrained output with")]
    NoEndOfSequence,
}

/// Why a sequence cannot follow its grammar any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's grammar cannot be followed: {0}")]
pub struct MatchError(pub(super) String);

/// What the grammar library says, in one line: the first, without its place in the Lark that users have not seen, and the cause that a
/// regular expression's parser writes below.
pub(super) fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("it is not valid");
    let first = match first.strip_prefix("at ").and_then(|rest| rest.split_once(": ")) {
        Some((place, rest)) if place.ends_with(')') => rest,
        _ => first,
    };
    let first = first.trim_end_matches(['.', ':']);
    let line = match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(cause) => format!("{first}: {cause}"),
        None => first.to_owned(),
    };
    line.chars().take(MAX_CHARS).collect()
}
