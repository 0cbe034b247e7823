//! What a hub answers, read. Trusts nothing in it: no name of a file leads out of the folder that it is put into, no ETag out of the cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use serde::Deserialize;
use ureq::http::{HeaderMap, StatusCode};

/// A repository at a revision.
#[derive(Debug, PartialEq)]
pub struct RepositoryInfo {
    /// The commit.
    pub sha: String,
    /// Those that lie inside the repository's folder.
    pub files: Vec<String>,
}

/// What the hub says of a file before it is fetched.
#[derive(Debug, PartialEq)]
pub struct FileInfo {
    /// Its content's name in the cache.
    pub etag: String,
    /// In bytes.
    pub size: u64,
}

/// Reads the list of a repository's files, JSON.
///
/// # Errors
/// What is wrong with it.
pub fn repository(text: &[u8]) -> Result<RepositoryInfo, String> {
    #[derive(Deserialize)]
    struct Info {
        sha: String,
        siblings: Vec<Sibling>,
    }
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
    }
    let info: Info = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    if info.sha.is_empty() || !info.sha.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!("\"{}\" is not a commit", info.sha));
    }
    let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).filter(|name| is_inside(name));
    Ok(RepositoryInfo { sha: info.sha, files: files.collect() })
}

/// Reads the headers of a file. Behind a redirect to where the file's bytes lie, only the linked headers are of the file.
///
/// # Errors
/// What is missing or wrong.
pub fn file(headers: &HeaderMap, status: StatusCode) -> Result<FileInfo, String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = header("x-linked-etag").or(header("etag")).ok_or("it has no ETag")?;
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
    let is_plain = etag.len() <= 128 && !etag.is_empty() && etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_plain {
        return Err(format!("its ETag, \"{etag}\", is not a plain name"));
    }
    let size = header("x-linked-size").or_else(|| header("content-length").filter(|_| status.is_success()));
    let size = size.and_then(|size| size.parse().ok()).ok_or("it does not tell the file's size")?;
    Ok(FileInfo { etag, size })
}

/// Where the bytes of an answer begin: at `asked`, elsewhere where it says so, or at 0 where the server does not do ranges.
pub fn first_byte(headers: &HeaderMap, status: StatusCode, asked: u64) -> u64 {
    if status != StatusCode::PARTIAL_CONTENT {
        return 0;
    }
    let range = headers.get("content-range").and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()).unwrap_or(asked)
}

/// Reads the files that `model.safetensors.index.json` names.
///
/// # Errors
/// What is wrong with it.
pub fn shards(text: &[u8]) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(text).map_err(|e| format!("is malformed: {e}"))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    match names.iter().find(|name| name.contains('/') || !name.ends_with(".safetensors")) {
        Some(name) => Err(format!("names \"{name}\", which is not a plain safetensors file")),
        None => Ok(names),
    }
}

/// Whether a file of this name lies inside the folder that it is put into.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_not_files() {
        for (name, inside) in [
            ("config.json", true),
            ("1_Pooling/config.json", true),
            ("../x.gguf", false),
            ("/x.gguf", false),
            ("a/../../x", false),
            ("", false),
        ] {
            assert_eq!(is_inside(name), inside, "{name}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (ureq::http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_file_behind_a_redirect_is_told_by_its_linked_headers() {
        let linked = [("etag", "\"page\""), ("content-length", "7"), ("x-linked-etag", "W/\"abc\""), ("x-linked-size", "900")];
        assert_eq!(file(&headers(&linked), StatusCode::FOUND), Ok(FileInfo { etag: "abc".into(), size: 900 }));
        let plain = headers(&linked[..2]);
        assert_eq!(file(&plain, StatusCode::OK), Ok(FileInfo { etag: "page".into(), size: 7 }));
        assert!(file(&plain, StatusCode::FOUND).unwrap_err().contains("size"), "the length is the redirect's own");
        assert!(file(&headers(&[("content-length", "7")]), StatusCode::OK).unwrap_err().contains("no ETag"));
        assert!(file(&headers(&[("etag", "\"../x\""), ("content-length", "7")]), StatusCode::OK).unwrap_err().contains("../x"));
    }

    /// What fuzzing begins with is whole, so that it gets behind the first checks.
    #[test]
    fn the_fuzzers_answers_are_ones_that_name_a_model() {
        for seed in ["folder", "gguf"] {
            let seed = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/hub").join(seed)).unwrap();
            let [name, list, index, ..] = seed.split(|&byte| byte == 0).collect::<Vec<_>>()[..] else { panic!("too few parts") };
            let model = std::str::from_utf8(name).unwrap().parse().unwrap();
            super::super::wanted(&model, &repository(list).unwrap().files).unwrap();
            assert_eq!(shards(index).is_ok(), name == b"org/model");
        }
    }

    #[test]
    fn where_bytes_begin_is_what_the_answer_says() {
        let range = |text: &str| headers(&[("content-range", text)]);
        assert_eq!(first_byte(&range("bytes 5-9/10"), StatusCode::PARTIAL_CONTENT, 7), 5);
        assert_eq!(first_byte(&range("lines 5-9/10"), StatusCode::PARTIAL_CONTENT, 7), 7);
        assert_eq!(first_byte(&range("bytes 5-9/10"), StatusCode::OK, 7), 0);
    }

    proptest! {
        #[test]
        fn whatever_an_etag_is_its_name_stays_in_the_cache(etag in "[ -~]{0,140}") {
            if let Ok(info) = file(&headers(&[("etag", &etag), ("content-length", "1")]), StatusCode::OK) {
                prop_assert!(!info.etag.is_empty() && !info.etag.contains(['/', '.', '\\']), "{}", info.etag);
            }
        }

        #[test]
        fn no_listed_file_lies_outside(names in prop::collection::vec("[./a\\\\]{0,8}", 0..6)) {
            let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
            let text = serde_json::json!({"sha": "c0ffee", "siblings": siblings}).to_string();
            for name in repository(text.as_bytes()).unwrap().files {
                prop_assert!(!name.starts_with('/') && name.split('/').all(|part| part != ".."), "{name}");
            }
        }
    }
}
