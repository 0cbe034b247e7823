//! Request bodies: JSON objects of bounded size, read into a route's fields with errors that name the field.

use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ApiError;

/// A context of millions of tokens fits, as text and as ids.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;

/// Longest body that is parsed on the thread that serves other connections too.
const INLINE_PARSE_BYTES: usize = 64 << 10;

/// A JSON object.
pub(super) struct JsonBody {
    object: Value,
    length: usize,
}

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let bytes = to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(|error| {
            let error = error.into_inner();
            if error.is::<http_body_util::LengthLimitError>() {
                too_large()
            } else {
                ApiError::new(StatusCode::BAD_REQUEST, format!("The request body could not be read: {error}"))
            }
        })?;
        if bytes.len() <= INLINE_PARSE_BYTES {
            return Self::parse(&bytes);
        }
        let failed = |e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The request body could not be read: {e}"));
        tokio::task::spawn_blocking(move || Self::parse(&bytes)).await.map_err(failed)?
    }
}

impl JsonBody {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let refused = |message| ApiError::new(StatusCode::BAD_REQUEST, message);
        if bytes.is_empty() {
            return Err(refused("The request body is empty, a JSON object was expected".to_owned()));
        }
        match serde_json::from_slice(bytes) {
            Ok(object @ Value::Object(_)) => Ok(Self { object, length: bytes.len() }),
            Ok(_) => Err(refused("The request body is JSON but not an object".to_owned())),
            Err(error) => Err(refused(format!("The request body is not valid JSON: {error}"))),
        }
    }

    /// One that another route's body was converted to, which had `length` bytes.
    pub(super) fn from_object(object: Map<String, Value>, length: usize) -> Self {
        Self { object: Value::Object(object), length }
    }

    /// Bytes of JSON.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The fields that `T` knows; others are ignored, as vLLM does.
    pub(super) fn fields<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(&self.object).map_err(|error| {
            let path = error.path().to_string();
            ApiError::field(path.clone(), format!("`{path}` is not valid: {}", error.inner()))
        })
    }

    /// A field's value unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("The Content-Type must be application/json, not {}", if given.is_empty() { "absent" } else { given });
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The request body is larger than {} MiB", MAX_BODY_BYTES >> 20))
}
