//! The hub's client against a server that speaks its protocol: as it should be, slow, breaking, refusing, and not there at all.

mod server;

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use super::{HubError, HubModel, HubSettings, fetch};
use server::{Bytes, Hub, SHA, etag};

const REPOSITORY: &str = "org/tiny-model";

fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn folder_hub() -> Hub {
    let index = json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).to_string();
    Hub::start(
        REPOSITORY,
        &[
            ("config.json", b"{}".to_vec()),
            ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec()),
            ("README.md", content(100, 1)),
            ("pytorch_model.bin", content(100, 2)),
            ("onnx/model.onnx", content(100, 3)),
            ("model.safetensors.index.json", index.into_bytes()),
            ("model-00001-of-00002.safetensors", content(700_000, 4)),
            ("model-00002-of-00002.safetensors", content(5, 5)),
        ],
    )
}

fn gguf_hub() -> Hub {
    Hub::start(
        REPOSITORY,
        &[
            ("m-Q4_K_M.gguf", content(300, 1)),
            ("m-Q8_0.gguf", content(400, 2)),
            ("big/m-Q6_K-00001-of-00002.gguf", content(40, 3)),
            ("big/m-Q6_K-00002-of-00002.gguf", content(50, 4)),
            ("mmproj-m-F16.gguf", content(10, 5)),
        ],
    )
}

fn model(name: &str) -> HubModel {
    name.parse().unwrap()
}

fn settings(hub: &Hub, cache: &Path) -> HubSettings {
    HubSettings {
        endpoint: hub.endpoint.clone(),
        cache: cache.to_owned(),
        token: None,
        offline: false,
        // Silence that only a server that means it keeps on a busy machine.
        silence: Duration::from_secs(30),
        first_pause: Duration::from_millis(1),
    }
}

fn error(result: Result<impl Sized, HubError>, hub: &Hub) -> String {
    result.map(|_| ()).unwrap_err().to_string().replace(&hub.endpoint, "HUB")
}

#[test]
fn fetches_what_serving_needs_once_in_pythons_layout() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    let settings = settings(&hub, cache.path());
    let folder = fetch(&model(REPOSITORY), &settings).unwrap();
    let repository = cache.path().join("models--org--tiny-model");
    assert_eq!(folder, repository.join("snapshots").join(SHA));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), SHA);
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(fs::read(folder.join(expected[1])).unwrap(), content(700_000, 4));
    let link = fs::read_link(folder.join(expected[1])).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(etag(expected[1])));

    hub.requests();
    assert_eq!(fetch(&model(REPOSITORY), &settings).unwrap(), folder);
    assert_eq!(hub.requests().len(), 1, "only the revision is asked for again");
    let offline = HubSettings { offline: true, ..settings.clone() };
    assert_eq!(fetch(&model(REPOSITORY), &offline).unwrap(), folder);
    let by_commit = model(REPOSITORY).with_revision(Some(SHA));
    assert_eq!(fetch(&by_commit, &offline).unwrap(), folder);
    assert!(hub.requests().is_empty());
    // A hub that is down does not stop what the cache has.
    let down = HubSettings { endpoint: "http://127.0.0.1:1".into(), ..settings };
    assert_eq!(fetch(&model(REPOSITORY), &down).unwrap(), folder);
}

#[test]
fn a_transfer_that_breaks_is_taken_up_where_it_broke() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    hub.set(|state| state.bytes = Bytes::Cut { after: 100_000, times: 3 });
    let folder = fetch(&model(REPOSITORY), &settings(&hub, cache.path())).unwrap();
    assert_eq!(fs::read(folder.join("model-00001-of-00002.safetensors")).unwrap(), content(700_000, 4));
    let ranges: Vec<String> =
        hub.requests().iter().filter(|r| r.path.contains("/storage/")).filter_map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=200000-", "bytes=300000-"]);
}

