//! Follows one JSON object or list character by character (RFC 8259), so that text can be passed on as soon as it is known to belong to it.

/// What one more character did to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It belongs to the value, which goes on.
    Inside,
    /// It was the value's last.
    End,
    /// No JSON goes on like this; the character was not taken.
    Bad,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Value,
    /// A value or the end of the list.
    FirstElement,
    Key,
    /// A key or the end of the object.
    FirstKey,
    Colon,
    /// A comma or the end of what the value is in.
    AfterValue,
    String {
        is_key: bool,
    },
    Escape {
        is_key: bool,
    },
    Hex {
        is_key: bool,
        left: u8,
    },
    Literal(&'static str),
    Number(Number),
}

/// The part of a number that was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    fn next(self, c: char) -> Option<Self> {
        use Number::*;
        match (self, c) {
            (Minus, '0') => Some(Zero),
            (Minus, '1'..='9') | (Integer, '0'..='9') => Some(Integer),
            (Zero | Integer, '.') => Some(Point),
            (Point | Fraction, '0'..='9') => Some(Fraction),
            (Zero | Integer | Fraction, 'e' | 'E') => Some(Exponent),
            (Exponent, '+' | '-') => Some(ExponentSign),
            (Exponent | ExponentSign | ExponentDigits, '0'..='9') => Some(ExponentDigits),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }
}

/// The state after some characters of an object or a list.
#[derive(Debug)]
pub(super) struct JsonScanner {
    /// The brackets that are open.
    open: Vec<char>,
    state: State,
}

impl JsonScanner {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), state: State::Value }
    }

    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Takes one character. A value that is neither object nor list is bad at the outermost level, where its end could not be told.
    pub(super) fn push(&mut self, c: char) -> Step {
        match self.next(c) {
            Some(state) => self.state = state,
            None => return Step::Bad,
        }
        if self.open.is_empty() { Step::End } else { Step::Inside }
    }

    fn next(&mut self, c: char) -> Option<State> {
        use State::*;
        let is_space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.state {
            String { is_key } => match c {
                '"' => Some(if is_key { Colon } else { AfterValue }),
                '\\' => Some(Escape { is_key }),
                '\0'..='\x1f' => None,
                _ => Some(self.state),
            },
            Escape { is_key } => match c {
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => Some(String { is_key }),
                'u' => Some(Hex { is_key, left: 4 }),
                _ => None,
            },
            Hex { is_key, left } if c.is_ascii_hexdigit() => {
                Some(if left == 1 { String { is_key } } else { Hex { is_key, left: left - 1 } })
            }
            Hex { .. } => None,
            Literal(rest) => match rest.strip_prefix(c)? {
                "" => Some(AfterValue),
                rest => Some(Literal(rest)),
            },
            Number(number) => match number.next(c) {
                Some(number) => Some(Number(number)),
                None if number.may_end() => {
                    self.state = AfterValue;
                    self.next(c)
                }
                None => None,
            },
            state if is_space => (!self.open.is_empty()).then_some(state),
            Value | FirstElement => match c {
                '{' => {
                    self.open.push(c);
                    Some(FirstKey)
                }
                '[' => {
                    self.open.push(c);
                    Some(FirstElement)
                }
                ']' if self.state == FirstElement => self.close('['),
                _ if self.open.is_empty() => None,
                '"' => Some(String { is_key: false }),
                't' => Some(Literal("rue")),
                'f' => Some(Literal("alse")),
                'n' => Some(Literal("ull")),
                '-' => Some(Number(self::Number::Minus)),
                '0' => Some(Number(self::Number::Zero)),
                '1'..='9' => Some(Number(self::Number::Integer)),
                _ => None,
            },
            Key | FirstKey => match c {
                '"' => Some(String { is_key: true }),
                '}' if self.state == FirstKey => self.close('{'),
                _ => None,
            },
            Colon => (c == ':').then_some(Value),
            AfterValue => match c {
                ',' => Some(if self.open.last() == Some(&'{') { Key } else { Value }),
                '}' => self.close('{'),
                ']' => self.close('['),
                _ => None,
            },
        }
    }

    fn close(&mut self, opened_by: char) -> Option<State> {
        (self.open.pop() == Some(opened_by)).then_some(State::AfterValue)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Whether `text` is exactly one object or list.
    fn is_accepted(text: &str) -> bool {
        let mut scanner = JsonScanner::new();
        let mut chars = text.chars();
        loop {
            match chars.next().map(|c| scanner.push(c)) {
                Some(Step::Inside) => {}
                Some(Step::End) => return chars.next().is_none(),
                Some(Step::Bad) | None => return false,
            }
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,6}", inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_json_is_accepted(value in json(), pretty in any::<bool>()) {
            let value = Value::Array(vec![value]);
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            prop_assert!(is_accepted(&text), "{text}");
        }

        #[test]
        fn what_is_not_json_is_refused(text in r#"[\[{][\[\]{}:,"a1.e\\ 0truefalsn-]{0,12}"#) {
            prop_assert_eq!(is_accepted(text.trim_end()), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }
}
