//! GBNF, the notation of llama.cpp and XGrammar (`root ::= "a" [0-9]+`), rewritten as Lark.

use std::collections::HashMap;

use super::{error::GrammarError, lark};

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    /// `::=`
    Defines,
    Literal(String),
    /// What stands between `[` and `]`.
    Class(String),
    Any,
    /// An operator or a bracket that both notations share, or a repetition such as `{1,3}`.
    Same(String),
}

/// Whether a grammar is in this notation rather than in Lark.
pub(super) fn is_gbnf(grammar: &str) -> bool {
    grammar.contains("::=")
}

/// # Errors
/// When the grammar is malformed, has no rule `root` or names a rule that it does not have.
pub(super) fn to_lark(grammar: &str) -> Result<String, GrammarError> {
    let tokens = tokens(grammar)?;
    let starts_rule = |i: usize| matches!((&tokens[i], tokens.get(i + 1)), (Token::Name(_), Some(Token::Defines)));
    let mut rules: HashMap<&str, String> = HashMap::new();
    for (i, token) in tokens.iter().enumerate() {
        if let (Token::Name(name), true) = (token, starts_rule(i)) {
            let renamed = if name == "root" { "start".to_owned() } else { format!("rule_{i}") };
            if rules.insert(name, renamed).is_some() {
                return invalid(format!("the rule {name} is defined twice"));
            }
        }
    }
    if !rules.contains_key("root") {
        return invalid("a grammar in GBNF needs a rule named root".to_owned());
    }
    let mut lark = String::new();
    for (i, token) in tokens.iter().enumerate() {
        let text = match token {
            Token::Name(name) => {
                let Some(rule) = rules.get(name.as_str()) else { return invalid(format!("there is no rule named {name}")) };
                if starts_rule(i) { format!("\n{rule}") } else { rule.clone() }
            }
            Token::Defines if i > 0 && starts_rule(i - 1) => ":".to_owned(),
            Token::Defines => return invalid("`::=` must follow a rule's name".to_owned()),
            Token::Literal(text) => lark::literal(text),
            Token::Class(class) => lark::regex(&format!("[{}]", escaped_class(class))),
            Token::Any => r"/(.|\n)/".to_owned(),
            Token::Same(text) => text.clone(),
        };
        // Postfix operators must follow what they repeat.
        if !matches!(token, Token::Same(op) if op.starts_with(['*', '+', '?', '{'])) {
            lark.push(' ');
        }
        lark += &text;
    }
    Ok(lark.trim_start().to_owned())
}

fn invalid<T>(message: String) -> Result<T, GrammarError> {
    Err(GrammarError::Invalid(message))
}

/// Characters that mean more within the brackets of a regular expression than they do here.
fn escaped_class(class: &str) -> String {
    let mut escaped = String::new();
    let mut after_backslash = false;
    for c in class.chars() {
        if matches!(c, '[' | '&' | '~') && !after_backslash {
            escaped.push('\\');
        }
        after_backslash = c == '\\' && !after_backslash;
        escaped.push(c);
    }
    escaped
}

fn tokens(grammar: &str) -> Result<Vec<Token>, GrammarError> {
    let mut tokens = Vec::new();
    let mut rest = grammar;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            c if c.is_whitespace() => c.len_utf8(),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            ':' if rest.starts_with("::=") => {
                tokens.push(Token::Defines);
                3
            }
            '"' => {
                let (text, length) = literal(rest)?;
                tokens.push(Token::Literal(text));
                length
            }
            '[' => {
                let Some(end) = closing(rest, ']') else { return invalid("a `[` is not closed".to_owned()) };
                tokens.push(Token::Class(rest[1..end].to_owned()));
                end + 1
            }
            '{' => {
                let Some(end) = rest.find('}') else { return invalid("a `{` is not closed".to_owned()) };
                let bounds = &rest[1..end];
                if bounds.is_empty() || !bounds.chars().all(|c| c.is_ascii_digit() || c == ',' || c == ' ') {
                    return invalid(format!("`{{{bounds}}}` is not a number of repetitions"));
                }
                tokens.push(Token::Same(rest[..=end].replace(' ', "")));
                end + 1
            }
            '.' => {
                tokens.push(Token::Any);
                1
            }
            '|' | '(' | ')' | '*' | '+' | '?' => {
                tokens.push(Token::Same(c.to_string()));
                1
            }
            c if is_name(c) => {
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                tokens.push(Token::Name(rest[..length].to_owned()));
                length
            }
            c => return invalid(format!("`{c}` means nothing in GBNF")),
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Where the first unescaped `end` after the first character stands.
fn closing(text: &str, end: char) -> Option<usize> {
    let mut after_backslash = false;
    text.char_indices().skip(1).find_map(|(i, c)| {
        if c == end && !after_backslash {
            return Some(i);
        }
        after_backslash = c == '\\' && !after_backslash;
        None
    })
}

/// The text of the literal that `rest` begins with, and the literal's length.
fn literal(rest: &str) -> Result<(String, usize), GrammarError> {
    let Some(end) = closing(rest, '"') else { return invalid("a `\"` is not closed".to_owned()) };
    let mut text = String::new();
    let mut chars = rest[1..end].chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        let escape = chars.next().unwrap_or('\\');
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let decoded = if digits > 0 {
            let hex: String = chars.by_ref().take(digits).collect();
            u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits).and_then(char::from_u32)
        } else {
            Some(match escape {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            })
        };
        let Some(decoded) = decoded else { return invalid(format!("`\\{escape}` is not followed by {digits} digits of a character")) };
        text.push(decoded);
    }
    Ok((text, end + 1))
}
