//! The output: OpenAI's batch records, one a line, and the summary.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, Write},
    path::Path,
};

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{BatchConfig, BatchError};

/// An answer, good or bad, of the route.
pub(super) fn answer(id: &str, status: u16, request_id: &str, body: Value) -> Value {
    json!({
        "id": record_id(), "custom_id": id, "response": {"status_code": status, "request_id": request_id, "body": body}, "error": null,
    })
}

/// A line that came to no route.
pub(super) fn refusal(id: &str, reason: &str) -> Value {
    json!({"id": record_id(), "custom_id": id, "response": null, "error": {"code": "invalid_line", "message": reason}})
}

fn record_id() -> String {
    format!("batch_req_{}", Uuid::new_v4().simple())
}

/// Whether this may be the beginning of a record whose writing was cut short.
fn may_be_cut(line: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"id\":\"batch_req_";
    line.starts_with(BEGINNING) || BEGINNING.starts_with(line)
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub model: String,
    pub input: String,
    pub output: String,
    /// Lines of the input that are not empty.
    pub lines: usize,
    /// Those that the output had already.
    pub answered_before: usize,
    pub answered: usize,
    /// Those of `answered` whose record tells an error.
    pub failed: usize,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Without loading the model.
    pub seconds: f64,
    /// Whether lines are left to ask.
    pub interrupted: bool,
}

impl Summary {
    pub(super) fn new(model: &str, batch: &BatchConfig, lines: usize, answered_before: usize) -> Self {
        Self {
            model: model.to_owned(),
            input: batch.input.display().to_string(),
            output: batch.output.display().to_string(),
            lines,
            answered_before,
            answered: 0,
            failed: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            seconds: 0.0,
            interrupted: false,
        }
    }

    pub(super) fn add(&mut self, record: &Value) {
        let response = &record["response"];
        self.answered += 1;
        self.failed += usize::from(response["status_code"] != 200);
        let tokens = |name: &str| response["body"]["usage"][name].as_u64().unwrap_or(0);
        self.prompt_tokens += tokens("prompt_tokens");
        self.completion_tokens += tokens("completion_tokens");
    }
}

/// The file that grows.
pub(super) struct Output {
    file: File,
    path: String,
}

impl Output {
    /// Opens or creates it, cuts off a last line that was not written to its end, and names what it has.
    ///
    /// # Errors
    /// When it cannot be read or written, another process has it, or it holds something else.
    pub(super) fn open(path: &Path) -> Result<(Self, HashSet<String>), BatchError> {
        let shown = path.display().to_string();
        let io = |source| BatchError::Io { path: shown.clone(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BatchError::InUse { path: shown }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut done = HashSet::new();
        let mut whole_bytes = 0;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(io)? == 0 {
                break;
            }
            let foreign = |reason| BatchError::ForeignOutput { path: shown.clone(), line: number, reason };
            if line.last() != Some(&b'\n') {
                if may_be_cut(&line) {
                    break;
                }
                return Err(foreign("has no end and does not begin as an answer does".to_owned()));
            }
            let id = id_of(&line).map_err(foreign)?;
            done.insert(id);
            whole_bytes += line.len() as u64;
        }
        file.set_len(whole_bytes).map_err(io)?;
        Ok((Self { file, path: shown }, done))
    }

    /// One line, in one write.
    pub(super) fn append(&mut self, record: &Value) -> Result<(), BatchError> {
        let line = format!("{record}\n");
        self.file.write_all(line.as_bytes()).map_err(|source| BatchError::Io { path: self.path.clone(), source })
    }

    /// Waits until the disk has it.
    pub(super) fn sync(&self) -> Result<(), BatchError> {
        self.file.sync_all().map_err(|source| BatchError::Io { path: self.path.clone(), source })
    }
}

fn id_of(line: &[u8]) -> Result<String, String> {
    let record: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    record["custom_id"].as_str().map(str::to_owned).ok_or_else(|| "it has no custom_id".to_owned())
}

/// Puts `bytes` in the file's place in one step.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), BatchError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        BatchError::Io { path: path.display().to_string(), source }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(all: &[&str]) -> HashSet<String> {
        all.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn two_writers_at_a_time_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (first, _) = Output::open(&path).unwrap();
        assert!(matches!(Output::open(&path), Err(BatchError::InUse { .. })));
        drop(first);
        Output::open(&path).unwrap();
    }

    #[test]
    fn somebody_elses_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for notes in ["my notes\n", "my notes", "{\"id\": \"mine\"}"] {
            std::fs::write(&path, notes).unwrap();
            let error = Output::open(&path).err().unwrap().to_string();
            assert!(error.contains("notes.txt: line 1 "), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
        }
    }

    #[test]
    fn a_summary_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        write_atomically(&path, b"1").unwrap();
        write_atomically(&path, b"2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_file_cut_anywhere_keeps_its_whole_lines_and_grows_on(cut in 0usize..400) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out.jsonl");
            let (mut output, done) = Output::open(&path).unwrap();
            prop_assert!(done.is_empty());
            output.append(&answer("a", 200, "r", json!({"text": "one\ntwo"}))).unwrap();
            output.append(&refusal("b", "no")).unwrap();
            drop(output);
            let whole = std::fs::read(&path).unwrap();
            let cut = cut.min(whole.len());
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|&&byte| byte == b'\n').count();

            let (mut output, done) = Output::open(&path).unwrap();
            prop_assert_eq!(&done, &ids(&["a", "b"][..lines]));
            output.append(&refusal("c", "no")).unwrap();
            drop(output);
            let (_, done) = Output::open(&path).unwrap();
            prop_assert_eq!(done, ids(&[&["a", "b"][..lines], &["c"]].concat()));
        }
    }
}