#[test]
fn what_has_arrived_is_kept_for_the_next_run() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    let settings = settings(&hub, cache.path());
    // Each attempt gets further, so that it is the last ones, which get nothing, that end it.
    hub.set(|state| state.bytes = Bytes::Cut { after: 0, times: 1000 });
    let message = error(fetch(&model(REPOSITORY), &settings), &hub);
    assert!(
        message.starts_with("org/tiny-model/model-00001-of-00002.safetensors cannot be fetched from HUB: ")
            && message.ends_with("; what has arrived is kept, start again to go on"),
        "{message}"
    );
    let partial = cache.path().join("models--org--tiny-model/blobs").join(etag("model-00001-of-00002.safetensors") + ".incomplete");
    fs::write(&partial, &content(700_000, 4)[..250_000]).unwrap();
    hub.set(|state| state.bytes = Bytes::Whole);
    hub.requests();
    let folder = fetch(&model(REPOSITORY), &settings).unwrap();
    assert_eq!(fs::read(folder.join("model-00001-of-00002.safetensors")).unwrap(), content(700_000, 4));
    assert!(!partial.exists());
    assert!(hub.requests().iter().any(|r| r.headers.get("range").is_some_and(|range| range == "bytes=250000-")));
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    hub.set(|state| state.bytes = Bytes::NoRanges { first_cut: 300_000 });
    let folder = fetch(&model(REPOSITORY), &settings(&hub, cache.path())).unwrap();
    assert_eq!(fs::read(folder.join("model-00001-of-00002.safetensors")).unwrap(), content(700_000, 4));
    // A leftover that is longer than the file is no beginning of it.
    let (hub, cache) = (gguf_hub(), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--org--tiny-model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(etag("m-Q8_0.gguf") + ".incomplete"), content(900, 7)).unwrap();
    let file = fetch(&model("org/tiny-model:Q8_0"), &settings(&hub, cache.path())).unwrap();
    assert_eq!(fs::read(file).unwrap(), content(400, 2));
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_given_up() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    hub.set(|state| state.bytes = Bytes::Slow);
    let folder = fetch(&model(REPOSITORY), &settings(&hub, cache.path())).unwrap();
    assert_eq!(fs::read(folder.join("model-00001-of-00002.safetensors")).unwrap(), content(700_000, 4));

    let (hub, cache) = (gguf_hub(), tempfile::tempdir().unwrap());
    hub.set(|state| state.bytes = Bytes::Stall { after: 0 });
    let impatient = HubSettings { silence: Duration::from_millis(200), ..settings(&hub, cache.path()) };
    let message = error(fetch(&model("org/tiny-model/m-Q8_0.gguf"), &impatient), &hub);
    assert!(message.contains("cannot be fetched from HUB: ") && message.contains("timeout"), "{message}");
}

#[test]
fn each_refusal_is_one_sentence_with_what_to_do() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    let open = settings(&hub, cache.path());
    let with_token = HubSettings { token: Some("hf_secret".into()), ..open.clone() };
    let refused = |part, status, code, settings: &HubSettings| {
        hub.set(|state| state.refusal = Some((part, status, code)));
        let message = error(fetch(&model(REPOSITORY), settings), &hub);
        hub.set(|state| state.refusal = None);
        assert!(!message.contains("hf_secret"));
        message
    };
    let unknown = "HUB knows no such repository, or it is private or gated: check the name, and set HF_TOKEN to a token that may read it";
    assert_eq!(error(fetch(&model("org/other"), &open), &hub), format!("org/other: {unknown}"));
    assert_eq!(refused("/api/", 401, "RepoNotFound", &with_token), format!("org/tiny-model: {unknown}"));
    assert_eq!(refused("/api/", 404, "", &open), format!("org/tiny-model: {unknown}"));
    assert_eq!(
        refused("config.json", 401, "GatedRepo", &open),
        "org/tiny-model/config.json: access needs a token: accept the model's terms at HUB/org/tiny-model and set HF_TOKEN"
    );
    assert_eq!(
        refused("config.json", 403, "GatedRepo", &with_token),
        "org/tiny-model/config.json: access is refused to the token in HF_TOKEN: accept the model's terms at HUB/org/tiny-model, or take a token that may read it"
    );
    assert_eq!(refused("config.json", 404, "EntryNotFound", &open), "org/tiny-model/config.json: HUB has no such file");
    assert_eq!(
        refused("/api/", 500, "", &open),
        "org/tiny-model cannot be fetched from HUB: it answers with status 500; what has arrived is kept, start again to go on"
    );
    assert!(refused("config.json", 503, "", &open).contains("config.json cannot be fetched from HUB: it answers with status 503"));
    assert_eq!(
        error(fetch(&model(REPOSITORY).with_revision(Some("v9")), &open), &hub),
        "org/tiny-model has no revision \"v9\"; --revision takes a branch, a tag or a commit"
    );
    let offline = HubSettings { offline: true, ..open.clone() };
    assert_eq!(
        error(fetch(&model("org/other"), &offline), &hub),
        format!(
            "HF_HUB_OFFLINE is set and the cache in {} does not have all of org/other; unset it once to fetch the model",
            cache.path().display()
        )
    );
    let down = HubSettings { endpoint: "http://127.0.0.1:1".into(), ..open };
    let message = fetch(&model(REPOSITORY), &down).unwrap_err().to_string();
    assert!(message.starts_with("org/tiny-model cannot be fetched from http://127.0.0.1:1: "), "{message}");
}

