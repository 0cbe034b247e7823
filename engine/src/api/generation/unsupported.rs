//! Fields of vLLM's routes that would change the answer and that this engine does not honour yet.

use serde_json::Value;

use crate::api::{ApiError, json_body::JsonBody};

/// Each with the value, in JSON, that asks for nothing. Null always does.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("suffix", "\"\""),
    ("use_beam_search", "false"),
    ("prompt_embeds", "null"),
    ("logprob_token_ids", "[]"),
    ("repetition_detection", "null"),
    ("thinking_token_budget", "-1"),
    ("functions", "[]"),
    ("continue_final_message", "false"),
    ("audio", "null"),
    ("modalities", "[\"text\"]"),
];

pub(in crate::api) fn refuse_unsupported(body: &JsonBody) -> Result<(), ApiError> {
    for &(name, neutral) in UNSUPPORTED {
        if body.get(name).is_some_and(|value| !asks_for_nothing(value, neutral)) {
            return Err(ApiError::field(name, format!("`{name}` is not supported yet: leave it out or set it to {neutral}.")));
        }
    }
    Ok(())
}

fn asks_for_nothing(value: &Value, neutral: &str) -> bool {
    match serde_json::from_str(neutral) {
        // 1 and 1.0 are the same number to a client.
        Ok(Value::Number(neutral)) => value.as_f64() == neutral.as_f64(),
        Ok(neutral) => *value == neutral,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_neutral_value_is_accepted_and_any_other_names_its_field() {
        for &(name, neutral) in UNSUPPORTED {
            let body = |value: &str| JsonBody::parse(format!("{{\"{name}\": {value}}}").as_bytes()).unwrap();
            assert_eq!(refuse_unsupported(&body(neutral)), Ok(()), "{name}");
            assert_eq!(refuse_unsupported(&body("null")), Ok(()), "{name}");
            let error = refuse_unsupported(&body("[7]")).unwrap_err().body();
            assert_eq!(error["error"]["param"], name);
        }
        assert_eq!(
            refuse_unsupported(&JsonBody::parse(br#"{"thinking_token_budget": -1.0, "use_beam_search": false, "user": "x"}"#).unwrap()),
            Ok(())
        );
    }
}