#[test]
fn half_a_model_is_not_served_offline() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    hub.set(|state| state.refusal = Some(("model-00002", 404, "EntryNotFound")));
    let settings = settings(&hub, cache.path());
    assert!(fetch(&model(REPOSITORY), &settings).is_err());
    // Python notes the revision before it has all files.
    let repository = cache.path().join("models--org--tiny-model");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), SHA).unwrap();
    let offline = HubSettings { offline: true, ..settings };
    assert!(matches!(fetch(&model(REPOSITORY), &offline), Err(HubError::Offline { .. })));
}

#[test]
fn the_token_goes_to_the_hub_and_no_further() {
    let (hub, cache) = (folder_hub(), tempfile::tempdir().unwrap());
    let settings = HubSettings { token: Some("hf_secret".into()), ..settings(&hub, cache.path()) };
    fetch(&model(REPOSITORY), &settings).unwrap();
    let requests = hub.requests();
    let (storage, own): (Vec<_>, Vec<_>) = requests.iter().partition(|r| r.path.starts_with("/storage/"));
    assert!(own.iter().all(|r| r.headers.get("authorization").is_some_and(|value| value == "Bearer hf_secret")));
    assert!(!storage.is_empty() && storage.iter().all(|r| !r.headers.contains_key("authorization")));
}

#[test]
fn one_of_several_gguf_files_is_named() {
    let (hub, cache) = (gguf_hub(), tempfile::tempdir().unwrap());
    let settings = settings(&hub, cache.path());
    let file = |name: &str| fetch(&model(name), &settings).map(|path| fs::read(path).unwrap());
    assert_eq!(file("org/tiny-model:Q4_K_M").unwrap(), content(300, 1));
    assert_eq!(file("org/tiny-model:q8_0").unwrap(), content(400, 2));
    assert_eq!(file("org/tiny-model/m-Q8_0.gguf").unwrap(), content(400, 2));
    let first = fetch(&model("org/tiny-model:Q6_K"), &settings).unwrap();
    assert!(first.ends_with("big/m-Q6_K-00001-of-00002.gguf"));
    assert_eq!(fs::read(first.with_file_name("m-Q6_K-00002-of-00002.gguf")).unwrap(), content(50, 4));
    let offline = HubSettings { offline: true, ..settings.clone() };
    assert_eq!(fetch(&model("org/tiny-model:Q6_K"), &offline).unwrap(), first);
    let names = "big/m-Q6_K-00001-of-00002.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf";
    assert_eq!(
        file("org/tiny-model").unwrap_err().to_string(),
        format!(
            "org/tiny-model has no model that can be served: it has several GGUF files, name one as org/tiny-model:Q4_K_M or by its file: {names}"
        )
    );
    assert_eq!(
        file("org/tiny-model:Q4_K").unwrap_err().to_string(),
        format!("org/tiny-model has no model that can be served: none of its GGUF files is org/tiny-model:Q4_K; it has {names}")
    );
}

#[test]
fn names_are_the_hubs() {
    for good in ["org/name", "Qwen/Qwen3-0.6B", "org/name:Q4_K_M", "org/name/file.gguf", "org/name/sub/file.gguf"] {
        assert_eq!(model(good).to_string(), good);
    }
    for bad in [
        "name",
        "/name",
        "org/",
        "org/name/",
        "../name",
        "org/..",
        "org/na me",
        "org/name/file.bin",
        "a/b:",
        "a/b/c.gguf:Q4",
        "./model",
        "-a/b",
        "",
    ] {
        assert!(bad.parse::<HubModel>().is_err(), "{bad}");
    }
}

#[test]
fn the_environment_means_what_it_means_to_python() {
    let from = |pairs: &[(&str, &str)]| {
        HubSettings::from_variables(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    };
    let settings = from(&[("HOME", "/h")]);
    assert_eq!((settings.endpoint.as_str(), settings.cache.as_path()), ("https://huggingface.co", Path::new("/h/.cache/huggingface/hub")));
    assert!(!settings.offline && settings.token.is_none());
    assert_eq!(from(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
    assert_eq!(from(&[("HOME", "/h"), ("HF_HOME", "/f")]).cache, Path::new("/f/hub"));
    assert_eq!(from(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    assert_eq!(from(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    assert_eq!(from(&[("HF_TOKEN", " hf_x\n")]).token.as_deref(), Some("hf_x"));
    assert_eq!(from(&[("HF_TOKEN", "a\nb")]).token, None);
    assert!(from(&[("HF_HUB_OFFLINE", "true")]).offline && !from(&[("HF_HUB_OFFLINE", "0")]).offline);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(from(&[("HF_HOME", home.path().to_str().unwrap())]).token.as_deref(), Some("hf_file"));
}
